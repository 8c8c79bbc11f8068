#include "runner/service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/post.h"
#include "runner/tree.h"

const char *service_state_name(int state)
{
    static const char *const names[] = {"stopped", "starting", "running", "stopping",
                                        "waiting", "failed",   "breaker"};
    return names[state];
}

struct service *service_find(const struct server *server, const char *name)
{
    struct service *service = server->services->list;
    while (service != NULL && (service->removed || strcmp(service->name, name) != 0)) {
        service = service->next;
    }
    return service;
}

// ------------------------------------------------------------------------------------------------
// What is told of it
// ------------------------------------------------------------------------------------------------

static json_t *exit_json(const struct pm_exit *record)
{
    if (record->kind == PM_EXIT_EXITED) {
        return json_pack("{s:s, s:I}", "kind", "exited", "code", (json_int_t)record->code);
    }
    return record->kind == PM_EXIT_SIGNALED
               ? json_pack("{s:s, s:i}", "kind", "signaled", "signal", record->signal)
               : json_pack("{s:s}", "kind", "lost");
}

static void add_child(const struct service *service, json_t *json)
{
    const struct peer_stats stats = peer_stats(service->peer);
    json_t *facts = peer_facts(service->peer);
    if (stats.pid != 0) {
        (void)json_object_set_new(json, "pid", json_integer((json_int_t)stats.pid));
        (void)json_object_set_new(json, "started", json_integer((json_int_t)service->started_ms));
    }
    (void)json_object_set_new(json, "calls", json_integer((json_int_t)stats.calls));
    (void)json_object_set_new(json, "unsent", json_integer((json_int_t)stats.unsent));
    (void)json_object_set_new(json, "garbage", json_integer((json_int_t)stats.garbage));
    (void)json_object_set_new(json, "too_long", json_integer((json_int_t)stats.too_long));
    (void)json_object_set_new(json, "gaps", json_integer((json_int_t)stats.gaps));
    if (facts != NULL) {
        (void)json_object_update(json, facts);
    }
}

json_t *service_json(const struct service *service)
{
    const struct service_config *config = &service->config;
    json_t *json =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:I, s:I, s:s}", "name", service->name,
                  "kind", service_kind_name(config->kind), "state",
                  service_state_name((int)service->state), "reason", service->reason, "command",
                  config->command, "restart", service_policy_name(config->restart.policy), "pod",
                  config->pod, "stored", service->stored, "starts", (json_int_t)service->starts,
                  "messages", (json_int_t)service->messages, "folder", service->folder);
    if (json == NULL) {
        return NULL;
    }
    if (service->peer != NULL) {
        add_child(service, json);
    }
    if (service->has_exit) {
        (void)json_object_set_new(json, "exit", exit_json(&service->exit));
    }
    if (service->state == SERVICE_IS_WAITING) {
        uint64_t now = uv_now(&service->server->loop);
        (void)json_object_set_new(
            json, "starts_in_ms",
            json_integer((json_int_t)(service->next_start > now ? service->next_start - now : 0)));
    }
    return json;
}

void service_tell(const struct service *service, const char *what)
{
    (void)control_notify(service->server, what, service_json(service));
}

static bool is_settled(const struct service *service)
{
    return service->state != SERVICE_IS_STARTING && service->state != SERVICE_IS_STOPPING;
}

static void answer_waits(struct service *service)
{
    while (service->waits != NULL && is_settled(service)) {
        struct service_wait *wait = service->waits;
        service->waits = wait->next;
        call_result(wait->call, service_json(service));
        free(wait);
    }
}

void service_wait(struct service *service, struct call *call)
{
    struct service_wait *wait = malloc(sizeof *wait);
    if (wait == NULL) {
        call_result(call, NULL);
        return;
    }
    *wait = (struct service_wait){service->waits, call};
    service->waits = wait;
    answer_waits(service);
}

static void set_state(struct service *service, enum service_state state, const char *reason)
{
    static const int levels[] = {LOG_INFO,    LOG_INFO,  LOG_INFO, LOG_INFO,
                                 LOG_WARNING, LOG_ERROR, LOG_ERROR};
    service->state = state;
    (void)snprintf(service->reason, sizeof service->reason, "%s", reason);
    service_text_trim(service->reason);
    log_write(service->server->log, levels[state], "service.state", service->name, "%s: %s",
              service_state_name((int)state), service->reason);
    service_log_note(service->log, "%s: %s", service_state_name((int)state), service->reason);
    service_tell(service, "service.state");
    answer_waits(service);
}

// ------------------------------------------------------------------------------------------------
// What its child does
// ------------------------------------------------------------------------------------------------

