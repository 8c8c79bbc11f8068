// service.*: docs/control.md has a line for each.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/podjournal.h"
#include "runner/service.h"

static struct service *find(struct server *server, struct call *call, json_t *params)
{
    struct runner_error error;
    const char *name = json_string_value(json_object_get(params, "name"));
    struct service *service = service_find(server, name);
    if (service == NULL) {
        (void)runner_fail(&error, RUNNER_NO_SESSION,
                          "service '%s'\nthere is none of this name\nrunner service list", name);
        // It may stand in a file that could not be read.
        const struct runner_error *problem = &server->services->problem;
        call_error(call, problem->code != RUNNER_OK ? problem : &error);
    }
    return service;
}

// One that has a child which is ready.
static struct service *find_running(struct server *server, struct call *call, json_t *params,
                                    const char *what)
{
    struct runner_error error;
    struct service *service = find(server, call, params);
    if (service != NULL && service->state != SERVICE_IS_RUNNING) {
        (void)runner_fail(&error, RUNNER_REFUSED,
                          "%s service '%s'\nit is %s: %s\nrunner service restart %s", what,
                          service->name, service_state_name((int)service->state), service->reason,
                          service->name);
        call_error(call, &error);
        return NULL;
    }
    return service;
}

// ------------------------------------------------------------------------------------------------
// Which there are
// ------------------------------------------------------------------------------------------------

// A name that is free, and no file that is broken: what is wrong in there is not written over.
static int check_add(struct server *server, const char *name, json_t *config, bool store,
                     struct runner_error *error)
{
    struct services *all = server->services;
    struct service_config taken;
    struct config_problem problem;
    if (!service_valid_name(name)) {
        return runner_fail(error, RUNNER_USAGE,
                           "service '%s'\na name has 1 to 64 of A-Z a-z 0-9 . _ - and begins with "
                           "none of . -, ends with no ., and is no device of Windows",
                           name);
    }
    if (service_config_take(config, &taken, &problem) != 0) {
        return runner_fail(error, RUNNER_USAGE, "service '%s'%s%s%s\n%s\nsee docs/services.md",
                           name, problem.count > 0 ? ": '" : "",
                           problem.count > 0 && problem.steps[0].key != NULL ? problem.steps[0].key
                                                                             : "",
                           problem.count > 0 ? "'" : "", problem.text);
    }
    service_config_clear(&taken);
    for (const struct service *s = all->list; s != NULL; s = s->next) {
        if (service_same_name(s->name, name)) {
            return runner_fail(error, RUNNER_EXISTS, "service '%s'\n%s\nrunner service get %s",
                               name,
                               s->removed ? "it is just being removed" : "it is there already",
                               name);
        }
    }
    return store ? service_file_change(all->file, name, config, error) : RUNNER_OK;
}

void method_service_add(struct server *server, struct call *call, json_t *params)
{
    struct runner_error error;
    const char *name = json_string_value(json_object_get(params, "name"));
    json_t *config = json_object_get(params, "config");
    bool store = !json_is_false(json_object_get(params, "store"));
    if (check_add(server, name, config, store, &error) != RUNNER_OK) {
        call_error(call, &error);
        return;
    }
    struct service *service = service_add(server, name, config, store);
    if (service == NULL) {
        call_result(call, NULL);
        return;
    }
    service_tell(service, "service.added");
    if (service->config.autostart) {
        service_begin(service);
    }
    service_wait(service, call);
}

void method_service_list(struct server *server, struct call *call, json_t *params)
{
    struct services *all = server->services;
    json_t *list = json_array();
    (void)params;
    for (const struct service *s = all->list; s != NULL; s = s->next) {
        (void)json_array_append_new(list, service_json(s));
    }
    json_t *json = json_pack("{s:o, s:s}", "services", list, "file", all->file);
    if (json != NULL && all->problem.code != RUNNER_OK) {
        char text[1400];
        (void)snprintf(text, sizeof text, "%s: %s", all->problem.what, all->problem.why);
        (void)json_object_set_new(json, "problem", json_string(text));
    }
    call_result(call, json);
}

void method_service_get(struct server *server, struct call *call, json_t *params)
{
    struct service *service = find(server, call, params);
    if (service != NULL) {
        call_result(call, service_json(service));
    }
}

void method_service_remove(struct server *server, struct call *call, json_t *params)
{
    struct runner_error error;
    struct service *service = find(server, call, params);
    if (service == NULL) {
        return;
    }
    if (service->stored &&
        service_file_change(server->services->file, service->name, NULL, &error) != RUNNER_OK) {
        call_error(call, &error);
        return;
    }
    service_end(service, "removed");
    if (service->peer == NULL) {
        call_result(call, service_json(service));
        service_remove(service);
    } else {
        service_remove(service);
        service_wait(service, call);
    }
}

