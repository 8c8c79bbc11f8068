// The keeper: one process per manager that ends the trees of die_with_parent starts when the
// manager's process is gone, however that happened.
//
//   manager                       child (before exec)            keeper
//   ------------------------------------------------------------------------------------------
//   socketpair A-B
//   'A', B and, with its name, the
//   control group (SCM_RIGHTS) --------------------------------> polls B
//   clone ----------------------> own group, or session
//                                 {kind, pid} on A ------------> pidfd_open of the sender's pid
//                                 waits                          is A still open? notes it
//                                 reads the answer <------------ 'K' on B; 'N': no descriptor left
//                                 exec
//   closes A, and only then may wait for the child
//
// So no program runs that the keeper does not know, and the pid that it opens cannot have become
// somebody else's: as long as A is open nobody has waited for the child. If the keeper or the
// manager dies meanwhile, the child reads an end of file and gives up.
//
// What it ends of each: the process, and its group, its session, its control group (whose folder it
// then removes) and whoever carries its mark, as far as the start has these.
//
// The keeper acts on whatever comes first: the end of file of the control socket (which a stray
// fork of the host may hold open) or the end of the manager's process, seen through its pidfd.
// Without pidfds it looks at its parent once a second. 'B' is a good-bye: it leaves without a kill.
#include "keeper.h"

#include "child.h"
#include "daemon.h"
#include "error.h"
#include "family.h"
#include "group.h"
#include "identity.h"
#include "look.h"
#include "reactor.h"
#include "reap.h"
#include "start.h"
#include "sys.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#ifdef HAVE_PIDFD
#include <sys/epoll.h>
#endif
#include <sys/resource.h>
#include <sys/uio.h>

// An announcement: 'A' and the name of a control group. Where messages have no ends there are none
// of these.
#define MESSAGE_MOST (1 + PMI_CGROUP_NAME)
#define FDS_MOST 2
#ifdef SO_PASSCRED
#define SOCKET_TYPE SOCK_SEQPACKET
#define RECEIVED_MOST MESSAGE_MOST
#else
#define SOCKET_TYPE SOCK_STREAM
#define RECEIVED_MOST 1
#endif

#ifdef MSG_CMSG_CLOEXEC
#define RECEIVE_FLAGS MSG_CMSG_CLOEXEC
#else
#define RECEIVE_FLAGS 0
#endif

#ifdef MSG_NOSIGNAL
#define SEND_FLAGS (MSG_NOSIGNAL | MSG_DONTWAIT)
#else
#define SEND_FLAGS MSG_DONTWAIT
#endif

// How long the keeper has to leave after the good-bye before it is killed.
#define LEAVE_MS 2000
// How long its start may hold up pm_open().
#define BEGIN_MS 1000
// How long killed processes have to leave their control groups.
#define EMPTY_MS 5000
// An end is told at once, and the dead are forgotten a little later: there are often more.
#define PRUNE_MS 2000
// How often to look for those of a tree whose first process has ended: where nobody of them is left
// their numbers become those of strangers.
#define ORPHANS_MS 60000
// So many descriptors are never left to children: a message brings some, and whoever looks for
// processes, at the end above all, opens some.
#define SPARE_FDS 4

// Descriptors that the launcher entry expects.
enum {
    FD_SOCKET = 3,
    FD_PLAN = 4,
    FD_PARENT = 5,
    FD_FLOOR = 6
};

// ------------------------------------------------------------------------------------------------
// The manager's side. "Locked": om->keeper.lock is held. "Busy": the keeper is ours alone.
// ------------------------------------------------------------------------------------------------

void pmi_keeper_init(struct pmi_keeper *keeper)
{
    pmi_mutex_init(&keeper->lock);
    pmi_cond_init(&keeper->changed);
}

struct message {
    char bytes[MESSAGE_MOST];
    size_t size;
    int fds[FDS_MOST]; // To be sent along; -1 = none.
};

static struct message plain_message(char byte)
{
    return (struct message){.bytes = {byte}, .size = 1, .fds = {-1, -1}};
}

