// runner service ...: services from the command line.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/control_client.h"
#include "runner/options.h"
#include "runner/service_config.h"

#define FOLLOW_MS 200

typedef int subcommand(struct options *o, const char *name);

static const char *text_of(const json_t *json, const char *name)
{
    const char *text = json_string_value(json_object_get(json, name));
    return text != NULL ? text : "";
}

static void print_json(const struct runner_env *env, const json_t *json)
{
    (void)json_dumpf(json, stdout, env->json ? JSON_COMPACT : JSON_INDENT(2));
    (void)putchar('\n');
    (void)fflush(stdout);
}

static int ask(const struct runner_env *env, const char *method, json_t *params, int64_t timeout_ms,
               json_t **ret_result)
{
    struct client *client;
    struct runner_error error;
    int code = client_open(env, &client, &error);
    if (code == RUNNER_OK) {
        code = client_call(client, method, params, timeout_ms, ret_result, &error);
        (void)client_close(client);
    } else {
        json_decref(params);
    }
    return code == RUNNER_OK ? code : runner_report(env, &error);
}

// ------------------------------------------------------------------------------------------------
// add
// ------------------------------------------------------------------------------------------------

static void set_text(json_t *config, struct options *o, const char *option, const char *field)
{
    const char *text = options_value(o, option);
    if (o->code == RUNNER_OK && json_object_set_new(config, field, json_string(text)) != 0) {
        o->code = runner_usage(o->env, o->argv[0], "the value of %s has to be UTF-8", option);
    }
}

// NAME=VALUE. Splits the text, which is the caller's argument.
static const char *split(struct options *o, const char *option, char name[128])
{
    const char *text = options_value(o, option), *is = strchr(text, '=');
    if (o->code == RUNNER_OK && (is == NULL || is == text || is - text >= 128)) {
        o->code = runner_usage(o->env, o->argv[0], "%s takes NAME=VALUE, not '%s'", option, text);
    }
    if (o->code != RUNNER_OK) {
        return "";
    }
    (void)snprintf(name, 128, "%.*s", (int)(is - text), text);
    return is + 1;
}

static void set_variable(json_t *config, struct options *o)
{
    char name[128] = "";
    const char *value = split(o, "--env", name);
    json_t *env = json_object_get(config, "env");
    if (o->code == RUNNER_OK && env == NULL) {
        env = json_object();
        (void)json_object_set_new(config, "env", env);
    }
    if (o->code == RUNNER_OK && json_object_set_new(env, name, json_string(value)) != 0) {
        o->code = runner_usage(o->env, o->argv[0], "variables have to be UTF-8");
    }
}

