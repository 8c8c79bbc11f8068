// Prepare the plan, launch, commit.
#include "start.h"

#include "cgroup.h"
#include "daemon.h"
#include "error.h"
#include "family.h"
#include "foreground.h"
#include "group.h"
#include "identity.h"
#include "keeper.h"
#include "options.h"
#include "reap.h"
#include "sys.h"
#include "terminal.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

// ------------------------------------------------------------------------------------------------
// Launch
// ------------------------------------------------------------------------------------------------

int pmi_stat_exec_reached(const struct pmi_stat *stat)
{
    // PF_FORKNOEXEC of Linux: set by fork, cleared by exec, still to be read on the zombie.
    const uint64_t fork_no_exec = 0x40;
    if (((uint64_t)stat->flags & fork_no_exec) == 0)
        return 1;
    return pmi_proc_is_foreign() ? -1 : 0; // Many of its processes have never called exec.
}

int pmi_exec_reached(pid_t pid)
{
    struct pmi_stat stat;
    return pmi_stat_read(pid, &stat) == PM_OK ? pmi_stat_exec_reached(&stat) : -1;
}

void pmi_fail_in_child(const struct pmi_child_plan *plan, struct pm_error *err)
{
    pmi_fail(err, (enum pm_stage)plan->stage, plan->error);
    switch (plan->stage) {
    case PM_STAGE_EXEC:
        pmi_fail_field(err, "program");
        if (plan->error == ENOENT && access(plan->program, F_OK) == 0)
            pmi_fail_hint(err,
                          "%s exists: the interpreter in its first line, or its loader, does not",
                          plan->program);
        else if (plan->error == ENOEXEC)
            pmi_fail_hint(err, "not a program of this system; a script needs a first line with #!");
        else if (plan->error == EACCES)
            pmi_fail_hint(err, "%s: no execute permission, a folder, or a noexec mount",
                          plan->program);
        else if (plan->error == E2BIG)
            pmi_fail_hint(err, "arguments and environment together, or one of their strings");
        break;
    case PM_STAGE_CHDIR:
        pmi_fail_field(err, "cwd");
        break;
    case PM_STAGE_KEEPER:
        pmi_fail_field(err, "die_with_parent");
        break;
    case PM_STAGE_PTY:
        pmi_fail_field(err, "mode");
        break;
    case PM_STAGE_SESSION:
        pmi_fail_field(err, plan->new_session && !plan->terminal ? "new_session" : "mode");
        break;
    case PM_STAGE_LIMITS:
    case PM_STAGE_CREDENTIALS:
    case PM_STAGE_GROUP:
        pmi_fail_option(err, plan->field);
        if (plan->stage == PM_STAGE_GROUP && plan->field == PMI_FIELD_NONE)
            pmi_fail_field(err, "group");
        break;
    default:
        break;
    }
}

// Memory was not shared after all (an emulator): the plan says nothing, only the process does.
static void await_silent_exec(pid_t pid, int pidfd, int64_t deadline)
{
    while (!pmi_child_has_ended(pid, pidfd) && pmi_exec_reached(pid) == 0 &&
           pmi_now_ms() < deadline)
        pmi_sleep_ms(1);
}

// Whether it is its program, or was.
static bool has_become_program(pid_t pid, int pidfd)
{
    int reached = pmi_exec_reached(pid);
    return reached == 1 || (reached < 0 && !pmi_child_has_ended(pid, pidfd));
}

// By the leader where that can be; else by a number that is its own as long as nobody has waited
// for it.
static void kill_group_of(pid_t pid, int pidfd)
{
#ifdef HAVE_PIDFD
    int e = pidfd >= 0 ? pmi_group_pidfd_signal(pidfd, SIGKILL) : EINVAL;
    if (e == 0 || e == ESRCH)
        return;
#else
    (void)pidfd;
#endif
    if (pmi_child_look(pid) >= 0)
        (void)pmi_sys_kill(-pid, SIGKILL);
}

