#include <windows.h>

#include <psapi.h>

#include "terminal.h"

bool pmi_os_process_status_taken(const struct pmi_os_process *op)
{
    (void)op;
    return false;
}

uint32_t pmi_os_process_fallbacks(const struct pmi_os_process *op)
{
    (void)op;
    return 0;
}

uint64_t pmi_os_process_pid(const struct pmi_os_process *op)
{
    return op->pid;
}

static bool has_ended(const struct pmi_os_process *op)
{
    return WaitForSingleObject(op->process, 0) != WAIT_TIMEOUT;
}

int pmi_os_process_wait(struct pmi_os_process *op, int64_t deadline)
{
    if (op->process == NULL) {
        return PM_OK;
    }
    for (;;) {
        DWORD timeout = pmi_win_timeout(deadline);
        if (WaitForSingleObject(op->process, timeout) != WAIT_TIMEOUT) {
            return PM_OK;
        }
        if (timeout == 0) {
            return PM_ERR_TIMEOUT;
        }
    }
}

// ------------------------------------------------------------------------------------------------
// Exit record
// ------------------------------------------------------------------------------------------------

static void read_usage(HANDLE process, struct pm_exit *record)
{
    FILETIME creation, exit, kernel, user;
    PROCESS_MEMORY_COUNTERS memory = {.cb = sizeof memory};
    if (!GetProcessTimes(process, &creation, &exit, &kernel, &user)) {
        return;
    }
    record->usage_known = true;
    record->user_us = pmi_win_filetime(&user) / 10;
    record->system_us = pmi_win_filetime(&kernel) / 10;
    record->max_rss_kib = K32GetProcessMemoryInfo(process, &memory, sizeof memory)
                              ? memory.PeakWorkingSetSize / 1024
                              : 0;
}

