#include "runner/peer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/post.h"
#include "runner/service_log.h"

#define WHY_MAX 160
#define GARBAGE_NOTES 32         // Lines in the log about it, in a second.
#define QUESTIONS_MAX 64         // That are open.
#define QUESTIONS_SIZE 16777216u // Of all of them, but for the first one.

struct peer_call {
    struct peer *peer;
    struct peer_call *next;
    char id[MESSAGE_ID_MAX];
    char *method, *tag;
    json_t *session; // ACP: of its parameters, for its cancel.
    uint64_t deadline;
    uint32_t timeout_ms;
    peer_done *done;
    void *user;
};

struct question {
    struct question *next;
    char key[MESSAGE_ID_MAX];
    json_t *request;
    size_t size; // Of its line.
    uint64_t deadline;
};

struct peer {
    struct peer_options options;
    struct transport *transport; // NULL: it has ended.
    struct peer_call *calls;
    size_t calls_count;
    struct question *questions;
    uv_timer_t timer; // For the next deadline.
    uint64_t start_deadline;
    bool started, ready, asked, ended, cut;
    struct runner_error failed; // code: RUNNER_OK while it was not given up.
    json_t *facts;
    struct peer_stats stats;
    uint64_t offset;
    size_t line_size;
    uint64_t garbage_since, hushed; // hushed: lines of garbage that were not noted.
    unsigned garbage_notes;
};

static const struct service_config *config_of(const struct peer *peer)
{
    return peer->options.config;
}

static uint64_t now_ms(const struct peer *peer)
{
    return uv_now(&peer->options.server->loop);
}

// Of one count for all of them: an answer to a question of a child that has ended is none to one
// of the next.
static void next_id(struct peer *peer, char id[MESSAGE_ID_MAX])
{
    struct server *server = peer->options.server;
    message_id(id, server->instance, ++server->ids);
}

static void note(struct peer *peer, const char *text)
{
    peer->options.handler.note(peer->options.handler.user, text);
}

// ------------------------------------------------------------------------------------------------
// Deadlines
// ------------------------------------------------------------------------------------------------

static void on_timer(uv_timer_t *timer);

static void set_timer(struct peer *peer)
{
    uint64_t first = peer->ready || peer->asked ? UINT64_MAX : peer->start_deadline;
    uint64_t now = now_ms(peer);
    for (const struct peer_call *call = peer->calls; call != NULL; call = call->next) {
        first = call->deadline < first ? call->deadline : first;
    }
    for (const struct question *q = peer->questions; q != NULL; q = q->next) {
        first = q->deadline < first ? q->deadline : first;
    }
    if (peer->ended || first == UINT64_MAX) {
        (void)uv_timer_stop(&peer->timer);
    } else {
        (void)uv_timer_start(&peer->timer, on_timer, first > now ? first - now : 0, 0);
    }
}

// ------------------------------------------------------------------------------------------------
// What is said
// ------------------------------------------------------------------------------------------------

// Steals the message.
static int say(struct peer *peer, json_t *message, const char *answers)
{
    size_t size = 0;
    char *line = rpc_line(message, &size);
    if (line == NULL || peer->transport == NULL) {
        free(line);
        return line == NULL ? UV_ENOMEM : UV_EPIPE;
    }
    return peer->transport->ops->write(peer->transport, line, size, answers);
}

static int refuse_write(const struct peer *peer, int result, struct runner_error *error)
{
    const char *name = peer->options.name;
    if (result == UV_ENOBUFS) {
        return runner_fail(error, RUNNER_REFUSED,
                           "message to service '%s'\nit does not read: %llu bytes wait for it\n"
                           "runner service restart %s",
                           name, (unsigned long long)peer_stats(peer).unsent, name);
    }
    return runner_fail(error, RUNNER_FAILED, "message to service '%s'\n%s\nrunner service get %s",
                       name, result == UV_EPIPE ? "it has closed its input" : uv_strerror(result),
                       name);
}

