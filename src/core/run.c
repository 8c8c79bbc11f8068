#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"

// pm_run: one loop on the caller's thread moves bytes both ways, notices the end, and drives the
// stop once the time is up, so that nothing waits for anything else.

#define OUTPUT_DEFAULT ((size_t)1024 * 1024)
#define OUTPUT_FIRST ((size_t)4096)

struct output {
    char *text;
    size_t size, capacity, most;
    uint64_t dropped;
};

// What a result points at, in one block that begins with the record.
struct answer {
    struct pm_exit record;
    struct pm_stop_report stop;
};

struct run {
    pm_process *process;
    struct answer *answer;           // Until it is given.
    struct pmi_os_stream streams[3]; // Nobody else has them.
    bool captured[3];
    struct output outputs[2];
    const char *input;
    size_t input_size, input_written;
    bool dead;   // There is nothing to watch any more, though its status may be pending.
    bool ended;  // And its record is final.
    bool ending; // All input was given, or is not to be: its end is to be told.
    bool stopping;
    bool overdue;     // Was not even started in time.
    int64_t deadline; // PMI_NEVER: none.
    int64_t give_up;  // After a stop.
    struct pmi_stopper stopper;
    char scratch[2][16384];
};

// ------------------------------------------------------------------------------------------------
// Before
// ------------------------------------------------------------------------------------------------

static int bad(struct pm_error *err, int code, const char *field)
{
    return pmi_set_error(err, code, PM_STAGE_CHECK, field);
}

// The Spec of the start, with what the header says of slots left zero.
static int fill_spec(const struct pm_run_options *o, struct pm_spec *spec, struct pm_error *err)
{
    if (o->spec == NULL || pmi_copy_in(spec, o->spec, sizeof *spec) != PM_OK) {
        return bad(err, PM_ERR_INVALID, "spec");
    }
    (void)snprintf(err->owner, sizeof err->owner, "%s", spec->owner != NULL ? spec->owner : "");
    (void)snprintf(err->program, sizeof err->program, "%s",
                   spec->program != NULL ? spec->program : "");
    if (o->input == NULL && o->input_size != 0) {
        return bad(err, PM_ERR_INVALID, "input");
    }
    if (spec->mode == PM_MODE_DAEMON) {
        return bad(err, PM_ERR_UNSUPPORTED, "mode");
    }
    if (spec->mode == PM_MODE_PTY) {
        return PM_OK;
    }
    if (spec->stdin_slot.kind == PM_STDIO_DEFAULT) {
        spec->stdin_slot.kind = o->input_size != 0 ? PM_STDIO_PIPE : PM_STDIO_NULL;
    }
    if (spec->stdout_slot.kind == PM_STDIO_DEFAULT) {
        spec->stdout_slot.kind = PM_STDIO_PIPE;
    }
    if (spec->stderr_slot.kind == PM_STDIO_DEFAULT) {
        spec->stderr_slot.kind = PM_STDIO_PIPE;
    }
    return o->input_size != 0 && spec->stdin_slot.kind != PM_STDIO_PIPE
               ? bad(err, PM_ERR_INVALID, "input")
               : PM_OK;
}

static void take_streams(struct run *r)
{
    for (int i = 0; i < 3; i++) {
        struct pm_stream *s = &r->process->streams[i];
        struct pmi_os_stream none = PMI_OS_STREAM_INIT;
        r->streams[i] = none;
        atomic_store(&s->closing, true);
        atomic_store(&s->taken, s->exists);
        atomic_store(&s->native, PM_NATIVE_INVALID);
        pmi_mutex_lock(&s->lock);
        r->captured[i] = pmi_os_stream_is_open(&s->os);
        if (r->captured[i]) {
            r->streams[i] = s->os;
            s->os = none;
        }
        pmi_mutex_unlock(&s->lock);
    }
}

// ------------------------------------------------------------------------------------------------
// Bytes
// ------------------------------------------------------------------------------------------------

static int keep(struct output *out, const char *data, size_t count)
{
    size_t room = out->most - out->size;
    size_t kept = count < room ? count : room;
    out->dropped += count - kept;
    if (out->size + kept + 1 > out->capacity) {
        size_t capacity = out->capacity == 0 ? OUTPUT_FIRST : out->capacity * 2;
        while (capacity < out->size + kept + 1) {
            capacity *= 2;
        }
        char *grown = realloc(out->text, capacity);
        if (grown == NULL) {
            return PM_ERR_NO_MEMORY;
        }
        out->text = grown;
        out->capacity = capacity;
    }
    memcpy(out->text + out->size, data, kept);
    out->size += kept;
    out->text[out->size] = '\0';
    return PM_OK;
}

