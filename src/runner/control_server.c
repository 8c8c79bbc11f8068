// The runner's end of control connections: docs/control.md.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/doctor.h"
#include "runner/lines.h"
#include "runner/server.h"

#define CONNECTIONS_MAX 256
#define SUBSCRIBED_MAX 224 // Of these: others have to come to ask, and to end something.
#define LEAVING_MAX 64     // Besides, those that read why they are sent away.
#define CALLS_MAX 64       // Of one connection, unanswered.
#define FINISH_MS 1000     // At the end, for clients to read what they were answered.

struct conn {
    struct server *server;
    struct conn *next;
    struct lines *lines; // NULL: the client has gone.
    uint64_t pid;        // Of the client; 0: not known.
    uint64_t heard;      // When it said something last, or came: the higher the later.
    bool subscribed;
    bool leaving; // It is told why it is sent away.
    unsigned calls;
    struct call *watched; // Those that want to know when the client has gone.
    uint64_t serial;      // Of what call_notify() told it last.
};

struct control {
    struct pod_listener listener;
    bool listening;
    bool closing;
    uv_timer_t pause; // After a trouble; when closing, until clients that do not read are dropped.
    struct conn *conns;
    size_t open, leaving, subscribed; // Of those whose clients are there.
    uint64_t heard;                   // Of the last one.
    bool crowded;                     // Said once, until there is room again.
    bool trouble;                     // The socket could not be made again; said once.
};

struct call {
    struct conn *conn; // NULL: the runner asks itself.
    json_t *id;        // NULL: a notification.
    struct call *next; // Of conn::watched.
    void (*gone)(void *user);
    call_done *done;
    void *user; // Of these two.
};

static void close_timer(struct control *control)
{
    if (!uv_is_closing((uv_handle_t *)&control->pause)) {
        uv_close((uv_handle_t *)&control->pause, NULL);
    }
}

static void drop_conn(struct conn *conn)
{
    struct control *control = conn->server->control;
    struct conn **at = &control->conns;
    if (conn->lines != NULL || conn->calls > 0) {
        return;
    }
    while (*at != conn) {
        at = &(*at)->next;
    }
    *at = conn->next;
    free(conn);
    if (control->closing && control->conns == NULL) {
        close_timer(control);
    }
}

static void send_message(struct conn *conn, json_t *message)
{
    size_t size = 0;
    char *text;
    if (conn->lines == NULL) {
        json_decref(message);
        return;
    }
    text = rpc_line(message, &size);
    lines_write(conn->lines, text, size);
}

static void unwatch(struct call *call)
{
    struct call **at = &call->conn->watched;
    while (*at != NULL && *at != call) {
        at = &(*at)->next;
    }
    if (*at != NULL) {
        *at = call->next;
    }
}

static void end_call(struct call *call, json_t *message)
{
    struct conn *conn = call->conn;
    unwatch(call);
    if (call->id != NULL) {
        send_message(conn, message);
    } else {
        json_decref(message);
    }
    json_decref(call->id);
    free(call);
    conn->calls--;
    drop_conn(conn);
}

void call_result(struct call *call, json_t *result)
{
    struct runner_error error;
    if (result == NULL) {
        (void)runner_fail(&error, RUNNER_FAILED, "answer\nout of memory");
        call_error(call, &error);
    } else if (call->conn == NULL) {
        call->done(call->user, result, NULL);
        json_decref(result);
        free(call);
    } else {
        end_call(call, rpc_result(call->id, result));
    }
}

void call_error(struct call *call, const struct runner_error *error)
{
    if (call->conn == NULL) {
        call->done(call->user, NULL, error);
        free(call);
    } else {
        end_call(call, rpc_error(call->id, error));
    }
}

bool call_is_our_own(const struct call *call)
{
    return call->conn == NULL;
}

struct call *call_of_our_own(call_done *done, void *user)
{
    struct call *call = calloc(1, sizeof *call);
    if (call != NULL) {
        call->done = done;
        call->user = user;
    }
    return call;
}

void call_watch(struct call *call, void (*gone)(void *user), void *user)
{
    if (call->conn != NULL && gone != NULL) {
        call->gone = gone;
        call->user = user;
        call->next = call->conn->watched;
        call->conn->watched = call;
    }
}

