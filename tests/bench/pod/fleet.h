// How long a new runner takes to find what an earlier one left.
#ifndef PM_BENCH_FLEET_H
#define PM_BENCH_FLEET_H

void group_recovery(void); // Nothing where the runner was not built.

#endif
