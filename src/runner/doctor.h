// `doctor`: looks at all that can go wrong, changes nothing, and has for each find the command that
// mends it.
#ifndef RUNNER_DOCTOR_H
#define RUNNER_DOCTOR_H

#include <jansson.h>

#include "runner/inspect.h"
#include "runner/known.h"
#include "runner/runner.h"

enum doctor_level {
    DOCTOR_NOTE = 0, // Nothing has to be done.
    DOCTOR_WARNING,
    DOCTOR_ERROR
};

struct doctor_options {
    const struct inspect_roots *roots;
    bool probe; // Ask PID 1 whether it collects orphans, by way of one that ends at once.
};

// *ret_report: {"findings": [{"id", "level", "subject", "what", "why", "command"}], "checked":
// [...], "runner", "sessions"}. How many are more than notes: *ret_count.
int runner_doctor(const struct runner_env *env, const struct doctor_options *options,
                  json_t **ret_report, size_t *ret_count, struct runner_error *error);

// ---- its parts
// -----------------------------------------------------------------------------------

struct doctor {
    const struct runner_env *env;
    const struct inspect_roots *roots;
    struct known known;
    struct inspect_table table; // Empty where the system shows none.
    json_t *findings, *checked;
    char runner[4400]; // "runner --state 'DIR'"
    bool runner_lives, runner_answers;
    size_t count;
};

// The text is "what", "why" and "command", one a line; each find has an id of docs/runbook.md.
void doctor_find(struct doctor *doctor, enum doctor_level level, const char *id,
                 const char *subject, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 5, 6)))
#endif
    ;
void doctor_checked(struct doctor *doctor, const char *what);

void doctor_state(struct doctor *doctor);
void doctor_records(struct doctor *doctor);
void doctor_pods(struct doctor *doctor);
void doctor_services(struct doctor *doctor);
// src/runner/posix, src/runner/win32: who would end the daemons, and who collects the dead.
void doctor_system(struct doctor *doctor, bool probe);
bool doctor_exists(const char *path);
// Whether a file or folder is ours, and nobody else's. `why` and `command`: what is wrong with it.
bool doctor_is_private(const char *path, char why[256], char command[4600]);
// Whether files can be made in a folder, if it is there.
bool doctor_is_writable(const char *path, char why[256], char command[4600]);
// src/runner/posix/command.c, src/runner/win32/command.c.
// The path as the shell of the system takes it.
void doctor_quote(const char *path, char quoted[4400]);
// An id as a word of a command line: quoted where it has to be.
const char *doctor_id(const char *id, char quoted[4400]);
// Commands of the system, as people type them.
enum doctor_command {
    DOCTOR_KILL,    // A process.
    DOCTOR_PROCESS, // What it is.
    DOCTOR_FILE,    // Who may do what with a file.
    DOCTOR_REMOVE,  // A file.
    DOCTOR_SPACE,   // Of the disk of a folder.
    DOCTOR_EDIT,    // A file that people write.
    DOCTOR_LISTEN   // Tell a process to make the name of its socket anew; "": there is no such.
};
// `what`: a pid, or a path.
const char *doctor_command(enum doctor_command command, const char *what, char text[4600]);
// Commands of `doctor` that only it uses; -1: it is none.
int doctor_verb(const struct runner_env *env, int argc, char **argv);

#endif
