// Everything in this file runs between the birth of a process and its exec, in memory that may be
// the starter's own, with a copy of the locks of all its threads: only async-signal-safe work, no
// allocation, no lock, no instrumentation. On Linux the system is called without the C library's
// functions between, which a sanitizer would have replaced.
#include "child.h"

#include "pmi_config.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#if defined(HAVE_RT_SIGPROCMASK) || defined(HAVE_CLOSE_RANGE)
#include <sys/syscall.h>
#endif
#ifdef HAVE_PRCTL
#include <sys/prctl.h>
#endif
#ifndef HAVE_RT_SIGPROCMASK
#include <grp.h>
#endif
#if defined(HAVE_PROC_PIDLISTFDS)
#include <libproc.h>
#elif defined(HAVE_KERN_PROC_NFDS)
#include <sys/sysctl.h>
#endif

#if defined(__has_attribute)
#if __has_attribute(no_sanitize)
#define IN_CHILD __attribute__((no_sanitize("address", "thread", "undefined")))
#endif
#endif
#ifndef IN_CHILD
#define IN_CHILD
#endif

// The child waits this long in total for the writer of its program to go away.
#define TEXT_BUSY_TOTAL_MS 100
// How often a pause goes on that a signal has cut short.
#define PAUSE_TRIES 100

#ifdef HAVE_RT_SIGPROCMASK

// A kernel signal set: 64 signals everywhere but on MIPS.
#ifdef __mips__
#define KERNEL_SIGNALS 128
#else
#define KERNEL_SIGNALS 64
#endif

IN_CHILD static void reset_dispositions(void)
{
    // All zero is SIG_DFL without flags in the layout of every architecture. All signals, those
    // that the C library keeps to itself too: an ignored one would stay ignored through exec.
    static const char zeros[64];
    for (int s = 1; s <= KERNEL_SIGNALS; s++)
        (void)syscall(SYS_rt_sigaction, s, zeros, NULL, KERNEL_SIGNALS / 8);
}

IN_CHILD static void empty_mask(void)
{
    static const char none[KERNEL_SIGNALS / 8];
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, none, NULL, sizeof(none));
}

#define CALL_setsid() ((int)syscall(SYS_setsid))
#define CALL_setpgid(pid, group) ((int)syscall(SYS_setpgid, (pid), (group)))
#define CALL_getpid() ((pid_t)syscall(SYS_getpid))
#define CALL_getppid() ((pid_t)syscall(SYS_getppid))
#define CALL_chdir(path) ((int)syscall(SYS_chdir, (path)))
#define CALL_open_null() ((int)syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR | O_NOCTTY, 0))
#define CALL_close(fd) ((int)syscall(SYS_close, (fd)))
#define CALL_dup2(from, to) ((int)syscall(SYS_dup3, (from), (to), 0))
#define CALL_write(fd, data, size) syscall(SYS_write, (fd), (data), (size))
#define CALL_read(fd, data, size) syscall(SYS_read, (fd), (data), (size))
#define CALL_execve(path, argv, env) syscall(SYS_execve, (path), (argv), (env))
#define CALL_ioctl(fd, request, argument) ((int)syscall(SYS_ioctl, (fd), (request), (argument)))
#define CALL_umask(mask) ((void)syscall(SYS_umask, (mask)))
#define CALL_nice(value) ((int)syscall(SYS_setpriority, PRIO_PROCESS, 0, (value)))
// The C library's functions would change all threads of the process that they believe to be in.
#ifdef SYS_setgroups32
#define CALL_setgroups(count, list) ((int)syscall(SYS_setgroups32, (count), (list)))
#define CALL_setgid(id) ((int)syscall(SYS_setresgid32, (id), (id), (id)))
#define CALL_setuid(id) ((int)syscall(SYS_setresuid32, (id), (id), (id)))
#else
#define CALL_setgroups(count, list) ((int)syscall(SYS_setgroups, (count), (list)))
#define CALL_setgid(id) ((int)syscall(SYS_setresgid, (id), (id), (id)))
#define CALL_setuid(id) ((int)syscall(SYS_setresuid, (id), (id), (id)))
#endif
#ifdef SYS_fcntl
#define CALL_set_fd_flags(fd, flags) ((int)syscall(SYS_fcntl, (fd), F_SETFD, (flags)))
#else
#define CALL_set_fd_flags(fd, flags) ((int)syscall(SYS_fcntl64, (fd), F_SETFD, (flags)))
#endif

