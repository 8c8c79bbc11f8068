#include "family.h"

#include "error.h"
#include "group.h"
#include "guards.h"
#include "identity.h"
#include "proctable.h"
#include "reap.h"
#include "sys.h"
#include "zombies.h"

#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#ifdef HAVE_PRCTL
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

// Whose this process is: of the manager that was opened by this process, by pmi_self(). A forked
// copy is nobody's yet. No lock, which another thread might have had at that fork.
static _Atomic uint64_t owner;

bool pmi_family_take_process(struct pm_error *err)
{
    uint64_t before = atomic_load(&owner), self = pmi_self();
    if (before != self && atomic_compare_exchange_strong(&owner, &before, self))
        return true;
    (void)pmi_fail_code(err, PM_STAGE_CHECK, PM_ERR_BUSY);
    pmi_fail_field(err, "own_process");
    pmi_fail_hint(err, "another manager of this program has it");
    return false;
}

void pmi_family_release_process(void)
{
    atomic_store(&owner, 0);
}

#if defined(HAVE_CHILD_SUBREAPER) && defined(HAVE_PRLIMIT) && defined(SYS_prlimit64)

// Bounds of one delivery: who cannot be caught up with in this time forks faster than we look. A
// kill goes on with each later look at the tree.
#define KILL_ROUNDS_MS 500
#define ROUNDS_MS 100
// The keeper's last deed.
#define KILL_MARKED_MS 5000

// Of looks for orphans in a row: who stops the makers of more needs the lock, too.
#define PASSES_MAX 16

#define OUTER_BASE (UINT64_C(1) << 61)
#define INNER_BASE (UINT64_C(1) << 60)
#define NUMBERS ((UINT64_C(1) << 22) - 1)

struct pmi_condemned {
    struct pmi_condemned *next;
    uint64_t mark;
    bool seen;   // By the look that goes on.
    bool missed; // By the one before.
};

// ------------------------------------------------------------------------------------------------
// Marks
// ------------------------------------------------------------------------------------------------

struct marks {
    uint64_t soft, hard; // As the kernel's struct rlimit64.
};

static bool has_mark(const struct marks *marks, uint64_t mark)
{
    return marks->soft == mark || marks->hard == mark;
}

// From there on, and moves it.
static uint64_t number_or_none(char **at)
{
    while (**at == ' ')
        (*at)++;
    if (strncmp(*at, "unlimited", 9) == 0) {
        *at += 9;
        return UINT64_MAX;
    }
    return strtoull(*at, at, 10);
}

// The file that everybody may read, for a process that has become another user's.
static bool read_marks_file(pid_t pid, struct marks *ret_marks)
{
    static const char name[] = "Max file locks";
    char path[64], text[4096];
    (void)snprintf(path, sizeof(path), "/proc/%ld/limits", (long)pid);
    int fd = pmi_sys_open(path, O_RDONLY, 0);
    if (fd < 0)
        return false;
    size_t size = 0;
    ssize_t n = 1;
    while (size < sizeof(text) - 1 &&
           (n = pmi_sys_read(fd, text + size, sizeof(text) - 1 - size)) > 0)
        size += (size_t)n;
    (void)pmi_sys_close(fd);
    text[size] = '\0';
    char *at = strstr(text, name);
    if (at == NULL)
        return false;
    at += sizeof(name) - 1;
    ret_marks->soft = number_or_none(&at);
    ret_marks->hard = number_or_none(&at);
    return true;
}

static bool read_marks(pid_t pid, struct marks *ret_marks)
{
    if (PMI_SYS(syscall)(SYS_prlimit64, pid, RLIMIT_LOCKS, NULL, ret_marks) == 0)
        return true;
    return errno == EPERM && read_marks_file(pid, ret_marks);
}

// The prefixes of its marks, the latest one and the one before.
static _Atomic uint64_t prefixes[2];

// Whether a start of the owner has made it.
static bool is_issued(uint64_t mark)
{
    uint64_t prefix = mark & ~NUMBERS;
    return prefix != 0 &&
           (prefix == atomic_load(&prefixes[0]) || prefix == atomic_load(&prefixes[1]));
}

