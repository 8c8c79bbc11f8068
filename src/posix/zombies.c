// Dead children that nobody has waited for. Looking at them takes no status.
#include "zombies.h"

#include "backend.h"

#include "error.h"
#include "family.h"
#include "identity.h"
#include "proctable.h"
#include "reap.h"
#include "sys.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef HAVE_CHILD_SUBREAPER
#include <sys/prctl.h>
#endif

typedef void visitor(void *context, pid_t pid);

// ------------------------------------------------------------------------------------------------
// Children
// ------------------------------------------------------------------------------------------------

struct child_visit {
    pid_t parent;
    visitor *visit;
    void *context;
};

static bool visit_if_child(void *context, pid_t pid)
{
    const struct child_visit *children = context;
    struct pmi_stat stat;
    if (pmi_stat_read(pid, &stat) == PM_OK && stat.ppid == children->parent)
        children->visit(children->context, pid);
    return true;
}

// By the parent's number, where the kernel keeps no lists of children.
static int visit_all(pid_t parent, visitor *visit, void *context)
{
    struct child_visit children = {parent != 0 ? parent : getpid(), visit, context};
    int e = pmi_pids_visit(visit_if_child, &children);
    return e == 0 ? PM_OK : e == ENOENT ? PM_ERR_UNSUPPORTED : pmi_error_from_errno(e);
}

#ifdef HAVE_KINFO_PROC

static int visit_lists(pid_t parent, visitor *visit, void *context, bool *ret_lists)
{
    (void)parent;
    (void)visit;
    (void)context;
    *ret_lists = false;
    return PM_OK;
}

#else

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

// *ret_lists is written in every case: whether there are such lists.
static int visit_lists(pid_t parent, visitor *visit, void *context, bool *ret_lists)
{
    char folder[32] = "/proc/self/task";
    if (parent != 0)
        (void)snprintf(folder, sizeof(folder), "/proc/%ld/task", (long)parent);
    *ret_lists = false;
    DIR *tasks = opendir(folder);
    if (tasks == NULL)
        return error_of_opendir(parent);
    int result = PM_OK;
    struct dirent *entry;
    while (errno = 0, result == PM_OK && (entry = readdir(tasks)) != NULL) {
        char path[80];
        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(path, sizeof(path), "%s/%.20s/children", folder, entry->d_name);
        int fd = pmi_sys_open(path, O_RDONLY, 0);
        if (fd < 0) {
            // ENOENT: the thread has ended, or there are no such lists at all. A list of ours that
            // may not be read is not an empty one.
            if (parent == 0 && errno == EACCES)
                result = PM_ERR_UNSUPPORTED;
            else if (errno != ENOENT && errno != ESRCH && errno != EACCES)
                result = pmi_error_from_errno(errno);
            continue;
        }
        *ret_lists = true;
        // ESRCH: it has ended meanwhile.
        if (visit_list(fd, visit, context) < 0 && errno != ESRCH)
            result = pmi_error_from_errno(errno);
        (void)pmi_sys_close(fd);
    }
    if (result == PM_OK && errno != 0 && (parent == 0 || (errno != ENOENT && errno != ESRCH)))
        result = pmi_error_from_errno(errno);
    (void)closedir(tasks);
    // No lists at all, or no such process any more.
    if (result == PM_OK && !*ret_lists && parent != 0 && access(folder, F_OK) != 0)
        result = PM_ERR_GONE;
    return result;
}

#endif

int pmi_children_list(pid_t parent, visitor *visit, void *context)
{
    bool lists;
    int result = visit_lists(parent, visit, context, &lists);
    return result == PM_OK && !lists ? PM_ERR_UNSUPPORTED : result;
}

int pmi_children_visit(pid_t parent, visitor *visit, void *context)
{
    bool lists;
    int result = visit_lists(parent, visit, context, &lists);
    return result == PM_OK && !lists ? visit_all(parent, visit, context) : result;
}

bool pmi_orphans_come_to_us(void)
{
    int on = 0;
#ifdef HAVE_CHILD_SUBREAPER
    if (prctl(PR_GET_CHILD_SUBREAPER, &on, 0, 0, 0) < 0)
        on = 0;
#endif
    return on != 0 || getpid() == 1;
}

// ------------------------------------------------------------------------------------------------
// Zombies
// ------------------------------------------------------------------------------------------------

// What a subreaper or PID 1 is given has a leader that is neither itself nor ours: somebody below
// us made the group or the session. What we start is in our own or leads its own.
static bool is_orphan(pid_t pid, const struct pmi_stat *stat)
{
    return pmi_orphans_come_to_us() && ((stat->pgrp != pid && stat->pgrp != getpgrp()) ||
                                        (stat->session != pid && stat->session != getsid(0)));
}

struct zombie_visit {
    void (*visit)(void *context, const struct pmi_zombie *zombie);
    void *context;
};

// Dead is what waitid says: the letter Z is also shown by a process whose first thread has ended
// while others run.
static void look_at(void *context, pid_t pid)
{
    const struct zombie_visit *visit = context;
    struct pmi_stat stat;
    if (pmi_child_look(pid) <= 0 || pmi_family_awaits(pid))
        return;
    if (pmi_stat_read(pid, &stat) != PM_OK)
        return; // Somebody has just waited for it.
    struct pmi_zombie zombie = {
        .pid = (uint64_t)pid,
        .start = stat.starttime,
        .age_ms = pmi_age_of(stat.starttime),
        .orphan = is_orphan(pid, &stat),
    };
    pmi_process_name(pid, zombie.name, sizeof(zombie.name));
    visit->visit(visit->context, &zombie);
}

int pmi_os_zombies(void (*visit)(void *context, const struct pmi_zombie *zombie), void *context)
{
    struct zombie_visit zombies = {.visit = visit, .context = context};
    return pmi_children_visit(0, look_at, &zombies);
}

bool pmi_os_zombie_is_there(const struct pmi_zombie *zombie)
{
    struct pmi_stat stat;
    return pmi_child_look((pid_t)zombie->pid) > 0 &&
           pmi_stat_read((pid_t)zombie->pid, &stat) == PM_OK &&
           (uint64_t)stat.starttime == zombie->start;
}

// The pidfd is opened first and the start time read after it: if that is the zombie's, the number
// has been its own all the time, and the pidfd is of no other.
int pmi_os_zombie_reap(const struct pmi_zombie *zombie)
{
    pid_t pid = (pid_t)zombie->pid;
    int pidfd = -1;
#ifdef HAVE_PIDFD
    pidfd = pmi_sys_pidfd_open(pid);
    if (pidfd < 0 && (errno == EMFILE || errno == ENFILE))
        return PM_ERR_NO_DESCRIPTORS;
#endif
    siginfo_t info;
    bool taken = pmi_os_zombie_is_there(zombie) && pmi_child_take(pid, pidfd, &info, NULL) == 0 &&
                 info.si_pid == pid;
    (void)pmi_sys_close(pidfd);
    return taken ? PM_OK : PM_ERR_GONE;
}

uint64_t pmi_os_parent_of(uint64_t pid)
{
    struct pmi_stat stat;
    return pmi_stat_read((pid_t)pid, &stat) == PM_OK ? (uint64_t)stat.ppid : 0;
}
