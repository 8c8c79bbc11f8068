// Where programs and folders are. CreateProcessW's own search is never used: it begins with the
// folder of this program and the current one.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "core/env.h"
#include "win32.h"

static bool is_separator(wchar_t c)
{
    return c == L'\\' || c == L'/';
}

static bool is_letter(wchar_t c)
{
    return (c >= L'A' && c <= L'Z') || (c >= L'a' && c <= L'z');
}

static bool has_drive(const wchar_t *path)
{
    return is_letter(path[0]) && path[1] == L':';
}

// "C:\..." or "\\...". Not "\..." (a drive is missing) and not "C:..." (a folder is missing).
static bool is_absolute(const wchar_t *path)
{
    return (has_drive(path) && is_separator(path[2])) ||
           (is_separator(path[0]) && is_separator(path[1]));
}

static size_t part_length(const wchar_t *text)
{
    size_t length = 0;
    while (text[length] != L'\0' && !is_separator(text[length])) {
        length++;
    }
    return length;
}

size_t pmi_win_root_length(const wchar_t *path)
{
    size_t start = 0;
    size_t parts = 1;
    if (is_separator(path[0]) && is_separator(path[1])) {
        bool device = (path[2] == L'?' || path[2] == L'.') && is_separator(path[3]);
        bool unc = device && _wcsnicmp(path + 4, L"UNC\\", 4) == 0;
        start = unc ? 8 : device ? 4 : 2;
        parts = unc || !device ? 2 : 1;
    }
    size_t length = start + part_length(path + start);
    if (parts == 2 && path[length] != L'\0') {
        length += 1 + part_length(path + length + 1);
    }
    return length;
}

static const wchar_t *last_part(const wchar_t *path)
{
    const wchar_t *part = path;
    for (const wchar_t *at = path; *at != L'\0'; at++) {
        if (is_separator(*at) || *at == L':') {
            part = at + 1;
        }
    }
    return part;
}

// ------------------------------------------------------------------------------------------------
// Search
// ------------------------------------------------------------------------------------------------

// What PATHEXT may name. Scripts of other kinds need their interpreter, batch files are by consent.
static const wchar_t *const extensions[] = {L".com", L".exe", L".bat", L".cmd"};
#define EXTENSIONS_COUNT 4
#define BATCH_FIRST 2 // Of these the first one that cmd.exe runs.

struct search {
    const wchar_t *program;
    const wchar_t *tried[EXTENSIONS_COUNT + 1]; // "" first, then in the order of PATHEXT.
    size_t tried_count;
    wchar_t *found; // Full path, malloc'd.
    bool is_folder; // Something was there, but a folder.
    int result;     // Other than PM_OK: the search cannot go on.
};

// Nothing tidies up what is behind "\\?\".
static int join_below(const wchar_t *folder, const wchar_t *program, wchar_t **ret_path)
{
    while (is_separator(*program)) {
        program++;
    }
    int result = pmi_win_join(folder, program, ret_path);
    for (wchar_t *at = *ret_path; result == PM_OK && *at != L'\0'; at++) {
        *at = *at == L'/' ? L'\\' : *at;
    }
    return result;
}

static void try_path(struct search *s, const wchar_t *folder, const wchar_t *extension)
{
    wchar_t *joined = NULL;
    wchar_t *named = NULL;
    wchar_t *full = NULL;
    wchar_t *longer = NULL;
    s->result = folder != NULL ? join_below(folder, s->program, &joined) : PM_OK;
    const wchar_t *base = folder != NULL ? joined : s->program;
    if (s->result == PM_OK) {
        size_t size = wcslen(base) + wcslen(extension) + 1;
        named = malloc(size * sizeof *named);
        s->result = named != NULL ? PM_OK : PM_ERR_NO_MEMORY;
        if (named != NULL) {
            (void)_snwprintf(named, size, L"%ls%ls", base, extension);
        }
    }
    if (s->result == PM_OK && pmi_win_full_path(named, &full, NULL) == PM_OK &&
        pmi_win_long_path(full, &longer, NULL) == PM_OK) {
        // Device names ("nul", "con.exe" before Windows 11) come out as "\\.\nul".
        bool device = wcsncmp(full, L"\\\\.\\", 4) == 0;
        if (!device && pmi_win_is_file(longer)) {
            s->found = full;
            full = NULL;
        }
        s->is_folder = s->is_folder || (!device && pmi_win_is_folder(longer));
    }
    free(joined);
    free(named);
    free(full);
    free(longer);
}

