// Uses that the guard must leave alone. Compiled as C11 and as C++17.
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>

// Members that carry the names of forbidden functions.
struct operations {
    int (*fork)(void);
    int (*system)(const char *);
    int (*waitpid)(int pid, int *status, int options);
    int (*waitid)(int type, int id, void *info, int options);
    int wait;
    int clone;
};

int use_members(const struct operations *ops, struct operations copy, int pid);
int wait_for_one(pid_t pid, int *status);
int wait_for_one_with_usage(pid_t pid, struct rusage *usage);
int wait_by_id(pid_t pid, siginfo_t *info);
int wait_by_runtime_value(idtype_t type, pid_t pid);
int names_as_locals(int fork, int system);
const char *names_as_text(void);

int use_members(const struct operations *ops, struct operations copy, int pid)
{
    int status = 0;
    int sum = ops->fork() + copy.system("x") + ops->wait + copy.clone;
    sum += ops->waitpid(pid, &status, 0);
    return sum + copy.waitid(1, pid, NULL, 0);
}

int wait_for_one(pid_t pid, int *status)
{
    return waitpid(pid, status, WNOHANG);
}

int wait_for_one_with_usage(pid_t pid, struct rusage *usage)
{
    int status = 0;
    return wait4(pid, &status, 0, usage);
}

int wait_by_id(pid_t pid, siginfo_t *info)
{
    return waitid(P_PID, (id_t)pid, info, WEXITED | WNOWAIT);
}

int wait_by_runtime_value(idtype_t type, pid_t pid)
{
    siginfo_t info;
    memset(&info, 0, sizeof info);
    return waitid(type, (id_t)pid, &info, WEXITED) + waitpid(pid + 1, NULL, 0) + kill(pid, 0);
}

int names_as_locals(int fork, int system)
{
    int exec = fork + system;
    return exec;
}

const char *names_as_text(void)
{
    return "fork() system() popen() waitpid(-1)";
}
