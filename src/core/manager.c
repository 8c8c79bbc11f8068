#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"

#define SNAPSHOT_BATCH 256 // Looked at under one lock.

// ------------------------------------------------------------------------------------------------
// All managers of this program: the detector must know everybody's children.
// ------------------------------------------------------------------------------------------------

static atomic_flag all_busy = ATOMIC_FLAG_INIT;
static pm_manager *all_managers;

// A forked copy has neither the managers of its parent, nor the threads that held locks at the
// fork. No other call of a copy gets as far as a lock before it has a manager of its own.
static void forget_parent(void)
{
    static _Atomic uint64_t whose, who_forgets;
    uint64_t self = pmi_self();
    while (atomic_load(&whose) != self) {
        uint64_t before = atomic_load(&who_forgets);
        if (before != self && atomic_compare_exchange_strong(&who_forgets, &before, self)) {
            if (before != 0) {
                all_managers = NULL;
                atomic_flag_clear(&all_busy);
                pmi_os_forget_parent();
            }
            atomic_store(&whose, self);
        } else {
            pmi_sleep_ms(0); // Another thread is at it.
        }
    }
}

// Held for a few instructions, or for a look at the lists by the detector.
static void all_lock(void)
{
    while (atomic_flag_test_and_set(&all_busy)) {
        pmi_sleep_ms(0);
    }
}

static void all_unlock(void)
{
    atomic_flag_clear(&all_busy);
}

static void all_add(pm_manager *m)
{
    all_lock();
    m->all_next = all_managers;
    all_managers = m;
    all_unlock();
}

static void all_remove(pm_manager *m)
{
    all_lock();
    for (pm_manager **at = &all_managers; *at != NULL; at = &(*at)->all_next) {
        if (*at == m) {
            *at = m->all_next;
            break;
        }
    }
    all_unlock();
}

bool pmi_tracked_anywhere(uint64_t pid)
{
    bool found = false;
    all_lock();
    for (pm_manager *m = all_managers; m != NULL && !found; m = m->all_next) {
        pmi_mutex_lock(&m->lock);
        for (pm_process *p = m->first; p != NULL && !found; p = p->next) {
            found = p->pid == pid && atomic_load(&p->state) != PM_STATE_ENDED;
        }
        pmi_mutex_unlock(&m->lock);
    }
    all_unlock();
    return found;
}

int64_t pmi_oldest_start(void)
{
    int64_t oldest = PMI_NEVER;
    all_lock();
    for (pm_manager *m = all_managers; m != NULL; m = m->all_next) {
        pmi_mutex_lock(&m->lock);
        for (struct pmi_under_way *u = m->under_way; u != NULL; u = u->next) {
            oldest = u->begun_ms < oldest ? u->begun_ms : oldest;
        }
        pmi_mutex_unlock(&m->lock);
    }
    all_unlock();
    return oldest;
}

// ------------------------------------------------------------------------------------------------
// List
// ------------------------------------------------------------------------------------------------

int pmi_check_manager(pm_manager *m)
{
    if (m == NULL) {
        return PM_ERR_INVALID;
    }
    if (m->self != pmi_self()) {
        return PM_ERR_FORKED;
    }
    pmi_mutex_lock(&m->lock);
    bool closed = m->closed;
    pmi_mutex_unlock(&m->lock);
    return closed ? PM_ERR_CLOSED : PM_OK;
}

void pmi_manager_unref(pm_manager *m)
{
    if (atomic_fetch_sub(&m->refs, 1) != 1) {
        return;
    }
    pmi_cond_destroy(&m->queued);
    pmi_cond_destroy(&m->changed);
    pmi_mutex_destroy(&m->registry.lock);
    pmi_mutex_destroy(&m->leak_lock);
    pmi_mutex_destroy(&m->reactor_lock);
    pmi_mutex_destroy(&m->lock);
    free(m->suspects);
    free(m);
}

void pmi_list_add(pm_manager *m, pm_process *p)
{
    p->listed = true;
    p->id = ++m->last_id;
    p->previous = m->last;
    p->next = NULL;
    *(m->last != NULL ? &m->last->next : &m->first) = p;
    m->last = p;
    (void)pmi_process_hold(p);
}

void pmi_list_remove(pm_manager *m, pm_process *p)
{
    p->listed = false;
    *(p->previous != NULL ? &p->previous->next : &m->first) = p->next;
    *(p->next != NULL ? &p->next->previous : &m->last) = p->previous;
    // Never the last reference: whoever calls holds one.
    pmi_process_drop(p);
}

// When a status has been pending for its time, somebody still has to notice that and write a
// record.
#define PENDING_SLACK_MS 1000

