// What is left of a session when its daemon is gone: one file of frames, TOMB, OUTPUT and END of
// each channel, EXIT, and then the SHA-256 of all before it. So who comes late reads the same
// frames as who was there.
#ifndef POD_TOMB_H
#define POD_TOMB_H

#include "pod/client.h"
#include "pod/ring.h"

// The largest file: two rings, and heads.
#define POD_TOMB_SIZE_MAX (2u * POD_RING_MAX + 1024u * 1024u)

struct pod_tomb_source {
    struct pod_tomb head;
    struct pod_exit exit;
    const struct pod_ring *rings[POD_CHANNELS]; // NULL: that channel had none.
    bool truncated[POD_CHANNELS];
    bool without_output; // There was no room on the disk for it.
};

// 0 or negative: what failed, given back.
typedef int pod_tomb_put(void *user, const void *data, size_t size);
int pod_tomb_write(const struct pod_tomb_source *source, pod_tomb_put *put, void *user);

// Checks the file, then tells the handler TOMB, and, for a reader that has come to `from`, OUTPUT,
// GAP and END as a daemon would, and EXIT. -POD_E_PROTOCOL: damaged, the handler saw nothing.
// -POD_E_INVALID: `from` is behind the end.
int pod_tomb_read(const uint8_t *bytes, size_t size, const uint64_t from[POD_CHANNELS],
                  pod_client_handler *handler, void *user);

#endif
