// Who would end the holders: a job around them, the logoff.
#include "runner/doctor.h"

#include <stdio.h>
#include <string.h>
#include <windows.h>

#include "poddaemon/os.h"

bool doctor_is_private(const char *path, char why[256], char command[4600])
{
    struct pod_dir dir = POD_DIR_INIT;
    int result = pod_dir_open(path, &dir);
    pod_dir_close(&dir);
    if (result != PM_ERR_ACCESS) {
        return true; // Files have the rights of their folders here.
    }
    (void)snprintf(why, 256, "it belongs to another user, or others have rights in it");
    char show[4600];
    (void)doctor_command(DOCTOR_FILE, path, show);
    (void)snprintf(command, 4600,
                   "%.2000s /setowner \"%%USERNAME%%\" && %.2000s /inheritance:r /grant:r "
                   "\"%%USERNAME%%\":(OI)(CI)F",
                   show, show);
    return false;
}

bool doctor_is_writable(const char *path, char why[256], char command[4600])
{
    (void)path;
    (void)why;
    (void)command;
    return true; // Only a try would tell what its access list allows, and that changes something.
}

int doctor_verb(const struct runner_env *env, int argc, char **argv)
{
    (void)env;
    (void)argc;
    (void)argv;
    return -1;
}

// ------------------------------------------------------------------------------------------------
// Jobs
// ------------------------------------------------------------------------------------------------

static void find_job(struct doctor *doctor, const char *subject, const char *why)
{
    doctor_find(doctor, DOCTOR_WARNING, "job", subject,
                "%s\n%s\nschtasks /Create /F /TN processmgr-runner /SC ONCE /ST 00:00 /TR "
                "\"\\\"%s\\\" --state \\\"%s\\\" serve\" && schtasks /Run /TN processmgr-runner",
                subject, why, doctor->env->program, doctor->env->state_dir);
}

// What a runner that is started from here would meet. Of jobs in jobs only the innermost is shown.
static void check_own_job(struct doctor *doctor)
{
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION info;
    BOOL inside = FALSE;
    memset(&info, 0, sizeof info);
    if (doctor->runner_lives || !IsProcessInJob(GetCurrentProcess(), NULL, &inside) || !inside ||
        !QueryInformationJobObject(NULL, JobObjectExtendedLimitInformation, &info, sizeof info,
                                   NULL)) {
        return;
    }
    DWORD flags = info.BasicLimitInformation.LimitFlags;
    const DWORD out = JOB_OBJECT_LIMIT_BREAKAWAY_OK | JOB_OBJECT_LIMIT_SILENT_BREAKAWAY_OK;
    if ((flags & out) == 0) {
        find_job(doctor, "a runner that is started from here cannot make sessions",
                 "the job around this shell lets no process leave (no breakaway): a start fails "
                 "with PM_ERR_NOT_DETACHABLE");
    }
}

static void check_jobs(struct doctor *doctor)
{
    doctor_checked(doctor, "job");
    for (size_t i = 0; i < doctor->known.records_count; i++) {
        const struct known_record *record = &doctor->known.records[i];
        char subject[200];
        if (record->proof == PM_PROOF_ALIVE && record->detachment == PM_DETACH_IN_JOB) {
            (void)snprintf(subject, sizeof subject, "the holder of session '%s' is in a job",
                           record->id);
            find_job(doctor, subject, "who ends that job ends the session");
        }
    }
    check_own_job(doctor);
}

// ------------------------------------------------------------------------------------------------
// Logoff
// ------------------------------------------------------------------------------------------------

// At the logoff Windows ends what is in the session of the login, detached or not. Session 0 is
// that of services and of tasks that run without a login.
static void check_logoff(struct doctor *doctor)
{
    DWORD session = 0;
    doctor_checked(doctor, "logoff");
    for (size_t i = 0; i < doctor->known.records_count; i++) {
        const struct known_record *record = &doctor->known.records[i];
        if (record->proof == PM_PROOF_ALIVE && ProcessIdToSessionId((DWORD)record->pid, &session) &&
            session != 0) {
            doctor_find(
                doctor, DOCTOR_WARNING, "logoff", record->id,
                "the holder of session '%s' is in login session %lu\nWindows ends it at the "
                "logoff\nschtasks /Create /F /TN processmgr-runner /SC ONSTART /RU "
                "\"%%USERNAME%%\" /RP * /TR \"\\\"%s\\\" --state \\\"%s\\\" serve\"",
                record->id, (unsigned long)session, doctor->env->program, doctor->env->state_dir);
            return; // It is the same for all.
        }
    }
}

void doctor_system(struct doctor *doctor, bool probe)
{
    (void)probe; // Windows has no zombies.
    check_jobs(doctor);
    check_logoff(doctor);
}
