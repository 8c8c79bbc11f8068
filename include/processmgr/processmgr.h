/* processmgr: one place for every process that a program starts.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Life cycle:
 *
 *   1. main() calls pm_launcher_main() first (programs that start daemons, or children that die
 * with their parent, on POSIX; programs that stop console programs politely, on Windows).
 *   2. pm_open() makes a manager.
 *   3. Fill a struct pm_spec, starting from PM_SPEC_INIT; pm_spawn() turns it into a Handle
 *      (pm_process *). There is no pid to wait for and nothing that must be waited for: each start
 *      is paired with exactly one wait inside the library, whatever becomes of the Handle.
 *   4. Use the Handle: wait, stop, signal, read and write its streams, put its exit waitable into
 *      any event loop.
 *   5. pm_process_unref() lets go of the Handle. The process itself goes on.
 *   6. pm_stop_all() and pm_close() end everything but daemons.
 *   7. The next run of the program opens the same registry, calls pm_recover() and gets Handles for
 *      the daemons that its predecessor left behind.
 *
 * Conventions:
 *
 *   - Functions return 0 (PM_OK) or a negative PM_ERR_* number, the same on every OS.
 *   - Out-parameters come last, are named ret_x and are written only on success, unless said
 *     otherwise.
 *   - Structs that the caller fills start with their size in bytes; use the INIT macro. Every field
 *     left zero has the default that stands beside it. Non-zero bytes behind the part that this
 *     version knows are refused with PM_ERR_INVALID, never ignored. Structs without a size stay as
 *     they are for as long as PM_VERSION_MAJOR does: struct pm_stdio, pm_extra, pm_rlimit,
 *     pm_stop_step, pm_stop_plan, pm_job_limits, pm_event and pm_registry_entry. The library gives
 *     structs with a size by pointer alone, so that both sides may know more or less of them.
 *   - All strings are UTF-8 and NUL-terminated, on Windows too. Everything passed in is copied
 *     before the call returns unless said otherwise.
 *   - Times are monotonic milliseconds; wall times (ms since 1970-01-01 UTC) are for display only.
 *     A timeout of 0 polls, PM_FOREVER waits without a limit.
 *   - Any thread may call any function, callbacks included, unless said otherwise.
 *   - pthread_cancel() of the deferred type is safe in every call: it is acted on while
 *     pm_process_wait() or pm_process_stop() waits, else when the call is over. The shared library
 *     stays in memory after dlclose() or FreeLibrary() (not on macOS).
 *   - The library installs no signal handler, changes no process-wide state (but the subreaper bit,
 *     where pm_options::own_process asks for it), never prints, exits or aborts.
 *   - In the copy that a fork() of the host makes every call on what is the parent's answers
 *     PM_ERR_FORKED; those without an error code say false or 0. pm_process_pid() and
 *     pm_process_stream() go on, and references may be dropped. A manager of its own works.
 */
#ifndef PROCESSMGR_PROCESSMGR_H
#define PROCESSMGR_PROCESSMGR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && defined(PM_BUILDING_SHARED)
#define PM_API __declspec(dllexport)
#elif defined(_WIN32) && defined(PM_USING_SHARED)
#define PM_API __declspec(dllimport)
#elif defined(__GNUC__) && !defined(_WIN32)
#define PM_API __attribute__((visibility("default")))
#else
#define PM_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define PM_VERSION_MAJOR 0
#define PM_VERSION_MINOR 1
#define PM_VERSION_PATCH 0
#define PM_VERSION_STRING "0.1.0"
/** One number for comparisons: major * 10000 + minor * 100 + patch. */
#define PM_VERSION_NUMBER (PM_VERSION_MAJOR * 10000 + PM_VERSION_MINOR * 100 + PM_VERSION_PATCH)

/* ---------------------------------------------------------------------------------------------
 * 1. Errors
 * ------------------------------------------------------------------------------------------- */

/** Each error: name, number, text. Causes and remedies stand in docs/errors.md. */
#define PM_ERROR_MAP(X)                                                                            \
    X(INVALID, -1, "invalid argument")                                                             \
    X(NO_MEMORY, -2, "out of memory")                                                              \
    X(UNSUPPORTED, -3, "not supported here")                                                       \
    X(NOT_FOUND, -4, "not found")                                                                  \
    X(ACCESS, -5, "permission denied")                                                             \
    X(EXISTS, -6, "already exists")                                                                \
    X(TIMEOUT, -7, "timed out")                                                                    \
    X(NO_PROCESS_SLOTS, -8, "the limit on processes is reached")                                   \
    X(NO_DESCRIPTORS, -9, "out of file descriptors or handles")                                    \
    X(CLOSED, -10, "the manager is closed or closing")                                             \
    X(BUSY, -11, "in use, or not ended yet")                                                       \
    X(WOULD_DEADLOCK, -12, "this wait could only be ended by the callback that makes it")          \
    X(NO_REGISTRY, -13, "Daemon mode needs a registry")                                            \
    X(REGISTRY_BUSY, -14, "another living manager owns the registry")                              \
    X(NO_LAUNCHER, -15, "no launcher: call pm_launcher_main() or install the helper")              \
    X(LAUNCHER, -16, "the launcher failed")                                                        \
    X(NOT_DETACHABLE, -17, "cannot be detached from the surrounding job")                          \
    X(STATUS_PENDING, -18, "the process has ended, its status is not known yet")                   \
    X(GONE, -19, "the process has ended")                                                          \
    X(IDENTITY, -20, "the identity of the process cannot be proven")                               \
    X(NOT_EXECUTABLE, -21, "not an executable of this system")                                     \
    X(TOO_BIG, -22, "too big for the system")                                                      \
    X(DIED_BEFORE_EXEC, -23, "the child was killed before it reached the program")                 \
    X(NOT_A_DIRECTORY, -24, "not a directory")                                                     \
    X(BROKEN_PIPE, -25, "the other end is closed")                                                 \
    X(NO_SPACE, -26, "no space left")                                                              \
    X(CORRUPT, -27, "damaged or unknown data")                                                     \
    X(FORKED, -28, "this manager belongs to the parent of this fork")                              \
    X(TEXT_BUSY, -29, "the program is being written to")                                           \
    X(IO, -30, "input/output error")                                                               \
    X(SYSTEM, -31, "the system refused")

enum pm_error_code {
    PM_OK = 0,
#define PM_ERROR_ENUM(name, number, text) PM_ERR_##name = (number),
    PM_ERROR_MAP(PM_ERROR_ENUM)
#undef PM_ERROR_ENUM
};

/** Where an operation failed. The stages are the same in every mode and on every OS. */
#define PM_STAGE_MAP(X)                                                                            \
    X(NONE, 0, "")                                                                                 \
    X(CHECK, 1, "check")                                                                           \
    X(SEARCH, 2, "search")                                                                         \
    X(STDIO, 3, "stdio")                                                                           \
    X(PIPE, 4, "pipe")                                                                             \
    X(PTY, 5, "pty")                                                                               \
    X(JOB, 6, "job")                                                                               \
    X(CONSOLE, 7, "console")                                                                       \
    X(KEEPER, 8, "keeper")                                                                         \
    X(FORK, 9, "fork")                                                                             \
    X(LAUNCHER, 10, "launcher")                                                                    \
    X(GATE, 11, "gate")                                                                            \
    X(REGISTRY, 12, "registry")                                                                    \
    X(SESSION, 13, "session")                                                                      \
    X(GROUP, 14, "group")                                                                          \
    X(DUP, 15, "dup")                                                                              \
    X(LIMITS, 16, "limits")                                                                        \
    X(CREDENTIALS, 17, "credentials")                                                              \
    X(CHDIR, 18, "chdir")                                                                          \
    X(EXEC, 19, "exec")                                                                            \
    X(RESUME, 20, "resume")                                                                        \
    X(WATCH, 21, "watch")                                                                          \
    X(SIGNAL, 22, "signal")                                                                        \
    X(WAIT, 23, "wait")

enum pm_stage {
#define PM_STAGE_ENUM(name, number, text) PM_STAGE_##name = (number),
    PM_STAGE_MAP(PM_STAGE_ENUM)
#undef PM_STAGE_ENUM
};

/** What went wrong, in detail. Filled by the calls that take one, on failure only. Give it the size
 *  with PM_ERROR_INIT. All text is inside: nothing to free. */
struct pm_error {
    size_t size; /**< sizeof(struct pm_error). */
    int code;    /**< PM_ERR_*. */
    enum pm_stage stage;
    uint32_t os_code;  /**< errno or GetLastError(); 0 = none. */
    uint64_t pid;      /**< Who is meant (REGISTRY_BUSY: the owner of the registry); 0 = nobody. */
    char action[16];   /**< "start", "open", "stop" ... */
    char owner[64];    /**< Owner from the Spec, cut if longer. */
    char program[256]; /**< Program from the Spec, cut if longer. */
    char field[48];    /**< Name of the Spec or options field that is meant, or "". */
    char hint[512];    /**< What to look at, one line, or "". */
};

/* ---------------------------------------------------------------------------------------------
 * 2. Types
 * ------------------------------------------------------------------------------------------- */

/** A manager: the owner of all processes started through it. */
typedef struct pm_manager pm_manager;
/** The Handle of one process. Counted references; it never touches a stranger: every signal, stop
 *  and status goes to the very process that was started (see pm_info::best_effort). */
typedef struct pm_process pm_process;
/** One of the three standard streams of a process, the end on our side. */
typedef struct pm_stream pm_stream;

/** A file descriptor on POSIX, a HANDLE on Windows. */
typedef intptr_t pm_native;
#define PM_NATIVE_INVALID ((pm_native)-1)

/** A timeout without an end. */
#define PM_FOREVER (-1)

