// The manager's side of the gated double fork: see src/launcher/launcher.h for the whole exchange.
#include "daemon.h"

#include "error.h"
#include "guards.h"
#include "identity.h"
#include "launcher/launch_plan.h"
#include "launcher/launcher.h"
#include "options.h"
#include "reactor.h"
#include "reap.h"
#include "start.h"
#include "sys.h"
#include "zombies.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#ifdef HAVE_MEMFD_CREATE
#include <sys/mman.h>
#endif

// Above every descriptor that a launcher or keeper is given by number.
#define EXE_FD_FLOOR 16
// How often a proof of exec is looked for where a stray fork of the host may hold the gate open.
#define PROOF_FIRST_MS 1
#define PROOF_MOST_MS 20
#define KILL_WAIT_MS 2000
// How long a status that somebody else is just taking is waited for.
#define STATUS_WAIT_MS 200
// How much later than at our deadline the stub ends itself: who decides is the manager, if it
// lives.
#define STUB_GRACE_MS 1000

// ------------------------------------------------------------------------------------------------
// Which launcher
// ------------------------------------------------------------------------------------------------

// Our own executable, whatever became of its name; -1 with errno.
static int open_self(struct pmi_os_manager *om)
{
#ifdef O_PATH
    struct stat file;
    int fd = pmi_sys_lift(pmi_sys_open("/proc/self/exe", O_PATH, 0), EXE_FD_FLOOR);
    if (fd >= 0 && PMI_SYS(fstat)(fd, &file) < 0) {
        int e = errno;
        (void)pmi_sys_close(fd);
        errno = e;
        return -1;
    }
    if (fd >= 0) { // The same each time.
        atomic_store(&om->exe_device, file.st_dev);
        atomic_store(&om->exe_inode, file.st_ino);
    }
    return fd;
#else
    (void)om;
    errno = ENOSYS;
    return -1;
#endif
}

// Whether the number still holds it. Where that cannot be told, it does. What it was is compared
// with, not what /proc/self/exe is now: under valgrind 3.19 stat() shows valgrind there, and open()
// does not.
static bool is_self(const struct pmi_os_manager *om, int fd)
{
    struct stat here;
    if (PMI_WITHOUT("slot check"))
        return true;
    if (PMI_SYS(fstat)(fd, &here) < 0)
        return errno != EBADF;
    return (unsigned long long)here.st_dev == atomic_load(&om->exe_device) && // Signed on macOS.
           here.st_ino == atomic_load(&om->exe_inode);
}

// Over a moment later.
static bool is_want(int e)
{
    return e == EMFILE || e == ENFILE || e == ENOMEM;
}

int pmi_posix_launcher_open(struct pmi_os_manager *om, const char *launcher_path)
{
    om->exe_fd = -1;
    om->launcher_path = NULL;
    const char *helper = launcher_path;
    if (helper == NULL && pmi_launcher_is_wired()) {
        om->exe_fd = open_self(om);
        if (om->exe_fd >= 0)
            return PM_OK;
        if (is_want(errno))
            return pmi_error_from_errno(errno);
    }
    if (helper == NULL && access(PMI_LAUNCHER_INSTALL_PATH, X_OK) == 0)
        helper = PMI_LAUNCHER_INSTALL_PATH;
    if (helper != NULL) {
        // Absolute: the host may go to another folder before the first start.
        uint32_t ignored;
        return pmi_os_absolute(helper, &om->launcher_path, &ignored);
    }
    return PM_OK; // None at all is an error of those who need one.
}

void pmi_posix_launcher_close(struct pmi_os_manager *om)
{
    int fd = atomic_exchange(&om->exe_fd, -1);
    if (fd >= 0 && is_self(om, fd))
        (void)pmi_sys_close(fd);
    free(om->launcher_path);
    om->launcher_path = NULL;
}

// Opens it where that could not be done with the manager, and where the host has closed it: a file
// of its own may have the number now.
static int renew_self(struct pmi_os_manager *om)
{
    int before = atomic_load(&om->exe_fd);
    if (before >= 0 && is_self(om, before))
        return PM_OK;
    int fd = open_self(om), e = errno;
    if (!atomic_compare_exchange_strong(&om->exe_fd, &before, fd))
        (void)pmi_sys_close(fd);
    return fd < 0 && is_want(e) ? pmi_error_from_errno(e) : PM_OK;
}

