// Every process of the system, as far as it is shown to us: from /proc (proctable_proc.c), or from
// sysctl() (proctable_kinfo.c). See identity.h for one process.
#ifndef PMI_POSIX_PROCTABLE_H
#define PMI_POSIX_PROCTABLE_H

#include "pmi_config.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

// Calls `visit` until that returns false. Who forks or ends meanwhile may be missing. 0 or errno;
// ENOENT: nobody was shown.
int pmi_pids_visit(bool (*visit)(void *context, pid_t pid), void *context);

#ifdef HAVE_KINFO_PROC
// The same for those of one group; 0 also if there are none.
int pmi_group_pids_visit(pid_t group, bool (*visit)(void *context, pid_t pid), void *context);
#endif

// The number that was given out last, to whatever process or thread; -1 = not told.
long pmi_last_number(void);

// No number is higher: behind it they begin anew. -1 = not told.
long pmi_end_of_numbers(void);

// Whether that is the number of a thread beside the first one of its process. Only where threads
// have numbers of that kind.
bool pmi_is_thread(pid_t number);

// A text that no two boots have in common. 0 or errno.
int pmi_boot_id(char boot_id[40]);

// Milliseconds since a process with this start time (struct pmi_stat) began; -1 = not known.
int64_t pmi_age_of(uint64_t start);

#endif
