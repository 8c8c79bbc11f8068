#include <stdio.h>
#include <string.h>

#include "core/core.h"

PM_API const char *pm_version(void)
{
    return PM_VERSION_STRING;
}

PM_API const char *pm_error_name(int code)
{
    switch (code) {
    case PM_OK:
        return "PM_OK";
#define NAME_CASE(name, number, text)                                                              \
    case PM_ERR_##name:                                                                            \
        return "PM_ERR_" #name;
        PM_ERROR_MAP(NAME_CASE)
#undef NAME_CASE
    default:
        return "PM_ERR_?";
    }
}

PM_API const char *pm_strerror(int code)
{
    switch (code) {
    case PM_OK:
        return "no error";
#define TEXT_CASE(name, number, text)                                                              \
    case PM_ERR_##name:                                                                            \
        return text;
        PM_ERROR_MAP(TEXT_CASE)
#undef TEXT_CASE
    default:
        return "unknown error";
    }
}

PM_API const char *pm_stage_name(enum pm_stage stage)
{
    switch (stage) {
#define STAGE_CASE(name, number, text)                                                             \
    case PM_STAGE_##name:                                                                          \
        return text;
        PM_STAGE_MAP(STAGE_CASE)
#undef STAGE_CASE
    }
    return "?";
}

PM_API const char *pm_event_name(enum pm_event_kind kind)
{
    static const char *const names[] = {
        [PM_EVENT_STARTED] = "started",     [PM_EVENT_ENDED] = "ended",
        [PM_EVENT_RECOVERED] = "recovered", [PM_EVENT_QUARANTINED] = "quarantined",
        [PM_EVENT_LEAK] = "leak",           [PM_EVENT_STOPPED] = "stopped",
        [PM_EVENT_CONTINUED] = "continued", [PM_EVENT_START_FAILED] = "start_failed",
        [PM_EVENT_STOPPING] = "stopping",
    };
    size_t number = (size_t)kind;
    return number < sizeof names / sizeof names[0] && names[number] != NULL ? names[number] : "?";
}

PM_API const char *pm_fallback_name(enum pm_fallback fallback)
{
    switch (fallback) {
    case PM_FALLBACK_BEST_EFFORT:
        return "best_effort";
    case PM_FALLBACK_FORK:
        return "fork";
    case PM_FALLBACK_VFORK:
        return "vfork";
    case PM_FALLBACK_COPIED_TABLE:
        return "copied_table";
    case PM_FALLBACK_SIGNAL_BY_NUMBER:
        return "signal_by_number";
    case PM_FALLBACK_LATE_JOB:
        return "late_job";
    }
    return "?";
}

// A line that may be longer than the buffer it goes to.
struct line {
    char *buffer;
    size_t capacity, length;
};

static void put(struct line *line, char c)
{
    if (line->length + 1 < line->capacity) {
        line->buffer[line->length] = c;
    }
    line->length++;
}

static void put_text(struct line *line, const char *text)
{
    for (; *text != '\0'; text++) {
        put(line, *text);
    }
}

