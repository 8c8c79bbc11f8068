// Parts of a reactor that the manager and the keeper need beyond src/backend.h.
#ifndef PMI_POSIX_REACTOR_H
#define PMI_POSIX_REACTOR_H

#include "backend.h"

int pmi_reactor_open(struct pmi_os_manager *om, uint32_t *ret_os_code);
void pmi_reactor_close(struct pmi_os_manager *om);

// The token under which the keeper is watched: never given to the core, but handed to
// pmi_keeper_on_exit().
#define PMI_KEEPER_TOKEN(om) ((void *)&(om)->keeper)

// A pipe, or an eventfd with one number for both ends: non-blocking, sticky until drained.
int pmi_wake_open(int fds[2]);
void pmi_wake_close(int fds[2]);
void pmi_wake_set(const int fds[2]);
void pmi_wake_drain(const int fds[2]);

// Takes a moment, but none beyond the deadline: a poll has failed, and its callers are loops. The
// host has closed what it does not know, or there is no memory.
void pmi_reactor_rest(int64_t deadline);

// Milliseconds for poll() and its kind: -1 for PMI_NEVER, never beyond an int.
int pmi_poll_timeout(int64_t deadline);

#endif
