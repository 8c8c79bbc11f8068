#include "sys.h"

#include "group.h"

#include "error.h"
#include "guards.h"
#include "identity.h"
#include "proctable.h"
#include "reap.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

// ------------------------------------------------------------------------------------------------
// The process table
// ------------------------------------------------------------------------------------------------

// Who forks faster than we look, for that long, cannot be told about.
#define LOOK_MS 500
// More new numbers than the table has entries and this, or fewer than none: the whole table is
// looked at again.
#define NEW_NUMBERS_MOST 4096

struct search {
    pid_t group;     // 0 = any.
    pid_t session;   // 0 = any.
    uint64_t oldest; // Start time; 0 = any.
    pid_t except;    // 0 = nobody.
    pid_t other;     // Nobody of this group; 0 = whatever group.
    int signal;      // For all that are found; 0 = the first one found is enough.
};

// Of two findings the later one in this list counts.
enum found {
    NOBODY,
    CANNOT_TELL,
    SOMEBODY
};

static enum found both(enum found a, enum found b)
{
    return a > b ? a : b;
}

// Pinned first, then seen to be the same still. A kill takes its whole group where the kernel does
// that by a member (6.9): so nobody of it can fork away from us.
static void signal_found(pid_t pid, const struct pmi_stat *found, int signal_number)
{
    struct pmi_stat now;
    int pidfd = -1;
#ifdef HAVE_PIDFD
    pidfd = pmi_sys_pidfd_open(pid);
    if (pidfd < 0 && errno == EINVAL)
        return; // A thread of somebody who is found by his own number.
#endif
    if (pmi_stat_read(pid, &now) == PM_OK && now.starttime == found->starttime &&
        now.session == found->session) {
#ifdef HAVE_PIDFD
        if (pidfd >= 0 && signal_number == SIGKILL)
            (void)pmi_group_pidfd_signal(pidfd, signal_number);
        if (pidfd < 0 || pmi_sys_pidfd_send_signal(pidfd, signal_number, 0) != 0)
#endif
            (void)pmi_sys_kill(pid, signal_number);
    }
    (void)pmi_sys_close(pidfd);
}

static enum found look_at(const struct search *search, pid_t pid)
{
    struct pmi_stat stat;
    int result = pid == search->except ? PM_ERR_GONE : pmi_stat_read(pid, &stat);
    if (result != PM_OK)
        return result == PM_ERR_GONE || result == PM_ERR_ACCESS ? NOBODY : CANNOT_TELL;
    bool matches = !pmi_stat_is_dead(&stat) && (search->group == 0 || stat.pgrp == search->group) &&
                   (search->session == 0 || stat.session == search->session) &&
                   (search->other == 0 || stat.pgrp != search->other) &&
                   (uint64_t)stat.starttime >= search->oldest;
    if (matches && search->signal != 0)
        signal_found(pid, &stat, search->signal);
    return matches ? SOMEBODY : NOBODY;
}

static bool is_enough(const struct search *search, enum found found)
{
    return found == SOMEBODY && search->signal == 0;
}

struct look {
    const struct search *search;
    enum found found;
    long entries;
};

static bool look_at_next(void *context, pid_t pid)
{
    struct look *look = context;
    look->entries++;
    look->found = both(look->found, look_at(look->search, pid));
    return !is_enough(look->search, look->found);
}

static enum found look_at_all(const struct search *search, long *ret_entries)
{
    struct look look = {.search = search, .found = NOBODY};
    int e = pmi_pids_visit(look_at_next, &look);
    *ret_entries = look.entries;
    return e == 0 ? look.found : both(look.found, CANNOT_TELL);
}

// The number that was given out last, to whatever process or thread; -1 = not told.
static long last_number(void)
{
    char text[128];
    int fd = pmi_sys_open("/proc/loadavg", O_RDONLY, 0);
    ssize_t n = fd < 0 ? -1 : pmi_sys_read(fd, text, sizeof(text) - 1);
    (void)pmi_sys_close(fd);
    if (n <= 0)
        return -1;
    text[n] = '\0';
    const char *last = strrchr(text, ' ');
    return last != NULL ? strtol(last + 1, NULL, 10) : -1;
}