void call_notify(struct call *call, uint64_t serial, const char *method, json_t *params)
{
    struct conn *conn = call->conn;
    if (conn == NULL || conn->subscribed || conn->serial == serial || params == NULL) {
        json_decref(params);
    } else {
        conn->serial = serial;
        send_message(conn, rpc_notification(method, params));
    }
}

// The answer to what is not even tried.
static json_t *refuse(const struct rpc_request *request, bool known, bool fits)
{
    struct runner_error error;
    if (!known) {
        return rpc_fault(request->id, RPC_UNKNOWN_METHOD, "no such method");
    }
    (void)runner_fail(&error, fits ? RUNNER_REFUSED : RUNNER_USAGE, "call of %s\n%s",
                      request->method,
                      fits ? "too many at once on this connection: read answers first"
                           : "it is longer than 1 MiB");
    return rpc_error(request->id, &error);
}

static void on_line(void *user, const char *line, size_t size)
{
    struct conn *conn = user;
    struct rpc_request request;
    json_t *reply;
    conn->heard = ++conn->server->control->heard;
    if (rpc_parse(line, size, &request, &reply) != 0) {
        send_message(conn, reply);
        return;
    }
    bool known = methods_know(request.method);
    bool fits = size <= rpc_line_max(request.method);
    struct call *call = known && fits && conn->calls < CALLS_MAX ? calloc(1, sizeof *call) : NULL;
    if (call == NULL) {
        reply = refuse(&request, known, fits);
        if (request.id != NULL) {
            send_message(conn, reply);
        } else {
            json_decref(reply);
        }
    } else {
        *call = (struct call){.conn = conn, .id = json_incref(request.id)};
        conn->calls++;
        methods_call(conn->server, request.method, call, request.params);
    }
    rpc_request_clear(&request);
}

static void on_closed(void *user, int failure)
{
    struct conn *conn = user;
    struct control *control = conn->server->control;
    control->leaving -= conn->leaving;
    control->open -= !conn->leaving;
    control->subscribed -= conn->subscribed;
    control->crowded = control->crowded && control->open > CONNECTIONS_MAX / 2;
    conn->lines = NULL;
    if (failure == UV_EMSGSIZE || failure == UV_ENOBUFS) {
        log_write(conn->server->log, LOG_WARNING, "control.dropped", NULL,
                  failure == UV_EMSGSIZE ? "a line of a client is longer than %u bytes"
                                         : "a client does not read: more than %u bytes unsent",
                  failure == UV_EMSGSIZE ? RUNNER_CALL_MAX : LINES_UNSENT_MAX);
    }
    conn->calls++; // It stays while they are told.
    while (conn->watched != NULL) {
        struct call *call = conn->watched;
        conn->watched = call->next;
        call->gone(call->user);
    }
    conn->calls--;
    drop_conn(conn);
}

static void free_pipe(uv_handle_t *handle)
{
    free(handle);
}

static bool waits_for_nothing(const struct conn *conn)
{
    return conn->lines != NULL && !conn->leaving && conn->calls == 0 && !conn->subscribed;
}

// The lower, the sooner it gives up its place: who has read all that it was sent, and last who is
// just asking for something.
static int busyness(const struct conn *conn)
{
    return (lines_within(conn->lines) ? 2 : 0) + (lines_all_sent(conn->lines) ? 0 : 1);
}

// Of the others that wait for nothing the least busy; of these the one that has said nothing for
// longest; or NULL.
static struct conn *find_idle(const struct control *control, const struct conn *newest)
{
    struct conn *idle = NULL;
    for (struct conn *conn = control->conns; conn != NULL; conn = conn->next) {
        if (conn == newest || !waits_for_nothing(conn)) {
            continue;
        }
        int more = idle != NULL ? busyness(conn) - busyness(idle) : -1;
        if (more < 0 || (more == 0 && conn->heard < idle->heard)) {
            idle = conn;
        }
    }
    return idle;
}

// What it asks for may have come while others were let in.
static struct conn *find_silent(const struct control *control, const struct conn *newest)
{
    struct conn *idle = find_idle(control, newest);
    for (size_t i = 0; i < CONNECTIONS_MAX && idle != NULL; i++) {
        uint64_t heard = idle->heard;
        int busy = busyness(idle);
        lines_look(idle->lines);
        if (idle->heard == heard && busyness(idle) <= busy) {
            break;
        }
        idle = find_idle(control, newest);
    }
    return idle;
}

