#include <processmgr/debug.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    pm_launcher_main(argc, argv);
    pm_manager *manager = NULL;
    pm_debug_server *server = NULL;
    struct pm_debug_options options = PM_DEBUG_OPTIONS_INIT;
    if (pm_open(NULL, &manager, NULL) != PM_OK) {
        return 1;
    }
    if (pm_debug_server_start(manager, &options, &server, NULL) != PM_OK) {
        return 2;
    }
    bool http = pm_debug_server_address(server)[0] == 'h';
    pm_debug_server_stop(server);
    if (!http || pm_close(manager, -1, NULL) != PM_OK) {
        return 3;
    }
    printf("processmgr %s\n", pm_version());
    return 0;
}
