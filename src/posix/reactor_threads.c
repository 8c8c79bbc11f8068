// What stands in for a pidfd where there is no kqueue either: one thread per process that waits for
// it and then makes a pipe readable. And the reactor over poll(), for systems with neither epoll
// nor kqueue.
#include "reactor.h"
#include "waiter.h"

#include "error.h"
#include "keeper.h"
#include "kqueue.h"
#include "sys.h"

#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>

#define REST_MS 50

// ------------------------------------------------------------------------------------------------
// Waiter
// ------------------------------------------------------------------------------------------------

// Shared by the owner and the thread; the last one frees it.
struct pmi_waiter {
    atomic_int refs;
    struct pmi_mutex lock;
    struct pmi_cond changed; // Of `stop`.
    bool stop;               // Under lock.
    atomic_bool condemned;
    pid_t pid;
    bool child;
    struct pmi_identity id;
    int read_fd;  // The owner's.
    int write_fd; // The thread's.
    struct pmi_thread thread;
};

static void release(struct pmi_waiter *waiter)
{
    if (atomic_fetch_sub(&waiter->refs, 1) != 1)
        return;
    pmi_cond_destroy(&waiter->changed);
    pmi_mutex_destroy(&waiter->lock);
    free(waiter);
}

// Until the next look; true: there is to be none. Who has many closes one after the other, so none
// of them may take its time.
static bool rest(struct pmi_waiter *waiter)
{
    int64_t next = pmi_now_ms() + PMI_WAITER_LOOK_MS;
    pmi_mutex_lock(&waiter->lock);
    while (!waiter->stop && pmi_now_ms() < next)
        pmi_cond_wait(&waiter->changed, &waiter->lock, next);
    bool stop = waiter->stop;
    pmi_mutex_unlock(&waiter->lock);
    return stop;
}

static void wait_for_other(struct pmi_waiter *waiter)
{
    do {
        int result = pmi_os_identity_check(&waiter->id);
        if (result == PM_ERR_GONE)
            return;
        if (result == PM_OK && atomic_load(&waiter->condemned))
            (void)pmi_sys_kill(waiter->pid, SIGKILL);
    } while (!rest(waiter));
}

static void wait_for(void *arg)
{
    struct pmi_waiter *waiter = arg;
    siginfo_t info;
    // The status stays there for pmi_os_process_reap, which touches nothing before exit_fd is
    // readable: so the pid is still this process's as long as we wait. ECHILD: it is gone as well.
    if (waiter->child)
        (void)pmi_sys_waitid(P_PID, (id_t)waiter->pid, &info, WEXITED | WNOWAIT);
    else
        wait_for_other(waiter);
    // A byte, not only an end of file: a stray fork of the host may hold a copy of write_fd.
    (void)pmi_sys_write(waiter->write_fd, "", 1);
    (void)pmi_sys_close(waiter->write_fd);
    release(waiter);
}

int pmi_waiter_start(pid_t pid, bool child, const struct pmi_identity *id,
                     struct pmi_waiter **ret_waiter, int *ret_exit_fd)
{
    int fds[2];
    int result = pmi_kqueue_exit_open(pid, child, id, ret_exit_fd);
    if (result != PM_ERR_UNSUPPORTED) {
        *ret_waiter = NULL;
        return result;
    }
    struct pmi_waiter *waiter = calloc(1, sizeof(*waiter));
    if (waiter == NULL)
        return PM_ERR_NO_MEMORY;
    if (pmi_sys_pipe(fds) < 0) {
        result = pmi_error_from_errno(errno);
        free(waiter);
        return result;
    }
    atomic_init(&waiter->refs, 2);
    pmi_mutex_init(&waiter->lock);
    pmi_cond_init(&waiter->changed);
    atomic_init(&waiter->condemned, false);
    waiter->pid = pid;
    waiter->child = child;
    if (id != NULL)
        waiter->id = *id;
    waiter->read_fd = fds[0];
    waiter->write_fd = fds[1];
    result = pmi_thread_start(&waiter->thread, wait_for, waiter);
    if (result != PM_OK) {
        (void)pmi_sys_close(fds[0]);
        (void)pmi_sys_close(fds[1]);
        atomic_store(&waiter->refs, 1);
        release(waiter);
        return result;
    }
    *ret_waiter = waiter;
    *ret_exit_fd = fds[0];
    return PM_OK;
}

