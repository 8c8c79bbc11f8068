#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"

// What pm_stats::fallbacks counts: the rest costs time only.
#define COUNTED_FALLBACKS                                                                          \
    ((uint32_t)(PM_FALLBACK_BEST_EFFORT | PM_FALLBACK_FORK | PM_FALLBACK_LATE_JOB))

// pm_spawn: reserve, prepare, launch, commit. A process is listed (and its key taken) before it is
// born, so that no exit and no second start can come between.

static int reserve(pm_manager *m, pm_process *p, struct pmi_under_way *start, struct pm_error *err)
{
    int result = PM_OK;
    pmi_mutex_lock(&m->lock);
    if (m->closing || m->closed) {
        result = pmi_set_error(err, PM_ERR_CLOSED, PM_STAGE_CHECK, NULL);
    } else if (p->key != NULL && pmi_key_is_taken(m, p->key)) {
        (void)snprintf(err->hint, sizeof err->hint,
                       "a daemon of this key runs, starts or is being recovered in this manager");
        result = pmi_set_error(err, PM_ERR_EXISTS, PM_STAGE_REGISTRY, "key");
    } else {
        m->starting++;
        start->previous = NULL;
        start->next = m->under_way;
        if (start->next != NULL) {
            start->next->previous = start;
        }
        m->under_way = start;
        pmi_list_add(m, p);
    }
    pmi_mutex_unlock(&m->lock);
    return result;
}

static void unreserve(pm_manager *m, pm_process *p, struct pmi_under_way *start, bool success)
{
    int64_t us = pmi_now_us() - start->begun_us;
    pmi_mutex_lock(&m->lock);
    m->starting--;
    *(start->previous != NULL ? &start->previous->next : &m->under_way) = start->next;
    if (start->next != NULL) {
        start->next->previous = start->previous;
    }
    if (success) {
        m->stats.started++;
        m->stats.modes[p->mode].started++;
        pmi_histogram_add(&m->stats.spawn_duration, us);
        m->stats.exec_retries += p->started.exec_retries;
        m->stats.fallbacks += (p->started.fallbacks & COUNTED_FALLBACKS) != 0;
        atomic_fetch_or(&m->fallback_kinds, p->started.fallbacks);
        m->stats.adopted += p->started.adopted;
    } else {
        pmi_list_remove(m, p);
    }
    pmi_cond_broadcast(&m->changed);
    pmi_mutex_unlock(&m->lock);
}

// ------------------------------------------------------------------------------------------------
// Launch
// ------------------------------------------------------------------------------------------------

// The gate of a daemon's start: the record is on disk before the program can run.
static int write_starting(void *context, const struct pmi_identity *id, struct pm_error *err)
{
    pm_process *p = context;
    p->started.started_wall_ms = pmi_wall_ms();
    return pmi_registry_put(p->manager, p, PMI_RECORD_STARTING, id, err);
}

static int commit_daemon(pm_process *p, struct pm_error *err)
{
    struct pmi_identity id;
    int result = pmi_os_process_identity(&p->os, &id);
    if (result != PM_OK) {
        return pmi_set_error(err, result, PM_STAGE_REGISTRY, NULL);
    }
    result = pmi_os_daemon_commit(&p->os, err);
    return result == PM_OK ? pmi_registry_put(p->manager, p, PMI_RECORD_RUNNING, &id, err) : result;
}

static void adopt_streams(pm_process *p, const struct pmi_plan *plan,
                          const struct pmi_os_stream streams[3])
{
    for (int i = 0; i < 3; i++) {
        if (plan->slots[i].kind == PM_STDIO_PIPE ||
            (plan->slots[i].kind == PM_STDIO_TERMINAL && i != PM_STDERR)) {
            p->streams[i].os = streams[i];
            p->streams[i].exists = true;
            atomic_store(&p->streams[i].native, pmi_os_stream_native(&p->streams[i].os));
        }
    }
}

