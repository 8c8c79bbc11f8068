// The terminal of the host, lent to a child: PM_GROUP_FOREGROUND.
#ifndef PMI_POSIX_FOREGROUND_H
#define PMI_POSIX_FOREGROUND_H

#include "backend.h"

// Before the start: whether the child's stdin is the controlling terminal of this process, and this
// process in front on it. Fills tty_fd, tty_group and owed of `op`; then pmi_foreground_prepared()
// has to follow once the child has the terminal, or not.
int pmi_foreground_prepare(const struct pmi_plan *plan, struct pmi_os_process *op,
                           struct pm_error *err);
void pmi_foreground_prepared(void);
// Gives the terminal to the group of `op`, or back to whoever had it, unless somebody else has it
// by now. Nothing to do for others.
void pmi_foreground_take(const struct pmi_os_process *op);
void pmi_foreground_step_back(const struct pmi_os_process *op);
// The process has ended, or never was: gives back, and closes tty_fd. If a job that the process has
// left behind has the terminal now, that is left to pmi_foreground_take_back().
void pmi_foreground_end(struct pmi_os_process *op);
// Takes back what such jobs had and is free now. Whether any is left. last_time: forgets those.
bool pmi_foreground_take_back(bool last_time);
// See pmi_os_forget_parent().
void pmi_foreground_forget_parent(void);

#endif
