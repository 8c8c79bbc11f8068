#include <stdlib.h>

#include "core/core.h"

#define TOKENS_MAX 64
// Longest time between two looks of who cannot be told of an end.
#define LOOK_MAX_MS 20

// Takes the process off the list of watched ones; the reactor's reference goes to the caller. Under
// the manager's lock. false: somebody else has done so.
static bool unlink_locked(pm_manager *m, pm_process *p)
{
    if (p->watch_link == NULL) {
        return false;
    }
    if (p->shares_tty) {
        (void)atomic_fetch_sub(&m->ttys, 1);
    }
    *p->watch_link = p->watch_next;
    if (p->watch_next != NULL) {
        p->watch_next->watch_link = p->watch_link;
    }
    p->watch_link = NULL;
    return true;
}

static bool unlink_watched(pm_manager *m, pm_process *p)
{
    pmi_mutex_lock(&m->lock);
    bool taken = unlink_locked(m, p);
    pmi_mutex_unlock(&m->lock);
    return taken;
}

// Whether anything follows from a stop: somebody is told, or gets the terminal back.
static bool wants_stops(const pm_manager *m)
{
    return m->options.stop_watch_ms != UINT32_MAX &&
           (m->options.event != NULL || atomic_load(&m->ttys) > 0 || pmi_os_terminals_owed());
}

// The next few that this round has not come to; each with a reference.
static size_t take_some(pm_manager *m, pm_process **some, size_t capacity)
{
    size_t count = 0;
    pmi_mutex_lock(&m->lock);
    for (pm_process *p = m->watched; p != NULL && count < capacity; p = p->watch_next) {
        if (p->stop_round != m->stop_round) {
            p->stop_round = m->stop_round;
            some[count++] = pmi_process_hold(p);
        }
    }
    pmi_mutex_unlock(&m->lock);
    return count;
}

// When to look for stopped processes again. The system tells nobody but by SIGCHLD, which is the
// host's.
static int64_t watch_stops(pm_manager *m)
{
    pm_process *some[TOKENS_MAX];
    size_t count;
    pmi_mutex_lock(&m->lock);
    m->stop_round++;
    pmi_mutex_unlock(&m->lock);
    do {
        count = take_some(m, some, TOKENS_MAX);
        for (size_t i = 0; i < count; i++) {
            (void)pmi_process_look_at_stop(some[i]);
            pmi_process_drop(some[i]);
        }
    } while (count == TOKENS_MAX);
    (void)pmi_os_terminals_take_back();
    return pmi_now_ms() + m->options.stop_watch_ms;
}

// Nothing is looked for, and nobody woken, while there is no child or no listener.
static void look_for_stops(pm_manager *m)
{
    atomic_store(&m->stops_idle, true);
    pmi_mutex_lock(&m->lock);
    bool any = m->watched != NULL || pmi_os_terminals_owed();
    pmi_mutex_unlock(&m->lock);
    if (!any || !wants_stops(m)) {
        atomic_store(&m->next_stop_watch, PMI_NEVER);
        return;
    }
    atomic_store(&m->stops_idle, false);
    int64_t now = pmi_now_ms(), next = atomic_load(&m->next_stop_watch);
    if (next == PMI_NEVER) {
        atomic_store(&m->next_stop_watch, now + m->options.stop_watch_ms);
    } else if (now >= next) {
        atomic_store(&m->next_stop_watch, watch_stops(m));
    }
}

// What dies below our processes and has come to us tells nobody: it is looked for at every end, and
// in a rhythm while there is anybody from whom it could come.
static void collect_orphans(pm_manager *m, bool at_once)
{
    int64_t now = pmi_now_ms();
    atomic_store(&m->orphans_idle, true);
    pmi_mutex_lock(&m->lock);
    bool any = m->watched != NULL;
    pmi_mutex_unlock(&m->lock);
    int64_t next = atomic_load(&m->next_orphans);
    if (at_once || now >= next || (any && next == PMI_NEVER)) {
        uint64_t reaped;
        any |= pmi_os_orphans_collect(&m->os, &reaped);
        next = any ? now + PMI_ORPHANS_MS : PMI_NEVER;
        atomic_store(&m->next_orphans, next);
    }
    atomic_store(&m->orphans_idle, next == PMI_NEVER);
}