int pmi_os_process_reap(struct pmi_os_process *op, struct pm_exit *ret_exit)
{
    DWORD code = 0;
    // The wait decides: STILL_ACTIVE (259) is an exit code like any other.
    if (op->process != NULL && !has_ended(op)) {
        return PM_ERR_TIMEOUT;
    }
    ret_exit->signal = 0;
    ret_exit->core_dumped = false;
    ret_exit->usage_known = false;
    if (op->process == NULL || !GetExitCodeProcess(op->process, &code)) {
        ret_exit->kind = PM_EXIT_LOST;
        ret_exit->code = 0;
        return PM_OK;
    }
    ret_exit->kind = PM_EXIT_EXITED;
    ret_exit->code = code;
    read_usage(op->process, ret_exit);
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Actions
// ------------------------------------------------------------------------------------------------

static int kill_process(struct pmi_os_process *op)
{
    DWORD code = 0;
    if (has_ended(op)) {
        return PM_ERR_GONE;
    }
    if (TerminateProcess(op->process, 1)) {
        return PM_OK;
    }
    DWORD os_code = GetLastError();
    // Windows says ACCESS_DENIED of a process that is dead, or on its way: its exit code is set
    // then although its handle may not be signalled yet. Wine says nothing at all.
    if (os_code == ERROR_ACCESS_DENIED &&
        (has_ended(op) || (GetExitCodeProcess(op->process, &code) && code != STILL_ACTIVE))) {
        return PM_ERR_GONE;
    }
    return pmi_win_code(os_code);
}

static bool nobody_left(const struct pmi_os_process *op)
{
    return has_ended(op) && (op->job == NULL || !pmi_win_job_has_others(op->job, op->pid));
}

static int kill_tree(struct pmi_os_process *op)
{
    if (op->job == NULL) {
        return kill_process(op);
    }
    if (nobody_left(op)) {
        return PM_ERR_GONE;
    }
    return TerminateJobObject(op->job, 1) ? PM_OK : pmi_win_code(GetLastError());
}

static int interrupt(struct pmi_os_process *op, enum pm_stop_scope scope, enum pmi_win_heard heard,
                     struct pmi_os_step **ret_step)
{
    if (has_ended(op)) {
        // What it left behind may be on its console, but only it leads there.
        bool gone = scope == PM_SCOPE_PROCESS || nobody_left(op);
        int result = gone ? PM_ERR_GONE : PM_ERR_UNSUPPORTED;
        return heard == PMI_WIN_NOT_ASKED ? result : PM_OK;
    }
    return pmi_win_interrupt(op, scope, heard, ret_step);
}

// Programs that have such an event wait for it; windows are second best, since to close one may ask
// a person whether to save.
static enum pmi_win_heard ask(DWORD pid, uint64_t creation)
{
    return pmi_win_stop_event_set(pid, creation) == PM_OK ? PMI_WIN_ASKED
                                                          : pmi_win_close_windows(pid);
}

struct terminate_walk {
    HANDLE job;
    DWORD leader;
    enum pmi_win_heard leader_heard, anybody_heard;
};

// Members come and go while the list is read: a pid counts only if the process behind it is in the
// job now.
static int terminate_member(void *context, DWORD pid)
{
    struct terminate_walk *walk = context;
    BOOL inside = FALSE;
    HANDLE process = pmi_win_open_process(pid, 0);
    if (process == NULL) {
        return 0;
    }
    if (IsProcessInJob(process, walk->job, &inside) && inside) {
        enum pmi_win_heard heard = ask(pid, pmi_win_creation(process));
        walk->anybody_heard = heard > walk->anybody_heard ? heard : walk->anybody_heard;
        walk->leader_heard = pid == walk->leader ? heard : walk->leader_heard;
    }
    (void)CloseHandle(process);
    return 0;
}

static int terminate_tree(struct pmi_os_process *op, struct pmi_os_step **ret_step)
{
    struct terminate_walk walk = {.job = op->job, .leader = op->pid};
    if (nobody_left(op)) {
        return PM_ERR_GONE;
    }
    (void)pmi_win_job_visit(op->job, terminate_member, &walk);
    return walk.leader_heard == PMI_WIN_ASKED
               ? PM_OK
               : interrupt(op, PM_SCOPE_TREE, walk.anybody_heard, ret_step);
}

static int terminate(struct pmi_os_process *op, enum pm_stop_scope scope,
                     struct pmi_os_step **ret_step)
{
    if (scope == PM_SCOPE_TREE && op->job != NULL) {
        return terminate_tree(op, ret_step);
    }
    if (has_ended(op)) {
        return PM_ERR_GONE;
    }
    enum pmi_win_heard heard = ask(op->pid, op->start);
    return heard == PMI_WIN_ASKED ? PM_OK : interrupt(op, PM_SCOPE_PROCESS, heard, ret_step);
}

int pmi_os_process_act(struct pmi_os_process *op, enum pm_stop_action action,
                       enum pm_stop_scope scope, struct pmi_os_step **ret_step)
{
    if (scope == PM_SCOPE_GROUP) {
        return PM_ERR_UNSUPPORTED;
    }
    if (op->process == NULL) {
        return PM_ERR_GONE;
    }
    if (action == PM_STOP_KILL) {
        return scope == PM_SCOPE_TREE ? kill_tree(op) : kill_process(op);
    }
    if (action == PM_STOP_INTERRUPT) {
        return interrupt(op, scope, PMI_WIN_NOT_ASKED, ret_step);
    }
    return action == PM_STOP_TERMINATE ? terminate(op, scope, ret_step) : PM_ERR_UNSUPPORTED;
}

int pmi_os_process_signal(struct pmi_os_process *op, int signal_number, enum pm_stop_scope scope)
{
    if (signal_number != 0 || scope == PM_SCOPE_GROUP) {
        return PM_ERR_UNSUPPORTED;
    }
    return op->process == NULL || has_ended(op) ? PM_ERR_GONE : PM_OK;
}

bool pmi_os_process_tree_alive(struct pmi_os_process *op)
{
    return op->job != NULL && pmi_win_job_has_others(op->job, op->pid);
}

void pmi_os_round_begin(void)
{
    // Each job knows its own processes.
}

void pmi_os_round_end(void)
{
}

int pmi_os_process_waitable(struct pmi_os_process *op, pm_native *ret_native)
{
    if (op->process == NULL) {
        return PM_ERR_UNSUPPORTED;
    }
    *ret_native = (pm_native)op->process;
    return PM_OK;
}

void pmi_os_process_close(struct pmi_os_process *op)
{
    if (op->job != NULL && op->keeper != NULL) {
        pmi_win_keeper_give(op->keeper, op->job, &op->limits);
    } else if (op->job != NULL) {
        (void)CloseHandle(op->job);
    }
    pmi_win_keeper_unref(op->keeper);
    if (op->terminal != NULL) {
        pmi_win_terminal_hang_up(op->terminal);
        pmi_win_terminal_unref(op->terminal);
    }
    if (op->process != NULL) {
        (void)CloseHandle(op->process);
    }
    *op = (struct pmi_os_process)PMI_OS_PROCESS_INIT;
}

int pmi_os_zombies(void (*visit)(void *context, const struct pmi_zombie *zombie), void *context)
{
    (void)visit; // Windows has no such state.
    (void)context;
    return PM_OK;
}

bool pmi_os_zombie_is_there(const struct pmi_zombie *zombie)
{
    (void)zombie;
    return false;
}

int pmi_os_zombie_reap(const struct pmi_zombie *zombie)
{
    (void)zombie;
    return PM_ERR_UNSUPPORTED;
}

uint64_t pmi_os_parent_of(uint64_t pid)
{
    (void)pid; // Windows keeps a number that may be another's by now.
    return 0;
}
