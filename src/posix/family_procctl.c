// The same on FreeBSD, where the kernel keeps for each descendant of a reaper which child of the
// reaper it came from, and gives that child's number to nobody else meanwhile (procctl(2), since
// 10.2). So a mark is the number of the process that the tree began with. Which of these are ours
// is in a table: the host's own children begin trees as well, whose orphans are not ours to wait
// for.
#include "family.h"

#ifdef HAVE_PROCCTL_REAPER

#include "error.h"
#include "identity.h"
#include "reap.h"
#include "sys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/procctl.h>

int pmi_family_open(struct pmi_family *family, struct pm_error *err)
{
    struct procctl_reaper_status status;
    memset(&status, 0, sizeof(status));
    if (!pmi_family_take_process(err))
        return err->code;
    if (PMI_SYS(procctl)(P_PID, getpid(), PROC_REAP_STATUS, &status) == 0)
        family->was_reaper = (status.rs_flags & REAPER_STATUS_OWNED) != 0;
    if (!family->was_reaper && PMI_SYS(procctl)(P_PID, getpid(), PROC_REAP_ACQUIRE, NULL) < 0) {
        pmi_fail(err, PM_STAGE_CHECK, errno);
        pmi_fail_field(err, "own_process");
        pmi_family_release_process();
        return err->code;
    }
    family->open = true;
    return PM_OK;
}

// A tree that a process of ours began. The number stays its own while anybody of it is there, also
// when that process has been waited for.
struct pmi_tree {
    pid_t pid;
    bool left; // Waited for.
    bool seen; // By the look that goes on.
    bool killed;
};

static struct pmi_tree *tree_of(const struct pmi_family *family, pid_t pid)
{
    for (size_t i = 0; i < family->trees_count; i++)
        if (family->trees[i].pid == pid)
            return &family->trees[i];
    return NULL;
}

// Makes room, so that nothing can fail once the process is there.
int pmi_family_expect(struct pmi_family *family, struct pmi_birth *birth, struct pm_error *err)
{
    int result = PM_OK;
    birth->mark = 0; // Nobody sets anything.
    pmi_mutex_lock(&family->lock);
    if (family->trees_count + family->trees_expected == family->trees_capacity) {
        size_t capacity = family->trees_capacity * 2 + 16;
        struct pmi_tree *grown = realloc(family->trees, capacity * sizeof(*grown));
        if (grown != NULL) {
            family->trees = grown;
            family->trees_capacity = capacity;
        } else {
            result = PM_ERR_NO_MEMORY;
        }
    }
    if (result == PM_OK)
        family->trees_expected++;
    pmi_mutex_unlock(&family->lock);
    return result == PM_OK ? PM_OK : pmi_fail_code(err, PM_STAGE_FORK, result);
}

void pmi_family_born(struct pmi_family *family, struct pmi_birth *birth, struct pmi_os_process *op)
{
    (void)birth;
    pmi_mutex_lock(&family->lock);
    family->trees_expected--;
    if (op != NULL) {
        family->trees[family->trees_count++] = (struct pmi_tree){.pid = op->pid};
        op->family = family;
        op->mark = (uint64_t)op->pid;
    }
    pmi_mutex_unlock(&family->lock);
}

uint64_t pmi_family_limit(const struct pmi_family *family, uint64_t mark)
{
    (void)family;
    return mark;
}

// Of one tree (0 = of all), but for its first process: children of ours, living and dead.
struct found {
    size_t alive, taken;
};

// Whether this one is in the tree that is asked for, or in any of ours, and not its first.
static bool is_meant(const struct pmi_family *family, pid_t subtree,
                     const struct procctl_reaper_pidinfo *info)
{
    struct pmi_tree *tree = tree_of(family, info->pi_subtree);
    if (info->pi_pid == info->pi_subtree || tree == NULL)
        return false;
    tree->seen = true;
    return subtree == 0 || info->pi_subtree == subtree;
}

// With the family's lock.
static int look(const struct pmi_family *family, pid_t subtree, bool take, struct found *ret_found)
{
    struct procctl_reaper_status status;
    struct found found = {0};
    memset(&status, 0, sizeof(status));
    if (PMI_SYS(procctl)(P_PID, getpid(), PROC_REAP_STATUS, &status) < 0)
        return pmi_error_from_errno(errno);
    size_t capacity = (size_t)status.rs_descendants + 64;
    struct procctl_reaper_pidinfo *list = calloc(capacity, sizeof(*list));
    if (list == NULL)
        return PM_ERR_NO_MEMORY;
    struct procctl_reaper_pids pids = {.rp_count = (u_int)capacity, .rp_pids = list};
    int r = PMI_SYS(procctl)(P_PID, getpid(), PROC_REAP_GETPIDS, &pids);
    int e = errno;
    for (size_t i = 0; r == 0 && i < capacity && (list[i].pi_flags & REAPER_PIDINFO_VALID) != 0;
         i++) {
        siginfo_t info;
        bool orphan = (list[i].pi_flags & REAPER_PIDINFO_CHILD) != 0;
        if (!is_meant(family, subtree, &list[i]))
            continue;
        if (orphan && take && pmi_child_take(list[i].pi_pid, -1, &info, NULL) == 0 &&
            info.si_pid == list[i].pi_pid)
            found.taken++;
        else
            found.alive++;
    }
    free(list);
    if (r < 0)
        return pmi_error_from_errno(e);
    *ret_found = found;
    return PM_OK;
}