void pmi_reactor_owe(pm_manager *m, pm_process *p)
{
    if (m->closed) {
        return;
    }
    p->owed_next = m->owed;
    m->owed = pmi_process_hold(p);
    if (atomic_load(&m->next_owed) == PMI_NEVER) {
        atomic_store(&m->next_owed, pmi_now_ms() + PMI_OWED_MS);
        pmi_reactor_wake(m);
    }
}

static void give_up_owed(const pm_process *p, int result)
{
    pmi_log(p->manager, PM_LOG_WARNING,
            "what '%s' (owner %s, pid %llu) has left behind may live on, though it was to end with "
            "it: %s: %s",
            p->program != NULL ? p->program : "", p->owner != NULL ? p->owner : "",
            (unsigned long long)p->pid, pm_error_name(result), pm_strerror(result));
}

// Under no lock: it logs.
static void kill_owed(pm_manager *m, bool last)
{
    pmi_mutex_lock(&m->lock);
    pm_process *p = m->owed, *next;
    m->owed = NULL;
    atomic_store(&m->next_owed, PMI_NEVER);
    pmi_mutex_unlock(&m->lock);
    pmi_os_round_begin();
    for (; p != NULL; p = next) {
        next = p->owed_next;
        int result = pmi_process_kill_rest(p);
        if (result != PM_OK && (last || pmi_now_ms() - p->dead_ms >= PMI_OWED_MOST_MS)) {
            give_up_owed(p, result);
        } else if (result != PM_OK) {
            pmi_mutex_lock(&m->lock);
            pmi_reactor_owe(m, p);
            pmi_mutex_unlock(&m->lock);
        }
        pmi_process_drop(p);
    }
    pmi_os_round_end();
}

static void kill_owed_in_time(pm_manager *m)
{
    if (pmi_now_ms() >= atomic_load(&m->next_owed)) {
        kill_owed(m, false);
    }
}

void pmi_reactor_settle_owed(pm_manager *m, int64_t deadline)
{
    for (uint32_t pause = 1; atomic_load(&m->next_owed) != PMI_NEVER; pause *= 2) {
        kill_owed(m, false);
        if (atomic_load(&m->next_owed) == PMI_NEVER || pmi_now_ms() >= deadline) {
            return;
        }
        pause = pause < LOOK_MAX_MS ? pause : LOOK_MAX_MS;
        pmi_sleep_ms(pause);
    }
}

void pmi_reactor_forget_owed(pm_manager *m)
{
    kill_owed(m, true);
}

int pmi_reactor_add(pm_manager *m, pm_process *p)
{
    (void)pmi_process_hold(p); // The reactor's reference.
    pmi_mutex_lock(&m->lock);
    p->watch_next = m->watched;
    p->watch_link = &m->watched;
    if (m->watched != NULL) {
        m->watched->watch_link = &p->watch_next;
    }
    m->watched = p;
    pmi_mutex_unlock(&m->lock);
    if (p->shares_tty) {
        (void)atomic_fetch_add(&m->ttys, 1);
    }
    int result = pmi_os_reactor_watch(&m->os, &p->os, p);
    if (result != PM_OK) {
        (void)unlink_watched(m, p);
        pmi_process_drop(p);
        return result;
    }
    bool orphans = m->options.own_process && atomic_load(&m->orphans_idle);
    if (orphans || (atomic_load(&m->stops_idle) && wants_stops(m))) {
        pmi_reactor_wake(m);
    }
    return PM_OK;
}

// The process is dead: its status is taken, by us or by somebody before us, or will be asked for
// again from the pending list.
static void handle_exit(pm_manager *m, pm_process *p)
{
    int result = pmi_process_reap(p);
    if (result == PM_ERR_TIMEOUT) {
        return; // Not dead after all: it stays watched.
    }
    // Out of the list first: who has just waited for it himself (pmi_reactor_resume) would watch it
    // again between the two, and its token would come here when nobody holds a reference for it.
    bool ours = unlink_watched(m, p);
    pmi_os_reactor_unwatch(&m->os, &p->os);
    if (!ours) {
        return;
    }
    if (result == PM_OK) {
        pmi_process_drop(p);
    } else {
        p->pending_next = m->pending;
        m->pending = p;
    }
}

