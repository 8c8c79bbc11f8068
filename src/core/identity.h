// What tells a process from every other one, across our own restarts.
#ifndef PMI_IDENTITY_H
#define PMI_IDENTITY_H

#include <stdint.h>

struct pmi_identity {
    char boot[40];  // Boot id; Windows: stands for one too, see src/win32/identity.c.
    uint64_t pid;   // In `pidns`.
    uint64_t start; // POSIX: start time in clock ticks since boot; Windows: creation FILETIME.
    uint64_t pidns; // Linux: inode of the pid namespace; else 0.
    uint64_t pidfs; // Linux 6.9: inode of the pidfd; Windows: token of its job's name; else 0.
};

#endif