// Steals the answer.
static void answer(struct peer *peer, const json_t *id, json_t *message)
{
    char *text = json_dumps(id, JSON_ENCODE_ANY | JSON_COMPACT);
    int result = say(peer, message, text != NULL ? text : "null");
    free(text);
    if (result != 0) {
        char line[WHY_MAX];
        (void)snprintf(line, sizeof line, "an answer to it was lost: %s", uv_strerror(result));
        note(peer, line);
    }
}

int peer_notify(struct peer *peer, const char *method, json_t *params, struct runner_error *error)
{
    int result = say(peer, message_notification(method, params), NULL);
    return result == 0 ? RUNNER_OK : refuse_write(peer, result, error);
}

// ------------------------------------------------------------------------------------------------
// Calls
// ------------------------------------------------------------------------------------------------

static void free_call(struct peer_call *call)
{
    json_decref(call->session);
    free(call->method);
    free(call->tag);
    free(call);
}

static void end_call(struct peer_call *call, json_t *message, const struct runner_error *error)
{
    struct peer_call **at = &call->peer->calls;
    while (*at != call) {
        at = &(*at)->next;
    }
    *at = call->next;
    call->peer->calls_count--;
    call->done(call->user, message, error);
    free_call(call);
}

static struct peer_call *new_call(struct peer *peer, const struct peer_call_options *options)
{
    struct peer_call *call = calloc(1, sizeof *call);
    if (call == NULL) {
        return NULL;
    }
    uint32_t timeout = options->timeout_ms != 0 ? options->timeout_ms : config_of(peer)->call_ms;
    json_t *session = json_object_get(options->params, "sessionId");
    next_id(peer, call->id);
    call->peer = peer;
    call->method = strdup(options->method);
    call->tag = options->tag != NULL ? strdup(options->tag) : NULL;
    call->session = json_incref(session);
    call->timeout_ms = timeout;
    call->deadline = now_ms(peer) + timeout;
    call->done = options->done;
    call->user = options->user;
    if (call->method == NULL || (options->tag != NULL && call->tag == NULL)) {
        free_call(call);
        return NULL;
    }
    return call;
}

int peer_call(struct peer *peer, const struct peer_call_options *options,
              struct peer_call **ret_call, struct runner_error *error)
{
    if (peer->calls_count >= PEER_CALLS_MAX) {
        json_decref(options->params);
        return runner_fail(error, RUNNER_REFUSED,
                           "call of service '%s'\n%d calls have no answer yet\n"
                           "runner service get %s",
                           peer->options.name, PEER_CALLS_MAX, peer->options.name);
    }
    struct peer_call *call = new_call(peer, options);
    if (call == NULL) {
        json_decref(options->params);
        return runner_fail(error, RUNNER_FAILED, "call of service '%s'\nout of memory",
                           peer->options.name);
    }
    int result = say(peer, message_request(call->id, options->method, options->params), NULL);
    if (result != 0) {
        free_call(call);
        return refuse_write(peer, result, error);
    }
    call->next = peer->calls;
    peer->calls = call;
    peer->calls_count++;
    set_timer(peer);
    if (ret_call != NULL) {
        *ret_call = call;
    }
    return RUNNER_OK;
}

static void close_question(struct peer *peer, struct question *question, json_t *message,
                           bool in_time);

// The turn of a session that is cancelled is over: nobody has to permit anything in it.
static void drop_questions(struct peer *peer, const json_t *session)
{
    struct question *next;
    for (struct question *q = peer->questions; q != NULL; q = next) {
        next = q->next;
        if (json_equal(json_object_get(json_object_get(q->request, "params"), "sessionId"),
                       session)) {
            json_t *result = json_pack("{s:{s:s}}", "outcome", "outcome", "cancelled");
            close_question(peer, q, message_result(json_object_get(q->request, "id"), result),
                           false);
        }
    }
}

