// Files of the registry: everything relative to an open folder, nothing through a link.
#include "backend.h"

#include "error.h"
#include "sys.h"

#include <dirent.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#define FOLDER_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

static int open_at(int dir, const char *name, int flags)
{
    int fd;
    do
        fd = PMI_SYS(openat)(dir, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
    while (fd < 0 && errno == EINTR);
    return pmi_sys_lift(fd, 3);
}

// Another opener may have made it under a umask that takes even our own rights, and not have given
// them back yet; or never, if it was killed there. True: it has them now, and may be opened again.
static bool give_rights(int dir, const char *name, mode_t rights)
{
    struct stat st;
    int e = errno;
    bool given =
        e == EACCES && fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
        (S_ISDIR(st.st_mode) || S_ISREG(st.st_mode)) && st.st_uid == geteuid() &&
        ((st.st_mode & rights) == rights || fchmodat(dir, name, rights, AT_SYMLINK_NOFOLLOW) == 0);
    errno = e;
    return given;
}

// ------------------------------------------------------------------------------------------------
// Folders
// ------------------------------------------------------------------------------------------------

// That it is ours, and nobody else's to look into.
static int prove_private(int fd, struct pm_error *err, const char *path)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        pmi_fail(err, PM_STAGE_REGISTRY, errno);
        return err->code;
    }
    if (!S_ISDIR(st.st_mode)) {
        pmi_fail(err, PM_STAGE_REGISTRY, ENOTDIR);
        return err->code;
    }
    if (st.st_uid != geteuid()) {
        (void)pmi_fail_code(err, PM_STAGE_REGISTRY, PM_ERR_ACCESS);
        pmi_fail_hint(err, "%s belongs to user %lu", path, (unsigned long)st.st_uid);
        return err->code;
    }
    if ((st.st_mode & 077) != 0) {
        (void)pmi_fail_code(err, PM_STAGE_REGISTRY, PM_ERR_ACCESS);
        pmi_fail_hint(err, "%s is open to others (mode %03o): chmod 700 %s", path,
                      (unsigned)(st.st_mode & 0777), path);
        return err->code;
    }
    return PM_OK;
}

static bool is_link(const char *path)
{
    struct stat st;
    return fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISLNK(st.st_mode);
}

static int open_folder(const char *path, bool create, struct pmi_os_dir *ret_dir,
                       struct pm_error *err)
{
    // The umask may have taken even our own rights, and then it could not be opened. Not through a
    // link: somebody may have put one there since.
    int made = create ? mkdir(path, 0700) : 0, not_made = errno;
    if (create && made == 0)
        (void)fchmodat(AT_FDCWD, path, 0700, AT_SYMLINK_NOFOLLOW);
    int fd = pmi_sys_open(path, FOLDER_FLAGS, 0);
    if (fd < 0 && create && give_rights(AT_FDCWD, path, 0700))
        fd = pmi_sys_open(path, FOLDER_FLAGS, 0);
    if (fd < 0) {
        // That it is not there says nothing of why it could not be made.
        int e = errno == ENOENT && made < 0 && not_made != EEXIST ? not_made : errno;
        // A link is ELOOP or ENOTDIR, by system.
        pmi_fail(err, PM_STAGE_REGISTRY, e == ELOOP ? ENOTDIR : e);
        if (is_link(path))
            pmi_fail_hint(err, "%s is a link, which is not followed", path);
        return err->code;
    }
    int result = prove_private(fd, err, path);
    if (result != PM_OK) {
        (void)pmi_sys_close(fd);
        return result;
    }
    ret_dir->fd = fd;
    return PM_OK;
}

int pmi_os_dir_open(const char *path, bool create, struct pmi_os_dir *ret_dir, struct pm_error *err)
{
    // With a slash at its end the name of a link would mean what it leads to.
    size_t length = strlen(path);
    while (length > 1 &&
           (path[length - 1] == '/' || (path[length - 1] == '.' && path[length - 2] == '/')))
        length--;
    char *plain = malloc(length + 1);
    if (plain == NULL)
        return pmi_fail_code(err, PM_STAGE_REGISTRY, PM_ERR_NO_MEMORY);
    memcpy(plain, path, length);
    plain[length] = '\0';
    int result = open_folder(plain, create, ret_dir, err);
    free(plain);
    return result;
}

