// The ends of processes in a Windows wait: each exit waitable is one more handle for
// WaitForMultipleObjects(). That call takes 64 handles at most; for more, give each waitable to the
// thread pool with RegisterWaitForSingleObject().
#include <processmgr/processmgr.h>
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>

#define CHILDREN 2

static struct pm_error error = PM_ERROR_INIT;

static void check(int result, const char *what) {
    char line[1024] = "";
    if (result == PM_OK) return;
    if (error.code == result) pm_error_format(&error, line, sizeof line);
    fprintf(stderr, "win_wait_exit: %s: %s\n", what, line[0] != '\0' ? line : pm_strerror(result));
    exit(1);
}

static pm_process *start(pm_manager *manager, const char *script) {
    const char *const argv[] = {"cmd", "/c", script, NULL};
    struct pm_spec spec = PM_SPEC_INIT;
    spec.owner = "win_wait_exit";
    spec.program = "cmd";
    spec.argv = argv;
    spec.stdin_slot.kind = PM_STDIO_NULL;
    spec.stdout_slot.kind = PM_STDIO_NULL;
    spec.die_with_parent = true;
    pm_process *process = NULL;
    check(pm_spawn(manager, &spec, &process, &error), "pm_spawn");
    return process;
}

int main(void) {
    pm_manager *manager = NULL;
    check(pm_open(NULL, &manager, &error), "pm_open");

    pm_process *children[CHILDREN] = {
        start(manager, "exit 7"),
        start(manager, "ping -n 2 127.0.0.1 & exit 259"), // 259 is a code like any other.
    };
    HANDLE handles[CHILDREN];
    for (int i = 0; i < CHILDREN; i++) {
        pm_native waitable;
        check(pm_process_exit_waitable(children[i], &waitable), "pm_process_exit_waitable");
        handles[i] = (HANDLE)waitable; // The Handle's: wait for it, never close it.
    }

    for (DWORD left = CHILDREN; left > 0; left--) {
        // Sockets' events, timers and the like would stand in the same array.
        DWORD fired = WaitForMultipleObjects(left, handles, FALSE, 10000) - WAIT_OBJECT_0;
        if (fired >= left) {
            fprintf(stderr, "win_wait_exit: nothing ended within 10 s\n");
            return 1;
        }
        // The waitable has fired, so the record is there and this does not block.
        struct pm_exit record = PM_EXIT_INIT;
        check(pm_process_wait(children[fired], 0, &record), "pm_process_wait");
        printf("pid %lu exited with code %lu\n", (unsigned long)pm_process_pid(children[fired]),
               (unsigned long)record.code);
        pm_process_unref(children[fired]);
        children[fired] = children[left - 1];
        handles[fired] = handles[left - 1];
    }
    check(pm_close(manager, -1, NULL), "pm_close");
    return 0;
}
