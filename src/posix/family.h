// The descendants of a manager that has its process to itself (pm_options::own_process).
//
// Orphans come to us: we are a subreaper. Two things have to be known of each of our children then:
// whether it is such an orphan, so that it is waited for and a child of the host's own never is,
// and to whose tree it belongs. Nothing that the kernel keeps by itself tells either: a process
// that calls setsid() and forks in its first microsecond has lost its parent, its group and its
// session before anybody could look.
//
// Linux: so each start gets a mark that fork and exec hand on and nothing takes away by chance:
// RLIMIT_LOCKS, a limit that the kernel reads and inherits as any other, and has looked at for no
// purpose since 2.4.25 (getrlimit(2)). The child sets it before its exec, so nothing is born
// without it. A mark is a random number of the manager and a number of the start, so no other
// process in the system has it by chance.
//
//   mark                     [ 1 | random of the manager, 39 bits | number of the start, 22 bits ]
//   manager without a mark   children get soft = hard = mark, from 2^61 up
//   manager with one         it lives in a tree itself: children get soft = mark, from 2^60 up, and
//                            keep the hard limit, so they are in both trees
//   manager with two         PM_ERR_UNSUPPORTED
//
//   one of our children is    and is
//   ---------------------------------------------------------------------------------------------
//   the process of a Handle   waited for through that alone
//   marked by a start that    left alone: it may be that very process
//   is under way
//   marked by one of ours     an orphan of that tree, proven: the host never sets such a mark, and
//                             what carries it was born below a process that a Handle had
//   anything else             the host's, or in doubt: never waited for, never signalled. The
//                             detector reports it when it dies and stays.
//
// A process that changes its own RLIMIT_LOCKS is still in the tree while its parent is; after that
// it is of the last kind. A mark that it gave itself would have to be guessed.
//
// FreeBSD has all of it in the kernel: see family_procctl.c.
#ifndef PMI_POSIX_FAMILY_H
#define PMI_POSIX_FAMILY_H

#include "backend.h"
#include "pmi_config.h"

// A start under way. Lives on the starter's stack.
struct pmi_birth {
    struct pmi_birth *next;
    uint64_t mark;
    struct pmi_condemned *room;
};

// PM_ERR_UNSUPPORTED with the reason; PM_ERR_BUSY: another manager has this process.
int pmi_family_open(struct pmi_family *family, struct pm_error *err);
void pmi_family_close(struct pmi_family *family);

// For the file that knows the system: once at a time in a process; a forked copy is another. False:
// PM_ERR_BUSY (err is filled).
bool pmi_family_take_process(struct pm_error *err);
void pmi_family_release_process(void);

// Around a start: between the two nobody with this mark is waited for. `op` stays where it is until
// pmi_family_left(); NULL = the start has failed.
int pmi_family_expect(struct pmi_family *family, struct pmi_birth *birth, struct pm_error *err);
void pmi_family_born(struct pmi_family *family, struct pmi_birth *birth, struct pmi_os_process *op);
// Its status was taken: the number may be somebody else's. Any number of times.
void pmi_family_left(struct pmi_os_process *op);

// The hard limit that goes with a mark.
uint64_t pmi_family_limit(const struct pmi_family *family, uint64_t mark);

// Sends to the whole tree of `op`, again until a walk finds nobody new; 0 only looks. After SIGKILL
// nobody is to live in it any more: who turns up later is killed, too. PM_OK; PM_ERR_GONE: nobody
// is there; PM_ERR_NO_DESCRIPTORS, PM_ERR_NO_MEMORY.
int pmi_family_signal(struct pmi_os_process *op, int signal_number);
// Whether anybody of the tree lives beside the process itself, which has ended.
bool pmi_family_alive(struct pmi_os_process *op);
// Whether this child of ours is an orphan that a manager of this program waits for.
bool pmi_family_awaits(pid_t pid);

// For the keeper, whose manager is dead and the orphans elsewhere: kills all who have one of the
// marks, until there is nobody.
void pmi_family_kill_marked(const uint64_t *marks, size_t count);
// Calls `each` with the two marks of each process that lives, and that has any limit of that kind:
// one reading of the process table for all who ask. False: somebody may have been left out.
bool pmi_family_visit_marks(void (*each)(void *context, uint64_t soft, uint64_t hard),
                            void *context);

#endif
