// The seam between the portable core and one of the two backends.
//
// CMake adds exactly one of src/posix and src/win32; both define the names below, and `#include
// "os.h"` finds the types of the one that was added:
//
//   struct pmi_mutex, struct pmi_cond, struct pmi_thread
//   struct pmi_os_manager    per manager: reactor, keeper, opened launcher
//   struct pmi_os_process    per process: pid and pidfd, or handles and job
//   struct pmi_os_stream     our end of one pipe
//   struct pmi_os_dir        an open folder
//   struct pmi_os_lock       an advisory lock on a file in a folder
//   PMI_*_INIT               the "nothing here" value of each of them
//
// Shared preconditions: pointers are not NULL unless said otherwise; strings are UTF-8; a function
// that fails leaves its out-parameters as they were and nothing behind; `deadline` is an absolute
// time of pmi_now_ms(), PMI_NEVER for none; every function retries EINTR; closing functions accept
// the INIT value. Errors are PM_ERR_*; functions that take a struct pm_error (never NULL here) fill
// code, stage, os_code and, where it helps, hint and field; the core fills the rest.
#ifndef PMI_BACKEND_H
#define PMI_BACKEND_H

#include <processmgr/processmgr.h>

#include "core/identity.h"
#include "os.h"

#define PMI_NEVER INT64_MAX

// ------------------------------------------------------------------------------------------------
// Time, threads. Timed waits are monotonic. Threads block every signal.
// ------------------------------------------------------------------------------------------------

int64_t pmi_now_ms(void);
int64_t pmi_now_us(void); // The same clock, finer.
int64_t pmi_wall_ms(void);
void pmi_sleep_ms(uint32_t ms);

void pmi_mutex_init(struct pmi_mutex *m);
void pmi_mutex_destroy(struct pmi_mutex *m);
void pmi_mutex_lock(struct pmi_mutex *m);
void pmi_mutex_unlock(struct pmi_mutex *m);
void pmi_cond_init(struct pmi_cond *c);
void pmi_cond_destroy(struct pmi_cond *c);
// Returns at a signal, spuriously, or at the deadline.
void pmi_cond_wait(struct pmi_cond *c, struct pmi_mutex *m, int64_t deadline);
void pmi_cond_broadcast(struct pmi_cond *c);
int pmi_thread_start(struct pmi_thread *t, void (*run)(void *), void *arg);
void pmi_thread_join(struct pmi_thread *t);
uint64_t pmi_thread_self(void); // Never 0.
// A thread that is cancelled half-way through a call would leave a process, descriptors or a lock
// behind. Locks turn cancellation off while they are held (so they are released in the reverse
// order); what goes beyond one lock is put between these two.
int pmi_cancel_off(void); // The state before.
void pmi_cancel_restore(int state);
// Runs body(arg) and then undo(arg): also when the thread is cancelled in the body.
void pmi_guarded(void (*body)(void *), void (*undo)(void *), void *arg);
uint64_t pmi_self_pid(void);
// Who this process is, never 0: of no other, and not of a forked copy, even one of the same number
// in another pid namespace.
uint64_t pmi_self(void);
// In the copy that a fork of the host has made, before its first manager: what is shared by all
// managers of a program was the parent's, and another thread may have held its locks.
void pmi_os_forget_parent(void);

// ------------------------------------------------------------------------------------------------
// Text and environment of the OS
// ------------------------------------------------------------------------------------------------

// The OS's text for os_code, without a newline; always NUL-terminated.
void pmi_os_error_text(uint32_t os_code, char *buffer, size_t capacity);
// The caller's environment as NULL-terminated "NAME=value" list. Free with pmi_os_environ_free.
int pmi_os_environ(const char *const **ret_env);
void pmi_os_environ_free(const char *const *env);
// Whether names compare without case and the block is sorted (Windows).
bool pmi_os_env_folds_case(void);

// Absolute path of the Spec's program (and allow_batch_file; nothing else is looked at): with a
// separator against cwd (NULL = the caller's), without in the PATH of env. ret_path is malloc'd.
// Sets stage SEARCH and the hint ("looked in PATH=...").
int pmi_os_search(const struct pm_spec *spec, const char *cwd, const char *const *env,
                  char **ret_path, struct pm_error *err);
// Absolute form of a folder, for a daemon's cwd and the registry; NULL = the caller's cwd.
// malloc'd.
int pmi_os_absolute(const char *path, char **ret_path, uint32_t *ret_os_code);
int pmi_os_default_state_dir(const char *app, char **ret_path);