// The child has left the starter's memory: by exec, or not. On failure it is killed, if it is not
// dead or dying, and waited for.
static int settle(const struct pmi_child_plan *plan, pid_t pid, int pidfd, int64_t deadline,
                  struct pm_error *err)
{
    switch (plan->progress) {
    case PMI_CHILD_OVERDUE:
    case PMI_CHILD_RUNNING:
        break;
    case PMI_CHILD_FAILED:
        // On its way out, unless somebody has stopped it just there.
        (void)pmi_child_end(pid, pidfd);
        pmi_fail_in_child(plan, err);
        return err->code;
    case PMI_CHILD_EXEC:
        // Dead already? A short program, or killed on the last step of its way there.
        if (!pmi_child_has_ended(pid, pidfd) || pmi_exec_reached(pid) != 0)
            return PM_OK;
        break;
    default:
        await_silent_exec(pid, pidfd, deadline);
        if (has_become_program(pid, pidfd))
            return PM_OK;
        break;
    }
    // The child's own timer may have ended it.
    bool overdue = plan->progress == PMI_CHILD_OVERDUE || pmi_now_ms() >= deadline;
    // It may have got to its program since, and that have begun to start others.
    if (overdue && (plan->new_group || plan->new_session))
        kill_group_of(pid, pidfd);
    int code = pmi_child_end(pid, pidfd);
    if (plan->progress == PMI_CHILD_NOT_REACHED && code > 0) {
        pmi_fail(err, PM_STAGE_EXEC, code); // See child_main in clone.c.
        return err->code;
    }
    return pmi_fail_code(err, PM_STAGE_EXEC, overdue ? PM_ERR_TIMEOUT : PM_ERR_DIED_BEFORE_EXEC);
}

struct birth {
    struct pmi_child_plan *plan;
    int64_t deadline;
    pid_t pid;
    int pidfd;
    bool forked;
    int e;
};

// A child that shares our memory is as open to its new user as it is itself, and the change of
// credentials would make us undumpable.
static bool needs_own_memory(const struct pmi_child_plan *plan)
{
    return plan->options != NULL && (plan->options->flags & PMI_OPTION_CREDENTIALS) != 0;
}

static void give_birth(void *arg)
{
    struct birth *birth = arg;
    if (needs_own_memory(birth->plan)) {
        birth->e = pmi_fork_child(birth->plan, birth->deadline, &birth->pid, &birth->pidfd);
        return;
    }
    birth->e = pmi_clone_child(birth->plan, birth->deadline, &birth->pid, &birth->pidfd);
    // EPERM: a seccomp filter; EINVAL: an emulator that knows only fork and threads.
    if (birth->e == ENOSYS || birth->e == EPERM || birth->e == EINVAL) {
        birth->forked = true;
        birth->e = pmi_fork_child(birth->plan, birth->deadline, &birth->pid, &birth->pidfd);
    }
}

// The first thread of the process lives as long as the process: with a caller's loop on it no other
// is needed for children that are bound to the life of the thread that made them.
static bool is_first_thread(void)
{
#ifdef HAVE_PDEATHSIG
    return syscall(SYS_gettid) == getpid();
#else
    return true; // They are not bound to a thread.
#endif
}

int pmi_launch(struct pmi_os_manager *om, struct pmi_child_plan *plan, int64_t deadline,
               struct pmi_os_process *op, struct pmi_started *started, struct pm_error *err)
{
    struct birth birth = {.plan = plan, .deadline = deadline, .pid = -1, .pidfd = -1};
    struct pmi_os_process born = PMI_OS_PROCESS_INIT;
    int result = PM_OK, lift_error = 0;

