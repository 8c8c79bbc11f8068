#include "runner/restart.h"

#include <string.h>

// xorshift64*, of S. Vigna: good enough to spread starts.
static uint64_t draw(struct restart *restart)
{
    uint64_t x = restart->random != 0 ? restart->random : UINT64_C(0x9e3779b97f4a7c15);
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    restart->random = x;
    return x * UINT64_C(2685821657736338717);
}

static uint32_t delay(struct restart *restart, const struct restart_options *options)
{
    uint64_t first = options->backoff_ms != 0 ? options->backoff_ms : RESTART_BACKOFF_MS;
    uint64_t most = options->backoff_max_ms != 0 ? options->backoff_max_ms : RESTART_BACKOFF_MAX_MS;
    unsigned doublings = restart->streak < 32 ? restart->streak : 32;
    uint64_t wait = first << doublings;
    wait = wait < most ? wait : most;
    uint64_t half = wait / 2;
    return (uint32_t)(wait - half + draw(restart) % (half + 1));
}

static void note(struct restart *restart, uint64_t now_ms, uint64_t window_ms)
{
    size_t old = 0;
    while (old < restart->count && now_ms - restart->ends[old] >= window_ms) {
        old++;
    }
    if (old == 0 && restart->count == RESTART_CRASHES_MAX) {
        old = 1;
    }
    restart->count -= old;
    memmove(restart->ends, restart->ends + old, restart->count * sizeof restart->ends[0]);
    restart->ends[restart->count++] = now_ms;
}

enum restart_verdict restart_decide(struct restart *restart, const struct restart_options *options,
                                    const struct restart_end *end, uint32_t *ret_delay_ms)
{
    if (options->policy == RESTART_NEVER || (options->policy == RESTART_ON_FAILURE && end->clean)) {
        return RESTART_REST;
    }
    note(restart, end->now_ms, options->window_ms != 0 ? options->window_ms : RESTART_WINDOW_MS);
    if (options->crashes != 0 && restart->count >= options->crashes) {
        return RESTART_BREAK;
    }
    if (end->uptime_ms >= RESTART_STEADY_MS) {
        restart->streak = 0;
    }
    *ret_delay_ms = delay(restart, options);
    restart->streak++;
    return RESTART_WAIT;
}

void restart_forget(struct restart *restart)
{
    *restart = (struct restart){.random = restart->random};
}
