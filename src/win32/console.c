#include "console.h"

#include <stdlib.h>
#include <wchar.h>

#include "sys.h"

// For the whole of a helper's life. It has nothing to wait for but the machine.
#define HELPER_MS 5000

// At once. More are started as these come back: a stop of a thousand does not start a thousand.
#define HELPERS_MAX 16

// What one helper needs.
struct helper {
    struct pmi_win_launch launch;
    struct pmi_os_stream plan; // Our end of its stdin.
    HANDLE target, job;        // For it to inherit.
};

// One delivery. Two have it: the stop, and the thread that runs the helper.
struct pmi_os_step {
    struct helper helper; // The thread's, once it is there.
    uint64_t start;       // Of the target.
    DWORD pid;
    bool alone;               // Nobody but the target is to hear it.
    enum pmi_win_heard heard; // What was done besides.
    bool begun;               // The stop's: there is a thread.
    HANDLE given_up;
    LONG volatile refs;
    LONG volatile result; // PM_ERR_TIMEOUT: it is under way.
};

static LONG volatile helpers;

// What stands for it that the helper could not be started.
static int failed(int code)
{
    return code == PM_ERR_NO_MEMORY || code == PM_ERR_NO_DESCRIPTORS ||
                   code == PM_ERR_NO_PROCESS_SLOTS || code == PM_ERR_NO_LAUNCHER
               ? code
               : PM_ERR_LAUNCHER;
}

static int open_null(HANDLE *ret_handle)
{
    HANDLE handle =
        pmi_sys_create_file(L"NUL", GENERIC_WRITE | FILE_READ_ATTRIBUTES, OPEN_EXISTING, 0);
    if (handle == INVALID_HANDLE_VALUE) {
        return pmi_win_code(GetLastError());
    }
    *ret_handle = handle;
    return PM_OK;
}

