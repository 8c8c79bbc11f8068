// A double fork leaves the process tree, and no control group. Who ends the runner's group, a
// service manager above all, ends its sessions with it, unless they are in another one.
#include "runner/placement.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#include "runner/os.h"
#include "units.h"

#define PREFIX PLACEMENT_PREFIX
#define SCOPE_MS 2000
#define LOOK_MS 10
#define END_MS 1000
#define FOLDER_MAX 4200
#define TRIES 20 // Somebody may take an empty group away before the holder is in it.

// A name that a control group and a unit may have, of any id.
static void make_name(const char *id, uint64_t pid, char name[80])
{
    char readable[33];
    size_t at = 0;
    for (; id[at] != '\0' && at < sizeof readable - 1; at++) {
        char c = id[at];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        readable[at] = (char)(plain ? c : '_');
    }
    readable[at] = '\0';
    (void)snprintf(name, 80, PREFIX "%s-%llu", readable, (unsigned long long)pid);
}

// ------------------------------------------------------------------------------------------------
// The files of a group
// ------------------------------------------------------------------------------------------------

static FILE *open_in_group(const char *folder, const char *name)
{
    char path[4500];
    (void)snprintf(path, sizeof path, "%.4400s/%s", folder, name);
    return fopen(path, "re");
}

// Whether somebody is in it, or below it. Negative: version 1 does not tell, or it is gone.
static int is_populated(const char *folder)
{
    int populated = 0;
    FILE *events = open_in_group(folder, "cgroup.events");
    if (events == NULL || fscanf(events, "populated %d", &populated) != 1) { // NOLINT(cert-err34-c)
        populated = -1;
    }
    if (events != NULL) {
        (void)fclose(events);
    }
    return populated;
}

// The groups below it, which `path` names one after the other. The sum of what `visit` says, or 1.
static size_t each_below(char *path, size_t (*visit)(char *path, uint64_t number), uint64_t number)
{
    size_t length = strlen(path), sum = 0;
    uv_fs_t request;
    uv_dirent_t entry;
    int result = uv_fs_scandir(NULL, &request, path, 0, NULL);
    if (result < 0 && result != UV_ENOENT) {
        sum = 1; // Not known.
    }
    while (result >= 0 && uv_fs_scandir_next(&request, &entry) != UV_EOF) {
        if (entry.type == UV_DIRENT_DIR && length + strlen(entry.name) + 2 <= FOLDER_MAX) {
            (void)snprintf(path + length, FOLDER_MAX - length, "/%s", entry.name);
            sum += visit(path, number);
            path[length] = '\0';
        }
    }
    uv_fs_req_cleanup(&request);
    return sum;
}

static int write_number(const char *group, const char *name, uint64_t number)
{
    char path[4500], text[32];
    (void)snprintf(path, sizeof path, "%.4400s/%s", group, name);
    int length = snprintf(text, sizeof text, "%llu\n", (unsigned long long)number);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno;
    }
    int e = write(fd, text, (size_t)length) == length ? 0 : errno;
    (void)close(fd);
    return e;
}

// ------------------------------------------------------------------------------------------------
// A group that was named
// ------------------------------------------------------------------------------------------------

// With the groups below it: one that has any cannot be removed.
static size_t remove_group(char *path, uint64_t unused)
{
    if (rmdir(path) != 0) {
        (void)each_below(path, remove_group, unused);
        (void)rmdir(path);
    }
    return 0;
}

// Groups whose holders have ended. One that is in use cannot be removed, and keeps those below it,
// in which nobody may be yet.
static void sweep(const char *parent)
{
    uv_fs_t request;
    uv_dirent_t entry;
    int result = uv_fs_scandir(NULL, &request, parent, 0, NULL);
    while (result >= 0 && uv_fs_scandir_next(&request, &entry) != UV_EOF) {
        char path[FOLDER_MAX];
        if (strncmp(entry.name, PREFIX, sizeof PREFIX - 1) != 0 ||
            snprintf(path, sizeof path, "%s/%s", parent, entry.name) >= (int)sizeof path) {
            continue;
        }
        if (is_populated(path) == 0) {
            (void)remove_group(path, 0);
        } else {
            (void)rmdir(path);
        }
    }
    uv_fs_req_cleanup(&request);
}

