// The descriptors of a start. Everything is opened and checked here, in the starter, so that the
// child only has to place what is there.
#include "error.h"
#include "start.h"
#include "sys.h"
#include "terminal.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static const char *const slot_names[3] = {"stdin_slot", "stdout_slot", "stderr_slot"};

static void fail_slot(struct pm_error *err, size_t slot, const char *part, int e)
{
    char field[48];
    pmi_fail(err, PM_STAGE_STDIO, e);
    (void)snprintf(field, sizeof(field), "%s%s", slot_names[slot], part);
    pmi_fail_field(err, field);
}

static void add(struct pmi_stdio_plan *stdio, int source, int target)
{
    stdio->fds[stdio->fds_count++] = (struct pmi_child_fd){.source = source, .target = target};
}

// Takes `fd` over, lifts it above all targets, and remembers to close it. -1 with errno.
static int own(struct pmi_stdio_plan *stdio, int fd)
{
    int lifted = pmi_sys_lift(fd, stdio->floor);
    if (lifted >= 0)
        stdio->owned[stdio->owned_count++] = lifted;
    return lifted;
}

// What an exec would hand on stays where it is. A close-on-exec one may be a descriptor that
// another start has just opened, in a host that has closed its own, and is about to lift.
bool pmi_is_inheritable(int fd)
{
    int flags = PMI_SYS(fcntl)(fd, F_GETFD);
    return flags >= 0 && (flags & FD_CLOEXEC) == 0;
}

// One for all slots.
static int source_null(struct pmi_stdio_plan *stdio)
{
    if (stdio->null < 0)
        stdio->null = own(stdio, pmi_sys_open("/dev/null", O_RDWR | O_NOCTTY, 0));
    return stdio->null;
}

static int source_file(struct pmi_stdio_plan *stdio, const struct pm_stdio *slot)
{
    int flags = O_NOCTTY | O_NONBLOCK; // A FIFO without its other end must not hold us.
    if (slot->kind == PM_STDIO_FILE_READ)
        flags |= O_RDONLY;
    else
        flags |= O_WRONLY | O_CREAT | (slot->kind == PM_STDIO_FILE_APPEND ? O_APPEND : O_TRUNC);
    int fd = pmi_sys_open(slot->path, flags, 0666);
    if (fd < 0)
        return -1;
    if (pmi_sys_set_nonblock(fd, false) < 0)
        return pmi_sys_close(fd);
    return own(stdio, fd);
}

// Our end goes to stdio->streams, the child's is returned.
static int source_pipe(struct pmi_stdio_plan *stdio, size_t slot)
{
    int ends[2];
    if (pmi_sys_pipe(ends) < 0)
        return -1;
    int ours = slot == 0 ? ends[1] : ends[0];
    int theirs = slot == 0 ? ends[0] : ends[1];
    // Two ends are two open files: the child's stays a blocking one.
    if (pmi_sys_set_nonblock(ours, true) < 0) {
        (void)pmi_sys_close(theirs);
        return pmi_sys_close(ours);
    }
    stdio->streams[slot] = ours;
    return own(stdio, theirs);
}

// One for all slots.
static int source_terminal(const struct pmi_plan *plan, struct pmi_stdio_plan *stdio)
{
    int master, slave;
    if (stdio->terminal >= 0)
        return stdio->terminal;
    int e = pmi_pty_open(plan->columns, plan->rows, &master, &slave);
    if (e != 0) {
        errno = e;
        return -1;
    }
    stdio->streams[PM_STDOUT] = master;
    stdio->terminal = own(stdio, slave);
    if (stdio->terminal < 0)
        return -1;
    stdio->streams[PM_STDIN] = pmi_sys_dup_above(master, 3);
    if (stdio->streams[PM_STDIN] < 0)
        return -1;
    stdio->master = pmi_sys_dup_above(master, 3);
    return stdio->master < 0 ? -1 : stdio->terminal;
}

static int prepare_slot(const struct pmi_plan *plan, size_t slot, struct pmi_stdio_plan *stdio,
                        struct pm_error *err)
{
    const struct pm_stdio *in = &plan->slots[slot];
    const char *part = "";
    int source = -1;
    switch (in->kind) {
    case PM_STDIO_INHERIT:
        source = pmi_is_inheritable((int)slot) ? (int)slot : source_null(stdio);
        break;
    case PM_STDIO_NULL:
        source = source_null(stdio);
        break;
    case PM_STDIO_PIPE:
        source = source_pipe(stdio, slot);
        break;
    case PM_STDIO_FILE_READ:
    case PM_STDIO_FILE_TRUNCATE:
    case PM_STDIO_FILE_APPEND:
        part = ".path";
        source = source_file(stdio, in);
        break;
    case PM_STDIO_NATIVE:
        part = ".native";
        source = own(stdio, pmi_sys_dup_above((int)in->native, stdio->floor));
        break;
    case PM_STDIO_STDOUT:
        source = stdio->fds[PM_STDOUT].source;
        break;
    case PM_STDIO_TERMINAL:
        source = source_terminal(plan, stdio);
        break;
    case PM_STDIO_DEFAULT:
        assert(false && "resolved by the core");
        errno = EINVAL;
        break;
    }
    if (source < 0) {
        int e = errno;
        fail_slot(err, slot, part, e);
        if (in->kind == PM_STDIO_PIPE)
            err->stage = PM_STAGE_PIPE;
        if (in->kind == PM_STDIO_TERMINAL) {
            err->stage = PM_STAGE_PTY;
            pmi_fail_field(err, "mode");
            if (e == ENOSPC || e == EAGAIN)
                pmi_fail_hint(err, "no terminal is free: kernel.pty.max, or the devpts mount");
        }
        if (e == EBADF)
            err->code = PM_ERR_INVALID;
        return err->code;
    }
    add(stdio, source, (int)slot);
    return PM_OK;
}

