// Merging of environments, against a reference that is slow and plain. An input is a byte, odd for
// names without regard to case, then entries, each ended by a line end or a NUL: those that begin
// with '+' are changes, the others the base.
#include <processmgr/processmgr.h>
#include <stdlib.h>
#include <string.h>

#include "core/env.h"
#include "fuzz.h"

#define ENTRIES_MAX 96

const struct fuzz_word fuzz_words[] = {
    FUZZ_WORD("\n"),        FUZZ_WORD("\n+"),     FUZZ_WORD("\n+A\n"), FUZZ_WORD("\n+A=9\n"),
    FUZZ_WORD("\na=1\n"),   FUZZ_WORD("\nA=2\n"), FUZZ_WORD("\nA\n"),  FUZZ_WORD("\n=C:=C:\\\n"),
    FUZZ_WORD("\n=c:=x\n"), FUZZ_WORD("\n+=\n"),  FUZZ_WORD("\n+\n"),  FUZZ_WORD("="),
    FUZZ_WORD("_"),         FUZZ_WORD("Path"),    FUZZ_WORD("PATH"),   FUZZ_WORD("\xc3\xa9"),
    FUZZ_WORDS_END};

struct input {
    bool fold;
    const char *base[ENTRIES_MAX + 1], *changes[ENTRIES_MAX + 1];
    size_t base_count, changes_count;
    char *owned[2 * ENTRIES_MAX]; // All of them.
};

// ------------------------------------------------------------------------------------------------
// The reference: an entry stays if nothing later says otherwise
// ------------------------------------------------------------------------------------------------

