// The exit_fd of one process where there is no pidfd to poll: a kqueue, or a thread that waits.
#ifndef PMI_POSIX_WAITER_H
#define PMI_POSIX_WAITER_H

#include "backend.h"

struct pmi_waiter;

// ret_exit_fd becomes readable when the process has ended and stays so. It is owned by the waiter,
// or by the caller where that is NULL: then it is a kqueue. The thread of a waiter waits for a
// child without taking its status, and looks at anybody else every PMI_WAITER_LOOK_MS by the
// identity `id` (unused for a child).
#define PMI_WAITER_LOOK_MS 50
int pmi_waiter_start(pid_t pid, bool child, const struct pmi_identity *id,
                     struct pmi_waiter **ret_waiter, int *ret_exit_fd);
// Closes exit_fd. A thread that still waits for a living child is left to end with it.
void pmi_waiter_close(struct pmi_waiter *waiter);
// The same for a process that is no child, must not live on and could not be proven to be itself
// just now (no memory, no descriptor): the thread kills it as soon as it can be, and ends with it.
void pmi_waiter_condemn(struct pmi_waiter *waiter);

#endif