// The numbers that this system gives a meaning to: the core cannot know them.
static int check_extras(const struct pmi_plan *plan, struct pm_error *err)
{
    struct rlimit limit;
    rlim_t end = getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : RLIM_INFINITY;
    for (size_t i = 0; i < plan->extras_count; i++) {
        int target = plan->extras[i].target;
        const char *what = NULL;
        if (target < 3)
            what = "the target is below 3";
        else if (target == INT_MAX || (end != RLIM_INFINITY && (rlim_t)target + 1 >= end))
            what = "RLIMIT_NOFILE leaves no number above the target, as a start needs";
        else if (PMI_SYS(fcntl)((int)plan->extras[i].source, F_GETFD) < 0)
            what = "the source is not open";
        for (size_t k = 0; k < i && what == NULL; k++)
            if (plan->extras[k].target == target)
                what = "the target is taken twice";
        if (what != NULL) {
            (void)pmi_fail_code(err, PM_STAGE_CHECK, PM_ERR_INVALID);
            pmi_fail_field(err, "extras");
            pmi_fail_hint(err, "extras[%zu]: descriptor %d for target %d: %s", i,
                          (int)plan->extras[i].source, target, what);
            return err->code;
        }
    }
    return PM_OK;
}

static int prepare_extras(const struct pmi_plan *plan, struct pmi_stdio_plan *stdio,
                          struct pm_error *err)
{
    for (size_t i = 0; i < plan->extras_count; i++) {
        int source = own(stdio, pmi_sys_dup_above((int)plan->extras[i].source, stdio->floor));
        if (source < 0) {
            int e = errno;
            pmi_fail(err, PM_STAGE_STDIO, e);
            pmi_fail_field(err, "extras");
            if (e == EBADF)
                err->code = PM_ERR_INVALID;
            pmi_fail_hint(err, "extras[%zu]: descriptor %d for target %d", i,
                          (int)plan->extras[i].source, plan->extras[i].target);
            return err->code;
        }
        add(stdio, source, plan->extras[i].target);
    }
    return PM_OK;
}

void pmi_stdio_release(struct pmi_stdio_plan *stdio)
{
    for (size_t i = 0; i < stdio->owned_count; i++)
        (void)pmi_sys_close(stdio->owned[i]);
    for (size_t i = 0; i < 3; i++)
        stdio->streams[i] = pmi_sys_close(stdio->streams[i]);
    stdio->master = pmi_sys_close(stdio->master);
    free(stdio->fds);
    free(stdio->owned);
    stdio->fds = NULL;
    stdio->owned = NULL;
    stdio->fds_count = stdio->owned_count = 0;
}

int pmi_stdio_prepare(const struct pmi_plan *plan, struct pmi_stdio_plan *ret_stdio,
                      struct pm_error *err)
{
    struct pmi_stdio_plan stdio = {
        .streams = {-1, -1, -1}, .null = -1, .terminal = -1, .master = -1, .floor = 3};
    size_t most = 3 + plan->extras_count;
    int result = check_extras(plan, err);

    if (result != PM_OK)
        return result;
    for (size_t i = 0; i < plan->extras_count; i++)
        if (plan->extras[i].target >= stdio.floor)
            stdio.floor = plan->extras[i].target + 1;
    stdio.fds = calloc(most, sizeof(*stdio.fds));
    stdio.owned = calloc(most, sizeof(*stdio.owned));
    if (stdio.fds == NULL || stdio.owned == NULL) {
        pmi_fail(err, PM_STAGE_STDIO, ENOMEM);
        result = err->code;
    }
    for (size_t slot = 0; result == PM_OK && slot < 3; slot++)
        result = prepare_slot(plan, slot, &stdio, err);
    if (result == PM_OK)
        result = prepare_extras(plan, &stdio, err);
    if (result != PM_OK) {
        pmi_stdio_release(&stdio);
        return result;
    }
    *ret_stdio = stdio;
    return PM_OK;
}
