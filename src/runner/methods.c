// The methods of the control connection: docs/control.md has a line for each.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/debug.h"
#include "runner/doctor.h"
#include "runner/service.h"
#include "runner/session.h"
#include "runner/upgrade.h"

typedef void server_method(struct server *server, struct call *call, json_t *params);
typedef void session_method(struct session *session, struct call *call, json_t *params);

struct method {
    const char *name;
    server_method *server; // One of the two.
    session_method *session;
    const struct rpc_field *fields;
    size_t count;
    enum {
        WAITS = 0,
        EARLY,
        LATE,
        MAKES,
        ERASES,
        ENDS
    } when; // EARLY: not for the registry; LATE: also until all that is left of ended sessions has
            // been read; MAKES: also while one of this id is being removed; ERASES: also while a
            // worker removes what is left of this one, for another of its id could be made in
            // between; ENDS: also while the runner waits for the ends of its sessions.
};

struct held {
    struct held *next;
    const struct method *method;
    struct call *call;
    json_t *params;
};

// ------------------------------------------------------------------------------------------------
// runner.*
// ------------------------------------------------------------------------------------------------

static json_t *counts(const struct server *server)
{
    size_t states[SESSION_UNPROVEN + 1] = {0};
    json_t *json = json_object();
    for (const struct session *s = server->sessions; s != NULL; s = s->next) {
        states[s->state]++;
    }
    for (int i = 0; i <= SESSION_UNPROVEN; i++) {
        (void)json_object_set_new(json, session_state_name(i), json_integer((json_int_t)states[i]));
    }
    return json;
}

static void runner_info(struct server *server, struct call *call, json_t *params)
{
    struct pm_stats stats = PM_STATS_INIT;
    json_t *json;
    (void)params;
    (void)pm_stats(server->manager, &stats);
    json = json_pack(
        "{s:s, s:s, s:I, s:s, s:s, s:I, s:I, s:b, s:I, s:I, s:o, s:[i,i], s:I, s:I, s:I, s:I, s:s}",
        "version", PM_VERSION_STRING, "instance", server->instance, "pid",
        (json_int_t)uv_os_getpid(), "program", server->env->program, "state_dir",
        server->env->state_dir, "epoch", (json_int_t)server->epoch, "started",
        (json_int_t)server->started_wall_ms, "recovered", server->recovered, "recovery_ms",
        (json_int_t)server->recovery_ms, "connections", (json_int_t)control_connections(server),
        "sessions", counts(server), "pod_versions", POD_VERSION_MIN, POD_VERSION_MAX,
        "log_failures", (json_int_t)log_failures(server->log), "leaked",
        (json_int_t)stats.leaked_total, "leaked_reaped", (json_int_t)stats.leaked_reaped,
        "registry_failures", (json_int_t)stats.registry_failures, "debug", debug_address(server));
    if (json != NULL) {
        (void)json_object_set_new(json, "keep",
                                  json_pack("{s:I, s:I}", "for_ms", (json_int_t)server->keep_ms,
                                            "records", (json_int_t)server->keep_records));
    }
    json_t *fallbacks = json_array();
    for (uint32_t bit = 1; fallbacks != NULL && bit != 0; bit <<= 1) {
        if ((stats.fallback_kinds & bit) != 0) {
            (void)json_array_append_new(fallbacks,
                                        json_string(pm_fallback_name((enum pm_fallback)bit)));
        }
    }
    if (json != NULL) {
        (void)json_object_set_new(json, "fallbacks", fallbacks);
    }
    json_t *last = upgrade_last(server->env->state_dir);
    if (json != NULL && last != NULL) {
        (void)json_object_set_new(json, "upgrade", last);
    }
    call_result(call, json);
}

static void runner_shutdown(struct server *server, struct call *call, json_t *params)
{
    bool all = json_is_true(json_object_get(params, "stop_sessions"));
    struct session *next;
    for (struct session *s = server->sessions; all && s != NULL; s = next) {
        next = s->next;
        if (!session_is_over(s) && s->create == NULL && s->state != SESSION_UNPROVEN) {
            session_stop(s, ASK_STOP, 0);
        }
    }
    call_result(call, json_pack("{s:b, s:I}", "stopping", 1, "patience_ms",
                                (json_int_t)(all ? sessions_patience(server) : 0)));
    server_stop(server, all ? SERVER_SHUTDOWN_ALL : SERVER_SHUTDOWN);
}

