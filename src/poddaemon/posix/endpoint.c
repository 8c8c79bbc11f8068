// The socket of a session: `s` in its folder, which nobody else can enter. Its address has 108
// bytes on Linux and 104 on macOS. Where the folder's path is longer, the socket is reached through
// the descriptor of the folder (/proc/self/fd/N/s); without /proc its name is a hash in a folder of
// ours in /tmp.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "error_of.h"
#include "pmi_config.h"
#include "pod/proof.h"
#include "poddaemon/os.h"

#define SOCKET_NAME "s"
#define BACKLOG 64

#ifdef SOCK_CLOEXEC
#define SOCKET_FLAGS (SOCK_CLOEXEC | SOCK_NONBLOCK)
#else
#define SOCKET_FLAGS 0
#endif

static int set_flags(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        return -1;
    }
    return fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

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

static int open_socket(void)
{
    int fd = lift(POD_SYS(socket)(AF_UNIX, SOCK_STREAM | SOCKET_FLAGS, 0));
    if (fd >= 0 && SOCKET_FLAGS == 0 && set_flags(fd) < 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

// ------------------------------------------------------------------------------------------------
// Names
// ------------------------------------------------------------------------------------------------

static bool fill_address(struct sockaddr_un *address, const char *path)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address->sun_path) {
        return false;
    }
    memcpy(address->sun_path, path, strlen(path) + 1);
    return true;
}

// The two ways into the folder. false: there is none.
static bool address_inside(const struct pod_dir *dir, struct sockaddr_un *address)
{
    char path[64];
    size_t length = strlen(dir->path);
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (length + sizeof "/" SOCKET_NAME <= sizeof address->sun_path) {
        memcpy(address->sun_path, dir->path, length);
        memcpy(address->sun_path + length, "/" SOCKET_NAME, sizeof "/" SOCKET_NAME);
        return true;
    }
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", dir->fd);
    struct stat through, direct;
    if (stat(path, &through) < 0 || fstat(dir->fd, &direct) < 0 ||
        through.st_ino != direct.st_ino || through.st_dev != direct.st_dev) {
        return false;
    }
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dir->fd, SOCKET_NAME);
    return fill_address(address, path);
}

// The folder in /tmp: nobody else may have made it, and nobody else may enter it.
static int open_outside_folder(char *path, size_t size, bool create)
{
    struct stat st;
    (void)snprintf(path, size, "/tmp/processmgr-%lu", (unsigned long)geteuid());
    if (create && mkdir(path, 0700) < 0 && errno != EEXIST) {
        return pod_error_of(errno);
    }
    if (lstat(path, &st) < 0) {
        return pod_error_of(errno);
    }
    bool ours = S_ISDIR(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 077) == 0;
    return ours ? PM_OK : PM_ERR_ACCESS;
}

// The folder's identity and the session make the name.
static int address_outside(const struct pod_dir *dir, const char *session, bool create,
                           struct sockaddr_un *address)
{
    char path[80];
    struct stat st;
    struct pod_sha256 sha;
    uint8_t digest[POD_SHA256_SIZE];
    int result = open_outside_folder(path, sizeof path, create);
    if (result != PM_OK) {
        return result;
    }
    if (fstat(dir->fd, &st) < 0) {
        return pod_error_of(errno);
    }
    pod_sha256_begin(&sha);
    pod_sha256_add(&sha, &st.st_dev, sizeof st.st_dev);
    pod_sha256_add(&sha, &st.st_ino, sizeof st.st_ino);
    pod_sha256_add(&sha, session, strlen(session));
    pod_sha256_end(&sha, digest);
    size_t at = strlen(path);
    path[at++] = '/';
    for (size_t i = 0; i < 16; i++, at += 2) {
        (void)snprintf(path + at, 3, "%02x", digest[i]);
    }
    return fill_address(address, path) ? PM_OK : PM_ERR_TOO_BIG;
}

// ------------------------------------------------------------------------------------------------
// Who is there
// ------------------------------------------------------------------------------------------------

static bool is_ours(int fd)
{
#ifdef HAVE_GETPEEREID
    uid_t uid;
    gid_t gid;
    return getpeereid(fd, &uid, &gid) == 0 && uid == geteuid();
#elif defined(SO_PEERCRED)
    struct ucred peer;
    socklen_t size = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.uid == geteuid();
#else
    (void)fd;
    return false;
#endif
}

