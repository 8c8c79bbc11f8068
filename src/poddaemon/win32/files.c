// Text, errors and security descriptors are those of the library's own backend (src/win32).
#include <stdlib.h>
#include <string.h>

#include "poddaemon/os.h"
#include "win32/win32.h"

#define RENAME_WAIT_MS 2000
#define TEMPORARY "exit.new"
#define SHARE_ALL (FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE)
// A link is opened itself, and then refused.
#define OPEN_FLAGS (FILE_ATTRIBUTE_NORMAL | FILE_FLAG_OPEN_REPARSE_POINT)

static int last_error(void)
{
    DWORD os_code = GetLastError();
    return os_code == ERROR_FILE_NOT_FOUND || os_code == ERROR_PATH_NOT_FOUND ? PM_ERR_NOT_FOUND
           : os_code == ERROR_ALREADY_EXISTS || os_code == ERROR_FILE_EXISTS
               ? PM_ERR_EXISTS
               : pmi_win_code(os_code);
}

// "<folder>\<name>", as long as the system allows. malloc'd.
static int path_in(const struct pod_dir *dir, const char *name, wchar_t **ret_path)
{
    wchar_t *folder = NULL, *part = NULL, *plain = NULL;
    int result = pmi_win_wide(dir->path, &folder);
    if (result == PM_OK) {
        result = pmi_win_wide(name, &part);
    }
    if (result == PM_OK) {
        result = pmi_win_join(folder, part, &plain);
    }
    if (result == PM_OK) {
        result = pmi_win_long_path(plain, ret_path, NULL);
    }
    free(folder);
    free(part);
    free(plain);
    return result;
}

// ------------------------------------------------------------------------------------------------
// Folders
// ------------------------------------------------------------------------------------------------

int pod_dir_create(const char *path)
{
    wchar_t *plain = NULL, *wide = NULL;
    SECURITY_ATTRIBUTES sa = {0};
    int result = pmi_win_wide(path, &plain);
    if (result == PM_OK) {
        result = pmi_win_long_path(plain, &wide, NULL);
    }
    if (result == PM_OK) {
        result = pmi_win_owner_only(FILE_ALL_ACCESS, true, &sa);
    }
    if (result == PM_OK && !CreateDirectoryW(wide, &sa)) {
        result = last_error();
    }
    pmi_win_security_free(&sa);
    free(plain);
    free(wide);
    return result;
}

