// Somebody who only writes, to a terminal or pipe that nobody reads, hears no signal of the loop
// that it is in: another thread hears them as well, and ends the program if it is still there after
// a while.
#ifndef RUNNER_STUCK_H
#define RUNNER_STUCK_H

#define STUCK_MS 1000

struct stuck;
// While SIGTERM, SIGINT and SIGHUP are heard by a loop. NULL: no memory, no thread; nobody watches.
struct stuck *stuck_watch(void);
struct stuck *stuck_end(struct stuck *stuck); // NULL.

#endif
