// The signals that a runner takes. Held back they wait, through an exec, too: the next program has
// them then, and none finds a runner that is about to begin or to end.
#include <signal.h>
#include <unistd.h>

#include "runner/os.h"

static const int numbers[] = {SIGHUP, SIGTERM, SIGINT};
#define NUMBERS (sizeof numbers / sizeof numbers[0])
#define ALL 0
#define ENDS 1 // Those that ask for the end.

// Whether the first of them was blocked before.
static bool change(int how, size_t from)
{
    sigset_t set, old;
    (void)sigemptyset(&set);
    for (size_t i = from; i < NUMBERS; i++) {
        (void)sigaddset(&set, numbers[i]);
    }
    (void)sigemptyset(&old);
    (void)pthread_sigmask(how, &set, &old);
    return sigismember(&old, numbers[from]) == 1;
}

bool os_signals_hold(void)
{
    return !change(SIG_BLOCK, ALL);
}

void os_signals_let(void)
{
    (void)change(SIG_UNBLOCK, ALL);
}

static bool waits(int number)
{
    sigset_t set;
    (void)sigemptyset(&set);
    return sigpending(&set) == 0 && sigismember(&set, number) == 1;
}

void os_signals_obey(void)
{
    (void)change(SIG_UNBLOCK, ENDS);
    (void)change(SIG_BLOCK, ENDS);
}

static void ignore_hangup(bool ignore)
{
    struct sigaction action = {.sa_handler = ignore ? SIG_IGN : SIG_DFL};
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGHUP, &action, NULL);
}

bool os_signals_leave_open(void)
{
    if (waits(SIGTERM) || waits(SIGINT)) {
        return false;
    }
    ignore_hangup(true);
    os_signals_let();
    return true;
}

void os_signals_hold_again(void)
{
    (void)os_signals_hold();
    ignore_hangup(false);
}

void os_signals_pass(const struct os_process *process)
{
    for (size_t i = 0; i < NUMBERS; i++) {
        if (waits(numbers[i])) {
            os_process_signal(process, numbers[i]);
        }
    }
}
