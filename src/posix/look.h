// Looks for processes of a group or of a session in the process table, so that "nobody is there" is
// proven and a signal reaches those, too, who are born meanwhile.
#ifndef PMI_POSIX_LOOK_H
#define PMI_POSIX_LOOK_H

#include "identity.h"

#include <stdint.h>
#include <sys/types.h>

// A session of another pid namespace, as those of a container are that somebody has entered: it has
// no number here.
#define PMI_SESSION_OUTSIDE (-1)

struct pmi_search {
    pid_t group;     // 0 = any.
    pid_t session;   // As pmi_session_of(); 0 = any.
    uint64_t oldest; // Start time; 0 = any.
    pid_t except;    // 0 = nobody.
    pid_t other;     // Nobody of this group; 0 = whatever group.
    int signal;      // For all that are found, once each; 0 = the first one found is enough.
};

static inline pid_t pmi_session_of(const struct pmi_stat *stat)
{
    return stat->session != 0 ? stat->session : PMI_SESSION_OUTSIDE;
}

// Of two findings the later one in this list counts.
enum pmi_found {
    PMI_NOBODY,
    PMI_CANNOT_TELL,
    PMI_SOMEBODY
};

enum pmi_found pmi_look_for(const struct pmi_search *search);

// In a forked copy: a round of the parent's is none of ours.
void pmi_look_forget_parent(void);

#endif
