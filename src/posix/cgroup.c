#include "cgroup.h"

#include "error.h"
#include "identity.h"
#include "pmi_config.h"
#include "sys.h"

#ifdef HAVE_CGROUP2

#include <dirent.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

// Deeper than anybody nests them; a bound for the walk.
#define DEPTH_MOST 16
// SIGKILL one by one: a fork may be faster than one look.
#define KILL_ROUNDS 100

struct pmi_cgroup {
    int parent_fd, fd;
    bool removed, killed;
    struct pmi_cgroup *next; // Among those to be removed later.
    char name[PMI_CGROUP_NAME];
};

// ------------------------------------------------------------------------------------------------
// Make
// ------------------------------------------------------------------------------------------------

static int fail_cgroup(struct pm_error *err, int e, const char *hint)
{
    pmi_fail(err, PM_STAGE_GROUP, e);
    pmi_fail_field(err, "cgroup");
    if (hint != NULL)
        pmi_fail_hint(err, "%s", hint);
    return err->code;
}

static int open_parent(const char *path, int *ret_fd, struct pm_error *err)
{
    struct statfs fs;
    int fd = path[0] == '/' ? pmi_sys_open(path, O_RDONLY | O_DIRECTORY, 0) : -1;
    if (path[0] != '/') {
        (void)fail_cgroup(err, EINVAL, "an absolute path");
        return err->code = PM_ERR_INVALID;
    }
    if (fd < 0)
        return fail_cgroup(err, errno, NULL);
    if (PMI_SYS(fstatfs)(fd, &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC) {
        (void)pmi_sys_close(fd);
        (void)fail_cgroup(err, EINVAL, "not a control group of version 2");
        return err->code = PM_ERR_INVALID;
    }
    *ret_fd = fd;
    return PM_OK;
}

// With the process's identity in its name, as what a killed host left behind keeps its own.
static int make_leaf(struct pmi_cgroup *cgroup)
{
    static atomic_ulong made;
    struct pmi_stat stat = {.starttime = 0};
    (void)pmi_stat_read(getpid(), &stat);
    for (int i = 0; i < 100; i++) {
        (void)snprintf(cgroup->name, sizeof(cgroup->name), "processmgr-%d-%llu-%lu", (int)getpid(),
                       stat.starttime, atomic_fetch_add(&made, 1));
        if (PMI_SYS(mkdirat)(cgroup->parent_fd, cgroup->name, 0755) == 0) {
            // The umask is the host's, and may leave even its owner without rights.
            (void)PMI_SYS(fchmodat)(cgroup->parent_fd, cgroup->name, 0755, AT_SYMLINK_NOFOLLOW);
            return 0;
        }
        if (errno != EEXIST)
            break;
    }
    return errno;
}

static int open_in(int dir, const char *name, int flags)
{
    int fd;
    do
        fd = PMI_SYS(openat)(dir, name, flags | O_CLOEXEC | O_NOFOLLOW);
    while (fd < 0 && errno == EINTR);
    return pmi_sys_lift(fd, 3);
}

int pmi_cgroup_make(const char *path, struct pmi_cgroup **ret_cgroup, int *ret_procs_fd,
                    struct pm_error *err)
{
    (void)pmi_cgroup_sweep();
    struct pmi_cgroup *cgroup = calloc(1, sizeof(*cgroup));
    if (cgroup == NULL)
        return fail_cgroup(err, ENOMEM, NULL);
    cgroup->fd = -1;
    int result = open_parent(path, &cgroup->parent_fd, err);
    if (result != PM_OK) {
        free(cgroup);
        return result;
    }
    int e = make_leaf(cgroup);
    if (e != 0) {
        (void)pmi_sys_close(cgroup->parent_fd);
        free(cgroup);
        return fail_cgroup(err, e, "no group can be made below it: is it ours to divide?");
    }
    cgroup->fd = open_in(cgroup->parent_fd, cgroup->name, O_RDONLY | O_DIRECTORY);
    int procs_fd = cgroup->fd < 0 ? -1 : open_in(cgroup->fd, "cgroup.procs", O_WRONLY);
    if (procs_fd < 0) {
        result = fail_cgroup(err, errno, NULL);
        pmi_cgroup_close(cgroup);
        return result;
    }
    *ret_cgroup = cgroup;
    *ret_procs_fd = procs_fd;
    return PM_OK;
}

int pmi_cgroup_fd(const struct pmi_cgroup *cgroup)
{
    return cgroup->fd;
}

const char *pmi_cgroup_name(const struct pmi_cgroup *cgroup)
{
    return cgroup->name;
}

struct pmi_cgroup *pmi_cgroup_adopt(int fd, const char *name)
{
    struct pmi_cgroup *cgroup = calloc(1, sizeof(*cgroup));
    int parent_fd = cgroup == NULL ? -1 : open_in(fd, "..", O_RDONLY | O_DIRECTORY);
    if (parent_fd < 0) {
        (void)pmi_sys_close(fd);
        free(cgroup);
        return NULL;
    }
    cgroup->fd = fd;
    cgroup->parent_fd = parent_fd;
    (void)snprintf(cgroup->name, sizeof(cgroup->name), "%s", name);
    return cgroup;
}

// ------------------------------------------------------------------------------------------------
// Look
// ------------------------------------------------------------------------------------------------

// The whole of a small file, NUL-terminated; malloc'd. NULL = it cannot be read.
static char *read_file(int dir, const char *name)
{
    size_t size = 0, capacity = 4096;
    int fd = open_in(dir, name, O_RDONLY);
    char *text = fd < 0 ? NULL : malloc(capacity);
    ssize_t n = -1;
    while (text != NULL && (n = pmi_sys_read(fd, text + size, capacity - size - 1)) > 0) {
        size += (size_t)n;
        if (capacity - size > 1)
            continue;
        char *grown = realloc(text, capacity *= 2);
        if (grown == NULL)
            break;
        text = grown;
    }
    (void)pmi_sys_close(fd);
    if (text == NULL || n != 0) {
        free(text);
        return NULL;
    }
    text[size] = '\0';
    return text;
}

bool pmi_cgroup_is_populated(const struct pmi_cgroup *cgroup)
{
    char text[256];
    if (cgroup->fd < 0) // It could not even be opened: nobody was let in.
        return false;
    int fd = cgroup->removed ? -1 : open_in(cgroup->fd, "cgroup.events", O_RDONLY);
    if (fd < 0)
        return !cgroup->removed && errno != ENOENT && errno != ENODEV;
    ssize_t n = pmi_sys_read(fd, text, sizeof(text) - 1);
    (void)pmi_sys_close(fd);
    if (n < 0)
        return errno != ENODEV;
    text[n] = '\0';
    return strstr(text, "populated 0") == NULL;
}

// Calls visit for the group and each below it, these first.
static void walk(int dir_fd, int depth, void (*visit)(int fd, void *context), void *context)
{
    int copy = depth < DEPTH_MOST ? open_in(dir_fd, ".", O_RDONLY | O_DIRECTORY) : -1;
    DIR *dir = copy < 0 ? NULL : PMI_SYS(fdopendir)(copy);
    if (dir == NULL)
        (void)pmi_sys_close(copy);
    struct dirent *entry;
    while (dir != NULL && (entry = PMI_SYS(readdir)(dir)) != NULL) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        int below = open_in(dir_fd, entry->d_name, O_RDONLY | O_DIRECTORY);
        if (below >= 0)
            walk(below, depth + 1, visit, context);
        (void)pmi_sys_close(below);
    }
    if (dir != NULL)
        (void)closedir(dir);
    visit(dir_fd, context);
}