#else

IN_CHILD static void reset_dispositions(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_DFL;
    for (int s = 1; s < NSIG; s++)
        (void)sigaction(s, &action, NULL);
}

IN_CHILD static void empty_mask(void)
{
    sigset_t none;
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

#define CALL_setsid() ((int)setsid())
#define CALL_setpgid(pid, group) setpgid((pid), (group))
#define CALL_getpid() getpid()
#define CALL_getppid() getppid()
#define CALL_chdir(path) chdir(path)
#define CALL_open_null() open("/dev/null", O_RDWR | O_NOCTTY)
#define CALL_close(fd) close(fd)
#define CALL_dup2(from, to) dup2((from), (to))
#define CALL_write(fd, data, size) write((fd), (data), (size))
#define CALL_read(fd, data, size) read((fd), (data), (size))
#define CALL_execve(path, argv, env) execve((path), (argv), (env))
#define CALL_ioctl(fd, request, argument) ioctl((fd), (request), (argument))
#define CALL_umask(mask) ((void)umask((mode_t)(mask)))
#define CALL_nice(value) setpriority(PRIO_PROCESS, 0, (value))
#define CALL_setgroups(count, list) setgroups((int)(count), (list)) // An int on all of these.
// From the superuser these change the saved ids as well.
#define CALL_setgid(id) setgid(id)
#define CALL_setuid(id) setuid(id)
#define CALL_set_fd_flags(fd, flags) fcntl((fd), F_SETFD, (flags))

#endif

IN_CHILD static void pause_ms(int ms)
{
#if defined(HAVE_RT_SIGPROCMASK) && defined(SYS_nanosleep)
    // What this call takes, also where time_t is longer than that.
    struct {
        long s, ns;
    } time = {0, ms * 1000000L};
    for (int i = 0; i < PAUSE_TRIES && syscall(SYS_nanosleep, &time, &time) < 0 && errno == EINTR;
         i++) {
    }
#else
    struct timespec ts = {.tv_sec = 0, .tv_nsec = ms * 1000000L};
    for (int i = 0; i < PAUSE_TRIES && nanosleep(&ts, &ts) < 0 && errno == EINTR; i++) {
    }
#endif
}

IN_CHILD void pmi_child_arm_deadline(int64_t timeout_ms)
{
#if defined(HAVE_RT_SIGPROCMASK) && defined(SYS_timer_create) && defined(SYS_timer_settime)
    // By number: older C libraries have these calls in a library of their own.
    struct sigevent event = {0};
    event.sigev_notify = SIGEV_SIGNAL;
    event.sigev_signo = SIGKILL;
    int timer = 0;
    if (timeout_ms <= 0 || syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) != 0)
        return;
    // The kernel's own layout for this call: two pairs of longs, also with a 64-bit time_t.
    struct {
        long interval_s, interval_ns, value_s, value_ns;
    } in = {0, 0, (long)(timeout_ms / 1000), (long)(timeout_ms % 1000) * 1000000L};
    (void)syscall(SYS_timer_settime, timer, 0, &in, NULL);
#else
    (void)timeout_ms;
#endif
}

#if defined(HAVE_RT_SIGPROCMASK) && defined(SYS_getdents64)

// The number that a file name in /proc/self/fd spells, or -1.
IN_CHILD static int number_of(const char *name)
{
    int n = 0;
    if (*name == '\0')
        return -1;
    for (; *name != '\0'; name++) {
        if (*name < '0' || *name > '9' || n > 100000000)
            return -1;
        n = n * 10 + (*name - '0');
    }
    return n;
}