    pmi_reap_left();
    plan->progress = PMI_CHILD_NOT_REACHED;
    plan->exec_retries = 0;
    if (deadline <= pmi_now_ms())
        result = pmi_fail_code(err, PM_STAGE_FORK, PM_ERR_TIMEOUT);
    else if (om != NULL && !(om->caller_loop && is_first_thread())) {
        result = pmi_spawner_run(&om->spawner, give_birth, &birth, deadline);
        if (result != PM_OK)
            (void)pmi_fail_code(err, PM_STAGE_FORK, result);
    } else
        give_birth(&birth);
    // Before the child can be waited for: see pmi_launch in start.h.
    plan->keeper_fd = pmi_sys_close(plan->keeper_fd);
    if (result != PM_OK)
        return result;
    if (birth.e != 0) {
        pmi_fail(err, PM_STAGE_FORK, birth.e);
        if (birth.e == EAGAIN)
            pmi_fail_hint(err, "RLIMIT_NPROC, the pids limit of the control group, or pid_max");
        return err->code;
    }

    if (birth.pidfd >= 0 && birth.pidfd < 3) {
        birth.pidfd = pmi_sys_lift(birth.pidfd, 3);
        lift_error = birth.pidfd < 0 ? errno : 0;
    }
    result = settle(plan, birth.pid, birth.pidfd, deadline, err);
    if (result != PM_OK) {
        (void)pmi_sys_close(birth.pidfd);
        if (result == PM_ERR_TIMEOUT)
            op->pid = birth.pid;
        return result;
    }
    born.group = plan->new_group || plan->new_session;
    born.session = plan->new_session ? birth.pid : 0;
    result = lift_error != 0 ? pmi_error_from_errno(lift_error)
                             : pmi_process_attach(&born, birth.pid, birth.pidfd, true);
    if (result != PM_OK) {
        if (born.group)
            kill_group_of(birth.pid, birth.pidfd);
        (void)pmi_child_end(birth.pid, birth.pidfd);
        op->pid = birth.pid;
        return pmi_fail_code(err, PM_STAGE_WATCH, result);
    }
    *op = born;
    started->best_effort = born.pidfd < 0;
    started->exec_retries = plan->exec_retries;
    started->fallbacks =
        (birth.forked ? PM_FALLBACK_FORK : plan->fallbacks) | pmi_process_fallback(born.pidfd);
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// NORMAL mode
// ------------------------------------------------------------------------------------------------

static int check(const struct pmi_plan *plan, struct pm_error *err)
{
    if (plan->group == PM_GROUP_OWN && !plan->spec->new_session &&
        plan->slots[PM_STDIN].kind == PM_STDIO_INHERIT && pmi_is_inheritable(STDIN_FILENO) &&
        isatty(STDIN_FILENO)) {
        (void)pmi_fail_code(err, PM_STAGE_CHECK, PM_ERR_INVALID);
        pmi_fail_field(err, "group");
        pmi_fail_hint(err,
                      "stdin is the caller's terminal, and in a group of its own the child would "
                      "stop at its first read: set stdin_slot to PM_STDIO_NULL or PM_STDIO_PIPE, "
                      "or group to PM_GROUP_HOST");
        return err->code;
    }
    return PM_OK;
}

static void commit(const struct pmi_child_plan *child, struct pmi_stdio_plan *stdio,
                   struct pmi_os_process *op, struct pmi_os_stream streams[3],
                   struct pmi_started *started)
{
    for (size_t i = 0; i < 3; i++) {
        if (stdio->streams[i] < 0)
            continue;
        streams[i] = (struct pmi_os_stream)PMI_OS_STREAM_INIT;
        streams[i].fd = stdio->streams[i];
        streams[i].terminal = child->terminal && i != PM_STDERR;
        streams[i].types = streams[i].terminal && i == PM_STDIN;
        stdio->streams[i] = -1;
    }
    op->terminal_fd = stdio->master;
    stdio->master = -1;
    if (PMI_KEEPS_SLAVE && child->terminal)
        atomic_store(&op->slave_fd, pmi_sys_dup_above(stdio->terminal, 3));
    started->containment = op->cgroup != NULL                       ? PM_CONTAIN_CGROUP
                           : op->whole_tree                         ? PM_CONTAIN_SUBREAPER
                           : child->new_group || child->new_session ? PM_CONTAIN_GROUP
                                                                    : PM_CONTAIN_NONE;
    started->detachment = PM_DETACH_NONE;
    started->started_wall_ms = pmi_wall_ms();
    started->started_ms = pmi_now_ms();
}

// What is there before the child, and goes with it once it lives.
struct surroundings {
    struct pmi_stdio_plan stdio;
    struct pmi_resolved_options options;
    struct pmi_os_process op; // Its terminal and control group alone.
    int procs_fd;
    bool lends; // The terminal of the host.
};

// Launches with the keeper where it is asked for. A keeper that dies between the announcement and
// its answer makes the child give up before exec: that start is done again, with a new keeper.
static int launch_normal(struct pmi_os_manager *om, const struct pmi_plan *plan,
                         struct pmi_child_plan *child, const struct surroundings *s,
                         struct pmi_os_process *op, struct pmi_started *started,
                         struct pm_error *err)
{
    if (!plan->die_with_parent)
        return pmi_launch(NULL, child, plan->deadline, op, started, err);
    for (int round = 0;; round++) {
        int result = pmi_keeper_enlist(om, s->op.cgroup, plan->deadline, s->stdio.floor,
                                       &child->keeper_fd, err);
        if (result != PM_OK)
            return result;
        result = pmi_launch(om, child, plan->deadline, op, started, err);
        if (result == PM_ERR_NO_DESCRIPTORS && err->stage == PM_STAGE_KEEPER)
            pmi_fail_hint(err, "the keeper has none left for one more child");
        if (result == PM_OK || err->stage != PM_STAGE_KEEPER || err->code != PM_ERR_BROKEN_PIPE)
            return result;
        if (round > 0) {
            pmi_keeper_explain(om, err);
            return err->code;
        }
    }
}

// A terminal is its user's, as if that had logged in on it.
static int own_terminal(const struct pmi_stdio_plan *stdio,
                        const struct pmi_resolved_options *options, struct pm_error *err)
{
    if (stdio->terminal < 0 || (options->child.flags & PMI_OPTION_USER) == 0 ||
        PMI_SYS(fchown)(stdio->terminal, (uid_t)options->child.uid, (gid_t)-1) == 0)
        return PM_OK;
    pmi_fail(err, PM_STAGE_PTY, errno);
    pmi_fail_option(err, PMI_FIELD_USER);
    return err->code;
}

static void leave(struct surroundings *s)
{
    pmi_stdio_release(&s->stdio);
    pmi_options_release(&s->options);
    pmi_foreground_end(&s->op);
    if (s->lends)
        pmi_foreground_prepared();
    (void)pmi_sys_close(s->procs_fd);
    // A child that reached its program and was killed for it may have left somebody.
    if (s->op.cgroup != NULL && pmi_cgroup_is_populated(s->op.cgroup))
        pmi_cgroup_signal(s->op.cgroup, SIGKILL, 0);
    pmi_cgroup_close(s->op.cgroup);
}

static int enter(const struct pmi_plan *plan, struct surroundings *s, struct pm_error *err)
{
    *s = (struct surroundings){
        .stdio = {.streams = {-1, -1, -1}, .null = -1, .terminal = -1, .master = -1},
        .op = PMI_OS_PROCESS_INIT,
        .procs_fd = -1,
    };
    int result = check(plan, err);
    if (result == PM_OK)
        result = pmi_options_resolve(plan, &s->options, err);
    if (result == PM_OK)
        result = pmi_stdio_prepare(plan, &s->stdio, err);
    if (result == PM_OK)
        result = own_terminal(&s->stdio, &s->options, err);
    if (result == PM_OK)
        result = pmi_foreground_prepare(plan, &s->op, err);
    s->lends = s->op.tty_fd >= 0;
    if (result == PM_OK && plan->spec->cgroup != NULL)
        result = pmi_cgroup_make(plan->spec->cgroup, &s->op.cgroup, &s->procs_fd, err);
    return result;
}

static int start_normal(struct pmi_os_manager *om, const struct pmi_plan *plan,
                        struct pmi_os_process *op, struct pmi_os_stream streams[3],
                        struct pmi_started *ret_started, struct pm_error *err)
{
    struct surroundings s;
    struct pmi_started started = {0};
    int result = enter(plan, &s, err);
    if (result != PM_OK) {
        leave(&s);
        return result;
    }

