// A table of thin wrappers; the child between birth and exec calls some of them in the memory of
// its starter, so they do nothing but count, compare, and call.
#include "fault.h"

#include <stdatomic.h>

#include "guards.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

// ------------------------------------------------------------------------------------------------
// What is asked for
// ------------------------------------------------------------------------------------------------

struct state {
    atomic_int armed; // enum pm_fault_mode + 1; 0 = not.
    atomic_int calls;
    int target, variant;
    atomic_int fired;
    atomic_int error;
    int variants;
    char name[32], spinning[32];
    atomic_int tables, kills;
};

#define SPINNING 50000

static struct state own_state;
static struct state *state = &own_state;
static atomic_long blocks, mappings;

static _Atomic uint64_t own_hits[PM_FAULT_HITS];
static _Atomic uint64_t *hits = own_hits;
static enum pm_fault_hit signal_hit = PM_FAULT_HIT_SIGNAL;

static unsigned eintr_every;
static _Atomic uint64_t eintr_count;
static bool clock_jumps;
static char denied_list[128] = ",";
static char without[32];
static char held[32], held_until[256];

static void take_note(int signal_number)
{
    (void)signal_number;
    atomic_fetch_add(&hits[signal_hit], 1);
}

// For this process alone.
static void begin_storm(const char *storm)
{
    struct sigaction action = {.sa_handler = take_note}; // No SA_RESTART.
    const struct itimerval rhythm = {.it_interval = {.tv_usec = 1000},
                                     .it_value = {.tv_usec = 1000}};
    if (strcmp(storm, "0") == 0)
        return;
    if (strcmp(storm, "2") == 0)
        signal_hit = PM_FAULT_HIT_STAGED;
    (void)setenv("PM_FAULT_STORM", "0", 1);
    (void)sigaction(SIGALRM, &action, NULL);
    (void)setitimer(ITIMER_REAL, &rhythm, NULL);
}

void pm_fault_deny(const char *names)
{
    (void)snprintf(denied_list, sizeof(denied_list), ",%s,", names);
}

void pm_fault_hold(const char *name, const char *path)
{
    (void)snprintf(held, sizeof(held), "%s", name);
    (void)snprintf(held_until, sizeof(held_until), "%s", path);
}

// A file that others count in as well; `own` where there is none.
static void *map_named(const char *variable, size_t size, void *own)
{
    const char *path = getenv(variable);
    int fd = path != NULL ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return own;
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    return memory != MAP_FAILED ? memory : own;
}

// Before main(): the launcher's own entry is the first thing there.
__attribute__((constructor)) static void read_environment(void)
{
    const char *text;
    state = map_named("PM_FAULT_STATE", sizeof(*state), &own_state);
    hits = map_named("PM_FAULT_HITS", sizeof(own_hits), own_hits);
    if ((text = getenv("PM_FAULT_EINTR")) != NULL)
        eintr_every = (unsigned)atoi(text);
    if ((text = getenv("PM_FAULT_STORM")) != NULL)
        begin_storm(text);
    clock_jumps = getenv("PM_FAULT_CLOCK") != NULL;
    if ((text = getenv("PM_FAULT_DENY")) != NULL)
        pm_fault_deny(text);
    if ((text = getenv("PM_FAULT_WITHOUT")) != NULL)
        (void)snprintf(without, sizeof(without), "%s", text);
}

bool pmi_fault_without(const char *guard)
{
    if (strcmp(without, guard) != 0)
        return false;
    // Asked before and after the moment that the lock is there for: it is to be long enough.
    if (strcmp(guard, "reap lock") == 0)
        (void)poll(NULL, 0, 1);
    return true;
}

void pm_fault_arm(enum pm_fault_mode mode, int target, int variant)
{
    pm_fault_disarm();
    state->target = target;
    state->variant = variant;
    state->variants = 0;
    state->name[0] = '\0';
    atomic_store(&state->error, 0);
    atomic_store(&state->fired, 0);
    atomic_store(&state->calls, 0);
    atomic_store(&state->tables, 0);
    atomic_store(&state->kills, 0);
    atomic_store(&state->armed, (int)mode + 1);
}

void pm_fault_disarm(void)
{
    atomic_store(&state->armed, 0);
}

