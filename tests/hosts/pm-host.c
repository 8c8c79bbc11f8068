// Makes a poor host and runs a program on it.
//
//   pm-host CONDITION [PROGRAM [ARGUMENT...]]
//
// Conditions, of which more than one are had by naming pm-host again as the program:
//
//   deny=CALL,...[:ERROR]   a seccomp filter answers these calls with ENOSYS, or with EPERM or
//   ESRCH:
//                           see deniable[] below
//   sigchld=ignore          SIGCHLD is ignored
//   sigchld=nocldwait       the environment asks the test program to set SA_NOCLDWAIT, which does
//                           not survive exec
//   sigmask=full            all signals are blocked
//   pid1                    the program is PID 1 of a pid namespace
//   pid1=foreign-proc       ... and sees the /proc of the namespace around it
//   nested                  the program is a child of PID 1 in a pid namespace within another one
//   subreaper=self          the program is a subreaper
//   subreaper=reaps         orphans come to a subreaper that waits for them at once
//   subreaper=never         ... that never waits
//   subreaper=late          ... that waits for each 3 seconds after its death
//   closed=N,...            these descriptors are closed
//   nofile=N                RLIMIT_NOFILE is N; twenty inheritable descriptors are open above it
//   nproc=N                 RLIMIT_NPROC (the soft one) is N
//   uid=N                   the program runs as that user, without any privilege
//   umask=OCTAL
//
// The exit code is the program's, or 128 and the signal that ended it; 77: such a host cannot be
// made here; 126: the program cannot be run. Without a program it is only tried out.
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXIT_NO_SUCH_HOST 77
#define EXIT_NO_PROGRAM 126
#define LATE_MS 3000
#define LOOK_MS 10
#define ORPHANS_MAX 1024
#define HIGH_FDS 20

#if defined(__GNUC__)
__attribute__((noreturn))
#endif
static void
give_up(const char *what)
{
    fprintf(stderr, "pm-host: %s: %s\n", what, strerror(errno));
    exit(EXIT_NO_SUCH_HOST);
}

#if defined(__GNUC__)
__attribute__((noreturn))
#endif
static void
run(char **program)
{
    if (program[0] == NULL)
        exit(0);
    execv(program[0], program);
    fprintf(stderr, "pm-host: %s: %s\n", program[0], strerror(errno));
    exit(EXIT_NO_PROGRAM);
}

static int exit_code(int status)
{
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// A child that ends with us.
static pid_t fork_bound(void)
{
    pid_t parent = getpid(), pid = fork();
    if (pid < 0)
        give_up("fork");
    if (pid == 0 &&
        (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || (getppid() != parent && getppid() != 0)))
        exit(EXIT_NO_SUCH_HOST);
    return pid;
}

static int await(pid_t pid)
{
    int status = 0;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            give_up("waitpid");
    return exit_code(status);
}

// ------------------------------------------------------------------------------------------------
// Calls that are denied
// ------------------------------------------------------------------------------------------------

static const struct {
    const char *name;
    long number;
    // Denied only if this much of an argument has this value; mask 0: always.
    size_t argument;
    uint32_t mask, value;
} deniable[] = {
    {.name = "pidfd_open", .number = SYS_pidfd_open},
    {.name = "pidfd_send_signal", .number = SYS_pidfd_send_signal},
    {.name = "clone3", .number = SYS_clone3},
    {.name = "close_range", .number = SYS_close_range},
    {.name = "unshare", .number = SYS_unshare},
    {"waitid-pidfd", SYS_waitid, 0, UINT32_MAX, 3 /* P_PIDFD */},
    // A child, not a thread, that shares our memory.
    {"clone-vm", SYS_clone, 0, CLONE_VM | CLONE_THREAD, CLONE_VM},
    {"pidfd-status", SYS_ioctl, 1, UINT32_MAX, 0xc040ff0b /* PIDFD_GET_INFO */},
};
#define DENIABLE_COUNT (sizeof(deniable) / sizeof(deniable[0]))

static size_t add_rule(struct sock_filter *code, size_t which, int error)
{
    const uint32_t number = (uint32_t)deniable[which].number, mask = deniable[which].mask;
    const uint32_t at = // The low half: little-endian.
        (uint32_t)(offsetof(struct seccomp_data, args) + 8 * deniable[which].argument);
    const struct sock_filter rule[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, mask),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, deniable[which].value, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
    };
    memcpy(code, rule, sizeof(rule));
    return sizeof(rule) / sizeof(rule[0]);
}