// A number without its process and anybody behind it may be given to somebody else from now on.
void pmi_family_left(struct pmi_os_process *op)
{
    struct pmi_family *family = op->family;
    struct found found;
    if (family == NULL)
        return;
    pmi_mutex_lock(&family->lock);
    struct pmi_tree *tree = tree_of(family, (pid_t)op->mark);
    if (tree != NULL && !tree->left) {
        tree->left = true;
        if (look(family, tree->pid, false, &found) == PM_OK && found.alive == 0)
            *tree = family->trees[--family->trees_count];
    }
    pmi_mutex_unlock(&family->lock);
}

static void drop_empty_trees(struct pmi_family *family)
{
    for (size_t i = family->trees_count; i-- > 0;)
        if (family->trees[i].left && !family->trees[i].seen)
            family->trees[i] = family->trees[--family->trees_count];
}

// Waits for the dead. True: some are alive, or it cannot be told. ret_dying: in a tree that was
// killed there was somebody.
static bool collect_locked(struct pmi_family *family, bool *ret_dying)
{
    struct found found = {.alive = 1};
    *ret_dying = false;
    for (size_t i = 0; i < family->trees_count; i++)
        family->trees[i].seen = false;
    if (family->open && look(family, 0, true, &found) == PM_OK) {
        family->reaped += found.taken;
        for (size_t i = 0; i < family->trees_count; i++)
            *ret_dying |= family->trees[i].killed && family->trees[i].seen;
        drop_empty_trees(family);
    }
    return family->open && found.alive > 0;
}

bool pmi_os_orphans_collect(struct pmi_os_manager *om, uint64_t *ret_reaped)
{
    struct pmi_family *family = &om->family;
    bool dying;
    pmi_mutex_lock(&family->lock);
    bool alive = collect_locked(family, &dying);
    *ret_reaped = family->reaped;
    pmi_mutex_unlock(&family->lock);
    return alive;
}

static bool is_anybody_dying(struct pmi_family *family)
{
    bool dying;
    pmi_mutex_lock(&family->lock);
    (void)collect_locked(family, &dying);
    pmi_mutex_unlock(&family->lock);
    return dying;
}

void pmi_family_close(struct pmi_family *family)
{
    if (!family->open)
        return;
    // Nobody waits later for those who were killed.
    int64_t deadline = pmi_now_ms() + PMI_DYING_MS;
    while (is_anybody_dying(family) && pmi_now_ms() < deadline)
        pmi_sleep_ms(1);
    if (!family->was_reaper)
        (void)PMI_SYS(procctl)(P_PID, getpid(), PROC_REAP_RELEASE, NULL);
    pmi_family_release_process();
    pmi_mutex_lock(&family->lock); // Who holds a Handle may be in it.
    family->open = false;
    free(family->trees);
    family->trees = NULL;
    family->trees_count = family->trees_capacity = 0;
    pmi_mutex_unlock(&family->lock);
}

// How the tree is; true if it was told.
static bool look_at_tree(struct pmi_os_process *op, bool take, struct found *ret_found)
{
    pmi_mutex_lock(&op->family->lock);
    int result = look(op->family, (pid_t)op->mark, take, ret_found);
    if (result == PM_OK)
        op->family->reaped += ret_found->taken;
    pmi_mutex_unlock(&op->family->lock);
    return result == PM_OK;
}

int pmi_family_signal(struct pmi_os_process *op, int signal_number)
{
    struct procctl_reaper_kill order = {
        .rk_sig = signal_number,
        .rk_flags = REAPER_KILL_SUBTREE,
        .rk_subtree = (pid_t)op->mark,
    };
    struct found found;
    if (signal_number == 0)
        return look_at_tree(op, false, &found) && found.alive > 0 ? PM_OK : PM_ERR_GONE;
    pmi_mutex_lock(&op->family->lock);
    struct pmi_tree *tree = tree_of(op->family, (pid_t)op->mark);
    bool ours = tree != NULL;
    if (ours)
        tree->killed |= signal_number == SIGKILL;
    int e = !ours                                                            ? ESRCH
            : PMI_SYS(procctl)(P_PID, getpid(), PROC_REAP_KILL, &order) == 0 ? 0
                                                                             : errno;
    pmi_mutex_unlock(&op->family->lock);
    return e == 0 ? PM_OK : e == ESRCH ? PM_ERR_GONE : pmi_error_from_errno(e);
}

bool pmi_family_alive(struct pmi_os_process *op)
{
    struct found found;
    return !look_at_tree(op, true, &found) || found.alive > 0;
}

bool pmi_family_awaits(pid_t pid)
{
    (void)pid;
    return false; // They are taken with each sweep, before a second one could find them.
}

void pmi_family_kill_marked(const uint64_t *marks, size_t count)
{
    (void)marks;
    (void)count;
}

bool pmi_family_visit_marks(void (*each)(void *context, uint64_t soft, uint64_t hard),
                            void *context)
{
    (void)each;
    (void)context;
    return true;
}

#endif