int pmi_posix_launcher_argv(struct pmi_os_manager *om, struct pmi_launcher_argv *command,
                            struct pm_error *err)
{
    int result = PM_OK;
    if (om->launcher_path == NULL && pmi_launcher_is_wired())
        result = renew_self(om);
    if (result != PM_OK)
        return pmi_fail_code(err, PM_STAGE_LAUNCHER, result);
    command->exe_fd = atomic_load(&om->exe_fd);
    if (command->exe_fd < 0 && om->launcher_path == NULL) {
        (void)pmi_fail_code(err, PM_STAGE_LAUNCHER, PM_ERR_NO_LAUNCHER);
        pmi_fail_hint(err, "call pm_launcher_main() first in main(), or install %s",
                      PMI_LAUNCHER_INSTALL_PATH);
        return err->code;
    }
    // The program that runs, not what has its name by now: an update on disk does not matter.
    (void)snprintf(command->path, sizeof(command->path), "/proc/self/fd/%d", command->exe_fd);
    command->program = command->exe_fd >= 0 ? command->path : om->launcher_path;
    command->argv[0] = command->exe_fd >= 0 ? "processmgr-launcher" : om->launcher_path;
    command->argv[1] = PMI_LAUNCHER_MARKER;
    command->argv[2] = NULL;
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// The plan as a descriptor
// ------------------------------------------------------------------------------------------------

// A file without a name. Descriptor, or -1 with errno.
static int open_nameless(void)
{
    int fd = -1;
#ifdef HAVE_MEMFD_CREATE
    fd = pmi_sys_lift(memfd_create("processmgr-plan", MFD_CLOEXEC | MFD_ALLOW_SEALING), 3);
#endif
    if (fd < 0) {
        char name[] = "/tmp/processmgr-plan-XXXXXX";
        fd = mkostemp(name, O_CLOEXEC);
        if (fd >= 0)
            (void)unlink(name);
        fd = pmi_sys_lift(fd, 3);
    }
    return fd;
}

// 0 or errno.
static int write_plan(int fd, const char *data, size_t size)
{
    size_t done = 0;
    while (done < size) {
        ssize_t n = pmi_sys_write(fd, data + done, size - done);
        if (n < 0)
            return errno;
        done += (size_t)n;
    }
#ifdef F_ADD_SEALS
    (void)fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE);
#endif
    return 0;
}

static int make_plan_fd(struct pmi_launch_plan *plan, struct pm_error *err, int *ret_fd)
{
    struct pmi_stat stat;
    char *data = NULL;
    size_t size = 0;
    plan->parent_pid = (uint64_t)getpid();
    plan->parent_start = pmi_stat_read(getpid(), &stat) == PM_OK ? stat.starttime : 0;
    int result = pmi_launch_plan_encode(plan, &data, &size);
    if (result != PM_OK)
        return pmi_fail_code(err, PM_STAGE_LAUNCHER, result);
    int fd = open_nameless();
    int e = fd < 0 ? errno : write_plan(fd, data, size);
    free(data);
    if (e != 0) {
        (void)pmi_sys_close(fd);
        pmi_fail(err, PM_STAGE_LAUNCHER, e);
        return err->code;
    }
    *ret_fd = fd;
    return PM_OK;
}

int pmi_posix_keeper_plan(struct pmi_os_manager *om, int *ret_fd)
{
    struct pmi_launch_plan plan = {.role = PMI_LAUNCH_KEEPER};
    struct pm_error err = PM_ERROR_INIT;
    (void)om;
    if (make_plan_fd(&plan, &err, ret_fd) == PM_OK)
        return 0;
    return err.os_code != 0 ? (int)err.os_code : ENOMEM;
}

// ------------------------------------------------------------------------------------------------
// One start
// ------------------------------------------------------------------------------------------------

struct daemon_start {
    struct pmi_os_manager *om;
    const struct pmi_plan *plan;
    struct pm_error *err;
    struct pmi_stdio_plan stdio;
    struct pmi_resolved_options options;
    int *lifted; // The daemon's descriptors above everything; fds_count of them.
    size_t lifted_count;
    int floor;                                   // First number above all targets in the launcher.
    int report, gate;                            // Our ends.
    int their_report, their_gate, plan_fd, null; // The launcher's.
    struct pmi_os_process launcher, stub;
    pid_t session;       // The launcher's own, and the stub's until it has passed the gate.
    pid_t stub_pid;      // As reported; 0 = not yet.
    int stub_pidfd;      // Pins stub_pid until `stub` takes it over; -1 = none.
    uint64_t stub_start; // Start time of stub_pid where there is no pidfd.
    uint64_t nonce[2];   // What the stub has to echo.
    bool challenged;     // It was sent.
    bool stub_known;     // `stub` is valid, and proven.
    struct pmi_started started;
};

static int fail_errno(struct daemon_start *d, enum pm_stage stage)
{
    pmi_fail(d->err, stage, errno);
    return d->err->code;
}

