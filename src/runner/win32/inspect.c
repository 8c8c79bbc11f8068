// From a snapshot of the processes. Windows keeps the number of the parent when that has ended, so
// a parent is one only if it was born earlier. A name in there may be another process by now.
#include "runner/inspect.h"

#include <processmgr/processmgr.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <windows.h>

#include <tlhelp32.h>

const struct inspect_roots inspect_real_roots = {"", ""};

// Windows is content with the limited right; Wine 8 wants the full one for IsProcessInJob.
static HANDLE open_process(uint64_t pid)
{
    HANDLE process = pid == 0 || pid > UINT32_MAX
                         ? NULL
                         : OpenProcess(PROCESS_QUERY_INFORMATION, FALSE, (DWORD)pid);
    if (process == NULL && pid != 0 && pid <= UINT32_MAX) {
        process = OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, FALSE, (DWORD)pid);
    }
    return process;
}

// 0: it is not shown to us.
static uint64_t creation_of(HANDLE process)
{
    FILETIME creation, ended, kernel, user;
    if (process == NULL || !GetProcessTimes(process, &creation, &ended, &kernel, &user)) {
        return 0;
    }
    return (uint64_t)creation.dwHighDateTime << 32 | creation.dwLowDateTime;
}

static void take_entry(const PROCESSENTRY32W *entry, struct inspect_process *process)
{
    HANDLE handle = open_process(entry->th32ProcessID);
    memset(process, 0, sizeof *process);
    process->pid = entry->th32ProcessID;
    process->parent = entry->th32ParentProcessID;
    process->start = creation_of(handle);
    if (handle != NULL) {
        (void)CloseHandle(handle);
    }
    size_t at = 0;
    for (const wchar_t *c = entry->szExeFile; *c != L'\0' && at < sizeof process->name - 1; c++) {
        process->name[at++] = *c > L' ' && *c < 0x7f ? (char)*c : '?';
    }
}

static int by_pid(const void *a, const void *b)
{
    const struct inspect_process *x = a, *y = b;
    return x->pid < y->pid ? -1 : x->pid > y->pid;
}

int inspect_table_read(const struct inspect_roots *roots, struct inspect_table *ret_table)
{
    struct inspect_table table = {NULL, 0};
    size_t capacity = 0;
    PROCESSENTRY32W entry = {.dwSize = sizeof entry};
    int result = PM_OK;
    (void)roots;
    HANDLE snapshot = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    if (snapshot == INVALID_HANDLE_VALUE) {
        return PM_ERR_UNSUPPORTED;
    }
    for (BOOL more = Process32FirstW(snapshot, &entry); more && result == PM_OK;
         more = Process32NextW(snapshot, &entry)) {
        if (table.count == capacity) {
            capacity = capacity * 2 + 256;
            struct inspect_process *grown = realloc(table.list, capacity * sizeof *grown);
            if (grown == NULL) {
                result = PM_ERR_NO_MEMORY;
                break;
            }
            table.list = grown;
        }
        take_entry(&entry, &table.list[table.count++]);
    }
    (void)CloseHandle(snapshot);
    if (result != PM_OK) {
        free(table.list);
        return result;
    }
    qsort(table.list, table.count, sizeof *table.list, by_pid);
    *ret_table = table;
    return PM_OK;
}

bool inspect_process_read(const struct inspect_roots *roots, uint64_t pid,
                          struct inspect_process *ret_process)
{
    struct inspect_table table;
    const struct inspect_process *found = NULL;
    if (inspect_table_read(roots, &table) == PM_OK) {
        found = inspect_find(&table, pid);
        if (found != NULL) {
            *ret_process = *found;
        }
        inspect_table_clear(&table);
    }
    return found != NULL;
}

void inspect_table_clear(struct inspect_table *table)
{
    free(table->list);
    *table = (struct inspect_table){NULL, 0};
}

const struct inspect_process *inspect_find(const struct inspect_table *table, uint64_t pid)
{
    struct inspect_process key = {.pid = pid};
    return table->count == 0
               ? NULL
               : bsearch(&key, table->list, table->count, sizeof *table->list, by_pid);
}

const struct inspect_process *inspect_parent(const struct inspect_table *table,
                                             const struct inspect_process *process)
{
    const struct inspect_process *parent = inspect_find(table, process->parent);
    bool real = parent != NULL && parent != process && parent->start != 0 && process->start != 0 &&
                parent->start <= process->start;
    return real ? parent : NULL;
}

bool inspect_cgroup(const struct inspect_roots *roots, uint64_t pid, char path[4096])
{
    (void)roots;
    (void)pid;
    (void)path;
    return false;
}

bool inspect_shares_stream(const struct inspect_roots *roots, uint64_t pid, uint64_t other,
                           char what[128])
{
    (void)roots;
    (void)pid;
    (void)other;
    (void)what;
    return false;
}

// The name as src/win32/job.c makes it.
bool inspect_in_job(uint64_t pid, uint64_t object)
{
    wchar_t name[64];
    BOOL inside = FALSE;
    (void)_snwprintf(name, 64, L"Local\\processmgr-job-%016llx", (unsigned long long)object);
    HANDLE job = object != 0 ? OpenJobObjectW(JOB_OBJECT_QUERY, FALSE, name) : NULL;
    HANDLE process = job != NULL ? open_process(pid) : NULL;
    bool found = process != NULL && IsProcessInJob(process, job, &inside) && inside;
    if (process != NULL) {
        (void)CloseHandle(process);
    }
    if (job != NULL) {
        (void)CloseHandle(job);
    }
    return found;
}

bool inspect_program(const struct inspect_roots *roots, uint64_t pid, char path[4096],
                     bool *ret_replaced)
{
    wchar_t wide[4096];
    DWORD size = 4096;
    (void)roots;
    HANDLE process = open_process(pid);
    bool found = process != NULL && QueryFullProcessImageNameW(process, 0, wide, &size) &&
                 WideCharToMultiByte(CP_UTF8, 0, wide, -1, path, 4096, NULL, NULL) > 0;
    if (process != NULL) {
        (void)CloseHandle(process);
    }
    *ret_replaced = false; // A file that runs can be renamed, which is followed, not replaced.
    return found;
}
