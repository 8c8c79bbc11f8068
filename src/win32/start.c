#include "sys.h"
#include "terminal.h"

void pmi_win_undo(struct pmi_os_process *op)
{
    if (op->job != NULL) {
        (void)TerminateJobObject(op->job, 1);
    }
    if (op->process != NULL) {
        (void)TerminateProcess(op->process, 1); // Also where it never came into the job.
        (void)WaitForSingleObject(op->process, 2000);
    }
    if (op->job != NULL) {
        (void)CloseHandle(op->job);
        op->job = NULL;
    }
    pmi_os_process_close(op);
}

void pmi_os_process_abandon(struct pmi_os_process *op)
{
    pmi_win_undo(op);
}

// A child that shares none of our consoles gets one of its own without a window: with none at all
// each console program that it starts would open a visible one.
static DWORD console_flag(const struct pmi_win_stdio *io)
{
    return io->shares_console ? 0 : CREATE_NO_WINDOW;
}

static DWORD flags_of(const struct pmi_win_launch *l, const struct pmi_plan *plan)
{
    DWORD priority = pmi_win_priority_flag(plan->spec->priority_class);
    DWORD console = plan->mode == PM_MODE_PTY ? 0 : console_flag(&l->io);
    bool wait = plan->mode == PM_MODE_PTY || plan->spec->priority_class != PM_PRIORITY_DEFAULT;
    return console | priority | (wait ? CREATE_SUSPENDED : 0);
}

// A terminal is watched, and a class that is asked for looked at, before the first instruction.
static int resume(struct pmi_win_launch *l, const struct pmi_plan *plan,
                  struct pmi_terminal *terminal, struct pm_error *err)
{
    int result = PM_OK;
    if ((l->flags & CREATE_SUSPENDED) == 0) {
        return PM_OK;
    }
    result = pmi_win_check_priority(l->info.hProcess, plan->spec->priority_class, err);
    if (result == PM_OK && terminal != NULL) {
        result = pmi_win_terminal_watch(terminal, l->info.hProcess, err);
    }
    if (result == PM_OK) {
        result = pmi_win_launch_resume(l, err);
    }
    if (result != PM_OK) {
        (void)TerminateProcess(l->info.hProcess, 1);
        (void)WaitForSingleObject(l->info.hProcess, 2000);
    }
    return result;
}

static bool has_limits(const struct pm_job_limits *l)
{
    return l->processes != 0 || l->process_memory != 0 || l->job_memory != 0 ||
           l->process_user_ms != 0;
}

// Its job, and its terminal, which costs a process and so comes last.
static int open_rooms(const struct pmi_plan *plan, struct pmi_os_stream streams[3],
                      struct pmi_win_launch *l, struct pmi_terminal **ret_terminal,
                      struct pm_error *err)
{
    DWORD os_code = 0;
    // A child that is a manager itself has to be able to detach daemons, as it can on POSIX.
    DWORD limits = JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION | JOB_OBJECT_LIMIT_BREAKAWAY_OK;
    if (plan->die_with_parent) {
        limits |= JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
    }
    int result = pmi_win_job_create(0, limits, &plan->spec->job_limits, &l->job, &os_code);
    l->job_flags = limits;
    l->job_limits = &plan->spec->job_limits;
    if (result != PM_OK) {
        (void)pmi_win_fail(err, PM_STAGE_JOB, os_code);
        err->code = result;
        if (has_limits(&plan->spec->job_limits)) { // The job itself is hardly ever refused.
            pmi_win_copy_text(err->field, sizeof err->field, "job_limits");
        }
    } else if (plan->mode == PM_MODE_PTY) {
        result = pmi_win_terminal_open(plan, streams, ret_terminal, err);
    }
    if (*ret_terminal != NULL) {
        l->console = pmi_win_terminal_console(*ret_terminal);
    }
    return result;
}

static int start_child(struct pmi_os_manager *om, const struct pmi_plan *plan,
                       struct pmi_os_process *op, struct pmi_os_stream streams[3],
                       struct pmi_started *ret_started, struct pm_error *err)
{
    struct pmi_win_launch l = {0};
    struct pmi_terminal *terminal = NULL;
    int result = pmi_win_launch_prepare(&l, plan, streams, err);
    if (result == PM_OK) {
        result = open_rooms(plan, streams, &l, &terminal, err);
    }
    if (result == PM_OK) {
        l.flags = flags_of(&l, plan);
        result = pmi_win_launch_create(&l, plan, err);
    }
    if (result == PM_OK) {
        result = resume(&l, plan, terminal, err);
    }
    if (result == PM_OK) {
        op->process = l.info.hProcess;
        op->job = l.job;
        op->pid = l.info.dwProcessId;
        op->start = pmi_win_creation(op->process);
        op->console = terminal != NULL || (l.flags & CREATE_NO_WINDOW) != 0 ? PMI_CONSOLE_OWN
                                                                            : PMI_CONSOLE_SHARED;
        op->terminal = terminal;
        op->keeper = plan->die_with_parent ? pmi_win_keeper_ref(om->keeper) : NULL;
        op->limits = plan->spec->job_limits;
        ret_started->fallbacks = l.late_job ? PM_FALLBACK_LATE_JOB : 0;
        l.info.hProcess = NULL;
        l.job = NULL;
    } else if (terminal != NULL) {
        pmi_win_terminal_cancel(terminal, streams);
    }
    if (l.job != NULL) {
        (void)CloseHandle(l.job);
    }
    pmi_win_launch_clear(&l);
    return result;
}

int pmi_os_start(struct pmi_os_manager *om, const struct pmi_plan *plan, struct pmi_os_process *op,
                 struct pmi_os_stream streams[3], struct pmi_started *ret_started,
                 struct pm_error *err)
{
    struct pmi_os_stream ends[3] = {PMI_OS_STREAM_INIT, PMI_OS_STREAM_INIT, PMI_OS_STREAM_INIT};
    struct pmi_os_process made = PMI_OS_PROCESS_INIT;
    struct pmi_started started = {.containment = PM_CONTAIN_JOB};
    int result = plan->mode == PM_MODE_DAEMON ? pmi_win_daemon_start(plan, &made, &started, err)
                                              : start_child(om, plan, &made, ends, &started, err);
    if (result != PM_OK) {
        for (int i = 0; i < 3; i++) {
            pmi_os_stream_close(&ends[i]);
        }
        return result;
    }
    started.started_ms = pmi_now_ms();
    started.started_wall_ms = pmi_win_wall_of(made.start);
    for (int i = 0; i < 3; i++) {
        if (pmi_os_stream_is_open(&ends[i])) {
            streams[i] = ends[i];
        }
    }
    *op = made;
    *ret_started = started;
    return PM_OK;
}
