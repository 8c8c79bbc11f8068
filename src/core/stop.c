#include <stdlib.h>
#include <string.h>

#include "core/core.h"

// A stop is a small machine that is advanced by whoever drives it: one thread for one process, or
// one thread for all of them. Nothing in it blocks.

#define BACKOFF_MAX_MS 20
// How long the delivery of a step is waited for that goes on by itself.
#define DELIVERY_MS 5000
// The same once the process is dead.
#define LAST_WORD_MS PM_STOP_SETTLE_MS

void pmi_default_stop_plan(struct pm_stop_plan *plan)
{
    *plan = (struct pm_stop_plan){
        .steps_count = 2,
        .steps = {{PM_STOP_TERMINATE, PM_SCOPE_TREE, PM_STOP_GRACE_MS},
                  {PM_STOP_KILL, PM_SCOPE_TREE, PM_STOP_SETTLE_MS}},
    };
}

int pmi_stop_plan_check(const struct pm_stop_plan *plan)
{
    if (plan->steps_count > PM_STOP_STEPS_MAX) {
        return PM_ERR_INVALID;
    }
    for (size_t i = 0; i < plan->steps_count; i++) {
        const struct pm_stop_step *step = &plan->steps[i];
        if (step->action < PM_STOP_CLOSE_STDIN || step->action > PM_STOP_KILL ||
            step->scope < PM_SCOPE_TREE || step->scope > PM_SCOPE_GROUP) {
            return PM_ERR_INVALID;
        }
    }
    return PM_OK;
}

void pmi_stop_plan_pack(const struct pm_stop_plan *plan, struct pmi_packed_plan *ret_packed)
{
    ret_packed->steps_count = (uint8_t)plan->steps_count;
    for (size_t i = 0; i < plan->steps_count; i++) {
        ret_packed->actions[i] = (uint8_t)plan->steps[i].action;
        ret_packed->scopes[i] = (uint8_t)plan->steps[i].scope;
        ret_packed->timeout_ms[i] = plan->steps[i].timeout_ms;
    }
}

static void unpack(const struct pmi_packed_plan *packed, struct pm_stop_plan *ret_plan)
{
    ret_plan->steps_count = packed->steps_count;
    for (size_t i = 0; i < packed->steps_count; i++) {
        ret_plan->steps[i] =
            (struct pm_stop_step){(enum pm_stop_action)packed->actions[i],
                                  (enum pm_stop_scope)packed->scopes[i], packed->timeout_ms[i]};
    }
}

void pmi_stopper_begin(struct pmi_stopper *s, pm_process *p, const struct pm_stop_plan *plan,
                       int64_t limit)
{
    memset(s, 0, sizeof *s);
    s->process = p;
    if (plan != NULL) {
        s->plan = *plan;
    } else {
        unpack(&p->stop, &s->plan);
    }
    if (s->plan.steps_count == 0) {
        pmi_default_stop_plan(&s->plan);
    }
    s->report.size = sizeof s->report;
    pmi_mutex_lock(&p->lock);
    s->number = ++p->stops;
    pmi_mutex_unlock(&p->lock);
    s->started = pmi_now_ms();
    s->limit = limit;
    s->backoff_ms = 1;
    for (size_t i = 0; i < s->plan.steps_count; i++) {
        s->wants_tree |= s->plan.steps[i].scope == PM_SCOPE_TREE;
    }
    s->began_us = pmi_now_us();
    s->report.already_ended = pmi_process_reap(p) != PM_ERR_TIMEOUT;
    if (!s->report.already_ended) {
        pmi_event_post_living(p, PM_EVENT_STOPPING);
    }
}

// How far the process and its tree are gone.
static bool look(struct pmi_stopper *s)
{
    pm_process *p = s->process;
    s->leader_dead = pmi_process_reap(p) != PM_ERR_TIMEOUT;
    if (!s->leader_dead) {
        return false;
    }
    s->report.tree_left = false;
    if (s->wants_tree && !p->no_os) {
        pmi_mutex_lock(&p->lock);
        s->report.tree_left = pmi_os_process_tree_alive(&p->os);
        pmi_mutex_unlock(&p->lock);
    }
    return !s->report.tree_left;
}

