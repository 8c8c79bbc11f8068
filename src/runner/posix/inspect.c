// Linux: from /proc. Elsewhere there is only what the calls of POSIX tell of one process.
#include "runner/inspect.h"

#include <processmgr/processmgr.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const struct inspect_roots inspect_real_roots = {"/proc", ""};

// Descriptors of one process that are looked at for a shared stream.
#define STREAMS_MOST 256

// A small file as text; false: it cannot be read.
static bool read_text(const char *path, char *text, size_t capacity)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t size = 0;
    ssize_t n = 0;
    if (fd < 0) {
        return false;
    }
    while (size < capacity - 1 && (n = read(fd, text + size, capacity - 1 - size)) != 0) {
        if (n < 0 && errno != EINTR) {
            break;
        }
        size += n > 0 ? (size_t)n : 0;
    }
    (void)close(fd);
    text[size] = '\0';
    return n >= 0 && size > 0;
}

// ------------------------------------------------------------------------------------------------
// The table
// ------------------------------------------------------------------------------------------------

static void take_name(struct inspect_process *process, const char *from, size_t size)
{
    size_t at = 0;
    for (size_t i = 0; i < size && at < sizeof process->name - 1; i++) {
        process->name[at++] = from[i] > ' ' && from[i] < 0x7f ? from[i] : '?';
    }
    process->name[at] = '\0';
}

// proc(5): fields are counted from the last parenthesis, as the name may hold anything.
static bool parse_stat(const char *text, struct inspect_process *process)
{
    const char *open = strchr(text, '('), *close = strrchr(text, ')');
    char state;
    long long parent, group, session, terminal, threads;
    unsigned long long start;
    if (open == NULL || close == NULL || close < open ||
        sscanf(close + 1, // NOLINT(cert-err34-c): the kernel wrote it.
               " %c %lld %lld %lld %lld %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %lld %*d "
               "%llu",
               &state, &parent, &group, &session, &terminal, &threads, &start) != 7) {
        return false;
    }
    process->parent = (uint64_t)parent;
    process->group = (uint64_t)group;
    process->session = (uint64_t)session;
    process->terminal = (uint64_t)terminal;
    process->start = start;
    // With other threads the letter tells only of the first one.
    process->zombie = (state == 'Z' || state == 'X') && threads <= 1;
    process->stopped = state == 'T' || state == 't';
    take_name(process, open + 1, (size_t)(close - open - 1));
    return true;
}

bool inspect_process_read(const struct inspect_roots *roots, uint64_t pid,
                          struct inspect_process *ret_process)
{
    char path[4200], text[1024];
    struct inspect_process process = {.pid = pid};
    (void)snprintf(path, sizeof path, "%s/%llu/stat", roots->proc, (unsigned long long)pid);
    if (!read_text(path, text, sizeof text) || !parse_stat(text, &process)) {
        return false;
    }
    *ret_process = process;
    return true;
}

static int by_pid(const void *a, const void *b)
{
    const struct inspect_process *x = a, *y = b;
    return x->pid < y->pid ? -1 : x->pid > y->pid;
}