static void on_started(void *user, uint64_t pid, bool resumed)
{
    struct service *service = user;
    char text[100];
    (void)snprintf(text, sizeof text, "%s process %llu", resumed ? "goes on with" : "started",
                   (unsigned long long)pid);
    service_log_note(service->log, "%s", text);
    service->started_ms = wall_ms();
    if (!resumed) {
        service->starts++;
    }
}

static void on_ready(void *user)
{
    struct service *service = user;
    char text[100];
    (void)snprintf(text, sizeof text, "ready, process %llu",
                   (unsigned long long)peer_stats(service->peer).pid);
    set_state(service, SERVICE_IS_RUNNING, text);
    service_calls_go(service);
}

static void on_message(void *user, const struct peer_message *message)
{
    struct service *service = user;
    json_t *params = json_pack("{s:s, s:O, s:I}", "name", service->name, "message", message->json,
                               "offset", (json_int_t)message->offset);
    service->messages++;
    service->server->services->serial++;
    if (message->earlier && params != NULL) {
        (void)json_object_set_new(params, "earlier", json_true());
    }
    (void)control_notify(service->server, "service.message", json_incref(params));
    service_calls_tell(service, "service.message", params);
}

static bool on_question(void *user, const struct peer_question *question)
{
    struct service *service = user;
    return control_notify(service->server, "service.request",
                          json_pack("{s:s, s:s, s:O}", "name", service->name, "request",
                                    question->key, "message", question->request)) > 0;
}

static void on_answered(void *user, const char *key, bool in_time)
{
    struct service *service = user;
    (void)control_notify(service->server, "service.answered",
                         json_pack("{s:s, s:s, s:b}", "name", service->name, "request", key,
                                   "in_time", in_time));
}

static void on_said(void *user, const void *data, size_t size)
{
    struct service *service = user;
    service_log_said(service->log, data, size);
}

static void on_note(void *user, const char *text)
{
    struct service *service = user;
    service_log_note(service->log, "%s", text);
}

static void start_now(struct service *service);

static void on_delay(uv_timer_t *timer)
{
    start_now(timer->data);
}

// What was cut shall not look whole: a PATH, for one.
static void mark_cut(char *text, size_t capacity)
{
    static const char mark[] = "...";
    text[capacity - sizeof mark] = '\0';
    service_text_trim(text);
    (void)snprintf(text + strlen(text), sizeof mark, "%s", mark);
}

static void describe_end(const struct peer_ended *ended, char *text, size_t capacity)
{
    int at = 0;
    if (ended->failed != NULL) {
        at = snprintf(text, capacity, "%s", ended->failed->why);
    }
    if (at >= 0 && (size_t)at < capacity && ended->started && !ended->asked) {
        at += snprintf(text + at, capacity - (size_t)at, "%s", at > 0 ? "; it " : "it ");
        if (at > 0 && (size_t)at < capacity) {
            peer_exit_text(&ended->exit, text + at, capacity - (size_t)at);
        }
    }
    if (at > 0 && (size_t)at >= capacity) {
        mark_cut(text, capacity);
    }
}

// Nobody asked for this end.
static void after_crash(struct service *service, const struct peer_ended *ended)
{
    char text[340] = "", reason[512];
    uint32_t delay = 0;
    uint64_t now = uv_now(&service->server->loop);
    const struct restart_options *options = &service->config.restart;
    const struct restart_end end = {.clean = ended->ready && ended->failed == NULL &&
                                             ended->exit.kind == PM_EXIT_EXITED &&
                                             ended->exit.code == 0,
                                    .uptime_ms = now - service->began,
                                    .now_ms = now};
    describe_end(ended, text, sizeof text);
    switch (restart_decide(&service->restart, options, &end, &delay)) {
    case RESTART_WAIT:
        (void)snprintf(reason, sizeof reason, "%s; it is started again in %u ms", text, delay);
        service->next_start = now + delay;
        (void)uv_timer_start(&service->delay, on_delay, delay, 0);
        set_state(service, SERVICE_IS_WAITING, reason);
        break;
    case RESTART_BREAK:
        (void)snprintf(reason, sizeof reason,
                       "%s; %zu ends within %u s: it is not started again before "
                       "`runner service restart %s`",
                       text, service->restart.count, options->window_ms / 1000, service->name);
        set_state(service, SERVICE_IS_BREAKER, reason);
        service_tell(service, "service.breaker");
        break;
    case RESTART_REST:
        set_state(service, end.clean ? SERVICE_IS_STOPPED : SERVICE_IS_FAILED, text);
        break;
    }
}

static void drop(struct service *service);

