#include "identity.h"

#include "backend.h"
#include "error.h"
#include "guards.h"
#include "proctable.h"
#include "sys.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/vfs.h>
#endif

#define PIDFS_MAGIC 0x50494446 // Linux 6.9, include/uapi/linux/magic.h

// ------------------------------------------------------------------------------------------------
// /proc/PID/stat
// ------------------------------------------------------------------------------------------------

int pmi_stat_parse(const char *text, struct pmi_stat *ret_stat)
{
    const char *at = PMI_WITHOUT("stat parser") ? strchr(text, ')') : strrchr(text, ')');
    if (at == NULL || at[1] != ' ' || at[2] == '\0')
        return PM_ERR_CORRUPT;
    struct pmi_stat s = {.state = at[2]};
    at += 3;
    // Fields 4 to 22 of proc(5).
    unsigned long long fields[23] = {0};
    for (int i = 4; i <= 22; i++) {
        char *end;
        if (*at != ' ')
            return PM_ERR_CORRUPT;
        fields[i] =
            strtoull(at + 1, &end, 10); // Negative ones (tpgid, nice) wrap and are not used.
        if (end == at + 1)
            return PM_ERR_CORRUPT;
        at = end;
    }
    s.ppid = (pid_t)fields[4];
    s.pgrp = (pid_t)fields[5];
    s.session = (pid_t)fields[6];
    s.flags = (unsigned)fields[9];
    s.num_threads = (long)fields[20];
    s.starttime = fields[22];
    *ret_stat = s;
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Boot and namespace: they never change while we live
// ------------------------------------------------------------------------------------------------

struct facts {
    char boot_id[40];
    uint64_t pidns; // 0 = there are none.
};

// Written by who is the first to say that he writes them, and known to the process that has. Until
// then everybody learns for himself, and so does a forked copy, which may be in another namespace.
// No lock: a copy may have been made while another thread had it.
static struct facts known_facts;
static _Atomic uint64_t facts_writer, facts_owner; // By pmi_self().

bool pmi_proc_is_foreign(void)
{
    char text[32], *end;
    ssize_t length = readlink("/proc/self", text, sizeof(text) - 1);
    if (length <= 0)
        return false;
    text[length] = '\0';
    long number = strtol(text, &end, 10);
    return end != text && number != (long)getpid();
}

static int learn_facts(struct facts *ret_facts)
{
    struct stat st;
    memset(ret_facts, 0, sizeof(*ret_facts));
    if (pmi_proc_is_foreign())
        return PM_ERR_IDENTITY;
    int e = pmi_boot_id(ret_facts->boot_id);
    if (e == 0 && stat("/proc/self/ns/pid", &st) == 0)
        ret_facts->pidns = (uint64_t)st.st_ino;
    else if (e == 0 && errno != ENOENT && errno != ENOTDIR)
        e = errno;
    return e == ENOENT || e == ENOTDIR ? PM_ERR_UNSUPPORTED
           : e != 0                    ? pmi_error_from_errno(e)
                                       : PM_OK;
}

// Not remembered when it fails: want of a descriptor is over a moment later.
static int know_facts(struct facts *ret_facts)
{
    uint64_t self = pmi_self(), before = atomic_load(&facts_writer);
    if (atomic_load(&facts_owner) == self) {
        *ret_facts = known_facts;
        return PM_OK;
    }
    int result = learn_facts(ret_facts);
    if (result == PM_OK && before != self &&
        atomic_compare_exchange_strong(&facts_writer, &before, self)) {
        known_facts = *ret_facts;
        atomic_store(&facts_owner, self);
    }
    return result;
}

int pmi_os_boot_id(char boot[40])
{
    struct facts facts;
    int result = know_facts(&facts);
    if (result == PM_OK)
        memcpy(boot, facts.boot_id, sizeof(facts.boot_id));
    return result;
}

// ------------------------------------------------------------------------------------------------
// Identity
// ------------------------------------------------------------------------------------------------

static uint64_t pidfs_inode(int pidfd)
{
#ifdef __linux__
    struct statfs fs;
    struct stat st;
    // Before pidfs all pidfds share one anonymous inode.
    if (pidfd >= 0 && fstatfs(pidfd, &fs) == 0 && fs.f_type == PIDFS_MAGIC &&
        fstat(pidfd, &st) == 0)
        return (uint64_t)st.st_ino;
#else
    (void)pidfd;
#endif
    return 0;
}

static bool pidfd_has_ended(int pidfd)
{
    struct pollfd in = {.fd = pidfd, .events = POLLIN};
    return pmi_sys_poll(&in, 1, 0) > 0;
}

// What a failed look at a process means for its proof. Want of a resource is over a moment later,
// and must not be taken for a doubt about the process.
static int unproven(int result)
{
    return result == PM_ERR_GONE || result == PM_ERR_NO_DESCRIPTORS || result == PM_ERR_NO_MEMORY
               ? result
               : PM_ERR_IDENTITY;
}

int pmi_identity_of(pid_t pid, int pidfd, struct pmi_identity *ret_id)
{
    struct pmi_identity id;
    struct pmi_stat stat;
    memset(&id, 0, sizeof(id));
    struct facts facts;
    int result = know_facts(&facts);
    if (result == PM_OK)
        result = pmi_stat_read(pid, &stat);
    if (result != PM_OK)
        return unproven(result);
    id.pid = (uint64_t)pid;
    id.start = stat.starttime;
    memcpy(id.boot, facts.boot_id, sizeof(facts.boot_id));
    id.pidns = facts.pidns;
    id.pidfs = pidfs_inode(pidfd);
    *ret_id = id;
    return PM_OK;
}

int pmi_os_self_identity(struct pmi_identity *ret_id)
{
    int pidfd = -1;
#ifdef HAVE_PIDFD
    pidfd = pmi_sys_pidfd_open(getpid());
#endif
    int result = pmi_identity_of(getpid(), pidfd, ret_id);
    (void)pmi_sys_close(pidfd);
    return result;
}

// /proc does not show the process: is it gone, or only hidden from us (hidepid=, no /proc)?
static int check_hidden(pid_t pid, int pidfd)
{
    if (pidfd >= 0)
        return pidfd_has_ended(pidfd) ? PM_ERR_GONE : PM_ERR_IDENTITY;
    return pmi_sys_kill(pid, 0) < 0 && errno == ESRCH ? PM_ERR_GONE : PM_ERR_IDENTITY;
}

int pmi_os_identity_check(const struct pmi_identity *id)
{
    struct facts facts;
    int result = know_facts(&facts);
    if (result != PM_OK)
        return unproven(result);
    if (strcmp(facts.boot_id, id->boot) != 0)
        return PM_ERR_GONE;
    if (id->pidns != facts.pidns)
        return PM_ERR_IDENTITY; // The number means another process here.
    pid_t pid = (pid_t)id->pid;
    if (pid <= 0 || (uint64_t)pid != id->pid)
        return PM_ERR_IDENTITY;
    int pidfd = -1;
#ifdef HAVE_PIDFD
    pidfd = pmi_sys_pidfd_open(pid);
    if (pidfd < 0 && errno == ESRCH)
        return PM_ERR_GONE;
#endif
    // The kernel object first, the proof after: what is proven stays proven.
    struct pmi_stat stat;
    result = pmi_stat_read(pid, &stat);
    if (result == PM_ERR_GONE)
        result = check_hidden(pid, pidfd);
    uint64_t pidfs = pidfs_inode(pidfd);
    bool ended = pidfd >= 0 && pidfd_has_ended(pidfd);
    (void)pmi_sys_close(pidfd);
    if (result != PM_OK)
        return unproven(result);
    bool same = stat.starttime == id->start && (id->pidfs == 0 || pidfs == 0 || pidfs == id->pidfs);
    // Without a pidfd the letter has to do: dead is Z or X without another living thread.
    bool dead =
        pidfd >= 0 ? ended : (stat.state == 'Z' || stat.state == 'X') && stat.num_threads <= 1;
    return same && !dead ? PM_OK : PM_ERR_GONE;
}
