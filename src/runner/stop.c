// The ways a session ends on request: asked of its pod, and where that does not help, by ending the
// holder, which takes the child along.
#include <stdio.h>
#include <stdlib.h>

#include "pod/ring.h"
#include "runner/doctor.h"
#include "runner/os.h"
#include "runner/session.h"
#include "runner/tree.h"

#define LEAVE_MS 6000 // The holder of one that is over goes by itself after 5 s at most.
#define LEAVE_LOOK_MS 20
#define LAST_MS (KILL_MARGIN_MS + 1000) // For the end of a holder that was killed.
#define END_SLACK_MS 1000               // Timers are late.
#define HELD_LOOK_MS 100

struct ending {
    uv_work_t work;
    struct session *session;
    pm_process *process;
    bool polite;
    int result;
};

// The polite end is only asked for: it may take as long as its grace, and workers are few.
static void work_end(uv_work_t *work)
{
    struct ending *ending = work->data;
    const struct pm_stop_plan ask = {
        .steps_count = 1,
        .steps = {{PM_STOP_TERMINATE, PM_SCOPE_PROCESS, 1}},
    };
    const struct pm_stop_plan kill = {
        .steps_count = 1,
        .steps = {{PM_STOP_KILL, PM_SCOPE_TREE, KILL_MARGIN_MS}},
    };
    ending->result = pm_process_stop(ending->process, ending->polite ? &ask : &kill, NULL);
}

static void after_end(uv_work_t *work, int status)
{
    struct ending *ending = work->data;
    struct session *session = ending->session;
    bool polite = ending->polite, ended = ending->result == PM_OK;
    (void)status;
    session->ending_holder = false;
    if (!polite && !ended) {
        session_log(session, LOG_ERROR, "session.stop", "its holder does not end: %s",
                    pm_strerror(ending->result));
    }
    (void)pm_process_unref(ending->process);
    free(ending);
    if (polite && !ended && session->holder_end == HOLDER_KILLED) { // That was due meanwhile.
        session_kill_holder(session);
    } else if (!polite || ended) {
        session_collect(session);
    } // Else its end is told when it comes.
    session_let(session);
}

static void end_holder(struct session *session, bool polite)
{
    struct ending *ending =
        session->process != NULL && !session->ending_holder ? calloc(1, sizeof *ending) : NULL;
    if (ending == NULL) {
        return;
    }
    ending->work.data = ending;
    ending->session = session;
    ending->polite = polite;
    ending->process = pm_process_ref(session->process);
    if (uv_queue_work(&session->server->loop, &ending->work, work_end, after_end) != 0) {
        (void)pm_process_unref(ending->process);
        free(ending);
        return;
    }
    session->ending_holder = true;
    session_hold(session);
}

void session_kill_holder(struct session *session)
{
    session->holder_end = HOLDER_KILLED;
    end_holder(session, false);
}

// error: NULL if there is none.
static void answer_all(struct waiter *waiter, json_t *json, const struct runner_error *error)
{
    while (waiter != NULL) {
        struct waiter *next = waiter->next;
        if (error != NULL) {
            call_error(waiter->call, error);
        } else {
            call_result(waiter->call, json_incref(json));
        }
        free(waiter);
        waiter = next;
    }
}

void session_fail_waiters(struct session *session, const struct runner_error *error)
{
    struct waiter *waiters = session->waiters;
    session->waiters = NULL;
    session->stopping = false; // A later stop begins anew.
    session->leave_until = session->end_by = 0;
    answer_all(waiters, NULL, error);
    methods_release(session->server, &session->held); // Who wanted another of this id.
}

uint32_t session_grace(const struct session *session)
{
    return session->grace_ms != 0 ? session->grace_ms : STOP_GRACE_MS;
}

// Until something else is tried: with the time for the record of its end, in which the holder
// answers nobody.
static uint64_t patience_of(const struct session *session)
{
    uint64_t grace = session->stop_grace_ms != 0 ? session->stop_grace_ms : session_grace(session);
    uint64_t asked = session->stop_kind == ASK_KILL ? KILL_MARGIN_MS : grace + STOP_MARGIN_MS;
    return session_record_ms(session->ring) + asked;
}

