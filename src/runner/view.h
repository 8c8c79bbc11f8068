// One end of a session on this terminal: attach, logs and send. It talks to the pod itself, so the
// runner may die meanwhile, and reads what is left of a session that has ended.
#ifndef RUNNER_VIEW_H
#define RUNNER_VIEW_H

#include "pod/wire.h"
#include "runner/runner.h"

enum view_kind {
    VIEW_ATTACH,
    VIEW_LOGS,
    VIEW_SEND
};

struct view_options {
    enum view_kind kind;
    const char *id;
    uint64_t from;
    bool read_only, take_over, follow, close_input, exit_code;
    bool stderr_only;
    int detach_key;   // Its control character; -1: none.
    const char *text; // VIEW_SEND: in place of stdin.
    size_t text_size;
    bool enter;          // The Enter key after it.
    uint64_t timeout_ms; // VIEW_SEND: for all of it; 0: as long as it takes.
};
#define VIEW_OPTIONS_INIT                                                                          \
    {                                                                                              \
        .from = POD_FROM_KEPT, .detach_key = 0x1c                                                  \
    }

// The exit code of the command.
int view_run(const struct runner_env *env, const struct view_options *options);
// "start", "kept", "now" or a number of bytes.
bool view_parse_from(const char *text, uint64_t *ret_from);

#endif
