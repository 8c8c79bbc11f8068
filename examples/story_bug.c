// The bug: a child is started by hand, its handle is released, and nobody ever waits for it.
//
// This file does by intention what the guard header forbids; CMakeLists.txt switches the guard off
// for it, and for no other.
#include "story_os.h"

#ifdef _WIN32

#include <stdio.h>
#include <wchar.h>
#include <windows.h>

// The process is over once its object is gone or signalled. Whether a handle can still be opened
// says nothing by itself: it can for a while after the end.
static bool is_over(DWORD pid) {
    HANDLE process = OpenProcess(SYNCHRONIZE, FALSE, pid);
    if (process == NULL) return true;
    bool over = WaitForSingleObject(process, 0) == WAIT_OBJECT_0;
    CloseHandle(process);
    return over;
}

int story_bug_run(const char *self, int count) {
    wchar_t program[STORY_PATH_MAX];
    wchar_t command[STORY_PATH_MAX + 16];
    if (MultiByteToWideChar(CP_UTF8, 0, self, -1, program, STORY_PATH_MAX) == 0) return 0;
    swprintf(command, STORY_PATH_MAX + 16, L"\"%ls\" --exit", program);

    int started = 0;
    for (; started < count; started++) {
        STARTUPINFOW startup = {.cb = sizeof startup};
        PROCESS_INFORMATION info;
        if (!CreateProcessW(program, command, NULL, NULL, FALSE, CREATE_NO_WINDOW, NULL, NULL,
                            &startup, &info))
            break;
        // The release: from here on nobody could wait for it.
        CloseHandle(info.hThread);
        CloseHandle(info.hProcess);
        int64_t deadline = story_os_now_ms() + 5000;
        while (!is_over(info.dwProcessId) && story_os_now_ms() < deadline) story_os_sleep_ms(5);
    }
    return started;
}

const char *story_bug_remark(void) {
    return "Windows has no zombies: a process leaves the table with its last handle";
}

void story_bug_clean(void) {
}

#else

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    MOST = 64
};

static pid_t children[MOST];
static int children_count;

// Looks without taking the status: that is what keeps a zombie a zombie.
static bool is_dead(pid_t pid) {
    siginfo_t info = {.si_pid = 0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

int story_bug_run(const char *self, int count) {
    (void)self;
    children_count = 0;
    while (children_count < count && children_count < MOST) {
        pid_t pid = fork();
        if (pid < 0) break;
        if (pid == 0) _exit(0);
        // The release: the number goes out of the starter's sight and nobody waits. (It is noted
        // here only for the cleaning-up at the end of this chapter.)
        children[children_count++] = pid;
    }
    int64_t deadline = story_os_now_ms() + 5000;
    for (int i = 0; i < children_count; i++) {
        while (!is_dead(children[i]) && story_os_now_ms() < deadline) story_os_sleep_ms(1);
    }
    return children_count;
}

const char *story_bug_remark(void) {
    return "each holds a slot of the process table until somebody waits for it";
}

void story_bug_clean(void) {
    for (int i = 0; i < children_count; i++) waitpid(children[i], NULL, 0);
    children_count = 0;
}

#endif
