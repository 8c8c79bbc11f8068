// The child of the session: its start, its output into the rings, its input out of the queue.
#include <stdlib.h>
#include <string.h>

#include "poddaemon/daemon.h"

#define START_MS 5000

// ------------------------------------------------------------------------------------------------
// Output
// ------------------------------------------------------------------------------------------------

void pod_child_end_output(struct pod *pod, unsigned channel, bool truncated)
{
    struct pod_channel_state *state = &pod->channels[channel];
    if (!state->ending.ended) {
        state->ending = (struct pod_ending){true, truncated};
        pod_source_close(&state->source);
        pod_session_output_ended(pod);
    }
}

// What the child waits for. A viewer, or somebody who only looks whether we are there, is never
// waited for; nor is a writer that is gone, or has taken nothing for too long.
static const struct pod_conn *awaited(const struct pod *pod)
{
    const struct pod_conn *conn = pod->conns;
    if (pod->config.on_full != POD_FULL_WAIT || pod->rules.writer == NULL || pod->given_up ||
        pod->stopping.active) {
        return NULL;
    }
    while (conn != NULL && &conn->peer != pod->rules.writer) {
        conn = conn->next;
    }
    return conn;
}

static bool is_held(const struct pod *pod)
{
    return pod->channels[POD_CHANNEL_OUT].held || pod->channels[POD_CHANNEL_ERR].held;
}

// The time is over. We may have slept through it, as the whole machine may: what the writer has
// said meanwhile is in its socket, and counts.
static void on_waited(uv_timer_t *timer)
{
    struct pod *pod = timer->data;
    if (!pod->waited) {
        pod->waited = true;
        (void)uv_timer_start(timer, on_waited, 1, 0); // After another round of the loop.
        return;
    }
    pod_note(pod, "the writer has taken nothing for %u s: the child goes on",
             (unsigned)pod->config.wait_s);
    pod->given_up = true;
    pod_child_flow(pod);
}

// Of one channel: how much may be read. true: the writer has taken more than before.
static bool set_room(struct pod_channel_state *state, const struct pod_conn *writer,
                     unsigned channel)
{
    const struct pod_ring *ring = &state->ring;
    size_t room = SIZE_MAX;
    uint64_t before = state->floor;
    if (writer != NULL && !state->ending.ended) {
        uint64_t taken =
            writer->acknowledges ? writer->acked[channel] : writer->cursors[channel].offset;
        state->floor = taken > ring->first ? taken : ring->first;
        uint64_t kept = ring->end - state->floor;
        room = kept < ring->capacity ? ring->capacity - (size_t)kept : 0;
    }
    state->held = room == 0;
    pod_source_room(&state->source, room);
    return state->floor != before;
}

void pod_child_flow(struct pod *pod)
{
    if (pod->config.on_full != POD_FULL_WAIT || pod->child == NULL) {
        return;
    }
    const struct pod_conn *writer = awaited(pod);
    bool moved = false;
    for (unsigned i = 0; i < POD_CHANNELS; i++) {
        moved = set_room(&pod->channels[i], writer, i) || moved;
    }
    if (!is_held(pod)) {
        (void)uv_timer_stop(&pod->wait_timer);
    } else if (moved || !uv_is_active((uv_handle_t *)&pod->wait_timer)) {
        pod->waited = false;
        (void)uv_timer_start(&pod->wait_timer, on_waited, pod->config.wait_s * UINT64_C(1000), 0);
    }
}

static void take_output(struct pod *pod, unsigned channel, const void *data, int64_t count)
{
    if (count < 0) {
        pod_fault(pod, POD_FAULT_CHILD, (int)count, "read");
    } else if (count == 0) {
        pod_child_end_output(pod, channel, false);
    } else {
        pod_ring_write(&pod->channels[channel].ring, data, (size_t)count);
        pod_session_byte_seen(pod);
        pod_conns_pump(pod);
        pod_child_flow(pod);
    }
}

static void on_out(void *user, const void *data, int64_t count)
{
    take_output(user, POD_CHANNEL_OUT, data, count);
}

static void on_err(void *user, const void *data, int64_t count)
{
    take_output(user, POD_CHANNEL_ERR, data, count);
}

// ------------------------------------------------------------------------------------------------
// Input
// ------------------------------------------------------------------------------------------------

size_t pod_child_input_room(const struct pod *pod)
{
    return POD_INPUT_MAX - (size_t)(pod->input.end - pod->input.begin);
}

