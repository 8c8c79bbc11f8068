// Sleeps, and has next to no memory of its own: ten thousand of it have to fit into any machine.
#include <unistd.h>

#if defined(__linux__) && defined(__x86_64__) && defined(PM_NAP_BARE)

// Without the C library: one system call, again and again.
void _start(void);
void _start(void)
{
    for (;;) {
        long result;
        __asm__ volatile("syscall" : "=a"(result) : "a"(34L) : "rcx", "r11", "memory"); // pause
        (void)result;
    }
}

#else

int main(void)
{
    for (;;)
        (void)pause();
}

#endif