void pmi_waiter_close(struct pmi_waiter *waiter)
{
    struct pollfd in = {.fd = waiter->read_fd, .events = POLLIN};
    pmi_mutex_lock(&waiter->lock);
    waiter->stop = true;
    pmi_cond_broadcast(&waiter->changed);
    pmi_mutex_unlock(&waiter->lock);
    if (!waiter->child || pmi_sys_poll(&in, 1, 0) > 0)
        pmi_thread_join(&waiter->thread);
    else
        (void)pthread_detach(waiter->thread.thread);
    (void)pmi_sys_close(waiter->read_fd);
    release(waiter);
}

void pmi_waiter_condemn(struct pmi_waiter *waiter)
{
    atomic_store(&waiter->condemned, true);
    (void)pthread_detach(waiter->thread.thread);
    (void)pmi_sys_close(waiter->read_fd);
    release(waiter);
}

// ------------------------------------------------------------------------------------------------
// Timeouts, for every reactor; the wake-up of those that have none of their own
// ------------------------------------------------------------------------------------------------

int pmi_poll_timeout(int64_t deadline)
{
    if (deadline == PMI_NEVER)
        return -1;
    int64_t rest = deadline - pmi_now_ms();
    return rest <= 0 ? 0 : rest > INT_MAX ? INT_MAX : (int)rest;
}

void pmi_reactor_rest(int64_t deadline)
{
    int rest = pmi_poll_timeout(deadline);
    pmi_sleep_ms(rest < 0 || rest > REST_MS ? REST_MS : (uint32_t)rest);
}

#ifndef HAVE_KQUEUE

int pmi_wake_open(int fds[2])
{
#ifdef HAVE_EVENTFD
    fds[0] = fds[1] = pmi_sys_eventfd();
    return fds[0] < 0 ? -1 : 0;
#else
    if (pmi_sys_pipe(fds) < 0)
        return -1;
    if (pmi_sys_set_nonblock(fds[0], true) < 0 || pmi_sys_set_nonblock(fds[1], true) < 0) {
        pmi_wake_close(fds);
        return -1;
    }
    return 0;
#endif
}

void pmi_wake_close(int fds[2])
{
    (void)pmi_sys_close(fds[0]);
    if (fds[1] != fds[0])
        (void)pmi_sys_close(fds[1]);
    fds[0] = fds[1] = -1;
}

void pmi_wake_set(const int fds[2])
{
    // EAGAIN: full, so awake already.
    const uint64_t one = 1;
    (void)pmi_sys_write(fds[1], &one, sizeof(one));
}

void pmi_wake_drain(const int fds[2])
{
    char buffer[128];
    while (pmi_sys_read(fds[0], buffer, sizeof(buffer)) == (ssize_t)sizeof(buffer))
        continue;
}

void pmi_os_reactor_wake(struct pmi_os_manager *om)
{
    pmi_wake_set(om->wake_fds);
}

#endif

// ------------------------------------------------------------------------------------------------
// The reactor over poll()
// ------------------------------------------------------------------------------------------------

#if !defined(HAVE_EPOLL) && !defined(HAVE_KQUEUE)

struct watch {
    int fd;
    void *token;
};

struct pmi_poll_set {
    struct pmi_mutex lock;
    struct watch *watches;
    size_t count, capacity;
    struct pollfd *fds; // The poller's own copy.
    size_t fds_capacity;
};

int pmi_reactor_open(struct pmi_os_manager *om, uint32_t *ret_os_code)
{
    om->set = calloc(1, sizeof(*om->set));
    if (om->set == NULL)
        return PM_ERR_NO_MEMORY;
    pmi_mutex_init(&om->set->lock);
    if (pmi_wake_open(om->wake_fds) < 0) {
        *ret_os_code = (uint32_t)errno;
        int result = pmi_error_from_errno(errno);
        pmi_reactor_close(om);
        return result;
    }
    return PM_OK;
}

void pmi_reactor_close(struct pmi_os_manager *om)
{
    pmi_wake_close(om->wake_fds);
    if (om->set == NULL)
        return;
    pmi_mutex_destroy(&om->set->lock);
    free(om->set->watches);
    free(om->set->fds);
    free(om->set);
    om->set = NULL;
}

