// What earlier runs left. A worker reads the registry and the folders; then all pods are asked at
// once, each within its own time, and meanwhile workers look at what is left of those that have
// ended. Nothing is deleted but what nobody was ever told of.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/known.h"
#include "runner/placement.h"
#include "runner/session.h"
#include "runner/tree.h"
#include "runner/upgrade.h"

#define READERS_MAX 2    // Workers that look at what is left: others are needed for other things.
#define PASSING_TRIES 40 // For all folders together, when the runner starts.
#define PASSING_MS 50
#define LATE_MS 5000 // For what is left of those that have ended, before a list goes without.

struct found {
    struct found *next;
    pm_process *process;
    const char *key; // Of the Handle.
    bool used;
};

struct folder { // As the worker has found it.
    struct folder *next;
    char path[4096];
    char id[RUNNER_ID_MAX + 1];
    int result;     // PM_OK, or why its description cannot be read.
    bool named;     // The description is of this folder: `id` counts.
    bool half_made; // It was dropped, or is about to go by itself.
    char *text;
    size_t size;
};

struct recovery {
    uv_work_t work;
    struct server *server;
    struct found *found;
    struct folder *folders;
    unsigned tries;
    struct pm_recover_report report;
    struct placement_home home;
    int result;
    uint64_t began;
};

// ------------------------------------------------------------------------------------------------
// Epoch: each run of a runner has a higher one than all before it
// ------------------------------------------------------------------------------------------------

int epoch_next(struct server *server, uint64_t at_least)
{
    char path[4200], text[32], *old = NULL;
    size_t size;
    uint64_t epoch = server->epoch;
    (void)snprintf(path, sizeof path, "%s/epoch", server->env->state_dir);
    if (os_read_file(path, 31, &old, &size) == 0) {
        uint64_t known = strtoull(old, NULL, 10);
        epoch = known > epoch ? known : epoch;
        free(old);
    }
    epoch = epoch < EPOCH_MAX ? epoch + 1 : EPOCH_MAX; // Of equal ones the registry decides.
    epoch = epoch > at_least ? epoch : at_least;
    int n = snprintf(text, sizeof text, "%llu\n", (unsigned long long)epoch);
    int result = os_write_file(path, text, (size_t)n);
    server->epoch = epoch; // Also on a full disk: pods tell if it is not enough.
    return result;
}

// ------------------------------------------------------------------------------------------------
// One folder
// ------------------------------------------------------------------------------------------------

// The description that a session has in its folder.
static int take_description(struct session *session, const char *text, size_t size)
{
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    const char *mode = json_string_value(json_object_get(json, "mode"));
    const char *program = json_string_value(json_object_get(json, "program"));
    json_t *labels = json_object_get(json, "labels");
    int result = -1;
    if (mode != NULL && program != NULL && json_is_object(labels)) {
        const char *full = json_string_value(json_object_get(json, "on_full"));
        session->pipes = strcmp(mode, "pipes") == 0;
        session->waits = full != NULL && strcmp(full, "wait") == 0;
        session->ring = (uint64_t)json_integer_value(json_object_get(json, "ring"));
        session->grace_ms = (uint32_t)json_integer_value(json_object_get(json, "grace_ms"));
        session->program = strdup(program);
        session->labels = json_incref(labels);
        session->created_ms = (int64_t)json_integer_value(json_object_get(json, "created"));
        result = session->program != NULL ? 0 : -1;
    }
    json_decref(json);
    return result;
}

bool session_described(const char *text, size_t size, char id[RUNNER_ID_MAX + 1])
{
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    const char *value = json_string_value(json_object_get(json, "id"));
    bool valid = value != NULL && rpc_valid_id(value);
    if (valid) {
        (void)snprintf(id, RUNNER_ID_MAX + 1, "%s", value);
    }
    json_decref(json);
    return valid;
}

static struct found *find_process(const struct recovery *recovery, const char *id)
{
    struct found *found = recovery->found;
    while (found != NULL && strcmp(found->key, id) != 0) {
        found = found->next;
    }
    return found;
}

static void begin_session(struct recovery *recovery, struct session *session, struct found *found)
{
    struct server *server = session->server;
    session->state = SESSION_UNREACHABLE;
    session->counted = true;
    server->recovering++;
    if (found != NULL) {
        found->used = true;
        session->process = found->process;
        session->daemon_pid = pm_process_pid(found->process);
        if (!recovery->home.looked) {
            placement_home(&recovery->home);
        }
        placement_check(&recovery->home, session->daemon_pid, session->warnings);
    }
}

