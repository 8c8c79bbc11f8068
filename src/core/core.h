// Types and functions shared by the files of the core.
//
// Locks, outermost first; a thread that holds one may take those below it, never those above:
//
//   pm_manager::reactor_lock  who takes exits; over a sleep only the reactor's own thread holds it
//   pm_manager::leak_lock  what the detector suspects; held for a sweep
//   (all managers)       their list: a spin lock in manager.c
//   pm_manager::lock     the list of processes, the event queue, counters, closing
//   pm_process::lock     state, exit record, reaping and signalling
//   pmi_registry::lock   files of the registry
//   pm_stream::lock      one reader or writer at a time (taken alone, held while it blocks)
//
// Those of the backends are below them, but for POSIX's tokens_lock, which is between reactor_lock
// and leak_lock; whoever has another lock only tries to take it. Of the others (in os.h, and those
// of lists in reap.c, cgroup.c and foreground.c) nobody holds two.
//
// Callbacks, sinks and visitors run outside all of them.
#ifndef PMI_CORE_H
#define PMI_CORE_H

#include <stdatomic.h>

#include "backend.h"
#include "core/record.h"

#define PMI_DEFAULT_START_MS 30000u
#define PMI_DEFAULT_STOP_WATCH_MS 1000u
#define PMI_DEFAULT_COLUMNS 80
#define PMI_DEFAULT_ROWS 24
#define PMI_TERMINAL_MAX 32767
#define PMI_DEFAULT_LAUNCHER_MS 10000u
#define PMI_DEFAULT_PENDING_MS 5000u
#define PMI_DEFAULT_DRAIN_MS 250u
#define PMI_DEFAULT_SWEEP_MS 30000u
#define PMI_DEFAULT_STOP_ALL_MS 10000
#define PMI_PENDING_POLL_MS 20
#define PMI_STREAM_SLICE_MS 50
#define PMI_ORPHANS_MS 100
// How often, and for how long, a tree is killed that goes with its leader and is not gone yet.
#define PMI_OWED_MS 100
#define PMI_OWED_MOST_MS 10000
#define PMI_KEY_MAX 128
#define PMI_LABEL_MAX 1024
#define PMI_OWNER_MAX 255

// ------------------------------------------------------------------------------------------------
// Events: callbacks and sinks waiting for the dispatcher
// ------------------------------------------------------------------------------------------------

struct pmi_event {
    struct pmi_event *next;
    pm_process *process; // One internal reference, or NULL.
    enum pm_event_kind kind;
    bool embedded; // Part of its process; else the first part of a loose_event.
};

// ------------------------------------------------------------------------------------------------
// Stream
// ------------------------------------------------------------------------------------------------

struct pm_stream {
    pm_process *process;
    struct pmi_mutex lock;
    struct pmi_os_stream os; // Under lock.
    atomic_bool taken;
    bool exists;         // The slot has a pipe, or is the terminal. Constant after the start.
    atomic_bool closing; // Asks a blocked reader or writer to let go.
    atomic_bool truncated;
    _Atomic pm_native native; // For pm_stream_native(), which must not wait for a reader.
};

// A stop plan as each process keeps it: a fourth of the size.
struct pmi_packed_plan {
    uint32_t timeout_ms[PM_STOP_STEPS_MAX];
    uint8_t actions[PM_STOP_STEPS_MAX], scopes[PM_STOP_STEPS_MAX];
    uint8_t steps_count;
};

// A step that a stop has delivered. The newest of those that are still there is what ends the
// process.
struct pmi_stop_note {
    uint8_t stop; // pmi_stopper::number.
    uint8_t step : 4, action : 4;
};
#define PMI_STOP_NOTES 4

// ------------------------------------------------------------------------------------------------
// Process. There may be many thousands: small members stand together.
//
//   STARTING --started--> RUNNING --dead, no status yet--> STATUS_PENDING --known or lost--> ENDED
//       |                    |                                                                 ^
//       +--start failed      +--dead, status taken or lost-------------------------------------+
//          (unlisted, gone)
//
// No other change exists; ENDED is final.
// ------------------------------------------------------------------------------------------------

struct pm_process {
    atomic_uint refs;      // Internal: the list, the reactor, events, and one for all user refs.
    atomic_uint user_refs; // Handles in the user's hands.
    pm_manager *manager;   // Holds a reference on the manager's memory.
    uint64_t id;           // Constant once listed.
    pm_process *next, *previous;     // Under manager->lock.
    bool listed;                     // Under manager->lock.
    bool started_posted, end_posted; // Under manager->lock.
    bool stop_posted;                // Under manager->lock: STOPPED, not CONTINUED.
    int direct_waiters;              // Under manager->lock: threads that wait without the reactor.

