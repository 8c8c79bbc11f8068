#include <stdlib.h>
#include <wchar.h>

#include "sys.h"
#include "win32.h"

void pmi_win_job_name(uint64_t token, wchar_t name[PMI_WIN_JOB_NAME_MAX])
{
    (void)_snwprintf(name, PMI_WIN_JOB_NAME_MAX, L"Local\\processmgr-job-%016llx",
                     (unsigned long long)token);
}

static void add_limits(JOBOBJECT_EXTENDED_LIMIT_INFORMATION *info,
                       const struct pm_job_limits *limits)
{
    JOBOBJECT_BASIC_LIMIT_INFORMATION *basic = &info->BasicLimitInformation;
    if (limits->processes != 0) {
        basic->LimitFlags |= JOB_OBJECT_LIMIT_ACTIVE_PROCESS;
        basic->ActiveProcessLimit = limits->processes;
    }
    if (limits->process_memory != 0) {
        basic->LimitFlags |= JOB_OBJECT_LIMIT_PROCESS_MEMORY;
        info->ProcessMemoryLimit = (SIZE_T)limits->process_memory;
    }
    if (limits->job_memory != 0) {
        basic->LimitFlags |= JOB_OBJECT_LIMIT_JOB_MEMORY;
        info->JobMemoryLimit = (SIZE_T)limits->job_memory;
    }
    if (limits->process_user_ms != 0) {
        basic->LimitFlags |= JOB_OBJECT_LIMIT_PROCESS_TIME;
        basic->PerProcessUserTimeLimit.QuadPart =
            (LONGLONG)limits->process_user_ms * PMI_WIN_TICKS_PER_MS;
    }
}

bool pmi_win_job_set_limits(HANDLE job, DWORD flags, const struct pm_job_limits *limits)
{
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION info = {0};
    info.BasicLimitInformation.LimitFlags = flags;
    if (limits != NULL) {
        add_limits(&info, limits);
    }
    return pmi_sys_limit_job(job, &info);
}

