// The runner's life: all that it opens, in order, and lets go of again.
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/control_client.h"
#include "runner/debug.h"
#include "runner/doctor.h"
#include "runner/post.h"
#include "runner/prune.h"
#include "runner/service_config.h"
#include "runner/session.h"
#include "runner/upgrade.h"

#define LOOK_MS 500       // At the socket.
#define AGAIN_MS 2000     // At folders that could not be read.
#define END_ALL_MS 20000  // For sessions that shall end, too.
#define SERVICES_MS 10000 // For services and starts, whatever times they have for themselves.
#define END_LOOK_MS 10
#define LEAVE_LOOK_MS 20
#define STARTS_AT_ONCE 16

struct ended { // The end of a holder, told on a thread of the manager.
    struct ended *next;
    char key[RUNNER_ID_MAX + 1];
};

// ------------------------------------------------------------------------------------------------
// What the manager tells
// ------------------------------------------------------------------------------------------------

static void on_event(void *user, const struct pm_event *event)
{
    struct server *server = user;
    struct pm_info info = PM_INFO_INIT;
    if (event->kind == PM_EVENT_LEAK || event->kind == PM_EVENT_QUARANTINED) {
        log_write(server->log, LOG_ERROR,
                  event->kind == PM_EVENT_LEAK ? "runner.leak" : "registry.quarantined", NULL, "%s",
                  event->detail);
        return;
    }
    if (event->kind != PM_EVENT_ENDED || pm_process_info(event->process, &info) != PM_OK ||
        info.key == NULL) {
        return;
    }
    struct ended *ended = POD_SYS(calloc)(1, sizeof *ended);
    uv_mutex_lock(&server->ended_lock);
    if (ended != NULL) {
        (void)snprintf(ended->key, sizeof ended->key, "%s", info.key);
        ended->next = server->ended;
        server->ended = ended;
    } else { // All are looked at, then.
        server->ended_unnamed = true;
    }
    uv_mutex_unlock(&server->ended_lock);
    (void)uv_async_send(&server->wake);
}

static void on_manager_log(void *user, enum pm_log_level level, const char *line)
{
    struct server *server = user;
    log_write(server->log, (int)level, "manager", NULL, "%s", line);
}

// Which of them have ended could not be told. One that is being erased is looked at by a timer.
static void look_at_all(struct server *server)
{
    for (struct session *s = server->sessions; s != NULL; s = s->next) {
        if (s->process != NULL && !pm_process_alive(s->process)) {
            session_collect(s);
        }
    }
}

static void on_wake(uv_async_t *async)
{
    struct server *server = async->data;
    uv_mutex_lock(&server->ended_lock);
    struct ended *ended = server->ended;
    bool unnamed = server->ended_unnamed;
    server->ended = NULL;
    server->ended_unnamed = false;
    uv_mutex_unlock(&server->ended_lock);
    if (unnamed) {
        look_at_all(server);
    }
    while (ended != NULL) {
        struct ended *next = ended->next;
        struct session *session = session_find(server, ended->key);
        if (session != NULL) {
            session_holder_ended(session);
        }
        free(ended);
        ended = next;
    }
}

static void on_log_line(void *user, int level, const char *line)
{
    struct server *server = user;
    uv_thread_t self = uv_thread_self();
    if (uv_thread_equal(&self, &server->thread)) { // Others must not touch connections.
        control_notify(server, "log",
                       json_pack("{s:s, s:s}", "level", log_level_name(level), "line", line));
    }
}

// ------------------------------------------------------------------------------------------------
// End
// ------------------------------------------------------------------------------------------------

// Of those that are not proven nobody is stopped, but somebody may be killed.
static bool is_awaited(const struct session *session)
{
    return !session_is_over(session) &&
           (session->state != SESSION_UNPROVEN || session->waiters != NULL);
}

// Workers come to their end by themselves, within times of their own: all of it together stays
// below SERVER_LEAVE_MS.
static bool is_quiet(const struct server *server)
{
    bool late = uv_now(&server->loop) > server->end_deadline;
    if (server->works > 0 || !server->recovered || (!services_stopped(server) && !late)) {
        return false;
    }
    for (const struct session *s = server->sessions; s != NULL; s = s->next) {
        if (s->create != NULL || s->works > 0 ||
            (server->end == SERVER_SHUTDOWN_ALL && is_awaited(s) && !late)) {
            return false;
        }
    }
    return true;
}

