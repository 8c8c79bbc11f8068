// How a peer's lines come and go: a child with three pipes (child.c), or a pod (podchild.c).
//
//   start --started--> lines --ended-->      start --ended (`failed` says why)-->
//
// `ended` comes once, after the last line and the last word on stderr; the transport is no more
// then.
#ifndef RUNNER_TRANSPORT_H
#define RUNNER_TRANSPORT_H

#include "runner/server.h"
#include "runner/service_config.h"

#define TRANSPORT_UNSENT_MAX                                                                       \
    8388608u // Bytes that the child has not read, before a write is refused.

struct transport;
struct transport_started {
    uint64_t pid;
    const json_t *kept; // It goes on: what was kept of it. NULL: it is new.
};
struct transport_ended {
    bool started;                      // It ran.
    const struct runner_error *failed; // Why it could not be started; NULL.
    struct pm_exit exit;               // If it ran.
};
struct transport_handler {
    void (*started)(void *user, const struct transport_started *started);
    // Requests of it that an earlier runner did not answer.
    void (*open)(void *user, const json_t *requests);
    // `line` NULL: one of `size` bytes that was too long. `end`: its place in all of the output.
    void (*line)(void *user, const char *line, size_t size, uint64_t end);
    void (*gap)(void *user, uint64_t from, uint64_t to);     // Bytes that nobody kept.
    void (*said)(void *user, const void *data, size_t size); // On stderr.
    // It has closed its input, and what was written is lost; or its output.
    void (*deaf)(void *user, const char *why);
    void (*ended)(void *user, const struct transport_ended *ended);
    void *user;
};
struct transport_options {
    struct server *server;
    struct post *post;
    const char *name, *folder, *cwd;     // folder: of what is known of it; cwd: where it works.
    const struct service_config *config; // Valid as long as the transport.
    struct transport_handler handler;
};
struct transport_ops {
    // Takes the line, which was malloc'd. `answers`: to which request of the child, as JSON; or
    // NULL. 0, UV_ENOBUFS: too much is unsent; UV_EPIPE: it does not read any more.
    int (*write)(struct transport *transport, char *line, size_t size, const char *answers);
    size_t (*unsent)(const struct transport *transport);
    // Input closed, time to leave, then the plan. Any number of times, at any time.
    void (*stop)(struct transport *transport);
    // Lets go of it, where it goes on by itself (else as stop). `ended` does not come. What it has
    // not taken within a second the next runner gives it; until then it counts in
    // services::leaving.
    void (*release)(struct transport *transport);
    // At once: the runner cannot wait any longer. After stop; `ended` comes.
    void (*kill)(struct transport *transport);
    // What a later runner shall know of it. Steals it. NULL where there is no later one.
    void (*keep)(struct transport *transport, json_t *state);
};
struct transport {
    const struct transport_ops *ops;
};

// NULL: no memory. Everything else is told by `ended`, never before the call returns.
struct transport *child_start(const struct transport_options *options);
struct transport *podchild_start(const struct transport_options *options);
// Whether a pod of this service is there to go on with.
bool podchild_lives(struct server *server, const char *name);
// Ends those whose service is no more, or shall not live in a pod any more.
void podchild_sweep(struct server *server);

#endif
