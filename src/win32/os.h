// Types of the Windows backend behind the names that src/backend.h promises. No <windows.h> here:
// the core includes this file and shall not see HANDLE or the macros that come with it.
//
// Structs may be copied while nothing is under way: whatever the system or another thread points
// at lives on the heap.
#ifndef PMI_WIN32_OS_H
#define PMI_WIN32_OS_H

#include <processmgr/processmgr.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct pmi_mutex {
    void *srw; // SRWLOCK
};
#define PMI_MUTEX_INIT                                                                             \
    {                                                                                              \
        .srw = NULL                                                                                \
    }

struct pmi_cond {
    void *variable; // CONDITION_VARIABLE
};
#define PMI_COND_INIT                                                                              \
    {                                                                                              \
        .variable = NULL                                                                           \
    }

struct pmi_thread {
    void *handle; // NULL = not started.
};
#define PMI_THREAD_INIT                                                                            \
    {                                                                                              \
        .handle = NULL                                                                             \
    }

struct pmi_reactor;    // reactor.c
struct pmi_watch;      // reactor.c
struct pmi_job_keeper; // job.c
struct pmi_terminal;   // terminal.c

struct pmi_os_manager {
    struct pmi_reactor *reactor;
    struct pmi_job_keeper *keeper; // Takes over kill-on-close jobs whose leader is gone.
};
#define PMI_OS_MANAGER_INIT                                                                        \
    {                                                                                              \
        .reactor = NULL, .keeper = NULL                                                            \
    }

enum pmi_console {
    PMI_CONSOLE_NONE = 0, // A daemon.
    PMI_CONSOLE_OWN,
    PMI_CONSOLE_SHARED // Ours.
};

struct pmi_os_process {
    void *process;           // NULL = none.
    void *job;               // NULL = none: a recovered daemon whose job has no name any more.
    struct pmi_watch *watch; // NULL = not watched.
    struct pmi_job_keeper *keeper; // A reference, for a die_with_parent job only.
    struct pmi_terminal *terminal; // A reference, in PTY mode only.
    uint64_t start;                // Creation FILETIME.
    uint64_t job_token;            // Names the job of a daemon; 0 = the job has no name.
    uint32_t pid;
    enum pmi_console console;    // As it was born.
    struct pm_job_limits limits; // Of the job.
};
#define PMI_OS_PROCESS_INIT                                                                        \
    {                                                                                              \
        .process = NULL                                                                            \
    }

// Our end of a pipe, overlapped, never bound to a completion port.
struct pmi_os_stream {
    void *handle; // NULL = closed.
    void *event;  // Of the one operation under way.
    int64_t
        quiet_since; // When a read first found the process dead and the pipe empty; 0 = not yet.
    struct pmi_terminal *terminal; // A reference, of the two streams of a terminal only.
    bool types;                    // The one that is written to.
    unsigned char last;            // Its last byte; 0 = none yet.
};
#define PMI_OS_STREAM_INIT                                                                         \
    {                                                                                              \
        .handle = NULL                                                                             \
    }

struct pmi_os_dir {
    wchar_t *path; // Absolute, with the prefix "\\?\".
    void *handle;  // Pins the folder: it cannot be renamed or replaced while we use its path.
};
#define PMI_OS_DIR_INIT                                                                            \
    {                                                                                              \
        .path = NULL                                                                               \
    }

struct pmi_os_lock {
    void *handle;
};
#define PMI_OS_LOCK_INIT                                                                           \
    {                                                                                              \
        .handle = NULL                                                                             \
    }

#endif