// 0 or errno.
static int send_it(int socket_fd, const struct message *in, int64_t deadline)
{
    // The cast undoes a const that sendmsg lacks. NOLINTNEXTLINE(performance-no-int-to-ptr)
    struct iovec data = {.iov_base = (void *)(uintptr_t)in->bytes, .iov_len = in->size};
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(FDS_MOST * sizeof(int))];
    } control;
    struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
    size_t count = in->fds[0] < 0 ? 0 : in->fds[1] < 0 ? 1 : 2;
    memset(&control, 0, sizeof(control));
    if (count > 0) {
        message.msg_control = control.space;
        message.msg_controllen = (socklen_t)CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = (socklen_t)CMSG_LEN(count * sizeof(int)); // Its type differs.
        memcpy(CMSG_DATA(header), in->fds, count * sizeof(int));
    }
    for (;;) {
        if (pmi_sys_sendmsg(socket_fd, &message, SEND_FLAGS) == (ssize_t)in->size)
            return 0;
        if (errno != EAGAIN && errno != EWOULDBLOCK && errno != ENOBUFS)
            return errno;
        if (pmi_now_ms() >= deadline)
            return ETIMEDOUT;
        if (errno == ENOBUFS) {
            pmi_sleep_ms(1); // Of the whole system: the socket itself may be writable.
            continue;
        }
        struct pollfd out = {.fd = socket_fd, .events = POLLOUT};
        (void)pmi_sys_poll(&out, 1, pmi_poll_timeout(deadline));
    }
}

