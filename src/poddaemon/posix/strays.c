// Who has left the child's session, and with it what the library holds the child's tree together
// by.
//
// They are found by their parents, as long as each of those lives: a daemon, which has let go of
// its parent, is meant to live on, and may be a runner that other sessions depend on. So they have
// to be noted before the first signal goes out: who ends of it leaves children that nothing ties to
// us any more.
//
// The library's way to hold all descendants (pm_options::own_process) is not for us: it ends
// daemons, too, and looks for orphans ten times a second, while an idle holder shall not wake up.
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

#include "posix/identity.h"
#include "posix/sys.h"
#include "posix/zombies.h"

#include "poddaemon/os.h"

#define ROUNDS_MAX 16 // Of a kill: each stops who is found.
#define WALK_MAX 4096
#define PIDFDS_MAX 64 // Held between the two steps of a stop; others are known by their start.

struct member {
    pid_t pid;
    uint64_t start;
};

struct walk {
    struct pod_strays *strays;
    struct member parent;
    struct member members[WALK_MAX];
    size_t count;
    bool found_new;
};

// The first want of something is what is told. Others say nothing about the rest of the tree: who
// was looked at is gone, or there is no /proc.
static bool is_well(struct pod_strays *strays, int result)
{
    if (strays->trouble == PM_OK &&
        (result == PM_ERR_NO_DESCRIPTORS || result == PM_ERR_NO_MEMORY)) {
        strays->trouble = result;
    }
    return result == PM_OK;
}

static bool is_alive(struct pod_strays *strays, const struct member *member)
{
    struct pmi_stat stat;
    return is_well(strays, pmi_stat_read(member->pid, &stat)) &&
           (uint64_t)stat.starttime == member->start && !pmi_stat_is_dead(&stat);
}

static bool is_known(const struct pod_strays *strays, const struct member *member)
{
    for (size_t i = 0; i < strays->count; i++) {
        if (strays->list[i].pid == member->pid && strays->list[i].start == member->start) {
            return true;
        }
    }
    return false;
}

// Takes the pidfd.
static void add_stray(struct walk *walk, const struct member *member, int pidfd)
{
    struct pod_strays *strays = walk->strays;
    struct pod_stray *list = realloc(strays->list, (strays->count + 1) * sizeof *strays->list);
    if (!is_well(strays, list != NULL ? PM_OK : PM_ERR_NO_MEMORY)) {
        (void)pmi_sys_close(pidfd);
        return;
    }
    if (strays->count >= PIDFDS_MAX) {
        (void)pmi_sys_close(pidfd);
        pidfd = -1;
    }
    strays->list = list;
    list[strays->count++] = (struct pod_stray){member->pid, pidfd, member->start};
    walk->found_new = true;
}

// The kernel's object first, the proof after: its parent is still the one that it was listed for.
static void take_child(void *context, pid_t pid)
{
    struct walk *walk = context;
    struct pmi_stat stat;
    if (pid <= 1 || walk->count == WALK_MAX) {
        return;
    }
    int pidfd = -1;
#ifdef HAVE_PIDFD
    pidfd = pmi_sys_pidfd_open(pid);
#endif
    if (!is_well(walk->strays, pmi_stat_read(pid, &stat)) || stat.ppid != walk->parent.pid ||
        !is_alive(walk->strays, &walk->parent)) {
        (void)pmi_sys_close(pidfd);
        return;
    }
    const struct member member = {pid, (uint64_t)stat.starttime};
    if (is_known(walk->strays, &member)) { // It is among those that the walk has begun with.
        (void)pmi_sys_close(pidfd);
        return;
    }
    walk->members[walk->count++] = member;
    if (stat.session != walk->strays->child && !pmi_stat_is_dead(&stat)) {
        add_stray(walk, &member, pidfd);
    } else {
        (void)pmi_sys_close(pidfd);
    }
}

