// The least that a start and an attach of a pod can cost on this machine: the same programs loaded
// and the same bytes sent, and nothing else. Figures in time say something only beside them.
#ifndef PM_BENCH_FLOOR_H
#define PM_BENCH_FLOOR_H

// Launcher, holder and child run one after another, each only as far as its usage message, and as
// many files are made as the start of a pod makes before its child runs. us.
double floor_start(void);

// A socket whose other end answers as a pod does: a greeting, a proof with the ATTACH behind it.
void floor_attach_begin(void);
double floor_attach(void); // us.
void floor_attach_end(void);

#endif