// ------------------------------------------------------------------------------------------------
// The daemon's side
// ------------------------------------------------------------------------------------------------

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct pod_listener *listener = poll->data;
    (void)status;
    (void)events;
    listener->ready(listener->user);
}

// What has the name is left from a daemon that is dead: we hold the lock of the folder.
static int bind_and_listen(int fd, struct pod_dir *dir, const char *session, char **ret_outside)
{
    struct sockaddr_un address;
    int result = PM_OK;
    char *outside = NULL;
    if (address_inside(dir, &address)) {
        (void)unlinkat(dir->fd, SOCKET_NAME, 0);
    } else {
        result = address_outside(dir, session, true, &address);
        if (result == PM_OK && (outside = strdup(address.sun_path)) == NULL) {
            result = PM_ERR_NO_MEMORY;
        }
        if (result == PM_OK) {
            (void)unlink(outside);
        }
    }
    if (result == PM_OK && (POD_SYS(bind)(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
                            listen(fd, BACKLOG) < 0)) {
        result = pod_error_of(errno);
    }
    if (result != PM_OK) {
        free(outside);
        return result;
    }
    *ret_outside = outside;
    return PM_OK;
}

static int look_at_name(const struct pod_listener *listener, const struct pod_dir *dir,
                        struct stat *ret_name)
{
    return listener->outside != NULL ? lstat(listener->outside, ret_name)
                                     : fstatat(dir->fd, SOCKET_NAME, ret_name, AT_SYMLINK_NOFOLLOW);
}

int pod_listener_open(uv_loop_t *loop, struct pod_listener *listener, struct pod_dir *dir,
                      const char *session, pod_listener_ready *ready, void *user)
{
    char *outside = NULL;
    uv_poll_t *poll = malloc(sizeof *poll);
    int fd = open_socket();
    int result = poll == NULL ? PM_ERR_NO_MEMORY : fd < 0 ? pod_error_of(errno) : PM_OK;
    if (result == PM_OK) {
        result = bind_and_listen(fd, dir, session, &outside);
    }
    if (result == PM_OK && uv_poll_init(loop, poll, fd) != 0) {
        result = PM_ERR_SYSTEM;
    }
    if (result != PM_OK) {
        free(poll);
        free(outside);
        if (fd >= 0) {
            (void)close(fd);
        }
        return result;
    }
    *listener = (struct pod_listener){
        .poll = poll, .fd = fd, .outside = outside, .ready = ready, .user = user};
    (void)look_at_name(listener, dir, &listener->name); // Else it is nobody's.
    poll->data = listener;
    pod_listener_pause(listener, false);
    return PM_OK;
}

int pod_listener_accept(struct pod_listener *listener, pm_native *ret_native)
{
    int fd;
    do {
#ifdef HAVE_ACCEPT4
        fd = POD_SYS(accept4)(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
#else
        fd = POD_SYS(accept)(listener->fd, NULL, NULL);
#endif
    } while (fd < 0 && errno == EINTR);
    fd = lift(fd);
    if (fd < 0) {
        return errno == EWOULDBLOCK ? PM_ERR_TIMEOUT : pod_error_of(errno);
    }
#ifndef HAVE_ACCEPT4
    if (set_flags(fd) < 0) {
        (void)close(fd);
        return PM_ERR_SYSTEM;
    }
#endif
    if (!is_ours(fd)) {
        (void)close(fd);
        return PM_ERR_ACCESS;
    }
    *ret_native = fd;
    return PM_OK;
}

void pod_listener_pause(struct pod_listener *listener, bool pause)
{
    if (listener->poll == NULL) {
        return;
    }
    if (pause) {
        (void)uv_poll_stop(listener->poll);
    } else {
        (void)uv_poll_start(listener->poll, UV_READABLE, on_readable);
    }
}

bool pod_listener_is_gone(const struct pod_listener *listener, const struct pod_dir *dir,
                          bool replaced)
{
    struct stat now;
    const struct stat *made = &listener->name;
    if (look_at_name(listener, dir, &now) < 0) {
        return errno == ENOENT;
    }
    bool same = now.st_ino == made->st_ino && now.st_dev == made->st_dev &&
                now.st_mtime == made->st_mtime && S_ISSOCK(now.st_mode);
    return replaced && !same;
}

void pod_listener_close(struct pod_listener *listener, struct pod_dir *dir)
{
    if (listener->poll == NULL) {
        return;
    }
    // The name first: from here on nobody connects to an end.
    if (listener->outside != NULL) {
        (void)unlink(listener->outside);
    } else {
        (void)POD_SYS(unlinkat)(dir->fd, SOCKET_NAME, 0);
    }
    uv_close((uv_handle_t *)listener->poll, free_handle);
    (void)close(listener->fd);
    free(listener->outside);
    *listener = (struct pod_listener){.fd = -1};
}

// ------------------------------------------------------------------------------------------------
// The client's side
// ------------------------------------------------------------------------------------------------

int pod_connect(struct pod_dir *dir, const char *session, pm_native *ret_native)
{
    struct sockaddr_un address;
    int result = PM_OK;
    if (!address_inside(dir, &address)) {
        result = address_outside(dir, session, false, &address);
    }
    int fd = result == PM_OK ? open_socket() : -1;
    if (result == PM_OK && fd < 0) {
        result = pod_error_of(errno);
    }
    // Not blocking: a full backlog is EAGAIN on Linux. A Unix socket connects at once or not at
    // all.
    if (result == PM_OK && connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        int e = errno;
        result = e == ECONNREFUSED || e == ENOENT                ? PM_ERR_NOT_FOUND
                 : e == EAGAIN || e == EINPROGRESS || e == EINTR ? PM_ERR_BUSY
                                                                 : pod_error_of(e);
    }
    if (result == PM_OK && !is_ours(fd)) {
        result = PM_ERR_ACCESS;
    }
    if (result != PM_OK) {
        if (fd >= 0) {
            (void)close(fd);
        }
        return result;
    }
    *ret_native = fd;
    return PM_OK;
}

int pod_birth_pair(pm_native *ret_ours, pm_native *ret_theirs)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds) < 0) {
        return pod_error_of(errno);
    }
    fds[0] = lift(fds[0]);
    fds[1] = lift(fds[1]);
    if (fds[0] < 0 || fds[1] < 0 || set_flags(fds[0]) < 0 || set_flags(fds[1]) < 0) {
        int result = pod_error_of(errno);
        pod_connection_close(fds[0]);
        pod_connection_close(fds[1]);
        return result;
    }
    *ret_ours = fds[0];
    *ret_theirs = fds[1];
    return PM_OK;
}

