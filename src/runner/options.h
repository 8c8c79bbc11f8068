// Options and arguments behind a command.
#ifndef RUNNER_OPTIONS_H
#define RUNNER_OPTIONS_H

#include <jansson.h>

#include "runner/runner.h"

struct options {
    const struct runner_env *env;
    int argc, at;
    char **argv;
    bool ended;        // After "--".
    const char *value; // Of the option that was just taken.
    int code;          // RUNNER_USAGE after a complaint.
};

// The next option ("--name") or NULL: an argument is next, or the end.
const char *options_next(struct options *options);
// The value of the option, "" and a complaint if there is none.
const char *options_value(struct options *options, const char *name);
unsigned long options_number(struct options *options, const char *name);
// Where nothing else was said `cwd` is the current folder; complains if that has no name in JSON.
void options_folder(struct options *options, json_t *params);
// The next argument, NULL: none is left.
const char *options_argument(struct options *options);
int options_unknown(struct options *options, const char *name);
// For commands that have one argument and maybe options: complains if it is missing or one is left.
int options_end(struct options *options);

#endif
