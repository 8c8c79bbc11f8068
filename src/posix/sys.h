// Thin wrappers around the system calls that can fail, so that a build for fault tests can put a
// table in their place: it defines PMI_SYS(name) before this header is read. They return what the
// call returns, with errno, and retry EINTR where a retry is right.
//
// Descriptors that are ours are born close-on-exec, and never stay on 0 to 2: a host may have
// closed those, and a child's own standard streams go there.
#ifndef PMI_POSIX_SYS_H
#define PMI_POSIX_SYS_H

#include "pmi_config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#ifdef HAVE_RT_SIGPROCMASK
#include <sys/syscall.h>
#endif
#ifdef HAVE_EVENTFD
#include <sys/eventfd.h>
#endif

#ifndef PMI_SYS
#define PMI_SYS(name) name
#endif

static inline int pmi_sys_close(int fd)
{
    int e = errno;
    if (fd >= 0)
        (void)PMI_SYS(close)(fd); // EINTR: on Linux the descriptor is gone all the same.
    errno = e;
    return -1;
}

static inline int pmi_sys_dup_above(int fd, int floor)
{
    int higher = PMI_SYS(fcntl)(fd, F_DUPFD_CLOEXEC, floor);
    if (higher < 0 && errno == EINVAL)
        errno = EMFILE; // The limit on descriptors is below the floor.
    return higher;
}

// Moves a descriptor of ours to `floor` or higher; closes it when that fails.
static inline int pmi_sys_lift(int fd, int floor)
{
    if (fd < 0 || fd >= floor)
        return fd;
    int higher = pmi_sys_dup_above(fd, floor);
    (void)pmi_sys_close(fd);
    return higher;
}

static inline int pmi_sys_set_cloexec(int fd)
{
    int flags = PMI_SYS(fcntl)(fd, F_GETFD);
    return flags < 0 ? -1 : PMI_SYS(fcntl)(fd, F_SETFD, flags | FD_CLOEXEC);
}

// Only for descriptions that nobody else has: the flag belongs to the open file.
static inline int pmi_sys_set_nonblock(int fd, bool on)
{
    int flags = PMI_SYS(fcntl)(fd, F_GETFL);
    if (flags < 0)
        return -1;
    int wanted = on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
    return wanted == flags ? 0 : PMI_SYS(fcntl)(fd, F_SETFL, wanted);
}

static inline int pmi_sys_open(const char *path, int flags, mode_t mode)
{
    int fd;
    do
        fd = PMI_SYS(open)(path, flags | O_CLOEXEC, mode);
    while (fd < 0 && errno == EINTR);
    return pmi_sys_lift(fd, 3);
}

static inline ssize_t pmi_sys_read(int fd, void *buffer, size_t size)
{
    ssize_t n;
    do
        n = PMI_SYS(read)(fd, buffer, size);
    while (n < 0 && errno == EINTR);
    return n;
}

static inline ssize_t pmi_sys_write(int fd, const void *data, size_t size)
{
    ssize_t n;
    do
        n = PMI_SYS(write)(fd, data, size);
    while (n < 0 && errno == EINTR);
    return n;
}

static inline int pmi_sys_pipe(int ret_fds[2])
{
    int fds[2];
#ifdef HAVE_PIPE2
    if (PMI_SYS(pipe2)(fds, O_CLOEXEC) < 0)
        return -1;
#else
    if (PMI_SYS(pipe)(fds) < 0)
        return -1;
    (void)pmi_sys_set_cloexec(fds[0]);
    (void)pmi_sys_set_cloexec(fds[1]);
#endif
    fds[0] = pmi_sys_lift(fds[0], 3);
    if (fds[0] < 0)
        return pmi_sys_close(fds[1]);
    fds[1] = pmi_sys_lift(fds[1], 3);
    if (fds[1] < 0)
        return pmi_sys_close(fds[0]);
    ret_fds[0] = fds[0];
    ret_fds[1] = fds[1];
    return 0;
}