bool pod_child_take_input(struct pod *pod, struct pod_bytes data)
{
    struct pod_input *input = &pod->input;
    if (input->bytes == NULL && (input->bytes = malloc(POD_INPUT_MAX)) == NULL) {
        return false;
    }
    if (input->begin == input->end) {
        input->begin = input->end = 0; // Typing touches the same page again and again.
    }
    size_t room = pod_child_input_room(pod);
    if (data.size > room) {
        return false; // The credit does not allow it.
    }
    while (data.size > 0) {
        size_t at = (size_t)(input->end % POD_INPUT_MAX);
        size_t some = POD_INPUT_MAX - at < data.size ? POD_INPUT_MAX - at : data.size;
        memcpy(input->bytes + at, data.data, some);
        input->end += some;
        data.data += some;
        data.size -= some;
    }
    return true;
}

// Nobody reads it any more.
static void drop_input(struct pod_input *input)
{
    input->lost |= input->begin < input->end;
    input->begin = input->end;
    input->close = true;
}

static void after_write(struct pod *pod)
{
    if (pod->input.begin == pod->input.end && pod->input.close && pod->sink_open) {
        pod_sink_close(&pod->sink);
        pod->sink_open = false;
    }
    for (struct pod_conn *conn = pod->conns, *next; conn != NULL; conn = next) {
        next = conn->next;
        if (conn->phase == POD_PHASE_READY) {
            pod_conn_credit(conn);
            pod_conn_pump(conn);
        }
    }
}

void pod_child_write(struct pod *pod)
{
    struct pod_input *input = &pod->input;
    while (pod->sink_open && input->begin < input->end) {
        size_t at = (size_t)(input->begin % POD_INPUT_MAX), count = 0;
        size_t size = (size_t)(input->end - input->begin);
        size = POD_INPUT_MAX - at < size ? POD_INPUT_MAX - at : size;
        int result = pod_sink_write(&pod->sink, input->bytes + at, size, &count);
        input->begin += count;
        pod->input_taken += count;
        if (result == PM_ERR_BROKEN_PIPE) {
            drop_input(input);
        } else if (result != PM_OK) {
            pod_fault(pod, POD_FAULT_CHILD, result, "write");
        }
        if (result != PM_OK || count < size) {
            break;
        }
    }
    after_write(pod);
}

static void on_sink_ready(void *user)
{
    pod_child_write(user);
}

void pod_child_close_input(struct pod *pod)
{
    pod->input.close = true;
    pod_child_write(pod);
}

void pod_child_drop_input(struct pod *pod)
{
    drop_input(&pod->input);
    pod_child_write(pod);
}

// ------------------------------------------------------------------------------------------------
// Size
// ------------------------------------------------------------------------------------------------

static void on_redraw(uv_timer_t *timer)
{
    struct pod *pod = timer->data;
    (void)pm_process_resize(pod->child, pod->columns, pod->rows);
}

