// The ways to hold a terminal that the pod is measured against, and what a client does with each:
// no loop, no threads, one blocking descriptor. Nothing in them handles an error but by ending the
// program.
#ifndef PM_BENCH_HOLDERS_H
#define PM_BENCH_HOLDERS_H

#include <processmgr/processmgr.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pod/client.h"
#include "poddaemon/folder.h"

#define HOLDER_READ 65536

enum holder_kind {
    HOLDER_BARE = 0, // A terminal, and nobody between it and us.
    HOLDER_POD,
    HOLDER_DTACH,
    HOLDER_CONMON,
    HOLDER_KINDS
};

// One connection. A pod does not wait for a client that is slower than its child for more than the
// ring has room: it skips.
struct holder_client {
    enum holder_kind kind;
    int fd;
    uint64_t received, skipped;      // Bytes of output.
    bool attached;                   // Of a pod: it has said so.
    const struct pod_attach *attach; // Asked for with the proof, as `runner attach` does.
    struct pod_client client;        // Of a pod.
};

struct holder {
    enum holder_kind kind;
    char folder[64];
    pm_process *process;
    uint64_t pid; // Of the holder; 0: there is none.
    int terminal; // HOLDER_BARE.
    char name[32];
    struct pod_dir dir; // Of a pod, as the next one.
    uint8_t token[POD_TOKEN_SIZE];
};

// Before the first holder, after the last one.
void holders_open(int argc, char **argv);
void holders_close(void);
pm_manager *holders_manager(void);
const char *holders_folder(void); // For files of the benchmark, taken away at the end.
void holders_check(int result, const struct pm_error *error);
void holders_die(const char *what);

const char *holder_name(enum holder_kind kind);
bool holder_is_here(enum holder_kind kind);
// Starts it with bench_pod_child in a role, and waits until that is ready.
void holder_start(struct holder *holder, enum holder_kind kind, const char *role, size_t size);
void holder_end(struct holder *holder);

// A connection that is attached: from the beginning of what is kept (a pod has that), or from now.
void holder_connect(struct holder *holder, struct holder_client *client, bool replay);
// The same to a pod, as somebody who only looks on.
void holder_look_on(struct holder *holder, struct holder_client *client);
void holder_block(int fd); // No O_NONBLOCK.
void holder_disconnect(struct holder_client *client);
void holder_type(struct holder_client *client, char byte);
// Waits until so many bytes have come in all, or were skipped.
void holder_receive(struct holder_client *client, uint64_t until);

// What a process costs. 0: it is gone.
uint64_t process_private_kib(uint64_t pid);
uint64_t process_switches(uint64_t pid); // Voluntary ones: how often it went to sleep.
uint64_t process_turns(uint64_t pid);    // How often it had a processor.
double process_cpu_us(uint64_t pid);

#endif