// ------------------------------------------------------------------------------------------------
// Identity: what tells a process from every other, across our own restarts
// ------------------------------------------------------------------------------------------------

int pmi_os_boot_id(char boot[40]);
int pmi_os_self_identity(struct pmi_identity *ret_id);
// PM_OK: that very process is alive. PM_ERR_GONE: proven dead (or another boot). PM_ERR_IDENTITY:
// cannot be told now.
int pmi_os_identity_check(const struct pmi_identity *id);

// ------------------------------------------------------------------------------------------------
// Manager and reactor
// ------------------------------------------------------------------------------------------------

struct pmi_os_manager_options {
    const char *launcher_path; // NULL = find it.
    bool own_process;          // PM_ERR_UNSUPPORTED, PM_ERR_BUSY: once in a program.
    bool caller_loop;          // PM_LOOP_CALLER: no thread of ours where that can be done.
    bool prestart_keeper;      // A hint: what such starts have in common may begin now.
};

int pmi_os_manager_open(struct pmi_os_manager *om, const struct pmi_os_manager_options *options,
                        struct pm_error *err);
// Everything watched has been unwatched. Ends the keeper without a kill.
void pmi_os_manager_close(struct pmi_os_manager *om);

// Adds a process to the reactor: `token` will be given by pmi_os_reactor_poll once its exit is
// there. One thread polls at a time; watch may be called meanwhile by any thread.
int pmi_os_reactor_watch(struct pmi_os_manager *om, struct pmi_os_process *op, void *token);
// After this returns the token is not given any more. Called only between polls by the thread that
// polls, or when nobody polls.
void pmi_os_reactor_unwatch(struct pmi_os_manager *om, struct pmi_os_process *op);
// A hint, for a watched process or one that was: while somebody waits for it directly, its exit
// need not wake whoever polls. pause = false takes that back, and an exit that has come meanwhile
// is given then; where that fails (PM_ERR_NO_MEMORY, PM_ERR_NO_DESCRIPTORS) it stays as it is. Any
// thread.
int pmi_os_reactor_pause(struct pmi_os_manager *om, struct pmi_os_process *op, void *token,
                         bool pause);
// Between hold and release no poll gives tokens, and those that polls before have given are dealt
// with; so the token of a paused process is nowhere. false: they are just being dealt with, or this
// reactor cannot be held; then there is nothing to release. Never waits. Any thread.
bool pmi_os_reactor_hold(struct pmi_os_manager *om);
void pmi_os_reactor_release(struct pmi_os_manager *om);
// Waits until a watched process has ended, pmi_os_reactor_wake is called, or the deadline; fills
// tokens of ended ones (the same again at the next poll until it is unwatched) and returns how
// many, 0 on wake or timeout. pmi_os_reactor_done is to follow, when they have been dealt with.
size_t pmi_os_reactor_poll(struct pmi_os_manager *om, void **tokens, size_t capacity,
                           int64_t deadline);
void pmi_os_reactor_done(struct pmi_os_manager *om);
void pmi_os_reactor_wake(struct pmi_os_manager *om); // Sticky until the next poll. Any thread.
// Clears away what processes that have ended have left to us and could not be cleared away then:
// control groups that were not empty. Now and then; any thread.
void pmi_os_sweep(void);
// Terminals of the host that did not come back with the end of a PM_GROUP_FOREGROUND process: takes
// back those that are free now. Whether there are any more. Any thread.
bool pmi_os_terminals_take_back(void);
bool pmi_os_terminals_owed(void);
// For PM_LOOP_CALLER: readable/signalled exactly when a poll would not wait.
int pmi_os_reactor_native(struct pmi_os_manager *om, pm_native *ret_native);

// ------------------------------------------------------------------------------------------------
// Start
// ------------------------------------------------------------------------------------------------

// Everything about a start, checked and resolved by the core. Borrowed for the call.
struct pmi_plan {
    enum pm_mode mode;
    const char *program;      // Absolute.
    const char *const *argv;  // Never NULL, at least one entry.
    const char *const *env;   // NULL-terminated, final (Windows: merged and sorted).
    const char *cwd;          // NULL = the caller's; daemons: always absolute.
    struct pm_stdio slots[3]; // No PM_STDIO_DEFAULT left; no PIPE for daemons; TERMINAL in PTY
                              // mode only, and always on 0 and 1 there.
    const struct pm_extra *extras;
    size_t extras_count;
    enum pm_group group;
    bool die_with_parent;
    bool own_process; // Of the manager.
    bool accept_outer_job;
    unsigned columns, rows;     // PTY.
    const struct pm_spec *spec; // For the process options alone; checked.
    int64_t deadline;           // Up to the proof of exec.
    int64_t launcher_deadline;  // DAEMON on POSIX: up to the end of the gate.
    // DAEMON: called once, when the identity is proven and the program cannot have run yet and will
    // not run if we die now. Writes the record. A failure (err is filled) undoes the start.
    int (*gate)(void *gate_context, const struct pmi_identity *id, struct pm_error *err);
    void *gate_context;
    uint64_t mark, mark_limit; // The backend's own.
};

