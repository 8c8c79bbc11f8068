#include "runner/doctor.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/control_client.h"
#include "runner/server.h"
#include "runner/text.h"

static const char *next_line(char **rest)
{
    char *line = *rest, *end = line != NULL ? strchr(line, '\n') : NULL;
    if (end != NULL) {
        *end++ = '\0';
    }
    *rest = end;
    return line != NULL ? line : "";
}

// Names and paths may hold bytes that are no text.
static void clean(char *text)
{
    for (; *text != '\0'; text++) {
        unsigned char c = (unsigned char)*text;
        if ((c < ' ' && c != '\n') || c == 0x7f) {
            *text = '?';
        }
    }
}

const char *doctor_id(const char *id, char quoted[4400])
{
    static const char plain[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:@";
    if (id[strspn(id, plain)] == '\0') {
        return id;
    }
    doctor_quote(id, quoted);
    return quoted;
}

void doctor_find(struct doctor *doctor, enum doctor_level level, const char *id,
                 const char *subject, const char *format, ...)
{
    static const char *const levels[] = {"note", "warning", "error"};
    char *text = malloc(16384), *rest = text;
    va_list arguments;
    if (text == NULL) {
        return;
    }
    va_start(arguments, format);
    (void)vsnprintf(text, 16384, format, arguments);
    va_end(arguments);
    clean(text);
    const char *what = next_line(&rest), *why = next_line(&rest), *command = next_line(&rest);
    (void)json_array_append_new(doctor->findings,
                                json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "id", id, "level",
                                          levels[level], "subject", text_json(subject), "what",
                                          text_json(what), "why", text_json(why), "command",
                                          command[0] != '\0' ? text_json(command) : json_null()));
    doctor->count += level != DOCTOR_NOTE;
    free(text);
}

void doctor_checked(struct doctor *doctor, const char *what)
{
    (void)json_array_append_new(doctor->checked, json_string(what));
}

// ------------------------------------------------------------------------------------------------
// The runner
// ------------------------------------------------------------------------------------------------

#define ANSWER_MS 2000

// Those that weaken a promise; the others cost time only.
static void runner_fallbacks(struct doctor *doctor, const json_t *info)
{
    const json_t *name;
    size_t index;
    json_array_foreach(json_object_get(info, "fallbacks"), index, name)
    {
        const char *what = json_string_value(name);
        if (what != NULL && (strcmp(what, pm_fallback_name(PM_FALLBACK_BEST_EFFORT)) == 0 ||
                             strcmp(what, pm_fallback_name(PM_FALLBACK_SIGNAL_BY_NUMBER)) == 0)) {
            doctor_find(doctor, DOCTOR_NOTE, "runner.fallback", what,
                        "the runner has no hold on its holders but their numbers (%s)\nthis kernel "
                        "has no pidfd, or a filter denies it (Seccomp: 2): identities are checked "
                        "directly before each signal instead\ngrep Seccomp: /proc/%lld/status",
                        what, (long long)json_integer_value(json_object_get(info, "pid")));
        }
    }
}

static void runner_counts(struct doctor *doctor, const json_t *info)
{
    const char *version = json_string_value(json_object_get(info, "version"));
    json_int_t leaked = json_integer_value(json_object_get(info, "leaked"));
    json_int_t failures = json_integer_value(json_object_get(info, "registry_failures")) +
                          json_integer_value(json_object_get(info, "log_failures"));
    if (version != NULL && strcmp(version, PM_VERSION_STRING) != 0) {
        doctor_find(doctor, DOCTOR_WARNING, "runner.version", version,
                    "the runner is of version %s, this program of " PM_VERSION_STRING
                    "\nit was started before its file was replaced\n%s upgrade",
                    version, doctor->runner);
    }
    if (leaked > 0) {
        doctor_find(doctor, DOCTOR_ERROR, "zombies", "runner",
                    "the runner has left %lld zombies\nsomething in it starts processes past the "
                    "library: see 'leak' in runner.log, and report it\n%s upgrade",
                    (long long)leaked, doctor->runner);
    }
    if (failures > 0) {
        doctor_find(doctor, DOCTOR_WARNING, "runner.writes", "runner",
                    "the runner could not write %lld records or lines of its log\nthe disk is, or "
                    "was, full, or the folder lost its rights\n%s doctor",
                    (long long)failures, doctor->runner);
    }
}

