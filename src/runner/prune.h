// How long what is left of ended sessions is kept.
#ifndef RUNNER_PRUNE_H
#define RUNNER_PRUNE_H

#include "runner/server.h"

// In the environment, where the next runner finds it after an upgrade. Defaults: 7d, 1000.
#define KEEP_FOR_ENV "PROCESSMGR_KEEP_FOR"
#define KEEP_RECORDS_ENV "PROCESSMGR_KEEP_RECORDS"

// "7d", "12h", "30m", "90s"; "0": for ever.
bool prune_parse_time(const char *text, uint64_t *ret_ms);
bool prune_parse_count(const char *text, uint64_t *ret_count);

void prune_open(struct server *server);
// If it is time to. Looks again later by itself, when housekeeping calls it.
void prune_begin(struct server *server);

#endif
