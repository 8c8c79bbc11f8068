#include "floor.h"

#include "../bench.h"
#include "holders.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

// The sizes of what goes to and fro until a client is attached: HELLO, its answer, the client's
// proof with ATTACH, the holder's proof with ATTACHED.
enum {
    HELLO_SIZE = 53,
    ANSWER_SIZE = 100,
    PROOF_SIZE = 74,
    ATTACHED_SIZE = 83
};

static struct sockaddr_un address;
static pid_t peer;

static void run(const char *program)
{
    pid_t pid = vfork();
    if (pid == 0) {
        (void)execl(program, program, (char *)NULL);
        _exit(127);
    }
    int status;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) ||
        WEXITSTATUS(status) != 2) {
        holders_die(program);
    }
}

static void make_file(const char *name)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", holders_folder(), name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, path, sizeof path) != (ssize_t)sizeof path) {
        holders_die(path);
    }
    (void)close(fd);
}

// Token and record, which are written under another name first, lock, log and socket.
static void make_files(void)
{
    static const char *const names[] = {"f1.new", "f2.new", "f3", "f4", "f5"};
    char from[128], to[128];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        make_file(names[i]);
    }
    for (int i = 1; i <= 2; i++) {
        (void)snprintf(from, sizeof from, "%s/f%d.new", holders_folder(), i);
        (void)snprintf(to, sizeof to, "%s/f%d", holders_folder(), i);
        if (rename(from, to) != 0) {
            holders_die(to);
        }
    }
}

static void remove_files(void)
{
    char path[128];
    for (int i = 1; i <= 5; i++) {
        (void)snprintf(path, sizeof path, "%s/f%d", holders_folder(), i);
        (void)unlink(path);
    }
}

double floor_start(void)
{
    static int null = -1;
    if (null < 0 && (null = open("/dev/null", O_WRONLY | O_CLOEXEC)) < 0) {
        holders_die("/dev/null");
    }
    int kept = fcntl(2, F_DUPFD_CLOEXEC, 3); // They say how they are called.
    (void)dup2(null, 2);
    double begin = bench_now_us();
    run(BENCH_LAUNCHER);
    run(BENCH_PODDAEMON);
    run(BENCH_CHILD);
    make_files();
    double us = bench_now_us() - begin;
    remove_files();
    (void)dup2(kept, 2);
    (void)close(kept);
    return us;
}

static bool receive(int fd, char *bytes, size_t size)
{
    return recv(fd, bytes, size, MSG_WAITALL) == (ssize_t)size;
}

static void answer(int fd)
{
    char bytes[ANSWER_SIZE] = {0};
    if (receive(fd, bytes, HELLO_SIZE) && write(fd, bytes, ANSWER_SIZE) == ANSWER_SIZE &&
        receive(fd, bytes, PROOF_SIZE)) {
        (void)!write(fd, bytes, ATTACHED_SIZE);
        (void)!read(fd, bytes, 1); // Until the client leaves.
    }
}

void floor_attach_begin(void)
{
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    address.sun_family = AF_UNIX;
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s/floor", holders_folder());
    if (listener < 0 || bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, 8) < 0 || (peer = fork()) < 0) {
        holders_die("floor");
    }
    if (peer == 0) {
        (void)alarm(600); // Never for ever.
        for (int fd; (fd = accept(listener, NULL, NULL)) >= 0;) {
            answer(fd);
            (void)close(fd);
        }
        _exit(0);
    }
    (void)close(listener);
}

double floor_attach(void)
{
    char bytes[ANSWER_SIZE] = {0};
    double begin = bench_now_us();
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0 ||
        write(fd, bytes, HELLO_SIZE) != HELLO_SIZE || !receive(fd, bytes, ANSWER_SIZE) ||
        write(fd, bytes, PROOF_SIZE) != PROOF_SIZE || !receive(fd, bytes, ATTACHED_SIZE)) {
        holders_die("floor");
    }
    double us = bench_now_us() - begin;
    (void)close(fd);
    return us;
}

void floor_attach_end(void)
{
    (void)kill(peer, SIGKILL);
    (void)waitpid(peer, NULL, 0);
    (void)unlink(address.sun_path);
}
