// One connection: greeting, requests, input.
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "pod/proof.h"
#include "poddaemon/daemon.h"

#define READ_SIZE 32768
#define INPUT_CLOSED "the input is closed"

// ------------------------------------------------------------------------------------------------
// Life
// ------------------------------------------------------------------------------------------------

static void on_handle_closed(uv_handle_t *handle)
{
    struct pod_conn *conn = handle->data;
    if (--conn->open_handles > 0) {
        return;
    }
    pod_decoder_clear(&conn->decoder);
    free(conn->out.bytes);
    free(conn->writing.bytes);
    free(conn);
}

// No writer, viewer or anything else any more.
static void lose_role(struct pod_conn *conn)
{
    bool was_writer = conn->pod->rules.writer == &conn->peer;
    pod_rules_leave(&conn->pod->rules, &conn->peer);
    if (was_writer) {
        pod_session_writer_changed(conn->pod);
    }
}

void pod_conn_close(struct pod_conn *conn)
{
    struct pod *pod = conn->pod;
    if (conn->phase == POD_PHASE_CLOSING) {
        return;
    }
    bool birth_failed = conn->birth && pod->state == POD_SESSION_WAITING;
    if (conn->phase != POD_PHASE_READY) {
        pod->unproven--;
    } else {
        pod_note(pod, "connection %llu ends", (unsigned long long)conn->number);
    }
    conn->phase = POD_PHASE_CLOSING;
    lose_role(conn);
    *conn->link = conn->next;
    if (conn->next != NULL) {
        conn->next->link = conn->link;
    }
    pod->conns_count--;
    pod_pipe_cancel(&conn->pipe);
    uv_close((uv_handle_t *)&conn->pipe, on_handle_closed);
    uv_close((uv_handle_t *)&conn->timer, on_handle_closed);
    if (birth_failed) { // Nobody knows of us.
        pod_session_leave(pod);
    }
    pod_session_peers_changed(pod);
}

void pod_conns_all_close(struct pod *pod)
{
    while (pod->conns != NULL) {
        pod_conn_close(pod->conns);
    }
}

static void send_error(struct pod_conn *conn, const struct pod_error *error)
{
    struct pod_message message = {.type = POD_ERROR};
    message.u.error = *error;
    pod_conn_send(conn, &message);
}

static void on_unread(uv_timer_t *timer)
{
    pod_conn_close(timer->data);
}

// Whether it reads why or not: its role is free at once, its place soon.
void pod_conn_send_away(struct pod_conn *conn)
{
    if (conn->phase == POD_PHASE_CLOSING) {
        return; // It has read nothing for long.
    }
    conn->close_when_sent = true;
    (void)uv_read_stop((uv_stream_t *)&conn->pipe);
    (void)uv_timer_start(&conn->timer, on_unread, POD_UNREAD_MS, 0);
    lose_role(conn);
    pod_conn_pump(conn);
}

void pod_conn_fail(struct pod_conn *conn, int code, int frame, const char *text)
{
    struct pod_error error = {.code = (uint16_t)code, .frame = (uint8_t)frame, .fatal = 1};
    text = text != NULL ? text : pod_strerror(code);
    error.text = (struct pod_bytes){(const uint8_t *)text, strlen(text)};
    if (conn->phase == POD_PHASE_CLOSING || conn->close_when_sent) {
        return;
    }
    conn->pod->refused++;
    pod_note(conn->pod, "connection %llu is refused: %s", (unsigned long long)conn->number, text);
    send_error(conn, &error);
    pod_conn_send_away(conn);
}

// A request that is refused; the connection goes on.
static void refuse(struct pod_conn *conn, const struct pod_message *m, int code, const char *text)
{
    struct pod_error error = {.code = (uint16_t)(code < 0 ? -code : code), .frame = m->type};
    text = text != NULL ? text : pod_strerror(code);
    error.request = m->type == POD_INPUT || m->type == POD_CONFIG ? 0 : m->u.request.request;
    error.detail = conn->pod->rules.epoch;
    error.text = (struct pod_bytes){(const uint8_t *)text, strlen(text)};
    send_error(conn, &error);
}

