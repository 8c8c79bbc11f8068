// The keeper: ends the trees of die_with_parent starts when the manager's process is gone.
#ifndef PMI_POSIX_KEEPER_H
#define PMI_POSIX_KEEPER_H

#include "backend.h"
#include "cgroup.h"

void pmi_keeper_init(struct pmi_keeper *keeper);
// Starts it before anybody needs it; waits for its exec, not until it is ready. Who enlists the
// first child tries again, and tells, what could not be done here.
void pmi_keeper_begin(struct pmi_os_manager *om);

// Announces one start to the keeper, which is started if it does not run, and the control group
// that the child is to be born in, if not NULL. ret_fd, at `floor` or above, is for
// pmi_child_plan::keeper_fd; its closing without a word withdraws the announcement.
int pmi_keeper_enlist(struct pmi_os_manager *om, const struct pmi_cgroup *cgroup, int64_t deadline,
                      int floor, int *ret_fd, struct pm_error *err);
// A keeper that lets go of a start instead of answering is not ours, or has been killed: makes such
// a failure PM_ERR_LAUNCHER.
void pmi_keeper_explain(struct pmi_os_manager *om, struct pm_error *err);
// The reactor has seen the keeper's end: takes its status, so that the next start makes a new one.
// Waits for nothing.
void pmi_keeper_on_exit(struct pmi_os_manager *om);
// Ends the keeper without a kill, waits for it, and undoes pmi_keeper_init.
void pmi_keeper_stop(struct pmi_os_manager *om);

// The keeper's own program, entered by the launcher: socket_fd is its end of the control socket,
// parent_pidfd the process it watches, -1 where there are no pidfds. Returns the exit code.
int pmi_keeper_main(int socket_fd, int parent_pidfd);

#endif
