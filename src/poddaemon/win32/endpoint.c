// The named pipe of a session. Its name is made from the folder and the session; its DACL lets in
// the owner alone, remote clients are refused, the first instance has to be ours, and there are
// always some that listen while another one is being taken.
#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "pod/proof.h"
#include "poddaemon/os.h"
#include "win32/win32.h"

#define INSTANCES 4
#define BUFFER_SIZE 65536
#define NAME_MAX_UNITS 96

static int last_error(void)
{
    return pmi_win_code(GetLastError());
}

// ------------------------------------------------------------------------------------------------
// Names
// ------------------------------------------------------------------------------------------------

static void write_name(const uint8_t digest[POD_SHA256_SIZE], wchar_t name[NAME_MAX_UNITS])
{
    int at = _snwprintf(name, NAME_MAX_UNITS, L"\\\\.\\pipe\\processmgr-pod-");
    for (size_t i = 0; i < 16; i++, at += 2) {
        (void)_snwprintf(name + at, NAME_MAX_UNITS - (size_t)at, L"%02x", digest[i]);
    }
}

// The folder by its one final name: a path may be written in many ways.
static int pipe_name(const struct pod_dir *dir, const char *session, wchar_t name[NAME_MAX_UNITS])
{
    wchar_t *path = calloc(32768, sizeof *path);
    struct pod_sha256 sha;
    uint8_t digest[POD_SHA256_SIZE];
    if (path == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    DWORD length = GetFinalPathNameByHandleW(dir->handle, path, 32768, FILE_NAME_NORMALIZED);
    if (length == 0 || length >= 32768) {
        free(path);
        return PM_ERR_SYSTEM;
    }
    pod_sha256_begin(&sha);
    pod_sha256_add(&sha, path, length * sizeof *path);
    pod_sha256_add(&sha, "", 1);
    pod_sha256_add(&sha, session, strlen(session));
    pod_sha256_end(&sha, digest);
    free(path);
    write_name(digest, name);
    return PM_OK;
}

static HANDLE make_instance(const wchar_t *name, bool first)
{
    SECURITY_ATTRIBUTES sa = {0};
    int result = pmi_win_owner_only(FILE_ALL_ACCESS, false, &sa);
    if (result != PM_OK) {
        SetLastError(ERROR_NOT_ENOUGH_MEMORY);
        return INVALID_HANDLE_VALUE;
    }
    HANDLE pipe = CreateNamedPipeW(name,
                                   PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED |
                                       (first ? FILE_FLAG_FIRST_PIPE_INSTANCE : 0),
                                   PIPE_TYPE_BYTE | PIPE_READMODE_BYTE | PIPE_WAIT |
                                       PIPE_REJECT_REMOTE_CLIENTS,
                                   PIPE_UNLIMITED_INSTANCES, BUFFER_SIZE, BUFFER_SIZE, 0, &sa);
    DWORD os_code = GetLastError();
    pmi_win_security_free(&sa);
    SetLastError(os_code);
    return pipe;
}

// Who listens may not act as us; and it has to be ours.
static int open_client_end(const wchar_t *name, HANDLE *ret_pipe)
{
    HANDLE pipe =
        CreateFileW(name, GENERIC_READ | GENERIC_WRITE | READ_CONTROL, 0, NULL, OPEN_EXISTING,
                    FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT | SECURITY_IDENTIFICATION, NULL);
    if (pipe == INVALID_HANDLE_VALUE) {
        DWORD os_code = GetLastError();
        return os_code == ERROR_FILE_NOT_FOUND ? PM_ERR_NOT_FOUND
               : os_code == ERROR_PIPE_BUSY    ? PM_ERR_BUSY
                                               : pmi_win_code(os_code);
    }
    if (!pmi_win_is_ours(pipe)) {
        (void)CloseHandle(pipe);
        return PM_ERR_ACCESS;
    }
    *ret_pipe = pipe;
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// The daemon's side
// ------------------------------------------------------------------------------------------------

struct instance {
    HANDLE pipe, event, wait;
    OVERLAPPED overlapped;
    struct pod_pipes *pipes;
};

struct pod_pipes {
    uv_async_t async;
    wchar_t name[NAME_MAX_UNITS];
    struct instance instances[INSTANCES];
    bool paused;
    pod_listener_ready *ready;
    void *user;
};

static void CALLBACK on_event(void *context, BOOLEAN timed_out)
{
    struct instance *instance = context;
    (void)timed_out;
    (void)uv_async_send(&instance->pipes->async);
}

static bool is_connected(const struct instance *instance)
{
    return instance->pipe != NULL && WaitForSingleObject(instance->event, 0) == WAIT_OBJECT_0;
}

static void close_instance(struct instance *instance)
{
    if (instance->wait != NULL) {
        (void)UnregisterWaitEx(instance->wait, INVALID_HANDLE_VALUE); // Its callback is over then.
    }
    if (instance->pipe != NULL) {
        (void)CancelIo(instance->pipe);
        (void)CloseHandle(instance->pipe);
    }
    instance->wait = instance->pipe = NULL;
}

// Begins to listen; the event tells when somebody has come.
static int listen_on(struct instance *instance, HANDLE pipe)
{
    instance->pipe = pipe;
    (void)ResetEvent(instance->event);
    instance->overlapped = (OVERLAPPED){.hEvent = instance->event};
    BOOL done = ConnectNamedPipe(pipe, &instance->overlapped);
    DWORD os_code = done ? ERROR_PIPE_CONNECTED : GetLastError();
    if (os_code == ERROR_PIPE_CONNECTED || os_code == ERROR_NO_DATA) {
        (void)SetEvent(instance->event); // Here already, perhaps gone again: reading will tell.
    } else if (os_code != ERROR_IO_PENDING) {
        close_instance(instance);
        return pmi_win_code(os_code);
    }
    if (!RegisterWaitForSingleObject(&instance->wait, instance->event, on_event, instance, INFINITE,
                                     WT_EXECUTEONLYONCE | WT_EXECUTEINWAITTHREAD)) {
        os_code = GetLastError(); // Closing has an error of its own.
        instance->wait = NULL;
        close_instance(instance);
        return pmi_win_code(os_code);
    }
    return PM_OK;
}

static int fill(struct pod_pipes *pipes, size_t i, bool first)
{
    HANDLE pipe = make_instance(pipes->name, first);
    if (pipe == INVALID_HANDLE_VALUE) {
        return last_error();
    }
    return listen_on(&pipes->instances[i], pipe);
}

static void on_async(uv_async_t *async)
{
    struct pod_pipes *pipes = async->data;
    if (!pipes->paused && pipes->ready != NULL) {
        pipes->ready(pipes->user);
    }
}

static void on_pipes_closed(uv_handle_t *handle)
{
    struct pod_pipes *pipes = handle->data;
    for (size_t i = 0; i < INSTANCES; i++) {
        if (pipes->instances[i].event != NULL) {
            (void)CloseHandle(pipes->instances[i].event);
        }
    }
    free(pipes);
}

int pod_listener_open(uv_loop_t *loop, struct pod_listener *listener, struct pod_dir *dir,
                      const char *session, pod_listener_ready *ready, void *user)
{
    struct pod_pipes *pipes = calloc(1, sizeof *pipes);
    if (pipes == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    int result = pipe_name(dir, session, pipes->name);
    if (result != PM_OK || uv_async_init(loop, &pipes->async, on_async) != 0) {
        free(pipes);
        return result != PM_OK ? result : PM_ERR_NO_MEMORY;
    }
    pipes->async.data = pipes;
    pipes->ready = ready;
    pipes->user = user;
    listener->pipes = pipes;
    for (size_t i = 0; i < INSTANCES && result == PM_OK; i++) {
        pipes->instances[i].pipes = pipes;
        pipes->instances[i].event = CreateEventW(NULL, TRUE, FALSE, NULL);
        result = pipes->instances[i].event == NULL ? last_error() : fill(pipes, i, i == 0);
    }
    if (result != PM_OK) {
        pod_listener_close(listener, dir);
    }
    return result;
}

int pod_listener_accept(struct pod_listener *listener, pm_native *ret_native)
{
    struct pod_pipes *pipes = listener->pipes;
    for (size_t i = 0; i < INSTANCES; i++) {
        struct instance *instance = &pipes->instances[i];
        if (instance->pipe == NULL) { // It could not be replaced before.
            int result = fill(pipes, i, false);
            if (result != PM_OK) {
                return result;
            }
        }
        if (!is_connected(instance)) {
            continue;
        }
        HANDLE pipe = instance->pipe;
        instance->pipe = NULL;
        close_instance(instance);
        int result = fill(pipes, i, false);
        if (result != PM_OK) {
            (void)CloseHandle(pipe);
            return result;
        }
        *ret_native = (pm_native)pipe;
        return PM_OK;
    }
    return PM_ERR_TIMEOUT;
}

void pod_listener_pause(struct pod_listener *listener, bool pause)
{
    if (listener->pipes != NULL) {
        listener->pipes->paused = pause;
        if (!pause) {
            (void)uv_async_send(&listener->pipes->async);
        }
    }
}

bool pod_listener_is_gone(const struct pod_listener *listener, const struct pod_dir *dir,
                          bool replaced)
{
    (void)listener;
    (void)dir;
    (void)replaced;
    return false;
}

void pod_listener_close(struct pod_listener *listener, struct pod_dir *dir)
{
    struct pod_pipes *pipes = listener->pipes;
    (void)dir;
    if (pipes == NULL) {
        return;
    }
    for (size_t i = 0; i < INSTANCES; i++) {
        close_instance(&pipes->instances[i]);
    }
    pipes->ready = NULL;
    uv_close((uv_handle_t *)&pipes->async, on_pipes_closed);
    listener->pipes = NULL;
}

// ------------------------------------------------------------------------------------------------
// The client's side, and the first connection
// ------------------------------------------------------------------------------------------------

int pod_connect(struct pod_dir *dir, const char *session, pm_native *ret_native)
{
    wchar_t name[NAME_MAX_UNITS];
    HANDLE pipe;
    int result = pipe_name(dir, session, name);
    if (result == PM_OK) {
        result = open_client_end(name, &pipe);
    }
    if (result == PM_OK) {
        *ret_native = (pm_native)pipe;
    }
    return result;
}

int pod_birth_pair(pm_native *ret_ours, pm_native *ret_theirs)
{
    wchar_t name[NAME_MAX_UNITS];
    uint8_t random[POD_SHA256_SIZE];
    HANDLE theirs;
    if (uv_random(NULL, NULL, random, sizeof random, 0, NULL) != 0) {
        return PM_ERR_SYSTEM;
    }
    write_name(random, name);
    HANDLE ours = make_instance(name, true);
    if (ours == INVALID_HANDLE_VALUE) {
        return last_error();
    }
    int result = open_client_end(name, &theirs);
    if (result != PM_OK) {
        (void)CloseHandle(ours);
        return result;
    }
    *ret_ours = (pm_native)ours;
    *ret_theirs = (pm_native)theirs;
    return PM_OK;
}

int pod_birth_take(pm_native *ret_native)
{
    HANDLE in = GetStdHandle(STD_INPUT_HANDLE), copy;
    HANDLE self = GetCurrentProcess();
    if (in == NULL || in == INVALID_HANDLE_VALUE || GetFileType(in) != FILE_TYPE_PIPE) {
        return PM_ERR_INVALID;
    }
    if (!DuplicateHandle(self, in, self, &copy, 0, FALSE, DUPLICATE_SAME_ACCESS)) {
        return last_error();
    }
    // The C library's descriptor 0 has the original; nobody inherits it from here on.
    (void)SetStdHandle(STD_INPUT_HANDLE, NULL);
    if (_close(0) != 0) {
        (void)CloseHandle(in);
    }
    *ret_native = (pm_native)copy;
    return PM_OK;
}

void pod_connection_close(pm_native native)
{
    if (native != PM_NATIVE_INVALID) {
        (void)CloseHandle((HANDLE)native);
    }
}

int pod_pipe_open(uv_pipe_t *pipe, pm_native native)
{
    // libuv takes descriptors of the C library.
    int fd = _open_osfhandle((intptr_t)native, _O_RDWR | _O_BINARY);
    if (fd < 0) {
        (void)CloseHandle((HANDLE)native);
        return PM_ERR_NO_DESCRIPTORS;
    }
    if (uv_pipe_open(pipe, fd) != 0) {
        (void)_close(fd);
        return PM_ERR_SYSTEM;
    }
    return PM_OK;
}

size_t pod_pipe_look(uv_pipe_t *pipe, void *bytes, size_t size)
{
    (void)pipe; // libuv has a read under way.
    (void)bytes;
    (void)size;
    return 0;
}

// The system does so itself when the handle is closed; under Wine 8 the write stays, and with it
// the loop and the process.
void pod_pipe_cancel(uv_pipe_t *pipe)
{
    uv_os_fd_t handle;
    if (uv_fileno((uv_handle_t *)pipe, &handle) == 0) {
        (void)CancelIoEx(handle, NULL);
    }
}