static pm_process *find_key(pm_manager *m, const char *key)
{
    pm_process *p = m->first;
    while (p != NULL && (p->key == NULL || strcmp(p->key, key) != 0 ||
                         atomic_load(&p->state) == PM_STATE_ENDED)) {
        p = p->next;
    }
    return p;
}

bool pmi_key_is_taken(pm_manager *m, const char *key)
{
    return find_key(m, key) != NULL;
}

void pmi_key_await(pm_manager *m, const char *key, int64_t deadline)
{
    pmi_mutex_lock(&m->lock);
    pm_process *p = find_key(m, key);
    enum pm_state state = p != NULL ? (enum pm_state)atomic_load(&p->state) : PM_STATE_STARTING;
    if (state == PM_STATE_RUNNING || state == PM_STATE_STATUS_PENDING) {
        (void)pm_process_ref(p);
    } else {
        p = NULL;
    }
    pmi_mutex_unlock(&m->lock);
    if (p != NULL) {
        int64_t last = pmi_now_ms() + m->options.status_pending_ms + PENDING_SLACK_MS;
        int64_t left = (deadline < last ? deadline : last) - pmi_now_ms();
        if (!pm_process_alive(p)) { // Dead, whether anybody has noticed it or not.
            (void)pm_process_wait(p, left > 0 ? left : 0, NULL);
        }
        (void)pm_process_unref(p);
    }
}

// Who comes behind `after`: the list is in the order of ids.
static pm_process *next_in_list(pm_manager *m, const pm_process *after)
{
    if (after == NULL) {
        return m->first;
    }
    if (after->listed) {
        return after->next;
    }
    pm_process *p = m->first;
    while (p != NULL && p->id <= after->id) {
        p = p->next;
    }
    return p;
}

// Takes the next ones up to the id `last`; true if there may be more. *after is held.
static bool take_batch(pm_manager *m, uint64_t last, pm_process **after, pm_process **list,
                       size_t *count)
{
    pm_process *before = *after;
    size_t seen = 0;
    pmi_mutex_lock(&m->lock);
    pm_process *at = before, *p = next_in_list(m, before);
    for (; p != NULL && p->id <= last && seen < SNAPSHOT_BATCH; p = p->next, seen++) {
        int state = atomic_load(&p->state);
        // One that has just ended and that nobody holds is on its way out of the list.
        bool leaving = state == PM_STATE_ENDED && atomic_load(&p->user_refs) == 0;
        if (state != PM_STATE_STARTING && !leaving) {
            list[(*count)++] = pmi_process_hold(p);
        }
        at = p;
    }
    if (at != before) {
        *after = pmi_process_hold(at);
    }
    pmi_mutex_unlock(&m->lock);
    if (at != before) {
        pmi_process_drop(before);
    }
    return seen == SNAPSHOT_BATCH;
}

// A few at a time, so that no start waits for a long list.
int pmi_snapshot(pm_manager *m, pm_process ***ret_list, size_t *ret_count)
{
    size_t count = 0, capacity = 0;
    pm_process **list = NULL, *after = NULL;
    pmi_mutex_lock(&m->lock);
    uint64_t last = m->last_id;
    pmi_mutex_unlock(&m->lock);
    bool more = true;
    while (more) {
        if (capacity - count < SNAPSHOT_BATCH) {
            capacity = capacity * 2 + SNAPSHOT_BATCH;
            // NOLINTNEXTLINE(bugprone-sizeof-expression): of a pointer, yes.
            pm_process **grown = realloc((void *)list, capacity * sizeof *list);
            if (grown == NULL) {
                pmi_process_drop(after);
                pmi_snapshot_free(list, count);
                return PM_ERR_NO_MEMORY;
            }
            list = grown;
        }
        more = take_batch(m, last, &after, list, &count);
    }
    pmi_process_drop(after);
    *ret_list = list;
    *ret_count = count;
    return PM_OK;
}

void pmi_snapshot_free(pm_process **list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        pmi_process_drop(list[i]);
    }
    free((void *)list);
}

static int list(pm_manager *m, pm_process_visitor *visit, void *user)
{
    int result = pmi_check_manager(m);
    if (result == PM_OK && visit == NULL) {
        result = PM_ERR_INVALID;
    }
    pm_process **all = NULL;
    size_t count = 0;
    if (result == PM_OK) {
        result = pmi_snapshot(m, &all, &count);
    }
    if (result != PM_OK) {
        return result;
    }
    for (size_t i = 0; i < count && result == 0; i++) {
        result = visit(user, all[i]);
    }
    pmi_snapshot_free(all, count);
    return result;
}