// Notes the step that is about to be delivered. Under p->lock, which reaping needs as well: the
// record of a process that dies of it at once names this step.
static void note(const struct pmi_stopper *s, pm_process *p)
{
    if (atomic_load(&p->state) >= PM_STATE_STATUS_PENDING) {
        return; // It has died of something else.
    }
    if (p->notes_count == PMI_STOP_NOTES) {
        p->notes_count--;
        memmove(&p->notes[0], &p->notes[1], p->notes_count * sizeof p->notes[0]);
    }
    enum pm_stop_action action = s->plan.steps[s->step - 1].action;
    p->notes[p->notes_count++] = (struct pmi_stop_note){.stop = s->number,
                                                        .step = (uint8_t)(s->step & 15),
                                                        .action = (uint8_t)(action & 15)};
}

// Takes back what this stop has noted of a step, or of all (0); what others have noted stays. Under
// p->lock.
static void take_back(const struct pmi_stopper *s, pm_process *p, unsigned step)
{
    uint8_t kept = 0;
    for (uint8_t i = 0; i < p->notes_count; i++) {
        if (p->notes[i].stop != s->number || (step != 0 && p->notes[i].step != step)) {
            p->notes[kept++] = p->notes[i];
        }
    }
    p->notes_count = kept;
}

static void take_back_step(const struct pmi_stopper *s)
{
    pm_process *p = s->process;
    pmi_mutex_lock(&p->lock);
    take_back(s, p, s->step);
    pmi_mutex_unlock(&p->lock);
}

static int close_stdin(struct pmi_stopper *s)
{
    pm_process *p = s->process;
    struct pm_stream *in = &p->streams[PM_STDIN];
    if (!in->exists) {
        return PM_ERR_UNSUPPORTED;
    }
    pmi_mutex_lock(&p->lock);
    note(s, p);
    pmi_mutex_unlock(&p->lock);
    int result = pm_stream_close(in);
    if (result != PM_OK) {
        take_back_step(s);
    }
    return result;
}

// The step that has just been begun. Sets s->pending where its delivery goes on by itself.
static int deliver(struct pmi_stopper *s)
{
    pm_process *p = s->process;
    const struct pm_stop_step *step = &s->plan.steps[s->step - 1];
    if (p->no_os) {
        return PM_ERR_GONE;
    }
    if (step->action == PM_STOP_CLOSE_STDIN) {
        return close_stdin(s);
    }
    pmi_mutex_lock(&p->lock);
    bool dead = atomic_load(&p->state) >= PM_STATE_STATUS_PENDING;
    int result = PM_ERR_GONE;
    if (!dead || step->scope != PM_SCOPE_PROCESS) {
        note(s, p);
        result = pmi_os_process_act(&p->os, step->action, step->scope, &s->pending);
    }
    if (result != PM_OK) {
        take_back(s, p, s->step);
    }
    pmi_mutex_unlock(&p->lock);
    return result;
}

static void count_stop(const struct pmi_stopper *s)
{
    pm_manager *m = s->process->manager;
    int64_t us = pmi_now_us() - s->began_us;
    pmi_mutex_lock(&m->lock);
    m->stats.stop_failures += s->report.result != PM_OK;
    if (!s->report.already_ended) {
        pmi_histogram_add(&m->stats.stop_duration, us);
    }
    pmi_mutex_unlock(&m->lock);
}

static void finish(struct pmi_stopper *s, int result)
{
    pm_process *p = s->process;
    s->done = true;
    s->report.result = result;
    s->report.elapsed_ms = (uint32_t)(pmi_now_ms() - s->started);
    count_stop(s);
    if (result != PM_OK) {
        // What ends it later is not this stop.
        pmi_mutex_lock(&p->lock);
        if (atomic_load(&p->state) < PM_STATE_STATUS_PENDING) {
            take_back(s, p, 0);
        }
        pmi_mutex_unlock(&p->lock);
    }
}

static void note_leader_dead(struct pmi_stopper *s)
{
    if (s->report.ended_by != 0 || s->report.already_ended) {
        return;
    }
    // The last step that got through.
    for (unsigned i = s->step; i > 0; i--) {
        if (s->report.step_results[i - 1] == PM_OK) {
            s->report.ended_by = i;
            s->report.ended_by_action = s->plan.steps[i - 1].action;
            return;
        }
    }
}

