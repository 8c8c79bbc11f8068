// The pod protocol on the wire: frames, their fields, and what is the same in every version.
// docs/protocol.md describes each byte. Pure code, the same on both ends.
//
// A frame is eight bytes and a payload:
//
//   0  u32  size of the whole frame, 8 to POD_FRAME_MAX
//   4  u8   type
//   5  u8   flags: POD_FLAG_CRITICAL
//   6  u16  0; a reader ignores it
//
// Numbers are little-endian. A payload may be longer than its reader knows: the rest belongs to a
// later version and is ignored. One that is shorter is an error.
#ifndef POD_WIRE_H
#define POD_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POD_HEADER_SIZE 8u
#define POD_FRAME_MAX 65536u
#define POD_PAYLOAD_MAX (POD_FRAME_MAX - POD_HEADER_SIZE)
// What a peer may send that has not proven the token yet.
#define POD_FRAME_MAX_UNPROVEN 1024u

// Whoever does not know the type has to end the connection instead of reading over the frame.
#define POD_FLAG_CRITICAL 1u

// The last byte is Ctrl-Z: with the line ends it tells text that was changed on its way.
#define POD_MAGIC "PMPOD\r\n\032"
#define POD_MAGIC_SIZE 8u
#define POD_NONCE_SIZE 16u
#define POD_PROOF_SIZE 32u
#define POD_TOKEN_SIZE 32u
#define POD_SESSION_MAX 128u
#define POD_BUILD_MAX 64u

// Versions this build speaks. Tests build daemons with others.
#ifndef POD_VERSION_MIN
#define POD_VERSION_MIN 1u
#endif
#ifndef POD_VERSION_MAX
#define POD_VERSION_MAX 1u
#endif

// Features, offered by both sides; what both have is agreed on. None is required.
#define POD_FEATURE_STDERR 1u // A second channel.
#define POD_FEATURE_CLAIM 2u  // CLAIM over the connection.
#define POD_FEATURE_ACK 4u    // The daemon wants to know what its writer has taken: ACK.
#define POD_FEATURES (POD_FEATURE_STDERR | POD_FEATURE_CLAIM | POD_FEATURE_ACK)

// Frames 1 to 15 are frozen: their numbers, and the fields below, never change, whatever the
// version that was agreed on; later versions may add fields at their ends. The bytes stand in
// tests/pod/golden_test.cpp.
#define POD_FRAME_MAP(X)                                                                           \
    X(HELLO, 1)                                                                                    \
    X(WELCOME, 2)                                                                                  \
    X(PROVE, 3)                                                                                    \
    X(STATUS, 4)                                                                                   \
    X(STATE, 5)                                                                                    \
    X(STOP, 6)                                                                                     \
    X(KILL, 7)                                                                                     \
    X(CLAIM, 8)                                                                                    \
    X(DONE, 9)                                                                                     \
    X(EXIT, 10)                                                                                    \
    X(ERROR, 11)                                                                                   \
    X(ATTACH, 16)                                                                                  \
    X(ATTACHED, 17)                                                                                \
    X(OUTPUT, 18)                                                                                  \
    X(GAP, 19)                                                                                     \
    X(END, 20)                                                                                     \
    X(INPUT, 21)                                                                                   \
    X(CREDIT, 22)                                                                                  \
    X(CLOSE_INPUT, 23)                                                                             \
    X(RESIZE, 24)                                                                                  \
    X(SIZE, 25)                                                                                    \
    X(DETACH, 26)                                                                                  \
    X(TAKEN, 27)                                                                                   \
    X(CONFIG, 28)                                                                                  \
    X(START, 29)                                                                                   \
    X(STARTED, 30)                                                                                 \
    X(TOMB, 31)                                                                                    \
    X(ACK, 32)

enum pod_frame_type {
#define POD_FRAME_ENUM(name, number) POD_##name = (number),
    POD_FRAME_MAP(POD_FRAME_ENUM)
#undef POD_FRAME_ENUM
};

// What an ERROR frame says. Results of functions here are 0 or one of these, negated.
#define POD_ERROR_MAP(X)                                                                           \
    X(PROTOCOL, 1, "the peer does not keep to the protocol")                                       \
    X(VERSION, 2, "no version of the protocol in common")                                          \
    X(AUTH, 3, "the peer cannot prove that it knows the token")                                    \
    X(SESSION, 4, "another session")                                                               \
    X(BUSY, 5, "somebody else is writing")                                                         \
    X(FENCED, 6, "a newer runner has taken over")                                                  \
    X(READ_ONLY, 7, "a viewer may only look")                                                      \
    X(OVER_CREDIT, 8, "more input than there was credit for")                                      \
    X(STATE, 9, "not in this state of the session")                                                \
    X(UNSUPPORTED, 10, "not supported here")                                                       \
    X(START, 11, "the program could not be started")                                               \
    X(GONE, 12, "the exit has been claimed already")                                               \
    X(LIMIT, 13, "too many connections")                                                           \
    X(IO, 14, "input/output error")                                                                \
    X(INVALID, 15, "a value that cannot be")                                                       \
    X(NO_MEMORY, 16, "out of memory")                                                              \
    X(CLOSED, 17, "the connection is closed")

