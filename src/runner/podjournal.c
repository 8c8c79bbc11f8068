#include "runner/podjournal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/message.h"
#include "runner/os.h"

#define FILE_MAX 134217728u    // All open requests, twice, the longest line, and all before it.
#define HEAD "= {\"session\":" // How each file begins.
#define MESSAGES_MAX 1000000u  // Bytes of messages in one answer.

// ------------------------------------------------------------------------------------------------
// Records
// ------------------------------------------------------------------------------------------------

void journal_state_clear(struct journal_state *state)
{
    json_decref(state->kept);
    json_decref(state->unanswered);
    json_decref(state->given);
    *state = (struct journal_state){.session = 0};
}

static void add_input(struct journal_state *state, uint64_t end)
{
    if (state->inputs_count == JOURNAL_INPUTS) {
        state->inputs_count--;
        memmove(state->inputs, state->inputs + 1, state->inputs_count * sizeof state->inputs[0]);
    }
    state->inputs[state->inputs_count++] = end;
}

bool journal_at_line(const struct journal_state *state, uint64_t input)
{
    bool at = input == 0;
    for (size_t i = 0; i < state->inputs_count; i++) {
        at = at || state->inputs[i] == input;
    }
    return at;
}

static void add_request(struct journal_state *state, json_t *json)
{
    if (message_kind_of(json) == MESSAGE_REQUEST) {
        state->unanswered = state->unanswered != NULL ? state->unanswered : json_array();
        (void)json_array_append(state->unanswered, json);
    }
}

// Most lines are not even looked into.
static void note_requests(struct journal_state *state, const char *line, size_t size)
{
    size_t i;
    json_t *json = NULL, *item;
    if (strstr(line, "\"method\"") != NULL && strstr(line, "\"id\"") != NULL) {
        (void)message_read(line, size, &json);
        add_request(state, json);
        json_array_foreach(json, i, item)
        {
            add_request(state, item);
        }
    }
    json_decref(json);
}

static bool has_id(const json_t *request, const char *id)
{
    char *text = json_dumps(json_object_get(request, "id"), JSON_ENCODE_ANY | JSON_COMPACT);
    bool has = text != NULL && strcmp(text, id) == 0;
    free(text);
    return has;
}

static void drop_request(json_t *list, const char *id)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (has_id(json_array_get(list, i), id)) {
            (void)json_array_remove(list, i);
            return;
        }
    }
}

static void add_given(struct journal_state *state, uint64_t end, const char *id)
{
    state->given = state->given != NULL ? state->given : json_array();
    (void)json_array_append_new(state->given, json_pack("[I, s]", (json_int_t)end, id));
}

static const char *given_id(const json_t *given)
{
    const char *id = json_string_value(json_array_get(given, 1));
    return id != NULL ? id : "";
}

static void drop_given(struct journal_state *state, const char *id)
{
    for (size_t i = 0; i < json_array_size(state->given); i++) {
        if (strcmp(given_id(json_array_get(state->given, i)), id) == 0) {
            (void)json_array_remove(state->given, i);
            return;
        }
    }
}

void journal_settle(struct journal_state *state, json_t *list, uint64_t input)
{
    size_t i;
    const json_t *given;
    json_array_foreach(state->given, i, given)
    {
        if ((uint64_t)json_integer_value(json_array_get(given, 0)) <= input) {
            drop_request(state->unanswered, given_id(given));
            drop_request(list, given_id(given));
        }
    }
    json_decref(state->given);
    state->given = NULL;
    bool at_line = journal_at_line(state, input);
    state->inputs_count = 0;
    if (at_line) {
        add_input(state, input);
    }
}

static json_t *head_json(const struct journal_state *state)
{
    json_t *inputs = json_array();
    for (size_t i = 0; i < state->inputs_count; i++) {
        (void)json_array_append_new(inputs, json_integer((json_int_t)state->inputs[i]));
    }
    json_t *json =
        json_pack("{s:I, s:I, s:I, s:o}", "session", (json_int_t)state->session, "out",
                  (json_int_t)state->out, "err", (json_int_t)state->err, "inputs", inputs);
    if (state->kept != NULL) {
        (void)json_object_set(json, "kept", state->kept);
    }
    if (state->unanswered != NULL) {
        (void)json_object_set(json, "unanswered", state->unanswered);
    }
    if (state->given != NULL) {
        (void)json_object_set(json, "given", state->given);
    }
    return json;
}