// The same, once the holder itself was asked to end: it gives its child the grace that it was made
// with, whatever this stop has named.
static uint64_t patience_of_asked(const struct session *session)
{
    uint64_t own = (uint64_t)session_grace(session) + STOP_MARGIN_MS;
    uint64_t patience = patience_of(session);
    own += session_record_ms(session->ring);
    return session->stop_kind != ASK_KILL && own > patience ? own : patience;
}

// All that is tried from now on, one after the other.
static void set_end(struct session *session)
{
    session->end_by = uv_now(&session->server->loop) + patience_of(session) +
                      patience_of_asked(session) + LAST_MS + END_SLACK_MS;
}

// What is tried at the holder itself, one after the other.
static void on_patience_over(uv_timer_t *timer)
{
    struct session *session = timer->data;
    struct runner_error error;
    uint64_t patience = LAST_MS;
    if (session->holder_end == HOLDER_KILLED || session->process == NULL) {
        (void)runner_fail(&error, RUNNER_TIMEOUT,
                          "stop of session '%s'\nneither its child nor its holder ended in time\n"
                          "runner doctor",
                          session->id);
        session_fail_waiters(session, &error);
        return;
    }
    if (session->holder_end == HOLDER_LEFT_ALONE) { // Only it can leave a record.
        session_log(session, LOG_WARNING, "session.stop",
                    "its holder does not end it in time: the holder is asked to end");
        session->holder_end = HOLDER_ASKED;
        end_holder(session, true);
        patience = patience_of_asked(session);
    } else {
        session_log(session, LOG_WARNING, "session.stop",
                    "its holder does not end it in time: the holder is killed");
        session_kill_holder(session);
    }
    (void)uv_timer_start(timer, on_patience_over, patience, 0);
}

void session_end_holder(struct session *session)
{
    if (session->holder_end != HOLDER_LEFT_ALONE &&
        uv_is_active((const uv_handle_t *)session->patience)) {
        return; // That is under way already.
    }
    session->holder_end = HOLDER_LEFT_ALONE;
    session->stop_kind = ASK_STOP;
    session->stop_grace_ms = 0;
    set_end(session);
    on_patience_over(session->patience);
}

void session_ask_holder(struct session *session)
{
    if (session->holder_end == HOLDER_LEFT_ALONE) {
        on_patience_over(session->patience);
    }
}

uint64_t sessions_patience(const struct server *server)
{
    uint64_t now = uv_now(&server->loop), last = now;
    for (const struct session *s = server->sessions; s != NULL; s = s->next) {
        last = !session_is_over(s) && s->end_by > last ? s->end_by : last;
    }
    return last - now;
}

// It answers nobody while it writes down what it has kept, and would lose it if it was ended then.
uint64_t session_record_ms(uint64_t ring)
{
    ring = ring == 0 ? POD_RING_DEFAULT : ring < POD_RING_MAX ? ring : POD_RING_MAX;
    return ring / RECORD_RATE;
}

void session_stop(struct session *session, enum ask_kind kind, uint32_t grace_ms)
{
    bool first = !session->stopping;
    bool worse = first || (kind == ASK_KILL && session->stop_kind != ASK_KILL);
    if (worse) {
        session->stopping = true;
        session->stop_kind = kind;
        session->stop_grace_ms = grace_ms;
        session->holder_end = first ? HOLDER_LEFT_ALONE : session->holder_end;
    }
    // Asking again delays nothing: its holder ends once.
    if (worse && session->holder_end != HOLDER_KILLED) {
        (void)uv_timer_start(session->patience, on_patience_over, patience_of(session), 0);
        set_end(session);
    }
    session->attempts = 0;
    (void)session_ask(session, kind, NULL);
}

bool session_wait(struct session *session, struct call *call, bool destroy)
{
    struct runner_error error;
    struct waiter *waiter = malloc(sizeof *waiter);
    if (waiter == NULL) {
        (void)runner_fail(&error, RUNNER_FAILED, "stop of session '%s'\nout of memory",
                          session->id);
        call_error(call, &error);
        return false;
    }
    *waiter = (struct waiter){session->waiters, call, destroy};
    session->waiters = waiter;
    return true;
}

