#include "poddaemon/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error_of.h"

#define TEMPORARY "exit.new"

int pod_error_of(int e)
{
    switch (e) {
    case 0:
        return PM_OK;
    case ENOENT:
        return PM_ERR_NOT_FOUND;
    case EEXIST:
        return PM_ERR_EXISTS;
    case EACCES:
    case EPERM:
        return PM_ERR_ACCESS;
    case ENOTDIR:
    case ELOOP: // With O_NOFOLLOW: a link in the place of a folder.
        return PM_ERR_NOT_A_DIRECTORY;
    case EMFILE:
    case ENFILE:
        return PM_ERR_NO_DESCRIPTORS;
    case ENOMEM:
    case ENOBUFS:
        return PM_ERR_NO_MEMORY;
    case ENOSPC:
    case EDQUOT:
    case EFBIG: // RLIMIT_FSIZE, or what the file system can.
        return PM_ERR_NO_SPACE;
    case EPIPE:
        return PM_ERR_BROKEN_PIPE;
    case EAGAIN:
        return PM_ERR_TIMEOUT;
    case EIO:
        return PM_ERR_IO;
    default:
        return PM_ERR_SYSTEM;
    }
}

// Never on 0 to 2: a child's streams go there.
static int lift(int fd)
{
    if (fd < 0 || fd > 2) {
        return fd;
    }
    int higher = fcntl(fd, F_DUPFD_CLOEXEC, 3), e = errno;
    (void)close(fd);
    errno = e;
    return higher;
}

