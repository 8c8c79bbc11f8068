// Standard handles of a child.
#include <stdlib.h>
#include <wchar.h>

#include "sys.h"
#include "win32.h"

static const char *const slot_fields[3] = {"stdin_slot", "stdout_slot", "stderr_slot"};
static const char *const path_fields[3] = {"stdin_slot.path", "stdout_slot.path",
                                           "stderr_slot.path"};
static const char *const native_fields[3] = {"stdin_slot.native", "stdout_slot.native",
                                             "stderr_slot.native"};

static HANDLE valid(HANDLE handle)
{
    return handle == INVALID_HANDLE_VALUE ? NULL : handle;
}

// ------------------------------------------------------------------------------------------------
// Pipes
// ------------------------------------------------------------------------------------------------

// One try under a random name. A stranger who connects between our two calls makes the second one
// fail with ERROR_PIPE_BUSY: he gets nothing, and we take another name.
static DWORD open_pipe_once(bool reads, SECURITY_ATTRIBUTES *sa, HANDLE *ret_ours,
                            HANDLE *ret_child)
{
    uint64_t nonce[2];
    wchar_t name[96];
    if (pmi_os_random(nonce, sizeof nonce) != PM_OK) {
        return ERROR_GEN_FAILURE;
    }
    (void)_snwprintf(name, 96, L"\\\\.\\pipe\\processmgr-%lu-%016llx%016llx",
                     (unsigned long)GetCurrentProcessId(), (unsigned long long)nonce[0],
                     (unsigned long long)nonce[1]);
    HANDLE ours =
        valid(pmi_sys_create_named_pipe(name,
                                        (reads ? PIPE_ACCESS_INBOUND : PIPE_ACCESS_OUTBOUND) |
                                            FILE_FLAG_OVERLAPPED | FILE_FLAG_FIRST_PIPE_INSTANCE,
                                        sa));
    if (ours == NULL) {
        return GetLastError();
    }
    // The attribute rights let C runtimes ask for and set the state of their end.
    HANDLE child = valid(CreateFileW(
        name, reads ? GENERIC_WRITE | FILE_READ_ATTRIBUTES : GENERIC_READ | FILE_WRITE_ATTRIBUTES,
        0, NULL, OPEN_EXISTING, SECURITY_SQOS_PRESENT | SECURITY_IDENTIFICATION, NULL));
    if (child == NULL) {
        DWORD os_code = GetLastError();
        (void)CloseHandle(ours);
        return os_code;
    }
    *ret_ours = ours;
    *ret_child = child;
    return ERROR_SUCCESS;
}

