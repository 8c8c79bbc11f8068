#include "console.h"

#include <stdlib.h>
#include <wchar.h>

#include "sys.h"

// For the whole of a helper's life. It has nothing to wait for but the machine.
#define HELPER_MS 5000

// What one helper needs.
struct helper {
    struct pmi_win_launch launch;
    struct pmi_os_stream plan; // Our end of its stdin.
    HANDLE target, job;        // For it to inherit.
};

static int out_of(DWORD os_code)
{
    int code = pmi_win_code(os_code);
    return code == PM_ERR_NO_MEMORY || code == PM_ERR_NO_DESCRIPTORS ||
                   code == PM_ERR_NO_PROCESS_SLOTS
               ? code
               : PM_ERR_LAUNCHER;
}

static int open_null(HANDLE *ret_handle)
{
    HANDLE handle =
        pmi_sys_create_file(L"NUL", GENERIC_WRITE | FILE_READ_ATTRIBUTES, OPEN_EXISTING, 0);
    if (handle == INVALID_HANDLE_VALUE) {
        return out_of(GetLastError());
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

static int write_plan(struct helper *h, const struct pmi_os_process *op, bool alone)
{
    struct pmi_win_console_plan plan = {
        .magic = PMI_WIN_CONSOLE_MAGIC,
        .start = op->start,
        .target = (uint64_t)(uintptr_t)h->target,
        .job = (uint64_t)(uintptr_t)h->job,
        .pid = op->pid,
        .alone = alone ? 1 : 0,
    };
    size_t count = 0;
    int result =
        pmi_os_stream_write(&h->plan, &plan, sizeof plan, pmi_now_ms() + HELPER_MS, &count);
    return result == PM_OK && count == sizeof plan ? PM_OK : PM_ERR_LAUNCHER;
}

static int write_line(struct helper *h, const struct pmi_os_process *op)
{
    size_t units = wcslen(h->launch.application) + 64;
    h->launch.command_line = malloc(units * sizeof *h->launch.command_line);
    if (h->launch.command_line == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    (void)_snwprintf(h->launch.command_line, units, L"\"%ls\" %hs %lu", h->launch.application,
                     PMI_WIN_CONSOLE_MARKER, (unsigned long)op->pid);
    return PM_OK;
}

static int prepare(struct helper *h, const struct pmi_os_process *op, bool alone)
{
    DWORD os_code = 0;
    int result = pmi_win_launcher_path(&h->launch.application);
    if (result == PM_OK) {
        result = write_line(h, op);
    }
    if (result == PM_OK &&
        (!pmi_sys_duplicate(op->process, GetCurrentProcess(),
                            PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_QUERY_INFORMATION |
                                SYNCHRONIZE,
                            0, &h->target) ||
         !pmi_sys_duplicate(op->job, GetCurrentProcess(), JOB_OBJECT_QUERY, 0, &h->job))) {
        result = out_of(GetLastError());
    }
    if (result == PM_OK) {
        result = open_stdio(h);
    }
    if (result == PM_OK) {
        result = write_plan(h, op, alone);
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
    const struct pm_extra extras[2] = {
        {.source = (pm_native)h->target},
        {.source = (pm_native)h->job},
    };
    const struct pmi_plan plan = {.extras = extras, .extras_count = 2};
    h->launch.flags = DETACHED_PROCESS; // It has no use for a console of its own.
    int result = pmi_win_launch_create(&h->launch, &plan, &err);
    return result == PM_OK ? PM_OK : out_of(err.os_code);
}

static int outcome(const struct helper *h)
{
    DWORD code = PMI_WIN_CONSOLE_FAILED;
    if (WaitForSingleObject(h->launch.info.hProcess, HELPER_MS) != WAIT_OBJECT_0 ||
        !GetExitCodeProcess(h->launch.info.hProcess, &code)) {
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
}

int pmi_win_interrupt(const struct pmi_os_process *op, enum pm_stop_scope scope)
{
    struct helper h = {.plan = PMI_OS_STREAM_INIT};
    if (op->console != PMI_CONSOLE_OWN || op->job == NULL) {
        return PM_ERR_UNSUPPORTED;
    }
    int result = prepare(&h, op, scope == PM_SCOPE_PROCESS);
    if (result == PM_OK) {
        result = start(&h);
    }
    if (result == PM_OK) {
        result = outcome(&h);
    }
    clear(&h);
    return result;
}
