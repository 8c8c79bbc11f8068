// The program that the benchmarks start: as small as a program can be.
#ifdef _WIN32
#include <windows.h>
int main(void)
{
    return 0;
}
#else
#include <signal.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char byte = 'r';
    if (argc < 2) {
        return 0;
    }
    if (strcmp(argv[1], "deaf") == 0) {
        (void)signal(SIGTERM, SIG_IGN);
        (void)!write(STDOUT_FILENO, &byte, 1);
    }
    if (strcmp(argv[1], "read") == 0) { // Until the end of its input.
        return read(STDIN_FILENO, &byte, 1) == 0 ? 0 : 1;
    }
    (void)alarm(600); // Never for ever.
    for (;;) {
        (void)pause();
    }
}
#endif