static void deny(char *names)
{
    struct sock_filter code[DENIABLE_COUNT * 6 + 1];
    size_t size = 0;
    int error = ENOSYS;
    char *errno_name = strchr(names, ':');
    if (errno_name != NULL) {
        *errno_name++ = '\0';
        error = strcmp(errno_name, "EPERM") == 0   ? EPERM
                : strcmp(errno_name, "ESRCH") == 0 ? ESRCH
                                                   : ENOSYS;
    }
    for (char *name = strtok(names, ","); name != NULL; name = strtok(NULL, ",")) {
        size_t which = 0;
        while (which < DENIABLE_COUNT && strcmp(deniable[which].name, name) != 0)
            which++;
        errno = EINVAL;
        if (which == DENIABLE_COUNT)
            give_up(name);
        size += add_rule(code + size, which, error);
    }
    code[size++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = (unsigned short)size, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
        give_up("seccomp");
}

// ------------------------------------------------------------------------------------------------
// Namespaces
// ------------------------------------------------------------------------------------------------

static bool write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    if (fd >= 0)
        (void)close(fd);
    return done;
}

// Without root, where the system lets everybody have a user namespace.
static void unshare_as_user(void)
{
    char map[64];
    const unsigned uid = (unsigned)geteuid(), gid = (unsigned)getegid();
    if (unshare(CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNS) < 0)
        give_up("unshare");
    (void)snprintf(map, sizeof(map), "0 %u 1", uid);
    if (!write_file("/proc/self/uid_map", map) || !write_file("/proc/self/setgroups", "deny"))
        give_up("uid_map");
    (void)snprintf(map, sizeof(map), "0 %u 1", gid);
    if (!write_file("/proc/self/gid_map", map))
        give_up("gid_map");
}

// The child returns as PID 1 of a new namespace; we wait for it and exit as it did.
static void enter_namespace(bool own_proc)
{
    if (unshare(CLONE_NEWPID | CLONE_NEWNS) < 0) {
        if (errno != EPERM)
            give_up("unshare");
        unshare_as_user();
    }
    pid_t init = fork_bound();
    if (init != 0)
        exit(await(init));
    if (own_proc && (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
                     mount("proc", "/proc", "proc", 0, NULL) < 0))
        give_up("mount of /proc");
}

// ------------------------------------------------------------------------------------------------
// Parents of orphans
// ------------------------------------------------------------------------------------------------

static long long now_ms(void)
{
    struct timespec ts = {0};
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (long long)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

// Waits for all; ends as the program does.
static void reap_all(pid_t program)
{
    for (;;) {
        int status = 0;
        pid_t ended = waitpid(-1, &status, 0);
        if (ended == program)
            exit(exit_code(status));
        if (ended < 0 && errno != EINTR)
            give_up("waitpid");
    }
}

struct orphan {
    pid_t pid;
    long long died; // 0 = it lives.
    bool seen;
};

static bool is_dead(pid_t pid)
{
    siginfo_t info;
    memset(&info, 0, sizeof(info));
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid == pid;
}

// Our children, as the kernel lists them.
static void look_for_orphans(struct orphan *orphans, size_t *count, pid_t program)
{
    char path[64];
    (void)snprintf(path, sizeof(path), "/proc/self/task/%ld/children", (long)getpid());
    FILE *list = fopen(path, "re");
    if (list == NULL)
        give_up(path);
    for (size_t i = 0; i < *count; i++)
        orphans[i].seen = false;
    long pid;
    while (fscanf(list, "%ld", &pid) == 1) {
        size_t at = 0;
        while (at < *count && orphans[at].pid != (pid_t)pid)
            at++;
        if (pid == program || at == ORPHANS_MAX)
            continue;
        if (at == *count)
            orphans[(*count)++] = (struct orphan){.pid = (pid_t)pid};
        orphans[at].seen = true;
        if (orphans[at].died == 0 && is_dead((pid_t)pid))
            orphans[at].died = now_ms();
    }
    (void)fclose(list);
}

static void reap_late(pid_t program)
{
    static struct orphan orphans[ORPHANS_MAX];
    size_t count = 0;
    for (;;) {
        int status = 0;
        if (waitpid(program, &status, WNOHANG) == program)
            exit(exit_code(status));
        look_for_orphans(orphans, &count, program);
        size_t kept = 0;
        for (size_t i = 0; i < count; i++) {
            bool due = orphans[i].died != 0 && now_ms() - orphans[i].died >= LATE_MS;
            if (due)
                (void)waitpid(orphans[i].pid, NULL, WNOHANG);
            if (!due && orphans[i].seen)
                orphans[kept++] = orphans[i];
        }
        count = kept;
        (void)nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000L}, NULL);
    }
}

