// A child that speaks JSON-RPC 2.0, one message a line: its start and handshake, calls, cancels,
// notifications, requests from it, its end. What it speaks about is not known here, but for the
// handshakes of MCP and ACP and ACP's request for permission.
//
//   peer_start --started--> handshake --ready--> calls --ended-->        (from each --ended-->)
//
// What a call waits for comes once: an answer, or why there is none. When the child ends, all that
// wait are told before `ended`.
#ifndef RUNNER_PEER_H
#define RUNNER_PEER_H

#include "runner/message.h"
#include "runner/transport.h"

#define PEER_CALLS_MAX 1024

struct peer;
struct peer_message {
    json_t *json;    // Borrowed: a notification, or the answer to a call of an earlier runner.
    bool earlier;    // The latter.
    uint64_t offset; // Of the end of its line in all that the child has said.
};
// A request of the child that is passed on: answered by peer_answer(), or denied when it is too
// late.
struct peer_question {
    const char *key; // Its name until then.
    json_t *request; // Borrowed.
};
struct peer_ended {
    bool started, ready; // It ran; its handshake was done.
    bool asked;          // We stopped it.
    bool cut;            // It was found in the middle of its handshake with an earlier runner.
    const struct runner_error *failed; // Why it was given up or not started; NULL: it just ended.
    struct pm_exit exit;               // If it ran.
};
struct peer_handler {
    void (*started)(void *user, uint64_t pid, bool resumed);
    void (*ready)(void *user);
    void (*message)(void *user, const struct peer_message *message);
    // false: there is nobody to ask.
    bool (*question)(void *user, const struct peer_question *question);
    void (*answered)(void *user, const char *key, bool in_time); // It is no question any more.
    void (*said)(void *user, const void *data, size_t size);
    void (*note)(void *user, const char *text); // A line for the log.
    void (*ended)(void *user, const struct peer_ended *ended);
    void *user;
};
struct peer_options {
    struct server *server;
    struct post *post;
    const char *name, *folder, *cwd;
    const struct service_config *config; // Valid as long as the peer.
    struct peer_handler handler;
};

struct peer_stats {
    uint64_t pid, garbage, too_long, gaps;
    size_t calls, unsent;
};

// NULL: no memory. The rest is told by `ended`, after the call. In there the peer is no more.
struct peer *peer_start(const struct peer_options *options);
void peer_stop(struct peer *peer);    // In order. `ended` comes; at any time, also more than once.
void peer_kill(struct peer *peer);    // After peer_stop(): the runner cannot wait any longer.
void peer_release(struct peer *peer); // At the end of the runner: one in a pod goes on without us.

// `answer`: the whole message (borrowed); NULL: why there is none.
typedef void peer_done(void *user, json_t *answer, const struct runner_error *error);
struct peer_call_options {
    const char *method, *tag; // tag: NULL, or for peer_cancel_tag().
    json_t *params;           // Stolen; NULL: none.
    uint32_t timeout_ms;      // 0: that of the configuration.
    peer_done *done;
    void *user;
};
struct peer_call;
// RUNNER_OK and the call, which lives until `done`; else why not, and `done` is not called.
int peer_call(struct peer *peer, const struct peer_call_options *options,
              struct peer_call **ret_call, struct runner_error *error);
// The child is told in the words of its protocol; `done` is called at once.
void peer_cancel(struct peer_call *call, const char *why);
size_t peer_cancel_tag(struct peer *peer, const char *tag); // How many.
int peer_notify(struct peer *peer, const char *method, json_t *params, struct runner_error *error);
// Answers a question. Steals result, or error (one of them NULL).
int peer_answer(struct peer *peer, const char *key, json_t *result, json_t *fault,
                struct runner_error *error);
json_t *peer_facts(const struct peer *peer); // What the handshake told. NULL: nothing yet.
struct peer_stats peer_stats(const struct peer *peer);

// "exited with code 3", "was ended by signal 9" and the like.
void peer_exit_text(const struct pm_exit *record, char *text, size_t capacity);

// handshake.c: pure.
json_t *handshake_initialize(enum service_kind kind); // Parameters.
// Checks the answer. NULL: fine; else what is wrong.
const char *handshake_check(enum service_kind kind, const json_t *result);
json_t *handshake_session(const struct service_config *config, const char *cwd);
// The answer to session/request_permission: an option of the kind wanted, else "cancelled".
json_t *handshake_permission(const json_t *request, bool allow);
// The notification that cancels a call; *ret_params is the caller's.
const char *handshake_cancel(enum service_kind kind, const char *id, const char *method,
                             const json_t *params, const char *why, json_t **ret_params);

#endif