static void runner_subscribe(struct server *server, struct call *call, json_t *params)
{
    struct runner_error error;
    (void)server;
    (void)params;
    if (!control_subscribe(call)) {
        (void)runner_fail(&error, RUNNER_REFUSED,
                          "call of runner.subscribe\ntoo many have subscribed\n"
                          "none: end one of them");
        call_error(call, &error);
        return;
    }
    call_result(call, json_pack("{s:b}", "subscribed", 1));
}

// ------------------------------------------------------------------------------------------------
// session.*
// ------------------------------------------------------------------------------------------------

#define CREATE_HELP "runner create --help"

static void method_create(struct server *server, struct call *call, json_t *params)
{
    struct runner_error error;
    const char *mode = json_string_value(json_object_get(params, "mode"));
    const char *base = json_string_value(json_object_get(params, "env_base"));
    const char *cwd = json_string_value(json_object_get(params, "cwd"));
    const char *full = json_string_value(json_object_get(params, "on_full"));
    bool sized =
        json_object_get(params, "columns") != NULL || json_object_get(params, "rows") != NULL;
    int code = RUNNER_OK;
    if (mode != NULL && strcmp(mode, "pty") != 0 && strcmp(mode, "pipes") != 0) {
        code = runner_fail(&error, RUNNER_USAGE,
                           "parameter 'mode'\nit is \"pty\" or \"pipes\"\n" CREATE_HELP);
    } else if (base != NULL && strcmp(base, "inherit") != 0 && strcmp(base, "empty") != 0) {
        code = runner_fail(
            &error, RUNNER_USAGE,
            "parameter 'env_base'\nit is \"inherit\" or \"empty\"\nsee docs/control.md");
    } else if (full != NULL && strcmp(full, "drop") != 0 && strcmp(full, "wait") != 0) {
        code = runner_fail(&error, RUNNER_USAGE,
                           "parameter 'on_full'\nit is \"drop\" or \"wait\"\n" CREATE_HELP);
    } else if (mode != NULL && strcmp(mode, "pipes") == 0 && sized) {
        code = runner_fail(
            &error, RUNNER_USAGE,
            "parameters 'columns', 'rows'\npipes have no size: a terminal has\n" CREATE_HELP);
    } else if (cwd != NULL && !os_is_absolute(cwd)) {
        code = runner_fail(&error, RUNNER_USAGE,
                           "parameter 'cwd'\nit has to be absolute\n" CREATE_HELP);
    } else if (!rpc_valid_id(json_string_value(json_object_get(params, "id")))) {
        code = runner_fail(&error, RUNNER_USAGE,
                           "parameter 'id'\nit has 1 to 128 bytes, no control characters, and "
                           "does not begin with '-'\n" CREATE_HELP);
    }
    if (code != RUNNER_OK) {
        call_error(call, &error);
    } else {
        session_create(server, call, params);
    }
}

static void method_list(struct server *server, struct call *call, json_t *params)
{
    (void)params;
    refresh_begin(server, NULL, call);
}

static void method_get(struct session *session, struct call *call, json_t *params)
{
    (void)params;
    refresh_begin(session->server, session, call);
}

static void method_locate(struct session *session, struct call *call, json_t *params)
{
    (void)params;
    call_result(call, json_pack("{s:s, s:s, s:s, s:I, s:s, s:b, s:s, s:I}", "id", session->id,
                                "folder", session->path, "token_file", POD_FILE_TOKEN, "epoch",
                                (json_int_t)session->server->epoch, "mode",
                                session->pipes ? "pipes" : "pty", "ended", session_is_over(session),
                                "state", session_state_name((int)session->state), "grace_ms",
                                (json_int_t)session_grace(session)));
}

// One that has ended, or that is only a folder of which nobody knows whose it is.
static bool refuse_input(struct session *session, struct call *call, const char *what)
{
    struct runner_error error;
    char quoted[4400];
    if (session->aside) {
        (void)runner_fail(&error, RUNNER_DAMAGED, "%s session '%s'\n%s\nrunner doctor", what,
                          session->id, session->problem);
    } else if (session_is_over(session)) {
        (void)runner_fail(&error, RUNNER_NO_SESSION,
                          "%s session '%s'\nit has ended\nrunner logs %s", what, session->id,
                          doctor_id(session->id, quoted));
    } else {
        return false;
    }
    call_error(call, &error);
    return true;
}

