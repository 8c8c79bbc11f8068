// What strays.c is compiled with for strays_test.cpp: a process table of the test's own in the
// place of the system.
#ifndef PM_TEST_STRAYS_TABLE_H
#define PM_TEST_STRAYS_TABLE_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define pmi_stat_read table_stat_read
#define pmi_children_list table_children_list
#define pmi_pids_visit table_pids_visit
#define pmi_proc_is_foreign table_is_foreign
#ifndef __cplusplus // There the system's is declared.
#define getpid table_getpid
#endif

#define PMI_SYS(name) TABLE_##name
#define TABLE_open table_open
#define TABLE_close table_close
#define TABLE_kill table_kill
#define TABLE_syscall table_syscall
#define TABLE_eventfd eventfd
#define TABLE_fcntl fcntl
#define TABLE_nanosleep nanosleep
#define TABLE_pipe pipe
#define TABLE_pipe2 pipe2
#define TABLE_poll poll
#define TABLE_read read
#define TABLE_recvmsg recvmsg
#define TABLE_sendmsg sendmsg
#define TABLE_socketpair socketpair
#define TABLE_waitid waitid
#define TABLE_write write

#ifdef __cplusplus
extern "C" {
#endif
struct table_row {
    pid_t parent, session;
    uint64_t start;
    bool dead; // Its first thread is.
    long threads;
};
// strays_table.c has table_stat_read(), by this. PM_OK or PM_ERR_*.
int table_look(pid_t pid, struct table_row *ret_row);
int table_children_list(pid_t parent, void (*visit)(void *context, pid_t pid), void *context);
int table_pids_visit(bool (*visit)(void *context, pid_t pid), void *context);
bool table_is_foreign(void);
pid_t table_getpid(void);
int table_open(const char *path, int flags, ...);
int table_close(int fd);
int table_kill(pid_t pid, int number);
long table_syscall(long call, ...);
#ifdef __cplusplus
}
#endif

#endif
