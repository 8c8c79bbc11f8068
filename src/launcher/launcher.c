// The launcher's side of daemon mode. Runs in a process of its own with one thread, right after
// exec: before any other code of the program, so nothing here may trust anything but the kernel.
#include "launcher/launcher.h"

#include "backend.h"
#include "identity.h"
#include "inspect.h"
#include "keeper.h"
#include "launcher/launch_plan.h"
#include "sys.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXIT_REFUSED 2

static atomic_bool wired;

bool pmi_launcher_is_wired(void)
{
    return atomic_load(&wired);
}

#if defined(__GNUC__)
__attribute__((noreturn))
#endif
static void
refuse(void)
{
    _exit(EXIT_REFUSED);
}

static char *read_plan(int fd, size_t *ret_size)
{
    long long whole = pmi_fd_size(fd);
    if (whole <= 0 || whole > (long long)PMI_LAUNCH_SIZE_MAX)
        return NULL;
    size_t size = (size_t)whole, done = 0;
    char *data = malloc(size);
    while (data != NULL && done < size) {
        ssize_t n = pread(fd, data + done, size - done, (off_t)done);
        if (n <= 0 && !(n < 0 && errno == EINTR)) {
            free(data);
            return NULL;
        }
        done += n > 0 ? (size_t)n : 0;
    }
    *ret_size = size;
    return data;
}

// The plan was written by the very process that is our parent.
static bool parent_is_author(const struct pmi_launch_plan *plan)
{
    struct pmi_stat stat;
    if ((uint64_t)getppid() != plan->parent_pid)
        return false;
    if (pmi_stat_read(getppid(), &stat) != PM_OK)
        return plan->parent_start == 0; // A system that tells neither of us.
    return stat.starttime == plan->parent_start;
}

static void run_keeper(void)
{
    pmi_set_process_name("pm-keeper");
    bool has_parent = fcntl(PMI_LAUNCHER_GATE_FD, F_GETFD) >= 0;
    (void)close(PMI_LAUNCHER_PLAN_FD);
    _exit(pmi_keeper_main(PMI_LAUNCHER_REPORT_FD, has_parent ? PMI_LAUNCHER_GATE_FD : -1));
}

static void run_daemon_launcher(const struct pmi_launch_plan *plan)
{
    sigset_t all;
    char line[32];
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL); // pmi_child_run() empties it again.
    pid_t stub = fork();
    if (stub == 0)
        pmi_stub_run(plan);
    int length = stub < 0 ? snprintf(line, sizeof(line), "E%d\n", errno)
                          : snprintf(line, sizeof(line), "%ld\n", (long)stub);
    _exit(pmi_sys_write(PMI_LAUNCHER_REPORT_FD, line, (size_t)length) == length ? 0 : 5);
}

static void run_launcher(int argc, char **argv)
{
    struct pmi_launch_plan plan;
    void *lists;
    size_t size = 0;
    if (argc != 2 || argv[2] != NULL || pmi_is_set_id() || !pmi_fd_is_fixed(PMI_LAUNCHER_PLAN_FD))
        refuse();
    char *data = read_plan(PMI_LAUNCHER_PLAN_FD, &size);
    if (data == NULL || pmi_launch_plan_decode(data, size, &plan, &lists) != PM_OK ||
        !parent_is_author(&plan))
        refuse();
    enum pmi_fd_kind report = pmi_fd_kind(PMI_LAUNCHER_REPORT_FD);
    if (plan.role == PMI_LAUNCH_KEEPER) {
        if (report != PMI_FD_SOCKET)
            refuse();
        run_keeper();
    }
    if (report != PMI_FD_PIPE || pmi_fd_kind(PMI_LAUNCHER_GATE_FD) != PMI_FD_SOCKET)
        refuse();
    run_daemon_launcher(&plan);
}

void pmi_os_launcher_main(int argc, char **argv)
{
    if (argc >= 2 && argv != NULL && argv[1] != NULL && strcmp(argv[1], PMI_LAUNCHER_MARKER) == 0) {
        run_launcher(argc, argv);
        refuse();
    }
    atomic_store(&wired, true);
}
