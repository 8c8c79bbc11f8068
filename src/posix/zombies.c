// Dead children that nobody has waited for. Nothing here takes a status.
#include "zombies.h"

#include "backend.h"

#include "error.h"
#include "family.h"
#include "identity.h"
#include "sys.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void visitor(void *context, pid_t pid);

// ------------------------------------------------------------------------------------------------
// Children
// ------------------------------------------------------------------------------------------------

static int error_of_opendir(pid_t parent)
{
    return parent != 0 && (errno == ENOENT || errno == ESRCH || errno == EACCES) ? PM_ERR_GONE
           : errno == EMFILE || errno == ENFILE ? PM_ERR_NO_DESCRIPTORS
           : errno == ENOMEM                    ? PM_ERR_NO_MEMORY
                                                : PM_ERR_UNSUPPORTED;
}

// The children that one thread has made.
static int visit_list(int list_fd, visitor *visit, void *context)
{
    char buffer[4096];
    ssize_t n;
    pid_t pid = 0;
    while ((n = pmi_sys_read(list_fd, buffer, sizeof(buffer))) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (buffer[i] >= '0' && buffer[i] <= '9') {
                pid = pid * 10 + (buffer[i] - '0');
            } else if (pid > 0) {
                visit(context, pid);
                pid = 0;
            }
        }
    }
    if (pid > 0)
        visit(context, pid);
    return n < 0 ? -1 : 0;
}

// By the parent's number, for a kernel without CONFIG_PROC_CHILDREN.
static int visit_all(pid_t parent, visitor *visit, void *context)
{
    DIR *proc = opendir("/proc");
    if (proc == NULL)
        return error_of_opendir(0);
    if (parent == 0)
        parent = getpid();
    struct dirent *entry;
    while (errno = 0, (entry = readdir(proc)) != NULL) {
        struct pmi_stat stat;
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        if (pid > 0 && pmi_stat_read(pid, &stat) == PM_OK && stat.ppid == parent)
            visit(context, pid);
    }
    int result = errno != 0 ? pmi_error_from_errno(errno) : PM_OK;
    (void)closedir(proc);
    return result;
}

int pmi_children_visit(pid_t parent, visitor *visit, void *context)
{
    char folder[32] = "/proc/self/task";
    if (parent != 0)
        (void)snprintf(folder, sizeof(folder), "/proc/%ld/task", (long)parent);
    DIR *tasks = opendir(folder);
    if (tasks == NULL)
        return error_of_opendir(parent);
    int result = PM_OK;
    bool lists = false;
    struct dirent *entry;
    while (errno = 0, result == PM_OK && (entry = readdir(tasks)) != NULL) {
        char path[80];
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof(path), "%s/%.20s/children", folder, entry->d_name);
        int fd = pmi_sys_open(path, O_RDONLY, 0);
        if (fd < 0) {
            // ENOENT: the thread has ended, or there are no such lists at all.
            if (errno != ENOENT && errno != ESRCH && errno != EACCES)
                result = pmi_error_from_errno(errno);
            continue;
        }
        lists = true;
        // ESRCH: it has ended meanwhile.
        if (visit_list(fd, visit, context) < 0 && errno != ESRCH)
            result = pmi_error_from_errno(errno);
        (void)pmi_sys_close(fd);
    }
    if (result == PM_OK && errno != 0 && (parent == 0 || (errno != ENOENT && errno != ESRCH)))
        result = pmi_error_from_errno(errno);
    (void)closedir(tasks);
    if (result != PM_OK || lists)
        return result;
    // No lists at all, or no such process any more.
    if (parent != 0 && access(folder, F_OK) != 0)
        return PM_ERR_GONE;
    return visit_all(parent, visit, context);
}

// ------------------------------------------------------------------------------------------------
// Zombies
// ------------------------------------------------------------------------------------------------

struct zombie_visit {
    void (*visit)(void *context, uint64_t pid, uint64_t start);
    void *context;
};

// Dead is what waitid says: the letter Z is also shown by a process whose first thread has ended
// while others run.
static void look_at(void *context, pid_t pid)
{
    const struct zombie_visit *zombie = context;
    siginfo_t info;
    struct pmi_stat stat;
    memset(&info, 0, sizeof(info));
    if (pmi_sys_waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT | WNOHANG) == 0 &&
        info.si_pid == pid && !pmi_family_awaits(pid))
        zombie->visit(zombie->context, (uint64_t)pid,
                      pmi_stat_read(pid, &stat) == PM_OK ? (uint64_t)stat.starttime : 0);
}

int pmi_os_zombies(void (*visit)(void *context, uint64_t pid, uint64_t start), void *context)
{
    struct zombie_visit zombie = {.visit = visit, .context = context};
    return pmi_children_visit(0, look_at, &zombie);
}
