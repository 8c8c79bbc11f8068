#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"

// A zombie of this program that no manager tracks is somebody's start without a wait. It is
// believed once it was seen in two sweeps: another thread may be between the two right now. The
// sweep never waits; with PM_LEAK_REAP what is believed is waited for, one by one, by pid.

// How long a zombie has to be seen before it is waited for, in milliseconds: longer than a thread
// of the host needs from an end to its wait, also on a machine that has much else to do.
#define REAP_AFTER_MS 1000

struct sweep {
    pm_manager *m;
    struct pmi_suspect *list;
    size_t count, capacity;
    bool no_memory;
    uint64_t leaked, leaked_pid; // Believed now, and one of them.
    uint64_t found, reaped, orphans, orphans_reaped;
};

static void note_zombie(void *context, const struct pmi_zombie *zombie)
{
    struct sweep *sweep = context;
    // One that was tracked and waited for a moment ago, between the look at it and the look at the
    // list, is not there any more.
    if (pmi_tracked_anywhere(zombie->pid) || !pmi_os_zombie_is_there(zombie)) {
        return;
    }
    if (sweep->count == sweep->capacity) {
        size_t capacity = sweep->capacity * 2 + 8;
        struct pmi_suspect *grown = realloc(sweep->list, capacity * sizeof *grown);
        if (grown == NULL) {
            sweep->no_memory = true;
            return;
        }
        sweep->list = grown;
        sweep->capacity = capacity;
    }
    sweep->list[sweep->count++] = (struct pmi_suspect){.zombie = *zombie, .seen_ms = pmi_now_ms()};
}

static struct pmi_suspect *find_suspect(pm_manager *m, const struct pmi_zombie *z)
{
    for (size_t i = 0; i < m->suspects_count; i++) {
        const struct pmi_zombie *known = &m->suspects[i].zombie;
        if (known->pid == z->pid && known->start == z->start) {
            return &m->suspects[i];
        }
    }
    return NULL;
}

// ------------------------------------------------------------------------------------------------
// Under leak_lock
// ------------------------------------------------------------------------------------------------

// True if the policy is to wait for it, and that was done, or somebody else was faster.
static bool take_away(struct sweep *sweep, const struct pmi_suspect *suspect)
{
    if (sweep->m->options.leak_policy != PM_LEAK_REAP ||
        pmi_now_ms() - suspect->seen_ms < REAP_AFTER_MS) {
        return false;
    }
    int result = pmi_os_zombie_reap(&suspect->zombie);
    if (result == PM_OK) {
        *(suspect->zombie.orphan ? &sweep->orphans_reaped : &sweep->reaped) += 1;
    }
    return result == PM_OK || result == PM_ERR_GONE;
}

// Compares with the sweep before. What is new is marked by counted in the old list only, so that it
// is told once.
static void believe(struct sweep *sweep, bool start_under_way, struct pmi_zombie **ret_fresh,
                    size_t *ret_count)
{
    pm_manager *m = sweep->m;
    size_t kept = 0, count = 0;
    struct pmi_zombie *fresh = malloc((sweep->count + 1) * sizeof *fresh);
    for (size_t i = 0; i < sweep->count; i++) {
        struct pmi_suspect *now = &sweep->list[i];
        const struct pmi_suspect *before = find_suspect(m, &now->zombie);
        bool gone = false;
        if (before != NULL) {
            now->seen_ms = before->seen_ms;
            now->counted = before->counted;
        }
        if (before != NULL && (now->counted || !start_under_way)) {
            if (!now->zombie.orphan) {
                sweep->leaked++;
                sweep->leaked_pid = now->zombie.pid;
            }
            if (!now->counted && fresh != NULL) {
                fresh[count++] = now->zombie;
                *(now->zombie.orphan ? &sweep->orphans : &sweep->found) += 1;
                now->counted = true;
            }
            gone = now->counted && take_away(sweep, now);
        }
        if (!gone) {
            sweep->list[kept++] = *now;
        }
    }
    free(m->suspects);
    m->suspects = sweep->list;
    m->suspects_count = kept;
    *ret_fresh = fresh;
    *ret_count = count;
}

