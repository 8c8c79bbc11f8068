#include <stdlib.h>

// PM_ALLOW_RAW_SPAWN: this test needs a shell that nobody manages
int exempt(void);
int exempt(void)
{
    return system("exit 0");
}