enum pm_mode {
    PM_MODE_NORMAL = 0, /**< A child, ended with the manager. */
    PM_MODE_PTY,        /**< A child on a terminal of its own, leader of its session. Windows: on a
                             pseudoconsole (Windows 10 1809; before: PM_ERR_UNSUPPORTED). When it
                             ends the terminal hangs up for all who are on it. */
    PM_MODE_DAEMON      /**< Detached: survives the caller's exit, crash and kill. */
};

enum pm_state {
    PM_STATE_STARTING = 0,
    PM_STATE_RUNNING,
    PM_STATE_STATUS_PENDING, /**< Dead; the OS does not tell the status yet: of a daemon that is not
                                  our child, or of a child that a debugger holds. */
    PM_STATE_ENDED,          /**< The exit record is final. */
    PM_STATE_STOPPED /**< POSIX: alive, stopped by a signal (Ctrl-Z, or the terminal of others). */
};

enum pm_stdio_kind {
    PM_STDIO_DEFAULT = 0,   /**< NORMAL: inherit. DAEMON: null. PTY: the terminal. */
    PM_STDIO_INHERIT,       /**< The caller's own; if that is closed, or close-on-exec, null. */
    PM_STDIO_NULL,          /**< /dev/null, NUL. */
    PM_STDIO_PIPE,          /**< A pipe; our end is pm_process_stream(). Not for daemons. */
    PM_STDIO_FILE_READ,     /**< stdin from the file `path`. */
    PM_STDIO_FILE_TRUNCATE, /**< Output to `path`, made or emptied first. */
    PM_STDIO_FILE_APPEND,   /**< Output to the end of `path`, made if missing. */
    PM_STDIO_NATIVE,        /**< The descriptor or handle `native`; stays the caller's. */
    PM_STDIO_STDOUT,        /**< stderr only: goes where stdout goes. */
    PM_STDIO_TERMINAL       /**< PTY only: the terminal of its own. */
};

/** One standard stream as the child shall have it. */
struct pm_stdio {
    enum pm_stdio_kind kind;
    const char *path; /**< FILE kinds. Relative paths are resolved against the caller's cwd. */
    pm_native native; /**< NATIVE kind. */
};

/** One more descriptor or handle for the child. */
struct pm_extra {
    pm_native source; /**< The caller's; stays the caller's. */
    int target;       /**< POSIX: its number in the child, >= 3, each once, and not the last one
                           that RLIMIT_NOFILE allows the caller. Windows: 0; the child
                           finds it under the same value as in the caller. */
};

enum pm_env_base {
    PM_ENV_INHERIT = 0, /**< Start from the caller's environment. */
    PM_ENV_EMPTY        /**< Start from nothing. */
};

enum pm_group {
    PM_GROUP_OWN = 0,   /**< A process group of its own. */
    PM_GROUP_HOST,      /**< The caller's group: Ctrl-C at the terminal reaches both. */
    PM_GROUP_FOREGROUND /**< POSIX: own group, made the foreground group of the terminal that is
                             its stdin. That has to be the controlling terminal of this program
                             (else PM_ERR_INVALID), and this program in front on it (else
                             PM_ERR_BUSY): so one at a time. It comes back when the process is
                             stopped and when it ends; if a job that it leaves behind has it then,
                             when that is gone (looked for every pm_options::stop_watch_ms), unless
                             somebody else has it by then. */
};

/** What holds a process and its descendants together, weakest first. */
enum pm_containment {
    PM_CONTAIN_DEFAULT = 0, /**< Asked for: the OS's default (POSIX group, Windows job). Windows: to
                                 whatever is asked for, a job is more, and is given. */
    PM_CONTAIN_NONE,
    PM_CONTAIN_GROUP,     /**< A process group, or on Linux all groups of a session of its own (PTY
                               mode, pm_spec::new_session); a descendant that leaves it escapes. */
    PM_CONTAIN_SUBREAPER, /**< Every descendant, also one that has called setsid() and lost its
                               parent. In a manager with pm_options::own_process every NORMAL and
                               PTY process has it, whatever was asked for; elsewhere, and for
                               daemons, PM_ERR_UNSUPPORTED. A daemon that somebody in the tree has
                               started is a descendant, too. Left out: who changes its own
                               RLIMIT_LOCKS, by which it is known, and then loses its parent. */
    PM_CONTAIN_CGROUP,    /**< Linux, pm_spec::cgroup: a control group of its own. Nothing leaves
                               it without the right to write to control groups. */
    PM_CONTAIN_JOB        /**< A Windows job. A descendant that asks for CREATE_BREAKAWAY_FROM_JOB
                               leaves it, as a daemon of a child that is a manager itself does. */
};

/** How a daemon left the surroundings of its starter. */
enum pm_detachment {
    PM_DETACH_NONE = 0,  /**< Not a daemon. */
    PM_DETACH_LAUNCHER,  /**< POSIX: double fork through the launcher, own session. */
    PM_DETACH_FREE,      /**< Windows: there was no job to leave. */
    PM_DETACH_BREAKAWAY, /**< Windows: broke away from the caller's job. */
    PM_DETACH_IN_JOB /**< Windows: still in a job without kill-on-close, accepted by the Spec. */
};

/** A poorer mechanism that had to be used, because the system or a filter on its calls left no
 *  better one. Bits of pm_info::fallbacks and pm_stats::fallback_kinds. */
enum pm_fallback {
    PM_FALLBACK_BEST_EFFORT = 1, /**< No kernel object pins the process, see pm_info::best_effort.
                                      Linux before 5.3; always on macOS and the BSDs. */
    PM_FALLBACK_FORK = 2,        /**< Forked: the cost grows with the host's memory. Always on macOS
                                      and the BSDs. */
    PM_FALLBACK_VFORK = 4,       /**< Linux before 5.3: a child that somebody stops before its
                                      first step holds the starting thread until it goes on. */
    PM_FALLBACK_COPIED_TABLE = 8, /**< The cost grows with the host's open descriptors. Linux before
                                       6.11, or the host had the numbers from 16 to 63 in use when
                                       the manager was opened, or there were too many starts at
                                       once. */
    PM_FALLBACK_SIGNAL_BY_NUMBER = 16, /**< A signal went to the pid. To a child of ours that is as
                                            safe; to others an identity check came directly
                                            before. */
    PM_FALLBACK_LATE_JOB = 32 /**< Windows before 10: put into its job after its birth, suspended
                                   until then. */
};

enum pm_stop_action {
    PM_STOP_CLOSE_STDIN = 1, /**< Close our end of stdin (once no write is under way). A full
                                  terminal is tried again until the step's time is up. */
    PM_STOP_INTERRUPT,       /**< SIGINT, then SIGCONT. Windows: Ctrl-C on the console of the child,
                                  for all of its tree that are on it; with PM_SCOPE_PROCESS only if
                                  nobody else is. Needs pm_launcher_main() (else
                                  PM_ERR_NO_LAUNCHER) and a console of the child's own, which a
                                  child has unless a slot inherits ours: PM_ERR_UNSUPPORTED there,
                                  for daemons, and where somebody outside of its tree would hear
                                  it. */
    PM_STOP_TERMINATE,       /**< SIGTERM, then SIGCONT. Windows: the named stop event of programs
                                  that call pm_stop_event_open(), else WM_CLOSE to all their windows
                                  (with PM_SCOPE_TREE each of the tree is asked so). Unless the
                                  process itself has such an event or a window that is visible,
                                  Ctrl-C as above, too: a hidden window may be there for other ends.
                                  Where it has no console of its own the hidden window is enough. */
    PM_STOP_KILL             /**< SIGKILL, then SIGCONT. Windows: TerminateJobObject or
                                  TerminateProcess, exit code 1. */
};

enum pm_stop_scope {
    PM_SCOPE_TREE = 0, /**< The process and all that the containment holds. */
    PM_SCOPE_PROCESS,  /**< The process alone. */
    PM_SCOPE_GROUP     /**< Its process group. Windows: PM_ERR_UNSUPPORTED. */
};

/** One step: do `action`, then wait up to `timeout_ms` for it to work. */
struct pm_stop_step {
    enum pm_stop_action action;
    enum pm_stop_scope scope;
    uint32_t timeout_ms; /**< 0 = do not wait: go to the next step at once. For the last step:
                              PM_STOP_SETTLE_MS. */
};

/** Longest stop plan. */
#define PM_STOP_STEPS_MAX 8
/** How long the last step of a plan waits when its timeout is 0, in milliseconds. */
#define PM_STOP_SETTLE_MS 2000
/** Grace of the default plan between terminate and kill, in milliseconds. */
#define PM_STOP_GRACE_MS 5000

/** How to stop, as data. A zeroed plan (steps_count 0) means: terminate the tree, 5 s, kill the
 *  tree. */
struct pm_stop_plan {
    size_t steps_count;
    struct pm_stop_step steps[PM_STOP_STEPS_MAX];
};

/** What a stop did. */
struct pm_stop_report {
    size_t size;        /**< sizeof(struct pm_stop_report): use PM_STOP_REPORT_INIT. */
    int result;         /**< PM_OK: ended. PM_ERR_TIMEOUT: still there after the last step. */
    bool already_ended; /**< The process was dead before the first step (its tree may not have
                             been). */
    unsigned ended_by;  /**< Number of the step that ended it, from 1; 0 = none of them. */
    enum pm_stop_action ended_by_action; /**< Action of that step; 0 if ended_by is 0. */
    unsigned steps_tried;                /**< Steps begun. */
    int step_results[PM_STOP_STEPS_MAX]; /**< PM_OK: delivered; PM_ERR_GONE: nobody was left;
                                              else why it could not be delivered, which is a warning
                                              in the log, too. PM_ERR_TIMEOUT: the delivery itself
                                              took too long and was given up. */
    bool tree_left;                      /**< Descendants were still seen at the end, or nobody can
                                              tell (a session where /proc is not mounted). */
    uint32_t elapsed_ms;                 /**< Duration of the whole stop. */
};

