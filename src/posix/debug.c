// What the debug server needs from the system. Part of that library, not of the core's backend.
#include "debug/os_debug.h"

#include "sys.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#define BACKLOG 32

_Static_assert(sizeof(sigset_t) <= sizeof(struct pmi_debug_mask), "a mask fits");

static int fail(struct pm_error *error, int e, const char *hint)
{
    int code = e == EADDRINUSE || e == EEXIST            ? PM_ERR_EXISTS
               : e == EACCES || e == EPERM || e == EROFS ? PM_ERR_ACCESS
               : e == ENOENT                             ? PM_ERR_NOT_FOUND
               : e == ENOTDIR                            ? PM_ERR_NOT_A_DIRECTORY
               : e == ENAMETOOLONG                       ? PM_ERR_TOO_BIG
               : e == EMFILE || e == ENFILE              ? PM_ERR_NO_DESCRIPTORS
               : e == ENOMEM || e == ENOBUFS             ? PM_ERR_NO_MEMORY
               : e == EAFNOSUPPORT || e == EADDRNOTAVAIL ? PM_ERR_UNSUPPORTED
                                                         : PM_ERR_SYSTEM;
    error->code = code;
    error->stage = PM_STAGE_CHECK;
    error->os_code = (uint32_t)e;
    (void)snprintf(error->field, sizeof(error->field), "address");
    (void)snprintf(error->hint, sizeof(error->hint), "%s", hint);
    return code;
}

// Close-on-exec and not blocking from birth, where the system has that.
static int new_socket(int family)
{
#ifdef HAVE_SOCK_CLOEXEC
    return pmi_sys_lift(socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), 3);
#else
    int fd = pmi_sys_lift(socket(family, SOCK_STREAM, 0), 3);
    if (fd >= 0) {
        (void)pmi_sys_set_cloexec(fd);
        (void)pmi_sys_set_nonblock(fd, true);
    }
    return fd;
#endif
}

// ------------------------------------------------------------------------------------------------
// Loopback
// ------------------------------------------------------------------------------------------------

static int bind_ipv4(int fd, const struct pmi_debug_address *address, char *url, size_t capacity)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(address->port)};
    socklen_t size = sizeof(in);
    const unsigned char *a = address->ipv4;
    memcpy(&in.sin_addr, a, 4);
    if (bind(fd, (struct sockaddr *)&in, sizeof(in)) < 0 ||
        getsockname(fd, (struct sockaddr *)&in, &size) < 0)
        return -1;
    (void)snprintf(url, capacity, "http://%u.%u.%u.%u:%u", a[0], a[1], a[2], a[3],
                   (unsigned)ntohs(in.sin_port));
    return 0;
}

static int bind_ipv6(int fd, const struct pmi_debug_address *address, char *url, size_t capacity)
{
    struct sockaddr_in6 in = {.sin6_family = AF_INET6, .sin6_port = htons(address->port)};
    socklen_t size = sizeof(in);
    in.sin6_addr = in6addr_loopback;
    if (bind(fd, (struct sockaddr *)&in, sizeof(in)) < 0 ||
        getsockname(fd, (struct sockaddr *)&in, &size) < 0)
        return -1;
    (void)snprintf(url, capacity, "http://[::1]:%u", (unsigned)ntohs(in.sin6_port));
    return 0;
}

