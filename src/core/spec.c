#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"
#include "core/env.h"

// From the caller's Spec to a plan that a backend can carry out: checked, resolved, with every
// default written out.

static int refuse(struct pm_error *err, int code, const char *field, const char *hint)
{
    (void)snprintf(err->hint, sizeof err->hint, "%s", hint);
    return pmi_set_error(err, code, PM_STAGE_CHECK, field);
}

static int bad(struct pm_error *err, const char *field, const char *hint)
{
    return refuse(err, PM_ERR_INVALID, field, hint);
}

static int unsupported(struct pm_error *err, const char *field, const char *hint)
{
    return refuse(err, PM_ERR_UNSUPPORTED, field, hint);
}

static bool length_within(const char *text, size_t low, size_t high)
{
    size_t length = text != NULL ? strlen(text) : 0;
    return text != NULL && length >= low && length <= high;
}

static int check_ranges(const struct pm_spec *s, struct pm_error *err)
{
    if (s->terminal_columns > PMI_TERMINAL_MAX || s->terminal_rows > PMI_TERMINAL_MAX) {
        return bad(err,
                   s->terminal_columns > PMI_TERMINAL_MAX ? "terminal_columns" : "terminal_rows",
                   "1 to 32767 characters; 0 for the default");
    }
    if (s->supplementary_groups_count != 0 && s->supplementary_groups == NULL) {
        return bad(err, "supplementary_groups",
                   "supplementary_groups_count says that there are some");
    }
    if (s->rlimits_count != 0 && s->rlimits == NULL) {
        return bad(err, "rlimits", "rlimits_count says that there are some");
    }
    for (size_t i = 0; i < s->rlimits_count; i++) {
        if (s->rlimits[i].soft > s->rlimits[i].hard) {
            return bad(err, "rlimits", "a soft limit above its hard one");
        }
        for (size_t k = 0; k < i; k++) {
            if (s->rlimits[k].resource == s->rlimits[i].resource) {
                return bad(err, "rlimits", "a resource is named twice");
            }
        }
    }
    if (s->set_umask ? s->umask_value > 0777 : s->umask_value != 0) {
        return bad(err, "umask_value", s->set_umask ? "0 to 0777" : "set_umask is not set");
    }
    if (s->set_nice ? s->nice_value < -20 || s->nice_value > 19 : s->nice_value != 0) {
        return bad(err, "nice_value", s->set_nice ? "-20 to 19" : "set_nice is not set");
    }
    if (s->priority_class < PM_PRIORITY_DEFAULT || s->priority_class > PM_PRIORITY_REALTIME) {
        return bad(err, "priority_class", "no such class");
    }
    return PM_OK;
}

// What two fields together do not allow.
static int check_together(const struct pm_spec *s, struct pm_error *err)
{
    bool terminal = s->mode == PM_MODE_PTY;
    if (!terminal && (s->terminal_columns != 0 || s->terminal_rows != 0)) {
        return bad(err, s->terminal_columns != 0 ? "terminal_columns" : "terminal_rows",
                   "for PTY mode alone");
    }
    if (terminal && s->group != PM_GROUP_OWN) {
        return unsupported(err, "group", "the leader of a session has a group of its own");
    }
    if (s->new_session && s->group != PM_GROUP_OWN) {
        return bad(err, "new_session", "the leader of a session has a group of its own");
    }
    if (s->groups_of_user && (s->run_as_user == NULL || s->supplementary_groups != NULL)) {
        return bad(err, "groups_of_user",
                   "goes with run_as_user, in place of supplementary_groups");
    }
    if (s->raw_command_line != NULL && s->argv != NULL) {
        return bad(err, "raw_command_line", "in place of argv");
    }
    return PM_OK;
}

static int check_daemon(const struct pm_spec *s, struct pm_error *err)
{
    static const char daemons_alone[] = "for daemons alone";
    static const char lives_on[] = "a daemon outlives its parent, and what it started outlives it";
    if (s->mode != PM_MODE_DAEMON) {
        if (s->key != NULL || s->label != NULL) {
            return bad(err, s->key != NULL ? "key" : "label", daemons_alone);
        }
        return s->accept_outer_job ? bad(err, "accept_outer_job", daemons_alone) : PM_OK;
    }
    if (!length_within(s->key, 1, PMI_KEY_MAX)) {
        return bad(err, "key", "1 to 128 bytes");
    }
    if (s->label != NULL && !length_within(s->label, 0, PMI_LABEL_MAX)) {
        return bad(err, "label", "1024 bytes at most");
    }
    if (s->die_with_parent) {
        return unsupported(err, "die_with_parent", lives_on);
    }
    if (s->kill_tree_on_exit) {
        return unsupported(err, "kill_tree_on_exit", lives_on);
    }
    return s->group != PM_GROUP_OWN ? unsupported(err, "group", "a daemon has a group of its own")
                                    : PM_OK;
}

