#include "pod/client.h"

#include <stdlib.h>
#include <string.h>

#include "pod/proof.h"

// ------------------------------------------------------------------------------------------------
// Out
// ------------------------------------------------------------------------------------------------

static bool reserve(struct pod_client *c, size_t size)
{
    if (c->out.begin == c->out.end) {
        c->out.begin = c->out.end = 0;
    }
    if (c->out.end + size <= c->out.capacity) {
        return true;
    }
    if (c->out.begin > 0) {
        memmove(c->out.bytes, c->out.bytes + c->out.begin, c->out.end - c->out.begin);
        c->out.end -= c->out.begin;
        c->out.begin = 0;
    }
    size_t capacity = c->out.capacity > 0 ? c->out.capacity : 512;
    while (capacity < c->out.end + size) {
        capacity *= 2;
    }
    uint8_t *bytes = realloc(c->out.bytes, capacity);
    if (bytes == NULL) {
        return false;
    }
    c->out.bytes = bytes;
    c->out.capacity = capacity;
    return true;
}

static int send_message(struct pod_client *c, const struct pod_message *message, size_t room)
{
    if (!reserve(c, room)) {
        return -POD_E_NO_MEMORY;
    }
    size_t size = pod_encode(message, c->out.bytes + c->out.end, room);
    c->out.end += size;
    return size > 0 ? 0 : -POD_E_INVALID;
}

struct pod_bytes pod_client_pending(const struct pod_client *c)
{
    if (c->out.bytes == NULL) { // To which nothing can be added, not even 0.
        return (struct pod_bytes){NULL, 0};
    }
    return (struct pod_bytes){c->out.bytes + c->out.begin, c->out.end - c->out.begin};
}

void pod_client_sent(struct pod_client *c, size_t size)
{
    c->out.begin += size;
    if (c->out.begin == c->out.end) {
        c->out.begin = c->out.end = 0;
        if (c->out.capacity > POD_FRAME_MAX / 4) { // An idle client holds little memory.
            free(c->out.bytes);
            c->out.bytes = NULL;
            c->out.capacity = 0;
        }
    }
}

// ------------------------------------------------------------------------------------------------
// Life
// ------------------------------------------------------------------------------------------------

int pod_client_init(struct pod_client *c, const struct pod_client_options *options)
{
    size_t length = strlen(options->session);
    size_t build_length = options->build != NULL ? strlen(options->build) : 0;
    struct pod_message m = {.type = POD_HELLO};
    struct pod_hello *hello = &m.u.hello;
    if (length == 0 || length > POD_SESSION_MAX) {
        return -POD_E_INVALID;
    }
    *c = (struct pod_client){.handler = options->handler, .user = options->user};
    c->next_request = 1;
    memcpy(c->session, options->session, length + 1);
    memcpy(c->token, options->token, sizeof c->token);
    memcpy(c->nonce, options->nonce, sizeof c->nonce);
    pod_decoder_init(&c->decoder, POD_FRAME_MAX);
    memcpy(hello->magic, POD_MAGIC, POD_MAGIC_SIZE);
    hello->version_min = options->version_min != 0 ? options->version_min : POD_VERSION_MIN;
    hello->version_max = options->version_max != 0 ? options->version_max : POD_VERSION_MAX;
    hello->features = options->features != 0 ? options->features : POD_FEATURES;
    hello->epoch = options->epoch;
    memcpy(hello->nonce, c->nonce, sizeof hello->nonce);
    hello->session = (struct pod_bytes){(const uint8_t *)c->session, length};
    hello->build = (struct pod_bytes){(const uint8_t *)options->build,
                                      build_length < POD_BUILD_MAX ? build_length : POD_BUILD_MAX};
    c->phase = POD_CLIENT_GREETING;
    return send_message(c, &m, POD_FRAME_MAX_UNPROVEN);
}

void pod_client_clear(struct pod_client *c)
{
    pod_decoder_clear(&c->decoder);
    free(c->out.bytes);
    *c = (struct pod_client){.phase = POD_CLIENT_IDLE};
}

static int over(struct pod_client *c, int failure)
{
    if (c->phase != POD_CLIENT_OVER) {
        c->phase = POD_CLIENT_OVER;
        c->failure = failure;
    }
    return c->failure;
}

