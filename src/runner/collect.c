// The end of a session: what its holder has left of it is looked at in a worker, for it may be
// much, and there may be many; what follows from that is done in the loop.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pod/tomb.h"
#include "poddaemon/folder.h"
#include "runner/doctor.h"
#include "runner/placement.h"
#include "runner/session.h"

#define GROUP_MAX 8192
#define PASSING_MS 500 // Until a trouble that passes is met again.

struct look {
    uv_work_t work;
    struct session *session;
    // For the worker, which does not touch the session.
    pm_process *process;
    char path[4096];
    char id[RUNNER_ID_MAX + 1];
    uint64_t daemon_pid, epoch;
    bool told, told_ours; // How it ended is in `exit`; nobody else can have been told.
    bool killed;          // Asked for: nothing shall be left.
    // What it has found.
    int opened, result; // Of the folder, of the record: PM_OK or PM_ERR_*.
    bool lives;         // The holder.
    bool claimed;       // By us, now.
    bool has_exit;
    struct pod_exit exit;
    uint64_t first[POD_CHANNELS];
    int64_t claimed_ms;
    bool unrecorded; // What its holder has told is all that there is.
    int told_noted;  // Result of recording that.
    bool lost_told;  // An earlier runner has said it.
    int lost_noted;  // Result of noting it now.
    char lost[256];
    int group; // What was left in its control group: as placement_end().
};

// ------------------------------------------------------------------------------------------------
// In the worker
// ------------------------------------------------------------------------------------------------

static void take_tomb(void *user, const struct pod_message *message)
{
    struct look *look = user;
    if (message->type == POD_EXIT) {
        look->exit = message->u.exit;
        look->has_exit = true;
    } else if (message->type == POD_GAP && message->u.gap.from == 0) {
        look->first[message->u.gap.channel] = message->u.gap.to;
    }
}

static void take_time(struct look *look, const char *name)
{
    char path[4200];
    uv_fs_t request;
    (void)snprintf(path, sizeof path, "%s/%s", look->path, name);
    if (uv_fs_stat(NULL, &request, path, NULL) == 0) {
        look->claimed_ms = (int64_t)request.statbuf.st_ctim.tv_sec * 1000 +
                           request.statbuf.st_ctim.tv_nsec / 1000000;
    }
    uv_fs_req_cleanup(&request);
}

// The record under its claimed name. 0, or PM_ERR_*.
static int read_claimed(struct look *look, struct pod_dir *dir)
{
    static const uint64_t from[POD_CHANNELS] = {0, 0};
    uint8_t *bytes;
    size_t size;
    int result = pod_file_read(dir, POD_FILE_CLAIMED, POD_TOMB_SIZE_MAX, &bytes, &size);
    if (result != PM_OK) {
        return result;
    }
    int read = pod_tomb_read(bytes, size, from, take_tomb, look);
    result = read == 0 ? PM_OK : read == -POD_E_NO_MEMORY ? PM_ERR_NO_MEMORY : PM_ERR_CORRUPT;
    free(bytes);
    take_time(look, POD_FILE_CLAIMED); // The rename was its last change.
    return result;
}

static int write_lost(const struct look *look, struct pod_dir *dir)
{
    struct pod_new_file file;
    int result = pod_file_begin(dir, &file);
    if (result != PM_OK) {
        return result;
    }
    result = pod_file_put(&file, look->lost, strlen(look->lost));
    if (result == PM_OK) {
        result = pod_file_commit(dir, &file, FILE_LOST, POD_SYNC_NAME);
    } else {
        pod_file_abandon(dir, &file);
    }
    return result;
}

// What it has left in the control group that was made for it. As placement_end().
static int end_group(struct pod_dir *dir, const char *id, bool but_holder)
{
    uint8_t *folder;
    size_t size;
    if (pod_file_read(dir, FILE_GROUP, GROUP_MAX, &folder, &size) != PM_OK) {
        return 0; // None was made for it.
    }
    int result = placement_end((const char *)folder, id, but_holder);
    free(folder);
    return result;
}