static void tell_cancel(struct peer_call *call, const char *why)
{
    struct peer *peer = call->peer;
    json_t *params = NULL, *known = json_object();
    if (strcmp(call->method, "initialize") != 0) { // MCP: must not be cancelled.
        if (call->session != NULL) {
            (void)json_object_set(known, "sessionId", call->session);
        }
        const char *method =
            handshake_cancel(config_of(peer)->kind, call->id, call->method, known, why, &params);
        (void)say(peer, message_notification(method, params), NULL);
        if (strcmp(method, "session/cancel") == 0) {
            drop_questions(peer, call->session);
        }
    }
    json_decref(known);
}

void peer_cancel(struct peer_call *call, const char *why)
{
    struct runner_error error;
    (void)runner_fail(&error, RUNNER_FAILED, "call %s of service '%s'\nit was cancelled: %s",
                      call->method, call->peer->options.name, why);
    tell_cancel(call, why);
    end_call(call, NULL, &error);
}

size_t peer_cancel_tag(struct peer *peer, const char *tag)
{
    size_t count = 0;
    struct peer_call *next;
    for (struct peer_call *call = peer->calls; call != NULL; call = next) {
        next = call->next;
        if (call->tag != NULL && strcmp(call->tag, tag) == 0) {
            peer_cancel(call, "asked for");
            count++;
        }
    }
    return count;
}

static void expire_calls(struct peer *peer)
{
    struct peer_call *next;
    for (struct peer_call *call = peer->calls; call != NULL; call = next) {
        next = call->next;
        if (call->deadline <= now_ms(peer)) {
            struct runner_error error;
            (void)runner_fail(&error, RUNNER_TIMEOUT,
                              "call %s of service '%s'\nno answer within %u ms\n"
                              "runner service logs %s",
                              call->method, peer->options.name, call->timeout_ms,
                              peer->options.name);
            tell_cancel(call, "no answer in time");
            end_call(call, NULL, &error);
        }
    }
}

// ------------------------------------------------------------------------------------------------
// The handshake
// ------------------------------------------------------------------------------------------------

static void give_up(struct peer *peer, const char *why)
{
    if (peer->failed.code == RUNNER_OK && !peer->asked) {
        (void)runner_fail(&peer->failed, RUNNER_FAILED, "service '%s'\n%s\nrunner service logs %s",
                          peer->options.name, why, peer->options.name);
        note(peer, peer->failed.why);
    }
    peer->transport->ops->stop(peer->transport);
}

// What a later runner needs to go on without a second handshake.
static void keep(struct peer *peer)
{
    if (peer->transport->ops->keep != NULL) {
        peer->transport->ops->keep(peer->transport, json_pack("{s:O}", "facts", peer->facts));
    }
}

static void become_ready(struct peer *peer)
{
    peer->ready = true;
    keep(peer);
    set_timer(peer);
    peer->options.handler.ready(peer->options.handler.user);
}

static void ask(struct peer *peer, const char *method, json_t *params, peer_done *done)
{
    struct runner_error error;
    const struct peer_call_options options = {.method = method,
                                              .params = params,
                                              .timeout_ms = config_of(peer)->start_ms,
                                              .done = done,
                                              .user = peer};
    if (peer_call(peer, &options, NULL, &error) != RUNNER_OK) {
        give_up(peer, error.why);
    }
}

