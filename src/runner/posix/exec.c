// The one place that replaces this program: an upgrade keeps the process, so whoever supervises it
// sees no end. Compiled without the guard.
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "runner/os.h"

bool os_has_exec(void)
{
    return true;
}

int os_exec(const char *program, char *const argv[])
{
    (void)execv(program, argv);
    return -errno;
}

int os_own_program(char *path, size_t capacity)
{
    // The file itself, also when it has been replaced or removed. Where there is no such thing its
    // name has to do.
    if (snprintf(path, capacity, "/proc/%ld/exe", (long)getpid()) >= (int)capacity) {
        return UV_ENAMETOOLONG;
    }
    return access(path, X_OK) == 0 ? 0 : uv_exepath(path, &capacity);
}