// ------------------------------------------------------------------------------------------------
// Whether they run
// ------------------------------------------------------------------------------------------------

void method_service_start(struct server *server, struct call *call, json_t *params)
{
    struct service *service = find(server, call, params);
    if (service != NULL) {
        service_begin(service);
        service_wait(service, call);
    }
}

void method_service_stop(struct server *server, struct call *call, json_t *params)
{
    struct service *service = find(server, call, params);
    if (service != NULL) {
        service_end(service, "asked for");
        service_wait(service, call);
    }
}

// With what stands in the file now.
void method_service_restart(struct server *server, struct call *call, json_t *params)
{
    struct runner_error error;
    json_t *list = NULL;
    struct service *service = find(server, call, params);
    if (service == NULL) {
        return;
    }
    if (service->stored) {
        if (service_file_read(server->services->file, &list, &error) != RUNNER_OK) {
            call_error(call, &error);
            return;
        }
        json_t *object = json_object_get(list, service->name);
        if (object != NULL) {
            service_configure(service, object);
        }
        json_decref(list);
    }
    service_again(service);
    service_wait(service, call);
}

// ------------------------------------------------------------------------------------------------
// What is said to them
// ------------------------------------------------------------------------------------------------

static bool check_params(struct call *call, const json_t *params)
{
    struct runner_error error;
    const json_t *value = json_object_get(params, "params");
    if (value == NULL || json_is_object(value) || json_is_array(value)) {
        return true;
    }
    (void)runner_fail(&error, RUNNER_USAGE,
                      "parameter 'params'\nit has to be an object or a list\nsee docs/control.md");
    call_error(call, &error);
    return false;
}

void method_service_call(struct server *server, struct call *call, json_t *params)
{
    struct service *service = find(server, call, params);
    if (service == NULL || !check_params(call, params)) {
        return;
    }
    if (service->state == SERVICE_IS_STARTING ||
        find_running(server, call, params, "call of") != NULL) {
        service_call(service, call, params);
    }
}

void method_service_cancel(struct server *server, struct call *call, json_t *params)
{
    struct service *service = find(server, call, params);
    if (service != NULL) {
        const char *tag = json_string_value(json_object_get(params, "tag"));
        size_t count = service->peer != NULL ? peer_cancel_tag(service->peer, tag) : 0;
        call_result(call, json_pack("{s:I}", "cancelled", (json_int_t)count));
    }
}

void method_service_notify(struct server *server, struct call *call, json_t *params)
{
    struct runner_error error;
    if (!check_params(call, params)) {
        return;
    }
    struct service *service = find_running(server, call, params, "notification to");
    if (service == NULL) {
        return;
    }
    const char *method = json_string_value(json_object_get(params, "method"));
    json_t *value = json_object_get(params, "params");
    if (peer_notify(service->peer, method, json_incref(value), &error) != RUNNER_OK) {
        call_error(call, &error);
    } else {
        call_result(call, json_pack("{s:b}", "sent", 1));
    }
}

void method_service_answer(struct server *server, struct call *call, json_t *params)
{
    struct runner_error error;
    struct service *service = find_running(server, call, params, "answer to");
    if (service == NULL) {
        return;
    }
    const char *key = json_string_value(json_object_get(params, "request"));
    json_t *result = json_object_get(params, "result"), *fault = json_object_get(params, "error");
    if ((result == NULL) == (fault == NULL)) {
        (void)runner_fail(&error, RUNNER_USAGE,
                          "parameter 'result'\neither it or 'error' is given\nsee docs/control.md");
        call_error(call, &error);
    } else if (peer_answer(service->peer, key, json_incref(result), json_incref(fault), &error) !=
               RUNNER_OK) {
        call_error(call, &error);
    } else {
        call_result(call, json_pack("{s:b}", "answered", 1));
    }
}

// ------------------------------------------------------------------------------------------------
// What they have said
// ------------------------------------------------------------------------------------------------

void method_service_logs(struct server *server, struct call *call, json_t *params)
{
    struct service *service = find(server, call, params);
    const json_t *after = json_object_get(params, "after");
    if (service != NULL) {
        call_result(call, service_log_read(service->log,
                                           after != NULL ? json_integer_value(after) : -65536));
    }
}

void method_service_messages(struct server *server, struct call *call, json_t *params)
{
    struct runner_error error;
    struct service *service = find(server, call, params);
    if (service != NULL && !service->config.pod) {
        (void)runner_fail(&error, RUNNER_USAGE,
                          "messages of service '%s'\nthey are kept only of agents in pods\n"
                          "runner events",
                          service->name);
        call_error(call, &error);
    } else if (service != NULL) {
        json_int_t after = json_integer_value(json_object_get(params, "after"));
        json_int_t agent = json_integer_value(json_object_get(params, "agent"));
        call_result(call, journal_messages(service->folder, (uint64_t)agent, (uint64_t)after));
    }
}