static int open_in(const struct pod_dir *dir, const char *name, int flags)
{
    int fd;
    do {
        fd = POD_SYS(openat)(dir->fd, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
    } while (fd < 0 && errno == EINTR);
    return lift(fd);
}

// ------------------------------------------------------------------------------------------------
// Folders
// ------------------------------------------------------------------------------------------------

int pod_dir_create(const char *path)
{
    if (mkdir(path, 0700) < 0) {
        return pod_error_of(errno);
    }
    // The umask may have taken even our own rights.
    return chmod(path, 0700) < 0 ? pod_error_of(errno) : PM_OK;
}

int pod_dir_open(const char *path, struct pod_dir *ret_dir)
{
    struct pod_dir dir = POD_DIR_INIT;
    struct stat st;
    dir.fd = lift(open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (dir.fd < 0) {
        return pod_error_of(errno);
    }
    int result = fstat(dir.fd, &st) < 0 ? pod_error_of(errno) : PM_OK;
    if (result == PM_OK && (st.st_uid != geteuid() || (st.st_mode & 077) != 0)) {
        result = PM_ERR_ACCESS;
    }
    if (result == PM_OK && (dir.path = strdup(path)) == NULL) {
        result = PM_ERR_NO_MEMORY;
    }
    if (result != PM_OK) {
        pod_dir_close(&dir);
        return result;
    }
    *ret_dir = dir;
    return PM_OK;
}

void pod_dir_close(struct pod_dir *dir)
{
    if (dir->fd >= 0) {
        (void)close(dir->fd);
    }
    if (dir->lock >= 0) {
        (void)close(dir->lock);
    }
    free(dir->path);
    *dir = (struct pod_dir)POD_DIR_INIT;
}

bool pod_dir_is_removed(const struct pod_dir *dir)
{
    struct stat st;
    // ESTALE: on a network file system, by another host.
    return POD_SYS(fstat)(dir->fd, &st) == 0 ? st.st_nlink == 0 : errno == ESTALE;
}

// That a file is a plain one of ours with one name, and nobody else's to read.
static int prove_file(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0) {
        return pod_error_of(errno);
    }
    bool ours = S_ISREG(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 077) == 0 &&
                st.st_nlink == 1;
    return ours ? PM_OK : PM_ERR_ACCESS;
}

int pod_dir_lock(struct pod_dir *dir)
{
    int fd = open_in(dir, POD_FILE_LOCK, O_RDWR | O_CREAT | O_NONBLOCK);
    if (fd < 0) {
        return errno == ELOOP ? PM_ERR_ACCESS : pod_error_of(errno);
    }
    int result = prove_file(fd);
    if (result == PM_OK && flock(fd, LOCK_EX | LOCK_NB) < 0) {
        result = errno == EWOULDBLOCK ? PM_ERR_BUSY : pod_error_of(errno);
    }
    if (result != PM_OK) {
        (void)close(fd);
        return result;
    }
    dir->lock = fd;
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Files
// ------------------------------------------------------------------------------------------------

static int read_all(int fd, uint8_t *bytes, size_t size)
{
    size_t have = 0;
    while (have < size) {
        ssize_t n = read(fd, bytes + have, size - have);
        if (n < 0 && errno != EINTR) {
            return pod_error_of(errno);
        }
        if (n == 0) {
            return PM_ERR_IO; // It was cut meanwhile.
        }
        have += n > 0 ? (size_t)n : 0;
    }
    return PM_OK;
}

int pod_file_read(struct pod_dir *dir, const char *name, size_t max, uint8_t **ret_bytes,
                  size_t *ret_size)
{
    struct stat st;
    uint8_t *bytes = NULL;
    // Not blocking: it may be a FIFO that somebody has put there.
    int fd = open_in(dir, name, O_RDONLY | O_NONBLOCK);
    if (fd < 0) {
        return errno == ELOOP ? PM_ERR_ACCESS : pod_error_of(errno);
    }
    int result = prove_file(fd);
    if (result == PM_OK && fstat(fd, &st) < 0) {
        result = pod_error_of(errno);
    }
    if (result == PM_OK && (uint64_t)st.st_size > max) {
        result = PM_ERR_TOO_BIG;
    }
    if (result == PM_OK && (bytes = malloc((size_t)st.st_size + 1)) == NULL) {
        result = PM_ERR_NO_MEMORY;
    }
    if (result == PM_OK) {
        result = read_all(fd, bytes, (size_t)st.st_size);
    }
    (void)close(fd);
    if (result != PM_OK) {
        free(bytes);
        return result;
    }
    bytes[st.st_size] = '\0';
    *ret_bytes = bytes;
    *ret_size = (size_t)st.st_size;
    return PM_OK;
}

int pod_file_begin(struct pod_dir *dir, struct pod_new_file *ret_file)
{
    (void)unlinkat(dir->fd, TEMPORARY, 0); // Of a write that did not come to its end.
    int fd = open_in(dir, TEMPORARY, O_WRONLY | O_CREAT | O_EXCL);
    if (fd < 0) {
        return pod_error_of(errno);
    }
    *ret_file = (struct pod_new_file){.file = fd};
    return PM_OK;
}

// 0 or errno. *ret_count is written in every case.
static int write_all(int fd, const void *data, size_t size, size_t *ret_count)
{
    size_t count = 0;
    int e = 0;
    while (count < size && e == 0) {
        ssize_t n = POD_SYS(write)(fd, (const char *)data + count, size - count);
        e = n < 0 && errno != EINTR ? errno : 0;
        count += n > 0 ? (size_t)n : 0;
    }
    *ret_count = count;
    return e;
}

int pod_file_put(struct pod_new_file *file, const void *data, size_t size)
{
    size_t count;
    int e = write_all((int)file->file, data, size, &count);
    return e == 0 ? PM_OK : pod_error_of(e);
}

int pod_file_commit(struct pod_dir *dir, struct pod_new_file *file, const char *name,
                    enum pod_sync sync)
{
    int fd = (int)file->file;
    bool synced = sync == POD_SYNC_NONE || POD_SYS(fsync)(fd) == 0;
    int result = synced ? PM_OK : pod_error_of(errno);
    if (close(fd) < 0 && result == PM_OK && errno != EINTR) {
        result = pod_error_of(errno); // A network file system may tell only now.
    }
    file->file = PM_NATIVE_INVALID;
    if (result == PM_OK && POD_SYS(renameat)(dir->fd, TEMPORARY, dir->fd, name) < 0) {
        result = pod_error_of(errno);
    }
    if (result != PM_OK) {
        (void)unlinkat(dir->fd, TEMPORARY, 0);
        return result;
    }
    file->named = true;
    return sync == POD_SYNC_NAME ? pod_dir_sync(dir) : PM_OK;
}

int pod_dir_sync(struct pod_dir *dir)
{
    bool synced = POD_SYS(fsync)(dir->fd) == 0 || errno == EINVAL; // Some file systems cannot.
    return synced ? PM_OK : pod_error_of(errno);
}

void pod_file_abandon(struct pod_dir *dir, struct pod_new_file *file)
{
    pod_file_close(file->file);
    file->file = PM_NATIVE_INVALID;
    (void)unlinkat(dir->fd, TEMPORARY, 0);
}

int pod_file_rename(struct pod_dir *dir, const char *from, const char *to)
{
    if (renameat(dir->fd, from, dir->fd, to) < 0) {
        return pod_error_of(errno);
    }
    int result = pod_dir_sync(dir);
    if (result != PM_OK) {
        (void)renameat(dir->fd, to, dir->fd, from);
    }
    return result;
}

int pod_file_replace(struct pod_dir *dir, const char *from, const char *to)
{
    return renameat(dir->fd, from, dir->fd, to) < 0 ? pod_error_of(errno) : PM_OK;
}

int pod_file_remove(struct pod_dir *dir, const char *name)
{
    return unlinkat(dir->fd, name, 0) < 0 ? pod_error_of(errno) : PM_OK;
}

int pod_log_open(struct pod_dir *dir, const char *name, pm_native *ret_file, uint64_t *ret_size)
{
    struct stat st;
    int fd = open_in(dir, name, O_WRONLY | O_CREAT | O_APPEND | O_NONBLOCK);
    if (fd < 0) {
        return errno == ELOOP ? PM_ERR_ACCESS : pod_error_of(errno);
    }
    int result = prove_file(fd);
    if (result == PM_OK && fstat(fd, &st) < 0) {
        result = pod_error_of(errno);
    }
    if (result != PM_OK) {
        (void)close(fd);
        return result;
    }
    *ret_file = fd;
    *ret_size = (uint64_t)st.st_size;
    return PM_OK;
}

int pod_log_append(pm_native file, const void *data, size_t size, size_t *ret_count)
{
    int e = write_all((int)file, data, size, ret_count);
    return e == 0 ? PM_OK : e == EFBIG ? PM_ERR_TOO_BIG : pod_error_of(e);
}

void pod_file_close(pm_native file)
{
    if (file != PM_NATIVE_INVALID) {
        (void)close((int)file);
    }
}
