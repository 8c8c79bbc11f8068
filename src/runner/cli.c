// Commands about the runner itself, and what all commands share.
#include <processmgr/processmgr.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/control_client.h"
#include "runner/options.h"
#include "runner/upgrade.h"

const char *options_next(struct options *o)
{
    if (o->ended || o->at >= o->argc || o->argv[o->at][0] != '-' || o->argv[o->at][1] == '\0') {
        return NULL;
    }
    const char *name = o->argv[o->at++];
    if (strcmp(name, "--") == 0) {
        o->ended = true;
        return NULL;
    }
    return name;
}

const char *options_value(struct options *o, const char *name)
{
    if (o->at >= o->argc) {
        o->code = runner_usage(o->env, o->argv[0], "%s needs a value", name);
        return "";
    }
    return o->argv[o->at++];
}

unsigned long options_number(struct options *o, const char *name)
{
    const char *text = options_value(o, name);
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    if (o->code == RUNNER_OK &&
        (text[0] < '0' || text[0] > '9' || *end != '\0' || number > 1ul << 30)) {
        o->code = runner_usage(o->env, o->argv[0], "%s needs a number, not '%s'", name, text);
    }
    return number;
}

void options_folder(struct options *o, json_t *params)
{
    char path[4096];
    size_t size = sizeof path;
    if (o->code != RUNNER_OK || json_object_get(params, "cwd") != NULL) {
        return;
    }
    int result = uv_cwd(path, &size);
    if (result != 0 || json_object_set_new(params, "cwd", json_string(path)) != 0) {
        o->code = runner_usage(o->env, o->argv[0],
                               "the current folder cannot be told (%s): give "
                               "another one, --cwd DIR",
                               result != 0 ? uv_strerror(result) : "its name is no UTF-8");
    }
}

const char *options_argument(struct options *o)
{
    return o->at < o->argc ? o->argv[o->at++] : NULL;
}

int options_unknown(struct options *o, const char *name)
{
    return o->code = runner_usage(o->env, o->argv[0], "no such option: %s", name);
}

int options_end(struct options *o)
{
    if (o->code == RUNNER_OK && o->at < o->argc) {
        o->code = runner_usage(o->env, o->argv[0], "one too many: %s", o->argv[o->at]);
    }
    return o->code;
}

static void print_json(json_t *json, bool pretty)
{
    (void)json_dumpf(json, stdout, pretty ? JSON_INDENT(2) : JSON_COMPACT);
    (void)putchar('\n');
}

static void print_value(const json_t *value)
{
    if (json_is_string(value)) {
        (void)printf("%s\n", json_string_value(value));
    } else {
        (void)json_dumpf(value, stdout, JSON_ENCODE_ANY);
        (void)putchar('\n');
    }
}

int cli_info(const struct runner_env *env, int argc, char **argv)
{
    struct runner_error error;
    const char *name;
    json_t *result, *value;
    if (argc > 1) {
        return runner_usage(env, argv[0], "it has no arguments");
    }
    if (client_ask(env, "runner.info", NULL, &result, &error) != RUNNER_OK) {
        return runner_report(env, &error);
    }
    if (env->json) {
        print_json(result, false);
    } else {
        json_object_foreach(result, name, value)
        {
            (void)printf("%-18s ", name);
            print_value(value);
        }
    }
    json_decref(result);
    return RUNNER_OK;
}

int cli_events(const struct runner_env *env, int argc, char **argv)
{
    struct client *client;
    struct runner_error error;
    json_t *result = NULL;
    char *line;
    if (argc > 1) {
        return runner_usage(env, argv[0], "it has no arguments");
    }
    int code = client_open(env, &client, &error);
    if (code != RUNNER_OK) {
        return runner_report(env, &error);
    }
    code = client_call(client, "runner.subscribe", NULL, CLIENT_TIMEOUT_MS, &result, &error);
    json_decref(result);
    while (code == RUNNER_OK && (code = client_next(client, &line, &error)) == RUNNER_OK) {
        bool fine = puts(line) >= 0 && fflush(stdout) == 0;
        free(line);
        if (!fine) {
            break;
        }
    }
    (void)client_close(client);
    return code == RUNNER_OK ? code : runner_report(env, &error);
}

// Whose the registry is; false: nobody's who lives.
static bool owner_of(const struct runner_env *env, struct pm_registry_owner *ret_owner)
{
    char registry[4200];
    (void)snprintf(registry, sizeof registry, "%.4100s/registry", env->state_dir);
    return pm_registry_owner(registry, ret_owner) == PM_OK && ret_owner->proof == PM_PROOF_ALIVE;
}

// Its socket goes before its lock: only with both gone can another one serve; and one that serves
// has both.
static bool has_ended(const struct runner_env *env, const struct pm_registry_owner *owner)
{
    struct pm_registry_owner now = PM_REGISTRY_OWNER_INIT;
    if (owner_of(env, &now)) {
        return owner->epoch != 0 && now.epoch != owner->epoch;
    }
    return client_probe(env) != PM_OK;
}

