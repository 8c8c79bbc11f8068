// The program as its own helper: pm_launcher_main() notes that it may be one, and is one if the
// library has started it so.
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "console.h"
#include "sys.h"

// A console is there a moment after its process.
#define ATTACH_TRIES 20
#define ATTACH_PAUSE_MS 10

// ------------------------------------------------------------------------------------------------
// The helper: Ctrl-C
// ------------------------------------------------------------------------------------------------

static bool read_pid(const char *text, uint32_t *ret_pid)
{
    char *end = NULL;
    unsigned long pid = strtoul(text, &end, 10);
    *ret_pid = (uint32_t)pid;
    return text[0] >= '1' && text[0] <= '9' && *end == '\0' && pid < UINT32_MAX;
}

// Never waits: what is not there already was not put there by the library.
static bool read_plan(struct pmi_win_console_plan *plan)
{
    HANDLE in = GetStdHandle(STD_INPUT_HANDLE);
    DWORD there = 0;
    DWORD count = 0;
    return in != NULL && in != INVALID_HANDLE_VALUE && GetFileType(in) == FILE_TYPE_PIPE &&
           PeekNamedPipe(in, NULL, 0, NULL, &there, NULL) && there == sizeof *plan &&
           ReadFile(in, plan, sizeof *plan, &count, NULL) && count == sizeof *plan;
}

static bool is_genuine(const struct pmi_win_console_plan *plan, uint32_t pid)
{
    HANDLE target = (HANDLE)(uintptr_t)plan->target;
    BOOL inside = FALSE;
    return plan->magic == PMI_WIN_CONSOLE_MAGIC && plan->pid == pid &&
           GetProcessId(target) == pid && plan->start != 0 &&
           pmi_win_creation(target) == plan->start &&
           IsProcessInJob(target, (HANDLE)(uintptr_t)plan->job, &inside) && inside;
}

static bool has_ended(const struct pmi_win_console_plan *plan)
{
    return WaitForSingleObject((HANDLE)(uintptr_t)plan->target, 0) != WAIT_TIMEOUT;
}

static int attach(const struct pmi_win_console_plan *plan)
{
    (void)FreeConsole(); // Wine 8 denies the next call even to a program without one.
    for (int i = 0; i < ATTACH_TRIES; i++) {
        if (pmi_sys_attach_console(plan->pid)) {
            return PMI_WIN_CONSOLE_SENT;
        }
        DWORD os_code = GetLastError();
        if (has_ended(plan)) {
            return PMI_WIN_CONSOLE_GONE;
        }
        if (os_code == ERROR_ACCESS_DENIED) {
            return PMI_WIN_CONSOLE_DENIED;
        }
        Sleep(ATTACH_PAUSE_MS);
    }
    return PMI_WIN_CONSOLE_NONE;
}

static bool is_meant(const struct pmi_win_console_plan *plan, DWORD pid)
{
    BOOL inside = FALSE;
    if (pid == plan->pid || pid == GetCurrentProcessId()) {
        return true;
    }
    HANDLE process = pmi_win_open_process(pid, SYNCHRONIZE);
    if (process == NULL) {
        return GetLastError() == ERROR_INVALID_PARAMETER; // It has ended.
    }
    bool meant = WaitForSingleObject(process, 0) != WAIT_TIMEOUT ||
                 (plan->alone == 0 &&
                  IsProcessInJob(process, (HANDLE)(uintptr_t)plan->job, &inside) && inside);
    (void)CloseHandle(process);
    return meant;
}