static void done(struct pod_conn *conn, uint32_t request)
{
    struct pod_message message = {.type = POD_DONE};
    if (request != 0) {
        message.u.done.request = request;
        pod_conn_send(conn, &message);
    }
}

// ------------------------------------------------------------------------------------------------
// Greeting
// ------------------------------------------------------------------------------------------------

static struct pod_bytes own_session(const struct pod *pod)
{
    return (struct pod_bytes){(const uint8_t *)pod->session, strlen(pod->session)};
}

static void take_hello(struct pod_conn *conn, const struct pod_hello *hello)
{
    struct pod *pod = conn->pod;
    struct pod_message message = {.type = POD_WELCOME};
    struct pod_welcome *welcome = &message.u.welcome;
    struct pod_bytes session = own_session(pod);
    if (hello->session.size != session.size ||
        memcmp(hello->session.data, session.data, session.size) != 0) {
        pod_conn_fail(conn, POD_E_SESSION, POD_HELLO, NULL);
        return;
    }
    memcpy(conn->nonce[0], hello->nonce, POD_NONCE_SIZE);
    if (uv_random(NULL, NULL, conn->nonce[1], POD_NONCE_SIZE, 0, NULL) != 0) {
        pod_conn_fail(conn, POD_E_IO, POD_HELLO, "no random numbers");
        return;
    }
    conn->version = pod_common_version(hello->version_min, hello->version_max, POD_VERSION_MIN,
                                       POD_VERSION_MAX);
    conn->peer.epoch = hello->epoch;
    memcpy(welcome->magic, POD_MAGIC, POD_MAGIC_SIZE);
    welcome->version = conn->version;
    welcome->version_min = POD_VERSION_MIN;
    welcome->version_max = POD_VERSION_MAX;
    // Not the first one, which is greeted before anything is known of the session.
    conn->acknowledges =
        (hello->features & POD_FEATURE_ACK) != 0 && pod->config.on_full == POD_FULL_WAIT;
    welcome->features = hello->features & (POD_FEATURES & ~POD_FEATURE_ACK);
    welcome->features |= conn->acknowledges ? POD_FEATURE_ACK : 0;
    welcome->epoch = pod->rules.epoch;
    memcpy(welcome->nonce, conn->nonce[1], POD_NONCE_SIZE);
    struct pod_proof_input input = {pod->token, conn->nonce[0], conn->nonce[1], session};
    pod_proof_make(&input, true, welcome->proof);
    welcome->daemon_pid = (uint64_t)uv_os_getpid();
    welcome->session = session;
    welcome->build =
        (struct pod_bytes){(const uint8_t *)PM_VERSION_STRING, sizeof PM_VERSION_STRING - 1};
    conn->phase = POD_PHASE_PROVE;
    pod_conn_send(conn, &message);
}

// Whoever comes to ask, to stop or to write gets a place, however many have come before: the one of
// least worth gives up its own, of equals the oldest.
//
//    3   the first connection, the writer, viewers (of whom no more are let in than leave places)
//    2   not attached, and waits for an answer or for the news of the end
//    1   was taken over
//    0   not attached, and waits for nothing
static unsigned worth(const struct pod_conn *conn)
{
    if (conn->phase != POD_PHASE_READY || conn->birth) {
        return 3;
    }
    if (conn->peer.role == POD_ROLE_NONE) {
        return conn->wants_exit || conn->close_request != 0 ? 2 : 0;
    }
    return conn->peer.role == POD_ROLE_TAKEN ? 1 : 3;
}

static void drop_an_idle_one(struct pod *pod)
{
    struct pod_conn *least = NULL;
    for (struct pod_conn *conn = pod->conns; conn != NULL; conn = conn->next) {
        // New ones come first.
        if (worth(conn) < 3 && (least == NULL || worth(conn) <= worth(least))) {
            least = conn;
        }
    }
    if (least != NULL) {
        pod_conn_fail(least, POD_E_LIMIT, 0, "others need its place");
        pod_conn_close(least); // Whether it reads that or not.
    }
}