int pmi_os_dir_open_sub(struct pmi_os_dir *dir, const char *name, bool create,
                        struct pmi_os_dir *ret_dir)
{
    struct pm_error ignored = PM_ERROR_INIT;
    bool made = create && mkdirat(dir->fd, name, 0700) == 0;
    if (create && !made && errno != EEXIST)
        return pmi_error_from_errno(errno);
    if (made) // A umask of 0777 would make it unopenable even for us.
        (void)fchmodat(dir->fd, name, 0700, AT_SYMLINK_NOFOLLOW);
    int fd = open_at(dir->fd, name, O_RDONLY | O_DIRECTORY);
    if (fd < 0 && create && give_rights(dir->fd, name, 0700))
        fd = open_at(dir->fd, name, O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return errno == ENOENT ? PM_ERR_NOT_FOUND : pmi_error_from_errno(errno);
    int result = prove_private(fd, &ignored, name);
    if (result != PM_OK) {
        (void)pmi_sys_close(fd);
        return result;
    }
    ret_dir->fd = fd;
    return PM_OK;
}

void pmi_os_dir_close(struct pmi_os_dir *dir)
{
    dir->fd = pmi_sys_close(dir->fd);
}

int pmi_os_dir_list(struct pmi_os_dir *dir, int (*visit)(void *context, const char *name),
                    void *context)
{
    // A description of its own: the reading position belongs to the open file.
    int fd = open_at(dir->fd, ".", O_RDONLY | O_DIRECTORY);
    if (fd < 0)
        return pmi_error_from_errno(errno);
    DIR *entries = fdopendir(fd);
    if (entries == NULL) {
        int e = errno;
        (void)pmi_sys_close(fd);
        return pmi_error_from_errno(e);
    }
    int result = 0;
    struct dirent *entry;
    while (errno = 0, result == 0 && (entry = readdir(entries)) != NULL)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            result = visit(context, entry->d_name);
    if (result == 0 && errno != 0)
        result = pmi_error_from_errno(errno);
    (void)closedir(entries);
    return result;
}

static int remove_entry(void *context, const char *name)
{
    struct pmi_os_dir *dir = context;
    (void)unlinkat(dir->fd, name, 0);
    return 0;
}

int pmi_os_dir_remove_sub(struct pmi_os_dir *dir, const char *name)
{
    struct pmi_os_dir sub = PMI_OS_DIR_INIT;
    int result = pmi_os_dir_open_sub(dir, name, false, &sub);
    if (result == PM_OK) {
        (void)pmi_os_dir_list(&sub, remove_entry, &sub);
        pmi_os_dir_close(&sub);
        if (unlinkat(dir->fd, name, AT_REMOVEDIR) < 0)
            result = pmi_error_from_errno(errno);
    }
    return result;
}

// ------------------------------------------------------------------------------------------------
// Files
// ------------------------------------------------------------------------------------------------

// Whoever else owns it may have it open, and write into it.
static bool is_plain_and_ours(const struct stat *st)
{
    return S_ISREG(st->st_mode) && st->st_uid == geteuid();
}

int pmi_os_file_read(struct pmi_os_dir *dir, const char *name, size_t cap, char **ret_data,
                     size_t *ret_size)
{
    // O_NONBLOCK: a planted FIFO must not hang us.
    int fd = open_at(dir->fd, name, O_RDONLY | O_NONBLOCK);
    if (fd < 0) {
        if (errno == ENOENT)
            return PM_ERR_NOT_FOUND;
        return errno == ELOOP || errno == EMLINK || errno == ENXIO ? PM_ERR_CORRUPT
                                                                   : pmi_error_from_errno(errno);
    }
    struct stat st;
    char *data = NULL;
    size_t size = 0;
    int result = PM_OK;
    if (fstat(fd, &st) < 0)
        result = pmi_error_from_errno(errno);
    else if (!is_plain_and_ours(&st) || st.st_size < 0 || (uint64_t)st.st_size > cap)
        result = PM_ERR_CORRUPT;
    else if ((data = malloc(cap + 1)) == NULL)
        result = PM_ERR_NO_MEMORY;
    ssize_t n = 0;
    while (result == PM_OK && size < cap && (n = pmi_sys_read(fd, data + size, cap - size)) > 0)
        size += (size_t)n;
    if (result == PM_OK && n < 0)
        result = pmi_error_from_errno(errno);
    (void)pmi_sys_close(fd);
    if (result != PM_OK) {
        free(data);
        return result;
    }
    data[size] = '\0';
    *ret_data = data;
    *ret_size = size;
    return PM_OK;
}

// 0 or errno.
static int write_all(int fd, const void *data, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = pmi_sys_write(fd, (const char *)data + done, size - done);
        if (n < 0)
            return errno;
        done += (size_t)n;
    }
    return 0;
}

// 0 or errno.
static int replace_file(struct pmi_os_dir *dir, const char *name, const void *data, size_t size,
                        bool durable)
{
    static atomic_uint counter;
    char temp[96];
    (void)snprintf(temp, sizeof(temp), PMI_TEMPORARY_PREFIX "%ld-%u", (long)getpid(),
                   atomic_fetch_add(&counter, 1));
    (void)unlinkat(dir->fd, temp, 0); // Left by a process of the same number that was killed.
    int fd = open_at(dir->fd, temp, O_WRONLY | O_CREAT | O_EXCL);
    int e = fd < 0 ? errno : 0;
    if (e == 0 && fchmod(fd, 0600) < 0)
        e = errno;
    if (e == 0)
        e = write_all(fd, data, size);
    if (e == 0 && durable && fsync(fd) < 0)
        e = errno;
    (void)pmi_sys_close(fd);
    if (e == 0 && renameat(dir->fd, temp, dir->fd, name) < 0)
        e = errno;
    if (e == 0 && durable && fsync(dir->fd) < 0 && errno != EINVAL) // Some systems cannot.
        e = errno;
    if (e != 0)
        (void)unlinkat(dir->fd, temp, 0);
    return e;
}