// dir: NULL if its folder is gone.
static void look_at_lost(struct look *look, struct pod_dir *dir)
{
    uint8_t *text;
    size_t size;
    look->lost_told =
        dir != NULL && pod_file_read(dir, FILE_LOST, sizeof look->lost - 1, &text, &size) == PM_OK;
    if (look->lost_told) {
        (void)snprintf(look->lost, sizeof look->lost, "%s", (const char *)text);
        free(text);
        take_time(look, FILE_LOST);
        return;
    }
    (void)snprintf(look->lost, sizeof look->lost, "holder died: %s",
                   dir != NULL ? "its process has ended and left no exit record"
                               : "its process has ended, its folder is gone");
    look->claimed_ms = wall_ms();
    look->group = dir != NULL ? end_group(dir, look->id, false) : 0; // Before it is noted.
    look->lost_noted = dir != NULL ? write_lost(look, dir) : PM_ERR_NOT_FOUND;
}

static int put_record(void *user, const void *data, size_t size)
{
    return pod_file_put(user, data, size);
}

// Its holder could not record the exit, and has told it: what it would have left without output.
static int write_told(const struct look *look, struct pod_dir *dir)
{
    struct pod_tomb_source source = {.without_output = true, .exit = look->exit};
    struct pod_ring rings[POD_CHANNELS] = {{0}};
    struct pod_new_file file;
    source.head =
        (struct pod_tomb){.version = 1, .epoch = look->epoch, .daemon_pid = look->daemon_pid};
    source.head.session = (struct pod_bytes){(const uint8_t *)look->id, strlen(look->id)};
    for (size_t i = 0; i < POD_CHANNELS; i++) {
        rings[i].first = rings[i].end = look->exit.end[i];
        source.rings[i] = &rings[i];
    }
    int result = pod_file_begin(dir, &file);
    if (result != PM_OK) {
        return result;
    }
    result = pod_tomb_write(&source, put_record, &file);
    if (result != PM_OK) {
        pod_file_abandon(dir, &file);
        return result;
    }
    return pod_file_commit(dir, &file, POD_FILE_CLAIMED, POD_SYNC_NAME);
}

// dir: NULL if its folder is gone.
static void take_told(struct look *look, struct pod_dir *dir)
{
    look->told_noted = dir != NULL ? write_told(look, dir) : PM_ERR_NOT_FOUND;
    look->unrecorded = look->has_exit = true;
    memcpy(look->first, look->exit.end, sizeof look->first);
    look->claimed_ms = wall_ms();
    look->result = PM_OK;
}

// Without a Handle (its record in the registry was not to be trusted) the lock of the folder tells.
static bool holder_lives(pm_process *process, struct pod_dir *dir)
{
    return process != NULL ? pm_process_alive(process)
                           : pod_dir_lock(dir) != PM_OK; // Not known: it lives.
}

static void work_look(uv_work_t *work)
{
    struct look *look = work->data;
    struct pod_dir dir = POD_DIR_INIT;
    look->opened = look->result = pod_dir_open(look->path, &dir);
    look->lives = look->process != NULL && pm_process_alive(look->process);
    if (look->opened == PM_OK) {
        // First: who is dead by now writes no more.
        look->lives = holder_lives(look->process, &dir);
        int renamed = pod_file_rename(&dir, POD_FILE_EXIT, POD_FILE_CLAIMED);
        look->claimed = renamed == PM_OK;
        look->result = read_claimed(look, &dir);
        if (look->result == PM_ERR_NOT_FOUND && renamed != PM_OK && renamed != PM_ERR_NOT_FOUND) {
            look->result = PM_ERR_IO; // It is there, and cannot be taken for the moment.
        }
    }
    struct pod_dir *folder = look->opened == PM_OK ? &dir : NULL;
    if (look->result == PM_ERR_NOT_FOUND && look->told && (look->told_ours || !look->lives)) {
        take_told(look, folder);
    } else if (look->result == PM_ERR_NOT_FOUND && !look->lives) {
        look_at_lost(look, folder);
    }
    // One that is lost has nothing left there. Of one that lives and has not told its end the child
    // may not be dead yet, and has to be known as killed by it.
    if (look->killed && folder != NULL && look->group == 0 &&
        (look->result == PM_OK || !look->lives)) {
        look->group = end_group(folder, look->id, look->lives);
    }
    pod_dir_close(&dir);
}

// ------------------------------------------------------------------------------------------------
// What follows from it
// ------------------------------------------------------------------------------------------------

// The last thing that is done with it: it may be gone then.
static void answer_waiters(struct session *session)
{
    struct waiter **at = &session->waiters;
    while (*at != NULL) {
        struct waiter *waiter = *at;
        if (waiter->destroy) {
            at = &waiter->next;
            continue;
        }
        *at = waiter->next;
        call_result(waiter->call, session_json(session));
        free(waiter);
    }
    if (session->waiters != NULL) {
        session_erase(session);
    }
}

