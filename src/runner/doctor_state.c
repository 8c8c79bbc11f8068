// What doctor finds on the disk: the state folder, the registry, the folders of sessions.
#include <stdio.h>
#include <string.h>

#include "runner/doctor.h"
#include "runner/os.h"
#include "runner/service_config.h"
#include "runner/session.h"

#define SPACE_ERROR (1024u * 1024u)
#define SPACE_WARNING (32u * 1024u * 1024u)

// ------------------------------------------------------------------------------------------------
// The state folder
// ------------------------------------------------------------------------------------------------

bool doctor_exists(const char *path)
{
    uv_fs_t request;
    int result = uv_fs_lstat(NULL, &request, path, NULL);
    uv_fs_req_cleanup(&request);
    return result == 0;
}

static void check_private(struct doctor *doctor, const char *path)
{
    char why[256], command[4600];
    if (doctor_exists(path) && !doctor_is_private(path, why, command)) {
        doctor_find(doctor, DOCTOR_ERROR, "rights", path,
                    "'%s' is not ours alone\n%s; nothing in it is trusted\n%s", path, why, command);
    }
}

static bool check_writable(struct doctor *doctor, const char *path)
{
    char why[256], command[4600];
    bool is_writable = doctor_is_writable(path, why, command);
    if (!is_writable) {
        doctor_find(doctor, DOCTOR_ERROR, "rights", path,
                    "'%s' cannot be written to\n%s; no runner can do its work there\n%s", path, why,
                    command);
    }
    return is_writable;
}

// It is taken as it is, wherever it lies and whoever can read it.
static void check_services(struct doctor *doctor)
{
    uv_fs_t request;
    char path[4096], why[256], command[4600];
    service_file_path(doctor->env->state_dir, path);
    bool there = uv_fs_realpath(NULL, &request, path, NULL) == 0;
    if (there) {
        (void)snprintf(path, sizeof path, "%.4000s", (const char *)request.ptr);
    }
    uv_fs_req_cleanup(&request);
    if (there && !doctor_is_private(path, why, command)) {
        doctor_find(doctor, DOCTOR_WARNING, "rights", path,
                    "'%s' is not ours alone\n%s; the variables of services may be secrets\n%s",
                    path, why, command);
    }
}

static void check_rights(struct doctor *doctor)
{
    static const char *const below[] = {"registry", "sessions", "registry/exits",
                                        "registry/quarantine", "runner.log"};
    char path[4300];
    doctor_checked(doctor, "rights");
    check_private(doctor, doctor->env->state_dir);
    for (size_t i = 0; i < sizeof below / sizeof below[0]; i++) {
        (void)snprintf(path, sizeof path, "%.4000s/%s", doctor->env->state_dir, below[i]);
        check_private(doctor, path);
    }
    for (size_t i = 0; i < doctor->known.folders_count; i++) {
        (void)snprintf(path, sizeof path, "%.4000s", doctor->known.folders[i].path);
        check_private(doctor, path);
        (void)snprintf(path, sizeof path, "%.4000s/token", doctor->known.folders[i].path);
        check_private(doctor, path);
    }
    check_services(doctor);
}

// On a disk that is mounted read-only once, and not of each folder.
static void check_folders(struct doctor *doctor)
{
    static const char *const below[] = {"registry", "sessions"};
    char path[4300];
    bool is_writable = check_writable(doctor, doctor->env->state_dir);
    for (size_t i = 0; is_writable && i < sizeof below / sizeof below[0]; i++) {
        (void)snprintf(path, sizeof path, "%.4000s/%s", doctor->env->state_dir, below[i]);
        (void)check_writable(doctor, path);
    }
    for (size_t i = 0; is_writable && i < doctor->known.folders_count; i++) {
        (void)check_writable(doctor, doctor->known.folders[i].path);
    }
}

// The ended session that takes most of the room.
static const struct known_folder *largest(const struct known *known)
{
    const struct known_folder *found = NULL;
    for (size_t i = 0; i < known->folders_count; i++) {
        const struct known_folder *folder = &known->folders[i];
        if ((folder->exit || folder->claimed) && folder->id[0] != '\0' &&
            (found == NULL || folder->bytes > found->bytes)) {
            found = folder;
        }
    }
    return found;
}

static void check_space(struct doctor *doctor)
{
    uv_fs_t request;
    char command[4900];
    doctor_checked(doctor, "space");
    if (uv_fs_statfs(NULL, &request, doctor->env->state_dir, NULL) != 0) {
        uv_fs_req_cleanup(&request);
        return;
    }
    const uv_statfs_t *fs = request.ptr;
    uint64_t space = fs->f_bavail * fs->f_bsize;
    bool no_names = fs->f_files > 0 && fs->f_ffree == 0;
    const struct known_folder *folder = largest(&doctor->known);
    if (folder != NULL) {
        char quoted[4400];
        (void)snprintf(command, sizeof command, "%s destroy %s", doctor->runner,
                       doctor_id(folder->id, quoted));
    } else {
        (void)doctor_command(DOCTOR_SPACE, doctor->env->state_dir, command);
    }
    if (space < SPACE_WARNING || no_names) {
        doctor_find(doctor, space < SPACE_ERROR || no_names ? DOCTOR_ERROR : DOCTOR_WARNING, "disk",
                    doctor->env->state_dir,
                    "the disk of '%s' has %llu KiB left%s\nsessions go on, but records of their "
                    "ends, logs and new sessions need room\n%s",
                    doctor->env->state_dir, (unsigned long long)(space / 1024),
                    no_names ? ", and no room for another file" : "", command);
    }
    uv_fs_req_cleanup(&request);
}