static void method_send(struct session *session, struct call *call, json_t *params)
{
    struct runner_error error;
    bool text = json_object_get(params, "text") != NULL;
    bool data = json_object_get(params, "data_base64") != NULL;
    bool nothing = !text && !data && !json_is_true(json_object_get(params, "close"));
    if ((text && data) || nothing) {
        (void)runner_fail(&error, RUNNER_USAGE, "parameter 'text'\n%s\nsee docs/control.md",
                          nothing ? "nothing is sent: it, 'data_base64' or 'close' has to be there"
                                  : "either it or 'data_base64'");
        call_error(call, &error);
    } else if (!refuse_input(session, call, "input for")) {
        session_send(session, call, params);
    }
}

static void method_resize(struct session *session, struct call *call, json_t *params)
{
    if (!refuse_input(session, call, "resize of")) {
        session_resize(session, call, params);
    }
}

static void begin_end(struct session *session, struct call *call, enum ask_kind kind,
                      const json_t *params, bool destroy)
{
    struct runner_error error;
    bool holder = session->process != NULL && pm_process_alive(session->process);
    if (session->state == SESSION_UNPROVEN && holder && kind == ASK_KILL) {
        // By its record in the registry, which is proven; nothing of its folder is needed.
        if (session_wait(session, call, false)) {
            session_end_holder(session);
        }
        return;
    }
    if (session->state == SESSION_UNPROVEN) {
        (void)runner_fail(&error, RUNNER_DAMAGED, "stop of session '%s'\n%s\nrunner doctor",
                          session->id, session->problem);
        call_error(call, &error);
        return;
    }
    if (session_wait(session, call, destroy)) {
        session_stop(session, kind,
                     (uint32_t)json_integer_value(json_object_get(params, "grace_ms")));
    }
}

static void end_session(struct session *session, struct call *call, enum ask_kind kind,
                        const json_t *params, bool destroy)
{
    begin_end(session, call, kind, params, destroy);
    if (session->server->end == SERVER_SHUTDOWN_ALL) { // It waits for this one, too.
        server_stop(session->server, SERVER_SHUTDOWN_ALL);
    }
}

static void method_stop(struct session *session, struct call *call, json_t *params)
{
    if (session_is_over(session)) {
        call_result(call, session_json(session));
    } else {
        end_session(session, call, ASK_STOP, params, false);
    }
}

static void method_kill(struct session *session, struct call *call, json_t *params)
{
    if (session_is_over(session)) {
        call_result(call, session_json(session));
    } else {
        end_session(session, call, ASK_KILL, params, false);
    }
}

static void erase(struct session *session, struct call *call)
{
    if (session_wait(session, call, true)) {
        session_erase(session);
    }
}

static void method_destroy(struct session *session, struct call *call, json_t *params)
{
    if (session_is_over(session)) {
        erase(session, call);
    } else {
        end_session(session, call, ASK_STOP, params, true);
    }
}

// Under whose name it is ended: one that was set aside may be the folder of another.
static const char *name_of_holder(const struct session *session)
{
    for (const struct session *s = session->server->sessions; s != NULL; s = s->next) {
        if (s->process != NULL && strcmp(s->path, session->path) == 0) {
            return s->id;
        }
    }
    return session->id;
}

static void method_forget(struct session *session, struct call *call, json_t *params)
{
    struct runner_error error;
    bool unproven = session->state == SESSION_UNPROVEN;
    char quoted[4400];
    (void)params;
    if (session_is_over(session) ||
        (unproven && !session->aside_passing && session_is_free(session))) {
        erase(session, call);
        return;
    }
    (void)runner_fail(&error, RUNNER_REFUSED,
                      "forget of session '%s'\nit has not ended (%s)\nrunner %s %s", session->id,
                      session_state_name((int)session->state), unproven ? "kill" : "destroy",
                      doctor_id(unproven ? name_of_holder(session) : session->id, quoted));
    call_error(call, &error);
}

// ------------------------------------------------------------------------------------------------
// The table
// ------------------------------------------------------------------------------------------------

#define ID                                                                                         \
    {                                                                                              \
        "id", RPC_STRING, true, 1, RUNNER_ID_MAX                                                   \
    }