static inline int pmi_sys_socketpair(int type, int ret_fds[2])
{
    int fds[2];
#ifdef HAVE_SOCK_CLOEXEC
    if (PMI_SYS(socketpair)(AF_UNIX, type | SOCK_CLOEXEC, 0, fds) < 0)
        return -1;
#else
    if (PMI_SYS(socketpair)(AF_UNIX, type, 0, fds) < 0)
        return -1;
    (void)pmi_sys_set_cloexec(fds[0]);
    (void)pmi_sys_set_cloexec(fds[1]);
#endif
    fds[0] = pmi_sys_lift(fds[0], 3);
    if (fds[0] < 0)
        return pmi_sys_close(fds[1]);
    fds[1] = pmi_sys_lift(fds[1], 3);
    if (fds[1] < 0)
        return pmi_sys_close(fds[0]);
    ret_fds[0] = fds[0];
    ret_fds[1] = fds[1];
    return 0;
}

// Retries a mere look. A wait it does not: the caller has a deadline to recompute. One that fails
// at once, for want of memory, takes its millisecond all the same: its callers are loops.
static inline int pmi_sys_poll(struct pollfd *fds, nfds_t count, int timeout_ms)
{
    int n;
    do
        n = PMI_SYS(poll)(fds, count, timeout_ms);
    while (n < 0 && errno == EINTR && timeout_ms == 0);
    if (n < 0 && errno != EINTR) {
        int e = errno;
        (void)PMI_SYS(nanosleep)(&(struct timespec){.tv_nsec = 1000000}, NULL);
        errno = e;
    }
    return n;
}

// Never everybody, and never our own group: no number of ours means that.
static inline int pmi_sys_kill(pid_t pid, int signal_number)
{
    if (pid == -1 || pid == 0) {
        errno = ESRCH;
        return -1;
    }
    return PMI_SYS(kill)(pid, signal_number);
}

static inline int pmi_sys_waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
    int r;
    do
        r = PMI_SYS(waitid)(type, id, info, options);
    while (r < 0 && errno == EINTR);
    return r;
}

static inline ssize_t pmi_sys_sendmsg(int fd, const struct msghdr *message, int flags)
{
    ssize_t n;
    do
        n = PMI_SYS(sendmsg)(fd, message, flags);
    while (n < 0 && errno == EINTR);
    return n;
}

static inline ssize_t pmi_sys_recvmsg(int fd, struct msghdr *message, int flags)
{
    ssize_t n;
    do
        n = PMI_SYS(recvmsg)(fd, message, flags);
    while (n < 0 && errno == EINTR);
    return n;
}

#ifdef HAVE_EVENTFD
static inline int pmi_sys_eventfd(void)
{
    return pmi_sys_lift(PMI_SYS(eventfd)(0, EFD_CLOEXEC | EFD_NONBLOCK), 3);
}
#endif

#if defined(HAVE_RT_SIGPROCMASK) && defined(SYS_waitid)
#define PMI_SYS_HAVE_WAITID_USAGE 1
// The kernel's struct rusage: two pairs of seconds and microseconds, and fourteen numbers of which
// the first is the largest resident set in KiB.
struct pmi_sys_usage {
    long user_s, user_us, system_s, system_us, max_rss, rest[13];
};

// The system call has a parameter that the C library's function hides.
static inline int pmi_sys_waitid_usage(int type, int id, siginfo_t *info, int options,
                                       struct pmi_sys_usage *usage)
{
    int r;
    do
        r = (int)PMI_SYS(syscall)(SYS_waitid, type, id, info, options, usage);
    while (r < 0 && errno == EINTR);
    return r;
}
#endif

#ifdef HAVE_PIDFD
#define PMI_SYS_P_PIDFD 3 // idtype_t of waitid since Linux 5.4; older headers lack it.

static inline int pmi_sys_pidfd_open(pid_t pid)
{
    return pmi_sys_lift((int)PMI_SYS(syscall)(SYS_pidfd_open, pid, 0), 3);
}

// Of pidfd_open(): nobody has this number. A thread may: EINVAL, since Linux 6.16 ENOENT.
static inline bool pmi_sys_is_no_process(int e)
{
    return e == ESRCH || e == EINVAL || e == ENOENT;
}

// Of pidfd_send_signal(): there is no such call, or a seccomp filter, or it is really forbidden, as
// kill() by number will tell. For any other reason nobody is to be signalled by number: EINVAL is
// that the process is of another pid namespace, in which the number is a stranger's.
static inline bool pmi_sys_is_refused(int e)
{
    return e == ENOSYS || e == EPERM;
}

static inline int pmi_sys_pidfd_send_signal(int pidfd, int signal_number, unsigned flags)
{
    return (int)PMI_SYS(syscall)(SYS_pidfd_send_signal, pidfd, signal_number, NULL, flags);
}
#endif

#endif
