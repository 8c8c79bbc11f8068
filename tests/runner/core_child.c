// What runs in the sessions of tests where there is no shell, and the hands that those tests, which
// are no Windows programs, have among Windows programs.
//
//   STEP...            does one after the other, each an argument: a word, and what it is about
//   --hands            reads orders: "kill PID", "lives PID"; answers each with "yes" or "no"
//   --control FOLDER   stdin and stdout are the control connection of the runner there; says
//                      "connected" first
//   --crowd FOLDER N [LINE]
//                      has N control connections there, and sends the line on each; says
//                      "connected", and reads nothing of them; until its stdin ends
//   --open PROGRAM...  runs it with a stdin that has nothing and no end
//   ... --self-check   as the runner that PM_TEST_RUNNER names; what else a runner is told: ends
//   --state FOLDER serve ...   takes connections as a runner does, and ends at the first one
#include <fcntl.h>
#include <io.h>
#include <process.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

#include "poddaemon/os.h"

// ------------------------------------------------------------------------------------------------
// Steps
// ------------------------------------------------------------------------------------------------

static int put(int to, const char *data, size_t size)
{
    while (size > 0) {
        int n = _write(to, data, (unsigned)(size < 65536 ? size : 65536));
        if (n <= 0) {
            return 1;
        }
        data += n;
        size -= (size_t)n;
    }
    return 0;
}

static int put_line(int to, const char *text)
{
    char line[4096];
    int size = snprintf(line, sizeof line, "%s\n", text);
    return size < 0 || size >= (int)sizeof line ? 1 : put(to, line, (size_t)size);
}

static int say(const char *text)
{
    return put_line(1, text);
}

static int complain(const char *text)
{
    return put_line(2, text);
}

// Byte for byte: what stands behind the line is for the next step.
static int read_line(const char *text)
{
    char byte;
    (void)text;
    while (_read(0, &byte, 1) == 1 && byte != '\n') {
    }
    return 0;
}

static int copy(const char *text)
{
    char data[4096];
    int size;
    (void)text;
    while ((size = _read(0, data, sizeof data)) > 0) {
        if (put(1, data, (size_t)size) != 0) {
            return 1;
        }
    }
    return 0;
}

// Numbered lines until the file is there.
static int count(const char *file)
{
    char lines[100 * 16 + 1];
    unsigned n = 0, state = 1;
    while (_access(file, 0) != 0) {
        int size = 0;
        state = state * 1103515245u + 12345u;
        for (unsigned i = 0; i < 1 + (state >> 16) % 100; i++) {
            size += snprintf(lines + size, sizeof lines - (size_t)size, "%015u\n", n++);
        }
        if (put(1, lines, (size_t)size) != 0) {
            return 1;
        }
        Sleep((state >> 8) % 10);
    }
    return 0;
}

// "N": so many numbered lines, as quickly as they are taken.
static int flood(const char *text)
{
    char lines[1000 * 16 + 1];
    unsigned end = (unsigned)atoi(text), n = 0;
    while (n < end) {
        int size = 0;
        for (unsigned i = 0; i < 1000 && n < end; i++) {
            size += snprintf(lines + size, sizeof lines - (size_t)size, "%015u\n", n++);
        }
        if (put(1, lines, (size_t)size) != 0) {
            return 1;
        }
    }
    return 0;
}

// "A B": the numbers from A to B, one a line.
static int lines(const char *text)
{
    char *rest;
    long n = strtol(text, &rest, 10), end = strtol(rest, NULL, 10);
    char line[32];
    for (; n <= end; n++) {
        (void)snprintf(line, sizeof line, "%ld", n);
        if (say(line) != 0) {
            return 1;
        }
    }
    return 0;
}

static int zeros(const char *text)
{
    static const char block[65536];
    size_t left = (size_t)_strtoui64(text, NULL, 10);
    while (left > 0) {
        size_t size = left < sizeof block ? left : sizeof block;
        if (put(1, block, size) != 0) {
            return 1;
        }
        left -= size;
    }
    return 0;
}

static int pause_ms(const char *text)
{
    Sleep((DWORD)atoi(text));
    return 0;
}

static int wait_for(const char *file)
{
    while (_access(file, 0) != 0) {
        Sleep(50);
    }
    return 0;
}

