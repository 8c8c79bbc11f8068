#include "runner/view.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "poddaemon/folder.h"
#include "runner/control_client.h"
#include "runner/doctor.h"
#include "runner/podlink.h"
#include "runner/session.h"
#include "runner/stuck.h"

#define RECONNECT_MS 10000
#define INPUT_MAX 65536

struct view {
    const struct runner_env *env;
    struct view_options options;
    uv_loop_t loop;
    char folder[4096];
    struct pod_dir dir;
    int64_t created; // The session: another one of its id has another time.
    struct podlink *link;
    uint64_t from[POD_CHANNELS]; // Of the next connection.
    uint64_t stop_at;            // VIEW_LOGS: where it ends. UINT64_MAX: with the session.
    bool connected_once, attached, over, writer;
    uint64_t deadline;   // For connecting.
    uint64_t busy_until; // Somebody else writes, and is waited for; 0: nobody does.
    uv_timer_t timer, patience;
    uv_signal_t signals[4];
    struct stuck *stuck;
    // What is typed.
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tty_t tty;
        uv_pipe_t pipe;
    } input;
    bool input_open, input_ended, reading, raw;
    bool file_input; // No stream: read when there is room.
    char typed[INPUT_MAX];
    bool terminal; // The session's.
    bool deaf;     // It takes no input any more.
    size_t typed_size;
    uint64_t sent; // Of what was typed, to the holder.
    bool prefix;   // The detach key was typed.
    uint32_t last_request;
    unsigned columns, rows;
    struct runner_error error;
    bool has_exit;
    struct pod_exit exit;
    bool detached, taken;
};

static void type_on(struct view *view);
static void connect_view(struct view *view);

static void finish(struct view *view)
{
    if (!view->over) {
        view->over = true;
        uv_stop(&view->loop);
    }
}

static void fail(struct view *view, int code, const char *why, const char *next)
{
    static const char *const what[] = {"attach to", "logs of", "input for"};
    char quoted[4400];
    bool names = next[0] != '\0' && next[strlen(next) - 1] == ' ';
    if (view->error.code == RUNNER_OK) {
        (void)runner_fail(&view->error, code, "%s session '%s'\n%s\n%s%s", what[view->options.kind],
                          view->options.id, why, next,
                          names ? doctor_id(view->options.id, quoted) : "");
        view->error.bytes = view->options.kind == VIEW_SEND ? (int64_t)view->sent : -1;
    }
    finish(view);
}

// Of a send: how much of it was typed is known to the holder alone.
static void fail_sent(struct view *view, int code, const char *what, const char *next)
{
    char why[128];
    (void)snprintf(why, sizeof why, "%s: at most %llu bytes of it were typed", what,
                   (unsigned long long)view->sent);
    fail(view, code, why, next);
}

// ------------------------------------------------------------------------------------------------
// What is shown
// ------------------------------------------------------------------------------------------------

// Waits for the other end: a terminal or pipe that is not read holds this view, and nobody else.
static int show(const void *data, size_t size)
{
    const char *at = data;
    while (size > 0) {
        uv_buf_t buffer = uv_buf_init((char *)at, (unsigned)size);
        uv_fs_t request;
        int n = uv_fs_write(NULL, &request, 1, &buffer, 1, -1, NULL);
        uv_fs_req_cleanup(&request);
        if (n == UV_EAGAIN || n == UV_EINTR) { // Somebody else made it non-blocking.
            uv_sleep(1);
        } else if (n < 0) {
            return n;
        } else {
            at += n;
            size -= (size_t)n;
        }
    }
    return 0;
}

static bool wants(const struct view *view, uint8_t channel)
{
    if (view->options.kind == VIEW_SEND) {
        return false;
    }
    if (view->options.kind == VIEW_LOGS) {
        return channel == (view->options.stderr_only ? POD_CHANNEL_ERR : POD_CHANNEL_OUT);
    }
    return true;
}

