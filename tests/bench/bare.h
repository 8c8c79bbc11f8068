// The bare loops that the library is measured against: the least that gives the same result, with
// the same flags, streams and group. Nothing in them handles an error but by ending the program.
#ifndef PM_BENCH_BARE_H
#define PM_BENCH_BARE_H

#include <sys/types.h>

void bare_die(const char *what);

// Start argv[0] with the null device three times, in a group of its own. Each returns the pid;
// the ones with a pidfd store it.
pid_t bare_vfork(char *const argv[]);
pid_t bare_fork(char *const argv[]);
pid_t bare_posix_spawn(char *const argv[]);
pid_t bare_clone(char *const argv[], int *ret_pidfd);
// Standard input is `in`, the rest the null device; with a pidfd.
pid_t bare_clone_reading(char *const argv[], int in, int *ret_pidfd);
// bare_clone() on a thread with a descriptor table of its own, which has the first three and a
// socket alone; the pidfd comes through that. The thread copies what is open when it begins.
void bare_spawner_begin(void);
pid_t bare_spawner(char *const argv[], int *ret_pidfd);
void bare_spawner_end(void);

void bare_wait(pid_t pid);
// Waits for the pidfd with an epoll descriptor of its own, then for the process.
int bare_epoll_new(void);
void bare_epoll_wait(int epoll, int pidfd);

// The steps of a gated daemon start, bare and in our order: exec of this program as launcher, stub,
// pidfd, a nonce through a socket, the launcher's end, the echo, a record that is not synced, GO,
// "armed", exec, the record again. Returns the pid of the daemon.
pid_t bare_daemon(const char *self, char *const argv[], const char *folder);
// main() of the launcher: argv[1] is BARE_LAUNCHER, the rest the daemon's. Never returns.
#define BARE_LAUNCHER "bare-launcher"
int bare_launcher(char *const argv[]);

#endif
