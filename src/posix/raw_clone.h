// clone() without the C library, for one that refuses CLONE_CHILD_CLEARTID: musl does since 1.2.5,
// because a thread made in that way would not be one of its own. Our child is no thread, and calls
// nothing that would ask for one.
#ifndef PMI_POSIX_RAW_CLONE_H
#define PMI_POSIX_RAW_CLONE_H

#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>

#if defined(__x86_64__) && defined(__LP64__)
#define PMI_HAVE_RAW_CLONE 1
#elif defined(__aarch64__) && defined(__LP64__)
#define PMI_HAVE_RAW_CLONE 1
#endif

#ifdef PMI_HAVE_RAW_CLONE

// As clone(): the child runs fn(arg) on the stack that ends at `stack`, and exits with its result.
static inline int pmi_raw_clone(int (*fn)(void *), void *stack, int flags, void *arg, int *pidfd,
                                void *child_tid)
{
    // What the child takes off its stack, which then is aligned as a call needs it.
    uintptr_t *top = (uintptr_t *)(void *)((char *)stack - ((uintptr_t)stack & 15)) - 2;
    top[0] = (uintptr_t)fn;
    top[1] = (uintptr_t)arg;
#ifdef __x86_64__
    long result;
    register void *tid __asm__("r10") = child_tid;
    register long tls __asm__("r8") = 0;
    __asm__ volatile("syscall\n\t"
                     "test %%eax, %%eax\n\t"
                     "jnz 1f\n\t"
                     "xor %%ebp, %%ebp\n\t"
                     "pop %%rax\n\t"
                     "pop %%rdi\n\t"
                     "call *%%rax\n\t"
                     "mov %%eax, %%edi\n\t"
                     "mov %[exit], %%eax\n\t"
                     "syscall\n\t"
                     "hlt\n"
                     "1:"
                     : "=a"(result)
                     : "a"((long)SYS_clone), "D"((long)flags), "S"(top), "d"(pidfd), "r"(tid),
                       "r"(tls), [exit] "i"(SYS_exit)
                     : "rcx", "r11", "memory", "cc");
#else
    register long result __asm__("x0") = flags;
    register uintptr_t *sp __asm__("x1") = top;
    register int *parent_tid __asm__("x2") = pidfd;
    register long tls __asm__("x3") = 0;
    register void *tid __asm__("x4") = child_tid;
    register long call __asm__("x8") = SYS_clone;
    __asm__ volatile("svc #0\n\t"
                     "cbnz w0, 1f\n\t"
                     "mov x29, #0\n\t"
                     "ldp x1, x0, [sp], #16\n\t"
                     "blr x1\n\t"
                     "mov x8, %[exit]\n\t"
                     "svc #0\n\t"
                     "brk #1\n"
                     "1:"
                     : "+r"(result)
                     : "r"(sp), "r"(parent_tid), "r"(tls), "r"(tid), "r"(call), [exit] "i"(SYS_exit)
                     : "memory", "cc");
#endif
    if (result < 0) {
        errno = (int)-result;
        return -1;
    }
    return (int)result;
}

#endif
#endif