// The mark of a process, if it is one of those.
static uint64_t issued_mark(pid_t pid)
{
    struct marks marks;
    if (!read_marks(pid, &marks))
        return 0;
    return is_issued(marks.soft) ? marks.soft : is_issued(marks.hard) ? marks.hard : 0;
}

static int draw_prefix(struct pmi_family *family)
{
    uint64_t base = family->limit == 0 ? OUTER_BASE : INNER_BASE, drawn;
    int result = pmi_os_random(&drawn, sizeof(drawn));
    if (result != PM_OK)
        return result;
    atomic_store(&prefixes[1], family->prefix);
    family->prefix = base | (drawn & (base - 1) & ~NUMBERS);
    atomic_store(&prefixes[0], family->prefix);
    family->next = 1;
    return PM_OK;
}

uint64_t pmi_family_limit(const struct pmi_family *family, uint64_t mark)
{
    return family->limit == 0 ? mark : family->limit;
}

// ------------------------------------------------------------------------------------------------
// Open and close
// ------------------------------------------------------------------------------------------------

static int refuse(struct pm_error *err, int code, const char *hint)
{
    (void)pmi_fail_code(err, PM_STAGE_CHECK, code);
    pmi_fail_field(err, "own_process");
    pmi_fail_hint(err, "%s", hint);
    return code;
}

static void ignore_child(void *context, pid_t pid)
{
    (void)context;
    (void)pid;
}

static int check_host(struct pmi_family *family, struct pm_error *err)
{
    struct marks own;
    if (!read_marks(0, &own))
        return refuse(err, PM_ERR_UNSUPPORTED, "this process may not look at its limits");
    bool free = own.soft == UINT64_MAX && own.hard == UINT64_MAX;
    bool in_tree = own.soft == own.hard && own.hard >= OUTER_BASE && own.hard < 2 * OUTER_BASE;
    if (!free && !in_tree)
        return refuse(err, PM_ERR_UNSUPPORTED,
                      "RLIMIT_LOCKS, by which descendants are known, has been set already: by "
                      "somebody, or because this process is two such managers deep in trees");
    family->limit = in_tree ? own.hard : 0;
    int result = pmi_children_visit(0, ignore_child, NULL);
    if (result == PM_ERR_UNSUPPORTED)
        return refuse(err, result, "/proc is not mounted");
    return result == PM_OK ? PM_OK : refuse(err, result, "listing the children");
}

static int set_reaper(bool on)
{
    return (int)PMI_SYS(syscall)(SYS_prctl, PR_SET_CHILD_SUBREAPER, (long)on, 0L, 0L, 0L);
}

int pmi_family_open(struct pmi_family *family, struct pm_error *err)
{
    int before = 0;
    int result = check_host(family, err);
    if (result != PM_OK)
        return result;
    if (!pmi_family_take_process(err))
        return err->code;
    result = draw_prefix(family);
    if (result != PM_OK) {
        pmi_family_release_process();
        return refuse(err, result, "no random number");
    }
    if (PMI_SYS(syscall)(SYS_prctl, PR_GET_CHILD_SUBREAPER, &before, 0L, 0L, 0L) < 0 ||
        set_reaper(!PMI_WITHOUT("subreaper")) < 0) {
        pmi_family_release_process();
        pmi_fail(err, PM_STAGE_CHECK, errno);
        pmi_fail_field(err, "own_process");
        return err->code;
    }
    family->was_reaper = before != 0;
    family->open = true;
    return PM_OK;
}

static size_t collect(struct pmi_family *family);

static bool is_anybody_condemned(struct pmi_family *family)
{
    pmi_mutex_lock(&family->lock);
    bool any = family->condemned != NULL;
    pmi_mutex_unlock(&family->lock);
    return any;
}

