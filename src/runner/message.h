// Messages of JSON-RPC 2.0 as a child speaks them: what a line is, and the lines that we say. Pure.
#ifndef RUNNER_MESSAGE_H
#define RUNNER_MESSAGE_H

#include "runner/rpc.h"

enum message_kind {
    MESSAGE_NONE = 0, // No JSON, or no message.
    MESSAGE_BLANK,
    MESSAGE_REQUEST,
    MESSAGE_NOTIFICATION,
    MESSAGE_ANSWER, // A result or an error.
    MESSAGE_BATCH   // A list of them.
};

// *ret_json is the caller's; NULL unless it is JSON.
enum message_kind message_read(const char *line, size_t size, json_t **ret_json);
enum message_kind message_kind_of(const json_t *json);
// The error of an answer, borrowed. NULL: none, or a null beside the result, as JSON-RPC 1 has it.
json_t *message_fault(const json_t *json);

// Ids of our calls: no other run of the runner gives the same, so that an answer to a call of an
// earlier one is known as such. The run is told by the begin of its random name: a number that is
// counted up on the disk would be the same again where that cannot be written.
#define MESSAGE_ID_MAX 48
#define MESSAGE_RUN 12 // Characters of `run`, which are hexadecimal digits.
void message_id(char id[MESSAGE_ID_MAX], const char *run, uint64_t number);
// Whether a runner has given it. *ret_ours: this run.
bool message_id_read(const json_t *id, const char *run, bool *ret_ours);

// Steal params, result and error; NULL: no memory. params may be NULL.
json_t *message_request(const char *id, const char *method, json_t *params);
json_t *message_notification(const char *method, json_t *params);
json_t *message_result(const json_t *id, json_t *result);
json_t *message_error(const json_t *id, int code, const char *text);

#endif