enum pm_exit_kind {
    PM_EXIT_EXITED = 1, /**< By itself; `code` is its exit code. */
    PM_EXIT_SIGNALED,   /**< POSIX: by a signal; `signal` and `core_dumped` are set. */
    PM_EXIT_LOST        /**< It has ended and nobody can tell how. Never success. */
};

/** How a process ended. A record never changes once given. */
struct pm_exit {
    size_t size; /**< sizeof(struct pm_exit): use PM_EXIT_INIT. */
    enum pm_exit_kind kind;
    uint32_t code; /**< EXITED: all 32 bits on Windows, 0 to 255 on POSIX. */
    int signal;    /**< SIGNALED: the OS's signal number. */
    bool core_dumped;
    unsigned stop_step; /**< Step of our stop plan that ended it, from 1; 0 = none. One that was
                             still being delivered counts. */
    enum pm_stop_action stop_action;
    bool usage_known;     /**< The next three are filled. */
    uint64_t user_us;     /**< CPU time in user mode, microseconds. */
    uint64_t system_us;   /**< CPU time in the kernel, microseconds. */
    uint64_t max_rss_kib; /**< Largest resident set, KiB. */
    int64_t started_wall_ms;
    int64_t ended_wall_ms; /**< When the end was noticed. */
    uint64_t uptime_ms;    /**< Start to noticed end, monotonic; wall times for daemons of an
                                earlier manager. */
    bool stdout_truncated; /**< A reader gave up before the stream's end (see pm_stream_read). */
    bool stderr_truncated;
};

/** A standard stream of a process, as it is now. */
struct pm_stream_info {
    enum pm_stdio_kind kind; /**< What the child was given; DEFAULT = not known (recovered). */
    bool open;               /**< Our end of the pipe or terminal is open and not taken. */
    bool truncated;          /**< See pm_stream_read(). */
};

/** A snapshot of one process. The strings belong to the Handle and live as long as a reference. */
struct pm_info {
    size_t size; /**< sizeof(struct pm_info): use PM_INFO_INIT. */
    const char *owner;
    const char *program; /**< Absolute path that was started. */
    const char *key;     /**< Daemons; else NULL. */
    const char *label;   /**< Daemons with a label; else NULL. */
    void *user;          /**< pm_spec::user; NULL for recovered daemons. */
    uint64_t pid;        /**< For display only. */
    enum pm_mode mode;
    enum pm_state state;
    bool alive;
    int64_t started_wall_ms;
    uint64_t uptime_ms;              /**< Until now, or until the end. */
    enum pm_containment containment; /**< What was obtained. */
    enum pm_detachment detachment;   /**< What was obtained. */
    bool die_with_parent;
    bool recovered;   /**< Started by an earlier manager. */
    bool adopted;     /**< A daemon whose parent we became (PID 1 or subreaper). */
    bool best_effort; /**< No kernel object pins the process: a signal follows an identity check at
                           once instead. */
    uint64_t id; /**< Number of this process in its manager, from 1; never given twice, as a pid
                      may be. */
    struct pm_stream_info streams[3]; /**< stdin, stdout, stderr. */
    uint32_t fallbacks;               /**< enum pm_fallback bits of its start, and since. */
};

/** Called once, when the exit record is final. Runs on the dispatcher (see pm_open), outside all
 *  locks, and may call anything.
 *  process: borrowed for the call; user: pm_spec::user. */
typedef void pm_exit_callback(pm_process *process, const struct pm_exit *record, void *user);

/** A resource limit of the child (POSIX). */
struct pm_rlimit {
    int resource; /**< RLIMIT_* of the OS. */
    uint64_t soft, hard;
};

/** Priority class of the child (Windows). */
enum pm_priority {
    PM_PRIORITY_DEFAULT = 0, /**< As CreateProcess decides: NORMAL, or the caller's if that is
                                  lower. */
    PM_PRIORITY_IDLE,
    PM_PRIORITY_BELOW_NORMAL,
    PM_PRIORITY_NORMAL,
    PM_PRIORITY_ABOVE_NORMAL,
    PM_PRIORITY_HIGH,
    PM_PRIORITY_REALTIME /**< Without the right to it Windows gives HIGH: then the start fails with
                              PM_ERR_ACCESS, as for any class that is not given, and the program
                              has not run. */
};

/** Limits of the job around a process and its descendants (Windows). 0 = none. */
struct pm_job_limits {
    uint32_t processes;       /**< Living at once, the process itself included. */
    uint64_t process_memory;  /**< Bytes committed, of each process. */
    uint64_t job_memory;      /**< Bytes committed, of all. */
    uint64_t process_user_ms; /**< CPU time in user mode, of each process: it is ended then. */
};

/** What to start, and how. */
struct pm_spec {
    size_t size; /**< sizeof(struct pm_spec): use PM_SPEC_INIT. */

    /* What. */
    const char *owner;   /**< Required, 1 to 255 bytes: whose it is; shown everywhere. */
    const char *program; /**< Required. With a separator: resolved against `cwd`. Without: searched
                              in the PATH of the child's environment; empty, "." and relative
                            entries are skipped, the folders of the caller's program and of Windows
                            are not added. Windows: a name with a dot or a separator is tried as it
                            stands, then each name with those of .com and .exe (with
                            allow_batch_file also .bat and .cmd) that PATHEXT of the child's
                            environment names, in its order. */
    const char *const *argv; /**< NULL-terminated, argv[0] included; NULL = { program }. */
    const char *cwd;         /**< NULL = the caller's. Windows: 258 characters at most. */
    enum pm_env_base env_base;
    const char *const *env; /**< NULL-terminated changes: "NAME=value" sets, "NAME" removes. */
    enum pm_mode mode;

    /* Descriptors: the child gets these and no others. */
    struct pm_stdio stdin_slot, stdout_slot, stderr_slot;
    const struct pm_extra *extras;
    size_t extras_count;

    /* Life. */
    struct pm_stop_plan stop; /**< Used by pm_process_stop(NULL), pm_stop_all, pm_close. */
    enum pm_group group;      /**< POSIX. Windows: OWN and HOST are alike. OWN with an inherited
                                   terminal as stdin is refused: the child would stop at its first
                                   read. */
    enum pm_containment containment; /**< The least that will do; a start that cannot have it fails
                                          with PM_ERR_UNSUPPORTED. */
    bool die_with_parent;      /**< The tree, as the containment holds it, ends when this program
                                    ends, however it ends. Not for daemons. POSIX: needs
                                  pm_launcher_main() or the helper too, as a small keeper process is
                                  started with the first one, or with the manager
                                  (pm_options::prestart_keeper). */
    bool kill_tree_on_exit;    /**< When the process ends by itself, kill what it left behind: at
                                    once, and if somebody is left then (there may be no descriptor
                                    to look for him) again, for 10 s or until pm_close(). What is
                                    given up is told in the log. */
    uint32_t start_timeout_ms; /**< 0 = 30000. Everything up to the proof of exec. */
    pm_exit_callback *on_exit;
    void *user; /**< Yours; given to on_exit and found in pm_info. */

    /* Daemons. */
    const char *key;       /**< Required for daemons: unique in the registry, 1 to 128 bytes. */
    const char *label;     /**< Anything of yours, up to 1024 bytes, given back on recovery. */
    bool accept_outer_job; /**< Windows: a job without kill-on-close around the daemon will do. */

    /* Terminal, PTY mode only. */
    uint16_t terminal_columns, terminal_rows; /**< 1 to 32767 characters; 0 = 80 x 24. */

    /* Process options. One that this OS or mode does not have is PM_ERR_UNSUPPORTED, with the
     * field's name; one that cannot be carried out fails the start. Never is one left out. */

    /* POSIX. Applied in this order, after the descriptors: limits, nice value, umask, credentials
     * (groups, group, user), cwd, no_new_privileges. So limits and nice values that need rights
     * get them, and the folder and the program have to be accessible to the user. */
    const char *run_as_user;  /**< Name or decimal number; NULL = unchanged. Needs root. */
    const char *run_as_group; /**< Name or decimal number; NULL = the main group of run_as_user (a
                                   number that the user database does not know needs it). */
    const uint32_t *supplementary_groups; /**< Exactly these and run_as_group. With run_as_user or
                                               run_as_group: NULL = none, never the caller's. */
    size_t supplementary_groups_count;
    bool groups_of_user; /**< Instead: those that the user database gives run_as_user. */
    bool set_umask;
    uint32_t umask_value;            /**< 0 to 0777. */
    const struct pm_rlimit *rlimits; /**< Each resource once. */
    size_t rlimits_count;
    bool set_nice;
    int nice_value;         /**< -20 to 19. */
    bool new_session;       /**< Leader of a session of its own, without a terminal. PTY and daemons
                                 are anyway. */
    bool no_new_privileges; /**< Linux: no set-id program and no file capability gives it or its
                                 descendants more than it has. */
    const char *cgroup;     /**< Linux: absolute path of a control group (version 2) that is ours to
                                 divide. The process is born in a new one below it, which is removed
                                 after the process has ended and it has become empty: at once, with
                                 a later start that has one, with a sweep of the detector or
                                 pm_leak_scan(), or with pm_close(). Of a host that is killed it
                                 stays, but for die_with_parent, which ends all in it and removes
                                 it; then its name tells the pid and start time of the host:
                                 processmgr-PID-START-NUMBER. */