// The time is over that they have when we end.
static void break_off(struct server *server)
{
    struct session *next;
    services_kill(server);
    for (struct session *s = server->sessions; s != NULL; s = next) {
        next = s->next;
        if (s->create != NULL) {
            create_break_off(s);
        }
    }
}

static void close_handles(struct server *server)
{
    // Without a handle of libuv's they would end us, and an upgrade with us.
    (void)os_signals_hold();
    for (size_t i = 0; i < sizeof server->signals / sizeof server->signals[0]; i++) {
        uv_close((uv_handle_t *)&server->signals[i], NULL);
    }
    uv_close((uv_handle_t *)&server->housekeeping, NULL);
    uv_close((uv_handle_t *)&server->wake, NULL);
    post_close(server->starts);
    control_close(server);
}

static void close_server(struct server *server)
{
    while (server->sessions != NULL) {
        session_close(server->sessions);
    }
    methods_release(server, &server->held);
    close_handles(server);
}

// Whether somebody has removed the state folder, or put another one in its place: what we hold is a
// lock of no name, and the next runner serves beside us. A trouble says nothing about that.
static bool is_folder_gone(const struct server *server)
{
    struct pm_registry_owner now = PM_REGISTRY_OWNER_INIT;
    int result =
        server->owner.epoch != 0 ? pm_registry_owner(server->registry_dir, &now) : PM_ERR_SYSTEM;
    return result == PM_ERR_NOT_FOUND ||
           (result == PM_OK && (now.pid != server->owner.pid || now.start != server->owner.start ||
                                now.epoch != server->owner.epoch));
}

// What goes on is told here: no registry knows it any more, and the log may have no name.
static void end_without_folder(struct server *server)
{
    const char *state = server->env->state_dir;
    server->folder_gone = true;
    log_write(server->log, LOG_ERROR, "runner.folder", NULL,
              "'%s' was removed or replaced: the runner ends, sessions go on", state);
    (void)fprintf(stderr,
                  "runner: the state folder '%s' was removed or replaced while it was served: the "
                  "runner ends; what goes on has to be ended by hand\n",
                  state);
    for (const struct session *s = server->sessions; s != NULL; s = s->next) {
        if (!session_is_over(s) && s->process != NULL && pm_process_alive(s->process)) {
            (void)fprintf(stderr, "runner: session '%s': its holder is process %llu\n", s->id,
                          (unsigned long long)pm_process_pid(s->process));
        }
    }
    server_stop(server, SERVER_SHUTDOWN);
}

static void on_housekeeping(uv_timer_t *timer)
{
    struct server *server = timer->data;
    uint64_t now = uv_now(&server->loop);
    if (server->end == SERVER_RUNS && is_folder_gone(server)) {
        end_without_folder(server);
    } else if (server->end == SERVER_RUNS) {
        control_check(server, false);
        if (now >= server->again_at) {
            server->again_at = now + AGAIN_MS;
            recover_again(server);
        }
        if (now >= server->late_until && server->recovered && server->held != NULL) {
            methods_release(server, &server->held);
        }
        sessions_watch(server);
        prune_begin(server);
    } else if (is_quiet(server)) {
        close_server(server);
    } else if (now >= server->kill_at) {
        break_off(server);
    }
}

// While it ends already.
static void change_end(struct server *server, enum server_end end)
{
    uint64_t usual = uv_now(&server->loop) + END_ALL_MS;
    if (server->end == SERVER_UPGRADE) { // Who wants it to end wants no other one.
        server->end = end;
    } else if (server->end == SERVER_SHUTDOWN_ALL && end == SERVER_SHUTDOWN) {
        server->end = end; // Nobody waits for sessions any more.
        server->end_deadline = server->end_deadline < usual ? server->end_deadline : usual;
    } else if (server->end == SERVER_SHUTDOWN_ALL && end == SERVER_SHUTDOWN_ALL) {
        uint64_t until = uv_now(&server->loop) + sessions_patience(server); // Of one that is new.
        server->end_deadline = server->end_deadline > until ? server->end_deadline : until;
    }
}

