// systemd.unit(5), systemd.kill(5), logind.conf(5): files and drop-ins in the order in which they
// count. Asking systemd itself would need its bus, which is not there in each case that matters.
#include "units.h"

#include <dirent.h>
#include <fnmatch.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_SIZE 4600

// The last that has a file counts.
static const char *const system_dirs[] = {
    "/lib/systemd/system", "/usr/lib/systemd/system", "/usr/local/lib/systemd/system",
    "/run/systemd/system", "/run/systemd/transient",  "/etc/systemd/system"};
static const char *const user_dirs[] = {"/usr/lib/systemd/user", "/usr/local/lib/systemd/user",
                                        "/run/systemd/user", "/etc/systemd/user"};
#define COUNT(list) (sizeof(list) / sizeof(list)[0])

// ------------------------------------------------------------------------------------------------
// Settings
// ------------------------------------------------------------------------------------------------

static char *trim(char *text)
{
    text += strspn(text, " \t");
    text[strcspn(text, "\r\n")] = '\0';
    size_t length = strlen(text);
    while (length > 0 && (text[length - 1] == ' ' || text[length - 1] == '\t')) {
        text[--length] = '\0';
    }
    return text;
}

// "NAME=value" or, with `commented`, "#NAME=value", which in the files of systemd is the default
// that it was built with. The last one counts. false: the file is not there.
static bool read_setting(const char *path, const char *name, bool commented, char *value,
                         size_t size, bool *ret_found)
{
    char line[1024];
    size_t length = strlen(name);
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    while (fgets(line, sizeof line, file) != NULL) {
        char *at = trim(line);
        if (commented && *at == '#') {
            at++;
        }
        if (strncmp(at, name, length) == 0 && at[length + strspn(at + length, " \t")] == '=') {
            (void)snprintf(value, size, "%s", trim(strchr(at, '=') + 1));
            *ret_found = true;
        }
    }
    (void)fclose(file);
    return true;
}

static int is_conf(const struct dirent *entry)
{
    return fnmatch("*.conf", entry->d_name, 0) == 0;
}

struct setting {
    const char *name;
    char *value;
    size_t size;
    bool found;
    char *file; // Of 1024 bytes; may be NULL.
};

static void take_file(const char *path, struct setting *setting)
{
    bool found = false;
    (void)read_setting(path, setting->name, false, setting->value, setting->size, &found);
    if (found) {
        setting->found = true;
        if (setting->file != NULL) {
            (void)snprintf(setting->file, 1024, "%s", path);
        }
    }
}

static void take_drop_ins(const char *folder, struct setting *setting)
{
    struct dirent **list;
    char path[PATH_SIZE + 300];
    int count = scandir(folder, &list, is_conf, alphasort);
    for (int i = 0; i < count; i++) {
        (void)snprintf(path, sizeof path, "%.4000s/%.255s", folder, list[i]->d_name);
        take_file(path, setting);
        free(list[i]);
    }
    if (count >= 0) {
        free(list);
    }
}

// ------------------------------------------------------------------------------------------------
// Units
// ------------------------------------------------------------------------------------------------

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);
    return length > tail && strcmp(text + length - tail, end) == 0;
}

// "name@instance.service" has the file "name@.service".
static void file_name(const char *unit, char name[256])
{
    const char *at = strchr(unit, '@'), *dot = strrchr(unit, '.');
    if (at == NULL || dot == NULL || dot < at) {
        (void)snprintf(name, 256, "%.255s", unit);
    } else {
        (void)snprintf(name, 256, "%.*s%.32s", (int)(at + 1 - unit), unit, dot);
    }
}

// One folder: the file of the unit replaces those of folders before it.
static bool take_folder(const char *folder, const char *unit, struct setting *setting)
{
    char path[PATH_SIZE], name[256];
    struct stat info;
    file_name(unit, name);
    (void)snprintf(path, sizeof path, "%.4000s/%.255s", folder, unit);
    if (stat(path, &info) != 0) {
        (void)snprintf(path, sizeof path, "%.4000s/%.255s", folder, name);
    }
    if (stat(path, &info) != 0) {
        return false;
    }
    setting->found = false;
    take_file(path, setting);
    return true;
}

static bool read_unit(const struct inspect_roots *roots, const struct unit *unit,
                      struct setting *setting)
{
    const char *const *dirs = unit->user ? user_dirs : system_dirs;
    size_t count = unit->user ? COUNT(user_dirs) : COUNT(system_dirs);
    const char *home = getenv("HOME");
    char folders[8][PATH_SIZE], path[PATH_SIZE + 300];
    size_t used = 0;
    bool known = false;
    for (size_t i = 0; i < count; i++) {
        (void)snprintf(folders[used++], PATH_SIZE, "%.4000s%s", roots->system, dirs[i]);
    }
    if (unit->user && home != NULL) {
        (void)snprintf(folders[used++], PATH_SIZE, "%.2000s%.2000s/.config/systemd/user",
                       roots->system, home);
    }
    for (size_t i = 0; i < used; i++) {
        known = take_folder(folders[i], unit->name, setting) || known;
    }
    for (size_t i = 0; i < used; i++) {
        (void)snprintf(path, sizeof path, "%.4000s/%.255s.d", folders[i], unit->name);
        take_drop_ins(path, setting);
    }
    return known;
}

