// A service whose agent lives in a pod, as a session of the runner with pipes: it goes on while no
// runner is there. All of its output is read from where the journal ends, so that no line is lost,
// and none is taken twice, whenever a runner was killed.
//
//   CREATING --session.create--> CONNECTING <--attached--> ATTACHED --EXIT--> REMOVING --> over
//       ^ no session                ^ a session of this journal                  ^
//       start                       start                      a record on disk -+
#include "runner/transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "poddaemon/folder.h"
#include "runner/feed.h"
#include "runner/podjournal.h"
#include "runner/service.h"
#include "runner/session.h"

#define RETRY_MS 50
#define STUCK_MS 1000      // The journal cannot be read or written now.
#define TAKE_OVER_MS 3000  // Of somebody else who is writing to it.
#define GONE_MS 10000      // A session that should be removed and is not: it is given up.
#define RELEASE_MS 1000    // For what it was not given yet, when we end and it goes on.
#define MUTE_MS 3000       // From the end of its output to its own; others may hold that as long.
#define KILLED_MS 6000     // From the kill to being given up: its holder may be asked first.
#define KILLED_MAX_MS 9000 // The runner does not wait for longer when it ends.
#define KILLED_ASK_MS 3000 // Its holder is asked by then, where its own times would be longer.

enum podchild_state {
    POD_CHILD_BEGINNING = 0,
    POD_CHILD_CLEARING, // A session of another journal is removed first.
    POD_CHILD_CREATING,
    POD_CHILD_CONNECTING,
    POD_CHILD_ATTACHED,
    POD_CHILD_REMOVING,
    POD_CHILD_OVER
};

struct podchild {
    struct transport transport;
    struct transport_options options;
    char id[RUNNER_ID_MAX + 1];
    enum podchild_state state;
    struct journal journal;
    struct feed feed;
    struct podlink *link;
    uint32_t status; // The request for its state: before it is attached, to tell who it is; after
                     // that, because only then nobody else types; then, for what it has.
    bool asking;
    bool knows_input, told, resumed, stopping, closing_input;
    bool released;        // We end, and it goes on. Nobody is told anything more.
    const char *closed;   // What it has closed, since the timer runs; NULL: nothing.
    bool mute;            // That is over, and the pod was asked.
    bool ran;             // There was a session.
    bool troubled, stuck; // The journal cannot be written, and was told; so a line was not taken.
    uint64_t pid, input;  // input: bytes that have been given to it, in all.
    struct journal_input *giving; // The first of the queue that is not given; NULL: all are.
    uint64_t given, asked;        // End of the last one that was, and of what it was asked for.
    uint64_t connecting_since;
    bool has_exit;
    struct pm_exit exit;
    struct runner_error failed;
    uv_timer_t timer, stop_timer;
    unsigned handles, calls; // Not closed, not answered yet.
};

static void connect_now(struct podchild *pod);
static void retry(struct podchild *pod, uint64_t ms);
static void create(struct podchild *pod);

static struct session *session_of(const struct podchild *pod)
{
    return session_find(pod->options.server, pod->id);
}

// ------------------------------------------------------------------------------------------------
// Memory
// ------------------------------------------------------------------------------------------------

static void free_pod(struct podchild *pod)
{
    if (pod->state != POD_CHILD_OVER || pod->handles > 0 || pod->calls > 0) {
        return;
    }
    feed_clear(&pod->feed);
    journal_close(&pod->journal);
    free(pod);
}

static void on_timer_closed(uv_handle_t *handle)
{
    struct podchild *pod = handle->data;
    pod->handles--;
    free_pod(pod);
}

static void drop_link(struct podchild *pod)
{
    podlink_close(pod->link);
    pod->link = NULL;
    pod->knows_input = pod->asking = false;
}

static void let_go(struct podchild *pod)
{
    pod->state = POD_CHILD_OVER;
    pod->options.server->services->leaving -= pod->released ? 1 : 0;
    drop_link(pod);
    uv_close((uv_handle_t *)&pod->timer, on_timer_closed);
    uv_close((uv_handle_t *)&pod->stop_timer, on_timer_closed);
}

static void finish(struct podchild *pod)
{
    struct transport_handler handler = pod->options.handler;
    const struct transport_ended ended = {.started = pod->ran,
                                          .failed =
                                              pod->failed.code != RUNNER_OK ? &pod->failed : NULL,
                                          .exit = pod->exit};
    if (pod->state != POD_CHILD_OVER) {
        pod->calls++; // It lives as long as the handler is told.
        let_go(pod);
        handler.ended(handler.user, &ended);
        pod->calls--;
        free_pod(pod);
    }
}