// ------------------------------------------------------------------------------------------------
// Signals
// ------------------------------------------------------------------------------------------------

static bool lists(const char *text, pid_t pid)
{
    for (const char *at = text; at != NULL && *at != '\0';) {
        if (strtol(at, NULL, 10) == pid)
            return true;
        at = strchr(at, '\n');
        at = at != NULL ? at + 1 : NULL;
    }
    return false;
}

struct order {
    int signal_number;
    pid_t except;
};

// Pinned first, then seen to be still in the group: what is signalled is a member, or dead.
static void signal_member(int dir_fd, pid_t pid, const struct order *order)
{
    if (pid <= 1 || pid == getpid() || pid == order->except)
        return;
#ifdef HAVE_PIDFD
    int pidfd = pmi_sys_pidfd_open(pid);
    if (pidfd < 0 && pmi_sys_is_no_process(errno))
        return;
#else
    int pidfd = -1;
#endif
    char *now = read_file(dir_fd, "cgroup.procs");
    if (lists(now, pid)) {
#ifdef HAVE_PIDFD
        if (pidfd < 0 || (pmi_sys_pidfd_send_signal(pidfd, order->signal_number, 0) != 0 &&
                          pmi_sys_is_refused(errno)))
#endif
            (void)pmi_sys_kill(pid, order->signal_number);
    }
    free(now);
    (void)pmi_sys_close(pidfd);
}

static void signal_group(int dir_fd, void *context)
{
    char *text = read_file(dir_fd, "cgroup.procs");
    for (const char *at = text; at != NULL && *at != '\0';) {
        signal_member(dir_fd, (pid_t)strtol(at, NULL, 10), context);
        at = strchr(at, '\n');
        at = at != NULL ? at + 1 : NULL;
    }
    free(text);
}

void pmi_cgroup_signal(struct pmi_cgroup *cgroup, int signal_number, pid_t except)
{
    struct order order = {.signal_number = signal_number, .except = except};
    if (cgroup->removed)
        return;
    if (signal_number == SIGKILL) {
        cgroup->killed = true;
        int fd = open_in(cgroup->fd, "cgroup.kill", O_WRONLY);
        bool done = fd >= 0 && pmi_sys_write(fd, "1", 1) == 1;
        (void)pmi_sys_close(fd);
        if (done)
            return;
        order.except = 0;
        for (int i = 0; i < KILL_ROUNDS && pmi_cgroup_is_populated(cgroup); i++)
            walk(cgroup->fd, 0, signal_group, &order);
        return;
    }
    walk(cgroup->fd, 0, signal_group, &order);
}

