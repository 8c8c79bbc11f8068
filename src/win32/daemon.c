// Daemons: born suspended in a gate job that ends with us, recorded, resumed, and let go.
//
// Death of this program at any point leaves the daemon killed or recorded:
//
//   CreateProcessW (suspended, gate job kill-on-close, joined at birth)
//   record `starting`            until here our death kills a program that never ran
//   ResumeThread                 from here our death kills a program that is recorded
//   limits of the job cleared    from here it survives, recorded
//   record `running`
//
// Resumed before it is let go, not after: else our death in between would leave a suspended
// process for ever.
#include <string.h>

#include "sys.h"
#include "win32.h"

// A daemon may start daemons of its own: breakaway is allowed from birth, or a start in its first
// moments would be refused.
#define GATE_LIMITS (JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_BREAKAWAY_OK)
#define FREE_LIMITS JOB_OBJECT_LIMIT_BREAKAWAY_OK

#define DAEMON_FLAGS (DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP | CREATE_SUSPENDED)

// ------------------------------------------------------------------------------------------------
// The job around us
// ------------------------------------------------------------------------------------------------

enum way_out {
    WAY_FREE,  // There is no job to leave.
    WAY_BREAK, // CREATE_BREAKAWAY_FROM_JOB leads out of every job.
    WAY_NONE   // It is refused, or leads from an inner job into an outer one only.
};

// Asks in the child's own terms: a copy of the program is born by the same road, never runs, and is
// asked whether it is in any job. Nothing less will do. QueryInformationJobObject(NULL) knows the
// innermost job only, and a nested one may let go of what an outer one holds: CreateProcessW then
// succeeds and the child is still inside. The daemon itself cannot be asked, since its gate job is
// a job too, and it has to be in that from birth.
//
// Our death in the moment between the two calls leaves a suspended copy that never ran: the price,
// paid only inside a job.
static int probe_way_out(struct pmi_win_launch *l, enum way_out *ret_way, struct pm_error *err)
{
    STARTUPINFOEXW startup = {0};
    PROCESS_INFORMATION info = {0};
    BOOL inside = TRUE;
    startup.StartupInfo.cb = sizeof startup.StartupInfo; // No attributes: no handles, no job.
    struct pmi_sys_start start = {
        .application = l->application,
        .command_line = l->command_line,
        .cwd = l->cwd,
        .environment = l->environment,
        .startup = &startup,
        .flags = DAEMON_FLAGS | CREATE_BREAKAWAY_FROM_JOB | CREATE_UNICODE_ENVIRONMENT,
    };
    if (!pmi_sys_create_process(&start, &info)) {
        DWORD os_code = GetLastError();
        if (os_code == ERROR_ACCESS_DENIED) {
            *ret_way = WAY_NONE; // If the program was meant, the real start says so.
            return PM_OK;
        }
        return pmi_win_fail(err, PM_STAGE_JOB, os_code);
    }
    (void)IsProcessInJob(info.hProcess, NULL, &inside);
    (void)TerminateProcess(info.hProcess, 1);
    (void)CloseHandle(info.hThread);
    (void)CloseHandle(info.hProcess);
    *ret_way = inside ? WAY_NONE : WAY_BREAK;
    return PM_OK;
}

static bool outer_job_kills(void)
{
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION info = {0};
    return QueryInformationJobObject(NULL, JobObjectExtendedLimitInformation, &info, sizeof info,
                                     NULL) &&
           (info.BasicLimitInformation.LimitFlags & JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE) != 0;
}

static int refuse_job(struct pm_error *err, const char *hint)
{
    return pmi_win_refuse(err, PM_ERR_NOT_DETACHABLE, PM_STAGE_JOB, "accept_outer_job", hint);
}

// Of the jobs around us only the innermost can be asked for its limits, so an accepted outer job
// may still be ended by somebody farther out: the Spec took that on itself. (Wine 8 reports no
// limits at all.)
static int choose_way(const struct pmi_plan *plan, struct pmi_win_launch *l,
                      enum pm_detachment *ret_detachment, struct pm_error *err)
{
    BOOL inside = FALSE;
    enum way_out way = WAY_FREE;
    if (IsProcessInJob(GetCurrentProcess(), NULL, &inside) && inside) {
        int result = probe_way_out(l, &way, err);
        if (result != PM_OK) {
            return result;
        }
    }
    l->flags = DAEMON_FLAGS;
    if (way == WAY_FREE) {
        *ret_detachment = PM_DETACH_FREE;
    } else if (way == WAY_BREAK) {
        *ret_detachment = PM_DETACH_BREAKAWAY;
        l->flags |= CREATE_BREAKAWAY_FROM_JOB;
    } else if (!plan->accept_outer_job) {
        return refuse_job(err, "this program runs inside a job that does not let children break "
                               "away (JOB_OBJECT_LIMIT_BREAKAWAY_OK): the daemon could be ended "
                               "with that job");
    } else if (outer_job_kills()) {
        return refuse_job(err, "the job around this program ends all its processes when it is "
                               "closed, the daemon included");
    } else {
        *ret_detachment = PM_DETACH_IN_JOB;
    }
    return PM_OK;
}