// A socket pair whose second end tells the sender's pid and raises no SIGPIPE.
static int open_pair(int fds[2])
{
    if (pmi_sys_socketpair(SOCKET_TYPE, fds) < 0)
        return errno;
#ifdef SO_PASSCRED
    const int on = 1;
    if (PMI_SYS(setsockopt)(fds[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0) {
        int e = errno;
        (void)pmi_sys_close(fds[0]);
        (void)pmi_sys_close(fds[1]);
        return e;
    }
#elif defined(SO_NOSIGPIPE)
    const int on = 1;
    (void)PMI_SYS(setsockopt)(fds[0], SOL_SOCKET, SO_NOSIGPIPE, &on, sizeof(on));
#endif
    return 0;
}

struct start_fds {
    int control[2], plan, parent, null;
};

static int open_start_fds(struct pmi_os_manager *om, struct start_fds *fds)
{
    int e = open_pair(fds->control);
    if (e != 0)
        return e;
    fds->control[1] = pmi_sys_lift(fds->control[1], FD_FLOOR);
    if (fds->control[1] < 0)
        return errno;
    fds->null = pmi_sys_lift(pmi_sys_open("/dev/null", O_RDWR, 0), FD_FLOOR);
    if (fds->null < 0)
        return errno;
    e = pmi_posix_keeper_plan(om, &fds->plan);
    if (e != 0)
        return e;
    fds->plan = pmi_sys_lift(fds->plan, FD_FLOOR);
    if (fds->plan < 0)
        return errno;
#ifdef HAVE_PIDFD
    fds->parent = pmi_sys_lift(pmi_sys_pidfd_open(getpid()), FD_FLOOR);
    if (fds->parent < 0 && errno != ENOSYS && errno != EPERM)
        return errno;
#endif
    return 0;
}

static int launch_keeper(struct pmi_os_manager *om, const struct start_fds *fds, int64_t deadline,
                         struct pmi_os_process *op, struct pm_error *err)
{
    struct pmi_launcher_argv command;
    int result = pmi_posix_launcher_argv(om, &command, err);
    if (result != PM_OK) {
        err->stage = PM_STAGE_KEEPER;
        return result;
    }
    const struct pmi_child_fd all[6] = {{fds->null, 0},       {fds->null, 1},
                                        {fds->null, 2},       {fds->control[1], FD_SOCKET},
                                        {fds->plan, FD_PLAN}, {fds->parent, FD_PARENT}};
    const char *const *env;
    result = pmi_os_environ(&env);
    assert(result == PM_OK);
    struct pmi_child_plan plan = {
        .program = command.program,
        .argv = (char *const *)command.argv,
        .env = (char *const *)env,
        .new_session = true, // Out of reach of the terminal.
        .fds = all,
        .fds_count = fds->parent >= 0 ? 6 : 5,
        .report_fd = -1,
        .keeper_fd = -1,
        .program_fd = command.exe_fd,
        .cgroup_fd = -1,
    };
    struct pmi_started started;
    result = pmi_launch(NULL, &plan, deadline, op, &started, err);
    pmi_os_environ_free(env);
    if (result != PM_OK) {
        pmi_fail_hint(err, "the keeper could not be started from %s (at %s)", command.program,
                      pm_stage_name(err->stage));
        err->stage = PM_STAGE_KEEPER;
        pmi_fail_field(err, "die_with_parent");
    }
    return result;
}

static int start_busy(struct pmi_os_manager *om, int64_t deadline, struct pm_error *err)
{
    struct pmi_keeper *keeper = &om->keeper;
    struct pmi_os_process process = PMI_OS_PROCESS_INIT;
    struct start_fds fds = {.control = {-1, -1}, .plan = -1, .parent = -1, .null = -1};
    int e = open_start_fds(om, &fds);
    int result = PM_OK;
    if (e != 0) {
        pmi_fail(err, PM_STAGE_KEEPER, e);
        result = err->code;
    }
    if (result == PM_OK)
        result = launch_keeper(om, &fds, deadline, &process, err);
    if (result == PM_OK) {
        pmi_mutex_lock(&keeper->lock);
        keeper->process = process;
        keeper->socket_fd = fds.control[0];
        keeper->ended = false;
        fds.control[0] = -1;
        // Only to wait for it soon if it dies early: a failure here costs no more than that.
        (void)pmi_os_reactor_watch(om, &keeper->process, PMI_KEEPER_TOKEN(om));
        pmi_mutex_unlock(&keeper->lock);
    }
    (void)pmi_sys_close(fds.control[0]);
    (void)pmi_sys_close(fds.control[1]);
    (void)pmi_sys_close(fds.plan);
    (void)pmi_sys_close(fds.parent);
    (void)pmi_sys_close(fds.null);
    return result;
}

// Takes the status of a keeper that has ended, and forgets it then. True: there is none.
static bool collect_locked(struct pmi_os_manager *om)
{
    struct pmi_keeper *keeper = &om->keeper;
    struct pm_exit record = PM_EXIT_INIT;
    if (keeper->process.exit_fd < 0)
        return true;
    if (pmi_os_process_reap(&keeper->process, &record) == PM_ERR_TIMEOUT)
        return false;
    pmi_os_reactor_unwatch(om, &keeper->process);
    pmi_os_process_close(&keeper->process);
    keeper->socket_fd = pmi_sys_close(keeper->socket_fd);
    return true;
}

// Whoever is busy with it looks again: see leave().
void pmi_keeper_on_exit(struct pmi_os_manager *om)
{
    struct pmi_keeper *keeper = &om->keeper;
    pmi_mutex_lock(&keeper->lock);
    keeper->ended = keeper->busy;
    if (keeper->busy)
        pmi_os_reactor_unwatch(om, &keeper->process);
    else
        (void)collect_locked(om);
    pmi_mutex_unlock(&keeper->lock);
}

// PM_OK: it is ours until leave(). PM_ERR_TIMEOUT.
static int enter(struct pmi_keeper *keeper, int64_t deadline)
{
    int result = PM_OK;
    pmi_mutex_lock(&keeper->lock);
    while (keeper->busy && result == PM_OK) {
        if (pmi_now_ms() >= deadline)
            result = PM_ERR_TIMEOUT;
        else
            pmi_cond_wait(&keeper->changed, &keeper->lock, deadline);
    }
    if (result == PM_OK)
        keeper->busy = true;
    pmi_mutex_unlock(&keeper->lock);
    return result;
}

static void leave(struct pmi_os_manager *om)
{
    struct pmi_keeper *keeper = &om->keeper;
    pmi_mutex_lock(&keeper->lock);
    if (keeper->ended && !collect_locked(om)) // That was the end of one before it.
        (void)pmi_os_reactor_watch(om, &keeper->process, PMI_KEEPER_TOKEN(om));
    keeper->ended = false;
    keeper->busy = false;
    pmi_cond_broadcast(&keeper->changed);
    pmi_mutex_unlock(&keeper->lock);
}

static bool collect_busy(struct pmi_os_manager *om)
{
    pmi_mutex_lock(&om->keeper.lock);
    bool none = collect_locked(om);
    pmi_mutex_unlock(&om->keeper.lock);
    return none;
}

static struct message announcement(int theirs, const struct pmi_cgroup *cgroup)
{
    struct message message = plain_message('A');
    message.fds[0] = theirs;
    if (cgroup != NULL) {
        const char *name = pmi_cgroup_name(cgroup);
        size_t length = strlen(name);
        memcpy(message.bytes + 1, name, length);
        message.size += length;
        message.fds[1] = pmi_cgroup_fd(cgroup);
    }
    return message;
}

static bool explain(const struct pmi_os_manager *om, struct pm_error *err)
{
    if (err->stage != PM_STAGE_KEEPER || err->code != PM_ERR_BROKEN_PIPE)
        return false;
    err->code = PM_ERR_LAUNCHER;
    pmi_fail_hint(err, "the keeper, %s, has ended at once: is it a launcher of this library?",
                  om->launcher_path != NULL ? om->launcher_path : "this program");
    return true;
}

void pmi_keeper_explain(struct pmi_os_manager *om, struct pm_error *err)
{
    int64_t deadline = pmi_now_ms() + LEAVE_MS;
    if (!explain(om, err) || enter(&om->keeper, deadline) != PM_OK)
        return;
    // It is on its way out: who looks for the dead next is not to find it.
    if (!collect_busy(om) && pmi_os_process_wait(&om->keeper.process, deadline) == PM_OK)
        (void)collect_busy(om);
    leave(om);
}

// Sends our end of the announcement; a keeper that died meanwhile is replaced once.
static int enlist_busy(struct pmi_os_manager *om, const struct message *message, int64_t deadline,
                       struct pm_error *err)
{
    int e = EPIPE;
    for (int round = 0; round < 2 && e != 0; round++) {
        if (collect_busy(om)) {
            int result = start_busy(om, deadline, err);
            if (result != PM_OK)
                return result;
        }
        e = send_it(om->keeper.socket_fd, message, deadline);
        if (e != EPIPE && e != ECONNRESET)
            break;
        // It is on its way out: its end is near.
        (void)pmi_os_process_wait(&om->keeper.process, deadline);
    }
    if (e == 0)
        return PM_OK;
    (void)collect_busy(om);
    pmi_fail(err, PM_STAGE_KEEPER, e);
    pmi_fail_field(err, "die_with_parent");
    explain(om, err);
    return err->code;
}

void pmi_keeper_begin(struct pmi_os_manager *om)
{
    struct pm_error ignored = PM_ERROR_INIT;
    (void)enter(&om->keeper, PMI_NEVER); // Nobody else knows this manager yet.
    (void)start_busy(om, pmi_now_ms() + BEGIN_MS, &ignored);
    leave(om);
}

int pmi_keeper_enlist(struct pmi_os_manager *om, const struct pmi_cgroup *cgroup, int64_t deadline,
                      int floor, int *ret_fd, struct pm_error *err)
{
    int pair[2] = {-1, -1};
    int e = open_pair(pair);
    if (e == 0) {
        pair[0] = pmi_sys_lift(pair[0], floor);
        e = pair[0] < 0 ? errno : 0;
    }
    int result = PM_OK;
    if (e != 0) {
        pmi_fail(err, PM_STAGE_KEEPER, e);
        result = err->code;
    } else {
        struct message message = announcement(pair[1], cgroup);
        result = enter(&om->keeper, deadline);
        if (result == PM_OK) {
            result = enlist_busy(om, &message, deadline, err);
            leave(om);
        } else {
            (void)pmi_fail_code(err, PM_STAGE_KEEPER, result);
            pmi_fail_field(err, "die_with_parent");
        }
    }
    (void)pmi_sys_close(pair[1]);
    if (result != PM_OK) {
        (void)pmi_sys_close(pair[0]);
        return result;
    }
    *ret_fd = pair[0];
    return PM_OK;
}

void pmi_keeper_stop(struct pmi_os_manager *om)
{
    struct pmi_keeper *keeper = &om->keeper;
    (void)enter(keeper, PMI_NEVER); // Starts have deadlines.
    if (!collect_busy(om)) {
        int64_t deadline = pmi_now_ms() + LEAVE_MS;
        struct message good_bye = plain_message('B');
        (void)send_it(keeper->socket_fd, &good_bye, deadline);
        if (pmi_os_process_wait(&keeper->process, deadline) != PM_OK)
            // SIGKILL alone: it has no tree, and must not get the time to kill others.
            (void)pmi_os_process_signal(&keeper->process, SIGKILL, PM_SCOPE_PROCESS);
        (void)pmi_os_process_wait(&keeper->process, pmi_now_ms() + LEAVE_MS);
        for (int64_t last = pmi_now_ms() + LEAVE_MS; !collect_busy(om) && pmi_now_ms() < last;)
            pmi_sleep_ms(1);
    }
    leave(om);
    pmi_cond_destroy(&keeper->changed);
    pmi_mutex_destroy(&keeper->lock);
}

// ------------------------------------------------------------------------------------------------
// The keeper's own side: one thread, in a process of its own.
// ------------------------------------------------------------------------------------------------

struct ward {
    pid_t pid;
    int pidfd;
    uint64_t start;            // Without a pidfd: what proves the pid.
    bool group, session;       // Of its own.
    struct pmi_cgroup *cgroup; // Of its own, or NULL.
    uint64_t mark;             // Of its whole tree; 0 = none.
    pid_t in_session;          // Where a group of its own is.
    bool left;                 // Somebody of it, as prune() finds.
};

// Of the descriptors that are waited for.
enum {
    CONTROL,
    PARENT,
    ENDS, // An epoll of the pidfds, or -1.
    FIRST // Of the announcements under way.
};

struct wards {
    struct ward *list;
    size_t count, capacity;
    struct pollfd *fds;
    struct pmi_cgroup **cgroups; // Of the announcements.
    size_t fds_count, fds_capacity;
    int spare[SPARE_FDS]; // -1 = in use.
    int64_t prune_at;     // PMI_NEVER: nobody is dead.
};

static void prune_by(struct wards *wards, int64_t deadline)
{
    if (deadline < wards->prune_at)
        wards->prune_at = deadline;
}

static int open_ends(void)
{
#ifdef HAVE_PIDFD
    return PMI_SYS(epoll_create1)(EPOLL_CLOEXEC);
#else
    return -1;
#endif
}

static void wait_for_end(struct wards *wards, const struct ward *ward)
{
#ifdef HAVE_PIDFD
    struct epoll_event once = {.events = EPOLLIN | EPOLLONESHOT};
    if (ward->pidfd >= 0 &&
        PMI_SYS(epoll_ctl)(wards->fds[ENDS].fd, EPOLL_CTL_ADD, ward->pidfd, &once) == 0)
        return;
#else
    (void)ward;
#endif
    prune_by(wards, pmi_now_ms() + ORPHANS_MS);
}

static void note_ends(struct wards *wards)
{
#ifdef HAVE_PIDFD
    struct epoll_event events[64];
    while (PMI_SYS(epoll_wait)(wards->fds[ENDS].fd, events, 64, 0) > 0)
        continue;
#endif
    prune_by(wards, pmi_now_ms() + PRUNE_MS);
}

static void lend_spares(struct wards *wards)
{
    for (size_t i = 0; i < SPARE_FDS; i++)
        wards->spare[i] = pmi_sys_close(wards->spare[i]);
}

// False: there are not so many.
static bool take_spares(struct wards *wards)
{
    bool all = true;
    for (size_t i = 0; i < SPARE_FDS; i++) {
        if (wards->spare[i] < 0)
            wards->spare[i] = pmi_sys_dup_above(0, FD_FLOOR);
        all &= wards->spare[i] >= 0;
    }
    return all;
}

// Takes nothing for granted: whoever signals looks for a member first.
static struct pmi_os_process as_process(const struct ward *ward)
{
    struct pmi_os_process op = PMI_OS_PROCESS_INIT;
    op.pid = ward->pid;
    op.pidfd = ward->pidfd;
    op.group = ward->group;
    op.start = ward->start;
    op.reaped = true;
    op.child = true;
    op.whole_session = ward->session && PMI_SEES_SESSIONS && !pmi_proc_is_foreign();
    op.session = ward->in_session;
    op.session_start = ward->start;
    return op;
}

static int signal_ward(const struct ward *ward, int signal_number)
{
#ifdef HAVE_PIDFD
    if (ward->pidfd >= 0) {
        int e = ward->group ? pmi_group_pidfd_signal(ward->pidfd, signal_number)
                : pmi_sys_pidfd_send_signal(ward->pidfd, signal_number, 0) == 0 ? 0
                                                                                : errno;
        // A group takes care of itself below.
        if (e == 0 || e == ESRCH || (!ward->group && !pmi_sys_is_refused(e)))
            return e;
    }
#endif
    struct pmi_stat stat;
    struct pmi_os_process op = as_process(ward);
    if (ward->group)
        return pmi_group_signal(&op, signal_number) == PM_OK ? 0 : ESRCH;
    if (pmi_stat_read(ward->pid, &stat) != PM_OK || (uint64_t)stat.starttime != ward->start)
        return ESRCH;
    return pmi_sys_kill(ward->pid, signal_number) == 0 ? 0 : errno;
}

static bool is_anybody_left(const struct ward *ward)
{
    struct pmi_os_process op = as_process(ward);
    return signal_ward(ward, 0) != ESRCH ||
           (ward->cgroup != NULL && pmi_cgroup_is_populated(ward->cgroup)) ||
           pmi_session_alive(&op);
}

static void note_marks(void *context, uint64_t soft, uint64_t hard)
{
    struct wards *wards = context;
    for (size_t i = 0; i < wards->count; i++) {
        struct ward *ward = &wards->list[i];
        ward->left |= ward->mark != 0 && (ward->mark == soft || ward->mark == hard);
    }
}

// A start may wait for us meanwhile: the process table is read once for all of them, and once more
// for the marks.
static void prune(struct wards *wards)
{
    bool ask = false;
    lend_spares(wards);
    pmi_os_round_begin();
    for (size_t i = 0; i < wards->count; i++) {
        struct ward *ward = &wards->list[i];
        ward->left = is_anybody_left(ward);
        ask |= !ward->left && ward->mark != 0;
    }
    pmi_os_round_end();
    bool told = !ask || pmi_family_visit_marks(note_marks, wards);
    size_t kept = 0;
    for (size_t i = 0; i < wards->count; i++) {
        const struct ward *ward = &wards->list[i];
        if (ward->left || (ward->mark != 0 && !told)) {
            wards->list[kept++] = *ward;
        } else {
            (void)pmi_sys_close(ward->pidfd);
            pmi_cgroup_close(ward->cgroup);
        }
    }
    wards->count = kept;
    wards->prune_at = PMI_NEVER;
    for (size_t i = 0; i < kept; i++)
        if (wards->list[i].pidfd < 0 || pmi_child_has_ended(0, wards->list[i].pidfd))
            prune_by(wards, pmi_now_ms() + ORPHANS_MS);
    (void)take_spares(wards);
}

// Whether there are descriptors enough to go on with, without those of the dead if need be.
static bool has_spares(struct wards *wards)
{
    if (!take_spares(wards))
        prune(wards);
    return take_spares(wards);
}

static bool add_ward(struct wards *wards, const struct ward *ward)
{
    if (wards->count == wards->capacity) {
        prune(wards);
        // At least half of it free after this: else every announcement would prune again.
        if (wards->count * 2 >= wards->capacity) {
            size_t capacity = wards->capacity > 0 ? wards->capacity * 2 : 32;
            struct ward *list = realloc(wards->list, capacity * sizeof(*list));
            if (list != NULL) {
                wards->list = list;
                wards->capacity = capacity;
            } else if (wards->count == wards->capacity) {
                return false;
            }
        }
    }
    wards->list[wards->count++] = *ward;
    return true;
}

// musl's macro compares lengths of different signedness.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare"
static struct cmsghdr *next_header(struct msghdr *message, struct cmsghdr *header)
{
    return CMSG_NXTHDR(message, header);
}
#pragma GCC diagnostic pop

// Receives one message: its size, the sender's pid if told, and descriptors that came with it.
static ssize_t receive(int fd, void *buffer, size_t size, pid_t *ret_pid, int ret_fds[FDS_MOST])
{
    struct iovec data = {.iov_base = buffer, .iov_len = size};
    union {
        struct cmsghdr align;
        char space[256];
    } control;
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control.space,
                             .msg_controllen = sizeof(control.space)};
    *ret_pid = 0;
    ret_fds[0] = ret_fds[1] = -1;
    ssize_t n = pmi_sys_recvmsg(fd, &message, RECEIVE_FLAGS | MSG_DONTWAIT);
    if (n < 0) {
        int e = errno;
        if (e != EAGAIN && e != EWOULDBLOCK)
            pmi_sleep_ms(1); // It stays there to be read: the loop is not to spin on it.
        errno = e;
        return n;
    }
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header != NULL;
         header = next_header(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET)
            continue;
        if (header->cmsg_type == SCM_RIGHTS) {
            size_t bytes = header->cmsg_len - CMSG_LEN(0);
            memcpy(ret_fds, CMSG_DATA(header),
                   bytes < FDS_MOST * sizeof(int) ? bytes : FDS_MOST * sizeof(int));
        }
#ifdef SO_PASSCRED
        if (header->cmsg_type == SCM_CREDENTIALS) {
            struct ucred credentials;
            memcpy(&credentials, CMSG_DATA(header), sizeof(credentials));
            *ret_pid = credentials.pid;
        }
#endif
    }
    return n;
}

