// Signals of the daemon, and its crash trace.
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>

#include "pmi_config.h"
#include "poddaemon/os.h"
#include "posix/identity.h"

void pod_process_settle(int *argc, char ***argv)
{
    struct sigaction action;
    (void)argc;
    (void)argv;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_IGN; // A reader that is gone is an error of the write.
    (void)sigaction(SIGPIPE, &action, NULL);
    (void)sigaction(SIGHUP, &action, NULL);  // There is no terminal of ours to hang up.
    (void)sigaction(SIGXFSZ, &action, NULL); // A file size limit is an error of the write, too.
    (void)umask(077);
    if (chdir("/") != 0) {
        return; // It then keeps a folder busy, no more.
    }
}

// ------------------------------------------------------------------------------------------------
// Signals
// ------------------------------------------------------------------------------------------------

static const int signal_numbers[POD_SIGNALS] = {SIGTERM, SIGINT, SIGUSR1};

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct pod_process *process = handle->data;
    process->told(process->user, number == SIGUSR1 ? POD_PROCESS_RELISTEN : POD_PROCESS_STOP);
}

int pod_process_listen(uv_loop_t *loop, struct pod_process *process, pod_process_told *told,
                       void *user)
{
    *process = (struct pod_process){.told = told, .user = user};
    for (size_t i = 0; i < POD_SIGNALS; i++) {
        uv_signal_t *handle = malloc(sizeof *handle);
        if (handle == NULL || uv_signal_init(loop, handle) != 0) {
            free(handle);
            pod_process_close(process);
            return PM_ERR_NO_MEMORY;
        }
        handle->data = process;
        process->signals[i] = handle;
        if (uv_signal_start(handle, on_signal, signal_numbers[i]) != 0) {
            pod_process_close(process);
            return PM_ERR_SYSTEM;
        }
    }
    return PM_OK;
}

void pod_process_close(struct pod_process *process)
{
    for (size_t i = 0; i < POD_SIGNALS; i++) {
        if (process->signals[i] != NULL) {
            uv_close((uv_handle_t *)process->signals[i], free_handle);
            process->signals[i] = NULL;
        }
    }
}

bool pod_process_ignores_stop(uint64_t pid)
{
#ifdef __linux__
    static const char head[] = "\nSigIgn:";
    char path[48], text[4096];
    (void)snprintf(path, sizeof path, "/proc/%llu/status", (unsigned long long)pid);
    int fd = pmi_proc_is_foreign() ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return false;
    }
    ssize_t size = read(fd, text, sizeof text - 1);
    (void)close(fd);
    text[size > 0 ? size : 0] = '\0';
    const char *at = strstr(text, head);
    return at != NULL && (strtoull(at + sizeof head - 1, NULL, 16) >> (SIGTERM - 1) & 1) != 0;
#else
    (void)pid;
    return false;
#endif
}

void pod_process_hang_up(pm_process *child)
{
    (void)pm_process_signal(child, SIGHUP, PM_SCOPE_TREE);
    (void)pm_process_signal(child, SIGCONT, PM_SCOPE_TREE); // Who is stopped hears it, too.
}

// ------------------------------------------------------------------------------------------------
// Crash: everything below is safe in a signal handler
// ------------------------------------------------------------------------------------------------

#define FRAMES_MAX 48
#define STACK_BYTES_MAX (8u * 1024u * 1024u)

static struct {
    int file;
    const char *events;
    size_t events_size;
    char name[16];
} crash = {.file = -1};

static void say(const char *text, size_t size)
{
    while (size > 0 && crash.file >= 0) {
        ssize_t n = write(crash.file, text, size);
        if (n <= 0) {
            return;
        }
        text += n;
        size -= (size_t)n;
    }
}

static void say_text(const char *text)
{
    say(text, strlen(text));
}

static void say_hex(uintptr_t value)
{
    char text[2 + 2 * sizeof value + 1] = "0x";
    for (size_t i = 0; i < 2 * sizeof value; i++) {
        text[2 + i] = "0123456789abcdef"[value >> (4 * (2 * sizeof value - 1 - i)) & 15];
    }
    text[sizeof text - 1] = '\n';
    say(text, sizeof text);
}

// Where the program was: addresses for `addr2line -e processmgr-poddaemon`, less `base`.
static void say_stack(const void *context)
{
    uintptr_t pc = 0, frame = 0, low = 0;
    const ucontext_t *at = context;
#if defined(__x86_64__) && defined(REG_RIP)
    pc = (uintptr_t)at->uc_mcontext.gregs[REG_RIP];
    frame = (uintptr_t)at->uc_mcontext.gregs[REG_RBP];
    low = (uintptr_t)at->uc_mcontext.gregs[REG_RSP];
#elif defined(__aarch64__) && defined(HAVE_UCONTEXT_PC)
    pc = (uintptr_t)at->uc_mcontext.pc;
    frame = (uintptr_t)at->uc_mcontext.regs[29];
    low = (uintptr_t)at->uc_mcontext.sp;
#else
    (void)at;
#endif
    say_text("stack, address of pod_crash_arm ");
    say_hex((uintptr_t)pod_crash_arm);
    for (int i = 0; i < FRAMES_MAX && pc != 0; i++) {
        say_text("  ");
        say_hex(pc);
        // Frame pointers go up the stack, or the chain is broken.
        if (frame < low || frame - low > STACK_BYTES_MAX || frame % sizeof(uintptr_t) != 0) {
            return;
        }
        const uintptr_t *link = (const uintptr_t *)frame; // NOLINT(performance-no-int-to-ptr)
        low = frame + 1;
        frame = link[0];
        pc = link[1];
    }
}

static const char *cause(int number)
{
    switch (number) {
    case SIGSEGV:
        return "SIGSEGV";
    case SIGBUS:
        return "SIGBUS";
    case SIGFPE:
        return "SIGFPE";
    case SIGILL:
        return "SIGILL";
    default:
        return "SIGABRT";
    }
}

static void on_crash(int number, siginfo_t *info, void *context)
{
    say_text("\ncrash: ");
    say_text(cause(number));
    say_text(" at ");
    say_hex((uintptr_t)info->si_addr);
    say_text("last events:\n");
    say(crash.events, crash.events_size);
    say_stack(context); // Last: a broken stack may end it here.
    say_text("end of crash\n");
    // The disposition is the default again (SA_RESETHAND): the process ends by the same signal.
    (void)raise(number);
}

void pod_crash_arm(pm_native file, const char *events, size_t events_size)
{
    static char stack[16384];
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};
    bool armed = crash.events != NULL;
    crash.file = (int)file;
    crash.events = events;
    crash.events_size = events_size;
    if (armed) {
        return;
    }
    stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
    (void)sigaltstack(&alternative, NULL);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_crash;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | (int)SA_RESETHAND;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        (void)sigaction(numbers[i], &action, NULL);
    }
}
