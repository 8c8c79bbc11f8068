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

int pmi_cmdline_join(const char *const *argv, char **ret_line)
{
    struct pmi_strbuf sb = PMI_STRBUF_INIT;
    if (argv[0] == NULL || strchr(argv[0], '"') != NULL) {
        return PM_ERR_INVALID;
    }
    // In argv[0] a backslash is never special, so it is quoted as it stands. Unquoted,
    // CommandLineToArgvW ends it at any control character, not only at blanks and tabs.
    bool quote = argv[0][0] == '\0';
    for (const char *c = argv[0]; *c != '\0'; c++) {
        quote = quote || (unsigned char)*c <= ' ';
    }
    pmi_strbuf_add(&sb, quote ? "\"" : "");
    pmi_strbuf_add(&sb, argv[0]);
    pmi_strbuf_add(&sb, quote ? "\"" : "");
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