    /* Windows. */
    enum pm_priority priority_class;
    struct pm_job_limits job_limits; /**< Of the job that holds the tree. Not for daemons. */
    bool allow_batch_file; /**< Lets `program` be a .bat or .cmd file: the system's cmd.exe runs it,
                                with each argument quoted by its rules; argv[0] is not passed. A
                                line end (CR, LF) or a Ctrl-Z cannot be quoted: PM_ERR_INVALID. The
                                whole line has 8191 characters at most. Safe is the way into the
                                file. Within it an argument is safe as %1, %* or "%~1"; %~1 without
                                quotation marks, `call`, `for` and delayed expansion read it again.
                                Without the field a batch file is PM_ERR_UNSUPPORTED. */
    const char *raw_command_line; /**< Given to the program as it is, with its name in front if it
                                       wants one, instead of argv: for programs with rules of their
                                       own. 32766 characters of UTF-16 at most. Not with batch
                                       files. */
};

enum pm_loop {
    PM_LOOP_OWN = 0, /**< The manager has a reactor thread and a dispatcher thread. */
    PM_LOOP_CALLER   /**< No thread of ours: see pm_loop_native(). POSIX: die_with_parent children
                          that are started on another thread than the program's first one need
                          one; those started on the first end with it, also by pthread_exit(). */
};

enum pm_log_level {
    PM_LOG_DEBUG = 0,
    PM_LOG_INFO,
    PM_LOG_WARNING,
    PM_LOG_ERROR
};

enum pm_event_kind {
    PM_EVENT_STARTED = 1,
    PM_EVENT_ENDED,
    PM_EVENT_RECOVERED,
    PM_EVENT_QUARANTINED,  /**< A registry record that cannot be trusted was set aside. */
    PM_EVENT_LEAK,         /**< The zombie detector found something: see pm_leak_scan(). */
    PM_EVENT_STOPPED,      /**< POSIX: a signal has stopped the process. */
    PM_EVENT_CONTINUED,    /**< And it goes on. */
    PM_EVENT_START_FAILED, /**< pm_spawn() returned an error; `detail` is its line. */
    PM_EVENT_STOPPING      /**< A stop plan begins on a process that lives. */
};

/** Something happened. Delivered in order per process. */
struct pm_event {
    enum pm_event_kind kind;
    pm_process *process; /**< Borrowed for the call; NULL for QUARANTINED, LEAK and START_FAILED. */
    const struct pm_exit *record; /**< ENDED; else NULL. */
    const char *detail;           /**< One line, or "". */
    uint64_t id;                  /**< pm_info::id of the process; 0 = none. */
    uint64_t pid;                 /**< Of the process, or of what leaked; 0 = none. */
};

/** One line for the host's log, without a newline. May be called on any thread, never under a lock
 *  of the library; must not call pm_close(). What is found at an exit (its record could not be
 *  written) is told where the callbacks run. line: borrowed for the call. */
typedef void pm_log_sink(void *user, enum pm_log_level level, const char *line);
/** One event; runs on the dispatcher. event: borrowed for the call. */
typedef void pm_event_sink(void *user, const struct pm_event *event);

/** What the zombie detector does with what it finds. */
enum pm_leak_policy {
    PM_LEAK_REPORT = 0, /**< Tells it and touches nothing: a thread of the host may still wait. */
    PM_LEAK_REAP        /**< Tells it, then waits for it, by its pid, once it is dead for
                             sure and the same as in the sweep before. For a program that is all the
                             manager's: a wait of the host for that pid would find nobody. */
};

/** How a manager shall be. */
struct pm_options {
    size_t size;              /**< sizeof(struct pm_options): use PM_OPTIONS_INIT. */
    const char *registry_dir; /**< Folder for daemons' records, made (0700, owner-only) if missing;
                                   its parent must exist, and a link is not followed. Of this
                                   machine alone: what another boot has written counts as ended.
                                   NULL = no registry, so no daemons. See pm_default_state_dir(). */
    enum pm_loop loop;
    uint32_t launcher_timeout_ms; /**< 0 = 10000. */
    uint32_t status_pending_ms;   /**< 0 = 5000: how long a dead daemon's status may be pending
                                       before it is lost. That of our own child never is. */
    uint32_t drain_ms;            /**< 0 = 250: how long a stream may stay silent after the exit. */
    uint32_t leak_sweep_ms;    /**< 0 = 30000: rhythm of the zombie detector; UINT32_MAX = off. Not
                                    run with PM_LOOP_CALLER: call pm_leak_scan(). */
    const char *launcher_path; /**< Helper program to use instead of the installed one. */
    uint32_t stop_watch_ms; /**< 0 = 1000: how often to look whether a process has been stopped or
                                 continued (POSIX); UINT32_MAX = never. Nobody looks, and nobody is
                                 woken for it, but for an event sink or a terminal that is lent
                                 (PM_GROUP_FOREGROUND). With PM_LOOP_CALLER it is work of
                                 pm_dispatch(), and pm_loop_timeout() counts it in.
                                 pm_process_info() looks by itself. */
    /** This process is the manager's. Until pm_close() it is a subreaper: orphans come to it. Those
     *  that descend from a process started here and belong to no Handle are waited for by their
     *  numbers (pm_stats::orphans_reaped), and trees are held whole (PM_CONTAIN_SUBREAPER). The
     *  host's own children are never waited for; what those leave behind comes to the host as well
     *  and is its own to wait for (the zombie detector reports it). Dead orphans are found within
     *  100 ms while processes of this manager live. On Linux every process started here gets a
     *  value for RLIMIT_LOCKS, which the kernel uses for nothing (in pm_spec::rlimits:
     *  PM_ERR_UNSUPPORTED). PM_ERR_BUSY: another manager of this program has it.
     *  PM_ERR_UNSUPPORTED: Windows, macOS; no /proc; RLIMIT_LOCKS has been set already, or this
     *  process is in a tree in a tree. */
    bool own_process;
    pm_log_sink *log;
    pm_event_sink *event;
    void *user; /**< Yours; given to the sinks. */
    enum pm_leak_policy leak_policy;
    bool prestart_keeper; /**< A process with pm_spec::die_with_parent will follow. POSIX: its
                                    keeper is started now, beside what the caller does until then,
                                    and the start need not wait for it. What fails here is tried
                                    again, and told, by that start. */
};

/** Upper bounds of a histogram's buckets in microseconds; the last bucket has none. */
#define PM_HISTOGRAM_BOUNDS_US                                                                     \
    {                                                                                              \
        100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000, 500000, 1000000,     \
            2500000, 5000000, 10000000, 30000000                                                   \
    }
#define PM_HISTOGRAM_BUCKETS 18

/** How long something took. */
struct pm_histogram {
    uint64_t count;
    uint64_t sum_us;
    uint64_t buckets[PM_HISTOGRAM_BUCKETS]; /**< Each for itself: bucket i counts what took at most
                                                 bound i and more than bound i - 1. */
};

/** Counters of one mode. started + recovered = live + exited + killed + lost, but for starts and
 *  ends under way. */
struct pm_mode_stats {
    uint64_t started;
    uint64_t recovered;
    uint64_t exited; /**< Ended by themselves, with an exit code. */
    uint64_t killed; /**< Ended by a signal, or by the kill of a stop plan. */
    uint64_t lost;   /**< Nobody can tell how they ended. */
    uint64_t live;   /**< Now: alive as far as is known. */
};

/** Counters of one manager since it was opened. */
struct pm_stats {
    size_t size; /**< sizeof(struct pm_stats): use PM_STATS_INIT. */
    uint64_t started, start_failures, ended, lost;
    uint64_t running, running_daemons; /**< Now. */
    uint64_t recovered, adopted;
    uint64_t exec_retries; /**< ETXTBSY answered by trying again. */
    uint64_t fallbacks;    /**< Starts that had to do without a pidfd or without a shared-memory
                                clone. */
    uint64_t leak_sweeps;  /**< Sweeps of the zombie detector. */
    uint64_t leaked_now;   /**< Zombies of this program that no manager tracks, seen in two
                                sweeps in a row. Should be 0 for ever. */
    uint64_t leaked_total; /**< The same, each counted once, since open: found. */
    uint64_t leaked_pid;   /**< One of them; 0 = none. */
    uint64_t registry_failures; /**< Records that could not be written. */
    uint64_t leaked_reaped;     /**< Of leaked_total, waited for (PM_LEAK_REAP). */
    uint64_t orphans_total;     /**< Zombies that are no leak: what a descendant left behind and
                                     the system gave to us, as PID 1 or subreaper. Each once. */
    uint64_t orphans_reaped;    /**< Of these, waited for: by own_process (descendants of processes
                                     started here that belong to no Handle), or PM_LEAK_REAP. */
    uint64_t stop_failures; /**< Stops after whose last step the process or its tree was there. */
    struct pm_mode_stats modes[3];      /**< By enum pm_mode. */
    struct pm_histogram spawn_duration; /**< pm_spawn(): call to proof of exec, successes only. */
    struct pm_histogram stop_duration;  /**< Stops of processes that lived, also failed ones. */
    uint32_t fallback_kinds; /**< enum pm_fallback bits of all starts, and of all processes that
                                have ended. */
};

/** What pm_stop_all or pm_close did. */
struct pm_stop_all_report {
    size_t size;          /**< sizeof(struct pm_stop_all_report): use PM_STOP_ALL_REPORT_INIT. */
    size_t total;         /**< Processes that were to be stopped. */
    size_t stopped;       /**< Ended with their tree. */
    size_t already_ended; /**< Of these, dead before the first step. */
    size_t left;          /**< Still there at the deadline. */
    size_t daemons;       /**< Living daemons left alone. */
    size_t undelivered;   /**< Steps that could not be delivered; each is a warning in the log. */
    int undelivered_code; /**< PM_ERR_* of the first of them; 0 = none. */
};

/** Called by pm_stop_all for each process. process: borrowed for the call. */
typedef void pm_stop_visitor(void *user, pm_process *process, const struct pm_stop_report *report);

