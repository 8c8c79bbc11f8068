// Where a new holder shall live, so that what ends the runner does not end it: POSIX: a control
// group that was named for it (PROCESSMGR_CGROUP), or a scope of systemd's. Windows: its job is the
// library's matter (pm_info::detachment), here only is told what is left.
#ifndef RUNNER_PLACEMENT_H
#define RUNNER_PLACEMENT_H

#include <jansson.h>
#include <processmgr/processmgr.h>

enum placement_kind {
    PLACEMENT_FREE = 0, // Nothing to leave, or what is around it spares it.
    PLACEMENT_GROUP,    // In a control group of its own below the one that was named.
    PLACEMENT_SCOPE,    // In a scope of its own.
    PLACEMENT_INSIDE    // Still in the runner's control group, or somebody's job.
};

struct placement {
    enum placement_kind kind;
    char group[4096];   // Its control group, "" where there are none.
    char folder[4200];  // Of the one that was made for it, in the file system; else "".
    char warning[1024]; // "": nothing to warn of.
};

// Moves the holder, which has no child yet. For a worker: it may take 2 s.
void placement_move(pm_manager *manager, const char *id, uint64_t pid, struct placement *ret);
// The same about one that runs, without moving it.
void placement_look(uint64_t pid, struct placement *ret);
// For many that run: what is the same for all is looked at once.
struct placement_home {
    bool looked;
    struct placement inside; // Of one that is where we are.
};
void placement_home(struct placement_home *ret);
// Adds what there is to warn of.
void placement_check(const struct placement_home *home, uint64_t pid, json_t *warnings);
// Adds what there is to warn of.
void placement_warn(const struct placement *placement, json_t *warnings);
// What is left in the group that was made for the holder of this session, and was found then under
// this name: it is killed, whatever session or parent it has. `but_holder`: the holder, which
// lives, is not; otherwise nothing is touched if it is there. For a worker: it may take 1 s. 0:
// nothing was left; 1: all of it has ended; UV_ETIMEDOUT: it has not, or cannot be told from
// strangers.
int placement_end(const char *folder, const char *id, bool but_holder);
#define PLACEMENT_PREFIX "processmgr-pod-"
// A control group that was made for a pod.
bool placement_is_own(const char *group);

#endif