// What was not delivered stands in the journal, for the next runner.
static void leave(struct podchild *pod)
{
    if (pod->state != POD_CHILD_OVER) {
        let_go(pod);
        journal_close(&pod->journal);
    }
}

// ------------------------------------------------------------------------------------------------
// The session
// ------------------------------------------------------------------------------------------------

// A call of the runner's own methods. Steals params.
static void ask_runner(struct podchild *pod, const char *method, json_t *params, call_done *done)
{
    struct runner_error error;
    struct call *call = call_of_our_own(done, pod);
    pod->calls++;
    if (call == NULL || params == NULL) {
        (void)runner_fail(&error, RUNNER_FAILED, "call of %s\nout of memory", method);
        free(call);
        done(pod, NULL, &error);
    } else {
        methods_call(pod->options.server, method, call, params);
    }
    json_decref(params);
}

// false: it was let go of meanwhile.
static bool is_answered(struct podchild *pod)
{
    pod->calls--;
    if (pod->state == POD_CHILD_OVER) {
        free_pod(pod);
        return false;
    }
    return true;
}

static void take_exit_json(struct podchild *pod, const json_t *session)
{
    const json_t *record = json_object_get(session, "exit");
    const char *kind = json_string_value(json_object_get(record, "kind"));
    if (pod->has_exit || kind == NULL) {
        return;
    }
    pod->exit.kind = strcmp(kind, "exited") == 0     ? PM_EXIT_EXITED
                     : strcmp(kind, "signaled") == 0 ? PM_EXIT_SIGNALED
                                                     : PM_EXIT_LOST;
    pod->exit.code = (uint32_t)json_integer_value(json_object_get(record, "code"));
    pod->exit.signal = (int)json_integer_value(json_object_get(record, "signal"));
}

static void on_removed(void *user, json_t *result, const struct runner_error *error)
{
    struct podchild *pod = user;
    if (!is_answered(pod)) {
        return;
    }
    take_exit_json(pod, result);
    (void)uv_timer_stop(&pod->timer);
    bool cleared = pod->state == POD_CHILD_CLEARING;
    if (error != NULL && error->code != RUNNER_NO_SESSION && cleared) {
        pod->failed = *error;
        finish(pod);
        return;
    }
    // One that could not be removed is no longer ours: the next start removes it.
    journal_end(&pod->journal);
    if (cleared && !pod->stopping) {
        create(pod);
    } else {
        finish(pod);
    }
}

static void on_remove_timer(uv_timer_t *timer)
{
    struct podchild *pod = timer->data;
    if (pod->state == POD_CHILD_CLEARING) {
        (void)
            runner_fail(&pod->failed, RUNNER_TIMEOUT,
                        "start of service '%s'\nan old session %s cannot be removed\nrunner get %s",
                        pod->options.name, pod->id, pod->id);
    }
    journal_end(&pod->journal);
    finish(pod);
}

static void remove_session(struct podchild *pod, enum podchild_state state)
{
    uint32_t grace = pod->options.config->grace_ms;
    const struct session *session = session_of(pod);
    uint64_t longest = grace, record = session_record_ms(pod->options.config->ring);
    if (session != NULL) { // It may be of another configuration.
        uint64_t own = session_grace(session), kept = session_record_ms(session->ring);
        longest = own > longest ? own : longest;
        record = kept > record ? kept : record;
    }
    // Twice: its holder may have to be asked to end, as its child was.
    uint64_t patience = GONE_MS + 2 * (longest + record);
    pod->state = state;
    drop_link(pod);
    (void)uv_timer_start(&pod->timer, on_remove_timer, patience, 0);
    ask_runner(pod, "session.destroy",
               json_pack("{s:s, s:I}", "id", pod->id, "grace_ms", (json_int_t)grace), on_removed);
}

// ------------------------------------------------------------------------------------------------
// What it says
// ------------------------------------------------------------------------------------------------

// What the journal answered. false: not now; once in a row it is told.
static bool wrote(struct podchild *pod, int result)
{
    struct runner_log *log = pod->options.server->log;
    if (result != 0 && !pod->troubled) {
        log_write(log, LOG_ERROR, "service.journal", pod->options.name,
                  "%s: %s; what it says waits in its pod", pod->journal.path, uv_strerror(result));
    } else if (result == 0 && pod->troubled) {
        log_write(log, LOG_INFO, "service.journal", pod->options.name, "it is written again");
    }
    pod->troubled = result != 0;
    return result == 0;
}