enum pod_error_code {
    POD_OK = 0,
#define POD_ERROR_ENUM(name, number, text) POD_E_##name = (number),
    POD_ERROR_MAP(POD_ERROR_ENUM)
#undef POD_ERROR_ENUM
};

const char *pod_strerror(int code); // Of a code, negated or not. Static, never NULL.
const char *pod_frame_name(int type);

enum pod_channel {
    POD_CHANNEL_OUT = 0, // The terminal, or stdout.
    POD_CHANNEL_ERR = 1, // stderr of a session with pipes.
    POD_CHANNELS = 2
};

enum pod_role {
    POD_ROLE_NONE = 0, // Connected: may ask, stop and claim.
    POD_ROLE_VIEWER = 1,
    POD_ROLE_WRITER = 2,
    POD_ROLE_TAKEN = 3 // Was the writer; still sees, and may no longer do anything.
};

#define POD_ATTACH_TAKE_OVER 1u // The present writer, if any, loses its role.
#define POD_ATTACH_SIZE 2u      // Writer: set the terminal to columns x rows, and have it redrawn.

// Offsets to attach from. 0: all that there ever was; a gap tells what is gone.
#define POD_FROM_KEPT UINT64_MAX // What is kept, without a gap.
#define POD_FROM_NOW (UINT64_MAX - 1)

enum pod_session_state {
    POD_SESSION_WAITING = 0, // For its configuration.
    POD_SESSION_RUNNING = 1,
    POD_SESSION_ENDED = 2, // The child has; its output, or the record, is not complete yet.
    POD_SESSION_EXITED = 3 // The record is on disk.
};

enum pod_exit_kind { // As enum pm_exit_kind.
    POD_EXIT_EXITED = 1,
    POD_EXIT_SIGNALED = 2,
    POD_EXIT_LOST = 3
};

// Bytes that somebody else owns.
struct pod_bytes {
    const uint8_t *data;
    size_t size;
};

struct pod_hello {
    uint8_t magic[POD_MAGIC_SIZE];
    uint16_t version_min, version_max;
    uint32_t features;
    uint64_t epoch;
    uint8_t nonce[POD_NONCE_SIZE];
    struct pod_bytes session; // 1 to POD_SESSION_MAX.
    struct pod_bytes build;
};

struct pod_welcome {
    uint8_t magic[POD_MAGIC_SIZE];
    uint16_t version; // 0: none in common, only frozen frames from here on.
    uint16_t version_min, version_max;
    uint32_t features; // In common.
    uint64_t epoch;
    uint8_t nonce[POD_NONCE_SIZE];
    uint8_t proof[POD_PROOF_SIZE];
    uint64_t daemon_pid;
    struct pod_bytes session;
    struct pod_bytes build;
};

struct pod_prove {
    uint8_t proof[POD_PROOF_SIZE];
};

struct pod_request { // STATUS, KILL, CLAIM, CLOSE_INPUT, DETACH, START. 0: no answer wanted.
    uint32_t request;
};

struct pod_stop {
    uint32_t request;
    uint32_t grace_ms; // 0: as configured.
};

// Loops that must never end for a passing trouble, and count it.
enum pod_fault {
    POD_FAULT_ACCEPT = 0,
    POD_FAULT_CLIENT,
    POD_FAULT_CHILD,
    POD_FAULT_LOG,
    POD_FAULT_RECORD,
    POD_FAULTS
};

struct pod_state {
    uint32_t request;
    uint8_t state;  // enum pod_session_state
    uint8_t writer; // Whether there is one.
    uint16_t columns, rows;
    uint16_t clients, viewers;
    uint64_t epoch;
    uint64_t daemon_pid, child_pid;
    uint64_t started_wall_ms;
    uint64_t first[POD_CHANNELS], end[POD_CHANNELS];
    uint64_t input_taken; // Bytes that the child has been given.
    uint32_t input_queued;
    uint32_t faults[POD_FAULTS];
    uint32_t refused; // Connections: strangers, nonsense, no proof in time.
    uint64_t gaps, gap_bytes;
};

struct pod_done {
    uint32_t request;
    uint64_t detail;
};