void pmi_family_close(struct pmi_family *family)
{
    if (!family->open)
        return;
    // Whom it kills it waits for, and for what then comes to us from below: nobody does later.
    int64_t deadline = pmi_now_ms() + PMI_DYING_MS;
    (void)collect(family);
    while (is_anybody_condemned(family) && pmi_now_ms() < deadline) {
        pmi_sleep_ms(1);
        (void)collect(family);
    }
    if (!family->was_reaper)
        (void)set_reaper(false);
    pmi_family_release_process();
    pmi_mutex_lock(&family->lock);
    family->open = false;
    while (family->condemned != NULL) {
        struct pmi_condemned *first = family->condemned;
        family->condemned = first->next;
        free(first);
    }
    pmi_mutex_unlock(&family->lock);
}

// ------------------------------------------------------------------------------------------------
// Starts. "Locked": family->lock is held.
// ------------------------------------------------------------------------------------------------

static struct pmi_os_process **bucket_of(struct pmi_family *family, pid_t pid)
{
    return &family->leaders[(unsigned)pid % PMI_FAMILY_BUCKETS];
}

static const struct pmi_os_process *find_leader_locked(struct pmi_family *family, pid_t pid)
{
    const struct pmi_os_process *op = *bucket_of(family, pid);
    while (op != NULL && op->pid != pid)
        op = op->leader_next;
    return op;
}

static bool is_expected_locked(const struct pmi_family *family, uint64_t mark)
{
    for (const struct pmi_birth *birth = family->births; birth != NULL; birth = birth->next)
        if (birth->mark == mark)
            return true;
    return false;
}

int pmi_family_expect(struct pmi_family *family, struct pmi_birth *birth, struct pm_error *err)
{
    birth->room = calloc(1, sizeof(*birth->room));
    if (birth->room == NULL)
        return pmi_fail_code(err, PM_STAGE_FORK, PM_ERR_NO_MEMORY);
    pmi_mutex_lock(&family->lock);
    int result = family->next <= NUMBERS ? PM_OK : draw_prefix(family);
    if (result == PM_OK) {
        birth->mark = family->prefix | family->next++;
        birth->next = family->births;
        family->births = birth;
    }
    pmi_mutex_unlock(&family->lock);
    if (result == PM_OK)
        return PM_OK;
    free(birth->room);
    return pmi_fail_code(err, PM_STAGE_FORK, result);
}

void pmi_family_born(struct pmi_family *family, struct pmi_birth *birth, struct pmi_os_process *op)
{
    pmi_mutex_lock(&family->lock);
    struct pmi_birth **at = &family->births;
    while (*at != birth)
        at = &(*at)->next;
    *at = birth->next;
    if (op != NULL) {
        struct pmi_os_process **bucket = bucket_of(family, op->pid);
        op->family = family;
        op->mark = birth->mark;
        op->room = birth->room;
        op->leader_next = *bucket;
        *bucket = op;
    } else
        free(birth->room);
    pmi_mutex_unlock(&family->lock);
}

void pmi_family_left(struct pmi_os_process *op)
{
    struct pmi_family *family = op->family;
    if (family == NULL)
        return;
    pmi_mutex_lock(&family->lock);
    struct pmi_os_process **at = bucket_of(family, op->pid);
    while (*at != NULL && *at != op)
        at = &(*at)->leader_next;
    if (*at != NULL)
        *at = op->leader_next;
    pmi_mutex_unlock(&family->lock);
}

// ------------------------------------------------------------------------------------------------
// Walks
// ------------------------------------------------------------------------------------------------

struct member {
    pid_t pid;
    pid_t parent; // 0 = the mark is the only proof, or it is the process itself.
    uint64_t parent_start;
};

struct seen {
    pid_t pid;
    uint64_t start;
};

// What a walk has room for without memory: so that a tree can always be killed, if need be in
// several rounds.
#define QUEUE_ROOM 128
#define SEEN_ROOM 256 // A power of two.

struct walk {
    struct pmi_os_process *op;
    int signal;
    struct member *queue; // First its room below; so the table.
    size_t count, capacity;
    struct seen *seen; // A hash table, never more than half full.
    size_t seen_count, seen_capacity;
    struct member queue_room[QUEUE_ROOM];
    struct seen seen_room[SEEN_ROOM];
    struct member parent; // For note_child.
    size_t alive;
    bool found_new; // Somebody was there whom no round before has seen.
    int result;     // Why somebody may have been left out.
};