static int sweep_once(struct sweep *sweep, struct pmi_zombie **ret_fresh, size_t *ret_count)
{
    pm_manager *m = sweep->m;
    // A start that was under way in the sweep before and still is may have dead children of its
    // own, the launcher for one, which it is about to wait for. Asked before the process table is
    // read: one that is over by then has waited.
    bool start_under_way = pmi_oldest_start() <= m->swept_ms;
    int result = pmi_os_zombies(note_zombie, sweep);
    if (result == PM_OK && sweep->no_memory) {
        result = PM_ERR_NO_MEMORY;
    }
    if (result != PM_OK) {
        free(sweep->list);
        return result;
    }
    believe(sweep, start_under_way, ret_fresh, ret_count);
    m->swept_ms = pmi_now_ms();
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Telling
// ------------------------------------------------------------------------------------------------

static void count(const struct sweep *sweep)
{
    pm_manager *m = sweep->m;
    pmi_mutex_lock(&m->lock);
    m->stats.leak_sweeps++;
    m->stats.leaked_now = sweep->leaked - sweep->reaped;
    m->stats.leaked_pid = m->stats.leaked_now > 0 ? sweep->leaked_pid : 0;
    m->stats.leaked_total += sweep->found;
    m->stats.leaked_reaped += sweep->reaped;
    m->stats.orphans_total += sweep->orphans;
    m->stats.orphans_reaped += sweep->orphans_reaped;
    pmi_mutex_unlock(&m->lock);
}

static void describe(const struct pmi_zombie *z, const char *where, char *line, size_t capacity)
{
    char name[4 * sizeof z->name], age[48] = "";
    pmi_escape(z->name[0] != '\0' ? z->name : "?", name, sizeof name);
    if (z->age_ms >= 0) {
        (void)snprintf(age, sizeof age, ", started %lld s ago,", (long long)(z->age_ms / 1000));
    }
    (void)snprintf(line, capacity, "pid %llu '%s'%s is dead and nobody waits for it: %s; see %s",
                   (unsigned long long)z->pid, name, age,
                   z->orphan ? "an orphan that the system gave to this process"
                             : "it was started past the library",
                   where);
}

static void tell(pm_manager *m, const struct pmi_zombie *fresh, size_t fresh_count)
{
    char where[sizeof m->leak_where];
    pmi_mutex_lock(&m->leak_lock);
    (void)snprintf(where, sizeof where, "%s",
                   m->leak_where[0] != '\0' ? m->leak_where : "pm_list()");
    pmi_mutex_unlock(&m->leak_lock);
    for (size_t i = 0; i < fresh_count; i++) {
        char line[768];
        describe(&fresh[i], where, line, sizeof line);
        if (fresh[i].orphan) {
            bool reap = m->options.leak_policy == PM_LEAK_REAP;
            pmi_log(m, reap ? PM_LOG_DEBUG : PM_LOG_WARNING, "orphan: %s", line);
        } else {
            pmi_log(m, PM_LOG_WARNING, "leak detector: %s", line);
            pmi_event_post_detail(m, PM_EVENT_LEAK, fresh[i].pid, line);
        }
    }
}

static int leak_scan(pm_manager *m, uint64_t *ret_found)
{
    int result = pmi_check_manager(m);
    if (result != PM_OK) {
        return result;
    }
    pmi_os_sweep();
    uint64_t collected;
    if (m->options.own_process) {
        (void)pmi_os_orphans_collect(&m->os, &collected);
    }
    struct sweep sweep = {.m = m};
    struct pmi_zombie *fresh = NULL;
    size_t fresh_count = 0;
    pmi_mutex_lock(&m->leak_lock);
    result = sweep_once(&sweep, &fresh, &fresh_count);
    pmi_mutex_unlock(&m->leak_lock);
    if (result != PM_OK) {
        return result;
    }
    count(&sweep);
    tell(m, fresh, fresh_count);
    free(fresh);
    if (ret_found != NULL) {
        *ret_found = sweep.leaked;
    }
    return PM_OK;
}

PM_API int pm_leak_scan(pm_manager *m, uint64_t *ret_found)
{
    int cancel = pmi_cancel_off();
    int result = leak_scan(m, ret_found);
    pmi_cancel_restore(cancel);
    return result;
}

PM_API int pm_leak_set_where(pm_manager *m, const char *where)
{
    int result = pmi_check_manager(m);
    if (result == PM_OK) {
        pmi_mutex_lock(&m->leak_lock);
        (void)snprintf(m->leak_where, sizeof m->leak_where, "%s", where != NULL ? where : "");
        pmi_mutex_unlock(&m->leak_lock);
    }
    return result;
}
