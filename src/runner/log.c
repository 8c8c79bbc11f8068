#include "runner/log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runner/os.h"
#include "runner/text.h"

struct runner_log {
    uv_mutex_t lock;
    char path[4096];
    int file; // Negative: not open.
    uint64_t size;
    uint64_t failures; // Lines that could not be written.
    bool rotation_failed;
    log_listener *listener;
    void *user;
};

const char *log_level_name(int level)
{
    static const char *const names[] = {"debug", "info", "warning", "error"};
    return names[level >= 0 && level <= LOG_ERROR ? level : LOG_ERROR];
}

static void close_file(struct runner_log *log)
{
    uv_fs_t request;
    if (log->file >= 0) {
        (void)uv_fs_close(NULL, &request, log->file, NULL);
        uv_fs_req_cleanup(&request);
        log->file = -1;
    }
}

static void open_file(struct runner_log *log)
{
    uv_fs_t request;
    log->file = os_open_append(log->path);
    log->size = 0;
    if (log->file >= 0) {
        if (uv_fs_fstat(NULL, &request, log->file, NULL) == 0) {
            log->size = request.statbuf.st_size;
        }
        uv_fs_req_cleanup(&request);
    }
}

static int move(const char *from, const char *to)
{
    uv_fs_t request;
    int result = uv_fs_rename(NULL, &request, from, to, NULL);
    uv_fs_req_cleanup(&request);
    return result;
}

// If a file cannot be moved, the one that is there grows on: a log is never emptied.
static void rotate(struct runner_log *log)
{
    char from[sizeof log->path + 4], to[sizeof log->path + 4];
    for (int i = RUNNER_LOG_FILES - 2; i >= 1; i--) {
        (void)snprintf(from, sizeof from, "%s.%d", log->path, i);
        (void)snprintf(to, sizeof to, "%s.%d", log->path, i + 1);
        (void)move(from, to);
    }
    (void)snprintf(to, sizeof to, "%s.1", log->path);
    close_file(log); // A system may not move an open file.
    log->rotation_failed = move(log->path, to) != 0;
    open_file(log);
}

struct runner_log *log_open(const char *state_dir)
{
    struct runner_log *log = calloc(1, sizeof *log);
    if (log == NULL || uv_mutex_init(&log->lock) != 0) {
        free(log);
        return NULL;
    }
    (void)snprintf(log->path, sizeof log->path, "%s/runner.log", state_dir);
    open_file(log);
    return log;
}

void log_close(struct runner_log *log)
{
    if (log != NULL) {
        close_file(log);
        uv_mutex_destroy(&log->lock);
        free(log);
    }
}

void log_listen(struct runner_log *log, log_listener *listener, void *user)
{
    log->listener = listener;
    log->user = user;
}

uint64_t log_failures(struct runner_log *log)
{
    uv_mutex_lock(&log->lock);
    uint64_t failures = log->failures;
    uv_mutex_unlock(&log->lock);
    return failures;
}

static void put_line(struct runner_log *log, const char *line, size_t size)
{
    uv_buf_t buffer = uv_buf_init((char *)line, (unsigned)size);
    uv_fs_t request;
    uint64_t limit = log->rotation_failed ? 2ull * RUNNER_LOG_SIZE : RUNNER_LOG_SIZE;
    if (log->file < 0) {
        open_file(log);
    }
    if (log->file >= 0 && log->size + size > limit) {
        rotate(log);
    }
    int result =
        log->file < 0 ? log->file : uv_fs_write(NULL, &request, log->file, &buffer, 1, -1, NULL);
    if (result > 0) {
        log->size += (uint64_t)result;
    }
    if (result != (int)size) {
        log->failures++;
    }
}

static size_t put_time(char *text, size_t capacity)
{
    uv_timeval64_t now = {0, 0};
    struct tm parts = {.tm_year = 70, .tm_mday = 1};
    (void)uv_gettimeofday(&now);
    time_t seconds = (time_t)now.tv_sec;
    struct tm *utc = gmtime(&seconds);
    if (utc != NULL) {
        parts = *utc;
    }
    int n = snprintf(text, capacity, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", parts.tm_year + 1900,
                     parts.tm_mon + 1, parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec,
                     (int)(now.tv_usec / 1000));
    return n > 0 ? (size_t)n : 0;
}

size_t log_now(struct runner_log *log, char *text, size_t capacity)
{
    size_t size = 0;
    if (log != NULL) {
        uv_mutex_lock(&log->lock); // gmtime() is not safe by itself.
        size = put_time(text, capacity);
        uv_mutex_unlock(&log->lock);
    }
    return size;
}

static size_t put_escaped(char *line, size_t at, size_t capacity, const char *text)
{
    while (*text != '\0' && at + 6 < capacity) {
        unsigned char c = (unsigned char)*text;
        size_t length = text_letter(text);
        if (length == 0 || c < 0x20 || c == 0x7f) {
            at += (size_t)snprintf(line + at, capacity - at, "\\x%02x", (unsigned)c);
            text++;
        } else {
            memcpy(line + at, text, length);
            at += length;
            text += length;
        }
    }
    return at;
}

void log_write(struct runner_log *log, int level, const char *event, const char *session,
               const char *format, ...)
{
    char text[2048], line[4096], head[320];
    size_t at;
    va_list arguments;
    if (log == NULL) {
        return;
    }
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    uv_mutex_lock(&log->lock); // gmtime() is not safe by itself.
    at = put_time(line, sizeof line);
    (void)snprintf(head, sizeof head, " %s %s %s: ", log_level_name(level), event,
                   session != NULL ? session : "-");
    at = put_escaped(line, at, sizeof line, head);
    at = put_escaped(line, at, sizeof line, text);
    line[at] = '\n';
    put_line(log, line, at + 1);
    line[at] = '\0';
    uv_mutex_unlock(&log->lock);
    if (log->listener != NULL) {
        log->listener(log->user, level, line);
    }
}