static bool is_open(const struct run *r, int i)
{
    return pmi_os_stream_is_open(&r->streams[i]);
}

// At once, or as soon as there is room for its end.
static int close_input(struct run *r)
{
    r->ending = true;
    if (!is_open(r, PM_STDIN)) {
        return PM_OK;
    }
    int result = pmi_os_stream_finish(&r->streams[PM_STDIN], &r->process->os);
    if (result == PM_OK) {
        pmi_os_stream_close(&r->streams[PM_STDIN]);
    }
    return result == PM_ERR_TIMEOUT ? PM_OK : result;
}

static uint32_t drain_ms(const struct run *r)
{
    return r->process->manager->options.drain_ms;
}

// Moves what can be moved, or waits for it, for the end of the process, or for `wake`.
static int move_bytes(struct run *r, int64_t wake)
{
    struct pmi_transfer transfers[3];
    memset(transfers, 0, sizeof transfers);
    if (is_open(r, PM_STDIN) && !r->ending) {
        transfers[0].stream = &r->streams[PM_STDIN];
        transfers[0].output = r->input + r->input_written;
        transfers[0].size = r->input_size - r->input_written;
    }
    for (int i = PM_STDOUT; i <= PM_STDERR; i++) {
        if (is_open(r, i)) {
            transfers[i].stream = &r->streams[i];
            transfers[i].input = r->scratch[i - 1];
            transfers[i].size = sizeof r->scratch[i - 1];
        }
    }
    pmi_os_streams_transfer(transfers, &r->process->os, !r->dead, wake, drain_ms(r));
    for (int i = 0; i < 3; i++) {
        if (transfers[i].result != PM_OK) {
            return transfers[i].result;
        }
    }
    r->input_written += transfers[0].count;
    int closed = PM_OK;
    if (r->ending || transfers[0].ended || r->input_written == r->input_size) {
        closed = close_input(r);
    }
    for (int i = PM_STDOUT; i <= PM_STDERR; i++) {
        if (transfers[i].stream == NULL) {
            continue;
        }
        int result = keep(&r->outputs[i - 1], r->scratch[i - 1], transfers[i].count);
        if (result != PM_OK) {
            return result;
        }
        if (transfers[i].truncated) {
            atomic_store(&r->process->streams[i].truncated, true);
        }
        if (transfers[i].ended && is_open(r, i)) {
            pmi_os_stream_close(&r->streams[i]);
        }
    }
    return closed;
}

// ------------------------------------------------------------------------------------------------
// The loop
// ------------------------------------------------------------------------------------------------

static int notice_end(struct run *r)
{
    int result = r->ended ? PM_OK : pm_process_wait(r->process, 0, NULL);
    if (result == PM_ERR_TIMEOUT) {
        return PM_OK;
    }
    if (!r->dead) {
        r->dead = true;
        pmi_os_stream_close(&r->streams[PM_STDIN]); // Nobody is there to be told its end.
        if (r->deadline != PMI_NEVER) {
            // Who only holds the outputs is left alone, also this near to the deadline: the
            // silence ends the run first.
            int64_t least = drain_ms(r) < PMI_DEFAULT_DRAIN_MS ? drain_ms(r) : PMI_DEFAULT_DRAIN_MS;
            least = pmi_now_ms() + 2 * least;
            r->deadline = r->deadline > least ? r->deadline : least;
        }
    }
    r->ended = result == PM_OK;
    return result == PM_ERR_STATUS_PENDING ? PM_OK : result;
}

static bool any_output(const struct run *r)
{
    return is_open(r, PM_STDOUT) || is_open(r, PM_STDERR);
}

static bool is_over(const struct run *r)
{
    // What a stop has left does not end: nor may its output.
    if (r->stopping && r->stopper.done && r->stopper.report.result != PM_OK) {
        return true;
    }
    // Dead, and a tracer keeps its status.
    if (r->stopping && r->stopper.done && r->dead && !r->ended && pmi_now_ms() >= r->give_up) {
        return true;
    }
    return r->ended && (!r->stopping || r->stopper.done) && !any_output(r);
}

static void give_up_outputs(struct run *r)
{
    for (int i = PM_STDOUT; i <= PM_STDERR; i++) {
        if (is_open(r, i)) {
            atomic_store(&r->process->streams[i].truncated, true);
            pmi_os_stream_close(&r->streams[i]);
        }
    }
}

