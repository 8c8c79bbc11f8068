// What the process options of a Spec ask of a child, as numbers: resolved by the starter, carried
// out by the child between its birth and exec, and for daemons written into the launcher's plan.
#ifndef PMI_LAUNCHER_CHILD_OPTIONS_H
#define PMI_LAUNCHER_CHILD_OPTIONS_H

#include <stdint.h>

enum {
    PMI_OPTION_UMASK = 1,
    PMI_OPTION_NICE = 2,
    PMI_OPTION_GROUPS = 4, // The supplementary ones.
    PMI_OPTION_GROUP = 8,
    PMI_OPTION_USER = 16,
    PMI_OPTION_NO_NEW_PRIVILEGES = 32,
    PMI_OPTION_ALL = 63,
    PMI_OPTION_CREDENTIALS = PMI_OPTION_GROUPS | PMI_OPTION_GROUP | PMI_OPTION_USER
};

#define PMI_LIMITS_MAX 64u
#define PMI_GROUPS_MAX 65536u // NGROUPS_MAX of Linux.

struct pmi_limit {
    uint64_t soft, hard; // UINT64_MAX = none.
    int32_t resource;
    uint32_t zero;
};

struct pmi_child_options {
    uint32_t flags; // Which of the next are valid; the others are 0.
    uint32_t umask_value;
    int32_t nice_value;
    uint32_t uid, gid;
    const uint32_t *groups;
    uint32_t groups_count;
    const struct pmi_limit *limits;
    uint32_t limits_count;
};

// Which option a failure of the child is about.
enum pmi_option_field {
    PMI_FIELD_NONE = 0,
    PMI_FIELD_RLIMITS,
    PMI_FIELD_NICE,
    PMI_FIELD_UMASK,
    PMI_FIELD_GROUPS,
    PMI_FIELD_GROUP,
    PMI_FIELD_USER,
    PMI_FIELD_NO_NEW_PRIVILEGES,
    PMI_FIELD_CGROUP,
    PMI_FIELD_USER_KEPT, // The user: root could come back.
    PMI_FIELDS
};

#endif
