#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "poddaemon/os.h"
#include "runner/os.h"

#define TABLE_SIZE 4096 // Descriptors: 32 KiB of the kernel's.

void os_begin(void)
{
    // A number below 3 that somebody has closed would become a socket's: libuv ends a program that
    // closes one of these.
    int fd;
    do
        fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    while (fd >= 0 && fd <= STDERR_FILENO && fcntl(fd, F_SETFD, 0) == 0);
    if (fd > STDERR_FILENO) {
        (void)close(fd);
    }
    (void)signal(SIGPIPE, SIG_IGN); // Ends of connections are told by the calls.
    (void)signal(SIGXFSZ, SIG_IGN); // So is a limit for the size of files.
    (void)umask(077);
}

void os_end(void)
{
}

// Linux enlarges the table of a process with several threads only when every processor has passed a
// quiet state (synchronize_rcu() in expand_fdtable(), 6.18): 4 to 9 ms each at 64, 128, 256 ...
// descriptors, in which a runner that recovers sessions waits.
void os_widen_table(void)
{
    struct rlimit limit;
    int most = getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < TABLE_SIZE
                   ? (int)limit.rlim_cur
                   : TABLE_SIZE;
    int fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, most - 1); // Open: os_begin().
    if (fd >= 0) {
        (void)close(fd);
    }
}

void os_arguments(int *argc, char ***argv)
{
    *argv = uv_setup_args(*argc, *argv);
}

bool os_state_fits(const char *path, unsigned *ret_max)
{
    *ret_max = 3800;
    return strlen(path) <= *ret_max;
}

bool os_is_held(int uv_error)
{
    (void)uv_error; // What is open can be removed.
    return false;
}

bool os_has_devices(void)
{
    return false;
}

bool os_is_absolute(const char *path)
{
    return path[0] == '/';
}

// ------------------------------------------------------------------------------------------------
// Files
// ------------------------------------------------------------------------------------------------

int os_private_dir(const char *path, struct runner_error *error)
{
    struct stat info;
    if (mkdir(path, 0700) != 0 && errno != EEXIST) {
        const char *slash = strrchr(path, '/');
        int parent = slash == NULL ? 0 : slash == path ? 1 : (int)(slash - path);
        return runner_fail(error, RUNNER_FAILED, "folder '%s'\ncannot be made: %s\nls -ld '%.*s'",
                           path, strerror(errno), parent > 0 ? parent : 1, parent > 0 ? path : ".");
    }
    if (lstat(path, &info) != 0) {
        return runner_fail(error, RUNNER_FAILED, "folder '%s'\n%s\nls -ld '%s'", path,
                           strerror(errno), path);
    }
    if (!S_ISDIR(info.st_mode)) {
        return runner_fail(error, RUNNER_REFUSED,
                           "folder '%s'\nit is a link, or no folder: not followed\nls -ld '%s'",
                           path, path);
    }
    if (info.st_uid != geteuid()) {
        return runner_fail(error, RUNNER_REFUSED,
                           "folder '%s'\nit belongs to user %lu, not to us (%lu)\nls -ld '%s'",
                           path, (unsigned long)info.st_uid, (unsigned long)geteuid(), path);
    }
    if ((info.st_mode & 077) != 0) {
        return runner_fail(error, RUNNER_REFUSED,
                           "folder '%s'\nothers have rights in it (mode %03o)\nchmod 700 '%s'",
                           path, (unsigned)info.st_mode & 0777, path);
    }
    return RUNNER_OK;
}

int os_open_append(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
    struct stat info;
    if (fd < 0) {
        return -errno;
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != geteuid() ||
        info.st_nlink > 1) {
        (void)close(fd);
        return UV_EACCES;
    }
    return fd;
}

int os_open_read(const char *path)
{
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    struct stat info;
    if (fd < 0) {
        return -errno;
    }
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_uid != geteuid()) {
        (void)close(fd);
        return UV_EACCES;
    }
    return fd;
}

