#include "kernel.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

bool pmi_kernel_is_at_least(long major, long minor)
{
    struct utsname name;
    if (uname(&name) < 0 || strcmp(name.sysname, "Linux") != 0)
        return false;
    char *end;
    long its_major = strtol(name.release, &end, 10);
    long its_minor = *end == '.' ? strtol(end + 1, NULL, 10) : 0;
    return its_major > major || (its_major == major && its_minor >= minor);
}
