// Who would end the daemons (systemd, logind), and who collects the dead.
#include "runner/doctor.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "runner/placement.h"
#include "units.h"

#define COLLECT_MS 1000
#define PROBE_MS 5000
#define LOOK_MS 10

bool doctor_is_private(const char *path, char why[256], char command[4600])
{
    struct stat info;
    char quoted[4400];
    doctor_quote(path, quoted);
    if (lstat(path, &info) != 0) {
        (void)snprintf(why, 256, "%s", strerror(errno));
        (void)snprintf(command, 4600, "ls -ld %s", quoted);
        return false;
    }
    if (S_ISLNK(info.st_mode)) {
        (void)snprintf(why, 256, "it is a link, which is not followed");
        (void)snprintf(command, 4600, "ls -ld %s", quoted);
        return false;
    }
    if (info.st_uid != geteuid()) {
        (void)snprintf(why, 256, "it belongs to user %lu, not to us (%lu)",
                       (unsigned long)info.st_uid, (unsigned long)geteuid());
        (void)snprintf(command, 4600, "chown %lu %s", (unsigned long)geteuid(), quoted);
        return false;
    }
    if ((info.st_mode & 077) != 0) {
        (void)snprintf(why, 256, "others have rights in it (mode %03o)",
                       (unsigned)info.st_mode & 0777);
        (void)snprintf(command, 4600, "chmod go= %s", quoted);
        return false;
    }
    return true;
}

bool doctor_is_writable(const char *path, char why[256], char command[4600])
{
    char quoted[4400];
    int code = access(path, W_OK) == 0 ? 0 : errno;
    if (code == 0 || code == ENOENT || code == ENOTDIR) {
        return true;
    }
    (void)snprintf(why, 256, "%s", strerror(code));
    if (code == EACCES) {
        doctor_quote(path, quoted);
        (void)snprintf(command, 4600, "chmod u+rwx %s", quoted);
    } else { // Which disk it is.
        (void)doctor_command(DOCTOR_SPACE, path, command);
    }
    return false;
}

// ------------------------------------------------------------------------------------------------
// Zombies
// ------------------------------------------------------------------------------------------------

// A child that ends with its parent: what it was born for is to be an orphan that is dead.
static int make_orphan(const struct runner_env *env)
{
    struct pm_spec spec = PM_SPEC_INIT;
    pm_manager *manager = NULL;
    pm_process *process = NULL;
    const char *argv[] = {"runner", "doctor", "--orphan-child", NULL};
    spec.owner = "doctor";
    spec.program = env->program;
    spec.argv = argv;
    spec.stdin_slot.kind = PM_STDIO_PIPE;
    spec.stdout_slot.kind = PM_STDIO_NULL;
    spec.stderr_slot.kind = PM_STDIO_NULL;
    if (pm_open(NULL, &manager, NULL) != PM_OK ||
        pm_spawn(manager, &spec, &process, NULL) != PM_OK) {
        return RUNNER_FAILED;
    }
    (void)printf("%llu\n", (unsigned long long)pm_process_pid(process));
    (void)fflush(stdout);
    _exit(RUNNER_OK); // Without pm_close(), which would stop and collect it.
}

int doctor_verb(const struct runner_env *env, int argc, char **argv)
{
    char byte;
    if (argc == 2 && strcmp(argv[1], "--orphan") == 0) {
        return make_orphan(env);
    }
    if (argc == 2 && strcmp(argv[1], "--orphan-child") == 0) {
        while (read(STDIN_FILENO, &byte, 1) > 0) {
        }
        return RUNNER_OK;
    }
    return -1;
}

// The pid of an orphan that ends now; 0: it could not be made.
static uint64_t run_orphan(const struct doctor *doctor)
{
    struct pm_spec spec = PM_SPEC_INIT;
    struct pm_run_options options = PM_RUN_OPTIONS_INIT;
    struct pm_run_result result = PM_RUN_RESULT_INIT;
    const char *argv[] = {"runner", "--state", doctor->env->state_dir, "doctor", "--orphan", NULL};
    pm_manager *manager = NULL;
    uint64_t pid = 0;
    spec.owner = "doctor";
    spec.program = doctor->env->program;
    spec.argv = argv;
    options.spec = &spec;
    options.timeout_ms = PROBE_MS;
    if (pm_open(NULL, &manager, NULL) != PM_OK) {
        return 0;
    }
    if (pm_run(manager, &options, &result, NULL) == PM_OK) {
        pid = result.output[0] != NULL ? strtoull(result.output[0], NULL, 10) : 0;
    }
    pm_run_result_clear(&result);
    (void)pm_close(manager, 1000, NULL);
    return pid;
}

