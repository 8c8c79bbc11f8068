// Commands about sessions that are one call of the runner.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/control_client.h"
#include "runner/options.h"

// ------------------------------------------------------------------------------------------------
// create
// ------------------------------------------------------------------------------------------------

static bool parse_size(const char *text, unsigned *ret_columns, unsigned *ret_rows)
{
    char *end;
    unsigned long columns = strtoul(text, &end, 10), rows;
    if (text[0] < '0' || text[0] > '9' || *end != 'x' || end[1] < '0' || end[1] > '9') {
        return false;
    }
    rows = strtoul(end + 1, &end, 10);
    *ret_columns = (unsigned)columns;
    *ret_rows = (unsigned)rows;
    return *end == '\0' && columns >= 1 && columns <= 32767 && rows >= 1 && rows <= 32767;
}

static json_t *own_environment(void)
{
    uv_env_item_t *items;
    int count;
    json_t *list = json_array();
    if (uv_os_environ(&items, &count) != 0) {
        return list;
    }
    for (int i = 0; i < count; i++) {
        size_t size = strlen(items[i].name) + strlen(items[i].value) + 2;
        char *text = malloc(size);
        if (text != NULL) {
            (void)snprintf(text, size, "%s=%s", items[i].name, items[i].value);
            json_t *value = json_string(text); // NULL: no UTF-8, and JSON has nothing else.
            if (value != NULL) {
                (void)json_array_append_new(list, value);
            }
            free(text);
        }
    }
    uv_os_free_environ(items, count);
    return list;
}

struct creation {
    json_t *params, *env, *labels;
    bool clean, attach, sized, pipes;
};

static void set_number(struct creation *c, struct options *o, const char *option, const char *name)
{
    (void)json_object_set_new(c->params, name, json_integer((json_int_t)options_number(o, option)));
}

static void set_size(struct creation *c, struct options *o, const char *text)
{
    unsigned columns, rows;
    if (!parse_size(text, &columns, &rows)) {
        o->code = runner_usage(o->env, o->argv[0], "a size is COLUMNSxROWS, not '%s'", text);
        return;
    }
    c->sized = true;
    (void)json_object_set_new(c->params, "columns", json_integer(columns));
    (void)json_object_set_new(c->params, "rows", json_integer(rows));
}

static void set_label(struct creation *c, struct options *o, const char *text)
{
    const char *is = strchr(text, '=');
    char name[128];
    if (is == NULL || is == text || (size_t)(is - text) >= sizeof name) {
        o->code = runner_usage(o->env, o->argv[0], "a label is NAME=TEXT, not '%s'", text);
        return;
    }
    (void)snprintf(name, sizeof name, "%.*s", (int)(is - text), text);
    (void)json_object_set_new(c->labels, name, json_string(is + 1));
}

static void take_option(struct creation *c, struct options *o, const char *name)
{
    if (strcmp(name, "--pipes") == 0) {
        (void)json_object_set_new(c->params, "mode", json_string("pipes"));
        c->pipes = true;
    } else if (strcmp(name, "--size") == 0) {
        set_size(c, o, options_value(o, name));
    } else if (strcmp(name, "--cwd") == 0) {
        (void)json_object_set_new(c->params, "cwd", json_string(options_value(o, name)));
    } else if (strcmp(name, "--env") == 0) {
        (void)json_array_append_new(c->env, json_string(options_value(o, name)));
    } else if (strcmp(name, "--clean-env") == 0) {
        c->clean = true;
    } else if (strcmp(name, "--label") == 0) {
        set_label(c, o, options_value(o, name));
    } else if (strcmp(name, "--ring") == 0) {
        set_number(c, o, name, "ring");
    } else if (strcmp(name, "--grace") == 0) {
        set_number(c, o, name, "grace_ms");
    } else if (strcmp(name, "--orphan") == 0) {
        set_number(c, o, name, "orphan_s");
    } else if (strcmp(name, "--kill-tree") == 0) {
        (void)json_object_set_new(c->params, "kill_tree", json_true());
    } else if (strcmp(name, "--batch") == 0) {
        (void)json_object_set_new(c->params, "batch", json_true());
    } else if (strcmp(name, "--on-full") == 0) {
        (void)json_object_set_new(c->params, "on_full", json_string(options_value(o, name)));
    } else if (strcmp(name, "--wait") == 0) {
        set_number(c, o, name, "wait_s");
    } else if (strcmp(name, "--attach") == 0) {
        c->attach = true;
    } else {
        (void)options_unknown(o, name);
    }
}

