#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"

// The registry folder:
//
//   lock               who owns it (identity, epoch); held locked while a manager is open
//   lock.gate          held while the owner is decided
//   boot-<boot id>/    a record for each daemon of this boot
//   exits/             a record for each daemon that has ended; these survive a reboot
//   quarantine/        what could not be trusted
//
// Running daemons' records need no fsync: they mean nothing after a reboot. Exit records do.

#define GATE_WAIT_MS 2000
#define GATE_POLL_MS 10
#define OWN_LOCK_WAIT_MS 500
#define OPEN_HERE_MAX 64

static void registry_hint(struct pm_error *err, const char *path)
{
    if (err->hint[0] == '\0') {
        (void)snprintf(err->hint, sizeof err->hint, "registry folder %s", path);
    }
}

// ------------------------------------------------------------------------------------------------
// One owner
// ------------------------------------------------------------------------------------------------

// Who the lock file names. PM_ERR_NOT_FOUND, PM_ERR_CORRUPT: nobody, for good.
static int read_owner(struct pmi_registry *r, struct pmi_identity *ret_id, uint64_t *ret_epoch)
{
    char *text = NULL;
    size_t size = 0;
    int result = pmi_os_file_read(&r->root, "lock", PMI_RECORD_SIZE_MAX, &text, &size);
    if (result == PM_OK) {
        result = pmi_lock_decode(text, size, ret_id, ret_epoch);
    }
    free(text);
    return result;
}

static int write_owner(struct pmi_registry *r)
{
    char *text = NULL;
    size_t size = 0;
    int result = pmi_lock_encode(&r->self, r->epoch, &text, &size);
    if (result == PM_OK) {
        result = pmi_os_lock_write(&r->owner_lock, text, size);
    }
    free(text);
    return result;
}

static bool is_self(const struct pmi_registry *r, const struct pmi_identity *id)
{
    return id->pid == r->self.pid && id->start == r->self.start && id->pidns == r->self.pidns &&
           strcmp(id->boot, r->self.boot) == 0;
}

// The epochs of the registries that this program has open; 0 = free. After an exec it is the same
// process and has none. No lock: a copy may be forked at any time.
static _Atomic uint64_t open_here[OPEN_HERE_MAX];
static atomic_bool open_here_overflown;

static void replace_open_here(uint64_t from, uint64_t to)
{
    for (size_t i = 0; i < OPEN_HERE_MAX; i++) {
        uint64_t expected = from;
        if (atomic_compare_exchange_strong(&open_here[i], &expected, to)) {
            return;
        }
    }
    atomic_store(&open_here_overflown, true);
}

// One of the same epoch may be another one: then the answer is too careful.
static bool may_be_open_here(uint64_t epoch)
{
    bool found = atomic_load(&open_here_overflown);
    for (size_t i = 0; i < OPEN_HERE_MAX && !found; i++) {
        found = atomic_load(&open_here[i]) == epoch;
    }
    return found;
}

// `former`: the owner is what this process was before an exec. Then a child that was just being
// made holds copies of the descriptors until it has its own program.
static int lock_owner_file(struct pmi_registry *r, bool former)
{
    int64_t deadline = pmi_now_ms() + OWN_LOCK_WAIT_MS;
    int result;
    while ((result = pmi_os_lock_try(&r->root, "lock", &r->owner_lock)) == PM_ERR_BUSY && former &&
           pmi_now_ms() < deadline) {
        pmi_sleep_ms(GATE_POLL_MS);
    }
    return result;
}

static int refuse_lock(const char *name, int result, struct pm_error *err)
{
    if (result == PM_ERR_CORRUPT) {
        (void)snprintf(err->hint, sizeof err->hint,
                       "%s in the registry folder is no plain file of ours: take it away", name);
    }
    return result;
}

