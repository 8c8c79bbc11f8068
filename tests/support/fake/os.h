// A scripted backend: no process, no thread, a clock that moves only when somebody waits. It stands
// in for src/posix and src/win32 in the unit tests of the core (the stop ladder above all).
#ifndef PMI_FAKE_OS_H
#define PMI_FAKE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pmi_mutex {
    int held;
};
struct pmi_cond {
    int unused;
};
struct pmi_thread {
    int unused;
};

#define FAKE_NEVER INT64_MAX
#define FAKE_ACTIONS 5

// What a process of a test does. Times are on the fake clock; FAKE_NEVER = does not.
struct fake_script {
    int64_t exits_at;                 // By itself.
    int64_t dies_after[FAKE_ACTIONS]; // Milliseconds after enum pm_stop_action N was delivered.
    int64_t tree_dies_after[FAKE_ACTIONS];
    bool has_tree;                   // Something else lives in its containment.
    int undeliverable[FAKE_ACTIONS]; // PM_ERR_* for that action; 0 = delivered.
    int signal_result;               // Of signal 0 to the process itself.
    int64_t delivery[FAKE_ACTIONS];  // Milliseconds that its delivery takes; 0 = none.
    int64_t status_at;               // Until then nobody tells how it ended.
    int64_t holds_output; // Until then somebody has the outputs open, besides the process itself.
    int64_t output_every; // Milliseconds between two bytes on each output; 0 = none.
    bool output_fails;    // With PM_ERR_IO.
    int64_t end_room_at;  // From then on the end of the input can be told, and it ends of that.
    int64_t fails_at;     // The same from then on; 0 = never.
    uint32_t code;
};

struct pmi_os_process {
    struct fake_script script;
    bool used, watched;
    void *token;
    int64_t dies_at, tree_dies_at;
    uint64_t pid;
    bool reaped;
    unsigned slot;
};
#define PMI_OS_PROCESS_INIT                                                                        \
    {                                                                                              \
        0                                                                                          \
    }

struct pmi_os_stream {
    bool open;
    int64_t byte_at; // When the last byte came.
};
#define PMI_OS_STREAM_INIT                                                                         \
    {                                                                                              \
        0                                                                                          \
    }
struct pmi_os_dir {
    int fd;
};
#define PMI_OS_DIR_INIT                                                                            \
    {                                                                                              \
        -1                                                                                         \
    }
struct pmi_os_lock {
    int fd;
};
#define PMI_OS_LOCK_INIT                                                                           \
    {                                                                                              \
        -1                                                                                         \
    }
struct pmi_os_manager {
    bool wake;
};
#define PMI_OS_MANAGER_INIT                                                                        \
    {                                                                                              \
        0                                                                                          \
    }

// The test's side.
struct fake_delivery {
    int64_t at;
    uint64_t pid;
    int action, scope;
};
extern struct fake_script fake_next; // For the next start.
extern int64_t fake_clock;           // Now.
extern struct fake_delivery fake_deliveries[64];
extern size_t fake_deliveries_count;
extern int fake_start_error, fake_start_stage; // The next start fails so, once.
extern unsigned fake_reaps;                    // Statuses taken.
extern unsigned fake_reap_calls;               // Asked for.
// A test's eyes: called in the middle of things, each with `user`.
struct fake_hooks {
    void *user;
    void (*on_act)(void *user);   // By pmi_os_process_act() first, under the lock of the process.
    void (*on_watch)(void *user); // By pmi_os_reactor_watch() first.
    void (*on_alive)(void *user); // By pmi_os_process_wait() that has seen one that lives.
};
extern struct fake_hooks fake_hooks;
extern unsigned fake_closed; // Processes closed.
extern unsigned fake_started;
extern unsigned fake_steps;     // Deliveries under way.
extern unsigned fake_transfers; // Calls of pmi_os_streams_transfer.
void fake_kill(uint64_t pid);   // Dies now, of somebody else.
void fake_reset(void);
void fake_script_clear(
    struct fake_script *script); // Lives for ever, hears everything, dies of KILL.

#endif