// Under an overall limit: the share of the time that earlier steps leave the last one.
static int64_t reserve(const struct pmi_stopper *s)
{
    int64_t quarter = (s->limit - s->started) / 4;
    return quarter < PM_STOP_SETTLE_MS ? quarter : PM_STOP_SETTLE_MS;
}

// Until when a delivered step may work.
static int64_t step_deadline(const struct pmi_stopper *s, const struct pm_stop_step *step)
{
    bool last = s->step == s->plan.steps_count;
    int64_t now = pmi_now_ms();
    int64_t until = now + (last && step->timeout_ms == 0 ? PM_STOP_SETTLE_MS : step->timeout_ms);
    if (s->limit == PMI_NEVER) {
        return until;
    }
    if (last) {
        return s->limit; // Nothing is left to try, so all the time there is.
    }
    int64_t limit = s->limit - reserve(s);
    return until < limit ? until : limit;
}

// Until when a delivery that goes on by itself is waited for. The last step keeps its time.
static int64_t delivery_deadline(const struct pmi_stopper *s)
{
    int64_t until = pmi_now_ms() + DELIVERY_MS;
    if (s->limit == PMI_NEVER) {
        return until;
    }
    int64_t limit = s->step == s->plan.steps_count ? s->limit : s->limit - reserve(s);
    return until < limit ? until : limit;
}

// A polite step that nobody hears is not passed over in silence: the next one may be the kill.
static void warn(const struct pmi_stopper *s, const struct pm_stop_step *step, int result)
{
    static const char *const names[] = {"", "close stdin", "interrupt", "terminate", "kill"};
    const pm_process *p = s->process;
    pmi_log(p->manager, PM_LOG_WARNING,
            "stop of '%s' (owner %s, pid %llu): step %u (%s) could not be delivered: %s: %s",
            p->program != NULL ? p->program : "", p->owner != NULL ? p->owner : "",
            (unsigned long long)p->pid, s->step, names[step->action], pm_error_name(result),
            pm_strerror(result));
}

// A terminal that is full has no room for the end of the input: the step goes on, and finds it
// later.
static void owe_end(struct pmi_stopper *s, int result)
{
    s->owes_end =
        result == PM_ERR_TIMEOUT && s->plan.steps[s->step - 1].action == PM_STOP_CLOSE_STDIN;
    s->report.step_results[s->step - 1] = result;
}

// After a step that found nobody: whether that is because of an end that is not known to us yet.
// Whoever watches it is about to tell. But a process that lives may have left its group.
static bool is_ending(const struct pmi_stopper *s, const struct pm_stop_step *step)
{
    pm_process *p = s->process;
    if (s->leader_dead) {
        return false;
    }
    if (step->scope != PM_SCOPE_GROUP) {
        return true;
    }
    pmi_mutex_lock(&p->lock);
    bool gone = !p->no_os && pmi_os_process_signal(&p->os, 0, PM_SCOPE_PROCESS) == PM_ERR_GONE;
    pmi_mutex_unlock(&p->lock);
    return gone;
}

// The step that was begun last has been delivered, or has not.
static void settle(struct pmi_stopper *s, int result)
{
    const struct pm_stop_step *step = &s->plan.steps[s->step - 1];
    owe_end(s, result);
    s->backoff_ms = 1;
    // What cannot be delivered takes no time: there is one more look.
    bool takes_time =
        result == PM_OK || s->owes_end || (result == PM_ERR_GONE && is_ending(s, step));
    s->step_deadline = takes_time ? step_deadline(s, step) : pmi_now_ms();
    if (result != PM_OK && result != PM_ERR_GONE && !s->owes_end) {
        warn(s, step, result);
    }
}

// Asks what became of a delivery that goes on by itself: false while it does.
static bool collect(struct pmi_stopper *s, int64_t now)
{
    if (s->pending == NULL) {
        return true;
    }
    if (s->leader_dead && s->pending_until > now + LAST_WORD_MS) {
        s->pending_until =
            now + LAST_WORD_MS; // Nothing hangs on it but who is said to have ended it.
    }
    int result = pmi_os_step_poll(s->pending);
    if (result == PM_ERR_TIMEOUT && now < s->pending_until) {
        return false;
    }
    pmi_os_step_end(s->pending);
    s->pending = NULL;
    if (result != PM_OK) {
        take_back_step(s);
    }
    settle(s, result);
    return true;
}