// Under the gate. A living owner keeps it; one proven dead, or gone by an exec, loses it even if a
// forked worker of it still holds the lock: the file is replaced.
static int decide_owner(struct pmi_registry *r, struct pm_error *err)
{
    struct pmi_identity owner;
    uint64_t epoch = 0;
    int result = read_owner(r, &owner, &epoch);
    bool known = result == PM_OK;
    // For any other reason the epoch would begin anew.
    if (!known && result != PM_ERR_NOT_FOUND && result != PM_ERR_CORRUPT) {
        return result;
    }
    bool former = known && is_self(r, &owner) && !may_be_open_here(epoch);
    result = lock_owner_file(r, former);
    if (result == PM_ERR_BUSY && known &&
        (former || (strcmp(owner.boot, r->self.boot) == 0 && // Else it lives on another machine.
                    pmi_os_identity_check(&owner) == PM_ERR_GONE))) {
        result = pmi_os_file_remove(&r->root, "lock");
        if (result == PM_OK || result == PM_ERR_NOT_FOUND) {
            result = pmi_os_lock_try(&r->root, "lock", &r->owner_lock);
        }
    }
    if (result == PM_ERR_BUSY) {
        err->pid = known ? owner.pid : 0;
        (void)snprintf(err->hint, sizeof err->hint, "owned by pid %llu (start time %llu)",
                       (unsigned long long)err->pid, (unsigned long long)(known ? owner.start : 0));
        return PM_ERR_REGISTRY_BUSY;
    }
    if (result != PM_OK) {
        return refuse_lock("lock", result, err);
    }
    r->epoch = epoch + 1;
    result = write_owner(r);
    if (result == PM_OK) {
        replace_open_here(0, r->epoch);
        r->noted = true;
    }
    return result;
}

static int take_ownership(struct pmi_registry *r, struct pm_error *err)
{
    struct pmi_os_lock gate = PMI_OS_LOCK_INIT;
    int64_t deadline = pmi_now_ms() + GATE_WAIT_MS;
    int result;
    while ((result = pmi_os_lock_try(&r->root, "lock.gate", &gate)) == PM_ERR_BUSY &&
           pmi_now_ms() < deadline) {
        pmi_sleep_ms(GATE_POLL_MS);
    }
    if (result == PM_ERR_BUSY) {
        (void)snprintf(err->hint, sizeof err->hint, "somebody has held lock.gate for %d ms",
                       GATE_WAIT_MS);
        return PM_ERR_REGISTRY_BUSY;
    }
    if (result != PM_OK) {
        return refuse_lock("lock.gate", result, err);
    }
    result = decide_owner(r, err);
    pmi_os_lock_release(&gate);
    return result;
}

// ------------------------------------------------------------------------------------------------
// Open and close
// ------------------------------------------------------------------------------------------------

static void boot_folder(const char *boot_id, char name[64])
{
    (void)snprintf(name, 64, "boot-%s", boot_id);
}

struct other_boots {
    const char *ours;
    char found[16][64];
    size_t count;
};

static int note_other_boot(void *context, const char *name)
{
    struct other_boots *others = context;
    if (strncmp(name, "boot-", 5) == 0 && strcmp(name, others->ours) != 0 && strlen(name) < 64 &&
        others->count < 16) {
        (void)snprintf(others->found[others->count++], 64, "%s", name);
    }
    return 0;
}

// The daemons of another boot are gone, and their records with them.
static void drop_other_boots(struct pmi_registry *r, const char *ours)
{
    struct other_boots others = {.ours = ours};
    (void)pmi_os_dir_list(&r->root, note_other_boot, &others);
    for (size_t i = 0; i < others.count; i++) {
        (void)pmi_os_dir_remove_sub(&r->root, others.found[i]);
    }
}

static int remove_temporary(void *context, const char *name)
{
    if (strncmp(name, PMI_TEMPORARY_PREFIX, strlen(PMI_TEMPORARY_PREFIX)) == 0) {
        (void)pmi_os_file_remove(context, name);
    }
    return 0;
}

// What a writer has left that was killed, or could not even take it away. One that is just writing,
// a daemon its own exit record, writes anew.
static void drop_temporary_files(struct pmi_registry *r)
{
    (void)pmi_os_dir_list(&r->boot, remove_temporary, &r->boot);
    (void)pmi_os_dir_list(&r->exits, remove_temporary, &r->exits);
}

static void let_go(struct pmi_registry *r)
{
    pmi_os_lock_release(&r->owner_lock);
    if (r->noted) {
        replace_open_here(r->epoch, 0);
    }
    r->noted = false;
}

static void close_dirs(struct pmi_registry *r)
{
    pmi_os_dir_close(&r->quarantine);
    pmi_os_dir_close(&r->exits);
    pmi_os_dir_close(&r->boot);
    pmi_os_dir_close(&r->root);
}

static void reset(struct pmi_registry *r)
{
    r->open = r->noted = false;
    r->root = r->boot = r->exits = r->quarantine = (struct pmi_os_dir)PMI_OS_DIR_INIT;
    r->owner_lock = (struct pmi_os_lock)PMI_OS_LOCK_INIT;
}

