// Files of the registry. Paths have the "\\?\" form, so names mean themselves and may be long.
#include "files.h"

#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "sys.h"

// ------------------------------------------------------------------------------------------------
// Helpers
// ------------------------------------------------------------------------------------------------

int pmi_win_entry_path(const struct pmi_os_dir *dir, const char *name, wchar_t **ret_path)
{
    wchar_t *wide = NULL;
    size_t length = strlen(name);
    // A ':' would name a stream of the file; the rest are wildcards and names that only the "\\?\"
    // form could reach.
    if (length == 0 || strpbrk(name, "\\/:*?\"<>|") != NULL || name[length - 1] == '.' ||
        name[length - 1] == ' ') {
        return PM_ERR_INVALID;
    }
    int result = pmi_win_wide(name, &wide);
    if (result == PM_OK) {
        result = pmi_win_join(dir->path, wide, ret_path);
    }
    free(wide);
    return result;
}

bool pmi_win_try_again(DWORD os_code, unsigned *attempt)
{
    if ((os_code != ERROR_SHARING_VIOLATION && os_code != ERROR_ACCESS_DENIED &&
         os_code != ERROR_USER_MAPPED_FILE) ||
        *attempt >= 20) {
        return false;
    }
    Sleep(*attempt < 6 ? 1u << *attempt : 64);
    ++*attempt;
    return true;
}

HANDLE pmi_win_open_entry(const wchar_t *path, DWORD access, DWORD disposition)
{
    unsigned attempt = 0;
    for (;;) {
        HANDLE file =
            pmi_sys_create_file(path, access, disposition,
                                FILE_FLAG_OPEN_REPARSE_POINT | FILE_FLAG_BACKUP_SEMANTICS);
        if (file != INVALID_HANDLE_VALUE) {
            return file;
        }
        DWORD os_code = GetLastError();
        if (os_code == ERROR_ACCESS_DENIED && pmi_win_is_folder(path)) {
            return NULL; // No moment's matter: a folder cannot be written to.
        }
        if (!pmi_win_try_again(os_code, &attempt)) {
            SetLastError(os_code);
            return NULL;
        }
    }
}

bool pmi_win_is_regular(HANDLE file)
{
    BY_HANDLE_FILE_INFORMATION info;
    return GetFileType(file) == FILE_TYPE_DISK && GetFileInformationByHandle(file, &info) &&
           (info.dwFileAttributes & (FILE_ATTRIBUTE_DIRECTORY | FILE_ATTRIBUTE_REPARSE_POINT)) == 0;
}

DWORD pmi_win_write_all(HANDLE file, const void *data, size_t size)
{
    const char *at = data;
    while (size > 0) {
        DWORD piece = size < 0x100000 ? (DWORD)size : 0x100000;
        DWORD count = 0;
        if (!WriteFile(file, at, piece, &count, NULL)) {
            return GetLastError();
        }
        if (count == 0) {
            return ERROR_WRITE_FAULT;
        }
        at += count;
        size -= count;
    }
    return ERROR_SUCCESS;
}

// ------------------------------------------------------------------------------------------------
// Folders
// ------------------------------------------------------------------------------------------------

static bool make_folder(const wchar_t *path, DWORD *ret_os_code)
{
    SECURITY_ATTRIBUTES sa = {0};
    if (pmi_win_owner_only(FILE_ALL_ACCESS, true, &sa) != PM_OK) {
        *ret_os_code = ERROR_NOT_SUPPORTED;
        return false;
    }
    BOOL made = CreateDirectoryW(path, &sa);
    *ret_os_code = made ? ERROR_SUCCESS : GetLastError();
    pmi_win_security_free(&sa);
    return made || *ret_os_code == ERROR_ALREADY_EXISTS;
}

