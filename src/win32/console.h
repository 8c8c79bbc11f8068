// Ctrl-C for one console by a throw-away copy of this program: only who is on a console can send
// it, and who joins one gives up its own. The host does neither.
#ifndef PMI_WIN32_CONSOLE_H
#define PMI_WIN32_CONSOLE_H

#include "win32.h"

#define PMI_WIN_CONSOLE_MARKER "__processmgr_console_event__"

// What the helper reads from its stdin, a pipe. The handles are inherited, so none of it can be
// made up by somebody who can only choose the arguments of a program.
struct pmi_win_console_plan {
    uint64_t magic;
    uint64_t start;  // Creation time of the target.
    uint64_t target; // Handle of the process whose console is meant: its pid stays its own.
    uint64_t job;    // Handle of the job whose members may be on that console.
    uint32_t pid;
    uint32_t alone; // Nobody but the target may.
};
#define PMI_WIN_CONSOLE_MAGIC 0x31656c6f736e6f43u

// Exit codes of the helper.
enum {
    // None that a program could have by itself: by what ends a copy before it comes to its work, or
    // by the Ctrl-C if that reaches the helper as well.
    PMI_WIN_CONSOLE_SENT = 0x436e6f53,
    PMI_WIN_CONSOLE_REFUSED = 2,
    PMI_WIN_CONSOLE_GONE = 10,
    PMI_WIN_CONSOLE_NONE,   // The target has no console.
    PMI_WIN_CONSOLE_OTHERS, // Somebody is on it who is not meant.
    PMI_WIN_CONSOLE_DENIED, // It may not be joined.
    PMI_WIN_CONSOLE_FAILED
};

bool pmi_win_launcher_is_wired(void); // pm_launcher_main() was called.
// Full path of this program, malloc'd. PM_ERR_NO_LAUNCHER: it has not called pm_launcher_main(), or
// another file has that path now.
int pmi_win_launcher_path(wchar_t **ret_path);

#endif
