// The process options of a Spec, from names to numbers.
#ifndef PMI_POSIX_OPTIONS_H
#define PMI_POSIX_OPTIONS_H

#include "backend.h"
#include "launcher/child_options.h"

// What a start needs of them; `child` points into the rest.
struct pmi_resolved_options {
    struct pmi_child_options child;
    uint32_t *groups;
    struct pmi_limit *limits;
};

// Looks users and groups up. On failure there is nothing to release.
int pmi_options_resolve(const struct pmi_plan *plan, struct pmi_resolved_options *ret_options,
                        struct pm_error *err);
void pmi_options_release(struct pmi_resolved_options *options);

// Names the field of a failure that a child has told: enum pmi_option_field.
void pmi_fail_option(struct pm_error *err, int field);

// Names a field that the Spec has: what was done for one may be a part of another.
void pmi_options_name_field(const struct pm_spec *spec, struct pm_error *err);

#endif
