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
#include "raw_clone.h"
#include "reap.h"
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

#define STACK_SIZE ((size_t)64 * 1024)
#define KILL_WAIT_MS 2000

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
    if (plan->timer_ms > 0)
        pmi_child_arm_deadline(plan->timer_ms);
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

// How the starter learns that the child has left.
enum way {
    WAY_UNKNOWN,
    WAY_WORD,     // CLONE_CHILD_CLEARTID: see above.
    WAY_WORD_RAW, // The same past a C library that refuses the flag.
    // CLONE_VFORK, and a timer of the child's own for the deadline. What stops the child before its
    // first step holds us all the same.
    WAY_VFORK
};
static atomic_int way;

// Who knows clone3 knows all flags in all combinations: the kernel since 5.3, but not valgrind,
// which ends the program at a combination that it does not know, and no emulator. Nothing is made
// by this call. A C library that refuses the flag turns up later.
static enum way find_way(void)
{
    int found = atomic_load(&way);
    if (found == WAY_UNKNOWN) {
#ifdef SYS_clone3
        found = syscall(SYS_clone3, NULL, 0) < 0 && errno == EINVAL ? WAY_WORD : WAY_VFORK;
#else
        found = WAY_VFORK;
#endif
        atomic_store(&way, found);
    }
    return (enum way)found;
}

// Sleeps until the kernel has cleared the word; false = not by the deadline. Shared, because the
// kernel's own wake is.
static bool await_departure(atomic_int *present, int64_t deadline)
{
#ifdef SYS_futex
    struct {
        long s, ns; // What this call takes, also where time_t is longer than that.
    } rest;
#else
    struct timespec rest_ts; // 32-bit systems that never had the other call.
#define SYS_futex SYS_futex_time64
#define rest rest_ts
#define s tv_sec
#define ns tv_nsec
#endif
    while (atomic_load(present) != 0) {
        int64_t ms = deadline == PMI_NEVER ? 0 : deadline - pmi_now_ms();
        // The last look behind the clock: we may be late, and it in time.
        if (deadline != PMI_NEVER && ms <= 0)
            return atomic_load(present) == 0;
        rest.s = ms / 1000;
        rest.ns = ms % 1000 * 1000000;
        (void)syscall(SYS_futex, present, FUTEX_WAIT, 1, deadline == PMI_NEVER ? NULL : &rest, NULL,
                      0);
    }
    return true;
}

// The child was killed. Not the word is waited for: not every kernel clears it for a task that dies
// by a signal, and none in a memory that was not shared after all. False: it is caught in the
// kernel and uses its stack still.
static bool await_death(pid_t pid, int pidfd, atomic_int *present)
{
    int64_t deadline = pmi_now_ms() + KILL_WAIT_MS;
    while (atomic_load(present) != 0) {
        if (pmi_child_has_ended(pid, pidfd))
            return true;
        if (pmi_now_ms() >= deadline)
            return false;
        pmi_sleep_ms(1);
    }
    return true;
}

static int call_clone(enum way by, void *stack_end, int flags, struct pmi_child_plan *plan,
                      int *ret_pidfd, atomic_int *present)
{
#ifdef PMI_HAVE_RAW_CLONE
    if (by == WAY_WORD_RAW)
        return pmi_raw_clone(child_main, stack_end, flags, plan, ret_pidfd, present);
#else
    (void)by;
#endif
    return CLONE_CALL(child_main, stack_end, flags, plan, ret_pidfd, NULL, present);
}

// What is left when EINVAL was the answer to this way.
static enum way next_way(enum way refused)
{
#ifdef PMI_HAVE_RAW_CLONE
    if (refused == WAY_WORD)
        return WAY_WORD_RAW;
#else
    (void)refused;
#endif
    return WAY_VFORK;
}

// *stack is NULL afterwards where it has to stay with a child that cannot die.
static int clone_once(struct pmi_child_plan *plan, void **stack, int64_t deadline, pid_t *ret_pid,
                      int *ret_pidfd)
{
    struct pmi_quiet quiet;
    atomic_int *present = *stack; // At its far end, and with it as long as the kernel may clear it.
    int flags = CLONE_VM | CLONE_PIDFD | SIGCHLD;
    enum way by = find_way();
    bool by_word = by != WAY_VFORK;
    flags |= by_word ? CLONE_CHILD_CLEARTID : CLONE_VFORK;
    if (plan->keep_below > 0)
        flags |= CLONE_FILES;
    int64_t rest = deadline == PMI_NEVER ? 0 : deadline - pmi_now_ms();
    plan->timer_ms = by_word || deadline == PMI_NEVER ? 0 : rest > 0 ? rest : 1;
    *ret_pidfd = -1; // Stays so before Linux 5.2, which does not know the flag.
    atomic_store(present, by_word);
    pmi_quiet_begin(&quiet);
    int pid = call_clone(by, (char *)*stack + STACK_SIZE, flags, plan, ret_pidfd, present);
    int e = errno;
    if (pid >= 0 && !await_departure(present, deadline)) {
        pmi_child_kill(pid, *ret_pidfd);
        if (!await_death(pid, *ret_pidfd, present))
            *stack = NULL;
        plan->progress = PMI_CHILD_OVERDUE;
    }
    pmi_quiet_end(&quiet);
    *ret_pid = pid;
    if (pid < 0 && e == EINVAL && by_word) {
        atomic_store(&way, (int)next_way(by));
        return clone_once(plan, stack, deadline, ret_pid, ret_pidfd);
    }
    return pid < 0 ? e : 0;
}

// A child that could not take its table apart has touched nothing, and is as good as never born.
static bool try_with_our_table(struct pmi_child_plan *plan, void **stack, int64_t deadline,
                               pid_t *ret_pid, int *ret_pidfd, int *ret_errno)
{
    struct pmi_low_loan loan;
    if (find_way() == WAY_VFORK || !pmi_low_fds_lend(plan->low_fds, plan, &loan))
        return false;
    *ret_errno = clone_once(plan, stack, deadline, ret_pid, ret_pidfd);
    bool refused = *ret_errno == 0 && plan->progress == PMI_CHILD_NOT_APART;
    pmi_low_fds_take_back(plan->low_fds, plan, &loan, refused);
    if (refused) {
        (void)pmi_child_end(*ret_pid, *ret_pidfd);
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
    plan->fallbacks = 0;
    if (!try_with_our_table(plan, &stack, deadline, ret_pid, ret_pidfd, &e)) {
        plan->fallbacks = PM_FALLBACK_COPIED_TABLE;
        e = clone_once(plan, &stack, deadline, ret_pid, ret_pidfd);
    }
    if (find_way() == WAY_VFORK)
        plan->fallbacks |= PM_FALLBACK_VFORK;
    if (stack != NULL)
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