// What of ours is used where nothing else was said.
static void add_defaults(struct creation *c, struct options *o)
{
    unsigned columns, rows, i;
    json_t *all = c->clean ? json_array() : own_environment(), *item;
    json_array_foreach(c->env, i, item)
    {
        const char *text = json_string_value(item);
        char *name = strdup(text);
        if (name != NULL) {
            name[strcspn(name, "=")] = '\0';
        }
        for (size_t at = name != NULL ? json_array_size(all) : 0; at-- > 0;) {
            if (os_has_name(json_string_value(json_array_get(all, at)), name)) {
                (void)json_array_remove(all, at);
            }
        }
        free(name);
        (void)json_array_append(all, item); // A name alone takes no value along.
    }
    (void)json_object_set_new(c->params, "env", all);
    (void)json_object_set(c->params, "labels", c->labels);
    options_folder(o, c->params);
    if (!c->sized && !c->pipes && os_terminal_size(&columns, &rows) && columns <= 32767 &&
        rows <= 32767) {
        (void)json_object_set_new(c->params, "columns", json_integer(columns));
        (void)json_object_set_new(c->params, "rows", json_integer(rows));
    }
}

static void take_program(struct creation *c, struct options *o)
{
    char shell[4096];
    size_t size = sizeof shell;
    const char *argument = options_argument(o);
    json_t *argv;
    if (argument == NULL) {
        if ((uv_os_getenv("SHELL", shell, &size) != 0 || shell[0] == '\0') &&
            (size = sizeof shell, uv_os_getenv("COMSPEC", shell, &size) != 0)) {
            (void)snprintf(shell, sizeof shell, "/bin/sh");
        }
        (void)json_object_set_new(c->params, "program", json_string(shell));
        return;
    }
    argv = json_array();
    (void)json_object_set_new(c->params, "program", json_string(argument));
    for (; argument != NULL && o->code == RUNNER_OK; argument = options_argument(o)) {
        if (json_array_append_new(argv, json_string(argument)) != 0) { // JSON has nothing else.
            o->code = runner_usage(o->env, o->argv[0], "arguments have to be UTF-8");
        }
    }
    (void)json_object_set_new(c->params, "argv", argv);
}

static void print_created(const struct runner_env *env, json_t *session)
{
    size_t i;
    json_t *warning;
    if (env->json) {
        (void)json_dumpf(session, stdout, JSON_COMPACT);
        (void)putchar('\n');
        return;
    }
    json_array_foreach(json_object_get(session, "warnings"), i, warning)
    {
        (void)fprintf(stderr, "runner: warning: %s\n", json_string_value(warning));
    }
    (void)printf("%s: process %lld\n", json_string_value(json_object_get(session, "id")),
                 (long long)json_integer_value(json_object_get(session, "pid")));
}

int cli_create(const struct runner_env *env, int argc, char **argv)
{
    struct options o = {.env = env, .argc = argc, .at = 1, .argv = argv};
    struct creation c = {json_object(), json_array(), json_object(), false, false, false, false};
    struct runner_error error;
    const char *name, *id = options_argument(&o);
    json_t *session = NULL;
    int code;
    while (o.code == RUNNER_OK && (name = options_next(&o)) != NULL) {
        take_option(&c, &o, name);
    }
    if (o.code == RUNNER_OK && (id == NULL || id[0] == '-')) {
        o.code = runner_usage(env, argv[0], "the id of the session comes first");
    }
    if (o.code == RUNNER_OK && c.sized && c.pipes) {
        o.code = runner_usage(env, argv[0], "pipes have no size: --pipes or --size");
    }
    code = o.code;
    if (code == RUNNER_OK) {
        (void)json_object_set_new(c.params, "id", json_string(id));
        take_program(&c, &o);
        add_defaults(&c, &o);
        code = o.code;
    }
    if (code == RUNNER_OK) {
        code = client_ask(env, "session.create", json_incref(c.params), &session, &error);
        code = code == RUNNER_OK ? code : runner_report(env, &error);
    }
    json_decref(c.params);
    json_decref(c.env);
    json_decref(c.labels);
    if (code == RUNNER_OK && !c.attach) {
        print_created(env, session);
    }
    json_decref(session);
    if (code == RUNNER_OK && c.attach) {
        char word[] = "attach";
        char *arguments[] = {word, (char *)id, NULL};
        return cli_attach(env, 2, arguments);
    }
    return code;
}

