// System calls of the daemon that fail as the environment variable POD_FAULTS says, a list of
//
//   CALL:ERRNO:SKIP:COUNT,...     the first SKIP calls are as ever, COUNT fail, the rest as ever
//
// ERRNO 999: the process is killed in place of the call; 998: the call comes a second later,
// and the file that POD_LATE_SIGN names is made before.
//
// CALL is the name of the function; of write: "log", "record" or "child", by the file it goes to;
// of openat also the name of the file, and "open-log" for the log. fstat is only that of a folder
// that may be gone, unlinkat that of a socket at its end. On Windows the calls in their places have
// these names: openat, log, record, fsync (of a file; names need none) and renameat; and there are
// malloc and uv_write, of the child's input.
#ifndef POD_FAULTS_H
#define POD_FAULTS_H

#include <stddef.h>

#define POD_FAULT_DIE 999
#define POD_FAULT_LATE 998
#define POD_FAULT_HALF 997 // Of a write: half of it comes through.

#ifdef _WIN32

#include <uv.h>
#include <windows.h>

HANDLE pod_fault_CreateFileW(const wchar_t *path, DWORD access, DWORD share,
                             SECURITY_ATTRIBUTES *security, DWORD disposition, DWORD flags,
                             HANDLE template_file);
BOOL pod_fault_WriteFile(HANDLE file, const void *data, DWORD size, DWORD *ret_count,
                         OVERLAPPED *overlapped);
BOOL pod_fault_FlushFileBuffers(HANDLE file);
BOOL pod_fault_MoveFileExW(const wchar_t *from, const wchar_t *to, DWORD flags);
void *pod_fault_malloc(size_t size);
int pod_fault_uv_write(uv_write_t *request, uv_stream_t *stream, const uv_buf_t buffers[],
                       unsigned count, uv_write_cb done);

#else

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>

int pod_fault_openat(int dir, const char *name, int flags, int mode);
ssize_t pod_fault_write(int fd, const void *data, size_t size);
ssize_t pod_fault_read(int fd, void *data, size_t size);
int pod_fault_fsync(int fd);
int pod_fault_fstat(int fd, struct stat *st);
int pod_fault_renameat(int from_dir, const char *from, int to_dir, const char *to);
int pod_fault_unlink(const char *path);
int pod_fault_unlinkat(int dir, const char *name, int flags);
void *pod_fault_calloc(size_t count, size_t size);
int pod_fault_socket(int domain, int type, int protocol);
int pod_fault_bind(int fd, const struct sockaddr *address, socklen_t size);
int pod_fault_accept4(int fd, struct sockaddr *address, socklen_t *size, int flags);

#endif
#endif
