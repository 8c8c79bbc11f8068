// A pseudoconsole is two pipes and a console host process between them and the child. Nothing
// closes it but who holds the HPCON, and until it is closed the output has no end (before Windows
// 11 24H2: microsoft/terminal#4564). So a thread of its own waits for the end of the process and
// closes it then. A thread, because before build 26100 ClosePseudoConsole waits until all output
// was read or its reader has gone: while the caller leaves the stream open and unread that thread
// is what waits, and nothing else does.
#include "terminal.h"

#include <process.h>
#include <stdlib.h>

#include "sys.h"

#define STACK_SIZE (256 * 1024) // Of address space: libraries of the host may run in it, too.
#define UNDO_MS 2000
// Programs on the console have so long to end once it is closed: then the system ends them. The
// default of Windows.
#define CLOSE_MS 5000

struct pmi_terminal {
    SRWLOCK lock;
    unsigned refs;
    void *console; // HPCON; NULL once it is being closed.
    // Our ends of streams that were closed before the terminal was. The console host of Windows 11
    // 24H2 takes the end of its input for the end of the terminal, and what it does without an
    // output is not the same in all versions.
    HANDLE parked[2];
    bool taken;
    // Constant once the thread runs.
    HANDLE thread;
    HANDLE process; // NULL = none was started.
    HANDLE hung_up; // Event.
    HANDLE closed;  // Timer: it is closed, or has had the time for that.
};

bool pmi_win_has_terminals(void)
{
    return pmi_sys_pseudoconsole()->create != NULL;
}

static void close_handle(HANDLE handle)
{
    if (handle != NULL) {
        (void)CloseHandle(handle);
    }
}

void pmi_win_terminal_unref(struct pmi_terminal *t)
{
    AcquireSRWLockExclusive(&t->lock);
    bool last = --t->refs == 0;
    ReleaseSRWLockExclusive(&t->lock);
    if (last) {
        close_handle(t->thread);
        close_handle(t->process);
        close_handle(t->hung_up);
        close_handle(t->closed);
        free(t);
    }
}

// ------------------------------------------------------------------------------------------------
// The end
// ------------------------------------------------------------------------------------------------

static DWORD WINAPI drain(void *handle)
{
    char nowhere[4096];
    OVERLAPPED operation = {.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL)};
    DWORD count = 0;
    while (operation.hEvent != NULL &&
           (ReadFile(handle, nowhere, sizeof nowhere, NULL, &operation) ||
            GetLastError() == ERROR_IO_PENDING) &&
           GetOverlappedResult(handle, &operation, &count, TRUE)) {
    }
    close_handle(operation.hEvent);
    close_handle(handle);
    return 0;
}

// Output that nobody wants any more. ClosePseudoConsole may wait for ever for its reader, even if
// the pipe is closed by then (microsoft/terminal#17489): so it is read until the console host ends.
static void discard(HANDLE output)
{
    DWORD there = 0;
    if (output == NULL || !PeekNamedPipe(output, NULL, 0, NULL, &there, NULL) ||
        !QueueUserWorkItem(drain, output, WT_EXECUTELONGFUNCTION)) {
        close_handle(output);
    }
}

static void signal_closed(struct pmi_terminal *t, int64_t ms)
{
    LARGE_INTEGER due = {.QuadPart = -ms * PMI_WIN_TICKS_PER_MS};
    (void)SetWaitableTimer(t->closed, &due, 0, NULL, NULL, FALSE);
}

static unsigned __stdcall close_at_the_end(void *context)
{
    struct pmi_terminal *t = context;
    HANDLE either[2] = {t->hung_up, t->process};
    (void)WaitForMultipleObjects(t->process != NULL ? 2 : 1, either, FALSE, INFINITE);
    AcquireSRWLockExclusive(&t->lock);
    void *console = t->console;
    HANDLE parked[2] = {t->parked[0], t->parked[1]};
    t->console = NULL;
    t->parked[0] = t->parked[1] = NULL;
    ReleaseSRWLockExclusive(&t->lock);
    close_handle(parked[0]);
    discard(parked[1]);
    signal_closed(t, CLOSE_MS);
    if (console != NULL) {
        pmi_sys_pseudoconsole()->close(console);
    }
    signal_closed(t, 0);
    pmi_win_terminal_unref(t);
    return 0;
}

void pmi_win_terminal_hang_up(struct pmi_terminal *t)
{
    AcquireSRWLockExclusive(&t->lock);
    if (!t->taken) {
        (void)SetEvent(t->hung_up);
    }
    ReleaseSRWLockExclusive(&t->lock);
}

void pmi_win_terminal_park(struct pmi_terminal *t, HANDLE handle, bool types)
{
    AcquireSRWLockExclusive(&t->lock);
    bool open = t->console != NULL;
    if (open) {
        t->parked[types ? 0 : 1] = handle;
    }
    ReleaseSRWLockExclusive(&t->lock);
    if (!open && types) {
        close_handle(handle);
    } else if (!open) {
        discard(handle);
    }
    pmi_win_terminal_unref(t);
}

void pmi_win_terminal_let_take(struct pmi_terminal *t)
{
    AcquireSRWLockExclusive(&t->lock);
    t->taken = true;
    ReleaseSRWLockExclusive(&t->lock);
    pmi_win_terminal_unref(t);
}

// ------------------------------------------------------------------------------------------------
// Opening
// ------------------------------------------------------------------------------------------------

