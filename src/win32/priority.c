#include "sys.h"
#include "win32.h"

DWORD pmi_win_priority_flag(enum pm_priority priority)
{
    switch (priority) {
    case PM_PRIORITY_IDLE:
        return IDLE_PRIORITY_CLASS;
    case PM_PRIORITY_BELOW_NORMAL:
        return BELOW_NORMAL_PRIORITY_CLASS;
    case PM_PRIORITY_NORMAL:
        return NORMAL_PRIORITY_CLASS;
    case PM_PRIORITY_ABOVE_NORMAL:
        return ABOVE_NORMAL_PRIORITY_CLASS;
    case PM_PRIORITY_HIGH:
        return HIGH_PRIORITY_CLASS;
    case PM_PRIORITY_REALTIME:
        return REALTIME_PRIORITY_CLASS;
    case PM_PRIORITY_DEFAULT:
        break;
    }
    return 0;
}

// Without SeIncreaseBasePriorityPrivilege REALTIME becomes HIGH, and a job around us may have a
// class of its own: both without a word. Wine 8 does not read the flags of CreateProcessW.
int pmi_win_check_priority(HANDLE process, enum pm_priority priority, struct pm_error *err)
{
    DWORD wanted = pmi_win_priority_flag(priority);
    DWORD got = wanted != 0 ? pmi_sys_priority(process) : 0;
    if (got != wanted && SetPriorityClass(process, wanted)) {
        got = pmi_sys_priority(process);
    }
    if (wanted != 0 && got == 0) {
        return pmi_win_fail(err, PM_STAGE_LIMITS, GetLastError());
    }
    return got == wanted ? PM_OK
                         : pmi_win_refuse(err, PM_ERR_ACCESS, PM_STAGE_LIMITS, "priority_class",
                                          "Windows has given the process another class");
}
