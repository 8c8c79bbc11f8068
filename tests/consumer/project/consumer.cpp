#include <cstdio>
#include <cstring>
#include <processmgr/processmgr.h>

int main(int argc, char **argv)
{
    pm_launcher_main(argc, argv);
    pm_manager *manager = nullptr;
    struct pm_options options = PM_OPTIONS_INIT;
    struct pm_error error = PM_ERROR_INIT;
    if (strcmp(pm_version(), PM_VERSION_STRING) != 0) {
        return 1;
    }
    if (pm_open(&options, &manager, &error) != PM_OK) {
        return 2;
    }
    if (pm_close(manager, -1, nullptr) != PM_OK) {
        return 3;
    }
    printf("processmgr %s\n", pm_version());
    return 0;
}
