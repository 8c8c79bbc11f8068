// What doctor hears from the pods, each asked for its status without being disturbed.
#include <stdio.h>
#include <string.h>

#include <uv.h>

#include "poddaemon/os.h"
#include "runner/doctor.h"
#include "runner/session.h"

#define LEAVE_MS 1000
#define LOOK_MS 10

static bool is_in(const char *folder, const char *name)
{
    char path[4200];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return doctor_exists(path);
}

// It was asked while it was about to end: that was written down, or all was removed, before.
static bool has_left(const struct doctor *doctor, const struct known_record *record)
{
    struct inspect_process process;
    char folder[4096];
    session_folder(doctor->env->state_dir, record->id, folder);
    bool over =
        !doctor_exists(folder) || is_in(folder, POD_FILE_EXIT) || is_in(folder, POD_FILE_CLAIMED);
    for (int waited = 0; over && waited < LEAVE_MS; waited += LOOK_MS) {
        if (!inspect_process_read(doctor->roots, record->pid, &process) || process.zombie) {
            return true;
        }
        uv_sleep(LOOK_MS);
    }
    return false;
}

static void check_answer(struct doctor *doctor, const struct known_record *record)
{
    unsigned long long pid = (unsigned long long)record->pid;
    char quoted[4400];
    if (has_left(doctor, record)) {
        return;
    }
    const struct inspect_process *process = inspect_find(&doctor->table, record->pid);
    if (process != NULL && process->stopped) {
        doctor_find(doctor, DOCTOR_ERROR, "pod.silent", record->id,
                    "the holder of session '%s', process %llu, was stopped by a signal\nits child "
                    "waits as soon as its output is not read\nkill -CONT %llu",
                    record->id, pid, pid);
        return;
    }
    switch (record->answer) {
    case KNOWN_SILENT:
        doctor_find(doctor, DOCTOR_ERROR, "pod.silent", record->id,
                    "the holder of session '%s', process %llu, does not answer: %s\nit hangs; its "
                    "child may be fine\n%s kill %s",
                    record->id, pid, record->detail, doctor->runner, doctor_id(record->id, quoted));
        break;
    case KNOWN_NOBODY:
        doctor_find(doctor, DOCTOR_ERROR, "pod.socket", record->id,
                    "the holder of session '%s', process %llu, lives, and nobody listens at its "
                    "socket (%s)\nthe name was removed: it makes it anew when it is told\n"
                    "kill -USR1 %llu",
                    record->id, pid, record->detail, pid);
        break;
    case KNOWN_NO_TOKEN:
    case KNOWN_REFUSED:
        doctor_find(
            doctor, DOCTOR_ERROR, "pod.refused", record->id,
            "the holder of session '%s', process %llu, cannot be asked: %s\nits token or its "
            "folder is not what it was; it can only be ended\n%s kill %s",
            record->id, pid, record->detail, doctor->runner, doctor_id(record->id, quoted));
        break;
    default:
        break;
    }
}

static void check_version(struct doctor *doctor, const struct known_record *record)
{
    char program[4096], quoted[4400];
    bool replaced = false;
    if (record->version == 0) {
        doctor_find(doctor, DOCTOR_WARNING, "pod.version", record->id,
                    "the holder of session '%s' speaks versions %u to %u of the protocol, this "
                    "program %u to %u\nit can be asked, stopped and killed, not attached to\n"
                    "%s stop %s",
                    record->id, record->version_min, record->version_max, (unsigned)POD_VERSION_MIN,
                    (unsigned)POD_VERSION_MAX, doctor->runner, doctor_id(record->id, quoted));
    } else if (strcmp(record->build, PM_VERSION_STRING) != 0 || record->version < POD_VERSION_MAX) {
        doctor_find(
            doctor, DOCTOR_NOTE, "pod.version", record->id,
            "the holder of session '%s' is of build %s, version %u of the protocol\nit works; "
            "new sessions get this build, " PM_VERSION_STRING,
            record->id, record->build, record->version);
    } else if (inspect_program(doctor->roots, record->pid, program, &replaced) && replaced) {
        doctor_find(
            doctor, DOCTOR_NOTE, "pod.version", record->id,
            "the program of the holder of session '%s' was replaced while it runs: '%s'\nit "
            "works; new sessions get the new one",
            record->id, program);
    }
}

static void check_faults(struct doctor *doctor, const struct known_record *record)
{
    const uint32_t *faults = record->pod.faults;
    char folder_hint[64] = "";
    if (faults[POD_FAULT_LOG] > 0 || faults[POD_FAULT_RECORD] > 0) {
        (void)snprintf(folder_hint, sizeof folder_hint, "; the disk is, or was, full");
    }
    char quoted[4400];
    for (size_t i = 0; i < POD_FAULTS; i++) {
        if (faults[i] > 0) {
            doctor_find(doctor, DOCTOR_WARNING, "pod.faults", record->id,
                        "the holder of session '%s' has met troubles: accept %u, client %u, child "
                        "%u, log %u, record %u\nit has gone on after each%s\n%s get %s",
                        record->id, faults[0], faults[1], faults[2], faults[3], faults[4],
                        folder_hint, doctor->runner, doctor_id(record->id, quoted));
            break;
        }
    }
}

static void check_child(struct doctor *doctor, const struct known_record *record)
{
    unsigned long long pid = (unsigned long long)record->pod.child_pid;
    const struct inspect_process *child = inspect_find(&doctor->table, record->pod.child_pid);
    if (child != NULL && child->stopped) {
        doctor_find(doctor, DOCTOR_WARNING, "child.stopped", record->id,
                    "the child of session '%s', process %llu, was stopped by a signal\nit says "
                    "nothing until it is told to go on\nkill -CONT %llu",
                    record->id, pid, pid);
    }
    if (record->pod.state == POD_SESSION_RUNNING && record->pod.input_queued > 0 &&
        !record->pod.writer) {
        doctor_find(doctor, DOCTOR_NOTE, "child.deaf", record->id,
                    "the child of session '%s' has not read %u bytes that were typed\nit reads its "
                    "input when it likes",
                    record->id, record->pod.input_queued);
    }
}

void doctor_pods(struct doctor *doctor)
{
    doctor_checked(doctor, "pods");
    for (size_t i = 0; i < doctor->known.records_count; i++) {
        const struct known_record *record = &doctor->known.records[i];
        if (record->answer == KNOWN_ANSWERED) {
            check_version(doctor, record);
            check_faults(doctor, record);
            check_child(doctor, record);
        } else if (record->answer != KNOWN_NOT_ASKED) {
            check_answer(doctor, record);
        }
    }
}
