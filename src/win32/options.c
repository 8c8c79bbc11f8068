#include <stdint.h>
#include <stdio.h>

#include "terminal.h"

static int refuse(struct pm_error *err, const char *field, const char *hint)
{
    err->code = PM_ERR_UNSUPPORTED;
    err->stage = PM_STAGE_CHECK;
    (void)snprintf(err->field, sizeof err->field, "%s", field);
    (void)snprintf(err->hint, sizeof err->hint, "%s", hint);
    return err->code;
}

bool pmi_os_process_stopped(struct pmi_os_process *op)
{
    (void)op;
    return false;
}

void pmi_os_process_step_back(struct pmi_os_process *op)
{
    (void)op;
}

static bool fit(const struct pm_job_limits *l)
{
    return l->process_memory <= SIZE_MAX && l->job_memory <= SIZE_MAX &&
           l->process_user_ms <= INT64_MAX / PMI_WIN_TICKS_PER_MS;
}

static int check_limits(const struct pm_spec *s, struct pm_error *err)
{
    const struct pm_job_limits *l = &s->job_limits;
    bool used = l->processes != 0 || l->process_memory != 0 || l->job_memory != 0 ||
                l->process_user_ms != 0;
    if (used && s->mode == PM_MODE_DAEMON) {
        return refuse(err, "job_limits", "the job of a daemon is there to find its tree again");
    }
    if (!fit(l)) {
        (void)refuse(err, "job_limits", "more than the system can count");
        err->code = PM_ERR_INVALID;
        return err->code;
    }
    return PM_OK;
}

int pmi_os_check_options(const struct pm_spec *s, struct pm_error *err)
{
    const struct {
        bool used;
        const char *field, *hint;
    } posix[] = {
        {s->mode == PM_MODE_PTY && !pmi_win_has_terminals(), "mode",
         "pseudoconsoles came with Windows 10, version 1809"},
        {s->group == PM_GROUP_FOREGROUND, "group", "for POSIX: here the console is shared"},
        {s->run_as_user != NULL, "run_as_user", "for POSIX"},
        {s->run_as_group != NULL, "run_as_group", "for POSIX"},
        {s->supplementary_groups != NULL, "supplementary_groups", "for POSIX"},
        {s->groups_of_user, "groups_of_user", "for POSIX"},
        {s->set_umask, "set_umask", "for POSIX"},
        {s->rlimits_count != 0, "rlimits", "for POSIX: use job_limits"},
        {s->set_nice, "set_nice", "for POSIX: use priority_class"},
        {s->new_session, "new_session", "for POSIX"},
        {s->no_new_privileges, "no_new_privileges", "for Linux"},
        {s->cgroup != NULL, "cgroup", "for Linux: a job is more"},
    };
    for (size_t i = 0; i < sizeof posix / sizeof posix[0]; i++) {
        if (posix[i].used) {
            return refuse(err, posix[i].field, posix[i].hint);
        }
    }
    return check_limits(s, err);
}
