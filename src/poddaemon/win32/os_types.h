#ifndef POD_OS_TYPES_H
#define POD_OS_TYPES_H

#include <processmgr/processmgr.h>
#include <uv.h>

// A build for fault tests puts a table in the place of calls that can fail.
#ifdef POD_FAULT_TABLE
#include "pod_faults.h"
#define POD_SYS(name) pod_fault_##name
#else
#define POD_SYS(name) name
#endif

#define POD_TREE "its group"   // Where a job does not hold it.
#define POD_HAS_SESSIONS false // pm_spec::new_session
// pod_source_room() of one: a pseudoconsole is closed only while somebody reads it.
#define POD_CAN_PAUSE_TERMINAL false

struct pod_dir {
    void *handle; // NULL: closed.
    char *path;
    void *lock; // NULL: not held.
};
#define POD_DIR_INIT                                                                               \
    {                                                                                              \
        NULL, NULL, NULL                                                                           \
    }

// Each is one allocation: the thread pool and libuv point into it until they have let go of it.
struct pod_listener {
    struct pod_pipes *pipes;
};

struct pod_source {
    struct pod_reader *reader;
};

struct pod_sink {
    struct pod_writer *writer;
};

struct pod_watch {
    struct pod_waiter *waiter;
};

struct pod_strays {
    char none; // A job holds them all.
};

struct pod_process {
    struct pod_watch stop;
    pm_native event;
    void (*told)(void *user, enum pod_process_event event);
    void *user;
};

#endif