// The daemon's descriptors travel through the launcher on numbers above their targets, so that the
// stub can put them in place in any order.
static int number_fds(struct daemon_start *d, struct pmi_launch_fd *fds)
{
    const struct pmi_stdio_plan *stdio = &d->stdio;
    int first = stdio->floor > PMI_LAUNCHER_FDS ? stdio->floor : PMI_LAUNCHER_FDS;
    d->floor = first + (int)stdio->fds_count;
    for (size_t i = 0; i < stdio->fds_count; i++) {
        int fd = pmi_sys_dup_above(stdio->fds[i].source, d->floor);
        if (fd < 0)
            return fail_errno(d, PM_STAGE_STDIO);
        d->lifted[d->lifted_count++] = fd;
        fds[i] = (struct pmi_launch_fd){.source = first + (int)i, .target = stdio->fds[i].target};
    }
    return PM_OK;
}

static int open_channels(struct daemon_start *d)
{
    int pipe_fds[2], pair[2];
    if (pmi_sys_pipe(pipe_fds) < 0)
        return fail_errno(d, PM_STAGE_PIPE);
    d->report = pipe_fds[0];
    d->their_report = pmi_sys_lift(pipe_fds[1], d->floor);
    if (d->their_report < 0)
        return fail_errno(d, PM_STAGE_PIPE);
    if (pmi_sys_socketpair(SOCK_STREAM, pair) < 0)
        return fail_errno(d, PM_STAGE_GATE);
    d->gate = pair[0];
    d->their_gate = pmi_sys_lift(pair[1], d->floor);
    d->null = pmi_sys_lift(pmi_sys_open("/dev/null", O_RDWR, 0), d->floor);
    if (d->their_gate < 0 || d->null < 0)
        return fail_errno(d, PM_STAGE_GATE);
    return PM_OK;
}

static int make_daemon_plan(struct daemon_start *d, const struct pmi_launch_fd *fds)
{
    int64_t wait = d->plan->launcher_deadline - pmi_now_ms();
    struct pmi_launch_plan plan = {
        .role = PMI_LAUNCH_DAEMON,
        .gate_timeout_ms = wait <= 0           ? 1
                           : wait > UINT32_MAX ? UINT32_MAX
                                               : (uint32_t)wait,
        .program = d->plan->program,
        .cwd = d->plan->cwd,
        .argv = d->plan->argv,
        .env = d->plan->env,
        .fds = fds,
        .fds_count = (uint32_t)d->stdio.fds_count,
        .options = d->options.child,
    };
    int result = make_plan_fd(&plan, d->err, &d->plan_fd);
    if (result == PM_OK) {
        d->plan_fd = pmi_sys_lift(d->plan_fd, d->floor);
        if (d->plan_fd < 0)
            return fail_errno(d, PM_STAGE_LAUNCHER);
    }
    return result;
}

static int launch_launcher(struct daemon_start *d, struct pmi_child_fd *fds)
{
    struct pmi_launcher_argv command;
    const char *const *env;
    int result = pmi_posix_launcher_argv(d->om, &command, d->err);
    if (result != PM_OK)
        return result;
    size_t count = 0;
    for (int i = 0; i < 3; i++)
        fds[count++] = (struct pmi_child_fd){d->null, i};
    fds[count++] = (struct pmi_child_fd){d->their_report, PMI_LAUNCHER_REPORT_FD};
    fds[count++] = (struct pmi_child_fd){d->plan_fd, PMI_LAUNCHER_PLAN_FD};
    fds[count++] = (struct pmi_child_fd){d->their_gate, PMI_LAUNCHER_GATE_FD};
    for (size_t i = 0; i < d->lifted_count; i++) {
        int target = d->floor - (int)d->lifted_count + (int)i;
        fds[count++] = (struct pmi_child_fd){d->lifted[i], target};
    }
    // The number in the launcher's path must not be one that a target replaces before exec.
    int exe = -1;
    if (command.exe_fd >= 0 && command.exe_fd < d->floor) {
        exe = pmi_sys_dup_above(command.exe_fd, d->floor);
        if (exe < 0)
            return fail_errno(d, PM_STAGE_LAUNCHER);
        (void)snprintf(command.path, sizeof(command.path), "/proc/self/fd/%d", exe);
    }
    (void)pmi_os_environ(&env); // Never fails here.
    struct pmi_child_plan child = {
        .program = command.program,
        .argv = (char *const *)command.argv,
        .env = (char *const *)env,
        .new_session = true, // Out of reach of the terminal from the first moment on.
        .fds = fds,
        .fds_count = count,
        .report_fd = -1,
        .keeper_fd = -1,
        .low_fds = &d->om->low_fds,
        .program_fd = exe >= 0 ? exe : command.exe_fd,
        .cgroup_fd = -1,
    };
    result =
        pmi_launch(NULL, &child, d->plan->launcher_deadline, &d->launcher, &d->started, d->err);
    pmi_os_environ_free(env);
    (void)pmi_sys_close(exe);
    if (result != PM_OK) {
        if (d->err->stage == PM_STAGE_EXEC && d->om->launcher_path != NULL)
            pmi_fail_field(d->err, "launcher_path");
        if (d->err->hint[0] == '\0')
            pmi_fail_hint(d->err, "the launcher %s could not be started (at %s)", command.program,
                          pm_stage_name(d->err->stage));
        d->err->stage = PM_STAGE_LAUNCHER;
    } else {
        d->session = d->launcher.pid;
    }
    return result;
}

