#include "core/env.h"

#include <processmgr/processmgr.h>
#include <stdlib.h>
#include <string.h>

static unsigned char upper(unsigned char c)
{
    return c >= 'a' && c <= 'z' ? (unsigned char)(c - 'a' + 'A') : c;
}

static bool is_odd(const char *entry)
{
    return entry[0] == '=' || strchr(entry, '=') == NULL;
}

static size_t name_length(const char *entry)
{
    return strcspn(entry, "=");
}

static bool same_name(const char *a, size_t a_length, const char *b, size_t b_length, bool fold)
{
    if (a_length != b_length) {
        return false;
    }
    for (size_t i = 0; i < a_length; i++) {
        unsigned char x = (unsigned char)a[i], y = (unsigned char)b[i];
        if (fold ? upper(x) != upper(y) : x != y) {
            return false;
        }
    }
    return true;
}

const char *pmi_env_get(const char *const *env, const char *name, bool fold_case)
{
    size_t length = strlen(name);
    const char *value = NULL;
    for (; *env != NULL; env++) {
        if (!is_odd(*env) && same_name(*env, name_length(*env), name, length, fold_case)) {
            value = *env + length + 1;
        }
    }
    return value;
}

// Puts an entry into the list: in the place of an older one of its name, else at the end.
static void put(const char **list, size_t *count, const char *entry, bool fold)
{
    size_t length = name_length(entry);
    for (size_t i = 0; i < *count; i++) {
        if (!is_odd(list[i]) && same_name(list[i], name_length(list[i]), entry, length, fold)) {
            list[i] = entry;
            return;
        }
    }
    list[(*count)++] = entry;
}

static void take_out(const char **list, size_t *count, const char *name, bool fold)
{
    size_t length = strlen(name);
    size_t kept = 0;
    for (size_t i = 0; i < *count; i++) {
        if (is_odd(list[i]) || !same_name(list[i], name_length(list[i]), name, length, fold)) {
            list[kept++] = list[i];
        }
    }
    *count = kept;
}

// Ordinal order of the upper-cased names; equal ones, which only the odd entries can be, by their
// bytes, since qsort may exchange them.
static int compare_folded(const void *a, const void *b)
{
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;
    size_t x_length = x[0] == '=' ? strlen(x) : name_length(x);
    size_t y_length = y[0] == '=' ? strlen(y) : name_length(y);
    for (size_t i = 0; i < x_length && i < y_length; i++) {
        int difference = upper((unsigned char)x[i]) - upper((unsigned char)y[i]);
        if (difference != 0) {
            return difference;
        }
    }
    if (x_length != y_length) {
        return x_length > y_length ? 1 : -1;
    }
    return strcmp(x, y);
}

// One block: the pointers, then the strings they point at.
static int pack(const char **list, size_t count, char ***ret_env)
{
    size_t bytes = (count + 1) * sizeof(char *);
    for (size_t i = 0; i < count; i++) {
        bytes += strlen(list[i]) + 1;
    }
    char **env = malloc(bytes);
    if (env == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    char *at = (char *)(env + count + 1);
    for (size_t i = 0; i < count; i++) {
        size_t size = strlen(list[i]) + 1;
        memcpy(at, list[i], size);
        env[i] = at;
        at += size;
    }
    env[count] = NULL;
    *ret_env = env;
    return PM_OK;
}

int pmi_env_merge(const char *const *base, const char *const *changes, bool fold_case,
                  char ***ret_env, const char **ret_bad)
{
    size_t most = 1;
    for (size_t i = 0; base[i] != NULL; i++) {
        most++;
    }
    for (size_t i = 0; changes[i] != NULL; i++) {
        if (changes[i][0] == '\0' || changes[i][0] == '=') {
            *ret_bad = changes[i];
            return PM_ERR_INVALID;
        }
        most++;
    }
    const char **list = malloc(most * sizeof *list);
    if (list == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    size_t count = 0;
    for (size_t i = 0; base[i] != NULL; i++) {
        if (is_odd(base[i])) {
            list[count++] = base[i];
        } else {
            put(list, &count, base[i], fold_case);
        }
    }
    for (size_t i = 0; changes[i] != NULL; i++) {
        if (strchr(changes[i], '=') != NULL) {
            put(list, &count, changes[i], fold_case);
        } else {
            take_out(list, &count, changes[i], fold_case);
        }
    }
    if (fold_case) {
        qsort(list, count, sizeof *list, compare_folded);
    }
    int result = pack(list, count, ret_env);
    free(list);
    return result;
}
