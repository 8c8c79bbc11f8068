#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "core/utf.h"
#include "win32.h"

_Static_assert(sizeof(wchar_t) == sizeof(uint16_t), "wchar_t is a UTF-16 unit");

int pmi_win_wide(const char *text, wchar_t **ret_text)
{
    uint16_t *units = NULL;
    size_t count = 0;
    int result = pmi_utf8_to_utf16(text, &units, &count);
    if (result == PM_OK) {
        *ret_text = (wchar_t *)units;
    }
    return result;
}

int pmi_win_narrow(const wchar_t *text, char **ret_text)
{
    return pmi_utf16_to_utf8((const uint16_t *)text, wcslen(text), ret_text);
}

void pmi_win_copy_text(char *to, size_t capacity, const char *text)
{
    size_t length = strlen(text);
    if (length >= capacity) {
        length = capacity - 1;
        while (length > 0 && ((unsigned char)text[length] & 0xc0) == 0x80) {
            length--;
        }
    }
    memcpy(to, text, length);
    to[length] = '\0';
}

int pmi_win_join(const wchar_t *folder, const wchar_t *name, wchar_t **ret_path)
{
    size_t a = wcslen(folder);
    size_t b = wcslen(name);
    wchar_t *path = malloc((a + b + 2) * sizeof *path);
    if (path == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    memcpy(path, folder, a * sizeof *path);
    if (a > 0 && folder[a - 1] != L'\\' && folder[a - 1] != L'/') {
        path[a++] = L'\\';
    }
    memcpy(path + a, name, (b + 1) * sizeof *path);
    *ret_path = path;
    return PM_OK;
}

int pmi_win_full_path(const wchar_t *path, wchar_t **ret_path, DWORD *ret_os_code)
{
    DWORD capacity = MAX_PATH;
    for (;;) {
        wchar_t *full = malloc(capacity * sizeof *full);
        if (full == NULL) {
            return PM_ERR_NO_MEMORY;
        }
        DWORD length = GetFullPathNameW(path, capacity, full, NULL);
        if (length > 0 && length < capacity) {
            *ret_path = full;
            return PM_OK;
        }
        DWORD os_code = GetLastError();
        free(full);
        if (length == 0) {
            if (ret_os_code != NULL) {
                *ret_os_code = os_code;
            }
            return pmi_win_code(os_code);
        }
        capacity = length + 1; // Again: another thread may change the current folder meanwhile.
    }
}

static bool has_prefix(const wchar_t *path)
{
    return wcsncmp(path, L"\\\\?\\", 4) == 0 || wcsncmp(path, L"\\\\.\\", 4) == 0;
}

// From a full path.
static int add_prefix(const wchar_t *full, wchar_t **ret_path)
{
    bool share = wcsncmp(full, L"\\\\", 2) == 0;
    const wchar_t *prefix = share ? L"\\\\?\\UNC\\" : L"\\\\?\\";
    const wchar_t *rest = share ? full + 2 : full;
    return pmi_win_join(prefix, rest, ret_path);
}

int pmi_win_long_path(const wchar_t *path, wchar_t **ret_path, DWORD *ret_os_code)
{
    wchar_t *full = NULL;
    int result = pmi_win_full_path(path, &full, ret_os_code);
    if (result != PM_OK) {
        return result;
    }
    if (has_prefix(full)) {
        *ret_path = full;
        return PM_OK;
    }
    result = add_prefix(full, ret_path);
    free(full);
    return result;
}

int pmi_win_lengthen(wchar_t **path)
{
    if (wcslen(*path) < MAX_PATH - 1 || has_prefix(*path)) {
        return PM_OK;
    }
    wchar_t *longer = NULL;
    int result = add_prefix(*path, &longer);
    if (result == PM_OK) {
        free(*path);
        *path = longer;
    }
    return result;
}

bool pmi_win_is_folder(const wchar_t *path)
{
    DWORD attributes = GetFileAttributesW(path);
    return attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
}

bool pmi_win_is_file(const wchar_t *path)
{
    DWORD attributes = GetFileAttributesW(path);
    return attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY) == 0;
}
