// One CreateProcessW: texts, attributes, handles.
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "sys.h"
#include "win32.h"

// Characters of a current folder, for which "\\?\" is no way out: with the separator that Windows
// adds and the NUL they are MAX_PATH.
// https://learn.microsoft.com/windows/win32/api/winbase/nf-winbase-setcurrentdirectory
#define FOLDER_MAX (MAX_PATH - 2)

// Guards HANDLE_FLAG_INHERIT of the caller's own handles (extras): two starts that share one would
// undo it under each other's feet.
static SRWLOCK extras_lock = SRWLOCK_INIT;

// ------------------------------------------------------------------------------------------------
// Texts
// ------------------------------------------------------------------------------------------------

static int fill_environment(wchar_t *block, size_t capacity, const char *const *env)
{
    size_t used = 0;
    for (size_t i = 0; env[i] != NULL; i++) {
        wchar_t *entry = NULL;
        int result = pmi_win_wide(env[i], &entry);
        if (result != PM_OK) {
            return result;
        }
        size_t units = wcslen(entry) + 1;
        if (units > PMI_WIN_UNITS_MAX || units > capacity - used) {
            free(entry);
            return PM_ERR_TOO_BIG;
        }
        memcpy(block + used, entry, units * sizeof *block);
        used += units;
        free(entry);
    }
    return PM_OK; // The rest of the block is zero.
}

static int make_environment(struct pmi_win_launch *l, const struct pmi_plan *plan,
                            struct pm_error *err)
{
    size_t capacity = 2; // An empty block has two NULs.
    for (size_t i = 0; plan->env[i] != NULL; i++) {
        capacity += strlen(plan->env[i]) + 1; // UTF-16 never has more units than UTF-8 bytes.
    }
    l->environment = calloc(capacity, sizeof *l->environment);
    int result = l->environment == NULL ? PM_ERR_NO_MEMORY
                                        : fill_environment(l->environment, capacity - 1, plan->env);
    return result == PM_OK ? PM_OK : pmi_win_refuse(err, result, PM_STAGE_CHECK, "env", NULL);
}

static int make_folder(struct pmi_win_launch *l, const struct pmi_plan *plan, struct pm_error *err)
{
    int result = pmi_win_wide(plan->cwd, &l->cwd);
    if (result != PM_OK) {
        return pmi_win_refuse(err, result, PM_STAGE_CHECK, "cwd", NULL);
    }
    return wcslen(l->cwd) <= FOLDER_MAX
               ? PM_OK
               : pmi_win_refuse(err, PM_ERR_TOO_BIG, PM_STAGE_CHDIR, "cwd",
                                "the current folder of a process has 258 characters at most");
}

int pmi_win_launch_prepare(struct pmi_win_launch *l, const struct pmi_plan *plan,
                           struct pmi_os_stream streams[3], struct pm_error *err)
{
    int result = pmi_win_command(plan, &l->application, &l->command_line, err);
    if (result == PM_OK) {
        result = make_environment(l, plan, err);
    }
    if (result == PM_OK && plan->cwd != NULL) {
        result = make_folder(l, plan, err);
    }
    return result == PM_OK ? pmi_win_stdio_open(plan, streams, &l->io, err) : result;
}

// ------------------------------------------------------------------------------------------------
// Attributes
// ------------------------------------------------------------------------------------------------

// Windows refuses an empty list. Where there is none nothing is inherited either.
static bool add_handles(const struct pmi_win_launch *l, LPPROC_THREAD_ATTRIBUTE_LIST list)
{
    return l->io.count == 0 ||
           UpdateProcThreadAttribute(list, 0, PROC_THREAD_ATTRIBUTE_HANDLE_LIST, l->io.list,
                                     l->io.count * sizeof(HANDLE), NULL, NULL);
}

static bool add_console(const struct pmi_win_launch *l, LPPROC_THREAD_ATTRIBUTE_LIST list)
{
    return l->console == NULL ||
           UpdateProcThreadAttribute(list, 0, PROC_THREAD_ATTRIBUTE_PSEUDOCONSOLE, l->console,
                                     sizeof l->console, NULL, NULL);
}

