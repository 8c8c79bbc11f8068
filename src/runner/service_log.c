#include "runner/service_log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/os.h"
#include "runner/text.h"

#define LINE_MAX_SAID 4096u
#define FLAT_MAX 480u
#define BATCH_SIZE 65536u // Of lines that are written at once.
#define READ_MAX 262144u

struct service_log {
    struct runner_log *clock;
    char path[4096];
    int file; // Negative: not open.
    uint64_t limit, size;
    uint64_t total; // Position of its end: bytes in the older file and in this one, and before.
    bool stuck;     // It could not be moved: what would be more is dropped.
    char said[LINE_MAX_SAID + 1]; // With a NUL.
    size_t have;
    char stamp[48]; // When what is written now came.
    size_t stamp_size;
    char batch[BATCH_SIZE];
    size_t batched;
};

static uint64_t size_of(const char *path)
{
    uv_fs_t request;
    uint64_t size = uv_fs_stat(NULL, &request, path, NULL) == 0 ? request.statbuf.st_size : 0;
    uv_fs_req_cleanup(&request);
    return size;
}

static void close_file(struct service_log *log)
{
    uv_fs_t request;
    if (log->file >= 0) {
        (void)uv_fs_close(NULL, &request, log->file, NULL);
        uv_fs_req_cleanup(&request);
        log->file = -1;
    }
}

static void open_file(struct service_log *log)
{
    log->file = os_open_append(log->path);
    log->size = log->file >= 0 ? size_of(log->path) : 0;
}

static void older(const struct service_log *log, char path[4100])
{
    (void)snprintf(path, 4100, "%s.1", log->path);
}

struct service_log *service_log_open(const char *folder, uint32_t size, struct runner_log *clock)
{
    struct service_log *log = calloc(1, sizeof *log);
    char path[4100];
    if (log == NULL) {
        return NULL;
    }
    (void)snprintf(log->path, sizeof log->path, "%.4000s/log", folder);
    log->limit = size;
    log->clock = clock;
    open_file(log);
    older(log, path);
    log->total = log->size + size_of(path);
    return log;
}

void service_log_close(struct service_log *log)
{
    if (log != NULL) {
        close_file(log);
        free(log);
    }
}

void service_log_resize(struct service_log *log, uint32_t size)
{
    if (log != NULL) {
        log->limit = size;
    }
}

static void rotate(struct service_log *log)
{
    char path[4100];
    uv_fs_t request;
    older(log, path);
    close_file(log); // A system may not move an open file.
    log->stuck = uv_fs_rename(NULL, &request, log->path, path, NULL) != 0;
    uv_fs_req_cleanup(&request);
    open_file(log);
}

static void put(struct service_log *log, const char *text, size_t size)
{
    uv_buf_t buffer = uv_buf_init((char *)(uintptr_t)text, (unsigned)size);
    uv_fs_t request;
    if (log->file < 0) {
        open_file(log);
    }
    if (log->file >= 0 && log->size + size > log->limit && log->size > 0) {
        rotate(log);
    }
    if (log->file < 0 || (log->stuck && log->size + size > 2 * log->limit)) {
        return;
    }
    int result = uv_fs_write(NULL, &request, log->file, &buffer, 1, -1, NULL);
    uv_fs_req_cleanup(&request);
    log->size += result > 0 ? (uint64_t)result : 0;
    log->total += result > 0 ? (uint64_t)result : 0;
}

// Length of the UTF-8 character there, 0: none. A NUL stands behind the last byte.
static size_t character(const unsigned char *at, size_t left)
{
    size_t length = text_letter((const char *)at);
    return length > left ? 0 : length;
}

size_t service_log_escape(char *to, const void *data, size_t size)
{
    static const char digits[] = "0123456789abcdef";
    const unsigned char *bytes = data;
    size_t at = 0;
    for (size_t i = 0; i < size;) {
        size_t length = character(bytes + i, size - i);
        bool control = (bytes[i] < 0x20 && bytes[i] != '\t') || bytes[i] == 0x7f ||
                       (length == 2 && bytes[i] == 0xc2 && bytes[i + 1] < 0xa0);
        if (length == 0 || control) {
            to[at++] = '\\';
            to[at++] = 'x';
            to[at++] = digits[bytes[i] >> 4];
            to[at++] = digits[bytes[i] & 15];
            i++;
        } else {
            memcpy(to + at, bytes + i, length);
            at += length;
            i += length;
        }
    }
    return at;
}

// Whole lines, as many as the file has room for, then a new one.
static void flush(struct service_log *log)
{
    const char *at = log->batch;
    for (size_t left = log->batched, some; left > 0; left -= some, at += some) {
        uint64_t room = log->limit > log->size ? log->limit - log->size : 0;
        some = left;
        if (left > room) {
            some = (size_t)room;
            while (some > 0 && at[some - 1] != '\n') {
                some--;
            }
            const char *end = some == 0 ? memchr(at, '\n', left) : NULL;
            some = end != NULL ? (size_t)(end - at) + 1 : some;
        }
        put(log, at, some);
    }
    log->batched = 0;
}

static void stamp(struct service_log *log)
{
    log->stamp_size = log_now(log->clock, log->stamp, sizeof log->stamp);
}

static void add(struct service_log *log, const char *text, size_t size)
{
    memcpy(log->batch + log->batched, text, size);
    log->batched += size;
}