void server_stop(struct server *server, enum server_end end)
{
    if (server->end != SERVER_RUNS) {
        change_end(server, end);
        return;
    }
    server->end = end;
    services_stop(server);
    post_drop_waiting(server->starts); // Each may take as long as one that hangs.
    // Those that are being stopped have times of their own.
    uint64_t patience = end == SERVER_SHUTDOWN_ALL ? sessions_patience(server) : 0;
    server->end_deadline = uv_now(&server->loop) + (patience > END_ALL_MS ? patience : END_ALL_MS);
    server->kill_at = uv_now(&server->loop) + SERVICES_MS;
    (void)uv_timer_start(&server->housekeeping, on_housekeeping, 0, END_LOOK_MS);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct server *server = handle->data;
    if (number == SIGHUP) {
        control_check(server, true);
        return;
    }
    log_write(server->log, LOG_INFO, "runner.signal", NULL, "signal %d: ends, sessions go on",
              number);
    server_stop(server, SERVER_SHUTDOWN);
}

// ------------------------------------------------------------------------------------------------
// Begin
// ------------------------------------------------------------------------------------------------

static uint32_t leak_sweep_ms(void)
{
    char text[32];
    size_t size = sizeof text;
    return uv_os_getenv(LEAK_SWEEP_ENV, text, &size) == 0 ? (uint32_t)strtoul(text, NULL, 10) : 0;
}

static int open_manager(struct server *server, struct runner_error *error)
{
    struct pm_options options = PM_OPTIONS_INIT;
    struct pm_error detail = PM_ERROR_INIT;
    char line[1024];
    options.registry_dir = server->registry_dir;
    options.status_pending_ms = 1; // How the child ended is told by the holder, not by its status.
    // The process is ours alone: whatever zombie nobody tracks is a mistake of ours.
    options.leak_policy = PM_LEAK_REAP;
    options.leak_sweep_ms = leak_sweep_ms();
    options.event = on_event;
    options.log = on_manager_log;
    options.user = server;
    uint64_t deadline = monotonic_ms() + SERVER_LEAVE_MS;
    int result;
    // Whoever has it and does not answer is about to end, or to serve.
    while ((result = pm_open(&options, &server->manager, &detail)) == PM_ERR_REGISTRY_BUSY &&
           monotonic_ms() < deadline && !client_is_served(server->env)) {
        os_signals_obey();
        uv_sleep(LEAVE_LOOK_MS);
    }
    if (result == PM_OK) {
        return RUNNER_OK;
    }
    if (result == PM_ERR_REGISTRY_BUSY) {
        return runner_fail(error, RUNNER_REFUSED,
                           "start of a runner for '%s'\n" SERVED_BY_ANOTHER
                           ", process %llu, serves it\nrunner info",
                           server->env->state_dir, (unsigned long long)detail.pid);
    }
    (void)pm_error_format(&detail, line, sizeof line);
    return runner_fail(error, RUNNER_FAILED, "start of a runner for '%s'\n%s\nrunner doctor",
                       server->env->state_dir, line);
}

static void init_handles(struct server *server)
{
    (void)uv_async_init(&server->loop, &server->wake, on_wake);
    server->wake.data = server;
    (void)uv_timer_init(&server->loop, &server->housekeeping);
    server->housekeeping.data = server;
    (void)uv_timer_start(&server->housekeeping, on_housekeeping, LOOK_MS, LOOK_MS);
    for (size_t i = 0; i < sizeof server->signals / sizeof server->signals[0]; i++) {
        (void)uv_signal_init(&server->loop, &server->signals[i]);
        server->signals[i].data = server;
    }
}

static void work_nothing(uv_work_t *work)
{
    (void)work;
}

// libuv's workers have the signals of who needs them first. They begin while we hold them: none
// takes one, also when nobody listens any more.
static void begin_workers(struct server *server)
{
    (void)uv_queue_work(&server->loop, &server->workers, work_nothing, NULL);
}

// Those that came meanwhile, too.
static void take_signals(struct server *server)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        (void)uv_signal_start(&server->signals[i], on_signal, numbers[i]);
    }
    os_signals_let();
}

