// What a service in a pod has been read of, on disk: so the next runner goes on at the very line
// where this one was ended, whatever ended it. A line of output counts as taken when it stands
// here, and a line for the agent is given when it does. Two files, `journal` and the older
// `journal.1`, of one record a line:
//
//   = JSON        what was known when the file was begun
//   < END LINE    a line of the agent, which ends at this offset of its output
//   - END         one that was dropped: too long, or bytes of it are lost
//   ! OFFSET      stderr up to there is in the log
//   + N ID LINE   a line for the agent, which waits. N bytes of ID: it answers this request of the
//                 agent, which is not open any more; 0 and no ID: none
//   > END         the first of them that was not is about to be given; its end in all of the input
//   @ END         the pod has those up to there
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

// A line for the agent, until the pod is known to have it.
struct journal_input {
    struct journal_input *next;
    char *text, *answers; // With its end. answers: the id of a request, as JSON; NULL.
    size_t size, sent;    // sent: that the pod was given so far.
    uint64_t end;         // In all of the input; 0: none of it has been given.
    bool noted;           // It stands in the journal.
};

struct journal_state {
    uint64_t session; // When its session was created: another one is another agent.
    uint64_t out, err;
    uint64_t line; // End of the last line of input that the pod is known to have.
    struct journal_input *queue, *last, *silent; // silent: the first that is not noted.
    size_t queued;                               // Bytes in there.
    json_t *kept, *unanswered;                   // unanswered: a list of requests. NULL: none.
};
void journal_state_clear(struct journal_state *state);
// Reads records. How many bytes of the text are whole ones that were understood; SIZE_MAX: no
// memory. Pure, as are those that follow.
size_t journal_read(const char *text, size_t size, struct journal_state *state);
// Whether the input so far ends with the end of a line.
bool journal_at_line(const struct journal_state *state, uint64_t input);
// Adds a line to the queue. Steals the text, which ends with a line end. NULL: no memory.
struct journal_input *journal_queue(struct journal_state *state, char *text, size_t size,
                                    const char *answers);
// The pod has so much input, and nothing more is on its way: what it does not have is given anew,
// behind the end of half a line, if that is there. false: no memory.
bool journal_give_again(struct journal_state *state, uint64_t input);

struct journal {
    char path[4096];
    int file;            // Negative: it is not open.
    uint64_t size, head; // head: of its first record, if it was begun here.
    struct journal_state state;
};
enum journal_found {
    JOURNAL_NONE = 0,
    JOURNAL_THERE,
    JOURNAL_DAMAGED // The state is that before the first record that is none, or is too long.
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
// Also if that cannot be told: what may be there is not given up.
bool journal_exists(const char *folder);

int journal_line(struct journal *journal, const char *line, size_t size, uint64_t end);
int journal_drop(struct journal *journal, uint64_t end);
int journal_said(struct journal *journal, uint64_t offset);
// All of the queue that does not stand there yet.
int journal_note(struct journal *journal);
// This one, the first that has not been given, is about to be.
int journal_give(struct journal *journal, struct journal_input *input, uint64_t end);
// The pod has so much input: those lines leave the queue.
int journal_had(struct journal *journal, uint64_t input);
int journal_keep(struct journal *journal, json_t *state); // Steals it.

// {"messages": [{"offset", "message"}], "next", "more", "agent"}: those after an offset, of this
// agent; 0: of the last one. NULL: no memory.
json_t *journal_messages(const char *folder, uint64_t agent, uint64_t after);

#endif
