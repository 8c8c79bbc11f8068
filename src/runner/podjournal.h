// What a service in a pod has been read of, on disk: so the next runner goes on at the very line
// where this one was ended, whatever ended it. A line of output counts as taken when it stands
// here. Two files, `journal` and the older `journal.1`, of one record a line:
//
//   = JSON        what was known when the file was begun
//   < END LINE    a line of the agent, which ends at this offset of its output
//   - END         one that was dropped: too long, or bytes of it are lost
//   ! OFFSET      stderr up to there is in the log
//   > END         a line that is about to be given to the agent; its end in all of the input
//   @ ID          this request of the agent has been answered
//   * JSON        what the handshake told
//
// A last line without its end was being written: it is cut off.
#ifndef RUNNER_PODJOURNAL_H
#define RUNNER_PODJOURNAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define JOURNAL_SIZE 4194304u // Of one file, but for the last record in it.
#define JOURNAL_INPUTS 256

struct journal_state {
    uint64_t session; // When its session was created: another one is another agent.
    uint64_t out, err;
    uint64_t inputs[JOURNAL_INPUTS]; // Ends of the last lines given to it.
    size_t inputs_count;
    json_t *kept, *unanswered; // unanswered: a list of requests. NULL: none.
};
void journal_state_clear(struct journal_state *state);
// Reads records. How many bytes of the text are whole ones that were understood. Pure.
size_t journal_read(const char *text, size_t size, struct journal_state *state);
// Whether the input so far ends with the end of a line. Pure.
bool journal_at_line(const struct journal_state *state, uint64_t input);

struct journal {
    char path[4096];
    int file; // Negative: there is none.
    uint64_t size;
    bool failed; // The last record could not be written.
    struct journal_state state;
};
// Reads what is there, without opening it. false: there is nothing, or it is damaged.
bool journal_load(struct journal *journal, const char *folder);
// Begins a new file with the state as it is. 0 or a negative uv error.
int journal_begin(struct journal *journal);
// Goes on with the one that was loaded: a record of the state as it is now.
int journal_resume(struct journal *journal);
void journal_close(struct journal *journal);
void journal_remove(struct journal *journal);

void journal_line(struct journal *journal, const char *line, size_t size, uint64_t end);
void journal_drop(struct journal *journal, uint64_t end);
void journal_said(struct journal *journal, uint64_t offset);
void journal_input(struct journal *journal, uint64_t end);
void journal_answered(struct journal *journal, const char *id);
void journal_keep(struct journal *journal, json_t *state); // Steals it.

// {"messages": [{"offset", "message"}], "next", "more"}: those after an offset.
json_t *journal_messages(const char *folder, uint64_t after);

#endif