// The part of the path that is the unit, and what it is below.
static bool parse_group(const char *group, struct unit *unit)
{
    char text[4096], *rest = text, *part;
    bool found = false;
    (void)snprintf(text, sizeof text, "%s", group);
    while ((part = strtok_r(rest, "/", &rest)) != NULL) {
        bool service = ends_with(part, ".service"), scope = ends_with(part, ".scope");
        if (strncmp(part, "user-", 5) == 0 && ends_with(part, ".slice")) {
            unit->uid = strtoul(part + 5, NULL, 10);
        }
        if (found && unit->uid != UNIT_NO_UID && strncmp(unit->name, "user@", 5) == 0 &&
            !unit->user && (service || scope)) {
            unit->user = true; // Of the manager that the unit before it is.
        }
        if (service || scope) {
            (void)snprintf(unit->name, sizeof unit->name, "%.255s", part);
            unit->scope = scope;
            found = true;
        }
    }
    unit->session = unit->scope && !unit->user && strncmp(unit->name, "session-", 8) == 0;
    return found;
}

bool unit_of(const struct inspect_roots *roots, const char *group, struct unit *ret_unit)
{
    struct unit unit;
    char delegate[64] = "";
    memset(&unit, 0, sizeof unit);
    unit.uid = UNIT_NO_UID;
    if (!parse_group(group, &unit)) {
        return false;
    }
    struct setting mode = {"KillMode", unit.kill_mode, sizeof unit.kill_mode, false, unit.file};
    struct setting has = {"Delegate", delegate, sizeof delegate, false, NULL};
    bool known = read_unit(roots, &unit, &mode);
    (void)read_unit(roots, &unit, &has);
    unit.delegate = has.found && strcmp(delegate, "no") != 0 && strcmp(delegate, "false") != 0 &&
                    strcmp(delegate, "0") != 0 && delegate[0] != '\0';
    if (!mode.found || unit.kill_mode[0] == '\0') {
        (void)snprintf(unit.kill_mode, sizeof unit.kill_mode, "%s", known ? "control-group" : "");
    }
    *ret_unit = unit;
    return true;
}

bool unit_spares(const struct unit *unit)
{
    return strcmp(unit->kill_mode, "process") == 0 || strcmp(unit->kill_mode, "none") == 0;
}

// ------------------------------------------------------------------------------------------------
// logind
// ------------------------------------------------------------------------------------------------

void logind_of(const struct inspect_roots *roots, unsigned long uid, struct logind *ret_logind)
{
    static const char *const dirs[] = {"/usr/lib/systemd", "/run/systemd", "/etc/systemd"};
    struct logind logind = {.kill = -1};
    char value[64] = "", path[PATH_SIZE];
    struct setting setting = {"KillUserProcesses", value, sizeof value, false, NULL};
    const struct passwd *user = getpwuid((uid_t)uid);
    bool found = false;
    for (size_t i = 0; i < COUNT(dirs); i++) { // The defaults that it was built with.
        (void)snprintf(path, sizeof path, "%.4000s%s/logind.conf", roots->system, dirs[i]);
        (void)read_setting(path, setting.name, true, value, sizeof value, &found);
    }
    for (size_t i = 0; i < COUNT(dirs); i++) {
        (void)snprintf(path, sizeof path, "%.4000s%s/logind.conf", roots->system, dirs[i]);
        take_file(path, &setting);
    }
    for (size_t i = 0; i < COUNT(dirs); i++) {
        (void)snprintf(path, sizeof path, "%.4000s%s/logind.conf.d", roots->system, dirs[i]);
        take_drop_ins(path, &setting);
    }
    if (found || setting.found) {
        logind.kill = strcmp(value, "yes") == 0 || strcmp(value, "true") == 0 ||
                      strcmp(value, "1") == 0 || strcmp(value, "on") == 0;
    }
    if (uid == 0) {
        logind.kill = 0; // KillExcludeUsers= is root unless it says otherwise.
    }
    (void)snprintf(logind.user, sizeof logind.user, "%s", user != NULL ? user->pw_name : "");
    (void)snprintf(path, sizeof path, "%.4000s/var/lib/systemd/linger/%s", roots->system,
                   logind.user);
    logind.linger = logind.user[0] != '\0' && access(path, F_OK) == 0;
    *ret_logind = logind;
}
