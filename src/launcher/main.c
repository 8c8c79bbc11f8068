// processmgr-launcher: the launcher for programs that do not call pm_launcher_main().
#include <processmgr/processmgr.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    pm_launcher_main(argc, argv);
    (void)fprintf(stderr,
                  "processmgr-launcher %s: the library starts this program by itself, to "
                  "detach daemons; it does nothing when called by hand\n",
                  pm_version());
    return 2;
}
