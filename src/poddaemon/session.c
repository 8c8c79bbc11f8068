// The states of the session: see daemon.h.
#include <string.h>

#include "poddaemon/daemon.h"

#define RECORD_PAUSE_MIN_MS 100
#define RECORD_PAUSE_MAX_MS 5000
#define KILL_AGAIN_MS 100
// The last words of the keeper and of the manager.
#define CLOSE_MS 2000
// A writer that stays so long starts the orphan clock anew; a shorter one only stops it.
#define ORPHAN_RESET_MS 60000u

// ------------------------------------------------------------------------------------------------
// The manager's work
// ------------------------------------------------------------------------------------------------

static void on_dispatch_timer(uv_timer_t *timer)
{
    struct pod *pod = timer->data;
    pod_session_dispatch(pod);
}

static void on_manager(void *user)
{
    pod_session_dispatch(user);
}

static void go_on_ending(struct pod *pod);

void pod_session_dispatch(struct pod *pod)
{
    int64_t timeout_ms = PM_FOREVER;
    if (pod->manager == NULL) {
        return;
    }
    (void)pm_dispatch(pod->manager);
    go_on_ending(pod); // Not in a callback, where the manager could not be closed.
    if (pod->manager != NULL && pm_loop_timeout(pod->manager, &timeout_ms) == PM_OK &&
        timeout_ms != PM_FOREVER) {
        (void)uv_timer_start(&pod->dispatch_timer, on_dispatch_timer, (uint64_t)timeout_ms, 0);
    } else {
        (void)uv_timer_stop(&pod->dispatch_timer);
    }
}

int pod_session_prepare(struct pod *pod)
{
    struct pm_options options = PM_OPTIONS_INIT;
    options.loop = PM_LOOP_CALLER;
    options.leak_sweep_ms = UINT32_MAX;
    options.stop_watch_ms = UINT32_MAX;
    options.prestart_keeper = true;
    return pm_open(&options, &pod->manager, NULL);
}

static int watch_manager(struct pod *pod)
{
    pm_native native;
    int result = pm_loop_native(pod->manager, &native);
    return result != PM_OK
               ? result
               : pod_watch_open(&pod->loop, &pod->manager_watch, native, on_manager, pod);
}

// ------------------------------------------------------------------------------------------------
// Begin
// ------------------------------------------------------------------------------------------------

static void record_or_give_up(struct pod *pod);

static void on_told(void *user, enum pod_process_event event)
{
    struct pod *pod = user;
    if (event == POD_PROCESS_RELISTEN) {
        pod_listen_again(pod);
    } else {
        pod_note(pod, "asked to end by the system");
        pod_session_stop(pod, 0);
        record_or_give_up(pod);
    }
}

static void on_leave(uv_timer_t *timer)
{
    struct pod *pod = timer->data;
    pod_note(pod, pod->state == POD_SESSION_WAITING ? "no START came" : "nobody claims the exit");
    pod_session_leave(pod);
}

int pod_session_init(struct pod *pod)
{
    uv_timer_t *const timers[] = {&pod->dispatch_timer, &pod->accept_timer, &pod->drain_timer,
                                  &pod->stop_timer,     &pod->record_timer, &pod->leave_timer,
                                  &pod->redraw_timer,   &pod->orphan_timer, &pod->wait_timer};
    for (size_t i = 0; i < sizeof timers / sizeof timers[0]; i++) {
        (void)uv_timer_init(&pod->loop, timers[i]);
        timers[i]->data = pod;
    }
    int result = watch_manager(pod);
    if (result == PM_OK) {
        result = pod_process_listen(&pod->loop, &pod->process, on_told, pod);
    }
    if (result == PM_OK) {
        result = pod_listen(pod);
    }
    if (result == PM_OK) {
        (void)uv_timer_start(&pod->leave_timer, on_leave, POD_START_MS, 0);
    }
    return result;
}

static void note_strays(struct pod *pod, int result)
{
    if (result != PM_OK) {
        pod_fault(pod, POD_FAULT_CHILD, result, "who has left its session");
    }
}

void pod_session_started(struct pod *pod)
{
    pod->state = POD_SESSION_RUNNING;
    (void)uv_timer_stop(&pod->leave_timer);
    pod_note(pod, "started: process %llu, tree held by %s", (unsigned long long)pod->child_pid,
             pod->containment);
    note_strays(pod, pod_strays_begin(&pod->strays, pod->child_pid));
    pod->orphan_since = uv_now(&pod->loop);
    pod_session_writer_changed(pod);
    pod_session_dispatch(pod);
}

// ------------------------------------------------------------------------------------------------
// Stop: steps that are delivered without waiting, and a timer between them
// ------------------------------------------------------------------------------------------------

