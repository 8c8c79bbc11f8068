// Who a process is, from /proc on Linux.
#ifndef PMI_POSIX_IDENTITY_H
#define PMI_POSIX_IDENTITY_H

#include "backend.h"

#include <sys/types.h>

// The fields of /proc/PID/stat that matter here.
struct pmi_stat {
    char state;
    pid_t ppid, pgrp, session;
    unsigned flags;
    long num_threads;
    unsigned long long starttime; // Clock ticks since boot.
};

// "Z" alone is not dead: so looks a process whose first thread has ended while others run.
static inline bool pmi_stat_is_dead(const struct pmi_stat *stat)
{
    return (stat->state == 'Z' || stat->state == 'X' || stat->state == 'x') &&
           stat->num_threads <= 1;
}

// Pure: parses the text of a stat file. The name of the program may hold anything, blanks and
// parentheses too, so the fields are counted from the last ')'. PM_OK or PM_ERR_CORRUPT.
int pmi_stat_parse(const char *text, struct pmi_stat *ret_stat);
// PM_OK; PM_ERR_GONE: no such process; PM_ERR_SYSTEM: there is no /proc.
int pmi_stat_read(pid_t pid, struct pmi_stat *ret_stat);

// Name of a process as the kernel keeps it, cut; "" if it does not tell.
void pmi_process_name(pid_t pid, char *name, size_t capacity);

// In a pid namespace without a mount of its own /proc is that of the namespace around it, in which
// each of our numbers is a stranger's, also for the stub that is to prove who it is.
bool pmi_proc_is_foreign(void);

// Identity of a process that `pidfd` (-1 = none) pins or that is our unreaped child.
// PM_OK; PM_ERR_GONE; PM_ERR_IDENTITY: the system does not tell.
int pmi_identity_of(pid_t pid, int pidfd, struct pmi_identity *ret_id);

#endif