int pmi_os_reactor_watch(struct pmi_os_manager *om, struct pmi_os_process *op, void *token)
{
    struct pmi_poll_set *set = om->set;
    int result = PM_OK;
    if (op->exit_fd < 0)
        return PM_ERR_GONE;
    pmi_mutex_lock(&set->lock);
    if (set->count == set->capacity) {
        size_t capacity = set->capacity > 0 ? set->capacity * 2 : 16;
        struct watch *watches = realloc(set->watches, capacity * sizeof(*watches));
        if (watches == NULL) {
            result = PM_ERR_NO_MEMORY;
        } else {
            set->watches = watches;
            set->capacity = capacity;
        }
    }
    if (result == PM_OK)
        set->watches[set->count++] = (struct watch){.fd = op->exit_fd, .token = token};
    pmi_mutex_unlock(&set->lock);
    if (result == PM_OK)
        pmi_os_reactor_wake(om); // A poll under way does not know it yet.
    return result;
}

void pmi_os_reactor_unwatch(struct pmi_os_manager *om, struct pmi_os_process *op)
{
    struct pmi_poll_set *set = om->set;
    pmi_mutex_lock(&set->lock);
    for (size_t i = 0; i < set->count; i++) {
        if (set->watches[i].fd == op->exit_fd) {
            set->watches[i] = set->watches[--set->count];
            break;
        }
    }
    pmi_mutex_unlock(&set->lock);
}

// Fills set->fds behind the wake-up; without memory only that is polled, and not for long.
static nfds_t gather(struct pmi_os_manager *om, int *timeout)
{
    struct pmi_poll_set *set = om->set;
    static const int retry_ms = 100;
    pmi_mutex_lock(&set->lock);
    if (set->fds_capacity < set->count + 1) {
        struct pollfd *fds = realloc(set->fds, (set->count + 1) * sizeof(*fds));
        if (fds != NULL) {
            set->fds = fds;
            set->fds_capacity = set->count + 1;
        } else if (*timeout < 0 || *timeout > retry_ms) {
            *timeout = retry_ms;
        }
    }
    nfds_t n = 0;
    if (set->fds_capacity > 0)
        set->fds[n++] = (struct pollfd){.fd = om->wake_fds[0], .events = POLLIN};
    for (size_t i = 0; i < set->count && n < set->fds_capacity; i++)
        set->fds[n++] = (struct pollfd){.fd = set->watches[i].fd, .events = POLLIN};
    pmi_mutex_unlock(&set->lock);
    return n;
}

int pmi_os_reactor_pause(struct pmi_os_manager *om, struct pmi_os_process *op, void *token,
                         bool pause)
{
    (void)om;
    (void)op;
    (void)token;
    (void)pause;
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
    struct pmi_poll_set *set = om->set;
    nfds_t n;
    int ready;
    do {
        int timeout = pmi_poll_timeout(deadline);
        n = gather(om, &timeout);
        ready = pmi_sys_poll(set->fds, n, timeout);
    } while (ready < 0 && errno == EINTR && pmi_now_ms() < deadline);
    if (ready < 0 || (ready > 0 && (set->fds[0].revents & POLLNVAL) != 0))
        pmi_reactor_rest(deadline);
    if (ready <= 0)
        return 0;
    pmi_wake_drain(om->wake_fds);

    size_t count = 0;
    bool keeper = false;
    pmi_mutex_lock(&set->lock);
    for (nfds_t i = 1; i < n; i++) {
        if (set->fds[i].revents == 0)
            continue;
        for (size_t k = 0; k < set->count; k++) {
            if (set->watches[k].fd != set->fds[i].fd)
                continue;
            if (set->watches[k].token == PMI_KEEPER_TOKEN(om))
                keeper = true;
            else if (count < capacity)
                tokens[count++] = set->watches[k].token;
        }
    }
    pmi_mutex_unlock(&set->lock);
    if (keeper)
        pmi_keeper_on_exit(om);
    return count;
}

int pmi_os_reactor_native(struct pmi_os_manager *om, pm_native *ret_native)
{
    (void)om;
    (void)ret_native;
    return PM_ERR_UNSUPPORTED; // poll() has no descriptor of its own to poll.
}

#endif
