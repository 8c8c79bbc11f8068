#include <stdlib.h>
#include <string.h>

#include "core/core.h"
#include "guards.h"

// ------------------------------------------------------------------------------------------------
// References
// ------------------------------------------------------------------------------------------------

pm_process *pmi_process_new(pm_manager *m)
{
    pm_process *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return NULL;
    }
    atomic_init(&p->refs, 1);
    atomic_init(&p->user_refs, 0);
    atomic_init(&p->state, PM_STATE_STARTING);
    atomic_fetch_add(&m->refs, 1);
    p->manager = m;
    p->os = (struct pmi_os_process)PMI_OS_PROCESS_INIT;
    p->exit.size = sizeof p->exit;
    pmi_mutex_init(&p->lock);
    for (int i = 0; i < 3; i++) {
        struct pm_stream *s = &p->streams[i];
        s->process = p;
        s->os = (struct pmi_os_stream)PMI_OS_STREAM_INIT;
        atomic_init(&s->closing, false);
        atomic_init(&s->truncated, false);
        atomic_init(&s->native, PM_NATIVE_INVALID);
        pmi_mutex_init(&s->lock);
    }
    return p;
}

pm_process *pmi_process_hold(pm_process *p)
{
    atomic_fetch_add(&p->refs, 1);
    return p;
}

void pmi_process_set_state(pm_process *p, enum pm_state state)
{
    int before = atomic_load(&p->state);
    if (before != PM_STATE_RUNNING && state == PM_STATE_RUNNING) {
        atomic_fetch_add(&p->manager->live[p->mode], 1);
    } else if (before == PM_STATE_RUNNING && state != PM_STATE_RUNNING) {
        atomic_fetch_sub(&p->manager->live[p->mode], 1);
    }
    atomic_store(&p->state, state);
}

void pmi_process_drop(pm_process *p)
{
    if (p == NULL || atomic_fetch_sub(&p->refs, 1) != 1) {
        return;
    }
    for (int i = 0; i < 3; i++) {
        pmi_os_stream_close(&p->streams[i].os);
        pmi_mutex_destroy(&p->streams[i].lock);
    }
    if (!p->no_os) {
        pmi_os_process_close(&p->os);
    }
    pmi_mutex_destroy(&p->lock);
    free(p->recovered_id);
    pmi_manager_unref(p->manager);
    free(p->text);
    free(p);
}

