#include "runner/control_client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "poddaemon/os.h"
#include "runner/inspect.h"
#include "runner/lines.h"
#include "runner/server.h"

#define ANSWER_MS 5000            // For what a runner answers at once.
#define SERVED_MS 1000            // The same, where another one wants to serve.
#define PLACES_MAX 3              // So many connections are tried that are sent away.
#define CLIENT_LINE_MAX 67108864u // What a service answers may be long.

struct queued {
    struct queued *next;
    char *line;
};

struct client {
    struct runner_env env;
    uv_loop_t loop;
    uv_timer_t timer;
    struct lines *lines; // NULL: the connection has ended.
    int failure;
    int last_id;
    bool timed_out;
    char *reply; // Of the call under way.
    size_t reply_size;
    char *farewell; // Why it is sent away: what was asked last and has no reply was not read.
    size_t farewell_size;
    struct queued *first, **last;               // Notifications.
    void (*told)(void *user, const char *line); // NULL: they are queued.
    void *user;
};

uint64_t monotonic_ms(void)
{
    return uv_hrtime() / 1000000;
}

static void on_line(void *user, const char *line, size_t size)
{
    struct client *client = user;
    char *copy = malloc(size + 1);
    if (copy == NULL) {
        return;
    }
    memcpy(copy, line, size);
    copy[size] = '\0';
    enum rpc_said said = rpc_said(line, size);
    if (said == RPC_FAREWELL) { // Not instead of an answer that came directly before it.
        free(client->farewell);
        client->farewell = copy;
        client->farewell_size = size;
        return;
    }
    if (said == RPC_REPLY) {
        free(client->reply);
        client->reply = copy;
        client->reply_size = size;
        return;
    }
    struct queued *item = client->told == NULL ? malloc(sizeof *item) : NULL;
    if (item == NULL) {
        if (client->told != NULL) {
            client->told(client->user, copy);
        }
        free(copy);
        return;
    }
    *item = (struct queued){NULL, copy};
    *client->last = item;
    client->last = &item->next;
}

static void on_closed(void *user, int failure)
{
    struct client *client = user;
    client->lines = NULL;
    client->failure = failure != 0 ? failure : UV_EOF;
}

static void on_timer(uv_timer_t *timer)
{
    struct client *client = timer->data;
    client->timed_out = true;
}

static void free_pipe(uv_handle_t *handle)
{
    free(handle);
}

static int connect_native(const char *state_dir, pm_native *ret_native)
{
    struct pod_dir dir = POD_DIR_INIT;
    int result = pod_dir_open(state_dir, &dir);
    if (result != PM_OK) {
        return result;
    }
    // A queue that is full empties as fast as the runner can.
    uint64_t deadline = monotonic_ms() + 5000;
    while ((result = pod_connect(&dir, CONTROL_NAME, ret_native)) == PM_ERR_BUSY &&
           monotonic_ms() < deadline) {
        uv_sleep(5);
    }
    pod_dir_close(&dir);
    return result;
}

int client_probe(const struct runner_env *env)
{
    pm_native native;
    int result = connect_native(env->state_dir, &native);
    if (result == PM_OK) {
        pod_connection_close(native);
    }
    return result;
}

static int take_connection(struct client *client, pm_native native, struct runner_error *error)
{
    struct lines_handler handler = {on_line, on_closed, client, CLIENT_LINE_MAX};
    uv_pipe_t *pipe = malloc(sizeof *pipe);
    if (pipe == NULL || uv_pipe_init(&client->loop, pipe, 0) != 0) {
        free(pipe);
        pod_connection_close(native);
    } else if (os_pipe_open(pipe, native) != 0) {
        uv_close((uv_handle_t *)pipe, free_pipe);
    } else {
        client->lines = lines_open(pipe, &handler);
    }
    return client->lines != NULL ? RUNNER_OK
                                 : runner_fail(error, RUNNER_FAILED, "connection\nout of memory");
}

static int connect_client(struct client *client, const struct runner_env *env,
                          struct runner_error *error)
{
    pm_native native;
    int result = connect_native(env->state_dir, &native);
    if (result == PM_ERR_NOT_FOUND && !env->no_start) {
        int code = runner_start(env, error);
        if (code != RUNNER_OK) {
            return code;
        }
        result = connect_native(env->state_dir, &native);
    }
    if (result != PM_OK) {
        return runner_fail(error, RUNNER_UNREACHABLE, "runner of '%s'\n%s\nrunner serve",
                           env->state_dir,
                           result == PM_ERR_NOT_FOUND ? "none is running" : pm_strerror(result));
    }
    return take_connection(client, native, error);
}

