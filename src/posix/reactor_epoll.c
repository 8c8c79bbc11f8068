// The reactor over epoll: one level-triggered entry per process, on its exit_fd.
#include "reactor.h"

#include "error.h"
#include "keeper.h"
#include "sys.h"

#include <errno.h>

#ifdef HAVE_EPOLL

#include <sys/epoll.h>

// Events taken per poll; what does not fit comes with the next one.
#define EVENTS_MAX 64

static int add(int poll_fd, int fd, void *token)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = token}};
    return PMI_SYS(epoll_ctl)(poll_fd, EPOLL_CTL_ADD, fd, &event);
}

int pmi_reactor_open(struct pmi_os_manager *om, uint32_t *ret_os_code)
{
    int result = PM_OK;
    om->poll_fd = pmi_sys_lift(PMI_SYS(epoll_create1)(EPOLL_CLOEXEC), 3);
    if (om->poll_fd < 0 || pmi_wake_open(om->wake_fds) < 0 ||
        add(om->poll_fd, om->wake_fds[0], om->wake_fds) < 0) {
        *ret_os_code = (uint32_t)errno;
        result = pmi_error_from_errno(errno);
        pmi_reactor_close(om);
    }
    return result;
}

void pmi_reactor_close(struct pmi_os_manager *om)
{
    pmi_wake_close(om->wake_fds);
    om->poll_fd = pmi_sys_close(om->poll_fd);
}

int pmi_os_reactor_watch(struct pmi_os_manager *om, struct pmi_os_process *op, void *token)
{
    if (op->exit_fd < 0)
        return PM_ERR_GONE;
    if (add(om->poll_fd, op->exit_fd, token) == 0)
        return PM_OK;
    // ENOSPC is the limit on watches, not a disk.
    return errno == ENOSPC ? PM_ERR_NO_DESCRIPTORS : pmi_error_from_errno(errno);
}

void pmi_os_reactor_unwatch(struct pmi_os_manager *om, struct pmi_os_process *op)
{
    if (op->exit_fd >= 0)
        (void)PMI_SYS(epoll_ctl)(om->poll_fd, EPOLL_CTL_DEL, op->exit_fd, NULL);
}

// Taken out, since epoll cannot be asked for nothing: of an entry without events it tells EPOLLHUP,
// which a pidfd has once it is reaped (seen on 6.18), and each death wakes whoever polls to look.
int pmi_os_reactor_pause(struct pmi_os_manager *om, struct pmi_os_process *op, void *token,
                         bool pause)
{
    if (pause) {
        pmi_os_reactor_unwatch(om, op);
        return PM_OK;
    }
    int result = pmi_os_reactor_watch(om, op, token);
    return result == PM_ERR_GONE || result == PM_ERR_EXISTS ? PM_OK : result;
}

bool pmi_os_reactor_hold(struct pmi_os_manager *om)
{
    int state = pmi_cancel_off();
    if (pthread_mutex_trylock(&om->tokens_lock.mutex) != 0) {
        pmi_cancel_restore(state);
        return false;
    }
    om->tokens_lock.cancel_state = state;
    return true;
}

void pmi_os_reactor_release(struct pmi_os_manager *om)
{
    pmi_mutex_unlock(&om->tokens_lock);
}

void pmi_os_reactor_done(struct pmi_os_manager *om)
{
    pmi_mutex_unlock(&om->tokens_lock);
}

size_t pmi_os_reactor_poll(struct pmi_os_manager *om, void **tokens, size_t capacity,
                           int64_t deadline)
{
    struct epoll_event events[EVENTS_MAX];
    int most = capacity < EVENTS_MAX - 1 ? (int)capacity + 1 : EVENTS_MAX;
    int n;
    do
        n = PMI_SYS(epoll_wait)(om->poll_fd, events, 1, pmi_poll_timeout(deadline));
    while (n < 0 && errno == EINTR && pmi_now_ms() < deadline);
    if (n < 0 && errno != EINTR)
        pmi_reactor_rest(deadline);
    // Waited for without the lock, taken with it.
    pmi_mutex_lock(&om->tokens_lock);
    if (n > 0)
        n = PMI_SYS(epoll_wait)(om->poll_fd, events, most, 0);

    size_t count = 0;
    for (int i = 0; i < n; i++) {
        void *token = events[i].data.ptr;
        if (token == om->wake_fds)
            pmi_wake_drain(om->wake_fds);
        else if (token == PMI_KEEPER_TOKEN(om))
            pmi_keeper_on_exit(om);
        else if (count < capacity)
            tokens[count++] = token;
    }
    return count;
}

int pmi_os_reactor_native(struct pmi_os_manager *om, pm_native *ret_native)
{
    *ret_native = om->poll_fd;
    return PM_OK;
}

#endif