// A runner that lives and says nothing.
static void silent_runner(struct doctor *doctor, bool nobody)
{
    unsigned long long pid = (unsigned long long)doctor->known.owner.pid;
    const struct inspect_process *process = inspect_find(&doctor->table, doctor->known.owner.pid);
    char subject[32], number[24], text[4600];
    (void)snprintf(subject, sizeof subject, "process %llu", pid);
    (void)snprintf(number, sizeof number, "%llu", pid);
    if (process != NULL && process->stopped) {
        doctor_find(doctor, DOCTOR_ERROR, "runner.silent", subject,
                    "the runner, process %llu, was stopped by a signal\nit owns the registry: no "
                    "other can serve\nkill -CONT %llu",
                    pid, pid);
    } else if (nobody) {
        doctor_find(doctor, DOCTOR_ERROR, "runner.socket", subject,
                    "process %llu owns the registry, and nobody listens at the control socket\nits "
                    "name was removed, or it is about to start or to end\n%s",
                    pid, doctor_command(DOCTOR_LISTEN, number, text));
    } else {
        doctor_find(
            doctor, DOCTOR_ERROR, "runner.silent", subject,
            "the runner, process %llu, does not answer within %d ms\nit hangs, and owns the "
            "registry; sessions do not need it, and the next one finds them\n"
            "%s && %s list",
            pid, ANSWER_MS, doctor_command(DOCTOR_KILL, number, text), doctor->runner);
    }
}

static bool is_ending(const struct runner_error *error)
{
    return strcmp(error->why, STOPS_SESSIONS) == 0 || strcmp(error->why, ENDS_SOON) == 0;
}

// It answers, and not what it was asked.
static void other_answer(struct doctor *doctor, const struct runner_error *error)
{
    unsigned long long pid = (unsigned long long)doctor->known.owner.pid;
    char subject[32];
    (void)snprintf(subject, sizeof subject, "process %llu", pid);
    if (is_ending(error)) {
        doctor_find(doctor, DOCTOR_NOTE, "runner.ending", subject,
                    "the runner, process %llu, takes no more calls\n%s", pid, error->why);
    } else {
        doctor_find(doctor, DOCTOR_ERROR, "runner.silent", subject,
                    "the runner, process %llu, does not tell how it is\n%s: %s\n%s upgrade", pid,
                    error->what, error->why, doctor->runner);
    }
}

// It has too many clients. One of an earlier build says nothing, and ends the connection.
static void crowded_runner(struct doctor *doctor, const struct runner_error *error)
{
    unsigned long long pid = (unsigned long long)doctor->known.owner.pid;
    char subject[32], number[24], text[4600];
    bool says = error->code == RUNNER_REFUSED;
    (void)snprintf(subject, sizeof subject, "process %llu", pid);
    (void)snprintf(number, sizeof number, "%llu", pid);
    doctor_find(doctor, DOCTOR_ERROR, "runner.crowded", subject,
                "the runner, process %llu, lives and takes no more connections\n%s%s\n%s", pid,
                says ? "" : "it ends just now, or has too many clients, of which some have to go: ",
                error->why, says ? error->next : doctor_command(DOCTOR_PROCESS, number, text));
}

// It may have ended since we looked.
static bool still_owns(struct doctor *doctor)
{
    struct pm_registry_owner now = PM_REGISTRY_OWNER_INIT;
    if (pm_registry_owner(doctor->known.registry, &now) == PM_OK &&
        (now.epoch != doctor->known.owner.epoch || now.proof != PM_PROOF_ALIVE)) {
        doctor->known.owner = now;
        doctor->runner_lives = now.proof == PM_PROOF_ALIVE;
        return false;
    }
    return true;
}