// Tries again to watch those that nobody waits for and the system had no room to watch. Meanwhile
// some of them are asked.
static void watch_again(pm_manager *m)
{
    pm_process *some[TOKENS_MAX];
    size_t count = 0;
    pmi_mutex_lock(&m->lock);
    atomic_store(&m->any_unwatched, false);
    for (pm_process *p = m->watched; p != NULL; p = p->watch_next) {
        if (!p->unwatched) {
            continue;
        }
        p->unwatched = pmi_os_reactor_pause(&m->os, &p->os, p, false) != PM_OK;
        if (p->unwatched) {
            atomic_store(&m->any_unwatched, true);
            if (count < TOKENS_MAX) {
                some[count++] = pmi_process_hold(p);
            }
        }
    }
    pmi_mutex_unlock(&m->lock);
    for (size_t i = 0; i < count; i++) {
        handle_exit(m, some[i]);
        pmi_process_drop(some[i]);
    }
}

// Whoever waited has seen the end: the reactor need not wake up for it. Its reference is dropped
// once no token of the process is on its way; there is no new one, since it is paused, and nobody
// who waits after us watches it again, since it leaves the list under the same lock.
void pmi_reactor_resume(pm_manager *m, pm_process *p)
{
    bool ended = atomic_load(&p->state) == PM_STATE_ENDED;
    bool held = ended && pmi_os_reactor_hold(&m->os);
    pmi_mutex_lock(&m->lock);
    bool last = --p->direct_waiters == 0 && !m->closed && !p->no_os && p->watch_link != NULL;
    bool retired = last && held && unlink_locked(m, p);
    if (last && !held) {
        p->unwatched = pmi_os_reactor_pause(&m->os, &p->os, p, false) != PM_OK;
        if (p->unwatched) {
            atomic_store(&m->any_unwatched, true);
            pmi_reactor_wake(m);
        }
    }
    pmi_mutex_unlock(&m->lock);
    if (held) {
        pmi_os_reactor_release(&m->os);
    }
    if (retired) {
        pmi_process_drop(p);
    }
}

static void ask_pending(pm_manager *m)
{
    pm_process **at = &m->pending;
    while (*at != NULL) {
        pm_process *p = *at;
        if (pmi_process_reap(p) == PM_OK) {
            *at = p->pending_next;
            pmi_process_drop(p);
        } else {
            at = &p->pending_next;
        }
    }
    atomic_store(&m->any_pending, m->pending != NULL);
}

// When there is something to do though nobody ends, at the latest.
static int64_t next_work(pm_manager *m)
{
    bool ask = atomic_load(&m->any_pending) || atomic_load(&m->any_unwatched);
    int64_t next = ask ? pmi_now_ms() + PMI_PENDING_POLL_MS : PMI_NEVER;
    int64_t orphans = m->options.own_process ? atomic_load(&m->next_orphans) : PMI_NEVER;
    return orphans < next ? orphans : next;
}

// Nothing of the host is called: what is to be told is queued.
static void turn(pm_manager *m, int64_t deadline)
{
    pmi_mutex_lock(&m->reactor_lock);
    if (atomic_load(&m->any_unwatched)) {
        watch_again(m);
    }
    int64_t next = next_work(m);
    deadline = next < deadline ? next : deadline;
    void *tokens[TOKENS_MAX];
    size_t count = pmi_os_reactor_poll(&m->os, tokens, TOKENS_MAX, deadline);
    pmi_os_round_begin(); // Trees may have to go with their leaders.
    for (size_t i = 0; i < count; i++) {
        handle_exit(m, tokens[i]);
    }
    pmi_os_round_end();
    pmi_os_reactor_done(&m->os);
    ask_pending(m);
    if (m->options.own_process) {
        collect_orphans(m, count > 0);
    }
    pmi_mutex_unlock(&m->reactor_lock);
}

void pmi_reactor_wake(pm_manager *m)
{
    atomic_store(&m->woken, true);
    pmi_os_reactor_wake(&m->os);
}

void pmi_reactor_turn(pm_manager *m, int64_t deadline)
{
    atomic_store(&m->woken, false);
    turn(m, deadline);
}

void pmi_reactor_look(pm_manager *m)
{
    bool timed = next_work(m) != PMI_NEVER;
    turn(m, 0);
    // The loop has not heard yet of a wake-up that this poll has taken, nor of the new time.
    if (atomic_load(&m->woken) || (!timed && next_work(m) != PMI_NEVER)) {
        pmi_os_reactor_wake(&m->os);
    }
}