static void deliver(struct pod *pod, enum pm_stop_action action)
{
    // A wait of one millisecond is the shortest there is for a last step.
    struct pm_stop_plan plan = {.steps_count = 1, .steps = {{action, PM_SCOPE_TREE, 1}}};
    struct pm_stop_report report = PM_STOP_REPORT_INIT;
    note_strays(pod, pod_strays_note(&pod->strays));
    (void)pm_process_stop(pod->child, &plan, &report);
    note_strays(pod, action == PM_STOP_KILL ? pod_strays_kill(&pod->strays)
                                            : pod_strays_terminate(&pod->strays));
    if (report.step_results[0] == PM_OK && !pod->child_ended && !report.already_ended) {
        pod->stopping.action = action;
    }
}

static void on_stop_timer(uv_timer_t *timer)
{
    struct pod *pod = timer->data;
    uint32_t left_ms = pod->stopping.after_hang_up_ms;
    if (left_ms == 0) {
        pod_session_kill(pod);
        return;
    }
    pod->stopping.after_hang_up_ms = 0;
    (void)uv_timer_start(timer, on_stop_timer, left_ms, 0);
    pod_note(pod, "its terminal hangs up");
    pod_process_hang_up(pod->child);
    pod_session_dispatch(pod);
}

// A shell at a terminal ignores SIGTERM. What tells it to end is that its terminal hangs up. Most
// others have no handler for that, and would die of it in the middle of the one that they have for
// SIGTERM: they get half of the time.
static void ask_to_end(struct pod *pod, uint32_t grace_ms)
{
    bool terminal = pod->config.mode == POD_MODE_PTY;
    bool waits = terminal && grace_ms > 1 && !pod_process_ignores_stop(pod->child_pid);
    uint32_t first_ms = waits ? grace_ms / 2 : grace_ms;
    pod->stopping.after_hang_up_ms = grace_ms - first_ms;
    (void)uv_timer_start(&pod->stop_timer, on_stop_timer, first_ms, 0);
    deliver(pod, PM_STOP_TERMINATE);
    if (terminal && !waits) {
        pod_process_hang_up(pod->child);
    }
}

static bool all_output_ended(const struct pod *pod);
static void begin_drain(struct pod *pod);

// The child has ended before: what is left of its output waits for no reader any more.
static void stop_waiting(struct pod *pod)
{
    if (pod->stopping.active) {
        return;
    }
    pod->stopping.active = true;
    pod_child_flow(pod);
    if (!all_output_ended(pod)) {
        begin_drain(pod);
    }
}

void pod_session_stop(struct pod *pod, uint32_t grace_ms)
{
    if (pod->state == POD_SESSION_WAITING) {
        pod_session_leave(pod);
        return;
    }
    if (pod->child_ended) {
        stop_waiting(pod);
        return;
    }
    if (pod->stopping.active) {
        return;
    }
    pod->stopping.active = true;
    pod_child_flow(pod); // Who shall end must not wait for somebody to read.
    grace_ms = grace_ms > 0 ? grace_ms : pod->config.grace_ms;
    pod_note(pod, "stop, %u ms of grace", (unsigned)grace_ms);
    ask_to_end(pod, grace_ms);
    pod_session_dispatch(pod);
}

void pod_session_kill(struct pod *pod)
{
    if (pod->state == POD_SESSION_WAITING) {
        pod_session_leave(pod);
        return;
    }
    if (pod->child_ended) {
        stop_waiting(pod);
        record_or_give_up(pod);
        return;
    }
    pod->stopping.active = true;
    pod_child_flow(pod);
    if (!pod->stopping.killed) {
        pod_note(pod, "kill");
    }
    pod->stopping.killed = true;
    pod->stopping.after_hang_up_ms = 0;
    // Once more if it does not die: one of the tree may just have made another.
    (void)uv_timer_start(&pod->stop_timer, on_stop_timer, KILL_AGAIN_MS, 0);
    deliver(pod, PM_STOP_KILL);
    pod_session_dispatch(pod);
}

// ------------------------------------------------------------------------------------------------
// End
// ------------------------------------------------------------------------------------------------

static bool all_output_ended(const struct pod *pod)
{
    return pod->channels[POD_CHANNEL_OUT].ending.ended &&
           pod->channels[POD_CHANNEL_ERR].ending.ended;
}

static void try_to_record(struct pod *pod);

static void on_record_timer(uv_timer_t *timer)
{
    try_to_record(timer->data);
}

// Who is connected is told, and may claim it; nobody else will ever know.
static void give_up_record(struct pod *pod, const char *why)
{
    pod_note(pod,
             pod->record_named ? "the record may not be safe from an end of the system: %s"
                               : "the exit is not recorded: %s",
             why);
    pod->unrecorded = !pod->record_named; // Else it is where others find it.
    pod_session_recorded(pod);
}

