#include "pod/wire.h"

#include <stdlib.h>
#include <string.h>

const char *pod_strerror(int code)
{
    switch (code < 0 ? -code : code) {
    case POD_OK:
        return "no error";
#define POD_ERROR_TEXT(name, number, text)                                                         \
    case number:                                                                                   \
        return text;
        POD_ERROR_MAP(POD_ERROR_TEXT)
#undef POD_ERROR_TEXT
    default:
        return "an error of a later version";
    }
}

const char *pod_frame_name(int type)
{
    switch (type) {
#define POD_FRAME_TEXT(name, number)                                                               \
    case number:                                                                                   \
        return #name;
        POD_FRAME_MAP(POD_FRAME_TEXT)
#undef POD_FRAME_TEXT
    default:
        return "?";
    }
}

bool pod_is_frozen(int type)
{
    return type >= 1 && type <= 15;
}

// ------------------------------------------------------------------------------------------------
// Fields as data
// ------------------------------------------------------------------------------------------------

enum kind {
    U8,
    U16,
    U32,
    U64,
    BLOCK,  // `size` bytes in the struct itself.
    STRING, // u8 and so many bytes.
    REST    // All that is left.
};

struct field {
    uint8_t kind;
    uint16_t offset; // In struct pod_message.
    uint16_t size;   // BLOCK: bytes; STRING: the most that is allowed.
};

#define FIELDS_MAX 25
struct layout {
    uint8_t type;
    uint8_t count;
    struct field fields[FIELDS_MAX];
};

#define AT(member) (uint16_t) offsetof(struct pod_message, u.member)
// clang-format off
#define F8(member) {U8, AT(member), 0}
#define F16(member) {U16, AT(member), 0}
#define F32(member) {U32, AT(member), 0}
#define F64(member) {U64, AT(member), 0}
#define FIX(member, size) {BLOCK, AT(member), size}
#define TXT(member, max) {STRING, AT(member), max}
#define ALL(member) {REST, AT(member), 0}
#define REQUEST(type) {type, 1, {F32(request.request)}}

