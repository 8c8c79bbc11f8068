// Environment blocks as data: "NAME=value" lists.
#ifndef PMI_ENV_H
#define PMI_ENV_H

#include <stdbool.h>

// Applies `changes` ("NAME=value" sets, "NAME" removes; NULL-terminated) to `base`. The last entry
// of a name wins. Entries of the base without '=' or beginning with '=' (Windows: "=C:=C:\dir") are
// kept as they are. fold_case: names that differ only in ASCII case are the same (other letters
// compare as they stand: the system's own case table is not here), and the result is sorted by
// upper-cased name, by code point, as Windows wants it; else the base's order is kept and new names
// come last. The result is one block: free(*ret_env). PM_ERR_INVALID: *ret_bad is the change with
// an empty name. PM_ERR_NO_MEMORY.
int pmi_env_merge(const char *const *base, const char *const *changes, bool fold_case,
                  char ***ret_env, const char **ret_bad);

// Value of a name, or NULL. Borrowed from env.
const char *pmi_env_get(const char *const *env, const char *name, bool fold_case);

#endif
