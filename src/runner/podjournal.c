#include "runner/podjournal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/memory.h"
#include "runner/message.h"
#include "runner/os.h"

#define BLOCK 65536u
#define RECORD_MAX 134217728u  // All that waits, as JSON in JSON, and all open requests.
#define HEAD "= {\"session\":" // How each file begins.
#define MESSAGES_MAX 1000000u  // Bytes of messages in one answer.

// ------------------------------------------------------------------------------------------------
// Records
// ------------------------------------------------------------------------------------------------

static void free_input(struct journal_input *input)
{
    free(input->text);
    free(input->answers);
    free(input);
}

static void drop_first(struct journal_state *state)
{
    struct journal_input *input = state->queue;
    state->queue = input->next;
    state->last = input->next != NULL ? state->last : NULL;
    state->silent = input == state->silent ? input->next : state->silent;
    state->queued -= input->size;
    free_input(input);
}

void journal_state_clear(struct journal_state *state)
{
    json_decref(state->kept);
    json_decref(state->unanswered);
    while (state->queue != NULL) {
        drop_first(state);
    }
    *state = (struct journal_state){.session = 0};
}

struct journal_input *journal_queue(struct journal_state *state, char *text, size_t size,
                                    const char *answers)
{
    struct journal_input *input = calloc(1, sizeof *input);
    if (input != NULL && answers != NULL) {
        input->answers = strdup(answers);
    }
    if (input == NULL || text == NULL || (answers != NULL && input->answers == NULL)) {
        if (input != NULL) {
            free_input(input);
        }
        free(text);
        return NULL;
    }
    input->text = text;
    input->size = size;
    if (state->last != NULL) {
        state->last->next = input;
    } else {
        state->queue = input;
    }
    state->last = input;
    state->silent = state->silent != NULL ? state->silent : input;
    state->queued += size;
    return input;
}

// The first that was not.
static void set_noted(struct journal_state *state)
{
    state->silent->noted = true;
    state->silent = state->silent->next;
}

bool journal_at_line(const struct journal_state *state, uint64_t input)
{
    bool at = input == state->line;
    for (const struct journal_input *i = state->queue; i != NULL && i->end != 0; i = i->next) {
        at = at || i->end == input;
    }
    return at;
}

// Of what the pod has.
static bool drop_had(struct journal_state *state, uint64_t input)
{
    uint64_t before = state->line;
    while (state->queue != NULL && state->queue->end != 0 && state->queue->end <= input) {
        state->line = state->queue->end;
        drop_first(state);
    }
    return state->line != before;
}

static bool is_line_end(const struct journal_input *input)
{
    return input->size == 1;
}

