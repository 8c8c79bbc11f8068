// The named event by which a program that listens for it is asked to end.
#include <wchar.h>

#include "sys.h"
#include "win32.h"

#define NAME_MAX_UNITS 96

// Pid and creation time: a later process with the same pid has another event. Both sides are in one
// session, since "Local\" is.
static void event_name(DWORD pid, uint64_t creation, wchar_t name[NAME_MAX_UNITS])
{
    (void)_snwprintf(name, NAME_MAX_UNITS, L"Local\\processmgr-stop-%lu-%016llx",
                     (unsigned long)pid, (unsigned long long)creation);
}

int pmi_os_stop_event_open(pm_native *ret_native)
{
    wchar_t name[NAME_MAX_UNITS];
    SECURITY_ATTRIBUTES sa = {0};
    uint64_t creation = pmi_win_creation(GetCurrentProcess());
    if (creation == 0) {
        return PM_ERR_SYSTEM;
    }
    event_name(GetCurrentProcessId(), creation, name);
    int result = pmi_win_owner_only(EVENT_ALL_ACCESS, false, &sa);
    if (result != PM_OK) {
        return PM_ERR_SYSTEM;
    }
    HANDLE event = pmi_sys_create_event(&sa, name); // The same event at a second call.
    DWORD os_code = GetLastError();
    pmi_win_security_free(&sa);
    if (event == NULL) {
        int code = pmi_win_code(os_code);
        return code == PM_ERR_NO_DESCRIPTORS || code == PM_ERR_NO_MEMORY ? PM_ERR_NO_DESCRIPTORS
                                                                         : PM_ERR_SYSTEM;
    }
    *ret_native = (pm_native)event;
    return PM_OK;
}

int pmi_win_stop_event_set(DWORD pid, uint64_t creation)
{
    wchar_t name[NAME_MAX_UNITS];
    if (creation == 0) {
        return PM_ERR_UNSUPPORTED;
    }
    event_name(pid, creation, name);
    HANDLE event = OpenEventW(EVENT_MODIFY_STATE, FALSE, name);
    if (event == NULL) {
        return PM_ERR_UNSUPPORTED;
    }
    BOOL set = SetEvent(event);
    (void)CloseHandle(event);
    return set ? PM_OK : PM_ERR_SYSTEM;
}