static const struct rpc_field id_fields[] = {ID};
static const struct rpc_field shutdown_fields[] = {{"stop_sessions", RPC_BOOLEAN, false, 0, 0}};
static const struct rpc_field upgrade_fields[] = {{"binary", RPC_STRING, false, 0, 4000}};
static const struct rpc_field create_fields[] = {
    ID,
    {"program", RPC_STRING, true, 0, 4000},
    {"argv", RPC_STRINGS, false, 0, 0},
    {"cwd", RPC_STRING, false, 0, 4000},
    {"env", RPC_STRINGS, false, 0, 0},
    {"env_base", RPC_STRING, false, 0, 16},
    {"mode", RPC_STRING, false, 0, 16},
    {"columns", RPC_NUMBER, false, 1, 32767},
    {"rows", RPC_NUMBER, false, 1, 32767},
    {"ring", RPC_NUMBER, false, 4096, 67108864},
    {"orphan_s", RPC_NUMBER, false, 0, 4294967},
    {"grace_ms", RPC_NUMBER, false, 1, 3600000},
    {"kill_tree", RPC_BOOLEAN, false, 0, 0},
    {"batch", RPC_BOOLEAN, false, 0, 0},
    {"on_full", RPC_STRING, false, 0, 16},
    {"wait_s", RPC_NUMBER, false, 1, 86400},
    {"labels", RPC_OBJECT, false, 0, 0},
};
static const struct rpc_field send_fields[] = {
    ID,
    {"data_base64", RPC_STRING, false, 0, RUNNER_LINE_MAX},
    {"text", RPC_STRING, false, 0, RUNNER_LINE_MAX},
    {"close", RPC_BOOLEAN, false, 0, 0},
};
static const struct rpc_field resize_fields[] = {
    ID,
    {"columns", RPC_NUMBER, true, 1, 32767},
    {"rows", RPC_NUMBER, true, 1, 32767},
};
static const struct rpc_field stop_fields[] = {ID, {"grace_ms", RPC_NUMBER, false, 1, 3600000}};

#define NAME                                                                                       \
    {                                                                                              \
        "name", RPC_STRING, true, 1, SERVICE_NAME_MAX                                              \
    }
#define METHOD                                                                                     \
    {                                                                                              \
        "method", RPC_STRING, true, 1, 1024                                                        \
    }
#define TAG 128
static const struct rpc_field name_fields[] = {NAME};
static const struct rpc_field add_fields[] = {
    NAME,
    {"config", RPC_ANY, true, 0, 0},
    {"store", RPC_BOOLEAN, false, 0, 0},
};
static const struct rpc_field call_fields[] = {
    NAME,
    METHOD,
    {"params", RPC_ANY, false, 0, 0},
    {"timeout_ms", RPC_NUMBER, false, 1, 86400000},
    {"tag", RPC_STRING, false, 0, TAG},
    {"stream", RPC_BOOLEAN, false, 0, 0},
};
static const struct rpc_field cancel_fields[] = {NAME, {"tag", RPC_STRING, true, 1, TAG}};
static const struct rpc_field notify_fields[] = {NAME, METHOD, {"params", RPC_ANY, false, 0, 0}};
static const struct rpc_field answer_fields[] = {
    NAME,
    {"request", RPC_STRING, true, 1, 128},
    {"result", RPC_ANY, false, 0, 0},
    {"error", RPC_ANY, false, 0, 0},
};
static const struct rpc_field messages_fields[] = {NAME,
                                                   {"agent", RPC_NUMBER, false, 0, INT64_MAX},
                                                   {"after", RPC_NUMBER, false, 0, INT64_MAX}};
static const struct rpc_field logs_fields[] = {
    NAME,
    {"after", RPC_NUMBER, false, -1073741824, INT64_MAX},
};

