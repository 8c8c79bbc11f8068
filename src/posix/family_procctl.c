// The same on FreeBSD, where the kernel keeps for each descendant of a reaper which child of the
// reaper it came from, and gives that child's number to nobody else meanwhile (procctl(2), since
// 10.2). So a mark is the number of the process that the tree began with.
#include "family.h"

#ifdef HAVE_PROCCTL_REAPER

#include "error.h"
#include "identity.h"
#include "sys.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/procctl.h>

int pmi_family_open(struct pmi_family *family, struct pm_error *err)
{
    struct procctl_reaper_status status;
    memset(&status, 0, sizeof(status));
    if (PMI_SYS(procctl)(P_PID, getpid(), PROC_REAP_STATUS, &status) == 0)
        family->was_reaper = (status.rs_flags & REAPER_STATUS_OWNED) != 0;
    if (!family->was_reaper && PMI_SYS(procctl)(P_PID, getpid(), PROC_REAP_ACQUIRE, NULL) < 0) {
        pmi_fail(err, PM_STAGE_CHECK, errno);
        pmi_fail_field(err, "own_process");
        return err->code;
    }
    family->open = true;
    return PM_OK;
}

void pmi_family_close(struct pmi_family *family)
{
    if (family->open && !family->was_reaper)
        (void)PMI_SYS(procctl)(P_PID, getpid(), PROC_REAP_RELEASE, NULL);
    family->open = false;
}

int pmi_family_expect(struct pmi_family *family, struct pmi_birth *birth, struct pm_error *err)
{
    (void)family;
    (void)err;
    birth->mark = 0; // Nobody sets anything.
    return PM_OK;
}

void pmi_family_born(struct pmi_family *family, struct pmi_birth *birth, struct pmi_os_process *op)
{
    (void)birth;
    if (op != NULL) {
        op->family = family;
        op->mark = (uint64_t)op->pid;
    }
}

void pmi_family_left(struct pmi_os_process *op)
{
    (void)op;
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

// What begins its own tree is a child that we have made, the host's too.
static int look(pid_t subtree, bool take, struct found *ret_found)
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
        if (list[i].pi_pid == list[i].pi_subtree || (subtree != 0 && list[i].pi_subtree != subtree))
            continue;
        memset(&info, 0, sizeof(info));
        if (orphan && take &&
            pmi_sys_waitid(P_PID, (id_t)list[i].pi_pid, &info, WEXITED | WNOHANG) == 0 &&
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

bool pmi_os_orphans_collect(struct pmi_os_manager *om, uint64_t *ret_reaped)
{
    struct pmi_family *family = &om->family;
    struct found found = {.alive = 1};
    pmi_mutex_lock(&family->lock);
    if (family->open && look(0, true, &found) == PM_OK)
        family->reaped += found.taken;
    *ret_reaped = family->reaped;
    bool alive = family->open && found.alive > 0;
    pmi_mutex_unlock(&family->lock);
    return alive;
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
        return look((pid_t)op->mark, false, &found) == PM_OK && found.alive > 0 ? PM_OK
                                                                                : PM_ERR_GONE;
    if (PMI_SYS(procctl)(P_PID, getpid(), PROC_REAP_KILL, &order) == 0)
        return PM_OK;
    return errno == ESRCH ? PM_ERR_GONE : pmi_error_from_errno(errno);
}

bool pmi_family_alive(struct pmi_os_process *op)
{
    struct found found;
    pmi_mutex_lock(&op->family->lock);
    int result = look((pid_t)op->mark, true, &found);
    if (result == PM_OK)
        op->family->reaped += found.taken;
    pmi_mutex_unlock(&op->family->lock);
    return result != PM_OK || found.alive > 0;
}

bool pmi_family_awaits(pid_t pid)
{
    (void)pid;
    return false; // There is no detector here.
}

void pmi_family_kill_marked(const uint64_t *marks, size_t count)
{
    (void)marks;
    (void)count;
}

bool pmi_family_is_marked(uint64_t mark)
{
    (void)mark;
    return false;
}

#endif