static void take_output(struct view *view, const struct pod_output *output)
{
    struct pod_bytes data = output->data;
    if (!wants(view, output->channel)) {
        return;
    }
    if (view->stop_at != UINT64_MAX && output->offset + data.size > view->stop_at) {
        data.size = output->offset < view->stop_at ? (size_t)(view->stop_at - output->offset) : 0;
    }
    int result = show(data.data, data.size);
    bool left = result == UV_EPIPE || result == UV_EOF;
    if (left && view->options.kind == VIEW_LOGS) { // Its reader has what it wanted.
        finish(view);
    } else if (result != 0) {
        fail(view, RUNNER_FAILED, "stdout cannot be written to", "none: give it one that takes it");
    } else if (output->offset + output->data.size >= view->stop_at) {
        finish(view);
    }
}

static void take_gap(struct view *view, const struct pod_gap *gap)
{
    if (wants(view, gap->channel)) {
        (void)fprintf(stderr, "runner: bytes %llu to %llu of '%s' are no longer kept\n",
                      (unsigned long long)gap->from, (unsigned long long)gap->to, view->options.id);
    }
}

// ------------------------------------------------------------------------------------------------
// What is typed
// ------------------------------------------------------------------------------------------------

static void detach(struct view *view)
{
    view->detached = true;
    finish(view);
}

// Takes the detach key out of what was typed. false: it says to leave.
static bool filter_keys(struct view *view, const char *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        char c = data[i];
        bool is_key = view->options.detach_key >= 0 && c == (char)view->options.detach_key;
        if (view->prefix && (c == 'd' || c == 'D')) {
            return false;
        }
        if (view->prefix && !is_key) { // It was meant for the session after all.
            view->typed[view->typed_size++] = (char)view->options.detach_key;
        }
        if (is_key && !view->prefix) {
            view->prefix = true;
            continue;
        }
        view->prefix = false;
        view->typed[view->typed_size++] = c;
    }
    return true;
}

static void read_more(struct view *view);

static void on_alloc(uv_handle_t *handle, size_t size, uv_buf_t *buffer)
{
    static char bytes[INPUT_MAX / 4]; // Each may become two.
    (void)handle;
    (void)size;
    *buffer = uv_buf_init(bytes, sizeof bytes);
}

static void take_typed(struct view *view, const char *data, size_t size)
{
    if (!view->raw) {
        memcpy(view->typed + view->typed_size, data, size);
        view->typed_size += size;
    } else if (!filter_keys(view, data, size)) {
        detach(view);
        return;
    }
    type_on(view);
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    struct view *view = stream->data;
    if (size < 0) {
        view->input_ended = true;
        (void)uv_read_stop(stream);
        view->reading = false;
        type_on(view);
    } else {
        take_typed(view, buffer->base, (size_t)size);
    }
    read_more(view);
}

static void read_file(struct view *view)
{
    while (view->file_input && !view->input_ended && view->typed_size == 0 && !view->over) {
        char bytes[INPUT_MAX / 4];
        uv_buf_t buffer = uv_buf_init(bytes, sizeof bytes);
        uv_fs_t request;
        int n = uv_fs_read(NULL, &request, 0, &buffer, 1, -1, NULL);
        uv_fs_req_cleanup(&request);
        view->input_ended = n <= 0;
        take_typed(view, bytes, n > 0 ? (size_t)n : 0);
    }
}

// Reads while there is room for what may come, and somebody who takes it: an endless file would be
// read for ever.
static void read_more(struct view *view)
{
    bool room = view->typed_size < INPUT_MAX / 4 && !view->input_ended && view->attached &&
                ((view->writer && !view->deaf) || view->raw);
    if (view->file_input) {
        if (room && view->typed_size == 0) {
            read_file(view);
        }
    } else if (view->input_open && room != view->reading) {
        view->reading = room;
        if (room) {
            (void)uv_read_start(&view->input.stream, on_alloc, on_read);
        } else {
            (void)uv_read_stop(&view->input.stream);
        }
    }
}

static void end_typing(struct view *view)
{
    struct pod_client *client = podlink_client(view->link);
    int64_t number;
    bool close = view->options.close_input || view->options.kind == VIEW_ATTACH;
    if (view->last_request != 0 || (view->options.kind == VIEW_ATTACH && view->raw)) {
        return;
    }
    number = close ? pod_client_close_input(client) : pod_client_detach(client);
    view->last_request = number > 0 ? (uint32_t)number : 0;
}

