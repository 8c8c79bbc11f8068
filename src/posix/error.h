// From errno to PM_ERR_*, and into struct pm_error.
#ifndef PMI_POSIX_ERROR_H
#define PMI_POSIX_ERROR_H

#include <processmgr/processmgr.h>

// The PM_ERR_* that stands for errno `e`; never PM_OK.
int pmi_error_from_errno(int e);
// Fills code, stage and os_code from an errno; clears field and hint.
void pmi_fail(struct pm_error *err, enum pm_stage stage, int e);
// Fills code and stage of a failure that no errno tells; clears the rest. Returns code.
int pmi_fail_code(struct pm_error *err, enum pm_stage stage, int code);
// Texts to be added after one of these two; cut if too long.
void pmi_fail_field(struct pm_error *err, const char *field);
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void pmi_fail_hint(struct pm_error *err, const char *format, ...);

#endif