/** Called by pm_list and pm_recover for each process. process: borrowed for the call; take a
 *  reference to keep it. Return 0 to go on, anything else to stop the walk. */
typedef int pm_process_visitor(void *user, pm_process *process);

/** What pm_recover found. */
struct pm_recover_report {
    size_t size;        /**< sizeof(struct pm_recover_report): use PM_RECOVER_REPORT_INIT. */
    size_t alive;       /**< Proven to be the same process: ordinary Handles. */
    size_t ended;       /**< Died while nobody watched: Handles whose record is `lost`, or has the
                             true status where the kernel still tells it. */
    size_t dropped;     /**< Records of starts that never came to run: cleared away. */
    size_t quarantined; /**< Damaged, torn or future records: set aside, nothing signalled. */
    size_t unproven;    /**< Records whose process cannot be told apart from a stranger now: left as
                             they are, nothing signalled. */
};

/** Whether the process that was recorded is still there, as the kernel tells it now. */
enum pm_proof {
    PM_PROOF_NONE = 0, /**< Nothing to prove: a record that is not trusted. */
    PM_PROOF_ALIVE,    /**< That very process lives. */
    PM_PROOF_DEAD,     /**< It has ended, whoever has its pid now. */
    PM_PROOF_UNPROVEN  /**< Neither can be told now (another pid namespace, a hidden process). */
};

/** An exit record or a daemon's record as found in a registry folder. The strings live for the
 *  call only. */
struct pm_registry_entry {
    const char *file;  /**< Name of the record's file. */
    const char *state; /**< "starting", "running", "exited", "quarantined". */
    const char *key, *owner, *program, *label; /**< NULL where unknown. */
    uint64_t pid;
    int64_t started_wall_ms;
    const struct pm_exit *record; /**< state "exited"; else NULL. */
    const char *problem;          /**< Why it is not trusted, or NULL. */
    enum pm_proof proof;
    uint64_t start;  /**< What tells it from others of its pid: clock ticks since boot on Linux, the
                          creation FILETIME on Windows; 0 where unknown. */
    uint64_t object; /**< Linux: inode of its pidfd; Windows: number in its job's name; else 0. */
    enum pm_detachment detachment; /**< How it left its starter's surroundings. */
};

/** Who owns a registry, as its lock file tells. */
struct pm_registry_owner {
    size_t size;         /**< sizeof(struct pm_registry_owner): use PM_REGISTRY_OWNER_INIT. */
    uint64_t pid, start; /**< As in struct pm_registry_entry. */
    uint64_t epoch;      /**< How many owners there have been. */
    enum pm_proof proof; /**< Of the owner. A dead one was not able to say that it leaves, or has
                              left: the next one takes over by itself. */
};
typedef int pm_registry_visitor(void *user, const struct pm_registry_entry *entry);

/** Input of pm_run(). */
struct pm_run_options {
    size_t size;                /**< sizeof(struct pm_run_options): use PM_RUN_OPTIONS_INIT. */
    const struct pm_spec *spec; /**< Mode NORMAL or PTY. Slots left zero: stdin is a pipe if there
                                   is input and null otherwise, stdout and stderr are captured; in
                                     PTY mode what the terminal shows is captured as stdout. Other
                                     slots are as they say. */
    const void *input;          /**< Fed to stdin, which is closed after it. Borrowed for the call.
                                     With input stdin cannot be another slot. */
    size_t input_size;
    size_t max_output;  /**< Bytes kept of each output, the first ones; what is more is read and
                             dropped. 0 = 1 MiB. */
    int64_t timeout_ms; /**< For all of it, also the start, which pm_spec::start_timeout_ms bounds,
                             too; then the tree is stopped by the Spec's plan, also what the
                             program left behind and what still writes. 0 or PM_FOREVER = none. */
};

/** Output of pm_run(); free with pm_run_result_clear(). */
struct pm_run_result {
    size_t size;                  /**< sizeof(struct pm_run_result): use PM_RUN_RESULT_INIT. */
    const struct pm_exit *record; /**< How it ended. On PM_ERR_TIMEOUT all zero but its size. */
    const struct pm_stop_report *stop; /**< If timed_out; else all zero but its size. Both are yours
                                            until pm_run_result_clear(). */
    char *output[2]; /**< stdout, stderr; NUL-terminated behind output_size bytes; NULL if not
                          captured. Yours until pm_run_result_clear(). */
    size_t output_size[2];
    uint64_t output_dropped[2]; /**< Bytes beyond max_output. */
    size_t input_written;       /**< Less than input_size: the child has closed its stdin, or
                                     has ended, before it had read all. */
    bool timed_out;             /**< timeout_ms passed; stop says what ended it. If the program had
                                     ended in time and somebody else held its output,
                                     stop->already_ended says so. */
};

/* clang-format off */
#ifdef __cplusplus
extern "C++" { /* Also when this header is included inside extern "C". */
namespace pm_detail { template <typename T> inline T sized() { T t = {}; t.size = sizeof(T); return t; } }
}
#define PM_INIT_(type) pm_detail::sized<type>()
#else
#define PM_INIT_(type) { .size = sizeof(type) }
#endif
/* clang-format on */
#define PM_ERROR_INIT PM_INIT_(struct pm_error)
#define PM_SPEC_INIT PM_INIT_(struct pm_spec)
#define PM_OPTIONS_INIT PM_INIT_(struct pm_options)
#define PM_STATS_INIT PM_INIT_(struct pm_stats)
#define PM_INFO_INIT PM_INIT_(struct pm_info)
#define PM_EXIT_INIT PM_INIT_(struct pm_exit)
#define PM_STOP_REPORT_INIT PM_INIT_(struct pm_stop_report)
#define PM_STOP_ALL_REPORT_INIT PM_INIT_(struct pm_stop_all_report)
#define PM_RECOVER_REPORT_INIT PM_INIT_(struct pm_recover_report)
#define PM_REGISTRY_OWNER_INIT PM_INIT_(struct pm_registry_owner)
#define PM_RUN_OPTIONS_INIT PM_INIT_(struct pm_run_options)
#define PM_RUN_RESULT_INIT PM_INIT_(struct pm_run_result)

/* ---------------------------------------------------------------------------------------------
 * 3. Library and errors
 * ------------------------------------------------------------------------------------------- */

/**
 * Version of the library that runs, which may be newer than this header.
 *
 * @return PM_VERSION_STRING of the library; static, never NULL.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API const char *pm_version(void);

/**
 * Name of an error, for logs and tests.
 *
 * @param code PM_OK or PM_ERR_*.
 * @return "PM_ERR_NOT_FOUND" and the like; "PM_ERR_?" for a number that is none; static.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API const char *pm_error_name(int code);

/**
 * Text of an error, for people.
 *
 * @param code PM_OK or PM_ERR_*.
 * @return a short lower-case text; static, never NULL.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API const char *pm_strerror(int code);

/**
 * Name of a stage.
 *
 * @param stage a stage from struct pm_error.
 * @return "exec", "chdir" and the like; "" for PM_STAGE_NONE, "?" for a number that is none;
 * static. Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API const char *pm_stage_name(enum pm_stage stage);

/**
 * Name of a kind of event. The names are a fixed vocabulary, for logs and programs.
 *
 * @param kind a kind from struct pm_event.
 * @return "started", "ended", "recovered", "quarantined", "leak", "stopped", "continued",
 *         "start_failed", "stopping"; "?" for a number that is none; static.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API const char *pm_event_name(enum pm_event_kind kind);

/**
 * Name of one poorer mechanism.
 *
 * @param fallback one bit of pm_info::fallbacks or pm_stats::fallback_kinds.
 * @return "best_effort", "fork", "vfork", "copied_table", "signal_by_number", "late_job"; "?" for
 *         anything else; static.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API const char *pm_fallback_name(enum pm_fallback fallback);

/**
 * One line that a person can act on: what, owner, program, stage, the system's text, a hint:
 *
 *     start of 'agentd' (owner pod:7) failed at exec: No such file or directory; looked in PATH=...
 *
 * Control characters are escaped.
 *
 * @param error the detail of a failed call; borrowed.
 * @param buffer where the line goes, always NUL-terminated if capacity > 0; may be NULL with
 *        capacity 0.
 * @param capacity bytes of buffer; 4096 is always enough.
 * @return length in bytes of the whole line without NUL, even if it did not fit; PM_ERR_INVALID if
 *         error is NULL.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_error_format(const struct pm_error *error, char *buffer, size_t capacity);

/**
 * Entry of the launcher: call it first thing in main(), before threads and before anything that
 * must not happen twice. In an ordinary start it only notes that this program can be its own
 * launcher. If the library started this program as its launcher, it does that work and ends the
 * process; called so by anybody else, it ends the process with exit code 2.
 * On Windows daemons need no launcher; there the work is to send Ctrl-C to the console of a child
 * that is stopped (PM_STOP_INTERRUPT), which the program itself cannot do without losing its own.
 *
 * @param argc from main().
 * @param argv from main(); borrowed.
 * @return nothing.
 * Blocking: no. Thread safety: from main(), before threads. Since: 0.1.0.
 */
PM_API void pm_launcher_main(int argc, char **argv);

/**
 * The folder where programs keep such state: $XDG_STATE_HOME/app or ~/.local/state/app on POSIX,
 * %LOCALAPPDATA%\app on Windows. Makes missing folders, owner-only.
 *
 * @param app name of the program, without separators, 1 to 64 bytes.
 * @param ret_path set to the path; free with pm_free().
 * @return PM_OK; PM_ERR_INVALID (name); PM_ERR_NOT_FOUND (no home is known); PM_ERR_ACCESS,
 *         PM_ERR_NO_SPACE, PM_ERR_IO, PM_ERR_SYSTEM (cannot be made); PM_ERR_NO_MEMORY.
 * Blocking: file system. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_default_state_dir(const char *app, char **ret_path);

/**
 * Frees what the library gave out as "free with pm_free()".
 *
 * @param memory such memory, or NULL.
 * @return nothing.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API void pm_free(void *memory);

/* ---------------------------------------------------------------------------------------------
 * 4. Manager
 * ------------------------------------------------------------------------------------------- */

