// System calls of a start, in one place so that a test can look at them or make them fail.
#ifndef PMI_WIN32_SYS_H
#define PMI_WIN32_SYS_H

#include <windows.h>

#include <stdbool.h>

// Called before each CreateProcessW of this library, with what it is given. For tests; NULL in
// every program. Not exported from the shared library.
extern void (*pmi_test_create_process_hook)(const wchar_t *app, const wchar_t *cmdline,
                                            unsigned long flags);

// Asked before each of the calls below, with its name: 0, or the code with which it shall fail. For
// tests, as above.
extern unsigned long (*pmi_test_fail_hook)(const char *call);
// Called in the helper between the Ctrl-C and its end. For tests, as above.
extern void (*pmi_test_ctrl_c_hook)(void);

struct pmi_sys_start {
    const wchar_t *application;
    wchar_t *command_line; // CreateProcessW may write to it.
    const wchar_t *cwd;
    void *environment;
    STARTUPINFOEXW *startup;
    bool inherits; // It has a list of handles.
    DWORD flags;
};

BOOL pmi_sys_create_process(const struct pmi_sys_start *start, PROCESS_INFORMATION *ret_info);
HANDLE pmi_sys_create_file(const wchar_t *path, DWORD access, DWORD disposition, DWORD flags);
HANDLE pmi_sys_create_named_pipe(const wchar_t *name, DWORD mode, SECURITY_ATTRIBUTES *sa);
HANDLE pmi_sys_create_job(SECURITY_ATTRIBUTES *sa, const wchar_t *name);
HANDLE pmi_sys_create_event(SECURITY_ATTRIBUTES *sa, const wchar_t *name);
BOOL pmi_sys_duplicate(HANDLE from, HANDLE process, DWORD access, DWORD options,
                       HANDLE *ret_handle);
// Told of the limits of each job before they are set; gives another answer for the system. For
// tests, as above.
extern void (*pmi_test_limit_job_hook)(const JOBOBJECT_EXTENDED_LIMIT_INFORMATION *info);
extern unsigned long (*pmi_test_priority_hook)(unsigned long priority_class);

BOOL pmi_sys_limit_job(HANDLE job, JOBOBJECT_EXTENDED_LIMIT_INFORMATION *info);
DWORD pmi_sys_priority(HANDLE process); // 0 with GetLastError().
BOOL pmi_sys_assign_job(HANDLE job, HANDLE process);
BOOL pmi_sys_resume(HANDLE thread);
// The attribute keeps the pointer.
BOOL pmi_sys_join_at_birth(LPPROC_THREAD_ATTRIBUTE_LIST list, HANDLE *job);
HMODULE pmi_sys_load_library(const wchar_t *name); // Of the system's folder.
BOOL pmi_sys_attach_console(DWORD pid);
BOOL pmi_sys_ctrl_c(void); // For all on our console.

// The calls of a pseudoconsole, found at run time: a program that imports them does not even load
// on a system without them. NULL there. HPCON is a pointer.
struct pmi_sys_console_calls {
    HRESULT(WINAPI *create)(COORD size, HANDLE in, HANDLE out, DWORD flags, void **ret_console);
    HRESULT(WINAPI *resize)(void *console, COORD size);
    void(WINAPI *close)(void *console);
};

// Other calls in place of the system's. For tests, as above.
extern const struct pmi_sys_console_calls *pmi_test_pseudoconsole;

const struct pmi_sys_console_calls *pmi_sys_pseudoconsole(void);

#endif