static void begin_step(struct pmi_stopper *s)
{
    s->step++;
    s->report.steps_tried = s->step;
    s->backoff_ms = 1;
    int result = deliver(s);
    if (s->pending != NULL) {
        s->pending_until = delivery_deadline(s);
    } else {
        settle(s, result);
    }
}

// What nobody tells us of is looked for soon, and then less often.
static void wake_by(struct pmi_stopper *s, int64_t now, int64_t deadline, bool poll)
{
    s->wake = deadline;
    if (poll) {
        int64_t soon = now + s->backoff_ms;
        s->wake = soon < s->wake ? soon : s->wake;
        s->backoff_ms = s->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : s->backoff_ms * 2;
    }
}

void pmi_stopper_advance(struct pmi_stopper *s)
{
    while (!s->done) {
        int64_t now = pmi_now_ms(); // Before the look: what had ended by then was in time.
        bool gone = look(s);
        if (!collect(s, now)) {
            wake_by(s, now, s->pending_until, true);
            return;
        }
        if (s->leader_dead) {
            note_leader_dead(s);
        }
        if (gone) {
            finish(s, PM_OK);
            return;
        }
        if (s->step > 0 && now < s->step_deadline) {
            if (s->owes_end && !s->leader_dead) {
                owe_end(s, close_stdin(s));
            }
            // A tree tells nobody of its end, and a terminal not of room for it.
            wake_by(s, now, s->step_deadline, s->leader_dead || s->owes_end);
            return;
        }
        if (s->owes_end) {
            s->owes_end = false;
            warn(s, &s->plan.steps[s->step - 1], PM_ERR_TIMEOUT);
        }
        if (s->step == s->plan.steps_count) {
            finish(s, PM_ERR_TIMEOUT);
            return;
        }
        begin_step(s);
    }
}

void pmi_stopper_end(struct pmi_stopper *s)
{
    pmi_os_step_end(s->pending);
    s->pending = NULL;
}

static void drive_one(void *arg)
{
    struct pmi_stopper *s = arg;
    pm_process *p = s->process;
    for (pmi_stopper_advance(s); !s->done; pmi_stopper_advance(s)) {
        if (atomic_load(&p->state) < PM_STATE_STATUS_PENDING) {
            (void)pmi_os_process_wait(&p->os, s->wake);
        } else if (s->leader_dead) { // Else somebody has taken its status since: look at once.
            int64_t ms = s->wake - pmi_now_ms();
            pmi_sleep_ms(ms > 0 ? (uint32_t)ms : 0);
        }
    }
}

PM_API int pm_process_stop(pm_process *p, const struct pm_stop_plan *plan,
                           struct pm_stop_report *ret_report)
{
    if (p == NULL) {
        return PM_ERR_INVALID;
    }
    int result = pmi_check_manager(p->manager);
    if (result == PM_OK && plan != NULL) {
        result = pmi_stop_plan_check(plan);
    }
    if (result != PM_OK) {
        return result;
    }
    struct pmi_stopper s;
    pmi_stopper_begin(&s, p, plan, PMI_NEVER);
    pmi_process_wait_directly(p, drive_one, &s);
    if (ret_report != NULL) {
        (void)pmi_copy_out(ret_report, &s.report, sizeof s.report);
    }
    return s.report.result;
}

// ------------------------------------------------------------------------------------------------
// Many at once
// ------------------------------------------------------------------------------------------------

struct stop_all {
    pm_manager *m;
    bool daemons;
    pm_stop_visitor *visit;
    void *user;
    struct pm_stop_all_report report;
    struct pmi_stopper *stoppers;
    size_t count;
};

static void count_done(struct stop_all *all, const struct pmi_stopper *s)
{
    all->report.already_ended += s->report.already_ended;
    for (unsigned i = 0; i < s->report.steps_tried; i++) {
        int step = s->report.step_results[i];
        if (step != PM_OK && step != PM_ERR_GONE && all->report.undelivered++ == 0) {
            all->report.undelivered_code = step;
        }
    }
    if (s->report.result == PM_OK) {
        all->report.stopped++;
    } else {
        all->report.left++;
    }
    if (all->visit != NULL) {
        all->visit(all->user, s->process, &s->report);
    }
}

