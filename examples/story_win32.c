// The story's own eyes on Windows.
#include "story_os.h"

#include <processmgr/processmgr.h>
#include <stdio.h>
#include <string.h>
#include <wchar.h>
// The other two need it first.
#include <windows.h>

#include <shellapi.h>
#include <tlhelp32.h>

const char *story_os_backend(void) {
    return "win32";
}

unsigned story_os_look(void) {
    return GetConsoleOutputCP() == CP_UTF8 ? STORY_UTF8 : STORY_PLAIN;
}

int64_t story_os_now_ms(void) {
    return (int64_t)GetTickCount64();
}

void story_os_sleep_ms(unsigned ms) {
    Sleep(ms);
}

static bool to_utf8(const wchar_t *wide, char path[STORY_PATH_MAX]) {
    return WideCharToMultiByte(CP_UTF8, 0, wide, -1, path, STORY_PATH_MAX, NULL, NULL) > 0;
}

static bool to_wide(const char *path, wchar_t wide[STORY_PATH_MAX]) {
    return MultiByteToWideChar(CP_UTF8, 0, path, -1, wide, STORY_PATH_MAX) > 0;
}

bool story_os_self(const char *argv0, char path[STORY_PATH_MAX]) {
    (void)argv0;
    wchar_t wide[STORY_PATH_MAX];
    DWORD length = GetModuleFileNameW(NULL, wide, STORY_PATH_MAX);
    return length > 0 && length < STORY_PATH_MAX && to_utf8(wide, path);
}

bool story_os_argument(char **argv, int index, char text[STORY_PATH_MAX]) {
    (void)argv; // In the code page of the system, which cannot hold every name.
    int count = 0;
    wchar_t **wide = CommandLineToArgvW(GetCommandLineW(), &count);
    bool fine = wide != NULL && index < count && to_utf8(wide[index], text);
    LocalFree(wide);
    return fine;
}

bool story_os_make_folder(char path[STORY_PATH_MAX]) {
    wchar_t base[MAX_PATH + 1];
    wchar_t wide[STORY_PATH_MAX];
    if (GetTempPathW(MAX_PATH + 1, base) == 0) return false;
    for (unsigned i = 0; i < 100; i++) {
        swprintf(wide, STORY_PATH_MAX, L"%lspm-story.%lu.%u", base, GetCurrentProcessId(), i);
        if (CreateDirectoryW(wide, NULL)) return to_utf8(wide, path);
        if (GetLastError() != ERROR_ALREADY_EXISTS) return false;
    }
    return false;
}

static bool remove_wide(const wchar_t *path) {
    wchar_t pattern[STORY_PATH_MAX];
    WIN32_FIND_DATAW found;
    swprintf(pattern, STORY_PATH_MAX, L"%ls\\*", path);
    HANDLE search = FindFirstFileW(pattern, &found);
    if (search == INVALID_HANDLE_VALUE) return false;
    do {
        wchar_t below[STORY_PATH_MAX];
        if (wcscmp(found.cFileName, L".") == 0 || wcscmp(found.cFileName, L"..") == 0) continue;
        swprintf(below, STORY_PATH_MAX, L"%ls\\%ls", path, found.cFileName);
        if ((found.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0)
            remove_wide(below);
        else
            DeleteFileW(below);
    } while (FindNextFileW(search, &found));
    FindClose(search);
    return RemoveDirectoryW(path) != 0;
}

bool story_os_remove_folder(const char *path) {
    wchar_t wide[STORY_PATH_MAX];
    return to_wide(path, wide) && remove_wide(wide);
}

bool story_os_read_file(const char *path, char *text, size_t capacity) {
    wchar_t wide[STORY_PATH_MAX];
    DWORD length = 0;
    if (!to_wide(path, wide)) return false;
    HANDLE file =
        CreateFileW(wide, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                    NULL, OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE) return false;
    bool ok = ReadFile(file, text, (DWORD)capacity - 1, &length, NULL) != 0;
    CloseHandle(file);
    text[ok ? length : 0] = '\0';
    return ok;
}

int story_os_zombies(void) {
    // Entries of the process table that name us as their parent and have no living process behind
    // them. There are none on Windows; this looks all the same.
    HANDLE snapshot = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    if (snapshot == INVALID_HANDLE_VALUE) return -1;
    int found = 0;
    PROCESSENTRY32W entry = {.dwSize = sizeof entry};
    for (BOOL more = Process32FirstW(snapshot, &entry); more;
         more = Process32NextW(snapshot, &entry)) {
        if (entry.th32ParentProcessID != GetCurrentProcessId()) continue;
        HANDLE process = OpenProcess(SYNCHRONIZE, FALSE, entry.th32ProcessID);
        if (process == NULL) continue;
        found += WaitForSingleObject(process, 0) == WAIT_OBJECT_0 ? 1 : 0;
        CloseHandle(process);
    }
    CloseHandle(snapshot);
    return found;
}

static uint64_t birth_of(HANDLE process) {
    FILETIME birth;
    FILETIME other[3];
    if (!GetProcessTimes(process, &birth, &other[0], &other[1], &other[2])) return 0;
    return (uint64_t)birth.dwHighDateTime << 32 | birth.dwLowDateTime;
}

// Whether the process lives, runs our program, and was born after us.
static bool is_role(DWORD pid) {
    wchar_t ours[STORY_PATH_MAX];
    wchar_t its[STORY_PATH_MAX];
    DWORD length = STORY_PATH_MAX;
    if (pid == GetCurrentProcessId() || GetModuleFileNameW(NULL, ours, STORY_PATH_MAX) == 0)
        return false;
    HANDLE process = OpenProcess(SYNCHRONIZE | PROCESS_QUERY_LIMITED_INFORMATION, FALSE, pid);
    if (process == NULL) return false;
    bool is = WaitForSingleObject(process, 0) == WAIT_TIMEOUT &&
              QueryFullProcessImageNameW(process, 0, its, &length) && _wcsicmp(ours, its) == 0 &&
              birth_of(process) >= birth_of(GetCurrentProcess());
    CloseHandle(process);
    return is;
}

int story_os_running(const char *folder, const uint64_t *pids, size_t count) {
    (void)folder; // Another process's arguments cannot be asked for on Windows.
    int found = 0;
    for (size_t i = 0; pids != NULL && i < count; i++) found += is_role((DWORD)pids[i]) ? 1 : 0;
    if (pids != NULL) return found;

    HANDLE snapshot = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    if (snapshot == INVALID_HANDLE_VALUE) return -1;
    PROCESSENTRY32W entry = {.dwSize = sizeof entry};
    for (BOOL more = Process32FirstW(snapshot, &entry); more;
         more = Process32NextW(snapshot, &entry))
        found += is_role(entry.th32ProcessID) ? 1 : 0;
    CloseHandle(snapshot);
    return found;
}

int story_os_payload(void) {
    pm_native stop_event = PM_NATIVE_INVALID;
    if (pm_stop_event_open(&stop_event) != PM_OK) return 1;
    printf("ready\n");
    fflush(stdout);
    DWORD got = WaitForSingleObject((HANDLE)stop_event, STORY_PAYLOAD_MS);
    CloseHandle((HANDLE)stop_event);
    if (got != WAIT_OBJECT_0) return got == WAIT_TIMEOUT ? 2 : 1;
    printf("stopped\n");
    return 0;
}