    // Constant after the start.
    char *text; // One block that holds the strings below.
    const char *owner, *program, *key, *label;
    enum pm_mode mode;
    uint8_t slots[3]; // enum pm_stdio_kind, for display.
    bool no_os;       // Recovered after its death: there is no kernel object.
    struct pmi_packed_plan stop;
    bool shares_tty; // PM_GROUP_FOREGROUND.
    bool die_with_parent, kill_tree_on_exit, recovered;
    struct pmi_identity *recovered_id; // Of a recovered one: as its record has it.
    uint64_t pid;
    pm_exit_callback *on_exit;
    void *user;
    struct pmi_started started;
    struct pm_stream streams[3];

    struct pmi_mutex lock;
    atomic_int state;    // enum pm_state; set by pmi_process_set_state().
    atomic_bool stopped; // As last seen; written under lock.
    bool unwatched;      // Under manager->lock: could not be given back to the reactor.
    bool owes_tree;      // Set once, by the thread that made the record final.
    struct pmi_os_process os;
    struct pm_exit exit; // Final once state is ENDED.
    int exit_unwritten;  // Why a daemon's exit record is not on disk; final once state is ENDED.
    uint8_t stops;       // Begun, under lock.
    uint8_t notes_count; // Under lock; none comes after its death.
    struct pmi_stop_note notes[PMI_STOP_NOTES]; // Of stops under way, oldest first.
    int64_t dead_ms; // When the end was noticed, under lock; 0 = it lives.
    int64_t dead_wall_ms;

    struct pmi_event started_event, ended_event; // So that an exit can never be dropped.
    uint64_t stop_round;                         // Under manager->lock: see pmi_reactor_run.
    pm_process *watch_next, **watch_link;        // The reactor's list, under manager->lock.
    pm_process *pending_next;                    // The reactor's list of pending ones.
    pm_process *owed_next; // The list of those whose trees are to be gone, under manager->lock.
};

// How a process ended, for the counters.
enum pmi_end {
    PMI_END_EXITED,
    PMI_END_KILLED,
    PMI_END_LOST,
    PMI_ENDS
};

// ------------------------------------------------------------------------------------------------
// Registry
// ------------------------------------------------------------------------------------------------

struct pmi_registry {
    bool open;
    bool noted; // Its epoch is among those that are open here.
    struct pmi_mutex lock;
    struct pmi_os_dir root, boot, exits, quarantine;
    struct pmi_os_lock owner_lock;
    struct pmi_identity self;
    uint64_t epoch;
    atomic_uint changes; // Of records of this boot; counted when they are done, the key still held.
};

// ------------------------------------------------------------------------------------------------
// Manager
// ------------------------------------------------------------------------------------------------

struct pmi_suspect {
    struct pmi_zombie zombie;
    int64_t seen_ms; // First.
    bool counted;
};

// A start under way, on the stack of who makes it.
struct pmi_under_way {
    struct pmi_under_way *next, *previous;
    int64_t begun_ms, begun_us;
};

struct pm_manager {
    atomic_uint refs;          // The open manager, and each process.
    uint64_t pid;              // Of the process that opened it.
    uint64_t self;             // The same by pmi_self().
    struct pm_options options; // Defaults filled in; strings cleared.

    struct pmi_mutex lock;
    struct pmi_cond changed; // A process ended, a start finished, the manager was closed.
    struct pmi_cond queued;  // An event was queued: for the dispatcher alone.
    bool closing, closed;
    unsigned starting; // Starts under way.
    struct pmi_under_way *under_way;
    uint64_t last_id;
    pm_process *first, *last;
    struct pm_stats stats; // But for the next three.
    _Atomic uint32_t fallback_kinds;
    // Counted before anybody can see an end: under a process's lock. By mode and enum pmi_end.
    _Atomic uint64_t ends[3][PMI_ENDS];
    _Atomic uint64_t registry_failures;
    _Atomic uint64_t live[3]; // In state RUNNING, by mode.
    uint64_t deaths;          // Noticed, with or without a status.

    // Dispatcher.
    struct pmi_event *events, **events_tail;
    bool dispatcher_stop;
    struct pmi_thread dispatcher;
    _Atomic uint64_t dispatching_thread; // The thread that runs a callback now, or 0.

