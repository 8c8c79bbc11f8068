#include <stdlib.h>

// PM_ALLOW_RAW_SPAWN:
int exempt(void);
int exempt(void)
{
    return system("exit 0");
}