int pmi_registry_open(struct pmi_registry *r, const char *path, struct pm_error *err)
{
    char boot[64];
    reset(r);
    int result = pmi_os_dir_open(path, true, &r->root, err);
    if (result == PM_OK) {
        result = pmi_os_self_identity(&r->self);
    }
    if (result == PM_OK) {
        result = take_ownership(r, err);
    }
    if (result == PM_OK) {
        boot_folder(r->self.boot, boot);
        result = pmi_os_dir_open_sub(&r->root, boot, true, &r->boot);
    }
    if (result == PM_OK) {
        result = pmi_os_dir_open_sub(&r->root, "exits", true, &r->exits);
    }
    if (result == PM_OK) {
        result = pmi_os_dir_open_sub(&r->root, "quarantine", true, &r->quarantine);
    }
    if (result != PM_OK) {
        let_go(r);
        close_dirs(r);
        reset(r);
        registry_hint(err, path);
        return pmi_set_error(err, result, PM_STAGE_REGISTRY, "registry_dir");
    }
    drop_other_boots(r, boot);
    drop_temporary_files(r);
    r->open = true;
    return PM_OK;
}

void pmi_registry_close(struct pmi_registry *r)
{
    pmi_mutex_lock(&r->lock); // Who still waits for a daemon may be about to write its record.
    if (r->open) {
        let_go(r);
        close_dirs(r);
        reset(r);
    }
    pmi_mutex_unlock(&r->lock);
}

// ------------------------------------------------------------------------------------------------
// Writing
// ------------------------------------------------------------------------------------------------

static void describe(const pm_process *p, struct pmi_record *rec)
{
    // The codec only reads.
    rec->key = (char *)p->key;
    rec->owner = (char *)p->owner;
    rec->program = (char *)p->program;
    rec->label = (char *)p->label;
    rec->started_wall_ms = p->started.started_wall_ms;
    rec->detachment = p->started.detachment;
}

static int write_record(struct pmi_os_dir *dir, const struct pmi_record *rec, bool durable,
                        uint32_t *ret_os_code)
{
    char name[PMI_RECORD_NAME_MAX];
    char *text = NULL;
    size_t size = 0;
    int result = pmi_record_encode(rec, &text, &size);
    if (result == PM_OK) {
        pmi_record_file_name(rec->key, name);
        result = pmi_os_file_write(dir, name, text, size, durable, ret_os_code);
    }
    free(text);
    return result;
}

void pmi_registry_log(pm_manager *m, const char *what, const pm_process *p, int code)
{
    pmi_log(m, PM_LOG_ERROR, "registry: %s of '%s' failed: %s", what, p->key, pm_strerror(code));
}

int pmi_registry_put(pm_manager *m, const pm_process *p, enum pmi_record_state state,
                     const struct pmi_identity *id, struct pm_error *err)
{
    struct pmi_registry *r = &m->registry;
    struct pmi_record rec;
    memset(&rec, 0, sizeof rec);
    describe(p, &rec);
    rec.state = state;
    rec.id = *id;
    rec.starter = r->self;
    rec.epoch = r->epoch;
    pmi_mutex_lock(&r->lock);
    int result = write_record(&r->boot, &rec, false, &err->os_code);
    atomic_fetch_add(&r->changes, 1);
    pmi_mutex_unlock(&r->lock);
    if (result != PM_OK) {
        atomic_fetch_add(&m->registry_failures, 1);
        pmi_registry_log(m, "record", p, result);
        return pmi_set_error(err, result, PM_STAGE_REGISTRY, NULL);
    }
    return PM_OK;
}

static void drop_locked(struct pmi_registry *r, const char *key)
{
    char name[PMI_RECORD_NAME_MAX];
    pmi_record_file_name(key, name);
    (void)pmi_os_file_remove(&r->boot, name);
    atomic_fetch_add(&r->changes, 1);
}

void pmi_registry_drop(pm_manager *m, const pm_process *p)
{
    pmi_mutex_lock(&m->registry.lock);
    drop_locked(&m->registry, p->key);
    pmi_mutex_unlock(&m->registry.lock);
}

int pmi_registry_put_exit(pm_manager *m, const pm_process *p)
{
    struct pmi_registry *r = &m->registry;
    struct pmi_record rec;
    memset(&rec, 0, sizeof rec);
    describe(p, &rec);
    rec.state = PMI_RECORD_EXITED;
    if (p->recovered_id != NULL) {
        rec.id = *p->recovered_id;
    } else if (!p->no_os) {
        (void)pmi_os_process_identity(&p->os, &rec.id);
    }
    rec.starter = r->self;
    rec.epoch = r->epoch;
    rec.exit = p->exit;
    pmi_mutex_lock(&r->lock);
    uint32_t os_code = 0;
    int result = r->open ? write_record(&r->exits, &rec, true, &os_code) : PM_ERR_CLOSED;
    if (result == PM_OK) { // Under the same lock: after it the folders may be closed.
        drop_locked(r, p->key);
    }
    pmi_mutex_unlock(&r->lock);
    if (result != PM_OK && result != PM_ERR_CLOSED) {
        atomic_fetch_add(&m->registry_failures, 1);
    }
    return result;
}