void pod_client_end(struct pod_client *c)
{
    (void)over(c, -POD_E_CLOSED);
}

// ------------------------------------------------------------------------------------------------
// In
// ------------------------------------------------------------------------------------------------

// The daemon proves first: a stranger in its place learns nothing.
static int take_welcome(struct pod_client *c, const struct pod_welcome *welcome)
{
    struct pod_message m = {.type = POD_PROVE};
    struct pod_proof_input input = {c->token,
                                    c->nonce,
                                    welcome->nonce,
                                    {(const uint8_t *)c->session, strlen(c->session)}};
    uint8_t expected[POD_PROOF_SIZE];
    if (welcome->session.size != input.session.size ||
        memcmp(welcome->session.data, c->session, input.session.size) != 0) {
        return -POD_E_SESSION;
    }
    pod_proof_make(&input, true, expected);
    if (!pod_same_secret(expected, welcome->proof, sizeof expected)) {
        return -POD_E_AUTH;
    }
    pod_proof_make(&input, false, m.u.prove.proof);
    c->version = welcome->version;
    c->features = welcome->features;
    c->phase = POD_CLIENT_READY;
    return send_message(c, &m, 64);
}

// What the state of this end has to say about a message, before the handler sees it.
static int take(struct pod_client *c, const struct pod_message *m)
{
    if (c->phase == POD_CLIENT_GREETING) {
        return m->type == POD_WELCOME ? take_welcome(c, &m->u.welcome)
               : m->type == POD_ERROR ? 0
                                      : -POD_E_PROTOCOL;
    }
    switch (m->type) {
    case POD_ATTACHED:
        if (m->u.attached.credit < c->sent) {
            return -POD_E_PROTOCOL;
        }
        c->attached = true;
        c->writes = m->u.attached.role == POD_ROLE_WRITER;
        memcpy(c->acked, m->u.attached.from, sizeof c->acked);
        c->credit = m->u.attached.credit;
        pod_tracker_begin(&c->tracker, m->u.attached.from);
        return 0;
    case POD_CREDIT:
        if (m->u.credit.limit < c->credit) {
            return -POD_E_PROTOCOL;
        }
        c->credit = m->u.credit.limit;
        return 0;
    case POD_OUTPUT:
    case POD_GAP:
    case POD_END:
        return c->attached ? pod_tracker_take(&c->tracker, m) : -POD_E_PROTOCOL;
    case POD_TAKEN:
        c->writes = false;
        return 0;
    case POD_EXIT:
        return c->attached ? pod_tracker_take(&c->tracker, m) : 0;
    case POD_STATE:
    case POD_DONE:
    case POD_ERROR:
    case POD_SIZE:
    case POD_STARTED:
        return 0;
    default:
        return -POD_E_PROTOCOL;
    }
}

static int take_frame(struct pod_client *c, const struct pod_frame *frame)
{
    struct pod_message m;
    int result = pod_decode(frame, &m);
    if (result == -POD_E_UNSUPPORTED && (frame->flags & POD_FLAG_CRITICAL) == 0) {
        return 0; // Of a later version.
    }
    if (result == 0) {
        result = take(c, &m);
    }
    if (result < 0) {
        return result;
    }
    c->handler(c->user, &m);
    if (m.type == POD_ERROR && m.u.error.fatal) {
        return m.u.error.code > 0 ? -(int)m.u.error.code : -POD_E_CLOSED;
    }
    return 0;
}

// All that was fed has gone through the handler: it is taken.
static int acknowledge(struct pod_client *c)
{
    struct pod_message m = {.type = POD_ACK};
    if (!c->writes || (c->features & POD_FEATURE_ACK) == 0 || c->version == 0 ||
        memcmp(c->acked, c->tracker.next, sizeof c->acked) == 0) {
        return 0;
    }
    memcpy(m.u.ack.next, c->tracker.next, sizeof m.u.ack.next);
    memcpy(c->acked, c->tracker.next, sizeof c->acked);
    return send_message(c, &m, 64);
}