// Whether the other end of an announcement has been closed by everybody.
static bool is_withdrawn(int fd)
{
    struct pollfd in = {.fd = fd, .events = POLLIN};
    return pmi_sys_poll(&in, 1, 0) > 0 && (in.revents & (POLLHUP | POLLERR)) != 0;
}

// A child is there and waits for our answer. True: the control group is its own now.
static bool welcome(struct wards *wards, int fd, struct pmi_cgroup *cgroup)
{
    struct pmi_child_hello hello;
    struct ward ward = {.pidfd = -1, .cgroup = cgroup};
    pid_t sender;
    int stray[FDS_MOST];
    struct pmi_stat stat;
    ssize_t n = receive(fd, &hello, sizeof(hello), &sender, stray);
    (void)pmi_sys_close(stray[0]);
    (void)pmi_sys_close(stray[1]);
    if (n != (ssize_t)sizeof(hello) && n != (ssize_t)PMI_CHILD_HELLO_SHORT)
        return false;
    ward.mark = n == (ssize_t)sizeof(hello) ? hello.mark : 0;
    ward.pid = sender > 0 ? sender : hello.pid;
    ward.session = hello.kind == 'S';
    ward.group = ward.session || hello.kind == 'G';
    if (ward.pid <= 1)
        return false;
#ifdef HAVE_PIDFD
    ward.pidfd = pmi_sys_pidfd_open(ward.pid);
    if (ward.pidfd < 0 && (errno == EMFILE || errno == ENFILE)) {
        prune(wards);
        ward.pidfd = pmi_sys_pidfd_open(ward.pid);
    }
    if (ward.pidfd < 0 && (errno == EMFILE || errno == ENFILE))
        (void)pmi_sys_write(fd, (const char[]){PMI_CHILD_NO_ROOM}, 1);
    if (ward.pidfd < 0 && errno != ENOSYS && errno != EPERM)
        return false; // Without an answer the child gives up.
#endif
    lend_spares(wards);
    if (pmi_stat_read(ward.pid, &stat) == PM_OK) {
        ward.start = (uint64_t)stat.starttime;
        ward.in_session = pmi_session_of(&stat);
    }
    (void)take_spares(wards);
    if (is_withdrawn(fd) || !add_ward(wards, &ward)) {
        (void)pmi_sys_close(ward.pidfd);
        return false;
    }
    wait_for_end(wards, &ward);
    (void)pmi_sys_write(fd, (const char[]){PMI_CHILD_KNOWN}, 1);
    return true;
}