int pod_birth_take(pm_native *ret_native)
{
    struct stat st;
    if (fstat(0, &st) < 0 || !S_ISSOCK(st.st_mode)) {
        return PM_ERR_INVALID;
    }
    int fd = fcntl(0, F_DUPFD_CLOEXEC, 3);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    int result = fd < 0 || null < 0 || dup2(null, 0) < 0 ? pod_error_of(errno) : PM_OK;
    if (null > 2) {
        (void)close(null);
    }
    if (result == PM_OK && set_flags(fd) < 0) {
        result = pod_error_of(errno);
    }
    if (result != PM_OK) {
        pod_connection_close(fd);
        return result;
    }
    *ret_native = fd;
    return PM_OK;
}

void pod_connection_close(pm_native native)
{
    pod_file_close(native);
}

int pod_pipe_open(uv_pipe_t *pipe, pm_native native)
{
    if (uv_pipe_open(pipe, (uv_file)native) != 0) {
        pod_connection_close(native);
        return PM_ERR_SYSTEM;
    }
    return PM_OK;
}

size_t pod_pipe_look(uv_pipe_t *pipe, void *bytes, size_t size)
{
    uv_os_fd_t fd;
    if (uv_fileno((uv_handle_t *)pipe, &fd) != 0) {
        return 0;
    }
    ssize_t n = recv(fd, bytes, size, MSG_DONTWAIT);
    return n > 0 ? (size_t)n : 0;
}

void pod_pipe_cancel(uv_pipe_t *pipe)
{
    (void)pipe; // Its end is that of its writes.
}
