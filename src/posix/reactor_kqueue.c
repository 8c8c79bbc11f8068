// The reactor over kqueue, for macOS and the BSDs, and the kqueue of a single process that stands
// in for a pidfd there.
//
// A kqueue is a descriptor like any other: it can be polled, and watched by another kqueue. So each
// process has one of its own as its exit_fd, and the manager's kqueue has one level-triggered entry
// per process on that, as with epoll over pidfds. The entry on a pid is bound to the process, not
// to the number: once made, nobody else can take its place.
#include "kqueue.h"
#include "reactor.h"

#include "error.h"
#include "identity.h"
#include "keeper.h"
#include "reap.h"
#include "sys.h"

#include <errno.h>
#include <string.h>

#ifdef HAVE_KQUEUE

#include <sys/event.h>
#include <time.h>

// Events taken per poll; what does not fit, here or into the caller's array, comes again.
#define EVENTS_MAX 64
// Of the one EVFILT_USER entry in a kqueue of ours.
#define USER_IDENT 0

// A child of fork() does not get a kqueue, so close-on-exec may come a moment later.
static int open_kqueue(void)
{
    int kq = PMI_SYS(kqueue)();
#ifndef PMI_LIBKQUEUE // Which knows it by its number.
    kq = pmi_sys_lift(kq, 3);
#endif
    if (kq >= 0 && pmi_sys_set_cloexec(kq) < 0)
        kq = pmi_sys_close(kq);
    return kq;
}

// Makes a change and waits for nothing.
static int change(int kq, struct kevent event)
{
    int r;
    do
        r = PMI_SYS(kevent)(kq, &event, 1, NULL, 0, NULL);
    while (r < 0 && errno == EINTR);
    return r;
}

// ------------------------------------------------------------------------------------------------
// The end of one process
// ------------------------------------------------------------------------------------------------

#ifndef PMI_LIBKQUEUE

// Makes the kqueue readable for ever.
static int set_ended(int kq)
{
    return change(kq, (struct kevent){.ident = USER_IDENT,
                                      .filter = EVFILT_USER,
                                      .flags = EV_ADD,
                                      .fflags = NOTE_TRIGGER});
}

static int watch_exit(int kq, pid_t pid)
{
    struct kevent event = {.ident = (uintptr_t)pid,
                           .filter = EVFILT_PROC,
                           .flags = EV_ADD | EV_ONESHOT,
                           .fflags = NOTE_EXIT};
#ifdef NOTE_EXITSTATUS
    // macOS tells the status only to who asks, and may.
    struct kevent asking = event;
    asking.fflags |= NOTE_EXITSTATUS;
    if (change(kq, asking) == 0)
        return 0;
    if (errno != EACCES && errno != EPERM)
        return -1;
#endif
    return change(kq, event);
}

// Whether the number `pid` still is the process that is meant.
static bool is_same(pid_t pid, bool child, const struct pmi_identity *id)
{
    if (child)
        return pmi_child_look(pid) >= 0 || errno != ECHILD;
    return pmi_os_identity_check(id) != PM_ERR_GONE;
}

int pmi_kqueue_exit_open(pid_t pid, bool child, const struct pmi_identity *id, int *ret_exit_fd)
{
    int kq = open_kqueue();
    if (kq < 0)
        return pmi_error_from_errno(errno);
    int r = watch_exit(kq, pid);
    // ESRCH: it has ended. Some systems say that of a zombie as well, others tell its end at once.
    // The entry first, the proof after: a number that has changed hands meanwhile is let go of.
    if (r < 0 && errno == ESRCH) {
        r = set_ended(kq);
    } else if (r == 0 && !is_same(pid, child, id)) {
        (void)pmi_sys_close(kq);
        kq = open_kqueue();
        r = kq < 0 ? -1 : set_ended(kq);
    }
    if (r < 0) {
        int result =
            errno == EACCES || errno == EPERM ? PM_ERR_UNSUPPORTED : pmi_error_from_errno(errno);
        (void)pmi_sys_close(kq);
        return result;
    }
    *ret_exit_fd = kq;
    return PM_OK;
}

int pmi_kqueue_exit_status(int exit_fd, int *ret_status)
{
    const struct timespec none = {.tv_sec = 0};
    struct kevent events[2];
    // The entry goes with its event: what keeps the kqueue readable comes before.
    if (set_ended(exit_fd) < 0)
        return PM_ERR_UNSUPPORTED;
    int n = PMI_SYS(kevent)(exit_fd, NULL, 0, events, 2, &none);
    for (int i = 0; i < n; i++) {
        if (events[i].filter != EVFILT_PROC || (events[i].fflags & NOTE_EXIT) == 0)
            continue;
#ifdef NOTE_EXITSTATUS
        if ((events[i].fflags & NOTE_EXITSTATUS) == 0)
            continue;
#endif
        *ret_status = (int)events[i].data;
        return PM_OK;
    }
    return PM_ERR_UNSUPPORTED;
}