// In one folder, or for an absolute program in none.
static void try_folder(struct search *s, const wchar_t *folder)
{
    for (size_t i = 0; i < s->tried_count && s->result == PM_OK && s->found == NULL; i++) {
        try_path(s, folder, s->tried[i]);
    }
}

// Entries are separated by ';' and may be quoted, as a folder's name may hold a ';'.
static void try_list(struct search *s, const wchar_t *list)
{
    wchar_t *entry = malloc((wcslen(list) + 1) * sizeof *entry);
    if (entry == NULL) {
        s->result = PM_ERR_NO_MEMORY;
        return;
    }
    while (*list != L'\0' && s->result == PM_OK && s->found == NULL) {
        size_t length = 0;
        bool quoted = false;
        for (; *list != L'\0' && (quoted || *list != L';'); list++) {
            if (*list == L'"') {
                quoted = !quoted;
            } else {
                entry[length++] = *list;
            }
        }
        entry[length] = L'\0';
        list += *list == L';';
        if (is_absolute(entry)) { // Empty, "." and other relative ones mean the current folder.
            try_folder(s, entry);
        }
    }
    free(entry);
}

// Names that PATHEXT does not have are not tried. Without it, or if it is empty, those that cmd.exe
// has built in. A name with a dot or a path is tried as it stands first: "py3.11" may have no
// extension yet, and a file that is named by its path need not have one.
static void choose_extensions(struct search *s, const char *pathext, size_t first, size_t end)
{
    s->tried_count = 0;
    bool named = wcspbrk(s->program, L"\\/") != NULL || wcschr(s->program, L'.') != NULL;
    if (named && first == 0) {
        s->tried[s->tried_count++] = L"";
    }
    if (pathext == NULL || pathext[0] == '\0') {
        pathext = ".COM;.EXE;.BAT;.CMD";
    }
    bool taken[EXTENSIONS_COUNT] = {false};
    while (*pathext != '\0') {
        size_t length = strcspn(pathext, ";");
        for (size_t i = first; i < end; i++) {
            char name[8];
            (void)snprintf(name, sizeof name, "%ls", extensions[i]);
            if (!taken[i] && length == strlen(name) && _strnicmp(pathext, name, length) == 0) {
                taken[i] = true;
                s->tried[s->tried_count++] = extensions[i];
            }
        }
        pathext += length;
        pathext += *pathext == ';';
    }
}

static void search_path(struct search *s, const char *path)
{
    wchar_t *list = NULL;
    s->result = pmi_win_wide(path != NULL ? path : "", &list);
    if (s->result == PM_OK) {
        try_list(s, list);
    }
    free(list);
}

// "\bin\tool" against a cwd of "D:\work" is "D:\bin\tool", and against "\\host\share\work"
// "\\host\share\bin\tool".
static void cut_to_root(wchar_t *folder)
{
    folder[pmi_win_root_length(folder)] = L'\0';
}

static void resolve(struct search *s, const char *cwd)
{
    wchar_t *folder = NULL;
    wchar_t *full = NULL;
    if (is_absolute(s->program)) {
        try_folder(s, NULL);
        return;
    }
    s->result = pmi_win_wide(cwd != NULL ? cwd : ".", &folder);
    if (s->result == PM_OK) {
        s->result = pmi_win_full_path(folder, &full, NULL);
    }
    if (s->result == PM_OK) {
        if (is_separator(s->program[0])) {
            cut_to_root(full);
        }
        try_folder(s, full);
    }
    free(folder);
    free(full);
}

