// Who a process is: pid and creation time, which Windows keeps in steps of 100 ns.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "win32.h"

#include <ntsecapi.h>

// ------------------------------------------------------------------------------------------------
// The list of all processes: what can be said about one that will not be opened
// ------------------------------------------------------------------------------------------------

// The head of an entry of SystemProcessInformation, as every Windows since Vista gives it.
struct process_entry {
    ULONG next;
    ULONG threads;
    LARGE_INTEGER reserved[3];
    LARGE_INTEGER creation, user, kernel;
    struct {
        USHORT length, capacity;
        wchar_t *text;
    } image;
    LONG priority;
    HANDLE pid;
};

typedef LONG WINAPI query_system(ULONG kind, void *buffer, ULONG size, ULONG *ret_size);

// malloc'd; NULL = it cannot be had.
static unsigned char *list_processes(void)
{
    const ULONG kind = 5; // SystemProcessInformation
    const LONG too_small = (LONG)0xC0000004;
    HMODULE ntdll = GetModuleHandleW(L"ntdll.dll");
    FARPROC found = ntdll != NULL ? GetProcAddress(ntdll, "NtQuerySystemInformation") : NULL;
    query_system *query = NULL;
    if (found == NULL) {
        return NULL;
    }
    memcpy(&query, &found, sizeof query);
    ULONG size = 256 * 1024;
    for (int tries = 0; tries < 8; tries++, size *= 2) {
        unsigned char *buffer = malloc(size);
        ULONG used = 0;
        LONG status = buffer != NULL ? query(kind, buffer, size, &used) : -1;
        if (status >= 0) {
            return buffer;
        }
        free(buffer);
        if (status != too_small) {
            break;
        }
    }
    return NULL;
}

// 0 = there is no such process; UINT64_MAX = cannot be told.
static uint64_t listed_creation(DWORD pid)
{
    unsigned char *list = list_processes();
    uint64_t creation = list == NULL ? UINT64_MAX : 0;
    for (size_t at = 0; list != NULL;) {
        struct process_entry entry;
        memcpy(&entry, list + at, sizeof entry);
        if ((uintptr_t)entry.pid == pid) {
            creation = (uint64_t)entry.creation.QuadPart;
            break;
        }
        if (entry.next == 0) {
            break;
        }
        at += entry.next;
    }
    free(list);
    return creation;
}

// ------------------------------------------------------------------------------------------------
// Boot id
// ------------------------------------------------------------------------------------------------

static INIT_ONCE boot_once = INIT_ONCE_STATIC_INIT;
static char boot_text[40];

// When the System process (pid 4) was born. It lives as long as the kernel; its time is kept in the
// same way as that of the daemons, so it cannot move without their identities moving too: unlike
// the boot time, which follows corrections of the clock. A volatile registry key would not do: it
// goes with the user's hive at logoff, or when a service of that user stops, and daemons stay.
//
// Where there is no such process (Wine) the id is a constant: then a record of an earlier boot is
// found dead by pid and creation time instead of by its folder.
static BOOL CALLBACK read_boot(INIT_ONCE *once, void *parameter, void **context)
{
    const DWORD system_pid = 4;
    uint64_t creation = listed_creation(system_pid);
    (void)once;
    (void)parameter;
    (void)context;
    if (creation != 0 && creation != UINT64_MAX) {
        (void)snprintf(boot_text, sizeof boot_text, "system-%016llx", (unsigned long long)creation);
    } else {
        (void)snprintf(boot_text, sizeof boot_text, "windows");
    }
    return TRUE;
}

int pmi_os_boot_id(char boot[40])
{
    (void)InitOnceExecuteOnce(&boot_once, read_boot, NULL, NULL);
    memcpy(boot, boot_text, sizeof boot_text);
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Identity
// ------------------------------------------------------------------------------------------------

uint64_t pmi_win_creation(HANDLE process)
{
    FILETIME creation, exit, kernel, user;
    return GetProcessTimes(process, &creation, &exit, &kernel, &user) ? pmi_win_filetime(&creation)
                                                                      : 0;
}

// Windows is content with the limited right; Wine 8 wants the full one for IsProcessInJob.
HANDLE pmi_win_open_process(DWORD pid, DWORD more)
{
    HANDLE process = OpenProcess(PROCESS_QUERY_INFORMATION | more, FALSE, pid);
    if (process == NULL && GetLastError() == ERROR_ACCESS_DENIED) {
        process = OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION | more, FALSE, pid);
    }
    return process;
}

