// What is run, and its command line: of a program, of a batch file, or as the caller wrote it.
#include <stdlib.h>
#include <wchar.h>

#include "core/cmdline.h"
#include "win32.h"

// Of a command line that cmd.exe reads, with the NUL.
// https://learn.microsoft.com/troubleshoot/windows-client/shell-experience/command-line-string-limitation
#define SHELL_UNITS_MAX 8192

static int refuse(struct pm_error *err, int code, const char *field, const char *hint)
{
    return pmi_win_refuse(err, code, PM_STAGE_CHECK, field, hint);
}

// Wine cuts a longer line without a word.
static int widen_line(const char *text, size_t units_max, wchar_t **ret_line)
{
    wchar_t *line = NULL;
    int result = pmi_win_wide(text, &line);
    if (result == PM_OK && wcslen(line) >= units_max) {
        free(line);
        return PM_ERR_TOO_BIG;
    }
    if (result == PM_OK) {
        *ret_line = line;
    }
    return result;
}

// ------------------------------------------------------------------------------------------------
// Programs
// ------------------------------------------------------------------------------------------------

static int make_program(const struct pmi_plan *plan, wchar_t **ret_application,
                        struct pm_error *err)
{
    wchar_t *path = NULL;
    int result = pmi_win_wide(plan->program, &path);
    if (result == PM_OK) {
        result = pmi_win_lengthen(&path);
    }
    if (result != PM_OK) {
        free(path);
        return refuse(err, result, "program", NULL);
    }
    *ret_application = path;
    return PM_OK;
}

static int make_line(const struct pmi_plan *plan, wchar_t **ret_line, struct pm_error *err)
{
    if (plan->spec->raw_command_line != NULL) {
        int result = widen_line(plan->spec->raw_command_line, PMI_WIN_UNITS_MAX, ret_line);
        return result == PM_OK ? PM_OK : refuse(err, result, "raw_command_line", NULL);
    }
    char *text = NULL;
    int result = pmi_cmdline_join(plan->argv, &text);
    if (result == PM_OK) {
        result = widen_line(text, PMI_WIN_UNITS_MAX, ret_line);
        free(text);
    }
    return result == PM_OK ? PM_OK : refuse(err, result, "argv", NULL);
}

// ------------------------------------------------------------------------------------------------
// Batch files
// ------------------------------------------------------------------------------------------------

// Not from COMSPEC and not by a search: whoever sets those would be run.
static int find_shell(wchar_t **ret_path)
{
    wchar_t folder[MAX_PATH];
    UINT length = GetSystemDirectoryW(folder, MAX_PATH);
    if (length == 0 || length >= MAX_PATH) {
        return PM_ERR_SYSTEM;
    }
    return pmi_win_join(folder, L"cmd.exe", ret_path);
}

static bool is_literal(const wchar_t *path)
{
    return wcsncmp(path, L"\\\\?\\", 4) == 0;
}

// cmd.exe has no "\\?\" paths and cannot have a share as its current folder: it would run the file
// in the folder of Windows.
static int check_batch(const struct pmi_plan *plan, struct pm_error *err)
{
    wchar_t *path = NULL;
    wchar_t *folder = NULL;
    wchar_t *full = NULL;
    int result = pmi_win_wide(plan->program, &path);
    if (result == PM_OK) {
        result = pmi_win_wide(plan->cwd != NULL ? plan->cwd : ".", &folder);
    }
    if (result == PM_OK) {
        result = pmi_win_full_path(folder, &full, NULL);
    }
    if (result != PM_OK) {
        (void)refuse(err, result, "program", NULL);
    } else if (is_literal(path) || is_literal(full)) {
        result = refuse(err, PM_ERR_UNSUPPORTED, is_literal(path) ? "program" : "cwd",
                        "cmd.exe does not take paths that begin with \\\\?\\");
    } else if (wcslen(path) >= MAX_PATH) {
        result = refuse(err, PM_ERR_TOO_BIG, "program", "cmd.exe takes 259 characters");
    } else if (full[0] == L'\\' && full[1] == L'\\') {
        result = refuse(err, PM_ERR_UNSUPPORTED, "cwd", "cmd.exe cannot work in a shared folder");
    }
    free(path);
    free(folder);
    free(full);
    return result;
}

static int make_batch_line(const struct pmi_plan *plan, const wchar_t *shell, wchar_t **ret_line,
                           struct pm_error *err)
{
    char *name = NULL;
    char *text = NULL;
    const char *bad = NULL;
    int result = pmi_win_narrow(shell, &name);
    if (result == PM_OK) {
        result = pmi_cmdline_join_batch(name, plan->program, plan->argv, &text, &bad);
    }
    if (result == PM_OK) {
        result = widen_line(text, SHELL_UNITS_MAX, ret_line);
    }
    free(name);
    free(text);
    if (result == PM_ERR_TOO_BIG) {
        return refuse(err, result, "argv",
                      "cmd.exe, which runs batch files, takes 8191 characters");
    }
    if (result == PM_ERR_INVALID && bad != NULL) {
        return refuse(err, result, bad == plan->program ? "program" : "argv",
                      "a line end or Ctrl-Z cannot be passed to a batch file");
    }
    return result == PM_OK ? PM_OK : refuse(err, result, "argv", NULL);
}

static int make_batch(const struct pmi_plan *plan, wchar_t **ret_application, wchar_t **ret_line,
                      struct pm_error *err)
{
    wchar_t *shell = NULL;
    if (!plan->spec->allow_batch_file) {
        return refuse(err, PM_ERR_UNSUPPORTED, "program",
                      "a batch file, which cmd.exe would run by rules of its own: set "
                      "allow_batch_file");
    }
    if (plan->spec->raw_command_line != NULL) {
        return refuse(err, PM_ERR_INVALID, "raw_command_line",
                      "not for batch files: cmd.exe could take a part of it for a command");
    }
    int result = check_batch(plan, err);
    if (result != PM_OK) {
        return result;
    }
    result = find_shell(&shell);
    if (result != PM_OK) {
        return refuse(err, result, "program", "the system's cmd.exe is not found");
    }
    result = make_batch_line(plan, shell, ret_line, err);
    if (result != PM_OK) {
        free(shell);
        return result;
    }
    *ret_application = shell;
    return PM_OK;
}

int pmi_win_command(const struct pmi_plan *plan, wchar_t **ret_application, wchar_t **ret_line,
                    struct pm_error *err)
{
    wchar_t *application = NULL;
    if (pmi_cmdline_is_batch(plan->program)) {
        return make_batch(plan, ret_application, ret_line, err);
    }
    int result = make_program(plan, &application, err);
    if (result != PM_OK) {
        return result;
    }
    result = make_line(plan, ret_line, err);
    if (result != PM_OK) {
        free(application);
        return result;
    }
    *ret_application = application;
    return PM_OK;
}
