#include "foreground.h"

#include "error.h"
#include "start.h"
#include "sys.h"

#include <pthread.h>

int pmi_foreground_prepare(const struct pmi_plan *plan, struct pmi_os_process *op,
                           struct pm_error *err)
{
    const struct pm_stdio *in = &plan->slots[PM_STDIN];
    int fd = in->kind == PM_STDIO_NATIVE    ? (int)in->native
             : in->kind == PM_STDIO_INHERIT ? STDIN_FILENO
                                            : -1;
    if (plan->group != PM_GROUP_FOREGROUND)
        return PM_OK;
    pid_t group = fd >= 0 ? PMI_SYS(tcgetpgrp)(fd) : -1;
    if (group < 0) {
        (void)pmi_fail_code(err, PM_STAGE_CHECK, PM_ERR_INVALID);
        pmi_fail_field(err, "group");
        pmi_fail_hint(err, "stdin is not the controlling terminal of this program");
        return err->code;
    }
    op->tty_fd = pmi_sys_dup_above(fd, 3);
    if (op->tty_fd < 0) {
        pmi_fail(err, PM_STAGE_GROUP, errno);
        return err->code;
    }
    op->tty_group = group;
    return PM_OK;
}

// Who does this from the background is stopped for it, unless SIGTTOU is blocked.
static void set_foreground(int fd, pid_t group)
{
    sigset_t ttou, before;
    (void)sigemptyset(&ttou);
    (void)sigaddset(&ttou, SIGTTOU);
    (void)pthread_sigmask(SIG_BLOCK, &ttou, &before);
    (void)PMI_SYS(tcsetpgrp)(fd, group);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void pmi_foreground_take(const struct pmi_os_process *op)
{
    if (op->tty_fd >= 0 && PMI_SYS(tcgetpgrp)(op->tty_fd) == op->tty_group)
        set_foreground(op->tty_fd, op->pid);
}

void pmi_foreground_give_back(const struct pmi_os_process *op)
{
    if (op->tty_fd < 0)
        return;
    pid_t now = PMI_SYS(tcgetpgrp)(op->tty_fd);
    // Its own, or one that it has made and that is gone.
    if (now == op->pid || (now > 1 && pmi_sys_kill(-now, 0) < 0 && errno == ESRCH))
        set_foreground(op->tty_fd, op->tty_group);
}