static int prepare(struct daemon_start *d)
{
    int result = pmi_options_resolve(d->plan, &d->options, d->err);
    if (result == PM_OK)
        result = pmi_stdio_prepare(d->plan, &d->stdio, d->err);
    if (result != PM_OK)
        return result;
    size_t count = d->stdio.fds_count;
    struct pmi_launch_fd *numbers = calloc(count + 1, sizeof(*numbers));
    struct pmi_child_fd *fds = calloc(count + 6, sizeof(*fds));
    d->lifted = calloc(count + 1, sizeof(*d->lifted));
    if (numbers == NULL || fds == NULL || d->lifted == NULL)
        result = pmi_fail_code(d->err, PM_STAGE_STDIO, PM_ERR_NO_MEMORY);
    if (result == PM_OK)
        result = number_fds(d, numbers);
    if (result == PM_OK)
        result = open_channels(d);
    if (result == PM_OK)
        result = make_daemon_plan(d, numbers);
    if (result == PM_OK)
        result = launch_launcher(d, fds);
    free(numbers);
    free(fds);
    // The launcher has its copies, or there is no launcher.
    d->their_report = pmi_sys_close(d->their_report);
    d->their_gate = pmi_sys_close(d->their_gate);
    d->plan_fd = pmi_sys_close(d->plan_fd);
    d->null = pmi_sys_close(d->null);
    return result;
}

// ------------------------------------------------------------------------------------------------
// The launcher's report
// ------------------------------------------------------------------------------------------------

static int fail_launcher(struct daemon_start *d, const char *what)
{
    (void)pmi_fail_code(d->err, PM_STAGE_LAUNCHER, PM_ERR_LAUNCHER);
    pmi_fail_hint(d->err, "%s", what);
    return d->err->code;
}

// Exactly "<digits>\n", a process id, or "E<digits>\n", an errno that becomes negative; else 0.
static long parse_report(const char *line, size_t size)
{
    long number = 0;
    size_t letter = size > 0 && line[0] == 'E' ? 1 : 0;
    if (size < letter + 2 || line[size - 1] != '\n' || line[letter] == '0')
        return 0;
    for (size_t i = letter; i + 1 < size; i++) {
        if (line[i] < '0' || line[i] > '9' || number > 100000000)
            return 0;
        number = number * 10 + (line[i] - '0');
    }
    if (letter == 1)
        return -number;
    return number > 1 ? number : 0;
}

// Waits for bytes or an end of file on the pipe, or for the launcher's own end: a stray fork of the
// host may hold the pipe open.
static bool report_ready(struct daemon_start *d, bool *ret_launcher_ended)
{
    struct pollfd fds[2] = {{.fd = d->report, .events = POLLIN},
                            {.fd = d->launcher.exit_fd, .events = POLLIN}};
    int n = pmi_sys_poll(fds, 2, pmi_poll_timeout(d->plan->launcher_deadline));
    *ret_launcher_ended = n > 0 && fds[1].revents != 0;
    // poll() looks at one after the other: a launcher that wrote and ended between the two looks
    // has still reported.
    if (*ret_launcher_ended && fds[0].revents == 0)
        n = pmi_sys_poll(fds, 1, 0);
    return n > 0 && fds[0].revents != 0;
}