IN_CHILD static bool mark_listed(void)
{
    // Layout of struct linux_dirent64: inode and offset of 8 bytes each, the length of the record,
    // a type byte, the name.
    enum {
        LENGTH_AT = 16,
        NAME_AT = 19
    };
    _Alignas(8) char buffer[1024];
    int dir =
        (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (dir < 0)
        return false;
    long size;
    while ((size = syscall(SYS_getdents64, dir, buffer, sizeof(buffer))) > 0) {
        for (long at = 0; at < size;) {
            unsigned short length;
            __builtin_memcpy(&length, buffer + at + LENGTH_AT, sizeof(length));
            int fd = number_of(buffer + at + NAME_AT);
            if (fd >= 3)
                (void)CALL_set_fd_flags(fd, FD_CLOEXEC);
            at += length;
        }
    }
    (void)syscall(SYS_close, dir);
    return size == 0;
}

#else

IN_CHILD static bool mark_listed(void)
{
    return false;
}

#endif

// No number above it is looked at one by one.
#define FDS_MOST (1 << 20)

// What the system tells of this table beside its limit, which may be as good as none: where it
// ends, or how many above 2 are open in it.
#if defined(HAVE_PROC_PIDLISTFDS)
IN_CHILD static void look_at_table(int *end, int *count)
{
    int size = proc_pidinfo(getpid(), PROC_PIDLISTFDS, 0, NULL, 0); // Room for all of it.
    if (size > 0)
        *end = size / (int)sizeof(struct proc_fdinfo);
    (void)count;
}
#elif defined(HAVE_KERN_PROC_NFDS)
IN_CHILD static void look_at_table(int *end, int *count)
{
    int name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_NFDS, 0}, all;
    size_t size = sizeof(all);
    if (sysctl(name, 4, &all, &size, NULL, 0) < 0)
        return;
    for (int fd = 0; fd < 3; fd++)
        all -= fcntl(fd, F_GETFD) >= 0;
    *count = all;
    *end = FDS_MOST;
}
#else
IN_CHILD static void look_at_table(int *end, int *count)
{
    (void)end;
    (void)count;
}
#endif

// Marks every descriptor above 2 close-on-exec. The targets above 2 are made after this.
IN_CHILD static void mark_all(void)
{
#ifdef HAVE_CLOSE_RANGE
    const unsigned cloexec = 1U << 2; // CLOSE_RANGE_CLOEXEC, Linux 5.11
    if (syscall(SYS_close_range, 3U, ~0U, cloexec) == 0)
        return;
#endif
    if (mark_listed())
        return;
    // The limit may have been lowered after descriptors above it were opened.
    const int least = 4096;
    struct rlimit limit;
    int end = least, count = INT_MAX;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_max > (rlim_t)least)
        end = limit.rlim_max < (rlim_t)FDS_MOST ? (int)limit.rlim_max : FDS_MOST;
    look_at_table(&end, &count);
    for (int fd = 3; fd < end && count > 0; fd++)
        count -= CALL_set_fd_flags(fd, FD_CLOEXEC) >= 0;
}

IN_CHILD static int fail(struct pmi_child_plan *plan, enum pm_stage stage, int e)
{
    plan->stage = (int)stage;
    plan->error = e;
    plan->progress = PMI_CHILD_FAILED;
    return -1;
}