static int wait_for_end(const struct runner_env *env, const struct pm_registry_owner *owner,
                        uint64_t patience_ms)
{
    struct runner_error error;
    uint64_t deadline = monotonic_ms() + patience_ms;
    while (!has_ended(env, owner)) {
        if (monotonic_ms() > deadline) {
            (void)runner_fail(&error, RUNNER_TIMEOUT,
                              "end of the runner\nprocess %llu has not ended within %llu s\n"
                              "runner doctor",
                              (unsigned long long)owner->pid,
                              (unsigned long long)(patience_ms / 1000));
            return runner_report(env, &error);
        }
        uv_sleep(10);
    }
    return RUNNER_OK;
}

int cli_shutdown(const struct runner_env *env, int argc, char **argv)
{
    struct pm_registry_owner owner = PM_REGISTRY_OWNER_INIT;
    struct options o = {.env = env, .argc = argc, .at = 1, .argv = argv};
    struct runner_env quiet = *env;
    struct runner_error error;
    bool all = false;
    const char *name;
    json_t *result;
    while ((name = options_next(&o)) != NULL) {
        if (strcmp(name, "--stop-sessions") != 0) {
            return options_unknown(&o, name);
        }
        all = true;
    }
    if (options_end(&o) != RUNNER_OK) {
        return o.code;
    }
    quiet.no_start = true;
    (void)owner_of(env, &owner);
    int code = client_ask(&quiet, "runner.shutdown", json_pack("{s:b}", "stop_sessions", all),
                          &result, &error);
    if (code != RUNNER_OK) {
        return runner_report(env, &error);
    }
    uint64_t patience = (uint64_t)json_integer_value(json_object_get(result, "patience_ms"));
    json_decref(result);
    return wait_for_end(env, &owner, CLIENT_TIMEOUT_MS + patience);
}

// Whether the runner, which ends, has noted that since then: nobody comes.
static bool is_given_up(const struct runner_env *env, const char *wanted, int64_t since,
                        struct runner_error *error)
{
    json_t *last = upgrade_last(env->state_dir);
    const char *result = json_string_value(json_object_get(last, "result"));
    const char *program = json_string_value(json_object_get(last, "program"));
    const char *reason = json_string_value(json_object_get(last, "reason"));
    bool given_up = result != NULL && strcmp(result, "refused") == 0 && program != NULL &&
                    strcmp(program, wanted) == 0 &&
                    json_integer_value(json_object_get(last, "at")) >= since;
    if (given_up) {
        (void)runner_fail(error, RUNNER_REFUSED, "upgrade to '%s'\n%s\nrunner info", wanted,
                          reason != NULL ? reason : "");
    }
    json_decref(last);
    return given_up;
}

// Asks until another instance answers, or the same binary again.
static int wait_for_other(const struct runner_env *env, const char *instance, const char *program)
{
    struct runner_env quiet = *env;
    struct runner_error error;
    json_t *info;
    uint64_t deadline = monotonic_ms() + 30000;
    int64_t since = wall_ms();
    quiet.no_start = true;
    while (monotonic_ms() < deadline) {
        if (is_given_up(env, program, since, &error)) {
            return runner_report(env, &error);
        }
        if (client_ask(&quiet, "runner.info", NULL, &info, &error) == RUNNER_OK) {
            const char *now = json_string_value(json_object_get(info, "instance"));
            const json_t *last = json_object_get(info, "upgrade");
            const char *result = json_string_value(json_object_get(last, "result"));
            const char *reason = json_string_value(json_object_get(last, "reason"));
            bool ready = json_is_true(json_object_get(info, "recovered"));
            bool other = now != NULL && strcmp(now, instance) != 0 && ready;
            bool back = other && result != NULL && strcmp(result, "came back") == 0;
            if (back) {
                (void)runner_fail(&error, RUNNER_FAILED,
                                  "upgrade to '%s'\n%s; the old one serves again\nrunner info",
                                  program, reason != NULL ? reason : "");
            } else if (other && env->json) {
                print_json(info, false);
            } else if (other) {
                (void)printf("runner %s serves, process %lld\n",
                             json_string_value(json_object_get(info, "version")),
                             (long long)json_integer_value(json_object_get(info, "pid")));
            }
            json_decref(info);
            if (other) {
                return back ? runner_report(env, &error) : RUNNER_OK;
            }
        }
        uv_sleep(20);
    }
    (void)runner_fail(&error, RUNNER_TIMEOUT, "upgrade to '%s'\nno runner answers\nrunner info",
                      program);
    return runner_report(env, &error);
}

int cli_upgrade(const struct runner_env *env, int argc, char **argv)
{
    struct runner_error error;
    uv_fs_t request;
    json_t *result, *params = json_object();
    if (argc > 2) {
        json_decref(params);
        return runner_usage(env, argv[0], "one binary, or none");
    }
    if (argc == 2) {
        int found = uv_fs_realpath(NULL, &request, argv[1], NULL);
        if (found == 0) {
            (void)json_object_set_new(params, "binary", json_string(request.ptr));
        }
        uv_fs_req_cleanup(&request);
        if (found != 0) {
            json_decref(params);
            (void)runner_fail(&error, RUNNER_FAILED,
                              "upgrade to '%s'\n%s\nnone: name a file that is there", argv[1],
                              uv_strerror(found));
            return runner_report(env, &error);
        }
    }
    if (client_ask(env, "runner.upgrade", params, &result, &error) != RUNNER_OK) {
        return runner_report(env, &error);
    }
    int code = wait_for_other(env, json_string_value(json_object_get(result, "instance")),
                              json_string_value(json_object_get(result, "program")));
    json_decref(result);
    return code;
}
