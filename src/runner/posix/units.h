// What systemd and logind will do to the processes of a control group, from their files.
#ifndef RUNNER_POSIX_UNITS_H
#define RUNNER_POSIX_UNITS_H

#include "runner/inspect.h"

struct unit {
    char name[256];
    bool user;          // Of a user's manager.
    bool scope;         // No service.
    unsigned long uid;  // Of the user.slice that it is below; UNIT_NO_UID: of none.
    bool session;       // The scope of a login.
    char kill_mode[32]; // "": no unit file was found.
    bool delegate;
    char file[1024]; // That says so last; "".
};
#define UNIT_NO_UID (~0ul)

// false: the group is of no unit.
bool unit_of(const struct inspect_roots *roots, const char *group, struct unit *ret_unit);
// Whether a stop of it leaves processes alone that are not its first one.
bool unit_spares(const struct unit *unit);

struct logind {
    int kill; // KillUserProcesses: 0 no, 1 yes, -1 not known.
    bool linger;
    char user[64];
};
void logind_of(const struct inspect_roots *roots, unsigned long uid, struct logind *ret_logind);

#endif
