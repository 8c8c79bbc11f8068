// The stub: what becomes the daemon. It lives between the launcher's fork and exec, alone, with one
// thread, and does nothing that the manager has not said.
#include "launcher/launcher.h"

#include "backend.h"
#include "child.h"
#include "guards.h"
#include "identity.h"
#include "launcher/launch_plan.h"
#include "reactor.h"
#include "sys.h"

#include <stdlib.h>
#include <string.h>

#define EXIT_NOT_ASKED 120 // Seen by nobody: the stub is init's child.

// One whole message, or nothing at all before the deadline.
static bool receive(int gate, struct pmi_gate_message *message, int64_t deadline)
{
    size_t done = 0;
    while (done < sizeof(*message)) {
        struct pollfd in = {.fd = gate, .events = POLLIN};
        int n = pmi_sys_poll(&in, 1, pmi_poll_timeout(deadline));
        if (n <= 0 && pmi_now_ms() >= deadline)
            return false;
        if (n <= 0)
            continue;
        ssize_t got = pmi_sys_read(gate, (char *)message + done, sizeof(*message) - done);
        if (got <= 0)
            return false; // The manager is gone, or has changed its mind.
        done += (size_t)got;
    }
    return true;
}

static bool send_message(int gate, const struct pmi_gate_message *message)
{
    // SIGPIPE is blocked, as all signals are.
    return pmi_sys_write(gate, message, sizeof(*message)) == (ssize_t)sizeof(*message);
}

static bool pass_gate(int gate, int64_t deadline, struct pmi_gate_message *ret_go)
{
    struct pmi_gate_message message;
    struct pmi_stat stat;
    if (!receive(gate, &message, deadline) || message.kind != PMI_GATE_NONCE)
        return false;
    message.kind = PMI_GATE_ECHO;
    message.pid = (uint64_t)getpid();
    message.start = pmi_stat_read(getpid(), &stat) == PM_OK ? (uint64_t)stat.starttime : 0;
    if (!send_message(gate, &message))
        return false;
    if (PMI_WITHOUT("gate")) {
        *ret_go = message;
        ret_go->time_ms = UINT32_MAX;
        return true;
    }
    return receive(gate, ret_go, deadline) && ret_go->kind == PMI_GATE_GO;
}

void pmi_stub_run(const struct pmi_launch_plan *plan)
{
    struct pmi_gate_message message;
    int highest = PMI_LAUNCHER_FDS;
    for (uint32_t i = 0; i < plan->fds_count; i++)
        if (plan->fds[i].target >= highest)
            highest = plan->fds[i].target + 1;

    // Out of the way of the daemon's descriptors.
    int gate = fcntl(PMI_LAUNCHER_GATE_FD, F_DUPFD_CLOEXEC, highest);
    // Before the gate: once GO has come there is no want of memory any more.
    struct pmi_child_fd *fds = calloc(plan->fds_count + 1, sizeof(*fds));
    if (gate < 0 || fds == NULL)
        _exit(EXIT_NOT_ASKED);
    (void)close(PMI_LAUNCHER_REPORT_FD);
    (void)close(PMI_LAUNCHER_PLAN_FD);
    (void)close(PMI_LAUNCHER_GATE_FD);

    if (!pass_gate(gate, pmi_now_ms() + plan->gate_timeout_ms, &message))
        _exit(EXIT_NOT_ASKED);

    for (uint32_t i = 0; i < plan->fds_count; i++)
        fds[i] = (struct pmi_child_fd){plan->fds[i].source, plan->fds[i].target};
    struct pmi_child_plan child = {
        .program = plan->program,
        .argv = (char *const *)plan->argv,
        .env = (char *const *)plan->env,
        .cwd = plan->cwd,
        .new_session = true,
        .fds = fds,
        .fds_count = plan->fds_count,
        .options = &plan->options,
        .report_fd = gate,
        .keeper_fd = -1,
        .program_fd = -1,
        .cgroup_fd = -1,
    };
    // One that hangs on its way to exec is killed by the manager; one whose manager is gone by then
    // has this.
    pmi_child_arm_deadline((int64_t)message.time_ms);
    memset(&message, 0, sizeof(message));
    message.kind = PMI_GATE_ARMED;
    if (!send_message(gate, &message))
        _exit(EXIT_NOT_ASKED);
    pmi_child_run(&child);
    message.kind = PMI_GATE_FAILED;
    message.stage = (uint32_t)child.stage;
    message.error = (uint32_t)child.error;
    message.field = (uint32_t)child.field;
    message.retries = child.exec_retries;
    // The mask is empty by now: a manager that is gone must not end us by SIGPIPE, but nothing is
    // lost if it does.
    (void)send_message(gate, &message);
    _exit(EXIT_NOT_ASKED);
}