static const struct layout layouts[] = {
    {POD_HELLO, 8, {FIX(hello.magic, POD_MAGIC_SIZE), F16(hello.version_min),
        F16(hello.version_max), F32(hello.features), F64(hello.epoch),
        FIX(hello.nonce, POD_NONCE_SIZE), TXT(hello.session, POD_SESSION_MAX),
        TXT(hello.build, POD_BUILD_MAX)}},
    {POD_WELCOME, 11, {FIX(welcome.magic, POD_MAGIC_SIZE), F16(welcome.version),
        F16(welcome.version_min), F16(welcome.version_max), F32(welcome.features),
        F64(welcome.epoch), FIX(welcome.nonce, POD_NONCE_SIZE), FIX(welcome.proof, POD_PROOF_SIZE),
        F64(welcome.daemon_pid), TXT(welcome.session, POD_SESSION_MAX),
        TXT(welcome.build, POD_BUILD_MAX)}},
    {POD_PROVE, 1, {FIX(prove.proof, POD_PROOF_SIZE)}},
    REQUEST(POD_STATUS),
    {POD_STATE, 25, {F32(state.request), F8(state.state), F8(state.writer), F16(state.columns),
        F16(state.rows), F16(state.clients), F16(state.viewers), F64(state.epoch),
        F64(state.daemon_pid), F64(state.child_pid), F64(state.started_wall_ms),
        F64(state.first[0]), F64(state.end[0]), F64(state.first[1]), F64(state.end[1]),
        F64(state.input_taken), F32(state.input_queued), F32(state.faults[0]),
        F32(state.faults[1]), F32(state.faults[2]), F32(state.faults[3]), F32(state.faults[4]),
        F32(state.refused), F64(state.gaps), F64(state.gap_bytes)}},
    {POD_STOP, 2, {F32(stop.request), F32(stop.grace_ms)}},
    REQUEST(POD_KILL),
    REQUEST(POD_CLAIM),
    {POD_DONE, 2, {F32(done.request), F64(done.detail)}},
    {POD_EXIT, 13, {F8(exit.kind), F8(exit.core_dumped), F8(exit.stop_action),
        F8(exit.usage_known), F32(exit.code), F32(exit.signal), F64(exit.end[0]), F64(exit.end[1]),
        F64(exit.started_wall_ms), F64(exit.ended_wall_ms), F64(exit.user_us), F64(exit.system_us),
        F64(exit.max_rss_kib)}},
    {POD_ERROR, 6, {F32(error.request), F16(error.code), F8(error.frame), F8(error.fatal),
        F64(error.detail), ALL(error.text)}},
    {POD_ATTACH, 7, {F32(attach.request), F8(attach.role), F8(attach.flags), F16(attach.columns),
        F16(attach.rows), F64(attach.from[0]), F64(attach.from[1])}},
    {POD_ATTACHED, 10, {F32(attached.request), F8(attached.role), F16(attached.columns),
        F16(attached.rows), F64(attached.epoch), F64(attached.from[0]), F64(attached.end[0]),
        F64(attached.from[1]), F64(attached.end[1]), F64(attached.credit)}},
    {POD_OUTPUT, 3, {F8(output.channel), F64(output.offset), ALL(output.data)}},
    {POD_GAP, 3, {F8(gap.channel), F64(gap.from), F64(gap.to)}},
    {POD_END, 3, {F8(end.channel), F8(end.truncated), F64(end.offset)}},
    {POD_INPUT, 1, {ALL(data.data)}},
    {POD_CREDIT, 1, {F64(credit.limit)}},
    REQUEST(POD_CLOSE_INPUT),
    {POD_RESIZE, 3, {F32(size.request), F16(size.columns), F16(size.rows)}},
    {POD_SIZE, 3, {F32(size.request), F16(size.columns), F16(size.rows)}},
    REQUEST(POD_DETACH),
    {POD_TAKEN, 1, {F64(taken.epoch)}},
    {POD_CONFIG, 1, {ALL(data.data)}},
    REQUEST(POD_START),
    {POD_STARTED, 2, {F32(started.request), F64(started.child_pid)}},
    {POD_TOMB, 4, {F16(tomb.version), F64(tomb.epoch), F64(tomb.daemon_pid),
        TXT(tomb.session, POD_SESSION_MAX)}},
    {POD_ACK, 2, {F64(ack.next[0]), F64(ack.next[1])}},
};
// clang-format on

static const struct layout *find_layout(int type)
{
    for (size_t i = 0; i < sizeof layouts / sizeof layouts[0]; i++) {
        if (layouts[i].type == type) {
            return &layouts[i];
        }
    }
    return NULL;
}

static size_t width_of(uint8_t kind)
{
    return kind <= U64 ? (size_t)1 << kind : 0;
}

static void put_number(uint8_t *to, uint64_t value, size_t width)
{
    for (size_t i = 0; i < width; i++) {
        to[i] = (uint8_t)(value >> (8 * i));
    }
}

static uint64_t get_number(const uint8_t *from, size_t width)
{
    uint64_t value = 0;
    for (size_t i = 0; i < width; i++) {
        value |= (uint64_t)from[i] << (8 * i);
    }
    return value;
}

static uint64_t load_number(const void *member, uint8_t kind)
{
    switch (kind) {
    case U8:
        return *(const uint8_t *)member;
    case U16:
        return *(const uint16_t *)member;
    case U32:
        return *(const uint32_t *)member;
    default:
        return *(const uint64_t *)member;
    }
}

static void store_number(void *member, uint8_t kind, uint64_t value)
{
    switch (kind) {
    case U8:
        *(uint8_t *)member = (uint8_t)value;
        break;
    case U16:
        *(uint16_t *)member = (uint16_t)value;
        break;
    case U32:
        *(uint32_t *)member = (uint32_t)value;
        break;
    default:
        *(uint64_t *)member = value;
        break;
    }
}

// ------------------------------------------------------------------------------------------------
// Encoding
// ------------------------------------------------------------------------------------------------

// Bytes that the field takes, or SIZE_MAX if its value cannot be written.
static size_t encoded_size(const struct pod_message *message, const struct field *field)
{
    const struct pod_bytes *bytes = (const void *)((const char *)message + field->offset);
    switch (field->kind) {
    case BLOCK:
        return field->size;
    case STRING:
        return bytes->size <= field->size ? 1 + bytes->size : SIZE_MAX;
    case REST:
        return bytes->size <= POD_PAYLOAD_MAX ? bytes->size : SIZE_MAX;
    default:
        return width_of(field->kind);
    }
}