// Sets l->late_job where the job cannot be joined at birth (before Windows 10).
static int make_attributes(struct pmi_win_launch *l, LPPROC_THREAD_ATTRIBUTE_LIST *ret_list,
                           struct pm_error *err)
{
    SIZE_T size = 0;
    (void)InitializeProcThreadAttributeList(NULL, 3, 0, &size);
    LPPROC_THREAD_ATTRIBUTE_LIST list = malloc(size);
    if (list == NULL) {
        return pmi_win_refuse(err, PM_ERR_NO_MEMORY, PM_STAGE_EXEC, NULL, NULL);
    }
    if (!InitializeProcThreadAttributeList(list, 3, 0, &size)) {
        DWORD os_code = GetLastError();
        free(list);
        return pmi_win_fail(err, PM_STAGE_EXEC, os_code);
    }
    bool has_handles = add_handles(l, list);
    if (!has_handles || !add_console(l, list)) {
        DWORD os_code = GetLastError();
        DeleteProcThreadAttributeList(list);
        free(list);
        return pmi_win_fail(err, has_handles ? PM_STAGE_PTY : PM_STAGE_STDIO, os_code);
    }
    l->late_job = l->job != NULL && !pmi_sys_join_at_birth(list, &l->job);
    *ret_list = list;
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Start
// ------------------------------------------------------------------------------------------------

// Makes the caller's handles inheritable; notes in `was` which were so before.
static bool expose_extras(const struct pmi_plan *plan, bool *was)
{
    for (size_t i = 0; i < plan->extras_count; i++) {
        HANDLE extra = (HANDLE)plan->extras[i].source;
        DWORD flags = 0;
        was[i] = GetHandleInformation(extra, &flags) && (flags & HANDLE_FLAG_INHERIT) != 0;
        if (!was[i] && !SetHandleInformation(extra, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT)) {
            for (size_t k = i + 1; k < plan->extras_count; k++) {
                was[k] = true; // Untouched.
            }
            return false;
        }
    }
    return true;
}

static void hide_extras(const struct pmi_plan *plan, const bool *was)
{
    for (size_t i = plan->extras_count; i-- > 0;) { // Backwards: a handle may stand there twice.
        if (!was[i]) {
            (void)SetHandleInformation((HANDLE)plan->extras[i].source, HANDLE_FLAG_INHERIT, 0);
        }
    }
}

static DWORD call_with_extras(const struct pmi_plan *plan, const struct pmi_sys_start *start,
                              PROCESS_INFORMATION *ret_info)
{
    bool *was = calloc(plan->extras_count, sizeof *was);
    if (was == NULL) {
        return ERROR_NOT_ENOUGH_MEMORY;
    }
    DWORD os_code = ERROR_SUCCESS;
    AcquireSRWLockExclusive(&extras_lock);
    if (!expose_extras(plan, was) || !pmi_sys_create_process(start, ret_info)) {
        os_code = GetLastError();
    }
    hide_extras(plan, was);
    ReleaseSRWLockExclusive(&extras_lock);
    free(was);
    return os_code;
}

static DWORD call(const struct pmi_plan *plan, const struct pmi_sys_start *start,
                  PROCESS_INFORMATION *ret_info)
{
    if (plan->extras_count != 0) {
        return call_with_extras(plan, start, ret_info);
    }
    return pmi_sys_create_process(start, ret_info) ? ERROR_SUCCESS : GetLastError();
}

static bool may_mean_a_path(DWORD os_code)
{
    return os_code == ERROR_FILE_NOT_FOUND || os_code == ERROR_PATH_NOT_FOUND ||
           os_code == ERROR_INVALID_NAME || os_code == ERROR_BAD_PATHNAME ||
           os_code == ERROR_ACCESS_DENIED || os_code == ERROR_DIRECTORY ||
           os_code == ERROR_FILENAME_EXCED_RANGE;
}

// Windows has one number for many causes; which text was meant is found out afterwards.
static int explain(const struct pmi_win_launch *l, DWORD os_code, struct pm_error *err)
{
    (void)pmi_win_fail(err, PM_STAGE_EXEC, os_code);
    if (l->cwd != NULL && may_mean_a_path(os_code) && !pmi_win_is_folder(l->cwd)) {
        err->stage = PM_STAGE_CHDIR;
        err->code = pmi_win_is_file(l->cwd) ? PM_ERR_NOT_A_DIRECTORY : PM_ERR_NOT_FOUND;
        pmi_win_copy_text(err->field, sizeof err->field, "cwd");
    } else if (os_code == ERROR_DIRECTORY ||
               (l->cwd != NULL && os_code == ERROR_FILENAME_EXCED_RANGE)) {
        err->stage = PM_STAGE_CHDIR;
        pmi_win_copy_text(err->field, sizeof err->field, "cwd");
    } else if (may_mean_a_path(os_code) && wcslen(l->application) >= MAX_PATH &&
               pmi_win_is_file(l->application)) { // Wine 8: 2 or 123.
        err->code = PM_ERR_TOO_BIG;
        pmi_win_copy_text(err->hint, sizeof err->hint,
                          "a path of more than 259 characters, which this system does not start");
    } else if (pmi_win_is_folder(l->application)) { // 5 on Windows, 6 on Wine 8.
        err->code = PM_ERR_NOT_EXECUTABLE;
    } else if (os_code == ERROR_SHARING_VIOLATION) {
        err->code = PM_ERR_TEXT_BUSY;
    } else if (os_code == ERROR_NOT_ENOUGH_QUOTA) {
        err->code = PM_ERR_NO_PROCESS_SLOTS; // The limit on active processes of a job around us.
    } else if (os_code == ERROR_BAD_EXE_FORMAT) {
        pmi_win_copy_text(err->hint, sizeof err->hint,
                          "no program of this system; a script needs its interpreter as program");
    } else if (os_code == ERROR_ELEVATION_REQUIRED) {
        pmi_win_copy_text(err->hint, sizeof err->hint, "the program asks for elevation");
    }
    bool of_program = err->code == PM_ERR_NOT_FOUND || err->code == PM_ERR_ACCESS ||
                      err->code == PM_ERR_NOT_EXECUTABLE || err->code == PM_ERR_TEXT_BUSY ||
                      err->code == PM_ERR_TOO_BIG;
    if (err->field[0] == '\0' && of_program) {
        pmi_win_copy_text(err->field, sizeof err->field, "program");
    }
    return err->code;
}

// While it is suspended our death must end it: nobody else would ever let it go. (Between the birth
// outside of the job and the assignment, before Windows 10, there is no such net.)
static bool hold(struct pmi_win_launch *l)
{
    l->held = l->job_flags != 0 && ((l->flags & CREATE_SUSPENDED) != 0 || l->late_job) &&
              (l->job_flags & JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE) == 0;
    return !l->held ||
           pmi_win_job_set_limits(l->job, l->job_flags | JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
                                  l->job_limits);
}

int pmi_win_launch_resume(struct pmi_win_launch *l, struct pm_error *err)
{
    int result = PM_OK;
    if (!pmi_sys_resume(l->info.hThread)) {
        result = pmi_win_fail(err, PM_STAGE_RESUME, GetLastError());
    } else if (l->held && !pmi_win_job_set_limits(l->job, l->job_flags, l->job_limits)) {
        result = pmi_win_fail(err, PM_STAGE_JOB, GetLastError());
    }
    if (result != PM_OK) {
        (void)TerminateProcess(l->info.hProcess, 1);
    }
    return result;
}

// The fallback before Windows 10: born suspended, so it runs nothing outside the job.
static int join_late(struct pmi_win_launch *l, bool stay_suspended, struct pm_error *err)
{
    if (!pmi_sys_assign_job(l->job, l->info.hProcess)) {
        int result = pmi_win_fail(err, PM_STAGE_JOB, GetLastError());
        (void)TerminateProcess(l->info.hProcess, 1);
        return result;
    }
    return stay_suspended ? PM_OK : pmi_win_launch_resume(l, err);
}

int pmi_win_launch_create(struct pmi_win_launch *l, const struct pmi_plan *plan,
                          struct pm_error *err)
{
    LPPROC_THREAD_ATTRIBUTE_LIST attributes = NULL;
    int result = make_attributes(l, &attributes, err);
    if (result != PM_OK) {
        return result;
    }
    if (!hold(l)) {
        result = pmi_win_fail(err, PM_STAGE_JOB, GetLastError());
        DeleteProcThreadAttributeList(attributes);
        free(attributes);
        return result;
    }
    STARTUPINFOEXW startup = {0};
    startup.StartupInfo.cb = sizeof startup;
    // NULL stands for the terminal; without the flag its child would be given copies of the host's
    // own handles (microsoft/terminal#11276).
    startup.StartupInfo.dwFlags = STARTF_USESTDHANDLES;
    startup.StartupInfo.hStdInput = l->io.slots[0];
    startup.StartupInfo.hStdOutput = l->io.slots[1];
    startup.StartupInfo.hStdError = l->io.slots[2];
    startup.lpAttributeList = attributes;
    struct pmi_sys_start start = {
        .application = l->application,
        .command_line = l->command_line,
        .cwd = l->cwd,
        .environment = l->environment,
        .startup = &startup,
        .inherits = l->io.count != 0,
        .flags = l->flags | CREATE_UNICODE_ENVIRONMENT | EXTENDED_STARTUPINFO_PRESENT |
                 (l->late_job ? CREATE_SUSPENDED : 0),
    };
    DWORD os_code = pmi_win_stdio_expose(&l->io) ? call(plan, &start, &l->info) : GetLastError();
    pmi_win_stdio_close(&l->io);
    DeleteProcThreadAttributeList(attributes);
    free(attributes);
    if (os_code != ERROR_SUCCESS) {
        return explain(l, os_code, err);
    }
    return l->late_job ? join_late(l, (l->flags & CREATE_SUSPENDED) != 0, err) : PM_OK;
}

void pmi_win_launch_clear(struct pmi_win_launch *l)
{
    pmi_win_stdio_close(&l->io);
    free(l->application);
    free(l->command_line);
    free(l->cwd);
    free(l->environment);
    if (l->info.hThread != NULL) {
        (void)CloseHandle(l->info.hThread);
    }
    if (l->info.hProcess != NULL) {
        (void)CloseHandle(l->info.hProcess);
    }
    *l = (struct pmi_win_launch){0};
}
