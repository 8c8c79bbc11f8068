// quickstart PROGRAM [ARGUMENT...]: runs it three times as a child and once as a daemon.
#include <processmgr/processmgr.h>
#include <stdio.h>
#include <stdlib.h>
static struct pm_error error = PM_ERROR_INIT; // What failed, where, and what to look at.

static void check(int result) {
    char line[1024];
    if (result == PM_OK) return;
    pm_error_format(&error, line, sizeof line);
    fprintf(stderr, "quickstart: %s: %s\n", pm_error_name(result), line);
    exit(1);
}
static int show(void *heading, pm_process *process) {
    struct pm_info info = PM_INFO_INIT;
    check(pm_process_info(process, &info));
    return printf("%-16s  %-6s  owner %s, pid %d\n", (char *)heading,
                  info.mode == PM_MODE_DAEMON ? "daemon" : "child", info.owner, (int)info.pid) < 0;
}
int main(int argc, char **argv) {
    pm_launcher_main(argc, argv); // First thing in main: daemons start through this program.
    char *state_dir;
    pm_manager *manager;
    check(pm_default_state_dir("quickstart", &state_dir));
    struct pm_options options = {.size = sizeof options, .registry_dir = state_dir};
    check(pm_open(&options, &manager, &error));
    struct pm_spec spec = {.size = sizeof spec, .owner = "quickstart", .program = argv[1]};
    spec.argv = (const char *const *)&argv[1];
    spec.stdin_slot.kind = spec.stdout_slot.kind = PM_STDIO_NULL;
    for (int i = 0; i < 3; i++) check(pm_spawn(manager, &spec, NULL, &error));
    spec.mode = PM_MODE_DAEMON;
    spec.key = "quickstart-daemon"; // Unique in state_dir: a later run finds the daemon by it.
    check(pm_spawn(manager, &spec, NULL, &error));
    check(pm_list(manager, show, "running"));
    check(pm_stop_all(manager, -1, NULL, NULL, NULL)); // Stops everything but daemons.
    check(pm_list(manager, show, "after stop_all"));
    check(pm_stop_daemons(manager, -1, NULL, NULL, NULL)); // And now the daemon.
    check(pm_close(manager, -1, NULL));
    pm_free(state_dir);
}
