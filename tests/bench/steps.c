#include "steps.h"

#include "bare.h"
#include "bench.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif
#define UNSHARE 2u // CLOSE_RANGE_UNSHARE
#define CLOEXEC 4u // CLOSE_RANGE_CLOEXEC
#define SIGNALS 64
#define LOW_END 64u // What the child takes along of the table.

extern char **environ;

// Each has all of those before it.
enum step {
    STEP_BARE,    // vfork, setpgid, dup2 three times, exec, waitpid.
    STEP_PIDFD,   // clone() with a pidfd, waited for by that.
    STEP_WORD,    // We sleep on a word that the kernel clears, not by CLONE_VFORK.
    STEP_SIGNALS, // All blocked meanwhile; in the child each disposition the default, no mask.
    STEP_CHECKS,  // The program is looked at, and the limit on descriptors.
    STEP_TABLE,   // The low end of the table only, all in it close-on-exec but what is meant.
    STEP_WATCH,   // Into epoll and out of it again: somebody waits directly.
    STEPS
};

static const char *const names[STEPS] = {"vfork",    "+ pidfd", "+ word", "+ signals",
                                         "+ checks", "+ table", "+ watch"};
static const char *const texts[STEPS] = {
    NULL,
    "the pidfd",
    "sleeping on a word in place of CLONE_VFORK",
    "blocked signals, 64 dispositions, the mask",
    "looking at the program and the limit",
    "a table of its own, and what is close-on-exec in it",
    "epoll, and out of it again",
};

static char *const *target;
static int null_low = -1, idle = -1, epoll = -1; // Numbers below LOW_END.

struct birth {
    int step, source;
};

static int child_main(void *arg)
{
    static const char zeros[64]; // The default, as the kernel has it; an empty mask.
    const struct birth *birth = arg;
    if (birth->step >= STEP_TABLE) {
        (void)syscall(SYS_close_range, LOW_END, ~0u, UNSHARE);
    }
    for (int i = 1; birth->step >= STEP_SIGNALS && i <= SIGNALS; i++) {
        (void)syscall(SYS_rt_sigaction, i, zeros, NULL, SIGNALS / 8);
    }
    (void)setpgid(0, 0);
    if (birth->step >= STEP_TABLE) {
        (void)syscall(SYS_close_range, 3u, ~0u, CLOEXEC);
    }
    for (int fd = 0; fd < 3; fd++) {
        (void)dup2(birth->source, fd);
    }
    if (birth->step >= STEP_SIGNALS) {
        (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, zeros, NULL, SIGNALS / 8);
    }
    (void)execve(target[0], target, environ);
    _exit(127);
}

static void look_at_program(void)
{
    struct stat st;
    struct rlimit limit;
    if (stat(target[0], &st) != 0 || faccessat(AT_FDCWD, target[0], X_OK, AT_EACCESS) != 0 ||
        getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        bare_die(target[0]);
    }
}

static pid_t make_child(struct birth *birth, int *ret_pidfd)
{
    static char stack[65536] __attribute__((aligned(16)));
    static atomic_int present;
    int flags = CLONE_VM | CLONE_PIDFD | SIGCHLD;
    const bool word = birth->step >= STEP_WORD;
    flags |= word ? CLONE_CHILD_CLEARTID : CLONE_VFORK;
    flags |= birth->step >= STEP_TABLE ? CLONE_FILES : 0;
    atomic_store(&present, word);
    pid_t pid = clone(child_main, stack + sizeof stack, flags, birth, ret_pidfd, NULL, &present);
    if (pid < 0) {
        bare_die("clone");
    }
    while (atomic_load(&present) != 0) {
        (void)syscall(SYS_futex, &present, FUTEX_WAIT, 1, NULL, NULL, 0);
    }
    return pid;
}

