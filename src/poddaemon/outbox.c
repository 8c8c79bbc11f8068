// What a connection is sent. Answers wait in a small buffer; output waits in the ring alone, so a
// connection that does not read costs nothing but its place, and finds a gap when it reads again.
#include <stdlib.h>
#include <string.h>

#include "poddaemon/daemon.h"

// Answers that a connection does not read: somebody asks on and on.
#define ANSWERS_MAX 262144u

bool pod_out_reserve(struct pod_out *out, size_t size)
{
    if (out->size + size <= out->capacity) {
        return true;
    }
    size_t capacity = out->capacity > 0 ? out->capacity : 256;
    while (capacity < out->size + size) {
        capacity *= 2;
    }
    uint8_t *bytes = realloc(out->bytes, capacity);
    if (bytes == NULL) {
        return false;
    }
    out->bytes = bytes;
    out->capacity = capacity;
    return true;
}

static void clear(struct pod_out *out)
{
    free(out->bytes);
    *out = (struct pod_out){NULL, 0, 0};
}

void pod_conn_send(struct pod_conn *conn, const struct pod_message *message)
{
    if (conn->phase == POD_PHASE_CLOSING) {
        return;
    }
    size_t room = message->type == POD_ERROR ? 64 + message->u.error.text.size : 384;
    if (conn->out.size > ANSWERS_MAX || !pod_out_reserve(&conn->out, room)) {
        pod_fault(conn->pod, POD_FAULT_CLIENT, PM_ERR_NO_MEMORY, "answers that nobody reads");
        pod_conn_close(conn);
        return;
    }
    conn->out.size += pod_encode(message, conn->out.bytes + conn->out.size, room);
}

static void on_written(uv_write_t *write, int status)
{
    struct pod_conn *conn = write->data;
    clear(&conn->writing);
    if (conn->phase == POD_PHASE_CLOSING) {
        return;
    }
    if (status < 0) {
        pod_conn_close(conn);
        return;
    }
    pod_conn_pump(conn);
}

// The rest goes out when the other end reads. Nothing else is put behind it before that.
static void write_later(struct pod_conn *conn)
{
    conn->writing = conn->out;
    conn->out = (struct pod_out){NULL, 0, 0};
    conn->write.data = conn;
    uv_buf_t buffer = uv_buf_init((char *)conn->writing.bytes, (unsigned)conn->writing.size);
    int result = uv_write(&conn->write, (uv_stream_t *)&conn->pipe, &buffer, 1, on_written);
    if (result < 0) {
        clear(&conn->writing);
        pod_conn_close(conn);
    }
}

// What of these bytes went out at once; -1: the connection is gone.
static int64_t write_now(struct pod_conn *conn, const struct pod_bytes *parts, unsigned count)
{
    uv_buf_t buffers[2];
    for (unsigned i = 0; i < count; i++) {
        buffers[i] = uv_buf_init((char *)(uintptr_t)parts[i].data, (unsigned)parts[i].size);
    }
    int n = uv_try_write((uv_stream_t *)&conn->pipe, buffers, count);
    if (n >= 0) {
        return n;
    }
    if (n == UV_EAGAIN || n == UV_ENOSYS || n == UV_ENOTSUP) {
        return 0;
    }
    if (n == UV_ENOMEM ||
        n == UV_ENOBUFS) { // Passes: libuv goes on when the socket can be written.
        pod_fault(conn->pod, POD_FAULT_CLIENT, PM_ERR_NO_MEMORY, "write");
        return 0;
    }
    pod_conn_close(conn);
    return -1;
}

// Sends what waits. false: not all of it, or the connection is gone.
static bool flush(struct pod_conn *conn)
{
    if (conn->out.size == 0) {
        return true;
    }
    struct pod_bytes part = {conn->out.bytes, conn->out.size};
    int64_t n = write_now(conn, &part, 1);
    if (n < 0) {
        return false;
    }
    if ((size_t)n < conn->out.size) {
        memmove(conn->out.bytes, conn->out.bytes + n, conn->out.size - (size_t)n);
        conn->out.size -= (size_t)n;
        write_later(conn);
        return false;
    }
    clear(&conn->out);
    return true;
}

// Behind what waits.
static bool append_piece(struct pod_conn *conn, const struct pod_piece *piece)
{
    if (!pod_out_reserve(&conn->out, piece->head_size + piece->data.size)) {
        pod_conn_close(conn);
        return false;
    }
    memcpy(conn->out.bytes + conn->out.size, piece->head, piece->head_size);
    conn->out.size += piece->head_size;
    if (piece->data.size > 0) {
        memcpy(conn->out.bytes + conn->out.size, piece->data.data, piece->data.size);
        conn->out.size += piece->data.size;
    }
    return true;
}