static void try_to_record(struct pod *pod)
{
    int result = pod_record_write(pod);
    if (result == PM_OK) {
        pod_session_recorded(pod);
        return;
    }
    if (pod_dir_is_removed(&pod->dir)) {
        give_up_record(pod, "the folder is gone");
        return;
    }
    uint64_t pause = pod->record_pause_ms * 2;
    pause = pause < RECORD_PAUSE_MIN_MS   ? RECORD_PAUSE_MIN_MS
            : pause > RECORD_PAUSE_MAX_MS ? RECORD_PAUSE_MAX_MS
                                          : pause;
    pod->record_pause_ms = pause;
    (void)uv_timer_start(&pod->record_timer, on_record_timer, pause, 0);
}

// Nothing else is left to be done, and we are told to end: by a signal, or by KILL.
static void record_or_give_up(struct pod *pod)
{
    if (pod->state != POD_SESSION_ENDED) {
        return;
    }
    try_to_record(pod);
    if (pod->state == POD_SESSION_ENDED) {
        give_up_record(pod, "asked to end");
    }
}

// All output first, then the record, then the news.
static void go_on_ending(struct pod *pod)
{
    if (!pod->child_ended || !all_output_ended(pod) || pod->state != POD_SESSION_RUNNING) {
        return;
    }
    (void)uv_timer_stop(&pod->drain_timer);
    pod->state = POD_SESSION_ENDED;
    for (unsigned i = 0; i < POD_CHANNELS; i++) {
        pod->exit.end[i] = pod->channels[i].ring.end;
    }
    try_to_record(pod);
    pod_conns_pump(pod);
}

void pod_session_output_ended(struct pod *pod)
{
    pod_conns_pump(pod);
    go_on_ending(pod);
}

// What the child itself has left may be held up. Behind as much as a pipe can have held there is
// only what others have written since.
static bool its_own_is_held(const struct pod *pod)
{
    for (unsigned i = 0; i < POD_CHANNELS; i++) {
        const struct pod_channel_state *state = &pod->channels[i];
        if (state->held && state->ring.end - state->end_at_exit < POD_PIPE_MAX) {
            return true;
        }
    }
    return false;
}

// The time is over. That counts only if nothing is there to be read: the whole machine, or this
// process alone, may have slept through it, or a trouble may have kept us from reading.
static void on_drained(uv_timer_t *timer)
{
    struct pod *pod = timer->data;
    bool first = pod->last_looks == 0;
    if (its_own_is_held(pod)) { // There is more, and the writer reads it or is given up.
        begin_drain(pod);
        return;
    }
    pod->byte_seen = false;
    for (unsigned i = 0; i < POD_CHANNELS; i++) {
        pod_source_look(&pod->channels[i].source);
    }
    if (all_output_ended(pod) || uv_is_active((uv_handle_t *)timer)) {
        return; // A byte has bought more time.
    }
    if ((first || pod->byte_seen) && pod->last_looks < POD_LAST_LOOKS) {
        pod->last_looks++;
        (void)uv_timer_start(timer, on_drained, 1, 0); // After another round of the loop.
        return;
    }
    for (unsigned i = 0; i < POD_CHANNELS; i++) {
        pod_child_end_output(pod, i, true);
    }
}

static void start_drain(struct pod *pod)
{
    pod->last_looks = 0;
    (void)uv_timer_start(&pod->drain_timer, on_drained, pod->config.drain_ms, 0);
}

static void begin_drain(struct pod *pod)
{
    pod->drain_until = uv_now(&pod->loop) + (POD_DRAIN_ROUNDS - 1) * (uint64_t)pod->config.drain_ms;
    start_drain(pod);
}

// Somebody that the child left behind may hold its output open, and write for ever.
void pod_session_byte_seen(struct pod *pod)
{
    pod->byte_seen = true;
    if (pod->child_ended && !all_output_ended(pod) && uv_now(&pod->loop) < pod->drain_until) {
        start_drain(pod);
    }
}

static void fill_exit(struct pod *pod, const struct pm_exit *record)
{
    struct pod_exit *exit = &pod->exit;
    exit->kind = (uint8_t)record->kind;
    exit->core_dumped = record->core_dumped;
    exit->stop_action = (uint8_t)pod->stopping.action;
    exit->usage_known = record->usage_known;
    exit->code = record->code;
    exit->signal = (uint32_t)record->signal;
    exit->started_wall_ms = (uint64_t)record->started_wall_ms;
    exit->ended_wall_ms = (uint64_t)record->ended_wall_ms;
    exit->user_us = record->user_us;
    exit->system_us = record->system_us;
    exit->max_rss_kib = record->max_rss_kib;
}