// Ctrl-C reaches all on a console; a target that has joined the host's would take the host along.
static int check_company(const struct pmi_win_console_plan *plan)
{
    DWORD room = 64;
    DWORD count = 0;
    DWORD *pids = NULL;
    for (int i = 0; i < 4; i++) {
        free(pids);
        pids = calloc(room, sizeof *pids);
        count = pids != NULL ? GetConsoleProcessList(pids, room) : 0;
        if (count <= room) {
            break;
        }
        room = count * 2;
    }
    int result = count == 0 || count > room ? PMI_WIN_CONSOLE_FAILED : PMI_WIN_CONSOLE_SENT;
    for (DWORD i = 0; i < count && result == PMI_WIN_CONSOLE_SENT; i++) {
        result = is_meant(plan, pids[i]) ? PMI_WIN_CONSOLE_SENT : PMI_WIN_CONSOLE_OTHERS;
    }
    free(pids);
    return result;
}

static int send_event(int argc, char **argv)
{
    struct pmi_win_console_plan plan;
    uint32_t pid = 0;
    if (argc != 3 || argv[2] == NULL || argv[3] != NULL || !read_pid(argv[2], &pid) ||
        !read_plan(&plan) || !is_genuine(&plan, pid)) {
        return PMI_WIN_CONSOLE_REFUSED;
    }
    int result = attach(&plan);
    if (result == PMI_WIN_CONSOLE_SENT) {
        result = check_company(&plan);
    }
    // Only now: joining a console forgets it.
    if (result == PMI_WIN_CONSOLE_SENT &&
        (!SetConsoleCtrlHandler(NULL, TRUE) || !pmi_sys_ctrl_c())) {
        result = PMI_WIN_CONSOLE_FAILED;
    }
    return result;
}

// ------------------------------------------------------------------------------------------------
// The program
// ------------------------------------------------------------------------------------------------

struct program {
    wchar_t *path; // For good.
    DWORD volume, index_high, index_low;
};

static struct program self;
static atomic_bool wired;

static bool identify(const wchar_t *path, struct program *p)
{
    BY_HANDLE_FILE_INFORMATION info;
    HANDLE file = CreateFileW(path, FILE_READ_ATTRIBUTES,
                              FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL,
                              OPEN_EXISTING, 0, NULL);
    if (file == INVALID_HANDLE_VALUE) {
        return false;
    }
    BOOL told = GetFileInformationByHandle(file, &info);
    (void)CloseHandle(file);
    p->volume = told ? info.dwVolumeSerialNumber : 0;
    p->index_high = told ? info.nFileIndexHigh : 0;
    p->index_low = told ? info.nFileIndexLow : 0;
    return told != FALSE;
}

static wchar_t *own_path(void)
{
    for (DWORD room = MAX_PATH; room <= 32768; room *= 2) {
        wchar_t *path = malloc(room * sizeof *path);
        DWORD length = path != NULL ? GetModuleFileNameW(NULL, path, room) : 0;
        if (length > 0 && length < room) {
            return path;
        }
        free(path);
        if (length == 0) {
            break;
        }
    }
    return NULL;
}

void pmi_os_launcher_main(int argc, char **argv)
{
    if (argc >= 2 && argv != NULL && argv[1] != NULL &&
        strcmp(argv[1], PMI_WIN_CONSOLE_MARKER) == 0) {
        ExitProcess((UINT)send_event(argc, argv));
    }
    if (atomic_load(&wired)) {
        return;
    }
    struct program p = {.path = own_path()};
    if (p.path == NULL || !identify(p.path, &p)) {
        free(p.path); // As if it had not been called: PM_ERR_NO_LAUNCHER where it is needed.
        return;
    }
    self = p;
    atomic_store(&wired, true);
}

bool pmi_win_launcher_is_wired(void)
{
    return atomic_load(&wired);
}

// A running program can be renamed, and another file can then have its name. That one has not said
// that it may be run.
int pmi_win_launcher_path(wchar_t **ret_path)
{
    struct program now;
    if (!atomic_load(&wired) || !identify(self.path, &now) || now.volume != self.volume ||
        now.index_high != self.index_high || now.index_low != self.index_low) {
        return PM_ERR_NO_LAUNCHER;
    }
    wchar_t *path = _wcsdup(self.path);
    if (path == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    *ret_path = path;
    return PM_OK;
}