static int listen_loopback(const struct pmi_debug_address *address,
                           struct pmi_debug_listener *listener, struct pm_error *error)
{
    bool v6 = address->family == PMI_DEBUG_IPV6;
    int fd = new_socket(v6 ? AF_INET6 : AF_INET);
    int on = 1;
    if (fd < 0)
        return fail(error, errno, "");
    // A port whose last connections are still in TIME_WAIT; one with a listener stays refused.
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    int r = v6 ? bind_ipv6(fd, address, listener->url, sizeof(listener->url))
               : bind_ipv4(fd, address, listener->url, sizeof(listener->url));
    if (r < 0 || listen(fd, BACKLOG) < 0) {
        int result = fail(error, errno, "");
        (void)pmi_sys_close(fd);
        return result;
    }
    listener->socket = fd;
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Unix socket
// ------------------------------------------------------------------------------------------------

static bool fill_address(const char *path, struct sockaddr_un *un)
{
    memset(un, 0, sizeof(*un));
    un->sun_family = AF_UNIX;
    size_t size = strlen(path) + 1;
    if (size > sizeof(un->sun_path))
        return false;
    memcpy(un->sun_path, path, size);
    return true;
}

// What stands in the way: nothing, or a socket of ours that nobody listens on. Else an errno.
static int look_at_path(const char *path, const char **ret_hint)
{
    struct stat st;
    struct sockaddr_un un;
    *ret_hint = "";
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : errno;
    if (!S_ISSOCK(st.st_mode) || st.st_uid != geteuid()) {
        *ret_hint = "there is something that is no socket of ours";
        return EEXIST;
    }
    int fd = new_socket(AF_UNIX);
    if (fd < 0)
        return errno;
    int e = 0;
    if (!fill_address(path, &un))
        e = ENAMETOOLONG;
    else if (connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0 || errno != ECONNREFUSED)
        e = EADDRINUSE;
    (void)pmi_sys_close(fd);
    return e;
}

// The socket's file is made in a folder that only its owner can enter, gets its mode there, and is
// moved to its place: nobody can connect before, and no umask is needed.
static int bind_unix(int fd, const char *path, struct stat *ret_stat)
{
    char folder[sizeof(((struct sockaddr_un *)0)->sun_path)];
    char inner[sizeof(folder)];
    struct sockaddr_un un;
    int e = 0;
    int size = snprintf(folder, sizeof(folder), "%s.XXXXXX", path);
    if (size < 0 || (size_t)size + 2 >= sizeof(folder))
        return ENAMETOOLONG;
    if (mkdtemp(folder) == NULL)
        return errno;
    (void)snprintf(inner, sizeof(inner), "%.*s/s", (int)sizeof(inner) - 3, folder);
    (void)fill_address(inner, &un);
    if (bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0 || chmod(inner, 0600) < 0 ||
        listen(fd, BACKLOG) < 0 || lstat(inner, ret_stat) < 0 || rename(inner, path) < 0)
        e = errno;
    if (e != 0)
        (void)unlink(inner);
    (void)rmdir(folder);
    return e;
}

static int listen_unix(const struct pmi_debug_address *address, struct pmi_debug_listener *listener,
                       struct pm_error *error)
{
    const char *hint;
    struct stat st;
    if (address->path[0] != '/') {
        (void)fail(error, EINVAL, "an absolute path is needed");
        error->os_code = 0;
        return error->code = PM_ERR_INVALID;
    }
    int e = look_at_path(address->path, &hint);
    if (e != 0)
        return fail(error, e, hint);
    size_t size = strlen(address->path) + 1;
    int fd = new_socket(AF_UNIX);
    if (fd < 0)
        return fail(error, errno, "");
    char *path = malloc(size);
    e = path == NULL ? ENOMEM : bind_unix(fd, address->path, &st);
    if (e != 0 || path == NULL) {
        (void)pmi_sys_close(fd);
        free(path);
        return fail(error, e, "");
    }
    memcpy(path, address->path, size);
    (void)snprintf(listener->url, sizeof(listener->url), "unix:%s", address->path);
    listener->socket = fd;
    listener->path = path;
    listener->device = (uint64_t)st.st_dev;
    listener->inode = (uint64_t)st.st_ino;
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------

int pmi_debug_listen(const struct pmi_debug_address *address,
                     struct pmi_debug_listener *ret_listener, struct pm_error *error)
{
    struct pmi_debug_listener listener = {.socket = PMI_DEBUG_SOCKET_NONE};
    int result = address->family == PMI_DEBUG_UNIX ? listen_unix(address, &listener, error)
                                                   : listen_loopback(address, &listener, error);
    struct stat st;
    if (result == PM_OK) {
        listener.socket_inode = fstat((int)listener.socket, &st) == 0 ? (uint64_t)st.st_ino : 0;
        *ret_listener = listener;
    }
    return result;
}

void pmi_debug_unlisten(struct pmi_debug_listener *listener)
{
    struct stat st;
    if (listener->socket >= 0 && fstat((int)listener->socket, &st) == 0 &&
        (uint64_t)st.st_ino == listener->socket_inode)
        (void)pmi_sys_close((int)listener->socket);
    if (listener->path != NULL && lstat(listener->path, &st) == 0 &&
        (uint64_t)st.st_dev == listener->device && (uint64_t)st.st_ino == listener->inode)
        (void)unlink(listener->path);
    free(listener->path);
    listener->path = NULL;
    listener->socket = PMI_DEBUG_SOCKET_NONE;
}

void pmi_debug_shutdown(pmi_debug_socket fd)
{
    (void)shutdown((int)fd, SHUT_RDWR);
}

void pmi_debug_mask_all(struct pmi_debug_mask *ret_old)
{
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    memcpy(ret_old->bytes, &old, sizeof(old));
}

void pmi_debug_mask_restore(const struct pmi_debug_mask *old)
{
    sigset_t mask;
    memcpy(&mask, old->bytes, sizeof(mask));
    (void)pthread_sigmask(SIG_SETMASK, &mask, NULL);
}

uint64_t pmi_debug_self_pid(void)
{
    return (uint64_t)getpid();
}

static int64_t clock_ms(clockid_t clock)
{
    struct timespec now = {0};
    (void)clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t pmi_debug_now_ms(void)
{
    return clock_ms(CLOCK_MONOTONIC);
}

int64_t pmi_debug_wall_ms(void)
{
    return clock_ms(CLOCK_REALTIME);
}

static int read_file(const char *path, void *buffer, size_t capacity, size_t *ret_size)
{
    int fd = pmi_sys_open(path, O_RDONLY, 0);
    if (fd < 0)
        return PM_ERR_UNSUPPORTED;
    size_t size = 0;
    ssize_t n = 1;
    while (size < capacity && (n = pmi_sys_read(fd, (char *)buffer + size, capacity - size)) > 0)
        size += (size_t)n;
    (void)pmi_sys_close(fd);
    *ret_size = size;
    return n < 0 ? PM_ERR_IO : PM_OK;
}

int pmi_debug_random(void *buffer, size_t size)
{
    size_t done = 0;
    int result = read_file("/dev/urandom", buffer, size, &done);
    return result == PM_OK && done < size ? PM_ERR_IO : result;
}

int pmi_debug_arguments(uint64_t pid, char *buffer, size_t capacity, size_t *ret_size)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/%llu/cmdline", (unsigned long long)pid);
    return read_file(path, buffer, capacity, ret_size);
}
