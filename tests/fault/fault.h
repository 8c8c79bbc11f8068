// The library of the fault build calls the system through the functions in fault.c: objcopy gives
// its undefined symbols their names (symbols.txt). So every call of the library, and none of the
// tests', can be made to fail, in all processes that a start goes through: what is asked for stands
// in a file that all of them map, named by PM_FAULT_STATE.
//
// Other variables, for whole suites of tests:
//   PM_FAULT_EINTR=N        each Nth call that a signal can interrupt is interrupted
//   PM_FAULT_STORM=1        a signal every millisecond, for the tests' own threads; =2, for a
//   program
//                           that they play on a stage; =0, which all find that those start, none
//   PM_FAULT_CLOCK=1        the wall clock jumps by an hour, to and fro, 20 times a second
//   PM_FAULT_HITS=FILE      where those three count their hits: PM_FAULT_HITS numbers of 64 bits
//   PM_FAULT_DENY=A[,B]     these system calls do not exist (ENOSYS)
//   PM_FAULT_WITHOUT=G      the guard G is missing: see kGuards in suites_test.cpp
#ifndef PM_TEST_FAULT_H
#define PM_TEST_FAULT_H

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

enum pm_fault_mode {
    PM_FAULT_COUNT,  // No call fails.
    PM_FAULT_ONCE,   // The call number `target`.
    PM_FAULT_STICKY, // That one, and all after it for which the same would be plausible.
};

// What a storm has hit, in all processes.
enum pm_fault_hit {
    PM_FAULT_HIT_CALL,   // A call was interrupted.
    PM_FAULT_HIT_SIGNAL, // A signal was taken by the tests' own program,
    PM_FAULT_HIT_STAGED, // by one on a stage.
    PM_FAULT_HIT_CLOCK,  // The wall clock was read while it was wrong.
    PM_FAULT_HITS,
};

// Arms: the counts begin at zero. variant: which of the call's plausible errors, from 0.
void pm_fault_arm(enum pm_fault_mode mode, int target, int variant);
void pm_fault_disarm(void);

// As PM_FAULT_DENY, from now on in this process and its copies. One more name: "foreign_pidfds":
// all pidfds are of another pid namespace, so that no signal goes through them (EINVAL).
void pm_fault_deny(const char *names);

// Where such a denied call waits first until that file is there, for 10 s at the most.
void pm_fault_hold(const char *name, const char *path);

// Since the last arming, in all processes.
struct pm_fault_report {
    int calls;         // That could have failed.
    bool fired;        // One did.
    char name[32];     // Which,
    int error;         // with what,
    int variants;      // out of how many.
    char spinning[32]; // One of very many calls.
    int tables;        // Readings of the whole process table.
    int kills;         // Signals by number.
};
struct pm_fault_report pm_fault_report(void);

// Blocks of memory that this process's library holds.
long pm_fault_blocks(void);
// And what it has mapped.
long pm_fault_mappings(void);

// Like _exit(0), and keeps what a build that measures coverage has counted.
#if defined(__GNUC__)
__attribute__((noreturn))
#endif
void pm_fault_leave(void);

#ifdef __cplusplus
}
#endif

#endif
