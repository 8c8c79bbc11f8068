#include "core/core.h"

static const uint64_t bounds[] = PM_HISTOGRAM_BOUNDS_US;
_Static_assert(sizeof bounds / sizeof bounds[0] == PM_HISTOGRAM_BUCKETS - 1, "one bucket more");

void pmi_histogram_add(struct pm_histogram *h, int64_t us)
{
    uint64_t took = us > 0 ? (uint64_t)us : 0;
    size_t i = 0;
    while (i < PM_HISTOGRAM_BUCKETS - 1 && took > bounds[i]) {
        i++;
    }
    h->buckets[i]++;
    h->count++;
    h->sum_us += took;
}

void pmi_stats_fill(pm_manager *m, struct pm_stats *stats)
{
    stats->fallback_kinds = atomic_load(&m->fallback_kinds);
    stats->registry_failures = atomic_load(&m->registry_failures);
    for (size_t i = 0; i < 3; i++) {
        struct pm_mode_stats *mode = &stats->modes[i];
        mode->exited = atomic_load(&m->ends[i][PMI_END_EXITED]);
        mode->killed = atomic_load(&m->ends[i][PMI_END_KILLED]);
        mode->lost = atomic_load(&m->ends[i][PMI_END_LOST]);
        mode->live = atomic_load(&m->live[i]);
        stats->ended += mode->exited + mode->killed + mode->lost;
        stats->lost += mode->lost;
        stats->running += mode->live;
    }
    stats->running_daemons = stats->modes[PM_MODE_DAEMON].live;
}
