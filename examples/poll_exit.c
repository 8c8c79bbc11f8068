// The ends of processes in an event loop: each exit waitable is one more descriptor for poll().
#include <poll.h>
#include <processmgr/processmgr.h>
#include <stdio.h>
#include <stdlib.h>

#define CHILDREN 3

static struct pm_error error = PM_ERROR_INIT;

static void check(int result, const char *what) {
    char line[1024] = "";
    if (result == PM_OK) return;
    if (error.code == result) pm_error_format(&error, line, sizeof line);
    fprintf(stderr, "poll_exit: %s: %s\n", what, line[0] != '\0' ? line : pm_strerror(result));
    exit(1);
}

// Child number i sleeps i tenths of a second and exits with code 10 + i; the last one kills itself.
static pm_process *start(pm_manager *manager, int i) {
    char script[64];
    snprintf(script, sizeof script, "sleep 0.%d; %s%d", i,
             i == CHILDREN ? "kill -9 $$; exit " : "exit ", 10 + i);
    const char *const argv[] = {"sh", "-c", script, NULL};

    struct pm_spec spec = PM_SPEC_INIT;
    spec.owner = "poll_exit";
    spec.program = "sh";
    spec.argv = argv;
    spec.stdin_slot.kind = PM_STDIO_NULL;
    spec.die_with_parent = true;
    pm_process *process = NULL;
    check(pm_spawn(manager, &spec, &process, &error), "pm_spawn");
    return process;
}

static void print_end(int i, const struct pm_exit *record) {
    switch (record->kind) {
    case PM_EXIT_EXITED:
        printf("child %d exited with code %u\n", i, (unsigned)record->code);
        break;
    case PM_EXIT_SIGNALED:
        printf("child %d was ended by signal %d\n", i, record->signal);
        break;
    case PM_EXIT_LOST:
        printf("child %d ended, nobody can tell how\n", i);
        break;
    }
}

int main(int argc, char **argv) {
    pm_launcher_main(argc, argv);
    pm_manager *manager = NULL;
    check(pm_open(NULL, &manager, &error), "pm_open");

    pm_process *children[CHILDREN];
    struct pollfd fds[CHILDREN];
    for (int i = 0; i < CHILDREN; i++) {
        pm_native waitable;
        children[i] = start(manager, i + 1);
        check(pm_process_exit_waitable(children[i], &waitable), "pm_process_exit_waitable");
        fds[i].fd = (int)waitable; // The Handle's: poll it, never read or close it.
        fds[i].events = POLLIN;
    }

    for (int left = CHILDREN; left > 0;) {
        // Sockets and pipes of the program would stand in the same array.
        if (poll(fds, CHILDREN, 10000) <= 0) {
            fprintf(stderr, "poll_exit: nothing ended within 10 s\n");
            return 1;
        }
        for (int i = 0; i < CHILDREN; i++) {
            if (fds[i].revents == 0) continue;
            // The waitable has fired, so the record is there and this does not block.
            struct pm_exit record = PM_EXIT_INIT;
            check(pm_process_wait(children[i], 0, &record), "pm_process_wait");
            print_end(i + 1, &record);
            fds[i].fd = -1; // poll() leaves out negative descriptors.
            children[i] = pm_process_unref(children[i]);
            left--;
        }
    }
    check(pm_close(manager, -1, NULL), "pm_close");
    return 0;
}