static void be_subreaper(const char *how)
{
    if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
        give_up("subreaper");
    if (strcmp(how, "self") == 0)
        return;
    pid_t program = fork_bound();
    if (program == 0)
        return;
    if (strcmp(how, "reaps") == 0)
        reap_all(program);
    else if (strcmp(how, "late") == 0)
        reap_late(program);
    else if (strcmp(how, "never") == 0)
        exit(await(program));
    errno = EINVAL;
    give_up(how);
}

// PID 1 of each namespace waits for everybody; the program is a child of the inner one.
static void nest(void)
{
    for (int level = 0; level < 2; level++) {
        enter_namespace(true);
        pid_t next = fork_bound();
        if (next != 0)
            reap_all(next);
    }
}

// ------------------------------------------------------------------------------------------------
// Descriptors, limits, users
// ------------------------------------------------------------------------------------------------

static void close_some(char *numbers)
{
    for (char *number = strtok(numbers, ","); number != NULL; number = strtok(NULL, ","))
        (void)close(atoi(number));
}

static void lower_nofile(int most)
{
    struct rlimit limit;
    int zero = open("/dev/zero", O_RDONLY);
    if (zero < 0 || getrlimit(RLIMIT_NOFILE, &limit) < 0)
        give_up("/dev/zero");
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    for (int i = 0; i < HIGH_FDS; i++)
        if (dup2(zero, most + 5 + i) < 0)
            give_up("dup2");
    (void)close(zero);
    limit.rlim_cur = limit.rlim_max = (rlim_t)most;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
        give_up("RLIMIT_NOFILE");
}

static void lower_nproc(long most)
{
    struct rlimit limit;
    errno = EPERM;
    if (geteuid() == 0) // The limit does not hold for root.
        give_up("RLIMIT_NPROC");
    if (getrlimit(RLIMIT_NPROC, &limit) < 0)
        give_up("RLIMIT_NPROC");
    limit.rlim_cur = (rlim_t)most;
    if (setrlimit(RLIMIT_NPROC, &limit) < 0)
        give_up("RLIMIT_NPROC");
}

static void become(unsigned id, char **program)
{
    if (setgroups(0, NULL) < 0 || setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0)
        give_up("another user");
    if (program[0] != NULL && access(program[0], X_OK) < 0)
        give_up(program[0]); // Built in a folder that is closed to others.
}

// ------------------------------------------------------------------------------------------------
// The program
// ------------------------------------------------------------------------------------------------

static void set_sigchld(const char *how)
{
    if (strcmp(how, "nocldwait") == 0) {
        if (setenv("PM_TEST_SIGCHLD", how, 1) < 0)
            give_up("environment");
        return;
    }
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_IGN;
    if (sigaction(SIGCHLD, &action, NULL) < 0)
        give_up("SIGCHLD");
}

static void block_signals(void)
{
    sigset_t all;
    (void)sigfillset(&all);
    if (sigprocmask(SIG_SETMASK, &all, NULL) < 0)
        give_up("sigprocmask");
}

static void make_host(char *condition, char **program)
{
    char *value = strchr(condition, '=');
    if (value != NULL)
        *value++ = '\0';
    else
        value = condition + strlen(condition);
    if (strcmp(condition, "deny") == 0)
        deny(value);
    else if (strcmp(condition, "sigchld") == 0)
        set_sigchld(value);
    else if (strcmp(condition, "sigmask") == 0)
        block_signals();
    else if (strcmp(condition, "pid1") == 0)
        enter_namespace(strcmp(value, "foreign-proc") != 0);
    else if (strcmp(condition, "nested") == 0)
        nest();
    else if (strcmp(condition, "subreaper") == 0)
        be_subreaper(value);
    else if (strcmp(condition, "closed") == 0)
        close_some(value);
    else if (strcmp(condition, "nofile") == 0)
        lower_nofile(atoi(value));
    else if (strcmp(condition, "nproc") == 0)
        lower_nproc(atol(value));
    else if (strcmp(condition, "uid") == 0)
        become((unsigned)strtoul(value, NULL, 10), program);
    else if (strcmp(condition, "umask") == 0)
        (void)umask((mode_t)strtoul(value, NULL, 8));
    else {
        errno = EINVAL;
        give_up(condition);
    }
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: pm-host CONDITION [PROGRAM [ARGUMENT...]]\n");
        return 2;
    }
    make_host(argv[1], argv + 2);
    run(argv + 2);
}
