// `who PID`: whose a process is, and how that is known.
#ifndef RUNNER_WHO_H
#define RUNNER_WHO_H

#include <jansson.h>

#include "runner/inspect.h"
#include "runner/runner.h"

// Works without a runner. RUNNER_OK: *ret_who is the answer (the caller's). RUNNER_NO_SESSION:
// nobody's, or no such process.
int runner_who(const struct runner_env *env, const struct inspect_roots *roots, uint64_t pid,
               json_t **ret_who, struct runner_error *error);

#endif