int pmi_process_text(pm_process *p, const char *owner, const char *program, const char *key,
                     const char *label)
{
    const char *from[4] = {owner, program, key, label};
    const char **to[4] = {&p->owner, &p->program, &p->key, &p->label};
    size_t total = 0;
    for (int i = 0; i < 4; i++) {
        total += from[i] != NULL ? strlen(from[i]) + 1 : 0;
    }
    p->text = malloc(total + 1);
    if (p->text == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    char *at = p->text;
    for (int i = 0; i < 4; i++) {
        if (from[i] != NULL) {
            size_t size = strlen(from[i]) + 1;
            memcpy(at, from[i], size);
            *to[i] = at;
            at += size;
        }
    }
    return PM_OK;
}

void pmi_process_hang_up(pm_process *p)
{
    if (p->mode == PM_MODE_PTY && !p->no_os) {
        pmi_mutex_lock(&p->lock);
        pmi_os_terminal_close(&p->os);
        pmi_mutex_unlock(&p->lock);
    }
}

PM_API pm_process *pm_process_ref(pm_process *p)
{
    // All user references together hold one internal one.
    if (p != NULL && atomic_fetch_add(&p->user_refs, 1) == 0) {
        (void)pmi_process_hold(p);
    }
    return p;
}

PM_API pm_process *pm_process_unref(pm_process *p)
{
    if (p == NULL || atomic_fetch_sub(&p->user_refs, 1) != 1) {
        return NULL;
    }
    pm_manager *m = p->manager;
    if (m->self == pmi_self()) {
        int cancel = pmi_cancel_off();
        for (int i = 0; i < 3; i++) {
            pmi_stream_close_for_good(&p->streams[i]);
        }
        pmi_process_hang_up(p);
        pmi_mutex_lock(&m->lock);
        if (p->listed && atomic_load(&p->state) == PM_STATE_ENDED &&
            atomic_load(&p->user_refs) == 0) {
            pmi_list_remove(m, p);
        }
        pmi_mutex_unlock(&m->lock);
        pmi_process_drop(p);
        pmi_cancel_restore(cancel);
    }
    return NULL;
}

// ------------------------------------------------------------------------------------------------
// The end
// ------------------------------------------------------------------------------------------------

static enum pmi_end end_of(const struct pm_exit *record)
{
    if (record->kind == PM_EXIT_LOST) {
        return PMI_END_LOST;
    }
    // Windows has no signals: there a kill of ours is an exit with code 1.
    bool killed = record->kind == PM_EXIT_SIGNALED || record->stop_action == PM_STOP_KILL;
    return killed ? PMI_END_KILLED : PMI_END_EXITED;
}

// Under p->lock.
static uint32_t fallbacks_of(const pm_process *p)
{
    return p->started.fallbacks | (p->no_os ? 0 : pmi_os_process_fallbacks(&p->os));
}

// Under p->lock. A success is none while somebody is left, or may be.
static int kill_rest(pm_process *p)
{
    int result = pmi_os_process_act(&p->os, PM_STOP_KILL, PM_SCOPE_TREE, NULL);
    if (!pmi_os_process_tree_alive(&p->os)) {
        return PM_OK;
    }
    return result == PM_OK || result == PM_ERR_GONE ? PM_ERR_TIMEOUT : result;
}

int pmi_process_kill_rest(pm_process *p)
{
    pmi_mutex_lock(&p->lock);
    int result = kill_rest(p);
    pmi_mutex_unlock(&p->lock);
    return result;
}

// Fills what the core knows and makes the record final. Under p->lock. A daemon's record is on disk
// before anybody can see that it has ended: whoever starts its key again must not have the new
// record taken away by the clean-up of the old one. So is the kill of a tree that goes with its
// leader: who has waited for that will want its port, or its folder.
static void finish_record(pm_process *p, struct pm_exit *record)
{
    record->size = sizeof *record;
    if (record->ended_wall_ms == 0) { // Else one that was given before never changes.
        if (p->notes_count > 0) {
            const struct pmi_stop_note *note = &p->notes[p->notes_count - 1];
            record->stop_step = note->step;
            record->stop_action = (enum pm_stop_action)note->action;
        }
        record->started_wall_ms = p->started.started_wall_ms;
        record->ended_wall_ms = p->dead_wall_ms;
        int64_t uptime = p->recovered ? p->dead_wall_ms - p->started.started_wall_ms
                                      : p->dead_ms - p->started.started_ms;
        record->uptime_ms = uptime > 0 ? (uint64_t)uptime : 0;
    }
    p->exit = *record;
    if (p->kill_tree_on_exit && !p->no_os) {
        p->owes_tree = kill_rest(p) != PM_OK;
    }
    if (p->mode == PM_MODE_DAEMON) {
        int result = pmi_registry_put_exit(p->manager, p);
        p->exit_unwritten = result == PM_ERR_CLOSED ? PM_OK : result;
    }
    atomic_fetch_add(&p->manager->ends[p->mode][end_of(&p->exit)], 1);
    atomic_fetch_or(&p->manager->fallback_kinds, fallbacks_of(p));
    pmi_process_set_state(p, PM_STATE_ENDED);
}

// Under p->lock. True the first time.
static bool note_death(pm_process *p)
{
    if (p->dead_ms != 0) {
        return false;
    }
    p->dead_ms = pmi_now_ms();
    p->dead_wall_ms = pmi_wall_ms();
    return true;
}

// Wakes a stop of many, which waits for deaths and not for statuses.
static void announce_death(pm_manager *m)
{
    pmi_mutex_lock(&m->lock);
    m->deaths++;
    pmi_cond_broadcast(&m->changed);
    pmi_mutex_unlock(&m->lock);
}

// What follows once, on the thread that made the record final; that may be one that holds the
// reactor's lock, so nothing of the host is called.
static void after_end(pm_process *p)
{
    pm_manager *m = p->manager;
    pmi_mutex_lock(&m->lock);
    if (p->listed && atomic_load(&p->user_refs) == 0) {
        pmi_list_remove(m, p);
    }
    if (p->owes_tree) {
        pmi_reactor_owe(m, p);
    }
    pmi_mutex_unlock(&m->lock);
    pmi_event_post_started(p, p->recovered ? PM_EVENT_RECOVERED : PM_EVENT_STARTED);
    pmi_event_post_ended(p);
}

// Whose status is ours to take, however long a tracer may keep it.
static bool is_child(const pm_process *p)
{
    return p->started.adopted || (!p->recovered && p->started.detachment != PM_DETACH_LAUNCHER);
}

// Under p->lock. Of a daemon that is init's to wait for, and of a child that somebody else has
// waited for, the status may never be told.
static bool is_lost(const pm_process *p)
{
    return (!is_child(p) || pmi_os_process_status_taken(&p->os)) &&
           pmi_now_ms() - p->dead_ms >= (int64_t)p->manager->options.status_pending_ms;
}

// From the status to the last event, nothing may come between.
static int reap(pm_process *p)
{
    int state = atomic_load(&p->state);
    if (state == PM_STATE_ENDED) {
        return PM_OK;
    }
    if (p->no_os) {
        return PM_ERR_STATUS_PENDING;
    }
    pmi_mutex_lock(&p->lock);
    if (atomic_load(&p->state) == PM_STATE_ENDED) {
        pmi_mutex_unlock(&p->lock);
        return PM_OK;
    }
    struct pm_exit record = PM_EXIT_INIT;
    bool died = false;
    if (PMI_WITHOUT("reap lock")) {
        pmi_mutex_unlock(&p->lock);
    }
    int result = pmi_os_process_reap(&p->os, &record);
    if (PMI_WITHOUT("reap lock")) {
        pmi_mutex_lock(&p->lock);
    }
    if (result == PM_ERR_STATUS_PENDING) {
        died = note_death(p);
        pmi_process_set_state(p, PM_STATE_STATUS_PENDING);
        if (is_lost(p)) {
            memset(&record, 0, sizeof record);
            record.kind = PM_EXIT_LOST;
            result = PM_OK;
        }
    }
    if (result == PM_OK) {
        died |= note_death(p);
        finish_record(p, &record);
    }
    pmi_mutex_unlock(&p->lock);
    if (died) {
        announce_death(p->manager);
    }
    if (result == PM_OK) {
        after_end(p);
    }
    return result;
}

int pmi_process_reap(pm_process *p)
{
    int cancel = pmi_cancel_off();
    int result = reap(p);
    pmi_cancel_restore(cancel);
    return result;
}

void pmi_process_end(pm_process *p, const struct pm_exit *record)
{
    struct pm_exit copy = *record;
    pmi_mutex_lock(&p->lock);
    p->dead_ms = pmi_now_ms();
    p->dead_wall_ms = record->ended_wall_ms != 0 ? record->ended_wall_ms : pmi_wall_ms();
    finish_record(p, &copy);
    pmi_mutex_unlock(&p->lock);
    after_end(p);
}

void pmi_process_abandon(pm_process *p)
{
    pmi_mutex_lock(&p->lock);
    bool ended = atomic_load(&p->state) == PM_STATE_ENDED;
    p->no_os = true;
    pmi_mutex_unlock(&p->lock);
    if (ended) {
        pmi_os_process_close(&p->os);
        return;
    }
    pmi_os_process_abandon(&p->os);
    pmi_mutex_lock(&p->lock);
    if (atomic_load(&p->state) != PM_STATE_ENDED) {
        (void)note_death(p);
        p->exit.kind = PM_EXIT_LOST;
        pmi_process_set_state(p, PM_STATE_ENDED);
    }
    pmi_mutex_unlock(&p->lock);
}

// ------------------------------------------------------------------------------------------------
// Calls
// ------------------------------------------------------------------------------------------------

// Whether calls that act on the process are allowed.
static int check_handle(pm_process *p)
{
    if (p == NULL) {
        return PM_ERR_INVALID;
    }
    if (p->manager->self != pmi_self()) {
        return PM_ERR_FORKED;
    }
    return PM_OK;
}

static bool manager_closed(pm_manager *m)
{
    pmi_mutex_lock(&m->lock);
    bool closed = m->closed;
    pmi_mutex_unlock(&m->lock);
    return closed;
}

PM_API uint64_t pm_process_pid(const pm_process *p)
{
    return p == NULL ? 0 : p->pid;
}

PM_API bool pm_process_alive(pm_process *p)
{
    if (check_handle(p) != PM_OK || p->no_os || atomic_load(&p->state) >= PM_STATE_STATUS_PENDING) {
        return false;
    }
    return pmi_os_process_wait(&p->os, 0) == PM_ERR_TIMEOUT;
}

bool pmi_process_look_at_stop(pm_process *p)
{
    bool stopped = false, changed = false;
    pmi_mutex_lock(&p->lock);
    if (atomic_load(&p->state) == PM_STATE_RUNNING && !p->no_os) {
        stopped = pmi_os_process_stopped(&p->os);
        changed = stopped != atomic_exchange(&p->stopped, stopped);
        if (changed && stopped) {
            pmi_os_process_step_back(&p->os);
        }
    }
    pmi_mutex_unlock(&p->lock);
    if (changed) {
        pmi_event_post_stop(p);
    }
    return stopped;
}

PM_API uint64_t pm_process_parent(pm_process *p)
{
    if (!pm_process_alive(p)) {
        return 0;
    }
    int cancel = pmi_cancel_off();
    uint64_t parent = is_child(p) ? p->manager->pid : pmi_os_parent_of(p->pid);
    pmi_cancel_restore(cancel);
    return parent;
}

static void fill_streams(pm_process *p, struct pm_stream_info streams[3])
{
    for (int i = 0; i < 3; i++) {
        streams[i].kind = (enum pm_stdio_kind)p->slots[i];
        streams[i].open =
            p->streams[i].exists && atomic_load(&p->streams[i].native) != PM_NATIVE_INVALID;
        streams[i].truncated = atomic_load(&p->streams[i].truncated);
    }
}

PM_API int pm_process_info(pm_process *p, struct pm_info *ret_info)
{
    int checked = check_handle(p);
    if (checked != PM_OK || ret_info == NULL) {
        return checked != PM_OK ? checked : PM_ERR_INVALID;
    }
    struct pm_info info = PM_INFO_INIT;
    info.owner = p->owner;
    info.program = p->program;
    info.key = p->key;
    info.label = p->label;
    info.user = p->user;
    info.mode = p->mode;
    info.pid = pm_process_pid(p);
    bool alive = pm_process_alive(p);
    bool stopped = pmi_process_look_at_stop(p);
    info.containment = p->started.containment;
    info.detachment = p->started.detachment;
    info.die_with_parent = p->die_with_parent;
    info.recovered = p->recovered;
    info.adopted = p->started.adopted;
    info.best_effort = p->started.best_effort;
    info.started_wall_ms = p->started.started_wall_ms;
    info.id = p->id;
    fill_streams(p, info.streams);
    pmi_mutex_lock(&p->lock);
    info.state = (enum pm_state)atomic_load(&p->state);
    info.alive = alive && info.state <= PM_STATE_RUNNING;
    if (info.state == PM_STATE_RUNNING && stopped) {
        info.state = PM_STATE_STOPPED;
    }
    info.fallbacks = fallbacks_of(p);
    int64_t uptime;
    if (info.state == PM_STATE_ENDED) {
        uptime = (int64_t)p->exit.uptime_ms;
    } else if (p->recovered) {
        uptime = pmi_wall_ms() - p->started.started_wall_ms;
    } else {
        uptime = (p->dead_ms != 0 ? p->dead_ms : pmi_now_ms()) - p->started.started_ms;
    }
    pmi_mutex_unlock(&p->lock);
    info.uptime_ms = uptime > 0 ? (uint64_t)uptime : 0;
    return pmi_copy_out(ret_info, &info, sizeof info);
}

static int give_record(pm_process *p, struct pm_exit *ret_exit)
{
    if (ret_exit == NULL) {
        return PM_OK;
    }
    pmi_mutex_lock(&p->lock);
    struct pm_exit record = p->exit;
    pmi_mutex_unlock(&p->lock);
    // Truncation is a fact about our readers: it may come after the exit.
    record.stdout_truncated = atomic_load(&p->streams[PM_STDOUT].truncated);
    record.stderr_truncated = atomic_load(&p->streams[PM_STDERR].truncated);
    return pmi_copy_out(ret_exit, &record, sizeof record);
}

// Around a wait that does not need the reactor: see pmi_os_reactor_pause.
static void begin_direct_wait(pm_process *p)
{
    pm_manager *m = p->manager;
    pmi_mutex_lock(&m->lock);
    if (p->direct_waiters++ == 0 && !m->closed && !p->no_os) {
        (void)pmi_os_reactor_pause(&m->os, &p->os, p, true);
        p->unwatched = false;
    }
    pmi_mutex_unlock(&m->lock);
}

struct direct_wait {
    pm_process *process;
    void (*body)(void *);
    void *arg;
};

static void run_body(void *arg)
{
    struct direct_wait *wait = arg;
    wait->body(wait->arg);
}

static void end_direct_wait(void *arg)
{
    struct direct_wait *wait = arg;
    pmi_reactor_resume(wait->process->manager, wait->process);
}

void pmi_process_wait_directly(pm_process *p, void (*body)(void *), void *arg)
{
    struct direct_wait wait = {.process = p, .body = body, .arg = arg};
    begin_direct_wait(p);
    pmi_guarded(run_body, end_direct_wait, &wait);
}

struct record_wait {
    pm_process *process;
    int64_t deadline;
    int result;
};

static void await_record(void *arg)
{
    struct record_wait *wait = arg;
    for (;;) {
        bool late = pmi_now_ms() >= wait->deadline; // Before the look: an end by then is in time.
        wait->result = pmi_process_reap(wait->process);
        if (wait->result == PM_OK || late) {
            return;
        }
        if (wait->result == PM_ERR_TIMEOUT) {
            (void)pmi_os_process_wait(&wait->process->os, wait->deadline);
        } else {
            pmi_sleep_ms(PMI_PENDING_POLL_MS);
        }
    }
}

PM_API int pm_process_wait(pm_process *p, int64_t timeout_ms, struct pm_exit *ret_exit)
{
    int result = check_handle(p);
    if (result != PM_OK) {
        return result;
    }
    if (atomic_load(&p->state) == PM_STATE_ENDED) {
        return give_record(p, ret_exit);
    }
    if (manager_closed(p->manager)) {
        return PM_ERR_CLOSED;
    }
    result = pmi_process_reap(p);
    if (result != PM_OK && timeout_ms != 0) {
        struct record_wait wait = {.process = p, .deadline = pmi_deadline(timeout_ms)};
        pmi_process_wait_directly(p, await_record, &wait);
        result = wait.result;
    }
    return result == PM_OK ? give_record(p, ret_exit) : result;
}

PM_API int pm_process_exit_waitable(pm_process *p, pm_native *ret_native)
{
    int result = check_handle(p);
    if (result != PM_OK || ret_native == NULL) {
        return result != PM_OK ? result : PM_ERR_INVALID;
    }
    return p->no_os ? PM_ERR_UNSUPPORTED : pmi_os_process_waitable(&p->os, ret_native);
}

PM_API int pm_process_signal(pm_process *p, int signal_number, enum pm_stop_scope scope)
{
    int result = check_handle(p);
    if (result != PM_OK) {
        return result;
    }
    if (signal_number < 0 || scope < PM_SCOPE_TREE || scope > PM_SCOPE_GROUP) {
        return PM_ERR_INVALID;
    }
    if (manager_closed(p->manager)) {
        return PM_ERR_CLOSED;
    }
    if (p->no_os) {
        return PM_ERR_GONE;
    }
    pmi_mutex_lock(&p->lock);
    if (scope == PM_SCOPE_PROCESS && atomic_load(&p->state) >= PM_STATE_STATUS_PENDING) {
        result = PM_ERR_GONE;
    } else {
        result = pmi_os_process_signal(&p->os, signal_number, scope);
    }
    pmi_mutex_unlock(&p->lock);
    return result;
}

PM_API int pm_process_resize(pm_process *p, unsigned columns, unsigned rows)
{
    if (p == NULL || columns < 1 || columns > PMI_TERMINAL_MAX || rows < 1 ||
        rows > PMI_TERMINAL_MAX) {
        return PM_ERR_INVALID;
    }
    int result = check_handle(p);
    if (result != PM_OK) {
        return result;
    }
    if (p->mode != PM_MODE_PTY) {
        return PM_ERR_UNSUPPORTED;
    }
    if (manager_closed(p->manager)) {
        return PM_ERR_CLOSED;
    }
    pmi_mutex_lock(&p->lock);
    result = p->no_os ? PM_ERR_GONE : pmi_os_terminal_resize(&p->os, columns, rows);
    pmi_mutex_unlock(&p->lock);
    return result;
}
