#include "runner/message.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

json_t *message_fault(const json_t *json)
{
    json_t *fault = json_object_get(json, "error");
    return json_is_null(fault) ? NULL : fault;
}

static bool is_blank(const char *line, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r') {
            return false;
        }
    }
    return true;
}

enum message_kind message_kind_of(const json_t *json)
{
    const json_t *id = json_object_get(json, "id");
    const json_t *method = json_object_get(json, "method");
    if (!json_is_object(json)) {
        return MESSAGE_NONE;
    }
    if (method != NULL) {
        return !json_is_string(method) ? MESSAGE_NONE
               : id == NULL            ? MESSAGE_NOTIFICATION
                                       : MESSAGE_REQUEST;
    }
    return id != NULL && (json_object_get(json, "result") != NULL ||
                          json_object_get(json, "error") != NULL)
               ? MESSAGE_ANSWER
               : MESSAGE_NONE;
}

// An integer that does not fit into 64 bits becomes a real, and no other number does. NULL: no
// memory.
static char *mend_integers(const char *line, size_t size, size_t *ret_size)
{
    bool text = false;
    size_t at = 0;
    char *mended = malloc(size + size / 9 + 3); // One of 19 digits or more gets two characters.
    for (size_t i = 0; mended != NULL && i < size;) {
        size_t digits = 0, length = 1;
        if (text && line[i] == '\\' && i + 1 < size) {
            length = 2;
        } else if (line[i] == '"') {
            text = !text;
        } else if (!text && line[i] >= '0' && line[i] <= '9') {
            digits = strspn(line + i, "0123456789");
            length = digits + strcspn(line + i + digits, ",]} \t\r");
        }
        length = length < size - i ? length : size - i;
        memcpy(mended + at, line + i, length);
        at += length;
        errno = 0;
        if (digits >= 19 && digits == length) {
            (void)strtoll(line + i - (i > 0 && line[i - 1] == '-' ? 1 : 0), NULL, 10);
        }
        if (errno == ERANGE) {
            mended[at++] = '.';
            mended[at++] = '0';
        }
        i += length;
    }
    *ret_size = at;
    return mended;
}

enum message_kind message_read(const char *line, size_t size, json_t **ret_json)
{
    json_error_t problem = {0}; // Want of memory sets none.
    *ret_json = NULL;
    if (is_blank(line, size)) {
        return MESSAGE_BLANK;
    }
    json_t *json = json_loadb(line, size, JSON_ALLOW_NUL, &problem);
    if (json == NULL && json_error_code(&problem) == json_error_numeric_overflow) {
        char *mended = mend_integers(line, size, &size);
        json = mended != NULL ? json_loadb(mended, size, JSON_ALLOW_NUL, &problem) : NULL;
        free(mended);
    }
    *ret_json = json;
    return json_is_array(json) ? MESSAGE_BATCH : message_kind_of(json);
}

void message_id(char id[MESSAGE_ID_MAX], const char *run, uint64_t number)
{
    (void)snprintf(id, MESSAGE_ID_MAX, "%.*s-%" PRIu64, MESSAGE_RUN, run, number);
}

bool message_id_read(const json_t *id, const char *run, bool *ret_ours)
{
    const char *text = json_string_value(id);
    char again[MESSAGE_ID_MAX];
    if (text == NULL || strspn(text, "0123456789abcdef") != MESSAGE_RUN ||
        text[MESSAGE_RUN] != '-') {
        return false;
    }
    message_id(again, text, strtoull(text + MESSAGE_RUN + 1, NULL, 10));
    if (strcmp(again, text) != 0) {
        return false;
    }
    *ret_ours = strncmp(text, run, MESSAGE_RUN) == 0;
    return true;
}

static json_t *message(const char *name, json_t *value)
{
    json_t *json = json_pack("{s:s}", "jsonrpc", "2.0");
    if (json == NULL || value == NULL || json_object_set(json, name, value) != 0) {
        json_decref(json);
        json = NULL;
    }
    json_decref(value);
    return json;
}

// Steals both.
static json_t *with(json_t *json, const char *name, json_t *value)
{
    if (json == NULL || value == NULL || json_object_set(json, name, value) != 0) {
        json_decref(json);
        json = NULL;
    }
    json_decref(value);
    return json;
}

json_t *message_notification(const char *method, json_t *params)
{
    json_t *json = message("method", json_string(method));
    return params != NULL ? with(json, "params", params) : json;
}

json_t *message_request(const char *id, const char *method, json_t *params)
{
    json_t *json = with(message("id", json_string(id)), "method", json_string(method));
    return params != NULL ? with(json, "params", params) : json;
}

static json_t *answer(const json_t *id, const char *name, json_t *value)
{
    return with(message("id", id != NULL ? json_deep_copy(id) : json_null()), name, value);
}

json_t *message_result(const json_t *id, json_t *result)
{
    return answer(id, "result", result);
}

json_t *message_error(const json_t *id, int code, const char *text)
{
    return answer(id, "error", json_pack("{s:i, s:s}", "code", code, "message", text));
}
