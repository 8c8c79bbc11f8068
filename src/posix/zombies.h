// Our children as the kernel lists them, tracked or not.
#ifndef PMI_POSIX_ZOMBIES_H
#define PMI_POSIX_ZOMBIES_H

#include <stdbool.h>
#include <sys/types.h>

// Visits every child of this process, living or dead, whichever thread made it. One that is born or
// waited for meanwhile may be left out. PM_OK; PM_ERR_UNSUPPORTED: /proc is not mounted;
// PM_ERR_NO_DESCRIPTORS, PM_ERR_NO_MEMORY.
int pmi_children_visit(void (*visit)(void *context, pid_t pid), void *context);
// We are PID 1 or a subreaper: what descendants leave behind becomes our child.
bool pmi_orphans_come_to_us(void);

#endif