static uint64_t oldest_process(const struct control *control)
{
    uint64_t pid = 0;
    for (const struct conn *conn = control->conns; conn != NULL; conn = conn->next) {
        pid = conn->lines != NULL && !conn->leaving ? conn->pid : pid;
    }
    return pid;
}

static void send_away(struct conn *conn, const struct runner_error *error)
{
    struct control *control = conn->server->control;
    bool may_read = control->leaving < LEAVING_MAX;
    conn->leaving = true;
    control->open--;
    control->leaving++;
    if (!may_read) {
        lines_close(conn->lines);
        return;
    }
    send_message(conn, rpc_error(NULL, error));
    lines_finish(conn->lines);
}

static void tell_crowded(struct server *server, uint64_t pid, const char *what)
{
    char who[40] = "";
    if (pid != 0) {
        (void)snprintf(who, sizeof who, " (process %llu)", (unsigned long long)pid);
    }
    if (!server->control->crowded) {
        log_write(server->log, LOG_WARNING, "control.crowded", NULL, "%d connections at once: %s%s",
                  CONNECTIONS_MAX, what, who);
    }
    server->control->crowded = true;
}

// Whoever comes to ask or to end something gets a place, however many have come before: one that
// waits for nothing gives up its own. Where there is none, it is told so, and by whom.
static void make_room(struct conn *newest)
{
    struct server *server = newest->server;
    struct control *control = server->control;
    struct conn *idle = find_silent(control, newest);
    struct runner_error error;
    char number[24], oldest[64] = "", show[4600];
    if (idle != NULL) {
        tell_crowded(server, idle->pid,
                     "who waits for nothing is sent away, the most silent first");
        (void)runner_fail(&error, RUNNER_REFUSED,
                          "connection to the runner\nothers need its place: it waits for nothing, "
                          "and %d are there\nnone: connect again for the next call",
                          CONNECTIONS_MAX);
        send_away(idle, &error);
        return;
    }
    uint64_t pid = oldest_process(control);
    tell_crowded(server, pid, "each waits for something, and others are sent away");
    (void)snprintf(number, sizeof number, "%llu", (unsigned long long)pid);
    if (pid != 0) {
        (void)snprintf(oldest, sizeof oldest, "; the oldest is of process %s", number);
    }
    (void)runner_fail(&error, RUNNER_REFUSED,
                      "connection to the runner\n%d are there, and each waits for something%s\n%s",
                      CONNECTIONS_MAX, oldest,
                      pid != 0 ? doctor_command(DOCTOR_PROCESS, number, show)
                               : "none: end one of the programs that are connected");
    send_away(newest, &error);
}

static void add_conn(struct server *server, uv_pipe_t *pipe, uint64_t pid)
{
    struct control *control = server->control;
    struct conn *conn = calloc(1, sizeof *conn);
    struct lines_handler handler = {on_line, on_closed, conn, RUNNER_CALL_MAX};
    if (conn == NULL) {
        uv_close((uv_handle_t *)pipe, free_pipe);
        return;
    }
    *conn = (struct conn){.server = server, .next = control->conns, .pid = pid};
    conn->heard = ++control->heard;
    control->conns = conn;
    conn->lines = lines_open(pipe, &handler);
    if (conn->lines == NULL) {
        drop_conn(conn);
    } else if (++control->open > CONNECTIONS_MAX) {
        make_room(conn);
    }
}

static void take_native(struct server *server, pm_native native)
{
    uint64_t pid = os_peer_of(native);
    uv_pipe_t *pipe = malloc(sizeof *pipe);
    if (pipe == NULL || uv_pipe_init(&server->loop, pipe, 0) != 0) {
        free(pipe);
        pod_connection_close(native);
    } else if (os_pipe_open(pipe, native) != 0) {
        uv_close((uv_handle_t *)pipe, free_pipe);
    } else {
        add_conn(server, pipe, pid);
    }
}

static void on_pause_over(uv_timer_t *timer)
{
    struct server *server = timer->data;
    pod_listener_pause(&server->control->listener, false);
}