void pod_session_child_ended(struct pod *pod, const struct pm_exit *record)
{
    static const char *const kinds[] = {"?", "exited", "signaled", "lost"};
    if (pod->child_ended) {
        return;
    }
    (void)uv_timer_stop(&pod->stop_timer);
    (void)uv_timer_stop(&pod->orphan_timer);
    fill_exit(pod, record);
    pod_note(pod, "the child has ended: %s, code %u, signal %d", kinds[record->kind & 3],
             (unsigned)record->code, record->signal);
    if (pod->stopping.active) { // Who was asked to end ends as a whole.
        deliver(pod, PM_STOP_KILL);
    }
    pod_strays_clear(&pod->strays); // The record needs descriptors.
    pod->child_ended = true;
    for (unsigned i = 0; i < POD_CHANNELS; i++) {
        pod->channels[i].end_at_exit = pod->channels[i].ring.end;
        pod_source_release(&pod->channels[i].source);
    }
    pod_child_drop_input(pod);
    if (!all_output_ended(pod)) {
        begin_drain(pod);
    }
}

void pod_session_recorded(struct pod *pod)
{
    pod->state = POD_SESSION_EXITED;
    (void)uv_timer_stop(&pod->record_timer); // Whoever has tried it now: once is enough.
    if (!pod->unrecorded) {
        pod_note(pod, "the exit is recorded");
    }
    (void)uv_timer_start(&pod->leave_timer, on_leave, POD_LINGER_MS, 0);
    pod_conns_pump(pod);
    pod_session_peers_changed(pod);
}

int pod_session_claim(struct pod *pod)
{
    if (pod->state != POD_SESSION_EXITED) {
        return -POD_E_STATE;
    }
    if (pod->unrecorded) {
        return pod->claimed ? -POD_E_GONE : 0;
    }
    switch (pod_file_rename(&pod->dir, POD_FILE_EXIT, POD_FILE_CLAIMED)) {
    case PM_OK:
        pod_note(pod, "the exit is claimed");
        return 0;
    case PM_ERR_NOT_FOUND:
        return -POD_E_GONE;
    default:
        return -POD_E_IO;
    }
}

// The record is on disk: as soon as nobody waits for anything there is no reason to be here.
void pod_session_peers_changed(struct pod *pod)
{
    if (pod->state != POD_SESSION_EXITED || pod->leaving) {
        return;
    }
    for (struct pod_conn *conn = pod->conns; conn != NULL; conn = conn->next) {
        if (!pod->claimed || !pod_conn_is_idle(conn)) {
            return;
        }
    }
    pod_session_leave(pod);
}

static void close_all(uv_handle_t *handle, void *unused)
{
    (void)unused;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

void pod_session_leave(struct pod *pod)
{
    if (pod->leaving) {
        return;
    }
    pod->leaving = true;
    pod_note(pod, "leaves");
    pod_listener_close(&pod->listener, &pod->dir);
    pod_conns_all_close(pod);
    pod_watch_close(&pod->manager_watch);
    pod_process_close(&pod->process);
    pod_child_close(pod);
    pm_manager *manager = pod->manager;
    pod->manager = NULL;
    (void)pm_close(manager, CLOSE_MS, NULL); // Ends a child that was started and could not be kept.
    uv_walk(&pod->loop, close_all, NULL);    // The timers: the loop ends when they are closed.
}

// ------------------------------------------------------------------------------------------------
// Orphans: a session may have a time to live without a writer. A writer that comes and goes at
// once, as a runner does that crashes again and again, stops the clock and does not turn it back.
// ------------------------------------------------------------------------------------------------

static void on_orphaned(uv_timer_t *timer)
{
    struct pod *pod = timer->data;
    pod_note(pod, "an orphan for %u s", (unsigned)pod->config.orphan_s);
    pod_session_stop(pod, 0);
}

void pod_session_writer_changed(struct pod *pod)
{
    pod->given_up = false;
    pod_child_flow(pod);
    if (pod->config.orphan_s == 0 || pod->state != POD_SESSION_RUNNING || pod->child_ended) {
        return;
    }
    uint64_t now = uv_now(&pod->loop), limit = pod->config.orphan_s * UINT64_C(1000);
    uint64_t passed = now - pod->orphan_since;
    pod->orphan_since = now;
    if (pod->rules.writer != NULL) {
        if (uv_is_active((uv_handle_t *)&pod->orphan_timer)) {
            pod->orphan_ms += passed;
        }
        (void)uv_timer_stop(&pod->orphan_timer);
        return;
    }
    // `passed` is how long the writer was there.
    if (passed >= (limit < ORPHAN_RESET_MS ? limit : ORPHAN_RESET_MS)) {
        pod->orphan_ms = 0;
    }
    uint64_t left = pod->orphan_ms < limit ? limit - pod->orphan_ms : 0;
    (void)uv_timer_start(&pod->orphan_timer, on_orphaned, left, 0);
}