static int is_that_one(void *context, DWORD pid)
{
    return pid == *(const DWORD *)context;
}

// ------------------------------------------------------------------------------------------------
// Start
// ------------------------------------------------------------------------------------------------

// The name is random, so that nobody can wait for it, and stands in the record, so that a later
// manager can open the job.
static int make_gate_job(struct pmi_os_process *op, struct pm_error *err)
{
    DWORD os_code = 0;
    int result = PM_ERR_EXISTS;
    for (int tries = 0; tries < 4 && result == PM_ERR_EXISTS; tries++) {
        uint64_t token = 0;
        result = pmi_os_random(&token, sizeof token);
        if (result == PM_OK) {
            token |= token == 0; // 0 would mean: no name.
            result = pmi_win_job_create(token, GATE_LIMITS, NULL, &op->job, &os_code);
            op->job_token = token;
        }
    }
    if (result != PM_OK) {
        (void)pmi_win_fail(err, PM_STAGE_JOB, os_code);
        err->code = result;
    }
    return result;
}

static int pass_gate(const struct pmi_plan *plan, struct pmi_os_process *op, HANDLE thread,
                     struct pm_error *err)
{
    struct pmi_identity id;
    int result = pmi_os_process_identity(op, &id);
    if (result != PM_OK) {
        return pmi_win_refuse(err, result, PM_STAGE_GATE, NULL, NULL);
    }
    result = plan->gate(plan->gate_context, &id, err);
    if (result == PM_OK && !pmi_sys_resume(thread)) {
        result = pmi_win_fail(err, PM_STAGE_RESUME, GetLastError());
    }
    return result;
}

int pmi_win_daemon_start(const struct pmi_plan *plan, struct pmi_os_process *op,
                         struct pmi_started *ret_started, struct pm_error *err)
{
    struct pmi_win_launch l = {0};
    struct pmi_os_stream no_pipes[3] = {PMI_OS_STREAM_INIT, PMI_OS_STREAM_INIT, PMI_OS_STREAM_INIT};
    int result = pmi_win_launch_prepare(&l, plan, no_pipes, err);
    if (result == PM_OK) {
        result = choose_way(plan, &l, &ret_started->detachment, err);
    }
    if (result == PM_OK) {
        result = make_gate_job(op, err);
    }
    if (result == PM_OK) {
        l.job = op->job;
        l.flags |= pmi_win_priority_flag(plan->spec->priority_class);
        result = pmi_win_launch_create(&l, plan, err);
    }
    if (result == PM_OK) {
        op->process = l.info.hProcess;
        op->pid = l.info.dwProcessId;
        op->start = pmi_win_creation(op->process);
        ret_started->fallbacks = l.late_job ? PM_FALLBACK_LATE_JOB : 0;
        l.info.hProcess = NULL;
        if (ret_started->detachment == PM_DETACH_BREAKAWAY &&
            pmi_win_job_visit(NULL, is_that_one, &op->pid) == 1) {
            result = refuse_job(err, "the daemon is still inside the job around this program");
        }
    }
    if (result == PM_OK) {
        result = pmi_win_check_priority(op->process, plan->spec->priority_class, err);
    }
    if (result == PM_OK) {
        result = pass_gate(plan, op, l.info.hThread, err);
    }
    if (result != PM_OK) {
        pmi_win_undo(op);
    }
    pmi_win_launch_clear(&l);
    return result;
}

// The daemon keeps one handle of its own job: the name of an object goes with its last handle, and
// without it a later manager could not end the daemon's tree. (Wine keeps the name as long as the
// job has members, so a run there proves nothing.) The handle is given before the limits are
// cleared; should we die in between, the daemon's end takes its tree along, until a manager that
// re-attaches clears them.
int pmi_os_daemon_commit(struct pmi_os_process *op, struct pm_error *err)
{
    HANDLE theirs = NULL;
    // A daemon that is dead already cannot take it and does not need it.
    (void)pmi_sys_duplicate(op->job, op->process, JOB_OBJECT_QUERY, 0, &theirs);
    if (!pmi_win_job_set_limits(op->job, FREE_LIMITS, NULL)) {
        return pmi_win_fail(err, PM_STAGE_JOB, GetLastError());
    }
    return PM_OK;
}