/**
 * Opens a manager. With a registry folder it becomes the folder's one writer until pm_close().
 * With PM_LOOP_OWN two threads start, which block every signal: a reactor that waits for those
 * nobody waits for, and a dispatcher that runs the callbacks.
 *
 * @param options how it shall be; NULL = all defaults, no registry; copied.
 * @param ret_manager set to the manager; end it with pm_close().
 * @param ret_error detail on failure; may be NULL.
 * @return PM_OK; PM_ERR_INVALID, PM_ERR_UNSUPPORTED (a field, named in the detail); PM_ERR_BUSY
 *         (own_process: another manager of this program has it);
 *         PM_ERR_REGISTRY_BUSY (a living owner: its pid is in the detail); PM_ERR_ACCESS (the
 * folder is not ours alone, or may not be made); PM_ERR_NOT_A_DIRECTORY (also a link);
 *         PM_ERR_NOT_FOUND (where it is to be made); PM_ERR_NO_MEMORY, PM_ERR_NO_DESCRIPTORS,
 *         PM_ERR_NO_SPACE, PM_ERR_IO, PM_ERR_SYSTEM; PM_ERR_IDENTITY (a registry, and
 *         a /proc that is not of this process's pid namespace, so that nobody can be proven).
 * Blocking: file system. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_open(const struct pm_options *options, pm_manager **ret_manager,
                   struct pm_error *ret_error);

/**
 * Ends a manager: refuses new starts, stops everything but daemons by their plans, waits for them
 * (and up to pm_options::status_pending_ms for the status of daemons that have just ended), gives
 * up the registry, joins its threads. Handles stay valid. They keep their record, what
 * pm_process_info() and pm_process_alive() tell, their exit waitable, and their streams: the rest
 * of an output can still be read. pm_process_wait() for one that has not ended (a daemon) is
 * PM_ERR_CLOSED, as are pm_process_stop(), pm_process_signal() and pm_process_resize(); a wait that
 * is under way goes on, but no callback tells of its end and no record of it is written. From a
 * callback it only marks the manager as closing and returns PM_ERR_WOULD_DEADLOCK; call it again
 * from another thread to finish.
 *
 * @param manager the manager, gone on success; NULL does nothing.
 * @param timeout_ms for everything together, in milliseconds; -1 = 10000.
 * @param ret_report what was stopped and what is left; filled on PM_OK and PM_ERR_BUSY; may be
 * NULL.
 * @return PM_OK; PM_ERR_BUSY: something could not be ended in time; the manager is still usable and
 *         takes starts again; PM_ERR_WOULD_DEADLOCK; PM_ERR_FORKED.
 * Blocking: up to timeout_ms; POSIX, where there were children with die_with_parent: until the
 * helper process for these has left, at once unless somebody has stopped it, and at most 6 s; with
 * pm_options::own_process, and with control groups, until who was killed of a tree has ended, or as
 * long as nobody can tell, at most 2 s each; so with pm_spec::kill_tree_on_exit, but behind
 * timeout_ms for 100 ms at most.
 * Thread safety: any thread, once; no other call on this manager may be under way or follow, except
 * on its Handles. Since: 0.1.0.
 */
PM_API int pm_close(pm_manager *manager, int64_t timeout_ms, struct pm_stop_all_report *ret_report);

/**
 * Starts a process. When it returns PM_OK the program is running (or already over): exec is proven,
 * and a daemon is in the registry. When it fails, nothing is left behind. (POSIX: a child that
 * somebody else kills in the very last step before its program counts as started; its record tells
 * the signal.)
 *
 * @param manager the manager.
 * @param spec what to start; copied.
 * @param ret_process set to the Handle with one reference, yours; may be NULL if you do not need
 * it.
 * @param ret_error detail on failure; may be NULL.
 * @return PM_OK; PM_ERR_INVALID or PM_ERR_UNSUPPORTED (a field, named in the detail);
 *         PM_ERR_NOT_FOUND, PM_ERR_ACCESS, PM_ERR_NOT_EXECUTABLE, PM_ERR_NOT_A_DIRECTORY,
 *         PM_ERR_TEXT_BUSY (program or cwd); PM_ERR_TOO_BIG (argv and environment);
 *         PM_ERR_EXISTS (a living daemon has this key); PM_ERR_BUSY (PM_GROUP_FOREGROUND: somebody
 *         else is in front on the terminal); PM_ERR_NO_REGISTRY; PM_ERR_NO_LAUNCHER;
 *         PM_ERR_LAUNCHER; PM_ERR_NOT_DETACHABLE; PM_ERR_DIED_BEFORE_EXEC; PM_ERR_TIMEOUT (start
 *         deadline); PM_ERR_NO_PROCESS_SLOTS, PM_ERR_NO_DESCRIPTORS, PM_ERR_NO_MEMORY,
 *         PM_ERR_NO_SPACE, PM_ERR_IO, PM_ERR_SYSTEM; PM_ERR_CLOSED; PM_ERR_FORKED.
 * Blocking: until the proof of exec, at most spec->start_timeout_ms; of that, where the daemon that
 * had this key before is dead and its status is not known yet, up to
 * pm_options::status_pending_ms for its exit record. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_spawn(pm_manager *manager, const struct pm_spec *spec, pm_process **ret_process,
                    struct pm_error *ret_error);

/**
 * Walks over a snapshot of all processes that the manager has, in the order in which it learned of
 * them: those that run, and those that have ended but whose Handle somebody holds.
 *
 * @param manager the manager.
 * @param visit called for each, outside all locks.
 * @param user yours; given to visit.
 * @return PM_OK; what visit returned if that was not 0; PM_ERR_INVALID; PM_ERR_NO_MEMORY;
 *         PM_ERR_FORKED.
 * Blocking: as visit does. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_list(pm_manager *manager, pm_process_visitor *visit, void *user);

/**
 * Finds the Handle of a daemon by its key.
 *
 * @param manager the manager.
 * @param key key of the daemon.
 * @param ret_process set to the Handle with a reference of yours.
 * @return PM_OK; PM_ERR_NOT_FOUND; PM_ERR_INVALID; PM_ERR_FORKED.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_find(pm_manager *manager, const char *key, pm_process **ret_process);

/**
 * Counters.
 *
 * @param manager the manager.
 * @param ret_stats filled up to its size.
 * @return PM_OK; PM_ERR_INVALID; PM_ERR_FORKED.
 * Blocking: no; with pm_options::own_process it looks for dead orphans (reads the lists of /proc).
 * Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_stats(pm_manager *manager, struct pm_stats *ret_stats);

/**
 * Stops everything but daemons, in parallel, each by its plan, under one deadline. A grace that
 * would end behind the deadline is cut short so that the last step still happens before it.
 *
 * @param manager the manager.
 * @param timeout_ms for everything together, in milliseconds; -1 = 10000.
 * @param visit told the report of each process, outside all locks; may be NULL.
 * @param user yours; given to visit.
 * @param ret_report the sum; filled on PM_OK and PM_ERR_BUSY; may be NULL.
 * @return PM_OK; PM_ERR_BUSY: some are left; PM_ERR_INVALID; PM_ERR_NO_MEMORY; PM_ERR_FORKED.
 * Blocking: up to timeout_ms. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_stop_all(pm_manager *manager, int64_t timeout_ms, pm_stop_visitor *visit, void *user,
                       struct pm_stop_all_report *ret_report);

/**
 * Stops all daemons of the manager, recovered ones too, as pm_stop_all does for the others.
 *
 * @param manager the manager.
 * @param timeout_ms for everything together, in milliseconds; -1 = 10000.
 * @param visit told the report of each process, outside all locks; may be NULL.
 * @param user yours; given to visit.
 * @param ret_report the sum; filled on PM_OK and PM_ERR_BUSY; may be NULL.
 * @return PM_OK; PM_ERR_BUSY: some are left; PM_ERR_INVALID; PM_ERR_NO_MEMORY; PM_ERR_FORKED.
 * Blocking: up to timeout_ms. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_stop_daemons(pm_manager *manager, int64_t timeout_ms, pm_stop_visitor *visit,
                           void *user, struct pm_stop_all_report *ret_report);

/**
 * Reads the registry and makes Handles for the daemons of earlier managers. Each living one is
 * proven to be the same process first; then it is listed, counted, stoppable, and its exit is
 * noticed at once. Those that died unobserved get a Handle whose record is `lost`, unless the
 * kernel can still tell. What cannot be
 * proven is left alone and never signalled. Call it once after pm_open(); later calls find nothing
 * new.
 *
 * @param manager a manager with a registry.
 * @param visit called for each Handle made; may be NULL.
 * @param user yours; given to visit.
 * @param ret_report the sum; may be NULL.
 * @return PM_OK; what visit returned if that was not 0, which ends the call; PM_ERR_NO_REGISTRY;
 *         PM_ERR_CLOSED; PM_ERR_IO, PM_ERR_ACCESS, PM_ERR_NO_MEMORY, PM_ERR_NO_DESCRIPTORS,
 *         PM_ERR_SYSTEM: why the first record that could not be looked at, or the folder, could not
 *         (the others were recovered, nothing was deleted: call again); PM_ERR_FORKED.
 * Blocking: file system, and 2 s at most for each half-started daemon that it ends.
 * Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_recover(pm_manager *manager, pm_process_visitor *visit, void *user,
                      struct pm_recover_report *ret_report);

/**
 * Reads a registry folder without owning it: daemons' records of this boot, exit records,
 * quarantined ones, and whether each recorded process lives. Changes nothing.
 *
 * @param registry_dir the folder.
 * @param visit called for each record.
 * @param user yours; given to visit.
 * @return PM_OK; what visit returned if that was not 0; PM_ERR_NOT_FOUND; PM_ERR_ACCESS;
 *         PM_ERR_NOT_A_DIRECTORY; PM_ERR_IO; PM_ERR_NO_MEMORY; PM_ERR_INVALID.
 * Blocking: file system. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_registry_list(const char *registry_dir, pm_registry_visitor *visit, void *user);

/**
 * Tells who owns a registry folder, or owned it last. Needs no lock and changes nothing.
 *
 * @param registry_dir the folder.
 * @param ret_owner filled up to its size.
 * @return PM_OK; PM_ERR_NOT_FOUND (no folder, or nobody has owned it yet); PM_ERR_CORRUPT (the lock
 *         file is damaged, or no plain file of ours); PM_ERR_ACCESS; PM_ERR_NOT_A_DIRECTORY;
 *         PM_ERR_IO; PM_ERR_NO_MEMORY; PM_ERR_INVALID.
 * Blocking: file system. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_registry_owner(const char *registry_dir, struct pm_registry_owner *ret_owner);

/**
 * Drops the exit record of a daemon that has ended.
 *
 * @param manager a manager with a registry.
 * @param key key of the daemon.
 * @return PM_OK; PM_ERR_NOT_FOUND; PM_ERR_BUSY (a daemon of this key lives, or may; also one that
 *         is not recovered yet); PM_ERR_NO_REGISTRY; PM_ERR_INVALID; PM_ERR_IO; PM_ERR_FORKED.
 * Blocking: file system, and up to pm_options::status_pending_ms for the status of one that has
 * just ended. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_forget(pm_manager *manager, const char *key);

/**
 * One sweep of the zombie detector: looks for children of this program that are dead, that nobody
 * has waited for, and that no manager tracks. It reads the process table and never waits for "any
 * child". A zombie counts once it was seen in two sweeps, with the same pid and start time, so that
 * a start or a wait under way elsewhere raises no alarm: leave at least a second between two calls.
 * Each find is logged once, with pid, command, age and where to look, and told to the event sink.
 * pm_options::leak_policy says what happens to it then; with PM_LEAK_REAP it is waited for once it
 * has been seen for a second. On Windows there is no such state: 0. Control groups of
 * pm_spec::cgroup that have become empty are removed on the way.
 *
 * @param manager the manager.
 * @param ret_found zombies seen in this sweep and in the one before, orphans (see pm_stats) not
 *        counted; may be NULL.
 * @return PM_OK; PM_ERR_UNSUPPORTED (no process table to read: /proc is not mounted);
 *         PM_ERR_NO_MEMORY; PM_ERR_NO_DESCRIPTORS; PM_ERR_FORKED.
 * Blocking: reads /proc/self/task/.../children. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_leak_scan(pm_manager *manager, uint64_t *ret_found);

/**
 * Says where a person can look when the detector finds something: the end of its log line. The
 * debug server (debug.h) puts its address here while it runs.
 *
 * @param manager the manager.
 * @param where one line; NULL = "pm_list()"; copied, cut to 255 bytes.
 * @return PM_OK; PM_ERR_INVALID; PM_ERR_CLOSED; PM_ERR_FORKED.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_leak_set_where(pm_manager *manager, const char *where);

/**
 * Descriptor (POSIX) or event handle (Windows) of a PM_LOOP_CALLER manager: readable or signalled
 * when pm_dispatch() has work. Poll it, do nothing else with it.
 *
 * @param manager a manager opened with PM_LOOP_CALLER.
 * @param ret_native set to the descriptor or handle; the manager's, valid until pm_close().
 * @return PM_OK; PM_ERR_UNSUPPORTED (PM_LOOP_OWN); PM_ERR_INVALID; PM_ERR_FORKED.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_loop_native(pm_manager *manager, pm_native *ret_native);

/**
 * How long the caller's loop may sleep before pm_dispatch() has work even without a wake-up.
 *
 * @param manager a manager opened with PM_LOOP_CALLER.
 * @param ret_timeout_ms set to milliseconds, or PM_FOREVER.
 * @return PM_OK; PM_ERR_UNSUPPORTED (PM_LOOP_OWN); PM_ERR_INVALID; PM_ERR_FORKED.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_loop_timeout(pm_manager *manager, int64_t *ret_timeout_ms);

/**
 * Does the work of a PM_LOOP_CALLER manager: waits for those that ended, runs callbacks and sinks
 * on this thread.
 *
 * @param manager a manager opened with PM_LOOP_CALLER.
 * @return number of callbacks run, 0 or more; PM_ERR_UNSUPPORTED (PM_LOOP_OWN);
 *         PM_ERR_WOULD_DEADLOCK (called from a callback); PM_ERR_INVALID; PM_ERR_FORKED.
 * Blocking: as the callbacks do. Thread safety: one thread at a time. Since: 0.1.0.
 */