static void push(struct walk *walk, struct member member)
{
    if (walk->count == walk->capacity) {
        size_t capacity = walk->capacity * 2;
        bool room = walk->queue == walk->queue_room;
        struct member *queue = realloc(room ? NULL : walk->queue, capacity * sizeof(*queue));
        if (queue == NULL) {
            walk->result = PM_ERR_NO_MEMORY;
            return;
        }
        if (room)
            memcpy(queue, walk->queue_room, sizeof(walk->queue_room));
        walk->queue = queue;
        walk->capacity = capacity;
    }
    walk->queue[walk->count++] = member;
}

static struct seen *slot_of(struct seen *table, size_t capacity, const struct seen *key)
{
    size_t at = ((size_t)key->pid * 2654435761U ^ (size_t)key->start) & (capacity - 1);
    while (table[at].pid != 0 && (table[at].pid != key->pid || table[at].start != key->start))
        at = (at + 1) & (capacity - 1);
    return &table[at];
}

// False: it was there before.
static bool see(struct walk *walk, pid_t pid, uint64_t start)
{
    struct seen key = {.pid = pid, .start = start};
    if (walk->seen_count * 2 >= walk->seen_capacity) {
        size_t capacity = walk->seen_capacity * 2;
        struct seen *table = calloc(capacity, sizeof(*table));
        if (table == NULL) {
            walk->result = PM_ERR_NO_MEMORY;
            return true; // Signalled again rather than not at all; the time is bounded.
        }
        for (size_t i = 0; i < walk->seen_capacity; i++)
            if (walk->seen[i].pid != 0)
                *slot_of(table, capacity, &walk->seen[i]) = walk->seen[i];
        if (walk->seen != walk->seen_room)
            free(walk->seen);
        walk->seen = table;
        walk->seen_capacity = capacity;
    }
    struct seen *slot = slot_of(walk->seen, walk->seen_capacity, &key);
    if (slot->pid != 0)
        return false;
    *slot = key;
    walk->seen_count++;
    return true;
}

// Of our own children: the process, and what has come to us of its tree.
static void note_root(void *context, pid_t pid)
{
    struct walk *walk = context;
    struct marks marks;
    bool leader = find_leader_locked(walk->op->family, pid) != NULL;
    bool root = leader ? pid == walk->op->pid && !walk->op->reaped
                       : read_marks(pid, &marks) &&
                             (has_mark(&marks, walk->op->mark) || PMI_WITHOUT("tree mark"));
    if (root)
        push(walk, (struct member){.pid = pid});
}

static void note_child(void *context, pid_t pid)
{
    struct walk *walk = context;
    struct member member = walk->parent;
    member.pid = pid;
    push(walk, member);
}

// What makes it one of the tree, looked at while `pid` is pinned.
static bool is_proven(const struct walk *walk, const struct member *member,
                      const struct pmi_stat *stat)
{
    struct marks marks;
    struct pmi_stat parent;
    if (member->pid == walk->op->pid && walk->op->child && !walk->op->reaped)
        return true;
    if (read_marks(member->pid, &marks) && has_mark(&marks, walk->op->mark))
        return true;
    if (PMI_WITHOUT("tree mark") && stat->ppid == getpid())
        return true;
    return member->parent != 0 && stat->ppid == member->parent &&
           pmi_stat_read(member->parent, &parent) == PM_OK &&
           (uint64_t)parent.starttime == member->parent_start;
}

static void deliver(int signal_number, pid_t pid, int pidfd)
{
#ifdef HAVE_PIDFD
    if (pidfd >= 0 &&
        (pmi_sys_pidfd_send_signal(pidfd, signal_number, 0) == 0 || !pmi_sys_is_refused(errno)))
        return;
#else
    (void)pidfd;
#endif
    (void)pmi_sys_kill(pid, signal_number); // No pidfd, or a seccomp filter on its signals.
}