static uint8_t *encode_field(const struct pod_message *message, const struct field *field,
                             uint8_t *to)
{
    const void *member = (const char *)message + field->offset;
    const struct pod_bytes *bytes = member;
    size_t width = width_of(field->kind);
    if (width > 0) {
        put_number(to, load_number(member, field->kind), width);
        return to + width;
    }
    if (field->kind == BLOCK) {
        memcpy(to, member, field->size);
        return to + field->size;
    }
    if (field->kind == STRING) {
        *to++ = (uint8_t)bytes->size;
    }
    if (bytes->size > 0) {
        memcpy(to, bytes->data, bytes->size);
    }
    return to + bytes->size;
}

size_t pod_encode(const struct pod_message *message, uint8_t *buffer, size_t capacity)
{
    const struct layout *layout = find_layout(message->type);
    size_t size = POD_HEADER_SIZE;
    if (layout == NULL) {
        return 0;
    }
    for (size_t i = 0; i < layout->count; i++) {
        size_t more = encoded_size(message, &layout->fields[i]);
        if (more == SIZE_MAX) {
            return 0;
        }
        size += more;
    }
    if (size > capacity || size > POD_FRAME_MAX) {
        return 0;
    }
    memset(buffer, 0, POD_HEADER_SIZE);
    put_number(buffer, size, 4);
    buffer[4] = message->type;
    uint8_t *at = buffer + POD_HEADER_SIZE;
    for (size_t i = 0; i < layout->count; i++) {
        at = encode_field(message, &layout->fields[i], at);
    }
    return size;
}

// ------------------------------------------------------------------------------------------------
// Decoding
// ------------------------------------------------------------------------------------------------

static int decode_field(struct pod_message *message, const struct field *field, const uint8_t **at,
                        const uint8_t *end)
{
    void *member = (char *)message + field->offset;
    struct pod_bytes *bytes = member;
    size_t left = (size_t)(end - *at), width = width_of(field->kind);
    switch (field->kind) {
    case BLOCK:
        if (left < field->size) {
            return -POD_E_PROTOCOL;
        }
        memcpy(member, *at, field->size);
        *at += field->size;
        return 0;
    case STRING:
        if (left < 1 || **at > left - 1 || **at > field->size) {
            return -POD_E_PROTOCOL;
        }
        *bytes = (struct pod_bytes){*at + 1, **at};
        *at += 1 + bytes->size;
        return 0;
    case REST:
        *bytes = (struct pod_bytes){*at, left};
        *at = end;
        return 0;
    default:
        if (left < width) {
            return -POD_E_PROTOCOL;
        }
        store_number(member, field->kind, get_number(*at, width));
        *at += width;
        return 0;
    }
}

// What no version allows. Whether the time is right for it is up to the state machines.
static bool is_sane(const struct pod_message *m)
{
    switch (m->type) {
    case POD_HELLO:
        return memcmp(m->u.hello.magic, POD_MAGIC, POD_MAGIC_SIZE) == 0 &&
               m->u.hello.version_min <= m->u.hello.version_max && m->u.hello.version_min > 0 &&
               m->u.hello.session.size > 0;
    case POD_WELCOME:
        return memcmp(m->u.welcome.magic, POD_MAGIC, POD_MAGIC_SIZE) == 0;
    case POD_EXIT:
        return m->u.exit.kind >= POD_EXIT_EXITED && m->u.exit.kind <= POD_EXIT_LOST;
    case POD_ATTACH:
        return m->u.attach.role == POD_ROLE_VIEWER || m->u.attach.role == POD_ROLE_WRITER;
    case POD_OUTPUT: // The two largest offsets have meanings of their own.
        return m->u.output.channel < POD_CHANNELS && m->u.output.data.size > 0 &&
               m->u.output.offset <= UINT64_MAX - 2 - m->u.output.data.size;
    case POD_GAP:
        return m->u.gap.channel < POD_CHANNELS && m->u.gap.from < m->u.gap.to &&
               m->u.gap.to < POD_FROM_NOW;
    case POD_END:
        return m->u.end.channel < POD_CHANNELS;
    default:
        return true;
    }
}

