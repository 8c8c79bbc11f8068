// A stand-in for the kernel's kqueue, so that what is written for macOS and the BSDs runs on Linux.
//
// As there, a kqueue is a descriptor that can be polled, watched by another kqueue and just closed.
// It knows what the library uses and no more:
//   EVFILT_READ  level-triggered; add, delete, enable, disable
//   EVFILT_USER  one per kqueue; a trigger without EV_ADD is for one made with EV_CLEAR
//   EVFILT_PROC  NOTE_EXIT, as the only entry beside an EVFILT_USER in its kqueue
// Events do not carry their ident. Where real systems differ, the calls take turns: a process that
// is dead at EV_ADD answers ESRCH (macOS) or tells its end at once (FreeBSD), and NOTE_EXITSTATUS
// of somebody else's child is granted or refused (macOS, by version and permission).
#ifndef PM_TEST_KQUEUE_H
#define PM_TEST_KQUEUE_H

#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#define EVFILT_READ (-1)
#define EVFILT_PROC (-5)
#define EVFILT_USER (-10)

#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ENABLE 0x0004
#define EV_DISABLE 0x0008
#define EV_ONESHOT 0x0010
#define EV_CLEAR 0x0020
#define EV_EOF 0x8000

#define NOTE_TRIGGER 0x01000000
#define NOTE_EXIT 0x80000000
#define NOTE_EXITSTATUS 0x04000000

struct kevent {
    uintptr_t ident;
    int16_t filter;
    uint16_t flags;
    uint32_t fflags;
    intptr_t data;
    void *udata;
};

int kqueue(void);
int kevent(int kq, const struct kevent *changes, int change_count, struct kevent *events,
           int event_count, const struct timespec *timeout);

#endif