// ------------------------------------------------------------------------------------------------
// Remove
// ------------------------------------------------------------------------------------------------

// Of the groups that the process has made within its own. Not known by name here: by what is below.
static void remove_below(int dir_fd, void *context)
{
    (void)context;
    int copy = open_in(dir_fd, ".", O_RDONLY | O_DIRECTORY);
    DIR *dir = copy < 0 ? NULL : PMI_SYS(fdopendir)(copy);
    if (dir == NULL)
        (void)pmi_sys_close(copy);
    struct dirent *entry;
    while (dir != NULL && (entry = PMI_SYS(readdir)(dir)) != NULL)
        if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
            (void)PMI_SYS(unlinkat)(dir_fd, entry->d_name, AT_REMOVEDIR);
    if (dir != NULL)
        (void)closedir(dir);
}

void pmi_cgroup_try_remove(struct pmi_cgroup *cgroup)
{
    if (cgroup->removed || pmi_cgroup_is_populated(cgroup))
        return;
    int r = PMI_SYS(unlinkat)(cgroup->parent_fd, cgroup->name, AT_REMOVEDIR);
    if (r < 0 && errno == EBUSY && cgroup->fd >= 0) {
        walk(cgroup->fd, 0, remove_below, NULL);
        r = PMI_SYS(unlinkat)(cgroup->parent_fd, cgroup->name, AT_REMOVEDIR);
    }
    cgroup->removed = r == 0 || errno == ENOENT;
}

static struct pmi_mutex later_lock = PMI_MUTEX_INIT;
static struct pmi_cgroup *later;

void pmi_cgroup_forget_parent(void)
{
    pmi_mutex_init(&later_lock);
    later = NULL;
}

static void destroy(struct pmi_cgroup *cgroup)
{
    (void)pmi_sys_close(cgroup->fd);
    (void)pmi_sys_close(cgroup->parent_fd);
    free(cgroup);
}

void pmi_cgroup_forget(struct pmi_cgroup *cgroup)
{
    if (cgroup != NULL)
        destroy(cgroup);
}

void pmi_cgroup_close(struct pmi_cgroup *cgroup)
{
    if (cgroup == NULL)
        return;
    pmi_cgroup_try_remove(cgroup);
    if (cgroup->removed) {
        destroy(cgroup);
        return;
    }
    pmi_mutex_lock(&later_lock);
    cgroup->next = later;
    later = cgroup;
    pmi_mutex_unlock(&later_lock);
}

bool pmi_cgroup_sweep(void)
{
    bool dying = false;
    pmi_mutex_lock(&later_lock);
    for (struct pmi_cgroup **at = &later; *at != NULL;) {
        struct pmi_cgroup *cgroup = *at;
        pmi_cgroup_try_remove(cgroup);
        if (cgroup->removed) {
            *at = cgroup->next;
            destroy(cgroup);
        } else {
            dying |= cgroup->killed;
            at = &cgroup->next;
        }
    }
    pmi_mutex_unlock(&later_lock);
    return dying;
}

#else

int pmi_cgroup_make(const char *path, struct pmi_cgroup **ret_cgroup, int *ret_procs_fd,
                    struct pm_error *err)
{
    (void)path;
    (void)ret_cgroup;
    (void)ret_procs_fd;
    (void)pmi_fail_code(err, PM_STAGE_GROUP, PM_ERR_UNSUPPORTED);
    pmi_fail_field(err, "cgroup");
    return err->code;
}

int pmi_cgroup_fd(const struct pmi_cgroup *cgroup)
{
    (void)cgroup;
    return -1;
}

const char *pmi_cgroup_name(const struct pmi_cgroup *cgroup)
{
    (void)cgroup;
    return "";
}

struct pmi_cgroup *pmi_cgroup_adopt(int fd, const char *name)
{
    (void)pmi_sys_close(fd);
    (void)name;
    return NULL;
}

void pmi_cgroup_signal(struct pmi_cgroup *cgroup, int signal_number, pid_t except)
{
    (void)cgroup;
    (void)signal_number;
    (void)except;
}

bool pmi_cgroup_is_populated(const struct pmi_cgroup *cgroup)
{
    (void)cgroup;
    return false;
}

void pmi_cgroup_try_remove(struct pmi_cgroup *cgroup)
{
    (void)cgroup;
}

void pmi_cgroup_forget(struct pmi_cgroup *cgroup)
{
    (void)cgroup;
}

void pmi_cgroup_close(struct pmi_cgroup *cgroup)
{
    (void)cgroup;
}

bool pmi_cgroup_sweep(void)
{
    return false;
}

void pmi_cgroup_forget_parent(void)
{
}

#endif
