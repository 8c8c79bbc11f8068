// The last bytes of an output, each with its offset since the beginning, and readers of them.
#ifndef POD_RING_H
#define POD_RING_H

#include "pod/wire.h"

#define POD_RING_DEFAULT (1024u * 1024u)
#define POD_RING_MIN 4096u
#define POD_RING_MAX (64u * 1024u * 1024u)

struct pod_ring {
    uint8_t *data; // What was never written to is no memory yet, where the system works so.
    size_t capacity;
    uint64_t first, end; // Kept are the bytes [first, end).
};

bool pod_ring_init(struct pod_ring *ring, size_t capacity); // false: no memory.
void pod_ring_clear(struct pod_ring *ring);
void pod_ring_write(struct pod_ring *ring, const void *data, size_t size);
// The bytes from an offset on that lie in one piece, at most `max`. None: at the end, or before the
// first one (a gap).
struct pod_bytes pod_ring_peek(const struct pod_ring *ring, uint64_t offset, size_t max);

// How far a reader of a ring has come.
struct pod_cursor {
    enum pod_channel channel;
    uint64_t offset;
    bool ended; // The END was made.
};

// At what an ATTACH asks for. -POD_E_INVALID: an offset behind the end.
int pod_cursor_place(struct pod_cursor *cursor, const struct pod_ring *ring,
                     enum pod_channel channel, uint64_t from);

// The next frame for the reader. GAP and END are in the head alone; OUTPUT is the head and then
// `data`, a view into the ring.
struct pod_piece {
    uint8_t head[32];
    size_t head_size;
    struct pod_bytes data;
    uint64_t gap; // Bytes that a GAP skips.
};
// What becomes of a ring whose writer is at its end.
struct pod_ending {
    bool ended, truncated;
};
// Moves the cursor over what it gives, at most `max` bytes of output. false: nothing to tell now.
bool pod_cursor_next(struct pod_cursor *cursor, const struct pod_ring *ring,
                     struct pod_ending ending, size_t max, struct pod_piece *ret_piece);

#endif