static void type_on(struct view *view)
{
    if (!view->attached || view->link == NULL || view->over) {
        return;
    }
    if (!view->writer || view->deaf) { // A viewer only leaves.
        view->typed_size = 0;
        return;
    }
    int64_t some = view->typed_size > 0
                       ? pod_client_input(podlink_client(view->link), view->typed, view->typed_size)
                       : 0;
    if (some > 0) {
        view->sent += (uint64_t)some;
        view->typed_size -= (size_t)some;
        memmove(view->typed, view->typed + some, view->typed_size);
    }
    if (view->input_ended && view->typed_size == 0) {
        end_typing(view);
    }
    podlink_flush(view->link);
}

// ------------------------------------------------------------------------------------------------
// The pod
// ------------------------------------------------------------------------------------------------

static void attach(struct view *view)
{
    const struct view_options *options = &view->options;
    bool writer =
        options->kind == VIEW_SEND || (options->kind == VIEW_ATTACH && !options->read_only);
    struct pod_attach request = {.role = writer ? POD_ROLE_WRITER : POD_ROLE_VIEWER};
    request.flags = options->take_over ? POD_ATTACH_TAKE_OVER : 0;
    if (writer && view->raw && os_terminal_size(&view->columns, &view->rows)) {
        request.flags |= POD_ATTACH_SIZE;
        request.columns = (uint16_t)view->columns;
        request.rows = (uint16_t)view->rows;
    }
    for (size_t i = 0; i < POD_CHANNELS; i++) {
        request.from[i] = view->from[i];
    }
    view->writer = writer;
    int64_t number = pod_client_attach(podlink_client(view->link), &request);
    if (number == -POD_E_VERSION) {
        fail(view, RUNNER_REFUSED, SESSION_OTHER_VERSION, "runner stop ");
    } else if (number < 0) {
        fail(view, RUNNER_FAILED, pod_strerror((int)number), "runner get ");
    }
}

static void take_attached(struct view *view, const struct pod_attached *attached)
{
    unsigned channel = view->options.stderr_only ? POD_CHANNEL_ERR : POD_CHANNEL_OUT;
    bool once_more = view->connected_once;
    view->attached = true;
    view->connected_once = true;
    view->busy_until = 0;
    if (once_more && view->sent > 0 && view->options.kind == VIEW_SEND) {
        fail_sent(view, RUNNER_FAILED, "its connection was lost", "runner get ");
        return;
    }
    if (view->options.kind == VIEW_LOGS && !view->options.follow && view->stop_at == UINT64_MAX) {
        view->stop_at = attached->end[channel];
        if (attached->from[channel] >= view->stop_at) {
            finish(view);
        }
    }
    type_on(view);
    read_more(view);
}

static void on_timer(uv_timer_t *timer);

// `end`: of the channel that is asked for.
static void refuse_offset(struct view *view, const uint64_t end[POD_CHANNELS])
{
    char why[128];
    unsigned channel = view->options.stderr_only ? POD_CHANNEL_ERR : POD_CHANNEL_OUT;
    (void)snprintf(why, sizeof why, "so much was never said: it ends at byte %llu",
                   (unsigned long long)end[channel]);
    fail(view, RUNNER_USAGE, why, "runner get ");
}

// Who writes for a moment only is waited for, and so is the end of our own last connection, which
// the holder has not seen yet.
static bool wait_for_writer(struct view *view)
{
    uint64_t now = monotonic_ms();
    if (view->busy_until == 0) {
        view->busy_until = view->connected_once ? view->deadline : now + WRITER_WAIT_MS;
    }
    if (now < view->busy_until) {
        (void)uv_timer_start(&view->timer, on_timer, WRITER_AGAIN_MS, 0);
    }
    return now < view->busy_until;
}

