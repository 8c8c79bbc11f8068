#include <stdio.h>
#include <string.h>

#include "runner/doctor.h"

const char help_doctor[] =
    "Looks at all that can go wrong and changes nothing: rights and room of the state folder, the\n"
    "runner and its socket, records, folders, each holder, services and their file, who collects\n"
    "the dead here, and what would end the holders: a service manager, a logout, a job. Says for\n"
    "each find what it is, why, and the command that mends it; docs/runbook.md tells more. Works\n"
    "without a runner, and starts none.\n"
    "\n"
    "  --no-probe  do not start a process that ends at once, to see whether it is collected\n"
    "\n"
    "Exit code: 0 nothing to mend (notes do not count), 1 something to mend.\n";

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL ? text : "";
}

static void print_report(const json_t *report)
{
    const json_t *findings = json_object_get(report, "findings");
    const json_t *checked = json_object_get(report, "checked");
    size_t i;
    json_t *item;
    json_array_foreach(findings, i, item)
    {
        (void)printf("%-8s %-20s %s\n", text_of(item, "level"), text_of(item, "id"),
                     text_of(item, "what"));
        (void)printf("%29s %s\n", "why:", text_of(item, "why"));
        if (text_of(item, "command")[0] != '\0') {
            (void)printf("%29s %s\n", "do:", text_of(item, "command"));
        }
    }
    (void)printf("%lld to mend, %llu found; looked at:",
                 (long long)json_integer_value(json_object_get(report, "problems")),
                 (unsigned long long)json_array_size(findings));
    json_array_foreach(checked, i, item)
    {
        (void)printf("%s %s", i > 0 ? "," : "", json_string_value(item));
    }
    (void)putchar('\n');
}

int cli_doctor(const struct runner_env *env, int argc, char **argv)
{
    struct doctor_options options = {&inspect_real_roots, true};
    struct runner_error error;
    json_t *report;
    size_t count = 0;
    int verb = doctor_verb(env, argc, argv);
    if (verb >= 0) {
        return verb;
    }
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--no-probe") != 0) {
            return runner_usage(env, argv[0], "no such option: %s", argv[i]);
        }
        options.probe = false;
    }
    int code = runner_doctor(env, &options, &report, &count, &error);
    if (code != RUNNER_OK) {
        return runner_report(env, &error);
    }
    if (env->json) {
        (void)json_dumpf(report, stdout, JSON_COMPACT);
        (void)putchar('\n');
    } else {
        print_report(report);
    }
    json_decref(report);
    return count > 0 ? RUNNER_FAILED : RUNNER_OK;
}
