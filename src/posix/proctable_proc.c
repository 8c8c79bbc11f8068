// The process table as Linux shows it: /proc.
#include "proctable.h"

#ifndef HAVE_KINFO_PROC

#include "error.h"
#include "identity.h"
#include "sys.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>
#include <time.h>

#define PROC_MAGIC 0x9fa0 // include/uapi/linux/magic.h

// A small file of /proc as text. Bytes read, or -1.
static ssize_t read_small(const char *path, char *buffer, size_t capacity)
{
    int fd = pmi_sys_open(path, O_RDONLY, 0);
    if (fd < 0)
        return -1;
    size_t size = 0;
    ssize_t n = 0;
    while (size < capacity - 1 && (n = pmi_sys_read(fd, buffer + size, capacity - 1 - size)) > 0)
        size += (size_t)n;
    (void)pmi_sys_close(fd);
    buffer[size] = '\0';
    return n < 0 ? -1 : (ssize_t)size;
}

int pmi_stat_read(pid_t pid, struct pmi_stat *ret_stat)
{
    char path[64], text[1024];
    errno = 0;
    (void)snprintf(path, sizeof(path), "/proc/%ld/stat", (long)pid);
    // What both files tell is the same; but of itself a program under qemu's user mode is told
    // another start time in the first one than everybody else is.
    if (pid == getpid())
        (void)snprintf(path, sizeof(path), "/proc/%ld/task/%ld/stat", (long)pid, (long)pid);
    if (read_small(path, text, sizeof(text)) <= 0)
        return errno == ENOENT || errno == ESRCH || errno == 0 ? PM_ERR_GONE
                                                               : pmi_error_from_errno(errno);
    return pmi_stat_parse(text, ret_stat) == PM_OK ? PM_OK : PM_ERR_SYSTEM;
}

void pmi_process_name(pid_t pid, char *name, size_t capacity)
{
    char path[64];
    name[0] = '\0';
    (void)snprintf(path, sizeof(path), "/proc/%ld/comm", (long)pid);
    ssize_t size = read_small(path, name, capacity);
    // One line end behind it; a name may hold others.
    if (size > 0 && name[size - 1] == '\n')
        name[size - 1] = '\0';
}

int pmi_boot_id(char boot_id[40])
{
    char text[64];
    errno = 0;
    if (read_small("/proc/sys/kernel/random/boot_id", text, sizeof(text)) <= 0)
        return errno != 0 ? errno : ENOENT;
    text[strcspn(text, "\n")] = '\0';
    (void)snprintf(boot_id, 40, "%.36s", text);
    return 0;
}

int pmi_pids_visit(bool (*visit)(void *context, pid_t pid), void *context)
{
    DIR *dir = opendir("/proc");
    if (dir == NULL)
        return errno;
    struct dirent *entry;
    bool seen_any = false, more = true;
    while (errno = 0, more && (entry = readdir(dir)) != NULL) {
        char *end;
        long pid = strtol(entry->d_name, &end, 10);
        if (end == entry->d_name || *end != '\0' || pid <= 0)
            continue;
        seen_any = true;
        more = visit(context, (pid_t)pid);
    }
    // An empty /proc is one that is not mounted.
    int e = errno != 0 ? errno : seen_any ? 0 : ENOENT;
    (void)closedir(dir);
    return more ? e : 0;
}

// A container may be shown a file of its own there, which is some seconds behind (lxcfs); gVisor's
// has 0.
long pmi_last_number(void)
{
    char text[128];
    struct statfs fs;
    int fd = pmi_sys_open("/proc/loadavg", O_RDONLY, 0);
    bool true_one =
        fd >= 0 && PMI_SYS(fstatfs)(fd, &fs) == 0 && (unsigned long)fs.f_type == PROC_MAGIC;
    ssize_t n = true_one ? pmi_sys_read(fd, text, sizeof(text) - 1) : -1;
    (void)pmi_sys_close(fd);
    if (n <= 0)
        return -1;
    text[n] = '\0';
    const char *blank = strrchr(text, ' ');
    long last = blank != NULL ? strtol(blank + 1, NULL, 10) : 0;
    return last > 0 ? last : -1;
}

long pmi_end_of_numbers(void)
{
    char text[32];
    return read_small("/proc/sys/kernel/pid_max", text, sizeof(text)) > 0 ? strtol(text, NULL, 10)
                                                                          : -1;
}

bool pmi_is_thread(pid_t number)
{
    static const char name[] = "\nTgid:";
    char path[64], text[512];
    (void)snprintf(path, sizeof(path), "/proc/%ld/status", (long)number);
    const char *at = read_small(path, text, sizeof(text)) > 0 ? strstr(text, name) : NULL;
    return at != NULL && strtol(at + sizeof(name) - 1, NULL, 10) != number;
}

int64_t pmi_age_of(uint64_t start)
{
#ifdef CLOCK_BOOTTIME
    struct timespec now = {0};
    long ticks = sysconf(_SC_CLK_TCK);
    if (ticks > 0 && clock_gettime(CLOCK_BOOTTIME, &now) == 0) {
        int64_t began = (int64_t)(start / (uint64_t)ticks) * 1000 +
                        (int64_t)(start % (uint64_t)ticks) * 1000 / ticks;
        int64_t age = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 - began;
        return age > 0 ? age : 0;
    }
#endif
    (void)start;
    return -1;
}

#endif