// What a start obtained.
struct pmi_started {
    enum pm_containment containment;
    enum pm_detachment detachment;
    bool adopted;     // A daemon that came back to us: our child.
    bool best_effort; // No pidfd.
    unsigned exec_retries;
    uint32_t fallbacks; // enum pm_fallback bits.
    int64_t started_wall_ms;
    int64_t started_ms; // pmi_now_ms()
};

// Refuses, with its name, an option that this OS or the mode does not have. What ranges and two
// fields together allow is checked by the core.
int pmi_os_check_options(const struct pm_spec *spec, struct pm_error *err);
// Starts the process; on return its program runs or has run. Fills streams[i] for PIPE slots; for
// the terminal streams[0], which types, and streams[1], which shows.
// Windows daemons are resumed, and killed with us, when this returns: pmi_os_daemon_commit frees
// them once the record says `running`. POSIX: nothing left to do there.
int pmi_os_start(struct pmi_os_manager *om, const struct pmi_plan *plan, struct pmi_os_process *op,
                 struct pmi_os_stream streams[3], struct pmi_started *ret_started,
                 struct pm_error *err);
// The containment that a start of this plan would obtain (only mode, group, own_process and the
// Spec's control group are looked at).
enum pm_containment pmi_os_containment_offered(const struct pmi_plan *plan);
int pmi_os_daemon_commit(struct pmi_os_process *op, struct pm_error *err);

// Undoes a start after pmi_os_start returned (record could not be written, watch failed): kills the
// tree, waits for the process, frees. Bounded: 2 s.
void pmi_os_process_abandon(struct pmi_os_process *op);

// Re-attach: opens the process that `id` names, first the kernel object, then the proof.
// PM_ERR_GONE: proven dead. PM_ERR_IDENTITY: doubt.
int pmi_os_process_open(struct pmi_os_manager *om, const struct pmi_identity *id,
                        struct pmi_os_process *op, struct pmi_started *ret_started);

// ------------------------------------------------------------------------------------------------
// Process. "Under the lock" = the core holds the lock of that process, so that reaping and
// signalling never overlap.
// ------------------------------------------------------------------------------------------------

int pmi_os_process_identity(const struct pmi_os_process *op, struct pmi_identity *ret_id);
uint64_t pmi_os_process_pid(const struct pmi_os_process *op);
// Of a child whose status is pending: whether it is not ours to take any more (the host waits for
// all, or for none: SIGCHLD), so that only the kernel can tell it, or nobody. Under the lock.
bool pmi_os_process_status_taken(const struct pmi_os_process *op);
// enum pm_fallback bits that were used since the start. Under the lock.
uint32_t pmi_os_process_fallbacks(const struct pmi_os_process *op);
// Waits until the process has ended (it may not be reaped yet). PM_OK or PM_ERR_TIMEOUT. Not under
// the lock; any number of threads.
int pmi_os_process_wait(struct pmi_os_process *op, int64_t deadline);
// Takes the status, at most once. Under the lock. PM_ERR_TIMEOUT: it lives. PM_ERR_STATUS_PENDING:
// dead, status not known now, try again later. PM_OK: ret_exit's kind (LOST when nobody can ever
// tell), code, signal, core_dumped and usage are filled.
int pmi_os_process_reap(struct pmi_os_process *op, struct pm_exit *ret_exit);
// Delivers an action other than CLOSE_STDIN. Under the lock. PM_ERR_GONE: nobody there any more;
// PM_ERR_UNSUPPORTED: this action or scope cannot reach this process. *ret_step is set with PM_OK
// where the delivery takes time: it goes on by itself, and does not need `op` any more. Windows
// only; never for KILL, for which ret_step may be NULL.
struct pmi_os_step;
int pmi_os_process_act(struct pmi_os_process *op, enum pm_stop_action action,
                       enum pm_stop_scope scope, struct pmi_os_step **ret_step);