static bool add_process(const struct inspect_roots *roots, struct inspect_table *table,
                        size_t *capacity, const char *name)
{
    struct inspect_process process;
    char *end;
    uint64_t pid = strtoull(name, &end, 10);
    if (*end != '\0' || pid == 0 || !inspect_process_read(roots, pid, &process)) {
        return true; // It has ended meanwhile.
    }
    if (table->count == *capacity) {
        size_t more = *capacity * 2 + 256;
        struct inspect_process *grown = realloc(table->list, more * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        table->list = grown;
        *capacity = more;
    }
    table->list[table->count++] = process;
    return true;
}

int inspect_table_read(const struct inspect_roots *roots, struct inspect_table *ret_table)
{
    struct inspect_table table = {NULL, 0};
    size_t capacity = 0;
    struct dirent *entry;
    bool fine = true;
    DIR *dir = opendir(roots->proc);
    if (dir == NULL) {
        return PM_ERR_UNSUPPORTED;
    }
    while (fine && (entry = readdir(dir)) != NULL) {
        fine = entry->d_name[0] < '0' || entry->d_name[0] > '9' ||
               add_process(roots, &table, &capacity, entry->d_name);
    }
    (void)closedir(dir);
    if (!fine || table.count == 0) {
        free(table.list);
        return fine ? PM_ERR_UNSUPPORTED : PM_ERR_NO_MEMORY;
    }
    qsort(table.list, table.count, sizeof *table.list, by_pid);
    *ret_table = table;
    return PM_OK;
}

void inspect_table_clear(struct inspect_table *table)
{
    free(table->list);
    *table = (struct inspect_table){NULL, 0};
}

const struct inspect_process *inspect_find(const struct inspect_table *table, uint64_t pid)
{
    struct inspect_process key = {.pid = pid};
    return table->count == 0
               ? NULL
               : bsearch(&key, table->list, table->count, sizeof *table->list, by_pid);
}

const struct inspect_process *inspect_parent(const struct inspect_table *table,
                                             const struct inspect_process *process)
{
    const struct inspect_process *parent = inspect_find(table, process->parent);
    // The kernel changes the number when a parent ends, so this only guards our own reading.
    return parent != NULL && parent != process && parent->start <= process->start ? parent : NULL;
}

// ------------------------------------------------------------------------------------------------
// Of one process
// ------------------------------------------------------------------------------------------------

bool inspect_cgroup(const struct inspect_roots *roots, uint64_t pid, char path[4096])
{
    char file[4200], text[8192], *line, *rest = text;
    bool found = false;
    (void)snprintf(file, sizeof file, "%s/%llu/cgroup", roots->proc, (unsigned long long)pid);
    if (!read_text(file, text, sizeof text)) {
        return false;
    }
    while ((line = strtok_r(rest, "\n", &rest)) != NULL) {
        const char *named = strstr(line, ":name=systemd:/");
        if (strncmp(line, "0::/", 4) == 0 && (!found || line[4] != '\0')) {
            (void)snprintf(path, 4096, "%s", line + 3);
            found = true;
        } else if (named != NULL && !found) { // Hybrid: systemd may keep its units there.
            (void)snprintf(path, 4096, "%s", strchr(named, '/'));
            found = true;
        }
    }
    char *deleted = found ? strstr(path, " (deleted)") : NULL;
    if (deleted != NULL) {
        *deleted = '\0';
    }
    return found;
}

// What a descriptor is, if it is something that two processes have in common for a reason.
static bool read_stream(const struct inspect_roots *roots, uint64_t pid, const char *fd,
                        char target[128])
{
    char path[4300];
    (void)snprintf(path, sizeof path, "%s/%llu/fd/%s", roots->proc, (unsigned long long)pid, fd);
    ssize_t n = readlink(path, target, 127);
    if (n <= 0) {
        return false;
    }
    target[n] = '\0';
    return strncmp(target, "pipe:[", 6) == 0 || strncmp(target, "socket:[", 8) == 0 ||
           strncmp(target, "/dev/pts/", 9) == 0;
}

static size_t read_streams(const struct inspect_roots *roots, uint64_t pid, char list[][128])
{
    char path[4200];
    size_t count = 0;
    struct dirent *entry;
    (void)snprintf(path, sizeof path, "%s/%llu/fd", roots->proc, (unsigned long long)pid);
    DIR *dir = opendir(path);
    while (dir != NULL && count < STREAMS_MOST && (entry = readdir(dir)) != NULL) {
        count += entry->d_name[0] != '.' && read_stream(roots, pid, entry->d_name, list[count]);
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return count;
}

bool inspect_shares_stream(const struct inspect_roots *roots, uint64_t pid, uint64_t other,
                           char what[128])
{
    static const char *const standard[] = {"0", "1", "2"};
    char(*theirs)[128] = calloc(STREAMS_MOST, sizeof *theirs);
    char mine[128];
    bool found = false;
    size_t count = theirs != NULL ? read_streams(roots, other, theirs) : 0;
    for (size_t i = 0; i < 3 && !found; i++) {
        if (!read_stream(roots, pid, standard[i], mine)) {
            continue;
        }
        for (size_t j = 0; j < count && !found; j++) {
            found = strcmp(mine, theirs[j]) == 0;
        }
        if (found) {
            memcpy(what, mine, sizeof mine);
        }
    }
    free(theirs);
    return found;
}

bool inspect_in_job(uint64_t pid, uint64_t object)
{
    (void)pid;
    (void)object;
    return false;
}

bool inspect_program(const struct inspect_roots *roots, uint64_t pid, char path[4096],
                     bool *ret_replaced)
{
    static const char deleted[] = " (deleted)";
    char file[4200];
    (void)snprintf(file, sizeof file, "%s/%llu/exe", roots->proc, (unsigned long long)pid);
    ssize_t n = readlink(file, path, 4095);
    if (n <= 0) {
        return false;
    }
    path[n] = '\0';
    size_t length = (size_t)n, tail = sizeof deleted - 1;
    *ret_replaced = length > tail && strcmp(path + length - tail, deleted) == 0;
    if (*ret_replaced) {
        path[length - tail] = '\0';
    }
    return true;
}
