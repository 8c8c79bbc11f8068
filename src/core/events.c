#include <stdlib.h>

#include "core/core.h"

// An event without a process. It is freed by its first member.
struct detail_event {
    struct pmi_event event;
    char *detail; // malloc'd, or NULL.
    uint64_t pid;
};

static struct detail_event *as_detail(struct pmi_event *e)
{
    return e->process == NULL ? (struct detail_event *)e : NULL;
}

// Under m->lock. False: the manager is closed, and nobody would take it out any more.
static bool enqueue(pm_manager *m, struct pmi_event *event)
{
    if (m->closed) {
        return false;
    }
    event->next = NULL;
    *m->events_tail = event;
    m->events_tail = &event->next;
    if (event->kind == PM_EVENT_ENDED) {
        event->process->end_posted = true;
    }
    pmi_cond_broadcast(&m->queued);
    return true;
}

// What nobody listens to is not queued: it would wake a thread for nothing.
static bool has_listener(const pm_manager *m, const struct pmi_event *event)
{
    return m->options.event != NULL ||
           (event->kind == PM_EVENT_ENDED && event->process->on_exit != NULL);
}

static void wake_caller(pm_manager *m)
{
    if (m->options.loop == PM_LOOP_CALLER) {
        pmi_os_reactor_wake(&m->os);
    }
}

// Ends what the queue owns.
static void discard(struct pmi_event *e)
{
    pm_process *p = e->process;
    if (p == NULL) {
        free(as_detail(e)->detail);
    }
    if (!e->embedded) {
        free(e);
    }
    pmi_process_drop(p);
}

void pmi_event_post(pm_manager *m, struct pmi_event *event)
{
    if (!has_listener(m, event)) {
        discard(event);
        return;
    }
    pmi_mutex_lock(&m->lock);
    bool queued = enqueue(m, event);
    if (queued) {
        wake_caller(m);
    }
    pmi_mutex_unlock(&m->lock);
    if (!queued) {
        discard(event);
    }
}

void pmi_event_post_started(pm_process *p, enum pm_event_kind kind)
{
    pm_manager *m = p->manager;
    if (m->options.event == NULL) {
        return;
    }
    pmi_mutex_lock(&m->lock);
    bool first = !p->started_posted, queued = false;
    p->started_posted = true;
    if (first) {
        p->started_event.kind = kind;
        p->started_event.embedded = true;
        p->started_event.process = pmi_process_hold(p);
        queued = enqueue(m, &p->started_event);
        if (queued) {
            wake_caller(m);
        }
    }
    pmi_mutex_unlock(&m->lock);
    if (first && !queued) {
        discard(&p->started_event);
    }
}

// Its start comes first. Under no lock.
static struct pmi_event *new_event(pm_process *p)
{
    pm_manager *m = p->manager;
    struct pmi_event *event = m->options.event != NULL ? calloc(1, sizeof *event) : NULL;
    if (event != NULL) {
        event->process = pmi_process_hold(p);
        pmi_event_post_started(p, p->recovered ? PM_EVENT_RECOVERED : PM_EVENT_STARTED);
    }
    return event;
}

void pmi_event_post_living(pm_process *p, enum pm_event_kind kind)
{
    pm_manager *m = p->manager;
    struct pmi_event *event = new_event(p);
    if (event == NULL) {
        return; // The report of the stop tells the same.
    }
    event->kind = kind;
    pmi_mutex_lock(&m->lock);
    bool queued = !p->end_posted && enqueue(m, event);
    if (queued) {
        wake_caller(m);
    }
    pmi_mutex_unlock(&m->lock);
    if (!queued) {
        discard(event);
    }
}

void pmi_event_post_stop(pm_process *p)
{
    pm_manager *m = p->manager;
    struct pmi_event *event = new_event(p);
    if (event == NULL) {
        return; // pm_process_info() tells the same.
    }
    pmi_mutex_lock(&m->lock);
    // What is so now: whoever changes it later comes here later.
    bool stopped = atomic_load(&p->stopped);
    event->kind = stopped ? PM_EVENT_STOPPED : PM_EVENT_CONTINUED;
    bool queued = stopped != p->stop_posted && !p->end_posted && enqueue(m, event);
    if (queued) {
        p->stop_posted = stopped;
        wake_caller(m);
    }
    pmi_mutex_unlock(&m->lock);
    if (!queued) {
        discard(event);
    }
}

void pmi_event_post_detail(pm_manager *m, enum pm_event_kind kind, uint64_t pid, const char *detail)
{
    struct detail_event *event = m->options.event != NULL ? calloc(1, sizeof *event) : NULL;
    if (event == NULL) {
        return; // The counters tell the same.
    }
    event->event.kind = kind;
    event->detail = pmi_strdup(detail);
    event->pid = pid;
    pmi_event_post(m, &event->event);
}

// The queue owns one reference on the event's process; an embedded event ends with it.
static void run_one(pm_manager *m, struct pmi_event *e)
{
    pm_process *p = e->process;
    struct pm_exit record = PM_EXIT_INIT;
    bool ended = e->kind == PM_EVENT_ENDED;
    if (ended) {
        (void)pm_process_wait(p, 0, &record);
    }
    if (m->options.event != NULL) {
        const struct detail_event *about = as_detail(e);
        struct pm_event out = {
            .kind = e->kind,
            .process = p,
            .record = ended ? &record : NULL,
            .detail = about != NULL && about->detail != NULL ? about->detail : "",
            .id = p != NULL ? p->id : 0,
            .pid = about != NULL ? about->pid : p->pid,
        };
        m->options.event(m->options.user, &out);
    }
    if (ended && p->on_exit != NULL) {
        p->on_exit(p, &record, p->user);
    }
    discard(e);
}

// Takes the first event; NULL when there is none.
static struct pmi_event *take_event(pm_manager *m)
{
    struct pmi_event *e = m->events;
    if (e != NULL) {
        m->events = e->next;
        if (m->events == NULL) {
            m->events_tail = &m->events;
        }
    }
    return e;
}

size_t pmi_events_run(pm_manager *m)
{
    size_t count = 0;
    for (;;) {
        pmi_mutex_lock(&m->lock);
        struct pmi_event *e = take_event(m);
        pmi_mutex_unlock(&m->lock);
        if (e == NULL) {
            return count;
        }
        atomic_store(&m->dispatching_thread, pmi_thread_self());
        run_one(m, e);
        atomic_store(&m->dispatching_thread, 0);
        count++;
    }
}

void pmi_dispatcher_run(void *manager)
{
    pm_manager *m = manager;
    for (;;) {
        (void)pmi_events_run(m);
        pmi_mutex_lock(&m->lock);
        while (m->events == NULL && !m->dispatcher_stop) {
            pmi_cond_wait(&m->queued, &m->lock, PMI_NEVER);
        }
        bool stop = m->events == NULL && m->dispatcher_stop;
        pmi_mutex_unlock(&m->lock);
        if (stop) {
            return;
        }
    }
}