static int open_all(struct server *server, struct runner_error *error)
{
    const char *state = server->env->state_dir;
    uint8_t random[16];
    (void)snprintf(server->sessions_dir, sizeof server->sessions_dir, "%s/sessions", state);
    (void)snprintf(server->registry_dir, sizeof server->registry_dir, "%s/registry", state);
    if (uv_random(NULL, NULL, random, sizeof random, 0, NULL) != 0) {
        return runner_fail(error, RUNNER_FAILED, "start of a runner\nno random numbers");
    }
    for (size_t i = 0; i < sizeof random; i++) {
        (void)snprintf(server->instance + 2 * i, 3, "%02x", random[i]);
    }
    int result = pod_dir_open(state, &server->state);
    if (result != PM_OK) {
        char show[4600];
        return runner_fail(error, RUNNER_FAILED, "folder '%s'\n%s\n%s", state, pm_strerror(result),
                           doctor_command(DOCTOR_FILE, state, show));
    }
    int code = os_private_dir(server->sessions_dir, error);
    if (code == RUNNER_OK) {
        code = open_manager(server, error); // From here on the state folder is ours alone.
    }
    if (code != RUNNER_OK) {
        return code;
    }
    if (pm_registry_owner(server->registry_dir, &server->owner) != PM_OK) {
        server->owner.epoch = 0;
    }
    take_signals(server);
    server->log = log_open(state);
    log_listen(server->log, on_log_line, server);
    prune_open(server);
    int failed = epoch_next(server, 0);
    log_write(server->log, LOG_INFO, "runner.started", NULL,
              "version %s, process %lld, epoch %llu, program '%s'%s%s", PM_VERSION_STRING,
              (long long)uv_os_getpid(), (unsigned long long)server->epoch, server->env->program,
              failed != 0 ? ", epoch not written: " : "", failed != 0 ? uv_strerror(failed) : "");
    code = services_open(server, error);
    if (code == RUNNER_OK) {
        code = debug_open(server, error);
    }
    if (code == RUNNER_OK) { // Last: whoever is let in is served.
        code = control_open(server, error);
    }
    return code;
}

// One life. *ret_successor: what shall take its place; its program is to be freed.
static int serve_once(const struct runner_env *env, pm_native ready,
                      struct successor *ret_successor)
{
    struct server *server = calloc(1, sizeof *server);
    struct runner_error error = {.code = RUNNER_OK};
    int code;
    *ret_successor = (struct successor){NULL, false};
    if (server == NULL || uv_loop_init(&server->loop) != 0 ||
        uv_mutex_init(&server->ended_lock) != 0 ||
        (server->starts = post_open(&server->loop, STARTS_AT_ONCE)) == NULL) {
        free(server);
        return RUNNER_FAILED;
    }
    server->env = env;
    server->ready = ready;
    server->owner = (struct pm_registry_owner)PM_REGISTRY_OWNER_INIT;
    server->state = (struct pod_dir)POD_DIR_INIT;
    server->thread = uv_thread_self();
    server->started_wall_ms = wall_ms();
    init_handles(server);
    begin_workers(server);
    code = open_all(server, &error);
    if (code == RUNNER_OK) {
        code = recover_begin(server, &error);
    }
    if (code != RUNNER_OK) {
        (void)runner_report(env, &error);
        services_stop(server); // None was started: only what they share is open.
        close_handles(server);
    }
    (void)uv_run(&server->loop, UV_RUN_DEFAULT);
    if (server->log != NULL) {
        log_write(server->log, LOG_INFO, "runner.ended", NULL, "sessions go on: %s",
                  server->end == SERVER_SHUTDOWN_ALL ? "no" : "yes");
    }
    code = server->folder_gone ? RUNNER_FAILED : code;
    debug_close(server);
    (void)pm_close(server->manager, 5000, NULL);
    on_wake(&server->wake);
    (void)uv_loop_close(&server->loop);
    services_free(server);
    post_free(server->starts);
    control_free(server);
    pod_dir_close(&server->state);
    log_close(server->log);
    uv_mutex_destroy(&server->ended_lock);
    if (server->end == SERVER_UPGRADE) {
        *ret_successor = server->successor;
    } else if (server->successor.program != NULL) {
        upgrade_given_up(env, &server->successor);
        free(server->successor.program);
    }
    free(server);
    return code;
}

