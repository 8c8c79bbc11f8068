#include "runner/rpc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/text.h"

// ------------------------------------------------------------------------------------------------
// Requests
// ------------------------------------------------------------------------------------------------

static bool valid_request_id(const json_t *id)
{
    return id == NULL || json_is_string(id) || json_is_integer(id) || json_is_null(id);
}

static int refuse(json_t *message, const json_t *id, int code, const char *text, json_t **ret_reply)
{
    *ret_reply = rpc_fault(valid_request_id(id) ? id : NULL, code, text);
    json_decref(message);
    return -1;
}

int rpc_parse(const char *line, size_t size, struct rpc_request *ret_request, json_t **ret_reply)
{
    json_error_t problem;
    json_t *message = json_loadb(line, size, JSON_REJECT_DUPLICATES, &problem);
    if (message == NULL) {
        char text[256];
        (void)snprintf(text, sizeof text, "no JSON: %s", problem.text);
        return refuse(NULL, NULL, RPC_PARSE_ERROR, text, ret_reply);
    }
    json_t *id = json_object_get(message, "id");
    const char *version = json_string_value(json_object_get(message, "jsonrpc"));
    const char *method = json_string_value(json_object_get(message, "method"));
    json_t *params = json_object_get(message, "params");
    if (!json_is_object(message)) {
        return refuse(message, NULL, RPC_INVALID_REQUEST,
                      "one JSON object a line; lists of requests are not taken", ret_reply);
    }
    if (version == NULL || strcmp(version, "2.0") != 0 || method == NULL || !valid_request_id(id)) {
        return refuse(message, id, RPC_INVALID_REQUEST,
                      "wanted: {\"jsonrpc\":\"2.0\",\"id\":...,\"method\":\"...\",\"params\":{}}",
                      ret_reply);
    }
    if (params != NULL && !json_is_object(params)) {
        return refuse(message, id, RPC_INVALID_PARAMS, "parameters are given by name", ret_reply);
    }
    if (params == NULL) {
        params = json_object();
        if (json_object_set_new(message, "params", params) != 0) {
            return refuse(message, id, RPC_RUNNER - RUNNER_FAILED, "out of memory", ret_reply);
        }
    }
    *ret_request = (struct rpc_request){id, method, params, message};
    return 0;
}

void rpc_request_clear(struct rpc_request *request)
{
    json_decref(request->memory);
    *request = (struct rpc_request){.id = NULL};
}

// ------------------------------------------------------------------------------------------------
// Messages
// ------------------------------------------------------------------------------------------------

size_t rpc_line_max(const char *method)
{
    return strncmp(method, "service.", strlen("service.")) == 0 ? RUNNER_CALL_MAX : RUNNER_LINE_MAX;
}

json_t *rpc_call(int id, const char *method, json_t *params)
{
    return json_pack("{s:s, s:i, s:s, s:o*}", "jsonrpc", "2.0", "id", id, "method", method,
                     "params", params);
}

static json_t *reply(const json_t *id, const char *name, json_t *value)
{
    json_t *message = json_pack("{s:s}", "jsonrpc", "2.0");
    json_t *copy = id != NULL ? json_copy((json_t *)id) : json_null();
    if (message == NULL || json_object_set_new(message, "id", copy) != 0 ||
        json_object_set(message, name, value) != 0) {
        json_decref(message);
        message = NULL;
    }
    json_decref(value);
    return message;
}

json_t *rpc_result(const json_t *id, json_t *result)
{
    return reply(id, "result", result);
}

json_t *rpc_fault(const json_t *id, int code, const char *text)
{
    return reply(id, "error", json_pack("{s:i, s:o}", "code", code, "message", text_json(text)));
}

json_t *rpc_error(const json_t *id, const struct runner_error *error)
{
    char text[sizeof error->what + sizeof error->why + 2];
    (void)snprintf(text, sizeof text, "%s%s%s", error->what, error->why[0] != '\0' ? ": " : "",
                   error->why);
    int code = error->code == RUNNER_USAGE ? RPC_INVALID_PARAMS : RPC_RUNNER - error->code;
    json_t *value =
        json_pack("{s:i, s:o, s:{s:s, s:o, s:o, s:o}}", "code", code, "message", text_json(text),
                  "data", "name", runner_code_name(error->code), "what", text_json(error->what),
                  "why", text_json(error->why), "next", text_json(error->next));
    if (value != NULL && error->bytes >= 0) {
        (void)json_object_set_new(json_object_get(value, "data"), "bytes",
                                  json_integer((json_int_t)error->bytes));
    }
    return value != NULL ? reply(id, "error", value)
                         : rpc_fault(id, code, runner_code_name(error->code));
}