struct pm_fault_report pm_fault_report(void)
{
    struct pm_fault_report report = {.calls = atomic_load(&state->calls),
                                     .fired = atomic_load(&state->fired) != 0,
                                     .error = atomic_load(&state->error),
                                     .variants = state->variants,
                                     .tables = atomic_load(&state->tables),
                                     .kills = atomic_load(&state->kills)};
    memcpy(report.name, state->name, sizeof(report.name));
    memcpy(report.spinning, state->spinning, sizeof(report.spinning));
    return report;
}

long pm_fault_blocks(void)
{
    return atomic_load(&blocks);
}

long pm_fault_mappings(void)
{
    return atomic_load(&mappings);
}

// ------------------------------------------------------------------------------------------------
// Decisions
// ------------------------------------------------------------------------------------------------

static bool is_denied(const char *name)
{
    size_t length = strlen(name);
    for (const char *at = denied_list; (at = strstr(at, name)) != NULL; at++)
        if (at[-1] == ',' && at[length] == ',')
            return true;
    return false;
}

static void hold(const char *name)
{
    for (int i = 0; strcmp(held, name) == 0 && access(held_until, F_OK) != 0 && i < 10000; i++)
        (void)poll(NULL, 0, 1);
}

static bool lists(const int *errors, int count, int error)
{
    for (int i = 0; i < count; i++)
        if (errors[i] == error)
            return true;
    return false;
}

static void copy_name(char to[32], const char *name)
{
    size_t length = strnlen(name, 31);
    memcpy(to, name, length);
    to[length] = '\0';
}

// True: the call must fail, errno says how.
static bool fails(const char *name, const int *errors, int count)
{
    int mode = atomic_load(&state->armed);
    if (denied_list[1] != '\0' && is_denied(name)) {
        hold(name);
        errno = ENOSYS;
        return true;
    }
    if (mode == 0)
        return false;
    int number = atomic_fetch_add(&state->calls, 1) + 1;
    if (number == SPINNING)
        copy_name(state->spinning, name);
    if (mode == PM_FAULT_COUNT + 1 || number < state->target)
        return false;
    if (number == state->target) {
        state->variants = count;
        if (state->variant >= count)
            return false;
        copy_name(state->name, name);
        atomic_store(&state->error, errors[state->variant]);
        atomic_store(&state->fired, 1);
        errno = errors[state->variant];
        return true;
    }
    int error = atomic_load(&state->error);
    if (mode != PM_FAULT_STICKY + 1 || error == 0 || error == EINTR || !lists(errors, count, error))
        return false;
    errno = error;
    return true;
}

#define ERRORS(...)                                                                                \
    (const int[]){__VA_ARGS__}, (int)(sizeof((const int[]){__VA_ARGS__}) / sizeof(int))
#define FAILS(name, ...) fails(#name, ERRORS(__VA_ARGS__))

// A call that a signal may interrupt: one of N is. Scattered, because a loop of N such calls a turn
// would be interrupted at the same one for ever, and if that is its wait it spins.
static bool is_interrupted(void)
{
    if (eintr_every == 0)
        return false;
    uint64_t n = atomic_fetch_add(&eintr_count, 1) + 1;
    uint64_t mixed = (n * UINT64_C(0x9E3779B97F4A7C15)) >> 32;
    if (mixed % eintr_every != 0)
        return false;
    atomic_fetch_add(&hits[PM_FAULT_HIT_CALL], 1);
    errno = EINTR;
    return true;
}

#define WRAP(type, failure, name, parameters, arguments, ...)                                      \
    type pmi_fault_##name parameters;                                                              \
    type pmi_fault_##name parameters                                                               \
    {                                                                                              \
        return FAILS(name, __VA_ARGS__) ? (failure) : name arguments;                              \
    }

#define WRAP_INTERRUPTIBLE(type, failure, name, parameters, arguments, ...)                        \
    type pmi_fault_##name parameters;                                                              \
    type pmi_fault_##name parameters                                                               \
    {                                                                                              \
        return is_interrupted() || FAILS(name, __VA_ARGS__) ? (failure) : name arguments;          \
    }

static int cloexec(int flags, int flag)
{
    return pmi_fault_without("cloexec") ? flags & ~flag : flags;
}

// ------------------------------------------------------------------------------------------------
// Memory
// ------------------------------------------------------------------------------------------------

static void *counted(void *block)
{
    if (block != NULL)
        atomic_fetch_add(&blocks, 1);
    return block;
}

