// Types of the POSIX backend behind the names that src/backend.h promises.
#ifndef PMI_POSIX_OS_H
#define PMI_POSIX_OS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct pmi_mutex {
    pthread_mutex_t mutex;
    int cancel_state; // Of the holder before.
};
#define PMI_MUTEX_INIT                                                                             \
    {                                                                                              \
        .mutex = PTHREAD_MUTEX_INITIALIZER                                                         \
    }

// Waits by the monotonic clock only after pmi_cond_init: there is no static initializer for that.
struct pmi_cond {
    pthread_cond_t cond;
};
#define PMI_COND_INIT                                                                              \
    {                                                                                              \
        .cond = PTHREAD_COND_INITIALIZER                                                           \
    }

struct pmi_thread {
    pthread_t thread;
    bool started;
};
#define PMI_THREAD_INIT                                                                            \
    {                                                                                              \
        .started = false                                                                           \
    }

struct pmi_waiter; // A thread behind exit_fd (reactor_threads.c).

// One process. `exit_fd` becomes readable when the process has ended and stays so: it is the pidfd
// itself, a kqueue, or the read end of a pipe that a waiter thread writes to.
struct pmi_os_process {
    pid_t pid;
    int pidfd;          // -1 = none: best effort.
    int exit_fd;        // -1 = closed.
    int tty_fd;         // The host's terminal, whose foreground group it was made; -1 = none.
    bool child;         // Ours to wait for.
    bool reaped;        // Its status was taken, by us or by a thief: pid may be a stranger's.
    bool group;         // Leads a process group of its own, whose id is pid.
    bool whole_session; // Nobody but its descendants is in its session: they belong to its tree.
    bool condemned;     // Of that tree nobody is to live: each look at it kills.
    bool signalled_by_number;  // For want of another way.
    bool status_taken;         // By somebody else, or by nobody.
    bool whole_tree;           // own_process: its descendants are its tree, wherever they went.
    struct pmi_waiter *waiter; // Owns exit_fd if not NULL.
    pid_t session;             // Of its group: pmi_session_of().
    pid_t tty_group;           // Who had tty_fd before.
    uint64_t session_start;    // Start time of the leader of that session; 0 = not looked up.
    uint64_t start;            // These three as in struct pmi_identity; 0 = not looked up.
    uint64_t pidns;
    uint64_t pidfs;
    int terminal_fd;           // One more of the master of its terminal, to resize it; -1 = none.
    atomic_int slave_fd;       // The terminal's other side (PMI_KEEPS_SLAVE); -1 = none.
    struct pmi_owed *owed;     // Memory for the case that it does not come back at once.
    struct pmi_cgroup *cgroup; // Its own, or NULL.
    // In a manager that has the process to itself (family.h):
    struct pmi_family *family;          // NULL = not in one.
    uint64_t mark;                      // What its descendants are known by.
    struct pmi_condemned *room;         // For the day when nobody of them is to live.
    struct pmi_os_process *leader_next; // Under the lock of the family.
};
#define PMI_OS_PROCESS_INIT                                                                        \
    {                                                                                              \
        .pidfd = -1, .exit_fd = -1, .terminal_fd = -1, .slave_fd = -1, .tty_fd = -1                \
    }

// Our end of a pipe, or one of our descriptors of a terminal's master; non-blocking.
struct pmi_os_stream {
    int fd;
    int last; // The last byte that was typed on a terminal; -1 = none.
    bool terminal;
    bool types;        // Of a terminal: what is typed, not what is shown.
    bool hung_up;      // Of a terminal: the last read said so.
    int64_t exit_seen; // When a read first saw the process dead; 0 = not yet.
    int64_t byte_seen; // When the last byte came; 0 = none yet.
};
#define PMI_OS_STREAM_INIT                                                                         \
    {                                                                                              \
        .fd = -1, .last = -1                                                                       \
    }

// The process that ends the trees of die_with_parent starts when we are gone (keeper.c). `lock` is
// never held for long: a start that has to wait makes itself the only one by `busy`, and the others
// wait for that, each up to its own deadline. What is below is changed with the lock alone.
struct pmi_keeper {
    struct pmi_mutex lock;
    struct pmi_cond changed; // Of `busy`.
    bool busy;
    bool ended;    // The reactor has seen its end meanwhile, and watches it no more.
    int socket_fd; // -1 = not running.
    struct pmi_os_process process;
};

// The thread that die_with_parent children are born on: PDEATHSIG fires at the death of the thread
// that made the child, so that thread has to live as long as the manager.
struct pmi_spawner {
    struct pmi_mutex lock;
    struct pmi_cond changed;
    struct pmi_thread thread;
    bool running;
    bool quit;
    struct pmi_spawner_order *order; // Under way; NULL = idle.
};

// Low numbers for a child's descriptors (low_fds.h).
#define PMI_LOW_FDS 12
struct pmi_file_id {
    dev_t device;
    ino_t inode;
};
struct pmi_low_fds {
    struct pmi_mutex lock;
    int fds[PMI_LOW_FDS];
    bool lent[PMI_LOW_FDS];
    size_t count;
    struct pmi_file_id idle; // What a number holds that is not lent.
    bool refused;
};

// The descendants of a manager that was opened with own_process (family.h).
#define PMI_FAMILY_BUCKETS 256
struct pmi_family {
    struct pmi_mutex lock;
    atomic_bool open;
    bool was_reaper;                                    // Orphans came to us before.
    uint64_t limit;                                     // Of the marks; 0 = each is its own.
    uint64_t prefix;                                    // Of the marks; 0 = none.
    uint32_t next;                                      // Number of the next mark.
    struct pmi_os_process *leaders[PMI_FAMILY_BUCKETS]; // Unreaped processes of Handles.
    struct pmi_birth *births;                           // Starts under way.
    struct pmi_condemned *condemned;                    // Trees of which nobody is to live.
    struct pmi_tree *trees;                             // Of FreeBSD (family_procctl.c).
    size_t trees_count, trees_capacity, trees_expected;
    uint64_t reaped;
};

struct pmi_poll_set; // What the poll() reactor watches (reactor_threads.c).

struct pmi_os_manager {
    bool open;
    bool caller_loop;
    int poll_fd;                  // epoll or kqueue; -1 with the poll() reactor.
    struct pmi_mutex tokens_lock; // From the end of a poll until its tokens have been dealt with.
    int wake_fds[2];              // Read and write end; an eventfd twice; not with kqueue.
    struct pmi_poll_set *set;     // Only with the poll() reactor.
    struct pmi_keeper keeper;
    struct pmi_spawner spawner;
    struct pmi_low_fds low_fds;
    struct pmi_family family;
    atomic_int exe_fd;                   // Our own executable, or -1 (daemon.c).
    atomic_ullong exe_device, exe_inode; // What it is.
    char *launcher_path;                 // Helper program, or NULL (daemon.c).
};
#define PMI_OS_MANAGER_INIT                                                                        \
    {                                                                                              \
        .poll_fd = -1, .wake_fds = {-1, -1},                                                       \
        .keeper = {.socket_fd = -1, .process = PMI_OS_PROCESS_INIT},                               \
        .tokens_lock = PMI_MUTEX_INIT, .family = {.lock = PMI_MUTEX_INIT}, .exe_fd = -1            \
    }

struct pmi_os_dir {
    int fd;
};
#define PMI_OS_DIR_INIT                                                                            \
    {                                                                                              \
        .fd = -1                                                                                   \
    }

struct pmi_os_lock {
    int fd;
};
#define PMI_OS_LOCK_INIT                                                                           \
    {                                                                                              \
        .fd = -1                                                                                   \
    }

#endif
