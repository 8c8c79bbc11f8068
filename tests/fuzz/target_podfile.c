// What comes as one piece: the configuration of a session (first byte even), and the file that is
// left of one (odd), as it is and with a checksum that is right.
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "pod/config.h"
#include "pod/proof.h"
#include "pod/tomb.h"

const struct fuzz_word fuzz_words[] = {FUZZ_WORD("\1\0\4\0\0\0\1\0\0\0"),
                                       FUZZ_WORD("\3\0\1\0\0\0x"),
                                       FUZZ_WORD("\6\0\1\0\0\0/"),
                                       FUZZ_WORD("\x09\0\4\0\0\0\0\0\x10\0"),
                                       FUZZ_WORD("\0\x80\1\0\0\0x"),
                                       FUZZ_WORD("\xff\xff\xff\xff"),
                                       FUZZ_WORD("\x13\0\0\0\x12\0\0\0\0\0\0\0\0\0\0\0\0ab"),
                                       FUZZ_WORD("\x12\0\0\0\x14\0\0\0\1\0\0\0\0\0\0\0\0\0"),
                                       FUZZ_WORDS_END};

// The entries of an accepted configuration, read plainly.
static void check_entries(const uint8_t *data, size_t size, const struct pod_config *config)
{
    size_t arguments = 0, variables = 0;
    for (size_t at = 0; at < size;) {
        unsigned tag = (unsigned)(data[at] | data[at + 1] << 8);
        size_t length = (size_t)(data[at + 2] | data[at + 3] << 8 | data[at + 4] << 16);
        const char *text = NULL;
        if (tag == 4) {
            FUZZ_CHECK(config->argv != NULL);
            text = config->argv[arguments++];
        } else if (tag == 5) {
            text = config->env[variables++];
        } else if (tag == 3) {
            text = config->program;
        }
        if (tag >= 3 && tag <= 5) {
            FUZZ_CHECK(text != NULL && strlen(text) == length);
            FUZZ_CHECK(memcmp(text, data + at + 6, length) == 0);
        }
        at += 6 + length;
    }
    FUZZ_CHECK(config->env[variables] == NULL);
    FUZZ_CHECK(config->argv == NULL ? arguments == 0 : config->argv[arguments] == NULL);
}

static void try_config(const uint8_t *data, size_t size)
{
    struct pod_config config, again;
    unsigned tag;
    int result = pod_config_decode(data, size, &config, &tag);
    fuzz_note(result == 0);
    if (result != 0) {
        FUZZ_CHECK(result < 0);
        return;
    }
    FUZZ_CHECK(config.program != NULL && config.cwd != NULL && config.env != NULL);
    FUZZ_CHECK(config.mode >= POD_MODE_PTY && config.mode <= POD_MODE_PIPES);
    FUZZ_CHECK(config.columns >= 1 && config.columns <= 32767 && config.rows >= 1);
    FUZZ_CHECK(config.ring_size >= 4096 && config.err_ring_size >= 4096);
    check_entries(data, size, &config);
    uint8_t *bytes;
    size_t encoded;
    FUZZ_CHECK(pod_config_encode(&config, &bytes, &encoded) == 0);
    FUZZ_CHECK(pod_config_decode(bytes, encoded, &again, &tag) == 0);
    FUZZ_CHECK(strcmp(again.program, config.program) == 0 && strcmp(again.cwd, config.cwd) == 0);
    size_t i = 0;
    for (; config.env[i] != NULL; i++) {
        FUZZ_CHECK(again.env[i] != NULL && strcmp(config.env[i], again.env[i]) == 0);
    }
    FUZZ_CHECK(again.env[i] == NULL && again.ring_size == config.ring_size);
    free(bytes);
    pod_config_clear(&again);
    pod_config_clear(&config);
}

struct told {
    struct pod_tracker tracker;
    unsigned exits, tombs;
    bool begun[POD_CHANNELS];
};

static void tell(void *user, const struct pod_message *message)
{
    struct told *told = user;
    FUZZ_CHECK(told->exits == 0);
    told->tombs += message->type == POD_TOMB;
    told->exits += message->type == POD_EXIT;
    if (message->type == POD_OUTPUT) {
        told->begun[message->u.output.channel] = true;
    }
    // What is missing is missing at the beginning.
    FUZZ_CHECK(message->type != POD_GAP || !told->begun[message->u.gap.channel]);
    FUZZ_CHECK(pod_tracker_take(&told->tracker, message) == 0);
}

// An accepted file is frames from its begin to its end, and the last one is EXIT.
static void check_frames(const uint8_t *data, size_t size)
{
    size_t at = 0, last = 0;
    while (at < size) {
        last = at;
        at += (size_t)(data[at] | data[at + 1] << 8 | data[at + 2] << 16);
    }
    FUZZ_CHECK(at == size && data[last + 4] == POD_EXIT);
}

static void try_tomb(const uint8_t *data, size_t size, uint64_t from)
{
    struct told told = {.exits = 0};
    uint64_t offsets[POD_CHANNELS] = {from, 0};
    pod_tracker_begin(&told.tracker, offsets);
    int result = pod_tomb_read(data, size, offsets, tell, &told);
    fuzz_note(result == 0);
    if (result == 0) {
        check_frames(data, size - POD_SHA256_SIZE);
    }
    // All or nothing.
    FUZZ_CHECK(result == 0 ? told.exits == 1 && told.tombs == 1
                           : told.exits == 0 && told.tombs == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    uint8_t *exact = fuzz_copy(data + 1, size - 1);
    if (data[0] % 2 == 0) {
        try_config(exact, size - 1);
    } else {
        struct pod_sha256 sha;
        uint8_t *sealed = fuzz_alloc(size - 1 + POD_SHA256_SIZE);
        try_tomb(exact, size - 1, 0);
        memcpy(sealed, exact, size - 1);
        pod_sha256_begin(&sha);
        pod_sha256_add(&sha, exact, size - 1);
        pod_sha256_end(&sha, sealed + size - 1);
        for (uint64_t from = 0; from < 4; from++) {
            try_tomb(sealed, size - 1 + POD_SHA256_SIZE, from * (data[0] / 2));
        }
        free(sealed);
    }
    free(exact);
    return 0;
}
