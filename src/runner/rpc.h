// JSON-RPC 2.0, one object a line: pure, the same on both ends. docs/control.md.
#ifndef RUNNER_RPC_H
#define RUNNER_RPC_H

#include <jansson.h>

#include "runner/runner.h"

#define RPC_PARSE_ERROR (-32700)
#define RPC_INVALID_REQUEST (-32600)
#define RPC_UNKNOWN_METHOD (-32601)
#define RPC_INVALID_PARAMS (-32602)
// Errors of the runner: RPC_RUNNER - enum runner_code.
#define RPC_RUNNER (-32000)

struct rpc_request {
    json_t *id; // NULL: a notification, no answer is wanted.
    const char *method;
    json_t *params; // An object, never NULL.
    json_t *memory; // Owns the rest.
};

// 0, or the line is no request: then *ret_reply is the answer (the caller's).
int rpc_parse(const char *line, size_t size, struct rpc_request *ret_request, json_t **ret_reply);
void rpc_request_clear(struct rpc_request *request);

size_t rpc_line_max(const char *method);                      // How long a call of it may be.
json_t *rpc_call(int id, const char *method, json_t *params); // Steals params; NULL: none.
json_t *rpc_result(const json_t *id, json_t *result);         // Steals result.
json_t *rpc_fault(const json_t *id, int code, const char *text);
json_t *rpc_error(const json_t *id, const struct runner_error *error);
json_t *rpc_notification(const char *method, json_t *params); // Steals params.
// The line with its end, malloc'd; NULL: no memory. Steals the message.
char *rpc_line(json_t *message, size_t *ret_size);

// An answer. RUNNER_OK: *ret_result is the result (the caller's). Else the error that it is, or
// RUNNER_FAILED for one that is no answer to this call.
int rpc_take_reply(const char *line, size_t size, int id, json_t **ret_result,
                   struct runner_error *error);
enum rpc_said {
    RPC_REPLY,
    RPC_NOTIFICATION,
    RPC_FAREWELL, // Why the connection is closed: a refusal of none of the requests.
};
enum rpc_said rpc_said(const char *line, size_t size);

// ---- parameters
// ----------------------------------------------------------------------------------

enum rpc_type {
    RPC_STRING,
    RPC_NUMBER, // Whole, within low and high.
    RPC_BOOLEAN,
    RPC_STRINGS, // A list of strings.
    RPC_OBJECT,  // Of strings.
    RPC_ANY
};
struct rpc_field {
    const char *name;
    enum rpc_type type;
    bool required;
    json_int_t low, high; // Of numbers; high of strings: longest, in bytes; 0: no limit.
};
// A name that is not there, a type or value that cannot be: RUNNER_USAGE, and which one.
int rpc_check(const json_t *params, const struct rpc_field *fields, size_t count,
              struct runner_error *error);
#define RPC_CHECK(params, fields, error)                                                           \
    rpc_check((params), (fields), sizeof(fields) / sizeof(fields)[0], (error))

// 1 to 128 bytes of UTF-8 without control characters, not beginning with '-'.
bool rpc_valid_id(const char *id);
// malloc'd; NULL: not base64, or no memory.
unsigned char *rpc_base64_decode(const char *text, size_t *ret_size);
char *rpc_base64_encode(const void *data, size_t size);

#endif
