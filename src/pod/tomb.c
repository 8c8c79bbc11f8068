#include "pod/tomb.h"

#include <string.h>

#include "pod/proof.h"

// ------------------------------------------------------------------------------------------------
// Writing
// ------------------------------------------------------------------------------------------------

struct writer {
    pod_tomb_put *put;
    void *user;
    struct pod_sha256 sha;
};

static int put_bytes(struct writer *w, const void *data, size_t size)
{
    if (size == 0) {
        return 0;
    }
    pod_sha256_add(&w->sha, data, size);
    return w->put(w->user, data, size);
}

static int put_message(struct writer *w, const struct pod_message *m)
{
    uint8_t buffer[256];
    return put_bytes(w, buffer, pod_encode(m, buffer, sizeof buffer));
}

static int put_channel(struct writer *w, const struct pod_tomb_source *source, unsigned channel)
{
    static const struct pod_ring none = {.first = 0};
    const struct pod_ring *ring = source->rings[channel];
    struct pod_ending ending = {true, source->truncated[channel]};
    struct pod_cursor cursor;
    struct pod_piece piece;
    int result = 0;
    ring = ring != NULL ? ring : &none;
    (void)pod_cursor_place(&cursor, ring, (enum pod_channel)channel,
                           source->without_output ? POD_FROM_NOW : POD_FROM_KEPT);
    while (result == 0 && pod_cursor_next(&cursor, ring, ending, POD_OUTPUT_MAX, &piece)) {
        result = put_bytes(w, piece.head, piece.head_size);
        if (result == 0) {
            result = put_bytes(w, piece.data.data, piece.data.size);
        }
    }
    return result;
}

int pod_tomb_write(const struct pod_tomb_source *source, pod_tomb_put *put, void *user)
{
    struct writer w = {.put = put, .user = user};
    struct pod_message m = {.type = POD_TOMB};
    uint8_t digest[POD_SHA256_SIZE];
    pod_sha256_begin(&w.sha);
    m.u.tomb = source->head;
    int result = put_message(&w, &m);
    for (unsigned i = 0; i < POD_CHANNELS && result == 0; i++) {
        result = put_channel(&w, source, i);
    }
    if (result == 0) {
        m.type = POD_EXIT;
        m.u.exit = source->exit;
        result = put_message(&w, &m);
    }
    if (result == 0) {
        pod_sha256_end(&w.sha, digest);
        result = put(user, digest, sizeof digest);
    }
    return result;
}

// ------------------------------------------------------------------------------------------------
// Reading: once to check, once to tell
// ------------------------------------------------------------------------------------------------

struct reader {
    uint64_t next[POD_CHANNELS]; // Where the one who reads is.
    uint64_t at[POD_CHANNELS];   // Where the file is.
    bool begun[POD_CHANNELS], ended[POD_CHANNELS];
    pod_client_handler *handler; // NULL: only checks.
    void *user;
};

static void tell(const struct reader *r, const struct pod_message *m)
{
    if (r->handler != NULL) {
        r->handler(r->user, m);
    }
}

// What the file does not have any more.
static void tell_gap(struct reader *r, uint8_t channel, uint64_t to)
{
    struct pod_message m = {.type = POD_GAP};
    if (r->next[channel] < to) {
        m.u.gap = (struct pod_gap){channel, r->next[channel], to};
        tell(r, &m);
        r->next[channel] = to;
    }
}

static int read_output(struct reader *r, struct pod_message *m)
{
    struct pod_output *output = &m->u.output;
    uint8_t channel = output->channel;
    uint64_t end = output->offset + output->data.size;
    if (r->ended[channel] || (r->begun[channel] && output->offset != r->at[channel])) {
        return -POD_E_PROTOCOL;
    }
    r->begun[channel] = true;
    r->at[channel] = end;
    if (r->next[channel] == POD_FROM_KEPT) {
        r->next[channel] = output->offset;
    }
    tell_gap(r, channel, output->offset);
    if (end <= r->next[channel]) {
        return 0;
    }
    size_t known = (size_t)(r->next[channel] - output->offset);
    output->offset += known;
    output->data.data += known;
    output->data.size -= known;
    r->next[channel] = end;
    tell(r, m);
    return 0;
}

static int read_end(struct reader *r, struct pod_message *m)
{
    uint8_t channel = m->u.end.channel;
    uint64_t offset = m->u.end.offset;
    if (r->ended[channel] || (r->begun[channel] && offset != r->at[channel])) {
        return -POD_E_PROTOCOL;
    }
    r->ended[channel] = true;
    r->at[channel] = offset;
    if (r->next[channel] == POD_FROM_KEPT || r->next[channel] == POD_FROM_NOW) {
        r->next[channel] = offset;
    }
    tell_gap(r, channel, offset);
    if (r->next[channel] != offset) {
        return -POD_E_INVALID;
    }
    tell(r, m);
    return 0;
}

static int read_message(struct reader *r, struct pod_message *m, bool first)
{
    if (first != (m->type == POD_TOMB)) {
        return -POD_E_PROTOCOL;
    }
    switch (m->type) {
    case POD_TOMB:
        tell(r, m);
        return 0;
    case POD_OUTPUT:
        return read_output(r, m);
    case POD_END:
        return read_end(r, m);
    case POD_EXIT:
        for (unsigned i = 0; i < POD_CHANNELS; i++) {
            if (!r->ended[i] || m->u.exit.end[i] != r->at[i]) {
                return -POD_E_PROTOCOL;
            }
        }
        tell(r, m);
        return 1; // The last.
    default:
        return -POD_E_PROTOCOL;
    }
}

static int read_all(struct pod_bytes bytes, struct reader r)
{
    struct pod_decoder decoder;
    struct pod_frame frame;
    struct pod_message m;
    int result = 0;
    pod_decoder_init(&decoder, POD_FRAME_MAX);
    for (bool first = true; result == 0; first = false) {
        result = pod_decoder_next(&decoder, &bytes, &frame);
        if (result == 0) {
            result = -POD_E_PROTOCOL; // The end is missing.
        } else if (result > 0) {
            result = pod_decode(&frame, &m);
            if (result == 0) {
                result = read_message(&r, &m, first);
            }
        }
    }
    pod_decoder_clear(&decoder);
    return result > 0 && bytes.size > 0 ? -POD_E_PROTOCOL : result > 0 ? 0 : result;
}

int pod_tomb_read(const uint8_t *bytes, size_t size, const uint64_t from[POD_CHANNELS],
                  pod_client_handler *handler, void *user)
{
    struct reader r = {.next = {from[0], from[1]}};
    struct pod_sha256 sha;
    uint8_t digest[POD_SHA256_SIZE];
    if (size < sizeof digest) {
        return -POD_E_PROTOCOL;
    }
    size -= sizeof digest;
    pod_sha256_begin(&sha);
    pod_sha256_add(&sha, bytes, size);
    pod_sha256_end(&sha, digest);
    if (memcmp(digest, bytes + size, sizeof digest) != 0) {
        return -POD_E_PROTOCOL;
    }
    int result = read_all((struct pod_bytes){bytes, size}, r);
    if (result == 0) {
        r.handler = handler;
        r.user = user;
        result = read_all((struct pod_bytes){bytes, size}, r);
    }
    return result;
}