PM_API int pm_dispatch(pm_manager *manager);

/* ---------------------------------------------------------------------------------------------
 * 5. Handle
 * ------------------------------------------------------------------------------------------- */

/**
 * Takes one more reference.
 *
 * @param process the Handle; NULL is allowed.
 * @return process.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API pm_process *pm_process_ref(pm_process *process);

/**
 * Lets go of one reference. The process goes on and is still waited for, listed and stopped; with
 * the last reference our ends of its pipes are closed. In PTY mode that hangs its terminal up,
 * which ends most programs (SIGHUP), unless both streams were taken.
 *
 * @param process the Handle; NULL does nothing.
 * @return NULL, so that `p = pm_process_unref(p)` leaves nothing dangling.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API pm_process *pm_process_unref(pm_process *process);

/**
 * Snapshot of a process.
 *
 * @param process the Handle.
 * @param ret_info filled up to its size; its strings live as long as the reference.
 * @return PM_OK; PM_ERR_INVALID; PM_ERR_FORKED.
 * Blocking: no, but for another call that just takes the exit of the same process (a daemon's exit
 * record is written to the disk then) or signals its tree. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_process_info(pm_process *process, struct pm_info *ret_info);

/**
 * Process id, for display only: signals and waits go through the Handle.
 *
 * @param process the Handle.
 * @return the id; 0 if process is NULL.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API uint64_t pm_process_pid(const pm_process *process);

/**
 * Parent of a process, asked of the system now, for display only.
 *
 * @param process the Handle.
 * @return the parent's id; 0 if it has ended, if the system does not tell, in a forked copy, or if
 *         process is NULL.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API uint64_t pm_process_parent(pm_process *process);

/**
 * Whether the process lives, asked of the kernel now.
 *
 * @param process the Handle.
 * @return true if it lives; false if it has ended (its status may still be pending), in a forked
 *         copy, or if process is NULL.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API bool pm_process_alive(pm_process *process);

/**
 * Waits for the end of the process. Any number of threads may wait for one Handle; all get the same
 * record. The end of its output is not waited for. While the status is pending the call goes on
 * waiting, up to its timeout.
 *
 * @param process the Handle.
 * @param timeout_ms in milliseconds; 0 polls; PM_FOREVER.
 * @param ret_exit filled up to its size; may be NULL.
 * @return PM_OK; PM_ERR_TIMEOUT (it lives); PM_ERR_STATUS_PENDING (it is dead. Not our child: its
 *         parent has not collected the status yet; known or `lost` within
 *         pm_options::status_pending_ms. Our child: a debugger that traces it has not yet);
 *         PM_ERR_INVALID; PM_ERR_CLOSED; PM_ERR_FORKED.
 * Blocking: up to timeout_ms. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_process_wait(pm_process *process, int64_t timeout_ms, struct pm_exit *ret_exit);

/**
 * A descriptor (POSIX: poll for readable) or handle (Windows: wait for signalled) for any event
 * loop. When it fires, pm_process_wait(process, 0, ...) gives the record (or
 * PM_ERR_STATUS_PENDING, see there). Poll it, do nothing else with it.
 *
 * @param process the Handle.
 * @param ret_native set to it; the Handle's, valid until its last reference is gone.
 * @return PM_OK; PM_ERR_INVALID; PM_ERR_NO_DESCRIPTORS; PM_ERR_UNSUPPORTED (a daemon that had ended
 *         when it was recovered; a recovered one where there is no such object); PM_ERR_FORKED.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_process_exit_waitable(pm_process *process, pm_native *ret_native);

/**
 * Stops a process by a plan: step after step until the process is dead and, for steps on the tree,
 * the tree is empty as far as the containment can see. A step that cannot be delivered takes no
 * time and is reported; one that finds nobody because the process has just ended has its time, for
 * that end to become known. On a process that has ended it still ends its tree.
 *
 * @param process the Handle.
 * @param plan the steps; NULL = the plan of the Spec; copied.
 * @param ret_report what was done; filled on PM_OK and PM_ERR_TIMEOUT; may be NULL.
 * @return PM_OK: ended; PM_ERR_TIMEOUT: still there after the last step, still tracked;
 *         PM_ERR_INVALID (the plan); PM_ERR_CLOSED; PM_ERR_FORKED.
 * Blocking: up to the sum of the steps' timeouts. Thread safety: any thread, callbacks included.
 * Since: 0.1.0.
 */
PM_API int pm_process_stop(pm_process *process, const struct pm_stop_plan *plan,
                           struct pm_stop_report *ret_report);