// PDEATHSIG, then the announcement to the keeper, whose answer means: from now on you are known.
IN_CHILD static int tie_to_parent(struct pmi_child_plan *plan)
{
    if (plan->parent_pid != 0) {
#ifdef HAVE_PDEATHSIG
        if (syscall(SYS_prctl, PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
            return fail(plan, PM_STAGE_KEEPER, errno);
#endif
        if (CALL_getppid() != plan->parent_pid)
            return fail(plan, PM_STAGE_KEEPER, ESRCH); // It died before we asked.
    }
    if (plan->keeper_fd >= 0) {
        struct pmi_child_hello hello = {.kind = plan->new_session ? 'S'
                                                : plan->new_group ? 'G'
                                                                  : 'P',
                                        .pid = (int)CALL_getpid(),
                                        .mark = plan->mark};
        size_t size = plan->mark != 0 ? sizeof(hello) : PMI_CHILD_HELLO_SHORT;
        // A keeper that has closed its end may have said why.
        if (CALL_write(plan->keeper_fd, &hello, size) != (long)size && errno != EPIPE)
            return fail(plan, PM_STAGE_KEEPER, errno);
        char word = 0;
        long n = CALL_read(plan->keeper_fd, &word, 1);
        if (n != 1)
            return fail(plan, PM_STAGE_KEEPER, n < 0 ? errno : EPIPE);
        if (word != PMI_CHILD_KNOWN)
            return fail(plan, PM_STAGE_KEEPER, EMFILE);
    }
    return 0;
}

IN_CHILD static int place_null(int target)
{
    int null = CALL_open_null();
    if (null < 0 || null == target)
        return null;
    int r = CALL_dup2(null, target), e = errno;
    (void)CALL_close(null);
    errno = e;
    return r;
}

IN_CHILD static int place_descriptors(struct pmi_child_plan *plan)
{
    mark_all();
    for (size_t i = 0; i < plan->fds_count; i++) {
        int source = plan->fds[i].source, target = plan->fds[i].target;
        int r = source == target ? CALL_set_fd_flags(target, 0) : CALL_dup2(source, target);
        // An inherited one that another thread of the host has closed since we looked.
        if (r < 0 && errno == EBADF && source < 3)
            r = place_null(target);
        if (r < 0)
            return fail(plan, PM_STAGE_DUP, errno);
    }
    return 0;
}

// A table of our own. Until then every descriptor is the starter's, and may only be looked at.
IN_CHILD static bool part_tables(const struct pmi_child_plan *plan)
{
#ifdef HAVE_CLOSE_RANGE
    const unsigned unshare = 1U << 1; // CLOSE_RANGE_UNSHARE
    return syscall(SYS_close_range, (unsigned)plan->keep_below, ~0U, unshare) == 0;
#else
    (void)plan;
    return false;
#endif
}

IN_CHILD static int fail_option(struct pmi_child_plan *plan, enum pm_stage stage,
                                enum pmi_option_field field, int e)
{
    plan->field = (int)field;
    return fail(plan, stage, e);
}

IN_CHILD static int set_limit(const struct pmi_limit *limit)
{
#if defined(HAVE_RT_SIGPROCMASK) && defined(SYS_prlimit64)
    return (int)syscall(SYS_prlimit64, 0, limit->resource, &limit->soft, NULL);
#else
    struct rlimit value = {
        .rlim_cur = limit->soft == UINT64_MAX ? RLIM_INFINITY : (rlim_t)limit->soft,
        .rlim_max = limit->hard == UINT64_MAX ? RLIM_INFINITY : (rlim_t)limit->hard,
    };
    return setrlimit(limit->resource, &value);
#endif
}

IN_CHILD static int set_credentials(struct pmi_child_plan *plan,
                                    const struct pmi_child_options *options)
{
    // Each of them needs the rights that the last one takes away.
    if ((options->flags & PMI_OPTION_GROUPS) != 0 &&
        CALL_setgroups(options->groups_count, options->groups) < 0)
        return fail_option(plan, PM_STAGE_CREDENTIALS, PMI_FIELD_GROUPS, errno);
    if ((options->flags & PMI_OPTION_GROUP) != 0 && CALL_setgid(options->gid) < 0)
        return fail_option(plan, PM_STAGE_CREDENTIALS, PMI_FIELD_GROUP, errno);
    if ((options->flags & PMI_OPTION_USER) != 0 && CALL_setuid(options->uid) < 0)
        return fail_option(plan, PM_STAGE_CREDENTIALS, PMI_FIELD_USER, errno);
    // Whoever could still go back has not let go.
    if ((options->flags & PMI_OPTION_USER) != 0 && options->uid != 0 && CALL_setuid(0) == 0)
        return fail_option(plan, PM_STAGE_CREDENTIALS, PMI_FIELD_USER_KEPT, EPERM);
    return 0;
}

// After the descriptors, which a limit on their number would hinder.
IN_CHILD static int apply_options(struct pmi_child_plan *plan)
{
    const struct pmi_child_options *options = plan->options;
    for (uint32_t i = 0; i < options->limits_count; i++)
        if (set_limit(&options->limits[i]) < 0)
            return fail_option(plan, PM_STAGE_LIMITS, PMI_FIELD_RLIMITS, errno);
    if ((options->flags & PMI_OPTION_NICE) != 0 && CALL_nice(options->nice_value) < 0)
        return fail_option(plan, PM_STAGE_LIMITS, PMI_FIELD_NICE, errno);
    if ((options->flags & PMI_OPTION_UMASK) != 0)
        CALL_umask(options->umask_value);
    return set_credentials(plan, options);
}

IN_CHILD static int give_up_privileges(struct pmi_child_plan *plan)
{
#ifdef HAVE_NO_NEW_PRIVS
    if (syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L) == 0)
        return 0;
    int e = errno;
#else
    int e = ENOSYS;
#endif
    return fail_option(plan, PM_STAGE_CREDENTIALS, PMI_FIELD_NO_NEW_PRIVILEGES, e);
}

IN_CHILD static int take_terminal(struct pmi_child_plan *plan)
{
#ifdef HAVE_TIOCSCTTY
    if (plan->terminal && CALL_ioctl(0, TIOCSCTTY, 0L) < 0)
        return fail(plan, PM_STAGE_PTY, errno);
#else
    if (plan->terminal)
        return fail(plan, PM_STAGE_PTY, ENOSYS);
#endif
    // All signals are blocked: SIGTTOU does not stop us, who are in the background still.
    pid_t group = CALL_getpid();
    if (plan->foreground && CALL_ioctl(0, TIOCSPGRP, &group) < 0)
        return fail(plan, PM_STAGE_GROUP, errno);
    return 0;
}

IN_CHILD void pmi_child_run(struct pmi_child_plan *plan)
{
    // First of all, and through the starter's table: nothing is to happen outside.
    if (plan->cgroup_fd >= 0 && CALL_write(plan->cgroup_fd, "0", 1) < 0) {
        (void)fail_option(plan, PM_STAGE_GROUP, PMI_FIELD_CGROUP, errno);
        return;
    }
    if (plan->keep_below > 0 && !part_tables(plan)) {
        plan->progress = PMI_CHILD_NOT_APART;
        return;
    }
    plan->progress = PMI_CHILD_RUNNING;
    reset_dispositions();
    if (plan->new_session && CALL_setsid() < 0) {
        (void)fail(plan, PM_STAGE_SESSION, errno);
        return;
    }
    if (plan->new_group && !plan->new_session && CALL_setpgid(0, 0) < 0) {
        (void)fail(plan, PM_STAGE_GROUP, errno);
        return;
    }
    if (place_descriptors(plan) < 0 || take_terminal(plan) < 0)
        return;
    if (plan->options != NULL && apply_options(plan) < 0)
        return;
    // A change of credentials takes the death signal away, so this comes after it.
    if (tie_to_parent(plan) < 0)
        return;
    if (plan->cwd != NULL && CALL_chdir(plan->cwd) < 0) {
        (void)fail(plan, PM_STAGE_CHDIR, errno);
        return;
    }
    if (plan->options != NULL && (plan->options->flags & PMI_OPTION_NO_NEW_PRIVILEGES) != 0 &&
        give_up_privileges(plan) < 0)
        return;
    empty_mask();
    plan->progress = PMI_CHILD_EXEC;
    for (int waited = 0, pause = 1;; waited += pause, pause *= 2) {
        (void)CALL_execve(plan->program, plan->argv, plan->env);
        // ETXTBSY: most often another thread of the host is just between fork and exec with the
        // descriptor open through which the program was written.
        if (errno != ETXTBSY || waited + pause > TEXT_BUSY_TOTAL_MS)
            break;
        plan->exec_retries++;
        pause_ms(pause);
    }
    (void)fail(plan, PM_STAGE_EXEC, errno);
}
