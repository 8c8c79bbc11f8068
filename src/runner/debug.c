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

void debug_open(struct server *server)
{
    struct pm_debug_options options = PM_DEBUG_OPTIONS_INIT;
    struct pm_error error = PM_ERROR_INIT;
    char address[OS_DEBUG_ADDRESS_MAX], line[1024];
    size_t size = sizeof address;
    if (uv_os_getenv(DEBUG_ADDRESS_ENV, address, &size) != 0 || address[0] == '\0') {
        os_debug_address(server->env->state_dir, address, sizeof address);
    }
    if (strcmp(address, "off") == 0) {
        return;
    }
    options.address = address;
    options.title = "runner";
    options.metrics = add_metrics;
    options.user = server;
    if (pm_debug_server_start(server->manager, &options, &server->debug, &error) != PM_OK) {
        (void)pm_error_format(&error, line, sizeof line);
        log_write(server->log, LOG_WARNING, "debug.failed", NULL, "address '%s': %s", address,
                  line);
        return;
    }
    log_write(server->log, LOG_INFO, "debug.serving", NULL, "%s", debug_address(server));
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
