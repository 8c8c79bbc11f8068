#include "core/cmdline.h"

#include <processmgr/processmgr.h>
#include <string.h>

#include "core/strbuf.h"

static void add_backslashes(struct pmi_strbuf *sb, size_t count)
{
    for (; count > 0; count--) {
        pmi_strbuf_add_char(sb, '\\');
    }
}

// Backslashes count only before a quotation mark: there they are doubled, and the mark gets one.
static void add_argument(struct pmi_strbuf *sb, const char *arg)
{
    if (arg[0] != '\0' && strpbrk(arg, " \t\n\v\"") == NULL) {
        pmi_strbuf_add(sb, arg);
        return;
    }
    size_t backslashes = 0;
    pmi_strbuf_add_char(sb, '"');
    for (; *arg != '\0'; arg++) {
        if (*arg == '\\') {
            backslashes++;
            continue;
        }
        add_backslashes(sb, *arg == '"' ? backslashes * 2 + 1 : backslashes);
        backslashes = 0;
        pmi_strbuf_add_char(sb, *arg);
    }
    add_backslashes(sb, backslashes * 2);
    pmi_strbuf_add_char(sb, '"');
}

// In argv[0] a backslash is never special, so it is quoted as it stands. Unquoted,
// CommandLineToArgvW ends it at any control character, not only at blanks and tabs.
static void add_name(struct pmi_strbuf *sb, const char *name)
{
    bool quote = name[0] == '\0';
    for (const char *c = name; *c != '\0'; c++) {
        quote = quote || (unsigned char)*c <= ' ';
    }
    pmi_strbuf_add(sb, quote ? "\"" : "");
    pmi_strbuf_add(sb, name);
    pmi_strbuf_add(sb, quote ? "\"" : "");
}

int pmi_cmdline_join(const char *const *argv, char **ret_line)
{
    struct pmi_strbuf sb = PMI_STRBUF_INIT;
    if (argv[0] == NULL || strchr(argv[0], '"') != NULL) {
        return PM_ERR_INVALID;
    }
    add_name(&sb, argv[0]);
    for (size_t i = 1; argv[i] != NULL; i++) {
        pmi_strbuf_add_char(&sb, ' ');
        add_argument(&sb, argv[i]);
    }
    char *line = pmi_strbuf_take(&sb);
    if (line == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    *ret_line = line;
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Batch files
// ------------------------------------------------------------------------------------------------

// Not which characters mean something to cmd.exe, but which surely mean nothing.
static bool is_plain(const char *arg)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                                "#$*+-./:?@\\_";
    size_t length = strspn(arg, plain);
    return length > 0 && arg[length] == '\0' && arg[length - 1] != '\\';
}

// Between quotation marks cmd.exe sees nothing but further marks and variables.
//
// A mark inside is doubled: for cmd.exe the text goes on being quoted, and the C runtime of the
// program that the batch file hands its arguments to takes the two for one. Variables: "%cd:~,%" is
// the empty part of a variable that is always there, so "%%cd:~,%" is a percent sign, and no name
// stands between it and the next one.
static void add_batch_text(struct pmi_strbuf *sb, const char *text)
{
    size_t backslashes = 0;
    pmi_strbuf_add_char(sb, '"');
    for (; *text != '\0'; text++) {
        if (*text == '"') {
            add_backslashes(sb, backslashes);
            pmi_strbuf_add_char(sb, '"');
        } else if (*text == '%') {
            pmi_strbuf_add(sb, "%%cd:~,");
        }
        backslashes = *text == '\\' ? backslashes + 1 : 0;
        pmi_strbuf_add_char(sb, *text);
    }
    add_backslashes(sb, backslashes);
    pmi_strbuf_add_char(sb, '"');
}

// A line end ends the command, and Ctrl-Z the input that cmd.exe takes it from.
static bool is_unquotable(const char *text)
{
    return strpbrk(text, "\r\n\x1a") != NULL;
}

int pmi_cmdline_join_batch(const char *shell, const char *script, const char *const *argv,
                           char **ret_line, const char **ret_bad)
{
    struct pmi_strbuf sb = PMI_STRBUF_INIT;
    if (is_unquotable(script) || strchr(script, '"') != NULL) {
        *ret_bad = script;
        return PM_ERR_INVALID;
    }
    for (size_t i = 1; argv[0] != NULL && argv[i] != NULL; i++) {
        if (is_unquotable(argv[i])) {
            *ret_bad = argv[i];
            return PM_ERR_INVALID;
        }
    }
    add_name(&sb, shell);
    // Extensions on, which the percent signs need; no expansion of "!"; no AutoRun from the
    // registry. Of the text behind /c cmd.exe takes off the first and the last mark.
    pmi_strbuf_add(&sb, " /e:ON /v:OFF /d /c \"");
    add_batch_text(&sb, script);
    for (size_t i = 1; argv[0] != NULL && argv[i] != NULL; i++) {
        pmi_strbuf_add_char(&sb, ' ');
        if (is_plain(argv[i])) {
            pmi_strbuf_add(&sb, argv[i]);
        } else {
            add_batch_text(&sb, argv[i]);
        }
    }
    pmi_strbuf_add_char(&sb, '"');
    char *line = pmi_strbuf_take(&sb);
    if (line == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    *ret_line = line;
    return PM_OK;
}

static char lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

// Whether text[0..length) ends in .bat or .cmd once the file system has dropped what it drops.
static bool has_batch_extension(const char *text, size_t length)
{
    while (length > 0 && (text[length - 1] == '.' || text[length - 1] == ' ')) {
        length--;
    }
    if (length < 4 || text[length - 4] != '.') {
        return false;
    }
    char e[3] = {lower(text[length - 3]), lower(text[length - 2]), lower(text[length - 1])};
    return memcmp(e, "bat", 3) == 0 || memcmp(e, "cmd", 3) == 0;
}

// "x.bat::$DATA" is the file x.bat, and "x:y.bat" has the extension that CreateProcess looks for:
// each part between colons counts.
static bool is_batch_name(const char *name, size_t length)
{
    size_t start = 0;
    for (size_t i = 0; i <= length; i++) {
        if (i == length || name[i] == ':') {
            if (has_batch_extension(name + start, i - start)) {
                return true;
            }
            start = i + 1;
        }
    }
    return false;
}

bool pmi_cmdline_is_batch(const char *path)
{
    // From the end, since x.bat\. and x.bat\y\.. name x.bat, too.
    size_t end = strlen(path);
    size_t parents = 0;
    for (;;) {
        size_t start = end;
        while (start > 0 && path[start - 1] != '/' && path[start - 1] != '\\') {
            start--;
        }
        const char *name = path + start;
        size_t length = end - start;
        if (length == 2 && memcmp(name, "..", 2) == 0) {
            parents++;
        } else if (strspn(name, ". ") < length) {
            if (parents == 0) {
                return is_batch_name(name, length);
            }
            parents--;
        }
        if (start == 0) {
            return false;
        }
        end = start - 1;
    }
}