static int join_group(const char *parent, const char *id, uint64_t pid, char path[4200])
{
    char name[80];
    struct stat info;
    int e = EINVAL;
    make_name(id, pid, name);
    (void)snprintf(path, 4200, "%.4000s/cgroup.procs", parent);
    if (parent[0] != '/' || stat(path, &info) != 0) {
        return EINVAL; // No control group.
    }
    sweep(parent);
    (void)snprintf(path, 4200, "%.4000s/%s", parent, name);
    for (int i = 0; i < TRIES; i++) {
        if (mkdir(path, 0755) != 0 && errno != EEXIST) {
            return errno;
        }
        e = write_number(path, "cgroup.procs", pid);
        if (e != ENODEV && e != ENOENT) {
            break;
        }
    }
    if (e != 0) {
        (void)rmdir(path);
    }
    return e;
}

// ------------------------------------------------------------------------------------------------
// A scope
// ------------------------------------------------------------------------------------------------

// systemd takes over a process that runs already; systemd-run cannot.
static int ask_for_scope(pm_manager *manager, const char *id, uint64_t pid, char *problem,
                         size_t size)
{
    char scope[96], number[32], name[80];
    struct pm_spec spec = PM_SPEC_INIT;
    struct pm_run_options options = PM_RUN_OPTIONS_INIT;
    struct pm_run_result result = PM_RUN_RESULT_INIT;
    make_name(id, pid, name);
    (void)snprintf(scope, sizeof scope, "%s.scope", name);
    (void)snprintf(number, sizeof number, "%llu", (unsigned long long)pid);
    const char *argv[] = {"busctl",
                          geteuid() == 0 ? "--system" : "--user",
                          "--timeout=2",
                          "call",
                          "org.freedesktop.systemd1",
                          "/org/freedesktop/systemd1",
                          "org.freedesktop.systemd1.Manager",
                          "StartTransientUnit",
                          "ssa(sv)a(sa(sv))",
                          scope,
                          "fail",
                          "3",
                          "Description",
                          "s",
                          "A session of processmgr's runner",
                          "PIDs",
                          "au",
                          "1",
                          number,
                          "CollectMode",
                          "s",
                          "inactive-or-failed",
                          "0",
                          NULL};
    spec.owner = "placement";
    spec.program = "busctl";
    spec.argv = argv;
    options.spec = &spec;
    options.max_output = 512;
    options.timeout_ms = SCOPE_MS;
    int code = pm_run(manager, &options, &result, NULL);
    if (code != PM_OK) {
        (void)snprintf(problem, size, "busctl: %s", pm_strerror(code));
    } else if (result.record->kind != PM_EXIT_EXITED || result.record->code != 0) {
        char *text = result.output[1] != NULL ? result.output[1] : (char[]){""};
        text[strcspn(text, "\r\n")] = '\0';
        (void)snprintf(problem, size, "systemd gives no scope: %.200s",
                       text[0] != '\0' ? text : "busctl failed");
        code = PM_ERR_SYSTEM;
    }
    pm_run_result_clear(&result);
    return code;
}

// The answer comes before the deed.
static bool has_left(uint64_t pid, const char *from)
{
    char now[4096];
    for (int waited = 0; waited <= SCOPE_MS; waited += LOOK_MS) {
        if (!inspect_cgroup(&inspect_real_roots, pid, now) || strcmp(now, from) != 0) {
            return true;
        }
        uv_sleep(LOOK_MS);
    }
    return false;
}

// ------------------------------------------------------------------------------------------------
// Who is in a group
// ------------------------------------------------------------------------------------------------