static bool reserve_fds(struct wards *wards)
{
    if (wards->fds_count < wards->fds_capacity)
        return true;
    size_t capacity = wards->fds_capacity > 0 ? wards->fds_capacity * 2 : 16;
    struct pollfd *fds = realloc(wards->fds, capacity * sizeof(*fds));
    if (fds == NULL)
        return false;
    wards->fds = fds;
    // NOLINTNEXTLINE(bugprone-sizeof-expression): of a pointer, yes.
    struct pmi_cgroup **cgroups = realloc(wards->cgroups, capacity * sizeof(*cgroups));
    if (cgroups == NULL)
        return false;
    wards->cgroups = cgroups;
    wards->fds_capacity = capacity;
    return true;
}

// Where this fails the child gives up, for want of an answer.
static void expect_child(struct wards *wards, int fds[FDS_MOST], const char *name)
{
    struct pmi_cgroup *cgroup = NULL;
    bool good = fds[0] >= 0 && reserve_fds(wards);
    if (good && *name != '\0') {
        cgroup = fds[1] >= 0 ? pmi_cgroup_adopt(fds[1], name) : NULL;
        fds[1] = -1;
        good = cgroup != NULL;
    }
    (void)pmi_sys_close(fds[1]);
    if (!has_spares(wards)) {
        (void)pmi_sys_write(fds[0], (const char[]){PMI_CHILD_NO_ROOM}, 1);
        pmi_cgroup_forget(cgroup);
        good = false;
    }
    if (!good) {
        (void)pmi_sys_close(fds[0]);
        return;
    }
    wards->cgroups[wards->fds_count] = cgroup;
    wards->fds[wards->fds_count++] = (struct pollfd){.fd = fds[0], .events = POLLIN};
}

