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
    // name has to do. Others open it, so `self` will not do, nor will getpid(): the /proc that is
    // here may be that of another pid namespace, where our number is a stranger's. What we are
    // called there it tells itself; one that does not see us has no `self`.
    char number[32];
    ssize_t length = readlink("/proc/self", number, sizeof number);
    if (length > 0 && length < (ssize_t)sizeof number) {
        int size = snprintf(path, capacity, "/proc/%.*s/exe", (int)length, number);
        if (size < 0 || (size_t)size >= capacity) {
            return UV_ENAMETOOLONG;
        }
        if (access(path, X_OK) == 0) {
            return 0;
        }
    }
    return uv_exepath(path, &capacity);
}
