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
#include <signal.h>
#include <stdlib.h>

#include "posix/identity.h"
#include "posix/sys.h"
#include "posix/zombies.h"

#include "poddaemon/os.h"

#define ROUNDS_MAX 16 // Of a kill: who forks faster than that is not caught up with.
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

static bool is_alive(const struct member *member)
{
    struct pmi_stat stat;
    return pmi_stat_read(member->pid, &stat) == PM_OK &&
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
    struct pod_stray *list =
        is_known(strays, member)
            ? NULL
            : realloc(strays->list, (strays->count + 1) * sizeof *strays->list);
    if (list == NULL) {
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
    if (pmi_stat_read(pid, &stat) != PM_OK || stat.ppid != walk->parent.pid ||
        !is_alive(&walk->parent)) {
        (void)pmi_sys_close(pidfd);
        return;
    }
    const struct member member = {pid, (uint64_t)stat.starttime};
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
        if (is_alive(&walk.parent)) {
            (void)pmi_children_visit(walk.parent.pid, take_child, &walk);
        }
    }
    return walk.found_new;
}

void pod_strays_begin(struct pod_strays *strays, uint64_t child)
{
    struct pmi_stat stat;
    *strays = (struct pod_strays){0};
    if (pmi_stat_read((pid_t)child, &stat) == PM_OK) {
        strays->child = (pid_t)child;
        strays->child_start = (uint64_t)stat.starttime;
    }
}

void pod_strays_note(struct pod_strays *strays)
{
    if (strays->child > 1) {
        (void)find(strays);
    }
}

static void deliver(const struct pod_stray *stray, int number)
{
    const struct member member = {stray->pid, stray->start};
#ifdef HAVE_PIDFD
    if (stray->pidfd >= 0) {
        (void)pmi_sys_pidfd_send_signal(stray->pidfd, number, 0);
        return;
    }
#endif
    if (stray->pid > 1 && is_alive(&member)) {
        (void)pmi_sys_kill(stray->pid, number);
    }
}

static void deliver_all(const struct pod_strays *strays, int number)
{
    for (size_t i = 0; i < strays->count; i++) {
        deliver(&strays->list[i], number);
    }
}

void pod_strays_terminate(struct pod_strays *strays)
{
    deliver_all(strays, SIGTERM);
    deliver_all(strays, SIGCONT);
}

void pod_strays_kill(struct pod_strays *strays)
{
    for (int round = 0; strays->child > 1 && round < ROUNDS_MAX; round++) {
        bool found_new = find(strays); // Before they are dead and their children somebody else's.
        deliver_all(strays, SIGKILL);
        if (!found_new) {
            return;
        }
    }
}

void pod_strays_clear(struct pod_strays *strays)
{
    for (size_t i = 0; i < strays->count; i++) {
        (void)pmi_sys_close(strays->list[i].pidfd);
    }
    free(strays->list);
    *strays = (struct pod_strays){0};
}
