#include "terminal.h"

#include "backend.h"
#include "sys.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

// The other side of a master. Through the master itself where that is possible: the path may be of
// another mount namespace, or of somebody else's terminal.
static int open_slave(int master)
{
#ifdef HAVE_TIOCGPTPEER
    int flags = O_RDWR | O_NOCTTY | O_CLOEXEC;
    int fd = PMI_SYS(ioctl)(master, TIOCGPTPEER, flags);
    if (fd >= 0 || (errno != EINVAL && errno != ENOTTY)) // Before Linux 4.13.
        return pmi_sys_lift(fd, 3);
#endif
#ifdef HAVE_PTSNAME_R
    char name[64];
    int e = PMI_SYS(ptsname_r)(master, name, sizeof(name));
    if (e != 0) {
        errno = e > 0 ? e : errno;
        return -1;
    }
#else
    const char *name = ptsname(master);
    if (name == NULL)
        return -1;
#endif
    return pmi_sys_open(name, O_RDWR | O_NOCTTY, 0);
}

static int open_master(void)
{
    int fd = PMI_SYS(posix_openpt)(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (fd < 0 && errno == EINVAL) { // A system that does not know the last flag here.
        fd = PMI_SYS(posix_openpt)(O_RDWR | O_NOCTTY);
        if (fd >= 0)
            (void)pmi_sys_set_cloexec(fd);
    }
    return pmi_sys_lift(fd, 3);
}

// Bytes are UTF-8 here: so erasing a character takes all of them.
static void set_utf8(int fd)
{
#ifdef IUTF8
    struct termios mode;
    if (PMI_SYS(tcgetattr)(fd, &mode) == 0 && (mode.c_iflag & (tcflag_t)IUTF8) == 0) {
        mode.c_iflag |= (tcflag_t)IUTF8;
        (void)PMI_SYS(tcsetattr)(fd, TCSANOW, &mode);
    }
#else
    (void)fd;
#endif
}

// Both streams of a terminal are one open file: whoever has taken one may have made both block.
bool pmi_pty_is_readable(int master)
{
    struct pollfd in = {.fd = master, .events = POLLIN};
    return pmi_sys_poll(&in, 1, 0) > 0;
}

bool pmi_pty_release_slave(struct pmi_os_process *op)
{
    int fd = atomic_exchange(&op->slave_fd, -1);
    (void)pmi_sys_close(fd);
    return fd >= 0;
}

int pmi_pty_resize(int fd, unsigned columns, unsigned rows)
{
    struct winsize size = {.ws_col = (unsigned short)columns, .ws_row = (unsigned short)rows};
    return PMI_SYS(ioctl)(fd, TIOCSWINSZ, &size) == 0 ? 0 : errno;
}

int pmi_pty_open(unsigned columns, unsigned rows, int *ret_master, int *ret_slave)
{
    int slave = -1, e = 0;
    int master = open_master();
    if (master < 0)
        return errno;
    if (PMI_SYS(grantpt)(master) < 0 || PMI_SYS(unlockpt)(master) < 0 ||
        (slave = open_slave(master)) < 0 || pmi_sys_set_nonblock(master, true) < 0)
        e = errno;
    if (e == 0)
        e = pmi_pty_resize(slave, columns, rows);
    if (e != 0) {
        (void)pmi_sys_close(slave);
        (void)pmi_sys_close(master);
        return e;
    }
    set_utf8(slave);
    *ret_master = master;
    *ret_slave = slave;
    return 0;
}

int pmi_pty_type_end(int master, int *last)
{
    struct termios mode;
    if (PMI_SYS(tcgetattr)(master, &mode) < 0)
        return errno;
    cc_t end = mode.c_cc[VEOF];
    if ((mode.c_lflag & (tcflag_t)ICANON) == 0 || end == (cc_t)_POSIX_VDISABLE)
        return 0;
    for (bool at_begin = false; !at_begin;) {
        at_begin = *last < 0 || *last == '\n' || *last == '\r' || *last == end;
        struct pollfd out = {.fd = master, .events = POLLOUT}; // It may have been made to block.
        if (pmi_sys_poll(&out, 1, 0) == 0)
            return EAGAIN;
        if (pmi_sys_write(master, &end, 1) != 1)
            return errno == EIO ? 0 : errno; // EIO: nobody has it open any more.
        *last = end;
    }
    return 0;
}