int pod_decode(const struct pod_frame *frame, struct pod_message *ret_message)
{
    const struct layout *layout = find_layout(frame->type);
    struct pod_message message;
    const uint8_t *at = frame->payload, *end = at + frame->size;
    if (layout == NULL) {
        return -POD_E_UNSUPPORTED;
    }
    memset(&message, 0, sizeof message);
    message.type = frame->type;
    for (size_t i = 0; i < layout->count; i++) {
        int result = decode_field(&message, &layout->fields[i], &at, end);
        if (result < 0) {
            return result;
        }
    }
    if (!is_sane(&message)) {
        return -POD_E_PROTOCOL;
    }
    *ret_message = message;
    return 0;
}

// ------------------------------------------------------------------------------------------------
// Frames out of a stream
// ------------------------------------------------------------------------------------------------

void pod_decoder_init(struct pod_decoder *decoder, size_t limit)
{
    *decoder = (struct pod_decoder){.limit = limit};
}

void pod_decoder_clear(struct pod_decoder *decoder)
{
    free(decoder->buffer);
    *decoder = (struct pod_decoder){.limit = decoder->limit};
}

// Size of the frame that begins here, or 0 if it cannot be one.
static size_t frame_size(const struct pod_decoder *decoder, const uint8_t *header)
{
    uint64_t size = get_number(header, 4);
    return size >= POD_HEADER_SIZE && size <= decoder->limit ? (size_t)size : 0;
}

static bool keep(struct pod_decoder *decoder, struct pod_bytes *data, size_t size)
{
    if (decoder->have + size > decoder->capacity) {
        size_t capacity = decoder->capacity > 0 ? decoder->capacity : 64;
        while (capacity < decoder->have + size) {
            capacity *= 2;
        }
        uint8_t *buffer = realloc(decoder->buffer, capacity);
        if (buffer == NULL) {
            return false;
        }
        decoder->buffer = buffer;
        decoder->capacity = capacity;
    }
    memcpy(decoder->buffer + decoder->have, data->data, size);
    decoder->have += size;
    data->data += size;
    data->size -= size;
    return true;
}

static int give(const uint8_t *bytes, size_t size, struct pod_frame *ret_frame)
{
    *ret_frame =
        (struct pod_frame){bytes[4], bytes[5], bytes + POD_HEADER_SIZE, size - POD_HEADER_SIZE};
    return 1;
}

static int fail(struct pod_decoder *decoder, int code)
{
    decoder->poisoned = true;
    return -code;
}

int pod_decoder_next(struct pod_decoder *decoder, struct pod_bytes *data,
                     struct pod_frame *ret_frame)
{
    size_t size;
    if (decoder->poisoned) {
        return -POD_E_PROTOCOL;
    }
    if (decoder->handed) { // An idle connection holds no memory.
        pod_decoder_clear(decoder);
    }
    // A frame that is here as a whole is not copied.
    if (decoder->have == 0 && data->size >= POD_HEADER_SIZE) {
        size = frame_size(decoder, data->data);
        if (size == 0) {
            return fail(decoder, POD_E_PROTOCOL);
        }
        if (size <= data->size) {
            const uint8_t *bytes = data->data;
            data->data += size;
            data->size -= size;
            return give(bytes, size, ret_frame);
        }
    }
    while (data->size > 0) {
        size = decoder->have < POD_HEADER_SIZE ? POD_HEADER_SIZE
                                               : frame_size(decoder, decoder->buffer);
        if (size == 0) {
            return fail(decoder, POD_E_PROTOCOL);
        }
        size_t wanted = size - decoder->have;
        if (!keep(decoder, data, wanted < data->size ? wanted : data->size)) {
            return fail(decoder, POD_E_NO_MEMORY);
        }
        if (decoder->have < POD_HEADER_SIZE) {
            break;
        }
        size = frame_size(decoder, decoder->buffer);
        if (size == 0) {
            return fail(decoder, POD_E_PROTOCOL);
        }
        if (size == decoder->have) {
            decoder->handed = true;
            return give(decoder->buffer, size, ret_frame);
        }
    }
    return 0;
}
