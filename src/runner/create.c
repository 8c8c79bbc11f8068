// A new session: folder, token, holder, configuration. Until all of it is there nobody is told, and
// whatever fails, or ends us, leaves nothing behind.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "poddaemon/folder.h"
#include "runner/control_client.h"
#include "runner/doctor.h"
#include "runner/os.h"
#include "runner/placement.h"
#include "runner/post.h"
#include "runner/session.h"
#include "runner/tree.h"

#define SPAWN_MS 15000 // A runner that ends has to wait for it.
#define HELD_TRIES 50  // Of the removal of what a start leaves, while somebody has it open.
#define HELD_LOOK_MS 100
#define READY_MS 5000  // From the start of the holder to its first word.
#define BEGIN_MS 15000 // And on to the proof of the child's exec, which has 5 s.

struct create {
    struct post_thread thread;
    struct server *server;
    struct session *session;
    struct call *call;
    json_t *params;
    const char **argv, **env;
    char **own_env; // Of which env has pointers.
    struct pod_config config;
    char *meta;
    pm_native ours;
    bool made; // The folder is ours to remove.
    pm_process *process;
    struct placement placement;
    uint8_t token[POD_TOKEN_SIZE];
    uint32_t start_request;
    struct runner_error error; // code: RUNNER_OK while nothing failed.
    bool done;
};

// ------------------------------------------------------------------------------------------------
// What is wanted
// ------------------------------------------------------------------------------------------------

static const char **take_list(const json_t *list, size_t more)
{
    size_t count = json_array_size(list);
    const char **items = calloc(count + more + 1, sizeof *items);
    for (size_t i = 0; items != NULL && i < count; i++) {
        items[i] = json_string_value(json_array_get(list, i));
    }
    return items;
}

bool create_has_variable(const char *const *env, size_t count, const char *name)
{
    size_t i = 0;
    while (i < count && !os_has_name(env[i], name)) {
        i++;
    }
    return i < count;
}

// The list of the client, then what of ours it does not name.
static bool take_env(struct create *create, bool inherit, bool terminal)
{
    const json_t *list = json_object_get(create->params, "env");
    uv_env_item_t *items = NULL;
    int own = 0;
    size_t count = json_array_size(list);
    if (inherit && uv_os_environ(&items, &own) != 0) {
        return false;
    }
    create->env = take_list(list, (size_t)own + 2);
    create->own_env = calloc((size_t)own + 1, sizeof(char *));
    bool fine = create->env != NULL && create->own_env != NULL;
    for (int i = 0, at = 0; fine && i < own; i++) {
        size_t size = strlen(items[i].name) + strlen(items[i].value) + 2;
        char *text = malloc(size);
        fine = text != NULL;
        if (fine) {
            (void)snprintf(text, size, "%s=%s", items[i].name, items[i].value);
            create->own_env[at++] = text;
            if (!create_has_variable(create->env, count, items[i].name)) {
                create->env[count++] = text;
            }
        }
    }
    if (fine && terminal && !create_has_variable(create->env, count, "TERM")) {
        create->env[count] = "TERM=xterm-256color";
    }
    if (items != NULL) {
        uv_os_free_environ(items, own);
    }
    return fine;
}

static uint32_t number_of(const json_t *params, const char *name)
{
    return (uint32_t)json_integer_value(json_object_get(params, name));
}

// A session keeps what it was asked to be, but no environment and no arguments: they hold secrets.
static char *describe(const struct session *session)
{
    json_t *json = json_pack("{s:i, s:s, s:s, s:s, s:I, s:O}", "format", 1, "id", session->id,
                             "mode", session->pipes ? "pipes" : "pty", "program", session->program,
                             "created", (json_int_t)session->created_ms, "labels", session->labels);
    if (json != NULL && session->waits) { // Runners that know nothing of it read over it.
        (void)json_object_set_new(json, "on_full", json_string("wait"));
    }
    if (json != NULL && session->ring != 0) {
        (void)json_object_set_new(json, "ring", json_integer((json_int_t)session->ring));
    }
    if (json != NULL && session->grace_ms != 0) {
        (void)json_object_set_new(json, "grace_ms", json_integer(session->grace_ms));
    }
    char *text = json != NULL ? json_dumps(json, JSON_INDENT(1)) : NULL;
    json_decref(json);
    return text;
}

