#include "sys.h"

#include "backend.h"
#include "cgroup.h"
#include "error.h"
#include "family.h"
#include "foreground.h"
#include "group.h"
#include "guards.h"
#include "identity.h"
#include "kernel.h"
#include "kqueue.h"
#include "reactor.h"
#include "reap.h"
#include "start.h"
#include "terminal.h"
#include "waiter.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

// How long an abandoned start may take to die.
#define ABANDON_MS 2000
// How long a look at a child that has ended waits for its status.
#define LATE_STATUS_MS 20
// How often a child is asked for whose descriptor the host has closed.
#define CLOSED_LOOK_MS 20

// ------------------------------------------------------------------------------------------------
// Make and unmake
// ------------------------------------------------------------------------------------------------

int pmi_process_attach(struct pmi_os_process *op, pid_t pid, int pidfd, bool child)
{
    op->pid = pid;
    op->child = child;
    op->reaped = false;
    op->waiter = NULL;
    op->pidfd = pidfd;
    op->exit_fd = pidfd;
    if (pidfd >= 0)
        return PM_OK;

    struct pmi_identity id = {.boot = ""};
    int result = child ? PM_OK : pmi_os_process_identity(op, &id);
    return result != PM_OK ? result : pmi_waiter_start(pid, child, &id, &op->waiter, &op->exit_fd);
}

// Of one whose descriptor the host has closed, a child is asked for by its number; of the others
// nobody can be asked, and an end that is not known is none.
static bool has_ended(const struct pmi_os_process *op)
{
    struct pollfd in = {.fd = op->exit_fd, .events = POLLIN};
    if (op->exit_fd >= 0 && pmi_sys_poll(&in, 1, 0) <= 0)
        return false;
    return (in.revents & POLLNVAL) == 0 || (op->child && pmi_child_look(op->pid) != 0);
}

void pmi_os_process_close(struct pmi_os_process *op)
{
    // Nobody asks any more for a status that did not come.
    if (op->child && !op->reaped && op->exit_fd >= 0 && has_ended(op))
        (void)pmi_child_collect(op->pid, op->pidfd, pmi_now_ms());
    pmi_family_left(op);
    free(op->room);
    if (op->waiter != NULL)
        pmi_waiter_close(op->waiter);
    else if (op->exit_fd != op->pidfd)
        (void)pmi_sys_close(op->exit_fd);
    (void)pmi_sys_close(op->pidfd);
    (void)pmi_sys_close(op->terminal_fd);
    (void)pmi_pty_release_slave(op);
    pmi_foreground_end(op);
    pmi_cgroup_close(op->cgroup);
    *op = (struct pmi_os_process)PMI_OS_PROCESS_INIT;
}

static bool has_whole_tree(const struct pmi_os_process *op)
{
    return op->whole_tree && op->family != NULL && op->family->open;
}

void pmi_process_end_tree(struct pmi_os_process *op)
{
    // Who was just being forked turns up later, and once memory is short not by itself.
    int64_t end = pmi_now_ms() + ABANDON_MS;
    while (pmi_family_alive(op) && pmi_now_ms() < end) {
        (void)pmi_family_signal(op, SIGKILL);
        pmi_sleep_ms(1);
    }
}

void pmi_os_process_abandon(struct pmi_os_process *op)
{
    struct pm_exit record = PM_EXIT_INIT;
    if (op->exit_fd >= 0) {
        int result = pmi_os_process_act(op, PM_STOP_KILL, PM_SCOPE_TREE, NULL);
        if (pmi_os_process_wait(op, pmi_now_ms() + ABANDON_MS) != PM_OK && result != PM_OK &&
            op->waiter != NULL && !op->child) {
            pmi_waiter_condemn(op->waiter);
            op->waiter = NULL;
            op->exit_fd = op->pidfd;
        }
        bool left = op->child && pmi_os_process_reap(op, &record) != PM_OK;
        if (has_whole_tree(op))
            pmi_process_end_tree(op); // Before that: its children are found by it.
        if (left) {
            (void)pmi_child_collect(op->pid, op->pidfd, pmi_now_ms());
            op->reaped = true;
        }
    }
    pmi_os_process_close(op);
}