// A folder whose session was being made when its maker died. Its holder, if it came to that, ends
// by itself when the connection does, or is ended here.
static void drop_half_made(const struct recovery *recovery, const struct folder *folder)
{
    const char *id = folder->named ? folder->id : NULL;
    struct found *found = id != NULL ? find_process(recovery, id) : NULL;
    struct pod_dir dir = POD_DIR_INIT;
    const struct pm_stop_plan plan = {.steps_count = 1,
                                      .steps = {{PM_STOP_KILL, PM_SCOPE_TREE, KILL_MARGIN_MS}}};
    bool free_to_go = pod_dir_open(folder->path, &dir) == PM_OK;
    if (found != NULL) {
        found->used = true;
        (void)pm_process_stop(found->process, &plan, NULL);
        found->process = pm_process_unref(found->process);
        found->key = ""; // It was the process's.
    }
    free_to_go = free_to_go && (found != NULL || pod_dir_lock(&dir) == PM_OK);
    pod_dir_close(&dir);
    if (free_to_go) {
        (void)tree_remove(folder->path);
        (void)pm_forget(recovery->server->manager, id != NULL ? id : "-");
        log_write(recovery->server->log, LOG_WARNING, "session.dropped", id,
                  "its start, or its removal, did not come to its end: '%s'", folder->path);
    }
}

static int read_description(struct folder *folder, bool *ret_starting)
{
    struct pod_dir dir = POD_DIR_INIT;
    uint8_t *text = NULL;
    int result = pod_dir_open(folder->path, &dir);
    *ret_starting = false;
    if (result == PM_OK) {
        result = pod_file_read(&dir, FILE_SESSION, SESSION_FILE_MAX, &text, &folder->size);
        if (result == PM_ERR_NOT_FOUND) {
            *ret_starting = true;
            result = pod_file_read(&dir, FILE_STARTING, SESSION_FILE_MAX, &text, &folder->size);
        }
    }
    pod_dir_close(&dir);
    folder->text = (char *)text;
    return result;
}

// In a worker.
static void read_folder(struct recovery *recovery, const char *path)
{
    struct folder *folder = calloc(1, sizeof *folder);
    char expected[4096];
    bool starting = false;
    if (folder == NULL) {
        return; // Its holder is still known by the registry.
    }
    (void)snprintf(folder->path, sizeof folder->path, "%s", path);
    while (session_passing(folder->result = read_description(folder, &starting)) &&
           recovery->tries < PASSING_TRIES) {
        recovery->tries++;
        uv_sleep(PASSING_MS);
    }
    if (folder->result == PM_OK && session_described(folder->text, folder->size, folder->id)) {
        session_folder(recovery->server->env->state_dir, folder->id, expected);
        folder->named = strcmp(expected, path) == 0;
    }
    folder->half_made =
        folder->result == PM_ERR_NOT_FOUND ? known_is_half_made(path) : starting && folder->named;
    if (folder->half_made) {
        drop_half_made(recovery, folder);
    }
    folder->next = recovery->folders;
    recovery->folders = folder;
}

static void read_folders(struct recovery *recovery)
{
    struct server *server = recovery->server;
    uv_fs_t request;
    uv_dirent_t entry;
    int result = uv_fs_scandir(NULL, &request, server->sessions_dir, 0, NULL);
    while (result >= 0 && uv_fs_scandir_next(&request, &entry) != UV_EOF) {
        char path[4096 + 300];
        (void)snprintf(path, sizeof path, "%s/%s", server->sessions_dir, entry.name);
        read_folder(recovery, path);
    }
    if (result < 0) {
        log_write(server->log, LOG_ERROR, "runner.recover", NULL, "folder '%s': %s",
                  server->sessions_dir, uv_strerror(result));
    }
    uv_fs_req_cleanup(&request);
}

// Shown under the name of its folder; `forget` takes it away.
static void set_aside(struct server *server, const struct folder *folder, const char *why)
{
    const char *slash = strrchr(folder->path, '/');
    const char *name = slash != NULL ? slash + 1 : folder->path;
    struct session *session = strlen(name) <= RUNNER_ID_MAX && session_find(server, name) == NULL
                                  ? session_add(server, name)
                                  : NULL;
    if (session == NULL) {
        log_write(server->log, LOG_ERROR, "session.unproven", NULL, "folder '%s': %s", folder->path,
                  why);
        return;
    }
    session->aside = true;
    session->aside_passing = session_passing(folder->result);
    memcpy(session->path, folder->path, sizeof session->path);
    session_fail(session, SESSION_UNPROVEN, "its folder cannot be %s: %s",
                 session->aside_passing ? "read now" : "trusted", why);
}

