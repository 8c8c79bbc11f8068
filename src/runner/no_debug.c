// A runner that was built without the debug server.
#include "runner/debug.h"

int debug_open(struct server *server, struct runner_error *error)
{
    (void)error;
    log_write(server->log, LOG_INFO, "debug.none", NULL, "built without the debug server");
    return RUNNER_OK;
}

void debug_close(struct server *server)
{
    (void)server;
}

const char *debug_address(const struct server *server)
{
    (void)server;
    return "";
}