static void fail_busy(struct view *view)
{
    bool sends = view->options.kind == VIEW_SEND;
    fail(view, RUNNER_REFUSED,
         sends ? "somebody else is writing" : "somebody else is writing; --read-only looks on",
         sends ? "runner send --take-over " : "runner attach --take-over ");
}

static void fail_taken(struct view *view)
{
    fail_sent(view, RUNNER_REFUSED, PODLINK_TAKEN, "runner get ");
}

// Of a request that has no answer but this, or of none.
static void take_refusal(struct view *view, const struct pod_error *e)
{
    char why[256];
    bool refused = e->code == POD_E_FENCED || e->code == POD_E_READ_ONLY;
    podlink_refusal(e, why);
    fail(view,
         e->code == POD_E_INVALID ? RUNNER_USAGE
         : refused                ? RUNNER_REFUSED
                                  : RUNNER_FAILED,
         why, e->code == POD_E_FENCED ? "runner list" : "runner get ");
}

// Who is attached still sees what the session says.
static void take_closed(struct view *view)
{
    if (view->options.kind == VIEW_SEND) {
        fail_sent(view, RUNNER_FAILED, PODLINK_CLOSED, "runner get ");
    } else if (!view->deaf) {
        view->deaf = true;
        (void)fprintf(stderr, "%srunner: input for '%s': %s%s\n", view->raw ? "\r\n" : "",
                      view->options.id, PODLINK_CLOSED, view->raw ? "\r" : "");
    }
}

static void take_error(struct view *view, const struct pod_error *e)
{
    bool sends = view->options.kind == VIEW_SEND;
    if (e->code == POD_E_BUSY) {
        if (!wait_for_writer(view)) {
            fail_busy(view);
        }
    } else if (view->taken) { // What was on its way came too late.
        fail_taken(view);
    } else if (e->code == POD_E_INVALID && !view->attached &&
               pod_client_status(podlink_client(view->link)) > 0) { // It tells how much there is.
        podlink_flush(view->link);
    } else if (podlink_is_closed(e)) {
        take_closed(view);
    } else if (view->last_request == 0 || e->request != view->last_request) {
        take_refusal(view, e);
    } else if (sends) { // No input to close.
        fail(view, RUNNER_FAILED,
             e->code == POD_E_UNSUPPORTED ? PODLINK_NO_END : pod_strerror(e->code), "runner get ");
    }
}

// Of a send all may be with the holder already: its last answer tells.
static void take_taken(struct view *view)
{
    view->taken = true;
    if (view->options.kind != VIEW_SEND) {
        finish(view);
    } else if (view->last_request == 0) {
        fail_taken(view);
    }
}

static void take_exit(struct view *view, const struct pod_exit *exit)
{
    view->exit = *exit;
    view->has_exit = true;
    if (view->options.kind == VIEW_SEND) {
        fail_sent(view, RUNNER_NO_SESSION, "it has ended", "runner logs ");
    }
    finish(view);
}

static void take_done(struct view *view, const struct pod_done *done)
{
    if (view->last_request != 0 && done->request == view->last_request &&
        view->options.kind == VIEW_SEND) {
        finish(view);
    }
}

static void on_message(void *user, const struct pod_message *message)
{
    struct view *view = user;
    if (view->over) {
        return;
    }
    switch (message->type) {
    case POD_WELCOME:
        attach(view);
        break;
    case POD_ATTACHED:
        take_attached(view, &message->u.attached);
        break;
    case POD_OUTPUT:
        take_output(view, &message->u.output);
        break;
    case POD_GAP:
        take_gap(view, &message->u.gap);
        break;
    case POD_CREDIT:
        type_on(view);
        read_more(view);
        break;
    case POD_DONE:
        take_done(view, &message->u.done);
        break;
    case POD_TAKEN:
        take_taken(view);
        break;
    case POD_ERROR:
        take_error(view, &message->u.error);
        break;
    case POD_STATE: // Asked for when the offset was refused, and for nothing else.
        refuse_offset(view, message->u.state.end);
        break;
    case POD_EXIT:
        take_exit(view, &message->u.exit);
        break;
    default:
        break;
    }
}

