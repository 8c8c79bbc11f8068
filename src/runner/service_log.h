// The log of one service: what it says on stderr, and what becomes of it. Two files of a bounded
// size, so that a flood costs neither memory nor disk.
//
//   2026-01-31T23:59:59.123Z stderr: text
//   2026-01-31T23:59:59.123Z runner: state running: ready
#ifndef RUNNER_SERVICE_LOG_H
#define RUNNER_SERVICE_LOG_H

#include <jansson.h>

#include "runner/log.h"

struct service_log;
// Never NULL but for want of memory.
struct service_log *service_log_open(const char *folder, uint32_t size, struct runner_log *clock);
void service_log_close(struct service_log *log); // NULL is allowed, here and below.
void service_log_resize(struct service_log *log, uint32_t size);
// Bytes of stderr. A line is written when it is complete, or has 4 KiB.
void service_log_said(struct service_log *log, const void *data, size_t size);
void service_log_note(struct service_log *log, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;
// {"text": whole lines, "first": N, "next": N}: from position `after` on, or what is kept if that
// is gone; negative: so many bytes before the end.
json_t *service_log_read(struct service_log *log, int64_t after);

// Appends the bytes as text that is safe on a terminal and in JSON: what is no UTF-8, and control
// characters but the tab, as \xNN. Returns the length; never more than 4 * size. Pure.
size_t service_log_escape(char *to, const void *data, size_t size);

// A text that was cut somewhere loses what is no whole character at its end. Pure.
void service_text_trim(char *text);
// The same as service_log_escape(), of the begin of a text, so that it is one line. Pure.
void service_text_flat(char *to, size_t capacity, const char *text);

#endif