// The result of a call of the handshake; NULL: it has failed, and so has the handshake.
static json_t *result_of(struct peer *peer, const char *method, json_t *message,
                         const struct runner_error *error)
{
    char why[512], clean[460];
    json_t *fault = message_fault(message);
    json_t *result = json_object_get(message, "result");
    // Its end says more; and an answer that comes after a stop, or too late, starts nothing.
    if (peer->transport == NULL || peer->ended || peer->asked || peer->failed.code != RUNNER_OK) {
        return NULL;
    }
    if (result != NULL && fault == NULL) {
        return result;
    }
    const char *text = json_string_value(json_object_get(fault, "message"));
    service_text_flat(clean, sizeof clean,
                      error != NULL  ? error->why
                      : text != NULL ? text
                                     : "it answered an error");
    if (strcmp(method, "initialize") == 0) { // It may be of the other kind.
        (void)snprintf(why, sizeof why, "%s (as %s): %s", method,
                       service_kind_name(config_of(peer)->kind), clean);
    } else {
        (void)snprintf(why, sizeof why, "%s: %s", method, clean);
    }
    give_up(peer, why);
    return NULL;
}

static void on_session(void *user, json_t *message, const struct runner_error *error)
{
    struct peer *peer = user;
    json_t *result = result_of(peer, "session/new", message, error);
    json_t *id = json_object_get(result, "sessionId");
    if (result == NULL) {
        return;
    }
    if (!json_is_string(id)) {
        give_up(peer, "session/new: its answer has no sessionId");
        return;
    }
    (void)json_object_set(peer->facts, "session", id);
    (void)json_object_set(peer->facts, "session_result", result);
    become_ready(peer);
}

static void on_initialized(void *user, json_t *message, const struct runner_error *error)
{
    struct peer *peer = user;
    struct runner_error failed;
    const struct service_config *config = config_of(peer);
    json_t *result = result_of(peer, "initialize", message, error);
    if (result == NULL) {
        return;
    }
    const char *wrong = handshake_check(config->kind, result);
    if (wrong != NULL) {
        give_up(peer, wrong);
        return;
    }
    peer->facts = json_pack("{s:O, s:O}", "protocol", json_object_get(result, "protocolVersion"),
                            "initialize", result);
    if (config->kind == SERVICE_MCP) {
        if (peer_notify(peer, "notifications/initialized", NULL, &failed) != RUNNER_OK) {
            give_up(peer, failed.why);
            return;
        }
        become_ready(peer);
    } else if (config->session) {
        ask(peer, "session/new", handshake_session(config, peer->options.cwd), on_session);
    } else {
        become_ready(peer);
    }
}

// ------------------------------------------------------------------------------------------------
// Requests of the child
// ------------------------------------------------------------------------------------------------

static void close_question(struct peer *peer, struct question *question, json_t *message,
                           bool in_time)
{
    struct question **at = &peer->questions;
    while (*at != question) {
        at = &(*at)->next;
    }
    *at = question->next;
    if (message != NULL) {
        answer(peer, json_object_get(question->request, "id"), message);
    }
    peer->options.handler.answered(peer->options.handler.user, question->key, in_time);
    json_decref(question->request);
    free(question);
}

static void expire_questions(struct peer *peer)
{
    struct question *next;
    for (struct question *q = peer->questions; q != NULL; q = next) {
        next = q->next;
        if (q->deadline <= now_ms(peer)) {
            json_t *denied = handshake_permission(q->request, false);
            close_question(peer, q, message_result(json_object_get(q->request, "id"), denied),
                           false);
        }
    }
}

int peer_answer(struct peer *peer, const char *key, json_t *result, json_t *fault,
                struct runner_error *error)
{
    struct question *question = peer->questions;
    while (question != NULL && strcmp(question->key, key) != 0) {
        question = question->next;
    }
    if (question == NULL) {
        json_decref(result);
        json_decref(fault);
        return runner_fail(error, RUNNER_NO_SESSION,
                           "answer to request '%s' of service '%s'\nit is answered, or was never "
                           "asked\nrunner service messages %s",
                           key, peer->options.name, peer->options.name);
    }
    const json_t *id = json_object_get(question->request, "id");
    json_t *message = message_result(id, result != NULL ? result : json_null());
    if (fault != NULL && message != NULL) {
        (void)json_object_del(message, "result");
        (void)json_object_set(message, "error", fault);
    }
    json_decref(fault);
    close_question(peer, question, message, true);
    set_timer(peer);
    return RUNNER_OK;
}

