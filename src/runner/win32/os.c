#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

#include <shellapi.h>

#include "poddaemon/os.h"
#include "runner/os.h"

// What we write is UTF-8, and a console takes it for text of its code page, which on most machines
// is another. That belongs to the console, and others on it: it gets back what it had.
static volatile LONG page_before; // 0: as it is.

static void restore_page(void)
{
    LONG page = InterlockedExchange(&page_before, 0);
    if (page != 0) {
        (void)SetConsoleOutputCP((UINT)page);
    }
}

static BOOL WINAPI on_console_event(DWORD event)
{
    (void)event;
    restore_page();
    return FALSE; // The next handler ends us, past atexit(). That of libuv comes before, and is the
                  // last where it has a watcher: who watches comes to exit() or os_end().
}

static bool is_console(DWORD which)
{
    DWORD mode;
    return GetConsoleMode(GetStdHandle(which), &mode) != 0;
}

static void write_utf8(void)
{
    UINT page = GetConsoleOutputCP();
    if (page == 0 || page == CP_UTF8 ||
        (!is_console(STD_OUTPUT_HANDLE) && !is_console(STD_ERROR_HANDLE)) ||
        atexit(restore_page) != 0 || !SetConsoleOutputCP(CP_UTF8)) {
        return;
    }
    page_before = (LONG)page;
    (void)SetConsoleCtrlHandler(on_console_event, TRUE);
}

void os_begin(void)
{
    // Whoever is below a new process group ignores Ctrl-C, unless it says otherwise.
    (void)SetConsoleCtrlHandler(NULL, FALSE);
    write_utf8();
}

void os_end(void)
{
    restore_page();
}

static char *to_utf8(const wchar_t *text)
{
    int size = WideCharToMultiByte(CP_UTF8, 0, text, -1, NULL, 0, NULL, NULL);
    char *utf8 = size > 0 ? malloc((size_t)size) : NULL;
    if (utf8 != NULL) {
        (void)WideCharToMultiByte(CP_UTF8, 0, text, -1, utf8, size, NULL, NULL);
    }
    return utf8;
}

void os_widen_table(void)
{
}

// Those of main() are in the code page of the system.
void os_arguments(int *argc, char ***argv)
{
    int count;
    wchar_t **wide = CommandLineToArgvW(GetCommandLineW(), &count);
    char **utf8 = wide != NULL ? calloc((size_t)count + 1, sizeof *utf8) : NULL;
    bool fine = utf8 != NULL;
    for (int i = 0; fine && i < count; i++) {
        utf8[i] = to_utf8(wide[i]);
        fine = utf8[i] != NULL;
    }
    if (fine) {
        *argc = count;
        *argv = utf8;
    }
    LocalFree(wide);
}

// Libuv and the C library know no longer paths than MAX_PATH, of folders 12 less; what has the
// longest name below is a service's.
bool os_state_fits(const char *path, unsigned *ret_max)
{
    *ret_max = 160;
    int units = MultiByteToWideChar(CP_UTF8, 0, path, -1, NULL, 0) - 1;
    return units >= 0 && (unsigned)units <= *ret_max;
}

bool os_has_devices(void)
{
    return true;
}

bool os_is_absolute(const char *path)
{
    bool drive = ((path[0] | 0x20) >= 'a' && (path[0] | 0x20) <= 'z') && path[1] == ':' &&
                 (path[2] == '\\' || path[2] == '/');
    return drive || (path[0] == '\\' && path[1] == '\\');
}

// ------------------------------------------------------------------------------------------------
// Files
// ------------------------------------------------------------------------------------------------

int os_private_dir(const char *path, struct runner_error *error)
{
    struct pod_dir dir = POD_DIR_INIT;
    int result = pod_dir_create(path);
    if (result == PM_OK || result == PM_ERR_EXISTS) {
        result = pod_dir_open(path, &dir);
    }
    if (result != PM_OK) {
        bool refused = result == PM_ERR_ACCESS || result == PM_ERR_NOT_A_DIRECTORY;
        return runner_fail(error, refused ? RUNNER_REFUSED : RUNNER_FAILED,
                           "folder '%s'\n%s\nicacls \"%s\"", path, pm_strerror(result), path);
    }
    pod_dir_close(&dir);
    return RUNNER_OK;
}

static int open_file(const char *path, int flags)
{
    uv_fs_t request;
    int file = uv_fs_open(NULL, &request, path, flags, 0600, NULL);
    uv_fs_req_cleanup(&request);
    return file;
}

static int close_file(int file)
{
    uv_fs_t request;
    int result = uv_fs_close(NULL, &request, file, NULL);
    uv_fs_req_cleanup(&request);
    return result;
}

