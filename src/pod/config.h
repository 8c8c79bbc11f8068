// What a session shall be, as it travels in CONFIG frames: it holds the environment of the child,
// so it stands on no disk and no command line.
//
// A list of entries {u16 tag, u32 size, bytes}. Tags from 0x8000 on may be read over; another that
// a daemon does not know makes it refuse the session.
#ifndef POD_CONFIG_H
#define POD_CONFIG_H

#include "pod/wire.h"

#define POD_CONFIG_MAX (4u * 1024u * 1024u)

// What becomes of output when the ring is full.
enum pod_full {
    POD_FULL_DROP = 0, // The oldest goes.
    POD_FULL_WAIT = 1  // The child waits for the writer, if there is one.
};

enum pod_mode {
    POD_MODE_PTY = 1,
    POD_MODE_PIPES = 2
};

struct pod_config {
    uint32_t mode;           // enum pod_mode
    const char *owner;       // As pm_spec::owner; NULL: "pod".
    const char *program;     // Required.
    const char *const *argv; // NULL-terminated; NULL: { program }.
    const char *const *env;  // All of the child's environment, NULL-terminated "NAME=value".
    const char *cwd;         // Absolute; required.
    uint32_t columns, rows;  // 0: 80 x 24.
    uint32_t ring_size;      // 0: POD_RING_DEFAULT. POD_RING_MIN to POD_RING_MAX.
    uint32_t err_ring_size;  // The same for stderr of a session with pipes; 0: 64 KiB.
    uint32_t grace_ms;       // From terminate to kill; 0: 5000.
    uint32_t drain_ms;       // Silence after the exit that ends the output; 0: 250.
    uint32_t orphan_s;       // Without a writer for so long: stop. 0: never.
    uint32_t kill_tree;      // 1: what the child leaves behind when it exits is killed.
    uint32_t on_full;        // enum pod_full
    uint32_t batch;          // 1: the program may be a .cmd or .bat file (Windows).
    uint32_t wait_s;         // A writer that takes nothing for so long is not waited for; 0: 60.
    void *memory;            // Of a decoded one.
};

// *ret_bytes is malloc'd. -POD_E_INVALID, -POD_E_NO_MEMORY.
int pod_config_encode(const struct pod_config *config, uint8_t **ret_bytes, size_t *ret_size);
// Values are checked, defaults filled in. Clear with pod_config_clear(). On a refusal *ret_tag is
// the tag that is meant, 0 for none. -POD_E_PROTOCOL, -POD_E_UNSUPPORTED, -POD_E_INVALID,
// -POD_E_NO_MEMORY.
int pod_config_decode(const uint8_t *bytes, size_t size, struct pod_config *ret_config,
                      unsigned *ret_tag);
void pod_config_clear(struct pod_config *config);

#endif
