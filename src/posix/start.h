// From a child plan to a running process: what start.c, daemon.c and keeper.c share.
#ifndef PMI_POSIX_START_H
#define PMI_POSIX_START_H

#include "backend.h"
#include "child.h"
#include "identity.h"

// Starts the plan and sees it through exec: on PM_OK the program runs or has run, and `op` has its
// pid, its pidfd (or waiter) and its group. keeper_fd of the plan is closed and set to -1 in every
// case: the keeper takes a closed announcement socket as the sign that the pid may have been waited
// for. On failure nothing is left. Fills best_effort, exec_retries and fallbacks of `started`.
// A failure when the program may have run already leaves the number of the process, which has been
// killed, in op->pid: what it has left behind is the caller's to end.
// With `om` the child is made on the manager's spawner thread; NULL = on this thread.
int pmi_launch(struct pmi_os_manager *om, struct pmi_child_plan *plan, int64_t deadline,
               struct pmi_os_process *op, struct pmi_started *started, struct pm_error *err);

// The enum pm_fallback bit of a process without a pidfd, or 0.
static inline uint32_t pmi_process_fallback(int pidfd)
{
    return pidfd < 0 ? (uint32_t)PM_FALLBACK_BEST_EFFORT : 0;
}

// Ends what is left of the tree of a process that is dead, in a manager that has the process to
// itself. Bounded.
void pmi_process_end_tree(struct pmi_os_process *op);

// Turns a known process into `op`: takes the pidfd over (also on failure), or starts a waiter
// thread where it is -1. `child`: it is ours to wait for. Not a child and no pidfd: its identity
// (start, pidns, pidfs) has to be in `op` before. Returns PM_OK or PM_ERR_*.
int pmi_process_attach(struct pmi_os_process *op, pid_t pid, int pidfd, bool child);

// The two ways to make the process of a plan, with every signal blocked: 0 or errno. The plan's
// progress tells how far it came; PMI_CHILD_OVERDUE: it has not left us by the deadline (a time of
// pmi_now_ms) and is the caller's to end. ret_pidfd may be set to -1 (no pidfd on this kernel).
int pmi_clone_child(struct pmi_child_plan *plan, int64_t deadline, pid_t *ret_pid, int *ret_pidfd);
int pmi_fork_child(struct pmi_child_plan *plan, int64_t deadline, pid_t *ret_pid, int *ret_pidfd);

// Whether a child of ours that has ended, or hangs, ever reached its program: 1 yes, 0 no, -1
// cannot be told.
int pmi_exec_reached(pid_t pid);
// The same of a process whose line was read already.
int pmi_stat_exec_reached(const struct pmi_stat *stat);

// Fills err from the stage and errno of a plan whose child could not reach its program.
void pmi_fail_in_child(const struct pmi_child_plan *plan, struct pm_error *err);

// The descriptors of a start, gathered in the starter (stdio.c).
struct pmi_stdio_plan {
    struct pmi_child_fd *fds;
    size_t fds_count;
    int *owned; // Ours to close when the child has its copies.
    size_t owned_count;
    int streams[3]; // Our ends of the pipes; for a terminal two descriptors of its master.
    int terminal;   // The other side of it; among the owned. -1 = none.
    int master;     // A third descriptor of the master; -1 = none.
    int null;       // The null device, once it was needed; among the owned.
    int floor;      // One above the highest target.
};
int pmi_stdio_prepare(const struct pmi_plan *plan, struct pmi_stdio_plan *ret_stdio,
                      struct pm_error *err);
// Whether an exec would hand the descriptor on.
bool pmi_is_inheritable(int fd);
// Closes everything that was not taken out.
void pmi_stdio_release(struct pmi_stdio_plan *stdio);

// Runs run(arg) on the spawner thread, once nobody else's runs there, and waits for its end. PM_OK;
// PM_ERR_TIMEOUT: it was not its turn by the deadline; or why there is no such thread.
int pmi_spawner_run(struct pmi_spawner *spawner, void (*run)(void *), void *arg, int64_t deadline);
void pmi_spawner_init(struct pmi_spawner *spawner);
void pmi_spawner_stop(struct pmi_spawner *spawner);

#endif