// ------------------------------------------------------------------------------------------------
// list, get
// ------------------------------------------------------------------------------------------------

static json_int_t number(const json_t *json, const char *name)
{
    return json_integer_value(json_object_get(json, name));
}

static const char *text_of(const json_t *json, const char *name)
{
    const char *text = json_string_value(json_object_get(json, name));
    return text != NULL ? text : "";
}

static void describe_end(const json_t *session, char *text, size_t capacity)
{
    const json_t *record = json_object_get(session, "exit");
    const char *kind = text_of(record, "kind");
    if (strcmp(kind, "exited") == 0) {
        (void)snprintf(text, capacity, "code %lld", (long long)number(record, "code"));
    } else if (strcmp(kind, "signaled") == 0) {
        (void)snprintf(text, capacity, "signal %lld", (long long)number(record, "signal"));
    } else if (record != NULL) {
        (void)snprintf(text, capacity, "not known");
    } else {
        (void)snprintf(text, capacity, "%s",
                       json_is_true(json_object_get(session, "writer")) ? "attached" : "-");
    }
}

static void print_row(const json_t *s)
{
    char size[32] = "-", pid[32] = "-", end[32];
    if (number(s, "columns") > 0 && strcmp(text_of(s, "mode"), "pty") == 0) {
        (void)snprintf(size, sizeof size, "%lldx%lld", (long long)number(s, "columns"),
                       (long long)number(s, "rows"));
    }
    if (number(s, "pid") > 0) {
        (void)snprintf(pid, sizeof pid, "%lld", (long long)number(s, "pid"));
    }
    describe_end(s, end, sizeof end);
    (void)printf("%-20s %-11s %-8s %-9s %-10s %s\n", text_of(s, "id"), text_of(s, "state"), pid,
                 size, end, text_of(s, "program"));
}

int cli_list(const struct runner_env *env, int argc, char **argv)
{
    struct runner_error error;
    json_t *list, *session;
    size_t i;
    if (argc > 1) {
        return runner_usage(env, argv[0], "it has no arguments");
    }
    if (client_ask(env, "session.list", NULL, &list, &error) != RUNNER_OK) {
        return runner_report(env, &error);
    }
    if (env->json) {
        (void)json_dumpf(list, stdout, JSON_COMPACT);
        (void)putchar('\n');
    } else {
        (void)printf("%-20s %-11s %-8s %-9s %-10s %s\n", "SESSION", "STATE", "PID", "SIZE", "END",
                     "PROGRAM");
        json_array_foreach(list, i, session)
        {
            print_row(session);
        }
    }
    json_decref(list);
    return RUNNER_OK;
}

static int child_code(const json_t *session)
{
    const json_t *record = json_object_get(session, "exit");
    const char *kind = text_of(record, "kind");
    return strcmp(kind, "exited") == 0     ? os_exit_code((uint32_t)number(record, "code"))
           : strcmp(kind, "signaled") == 0 ? (int)(128 + number(record, "signal"))
                                           : RUNNER_FAILED;
}

static void print_session(const struct runner_env *env, json_t *session)
{
    (void)json_dumpf(session, stdout, env->json ? JSON_COMPACT : JSON_INDENT(2));
    (void)putchar('\n');
}

int cli_get(const struct runner_env *env, int argc, char **argv)
{
    struct runner_error error;
    json_t *session;
    if (argc != 2) {
        return runner_usage(env, argv[0], "one session");
    }
    if (client_ask(env, "session.get", json_pack("{s:s}", "id", argv[1]), &session, &error) !=
        RUNNER_OK) {
        return runner_report(env, &error);
    }
    print_session(env, session);
    json_decref(session);
    return RUNNER_OK;
}

// ------------------------------------------------------------------------------------------------
// stop, kill, destroy, forget, resize
// ------------------------------------------------------------------------------------------------