#define WRAP_ALLOCATION(name, parameters, arguments)                                               \
    void *pmi_fault_##name parameters;                                                             \
    void *pmi_fault_##name parameters                                                              \
    {                                                                                              \
        return FAILS(name, ENOMEM) ? NULL : counted(name arguments);                               \
    }

WRAP_ALLOCATION(malloc, (size_t size), (size))
WRAP_ALLOCATION(calloc, (size_t count, size_t size), (count, size))
WRAP_ALLOCATION(strdup, (const char *text), (text))

void *pmi_fault_realloc(void *block, size_t size);
void *pmi_fault_realloc(void *block, size_t size)
{
    if (FAILS(realloc, ENOMEM))
        return NULL;
    return block == NULL ? counted(malloc(size)) : realloc(block, size);
}

void pmi_fault_free(void *block);
void pmi_fault_free(void *block)
{
    if (block != NULL)
        atomic_fetch_sub(&blocks, 1);
    free(block);
}

void *pmi_fault_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset);
void *pmi_fault_mmap(void *at, size_t size, int protection, int flags, int fd, off_t offset)
{
    if (FAILS(mmap, ENOMEM))
        return MAP_FAILED;
    void *made = mmap(at, size, protection, flags, fd, offset);
    if (made != MAP_FAILED)
        atomic_fetch_add(&mappings, 1);
    return made;
}

int pmi_fault_munmap(void *at, size_t size);
int pmi_fault_munmap(void *at, size_t size)
{
    int result = munmap(at, size);
    if (result == 0)
        atomic_fetch_sub(&mappings, 1);
    return result;
}

WRAP(int, -1, madvise, (void *at, size_t size, int advice), (at, size, advice), EINVAL)

// ------------------------------------------------------------------------------------------------
// Descriptors and files
// ------------------------------------------------------------------------------------------------

int pmi_fault_open(const char *path, int flags, ...);
int pmi_fault_open(const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    mode_t mode = va_arg(list, mode_t);
    va_end(list);
    if (is_interrupted() || FAILS(open, EMFILE, ENFILE, ENOMEM, EACCES))
        return -1;
    return open(path, cloexec(flags, O_CLOEXEC), mode);
}

int pmi_fault_openat(int dir, const char *path, int flags, ...);
int pmi_fault_openat(int dir, const char *path, int flags, ...)
{
    va_list list;
    va_start(list, flags);
    mode_t mode = va_arg(list, mode_t);
    va_end(list);
    if (is_interrupted())
        return -1;
    if ((flags & O_CREAT) != 0 ? FAILS(openat, EMFILE, ENOMEM, ENOSPC, EACCES)
                               : FAILS(openat, EMFILE, ENOMEM, EIO))
        return -1;
    return openat(dir, path, cloexec(flags, O_CLOEXEC), mode);
}

int pmi_fault_fcntl(int fd, int command, ...);
int pmi_fault_fcntl(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    long argument = va_arg(list, long);
    va_end(list);
    if (command != F_DUPFD_CLOEXEC)
        return fcntl(fd, command, argument);
    if (FAILS(fcntl, EMFILE))
        return -1;
    return fcntl(fd, pmi_fault_without("cloexec") ? F_DUPFD : F_DUPFD_CLOEXEC, argument);
}

struct dirent *pmi_fault_readdir(DIR *dir);
struct dirent *pmi_fault_readdir(DIR *dir)
{
    // Where few processes are a look takes no time, and nobody new comes meanwhile.
    if (pmi_fault_without("complete looks"))
        (void)nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    return FAILS(readdir, EIO) ? NULL : readdir(dir);
}

// Pipes, sockets and counters in memory have no errors of a disk.
static bool is_on_disk(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode);
}

ssize_t pmi_fault_read(int fd, void *buffer, size_t size);
ssize_t pmi_fault_read(int fd, void *buffer, size_t size)
{
    if (is_interrupted() || (is_on_disk(fd) ? FAILS(read, EINTR, EIO) : FAILS(read, EINTR)))
        return -1;
    return read(fd, buffer, size);
}