static bool may_ask(const struct peer *peer)
{
    size_t count = 0, size = peer->line_size;
    for (const struct question *q = peer->questions; q != NULL; q = q->next) {
        count++;
        size += q->size;
    }
    return count == 0 || (count < QUESTIONS_MAX && size <= QUESTIONS_SIZE);
}

static bool pass_on(struct peer *peer, json_t *request)
{
    if (!may_ask(peer)) {
        note(peer, "it asks for too much at once: this is denied");
        return false;
    }
    struct question *question = calloc(1, sizeof *question);
    if (question == NULL) {
        return false;
    }
    next_id(peer, question->key);
    const struct peer_question told = {question->key, request};
    question->request = json_incref(request);
    question->size = peer->line_size;
    question->deadline = now_ms(peer) + config_of(peer)->permission_ms;
    question->next = peer->questions;
    peer->questions = question;
    if (peer->options.handler.question(peer->options.handler.user, &told)) {
        set_timer(peer);
        return true;
    }
    peer->questions = question->next;
    json_decref(question->request);
    free(question);
    return false;
}

static void take_request(struct peer *peer, json_t *request)
{
    const char *method = json_string_value(json_object_get(request, "method"));
    const json_t *id = json_object_get(request, "id");
    const struct service_config *config = config_of(peer);
    if (config->kind == SERVICE_MCP && strcmp(method, "ping") == 0) {
        answer(peer, id, message_result(id, json_object()));
    } else if (config->kind == SERVICE_ACP && strcmp(method, "session/request_permission") == 0) {
        bool allow = config->permission == PERMISSION_ALLOW;
        if (config->permission != PERMISSION_ASK || !pass_on(peer, request)) {
            answer(peer, id, message_result(id, handshake_permission(request, allow)));
        }
    } else {
        char line[WHY_MAX];
        (void)snprintf(line, sizeof line, "its request %.80s is not known here", method);
        note(peer, line);
        answer(peer, id, message_error(id, RPC_UNKNOWN_METHOD, "no such method"));
    }
}

// ------------------------------------------------------------------------------------------------
// What the child says
// ------------------------------------------------------------------------------------------------

static void tell_message(struct peer *peer, json_t *json, bool earlier)
{
    const struct peer_message message = {json, earlier, peer->offset};
    peer->options.handler.message(peer->options.handler.user, &message);
}

static void take_answer(struct peer *peer, json_t *json)
{
    bool ours = false;
    const json_t *id = json_object_get(json, "id");
    struct peer_call *call = peer->calls;
    if (!message_id_read(id, peer->options.server->instance, &ours)) {
        note(peer, "an answer to something that was not asked");
        return;
    }
    if (!ours) {
        tell_message(peer, json, true);
        return;
    }
    while (call != NULL && strcmp(call->id, json_string_value(id)) != 0) {
        call = call->next;
    }
    if (call != NULL) { // Else it is late: whoever waited has been told.
        end_call(call, json, NULL);
        set_timer(peer);
    }
}

static void take_message(struct peer *peer, json_t *json, enum message_kind kind)
{
    size_t i;
    json_t *item;
    switch (kind) {
    case MESSAGE_REQUEST:
        take_request(peer, json);
        break;
    case MESSAGE_NOTIFICATION:
        tell_message(peer, json, false);
        break;
    case MESSAGE_ANSWER:
        take_answer(peer, json);
        break;
    case MESSAGE_BATCH:
        json_array_foreach(json, i, item)
        {
            if (message_kind_of(item) != MESSAGE_NONE && !peer->ended) {
                take_message(peer, item, message_kind_of(item));
            }
        }
        break;
    case MESSAGE_BLANK:
    case MESSAGE_NONE:
        break;
    }
}

