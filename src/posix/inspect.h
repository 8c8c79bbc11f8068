// What the launcher asks about its own process before it believes anything.
#ifndef PMI_POSIX_INSPECT_H
#define PMI_POSIX_INSPECT_H

#include <stdbool.h>

enum pmi_fd_kind {
    PMI_FD_NONE,
    PMI_FD_PIPE,
    PMI_FD_SOCKET,
    PMI_FD_OTHER
};

// Runs with rights that the caller does not have.
bool pmi_is_set_id(void);
enum pmi_fd_kind pmi_fd_kind(int fd);
// A regular file that nobody can change any more: sealed, or without a name and only ours.
bool pmi_fd_is_fixed(int fd);
// Its size; -1 = unknown.
long long pmi_fd_size(int fd);
// Name of the process in ps and top, where the system allows it.
void pmi_set_process_name(const char *name);

#endif