json_t *rpc_notification(const char *method, json_t *params)
{
    return json_pack("{s:s, s:s, s:o}", "jsonrpc", "2.0", "method", method, "params", params);
}

char *rpc_line(json_t *message, size_t *ret_size)
{
    char *text = NULL;
    size_t size = message != NULL ? json_dumpb(message, NULL, 0, JSON_COMPACT) : 0;
    if (size > 0) {
        text = malloc(size + 2);
    }
    if (text != NULL) {
        size = json_dumpb(message, text, size, JSON_COMPACT);
        text[size] = '\n';
        text[size + 1] = '\0';
        *ret_size = size + 1;
    }
    json_decref(message);
    return text;
}

// ------------------------------------------------------------------------------------------------
// Answers
// ------------------------------------------------------------------------------------------------

static void copy_text(const json_t *object, const char *name, char *field, size_t capacity)
{
    const char *text = json_string_value(json_object_get(object, name));
    (void)snprintf(field, capacity, "%s", text != NULL ? text : "");
}

static int take_error(const json_t *value, struct runner_error *error)
{
    json_int_t code = json_integer_value(json_object_get(value, "code"));
    const json_t *data = json_object_get(value, "data");
    const json_t *bytes = json_object_get(data, "bytes");
    error->code = RUNNER_FAILED;
    error->bytes = json_is_integer(bytes) ? json_integer_value(bytes) : -1;
    if (code < RPC_RUNNER && code > RPC_RUNNER - 32) {
        error->code = (int)(RPC_RUNNER - code);
    } else if (code == RPC_INVALID_PARAMS) {
        error->code = RUNNER_USAGE;
    }
    copy_text(data, "what", error->what, sizeof error->what);
    copy_text(data, "why", error->why, sizeof error->why);
    copy_text(data, "next", error->next, sizeof error->next);
    if (error->what[0] == '\0') {
        copy_text(value, "message", error->what, sizeof error->what);
    }
    return error->code;
}

int rpc_take_reply(const char *line, size_t size, int id, json_t **ret_result,
                   struct runner_error *error)
{
    json_t *message = json_loadb(line, size, JSON_REJECT_DUPLICATES, NULL);
    json_t *result = json_object_get(message, "result");
    json_t *failure = json_object_get(message, "error");
    json_t *got = json_object_get(message, "id");
    int code = RUNNER_OK;
    if (failure != NULL) {
        code = take_error(failure, error);
    } else if (result == NULL || !json_is_integer(got) || json_integer_value(got) != id) {
        code = runner_fail(error, RUNNER_FAILED,
                           "call of the runner\nit answered something that is no answer\n"
                           "runner info");
    } else {
        *ret_result = json_incref(result);
    }
    json_decref(message);
    return code;
}

enum rpc_said rpc_said(const char *line, size_t size)
{
    json_t *message = json_loadb(line, size, 0, NULL);
    const json_t *code = json_object_get(json_object_get(message, "error"), "code");
    bool notifies = json_object_get(message, "method") != NULL;
    bool leaves = json_is_null(json_object_get(message, "id")) &&
                  json_integer_value(code) == RPC_RUNNER - RUNNER_REFUSED;
    json_decref(message);
    return notifies ? RPC_NOTIFICATION : leaves ? RPC_FAREWELL : RPC_REPLY;
}

// ------------------------------------------------------------------------------------------------
// Parameters
// ------------------------------------------------------------------------------------------------

static const char *const type_names[] = {
    [RPC_STRING] = "a string",
    [RPC_NUMBER] = "a whole number",
    [RPC_BOOLEAN] = "true or false",
    [RPC_STRINGS] = "a list of strings",
    [RPC_OBJECT] = "an object of strings",
    [RPC_ANY] = "anything",
};

static bool all_strings(const json_t *value)
{
    size_t i;
    const char *key;
    json_t *item;
    if (json_is_array(value)) {
        json_array_foreach(value, i, item)
        {
            if (!json_is_string(item)) {
                return false;
            }
        }
        return true;
    }
    json_object_foreach((json_t *)value, key, item)
    {
        if (!json_is_string(item)) {
            return false;
        }
    }
    return true;
}

static bool has_type(const json_t *value, enum rpc_type type)
{
    switch (type) {
    case RPC_STRING:
        return json_is_string(value);
    case RPC_NUMBER:
        return json_is_integer(value);
    case RPC_BOOLEAN:
        return json_is_boolean(value);
    case RPC_STRINGS:
        return json_is_array(value) && all_strings(value);
    case RPC_OBJECT:
        return json_is_object(value) && all_strings(value);
    case RPC_ANY:
        return true;
    }
    return false;
}