// ------------------------------------------------------------------------------------------------
// Reading
// ------------------------------------------------------------------------------------------------

// Reads and checks one record. PM_ERR_CORRUPT: *ret_problem says why.
static int read_record(struct pmi_os_dir *dir, const char *name, struct pmi_record *ret_rec,
                       const char **ret_problem)
{
    char *text = NULL;
    size_t size = 0;
    *ret_problem = NULL;
    int result = pmi_os_file_read(dir, name, PMI_RECORD_SIZE_MAX, &text, &size);
    if (result == PM_ERR_CORRUPT) {
        *ret_problem = "not a regular file of ours, or too large";
    }
    if (result != PM_OK) {
        return result;
    }
    result = pmi_record_decode(text, size, ret_rec, ret_problem);
    free(text);
    if (result == PM_OK) {
        char expected[PMI_RECORD_NAME_MAX];
        pmi_record_file_name(ret_rec->key, expected);
        if (strcmp(expected, name) != 0) {
            *ret_problem = "the file's name is not that of its key";
            pmi_record_clear(ret_rec);
            result = PM_ERR_CORRUPT;
        }
    }
    return result;
}

// Names in a folder, so that it is not changed while it is walked.
struct names {
    char **list;
    size_t count, capacity;
};

static int add_name(void *context, const char *name)
{
    struct names *names = context;
    if (name[0] == '.') {
        return 0; // A temporary file of a write that was cut short.
    }
    if (names->count == names->capacity) {
        size_t capacity = names->capacity * 2 + 16;
        char **grown = realloc(names->list, capacity * sizeof *grown);
        if (grown == NULL) {
            return PM_ERR_NO_MEMORY;
        }
        names->list = grown;
        names->capacity = capacity;
    }
    names->list[names->count] = pmi_strdup(name);
    return names->list[names->count] != NULL ? (names->count++, 0) : PM_ERR_NO_MEMORY;
}

static void free_names(struct names *names)
{
    for (size_t i = 0; i < names->count; i++) {
        free(names->list[i]);
    }
    free(names->list);
}

int pmi_registry_check_key(pm_manager *m, const char *key, struct pm_error *err)
{
    struct pmi_registry *r = &m->registry;
    char name[PMI_RECORD_NAME_MAX];
    struct pmi_record rec;
    const char *problem;
    pmi_record_file_name(key, name);
    pmi_mutex_lock(&r->lock);
    int result = read_record(&r->boot, name, &rec, &problem);
    pmi_mutex_unlock(&r->lock);
    if (result == PM_ERR_NOT_FOUND) {
        return PM_OK;
    }
    if (result == PM_ERR_CORRUPT) {
        (void)snprintf(err->hint, sizeof err->hint,
                       "record %s is damaged (%s): pm_recover() sets it aside", name, problem);
        return pmi_set_error(err, PM_ERR_EXISTS, PM_STAGE_REGISTRY, "key");
    }
    if (result != PM_OK) {
        return pmi_set_error(err, result, PM_STAGE_REGISTRY, NULL);
    }
    bool gone = pmi_os_identity_check(&rec.id) == PM_ERR_GONE;
    if (!gone) {
        err->pid = rec.id.pid;
        (void)snprintf(err->hint, sizeof err->hint, "pid %llu; pm_recover() gives its Handle",
                       (unsigned long long)rec.id.pid);
        result = pmi_set_error(err, PM_ERR_EXISTS, PM_STAGE_REGISTRY, "key");
    }
    pmi_record_clear(&rec);
    return result;
}

// ------------------------------------------------------------------------------------------------
// Recovery
// ------------------------------------------------------------------------------------------------

struct recovery {
    pm_manager *m;
    pm_process_visitor *visit;
    void *user;
    struct pm_recover_report report;
    bool stopped; // By the visitor.
};

// Takes the key, as a start does, so that no start and no other recovery can come between. False:
// somebody has it.
static bool claim(pm_manager *m, pm_process *p)
{
    pmi_mutex_lock(&m->lock);
    bool free_key = !pmi_key_is_taken(m, p->key);
    if (free_key) {
        pmi_list_add(m, p);
    }
    pmi_mutex_unlock(&m->lock);
    return free_key;
}

