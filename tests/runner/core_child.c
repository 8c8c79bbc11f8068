// What runs in the sessions of tests where there is no shell and no interpreter.
//
//   count FILE     numbered lines until FILE is there
//   cat            stdin to stdout, to its end
//   exit N         reads a line, then ends with N
//   sleep          until it is ended
#include <fcntl.h>
#include <io.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>

static int count(const char *file)
{
    char lines[100 * 16 + 1];
    unsigned n = 0, state = 1;
    while (_access(file, 0) != 0) {
        int size = 0;
        state = state * 1103515245u + 12345u;
        for (unsigned i = 0; i < 1 + (state >> 16) % 100; i++) {
            size += snprintf(lines + size, sizeof lines - (size_t)size, "%015u\n", n++);
        }
        if (fwrite(lines, 1, (size_t)size, stdout) != (size_t)size || fflush(stdout) != 0) {
            return 1;
        }
        Sleep((state >> 8) % 10);
    }
    return 0;
}

static int cat(void)
{
    char data[4096];
    int size;
    while ((size = _read(0, data, sizeof data)) > 0) {
        if (_write(1, data, (unsigned)size) != size) {
            return 1;
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    char line[64];
    (void)_setmode(0, _O_BINARY);
    (void)_setmode(1, _O_BINARY);
    if (argc == 3 && strcmp(argv[1], "count") == 0) {
        return count(argv[2]);
    }
    if (argc == 2 && strcmp(argv[1], "cat") == 0) {
        return cat();
    }
    if (argc == 3 && strcmp(argv[1], "exit") == 0) {
        (void)fgets(line, sizeof line, stdin);
        (void)puts("last words");
        return atoi(argv[2]);
    }
    if (argc == 2 && strcmp(argv[1], "sleep") == 0) {
        Sleep(INFINITE);
    }
    return 2;
}
