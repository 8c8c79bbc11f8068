#include "runner/upgrade.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pod/wire.h"
#include "runner/control_client.h"
#include "runner/post.h"
#include "runner/text.h"

#define STATE_FORMAT 1
#define CONTROL_VERSION 1
#define SIGNALS_HELD "held" // Those that wait when we begin are let in. Earlier builds say nothing.
#define ASKED_TO_END "the runner was asked to end meanwhile"
#define NOT_READY "the new one was not ready in 10 s"
#define READY_LOOK_MS 20
#define READY_ASK_MS 1000

// ------------------------------------------------------------------------------------------------
// What became of it
// ------------------------------------------------------------------------------------------------

static void note(const char *state_dir, const char *program, const char *result, const char *reason)
{
    char path[4200];
    json_t *json = json_pack("{s:o, s:s, s:o, s:s, s:I}", "program", text_json(program), "result",
                             result, "reason", text_json(reason), "version", PM_VERSION_STRING,
                             "at", (json_int_t)wall_ms());
    char *text = json != NULL ? json_dumps(json, JSON_COMPACT) : NULL;
    (void)snprintf(path, sizeof path, "%s/upgrade.json", state_dir);
    if (text != NULL) {
        (void)os_write_file(path, text, strlen(text));
    }
    free(text);
    json_decref(json);
}

json_t *upgrade_last(const char *state_dir)
{
    char path[4200], *text;
    size_t size;
    (void)snprintf(path, sizeof path, "%s/upgrade.json", state_dir);
    if (os_read_file(path, 65536, &text, &size) != 0) {
        return NULL;
    }
    json_t *json = json_loadb(text, size, 0, NULL);
    free(text);
    return json;
}

// ------------------------------------------------------------------------------------------------
// Its last words
// ------------------------------------------------------------------------------------------------

// Where a runner that starts by itself says them.
static void words_path(const struct runner_env *env, char path[4200])
{
    (void)snprintf(path, 4200, "%s/runner.err", env->state_dir);
}

// What others have said there by now.
static uint64_t words_so_far(const struct runner_env *env)
{
    char path[4200];
    uv_fs_t request;
    words_path(env, path);
    uint64_t size = uv_fs_stat(NULL, &request, path, NULL) == 0 ? request.statbuf.st_size : 0;
    uv_fs_req_cleanup(&request);
    return size;
}

static void note_came_back(const struct runner_env *env, const char *program, const char *why,
                           uint64_t words_from)
{
    char path[4200], words[401], reason[512];
    words_path(env, path);
    runner_words_from(path, words_from, words, sizeof words);
    (void)snprintf(reason, sizeof reason, "%s%s%s", why, words[0] != '\0' ? ": " : "", words);
    note(env->state_dir, program, "came back", reason);
}

// ------------------------------------------------------------------------------------------------
// The new binary proves itself
// ------------------------------------------------------------------------------------------------

int upgrade_self_check(void)
{
    json_t *json =
        json_pack("{s:s, s:s, s:i, s:i, s:[i,i], s:s}", "self_check", "ok", "version",
                  PM_VERSION_STRING, "control", CONTROL_VERSION, "state_format", STATE_FORMAT,
                  "pod_versions", POD_VERSION_MIN, POD_VERSION_MAX, "signals", SIGNALS_HELD);
    char *text = json != NULL ? json_dumps(json, JSON_COMPACT) : NULL;
    bool fine = text != NULL && puts(text) >= 0 && fflush(stdout) == 0;
    free(text);
    json_decref(json);
    return fine ? RUNNER_OK : RUNNER_FAILED;
}

struct upgrade {
    struct post_thread thread;
    struct server *server;
    struct call *call;
    char *program, *version;
    bool takes_held;
    struct runner_error error;
};