static void check_runner(struct doctor *doctor)
{
    struct runner_env quiet = *doctor->env;
    struct runner_error error;
    struct client *client = NULL;
    json_t *info = NULL;
    bool replaced = false;
    char program[4096];
    quiet.no_start = true;
    doctor_checked(doctor, "runner");
    doctor->runner_lives =
        doctor->known.owner_result == PM_OK && doctor->known.owner.proof == PM_PROOF_ALIVE;
    int code = client_connect(&quiet, &client, &error);
    bool nobody = code != RUNNER_OK;
    if (code == RUNNER_OK) {
        code = client_call(client, "runner.info", NULL, ANSWER_MS, &info, &error);
        (void)client_close(client);
    }
    doctor->runner_answers = code == RUNNER_OK;
    if (code == RUNNER_OK) {
        runner_counts(doctor, info);
        runner_fallbacks(doctor, info);
        json_decref(info);
    } else if (doctor->runner_lives && still_owns(doctor)) {
        if (nobody || code == RUNNER_TIMEOUT) {
            silent_runner(doctor, nobody);
        } else if (code == RUNNER_REFUSED || (code == RUNNER_UNREACHABLE && !is_ending(&error))) {
            crowded_runner(doctor, &error);
        } else {
            other_answer(doctor, &error);
        }
    }
    if (doctor->runner_lives &&
        inspect_program(doctor->roots, doctor->known.owner.pid, program, &replaced) && replaced) {
        doctor_find(doctor, DOCTOR_NOTE, "runner.replaced", program,
                    "the file of the runner was replaced while it runs\nit goes on as it was\n"
                    "%s upgrade",
                    doctor->runner);
    }
}

// ------------------------------------------------------------------------------------------------
// All of it
// ------------------------------------------------------------------------------------------------

static json_t *take_report(struct doctor *doctor)
{
    size_t alive = 0;
    for (size_t i = 0; i < doctor->known.records_count; i++) {
        alive += strcmp(doctor->known.records[i].state, "running") == 0 &&
                 doctor->known.records[i].proof == PM_PROOF_ALIVE;
    }
    return json_pack("{s:s, s:o, s:I, s:I, s:o, s:o}", "state_dir", doctor->env->state_dir,
                     "runner",
                     doctor->runner_lives ? json_integer((json_int_t)doctor->known.owner.pid)
                                          : json_null(),
                     "holders", (json_int_t)alive, "problems", (json_int_t)doctor->count,
                     "findings", doctor->findings, "checked", doctor->checked);
}

int runner_doctor(const struct runner_env *env, const struct doctor_options *options,
                  json_t **ret_report, size_t *ret_count, struct runner_error *error)
{
    struct doctor *doctor = calloc(1, sizeof *doctor);
    char quoted[4400];
    int result = doctor == NULL ? PM_ERR_NO_MEMORY : known_read(env, &doctor->known);
    if (result == PM_OK && (result = known_ask(env, &doctor->known, NULL)) != PM_OK) {
        known_clear(&doctor->known);
    }
    if (result != PM_OK) {
        free(doctor);
        return runner_fail(error, RUNNER_FAILED, "doctor\n%s", pm_strerror(result));
    }
    doctor->env = env;
    doctor->roots = options->roots;
    doctor->findings = json_array();
    doctor->checked = json_array();
    doctor_quote(env->state_dir, quoted);
    (void)snprintf(doctor->runner, sizeof doctor->runner, "runner --state %.4300s", quoted);
    (void)inspect_table_read(doctor->roots, &doctor->table);
    check_runner(doctor);
    doctor_state(doctor);
    doctor_records(doctor);
    doctor_pods(doctor);
    doctor_services(doctor);
    doctor_system(doctor, options->probe);
    *ret_count = doctor->count;
    *ret_report = take_report(doctor);
    inspect_table_clear(&doctor->table);
    known_clear(&doctor->known);
    free(doctor);
    return *ret_report != NULL ? RUNNER_OK
                               : runner_fail(error, RUNNER_FAILED, "doctor\nout of memory");
}
