#include <stdlib.h>

#include "core/core.h"

// An event that is not part of its process. All that is allocated here is of this type.
struct loose_event {
    struct pmi_event event;
    char *detail; // malloc'd, or NULL.
    uint64_t pid; // Of an event without a process.
};

static struct loose_event *as_loose(struct pmi_event *e)
{
    return e->embedded ? NULL : (struct loose_event *)e;
}

static void end_loose(struct loose_event *e)
{
    pm_process *p = e->event.process;
    free(e->detail);
    free(e);
    pmi_process_drop(p);
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
    pmi_cond_broadcast(&m->queued);
    if (m->options.loop == PM_LOOP_CALLER) {
        pmi_reactor_wake(m);
    }
    return true;
}

// Under m->lock. The queue gets a reference of its own.
static bool enqueue_embedded(pm_process *p, struct pmi_event *event, enum pm_event_kind kind)
{
    event->kind = kind;
    event->embedded = true;
    event->process = p;
    bool queued = enqueue(p->manager, event);
    if (queued) {
        (void)pmi_process_hold(p);
    }
    return queued;
}

// What nobody listens to is not queued: it would wake a thread for nothing.
void pmi_event_post_ended(pm_process *p)
{
    pm_manager *m = p->manager;
    bool unwritten = p->exit_unwritten != PM_OK && m->options.log != NULL;
    if (m->options.event == NULL && p->on_exit == NULL && !unwritten) {
        return;
    }
    pmi_mutex_lock(&m->lock);
    p->end_posted = enqueue_embedded(p, &p->ended_event, PM_EVENT_ENDED);
    pmi_mutex_unlock(&m->lock);
}

void pmi_event_post_started(pm_process *p, enum pm_event_kind kind)
{
    pm_manager *m = p->manager;
    if (m->options.event == NULL) {
        return;
    }
    pmi_mutex_lock(&m->lock);
    if (!p->started_posted) {
        p->started_posted = true;
        (void)enqueue_embedded(p, &p->started_event, kind);
    }
    pmi_mutex_unlock(&m->lock);
}

// NULL: nobody listens, or no memory.
static struct loose_event *new_loose(pm_manager *m)
{
    return m->options.event != NULL ? calloc(1, sizeof(struct loose_event)) : NULL;
}

// Its start comes first. Under no lock.
static struct loose_event *new_event(pm_process *p)
{
    struct loose_event *e = new_loose(p->manager);
    if (e != NULL) {
        e->event.process = pmi_process_hold(p);
        pmi_event_post_started(p, p->recovered ? PM_EVENT_RECOVERED : PM_EVENT_STARTED);
    }
    return e;
}

void pmi_event_post_living(pm_process *p, enum pm_event_kind kind)
{
    pm_manager *m = p->manager;
    struct loose_event *e = new_event(p);
    if (e == NULL) {
        return; // The report of the stop tells the same.
    }
    e->event.kind = kind;
    pmi_mutex_lock(&m->lock);
    bool queued = !p->end_posted && enqueue(m, &e->event);
    pmi_mutex_unlock(&m->lock);
    if (!queued) {
        end_loose(e);
    }
}

void pmi_event_post_stop(pm_process *p)
{
    pm_manager *m = p->manager;
    struct loose_event *e = new_event(p);
    if (e == NULL) {
        return; // pm_process_info() tells the same.
    }
    pmi_mutex_lock(&m->lock);
    // What is so now: whoever changes it later comes here later.
    bool stopped = atomic_load(&p->stopped);
    e->event.kind = stopped ? PM_EVENT_STOPPED : PM_EVENT_CONTINUED;
    bool queued = stopped != p->stop_posted && !p->end_posted && enqueue(m, &e->event);
    if (queued) {
        p->stop_posted = stopped;
    }
    pmi_mutex_unlock(&m->lock);
    if (!queued) {
        end_loose(e);
    }
}

void pmi_event_post_detail(pm_manager *m, enum pm_event_kind kind, uint64_t pid, const char *detail)
{
    struct loose_event *e = new_loose(m);
    if (e == NULL) {
        return; // The counters tell the same.
    }
    e->event.kind = kind;
    e->detail = pmi_strdup(detail);
    e->pid = pid;
    pmi_mutex_lock(&m->lock);
    bool queued = enqueue(m, &e->event);
    pmi_mutex_unlock(&m->lock);
    if (!queued) {
        end_loose(e);
    }
}

// The queue owns one reference on the event's process; an embedded event ends with it.
static void run_one(pm_manager *m, struct pmi_event *e)
{
    pm_process *p = e->process;
    struct loose_event *loose = as_loose(e);
    struct pm_exit record = PM_EXIT_INIT;
    bool ended = e->kind == PM_EVENT_ENDED;
    if (ended) {
        (void)pm_process_wait(p, 0, &record);
        if (p->exit_unwritten != PM_OK) {
            // The running record stays: the next recovery will tell the daemon's end as `lost`.
            pmi_registry_log(m, "exit record", p, p->exit_unwritten);
        }
    }
    if (m->options.event != NULL) {
        struct pm_event out = {
            .kind = e->kind,
            .process = p,
            .record = ended ? &record : NULL,
            .detail = loose != NULL && loose->detail != NULL ? loose->detail : "",
            .id = p != NULL ? p->id : 0,
            .pid = p != NULL ? p->pid : loose->pid,
        };
        m->options.event(m->options.user, &out);
    }
    if (ended && p->on_exit != NULL) {
        p->on_exit(p, &record, p->user);
    }
    if (loose != NULL) {
        end_loose(loose);
    } else {
        pmi_process_drop(p);
    }
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