int os_open_append(const char *path)
{
    return open_file(path, UV_FS_O_WRONLY | UV_FS_O_CREAT | UV_FS_O_APPEND);
}

int os_open_read(const char *path)
{
    return open_file(path, UV_FS_O_RDONLY);
}

int os_read_file(const char *path, size_t limit, char **ret_text, size_t *ret_size)
{
    int file = os_open_read(path);
    size_t have = 0;
    char *text = file >= 0 ? malloc(limit + 2) : NULL;
    int result = file < 0 ? file : text == NULL ? UV_ENOMEM : 1;
    while (result > 0 && have <= limit) {
        uv_buf_t buffer = uv_buf_init(text + have, (unsigned)(limit + 1 - have));
        uv_fs_t request;
        result = uv_fs_read(NULL, &request, file, &buffer, 1, -1, NULL);
        uv_fs_req_cleanup(&request);
        have += result > 0 ? (size_t)result : 0;
    }
    if (file >= 0) {
        (void)close_file(file);
    }
    if (result == 0 && have > limit) {
        result = UV_EFBIG;
    }
    if (result != 0) {
        free(text);
        return result < 0 ? result : UV_EFBIG;
    }
    text[have] = '\0';
    *ret_text = text;
    *ret_size = have;
    return 0;
}

int os_write_file(const char *path, const void *data, size_t size)
{
    char temporary[4096];
    uv_fs_t request;
    uv_buf_t buffer = uv_buf_init((char *)(uintptr_t)data, (unsigned)size);
    if (snprintf(temporary, sizeof temporary, "%s.tmp", path) >= (int)sizeof temporary) {
        return UV_ENAMETOOLONG;
    }
    int file = open_file(temporary, UV_FS_O_WRONLY | UV_FS_O_CREAT | UV_FS_O_TRUNC);
    if (file < 0) {
        return file;
    }
    int result = uv_fs_write(NULL, &request, file, &buffer, 1, 0, NULL);
    uv_fs_req_cleanup(&request);
    result = result == (int)size ? 0 : result < 0 ? result : UV_ENOSPC;
    (void)close_file(file);
    for (int i = 0; result == 0 && i < 20; i++) { // Somebody may be reading it.
        result = uv_fs_rename(NULL, &request, temporary, path, NULL);
        uv_fs_req_cleanup(&request);
        if (result == 0) {
            return 0;
        }
        uv_sleep(10);
        result = i < 19 ? 0 : result;
    }
    return result;
}

bool os_has_separator(const char *program)
{
    return strpbrk(program, "/\\:") != NULL;
}

// With any of the endings that the library tries.
static bool is_program(const char *folder, size_t length, const char *program)
{
    static const char *const endings[] = {"", ".exe", ".com", ".cmd", ".bat"};
    char file[4096];
    bool found = false;
    for (size_t i = 0; i < sizeof endings / sizeof endings[0] && !found; i++) {
        uv_fs_t request;
        (void)snprintf(file, sizeof file, "%.*s%s%s%s", (int)length, folder, length > 0 ? "\\" : "",
                       program, endings[i]);
        found = uv_fs_stat(NULL, &request, file, NULL) == 0 &&
                (request.statbuf.st_mode & S_IFMT) == S_IFREG;
        uv_fs_req_cleanup(&request);
    }
    return found;
}

bool os_program_exists(const char *program, const char *path)
{
    bool found = os_has_separator(program) && is_program("", 0, program);
    while (!os_has_separator(program) && !found && *path != '\0') {
        size_t length = strcspn(path, ";");
        found = length > 0 && is_program(path, length, program);
        path += length + (path[length] == ';' ? 1 : 0);
    }
    return found;
}

bool os_has_name(const char *variable, const char *name)
{
    size_t length = strlen(name);
    return _strnicmp(variable, name, length) == 0 &&
           (variable[length] == '=' || variable[length] == '\0');
}

int os_exit_code(uint32_t code)
{
    return (int)code; // All 32 bits come through.
}

// What somebody has open cannot be removed: virus scanners look into new files. Of a file that may
// be removed all the same the name stays until it is closed, and its folder is not empty.
bool os_is_held(int uv_error)
{
    return uv_error == UV_EBUSY || uv_error == UV_ENOTEMPTY || uv_error == UV_EPERM ||
           uv_error == UV_EACCES || uv_error == UV_EAGAIN;
}

int os_remove_name(const char *path, bool folder)
{
    int result = UV_EBUSY;
    for (int i = 0; i < 4 && result != 0; i++) {
        uv_fs_t request;
        if (i > 0) {
            uv_sleep(25);
        }
        result = folder ? uv_fs_rmdir(NULL, &request, path, NULL)
                        : uv_fs_unlink(NULL, &request, path, NULL);
        uv_fs_req_cleanup(&request);
        result = result == UV_ENOENT ? 0 : result;
    }
    return result;
}