// The thread is there from the beginning, so that it cannot be missing at the end.
static struct pmi_terminal *new_terminal(void)
{
    struct pmi_terminal *t = calloc(1, sizeof *t);
    if (t == NULL) {
        return NULL;
    }
    InitializeSRWLock(&t->lock);
    t->hung_up = CreateEventW(NULL, TRUE, FALSE, NULL);
    t->closed = CreateWaitableTimerW(NULL, TRUE, NULL);
    if (t->hung_up != NULL && t->closed != NULL) {
        t->thread =
            (HANDLE)_beginthreadex(NULL, STACK_SIZE, close_at_the_end, t,
                                   CREATE_SUSPENDED | STACK_SIZE_PARAM_IS_A_RESERVATION, NULL);
    }
    if (t->thread == NULL) {
        t->refs = 1;
        pmi_win_terminal_unref(t);
        return NULL;
    }
    t->refs = 4; // The caller, two streams, the thread.
    return t;
}

// An HRESULT that is one of the system's own numbers; others are told as they are.
static DWORD os_code_of(HRESULT result)
{
    if (result == E_NOTIMPL) {
        return ERROR_CALL_NOT_IMPLEMENTED;
    }
    return HRESULT_FACILITY(result) == FACILITY_WIN32 ? (DWORD)HRESULT_CODE(result) : (DWORD)result;
}

static int open_console(struct pmi_terminal *t, const struct pmi_plan *plan,
                        struct pmi_os_stream streams[3], struct pm_error *err)
{
    HANDLE theirs[2] = {NULL, NULL};
    DWORD os_code = 0;
    int result = pmi_win_pipe_open(false, &streams[0], &theirs[0], &os_code);
    if (result == PM_OK) {
        result = pmi_win_pipe_open(true, &streams[1], &theirs[1], &os_code);
    }
    if (result != PM_OK) {
        (void)pmi_win_fail(err, PM_STAGE_PIPE, os_code);
        err->code = result;
    } else {
        COORD size = {.X = (SHORT)plan->columns, .Y = (SHORT)plan->rows};
        void *console = NULL;
        HRESULT made = pmi_sys_pseudoconsole()->create(size, theirs[0], theirs[1], 0, &console);
        if (SUCCEEDED(made)) {
            t->console = console;
        } else {
            result = pmi_win_fail(err, PM_STAGE_PTY, os_code_of(made));
        }
    }
    close_handle(theirs[0]); // The console host has its own.
    close_handle(theirs[1]);
    return result;
}

int pmi_win_terminal_open(const struct pmi_plan *plan, struct pmi_os_stream streams[3],
                          struct pmi_terminal **ret_terminal, struct pm_error *err)
{
    struct pmi_terminal *t = new_terminal();
    if (t == NULL) {
        return pmi_win_refuse(err, PM_ERR_NO_MEMORY, PM_STAGE_PTY, NULL, NULL);
    }
    int result = open_console(t, plan, streams, err);
    streams[0].terminal = streams[1].terminal = t;
    streams[0].types = true;
    if (result != PM_OK) {
        pmi_win_terminal_cancel(t, streams);
        return result;
    }
    *ret_terminal = t;
    return PM_OK;
}

int pmi_win_terminal_watch(struct pmi_terminal *t, HANDLE process, struct pm_error *err)
{
    if (!pmi_sys_duplicate(process, GetCurrentProcess(), SYNCHRONIZE, 0, &t->process)) {
        t->process = NULL;
        return pmi_win_fail(err, PM_STAGE_PTY, GetLastError());
    }
    (void)pmi_sys_resume(t->thread);
    return PM_OK;
}

void pmi_win_terminal_cancel(struct pmi_terminal *t, struct pmi_os_stream streams[3])
{
    pmi_os_stream_close(&streams[0]);
    pmi_os_stream_close(&streams[1]);
    (void)SetEvent(t->hung_up);
    (void)pmi_sys_resume(t->thread);
    (void)WaitForSingleObject(t->thread, UNDO_MS);
    pmi_win_terminal_unref(t);
}

void *pmi_win_terminal_console(const struct pmi_terminal *t)
{
    return t->console;
}

HANDLE pmi_win_terminal_closed(const struct pmi_terminal *t)
{
    return t->closed;
}

// ------------------------------------------------------------------------------------------------
// Seam
// ------------------------------------------------------------------------------------------------

int pmi_os_terminal_resize(struct pmi_os_process *op, unsigned columns, unsigned rows)
{
    struct pmi_terminal *t = op->terminal;
    COORD size = {.X = (SHORT)columns, .Y = (SHORT)rows};
    int result = PM_ERR_GONE;
    if (t == NULL) {
        return result;
    }
    // Under the lock: it must not be closed under the call.
    AcquireSRWLockExclusive(&t->lock);
    if (t->console != NULL) {
        HRESULT done = pmi_sys_pseudoconsole()->resize(t->console, size);
        result = SUCCEEDED(done)     ? PM_OK
                 : done == E_NOTIMPL ? PM_ERR_UNSUPPORTED // Wine 8 and 10.
                                     : PM_ERR_SYSTEM;
    }
    ReleaseSRWLockExclusive(&t->lock);
    return result;
}

void pmi_os_terminal_close(struct pmi_os_process *op)
{
    if (op->terminal != NULL) {
        pmi_win_terminal_hang_up(op->terminal);
    }
}