// Windows drops trailing dots and blanks, so "x.bat." would dodge the check for batch files; a ':'
// behind the drive names another stream of the file.
static bool is_refused(const wchar_t *program)
{
    size_t length = wcslen(program);
    const wchar_t *drive = wcsncmp(program, L"\\\\?\\", 4) == 0 ? program + 4 : program;
    const wchar_t *rest = has_drive(drive) ? drive + 2 : drive;
    if (length == 0 || program[length - 1] == L'.' || program[length - 1] == L' ') {
        return true;
    }
    return wcschr(rest, L':') != NULL || (rest != drive && !is_separator(rest[0])) ||
           *last_part(program) == L'\0';
}

static void look(struct search *s, const char *cwd, const char *const *env)
{
    if (wcspbrk(s->program, L"\\/") == NULL) {
        search_path(s, pmi_env_get(env, "PATH", true));
    } else {
        resolve(s, cwd);
    }
}

static int refuse_name(struct pm_error *err)
{
    return pmi_win_refuse(err, PM_ERR_INVALID, PM_STAGE_SEARCH, "program",
                          "a name that ends in a dot or a blank, or holds a ':' behind the drive");
}

static int refuse_batch(const struct search *s, struct pm_error *err)
{
    char *path = NULL;
    char hint[sizeof err->hint];
    int result = pmi_win_narrow(s->found, &path);
    if (result != PM_OK) {
        return result;
    }
    (void)snprintf(hint, sizeof hint, "there is a batch file only (%.*s): see allow_batch_file",
                   400, path);
    free(path);
    return pmi_win_refuse(err, PM_ERR_UNSUPPORTED, PM_STAGE_SEARCH, "program", hint);
}

static int refuse_missing(const struct pm_spec *spec, const char *const *env, struct pm_error *err)
{
    bool with_path = strpbrk(spec->program, "\\/") == NULL;
    const char *path = pmi_env_get(env, "PATH", true);
    const char *where = !with_path ? spec->program : path != NULL ? path : "";
    char hint[sizeof err->hint + 16];
    (void)snprintf(hint, sizeof hint, "looked %s%.*s", with_path ? "in PATH=" : "at ",
                   (int)sizeof err->hint, where);
    pmi_win_copy_text(err->hint, sizeof err->hint, hint);
    return pmi_win_fail(err, PM_STAGE_SEARCH, ERROR_FILE_NOT_FOUND);
}

// Sets s->found, or fails.
static int find_program(struct search *s, const struct pm_spec *spec, const char *cwd,
                        const char *const *env, struct pm_error *err)
{
    const char *pathext = pmi_env_get(env, "PATHEXT", true);
    if (is_refused(s->program)) {
        return refuse_name(err);
    }
    choose_extensions(s, pathext, 0, spec->allow_batch_file ? EXTENSIONS_COUNT : BATCH_FIRST);
    look(s, cwd, env);
    if (s->result != PM_OK || s->found != NULL) {
        return s->result;
    }
    if (!spec->allow_batch_file) { // "Not found" would be only half of the truth.
        choose_extensions(s, pathext, BATCH_FIRST, EXTENSIONS_COUNT);
        look(s, cwd, env);
        if (s->result != PM_OK) {
            return s->result;
        }
    }
    if (s->found != NULL) {
        return refuse_batch(s, err);
    }
    return s->is_folder
               ? pmi_win_refuse(err, PM_ERR_NOT_EXECUTABLE, PM_STAGE_SEARCH, NULL, "a folder")
               : refuse_missing(spec, env, err);
}

