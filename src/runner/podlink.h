// One connection to a pod daemon: pod/client.h over a pipe of libuv.
#ifndef RUNNER_PODLINK_H
#define RUNNER_PODLINK_H

#include <processmgr/processmgr.h>
#include <uv.h>

#include "pod/client.h"

// Of the input of a terminal.
#define PODLINK_NO_END                                                                             \
    "the input of a terminal cannot be closed: type its end-of-file character, mostly Ctrl-D"

#define PODLINK_TAKEN "somebody else has taken over"
#define PODLINK_CLOSED "its input is closed"

struct podlink;
struct podlink_options {
    uv_loop_t *loop;
    const char *session;
    const uint8_t *token; // POD_TOKEN_SIZE bytes.
    uint64_t epoch;
    uint64_t timeout_ms; // Until WELCOME; 0: none.
    pod_client_handler *handler;
    // Nothing follows, and the link is no more when it returns. `failure`: negated pod_error_code.
    void (*over)(void *user, int failure);
    void *user;
};
// What an ERROR of a pod says, in its words and ours.
void podlink_refusal(const struct pod_error *error, char text[256]);
// Whether it says that input is with nobody: it came after the end of it, or was not read before.
bool podlink_is_closed(const struct pod_error *error);
// Takes the connection, also when it fails. 0 or a negated pod_error_code.
int podlink_open(const struct podlink_options *options, pm_native native,
                 struct podlink **ret_link);
// For requests; podlink_flush() after them.
struct pod_client *podlink_client(struct podlink *link);
void podlink_flush(struct podlink *link);
// Whether it is read from.
void podlink_read(struct podlink *link, bool read);
// Bytes that the other end has not taken.
size_t podlink_unsent(const struct podlink *link);
// `over` is not called any more. NULL is allowed.
void podlink_close(struct podlink *link);

#endif
