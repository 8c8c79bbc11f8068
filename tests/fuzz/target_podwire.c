// Frames of the pod protocol. An input is a byte that chooses how it is cut into pieces, then a
// stream of bytes. However it is cut, the same frames come out; each is refused, or is what
// encoding makes again of what was decoded.
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "pod/client.h"
#include "pod/proof.h"
#include "pod/wire.h"

#define FRAMES_MAX 64

const struct fuzz_word fuzz_words[] = {FUZZ_WORD("\x0c\0\0\0\x04\0\0\0"),
                                       FUZZ_WORD("\x08\0\0\0\x15\0\0\0"),
                                       FUZZ_WORD("\xff\xff\xff\xff"),
                                       FUZZ_WORD("\0\0\1\0"),
                                       FUZZ_WORD("\1\0\1\0"),
                                       FUZZ_WORD("\x07\0\0\0"),
                                       FUZZ_WORD("PMPOD\r\n\x1a"),
                                       FUZZ_WORD("\x80"),
                                       FUZZ_WORDS_END};

struct seen {
    uint8_t types[FRAMES_MAX];
    size_t sizes[FRAMES_MAX];
    uint32_t sums[FRAMES_MAX];
    size_t count;
    int result;
};

// What was decoded, encoded again: the known part of the frame.
static void check_frame(const struct pod_frame *frame)
{
    struct pod_message message, again;
    memset(&message, 0x5a, sizeof message);
    int result = pod_decode(frame, &message);
    fuzz_note(result == 0);
    if (result != 0) {
        FUZZ_CHECK(result == -POD_E_PROTOCOL || result == -POD_E_UNSUPPORTED);
        return;
    }
    uint8_t *bytes = fuzz_alloc(POD_FRAME_MAX);
    size_t size = pod_encode(&message, bytes, POD_FRAME_MAX);
    FUZZ_CHECK(size >= POD_HEADER_SIZE && size <= frame->size + POD_HEADER_SIZE);
    FUZZ_CHECK(memcmp(bytes + POD_HEADER_SIZE, frame->payload, size - POD_HEADER_SIZE) == 0);
    // In a buffer of exactly its size it fits; in one less it does not.
    uint8_t *exact = fuzz_alloc(size);
    FUZZ_CHECK(pod_encode(&message, exact, size) == size && memcmp(exact, bytes, size) == 0);
    FUZZ_CHECK(pod_encode(&message, exact, size - 1) == 0);
    struct pod_frame known = {exact[4], exact[5], exact + POD_HEADER_SIZE, size - POD_HEADER_SIZE};
    FUZZ_CHECK(pod_decode(&known, &again) == 0 && again.type == message.type);
    free(exact);
    free(bytes);
}

static void read_stream(const uint8_t *data, size_t size, size_t piece, bool check,
                        struct seen *ret_seen)
{
    struct pod_decoder decoder;
    struct seen seen = {.count = 0};
    pod_decoder_init(&decoder, POD_FRAME_MAX);
    for (size_t at = 0; at < size && seen.result == 0; at += piece) {
        size_t some = piece < size - at ? piece : size - at;
        uint8_t *exact = fuzz_copy(data + at, some);
        struct pod_bytes bytes = {exact, some};
        struct pod_frame frame;
        int result;
        while ((result = pod_decoder_next(&decoder, &bytes, &frame)) > 0) {
            uint32_t sum = 0;
            for (size_t i = 0; i < frame.size; i++) {
                sum = sum * 31 + frame.payload[i];
            }
            if (seen.count < FRAMES_MAX) {
                seen.types[seen.count] = frame.type;
                seen.sizes[seen.count] = frame.size;
                seen.sums[seen.count++] = sum;
            }
            if (check) {
                check_frame(&frame);
            }
        }
        // Memory for what has come, and not for what was announced.
        FUZZ_CHECK(decoder.capacity <= 2 * size + 64);
        seen.result = result;
        free(exact);
    }
    pod_decoder_clear(&decoder);
    *ret_seen = seen;
}

static void ignore(void *user, const struct pod_message *message)
{
    (void)user;
    (void)message;
}

// A daemon that says anything at all does a client no harm.
static void feed_client(const uint8_t *data, size_t size, bool proven)
{
    static const uint8_t token[POD_TOKEN_SIZE] = {1}, nonce[POD_NONCE_SIZE] = {2};
    struct pod_client_options options = {.session = "s", .token = token, .nonce = nonce};
    struct pod_client client;
    options.handler = ignore;
    FUZZ_CHECK(pod_client_init(&client, &options) == 0);
    if (proven) {
        client.phase = POD_CLIENT_READY;
        client.version = 1;
    }
    int result = pod_client_feed(&client, data, size);
    FUZZ_CHECK((result < 0) == (client.phase == POD_CLIENT_OVER));
    FUZZ_CHECK(client.sent <= client.credit);
    pod_client_clear(&client);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen whole, cut;
    if (size < 1) {
        return 0;
    }
    size_t piece = data[0] == 0 ? 1 : data[0];
    uint8_t *exact = fuzz_copy(data + 1, size - 1);
    read_stream(exact, size - 1, size, true, &whole);
    read_stream(exact, size - 1, piece, false, &cut);
    FUZZ_CHECK(whole.count == cut.count && whole.result == cut.result);
    FUZZ_CHECK(memcmp(whole.types, cut.types, whole.count) == 0);
    FUZZ_CHECK(memcmp(whole.sizes, cut.sizes, whole.count * sizeof cut.sizes[0]) == 0);
    FUZZ_CHECK(memcmp(whole.sums, cut.sums, whole.count * sizeof cut.sums[0]) == 0);
    feed_client(exact, size - 1, false);
    feed_client(exact, size - 1, true);
    free(exact);
    return 0;
}