static bool on_line(void *user, const char *line, size_t size, uint64_t end)
{
    struct podchild *pod = user;
    if (pod->state == POD_CHILD_OVER) {
        return true;
    }
    int result = line == NULL ? journal_drop(&pod->journal, end)
                              : journal_line(&pod->journal, line, size, end);
    if (!wrote(pod, result) && !pod->stopping) {
        pod->stuck = true;
        return false;
    }
    pod->options.handler.line(pod->options.handler.user, line, size, end);
    return true;
}

static void take_output(struct podchild *pod, const struct pod_output *output)
{
    if (output->channel == POD_CHANNEL_OUT) {
        pod->stuck = false;
        bool fed = feed_copy(&pod->feed, output->data.data, output->data.size, on_line, pod);
        if (!fed || pod->stuck) { // For want of memory or room: later, from where it was.
            retry(pod, STUCK_MS);
        }
        return;
    }
    pod->options.handler.said(pod->options.handler.user, output->data.data, output->data.size);
    (void)wrote(pod, journal_said(&pod->journal, output->offset + output->data.size));
}

static void take_gap(struct podchild *pod, const struct pod_gap *gap)
{
    if (gap->channel == POD_CHANNEL_OUT) {
        feed_gap(&pod->feed, gap->to);
        pod->options.handler.gap(pod->options.handler.user, gap->from, gap->to);
    } else {
        (void)wrote(pod, journal_said(&pod->journal, gap->to));
    }
}

static void take_exit(struct podchild *pod, const struct pod_exit *record)
{
    pod->has_exit = true;
    pod->exit = (struct pm_exit){.size = sizeof pod->exit,
                                 .kind = (enum pm_exit_kind)record->kind,
                                 .code = record->code,
                                 .signal = (int)record->signal,
                                 .core_dumped = record->core_dumped != 0,
                                 .started_wall_ms = (int64_t)record->started_wall_ms,
                                 .ended_wall_ms = (int64_t)record->ended_wall_ms};
}

// ------------------------------------------------------------------------------------------------
// What is said to it
// ------------------------------------------------------------------------------------------------

static void ask_state(struct podchild *pod)
{
    int64_t number = pod_client_status(podlink_client(pod->link));
    pod->status = number > 0 ? (uint32_t)number : 0;
    pod->asking = number > 0;
    pod->asked = pod->given;
    podlink_flush(pod->link);
}

// The end of a line stands in the journal before any of it is there. false: it is held back.
static bool begin_line(struct podchild *pod, struct journal_input *input)
{
    if (input->end == 0) {
        uint64_t end = pod->input + input->size;
        int result = journal_note(&pod->journal);
        result = result == 0 ? journal_give(&pod->journal, input, end) : result;
        if (!wrote(pod, result) && !pod->stopping) {
            retry(pod, STUCK_MS);
            return false;
        }
        input->end = end;
    }
    return true;
}

static void type_more(struct podchild *pod)
{
    while (pod->link != NULL && pod->knows_input && pod->giving != NULL) {
        struct journal_input *input = pod->giving;
        if (!begin_line(pod, input)) {
            return;
        }
        int64_t some = pod_client_input(podlink_client(pod->link), input->text + input->sent,
                                        input->size - input->sent);
        if (some <= 0) {
            break;
        }
        input->sent += (size_t)some;
        pod->input += (uint64_t)some;
        if (input->sent == input->size) {
            pod->given = input->end;
            pod->giving = input->next;
        }
        podlink_flush(pod->link);
    }
    if (pod->link != NULL && pod->knows_input && pod->giving == NULL && pod->closing_input) {
        pod->closing_input = false;
        (void)pod_client_close_input(podlink_client(pod->link));
        podlink_flush(pod->link);
    }
    if (pod->link != NULL && pod->knows_input && !pod->asking && pod->given > pod->asked) {
        ask_state(pod);
    }
}