// A trouble, such as no descriptors, passes: others are waited for, and it is tried again.
static void on_ready(void *user)
{
    struct server *server = user;
    struct control *control = server->control;
    pm_native native;
    for (int i = 0; i < 64; i++) {
        int result = pod_listener_accept(&control->listener, &native);
        if (result == PM_OK) {
            take_native(server, native);
        } else if (result == PM_ERR_ACCESS) {
            log_write(server->log, LOG_WARNING, "control.refused", NULL,
                      "a process of another user");
        } else {
            if (result != PM_ERR_TIMEOUT) {
                log_write(server->log, LOG_WARNING, "control.accept", NULL, "%s",
                          pm_strerror(result));
                pod_listener_pause(&control->listener, true);
                (void)uv_timer_start(&control->pause, on_pause_over, 100, 0);
            }
            return;
        }
    }
}

static int start_listening(struct server *server)
{
    struct control *control = server->control;
    int result = pod_listener_open(&server->loop, &control->listener, &server->state, CONTROL_NAME,
                                   on_ready, server);
    control->listening = result == PM_OK;
    return result;
}

static void stop_listening(struct server *server)
{
    struct control *control = server->control;
    if (control->listening) {
        (void)uv_timer_stop(&control->pause);
        pod_listener_close(&control->listener, &server->state);
        control->listening = false;
    }
}

int control_open(struct server *server, struct runner_error *error)
{
    server->control = calloc(1, sizeof *server->control);
    int result = PM_ERR_NO_MEMORY;
    if (server->control != NULL) {
        (void)uv_timer_init(&server->loop, &server->control->pause);
        server->control->pause.data = server;
        result = start_listening(server);
    }
    if (result != PM_OK) {
        char show[4600];
        return runner_fail(error, RUNNER_FAILED, "control connection\ncannot listen in %s: %s\n%s",
                           server->env->state_dir, pm_strerror(result),
                           doctor_command(DOCTOR_FILE, server->env->state_dir, show));
    }
    return RUNNER_OK;
}

// Closes all connections; `now`: also those whose clients have not read everything.
static void end_conns(struct control *control, bool now)
{
    struct conn *next;
    for (struct conn *conn = control->conns; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->lines != NULL && now) {
            lines_close(conn->lines);
        } else if (conn->lines != NULL) {
            lines_finish(conn->lines);
        }
    }
}

// A client that does not read must not hold up the end, nor an upgrade.
static void on_finish_over(uv_timer_t *timer)
{
    struct server *server = timer->data;
    end_conns(server->control, true);
    close_timer(server->control);
}

void control_close(struct server *server)
{
    struct control *control = server->control;
    if (control == NULL) {
        return;
    }
    stop_listening(server);
    control->closing = true;
    if (control->conns == NULL) {
        close_timer(control);
        return;
    }
    (void)uv_timer_start(&control->pause, on_finish_over, FINISH_MS, 0);
    end_conns(control, false);
}

void control_free(struct server *server)
{
    free(server->control);
    server->control = NULL;
}

void control_check(struct server *server, bool asked)
{
    struct control *control = server->control;
    if (server->end != SERVER_RUNS ||
        (control->listening && !pod_listener_is_gone(&control->listener, &server->state, asked))) {
        return;
    }
    if (control->listening) {
        on_ready(server); // Who has connected to the old one is heard.
    }
    stop_listening(server);
    int result = start_listening(server);
    if (result == PM_OK) {
        log_write(server->log, LOG_WARNING, "control.again", NULL,
                  "the socket was %s; it is made again", asked ? "gone, or another one" : "gone");
    } else if (!control->trouble) {
        log_write(server->log, LOG_ERROR, "control.again", NULL,
                  "the socket is gone and cannot be made again: %s", pm_strerror(result));
    }
    control->trouble = result != PM_OK;
}

bool control_subscribe(struct call *call)
{
    struct conn *conn = call->conn;
    struct control *control = conn->server->control;
    if (!conn->subscribed && control->subscribed >= SUBSCRIBED_MAX) {
        return false;
    }
    control->subscribed += !conn->subscribed;
    conn->subscribed = true;
    return true;
}

size_t control_notify(struct server *server, const char *method, json_t *params)
{
    struct conn *next;
    size_t told = 0;
    if (server->control == NULL || params == NULL) { // NULL: no memory, or text that is no UTF-8.
        json_decref(params);
        return 0;
    }
    for (struct conn *conn = server->control->conns; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->subscribed && conn->lines != NULL) {
            send_message(conn, rpc_notification(method, json_incref(params)));
            told++;
        }
    }
    json_decref(params);
    return told;
}

size_t control_connections(const struct server *server)
{
    return server->control->open;
}
