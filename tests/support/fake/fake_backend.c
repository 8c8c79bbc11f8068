#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"

#define WATCHED_MAX 2048

struct fake_script fake_next;
int64_t fake_clock;
struct fake_delivery fake_deliveries[64];
size_t fake_deliveries_count;
int fake_start_error, fake_start_stage;
unsigned fake_reaps, fake_reap_calls, fake_closed, fake_started, fake_steps, fake_transfers;
struct fake_hooks fake_hooks;
static struct pmi_os_process *watched[WATCHED_MAX];
static size_t watched_count;
static uint64_t next_pid;

void fake_script_clear(struct fake_script *script)
{
    memset(script, 0, sizeof *script);
    script->exits_at = FAKE_NEVER;
    for (int i = 0; i < FAKE_ACTIONS; i++) {
        script->dies_after[i] = FAKE_NEVER;
        script->tree_dies_after[i] = FAKE_NEVER;
    }
    script->dies_after[PM_STOP_KILL] = 0;
    script->tree_dies_after[PM_STOP_KILL] = 0;
}

void fake_reset(void)
{
    fake_script_clear(&fake_next);
    fake_clock = 1000;
    fake_deliveries_count = 0;
    fake_start_error = 0;
    memset(&fake_hooks, 0, sizeof fake_hooks);
    fake_reaps = fake_reap_calls = fake_closed = fake_started = fake_steps = fake_transfers = 0;
    watched_count = 0;
    next_pid = 100;
}

void fake_kill(uint64_t pid)
{
    for (size_t i = 0; i < watched_count; i++) {
        if (watched[i]->pid == pid) {
            watched[i]->dies_at = fake_clock;
        }
    }
}

int64_t pmi_now_ms(void)
{
    return fake_clock;
}

int64_t pmi_now_us(void)
{
    return fake_clock * 1000;
}

int64_t pmi_wall_ms(void)
{
    return 1000000000000 + fake_clock;
}

void pmi_sleep_ms(uint32_t ms)
{
    fake_clock += ms;
}

static void call(void (*hook)(void *user))
{
    if (hook != NULL) {
        hook(fake_hooks.user);
    }
}

static int64_t first_death(void)
{
    int64_t first = FAKE_NEVER;
    for (size_t i = 0; i < watched_count; i++) {
        first = watched[i]->dies_at < first ? watched[i]->dies_at : first;
    }
    return first;
}

// One thread: a lock that is taken twice, or a wait that nobody could end, is a defect of the core.
void pmi_mutex_init(struct pmi_mutex *m)
{
    m->held = 0;
}

void pmi_mutex_destroy(struct pmi_mutex *m)
{
    if (m->held) {
        abort();
    }
}

void pmi_mutex_lock(struct pmi_mutex *m)
{
    if (m->held) {
        (void)fprintf(stderr, "fake backend: a lock is taken twice\n");
        abort();
    }
    m->held = 1;
}

void pmi_mutex_unlock(struct pmi_mutex *m)
{
    if (!m->held) {
        abort();
    }
    m->held = 0;
}

void pmi_cond_init(struct pmi_cond *c)
{
    c->unused = 0;
}

void pmi_cond_destroy(struct pmi_cond *c)
{
    (void)c;
}

void pmi_cond_wait(struct pmi_cond *c, struct pmi_mutex *m, int64_t deadline)
{
    (void)c;
    if (!m->held || deadline == PMI_NEVER) {
        abort();
    }
    int64_t until = first_death() < deadline ? first_death() : deadline; // Somebody is told of it.
    fake_clock = until > fake_clock ? until : fake_clock;
}

void pmi_cond_broadcast(struct pmi_cond *c)
{
    (void)c;
}

int pmi_thread_start(struct pmi_thread *t, void (*run)(void *), void *arg)
{
    (void)t;
    (void)run;
    (void)arg;
    return PM_ERR_UNSUPPORTED;
}

void pmi_thread_join(struct pmi_thread *t)
{
    (void)t;
}