int client_connect(const struct runner_env *env, struct client **ret_client,
                   struct runner_error *error)
{
    struct client *client = calloc(1, sizeof *client);
    if (client == NULL || uv_loop_init(&client->loop) != 0) {
        free(client);
        (void)runner_fail(error, RUNNER_FAILED, "connection\nout of memory");
        return RUNNER_FAILED;
    }
    client->env = *env;
    client->last = &client->first;
    (void)uv_timer_init(&client->loop, &client->timer);
    client->timer.data = client;
    int code = connect_client(client, env, error);
    if (code != RUNNER_OK) {
        (void)client_close(client);
        return code;
    }
    *ret_client = client;
    return RUNNER_OK;
}

// It takes connections, or its system does for it, and says nothing.
static void tell_silent(const struct runner_env *env, struct runner_error *error)
{
    struct pm_registry_owner owner = PM_REGISTRY_OWNER_INIT;
    struct inspect_process process = {.stopped = false};
    char registry[4200];
    (void)snprintf(registry, sizeof registry, "%s/registry", env->state_dir);
    (void)pm_registry_owner(registry, &owner);
    unsigned long long pid = owner.pid;
    if (pid != 0 && inspect_process_read(&inspect_real_roots, pid, &process) && process.stopped) {
        (void)runner_fail(error, RUNNER_UNREACHABLE,
                          "runner of '%s'\nprocess %llu was stopped by a signal\nkill -CONT %llu",
                          env->state_dir, pid, pid);
        return;
    }
    (void)runner_fail(error, RUNNER_UNREACHABLE,
                      "runner of '%s'\nprocess %llu does not answer within %d s\nrunner doctor",
                      env->state_dir, pid, ANSWER_MS / 1000);
}

// Whether it serves, and does not just end. Twice: libuv hands out signals last, so one that came
// before us may be behind the first question.
static int ask_whether_it_serves(struct client *client, int64_t timeout_ms,
                                 struct runner_error *error)
{
    int code = RUNNER_OK;
    for (int i = 0; i < 2 && code == RUNNER_OK; i++) {
        json_t *info = NULL;
        code = client_call(client, "runner.info", NULL, timeout_ms, &info, error);
        json_decref(info);
    }
    return code;
}

bool client_is_served(const struct runner_env *env)
{
    struct runner_env quiet = *env;
    struct runner_error error;
    struct client *client = NULL;
    quiet.no_start = true;
    int code = client_connect(&quiet, &client, &error);
    if (code == RUNNER_OK) {
        code = ask_whether_it_serves(client, SERVED_MS, &error);
        (void)client_close(client);
    }
    return code == RUNNER_OK || code == RUNNER_TIMEOUT; // One that was stopped holds it, too.
}

// One that is just being killed still takes connections for a moment, and one that ends until its
// services have ended: it has to answer something before it is trusted with a request that must not
// be repeated.
static int open_one(const struct runner_env *env, bool to_end, struct client **ret_client,
                    struct runner_error *error)
{
    uint64_t deadline = monotonic_ms() + SERVER_LEAVE_MS;
    for (;;) {
        struct client *client = NULL;
        int code = client_connect(env, &client, error);
        if (code != RUNNER_OK) {
            return code;
        }
        code = ask_whether_it_serves(client, ANSWER_MS, error);
        if (code == RUNNER_TIMEOUT) {
            (void)client_close(client);
            tell_silent(env, error);
            return RUNNER_UNREACHABLE;
        }
        bool stops = code == RUNNER_UNREACHABLE && strcmp(error->why, STOPS_SESSIONS) == 0;
        if (code == RUNNER_OK || (stops && to_end)) {
            *ret_client = client;
            return RUNNER_OK;
        }
        (void)client_close(client);
        if (code != RUNNER_UNREACHABLE || monotonic_ms() > deadline) {
            return code;
        }
        uv_sleep(10);
    }
}

int client_open(const struct runner_env *env, struct client **ret_client,
                struct runner_error *error)
{
    return open_one(env, false, ret_client, error);
}

int client_open_to_end(const struct runner_env *env, struct client **ret_client,
                       struct runner_error *error)
{
    return open_one(env, true, ret_client, error);
}

struct client *client_close(struct client *client)
{
    if (client == NULL) {
        return NULL;
    }
    if (client->lines != NULL) {
        lines_close(client->lines);
    }
    uv_close((uv_handle_t *)&client->timer, NULL);
    (void)uv_run(&client->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&client->loop);
    while (client->first != NULL) {
        struct queued *item = client->first;
        client->first = item->next;
        free(item->line);
        free(item);
    }
    free(client->reply);
    free(client->farewell);
    free(client);
    return NULL;
}