int pmi_win_pipe_open(bool reads, struct pmi_os_stream *ret_stream, HANDLE *ret_child,
                      DWORD *ret_os_code)
{
    SECURITY_ATTRIBUTES sa = {0};
    HANDLE event = NULL;
    HANDLE ours = NULL;
    *ret_os_code = 0;
    int result = pmi_win_owner_only(FILE_ALL_ACCESS, false, &sa);
    if (result != PM_OK) {
        return result;
    }
    event = CreateEventW(NULL, TRUE, FALSE, NULL);
    DWORD os_code = event == NULL ? GetLastError() : ERROR_PIPE_BUSY;
    for (int tries = 0; event != NULL && os_code == ERROR_PIPE_BUSY && tries < 4; tries++) {
        os_code = open_pipe_once(reads, &sa, &ours, ret_child);
    }
    pmi_win_security_free(&sa);
    if (os_code != ERROR_SUCCESS) {
        if (event != NULL) {
            (void)CloseHandle(event);
        }
        *ret_os_code = os_code;
        return pmi_win_code(os_code);
    }
    *ret_stream = (struct pmi_os_stream){.handle = ours, .event = event};
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Slots
// ------------------------------------------------------------------------------------------------

static int fail_slot(struct pm_error *err, const char *field, enum pm_stage stage, DWORD os_code)
{
    pmi_win_copy_text(err->field, sizeof err->field, field);
    return pmi_win_fail(err, stage, os_code);
}

static int open_null(int slot, HANDLE *ret_handle, struct pm_error *err)
{
    HANDLE handle = valid(
        pmi_sys_create_file(L"NUL", slot == 0 ? GENERIC_READ : GENERIC_WRITE | FILE_READ_ATTRIBUTES,
                            OPEN_EXISTING, 0));
    if (handle == NULL) {
        return fail_slot(err, slot_fields[slot], PM_STAGE_STDIO, GetLastError());
    }
    *ret_handle = handle;
    return PM_OK;
}

static bool duplicate(HANDLE from, HANDLE *ret_handle)
{
    return from != NULL && from != INVALID_HANDLE_VALUE &&
           pmi_sys_duplicate(from, GetCurrentProcess(), 0, DUPLICATE_SAME_ACCESS, ret_handle);
}

// A program without a console, or with closed standard handles, has nothing to inherit: NUL.
static int open_inherited(int slot, HANDLE *ret_handle, bool *shares_console, struct pm_error *err)
{
    static const DWORD names[3] = {STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE};
    HANDLE ours = GetStdHandle(names[slot]);
    DWORD mode;
    if (!duplicate(ours, ret_handle)) {
        return open_null(slot, ret_handle, err);
    }
    *shares_console = *shares_console || GetConsoleMode(ours, &mode);
    return PM_OK;
}

// A console among them: in a console of its own the child would write to nobody.
static int open_native(int slot, pm_native native, struct pmi_win_stdio *io, struct pm_error *err)
{
    DWORD flags, mode;
    if (!GetHandleInformation((HANDLE)native, &flags) ||
        !duplicate((HANDLE)native, &io->slots[slot])) {
        return fail_slot(err, native_fields[slot], PM_STAGE_STDIO, ERROR_INVALID_HANDLE);
    }
    io->shares_console = io->shares_console || GetConsoleMode((HANDLE)native, &mode);
    return PM_OK;
}

static HANDLE open_file(const wchar_t *path, enum pm_stdio_kind kind)
{
    if (kind == PM_STDIO_FILE_READ) {
        return valid(pmi_sys_create_file(path, GENERIC_READ, OPEN_EXISTING, 0));
    }
    if (kind == PM_STDIO_FILE_APPEND) {
        // Without FILE_WRITE_DATA each write goes to the end, wherever others have moved it.
        return valid(pmi_sys_create_file(path,
                                         FILE_APPEND_DATA | FILE_READ_ATTRIBUTES | SYNCHRONIZE,
                                         OPEN_ALWAYS, 0));
    }
    // Not CREATE_ALWAYS: that one refuses hidden files and resets attributes.
    HANDLE handle =
        valid(pmi_sys_create_file(path, GENERIC_WRITE | FILE_READ_ATTRIBUTES, OPEN_ALWAYS, 0));
    if (handle != NULL && GetFileType(handle) == FILE_TYPE_DISK && !SetEndOfFile(handle)) {
        DWORD os_code = GetLastError();
        (void)CloseHandle(handle);
        SetLastError(os_code);
        handle = NULL;
    }
    return handle;
}

static int open_path(int slot, const struct pm_stdio *stdio, HANDLE *ret_handle,
                     struct pm_error *err)
{
    wchar_t *path = NULL;
    wchar_t *full = NULL;
    DWORD os_code = 0;
    HANDLE handle = NULL;
    int result = pmi_win_wide(stdio->path, &path);
    if (result == PM_OK) {
        result = pmi_win_full_path(path, &full, &os_code);
    }
    if (result == PM_OK) {
        result = pmi_win_lengthen(&full);
    }
    if (result == PM_OK) {
        handle = open_file(full, stdio->kind);
        os_code = handle == NULL ? GetLastError() : 0;
    }
    free(path);
    free(full);
    if (os_code != 0) {
        return fail_slot(err, path_fields[slot], PM_STAGE_STDIO, os_code);
    }
    if (result != PM_OK) {
        return pmi_win_refuse(err, result, PM_STAGE_STDIO, path_fields[slot], NULL);
    }
    *ret_handle = handle;
    return PM_OK;
}

static int open_slot(const struct pmi_plan *plan, int slot, struct pmi_os_stream streams[3],
                     struct pmi_win_stdio *io, struct pm_error *err)
{
    const struct pm_stdio *stdio = &plan->slots[slot];
    DWORD os_code = 0;
    int result;
    io->owned[slot] = true;
    switch (stdio->kind) {
    case PM_STDIO_INHERIT:
        return open_inherited(slot, &io->slots[slot], &io->shares_console, err);
    case PM_STDIO_PIPE:
        result = pmi_win_pipe_open(slot != 0, &streams[slot], &io->slots[slot], &os_code);
        if (os_code != 0) {
            return fail_slot(err, slot_fields[slot], PM_STAGE_PIPE, os_code);
        }
        return result == PM_OK
                   ? PM_OK
                   : pmi_win_refuse(err, result, PM_STAGE_PIPE, slot_fields[slot], NULL);
    case PM_STDIO_FILE_READ:
    case PM_STDIO_FILE_TRUNCATE:
    case PM_STDIO_FILE_APPEND:
        return open_path(slot, stdio, &io->slots[slot], err);
    case PM_STDIO_NATIVE:
        return open_native(slot, stdio->native, io, err);
    case PM_STDIO_STDOUT:
        io->owned[slot] = false;
        io->slots[slot] = io->slots[1];
        return PM_OK;
    case PM_STDIO_TERMINAL:
        io->owned[slot] = false;
        return PM_OK;
    case PM_STDIO_DEFAULT:
    case PM_STDIO_NULL:
        break;
    }
    return open_null(slot, &io->slots[slot], err);
}

// ------------------------------------------------------------------------------------------------
// The list of what the child may inherit
// ------------------------------------------------------------------------------------------------

// Windows refuses a list that names a handle twice (Wine 8 does not).
static void add_once(struct pmi_win_stdio *io, HANDLE handle)
{
    for (size_t i = 0; i < io->count; i++) {
        if (io->list[i] == handle) {
            return;
        }
    }
    io->list[io->count++] = handle;
}

static int build_list(const struct pmi_plan *plan, struct pmi_win_stdio *io, struct pm_error *err)
{
    io->list = calloc(3 + plan->extras_count, sizeof *io->list);
    if (io->list == NULL) {
        return pmi_win_refuse(err, PM_ERR_NO_MEMORY, PM_STAGE_STDIO, NULL, NULL);
    }
    for (int i = 0; i < 3; i++) {
        if (io->slots[i] != NULL) {
            add_once(io, io->slots[i]);
        }
    }
    for (size_t i = 0; i < plan->extras_count; i++) {
        HANDLE extra = (HANDLE)plan->extras[i].source;
        DWORD flags;
        // Pseudo handles (-1 to -6) mean something else in the child.
        if ((intptr_t)extra <= 0 || !GetHandleInformation(extra, &flags)) {
            pmi_win_copy_text(err->field, sizeof err->field, "extras");
            return pmi_win_fail(err, PM_STAGE_STDIO, ERROR_INVALID_HANDLE);
        }
        add_once(io, extra);
    }
    return PM_OK;
}

int pmi_win_stdio_open(const struct pmi_plan *plan, struct pmi_os_stream streams[3],
                       struct pmi_win_stdio *io, struct pm_error *err)
{
    *io = (struct pmi_win_stdio){0};
    int result = PM_OK;
    for (int i = 0; i < 3 && result == PM_OK; i++) {
        result = open_slot(plan, i, streams, io, err);
    }
    if (result == PM_OK) {
        result = build_list(plan, io, err);
    }
    if (result != PM_OK) {
        for (int i = 0; i < 3; i++) {
            pmi_os_stream_close(&streams[i]);
        }
        pmi_win_stdio_close(io);
    }
    return result;
}

// Right before the start: an inheritable handle leaks into every child that the host starts on
// another thread without a handle list.
bool pmi_win_stdio_expose(struct pmi_win_stdio *io)
{
    for (int i = 0; i < 3; i++) {
        if (io->owned[i] &&
            !SetHandleInformation(io->slots[i], HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT)) {
            return false;
        }
    }
    return true;
}

void pmi_win_stdio_close(struct pmi_win_stdio *io)
{
    for (int i = 0; i < 3; i++) {
        if (io->owned[i] && io->slots[i] != NULL) {
            (void)CloseHandle(io->slots[i]);
        }
    }
    free(io->list);
    *io = (struct pmi_win_stdio){0};
}