enum order {
    GO_ON,
    LEAVE,
    KILL
};

static enum order read_word(struct wards *wards)
{
    char bytes[MESSAGE_MOST + 1];
    int fds[FDS_MOST];
    pid_t sender;
    ssize_t n = receive(wards->fds[CONTROL].fd, bytes, RECEIVED_MOST, &sender, fds);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        return GO_ON;
    if (n < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS))
        return GO_ON; // That start fails, the others go on.
    if (n <= 0)
        return KILL;
    bytes[n] = '\0';
    if (bytes[0] == 'B')
        return LEAVE;
    if (bytes[0] == 'A') {
        expect_child(wards, fds, bytes + 1);
        return GO_ON;
    }
    (void)pmi_sys_close(fds[0]);
    (void)pmi_sys_close(fds[1]);
    return GO_ON;
}

static enum order read_control(struct wards *wards)
{
    lend_spares(wards);
    enum order order = read_word(wards);
    (void)take_spares(wards);
    return order;
}

// What the parent had announced when it went: nobody else removes those control groups.
static void read_rest(struct wards *wards)
{
    struct pollfd in = {.fd = wards->fds[CONTROL].fd, .events = POLLIN};
    int64_t deadline = pmi_now_ms() + EMPTY_MS; // A word that cannot be read stays.
    while (pmi_sys_poll(&in, 1, 0) > 0 && read_control(wards) == GO_ON && pmi_now_ms() < deadline)
        continue;
}