void os_allow_batch_file(struct pm_spec *spec)
{
    spec->allow_batch_file = true;
}

// ------------------------------------------------------------------------------------------------
// Connections
// ------------------------------------------------------------------------------------------------

int os_pipe_open(uv_pipe_t *pipe, pm_native native)
{
    int file = _open_osfhandle((intptr_t)native, 0);
    if (file < 0) {
        (void)CloseHandle((HANDLE)native);
        return UV_EMFILE;
    }
    int result = uv_pipe_open(pipe, file);
    if (result != 0) {
        (void)_close(file);
    }
    return result;
}

uint64_t os_peer_of(pm_native native)
{
    ULONG pid = 0;
    return GetNamedPipeClientProcessId((HANDLE)native, &pid) ? pid : 0;
}

// ------------------------------------------------------------------------------------------------
// Terminal
// ------------------------------------------------------------------------------------------------

static DWORD screen_mode;
static bool is_raw;

bool os_terminal_size(unsigned *ret_columns, unsigned *ret_rows)
{
    CONSOLE_SCREEN_BUFFER_INFO info;
    if (!GetConsoleScreenBufferInfo(GetStdHandle(STD_OUTPUT_HANDLE), &info)) {
        return false;
    }
    *ret_columns = (unsigned)(info.srWindow.Right - info.srWindow.Left + 1);
    *ret_rows = (unsigned)(info.srWindow.Bottom - info.srWindow.Top + 1);
    return true;
}

bool os_terminal_raw(void)
{
    HANDLE screen = GetStdHandle(STD_OUTPUT_HANDLE);
    is_raw = true;
    if (!GetConsoleMode(screen, &screen_mode)) {
        screen_mode = 0;
        return true;
    }
    (void)SetConsoleMode(screen, screen_mode | ENABLE_PROCESSED_OUTPUT |
                                     ENABLE_VIRTUAL_TERMINAL_PROCESSING |
                                     DISABLE_NEWLINE_AUTO_RETURN);
    return true;
}

void os_terminal_stream(uv_tty_t *tty)
{
    if (is_raw) {
        (void)uv_tty_set_mode(tty, UV_TTY_MODE_RAW);
    }
}

void os_terminal_restore(void)
{
    if (is_raw) {
        (void)uv_tty_reset_mode();
        if (screen_mode != 0) {
            (void)SetConsoleMode(GetStdHandle(STD_OUTPUT_HANDLE), screen_mode);
        }
        is_raw = false;
    }
}

// ------------------------------------------------------------------------------------------------
// Upgrade: a process cannot be replaced here, so nobody has to guard that
// ------------------------------------------------------------------------------------------------

bool os_has_exec(void)
{
    return false;
}

int os_exec(const char *program, char *const argv[])
{
    (void)program;
    (void)argv;
    return UV_ENOSYS;
}

int os_own_program(char *path, size_t capacity)
{
    return uv_exepath(path, &capacity);
}

int os_read_word(pm_native native, char *word, size_t capacity, int timeout_ms)
{
    (void)native;
    (void)word;
    (void)capacity;
    (void)timeout_ms;
    return PM_ERR_UNSUPPORTED;
}

void os_keep_at_exec(pm_native native, bool keep)
{
    (void)native;
    (void)keep;
}

int os_process_open(int64_t pid, struct os_process *ret_process)
{
    (void)pid;
    (void)ret_process;
    return UV_ENOSYS;
}

void os_process_signal(const struct os_process *process, int number)
{
    (void)process;
    (void)number;
}

void os_process_kill(const struct os_process *process, uint32_t wait_ms)
{
    (void)process;
    (void)wait_ms;
}

void os_process_close(struct os_process *process)
{
    (void)process;
}

// Every user of the machine can connect to a loopback address: only where somebody asks for it.
void os_debug_address(const char *state_dir, char *address, size_t capacity)
{
    (void)state_dir;
    (void)snprintf(address, capacity, "off");
}

// There are no signals here, and no exec that one could meet.
bool os_signals_hold(void)
{
    return false;
}

void os_signals_let(void)
{
}

void os_signals_obey(void)
{
}

bool os_signals_leave_open(void)
{
    return true;
}

void os_signals_hold_again(void)
{
}

void os_signals_pass(const struct os_process *process)
{
    (void)process;
}

// Services of Windows are told nothing: the runner is none.
void os_supervisor_take(void)
{
}

void os_supervisor_give(void)
{
}

void os_supervisor_tell(const char *text)
{
    (void)text;
}