static void take_folder(struct recovery *recovery, const struct folder *folder)
{
    struct server *server = recovery->server;
    struct session *known = folder->named ? session_find(server, folder->id) : NULL;
    if (folder->half_made) {
        return;
    }
    if (known != NULL && known->program == NULL) { // Known by its holder alone so far.
        (void)take_description(known, folder->text, folder->size);
        return;
    }
    if (!folder->named || known != NULL) {
        set_aside(server, folder,
                  folder->result != PM_OK ? known_trouble(folder->result)
                                          : "its description is not that of this folder");
        return;
    }
    struct session *session = session_add(server, folder->id);
    if (session != NULL && take_description(session, folder->text, folder->size) != 0) {
        set_aside(server, folder, "its description is damaged");
        session_remove(session);
    } else if (session != NULL) {
        begin_session(recovery, session, find_process(recovery, folder->id));
        if (session->process == NULL) {
            (void)pm_find(server->manager, session->id, &session->process);
        }
    }
}

// A holder whose folder is gone: still found, listed and ended by its Handle.
static void take_strays(struct recovery *recovery)
{
    for (struct found *found = recovery->found; found != NULL; found = found->next) {
        if (found->used) {
            continue;
        }
        found->used = true;
        if (!pm_process_alive(found->process)) {
            (void)pm_forget(recovery->server->manager, found->key);
            (void)pm_process_unref(found->process);
            continue;
        }
        struct session *session = session_find(recovery->server, found->key) == NULL
                                      ? session_add(recovery->server, found->key)
                                      : NULL;
        if (session != NULL) {
            begin_session(recovery, session, found);
        }
    }
}

// ------------------------------------------------------------------------------------------------
// All of them
// ------------------------------------------------------------------------------------------------