static void unclaim(pm_manager *m, pm_process *p)
{
    pmi_mutex_lock(&m->lock);
    if (p->listed) {
        pmi_list_remove(m, p);
    }
    pmi_mutex_unlock(&m->lock);
}

// A name, and the highest number of those that it has been set aside under: NAME, NAME.2, NAME.3
// ...
struct set_aside {
    const char *name;
    unsigned long last;
};

static int note_set_aside(void *context, const char *name)
{
    struct set_aside *aside = context;
    size_t length = strlen(aside->name);
    unsigned long number = 0;
    if (strncmp(name, aside->name, length) == 0) {
        number = name[length] == '\0'  ? 1
                 : name[length] == '.' ? strtoul(name + length + 1, NULL, 10)
                                       : 0;
    }
    if (number > aside->last && number < 1000000000ul) {
        aside->last = number;
    }
    return 0;
}

// What is in quarantine already may be all that is known of another daemon. Under the lock.
static int move_aside(struct pmi_registry *r, const char *name)
{
    struct set_aside aside = {.name = name};
    struct pmi_record rec;
    const char *problem;
    char free_name[320];
    int result = read_record(&r->boot, name, &rec, &problem);
    if (result == PM_OK) {
        pmi_record_clear(&rec); // Written anew since we looked.
    }
    if (result != PM_ERR_CORRUPT) {
        return result == PM_OK ? PM_ERR_NOT_FOUND : result;
    }
    result = pmi_os_dir_list(&r->quarantine, note_set_aside, &aside);
    if (result != PM_OK) {
        return result;
    }
    (void)snprintf(free_name, sizeof free_name, aside.last == 0 ? "%s" : "%s.%lu", name,
                   aside.last + 1);
    return pmi_os_file_move(&r->boot, name, &r->quarantine, free_name);
}

static void quarantine(struct recovery *rc, const char *name, const char *problem)
{
    struct pmi_registry *r = &rc->m->registry;
    char detail[512];
    (void)snprintf(detail, sizeof detail, "record %s set aside: %s", name, problem);
    pmi_mutex_lock(&r->lock);
    int result = move_aside(r, name);
    pmi_mutex_unlock(&r->lock);
    if (result == PM_ERR_NOT_FOUND) {
        return; // Another recovery was faster.
    }
    if (result != PM_OK) {
        (void)snprintf(detail, sizeof detail, "record %s is not trusted: %s", name, problem);
    }
    rc->report.quarantined++;
    pmi_log(rc->m, PM_LOG_WARNING, "registry: %s", detail);
    pmi_event_post_detail(rc->m, PM_EVENT_QUARANTINED, 0, detail);
}

static pm_process *from_record(pm_manager *m, const struct pmi_record *rec)
{
    pm_process *p = pmi_process_new(m);
    if (p == NULL) {
        return NULL;
    }
    p->recovered_id = malloc(sizeof *p->recovered_id);
    if (p->recovered_id == NULL ||
        pmi_process_text(p, rec->owner, rec->program, rec->key, rec->label) != PM_OK) {
        pmi_process_drop(p);
        return NULL;
    }
    p->mode = PM_MODE_DAEMON;
    p->recovered = true;
    *p->recovered_id = rec->id;
    p->pid = rec->id.pid;
    p->started.started_wall_ms = rec->started_wall_ms;
    p->started.started_ms = pmi_now_ms();
    p->started.detachment = rec->detachment;
    return p;
}

static void count_recovered(pm_manager *m)
{
    pmi_mutex_lock(&m->lock);
    m->stats.recovered++;
    m->stats.modes[PM_MODE_DAEMON].recovered++;
    pmi_mutex_unlock(&m->lock);
}

static int show(struct recovery *rc, pm_process *p)
{
    int result = rc->visit != NULL ? rc->visit(rc->user, p) : 0;
    rc->stopped = result != 0;
    return result;
}

static int recover_living(struct recovery *rc, pm_process *p, struct pmi_os_process *op,
                          const struct pmi_started *started)
{
    pm_manager *m = rc->m;
    p->os = *op;
    p->started.containment = started->containment;
    p->started.adopted = started->adopted;
    p->started.best_effort = started->best_effort;
    p->started.fallbacks = started->fallbacks;
    // Proven, but dead: its parent has not waited for it yet, so its status may still be told.
    bool dead = pmi_os_process_wait(&p->os, 0) == PM_OK;
    int result = pmi_reactor_add(m, p);
    if (result != PM_OK) {
        unclaim(m, p); // Found by nobody: not running yet.
        return result;
    }
    pmi_mutex_lock(&p->lock);
    if (atomic_load(&p->state) == PM_STATE_STARTING) { // Else its end has been seen already.
        pmi_process_set_state(p, PM_STATE_RUNNING);
    }
    pmi_mutex_unlock(&p->lock);
    count_recovered(m);
    pmi_event_post_started(p, PM_EVENT_RECOVERED);
    if (dead) {
        rc->report.ended++;
    } else {
        rc->report.alive++;
    }
    return show(rc, p);
}

