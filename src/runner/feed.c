#include "runner/feed.h"

#include <stdlib.h>
#include <string.h>

#define ROOM_MIN 4096u
#define KEEP 65536u // An idle child costs no more than that.

static size_t line_max(const struct feed *feed)
{
    return feed->line_max != 0 ? feed->line_max : FEED_LINE_MAX;
}

void feed_clear(struct feed *feed)
{
    free(feed->text);
    *feed = (struct feed){.line_max = feed->line_max};
}

char *feed_room(struct feed *feed, size_t *ret_size)
{
    if (feed->capacity - feed->have < ROOM_MIN) {
        size_t capacity = feed->capacity > 0 ? feed->capacity * 2 : KEEP / 4;
        char *text = realloc(feed->text, capacity);
        if (text == NULL) {
            return NULL;
        }
        feed->text = text;
        feed->capacity = capacity;
    }
    *ret_size = feed->capacity - feed->have;
    return feed->text + feed->have;
}

// One line, which ends at `end`. false: stop here.
static bool hand_out(struct feed *feed, char *text, char *end, feed_line *line, void *user)
{
    size_t size = (size_t)(end - text);
    feed->end += size + 1;
    if (feed->dropping) {
        uint64_t whole = feed->dropped + size;
        feed->dropping = false;
        feed->dropped = 0;
        return whole == 0 || line(user, NULL, (size_t)whole, feed->end);
    }
    if (size > 0 && end[-1] == '\r') {
        size--;
    }
    if (size > line_max(feed)) {
        return line(user, NULL, size, feed->end);
    }
    text[size] = '\0';
    return line(user, text, size, feed->end);
}

static void drop_partial(struct feed *feed)
{
    feed->dropped += feed->have;
    feed->end += feed->have;
    feed->have = feed->scanned = 0;
    feed->dropping = true;
}

void feed_take(struct feed *feed, size_t size, feed_line *line, void *user)
{
    size_t from = 0;
    bool more = true;
    char *end;
    feed->have += size;
    while (more && (end = feed->have > feed->scanned
                              ? memchr(feed->text + feed->scanned, '\n', feed->have - feed->scanned)
                              : NULL) != NULL) {
        char *text = feed->text + from;
        from = feed->scanned = (size_t)(end - feed->text) + 1;
        more = hand_out(feed, text, end, line, user);
    }
    if (from > 0) {
        feed->have -= from;
        memmove(feed->text, feed->text + from, feed->have);
    }
    feed->scanned = more ? feed->have : 0;
    if (more && (feed->dropping || feed->have > line_max(feed) + 1)) { // One for a CR.
        drop_partial(feed);
    }
    if (feed->have == 0 && feed->capacity > KEEP) {
        free(feed->text);
        feed->text = NULL;
        feed->capacity = 0;
    }
}

bool feed_copy(struct feed *feed, const void *data, size_t size, feed_line *line, void *user)
{
    const char *bytes = data;
    while (size > 0) {
        size_t room;
        char *to = feed_room(feed, &room);
        if (to == NULL) {
            return false;
        }
        room = room < size ? room : size;
        memcpy(to, bytes, room);
        bytes += room;
        size -= room;
        feed_take(feed, room, line, user);
    }
    return true;
}

void feed_gap(struct feed *feed, uint64_t end)
{
    drop_partial(feed);
    feed->end = end;
}
