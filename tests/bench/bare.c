#include "bare.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif
#ifndef P_PIDFD
#define P_PIDFD 3
#endif

extern char **environ;

void bare_die(const char *what)
{
    perror(what);
    exit(1);
}

static int open_null(void)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        bare_die("/dev/null");
    }
    return fd;
}

static void become(char *const argv[], int in, int null)
{
    (void)setpgid(0, 0);
    (void)dup2(in, 0);
    (void)dup2(null, 1);
    (void)dup2(null, 2);
    (void)execve(argv[0], argv, environ);
    _exit(127);
}

pid_t bare_vfork(char *const argv[])
{
    int null = open_null();
    pid_t pid = vfork();
    if (pid == 0) {
        become(argv, null, null);
    }
    if (pid < 0) {
        bare_die("vfork");
    }
    (void)close(null);
    return pid;
}

pid_t bare_fork(char *const argv[])
{
    int null = open_null();
    pid_t pid = fork();
    if (pid == 0) {
        become(argv, null, null);
    }
    if (pid < 0) {
        bare_die("fork");
    }
    (void)close(null);
    return pid;
}

pid_t bare_posix_spawn(char *const argv[])
{
    pid_t pid;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    (void)posix_spawn_file_actions_init(&actions);
    for (int fd = 0; fd < 3; fd++) {
        (void)posix_spawn_file_actions_addopen(&actions, fd, "/dev/null", O_RDWR, 0);
    }
    (void)posix_spawnattr_init(&attributes);
    (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
    (void)posix_spawnattr_setpgroup(&attributes, 0);
    if (posix_spawn(&pid, argv[0], &actions, &attributes, argv, environ) != 0) {
        bare_die("posix_spawn");
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    (void)posix_spawnattr_destroy(&attributes);
    return pid;
}

struct birth {
    char *const *argv;
    int in, null;
};

static int clone_main(void *arg)
{
    struct birth *birth = arg;
    become(birth->argv, birth->in, birth->null);
    return 127;
}

pid_t bare_clone_reading(char *const argv[], int in, int *ret_pidfd)
{
    static _Thread_local char stack[65536] __attribute__((aligned(16)));
    int null = open_null();
    struct birth birth = {argv, in >= 0 ? in : null, null};
    pid_t pid = clone(clone_main, stack + sizeof stack,
                      CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &birth, ret_pidfd);
    if (pid < 0) {
        bare_die("clone");
    }
    (void)close(null);
    return pid;
}

pid_t bare_clone(char *const argv[], int *ret_pidfd)
{
    return bare_clone_reading(argv, -1, ret_pidfd);
}

#ifndef CLOSE_RANGE_UNSHARE
#define CLOSE_RANGE_UNSHARE 2u
#endif

// What is asked for and answered; the pidfd is born in the other table and has to be sent.
static sem_t asked, answered;
static char *const *asked_argv; // NULL: end.
static pid_t answer;
static int spawner_ends[2];
static pthread_t spawner_thread;

union rights {
    struct cmsghdr header;
    char room[CMSG_SPACE(sizeof(int))];
};

static void send_descriptor(int socket_fd, int fd)
{
    char byte = 0;
    union rights rights = {.room = {0}};
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = rights.room,
                             .msg_controllen = sizeof rights.room};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(socket_fd, &message, 0) != 1) {
        bare_die("sendmsg");
    }
    (void)close(fd);
}

static int receive_descriptor(int socket_fd)
{
    char byte;
    int fd;
    union rights rights;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = rights.room,
                             .msg_controllen = sizeof rights.room};
    if (recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC) != 1 || CMSG_FIRSTHDR(&message) == NULL) {
        bare_die("recvmsg");
    }
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
}

static void *spawner_main(void *unused)
{
    // A handler of the host's that ran here would write to descriptors of the other table: libuv's.
    sigset_t child;
    (void)unused;
    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);
    (void)pthread_sigmask(SIG_BLOCK, &child, NULL);
    // Its end of the pair moves to 3, the rest goes.
    if (syscall(SYS_close_range, 3u, (unsigned)spawner_ends[1] - 1, CLOSE_RANGE_UNSHARE) != 0 ||
        dup3(spawner_ends[1], 3, O_CLOEXEC) != 3 || syscall(SYS_close_range, 4u, ~0u, 0u) != 0) {
        bare_die("close_range");
    }
    for (;;) {
        while (sem_wait(&asked) != 0) {
        }
        if (asked_argv == NULL) {
            return NULL;
        }
        int pidfd;
        answer = bare_clone(asked_argv, &pidfd);
        send_descriptor(3, pidfd);
        (void)sem_post(&answered);
    }
}

void bare_spawner_begin(void)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, spawner_ends) != 0 ||
        sem_init(&asked, 0, 0) != 0 || sem_init(&answered, 0, 0) != 0 ||
        pthread_create(&spawner_thread, NULL, spawner_main, NULL) != 0) {
        bare_die("spawner");
    }
}