    // The casts only undo const that execve lacks.
    struct pmi_child_plan child = {
        .program = plan->program,
        .argv = (char *const *)plan->argv,
        .env = (char *const *)plan->env,
        .cwd = plan->cwd,
        .new_group = plan->group != PM_GROUP_HOST,
        .new_session = plan->mode == PM_MODE_PTY || plan->spec->new_session,
        .terminal = plan->mode == PM_MODE_PTY,
        .foreground = plan->group == PM_GROUP_FOREGROUND,
        .options = &s.options.child,
        .cgroup_fd = s.procs_fd,
        .fds = s.stdio.fds,
        .fds_count = s.stdio.fds_count,
        .report_fd = -1,
        .keeper_fd = -1,
        .low_fds = &om->low_fds,
        .program_fd = -1,
        .mark = plan->mark,
        .parent_pid = plan->die_with_parent ? (int)getpid() : 0,
    };
    result = launch_normal(om, plan, &child, &s, op, &started, err);
    if (result == PM_OK) {
        op->whole_session = child.new_session && PMI_SEES_SESSIONS && !pmi_proc_is_foreign();
        pmi_group_remember(op); // Later somebody else may have waited for it.
        op->whole_tree = plan->own_process && s.op.cgroup == NULL;
        op->tty_fd = s.op.tty_fd;
        op->tty_group = s.op.tty_group;
        op->owed = s.op.owed;
        op->cgroup = s.op.cgroup;
        s.op = (struct pmi_os_process)PMI_OS_PROCESS_INIT;
        commit(&child, &s.stdio, op, streams, &started);
        *ret_started = started;
    }
    leave(&s);
    return result;
}

static int start(struct pmi_os_manager *om, const struct pmi_plan *plan, struct pmi_os_process *op,
                 struct pmi_os_stream streams[3], struct pmi_started *ret_started,
                 struct pm_error *err)
{
    int result = plan->mode == PM_MODE_DAEMON
                     ? pmi_posix_start_daemon(om, plan, op, streams, ret_started, err)
                     : start_normal(om, plan, op, streams, ret_started, err);
    if (result != PM_OK)
        pmi_options_name_field(plan->spec, err);
    return result;
}

// The process, which was `pid`, has been killed and waited for; but its program has run.
static void undo_tree(struct pmi_family *family, struct pmi_birth *birth, pid_t pid)
{
    struct pmi_os_process gone = PMI_OS_PROCESS_INIT;
    gone.pid = pid;
    gone.child = true;
    pmi_family_born(family, birth, &gone);
    gone.reaped = true;
    pmi_family_left(&gone);
    pmi_process_end_tree(&gone);
    free(gone.room);
}

int pmi_os_start(struct pmi_os_manager *om, const struct pmi_plan *plan, struct pmi_os_process *op,
                 struct pmi_os_stream streams[3], struct pmi_started *ret_started,
                 struct pm_error *err)
{
    struct pmi_birth birth;
    struct pmi_plan marked = *plan;
    if (!plan->own_process)
        return start(om, plan, op, streams, ret_started, err);
    int result = pmi_family_expect(&om->family, &birth, err);
    if (result != PM_OK)
        return result;
    marked.mark = birth.mark;
    marked.mark_limit = pmi_family_limit(&om->family, birth.mark);
    result = start(om, &marked, op, streams, ret_started, err);
    if (result != PM_OK && op->pid != 0)
        undo_tree(&om->family, &birth, op->pid);
    else
        pmi_family_born(&om->family, &birth, result == PM_OK ? op : NULL);
    return result;
}

int pmi_os_daemon_commit(struct pmi_os_process *op, struct pm_error *err)
{
    (void)op;
    (void)err;
    return PM_OK;
}
