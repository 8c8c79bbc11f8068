// Whether jansson had all the memory that it asked for: of JSON that it cannot read it does not say
// which of the two it was, and what is on the disk must not be called damaged for the other.
#ifndef RUNNER_MEMORY_H
#define RUNNER_MEMORY_H

#include <stddef.h>

// From now on; without it nothing is ever found to be denied.
void memory_watch(void *(*allocate)(size_t size));
// How often it was not given since, in any thread: one that is not ours makes us look again, and no
// more.
unsigned long memory_denied(void);

#endif
