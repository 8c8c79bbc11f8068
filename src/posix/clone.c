// The vfork-like clone: the child runs in our memory, on a stack of its own, and we sleep until it
// has left by exec or exit. Costs the same however much memory the host has.
#include "start.h"

#include "pmi_config.h"

#include <errno.h>

#if defined(HAVE_CLONE) && defined(HAVE_CLONE_PIDFD)

#include "quiet.h"
#include "sys.h"

#include <sched.h>
#include <sys/mman.h>
#ifndef CLONE_PIDFD
#include <linux/sched.h>
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

int pmi_clone_child(struct pmi_child_plan *plan, pid_t *ret_pid, int *ret_pidfd)
{
    void *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED)
        return errno;

    struct pmi_quiet quiet;
    int pidfd = -1; // Stays so before Linux 5.2, which does not know the flag.
    pmi_quiet_begin(&quiet);
    int pid = CLONE_CALL(child_main, (char *)stack + STACK_SIZE,
                         CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, plan, &pidfd);
    int e = errno;
    pmi_quiet_end(&quiet);
    (void)munmap(stack, STACK_SIZE);
    if (pid < 0)
        return e;
    *ret_pid = pid;
    *ret_pidfd = pidfd;
    return 0;
}

#else

int pmi_clone_child(struct pmi_child_plan *plan, pid_t *ret_pid, int *ret_pidfd)
{
    (void)plan;
    (void)ret_pid;
    (void)ret_pidfd;
    return ENOSYS;
}

#endif