// What comes next must be known before the connection is forgotten.
static void keep_place(struct view *view)
{
    const struct pod_client *client = podlink_client(view->link);
    for (size_t i = 0; client->attached && i < POD_CHANNELS; i++) {
        view->from[i] = client->tracker.next[i];
    }
}

static int read_description(struct view *view, int64_t *ret_created)
{
    uint8_t *text;
    size_t size;
    int result = pod_file_read(&view->dir, FILE_SESSION, SESSION_FILE_MAX, &text, &size);
    if (result == PM_OK) {
        json_t *json = json_loadb((const char *)text, size, 0, NULL);
        const char *mode = json_string_value(json_object_get(json, "mode"));
        view->terminal = mode != NULL && strcmp(mode, "pty") == 0;
        *ret_created = (int64_t)json_integer_value(json_object_get(json, "created"));
        json_decref(json);
        free(text);
    }
    return result;
}

// Nothing more is to be had of it, whether there is another one of its id or not.
static bool was_removed(struct view *view)
{
    int64_t created = 0;
    int result = read_description(view, &created);
    bool another = result == PM_OK && created != 0 && created != view->created;
    return result == PM_ERR_NOT_FOUND || another;
}

static void on_timer(uv_timer_t *timer)
{
    struct view *view = timer->data;
    if (view->link != NULL) { // Somebody else wrote.
        attach(view);
        podlink_flush(view->link);
    } else if (was_removed(view)) {
        fail(view, RUNNER_NO_SESSION, "it was removed meanwhile", "runner list");
    } else {
        connect_view(view);
    }
}

static void try_later(struct view *view)
{
    (void)uv_timer_start(&view->timer, on_timer, 50, 0);
}

static void on_over(void *user, int failure)
{
    struct view *view = user;
    keep_place(view);
    view->link = NULL;
    view->attached = false;
    view->busy_until = 0;
    if (view->over) {
        return;
    }
    if (failure == -POD_E_AUTH || failure == -POD_E_SESSION || failure == -POD_E_VERSION) {
        fail(view, RUNNER_REFUSED, pod_strerror(failure), "runner doctor");
    } else if (!view->connected_once && failure == -POD_E_IO) {
        fail(view, RUNNER_UNREACHABLE, "its holder does not answer", "runner doctor");
    } else {
        view->deadline = monotonic_ms() + RECONNECT_MS;
        try_later(view);
    }
}

static void take_end(void *user, const struct pod_message *message)
{
    struct pod_exit *exit = user;
    if (message->type == POD_EXIT) {
        *exit = message->u.exit;
    }
}

// It has ended: the rest stands in the file that is left. true: so it was.
static bool read_rest(struct view *view)
{
    static const uint64_t all[POD_CHANNELS] = {0, 0};
    struct pod_exit exit = {.kind = 0};
    bool claimed;
    uint8_t *text;
    size_t size;
    int result = pod_exit_read(&view->dir, view->from, on_message, view, &claimed);
    if (result == PM_OK) {
        finish(view);
        return true;
    }
    if (result == PM_ERR_NOT_FOUND) {
        if (pod_file_read(&view->dir, FILE_LOST, 4096, &text, &size) == PM_OK) {
            free(text);
            fail(view, RUNNER_FAILED, "its holder died, and with it what it had kept",
                 "runner destroy ");
            return true;
        }
        return false;
    }
    if (result == PM_ERR_INVALID &&
        pod_exit_read(&view->dir, all, take_end, &exit, &claimed) == PM_OK) {
        refuse_offset(view, exit.end);
    } else {
        fail(view, RUNNER_DAMAGED, "its record is damaged", "runner get ");
    }
    return true;
}

static uint64_t read_epoch(const struct runner_env *env)
{
    char path[4200], *text;
    size_t size;
    uint64_t epoch = 0;
    (void)snprintf(path, sizeof path, "%s/epoch", env->state_dir);
    if (os_read_file(path, 31, &text, &size) == 0) {
        epoch = strtoull(text, NULL, 10);
        free(text);
    }
    return epoch;
}