static void describe_exit(const struct session *session, char text[128])
{
    const struct pod_exit *e = &session->exit;
    if (e->kind == POD_EXIT_EXITED) {
        (void)snprintf(text, 128, "exit code %lu", (unsigned long)e->code);
    } else if (e->kind == POD_EXIT_SIGNALED) {
        (void)snprintf(text, 128, "signal %lu%s", (unsigned long)e->signal,
                       e->core_dumped ? ", core dumped" : "");
    } else {
        (void)snprintf(text, 128, "status lost");
    }
}

// `fresh`: we are the one who claimed it.
static void become_over(struct session *session, enum session_state state, bool fresh)
{
    char text[128];
    session->state = state;
    (void)uv_timer_stop(session->retry);
    (void)uv_timer_stop(session->patience);
    if (state == SESSION_ENDED) {
        session->problem[0] = '\0';
        describe_exit(session, text);
    }
    if (fresh && state == SESSION_ENDED) {
        session_log(session, LOG_INFO, "session.exited", "%s", text);
        session_notify(session, "session.exited");
    } else if (fresh) {
        session_log(session, LOG_ERROR, "session.lost", "%s", session->problem);
        session_notify(session, "session.lost");
    }
    session_drop_link(session);    // Who has asked is answered now, and finds it in the log.
    session->server->prune_at = 0; // There may be one too many now.
    session_settle(session);
    answer_waiters(session);
}

static void become_ended(struct session *session, const struct look *look)
{
    if (look->has_exit) {
        session->exit = look->exit;
        session->has_exit = true;
    }
    if (look->unrecorded) {
        session_log(session, LOG_WARNING, "session.unrecorded",
                    "its holder has told its exit and could not record it; by this runner: %s",
                    look->told_noted == PM_OK ? "recorded" : pm_strerror(look->told_noted));
    }
    memcpy(session->pod.first, look->first, sizeof session->pod.first);
    session->claimed_ms = look->claimed_ms;
    become_over(session, SESSION_ENDED, session->claim_asked);
}

static void become_lost(struct session *session, const struct look *look)
{
    memcpy(session->problem, look->lost, sizeof session->problem);
    if (!look->lost_told && look->lost_noted != PM_OK) {
        session_log(session, LOG_WARNING, "session.lost", "cannot be noted: %s",
                    pm_strerror(look->lost_noted));
    }
    session->claimed_ms = look->claimed_ms;
    become_over(session, SESSION_LOST, !look->lost_told);
}

// Its holder may be gone now, and whoever waited for that is told; the folder stays.
static void become_unproven(struct session *session, const struct look *look)
{
    struct runner_error error;
    struct ask *asks = session_take_asks(session);
    bool destroy = false;
    char quoted[4400];
    session_fail(session, SESSION_UNPROVEN, "its folder or exit record cannot be trusted: %s",
                 pm_strerror(look->result));
    session_end_asks(asks);
    for (const struct waiter *w = session->waiters; w != NULL; w = w->next) {
        destroy = destroy || w->destroy;
    }
    if (look->lives) {
        return;
    }
    (void)uv_timer_stop(session->patience);
    if (destroy) {
        (void)runner_fail(&error, RUNNER_DAMAGED,
                          "removal of session '%s'\nits holder is gone; %s\nrunner forget %s",
                          session->id, session->problem, doctor_id(session->id, quoted));
        session_fail_waiters(session, &error);
    } else {
        answer_waiters(session);
    }
}

// It lives, and its connection failed or ended.
static void try_again(struct session *session)
{
    if (session->record_gone) { // It leaves by itself, and its end is told.
        struct ask *asks = session_take_asks(session);
        session_fail(session, SESSION_UNREACHABLE,
                     "its child has ended, and its exit record was removed: it is lost as soon as "
                     "its holder has left");
        session_end_asks(asks);
        return;
    }
    if (session->attempts >= 3) {
        struct ask *asks = session_take_asks(session);
        session_fail(session, SESSION_UNREACHABLE,
                     "its holder, process %llu, lives and cannot be reached",
                     (unsigned long long)(session->process != NULL
                                              ? pm_process_pid(session->process)
                                              : session->daemon_pid));
        session_end_asks(asks);
    }
    // Once it is known as unreachable, it is tried again when somebody asks.
    if (session->attempts < 3 || session->stopping) {
        session_retry_later(session);
    }
}