int pmi_os_process_identity(const struct pmi_os_process *op, struct pmi_identity *ret_id)
{
    if (op->start == 0)
        return pmi_identity_of(op->pid, op->pidfd, ret_id);
    struct pmi_identity id = {.pid = (uint64_t)op->pid,
                              .start = op->start,
                              .pidns = op->pidns,
                              .pidfs = op->pidfs};
    int result = pmi_os_boot_id(id.boot);
    if (result == PM_OK)
        *ret_id = id;
    return result;
}

bool pmi_os_process_status_taken(const struct pmi_os_process *op)
{
    return op->status_taken;
}

uint32_t pmi_os_process_fallbacks(const struct pmi_os_process *op)
{
    return op->signalled_by_number ? PM_FALLBACK_SIGNAL_BY_NUMBER : 0;
}

uint64_t pmi_os_process_pid(const struct pmi_os_process *op)
{
    return (uint64_t)op->pid;
}

// The kernel object first, so that no other process can take the place of the one that is looked
// at.
static int open_proven(const struct pmi_identity *id, int *ret_pidfd)
{
    *ret_pidfd = -1;
#ifdef HAVE_PIDFD
    int pidfd = pmi_sys_pidfd_open((pid_t)id->pid);
    if (pidfd < 0 && pmi_sys_is_no_process(errno))
        // Not there, or of another namespace: the other proof knows.
        return pmi_os_identity_check(id) == PM_ERR_GONE ? PM_ERR_GONE : PM_ERR_IDENTITY;
    if (pidfd < 0 && errno != ENOSYS && errno != EPERM)
        return pmi_error_from_errno(errno);
    *ret_pidfd = pidfd;
    struct pmi_identity now;
    if (pidfd >= 0 && id->pidfs != 0 && pmi_identity_of((pid_t)id->pid, pidfd, &now) == PM_OK &&
        now.pidfs != 0 && strcmp(now.boot, id->boot) == 0 && now.pidns == id->pidns)
        return now.pidfs == id->pidfs && now.start == id->start ? PM_OK : PM_ERR_GONE;
#endif
    return pmi_os_identity_check(id);
}