static int judge(struct upgrade *upgrade, const struct pm_run_result *result)
{
    json_t *json = json_loadb(result->output[0], result->output_size[0], 0, NULL);
    const char *word = json_string_value(json_object_get(json, "self_check"));
    const char *version = json_string_value(json_object_get(json, "version"));
    const char *signals = json_string_value(json_object_get(json, "signals"));
    json_t *pods = json_object_get(json, "pod_versions");
    json_int_t low = json_integer_value(json_array_get(pods, 0));
    json_int_t high = json_integer_value(json_array_get(pods, 1));
    json_int_t format = json_integer_value(json_object_get(json, "state_format"));
    int code = RUNNER_OK;
    if (result->output_size[1] > 0) {
        runner_one_line(result->output[1]);
    }
    if (result->timed_out || result->record->kind != PM_EXIT_EXITED || result->record->code != 0 ||
        word == NULL || strcmp(word, "ok") != 0 || version == NULL) {
        code = runner_fail(&upgrade->error, RUNNER_FAILED,
                           "upgrade to '%s'\nits self-check failed (%s %u): %.200s\n"
                           "none: the runner goes on as it was",
                           upgrade->program,
                           result->timed_out ? "no answer in time, exit code" : "exit code",
                           (unsigned)result->record->code,
                           result->output_size[1] > 0 ? result->output[1] : "no word of it");
    } else if (low > POD_VERSION_MAX || high < POD_VERSION_MIN || format < STATE_FORMAT) {
        code = runner_fail(&upgrade->error, RUNNER_REFUSED,
                           "upgrade to '%s'\nits versions do not fit: pods %lld to %lld, state %lld"
                           "\nnone: the runner goes on as it was",
                           upgrade->program, (long long)low, (long long)high, (long long)format);
    } else {
        upgrade->version = strdup(version);
        upgrade->takes_held = signals != NULL && strcmp(signals, SIGNALS_HELD) == 0;
    }
    json_decref(json);
    return code;
}

static void work_check(void *user)
{
    struct upgrade *upgrade = user;
    const char *const argv[] = {upgrade->program, "serve", "--self-check", NULL};
    struct pm_spec spec = PM_SPEC_INIT;
    struct pm_run_options options = PM_RUN_OPTIONS_INIT;
    struct pm_run_result result = PM_RUN_RESULT_INIT;
    struct pm_error detail = PM_ERROR_INIT;
    char line[1024];
    spec.owner = "upgrade";
    spec.program = upgrade->program;
    spec.argv = argv;
    spec.die_with_parent = true;
    options.spec = &spec;
    options.timeout_ms = UPGRADE_CHECK_MS;
    options.max_output = 65536;
    int code = pm_run(upgrade->server->manager, &options, &result, &detail);
    if (code != PM_OK) {
        (void)pm_error_format(&detail, line, sizeof line);
        (void)runner_fail(&upgrade->error, RUNNER_FAILED,
                          "upgrade to '%s'\n%s\nnone: the runner goes on as it was",
                          upgrade->program, line);
    } else {
        (void)judge(upgrade, &result);
    }
    pm_run_result_clear(&result);
}

static void after_check(void *user)
{
    struct upgrade *upgrade = user;
    struct server *server = upgrade->server;
    server->works--;
    if (upgrade->error.code == RUNNER_OK && server->end != SERVER_RUNS) {
        (void)runner_fail(&upgrade->error, RUNNER_REFUSED, "upgrade to '%s'\n%s\nrunner info",
                          upgrade->program,
                          server->end == SERVER_UPGRADE ? "another upgrade is under way"
                                                        : ASKED_TO_END);
    }
    if (upgrade->error.code != RUNNER_OK) {
        log_write(server->log, LOG_ERROR, "runner.upgrade", NULL, "%s: %s", upgrade->error.what,
                  upgrade->error.why);
        if (server->successor.program == NULL) { // Else somebody waits to see what becomes of that.
            note(server->env->state_dir, upgrade->program, "refused", upgrade->error.why);
        }
        call_error(upgrade->call, &upgrade->error);
        free(upgrade->program);
    } else {
        log_write(server->log, LOG_INFO, "runner.upgrade", NULL, "to '%s', version %s",
                  upgrade->program, upgrade->version);
        call_result(upgrade->call, json_pack("{s:s, s:s, s:s, s:s}", "from", PM_VERSION_STRING,
                                             "to", upgrade->version, "program", upgrade->program,
                                             "instance", server->instance));
        server->successor = (struct successor){upgrade->program, upgrade->takes_held};
        server_stop(server, SERVER_UPGRADE);
    }
    free(upgrade->version);
    free(upgrade);
}

