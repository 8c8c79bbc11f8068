// Preloaded into a holder: what libuv writes to connections goes wrong in every way that passes.
// The calls are its own, so no wrapper of ours can stand around them. Of four writes to a socket
// one finds no room, one no memory for buffers, one is cut short, and one goes well.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static unsigned number;

enum fate {
    WELL,
    SHORT,
    FAILS
};

static enum fate fate_of(int fd)
{
    int type, flags = fcntl(fd, F_GETFL);
    socklen_t size = sizeof type;
    // The library's own sockets are blocking.
    if (flags < 0 || (flags & O_NONBLOCK) == 0 ||
        getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0) {
        return WELL;
    }
    // A multiplicative step: no two writes in a row meet the same for long.
    number = number * 1103515245u + 12345u;
    switch (number >> 16 & 3) {
    case 0:
        errno = EAGAIN;
        return FAILS;
    case 1:
        errno = ENOBUFS;
        return FAILS;
    case 2:
        return SHORT;
    default:
        return WELL;
    }
}

ssize_t write(int fd, const void *data, size_t size)
{
    static ssize_t (*real)(int, const void *, size_t);
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "write");
    }
    enum fate fate = fate_of(fd);
    return fate == FAILS ? -1 : real(fd, data, fate == SHORT && size > 1 ? size / 2 : size);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    static ssize_t (*real)(int, const struct iovec *, int);
    if (real == NULL) {
        *(void **)&real = dlsym(RTLD_NEXT, "writev");
    }
    enum fate fate = fate_of(fd);
    return fate == FAILS ? -1 : real(fd, parts, fate == SHORT && count > 1 ? 1 : count);
}