void doctor_state(struct doctor *doctor)
{
    char epoch[4300];
    bool there = doctor_exists(doctor->env->state_dir);
    (void)snprintf(epoch, sizeof epoch, "%.4100s/epoch", doctor->env->state_dir);
    if (!doctor_exists(epoch) && !doctor_exists(doctor->known.registry)) {
        doctor_find(doctor, DOCTOR_NOTE, "state.none", doctor->env->state_dir,
                    "there is %s '%s'\nno runner has worked here yet\n%s create ID",
                    there ? "nothing of a runner in" : "no folder", doctor->env->state_dir,
                    doctor->runner);
    }
    if (!there) {
        return;
    }
    check_rights(doctor);
    check_folders(doctor);
    check_space(doctor);
}

// ------------------------------------------------------------------------------------------------
// The registry
// ------------------------------------------------------------------------------------------------

static void check_owner(struct doctor *doctor)
{
    const struct known *known = &doctor->known;
    char path[4300], lock[4300], show[4600];
    (void)snprintf(path, sizeof path, "%.4100s/s", doctor->env->state_dir);
    (void)snprintf(lock, sizeof lock, "%.4100s/lock", known->registry);
    (void)doctor_command(DOCTOR_FILE, lock, show);
    if (known->owner_result == PM_ERR_CORRUPT) {
        doctor_find(doctor, DOCTOR_WARNING, "registry.lock", known->registry,
                    "the lock file of '%s' is damaged\nthe next runner writes it anew; if it is no "
                    "plain file, it is in the way\n%s && %s list",
                    known->registry, show, doctor->runner);
    }
    if (known->owner_result == PM_OK && known->owner.proof == PM_PROOF_UNPROVEN) {
        doctor_find(doctor, DOCTOR_WARNING, "registry.lock", known->registry,
                    "it cannot be told whether process %llu, the owner of the registry, lives\nit "
                    "is of another pid namespace, or hidden from us\n%s",
                    (unsigned long long)known->owner.pid, show);
    }
    if (known->owner_result == PM_OK && known->owner.proof == PM_PROOF_DEAD) {
        doctor_find(doctor, DOCTOR_NOTE, "registry.owner", known->registry,
                    "no runner serves; process %llu, which did, is gone\nsessions go on; the next "
                    "runner takes over by itself\n%s list",
                    (unsigned long long)known->owner.pid, doctor->runner);
    }
    if (!doctor->runner_lives && !doctor->runner_answers && doctor_exists(path)) {
        doctor_find(doctor, DOCTOR_NOTE, "runner.stale", path,
                    "the control socket '%s' is left from a runner that is gone\nthe next runner "
                    "replaces it\n%s list",
                    path, doctor->runner);
    }
}

static void check_untrusted(struct doctor *doctor, const struct known_record *record)
{
    char path[4700], remove[4600];
    (void)snprintf(path, sizeof path, "%.3900s/quarantine/%.300s", doctor->known.registry,
                   record->file);
    if (doctor_exists(path)) {
        doctor_find(doctor, DOCTOR_ERROR, "record.quarantined", record->file,
                    "a record was set aside: '%s'%s%s\n%s; nothing was signalled on its word: if "
                    "its holder lives, `runner list` still shows the session\n%s",
                    record->file, record->id[0] != '\0' ? ", of session " : "", record->id,
                    record->problem, doctor_command(DOCTOR_REMOVE, path, remove));
    } else {
        doctor_find(doctor, DOCTOR_ERROR, "record.damaged", record->file,
                    "a record is damaged: '%s'\n%s; a runner that starts sets it aside\n"
                    "%s%s%s list",
                    record->file, record->problem, doctor->runner_lives ? doctor->runner : "",
                    doctor->runner_lives ? " shutdown && " : "", doctor->runner);
    }
}