// The kernel's object first, the proof after.
static void visit(struct walk *walk, struct member member)
{
    struct pmi_stat stat;
    int pidfd = -1;
#ifdef HAVE_PIDFD
    pidfd = pmi_sys_pidfd_open(member.pid);
    bool pinnable = pidfd >= 0 || !pmi_sys_is_no_process(errno);
    if (pidfd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM))
        walk->result = pmi_error_from_errno(errno);
#else
    const bool pinnable = true;
#endif
    int result = pmi_stat_read(member.pid, &stat);
    // Whoever is dead or gone may have left a child to us since the list was read.
    bool fresh = result != PM_OK || see(walk, member.pid, stat.starttime);
    walk->found_new |= fresh;
    if (result == PM_OK && !pmi_stat_is_dead(&stat) && is_proven(walk, &member, &stat)) {
        // Its children before it is signalled: of a dead one they are somebody else's already. Who
        // is born in between is found in the next round.
        walk->parent = (struct member){.parent = member.pid, .parent_start = stat.starttime};
        int listed = pmi_children_visit(member.pid, note_child, walk);
        if (listed != PM_OK && listed != PM_ERR_GONE)
            walk->result = listed;
        walk->alive++;
        if (walk->signal != 0 && fresh && pinnable)
            deliver(walk->signal, member.pid, pidfd);
    } else if (result != PM_OK && result != PM_ERR_GONE) {
        walk->result = result;
    }
    (void)pmi_sys_close(pidfd);
}

// From the process and from the orphans of its tree down to the last descendant.
static void walk_once(struct walk *walk)
{
    struct pmi_family *family = walk->op->family;
    walk->count = walk->alive = 0;
    walk->found_new = false;
    walk->result = PM_OK;
    pmi_mutex_lock(&family->lock);
    int result = pmi_children_visit(0, note_root, walk);
    pmi_mutex_unlock(&family->lock);
    if (result != PM_OK)
        walk->result = result;
    for (size_t i = 0; i < walk->count; i++)
        visit(walk, walk->queue[i]);
}

static void begin_walk(struct walk *walk, struct pmi_os_process *op, int signal_number)
{
    memset(walk, 0, sizeof(*walk));
    walk->op = op;
    walk->signal = signal_number;
    walk->queue = walk->queue_room;
    walk->capacity = QUEUE_ROOM;
    walk->seen = walk->seen_room;
    walk->seen_capacity = SEEN_ROOM;
}

static void end_walk(struct walk *walk)
{
    if (walk->queue != walk->queue_room)
        free(walk->queue);
    if (walk->seen != walk->seen_room)
        free(walk->seen);
}

// ------------------------------------------------------------------------------------------------
// Orphans
// ------------------------------------------------------------------------------------------------

struct orphans {
    struct pmi_family *family;
    size_t alive, taken; // Living ones; dead ones that were waited for.
};

static struct pmi_condemned *find_condemned_locked(struct pmi_family *family, uint64_t mark)
{
    struct pmi_condemned *at = family->condemned;
    while (at != NULL && at->mark != mark)
        at = at->next;
    return at;
}

// Nobody of that tree is to live, also when its Handle is gone. There is room for the first time;
// if it was pardoned since, for want of a complete look, memory is needed.
static void condemn(struct pmi_os_process *op)
{
    struct pmi_family *family = op->family;
    pmi_mutex_lock(&family->lock);
    if (family->open && find_condemned_locked(family, op->mark) == NULL) {
        struct pmi_condemned *room = op->room != NULL ? op->room : malloc(sizeof(*room));
        op->room = NULL;
        if (room != NULL) {
            *room = (struct pmi_condemned){.next = family->condemned, .mark = op->mark};
            family->condemned = room;
        }
    }
    pmi_mutex_unlock(&family->lock);
}

static bool is_condemned(struct pmi_family *family, uint64_t mark)
{
    pmi_mutex_lock(&family->lock);
    bool found = find_condemned_locked(family, mark) != NULL;
    pmi_mutex_unlock(&family->lock);
    return found;
}

static bool is_orphan(pid_t pid)
{
    return issued_mark(pid) != 0 || PMI_WITHOUT("orphan mark");
}

