#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/doctor.h"
#include "runner/options.h"
#include "runner/who.h"

const char help_who[] =
    "Tells whose a process is, and how that is known: which session a process belongs to, as its\n"
    "holder, its child or a descendant, also one that has changed its session and parent, that is "
    "a\n"
    "zombie, or that is the runner itself. Works without a runner. Exit code 3: nobody's.\n"
    "\n"
    "Known by: record (pid and start time in the registry), parents, session, cgroup (one that "
    "was\n"
    "made for the pod), job (Windows). A pipe or terminal in common (stream) makes it only "
    "probable.\n";

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL ? text : "";
}

static void print_who(const struct runner_env *env, const json_t *who)
{
    const json_t *how = json_object_get(who, "how"), *holder = json_object_get(who, "holder");
    const json_t *child = json_object_get(holder, "child");
    const char *session = text_of(who, "session"), *state = text_of(who, "state");
    char quoted[4400], command[RUNNER_ID_MAX * 4 + 32], text[RUNNER_NEXT_MAX];
    size_t i;
    json_t *item;
    (void)printf("process %lld (%s%s%s): %s",
                 (long long)json_integer_value(json_object_get(who, "pid")), text_of(who, "name"),
                 strcmp(state, "running") != 0 ? ", " : "",
                 strcmp(state, "running") != 0 ? state : "", text_of(who, "kind"));
    if (session[0] != '\0') {
        (void)printf(" of session '%s'", session);
    }
    (void)putchar('\n');
    json_array_foreach(how, i, item)
    {
        (void)printf("  by %s: %s\n", text_of(item, "by"), text_of(item, "detail"));
    }
    if (json_is_object(holder)) {
        (void)printf("  holder %lld, %s",
                     (long long)json_integer_value(json_object_get(holder, "pid")),
                     text_of(holder, "proof"));
        if (json_is_integer(child)) {
            (void)printf("; child %lld", (long long)json_integer_value(child));
        }
        (void)putchar('\n');
    }
    if (strcmp(state, "zombie") == 0) {
        (void)printf("  dead: its parent, process %lld, has to wait for it\n",
                     (long long)json_integer_value(json_object_get(who, "parent")));
    }
    if (session[0] != '\0') {
        (void)snprintf(command, sizeof command, "runner get %s", doctor_id(session, quoted));
        (void)printf("  next: %s\n", runner_next(env, command, text));
    }
}

int cli_who(const struct runner_env *env, int argc, char **argv)
{
    struct options o = {.env = env, .argc = argc, .at = 1, .argv = argv};
    struct runner_error error;
    json_t *who;
    char *end = NULL;
    const char *name = options_next(&o);
    if (name != NULL) {
        return options_unknown(&o, name);
    }
    const char *text = options_argument(&o);
    unsigned long long pid = text != NULL ? strtoull(text, &end, 10) : 0;
    if (text == NULL || text[0] < '0' || text[0] > '9' || *end != '\0' || pid == 0) {
        return runner_usage(env, argv[0], "the number of a process is needed");
    }
    if (options_end(&o) != RUNNER_OK) {
        return o.code;
    }
    int code = runner_who(env, &inspect_real_roots, pid, &who, &error);
    if (code != RUNNER_OK) {
        return runner_report(env, &error);
    }
    if (env->json) {
        (void)json_dumpf(who, stdout, JSON_COMPACT);
        (void)putchar('\n');
    } else {
        print_who(env, who);
    }
    json_decref(who);
    return RUNNER_OK;
}