static void check_record(struct doctor *doctor, const struct known_record *record)
{
    unsigned long long pid = (unsigned long long)record->pid;
    char number[24], show[4600];
    (void)snprintf(number, sizeof number, "%llu", pid);
    if (strcmp(record->state, "quarantined") == 0) {
        check_untrusted(doctor, record);
    } else if (strcmp(record->state, "exited") == 0) {
        return;
    } else if (record->proof == PM_PROOF_UNPROVEN) {
        doctor_find(doctor, DOCTOR_WARNING, "record.unproven", record->id,
                    "it cannot be told whether process %llu, the holder of session '%s', lives\nit "
                    "is of another pid namespace, or hidden from us; nothing is signalled\n"
                    "%s",
                    pid, record->id, doctor_command(DOCTOR_PROCESS, number, show));
    } else if (record->proof == PM_PROOF_DEAD && !doctor->runner_answers) { // Else it is noticed.
        doctor_find(
            doctor, DOCTOR_WARNING, "record.stale", record->id,
            "process %llu, the holder of session '%s', is dead\nnobody has noticed yet: the "
            "next runner tells, once, what became of the session\n%s list",
            pid, record->id, doctor->runner);
    } else if (strcmp(record->state, "starting") == 0 && !doctor->runner_lives) {
        doctor_find(
            doctor, DOCTOR_WARNING, "start.unfinished", record->id,
            "the start of session '%s' did not come to its end\nits runner has ended in the "
            "middle; the next one ends process %llu, of which nobody was told\n%s list",
            record->id, pid, doctor->runner);
    }
}

// ------------------------------------------------------------------------------------------------
// Folders of sessions
// ------------------------------------------------------------------------------------------------

// The one whose folder it is, whatever is in there; NULL: nobody's who is proven to live.
static const struct known_record *living_holder(const struct doctor *doctor,
                                                const struct known_folder *folder)
{
    char path[4096];
    for (size_t i = 0; i < doctor->known.records_count; i++) {
        const struct known_record *record = &doctor->known.records[i];
        session_folder(doctor->env->state_dir, record->id, path);
        if (record->proof == PM_PROOF_ALIVE && strcmp(path, folder->path) == 0) {
            return record;
        }
    }
    return NULL;
}

static void untrusted_folder(struct doctor *doctor, const struct known_folder *folder)
{
    const struct known_record *holder = living_holder(doctor, folder);
    const char *slash = strrchr(folder->path, '/');
    char quoted[4400];
    doctor_quote(holder != NULL ? holder->id : slash != NULL ? slash + 1 : folder->path, quoted);
    doctor_find(
        doctor, DOCTOR_ERROR, "session.unproven", folder->path,
        "the folder '%s' cannot be trusted: %s\nnothing in it is used or deleted%s\n%s %s %s",
        folder->path, known_trouble(folder->result),
        holder != NULL ? "; its holder lives, and has to be ended before it can be forgotten"
                       : "; the next runner shows it under its own name, until it is told to "
                         "forget it",
        doctor->runner, holder != NULL ? "kill" : "forget", quoted);
}

static void check_folder(struct doctor *doctor, const struct known_folder *folder)
{
    const struct known_record *record =
        folder->id[0] != '\0' ? known_record_of(&doctor->known, folder->id) : NULL;
    bool told = record != NULL && strcmp(record->state, "exited") != 0; // By its record.
    char quoted[4400];
    if (folder->result == PM_ERR_ACCESS) {
        return; // Its rights were told.
    }
    if (folder->result != PM_OK && !(folder->result == PM_ERR_NOT_FOUND && folder->starting)) {
        untrusted_folder(doctor, folder);
    } else if (folder->starting && !doctor->runner_lives) {
        doctor_find(
            doctor, DOCTOR_NOTE, "start.unfinished", folder->path,
            "the start of session '%s' did not come to its end\nthe next runner removes what "
            "is left of it\n%s list",
            folder->id[0] != '\0' ? folder->id : "?", doctor->runner);
    } else if (folder->exit) {
        doctor_find(doctor, DOCTOR_NOTE, "exit.unclaimed", folder->id,
                    "session '%s' has ended, and nobody has been told\nits record waits, also "
                    "across restarts\n%s get %s",
                    folder->id, doctor->runner, doctor_id(folder->id, quoted));
    } else if (!folder->claimed && !folder->lost && !folder->starting && !told &&
               !doctor->runner_answers) {
        doctor_find(doctor, DOCTOR_WARNING, "holder.dead", folder->id,
                    "session '%s' has no holder and no exit record\nits holder was killed, or the "
                    "machine has restarted: how its child ended is not known\n%s get %s",
                    folder->id, doctor->runner, doctor_id(folder->id, quoted));
    }
}

void doctor_records(struct doctor *doctor)
{
    const struct known *known = &doctor->known;
    char show[4600];
    doctor_checked(doctor, "registry");
    if (known->registry_result != PM_OK && known->registry_result != PM_ERR_NOT_FOUND) {
        doctor_find(doctor, DOCTOR_ERROR, "registry.unreadable", known->registry,
                    "the registry '%s' cannot be read: %s\nno session can be proven without it\n"
                    "%s",
                    known->registry, pm_strerror(known->registry_result),
                    doctor_command(DOCTOR_FILE, known->registry, show));
    }
    check_owner(doctor);
    for (size_t i = 0; i < known->records_count; i++) {
        check_record(doctor, &known->records[i]);
    }
    doctor_checked(doctor, "sessions");
    for (size_t i = 0; i < known->folders_count; i++) {
        check_folder(doctor, &known->folders[i]);
    }
}