// Advances those that have something to do; returns when the next one wants to be woken, and how
// many are not done.
static size_t advance_all(struct stop_all *all, int64_t *ret_wake)
{
    size_t open = 0;
    int64_t wake = PMI_NEVER, now = pmi_now_ms();
    pmi_os_round_begin();
    for (size_t i = 0; i < all->count; i++) {
        struct pmi_stopper *s = &all->stoppers[i];
        if (s->done) {
            continue;
        }
        // The reactor reaps; asking the kernel for each at every wake-up would be quadratic.
        bool dead = atomic_load(&s->process->state) >= PM_STATE_STATUS_PENDING;
        if (dead || s->step == 0 || now >= s->wake) {
            pmi_stopper_advance(s);
        }
        if (!s->done) {
            open++;
            wake = s->wake < wake ? s->wake : wake;
        }
    }
    pmi_os_round_end();
    for (size_t i = 0; i < all->count; i++) { // The host's visitor may do what it likes.
        struct pmi_stopper *s = &all->stoppers[i];
        if (s->done && !s->counted) {
            s->counted = true;
            count_done(all, s);
        }
    }
    *ret_wake = wake;
    return open;
}

static void drive(struct stop_all *all)
{
    pm_manager *m = all->m;
    for (;;) {
        pmi_mutex_lock(&m->lock);
        uint64_t seen = m->deaths;
        pmi_mutex_unlock(&m->lock);
        int64_t wake;
        if (advance_all(all, &wake) == 0) {
            return;
        }
        pmi_await_death(m, seen, wake);
    }
}

// Daemons that live are only counted; ended ones may have left a tree, but not one of ours.
static bool chosen(struct stop_all *all, pm_process *p)
{
    int state = atomic_load(&p->state);
    bool daemon = p->mode == PM_MODE_DAEMON;
    if (daemon && !all->daemons) {
        all->report.daemons += state == PM_STATE_RUNNING;
        return false;
    }
    return daemon == all->daemons && state != PM_STATE_STARTING && state != PM_STATE_ENDED;
}

static int stop_matching(struct stop_all *all, int64_t timeout_ms)
{
    int64_t limit = pmi_deadline(timeout_ms < 0 ? PMI_DEFAULT_STOP_ALL_MS : timeout_ms);
    pm_process **list = NULL;
    size_t count = 0;
    int result = pmi_snapshot(all->m, &list, &count);
    if (result != PM_OK) {
        return result;
    }
    all->stoppers = calloc(count + 1, sizeof *all->stoppers);
    if (all->stoppers == NULL) {
        pmi_snapshot_free(list, count);
        return PM_ERR_NO_MEMORY;
    }
    for (size_t i = 0; i < count; i++) {
        if (chosen(all, list[i])) {
            pmi_stopper_begin(&all->stoppers[all->count++], list[i], NULL, limit);
        }
    }
    all->report.total = all->count;
    drive(all);
    free(all->stoppers);
    pmi_snapshot_free(list, count);
    return all->report.left == 0 ? PM_OK : PM_ERR_BUSY;
}

static int stop_public(struct stop_all *all, int64_t timeout_ms,
                       struct pm_stop_all_report *ret_report)
{
    int result = pmi_check_manager(all->m);
    if (result != PM_OK) {
        return result;
    }
    all->report.size = sizeof all->report;
    int cancel = pmi_cancel_off();
    result = stop_matching(all, timeout_ms);
    pmi_cancel_restore(cancel);
    if (ret_report != NULL && (result == PM_OK || result == PM_ERR_BUSY)) {
        (void)pmi_copy_out(ret_report, &all->report, sizeof all->report);
    }
    return result;
}

PM_API int pm_stop_all(pm_manager *m, int64_t timeout_ms, pm_stop_visitor *visit, void *user,
                       struct pm_stop_all_report *ret_report)
{
    struct stop_all all = {.m = m, .visit = visit, .user = user};
    return stop_public(&all, timeout_ms, ret_report);
}

PM_API int pm_stop_daemons(pm_manager *m, int64_t timeout_ms, pm_stop_visitor *visit, void *user,
                           struct pm_stop_all_report *ret_report)
{
    struct stop_all all = {.m = m, .daemons = true, .visit = visit, .user = user};
    return stop_public(&all, timeout_ms, ret_report);
}