void bare_spawner_end(void)
{
    asked_argv = NULL;
    (void)sem_post(&asked);
    (void)pthread_join(spawner_thread, NULL);
    (void)close(spawner_ends[0]);
    (void)close(spawner_ends[1]);
}

pid_t bare_spawner(char *const argv[], int *ret_pidfd)
{
    asked_argv = argv;
    (void)sem_post(&asked);
    while (sem_wait(&answered) != 0) {
    }
    *ret_pidfd = receive_descriptor(spawner_ends[0]);
    return answer;
}

void bare_wait(pid_t pid)
{
    int status;
    if (waitpid(pid, &status, 0) != pid) {
        bare_die("waitpid");
    }
}

int bare_epoll_new(void)
{
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (epoll < 0) {
        bare_die("epoll_create1");
    }
    return epoll;
}

void bare_epoll_wait(int epoll, int pidfd)
{
    struct epoll_event event = {.events = EPOLLIN};
    siginfo_t info;
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, pidfd, &event) != 0 ||
        epoll_wait(epoll, &event, 1, -1) != 1 ||
        waitid((idtype_t)P_PIDFD, (id_t)pidfd, &info, WEXITED) != 0) {
        bare_die("epoll");
    }
    (void)close(pidfd);
}

// ------------------------------------------------------------------------------------------------
// A daemon
// ------------------------------------------------------------------------------------------------

enum {
    REPORT_FD = 3,
    GATE_FD = 4
};

// As our launcher it leaves with _exit(): the handlers of libraries that this program has for other
// loops are no step of a daemon's start.
int bare_launcher(char *const argv[])
{
    char byte;
    pid_t stub = fork();
    if (stub != 0) {
        _exit(write(REPORT_FD, &stub, sizeof stub) == sizeof stub ? 0 : 1);
    }
    (void)close(REPORT_FD);
    (void)setsid();
    if (read(GATE_FD, &byte, 1) != 1 || write(GATE_FD, &byte, 1) != 1 ||
        read(GATE_FD, &byte, 1) != 1 || write(GATE_FD, &byte, 1) != 1) { // Nonce, echo, GO, armed.
        _exit(1);
    }
    (void)fcntl(GATE_FD, F_SETFD, FD_CLOEXEC);
    (void)execve(argv[0], argv, environ);
    _exit(127);
}

static void write_record(const char *folder, pid_t pid)
{
    char temporary[256], final[256], text[400];
    (void)snprintf(temporary, sizeof temporary, "%s/bare.tmp", folder);
    (void)snprintf(final, sizeof final, "%s/bare", folder);
    int length = snprintf(text, sizeof text, "%0300d\n", (int)pid); // About the size of ours.
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, text, (size_t)length) != length || close(fd) != 0 ||
        rename(temporary, final) != 0) {
        bare_die("record");
    }
}

pid_t bare_daemon(const char *self, char *const argv[], const char *folder)
{
    int report[2], gate[2];
    pid_t stub;
    char byte = 'n';
    char *args[8] = {(char *)self, BARE_LAUNCHER};
    for (int i = 0; i < 5 && argv[i] != NULL; i++) {
        args[2 + i] = argv[i];
    }
    if (pipe2(report, O_CLOEXEC) != 0 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, gate) != 0) {
        bare_die("pipe");
    }
    int null = open_null();
    pid_t launcher = vfork();
    if (launcher == 0) {
        (void)setsid();
        int high_report = fcntl(report[1], F_DUPFD_CLOEXEC, 20);
        int high_gate = fcntl(gate[1], F_DUPFD_CLOEXEC, 20);
        (void)dup2(null, 0);
        (void)dup2(null, 1);
        (void)dup2(null, 2);
        (void)dup2(high_report, REPORT_FD);
        (void)dup2(high_gate, GATE_FD);
        (void)execve(self, args, environ);
        _exit(127);
    }
    (void)close(null);
    (void)close(report[1]);
    (void)close(gate[1]);
    if (launcher < 0 || read(report[0], &stub, sizeof stub) != sizeof stub) {
        bare_die("launcher");
    }
    int pidfd = (int)syscall(SYS_pidfd_open, stub, 0);
    if (pidfd < 0 || write(gate[0], &byte, 1) != 1) { // Answered while the launcher leaves.
        bare_die("nonce");
    }
    bare_wait(launcher);
    if (read(gate[0], &byte, 1) != 1) {
        bare_die("echo");
    }
    write_record(folder, stub);
    if (write(gate[0], &byte, 1) != 1 || read(gate[0], &byte, 1) != 1 ||
        read(gate[0], &byte, 1) != 0) { // GO, armed, and until exec.
        bare_die("exec");
    }
    write_record(folder, stub); // Now it runs.
    (void)close(report[0]);
    (void)close(gate[0]);
    (void)close(pidfd);
    return stub;
}