int pmi_os_self_identity(struct pmi_identity *ret_id)
{
    struct pmi_identity id = {.pid = GetCurrentProcessId(),
                              .start = pmi_win_creation(GetCurrentProcess())};
    if (id.start == 0) {
        return PM_ERR_SYSTEM;
    }
    (void)pmi_os_boot_id(id.boot);
    *ret_id = id;
    return PM_OK;
}

int pmi_os_process_identity(const struct pmi_os_process *op, struct pmi_identity *ret_id)
{
    if (op->process == NULL || op->start == 0) {
        return PM_ERR_IDENTITY;
    }
    struct pmi_identity id = {.pid = op->pid, .start = op->start, .pidfs = op->job_token};
    (void)pmi_os_boot_id(id.boot);
    *ret_id = id;
    return PM_OK;
}

// Opens the process and proves that it is the one. That OpenProcess works says nothing: it does so
// as long as anybody holds a handle of a dead one, and it rounds pids down to multiples of 4. The
// boot id is not looked at: pid and creation time tell two boots apart as well.
static int open_proven(const struct pmi_identity *id, DWORD more, HANDLE *ret_process)
{
    if (id->pid == 0 || id->pid > UINT32_MAX || id->start == 0) {
        return PM_ERR_IDENTITY;
    }
    DWORD pid = (DWORD)id->pid;
    HANDLE process = pmi_win_open_process(pid, more | SYNCHRONIZE);
    if (process == NULL) {
        if (GetLastError() == ERROR_INVALID_PARAMETER) {
            return PM_ERR_GONE;
        }
        // Somebody has this pid and does not let us in; a stranger is proof that ours is gone.
        uint64_t creation = listed_creation(pid);
        return creation != UINT64_MAX && creation != id->start ? PM_ERR_GONE : PM_ERR_IDENTITY;
    }
    uint64_t creation = pmi_win_creation(process);
    int result = PM_OK;
    if (creation == 0) {
        result = PM_ERR_IDENTITY;
    } else if (creation != id->start || GetProcessId(process) != pid ||
               WaitForSingleObject(process, 0) != WAIT_TIMEOUT) {
        result = PM_ERR_GONE;
    }
    if (result != PM_OK) {
        (void)CloseHandle(process);
        return result;
    }
    *ret_process = process;
    return PM_OK;
}

int pmi_os_identity_check(const struct pmi_identity *id)
{
    HANDLE process = NULL;
    int result = open_proven(id, 0, &process);
    if (result == PM_OK) {
        (void)CloseHandle(process);
    }
    return result;
}

// ------------------------------------------------------------------------------------------------
// Re-attach
// ------------------------------------------------------------------------------------------------

// The job that this process is really in, or NULL: then only the process itself can be ended.
static HANDLE open_job(uint64_t token, HANDLE process)
{
    wchar_t name[PMI_WIN_JOB_NAME_MAX];
    BOOL inside = FALSE;
    pmi_win_job_name(token, name);
    HANDLE job =
        token == 0
            ? NULL
            : OpenJobObjectW(JOB_OBJECT_QUERY | JOB_OBJECT_TERMINATE | JOB_OBJECT_SET_ATTRIBUTES,
                             FALSE, name);
    if (job != NULL && (!IsProcessInJob(process, job, &inside) || !inside)) {
        (void)CloseHandle(job);
        job = NULL;
    }
    return job;
}

int pmi_os_process_open(struct pmi_os_manager *om, const struct pmi_identity *id,
                        struct pmi_os_process *op, struct pmi_started *ret_started)
{
    (void)om;
    HANDLE process = NULL;
    int result = open_proven(id, PROCESS_TERMINATE, &process);
    if (result != PM_OK) {
        return result;
    }
    struct pmi_os_process made = {.process = process,
                                  .job = open_job(id->pidfs, process),
                                  .pid = (uint32_t)id->pid,
                                  .start = id->start,
                                  .job_token = id->pidfs};
    int64_t wall = pmi_win_wall_of(id->start);
    int64_t age = pmi_wall_ms() - wall;
    struct pmi_started started = {
        .containment = made.job != NULL ? PM_CONTAIN_JOB : PM_CONTAIN_NONE,
        .detachment = PM_DETACH_FREE, // Which way it took is not in the record.
        .started_wall_ms = wall,
        .started_ms = pmi_now_ms() - (age > 0 ? age : 0),
    };
    *op = made;
    *ret_started = started;
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Random numbers
// ------------------------------------------------------------------------------------------------

int pmi_os_random(void *buffer, size_t size)
{
    // RtlGenRandom, exported by advapi32 under another name; it needs no provider and no handle.
    return RtlGenRandom(buffer, (ULONG)size) ? PM_OK : PM_ERR_SYSTEM;
}