// The exit record that an earlier manager has written, and was killed before it took the other one
// away. PM_ERR_NOT_FOUND: there is none that can be trusted; else it may be there.
static int find_exit(struct recovery *rc, const pm_process *p, const char *name,
                     struct pm_exit *ret_record)
{
    struct pmi_record own;
    const char *problem;
    const struct pmi_identity *id = p->recovered_id;
    int result = read_record(&rc->m->registry.exits, name, &own, &problem);
    if (result != PM_OK) {
        return result == PM_ERR_CORRUPT ? PM_ERR_NOT_FOUND : result;
    }
    bool same = own.id.pid == id->pid && own.id.start == id->start && own.id.pidns == id->pidns &&
                strcmp(own.id.boot, id->boot) == 0;
    if (same) {
        *ret_record = own.exit;
    }
    pmi_record_clear(&own);
    return same ? PM_OK : PM_ERR_NOT_FOUND;
}

static int recover_dead(struct recovery *rc, pm_process *p, const struct pm_exit *record)
{
    p->no_os = true;
    (void)pm_process_ref(p); // Listed as long as the visit lasts, or longer if it takes one too.
    count_recovered(rc->m);
    pmi_process_end(p, record);
    rc->report.ended++;
    int result = show(rc, p);
    (void)pm_process_unref(p);
    return result;
}

// `started` NULL: it is gone. What was told of its end once is what is told, also of a zombie whose
// parent does not wait for it; of one that nobody has seen end, that nobody knows.
static int recover_running(struct recovery *rc, pm_process *p, struct pmi_os_process *op,
                           const struct pmi_started *started, const char *name)
{
    struct pm_exit record = PM_EXIT_INIT;
    record.kind = PM_EXIT_LOST;
    if (started != NULL && pmi_os_process_wait(op, 0) != PM_OK) {
        return recover_living(rc, p, op, started);
    }
    int result = find_exit(rc, p, name, &record);
    if (started != NULL && result == PM_ERR_NOT_FOUND) {
        return recover_living(rc, p, op, started);
    }
    if (started != NULL) {
        pmi_os_process_close(op);
    }
    if (result == PM_OK || result == PM_ERR_NOT_FOUND) {
        return recover_dead(rc, p, &record);
    }
    unclaim(rc->m, p); // Found by nobody: nothing is deleted.
    return result;
}

// Nobody was ever told of this one: its starter died in the middle.
static void drop_starting(struct recovery *rc, struct pmi_os_process *op, const char *name)
{
    struct pmi_registry *r = &rc->m->registry;
    pmi_os_process_abandon(op); // Does nothing to one that is gone.
    pmi_mutex_lock(&r->lock);
    (void)pmi_os_file_remove(&r->boot, name);
    atomic_fetch_add(&r->changes, 1);
    pmi_mutex_unlock(&r->lock);
    rc->report.dropped++;
}

// Decides about one record whose key is claimed.
static int recover_claimed(struct recovery *rc, pm_process *p, const struct pmi_record *rec,
                           const char *name)
{
    pm_manager *m = rc->m;
    struct pmi_os_process op = PMI_OS_PROCESS_INIT;
    struct pmi_started started;
    memset(&started, 0, sizeof started);
    int result = pmi_os_process_open(&m->os, &rec->id, &op, &started);
    if (rec->state != PMI_RECORD_STARTING && (result == PM_OK || result == PM_ERR_GONE)) {
        return recover_running(rc, p, &op, result == PM_OK ? &started : NULL, name);
    }
    if (result == PM_OK || result == PM_ERR_GONE) {
        drop_starting(rc, &op, name);
        result = PM_OK;
    } else if (result == PM_ERR_IDENTITY) {
        rc->report.unproven++;
        pmi_log(m, PM_LOG_WARNING, "registry: pid %llu of '%s' cannot be proven; left alone",
                (unsigned long long)rec->id.pid, rec->key);
        result = PM_OK;
    } // Else a transient error: nothing is deleted.
    unclaim(m, p);
    return result;
}