static void take_proof(struct pod_conn *conn, const struct pod_prove *prove)
{
    struct pod *pod = conn->pod;
    struct pod_proof_input input = {pod->token, conn->nonce[0], conn->nonce[1], own_session(pod)};
    uint8_t expected[POD_PROOF_SIZE];
    pod_proof_make(&input, false, expected);
    if (!pod_same_secret(expected, prove->proof, sizeof expected)) {
        pod_conn_fail(conn, POD_E_AUTH, POD_PROVE, NULL);
        return;
    }
    if (pod->conns_count - pod->unproven >= POD_PROVEN_MAX) {
        drop_an_idle_one(pod);
    }
    if (conn->phase == POD_PHASE_CLOSING) {
        return; // That one was the last that the daemon was there for.
    }
    conn->phase = POD_PHASE_READY;
    conn->decoder.limit = POD_FRAME_MAX;
    pod->unproven--;
    (void)uv_timer_stop(&conn->timer);
    pod_note(pod, "connection %llu: epoch %llu, version %u", (unsigned long long)conn->number,
             (unsigned long long)conn->peer.epoch, (unsigned)conn->version);
}

// ------------------------------------------------------------------------------------------------
// Requests. Each: 0, or why it is refused.
// ------------------------------------------------------------------------------------------------

static int do_status(struct pod_conn *conn, const struct pod_message *m)
{
    struct pod *pod = conn->pod;
    struct pod_message message = {.type = POD_STATE};
    struct pod_state *state = &message.u.state;
    state->request = m->u.request.request;
    state->state = (uint8_t)pod->state;
    state->writer = pod->rules.writer != NULL;
    state->columns = pod->columns;
    state->rows = pod->rows;
    state->clients = pod->conns_count;
    state->viewers = pod->rules.viewers;
    state->epoch = pod->rules.epoch;
    state->daemon_pid = (uint64_t)uv_os_getpid();
    state->child_pid = pod->child_pid;
    state->started_wall_ms = pod->started_wall_ms;
    for (unsigned i = 0; i < POD_CHANNELS; i++) {
        state->first[i] = pod->channels[i].ring.first;
        state->end[i] = pod->channels[i].ring.end;
    }
    state->input_taken = pod->input_taken;
    state->input_queued = (uint32_t)(pod->input.end - pod->input.begin);
    memcpy(state->faults, pod->faults, sizeof state->faults);
    state->refused = pod->refused;
    state->gaps = pod->gaps;
    state->gap_bytes = pod->gap_bytes;
    pod_conn_send(conn, &message);
    return 0;
}

static int do_stop(struct pod_conn *conn, const struct pod_message *m)
{
    struct pod *pod = conn->pod;
    pod_note(pod, "connection %llu: %s", (unsigned long long)conn->number, pod_frame_name(m->type));
    conn->wants_exit = true;
    done(conn, m->u.request.request);
    if (m->type == POD_STOP) {
        pod_session_stop(pod, m->u.stop.grace_ms);
    } else {
        pod_session_kill(pod);
    }
    return 0;
}

static int do_claim(struct pod_conn *conn, const struct pod_message *m)
{
    int result = pod_session_claim(conn->pod);
    if (result == 0) {
        done(conn, m->u.request.request);
        conn->pod->claimed = true;
    }
    return result;
}

static uint64_t next_limit(const struct pod_conn *conn)
{
    return conn->received + pod_child_input_room(conn->pod);
}

static void tell_size(struct pod *pod, const struct pod_conn *but)
{
    struct pod_message message = {.type = POD_SIZE};
    message.u.size = (struct pod_size){0, pod->columns, pod->rows};
    for (struct pod_conn *conn = pod->conns, *next; conn != NULL; conn = next) {
        next = conn->next;
        if (conn != but && conn->peer.role != POD_ROLE_NONE) {
            pod_conn_send(conn, &message);
            pod_conn_pump(conn);
        }
    }
}

static int resize(struct pod_conn *conn, uint16_t columns, uint16_t rows, bool redraw)
{
    struct pod *pod = conn->pod;
    bool changed = columns != pod->columns || rows != pod->rows;
    switch (pod_child_resize(pod, columns, rows, redraw)) {
    case PM_OK:
        break;
    case PM_ERR_INVALID:
        return -POD_E_INVALID;
    case PM_ERR_UNSUPPORTED:
        return -POD_E_UNSUPPORTED;
    default:
        return -POD_E_STATE;
    }
    if (changed) {
        tell_size(pod, conn);
    }
    return 0;
}

