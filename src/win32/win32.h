// What the files of the Windows backend share.
#ifndef PMI_WIN32_WIN32_H
#define PMI_WIN32_WIN32_H

#include <windows.h>

#include "backend.h"

// Missing from the headers of MinGW-w64 10.
#ifndef ERROR_VIRUS_INFECTED
#define ERROR_VIRUS_INFECTED 225
#endif
#ifndef ERROR_ELEVATION_REQUIRED
#define ERROR_ELEVATION_REQUIRED 740
#endif
#ifndef PROC_THREAD_ATTRIBUTE_PSEUDOCONSOLE // Nor in builds for systems before Windows 10 1809.
#define PROC_THREAD_ATTRIBUTE_PSEUDOCONSOLE 0x00020016
#endif
#ifndef ERROR_DISK_QUOTA_EXCEEDED
#define ERROR_DISK_QUOTA_EXCEEDED 1295
#endif

// ------------------------------------------------------------------------------------------------
// text.c: UTF-8 outside, UTF-16 inside. Results are malloc'd.
// ------------------------------------------------------------------------------------------------

int pmi_win_wide(const char *text, wchar_t **ret_text);
int pmi_win_narrow(const wchar_t *text, char **ret_text);
// Copies UTF-8 and cuts it between characters.
void pmi_win_copy_text(char *to, size_t capacity, const char *text);
// "<folder>\<name>".
int pmi_win_join(const wchar_t *folder, const wchar_t *name, wchar_t **ret_path);
// GetFullPathNameW, malloc'd. On failure ret_os_code (may be NULL) is set.
int pmi_win_full_path(const wchar_t *path, wchar_t **ret_path, DWORD *ret_os_code);
// The full path with "\\?\" in front, which lifts the limit of 260 characters.
int pmi_win_long_path(const wchar_t *path, wchar_t **ret_path, DWORD *ret_os_code);
// Replaces a malloc'd full path by its "\\?\" form if it is too long for the plain one.
int pmi_win_lengthen(wchar_t **path);
// Of a full path, without the separator behind it: "X:", "\\host\share", "\\?\X:",
// "\\?\UNC\host\share", "\\?\Volume{...}". In paths.c.
size_t pmi_win_root_length(const wchar_t *path);
bool pmi_win_is_folder(const wchar_t *path);
bool pmi_win_is_file(const wchar_t *path);

// ------------------------------------------------------------------------------------------------
// error.c
// ------------------------------------------------------------------------------------------------

int pmi_win_code(DWORD os_code);
// Fills code, stage and os_code; returns the code.
int pmi_win_fail(struct pm_error *err, enum pm_stage stage, DWORD os_code);
// The same for a refusal of ours; field and hint may be NULL.
int pmi_win_refuse(struct pm_error *err, int code, enum pm_stage stage, const char *field,
                   const char *hint);

// ------------------------------------------------------------------------------------------------
// security.c
// ------------------------------------------------------------------------------------------------

// A protected DACL that lets in the owner, who is this process's user, and the system. `inherit`:
// for a folder and what will be in it. Free with pmi_win_security_free.
int pmi_win_owner_only(DWORD mask, bool inherit, SECURITY_ATTRIBUTES *ret_sa);
void pmi_win_security_free(SECURITY_ATTRIBUTES *sa);
// Whether the object behind the handle (opened with READ_CONTROL) belongs to this user.
bool pmi_win_is_ours(HANDLE handle);

// ------------------------------------------------------------------------------------------------
// threads.c
// ------------------------------------------------------------------------------------------------

// Milliseconds for a wait that shall last until the deadline; INFINITE for PMI_NEVER.
DWORD pmi_win_timeout(int64_t deadline);
int64_t pmi_win_wall_of(uint64_t filetime);
uint64_t pmi_win_filetime(const FILETIME *time);

// ------------------------------------------------------------------------------------------------
// job.c
// ------------------------------------------------------------------------------------------------

#define PMI_WIN_JOB_NAME_MAX 64

#define PMI_WIN_TICKS_PER_MS 10000

void pmi_win_job_name(uint64_t token, wchar_t name[PMI_WIN_JOB_NAME_MAX]);
// `flags` are JOB_OBJECT_LIMIT_*; those of `limits` (NULL = none) are added. token 0 = without a
// name. PM_ERR_EXISTS: somebody has that name.
int pmi_win_job_create(uint64_t token, DWORD flags, const struct pm_job_limits *limits,
                       HANDLE *ret_job, DWORD *ret_os_code);
// Replaces all that was set before.
bool pmi_win_job_set_limits(HANDLE job, DWORD flags, const struct pm_job_limits *limits);
// Whether a member other than `pid` is left.
bool pmi_win_job_has_others(HANDLE job, DWORD pid);
// Calls visit for each member; a non-zero return ends the walk.
int pmi_win_job_visit(HANDLE job, int (*visit)(void *context, DWORD pid), void *context);

// Kill-on-close jobs outlive their leader's Handle here, so that a natural exit leaves descendants
// alone and the end of this program still ends them.
struct pmi_job_keeper *pmi_win_keeper_new(void);
struct pmi_job_keeper *pmi_win_keeper_ref(struct pmi_job_keeper *k);
void pmi_win_keeper_unref(struct pmi_job_keeper *k);
// Takes the handle. `limits` are what the job keeps when it is let go.
void pmi_win_keeper_give(struct pmi_job_keeper *k, HANDLE job, const struct pm_job_limits *limits);
void pmi_win_keeper_end(struct pmi_job_keeper *k); // Lets go of all without a kill.

