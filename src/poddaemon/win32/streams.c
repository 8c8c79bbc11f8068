// The child's streams, which are overlapped pipes, and handles to wait for.
#include <stdlib.h>
#include <string.h>

#include <windows.h>

#include "poddaemon/os.h"

#define READ_SIZE 65536
#define WRITE_MAX 65536
#define PAUSE_MS 20

// ------------------------------------------------------------------------------------------------
// Source
// ------------------------------------------------------------------------------------------------

struct pod_reader {
    uv_pipe_t pipe;
    pod_source_data *data; // NULL: closed.
    void *user;
    size_t room; // So much is read; 0: nothing, and libuv has been told.
};

static void on_reader_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void give_buffer(uv_handle_t *handle, size_t size, uv_buf_t *buffer)
{
    static char bytes[READ_SIZE]; // Empty between two reads.
    const struct pod_reader *reader = handle->data;
    (void)size;
    *buffer = uv_buf_init(bytes, (unsigned)(reader->room < READ_SIZE ? reader->room : READ_SIZE));
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct pod_reader *reader = stream->data;
    if (count == UV_ENOMEM || count == UV_ENOBUFS) {
        reader->data(reader->user, NULL, PM_ERR_NO_MEMORY);
        if (reader->data != NULL && reader->room > 0) {
            (void)uv_read_start(stream, give_buffer, on_read);
        }
    } else if (count != 0) { // Any other error of a pipe is its end.
        reader->data(reader->user, buffer->base, count > 0 ? count : 0);
    }
}

int pod_source_open(uv_loop_t *loop, struct pod_source *source, pm_native native, bool terminal,
                    pod_source_data *data, void *user)
{
    struct pod_reader *reader = calloc(1, sizeof *reader);
    (void)terminal;
    source->reader = NULL;
    if (reader == NULL) {
        pod_connection_close(native);
        return PM_ERR_NO_MEMORY;
    }
    reader->data = data;
    reader->user = user;
    reader->room = SIZE_MAX;
    (void)uv_pipe_init(loop, &reader->pipe, 0);
    reader->pipe.data = reader;
    int result = pod_pipe_open(&reader->pipe, native);
    if (result != PM_OK) {
        uv_close((uv_handle_t *)&reader->pipe, on_reader_closed);
        return result;
    }
    source->reader = reader;
    (void)uv_read_start((uv_stream_t *)&reader->pipe, give_buffer, on_read);
    return PM_OK;
}

void pod_source_room(struct pod_source *source, size_t room)
{
    struct pod_reader *reader = source->reader;
    if (reader == NULL) {
        return;
    }
    bool stopped = reader->room == 0;
    reader->room = room;
    if (room == 0 && !stopped) {
        uv_read_stop((uv_stream_t *)&reader->pipe);
    } else if (room > 0 && stopped) {
        (void)uv_read_start((uv_stream_t *)&reader->pipe, give_buffer, on_read);
    }
}

void pod_source_look(struct pod_source *source)
{
    (void)source; // A read is under way, unless it is held.
}

void pod_source_release(struct pod_source *source)
{
    (void)source; // A pseudoconsole is open as long as it is there.
}

void pod_source_close(struct pod_source *source)
{
    if (source->reader != NULL) {
        source->reader->data = NULL;
        uv_close((uv_handle_t *)&source->reader->pipe, on_reader_closed);
        source->reader = NULL;
    }
}

// ------------------------------------------------------------------------------------------------
// Sink: one write at a time, of a copy. Its bytes count when the pipe has them.
// ------------------------------------------------------------------------------------------------

struct pod_writer {
    uv_pipe_t pipe;
    uv_timer_t pause; // After a trouble.
    unsigned open_handles;
    uv_write_t write;
    char *copy;           // NULL: nothing is under way.
    size_t size, written; // Of the copy; of the one before, which nobody was told of yet.
    bool broken;
    pod_sink_ready *ready; // NULL: closed.
    void *user;
};

static void on_writer_closed(uv_handle_t *handle)
{
    struct pod_writer *writer = handle->data;
    if (--writer->open_handles == 0) {
        free(writer->copy);
        free(writer);
    }
}

static void close_writer(struct pod_writer *writer)
{
    uv_close((uv_handle_t *)&writer->pause, on_writer_closed);
    uv_close((uv_handle_t *)&writer->pipe, on_writer_closed);
}

static void on_written(uv_write_t *write, int status)
{
    struct pod_writer *writer = write->data;
    if (writer->ready == NULL) {
        return;
    }
    free(writer->copy);
    writer->copy = NULL;
    writer->broken = writer->broken || status < 0;
    writer->written = status < 0 ? 0 : writer->size;
    writer->ready(writer->user);
}

static void on_writer_pause(uv_timer_t *timer)
{
    struct pod_writer *writer = timer->data;
    writer->ready(writer->user);
}

int pod_sink_open(uv_loop_t *loop, struct pod_sink *sink, pm_native native, pod_sink_ready *ready,
                  void *user)
{
    struct pod_writer *writer = calloc(1, sizeof *writer);
    sink->writer = NULL;
    if (writer == NULL) {
        pod_connection_close(native);
        return PM_ERR_NO_MEMORY;
    }
    writer->ready = ready;
    writer->user = user;
    (void)uv_pipe_init(loop, &writer->pipe, 0);
    (void)uv_timer_init(loop, &writer->pause);
    writer->open_handles = 2;
    writer->pipe.data = writer->pause.data = writer->write.data = writer;
    int result = pod_pipe_open(&writer->pipe, native);
    if (result != PM_OK) {
        close_writer(writer);
        return result;
    }
    sink->writer = writer;
    return PM_OK;
}