// The key is claimed: the record still is the one that was read before, or nothing is done.
static int recover_if_same(struct recovery *rc, pm_process *p, const struct pmi_record *rec,
                           const char *name)
{
    struct pmi_record now;
    const char *problem;
    int result = read_record(&rc->m->registry.boot, name, &now, &problem);
    if (result != PM_OK) {
        unclaim(rc->m, p);
        return result == PM_ERR_NOT_FOUND ? PM_OK : result; // It has ended meanwhile.
    }
    if (now.id.pid == rec->id.pid && now.id.start == rec->id.start) {
        result = recover_claimed(rc, p, &now, name);
    } else {
        unclaim(rc->m, p); // Ended and started anew: likewise.
    }
    pmi_record_clear(&now);
    return result;
}

// Claims the key first. `changes`: how many there had been when the record was read.
static int recover_record(struct recovery *rc, const struct pmi_record *rec, const char *name,
                          unsigned changes)
{
    pm_process *p = from_record(rc->m, rec);
    if (p == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    int result = PM_OK;
    if (claim(rc->m, p)) {
        result = atomic_load(&rc->m->registry.changes) == changes
                     ? recover_claimed(rc, p, rec, name)
                     : recover_if_same(rc, p, rec, name);
    }
    pmi_process_drop(p);
    return result;
}

static int recover_one(struct recovery *rc, const char *name)
{
    struct pmi_record rec;
    const char *problem;
    unsigned changes = atomic_load(&rc->m->registry.changes);
    int result = read_record(&rc->m->registry.boot, name, &rec, &problem);
    if (result == PM_ERR_CORRUPT) {
        quarantine(rc, name, problem);
        return PM_OK;
    }
    if (result == PM_ERR_NOT_FOUND) {
        return PM_OK; // It ended while we were looking.
    }
    if (result == PM_OK) {
        result = recover_record(rc, &rec, name, changes);
        pmi_record_clear(&rec);
    }
    return result;
}

PM_API int pm_recover(pm_manager *m, pm_process_visitor *visit, void *user,
                      struct pm_recover_report *ret_report)
{
    int result = pmi_check_manager(m);
    if (result == PM_OK && !m->registry.open) {
        result = PM_ERR_NO_REGISTRY;
    }
    if (result != PM_OK) {
        return result;
    }
    struct recovery rc = {.m = m, .visit = visit, .user = user};
    rc.report.size = sizeof rc.report;
    struct names names = {0};
    int cancel = pmi_cancel_off();
    result = pmi_os_dir_list(&m->registry.boot, add_name, &names);
    for (size_t i = 0; i < names.count; i++) {
        int one = recover_one(&rc, names.list[i]);
        if (rc.stopped || (one != PM_OK && pmi_check_manager(m) != PM_OK)) {
            result = one;
            break;
        }
        if (one != PM_OK) { // It hides no other.
            pmi_log(m, PM_LOG_WARNING, "registry: record %s is left for later: %s", names.list[i],
                    pm_error_name(one));
            result = result != PM_OK ? result : one;
        }
    }
    free_names(&names);
    pmi_cancel_restore(cancel);
    if (ret_report != NULL) {
        (void)pmi_copy_out(ret_report, &rc.report, sizeof rc.report);
    }
    return result;
}

static int forget(pm_manager *m, const char *key)
{
    pmi_key_await(m, key, PMI_NEVER);
    pmi_mutex_lock(&m->lock);
    bool listed = pmi_key_is_taken(m, key);
    pmi_mutex_unlock(&m->lock);
    struct pm_error err = PM_ERROR_INIT; // One of an earlier manager may not be recovered yet.
    int result = listed ? PM_ERR_EXISTS : pmi_registry_check_key(m, key, &err);
    if (result != PM_OK) {
        return result == PM_ERR_EXISTS ? PM_ERR_BUSY : result;
    }
    char name[PMI_RECORD_NAME_MAX];
    pmi_record_file_name(key, name);
    pmi_mutex_lock(&m->registry.lock);
    result = pmi_os_file_remove(&m->registry.exits, name);
    pmi_mutex_unlock(&m->registry.lock);
    return result;
}

PM_API int pm_forget(pm_manager *m, const char *key)
{
    int result = pmi_check_manager(m);
    if (result != PM_OK || key == NULL || key[0] == '\0') {
        return result != PM_OK ? result : PM_ERR_INVALID;
    }
    if (!m->registry.open) {
        return PM_ERR_NO_REGISTRY;
    }
    int cancel = pmi_cancel_off();
    result = forget(m, key);
    pmi_cancel_restore(cancel);
    return result;
}

// ------------------------------------------------------------------------------------------------
// Readers without the lock
// ------------------------------------------------------------------------------------------------

static enum pm_proof prove(const struct pmi_identity *id)
{
    int result = pmi_os_identity_check(id);
    return result == PM_OK         ? PM_PROOF_ALIVE
           : result == PM_ERR_GONE ? PM_PROOF_DEAD
                                   : PM_PROOF_UNPROVEN;
}

static int show_entry(struct pmi_os_dir *dir, const char *name, bool trusted_folder,
                      pm_registry_visitor *visit, void *user)
{
    static const char *const states[] = {"starting", "running", "exited"};
    struct pmi_record rec;
    struct pm_registry_entry entry;
    memset(&entry, 0, sizeof entry);
    entry.file = name;
    const char *problem = NULL;
    int result = read_record(dir, name, &rec, &problem);
    if (result == PM_ERR_NOT_FOUND) {
        return 0;
    }
    if (result != PM_OK) {
        entry.state = "quarantined";
        entry.problem = problem != NULL ? problem : pm_strerror(result);
        return visit(user, &entry);
    }
    entry.state = trusted_folder ? states[rec.state] : "quarantined";
    entry.problem = trusted_folder ? NULL : "set aside by an earlier recovery";
    entry.key = rec.key;
    entry.owner = rec.owner;
    entry.program = rec.program;
    entry.label = rec.label;
    entry.pid = rec.id.pid;
    entry.started_wall_ms = rec.started_wall_ms;
    entry.record = rec.state == PMI_RECORD_EXITED ? &rec.exit : NULL;
    entry.proof = trusted_folder ? prove(&rec.id) : PM_PROOF_NONE;
    entry.start = rec.id.start;
    entry.object = rec.id.pidfs;
    entry.detachment = rec.detachment;
    result = visit(user, &entry);
    pmi_record_clear(&rec);
    return result;
}

static int show_folder(struct pmi_os_dir *root, const char *name, bool trusted,
                       pm_registry_visitor *visit, void *user)
{
    struct pmi_os_dir dir = PMI_OS_DIR_INIT;
    int result = pmi_os_dir_open_sub(root, name, false, &dir);
    if (result == PM_ERR_NOT_FOUND) {
        return PM_OK;
    }
    if (result != PM_OK) {
        return result;
    }
    struct names names = {0};
    result = pmi_os_dir_list(&dir, add_name, &names);
    for (size_t i = 0; i < names.count && result == 0; i++) {
        result = show_entry(&dir, names.list[i], trusted, visit, user);
    }
    free_names(&names);
    pmi_os_dir_close(&dir);
    return result;
}

PM_API int pm_registry_list(const char *registry_dir, pm_registry_visitor *visit, void *user)
{
    if (registry_dir == NULL || visit == NULL) {
        return PM_ERR_INVALID;
    }
    struct pm_error err = PM_ERROR_INIT;
    struct pmi_os_dir root = PMI_OS_DIR_INIT;
    char boot_id[40];
    char boot[64];
    int cancel = pmi_cancel_off();
    int result = pmi_os_boot_id(boot_id);
    if (result == PM_OK) {
        boot_folder(boot_id, boot);
        result = pmi_os_dir_open(registry_dir, false, &root, &err);
    }
    if (result == PM_OK) {
        result = show_folder(&root, boot, true, visit, user);
        if (result == 0) {
            result = show_folder(&root, "exits", true, visit, user);
        }
        if (result == 0) {
            result = show_folder(&root, "quarantine", false, visit, user);
        }
        pmi_os_dir_close(&root);
    }
    pmi_cancel_restore(cancel);
    return result;
}

PM_API int pm_registry_owner(const char *registry_dir, struct pm_registry_owner *ret_owner)
{
    struct pm_error err = PM_ERROR_INIT;
    struct pmi_registry r;
    struct pmi_identity id;
    uint64_t epoch = 0;
    if (registry_dir == NULL || ret_owner == NULL) {
        return PM_ERR_INVALID;
    }
    reset(&r);
    int cancel = pmi_cancel_off();
    int result = pmi_os_dir_open(registry_dir, false, &r.root, &err);
    if (result == PM_OK) {
        result = read_owner(&r, &id, &epoch);
        pmi_os_dir_close(&r.root);
    }
    if (result == PM_OK) {
        struct pm_registry_owner owner = {.size = sizeof owner,
                                          .pid = id.pid,
                                          .start = id.start,
                                          .epoch = epoch,
                                          .proof = prove(&id)};
        result = pmi_copy_out(ret_owner, &owner, sizeof owner);
    }
    pmi_cancel_restore(cancel);
    return result;
}
