// What earlier runs left: the registry is read in a worker, then all pods are asked at once, each
// within its own time. Nothing is deleted but what nobody was ever told of.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/placement.h"
#include "runner/session.h"
#include "runner/upgrade.h"

struct found {
    struct found *next;
    pm_process *process;
    const char *key; // Of the Handle.
    bool used;
};

struct recovery {
    uv_work_t work;
    struct server *server;
    struct found *found;
    struct pm_recover_report report;
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
    epoch = epoch + 1 > at_least ? epoch + 1 : at_least;
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
        session->pipes = strcmp(mode, "pipes") == 0;
        session->program = strdup(program);
        session->labels = json_incref(labels);
        session->created_ms = (int64_t)json_integer_value(json_object_get(json, "created"));
        result = session->program != NULL ? 0 : -1;
    }
    json_decref(json);
    return result;
}

static bool take_id(const char *text, size_t size, char id[RUNNER_ID_MAX + 1])
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

static void begin_session(struct session *session, struct found *found)
{
    struct server *server = session->server;
    session->state = SESSION_UNREACHABLE;
    session->counted = true;
    server->recovering++;
    if (found != NULL) {
        found->used = true;
        session->process = found->process;
        session->daemon_pid = pm_process_pid(found->process);
        struct placement placement;
        placement_look(session->daemon_pid, &placement);
        placement_warn(&placement, session->warnings);
    }
}

// A folder whose session was being made when its maker died. Its holder, if it came to that, ends
// by itself when the connection does, or is ended here.
static void drop_half_made(const struct recovery *recovery, const char *path, const char *id)
{
    struct found *found = id != NULL ? find_process(recovery, id) : NULL;
    struct pod_dir dir = POD_DIR_INIT;
    const struct pm_stop_plan plan = {.steps_count = 1,
                                      .steps = {{PM_STOP_KILL, PM_SCOPE_TREE, KILL_MARGIN_MS}}};
    bool free_to_go = pod_dir_open(path, &dir) == PM_OK;
    if (found != NULL) {
        found->used = true;
        (void)pm_process_stop(found->process, &plan, NULL);
        (void)pm_process_unref(found->process);
        found->key = ""; // It was the process's.
    }
    free_to_go = free_to_go && (found != NULL || pod_dir_lock(&dir) == PM_OK);
    pod_dir_close(&dir);
    if (free_to_go) {
        (void)os_remove_tree(path);
        (void)pm_forget(recovery->server->manager, id != NULL ? id : "-");
        log_write(recovery->server->log, LOG_WARNING, "session.dropped", id,
                  "its start did not come to its end: '%s'", path);
    }
}

// Shown under the name of its folder; `forget` takes it away.
static void set_aside(struct server *server, const char *path, const char *why)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash != NULL ? slash + 1 : path;
    struct session *session = strlen(name) <= RUNNER_ID_MAX && session_find(server, name) == NULL
                                  ? session_add(server, name)
                                  : NULL;
    if (session == NULL) {
        log_write(server->log, LOG_ERROR, "session.unproven", NULL, "folder '%s': %s", path, why);
        return;
    }
    (void)snprintf(session->path, sizeof session->path, "%s", path);
    session_fail(session, SESSION_UNPROVEN, "its folder cannot be trusted: %s", why);
}

static void take_folder(struct recovery *recovery, const char *path)
{
    struct server *server = recovery->server;
    struct pod_dir dir = POD_DIR_INIT;
    char id[RUNNER_ID_MAX + 1], expected[4096];
    uint8_t *text = NULL;
    size_t size = 0;
    bool starting = false;
    int result = pod_dir_open(path, &dir);
    if (result == PM_OK) {
        result = pod_file_read(&dir, FILE_SESSION, SESSION_FILE_MAX, &text, &size);
        if (result == PM_ERR_NOT_FOUND) {
            starting = true;
            result = pod_file_read(&dir, FILE_STARTING, SESSION_FILE_MAX, &text, &size);
        }
    }
    pod_dir_close(&dir);
    bool named = result == PM_OK && take_id((const char *)text, size, id);
    if (named) {
        session_folder(server->env->state_dir, id, expected);
        named = strcmp(expected, path) == 0 && session_find(server, id) == NULL;
    }
    struct session *session = NULL;
    if (starting && (named || result == PM_ERR_NOT_FOUND)) {
        drop_half_made(recovery, path, named ? id : NULL);
    } else if (!named) {
        set_aside(server, path,
                  result != PM_OK ? pm_strerror(result)
                                  : "its description is not that of this folder");
    } else if ((session = session_add(server, id)) != NULL &&
               take_description(session, (const char *)text, size) != 0) {
        set_aside(server, path, "its description is damaged");
        session_remove(session);
        session = NULL;
    }
    free(text);
    if (session != NULL) {
        begin_session(session, find_process(recovery, id));
    }
}