    // Reactor.
    struct pmi_thread reactor;
    atomic_bool reactor_stop;
    _Atomic uint64_t reactor_thread; // Its pmi_thread_self().
    struct pmi_mutex reactor_lock;   // Who takes exits.
    pm_process *watched;             // Each with the reactor's reference; under lock.
    pm_process *pending;             // Dead, status pending; under reactor_lock.
    atomic_bool any_pending;         // The same, for those who have no time for the lock.
    atomic_bool any_unwatched;       // Some that are `watched` are not: see pmi_reactor_resume.
    atomic_bool woken;               // The loop was woken and has not looked yet.
    pm_process *owed; // Ended, but their trees are not: see pmi_reactor_owe. Under lock.
    _Atomic int64_t next_owed;
    int64_t next_sweep;
    atomic_int ttys;        // Living processes that share the host's terminal.
    atomic_bool stops_idle; // The reactor looks for no stopped processes now.
    uint64_t stop_round;    // Under lock.
    _Atomic int64_t next_stop_watch;
    _Atomic int64_t next_orphans; // own_process.
    atomic_bool orphans_idle;     // Nobody is there whose children could come to us.

    // Detector.
    struct pmi_mutex leak_lock;
    struct pmi_suspect *suspects;
    size_t suspects_count;
    int64_t swept_ms;     // 0 = never.
    char leak_where[256]; // "" = the default.

    pm_manager *all_next; // List of all managers of this program, for the detector.

    struct pmi_os_manager os;
    struct pmi_registry registry;
};