static void open_link(struct view *view, pm_native native, const uint8_t *token)
{
    struct podlink_options options = {.loop = &view->loop,
                                      .session = view->options.id,
                                      .token = token,
                                      .epoch = read_epoch(view->env),
                                      .timeout_ms = HANDSHAKE_MS,
                                      .handler = on_message,
                                      .over = on_over,
                                      .user = view};
    if (podlink_open(&options, native, &view->link) != 0) {
        view->link = NULL;
        try_later(view);
    }
}

static void connect_view(struct view *view)
{
    uint8_t token[POD_TOKEN_SIZE];
    pm_native native;
    int result = pod_token_read(&view->dir, token);
    if (result == PM_OK) {
        result = pod_connect(&view->dir, view->options.id, &native);
    }
    if (result == PM_OK) {
        open_link(view, native, token);
        return;
    }
    if (result == PM_ERR_ACCESS || result == PM_ERR_CORRUPT) {
        fail(view, RUNNER_DAMAGED, "its folder is not to be trusted", "runner doctor");
    } else if (!read_rest(view)) { // It is just being written, or its holder died.
        if (monotonic_ms() < view->deadline) {
            try_later(view);
        } else {
            fail(view, RUNNER_UNREACHABLE, "its holder cannot be reached", "runner list");
        }
    }
}

// ------------------------------------------------------------------------------------------------
// Begin and end
// ------------------------------------------------------------------------------------------------

static void on_signal(uv_signal_t *handle, int number)
{
    struct view *view = handle->data;
    if (number != SIGWINCH) {
        detach(view);
    } else if (view->attached && view->writer && view->link != NULL &&
               os_terminal_size(&view->columns, &view->rows)) {
        (void)pod_client_resize(podlink_client(view->link), (uint16_t)view->columns,
                                (uint16_t)view->rows);
        podlink_flush(view->link);
    }
}

// Who has changed nothing of a terminal may be ended by a signal as anybody.
static void open_signals(struct view *view)
{
    static const int numbers[] = {SIGWINCH, SIGTERM, SIGINT, SIGHUP};
    for (size_t i = 0; view->raw && i < sizeof numbers / sizeof numbers[0]; i++) {
        (void)uv_signal_init(&view->loop, &view->signals[i]);
        view->signals[i].data = view;
        (void)uv_signal_start(&view->signals[i], on_signal, numbers[i]);
    }
    view->stuck = view->raw ? stuck_watch() : NULL;
}

static void open_stdin(struct view *view)
{
    int result = 0;
    switch (uv_guess_handle(0)) {
    case UV_TTY:
        view->raw = view->options.kind == VIEW_ATTACH && os_terminal_raw();
        result = uv_tty_init(&view->loop, &view->input.tty, 0, 1);
        if (result == 0) {
            os_terminal_stream(&view->input.tty);
        }
        break;
    case UV_NAMED_PIPE:
        (void)uv_pipe_init(&view->loop, &view->input.pipe, 0);
        view->input_open = true; // It has to be closed, in any case.
        result = uv_pipe_open(&view->input.pipe, 0);
        break;
    default:
        view->file_input = true;
        return;
    }
    view->input_open = view->input_open || result == 0;
    view->input.handle.data = view;
    view->input_ended = result != 0;
}

static void open_input(struct view *view)
{
    const struct view_options *options = &view->options;
    if (options->kind == VIEW_LOGS) {
        view->input_ended = true;
    } else if (options->text != NULL) {
        // In pieces, as it would come from stdin.
        view->typed_size = options->text_size < INPUT_MAX ? options->text_size : INPUT_MAX - 1;
        memcpy(view->typed, options->text, view->typed_size);
        if (options->enter) { // The key of a keyboard is a carriage return; a pipe has lines.
            view->typed[view->typed_size++] = view->terminal ? '\r' : '\n';
        }
        view->input_ended = true;
    } else {
        open_stdin(view);
    }
}

