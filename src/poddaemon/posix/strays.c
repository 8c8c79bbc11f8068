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

#include "posix/error.h"
#include "posix/identity.h"
#include "posix/proctable.h"
#include "posix/sys.h"
#include "posix/zombies.h"

#include "poddaemon/os.h"

#define ROUNDS_MAX 16 // Of a kill.
#define WALK_MAX 4096

struct relation {
    pid_t pid, parent;
};

struct member {
    struct pod_stray process;
    bool is_new; // A stray that was not known.
};

struct walk {
    struct pod_strays *strays;
    struct pod_stray parent;
    struct member members[WALK_MAX];
    size_t count;
    bool found_new;
    // All processes, where the kernel has no lists of children: looked at once in a walk.
    bool has_table;
    struct relation *table;
    size_t table_size, table_capacity;
};

// The first want of something is what is told. Others say nothing about the rest of the tree: who
// was looked at is gone, or there is no /proc.
static bool is_well(struct pod_strays *strays, int result)
{
    if (strays->trouble == PM_OK && (result == PM_ERR_NO_DESCRIPTORS ||
                                     result == PM_ERR_NO_MEMORY || result == PM_ERR_TOO_BIG)) {
        strays->trouble = result;
    }
    return result == PM_OK;
}

static int take_trouble(struct pod_strays *strays)
{
    int trouble = strays->trouble;
    strays->trouble = PM_OK;
    return trouble;
}

// ------------------------------------------------------------------------------------------------
// Descriptors in reserve: who has connected may have all others
// ------------------------------------------------------------------------------------------------

static void let_spare(struct pod_strays *strays)
{
    for (size_t i = 0; i < POD_STRAYS_SPARE; i++) {
        (void)pmi_sys_close(strays->spare[i] > 0 ? strays->spare[i] : -1);
        strays->spare[i] = 0;
    }
}

static void keep_spare(struct pod_strays *strays)
{
    for (size_t i = 0; i < POD_STRAYS_SPARE; i++) {
        if (strays->spare[i] == 0) {
            int fd = pmi_sys_open("/", O_RDONLY | O_DIRECTORY, 0);
            strays->spare[i] = fd > 0 ? fd : 0;
        }
    }
}

// ------------------------------------------------------------------------------------------------
// One of them
// ------------------------------------------------------------------------------------------------

static bool is_alive(struct pod_strays *strays, const struct pod_stray *process)
{
    struct pmi_stat stat;
    return is_well(strays, pmi_stat_read(process->pid, &stat)) &&
           (uint64_t)stat.starttime == process->start && !pmi_stat_is_dead(&stat);
}

// The kernel's object first: it is of whom the look behind it finds. By number alone only where the
// system has nothing better.
static void deliver(struct pod_strays *strays, const struct pod_stray *stray, int number)
{
    int pidfd = -1;
    bool sent = false;
#ifdef HAVE_PIDFD
    pidfd = pmi_sys_pidfd_open(stray->pid);
#endif
    if (is_alive(strays, stray)) {
#ifdef HAVE_PIDFD
        sent = pidfd >= 0 && (pmi_sys_pidfd_send_signal(pidfd, number, 0) == 0 || errno == ESRCH);
#endif
        if (!sent) {
            (void)pmi_sys_kill(stray->pid, number);
        }
    }
    (void)pmi_sys_close(pidfd);
}

static void deliver_all(struct pod_strays *strays, int number)
{
    for (size_t i = 0; i < strays->count; i++) {
        deliver(strays, &strays->list[i], number);
    }
}

// ------------------------------------------------------------------------------------------------
// The look for them
// ------------------------------------------------------------------------------------------------

static bool is_known(const struct pod_strays *strays, const struct pod_stray *process)
{
    for (size_t i = 0; i < strays->count; i++) {
        if (strays->list[i].pid == process->pid && strays->list[i].start == process->start) {
            return true;
        }
    }
    return false;
}

static void add_stray(struct walk *walk, const struct pod_stray *process)
{
    struct pod_strays *strays = walk->strays;
    struct pod_stray *list = realloc(strays->list, (strays->count + 1) * sizeof *strays->list);
    if (is_well(strays, list != NULL ? PM_OK : PM_ERR_NO_MEMORY)) {
        strays->list = list;
        list[strays->count++] = *process;
        walk->found_new = true;
    }
}

