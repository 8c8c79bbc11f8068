#include "low_fds.h"

#include "backend.h"
#include "guards.h"
#include "kernel.h"
#include "sys.h"

#include <string.h>
#include <sys/stat.h>

// Above what a launcher and its stub are given by number, below the first 64: every table has room
// for that many.
#define LOWEST 16
#define HIGHEST 64

#if defined(HAVE_CLOSE_RANGE) && defined(HAVE_CLONE_PIDFD)

// Kernels before 6.11 (and before the stable releases of August 2024) may hand the child a table
// that takes some free numbers for used ones: CVE-2024-45025. A slower start is the better choice.
static bool kernel_is_sound(void)
{
    return pmi_kernel_is_at_least(6, 11);
}

// Whether the number still holds the file of the idle ones. The host may have closed it, with all
// that it did not know, and have opened a file of its own there.
static bool is_idle(const struct pmi_low_fds *low, int fd)
{
    struct stat st;
    return PMI_WITHOUT("slot check") ||
           (PMI_SYS(fstat)(fd, &st) == 0 && st.st_dev == low->idle.device &&
            st.st_ino == low->idle.inode);
}

// The same for a lent one. Not by fstat: that may fail on a file of a network file system.
static bool is_lent(const struct pmi_low_fds *low, const struct pmi_low_slot *taken)
{
    const int dupfd_query = 1027; // F_DUPFD_QUERY, Linux 6.10; older headers lack it.
    int fd = low->fds[taken->slot];
    return taken->source < 0
               ? is_idle(low, fd)
               : PMI_SYS(fcntl)(fd, dupfd_query, taken->source) == 1 || PMI_WITHOUT("slot check");
}

// A file that nobody else in the process has: a pipe without a writer.
static int open_idle_file(struct pmi_file_id *ret_id)
{
    int fds[2];
    struct stat st;
    if (!kernel_is_sound() || pmi_sys_pipe(fds) < 0)
        return -1;
    (void)pmi_sys_close(fds[1]);
    int fd = pmi_sys_lift(fds[0], LOWEST);
    if (fd >= 0 && PMI_SYS(fstat)(fd, &st) < 0)
        return pmi_sys_close(fd);
    *ret_id = (struct pmi_file_id){.device = st.st_dev, .inode = st.st_ino};
    return fd;
}

// fds[0] is never lent: its file goes back to the others when they return.
void pmi_low_fds_open(struct pmi_low_fds *low)
{
    *low = (struct pmi_low_fds){.count = 0};
    pmi_mutex_init(&low->lock);
    int fd = open_idle_file(&low->idle);
    while (fd >= 0 && fd < HIGHEST) {
        low->fds[low->count++] = fd;
        fd = low->count < PMI_LOW_FDS ? pmi_sys_dup_above(low->fds[0], LOWEST) : -1;
    }
    (void)pmi_sys_close(fd);
}

void pmi_low_fds_close(struct pmi_low_fds *low)
{
    for (size_t i = 0; i < low->count; i++)
        if (is_idle(low, low->fds[i]))
            (void)pmi_sys_close(low->fds[i]);
    low->count = 0;
    pmi_mutex_destroy(&low->lock);
}

// Index of a number that is ours and not lent; 0 = none. A lost one stays lent for ever.
static size_t take_slot(struct pmi_low_fds *low)
{
    size_t slot = 0;
    pmi_mutex_lock(&low->lock);
    for (size_t i = 1; i < low->count && slot == 0 && !low->refused; i++) {
        if (!low->lent[i]) {
            low->lent[i] = true;
            slot = is_idle(low, low->fds[i]) ? i : 0;
        }
    }
    pmi_mutex_unlock(&low->lock);
    return slot;
}

// Puts `fd` on a low number, which is returned; -1 = cannot be done.
static int lend_one(struct pmi_low_fds *low, struct pmi_low_loan *loan, int fd)
{
    struct pmi_low_slot taken = {.slot = take_slot(low), .source = -1};
    if (taken.slot == 0)
        return -1;
    int number = PMI_SYS(dup3)(fd, low->fds[taken.slot], O_CLOEXEC);
    if (number >= 0)
        taken.source = fd;
    loan->slots[loan->slots_count++] = taken;
    return number;
}