// By its number, pinned where that can be. Never for anybody: the host's children are the host's.
static bool take_status(pid_t pid)
{
    siginfo_t info;
    int pidfd = -1;
#ifdef HAVE_PIDFD
    pidfd = pmi_sys_pidfd_open(pid);
#endif
    // Else somebody has waited for it, and the number is a stranger's.
    bool taken = is_orphan(pid) && pmi_child_take(pid, pidfd, &info, NULL) == 0 && info.si_pid != 0;
    (void)pmi_sys_close(pidfd);
    return taken;
}

static void kill_orphan(pid_t pid, uint64_t mark)
{
#ifdef HAVE_PIDFD
    int pidfd = pmi_sys_pidfd_open(pid);
    bool done = pidfd < 0 ? pmi_sys_is_no_process(errno)
                          : issued_mark(pid) != mark ||
                                pmi_sys_pidfd_send_signal(pidfd, SIGKILL, 0) == 0 ||
                                !pmi_sys_is_refused(errno);
    (void)pmi_sys_close(pidfd);
    if (done)
        return;
#endif
    // Our child and not waited for: the number is its own.
    if (issued_mark(pid) == mark)
        (void)pmi_sys_kill(pid, SIGKILL);
}

static void look_at_child(void *context, pid_t pid)
{
    struct orphans *orphans = context;
    struct pmi_family *family = orphans->family;
    const struct pmi_os_process *leader = find_leader_locked(family, pid);
    uint64_t mark = leader != NULL ? leader->mark : issued_mark(pid);
    struct pmi_condemned *condemned = mark != 0 ? find_condemned_locked(family, mark) : NULL;
    if (condemned != NULL)
        condemned->seen = true;
    if ((leader != NULL && !PMI_WITHOUT("handle first")) ||
        (mark == 0 && !PMI_WITHOUT("orphan mark")) || is_expected_locked(family, mark))
        return;
    int look = pmi_child_look(pid);
    if (look < 0)
        return;
    if (look > 0) {
        orphans->taken += take_status(pid);
        return;
    }
    orphans->alive++;
    if (condemned != NULL)
        kill_orphan(pid, mark);
}

// Trees of which nothing is left, for two looks: a list may leave one out.
static void pardon_locked(struct pmi_family *family)
{
    struct pmi_condemned **at = &family->condemned;
    while (*at != NULL) {
        struct pmi_condemned *condemned = *at;
        if (condemned->seen || !condemned->missed) {
            condemned->missed = !condemned->seen;
            condemned->seen = false;
            at = &condemned->next;
        } else {
            *at = condemned->next;
            free(condemned);
        }
    }
}

// Each one that was waited for may have left children to us. A list that changes while it is read
// may leave some out: hence again until nothing changes.
static size_t collect(struct pmi_family *family)
{
    struct orphans orphans = {.family = family};
    pmi_mutex_lock(&family->lock);
    int result, passes = 0;
    do {
        orphans.alive = orphans.taken = 0;
        result = family->open ? pmi_children_visit(0, look_at_child, &orphans) : PM_ERR_CLOSED;
        family->reaped += orphans.taken;
    } while (result == PM_OK && orphans.taken > 0 && ++passes < PASSES_MAX);
    if (result == PM_OK)
        pardon_locked(family);
    pmi_mutex_unlock(&family->lock);
    return result == PM_OK || result == PM_ERR_CLOSED ? orphans.alive : orphans.alive + 1;
}

bool pmi_os_orphans_collect(struct pmi_os_manager *om, uint64_t *ret_reaped)
{
    bool alive = om->family.open && collect(&om->family) > 0;
    pmi_mutex_lock(&om->family.lock);
    *ret_reaped = om->family.reaped;
    pmi_mutex_unlock(&om->family.lock);
    return alive;
}

bool pmi_family_awaits(pid_t pid)
{
    return atomic_load(&owner) == pmi_self() && issued_mark(pid) != 0;
}

// ------------------------------------------------------------------------------------------------
// Trees
// ------------------------------------------------------------------------------------------------