static bool find(struct pod_strays *strays)
{
    static struct walk walk; // Of our one thread; untouched until the first stop.
    walk.strays = strays;
    walk.count = 0;
    walk.found_new = false;
    walk.members[walk.count++] = (struct member){strays->child, strays->child_start};
    for (size_t i = 0; i < strays->count; i++) {
        if (walk.count < WALK_MAX) {
            walk.members[walk.count++] =
                (struct member){strays->list[i].pid, strays->list[i].start};
        }
    }
    for (size_t i = 0; i < walk.count; i++) {
        walk.parent = walk.members[i];
        if (is_alive(strays, &walk.parent)) {
            (void)is_well(strays, pmi_children_visit(walk.parent.pid, take_child, &walk));
        }
    }
    return walk.found_new;
}

// Nothing but what it is of ours proves the number: it may have ended by now.
static bool knows_child(struct pod_strays *strays)
{
    struct pmi_stat stat;
    if (strays->child_start == 0 && strays->child > 1 && !pmi_proc_is_foreign() &&
        is_well(strays, pmi_stat_read(strays->child, &stat)) && stat.ppid == getpid()) {
        strays->child_start = (uint64_t)stat.starttime;
    }
    return strays->child_start != 0;
}

static int take_trouble(struct pod_strays *strays)
{
    int trouble = strays->trouble;
    strays->trouble = PM_OK;
    return trouble;
}

int pod_strays_begin(struct pod_strays *strays, uint64_t child)
{
    *strays = (struct pod_strays){.child = (pid_t)child};
    (void)knows_child(strays);
    return take_trouble(strays);
}

int pod_strays_note(struct pod_strays *strays)
{
    if (knows_child(strays)) {
        (void)find(strays);
    }
    return take_trouble(strays);
}

// Without a pidfd of before: one that is opened now is of whom the look behind it finds. By number
// alone only where the system has nothing better.
static void deliver(struct pod_strays *strays, const struct pod_stray *stray, int number)
{
    const struct member member = {stray->pid, stray->start};
    int pidfd = stray->pidfd;
    bool sent = false;
#ifdef HAVE_PIDFD
    pidfd = pidfd >= 0 ? pidfd : pmi_sys_pidfd_open(stray->pid);
    if (pidfd >= 0 && (pidfd == stray->pidfd || is_alive(strays, &member))) {
        sent = pmi_sys_pidfd_send_signal(pidfd, number, 0) == 0 || errno == ESRCH;
    }
#endif
    if (!sent && stray->pid > 1 && is_alive(strays, &member)) {
        (void)pmi_sys_kill(stray->pid, number);
    }
    if (pidfd != stray->pidfd) {
        (void)pmi_sys_close(pidfd);
    }
}

static void deliver_all(struct pod_strays *strays, int number)
{
    for (size_t i = 0; i < strays->count; i++) {
        deliver(strays, &strays->list[i], number);
    }
}

int pod_strays_terminate(struct pod_strays *strays)
{
    deliver_all(strays, SIGTERM);
    deliver_all(strays, SIGCONT);
    return take_trouble(strays);
}

// Who is stopped has no more children: the kernel takes no fork() back to a process that has the
// signal. So all of them are found before the first is dead and its children are somebody else's.
int pod_strays_kill(struct pod_strays *strays)
{
    bool found_new = knows_child(strays);
    for (int round = 0; found_new && round < ROUNDS_MAX; round++) {
        found_new = find(strays) || (round == 0 && strays->count > 0);
        deliver_all(strays, SIGSTOP);
    }
    deliver_all(strays, SIGKILL);
    return take_trouble(strays);
}

void pod_strays_clear(struct pod_strays *strays)
{
    for (size_t i = 0; i < strays->count; i++) {
        (void)pmi_sys_close(strays->list[i].pidfd);
    }
    free(strays->list);
    *strays = (struct pod_strays){0};
}
