#include "runner/known.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "poddaemon/folder.h"
#include "runner/podlink.h"
#include "runner/session.h"

// ------------------------------------------------------------------------------------------------
// Registry
// ------------------------------------------------------------------------------------------------

static void copy_text(char *to, size_t size, const char *from)
{
    (void)snprintf(to, size, "%s", from != NULL ? from : "");
}

static int on_entry(void *user, const struct pm_registry_entry *entry)
{
    struct known *known = user;
    struct known_record *grown =
        realloc(known->records, (known->records_count + 1) * sizeof *grown);
    if (grown == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    known->records = grown;
    struct known_record *record = &grown[known->records_count++];
    memset(record, 0, sizeof *record);
    copy_text(record->file, sizeof record->file, entry->file);
    copy_text(record->state, sizeof record->state, entry->state);
    copy_text(record->id, sizeof record->id, entry->key);
    copy_text(record->problem, sizeof record->problem, entry->problem);
    record->proof = entry->proof;
    record->pid = entry->pid;
    record->start = entry->start;
    record->object = entry->object;
    record->detachment = entry->detachment;
    return 0;
}

// ------------------------------------------------------------------------------------------------
// Folders
// ------------------------------------------------------------------------------------------------

static bool has_file(const char *folder, const char *name, uint64_t *ret_size)
{
    char path[4400];
    uv_fs_t request;
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    int result = uv_fs_lstat(NULL, &request, path, NULL);
    if (result == 0 && ret_size != NULL) {
        *ret_size += request.statbuf.st_size;
    }
    uv_fs_req_cleanup(&request);
    return result == 0;
}

// What a start that did not come to its end has made before the description, and what a removal
// leaves when that is gone: none of it is worth anything, and the folder itself says no more.
static bool is_worthless(const uv_dirent_t *entry)
{
    static const char *const names[] = {POD_FILE_TOKEN,    POD_FILE_LOCK,     POD_FILE_LOG,
                                        POD_FILE_LOG ".1", POD_FILE_LOG ".2", "s",
                                        FILE_GROUP,        "exit.new",        "renaming",
                                        "startup"};
    size_t i = 0;
    while (i < sizeof names / sizeof names[0] && strcmp(entry->name, names[i]) != 0) {
        i++;
    }
    return i < sizeof names / sizeof names[0] && entry->type != UV_DIRENT_DIR;
}

bool known_is_half_made(const char *path)
{
    uv_fs_t request;
    uv_dirent_t entry;
    int result = uv_fs_scandir(NULL, &request, path, 0, NULL);
    bool worthless = result >= 0 || result == UV_ENOENT;
    while (result >= 0 && worthless && uv_fs_scandir_next(&request, &entry) != UV_EOF) {
        worthless = is_worthless(&entry);
    }
    uv_fs_req_cleanup(&request);
    return worthless;
}

const char *known_trouble(int result)
{
    return result == PM_ERR_NOT_FOUND ? "it has no description, and is no start that was broken off"
                                      : pm_strerror(result);
}

static void take_description(const struct runner_env *env, struct known_folder *folder,
                             const char *text, size_t size)
{
    char expected[4096] = ""; // Of another session's description nothing follows.
    json_t *json = json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
    const char *id = json_string_value(json_object_get(json, "id"));
    if (id != NULL && rpc_valid_id(id)) {
        session_folder(env->state_dir, id, expected);
    }
    if (strcmp(expected, folder->path) == 0) {
        copy_text(folder->id, sizeof folder->id, id);
        copy_text(folder->program, sizeof folder->program,
                  json_string_value(json_object_get(json, "program")));
        const char *service =
            json_string_value(json_object_get(json_object_get(json, "labels"), "service"));
        if (service != NULL && strncmp(id, SERVICE_SESSION, strlen(SERVICE_SESSION)) == 0 &&
            strcmp(id + strlen(SERVICE_SESSION), service) == 0) {
            copy_text(folder->service, sizeof folder->service, service);
        }
    } else {
        folder->result = PM_ERR_CORRUPT;
    }
    json_decref(json);
}

static void read_folder(const struct runner_env *env, struct known_folder *folder)
{
    struct pod_dir dir = POD_DIR_INIT;
    uint8_t *text = NULL;
    size_t size = 0;
    int result = pod_dir_open(folder->path, &dir);
    if (result == PM_OK) {
        result = pod_file_read(&dir, FILE_SESSION, SESSION_FILE_MAX, &text, &size);
        if (result == PM_ERR_NOT_FOUND) {
            folder->starting = true;
            result = pod_file_read(&dir, FILE_STARTING, SESSION_FILE_MAX, &text, &size);
        }
        if (result == PM_ERR_NOT_FOUND) {
            folder->starting = known_is_half_made(folder->path);
        }
    }
    pod_dir_close(&dir);
    folder->result = result;
    if (result == PM_OK) {
        take_description(env, folder, (const char *)text, size);
        free(text);
    }
    folder->exit = has_file(folder->path, POD_FILE_EXIT, &folder->bytes);
    folder->claimed = has_file(folder->path, POD_FILE_CLAIMED, &folder->bytes);
    folder->lost = has_file(folder->path, FILE_LOST, NULL);
    folder->socket = has_file(folder->path, "s", NULL);
}

static int read_folders(const struct runner_env *env, struct known *known)
{
    char path[4200];
    uv_fs_t request;
    uv_dirent_t entry;
    int result = PM_OK;
    (void)snprintf(path, sizeof path, "%s/sessions", env->state_dir);
    int found = uv_fs_scandir(NULL, &request, path, 0, NULL);
    while (found >= 0 && result == PM_OK && uv_fs_scandir_next(&request, &entry) != UV_EOF) {
        struct known_folder *grown =
            realloc(known->folders, (known->folders_count + 1) * sizeof *grown);
        if (grown == NULL) {
            result = PM_ERR_NO_MEMORY;
            break;
        }
        known->folders = grown;
        struct known_folder *folder = &grown[known->folders_count++];
        memset(folder, 0, sizeof *folder);
        (void)snprintf(folder->path, sizeof folder->path, "%.3700s/%.300s", path, entry.name);
        read_folder(env, folder);
    }
    uv_fs_req_cleanup(&request);
    return result;
}

// ------------------------------------------------------------------------------------------------
// Pods
// ------------------------------------------------------------------------------------------------

struct question {
    struct podlink *link;
    struct known_record *record;
    size_t *open;
    bool asked, over;
};

static void finish(struct question *question, enum known_answer answer, const char *detail)
{
    if (question->over) {
        return;
    }
    question->over = true;
    question->record->answer = answer;
    copy_text(question->record->detail, sizeof question->record->detail, detail);
    podlink_close(question->link);
    --*question->open;
}

static void on_message(void *user, const struct pod_message *message)
{
    struct question *question = user;
    struct known_record *record = question->record;
    if (question->over) {
        return;
    }
    if (message->type == POD_WELCOME) {
        const struct pod_welcome *welcome = &message->u.welcome;
        record->version = welcome->version;
        record->version_min = welcome->version_min;
        record->version_max = welcome->version_max;
        (void)snprintf(record->build, sizeof record->build, "%.*s", (int)welcome->build.size,
                       (const char *)welcome->build.data);
        if (pod_client_status(podlink_client(question->link)) < 0) {
            finish(question, KNOWN_REFUSED, "it cannot be asked");
        }
    } else if (message->type == POD_STATE) {
        record->pod = message->u.state;
        finish(question, KNOWN_ANSWERED, NULL);
    } else if (message->type == POD_ERROR) {
        finish(question, KNOWN_REFUSED, pod_strerror(message->u.error.code));
    }
}

static void on_over(void *user, int failure)
{
    struct question *question = user;
    question->link = NULL; // It is no more when this returns.
    finish(question,
           failure == -POD_E_CLOSED || failure == -POD_E_IO ? KNOWN_SILENT : KNOWN_REFUSED,
           failure == -POD_E_IO ? "no answer in time" : pod_strerror(failure));
}

static void ask(const struct runner_env *env, uv_loop_t *loop, struct known_record *record,
                struct question *question)
{
    struct pod_dir dir = POD_DIR_INIT;
    uint8_t token[POD_TOKEN_SIZE];
    char path[4096];
    pm_native native = PM_NATIVE_INVALID;
    session_folder(env->state_dir, record->id, path);
    int result = pod_dir_open(path, &dir);
    if (result == PM_OK) {
        result = pod_token_read(&dir, token);
    }
    if (result != PM_OK) {
        record->answer = KNOWN_NO_TOKEN;
    } else if ((result = pod_connect(&dir, record->id, &native)) != PM_OK) {
        record->answer = result == PM_ERR_BUSY     ? KNOWN_SILENT
                         : result == PM_ERR_ACCESS ? KNOWN_REFUSED
                                                   : KNOWN_NOBODY;
    }
    pod_dir_close(&dir);
    if (result != PM_OK) {
        copy_text(record->detail, sizeof record->detail, pm_strerror(result));
        return;
    }
    // Epoch 0 only looks: nobody is displaced.
    const struct podlink_options options = {loop,         record->id, token,   0,
                                            KNOWN_ASK_MS, on_message, on_over, question};
    question->record = record;
    question->asked = true;
    ++*question->open;
    int opened = podlink_open(&options, native, &question->link);
    if (opened != 0) {
        question->link = NULL;
        finish(question, KNOWN_SILENT, pod_strerror(opened));
    }
}

static void on_time_is_up(uv_timer_t *timer)
{
    *(bool *)timer->data = true;
}

int known_ask(const struct runner_env *env, struct known *known, const struct known_record *only)
{
    uv_loop_t loop;
    uv_timer_t timer;
    bool late = false;
    size_t open = 0;
    struct question *questions = calloc(known->records_count + 1, sizeof *questions);
    if (questions == NULL || uv_loop_init(&loop) != 0) {
        free(questions);
        return PM_ERR_NO_MEMORY;
    }
    (void)uv_timer_init(&loop, &timer);
    timer.data = &late;
    (void)uv_timer_start(&timer, on_time_is_up, KNOWN_ASK_MS, 0);
    for (size_t i = 0; i < known->records_count; i++) {
        struct known_record *record = &known->records[i];
        questions[i].open = &open;
        if ((only == NULL || only == record) && strcmp(record->state, "running") == 0 &&
            record->proof == PM_PROOF_ALIVE) {
            ask(env, &loop, record, &questions[i]);
        }
    }
    while (open > 0 && !late) {
        (void)uv_run(&loop, UV_RUN_ONCE);
    }
    for (size_t i = 0; i < known->records_count; i++) {
        if (questions[i].asked) {
            finish(&questions[i], KNOWN_SILENT, "no answer in time");
        }
    }
    uv_close((uv_handle_t *)&timer, NULL);
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&loop);
    free(questions);
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// All of it
// ------------------------------------------------------------------------------------------------

int known_read(const struct runner_env *env, struct known *ret_known)
{
    struct known known;
    memset(&known, 0, sizeof known);
    known.owner.size = sizeof known.owner;
    (void)snprintf(known.registry, sizeof known.registry, "%.4000s/registry", env->state_dir);
    known.owner_result = pm_registry_owner(known.registry, &known.owner);
    known.registry_result = pm_registry_list(known.registry, on_entry, &known);
    int result =
        known.registry_result == PM_ERR_NO_MEMORY ? PM_ERR_NO_MEMORY : read_folders(env, &known);
    if (result != PM_OK) {
        known_clear(&known);
        return result;
    }
    *ret_known = known;
    return PM_OK;
}

void known_clear(struct known *known)
{
    free(known->records);
    free(known->folders);
    known->records = NULL;
    known->folders = NULL;
    known->records_count = known->folders_count = 0;
}

const struct known_record *known_record_of(const struct known *known, const char *id)
{
    const struct known_record *found = NULL;
    for (size_t i = 0; i < known->records_count; i++) {
        const struct known_record *record = &known->records[i];
        bool counts = strcmp(record->state, "quarantined") != 0 && strcmp(record->id, id) == 0;
        if (counts && (found == NULL || record->proof == PM_PROOF_ALIVE)) {
            found = record;
        }
    }
    return found;
}

const struct known_folder *known_folder_of(const struct known *known, const char *id)
{
    for (size_t i = 0; i < known->folders_count; i++) {
        if (strcmp(known->folders[i].id, id) == 0) {
            return &known->folders[i];
        }
    }
    return NULL;
}
