// A connection that carries lines, over a pipe of libuv.
#ifndef RUNNER_LINES_H
#define RUNNER_LINES_H

#include <uv.h>

#include "runner/runner.h"

#define LINES_UNSENT_MAX 8388608u

struct lines;
struct lines_handler {
    // Without its end. Valid during the call, which may close the connection.
    void (*line)(void *user, const char *line, size_t size);
    // Nothing follows; the connection is freed after it. `failure`: 0 at its end, or a uv error;
    // UV_EMSGSIZE: a line without an end, UV_ENOBUFS: the other end does not read.
    void (*closed)(void *user, int failure);
    void *user;
    size_t line_max; // Longest line, 0: RUNNER_LINE_MAX.
};
// Takes the pipe, which was malloc'd; also when it fails (NULL: no memory).
struct lines *lines_open(uv_pipe_t *pipe, const struct lines_handler *handler);
// Takes the text, which was malloc'd; NULL closes the connection: there was no memory.
void lines_write(struct lines *lines, char *text, size_t size);
// What has come and was not read yet is read at once, where only the loop would.
void lines_look(struct lines *lines);
// Something of a line has come, and not yet its end.
bool lines_within(const struct lines *lines);
// The other end, or its system, has it all.
bool lines_all_sent(const struct lines *lines);
void lines_close(struct lines *lines);
// Closes it when all is written.
void lines_finish(struct lines *lines);

#endif
