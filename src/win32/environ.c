#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "win32.h"

bool pmi_os_env_folds_case(void)
{
    return true;
}

// Grows the block of texts by one entry.
static int append(char **texts, size_t *used, size_t *capacity, const wchar_t *entry)
{
    char *text = NULL;
    int result = pmi_win_narrow(entry, &text);
    if (result != PM_OK) {
        return result;
    }
    size_t size = strlen(text) + 1;
    if (size > *capacity - *used) {
        size_t larger = *capacity * 2 + size;
        char *block = realloc(*texts, larger);
        if (block == NULL) {
            free(text);
            return PM_ERR_NO_MEMORY;
        }
        *texts = block;
        *capacity = larger;
    }
    memcpy(*texts + *used, text, size);
    *used += size;
    free(text);
    return PM_OK;
}

// One block: the pointers, then the texts.
static int pack(const char *texts, size_t used, size_t count, const char *const **ret_env)
{
    const char **env = malloc((count + 1) * sizeof *env + used);
    if (env == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    char *at = (char *)(env + count + 1);
    if (used > 0) {
        memcpy(at, texts, used);
    }
    for (size_t i = 0; i < count; i++) {
        env[i] = at;
        at += strlen(at) + 1;
    }
    env[count] = NULL;
    *ret_env = env;
    return PM_OK;
}

// Hidden entries such as "=C:=C:\folder" are kept: they hold the current folder of each drive.
int pmi_os_environ(const char *const **ret_env)
{
    wchar_t *block = GetEnvironmentStringsW();
    char *texts = NULL;
    size_t used = 0;
    size_t capacity = 0;
    size_t count = 0;
    int result = block != NULL ? PM_OK : PM_ERR_NO_MEMORY;
    for (wchar_t *entry = block; result == PM_OK && *entry != L'\0'; entry += wcslen(entry) + 1) {
        result = append(&texts, &used, &capacity, entry);
        count++;
    }
    if (result == PM_OK) {
        result = pack(texts, used, count, ret_env);
    }
    if (block != NULL) {
        (void)FreeEnvironmentStringsW(block);
    }
    free(texts);
    return result;
}

void pmi_os_environ_free(const char *const *env)
{
    free((void *)(uintptr_t)env);
}
