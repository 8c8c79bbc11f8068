// A supervised server: starts it again when it fails, waits longer each time, and gives up when it
// fails too often.
//
//     supervisor PROGRAM [ARGUMENT...]
//
// A server that ends by itself with 0 has finished; so has the supervisor.
#include <processmgr/processmgr.h>
#include <stdio.h>
#include <stdlib.h>
#ifdef _WIN32
#include <windows.h>
#else
#include <time.h>
#endif

#define FAILURES_MOST 3     // As many in
#define WINDOW_MS 60000     // this time, and it is given up.
#define DELAY_FIRST_MS 200  // Twice as long each time,
#define DELAY_MOST_MS 10000 // up to this.

static struct pm_error error = PM_ERROR_INIT;

static void check(int result, const char *what) {
    char line[1024] = "";
    if (result == PM_OK) return;
    if (error.code == result) pm_error_format(&error, line, sizeof line);
    fprintf(stderr, "supervisor: %s: %s\n", what, line[0] != '\0' ? line : pm_strerror(result));
    exit(1);
}

static void say_end(const struct pm_exit *record) {
    if (record->kind == PM_EXIT_EXITED)
        printf("the server exited with code %u\n", (unsigned)record->code);
    else if (record->kind == PM_EXIT_SIGNALED)
        printf("the server was ended by signal %d\n", record->signal);
    else
        printf("the server has ended, nobody can tell how\n");
    fflush(stdout);
}

// One life of the server. It, and all that it has started, ends when we end, however that comes.
static struct pm_exit run_once(pm_manager *manager, char **argv) {
    struct pm_spec spec = PM_SPEC_INIT;
    struct pm_exit record = PM_EXIT_INIT;
    pm_process *process = NULL;
    spec.owner = "supervisor";
    spec.program = argv[0];
    spec.argv = (const char *const *)argv;
    spec.stdin_slot.kind = PM_STDIO_NULL;
    spec.die_with_parent = true;
    spec.kill_tree_on_exit = true; // Or a worker of the old one would hold the new one's port.
    check(pm_spawn(manager, &spec, &process, &error), "pm_spawn");
    printf("the server runs\n");
    fflush(stdout);
    check(pm_process_wait(process, PM_FOREVER, &record), "pm_process_wait");
    pm_process_unref(process);
    say_end(&record);
    return record;
}

static void pause_ms(unsigned ms) {
#ifdef _WIN32
    Sleep(ms);
#else
    const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    (void)nanosleep(&time, NULL);
#endif
}

int main(int argc, char **argv) {
    pm_launcher_main(argc, argv);
    if (argc < 2) {
        fprintf(stderr, "usage: supervisor PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    pm_manager *manager = NULL;
    check(pm_open(NULL, &manager, &error), "pm_open");
    unsigned failures = 0, delay = DELAY_FIRST_MS;
    uint64_t ran_ms = 0; // In total, since the first of these failures.
    for (;;) {
        struct pm_exit end = run_once(manager, argv + 1);
        if (end.kind == PM_EXIT_EXITED && end.code == 0)
            break; // An ending by a signal is a failure.
        ran_ms += end.uptime_ms;
        if (ran_ms > WINDOW_MS) ran_ms = 0, failures = 0, delay = DELAY_FIRST_MS;
        if (++failures == FAILURES_MOST) {
            printf("%u failures in %d s: given up\n", failures, WINDOW_MS / 1000);
            check(pm_close(manager, -1, NULL), "pm_close");
            return 1;
        }
        printf("again in %u ms\n", delay);
        fflush(stdout);
        pause_ms(delay);
        delay = delay * 2 < DELAY_MOST_MS ? delay * 2 : DELAY_MOST_MS;
    }
    check(pm_close(manager, -1, NULL), "pm_close");
    return 0;
}
