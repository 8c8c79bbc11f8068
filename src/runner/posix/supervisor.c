// What systemd is told, as sd_notify(3) does it: one datagram to the socket that the environment
// names. A start by anybody else names none.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "runner/os.h"

#ifdef SOCK_CLOEXEC // From birth: others may start programs at this moment.
#define SOCKET_TYPE (SOCK_DGRAM | SOCK_CLOEXEC)
#else
#define SOCKET_TYPE SOCK_DGRAM
#endif

static char address[sizeof((struct sockaddr_un *)NULL)->sun_path]; // "": none.

void os_supervisor_take(void)
{
    size_t size = sizeof address;
    if (uv_os_getenv(NOTIFY_ENV, address, &size) != 0 || (address[0] != '/' && address[0] != '@')) {
        address[0] = '\0'; // Other kinds are of machines, which have init as their main process.
    }
    (void)uv_os_unsetenv(NOTIFY_ENV);
}

void os_supervisor_give(void)
{
    if (address[0] != '\0') {
        (void)uv_os_setenv(NOTIFY_ENV, address);
    }
}

void os_supervisor_tell(const char *text)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t length = strlen(address);
    if (length == 0) {
        return;
    }
    int fd = socket(AF_UNIX, SOCKET_TYPE, 0);
    if (fd < 0) {
        return;
    }
    os_keep_at_exec((pm_native)fd, false);
    memcpy(to.sun_path, address, length);
    if (address[0] == '@') { // A name of no file.
        to.sun_path[0] = '\0';
    }
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    (void)sendto(fd, text, strlen(text), MSG_DONTWAIT, (const struct sockaddr *)&to, size);
    (void)close(fd);
}
