// A client (pod/client.h) on a connection in a loop of libuv. On POSIX the program has to ignore
// SIGPIPE: libuv does not hold it back.
#ifndef POD_LINK_H
#define POD_LINK_H

#include "pod/client.h"
#include "poddaemon/os.h"

struct pod_link;
// The connection is over and the handles are closed; client.failure says why (0: pod_link_close()).
// The link may be freed here.
typedef void pod_link_over(struct pod_link *link);

struct pod_link {
    struct pod_client client;
    void *user;
    // Private from here on.
    uv_pipe_t pipe;
    uv_timer_t timer;
    uv_write_t write;
    uint8_t *writing;
    unsigned open_handles;
    bool closing;
    pod_link_over *over;
};

// Takes over the connection (pod_connect(), pod_birth_pair()), also on failure. options->nonce is
// made here. handshake_ms: for WELCOME to come, else the link ends with -POD_E_CLOSED. 0: 2000.
// PM_ERR_*; after a failure over() is not called.
int pod_link_open(struct pod_link *link, uv_loop_t *loop, pm_native native,
                  const struct pod_client_options *options, uint32_t handshake_ms,
                  pod_link_over *over);
// Sends what requests have put into the client: call it after them. Not needed in the handler.
void pod_link_flush(struct pod_link *link);
void pod_link_close(struct pod_link *link);

#endif