// Length of the well-formed UTF-8 sequence at text, 0 if there is none.
static size_t sequence_length(const unsigned char *text)
{
    size_t length = text[0] < 0x80   ? 1
                    : text[0] < 0xc2 ? 0
                    : text[0] < 0xe0 ? 2
                    : text[0] < 0xf0 ? 3
                    : text[0] < 0xf5 ? 4
                                     : 0;
    for (size_t i = 1; i < length; i++) {
        if ((text[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    bool overlong = (text[0] == 0xe0 && text[1] < 0xa0) || (text[0] == 0xf0 && text[1] < 0x90);
    bool beyond = (text[0] == 0xed && text[1] >= 0xa0) || (text[0] == 0xf4 && text[1] >= 0x90);
    return length > 2 && (overlong || beyond) ? 0 : length;
}

// Marks that end a line or turn the direction of writing: U+200E, U+200F, U+2028 to U+202E, U+2066
// to U+2069. They would show a line that is not the one written.
static bool is_trick(const unsigned char *at)
{
    return at[0] == 0xe2 && ((at[1] == 0x80 && (at[2] == 0x8e || at[2] == 0x8f ||
                                                (at[2] >= 0xa8 && at[2] <= 0xae))) ||
                             (at[1] == 0x81 && at[2] >= 0xa6 && at[2] <= 0xa9));
}

// Text from outside: control characters (C1 ones too) and bytes that are no UTF-8 are escaped, so
// that nothing can act on a terminal or forge a second line. `size` bytes at most.
static void put_escaped(struct line *line, const char *text, size_t size)
{
    size_t i = 0;
    size_t end = 0;
    while (end < size && text[end] != '\0') {
        end++;
    }
    while (i < end) {
        unsigned char window[5] = {0};
        memcpy(window, text + i, end - i < 4 ? end - i : 4);
        size_t length = sequence_length(window);
        bool c1 = length == 2 && window[0] == 0xc2 && window[1] < 0xa0;
        bool trick = length == 3 && is_trick(window);
        if (length == 0 || window[0] < 0x20 || window[0] == 0x7f || c1 || trick) {
            size_t bad = length > 1 ? length : 1;
            for (size_t k = 0; k < bad; k++) {
                char escape[5];
                (void)snprintf(escape, sizeof escape, "\\x%02x", window[k]);
                put_text(line, escape);
            }
            i += bad;
            continue;
        }
        for (size_t k = 0; k < length; k++) {
            put(line, (char)window[k]);
        }
        i += length;
    }
}

static void put_cause(struct line *line, const struct pm_error *e)
{
    if (e->os_code != 0) {
        char text[256];
        pmi_os_error_text(e->os_code, text, sizeof text);
        put_escaped(line, text, sizeof text);
    } else {
        put_text(line, pm_strerror(e->code));
    }
}

static int end_line(struct line *line)
{
    if (line->capacity > 0) {
        line->buffer[line->length < line->capacity ? line->length : line->capacity - 1] = '\0';
    }
    return (int)line->length;
}

void pmi_escape(const char *text, char *buffer, size_t capacity)
{
    struct line line = {buffer, capacity, 0};
    put_escaped(&line, text, SIZE_MAX);
    (void)end_line(&line);
}

PM_API int pm_error_format(const struct pm_error *error, char *buffer, size_t capacity)
{
    if (error == NULL || (buffer == NULL && capacity != 0)) {
        return PM_ERR_INVALID;
    }
    // The caller may have been built with an older, shorter struct.
    struct pm_error e;
    memset(&e, 0, sizeof e);
    memcpy(&e, error, error->size < sizeof e ? error->size : sizeof e);
    struct line line = {buffer, capacity, 0};
    if (e.code == PM_OK && e.os_code == 0) { // Nothing was filled in: nothing failed.
        put_text(&line, pm_strerror(PM_OK));
        return end_line(&line);
    }
    if (e.action[0] != '\0') {
        put_escaped(&line, e.action, sizeof e.action);
    } else {
        put_text(&line, "operation");
    }
    if (e.program[0] != '\0') {
        put_text(&line, " of '");
        put_escaped(&line, e.program, sizeof e.program);
        put(&line, '\'');
    }
    if (e.owner[0] != '\0') {
        put_text(&line, " (owner ");
        put_escaped(&line, e.owner, sizeof e.owner);
        put(&line, ')');
    }
    put_text(&line, " failed");
    if (e.stage != PM_STAGE_NONE) {
        put_text(&line, " at ");
        put_text(&line, pm_stage_name(e.stage));
    }
    put_text(&line, ": ");
    put_cause(&line, &e);
    if (e.field[0] != '\0') {
        put_text(&line, "; field '");
        put_escaped(&line, e.field, sizeof e.field);
        put(&line, '\'');
    }
    if (e.hint[0] != '\0') {
        put_text(&line, "; ");
        put_escaped(&line, e.hint, sizeof e.hint);
    }
    return end_line(&line);
}