static enum order turn(struct wards *wards, pid_t parent)
{
    const int look_ms = 1000;
    int timeout = pmi_poll_timeout(wards->prune_at);
    if (wards->fds[PARENT].fd < 0 && (timeout < 0 || timeout > look_ms))
        timeout = look_ms;
    if (pmi_sys_poll(wards->fds, (nfds_t)wards->fds_count, timeout) < 0)
        return GO_ON; // EINTR, or no memory for a moment.
    // Nobody is welcomed any more once the parent is gone.
    if (wards->fds[PARENT].revents != 0 || (wards->fds[PARENT].fd < 0 && getppid() != parent))
        return KILL;
    size_t kept = FIRST;
    for (size_t i = FIRST; i < wards->fds_count; i++) {
        if (wards->fds[i].revents == 0) {
            wards->cgroups[kept] = wards->cgroups[i];
            wards->fds[kept++] = wards->fds[i];
            continue;
        }
        if (!welcome(wards, wards->fds[i].fd, wards->cgroups[i]))
            pmi_cgroup_forget(wards->cgroups[i]); // The manager's, which lives, to remove.
        (void)pmi_sys_close(wards->fds[i].fd);
    }
    wards->fds_count = kept;
    enum order order = wards->fds[CONTROL].revents != 0 ? read_control(wards) : GO_ON;
    if (wards->fds[ENDS].revents != 0)
        note_ends(wards);
    if (order == GO_ON && pmi_now_ms() >= wards->prune_at)
        prune(wards);
    return order;
}