static void take_garbage(struct peer *peer, const char *line)
{
    char text[WHY_MAX];
    peer->stats.garbage++;
    if (now_ms(peer) - peer->garbage_since >= 1000) {
        peer->garbage_since = now_ms(peer);
        peer->garbage_notes = 0;
    }
    if (++peer->garbage_notes > GARBAGE_NOTES) {
        peer->hushed++;
        return;
    }
    if (peer->hushed > 0) {
        (void)snprintf(text, sizeof text, "%llu more lines that were no message",
                       (unsigned long long)peer->hushed);
        peer->hushed = 0;
        note(peer, text);
    }
    (void)snprintf(text, sizeof text, "no message: %.100s", line);
    note(peer, text);
}

static void on_line(void *user, const char *line, size_t size, uint64_t end)
{
    struct peer *peer = user;
    char text[WHY_MAX];
    json_t *json = NULL;
    peer->offset = end;
    peer->line_size = size;
    if (line == NULL) {
        peer->stats.too_long++;
        (void)snprintf(text, sizeof text, "a line of %llu bytes was dropped: too long",
                       (unsigned long long)size);
        note(peer, text);
        return;
    }
    enum message_kind kind = message_read(line, size, &json);
    if (kind == MESSAGE_NONE) {
        take_garbage(peer, line);
    } else {
        take_message(peer, json, kind);
    }
    json_decref(json);
}

static void on_gap(void *user, uint64_t from, uint64_t to)
{
    struct peer *peer = user;
    char text[WHY_MAX];
    peer->stats.gaps++;
    (void)snprintf(text, sizeof text,
                   "what it said from byte %llu to %llu is lost: too much while "
                   "nobody read",
                   (unsigned long long)from, (unsigned long long)to);
    note(peer, text);
}

static void on_said(void *user, const void *data, size_t size)
{
    struct peer *peer = user;
    peer->options.handler.said(peer->options.handler.user, data, size);
}

// It may just be ending; if not, it is of no use any more.
static void on_deaf(void *user, const char *why)
{
    give_up(user, why);
}

// ------------------------------------------------------------------------------------------------
// Life
// ------------------------------------------------------------------------------------------------

static void on_started(void *user, const struct transport_started *started)
{
    struct peer *peer = user;
    json_t *facts = json_object_get(started->kept, "facts");
    peer->started = true;
    peer->stats.pid = started->pid;
    peer->options.handler.started(peer->options.handler.user, started->pid, started->kept != NULL);
    if (facts != NULL) {
        peer->facts = json_incref(facts);
        peer->ready = true;
        set_timer(peer);
        peer->options.handler.ready(peer->options.handler.user);
        return;
    }
    if (started->kept != NULL) { // Nobody can know how far it came.
        peer->cut = true;
        give_up(peer, "the runner ended in the middle of it");
        return;
    }
    ask(peer, "initialize", handshake_initialize(config_of(peer)->kind), on_initialized);
}

static void on_open(void *user, const json_t *requests)
{
    struct peer *peer = user;
    size_t i;
    json_t *request;
    peer->line_size = 0;
    json_array_foreach((json_t *)(uintptr_t)requests, i, request)
    {
        if (peer->ready && !peer->ended) {
            take_request(peer, request);
        }
    }
}

static void free_peer(uv_handle_t *handle)
{
    struct peer *peer = handle->data;
    json_decref(peer->facts);
    free(peer);
}

void peer_exit_text(const struct pm_exit *record, char *text, size_t capacity)
{
    if (record->kind == PM_EXIT_EXITED) {
        (void)snprintf(text, capacity, "exited with code %u", record->code);
    } else if (record->kind == PM_EXIT_SIGNALED) {
        (void)snprintf(text, capacity, "was ended by signal %d%s", record->signal,
                       record->core_dumped ? " (core dumped)" : "");
    } else {
        (void)snprintf(text, capacity, "has ended, and nobody can tell how");
    }
}