// From here on the process exists: a failure undoes it.
static int commit(pm_process *p, struct pm_error *err)
{
    pm_manager *m = p->manager;
    int result = p->mode == PM_MODE_DAEMON ? commit_daemon(p, err) : PM_OK;
    if (result != PM_OK) {
        return result;
    }
    pmi_mutex_lock(&m->lock); // The detector looks at every listed one.
    p->pid = pmi_os_process_pid(&p->os);
    pmi_mutex_unlock(&m->lock);
    // Nobody sees it before it is watched: who waited for it meanwhile would retire it too early.
    result = pmi_reactor_add(m, p);
    if (result != PM_OK) {
        return pmi_set_error(err, result, PM_STAGE_WATCH, NULL);
    }
    pmi_mutex_lock(&p->lock);
    if (atomic_load(&p->state) == PM_STATE_STARTING) { // Else the reactor has seen its end already.
        pmi_process_set_state(p, PM_STATE_RUNNING);
    }
    pmi_mutex_unlock(&p->lock);
    pmi_event_post_started(p, PM_EVENT_STARTED);
    return PM_OK;
}

static int launch(pm_process *p, struct pmi_plan *plan, struct pm_error *err)
{
    struct pmi_os_stream streams[3] = {PMI_OS_STREAM_INIT, PMI_OS_STREAM_INIT, PMI_OS_STREAM_INIT};
    struct pmi_started started;
    memset(&started, 0, sizeof started);
    plan->gate = write_starting;
    plan->gate_context = p;
    plan->launcher_deadline = pmi_now_ms() + p->manager->options.launcher_timeout_ms;
    if (plan->launcher_deadline > plan->deadline) {
        plan->launcher_deadline = plan->deadline;
    }
    int result = pmi_os_start(&p->manager->os, plan, &p->os, streams, &started, err);
    if (result != PM_OK) {
        if (p->mode == PM_MODE_DAEMON && p->started.started_wall_ms != 0) {
            pmi_registry_drop(p->manager, p);
        }
        return result;
    }
    p->started = started;
    adopt_streams(p, plan, streams);
    result = commit(p, err);
    if (result != PM_OK) {
        pmi_process_abandon(p);
        if (p->mode == PM_MODE_DAEMON) {
            pmi_registry_drop(p->manager, p);
        }
    }
    return result;
}

// ------------------------------------------------------------------------------------------------
// The call
// ------------------------------------------------------------------------------------------------

static pm_process *describe(pm_manager *m, const struct pmi_start *start)
{
    const struct pm_spec *s = &start->spec;
    pm_process *p = pmi_process_new(m);
    if (p == NULL) {
        return NULL;
    }
    if (pmi_process_text(p, s->owner, start->program, s->key, s->label) != PM_OK) {
        pmi_process_drop(p);
        return NULL;
    }
    p->mode = s->mode;
    pmi_stop_plan_pack(&s->stop, &p->stop);
    p->die_with_parent = s->die_with_parent;
    p->kill_tree_on_exit = s->kill_tree_on_exit;
    p->shares_tty = s->group == PM_GROUP_FOREGROUND;
    for (int i = 0; i < 3; i++) {
        p->slots[i] = (uint8_t)start->plan.slots[i].kind;
    }
    p->on_exit = s->on_exit;
    p->user = s->user;
    return p;
}