static int check_slot(const struct pm_stdio *slot, int index, enum pm_mode mode)
{
    if (mode == PM_MODE_PTY && index != PM_STDERR && slot->kind > PM_STDIO_DEFAULT &&
        slot->kind < PM_STDIO_TERMINAL) {
        return PM_ERR_UNSUPPORTED;
    }
    switch (slot->kind) {
    case PM_STDIO_DEFAULT:
    case PM_STDIO_INHERIT:
    case PM_STDIO_NULL:
        return PM_OK;
    case PM_STDIO_PIPE:
        return mode == PM_MODE_DAEMON ? PM_ERR_UNSUPPORTED : PM_OK;
    case PM_STDIO_FILE_READ:
        return index == PM_STDIN && slot->path != NULL ? PM_OK : PM_ERR_INVALID;
    case PM_STDIO_FILE_TRUNCATE:
    case PM_STDIO_FILE_APPEND:
        return index != PM_STDIN && slot->path != NULL ? PM_OK : PM_ERR_INVALID;
    case PM_STDIO_NATIVE:
        return slot->native != PM_NATIVE_INVALID ? PM_OK : PM_ERR_INVALID;
    case PM_STDIO_STDOUT:
        return index == PM_STDERR ? PM_OK : PM_ERR_INVALID;
    case PM_STDIO_TERMINAL:
        return mode == PM_MODE_PTY ? PM_OK : PM_ERR_INVALID;
    }
    return PM_ERR_INVALID;
}

static const char *slot_hint(const struct pm_stdio *slot, int index, enum pm_mode mode)
{
    if (mode == PM_MODE_PTY && index != PM_STDERR) {
        return "in PTY mode stdin and stdout are the terminal";
    }
    switch (slot->kind) {
    case PM_STDIO_PIPE:
        return "a daemon outlives who would hold the other end of a pipe";
    case PM_STDIO_FILE_READ:
    case PM_STDIO_FILE_TRUNCATE:
    case PM_STDIO_FILE_APPEND:
        return slot->path == NULL  ? "no path"
               : index == PM_STDIN ? "stdin is read from"
                                   : "stdout and stderr are written to";
    case PM_STDIO_NATIVE:
        return "no descriptor or handle";
    case PM_STDIO_STDOUT:
        return "for stderr alone";
    case PM_STDIO_TERMINAL:
        return "for PTY mode alone";
    default:
        return "no such kind";
    }
}

static int check_slots(const struct pm_spec *s, struct pm_error *err)
{
    const struct pm_stdio *slots[3] = {&s->stdin_slot, &s->stdout_slot, &s->stderr_slot};
    static const char *const names[3] = {"stdin_slot", "stdout_slot", "stderr_slot"};
    for (int i = 0; i < 3; i++) {
        int result = check_slot(slots[i], i, s->mode);
        if (result != PM_OK) {
            return refuse(err, result, names[i], slot_hint(slots[i], i, s->mode));
        }
    }
    if (s->extras_count != 0 && s->extras == NULL) {
        return bad(err, "extras", "extras_count says that there are some");
    }
    return PM_OK;
}

static int check_spec(const struct pm_spec *s, struct pm_error *err)
{
    if (!length_within(s->owner, 1, PMI_OWNER_MAX)) {
        return bad(err, "owner", "1 to 255 bytes");
    }
    if (s->program == NULL || s->program[0] == '\0') {
        return bad(err, "program", "a name or a path");
    }
    if (s->argv != NULL && s->argv[0] == NULL) {
        return bad(err, "argv", "without argv[0]; NULL stands for the program alone");
    }
    if (s->mode < PM_MODE_NORMAL || s->mode > PM_MODE_DAEMON) {
        return bad(err, "mode", "no such mode");
    }
    if (s->env_base < PM_ENV_INHERIT || s->env_base > PM_ENV_EMPTY) {
        return bad(err, "env_base", "no such base");
    }
    if (s->group < PM_GROUP_OWN || s->group > PM_GROUP_FOREGROUND) {
        return bad(err, "group", "no such group");
    }
    if (s->containment < PM_CONTAIN_DEFAULT || s->containment > PM_CONTAIN_JOB) {
        return bad(err, "containment", "no such containment");
    }
    if (pmi_stop_plan_check(&s->stop) != PM_OK) {
        return bad(err, "stop", "more steps than a plan has, or an unknown action or scope");
    }
    int result = check_ranges(s, err);
    if (result == PM_OK) {
        result = check_together(s, err);
    }
    if (result == PM_OK) {
        result = check_daemon(s, err);
    }
    if (result == PM_OK) {
        result = check_slots(s, err);
    }
    return result == PM_OK ? pmi_os_check_options(s, err) : result;
}