// manager.c
int pmi_check_manager(pm_manager *m);
void pmi_manager_unref(pm_manager *m);
void pmi_list_add(pm_manager *m, pm_process *p);       // Under m->lock.
void pmi_list_remove(pm_manager *m, pm_process *p);    // Under m->lock; drops the list's ref.
bool pmi_key_is_taken(pm_manager *m, const char *key); // Under m->lock.
// A daemon that is dead keeps its key until its exit record is final: where that is all that keeps
// it, this waits for it, at most pm_options::status_pending_ms.
void pmi_key_await(pm_manager *m, const char *key, int64_t deadline);
// Snapshot with an internal reference on each; free with pmi_snapshot_free.
int pmi_snapshot(pm_manager *m, pm_process ***ret_list, size_t *ret_count);
void pmi_snapshot_free(pm_process **list, size_t count);
bool pmi_tracked_anywhere(uint64_t pid);
// When the oldest start that is under way, in any manager, began: pmi_now_ms(), or PMI_NEVER.
int64_t pmi_oldest_start(void);
void pmi_log(pm_manager *m, enum pm_log_level level, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

// process.c
pm_process *pmi_process_new(pm_manager *m);
pm_process *pmi_process_hold(pm_process *p);                    // Internal reference.
void pmi_process_set_state(pm_process *p, enum pm_state state); // Under p->lock.
void pmi_process_drop(pm_process *p);
int pmi_process_text(pm_process *p, const char *owner, const char *program, const char *key,
                     const char *label);
// Takes the exit if there is one: PM_OK (ENDED now or before), PM_ERR_TIMEOUT (lives),
// PM_ERR_STATUS_PENDING. The thread that makes it ENDED also does what follows from that.
// Runs body(arg), which waits for the process by itself: meanwhile its exit need not wake the
// reactor.
void pmi_process_wait_directly(pm_process *p, void (*body)(void *), void *arg);
int pmi_process_reap(pm_process *p);
// Ends a process that nobody can tell about (recovered, died unobserved), or with a known record.
void pmi_process_end(pm_process *p, const struct pm_exit *record);
// Kills what an ended process has left in its tree. PM_OK: nobody is there any more; else somebody
// may be, and why.
int pmi_process_kill_rest(pm_process *p);

// Whether a signal has stopped it, asked now; what has changed becomes an event.
bool pmi_process_look_at_stop(pm_process *p);
// PTY: closes what is open of the terminal beside its streams.
void pmi_process_hang_up(pm_process *p);
// Undoes a start whose process exists already: killed, collected, and ENDED as lost for anybody who
// saw it in a list meanwhile.
void pmi_process_abandon(pm_process *p);

// spec.c
struct pmi_start { // A checked Spec and what was resolved for it; clear with pmi_start_clear.
    struct pm_spec spec;
    struct pmi_plan plan;
    char *program, *cwd;
    char **env;
    const char *argv_default[2];
    const char *const *os_env;
};
int pmi_start_prepare(pm_manager *m, const struct pm_spec *spec, struct pmi_start *ret_start,
                      struct pm_error *err);
void pmi_start_clear(struct pmi_start *start);
int pmi_stop_plan_check(const struct pm_stop_plan *plan);

// stream.c
// pm_stream_close() at the end of everything: also if the end of the input could not be told.
void pmi_stream_close_for_good(pm_stream *s);

// stop.c
struct pmi_stopper {
    pm_process *process;
    struct pm_stop_plan plan;
    struct pm_stop_report report;
    int64_t started, step_deadline, wake, limit;
    int64_t began_us;
    unsigned step;       // Steps begun.
    unsigned backoff_ms; // Between looks at a tree whose leader is dead.
    bool done, counted, wants_tree;
    bool owes_end;               // PM_STOP_CLOSE_STDIN found no room for the end of the input.
    bool leader_dead;            // At the last look.
    struct pmi_os_step *pending; // The delivery of the last step begun, while it is under way.
    int64_t pending_until;
    uint8_t number; // In the notes of its process.
};
void pmi_stop_plan_pack(const struct pm_stop_plan *plan, struct pmi_packed_plan *ret_packed);
// plan: NULL = that of the process.
void pmi_stopper_begin(struct pmi_stopper *s, pm_process *p, const struct pm_stop_plan *plan,
                       int64_t limit);
void pmi_stopper_advance(struct pmi_stopper *s); // Sets done, or wake. Under no lock.
void pmi_stopper_end(struct pmi_stopper *s);     // Where it is given up before it is done.
void pmi_default_stop_plan(struct pm_stop_plan *plan);

// events.c. Once the manager is closed nothing is posted any more.
void pmi_event_post_ended(pm_process *p); // Once per process; never fails.
// "started" (or "recovered") comes before "ended", whichever thread is first. Once per process.
void pmi_event_post_started(pm_process *p, enum pm_event_kind kind);
// About a living process; dropped once its end was posted.
void pmi_event_post_living(pm_process *p, enum pm_event_kind kind);
// STOPPED or CONTINUED, if what was last seen is not what was posted last; dropped once its end was
// posted. Two threads that have seen one change each may come here in any order.
void pmi_event_post_stop(pm_process *p);
void pmi_event_post_detail(pm_manager *m, enum pm_event_kind kind, uint64_t pid,
                           const char *detail);
size_t pmi_events_run(pm_manager *m); // Runs what is queued; returns callbacks run.
void pmi_dispatcher_run(void *manager);

// reactor.c
void pmi_reactor_run(void *manager);
// One turn of the loop that the manager has: waits up to the deadline, takes exits. Under no lock.
void pmi_reactor_turn(pm_manager *m, int64_t deadline);
void pmi_reactor_wake(pm_manager *m); // Ends the turn under way, or the next one. Any thread.
// Takes exits beside the loop, which may have no thread to do it now: waits for nothing, and what
// is the loop's to do stays so.
void pmi_reactor_look(pm_manager *m);
// Sleeps until more than `seen` ends were noticed, at most until the deadline. Under no lock.
void pmi_await_death(pm_manager *m, uint64_t seen, int64_t deadline);
int pmi_reactor_add(pm_manager *m, pm_process *p);
void pmi_reactor_forget_all(pm_manager *m); // At close: nobody polls any more.
// A tree that goes with its leader may be there after its kill: it dies only now, or nobody could
// be looked for, for want of a descriptor or of memory. It is killed again, and given up with a
// word in the log. Under the manager's lock.
void pmi_reactor_owe(pm_manager *m, pm_process *p);
// At close: until all such trees are gone, but not beyond the deadline; and the last try.
void pmi_reactor_settle_owed(pm_manager *m, int64_t deadline);
void pmi_reactor_forget_owed(pm_manager *m);
// At the end of the last direct wait for a process that the reactor was kept from.
void pmi_reactor_resume(pm_manager *m, pm_process *p);

// registry.c
int pmi_registry_open(struct pmi_registry *r, const char *path, struct pm_error *err);
void pmi_registry_close(struct pmi_registry *r);
int pmi_registry_put(pm_manager *m, const pm_process *p, enum pmi_record_state state,
                     const struct pmi_identity *id, struct pm_error *err);
void pmi_registry_drop(pm_manager *m, const pm_process *p);
// Writes the exit record, then drops the running one; counts a failure and leaves the log to its
// caller. Takes no lock but the registry's.
int pmi_registry_put_exit(pm_manager *m, const pm_process *p);
// Logs a failure that was counted; under no lock.
void pmi_registry_log(pm_manager *m, const char *what, const pm_process *p, int code);
// Whether a record of this boot for `key` names a process that lives, or may.
int pmi_registry_check_key(pm_manager *m, const char *key, struct pm_error *err);

// stats.c
void pmi_histogram_add(struct pm_histogram *h, int64_t us);
void pmi_stats_fill(pm_manager *m, struct pm_stats *stats); // Under m->lock.

// error.c
// Copies text from outside so that it can do no harm in a line: control characters, bytes that are
// no UTF-8 and marks that turn the direction of writing are escaped. Always NUL-terminated.
void pmi_escape(const char *text, char *buffer, size_t capacity);

// util.c
int pmi_copy_in(void *to, const void *from, size_t known);
int pmi_copy_out(void *to, const void *from, size_t known);
int pmi_set_error(struct pm_error *err, int code, enum pm_stage stage, const char *field);
int64_t pmi_deadline(int64_t timeout_ms);
char *pmi_strdup(const char *text);

#endif
