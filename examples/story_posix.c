// The story's own eyes on POSIX. Counting processes needs /proc as Linux has it.
#include "story_os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

const char *story_os_backend(void) {
    return "posix";
}

static bool locale_is_utf8(void) {
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && value[0] != '\0')
            return strstr(value, "UTF-8") != NULL || strstr(value, "utf8") != NULL;
    }
    return false;
}

unsigned story_os_look(void) {
    const char *no_color = getenv("NO_COLOR");
    unsigned look = locale_is_utf8() ? STORY_UTF8 : STORY_PLAIN;
    if (isatty(STDOUT_FILENO) && (no_color == NULL || no_color[0] == '\0')) look |= STORY_COLOUR;
    return look;
}

int64_t story_os_now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void story_os_sleep_ms(unsigned ms) {
    struct timespec pause = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    nanosleep(&pause, NULL);
}

bool story_os_self(const char *argv0, char path[STORY_PATH_MAX]) {
    ssize_t length = readlink("/proc/self/exe", path, STORY_PATH_MAX - 1);
    if (length > 0) {
        path[length] = '\0';
        return true;
    }
    return argv0 != NULL && snprintf(path, STORY_PATH_MAX, "%s", argv0) < STORY_PATH_MAX;
}

bool story_os_argument(char **argv, int index, char text[STORY_PATH_MAX]) {
    return snprintf(text, STORY_PATH_MAX, "%s", argv[index]) < STORY_PATH_MAX;
}

bool story_os_make_folder(char path[STORY_PATH_MAX]) {
    const char *base = getenv("TMPDIR");
    if (base == NULL || base[0] != '/') base = "/tmp";
    if (snprintf(path, STORY_PATH_MAX, "%s/pm-story.XXXXXX", base) >= STORY_PATH_MAX) return false;
    return mkdtemp(path) != NULL;
}

bool story_os_remove_folder(const char *path) {
    DIR *dir = opendir(path);
    if (dir == NULL) return false;
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        char below[STORY_PATH_MAX];
        struct stat st;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (snprintf(below, sizeof below, "%s/%s", path, entry->d_name) >= (int)sizeof below)
            continue;
        if (lstat(below, &st) == 0 && S_ISDIR(st.st_mode))
            story_os_remove_folder(below);
        else
            unlink(below);
    }
    closedir(dir);
    return rmdir(path) == 0;
}

// Returns the number of bytes, -1 if the file cannot be read.
static ssize_t read_start(const char *path, char *text, size_t capacity) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return -1;
    ssize_t length = read(fd, text, capacity - 1);
    close(fd);
    if (length >= 0) text[length] = '\0';
    return length;
}

bool story_os_read_file(const char *path, char *text, size_t capacity) {
    return read_start(path, text, capacity) >= 0;
}

// Calls `counts` for each process and returns how often it said yes; -1 without a readable /proc.
static int count_processes(bool (*counts)(long pid, const void *context), const void *context) {
    char probe[16];
    DIR *dir = opendir("/proc");
    if (dir == NULL) return -1;
    int found = 0;
    const struct dirent *entry;
    while ((entry = readdir(dir)) != NULL) {
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        if (pid > 0 && *end == '\0' && counts(pid, context)) found++;
    }
    closedir(dir);
    return read_start("/proc/self/stat", probe, sizeof probe) > 0 ? found : -1;
}

static bool is_zombie_of_ours(long pid, const void *context) {
    (void)context;
    char path[64];
    char stat[1024];
    char state;
    long parent;
    snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    if (read_start(path, stat, sizeof stat) <= 0) return false;
    // The name in brackets may itself hold brackets and blanks: the fields go on after the last
    // one.
    const char *fields = strrchr(stat, ')');
    if (fields == NULL || sscanf(fields + 1, " %c %ld", &state, &parent) != 2) return false;
    if (state != 'Z' || parent != (long)getpid()) return false;
    // State Z alone may be a living process whose first thread has ended.
    siginfo_t info = {.si_pid = 0};
    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == (pid_t)pid;
}

int story_os_zombies(void) {
    return count_processes(is_zombie_of_ours, NULL);
}

static bool has_argument(long pid, const void *context) {
    const char *wanted = context;
    char path[64];
    char args[4096];
    snprintf(path, sizeof path, "/proc/%ld/cmdline", pid);
    ssize_t length = read_start(path, args, sizeof args); // Empty for the dead.
    for (ssize_t at = 0; at < length; at += (ssize_t)strlen(args + at) + 1) {
        if (strcmp(args + at, wanted) == 0) return true;
    }
    return false;
}

int story_os_running(const char *folder, const uint64_t *pids, size_t count) {
    if (pids == NULL) return count_processes(has_argument, folder);
    int found = 0;
    for (size_t i = 0; i < count; i++) found += has_argument((long)pids[i], folder) ? 1 : 0;
    return found;
}

int story_os_payload(void) {
    int got = 0;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGALRM);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0) return 1;
    alarm(STORY_PAYLOAD_MS / 1000);
    printf("ready\n");
    fflush(stdout);
    if (sigwait(&set, &got) != 0) return 1;
    if (got != SIGTERM) return 2;
    printf("stopped\n");
    return 0;
}