static int read_report(struct daemon_start *d)
{
    char line[32];
    size_t size = 0;
    while (size < sizeof(line) && memchr(line, '\n', size) == NULL) {
        bool ended;
        if (report_ready(d, &ended)) {
            ssize_t n = pmi_sys_read(d->report, line + size, sizeof(line) - size);
            if (n <= 0)
                return fail_launcher(d, "the launcher ended without telling a process id");
            size += (size_t)n;
        } else if (ended) {
            return fail_launcher(d, "the launcher ended without telling a process id");
        } else if (pmi_now_ms() >= d->plan->launcher_deadline) {
            return fail_launcher(d, "the launcher told no process id in time");
        }
    }
    long number = parse_report(line, size);
    if (number == 0)
        return fail_launcher(d, "the launcher's report is not a process id");
    if (number < 0) {
        pmi_fail(d->err, PM_STAGE_LAUNCHER, (int)-number);
        pmi_fail_hint(d->err, "the launcher could not fork");
        return d->err->code;
    }
    d->stub_pid = (pid_t)number;
    return PM_OK;
}

static int collect_launcher(struct daemon_start *d)
{
    struct pm_exit record = PM_EXIT_INIT;
    if (pmi_os_process_wait(&d->launcher, d->plan->launcher_deadline) != PM_OK)
        return fail_launcher(d, "the launcher did not end in time");
    int64_t last = pmi_now_ms() + STATUS_WAIT_MS;
    int result;
    while ((result = pmi_os_process_reap(&d->launcher, &record)) == PM_ERR_STATUS_PENDING &&
           pmi_now_ms() < last)
        pmi_sleep_ms(1);
    pmi_os_process_close(&d->launcher);
    // LOST, or pending for good: the host ignores SIGCHLD on an old kernel, or a tracer has the
    // launcher; the gate will tell.
    if (result == PM_ERR_STATUS_PENDING)
        return PM_OK;
    if (result != PM_OK || (record.kind == PM_EXIT_EXITED && record.code != 0) ||
        record.kind == PM_EXIT_SIGNALED) {
        (void)fail_launcher(d, "");
        if (record.kind == PM_EXIT_SIGNALED)
            pmi_fail_hint(d->err, "the launcher was killed by signal %d", record.signal);
        else
            pmi_fail_hint(d->err, "the launcher ended with code %u", (unsigned)record.code);
        return d->err->code;
    }
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// The gate
// ------------------------------------------------------------------------------------------------

static int fail_gate(struct daemon_start *d, int code, const char *what)
{
    (void)pmi_fail_code(d->err, PM_STAGE_GATE, code);
    pmi_fail_hint(d->err, "%s", what);
    return d->err->code;
}

// 1 = a whole message, 0 = end of file, -1 = not yet at the deadline.
static int receive(int gate, struct pmi_gate_message *message, size_t *done, int64_t deadline)
{
    while (*done < sizeof(*message)) {
        struct pollfd in = {.fd = gate, .events = POLLIN};
        if (pmi_sys_poll(&in, 1, pmi_poll_timeout(deadline)) <= 0) {
            if (pmi_now_ms() >= deadline)
                return -1;
            continue;
        }
        ssize_t n = pmi_sys_read(gate, (char *)message + *done, sizeof(*message) - *done);
        if (n <= 0)
            return 0;
        *done += (size_t)n;
    }
    *done = 0;
    return 1;
}

static bool send_message(int gate, const struct pmi_gate_message *message)
{
    // The socket's buffer is empty: it never blocks. And it raises no SIGPIPE.
    struct iovec data = {.iov_base = (void *)message, .iov_len = sizeof(*message)};
    struct msghdr header = {.msg_iov = &data, .msg_iovlen = 1};
#ifdef MSG_NOSIGNAL
    const int flags = MSG_NOSIGNAL;
#else
    const int flags = 0;
    const int on = 1;
    (void)setsockopt(gate, SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on));
#endif
    return pmi_sys_sendmsg(gate, &header, flags) == (ssize_t)sizeof(*message);
}

// Before the launcher is waited for, so that a failure from here on knows whom to end.
static int pin_stub(struct daemon_start *d)
{
#ifdef HAVE_PIDFD
    d->stub_pidfd = pmi_sys_pidfd_open(d->stub_pid);
    if (d->stub_pidfd < 0 && errno != ENOSYS && errno != EPERM)
        return errno == ESRCH ? fail_gate(d, PM_ERR_DIED_BEFORE_EXEC, "the stub has ended")
                              : fail_errno(d, PM_STAGE_GATE);
#endif
    struct pmi_stat stat;
    if (d->stub_pidfd < 0 && pmi_stat_read(d->stub_pid, &stat) == PM_OK)
        d->stub_start = stat.starttime;
    return PM_OK;
}

