// Another binary in the place of this one, while all sessions go on.
//
//   1. The new binary runs `serve --self-check`, and has to answer in time with versions that fit.
//   2. Services stop, control connection and registry are let go of.
//   3. A guardian is started from the file of the running binary, whatever has become of its name.
//   4. exec: the new binary has our process, and tells the guardian when it has recovered. Signals
//      wait for it, unless it is of a version that would never let them in.
//   5. If it ends instead, or says nothing for 10 s, the guardian kills it and serves.
//
// Where there is no exec the old process is its own guardian, and starts the new one as a daemon.
#ifndef RUNNER_UPGRADE_H
#define RUNNER_UPGRADE_H

#include "runner/server.h"

#define UPGRADE_CHECK_MS 10000
#define UPGRADE_READY_MS 10000

void upgrade_begin(struct server *server, struct call *call, json_t *params);
// After the server has closed. 0: another process serves now. Else it serves itself again.
int upgrade_replace(const struct runner_env *env, const struct successor *successor);
// It was told to whom it was asked of, and does not come: the runner ends.
void upgrade_given_up(const struct runner_env *env, const struct successor *successor);
// `serve --guard PID`
int upgrade_guard(const struct runner_env *env, int64_t pid);
// `serve --self-check`
int upgrade_self_check(void);
// What became of the last one; NULL: there was none.
json_t *upgrade_last(const char *state_dir);
// Told by the new one, when it is ready.
void upgrade_tell_ready(const struct runner_env *env, pm_native ready);

#endif