static int pod_write(struct transport *transport, char *line, size_t size, const char *answers)
{
    struct podchild *pod = (struct podchild *)transport;
    struct journal_state *state = &pod->journal.state;
    int result = pod->stopping || pod->state >= POD_CHILD_REMOVING                  ? UV_EPIPE
                 : state->queued > 0 && state->queued + size > TRANSPORT_UNSENT_MAX ? UV_ENOBUFS
                                                                                    : 0;
    if (result != 0) {
        free(line);
        return result;
    }
    struct journal_input *input = journal_queue(state, line, size, answers);
    if (input == NULL) {
        return UV_ENOMEM;
    }
    pod->giving = pod->giving != NULL ? pod->giving : input;
    (void)wrote(pod, journal_note(&pod->journal)); // If not now, then before it is given.
    type_more(pod);
    return 0;
}

static size_t pod_unsent(const struct transport *transport)
{
    return ((const struct podchild *)transport)->journal.state.queued;
}

static void pod_keep(struct transport *transport, json_t *state)
{
    struct podchild *pod = (struct podchild *)transport;
    if (state != NULL) {
        (void)wrote(pod, journal_keep(&pod->journal, state));
    }
}

// ------------------------------------------------------------------------------------------------
// The connection
// ------------------------------------------------------------------------------------------------

static void on_retry(uv_timer_t *timer)
{
    connect_now(timer->data);
}

static void retry(struct podchild *pod, uint64_t ms)
{
    if (pod->released) {
        leave(pod);
        return;
    }
    drop_link(pod);
    if (pod->state == POD_CHILD_ATTACHED) { // Who has taken it has it for a while.
        pod->connecting_since = uv_now(&pod->options.server->loop);
        pod->state = POD_CHILD_CONNECTING;
    }
    if (pod->state == POD_CHILD_CONNECTING) {
        (void)uv_timer_start(&pod->timer, on_retry, ms, 0);
    }
}

static void attach(struct podchild *pod)
{
    uint64_t waited = uv_now(&pod->options.server->loop) - pod->connecting_since;
    const struct pod_attach request = {.role = POD_ROLE_WRITER,
                                       .flags = waited > TAKE_OVER_MS ? POD_ATTACH_TAKE_OVER : 0,
                                       .from = {pod->journal.state.out, pod->journal.state.err}};
    feed_clear(&pod->feed); // What had come of a line comes again.
    pod->feed.end = pod->journal.state.out;
    if (pod_client_attach(podlink_client(pod->link), &request) < 0) {
        retry(pod, RETRY_MS);
    }
}

static void tell_started(struct podchild *pod)
{
    struct journal_state *state = &pod->journal.state;
    json_t *none = json_object();
    const struct transport_started started = {.pid = pod->pid,
                                              .kept = !pod->resumed         ? NULL
                                                      : state->kept != NULL ? state->kept
                                                                            : none};
    json_t *open = pod->resumed ? json_copy(state->unanswered) : NULL; // Answers end them.
    pod->told = true;
    pod->options.handler.started(pod->options.handler.user, &started);
    if (pod->link != NULL && json_array_size(open) > 0) { // What an earlier runner left open.
        pod->options.handler.open(pod->options.handler.user, open);
    }
    json_decref(open);
    json_decref(none);
}

// Where the input ends is known only now. If that is in the middle of a line, its rest was lost
// with the runner or the connection, and the agent sees a line that is no message. What has not
// come is said anew, that of an earlier runner, too.
static void take_state(struct podchild *pod, uint64_t input)
{
    struct journal_state *state = &pod->journal.state;
    bool fine = journal_give_again(state, input);
    pod->giving = state->queue;
    pod->given = pod->asked = 0;
    pod->input = input;
    if (!fine || (!wrote(pod, journal_resume(&pod->journal)) && !pod->stopping)) {
        retry(pod, STUCK_MS);
        return;
    }
    pod->knows_input = true;
    type_more(pod);
}

static void on_mute(uv_timer_t *timer);

// It reads nothing any more, or says nothing any more. It may be about to end; if it is still there
// after a while it is of no use.
static void look_whether_deaf(struct podchild *pod, const struct pod_state *state, uint64_t input)
{
    bool lost = input < pod->asked; // The pod has dropped what it cannot give it.
    bool late = pod->mute;
    pod->mute = false;
    if (pod->stopping || pod->released || state->state != POD_SESSION_RUNNING) {
        return;
    }
    if (late) {
        pod->options.handler.deaf(pod->options.handler.user, pod->closed);
    } else if (lost && pod->closed == NULL) {
        pod->closed = "it has closed its input";
        (void)uv_timer_start(&pod->stop_timer, on_mute, MUTE_MS, 0);
    }
}

