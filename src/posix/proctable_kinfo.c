// The process table as macOS and FreeBSD show it: sysctl() with KERN_PROC. Compiled, not run.
#include "proctable.h"

#ifdef HAVE_KINFO_PROC

#include "error.h"
#include "identity.h"
#include "sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h>
#include <sys/proc.h>
#include <sys/sysctl.h>
#include <sys/time.h>
#include <time.h>

#ifdef HAVE_KINFO_PROC_KI // FreeBSD has all in one structure.
#include <sys/user.h>
#define LIST_OF_ALL KERN_PROC_PROC // Without it one entry per thread.
#else
#define LIST_OF_ALL KERN_PROC_ALL
#endif

static pid_t pid_of(const struct kinfo_proc *info)
{
#ifdef HAVE_KINFO_PROC_KI
    return info->ki_pid;
#else
    return info->kp_proc.p_pid;
#endif
}

// Microseconds since 1970 at its start: kept from then on, so that setting the clock does not move
// it.
static unsigned long long in_us(const struct timeval *time)
{
    return (unsigned long long)time->tv_sec * 1000000 + (unsigned long long)time->tv_usec;
}

// The letters that Linux has for them, as far as anybody asks.
static char letter_of(int state)
{
    return state == SZOMB ? 'Z' : state == SSTOP ? 'T' : 'S';
}

// As Linux tells that there was a fork and no exec since (pmi_exec_reached).
static unsigned flags_of(long flags)
{
    return (flags & P_EXEC) == 0 ? 0x40 : 0;
}

static void translate(const struct kinfo_proc *info, struct pmi_stat *ret_stat)
{
#ifdef HAVE_KINFO_PROC_KI
    *ret_stat = (struct pmi_stat){
        .state = letter_of(info->ki_stat),
        .ppid = info->ki_ppid,
        .pgrp = info->ki_pgid,
        .session = info->ki_sid,
        .flags = flags_of(info->ki_flag),
        .num_threads = info->ki_numthreads,
        .starttime = in_us(&info->ki_start),
    };
#else
    // The session is told as an address of the kernel only. Here Z means dead in every case.
    pid_t session = getsid(info->kp_proc.p_pid);
    *ret_stat = (struct pmi_stat){
        .state = letter_of(info->kp_proc.p_stat),
        .ppid = info->kp_eproc.e_ppid,
        .pgrp = info->kp_eproc.e_pgid,
        .session = session > 0 ? session : 0,
        .flags = flags_of(info->kp_proc.p_flag),
        .num_threads = 1,
        .starttime = in_us(&info->kp_proc.p_starttime),
    };
#endif
    if (ret_stat->state == 'Z')
        ret_stat->num_threads = 1;
}

// 0 or errno; ESRCH: there is none.
static int look_up(pid_t pid, struct kinfo_proc *ret_info)
{
    int name[4] = {CTL_KERN, KERN_PROC, KERN_PROC_PID, pid};
    size_t size = sizeof(*ret_info);
    memset(ret_info, 0, sizeof(*ret_info));
    if (PMI_SYS(sysctl)(name, 4, ret_info, &size, NULL, 0) < 0)
        return errno;
    return size >= sizeof(*ret_info) && pid_of(ret_info) == pid ? 0 : ESRCH;
}

int pmi_stat_read(pid_t pid, struct pmi_stat *ret_stat)
{
    struct kinfo_proc info;
    int e = look_up(pid, &info);
    if (e != 0)
        return e == ESRCH ? PM_ERR_GONE : pmi_error_from_errno(e);
    translate(&info, ret_stat);
    return PM_OK;
}

void pmi_process_name(pid_t pid, char *name, size_t capacity)
{
    struct kinfo_proc info;
    name[0] = '\0';
    if (look_up(pid, &info) == 0)
#ifdef HAVE_KINFO_PROC_KI
        (void)snprintf(name, capacity, "%s", info.ki_comm);
#else
        (void)snprintf(name, capacity, "%s", info.kp_proc.p_comm);
#endif
}

// macOS has a UUID of the boot, FreeBSD (since 13) a random number. Not the time of the boot: that
// is moved when the clock is set.
int pmi_boot_id(char boot_id[40])
{
    char text[64];
    size_t size = sizeof(text) - 1;
    memset(text, 0, sizeof(text));
    if (PMI_SYS(sysctlbyname)("kern.bootsessionuuid", text, &size, NULL, 0) == 0) {
        (void)snprintf(boot_id, 40, "%.36s", text);
        return 0;
    }
    size = 16;
    if (PMI_SYS(sysctlbyname)("kern.boot_id", text, &size, NULL, 0) < 0)
        return errno;
    for (size_t i = 0; i < size && i < 16; i++)
        (void)snprintf(boot_id + 2 * i, 3, "%02x", (unsigned char)text[i]);
    return size > 0 ? 0 : ENOENT;
}

// The table may grow between the two questions: with room for some more, and then again.
static int read_table(int which, pid_t of, struct kinfo_proc **ret_table, size_t *ret_count)
{
    int name[4] = {CTL_KERN, KERN_PROC, which, of};
    const unsigned parts = of != 0 ? 4 : 3;
    for (int i = 0; i < 10; i++) {
        size_t size = 0;
        if (PMI_SYS(sysctl)(name, parts, NULL, &size, NULL, 0) < 0)
            return errno;
        size += size / 8 + 16 * sizeof(struct kinfo_proc);
        struct kinfo_proc *table = malloc(size);
        if (table == NULL)
            return ENOMEM;
        if (PMI_SYS(sysctl)(name, parts, table, &size, NULL, 0) == 0) {
            *ret_table = table;
            *ret_count = size / sizeof(*table);
            return 0;
        }
        int e = errno;
        free(table);
        if (e != ENOMEM)
            return e;
    }
    return ENOMEM;
}

static int visit_table(int which, pid_t of, bool (*visit)(void *context, pid_t pid), void *context,
                       size_t *ret_count)
{
    struct kinfo_proc *table = NULL;
    *ret_count = 0;
    int e = read_table(which, of, &table, ret_count);
    for (size_t i = 0; e == 0 && i < *ret_count; i++)
        if (pid_of(&table[i]) > 0 && !visit(context, pid_of(&table[i])))
            break;
    free(table);
    return e;
}

int pmi_pids_visit(bool (*visit)(void *context, pid_t pid), void *context)
{
    size_t count;
    int e = visit_table(LIST_OF_ALL, 0, visit, context, &count);
    return e != 0 ? e : count == 0 ? ENOENT : 0;
}

// ESRCH: FreeBSD's word for no such group.
int pmi_group_pids_visit(pid_t group, bool (*visit)(void *context, pid_t pid), void *context)
{
    size_t count;
    int e = visit_table(KERN_PROC_PGRP, group, visit, context, &count);
    return e == ESRCH ? 0 : e;
}

// Not told, and on FreeBSD drawn by lot if so wished (kern.randompid).
long pmi_last_number(void)
{
    return -1;
}

long pmi_end_of_numbers(void)
{
    return -1;
}

bool pmi_is_thread(pid_t number)
{
    (void)number;
    return false;
}

int64_t pmi_age_of(uint64_t start)
{
    struct timespec now = {0};
    if (clock_gettime(CLOCK_REALTIME, &now) != 0)
        return -1;
    int64_t age = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 - (int64_t)(start / 1000);
    return age > 0 ? age : 0;
}

#endif
