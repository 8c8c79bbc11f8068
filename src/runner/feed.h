// Bytes in, lines out: the output of a child that speaks one message a line. Pure.
#ifndef RUNNER_FEED_H
#define RUNNER_FEED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FEED_LINE_MAX 10485760u // Longest line, without its end.

// A line without its end (LF or CR LF), NUL-terminated, valid during the call. NULL: one of `size`
// bytes that was too long, and is dropped. `end`: how many bytes there have been up to its end.
// false: no more lines now; they come with the next feed_take().
typedef bool feed_line(void *user, const char *line, size_t size, uint64_t end);

struct feed {
    char *text; // What has come of a line.
    size_t have, scanned, capacity;
    size_t line_max;  // 0: FEED_LINE_MAX
    uint64_t end;     // Of what was taken apart.
    uint64_t dropped; // Of a line that is too long; its end is looked for.
    bool dropping;
};

void feed_clear(struct feed *feed);
// Room to read into, at least 4 KiB. NULL: no memory.
char *feed_room(struct feed *feed, size_t *ret_size);
// So many bytes were read there.
void feed_take(struct feed *feed, size_t size, feed_line *line, void *user);
// The same, of bytes that are elsewhere. false: no memory.
bool feed_copy(struct feed *feed, const void *data, size_t size, feed_line *line, void *user);
// Bytes are missing before what comes next: what has come of a line is dropped, and so is the rest
// of a line up to its end.
void feed_gap(struct feed *feed, uint64_t end);

#endif