static void on_ended(void *user, const struct peer_ended *ended)
{
    struct service *service = user;
    char why[400] = "it has ended";
    bool wanted = service->state == SERVICE_IS_STOPPING || ended->asked;
    service->peer = NULL;
    if (ended->started) {
        service->has_exit = true;
        service->exit = ended->exit;
    }
    describe_end(ended, why, sizeof why);
    service_calls_fail(service, why);
    if (service->removed) {
        set_state(service, SERVICE_IS_STOPPED, "removed");
        drop(service);
    } else if (service->again || (ended->cut && !wanted)) {
        service->again = false;
        start_now(service);
    } else if (wanted) {
        (void)snprintf(why, sizeof why, "stopped; it ");
        if (ended->started) {
            peer_exit_text(&ended->exit, why + strlen(why), sizeof why - strlen(why));
        } else {
            (void)snprintf(why, sizeof why, "stopped before it was started");
        }
        set_state(service, SERVICE_IS_STOPPED, why);
    } else {
        after_crash(service, ended);
    }
    (void)services_stopped(service->server);
}

// ------------------------------------------------------------------------------------------------
// Start and end
// ------------------------------------------------------------------------------------------------

static void start_now(struct service *service)
{
    struct runner_error error;
    struct services *all = service->server->services;
    if (service->later.json != NULL) {
        service_config_clear(&service->config);
        service->config = service->later;
        service->later = (struct service_config){.json = NULL};
        service_log_resize(service->log, service->config.log_size);
    }
    const struct peer_options options = {.server = service->server,
                                         .post = all->post,
                                         .name = service->name,
                                         .folder = service->folder,
                                         .cwd = service->config.cwd != NULL ? service->config.cwd
                                                                            : service->work,
                                         .config = &service->config,
                                         .handler = {on_started, on_ready, on_message, on_question,
                                                     on_answered, on_said, on_note, on_ended,
                                                     service}};
    int code = all->ending ? runner_fail(&error, RUNNER_UNREACHABLE, "start\nthe runner ends")
                           : os_private_dir(service->folder, &error);
    if (code == RUNNER_OK) {
        code = os_private_dir(service->work, &error);
    }
    if (code == RUNNER_OK && (service->peer = peer_start(&options)) == NULL) {
        (void)runner_fail(&error, RUNNER_FAILED, "start\nout of memory");
    }
    service->began = uv_now(&service->server->loop);
    if (service->peer != NULL) {
        set_state(service, SERVICE_IS_STARTING, service->config.command);
    } else {
        set_state(service, SERVICE_IS_FAILED, error.why);
    }
}

void service_begin(struct service *service)
{
    restart_forget(&service->restart);
    (void)uv_timer_stop(&service->delay);
    if (service->state == SERVICE_IS_STOPPING) {
        service->again = true;
    } else if (service->peer == NULL) {
        start_now(service);
    }
}

void service_end(struct service *service, const char *why)
{
    (void)uv_timer_stop(&service->delay);
    service->again = false;
    if (service->peer == NULL) {
        if (service->state != SERVICE_IS_STOPPED) {
            set_state(service, SERVICE_IS_STOPPED, why);
        }
    } else if (service->state != SERVICE_IS_STOPPING) {
        service_calls_fail(service, "it is being stopped");
        set_state(service, SERVICE_IS_STOPPING, why);
        peer_stop(service->peer);
    }
}

void service_again(struct service *service)
{
    restart_forget(&service->restart);
    service_end(service, "restart");
    service_begin(service);
}

void service_configure(struct service *service, json_t *object)
{
    struct config_problem problem;
    struct service_config config;
    if (service_config_take(object, &config, &problem) == 0) {
        service_config_clear(&service->later);
        service->later = config;
    }
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct service *service = handle->data;
    service_log_close(service->log);
    service_config_clear(&service->config);
    service_config_clear(&service->later);
    free(service);
}

// Out of the list, with its folder if it was removed.
static void drop(struct service *service)
{
    struct service **at = &service->server->services->list;
    while (*at != service) {
        at = &(*at)->next;
    }
    *at = service->next;
    service_log_close(service->log);
    service->log = NULL;
    if (service->removed) {
        (void)tree_remove(service->folder);
        service_tell(service, "service.removed");
    }
    uv_close((uv_handle_t *)&service->delay, on_timer_closed);
}

void service_remove(struct service *service)
{
    service_end(service, "removed");
    service->removed = true;
    if (service->peer == NULL) {
        answer_waits(service);
        drop(service);
    }
}