uint64_t pmi_thread_self(void)
{
    return 1;
}

int pmi_cancel_off(void)
{
    return 0;
}

void pmi_cancel_restore(int state)
{
    (void)state;
}

void pmi_guarded(void (*body)(void *), void (*undo)(void *), void *arg)
{
    body(arg);
    undo(arg);
}

uint64_t pmi_self_pid(void)
{
    return 1;
}

uint64_t pmi_self(void)
{
    return 1;
}

void pmi_os_forget_parent(void)
{
}

void pmi_os_error_text(uint32_t os_code, char *buffer, size_t capacity)
{
    (void)snprintf(buffer, capacity, os_code == 2 ? "No such file or directory" : "OS error %u",
                   (unsigned)os_code);
}

int pmi_os_environ(const char *const **ret_env)
{
    static const char *const env[] = {"PATH=/bin", NULL};
    *ret_env = env;
    return PM_OK;
}

void pmi_os_environ_free(const char *const *env)
{
    (void)env;
}

bool pmi_os_env_folds_case(void)
{
    return false;
}

static int copy_text(const char *text, char **ret)
{
    *ret = malloc(strlen(text) + 1);
    if (*ret == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    memcpy(*ret, text, strlen(text) + 1);
    return PM_OK;
}

int pmi_os_search(const struct pm_spec *spec, const char *cwd, const char *const *env,
                  char **ret_path, struct pm_error *err)
{
    (void)cwd;
    (void)env;
    (void)err;
    return copy_text(spec->program, ret_path);
}

int pmi_os_absolute(const char *path, char **ret_path, uint32_t *ret_os_code)
{
    (void)ret_os_code;
    return copy_text(path != NULL ? path : "/", ret_path);
}

int pmi_os_default_state_dir(const char *app, char **ret_path)
{
    return copy_text(app, ret_path);
}

int pmi_os_boot_id(char boot[40])
{
    (void)snprintf(boot, 40, "fake");
    return PM_OK;
}

int pmi_os_self_identity(struct pmi_identity *ret_id)
{
    memset(ret_id, 0, sizeof *ret_id);
    (void)pmi_os_boot_id(ret_id->boot);
    ret_id->pid = 1;
    return PM_OK;
}

int pmi_os_identity_check(const struct pmi_identity *id)
{
    (void)id;
    return PM_ERR_GONE;
}

int pmi_os_manager_open(struct pmi_os_manager *om, const struct pmi_os_manager_options *options,
                        struct pm_error *err)
{
    (void)options;
    (void)err;
    om->wake = false;
    return PM_OK;
}

void pmi_os_manager_close(struct pmi_os_manager *om)
{
    (void)om;
}

int pmi_os_reactor_watch(struct pmi_os_manager *om, struct pmi_os_process *op, void *token)
{
    (void)om;
    if (watched_count == WATCHED_MAX) {
        return PM_ERR_NO_MEMORY;
    }
    call(fake_hooks.on_watch);
    op->watched = true;
    op->token = token;
    watched[watched_count++] = op;
    return PM_OK;
}

void pmi_os_reactor_unwatch(struct pmi_os_manager *om, struct pmi_os_process *op)
{
    (void)om;
    for (size_t i = 0; i < watched_count; i++) {
        if (watched[i] == op) {
            watched[i] = watched[--watched_count];
            op->watched = false;
            return;
        }
    }
}

int pmi_os_reactor_pause(struct pmi_os_manager *om, struct pmi_os_process *op, void *token,
                         bool pause)
{
    (void)om;
    (void)op;
    (void)token;
    (void)pause;
    return PM_OK;
}

bool pmi_os_reactor_hold(struct pmi_os_manager *om)
{
    (void)om;
    return false;
}

void pmi_os_reactor_release(struct pmi_os_manager *om)
{
    (void)om;
}

void pmi_os_reactor_done(struct pmi_os_manager *om)
{
    (void)om;
}

size_t pmi_os_reactor_poll(struct pmi_os_manager *om, void **tokens, size_t capacity,
                           int64_t deadline)
{
    int64_t first = first_death();
    if (!om->wake) {
        int64_t until = first < deadline ? first : deadline;
        if (until == FAKE_NEVER) {
            abort(); // Nobody could ever end this wait.
        }
        fake_clock = until > fake_clock ? until : fake_clock;
    }
    om->wake = false;
    size_t count = 0;
    for (size_t i = 0; i < watched_count && count < capacity; i++) {
        if (watched[i]->dies_at <= fake_clock) {
            tokens[count++] = watched[i]->token;
        }
    }
    return count;
}

void pmi_os_reactor_wake(struct pmi_os_manager *om)
{
    om->wake = true;
}

int pmi_os_reactor_native(struct pmi_os_manager *om, pm_native *ret_native)
{
    (void)om;
    *ret_native = 7;
    return PM_OK;
}

enum pm_containment pmi_os_containment_offered(const struct pmi_plan *plan)
{
    return plan->group == PM_GROUP_HOST ? PM_CONTAIN_NONE : PM_CONTAIN_GROUP;
}

bool pmi_os_orphans_collect(struct pmi_os_manager *om, uint64_t *ret_reaped)
{
    (void)om;
    *ret_reaped = 0;
    return false;
}

bool pmi_os_process_stopped(struct pmi_os_process *op)
{
    (void)op;
    return false;
}

void pmi_os_process_step_back(struct pmi_os_process *op)
{
    (void)op;
}

// Nobody reads stdin, and a byte takes its time.
static void transfer_output(struct pmi_transfer *t, const struct pmi_os_process *op,
                            uint32_t drain_ms)
{
    int64_t closed = op->script.holds_output > op->dies_at ? op->script.holds_output : op->dies_at;
    int64_t silence = op->dies_at > t->stream->byte_at ? op->dies_at : t->stream->byte_at;
    bool dead = op->dies_at <= fake_clock;
    if (op->script.output_fails ||
        (op->script.fails_at != 0 && fake_clock >= op->script.fails_at)) {
        t->result = PM_ERR_IO;
        t->ended = true;
    } else if (closed <= fake_clock) {
        t->ended = true;
    } else if (op->script.output_every != 0 &&
               fake_clock - t->stream->byte_at >= op->script.output_every) {
        t->stream->byte_at = fake_clock;
        ((char *)t->input)[0] = 'b';
        t->count = 1;
    } else if (dead && fake_clock - silence >= (int64_t)drain_ms) {
        t->ended = t->truncated = true;
    }
}

static int64_t sooner(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void pmi_os_streams_transfer(struct pmi_transfer transfers[3], struct pmi_os_process *op,
                             bool watch_exit, int64_t deadline, uint32_t drain_ms)
{
    bool moved = watch_exit && op->dies_at <= fake_clock, waits_for_bytes = false;
    fake_transfers++;
    for (int i = 1; i < 3; i++) {
        struct pmi_transfer *t = &transfers[i];
        if (t->stream != NULL) {
            transfer_output(t, op, drain_ms);
            moved |= t->ended || t->count > 0;
            waits_for_bytes = true;
        }
    }
    int64_t until = watch_exit ? sooner(deadline, op->dies_at) : deadline;
    if (waits_for_bytes) { // Whatever comes first of a byte, an end and the end of a silence.
        int64_t step = op->script.output_every != 0 || op->dies_at <= fake_clock ? 1 : FAKE_NEVER;
        until = step == FAKE_NEVER ? until : sooner(until, fake_clock + step);
        until = sooner(until,
                       op->script.holds_output > fake_clock ? op->script.holds_output : FAKE_NEVER);
    }
    if (!moved && until == FAKE_NEVER) {
        abort(); // Nobody could ever end this wait.
    }
    if (!moved && until > fake_clock) {
        fake_clock = until;
    }
}

int pmi_os_terminal_resize(struct pmi_os_process *op, unsigned columns, unsigned rows)
{
    (void)op;
    (void)columns;
    (void)rows;
    return PM_ERR_GONE;
}

void pmi_os_terminal_close(struct pmi_os_process *op)
{
    (void)op;
}

int pmi_os_check_options(const struct pm_spec *spec, struct pm_error *err)
{
    (void)spec;
    (void)err;
    return PM_OK;
}

int pmi_os_start(struct pmi_os_manager *om, const struct pmi_plan *plan, struct pmi_os_process *op,
                 struct pmi_os_stream streams[3], struct pmi_started *ret_started,
                 struct pm_error *err)
{
    (void)om;
    if (fake_start_error != 0) {
        err->code = fake_start_error;
        err->stage = (enum pm_stage)fake_start_stage;
        fake_start_error = 0;
        return err->code;
    }
    memset(op, 0, sizeof *op);
    op->used = true;
    op->script = fake_next;
    op->pid = next_pid++;
    op->dies_at = op->script.exits_at;
    op->tree_dies_at = op->script.has_tree ? FAKE_NEVER : 0;
    for (int i = 0; i < 3; i++) {
        streams[i].open = plan->slots[i].kind == PM_STDIO_PIPE;
    }
    ret_started->containment = pmi_os_containment_offered(plan);
    ret_started->started_ms = fake_clock;
    ret_started->started_wall_ms = pmi_wall_ms();
    fake_started++;
    return PM_OK;
}

int pmi_os_daemon_commit(struct pmi_os_process *op, struct pm_error *err)
{
    (void)op;
    (void)err;
    return PM_OK;
}

void pmi_os_process_abandon(struct pmi_os_process *op)
{
    pmi_os_process_close(op);
}

int pmi_os_process_open(struct pmi_os_manager *om, const struct pmi_identity *id,
                        struct pmi_os_process *op, struct pmi_started *ret_started)
{
    (void)om;
    (void)id;
    (void)op;
    (void)ret_started;
    return PM_ERR_GONE;
}

int pmi_os_process_identity(const struct pmi_os_process *op, struct pmi_identity *ret_id)
{
    (void)pmi_os_self_identity(ret_id);
    ret_id->pid = op->pid;
    return PM_OK;
}

bool pmi_os_process_status_taken(const struct pmi_os_process *op)
{
    (void)op;
    return false;
}

uint32_t pmi_os_process_fallbacks(const struct pmi_os_process *op)
{
    (void)op;
    return 0;
}

uint64_t pmi_os_process_pid(const struct pmi_os_process *op)
{
    return op->pid;
}

int pmi_os_process_wait(struct pmi_os_process *op, int64_t deadline)
{
    if (op->dies_at <= fake_clock) {
        return PM_OK;
    }
    int64_t until = op->dies_at < deadline ? op->dies_at : deadline;
    if (until == FAKE_NEVER) {
        abort();
    }
    fake_clock = until > fake_clock ? until : fake_clock;
    if (op->dies_at <= fake_clock) {
        return PM_OK;
    }
    call(fake_hooks.on_alive);
    return PM_ERR_TIMEOUT;
}

int pmi_os_process_reap(struct pmi_os_process *op, struct pm_exit *ret_exit)
{
    fake_reap_calls++;
    if (op->dies_at > fake_clock) {
        return PM_ERR_TIMEOUT;
    }
    if (op->script.status_at > fake_clock) {
        return PM_ERR_STATUS_PENDING;
    }
    if (op->reaped) {
        abort(); // One start, one wait.
    }
    op->reaped = true;
    fake_reaps++;
    ret_exit->kind = PM_EXIT_EXITED;
    ret_exit->code = op->script.code;
    return PM_OK;
}

static int64_t later(int64_t ms)
{
    return ms == FAKE_NEVER ? FAKE_NEVER : fake_clock + ms;
}

// A delivery that takes time; its process may be gone before.
struct pmi_os_step {
    int64_t at;
    int result;
};

int pmi_os_process_act(struct pmi_os_process *op, enum pm_stop_action action,
                       enum pm_stop_scope scope, struct pmi_os_step **ret_step)
{
    int64_t takes = op->script.delivery[action];
    int result = op->script.undeliverable[action];
    call(fake_hooks.on_act);
    if (fake_deliveries_count < sizeof fake_deliveries / sizeof fake_deliveries[0]) {
        fake_deliveries[fake_deliveries_count++] =
            (struct fake_delivery){fake_clock, op->pid, (int)action, (int)scope};
    }
    if (takes != 0) {
        struct pmi_os_step *step = malloc(sizeof *step);
        if (step == NULL) {
            return PM_ERR_NO_MEMORY;
        }
        *step = (struct pmi_os_step){fake_clock + takes, result};
        *ret_step = step;
        fake_steps++;
    } else if (result != 0) {
        return result;
    }
    if (result != 0) {
        return PM_OK; // It will be told.
    }
    int64_t at = later(op->script.dies_after[action]);
    at = at == FAKE_NEVER ? at : at + takes;
    op->dies_at = at < op->dies_at ? at : op->dies_at;
    if (scope == PM_SCOPE_TREE) {
        int64_t tree_at = later(op->script.tree_dies_after[action]);
        op->tree_dies_at = tree_at < op->tree_dies_at ? tree_at : op->tree_dies_at;
    }
    return PM_OK;
}

int pmi_os_step_poll(struct pmi_os_step *step)
{
    return fake_clock < step->at ? PM_ERR_TIMEOUT : step->result;
}

void pmi_os_step_end(struct pmi_os_step *step)
{
    if (step != NULL) {
        fake_steps--;
        free(step);
    }
}

int pmi_os_process_signal(struct pmi_os_process *op, int signal_number, enum pm_stop_scope scope)
{
    // Whether it is there: asked of the process itself, by no signal.
    return signal_number == 0 && scope == PM_SCOPE_PROCESS ? op->script.signal_result : PM_OK;
}

bool pmi_os_process_tree_alive(struct pmi_os_process *op)
{
    return op->tree_dies_at > fake_clock;
}

void pmi_os_round_begin(void)
{
}

void pmi_os_round_end(void)
{
}

int pmi_os_process_waitable(struct pmi_os_process *op, pm_native *ret_native)
{
    *ret_native = (pm_native)op->pid;
    return PM_OK;
}

void pmi_os_process_close(struct pmi_os_process *op)
{
    if (op->used) {
        fake_closed++;
        op->used = false;
    }
}

int pmi_os_stream_read(struct pmi_os_stream *s, struct pmi_os_process *op, void *buffer,
                       size_t capacity, int64_t deadline, uint32_t drain_ms, size_t *ret_count,
                       bool *ret_truncated)
{
    (void)s;
    (void)op;
    (void)buffer;
    (void)capacity;
    (void)drain_ms;
    (void)ret_truncated;
    fake_clock = deadline > fake_clock ? deadline : fake_clock;
    *ret_count = 0;
    return PM_ERR_TIMEOUT;
}

int pmi_os_stream_write(struct pmi_os_stream *s, const void *data, size_t size, int64_t deadline,
                        size_t *ret_count)
{
    (void)s;
    (void)data;
    (void)deadline;
    *ret_count = size;
    return PM_OK;
}

int pmi_os_stream_finish(struct pmi_os_stream *s, const struct pmi_os_process *op)
{
    if (op->script.end_room_at > fake_clock) {
        return PM_ERR_TIMEOUT;
    }
    if (s->open && op->script.end_room_at != 0) {
        ((struct pmi_os_process *)(uintptr_t)op)->dies_at = fake_clock;
    }
    return PM_OK;
}

pm_native pmi_os_stream_native(const struct pmi_os_stream *s)
{
    return s->open ? 9 : PM_NATIVE_INVALID;
}

bool pmi_os_stream_is_open(const struct pmi_os_stream *s)
{
    return s->open;
}

pm_native pmi_os_stream_take(struct pmi_os_stream *s, struct pmi_os_process *op)
{
    (void)op;
    s->open = false;
    return 9;
}

void pmi_os_stream_close(struct pmi_os_stream *s)
{
    s->open = false;
}

int pmi_os_dir_open(const char *path, bool create, struct pmi_os_dir *ret_dir, struct pm_error *err)
{
    (void)path;
    (void)create;
    (void)ret_dir;
    (void)err;
    return PM_ERR_UNSUPPORTED;
}

int pmi_os_dir_open_sub(struct pmi_os_dir *dir, const char *name, bool create,
                        struct pmi_os_dir *ret_dir)
{
    (void)dir;
    (void)name;
    (void)create;
    (void)ret_dir;
    return PM_ERR_UNSUPPORTED;
}

void pmi_os_dir_close(struct pmi_os_dir *dir)
{
    (void)dir;
}

int pmi_os_dir_list(struct pmi_os_dir *dir, int (*visit)(void *context, const char *name),
                    void *context)
{
    (void)dir;
    (void)visit;
    (void)context;
    return PM_OK;
}

int pmi_os_file_read(struct pmi_os_dir *dir, const char *name, size_t cap, char **ret_data,
                     size_t *ret_size)
{
    (void)dir;
    (void)name;
    (void)cap;
    (void)ret_data;
    (void)ret_size;
    return PM_ERR_NOT_FOUND;
}

int pmi_os_file_write(struct pmi_os_dir *dir, const char *name, const void *data, size_t size,
                      bool durable, uint32_t *ret_os_code)
{
    (void)dir;
    (void)name;
    (void)data;
    (void)size;
    (void)durable;
    (void)ret_os_code;
    return PM_ERR_UNSUPPORTED;
}

int pmi_os_file_remove(struct pmi_os_dir *dir, const char *name)
{
    (void)dir;
    (void)name;
    return PM_ERR_NOT_FOUND;
}

int pmi_os_file_move(struct pmi_os_dir *dir, const char *name, struct pmi_os_dir *to_dir,
                     const char *to_name)
{
    (void)dir;
    (void)name;
    (void)to_dir;
    (void)to_name;
    return PM_ERR_NOT_FOUND;
}

int pmi_os_dir_remove_sub(struct pmi_os_dir *dir, const char *name)
{
    (void)dir;
    (void)name;
    return PM_OK;
}

int pmi_os_lock_try(struct pmi_os_dir *dir, const char *name, struct pmi_os_lock *ret_lock)
{
    (void)dir;
    (void)name;
    (void)ret_lock;
    return PM_ERR_UNSUPPORTED;
}

int pmi_os_lock_write(struct pmi_os_lock *lock, const void *data, size_t size)
{
    (void)lock;
    (void)data;
    (void)size;
    return PM_OK;
}

void pmi_os_lock_release(struct pmi_os_lock *lock)
{
    (void)lock;
}

int pmi_os_zombies(void (*visit)(void *context, const struct pmi_zombie *zombie), void *context)
{
    (void)visit;
    (void)context;
    return PM_OK;
}

bool pmi_os_zombie_is_there(const struct pmi_zombie *zombie)
{
    (void)zombie;
    return false;
}

int pmi_os_zombie_reap(const struct pmi_zombie *zombie)
{
    (void)zombie;
    return PM_ERR_GONE;
}

uint64_t pmi_os_parent_of(uint64_t pid)
{
    (void)pid;
    return 0;
}

void pmi_os_launcher_main(int argc, char **argv)
{
    (void)argc;
    (void)argv;
}

int pmi_os_random(void *buffer, size_t size)
{
    memset(buffer, 4, size);
    return PM_OK;
}

int pmi_os_stop_event_open(pm_native *ret_native)
{
    (void)ret_native;
    return PM_ERR_UNSUPPORTED;
}

void pmi_os_sweep(void)
{
}

bool pmi_os_terminals_take_back(void)
{
    return false;
}

bool pmi_os_terminals_owed(void)
{
    return false;
}
