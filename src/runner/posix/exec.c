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
#ifdef __linux__
    // The file itself, also when it has been replaced or removed.
    return snprintf(path, capacity, "/proc/%ld/exe", (long)getpid()) < (int)capacity
               ? 0
               : UV_ENAMETOOLONG;
#else
    return uv_exepath(path, &capacity);
#endif
}
