// The vfork-like clone: the child runs in our memory, on a stack of its own, and we sleep until it
// has left by exec or exit. Costs the same however much memory the host has.
//
// Not CLONE_VFORK itself: that sleep ends with nothing but our death, so a child that is stopped,
// or hangs, before its exec would hold us for ever. Instead the kernel clears a word and wakes us
// when the child leaves, and the sleep has a deadline. Until then the two share one errno: we call
// nothing that could write to it before the deadline, when the child's no longer matters.
#include "start.h"

#include "pmi_config.h"

#include <errno.h>

#if defined(HAVE_CLONE) && defined(HAVE_CLONE_PIDFD)

#include "low_fds.h"
#include "quiet.h"
#include "sys.h"

#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#ifndef CLONE_PIDFD
#include <linux/sched.h>
#endif
#ifndef SYS_futex
#define SYS_futex SYS_futex_time64 // 32-bit systems that never knew another time.
#endif

#define STACK_SIZE (64 * 1024)

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define UNDER_TSAN 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define UNDER_TSAN 1
#endif

#ifdef UNDER_TSAN
// ThreadSanitizer replaces clone() by a function that treats the child as a fork with memory of its
// own, and so would run its after-fork work twice on one memory.
extern int __clone(int (*fn)(void *), void *stack, int flags, void *arg, ...);
#define CLONE_CALL __clone
#else
#define CLONE_CALL clone
#endif

#if defined(__has_attribute)
#if __has_attribute(no_sanitize)
__attribute__((no_sanitize("address", "thread", "undefined")))
#endif
#endif
static int
child_main(void *arg)
{
    struct pmi_child_plan *plan = arg;
    pmi_child_run(plan);
    // The number is also the exit code: an emulator may have given the child a copy of our memory,
    // and then this is all that comes back.
    return plan->error;
}

// A few stacks are kept: a new one costs page faults, and giving it back an interrupt of every
// processor that the child has run on.
#define SPARE_STACKS 4
static _Atomic(void *) spare_stacks[SPARE_STACKS];

// NULL with errno.
static void *take_stack(void)
{
    for (int i = 0; i < SPARE_STACKS; i++) {
        void *stack = atomic_exchange(&spare_stacks[i], NULL);
        if (stack != NULL)
            return stack;
    }
    void *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    return stack != MAP_FAILED ? stack : NULL;
}

static void give_stack(void *stack)
{
    for (int i = 0; i < SPARE_STACKS; i++) {
        void *empty = NULL;
        if (atomic_compare_exchange_strong(&spare_stacks[i], &empty, stack))
            return;
    }
    (void)munmap(stack, STACK_SIZE);
}

// Sleeps until the kernel has cleared the word; false = not by the deadline. Shared, because the
// kernel's own wake is.
static bool await_departure(atomic_int *present, int64_t deadline)
{
    struct timespec rest = {0, 0};
    while (atomic_load(present) != 0) {
        int64_t ms = deadline == PMI_NEVER ? 0 : deadline - pmi_now_ms();
        if (deadline != PMI_NEVER && ms <= 0)
            return false;
        rest.tv_sec = (time_t)(ms / 1000);
        rest.tv_nsec = (long)(ms % 1000) * 1000000L;
        (void)syscall(SYS_futex, present, FUTEX_WAIT, 1, deadline == PMI_NEVER ? NULL : &rest, NULL,
                      0);
    }
    return true;
}

static int clone_once(struct pmi_child_plan *plan, void *stack, int64_t deadline, pid_t *ret_pid,
                      int *ret_pidfd)
{
    struct pmi_quiet quiet;
    atomic_int present = 1;
    int flags = CLONE_VM | CLONE_PIDFD | CLONE_CHILD_CLEARTID | SIGCHLD;
    if (plan->keep_below > 0)
        flags |= CLONE_FILES;
    *ret_pidfd = -1; // Stays so before Linux 5.2, which does not know the flag.
    pmi_quiet_begin(&quiet);
    int pid =
        CLONE_CALL(child_main, (char *)stack + STACK_SIZE, flags, plan, ret_pidfd, NULL, &present);
    int e = errno;
    if (pid >= 0 && !await_departure(&present, deadline)) {
        (void)pmi_sys_kill(pid, SIGKILL); // Not waited for yet: still ours.
        (void)await_departure(&present, PMI_NEVER);
        plan->progress = PMI_CHILD_OVERDUE;
    }
    pmi_quiet_end(&quiet);
    *ret_pid = pid;
    return pid < 0 ? e : 0;
}

// A child that could not take its table apart has touched nothing, and is as good as never born.
static bool try_with_our_table(struct pmi_child_plan *plan, void *stack, int64_t deadline,
                               pid_t *ret_pid, int *ret_pidfd, int *ret_errno)
{
    struct pmi_low_loan loan;
    siginfo_t info;
    if (!pmi_low_fds_lend(plan->low_fds, plan, &loan))
        return false;
    *ret_errno = clone_once(plan, stack, deadline, ret_pid, ret_pidfd);
    bool refused = *ret_errno == 0 && plan->progress == PMI_CHILD_NOT_APART;
    pmi_low_fds_take_back(plan->low_fds, plan, &loan, refused);
    if (refused) {
        (void)pmi_sys_waitid(P_PID, (id_t)*ret_pid, &info, WEXITED);
        (void)pmi_sys_close(*ret_pidfd);
        plan->progress = PMI_CHILD_NOT_REACHED;
    }
    return !refused;
}

int pmi_clone_child(struct pmi_child_plan *plan, int64_t deadline, pid_t *ret_pid, int *ret_pidfd)
{
    int e = 0;
    void *stack = take_stack();
    if (stack == NULL)
        return errno;
    if (!try_with_our_table(plan, stack, deadline, ret_pid, ret_pidfd, &e))
        e = clone_once(plan, stack, deadline, ret_pid, ret_pidfd);
    give_stack(stack);
    return e;
}

#else

int pmi_clone_child(struct pmi_child_plan *plan, int64_t deadline, pid_t *ret_pid, int *ret_pidfd)
{
    (void)plan;
    (void)deadline;
    (void)ret_pid;
    (void)ret_pidfd;
    return ENOSYS;
}

#endif
