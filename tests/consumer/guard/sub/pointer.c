#include <stdlib.h>

// PM_ALLOW_RAW_SPAWN: the twin of pointer.c, which has no such line.
int other_pointer(void);
int other_pointer(void)
{
    return system("exit 0");
}
