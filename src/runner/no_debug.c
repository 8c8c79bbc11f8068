// A runner that was built without the debug server.
#include "runner/debug.h"

void debug_open(struct server *server)
{
    log_write(server->log, LOG_INFO, "debug.none", NULL, "built without the debug server");
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
