// The runner's debug page and metrics: those of the library, about the holders of its sessions.
#ifndef RUNNER_DEBUG_H
#define RUNNER_DEBUG_H

#include "runner/server.h"

// "off", or an address as pm_debug_options::address has it; else os_debug_address().
#define DEBUG_ADDRESS_ENV "PROCESSMGR_DEBUG_ADDRESS"
// Rhythm of the zombie detector in milliseconds; else that of the library.
#define LEAK_SWEEP_ENV "PROCESSMGR_LEAK_SWEEP_MS"

// Between pm_open() and pm_close(). What fails is in the log, and the runner does without, but for
// an address that cannot be, given to one that is started by hand: then it does not start.
int debug_open(struct server *server, struct runner_error *error);
void debug_close(struct server *server);
// Where it is served, "" if nowhere.
const char *debug_address(const struct server *server);

#endif