static void tell_taken(struct pod *pod, struct pod_peer *taken)
{
    struct pod_message message = {.type = POD_TAKEN};
    message.u.taken.epoch = pod->rules.epoch;
    for (struct pod_conn *conn = pod->conns; conn != NULL; conn = conn->next) {
        if (&conn->peer == taken) {
            pod_note(pod, "connection %llu has lost its role", (unsigned long long)conn->number);
            pod_conn_send(conn, &message);
            pod_conn_pump(conn);
            return;
        }
    }
}

static int do_attach(struct pod_conn *conn, const struct pod_message *m)
{
    struct pod *pod = conn->pod;
    const struct pod_attach *attach = &m->u.attach;
    struct pod_message message = {.type = POD_ATTACHED};
    struct pod_attached *attached = &message.u.attached;
    struct pod_peer *taken;
    struct pod_cursor cursors[POD_CHANNELS];
    if (pod->state == POD_SESSION_WAITING) {
        return -POD_E_STATE;
    }
    if (attach->role == POD_ROLE_VIEWER && pod->rules.viewers >= POD_VIEWERS_MAX) {
        return -POD_E_LIMIT;
    }
    for (unsigned i = 0; i < POD_CHANNELS; i++) {
        if (pod_cursor_place(&cursors[i], &pod->channels[i].ring, (enum pod_channel)i,
                             attach->from[i]) < 0) {
            return -POD_E_INVALID;
        }
    }
    int result = pod_rules_attach(&pod->rules, &conn->peer, attach, &taken);
    if (result < 0) {
        return result;
    }
    memcpy(conn->cursors, cursors, sizeof cursors);
    for (unsigned i = 0; i < POD_CHANNELS; i++) {
        conn->acked[i] = cursors[i].offset;
    }
    conn->exit_sent = false;
    conn->limit = attach->role == POD_ROLE_WRITER ? next_limit(conn) : conn->received;
    // Before its answer, so that the answer has the size that counts.
    if (attach->role == POD_ROLE_WRITER && (attach->flags & POD_ATTACH_SIZE) != 0) {
        (void)resize(conn, attach->columns, attach->rows, true);
    }
    *attached = (struct pod_attached){.request = attach->request, .role = attach->role};
    attached->columns = pod->columns;
    attached->rows = pod->rows;
    attached->epoch = pod->rules.epoch;
    for (unsigned i = 0; i < POD_CHANNELS; i++) {
        attached->from[i] = cursors[i].offset;
        attached->end[i] = pod->channels[i].ring.end;
    }
    attached->credit = conn->limit;
    pod_note(pod, "connection %llu attaches as %s from %llu", (unsigned long long)conn->number,
             attach->role == POD_ROLE_WRITER ? "writer" : "viewer",
             (unsigned long long)cursors[0].offset);
    pod_conn_send(conn, &message);
    if (taken != NULL) {
        tell_taken(pod, taken);
    }
    if (attach->role == POD_ROLE_WRITER) {
        pod_session_writer_changed(pod);
    }
    return 0;
}

// What is more than was sent, or less than before, changes nothing.
static int do_ack(struct pod_conn *conn, const struct pod_message *m)
{
    struct pod *pod = conn->pod;
    bool more = false;
    for (unsigned i = 0; i < POD_CHANNELS; i++) {
        uint64_t next = m->u.ack.next[i];
        if (next > conn->acked[i] && next <= conn->cursors[i].offset) {
            conn->acked[i] = next;
            more = true;
        }
    }
    if (more && pod->rules.writer == &conn->peer) {
        pod->given_up = false;
        pod_child_flow(pod);
    }
    return 0;
}

static int do_detach(struct pod_conn *conn, const struct pod_message *m)
{
    lose_role(conn);
    done(conn, m->u.request.request);
    return 0;
}

static void refuse_input(struct pod_conn *conn, const struct pod_message *m)
{
    if (!conn->told_closed) { // Once is enough.
        conn->told_closed = true;
        refuse(conn, m, POD_E_STATE, INPUT_CLOSED);
    }
}