// Owned by us, a folder and not a link to one. `pin`: while the handle is open nobody can rename or
// remove the folder (it is not shared for deletion).
static int open_folder(const wchar_t *path, bool pin, HANDLE *ret_handle, DWORD *ret_os_code)
{
    BY_HANDLE_FILE_INFORMATION info;
    HANDLE handle =
        CreateFileW(path, FILE_LIST_DIRECTORY | READ_CONTROL | SYNCHRONIZE,
                    FILE_SHARE_READ | FILE_SHARE_WRITE | (pin ? 0 : FILE_SHARE_DELETE), NULL,
                    OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT, NULL);
    *ret_os_code = 0;
    if (handle == INVALID_HANDLE_VALUE) {
        *ret_os_code = GetLastError();
        return pmi_win_code(*ret_os_code);
    }
    int result = PM_OK;
    if (!GetFileInformationByHandle(handle, &info) ||
        (info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) == 0 ||
        (info.dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0) {
        result = PM_ERR_NOT_A_DIRECTORY;
    } else if (!pmi_win_is_ours(handle)) {
        result = PM_ERR_ACCESS;
    }
    if (result != PM_OK) {
        (void)CloseHandle(handle);
        return result;
    }
    *ret_handle = handle;
    return PM_OK;
}

// Takes the path.
static int open_dir(wchar_t *path, bool create, struct pmi_os_dir *ret_dir, DWORD *ret_os_code)
{
    HANDLE handle = NULL;
    *ret_os_code = 0;
    int result = PM_OK;
    if (create && !make_folder(path, ret_os_code)) {
        result = pmi_win_code(*ret_os_code);
    }
    if (result == PM_OK) {
        result = open_folder(path, create, &handle, ret_os_code);
    }
    if (result != PM_OK) {
        free(path);
        return result;
    }
    ret_dir->path = path;
    ret_dir->handle = handle;
    return PM_OK;
}

int pmi_os_dir_open(const char *path, bool create, struct pmi_os_dir *ret_dir, struct pm_error *err)
{
    wchar_t *wide = NULL;
    wchar_t *longer = NULL;
    DWORD os_code = 0;
    int result = pmi_win_wide(path, &wide);
    if (result == PM_OK) {
        result = pmi_win_long_path(wide, &longer, &os_code);
    }
    free(wide);
    if (result == PM_OK) {
        size_t length = wcslen(longer);
        if (length > 7 && longer[length - 1] == L'\\') { // Not of "\\?\C:\".
            longer[length - 1] = L'\0';
        }
        result = open_dir(longer, create, ret_dir, &os_code);
    }
    if (result != PM_OK) {
        bool foreign = result == PM_ERR_ACCESS && os_code == 0;
        (void)pmi_win_refuse(err, result, PM_STAGE_REGISTRY, NULL,
                             foreign ? "the folder belongs to another user" : NULL);
        err->os_code = os_code;
    }
    return result;
}

int pmi_os_dir_open_sub(struct pmi_os_dir *dir, const char *name, bool create,
                        struct pmi_os_dir *ret_dir)
{
    wchar_t *path = NULL;
    DWORD os_code = 0;
    int result = pmi_win_entry_path(dir, name, &path);
    return result == PM_OK ? open_dir(path, create, ret_dir, &os_code) : result;
}

void pmi_os_dir_close(struct pmi_os_dir *dir)
{
    if (dir->handle != NULL) {
        (void)CloseHandle(dir->handle);
    }
    free(dir->path);
    *dir = (struct pmi_os_dir)PMI_OS_DIR_INIT;
}

// One that is no text is none of ours.
static int visit_name(const wchar_t *wide, int (*visit)(void *context, const char *name),
                      void *context)
{
    char *name = NULL;
    if (wcscmp(wide, L".") == 0 || wcscmp(wide, L"..") == 0) {
        return PM_OK;
    }
    int result = pmi_win_narrow(wide, &name);
    if (result == PM_OK) {
        result = visit(context, name);
    } else if (result == PM_ERR_INVALID) {
        result = PM_OK;
    }
    free(name);
    return result;
}

static int walk_folder(const wchar_t *path, int (*visit)(void *context, const char *name),
                       void *context)
{
    WIN32_FIND_DATAW found;
    wchar_t *pattern = NULL;
    int result = pmi_win_join(path, L"*", &pattern);
    if (result != PM_OK) {
        return result;
    }
    HANDLE walk = FindFirstFileW(pattern, &found);
    free(pattern);
    if (walk == INVALID_HANDLE_VALUE) {
        DWORD os_code = GetLastError();
        return os_code == ERROR_FILE_NOT_FOUND ? PM_OK : pmi_win_code(os_code);
    }
    do {
        result = visit_name(found.cFileName, visit, context);
    } while (result == PM_OK && FindNextFileW(walk, &found));
    DWORD os_code = GetLastError();
    if (result == PM_OK && os_code != ERROR_NO_MORE_FILES) {
        result = pmi_win_code(os_code);
    }
    (void)FindClose(walk);
    return result;
}

int pmi_os_dir_list(struct pmi_os_dir *dir, int (*visit)(void *context, const char *name),
                    void *context)
{
    return walk_folder(dir->path, visit, context);
}

// ------------------------------------------------------------------------------------------------
// Files
// ------------------------------------------------------------------------------------------------

static int read_content(HANDLE file, size_t cap, char **ret_data, size_t *ret_size)
{
    size_t room = 4096;
    size_t used = 0;
    char *data = malloc(room + 1);
    for (;;) {
        DWORD count = 0;
        if (data == NULL) {
            return PM_ERR_NO_MEMORY;
        }
        if (!ReadFile(file, data + used, (DWORD)(room - used), &count, NULL)) {
            int result = pmi_win_code(GetLastError());
            free(data);
            return result;
        }
        used += count;
        if (count == 0 || used > cap) {
            break;
        }
        if (used == room) {
            room *= 2;
            char *larger = realloc(data, room + 1);
            if (larger == NULL) {
                free(data);
            }
            data = larger;
        }
    }
    if (used > cap) {
        free(data);
        return PM_ERR_CORRUPT;
    }
    data[used] = '\0';
    *ret_data = data;
    *ret_size = used;
    return PM_OK;
}

int pmi_os_file_read(struct pmi_os_dir *dir, const char *name, size_t cap, char **ret_data,
                     size_t *ret_size)
{
    wchar_t *path = NULL;
    int result = pmi_win_entry_path(dir, name, &path);
    if (result != PM_OK) {
        return result;
    }
    HANDLE file = pmi_win_open_entry(path, GENERIC_READ, OPEN_EXISTING);
    DWORD os_code = GetLastError();
    free(path);
    if (file == NULL) {
        return pmi_win_code(os_code);
    }
    result =
        pmi_win_is_regular(file) ? read_content(file, cap, ret_data, ret_size) : PM_ERR_CORRUPT;
    (void)CloseHandle(file);
    return result;
}

static DWORD move_retrying(const wchar_t *from, const wchar_t *to, DWORD flags)
{
    unsigned attempt = 0;
    for (;;) {
        if (MoveFileExW(from, to, flags)) {
            return ERROR_SUCCESS;
        }
        DWORD os_code = GetLastError();
        if (!pmi_win_try_again(os_code, &attempt)) {
            return os_code;
        }
    }
}

static DWORD remove_retrying(const wchar_t *path)
{
    unsigned attempt = 0;
    for (;;) {
        if (DeleteFileW(path)) {
            return ERROR_SUCCESS;
        }
        DWORD os_code = GetLastError();
        if ((os_code == ERROR_ACCESS_DENIED && pmi_win_is_folder(path)) ||
            !pmi_win_try_again(os_code, &attempt)) {
            return os_code;
        }
    }
}

static DWORD write_temporary(const wchar_t *path, const void *data, size_t size, bool durable)
{
    HANDLE file =
        CreateFileW(path, GENERIC_WRITE, 0, NULL, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, NULL);
    if (file == INVALID_HANDLE_VALUE) {
        return GetLastError();
    }
    DWORD os_code = pmi_win_write_all(file, data, size);
    if (os_code == ERROR_SUCCESS && durable && !FlushFileBuffers(file)) {
        os_code = GetLastError();
    }
    (void)CloseHandle(file);
    return os_code;
}

int pmi_os_file_write(struct pmi_os_dir *dir, const char *name, const void *data, size_t size,
                      bool durable, uint32_t *ret_os_code)
{
    wchar_t *path = NULL;
    wchar_t *temporary = NULL;
    wchar_t temporary_name[32];
    uint64_t nonce = 0;
    DWORD os_code = ERROR_SUCCESS;
    int result = pmi_os_random(&nonce, sizeof nonce);
    (void)_snwprintf(temporary_name, 32, L"%hs%016llx", PMI_TEMPORARY_PREFIX,
                     (unsigned long long)nonce);
    if (result == PM_OK) {
        result = pmi_win_entry_path(dir, name, &path);
    }
    if (result == PM_OK) {
        result = pmi_win_join(dir->path, temporary_name, &temporary);
    }
    if (result == PM_OK) {
        os_code = write_temporary(temporary, data, size, durable);
        if (os_code == ERROR_SUCCESS) {
            os_code =
                move_retrying(temporary, path,
                              MOVEFILE_REPLACE_EXISTING | (durable ? MOVEFILE_WRITE_THROUGH : 0));
        }
        if (os_code != ERROR_SUCCESS) {
            (void)DeleteFileW(temporary);
            result = pmi_win_code(os_code);
        }
    }
    free(path);
    free(temporary);
    if (result != PM_OK) {
        *ret_os_code = os_code;
    }
    return result;
}

int pmi_os_file_remove(struct pmi_os_dir *dir, const char *name)
{
    wchar_t *path = NULL;
    int result = pmi_win_entry_path(dir, name, &path);
    if (result == PM_OK) {
        DWORD os_code = remove_retrying(path);
        result = os_code == ERROR_SUCCESS ? PM_OK : pmi_win_code(os_code);
    }
    free(path);
    return result;
}

int pmi_os_file_move(struct pmi_os_dir *dir, const char *name, struct pmi_os_dir *to_dir,
                     const char *to_name)
{
    wchar_t *from = NULL;
    wchar_t *to = NULL;
    int result = pmi_win_entry_path(dir, name, &from);
    if (result == PM_OK) {
        result = pmi_win_entry_path(to_dir, to_name, &to);
    }
    if (result == PM_OK) {
        DWORD os_code = move_retrying(from, to, MOVEFILE_REPLACE_EXISTING);
        result = os_code == ERROR_SUCCESS ? PM_OK : pmi_win_code(os_code);
    }
    free(from);
    free(to);
    return result;
}

static int remove_entry(void *context, const char *name)
{
    int result = pmi_os_file_remove(context, name);
    return result == PM_ERR_NOT_FOUND || result == PM_ERR_INVALID ? PM_OK : result;
}

int pmi_os_dir_remove_sub(struct pmi_os_dir *dir, const char *name)
{
    struct pmi_os_dir sub = PMI_OS_DIR_INIT;
    int result = pmi_os_dir_open_sub(dir, name, false, &sub); // Refuses links and foreign folders.
    if (result != PM_OK) {
        return result;
    }
    result = walk_folder(sub.path, remove_entry, &sub);
    (void)CloseHandle(sub.handle);
    sub.handle = NULL;
    unsigned attempt = 0;
    while (result == PM_OK && !RemoveDirectoryW(sub.path)) {
        DWORD os_code = GetLastError();
        if (!pmi_win_try_again(os_code, &attempt)) {
            result = pmi_win_code(os_code);
        }
    }
    pmi_os_dir_close(&sub);
    return result;
}
