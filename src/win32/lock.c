// Advisory locks. Locks of Windows are mandatory for the bytes that they cover, so one byte far
// behind any content is locked: readers get the content, and the system frees the lock when its
// holder dies.
#include <stdlib.h>

#include "files.h"

#define LOCK_OFFSET_HIGH 0x40000000 // Byte 2^62.

static bool try_lock(HANDLE file)
{
    OVERLAPPED where = {.OffsetHigh = LOCK_OFFSET_HIGH};
    return LockFileEx(file, LOCKFILE_EXCLUSIVE_LOCK | LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, &where);
}

// Whether the file behind the handle is the one that has the name now.
static bool has_the_name(HANDLE file, const wchar_t *path)
{
    BY_HANDLE_FILE_INFORMATION ours, named;
    HANDLE other = pmi_win_open_entry(path, FILE_READ_ATTRIBUTES, OPEN_EXISTING);
    if (other == NULL) {
        return false;
    }
    bool same =
        GetFileInformationByHandle(file, &ours) && GetFileInformationByHandle(other, &named) &&
        ours.dwVolumeSerialNumber == named.dwVolumeSerialNumber &&
        ours.nFileIndexHigh == named.nFileIndexHigh && ours.nFileIndexLow == named.nFileIndexLow;
    (void)CloseHandle(other);
    return same;
}

// PM_ERR_TIMEOUT: the name went to another file meanwhile; try again.
static int lock_once(const wchar_t *path, HANDLE *ret_file)
{
    HANDLE file = pmi_win_open_entry(path, GENERIC_READ | GENERIC_WRITE, OPEN_ALWAYS);
    if (file == NULL) {
        return pmi_win_code(GetLastError());
    }
    int result = PM_OK;
    if (!pmi_win_is_regular(file)) {
        result = PM_ERR_CORRUPT;
    } else if (!try_lock(file)) {
        DWORD os_code = GetLastError();
        result = os_code == ERROR_LOCK_VIOLATION || os_code == ERROR_IO_PENDING
                     ? PM_ERR_BUSY
                     : pmi_win_code(os_code);
    } else if (!has_the_name(file, path)) {
        result = PM_ERR_TIMEOUT;
    }
    if (result != PM_OK) {
        (void)CloseHandle(file);
        return result;
    }
    *ret_file = file;
    return PM_OK;
}

int pmi_os_lock_try(struct pmi_os_dir *dir, const char *name, struct pmi_os_lock *ret_lock)
{
    wchar_t *path = NULL;
    HANDLE file = NULL;
    int result = pmi_win_entry_path(dir, name, &path);
    if (result != PM_OK) {
        return result;
    }
    result = PM_ERR_TIMEOUT;
    for (int tries = 0; tries < 16 && result == PM_ERR_TIMEOUT; tries++) {
        result = lock_once(path, &file);
    }
    free(path);
    if (result == PM_OK) {
        ret_lock->handle = file;
    }
    return result == PM_ERR_TIMEOUT ? PM_ERR_BUSY : result;
}

int pmi_os_lock_write(struct pmi_os_lock *lock, const void *data, size_t size)
{
    LARGE_INTEGER start = {0};
    if (!SetFilePointerEx(lock->handle, start, NULL, FILE_BEGIN)) {
        return pmi_win_code(GetLastError());
    }
    // Over what is there, which may still work on a full disk.
    DWORD os_code = pmi_win_write_all(lock->handle, data, size);
    if (os_code == ERROR_SUCCESS && !SetEndOfFile(lock->handle)) {
        os_code = GetLastError();
    }
    return os_code == ERROR_SUCCESS ? PM_OK : pmi_win_code(os_code);
}

void pmi_os_lock_release(struct pmi_os_lock *lock)
{
    if (lock->handle != NULL) {
        OVERLAPPED where = {.OffsetHigh = LOCK_OFFSET_HIGH};
        // The system frees a lock with its handle, but says not when.
        (void)UnlockFileEx(lock->handle, 0, 1, 0, &where);
        (void)CloseHandle(lock->handle);
        lock->handle = NULL;
    }
}
