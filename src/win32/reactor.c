// Waits of the system's thread pool, one per process: no limit of 64, no thread of ours.
#include <stdlib.h>

#include "win32.h"

struct pmi_watch {
    struct pmi_reactor *reactor;
    void *token;
    HANDLE wait;
    bool armed;  // `wait` is there. These three under the lock.
    bool ended;  // The callback ran.
    bool listed; // In the list below: both.
    struct pmi_watch *next, *previous;
};

struct pmi_reactor {
    SRWLOCK lock;
    HANDLE event; // Manual reset: set exactly while `woken` or `first`.
    bool woken;
    struct pmi_watch *first, *last; // The ended ones, oldest first.
};

// ------------------------------------------------------------------------------------------------
// Manager
// ------------------------------------------------------------------------------------------------

// Threads of ours may run when the host unloads the module: it stays.
static void pin_module(void)
{
    static const wchar_t inside;
    HMODULE self;
    (void)GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_PIN,
                             &inside, &self);
}

int pmi_os_manager_open(struct pmi_os_manager *om, const struct pmi_os_manager_options *options,
                        struct pm_error *err)
{
    if (options->own_process) {
        return pmi_win_refuse(err, PM_ERR_UNSUPPORTED, PM_STAGE_CHECK, "own_process",
                              "no process is given to an ancestor here: jobs hold trees together");
    }
    pin_module();
    struct pmi_reactor *r = calloc(1, sizeof *r);
    struct pmi_job_keeper *keeper = pmi_win_keeper_new();
    HANDLE event = CreateEventW(NULL, TRUE, FALSE, NULL);
    if (event == NULL) {
        (void)pmi_win_fail(err, PM_STAGE_WATCH, GetLastError());
    } else if (r == NULL || keeper == NULL) {
        (void)pmi_win_refuse(err, PM_ERR_NO_MEMORY, PM_STAGE_WATCH, NULL, NULL);
        (void)CloseHandle(event);
        event = NULL;
    }
    if (event == NULL) {
        free(r);
        pmi_win_keeper_unref(keeper);
        return err->code;
    }
    InitializeSRWLock(&r->lock);
    r->event = event;
    om->reactor = r;
    om->keeper = keeper;
    return PM_OK;
}

void pmi_os_manager_close(struct pmi_os_manager *om)
{
    if (om->keeper != NULL) {
        pmi_win_keeper_end(om->keeper);
        pmi_win_keeper_unref(om->keeper);
    }
    if (om->reactor != NULL) {
        (void)CloseHandle(om->reactor->event);
        free(om->reactor);
    }
    *om = (struct pmi_os_manager)PMI_OS_MANAGER_INIT;
}

// ------------------------------------------------------------------------------------------------
// Watches
// ------------------------------------------------------------------------------------------------

// Under the lock.
static void append(struct pmi_reactor *r, struct pmi_watch *w)
{
    w->listed = true;
    w->previous = r->last;
    if (r->last != NULL) {
        r->last->next = w;
    } else {
        r->first = w;
    }
    r->last = w;
    (void)SetEvent(r->event);
}

// On a thread of the pool; short enough to run on the one that waits.
static void CALLBACK on_exit_seen(void *context, BOOLEAN timed_out)
{
    struct pmi_watch *w = context;
    struct pmi_reactor *r = w->reactor;
    (void)timed_out;
    AcquireSRWLockExclusive(&r->lock);
    w->ended = true;
    if (w->armed) {
        append(r, w);
    }
    ReleaseSRWLockExclusive(&r->lock);
}

int pmi_os_reactor_watch(struct pmi_os_manager *om, struct pmi_os_process *op, void *token)
{
    struct pmi_reactor *r = om->reactor;
    struct pmi_watch *w = calloc(1, sizeof *w);
    if (w == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    w->reactor = r;
    w->token = token;
    op->watch = w;
    if (!RegisterWaitForSingleObject(&w->wait, op->process, on_exit_seen, w, INFINITE,
                                     WT_EXECUTEONLYONCE | WT_EXECUTEINWAITTHREAD)) {
        DWORD os_code = GetLastError();
        op->watch = NULL;
        free(w);
        return pmi_win_code(os_code);
    }
    // The callback may have run before RegisterWaitForSingleObject wrote w->wait. The poller, who
    // may unwatch at once, must not hear of it until that is there.
    AcquireSRWLockExclusive(&r->lock);
    w->armed = true;
    if (w->ended) {
        append(r, w);
    }
    ReleaseSRWLockExclusive(&r->lock);
    return PM_OK;
}

// Under the lock: the event says whether a poll has something to give.
static void settle_event(struct pmi_reactor *r)
{
    if (r->first == NULL && !r->woken) {
        (void)ResetEvent(r->event);
    }
}

void pmi_os_reactor_unwatch(struct pmi_os_manager *om, struct pmi_os_process *op)
{
    struct pmi_reactor *r = om->reactor;
    struct pmi_watch *w = op->watch;
    if (w == NULL) {
        return;
    }
    // Waits for a callback under way, which never waits for us longer than for the lock.
    (void)UnregisterWaitEx(w->wait, INVALID_HANDLE_VALUE);
    AcquireSRWLockExclusive(&r->lock);
    if (w->listed) {
        *(w->previous != NULL ? &w->previous->next : &r->first) = w->next;
        *(w->next != NULL ? &w->next->previous : &r->last) = w->previous;
    }
    settle_event(r);
    ReleaseSRWLockExclusive(&r->lock);
    op->watch = NULL;
    free(w);
}

// ------------------------------------------------------------------------------------------------
// Polling
// ------------------------------------------------------------------------------------------------

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
    struct pmi_reactor *r = om->reactor;
    size_t count = 0;
    (void)WaitForSingleObject(r->event, pmi_win_timeout(deadline));
    AcquireSRWLockExclusive(&r->lock);
    r->woken = false;
    for (struct pmi_watch *w = r->first; w != NULL && count < capacity; w = w->next) {
        tokens[count++] = w->token;
    }
    settle_event(r);
    ReleaseSRWLockExclusive(&r->lock);
    return count;
}

void pmi_os_reactor_wake(struct pmi_os_manager *om)
{
    struct pmi_reactor *r = om->reactor;
    AcquireSRWLockExclusive(&r->lock);
    r->woken = true;
    (void)SetEvent(r->event);
    ReleaseSRWLockExclusive(&r->lock);
}

int pmi_os_reactor_native(struct pmi_os_manager *om, pm_native *ret_native)
{
    *ret_native = (pm_native)om->reactor->event;
    return PM_OK;
}