static bool is_member(const char *folder, uint64_t pid)
{
    FILE *file = open_in_group(folder, "cgroup.procs");
    unsigned long long member = 0;
    bool found = false;
    while (file != NULL && !found && fscanf(file, "%llu", &member) == 1) { // NOLINT(cert-err34-c)
        found = member == pid;
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return found;
}

// A scope has its folder where systemd has mounted the groups: all of them, or beside those of
// version 1 (https://systemd.io/CGROUP_DELEGATION).
static void find_folder(uint64_t pid, struct placement *placement)
{
    static const char *const mounts[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified",
                                         "/sys/fs/cgroup/systemd"};
    for (size_t i = 0; i < sizeof mounts / sizeof mounts[0]; i++) {
        (void)snprintf(placement->folder, sizeof placement->folder, "%s%s", mounts[i],
                       placement->group);
        if (placement_is_own(placement->group) && is_member(placement->folder, pid)) {
            return;
        }
    }
    placement->folder[0] = '\0';
}

// ------------------------------------------------------------------------------------------------
// What a holder has left there
// ------------------------------------------------------------------------------------------------

// The holder's number stands in the name; 0: it is not that of a group of this session.
static uint64_t holder_of(const char *folder, const char *id)
{
    char wanted[80], name[96];
    const char *slash = strrchr(folder, '/');
    (void)snprintf(name, sizeof name, "%s", slash != NULL ? slash + 1 : "");
    char *scope = strstr(name, ".scope"), *dash = strrchr(name, '-');
    uint64_t pid = dash != NULL ? strtoull(dash + 1, NULL, 10) : 0;
    if (scope != NULL) {
        *scope = '\0';
    }
    make_name(id, pid, wanted);
    return strcmp(name, wanted) == 0 ? pid : 0;
}

// A runner that was started by what is in a session lives in its group.
static bool we_are_within(const char *folder)
{
    char own[4096];
    const char *name = strrchr(folder, '/');
    if (!inspect_cgroup(&inspect_real_roots, (uint64_t)getpid(), own)) {
        return true; // Not known.
    }
    const char *found = strstr(own, name);
    return found != NULL && (found[strlen(name)] == '/' || found[strlen(name)] == '\0');
}

// The process is held first, and then looked for: a number that another one has meanwhile is not
// among the members.
static void kill_member(const char *folder, uint64_t pid)
{
    struct os_process process;
    if (pid > 1 && os_process_open((int64_t)pid, &process) == 0) {
        if (process.native != PM_NATIVE_INVALID && is_member(folder, pid)) {
            os_process_signal(&process, SIGKILL);
        }
        os_process_close(&process);
    }
}

// All but one. How many there were.
static size_t kill_members(const char *folder, uint64_t but)
{
    FILE *file = open_in_group(folder, "cgroup.procs");
    unsigned long long pid;
    size_t count = 0;
    while (file != NULL && fscanf(file, "%llu", &pid) == 1) { // NOLINT(cert-err34-c)
        if (pid != but) {
            kill_member(folder, pid);
            count++;
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return count;
}

// All but one, with those in groups below it, which only the system can end at once. How many there
// were, or 1.
static size_t kill_group(char *path, uint64_t but)
{
    int populated = is_populated(path);
    if (populated == 0 ||
        (but == 0 && populated > 0 && write_number(path, "cgroup.kill", 1) == 0)) {
        return (size_t)populated;
    }
    // One that is here is not below. Without him: Linux before 5.14, or groups of version 1.
    bool here = but != 0 && is_member(path, but);
    return kill_members(path, but) + each_below(path, kill_group, here ? 0 : but);
}

int placement_end(const char *folder, const char *id, bool but_holder)
{
    char path[FOLDER_MAX];
    uint64_t holder = holder_of(folder, id);
    bool any = false;
    if (holder <= 1 || we_are_within(folder) || (!but_holder && is_member(folder, holder)) ||
        snprintf(path, sizeof path, "%s", folder) >= (int)sizeof path) {
        return 0;
    }
    for (int waited = 0; waited <= END_MS; waited += LOOK_MS) {
        if (kill_group(path, but_holder ? holder : 0) == 0) {
            return any;
        }
        any = true;
        uv_sleep(LOOK_MS);
    }
    return UV_ETIMEDOUT;
}

// ------------------------------------------------------------------------------------------------
// Both
// ------------------------------------------------------------------------------------------------

// What to warn of if a process stays in this group.
static void judge(const char *group, const char *problem, struct placement *placement)
{
    struct unit unit;
    if (strcmp(group, "/") == 0) {
        return;
    }
    bool known = unit_of(&inspect_real_roots, group, &unit);
    if (known && unit_spares(&unit)) {
        return;
    }
    placement->kind = PLACEMENT_INSIDE;
    (void)snprintf(placement->warning, sizeof placement->warning,
                   "not detached from control group %.300s: what ends %.200s ends this session "
                   "too%s%.300s",
                   group, known ? unit.name : "it", problem[0] != '\0' ? "; " : "", problem);
}

void placement_home(struct placement_home *ret)
{
    memset(ret, 0, sizeof *ret);
    ret->looked = true;
    if (inspect_cgroup(&inspect_real_roots, (uint64_t)getpid(), ret->inside.group)) {
        judge(ret->inside.group, "", &ret->inside);
    }
}

void placement_look(uint64_t pid, struct placement *ret)
{
    struct placement_home home;
    struct placement placement;
    placement_home(&home);
    memset(&placement, 0, sizeof placement);
    if (home.inside.group[0] != '\0' && inspect_cgroup(&inspect_real_roots, pid, placement.group)) {
        if (strcmp(home.inside.group, placement.group) == 0) {
            placement = home.inside;
        } else {
            placement.kind =
                strstr(placement.group, ".scope") != NULL ? PLACEMENT_SCOPE : PLACEMENT_GROUP;
        }
    }
    *ret = placement;
}

void placement_check(const struct placement_home *home, uint64_t pid, json_t *warnings)
{
    char group[4096];
    // Not asked where nothing follows from it: the kernel takes its time for that.
    if (home->inside.warning[0] != '\0' && inspect_cgroup(&inspect_real_roots, pid, group) &&
        strcmp(home->inside.group, group) == 0) {
        placement_warn(&home->inside, warnings);
    }
}

void placement_move(pm_manager *manager, const char *id, uint64_t pid, struct placement *ret)
{
    char before[4096], problem[400] = "";
    const char *named = getenv("PROCESSMGR_CGROUP");
    placement_look(pid, ret);
    if (named != NULL && named[0] != '\0') {
        char folder[4200];
        int e = join_group(named, id, pid, folder);
        if (e == 0) {
            placement_look(pid, ret);
            memcpy(ret->folder, folder, sizeof ret->folder);
            ret->kind = PLACEMENT_GROUP;
            ret->warning[0] = '\0';
            return;
        }
        (void)snprintf(problem, sizeof problem, "PROCESSMGR_CGROUP=%.200s: %s", named,
                       e == EINVAL ? "no control group of version 2" : strerror(e));
        ret->kind = PLACEMENT_INSIDE;
        (void)snprintf(ret->warning, sizeof ret->warning, "not in a control group of its own: %s",
                       problem);
        return;
    }
    if (ret->kind != PLACEMENT_INSIDE) {
        return;
    }
    (void)snprintf(before, sizeof before, "%s", ret->group);
    if (ask_for_scope(manager, id, pid, problem, sizeof problem) == PM_OK) {
        if (has_left(pid, before)) {
            placement_look(pid, ret);
            find_folder(pid, ret);
            return;
        }
        (void)snprintf(problem, sizeof problem, "systemd has not moved it");
    }
    judge(before, problem, ret);
}