static bool read_head(struct journal_state *state, const char *text, size_t size)
{
    size_t i;
    const json_t *item;
    json_t *json = json_loadb(text, size, JSON_ALLOW_NUL, NULL);
    if (!json_is_object(json)) {
        json_decref(json);
        return false;
    }
    journal_state_clear(state);
    state->session = (uint64_t)json_integer_value(json_object_get(json, "session"));
    state->out = (uint64_t)json_integer_value(json_object_get(json, "out"));
    state->err = (uint64_t)json_integer_value(json_object_get(json, "err"));
    json_array_foreach(json_object_get(json, "inputs"), i, item)
    {
        add_input(state, (uint64_t)json_integer_value(item));
    }
    state->kept = json_incref(json_object_get(json, "kept"));
    state->unanswered = json_incref(json_object_get(json, "unanswered"));
    state->given = json_incref(json_object_get(json, "given"));
    json_decref(json);
    return true;
}

static bool read_record(struct journal_state *state, const char *text, size_t size)
{
    char *rest;
    json_t *json;
    if (size < 3 || text[1] != ' ') {
        return false;
    }
    if (text[0] == '=') {
        return read_head(state, text + 2, size - 2);
    }
    uint64_t number = strtoull(text + 2, &rest, 10);
    switch (text[0]) {
    case '<':
        if (*rest != ' ') {
            return false;
        }
        state->out = number;
        note_requests(state, rest + 1, size - (size_t)(rest + 1 - text));
        return true;
    case '-':
        state->out = number;
        return true;
    case '!':
        state->err = number;
        return true;
    case '>':
        add_input(state, number);
        if (*rest == ' ') {
            add_given(state, number, rest + 1);
        }
        return true;
    case '@':
        drop_request(state->unanswered, text + 2);
        drop_given(state, text + 2);
        return true;
    case '*':
        json = json_loadb(text + 2, size - 2, JSON_ALLOW_NUL, NULL);
        json_decref(state->kept);
        state->kept = json;
        return json != NULL;
    default:
        return false;
    }
}

size_t journal_read(const char *text, size_t size, struct journal_state *state)
{
    size_t at = 0;
    const char *end;
    while (at < size && (end = memchr(text + at, '\n', size - at)) != NULL) {
        size_t length = (size_t)(end - (text + at));
        char *record = malloc(length + 1); // Ended by a NUL.
        if (record == NULL) {
            return SIZE_MAX;
        }
        memcpy(record, text + at, length);
        record[length] = '\0';
        bool fine = (at > 0 || record[0] == '=') && read_record(state, record, length);
        free(record);
        if (!fine) {
            return at;
        }
        at += length + 1;
    }
    return at;
}

// ------------------------------------------------------------------------------------------------
// Files
// ------------------------------------------------------------------------------------------------

static void path_of(const char *folder, const char *name, char path[4096])
{
    (void)snprintf(path, 4096, "%.4000s/%s", folder, name);
}

static void unlink_file(const char *path)
{
    uv_fs_t request;
    (void)uv_fs_unlink(NULL, &request, path, NULL);
    uv_fs_req_cleanup(&request);
}

bool journal_exists(const char *folder)
{
    char path[4096];
    uv_fs_t request;
    path_of(folder, "journal", path);
    int result = uv_fs_stat(NULL, &request, path, NULL);
    uv_fs_req_cleanup(&request);
    return result == 0;
}

int journal_load(struct journal *journal, const char *folder)
{
    char *text = NULL;
    size_t size = 0, whole = 0;
    *journal = (struct journal){.file = -1};
    path_of(folder, "journal", journal->path);
    int result = os_read_file(journal->path, FILE_MAX, &text, &size);
    if (result != 0) {
        return result == UV_ENOENT ? JOURNAL_NONE : result;
    }
    whole = journal_read(text, size, &journal->state);
    result = whole == SIZE_MAX ? UV_ENOMEM
             // Only the last record may be in pieces.
             : memchr(text + whole, '\n', size - whole) != NULL ? JOURNAL_DAMAGED
             : whole > 0                                        ? JOURNAL_THERE
                                                                : JOURNAL_NONE;
    free(text);
    if (result < 0) {
        journal_state_clear(&journal->state);
    } else {
        journal->size = whole;
    }
    return result;
}

static void close_file(struct journal *journal)
{
    uv_fs_t request;
    if (journal->file >= 0) {
        (void)uv_fs_close(NULL, &request, journal->file, NULL);
        uv_fs_req_cleanup(&request);
        journal->file = -1;
    }
}

