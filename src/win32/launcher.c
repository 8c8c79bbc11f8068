#include "backend.h"

// Daemons need no launcher here; the call is accepted so that programs are written once.
void pmi_os_launcher_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
}