static int open_stdio(struct helper *h)
{
    struct pmi_win_stdio *io = &h->launch.io;
    DWORD os_code = 0;
    int result = pmi_win_pipe_open(false, &h->plan, &io->slots[0], &os_code);
    if (result != PM_OK) {
        return result;
    }
    io->owned[0] = true;
    result = open_null(&io->slots[1]);
    if (result != PM_OK) {
        return result;
    }
    io->owned[1] = true;
    io->slots[2] = io->slots[1];
    io->list = calloc(4, sizeof *io->list);
    if (io->list == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    io->list[0] = io->slots[0];
    io->list[1] = io->slots[1];
    io->list[2] = h->target;
    io->list[3] = h->job;
    io->count = 4;
    return PM_OK;
}

static int write_plan(struct pmi_os_step *step)
{
    struct helper *h = &step->helper;
    struct pmi_win_console_plan plan = {
        .magic = PMI_WIN_CONSOLE_MAGIC,
        .start = step->start,
        .target = (uint64_t)(uintptr_t)h->target,
        .job = (uint64_t)(uintptr_t)h->job,
        .pid = step->pid,
        .alone = step->alone ? 1 : 0,
    };
    size_t count = 0;
    int result =
        pmi_os_stream_write(&h->plan, &plan, sizeof plan, pmi_now_ms() + HELPER_MS, &count);
    return result == PM_OK && count == sizeof plan ? PM_OK : PM_ERR_LAUNCHER;
}

static int write_line(struct helper *h, DWORD pid)
{
    size_t units = wcslen(h->launch.application) + 64;
    h->launch.command_line = malloc(units * sizeof *h->launch.command_line);
    if (h->launch.command_line == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    (void)_snwprintf(h->launch.command_line, units, L"\"%ls\" %hs %lu", h->launch.application,
                     PMI_WIN_CONSOLE_MARKER, (unsigned long)pid);
    return PM_OK;
}

static int prepare(struct pmi_os_step *step)
{
    struct helper *h = &step->helper;
    DWORD os_code = 0;
    int result = pmi_win_launcher_path(&h->launch.application);
    if (result == PM_OK) {
        result = write_line(h, step->pid);
    }
    if (result == PM_OK) {
        result = open_stdio(h);
    }
    if (result == PM_OK) {
        result = write_plan(step);
    }
    if (result == PM_OK) {
        result = pmi_win_job_create(0,
                                    JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE |
                                        JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION,
                                    NULL, &h->launch.job, &os_code);
    }
    return result;
}

static int start(struct helper *h)
{
    struct pm_error err = PM_ERROR_INIT;
    const struct pmi_plan plan = {0};
    // Not as extras, which are the caller's and go out one start at a time: these are ours alone.
    if (!SetHandleInformation(h->target, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT) ||
        !SetHandleInformation(h->job, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT)) {
        return pmi_win_code(GetLastError());
    }
    h->launch.flags = DETACHED_PROCESS; // It has no use for a console of its own.
    return pmi_win_launch_create(&h->launch, &plan, &err);
}

static int outcome(const struct pmi_os_step *step)
{
    const HANDLE ends[2] = {step->helper.launch.info.hProcess, step->given_up};
    DWORD code = PMI_WIN_CONSOLE_FAILED;
    if (WaitForMultipleObjects(2, ends, FALSE, HELPER_MS) != WAIT_OBJECT_0 ||
        !GetExitCodeProcess(ends[0], &code)) {
        return PM_ERR_LAUNCHER;
    }
    switch (code) {
    case PMI_WIN_CONSOLE_SENT:
        return PM_OK;
    case PMI_WIN_CONSOLE_GONE:
        return PM_ERR_GONE;
    case PMI_WIN_CONSOLE_NONE:
    case PMI_WIN_CONSOLE_OTHERS:
        return PM_ERR_UNSUPPORTED;
    case PMI_WIN_CONSOLE_DENIED:
        return PM_ERR_ACCESS;
    default:
        return PM_ERR_LAUNCHER;
    }
}

static void clear(struct helper *h)
{
    if (h->launch.job != NULL) {
        (void)CloseHandle(h->launch.job); // Ends one that is still there.
    }
    pmi_win_launch_clear(&h->launch);
    pmi_os_stream_close(&h->plan);
    if (h->target != NULL) {
        (void)CloseHandle(h->target);
    }
    if (h->job != NULL) {
        (void)CloseHandle(h->job);
    }
    *h = (struct helper){.plan = PMI_OS_STREAM_INIT};
}

// ------------------------------------------------------------------------------------------------
// The delivery
// ------------------------------------------------------------------------------------------------

static void drop(struct pmi_os_step *step)
{
    if (InterlockedDecrement(&step->refs) == 0) {
        clear(&step->helper);
        if (step->given_up != NULL) {
            (void)CloseHandle(step->given_up);
        }
        free(step);
    }
}

// An event or a visible window is enough. A hidden one may be there for other ends than to hear
// that: it counts only where the process has no console to be asked on, or has ended since.
static int combine(enum pmi_win_heard heard, int result)
{
    bool none = result == PM_ERR_UNSUPPORTED || result == PM_ERR_GONE;
    return heard == PMI_WIN_ASKED || (heard == PMI_WIN_POSTED && none) ? PM_OK : result;
}

// All of it can take long (a slow disk, somebody who looks at each new process), so it is done
// under no lock and nobody's thread.
static void CALLBACK run(PTP_CALLBACK_INSTANCE instance, void *context)
{
    struct pmi_os_step *step = context;
    (void)CallbackMayRunLong(instance);
    int result =
        WaitForSingleObject(step->given_up, 0) == WAIT_TIMEOUT ? prepare(step) : PM_ERR_LAUNCHER;
    if (result == PM_OK) {
        result = start(&step->helper);
    }
    result = result == PM_OK ? outcome(step) : failed(result);
    clear(&step->helper);
    (void)InterlockedDecrement(&helpers);
    (void)InterlockedExchange(&step->result, combine(step->heard, result));
    drop(step);
}

// Does nothing while there are enough.
static int begin(struct pmi_os_step *step)
{
    if (InterlockedIncrement(&helpers) > HELPERS_MAX) {
        (void)InterlockedDecrement(&helpers);
        return PM_ERR_TIMEOUT;
    }
    (void)InterlockedIncrement(&step->refs);
    if (!TrySubmitThreadpoolCallback(run, step, NULL)) {
        (void)InterlockedDecrement(&helpers);
        (void)InterlockedDecrement(&step->refs);
        return PM_ERR_NO_MEMORY;
    }
    step->begun = true;
    return PM_ERR_TIMEOUT;
}

int pmi_win_interrupt(const struct pmi_os_process *op, enum pm_stop_scope scope,
                      enum pmi_win_heard heard, struct pmi_os_step **ret_step)
{
    if (op->console != PMI_CONSOLE_OWN || op->job == NULL) {
        return combine(heard, PM_ERR_UNSUPPORTED);
    }
    if (!pmi_win_launcher_is_wired()) {
        return combine(heard, PM_ERR_NO_LAUNCHER);
    }
    struct pmi_os_step *step = calloc(1, sizeof *step);
    if (step == NULL) {
        return combine(heard, PM_ERR_NO_MEMORY);
    }
    *step = (struct pmi_os_step){
        .helper = {.plan = PMI_OS_STREAM_INIT},
        .start = op->start,
        .pid = op->pid,
        .alone = scope == PM_SCOPE_PROCESS,
        .heard = heard,
        .refs = 1,
        .result = PM_ERR_TIMEOUT,
    };
    // The handle of the process keeps its pid from everybody else.
    step->given_up = CreateEventW(NULL, TRUE, FALSE, NULL);
    if (step->given_up == NULL ||
        !pmi_sys_duplicate(op->process, GetCurrentProcess(),
                           PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_QUERY_INFORMATION |
                               SYNCHRONIZE,
                           0, &step->helper.target) ||
        !pmi_sys_duplicate(op->job, GetCurrentProcess(), JOB_OBJECT_QUERY, 0, &step->helper.job)) {
        int result = failed(pmi_win_code(GetLastError()));
        drop(step);
        return combine(heard, result);
    }
    int result = begin(step);
    if (result != PM_ERR_TIMEOUT) {
        drop(step);
        return combine(heard, result);
    }
    *ret_step = step;
    return PM_OK;
}

int pmi_os_step_poll(struct pmi_os_step *step)
{
    int result = (int)InterlockedCompareExchange(&step->result, 0, 0);
    if (result == PM_ERR_TIMEOUT && !step->begun) {
        result = begin(step);
        return result == PM_ERR_TIMEOUT ? result : combine(step->heard, result);
    }
    return result;
}

void pmi_os_step_end(struct pmi_os_step *step)
{
    if (step != NULL) {
        (void)SetEvent(step->given_up);
        drop(step);
    }
}