void upgrade_begin(struct server *server, struct call *call, json_t *params)
{
    struct runner_error error;
    const char *binary = json_string_value(json_object_get(params, "binary"));
    binary = binary != NULL ? binary : server->env->program;
    struct upgrade *upgrade = calloc(1, sizeof *upgrade);
    if (upgrade == NULL || (upgrade->program = strdup(binary)) == NULL) {
        free(upgrade);
        call_result(call, NULL);
        return;
    }
    if (!os_is_absolute(binary)) {
        (void)runner_fail(&error, RUNNER_USAGE, "parameter 'binary'\nits path has to be absolute");
        call_error(call, &error);
        free(upgrade->program);
        free(upgrade);
        return;
    }
    upgrade->thread =
        (struct post_thread){.block = work_check, .after = after_check, .user = upgrade};
    upgrade->server = server;
    upgrade->call = call;
    server->works++;
    if (post_thread(server->starts, &upgrade->thread) != 0) {
        work_check(upgrade);
        after_check(upgrade);
    }
}

// ------------------------------------------------------------------------------------------------
// The guardian
// ------------------------------------------------------------------------------------------------

struct guard {
    uv_loop_t loop;
    uv_pipe_t pipe;
    uv_timer_t timer;
    char word[16];
    size_t have;
    bool over, ready, late, timed_out;
};

static void on_guard_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buffer)
{
    struct guard *guard = handle->data;
    (void)size;
    *buffer = uv_buf_init(guard->word + guard->have, (unsigned)(sizeof guard->word - guard->have));
}

static void on_guard_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    struct guard *guard = stream->data;
    (void)buffer;
    guard->have += size > 0 ? (size_t)size : 0;
    if (size < 0 || guard->have == sizeof guard->word ||
        memchr(guard->word, '\n', guard->have) != NULL) {
        guard->over = true; // "ready", "cancel", or the end of who should have said so.
        guard->ready = memchr(guard->word, '\n', guard->have) != NULL;
        uv_stop(&guard->loop);
    }
}

static void on_guard_timeout(uv_timer_t *timer)
{
    struct guard *guard = timer->data;
    if (!guard->late) {
        guard->late = true; // A word may be there already: after another round of the loop.
        (void)uv_timer_start(timer, on_guard_timeout, 1, 0);
        return;
    }
    guard->over = guard->timed_out = true;
    uv_stop(&guard->loop);
}

