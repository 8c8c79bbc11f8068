// What files.c and lock.c share.
#ifndef PMI_WIN32_FILES_H
#define PMI_WIN32_FILES_H

#include "win32.h"

// Full path of a plain name in a folder, malloc'd. PM_ERR_INVALID: not a plain name.
int pmi_win_entry_path(const struct pmi_os_dir *dir, const char *name, wchar_t **ret_path);
// Virus scanners, indexers and readers hold files for moments. Whether this error is worth another
// try; sleeps then. `attempt` counts from 0. About a second in all.
bool pmi_win_try_again(DWORD os_code, unsigned *attempt);
// Opens a file itself, never what a link points to. NULL with GetLastError().
HANDLE pmi_win_open_entry(const wchar_t *path, DWORD access, DWORD disposition);
// A regular file, not a folder or a link.
bool pmi_win_is_regular(HANDLE file);
DWORD pmi_win_write_all(HANDLE file, const void *data, size_t size);

#endif