int pmi_family_signal(struct pmi_os_process *op, int signal_number)
{
    struct walk walk;
    bool kill = signal_number == SIGKILL, any = false;
    int64_t deadline = pmi_now_ms() + (kill ? KILL_ROUNDS_MS : ROUNDS_MS);
    if (signal_number == SIGCONT && is_condemned(op->family, op->mark))
        return PM_OK; // They die stopped or not.
    if (kill) {
        condemn(op);
        if (op->group) // At one stroke, and without a descriptor.
            any = pmi_group_signal(op, signal_number) == PM_OK;
    }
    begin_walk(&walk, op, signal_number);
    do {
        walk_once(&walk);
        any |= walk.alive > 0;
    } while (signal_number != 0 && walk.found_new && pmi_now_ms() < deadline);
    end_walk(&walk);
    return any ? PM_OK : walk.result != PM_OK ? walk.result : PM_ERR_GONE;
}

struct rest {
    struct pmi_os_process *op;
    size_t count;
};

// Dead ones count until they are waited for: before that, who moves up from below them may not have
// been in the list when it was read, and after that, it is.
static void count_rest(void *context, pid_t pid)
{
    struct rest *rest = context;
    struct marks marks;
    if (find_leader_locked(rest->op->family, pid) != NULL)
        return;
    if (read_marks(pid, &marks))
        rest->count += has_mark(&marks, rest->op->mark);
    else // Who cannot be told apart may be one.
        rest->count += errno != ESRCH && errno != ENOENT;
}

// Everybody of the tree whose process has ended is a child of ours, or below one that is of it.
// Twice, because a list may leave one out while the host waits for a child of its own.
static bool is_anybody_left(struct pmi_os_process *op)
{
    struct rest rest = {.op = op};
    int result = PM_OK;
    pmi_mutex_lock(&op->family->lock);
    for (int look = 0; look < 2 && result == PM_OK && rest.count == 0; look++)
        result = pmi_children_visit(0, count_rest, &rest);
    pmi_mutex_unlock(&op->family->lock);
    return rest.count > 0 || result != PM_OK;
}

bool pmi_family_alive(struct pmi_os_process *op)
{
    if (!is_anybody_left(op))
        return false;
    if (is_condemned(op->family, op->mark)) {
        struct walk walk;
        begin_walk(&walk, op, SIGKILL);
        walk_once(&walk);
        end_walk(&walk);
    }
    (void)collect(op->family);
    return is_anybody_left(op);
}

// -1: cannot be told for the moment.
static int read_marks_now(pid_t pid, struct marks *ret_marks)
{
    if (read_marks(pid, ret_marks))
        return 1;
    return errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == EIO ? -1 : 0;
}

// -1: cannot be told for the moment.
static int has_any_mark(pid_t pid, const uint64_t *marks, size_t count)
{
    struct marks found;
    int told = read_marks_now(pid, &found);
    if (told <= 0)
        return told;
    for (size_t i = 0; i < count; i++)
        if (marks[i] != 0 && has_mark(&found, marks[i]))
            return 1;
    return 0;
}

// Whether it lives and has a mark; -1 as above.
static int signal_if_marked(pid_t pid, const uint64_t *marks, size_t count, int signal_number)
{
    int pidfd = -1, has = has_any_mark(pid, marks, count);
    struct pmi_stat stat;
    if (has <= 0)
        return has;
#ifdef HAVE_PIDFD
    pidfd = pmi_sys_pidfd_open(pid);
    if (pidfd < 0 && pmi_sys_is_no_process(errno))
        return 0;
#endif
    has = has_any_mark(pid, marks, count);
    if (has > 0) {
        int result = pmi_stat_read(pid, &stat);
        has = result == PM_OK ? !pmi_stat_is_dead(&stat) : result == PM_ERR_GONE ? 0 : -1;
    }
    if (has > 0 && signal_number != 0)
        deliver(signal_number, pid, pidfd);
    (void)pmi_sys_close(pidfd);
    return has;
}