int pod_child_resize(struct pod *pod, uint16_t columns, uint16_t rows, bool redraw)
{
    if (pod->config.mode != POD_MODE_PTY) {
        return PM_ERR_UNSUPPORTED;
    }
    // The same size again is no signal for the child: another one for a moment is.
    bool nudge = redraw && columns == pod->columns && rows == pod->rows && rows > 0;
    unsigned other = rows > 1 ? rows - 1u : 2u;
    int result = pm_process_resize(pod->child, columns, nudge ? other : rows);
    if (result != PM_OK) {
        return result;
    }
    pod->columns = columns;
    pod->rows = rows;
    if (nudge) {
        (void)uv_timer_start(&pod->redraw_timer, on_redraw, POD_REDRAW_MS, 0);
    } else {
        (void)uv_timer_stop(&pod->redraw_timer);
    }
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Start
// ------------------------------------------------------------------------------------------------

static void on_exit_of_child(pm_process *process, const struct pm_exit *record, void *user)
{
    (void)process;
    pod_session_child_ended(user, record);
}

static void fill_spec(struct pod *pod, struct pm_spec *spec)
{
    const struct pod_config *config = &pod->config;
    bool pipes = config->mode == POD_MODE_PIPES;
    spec->owner = config->owner != NULL && config->owner[0] != '\0' ? config->owner : "pod";
    spec->program = config->program;
    spec->argv = config->argv;
    spec->cwd = config->cwd;
    spec->env_base = PM_ENV_EMPTY;
    spec->env = config->env;
    spec->mode = pipes ? PM_MODE_NORMAL : PM_MODE_PTY;
    if (pipes) {
        spec->stdin_slot.kind = spec->stdout_slot.kind = spec->stderr_slot.kind = PM_STDIO_PIPE;
        // Its tree is found again whatever groups it makes.
        spec->new_session = POD_HAS_SESSIONS;
    } else {
        spec->terminal_columns = (uint16_t)config->columns;
        spec->terminal_rows = (uint16_t)config->rows;
    }
    spec->kill_tree_on_exit = config->kill_tree != 0;
    spec->allow_batch_file = config->batch != 0;
    spec->die_with_parent = true; // A daemon that is killed leaves nothing of the session behind.
    spec->start_timeout_ms = START_MS;
    spec->on_exit = on_exit_of_child;
    spec->user = pod;
}

static int take_stream(struct pod *pod, enum pm_stream_id id)
{
    pm_native native;
    bool terminal = pod->config.mode == POD_MODE_PTY;
    int result = pm_stream_take(pm_process_stream(pod->child, id), &native);
    if (result != PM_OK) {
        return result;
    }
    if (id == PM_STDIN) {
        result = pod_sink_open(&pod->loop, &pod->sink, native, on_sink_ready, pod);
        pod->sink_open = result == PM_OK;
        return result;
    }
    unsigned channel = id == PM_STDOUT ? POD_CHANNEL_OUT : POD_CHANNEL_ERR;
    return pod_source_open(&pod->loop, &pod->channels[channel].source, native, terminal,
                           id == PM_STDOUT ? on_out : on_err, pod);
}

static int make_rings(struct pod *pod)
{
    bool pipes = pod->config.mode == POD_MODE_PIPES;
    if (!pod_ring_init(&pod->channels[POD_CHANNEL_OUT].ring, pod->config.ring_size)) {
        return PM_ERR_NO_MEMORY;
    }
    if (!pipes) { // A terminal has one channel.
        pod->channels[POD_CHANNEL_ERR].ending.ended = true;
        return PM_OK;
    }
    bool made = pod_ring_init(&pod->channels[POD_CHANNEL_ERR].ring, pod->config.err_ring_size);
    return made ? PM_OK : PM_ERR_NO_MEMORY;
}

// What a started child needs of us. If we cannot, it is ended again by the end of the daemon.
static int adopt(struct pod *pod)
{
    bool pipes = pod->config.mode == POD_MODE_PIPES;
    int result = take_stream(pod, PM_STDIN);
    if (result == PM_OK) {
        result = take_stream(pod, PM_STDOUT);
    }
    if (result == PM_OK && pipes) {
        result = take_stream(pod, PM_STDERR);
    }
    return result;
}

static const char *containment_name(enum pm_containment containment)
{
    switch (containment) {
    case PM_CONTAIN_JOB:
        return "a job";
    case PM_CONTAIN_CGROUP:
        return "a control group";
    case PM_CONTAIN_SUBREAPER:
        return "a subreaper";
    case PM_CONTAIN_GROUP:
        return POD_TREE;
    default:
        return "nothing";
    }
}

int pod_child_start(struct pod *pod, struct pm_error *error)
{
    struct pm_spec spec = PM_SPEC_INIT;
    struct pm_info info = PM_INFO_INIT;
    int result = make_rings(pod);
    fill_spec(pod, &spec);
    if (result == PM_OK) {
        result = pm_spawn(pod->manager, &spec, &pod->child, error);
    }
    if (result == PM_OK) {
        result = adopt(pod);
    }
    // The texts of the configuration hold the child's environment: they go at once.
    struct pod_config numbers = pod->config;
    pod_config_clear(&pod->config);
    pod->config = numbers;
    pod->config.memory = NULL;
    pod->config.owner = pod->config.program = pod->config.cwd = NULL;
    pod->config.argv = pod->config.env = NULL;
    if (result != PM_OK) {
        return result;
    }
    (void)pm_process_info(pod->child, &info);
    pod->child_pid = info.pid;
    pod->containment = containment_name(info.containment);
    pod->started_wall_ms = (uint64_t)info.started_wall_ms;
    pod->columns = (uint16_t)pod->config.columns;
    pod->rows = (uint16_t)pod->config.rows;
    return PM_OK;
}

void pod_child_close(struct pod *pod)
{
    if (pod->sink_open) {
        pod_sink_close(&pod->sink);
        pod->sink_open = false;
    }
    for (unsigned i = 0; i < POD_CHANNELS; i++) {
        pod_source_close(&pod->channels[i].source);
        pod_ring_clear(&pod->channels[i].ring);
    }
    free(pod->input.bytes);
    pod->input.bytes = NULL;
    pod->child = pm_process_unref(pod->child);
    pod_strays_clear(&pod->strays);
}
