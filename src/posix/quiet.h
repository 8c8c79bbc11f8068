// A stretch of code in which this thread neither takes a signal nor is cancelled: from before the
// birth of a child until it has left our memory, or is known to have its own.
#ifndef PMI_POSIX_QUIET_H
#define PMI_POSIX_QUIET_H

#include "pmi_config.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>
#ifdef HAVE_RT_SIGPROCMASK
#include <sys/syscall.h>
#endif

struct pmi_quiet {
#ifdef HAVE_RT_SIGPROCMASK
    unsigned char mask[16];
#else
    sigset_t mask;
#endif
    int cancel_state;
};

#ifdef __mips__
#define PMI_QUIET_BYTES 16
#else
#define PMI_QUIET_BYTES 8
#endif

static inline void pmi_quiet_begin(struct pmi_quiet *quiet)
{
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &quiet->cancel_state);
#ifdef HAVE_RT_SIGPROCMASK
    // Raw: the C library leaves the signals that it uses itself out of every mask, and their
    // handlers would run in the child, on the starter's memory.
    static const unsigned char all[16] = {255, 255, 255, 255, 255, 255, 255, 255,
                                          255, 255, 255, 255, 255, 255, 255, 255};
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, all, quiet->mask, PMI_QUIET_BYTES);
#else
    sigset_t all;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &quiet->mask);
#endif
}

static inline void pmi_quiet_end(struct pmi_quiet *quiet)
{
#ifdef HAVE_RT_SIGPROCMASK
    (void)syscall(SYS_rt_sigprocmask, SIG_SETMASK, quiet->mask, NULL, PMI_QUIET_BYTES);
#else
    (void)pthread_sigmask(SIG_SETMASK, &quiet->mask, NULL);
#endif
    (void)pthread_setcancelstate(quiet->cancel_state, &quiet->cancel_state);
}

#endif