ssize_t pmi_fault_write(int fd, const void *data, size_t size);
ssize_t pmi_fault_write(int fd, const void *data, size_t size)
{
    struct stat st;
    if (is_interrupted())
        return -1;
    // Whoever is at the other end of a socket may be gone; the signal of it is blocked there.
    bool to_socket = fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
    if (is_on_disk(fd) ? FAILS(write, EINTR, EIO, ENOSPC)
        : to_socket    ? FAILS(write, EINTR, EPIPE)
                       : FAILS(write, EINTR))
        return -1;
    return write(fd, data, size);
}

// Of a file on a disk. The others have nothing that could fail.
int pmi_fault_fstat(int fd, struct stat *st);
int pmi_fault_fstat(int fd, struct stat *st)
{
    int result = fstat(fd, st);
    return result == 0 && (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)) && FAILS(fstat, EIO)
               ? -1
               : result;
}

// The descriptor is gone whatever the call says.
int pmi_fault_close(int fd);
int pmi_fault_close(int fd)
{
    int result = close(fd), e = errno;
    if (FAILS(close, EINTR, EIO))
        return -1;
    errno = e;
    return result;
}

WRAP(int, -1, pipe2, (int fds[2], int flags), (fds, cloexec(flags, O_CLOEXEC)), EMFILE, ENFILE)
WRAP(int, -1, dup3, (int from, int to, int flags), (from, to, cloexec(flags, O_CLOEXEC)), EBUSY)
WRAP(int, -1, socketpair, (int domain, int type, int protocol, int fds[2]),
     (domain, cloexec(type, SOCK_CLOEXEC), protocol, fds), EMFILE, ENFILE, ENOMEM)
WRAP(int, -1, setsockopt, (int fd, int level, int name, const void *value, socklen_t size),
     (fd, level, name, value, size), ENOMEM)
WRAP(int, -1, eventfd, (unsigned value, int flags), (value, cloexec(flags, EFD_CLOEXEC)), EMFILE,
     ENFILE, ENOMEM)
WRAP(int, -1, epoll_create1, (int flags), (cloexec(flags, EPOLL_CLOEXEC)), EMFILE, ENFILE, ENOMEM)
WRAP(int, -1, memfd_create, (const char *name, unsigned flags), (name, flags), EMFILE, ENOMEM,
     ENOSYS)
WRAP(int, -1, mkostemp, (char *name, int flags), (name, flags), EMFILE, ENOSPC, EACCES)

DIR *pmi_fault_opendir(const char *path);
DIR *pmi_fault_opendir(const char *path)
{
    if (strcmp(path, "/proc") == 0)
        atomic_fetch_add(&state->tables, 1);
    return FAILS(opendir, EMFILE, ENOMEM) ? NULL : opendir(path);
}

WRAP(DIR *, NULL, fdopendir, (int fd), (fd), ENOMEM)
WRAP(int, -1, access, (const char *path, int mode), (path, mode), EACCES)
WRAP(int, -1, faccessat, (int dir, const char *path, int mode, int flags), (dir, path, mode, flags),
     EACCES, ENOMEM)
WRAP(int, -1, stat, (const char *path, struct stat *st), (path, st), EACCES, EIO)
WRAP(int, -1, fstatat, (int dir, const char *path, struct stat *st, int flags),
     (dir, path, st, flags), EIO)
WRAP(int, -1, fstatfs, (int fd, struct statfs *fs), (fd, fs), ENOSYS)
WRAP(int, -1, fchmod, (int fd, mode_t mode), (fd, mode), EPERM)
WRAP(int, -1, fchmodat, (int dir, const char *path, mode_t mode, int flags),
     (dir, path, mode, flags), EPERM)
WRAP(int, -1, mkdir, (const char *path, mode_t mode), (path, mode), ENOSPC, EACCES)
WRAP(int, -1, mkdirat, (int dir, const char *path, mode_t mode), (dir, path, mode), ENOSPC, EACCES)
WRAP(int, -1, unlink, (const char *path), (path), EACCES)
WRAP(int, -1, unlinkat, (int dir, const char *path, int flags), (dir, path, flags), EACCES, EIO)
WRAP(int, -1, renameat, (int from_dir, const char *from, int to_dir, const char *to),
     (from_dir, from, to_dir, to), ENOSPC, EIO)
WRAP(int, -1, ftruncate, (int fd, off_t size), (fd, size), EIO)
WRAP(int, -1, fsync, (int fd), (fd), EIO, ENOSPC)
WRAP(char *, NULL, getcwd, (char *buffer, size_t size), (buffer, size), ENOENT, ENOMEM)
WRAP_INTERRUPTIBLE(ssize_t, -1, getrandom, (void *buffer, size_t size, unsigned flags),
                   (buffer, size, flags), EINTR, ENOSYS)
