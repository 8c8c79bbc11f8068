// Commands that have one end of a session: attach, send, logs.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/options.h"
#include "runner/view.h"

static void take_from(struct options *o, const char *name, struct view_options *view)
{
    const char *text = options_value(o, name);
    if (o->code == RUNNER_OK && !view_parse_from(text, &view->from)) {
        o->code = runner_usage(o->env, o->argv[0],
                               "%s is start, kept, now or a number of bytes, not '%s'", name, text);
    }
}

// ^A to ^_ as control characters.
static void take_key(struct options *o, const char *name, struct view_options *view)
{
    const char *text = options_value(o, name);
    if (strcmp(text, "none") == 0) {
        view->detach_key = -1;
    } else if (text[0] == '^' && strlen(text) == 2 && (text[1] & 0x5f) >= '@') {
        view->detach_key = text[1] & 0x1f;
    } else if (o->code == RUNNER_OK) {
        o->code =
            runner_usage(o->env, o->argv[0], "a detach key is like ^] or none, not '%s'", text);
    }
}

// The id, and options before it and behind it.
static const char *next_option(struct options *o, struct view_options *view)
{
    const char *name = options_next(o);
    if (name == NULL && view->id == NULL && (view->id = options_argument(o)) != NULL) {
        name = options_next(o);
    }
    return name;
}

static int run(struct options *o, struct view_options *view)
{
    if (o->code == RUNNER_OK && view->id == NULL) {
        o->code = runner_usage(o->env, o->argv[0], "which session?");
    }
    return options_end(o) == RUNNER_OK ? view_run(o->env, view) : o->code;
}

int cli_attach(const struct runner_env *env, int argc, char **argv)
{
    struct options o = {.env = env, .argc = argc, .at = 1, .argv = argv};
    struct view_options view = VIEW_OPTIONS_INIT;
    const char *name;
    view.kind = VIEW_ATTACH;
    while (o.code == RUNNER_OK && (name = next_option(&o, &view)) != NULL) {
        if (strcmp(name, "--read-only") == 0) {
            view.read_only = true;
        } else if (strcmp(name, "--take-over") == 0) {
            view.take_over = true;
        } else if (strcmp(name, "--exit-code") == 0) {
            view.exit_code = true;
        } else if (strcmp(name, "--from") == 0) {
            take_from(&o, name, &view);
        } else if (strcmp(name, "--detach-key") == 0) {
            take_key(&o, name, &view);
        } else {
            return options_unknown(&o, name);
        }
    }
    return run(&o, &view);
}

int cli_logs(const struct runner_env *env, int argc, char **argv)
{
    struct options o = {.env = env, .argc = argc, .at = 1, .argv = argv};
    struct view_options view = VIEW_OPTIONS_INIT;
    const char *name;
    view.kind = VIEW_LOGS;
    view.read_only = true;
    while (o.code == RUNNER_OK && (name = next_option(&o, &view)) != NULL) {
        if (strcmp(name, "--follow") == 0 || strcmp(name, "-f") == 0) {
            view.follow = true;
        } else if (strcmp(name, "--stderr") == 0) {
            view.stderr_only = true;
        } else if (strcmp(name, "--from") == 0) {
            take_from(&o, name, &view);
        } else {
            return options_unknown(&o, name);
        }
    }
    return run(&o, &view);
}

int cli_send(const struct runner_env *env, int argc, char **argv)
{
    struct options o = {.env = env, .argc = argc, .at = 1, .argv = argv};
    struct view_options view = VIEW_OPTIONS_INIT;
    char text[65536];
    const char *name;
    view.kind = VIEW_SEND;
    while (o.code == RUNNER_OK && (name = next_option(&o, &view)) != NULL) {
        if (strcmp(name, "--enter") == 0) {
            view.enter = true;
        } else if (strcmp(name, "--close") == 0) {
            view.close_input = true;
        } else if (strcmp(name, "--take-over") == 0) {
            view.take_over = true;
        } else if (strcmp(name, "--timeout") == 0) {
            view.timeout_ms = options_number(&o, name);
        } else {
            return options_unknown(&o, name);
        }
    }
    const char *given = options_argument(&o);
    if (given != NULL) {
        int size = snprintf(text, sizeof text, "%s", given);
        if (size >= (int)sizeof text) {
            return runner_usage(env, argv[0], "the text is too long: give it as stdin");
        }
        view.text = text;
        view.text_size = (size_t)size;
    }
    return run(&o, &view);
}