// The old file gets a second name, and the new one is whole before it takes the first: whoever is
// ended in between leaves `journal` there.
int journal_begin(struct journal *journal)
{
    char older[4100];
    json_t *json = head_json(&journal->state);
    char *head = json != NULL ? json_dumps(json, JSON_COMPACT) : NULL;
    size_t size = head != NULL ? strlen(head) : 0;
    char *record = head != NULL ? malloc(size + 8) : NULL;
    int result = UV_ENOMEM;
    json_decref(json);
    (void)snprintf(older, sizeof older, "%s.1", journal->path);
    if (record != NULL) {
        size = (size_t)snprintf(record, size + 8, "= %s\n", head);
        close_file(journal);
        uv_fs_t request;
        unlink_file(older);
        if (uv_fs_link(NULL, &request, journal->path, older, NULL) != 0) {
            (void)uv_fs_copyfile(NULL, &request, journal->path, older, 0, NULL);
        }
        uv_fs_req_cleanup(&request);
        result = os_write_file(journal->path, record, size);
        if (result == 0) {
            journal->size = journal->head = size;
        } else { // The old one goes on, under one name.
            unlink_file(older);
        }
    }
    free(record);
    free(head);
    if (result == 0) {
        journal->file = os_open_append(journal->path);
        result = journal->file < 0 ? journal->file : 0;
    }
    return result;
}

// Cuts off what is behind the last whole record. false: there is less.
static bool cut(const char *path, uint64_t size)
{
    uv_fs_t request;
    int file = uv_fs_open(NULL, &request, path, UV_FS_O_RDWR, 0, NULL);
    uv_fs_req_cleanup(&request);
    if (file < 0) {
        return file != UV_ENOENT;
    }
    bool has = uv_fs_fstat(NULL, &request, file, NULL) != 0 || request.statbuf.st_size >= size;
    uv_fs_req_cleanup(&request);
    if (has) {
        (void)uv_fs_ftruncate(NULL, &request, file, (int64_t)size, NULL);
        uv_fs_req_cleanup(&request);
    }
    (void)uv_fs_close(NULL, &request, file, NULL);
    uv_fs_req_cleanup(&request);
    return has;
}

static int open_again(struct journal *journal)
{
    char older[4100];
    if (!cut(journal->path, journal->size)) { // Somebody has removed it.
        return journal_begin(journal);
    }
    journal->file = os_open_append(journal->path);
    if (journal->file == UV_EACCES) { // A runner was ended while it began a new one.
        (void)snprintf(older, sizeof older, "%s.1", journal->path);
        unlink_file(older);
        journal->file = os_open_append(journal->path);
    }
    return journal->file < 0 ? journal->file : 0;
}

static int put(struct journal *journal, const char *head, const char *text, size_t size)
{
    uv_buf_t parts[3] = {uv_buf_init((char *)(uintptr_t)head, (unsigned)strlen(head)),
                         uv_buf_init((char *)(uintptr_t)text, (unsigned)size),
                         uv_buf_init((char *)(uintptr_t) "\n", 1)};
    size_t all = parts[0].len + size + 1;
    uv_fs_t request;
    int result = journal->size == 0                             ? UV_EBADF
                 : journal->size > JOURNAL_SIZE + journal->head ? journal_begin(journal)
                 : journal->file < 0                            ? open_again(journal)
                                                                : 0;
    if (result != 0) {
        return result;
    }
    result = uv_fs_write(NULL, &request, journal->file, parts, 3, -1, NULL);
    uv_fs_req_cleanup(&request);
    if (result != (int)all) { // No half record in front of the next one.
        close_file(journal);
        (void)cut(journal->path, journal->size);
        return result < 0 ? result : UV_ENOSPC;
    }
    journal->size += all;
    return 0;
}

int journal_resume(struct journal *journal)
{
    json_t *json = head_json(&journal->state);
    char *head = json != NULL ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    int result = head != NULL ? put(journal, "= ", head, strlen(head)) : UV_ENOMEM;
    free(head);
    return result;
}

void journal_close(struct journal *journal)
{
    close_file(journal);
    journal->size = 0;
    journal_state_clear(&journal->state);
}

void journal_end(struct journal *journal)
{
    char older[4100], ended[4100], ended_older[4100];
    size_t length = strlen(journal->path) - strlen("journal");
    uv_fs_t request;
    journal_close(journal);
    (void)snprintf(older, sizeof older, "%s.1", journal->path);
    (void)snprintf(ended, sizeof ended, "%.*sended", (int)length, journal->path);
    (void)snprintf(ended_older, sizeof ended_older, "%.*sended.1", (int)length, journal->path);
    int result = uv_fs_rename(NULL, &request, journal->path, ended, NULL);
    uv_fs_req_cleanup(&request);
    if (result == 0) {
        unlink_file(ended_older);
        (void)uv_fs_rename(NULL, &request, older, ended_older, NULL);
        uv_fs_req_cleanup(&request);
    }
    unlink_file(journal->path);
    unlink_file(older);
}

static int put_number(struct journal *journal, char kind, uint64_t number)
{
    char head[32];
    (void)snprintf(head, sizeof head, "%c %" PRIu64, kind, number);
    return put(journal, head, "", 0);
}