static void put_line(struct service_log *log, const char *who, const void *data, size_t size)
{
    if (log->batched + 4 * size + 80 > BATCH_SIZE) {
        flush(log);
    }
    add(log, log->stamp, log->stamp_size);
    add(log, " ", 1);
    add(log, who, strlen(who));
    add(log, ": ", 2);
    log->batched += service_log_escape(log->batch + log->batched, data, size);
    add(log, "\n", 1);
}

// Characters that came in two parts are put together; a line that is too long is cut between two.
static size_t whole_characters(const char *text, size_t size)
{
    for (size_t back = 1; back <= 3 && back < size; back++) {
        unsigned char c = (unsigned char)text[size - back];
        if (c >= 0xc0) {
            return character((const unsigned char *)text + size - back, back) == 0 ? size - back
                                                                                   : size;
        }
        if (c < 0x80) {
            break;
        }
    }
    return size;
}

void service_text_trim(char *text)
{
    text[whole_characters(text, strlen(text))] = '\0';
}

void service_text_flat(char *to, size_t capacity, const char *text)
{
    char line[FLAT_MAX + 1], clean[4 * FLAT_MAX + 1];
    size_t size = 0;
    while (*text != '\0' && size < FLAT_MAX) { // Errors of JSON parsers are written in lines.
        size_t blank = strspn(text, " \t\r\n");
        line[size++] = blank > 0 ? ' ' : *text;
        text += blank > 0 ? blank : 1;
    }
    line[size] = '\0';
    clean[service_log_escape(clean, line, whole_characters(line, size))] = '\0';
    (void)snprintf(to, capacity, "%s", clean);
    service_text_trim(to);
}

void service_log_said(struct service_log *log, const void *data, size_t size)
{
    const char *bytes = data;
    if (log != NULL) {
        stamp(log);
    }
    while (log != NULL && size > 0) {
        const char *end = memchr(bytes, '\n', size);
        size_t some = end != NULL ? (size_t)(end - bytes) : size;
        size_t room = LINE_MAX_SAID - log->have;
        bool complete = end != NULL && some <= room;
        some = some < room ? some : room;
        memcpy(log->said + log->have, bytes, some);
        log->have += some;
        log->said[log->have] = '\0';
        bytes += some + (complete ? 1 : 0);
        size -= some + (complete ? 1 : 0);
        if (complete) {
            bool cr = log->have > 0 && log->said[log->have - 1] == '\r';
            put_line(log, "stderr", log->said, log->have - (cr ? 1 : 0));
            log->have = 0;
        } else if (log->have == LINE_MAX_SAID) {
            size_t whole = whole_characters(log->said, log->have);
            put_line(log, "stderr", log->said, whole);
            log->have -= whole;
            memmove(log->said, log->said + whole, log->have + 1);
        }
    }
    if (log != NULL) {
        flush(log);
    }
}

void service_log_note(struct service_log *log, const char *format, ...)
{
    char text[2048];
    va_list arguments;
    if (log == NULL) {
        return;
    }
    stamp(log);
    if (log->have > 0) { // Its last words had no end.
        put_line(log, "stderr", log->said, log->have);
        log->have = 0;
    }
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    put_line(log, "runner", text, strlen(text));
    flush(log);
}

// From an offset of a file up to `size` bytes.
static size_t read_part(const char *path, uint64_t from, char *to, size_t size)
{
    uv_fs_t request;
    size_t have = 0;
    int file = uv_fs_open(NULL, &request, path, UV_FS_O_RDONLY, 0, NULL);
    uv_fs_req_cleanup(&request);
    while (file >= 0 && have < size) {
        uv_buf_t buffer = uv_buf_init(to + have, (unsigned)(size - have));
        int n = uv_fs_read(NULL, &request, file, &buffer, 1, (int64_t)(from + have), NULL);
        uv_fs_req_cleanup(&request);
        if (n <= 0) {
            break;
        }
        have += (size_t)n;
    }
    if (file >= 0) {
        (void)uv_fs_close(NULL, &request, file, NULL);
        uv_fs_req_cleanup(&request);
    }
    return have;
}

json_t *service_log_read(struct service_log *log, int64_t after)
{
    char path[4100];
    char *text = log != NULL ? malloc(READ_MAX) : NULL;
    if (text == NULL) {
        return NULL;
    }
    older(log, path);
    uint64_t middle = log->total - log->size;
    uint64_t first = middle - (size_of(path) < middle ? size_of(path) : middle);
    uint64_t back = after < 0 ? (uint64_t)-after : 0;
    uint64_t from = after >= 0 ? (uint64_t)after : back < log->total ? log->total - back : 0;
    from = from < first ? first : from > log->total ? log->total : from;
    uint64_t begin = from;
    size_t have = 0;
    if (from < middle) {
        size_t some = middle - from < READ_MAX ? (size_t)(middle - from) : READ_MAX;
        have = read_part(path, from - first, text, some);
    }
    if (from + have >= middle && have < READ_MAX) {
        have += read_part(log->path, from + have - middle, text + have, READ_MAX - have);
    }
    size_t cut = 0, size = have;
    while (after < 0 && begin > first && cut < have && (cut == 0 || text[cut - 1] != '\n')) {
        cut++; // It begins in the middle of a line.
    }
    while (size > cut && text[size - 1] != '\n') {
        size--;
    }
    json_t *json = json_pack("{s:s%, s:I, s:I}", "text", text + cut, size - cut, "first",
                             (json_int_t)first, "next", (json_int_t)(from + size));
    free(text);
    return json;
}