static int take_params(struct create *create, struct session *session)
{
    json_t *params = create->params;
    const char *base = json_string_value(json_object_get(params, "env_base"));
    const char *mode = json_string_value(json_object_get(params, "mode"));
    const char *full = json_string_value(json_object_get(params, "on_full"));
    const json_t *list = json_object_get(params, "argv");
    json_t *labels = json_object_get(params, "labels");
    bool inherit =
        base != NULL ? strcmp(base, "inherit") == 0 : json_object_get(params, "env") == NULL;
    struct pod_config *c = &create->config;
    session->pipes = mode != NULL && strcmp(mode, "pipes") == 0;
    session->waits = full != NULL && strcmp(full, "wait") == 0;
    session->ring = number_of(params, "ring");
    session->grace_ms = number_of(params, "grace_ms");
    session->program = strdup(json_string_value(json_object_get(params, "program")));
    session->labels = labels != NULL ? json_incref(labels) : json_object();
    session->created_ms = wall_ms();
    create->argv = list != NULL ? take_list(list, 0) : NULL;
    create->meta = session->program != NULL ? describe(session) : NULL;
    if (create->meta == NULL || (list != NULL && create->argv == NULL) ||
        !take_env(create, inherit, !session->pipes)) {
        return runner_fail(&create->error, RUNNER_FAILED, "start of session '%s'\nout of memory",
                           session->id);
    }
    if (strlen(create->meta) > SESSION_FILE_MAX) {
        return runner_fail(&create->error, RUNNER_USAGE,
                           "start of session '%s'\nits program and labels are more than 64 KiB\n"
                           "runner create --help",
                           session->id);
    }
    c->mode = session->pipes ? POD_MODE_PIPES : POD_MODE_PTY;
    c->owner = session->id;
    c->program = session->program;
    c->argv = create->argv != NULL && create->argv[0] != NULL ? create->argv : NULL;
    c->env = create->env;
    c->cwd = json_string_value(json_object_get(params, "cwd"));
    c->columns = number_of(params, "columns");
    c->rows = number_of(params, "rows");
    c->ring_size = (uint32_t)session->ring;
    c->orphan_s = number_of(params, "orphan_s");
    c->grace_ms = session->grace_ms;
    c->kill_tree = json_is_true(json_object_get(params, "kill_tree"));
    c->batch = json_is_true(json_object_get(params, "batch"));
    c->on_full = session->waits ? POD_FULL_WAIT : POD_FULL_DROP;
    c->wait_s = number_of(params, "wait_s");
    if (c->cwd == NULL) {
        c->cwd = create->server->env->state_dir;
    }
    return RUNNER_OK;
}

// ------------------------------------------------------------------------------------------------
// The holder, in a worker
// ------------------------------------------------------------------------------------------------

static int put_file(struct pod_dir *dir, const char *text, const char *name, enum pod_sync sync)
{
    struct pod_new_file file;
    int result = pod_file_begin(dir, &file);
    if (result != PM_OK) {
        return result;
    }
    result = pod_file_put(&file, text, strlen(text));
    if (result == PM_OK) {
        return pod_file_commit(dir, &file, name, sync);
    }
    pod_file_abandon(dir, &file);
    return result;
}

static int make_folder(struct create *create, const char *path)
{
    struct pod_dir dir = POD_DIR_INIT;
    int result = pod_dir_create(path);
    if (result != PM_OK) {
        return result;
    }
    create->made = true;
    result = pod_dir_open(path, &dir);
    if (result == PM_OK) {
        result = pod_token_make(&dir, create->token);
    }
    if (result == PM_OK) { // Its name is on the disk with the one that it gets when it has begun.
        result = put_file(&dir, create->meta, FILE_STARTING, POD_SYNC_BYTES);
    }
    pod_dir_close(&dir);
    return result;
}

// Beside the runner, unless the environment says otherwise.
static void holder_program(const struct runner_env *env, char path[4096])
{
    size_t size = 4096;
    if (uv_os_getenv("PROCESSMGR_PODDAEMON", path, &size) == 0 && path[0] != '\0') {
        return;
    }
    const char *slash = strrchr(env->program, '/'), *back = strrchr(env->program, '\\');
    const char *last = back != NULL && (slash == NULL || back > slash) ? back : slash;
    const char *dot = strrchr(env->program, '.');
    bool exe = dot != NULL && last != NULL && dot > last && strlen(dot) == 4;
    (void)snprintf(path, 4096, "%.*sprocessmgr-poddaemon%s",
                   last != NULL ? (int)(last + 1 - env->program) : 0, env->program, exe ? dot : "");
}