static bool in_range(const json_t *value, const struct rpc_field *field)
{
    if (field->type == RPC_NUMBER) {
        json_int_t number = json_integer_value(value);
        return number >= field->low && number <= field->high;
    }
    if (field->type == RPC_STRING && field->high > 0) {
        return json_string_length(value) <= (size_t)field->high;
    }
    return true;
}

static int check_field(const json_t *params, const struct rpc_field *field,
                       struct runner_error *error)
{
    const json_t *value = json_object_get(params, field->name);
    if (value == NULL) {
        return field->required
                   ? runner_fail(error, RUNNER_USAGE,
                                 "parameter '%s'\nit is missing\nsee docs/control.md", field->name)
                   : RUNNER_OK;
    }
    if (!has_type(value, field->type)) {
        return runner_fail(error, RUNNER_USAGE,
                           "parameter '%s'\nit has to be %s\nsee docs/control.md", field->name,
                           type_names[field->type]);
    }
    if (!in_range(value, field)) {
        return runner_fail(error, RUNNER_USAGE,
                           "parameter '%s'\nout of range: %s is from %lld to %lld\n"
                           "see docs/control.md",
                           field->name, field->type == RPC_NUMBER ? "it" : "its length",
                           (long long)field->low, (long long)field->high);
    }
    return RUNNER_OK;
}

int rpc_check(const json_t *params, const struct rpc_field *fields, size_t count,
              struct runner_error *error)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)params, name, value)
    {
        size_t i = 0;
        while (i < count && strcmp(fields[i].name, name) != 0) {
            i++;
        }
        if (i == count) {
            return runner_fail(error, RUNNER_USAGE,
                               "parameter '%s'\nthe method has none of this name\n"
                               "see docs/control.md",
                               name);
        }
    }
    for (size_t i = 0; i < count; i++) {
        int code = check_field(params, &fields[i], error);
        if (code != RUNNER_OK) {
            return code;
        }
    }
    return RUNNER_OK;
}

bool rpc_valid_id(const char *id)
{
    size_t length = strlen(id);
    if (length == 0 || length > RUNNER_ID_MAX || id[0] == '-') {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        if ((unsigned char)id[i] < 0x20 || id[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

// ------------------------------------------------------------------------------------------------
// Base64 (RFC 4648, section 4)
// ------------------------------------------------------------------------------------------------

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

unsigned char *rpc_base64_decode(const char *text, size_t *ret_size)
{
    size_t length = strlen(text), size = 0;
    uint32_t bits = 0;
    if (length % 4 != 0) {
        return NULL;
    }
    unsigned char *data = malloc(length / 4 * 3 + 1);
    for (size_t i = 0; data != NULL && i < length; i++) {
        const char *digit = strchr(digits, text[i]);
        bool padding =
            text[i] == '=' && (i == length - 1 || (i == length - 2 && text[i + 1] == '='));
        if (digit == NULL && !padding) {
            free(data);
            return NULL;
        }
        bits = bits << 6 | (padding ? 0 : (uint32_t)(digit - digits));
        if (i % 4 == 3) {
            data[size++] = (unsigned char)(bits >> 16);
            data[size++] = (unsigned char)(bits >> 8);
            data[size++] = (unsigned char)bits;
            bits = 0;
        }
    }
    if (data != NULL && length > 0) {
        size -= (size_t)(text[length - 1] == '=') + (size_t)(text[length - 2] == '=');
    }
    *ret_size = size;
    return data;
}

char *rpc_base64_encode(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    char *text = malloc((size + 2) / 3 * 4 + 1);
    size_t at = 0;
    for (size_t i = 0; text != NULL && i < size; i += 3) {
        size_t have = size - i < 3 ? size - i : 3;
        uint32_t bits = (uint32_t)bytes[i] << 16;
        bits |= have > 1 ? (uint32_t)bytes[i + 1] << 8 : 0;
        bits |= have > 2 ? (uint32_t)bytes[i + 2] : 0;
        text[at++] = digits[bits >> 18];
        text[at++] = digits[bits >> 12 & 63];
        text[at++] = have > 1 ? digits[bits >> 6 & 63] : '=';
        text[at++] = have > 2 ? digits[bits & 63] : '=';
    }
    if (text != NULL) {
        text[at] = '\0';
    }
    return text;
}