/**
 * Sends one signal by its number. SIGCONT to a PM_GROUP_FOREGROUND process lends it the terminal
 * again first, if that is with this program.
 *
 * @param process the Handle.
 * @param signal_number the OS's number; 0 only asks.
 * @param scope the process, its group, or its tree. SIGKILL to the tree condemns it: who turns up
 *        in it later is killed, too.
 * @return PM_OK; PM_ERR_GONE; PM_ERR_ACCESS; PM_ERR_UNSUPPORTED (Windows; a scope that the
 *         containment does not have); PM_ERR_INVALID; PM_ERR_CLOSED; PM_ERR_FORKED.
 * Blocking: as pm_process_info(); a scope beyond the process may read the process table (for a kill
 * half a second at most). Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_process_signal(pm_process *process, int signal_number, enum pm_stop_scope scope);

/**
 * Changes the size of the terminal. The foreground processes on it are told (SIGWINCH; Windows: by
 * an event of their console input).
 *
 * @param process the Handle of a PTY process.
 * @param columns width in characters, 1 to 32767.
 * @param rows height in characters, 1 to 32767.
 * @return PM_OK; PM_ERR_UNSUPPORTED (not a PTY process; Wine); PM_ERR_GONE (it has ended and its
 *         terminal is closed: on Windows the one with the other); PM_ERR_INVALID; PM_ERR_SYSTEM;
 *         PM_ERR_CLOSED; PM_ERR_FORKED.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_process_resize(pm_process *process, unsigned columns, unsigned rows);

/* ---------------------------------------------------------------------------------------------
 * 6. Streams
 * ------------------------------------------------------------------------------------------- */

enum pm_stream_id {
    PM_STDIN = 0,
    PM_STDOUT = 1,
    PM_STDERR = 2
};

/**
 * Our end of a standard stream whose slot is PM_STDIO_PIPE. In PTY mode the terminal is
 * PM_STDIN, to write what is typed, and PM_STDOUT, to read what is shown; there is a PM_STDERR only
 * if its slot is a pipe. The key Enter is "\r". On Windows both are UTF-8 with escape sequences,
 * and what is shown is what the console host draws, not the program's own bytes.
 *
 * @param process the Handle.
 * @param id which.
 * @return the stream, owned by the Handle and valid as long as a reference; NULL if that slot has
 *         no pipe.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API pm_stream *pm_process_stream(pm_process *process, enum pm_stream_id id);

/**
 * Reads what there is, at least one byte, from stdout or stderr. The stream is at its end when all
 * writers have closed it, or when the process has ended and pm_options::drain_ms pass without a
 * new byte (a descendant may hold it open for ever); then it is marked truncated. On Windows that
 * time begins for a terminal when it has been closed after the end, 5 s after it at the latest.
 *
 * @param stream the stream.
 * @param buffer where bytes go; yours.
 * @param capacity bytes of buffer, at least 1.
 * @param timeout_ms in milliseconds; 0 polls; PM_FOREVER.
 * @param ret_count set to the bytes read; 0 = end of the stream.
 * @return PM_OK; PM_ERR_TIMEOUT; PM_ERR_CLOSED (closed or taken); PM_ERR_IO; PM_ERR_INVALID;
 *         PM_ERR_FORKED.
 * Blocking: up to timeout_ms. Thread safety: any thread; one reader at a time per stream, a second
 * one waits. Since: 0.1.0.
 */
PM_API int pm_stream_read(pm_stream *stream, void *buffer, size_t capacity, int64_t timeout_ms,
                          size_t *ret_count);

/**
 * Writes to stdin, as much as fits within the timeout. A reader that is gone raises no SIGPIPE.
 *
 * @param stream the stream.
 * @param data bytes to write; borrowed.
 * @param size how many.
 * @param timeout_ms in milliseconds; 0 = only what fits now; PM_FOREVER.
 * @param ret_count set to the bytes written, also on PM_ERR_TIMEOUT, PM_ERR_BROKEN_PIPE,
 * PM_ERR_IO and PM_ERR_CLOSED.
 * @return PM_OK: all written; PM_ERR_TIMEOUT: ret_count of them; PM_ERR_BROKEN_PIPE: nobody reads
 * any more; PM_ERR_CLOSED (closed or taken); PM_ERR_IO; PM_ERR_INVALID; PM_ERR_FORKED. Blocking: up
 * to timeout_ms. Thread safety: any thread; one writer at a time per stream, a second one waits.
 * Since: 0.1.0.
 */
PM_API int pm_stream_write(pm_stream *stream, const void *data, size_t size, int64_t timeout_ms,
                           size_t *ret_count);

/**
 * Closes our end. For stdin the child then reads the end of its input. On a terminal the
 * end-of-file character is typed for that, which means it only to a program that reads whole lines
 * (canonical mode); on POSIX nothing is typed in other modes, where that character is disabled, and
 * once the process has ended. On Windows it is Ctrl-Z and Enter, after an Enter in the middle of a
 * line; nobody can ask there how the program reads, so one that reads keys sees these keys. A
 * terminal itself is closed with the last of its streams; the programs on it are told (SIGHUP,
 * CTRL_CLOSE_EVENT).
 *
 * @param stream the stream; NULL or closed does nothing.
 * @return PM_OK; PM_ERR_TIMEOUT: the terminal is full of what was typed and nobody reads it, so its
 *         end could not be typed: the stream is still open, call again later; PM_ERR_IO (the same,
 *         of a terminal that fails); PM_ERR_FORKED.
 * Blocking: until a read or write under way on another thread returns, at most one poll interval of
 * 50 ms. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_stream_close(pm_stream *stream);

/**
 * The descriptor or handle behind a stream, for polling only (Windows: an overlapped pipe handle).
 *
 * @param stream the stream.
 * @param ret_native set to it; still the stream's.
 * @return PM_OK; PM_ERR_CLOSED (closed or taken); PM_ERR_INVALID; PM_ERR_FORKED.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_stream_native(pm_stream *stream, pm_native *ret_native);

/**
 * Moves the descriptor or handle to the caller for good (non-blocking on POSIX, overlapped on
 * Windows, never bound to a completion port). The stream is closed then. A terminal of which a
 * stream was taken outlives its Handle: on Windows until its process ends, when the taker of
 * PM_STDOUT has to read to the end or close it. Who closes a taken PM_STDIN there may hang the
 * terminal up.
 *
 * POSIX, PTY mode: the descriptors of both streams are one open file. Flags that you change
 * (O_NONBLOCK) are the other stream's too: a pm_stream_write() that meets a blocking one waits as
 * long as it must. Read from a taken one, the end is an error on Linux (EIO, which may come before
 * the last bytes: read once more) and 0 elsewhere, where bytes that nobody has read by the end are
 * lost. The terminal hangs up when yours are closed and the Handle is gone, not before.
 *
 * @param stream the stream.
 * @param ret_native set to it; yours: close it.
 * @return PM_OK; PM_ERR_CLOSED (closed or taken); PM_ERR_INVALID; PM_ERR_FORKED.
 * Blocking: as pm_stream_close(). Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_stream_take(pm_stream *stream, pm_native *ret_native);

/* ---------------------------------------------------------------------------------------------
 * 7. Inside a child
 * ------------------------------------------------------------------------------------------- */

/**
 * Windows: makes and holds the named stop event of this process, which PM_STOP_TERMINATE of a
 * manager sets. Wait for it, then end in good order. On POSIX handle SIGTERM instead.
 *
 * @param ret_native set to a manual-reset event; yours: close it when you no longer listen.
 * @return PM_OK; PM_ERR_UNSUPPORTED (POSIX); PM_ERR_NO_DESCRIPTORS; PM_ERR_SYSTEM; PM_ERR_INVALID.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_stop_event_open(pm_native *ret_native);

/* ---------------------------------------------------------------------------------------------
 * 8. Run
 * ------------------------------------------------------------------------------------------- */

/**
 * Starts a program, feeds it input, captures bounded output of both streams, waits for its end,
 * all at once, so that nobody waits for the other. When the time is up the tree is stopped by the
 * Spec's plan, and what it says meanwhile is read. Descendants that outlive the program and hold
 * its output open are not waited for longer than pm_options::drain_ms without a byte, and live on
 * unless pm_spec::kill_tree_on_exit says otherwise; one that never stops writing is read until
 * timeout_ms.
 *
 * @param manager the manager.
 * @param options what to run; borrowed for the call.
 * @param ret_result give it the size with PM_RUN_RESULT_INIT; filled on PM_OK and on
 *        PM_ERR_TIMEOUT; what it holds is not freed first: clear with pm_run_result_clear().
 * @param ret_error detail on failure; may be NULL.
 * @return PM_OK: it has ended, whatever its exit (see the record) and also after a timeout;
 *         PM_ERR_TIMEOUT: it is still there after the last step of the plan, and stays tracked;
 *         or it was not started in time, and is gone: then the record and the report of the stop
 *         are all zero but for their sizes, and the outputs empty; what else pm_spawn() returns;
 *         PM_ERR_INVALID (a size; no Spec; input without a pipe);
 *         PM_ERR_UNSUPPORTED (Daemon mode); PM_ERR_WOULD_DEADLOCK (from a callback of a
 *         PM_LOOP_CALLER manager); PM_ERR_NO_MEMORY, PM_ERR_IO (the tree is killed);
 *         PM_ERR_CLOSED (also: meanwhile); PM_ERR_FORKED.
 * Blocking: up to timeout_ms, the steps of the plan and drain_ms. Thread safety: any thread, and
 * callbacks of a PM_LOOP_OWN manager, whose other callbacks wait meanwhile. Since: 0.1.0.
 */
PM_API int pm_run(pm_manager *manager, const struct pm_run_options *options,
                  struct pm_run_result *ret_result, struct pm_error *ret_error);

/**
 * Frees what is inside a result and zeroes it but for its size.
 *
 * @param result a result; NULL does nothing.
 * @return nothing.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API void pm_run_result_clear(struct pm_run_result *result);

#ifdef __cplusplus
}
#endif

#endif