// 0: it is under way. UV_ENOMEM and whatever else does not say that nobody reads passes.
static int start_write(struct pod_writer *writer, const char *data, size_t size)
{
    writer->size = size < WRITE_MAX ? size : WRITE_MAX;
    writer->copy = POD_SYS(malloc)(writer->size);
    if (writer->copy == NULL) {
        return UV_ENOMEM;
    }
    memcpy(writer->copy, data, writer->size);
    uv_buf_t buffer = uv_buf_init(writer->copy, (unsigned)writer->size);
    int result =
        POD_SYS(uv_write)(&writer->write, (uv_stream_t *)&writer->pipe, &buffer, 1, on_written);
    if (result != 0) {
        free(writer->copy);
        writer->copy = NULL;
    }
    return result;
}

static bool is_end(int uv_error)
{
    return uv_error == UV_EPIPE || uv_error == UV_EOF || uv_error == UV_ENOTCONN ||
           uv_error == UV_ECONNRESET || uv_error == UV_ECONNABORTED;
}

int pod_sink_write(struct pod_sink *sink, const void *data, size_t size, size_t *ret_count)
{
    struct pod_writer *writer = sink->writer;
    size_t count = writer->written < size ? writer->written : size;
    *ret_count = count;
    writer->written = 0;
    if (writer->broken) {
        return PM_ERR_BROKEN_PIPE;
    }
    if (writer->copy != NULL || size == count) {
        return PM_OK;
    }
    int result = start_write(writer, (const char *)data + count, size - count);
    if (result == 0) {
        return PM_OK;
    }
    writer->broken = is_end(result);
    if (!writer->broken) {
        (void)uv_timer_start(&writer->pause, on_writer_pause, PAUSE_MS, 0);
    }
    return writer->broken ? PM_ERR_BROKEN_PIPE : PM_ERR_NO_MEMORY;
}

static void on_shut(uv_shutdown_t *request, int status)
{
    struct pod_writer *writer = request->data;
    (void)status;
    free(request);
    if (!uv_is_closing((uv_handle_t *)&writer->pipe)) { // At the end the loop closes all.
        close_writer(writer);
    }
}

void pod_sink_close(struct pod_sink *sink)
{
    struct pod_writer *writer = sink->writer;
    if (writer == NULL) {
        return;
    }
    writer->ready = NULL;
    sink->writer = NULL;
    (void)uv_timer_stop(&writer->pause);
    // What is under way is written first: it is the end of the child's input.
    uv_shutdown_t *request = malloc(sizeof *request);
    if (request != NULL) {
        request->data = writer;
        if (uv_shutdown(request, (uv_stream_t *)&writer->pipe, on_shut) == 0) {
            return;
        }
        free(request);
    }
    close_writer(writer);
}

// ------------------------------------------------------------------------------------------------
// Watch: the thread pool waits, the loop is told
// ------------------------------------------------------------------------------------------------

struct pod_waiter {
    uv_async_t async;
    HANDLE handle, wait;
    pod_watch_ready *ready; // NULL: closed.
    void *user;
};

static void CALLBACK on_signalled(void *context, BOOLEAN timed_out)
{
    struct pod_waiter *waiter = context;
    (void)timed_out;
    (void)uv_async_send(&waiter->async);
}

static void stop_waiting(struct pod_waiter *waiter)
{
    if (waiter->wait != NULL) {
        (void)UnregisterWaitEx(waiter->wait, INVALID_HANDLE_VALUE);
        waiter->wait = NULL;
    }
}

static bool start_waiting(struct pod_waiter *waiter)
{
    return RegisterWaitForSingleObject(&waiter->wait, waiter->handle, on_signalled, waiter,
                                       INFINITE, WT_EXECUTEONLYONCE | WT_EXECUTEINWAITTHREAD) != 0;
}

static void on_waiter(uv_async_t *async)
{
    struct pod_waiter *waiter = async->data;
    if (waiter->ready == NULL) {
        return;
    }
    stop_waiting(waiter);
    waiter->ready(waiter->user);
    if (waiter->ready != NULL && !start_waiting(waiter)) {
        waiter->wait = NULL;
        (void)uv_async_send(async); // No memory for a moment: asked in the loop's own rhythm.
    }
}

static void on_waiter_closed(uv_handle_t *handle)
{
    free(handle->data);
}

int pod_watch_open(uv_loop_t *loop, struct pod_watch *watch, pm_native native,
                   pod_watch_ready *ready, void *user)
{
    struct pod_waiter *waiter = calloc(1, sizeof *waiter);
    if (waiter == NULL || uv_async_init(loop, &waiter->async, on_waiter) != 0) {
        free(waiter);
        return PM_ERR_NO_MEMORY;
    }
    waiter->async.data = waiter;
    waiter->handle = (HANDLE)native;
    waiter->ready = ready;
    waiter->user = user;
    if (!start_waiting(waiter)) {
        waiter->ready = NULL;
        uv_close((uv_handle_t *)&waiter->async, on_waiter_closed);
        return PM_ERR_SYSTEM;
    }
    watch->waiter = waiter;
    return PM_OK;
}

void pod_watch_close(struct pod_watch *watch)
{
    struct pod_waiter *waiter = watch->waiter;
    if (waiter != NULL) {
        stop_waiting(waiter);
        waiter->ready = NULL;
        uv_close((uv_handle_t *)&waiter->async, on_waiter_closed);
        watch->waiter = NULL;
    }
}