// Open, with leave to remove it, until we end.
static int hold(const char *file)
{
    HANDLE handle =
        CreateFileA(file, GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                    NULL, OPEN_EXISTING, 0, NULL);
    return handle == INVALID_HANDLE_VALUE;
}

static int sleep_on(const char *text)
{
    (void)text;
    Sleep(INFINITE);
    return 0;
}

static int leave_with(const char *text)
{
    _exit((int)_strtoi64(text, NULL, 0)); // Also in the middle of a read of another thread.
}

static int be_deaf(const char *text)
{
    (void)text;
    return SetConsoleCtrlHandler(NULL, TRUE) ? 0 : 1;
}

static int tell_variable(const char *name)
{
    const char *value = getenv(name);
    return say(value != NULL ? value : "");
}

static int tell_variables(const char *text)
{
    (void)text;
    for (char **variable = _environ; variable != NULL && *variable != NULL; variable++) {
        if (say(*variable) != 0) {
            return 1;
        }
    }
    return 0;
}

static int tell_folder(const char *text)
{
    char path[4096];
    (void)text;
    return GetCurrentDirectoryA(sizeof path, path) == 0 || say(path) != 0;
}

// Somebody who has nothing of ours, and lives on; says who that is.
static int leave_behind(const char *text)
{
    char line[4096], pid[32];
    STARTUPINFOA startup = {.cb = sizeof startup};
    PROCESS_INFORMATION info;
    DWORD length = GetModuleFileNameA(NULL, line + 1, sizeof line - 16);
    (void)text;
    line[0] = '"';
    (void)snprintf(line + 1 + length, sizeof line - 1 - length, "\" sleep");
    if (length == 0 || !CreateProcessA(NULL, line, NULL, NULL, FALSE, DETACHED_PROCESS, NULL, NULL,
                                       &startup, &info)) {
        return 1;
    }
    (void)snprintf(pid, sizeof pid, "%lu", (unsigned long)info.dwProcessId);
    (void)CloseHandle(info.hThread);
    (void)CloseHandle(info.hProcess);
    return say(pid);
}

// Another one of this program does the step, and has ended then.
static int run(const char *step)
{
    char program[4096], quoted[1024];
    const char *const command[] = {"child", quoted, NULL};
    (void)snprintf(quoted, sizeof quoted, "\"%s\"", step);
    return GetModuleFileNameA(NULL, program, sizeof program) == 0 ||
           _spawnv(_P_WAIT, program, command) != 0;
}

// A command line, in UTF-8; until it has ended.
static int call(const char *text)
{
    wchar_t line[4096];
    STARTUPINFOW startup = {.cb = sizeof startup, .dwFlags = STARTF_USESTDHANDLES};
    PROCESS_INFORMATION info;
    startup.hStdInput = GetStdHandle(STD_INPUT_HANDLE);
    startup.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
    startup.hStdError = GetStdHandle(STD_ERROR_HANDLE);
    if (MultiByteToWideChar(CP_UTF8, 0, text, -1, line, 4096) == 0 ||
        !CreateProcessW(NULL, line, NULL, NULL, TRUE, 0, NULL, NULL, &startup, &info)) {
        return 1;
    }
    return WaitForSingleObject(info.hProcess, INFINITE) != WAIT_OBJECT_0;
}

// Of the console that we are on: how it takes what is written.
static int set_page(const char *text)
{
    return SetConsoleOutputCP((UINT)atoi(text)) ? 0 : 1;
}

static int tell_page(const char *text)
{
    char line[32];
    (void)text;
    (void)snprintf(line, sizeof line, "page-%u", GetConsoleOutputCP());
    return say(line);
}

static const char *at_stop; // Steps, with "; " between them.
static int do_step(const char *step);

static BOOL WINAPI on_stop(DWORD event)
{
    char steps[512], *step = steps, *next;
    (void)event;
    (void)snprintf(steps, sizeof steps, "%s", at_stop);
    for (; step != NULL; step = next) {
        next = strstr(step, "; ");
        if (next != NULL) {
            *next = '\0';
            next += 2;
        }
        (void)do_step(step);
    }
    return TRUE;
}

