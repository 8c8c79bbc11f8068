// A build runner: runs the commands of a list, some of them at once, shows the output of each in
// one piece, and says at the end what failed.
//
//     build_runner [-j JOBS] [-t SECONDS] <commands, one a line
//
// A command that takes longer than SECONDS (60) is stopped with all that it has started.
#include <processmgr/processmgr.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#include <windows.h>
#else
#include <pthread.h>
#endif

#define COMMANDS_MOST 10000
#define JOBS_MOST 64

static pm_manager *manager;
static char *commands[COMMANDS_MOST];
static int count;
static atomic_int next, failed;
static int64_t timeout_ms = 60000;

static void check(int result, const char *what, const struct pm_error *error) {
    char line[1024] = "";
    if (result == PM_OK) return;
    if (error->code == result) pm_error_format(error, line, sizeof line);
    fprintf(stderr, "build_runner: %s: %s\n", what, line[0] != '\0' ? line : pm_strerror(result));
    exit(1);
}

// One call, so that the blocks of two commands do not mix.
static void show(const char *command, const struct pm_run_result *result) {
    char end[64];
    const struct pm_exit *record = result->record;
    if (result->timed_out)
        snprintf(end, sizeof end, "took too long");
    else if (record->kind == PM_EXIT_EXITED)
        snprintf(end, sizeof end, "exit code %u", (unsigned)record->code);
    else
        snprintf(end, sizeof end, "signal %d", record->signal);
    const char *cut = result->output_dropped[0] + result->output_dropped[1] > 0 ? "[cut]\n" : "";
    printf("== %s\n%s%s%s-- %s\n", command, result->output[0], result->output[1], cut, end);
}

static bool run_one(const char *command) {
    struct pm_error error = PM_ERROR_INIT;
    struct pm_spec spec = PM_SPEC_INIT;
    spec.owner = "build_runner";
#ifdef _WIN32
    // The shell takes the line as it is: quoting it by the rules of other programs would change it.
    char line[8192];
    snprintf(line, sizeof line, "cmd.exe /d /s /c \"%s\"", command);
    spec.program = "cmd.exe";
    spec.raw_command_line = line;
#else
    const char *const argv[] = {"sh", "-c", command, NULL};
    spec.program = "sh";
    spec.argv = argv;
#endif
    spec.die_with_parent = true;
    spec.kill_tree_on_exit = true; // Nothing of one step runs on beside the next.

    struct pm_run_options options = PM_RUN_OPTIONS_INIT;
    struct pm_run_result result = PM_RUN_RESULT_INIT;
    options.spec = &spec;
    options.timeout_ms = timeout_ms;
    check(pm_run(manager, &options, &result, &error), command, &error);
    show(command, &result);
    bool good = result.record->kind == PM_EXIT_EXITED && result.record->code == 0;
    pm_run_result_clear(&result);
    return good;
}

static void work(void) {
    for (int i; (i = atomic_fetch_add(&next, 1)) < count;)
        if (!run_one(commands[i])) (void)atomic_fetch_add(&failed, 1);
}

#ifdef _WIN32
typedef HANDLE job;
static DWORD WINAPI job_main(void *argument) {
    (void)argument;
    work();
    return 0;
}
static bool start_job(job *ret_job) {
    *ret_job = CreateThread(NULL, 0, job_main, NULL, 0, NULL);
    return *ret_job != NULL;
}
static void join_job(job started) {
    (void)WaitForSingleObject(started, INFINITE);
    (void)CloseHandle(started);
}
#else
typedef pthread_t job;
static void *job_main(void *argument) {
    work();
    return argument;
}
static bool start_job(job *ret_job) {
    return pthread_create(ret_job, NULL, job_main, NULL) == 0;
}
static void join_job(job started) {
    (void)pthread_join(started, NULL);
}
#endif

static void read_commands(void) {
    static char line[8000];
    while (count < COMMANDS_MOST && fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] == '\0' || line[0] == '#') continue;
        size_t size = strlen(line) + 1;
        commands[count] = malloc(size);
        if (commands[count] == NULL) exit(1);
        memcpy(commands[count++], line, size);
    }
}

int main(int argc, char **argv) {
    pm_launcher_main(argc, argv);
    int jobs = 2;
    for (int i = 1; i < argc; i += 2) {
        int value = i + 1 < argc ? atoi(argv[i + 1]) : 0;
        if (value >= 1 && value <= JOBS_MOST && strcmp(argv[i], "-j") == 0) {
            jobs = value;
        } else if (value >= 1 && strcmp(argv[i], "-t") == 0) {
            timeout_ms = (int64_t)value * 1000;
        } else {
            fprintf(stderr, "usage: build_runner [-j JOBS] [-t SECONDS] <COMMANDS\n");
            return 2;
        }
    }
#ifdef _WIN32
    (void)_setmode(_fileno(stdout), _O_BINARY); // The outputs have line ends of their own.
#endif
    read_commands();
    struct pm_error error = PM_ERROR_INIT;
    check(pm_open(NULL, &manager, &error), "pm_open", &error);
    job started[JOBS_MOST];
    int running = 0;
    while (running < jobs && start_job(&started[running])) running++;
    if (running == 0) work();
    while (running > 0) join_job(started[--running]);
    check(pm_close(manager, -1, NULL), "pm_close", &error);
    printf("%d commands, %d failed\n", count, (int)failed);
    for (int i = 0; i < count; i++) free(commands[i]);
    return failed == 0 ? 0 : 1;
}
