// The runner while it serves: one loop, one thread; what blocks is done by libuv's workers.
#ifndef RUNNER_SERVER_H
#define RUNNER_SERVER_H

#include <processmgr/processmgr.h>

#include "poddaemon/os.h"
#include "runner/log.h"
#include "runner/os.h"
#include "runner/rpc.h"

// Name of the control connection in the state folder, where sessions have theirs in their own.
#define CONTROL_NAME "runner-control"

// Part of what `serve` says then, in its last words.
#define SERVED_BY_ANOTHER "another runner"

// Why one that ends when its sessions have ended refuses all but what ends them, or it, sooner.
#define STOPS_SESSIONS "the runner stops its sessions, and ends then"
#define ENDS_SOON "the runner is about to end"

// A runner that ends is gone by then: what it waits for, and the end of its registry.
#define SERVER_LEAVE_MS 30000

struct session;
struct held;
struct control;
struct upgrade;

struct server;

// service.c: children that the runner keeps for itself. Their place in its life, for all of its
// ends, upgrades too:
struct services;
int services_open(struct server *server, struct runner_error *error);
void services_start(struct server *server); // When the sessions are recovered.
void services_stop(struct server *server);  // When the end begins. Does not wait.
void services_kill(struct server *server);  // What has not ended after a while.
bool services_stopped(
    const struct server *server);          // Control connection and registry go after that.
void services_free(struct server *server); // When loop and manager are closed.

struct successor {   // SERVER_UPGRADE: what to run now.
    char *program;   // NULL: nothing.
    bool takes_held; // Signals that are held back when it begins.
};

enum server_end { // Why the loop ends.
    SERVER_RUNS = 0,
    SERVER_SHUTDOWN,
    SERVER_SHUTDOWN_ALL, // When the sessions have ended, too.
    SERVER_UPGRADE
};

struct server {
    const struct runner_env *env;
    uv_loop_t loop;
    struct runner_log *log;
    pm_manager *manager;
    uv_async_t wake; // Ends of daemons, told on threads of the manager.
    uv_mutex_t ended_lock;
    struct ended *ended;
    bool ended_unnamed; // There was no memory for one of them.
    struct control *control;
    struct pod_dir state; // The state folder.
    char instance[33];    // Random: tells one run from the next.
    char sessions_dir[4096], registry_dir[4096];
    uint64_t epoch; // Of this run: each has a higher one than all before.
    int64_t started_wall_ms;
    struct session *sessions;
    struct services *services;      // NULL: none.
    struct post *starts;            // Threads for what may hang: others need libuv's workers.
    uint64_t ids;                   // Of calls and questions, given so far.
    struct held *held;              // Calls that wait for `recovered`.
    size_t recovering;              // Sessions whose pod has not answered yet.
    struct session *unread_first;   // Without a holder that lives; not looked at yet.
    size_t unread, reading;         // How many that are, and those that are looked at.
    uint64_t again_at;              // recover_again().
    bool rescanning;                // It is under way.
    uint64_t late_until;            // For those who wait until there are no unread ones.
    uint64_t keep_ms, keep_records; // Of what is left of ended sessions; 0: for ever, all.
    uint64_t prune_at;              // prune_begin().
    bool under_prune;
    bool recovered; // The registry and the folders have been read.
    uint64_t recovery_ms;
    struct pm_registry_owner owner; // Us, as the lock of the registry names us; epoch 0: not known.
    bool folder_gone;               // The end was ours: nobody can find us any more.
    enum server_end end;
    uint64_t end_deadline, kill_at; // kill_at: services_kill().
    struct successor successor;
    struct pm_debug_server *debug; // NULL: none.
    unsigned works;                // In workers, of no session.
    pm_native ready;               // Who waits for us to be ready; PM_NATIVE_INVALID: nobody.
    uv_signal_t signals[3];
    uv_work_t workers; // begin_workers().
    uv_timer_t housekeeping;
    uv_thread_t thread; // Of the loop.
};

// One request of a client. Is answered once, now or later, also when the client has gone.
struct call;
void call_result(struct call *call, json_t *result); // Steals the result; NULL: no memory.
void call_error(struct call *call, const struct runner_error *error);
// One that the runner makes itself. The result is borrowed; NULL: the error.
typedef void call_done(void *user, json_t *result, const struct runner_error *error);
struct call *call_of_our_own(call_done *done, void *user);
bool call_is_our_own(const struct call *call);
// Told if the client goes before the answer, which is still due.
void call_watch(struct call *call, void (*gone)(void *user), void *user);
// A notification to its client, unless that has subscribed to all, or was told the one of this
// number for another call of it. Steals params.
void call_notify(struct call *call, uint64_t serial, const char *method, json_t *params);

int control_open(struct server *server, struct runner_error *error);
void control_close(struct server *server); // No more requests; connections end.
void control_free(struct server *server);  // When the loop has come round.
// To all that have subscribed. Steals params.
// How many those were.
size_t control_notify(struct server *server, const char *method, json_t *params);
bool control_subscribe(struct call *call); // false: too many have.
size_t control_connections(const struct server *server);
// Has the socket made again if it was removed; asked: or replaced.
void control_check(struct server *server, bool asked);

void server_stop(struct server *server, enum server_end end);
int64_t wall_ms(void);

// serve.c. One that is to be ready tells so to `ready`, and closes it.
int serve(const struct runner_env *env, pm_native ready);

// methods.c
bool methods_know(const char *name);
// Answers the call now or later.
void methods_call(struct server *server, const char *name, struct call *call, json_t *params);
// Calls that waited for the registry, or for a session.
void methods_release(struct server *server, struct held **list);

#endif