static int do_at_stop(const char *text)
{
    at_stop = text;
    return SetConsoleCtrlHandler(on_stop, TRUE) ? 0 : 1;
}

static int do_step(const char *step)
{
    static const struct {
        const char *word;
        int (*act)(const char *text);
    } acts[] = {{"say", say},
                {"complain", complain},
                {"read", read_line},
                {"copy", copy},
                {"count", count},
                {"flood", flood},
                {"lines", lines},
                {"zeros", zeros},
                {"pause", pause_ms},
                {"until", wait_for},
                {"hold", hold},
                {"sleep", sleep_on},
                {"wait", sleep_on},
                {"exit", leave_with},
                {"deaf", be_deaf},
                {"variable", tell_variable},
                {"variables", tell_variables},
                {"folder", tell_folder},
                {"leave", leave_behind},
                {"run", run},
                {"call", call},
                {"page", set_page},
                {"tell-page", tell_page},
                {"at-stop", do_at_stop}};
    size_t length = strcspn(step, " ");
    for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++) {
        if (strlen(acts[i].word) == length && memcmp(acts[i].word, step, length) == 0) {
            return acts[i].act(step + length + (step[length] == ' ' ? 1 : 0));
        }
    }
    (void)complain("no such step");
    _exit(99);
}

// ------------------------------------------------------------------------------------------------
// Hands
// ------------------------------------------------------------------------------------------------

static bool obey(const char *order)
{
    bool kill = strncmp(order, "kill ", 5) == 0;
    DWORD pid = (DWORD)strtoul(order + (kill ? 5 : 6), NULL, 10);
    HANDLE process = OpenProcess(SYNCHRONIZE | (kill ? PROCESS_TERMINATE : 0), FALSE, pid);
    // One that has ended can be opened for a while.
    bool yes = process != NULL && (kill ? TerminateProcess(process, 9) != 0
                                        : WaitForSingleObject(process, 0) == WAIT_TIMEOUT);
    if (process != NULL) {
        (void)CloseHandle(process);
    }
    return yes;
}

static int be_hands(void)
{
    char line[128];
    while (fgets(line, sizeof line, stdin) != NULL) {
        (void)say(obey(line) ? "yes" : "no");
    }
    return 0;
}

// ------------------------------------------------------------------------------------------------
// Control connection
// ------------------------------------------------------------------------------------------------

// The bytes that were moved; 0: it is over.
static DWORD move(HANDLE pipe, HANDLE event, void *data, DWORD size, bool to_pipe)
{
    OVERLAPPED overlapped = {.hEvent = event};
    DWORD moved = 0;
    BOOL done = to_pipe ? WriteFile(pipe, data, size, NULL, &overlapped)
                        : ReadFile(pipe, data, size, NULL, &overlapped);
    if (!done && GetLastError() != ERROR_IO_PENDING) {
        return 0;
    }
    return GetOverlappedResult(pipe, &overlapped, &moved, TRUE) ? moved : 0;
}

static DWORD WINAPI pass_answers(void *context)
{
    static char data[65536];
    HANDLE event = CreateEventW(NULL, TRUE, FALSE, NULL);
    DWORD size;
    while ((size = move(context, event, data, sizeof data, false)) > 0 && put(1, data, size) == 0) {
    }
    _exit(0);
}

static int connect_to(struct pod_dir *dir, pm_native *ret_pipe)
{
    int result;
    while ((result = pod_connect(dir, "runner-control", ret_pipe)) == PM_ERR_BUSY) {
        Sleep(2);
    }
    return result;
}

static int be_crowd(const char *folder, int count, const char *line)
{
    struct pod_dir dir = POD_DIR_INIT;
    pm_native pipe;
    char byte, data[4096];
    HANDLE event = CreateEventW(NULL, TRUE, FALSE, NULL);
    DWORD size = (DWORD)snprintf(data, sizeof data, "%s\n", line);
    if (pod_dir_open(folder, &dir) != PM_OK) {
        return 1;
    }
    for (int i = 0; i < count; i++) {
        if (connect_to(&dir, &pipe) != PM_OK) {
            return 1;
        }
        if (line[0] != '\0') { // Those that are sent away at once do not take it.
            (void)move((HANDLE)pipe, event, data, size, true);
        }
    }
    return say("connected") != 0 || _read(0, &byte, 1) < 0;
}