struct pod_exit {
    uint8_t kind; // enum pod_exit_kind
    uint8_t core_dumped;
    uint8_t stop_action; // enum pm_stop_action of the stop that ended it; 0: none.
    uint8_t usage_known;
    uint32_t code, signal;
    uint64_t end[POD_CHANNELS];
    uint64_t started_wall_ms, ended_wall_ms;
    uint64_t user_us, system_us, max_rss_kib;
};

struct pod_error {
    uint32_t request; // 0: of no request.
    uint16_t code;    // enum pod_error_code
    uint8_t frame;    // Type of the frame that is meant; 0: none.
    uint8_t fatal;    // The sender closes the connection.
    uint64_t detail;  // FENCED, BUSY: the epoch; START: the PM_ERR_*, without its sign.
    struct pod_bytes text;
};

struct pod_attach {
    uint32_t request;
    uint8_t role; // VIEWER or WRITER.
    uint8_t flags;
    uint16_t columns, rows;
    uint64_t from[POD_CHANNELS];
};

struct pod_attached {
    uint32_t request;
    uint8_t role;
    uint16_t columns, rows;
    uint64_t epoch;
    uint64_t from[POD_CHANNELS]; // The first byte to come, or of the gap to come.
    uint64_t end[POD_CHANNELS];  // What there is now.
    uint64_t credit;             // As CREDIT.
};

struct pod_output {
    uint8_t channel;
    uint64_t offset;
    struct pod_bytes data;
};
#define POD_OUTPUT_HEAD (POD_HEADER_SIZE + 9u)
#define POD_OUTPUT_MAX (POD_FRAME_MAX - POD_OUTPUT_HEAD)

struct pod_gap {
    uint8_t channel;
    uint64_t from, to;
};

struct pod_end {
    uint8_t channel;
    uint8_t truncated;
    uint64_t offset;
};

struct pod_data { // INPUT, CONFIG.
    struct pod_bytes data;
};

struct pod_credit {
    uint64_t limit; // Bytes of INPUT that this connection may have sent, in all.
};

struct pod_size { // RESIZE; SIZE has request 0.
    uint32_t request;
    uint16_t columns, rows;
};

struct pod_taken {
    uint64_t epoch;
};

struct pod_started {
    uint32_t request;
    uint64_t child_pid;
};

struct pod_ack {
    uint64_t next[POD_CHANNELS]; // All before it is taken.
};

struct pod_tomb {
    uint16_t version;
    uint64_t epoch, daemon_pid;
    struct pod_bytes session;
};

struct pod_message {
    uint8_t type;
    union {
        struct pod_hello hello;
        struct pod_welcome welcome;
        struct pod_prove prove;
        struct pod_request request;
        struct pod_stop stop;
        struct pod_state state;
        struct pod_done done;
        struct pod_exit exit;
        struct pod_error error;
        struct pod_attach attach;
        struct pod_attached attached;
        struct pod_output output;
        struct pod_gap gap;
        struct pod_end end;
        struct pod_data data;
        struct pod_credit credit;
        struct pod_size size;
        struct pod_taken taken;
        struct pod_started started;
        struct pod_tomb tomb;
        struct pod_ack ack;
    } u;
};

// A frame as it came: `payload` is a view.
struct pod_frame {
    uint8_t type, flags;
    const uint8_t *payload;
    size_t size;
};

// Writes a whole frame; its size, or 0 if it does not fit into capacity or into a frame.
size_t pod_encode(const struct pod_message *message, uint8_t *buffer, size_t capacity);
// Bytes of the message are views into the payload. -POD_E_PROTOCOL: too short, or a value that its
// type cannot have. -POD_E_UNSUPPORTED: a type that this build does not know.
int pod_decode(const struct pod_frame *frame, struct pod_message *ret_message);
bool pod_is_frozen(int type);

// ------------------------------------------------------------------------------------------------
// Frames out of a stream of bytes
// ------------------------------------------------------------------------------------------------

// Holds the part of a frame that has come. Memory follows what has come, never what was announced.
struct pod_decoder {
    uint8_t *buffer;
    size_t have, capacity;
    size_t limit;  // Largest frame.
    bool handed;   // The frame in the buffer has been given out.
    bool poisoned; // After an error nothing can be found again.
};

void pod_decoder_init(struct pod_decoder *decoder, size_t limit);
void pod_decoder_clear(struct pod_decoder *decoder);
// Takes bytes from *data. 1: *ret_frame is one, valid until the next call and as long as the bytes
// given; call again for the rest. 0: all bytes taken, more are needed. -POD_E_PROTOCOL,
// -POD_E_NO_MEMORY.
int pod_decoder_next(struct pod_decoder *decoder, struct pod_bytes *data,
                     struct pod_frame *ret_frame);

#endif
