// Terminals of PTY mode.
#ifndef PMI_POSIX_TERMINAL_H
#define PMI_POSIX_TERMINAL_H

#include "os.h"
#include "pmi_config.h"

// Linux keeps what was written when the last descriptor of the slave is closed. Elsewhere it is
// thrown away: there we hold one until the process has ended and all was read. Whoever does the
// latter lets go of it: the reader, or the reaper who finds nothing unread. Nobody else would wake
// a host that polls the master itself.
#ifdef HAVE_EPOLL
#define PMI_KEEPS_SLAVE false
#else
#define PMI_KEEPS_SLAVE true
#endif

// Whether a read of a master would tell anything now: bytes, or an end.
bool pmi_pty_is_readable(int master);
// Closes the slave that we held. False: there was none.
bool pmi_pty_release_slave(struct pmi_os_process *op);
// A pair, close-on-exec from birth and above 2; the master does not block. 0 or errno.
int pmi_pty_open(unsigned columns, unsigned rows, int *ret_master, int *ret_slave);
// By either side. 0 or errno.
int pmi_pty_resize(int fd, unsigned columns, unsigned rows);
// Types the end-of-file character, where the terminal reads by lines and has one. `last` is what
// was typed before it, or -1: in the middle of a line the first one only ends that line's wait; it
// is kept. 0 or errno; EAGAIN: it is full, try again.
int pmi_pty_type_end(int master, int *last);

#endif
