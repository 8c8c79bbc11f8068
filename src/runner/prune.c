// What is left of ended sessions does not stay for ever: the oldest go when they are old enough, or
// too many. Only those whose end was told; never an exit that nobody has claimed, nor a folder that
// is not to be trusted.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "poddaemon/folder.h"
#include "runner/prune.h"
#include "runner/session.h"

#define KEEP_MS (UINT64_C(7) * 24 * 3600 * 1000)
#define KEEP_RECORDS 1000
#define BATCH 256
#define LOOK_MIN_MS 1000
#define LOOK_MAX_MS 60000

struct item {
    struct session *session; // Held.
    char path[4096];
    int result; // 0: it is gone.
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

// Once more what the session was taken for, from what is on the disk now.
static int remove_one(const char *path)
{
    struct pod_dir dir = POD_DIR_INIT;
    int result = pod_dir_open(path, &dir) == PM_OK ? 0 : UV_EACCES;
    if (result == 0 && (pod_dir_lock(&dir) != PM_OK || is_there(path, POD_FILE_EXIT) ||
                        !(is_there(path, POD_FILE_CLAIMED) || is_there(path, FILE_LOST)))) {
        result = UV_EBUSY;
    }
    pod_dir_close(&dir); // What is open cannot be removed everywhere.
    return result == 0 ? os_remove_tree(path) : result;
}

static void work_prune(uv_work_t *work)
{
    struct prune *prune = work->data;
    for (size_t i = 0; i < prune->count; i++) {
        prune->items[i].result = remove_one(prune->items[i].path);
    }
}

// ------------------------------------------------------------------------------------------------
// In the loop
// ------------------------------------------------------------------------------------------------

static void after_prune(uv_work_t *work, int status)
{
    struct prune *prune = work->data;
    struct server *server = prune->server;
    (void)status;
    for (size_t i = 0; i < prune->count; i++) {
        struct session *session = prune->items[i].session;
        session->pruning = prune->items[i].result != 0; // Not tried again by this runner.
        if (session->removed) {
            session_let(session);
            continue;
        }
        if (session->pruning) {
            session_log(session, LOG_WARNING, "session.pruned", "what is left of it stays: %s",
                        uv_strerror(prune->items[i].result));
        } else {
            (void)pm_forget(server->manager, session->id);
            session_log(session, LOG_INFO, "session.pruned",
                        "it ended %lld s ago; what is left of it is removed",
                        (long long)((wall_ms() - session->claimed_ms) / 1000));
            session_notify(session, "session.destroyed");
            session_remove(session);
        }
        session_let(session);
    }
    server->works--;
    server->prune_at = prune->count == BATCH ? 0 : server->prune_at;
    server->under_prune = false;
    free(prune);
}

static int by_age(const void *a, const void *b)
{
    const struct session *const *x = a, *const *y = b;
    return (*x)->claimed_ms < (*y)->claimed_ms ? -1 : (*x)->claimed_ms > (*y)->claimed_ms;
}

// Those whose end is told, the oldest first.
static struct session **list_ended(struct server *server, size_t *ret_count)
{
    size_t count = 0;
    for (const struct session *s = server->sessions; s != NULL; s = s->next) {
        count += session_is_over(s) && s->claimed_ms > 0;
    }
    struct session **list = count > 0 ? calloc(count, sizeof(struct session *)) : NULL;
    *ret_count = 0;
    for (struct session *s = server->sessions; s != NULL && list != NULL; s = s->next) {
        if (session_is_over(s) && s->claimed_ms > 0) {
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
    return !session->pruning && session->works == 0 &&
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
            item->session = list[i];
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
