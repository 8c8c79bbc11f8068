#include <stdio.h>
#include <stdlib.h>

#include "core/core.h"

// A zombie of this program that no manager tracks is somebody's start without a wait. It is
// believed once it was seen in two sweeps: another thread may be between the two right now.

struct sweep {
    struct pmi_zombie *found;
    size_t count, capacity;
    bool no_memory;
};

static void note_zombie(void *context, uint64_t pid, uint64_t start)
{
    struct sweep *sweep = context;
    if (pmi_tracked_anywhere(pid)) {
        return;
    }
    if (sweep->count == sweep->capacity) {
        size_t capacity = sweep->capacity * 2 + 8;
        struct pmi_zombie *grown = realloc(sweep->found, capacity * sizeof *grown);
        if (grown == NULL) {
            sweep->no_memory = true;
            return;
        }
        sweep->found = grown;
        sweep->capacity = capacity;
    }
    sweep->found[sweep->count++] = (struct pmi_zombie){.pid = pid, .start = start};
}

static struct pmi_zombie *find_suspect(pm_manager *m, const struct pmi_zombie *z)
{
    for (size_t i = 0; i < m->suspects_count; i++) {
        if (m->suspects[i].pid == z->pid && m->suspects[i].start == z->start) {
            return &m->suspects[i];
        }
    }
    return NULL;
}

// Compares with the sweep before. Under leak_lock. Returns how many are believed, and how many of
// them for the first time.
static uint64_t believe(pm_manager *m, struct sweep *sweep, uint64_t *ret_fresh, uint64_t *ret_pid)
{
    uint64_t leaked = 0;
    *ret_fresh = 0;
    *ret_pid = 0;
    for (size_t i = 0; i < sweep->count; i++) {
        struct pmi_zombie *before = find_suspect(m, &sweep->found[i]);
        if (before != NULL) {
            leaked++;
            *ret_fresh += !before->counted;
            *ret_pid = sweep->found[i].pid;
            sweep->found[i].counted = true;
        }
    }
    free(m->suspects);
    m->suspects = sweep->found;
    m->suspects_count = sweep->count;
    return leaked;
}

static int leak_scan(pm_manager *m, uint64_t *ret_found)
{
    int result = pmi_check_manager(m);
    if (result != PM_OK) {
        return result;
    }
    struct sweep sweep = {0};
    uint64_t reaped;
    if (m->options.own_process) {
        (void)pmi_os_orphans_collect(&m->os, &reaped);
    }
    result = pmi_os_zombies(note_zombie, &sweep);
    if (result == PM_OK && sweep.no_memory) {
        result = PM_ERR_NO_MEMORY;
    }
    if (result != PM_OK) {
        free(sweep.found);
        return result;
    }
    uint64_t fresh, pid;
    pmi_mutex_lock(&m->leak_lock);
    uint64_t leaked = believe(m, &sweep, &fresh, &pid);
    pmi_mutex_unlock(&m->leak_lock);

    pmi_mutex_lock(&m->lock);
    m->stats.leak_sweeps++;
    m->stats.leaked_now = leaked;
    m->stats.leaked_total += fresh;
    m->stats.leaked_pid = pid;
    pmi_mutex_unlock(&m->lock);
    if (fresh > 0) {
        char line[128];
        (void)snprintf(line, sizeof line,
                       "%llu dead children of this program were not waited for, pid %llu is one",
                       (unsigned long long)leaked, (unsigned long long)pid);
        pmi_log(m, PM_LOG_WARNING, "leak detector: %s", line);
        pmi_event_post_detail(m, PM_EVENT_LEAK, line);
    }
    if (ret_found != NULL) {
        *ret_found = leaked;
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