static void scan_folders(struct recovery *recovery)
{
    struct server *server = recovery->server;
    uv_fs_t request;
    uv_dirent_t entry;
    int result = uv_fs_scandir(NULL, &request, server->sessions_dir, 0, NULL);
    while (result >= 0 && uv_fs_scandir_next(&request, &entry) != UV_EOF) {
        char path[4096 + 300];
        (void)snprintf(path, sizeof path, "%s/%s", server->sessions_dir, entry.name);
        take_folder(recovery, path);
    }
    if (result < 0) {
        log_write(server->log, LOG_ERROR, "runner.recover", NULL, "folder '%s': %s",
                  server->sessions_dir, uv_strerror(result));
    }
    uv_fs_req_cleanup(&request);
}

// A holder whose folder is gone: still found, listed and ended by its Handle.
static void take_strays(struct recovery *recovery)
{
    for (struct found *found = recovery->found; found != NULL; found = found->next) {
        if (found->used) {
            continue;
        }
        if (!pm_process_alive(found->process)) {
            (void)pm_forget(recovery->server->manager, found->key);
            (void)pm_process_unref(found->process);
            continue;
        }
        struct session *session = session_find(recovery->server, found->key) == NULL
                                      ? session_add(recovery->server, found->key)
                                      : NULL;
        if (session != NULL) {
            begin_session(session, found);
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
            return;
        }
        uv_sleep(100);
    }
}

static void ask_all(struct server *server)
{
    struct session *next;
    for (struct session *session = server->sessions; session != NULL; session = next) {
        next = session->next;
        if (session->counted && !session->settled) {
            if (session->process != NULL && pm_process_alive(session->process)) {
                (void)session_ask(session, ASK_STATUS, NULL);
            } else {
                session_collect(session);
            }
        }
    }
}

static void after_recover(uv_work_t *work, int status)
{
    struct recovery *recovery = work->data;
    struct server *server = recovery->server;
    const struct pm_recover_report *report = &recovery->report;
    (void)status;
    scan_folders(recovery);
    take_strays(recovery);
    log_write(server->log, recovery->result == PM_OK ? LOG_INFO : LOG_ERROR, "runner.registry",
              NULL, "%llu alive, %llu ended, %llu dropped, %llu quarantined, %llu unproven%s%s",
              (unsigned long long)report->alive, (unsigned long long)report->ended,
              (unsigned long long)report->dropped, (unsigned long long)report->quarantined,
              (unsigned long long)report->unproven, recovery->result == PM_OK ? "" : ": ",
              recovery->result == PM_OK ? "" : pm_strerror(recovery->result));
    size_t all = server->recovering;
    ask_all(server);
    server->recovered = true;
    server->recovery_ms = (uv_hrtime() - recovery->began) / 1000000;
    log_write(server->log, LOG_INFO, "runner.ready", NULL, "%llu sessions, epoch %llu, %llu ms",
              (unsigned long long)all, (unsigned long long)server->epoch,
              (unsigned long long)server->recovery_ms);
    while (recovery->found != NULL) {
        struct found *found = recovery->found;
        recovery->found = found->next;
        free(found);
    }
    free(recovery);
    services_start(server);
    upgrade_tell_ready(server->env, server->ready);
    server->ready = PM_NATIVE_INVALID;
    methods_release(server, &server->held);
}

void recover_begin(struct server *server)
{
    struct recovery *recovery = calloc(1, sizeof *recovery);
    if (recovery == NULL) {
        return;
    }
    recovery->work.data = recovery;
    recovery->server = server;
    recovery->began = uv_hrtime();
    if (uv_queue_work(&server->loop, &recovery->work, work_recover, after_recover) != 0) {
        work_recover(&recovery->work);
        after_recover(&recovery->work, 0);
    }
}
