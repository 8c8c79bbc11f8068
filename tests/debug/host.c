// A program with a debug server, for tests of the page. It says its address, then does what its
// standard input says, one line at a time, and answers each with a line:
//
//   start HEX [daemon]   starts a child that sleeps, its owner given by bytes in hexadecimal
//   fail                 a start that fails
//   leak                 a start past the library, found by two sweeps (POSIX)
//   collect              waits for it
//   kill                 stops the oldest child by a kill
//
// At the end of its input it stops everything.
#include <processmgr/debug.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <windows.h>
#else
#include <sys/wait.h>
#include <unistd.h>
#endif

static pm_manager *manager;
static const char *self;
static long leaked;

static void nap(void)
{
#ifdef _WIN32
    Sleep(600000);
#else
    (void)sleep(600);
#endif
}

static int start(const char *hex, const char *mode)
{
    static int number;
    char owner[256] = "", key[32];
    size_t size = 0;
    unsigned byte;
    while (size < 255 && sscanf(hex + 2 * size, "%2x", &byte) == 1) {
        owner[size++] = (char)byte;
    }
    const char *argv[] = {self, "--nap", "--password=canary", NULL};
    struct pm_spec spec = PM_SPEC_INIT;
    spec.owner = owner;
    spec.program = self;
    spec.argv = argv;
    spec.stdin_slot.kind = PM_STDIO_NULL;
    spec.stdout_slot.kind = PM_STDIO_NULL;
    if (strcmp(mode, "daemon") == 0) {
        (void)snprintf(key, sizeof key, "key-%d", ++number);
        spec.mode = PM_MODE_DAEMON;
        spec.key = key;
    }
    return pm_spawn(manager, &spec, NULL, NULL);
}

static int fail(void)
{
    struct pm_spec spec = PM_SPEC_INIT;
    spec.owner = "nobody";
    spec.program = "/no/such/program";
    return pm_spawn(manager, &spec, NULL, NULL) != PM_OK ? PM_OK : PM_ERR_EXISTS;
}

static int leak(void)
{
#ifndef _WIN32
    pid_t pid = fork();
    if (pid == 0) {
        _exit(0);
    }
    siginfo_t info;
    (void)waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
    leaked = pid;
    (void)pm_leak_scan(manager, NULL);
#endif
    return pm_leak_scan(manager, NULL);
}

static int collect(void)
{
#ifndef _WIN32
    (void)waitpid((pid_t)leaked, NULL, 0);
#endif
    return pm_leak_scan(manager, NULL);
}

static int first(void *user, pm_process *process)
{
    *(pm_process **)user = pm_process_ref(process);
    return 1;
}

static int kill_oldest(void)
{
    pm_process *process = NULL;
    struct pm_stop_plan plan = {.steps_count = 1, .steps = {{PM_STOP_KILL, PM_SCOPE_TREE, 0}}};
    (void)pm_list(manager, first, &process);
    int result = process != NULL ? pm_process_stop(process, &plan, NULL) : PM_ERR_NOT_FOUND;
    (void)pm_process_unref(process);
    return result;
}

static int obey(char *line)
{
    char command[16] = "", hex[600] = "", mode[16] = "";
    (void)sscanf(line, "%15s %599s %15s", command, hex, mode);
    return strcmp(command, "start") == 0     ? start(hex, mode)
           : strcmp(command, "fail") == 0    ? fail()
           : strcmp(command, "leak") == 0    ? leak()
           : strcmp(command, "collect") == 0 ? collect()
           : strcmp(command, "kill") == 0    ? kill_oldest()
                                             : PM_ERR_INVALID;
}

int main(int argc, char **argv)
{
    pm_launcher_main(argc, argv);
    self = argv[0];
    if (argc > 1 && strcmp(argv[1], "--nap") == 0) {
        nap();
        return 0;
    }
    struct pm_options options = PM_OPTIONS_INIT;
    struct pm_error error = PM_ERROR_INIT;
    options.registry_dir = argc > 1 ? argv[1] : NULL;
    options.leak_sweep_ms = UINT32_MAX;
    struct pm_debug_options debug = PM_DEBUG_OPTIONS_INIT;
    debug.title = argc > 2 ? argv[2] : "debug host";
    debug.show_arguments = argc > 3;
    pm_debug_server *server = NULL;
    if (pm_open(&options, &manager, &error) != PM_OK ||
        pm_debug_server_start(manager, &debug, &server, &error) != PM_OK) {
        char line[1024];
        (void)pm_error_format(&error, line, sizeof line);
        (void)fprintf(stderr, "%s\n", line);
        return 1;
    }
    (void)printf("%s\n", pm_debug_server_address(server));
    (void)fflush(stdout);
    char line[1024];
    while (fgets(line, sizeof line, stdin) != NULL) {
        (void)printf("%s\n", pm_error_name(obey(line)));
        (void)fflush(stdout);
    }
    pm_debug_server_stop(server);
    (void)pm_stop_daemons(manager, -1, NULL, NULL, NULL);
    return pm_close(manager, -1, NULL) == PM_OK ? 0 : 1;
}