static int be_control(const char *folder)
{
    static char data[65536];
    struct pod_dir dir = POD_DIR_INIT;
    pm_native pipe;
    int size;
    if (pod_dir_open(folder, &dir) != PM_OK || connect_to(&dir, &pipe) != PM_OK ||
        say("connected") != 0) {
        return 1;
    }
    HANDLE event = CreateEventW(NULL, TRUE, FALSE, NULL);
    HANDLE thread = CreateThread(NULL, 0, pass_answers, (HANDLE)pipe, 0, NULL);
    if (event == NULL || thread == NULL) {
        return 1;
    }
    while ((size = _read(0, data, sizeof data)) > 0) {
        for (DWORD at = 0, n; at < (DWORD)size; at += n) {
            n = move((HANDLE)pipe, event, data + at, (DWORD)size - at, true);
            if (n == 0) {
                _exit(0);
            }
        }
    }
    _exit(0);
}

static void on_caller(void *user)
{
    (void)user;
    (void)put(2, "its recovery has failed\n", 24);
    _exit(9);
}

static int be_short_lived(const char *folder)
{
    struct pod_dir dir = POD_DIR_INIT;
    struct pod_listener listener;
    uv_loop_t loop;
    int result = pod_dir_open(folder, &dir);
    if (result != PM_OK || uv_loop_init(&loop) != 0 ||
        pod_listener_open(&loop, &listener, &dir, "runner-control", on_caller, NULL) != PM_OK) {
        return 1;
    }
    return uv_run(&loop, UV_RUN_DEFAULT);
}

// ------------------------------------------------------------------------------------------------
// An open stdin
// ------------------------------------------------------------------------------------------------

static int run_with_open_stdin(void)
{
    SECURITY_ATTRIBUTES inherited = {.nLength = sizeof inherited, .bInheritHandle = TRUE};
    STARTUPINFOW startup = {.cb = sizeof startup, .dwFlags = STARTF_USESTDHANDLES};
    PROCESS_INFORMATION info;
    HANDLE keep;
    DWORD code = 99;
    wchar_t *command = wcsstr(GetCommandLineW(), L" --open ");
    startup.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
    startup.hStdError = GetStdHandle(STD_ERROR_HANDLE);
    if (command == NULL || !CreatePipe(&startup.hStdInput, &keep, &inherited, 0) ||
        !SetHandleInformation(keep, HANDLE_FLAG_INHERIT, 0) ||
        !CreateProcessW(NULL, command + wcslen(L" --open "), NULL, NULL, TRUE, 0, NULL, NULL,
                        &startup, &info)) {
        return 99;
    }
    (void)WaitForSingleObject(info.hProcess, INFINITE);
    (void)GetExitCodeProcess(info.hProcess, &code);
    return (int)code;
}

int main(int argc, char **argv)
{
    int result = 0;
    (void)_setmode(0, _O_BINARY);
    (void)_setmode(1, _O_BINARY);
    (void)_setmode(2, _O_BINARY);
    if (argc == 2 && strcmp(argv[1], "--hands") == 0) {
        return be_hands();
    }
    if (argc == 3 && strcmp(argv[1], "--control") == 0) {
        return be_control(argv[2]);
    }
    if (argc >= 4 && strcmp(argv[1], "--crowd") == 0) {
        return be_crowd(argv[2], atoi(argv[3]), argc > 4 ? argv[4] : "");
    }
    if (argc > 2 && strcmp(argv[1], "--open") == 0) {
        return run_with_open_stdin();
    }
    if (argc > 1 && strcmp(argv[argc - 1], "--self-check") == 0 && getenv("PM_TEST_RUNNER")) {
        const char *const check[] = {"runner", "serve", "--self-check", NULL};
        return (int)_spawnv(_P_WAIT, getenv("PM_TEST_RUNNER"), check);
    }
    if (argc > 3 && strcmp(argv[1], "--state") == 0 && strcmp(argv[3], "serve") == 0) {
        return be_short_lived(argv[2]);
    }
    for (int i = 1; i < argc && result == 0; i++) {
        result = do_step(argv[i]);
    }
    return result;
}