int pmi_os_search(const struct pm_spec *spec, const char *cwd, const char *const *env,
                  char **ret_path, struct pm_error *err)
{
    wchar_t *wide = NULL;
    int result = pmi_win_wide(spec->program, &wide);
    if (result != PM_OK) {
        return pmi_win_refuse(err, result, PM_STAGE_SEARCH, "program", NULL);
    }
    struct search s = {.program = wide};
    result = find_program(&s, spec, cwd, env, err);
    if (result == PM_OK) {
        result = pmi_win_narrow(s.found, ret_path);
    }
    free(s.found);
    free(wide);
    if (result != PM_OK) {
        err->code = result;
        err->stage = PM_STAGE_SEARCH;
        if (err->field[0] == '\0' && result != PM_ERR_NO_MEMORY) {
            pmi_win_copy_text(err->field, sizeof err->field, "program");
        }
    }
    return result;
}

// ------------------------------------------------------------------------------------------------
// Folders
// ------------------------------------------------------------------------------------------------

static void trim_separator(wchar_t *path)
{
    size_t length = wcslen(path);
    if (length > 3 && path[length - 1] == L'\\') {
        path[length - 1] = L'\0';
    }
}

int pmi_os_absolute(const char *path, char **ret_path, uint32_t *ret_os_code)
{
    wchar_t *wide = NULL;
    wchar_t *full = NULL;
    DWORD os_code = 0;
    int result = pmi_win_wide(path != NULL ? path : ".", &wide);
    if (result == PM_OK) {
        result = pmi_win_full_path(wide, &full, &os_code);
    }
    if (result == PM_OK) {
        trim_separator(full);
        result = pmi_win_narrow(full, ret_path);
    }
    free(wide);
    free(full);
    if (result != PM_OK) {
        *ret_os_code = os_code;
    }
    return result;
}

// malloc'd, NULL if it is not set or not absolute.
static wchar_t *folder_variable(const wchar_t *name)
{
    wchar_t *value = NULL;
    for (DWORD room = MAX_PATH; room <= 32768; room *= 2) {
        value = malloc(room * sizeof *value);
        DWORD length = value != NULL ? GetEnvironmentVariableW(name, value, room) : 0;
        if (length > 0 && length < room && is_absolute(value)) {
            return value;
        }
        free(value);
        if (length < room) {
            break;
        }
    }
    return NULL;
}

// The variables, not SHGetKnownFolderPath: that one loads shell32 and its company into the host.
static int local_app_data(wchar_t **ret_path)
{
    wchar_t *path = folder_variable(L"LOCALAPPDATA");
    if (path != NULL) {
        *ret_path = path;
        return PM_OK;
    }
    wchar_t *profile = folder_variable(L"USERPROFILE");
    int result =
        profile != NULL ? pmi_win_join(profile, L"AppData\\Local", ret_path) : PM_ERR_NOT_FOUND;
    free(profile);
    return result;
}

static int make_folder(const wchar_t *path)
{
    SECURITY_ATTRIBUTES sa = {0};
    int result = pmi_win_owner_only(FILE_ALL_ACCESS, true, &sa);
    if (result == PM_OK && !CreateDirectoryW(path, &sa) && GetLastError() != ERROR_ALREADY_EXISTS) {
        result = pmi_win_code(GetLastError());
    }
    pmi_win_security_free(&sa);
    return result;
}

int pmi_os_default_state_dir(const char *app, char **ret_path)
{
    wchar_t *base = NULL;
    wchar_t *name = NULL;
    wchar_t *path = NULL;
    wchar_t *longer = NULL;
    int result = local_app_data(&base);
    if (result == PM_OK) {
        result = pmi_win_wide(app, &name);
    }
    if (result == PM_OK) {
        result = pmi_win_join(base, name, &path);
    }
    if (result == PM_OK) {
        result = pmi_win_long_path(path, &longer, NULL);
    }
    if (result == PM_OK) {
        result = make_folder(longer);
    }
    if (result == PM_OK) {
        result = pmi_win_narrow(path, ret_path);
    }
    free(base);
    free(name);
    free(path);
    free(longer);
    return result;
}
