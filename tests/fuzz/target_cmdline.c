// Command lines of Windows: whatever the arguments, the programs that split the line again get the
// same ones, also through cmd.exe, which is to see nothing in them. An input is the arguments,
// argv[0] first, each ended by a NUL, or by a line end where there is no NUL at all.
//
// The splitting below is written from Microsoft's rules, not from our quoting:
// https://learn.microsoft.com/cpp/c-language/parsing-c-command-line-arguments
// https://learn.microsoft.com/windows/win32/api/shellapi/nf-shellapi-commandlinetoargvw
// https://learn.microsoft.com/windows-server/administration/windows-commands/cmd
#include <processmgr/processmgr.h>
#include <stdlib.h>
#include <string.h>

#include "core/cmdline.h"
#include "fuzz.h"

#define ARGS_MAX 64

const struct fuzz_word fuzz_words[] = {
    FUZZ_WORD("\\"),   FUZZ_WORD("\\\\"),   FUZZ_WORD("\""),      FUZZ_WORD("\"\""),
    FUZZ_WORD("\\\""), FUZZ_WORD("\\\\\""), FUZZ_WORD(" "),       FUZZ_WORD("\t"),
    FUZZ_WORD("\v"),   FUZZ_WORD("\r"),     FUZZ_WORD("\x01"),    FUZZ_WORD("\n"),
    FUZZ_WORD("\n\n"), FUZZ_WORD("\0"),     FUZZ_WORD("a b"),     FUZZ_WORD("C:\\Program Files\\"),
    FUZZ_WORD(".bat"), FUZZ_WORD(".CMD"),   FUZZ_WORD("::$DATA"), FUZZ_WORD("\\.."),
    FUZZ_WORD("/."),   FUZZ_WORD("%"),      FUZZ_WORD("%PATH%"),  FUZZ_WORD("%cd:~,%"),
    FUZZ_WORD("^"),    FUZZ_WORD("&"),      FUZZ_WORD("!"),       FUZZ_WORD("\x1a"),
    FUZZ_WORDS_END};

// The programs that split differ in two places. All of them have to get our arguments.
struct splitter {
    // argv[0] of CommandLineToArgvW: up to the next mark if it begins with one, else up to the
    // first blank or control character. Of the C runtimes: marks toggle.
    bool shell_name;
    // "" within quotation marks is one mark, and the quotation goes on (C runtimes since 2008), or
    // ends (before that, and CommandLineToArgvW).
    bool pair_goes_on;
};

static bool is_blank(char c)
{
    return c == ' ' || c == '\t';
}

// The name of the program: here a backslash is never special. Returns where it ends.
static const char *split_name(const char *at, bool shell_name, char **out)
{
    if (shell_name && *at != '"') {
        while ((unsigned char)*at > ' ') {
            *(*out)++ = *at++;
        }
        return at;
    }
    bool quoted = false;
    while (*at != '\0' && (quoted || !is_blank(*at))) {
        if (*at == '"') {
            quoted = !quoted;
            if (shell_name && !quoted) {
                return at + 1;
            }
        } else {
            *(*out)++ = *at;
        }
        at++;
    }
    return at;
}

static const char *split_argument(const char *at, bool pair_goes_on, char **out)
{
    bool quoted = false;
    while (*at != '\0' && (quoted || !is_blank(*at))) {
        size_t backslashes = strspn(at, "\\");
        at += backslashes;
        if (*at != '"') { // They are as they stand.
            for (; backslashes > 0; backslashes--) {
                *(*out)++ = '\\';
            }
            if (*at != '\0' && (quoted || !is_blank(*at))) {
                *(*out)++ = *at++;
            }
            continue;
        }
        for (size_t i = 0; i < backslashes / 2; i++) {
            *(*out)++ = '\\';
        }
        at++;
        if (backslashes % 2 == 1) {
            *(*out)++ = '"';
        } else if (quoted && *at == '"') {
            *(*out)++ = *at++;
            quoted = pair_goes_on;
        } else {
            quoted = !quoted;
        }
    }
    return at;
}

// Splits a line into NUL-terminated arguments, one behind the other, in `out`, which is as large as
// any result can be. Returns their number.
static size_t split(const char *line, struct splitter how, char *out, size_t *ret_size)
{
    const char *begin = out;
    size_t count = 1;
    const char *at = split_name(line, how.shell_name, &out);
    *out++ = '\0';
    for (;;) {
        while (is_blank(*at)) {
            at++;
        }
        if (*at == '\0') {
            break;
        }
        at = split_argument(at, how.pair_goes_on, &out);
        *out++ = '\0';
        count++;
    }
    *ret_size = (size_t)(out - begin);
    return count;
}

static void check_line(const char *line, const char *expected, size_t expected_size, size_t count)
{
    char *out = fuzz_alloc(strlen(line) + 2);
    for (int i = 0; i < 4; i++) {
        struct splitter how = {(i & 1) != 0, (i & 2) != 0};
        size_t size;
        size_t found = split(line, how, out, &size);
        fuzz_check_same(line, expected, expected_size, out, size);
        FUZZ_CHECK(found == count);
    }
    free(out);
}

