#include "runner/debug.h"

#include <processmgr/debug.h>
#include <stdio.h>
#include <string.h>

// On the thread of the debug server.
static void add_metrics(void *user, pm_debug_metrics *out)
{
    struct server *server = user;
    struct pm_stats stats = PM_STATS_INIT;
    if (pm_stats(server->manager, &stats) == PM_OK) {
        (void)pm_debug_metrics_add(out, "runner_zombie_reaped_total", PM_DEBUG_COUNTER,
                                   "Zombies of the runner that nobody tracked, found and reaped. "
                                   "Should be 0 for ever.",
                                   (double)stats.leaked_reaped);
    }
}

// Told to who has started the runner by hand; one that starts by itself has its log alone.
static int refused(struct server *server, const char *address, int result, const char *line,
                   struct runner_error *error)
{
    log_write(server->log, LOG_WARNING, "debug.failed", NULL, "address '%s': %s", address, line);
    if (!server->env->by_hand) {
        return RUNNER_OK;
    }
    if (result == PM_ERR_INVALID) { // It does not pass, and who typed it is there.
        return runner_fail(error, RUNNER_USAGE, "debug address '%s'\n%s\nrunner serve --help",
                           address, line);
    }
    (void)fprintf(stderr, "runner: warning: no debug page: address '%s': %s\n", address, line);
    return RUNNER_OK;
}

int debug_open(struct server *server, struct runner_error *error)
{
    struct pm_debug_options options = PM_DEBUG_OPTIONS_INIT;
    struct pm_error detail = PM_ERROR_INIT;
    char address[OS_DEBUG_ADDRESS_MAX], line[1024];
    size_t size = sizeof address;
    if (uv_os_getenv(DEBUG_ADDRESS_ENV, address, &size) != 0 || address[0] == '\0') {
        os_debug_address(server->env->state_dir, address, sizeof address);
    }
    if (strcmp(address, "off") == 0) {
        return RUNNER_OK;
    }
    options.address = address;
    options.title = "runner";
    options.metrics = add_metrics;
    options.user = server;
    int result = pm_debug_server_start(server->manager, &options, &server->debug, &detail);
    if (result != PM_OK) {
        (void)pm_error_format(&detail, line, sizeof line);
        return refused(server, address, result, line, error);
    }
    log_write(server->log, LOG_INFO, "debug.serving", NULL, "%s", debug_address(server));
    return RUNNER_OK;
}

void debug_close(struct server *server)
{
    pm_debug_server_stop(server->debug);
    server->debug = NULL;
}

const char *debug_address(const struct server *server)
{
    return pm_debug_server_address(server->debug);
}