// A frame is never cut: what did not go out is copied and goes first.
static bool send_piece(struct pod_conn *conn, const struct pod_piece *piece)
{
    // A gap goes out together with what is behind it: where each write takes a round of the loop,
    // as on Windows, the ring has moved on after that, and there would be one gap after the other.
    if (piece->gap > 0) {
        return append_piece(conn, piece);
    }
    if (conn->out.size > 0) {
        return append_piece(conn, piece) && flush(conn);
    }
    struct pod_bytes parts[2] = {{piece->head, piece->head_size}, piece->data};
    int64_t n = write_now(conn, parts, piece->data.size > 0 ? 2 : 1);
    if (n < 0) {
        return false;
    }
    size_t all = piece->head_size + piece->data.size, done = (size_t)n;
    if (done == all) {
        return true;
    }
    if (!pod_out_reserve(&conn->out, all - done)) {
        pod_conn_close(conn);
        return false;
    }
    for (unsigned i = 0; i < 2; i++) {
        size_t skip = done < parts[i].size ? done : parts[i].size;
        if (parts[i].size > skip) {
            memcpy(conn->out.bytes + conn->out.size, parts[i].data + skip, parts[i].size - skip);
            conn->out.size += parts[i].size - skip;
        }
        done -= skip;
    }
    write_later(conn);
    return false;
}

static bool pump_channel(struct pod_conn *conn, unsigned channel)
{
    struct pod *pod = conn->pod;
    struct pod_channel_state *state = &pod->channels[channel];
    struct pod_piece piece;
    while (pod_cursor_next(&conn->cursors[channel], &state->ring, state->ending, POD_OUTPUT_FRAME,
                           &piece)) {
        if (piece.gap > 0) {
            pod->gaps++;
            pod->gap_bytes += piece.gap;
        }
        if (!send_piece(conn, &piece)) {
            return false;
        }
    }
    return flush(conn);
}

// Of a writer that does not acknowledge, what its socket has taken counts.
static void tell_flow(struct pod_conn *conn, const uint64_t before[POD_CHANNELS])
{
    struct pod *pod = conn->pod;
    for (unsigned i = 0; i < POD_CHANNELS; i++) {
        if (pod->rules.writer == &conn->peer && !conn->acknowledges &&
            conn->cursors[i].offset != before[i]) {
            pod->given_up = false;
            pod_child_flow(pod);
            return;
        }
    }
}

static bool is_attached(const struct pod_conn *conn)
{
    return conn->peer.role != POD_ROLE_NONE;
}

// false: not all of it went out, or the connection is gone.
static bool pump_channels(struct pod_conn *conn)
{
    const uint64_t before[POD_CHANNELS] = {conn->cursors[POD_CHANNEL_OUT].offset,
                                           conn->cursors[POD_CHANNEL_ERR].offset};
    bool all = true;
    for (unsigned i = 0; i < POD_CHANNELS && all; i++) {
        all = pump_channel(conn, i);
    }
    tell_flow(conn, before);
    return all;
}

static bool wants_exit_now(const struct pod_conn *conn)
{
    if (conn->pod->state != POD_SESSION_EXITED || conn->exit_sent) {
        return false;
    }
    return is_attached(conn)
               ? conn->cursors[POD_CHANNEL_OUT].ended && conn->cursors[POD_CHANNEL_ERR].ended
               : conn->wants_exit;
}

void pod_conn_pump(struct pod_conn *conn)
{
    if (conn->phase == POD_PHASE_CLOSING || conn->writing.size > 0 || !flush(conn)) {
        return;
    }
    if (conn->close_when_sent) {
        pod_conn_close(conn);
        return;
    }
    if (is_attached(conn) && !pump_channels(conn)) {
        return;
    }
    if (wants_exit_now(conn)) {
        struct pod_message message = {.type = POD_EXIT};
        message.u.exit = conn->pod->exit;
        conn->exit_sent = true;
        pod_conn_send(conn, &message);
        if (!flush(conn)) {
            return;
        }
    }
    if (conn->pod->state == POD_SESSION_EXITED) {
        pod_session_peers_changed(conn->pod);
    }
}

void pod_conns_pump(struct pod *pod)
{
    for (struct pod_conn *conn = pod->conns, *next; conn != NULL; conn = next) {
        next = conn->next; // A connection that fails takes itself off the list.
        pod_conn_pump(conn);
    }
}

bool pod_conn_is_idle(const struct pod_conn *conn)
{
    return conn->out.size == 0 && conn->writing.size == 0 && !wants_exit_now(conn) &&
           (!is_attached(conn) || conn->exit_sent);
}