static void settle_in(void)
{
    static const int ignored[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGTERM, SIGPIPE, SIGALRM,
                                  SIGUSR1, SIGUSR2, SIGTSTP, SIGTTIN, SIGTTOU};
    struct sigaction action;
    memset(&action, 0, sizeof(action));
    action.sa_handler = SIG_IGN;
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        (void)sigaction(ignored[i], &action, NULL);
    (void)setsid();
    if (chdir("/") != 0)
        return; // It then keeps a folder busy, no more.
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
}

// Those who are in no group of ours any more.
static void kill_escaped(const struct wards *wards)
{
    uint64_t *marks = malloc((wards->count + 1) * sizeof(*marks));
    size_t count = 0;
    for (size_t i = 0; i < wards->count; i++) {
        const uint64_t *mark = &wards->list[i].mark;
        if (*mark != 0 && marks != NULL)
            marks[count++] = *mark;
        else if (*mark != 0)
            pmi_family_kill_marked(mark, 1); // No memory: one by one.
    }
    if (count > 0)
        pmi_family_kill_marked(marks, count);
    free(marks);
}

// All of them first, so that none sees another's death and acts on it.
static void kill_wards(const struct wards *wards)
{
    for (size_t i = 0; i < wards->count; i++) {
        const struct ward *ward = &wards->list[i];
        if (ward->cgroup != NULL)
            pmi_cgroup_signal(ward->cgroup, SIGKILL, 0);
        (void)signal_ward(ward, SIGKILL);
    }
    pmi_os_round_begin();
    for (size_t i = 0; i < wards->count; i++) {
        struct pmi_os_process op = as_process(&wards->list[i]);
        (void)pmi_session_signal(&op, SIGKILL);
        (void)signal_ward(&wards->list[i], SIGCONT);
    }
    pmi_os_round_end();
    kill_escaped(wards);
}

// The folders of control groups, once the dead are out of them.
static void clear_up(const struct wards *wards)
{
    int64_t deadline = pmi_now_ms() + EMPTY_MS;
    for (size_t i = 0; i < wards->count; i++) {
        struct pmi_cgroup *cgroup = wards->list[i].cgroup;
        while (cgroup != NULL && pmi_cgroup_is_populated(cgroup) && pmi_now_ms() < deadline)
            pmi_sleep_ms(1);
        pmi_cgroup_close(cgroup);
    }
}

// Children that wait for our answer: they give up without it, and nobody else removes their groups.
static void end_announced(const struct wards *wards)
{
    for (size_t i = FIRST; i < wards->fds_count; i++) {
        struct ward ward = {.pidfd = -1, .cgroup = wards->cgroups[i]};
        (void)pmi_sys_close(wards->fds[i].fd);
        if (ward.cgroup != NULL) {
            pmi_cgroup_signal(ward.cgroup, SIGKILL, 0);
            clear_up(&(struct wards){.list = &ward, .count = 1});
        }
    }
}

int pmi_keeper_main(int socket_fd, int parent_pidfd)
{
    struct wards wards = {.spare = {-1, -1, -1, -1}, .prune_at = PMI_NEVER};
    pid_t parent = getppid();
    settle_in();
    if (!reserve_fds(&wards)) {
        free(wards.fds);
        return 1;
    }
    wards.fds[CONTROL] = (struct pollfd){.fd = socket_fd, .events = POLLIN};
    wards.fds[PARENT] = (struct pollfd){.fd = parent_pidfd, .events = POLLIN};
    wards.fds[ENDS] = (struct pollfd){.fd = open_ends(), .events = POLLIN};
    wards.fds_count = FIRST;
    (void)take_spares(&wards);

    enum order order;
    do
        order = turn(&wards, parent);
    while (order == GO_ON);
    if (order == KILL) {
        lend_spares(&wards);
        kill_wards(&wards);
        read_rest(&wards);
        lend_spares(&wards);
        end_announced(&wards);
        clear_up(&wards);
    }
    lend_spares(&wards);
    free(wards.list);
    free(wards.fds);
    free(wards.cgroups);
    return 0;
}
