// A control group (version 2, Linux) around one process and all its descendants.
#ifndef PMI_POSIX_CGROUP_H
#define PMI_POSIX_CGROUP_H

#include "backend.h"

struct pmi_cgroup;

// Makes a new group below `path`. ret_procs_fd: what the child writes to in order to be born in it;
// the caller's. Fills err.
int pmi_cgroup_make(const char *path, struct pmi_cgroup **ret_cgroup, int *ret_procs_fd,
                    struct pm_error *err);
// For the keeper, which gets both of them sent: a descriptor of the group and its name.
#define PMI_CGROUP_NAME 64
int pmi_cgroup_fd(const struct pmi_cgroup *cgroup);
const char *pmi_cgroup_name(const struct pmi_cgroup *cgroup);
// Takes the descriptor over, also on failure: NULL.
struct pmi_cgroup *pmi_cgroup_adopt(int fd, const char *name);
// Sends to every process in it, and below it, but to `except`. SIGKILL reaches all in one step
// where the kernel can (5.14).
void pmi_cgroup_signal(struct pmi_cgroup *cgroup, int signal_number, pid_t except);
bool pmi_cgroup_is_populated(const struct pmi_cgroup *cgroup);
// Removes it from the system if nobody is in it.
void pmi_cgroup_try_remove(struct pmi_cgroup *cgroup);
// The same, and frees it; one that is populated still is removed by a later call of any manager of
// this program.
void pmi_cgroup_close(struct pmi_cgroup *cgroup);
// Frees it alone: it is somebody else's to remove.
void pmi_cgroup_forget(struct pmi_cgroup *cgroup);
// Removes those that have become empty. True: one that was killed has not yet.
bool pmi_cgroup_sweep(void);
// See pmi_os_forget_parent().
void pmi_cgroup_forget_parent(void);

#endif