#define END_MARGIN_MS 60000 // Beside the grace: each answer, and twice a record of 64 MiB.

// The larger one of what is asked for and that of the session, which its holder has.
static int64_t grace_of(struct client *client, const json_t *params)
{
    struct runner_error error;
    json_t *place = NULL;
    int64_t grace = number(params, "grace_ms");
    if (client_call(client, "session.locate",
                    json_pack("{s:O}", "id", json_object_get(params, "id")), CLIENT_TIMEOUT_MS,
                    &place, &error) == RUNNER_OK) {
        int64_t own = number(place, "grace_ms");
        grace = own > grace ? own : grace;
    }
    json_decref(place);
    return grace;
}

// Calls a method that answers with the session; the call lasts as long as the stop.
static int end_session(struct options *o, const char *method, json_t *params, bool exit_code)
{
    struct client *client;
    struct runner_error error;
    json_t *session = NULL;
    char end[32];
    bool destroys = strcmp(method, "session.destroy") == 0; // That waits for the next runner.
    int code = destroys ? client_open(o->env, &client, &error)
                        : client_open_to_end(o->env, &client, &error);
    if (code != RUNNER_OK) {
        json_decref(params);
        return runner_report(o->env, &error);
    }
    // The grace comes twice: for the child, and for a holder that does not answer.
    int64_t timeout_ms = 2 * grace_of(client, params) + END_MARGIN_MS;
    code = client_call(client, method, params, timeout_ms, &session, &error);
    (void)client_close(client);
    if (code != RUNNER_OK) {
        return runner_report(o->env, &error);
    }
    describe_end(session, end, sizeof end);
    if (o->env->json) {
        print_session(o->env, session);
    } else {
        const char *reason = text_of(json_object_get(session, "exit"), "reason");
        (void)printf("%s: %s, %s%s%s\n", text_of(session, "id"), text_of(session, "state"), end,
                     reason[0] != '\0' ? ": " : "", reason);
    }
    code = exit_code ? child_code(session) : RUNNER_OK;
    json_decref(session);
    return code;
}

static int run_end(const struct runner_env *env, int argc, char **argv, const char *method,
                   bool has_grace)
{
    struct options o = {.env = env, .argc = argc, .at = 1, .argv = argv};
    const char *id = options_argument(&o), *name;
    unsigned long grace = 0;
    bool exit_code = false;
    while (o.code == RUNNER_OK && (name = options_next(&o)) != NULL) {
        if (has_grace && strcmp(name, "--grace") == 0) {
            grace = options_number(&o, name);
        } else if (strcmp(name, "--exit-code") == 0 && strcmp(method, "session.stop") == 0) {
            exit_code = true;
        } else {
            return options_unknown(&o, name);
        }
    }
    if (id == NULL) {
        return runner_usage(env, argv[0], "which session?");
    }
    if (options_end(&o) != RUNNER_OK) {
        return o.code;
    }
    json_t *params = json_pack("{s:s}", "id", id);
    if (grace > 0) {
        (void)json_object_set_new(params, "grace_ms", json_integer((json_int_t)grace));
    }
    return end_session(&o, method, params, exit_code);
}

int cli_stop(const struct runner_env *env, int argc, char **argv)
{
    return run_end(env, argc, argv, "session.stop", true);
}

int cli_kill(const struct runner_env *env, int argc, char **argv)
{
    return run_end(env, argc, argv, "session.kill", false);
}

int cli_destroy(const struct runner_env *env, int argc, char **argv)
{
    return run_end(env, argc, argv, "session.destroy", true);
}

int cli_forget(const struct runner_env *env, int argc, char **argv)
{
    return run_end(env, argc, argv, "session.forget", false);
}

int cli_resize(const struct runner_env *env, int argc, char **argv)
{
    struct runner_error error;
    unsigned columns, rows;
    json_t *result;
    if (argc != 3 || !parse_size(argv[2], &columns, &rows)) {
        return runner_usage(env, argv[0], "a session and a size, such as 100x30");
    }
    if (client_ask(env, "session.resize",
                   json_pack("{s:s, s:i, s:i}", "id", argv[1], "columns", (int)columns, "rows",
                             (int)rows),
                   &result, &error) != RUNNER_OK) {
        return runner_report(env, &error);
    }
    json_decref(result);
    return RUNNER_OK;
}