static int do_input(struct pod_conn *conn, const struct pod_message *m)
{
    struct pod *pod = conn->pod;
    struct pod_bytes data = m->u.data.data;
    if (data.size > conn->limit - conn->received) {
        pod_conn_fail(conn, POD_E_OVER_CREDIT, POD_INPUT, NULL);
        return 0;
    }
    if (pod->input.close || pod->child_ended) { // Nobody will read it.
        conn->received += data.size;
        refuse_input(conn, m);
        return 0;
    }
    if (!pod_child_take_input(pod, data)) {
        pod_conn_fail(conn, POD_E_NO_MEMORY, POD_INPUT, NULL);
        return 0;
    }
    conn->received += data.size;
    pod_child_write(pod);
    if (pod->input.lost) { // The child has closed its stdin, which only this write has found out.
        refuse_input(conn, m);
    }
    return 0;
}

// The input before the end is with the child, or with nobody.
static void answer_close(struct pod_conn *conn)
{
    struct pod_message message = {.type = POD_CLOSE_INPUT};
    message.u.request.request = conn->close_request;
    conn->close_request = 0;
    if (conn->pod->input.lost) {
        refuse(conn, &message, POD_E_STATE, INPUT_CLOSED);
    } else {
        done(conn, message.u.request.request);
    }
}

// Half of the room is told at once, the rest when it is empty: not a frame for each key.
void pod_conn_credit(struct pod_conn *conn)
{
    struct pod *pod = conn->pod;
    if (conn->close_request != 0 && !pod->sink_open) {
        answer_close(conn);
    }
    uint64_t limit = next_limit(conn);
    uint64_t left = conn->limit - conn->received;
    if (conn->peer.role != POD_ROLE_WRITER || limit <= conn->limit || left > POD_INPUT_MAX / 2) {
        return;
    }
    struct pod_message message = {.type = POD_CREDIT};
    message.u.credit.limit = conn->limit = limit;
    pod_conn_send(conn, &message);
}

static int do_close_input(struct pod_conn *conn, const struct pod_message *m)
{
    struct pod *pod = conn->pod;
    if (pod->config.mode == POD_MODE_PTY) {
        return -POD_E_UNSUPPORTED; // Type the end-of-file character.
    }
    uint32_t request = m->u.request.request;
    if (conn->close_request != 0 && request != 0) {
        return -POD_E_STATE; // One is answered when the input before it is with the child.
    }
    if (!pod->sink_open && conn->received == 0) { // Nothing of it that could have been lost.
        done(conn, request);
        return 0;
    }
    conn->close_request = request != 0 ? request : conn->close_request;
    pod_child_close_input(pod);
    pod_conn_credit(conn);
    return 0;
}

static int do_config(struct pod_conn *conn, const struct pod_message *m)
{
    struct pod_out *config = &conn->pod->config_bytes;
    struct pod_bytes data = m->u.data.data;
    if (!conn->birth || conn->pod->state != POD_SESSION_WAITING) {
        return -POD_E_STATE;
    }
    if (config->size + data.size > POD_CONFIG_MAX || !pod_out_reserve(config, data.size)) {
        pod_conn_fail(conn, POD_E_LIMIT, POD_CONFIG, "the configuration is too large");
        return 0;
    }
    if (data.size > 0) {
        memcpy(config->bytes + config->size, data.data, data.size);
        config->size += data.size;
    }
    return 0;
}

// A session that cannot be started is none: the reason goes out, and the daemon ends.
static void fail_start(struct pod_conn *conn, uint32_t request, int code, const char *text)
{
    struct pod_error error = {.request = request, .code = POD_E_START, .frame = POD_START};
    error.fatal = 1;
    error.detail = (uint64_t)(code < 0 ? -code : code);
    error.text = (struct pod_bytes){(const uint8_t *)text, strlen(text)};
    pod_note(conn->pod, "not started: %s", text);
    send_error(conn, &error);
    pod_conn_send_away(conn);
}

