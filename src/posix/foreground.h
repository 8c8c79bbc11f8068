// The terminal of the host, lent to a child: PM_GROUP_FOREGROUND.
#ifndef PMI_POSIX_FOREGROUND_H
#define PMI_POSIX_FOREGROUND_H

#include "backend.h"

// Before the start: whether the child's stdin is the controlling terminal of this process. Fills
// tty_fd and tty_group of `op`.
int pmi_foreground_prepare(const struct pmi_plan *plan, struct pmi_os_process *op,
                           struct pm_error *err);
// Gives the terminal to the group of `op`, or back to whoever had it, unless somebody else has it
// by now. Nothing to do for others.
void pmi_foreground_take(const struct pmi_os_process *op);
void pmi_foreground_give_back(const struct pmi_os_process *op);

#endif