// now: from before the look at its end, so that who ended in time is not stopped.
static int drive_stop(struct run *r, int64_t now)
{
    if (!r->stopping && now >= r->deadline) {
        r->stopping = true;
        pmi_stopper_begin(&r->stopper, r->process, NULL, PMI_NEVER);
    }
    if (!r->stopping) {
        return PM_OK;
    }
    if (r->stopper.done) {
        if (pmi_now_ms() >= r->give_up) {
            give_up_outputs(r);
        }
        return PM_OK;
    }
    int result = PM_OK;
    pmi_stopper_advance(&r->stopper);
    for (unsigned i = 0; i < r->stopper.step; i++) {
        if (r->stopper.plan.steps[i].action == PM_STOP_CLOSE_STDIN) {
            result = close_input(r); // Ours: the Handle's own was taken.
        }
    }
    if (r->stopper.done) {
        // Time to read what was written. Who still writes then was not to be stopped.
        r->give_up = pmi_now_ms() + PM_STOP_SETTLE_MS;
    }
    return result;
}

// When the loop has something to do even if no byte can be moved.
static int64_t next_wake(const struct run *r)
{
    int64_t wake = r->deadline;
    if (r->stopping && !r->stopper.done) {
        wake = r->stopper.wake;
    } else if (r->stopping) {
        wake = any_output(r) ? r->give_up : PMI_NEVER;
    }
    // Nothing tells when the status is there, or room for the end of the input.
    if ((r->dead && !r->ended) || (r->ending && is_open(r, PM_STDIN))) {
        int64_t soon = pmi_now_ms() + PMI_PENDING_POLL_MS;
        wake = soon < wake ? soon : wake;
    }
    return wake;
}

static int loop(struct run *r)
{
    int failed = r->input_size == 0 ? close_input(r) : PM_OK;
    for (;;) {
        int64_t now = pmi_now_ms();
        int result = notice_end(r);
        if (result == PM_OK && !is_over(r)) {
            result = failed == PM_OK ? drive_stop(r, now) : failed;
        }
        if (result != PM_OK || is_over(r)) {
            if (result == PM_OK && r->stopping) {
                result = r->stopper.report.result;
                result = result == PM_OK && !r->ended ? PM_ERR_TIMEOUT : result;
            }
            return result;
        }
        result = move_bytes(r, next_wake(r));
        if (result != PM_OK) {
            return result;
        }
    }
}

// ------------------------------------------------------------------------------------------------
// After
// ------------------------------------------------------------------------------------------------

static void kill_tree(pm_process *p)
{
    struct pm_stop_plan plan = {.steps_count = 1};
    plan.steps[0].action = PM_STOP_KILL;
    plan.steps[0].scope = PM_SCOPE_TREE;
    (void)pm_process_stop(p, &plan, NULL);
}

static int give_result(struct run *r, struct pm_run_result *ret_result)
{
    struct pm_run_result result = PM_RUN_RESULT_INIT;
    if (r->ended) {
        (void)pm_process_wait(r->process, 0, &r->answer->record);
    }
    if (r->stopping) {
        r->answer->stop = r->stopper.report;
    }
    result.record = &r->answer->record;
    result.stop = &r->answer->stop;
    result.timed_out = r->stopping || r->overdue;
    result.input_written = r->input_written;
    for (int i = 0; i < 2; i++) {
        if (r->captured[i + 1] && keep(&r->outputs[i], "", 0) != PM_OK) {
            return PM_ERR_NO_MEMORY; // Not even an empty text.
        }
        result.output[i] = r->captured[i + 1] ? r->outputs[i].text : NULL;
        result.output_size[i] = r->outputs[i].size;
        result.output_dropped[i] = r->outputs[i].dropped;
    }
    int copied = pmi_copy_out(ret_result, &result, sizeof result);
    if (copied == PM_OK) {
        r->answer = NULL;
    }
    return copied;
}

// Hands over the result, or leaves nothing.
static int finish(struct run *r, int result, struct pm_run_result *ret_result)
{
    bool given = false;
    pmi_stopper_end(&r->stopper);
    if (result == PM_OK || result == PM_ERR_TIMEOUT) {
        int copied = give_result(r, ret_result);
        given = copied == PM_OK;
        result = given ? result : copied;
    }
    if (!given) {
        kill_tree(r->process);
        free(r->outputs[0].text);
        free(r->outputs[1].text);
    }
    for (int i = 0; i < 3; i++) {
        pmi_os_stream_close(&r->streams[i]);
    }
    (void)pm_process_unref(r->process);
    return result;
}

