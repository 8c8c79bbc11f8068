// The runner's own log: STATE/runner.log, and older lines in runner.log.1 and .2.
//
//   2026-01-31T23:59:59.123Z info session.created web: pid 4711, terminal 80x24
//
// time (UTC), level, event, session or -, and text; control characters are written \xNN.
#ifndef RUNNER_LOG_H
#define RUNNER_LOG_H

#include "runner/runner.h"

enum runner_level {
    LOG_DEBUG = 0,
    LOG_INFO,
    LOG_WARNING,
    LOG_ERROR
};
const char *log_level_name(int level);

struct runner_log;
// Told each line, without its end, on the thread that logs.
typedef void log_listener(void *user, int level, const char *line);

// Never NULL but for want of memory: what cannot be written is counted, and tried again.
struct runner_log *log_open(const char *state_dir);
void log_close(struct runner_log *log);
void log_listen(struct runner_log *log, log_listener *listener, void *user);
// Any thread. `session` may be NULL.
void log_write(struct runner_log *log, int level, const char *event, const char *session,
               const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 5, 6)))
#endif
    ;
// The time now, as it begins a line. Its length.
size_t log_now(struct runner_log *log, char *text, size_t capacity);
uint64_t log_failures(struct runner_log *log);

#endif