// Any field of the configuration: JSON, or else a text.
static void set_field(json_t *config, struct options *o)
{
    char name[128] = "";
    const char *value = split(o, "--set", name);
    if (o->code == RUNNER_OK) {
        json_t *json = json_loads(value, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
        (void)json_object_set_new(config, name, json != NULL ? json : json_string(value));
    }
}

static void take_add_option(json_t *config, struct options *o, const char *option, bool *ret_store)
{
    if (strcmp(option, "--kind") == 0) {
        set_text(config, o, option, "kind");
    } else if (strcmp(option, "--cwd") == 0) {
        set_text(config, o, option, "cwd");
    } else if (strcmp(option, "--restart") == 0) {
        set_text(config, o, option, "restart");
    } else if (strcmp(option, "--env") == 0) {
        set_variable(config, o);
    } else if (strcmp(option, "--clean-env") == 0) {
        (void)json_object_set_new(config, "env_base", json_string("empty"));
    } else if (strcmp(option, "--pod") == 0) {
        (void)json_object_set_new(config, "pod", json_true());
    } else if (strcmp(option, "--set") == 0) {
        set_field(config, o);
    } else if (strcmp(option, "--once") == 0) {
        *ret_store = false;
    } else {
        (void)options_unknown(o, option);
    }
}

static void take_command(json_t *config, struct options *o)
{
    const char *argument = options_argument(o);
    json_t *args = json_array();
    if (argument == NULL) {
        o->code =
            runner_usage(o->env, o->argv[0], "the command is missing: -- COMMAND [ARGUMENT...]");
    } else {
        (void)json_object_set_new(config, "command", json_string(argument));
    }
    while (o->code == RUNNER_OK && (argument = options_argument(o)) != NULL) {
        if (json_array_append_new(args, json_string(argument)) != 0) {
            o->code = runner_usage(o->env, o->argv[0], "arguments have to be UTF-8");
        }
    }
    if (json_array_size(args) > 0) {
        (void)json_object_set(config, "args", args);
    }
    json_decref(args);
}

static int print_outcome(const struct runner_env *env, json_t *service, const char *wanted)
{
    const char *state = text_of(service, "state");
    bool fine = wanted == NULL || strcmp(state, wanted) == 0;
    char command[SERVICE_NAME_MAX + 32], text[RUNNER_NEXT_MAX];
    if (env->json) {
        print_json(env, service);
    } else {
        (void)fprintf(fine ? stdout : stderr, "%s: %s: %s\n", text_of(service, "name"), state,
                      text_of(service, "reason"));
        if (!fine) {
            (void)snprintf(command, sizeof command, "runner service logs %s",
                           text_of(service, "name"));
            (void)fprintf(stderr, "  next: %s\n", runner_next(env, command, text));
        }
    }
    json_decref(service);
    return fine ? RUNNER_OK : RUNNER_FAILED;
}

static int do_add(struct options *o, const char *name)
{
    json_t *config = json_pack("{s:s}", "kind", "mcp"), *service = NULL;
    const char *option;
    bool store = true;
    while (o->code == RUNNER_OK && (option = options_next(o)) != NULL) {
        take_add_option(config, o, option, &store);
    }
    if (o->code == RUNNER_OK) {
        take_command(config, o);
        options_folder(o, config);
    }
    if (o->code != RUNNER_OK) {
        json_decref(config);
        return o->code;
    }
    bool rests = json_is_false(json_object_get(config, "autostart"));
    int code = ask(o->env, "service.add",
                   json_pack("{s:s, s:o, s:b}", "name", name, "config", config, "store", store), -1,
                   &service);
    return code == RUNNER_OK ? print_outcome(o->env, service, rests ? NULL : "running") : code;
}

// ------------------------------------------------------------------------------------------------
// list, get, start, stop, restart, remove
// ------------------------------------------------------------------------------------------------

static void print_row(const json_t *s)
{
    char pid[24] = "-";
    if (json_object_get(s, "pid") != NULL) {
        (void)snprintf(pid, sizeof pid, "%lld",
                       (long long)json_integer_value(json_object_get(s, "pid")));
    }
    (void)printf("%-20s %-4s %-9s %-8s %-11s %s\n", text_of(s, "name"), text_of(s, "kind"),
                 text_of(s, "state"), pid, text_of(s, "restart"), text_of(s, "reason"));
}

static int do_list(struct options *o, const char *name)
{
    json_t *result = NULL, *service;
    char text[RUNNER_NEXT_MAX];
    size_t i;
    (void)name;
    int code = ask(o->env, "service.list", NULL, CLIENT_TIMEOUT_MS, &result);
    if (code != RUNNER_OK) {
        return code;
    }
    const char *problem = text_of(result, "problem");
    if (o->env->json) {
        print_json(o->env, result);
    } else {
        (void)printf("%-20s %-4s %-9s %-8s %-11s %s\n", "SERVICE", "KIND", "STATE", "PID",
                     "RESTART", "REASON");
        json_array_foreach(json_object_get(result, "services"), i, service)
        {
            print_row(service);
        }
    }
    if (problem[0] != '\0') {
        (void)fprintf(stderr,
                      "runner: no service of the file was started: %s\n"
                      "  next: mend it, then: %s\n",
                      problem, runner_next(o->env, "runner upgrade", text));
        code = RUNNER_DAMAGED;
    }
    json_decref(result);
    return code;
}

static int do_get(struct options *o, const char *name)
{
    json_t *service = NULL;
    int code =
        ask(o->env, "service.get", json_pack("{s:s}", "name", name), CLIENT_TIMEOUT_MS, &service);
    if (code == RUNNER_OK) {
        print_json(o->env, service);
        json_decref(service);
    }
    return code;
}

static int change(struct options *o, const char *method, const char *name, const char *wanted)
{
    json_t *service = NULL;
    int code = ask(o->env, method, json_pack("{s:s}", "name", name), -1, &service);
    return code == RUNNER_OK ? print_outcome(o->env, service, wanted) : code;
}

static int do_start(struct options *o, const char *name)
{
    return change(o, "service.start", name, "running");
}

static int do_stop(struct options *o, const char *name)
{
    return change(o, "service.stop", name, "stopped");
}

static int do_restart(struct options *o, const char *name)
{
    return change(o, "service.restart", name, "running");
}

static int do_remove(struct options *o, const char *name)
{
    return change(o, "service.remove", name, NULL);
}

// ------------------------------------------------------------------------------------------------
// logs
// ------------------------------------------------------------------------------------------------

static int do_logs(struct options *o, const char *name)
{
    bool follow = false, all = false;
    const char *option;
    json_int_t next = -65536;
    while (o->code == RUNNER_OK && (option = options_next(o)) != NULL) {
        follow = follow || strcmp(option, "--follow") == 0 || strcmp(option, "-f") == 0;
        all = all || strcmp(option, "--all") == 0;
        if (strcmp(option, "--follow") != 0 && strcmp(option, "-f") != 0 &&
            strcmp(option, "--all") != 0) {
            (void)options_unknown(o, option);
        }
    }
    if (options_end(o) != RUNNER_OK) {
        return o->code;
    }
    for (next = all ? 0 : next;;) {
        json_t *part = NULL;
        int code = ask(o->env, "service.logs", json_pack("{s:s, s:I}", "name", name, "after", next),
                       CLIENT_TIMEOUT_MS, &part);
        if (code != RUNNER_OK) {
            return code;
        }
        const json_t *text = json_object_get(part, "text");
        size_t size = json_string_length(text);
        bool fine = true;
        if (o->env->json && size > 0) {
            print_json(o->env, part);
        } else if (!o->env->json) {
            fine = fwrite(json_string_value(text), 1, size, stdout) == size && fflush(stdout) == 0;
        }
        next = json_integer_value(json_object_get(part, "next"));
        json_decref(part);
        if ((size == 0 && !follow) || !fine) {
            return RUNNER_OK;
        }
        if (size == 0) {
            uv_sleep(FOLLOW_MS);
        }
    }
}

// ------------------------------------------------------------------------------------------------
// call, notify, cancel, answer, messages
// ------------------------------------------------------------------------------------------------

// JSON from an argument, or from stdin for "-". NULL is fine: there are none.
static json_t *take_params(struct options *o)
{
    json_error_t problem;
    json_t *json;
    const char *text = options_argument(o);
    if (text == NULL) {
        return NULL;
    }
    json = strcmp(text, "-") == 0 ? json_loadf(stdin, JSON_ALLOW_NUL, &problem)
                                  : json_loads(text, JSON_ALLOW_NUL, &problem);
    if (json == NULL) {
        o->code = runner_usage(o->env, o->argv[0],
                               "the parameters have to be a JSON object or list: %s", problem.text);
    }
    return json;
}

struct streaming {
    const struct runner_env *env;
    bool quiet;
};

// What the service says meanwhile.
static void on_notification(void *user, const char *line)
{
    const struct streaming *streaming = user;
    json_t *told = json_loads(line, JSON_ALLOW_NUL, NULL);
    const json_t *message = json_object_get(json_object_get(told, "params"), "message");
    if (message != NULL && !streaming->quiet) {
        FILE *to = streaming->env->json ? stdout : stderr;
        (void)json_dumpf(message, to, JSON_COMPACT);
        (void)fputc('\n', to);
        (void)fflush(to);
    }
    json_decref(told);
}

static int print_answer(const struct runner_env *env, json_t *answer)
{
    const json_t *fault = json_object_get(answer, "error");
    if (env->json) {
        print_json(env, answer);
    } else if (fault == NULL) {
        (void)json_dumpf(json_object_get(answer, "result"), stdout,
                         JSON_INDENT(2) | JSON_ENCODE_ANY);
        (void)putchar('\n');
    } else {
        (void)fprintf(stderr, "runner: it answered an error: ");
        (void)json_dumpf(fault, stderr, JSON_COMPACT | JSON_ENCODE_ANY);
        (void)fputc('\n', stderr);
    }
    int code = fault == NULL ? RUNNER_OK : RUNNER_FAILED;
    json_decref(answer);
    return code;
}

static int run_call(const struct streaming *streaming, json_t *params)
{
    struct client *client;
    struct runner_error error;
    json_t *answer = NULL;
    int code = client_open(streaming->env, &client, &error);
    if (code != RUNNER_OK) {
        json_decref(params);
        return runner_report(streaming->env, &error);
    }
    client_listen(client, on_notification, (void *)(uintptr_t)streaming);
    // Its time is the runner's business, which tells the service when it is over.
    code = client_call(client, "service.call", params, -1, &answer, &error);
    (void)client_close(client);
    return code == RUNNER_OK ? print_answer(streaming->env, answer)
                             : runner_report(streaming->env, &error);
}

static void take_call_options(struct options *o, json_t *params, struct streaming *streaming)
{
    const char *option;
    while (o->code == RUNNER_OK && (option = options_next(o)) != NULL) {
        if (strcmp(option, "--timeout") == 0) {
            json_t *number = json_integer((json_int_t)options_number(o, option));
            (void)json_object_set_new(params, "timeout_ms", number);
        } else if (strcmp(option, "--tag") == 0) {
            (void)json_object_set_new(params, "tag", json_string(options_value(o, option)));
        } else if (strcmp(option, "--quiet") == 0) {
            streaming->quiet = true;
        } else {
            (void)options_unknown(o, option);
        }
    }
}

static int do_call(struct options *o, const char *name)
{
    struct streaming streaming = {o->env, false};
    const char *method = options_argument(o);
    json_t *params = json_pack("{s:s}", "name", name), *given = NULL;
    take_call_options(o, params, &streaming);
    if (o->code == RUNNER_OK) {
        given = take_params(o);
    }
    take_call_options(o, params, &streaming);
    if (o->code == RUNNER_OK && method == NULL) {
        o->code = runner_usage(o->env, o->argv[0], "the method is missing");
    }
    if (options_end(o) != RUNNER_OK) {
        json_decref(params);
        json_decref(given);
        return o->code;
    }
    (void)json_object_set_new(params, "method", json_string(method));
    (void)json_object_set_new(params, "stream", json_boolean(!streaming.quiet));
    if (given != NULL) {
        (void)json_object_set_new(params, "params", given);
    }
    return run_call(&streaming, params);
}

static int simple(struct options *o, const char *method, json_t *params)
{
    json_t *result = NULL;
    if (options_end(o) != RUNNER_OK) {
        json_decref(params);
        return o->code;
    }
    int code = ask(o->env, method, params, CLIENT_TIMEOUT_MS, &result);
    if (code == RUNNER_OK && o->env->json) {
        print_json(o->env, result);
    }
    json_decref(result);
    return code;
}

static int do_notify(struct options *o, const char *name)
{
    const char *method = options_argument(o);
    json_t *params = json_pack("{s:s}", "name", name), *given = take_params(o);
    if (o->code == RUNNER_OK && method == NULL) {
        o->code = runner_usage(o->env, o->argv[0], "the method is missing");
    }
    (void)json_object_set_new(params, "method", json_string(method != NULL ? method : ""));
    if (given != NULL) {
        (void)json_object_set_new(params, "params", given);
    }
    return simple(o, "service.notify", params);
}

static int do_cancel(struct options *o, const char *name)
{
    const char *tag = options_argument(o);
    if (tag == NULL) {
        o->code = runner_usage(o->env, o->argv[0], "the tag of the call is missing");
    }
    return simple(o, "service.cancel",
                  json_pack("{s:s, s:s}", "name", name, "tag", tag != NULL ? tag : ""));
}

static int do_answer(struct options *o, const char *name)
{
    const char *request = options_argument(o);
    json_t *given = take_params(o);
    if (o->code == RUNNER_OK && (request == NULL || given == NULL)) {
        o->code = runner_usage(o->env, o->argv[0], "the request, and its result as JSON");
    }
    json_t *params =
        json_pack("{s:s, s:s}", "name", name, "request", request != NULL ? request : "");
    if (given != NULL) {
        (void)json_object_set_new(params, "result", given);
    }
    return simple(o, "service.answer", params);
}

static int do_messages(struct options *o, const char *name)
{
    json_t *result = NULL, *params = json_pack("{s:s}", "name", name), *message;
    const char *option;
    size_t i;
    while (o->code == RUNNER_OK && (option = options_next(o)) != NULL) {
        if (strcmp(option, "--after") == 0) {
            json_t *number = json_integer((json_int_t)options_number(o, option));
            (void)json_object_set_new(params, "after", number);
        } else {
            (void)options_unknown(o, option);
        }
    }
    if (options_end(o) != RUNNER_OK) {
        json_decref(params);
        return o->code;
    }
    int code = RUNNER_OK;
    for (bool more = true; more && code == RUNNER_OK;) {
        code = ask(o->env, "service.messages", json_incref(params), CLIENT_TIMEOUT_MS, &result);
        if (code != RUNNER_OK) {
            break;
        }
        json_array_foreach(json_object_get(result, "messages"), i, message)
        {
            (void)json_dumpf(message, stdout, JSON_COMPACT);
            (void)putchar('\n');
        }
        more = json_is_true(json_object_get(result, "more"));
        (void)json_object_set(params, "after", json_object_get(result, "next"));
        (void)json_object_set(params, "agent", json_object_get(result, "agent"));
        json_decref(result);
    }
    json_decref(params);
    return code;
}

static const struct {
    const char *name;
    subcommand *run;
    bool named;
    bool more; // Arguments or options behind the name.
} subcommands[] = {
    {"add", do_add, true, true},           {"list", do_list, false, false},
    {"get", do_get, true, false},          {"start", do_start, true, false},
    {"stop", do_stop, true, false},        {"restart", do_restart, true, false},
    {"remove", do_remove, true, false},    {"logs", do_logs, true, true},
    {"call", do_call, true, true},         {"notify", do_notify, true, true},
    {"cancel", do_cancel, true, true},     {"answer", do_answer, true, true},
    {"messages", do_messages, true, true},
};

int cli_service(const struct runner_env *env, int argc, char **argv)
{
    struct options o = {.env = env, .argc = argc, .at = 1, .argv = argv};
    const char *word = options_argument(&o), *name = NULL;
    size_t i = 0, count = sizeof subcommands / sizeof subcommands[0];
    while (word != NULL && i < count && strcmp(subcommands[i].name, word) != 0) {
        i++;
    }
    if (word == NULL || i == count) {
        return runner_usage(env, argv[0], "%s%s",
                            word == NULL ? "what to do is missing" : "no such word: ",
                            word == NULL ? "" : word);
    }
    if (subcommands[i].named) {
        name = options_argument(&o);
        if (name == NULL || name[0] == '-') {
            return runner_usage(env, argv[0], "the name of the service comes first");
        }
    }
    if (!subcommands[i].more && options_end(&o) != RUNNER_OK) {
        return o.code;
    }
    return subcommands[i].run(&o, name);
}