// That a handle is no link, of the right kind, and ours.
static int prove(HANDLE handle, bool folder)
{
    BY_HANDLE_FILE_INFORMATION info;
    if (!GetFileInformationByHandle(handle, &info)) {
        return last_error();
    }
    if ((info.dwFileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0) {
        return folder ? PM_ERR_NOT_A_DIRECTORY : PM_ERR_ACCESS;
    }
    if (((info.dwFileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0) != folder) {
        return folder ? PM_ERR_NOT_A_DIRECTORY : PM_ERR_ACCESS;
    }
    bool one_name = folder || info.nNumberOfLinks <= 1;
    return one_name && pmi_win_is_ours(handle) ? PM_OK : PM_ERR_ACCESS;
}

int pod_dir_open(const char *path, struct pod_dir *ret_dir)
{
    wchar_t *plain = NULL, *wide = NULL;
    struct pod_dir dir = POD_DIR_INIT;
    int result = pmi_win_wide(path, &plain);
    if (result == PM_OK) {
        result = pmi_win_long_path(plain, &wide, NULL);
    }
    if (result == PM_OK) {
        dir.handle =
            CreateFileW(wide, FILE_LIST_DIRECTORY | READ_CONTROL, SHARE_ALL, NULL, OPEN_EXISTING,
                        FILE_FLAG_BACKUP_SEMANTICS | FILE_FLAG_OPEN_REPARSE_POINT, NULL);
        if (dir.handle == INVALID_HANDLE_VALUE) {
            dir.handle = NULL;
            result = last_error();
        }
    }
    if (result == PM_OK) {
        result = prove(dir.handle, true);
    }
    if (result == PM_OK && (dir.path = strdup(path)) == NULL) {
        result = PM_ERR_NO_MEMORY;
    }
    free(plain);
    free(wide);
    if (result != PM_OK) {
        pod_dir_close(&dir);
        return result;
    }
    *ret_dir = dir;
    return PM_OK;
}

void pod_dir_close(struct pod_dir *dir)
{
    if (dir->handle != NULL) {
        (void)CloseHandle(dir->handle);
    }
    if (dir->lock != NULL) {
        (void)CloseHandle(dir->lock);
    }
    free(dir->path);
    *dir = (struct pod_dir)POD_DIR_INIT;
}

bool pod_dir_is_removed(const struct pod_dir *dir)
{
    FILE_STANDARD_INFO info;
    return GetFileInformationByHandleEx(dir->handle, FileStandardInfo, &info, sizeof info) &&
           info.DeletePending;
}

struct open_how {
    DWORD access, share, disposition;
};

static int open_in(const struct pod_dir *dir, const char *name, struct open_how how,
                   HANDLE *ret_handle)
{
    wchar_t *path = NULL;
    int result = path_in(dir, name, &path);
    if (result != PM_OK) {
        return result;
    }
    HANDLE handle = POD_SYS(CreateFileW)(path, how.access | READ_CONTROL, how.share, NULL,
                                         how.disposition, OPEN_FLAGS, NULL);
    DWORD os_code = GetLastError();
    free(path);
    if (handle == INVALID_HANDLE_VALUE) {
        SetLastError(os_code);
        return os_code == ERROR_SHARING_VIOLATION ? PM_ERR_BUSY : last_error();
    }
    result = prove(handle, false);
    if (result != PM_OK) {
        (void)CloseHandle(handle);
        return result;
    }
    *ret_handle = handle;
    return PM_OK;
}

int pod_dir_lock(struct pod_dir *dir)
{
    const struct open_how how = {GENERIC_READ | GENERIC_WRITE, 0, OPEN_ALWAYS};
    HANDLE handle;
    int result = open_in(dir, POD_FILE_LOCK, how, &handle);
    if (result == PM_OK) {
        dir->lock = handle;
    }
    return result;
}

// ------------------------------------------------------------------------------------------------
// Files
// ------------------------------------------------------------------------------------------------

int pod_file_read(struct pod_dir *dir, const char *name, size_t max, uint8_t **ret_bytes,
                  size_t *ret_size)
{
    const struct open_how how = {GENERIC_READ, SHARE_ALL, OPEN_EXISTING};
    HANDLE handle;
    LARGE_INTEGER size = {.QuadPart = 0};
    uint8_t *bytes = NULL;
    int result = open_in(dir, name, how, &handle);
    if (result != PM_OK) {
        return result;
    }
    if (!GetFileSizeEx(handle, &size)) {
        result = last_error();
    } else if ((uint64_t)size.QuadPart > max) {
        result = PM_ERR_TOO_BIG;
    } else if ((bytes = malloc((size_t)size.QuadPart + 1)) == NULL) {
        result = PM_ERR_NO_MEMORY;
    }
    for (size_t have = 0; result == PM_OK && have < (size_t)size.QuadPart;) {
        DWORD n = 0;
        if (!ReadFile(handle, bytes + have, (DWORD)((size_t)size.QuadPart - have), &n, NULL)) {
            result = last_error();
        } else if (n == 0) {
            result = PM_ERR_IO; // It was cut meanwhile.
        }
        have += n;
    }
    (void)CloseHandle(handle);
    if (result != PM_OK) {
        free(bytes);
        return result;
    }
    bytes[size.QuadPart] = '\0';
    *ret_bytes = bytes;
    *ret_size = (size_t)size.QuadPart;
    return PM_OK;
}

int pod_file_begin(struct pod_dir *dir, struct pod_new_file *ret_file)
{
    const struct open_how how = {GENERIC_WRITE, FILE_SHARE_READ, CREATE_NEW};
    HANDLE handle;
    (void)pod_file_remove(dir, TEMPORARY); // Of a write that did not come to its end.
    int result = open_in(dir, TEMPORARY, how, &handle);
    if (result == PM_OK) {
        *ret_file = (struct pod_new_file){.file = (pm_native)handle};
    }
    return result;
}

// *ret_count is written in every case.
static int write_all(HANDLE handle, const void *data, size_t size, size_t *ret_count)
{
    size_t count = 0;
    int result = PM_OK;
    while (count < size && result == PM_OK) {
        DWORD n = 0;
        DWORD some = size - count < 0x100000 ? (DWORD)(size - count) : 0x100000;
        if (!POD_SYS(WriteFile)(handle, (const char *)data + count, some, &n, NULL)) {
            result = last_error();
        }
        count += n;
    }
    *ret_count = count;
    return result;
}

int pod_file_put(struct pod_new_file *file, const void *data, size_t size)
{
    size_t count;
    return write_all((HANDLE)file->file, data, size, &count);
}

static int move(struct pod_dir *dir, const char *from, const char *to, DWORD flags)
{
    wchar_t *from_path = NULL, *to_path = NULL;
    int result = path_in(dir, from, &from_path);
    if (result == PM_OK) {
        result = path_in(dir, to, &to_path);
    }
    if (result == PM_OK &&
        !POD_SYS(MoveFileExW)(from_path, to_path, flags | MOVEFILE_WRITE_THROUGH)) {
        result = last_error();
    }
    free(from_path);
    free(to_path);
    return result;
}

int pod_file_commit(struct pod_dir *dir, struct pod_new_file *file, const char *name,
                    enum pod_sync sync)
{
    HANDLE handle = (HANDLE)file->file;
    int result = sync == POD_SYNC_NONE || POD_SYS(FlushFileBuffers)(handle) ? PM_OK : last_error();
    (void)CloseHandle(handle);
    file->file = PM_NATIVE_INVALID;
    if (result == PM_OK) {
        result = move(dir, TEMPORARY, name, MOVEFILE_REPLACE_EXISTING);
    }
    if (result != PM_OK) {
        (void)pod_file_remove(dir, TEMPORARY);
    }
    file->named = result == PM_OK;
    return result;
}

int pod_dir_sync(struct pod_dir *dir)
{
    (void)dir; // Names are written through.
    return PM_OK;
}

void pod_file_abandon(struct pod_dir *dir, struct pod_new_file *file)
{
    pod_file_close(file->file);
    file->file = PM_NATIVE_INVALID;
    (void)pod_file_remove(dir, TEMPORARY);
}

// One rename at a time: MoveFileEx renames what it has opened, so of two at once both may find the
// file and succeed (seen under Wine 8), and an exit would be claimed twice. The lock is the share
// mode: it ends with its holder, however that ends.
int pod_file_rename(struct pod_dir *dir, const char *from, const char *to)
{
    const DWORD flags = FILE_ATTRIBUTE_NORMAL | FILE_FLAG_DELETE_ON_CLOSE;
    wchar_t *path = NULL;
    HANDLE lock = INVALID_HANDLE_VALUE;
    int result = path_in(dir, "renaming", &path);
    for (int waited = 0; result == PM_OK && lock == INVALID_HANDLE_VALUE; waited++) {
        lock = CreateFileW(path, GENERIC_WRITE | DELETE, 0, NULL, OPEN_ALWAYS, flags, NULL);
        // ACCESS_DENIED: it is just being deleted.
        DWORD code = GetLastError();
        if (lock == INVALID_HANDLE_VALUE &&
            ((code != ERROR_SHARING_VIOLATION && code != ERROR_ACCESS_DENIED) ||
             waited == RENAME_WAIT_MS)) {
            result = last_error();
        } else if (lock == INVALID_HANDLE_VALUE) {
            Sleep(1);
        }
    }
    if (result == PM_OK) {
        result = move(dir, from, to, 0);
        (void)CloseHandle(lock);
    }
    free(path);
    return result;
}

int pod_file_replace(struct pod_dir *dir, const char *from, const char *to)
{
    return move(dir, from, to, MOVEFILE_REPLACE_EXISTING);
}

int pod_file_remove(struct pod_dir *dir, const char *name)
{
    wchar_t *path = NULL;
    int result = path_in(dir, name, &path);
    if (result == PM_OK && !DeleteFileW(path)) {
        result = last_error();
    }
    free(path);
    return result;
}

int pod_log_open(struct pod_dir *dir, const char *name, pm_native *ret_file, uint64_t *ret_size)
{
    // May be renamed while it is open.
    const struct open_how how = {FILE_APPEND_DATA | FILE_READ_ATTRIBUTES | SYNCHRONIZE, SHARE_ALL,
                                 OPEN_ALWAYS};
    HANDLE handle;
    LARGE_INTEGER size;
    int result = open_in(dir, name, how, &handle);
    if (result != PM_OK) {
        return result;
    }
    if (!GetFileSizeEx(handle, &size)) {
        result = last_error();
        (void)CloseHandle(handle);
        return result;
    }
    *ret_file = (pm_native)handle;
    *ret_size = (uint64_t)size.QuadPart;
    return PM_OK;
}

int pod_log_append(pm_native file, const void *data, size_t size, size_t *ret_count)
{
    return write_all((HANDLE)file, data, size, ret_count);
}

void pod_file_close(pm_native file)
{
    if (file != PM_NATIVE_INVALID) {
        (void)CloseHandle((HANDLE)file);
    }
}