// One of this id that has ended has its key until the manager has noted that.
static bool wait_for_dead(pm_manager *manager, const char *key)
{
    pm_process *process = NULL;
    bool gone = pm_find(manager, key, &process) == PM_OK && !pm_process_alive(process) &&
                pm_process_wait(process, 1000, NULL) == PM_OK;
    (void)pm_process_unref(process);
    return gone;
}

static int spawn_holder(struct create *create, pm_native theirs)
{
    struct session *session = create->session;
    struct pm_spec spec = PM_SPEC_INIT;
    struct pm_error detail = PM_ERROR_INIT;
    char program[4096], errors[4200], line[1024];
    const char *argv[] = {program, "--dir", session->path, "--session", session->id, NULL};
    holder_program(create->server->env, program);
    (void)snprintf(errors, sizeof errors, "%s/startup", session->path);
    spec.owner = session->id;
    spec.program = program;
    spec.argv = argv;
    spec.cwd = session->path;
    spec.mode = PM_MODE_DAEMON;
    spec.key = session->id;
    spec.start_timeout_ms = SPAWN_MS;
    spec.stdin_slot.kind = PM_STDIO_NATIVE;
    spec.stdin_slot.native = theirs;
    spec.stderr_slot.kind = PM_STDIO_FILE_APPEND;
    spec.stderr_slot.path = errors;
    int result = pm_spawn(create->server->manager, &spec, &create->process, &detail);
    if (result == PM_ERR_EXISTS && wait_for_dead(create->server->manager, session->id)) {
        result = pm_spawn(create->server->manager, &spec, &create->process, &detail);
    }
    if (result != PM_OK) {
        (void)pm_error_format(&detail, line, sizeof line);
        (void)runner_fail(&create->error, result == PM_ERR_EXISTS ? RUNNER_EXISTS : RUNNER_FAILED,
                          "start of session '%s'\n%s\nrunner doctor", session->id, line);
    }
    return result;
}

// For whoever has to end what is left in it. Without that note nothing is ended there.
static void note_group(const char *path, const struct placement *placement)
{
    struct pod_dir dir = POD_DIR_INIT;
    if (placement->folder[0] != '\0' && pod_dir_open(path, &dir) == PM_OK) {
        (void)put_file(&dir, placement->folder, FILE_GROUP, POD_SYNC_NONE);
    }
    pod_dir_close(&dir);
}

static void work_create(void *user)
{
    struct create *create = user;
    struct session *session = create->session;
    pm_native theirs;
    int result = make_folder(create, session->path);
    if (result == PM_OK) {
        result = pod_birth_pair(&create->ours, &theirs);
    }
    if (result == PM_OK) {
        result = spawn_holder(create, theirs);
        pod_connection_close(theirs);
        if (result != PM_OK) {
            pod_connection_close(create->ours);
        }
    }
    if (result == PM_OK) { // Before it has a child, which is born where it is.
        placement_move(create->server->manager, session->id, pm_process_pid(create->process),
                       &create->placement);
        note_group(session->path, &create->placement);
    }
    if (result != PM_OK && create->error.code == RUNNER_OK) {
        char show[4600];
        (void)runner_fail(&create->error, result == PM_ERR_EXISTS ? RUNNER_EXISTS : RUNNER_FAILED,
                          "start of session '%s'\nits folder '%s' cannot be made: %s\n%s",
                          session->id, session->path, pm_strerror(result),
                          doctor_command(DOCTOR_FILE, session->path, show));
    }
}

// ------------------------------------------------------------------------------------------------
// The end of it, good or bad
// ------------------------------------------------------------------------------------------------

static void free_create(struct create *create)
{
    for (size_t i = 0; create->own_env != NULL && create->own_env[i] != NULL; i++) {
        free(create->own_env[i]);
    }
    free(create->own_env);
    free((void *)create->env);
    free((void *)create->argv);
    free(create->meta);
    json_decref(create->params);
    free(create);
}

// The last words of a holder that says nothing else; they go with its folder.
static void add_words(struct create *create)
{
    char path[4200], words[512];
    size_t size = strlen(create->error.why);
    (void)snprintf(path, sizeof path, "%s/startup", create->session->path);
    runner_last_words(path, words, sizeof words);
    if (words[0] != '\0') {
        (void)snprintf(create->error.why + size, sizeof create->error.why - size, ": %s", words);
    }
}