// ------------------------------------------------------------------------------------------------
// stdio.c: handles for a child
// ------------------------------------------------------------------------------------------------

// Ours until pmi_win_stdio_close; not inheritable until pmi_win_stdio_expose.
struct pmi_win_stdio {
    HANDLE slots[3];     // NULL: the terminal of its own.
    bool owned[3];       // False there, and where stderr is stdout's handle.
    bool shares_console; // A slot inherits a console of ours.
    HANDLE *list;        // What the child may inherit: slots and extras, each once.
    size_t count;
};

int pmi_win_stdio_open(const struct pmi_plan *plan, struct pmi_os_stream streams[3],
                       struct pmi_win_stdio *io, struct pm_error *err);
bool pmi_win_stdio_expose(struct pmi_win_stdio *io);
void pmi_win_stdio_close(struct pmi_win_stdio *io);
// A pipe: our overlapped end, and the child's synchronous one. `reads`: we read.
int pmi_win_pipe_open(bool reads, struct pmi_os_stream *ret_stream, HANDLE *ret_child,
                      DWORD *ret_os_code);

// ------------------------------------------------------------------------------------------------
// command.c: the program and its command line
// ------------------------------------------------------------------------------------------------

#define PMI_WIN_UNITS_MAX 32767 // Of a command line, or of one variable; both with the NUL.

// Both malloc'd. For a batch file the application is cmd.exe.
int pmi_win_command(const struct pmi_plan *plan, wchar_t **ret_application, wchar_t **ret_line,
                    struct pm_error *err);

// ------------------------------------------------------------------------------------------------
// launch.c: one CreateProcessW
// ------------------------------------------------------------------------------------------------

struct pmi_win_launch {
    wchar_t *application, *command_line, *cwd, *environment;
    struct pmi_win_stdio io;
    DWORD flags;   // Given by the caller; what every start needs is added.
    HANDLE job;    // Borrowed. Joined at birth, or before the first instruction.
    bool late_job; // JOB_LIST was refused: the process was born outside and assigned.
    // Of the job, once the process runs; while that is suspended the job kills at close. 0: it does
    // already.
    DWORD job_flags;
    const struct pm_job_limits *job_limits;
    bool held;     // It has that for the time being.
    void *console; // HPCON, borrowed; NULL = none.
    PROCESS_INFORMATION info;
};

// Texts and handles; nothing has happened yet.
int pmi_win_launch_prepare(struct pmi_win_launch *l, const struct pmi_plan *plan,
                           struct pmi_os_stream streams[3], struct pm_error *err);
// Makes the process; suspended if the flags ask for it. The handles for the child are closed.
int pmi_win_launch_create(struct pmi_win_launch *l, const struct pmi_plan *plan,
                          struct pm_error *err);
// Lets go of one that was made suspended. On failure it is ended.
int pmi_win_launch_resume(struct pmi_win_launch *l, struct pm_error *err);
// Frees all; kills nothing.
void pmi_win_launch_clear(struct pmi_win_launch *l);

// ------------------------------------------------------------------------------------------------
// priority.c
// ------------------------------------------------------------------------------------------------

DWORD pmi_win_priority_flag(enum pm_priority priority); // 0 for the default.
// Whether a process that has not begun has the class that was asked for.
int pmi_win_check_priority(HANDLE process, enum pm_priority priority, struct pm_error *err);

// ------------------------------------------------------------------------------------------------
// daemon.c, identity.c; the ways to ask for an end
// ------------------------------------------------------------------------------------------------

int pmi_win_daemon_start(const struct pmi_plan *plan, struct pmi_os_process *op,
                         struct pmi_started *ret_started, struct pm_error *err);
// Creation time of the process behind the handle; 0 = cannot be told.
uint64_t pmi_win_creation(HANDLE process);
// With the right that IsProcessInJob asks for, and more. NULL with GetLastError().
HANDLE pmi_win_open_process(DWORD pid, DWORD more);
// Kills tree or process, waits up to 2 s, closes everything.
void pmi_win_undo(struct pmi_os_process *op);
// What a process has been asked by so far.
enum pmi_win_heard {
    PMI_WIN_NOT_ASKED = 0,
    PMI_WIN_POSTED, // WM_CLOSE, to windows that nobody sees.
    PMI_WIN_ASKED   // A stop event, or WM_CLOSE to a window on the screen.
};
// console.c: Ctrl-C for all on the console of a process, if that is its own and nobody is on it but
// members of its job; of PM_SCOPE_PROCESS, nobody but it. It goes on by itself: *ret_step. Under
// the lock of the process. PM_ERR_UNSUPPORTED, PM_ERR_NO_LAUNCHER, ...; PM_OK without a step where
// `heard` makes up for it.
int pmi_win_interrupt(const struct pmi_os_process *op, enum pm_stop_scope scope,
                      enum pmi_win_heard heard, struct pmi_os_step **ret_step);
// windows.c: WM_CLOSE to all windows. The caller has a handle of the process, so that its pid stays
// its own.
enum pmi_win_heard pmi_win_close_windows(DWORD pid);
// PM_ERR_UNSUPPORTED: that process has no stop event.
int pmi_win_stop_event_set(DWORD pid, uint64_t creation);

#endif
