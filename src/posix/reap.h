// The end of a child of ours, looked at and taken.
#ifndef PMI_POSIX_REAP_H
#define PMI_POSIX_REAP_H

#include "pmi_config.h"

#include <processmgr/processmgr.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

// For the end of those who are killed when a manager closes, in milliseconds: nobody waits for them
// later.
#define PMI_DYING_MS 2000

// Whether its status is there to be taken: 1 yes, 0 no (it lives, or a tracer has not let go of
// it), -1 it is no child of ours, or not any more. Takes nothing.
int pmi_child_look(pid_t pid);
// Whether it is a child of ours that nobody has waited for: so its number is nobody else's. pidfd
// may be -1, or of no use to the kernel: then a later child of ours with the number is taken for
// it.
bool pmi_child_is_ours(pid_t pid, int pidfd);
// Whether it has ended, whoever has its status. Asked of the kernel, not of a waiter thread: that
// one may not have run yet. pidfd may be -1.
bool pmi_child_has_ended(pid_t pid, int pidfd);
// Takes the status without waiting. 0: it is in info, or info->si_pid is 0: see pmi_child_look. -1
// with errno. usage: of its fields those that tell what it has used; may be NULL.
int pmi_child_take(pid_t pid, int pidfd, siginfo_t *info, struct pm_exit *usage);

// Takes the status of one that is dying, and waits for it until the deadline: its exit code, or -1.
// One that is caught in the kernel (a dead network file system) or held by a tracer is waited for
// by a thread of its own.
int pmi_child_collect(pid_t pid, int pidfd, int64_t deadline);
// The same, in a short time, after a kill if it lives.
int pmi_child_end(pid_t pid, int pidfd);
void pmi_child_kill(pid_t pid, int pidfd);

// Looks again at those for whom there was no thread to be had.
void pmi_reap_left(void);
// In the copy that a fork of the host has made: they are the parent's.
void pmi_reap_forget_parent(void);

#endif