// Upper case of ASCII by table.
static int folded(char c, bool fold)
{
    static const char small[] = "abcdefghijklmnopqrstuvwxyz";
    static const char large[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const char *found = fold && c != '\0' ? strchr(small, c) : NULL;
    return (unsigned char)(found != NULL ? large[found - small] : c);
}

static bool is_plain(const char *entry)
{
    return entry[0] != '=' && strchr(entry, '=') != NULL;
}

// Names up to the first '=' or the end.
static int compare_names(const char *a, const char *b, bool fold)
{
    for (;; a++, b++) {
        bool a_ends = *a == '\0' || *a == '=', b_ends = *b == '\0' || *b == '=';
        if (a_ends || b_ends) {
            return (int)b_ends - (int)a_ends;
        }
        if (folded(*a, fold) != folded(*b, fold)) {
            return folded(*a, fold) < folded(*b, fold) ? -1 : 1;
        }
    }
}

// Order of the result with `fold`. An entry that begins with '=' is a name as a whole.
static bool comes_before(const char *a, const char *b)
{
    size_t a_length = a[0] == '=' ? strlen(a) : strcspn(a, "=");
    size_t b_length = b[0] == '=' ? strlen(b) : strcspn(b, "=");
    size_t same = 0;
    while (same < a_length && same < b_length && folded(a[same], true) == folded(b[same], true)) {
        same++;
    }
    if (same == a_length && same == b_length) {
        return strcmp(a, b) < 0;
    }
    return same == a_length || (same < b_length && folded(a[same], true) < folded(b[same], true));
}

// What stands at an index of base and changes, one behind the other.
static const char *statement(const struct input *in, size_t i)
{
    return i < in->base_count ? in->base[i] : in->changes[i - in->base_count];
}

// Whether entry i speaks about the name of entry `about`; a base entry without '=' never does.
static bool speaks_about(const struct input *in, size_t i, size_t about)
{
    bool speaks = i >= in->base_count || is_plain(in->base[i]);
    return speaks && compare_names(statement(in, i), statement(in, about), in->fold) == 0;
}

// The entry that stands in the place that entry i opens, or NULL if i opens none: it is the first
// of its name since the name was last taken out, and the last word about it counts.
static const char *entry_of_place(const struct input *in, size_t i)
{
    size_t all = in->base_count + in->changes_count;
    if (i < in->base_count && !is_plain(in->base[i])) {
        return in->base[i];
    }
    if (strchr(statement(in, i), '=') == NULL) {
        return NULL;
    }
    for (size_t k = i; k > 0; k--) {
        if (speaks_about(in, k - 1, i)) {
            if (strchr(statement(in, k - 1), '=') != NULL) {
                return NULL; // The place was open already.
            }
            break;
        }
    }
    const char *last = statement(in, i);
    for (size_t k = i + 1; k < all; k++) {
        if (speaks_about(in, k, i)) {
            if (strchr(statement(in, k), '=') == NULL) {
                return NULL;
            }
            last = statement(in, k);
        }
    }
    return last;
}

static size_t merge_plainly(const struct input *in, const char **result)
{
    size_t count = 0;
    for (size_t i = 0; i < in->base_count + in->changes_count; i++) {
        const char *entry = entry_of_place(in, i);
        if (entry == NULL) {
            continue;
        }
        size_t at = count++;
        for (; in->fold && at > 0 && comes_before(entry, result[at - 1]); at--) {
            result[at] = result[at - 1];
        }
        result[at] = entry;
    }
    result[count] = NULL;
    return count;
}

// ------------------------------------------------------------------------------------------------
// The checks
// ------------------------------------------------------------------------------------------------

static const char *first_bad(const struct input *in)
{
    for (size_t i = 0; i < in->changes_count; i++) {
        if (in->changes[i][0] == '\0' || in->changes[i][0] == '=') {
            return in->changes[i];
        }
    }
    return NULL;
}

// Each name that was spoken of is found in env, or not, with the last value that stands in
// expected.
static void check_get(const struct input *in, const char *const *env, const char *const *expected)
{
    for (size_t i = 0; i < in->base_count + in->changes_count; i++) {
        const char *entry = statement(in, i);
        size_t length = strcspn(entry, "=");
        char *name = fuzz_text(entry, length);
        const char *value = NULL;
        for (size_t k = 0; expected[k] != NULL; k++) {
            if (is_plain(expected[k]) && compare_names(expected[k], name, in->fold) == 0) {
                value = expected[k] + length + 1;
            }
        }
        const char *found = pmi_env_get(env, name, in->fold);
        FUZZ_CHECK((found == NULL) == (value == NULL));
        FUZZ_CHECK(found == NULL || strcmp(found, value) == 0);
        free(name);
    }
}

static void check_merge(const struct input *in)
{
    char **env = NULL;
    const char *bad = NULL;
    int result = pmi_env_merge(in->base, in->changes, in->fold, &env, &bad);
    fuzz_note(result == PM_OK);
    const char *expected_bad = first_bad(in);
    FUZZ_CHECK(bad == expected_bad);
    if (expected_bad != NULL) {
        FUZZ_CHECK(result == PM_ERR_INVALID && env == NULL);
        return;
    }
    FUZZ_CHECK(result == PM_OK);
    const char *expected[2 * ENTRIES_MAX + 1];
    size_t count = merge_plainly(in, expected);
    for (size_t i = 0; i < count; i++) {
        FUZZ_CHECK(env[i] != NULL);
        fuzz_check_same("An entry of the merged environment is another one.", expected[i],
                        strlen(expected[i]), env[i], strlen(env[i]));
    }
    FUZZ_CHECK(env[count] == NULL);
    check_get(in, (const char *const *)env, expected);
    check_get(in, in->base, in->base);
    free(env);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {.fold = size > 0 && (data[0] & 1) != 0};
    char *text = fuzz_text(data, size);
    size_t at = 1;
    while (at < size && in.base_count < ENTRIES_MAX && in.changes_count < ENTRIES_MAX) {
        char *entry = text + at;
        at += strcspn(entry, "\n");
        text[at++] = '\0';
        // A copy of its own size, so that a sanitizer sees each step beyond its end.
        bool change = entry[0] == '+';
        entry = fuzz_copy(entry + change, strlen(entry + change) + 1);
        in.owned[in.base_count + in.changes_count] = entry;
        if (change) {
            in.changes[in.changes_count++] = entry;
        } else {
            in.base[in.base_count++] = entry;
        }
    }
    check_merge(&in);
    for (size_t i = 0; i < in.base_count + in.changes_count; i++) {
        free(in.owned[i]);
    }
    free(text);
    return 0;
}