static int read_all(int fd, size_t limit, char **ret_text, size_t *ret_size)
{
    struct stat info;
    size_t size = 0;
    if (fstat(fd, &info) != 0) {
        return UV_EACCES;
    }
    if (info.st_size < 0 || (uintmax_t)info.st_size > limit) {
        return UV_EFBIG;
    }
    char *text = malloc((size_t)info.st_size + 1);
    while (text != NULL && size < (size_t)info.st_size) {
        ssize_t n = read(fd, text + size, (size_t)info.st_size - size);
        if (n < 0 && errno != EINTR) {
            int result = -errno;
            free(text);
            return result;
        }
        if (n == 0) {
            break;
        }
        size += n > 0 ? (size_t)n : 0;
    }
    if (text == NULL) {
        return UV_ENOMEM;
    }
    text[size] = '\0';
    *ret_text = text;
    *ret_size = size;
    return 0;
}

int os_read_file(const char *path, size_t limit, char **ret_text, size_t *ret_size)
{
    int fd = os_open_read(path);
    if (fd < 0) {
        return fd;
    }
    int result = read_all(fd, limit, ret_text, ret_size);
    (void)close(fd);
    return result;
}

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno != EINTR) {
            return -errno;
        }
        data += n > 0 ? n : 0;
        size -= n > 0 ? (size_t)n : 0;
    }
    return 0;
}

int os_write_file(const char *path, const void *data, size_t size)
{
    char temporary[4096];
    if (snprintf(temporary, sizeof temporary, "%s.tmp", path) >= (int)sizeof temporary) {
        return UV_ENAMETOOLONG;
    }
    (void)unlink(temporary);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return -errno;
    }
    int result = write_all(fd, data, size);
    if (close(fd) != 0 && result == 0) {
        result = -errno;
    }
    if (result == 0 && rename(temporary, path) != 0) {
        result = -errno;
    }
    if (result != 0) {
        (void)unlink(temporary);
    }
    return result;
}

bool os_has_separator(const char *program)
{
    return strchr(program, '/') != NULL;
}

static bool is_program(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode) && access(path, X_OK) == 0;
}

bool os_program_exists(const char *program, const char *path)
{
    char file[4096];
    bool found = os_has_separator(program) && is_program(program);
    while (!os_has_separator(program) && !found && *path != '\0') {
        size_t length = strcspn(path, ":");
        int n =
            snprintf(file, sizeof file, "%.*s/%s", (int)length, length > 0 ? path : ".", program);
        found = n < (int)sizeof file && is_program(file);
        path += length + (path[length] == ':' ? 1 : 0);
    }
    return found;
}

bool os_has_name(const char *variable, const char *name)
{
    size_t length = strlen(name);
    return strncmp(variable, name, length) == 0 &&
           (variable[length] == '=' || variable[length] == '\0');
}

int os_exit_code(uint32_t code)
{
    int some = (int)(code & 0xff); // Parents see no more of it.
    return some == 0 && code != 0 ? RUNNER_FAILED : some;
}

int os_remove_name(const char *path, bool folder)
{
    int result = folder ? rmdir(path) : POD_SYS(unlink)(path);
    return result == 0 || errno == ENOENT ? 0 : -errno;
}

void os_allow_batch_file(struct pm_spec *spec)
{
    (void)spec; // There is no such thing here.
}

// ------------------------------------------------------------------------------------------------
// Connections
// ------------------------------------------------------------------------------------------------

int os_pipe_open(uv_pipe_t *pipe, pm_native native)
{
    int result = uv_pipe_open(pipe, (uv_file)native);
    if (result != 0) {
        (void)close((int)native);
    }
    return result;
}

