// What differs between systems: src/runner/posix, src/runner/win32.
#ifndef RUNNER_OS_H
#define RUNNER_OS_H

#include <processmgr/processmgr.h>
#include <uv.h>

#include "runner/runner.h"

#define OS_ADDRESS_MAX 256
#define OS_DEBUG_ADDRESS_MAX 4200

// A folder of ours alone, made if it is missing (its parent has to be there), never a link.
int os_private_dir(const char *path, struct runner_error *error);
bool os_is_absolute(const char *path);
// Whether the path of a state folder is short enough for all that is below it. *ret_max: how many
// characters one may have.
bool os_state_fits(const char *path, unsigned *ret_max);
// Whether names of devices are taken in every folder (service_is_device()).
bool os_has_devices(void);
// A file of ours to append to, 0600, never through a link. Its number, or a negative uv error.
int os_open_append(const char *path);
// One to read.
int os_open_read(const char *path);
// A small file of ours as a whole, malloc'd and NUL-terminated. 0 or a negative uv error.
int os_read_file(const char *path, size_t limit, char **ret_text, size_t *ret_size);
// Replaces a small file (temporary file, rename), 0600. 0 or a negative uv error.
int os_write_file(const char *path, const void *data, size_t size);
// Removes a file or link, or an empty folder; 0 also if it is not there. 0 or a negative uv error.
int os_remove_name(const char *path, bool folder);
// Whether what it said means that somebody has it, or something in it, open: that passes.
bool os_is_held(int uv_error);

// Whether a program names a file, and not one that is searched in PATH.
bool os_has_separator(const char *program);
// Whether it is there, in this PATH if it is searched, and looks as if it could be run.
bool os_program_exists(const char *program, const char *path);
// Whether "NAME=value", or "NAME" of one that is taken away, is the variable of this name: on
// Windows Path and PATH are one.
bool os_has_name(const char *variable, const char *name);

// The exit code of a child as that of a command: one that is no success never becomes one.
int os_exit_code(uint32_t code);

// Lets a program be a .cmd file, as npm makes them. Each argument is quoted by the rules of
// cmd.exe.
void os_allow_batch_file(struct pm_spec *spec);

// ---- connections
// ---------------------------------------------------------------------------------

// Gives a connection of pod_connect() or pod_listener_accept() to a pipe; closed if that fails.
int os_pipe_open(uv_pipe_t *pipe, pm_native native);
// The process at the other end of one that was accepted; 0: not known.
uint64_t os_peer_of(pm_native native);

// Where the debug page is served unless somebody says otherwise.
void os_debug_address(const char *state_dir, char *address, size_t capacity);

// ---- the terminal of `attach`
// --------------------------------------------------------------------

bool os_terminal_size(unsigned *ret_columns, unsigned *ret_rows);
// Keys come as they are typed. false: stdin is no terminal.
bool os_terminal_raw(void);
void os_terminal_restore(void);
// The stream that reads stdin, if that is a terminal.
void os_terminal_stream(uv_tty_t *tty);

// ---- the program itself
// --------------------------------------------------------------------------

// First thing in main().
void os_begin(void);
// Gives back what that has changed of a terminal: at once, for who does not come to exit().
void os_end(void);
// While there is one thread: room for the descriptors of many sessions.
void os_widen_table(void);
// In UTF-8.
void os_arguments(int *argc, char ***argv);
bool os_has_exec(void);
// Replaces this program; argv[0] included. Returns only if it fails: a negative uv error.
// UV_ENOSYS: this system has no such thing.
int os_exec(const char *program, char *const argv[]);
// A line, within the time, from a connection that is in no loop. Its size, or PM_ERR_*.
int os_read_word(pm_native native, char *word, size_t capacity, int timeout_ms);
// Whether an exec hands this connection on.
void os_keep_at_exec(pm_native native, bool keep);
// A process by its number; only one that is known to live and not to be collected meanwhile.
struct os_process {
    int64_t pid;
    pm_native native; // Held by it.
};
int os_process_open(int64_t pid, struct os_process *ret_process);
void os_process_signal(const struct os_process *process, int number);
void os_process_kill(const struct os_process *process, uint32_t wait_ms); // And waits for its end.
void os_process_close(struct os_process *process);
// Path by which the file of this very program can be started, whatever became of its name.
int os_own_program(char *path, size_t capacity);

// ---- signals that a runner takes: SIGHUP, SIGTERM, SIGINT
// ---------------------------------------------------------------------------------

// Held back, in this thread and those that it starts from now on, and after an exec.
// Whether none of it was so before.
bool os_signals_hold(void);
void os_signals_let(void);
// While they are held: one that asks for the end has it now, as without us.
void os_signals_obey(void);
// For a program that is to take our place and does not let them in: they are let, and SIGHUP, which
// would end it, is ignored. false: one that asks for the end waits already, nothing is changed.
bool os_signals_leave_open(void);
void os_signals_hold_again(void); // It has not taken our place.
// What was held back for us was meant for another.
void os_signals_pass(const struct os_process *process);

// ---- who supervises us, if somebody does: sd_notify(3)
// ---------------------------------------------------------------------------------

#define NOTIFY_ENV "NOTIFY_SOCKET"
// Takes the address out of the environment, so that no child has it; puts it back for the one that
// shall take our place.
void os_supervisor_take(void);
void os_supervisor_give(void);
// Lines of NAME=VALUE.
void os_supervisor_tell(const char *text);

#endif