static void on_mute(uv_timer_t *timer)
{
    struct podchild *pod = timer->data;
    if (pod->link != NULL && pod->knows_input) {
        pod->mute = true;
        ask_state(pod);
    } else if (pod->state <= POD_CHILD_ATTACHED) { // It is connected to anew.
        (void)uv_timer_start(timer, on_mute, MUTE_MS, 0);
    }
}

static void take_end(struct podchild *pod, const struct pod_end *end)
{
    if (end->channel == POD_CHANNEL_OUT && !pod->stopping && !pod->released) {
        pod->closed = "it has closed its output";
        (void)uv_timer_start(&pod->stop_timer, on_mute, MUTE_MS, 0);
    }
}

static void on_state(struct podchild *pod, const struct pod_state *state)
{
    uint64_t input = state->input_taken + state->input_queued;
    if (state->request != pod->status) {
        return;
    }
    pod->asking = false;
    pod->pid = state->child_pid;
    if (pod->state != POD_CHILD_ATTACHED) {
        attach(pod);
    } else if (!pod->knows_input) {
        take_state(pod, input);
    } else {
        look_whether_deaf(pod, state, input);
        (void)wrote(pod, journal_had(&pod->journal, input));
        type_more(pod);
        if (pod->released && pod->journal.state.queue == NULL) {
            leave(pod);
        }
    }
}

// While we wait for it to take what is left: what it says is the next runner's.
static bool is_left_to_the_next(const struct podchild *pod, const struct pod_message *message)
{
    return pod->released && (message->type == POD_OUTPUT || message->type == POD_GAP);
}

static void on_message(void *user, const struct pod_message *message)
{
    struct podchild *pod = user;
    if (is_left_to_the_next(pod, message)) {
        return;
    }
    switch (message->type) {
    case POD_WELCOME:
        ask_state(pod);
        break;
    case POD_ATTACHED: // Its output follows: whoever reads it has to be there.
        pod->state = POD_CHILD_ATTACHED;
        (void)wrote(pod, journal_resume(&pod->journal));
        if (!pod->told && !pod->stopping) {
            tell_started(pod);
        }
        if (pod->link != NULL) {
            ask_state(pod);
        }
        break;
    case POD_STATE:
        on_state(pod, &message->u.state);
        break;
    case POD_OUTPUT:
        take_output(pod, &message->u.output);
        break;
    case POD_GAP:
        take_gap(pod, &message->u.gap);
        break;
    case POD_CREDIT:
        type_more(pod);
        break;
    case POD_END:
        take_end(pod, &message->u.end);
        break;
    case POD_EXIT:
        if (pod->released) {
            leave(pod);
            break;
        }
        take_exit(pod, &message->u.exit);
        remove_session(pod, POD_CHILD_REMOVING);
        break;
    case POD_TAKEN:
        retry(pod, RETRY_MS);
        break;
    case POD_ERROR: // Somebody else is writing, for a moment or longer.
        if (message->u.error.frame == POD_ATTACH) {
            retry(pod, RETRY_MS);
        }
        break;
    default:
        break;
    }
}

static void on_over(void *user, int failure)
{
    struct podchild *pod = user;
    (void)failure;
    pod->link = NULL;
    retry(pod, RETRY_MS);
}

static int open_link(struct podchild *pod, const struct session *session)
{
    struct podlink_options options = {.loop = &pod->options.server->loop,
                                      .epoch = pod->options.server->epoch,
                                      .timeout_ms = HANDSHAKE_MS,
                                      .handler = on_message,
                                      .over = on_over,
                                      .user = pod};
    return session_open_link(session, &options, &pod->link);
}

// It has ended, with nobody there: what it said before that is on disk.
static void on_tomb(void *user, const struct pod_message *message)
{
    struct podchild *pod = user;
    if (pod->stuck) {
        return;
    }
    if (message->type == POD_OUTPUT) {
        take_output(pod, &message->u.output);
    } else if (message->type == POD_GAP) {
        take_gap(pod, &message->u.gap);
    } else if (message->type == POD_EXIT) {
        take_exit(pod, &message->u.exit);
    }
}

static void collect(struct podchild *pod, const struct session *session)
{
    const uint64_t from[POD_CHANNELS] = {pod->journal.state.out, pod->journal.state.err};
    struct pod_dir dir = POD_DIR_INIT;
    bool claimed;
    pod->pid = 0;
    if (!pod->told && !pod->stopping) {
        (void)wrote(pod, journal_resume(&pod->journal));
        tell_started(pod);
    }
    feed_clear(&pod->feed);
    pod->feed.end = pod->journal.state.out;
    pod->stuck = false;
    int result = pod_dir_open(session->path, &dir);
    if (result == PM_OK) {
        result = pod_exit_read(&dir, from, on_tomb, pod, &claimed);
    }
    pod_dir_close(&dir);
    if (session_passing(result) && !pod->stopping) {
        retry(pod, STUCK_MS);
    } else if (!pod->stuck) { // Else it is tried again already.
        remove_session(pod, POD_CHILD_REMOVING);
    }
}

