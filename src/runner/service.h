// A service: a child that the runner starts, keeps, and starts again as its policy says.
//
//   STOPPED <--end, policy says rest-- +             WAITING <--+ end, policy says again
//      | start                         |                | delay  |
//      +-------> STARTING --ready--> RUNNING <----------+        |
//                   |  \----end-----------------------> FAILED, BREAKER, WAITING
//                   v  stop, restart, remove, end of the runner (also from RUNNING)
//                STOPPING --its end--> STOPPED, or STARTING again
#ifndef RUNNER_SERVICE_H
#define RUNNER_SERVICE_H

#include "runner/peer.h"
#include "runner/service_log.h"

enum service_state {
    SERVICE_IS_STOPPED = 0, // Nobody wants it, or it has ended in order.
    SERVICE_IS_STARTING,
    SERVICE_IS_RUNNING,
    SERVICE_IS_STOPPING,
    SERVICE_IS_WAITING, // For its next start.
    SERVICE_IS_FAILED,  // It has ended otherwise, and its policy lets it rest.
    SERVICE_IS_BREAKER  // Too many ends: not started again before somebody says so.
};

struct service_wait { // A call that is answered when the service has come to rest, or runs.
    struct service_wait *next;
    struct call *call;
};

struct service {
    struct server *server;
    struct service *next;
    char name[SERVICE_NAME_MAX + 1];
    char folder[4096];
    char work[4104]; // Below it: where it works, unless its configuration says so.
    struct service_config config, later; // later.json: the one from the next start on.
    bool stored;                         // It stands in the file.
    enum service_state state;
    char reason[512];
    struct peer *peer; // NULL: no child.
    struct service_log *log;
    struct restart restart;
    uv_timer_t delay;
    uint64_t began, next_start; // By the loop's clock.
    int64_t started_ms;
    uint64_t starts, messages;
    struct pm_exit exit; // Of its last child, if has_exit.
    bool has_exit;
    bool again, removed; // When the child has ended: start, forget.
    struct service_wait *waits;
    struct service_call *calls; // Of clients, in service_call.c.
};

struct services {
    struct server *server;
    struct post *post;
    struct service *list;
    char file[4096], folder[4096];
    struct runner_error problem; // With the file; code: RUNNER_OK.
    bool ending, closed, killed;
    bool busy;        // None is let go of now: the list is gone through.
    unsigned leaving; // Agents in pods that are about to be let go of.
    uint64_t serial;  // Of messages told.
};

const char *service_state_name(int state);
struct service *service_find(const struct server *server, const char *name);
json_t *service_json(const struct service *service);
// Takes a reference of the object, which is checked. NULL: no memory.
struct service *service_add(struct server *server, const char *name, json_t *object, bool stored);
// The configuration from the next start on.
void service_configure(struct service *service, json_t *object);
void service_begin(struct service *service); // Where it rests. Breaker and counts are forgotten.
void service_end(struct service *service, const char *why);
void service_again(struct service *service); // Ends it, and begins it.
void service_remove(struct service *service);
// The call is answered with the service when nothing is under way.
void service_wait(struct service *service, struct call *call);
// To subscribers, with the service.
void service_tell(const struct service *service, const char *what);

// service_call.c: calls of clients.
void service_call(struct service *service, struct call *call, json_t *params);
void service_calls_go(struct service *service); // It is ready: those that waited.
void service_calls_fail(struct service *service, const char *why);
void service_calls_tell(struct service *service, const char *method, json_t *params); // Steals.

// service_methods.c
typedef void service_method(struct server *server, struct call *call, json_t *params);
void method_service_add(struct server *server, struct call *call, json_t *params);
void method_service_list(struct server *server, struct call *call, json_t *params);
void method_service_get(struct server *server, struct call *call, json_t *params);
void method_service_remove(struct server *server, struct call *call, json_t *params);
void method_service_start(struct server *server, struct call *call, json_t *params);
void method_service_stop(struct server *server, struct call *call, json_t *params);
void method_service_restart(struct server *server, struct call *call, json_t *params);
void method_service_call(struct server *server, struct call *call, json_t *params);
void method_service_cancel(struct server *server, struct call *call, json_t *params);
void method_service_notify(struct server *server, struct call *call, json_t *params);
void method_service_answer(struct server *server, struct call *call, json_t *params);
void method_service_logs(struct server *server, struct call *call, json_t *params);
void method_service_messages(struct server *server, struct call *call, json_t *params);

#endif
