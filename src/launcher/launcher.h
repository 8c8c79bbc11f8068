// The launcher: the middle process of the double fork. One source, entered by the marker as the
// program itself, or as the helper program processmgr-launcher.
//
//   manager                        launcher                  stub
//   ---------------------------------------------------------------------------------------
//   starts {name, marker} ------->  checks everything
//                                   forks ----------------->  waits at the gate
//   reads "PID\n" <---------------  writes it, exits 0
//   opens the pidfd, sends NONCE --------------------------->
//   waits for the launcher                                    (now a child of init)
//   checks pid and start time <------------------------------ ECHO: nonce, pid, start time
//   writes the record
//   sends GO ------------------------------------------------>
//                                                             ARMED, set-up, exec
//   end of file, or FAILED with stage and errno <------------
//
// End of file or silence before GO, and the stub leaves without ever running the program.
#ifndef PMI_LAUNCHER_H
#define PMI_LAUNCHER_H

#include <stdbool.h>
#include <stdint.h>

#define PMI_LAUNCHER_MARKER "__processmgr_launcher__"

enum {
    PMI_LAUNCHER_REPORT_FD = 3, // Keeper: its control socket.
    PMI_LAUNCHER_PLAN_FD = 4,
    PMI_LAUNCHER_GATE_FD = 5, // Keeper: pidfd of the manager's process, or closed.
    PMI_LAUNCHER_FDS = 6      // First number for anything else.
};

enum pmi_gate_kind {
    PMI_GATE_NONCE = 'N',
    PMI_GATE_ECHO = 'E',
    PMI_GATE_GO = 'G',
    PMI_GATE_ARMED = 'A',
    PMI_GATE_FAILED = 'F'
};

// Every message on the gate has this one shape.
struct pmi_gate_message {
    uint32_t kind;
    uint32_t stage;   // FAILED: enum pm_stage.
    uint32_t error;   // FAILED: errno.
    uint32_t retries; // FAILED: ETXTBSY answered by trying again.
    uint32_t field;   // FAILED: enum pmi_option_field.
    uint32_t zero;
    uint64_t nonce[2];
    uint64_t pid, start; // ECHO.
    uint64_t time_ms;    // GO: what is left until the stub ends itself.
};

// Whether the program has called pm_launcher_main().
bool pmi_launcher_is_wired(void);

// The stub's life; never returns.
struct pmi_launch_plan;
#if defined(__GNUC__)
__attribute__((noreturn))
#endif
void pmi_stub_run(const struct pmi_launch_plan *plan);

#endif