static void close_all(uv_handle_t *handle, void *unused)
{
    (void)unused;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

// Waits for a word on a connection, after it has said its own.
static int wait_for_word(struct guard *guard, pm_native native, const char *own,
                         uint64_t timeout_ms)
{
    uv_buf_t buffer = uv_buf_init((char *)own, (unsigned)strlen(own));
    if (uv_loop_init(&guard->loop) != 0) {
        pod_connection_close(native);
        return -1;
    }
    (void)uv_pipe_init(&guard->loop, &guard->pipe, 0);
    (void)uv_timer_init(&guard->loop, &guard->timer);
    guard->pipe.data = guard->timer.data = guard;
    if (os_pipe_open(&guard->pipe, native) == 0) {
        if (buffer.len > 0) {
            (void)uv_try_write((uv_stream_t *)&guard->pipe, &buffer, 1);
        }
        (void)uv_read_start((uv_stream_t *)&guard->pipe, on_guard_alloc, on_guard_read);
        (void)uv_timer_start(&guard->timer, on_guard_timeout, timeout_ms, 0);
        while (!guard->over) {
            (void)uv_run(&guard->loop, UV_RUN_DEFAULT);
        }
    }
    uv_walk(&guard->loop, close_all, NULL);
    (void)uv_run(&guard->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&guard->loop);
    return 0;
}

// Who is our supervisor's main process: its end is the end of the service.
static void tell_main(const char *more)
{
    char text[64];
    (void)snprintf(text, sizeof text, "MAINPID=%lld%s", (long long)uv_os_getpid(), more);
    os_supervisor_tell(text);
}

int upgrade_guard(const struct runner_env *env, int64_t pid)
{
    struct guard guard = {.have = 0};
    struct os_process process;
    pm_native native;
    uint64_t words = words_so_far(env);
    (void)os_signals_hold(); // Our supervisor takes us for the runner from now on.
    if (pod_birth_take(&native) != PM_OK) {
        return RUNNER_USAGE;
    }
    if (os_process_open(pid, &process) != 0) {
        pod_connection_close(native);
        return RUNNER_FAILED;
    }
    // From now on, and not when the other has ended, which would be too late.
    os_supervisor_take();
    tell_main("");
    os_supervisor_give();
    (void)wait_for_word(&guard, native, "armed\n", UPGRADE_READY_MS);
    if (guard.ready) {
        os_signals_pass(&process);
        os_process_close(&process);
        return RUNNER_OK;
    }
    os_process_kill(&process, 5000);
    os_process_close(&process);
    json_t *last = upgrade_last(env->state_dir);
    const char *program = json_string_value(json_object_get(last, "program"));
    note_came_back(env, program != NULL ? program : env->program,
                   guard.timed_out ? NOT_READY : "the new one ended", words);
    json_decref(last);
    return serve(env, PM_NATIVE_INVALID);
}

void upgrade_tell_ready(const struct runner_env *env, pm_native ready)
{
    static const char word[] = "ready\n";
    size_t count;
    tell_main("\nREADY=1"); // First: the guardian has been the main process, and ends now.
    if (ready != PM_NATIVE_INVALID) {
        note(env->state_dir, env->program, "ok", "");
        (void)pod_log_append(ready, word, sizeof word - 1, &count);
        pod_connection_close(ready);
    }
}

// ------------------------------------------------------------------------------------------------
// From one to the other
// ------------------------------------------------------------------------------------------------

static int forget_dead(void *user, pm_process *process)
{
    struct pm_info info = PM_INFO_INIT;
    if (!pm_process_alive(process) && pm_process_info(process, &info) == PM_OK) {
        (void)pm_process_wait(process, 100, NULL);
        (void)pm_forget(user, info.key);
    }
    return 0;
}

static int open_starter(const struct runner_env *env, pm_manager **ret_manager)
{
    struct pm_options options = PM_OPTIONS_INIT;
    char dir[4200];
    int result;
    (void)snprintf(dir, sizeof dir, "%s/starter", env->state_dir);
    options.registry_dir = dir;
    options.leak_sweep_ms = options.stop_watch_ms = UINT32_MAX;
    options.status_pending_ms = 1;
    for (int i = 0; i < 500; i++) { // Others look there for a moment only.
        result = pm_open(&options, ret_manager, NULL);
        if (result != PM_ERR_REGISTRY_BUSY) {
            break;
        }
        uv_sleep(10);
    }
    if (result == PM_OK) {
        (void)pm_recover(*ret_manager, forget_dead, *ret_manager, NULL);
    }
    return result;
}

static int spawn_other(const struct runner_env *env, const char *const *argv, const char *key,
                       pm_native input, pm_process **ret_process, pm_manager *manager)
{
    struct pm_spec spec = PM_SPEC_INIT;
    char words[4200];
    words_path(env, words);
    spec.owner = "runner";
    spec.program = argv[0];
    spec.argv = argv;
    spec.cwd = env->state_dir;
    spec.mode = PM_MODE_DAEMON;
    spec.key = key;
    spec.stderr_slot.kind = PM_STDIO_FILE_APPEND;
    spec.stderr_slot.path = words;
    spec.accept_outer_job = true;
    if (input != PM_NATIVE_INVALID) {
        spec.stdin_slot.kind = PM_STDIO_NATIVE;
        spec.stdin_slot.native = input;
    }
    return pm_spawn(manager, &spec, ret_process, NULL);
}

// The guardian, armed: it holds our process. *ret_native: to it.
static int start_guard(const struct runner_env *env, pm_native *ret_native)
{
    char own[4096], pid[32], word[8], key[64];
    pm_manager *manager;
    pm_native ours, theirs;
    int result = os_own_program(own, sizeof own) == 0 ? open_starter(env, &manager) : PM_ERR_SYSTEM;
    if (result != PM_OK) {
        return result;
    }
    (void)snprintf(pid, sizeof pid, "%lld", (long long)uv_os_getpid());
    (void)snprintf(key, sizeof key, "guardian-%lld", (long long)wall_ms());
    const char *const argv[] = {own, "--state", env->state_dir, "serve", "--guard", pid, NULL};
    result = pod_birth_pair(&ours, &theirs);
    if (result == PM_OK) {
        result = spawn_other(env, argv, key, theirs, NULL, manager);
        pod_connection_close(theirs);
        if (result == PM_OK) {
            result = os_read_word(ours, word, sizeof word, 5000) > 0 ? PM_OK : PM_ERR_TIMEOUT;
        }
        if (result != PM_OK) {
            pod_connection_close(ours);
        }
    }
    (void)pm_close(manager, 1000, NULL);
    if (result == PM_OK) {
        *ret_native = ours;
    }
    return result;
}

// One that is not known to let in what waits for it would be deaf to it for ever.
static int exec_successor(const struct successor *successor, char *const argv[])
{
    if (successor->takes_held) {
        return os_exec(successor->program, argv);
    }
    if (!os_signals_leave_open()) {
        return UV_ECANCELED;
    }
    int result = os_exec(successor->program, argv);
    os_signals_hold_again();
    return result;
}

static int replace_by_exec(const struct runner_env *env, const struct successor *successor)
{
    static const char cancel[] = "cancel\n";
    const char *program = successor->program;
    char number[32], state[4096], path[4096];
    char serve_word[] = "serve", state_word[] = "--state", ready_word[] = "--ready-fd";
    pm_native guard;
    size_t count;
    int result = start_guard(env, &guard);
    if (result != PM_OK) {
        note(env->state_dir, program, "came back", "no guardian could be started");
        return result;
    }
    (void)snprintf(number, sizeof number, "%lld", (long long)guard);
    (void)snprintf(state, sizeof state, "%s", env->state_dir);
    (void)snprintf(path, sizeof path, "%s", program);
    char *argv[] = {path, state_word, state, serve_word, ready_word, number, NULL};
    note(env->state_dir, program, "started", "");
    os_keep_at_exec(guard, true);
    result = exec_successor(successor, argv);
    os_keep_at_exec(guard, false);
    tell_main(""); // First, as in upgrade_tell_ready().
    (void)pod_log_append(guard, cancel, sizeof cancel - 1, &count);
    pod_connection_close(guard);
    note(env->state_dir, program, "came back",
         result == UV_ECANCELED ? ASKED_TO_END : uv_strerror(result));
    return result;
}

// Whether that process, and no other, serves and has recovered. Asked in place of the word that a
// guardian is told.
static bool has_recovered(const struct runner_env *env, const pm_process *process)
{
    struct runner_env quiet = *env;
    struct runner_error error;
    struct client *client = NULL;
    json_t *info = NULL;
    quiet.no_start = true;
    bool recovered =
        client_connect(&quiet, &client, &error) == RUNNER_OK &&
        client_call(client, "runner.info", NULL, READY_ASK_MS, &info, &error) == RUNNER_OK &&
        json_is_true(json_object_get(info, "recovered")) &&
        (uint64_t)json_integer_value(json_object_get(info, "pid")) == pm_process_pid(process);
    json_decref(info);
    (void)client_close(client);
    return recovered;
}

static int wait_for_daemon(const struct runner_env *env, const char *program, pm_process *process,
                           uint64_t words)
{
    const struct pm_stop_plan kill = {.steps_count = 1,
                                      .steps = {{PM_STOP_KILL, PM_SCOPE_PROCESS, 5000}}};
    uint64_t deadline = monotonic_ms() + UPGRADE_READY_MS;
    while (!has_recovered(env, process)) {
        bool alive = pm_process_alive(process);
        if (!alive || monotonic_ms() > deadline) {
            (void)pm_process_stop(process, &kill, NULL);
            note_came_back(env, program, alive ? NOT_READY : "the new one ended", words);
            return PM_ERR_TIMEOUT;
        }
        uv_sleep(READY_LOOK_MS);
    }
    note(env->state_dir, program, "ok", "");
    return PM_OK;
}

// Where there is no exec. This process waits. The new one has sessions to serve, and no person who
// started it: a mistake in the configuration does not keep it from that.
static int replace_by_daemon(const struct runner_env *env, const char *program)
{
    const char *const argv[] = {program, "--state", env->state_dir, "serve", "--by-itself", NULL};
    pm_manager *manager;
    pm_process *process = NULL;
    char key[64];
    uint64_t words = words_so_far(env);
    int result = open_starter(env, &manager);
    if (result != PM_OK) {
        note(env->state_dir, program, "came back", pm_strerror(result));
        return result;
    }
    (void)snprintf(key, sizeof key, "runner-%lld", (long long)wall_ms());
    note(env->state_dir, program, "started", "");
    result = spawn_other(env, argv, key, PM_NATIVE_INVALID, &process, manager);
    if (result == PM_OK) {
        result = wait_for_daemon(env, program, process, words);
    } else {
        note(env->state_dir, program, "came back", pm_strerror(result));
    }
    (void)pm_process_unref(process);
    (void)pm_close(manager, 1000, NULL);
    return result;
}

int upgrade_replace(const struct runner_env *env, const struct successor *successor)
{
    return os_has_exec() ? replace_by_exec(env, successor)
                         : replace_by_daemon(env, successor->program);
}

void upgrade_given_up(const struct runner_env *env, const struct successor *successor)
{
    note(env->state_dir, successor->program, "refused", ASKED_TO_END);
}