#endif

// ------------------------------------------------------------------------------------------------
// The reactor
// ------------------------------------------------------------------------------------------------

int pmi_reactor_open(struct pmi_os_manager *om, uint32_t *ret_os_code)
{
    const struct kevent wake = {.ident = USER_IDENT,
                                .filter = EVFILT_USER,
                                .flags = EV_ADD | EV_CLEAR};
    int result = PM_OK;
    om->poll_fd = open_kqueue();
    if (om->poll_fd < 0 || change(om->poll_fd, wake) < 0) {
        *ret_os_code = (uint32_t)errno;
        result = pmi_error_from_errno(errno);
        pmi_reactor_close(om);
    }
    return result;
}

void pmi_reactor_close(struct pmi_os_manager *om)
{
    om->poll_fd = pmi_sys_close(om->poll_fd);
}

void pmi_os_reactor_wake(struct pmi_os_manager *om)
{
    (void)change(om->poll_fd, (struct kevent){.ident = USER_IDENT,
                                              .filter = EVFILT_USER,
                                              .fflags = NOTE_TRIGGER});
}

// EV_ADD, EV_DELETE, EV_ENABLE or EV_DISABLE of the entry of a process.
static int change_watch(struct pmi_os_manager *om, int exit_fd, unsigned short flags, void *token)
{
    return change(om->poll_fd, (struct kevent){.ident = (uintptr_t)exit_fd,
                                               .filter = EVFILT_READ,
                                               .flags = flags,
                                               .udata = token});
}

int pmi_os_reactor_watch(struct pmi_os_manager *om, struct pmi_os_process *op, void *token)
{
    if (op->exit_fd < 0)
        return PM_ERR_GONE;
    return change_watch(om, op->exit_fd, EV_ADD, token) == 0 ? PM_OK : pmi_error_from_errno(errno);
}

void pmi_os_reactor_unwatch(struct pmi_os_manager *om, struct pmi_os_process *op)
{
    if (op->exit_fd >= 0)
        (void)change_watch(om, op->exit_fd, EV_DELETE, NULL);
}

int pmi_os_reactor_pause(struct pmi_os_manager *om, struct pmi_os_process *op, void *token,
                         bool pause)
{
    if (op->exit_fd >= 0) // ENOENT: not watched any more.
        (void)change_watch(om, op->exit_fd, pause ? EV_DISABLE : EV_ENABLE, token);
    return PM_OK;
}

bool pmi_os_reactor_hold(struct pmi_os_manager *om)
{
    (void)om;
    return false;
}

void pmi_os_reactor_release(struct pmi_os_manager *om)
{
    (void)om;
}

void pmi_os_reactor_done(struct pmi_os_manager *om)
{
    (void)om;
}

size_t pmi_os_reactor_poll(struct pmi_os_manager *om, void **tokens, size_t capacity,
                           int64_t deadline)
{
    struct kevent events[EVENTS_MAX];
    int n;
    do {
        int ms = pmi_poll_timeout(deadline);
        struct timespec rest = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
        n = PMI_SYS(kevent)(om->poll_fd, NULL, 0, events, EVENTS_MAX, ms < 0 ? NULL : &rest);
    } while (n < 0 && errno == EINTR && pmi_now_ms() < deadline);
    if (n < 0 && errno != EINTR)
        pmi_reactor_rest(deadline);

    size_t count = 0;
    for (int i = 0; i < n; i++) {
        void *token = (void *)events[i].udata;
        if (events[i].filter == EVFILT_USER)
            continue; // A wake-up: EV_CLEAR has taken it back.
        if (token == PMI_KEEPER_TOKEN(om))
            pmi_keeper_on_exit(om);
        else if (count < capacity)
            tokens[count++] = token;
    }
    return count;
}

int pmi_os_reactor_native(struct pmi_os_manager *om, pm_native *ret_native)
{
#ifdef PMI_LIBKQUEUE
    (void)om;
    (void)ret_native;
    return PM_ERR_UNSUPPORTED; // Its kqueue is the write end of a pipe.
#else
    *ret_native = om->poll_fd;
    return PM_OK;
#endif
}

#endif