// The process that the launcher reported: PM_OK and *ret_stat while it lives, PM_ERR_GONE, or
// another error.
static int look_at_reported(const struct daemon_start *d, struct pmi_stat *ret_stat)
{
    struct pollfd in = {.fd = d->stub_pidfd, .events = POLLIN};
    // The look at /proc first: as long as the pidfd has not fired it was a look at the right one.
    int result = pmi_stat_read(d->stub_pid, ret_stat);
    if (d->stub_pidfd >= 0 && pmi_sys_poll(&in, 1, 0) > 0)
        return PM_ERR_GONE;
    if (d->stub_pidfd < 0 && result == PM_OK &&
        (ret_stat->starttime != d->stub_start || ret_stat->state == 'Z'))
        return PM_ERR_GONE;
    return result;
}

// Once the kernel's object is open: who answers lived after that.
static int challenge_stub(struct daemon_start *d)
{
    struct pmi_gate_message message;
    memset(&message, 0, sizeof(message));
    message.kind = PMI_GATE_NONCE;
    int result = pmi_os_random(d->nonce, sizeof(d->nonce));
    if (result != PM_OK)
        return fail_gate(d, result, "no random number");
    memcpy(message.nonce, d->nonce, sizeof(message.nonce));
    // A stub that has left the gate is told by what the launcher's end or the answer says.
    d->challenged = send_message(d->gate, &message);
    return PM_OK;
}

static int await_echo(struct daemon_start *d, struct pmi_gate_message *ret_echo)
{
    size_t done = 0;
    if (!d->challenged)
        return fail_gate(d, PM_ERR_DIED_BEFORE_EXEC, "the stub has left the gate");
    int got = receive(d->gate, ret_echo, &done, d->plan->launcher_deadline);
    if (got != 1)
        return fail_gate(d, got == 0 ? PM_ERR_DIED_BEFORE_EXEC : PM_ERR_LAUNCHER,
                         got == 0 ? "the stub has left the gate" : "the stub is silent");
    if (ret_echo->kind != PMI_GATE_ECHO ||
        memcmp(ret_echo->nonce, d->nonce, sizeof(d->nonce)) != 0 ||
        ret_echo->pid != (uint64_t)d->stub_pid)
        return fail_gate(d, PM_ERR_LAUNCHER, "the stub's answer is not right");
    return PM_OK;
}

// The kernel's object is open already; this proves that it is the stub that answers.
static int prove_stub(struct daemon_start *d, struct pmi_identity *ret_id)
{
    struct pmi_gate_message echo;
    struct pmi_stat stat;
    int result = await_echo(d, &echo);
    if (result != PM_OK)
        return result;
    result = pmi_identity_of(d->stub_pid, d->stub_pidfd, ret_id);
    if (result == PM_OK)
        result = pmi_stat_read(d->stub_pid, &stat);
    if (result == PM_ERR_NO_DESCRIPTORS || result == PM_ERR_NO_MEMORY)
        return fail_gate(d, result, "looking at the stub");
    if (result != PM_OK || (echo.start != 0 && ret_id->start != echo.start))
        return look_at_reported(d, &stat) == PM_ERR_GONE
                   ? fail_gate(d, PM_ERR_DIED_BEFORE_EXEC, "the stub has ended")
                   : fail_gate(d, PM_ERR_IDENTITY, "the stub cannot be told from a stranger");
    d->stub.start = ret_id->start;
    d->stub.pidns = ret_id->pidns;
    d->stub.pidfs = ret_id->pidfs;
    d->started.adopted = stat.ppid == getpid(); // We are PID 1 or a subreaper.
    result = pmi_process_attach(&d->stub, d->stub_pid, d->stub_pidfd, d->started.adopted);
    if (result != PM_OK)
        return pmi_fail_code(d->err, PM_STAGE_WATCH, result);
    d->started.best_effort = d->stub_pidfd < 0;
    d->started.fallbacks |= pmi_process_fallback(d->stub_pidfd);
    d->stub_pidfd = -1;
    d->stub_known = true;
    return PM_OK;
}

static int fail_in_stub(struct daemon_start *d, const struct pmi_gate_message *message)
{
    struct pmi_child_plan child = {
        .program = d->plan->program,
        .cwd = d->plan->cwd,
        .stage = (int)message->stage,
        .error = (int)message->error,
        .field = (int)message->field,
    };
    pmi_fail_in_child(&child, d->err);
    return d->err->code;
}

// Whether the stub has become the program, once nothing was left to be read in the gate. `ended`:
// it had before that, so there never will be. PM_ERR_TIMEOUT = not yet.
static int look_for_exec(struct daemon_start *d, bool ended, bool gate_closed)
{
    int reached = -1;
    struct pmi_stat stat;
    // Collected by its parent already, the number may be a stranger's.
    if (pmi_stat_read(d->stub_pid, &stat) == PM_OK && stat.starttime == d->stub.start)
        reached = pmi_stat_exec_reached(&stat);
    if (reached == 1)
        return PM_OK;
    if (ended && reached == 0)
        return fail_gate(d, PM_ERR_DIED_BEFORE_EXEC, "the stub was killed");
    // Collected by its parent already, or a system that does not tell: no failure came through the
    // gate, and none can come any more. Unless the stub's own timer may have ended it.
    bool in_time = pmi_now_ms() < d->plan->deadline + STUB_GRACE_MS;
    return in_time && (ended || (gate_closed && reached < 0)) ? PM_OK : PM_ERR_TIMEOUT;
}