struct service *service_add(struct server *server, const char *name, json_t *object, bool stored)
{
    struct services *all = server->services;
    struct service *service = calloc(1, sizeof *service), **at = &all->list;
    struct config_problem problem;
    struct runner_error error;
    if (service == NULL) {
        return NULL;
    }
    service->server = server;
    service->stored = stored;
    (void)snprintf(service->name, sizeof service->name, "%s", name);
    (void)snprintf(service->folder, sizeof service->folder, "%.4000s/%s", all->folder, name);
    (void)snprintf(service->work, sizeof service->work, "%s/work", service->folder);
    (void)uv_random(NULL, NULL, &service->restart.random, sizeof service->restart.random, 0, NULL);
    if (service_config_take(object, &service->config, &problem) != 0) {
        free(service);
        return NULL;
    }
    if (os_private_dir(service->folder, &error) == RUNNER_OK) {
        service->log = service_log_open(service->folder, service->config.log_size, server->log);
    }
    (void)uv_timer_init(&server->loop, &service->delay);
    service->delay.data = service;
    while (*at != NULL) { // In the order of the file.
        at = &(*at)->next;
    }
    *at = service;
    (void)snprintf(service->reason, sizeof service->reason, "not started");
    return service;
}

// ------------------------------------------------------------------------------------------------
// All of them, in the life of the runner
// ------------------------------------------------------------------------------------------------

int services_open(struct server *server, struct runner_error *error)
{
    struct services *all = calloc(1, sizeof *all);
    if (all == NULL || (all->post = post_open(&server->loop, 0)) == NULL) {
        free(all);
        return runner_fail(error, RUNNER_FAILED, "start of a runner\nout of memory");
    }
    all->server = server;
    server->services = all;
    service_file_path(server->env->state_dir, all->file);
    (void)snprintf(all->folder, sizeof all->folder, "%.4000s/services", server->env->state_dir);
    return os_private_dir(all->folder, error);
}

void services_start(struct server *server)
{
    struct services *all = server->services;
    json_t *list = NULL, *object;
    const char *name;
    if (all == NULL || all->ending) {
        return;
    }
    if (service_file_awaited(all->file)) {
        log_write(server->log, LOG_WARNING, "service.config", NULL,
                  "'%s' is not there: no services", all->file);
    }
    if (service_file_read(all->file, &list, &all->problem) != RUNNER_OK) {
        log_write(server->log, LOG_ERROR, "service.config", NULL, "%s: %s", all->problem.what,
                  all->problem.why);
        return;
    }
    json_object_foreach(list, name, object)
    {
        struct service *service = service_add(server, name, object, true);
        bool lives = service != NULL && service->config.pod && podchild_lives(server, name);
        if (service != NULL && (service->config.autostart || lives)) {
            start_now(service);
        }
    }
    podchild_sweep(server);
    json_decref(list);
}

void services_stop(struct server *server)
{
    struct services *all = server->services;
    struct service *next;
    if (all == NULL || all->ending) {
        return;
    }
    all->ending = all->busy = true;
    for (struct service *service = all->list; service != NULL; service = next) {
        next = service->next;
        bool goes_on = service->config.pod && server->end != SERVER_SHUTDOWN_ALL &&
                       service->state != SERVICE_IS_STOPPING;
        if (service->peer != NULL && goes_on) {
            struct peer *peer = service->peer;
            service->peer = NULL;
            service_calls_fail(service, "the runner ends");
            set_state(service, SERVICE_IS_STOPPED, "the runner ends; it goes on in its pod");
            peer_release(peer);
        } else {
            service_end(service, "the runner ends");
        }
    }
    all->busy = false;
    (void)services_stopped(server);
}

void services_kill(struct server *server)
{
    struct services *all = server->services;
    if (all == NULL || all->killed) {
        return;
    }
    all->killed = all->busy = true;
    for (struct service *service = all->list; service != NULL; service = service->next) {
        if (service->peer != NULL) {
            log_write(server->log, LOG_WARNING, "service.killed", service->name,
                      "it has not ended, and the runner does not wait any longer");
            peer_kill(service->peer);
        }
    }
    all->busy = false;
}

// What is at its end is let go of, once.
bool services_stopped(const struct server *server)
{
    struct services *all = server->services;
    if (all == NULL || !all->ending) {
        return true;
    }
    for (const struct service *service = all->list; service != NULL; service = service->next) {
        if (service->peer != NULL) {
            return false;
        }
    }
    if (all->leaving > 0 || all->busy) {
        return false;
    }
    while (all->list != NULL) {
        drop(all->list);
    }
    if (!all->closed) {
        all->closed = true;
        post_close(all->post);
    }
    return true;
}

void services_free(struct server *server)
{
    if (server->services != NULL) {
        post_free(server->services->post);
        free(server->services);
        server->services = NULL;
    }
}