static int broken(const struct client *client, struct runner_error *error)
{
    json_t *none = NULL;
    if (client->farewell != NULL) {
        return rpc_take_reply(client->farewell, client->farewell_size, 0, &none, error);
    }
    return runner_fail(error, RUNNER_UNREACHABLE,
                       "call of the runner\nit ended the connection: %s\n"
                       "runner info",
                       uv_strerror(client->failure));
}

// Until its reply is there.
static int exchange(struct client *client, const char *method, json_t *message, int64_t timeout_ms,
                    struct runner_error *error)
{
    size_t size = 0;
    char *text = rpc_line(json_incref(message), &size);
    if (text != NULL && size > rpc_line_max(method)) {
        free(text);
        return runner_fail(error, RUNNER_USAGE,
                           "call of %s\nit has %llu bytes, and %llu is the limit", method,
                           (unsigned long long)size, (unsigned long long)rpc_line_max(method));
    }
    if (client->lines == NULL || client->farewell != NULL) {
        free(text);
        return broken(client, error);
    }
    lines_write(client->lines, text, size);
    client->timed_out = false;
    if (timeout_ms >= 0) {
        (void)uv_timer_start(&client->timer, on_timer, (uint64_t)timeout_ms, 0);
    }
    while (client->reply == NULL && client->lines != NULL && client->farewell == NULL &&
           !client->timed_out) {
        (void)uv_run(&client->loop, UV_RUN_ONCE);
    }
    (void)uv_timer_stop(&client->timer);
    if (client->reply != NULL) {
        return RUNNER_OK;
    }
    return client->timed_out ? runner_fail(error, RUNNER_TIMEOUT,
                                           "call of %s\nno answer within %lld ms\nrunner doctor",
                                           method, (long long)timeout_ms)
                             : broken(client, error);
}

static int connect_again(struct client *client, struct runner_error *error)
{
    if (client->lines != NULL) {
        lines_close(client->lines);
    }
    while (client->lines != NULL) {
        (void)uv_run(&client->loop, UV_RUN_ONCE);
    }
    free(client->farewell);
    client->farewell = NULL;
    return connect_client(client, &client->env, error);
}

// Who has been sent away has what it asked for not done: a runner reads no more, and says so after
// its answers.
int client_call(struct client *client, const char *method, json_t *params, int64_t timeout_ms,
                json_t **ret_result, struct runner_error *error)
{
    json_t *message = rpc_call(++client->last_id, method, params);
    int code = exchange(client, method, message, timeout_ms, error);
    for (int i = 1; i < PLACES_MAX && code == RUNNER_REFUSED && client->farewell != NULL; i++) {
        code = connect_again(client, error);
        if (code == RUNNER_OK) {
            code = exchange(client, method, message, timeout_ms, error);
        }
    }
    json_decref(message);
    if (code == RUNNER_OK) {
        char *text = client->reply;
        client->reply = NULL;
        code = rpc_take_reply(text, client->reply_size, client->last_id, ret_result, error);
        free(text);
    }
    return code;
}

void client_listen(struct client *client, void (*told)(void *user, const char *line), void *user)
{
    client->told = told;
    client->user = user;
}

int client_next(struct client *client, char **ret_line, struct runner_error *error)
{
    while (client->first == NULL && client->lines != NULL) {
        (void)uv_run(&client->loop, UV_RUN_ONCE);
    }
    struct queued *item = client->first;
    if (item == NULL) {
        return broken(client, error);
    }
    client->first = item->next;
    if (client->first == NULL) {
        client->last = &client->first;
    }
    *ret_line = item->line;
    free(item);
    return RUNNER_OK;
}

// What only asks may be asked again if the runner dies meanwhile.
static bool only_asks(const char *method)
{
    static const char *const methods[] = {"runner.info", "session.list", "session.get",
                                          "session.locate"};
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        if (strcmp(method, methods[i]) == 0) {
            return true;
        }
    }
    return false;
}

int client_ask(const struct runner_env *env, const char *method, json_t *params,
               json_t **ret_result, struct runner_error *error)
{
    struct client *client;
    int code = RUNNER_UNREACHABLE;
    bool ends = strcmp(method, "runner.shutdown") == 0;
    for (int i = only_asks(method) ? 3 : 1; i > 0 && code == RUNNER_UNREACHABLE; i--) {
        code = open_one(env, ends, &client, error);
        if (code != RUNNER_OK) {
            break;
        }
        code =
            client_call(client, method, json_incref(params), CLIENT_TIMEOUT_MS, ret_result, error);
        (void)client_close(client);
    }
    json_decref(params);
    return code;
}