// After GO: ARMED, then an end of file (exec) or FAILED.
static int await_exec(struct daemon_start *d)
{
    struct pmi_gate_message message;
    size_t done = 0;
    bool armed = false, closed = false;
    int64_t slice = PROOF_FIRST_MS;
    for (;;) {
        // First the time, then its end, then what it has said: so the last word counts. The other
        // way round a short program that ends in between were never reached.
        int64_t now = pmi_now_ms();
        bool late = now >= d->plan->deadline;
        bool ended = pmi_os_process_wait(&d->stub, 0) == PM_OK;
        int64_t until = now + slice < d->plan->deadline ? now + slice : d->plan->deadline;
        int got = closed ? -1 : receive(d->gate, &message, &done, ended ? now : until);
        if (got == 1 && message.kind == PMI_GATE_FAILED) {
            d->started.exec_retries += message.retries;
            return fail_in_stub(d, &message);
        }
        if (got == 1) {
            if (message.kind != PMI_GATE_ARMED || armed)
                return fail_gate(d, PM_ERR_LAUNCHER, "the stub's message is not right");
            armed = true;
            continue;
        }
        if (got == 0 && !armed)
            return fail_gate(d, PM_ERR_DIED_BEFORE_EXEC, "the stub has left the gate");
        if (ended && !armed)
            return fail_gate(d, PM_ERR_DIED_BEFORE_EXEC, "the stub was killed");
        closed |= got == 0;
        int result = armed ? look_for_exec(d, ended, closed) : PM_ERR_TIMEOUT;
        if (result != PM_ERR_TIMEOUT)
            return result;
        if (late)
            return fail_gate(d, PM_ERR_TIMEOUT, "the program was not reached in time");
        if (closed)
            pmi_sleep_ms((uint32_t)slice);
        slice = slice * 2 > PROOF_MOST_MS ? PROOF_MOST_MS : slice * 2;
    }
}

static int pass_gate(struct daemon_start *d)
{
    struct pmi_identity id;
    struct pmi_gate_message go;
    int result = prove_stub(d, &id);
    if (result == PM_OK)
        result = d->plan->gate(d->plan->gate_context, &id, d->err);
    if (result != PM_OK)
        return result;
    int64_t rest = d->plan->deadline + STUB_GRACE_MS - pmi_now_ms();
    memset(&go, 0, sizeof(go));
    go.kind = PMI_GATE_GO;
    go.time_ms = rest > 0 ? (uint64_t)rest : 1;
    if (!send_message(d->gate, &go))
        return fail_gate(d, PM_ERR_DIED_BEFORE_EXEC, "the stub has left the gate");
    return await_exec(d);
}

// ------------------------------------------------------------------------------------------------
// Together
// ------------------------------------------------------------------------------------------------

// Whether a process is of the launcher's session, so the launcher's making and nobody else's: a
// number is not given out again while it names a session that has members.
static bool is_of_launcher(const struct daemon_start *d, const struct pmi_stat *stat)
{
    return d->session != 0 && stat->session == d->session;
}

static void kill_reported(const struct daemon_start *d)
{
#ifdef HAVE_PIDFD
    if (d->stub_pidfd >= 0 &&
        (pmi_sys_pidfd_send_signal(d->stub_pidfd, SIGKILL, 0) == 0 || !pmi_sys_is_refused(errno)))
        return;
#endif
    (void)pmi_sys_kill(d->stub_pid, SIGKILL); // No pidfd, or a seccomp filter on its signals.
}

// The stub never proved itself at the gate. It may be stopped, or no stub of this library at all,
// and would then outlive the closed gate. A stranger that the launcher named is left alone.
static void end_unproven_stub(struct daemon_start *d)
{
    int64_t deadline = pmi_now_ms() + KILL_WAIT_MS;
    struct pmi_stat stat;
    int result;
    while (d->stub_pid != 0 && pmi_now_ms() < deadline &&
           (result = look_at_reported(d, &stat)) != PM_ERR_GONE) {
        if (result == PM_OK && !is_of_launcher(d, &stat))
            return;
        if (result == PM_OK)
            kill_reported(d);
        pmi_sleep_ms(1); // Also for the want of a descriptor to be over.
    }
}