int pod_client_feed(struct pod_client *c, const void *data, size_t size)
{
    struct pod_bytes bytes = {data, size};
    struct pod_frame frame;
    while (c->phase == POD_CLIENT_GREETING || c->phase == POD_CLIENT_READY) {
        int result = pod_decoder_next(&c->decoder, &bytes, &frame);
        if (result == 0) {
            result = acknowledge(c);
            return result < 0 ? over(c, result) : 0;
        }
        if (result > 0) {
            result = take_frame(c, &frame);
        }
        if (result < 0) {
            return over(c, result);
        }
    }
    return c->failure;
}

// ------------------------------------------------------------------------------------------------
// Requests
// ------------------------------------------------------------------------------------------------

static int ready_for(const struct pod_client *c, int type)
{
    if (c->phase != POD_CLIENT_READY) {
        return -POD_E_STATE;
    }
    return c->version == 0 && !pod_is_frozen(type) ? -POD_E_VERSION : 0;
}

// The number stands first in every request.
static int64_t request(struct pod_client *c, struct pod_message *m)
{
    int result = ready_for(c, m->type);
    if (result < 0) {
        return result;
    }
    uint32_t number = c->next_request;
    m->u.request.request = number;
    result = send_message(c, m, 128);
    if (result < 0) {
        return result;
    }
    c->next_request = number == UINT32_MAX ? 1 : number + 1;
    return number;
}

static int64_t plain_request(struct pod_client *c, enum pod_frame_type type)
{
    struct pod_message m = {.type = (uint8_t)type};
    return request(c, &m);
}

int64_t pod_client_status(struct pod_client *c)
{
    return plain_request(c, POD_STATUS);
}

int64_t pod_client_stop(struct pod_client *c, uint32_t grace_ms)
{
    struct pod_message m = {.type = POD_STOP};
    m.u.stop.grace_ms = grace_ms;
    return request(c, &m);
}

int64_t pod_client_kill(struct pod_client *c)
{
    return plain_request(c, POD_KILL);
}

int64_t pod_client_claim(struct pod_client *c)
{
    return plain_request(c, POD_CLAIM);
}

int64_t pod_client_attach(struct pod_client *c, const struct pod_attach *attach)
{
    struct pod_message m = {.type = POD_ATTACH};
    m.u.attach = *attach;
    return request(c, &m);
}

int64_t pod_client_detach(struct pod_client *c)
{
    return plain_request(c, POD_DETACH);
}

int64_t pod_client_resize(struct pod_client *c, uint16_t columns, uint16_t rows)
{
    struct pod_message m = {.type = POD_RESIZE};
    m.u.size = (struct pod_size){0, columns, rows};
    return request(c, &m);
}

int64_t pod_client_close_input(struct pod_client *c)
{
    return plain_request(c, POD_CLOSE_INPUT);
}

// In frames that are never too large.
static int send_data(struct pod_client *c, enum pod_frame_type type, const uint8_t *data,
                     size_t size)
{
    struct pod_message m = {.type = (uint8_t)type};
    int result = 0;
    for (size_t at = 0; at < size && result == 0; at += m.u.data.data.size) {
        size_t some = size - at < POD_PAYLOAD_MAX ? size - at : POD_PAYLOAD_MAX;
        m.u.data.data = (struct pod_bytes){data + at, some};
        result = send_message(c, &m, POD_HEADER_SIZE + some);
    }
    return result;
}

int64_t pod_client_start(struct pod_client *c, const struct pod_config *config)
{
    uint8_t *bytes;
    size_t size;
    int result = ready_for(c, POD_START);
    if (result == 0) {
        result = pod_config_encode(config, &bytes, &size);
    }
    if (result < 0) {
        return result;
    }
    result = send_data(c, POD_CONFIG, bytes, size);
    free(bytes);
    return result < 0 ? result : plain_request(c, POD_START);
}

int64_t pod_client_input(struct pod_client *c, const void *data, size_t size)
{
    int result = ready_for(c, POD_INPUT);
    if (result < 0) {
        return result;
    }
    uint64_t left = c->credit - c->sent;
    size = size < left ? size : (size_t)left;
    result = send_data(c, POD_INPUT, data, size);
    if (result < 0) {
        return result;
    }
    c->sent += size;
    return (int64_t)size;
}