int session_remove_folder(const char *path)
{
    struct pod_dir dir = POD_DIR_INIT;
    int result = pod_dir_open(path, &dir);
    if (result == PM_OK) { // Else it is none that a session could be found in.
        result = pod_file_rename(&dir, FILE_SESSION, FILE_STARTING);
    } else {
        result = session_passing(result) ? result : PM_ERR_NOT_FOUND;
    }
    pod_dir_close(&dir); // What is open cannot be removed everywhere.
    if (result != PM_OK && result != PM_ERR_NOT_FOUND) {
        return session_passing(result) ? UV_EAGAIN : UV_EACCES;
    }
    return tree_remove(path);
}

// ------------------------------------------------------------------------------------------------
// Removal
// ------------------------------------------------------------------------------------------------

bool session_holder_left(const struct session *session)
{
    // Its record in the registry goes with the Handle's: an end that is only seen is not enough.
    return session->process != NULL ? pm_process_wait(session->process, 0, NULL) == PM_OK
                                    : session_is_free(session);
}

bool session_is_going(const struct session *session)
{
    const struct waiter *waiter = session->waiters;
    while (waiter != NULL && !waiter->destroy) {
        waiter = waiter->next;
    }
    return session->pruning || waiter != NULL;
}

static void on_leave(uv_timer_t *timer)
{
    session_erase(timer->data);
}

// Somebody has a file of it open, who is no holder: tried again for a while.
static bool wait_for_others(struct session *session, int result)
{
    uint64_t now = uv_now(&session->server->loop);
    if (session->leave_until == 0) {
        session->leave_until = now + LEAVE_MS;
    }
    if (!os_is_held(result) || now >= session->leave_until + 2 * KILL_MARGIN_MS) {
        return false;
    }
    (void)uv_timer_start(session->patience, on_leave, HELD_LOOK_MS, 0);
    return true;
}

static void erase_now(struct session *session)
{
    struct server *server = session->server;
    struct runner_error error;
    int result = session_remove_folder(session->path);
    if (result != 0 && wait_for_others(session, result)) {
        return;
    }
    if (result != 0) {
        char show[4600];
        (void)runner_fail(&error, RUNNER_FAILED, "removal of session '%s'\nfolder '%s': %s\n%s",
                          session->id, session->path, uv_strerror(result),
                          doctor_command(DOCTOR_FILE, session->path, show));
        session_log(session, LOG_ERROR, "session.destroy", "%s: %s", error.what, error.why);
        session_fail_waiters(session, &error);
        return;
    }
    struct waiter *waiters = session->waiters;
    json_t *json = session_json(session);
    session->waiters = NULL;
    (void)pm_forget(server->manager, session->id);
    session_log(session, LOG_INFO, "session.destroyed", "record and log are removed");
    session_notify(session, "session.destroyed");
    session_remove(session); // Those who want another of this id go on.
    answer_all(waiters, json, NULL);
    json_decref(json);
}

// It tells the end of the session before its own, and stays for somebody who does not read.
static void wait_for_holder(struct session *session)
{
    uint64_t now = uv_now(&session->server->loop);
    struct runner_error error;
    if (session->leave_until == 0) {
        session->leave_until = now + LEAVE_MS;
    }
    if (now >= session->leave_until + KILL_MARGIN_MS) {
        (void)runner_fail(&error, RUNNER_TIMEOUT,
                          "removal of session '%s'\nit has ended, and its holder does not leave\n"
                          "runner doctor",
                          session->id);
        session_fail_waiters(session, &error);
        return;
    }
    if (now >= session->leave_until) { // Its record is there.
        session_kill_holder(session);
    }
    (void)uv_timer_start(session->patience, on_leave, LEAVE_LOOK_MS, 0);
}

void session_erase(struct session *session)
{
    (void)uv_timer_stop(session->patience);
    if (session_holder_left(session)) {
        erase_now(session);
    } else {
        wait_for_holder(session);
    }
}