// Whoever has a mark, wherever the kernel has put it; 0 only looks. How many; -1 = cannot be told.
static int signal_marked(const uint64_t *marks, size_t count, int signal_number)
{
    DIR *proc = opendir("/proc");
    struct dirent *entry;
    int found = 0;
    bool all_seen = true;
    if (proc == NULL)
        return -1;
    while (errno = 0, (entry = readdir(proc)) != NULL) {
        pid_t pid = (pid_t)strtol(entry->d_name, NULL, 10);
        int has = pid <= 1 ? 0 : signal_if_marked(pid, marks, count, signal_number);
        found += has > 0;
        all_seen = all_seen && has >= 0;
    }
    all_seen = all_seen && errno == 0;
    (void)closedir(proc);
    return found > 0 || all_seen ? found : -1;
}

void pmi_family_kill_marked(const uint64_t *marks, size_t count)
{
    int64_t deadline = pmi_now_ms() + KILL_MARKED_MS;
    while (signal_marked(marks, count, SIGKILL) != 0 && pmi_now_ms() < deadline)
        pmi_sleep_ms(1);
}

struct marks_visit {
    void (*each)(void *context, uint64_t soft, uint64_t hard);
    void *context;
    bool complete;
};

static bool visit_marks_of(void *context, pid_t pid)
{
    struct marks_visit *all = context;
    struct marks marks;
    struct pmi_stat stat;
    int told = read_marks_now(pid, &marks);
    all->complete = told >= 0;
    if (told <= 0 || (marks.soft == UINT64_MAX && marks.hard == UINT64_MAX))
        return all->complete;
    int result = pmi_stat_read(pid, &stat);
    all->complete = result == PM_OK || result == PM_ERR_GONE;
    if (result == PM_OK && !pmi_stat_is_dead(&stat))
        all->each(all->context, marks.soft, marks.hard);
    return all->complete;
}

bool pmi_family_visit_marks(void (*each)(void *context, uint64_t soft, uint64_t hard),
                            void *context)
{
    struct marks_visit all = {.each = each, .context = context, .complete = true};
    return pmi_pids_visit(visit_marks_of, &all) == 0 && all.complete;
}

#elif !defined(HAVE_PROCCTL_REAPER)

int pmi_family_open(struct pmi_family *family, struct pm_error *err)
{
    (void)family;
    (void)pmi_fail_code(err, PM_STAGE_CHECK, PM_ERR_UNSUPPORTED);
    pmi_fail_field(err, "own_process");
    pmi_fail_hint(err, "orphans do not come to their ancestors on this system");
    return err->code;
}

void pmi_family_close(struct pmi_family *family)
{
    (void)family;
}

int pmi_family_expect(struct pmi_family *family, struct pmi_birth *birth, struct pm_error *err)
{
    (void)family;
    (void)birth;
    return pmi_fail_code(err, PM_STAGE_CHECK, PM_ERR_UNSUPPORTED);
}

void pmi_family_born(struct pmi_family *family, struct pmi_birth *birth, struct pmi_os_process *op)
{
    (void)family;
    (void)birth;
    (void)op;
}

void pmi_family_left(struct pmi_os_process *op)
{
    (void)op;
}

uint64_t pmi_family_limit(const struct pmi_family *family, uint64_t mark)
{
    (void)family;
    return mark;
}

int pmi_family_signal(struct pmi_os_process *op, int signal_number)
{
    (void)op;
    (void)signal_number;
    return PM_ERR_UNSUPPORTED;
}

bool pmi_family_alive(struct pmi_os_process *op)
{
    (void)op;
    return false;
}

bool pmi_os_orphans_collect(struct pmi_os_manager *om, uint64_t *ret_reaped)
{
    (void)om;
    *ret_reaped = 0;
    return false;
}

bool pmi_family_awaits(pid_t pid)
{
    (void)pid;
    return false;
}

void pmi_family_kill_marked(const uint64_t *marks, size_t count)
{
    (void)marks;
    (void)count;
}

bool pmi_family_visit_marks(void (*each)(void *context, uint64_t soft, uint64_t hard),
                            void *context)
{
    (void)each;
    (void)context;
    return true;
}

#endif
