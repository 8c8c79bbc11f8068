// What the daemon and its clients need of the OS. posix/ and win32/ define the same names; CMake
// adds one of them.
//
// Results are PM_OK or PM_ERR_*. Out-parameters are written only on success. What is opened is
// never inherited by children.
#ifndef POD_OS_H
#define POD_OS_H

#include <processmgr/processmgr.h>
#include <uv.h>

#include "pod/wire.h"

// Ends the session in good order (SIGTERM, the stop event), or makes the name of the socket anew
// (SIGUSR1).
enum pod_process_event {
    POD_PROCESS_STOP = 1,
    POD_PROCESS_RELISTEN
};

#include "os_types.h"

// ------------------------------------------------------------------------------------------------
// The folder of a session, and plain files in it. Nothing is reached through a link.
// ------------------------------------------------------------------------------------------------

#define POD_FILE_TOKEN "token"     // 64 hexadecimal digits. Made by the runner.
#define POD_FILE_LOCK "lock"       // Locked while the daemon lives.
#define POD_FILE_EXIT "exit"       // pod/tomb.h. Made by the daemon at the end.
#define POD_FILE_CLAIMED "claimed" // What `exit` becomes when somebody claims it.
#define POD_FILE_LOG "log"         // And log.1, log.2: older ones.

// Makes it, for this user alone; PM_ERR_EXISTS.
int pod_dir_create(const char *path);
// PM_ERR_NOT_FOUND, PM_ERR_NOT_A_DIRECTORY, PM_ERR_ACCESS: of somebody else, or open to others.
int pod_dir_open(const char *path, struct pod_dir *ret_dir);
void pod_dir_close(struct pod_dir *dir);
// PM_ERR_BUSY: somebody has it. Held until pod_dir_close() or the end of the process.
int pod_dir_lock(struct pod_dir *dir);

// A file of ours that nobody else may read; malloc'd with a NUL behind. PM_ERR_ACCESS: it is not;
// PM_ERR_TOO_BIG.
int pod_file_read(struct pod_dir *dir, const char *name, size_t max, uint8_t **ret_bytes,
                  size_t *ret_size);
// What is on the disk, safe from an end of the system, when a file has its name.
enum pod_sync {
    POD_SYNC_NONE = 0, // Nothing: of no use after that.
    POD_SYNC_BYTES,    // What is in it; its name with the next one of the folder.
    POD_SYNC_NAME      // That, too.
};
struct pod_new_file {
    pm_native file;
    bool named; // It has its name, whatever else failed: it must not be made once more.
};
int pod_file_begin(struct pod_dir *dir, struct pod_new_file *ret_file);
int pod_file_put(struct pod_new_file *file, const void *data, size_t size);
int pod_file_commit(struct pod_dir *dir, struct pod_new_file *file, const char *name,
                    enum pod_sync sync);
// Has the names in the folder on the disk: what is left to do when `named` is set and
// pod_file_commit() failed.
int pod_dir_sync(struct pod_dir *dir);
void pod_file_abandon(struct pod_dir *dir, struct pod_new_file *file);
// One of several who try at once succeeds, the others get PM_ERR_NOT_FOUND. On the disk when it
// has; else it has the old name again.
int pod_file_rename(struct pod_dir *dir, const char *from, const char *to);
// Takes the place of what is there; both names may be in use. Nothing is synced.
int pod_file_replace(struct pod_dir *dir, const char *from, const char *to);
int pod_file_remove(struct pod_dir *dir, const char *name);
// Its name was removed, and with it all that was in it: nothing can be made in it any more.
bool pod_dir_is_removed(const struct pod_dir *dir);

// Opens for appending; *ret_size is what is there.
int pod_log_open(struct pod_dir *dir, const char *name, pm_native *ret_file, uint64_t *ret_size);
// *ret_count is written in every case: what is in the file. PM_ERR_TOO_BIG: the file may not grow.
int pod_log_append(pm_native file, const void *data, size_t size, size_t *ret_count);
void pod_file_close(pm_native file);

// ------------------------------------------------------------------------------------------------
// Connections
// ------------------------------------------------------------------------------------------------

// Called while pod_listener_accept() has something.
typedef void pod_listener_ready(void *user);
int pod_listener_open(uv_loop_t *loop, struct pod_listener *listener, struct pod_dir *dir,
                      const char *session, pod_listener_ready *ready, void *user);
// PM_ERR_TIMEOUT: nobody there. PM_ERR_ACCESS: another user's, sent away. Others: a passing
// trouble.
int pod_listener_accept(struct pod_listener *listener, pm_native *ret_native);
void pod_listener_pause(struct pod_listener *listener, bool pause);
// Whether somebody has removed its name; `replaced`: or put something else there. A pipe of Windows
// has its name as long as it is there.
bool pod_listener_is_gone(const struct pod_listener *listener, const struct pod_dir *dir,
                          bool replaced);
