// What a service in a pod has been read of, on disk: so the next runner goes on at the very line
// where this one was ended, whatever ended it. A line of output counts as taken when it stands
// here. Two files, `journal` and the older `journal.1`, of one record a line:
//
//   = JSON        what was known when the file was begun
//   < END LINE    a line of the agent, which ends at this offset of its output
//   - END         one that was dropped: too long, or bytes of it are lost
//   ! OFFSET      stderr up to there is in the log
//   > END [ID]    a line that is about to be given to the agent; its end in all of the input. ID:
//   it
//                 answers this request, which is open while the pod has less
//   @ ID          this request of the agent has been answered: the pod has it
//   * JSON        what the handshake told
//
// A last line without its end was being written: it is cut off. What cannot be written is not
// taken. When the agent has ended, the files are `ended` and `ended.1` until the next one does.
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
    json_t *given;             // A list of [end, id]: answers that the pod may have. NULL: none.
};
void journal_state_clear(struct journal_state *state);
// Reads records. How many bytes of the text are whole ones that were understood; SIZE_MAX: no
// memory. Pure.
size_t journal_read(const char *text, size_t size, struct journal_state *state);
// Whether the input so far ends with the end of a line. Pure.
bool journal_at_line(const struct journal_state *state, uint64_t input);
// The pod has so much input: what that answers is not open any more, nor in the list (may be NULL),
// and what is beyond was never given. Pure.
void journal_settle(struct journal_state *state, json_t *list, uint64_t input);

struct journal {
    char path[4096];
    int file;            // Negative: it is not open.
    uint64_t size, head; // head: of its first record, if it was begun here.
    struct journal_state state;
};
enum journal_found {
    JOURNAL_NONE = 0,
    JOURNAL_THERE,
    JOURNAL_DAMAGED // The state is that before the first record that is none.
};
// Reads what is there, without opening it. enum journal_found, or a negative uv error: perhaps
// there is one.
int journal_load(struct journal *journal, const char *folder);
// Begins a new file with the state as it is. 0 or a negative uv error, here and below: then nothing
// has been written, and the state is as it was.
int journal_begin(struct journal *journal);
// Goes on with the one that was loaded: a record of the state as it is now.
int journal_resume(struct journal *journal);
void journal_close(struct journal *journal);
void journal_end(struct journal *journal); // The agent has ended.
bool journal_exists(const char *folder);

int journal_line(struct journal *journal, const char *line, size_t size, uint64_t end);
int journal_drop(struct journal *journal, uint64_t end);
int journal_said(struct journal *journal, uint64_t offset);
int journal_input(struct journal *journal, uint64_t end, const char *id); // id: NULL, or as JSON.
int journal_answered(struct journal *journal, const char *id);
int journal_keep(struct journal *journal, json_t *state); // Steals it.

// {"messages": [{"offset", "message"}], "next", "more", "agent"}: those after an offset, of this
// agent; 0: of the last one.
json_t *journal_messages(const char *folder, uint64_t agent, uint64_t after);

#endif
