// The programs inside the holders, and the runtime that conmon wants. The same for all holders.
//
//   bench_pod_child echo 0 READY      every piece of input comes back
//   bench_pod_child flood SIZE READY  after each byte of input SIZE bytes of output
//   bench_pod_child hello 0 READY     one byte of output, and READY is not made
//   bench_pod_child still 0 READY     nothing
//   bench_pod_child create ...        what conmon calls to have its container made (OCI): this
//                                     program again, as the file `role` in the bundle says
//
// READY is a file that is made when the terminal is as it shall be.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

static void make_raw(void)
{
    struct termios mode;
    if (tcgetattr(0, &mode) == 0) {
        cfmakeraw(&mode);
        (void)tcsetattr(0, TCSANOW, &mode);
    }
}

static void put(const char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t n = write(1, bytes, size);
        if (n <= 0) {
            _exit(1);
        }
        bytes += n;
        size -= (size_t)n;
    }
}

static int echo(void)
{
    static char bytes[4096];
    for (;;) {
        ssize_t n = read(0, bytes, sizeof bytes);
        if (n <= 0) {
            return 0;
        }
        put(bytes, (size_t)n);
    }
}

static int flood(size_t size)
{
    static char bytes[65536];
    char byte;
    memset(bytes, 'x', sizeof bytes);
    while (read(0, &byte, 1) == 1) {
        for (size_t left = size; left > 0;) {
            size_t some = left < sizeof bytes ? left : sizeof bytes;
            put(bytes, some);
            left -= some;
        }
    }
    return 0;
}

static int wait_for_ever(void)
{
    for (;;) {
        (void)pause();
    }
}

static int play(char **argv)
{
    (void)alarm(600); // Never for ever.
    if (strcmp(argv[1], "hello") == 0) {
        put("h", 1);
        return wait_for_ever();
    }
    make_raw();
    (void)close(open(argv[3], O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    if (strcmp(argv[1], "flood") == 0) {
        return flood((size_t)strtoull(argv[2], NULL, 10));
    }
    if (strcmp(argv[1], "echo") == 0) {
        return echo();
    }
    return wait_for_ever();
}

// ------------------------------------------------------------------------------------------------
// The runtime
// ------------------------------------------------------------------------------------------------

static void die(const char *what)
{
    perror(what);
    exit(1);
}

// conmon gets the terminal through a socket.
static void hand_over(const char *path, int master)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[] = "terminal";
    struct iovec part = {name, sizeof name};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes};
    message.msg_controllen = sizeof control.bytes;
    struct cmsghdr *head = CMSG_FIRSTHDR(&message);
    head->cmsg_level = SOL_SOCKET;
    head->cmsg_type = SCM_RIGHTS;
    head->cmsg_len = CMSG_LEN(sizeof master);
    memcpy(CMSG_DATA(head), &master, sizeof master);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        sendmsg(fd, &message, 0) < 0) {
        die("console socket");
    }
    (void)close(fd);
}

static pid_t start_inside(int slave)
{
    char role[32], size[32], ready[128];
    FILE *file = fopen("role", "r"); // The current folder is the bundle.
    if (file == NULL || fscanf(file, "%31s %31s %127s", role, size, ready) != 3) {
        die("role");
    }
    (void)fclose(file);
    pid_t pid = fork();
    if (pid != 0) {
        return pid;
    }
    (void)setsid();
    (void)ioctl(slave, TIOCSCTTY, 0);
    for (int fd = 0; fd < 3; fd++) {
        (void)dup2(slave, fd);
    }
    char self[] = "bench_pod_child";
    char *const argv[] = {self, role, size, ready, NULL};
    (void)execv("/proc/self/exe", argv);
    _exit(127);
}

static int create(int argc, char **argv)
{
    const char *console = NULL, *pid_file = NULL, *bundle = NULL;
    for (int i = 1; i + 1 < argc; i++) {
        console = strcmp(argv[i], "--console-socket") == 0 ? argv[i + 1] : console;
        pid_file = strcmp(argv[i], "--pid-file") == 0 ? argv[i + 1] : pid_file;
        bundle = strcmp(argv[i], "--bundle") == 0 ? argv[i + 1] : bundle;
    }
    if (console == NULL || pid_file == NULL || bundle == NULL || chdir(bundle) != 0) {
        die("create: arguments");
    }
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (master < 0 || unlockpt(master) < 0) {
        die("terminal");
    }
    int slave = open(ptsname(master), O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (slave < 0) {
        die("terminal");
    }
    pid_t pid = start_inside(slave);
    hand_over(console, master);
    FILE *file = fopen(pid_file, "w");
    if (pid < 0 || file == NULL || fprintf(file, "%d", (int)pid) < 0 || fclose(file) != 0) {
        die("pid file");
    }
    return 0;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "create") == 0) {
            return create(argc, argv);
        }
    }
    return argc == 4 ? play(argv) : 2;
}