WRAP_INTERRUPTIBLE(int, -1, flock, (int fd, int operation), (fd, operation), ENOLCK, EINTR)
WRAP_INTERRUPTIBLE(ssize_t, -1, pread, (int fd, void *buffer, size_t size, off_t at),
                   (fd, buffer, size, at), EINTR, EIO)
WRAP_INTERRUPTIBLE(ssize_t, -1, sendmsg, (int fd, const struct msghdr *message, int flags),
                   (fd, message, flags), EINTR, ENOBUFS, ENOMEM)
WRAP_INTERRUPTIBLE(ssize_t, -1, recvmsg, (int fd, struct msghdr *message, int flags),
                   (fd, message, flags), EINTR, ENOMEM)

// The kernel needs memory for this for many descriptors only: up to 30 it has it on its stack.
int pmi_fault_poll(struct pollfd *fds, nfds_t count, int timeout);
int pmi_fault_poll(struct pollfd *fds, nfds_t count, int timeout)
{
    if (is_interrupted() || (count > 30 ? FAILS(poll, EINTR, ENOMEM) : FAILS(poll, EINTR)))
        return -1;
    return poll(fds, count, timeout);
}

WRAP_INTERRUPTIBLE(int, -1, epoll_wait,
                   (int fd, struct epoll_event *events, int count, int timeout),
                   (fd, events, count, timeout), EINTR)

int pmi_fault_epoll_ctl(int fd, int operation, int target, struct epoll_event *event);
int pmi_fault_epoll_ctl(int fd, int operation, int target, struct epoll_event *event)
{
    if (operation == EPOLL_CTL_ADD && FAILS(epoll_ctl, ENOMEM, ENOSPC))
        return -1;
    return epoll_ctl(fd, operation, target, event);
}

int pmi_fault_getpwuid_r(uid_t uid, struct passwd *entry, char *buffer, size_t size,
                         struct passwd **result);
int pmi_fault_getpwuid_r(uid_t uid, struct passwd *entry, char *buffer, size_t size,
                         struct passwd **result)
{
    *result = NULL;
    return FAILS(getpwuid_r, EIO, ENOMEM) ? errno : getpwuid_r(uid, entry, buffer, size, result);
}

int pmi_fault_getpwnam_r(const char *name, struct passwd *entry, char *buffer, size_t size,
                         struct passwd **result);
int pmi_fault_getpwnam_r(const char *name, struct passwd *entry, char *buffer, size_t size,
                         struct passwd **result)
{
    *result = NULL;
    return FAILS(getpwnam_r, EIO, ENOMEM, EMFILE, EINTR)
               ? errno
               : getpwnam_r(name, entry, buffer, size, result);
}

int pmi_fault_getgrnam_r(const char *name, struct group *entry, char *buffer, size_t size,
                         struct group **result);
int pmi_fault_getgrnam_r(const char *name, struct group *entry, char *buffer, size_t size,
                         struct group **result)
{
    *result = NULL;
    return FAILS(getgrnam_r, EIO, ENOMEM, EMFILE, EINTR)
               ? errno
               : getgrnam_r(name, entry, buffer, size, result);
}

// ------------------------------------------------------------------------------------------------
// Terminals
// ------------------------------------------------------------------------------------------------

WRAP(int, -1, posix_openpt, (int flags), (flags), EAGAIN, ENOSPC, EMFILE, ENFILE, ENOENT)
WRAP(int, -1, grantpt, (int fd), (fd), EACCES)
WRAP(int, -1, unlockpt, (int fd), (fd), EINVAL)
WRAP(int, -1, tcgetattr, (int fd, struct termios *mode), (fd, mode), EIO)
WRAP(int, -1, tcsetattr, (int fd, int when, const struct termios *mode), (fd, when, mode), EIO)
WRAP(pid_t, -1, tcgetpgrp, (int fd), (fd), ENOTTY)
WRAP(pid_t, -1, tcgetsid, (int fd), (fd), ENOTTY)
WRAP(int, -1, tcsetpgrp, (int fd, pid_t group), (fd, group), EPERM)
WRAP(int, -1, fchown, (int fd, uid_t user, gid_t group), (fd, user, group), EPERM, EROFS)