int serve(const struct runner_env *env, pm_native ready)
{
    struct successor successor;
    (void)os_signals_hold(); // Until they are taken. After an upgrade we were born so.
    os_widen_table();
    for (;;) {
        os_supervisor_take();
        int code = serve_once(env, ready, &successor);
        if (successor.program == NULL) {
            return code;
        }
        ready = PM_NATIVE_INVALID;
        os_supervisor_give();
        int result = upgrade_replace(env, &successor);
        free(successor.program);
        if (result == 0) {
            return RUNNER_OK;
        }
    }
}

// In the environment, where the next one finds it after an upgrade.
static const char *option_variable(const char *option)
{
    static const char *const names[][2] = {{"--debug", DEBUG_ADDRESS_ENV},
                                           {"--leak-sweep", LEAK_SWEEP_ENV},
                                           {"--config", SERVICE_CONFIG_ENV},
                                           {"--keep-for", KEEP_FOR_ENV},
                                           {"--keep-records", KEEP_RECORDS_ENV}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(option, names[i][0]) == 0) {
            return names[i][1];
        }
    }
    return NULL;
}

// Who starts a runner by hand is told at once what is wrong with the configuration. One that starts
// by itself, or in the place of another, has sessions to serve, and says it in `service list`.
static int check_services(const struct runner_env *env)
{
    char path[4096], full[4096];
    size_t size = sizeof full;
    struct runner_error error;
    json_t *services = NULL;
    service_file_path(env->state_dir, path);
    if (!os_is_absolute(path) && uv_cwd(full, &size) == 0) { // The upgrade may be elsewhere.
        char relative[4096];
        (void)snprintf(relative, sizeof relative, "%s", path);
        (void)snprintf(path, sizeof path, "%.2000s/%.2000s", full, relative);
        (void)uv_os_setenv(SERVICE_CONFIG_ENV, path);
    }
    if (service_file_awaited(path)) {
        (void)fprintf(stderr,
                      "runner: warning: '%s' is not there: no services before "
                      "`runner service add` makes it\n",
                      path);
    }
    int code = service_file_read(path, &services, &error);
    json_decref(services);
    return code == RUNNER_OK ? code : runner_report(env, &error);
}

int cli_serve(const struct runner_env *env, int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--self-check") == 0) {
        return upgrade_self_check();
    }
    if (argc == 3 && strcmp(argv[1], "--guard") == 0) {
        return upgrade_guard(env, strtoll(argv[2], NULL, 10));
    }
    if (argc == 3 && strcmp(argv[1], "--ready-fd") == 0) {
        pm_native ready = (pm_native)strtoll(argv[2], NULL, 10);
        os_keep_at_exec(ready, false);
        return serve(env, ready);
    }
    if (argc == 2 && strcmp(argv[1], "--by-itself") == 0) {
        return serve(env, PM_NATIVE_INVALID);
    }
    for (int i = 1; i < argc; i += 2) {
        const char *name = option_variable(argv[i]);
        uint64_t number;
        if (name == NULL || i + 1 == argc) {
            return runner_usage(env, "serve", "no such option, or no value for it: %s", argv[i]);
        }
        if ((strcmp(name, KEEP_FOR_ENV) == 0 && !prune_parse_time(argv[i + 1], &number)) ||
            (strcmp(name, KEEP_RECORDS_ENV) == 0 && !prune_parse_count(argv[i + 1], &number))) {
            return runner_usage(env, "serve", "%s is like 7d, 12h, 30m, 90s, or a number: not '%s'",
                                argv[i], argv[i + 1]);
        }
        if (strcmp(name, LEAK_SWEEP_ENV) == 0 && !prune_parse_count(argv[i + 1], &number)) {
            return runner_usage(env, "serve", "%s needs a number, not '%s'", argv[i], argv[i + 1]);
        }
        (void)uv_os_setenv(name, argv[i + 1]);
    }
    struct runner_env own = *env;
    own.by_hand = true;
    int code = check_services(env);
    return code == RUNNER_OK ? serve(&own, PM_NATIVE_INVALID) : code;
}