static void start(int step, int *ret_pidfd)
{
    struct birth birth = {step, -1};
    sigset_t all, before;
    struct stat st;
    if (step >= STEP_CHECKS) {
        look_at_program();
    }
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    birth.source = null;
    if (step >= STEP_TABLE) {
        (void)fstat(null_low, &st); // Ours still?
        birth.source = dup3(null, null_low, O_CLOEXEC);
    }
    if (step >= STEP_SIGNALS) {
        (void)sigfillset(&all);
        (void)sigprocmask(SIG_SETMASK, &all, &before);
    }
    (void)make_child(&birth, ret_pidfd);
    if (step >= STEP_SIGNALS) {
        (void)sigprocmask(SIG_SETMASK, &before, NULL);
    }
    if (step >= STEP_TABLE) { // Nothing of the child's stays at the number.
        (void)fstat(idle, &st);
        (void)fcntl(null_low, F_GETFD);
        (void)dup3(idle, null_low, O_CLOEXEC);
    }
    (void)close(null);
}

static void watch(int pidfd)
{
    struct epoll_event event = {.events = EPOLLIN};
    struct pollfd in = {pidfd, POLLIN, 0};
    siginfo_t info;
    (void)poll(&in, 1, 0);
    (void)epoll_ctl(epoll, EPOLL_CTL_ADD, pidfd, &event);
    (void)waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG | WNOWAIT);
    (void)poll(&in, 1, 0);
    (void)epoll_ctl(epoll, EPOLL_CTL_DEL, pidfd, NULL);
}

// Returns when control was back.
static double run(int step)
{
    if (step == STEP_BARE) {
        pid_t pid = bare_vfork(target);
        double started = bench_now_us();
        bare_wait(pid);
        return started;
    }
    int pidfd;
    siginfo_t info;
    start(step, &pidfd);
    double started = bench_now_us();
    if (step >= STEP_WATCH) {
        watch(pidfd);
    }
    if (waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED) != 0) {
        bare_die("waitid");
    }
    (void)close(pidfd);
    return started;
}

static void measure(const char *parameters, int from, int to, double (*ours)(void), int rounds)
{
    struct bench_samples spawn[STEPS + 1] = {{0}}, whole[STEPS + 1] = {{0}};
    for (int i = 0; i < rounds + 5; i++) {
        for (int step = from; step <= to; step++) {
            double begin = bench_now_us();
            double started = step < STEPS ? run(step) : ours();
            double end = bench_now_us();
            if (i >= 5) { // Warm-up.
                bench_add(&spawn[step], started - begin);
                bench_add(&whole[step], end - begin);
            }
        }
    }
    for (int step = from; step <= to; step++) {
        bench_row("spawn, by steps", step < STEPS ? names[step] : "processmgr", parameters,
                  &spawn[step]);
    }
    for (int step = from; step <= to; step++) {
        bench_row("by steps", step < STEPS ? names[step] : "processmgr", parameters, &whole[step]);
    }
}

void steps_measure(char *const argv[], double (*ours)(void), int rounds)
{
    target = argv;
    idle = open("/dev/null", O_RDONLY | O_CLOEXEC);
    null_low = fcntl(idle, F_DUPFD_CLOEXEC, 20);
    epoll = bare_epoll_new();
    if (null_low < 0 || (unsigned)null_low >= LOW_END) {
        bare_die("a low number");
    }
    measure("order=turns", STEP_BARE, STEPS, ours, rounds);
    // What follows only itself finds its own code and data in the caches.
    measure("order=alone", STEP_BARE, STEP_BARE, ours, rounds);
    measure("order=alone", STEP_WATCH, STEP_WATCH, ours, rounds);
    measure("order=alone", STEPS, STEPS, ours, rounds);
    for (int step = STEP_PIDFD; step < STEPS; step++) {
        bench_added(texts[step], "by steps", "order=turns", names[step], names[step - 1], 0, " us");
    }
    bench_added("all else that the library does, in turns", "by steps", "order=turns", "processmgr",
                names[STEP_WATCH], 0, " us");
    bench_added("all else that the library does, alone", "by steps", "order=alone", "processmgr",
                names[STEP_WATCH], 0, " us");
    (void)close(idle);
    (void)close(null_low);
    (void)close(epoll);
}