// The list of a look is as old as its beginning: who forks and ends meanwhile is not in it, nor is
// his child. But numbers are given out in order, so that everybody new has one of those since; the
// look is over when there are none. Its time begins behind the list, which may be long.
static enum found look_for(const struct search *search)
{
    long before = last_number(), entries;
    enum found found = look_at_all(search, &entries);
    int64_t deadline = pmi_now_ms() + LOOK_MS;
    while (before >= 0 && !is_enough(search, found) && !PMI_WITHOUT("complete looks")) {
        long after = last_number();
        if (after == before)
            return found;
        if (after < 0 || pmi_now_ms() >= deadline)
            return both(found, CANNOT_TELL);
        if (after < before || after - before > entries + NEW_NUMBERS_MOST)
            found = both(found, look_at_all(search, &entries));
        else
            for (long pid = before + 1; pid <= after; pid++)
                found = both(found, look_at(search, (pid_t)pid));
        before = after;
    }
    return found;
}

// ------------------------------------------------------------------------------------------------
// Signals
// ------------------------------------------------------------------------------------------------

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

// Whether the number still is the group's: its leader is there, unreaped by us or proven to be the
// same; or, once that is gone, a member is that is young enough and of the right session.
static bool is_still_ours(const struct pmi_os_process *op)
{
    if (op->child && !op->reaped)
        return true;
    struct pmi_identity id;
    if (!op->child && pmi_os_process_identity(op, &id) == PM_OK &&
        pmi_os_identity_check(&id) == PM_OK)
        return true;
    // No process is given the number of a group that still has members: if another one has it now,
    // ours is gone.
    struct pmi_stat leader;
    if (op->start != 0 && pmi_stat_read(op->pid, &leader) == PM_OK && leader.starttime != op->start)
        return false;
    struct search search = {.group = op->pid, .session = op->session, .oldest = op->start};
    return look_for(&search) == SOMEBODY;
}

// 0 or errno.
static int deliver(const struct pmi_os_process *op, int signal_number)
{
#ifdef HAVE_PIDFD
    if (op->pidfd >= 0) {
        int e = pmi_group_pidfd_signal(op->pidfd, signal_number);
        if (e == 0 || e == ESRCH)
            return e; // Else an old kernel, or a seccomp filter, or really forbidden: kill() tells.
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
    struct search search = {.group = op->pid, .except = op->pid};
    return look_for(&search) != NOBODY;
}

bool pmi_group_is_dead(pid_t group)
{
    struct search search = {.group = group};
    if (group <= 1)
        return false;
    return (pmi_sys_kill(-group, 0) < 0 && errno == ESRCH) || look_for(&search) == NOBODY;
}

// Of a session whose leader is gone another process may have the number: then it has no member of
// ours left, or that process would have got another one. When ours began may not be known, where
// somebody else had waited for it at once: then whoever has the number is a stranger, or the last
// trace of ours.
static enum found owner_of_session(const struct pmi_os_process *op)
{
    struct pmi_stat leader;
    int result = pmi_stat_read(op->pid, &leader);
    if (result != PM_OK)
        return result == PM_ERR_GONE ? NOBODY : CANNOT_TELL;
    if (op->session_start == 0)
        return pmi_stat_is_dead(&leader) ? CANNOT_TELL : SOMEBODY;
    return leader.starttime == op->session_start ? NOBODY : SOMEBODY;
}

// Once it was seen empty, any of that number is another one. Its leader's group is looked at first:
// nobody can join that when it is gone, but from it any of the others.
static enum found look_for_session(struct pmi_os_process *op, int signal_number)
{
    struct search search = {.session = op->session,
                            .oldest = op->session_start,
                            .except = getpid(),
                            .other = op->pid,
                            .signal = signal_number};
    if (!op->whole_session)
        return NOBODY;
    if (op->child && !op->reaped)
        return look_for(&search);
    bool group_gone = pmi_sys_kill(-op->pid, 0) < 0 && errno == ESRCH;
    enum found owner = owner_of_session(op);
    enum found found = owner == CANNOT_TELL ? CANNOT_TELL
                       : owner == SOMEBODY  ? NOBODY
                                            : look_for(&search);
    op->whole_session = found != NOBODY || (owner != SOMEBODY && !group_gone);
    return found;
}

bool pmi_session_signal(struct pmi_os_process *op, int signal_number)
{
    return look_for_session(op, signal_number) == SOMEBODY;
}

bool pmi_session_alive(struct pmi_os_process *op)
{
    return look_for_session(op, op->condemned ? SIGKILL : 0) != NOBODY;
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
        pmi_stat_read(op->pid, &stat) == PM_OK) {
        op->start = id.start;
        op->pidns = id.pidns;
        op->pidfs = id.pidfs;
        op->session = stat.session;
    }
}
