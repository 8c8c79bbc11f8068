// Loaded into a holder or a runner by LD_PRELOAD: a signal every millisecond, whose handler does
// nothing and restarts nothing. So each call that waits, or takes long, is interrupted sooner or
// later. Not into launchers: a program that they become would be ended by the signal before it is
// loaded. Each that has it is told in the file that PM_TEST_STORM names.
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

static void do_nothing(int number)
{
    (void)number;
}

static const char *role_of(int argc, char **argv)
{
    bool ours = argc > 0 && (strstr(argv[0], "runner") != NULL || strstr(argv[0], "pod") != NULL);
    for (int i = 1; ours && i < argc; i++) {
        if (strcmp(argv[i], "serve") == 0) {
            return "runner\n";
        }
        if (strcmp(argv[i], "--session") == 0) {
            return "holder\n";
        }
    }
    return NULL;
}

// The C library of GNU gives constructors the arguments of main().
__attribute__((constructor)) static void begin_storm(int argc, char **argv)
{
    const char *told = getenv("PM_TEST_STORM"), *role = role_of(argc, argv);
    struct sigaction action = {.sa_handler = do_nothing};
    struct itimerval rhythm = {{0, 1000}, {0, 1000}};
    if (role == NULL) {
        return;
    }
    int fd = told != NULL ? open(told, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &rhythm, NULL) == 0 &&
        fd >= 0) {
        (void)!write(fd, role, strlen(role));
    }
    if (fd >= 0) {
        (void)close(fd);
    }
}
