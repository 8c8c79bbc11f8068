// Our children as the kernel lists them, tracked or not.
#ifndef PMI_POSIX_ZOMBIES_H
#define PMI_POSIX_ZOMBIES_H

#include <stdbool.h>
#include <sys/types.h>

// Visits every child of a process (0 = this one), living or dead, whichever thread made it. One
// that is born or waited for meanwhile may be left out. PM_OK; PM_ERR_UNSUPPORTED: /proc is not
// mounted; PM_ERR_GONE: no such process; PM_ERR_NO_DESCRIPTORS, PM_ERR_NO_MEMORY.
int pmi_children_visit(pid_t parent, void (*visit)(void *context, pid_t pid), void *context);
// The same, where the kernel keeps lists of children. Without them PM_ERR_UNSUPPORTED, where the
// former looks at every process of the system.
int pmi_children_list(pid_t parent, void (*visit)(void *context, pid_t pid), void *context);
// We are PID 1 or a subreaper: what descendants leave behind becomes our child.
bool pmi_orphans_come_to_us(void);

#endif
