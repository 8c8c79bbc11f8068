// Calls of clients, from the question to the answer, whatever becomes of client, child and time.
#include <stdlib.h>
#include <string.h>

#include "runner/service.h"

#define WAITING_MAX 64 // Calls that wait for a start.

struct service_call {
    struct service *service;
    struct service_call *next;
    struct call *call;
    json_t *params;              // As the client gave them.
    struct peer_call *peer_call; // NULL: it waits for the start.
    bool stream;
};

static void end(struct service_call *sc, json_t *result, const struct runner_error *error)
{
    struct service_call **at = &sc->service->calls;
    while (*at != sc) {
        at = &(*at)->next;
    }
    *at = sc->next;
    if (error != NULL) {
        call_error(sc->call, error);
    } else {
        call_result(sc->call, result);
    }
    json_decref(sc->params);
    free(sc);
}

static void on_done(void *user, json_t *answer, const struct runner_error *error)
{
    struct service_call *sc = user;
    json_t *fault = message_fault(answer), *result = json_object_get(answer, "result");
    json_t *told = NULL;
    sc->peer_call = NULL;
    if (answer != NULL) {
        told = fault != NULL ? json_pack("{s:O}", "error", fault)
                             : json_pack("{s:O}", "result", result != NULL ? result : json_null());
    }
    end(sc, told, error);
}

static void on_gone(void *user)
{
    struct service_call *sc = user;
    if (sc->peer_call != NULL) {
        peer_cancel(sc->peer_call, "its client has gone"); // Ends it.
    } else {
        end(sc, json_object(), NULL);
    }
}

static void go(struct service_call *sc)
{
    struct runner_error error;
    json_t *params = json_object_get(sc->params, "params");
    const struct peer_call_options options = {
        .method = json_string_value(json_object_get(sc->params, "method")),
        .tag = json_string_value(json_object_get(sc->params, "tag")),
        .params = json_incref(params),
        .timeout_ms = (uint32_t)json_integer_value(json_object_get(sc->params, "timeout_ms")),
        .done = on_done,
        .user = sc};
    if (peer_call(sc->service->peer, &options, &sc->peer_call, &error) != RUNNER_OK) {
        end(sc, NULL, &error);
    }
}

void service_call(struct service *service, struct call *call, json_t *params)
{
    size_t count = 0;
    for (const struct service_call *sc = service->calls; sc != NULL; sc = sc->next) {
        count++;
    }
    struct service_call *sc = malloc(sizeof *sc);
    if (sc == NULL) {
        call_result(call, NULL);
        return;
    }
    *sc = (struct service_call){.service = service,
                                .next = service->calls,
                                .call = call,
                                .params = json_incref(params),
                                .stream = json_is_true(json_object_get(params, "stream"))};
    service->calls = sc;
    if (service->state == SERVICE_IS_RUNNING) {
        call_watch(call, on_gone, sc);
        go(sc);
    } else if (count < WAITING_MAX) {
        call_watch(call, on_gone, sc);
    } else {
        struct runner_error error;
        (void)runner_fail(&error, RUNNER_REFUSED,
                          "call of service '%s'\n%d calls wait for its start already",
                          service->name, WAITING_MAX);
        end(sc, NULL, &error);
    }
}

void service_calls_go(struct service *service)
{
    struct service_call *waiting = NULL, *next;
    // The first that came is the last of the list, and a call that fails leaves it.
    size_t count = 0, at = 0;
    for (struct service_call *sc = service->calls; sc != NULL; sc = sc->next) {
        count++;
    }
    struct service_call **ordered = calloc(count + 1, sizeof *ordered);
    for (waiting = service->calls; ordered != NULL && waiting != NULL; waiting = next) {
        next = waiting->next;
        if (waiting->peer_call == NULL) {
            ordered[at++] = waiting;
        }
    }
    while (at > 0) {
        go(ordered[--at]);
    }
    free(ordered);
}

void service_calls_fail(struct service *service, const char *why)
{
    struct service_call *next;
    for (struct service_call *sc = service->calls; sc != NULL; sc = next) {
        next = sc->next;
        if (sc->peer_call == NULL) { // The others are told by the peer.
            struct runner_error error;
            (void)runner_fail(&error, RUNNER_FAILED,
                              "call of service '%s'\nit did not come up: %s\n"
                              "runner service get %s",
                              service->name, why, service->name);
            end(sc, NULL, &error);
        }
    }
}

void service_calls_tell(struct service *service, const char *method, json_t *params)
{
    struct service_call *next;
    for (struct service_call *sc = service->calls; sc != NULL && params != NULL; sc = next) {
        next = sc->next;
        if (sc->stream && sc->peer_call != NULL) {
            call_notify(sc->call, service->server->services->serial, method, json_incref(params));
        }
    }
    json_decref(params);
}