static void end_all_calls(struct peer *peer, const char *why)
{
    struct runner_error error;
    while (peer->calls != NULL) {
        (void)runner_fail(&error, RUNNER_FAILED,
                          "call %s of service '%s'\n%s\nrunner service get "
                          "%s",
                          peer->calls->method, peer->options.name, why, peer->options.name);
        end_call(peer->calls, NULL, &error);
    }
    while (peer->questions != NULL) {
        close_question(peer, peer->questions, NULL, false);
    }
}

static void on_ended(void *user, const struct transport_ended *ended)
{
    struct peer *peer = user;
    char why[128] = "it could not be started";
    peer->transport = NULL;
    peer->ended = true;
    if (ended->started) {
        (void)snprintf(why, sizeof why, "it ");
        peer_exit_text(&ended->exit, why + 3, sizeof why - 3);
    }
    end_all_calls(peer, why);
    const struct peer_ended told = {.started = ended->started,
                                    .ready = peer->ready,
                                    .asked = peer->asked,
                                    .cut = peer->cut,
                                    .failed = ended->failed != NULL            ? ended->failed
                                              : peer->failed.code != RUNNER_OK ? &peer->failed
                                                                               : NULL,
                                    .exit = ended->exit};
    struct peer_handler handler = peer->options.handler;
    uv_close((uv_handle_t *)&peer->timer, free_peer);
    handler.ended(handler.user, &told);
}

static void on_timer(uv_timer_t *timer)
{
    struct peer *peer = timer->data;
    char why[100];
    if (!peer->ready && !peer->asked && peer->transport != NULL &&
        peer->start_deadline <= now_ms(peer)) {
        (void)snprintf(why, sizeof why, "not done within %u ms", config_of(peer)->start_ms);
        peer->start_deadline = UINT64_MAX;
        give_up(peer, why);
    }
    expire_calls(peer);
    expire_questions(peer);
    set_timer(peer);
}

struct peer *peer_start(const struct peer_options *options)
{
    struct peer *peer = calloc(1, sizeof *peer);
    if (peer == NULL) {
        return NULL;
    }
    peer->options = *options;
    const struct transport_options transport = {.server = options->server,
                                                .post = options->post,
                                                .name = options->name,
                                                .folder = options->folder,
                                                .cwd = options->cwd,
                                                .config = options->config,
                                                .handler = {on_started, on_open, on_line, on_gap,
                                                            on_said, on_deaf, on_ended, peer}};
    (void)uv_timer_init(&options->server->loop, &peer->timer);
    peer->timer.data = peer;
    peer->transport = options->config->pod ? podchild_start(&transport) : child_start(&transport);
    if (peer->transport == NULL) {
        uv_close((uv_handle_t *)&peer->timer, free_peer);
        return NULL;
    }
    peer->start_deadline = now_ms(peer) + options->config->start_ms;
    set_timer(peer);
    return peer;
}

void peer_stop(struct peer *peer)
{
    peer->asked = true;
    if (peer->transport != NULL) {
        peer->transport->ops->stop(peer->transport);
    }
}

void peer_kill(struct peer *peer)
{
    if (peer->transport != NULL) {
        peer->transport->ops->kill(peer->transport);
    }
}

void peer_release(struct peer *peer)
{
    if (!config_of(peer)->pod) {
        peer_stop(peer);
        return;
    }
    struct transport *transport = peer->transport;
    peer->transport = NULL;
    peer->ended = true;
    end_all_calls(peer, "the runner ends; the next one tells its answer as a message");
    transport->ops->release(transport);
    uv_close((uv_handle_t *)&peer->timer, free_peer);
}

json_t *peer_facts(const struct peer *peer)
{
    return peer->facts;
}

struct peer_stats peer_stats(const struct peer *peer)
{
    struct peer_stats stats = peer->stats;
    stats.calls = peer->calls_count;
    stats.unsent = peer->transport != NULL ? peer->transport->ops->unsent(peer->transport) : 0;
    return stats;
}
