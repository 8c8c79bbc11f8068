#include <stdlib.h>

// The header sees calls by name only.
int pointer(void);
int pointer(void)
{
    int (*volatile run)(const char *) = system;
    return run("exit 0");
}