bool session_passing(int result)
{
    return result == PM_ERR_NO_DESCRIPTORS || result == PM_ERR_NO_MEMORY || result == PM_ERR_IO ||
           result == PM_ERR_NO_SPACE || result == PM_ERR_SYSTEM || result == PM_ERR_BUSY ||
           result == PM_ERR_TIMEOUT;
}

static void on_collect_again(uv_timer_t *timer)
{
    session_collect(timer->data);
}

static void take_look(struct session *session, const struct look *look)
{
    struct ask *asks;
    // Whoever reads it in the end: it is to be told, once.
    session->claim_asked = session->claim_asked || look->claimed;
    if (look->group != 0) {
        session_log(session, look->group > 0 ? LOG_INFO : LOG_WARNING, "session.group",
                    "what it had left in its control group %s",
                    look->group > 0 ? "was ended" : "does not end");
    }
    if (session_is_over(session) || session->link != NULL) {
        return;
    }
    if (look->result == PM_OK) {
        become_ended(session, look);
    } else if (session_passing(look->result)) { // Nothing is deleted.
        asks = session_take_asks(session);
        session_fail(session, SESSION_UNREACHABLE, "what is left of it cannot be read now: %s",
                     pm_strerror(look->result));
        session_end_asks(asks);
        if (!session->removed) {
            (void)uv_timer_start(session->retry, on_collect_again, PASSING_MS, 0);
        }
    } else if (look->result != PM_ERR_NOT_FOUND) {
        become_unproven(session, look);
    } else if (look->lives) {
        if (session->state == SESSION_UNPROVEN) { // It was mended.
            session->state = SESSION_UNREACHABLE;
            session->attempts = 0;
        }
        try_again(session);
    } else {
        become_lost(session, look);
    }
}

static void after_look(uv_work_t *work, int status)
{
    struct look *look = work->data;
    struct session *session = look->session;
    (void)status;
    session->collecting = false;
    if (!session->removed) {
        take_look(session, look);
        recover_collected(session);
    }
    if (session->collect_again && !session->removed) {
        session->collect_again = false;
        session_collect(session);
    }
    (void)pm_process_unref(look->process);
    free(look);
    session_let(session);
}

void session_collect(struct session *session)
{
    if (session_is_over(session) || session->create != NULL || session->link != NULL ||
        session->aside || session->removed) {
        return;
    }
    if (session->collecting) {
        session->collect_again = true;
        return;
    }
    struct look *look = calloc(1, sizeof *look);
    if (look == NULL) {
        (void)uv_timer_start(session->retry, on_collect_again, PASSING_MS, 0);
        return;
    }
    look->work.data = look;
    look->session = session;
    look->process = session->process != NULL ? pm_process_ref(session->process) : NULL;
    memcpy(look->path, session->path, sizeof look->path);
    memcpy(look->id, session->id, sizeof look->id);
    look->daemon_pid = session->daemon_pid;
    look->epoch = session->server->epoch;
    look->exit = session->exit;
    look->told_ours = session->exit_told && session->claim_done;
    look->killed = session->stopping && session->stop_kind == ASK_KILL;
    look->told = look->told_ours || (session->exit_told && !session->record_gone);
    session->collecting = true;
    session_hold(session);
    if (uv_queue_work(&session->server->loop, &look->work, work_look, after_look) != 0) {
        work_look(&look->work);
        after_look(&look->work, 0);
    }
}

// Whose end nobody tells: it has no Handle, and is not asked at the moment.
static bool is_unwatched(const struct session *session)
{
    return session->process == NULL && session->link == NULL && session->settled &&
           (session->state == SESSION_RUNNING || session->state == SESSION_UNREACHABLE) &&
           session->create == NULL && !session->collecting && !session->unread;
}

void sessions_watch(struct server *server)
{
    for (struct session *s = server->sessions; s != NULL; s = s->next) {
        if (is_unwatched(s) && session_is_free(s)) {
            session_collect(s);
        }
    }
}

bool session_is_free(const struct session *session)
{
    struct pod_dir dir = POD_DIR_INIT;
    if (session->process != NULL) {
        return !pm_process_alive(session->process);
    }
    int result = pod_dir_open(session->path, &dir);
    bool is_free = result == PM_OK ? pod_dir_lock(&dir) == PM_OK : !session_passing(result);
    pod_dir_close(&dir);
    return is_free;
}

void session_holder_ended(struct session *session)
{
    if (session->leave_until != 0) {
        session_erase(session);
    } else if (session->link == NULL) {
        session_collect(session);
    } // Else its connection ends at once, after what is still in it.
}
