#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runner/doctor.h"
#include "runner/runner.h"

const char *runner_code_name(int code)
{
    switch (code) {
#define RUNNER_CODE_CASE(name, number, text)                                                       \
    case number:                                                                                   \
        return text;
        RUNNER_CODE_MAP(RUNNER_CODE_CASE)
#undef RUNNER_CODE_CASE
    default:
        return "failed";
    }
}

// Takes the next line of the text into a field; what is too long is cut.
static const char *take_line(const char *text, char *field, size_t capacity)
{
    size_t length = strcspn(text, "\n");
    size_t some = length < capacity - 1 ? length : capacity - 1;
    while (some < length && some > 0 && ((unsigned char)text[some] & 0xc0) == 0x80) {
        some--; // Not in the middle of a character.
    }
    memcpy(field, text, some);
    field[some] = '\0';
    return text[length] == '\n' ? text + length + 1 : text + length;
}

// Of an error that names none.
static const char *next_of(int code)
{
    return code == RUNNER_USAGE        ? "runner --help"
           : code == RUNNER_NO_SESSION ? "runner list"
                                       : "runner doctor";
}

int runner_fail(struct runner_error *error, int code, const char *format, ...)
{
    char text[sizeof error->what + sizeof error->why + sizeof error->next];
    const char *rest = text;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    error->code = code;
    error->bytes = -1;
    rest = take_line(rest, error->what, sizeof error->what);
    rest = take_line(rest, error->why, sizeof error->why);
    (void)take_line(rest[0] != '\0' ? rest : next_of(code), error->next, sizeof error->next);
    return code;
}

const char *runner_next(const struct runner_env *env, const char *next, char text[RUNNER_NEXT_MAX])
{
    static const char runner[] = "runner ", help[] = "--help";
    char quoted[4400];
    size_t length = strlen(next), begin = sizeof runner - 1, end = sizeof help - 1;
    bool ours = strncmp(next, runner, begin) == 0 && next[begin] != '-';
    bool helps = length >= end && strcmp(next + length - end, help) == 0;
    if (!ours || helps || !env->elsewhere || env->state_dir[0] == '\0') {
        return next;
    }
    doctor_quote(env->state_dir, quoted);
    (void)snprintf(text, RUNNER_NEXT_MAX, "runner --state %s %s", quoted, next + begin);
    return text;
}