#define NONE NULL, 0
#define FIELDS(list) (list), sizeof(list) / sizeof(list)[0]
static const struct method methods[] = {
    {"runner.info", runner_info, NULL, NONE, EARLY},
    {"runner.shutdown", runner_shutdown, NULL, FIELDS(shutdown_fields), ENDS},
    {"runner.upgrade", upgrade_begin, NULL, FIELDS(upgrade_fields), WAITS},
    {"runner.subscribe", runner_subscribe, NULL, NONE, EARLY},
    {"session.create", method_create, NULL, FIELDS(create_fields), MAKES},
    {"session.list", method_list, NULL, NONE, LATE},
    {"session.get", NULL, method_get, FIELDS(id_fields), WAITS},
    {"session.locate", NULL, method_locate, FIELDS(id_fields), ENDS},
    {"session.send", NULL, method_send, FIELDS(send_fields), WAITS},
    {"session.resize", NULL, method_resize, FIELDS(resize_fields), WAITS},
    {"session.stop", NULL, method_stop, FIELDS(stop_fields), ENDS},
    {"session.kill", NULL, method_kill, FIELDS(id_fields), ENDS},
    {"session.destroy", NULL, method_destroy, FIELDS(stop_fields), ERASES},
    {"session.forget", NULL, method_forget, FIELDS(id_fields), ERASES},
    {"service.add", method_service_add, NULL, FIELDS(add_fields), WAITS},
    {"service.list", method_service_list, NULL, NONE, WAITS},
    {"service.get", method_service_get, NULL, FIELDS(name_fields), WAITS},
    {"service.remove", method_service_remove, NULL, FIELDS(name_fields), WAITS},
    {"service.start", method_service_start, NULL, FIELDS(name_fields), WAITS},
    {"service.stop", method_service_stop, NULL, FIELDS(name_fields), WAITS},
    {"service.restart", method_service_restart, NULL, FIELDS(name_fields), WAITS},
    {"service.call", method_service_call, NULL, FIELDS(call_fields), WAITS},
    {"service.cancel", method_service_cancel, NULL, FIELDS(cancel_fields), WAITS},
    {"service.notify", method_service_notify, NULL, FIELDS(notify_fields), WAITS},
    {"service.answer", method_service_answer, NULL, FIELDS(answer_fields), WAITS},
    {"service.logs", method_service_logs, NULL, FIELDS(logs_fields), WAITS},
    {"service.messages", method_service_messages, NULL, FIELDS(messages_fields), WAITS},
};

static const struct method *find_method(const char *name)
{
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (strcmp(methods[i].name, name) == 0) {
            return &methods[i];
        }
    }
    return NULL;
}

bool methods_know(const char *name)
{
    return find_method(name) != NULL;
}

static void hold(struct held **list, const struct method *method, struct call *call, json_t *params)
{
    struct held *held = malloc(sizeof *held);
    if (held == NULL) {
        call_result(call, NULL);
        return;
    }
    *held = (struct held){*list, method, call, json_incref(params)};
    *list = held;
}

static void run(struct server *server, const struct method *method, struct call *call,
                json_t *params)
{
    struct runner_error error;
    // A service that ends with us takes its session along.
    bool may_end = method->when == ERASES && call_is_our_own(call);
    bool stops = server->end == SERVER_SHUTDOWN_ALL;
    if (server->end != SERVER_RUNS && !may_end && !(stops && method->when == ENDS)) {
        (void)runner_fail(&error, RUNNER_UNREACHABLE, "call of %s\n%s", method->name,
                          stops ? STOPS_SESSIONS : ENDS_SOON);
        call_error(call, &error);
        return;
    }
    if ((!server->recovered && method->when != EARLY) ||
        (server->unread > 0 && method->when == LATE &&
         uv_now(&server->loop) < server->late_until)) {
        hold(&server->held, method, call, params);
        return;
    }
    const char *id = json_string_value(json_object_get(params, "id"));
    struct session *session =
        method->when == MAKES || method->session != NULL ? session_find(server, id) : NULL;
    if (method->when == MAKES && session != NULL && session_is_going(session)) {
        hold(&session->held, method, call, params);
    } else if (method->server != NULL) {
        method->server(server, call, params);
    } else if (session == NULL) {
        (void)runner_fail(&error, RUNNER_NO_SESSION,
                          "session '%s'\nthere is none of this id\n"
                          "runner list",
                          id);
        call_error(call, &error);
    } else if (!session->settled || session->create != NULL ||
               (session->pruning && method->when == ERASES)) {
        hold(&session->held, method, call, params);
    } else {
        session_hold(session); // The call may end it.
        method->session(session, call, params);
        session_let(session);
    }
}

void methods_call(struct server *server, const char *name, struct call *call, json_t *params)
{
    struct runner_error error;
    const struct method *method = find_method(name);
    if (rpc_check(params, method->fields, method->count, &error) != RUNNER_OK) {
        call_error(call, &error);
    } else {
        run(server, method, call, params);
    }
}

void methods_release(struct server *server, struct held **list)
{
    struct held *held = *list, *ordered = NULL;
    *list = NULL;
    while (held != NULL) { // The first that came is the last of the list.
        struct held *next = held->next;
        held->next = ordered;
        ordered = held;
        held = next;
    }
    while (ordered != NULL) {
        struct held *next = ordered->next;
        run(server, ordered->method, ordered->call, ordered->params);
        json_decref(ordered->params);
        free(ordered);
        ordered = next;
    }
}
