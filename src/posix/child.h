// What a new process does between its birth and exec: the same code for the vfork-like child of a
// normal start (clone.c), the forked child where memory cannot be shared (fork.c), and the
// launcher's stub (src/launcher).
#ifndef PMI_POSIX_CHILD_H
#define PMI_POSIX_CHILD_H

#include "launcher/child_options.h"

#include <processmgr/processmgr.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// One descriptor that the program shall have. A source is either above the highest target (lifted
// there by the starter with F_DUPFD_CLOEXEC), so that no dup overwrites a later source, or a target
// that stays in its place: source == target, listed before others that copy it.
struct pmi_child_fd {
    int source;
    int target;
};

// What a child says to the keeper before exec; the answer is one byte: see below.
struct pmi_child_hello {
    int kind; // 'S': it leads a session of its own; 'G': a group; 'P': it alone is meant.
    int pid;  // For systems whose sockets do not tell the sender's.
    // What the whole tree is known by (family.h); 0 = nothing. Left out then: a keeper may be an
    // older build of this library.
    uint64_t mark;
};
#define PMI_CHILD_HELLO_SHORT offsetof(struct pmi_child_hello, mark)
#define PMI_CHILD_KNOWN 'K'
#define PMI_CHILD_NO_ROOM 'N' // No descriptor left for one more.

enum pmi_child_progress {
    PMI_CHILD_NOT_REACHED = 0, // Preset by the starter.
    PMI_CHILD_RUNNING,         // First thing the child stores.
    PMI_CHILD_EXEC,      // Last thing before execve: from here on its death may be the program's.
    PMI_CHILD_FAILED,    // stage and error are valid; the child is about to _exit.
    PMI_CHILD_NOT_APART, // keep_below could not be done: nothing was touched.
    PMI_CHILD_OVERDUE    // Stored by the starter: the deadline came first.
};

// All memory is prepared by the starter. With CLONE_VM the child writes progress, stage and error
// straight into the starter's memory.
struct pmi_child_plan {
    const char *program; // Absolute.
    char *const *argv;
    char *const *env;
    const char *cwd; // NULL = unchanged.
    bool new_session;
    bool new_group;  // Ignored with new_session.
    bool terminal;   // Its descriptor 0 becomes the session's terminal; with new_session.
    bool foreground; // Its group becomes the foreground group of the terminal on descriptor 0.
    const struct pmi_child_options *options; // NULL = none.
    int cgroup_fd; // cgroup.procs of the control group to be born in; -1 = none. Not a target.
    const struct pmi_child_fd *fds;
    size_t fds_count;
    int report_fd;  // Kept close-on-exec through everything; -1 = none. Not a target.
    int keeper_fd;  // die-with-parent: announce ourselves here before exec (keeper.c);
                    // -1 = none. Not a target.
    int parent_pid; // die-with-parent: PDEATHSIG and the check that this is still our
                    // parent; 0 = none.

    uint64_t mark; // For the keeper; 0 = none.

    struct pmi_low_fds *low_fds; // Where the starter may find low numbers; NULL = nowhere.
    int program_fd; // The program is /proc/self/fd/ of this number; -1 = it has a path of its own.
    int keep_below; // > 0: the table is the starter's own. Only the end below this number is taken
                    // along, and that comes first.

    int64_t timer_ms; // > 0: the child arms a timer of its own (clone.c); 0 = none.

    volatile int progress;          // enum pmi_child_progress
    volatile int stage;             // enum pm_stage
    volatile int error;             // errno
    volatile int field;             // enum pmi_option_field
    volatile unsigned exec_retries; // ETXTBSY answered by trying again.
    uint32_t fallbacks;             // enum pm_fallback bits of its birth.
};

// Runs in the new process with every signal blocked: resets dispositions and mask, session or
// group, cwd, descriptors (everything but the targets becomes close-on-exec), exec. Returns
// only on failure, with progress, stage and error set. Async-signal-safe, no allocation, no lock.
void pmi_child_run(struct pmi_child_plan *plan);

// Kills this process (a POSIX timer of its own, which exec deletes) in timeout_ms > 0.
void pmi_child_arm_deadline(int64_t timeout_ms);

#endif