static bool lend_all(struct pmi_low_fds *low, struct pmi_child_plan *plan,
                     struct pmi_low_loan *loan)
{
    for (size_t i = 0; i < plan->fds_count; i++) {
        struct pmi_child_fd fd = plan->fds[i];
        // A low number must not be a target, and what stays in its place has to be low already.
        if (fd.target >= LOWEST)
            return false;
        int source = fd.source == fd.target ? fd.source : -1;
        for (size_t k = 0; k < i && source < 0; k++)
            if (plan->fds[k].source == fd.source)
                source = loan->fds[k].source; // The same file a second time.
        if (source < 0)
            source = lend_one(low, loan, fd.source);
        if (source < 0)
            return false;
        loan->fds[i] = (struct pmi_child_fd){.source = source, .target = fd.target};
    }
    if (plan->keeper_fd >= 0) {
        int keeper_fd = lend_one(low, loan, plan->keeper_fd);
        if (keeper_fd < 0)
            return false;
        plan->keeper_fd = keeper_fd;
    }
    return true;
}

// Whether a path leads, or may lead, through a number of the table itself. A link to such a path is
// not looked for.
static bool names_descriptor(const char *path)
{
    return strncmp(path, "/proc/", 6) == 0 || strncmp(path, "/dev/fd/", 8) == 0 ||
           strstr(path, "/../") != NULL || strstr(path, "/./") != NULL ||
           strstr(path, "//") != NULL;
}

// Whether the child finds in the low end all that its plan asks for.
static bool is_low(const struct pmi_child_plan *plan)
{
    bool program =
        plan->program_fd >= 0 ? plan->program_fd < HIGHEST : !names_descriptor(plan->program);
    return program && plan->fds_count <= PMI_LOW_FDS && plan->report_fd < 0 &&
           (plan->cwd == NULL || !names_descriptor(plan->cwd));
}

bool pmi_low_fds_lend(struct pmi_low_fds *low, struct pmi_child_plan *plan,
                      struct pmi_low_loan *loan)
{
    if (low == NULL || low->count < 2 || !is_low(plan))
        return false;
    loan->slots_count = 0;
    loan->old_fds = plan->fds;
    loan->old_keeper_fd = plan->keeper_fd;
    if (!lend_all(low, plan, loan)) {
        pmi_low_fds_take_back(low, plan, loan, false);
        return false;
    }
    plan->fds = loan->fds;
    plan->keep_below = HIGHEST;
    return true;
}

void pmi_low_fds_take_back(struct pmi_low_fds *low, struct pmi_child_plan *plan,
                           struct pmi_low_loan *loan, bool refused)
{
    // A copy of a pipe's end that stayed here would hold back its end of file.
    bool can_return = is_idle(low, low->fds[0]);
    for (size_t i = 0; i < loan->slots_count; i++) {
        struct pmi_low_slot *taken = &loan->slots[i];
        int fd = low->fds[taken->slot];
        if (!is_lent(low, taken))
            taken->slot = 0; // Not ours any more.
        else if (!can_return || PMI_SYS(dup3)(low->fds[0], fd, O_CLOEXEC) < 0)
            (void)pmi_sys_close(fd);
    }
    pmi_mutex_lock(&low->lock);
    for (size_t i = 0; i < loan->slots_count; i++)
        if (loan->slots[i].slot != 0)
            low->lent[loan->slots[i].slot] = false;
    low->refused |= refused;
    pmi_mutex_unlock(&low->lock);
    plan->fds = loan->old_fds;
    plan->keeper_fd = loan->old_keeper_fd;
    plan->keep_below = 0;
}

#else

void pmi_low_fds_open(struct pmi_low_fds *low)
{
    *low = (struct pmi_low_fds){.count = 0};
}

void pmi_low_fds_close(struct pmi_low_fds *low)
{
    (void)low;
}

bool pmi_low_fds_lend(struct pmi_low_fds *low, struct pmi_child_plan *plan,
                      struct pmi_low_loan *loan)
{
    (void)low;
    (void)plan;
    (void)loan;
    return false;
}

void pmi_low_fds_take_back(struct pmi_low_fds *low, struct pmi_child_plan *plan,
                           struct pmi_low_loan *loan, bool refused)
{
    (void)low;
    (void)plan;
    (void)loan;
    (void)refused;
}

#endif