void pmi_await_death(pm_manager *m, uint64_t seen, int64_t deadline)
{
    // The loop of a host may stand in this very call, and so may our own, in a sink.
    bool looks =
        m->options.loop == PM_LOOP_CALLER || atomic_load(&m->reactor_thread) == pmi_thread_self();
    int64_t pause = 1;
    bool over = false;
    while (!over) {
        if (looks) {
            pmi_reactor_look(m);
        }
        int64_t soon = pmi_now_ms() + pause;
        pause = pause * 2 < LOOK_MAX_MS ? pause * 2 : LOOK_MAX_MS;
        pmi_mutex_lock(&m->lock);
        if (m->deaths == seen) {
            pmi_cond_wait(&m->changed, &m->lock, looks && soon < deadline ? soon : deadline);
        }
        over = m->deaths != seen || pmi_now_ms() >= deadline;
        pmi_mutex_unlock(&m->lock);
    }
}

void pmi_reactor_run(void *manager)
{
    pm_manager *m = manager;
    atomic_store(&m->reactor_thread, pmi_thread_self());
    bool sweeping = m->options.leak_sweep_ms != UINT32_MAX;
    m->next_sweep = sweeping ? pmi_now_ms() + m->options.leak_sweep_ms : PMI_NEVER;
    while (!atomic_load(&m->reactor_stop)) {
        look_for_stops(m);
        int64_t next = atomic_load(&m->next_stop_watch), owed = atomic_load(&m->next_owed);
        next = owed < next ? owed : next;
        pmi_reactor_turn(m, next < m->next_sweep ? next : m->next_sweep);
        kill_owed_in_time(m);
        if (sweeping && pmi_now_ms() >= m->next_sweep) {
            (void)pm_leak_scan(m, NULL);
            m->next_sweep = pmi_now_ms() + m->options.leak_sweep_ms;
        }
    }
}

void pmi_reactor_forget_all(pm_manager *m)
{
    pmi_mutex_lock(&m->reactor_lock);
    while (m->pending != NULL) {
        pm_process *p = m->pending;
        m->pending = p->pending_next;
        pmi_process_drop(p);
    }
    pmi_mutex_lock(&m->lock);
    while (m->watched != NULL) { // Living daemons, and ended ones that a waiter was faster with.
        pm_process *p = m->watched;
        (void)unlink_locked(m, p);
        pmi_mutex_unlock(&m->lock);
        pmi_os_reactor_unwatch(&m->os, &p->os);
        pmi_process_drop(p);
        pmi_mutex_lock(&m->lock);
    }
    pmi_mutex_unlock(&m->lock);
    pmi_mutex_unlock(&m->reactor_lock);
}

// ------------------------------------------------------------------------------------------------
// The caller's loop
// ------------------------------------------------------------------------------------------------

static int check_caller_loop(pm_manager *m)
{
    int result = pmi_check_manager(m);
    if (result == PM_OK && m->options.loop != PM_LOOP_CALLER) {
        result = PM_ERR_UNSUPPORTED;
    }
    return result;
}

PM_API int pm_loop_native(pm_manager *m, pm_native *ret_native)
{
    int result = check_caller_loop(m);
    if (result == PM_OK && ret_native == NULL) {
        result = PM_ERR_INVALID;
    }
    return result != PM_OK ? result : pmi_os_reactor_native(&m->os, ret_native);
}

PM_API int pm_loop_timeout(pm_manager *m, int64_t *ret_timeout_ms)
{
    int result = check_caller_loop(m);
    if (result == PM_OK && ret_timeout_ms == NULL) {
        result = PM_ERR_INVALID;
    }
    if (result != PM_OK) {
        return result;
    }
    int64_t next = next_work(m), stops = atomic_load(&m->next_stop_watch);
    int64_t owed = atomic_load(&m->next_owed);
    next = stops < next ? stops : next;
    next = owed < next ? owed : next;
    pmi_mutex_lock(&m->lock);
    bool events = m->events != NULL;
    pmi_mutex_unlock(&m->lock);
    int64_t rest = next - pmi_now_ms();
    *ret_timeout_ms = events || rest < 0 ? 0 : next == PMI_NEVER ? PM_FOREVER : rest;
    return PM_OK;
}

PM_API int pm_dispatch(pm_manager *m)
{
    int result = check_caller_loop(m);
    if (result != PM_OK) {
        return result;
    }
    if (atomic_load(&m->dispatching_thread) == pmi_thread_self()) {
        return PM_ERR_WOULD_DEADLOCK;
    }
    int cancel = pmi_cancel_off();
    pmi_reactor_turn(m, 0);
    look_for_stops(m);
    kill_owed_in_time(m);
    result = (int)pmi_events_run(m);
    pmi_cancel_restore(cancel);
    return result;
}