static void connect_now(struct podchild *pod)
{
    struct session *session = session_of(pod);
    if (session == NULL) { // Somebody has removed it.
        journal_end(&pod->journal);
        finish(pod);
    } else if (session_is_over(session)) {
        collect(pod, session);
    } else if (open_link(pod, session) != PM_OK) {
        retry(pod, RETRY_MS);
    }
}

static void on_leave_over(uv_timer_t *timer)
{
    struct podchild *pod = timer->data;
    struct session *session = session_of(pod);
    if (session != NULL && !session_is_over(session) && session->create == NULL) {
        session_stop(session, ASK_STOP, pod->options.config->grace_ms);
    }
}

static void begin_stop(struct podchild *pod)
{
    pod->closing_input = true;
    type_more(pod);
    (void)uv_timer_start(&pod->stop_timer, on_leave_over, pod->options.config->leave_ms, 0);
}

static void begin_to_connect(struct podchild *pod)
{
    pod->state = POD_CHILD_CONNECTING;
    pod->connecting_since = uv_now(&pod->options.server->loop);
    if (pod->stopping) { // Before it was there.
        begin_stop(pod);
    }
    connect_now(pod);
}

// ------------------------------------------------------------------------------------------------
// Start
// ------------------------------------------------------------------------------------------------

static void add_variable(json_t *list, const char *name, const char *value)
{
    for (size_t i = json_array_size(list); i-- > 0;) {
        if (os_has_name(json_string_value(json_array_get(list, i)), name)) {
            (void)json_array_remove(list, i);
        }
    }
    if (value != NULL) {
        (void)json_array_append_new(list, json_sprintf("%s=%s", name, value)); // Not if no UTF-8.
    }
}

static json_t *whole_env(const struct service_config *config)
{
    uv_env_item_t *items = NULL;
    int count = 0;
    const char *name;
    json_t *list = json_array(), *value;
    if (config->inherit && uv_os_environ(&items, &count) == 0) {
        for (int i = 0; i < count; i++) {
            json_t *text = json_sprintf("%s=%s", items[i].name, items[i].value);
            if (text != NULL) {
                (void)json_array_append_new(list, text);
            }
        }
        uv_os_free_environ(items, count);
    }
    json_object_foreach((json_t *)(uintptr_t)config->env, name, value)
    {
        add_variable(list, name, json_string_value(value));
    }
    return list;
}

static json_t *create_params(const struct podchild *pod)
{
    size_t i;
    json_t *argument;
    const struct service_config *config = pod->options.config;
    struct pm_spec spec = PM_SPEC_INIT;
    os_allow_batch_file(&spec);
    json_t *argv = json_pack("[s]", config->command);
    json_array_foreach((json_t *)(uintptr_t)config->args, i, argument)
    {
        (void)json_array_append(argv, argument);
    }
    return json_pack("{s:s, s:s, s:o, s:s, s:o, s:s, s:s, s:I, s:I, s:b, s:b, s:{s:s}}", "id",
                     pod->id, "program", config->command, "argv", argv, "cwd", pod->options.cwd,
                     "env", whole_env(config), "env_base", "empty", "mode", "pipes", "ring",
                     (json_int_t)config->ring, "grace_ms", (json_int_t)config->grace_ms,
                     "kill_tree", 1, "batch", (int)spec.allow_batch_file, "labels", "service",
                     pod->options.name);
}

static void on_created(void *user, json_t *result, const struct runner_error *error)
{
    struct podchild *pod = user;
    if (!is_answered(pod)) {
        return;
    }
    if (error != NULL) {
        pod->failed = *error;
        finish(pod);
        return;
    }
    pod->ran = true;
    pod->journal.state.session = (uint64_t)json_integer_value(json_object_get(result, "created"));
    if (journal_begin(&pod->journal) != 0) {
        (void)runner_fail(&pod->failed, RUNNER_FAILED,
                          "start of service '%s'\nits journal cannot be written: %.300s",
                          pod->options.name, pod->journal.path);
        remove_session(pod, POD_CHILD_REMOVING);
    } else if (pod->stopping) {
        remove_session(pod, POD_CHILD_REMOVING);
    } else {
        begin_to_connect(pod);
    }
}