int journal_line(struct journal *journal, const char *line, size_t size, uint64_t end)
{
    char head[32];
    (void)snprintf(head, sizeof head, "< %" PRIu64 " ", end);
    int result = put(journal, head, line, size);
    if (result == 0) {
        journal->state.out = end;
        note_requests(&journal->state, line, size);
    }
    return result;
}

int journal_drop(struct journal *journal, uint64_t end)
{
    int result = put_number(journal, '-', end);
    journal->state.out = result == 0 ? end : journal->state.out;
    return result;
}

int journal_said(struct journal *journal, uint64_t offset)
{
    journal->state.err = offset; // It is in the log already.
    return put_number(journal, '!', offset);
}

int journal_input(struct journal *journal, uint64_t end, const char *id)
{
    char head[32];
    (void)snprintf(head, sizeof head, "> %" PRIu64 "%s", end, id != NULL ? " " : "");
    int result = put(journal, head, id != NULL ? id : "", id != NULL ? strlen(id) : 0);
    if (result == 0) {
        add_input(&journal->state, end);
        if (id != NULL) {
            add_given(&journal->state, end, id);
        }
    }
    return result;
}

int journal_answered(struct journal *journal, const char *id)
{
    drop_request(journal->state.unanswered, id);
    drop_given(&journal->state, id);
    return put(journal, "@ ", id, strlen(id));
}

int journal_keep(struct journal *journal, json_t *state)
{
    char *text = json_dumps(state, JSON_COMPACT);
    json_decref(journal->state.kept);
    journal->state.kept = state;
    int result = text != NULL ? put(journal, "* ", text, strlen(text)) : UV_ENOMEM;
    free(text);
    return result;
}

// ------------------------------------------------------------------------------------------------
// What was said
// ------------------------------------------------------------------------------------------------

struct collect {
    json_t *list;
    uint64_t after;
    size_t bytes;
    bool more;
};

static void collect_line(struct collect *collect, const char *text, size_t size)
{
    char *rest;
    json_t *json = NULL;
    uint64_t end = size > 2 && text[0] == '<' ? strtoull(text + 2, &rest, 10) : 0;
    if (end <= collect->after || collect->more) {
        return;
    }
    if (collect->bytes > 0 && collect->bytes + size > MESSAGES_MAX) {
        collect->more = true;
        return;
    }
    const char *line = rest + 1;
    if (message_read(line, size - (size_t)(line - text), &json) != MESSAGE_NONE && json != NULL) {
        (void)json_array_append_new(collect->list, json_pack("{s:I, s:O}", "offset",
                                                             (json_int_t)end, "message", json));
    }
    json_decref(json);
    collect->after = end;
    collect->bytes += size;
}

static void collect_file(struct collect *collect, const char *path)
{
    char *text = NULL, *end;
    size_t size = 0;
    if (os_read_file(path, FILE_MAX, &text, &size) == 0) {
        for (char *at = text; (end = memchr(at, '\n', size - (size_t)(at - text))) != NULL;
             at = end + 1) {
            *end = '\0';
            collect_line(collect, at, (size_t)(end - at));
        }
    }
    free(text);
}

// Which agent a file is of. 0: there is none.
static uint64_t agent_of(const char *path)
{
    char text[64] = "";
    uint64_t agent = 0;
    uv_fs_t request;
    uv_buf_t buffer = uv_buf_init(text, sizeof text - 1);
    int file = uv_fs_open(NULL, &request, path, UV_FS_O_RDONLY, 0, NULL);
    uv_fs_req_cleanup(&request);
    if (file >= 0) {
        (void)uv_fs_read(NULL, &request, file, &buffer, 1, 0, NULL);
        uv_fs_req_cleanup(&request);
        (void)uv_fs_close(NULL, &request, file, NULL);
        uv_fs_req_cleanup(&request);
        if (strncmp(text, HEAD, strlen(HEAD)) == 0) {
            agent = strtoull(text + strlen(HEAD), NULL, 10);
        }
    }
    return agent;
}

json_t *journal_messages(const char *folder, uint64_t agent, uint64_t after)
{
    char path[4096], older[4096];
    struct collect collect = {.list = json_array(), .after = after};
    path_of(folder, "journal", path);
    path_of(folder, "journal.1", older);
    uint64_t there = agent_of(path);
    if (there == 0 || (agent != 0 && agent != there)) {
        path_of(folder, "ended", path);
        path_of(folder, "ended.1", older);
        there = agent_of(path);
    }
    if (agent == 0 || agent == there) {
        collect_file(&collect, older);
        collect_file(&collect, path);
    }
    return json_pack("{s:o, s:I, s:b, s:I}", "messages", collect.list, "next",
                     (json_int_t)collect.after, "more", collect.more, "agent",
                     (json_int_t)(agent != 0 ? agent : there));
}
