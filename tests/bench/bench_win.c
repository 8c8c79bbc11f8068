// bench_win [--json] [--quick]: starting and waiting on Windows, beside CreateProcessW with the
// same flags, environment block, handle list and job.
#include "bench.h"

#include <processmgr/processmgr.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>
#include <windows.h>

static void die(const char *what)
{
    fprintf(stderr, "bench: %s: %lu\n", what, GetLastError());
    exit(1);
}

static double run_processmgr(pm_manager *manager, const char *target)
{
    struct pm_spec spec = PM_SPEC_INIT;
    struct pm_error error = PM_ERROR_INIT;
    pm_process *process = NULL;
    spec.owner = "bench";
    spec.program = target;
    spec.stdin_slot.kind = spec.stdout_slot.kind = spec.stderr_slot.kind = PM_STDIO_NULL;
    if (pm_spawn(manager, &spec, &process, &error) != PM_OK) {
        char line[1024];
        (void)pm_error_format(&error, line, sizeof line);
        die(line);
    }
    double started = bench_now_us();
    if (pm_process_wait(process, PM_FOREVER, NULL) != PM_OK) {
        die("pm_process_wait");
    }
    (void)pm_process_unref(process);
    return started;
}

static double run_bare(const wchar_t *target)
{
    wchar_t command[1024];
    SECURITY_ATTRIBUTES inherit = {sizeof inherit, NULL, TRUE};
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits = {0};
    STARTUPINFOEXW startup = {0};
    PROCESS_INFORMATION info = {0};
    SIZE_T size = 0;
    HANDLE null = CreateFileW(L"NUL", GENERIC_READ | GENERIC_WRITE,
                              FILE_SHARE_READ | FILE_SHARE_WRITE, &inherit, OPEN_EXISTING, 0, NULL);
    HANDLE job = CreateJobObjectW(NULL, NULL);
    wchar_t *environment = GetEnvironmentStringsW();
    limits.BasicLimitInformation.LimitFlags =
        JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION | JOB_OBJECT_LIMIT_BREAKAWAY_OK;
    if (null == INVALID_HANDLE_VALUE || job == NULL || environment == NULL ||
        !SetInformationJobObject(job, JobObjectExtendedLimitInformation, &limits, sizeof limits)) {
        die("job");
    }
    (void)InitializeProcThreadAttributeList(NULL, 2, 0, &size);
    startup.lpAttributeList = malloc(size);
    startup.StartupInfo.cb = sizeof startup;
    startup.StartupInfo.dwFlags = STARTF_USESTDHANDLES;
    startup.StartupInfo.hStdInput = startup.StartupInfo.hStdOutput = null;
    startup.StartupInfo.hStdError = null;
    (void)_snwprintf(command, 1024, L"\"%ls\"", target);
    if (startup.lpAttributeList == NULL ||
        !InitializeProcThreadAttributeList(startup.lpAttributeList, 2, 0, &size) ||
        !UpdateProcThreadAttribute(startup.lpAttributeList, 0, PROC_THREAD_ATTRIBUTE_HANDLE_LIST,
                                   &null, sizeof(HANDLE), NULL, NULL) ||
        !UpdateProcThreadAttribute(startup.lpAttributeList, 0, PROC_THREAD_ATTRIBUTE_JOB_LIST, &job,
                                   sizeof(HANDLE), NULL, NULL) ||
        !CreateProcessW(target, command, NULL, NULL, TRUE,
                        CREATE_NO_WINDOW | CREATE_UNICODE_ENVIRONMENT |
                            EXTENDED_STARTUPINFO_PRESENT,
                        environment, NULL, &startup.StartupInfo, &info)) {
        die("CreateProcessW");
    }
    double started = bench_now_us();
    DWORD code;
    (void)CloseHandle(info.hThread);
    (void)WaitForSingleObject(info.hProcess, INFINITE);
    (void)GetExitCodeProcess(info.hProcess, &code);
    (void)CloseHandle(info.hProcess);
    (void)CloseHandle(job);
    (void)CloseHandle(null);
    (void)FreeEnvironmentStringsW(environment);
    DeleteProcThreadAttributeList(startup.lpAttributeList);
    free(startup.lpAttributeList);
    return started;
}

int main(int argc, char **argv)
{
    struct bench_samples spawn = {0}, whole = {0}, bare_spawn = {0}, bare_whole = {0};
    bool json = false;
    int rounds = 300;
    wchar_t self[MAX_PATH];
    char narrow[MAX_PATH];
    pm_manager *manager = NULL;
    for (int i = 1; i < argc; i++) {
        json |= strcmp(argv[i], "--json") == 0;
        rounds = strcmp(argv[i], "--quick") == 0 ? 30 : rounds;
    }
    // The target lies beside this program.
    DWORD length = GetModuleFileNameW(NULL, self, MAX_PATH);
    wchar_t *slash = length != 0 ? wcsrchr(self, L'\\') : NULL;
    if (slash == NULL || slash - self > MAX_PATH - 32) {
        die("GetModuleFileNameW");
    }
    wcscpy(slash + 1, L"bench_target.exe");
    (void)WideCharToMultiByte(CP_UTF8, 0, self, -1, narrow, MAX_PATH, NULL, NULL);
    if (pm_open(NULL, &manager, NULL) != PM_OK) {
        die("pm_open");
    }
    bench_begin(json);
    for (int i = 0; i < rounds + 5; i++) {
        double begin = bench_now_us();
        double started = run_processmgr(manager, narrow);
        double end = bench_now_us();
        double bare_started = run_bare(self);
        double bare_end = bench_now_us();
        if (i >= 5) {
            bench_add(&spawn, started - begin);
            bench_add(&whole, end - begin);
            bench_add(&bare_spawn, bare_started - end);
            bench_add(&bare_whole, bare_end - end);
        }
    }
    bench_row("spawn", "processmgr", "", &spawn);
    bench_row("spawn", "CreateProcessW", "", &bare_spawn);
    bench_row("spawn+wait", "processmgr", "", &whole);
    bench_row("spawn+wait", "CreateProcessW", "", &bare_whole);
    (void)pm_close(manager, -1, NULL);
    bench_ratio("spawn + wait : CreateProcessW with the same flags and block", "spawn+wait", "",
                "processmgr", "CreateProcessW", 1.2, true);
    return bench_end() == 0 ? 0 : 3;
}
