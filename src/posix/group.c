#include "sys.h"

#include "group.h"

#include "error.h"
#include "identity.h"
#include "look.h"
#include "reap.h"

#include <errno.h>
#include <stdatomic.h>

#ifdef HAVE_PIDFD
int pmi_group_pidfd_signal(int pidfd, int signal_number)
{
    const unsigned process_group = 1U << 2; // PIDFD_SIGNAL_PROCESS_GROUP
    return pmi_sys_pidfd_send_signal(pidfd, signal_number, process_group) == 0 ? 0 : errno;
}
#endif

// The numbers that kill(-pgid) gives another meaning, and ourselves, are never signalled.
static int kill_group(pid_t group, int signal_number)
{
    if (group <= 1 || group == getpgrp())
        return ESRCH;
    return pmi_sys_kill(-group, signal_number) == 0 ? 0 : errno;
}

// Whether the number still is the group's: its leader is there, not waited for by anybody or proven
// to be the same; or, once that is gone, a member is that is young enough and of the right session.
// When ours began is not known of a child that somebody else was the first to wait for: a stranger.
static bool is_still_ours(const struct pmi_os_process *op)
{
    // No process is given the number of a group that still has members: if another one has it now,
    // ours is gone.
    struct pmi_stat leader;
    if (op->start != 0 && pmi_stat_read(op->pid, &leader) == PM_OK && leader.starttime != op->start)
        return false;
    if (op->child && !op->reaped && pmi_child_is_ours(op->pid, op->pidfd))
        return true;
    if (op->child && op->start == 0)
        return false;
    struct pmi_identity id;
    if (!op->child && pmi_os_process_identity(op, &id) == PM_OK &&
        pmi_os_identity_check(&id) == PM_OK)
        return true;
    struct pmi_search search = {.group = op->pid, .session = op->session, .oldest = op->start};
    return pmi_look_for(&search) == PMI_SOMEBODY;
}

#ifdef HAVE_PIDFD
// After a signal to a group through a pidfd has failed: in an old kernel, or for a seccomp filter,
// or really forbidden: kill() tells. But EINVAL is also the word for another pid namespace than
// that of the pidfd, where the number is a stranger's.
static bool may_go_by_number(int pidfd, int e)
{
    return pmi_sys_is_refused(e) ||
           (e == EINVAL && (pmi_sys_pidfd_send_signal(pidfd, 0, 0) == 0 || errno != EINVAL));
}
#endif

// 0 or errno.
static int deliver(const struct pmi_os_process *op, int signal_number)
{
#ifdef HAVE_PIDFD
    if (op->pidfd >= 0) {
        int e = pmi_group_pidfd_signal(op->pidfd, signal_number);
        if (e == 0 || e == ESRCH || !may_go_by_number(op->pidfd, e))
            return e;
    }
#endif
    // Signal 0 reaches nobody: where there is no such group, nobody has to be looked for.
    if (kill_group(op->pid, 0) == ESRCH)
        return ESRCH;
    return is_still_ours(op) ? kill_group(op->pid, signal_number) : ESRCH;
}

int pmi_group_signal(const struct pmi_os_process *op, int signal_number)
{
    int e = deliver(op, signal_number);
    return e == 0 ? PM_OK : pmi_error_from_errno(e);
}

bool pmi_group_alive(const struct pmi_os_process *op, bool leader_ended)
{
    int e = deliver(op, 0);
    if (e == ESRCH)
        return false;
    if (!leader_ended)
        return true;
    // Somebody is there, perhaps only zombies: the leader itself, or orphans that wait for a slow
    // PID 1.
    struct pmi_search search = {.group = op->pid, .except = op->pid};
    return pmi_look_for(&search) != PMI_NOBODY;
}

bool pmi_group_is_dead(pid_t group)
{
    struct pmi_search search = {.group = group};
    if (group <= 1)
        return false;
    return (pmi_sys_kill(-group, 0) < 0 && errno == ESRCH) || pmi_look_for(&search) == PMI_NOBODY;
}