PM_API int pm_list(pm_manager *m, pm_process_visitor *visit, void *user)
{
    int cancel = pmi_cancel_off();
    int result = list(m, visit, user);
    pmi_cancel_restore(cancel);
    return result;
}

PM_API int pm_find(pm_manager *m, const char *key, pm_process **ret_process)
{
    int result = pmi_check_manager(m);
    if (result != PM_OK || key == NULL || ret_process == NULL) {
        return result != PM_OK ? result : PM_ERR_INVALID;
    }
    pm_process *found = NULL;
    pmi_mutex_lock(&m->lock);
    // The newest: an ended one of the same key may still be held by somebody.
    for (pm_process *p = m->last; p != NULL && found == NULL; p = p->previous) {
        if (p->key != NULL && strcmp(p->key, key) == 0 &&
            atomic_load(&p->state) != PM_STATE_STARTING) {
            found = pm_process_ref(p);
        }
    }
    pmi_mutex_unlock(&m->lock);
    if (found == NULL) {
        return PM_ERR_NOT_FOUND;
    }
    *ret_process = found;
    return PM_OK;
}

PM_API int pm_stats(pm_manager *m, struct pm_stats *ret_stats)
{
    int result = pmi_check_manager(m);
    if (result != PM_OK || ret_stats == NULL) {
        return result != PM_OK ? result : PM_ERR_INVALID;
    }
    pmi_mutex_lock(&m->lock);
    struct pm_stats stats = m->stats;
    pmi_stats_fill(m, &stats);
    pmi_mutex_unlock(&m->lock);
    uint64_t collected = 0;
    if (m->options.own_process) {
        (void)pmi_os_orphans_collect(&m->os, &collected);
        stats.orphans_total += collected;
        stats.orphans_reaped += collected;
    }
    return pmi_copy_out(ret_stats, &stats, sizeof stats);
}

void pmi_log(pm_manager *m, enum pm_log_level level, const char *format, ...)
{
    if (m->options.log == NULL) {
        return;
    }
    char text[1024], line[2048];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pmi_escape(text, line, sizeof line);
    m->options.log(m->options.user, level, line);
}

// ------------------------------------------------------------------------------------------------
// Open
// ------------------------------------------------------------------------------------------------

static void fill_defaults(struct pm_options *o)
{
    o->launcher_timeout_ms =
        o->launcher_timeout_ms != 0 ? o->launcher_timeout_ms : PMI_DEFAULT_LAUNCHER_MS;
    o->status_pending_ms =
        o->status_pending_ms != 0 ? o->status_pending_ms : PMI_DEFAULT_PENDING_MS;
    o->drain_ms = o->drain_ms != 0 ? o->drain_ms : PMI_DEFAULT_DRAIN_MS;
    o->leak_sweep_ms = o->leak_sweep_ms != 0 ? o->leak_sweep_ms : PMI_DEFAULT_SWEEP_MS;
    o->stop_watch_ms = o->stop_watch_ms != 0 ? o->stop_watch_ms : PMI_DEFAULT_STOP_WATCH_MS;
}

static int check_options(const struct pm_options *options, struct pm_options *ret_options,
                         struct pm_error *err)
{
    struct pm_options o = PM_OPTIONS_INIT;
    if (options != NULL && pmi_copy_in(&o, options, sizeof o) != PM_OK) {
        return pmi_set_error(err, PM_ERR_INVALID, PM_STAGE_CHECK, "size");
    }
    if (o.loop != PM_LOOP_OWN && o.loop != PM_LOOP_CALLER) {
        return pmi_set_error(err, PM_ERR_INVALID, PM_STAGE_CHECK, "loop");
    }
    if (o.leak_policy != PM_LEAK_REPORT && o.leak_policy != PM_LEAK_REAP) {
        return pmi_set_error(err, PM_ERR_INVALID, PM_STAGE_CHECK, "leak_policy");
    }
    fill_defaults(&o);
    *ret_options = o;
    return PM_OK;
}

static pm_manager *manager_new(void)
{
    pm_manager *m = calloc(1, sizeof *m);
    if (m == NULL) {
        return NULL;
    }
    atomic_init(&m->refs, 1);
    m->pid = pmi_self_pid();
    m->self = pmi_self();
    m->events_tail = &m->events;
    atomic_init(&m->stops_idle, true);
    atomic_init(&m->next_stop_watch, PMI_NEVER);
    atomic_init(&m->next_owed, PMI_NEVER);
    m->stats.size = sizeof m->stats;
    m->os = (struct pmi_os_manager)PMI_OS_MANAGER_INIT;
    pmi_mutex_init(&m->lock);
    pmi_mutex_init(&m->reactor_lock);
    pmi_mutex_init(&m->leak_lock);
    pmi_mutex_init(&m->registry.lock);
    pmi_cond_init(&m->changed);
    pmi_cond_init(&m->queued);
    return m;
}

