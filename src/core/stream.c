#include "core/core.h"

// A reader or writer blocks in slices, so that a close from another thread never waits long.

static int check_stream(const struct pm_stream *s)
{
    if (s == NULL) {
        return PM_ERR_INVALID;
    }
    return s->process->manager->self == pmi_self() ? PM_OK : PM_ERR_FORKED;
}

PM_API pm_stream *pm_process_stream(pm_process *p, enum pm_stream_id id)
{
    if (p == NULL || id < PM_STDIN || id > PM_STDERR || !p->streams[id].exists) {
        return NULL;
    }
    return &p->streams[id];
}

static int64_t slice_end(int64_t deadline)
{
    int64_t slice = pmi_now_ms() + PMI_STREAM_SLICE_MS;
    return slice < deadline ? slice : deadline;
}

PM_API int pm_stream_read(pm_stream *s, void *buffer, size_t capacity, int64_t timeout_ms,
                          size_t *ret_count)
{
    int result = check_stream(s);
    if (result != PM_OK) {
        return result;
    }
    if (buffer == NULL || capacity == 0 || ret_count == NULL ||
        s == &s->process->streams[PM_STDIN]) {
        return PM_ERR_INVALID;
    }
    int64_t deadline = timeout_ms == 0 ? 0 : pmi_deadline(timeout_ms);
    bool truncated = false;
    pmi_mutex_lock(&s->lock);
    do {
        if (atomic_load(&s->closing) || !pmi_os_stream_is_open(&s->os)) {
            result = PM_ERR_CLOSED;
            break;
        }
        result = pmi_os_stream_read(&s->os, &s->process->os, buffer, capacity,
                                    timeout_ms == 0 ? 0 : slice_end(deadline),
                                    s->process->manager->options.drain_ms, ret_count, &truncated);
    } while (result == PM_ERR_TIMEOUT && timeout_ms != 0 && pmi_now_ms() < deadline);
    pmi_mutex_unlock(&s->lock);
    if (truncated) {
        atomic_store(&s->truncated, true);
    }
    return result;
}

PM_API int pm_stream_write(pm_stream *s, const void *data, size_t size, int64_t timeout_ms,
                           size_t *ret_count)
{
    int result = check_stream(s);
    if (result != PM_OK) {
        return result;
    }
    if ((data == NULL && size != 0) || ret_count == NULL || s != &s->process->streams[PM_STDIN]) {
        return PM_ERR_INVALID;
    }
    int64_t deadline = timeout_ms == 0 ? 0 : pmi_deadline(timeout_ms);
    size_t written = 0;
    pmi_mutex_lock(&s->lock);
    do {
        if (atomic_load(&s->closing) || !pmi_os_stream_is_open(&s->os)) {
            result = PM_ERR_CLOSED;
            break;
        }
        size_t count = 0;
        result = pmi_os_stream_write(&s->os, (const char *)data + written, size - written,
                                     timeout_ms == 0 ? 0 : slice_end(deadline), &count);
        written += count;
    } while (result == PM_ERR_TIMEOUT && timeout_ms != 0 && pmi_now_ms() < deadline);
    pmi_mutex_unlock(&s->lock);
    if (result == PM_OK || result == PM_ERR_TIMEOUT || result == PM_ERR_BROKEN_PIPE ||
        result == PM_ERR_IO || result == PM_ERR_CLOSED) {
        *ret_count = written;
    }
    return result;
}

// A terminal is closed with its two streams. One that was taken is the taker's to close: until the
// Handle goes its size can still be changed.
static void let_go_of_terminal(pm_process *p)
{
    bool open = p->mode != PM_MODE_PTY;
    for (int i = PM_STDIN; i <= PM_STDOUT && !open; i++) {
        // Not under the stream's lock: a reader holds that for as long as it reads.
        const struct pm_stream *s = &p->streams[i];
        open = atomic_load(&s->taken) || atomic_load(&s->native) != PM_NATIVE_INVALID;
    }
    if (!open) {
        pmi_process_hang_up(p);
    }
}

static int close_stream(pm_stream *s, bool for_good)
{
    atomic_store(&s->closing, true);
    pmi_mutex_lock(&s->lock);
    int result =
        pmi_os_stream_is_open(&s->os) ? pmi_os_stream_finish(&s->os, &s->process->os) : PM_OK;
    if (result == PM_OK || for_good) {
        atomic_store(&s->native, PM_NATIVE_INVALID);
        pmi_os_stream_close(&s->os);
    } else {
        atomic_store(&s->closing, false);
    }
    pmi_mutex_unlock(&s->lock);
    if (result == PM_OK || for_good) {
        let_go_of_terminal(s->process);
    }
    return result;
}

void pmi_stream_close_for_good(pm_stream *s)
{
    (void)close_stream(s, true);
}

PM_API int pm_stream_close(pm_stream *s)
{
    if (s == NULL) {
        return PM_OK;
    }
    int result = check_stream(s);
    return result == PM_OK ? close_stream(s, false) : result;
}

PM_API int pm_stream_native(pm_stream *s, pm_native *ret_native)
{
    int result = check_stream(s);
    if (result != PM_OK || ret_native == NULL) {
        return result != PM_OK ? result : PM_ERR_INVALID;
    }
    pm_native native = atomic_load(&s->native);
    if (native == PM_NATIVE_INVALID) {
        return PM_ERR_CLOSED;
    }
    *ret_native = native;
    return PM_OK;
}

PM_API int pm_stream_take(pm_stream *s, pm_native *ret_native)
{
    int result = check_stream(s);
    if (result != PM_OK || ret_native == NULL) {
        return result != PM_OK ? result : PM_ERR_INVALID;
    }
    atomic_store(&s->closing, true);
    pmi_mutex_lock(&s->lock);
    if (!pmi_os_stream_is_open(&s->os)) {
        result = PM_ERR_CLOSED;
    } else {
        atomic_store(&s->taken, true); // First: see let_go_of_terminal.
        atomic_store(&s->native, PM_NATIVE_INVALID);
        *ret_native = pmi_os_stream_take(&s->os, &s->process->os);
    }
    pmi_mutex_unlock(&s->lock);
    return result;
}
