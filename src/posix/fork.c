// The way for systems without the vfork-like clone: fork, and the plan in memory that both sides
// share. A pipe that exec closes wakes us. Its end of file is a hint only: another thread of the
// host may have forked, and such a copy holds it open for as long as it likes.
#include "start.h"

#include "quiet.h"
#include "reap.h"
#include "sys.h"

#include <errno.h>
#include <sys/mman.h>

#ifndef MAP_ANONYMOUS
#define MAP_ANONYMOUS MAP_ANON
#endif

// How often to look past the pipe.
#define LOOK_MS 20

// Until exec, failure, or death; or the deadline: PMI_CHILD_OVERDUE.
static void await_exec(pid_t pid, struct pmi_child_plan *plan, int pipe_fd, int64_t deadline)
{
    for (;;) {
        int64_t rest = deadline == PMI_NEVER ? LOOK_MS : deadline - pmi_now_ms();
        if (rest <= 0 && !(plan->progress == PMI_CHILD_EXEC && pmi_exec_reached(pid) == 1)) {
            plan->progress = PMI_CHILD_OVERDUE;
            return;
        }
        struct pollfd in = {.fd = pipe_fd, .events = POLLIN};
        if (pmi_sys_poll(&in, 1, rest <= 0 ? 0 : rest < LOOK_MS ? (int)rest : LOOK_MS) > 0)
            return;
        if (plan->progress == PMI_CHILD_FAILED || pmi_child_look(pid) != 0)
            return;
        if (plan->progress == PMI_CHILD_EXEC && pmi_exec_reached(pid) == 1)
            return;
    }
}

// Where there are pidfds, a poorer way to make the process need not mean a poorer process.
static int open_pidfd(pid_t pid, int *ret_pidfd)
{
    *ret_pidfd = -1;
#ifdef HAVE_PIDFD
    *ret_pidfd = pmi_sys_pidfd_open(pid);
    if (*ret_pidfd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
        return errno;
#else
    (void)pid;
#endif
    return 0;
}

static int lift_report(const struct pmi_child_plan *plan, int pipe_fds[2])
{
    int floor = 3;
    for (size_t i = 0; i < plan->fds_count; i++)
        if (plan->fds[i].target >= floor)
            floor = plan->fds[i].target + 1;
    pipe_fds[1] = pmi_sys_lift(pipe_fds[1], floor);
    return pipe_fds[1] < 0 ? errno : 0;
}

int pmi_fork_child(struct pmi_child_plan *plan, int64_t deadline, pid_t *ret_pid, int *ret_pidfd)
{
    int pipe_fds[2] = {-1, -1}, pidfd = -1, e = 0;
    pid_t pid = -1;
    struct pmi_child_plan *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return errno;
    *shared = *plan;
    if (pmi_sys_pipe(pipe_fds) < 0) {
        e = errno;
        goto out;
    }
    e = lift_report(plan, pipe_fds);
    if (e != 0)
        goto out;
    shared->report_fd = pipe_fds[1];

    struct pmi_quiet quiet;
    pmi_quiet_begin(&quiet);
    pid = PMI_SYS(fork)();
    if (pid == 0) {
        pmi_child_run(shared);
        _exit(127);
    }
    e = pid < 0 ? errno : 0;
    pmi_quiet_end(&quiet);
    if (e != 0)
        goto out;

    pipe_fds[1] = pmi_sys_close(pipe_fds[1]);
    e = open_pidfd(pid, &pidfd);
    if (e != 0) {
        (void)pmi_child_end(pid, -1);
        goto out;
    }
    await_exec(pid, shared, pipe_fds[0], deadline);
    plan->progress = shared->progress;
    plan->stage = shared->stage;
    plan->error = shared->error;
    plan->field = shared->field;
    plan->exec_retries = shared->exec_retries;
    *ret_pid = pid;
    *ret_pidfd = pidfd;
out:
    (void)pmi_sys_close(pipe_fds[0]);
    (void)pmi_sys_close(pipe_fds[1]);
    (void)munmap(shared, sizeof(*shared));
    return e;
}
