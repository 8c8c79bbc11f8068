// The process table and what surrounds processes, read and never changed: posix/inspect.c,
// posix/units.c, win32/inspect.c.
#ifndef RUNNER_INSPECT_H
#define RUNNER_INSPECT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Where it is read; tests have trees of their own.
struct inspect_roots {
    const char *proc;   // "/proc"
    const char *system; // "", before /etc, /run, /usr/lib and /var/lib.
};
extern const struct inspect_roots inspect_real_roots;

struct inspect_process {
    uint64_t pid, parent;
    uint64_t group, session;
    uint64_t terminal; // Device of its controlling terminal; 0: none.
    uint64_t start;    // As pm_registry_entry::start.
    bool zombie;       // Dead, not collected by its parent.
    bool stopped;      // By a signal.
    char name[64];     // Printable.
};
struct inspect_table {
    struct inspect_process *list; // By pid.
    size_t count;
};

// false: there is none, or the system does not show it.
bool inspect_process_read(const struct inspect_roots *roots, uint64_t pid,
                          struct inspect_process *ret_process);
// PM_ERR_UNSUPPORTED: the system does not show one.
int inspect_table_read(const struct inspect_roots *roots, struct inspect_table *ret_table);
void inspect_table_clear(struct inspect_table *table);
const struct inspect_process *inspect_find(const struct inspect_table *table, uint64_t pid);
// The parent, if it is really older; NULL: none, or another process has its pid now.
const struct inspect_process *inspect_parent(const struct inspect_table *table,
                                             const struct inspect_process *process);

// Control group (version 2, or systemd's own tree of version 1), as the system names it. false: not
// shown, or there are none.
bool inspect_cgroup(const struct inspect_roots *roots, uint64_t pid, char path[4096]);
// A stream of the two is the same pipe, socket or terminal; says which.
bool inspect_shares_stream(const struct inspect_roots *roots, uint64_t pid, uint64_t other,
                           char what[128]);
// Whether the process is in the job that pm_registry_entry::object names.
bool inspect_in_job(uint64_t pid, uint64_t object);
// Its program; false: not shown. *ret_replaced: its file is not there any more.
bool inspect_program(const struct inspect_roots *roots, uint64_t pid, char path[4096],
                     bool *ret_replaced);

#endif
