// A thread that waits for one process where there is no pidfd to poll.
#ifndef PMI_POSIX_WAITER_H
#define PMI_POSIX_WAITER_H

#include "backend.h"

struct pmi_waiter;

// ret_exit_fd, owned by the waiter, becomes readable when the process has ended and stays so. A
// child is waited for without taking its status; anybody else is looked at every PMI_WAITER_LOOK_MS
// by the identity `id` (unused for a child).
#define PMI_WAITER_LOOK_MS 50
int pmi_waiter_start(pid_t pid, bool child, const struct pmi_identity *id,
                     struct pmi_waiter **ret_waiter, int *ret_exit_fd);
// Closes exit_fd. A thread that still waits for a living child is left to end with it.
void pmi_waiter_close(struct pmi_waiter *waiter);

#endif
