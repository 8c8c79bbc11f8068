// Daemon mode: the launcher and the gate, seen from the manager.
#ifndef PMI_POSIX_DAEMON_H
#define PMI_POSIX_DAEMON_H

#include "backend.h"

// As pmi_os_start, for PM_MODE_DAEMON.
int pmi_posix_start_daemon(struct pmi_os_manager *om, const struct pmi_plan *plan,
                           struct pmi_os_process *op, struct pmi_os_stream streams[3],
                           struct pmi_started *ret_started, struct pm_error *err);

// Notes which launcher there is: `launcher_path` if given (copied), the program itself as it is on
// disk now if it has called pm_launcher_main(), else the installed helper.
int pmi_posix_launcher_open(struct pmi_os_manager *om, const char *launcher_path);
void pmi_posix_launcher_close(struct pmi_os_manager *om);

// How to start the launcher. Points into itself: do not copy.
struct pmi_launcher_argv {
    const char *program;
    const char *argv[3];
    char path[64];
    int exe_fd; // Of the program itself, which `program` leads through; -1 = it has a path.
};
// PM_ERR_NO_LAUNCHER (err is filled).
int pmi_posix_launcher_argv(struct pmi_os_manager *om, struct pmi_launcher_argv *ret_command,
                            struct pm_error *err);

// A plan that makes the launcher a keeper. 0 or errno.
int pmi_posix_keeper_plan(struct pmi_os_manager *om, int *ret_fd);

#endif