static int start_threads(pm_manager *m)
{
    if (m->options.loop == PM_LOOP_CALLER) {
        return PM_OK;
    }
    int result = pmi_thread_start(&m->dispatcher, pmi_dispatcher_run, m);
    if (result != PM_OK) {
        return result;
    }
    result = pmi_thread_start(&m->reactor, pmi_reactor_run, m);
    if (result != PM_OK) {
        pmi_mutex_lock(&m->lock);
        m->dispatcher_stop = true;
        pmi_cond_broadcast(&m->queued);
        pmi_mutex_unlock(&m->lock);
        pmi_thread_join(&m->dispatcher);
    }
    return result;
}

static int open_parts(pm_manager *m, struct pm_error *err)
{
    struct pmi_os_manager_options os_options = {
        .launcher_path = m->options.launcher_path,
        .own_process = m->options.own_process,
        .caller_loop = m->options.loop == PM_LOOP_CALLER,
        .prestart_keeper = m->options.prestart_keeper,
    };
    int result = pmi_os_manager_open(&m->os, &os_options, err);
    if (result != PM_OK) {
        return result;
    }
    if (m->options.registry_dir != NULL) {
        result = pmi_registry_open(&m->registry, m->options.registry_dir, err);
    }
    m->options.registry_dir = NULL; // The caller's strings are not ours to keep.
    m->options.launcher_path = NULL;
    if (result == PM_OK) {
        result = start_threads(m);
        if (result != PM_OK) {
            (void)pmi_set_error(err, result, PM_STAGE_WATCH, NULL);
            (void)snprintf(err->hint, sizeof err->hint, "a thread could not be started");
            pmi_registry_close(&m->registry);
        }
    }
    if (result != PM_OK) {
        pmi_os_manager_close(&m->os);
    }
    return result;
}

static int open_manager(const struct pm_options *options, pm_manager **ret_manager,
                        struct pm_error *ret_error)
{
    struct pm_error err = PM_ERROR_INIT;
    (void)snprintf(err.action, sizeof err.action, "open");
    forget_parent();
    pm_manager *m = NULL;
    struct pm_options checked;
    int result = ret_manager == NULL ? pmi_set_error(&err, PM_ERR_INVALID, PM_STAGE_CHECK, NULL)
                                     : check_options(options, &checked, &err);
    if (result == PM_OK) {
        m = manager_new();
        result = m == NULL ? pmi_set_error(&err, PM_ERR_NO_MEMORY, PM_STAGE_CHECK, NULL) : PM_OK;
    }
    if (result == PM_OK) {
        m->options = checked;
        result = open_parts(m, &err);
    }
    if (result != PM_OK) {
        err.code = result;
        if (ret_error != NULL) {
            (void)pmi_copy_out(ret_error, &err, sizeof err);
        }
        if (m != NULL) {
            pmi_manager_unref(m);
        }
        return result;
    }
    all_add(m);
    *ret_manager = m;
    return PM_OK;
}

PM_API int pm_open(const struct pm_options *options, pm_manager **ret_manager,
                   struct pm_error *ret_error)
{
    int cancel = pmi_cancel_off();
    int result = open_manager(options, ret_manager, ret_error);
    pmi_cancel_restore(cancel);
    return result;
}

// ------------------------------------------------------------------------------------------------
// Close
// ------------------------------------------------------------------------------------------------

static void begin_closing(pm_manager *m)
{
    pmi_mutex_lock(&m->lock);
    m->closing = true;
    while (m->starting > 0) {
        pmi_cond_wait(&m->changed, &m->lock, PMI_NEVER);
    }
    pmi_mutex_unlock(&m->lock);
}

static bool any_pending(pm_manager *m)
{
    bool found = false;
    pmi_mutex_lock(&m->lock);
    for (pm_process *p = m->first; p != NULL && !found; p = p->next) {
        found = p->mode == PM_MODE_DAEMON && atomic_load(&p->state) == PM_STATE_STATUS_PENDING;
    }
    pmi_mutex_unlock(&m->lock);
    return found;
}

