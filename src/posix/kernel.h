// What only the version of the kernel tells.
#ifndef PMI_POSIX_KERNEL_H
#define PMI_POSIX_KERNEL_H

#include <stdbool.h>

// Whether this is that version of Linux or a later one.
bool pmi_kernel_is_at_least(long major, long minor);

#endif
