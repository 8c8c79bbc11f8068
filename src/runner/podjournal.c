#include "runner/podjournal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/message.h"
#include "runner/os.h"

#define FILE_MAX (2u * 16777216u) // A record of the longest line, and all before it.
#define MESSAGES_MAX 1000000u     // Bytes of messages in one answer.

// ------------------------------------------------------------------------------------------------
// Records
// ------------------------------------------------------------------------------------------------

void journal_state_clear(struct journal_state *state)
{
    json_decref(state->kept);
    json_decref(state->unanswered);
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

// Most lines are not even looked into.
static void note_request(struct journal_state *state, const char *line, size_t size)
{
    json_t *json = NULL;
    if (strstr(line, "\"method\"") != NULL && strstr(line, "\"id\"") != NULL &&
        message_read(line, size, &json) == MESSAGE_REQUEST) {
        if (state->unanswered == NULL) {
            state->unanswered = json_array();
        }
        (void)json_array_append(state->unanswered, json);
    }
    json_decref(json);
}

static void drop_request(struct journal_state *state, const char *id)
{
    for (size_t i = json_array_size(state->unanswered); i-- > 0;) {
        const json_t *request = json_array_get(state->unanswered, i);
        char *text = json_dumps(json_object_get(request, "id"), JSON_ENCODE_ANY | JSON_COMPACT);
        if (text != NULL && strcmp(text, id) == 0) {
            (void)json_array_remove(state->unanswered, i);
        }
        free(text);
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
        note_request(state, rest + 1, size - (size_t)(rest + 1 - text));
        return true;
    case '-':
        state->out = number;
        return true;
    case '!':
        state->err = number;
        return true;
    case '>':
        add_input(state, number);
        return true;
    case '@':
        drop_request(state, text + 2);
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
            return at;
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

static void path_of(const char *folder, const char *more, char path[4096])
{
    (void)snprintf(path, 4096, "%.4000s/journal%s", folder, more);
}

bool journal_load(struct journal *journal, const char *folder)
{
    char *text = NULL;
    size_t size = 0, whole = 0;
    *journal = (struct journal){.file = -1};
    path_of(folder, "", journal->path);
    if (os_read_file(journal->path, FILE_MAX, &text, &size) == 0) {
        whole = journal_read(text, size, &journal->state);
        // Only the last record may be in pieces.
        if (memchr(text + whole, '\n', size - whole) != NULL) {
            whole = 0;
        }
    }
    free(text);
    journal->size = whole;
    return whole > 0;
}

static void cut(const char *path, uint64_t size)
{
    uv_fs_t request;
    int file = uv_fs_open(NULL, &request, path, UV_FS_O_RDWR, 0, NULL);
    uv_fs_req_cleanup(&request);
    if (file >= 0) {
        (void)uv_fs_ftruncate(NULL, &request, file, (int64_t)size, NULL);
        uv_fs_req_cleanup(&request);
        (void)uv_fs_close(NULL, &request, file, NULL);
        uv_fs_req_cleanup(&request);
    }
}

static int put(struct journal *journal, const char *head, const char *text, size_t size)
{
    uv_buf_t parts[3] = {uv_buf_init((char *)(uintptr_t)head, (unsigned)strlen(head)),
                         uv_buf_init((char *)(uintptr_t)text, (unsigned)size),
                         uv_buf_init((char *)(uintptr_t) "\n", 1)};
    size_t all = parts[0].len + size + 1;
    uv_fs_t request;
    if (journal->file < 0) {
        journal->failed = true;
        return UV_EBADF;
    }
    int result = uv_fs_write(NULL, &request, journal->file, parts, 3, -1, NULL);
    uv_fs_req_cleanup(&request);
    if (result != (int)all) {
        cut(journal->path, journal->size); // Nothing may stand behind a record in pieces.
        journal->failed = true;
        return result < 0 ? result : UV_ENOSPC;
    }
    journal->size += all;
    journal->failed = false;
    return 0;
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
        (void)uv_fs_unlink(NULL, &request, older, NULL);
        uv_fs_req_cleanup(&request);
        if (uv_fs_link(NULL, &request, journal->path, older, NULL) != 0) {
            (void)uv_fs_copyfile(NULL, &request, journal->path, older, 0, NULL);
        }
        uv_fs_req_cleanup(&request);
        result = os_write_file(journal->path, record, size);
        journal->size = size;
    }
    free(record);
    free(head);
    if (result == 0) {
        journal->file = os_open_append(journal->path);
        result = journal->file < 0 ? journal->file : 0;
    }
    journal->failed = result != 0;
    return result;
}

int journal_resume(struct journal *journal)
{
    json_t *json = head_json(&journal->state);
    char *head = json != NULL ? json_dumps(json, JSON_COMPACT) : NULL;
    json_decref(json);
    if (journal->file < 0) {
        cut(journal->path, journal->size);
        journal->file = os_open_append(journal->path);
    }
    int result = head != NULL ? put(journal, "= ", head, strlen(head)) : UV_ENOMEM;
    free(head);
    return result;
}

void journal_close(struct journal *journal)
{
    close_file(journal);
    journal_state_clear(&journal->state);
}

void journal_remove(struct journal *journal)
{
    char older[4100];
    uv_fs_t request;
    close_file(journal);
    (void)snprintf(older, sizeof older, "%s.1", journal->path);
    (void)uv_fs_unlink(NULL, &request, journal->path, NULL);
    uv_fs_req_cleanup(&request);
    (void)uv_fs_unlink(NULL, &request, older, NULL);
    uv_fs_req_cleanup(&request);
    journal_state_clear(&journal->state);
}

// A new file when this one is full, or when there is none: the disk was full.
static void make_room(struct journal *journal)
{
    if (journal->size > JOURNAL_SIZE || journal->file < 0) {
        (void)journal_begin(journal);
    }
}

static void put_number(struct journal *journal, char kind, uint64_t number)
{
    char head[32];
    (void)snprintf(head, sizeof head, "%c %" PRIu64, kind, number);
    (void)put(journal, head, "", 0);
}

void journal_line(struct journal *journal, const char *line, size_t size, uint64_t end)
{
    char head[32];
    make_room(journal);
    journal->state.out = end;
    note_request(&journal->state, line, size);
    (void)snprintf(head, sizeof head, "< %" PRIu64 " ", end);
    (void)put(journal, head, line, size);
}

void journal_drop(struct journal *journal, uint64_t end)
{
    journal->state.out = end;
    put_number(journal, '-', end);
}

void journal_said(struct journal *journal, uint64_t offset)
{
    make_room(journal);
    journal->state.err = offset;
    put_number(journal, '!', offset);
}

void journal_input(struct journal *journal, uint64_t end)
{
    add_input(&journal->state, end);
    put_number(journal, '>', end);
}

void journal_answered(struct journal *journal, const char *id)
{
    drop_request(&journal->state, id);
    (void)put(journal, "@ ", id, strlen(id));
}

void journal_keep(struct journal *journal, json_t *state)
{
    char *text = json_dumps(state, JSON_COMPACT);
    json_decref(journal->state.kept);
    journal->state.kept = state;
    if (text != NULL) {
        (void)put(journal, "* ", text, strlen(text));
    }
    free(text);
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

json_t *journal_messages(const char *folder, uint64_t after)
{
    char path[4096];
    struct collect collect = {.list = json_array(), .after = after};
    path_of(folder, ".1", path);
    collect_file(&collect, path);
    path_of(folder, "", path);
    collect_file(&collect, path);
    return json_pack("{s:o, s:I, s:b}", "messages", collect.list, "next", (json_int_t)collect.after,
                     "more", collect.more);
}