#define NEW_INIT                                                                                   \
    "in a container: start it with an init (docker run --init, podman run --init, or `tini --` "   \
    "before its command)"

static void check_reaper(struct doctor *doctor)
{
    struct inspect_process orphan, reaper;
    uint64_t pid = run_orphan(doctor);
    char subject[96];
    doctor_checked(doctor, "reaper");
    if (pid == 0) {
        doctor_find(doctor, DOCTOR_NOTE, "reaper", "probe",
                    "it could not be tried whether orphans are collected\na process could not be "
                    "started");
        return;
    }
    for (int waited = 0; waited < COLLECT_MS; waited += LOOK_MS) {
        if (!inspect_process_read(doctor->roots, pid, &orphan)) {
            return; // Collected.
        }
        uv_sleep(LOOK_MS);
    }
    if (!inspect_process_read(doctor->roots, pid, &orphan) || !orphan.zombie ||
        !inspect_process_read(doctor->roots, orphan.parent, &reaper)) {
        return;
    }
    (void)snprintf(subject, sizeof subject, "process %llu (%s)", (unsigned long long)reaper.pid,
                   reaper.name);
    doctor_find(doctor, DOCTOR_WARNING, "reaper", subject,
                "%s takes in orphans and has not collected one that ended %d ms ago\neach holder "
                "that ends stays as a zombie, for a while or for ever (is %llu still there: ps -o "
                "stat= -p %llu)\n" NEW_INIT,
                subject, COLLECT_MS, (unsigned long long)pid, (unsigned long long)pid);
}

static bool is_dead_holder(const struct doctor *doctor, const struct inspect_process *process)
{
    for (size_t i = 0; i < doctor->known.records_count; i++) {
        const struct known_record *record = &doctor->known.records[i];
        if (record->pid == process->pid && record->start == process->start) {
            return true;
        }
    }
    return false;
}

static bool is_ours(const struct doctor *doctor, uint64_t pid)
{
    for (size_t i = 0; i < doctor->known.records_count; i++) {
        if (doctor->known.records[i].pid == pid &&
            doctor->known.records[i].proof == PM_PROOF_ALIVE) {
            return true;
        }
    }
    return doctor->runner_lives && doctor->known.owner.pid == pid;
}

// Dead holders that nobody has collected, and dead children of ours.
static void check_zombies(struct doctor *doctor)
{
    unsigned long long holders = 0, ours = 0;
    const struct inspect_process *holder = NULL, *child = NULL;
    doctor_checked(doctor, "zombies");
    for (size_t i = 0; i < doctor->table.count; i++) {
        const struct inspect_process *process = &doctor->table.list[i];
        if (process->zombie && is_dead_holder(doctor, process)) {
            holders++;
            holder = process;
        } else if (process->zombie && is_ours(doctor, process->parent)) {
            ours++;
            child = process;
        }
    }
    if (holders > 0) {
        const struct inspect_process *parent = inspect_find(&doctor->table, holder->parent);
        doctor_find(
            doctor, DOCTOR_WARNING, "zombies", parent != NULL ? parent->name : "?",
            "%llu dead holders, %llu one of them, are not collected\ntheir parent, process "
            "%llu (%s), does not wait for them; each takes a place in the process table\n" NEW_INIT,
            holders, (unsigned long long)holder->pid, (unsigned long long)holder->parent,
            parent != NULL ? parent->name : "?");
    }
    if (ours > 0) {
        doctor_find(
            doctor, DOCTOR_NOTE, "zombies.ours", "children",
            "%llu dead children of the runner or of holders, %llu one of them\none that just "
            "ended is collected in a moment; one that stays is a fault\n%s who %llu",
            ours, (unsigned long long)child->pid, doctor->runner, (unsigned long long)child->pid);
    }
}

// ------------------------------------------------------------------------------------------------
// Control groups
// ------------------------------------------------------------------------------------------------