static int on_found(void *user, pm_process *process)
{
    struct recovery *recovery = user;
    struct pm_info info = PM_INFO_INIT;
    struct found *found = calloc(1, sizeof *found);
    if (found == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    found->key = pm_process_info(process, &info) == PM_OK && info.key != NULL ? info.key : "";
    found->process = pm_process_ref(process);
    found->next = recovery->found;
    recovery->found = found;
    return 0;
}

static void work_recover(uv_work_t *work)
{
    struct recovery *recovery = work->data;
    recovery->report = (struct pm_recover_report)PM_RECOVER_REPORT_INIT;
    // Passing troubles delete nothing: it is tried again.
    for (int i = 0; i < 50; i++) {
        recovery->result =
            pm_recover(recovery->server->manager, on_found, recovery, &recovery->report);
        if (recovery->result == PM_OK || recovery->result == PM_ERR_CLOSED) {
            break;
        }
        uv_sleep(100);
    }
    read_folders(recovery);
}

// Those that live are asked at once; of the others the workers look at what is left.
static void ask_all(struct server *server)
{
    struct session *next;
    uv_update_time(&server->loop); // Their times begin now, and not before what was done so far.
    for (struct session *session = server->sessions; session != NULL; session = next) {
        next = session->next;
        if (!session->counted || session->settled || session->unread) {
            continue;
        }
        if (session->process != NULL && pm_process_alive(session->process)) {
            (void)session_ask(session, ASK_STATUS, NULL);
        } else {
            session->unread = session->queued = true;
            session->next_unread = server->unread_first;
            server->unread_first = session;
            server->unread++;
            (void)snprintf(session->problem, sizeof session->problem,
                           "what is left of it is not read yet");
        }
    }
}

void recover_removed(struct session *session)
{
    struct session **at = &session->server->unread_first;
    if (session->queued) {
        while (*at != session) {
            at = &(*at)->next_unread;
        }
        *at = session->next_unread;
        session->queued = false;
    }
}

static void looked_at(struct session *session)
{
    struct server *server = session->server;
    recover_removed(session); // Looked at before its turn came: nothing says that it stays.
    if (session->unread) {
        session->unread = false;
        server->unread--;
        if (server->unread == 0) {
            methods_release(server, &server->held);
        }
    }
}

static void read_more(struct server *server)
{
    while (server->reading < READERS_MAX && server->unread_first != NULL &&
           server->end == SERVER_RUNS) {
        struct session *session = server->unread_first;
        server->unread_first = session->next_unread;
        session->queued = false;
        session_collect(session);
        if (session->collecting) {
            session->reading = true;
            server->reading++;
        } else {
            looked_at(session);
        }
    }
}

void recover_collected(struct session *session)
{
    struct server *server = session->server;
    looked_at(session);
    if (session->reading) {
        session->reading = false;
        server->reading--;
        read_more(server);
    }
}

static void clear_recovery(struct recovery *recovery)
{
    while (recovery->found != NULL) {
        struct found *found = recovery->found;
        recovery->found = found->next;
        free(found);
    }
    while (recovery->folders != NULL) {
        struct folder *folder = recovery->folders;
        recovery->folders = folder->next;
        free(folder->text);
        free(folder);
    }
}

static void log_registry(const struct recovery *recovery)
{
    const struct pm_recover_report *report = &recovery->report;
    bool well = recovery->result == PM_OK;
    log_write(recovery->server->log, well ? LOG_INFO : LOG_ERROR, "runner.registry", NULL,
              "%llu alive, %llu ended, %llu dropped, %llu quarantined, %llu unproven%s%s",
              (unsigned long long)report->alive, (unsigned long long)report->ended,
              (unsigned long long)report->dropped, (unsigned long long)report->quarantined,
              (unsigned long long)report->unproven, well ? "" : ": ",
              well ? "" : pm_strerror(recovery->result));
}

static void after_recover(uv_work_t *work, int status)
{
    struct recovery *recovery = work->data;
    struct server *server = recovery->server;
    (void)status;
    for (const struct folder *folder = recovery->folders; folder != NULL; folder = folder->next) {
        take_folder(recovery, folder);
    }
    take_strays(recovery);
    log_registry(recovery);
    size_t all = server->recovering;
    ask_all(server);
    server->recovered = true;
    server->late_until = uv_now(&server->loop) + LATE_MS;
    server->recovery_ms = (uv_hrtime() - recovery->began) / 1000000;
    log_write(server->log, LOG_INFO, "runner.ready", NULL, "%llu sessions, epoch %llu, %llu ms",
              (unsigned long long)all, (unsigned long long)server->epoch,
              (unsigned long long)server->recovery_ms);
    clear_recovery(recovery);
    free(recovery);
    services_start(server);
    upgrade_tell_ready(server->env, server->ready);
    server->ready = PM_NATIVE_INVALID;
    methods_release(server, &server->held);
    read_more(server);
}

int recover_begin(struct server *server, struct runner_error *error)
{
    struct recovery *recovery = POD_SYS(calloc)(1, sizeof *recovery);
    if (recovery == NULL) {
        return runner_fail(error, RUNNER_FAILED, "start of a runner for '%s'\nout of memory",
                           server->env->state_dir);
    }
    recovery->work.data = recovery;
    recovery->server = server;
    recovery->began = uv_hrtime();
    if (uv_queue_work(&server->loop, &recovery->work, work_recover, after_recover) != 0) {
        work_recover(&recovery->work);
        after_recover(&recovery->work, 0);
    }
    return RUNNER_OK;
}

// ------------------------------------------------------------------------------------------------
// Folders that could not be read for a passing trouble
// ------------------------------------------------------------------------------------------------

struct again {
    struct recovery recovery;
    char (*paths)[4096];
    size_t count;
};

static void work_again(uv_work_t *work)
{
    struct again *again = work->data;
    again->recovery.tries = PASSING_TRIES; // This is the next try itself.
    for (size_t i = 0; i < again->count; i++) {
        read_folder(&again->recovery, again->paths[i]);
    }
}

static struct session *find_aside(struct server *server, const char *path)
{
    struct session *session = server->sessions;
    while (session != NULL && (!session->aside_passing || strcmp(session->path, path) != 0)) {
        session = session->next;
    }
    return session;
}

static void after_again(uv_work_t *work, int status)
{
    struct again *again = work->data;
    struct server *server = again->recovery.server;
    (void)status;
    server->works--;
    server->rescanning = false;
    for (struct folder *f = again->recovery.folders; f != NULL; f = f->next) {
        struct session *session = find_aside(server, f->path);
        if (session != NULL && !session_passing(f->result)) {
            session_log(session, LOG_INFO, "session.read",
                        "the trouble with its folder has passed");
            session_remove(session);
            take_folder(&again->recovery, f);
        }
    }
    ask_all(server);
    read_more(server);
    clear_recovery(&again->recovery);
    free(again->paths);
    free(again);
}

void recover_again(struct server *server)
{
    size_t count = 0;
    for (const struct session *s = server->sessions; s != NULL; s = s->next) {
        count += s->aside_passing;
    }
    struct again *again =
        count > 0 && !server->rescanning && server->recovered ? calloc(1, sizeof *again) : NULL;
    if (again == NULL || (again->paths = calloc(count, sizeof *again->paths)) == NULL) {
        free(again);
        return;
    }
    for (const struct session *s = server->sessions; s != NULL; s = s->next) {
        if (s->aside_passing) {
            memcpy(again->paths[again->count++], s->path, sizeof s->path);
        }
    }
    again->recovery.server = server;
    again->recovery.work.data = again;
    server->rescanning = true;
    server->works++;
    if (uv_queue_work(&server->loop, &again->recovery.work, work_again, after_again) != 0) {
        work_again(&again->recovery.work);
        after_again(&again->recovery.work, 0);
    }
}
