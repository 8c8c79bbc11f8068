#include "backend.h"
#include "error.h"
#include "pmi_config.h"

#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int64_t clock_ms(clockid_t clock)
{
    struct timespec ts = {0};
    int r = clock_gettime(clock, &ts);
    assert(r == 0);
    (void)r;
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

int64_t pmi_now_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}

int64_t pmi_now_us(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

int64_t pmi_wall_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

void pmi_sleep_ms(uint32_t ms)
{
    struct timespec rest = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&rest, &rest) != 0 && errno == EINTR)
        continue;
}

int pmi_cancel_off(void)
{
    int state;
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    return state;
}

void pmi_cancel_restore(int state)
{
    (void)pthread_setcancelstate(state, &state);
}

void pmi_guarded(void (*body)(void *), void (*undo)(void *), void *arg)
{
    pthread_cleanup_push(undo, arg);
    body(arg);
    pthread_cleanup_pop(1);
}

void pmi_mutex_init(struct pmi_mutex *m)
{
    m->cancel_state = PTHREAD_CANCEL_ENABLE;
    int r = pthread_mutex_init(&m->mutex, NULL);
    assert(r == 0);
    (void)r;
}

void pmi_mutex_destroy(struct pmi_mutex *m)
{
    (void)pthread_mutex_destroy(&m->mutex);
}

void pmi_mutex_lock(struct pmi_mutex *m)
{
    int state = pmi_cancel_off();
    int r = pthread_mutex_lock(&m->mutex);
    assert(r == 0);
    (void)r;
    m->cancel_state = state;
}

void pmi_mutex_unlock(struct pmi_mutex *m)
{
    int state = m->cancel_state;
    int r = pthread_mutex_unlock(&m->mutex);
    assert(r == 0);
    (void)r;
    pmi_cancel_restore(state);
}

void pmi_cond_init(struct pmi_cond *c)
{
    pthread_condattr_t attr;
    int r = pthread_condattr_init(&attr);
    assert(r == 0);
#ifdef HAVE_PTHREAD_CONDATTR_SETCLOCK
    r = pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    assert(r == 0);
#endif
    r = pthread_cond_init(&c->cond, &attr);
    assert(r == 0);
    (void)r;
    (void)pthread_condattr_destroy(&attr);
}

void pmi_cond_destroy(struct pmi_cond *c)
{
    (void)pthread_cond_destroy(&c->cond);
}

static void wait_cond(struct pmi_cond *c, struct pmi_mutex *m, int64_t deadline)
{
    if (deadline == PMI_NEVER) {
        (void)pthread_cond_wait(&c->cond, &m->mutex);
        return;
    }
#ifdef HAVE_PTHREAD_CONDATTR_SETCLOCK
    int64_t at = deadline > 0 ? deadline : 0;
    struct timespec ts = {.tv_sec = (time_t)(at / 1000), .tv_nsec = (long)(at % 1000) * 1000000};
    (void)pthread_cond_timedwait(&c->cond, &m->mutex, &ts);
#else
    // macOS: no clock to choose, but a relative wait, which is monotonic.
    int64_t rest = deadline - pmi_now_ms();
    if (rest < 0)
        rest = 0;
    struct timespec ts = {.tv_sec = (time_t)(rest / 1000),
                          .tv_nsec = (long)(rest % 1000) * 1000000};
    (void)pthread_cond_timedwait_relative_np(&c->cond, &m->mutex, &ts);
#endif
}

void pmi_cond_wait(struct pmi_cond *c, struct pmi_mutex *m, int64_t deadline)
{
    int state = m->cancel_state; // Others hold the lock while we wait.
    wait_cond(c, m, deadline);
    m->cancel_state = state;
}

void pmi_cond_broadcast(struct pmi_cond *c)
{
    (void)pthread_cond_broadcast(&c->cond);
}

struct entry {
    void (*run)(void *);
    void *arg;
};

static void *enter(void *argument)
{
    struct entry entry = *(struct entry *)argument;
    free(argument);
    entry.run(entry.arg);
    return NULL;
}

int pmi_thread_start(struct pmi_thread *t, void (*run)(void *), void *arg)
{
    struct entry *entry = malloc(sizeof(*entry));
    if (entry == NULL)
        return PM_ERR_NO_MEMORY;
    *entry = (struct entry){.run = run, .arg = arg};

    // The mask is inherited, so that no instant is left in which the host's signals could be
    // handled on a thread of ours.
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int e = pthread_create(&t->thread, NULL, enter, entry);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e != 0) {
        free(entry);
        return pmi_error_from_errno(e);
    }
    t->started = true;
    return PM_OK;
}

void pmi_thread_join(struct pmi_thread *t)
{
    if (!t->started)
        return;
    (void)pthread_join(t->thread, NULL);
    t->started = false;
}

uint64_t pmi_thread_self(void)
{
    static _Thread_local char here;
    return (uint64_t)(uintptr_t)&here;
}