static void work_clean(void *user)
{
    struct create *create = user;
    struct session *session = create->session;
    const struct pm_stop_plan plan = {.steps_count = 1,
                                      .steps = {{PM_STOP_KILL, PM_SCOPE_TREE, KILL_MARGIN_MS}}};
    if (create->process != NULL) {
        (void)pm_process_stop(create->process, &plan, NULL);
        (void)pm_process_wait(create->process, 1000, NULL);
        (void)pm_process_unref(create->process);
        (void)pm_forget(create->server->manager, session->id);
    }
    if (create->made) {
        add_words(create);
        for (int i = 0; i < HELD_TRIES && os_is_held(tree_remove(session->path)); i++) {
            uv_sleep(HELD_LOOK_MS);
        }
    }
}

static void after_clean(void *user)
{
    struct create *create = user;
    struct session *session = create->session;
    session_log(session, LOG_WARNING, "session.failed", "%s: %s", create->error.what,
                create->error.why);
    call_error(create->call, &create->error);
    session->create = NULL;
    session->works--;
    session_remove(session);
    free_create(create);
}

static void fail(struct create *create)
{
    struct session *session = create->session;
    if (create->done) {
        return;
    }
    create->done = true;
    (void)uv_timer_stop(session->patience);
    podlink_close(session->link);
    session->link = NULL;
    session->works++;
    create->thread = (struct post_thread){.block = work_clean,
                                          .after = after_clean,
                                          .user = create,
                                          .passes = true};
    if (post_thread(create->server->starts, &create->thread) != 0) {
        work_clean(create);
        after_clean(create);
    }
}

static void add_warnings(struct session *session)
{
    struct pm_info info = PM_INFO_INIT;
    if (pm_process_info(session->process, &info) != PM_OK) {
        return;
    }
    if (info.detachment == PM_DETACH_IN_JOB) {
        (void)json_array_append_new(session->warnings,
                                    json_string("its holder is still in a job of the system"));
    }
    if (info.adopted) {
        (void)json_array_append_new(
            session->warnings,
            json_string("its holder is a child of this runner, which is PID 1 or a subreaper"));
    }
}

static void succeed(struct create *create, uint64_t child)
{
    struct session *session = create->session;
    struct pod_dir dir = POD_DIR_INIT;
    int result = pod_dir_open(session->path, &dir);
    if (result == PM_OK) {
        result = pod_file_rename(&dir, FILE_STARTING, FILE_SESSION);
    }
    pod_dir_close(&dir);
    if (result != PM_OK) {
        (void)runner_fail(&create->error, RUNNER_FAILED, "start of session '%s'\nfolder '%s': %s",
                          session->id, session->path, pm_strerror(result));
        fail(create);
        return;
    }
    create->done = true;
    (void)uv_timer_stop(session->patience);
    session->process = create->process;
    session->daemon_pid = pm_process_pid(create->process);
    session->pod.child_pid = child;
    session->pod.columns = (uint16_t)(create->config.columns != 0 ? create->config.columns : 80);
    session->pod.rows = (uint16_t)(create->config.rows != 0 ? create->config.rows : 24);
    session->state = SESSION_RUNNING;
    session->create = NULL;
    podlink_close(session->link); // The message is still being handed out: it lives so long.
    session->link = NULL;
    session->welcomed = false;
    add_warnings(session);
    placement_warn(&create->placement, session->warnings);
    session_log(session, LOG_INFO, "session.created", "%s: holder %llu, child %llu",
                session->program, (unsigned long long)session->daemon_pid,
                (unsigned long long)child);
    session_notify(session, "session.created");
    call_result(create->call, session_json(session));
    free_create(create);
    if (session->server->end == SERVER_SHUTDOWN_ALL) { // It was none yet when those were stopped.
        session_stop(session, ASK_STOP, 0);
        server_stop(session->server, SERVER_SHUTDOWN_ALL);
    }
    methods_release(session->server, &session->held);
}

// Why it was not started, in the words of its pod.
static void take_error(struct create *create, const struct pod_error *e)
{
    if (e->code == POD_E_START) { // One of the parameters is wrong, or what they name.
        bool parameter = e->detail == -PM_ERR_INVALID || e->detail == -PM_ERR_UNSUPPORTED;
        (void)runner_fail(&create->error, RUNNER_FAILED, "start of session '%s'\n%.*s\n%s",
                          create->session->id, (int)e->text.size, (const char *)e->text.data,
                          parameter ? "runner create --help"
                                    : "none: check program, folder and PATH");
    } else {
        (void)runner_fail(&create->error, RUNNER_FAILED,
                          "start of session '%s'\nits holder refuses: %s: %.*s",
                          create->session->id, pod_strerror(e->code), (int)e->text.size,
                          (const char *)e->text.data);
    }
    fail(create);
}