int pmi_fault_ptsname_r(int fd, char *name, size_t size);
int pmi_fault_ptsname_r(int fd, char *name, size_t size)
{
    return FAILS(ptsname_r, ENOTTY) ? errno : ptsname_r(fd, name, size);
}

int pmi_fault_ioctl(int fd, unsigned long request, ...);
int pmi_fault_ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    va_start(list, request);
    void *argument = va_arg(list, void *);
    va_end(list);
    return FAILS(ioctl, ENOTTY) ? -1 : ioctl(fd, request, argument);
}

// ------------------------------------------------------------------------------------------------
// Time
// ------------------------------------------------------------------------------------------------

int pmi_fault_clock_gettime(clockid_t clock, struct timespec *ts);
int pmi_fault_clock_gettime(clockid_t clock, struct timespec *ts)
{
    struct timespec now;
    bool monotonic = clock == CLOCK_MONOTONIC;
    if (monotonic && pmi_fault_without("monotonic clock"))
        clock = CLOCK_REALTIME;
    int result = clock_gettime(clock, ts);
    if (clock_jumps && clock == CLOCK_REALTIME && result == 0 &&
        clock_gettime(CLOCK_MONOTONIC, &now) == 0) {
        atomic_fetch_add(&hits[PM_FAULT_HIT_CLOCK], 1);
        ts->tv_sec += now.tv_nsec / 50000000 % 2 == 0 ? 3600 : -3600;
    }
    return result;
}

int pmi_fault_nanosleep(const struct timespec *time, struct timespec *rest);
int pmi_fault_nanosleep(const struct timespec *time, struct timespec *rest)
{
    if (is_interrupted() || FAILS(nanosleep, EINTR)) {
        if (rest != NULL)
            *rest = *time;
        return -1;
    }
    return nanosleep(time, rest);
}

// ------------------------------------------------------------------------------------------------
// Threads and processes
// ------------------------------------------------------------------------------------------------

int pmi_fault_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                             void *(*run)(void *), void *argument);
int pmi_fault_pthread_create(pthread_t *thread, const pthread_attr_t *attributes,
                             void *(*run)(void *), void *argument)
{
    return FAILS(pthread_create, EAGAIN) ? errno
                                         : pthread_create(thread, attributes, run, argument);
}

WRAP(pid_t, -1, fork, (void), (), EAGAIN, ENOMEM)
WRAP(pid_t, -1, setsid, (void), (), EPERM)
WRAP(int, -1, setrlimit, (__rlimit_resource_t resource, const struct rlimit *limit),
     (resource, limit), EPERM)

int pmi_fault_clone(int (*run)(void *), void *stack, int flags, void *argument, ...);
int pmi_fault_clone(int (*run)(void *), void *stack, int flags, void *argument, ...)
{
    va_list list;
    va_start(list, argument);
    pid_t *parent_tid = va_arg(list, pid_t *);
    void *tls = va_arg(list, void *);
    pid_t *child_tid = va_arg(list, pid_t *);
    va_end(list);
    if (FAILS(clone, EAGAIN, ENOMEM, EPERM, ENOSYS, EINVAL))
        return -1;
    return clone(run, stack, flags, argument, parent_tid, tls, child_tid);
}

#ifdef PM_FAULT_COVERAGE // PROCESSMGR_FAULT_COVERAGE
extern void __gcov_dump(void);
extern void __gcov_reset(void);
#endif

static void keep_coverage(void)
{
#ifdef PM_FAULT_COVERAGE
    // A child may have our memory: without the reset the process behind it would dump no more.
    __gcov_dump();
    __gcov_reset();
#endif
}

void pm_fault_leave(void)
{
    keep_coverage();
    _exit(0);
}

void pmi_fault__exit(int code);
void pmi_fault__exit(int code)
{
    keep_coverage();
    if (pmi_fault_without("_exit"))
        exit(code);
    _exit(code);
}

// Our own child without its leave: kill() fails for a stranger only.
int pmi_fault_kill(pid_t pid, int signal_number);
int pmi_fault_kill(pid_t pid, int signal_number)
{
    if (signal_number == SIGCONT && pmi_fault_without("SIGCONT"))
        return 0;
    if (signal_number != 0)
        atomic_fetch_add(&state->kills, 1);
    return kill(pid, signal_number);
}