static void create(struct podchild *pod)
{
    pod->state = POD_CHILD_CREATING;
    ask_runner(pod, "session.create", create_params(pod), on_created);
}

// Somebody may have given a session of his own such a name.
static bool is_of_service(const struct session *session, const char *name)
{
    const char *label = json_string_value(json_object_get(session->labels, "service"));
    return label != NULL && strcmp(label, name) == 0;
}

// It is known by its record in the registry alone: no folder says whose it is.
static bool is_stray(const struct session *session)
{
    return session->labels == NULL;
}

// Its folder could not be read for a trouble that may pass.
static bool is_read_later(const struct session *session)
{
    const struct session *s = session->server->sessions;
    while (s != NULL && (!s->aside_passing || strcmp(s->path, session->path) != 0)) {
        s = s->next;
    }
    return s != NULL;
}

// One that is over and has left nothing is in nobody's way.
static bool is_gone(const struct session *session)
{
    struct pod_dir dir = POD_DIR_INIT;
    int result = pod_dir_open(session->path, &dir);
    pod_dir_close(&dir);
    return session_is_over(session) && result == PM_ERR_NOT_FOUND;
}

static void refuse(struct podchild *pod, const struct session *session)
{
    bool stray = is_stray(session);
    if (!stray) {
        journal_end(&pod->journal);
    }
    (void)runner_fail(&pod->failed, stray ? RUNNER_DAMAGED : RUNNER_EXISTS,
                      "start of service '%s'\nsession %s %s\nrunner %s %s", pod->options.name,
                      pod->id, stray ? "has no folder that says whose it is" : "is somebody else's",
                      stray && !session_is_over(session) ? "kill" : "get", pod->id);
    finish(pod);
}

static void on_begin(uv_timer_t *timer)
{
    struct podchild *pod = timer->data;
    const struct session *session = session_of(pod);
    int found = journal_load(&pod->journal, pod->options.folder);
    bool later = session != NULL && is_stray(session) && is_read_later(session);
    if ((found < 0 || later) && !pod->stopping) { // Nothing is ended for what may pass.
        (void)wrote(pod, found < 0 ? found : 0);
        journal_close(&pod->journal);
        (void)uv_timer_start(&pod->timer, on_begin, STUCK_MS, 0);
        return;
    }
    if (found == JOURNAL_DAMAGED) {
        log_write(pod->options.server->log, LOG_ERROR, "service.journal", pod->options.name,
                  "%s is damaged behind byte %llu: what is there is dropped", pod->journal.path,
                  (unsigned long long)pod->journal.size);
    }
    if (found > 0 && session != NULL &&
        pod->journal.state.session == (uint64_t)session->created_ms) {
        pod->resumed = pod->ran = true;
        begin_to_connect(pod);
        return;
    }
    if (session != NULL && !is_of_service(session, pod->options.name) &&
        !(is_stray(session) && is_gone(session))) {
        refuse(pod, session);
        return;
    }
    journal_end(&pod->journal);
    if (session != NULL) {
        remove_session(pod, POD_CHILD_CLEARING);
    } else if (pod->stopping) {
        finish(pod);
    } else {
        create(pod);
    }
}

// ------------------------------------------------------------------------------------------------
// End
// ------------------------------------------------------------------------------------------------

static void pod_stop(struct transport *transport)
{
    struct podchild *pod = (struct podchild *)transport;
    if (pod->stopping || pod->state == POD_CHILD_OVER) {
        return;
    }
    pod->stopping = true;
    if (pod->state == POD_CHILD_CONNECTING || pod->state == POD_CHILD_ATTACHED) {
        begin_stop(pod);
    }
}

static void on_release_over(uv_timer_t *timer)
{
    leave(timer->data);
}

static void pod_release(struct transport *transport)
{
    struct podchild *pod = (struct podchild *)transport;
    pod->released = true;
    pod->options.server->services->leaving++;
    (void)wrote(pod, journal_note(&pod->journal));
    bool waits = pod->state == POD_CHILD_ATTACHED && !pod->stopping;
    if (waits && pod->journal.state.queue != NULL) {
        (void)uv_timer_start(&pod->stop_timer, on_release_over, RELEASE_MS, 0);
    } else {
        leave(pod);
    }
}