// Its name is gone when this returns.
void pod_listener_close(struct pod_listener *listener, struct pod_dir *dir);

// To the daemon of a session. Does not wait. PM_ERR_NOT_FOUND: there is none. PM_ERR_ACCESS: what
// is there is not ours. PM_ERR_BUSY: it does not answer now, try again.
int pod_connect(struct pod_dir *dir, const char *session, pm_native *ret_native);
// The first connection, made by the runner before the daemon is started: `theirs` is the daemon's
// stdin (PM_STDIO_NATIVE), closed by the runner after the start.
int pod_birth_pair(pm_native *ret_ours, pm_native *ret_theirs);
int pod_birth_take(pm_native *ret_native); // In the daemon.
void pod_connection_close(pm_native native);
// uv_pipe_open(). Takes over the descriptor or handle, also on failure.
int pod_pipe_open(uv_pipe_t *pipe, pm_native native);
// What can be read from it at this moment, of whose coming the loop would tell later; 0: nothing,
// or only the loop can tell.
size_t pod_pipe_look(uv_pipe_t *pipe, void *bytes, size_t size);
// Before it is closed: a write that nobody reads ends.
void pod_pipe_cancel(uv_pipe_t *pipe);

// ------------------------------------------------------------------------------------------------
// The child's streams, as pm_stream_take() gives them, and other things to wait for
// ------------------------------------------------------------------------------------------------

// count > 0: bytes; 0: the end; < 0: a passing trouble, to be counted; it goes on by itself.
typedef void pod_source_data(void *user, const void *data, int64_t count);
// Takes over the descriptor or handle, also on failure.
int pod_source_open(uv_loop_t *loop, struct pod_source *source, pm_native native, bool terminal,
                    pod_source_data *data, void *user);
void pod_source_close(struct pod_source *source);
// A terminal: the child has ended. Before that it is not at its end when nobody has it open: the
// child may open it again.
void pod_source_release(struct pod_source *source);
// At most so many bytes are read from now on, none at 0.
void pod_source_room(struct pod_source *source, size_t room);
// Reads what is there now, also in the pause after a trouble. Where it is read without us, nothing
// has to be done.
void pod_source_look(struct pod_source *source);

typedef void pod_sink_ready(void *user);
int pod_sink_open(uv_loop_t *loop, struct pod_sink *sink, pm_native native, pod_sink_ready *ready,
                  void *user);
// What can be written without waiting. If that is less than all, ready() is called when more can
// be. PM_ERR_BROKEN_PIPE: nobody reads any more. Others: a passing trouble, ready() is called
// later. *ret_count is written in every case: what came before the trouble is with the child.
int pod_sink_write(struct pod_sink *sink, const void *data, size_t size, size_t *ret_count);
void pod_sink_close(struct pod_sink *sink);

// Calls back while a descriptor is readable, or when a handle is signalled.
typedef void pod_watch_ready(void *user);
int pod_watch_open(uv_loop_t *loop, struct pod_watch *watch, pm_native native,
                   pod_watch_ready *ready, void *user);
void pod_watch_close(struct pod_watch *watch);

// ------------------------------------------------------------------------------------------------
// The process
// ------------------------------------------------------------------------------------------------

// First thing in main(): arguments in UTF-8, signals, umask, the current folder.
void pod_process_settle(int *argc, char ***argv);
typedef void pod_process_told(void *user, enum pod_process_event event);
int pod_process_listen(uv_loop_t *loop, struct pod_process *process, pod_process_told *told,
                       void *user);
void pod_process_close(struct pod_process *process);
// Descendants of the child that are not in its session any more, each with a living parent up to
// it. What a job holds anyway needs none of this.
// PM_ERR_NO_DESCRIPTORS, PM_ERR_NO_MEMORY: some may have been overlooked for want of them.
// PM_ERR_TOO_BIG: there are more than are looked at.
int pod_strays_begin(struct pod_strays *strays, uint64_t child);
// Who is there now; before the child is signalled. From here on to the end of the next step some
// descriptors are free that were held for it.
int pod_strays_note(struct pod_strays *strays);
int pod_strays_terminate(struct pod_strays *strays);
int pod_strays_kill(struct pod_strays *strays); // Those, and who has come from them since.
void pod_strays_clear(struct pod_strays *strays);
// Whether SIGTERM is ignored there, as far as the system tells. Windows: yes, there is none.
bool pod_process_ignores_stop(uint64_t pid);
// To all of the child's tree: its terminal hangs up. Windows: nothing.
void pod_process_hang_up(pm_process *child);
// A crash writes its cause, a stack trace and `events` (lines, changed while the program runs) to
// the file, and then ends the process as it would have ended without us. PM_NATIVE_INVALID:
// nowhere.
void pod_crash_arm(pm_native file, const char *events, size_t events_size);

#endif
