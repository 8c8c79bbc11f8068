// Terminals of PTY mode: pseudoconsoles. The system has them since Windows 10, version 1809.
#ifndef PMI_WIN32_TERMINAL_H
#define PMI_WIN32_TERMINAL_H

#include "win32.h"

// References: the process, its two streams, and the thread that closes it.
struct pmi_terminal;

bool pmi_win_has_terminals(void);

// Opens one with streams[0], which types, and streams[1], which shows. Its thread does not run yet:
// one of the next two is due.
int pmi_win_terminal_open(const struct pmi_plan *plan, struct pmi_os_stream streams[3],
                          struct pmi_terminal **ret_terminal, struct pm_error *err);
// From now on the end of the process is the end of the terminal.
int pmi_win_terminal_watch(struct pmi_terminal *t, HANDLE process, struct pm_error *err);
// Undoes the opening, streams included, and drops the caller's reference. Waits up to 2 s for the
// console host to go.
void pmi_win_terminal_cancel(struct pmi_terminal *t, struct pmi_os_stream streams[3]);

void *pmi_win_terminal_console(const struct pmi_terminal *t); // For the child's attributes.
// Signalled once it is closed, or has had 5 s to: what is not in the pipe then may never come.
HANDLE pmi_win_terminal_closed(const struct pmi_terminal *t);
// Closes it, unless somebody has taken a stream: then it stays until its process ends.
void pmi_win_terminal_hang_up(struct pmi_terminal *t);
// A stream is closed, or taken (the handle stays the taker's), and drops its reference.
void pmi_win_terminal_park(struct pmi_terminal *t, HANDLE handle, bool types);
void pmi_win_terminal_let_take(struct pmi_terminal *t);
void pmi_win_terminal_unref(struct pmi_terminal *t);

#endif
