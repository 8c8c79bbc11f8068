// A few descriptors with low numbers, taken when the manager is opened.
//
// A child's descriptor table is normally a copy of the host's, and exec walks all of it: both grow
// with what the host has open, the pidfds of its living children included. Instead the child may be
// born with the host's own table and, first thing, take a copy of no more than its low end
// (close_range with CLOSE_RANGE_UNSHARE, Linux 5.9). What it needs has to be there: that is what
// these numbers are for.
//
// A host may close descriptors that it did not open, and open others with their numbers. So a
// number is looked at before each use: one that holds another file than we have put there is never
// touched again.
#ifndef PMI_POSIX_LOW_FDS_H
#define PMI_POSIX_LOW_FDS_H

#include <stdbool.h>
#include <stddef.h>

#include "child.h"
#include "os.h"

// A number that is lent, by its index, and the descriptor whose file it holds; -1 = still the idle
// one.
struct pmi_low_slot {
    size_t slot;
    int source;
};

// What a plan had before it was moved to low numbers.
struct pmi_low_loan {
    struct pmi_child_fd fds[PMI_LOW_FDS];
    struct pmi_low_slot slots[PMI_LOW_FDS];
    size_t slots_count;
    const struct pmi_child_fd *old_fds;
    int old_keeper_fd;
};

// Never fails: without enough descriptors there is nothing to lend.
void pmi_low_fds_open(struct pmi_low_fds *low);
void pmi_low_fds_close(struct pmi_low_fds *low);

// Moves what the plan's child needs to low numbers and sets keep_below of the plan. False: not
// possible for this plan or not now; the plan is as it was.
bool pmi_low_fds_lend(struct pmi_low_fds *low, struct pmi_child_plan *plan,
                      struct pmi_low_loan *loan);
// Takes everything back but what is not ours any more. refused: this kernel, or a filter, does not
// let a child keep a low end.
void pmi_low_fds_take_back(struct pmi_low_fds *low, struct pmi_child_plan *plan,
                           struct pmi_low_loan *loan, bool refused);

#endif