int pmi_os_process_open(struct pmi_os_manager *om, const struct pmi_identity *id,
                        struct pmi_os_process *op, struct pmi_started *ret_started)
{
    (void)om;
    struct pmi_os_process opened = PMI_OS_PROCESS_INIT;
    int pidfd = -1;
    pid_t pid = (pid_t)id->pid;
    if (pid <= 1 || (uint64_t)pid != id->pid)
        return PM_ERR_IDENTITY;
    int result = open_proven(id, &pidfd);
    if (result != PM_OK) {
        (void)pmi_sys_close(pidfd);
        return result;
    }
    // A daemon led its session when it was recorded; -1: it has just been waited for.
    pid_t group = getpgid(pid);
    opened.group = group == pid || group < 0;
    opened.session = pid;
    opened.start = id->start;
    opened.pidns = id->pidns;
    opened.pidfs = id->pidfs;
    result = pmi_process_attach(&opened, pid, pidfd, pmi_child_look(pid) >= 0);
    if (result != PM_OK) {
        (void)pmi_sys_close(pidfd);
        return result;
    }
    // It may be dead already: as long as its parent has not waited for it, its status can be told.
    *op = opened;
    *ret_started = (struct pmi_started){
        .containment = opened.group ? PM_CONTAIN_GROUP : PM_CONTAIN_NONE,
        .detachment = PM_DETACH_LAUNCHER,
        .adopted = opened.child,
        .best_effort = opened.pidfd < 0,
        .fallbacks = pmi_process_fallback(opened.pidfd),
        .started_wall_ms = pmi_wall_ms(),
        .started_ms = pmi_now_ms(),
    };
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// The end
// ------------------------------------------------------------------------------------------------

// Asked of the kernel by another way than poll().
static bool is_dead_child(const struct pmi_os_process *op)
{
    return op->child && !op->reaped && pmi_child_look(op->pid) > 0;
}

int pmi_os_process_wait(struct pmi_os_process *op, int64_t deadline)
{
    struct pollfd in = {.fd = op->exit_fd, .events = POLLIN};
    if (in.fd < 0)
        return PM_OK; // Closed: nothing more to wait for.
    for (;;) {
        int n = pmi_sys_poll(&in, 1, pmi_poll_timeout(deadline));
        bool closed = n > 0 && (in.revents & POLLNVAL) != 0;
        if (closed ? has_ended(op) : n > 0 || (n < 0 && errno == ENOMEM && is_dead_child(op)))
            return PM_OK;
        if (pmi_now_ms() >= deadline)
            return PM_ERR_TIMEOUT;
        if (closed)
            pmi_sleep_ms(CLOSED_LOOK_MS);
    }
}

static void set_lost(struct pm_exit *record)
{
    record->kind = PM_EXIT_LOST;
    record->code = 0;
    record->signal = 0;
    record->core_dumped = false;
    record->usage_known = false;
}

static void set_exited(struct pm_exit *record, int code)
{
    set_lost(record);
    record->kind = PM_EXIT_EXITED;
    record->code = (uint32_t)code & 0xff;
}

static void set_signaled(struct pm_exit *record, int signal_number, bool core)
{
    set_lost(record);
    record->kind = PM_EXIT_SIGNALED;
    record->signal = signal_number;
    record->core_dumped = core;
}

// A status in the format of wait().
static void set_status(struct pm_exit *record, int status)
{
    if (WIFEXITED(status))
        set_exited(record, WEXITSTATUS(status));
    else
        set_signaled(record, WTERMSIG(status), WCOREDUMP(status));
}

// A status from a kernel that shows it to those who did not wait. PM_OK, PM_ERR_STATUS_PENDING, or
// PM_ERR_UNSUPPORTED: nobody will ever tell.
static int ask_pidfd(const struct pmi_os_process *op, struct pm_exit *record)
{
#ifdef HAVE_PIDFD
    // struct pidfd_info and its request (Linux 6.13), spelled out for older headers; the status is
    // told since 6.15, from the moment on that somebody has waited for the process.
    struct {
        uint64_t mask, cgroup;
        uint32_t pid, tgid, ppid, ids[8];
        int32_t exit_code;
    } info = {.mask = 1U << 3}; // PIDFD_INFO_EXIT
    _Static_assert(sizeof(info) == 64, "the first published size of struct pidfd_info");
    if (op->pidfd < 0)
        return PM_ERR_UNSUPPORTED;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion" // musl's ioctl() takes an int.
    int r = PMI_SYS(ioctl)(op->pidfd, _IOWR(0xff, 11, char[64]), &info);
#pragma GCC diagnostic pop
    if (r < 0)
        // ESRCH: somebody is just waiting for it, and the kernel has let go of the one and not got
        // to the other. 6.13 and 6.14, which never tell, stay at this.
        return errno == ESRCH && pmi_kernel_is_at_least(6, 15) ? PM_ERR_STATUS_PENDING
                                                               : PM_ERR_UNSUPPORTED;
    if ((info.mask & (1U << 3)) == 0)
        return PM_ERR_STATUS_PENDING;
    set_status(record, info.exit_code);
    return PM_OK;
#else
    (void)op;
    (void)record;
    return PM_ERR_UNSUPPORTED;
#endif
}

// Whether exit_fd is a kqueue (see kqueue.h).
static bool has_kqueue(const struct pmi_os_process *op)
{
    return op->exit_fd >= 0 && op->pidfd < 0 && op->waiter == NULL;
}

static int ask_kernel(const struct pmi_os_process *op, struct pm_exit *record)
{
    int status;
    if (!has_kqueue(op))
        return ask_pidfd(op, record);
    int result = pmi_kqueue_exit_status(op->exit_fd, &status);
    if (result == PM_OK)
        set_status(record, status);
    return result;
}

// Our child, whose status somebody else has, or nobody: the host ignores SIGCHLD, or a thief
// waited.
static int recover_status(struct pmi_os_process *op, struct pm_exit *record)
{
    if (!has_ended(op))
        return PM_ERR_TIMEOUT;
    int result = ask_kernel(op, record);
    op->status_taken = true;
    if (result == PM_ERR_STATUS_PENDING)
        return result; // It is just being taken.
    if (result != PM_OK)
        set_lost(record);
    op->reaped = true;
    return PM_OK;
}

// It has ended, if perhaps only now. A tracer may keep the status to itself; and macOS and FreeBSD
// tell a kqueue of the end a moment before there is a status to take.
static int take_late(const struct pmi_os_process *op, siginfo_t *info, struct pm_exit *usage)
{
    int64_t last = has_kqueue(op) ? pmi_now_ms() + LATE_STATUS_MS : 0;
    int r;
    while ((r = pmi_child_take(op->pid, op->pidfd, info, usage)) == 0 && info->si_pid == 0 &&
           pmi_now_ms() < last)
        pmi_sleep_ms(1);
    return r;
}

static int reap_child(struct pmi_os_process *op, struct pm_exit *record)
{
    siginfo_t info;
    struct pm_exit usage = {0};
    // With a waiter thread on the pid, nothing is taken before that has let go of the number.
    if (op->waiter != NULL && !has_ended(op))
        return PM_ERR_TIMEOUT;
    pmi_group_remember(op);
    int r = pmi_child_take(op->pid, op->pidfd, &info, &usage);
    if (r == 0 && info.si_pid == 0) {
        if (!has_ended(op))
            return PM_ERR_TIMEOUT;
        r = take_late(op, &info, &usage);
    }
    if (r < 0)
        return recover_status(op, record);
    if (info.si_pid == 0)
        return PM_ERR_STATUS_PENDING;
    if (info.si_code == CLD_EXITED)
        set_exited(record, info.si_status);
    else
        set_signaled(record, info.si_status, info.si_code == CLD_DUMPED);
    record->usage_known = usage.usage_known;
    record->user_us = usage.user_us;
    record->system_us = usage.system_us;
    record->max_rss_kib = usage.max_rss_kib;
    op->reaped = true;
    return PM_OK;
}

static int reap(struct pmi_os_process *op, struct pm_exit *ret_exit)
{
    if (op->child)
        return reap_child(op, ret_exit);
    if (!has_ended(op))
        return PM_ERR_TIMEOUT;
    pmi_group_remember(op);
    int result = ask_kernel(op, ret_exit);
    if (result == PM_ERR_STATUS_PENDING)
        return result; // Its parent has not waited for it yet.
    if (result != PM_OK)
        set_lost(ret_exit);
    op->reaped = true;
    return PM_OK;
}

int pmi_os_process_reap(struct pmi_os_process *op, struct pm_exit *ret_exit)
{
    assert(!op->reaped);
    int result = reap(op, ret_exit);
    if (result == PM_OK) {
        pmi_family_left(op);
        pmi_foreground_end(op);
        if (op->terminal_fd < 0 || !pmi_pty_is_readable(op->terminal_fd))
            (void)pmi_pty_release_slave(op);
        if (op->cgroup != NULL)
            pmi_cgroup_try_remove(op->cgroup);
    }
    return result;
}

bool pmi_os_process_stopped(struct pmi_os_process *op)
{
    struct pmi_stat stat;
    siginfo_t info = {0};
    if (op->reaped || has_ended(op))
        return false;
    // Tells of a stop as long as it lasts, and takes nothing.
    if (op->child &&
        pmi_sys_waitid(P_PID, (id_t)op->pid, &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid == op->pid)
        return true;
    // Not our child, or a wait of the host's own has taken that news.
    return pmi_stat_read(op->pid, &stat) == PM_OK && stat.state == 'T' &&
           (op->start == 0 || (uint64_t)stat.starttime == op->start);
}

void pmi_os_process_step_back(struct pmi_os_process *op)
{
    pmi_foreground_step_back(op);
}

int pmi_os_process_waitable(struct pmi_os_process *op, pm_native *ret_native)
{
    if (op->exit_fd < 0)
        return PM_ERR_UNSUPPORTED;
    *ret_native = op->exit_fd;
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Terminal
// ------------------------------------------------------------------------------------------------

int pmi_os_terminal_resize(struct pmi_os_process *op, unsigned columns, unsigned rows)
{
    if (op->terminal_fd < 0)
        return PM_ERR_GONE;
    int e = pmi_pty_resize(op->terminal_fd, columns, rows);
    return e == 0 ? PM_OK : pmi_error_from_errno(e);
}

void pmi_os_terminal_close(struct pmi_os_process *op)
{
    op->terminal_fd = pmi_sys_close(op->terminal_fd);
    (void)pmi_pty_release_slave(op);
}

// ------------------------------------------------------------------------------------------------
// Signals
// ------------------------------------------------------------------------------------------------

static int signal_process(struct pmi_os_process *op, int signal_number)
{
    if (PMI_WITHOUT("process proof"))
        return pmi_sys_kill(op->pid, signal_number) == 0 ? PM_OK : PM_ERR_GONE;
    // A signal to a zombie succeeds and does nothing.
    if (op->reaped || has_ended(op))
        return PM_ERR_GONE;
#ifdef HAVE_PIDFD
    if (op->pidfd >= 0 && pmi_sys_pidfd_send_signal(op->pidfd, signal_number, 0) == 0)
        return PM_OK;
    if (op->pidfd >= 0 && !pmi_sys_is_refused(errno))
        return errno == ESRCH ? PM_ERR_GONE : pmi_error_from_errno(errno);
        // Else a seccomp filter, or really forbidden: kill() tells.
#endif
    // An unreaped child keeps its number; anybody else has to prove it at once.
    struct pmi_identity id;
    if (!op->child) {
        int result = pmi_os_process_identity(op, &id);
        if (result == PM_OK)
            result = pmi_os_identity_check(&id);
        if (result != PM_OK)
            return result;
    }
    if (pmi_sys_kill(op->pid, signal_number) < 0)
        return pmi_error_from_errno(errno);
    op->signalled_by_number |= signal_number != 0;
    return PM_OK;
}

// All that is in the control group, and the process itself, should it have got out.
static int signal_cgroup(struct pmi_os_process *op, int signal_number)
{
    bool populated = pmi_cgroup_is_populated(op->cgroup);
    int result = signal_process(op, signal_number);
    if (populated && signal_number != 0)
        pmi_cgroup_signal(op->cgroup, signal_number, op->pid);
    if (signal_number == SIGKILL && op->group)
        (void)pmi_group_signal(op, signal_number);
    // Who was moved out of it is in the session still, which tree_alive() asks for, too.
    op->condemned |= signal_number == SIGKILL;
    bool others = (!populated || signal_number == SIGKILL) && pmi_session_signal(op, signal_number);
    return populated || others ? PM_OK : result;
}

static int signal_group(struct pmi_os_process *op, int signal_number, enum pm_stop_scope scope)
{
    int result = pmi_group_signal(op, signal_number);
    if (result == PM_ERR_GONE && scope == PM_SCOPE_TREE && !has_ended(op))
        return signal_process(op, signal_number); // It has left its group.
    return result;
}

// The group first, which is killed at once: else one of it would see another's death and act on it.
static int kill_session(struct pmi_os_process *op)
{
    bool lives = !has_ended(op) || pmi_group_alive(op, true);
    int result = lives ? signal_group(op, SIGKILL, PM_SCOPE_TREE) : PM_ERR_GONE;
    op->condemned = true;
    return pmi_session_signal(op, SIGKILL) ? PM_OK : result;
}

static int signal_scope(struct pmi_os_process *op, int signal_number, enum pm_stop_scope scope)
{
    if (op->pid <= 1)
        return PM_ERR_GONE;
    if (scope == PM_SCOPE_GROUP && !op->group)
        return PM_ERR_UNSUPPORTED; // The host's own group.
    if (scope == PM_SCOPE_TREE && op->cgroup != NULL)
        return signal_cgroup(op, signal_number);
    if (scope == PM_SCOPE_TREE && has_whole_tree(op)) {
        int result = pmi_family_signal(op, signal_number);
        return result == PM_OK || result == PM_ERR_GONE || has_ended(op)
                   ? result
                   : signal_process(op, signal_number); // For want of a descriptor, or of /proc.
    }
    if (scope == PM_SCOPE_PROCESS || !op->group)
        return signal_process(op, signal_number);
    if (scope == PM_SCOPE_TREE && signal_number == SIGKILL)
        return kill_session(op);
    bool others = scope == PM_SCOPE_TREE && pmi_session_signal(op, signal_number);
    // Zombies alone would make it a success.
    if (has_ended(op) && !pmi_group_alive(op, true))
        return others ? PM_OK : PM_ERR_GONE;
    return signal_group(op, signal_number, scope);
}

// A stopped process takes no signal but this one and SIGKILL; and whoever stops it again behind a
// SIGKILL must not keep it either. Nobody asks whether it arrived: so the process table is not
// searched for somebody besides a leader that has just died of the step, which takes a look at
// every process of the host.
static void let_continue(struct pmi_os_process *op, enum pm_stop_scope scope)
{
    if (scope == PM_SCOPE_PROCESS || !op->group || op->cgroup != NULL || has_whole_tree(op)) {
        (void)signal_scope(op, SIGCONT, scope);
        return;
    }
    if (scope == PM_SCOPE_TREE)
        (void)pmi_session_signal(op, SIGCONT);
    (void)signal_group(op, SIGCONT, scope);
}

int pmi_os_process_signal(struct pmi_os_process *op, int signal_number, enum pm_stop_scope scope)
{
    if (signal_number < 0 || signal_number >= NSIG)
        return PM_ERR_INVALID;
    if (signal_number == SIGCONT && !op->reaped)
        pmi_foreground_take(op);
    return signal_scope(op, signal_number, scope);
}

int pmi_os_process_act(struct pmi_os_process *op, enum pm_stop_action action,
                       enum pm_stop_scope scope, struct pmi_os_step **ret_step)
{
    int signal_number;
    (void)ret_step; // A signal takes no time.
    switch (action) {
    case PM_STOP_INTERRUPT:
        signal_number = SIGINT;
        break;
    case PM_STOP_TERMINATE:
        signal_number = SIGTERM;
        break;
    case PM_STOP_KILL:
        signal_number = SIGKILL;
        break;
    case PM_STOP_CLOSE_STDIN: // The core's.
    default:
        return PM_ERR_UNSUPPORTED;
    }
    int result = signal_scope(op, signal_number, scope);
    if (result == PM_OK)
        let_continue(op, scope);
    return result;
}

int pmi_os_step_poll(struct pmi_os_step *step)
{
    (void)step;
    return PM_OK;
}

void pmi_os_step_end(struct pmi_os_step *step)
{
    (void)step;
}

bool pmi_os_process_tree_alive(struct pmi_os_process *op)
{
    if (op->cgroup != NULL && pmi_cgroup_is_populated(op->cgroup))
        return true;
    if (has_whole_tree(op))
        return !has_ended(op) || pmi_family_alive(op);
    return op->group && op->pid > 1 &&
           (pmi_group_alive(op, has_ended(op)) || pmi_session_alive(op));
}
