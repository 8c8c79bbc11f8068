#ifndef POD_OS_TYPES_H
#define POD_OS_TYPES_H

#include <processmgr/processmgr.h>
#include <sys/stat.h>
#include <uv.h>

// A build for fault tests puts a table in the place of calls that can fail.
#ifdef POD_FAULT_TABLE
#include "pod_faults.h"
#define POD_SYS(name) pod_fault_##name
#else
#define POD_SYS(name) name
#endif

#define POD_HAS_SESSIONS true // pm_spec::new_session
#ifdef __linux__
#define POD_TREE "its session and its parents"
#else
#define POD_TREE "its group"
#endif
#define POD_CAN_PAUSE_TERMINAL true // pod_source_room() of one.

struct pod_dir {
    int fd; // -1: closed.
    char *path;
    int lock; // -1: not held.
};
#define POD_DIR_INIT                                                                               \
    {                                                                                              \
        -1, NULL, -1                                                                               \
    }

// Handles of libuv live on their own: they are freed when libuv has let go of them.
struct pod_listener {
    uv_poll_t *poll;
    int fd;
    char *outside; // Where its name is, if not in the folder.
    struct stat name;
    void (*ready)(void *user);
    void *user;
};

struct pod_source {
    uv_poll_t *poll;
    uv_timer_t *pause; // After a trouble.
    int fd;
    bool terminal;
    bool held;   // Until its release nobody having it open is not its end.
    int child;   // Our own descriptor of the child's side, then; -1: not open.
    size_t room; // Bytes that may be read.
    void (*data)(void *user, const void *data, int64_t count);
    void *user;
};

struct pod_sink {
    uv_poll_t *poll;
    uv_timer_t *pause;
    int fd;
    void (*ready)(void *user);
    void *user;
};

struct pod_watch {
    uv_poll_t *poll;
    void (*ready)(void *user);
    void *user;
};

struct pod_stray {
    pid_t pid;
    uint64_t start;
};

#define POD_STRAYS_SPARE 3
struct pod_strays {
    pid_t child;
    uint64_t child_start; // 0: not known.
    int trouble;          // Of the step that is under way: PM_OK, or what was wanting.
    // What a step needs of descriptors when there are no others: a folder, a file in it, and a
    // process. 0: not held.
    int spare[POD_STRAYS_SPARE];
    struct pod_stray *list;
    size_t count;
};

#define POD_SIGNALS 3
struct pod_process {
    uv_signal_t *signals[POD_SIGNALS];
    void (*told)(void *user, enum pod_process_event event);
    void *user;
};

#endif