// Daemons that have just ended: their status is worth a bounded wait, else the next run could only
// tell that it was lost.
static void settle_pending(pm_manager *m, int64_t deadline)
{
    int64_t last = pmi_now_ms() + m->options.status_pending_ms + PENDING_SLACK_MS;
    deadline = last < deadline ? last : deadline;
    while (any_pending(m) && pmi_now_ms() < deadline) {
        if (m->options.loop == PM_LOOP_CALLER) {
            pmi_reactor_look(m);
        }
        pmi_sleep_ms(PMI_PENDING_POLL_MS);
    }
}

// What was killed needs a moment to be gone, also where the caller has none.
#define OWED_LEAST_MS 100

static void settle_owed(pm_manager *m, int64_t deadline)
{
    int64_t now = pmi_now_ms(), most = now + PM_STOP_SETTLE_MS, least = now + OWED_LEAST_MS;
    deadline = deadline > least ? deadline : least;
    pmi_reactor_settle_owed(m, deadline < most ? deadline : most);
}

static void stop_threads(pm_manager *m)
{
    if (m->options.loop == PM_LOOP_CALLER) {
        pmi_reactor_turn(m, 0);
        (void)pmi_events_run(m);
        return;
    }
    // First the reactor, so that the dispatcher's queue is complete when it is emptied.
    atomic_store(&m->reactor_stop, true);
    pmi_reactor_wake(m);
    pmi_thread_join(&m->reactor);
    pmi_mutex_lock(&m->lock);
    m->dispatcher_stop = true;
    pmi_cond_broadcast(&m->queued);
    pmi_mutex_unlock(&m->lock);
    pmi_thread_join(&m->dispatcher);
}

// Lets go of what is still listed: living daemons, and ended ones that somebody holds.
static void unlist_all(pm_manager *m)
{
    pmi_mutex_lock(&m->lock);
    m->closed = true;
    while (m->first != NULL) {
        pm_process *p = pmi_process_hold(m->first);
        pmi_list_remove(m, p);
        pmi_mutex_unlock(&m->lock);
        pmi_process_drop(p);
        pmi_mutex_lock(&m->lock);
    }
    pmi_mutex_unlock(&m->lock);
}

static int close_manager(pm_manager *m, int64_t timeout_ms, struct pm_stop_all_report *ret_report)
{
    if (m == NULL) {
        return PM_OK;
    }
    int result = pmi_check_manager(m);
    if (result != PM_OK) {
        return result;
    }
    if (atomic_load(&m->dispatching_thread) == pmi_thread_self()) {
        pmi_mutex_lock(&m->lock);
        m->closing = true;
        pmi_mutex_unlock(&m->lock);
        return PM_ERR_WOULD_DEADLOCK;
    }
    int64_t deadline = pmi_deadline(timeout_ms < 0 ? PMI_DEFAULT_STOP_ALL_MS : timeout_ms);
    begin_closing(m);
    result = pm_stop_all(m, timeout_ms, NULL, NULL, ret_report);
    if (result != PM_OK) {
        pmi_mutex_lock(&m->lock);
        m->closing = false;
        pmi_mutex_unlock(&m->lock);
        return result;
    }
    settle_pending(m, deadline);
    stop_threads(m);
    settle_owed(m, deadline);
    all_remove(m);
    pmi_reactor_forget_all(m);
    unlist_all(m);
    pmi_reactor_forget_owed(m);
    (void)pmi_events_run(m); // What came after the dispatcher, by calls on Handles.
    pmi_registry_close(&m->registry);
    pmi_os_manager_close(&m->os);
    pmi_manager_unref(m);
    return PM_OK;
}

PM_API int pm_close(pm_manager *m, int64_t timeout_ms, struct pm_stop_all_report *ret_report)
{
    int cancel = pmi_cancel_off();
    int result = close_manager(m, timeout_ms, ret_report);
    pmi_cancel_restore(cancel);
    return result;
}

// ------------------------------------------------------------------------------------------------
// The rest of the public calls
// ------------------------------------------------------------------------------------------------

PM_API void pm_launcher_main(int argc, char **argv)
{
    pmi_os_launcher_main(argc, argv);
}

PM_API int pm_default_state_dir(const char *app, char **ret_path)
{
    size_t length = app != NULL ? strlen(app) : 0;
    if (length < 1 || length > 64 || ret_path == NULL || strpbrk(app, "/\\:") != NULL ||
        strcmp(app, ".") == 0 || strcmp(app, "..") == 0) {
        return PM_ERR_INVALID;
    }
    int cancel = pmi_cancel_off();
    int result = pmi_os_default_state_dir(app, ret_path);
    pmi_cancel_restore(cancel);
    return result;
}

PM_API int pm_stop_event_open(pm_native *ret_native)
{
    return ret_native == NULL ? PM_ERR_INVALID : pmi_os_stop_event_open(ret_native);
}