static int resolve_env(struct pmi_start *start, struct pm_error *err)
{
    static const char *const empty[] = {NULL};
    struct pmi_plan *plan = &start->plan;
    const struct pm_spec *s = &start->spec;
    if (s->env_base == PM_ENV_INHERIT) {
        int result = pmi_os_environ(&start->os_env);
        if (result != PM_OK) {
            return pmi_set_error(err, result, PM_STAGE_CHECK, "env_base");
        }
    }
    const char *const *base = start->os_env != NULL ? start->os_env : empty;
    if (s->env == NULL && !pmi_os_env_folds_case()) {
        plan->env = base;
        return PM_OK;
    }
    const char *culprit = NULL;
    int result = pmi_env_merge(base, s->env != NULL ? s->env : empty, pmi_os_env_folds_case(),
                               &start->env, &culprit);
    if (result != PM_OK) {
        if (culprit != NULL) {
            (void)snprintf(err->hint, sizeof err->hint, "an entry without a name: %s", culprit);
        }
        return pmi_set_error(err, result, PM_STAGE_CHECK, "env");
    }
    plan->env = (const char *const *)start->env;
    return PM_OK;
}

static int resolve_paths(struct pmi_start *start, struct pm_error *err)
{
    struct pmi_plan *plan = &start->plan;
    const struct pm_spec *s = &start->spec;
    uint32_t os_code = 0;
    if (s->cwd != NULL || s->mode == PM_MODE_DAEMON) {
        int result = pmi_os_absolute(s->cwd, &start->cwd, &os_code);
        if (result != PM_OK) {
            err->os_code = os_code;
            return pmi_set_error(err, result, PM_STAGE_CHDIR, "cwd");
        }
        plan->cwd = start->cwd;
    }
    int result = pmi_os_search(s, start->cwd, plan->env, &start->program, err);
    if (result != PM_OK) {
        err->code = result;
        return result;
    }
    plan->program = start->program;
    return PM_OK;
}

static void fill_plan(pm_manager *m, struct pmi_start *start)
{
    struct pmi_plan *plan = &start->plan;
    const struct pm_spec *s = &start->spec;
    int64_t now = pmi_now_ms();
    plan->mode = s->mode;
    plan->slots[0] = s->stdin_slot;
    plan->slots[1] = s->stdout_slot;
    plan->slots[2] = s->stderr_slot;
    for (int i = 0; i < 3; i++) {
        if (plan->slots[i].kind == PM_STDIO_DEFAULT) {
            plan->slots[i].kind = s->mode == PM_MODE_DAEMON ? PM_STDIO_NULL
                                  : s->mode == PM_MODE_PTY  ? PM_STDIO_TERMINAL
                                                            : PM_STDIO_INHERIT;
        }
    }
    start->argv_default[0] = s->program;
    plan->argv = s->argv != NULL ? s->argv : start->argv_default;
    plan->extras = s->extras;
    plan->extras_count = s->extras_count;
    plan->group = s->group;
    plan->die_with_parent = s->die_with_parent;
    plan->own_process = m->options.own_process;
    plan->accept_outer_job = s->accept_outer_job;
    plan->columns = s->terminal_columns != 0 ? s->terminal_columns : PMI_DEFAULT_COLUMNS;
    plan->rows = s->terminal_rows != 0 ? s->terminal_rows : PMI_DEFAULT_ROWS;
    plan->spec = s;
    uint32_t ms = s->start_timeout_ms != 0 ? s->start_timeout_ms : PMI_DEFAULT_START_MS;
    plan->deadline = now + ms;
}

int pmi_start_prepare(pm_manager *m, const struct pm_spec *spec, struct pmi_start *start,
                      struct pm_error *err)
{
    memset(start, 0, sizeof *start);
    if (pmi_copy_in(&start->spec, spec, sizeof start->spec) != PM_OK) {
        return bad(err, "size", "not of this version, and what is more is not zero");
    }
    int result = check_spec(&start->spec, err);
    if (result == PM_OK && start->spec.mode == PM_MODE_DAEMON && !m->registry.open) {
        result = refuse(err, PM_ERR_NO_REGISTRY, "mode", "name a registry_dir to pm_open()");
    }
    if (result == PM_OK) {
        fill_plan(m, start);
        enum pm_containment asked = start->spec.containment;
        if (asked > PM_CONTAIN_NONE && asked > pmi_os_containment_offered(&start->plan)) {
            result = unsupported(err, "containment", "more than this system offers here");
        }
    }
    if (result == PM_OK) {
        result = resolve_env(start, err);
    }
    if (result == PM_OK) {
        result = resolve_paths(start, err);
    }
    if (result != PM_OK) {
        pmi_start_clear(start);
    }
    return result;
}

void pmi_start_clear(struct pmi_start *start)
{
    if (start->os_env != NULL) {
        pmi_os_environ_free(start->os_env);
    }
    free(start->env);
    free(start->program);
    free(start->cwd);
    memset(start, 0, sizeof *start);
}
