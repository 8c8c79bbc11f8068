#include "runner/session.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pod/proof.h"
#include "poddaemon/folder.h"
#include "runner/os.h"
#include "runner/service_config.h"
#include "runner/text.h"

const char *session_state_name(int state)
{
    static const char *const names[] = {"starting", "running",     "ended",
                                        "lost",     "unreachable", "unproven"};
    return names[state];
}

int64_t wall_ms(void)
{
    uv_timeval64_t now = {0, 0};
    (void)uv_gettimeofday(&now);
    return now.tv_sec * 1000 + now.tv_usec / 1000;
}

// ------------------------------------------------------------------------------------------------
// The list
// ------------------------------------------------------------------------------------------------

struct session *session_find(struct server *server, const char *id)
{
    struct session *session = server->sessions;
    while (session != NULL && strcmp(session->id, id) != 0) {
        session = session->next;
    }
    return session;
}

// A readable beginning, and a hash: any id gives a name that any file system takes.
void session_folder(const char *state_dir, const char *id, char path[4096])
{
    struct pod_sha256 sha;
    uint8_t digest[POD_SHA256_SIZE];
    char name[25];
    size_t at = 0;
    for (size_t i = 0; id[i] != '\0' && at < sizeof name - 1; i++) {
        char c = id[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
        name[at++] = plain ? c : '_';
    }
    name[at] = '\0';
    if (os_has_devices() && service_is_device(name)) {
        name[0] = '_';
    }
    pod_sha256_begin(&sha);
    pod_sha256_add(&sha, id, strlen(id));
    pod_sha256_end(&sha, digest);
    (void)snprintf(path, 4096, "%s/sessions/%s.%02x%02x%02x%02x%02x%02x%02x%02x", state_dir, name,
                   digest[0], digest[1], digest[2], digest[3], digest[4], digest[5], digest[6],
                   digest[7]);
}

struct session *session_add(struct server *server, const char *id)
{
    struct session *session = calloc(1, sizeof *session);
    if (session == NULL) {
        return NULL;
    }
    session->server = server;
    (void)snprintf(session->id, sizeof session->id, "%s", id);
    session_folder(server->env->state_dir, id, session->path);
    session->retry = malloc(sizeof *session->retry);
    session->patience = malloc(sizeof *session->patience);
    session->warnings = json_array();
    if (session->retry == NULL || session->patience == NULL || session->warnings == NULL) {
        free(session->retry);
        free(session->patience);
        json_decref(session->warnings);
        free(session);
        return NULL;
    }
    (void)uv_timer_init(&server->loop, session->retry);
    (void)uv_timer_init(&server->loop, session->patience);
    session->retry->data = session->patience->data = session;
    session->next = server->sessions;
    server->sessions = session;
    return session;
}

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

static void free_session(struct session *session)
{
    uv_close((uv_handle_t *)session->retry, free_handle);
    uv_close((uv_handle_t *)session->patience, free_handle);
    json_decref(session->labels);
    json_decref(session->warnings);
    free(session->program);
    (void)pm_process_unref(session->process);
    free(session);
}

void session_hold(struct session *session)
{
    session->works++;
}

void session_let(struct session *session)
{
    session->works--;
    if (session->removed) {
        session_remove(session);
    }
}

struct ask *session_take_asks(struct session *session)
{
    struct ask *asks = session->asks;
    session->asks = NULL;
    return asks;
}

void session_end_asks(struct ask *asks)
{
    while (asks != NULL) {
        struct ask *ask = asks;
        asks = ask->next;
        if (ask->refresh != NULL) {
            refresh_done(ask->refresh);
        }
        free(ask);
    }
}

void session_drop_link(struct session *session)
{
    podlink_close(session->link);
    session->link = NULL;
    session->welcomed = session->claim_settled = false;
    session_end_asks(session_take_asks(session));
}

void session_remove(struct session *session)
{
    struct session **at = &session->server->sessions;
    if (!session->removed) {
        while (*at != session) {
            at = &(*at)->next;
        }
        *at = session->next;
        session->removed = true;
        recover_removed(session);
        session_drop_link(session);
        session_settle(session);
    }
    if (session->works == 0) {
        free_session(session);
    }
}

void session_close(struct session *session)
{
    struct runner_error error;
    (void)runner_fail(&error, RUNNER_UNREACHABLE,
                      "stop of session '%s'\nthe runner ends\ncall again", session->id);
    session_fail_waiters(session, &error);
    session_remove(session);
}

bool session_is_over(const struct session *session)
{
    return session->state == SESSION_ENDED || session->state == SESSION_LOST;
}

// ------------------------------------------------------------------------------------------------
// What is told of it
// ------------------------------------------------------------------------------------------------

void session_log(const struct session *session, int level, const char *event, const char *format,
                 ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    log_write(session->server->log, level, event, session->id, "%s", text);
}

void session_notify(const struct session *session, const char *what)
{
    control_notify(session->server, what, session_json(session));
}

static json_t *exit_json(const struct session *session)
{
    static const char *const kinds[] = {"unknown", "exited", "signaled", "lost"};
    const struct pod_exit *e = &session->exit;
    json_t *json;
    if (session->state == SESSION_LOST) {
        return json_pack("{s:s, s:o, s:I}", "kind", "lost", "reason", text_json(session->problem),
                         "claimed_at", (json_int_t)session->claimed_ms);
    }
    if (!session->has_exit) {
        return NULL;
    }
    json = json_pack("{s:s, s:I, s:I, s:I}", "kind", kinds[e->kind <= 3 ? e->kind : 0],
                     "started_at", (json_int_t)e->started_wall_ms, "ended_at",
                     (json_int_t)e->ended_wall_ms, "claimed_at", (json_int_t)session->claimed_ms);
    if (e->kind == POD_EXIT_EXITED) {
        (void)json_object_set_new(json, "code", json_integer((json_int_t)e->code));
    } else if (e->kind == POD_EXIT_SIGNALED) {
        (void)json_object_set_new(json, "signal", json_integer((json_int_t)e->signal));
        (void)json_object_set_new(json, "core", json_boolean(e->core_dumped));
    }
    if (e->usage_known) {
        (void)json_object_set_new(json, "usage",
                                  json_pack("{s:I, s:I, s:I}", "user_us", (json_int_t)e->user_us,
                                            "system_us", (json_int_t)e->system_us, "max_rss_kib",
                                            (json_int_t)e->max_rss_kib));
    }
    return json;
}

static json_t *faults_json(const struct pod_state *pod)
{
    static const char *const names[POD_FAULTS] = {"accept", "client", "child", "log", "record"};
    json_t *json = json_object();
    for (size_t i = 0; i < POD_FAULTS; i++) {
        (void)json_object_set_new(json, names[i], json_integer((json_int_t)pod->faults[i]));
    }
    return json;
}

static json_t *offset_json(const struct session *session, int channel)
{
    uint64_t end = session->has_exit ? session->exit.end[channel] : session->pod.end[channel];
    return json_pack("{s:I, s:I}", "first", (json_int_t)session->pod.first[channel], "end",
                     (json_int_t)end);
}

// What the pod has told about a session that runs.
static void add_pod(const struct session *session, json_t *json)
{
    const struct pod_state *pod = &session->pod;
    (void)json_object_set_new(json, "pid", json_integer((json_int_t)pod->child_pid));
    (void)json_object_set_new(json, "columns", json_integer(pod->columns));
    (void)json_object_set_new(json, "rows", json_integer(pod->rows));
    (void)json_object_set_new(json, "writer", json_boolean(pod->writer));
    (void)json_object_set_new(json, "viewers", json_integer(pod->viewers));
    (void)json_object_set_new(json, "input_queued", json_integer((json_int_t)pod->input_queued));
    (void)json_object_set_new(json, "gaps", json_integer((json_int_t)pod->gaps));
    (void)json_object_set_new(json, "refused", json_integer((json_int_t)pod->refused));
    (void)json_object_set_new(json, "faults", faults_json(pod));
    (void)json_object_set_new(json, "version", json_integer(session->version));
    (void)json_object_set_new(json, "build", text_json(session->build));
}

json_t *session_json(const struct session *session)
{
    json_t *json =
        json_pack("{s:o, s:s, s:s, s:s, s:I, s:I, s:O, s:O, s:o}", "id", text_json(session->id),
                  "state", session_state_name((int)session->state), "mode",
                  session->pipes ? "pipes" : "pty", "program",
                  session->program != NULL ? session->program : "", "created",
                  (json_int_t)session->created_ms, "daemon_pid",
                  (json_int_t)(session_is_over(session) ? 0 : session->daemon_pid), "labels",
                  session->labels != NULL ? session->labels : json_object(), "warnings",
                  session->warnings, "folder", text_json(session->path));
    if (json == NULL) {
        return NULL;
    }
    if (session->labels == NULL) { // s:O took a reference of its own.
        json_decref(json_object_get(json, "labels"));
    }
    (void)json_object_set_new(json, "on_full", json_string(session->waits ? "wait" : "drop"));
    (void)json_object_set_new(json, "grace_ms", json_integer(session_grace(session)));
    (void)json_object_set_new(json, "stdout", offset_json(session, POD_CHANNEL_OUT));
    if (session->pipes) {
        (void)json_object_set_new(json, "stderr", offset_json(session, POD_CHANNEL_ERR));
    }
    if (!session_is_over(session)) {
        add_pod(session, json);
    }
    json_t *record = exit_json(session);
    if (record != NULL) {
        (void)json_object_set_new(json, "exit", record);
    }
    if (session->problem[0] != '\0') {
        (void)json_object_set_new(json, "problem", text_json(session->problem));
    }
    return json;
}

// ------------------------------------------------------------------------------------------------
// Talking to its pod
// ------------------------------------------------------------------------------------------------

static void on_retry(uv_timer_t *timer)
{
    struct session *session = timer->data;
    session_hold(session);
    session_connect(session);
    session_let(session);
}

void session_retry_later(struct session *session)
{
    static const unsigned waits[] = {10, 20, 50, 100, 200, 500};
    size_t n = sizeof waits / sizeof waits[0];
    unsigned wait = session->attempts < n ? waits[session->attempts] : 3000;
    session->attempts++;
    (void)uv_timer_start(session->retry, on_retry, wait, 0);
}

void session_fail(struct session *session, enum session_state state, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(session->problem, sizeof session->problem, format, arguments);
    va_end(arguments);
    if (session->state != state) {
        session->state = state;
        session_log(session, LOG_WARNING,
                    state == SESSION_UNREACHABLE ? "session.unreachable" : "session.unproven", "%s",
                    session->problem);
        if (session->settled) {
            session_notify(session, state == SESSION_UNREACHABLE ? "session.unreachable"
                                                                 : "session.unproven");
        }
    }
    session_settle(session);
}

static int send_ask(struct session *session, struct ask *ask)
{
    struct pod_client *client = podlink_client(session->link);
    int64_t number;
    switch (ask->kind) {
    case ASK_STOP:
        number = pod_client_stop(client, session->stop_grace_ms);
        break;
    case ASK_KILL:
        number = pod_client_kill(client);
        break;
    case ASK_CLAIM:
        number = pod_client_claim(client);
        break;
    default:
        number = pod_client_status(client);
        break;
    }
    ask->request = number > 0 ? (uint32_t)number : 0;
    podlink_flush(session->link);
    return number < 0 ? (int)number : 0;
}

bool session_ask(struct session *session, enum ask_kind kind, struct refresh *refresh)
{
    bool unproven = session->state == SESSION_UNPROVEN;
    bool askable = !session_is_over(session) && session->create == NULL && !session->removed &&
                   !session->aside && (!unproven || kind == ASK_STATUS);
    struct ask *ask = askable ? malloc(sizeof *ask) : NULL;
    if (ask == NULL) {
        return false;
    }
    *ask = (struct ask){session->asks, kind, 0, refresh};
    session->asks = ask;
    if (session->welcomed) {
        (void)send_ask(session, ask);
    } else if (unproven) {
        session_collect(session); // Somebody may have mended it.
    } else {
        session_connect(session);
    }
    return true;
}

static struct ask *take_ask(struct session *session, uint32_t request)
{
    for (struct ask **at = &session->asks; *at != NULL; at = &(*at)->next) {
        if ((*at)->request == request) {
            struct ask *ask = *at;
            *at = ask->next;
            return ask;
        }
    }
    return NULL;
}

// Before we ask for the first time only an earlier runner can have claimed it, and that one has
// told it. Later that says nothing: it may be our own claim whose answer was lost.
static bool claimed_before(const struct session *session)
{
    char path[4200];
    uv_fs_t request;
    (void)snprintf(path, sizeof path, "%s/" POD_FILE_CLAIMED, session->path);
    bool is_there = uv_fs_lstat(NULL, &request, path, NULL) == 0;
    uv_fs_req_cleanup(&request);
    return is_there && !session->claim_asked;
}

static void claim(struct session *session)
{
    if (session->claim_settled || session->record_gone) {
        return;
    }
    session->claim_settled = true;
    if (!claimed_before(session)) {
        session->claim_asked = true;
        (void)session_ask(session, ASK_CLAIM, NULL);
    }
}

// false: no runner can. It has that from somebody else who has its token.
static bool rise_above(struct session *session, uint64_t epoch)
{
    if (epoch >= EPOCH_MAX) {
        session_log(session, LOG_ERROR, "runner.epoch",
                    "its holder has met epoch %llu, which no runner has",
                    (unsigned long long)epoch);
        return false;
    }
    // A newer runner was here, whose count we do not know: the registry is ours, so we are the
    // newest.
    if (epoch_next(session->server, epoch + 1) != 0) {
        session_log(session, LOG_ERROR, "runner.epoch", "a new epoch cannot be written");
    }
    return true;
}

static void take_state(struct session *session, const struct pod_state *pod)
{
    session->pod = *pod;
    session->daemon_pid = pod->daemon_pid;
    if (pod->epoch > session->server->epoch && pod->epoch < EPOCH_MAX) {
        (void)rise_above(session, pod->epoch);
    }
    if (session->state != SESSION_RUNNING && !session->record_gone) {
        session->state = SESSION_RUNNING;
        session->problem[0] = '\0';
        if (pod->state != POD_SESSION_EXITED) {
            session_log(session, LOG_INFO, "session.attached",
                        "holder %llu, child %llu, version %s", (unsigned long long)pod->daemon_pid,
                        (unsigned long long)pod->child_pid, session->build);
        }
    }
    session->attempts = 0;
    session_settle(session);
    if (pod->state == POD_SESSION_EXITED) {
        claim(session);
    } else if (pod->state == POD_SESSION_WAITING && !session->stopping) {
        session_stop(session, ASK_KILL, 0); // Its maker died: nobody was told of it.
    }
}

static void take_welcome(struct session *session, const struct pod_welcome *welcome)
{
    size_t size = welcome->build.size < POD_BUILD_MAX ? welcome->build.size : POD_BUILD_MAX;
    memcpy(session->build, welcome->build.data, size);
    session->build[size] = '\0';
    session->version = welcome->version;
    session->daemon_pid = welcome->daemon_pid;
    session->welcomed = true;
    for (struct ask *ask = session->asks; ask != NULL; ask = ask->next) {
        (void)send_ask(session, ask);
    }
}

static void ask_again(struct session *session)
{
    session_drop_link(session);
    (void)session_ask(session, session->stop_kind, NULL);
}

static void take_answer(struct session *session, const struct pod_message *message)
{
    struct ask *ask = take_ask(session, message->u.request.request);
    bool again = false;
    if (ask == NULL) {
        return;
    }
    if (message->type == POD_ERROR) {
        const struct pod_error *e = &message->u.error;
        session_log(session, LOG_WARNING, "session.refused", "%s: %.*s", pod_strerror(e->code),
                    (int)e->text.size, (const char *)e->text.data);
        if (e->code == POD_E_FENCED) {
            bool above = rise_above(session, e->detail);
            again = above && session->stopping && ask->kind != ASK_STATUS;
        }
        session->record_gone |= e->code == POD_E_GONE && ask->kind == ASK_CLAIM;
    } else if (ask->kind == ASK_CLAIM) {
        session->claim_done = true;
    }
    if (ask->refresh != NULL) {
        refresh_done(ask->refresh);
    }
    free(ask);
    if (again) {
        ask_again(session);
    }
}

// Nothing more to ask: the pod is left alone. One that is claimed may stay for somebody who does
// not read, but how it ended can be told.
static void leave_alone(struct session *session)
{
    bool claimed = session->claim_settled;
    if (session->link != NULL && session->welcomed && session->asks == NULL &&
        (!session->stopping || claimed)) {
        session_drop_link(session);
        if (claimed) {
            session_collect(session);
        }
    }
}

static void take_message(struct session *session, const struct pod_message *message)
{
    if (message->type == POD_WELCOME) {
        take_welcome(session, &message->u.welcome);
    }
    if (session->create != NULL && create_message(session, message)) {
        return;
    }
    switch (message->type) {
    case POD_STATE:
        take_state(session, &message->u.state);
        take_answer(session, message);
        break;
    case POD_EXIT:
        session->exit = message->u.exit;
        session->exit_told = true;
        claim(session);
        break;
    case POD_DONE:
    case POD_ERROR:
        take_answer(session, message);
        break;
    default:
        break;
    }
    leave_alone(session);
}

// Held: a call that waited for the session, and is run meanwhile, may remove it.
static void on_message(void *user, const struct pod_message *message)
{
    struct session *session = user;
    session_hold(session);
    take_message(session, message);
    session_let(session);
}

static void take_end_of_link(struct session *session, int failure)
{
    struct ask *asks = session_take_asks(session);
    session->link = NULL;
    session->welcomed = session->claim_settled = false;
    if (session->create != NULL) {
        session_end_asks(asks);
        create_over(session, failure);
        return;
    }
    if (failure != -POD_E_CLOSED && !session_is_over(session)) {
        session->attempts = 3;
        session_fail(session, SESSION_UNREACHABLE, "its holder does not answer: %s",
                     failure == -POD_E_IO ? "no word within 2 s" : pod_strerror(failure));
    }
    session_end_asks(asks);
    session_collect(session);
}

static void on_over(void *user, int failure)
{
    struct session *session = user;
    session_hold(session);
    take_end_of_link(session, failure);
    session_let(session);
}

int session_take_link(struct session *session, pm_native native, const uint8_t *token,
                      uint64_t timeout_ms)
{
    struct podlink_options options = {.loop = &session->server->loop,
                                      .session = session->id,
                                      .token = token,
                                      .epoch = session->server->epoch,
                                      .timeout_ms = timeout_ms,
                                      .handler = on_message,
                                      .over = on_over,
                                      .user = session};
    return podlink_open(&options, native, &session->link);
}

static void connect_to(struct session *session)
{
    struct pod_dir dir = POD_DIR_INIT;
    uint8_t token[POD_TOKEN_SIZE];
    pm_native native;
    int result;
    if (session->link != NULL || session_is_over(session) || session->create != NULL ||
        session->collecting || session->removed) {
        return;
    }
    if (session->asks == NULL && session->stopping) {
        (void)session_ask(session, session->stop_kind, NULL); // Comes back here.
        return;
    }
    result = pod_dir_open(session->path, &dir);
    if (result == PM_OK) {
        result = pod_token_read(&dir, token);
    }
    if (result == PM_OK) {
        result = pod_connect(&dir, session->id, &native);
    }
    pod_dir_close(&dir);
    if (result == PM_OK && session_take_link(session, native, token, HANDSHAKE_MS) == 0) {
        return;
    }
    session_collect(session);
}

void session_connect(struct session *session)
{
    session_hold(session);
    connect_to(session);
    session_let(session);
}

void session_settle(struct session *session)
{
    struct server *server = session->server;
    if (!session->settled) {
        session->settled = true;
        if (session->counted && --server->recovering == 0) {
            log_write(server->log, LOG_INFO, "runner.recovered", NULL,
                      "all sessions have answered");
        }
    }
    methods_release(server, &session->held);
}
