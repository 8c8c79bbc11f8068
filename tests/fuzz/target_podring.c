// The offset ring against a model that keeps everything. An input is the capacity in one byte, then
// steps of two bytes: write so many bytes, read so many with one of three readers, or place one
// anew. Each reader is told each byte once, or a gap with the exact bounds.
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "pod/ring.h"
#include "pod/tracker.h"

#define READERS 3
#define ALL_MAX 65536u

const struct fuzz_word fuzz_words[] = {FUZZ_WORD("\0\xff\1\xff"), FUZZ_WORD("\0\1\1\1"),
                                       FUZZ_WORD("\4\0"),         FUZZ_WORD("\7\xff\1\xff"),
                                       FUZZ_WORD("\x0a\xff"),     FUZZ_WORDS_END};

struct model {
    uint8_t *all; // Every byte that was ever written.
    size_t end;
    struct pod_ring ring;
    struct pod_cursor cursors[READERS];
    struct pod_tracker trackers[READERS];
};

static void write_some(struct model *m, size_t size)
{
    size = size < ALL_MAX - m->end ? size : ALL_MAX - m->end;
    for (size_t i = 0; i < size; i++) {
        m->all[m->end + i] = (uint8_t)((m->end + i) * 131 + ((m->end + i) >> 8) * 7);
    }
    uint8_t *exact = fuzz_copy(m->all + m->end, size);
    pod_ring_write(&m->ring, exact, size);
    free(exact);
    m->end += size;
    FUZZ_CHECK(m->ring.end == m->end);
    size_t kept = m->end < m->ring.capacity ? m->end : m->ring.capacity;
    FUZZ_CHECK(m->ring.first == m->end - kept);
}

// One frame, as it goes over a wire.
static bool read_some(struct model *m, size_t reader, size_t max, bool ended)
{
    struct pod_piece piece;
    struct pod_message message;
    uint64_t before = m->cursors[reader].offset;
    struct pod_ending ending = {ended, false};
    if (!pod_cursor_next(&m->cursors[reader], &m->ring, ending, max, &piece)) {
        return false;
    }
    size_t size = piece.head_size + piece.data.size;
    uint8_t *bytes = fuzz_alloc(size);
    memcpy(bytes, piece.head, piece.head_size);
    if (piece.data.size > 0) {
        memcpy(bytes + piece.head_size, piece.data.data, piece.data.size);
    }
    struct pod_frame frame = {bytes[4], bytes[5], bytes + POD_HEADER_SIZE, size - POD_HEADER_SIZE};
    FUZZ_CHECK(((size_t)bytes[0] | (size_t)bytes[1] << 8 | (size_t)bytes[2] << 16) == size);
    FUZZ_CHECK(pod_decode(&frame, &message) == 0);
    FUZZ_CHECK(pod_tracker_take(&m->trackers[reader], &message) == 0);
    if (message.type == POD_OUTPUT) {
        struct pod_bytes data = message.u.output.data;
        FUZZ_CHECK(message.u.output.offset == before && data.size <= max);
        FUZZ_CHECK(memcmp(data.data, m->all + before, data.size) == 0);
    } else if (message.type == POD_GAP) {
        // Nothing that is kept is skipped, and nothing that is gone is told.
        FUZZ_CHECK(message.u.gap.from == before && message.u.gap.to == m->ring.first);
    } else {
        FUZZ_CHECK(message.type == POD_END && ended && message.u.end.offset == m->end);
    }
    free(bytes);
    return true;
}

static void place(struct model *m, size_t reader, size_t where)
{
    uint64_t from = where == 255 ? POD_FROM_KEPT : where == 254 ? POD_FROM_NOW : where * 300;
    int result = pod_cursor_place(&m->cursors[reader], &m->ring, POD_CHANNEL_OUT, from);
    bool inside = from >= POD_FROM_NOW || from <= m->end;
    fuzz_note(inside);
    FUZZ_CHECK((result == 0) == inside);
    if (result == 0) {
        uint64_t next[POD_CHANNELS] = {m->cursors[reader].offset, 0};
        pod_tracker_begin(&m->trackers[reader], next);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct model m = {.end = 0};
    if (size < 1 || !pod_ring_init(&m.ring, 1 + (size_t)data[0] * 5)) {
        return 0;
    }
    m.all = fuzz_alloc(ALL_MAX);
    for (size_t i = 0; i < READERS; i++) {
        place(&m, i, 0);
    }
    for (size_t at = 1; at + 1 < size; at += 2) {
        size_t reader = data[at] / 3 % READERS, number = data[at + 1];
        if (data[at] % 3 == 0) {
            write_some(&m, number * (1 + data[at] / 9));
        } else if (data[at] % 3 == 1) {
            (void)read_some(&m, reader, number + 1, false);
        } else {
            place(&m, reader, number);
        }
    }
    for (size_t i = 0; i < READERS; i++) {
        while (read_some(&m, i, 1000, true)) {
        }
        FUZZ_CHECK(m.trackers[i].next[0] == m.end && m.trackers[i].ended[0]);
    }
    free(m.all);
    pod_ring_clear(&m.ring);
    return 0;
}