// NULL: there is none, or it is over.
static struct session *session_to_end(const struct podchild *pod)
{
    struct session *session = session_of(pod);
    return session != NULL && !session_is_over(session) && session->create == NULL ? session : NULL;
}

// It is given up, whatever the pod says. A holder that lives would have the next runner go on with
// a service that was stopped.
static void on_kill_over(uv_timer_t *timer)
{
    struct podchild *pod = timer->data;
    struct session *session = session_to_end(pod);
    if (session != NULL) {
        session_kill_holder(session);
    }
    finish(pod);
}

// Only it can leave a record, and it may be mute because it writes that.
static void on_kill_asks(uv_timer_t *timer)
{
    struct podchild *pod = timer->data;
    struct session *session = session_to_end(pod);
    if (session != NULL) {
        session_ask_holder(session);
    }
    (void)uv_timer_start(timer, on_kill_over, KILLED_MAX_MS - KILLED_ASK_MS, 0);
}

static void pod_kill(struct transport *transport)
{
    struct podchild *pod = (struct podchild *)transport;
    struct session *session = session_to_end(pod);
    uint64_t patience = KILLED_MS;
    pod->stopping = true;
    if (session != NULL) {
        session_stop(session, ASK_KILL, 0);
        patience += 2 * session_record_ms(session->ring);
    }
    if (patience <= KILLED_MAX_MS) {
        (void)uv_timer_start(&pod->stop_timer, on_kill_over, patience, 0);
    } else {
        (void)uv_timer_start(&pod->stop_timer, on_kill_asks, KILLED_ASK_MS, 0);
    }
}

static void on_dropped(void *user, json_t *result, const struct runner_error *error)
{
    (void)user;
    (void)result;
    (void)error;
}

// It has ended with its service, and the runner was ended before it could remove it.
static bool is_left_over(const struct service *service, const struct session *session)
{
    return service->peer == NULL && !journal_exists(service->folder) && session_is_free(session);
}

void podchild_sweep(struct server *server)
{
    size_t i;
    const json_t *id;
    json_t *ids = json_array();
    for (const struct session *session = server->sessions; session != NULL;
         session = session->next) {
        const char *name = session->id + strlen(SERVICE_SESSION);
        if (strncmp(session->id, SERVICE_SESSION, strlen(SERVICE_SESSION)) == 0 &&
            is_of_service(session, name)) {
            const struct service *service = service_find(server, name);
            if (service == NULL || !service->config.pod || is_left_over(service, session)) {
                (void)json_array_append_new(ids, json_string(session->id));
            }
        }
    }
    json_array_foreach(ids, i, id)
    {
        struct call *call = call_of_our_own(on_dropped, NULL);
        json_t *params = json_pack("{s:O}", "id", id);
        log_write(server->log, LOG_WARNING, "service.dropped", json_string_value(id),
                  "no service lives in this session any more: it is ended");
        if (call != NULL && params != NULL) {
            methods_call(server, "session.destroy", call, params);
        } else {
            free(call);
        }
        json_decref(params);
    }
    json_decref(ids);
}

bool podchild_lives(struct server *server, const char *name)
{
    char id[RUNNER_ID_MAX + 1];
    (void)snprintf(id, sizeof id, SERVICE_SESSION "%s", name);
    const struct session *session = session_find(server, id);
    char folder[4096];
    (void)snprintf(folder, sizeof folder, "%.4000s/%s", server->services->folder, name);
    return session != NULL && journal_exists(folder);
}

struct transport *podchild_start(const struct transport_options *options)
{
    static const struct transport_ops ops = {pod_write,   pod_unsent, pod_stop,
                                             pod_release, pod_kill,   pod_keep};
    struct podchild *pod = calloc(1, sizeof *pod);
    if (pod == NULL) {
        return NULL;
    }
    pod->transport.ops = &ops;
    pod->options = *options;
    (void)snprintf(pod->id, sizeof pod->id, SERVICE_SESSION "%s", options->name);
    pod->journal.file = -1;
    pod->exit = (struct pm_exit){.size = sizeof pod->exit, .kind = PM_EXIT_LOST};
    (void)uv_timer_init(&options->server->loop, &pod->timer);
    (void)uv_timer_init(&options->server->loop, &pod->stop_timer);
    pod->timer.data = pod->stop_timer.data = pod;
    pod->handles = 2;
    (void)uv_timer_start(&pod->timer, on_begin, 0, 0); // Nothing is told before we return.
    return &pod->transport;
}
