// What a launcher is to do, as bytes: written by the manager into a sealed file, read by the
// launcher, which may be another build of this library. Pure code, bounds-checked.
#ifndef PMI_LAUNCHER_LAUNCH_PLAN_H
#define PMI_LAUNCHER_LAUNCH_PLAN_H

#include "launcher/child_options.h"

#include <stddef.h>
#include <stdint.h>

#define PMI_LAUNCH_MAGIC 0x6e6c6d70u // "pmln"
#define PMI_LAUNCH_VERSION 2u
#define PMI_LAUNCH_SIZE_MAX ((size_t)64 * 1024 * 1024)
#define PMI_LAUNCH_FDS_MAX 4096u

enum pmi_launch_role {
    PMI_LAUNCH_DAEMON = 1,
    PMI_LAUNCH_KEEPER = 2
};

struct pmi_launch_fd {
    int32_t source, target;
};

struct pmi_launch_plan {
    enum pmi_launch_role role;
    uint64_t parent_pid, parent_start; // Who may ask for this; start 0 = not known.
    uint32_t gate_timeout_ms;          // How long the stub waits for its manager.
    // DAEMON:
    const char *program;
    const char *cwd; // NULL = unchanged.
    const char *const *argv;
    const char *const *env;
    const struct pmi_launch_fd *fds;
    uint32_t fds_count;
    struct pmi_child_options options;
};

// One malloc'd block. PM_ERR_TOO_BIG, PM_ERR_NO_MEMORY.
int pmi_launch_plan_encode(const struct pmi_launch_plan *plan, char **ret_data, size_t *ret_size);
// `data` has to outlive the plan, which points into it; *ret_lists (malloc'd) holds the rest.
// PM_ERR_CORRUPT: anything but what encode makes. PM_ERR_NO_MEMORY.
int pmi_launch_plan_decode(const char *data, size_t size, struct pmi_launch_plan *ret_plan,
                           void **ret_lists);

#endif