static int start_one(pm_manager *m, const struct pm_spec *spec, pm_process **ret_process,
                     struct pm_error *err)
{
    struct pmi_start start;
    struct pmi_under_way under_way = {.begun_ms = pmi_now_ms(), .begun_us = pmi_now_us()};
    int result = pmi_start_prepare(m, spec, &start, err);
    if (result != PM_OK) {
        return result;
    }
    pm_process *p = describe(m, &start);
    if (p == NULL) {
        pmi_start_clear(&start);
        return pmi_set_error(err, PM_ERR_NO_MEMORY, PM_STAGE_CHECK, NULL);
    }
    // The caller's reference comes first: else an exit at once could unlist the process before the
    // caller ever held it.
    (void)pm_process_ref(p);
    if (p->key != NULL) {
        pmi_key_await(m, p->key, start.plan.deadline);
    }
    result = reserve(m, p, &under_way, err);
    if (result == PM_OK) {
        if (p->key != NULL) {
            result = pmi_registry_check_key(m, p->key, err);
        }
        if (result == PM_OK) {
            result = launch(p, &start.plan, err);
        }
        unreserve(m, p, &under_way, result == PM_OK);
    }
    pmi_start_clear(&start);
    if (result == PM_OK) {
        *ret_process = p;
    } else {
        (void)pm_process_unref(p);
    }
    pmi_process_drop(p);
    return result;
}

// What only the Spec tells about an error: who, what, and which file or folder.
static void describe_failure(const struct pm_spec *spec, struct pm_error *err)
{
    const struct {
        const char *field, *what, *value;
    } paths[] = {
        {"cwd", "cwd is", spec->cwd},
        {"stdin_slot.path", "file", spec->stdin_slot.path},
        {"stdout_slot.path", "file", spec->stdout_slot.path},
        {"stderr_slot.path", "file", spec->stderr_slot.path},
    };
    (void)snprintf(err->owner, sizeof err->owner, "%s", spec->owner != NULL ? spec->owner : "");
    (void)snprintf(err->program, sizeof err->program, "%s",
                   spec->program != NULL ? spec->program : "");
    for (size_t i = 0; i < sizeof paths / sizeof paths[0] && err->hint[0] == '\0'; i++) {
        if (paths[i].value != NULL && strcmp(err->field, paths[i].field) == 0) {
            (void)snprintf(err->hint, sizeof err->hint, "%s %s", paths[i].what, paths[i].value);
        }
    }
}

static void note_failure(pm_manager *m, const struct pm_spec *spec, struct pm_error *err)
{
    if (spec->size >= sizeof *spec) {
        describe_failure(spec, err);
    }
    pmi_mutex_lock(&m->lock);
    m->stats.start_failures++;
    pmi_mutex_unlock(&m->lock);
    if (m->options.log != NULL || m->options.event != NULL) {
        char line[1024];
        (void)pm_error_format(err, line, sizeof line);
        pmi_log(m, PM_LOG_ERROR, "%s", line);
        pmi_event_post_detail(m, PM_EVENT_START_FAILED, 0, line);
    }
}

static int spawn(pm_manager *m, const struct pm_spec *spec, pm_process **ret_process,
                 struct pm_error *ret_error)
{
    struct pm_error err = PM_ERROR_INIT;
    (void)snprintf(err.action, sizeof err.action, "start");
    int result = pmi_check_manager(m);
    if (result == PM_OK && spec == NULL) {
        result = PM_ERR_INVALID;
    }
    if (result != PM_OK) {
        (void)pmi_set_error(&err, result, PM_STAGE_CHECK, NULL);
    } else {
        pm_process *p = NULL;
        result = start_one(m, spec, &p, &err);
        if (result == PM_OK) {
            pmi_log(m, PM_LOG_INFO, "started '%s' (owner %s), pid %llu", p->program, p->owner,
                    (unsigned long long)p->pid);
            if (ret_process != NULL) {
                *ret_process = p;
            } else {
                (void)pm_process_unref(p);
            }
            return PM_OK;
        }
        err.code = result;
        note_failure(m, spec, &err);
    }
    if (ret_error != NULL) {
        (void)pmi_copy_out(ret_error, &err, sizeof err);
    }
    return result;
}

PM_API int pm_spawn(pm_manager *m, const struct pm_spec *spec, pm_process **ret_process,
                    struct pm_error *ret_error)
{
    int cancel = pmi_cancel_off();
    int result = spawn(m, spec, ret_process, ret_error);
    pmi_cancel_restore(cancel);
    return result;
}
