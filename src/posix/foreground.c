#include "foreground.h"

#include "error.h"
#include "group.h"
#include "start.h"
#include "sys.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <termios.h>

// A terminal that somebody whom a child has left behind had in front at the child's end.
struct pmi_owed {
    struct pmi_owed *next;
    int fd;
    pid_t holder, child, home; // Groups: who has it, the child's own, who is to get it back.
};

// ------------------------------------------------------------------------------------------------
// Lend
// ------------------------------------------------------------------------------------------------

// One start at a time: two that both find us in front would each take the terminal from the other.
static atomic_flag lending = ATOMIC_FLAG_INIT;

static int refuse(struct pm_error *err, int code, const char *hint)
{
    (void)pmi_fail_code(err, PM_STAGE_CHECK, code);
    pmi_fail_field(err, "group");
    pmi_fail_hint(err, "%s", hint);
    return code;
}

static int lend(int fd, struct pmi_os_process *op, struct pm_error *err)
{
    // The session as well: the master of a terminal tells the group of its other side.
    pid_t group = fd >= 0 ? PMI_SYS(tcgetpgrp)(fd) : -1;
    if (group < 0 || PMI_SYS(tcgetsid)(fd) != getsid(0))
        return refuse(err, PM_ERR_INVALID, "stdin is not the controlling terminal of this program");
    if (group != getpgrp())
        return refuse(err, PM_ERR_BUSY,
                      "the terminal is not with this program: another process group is in front");
    op->owed = calloc(1, sizeof(*op->owed));
    op->tty_fd = op->owed == NULL ? -1 : pmi_sys_dup_above(fd, 3);
    if (op->tty_fd < 0) {
        pmi_fail(err, PM_STAGE_GROUP, op->owed == NULL ? ENOMEM : errno);
        free(op->owed);
        op->owed = NULL;
        return err->code;
    }
    op->tty_group = group;
    return PM_OK;
}

int pmi_foreground_prepare(const struct pmi_plan *plan, struct pmi_os_process *op,
                           struct pm_error *err)
{
    const struct pm_stdio *in = &plan->slots[PM_STDIN];
    int fd = in->kind == PM_STDIO_NATIVE    ? (int)in->native
             : in->kind == PM_STDIO_INHERIT ? STDIN_FILENO
                                            : -1;
    if (plan->group != PM_GROUP_FOREGROUND)
        return PM_OK;
    if (atomic_flag_test_and_set(&lending))
        return refuse(err, PM_ERR_BUSY, "another start that takes the terminal is under way");
    int result = lend(fd, op, err);
    if (result != PM_OK)
        atomic_flag_clear(&lending);
    return result;
}

void pmi_foreground_prepared(void)
{
    atomic_flag_clear(&lending);
}

// ------------------------------------------------------------------------------------------------
// Give and take
// ------------------------------------------------------------------------------------------------

// Who does this from the background is stopped for it, unless SIGTTOU is blocked.
static bool set_foreground(int fd, pid_t group)
{
    sigset_t ttou, before;
    (void)sigemptyset(&ttou);
    (void)sigaddset(&ttou, SIGTTOU);
    (void)pthread_sigmask(SIG_BLOCK, &ttou, &before);
    int r = PMI_SYS(tcsetpgrp)(fd, group);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r == 0;
}

void pmi_foreground_take(const struct pmi_os_process *op)
{
    if (op->tty_fd >= 0 && PMI_SYS(tcgetpgrp)(op->tty_fd) == op->tty_group)
        (void)set_foreground(op->tty_fd, op->pid);
}

// Who has it now instead, 0 = nobody: it is back.
static pid_t give_back(int fd, pid_t child, pid_t home)
{
    pid_t now = PMI_SYS(tcgetpgrp)(fd);
    // The child's own group, or one that it has made and that is gone.
    if (now <= 0 || now == home ||
        ((now == child || pmi_group_is_dead(now)) && set_foreground(fd, home)))
        return 0;
    return now;
}

void pmi_foreground_step_back(const struct pmi_os_process *op)
{
    if (op->tty_fd >= 0)
        (void)give_back(op->tty_fd, op->pid, op->tty_group);
}

static struct pmi_mutex owed_lock = PMI_MUTEX_INIT;
static struct pmi_owed *owed_list;
static atomic_bool any_owed;

void pmi_foreground_forget_parent(void)
{
    atomic_flag_clear(&lending);
    pmi_mutex_init(&owed_lock);
    owed_list = NULL;
    atomic_store(&any_owed, false);
}

static void forget(struct pmi_owed *owed)
{
    (void)pmi_sys_close(owed->fd);
    free(owed);
}

void pmi_foreground_end(struct pmi_os_process *op)
{
    pid_t holder = op->tty_fd < 0 ? 0 : give_back(op->tty_fd, op->pid, op->tty_group);
    if (holder == 0) {
        op->tty_fd = pmi_sys_close(op->tty_fd);
        free(op->owed);
    } else {
        struct pmi_owed *owed = op->owed;
        *owed = (struct pmi_owed){.fd = op->tty_fd,
                                  .holder = holder,
                                  .child = op->pid,
                                  .home = op->tty_group};
        pmi_mutex_lock(&owed_lock);
        owed->next = owed_list;
        owed_list = owed;
        atomic_store(&any_owed, true);
        pmi_mutex_unlock(&owed_lock);
        op->tty_fd = -1;
    }
    op->owed = NULL;
}

// Whether there is nothing left to wait for. Somebody else who has it now has got it from whoever
// had it: that is between them.
static bool settle(const struct pmi_owed *owed)
{
    return PMI_SYS(tcgetpgrp)(owed->fd) != owed->holder ||
           give_back(owed->fd, owed->child, owed->home) == 0;
}

bool pmi_foreground_take_back(bool last_time)
{
    if (!atomic_load(&any_owed))
        return false;
    pmi_mutex_lock(&owed_lock);
    for (struct pmi_owed **at = &owed_list; *at != NULL;) {
        struct pmi_owed *owed = *at;
        if (settle(owed) || last_time) {
            *at = owed->next;
            forget(owed);
        } else {
            at = &owed->next;
        }
    }
    bool any = owed_list != NULL;
    atomic_store(&any_owed, any);
    pmi_mutex_unlock(&owed_lock);
    return any;
}

bool pmi_os_terminals_take_back(void)
{
    return pmi_foreground_take_back(false);
}

bool pmi_os_terminals_owed(void)
{
    return atomic_load(&any_owed);
}
