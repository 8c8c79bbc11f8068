#include "runner/tree.h"

#include <stdio.h>

#include "runner/os.h"

static int remove_entries(const char *path)
{
    uv_fs_t request;
    uv_dirent_t entry;
    int result = uv_fs_scandir(NULL, &request, path, 0, NULL);
    while (result >= 0 && uv_fs_scandir_next(&request, &entry) != UV_EOF) {
        char below[4096];
        if (snprintf(below, sizeof below, "%s/%s", path, entry.name) >= (int)sizeof below) {
            result = UV_ENAMETOOLONG;
        } else {
            result = tree_remove(below);
        }
    }
    uv_fs_req_cleanup(&request);
    return result < 0 ? result : 0;
}

int tree_remove(const char *path)
{
    uv_fs_t request;
    int result = uv_fs_lstat(NULL, &request, path, NULL);
    bool folder = result == 0 && (request.statbuf.st_mode & S_IFMT) == S_IFDIR;
    uv_fs_req_cleanup(&request);
    if (result == 0 && folder) {
        result = remove_entries(path);
    }
    if (result == 0) {
        result = os_remove_name(path, folder);
    }
    return result == UV_ENOENT ? 0 : result;
}
