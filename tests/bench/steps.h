// Where the time of a start with a wait goes: the steps of the library, added to the bare loop one
// by one.
#ifndef PM_BENCH_STEPS_H
#define PM_BENCH_STEPS_H

// Rows of the bare loop, of it with one step more each time, and of `ours`, which returns when
// control was back; in turns, and some of them alone.
void steps_measure(char *const argv[], double (*ours)(void), int rounds);

#endif