// What became of it: as pmi_os_process_act, or PM_ERR_TIMEOUT: it is under way. Never waits; any
// thread, under no lock.
int pmi_os_step_poll(struct pmi_os_step *step);
// Gives up what is under way, and frees. NULL does nothing.
void pmi_os_step_end(struct pmi_os_step *step);
int pmi_os_process_signal(struct pmi_os_process *op, int signal_number, enum pm_stop_scope scope);
// Whether anything but the (ended) process itself is left in its containment. Under the lock; may
// read the process table, so do not call it in a tight loop.
bool pmi_os_process_tree_alive(struct pmi_os_process *op);
// Between these two this thread acts on many processes, and looks after them, one after the other:
// what it reads of the process table for one of them serves the next ones. They may be nested.
void pmi_os_round_begin(void);
void pmi_os_round_end(void);
int pmi_os_process_waitable(struct pmi_os_process *op, pm_native *ret_native);
// Whether a signal has stopped the (living) process. Under the lock.
bool pmi_os_process_stopped(struct pmi_os_process *op);
// The host's terminal goes back to who had it before a PM_GROUP_FOREGROUND process, which is
// stopped now; continuing it by a signal gives it the terminal again. Under the lock.
void pmi_os_process_step_back(struct pmi_os_process *op);
// Closes descriptors and handles. Never kills, except that a die_with_parent job is emptied first
// of its leftovers only when the manager ends (pmi_os_manager_close).
void pmi_os_process_close(struct pmi_os_process *op);

// ------------------------------------------------------------------------------------------------
// Terminal of a PTY process. Under the lock.
// ------------------------------------------------------------------------------------------------

// PM_ERR_GONE: it is closed.
int pmi_os_terminal_resize(struct pmi_os_process *op, unsigned columns, unsigned rows);
// What is open of it beside the streams. With the last of these the terminal hangs up.
void pmi_os_terminal_close(struct pmi_os_process *op);

// ------------------------------------------------------------------------------------------------
// Streams
// ------------------------------------------------------------------------------------------------

// Reads at least one byte; 0 bytes = end. `op`: once that process has ended and drain_ms pass
// without a byte, the end is taken as reached and *ret_truncated set. PM_ERR_TIMEOUT, PM_ERR_IO.
int pmi_os_stream_read(struct pmi_os_stream *s, struct pmi_os_process *op, void *buffer,
                       size_t capacity, int64_t deadline, uint32_t drain_ms, size_t *ret_count,
                       bool *ret_truncated);
// *ret_count is set on PM_OK, PM_ERR_TIMEOUT and PM_ERR_BROKEN_PIPE. Raises no SIGPIPE.
int pmi_os_stream_write(struct pmi_os_stream *s, const void *data, size_t size, int64_t deadline,
                        size_t *ret_count);
// One stream's part in a transfer: `input` is read into, `output` is written from.
struct pmi_transfer {
    struct pmi_os_stream *stream; // NULL, or size 0: takes no part.
    void *input;                  // NULL where it is written to.
    const void *output;
    size_t size;
    size_t count;   // What was moved.
    bool ended;     // Nothing more can be: end, or nobody reads any more.
    bool truncated; // The end was the silence of drain_ms.
    int result;     // PM_OK, or PM_ERR_IO; then ended is set as well.
};
// Moves what can be moved without waiting. If that is nothing at all, waits until something can be,
// until the process ends (only where watch_exit says so), or until the deadline. May return earlier
// for nothing.
void pmi_os_streams_transfer(struct pmi_transfer transfers[3], struct pmi_os_process *op,
                             bool watch_exit, int64_t deadline, uint32_t drain_ms);
// What has to be done before our end of a stream is closed: on a terminal the end of the input is
// typed, unless the process has ended. PM_OK; PM_ERR_TIMEOUT: there is no room for it now, try
// again; PM_ERR_IO.
int pmi_os_stream_finish(struct pmi_os_stream *s, const struct pmi_os_process *op);
pm_native pmi_os_stream_native(const struct pmi_os_stream *s);
bool pmi_os_stream_is_open(const struct pmi_os_stream *s);
// For good. `op` is the process that it belongs to.
pm_native pmi_os_stream_take(struct pmi_os_stream *s, struct pmi_os_process *op);
void pmi_os_stream_close(struct pmi_os_stream *s);

// ------------------------------------------------------------------------------------------------
// Files of the registry. Names are plain file names. Nothing follows a link.
// ------------------------------------------------------------------------------------------------

