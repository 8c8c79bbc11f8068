// What is left of ended sessions does not stay for ever: the oldest go when they are old enough, or
// too many. Only those whose end was told; never an exit that nobody has claimed, nor a folder that
// is not to be trusted.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "poddaemon/folder.h"
#include "runner/os.h"
#include "runner/prune.h"
#include "runner/session.h"

#define KEEP_MS (UINT64_C(7) * 24 * 3600 * 1000)
#define KEEP_RECORDS 1000
#define BATCH 256
#define LOOK_MIN_MS 1000
#define LOOK_MAX_MS 60000

struct item {
    struct session *session; // Held.
    char id[RUNNER_ID_MAX + 1], path[4096];
    const char *trouble; // NULL: it is gone.
    bool later;          // The trouble passes.
};

struct prune {
    uv_work_t work;
    struct server *server;
    size_t count;
    struct item items[];
};

// ------------------------------------------------------------------------------------------------
// Options
// ------------------------------------------------------------------------------------------------

bool prune_parse_time(const char *text, uint64_t *ret_ms)
{
    static const struct {
        char unit;
        uint64_t ms;
    } units[] = {{'s', 1000}, {'m', 60000}, {'h', 3600000}, {'d', 86400000}};
    char *end;
    unsigned long long number = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || number > 1000000) {
        return false;
    }
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (end[0] == units[i].unit && end[1] == '\0') {
            *ret_ms = number * units[i].ms;
            return true;
        }
    }
    *ret_ms = 0;
    return number == 0 && *end == '\0';
}

bool prune_parse_count(const char *text, uint64_t *ret_count)
{
    char *end;
    unsigned long long number = strtoull(text, &end, 10);
    *ret_count = number;
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && number <= 1000000000;
}

static void take_option(struct server *server, const char *name,
                        bool (*parse)(const char *text, uint64_t *ret_number), uint64_t *ret_number)
{
    char text[64];
    size_t size = sizeof text;
    uint64_t number;
    int result = uv_os_getenv(name, text, &size);
    if (result == UV_ENOENT) {
        return;
    }
    if (result == 0 && parse(text, &number)) {
        *ret_number = number;
    } else {
        log_write(server->log, LOG_WARNING, "runner.option", NULL, "%s is not understood", name);
    }
}

void prune_open(struct server *server)
{
    server->keep_ms = KEEP_MS;
    server->keep_records = KEEP_RECORDS;
    take_option(server, KEEP_FOR_ENV, prune_parse_time, &server->keep_ms);
    take_option(server, KEEP_RECORDS_ENV, prune_parse_count, &server->keep_records);
}

// ------------------------------------------------------------------------------------------------
// In a worker
// ------------------------------------------------------------------------------------------------

static bool is_there(const char *folder, const char *name)
{
    char path[4200];
    uv_fs_t request;
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    int result = uv_fs_lstat(NULL, &request, path, NULL);
    uv_fs_req_cleanup(&request);
    return result != UV_ENOENT; // Not known: it is.
}

// Whether its description is of this session: else somebody shall look at the folder first.
static int prove_description(struct pod_dir *dir, const char *id)
{
    char described[RUNNER_ID_MAX + 1];
    uint8_t *text;
    size_t size;
    int result = pod_file_read(dir, FILE_SESSION, SESSION_FILE_MAX, &text, &size);
    if (result == PM_OK) {
        bool same =
            session_described((const char *)text, size, described) && strcmp(described, id) == 0;
        result = same ? PM_OK : PM_ERR_CORRUPT;
        free(text);
    }
    return result;
}

// Once more what the session was taken for, from what is on the disk now. PM_OK or PM_ERR_*.
static int prove(const char *path, const char *id, struct pod_dir *dir)
{
    int result = pod_dir_open(path, dir);
    if (result != PM_OK) {
        return result;
    }
    result = pod_dir_lock(dir);
    if (result != PM_OK) {
        return result; // Busy: its holder has not gone yet, for somebody who still reads.
    }
    if (!is_there(path, FILE_SESSION) && is_there(path, FILE_STARTING)) {
        return PM_OK; // A removal that did not come to its end.
    }
    if (is_there(path, POD_FILE_EXIT) ||
        !(is_there(path, POD_FILE_CLAIMED) || is_there(path, FILE_LOST))) {
        return PM_ERR_EXISTS; // An exit that is not claimed.
    }
    return prove_description(dir, id);
}

static void remove_one(struct item *item)
{
    struct pod_dir dir = POD_DIR_INIT;
    int result = prove(item->path, item->id, &dir);
    pod_dir_close(&dir);
    if (result == PM_ERR_NOT_FOUND && !is_there(item->path, ".")) {
        return; // Somebody has removed it.
    }
    if (result != PM_OK) {
        item->later = session_passing(result);
        item->trouble = result == PM_ERR_EXISTS ? "its exit is not claimed" : pm_strerror(result);
        return;
    }
    result = session_remove_folder(item->path);
    item->later = os_is_held(result) || result == UV_EAGAIN || result == UV_EMFILE ||
                  result == UV_ENFILE || result == UV_ENOMEM || result == UV_EIO;
    item->trouble = result != 0 ? uv_strerror(result) : NULL;
}