static int do_start(struct pod_conn *conn, const struct pod_message *m)
{
    struct pod *pod = conn->pod;
    struct pm_error error = PM_ERROR_INIT;
    uint32_t request = m->u.request.request;
    char text[1024] = "the configuration cannot be understood";
    unsigned tag = 0;
    if (!conn->birth || pod->state != POD_SESSION_WAITING) {
        return -POD_E_STATE;
    }
    int result =
        pod_config_decode(pod->config_bytes.bytes, pod->config_bytes.size, &pod->config, &tag);
    free(pod->config_bytes.bytes);
    pod->config_bytes = (struct pod_out){NULL, 0, 0};
    if (result < 0) {
        fail_start(conn, request,
                   result == -POD_E_UNSUPPORTED ? PM_ERR_UNSUPPORTED : PM_ERR_INVALID, text);
        return 0;
    }
    if (pod->config.on_full == POD_FULL_WAIT && pod->config.mode == POD_MODE_PTY &&
        !POD_CAN_PAUSE_TERMINAL) {
        fail_start(conn, request, PM_ERR_UNSUPPORTED,
                   "on_full: a terminal's output cannot be held back on this system");
        return 0;
    }
    result = pod_child_start(pod, &error);
    if (result != PM_OK) {
        if (error.code != PM_OK) {
            (void)pm_error_format(&error, text, sizeof text);
        } else {
            strcpy(text, pm_strerror(result));
        }
        fail_start(conn, request, result, text);
        return 0;
    }
    pod->rules.epoch = conn->peer.epoch;
    pod_session_started(pod);
    struct pod_message message = {.type = POD_STARTED};
    message.u.started = (struct pod_started){request, pod->child_pid};
    pod_conn_send(conn, &message);
    return 0;
}

static int do_resize(struct pod_conn *conn, const struct pod_message *m)
{
    int result = resize(conn, m->u.size.columns, m->u.size.rows, false);
    if (result == 0) {
        done(conn, m->u.size.request);
    }
    return result;
}

static int serve(struct pod_conn *conn, const struct pod_message *m)
{
    int result = pod_rules_allow(&conn->pod->rules, &conn->peer, m->type);
    if (result < 0) {
        return result;
    }
    switch (m->type) {
    case POD_STATUS:
        return do_status(conn, m);
    case POD_STOP:
    case POD_KILL:
        return do_stop(conn, m);
    case POD_CLAIM:
        return do_claim(conn, m);
    case POD_ATTACH:
        return do_attach(conn, m);
    case POD_ACK:
        return do_ack(conn, m);
    case POD_DETACH:
        return do_detach(conn, m);
    case POD_INPUT:
        return do_input(conn, m);
    case POD_CLOSE_INPUT:
        return do_close_input(conn, m);
    case POD_RESIZE:
        return do_resize(conn, m);
    case POD_CONFIG:
        return do_config(conn, m);
    case POD_START:
        return do_start(conn, m);
    default:
        return -POD_E_PROTOCOL;
    }
}

// ------------------------------------------------------------------------------------------------
// Bytes
// ------------------------------------------------------------------------------------------------

static void take_message(struct pod_conn *conn, const struct pod_message *m)
{
    if (conn->phase == POD_PHASE_HELLO && m->type == POD_HELLO) {
        take_hello(conn, &m->u.hello);
        return;
    }
    if (conn->phase == POD_PHASE_PROVE && m->type == POD_PROVE) {
        take_proof(conn, &m->u.prove);
        return;
    }
    if (conn->phase != POD_PHASE_READY) {
        pod_conn_fail(conn, POD_E_PROTOCOL, m->type, NULL);
        return;
    }
    int result = conn->version == 0 && !pod_is_frozen(m->type) ? -POD_E_VERSION : serve(conn, m);
    if (result == -POD_E_PROTOCOL) {
        pod_conn_fail(conn, POD_E_PROTOCOL, m->type, NULL);
    } else if (result < 0) {
        refuse(conn, m, result, NULL);
    }
}

static void take_frame(struct pod_conn *conn, const struct pod_frame *frame)
{
    struct pod_message message;
    int result = pod_decode(frame, &message);
    if (result == -POD_E_UNSUPPORTED && (frame->flags & POD_FLAG_CRITICAL) == 0 &&
        conn->phase == POD_PHASE_READY) {
        return; // Of a later version.
    }
    if (result < 0) {
        pod_conn_fail(conn, -result, frame->type, NULL);
    } else {
        take_message(conn, &message);
    }
}

