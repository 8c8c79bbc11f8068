#include "pod_faults.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <wchar.h>
#else
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#define PLANS_MAX 8

static struct {
    char call[32];
    int error, skip, count;
} plans[PLANS_MAX];
static int plans_count = -1;
static void read_plans(void)
{
    const char *text = getenv("POD_FAULTS");
    plans_count = 0;
    while (text != NULL && *text != '\0' && plans_count < PLANS_MAX) {
        int n = sscanf(text, "%31[^:]:%d:%d:%d", plans[plans_count].call, &plans[plans_count].error,
                       &plans[plans_count].skip, &plans[plans_count].count);
        plans_count += n == 4;
        text = strchr(text, ',');
        text = text != NULL ? text + 1 : NULL;
    }
}

// What this call is to meet; 0: nothing.
static int next_fault(const char *call)
{
    if (plans_count < 0) {
        read_plans();
    }
    for (int i = 0; i < plans_count; i++) {
        if (strcmp(plans[i].call, call) != 0) {
            continue;
        }
        if (plans[i].skip > 0) {
            plans[i].skip--;
            return 0;
        }
        if (plans[i].count > 0) {
            plans[i].count--;
            return plans[i].error;
        }
    }
    return 0;
}

#ifdef _WIN32

// Whether this call is to fail; the error of the thread is set then.
static bool fails(const char *call)
{
    static const struct {
        int error;
        DWORD code;
    } codes[] = {{EIO, ERROR_IO_DEVICE},
                 {EROFS, ERROR_WRITE_PROTECT},
                 {EACCES, ERROR_ACCESS_DENIED}};
    int error = next_fault(call);
    DWORD code = ERROR_DISK_FULL;
    if (error == POD_FAULT_DIE) {
        (void)TerminateProcess(GetCurrentProcess(), 9);
    }
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        code = codes[i].error == error ? codes[i].code : code;
    }
    SetLastError(error == POD_FAULT_HALF ? NO_ERROR : code);
    return error != 0;
}

HANDLE pod_fault_CreateFileW(const wchar_t *path, DWORD access, DWORD share,
                             SECURITY_ATTRIBUTES *security, DWORD disposition, DWORD flags,
                             HANDLE template_file)
{
    return fails("openat")
               ? INVALID_HANDLE_VALUE
               : CreateFileW(path, access, share, security, disposition, flags, template_file);
}

BOOL pod_fault_WriteFile(HANDLE file, const void *data, DWORD size, DWORD *ret_count,
                         OVERLAPPED *overlapped)
{
    wchar_t path[4096] = L"";
    (void)GetFinalPathNameByHandleW(file, path, 4096, FILE_NAME_NORMALIZED);
    if (fails(wcsstr(path, L"exit.new") != NULL ? "record" : "log")) {
        return GetLastError() == NO_ERROR && WriteFile(file, data, size / 2, ret_count, overlapped);
    }
    return WriteFile(file, data, size, ret_count, overlapped);
}

BOOL pod_fault_FlushFileBuffers(HANDLE file)
{
    return !fails("fsync") && FlushFileBuffers(file);
}

BOOL pod_fault_MoveFileExW(const wchar_t *from, const wchar_t *to, DWORD flags)
{
    return !fails("renameat") && MoveFileExW(from, to, flags);
}

void *pod_fault_malloc(size_t size)
{
    return next_fault("malloc") != 0 ? NULL : malloc(size);
}

int pod_fault_uv_write(uv_write_t *request, uv_stream_t *stream, const uv_buf_t buffers[],
                       unsigned count, uv_write_cb done)
{
    return next_fault("uv_write") != 0 ? UV_ENOMEM
                                       : uv_write(request, stream, buffers, count, done);
}

#else

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // A runner has workers.

// Whoever waits for it sees that we sleep from now on.
static void come_late(void)
{
    const char *sign = getenv("POD_LATE_SIGN");
    int fd = sign != NULL ? open(sign, O_WRONLY | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd >= 0) {
        (void)close(fd);
    }
    (void)sleep(1);
}

// Whether this call is to fail; errno is set then.
static int fails(const char *call)
{
    (void)pthread_mutex_lock(&lock);
    int error = next_fault(call);
    (void)pthread_mutex_unlock(&lock);
    if (error == POD_FAULT_DIE) {
        (void)kill(getpid(), SIGKILL);
    }
    if (error == POD_FAULT_LATE) {
        come_late();
        return 0;
    }
    if (error != 0) {
        errno = error;
    }
    return error != 0;
}

static const char *target(int fd)
{
    struct stat st;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
        return "child";
    }
    return (fcntl(fd, F_GETFL) & O_APPEND) != 0 ? "log" : "record";
}

int pod_fault_openat(int dir, const char *name, int flags, int mode)
{
    bool log = strcmp(name, "log") == 0;
    return fails("openat") || fails(name) || (log && fails("open-log"))
               ? -1
               : openat(dir, name, flags, mode);
}

ssize_t pod_fault_write(int fd, const void *data, size_t size)
{
    if (fails(target(fd))) {
        return errno == POD_FAULT_HALF ? write(fd, data, size / 2) : -1;
    }
    return write(fd, data, size);
}

ssize_t pod_fault_read(int fd, void *data, size_t size)
{
    return fails("read") ? -1 : read(fd, data, size);
}

int pod_fault_fsync(int fd)
{
    return fails("fsync") ? -1 : fsync(fd);
}

int pod_fault_fstat(int fd, struct stat *st)
{
    return fails("fstat") ? -1 : fstat(fd, st);
}

int pod_fault_renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    return fails("renameat") ? -1 : renameat(from_dir, from, to_dir, to);
}

void *pod_fault_calloc(size_t count, size_t size)
{
    return fails("calloc") ? NULL : calloc(count, size);
}

int pod_fault_unlink(const char *path)
{
    return fails("unlink") ? -1 : unlink(path);
}

int pod_fault_unlinkat(int dir, const char *name, int flags)
{
    return fails("unlinkat") ? -1 : unlinkat(dir, name, flags);
}

int pod_fault_socket(int domain, int type, int protocol)
{
    return fails("socket") ? -1 : socket(domain, type, protocol);
}

int pod_fault_bind(int fd, const struct sockaddr *address, socklen_t size)
{
    return fails("bind") ? -1 : bind(fd, address, size);
}

int pod_fault_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    return fails("accept4") ? -1 : accept4(fd, address, size, flags);
}

#endif