// Opens (create: makes, owner-only) the registry folder and proves that it is a folder, ours, and
// nobody else's to write (POSIX: not group- or world-accessible; Windows: a protected owner-only
// DACL is set on creation, and the owner checked on opening). create = false: for readers; the same
// proof.
int pmi_os_dir_open(const char *path, bool create, struct pmi_os_dir *ret_dir,
                    struct pm_error *err);
int pmi_os_dir_open_sub(struct pmi_os_dir *dir, const char *name, bool create,
                        struct pmi_os_dir *ret_dir);
void pmi_os_dir_close(struct pmi_os_dir *dir);
// Visits the plain names in the folder (no "." and ".."). A non-zero return ends the walk and is
// returned.
int pmi_os_dir_list(struct pmi_os_dir *dir, int (*visit)(void *context, const char *name),
                    void *context);
// Whole content of a regular file up to `cap` bytes, malloc'd and NUL-terminated behind ret_size.
// PM_ERR_NOT_FOUND; PM_ERR_CORRUPT: not a regular file of ours, or larger than cap.
int pmi_os_file_read(struct pmi_os_dir *dir, const char *name, size_t cap, char **ret_data,
                     size_t *ret_size);
// Replaces or makes the file in one step (temp + rename); durable: on disk before it returns. The
// name of the temporary file begins so:
#define PMI_TEMPORARY_PREFIX ".tmp-"
int pmi_os_file_write(struct pmi_os_dir *dir, const char *name, const void *data, size_t size,
                      bool durable, uint32_t *ret_os_code);
int pmi_os_file_remove(struct pmi_os_dir *dir, const char *name);
int pmi_os_file_move(struct pmi_os_dir *dir, const char *name, struct pmi_os_dir *to_dir,
                     const char *to_name);
// Removes a sub-folder and the plain files in it (one level).
int pmi_os_dir_remove_sub(struct pmi_os_dir *dir, const char *name);
// Takes an exclusive lock on the file, made if missing, without waiting. PM_ERR_BUSY: somebody has
// it. The file that was locked is proven to be the one that has the name now, and to have no other
// name (POSIX). PM_ERR_CORRUPT: not a regular file of ours.
int pmi_os_lock_try(struct pmi_os_dir *dir, const char *name, struct pmi_os_lock *ret_lock);
// Replaces the content of a locked file (a reader without the lock may see it at any length).
int pmi_os_lock_write(struct pmi_os_lock *lock, const void *data, size_t size);
void pmi_os_lock_release(struct pmi_os_lock *lock);

// ------------------------------------------------------------------------------------------------
// Zombie detector
// ------------------------------------------------------------------------------------------------

struct pmi_zombie {
    uint64_t pid, start; // Together they name it.
    int64_t age_ms;      // Since its start; -1 = not known.
    bool orphan;         // Not started by us: left behind by a descendant, and given to us.
    char name[32];       // Of the program, as the system keeps it; "" = not known.
};

// Visits the dead, unwaited-for children of this process (from the per-thread children lists; dead
// as waitid(WNOWAIT) says, not by a letter). Takes no status. Windows: visits nothing.
int pmi_os_zombies(void (*visit)(void *context, const struct pmi_zombie *zombie), void *context);
// Whether that very one is still there, looked at now.
bool pmi_os_zombie_is_there(const struct pmi_zombie *zombie);
// Takes the status of that very one, by its pid. PM_ERR_GONE: somebody else has, or it is another
// process now. PM_ERR_NO_DESCRIPTORS; PM_ERR_UNSUPPORTED (Windows).
int pmi_os_zombie_reap(const struct pmi_zombie *zombie);
// Parent of a living process as the system tells it; 0 = it does not.
uint64_t pmi_os_parent_of(uint64_t pid);

// own_process: waits, by its number, for every dead process that has come back to us from below a
// start of this manager and belongs to no Handle. ret_reaped: how many since the manager was
// opened. Whether living ones are there. Any thread, under a process's lock or none.
bool pmi_os_orphans_collect(struct pmi_os_manager *om, uint64_t *ret_reaped);

// The launcher's side, in src/launcher (POSIX) or empty (Windows).
void pmi_os_launcher_main(int argc, char **argv);
// A random number for nonces and tokens.
int pmi_os_random(void *buffer, size_t size);
// Windows: named stop event of this process. POSIX: PM_ERR_UNSUPPORTED.
int pmi_os_stop_event_open(pm_native *ret_native);

#endif