// A start that takes too long has nothing to show, but a result to be read like any other.
static int finish_unstarted(struct run *r, const struct pm_spec *spec,
                            struct pm_run_result *ret_result)
{
    bool terminal = spec->mode == PM_MODE_PTY;
    r->captured[PM_STDOUT] = terminal || spec->stdout_slot.kind == PM_STDIO_PIPE;
    r->captured[PM_STDERR] = spec->stderr_slot.kind == PM_STDIO_PIPE;
    r->overdue = pmi_now_ms() >= r->deadline;
    int copied = give_result(r, ret_result);
    if (copied != PM_OK) {
        free(r->outputs[0].text);
        free(r->outputs[1].text);
    }
    return copied == PM_OK ? PM_ERR_TIMEOUT : copied;
}

// The start has no more time than the whole.
static void limit_start(struct pm_spec *spec, int64_t timeout_ms)
{
    uint32_t most = spec->start_timeout_ms != 0 ? spec->start_timeout_ms : PMI_DEFAULT_START_MS;
    if (timeout_ms > 0 && timeout_ms < (int64_t)most) {
        spec->start_timeout_ms = (uint32_t)timeout_ms;
    }
}

static int run(pm_manager *m, const struct pm_run_options *options,
               struct pm_run_result *ret_result, struct pm_error *err)
{
    struct pm_run_options o;
    struct pm_spec spec;
    // A result without room for the outputs could not be cleared.
    if (pmi_copy_in(&o, options, sizeof o) != PM_OK ||
        ret_result->size < offsetof(struct pm_run_result, output_size)) {
        return bad(err, PM_ERR_INVALID, "size");
    }
    int result = pmi_check_manager(m);
    if (result == PM_OK && m->options.loop == PM_LOOP_CALLER &&
        atomic_load(&m->dispatching_thread) == pmi_thread_self()) {
        result = PM_ERR_WOULD_DEADLOCK;
    }
    if (result != PM_OK) {
        return bad(err, result, NULL);
    }
    result = fill_spec(&o, &spec, err);
    if (result != PM_OK) {
        return result;
    }
    struct run *r = calloc(1, sizeof *r);
    struct answer *answer = calloc(1, sizeof *answer);
    if (r == NULL || answer == NULL) {
        free(r);
        free(answer);
        return bad(err, PM_ERR_NO_MEMORY, NULL);
    }
    answer->record = (struct pm_exit)PM_EXIT_INIT;
    answer->stop = (struct pm_stop_report)PM_STOP_REPORT_INIT;
    r->answer = answer;
    r->input = o.input;
    r->input_size = o.input_size;
    r->outputs[0].most = r->outputs[1].most = o.max_output != 0 ? o.max_output : OUTPUT_DEFAULT;
    r->deadline = o.timeout_ms > 0 ? pmi_deadline(o.timeout_ms) : PMI_NEVER;
    limit_start(&spec, o.timeout_ms);
    result = pm_spawn(m, &spec, &r->process, err);
    if (result == PM_OK) {
        take_streams(r);
        result = finish(r, loop(r), ret_result);
        if (result != PM_OK) {
            (void)pmi_set_error(err, result, PM_STAGE_WAIT, NULL);
        }
    } else if (result == PM_ERR_TIMEOUT) {
        result = finish_unstarted(r, &spec, ret_result);
        err->code = result;
    }
    free(r->answer);
    free(r);
    return result;
}

PM_API int pm_run(pm_manager *m, const struct pm_run_options *options,
                  struct pm_run_result *ret_result, struct pm_error *ret_error)
{
    struct pm_error err = PM_ERROR_INIT;
    (void)snprintf(err.action, sizeof err.action, "run");
    int cancel = pmi_cancel_off();
    int result = m == NULL || options == NULL || ret_result == NULL
                     ? bad(&err, PM_ERR_INVALID, NULL)
                     : run(m, options, ret_result, &err);
    pmi_cancel_restore(cancel);
    if (result != PM_OK && ret_error != NULL) {
        (void)pmi_copy_out(ret_error, &err, sizeof err);
    }
    return result;
}

PM_API void pm_run_result_clear(struct pm_run_result *result)
{
    if (result != NULL) {
        struct pm_run_result empty = PM_RUN_RESULT_INIT;
        // The record is the beginning of the block; the cast undoes a const for the reader.
        // NOLINTNEXTLINE(performance-no-int-to-ptr)
        free((void *)(uintptr_t)result->record);
        free(result->output[0]);
        free(result->output[1]);
        (void)pmi_copy_out(result, &empty, sizeof empty);
    }
}