// Of a session whose leader is gone another process may have the number: then it has no member of
// ours left, or that process would have got another one. When ours began may not be known, where
// somebody else had waited for it at once: then whoever has the number is a stranger, or the last
// trace of ours.
static enum pmi_found owner_of_session(const struct pmi_os_process *op)
{
    struct pmi_stat leader;
    int result = pmi_stat_read(op->pid, &leader);
    if (result != PM_OK)
        return result == PM_ERR_GONE ? PMI_NOBODY : PMI_CANNOT_TELL;
    if (op->session_start == 0)
        return pmi_stat_is_dead(&leader) ? PMI_CANNOT_TELL : PMI_SOMEBODY;
    return leader.starttime == op->session_start ? PMI_NOBODY : PMI_SOMEBODY;
}

// Once it was seen empty, any of that number is another one. Its leader's group is looked at first:
// nobody can join that when it is gone, but from it any of the others. Those in it are not
// signalled twice, but by a kill: who goes from group to group would be met in none.
static enum pmi_found look_for_session(struct pmi_os_process *op, int signal_number)
{
    bool all = signal_number == 0 || signal_number == SIGKILL;
    struct pmi_search search = {.session = op->session,
                                .oldest = op->session_start,
                                .except = getpid(),
                                .other = all ? 0 : op->pid,
                                .signal = signal_number};
    if (!op->whole_session)
        return PMI_NOBODY;
    if (op->child && !op->reaped)
        return pmi_look_for(&search);
    bool group_gone = pmi_sys_kill(-op->pid, 0) < 0 && errno == ESRCH;
    enum pmi_found owner = owner_of_session(op);
    enum pmi_found found = owner == PMI_CANNOT_TELL ? PMI_CANNOT_TELL
                           : owner == PMI_SOMEBODY  ? PMI_NOBODY
                                                    : pmi_look_for(&search);
    op->whole_session = found != PMI_NOBODY || (owner != PMI_SOMEBODY && !group_gone);
    return found;
}

bool pmi_session_signal(struct pmi_os_process *op, int signal_number)
{
    return look_for_session(op, signal_number) == PMI_SOMEBODY;
}

bool pmi_session_alive(struct pmi_os_process *op)
{
    return look_for_session(op, op->condemned ? SIGKILL : 0) != PMI_NOBODY;
}

void pmi_session_remember(struct pmi_os_process *op)
{
    struct pmi_stat stat;
    // Nobody has waited for it: so that was it.
    if (op->whole_session && op->session_start == 0 && pmi_stat_read(op->pid, &stat) == PM_OK &&
        pmi_child_look(op->pid) >= 0)
        op->session_start = stat.starttime;
}

void pmi_group_remember(struct pmi_os_process *op)
{
    struct pmi_stat stat;
    pmi_session_remember(op);
    if (!op->group || op->start != 0)
        return;
#ifdef HAVE_PIDFD
    // Known once for all: the kernel does not unlearn it.
    static atomic_bool knows_groups;
    if (op->pidfd >= 0 && atomic_load_explicit(&knows_groups, memory_order_relaxed))
        return;
    if (op->pidfd >= 0 && pmi_group_pidfd_signal(op->pidfd, 0) == 0) {
        atomic_store_explicit(&knows_groups, true, memory_order_relaxed);
        return;
    }
#endif
    struct pmi_identity id;
    if (pmi_identity_of(op->pid, op->pidfd, &id) == PM_OK &&
        pmi_stat_read(op->pid, &stat) == PM_OK &&
        (!op->child || pmi_child_is_ours(op->pid, op->pidfd))) {
        op->start = id.start;
        op->pidns = id.pidns;
        op->pidfs = id.pidfs;
        op->session = pmi_session_of(&stat);
    }
}