struct orphan_visit {
    const struct daemon_start *d;
    size_t left;
};

static void end_orphan(void *context, pid_t pid)
{
    struct orphan_visit *orphans = context;
    struct pmi_stat stat;
    siginfo_t info;
    if (pid == orphans->d->launcher.pid || pmi_stat_read(pid, &stat) != PM_OK ||
        !is_of_launcher(orphans->d, &stat))
        return;
    // Our child and not waited for: the number is still its own.
    (void)pmi_sys_kill(pid, SIGKILL);
    if (pmi_child_take(pid, -1, &info, NULL) == 0 && info.si_pid == 0)
        orphans->left++;
}

// PID 1 or a subreaper inherits what a dead launcher leaves, reported or not, and nobody else would
// ever wait for it.
static void end_orphans(struct daemon_start *d)
{
    int64_t deadline = pmi_now_ms() + KILL_WAIT_MS;
    struct orphan_visit orphans = {.d = d};
    if (d->session == 0 || !pmi_orphans_come_to_us())
        return;
    for (;;) {
        orphans.left = 0;
        if (pmi_children_visit(0, end_orphan, &orphans) != PM_OK || orphans.left == 0 ||
            pmi_now_ms() >= deadline)
            return;
        pmi_sleep_ms(1);
    }
}

static void lead_session(struct daemon_start *d)
{
    d->stub.group = true; // A session leader leads its group too.
    d->stub.session = d->stub_pid;
}

// Nothing is left of a failed start: the launcher is killed, the stub hears the gate close and is
// killed where it is known, and both are waited for where they are ours.
static void undo(struct daemon_start *d)
{
    // Dead, but waited for last: its number holds the name of its session until then.
    if (d->launcher.exit_fd >= 0) {
        (void)pmi_os_process_act(&d->launcher, PM_STOP_KILL, PM_SCOPE_TREE, NULL);
        (void)pmi_os_process_wait(&d->launcher, pmi_now_ms() + KILL_WAIT_MS);
    }
    d->gate = pmi_sys_close(d->gate);
    if (d->stub_known) {
        struct pmi_stat stat;
        // It may have got to its program at the last moment, and that have begun to start others.
        if (pmi_stat_read(d->stub_pid, &stat) == PM_OK && stat.starttime == d->stub.start &&
            stat.session == d->stub_pid)
            lead_session(d);
        pmi_os_process_abandon(&d->stub);
    } else {
        end_unproven_stub(d);
        end_orphans(d);
    }
    pmi_os_process_abandon(&d->launcher);
}

static void release(struct daemon_start *d)
{
    for (size_t i = 0; i < d->lifted_count; i++)
        (void)pmi_sys_close(d->lifted[i]);
    free(d->lifted);
    pmi_stdio_release(&d->stdio);
    pmi_options_release(&d->options);
    (void)pmi_sys_close(d->report);
    (void)pmi_sys_close(d->gate);
    (void)pmi_sys_close(d->stub_pidfd);
}

int pmi_posix_start_daemon(struct pmi_os_manager *om, const struct pmi_plan *plan,
                           struct pmi_os_process *op, struct pmi_os_stream streams[3],
                           struct pmi_started *ret_started, struct pm_error *err)
{
    struct daemon_start d = {
        .om = om,
        .plan = plan,
        .err = err,
        .stdio = {.streams = {-1, -1, -1}, .null = -1, .terminal = -1, .master = -1},
        .report = -1,
        .gate = -1,
        .their_report = -1,
        .their_gate = -1,
        .plan_fd = -1,
        .null = -1,
        .stub_pidfd = -1,
        .launcher = PMI_OS_PROCESS_INIT,
        .stub = PMI_OS_PROCESS_INIT,
    };
    (void)streams; // A daemon has no pipes to us.
    int result = prepare(&d);
    if (result == PM_OK)
        result = read_report(&d);
    if (result == PM_OK)
        result = pin_stub(&d);
    if (result == PM_OK)
        result = challenge_stub(&d); // It answers while the launcher leaves.
    if (result == PM_OK)
        result = collect_launcher(&d);
    if (result == PM_OK)
        result = pass_gate(&d);
    if (result == PM_OK) {
        lead_session(&d);
        d.started.containment = PM_CONTAIN_GROUP;
        d.started.detachment = PM_DETACH_LAUNCHER;
        d.started.started_wall_ms = pmi_wall_ms();
        d.started.started_ms = pmi_now_ms();
        *op = d.stub;
        *ret_started = d.started;
    } else {
        undo(&d);
    }
    release(&d);
    return result;
}
