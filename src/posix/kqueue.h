// What stands in for a pidfd where there is kqueue: a kqueue for one process, as its exit_fd.
#ifndef PMI_POSIX_KQUEUE_H
#define PMI_POSIX_KQUEUE_H

#include "backend.h"
#include "pmi_config.h"

#if defined(HAVE_KQUEUE) && !defined(PMI_LIBKQUEUE)

// ret_exit_fd becomes readable when the process has ended, if it has not yet, and stays so. `id`
// is looked at for a process that is not our child. PM_ERR_UNSUPPORTED: we may not watch it.
int pmi_kqueue_exit_open(pid_t pid, bool child, const struct pmi_identity *id, int *ret_exit_fd);
// The status of an ended process in the format of wait(), from a kernel that told it to the kqueue.
// Once, and one caller at a time. PM_ERR_UNSUPPORTED: it was not told.
int pmi_kqueue_exit_status(int exit_fd, int *ret_status);

#else

static inline int pmi_kqueue_exit_open(pid_t pid, bool child, const struct pmi_identity *id,
                                       int *ret_exit_fd)
{
    (void)pid;
    (void)child;
    (void)id;
    (void)ret_exit_fd;
    return PM_ERR_UNSUPPORTED;
}

static inline int pmi_kqueue_exit_status(int exit_fd, int *ret_status)
{
    (void)exit_fd;
    (void)ret_status;
    return PM_ERR_UNSUPPORTED;
}

#endif
#endif