// It has the parent that it was listed for, and that is who we think it is: so it is one of ours.
static void take_child(void *context, pid_t pid)
{
    struct walk *walk = context;
    struct pod_strays *strays = walk->strays;
    struct pmi_stat stat;
    if (pid <= 1 || !is_well(strays, pmi_stat_read(pid, &stat)) || stat.ppid != walk->parent.pid ||
        !is_alive(strays, &walk->parent)) {
        return;
    }
    const struct pod_stray process = {pid, (uint64_t)stat.starttime};
    if (is_known(strays, &process) || // It is among those that the walk has begun with.
        !is_well(strays, walk->count < WALK_MAX ? PM_OK : PM_ERR_TOO_BIG)) {
        return;
    }
    bool stray = stat.session != strays->child && !pmi_stat_is_dead(&stat);
    walk->members[walk->count++] = (struct member){process, stray};
    if (stray) {
        add_stray(walk, &process);
    }
}

static bool add_relation(void *context, pid_t pid)
{
    struct walk *walk = context;
    struct pmi_stat stat;
    if (!is_well(walk->strays, pmi_stat_read(pid, &stat))) {
        return true;
    }
    if (walk->table_size == walk->table_capacity) {
        size_t capacity = walk->table_capacity > 0 ? 2 * walk->table_capacity : 256;
        struct relation *table = realloc(walk->table, capacity * sizeof *table);
        if (!is_well(walk->strays, table != NULL ? PM_OK : PM_ERR_NO_MEMORY)) {
            return false;
        }
        walk->table = table;
        walk->table_capacity = capacity;
    }
    walk->table[walk->table_size++] = (struct relation){pid, stat.ppid};
    return true;
}

static void look_in_table(struct walk *walk)
{
    if (!walk->has_table) {
        walk->has_table = true;
        int e = pmi_pids_visit(add_relation, walk);
        (void)is_well(walk->strays, e != 0 ? pmi_error_from_errno(e) : PM_OK);
    }
    for (size_t i = 0; i < walk->table_size; i++) {
        if (walk->table[i].parent == walk->parent.pid) {
            take_child(walk, walk->table[i].pid);
        }
    }
}

static void look_below(struct walk *walk)
{
    int result = walk->has_table ? PM_ERR_UNSUPPORTED
                                 : pmi_children_list(walk->parent.pid, take_child, walk);
    if (result == PM_ERR_UNSUPPORTED) {
        look_in_table(walk);
    } else {
        (void)is_well(walk->strays, result);
    }
}

// Whether there are any that were not known. `stop`: they are stopped before their children are
// looked for.
static bool find(struct pod_strays *strays, bool stop)
{
    static struct walk walk; // Of our one thread; untouched until the first stop.
    walk.strays = strays;
    walk.count = 0;
    walk.found_new = walk.has_table = false;
    walk.table = NULL;
    walk.table_size = walk.table_capacity = 0;
    walk.members[walk.count++] = (struct member){{strays->child, strays->child_start}, false};
    for (size_t i = 0; i < strays->count && walk.count < WALK_MAX; i++) {
        walk.members[walk.count++] = (struct member){strays->list[i], false};
    }
    for (size_t i = 0; i < walk.count; i++) {
        walk.parent = walk.members[i].process;
        if (stop && walk.members[i].is_new) {
            deliver(strays, &walk.parent, SIGSTOP);
        }
        if (is_alive(strays, &walk.parent)) {
            look_below(&walk);
        }
    }
    free(walk.table);
    return walk.found_new;
}

// ------------------------------------------------------------------------------------------------
// The steps of a stop
// ------------------------------------------------------------------------------------------------

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

int pod_strays_begin(struct pod_strays *strays, uint64_t child)
{
    *strays = (struct pod_strays){.child = (pid_t)child};
    (void)knows_child(strays);
    keep_spare(strays);
    return take_trouble(strays);
}

int pod_strays_note(struct pod_strays *strays)
{
    let_spare(strays);
    if (knows_child(strays)) {
        (void)find(strays, false);
    }
    return take_trouble(strays);
}

int pod_strays_terminate(struct pod_strays *strays)
{
    deliver_all(strays, SIGTERM);
    deliver_all(strays, SIGCONT);
    keep_spare(strays);
    return take_trouble(strays);
}

// Who is stopped has no more children: the kernel takes no fork() back to a process that has the
// signal. So all of them are found before the first is dead and its children are somebody else's.
int pod_strays_kill(struct pod_strays *strays)
{
    bool found_new = knows_child(strays);
    for (int round = 0; found_new && round < ROUNDS_MAX; round++) {
        deliver_all(strays, SIGSTOP);
        found_new = find(strays, true);
    }
    deliver_all(strays, SIGKILL);
    keep_spare(strays);
    return take_trouble(strays);
}

void pod_strays_clear(struct pod_strays *strays)
{
    let_spare(strays);
    free(strays->list);
    *strays = (struct pod_strays){0};
}