bool create_message(struct session *session, const struct pod_message *message)
{
    struct create *create = session->create;
    int64_t number;
    if (create->done) {
        return true;
    }
    switch (message->type) {
    case POD_WELCOME:
        number = pod_client_start(podlink_client(session->link), &create->config);
        if (number == -POD_E_VERSION) {
            (void)runner_fail(&create->error, RUNNER_REFUSED,
                              "start of session '%s'\nits holder speaks no version of the protocol "
                              "that this runner speaks\nnone: use runner and processmgr-poddaemon "
                              "of one build; see PROCESSMGR_PODDAEMON",
                              session->id);
            fail(create);
        } else if (number < 0) {
            (void)runner_fail(&create->error, RUNNER_USAGE,
                              "start of session '%s'\nits configuration: %s\nsee docs/control.md",
                              session->id, pod_strerror((int)number));
            fail(create);
        }
        return true;
    case POD_STARTED:
        succeed(create, message->u.started.child_pid);
        return true;
    case POD_ERROR:
        take_error(create, &message->u.error);
        return true;
    default:
        return false;
    }
}

void create_over(struct session *session, int failure)
{
    struct create *create = session->create;
    if (create->done) {
        return;
    }
    char program[4096], quoted[4400];
    holder_program(create->server->env, program);
    doctor_quote(program, quoted);
    (void)runner_fail(&create->error, failure == -POD_E_IO ? RUNNER_TIMEOUT : RUNNER_FAILED,
                      "start of session '%s'\nits holder %s\n%.700s --help", session->id,
                      failure == -POD_E_IO       ? "did not say a word within 5 s"
                      : failure == -POD_E_CLOSED ? "ended at once"
                                                 : pod_strerror(failure),
                      quoted);
    fail(create);
}

static void fail_as_we_end(struct create *create)
{
    (void)runner_fail(&create->error, RUNNER_UNREACHABLE,
                      "start of session '%s'\nthe runner ends\ncall again", create->session->id);
    fail(create);
}

void create_break_off(struct session *session)
{
    struct create *create = session->create;
    if (!create->done && session->works == 0) {
        fail_as_we_end(create);
    }
}

static void on_patience_over(uv_timer_t *timer)
{
    struct session *session = timer->data;
    struct create *create = session->create;
    (void)runner_fail(&create->error, RUNNER_TIMEOUT,
                      "start of session '%s'\nno proof of its start in time", session->id);
    fail(create);
}

static void after_create(void *user)
{
    struct create *create = user;
    struct session *session = create->session;
    session->works--;
    if (create->thread.dropped) {
        fail_as_we_end(create);
        return;
    }
    if (create->error.code != RUNNER_OK) {
        fail(create);
        return;
    }
    (void)uv_timer_start(session->patience, on_patience_over, BEGIN_MS, 0);
    int result = session_take_link(session, create->ours, create->token, READY_MS);
    if (result != 0) {
        create_over(session, result);
    }
}

void session_create(struct server *server, struct call *call, json_t *params)
{
    const char *id = json_string_value(json_object_get(params, "id"));
    struct runner_error error;
    struct session *other = session_find(server, id);
    char quoted[4400];
    if (other != NULL) {
        bool over = session_is_over(other);
        (void)runner_fail(&error, RUNNER_EXISTS, "start of session '%s'\none of this id %s\n%s%s",
                          id, over ? "has ended and was not removed" : "is there",
                          over ? "runner destroy " : "runner attach ", doctor_id(id, quoted));
        call_error(call, &error);
        return;
    }
    struct create *create = calloc(1, sizeof *create);
    struct session *session = create != NULL ? session_add(server, id) : NULL;
    if (session == NULL) {
        free(create);
        call_result(call, NULL);
        return;
    }
    create->server = server;
    create->session = session;
    create->call = call;
    create->params = json_incref(params);
    session->create = create;
    session->settled = true;
    int result = take_params(create, session);
    if (result == RUNNER_OK) {
        session->works++;
        create->thread =
            (struct post_thread){.block = work_create, .after = after_create, .user = create};
        result = post_thread(server->starts, &create->thread) == 0
                     ? RUNNER_OK
                     : runner_fail(&create->error, RUNNER_FAILED,
                                   "start of session '%s'\nno thread can be had", id);
    }
    if (result != RUNNER_OK) {
        call_error(call, &create->error);
        session->create = NULL;
        session->works = 0;
        free_create(create);
        session_remove(session);
    }
}
