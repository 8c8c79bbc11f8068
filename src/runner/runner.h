// What the parts of the runner share: where it works, how it fails, its commands.
#ifndef RUNNER_RUNNER_H
#define RUNNER_RUNNER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Exit codes of every command, and of errors on the control connection: docs/control.md.
#define RUNNER_CODE_MAP(X)                                                                         \
    X(OK, 0, "ok")                                                                                 \
    X(FAILED, 1, "failed")                                                                         \
    X(USAGE, 2, "usage")                                                                           \
    X(NO_SESSION, 3, "no_session")                                                                 \
    X(EXISTS, 4, "exists")                                                                         \
    X(UNREACHABLE, 5, "unreachable")                                                               \
    X(REFUSED, 6, "refused")                                                                       \
    X(TIMEOUT, 7, "timeout")                                                                       \
    X(DAMAGED, 8, "damaged")

enum runner_code {
#define RUNNER_CODE_ENUM(name, number, text) RUNNER_##name = (number),
    RUNNER_CODE_MAP(RUNNER_CODE_ENUM)
#undef RUNNER_CODE_ENUM
};

const char *runner_code_name(int code); // "no_session" and the like. Static.

// What failed, why, and the command to go on with.
struct runner_error {
    int code; // enum runner_code
    char what[320];
    char why[1024];
    char next[768]; // An id in it may be four times as long, quoted.
    int64_t bytes;  // Of input for a session: how many of it were taken at most; -1: it has none.
};
// The text is "what", "why" and "next", one a line; the last two may be missing. "next" is a
// command, "see " and what to read, "call again", or "none: " and why there is none; where it is
// missing, one that goes with the code. Returns code.
int runner_fail(struct runner_error *error, int code, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

struct runner_env {
    const char *state_dir; // Absolute; made and checked by runner_env_open().
    const char *program;   // Executable of this runner, absolute.
    bool json;             // Output for programs.
    bool no_start;         // Do not start a runner that is not there.
    bool by_hand;          // `serve` of a person, who is told at once what is wrong.
    bool elsewhere;        // Its folder is not that of a command that names none.
};

#define RUNNER_LOG_SIZE 262144u
#define RUNNER_LOG_FILES 3
#define RUNNER_LINE_MAX 1048576u
#define RUNNER_CALL_MAX 11534336u  // Of service.*: a message of 10 MiB, and what is around it.
#define SERVICE_SESSION "service." // Begin of the id of the session of an agent in a pod.
#define RUNNER_ID_MAX 128u

struct runner_command {
    const char *name;
    int (*run)(const struct runner_env *env, int argc, char **argv); // argv[0] is the name.
    const char *arguments, *summary;                                 // One line each.
    const char *help;
};
const struct runner_command *runner_find_command(const char *name);
#define RUNNER_NEXT_MAX 5400
// `next` of an error as it can be typed here: with the state folder, where a command needs it. It,
// or `text`.
const char *runner_next(const struct runner_env *env, const char *next, char text[RUNNER_NEXT_MAX]);
// Prints the error as the environment wants it; returns its code.
int runner_report(const struct runner_env *env, const struct runner_error *error);
// "runner: what is wrong", and where help is; returns RUNNER_USAGE.
int runner_usage(const struct runner_env *env, const char *command, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

int cli_serve(const struct runner_env *env, int argc, char **argv);
int cli_create(const struct runner_env *env, int argc, char **argv);
int cli_list(const struct runner_env *env, int argc, char **argv);
int cli_get(const struct runner_env *env, int argc, char **argv);
int cli_attach(const struct runner_env *env, int argc, char **argv);
int cli_send(const struct runner_env *env, int argc, char **argv);
int cli_resize(const struct runner_env *env, int argc, char **argv);
int cli_logs(const struct runner_env *env, int argc, char **argv);
int cli_stop(const struct runner_env *env, int argc, char **argv);
int cli_kill(const struct runner_env *env, int argc, char **argv);
int cli_destroy(const struct runner_env *env, int argc, char **argv);
int cli_service(const struct runner_env *env, int argc, char **argv);
int cli_who(const struct runner_env *env, int argc, char **argv);
int cli_doctor(const struct runner_env *env, int argc, char **argv);
int cli_forget(const struct runner_env *env, int argc, char **argv);
int cli_info(const struct runner_env *env, int argc, char **argv);
int cli_events(const struct runner_env *env, int argc, char **argv);
int cli_upgrade(const struct runner_env *env, int argc, char **argv);
int cli_shutdown(const struct runner_env *env, int argc, char **argv);

#endif