static void take_bytes(struct pod_conn *conn, const void *data, size_t size)
{
    struct pod_bytes bytes = {data, size};
    struct pod_frame frame;
    int result = 1;
    while (conn->phase != POD_PHASE_CLOSING && !conn->close_when_sent && result > 0) {
        result = pod_decoder_next(&conn->decoder, &bytes, &frame);
        if (result > 0) {
            take_frame(conn, &frame);
        } else if (result < 0) {
            pod_conn_fail(conn, -result, 0, NULL);
        }
    }
    pod_conn_pump(conn);
}

static void give_buffer(uv_handle_t *handle, size_t size, uv_buf_t *buffer)
{
    static char bytes[READ_SIZE]; // Of all connections: it is empty between two reads.
    (void)handle;
    (void)size;
    *buffer = uv_buf_init(bytes, sizeof bytes);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct pod_conn *conn = stream->data;
    if (count > 0) {
        take_bytes(conn, buffer->base, (size_t)count);
    } else if (count == UV_ENOMEM || count == UV_ENOBUFS) { // Passes: read again.
        pod_fault(conn->pod, POD_FAULT_CLIENT, PM_ERR_NO_MEMORY, "read");
        (void)uv_read_start(stream, give_buffer, on_read);
    } else if (count < 0) {
        pod_conn_close(conn);
    }
}

void pod_conn_look(struct pod_conn *conn)
{
    uv_buf_t buffer;
    give_buffer(NULL, 0, &buffer);
    size_t size = pod_pipe_look(&conn->pipe, buffer.base, buffer.len);
    if (size > 0) {
        take_bytes(conn, buffer.base, size);
    }
}

static void on_too_late(uv_timer_t *timer)
{
    struct pod_conn *conn = timer->data;
    conn->pod->refused++;
    pod_conn_close(conn);
}

// Those that only connect and wait must not keep others out. Its proof may have come while others
// were let in.
static void drop_oldest_unproven(struct pod *pod)
{
    struct pod_conn *oldest = NULL;
    for (struct pod_conn *conn = pod->conns; conn != NULL; conn = conn->next) {
        if (conn->phase != POD_PHASE_READY && !conn->birth) {
            oldest = conn; // New ones come first.
        }
    }
    unsigned before = pod->unproven;
    if (oldest != NULL) {
        pod_conn_look(oldest);
    }
    if (oldest != NULL && pod->unproven == before) {
        pod->refused++;
        pod_conn_close(oldest);
    }
}

struct pod_conn *pod_conn_open(struct pod *pod, pm_native native, bool birth)
{
    if (pod->unproven >= POD_UNPROVEN_MAX) {
        drop_oldest_unproven(pod);
    }
    struct pod_conn *conn = pod->leaving ? NULL : calloc(1, sizeof *conn);
    if (conn == NULL) {
        pod_connection_close(native);
        return NULL;
    }
    conn->pod = pod;
    conn->birth = birth;
    conn->number = ++pod->conns_made;
    pod_decoder_init(&conn->decoder, POD_FRAME_MAX_UNPROVEN);
    (void)uv_pipe_init(&pod->loop, &conn->pipe, 0);
    (void)uv_timer_init(&pod->loop, &conn->timer);
    conn->pipe.data = conn->timer.data = conn;
    conn->open_handles = 2;
    conn->next = pod->conns;
    conn->link = &pod->conns;
    if (conn->next != NULL) {
        conn->next->link = &conn->next;
    }
    pod->conns = conn;
    pod->conns_count++;
    pod->unproven++;
    if (pod_pipe_open(&conn->pipe, native) != PM_OK) {
        pod_conn_close(conn);
        return NULL;
    }
    (void)uv_timer_start(&conn->timer, on_too_late, birth ? POD_START_MS : POD_PROVE_MS, 0);
    (void)uv_read_start((uv_stream_t *)&conn->pipe, give_buffer, on_read);
    return conn;
}