int pmi_os_file_write(struct pmi_os_dir *dir, const char *name, const void *data, size_t size,
                      bool durable, uint32_t *ret_os_code)
{
    int e = replace_file(dir, name, data, size, durable);
    // A daemon writes its own exit record, and a new owner of the registry takes away what writers
    // have left that were killed, once.
    if (e == ENOENT)
        e = replace_file(dir, name, data, size, durable);
    *ret_os_code = e != 0 ? (uint32_t)e : *ret_os_code;
    return e == 0 ? PM_OK : pmi_error_from_errno(e);
}

int pmi_os_file_remove(struct pmi_os_dir *dir, const char *name)
{
    if (unlinkat(dir->fd, name, 0) == 0)
        return PM_OK;
    return errno == ENOENT ? PM_ERR_NOT_FOUND : pmi_error_from_errno(errno);
}

int pmi_os_file_move(struct pmi_os_dir *dir, const char *name, struct pmi_os_dir *to_dir,
                     const char *to_name)
{
    if (renameat(dir->fd, name, to_dir->fd, to_name) == 0)
        return PM_OK;
    return errno == ENOENT ? PM_ERR_NOT_FOUND : pmi_error_from_errno(errno);
}

// ------------------------------------------------------------------------------------------------
// Locks: flock, which dies with the last copy of the descriptor
// ------------------------------------------------------------------------------------------------

// Whether the name still means the file that was locked, which its owner may have replaced: PM_OK,
// PM_ERR_NOT_FOUND or another error.
static int check_still_named(int fd, struct pmi_os_dir *dir, const char *name)
{
    struct stat open_file, named;
    if (fstat(fd, &open_file) < 0 || fstatat(dir->fd, name, &named, AT_SYMLINK_NOFOLLOW) < 0)
        return pmi_error_from_errno(errno);
    return open_file.st_dev == named.st_dev && open_file.st_ino == named.st_ino ? PM_OK
                                                                                : PM_ERR_NOT_FOUND;
}

static int lock_now(int fd)
{
    int r;
    do
        r = flock(fd, LOCK_EX | LOCK_NB);
    while (r < 0 && errno == EINTR);
    return r;
}

int pmi_os_lock_try(struct pmi_os_dir *dir, const char *name, struct pmi_os_lock *ret_lock)
{
    for (;;) {
        struct stat st;
        int fd = open_at(dir->fd, name, O_RDWR | O_CREAT | O_NONBLOCK);
        if (fd < 0 && give_rights(dir->fd, name, 0600))
            fd = open_at(dir->fd, name, O_RDWR | O_CREAT | O_NONBLOCK);
        if (fd < 0)
            return errno == ELOOP || errno == EMLINK || errno == EISDIR || errno == ENXIO
                       ? PM_ERR_CORRUPT
                       : pmi_error_from_errno(errno);
        int result = PM_OK;
        if (fstat(fd, &st) < 0)
            result = pmi_error_from_errno(errno);
        else if (!is_plain_and_ours(&st))
            result = PM_ERR_CORRUPT;
        else if (st.st_nlink == 1 && (st.st_mode & 07777) != 0600 && fchmod(fd, 0600) < 0)
            result = pmi_error_from_errno(errno);
        else if (lock_now(fd) < 0)
            result = errno == EWOULDBLOCK ? PM_ERR_BUSY : pmi_error_from_errno(errno);
        if (result == PM_OK)
            result = check_still_named(fd, dir, name);
        // It has another name, perhaps outside: what we write must not be seen there. Anew.
        if (result == PM_OK && st.st_nlink > 1) {
            result = pmi_os_file_remove(dir, name);
            result = result == PM_OK ? PM_ERR_NOT_FOUND : result;
        }
        if (result == PM_OK) {
            ret_lock->fd = fd;
            return PM_OK;
        }
        (void)pmi_sys_close(fd);
        if (result != PM_ERR_NOT_FOUND)
            return result;
    }
}

int pmi_os_lock_write(struct pmi_os_lock *lock, const void *data, size_t size)
{
    // Over what is there: on a full disk that may still work.
    if (lseek(lock->fd, 0, SEEK_SET) < 0)
        return pmi_error_from_errno(errno);
    int e = write_all(lock->fd, data, size);
    if (e == 0 && ftruncate(lock->fd, (off_t)size) < 0)
        e = errno;
    return e == 0 ? PM_OK : pmi_error_from_errno(e);
}

void pmi_os_lock_release(struct pmi_os_lock *lock)
{
    // Given up at once, also when a forked worker has a copy of the descriptor.
    if (lock->fd >= 0)
        (void)flock(lock->fd, LOCK_UN);
    lock->fd = pmi_sys_close(lock->fd);
}
