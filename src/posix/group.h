// Process groups: signals to them and what is left in them, also after the leader is gone.
#ifndef PMI_POSIX_GROUP_H
#define PMI_POSIX_GROUP_H

#include "backend.h"
#include "pmi_config.h"

// Whether members of a session can be found at all.
#ifdef __linux__
#define PMI_SEES_SESSIONS true
#else
#define PMI_SEES_SESSIONS false
#endif

// Sends to the group that `op` leads. PM_ERR_GONE, PM_ERR_ACCESS, PM_ERR_SYSTEM.
int pmi_group_signal(const struct pmi_os_process *op, int signal_number);
// Whether there is anybody alive in it; the leader does not count once it has ended.
bool pmi_group_alive(const struct pmi_os_process *op, bool leader_ended);
// Whether nobody lives in the group of that number, for sure.
bool pmi_group_is_dead(pid_t group);
// The other groups of the session that `op` leads, where that is all its own (PTY mode,
// new_session): sends to their processes, also to those who are born meanwhile. Whether there was
// anybody.
bool pmi_session_signal(struct pmi_os_process *op, int signal_number);
// Whether anybody is there, or that cannot be told. Of a condemned one it kills whom it finds.
bool pmi_session_alive(struct pmi_os_process *op);
// Once it has begun: by what its session is told from another one of that number.
void pmi_session_remember(struct pmi_os_process *op);
// To be called once it has begun, and before the leader is waited for: notes what pmi_group_signal
// needs afterwards where the kernel cannot send to a group through a pidfd.
void pmi_group_remember(struct pmi_os_process *op);

#ifdef HAVE_PIDFD
// One signal through a pidfd to the process or, Linux 6.9, to the group that it leads or led. The
// pidfd pins the number of the group: safe after the leader was waited for. 0 or errno; EINVAL:
// this kernel cannot.
int pmi_group_pidfd_signal(int pidfd, int signal_number);
#endif

#endif
