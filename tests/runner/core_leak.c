// Loaded into a runner by LD_PRELOAD: plants a zombie when the file that PM_TEST_LEAK names is
// there, and takes the file away. So the leak is a real one of the program as it is.
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool is_serving(void)
{
    char line[4096];
    int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, line, sizeof line);
    (void)close(fd);
    for (ssize_t at = 0; at < size; at += (ssize_t)strnlen(line + at, (size_t)(size - at)) + 1) {
        if (strncmp(line + at, "serve", (size_t)(size - at)) == 0) {
            return true;
        }
    }
    return false;
}

static void *plant(void *file)
{
    for (;;) {
        if (access(file, F_OK) == 0) {
            if (fork() == 0) {
                _exit(0);
            }
            (void)unlink(file);
        }
        (void)usleep(10000);
    }
    return NULL;
}

__attribute__((constructor)) static void begin(void)
{
    pthread_t thread;
    char *file = getenv("PM_TEST_LEAK");
    if (file != NULL && is_serving() && pthread_create(&thread, NULL, plant, file) == 0) {
        (void)pthread_detach(thread);
    }
}