int pmi_fault_waitid(idtype_t type, id_t id, siginfo_t *info, int options);
int pmi_fault_waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
    if (is_interrupted() || FAILS(waitid, EINTR))
        return -1;
    return waitid(pmi_fault_without("own wait") ? P_ALL : type, id, info, options);
}

// What the library asks of the kernel by number. Each that it names is a case here, or stands as
// safe in symbols.txt: Symbols.CallsByNumberAreAllKnown.
static bool syscall_fails(long number, const long a[6])
{
    switch (number) {
    case SYS_pidfd_open:
        return FAILS(pidfd_open, EMFILE, ENFILE, ENOMEM, ENOSYS, EPERM);
    case SYS_pidfd_send_signal:
        if (denied_list[1] != '\0' && is_denied("foreign_pidfds")) {
            errno = EINVAL;
            return true;
        }
        return FAILS(pidfd_send_signal, ENOSYS, EPERM);
    case SYS_close_range:
        return FAILS(close_range, ENOSYS, EPERM, ENOMEM, EMFILE);
    case SYS_clone3:
        return FAILS(clone3, ENOSYS, EPERM);
    case SYS_waitid:
        // P_PIDFD (3) is what old kernels and filters do not know.
        return is_interrupted() ||
               (a[0] == 3 ? FAILS(waitid, EINTR, EINVAL, EPERM) : FAILS(waitid, EINTR));
    case SYS_futex:
        return is_interrupted() || FAILS(futex, EINTR);
    case SYS_setsid:
        return FAILS(setsid, EPERM);
    case SYS_setpgid:
        return FAILS(setpgid, EPERM);
    case SYS_chdir:
        return FAILS(chdir, EACCES, EIO);
    case SYS_dup3:
        return FAILS(dup3, EMFILE, EBUSY);
    case SYS_fcntl:
        // To keep a descriptor through exec, that the host may have closed. The marks of the others
        // are best effort.
        return a[1] == F_SETFD && a[2] == 0 && FAILS(fcntl, EBADF);
    case SYS_write:
        // "0" to a control group, or the announcement to a keeper, which may be gone.
        return a[2] == 1 ? FAILS(write, EBUSY, EAGAIN, ENODEV) : FAILS(write, EPIPE);
    case SYS_read:
        return FAILS(read, ECONNRESET); // The keeper's answer.
    case SYS_nanosleep:
        return is_interrupted() || FAILS(nanosleep, EINTR);
    case SYS_prctl:
        return FAILS(prctl, EINVAL);
    case SYS_execve:
        return FAILS(execve, ENOENT, ENOMEM, E2BIG, ETXTBSY, EACCES);
    case SYS_openat:
        return FAILS(openat, EMFILE, ENOMEM, EACCES);
    case SYS_getdents64:
        return FAILS(getdents64, EIO, ENOMEM);
    case SYS_ioctl:
        return FAILS(ioctl, EPERM);
    case SYS_prlimit64:
        return FAILS(prlimit64, EPERM);
    case SYS_setpriority:
        return FAILS(setpriority, EACCES);
    case SYS_setgroups:
        return FAILS(setgroups, EPERM, ENOMEM);
    case SYS_setresgid:
        return FAILS(setresgid, EPERM);
    case SYS_setresuid:
        return FAILS(setresuid, EAGAIN, EPERM);
    case SYS_timer_create:
        return FAILS(timer_create, EAGAIN, ENOMEM);
    case SYS_timer_settime:
        return FAILS(timer_settime, EPERM); // A filter.
    default:
        return false;
    }
}

long pmi_fault_syscall(long number, ...);
long pmi_fault_syscall(long number, ...)
{
    va_list list;
    long a[6];
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (syscall_fails(number, a))
        return -1;
    if (without[0] != '\0') {
        if (number == SYS_pidfd_send_signal && a[1] == SIGCONT && pmi_fault_without("SIGCONT"))
            return 0;
        if (number == SYS_rt_sigprocmask && pmi_fault_without("mask"))
            return 0;
        if (number == SYS_close_range && (a[2] & CLOSE_RANGE_CLOEXEC) != 0 &&
            pmi_fault_without("cloexec"))
            return 0;
        if (number == SYS_waitid && pmi_fault_without("own wait"))
            a[0] = P_ALL;
    }
    return syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
