// Arguments, the stop event, and the crash trace.
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "poddaemon/os.h"
#include "win32/win32.h"

#include <shellapi.h>

void pod_process_settle(int *argc, char ***argv)
{
    int count = 0;
    wchar_t **wide = CommandLineToArgvW(GetCommandLineW(), &count);
    // A new process group ignores Ctrl-C, and so would everything below us.
    (void)SetConsoleCtrlHandler(NULL, FALSE);
    // What we say goes on to the C library's descriptors. Others in this process start programs,
    // too (Wine its desktop, with these three), which would have that file open for as long as they
    // live: the folder of a session could not be removed.
    (void)SetStdHandle(STD_OUTPUT_HANDLE, NULL);
    (void)SetStdHandle(STD_ERROR_HANDLE, NULL);
    // Nobody is there to answer a window that asks what to do about a crash.
    (void)SetErrorMode(SEM_FAILCRITICALERRORS | SEM_NOGPFAULTERRORBOX);
    char **utf8 = wide != NULL ? calloc((size_t)count + 1, sizeof *utf8) : NULL;
    if (utf8 == NULL) {
        return; // The arguments of the code page: plain ones are the same.
    }
    for (int i = 0; i < count; i++) {
        if (pmi_win_narrow(wide[i], &utf8[i]) != PM_OK) {
            return;
        }
    }
    *argc = count;
    *argv = utf8;
    (void)LocalFree(wide);
}

// ------------------------------------------------------------------------------------------------
// The stop event
// ------------------------------------------------------------------------------------------------

static void on_stop(void *user)
{
    struct pod_process *process = user;
    (void)ResetEvent((HANDLE)process->event);
    process->told(process->user, POD_PROCESS_STOP);
}

int pod_process_listen(uv_loop_t *loop, struct pod_process *process, pod_process_told *told,
                       void *user)
{
    *process = (struct pod_process){.told = told, .user = user, .event = PM_NATIVE_INVALID};
    int result = pm_stop_event_open(&process->event);
    if (result == PM_OK) {
        result = pod_watch_open(loop, &process->stop, process->event, on_stop, process);
    }
    return result;
}

void pod_process_close(struct pod_process *process)
{
    pod_watch_close(&process->stop);
    if (process->told != NULL) {
        pod_file_close(process->event);
        process->told = NULL;
    }
}

int pod_strays_begin(struct pod_strays *strays, uint64_t child)
{
    (void)strays;
    (void)child;
    return PM_OK;
}

int pod_strays_note(struct pod_strays *strays)
{
    (void)strays;
    return PM_OK;
}

int pod_strays_terminate(struct pod_strays *strays)
{
    (void)strays;
    return PM_OK;
}

int pod_strays_kill(struct pod_strays *strays)
{
    (void)strays;
    return PM_OK;
}

void pod_strays_clear(struct pod_strays *strays)
{
    (void)strays;
}

bool pod_process_ignores_stop(uint64_t pid)
{
    (void)pid;
    return true; // Its terminal is closed by the first step of a stop: nothing is left for later.
}

void pod_process_hang_up(pm_process *child)
{
    (void)child; // The step of the library is all that there is.
}

// ------------------------------------------------------------------------------------------------
// Crash
// ------------------------------------------------------------------------------------------------

#define FRAMES_MAX 48

static struct {
    HANDLE file;
    const char *events;
    size_t events_size;
} crash;

static void say(const char *text, size_t size)
{
    DWORD written;
    if (crash.file != (HANDLE)PM_NATIVE_INVALID) {
        (void)WriteFile(crash.file, text, (DWORD)size, &written, NULL);
    }
}

static void say_text(const char *text)
{
    say(text, strlen(text));
}

static void say_hex(uint64_t value)
{
    char text[20] = "0x";
    for (size_t i = 0; i < 16; i++) {
        text[2 + i] = "0123456789abcdef"[value >> (4 * (15 - i)) & 15];
    }
    text[18] = '\n';
    say(text, 19);
}

static void say_frame(uint64_t address)
{
    say_text("  ");
    say_hex(address);
}

#ifdef __x86_64__

// Whether an address is one of the stack of this thread.
static bool is_stack(DWORD64 address)
{
    const NT_TIB *thread = (const NT_TIB *)NtCurrentTeb();
    return address % sizeof(DWORD64) == 0 && address >= (DWORD64)(uintptr_t)thread->StackLimit &&
           address < (DWORD64)(uintptr_t)thread->StackBase;
}

// From the registers at the fault on: the frames of the handler say nothing.
static void say_frames(const CONTEXT *fault)
{
    CONTEXT context = *fault;
    for (unsigned i = 0; i < FRAMES_MAX && context.Rip != 0; i++) {
        DWORD64 base, frame, before = context.Rsp;
        void *data;
        say_frame(context.Rip);
        RUNTIME_FUNCTION *function = RtlLookupFunctionEntry(context.Rip, &base, NULL);
        if (function != NULL) {
            (void)RtlVirtualUnwind(UNW_FLAG_NHANDLER, base, context.Rip, function, &context, &data,
                                   &frame, NULL);
        } else if (!is_stack(context.Rsp)) {
            break;
        } else { // Of a function without a frame, or of none: a call to nowhere.
            context.Rip = *(const DWORD64 *)(uintptr_t)context.Rsp;
            context.Rsp += sizeof(DWORD64);
        }
        if (context.Rsp <= before) {
            break;
        }
    }
}

#else

// As far as the system knows the way from here.
static void say_frames(const CONTEXT *fault)
{
    void *frames[FRAMES_MAX];
    (void)fault;
    unsigned count = CaptureStackBackTrace(0, FRAMES_MAX, frames, NULL);
    for (unsigned i = 0; i < count; i++) {
        say_frame((uint64_t)(uintptr_t)frames[i]);
    }
}

#endif

static void say_stack(const CONTEXT *fault)
{
    say_text("stack, address of pod_crash_arm ");
    say_hex((uint64_t)(uintptr_t)pod_crash_arm);
    say_frames(fault);
}

static void say_events(void)
{
    say_text("last events:\n");
    say(crash.events, crash.events_size);
}

static LONG WINAPI on_crash(EXCEPTION_POINTERS *exception)
{
    say_text("\ncrash: exception ");
    say_hex(exception->ExceptionRecord->ExceptionCode);
    say_text("at ");
    say_hex((uint64_t)(uintptr_t)exception->ExceptionRecord->ExceptionAddress);
    say_events();
    say_stack(exception->ContextRecord); // Last: a broken stack may end it here.
    say_text("end of crash\n");
    return EXCEPTION_CONTINUE_SEARCH;
}

// Of assert(), and of libuv where it cannot go on: no exception tells of it.
static void on_abort(int number)
{
    CONTEXT context;
    (void)number;
    RtlCaptureContext(&context);
    say_text("\ncrash: abort\n");
    say_events();
    say_stack(&context);
    say_text("end of crash\n");
}

void pod_crash_arm(pm_native file, const char *events, size_t events_size)
{
    ULONG room = 32768; // Of the stack, for a handler when it is full.
    bool armed = crash.events != NULL;
    crash.file = (HANDLE)file;
    crash.events = events;
    crash.events_size = events_size;
    if (armed) {
        return;
    }
    (void)SetThreadStackGuarantee(&room);
    (void)SetUnhandledExceptionFilter(on_crash);
    (void)signal(SIGABRT, on_abort);
}
