#include "sys.h"

unsigned long (*pmi_test_fail_hook)(const char *call);
void (*pmi_test_ctrl_c_hook)(void);

// Whether a test wants this call to fail, with its GetLastError() then.
static bool fails(const char *call)
{
    unsigned long os_code = pmi_test_fail_hook != NULL ? pmi_test_fail_hook(call) : 0;
    if (os_code != 0) {
        SetLastError(os_code);
    }
    return os_code != 0;
}

void (*pmi_test_create_process_hook)(const wchar_t *app, const wchar_t *cmdline,
                                     unsigned long flags);

BOOL pmi_sys_create_process(const struct pmi_sys_start *start, PROCESS_INFORMATION *ret_info)
{
    if (pmi_test_create_process_hook != NULL) {
        pmi_test_create_process_hook(start->application, start->command_line, start->flags);
    }
    return !fails("CreateProcess") &&
           CreateProcessW(start->application, start->command_line, NULL, NULL, start->inherits,
                          start->flags, start->environment, start->cwd,
                          &start->startup->StartupInfo, ret_info);
}

// Never inheritable, shared with everybody.
HANDLE pmi_sys_create_file(const wchar_t *path, DWORD access, DWORD disposition, DWORD flags)
{
    return fails("CreateFile")
               ? INVALID_HANDLE_VALUE
               : CreateFileW(path, access, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                             NULL, disposition, FILE_ATTRIBUTE_NORMAL | flags, NULL);
}

HANDLE pmi_sys_create_named_pipe(const wchar_t *name, DWORD mode, SECURITY_ATTRIBUTES *sa)
{
    const DWORD capacity = 64 * 1024;
    return fails("CreateNamedPipe") ? INVALID_HANDLE_VALUE
                                    : CreateNamedPipeW(name, mode,
                                                       PIPE_TYPE_BYTE | PIPE_READMODE_BYTE |
                                                           PIPE_WAIT | PIPE_REJECT_REMOTE_CLIENTS,
                                                       1, capacity, capacity, 0, sa);
}

HANDLE pmi_sys_create_job(SECURITY_ATTRIBUTES *sa, const wchar_t *name)
{
    return fails("CreateJobObject") ? NULL : CreateJobObjectW(sa, name);
}

HANDLE pmi_sys_create_event(SECURITY_ATTRIBUTES *sa, const wchar_t *name)
{
    return fails("CreateEvent") ? NULL : CreateEventW(sa, TRUE, FALSE, name);
}

// Into `process`; the copy is not inheritable.
BOOL pmi_sys_duplicate(HANDLE from, HANDLE process, DWORD access, DWORD options, HANDLE *ret_handle)
{
    return !fails("DuplicateHandle") &&
           DuplicateHandle(GetCurrentProcess(), from, process, ret_handle, access, FALSE, options);
}

BOOL pmi_sys_assign_job(HANDLE job, HANDLE process)
{
    return !fails("AssignProcessToJobObject") && AssignProcessToJobObject(job, process);
}

BOOL pmi_sys_resume(HANDLE thread)
{
    return !fails("ResumeThread") && ResumeThread(thread) != (DWORD)-1;
}

BOOL pmi_sys_join_at_birth(LPPROC_THREAD_ATTRIBUTE_LIST list, HANDLE *job)
{
    return !fails("JobList") && UpdateProcThreadAttribute(list, 0, PROC_THREAD_ATTRIBUTE_JOB_LIST,
                                                          job, sizeof *job, NULL, NULL);
}

HMODULE pmi_sys_load_library(const wchar_t *name)
{
    return fails("LoadLibrary") ? NULL : LoadLibraryExW(name, NULL, LOAD_LIBRARY_SEARCH_SYSTEM32);
}

BOOL pmi_sys_attach_console(DWORD pid)
{
    return !fails("AttachConsole") && AttachConsole(pid);
}

BOOL pmi_sys_ctrl_c(void)
{
    BOOL sent = !fails("GenerateConsoleCtrlEvent") && GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0);
    if (pmi_test_ctrl_c_hook != NULL) {
        pmi_test_ctrl_c_hook();
    }
    return sent;
}

void (*pmi_test_limit_job_hook)(const JOBOBJECT_EXTENDED_LIMIT_INFORMATION *info);

BOOL pmi_sys_limit_job(HANDLE job, JOBOBJECT_EXTENDED_LIMIT_INFORMATION *info)
{
    if (pmi_test_limit_job_hook != NULL) {
        pmi_test_limit_job_hook(info);
    }
    return !fails("SetInformationJobObject") &&
           SetInformationJobObject(job, JobObjectExtendedLimitInformation, info, sizeof *info);
}

unsigned long (*pmi_test_priority_hook)(unsigned long priority_class);

DWORD pmi_sys_priority(HANDLE process)
{
    DWORD priority_class = fails("GetPriorityClass") ? 0 : GetPriorityClass(process);
    return pmi_test_priority_hook != NULL ? pmi_test_priority_hook(priority_class) : priority_class;
}

// ------------------------------------------------------------------------------------------------
// Pseudoconsoles
// ------------------------------------------------------------------------------------------------

const struct pmi_sys_console_calls *pmi_test_pseudoconsole;

static BOOL CALLBACK find_pseudoconsole(PINIT_ONCE once, void *found, void **context)
{
    static const char *const names[3] = {"CreatePseudoConsole", "ResizePseudoConsole",
                                         "ClosePseudoConsole"};
    struct pmi_sys_console_calls *calls = found;
    HMODULE kernel = GetModuleHandleW(L"kernel32.dll");
    void (*all[3])(void) = {NULL, NULL, NULL};
    (void)once;
    (void)context;
    for (int i = 0; i < 3 && kernel != NULL; i++) {
        all[i] = (void (*)(void))GetProcAddress(kernel, names[i]);
    }
    if (all[0] != NULL && all[1] != NULL && all[2] != NULL) {
        calls->create = (HRESULT(WINAPI *)(COORD, HANDLE, HANDLE, DWORD, void **))all[0];
        calls->resize = (HRESULT(WINAPI *)(void *, COORD))all[1];
        calls->close = (void(WINAPI *)(void *))all[2];
    }
    return TRUE;
}

const struct pmi_sys_console_calls *pmi_sys_pseudoconsole(void)
{
    static INIT_ONCE once = INIT_ONCE_STATIC_INIT;
    static struct pmi_sys_console_calls found;
    (void)InitOnceExecuteOnce(&once, find_pseudoconsole, &found, NULL);
    return pmi_test_pseudoconsole != NULL ? pmi_test_pseudoconsole : &found;
}
