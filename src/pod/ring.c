#include "pod/ring.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

bool pod_ring_init(struct pod_ring *ring, size_t capacity)
{
    *ring = (struct pod_ring){.data = malloc(capacity), .capacity = capacity};
    return ring->data != NULL;
}

void pod_ring_clear(struct pod_ring *ring)
{
    free(ring->data);
    *ring = (struct pod_ring){.data = NULL};
}

void pod_ring_write(struct pod_ring *ring, const void *data, size_t size)
{
    const uint8_t *from = data;
    if (size > ring->capacity) { // Only its end can be kept.
        ring->end += size - ring->capacity;
        from += size - ring->capacity;
        size = ring->capacity;
    }
    if (size == 0) {
        return;
    }
    size_t at = (size_t)(ring->end % ring->capacity);
    size_t before_wrap = ring->capacity - at < size ? ring->capacity - at : size;
    memcpy(ring->data + at, from, before_wrap);
    if (size > before_wrap) {
        memcpy(ring->data, from + before_wrap, size - before_wrap);
    }
    ring->end += size;
    if (ring->end - ring->first > ring->capacity) {
        ring->first = ring->end - ring->capacity;
    }
}

struct pod_bytes pod_ring_peek(const struct pod_ring *ring, uint64_t offset, size_t max)
{
    if (offset < ring->first || offset >= ring->end) {
        return (struct pod_bytes){NULL, 0};
    }
    size_t at = (size_t)(offset % ring->capacity);
    size_t size = ring->capacity - at;
    size = ring->end - offset < size ? (size_t)(ring->end - offset) : size;
    return (struct pod_bytes){ring->data + at, size < max ? size : max};
}

int pod_cursor_place(struct pod_cursor *cursor, const struct pod_ring *ring,
                     enum pod_channel channel, uint64_t from)
{
    uint64_t offset = from == POD_FROM_KEPT ? ring->first : from == POD_FROM_NOW ? ring->end : from;
    if (offset > ring->end) {
        return -POD_E_INVALID;
    }
    *cursor = (struct pod_cursor){.channel = channel, .offset = offset};
    return 0;
}

static void make_head(struct pod_piece *piece, const struct pod_message *message)
{
    piece->head_size = pod_encode(message, piece->head, sizeof piece->head);
    assert(piece->head_size > 0);
}

// The bytes stay where they are; the head tells their number.
static void make_output(struct pod_piece *piece, const struct pod_cursor *cursor,
                        struct pod_bytes bytes)
{
    struct pod_message message = {.type = POD_OUTPUT};
    message.u.output = (struct pod_output){(uint8_t)cursor->channel, cursor->offset, {NULL, 0}};
    make_head(piece, &message);
    size_t size = piece->head_size + bytes.size;
    for (size_t i = 0; i < 4; i++) {
        piece->head[i] = (uint8_t)(size >> (8 * i));
    }
    piece->data = bytes;
}

bool pod_cursor_next(struct pod_cursor *cursor, const struct pod_ring *ring,
                     struct pod_ending ending, size_t max, struct pod_piece *ret_piece)
{
    struct pod_message message = {.type = POD_GAP};
    assert(max > 0 && max <= POD_OUTPUT_MAX);
    ret_piece->gap = 0;
    ret_piece->data = (struct pod_bytes){NULL, 0};
    if (cursor->offset < ring->first) {
        message.u.gap = (struct pod_gap){(uint8_t)cursor->channel, cursor->offset, ring->first};
        make_head(ret_piece, &message);
        ret_piece->gap = ring->first - cursor->offset;
        cursor->offset = ring->first;
        return true;
    }
    struct pod_bytes bytes = pod_ring_peek(ring, cursor->offset, max);
    if (bytes.size > 0) {
        make_output(ret_piece, cursor, bytes);
        cursor->offset += bytes.size;
        return true;
    }
    if (ending.ended && !cursor->ended) {
        message.type = POD_END;
        message.u.end =
            (struct pod_end){(uint8_t)cursor->channel, ending.truncated, cursor->offset};
        make_head(ret_piece, &message);
        cursor->ended = true;
        return true;
    }
    return false;
}