static void on_patience_over(uv_timer_t *timer)
{
    struct view *view = timer->data;
    char why[128];
    (void)snprintf(why, sizeof why,
                   "the child does not read: %llu bytes were taken in time, and not all",
                   (unsigned long long)view->sent);
    if (view->busy_until != 0) {
        fail_busy(view);
    } else if (!view->attached) {
        fail(view, RUNNER_TIMEOUT, "its holder cannot be reached in time", "runner get ");
    } else if (view->typed_size > 0) {
        fail(view, RUNNER_TIMEOUT, why, "runner get ");
    } else {
        fail_sent(view, RUNNER_TIMEOUT,
                  view->input_ended ? "no answer in time" : "its stdin has not ended in time",
                  "runner get ");
    }
}

static void close_all(uv_handle_t *handle, void *unused)
{
    (void)unused;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

static void close_view(struct view *view)
{
    if (view->link != NULL) {
        podlink_close(view->link);
        view->link = NULL;
    }
    uv_close((uv_handle_t *)&view->timer, NULL);
    uv_close((uv_handle_t *)&view->patience, NULL);
    for (size_t i = 0; view->raw && i < sizeof view->signals / sizeof view->signals[0]; i++) {
        uv_close((uv_handle_t *)&view->signals[i], NULL);
    }
    if (view->input_open) {
        uv_close(&view->input.handle, NULL);
    }
    (void)uv_run(&view->loop, UV_RUN_DEFAULT);
    uv_walk(&view->loop, close_all, NULL);
    (void)uv_run(&view->loop, UV_RUN_DEFAULT);
    (void)uv_loop_close(&view->loop);
    pod_dir_close(&view->dir);
}

static int child_code(const struct view *view)
{
    return view->exit.kind == POD_EXIT_EXITED     ? os_exit_code(view->exit.code)
           : view->exit.kind == POD_EXIT_SIGNALED ? (int)(128 + view->exit.signal)
                                                  : RUNNER_FAILED;
}

static int tell_end(const struct view *view)
{
    static const char modes_off[] =
        "\033[?1049l\033[?25h\033[?1000l\033[?1002l\033[?1003l\033[?1006l"
        "\033[?2004l\033[?1l\033>\033[0m";
    const char *id = view->options.id;
    if (view->raw) { // What the session had set here was for itself.
        (void)show(modes_off, sizeof modes_off - 1);
    }
    if (view->error.code != RUNNER_OK) {
        return runner_report(view->env, &view->error);
    }
    if (view->options.kind == VIEW_ATTACH && view->taken) {
        (void)fprintf(stderr, "\r\n[somebody else has taken over %s]\n", id);
        return RUNNER_REFUSED;
    }
    if (view->options.kind == VIEW_ATTACH && view->detached) {
        (void)fprintf(stderr, "\r\n[detached from %s]\n", id);
    } else if (view->options.kind == VIEW_ATTACH && view->exit.kind == POD_EXIT_SIGNALED) {
        (void)fprintf(stderr, "\r\n[%s has ended: signal %u]\n", id, (unsigned)view->exit.signal);
    } else if (view->options.kind == VIEW_ATTACH && view->exit.kind == POD_EXIT_EXITED) {
        (void)fprintf(stderr, "\r\n[%s has ended: exit code %u]\n", id, (unsigned)view->exit.code);
    } else if (view->options.kind == VIEW_ATTACH && view->has_exit) {
        (void)fprintf(stderr, "\r\n[%s has ended: how is not known]\n", id);
        return RUNNER_FAILED;
    }
    return view->options.exit_code && view->has_exit ? child_code(view) : RUNNER_OK;
}

// Whether the id is the name of a folder that is shown under it, since it is not known whose it is.
static bool is_untrusted(const struct view *view)
{
    char path[4096 + RUNNER_ID_MAX + 16], expected[4096], id[RUNNER_ID_MAX + 1];
    struct pod_dir dir = POD_DIR_INIT;
    uint8_t *text = NULL;
    size_t size = 0;
    (void)snprintf(path, sizeof path, "%s/sessions/%s", view->env->state_dir, view->options.id);
    bool simple = rpc_valid_id(view->options.id) && strpbrk(view->options.id, "/\\") == NULL;
    int result = simple ? pod_dir_open(path, &dir) : PM_ERR_NOT_FOUND;
    if (result == PM_OK) {
        result = pod_file_read(&dir, FILE_SESSION, SESSION_FILE_MAX, &text, &size);
    }
    pod_dir_close(&dir);
    bool known = result == PM_OK && session_described((const char *)text, size, id);
    if (known) {
        session_folder(view->env->state_dir, id, expected);
        known = strcmp(expected, path) == 0;
    }
    free(text);
    return result != PM_ERR_NOT_FOUND && !known;
}

static int open_folder(struct view *view)
{
    char name[4200];
    session_folder(view->env->state_dir, view->options.id, view->folder);
    int result = pod_dir_open(view->folder, &view->dir);
    if (result == PM_OK) { // One that is only being made is none yet.
        result = read_description(view, &view->created);
    }
    if (result == PM_OK) {
        return RUNNER_OK;
    }
    pod_dir_close(&view->dir);
    (void)snprintf(name, sizeof name, "its folder '%s': %s", view->folder, pm_strerror(result));
    if (result == PM_ERR_NOT_FOUND && is_untrusted(view)) {
        fail(view, RUNNER_DAMAGED, "what is in the folder of this name cannot be trusted",
             "runner doctor");
        return view->error.code;
    }
    fail(view, result == PM_ERR_NOT_FOUND ? RUNNER_NO_SESSION : RUNNER_DAMAGED,
         result == PM_ERR_NOT_FOUND ? "there is none of this id" : name,
         result == PM_ERR_NOT_FOUND ? "runner list" : "runner doctor");
    return view->error.code;
}

// Known before anything is typed.
static bool may_close(struct view *view)
{
    if (view->terminal && view->options.kind == VIEW_SEND && view->options.close_input) {
        fail(view, RUNNER_FAILED, PODLINK_NO_END, "runner get ");
        return false;
    }
    return true;
}

int view_run(const struct runner_env *env, const struct view_options *options)
{
    static const char clear[] = "\033[H\033[2J";
    struct view *view = calloc(1, sizeof *view);
    if (view == NULL || uv_loop_init(&view->loop) != 0) {
        free(view);
        return RUNNER_FAILED;
    }
    view->env = env;
    view->options = *options;
    view->dir = (struct pod_dir)POD_DIR_INIT;
    // The bytes are those of one channel; the other begins with what is kept.
    view->from[0] = view->from[1] = options->kind == VIEW_SEND ? POD_FROM_NOW : POD_FROM_KEPT;
    if (options->kind != VIEW_SEND) {
        view->from[options->stderr_only ? POD_CHANNEL_ERR : POD_CHANNEL_OUT] = options->from;
    }
    view->stop_at = UINT64_MAX;
    view->deadline = monotonic_ms() + HANDSHAKE_MS;
    (void)uv_timer_init(&view->loop, &view->timer);
    (void)uv_timer_init(&view->loop, &view->patience);
    view->timer.data = view->patience.data = view;
    if (options->timeout_ms != 0) {
        (void)uv_timer_start(&view->patience, on_patience_over, options->timeout_ms, 0);
    }
    if (open_folder(view) == RUNNER_OK && may_close(view)) {
        open_input(view);
        open_signals(view);
        if (view->raw) {
            (void)show(clear, sizeof clear - 1);
        }
        connect_view(view);
        while (!view->over) {
            (void)uv_run(&view->loop, UV_RUN_DEFAULT);
        }
    }
    os_terminal_restore();
    close_view(view);
    int code = tell_end(view);
    view->stuck = stuck_end(view->stuck);
    free(view);
    return code;
}

bool view_parse_from(const char *text, uint64_t *ret_from)
{
    char *end;
    if (strcmp(text, "start") == 0) {
        *ret_from = 0;
    } else if (strcmp(text, "kept") == 0) {
        *ret_from = POD_FROM_KEPT;
    } else if (strcmp(text, "now") == 0) {
        *ret_from = POD_FROM_NOW;
    } else {
        *ret_from = strtoull(text, &end, 10);
        return text[0] >= '0' && text[0] <= '9' && *end == '\0' && *ret_from < POD_FROM_NOW;
    }
    return true;
}