static bool is_batch_with(const char *before, const char *path, const char *after)
{
    size_t size = strlen(before) + strlen(path) + strlen(after) + 1;
    char *text = fuzz_alloc(size);
    strcpy(text, before);
    strcat(text, path);
    strcat(text, after);
    bool batch = pmi_cmdline_is_batch(text);
    free(text);
    return batch;
}

// What must not matter to whether a path is one of a batch file.
static void check_batch(const char *path)
{
    bool batch = pmi_cmdline_is_batch(path);
    FUZZ_CHECK(is_batch_with("", path, "\\.") == batch);
    FUZZ_CHECK(is_batch_with("", path, "/x/..") == batch);
    FUZZ_CHECK(path[0] == '\0' || is_batch_with("dir\\", path, "") == batch);
    FUZZ_CHECK(is_batch_with("", path, "/a.bat. "));
    FUZZ_CHECK(!is_batch_with("", path, "/a.exe"));
    char *other = fuzz_copy(path, strlen(path) + 1);
    for (char *c = other; *c != '\0'; c++) {
        *c = (char)(*c == '/' ? '\\' : *c >= 'a' && *c <= 'z' ? *c - 'a' + 'A' : *c);
    }
    FUZZ_CHECK(pmi_cmdline_is_batch(other) == batch);
    free(other);
}

// What cmd.exe makes of variables outside of batch files: a percent sign that no other one follows,
// or that one follows at once, is one; "%cd:~,%" is nothing; there must be no other name.
static void expand_percents(const char *text, char *out)
{
    static const char nothing[] = "%cd:~,%";
    while (*text != '\0') {
        const char *end = *text == '%' ? strchr(text + 1, '%') : NULL;
        if (end == NULL || end == text + 1) {
            *out++ = *text++;
        } else {
            FUZZ_CHECK(strncmp(text, nothing, sizeof(nothing) - 1) == 0);
            text = end + 1;
        }
    }
    *out = '\0';
}

// Everything that means something to cmd.exe is quoted, and no quotation is left open.
static void check_quoting(const char *text)
{
    bool quoted = false;
    for (; *text != '\0'; text++) {
        quoted = quoted != (*text == '"');
        FUZZ_CHECK(quoted || strchr("&|<>()^!,;=%\r\n", *text) == NULL);
    }
    FUZZ_CHECK(!quoted);
}

static void check_batch_line(char *line, const char *expected, size_t expected_size, size_t count)
{
    static const char before[] = "C:\\cmd.exe /e:ON /v:OFF /d /c \"";
    size_t size = strlen(line), found_size;
    FUZZ_CHECK(size > sizeof(before) && strncmp(line, before, sizeof(before) - 1) == 0);
    // Of the text behind /c the first and the last mark go, since there are more of them.
    FUZZ_CHECK(line[size - 1] == '"' && strchr(line + sizeof(before) - 1, '"') != line + size - 1);
    line[size - 1] = '\0';
    char *text = fuzz_alloc(size), *out = fuzz_alloc(size + 1);
    expand_percents(line + sizeof(before) - 1, text);
    check_quoting(text);
    for (int shell_name = 0; shell_name < 2; shell_name++) {
        // Marks are doubled for cmd.exe, which only the newer runtimes read as one.
        size_t found = split(text, (struct splitter){shell_name != 0, true}, out, &found_size);
        fuzz_check_same(text, expected, expected_size, out, found_size);
        FUZZ_CHECK(found == count);
    }
    free(out);
    free(text);
}

// The first of them is the batch file here.
static void check_batch_join(const char *const *argv, const char *expected, size_t size,
                             size_t count)
{
    char *line = NULL;
    const char *bad = NULL, *expected_bad = NULL;
    for (size_t i = count; i > 0; i--) {
        if (strpbrk(argv[i - 1], i == 1 ? "\r\n\x1a\"" : "\r\n\x1a") != NULL) {
            expected_bad = argv[i - 1];
        }
    }
    int result = pmi_cmdline_join_batch("C:\\cmd.exe", argv[0], argv, &line, &bad);
    FUZZ_CHECK(bad == expected_bad);
    FUZZ_CHECK(result == (bad == NULL ? PM_OK : PM_ERR_INVALID));
    FUZZ_CHECK((line != NULL) == (result == PM_OK));
    if (line != NULL) {
        check_batch_line(line, expected, size, count);
    }
    free(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *argv[ARGS_MAX + 1];
    char *text = fuzz_text(data, size);
    const char *ends = strlen(text) < size ? "" : "\n";
    size_t count = 0, used = 0;
    while (used < size && count < ARGS_MAX) {
        argv[count++] = text + used;
        used += strcspn(text + used, ends);
        text[used++] = '\0';
    }
    argv[count] = NULL;
    char *line = NULL;
    int result = pmi_cmdline_join(argv, &line);
    fuzz_note(result == PM_OK);
    if (count == 0 || strchr(argv[0], '"') != NULL) {
        FUZZ_CHECK(result == PM_ERR_INVALID && line == NULL);
    } else {
        FUZZ_CHECK(result == PM_OK);
        check_line(line, text, used, count);
    }
    for (size_t i = 0; i < count; i++) {
        check_batch(argv[i]);
    }
    // A name that ends in a backslash is none of a file.
    if (count > 0 && (argv[0][0] == '\0' || argv[0][strlen(argv[0]) - 1] != '\\')) {
        check_batch_join(argv, text, used, count);
    }
    free(line);
    free(text);
    return 0;
}
