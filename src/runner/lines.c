#include "runner/lines.h"

#include <stdlib.h>
#include <string.h>

#include "poddaemon/os.h"

struct lines {
    uv_pipe_t *pipe;
    struct lines_handler handler;
    char *text; // What has come of a line.
    size_t have, capacity;
    bool closing, finishing, in_line;
    int failure;
    uint64_t unsent;
    unsigned writes;
};

struct write {
    uv_write_t request;
    struct lines *lines;
    char *text;
    size_t size;
};

static void on_closed(uv_handle_t *handle)
{
    struct lines *lines = handle->data;
    lines->handler.closed(lines->handler.user, lines->failure);
    free(lines->text);
    free(lines->pipe);
    free(lines);
}

static void close_with(struct lines *lines, int failure)
{
    if (!lines->closing) {
        lines->closing = true;
        lines->failure = failure;
        uv_close((uv_handle_t *)lines->pipe, on_closed);
    }
}

void lines_close(struct lines *lines)
{
    close_with(lines, 0);
}

bool lines_all_sent(const struct lines *lines)
{
    return lines->writes == 0;
}

bool lines_within(const struct lines *lines)
{
    return lines->have > 0;
}

void lines_finish(struct lines *lines)
{
    lines->finishing = true;
    if (lines->writes == 0) {
        lines_close(lines);
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct lines *lines = handle->data;
    (void)suggested;
    if (lines->capacity - lines->have < 4096) {
        size_t capacity = lines->capacity > 0 ? lines->capacity * 2 : 8192;
        char *text = realloc(lines->text, capacity);
        if (text == NULL) {
            *buffer = uv_buf_init(NULL, 0);
            return;
        }
        lines->text = text;
        lines->capacity = capacity;
    }
    *buffer = uv_buf_init(lines->text + lines->have, (unsigned)(lines->capacity - lines->have));
}

// Hands out the lines that are complete. The handler may close the connection, which stays in
// memory until the loop comes round.
static void take_lines(struct lines *lines)
{
    size_t from = 0;
    char *end;
    while (!lines->closing && !lines->finishing &&
           (end = memchr(lines->text + from, '\n', lines->have - from)) != NULL) {
        size_t size = (size_t)(end - (lines->text + from));
        if (size > lines->handler.line_max) {
            close_with(lines, UV_EMSGSIZE);
            return;
        }
        *end = '\0';
        lines->handler.line(lines->handler.user, lines->text + from, size);
        from += size + 1;
    }
    memmove(lines->text, lines->text + from, lines->have - from);
    lines->have -= from;
    if (lines->have > lines->handler.line_max) {
        close_with(lines, UV_EMSGSIZE);
    }
    if (lines->have == 0 && lines->capacity > 65536) { // An idle connection holds little.
        free(lines->text);
        lines->text = NULL;
        lines->capacity = 0;
    }
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    struct lines *lines = stream->data;
    (void)buffer;
    if (size < 0) {
        close_with(lines, size == UV_EOF ? 0 : (int)size);
        return;
    }
    lines->have += (size_t)size;
    take_lines(lines);
}

// The other end has gone. Reading tells that, too, and before it what was said last: why.
static bool reading_tells(const struct lines *lines, int status)
{
    bool gone = status == UV_EPIPE || status == UV_ECONNRESET || status == UV_EOF;
    return gone && !lines->finishing && uv_is_active((const uv_handle_t *)lines->pipe);
}

static void on_written(uv_write_t *request, int status)
{
    struct write *write = (struct write *)request;
    struct lines *lines = write->lines;
    lines->unsent -= write->size;
    lines->writes--;
    free(write->text);
    free(write);
    if (status != 0 && status != UV_ECANCELED) {
        if (!reading_tells(lines, status)) {
            close_with(lines, status);
        }
    } else if (lines->finishing && lines->writes == 0) {
        lines_close(lines);
    }
}

void lines_look(struct lines *lines)
{
    uv_buf_t buffer;
    on_alloc((uv_handle_t *)lines->pipe, 0, &buffer);
    size_t size = buffer.base != NULL && !lines->closing
                      ? pod_pipe_look(lines->pipe, buffer.base, buffer.len)
                      : 0;
    if (size > 0) {
        lines->have += size;
        take_lines(lines);
    }
}

static void free_pipe(uv_handle_t *handle)
{
    free(handle);
}

struct lines *lines_open(uv_pipe_t *pipe, const struct lines_handler *handler)
{
    struct lines *lines = calloc(1, sizeof *lines);
    if (lines == NULL) {
        uv_close((uv_handle_t *)pipe, free_pipe);
        return NULL;
    }
    lines->pipe = pipe;
    lines->handler = *handler;
    if (lines->handler.line_max == 0) {
        lines->handler.line_max = RUNNER_LINE_MAX;
    }
    pipe->data = lines;
    int result = uv_read_start((uv_stream_t *)pipe, on_alloc, on_read);
    if (result != 0) {
        close_with(lines, result);
    }
    return lines;
}

void lines_write(struct lines *lines, char *text, size_t size)
{
    struct write *write = lines->closing || text == NULL ? NULL : malloc(sizeof *write);
    if (write == NULL) {
        free(text);
        close_with(lines, UV_ENOMEM);
        return;
    }
    *write = (struct write){.lines = lines, .text = text, .size = size};
    uv_buf_t buffer = uv_buf_init(text, (unsigned)size);
    lines->unsent += size;
    lines->writes++;
    int result = uv_write(&write->request, (uv_stream_t *)lines->pipe, &buffer, 1, on_written);
    if (result != 0) {
        on_written(&write->request, result);
    } else if (lines->unsent - size > LINES_UNSENT_MAX) { // One message is never too much.
        close_with(lines, UV_ENOBUFS);
    }
}
