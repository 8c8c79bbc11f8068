#include "reap.h"

#include "backend.h"
#include "reactor.h"
#include "sys.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

// How long one that was killed may take to die before a thread of its own waits for it.
#define COLLECT_MS 200
#define LEFT_FIRST 64

// ------------------------------------------------------------------------------------------------
// Look and take
// ------------------------------------------------------------------------------------------------

int pmi_child_look(pid_t pid)
{
    siginfo_t info;
    memset(&info, 0, sizeof(info));
    if (pmi_sys_waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
        return -1;
    return info.si_pid == pid;
}

bool pmi_child_is_ours(pid_t pid, int pidfd)
{
#ifdef HAVE_PIDFD
    siginfo_t info;
    memset(&info, 0, sizeof(info));
    if (pidfd >= 0) {
        if (pmi_sys_waitid((idtype_t)PMI_SYS_P_PIDFD, (id_t)pidfd, &info,
                           WEXITED | WNOHANG | WNOWAIT) == 0)
            return true;
        if (errno == ECHILD)
            return false;
    }
#else
    (void)pidfd;
#endif
    return pmi_child_look(pid) >= 0;
}

bool pmi_child_has_ended(pid_t pid, int pidfd)
{
    struct pollfd in = {.fd = pidfd, .events = POLLIN};
    return pidfd >= 0 ? pmi_sys_poll(&in, 1, 0) > 0 : pmi_child_look(pid) != 0;
}

#ifdef PMI_SYS_HAVE_WAITID_USAGE

static int take(int type, int id, siginfo_t *info, struct pm_exit *usage)
{
    struct pmi_sys_usage ru = {0};
    int r = pmi_sys_waitid_usage(type, id, info, WEXITED | WNOHANG, &ru);
    if (usage != NULL) {
        usage->usage_known = r == 0;
        usage->user_us = (uint64_t)ru.user_s * 1000000 + (uint64_t)ru.user_us;
        usage->system_us = (uint64_t)ru.system_s * 1000000 + (uint64_t)ru.system_us;
        usage->max_rss_kib = (uint64_t)ru.max_rss;
    }
    return r;
}

#else

static int take(int type, int id, siginfo_t *info, struct pm_exit *usage)
{
    if (usage != NULL)
        usage->usage_known = false;
    return pmi_sys_waitid((idtype_t)type, (id_t)id, info, WEXITED | WNOHANG);
}

#endif

int pmi_child_take(pid_t pid, int pidfd, siginfo_t *info, struct pm_exit *usage)
{
    int r = -1;
    memset(info, 0, sizeof(*info));
    errno = EINVAL;
#ifdef HAVE_PIDFD
    if (pidfd >= 0)
        r = take(PMI_SYS_P_PIDFD, pidfd, info, usage);
#else
    (void)pidfd;
#endif
    if (r < 0 && errno != ECHILD) // No pidfd, Linux before 5.4, or a seccomp filter.
        r = take(P_PID, pid, info, usage);
    return r;
}

// ------------------------------------------------------------------------------------------------
// Those that do not come
// ------------------------------------------------------------------------------------------------

static void *reap_it(void *arg)
{
    siginfo_t info;
    (void)pmi_sys_waitid(P_PID, (id_t)(uintptr_t)arg, &info, WEXITED);
    return NULL;
}

// Children that no thread could be started for. Looked at by each later start. There is room for
// the first ones without asking for memory.
static struct pmi_mutex left_lock = PMI_MUTEX_INIT;
static pid_t left_first[LEFT_FIRST];
static pid_t *left = left_first;
static size_t left_room = LEFT_FIRST;
static atomic_size_t left_count;

// With the lock. false: there is no memory, either.
static bool make_room(void)
{
    pid_t *more = malloc(2 * left_room * sizeof(*more));
    if (more == NULL)
        return false;
    memcpy(more, left, left_room * sizeof(*more));
    if (left != left_first)
        free(left);
    left = more;
    left_room *= 2;
    return true;
}

void pmi_reap_left(void)
{
    if (atomic_load(&left_count) == 0)
        return;
    pmi_mutex_lock(&left_lock);
    size_t kept = 0;
    for (size_t i = 0; i < atomic_load(&left_count); i++) {
        siginfo_t info;
        if (pmi_child_take(left[i], -1, &info, NULL) == 0 && info.si_pid == 0)
            left[kept++] = left[i];
    }
    atomic_store(&left_count, kept);
    pmi_mutex_unlock(&left_lock);
}

void pmi_reap_forget_parent(void)
{
    pmi_mutex_init(&left_lock);
    atomic_store(&left_count, 0);
}

static void remember(pid_t pid)
{
    pmi_mutex_lock(&left_lock);
    size_t count = atomic_load(&left_count);
    if (count < left_room || make_room()) {
        left[count] = pid;
        atomic_store(&left_count, count + 1);
    }
    pmi_mutex_unlock(&left_lock);
}

static void reap_later(pid_t pid)
{
    pthread_t thread;
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    // NOLINTNEXTLINE(performance-no-int-to-ptr): never an address.
    if (pthread_create(&thread, NULL, reap_it, (void *)(uintptr_t)pid) == 0)
        (void)pthread_detach(thread);
    else
        remember(pid);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

int pmi_child_collect(pid_t pid, int pidfd, int64_t deadline)
{
    struct pollfd in = {.fd = pidfd, .events = POLLIN};
    siginfo_t info;
    if (pidfd >= 0)
        (void)pmi_sys_poll(&in, 1, pmi_poll_timeout(deadline));
    for (;;) {
        if (pmi_child_take(pid, pidfd, &info, NULL) < 0)
            return -1; // The host ignores SIGCHLD, or somebody was faster.
        if (info.si_pid != 0)
            return info.si_code == CLD_EXITED ? info.si_status : -1;
        if (pmi_now_ms() >= deadline) {
            reap_later(pid);
            return -1;
        }
        pmi_sleep_ms(1);
    }
}

void pmi_child_kill(pid_t pid, int pidfd)
{
#ifdef HAVE_PIDFD
    if (pidfd >= 0 &&
        (pmi_sys_pidfd_send_signal(pidfd, SIGKILL, 0) == 0 || !pmi_sys_is_refused(errno)))
        return;
#else
    (void)pidfd;
#endif
    (void)pmi_sys_kill(pid, SIGKILL); // The number is still its own.
}

int pmi_child_end(pid_t pid, int pidfd)
{
    if (!pmi_child_has_ended(pid, pidfd))
        pmi_child_kill(pid, pidfd);
    return pmi_child_collect(pid, pidfd, pmi_now_ms() + COLLECT_MS);
}
