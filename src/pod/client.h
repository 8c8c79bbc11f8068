// The client's end of one connection to a pod daemon, without any input or output: bytes that came
// go in, bytes to send come out, messages go to a handler. With libuv: poddaemon/link.h.
//
//   IDLE --pod_client_init()--> GREETING --WELCOME, its proof is right--> READY --error, end-->
//   OVER
//
// All is answered through the handler: WELCOME; then DONE, STATE, STARTED, ATTACHED or ERROR with
// the number that the request returned; ATTACHED is followed by OUTPUT, GAP and END, each byte once
// or in one gap (checked here: tracker.h), at last EXIT. CREDIT, SIZE and TAKEN come unasked.
// A new connection attaches from tracker.next of the old one.
#ifndef POD_CLIENT_H
#define POD_CLIENT_H

#include "pod/config.h"
#include "pod/tracker.h"
#include "pod/wire.h"

struct pod_client;
// `message` is valid during the call. May call functions of the client; not clear it.
typedef void pod_client_handler(void *user, const struct pod_message *message);

struct pod_client_options {
    const char *session;
    const uint8_t *token;              // POD_TOKEN_SIZE bytes.
    const uint8_t *nonce;              // POD_NONCE_SIZE bytes, random, never the same twice.
    uint64_t epoch;                    // Of this runner's registry; 0 may only look.
    const char *build;                 // Shown in logs; NULL: none.
    uint16_t version_min, version_max; // 0: those of this build.
    uint32_t features;                 // 0: those of this build.
    pod_client_handler *handler;
    void *user;
};

enum pod_client_phase {
    POD_CLIENT_IDLE = 0,
    POD_CLIENT_GREETING,
    POD_CLIENT_READY,
    POD_CLIENT_OVER
};

struct pod_client {
    enum pod_client_phase phase;
    pod_client_handler *handler;
    void *user;
    char session[POD_SESSION_MAX + 1];
    uint8_t token[POD_TOKEN_SIZE], nonce[POD_NONCE_SIZE];
    uint16_t version; // Agreed on; 0: only frozen frames.
    uint32_t features;
    uint32_t next_request;
    bool attached; // ATTACHED has come.
    bool writes;   // As the writer, which acknowledges what it has taken.
    uint64_t acked[POD_CHANNELS];
    struct pod_tracker tracker;
    uint64_t credit, sent; // Of INPUT.
    int failure;           // Why it is OVER; 0: at the end of the stream.
    struct pod_decoder decoder;
    struct { // Bytes to send.
        uint8_t *bytes;
        size_t begin, end, capacity;
    } out;
};

// Writes the HELLO. -POD_E_INVALID, -POD_E_NO_MEMORY. Clear with pod_client_clear().
int pod_client_init(struct pod_client *client, const struct pod_client_options *options);
void pod_client_clear(struct pod_client *client);

// Bytes that came. 0, or why the connection is over: close it. It stays so.
int pod_client_feed(struct pod_client *client, const void *data, size_t size);
// The other end has closed.
void pod_client_end(struct pod_client *client);
// What is to be sent, and that so many bytes of it were.
struct pod_bytes pod_client_pending(const struct pod_client *client);
void pod_client_sent(struct pod_client *client, size_t size);

// Requests. Their number (1 and up), -POD_E_STATE (before WELCOME, or OVER), -POD_E_VERSION (the
// daemon knows frozen frames only), -POD_E_NO_MEMORY, -POD_E_INVALID.
int64_t pod_client_status(struct pod_client *client);                  // -> STATE
int64_t pod_client_stop(struct pod_client *client, uint32_t grace_ms); // -> DONE, then EXIT
int64_t pod_client_kill(struct pod_client *client);                    // -> DONE, then EXIT
int64_t pod_client_claim(struct pod_client *client);                   // -> DONE
int64_t pod_client_attach(struct pod_client *client, const struct pod_attach *attach);
int64_t pod_client_detach(struct pod_client *client);                                  // -> DONE
int64_t pod_client_resize(struct pod_client *client, uint16_t columns, uint16_t rows); // -> DONE
int64_t pod_client_close_input(
    struct pod_client *client); // -> DONE, when the input before it is in
// On the first connection: what the session shall be. -> STARTED
int64_t pod_client_start(struct pod_client *client, const struct pod_config *config);
// Types as much as there is credit for: the number of bytes taken, 0 and more; the rest after the
// next CREDIT.
int64_t pod_client_input(struct pod_client *client, const void *data, size_t size);

#endif
