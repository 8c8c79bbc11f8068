// Whether, and when, a service is started again. Pure: the clock is given in.
#ifndef RUNNER_RESTART_H
#define RUNNER_RESTART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum restart_policy {
    RESTART_ON_FAILURE = 0, // The default.
    RESTART_NEVER,
    RESTART_ALWAYS
};

#define RESTART_CRASHES 3u // So many ends within the window open the breaker.
#define RESTART_CRASHES_MAX 32u
#define RESTART_WINDOW_MS 300000u
#define RESTART_BACKOFF_MS 500u
#define RESTART_BACKOFF_MAX_MS 30000u
#define RESTART_STEADY_MS 60000u // Who has run so long begins with the shortest wait again.

struct restart_options {
    enum restart_policy policy;
    unsigned crashes;                    // 0: no breaker.
    uint32_t window_ms;                  // 0: the default, and so below.
    uint32_t backoff_ms, backoff_max_ms; // From the first wait, doubled each time, to the longest.
};

enum restart_verdict {
    RESTART_REST = 0, // It stays as it is.
    RESTART_WAIT,     // It is started when the delay is over.
    RESTART_BREAK     // Too many: not before somebody says so.
};

struct restart {
    uint64_t ends[RESTART_CRASHES_MAX]; // Within the window, the oldest first.
    size_t count;
    unsigned streak; // Ends in a row without a steady run.
    uint64_t random; // State of the jitter; seeded by the caller.
};

struct restart_end {
    bool clean;         // By itself, with code 0, after its handshake. A signal never is.
    uint64_t uptime_ms; // Since its start.
    uint64_t now_ms;    // Monotonic.
};

// An end that nobody asked for. *ret_delay_ms only with RESTART_WAIT: the wait is drawn from the
// upper half of what the backoff says, so that services that died together do not start together.
enum restart_verdict restart_decide(struct restart *restart, const struct restart_options *options,
                                    const struct restart_end *end, uint32_t *ret_delay_ms);
// Somebody has started it: all is forgotten but the jitter.
void restart_forget(struct restart *restart);

#endif