bool journal_give_again(struct journal_state *state, uint64_t input)
{
    struct journal_input **at = &state->queue, *first = NULL, *last = NULL;
    bool half = !journal_at_line(state, input);
    (void)drop_had(state, input);
    if (half) {
        first = calloc(1, sizeof *first);
        if (first == NULL || (first->text = strdup("\n")) == NULL) {
            free(first);
            return false;
        }
        first->size = 1;
        first->noted = true; // By the record of the state that has to follow.
    } else {
        state->line = input;
    }
    while (*at != NULL) {
        struct journal_input *again = *at;
        again->sent = 0;
        again->end = 0;
        if (is_line_end(again)) { // Of another half.
            *at = again->next;
            state->queued -= again->size;
            free_input(again);
        } else {
            at = &again->next;
            last = again;
        }
    }
    if (first != NULL) {
        first->next = state->queue;
        state->queue = first;
        state->queued++;
    }
    state->last = last != NULL ? last : first;
    return true;
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

static void drop_request(json_t *list, const char *id) // "": none.
{
    if (id[0] == '\0') {
        return;
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (has_id(json_array_get(list, i), id)) {
            (void)json_array_remove(list, i);
            return;
        }
    }
}

// As in `+ N ID LINE`, without the end of the line. It answers the request. Here and below: 0,
// UV_EINVAL, or UV_ENOMEM, which says nothing about what stands there.
static int read_input(struct journal_state *state, const char *text, size_t size)
{
    char *rest;
    uint64_t length = strtoull(text, &rest, 10);
    if (*rest != ' ' || length > (size_t)(text + size - (rest + 1))) {
        return UV_EINVAL;
    }
    const char *at = rest + 1 + length;
    size_t left = (size_t)(text + size - at);
    char *id = malloc((size_t)length + 1), *line = malloc(left + 2);
    if (id != NULL && line != NULL) {
        memcpy(id, rest + 1, (size_t)length);
        id[length] = '\0';
        memcpy(line, at, left);
        memcpy(line + left, "\n", 2);
        drop_request(state->unanswered, id);
    }
    struct journal_input *input = id != NULL ? journal_queue(state, line, left + 1, NULL) : NULL;
    if (id == NULL) {
        free(line);
    }
    free(id);
    if (input == NULL) {
        return UV_ENOMEM;
    }
    set_noted(state);
    return 0;
}

static void set_end(struct journal_state *state, uint64_t end)
{
    struct journal_input *input = state->queue;
    while (input != NULL && input->end != 0) {
        input = input->next;
    }
    if (input != NULL) {
        input->end = end;
    }
}

// What of the queue stands in the journal.
static json_t *queue_json(const struct journal_state *state)
{
    json_t *list = json_array();
    for (const struct journal_input *i = state->queue; i != NULL; i = i->next) {
        if (i->noted) {
            (void)json_array_append_new(list,
                                        json_pack("[I, s%]", (json_int_t)i->end, i->text, i->size));
        }
    }
    return list;
}

static json_t *head_json(const struct journal_state *state)
{
    json_t *json = json_pack("{s:I, s:I, s:I, s:I, s:o}", "session", (json_int_t)state->session,
                             "out", (json_int_t)state->out, "err", (json_int_t)state->err, "line",
                             (json_int_t)state->line, "queue", queue_json(state));
    if (state->kept != NULL) {
        (void)json_object_set(json, "kept", state->kept);
    }
    if (state->unanswered != NULL) {
        (void)json_object_set(json, "unanswered", state->unanswered);
    }
    return json;
}

static int read_queue(struct journal_state *state, const json_t *list)
{
    size_t i;
    const json_t *item;
    json_array_foreach(list, i, item)
    {
        const json_t *text = json_array_get(item, 1);
        size_t size = json_string_length(text);
        if (!json_is_string(text)) {
            return UV_EINVAL;
        }
        char *copy = malloc(size + 1);
        if (copy != NULL) {
            memcpy(copy, json_string_value(text), size + 1); // It may hold a NUL.
        }
        struct journal_input *input = journal_queue(state, copy, size, NULL);
        if (input == NULL) {
            return UV_ENOMEM;
        }
        input->end = (uint64_t)json_integer_value(json_array_get(item, 0));
        set_noted(state);
    }
    return 0;
}

static int read_head(struct journal_state *state, const char *text, size_t size)
{
    json_t *json = json_loadb(text, size, JSON_ALLOW_NUL, NULL);
    if (!json_is_object(json)) {
        json_decref(json);
        return UV_EINVAL;
    }
    journal_state_clear(state);
    state->session = (uint64_t)json_integer_value(json_object_get(json, "session"));
    state->out = (uint64_t)json_integer_value(json_object_get(json, "out"));
    state->err = (uint64_t)json_integer_value(json_object_get(json, "err"));
    state->line = (uint64_t)json_integer_value(json_object_get(json, "line"));
    state->kept = json_incref(json_object_get(json, "kept"));
    state->unanswered = json_incref(json_object_get(json, "unanswered"));
    int result = read_queue(state, json_object_get(json, "queue"));
    json_decref(json);
    return result;
}

static int read_record(struct journal_state *state, const char *text, size_t size)
{
    char *rest;
    if (size < 3 || text[1] != ' ') {
        return UV_EINVAL;
    }
    if (text[0] == '=') {
        return read_head(state, text + 2, size - 2);
    }
    uint64_t number = strtoull(text + 2, &rest, 10);
    switch (text[0]) {
    case '<':
        if (*rest != ' ') {
            return UV_EINVAL;
        }
        state->out = number;
        note_requests(state, rest + 1, size - (size_t)(rest + 1 - text));
        return 0;
    case '-':
        state->out = number;
        return 0;
    case '!':
        state->err = number;
        return 0;
    case '+':
        return read_input(state, text + 2, size - 2);
    case '>':
        set_end(state, number);
        return 0;
    case '@':
        (void)drop_had(state, number);
        return 0;
    case '*':
        json_decref(state->kept);
        state->kept = json_loadb(text + 2, size - 2, JSON_ALLOW_NUL, NULL);
        return state->kept != NULL ? 0 : UV_EINVAL;
    default:
        return UV_EINVAL;
    }
}

// The first one of a file is its head. `text` is ended by a NUL.
static int take_record(struct journal_state *state, bool first, const char *text, size_t size)
{
    unsigned long denied = memory_denied();
    int result = first && text[0] != '=' ? UV_EINVAL : read_record(state, text, size);
    // What seems to be none may be one, and what was read may lack a request.
    return memory_denied() != denied ? UV_ENOMEM : result;
}

size_t journal_read(const char *text, size_t size, struct journal_state *state)
{
    size_t at = 0;
    const char *end;
    while (at < size && (end = memchr(text + at, '\n', size - at)) != NULL) {
        size_t length = (size_t)(end - (text + at));
        char *record = malloc(length + 1);
        if (record == NULL) {
            return SIZE_MAX;
        }
        memcpy(record, text + at, length);
        record[length] = '\0';
        int result = take_record(state, at == 0, record, length);
        free(record);
        if (result != 0) {
            return result == UV_ENOMEM ? SIZE_MAX : at;
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
    return result != UV_ENOENT; // Others pass, and say nothing about what is there.
}

static void close_fd(int file)
{
    uv_fs_t request;
    (void)uv_fs_close(NULL, &request, file, NULL);
    uv_fs_req_cleanup(&request);
}

// A file, record after record.
struct records {
    int file;
    char *text;
    size_t begin, end, capacity; // Of what was read and is not taken.
    uint64_t whole;              // Bytes of the file up to the end of the last record.
};

static int read_more(struct records *records)
{
    uv_fs_t request;
    size_t have = records->end - records->begin;
    if (records->begin > 0) {
        memmove(records->text, records->text + records->begin, have);
    }
    records->begin = 0;
    records->end = have;
    if (have > RECORD_MAX) {
        return UV_EFBIG;
    }
    if (records->capacity - have < BLOCK) {
        size_t capacity = 2 * records->capacity + BLOCK;
        char *text = realloc(records->text, capacity);
        if (text == NULL) {
            return UV_ENOMEM;
        }
        records->text = text;
        records->capacity = capacity;
    }
    uv_buf_t buffer = uv_buf_init(records->text + have, (unsigned)(records->capacity - have));
    int result = uv_fs_read(NULL, &request, records->file, &buffer, 1, -1, NULL);
    uv_fs_req_cleanup(&request);
    records->end += result > 0 ? (size_t)result : 0;
    return result;
}

// The next one, ended by a NUL. 1; 0: there is none any more; a negative uv error, UV_EFBIG: it is
// too long.
static int next_record(struct records *records, char **ret_text, size_t *ret_size)
{
    size_t seen = 0;
    for (;;) {
        char *begin = records->text != NULL ? records->text + records->begin : NULL;
        size_t have = records->end - records->begin;
        char *end = have > seen ? memchr(begin + seen, '\n', have - seen) : NULL;
        if (end != NULL) {
            *end = '\0';
            *ret_text = begin;
            *ret_size = (size_t)(end - begin);
            records->begin += *ret_size + 1;
            return 1;
        }
        seen = have;
        int result = read_more(records);
        if (result <= 0) {
            return result;
        }
    }
}

static void close_records(struct records *records)
{
    close_fd(records->file);
    free(records->text);
}

int journal_load(struct journal *journal, const char *folder)
{
    char *text;
    size_t size;
    int result, taken = 0;
    *journal = (struct journal){.file = -1};
    path_of(folder, "journal", journal->path);
    struct records records = {.file = os_open_read(journal->path)};
    if (records.file < 0) {
        return records.file == UV_ENOENT ? JOURNAL_NONE : records.file;
    }
    while ((result = next_record(&records, &text, &size)) > 0 &&
           (taken = take_record(&journal->state, records.whole == 0, text, size)) == 0) {
        records.whole += size + 1;
    }
    // Only the last record may be in pieces.
    result = taken == UV_ENOMEM                 ? taken
             : result > 0 || result == UV_EFBIG ? JOURNAL_DAMAGED
             : result < 0                       ? result
             : records.whole > 0                ? JOURNAL_THERE
                                                : JOURNAL_NONE;
    close_records(&records);
    if (result < 0) {
        journal_state_clear(&journal->state);
    } else {
        journal->size = records.whole;
    }
    return result;
}

static void close_file(struct journal *journal)
{
    if (journal->file >= 0) {
        close_fd(journal->file);
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

// In their order. What answers a request ends it, for a later runner, too.
int journal_note(struct journal *journal)
{
    char head[320];
    const struct journal_input *i;
    while ((i = journal->state.silent) != NULL) {
        const char *id = i->answers != NULL ? i->answers : "";
        char *record = strlen(id) + 32 > sizeof head ? malloc(strlen(id) + 32) : head;
        if (record == NULL) {
            return UV_ENOMEM;
        }
        (void)snprintf(record, strlen(id) + 32, "+ %zu %s", strlen(id), id);
        int result = put(journal, record, i->text, i->size - 1);
        if (record != head) {
            free(record);
        }
        if (result != 0) {
            return result;
        }
        set_noted(&journal->state);
        drop_request(journal->state.unanswered, id);
    }
    return 0;
}

int journal_give(struct journal *journal, struct journal_input *input, uint64_t end)
{
    int result = put_number(journal, '>', end);
    input->end = result == 0 ? end : input->end;
    return result;
}

int journal_had(struct journal *journal, uint64_t input)
{
    return drop_had(&journal->state, input) ? put_number(journal, '@', journal->state.line) : 0;
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
    if (end <= collect->after || collect->more || *rest != ' ') {
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

// false: no memory for it. Other troubles leave what was read before them.
static bool collect_file(struct collect *collect, const char *path)
{
    char *text;
    size_t size;
    int result = 0;
    unsigned long denied = memory_denied();
    struct records records = {.file = os_open_read(path)};
    if (records.file >= 0) {
        while (!collect->more && (result = next_record(&records, &text, &size)) > 0) {
            collect_line(collect, text, size);
        }
        close_records(&records);
    }
    return result != UV_ENOMEM && memory_denied() == denied;
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
        close_fd(file);
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
    if ((agent == 0 || agent == there) &&
        (!collect_file(&collect, older) || !collect_file(&collect, path))) {
        json_decref(collect.list);
        return NULL;
    }
    return json_pack("{s:o, s:I, s:b, s:I}", "messages", collect.list, "next",
                     (json_int_t)collect.after, "more", collect.more, "agent",
                     (json_int_t)(agent != 0 ? agent : there));
}