uint64_t os_peer_of(pm_native native)
{
    uint64_t pid = 0;
#ifdef SO_PEERCRED
    struct ucred peer;
    socklen_t size = sizeof peer;
    if (getsockopt((int)native, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid > 0) {
        pid = (uint64_t)peer.pid; // 0: of a pid namespace that is not below ours.
    }
#elif defined(LOCAL_PEERPID) // macOS.
    pid_t peer;
    socklen_t size = sizeof peer;
    if (getsockopt((int)native, SOL_LOCAL, LOCAL_PEERPID, &peer, &size) == 0 && peer > 0) {
        pid = (uint64_t)peer;
    }
#else
    (void)native;
#endif
    return pid;
}

// ------------------------------------------------------------------------------------------------
// Terminal
// ------------------------------------------------------------------------------------------------

static struct termios before;
static bool is_raw;

bool os_terminal_size(unsigned *ret_columns, unsigned *ret_rows)
{
    struct winsize size = {.ws_col = 0};
    if ((ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 &&
         ioctl(STDIN_FILENO, TIOCGWINSZ, &size) != 0) ||
        size.ws_col == 0 || size.ws_row == 0) {
        return false;
    }
    *ret_columns = size.ws_col;
    *ret_rows = size.ws_row;
    return true;
}

bool os_terminal_raw(void)
{
    struct termios raw;
    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &before) != 0) {
        return false;
    }
    raw = before;
    raw.c_iflag &= (tcflag_t) ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
    raw.c_oflag &= (tcflag_t)~OPOST;
    raw.c_lflag &= (tcflag_t) ~(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
    raw.c_cflag = (raw.c_cflag & (tcflag_t) ~(CSIZE | PARENB)) | CS8;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    is_raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
    return is_raw;
}

void os_terminal_stream(uv_tty_t *tty)
{
    (void)tty;
}

void os_terminal_restore(void)
{
    if (is_raw) {
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &before); // Nobody may read what is on its way.
        is_raw = false;
    }
}

// ------------------------------------------------------------------------------------------------
// Upgrade
// ------------------------------------------------------------------------------------------------

int os_read_word(pm_native native, char *word, size_t capacity, int timeout_ms)
{
    struct pollfd wait = {.fd = (int)native, .events = POLLIN};
    size_t have = 0;
    while (have < capacity) {
        int n = poll(&wait, 1, timeout_ms);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        ssize_t size = n > 0 ? read(wait.fd, word + have, capacity - have) : 0;
        if (n <= 0 || size <= 0) {
            return n == 0 ? PM_ERR_TIMEOUT : PM_ERR_BROKEN_PIPE;
        }
        have += (size_t)size;
        if (memchr(word, '\n', have) != NULL) {
            return (int)have;
        }
    }
    return PM_ERR_TOO_BIG;
}

void os_keep_at_exec(pm_native native, bool keep)
{
    (void)fcntl((int)native, F_SETFD, keep ? 0 : FD_CLOEXEC);
}

int os_process_open(int64_t pid, struct os_process *ret_process)
{
    if (pid < 1) { // That means many.
        return UV_ESRCH;
    }
    ret_process->pid = pid;
    ret_process->native = PM_NATIVE_INVALID;
#ifdef SYS_pidfd_open
    long fd = syscall(SYS_pidfd_open, (pid_t)pid, 0);
    if (fd >= 0) {
        ret_process->native = (pm_native)fd;
        return 0;
    }
    if (errno != ENOSYS && errno != EPERM) {
        return -errno;
    }
#endif
    return kill((pid_t)pid, 0) == 0 ? 0 : -errno;
}

void os_process_signal(const struct os_process *process, int number)
{
#ifdef SYS_pidfd_send_signal
    if (process->native != PM_NATIVE_INVALID) {
        (void)syscall(SYS_pidfd_send_signal, (int)process->native, number, NULL, 0);
        return;
    }
#endif
    // No such object: who ended is still ours to name, because its connection ended just now.
    (void)kill((pid_t)process->pid, number);
}

void os_process_kill(const struct os_process *process, uint32_t wait_ms)
{
    struct pollfd wait = {.fd = (int)process->native, .events = POLLIN};
    os_process_signal(process, SIGKILL);
    if (process->native != PM_NATIVE_INVALID) {
        (void)poll(&wait, 1, (int)wait_ms);
        return;
    }
    for (uint32_t i = 0; i < wait_ms / 10 && kill((pid_t)process->pid, 0) == 0; i++) {
        uv_sleep(10);
    }
}

void os_process_close(struct os_process *process)
{
    if (process->native != PM_NATIVE_INVALID) {
        (void)close((int)process->native);
        process->native = PM_NATIVE_INVALID;
    }
}

// A socket in the folder that is ours alone.
void os_debug_address(const char *state_dir, char *address, size_t capacity)
{
    (void)snprintf(address, capacity, "unix:%s/debug.sock", state_dir);
}