int pmi_win_job_create(uint64_t token, DWORD flags, const struct pm_job_limits *limits,
                       HANDLE *ret_job, DWORD *ret_os_code)
{
    SECURITY_ATTRIBUTES sa = {0};
    wchar_t name[PMI_WIN_JOB_NAME_MAX];
    pmi_win_job_name(token, name);
    *ret_os_code = 0;
    int result = pmi_win_owner_only(JOB_OBJECT_ALL_ACCESS, false, &sa);
    if (result != PM_OK) {
        return result;
    }
    HANDLE job = pmi_sys_create_job(&sa, token != 0 ? name : NULL);
    DWORD os_code = GetLastError();
    pmi_win_security_free(&sa);
    if (job != NULL && token != 0 && os_code == ERROR_ALREADY_EXISTS) {
        (void)CloseHandle(job);
        return PM_ERR_EXISTS;
    }
    if (job != NULL && !pmi_win_job_set_limits(job, flags, limits)) {
        os_code = GetLastError();
        (void)CloseHandle(job);
        job = NULL;
    }
    if (job == NULL) {
        *ret_os_code = os_code;
        return pmi_win_code(os_code);
    }
    *ret_job = job;
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Members
// ------------------------------------------------------------------------------------------------

// Two entries are enough to see whether there is anybody but one: with more members the call fails
// with ERROR_MORE_DATA and still tells the count.
bool pmi_win_job_has_others(HANDLE job, DWORD pid)
{
    union {
        JOBOBJECT_BASIC_PROCESS_ID_LIST list;
        unsigned char bytes[sizeof(JOBOBJECT_BASIC_PROCESS_ID_LIST) + sizeof(ULONG_PTR)];
    } members = {0};
    if (!QueryInformationJobObject(job, JobObjectBasicProcessIdList, &members, sizeof members,
                                   NULL)) {
        return GetLastError() == ERROR_MORE_DATA;
    }
    for (DWORD i = 0; i < members.list.NumberOfProcessIdsInList; i++) {
        if ((DWORD)members.list.ProcessIdList[i] != pid) {
            return true;
        }
    }
    return false;
}

static JOBOBJECT_BASIC_PROCESS_ID_LIST *list_members(HANDLE job)
{
    size_t room = 32;
    for (int attempt = 0; attempt < 8; attempt++) { // The job may grow between two calls.
        size_t size = sizeof(JOBOBJECT_BASIC_PROCESS_ID_LIST) + room * sizeof(ULONG_PTR);
        JOBOBJECT_BASIC_PROCESS_ID_LIST *list = calloc(1, size);
        if (list == NULL ||
            QueryInformationJobObject(job, JobObjectBasicProcessIdList, list, (DWORD)size, NULL)) {
            return list;
        }
        bool again = GetLastError() == ERROR_MORE_DATA;
        room = room * 2 + list->NumberOfAssignedProcesses;
        free(list);
        if (!again) {
            return NULL;
        }
    }
    return NULL;
}

int pmi_win_job_visit(HANDLE job, int (*visit)(void *context, DWORD pid), void *context)
{
    JOBOBJECT_BASIC_PROCESS_ID_LIST *list = list_members(job);
    if (list == NULL) {
        return PM_ERR_SYSTEM;
    }
    int result = 0;
    for (DWORD i = 0; i < list->NumberOfProcessIdsInList && result == 0; i++) {
        result = visit(context, (DWORD)list->ProcessIdList[i]);
    }
    free(list);
    return result;
}

// ------------------------------------------------------------------------------------------------
// Kill-on-close jobs without a Handle
// ------------------------------------------------------------------------------------------------

struct kept_job {
    struct kept_job *next;
    HANDLE job;
    struct pm_job_limits limits;
};

struct pmi_job_keeper {
    SRWLOCK lock;
    unsigned refs; // The manager, and each process with a kill-on-close job.
    bool ended;
    struct kept_job *first;
};

static void let_go(HANDLE job, const struct pm_job_limits *limits)
{
    (void)pmi_win_job_set_limits(
        job, JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION | JOB_OBJECT_LIMIT_BREAKAWAY_OK, limits);
    (void)CloseHandle(job);
}

struct pmi_job_keeper *pmi_win_keeper_new(void)
{
    struct pmi_job_keeper *k = calloc(1, sizeof *k);
    if (k != NULL) {
        InitializeSRWLock(&k->lock);
        k->refs = 1;
    }
    return k;
}

struct pmi_job_keeper *pmi_win_keeper_ref(struct pmi_job_keeper *k)
{
    AcquireSRWLockExclusive(&k->lock);
    k->refs++;
    ReleaseSRWLockExclusive(&k->lock);
    return k;
}

void pmi_win_keeper_unref(struct pmi_job_keeper *k)
{
    if (k == NULL) {
        return;
    }
    AcquireSRWLockExclusive(&k->lock);
    bool last = --k->refs == 0;
    ReleaseSRWLockExclusive(&k->lock);
    if (last) {
        free(k);
    }
}

// Jobs whose last member has gone need no keeping. Under the lock.
static void drop_empty(struct pmi_job_keeper *k)
{
    for (struct kept_job **at = &k->first; *at != NULL;) {
        struct kept_job *kept = *at;
        if (pmi_win_job_has_others(kept->job, 0)) {
            at = &kept->next;
        } else {
            *at = kept->next;
            (void)CloseHandle(kept->job);
            free(kept);
        }
    }
}

void pmi_win_keeper_give(struct pmi_job_keeper *k, HANDLE job, const struct pm_job_limits *limits)
{
    struct kept_job *kept = calloc(1, sizeof *kept);
    AcquireSRWLockExclusive(&k->lock);
    if (!k->ended && kept != NULL) {
        kept->job = job;
        kept->limits = *limits;
        kept->next = k->first;
        k->first = kept;
        kept = NULL;
        job = NULL;
    }
    drop_empty(k);
    ReleaseSRWLockExclusive(&k->lock);
    free(kept);
    if (job != NULL) {
        let_go(job, limits);
    }
}

void pmi_win_keeper_end(struct pmi_job_keeper *k)
{
    AcquireSRWLockExclusive(&k->lock);
    k->ended = true;
    struct kept_job *kept = k->first;
    k->first = NULL;
    ReleaseSRWLockExclusive(&k->lock);
    while (kept != NULL) {
        struct kept_job *next = kept->next;
        let_go(kept->job, &kept->limits);
        free(kept);
        kept = next;
    }
}