static void work_prune(uv_work_t *work)
{
    struct prune *prune = work->data;
    for (size_t i = 0; i < prune->count; i++) {
        remove_one(&prune->items[i]);
    }
}

// ------------------------------------------------------------------------------------------------
// In the loop
// ------------------------------------------------------------------------------------------------

static void after_one(const struct item *item)
{
    struct session *session = item->session;
    session->pruning = false;
    if (session->removed) {
        return;
    }
    if (item->trouble == NULL) {
        (void)pm_forget(session->server->manager, session->id);
        session_log(session, LOG_INFO, "session.pruned",
                    "it ended %lld s ago; what is left of it is removed",
                    (long long)((wall_ms() - session->claimed_ms) / 1000));
        session_notify(session, "session.destroyed");
        session_remove(session);
        return;
    }
    if (!item->later) {
        session->spared = true;
        session_log(session, LOG_WARNING, "session.pruned", "what is left of it stays: %s",
                    item->trouble);
    }
    methods_release(session->server, &session->held);
}

static void after_prune(uv_work_t *work, int status)
{
    struct prune *prune = work->data;
    struct server *server = prune->server;
    size_t gone = 0;
    (void)status;
    for (size_t i = 0; i < prune->count; i++) {
        gone += prune->items[i].trouble == NULL;
        after_one(&prune->items[i]);
        session_let(prune->items[i].session);
    }
    server->works--;
    server->prune_at = prune->count == BATCH && gone > 0 ? 0 : server->prune_at;
    server->under_prune = false;
    free(prune);
}

static int by_age(const void *a, const void *b)
{
    const struct session *const *x = a, *const *y = b;
    return (*x)->claimed_ms < (*y)->claimed_ms ? -1 : (*x)->claimed_ms > (*y)->claimed_ms;
}

static bool counts(const struct session *session)
{
    return session_is_over(session) && session->claimed_ms > 0 && !session->spared;
}

// Those whose end is told, the oldest first.
static struct session **list_ended(struct server *server, size_t *ret_count)
{
    size_t count = 0;
    for (const struct session *s = server->sessions; s != NULL; s = s->next) {
        count += counts(s);
    }
    struct session **list = count > 0 ? calloc(count, sizeof(struct session *)) : NULL;
    *ret_count = 0;
    for (struct session *s = server->sessions; s != NULL && list != NULL; s = s->next) {
        if (counts(s)) {
            list[(*ret_count)++] = s;
        }
    }
    if (list != NULL) {
        qsort(list, *ret_count, sizeof(struct session *), by_age);
    }
    return list;
}

static bool is_due(const struct server *server, const struct session *session, size_t newer)
{
    bool old = server->keep_ms > 0 && session->claimed_ms + (int64_t)server->keep_ms < wall_ms();
    bool left = session->process == NULL || session_holder_left(session);
    return !session->pruning && session->works == 0 && left && !session_is_going(session) &&
           (old || (server->keep_records > 0 && newer >= server->keep_records));
}

void prune_begin(struct server *server)
{
    uint64_t now = uv_now(&server->loop), rhythm = server->keep_ms / 10;
    if (now < server->prune_at || server->under_prune || !server->recovered || server->unread > 0) {
        return;
    }
    server->prune_at = now + (rhythm == 0 || rhythm > LOOK_MAX_MS ? LOOK_MAX_MS
                              : rhythm < LOOK_MIN_MS              ? LOOK_MIN_MS
                                                                  : rhythm);
    size_t count;
    struct session **list = list_ended(server, &count);
    struct prune *prune = malloc(sizeof *prune + BATCH * sizeof(struct item));
    if (list == NULL || prune == NULL) {
        free(list);
        free(prune);
        return;
    }
    *prune = (struct prune){.server = server};
    prune->work.data = prune;
    for (size_t i = 0; i < count && prune->count < BATCH; i++) {
        if (is_due(server, list[i], count - 1 - i)) {
            struct item *item = &prune->items[prune->count++];
            *item = (struct item){.session = list[i]};
            memcpy(item->id, list[i]->id, sizeof item->id);
            memcpy(item->path, list[i]->path, sizeof item->path);
            list[i]->pruning = true;
            session_hold(list[i]);
        }
    }
    free(list);
    if (prune->count == 0) {
        free(prune);
        return;
    }
    server->works++;
    server->under_prune = true;
    if (uv_queue_work(&server->loop, &prune->work, work_prune, after_prune) != 0) {
        work_prune(&prune->work);
        after_prune(&prune->work, 0);
    }
}