static void find_service(struct doctor *doctor, enum doctor_level level, const char *subject,
                         const char *group, const struct unit *unit)
{
    const char *home = getenv("HOME");
    char folder[700];
    if (unit->user) {
        (void)snprintf(folder, sizeof folder, "%.300s/.config/systemd/user/%.255s.d",
                       home != NULL ? home : "~", unit->name);
    } else {
        (void)snprintf(folder, sizeof folder, "/etc/systemd/system/%.255s.d", unit->name);
    }
    doctor_find(doctor, level, "cgroup", unit->name,
                "%s is in the control group of %s, which ends all of it when it stops or restarts\n"
                "KillMode is %s%s%s; the group is %s\nmkdir -p '%s' && printf "
                "'[Service]\\nKillMode=process\\n' > '%s/processmgr.conf' && systemctl%s "
                "daemon-reload",
                subject, unit->name,
                unit->kill_mode[0] != '\0' ? unit->kill_mode : "not known (no unit file)",
                unit->file[0] != '\0' ? ", says " : "", unit->file, group, folder, folder,
                unit->user ? " --user" : "");
}

static void find_logout(struct doctor *doctor, const char *subject, const struct unit *unit)
{
    struct logind logind;
    logind_of(doctor->roots, unit->uid != UNIT_NO_UID ? unit->uid : (unsigned long)geteuid(),
              &logind);
    const char *user = logind.user[0] != '\0' ? logind.user : "USER";
    if (unit->session && logind.kill != 0) {
        doctor_find(doctor, logind.kill > 0 ? DOCTOR_ERROR : DOCTOR_WARNING, "logout", unit->name,
                    "%s is in the login session %s\n%s\nloginctl enable-linger %s && systemd-run "
                    "--user --unit=processmgr-runner --property=KillMode=process %s serve",
                    subject, unit->name,
                    logind.kill > 0 ? "logind ends all of it at the logout (KillUserProcesses=yes)"
                                    : "whether logind ends it at the logout is not written down "
                                      "(KillUserProcesses), and the default differs",
                    user, doctor->runner);
    } else if (unit->user && !logind.linger) {
        doctor_find(doctor, DOCTOR_WARNING, "logout", unit->name,
                    "%s is in %s, of the systemd of user %s\nthat ends with the last login of the "
                    "user, because lingering is off\nloginctl enable-linger %s",
                    subject, unit->name, user, user);
    }
}

// `level`: of a service that ends it.
static void check_group(struct doctor *doctor, enum doctor_level level, const char *subject,
                        const char *group)
{
    struct unit unit;
    if (strcmp(group, "/") == 0) {
        return;
    }
    if (!unit_of(doctor->roots, group, &unit)) {
        if (!placement_is_own(group)) {
            doctor_find(doctor, DOCTOR_NOTE, "cgroup", group,
                        "%s is in the control group %s\nwho ends that group ends it too", subject,
                        group);
        }
        return;
    }
    if (!unit.scope && !unit_spares(&unit)) {
        find_service(doctor, level, subject, group, &unit);
    }
    find_logout(doctor, subject, &unit);
}

// Each group is told once, with the first that is in it.
static void check_groups(struct doctor *doctor)
{
    const struct known *known = &doctor->known;
    char group[4096], subject[192];
    json_t *seen = json_object();
    bool holders = false;
    doctor_checked(doctor, "cgroup");
    for (size_t i = 0; i < known->records_count; i++) {
        const struct known_record *record = &known->records[i];
        if (record->proof != PM_PROOF_ALIVE || !inspect_cgroup(doctor->roots, record->pid, group)) {
            continue;
        }
        holders = true;
        if (json_object_get(seen, group) == NULL) {
            (void)snprintf(subject, sizeof subject, "the holder of session '%s'", record->id);
            check_group(doctor, DOCTOR_ERROR, subject, group);
            (void)json_object_set_new(seen, group, json_true());
        }
    }
    // Its own end is no harm while sessions are elsewhere.
    uint64_t pid = doctor->runner_lives ? known->owner.pid : (uint64_t)getpid();
    if (inspect_cgroup(doctor->roots, pid, group) && json_object_get(seen, group) == NULL) {
        check_group(doctor, holders ? DOCTOR_NOTE : DOCTOR_WARNING,
                    doctor->runner_lives ? "the runner" : "a runner that is started from here",
                    group);
    }
    json_decref(seen);
}

void doctor_system(struct doctor *doctor, bool probe)
{
    check_groups(doctor);
    check_zombies(doctor);
    if (probe) {
        check_reaper(doctor);
    }
}
