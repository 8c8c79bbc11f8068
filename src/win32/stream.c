// Our end of a pipe. Each operation is over when the call returns: a pending one is cancelled, and
// what arrived meanwhile is counted, so nothing is lost and nothing points into freed memory.
#include "terminal.h"

#define CHUNK (64 * 1024) // The pipe's own capacity.
#define CHUNK_SMALLEST 512

static bool is_broken(DWORD os_code)
{
    return os_code == ERROR_BROKEN_PIPE || os_code == ERROR_NO_DATA ||
           os_code == ERROR_PIPE_NOT_CONNECTED || os_code == ERROR_HANDLE_EOF;
}

// Ends an operation that was begun: its count, or ERROR_OPERATION_ABORTED if nothing had happened.
static DWORD finish(const struct pmi_os_stream *s, OVERLAPPED *operation, DWORD *ret_count)
{
    if (!HasOverlappedIoCompleted(operation)) {
        (void)CancelIoEx(s->handle, operation); // Fails harmlessly if it is over by now.
    }
    *ret_count = 0;
    return GetOverlappedResult(s->handle, operation, ret_count, TRUE) ? ERROR_SUCCESS
                                                                      : GetLastError();
}

// ------------------------------------------------------------------------------------------------
// Read
// ------------------------------------------------------------------------------------------------

// What is signalled from when on silence counts. The last bytes of a terminal come after the end of
// its process, when its console host has found the time to draw them.
static HANDLE end_of(const struct pmi_os_stream *s, const struct pmi_os_process *op)
{
    return s->terminal != NULL ? pmi_win_terminal_closed(s->terminal) : op->process;
}

// Waits for the event of the read until the deadline, and once the process has ended no longer than
// drain_ms of silence. Returns whether it was the silence that ended the wait.
static bool wait_for_bytes(struct pmi_os_stream *s, const struct pmi_os_process *op,
                           int64_t deadline, uint32_t drain_ms)
{
    HANDLE both[2] = {s->event, end_of(s, op)};
    if (s->quiet_since == 0 && both[1] != NULL) {
        DWORD which = WaitForMultipleObjects(2, both, FALSE, pmi_win_timeout(deadline));
        if (which != WAIT_OBJECT_0 + 1) {
            return false;
        }
        s->quiet_since = pmi_now_ms();
    }
    // A process that is gone for good (recovered after its death) counts as ended now.
    if (s->quiet_since == 0) {
        s->quiet_since = pmi_now_ms();
    }
    int64_t quiet_end = s->quiet_since + drain_ms;
    int64_t end = quiet_end < deadline ? quiet_end : deadline;
    return WaitForSingleObject(s->event, pmi_win_timeout(end)) != WAIT_OBJECT_0 &&
           pmi_now_ms() >= quiet_end;
}

int pmi_os_stream_read(struct pmi_os_stream *s, struct pmi_os_process *op, void *buffer,
                       size_t capacity, int64_t deadline, uint32_t drain_ms, size_t *ret_count,
                       bool *ret_truncated)
{
    DWORD size = (DWORD)(capacity < CHUNK ? capacity : CHUNK);
    for (;;) {
        OVERLAPPED operation = {.hEvent = s->event};
        bool silent = false;
        DWORD count = 0;
        DWORD os_code = ERROR_SUCCESS;
        if (!ReadFile(s->handle, buffer, size, NULL, &operation)) {
            os_code = GetLastError();
        }
        if (os_code == ERROR_IO_PENDING) {
            silent = wait_for_bytes(s, op, deadline, drain_ms);
        }
        if (os_code == ERROR_SUCCESS || os_code == ERROR_IO_PENDING) {
            os_code = finish(s, &operation, &count);
        }
        if (count > 0) {
            s->quiet_since = 0;
            *ret_count = count;
            return PM_OK;
        }
        if (is_broken(os_code) || silent) {
            *ret_count = 0;
            *ret_truncated = !is_broken(os_code);
            return PM_OK;
        }
        if (os_code == ERROR_SUCCESS) {
            continue; // Somebody wrote zero bytes, which a pipe passes on. It is not the end.
        }
        return os_code == ERROR_OPERATION_ABORTED ? PM_ERR_TIMEOUT : PM_ERR_IO;
    }
}

// ------------------------------------------------------------------------------------------------
// Write
// ------------------------------------------------------------------------------------------------

// A pending write must not be cancelled while its bytes are being read: the system then reports 0,
// whatever the reader took (Windows as documented nowhere, Wine 8 seen). So bytes go in the
// non-blocking mode, in which a write is over at once; and to wait for room one single byte is
// written in the blocking mode, which is either read or not. The pipe rests in the blocking mode,
// since that is how a caller expects it who takes the handle.

static DWORD write_once(struct pmi_os_stream *s, const void *data, DWORD size, int64_t deadline,
                        DWORD *ret_count)
{
    OVERLAPPED operation = {.hEvent = s->event};
    if (!WriteFile(s->handle, data, size, NULL, &operation)) {
        DWORD os_code = GetLastError();
        if (os_code != ERROR_IO_PENDING) {
            *ret_count = 0;
            return os_code;
        }
        int64_t now = pmi_now_ms();
        while (WaitForSingleObject(s->event, pmi_win_timeout(deadline)) == WAIT_TIMEOUT &&
               now < deadline) {
            now = pmi_now_ms();
        }
    }
    DWORD os_code = finish(s, &operation, ret_count);
    return os_code == ERROR_OPERATION_ABORTED ? ERROR_SUCCESS : os_code;
}

// What fits now. In a full pipe Windows takes what there is room for and Wine all or nothing, so
// smaller and smaller pieces are offered.
static DWORD write_what_fits(struct pmi_os_stream *s, const char *data, size_t size,
                             DWORD *ret_count)
{
    DWORD mode = PIPE_READMODE_BYTE | PIPE_NOWAIT;
    DWORD piece = (DWORD)(size < CHUNK ? size : CHUNK);
    DWORD os_code = ERROR_SUCCESS;
    *ret_count = 0;
    if (!SetNamedPipeHandleState(s->handle, &mode, NULL, NULL)) {
        return GetLastError();
    }
    do {
        os_code = write_once(s, data, piece, 0, ret_count);
        piece /= 2;
    } while (os_code == ERROR_SUCCESS && *ret_count == 0 && piece >= CHUNK_SMALLEST);
    mode = PIPE_READMODE_BYTE | PIPE_WAIT;
    if (!SetNamedPipeHandleState(s->handle, &mode, NULL, NULL) && *ret_count == 0) {
        return GetLastError();
    }
    return os_code;
}

int pmi_os_stream_write(struct pmi_os_stream *s, const void *data, size_t size, int64_t deadline,
                        size_t *ret_count)
{
    size_t done = 0;
    DWORD os_code = ERROR_SUCCESS;
    bool late = false;
    while (done < size && os_code == ERROR_SUCCESS && !late) {
        DWORD count = 0;
        const char *rest = (const char *)data + done;
        os_code = write_what_fits(s, rest, size - done, &count);
        if (os_code == ERROR_SUCCESS && count == 0) {
            os_code = write_once(s, rest, 1, deadline, &count);
            late = count == 0;
        }
        done += count;
    }
    if (done > 0) {
        s->last = ((const unsigned char *)data)[done - 1];
    }
    *ret_count = done;
    if (os_code != ERROR_SUCCESS && !is_broken(os_code)) {
        return PM_ERR_IO;
    }
    return os_code != ERROR_SUCCESS ? PM_ERR_BROKEN_PIPE : done < size ? PM_ERR_TIMEOUT : PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Several at once
// ------------------------------------------------------------------------------------------------

// One byte of output in the blocking mode tells of room, as above; input is simply read.
static DWORD begin_transfer(struct pmi_transfer *t, OVERLAPPED *operation)
{
    DWORD count = 0;
    memset(operation, 0, sizeof *operation);
    operation->hEvent = t->stream->event;
    if (t->input == NULL) {
        DWORD os_code = write_what_fits(t->stream, t->output, t->size, &count);
        t->count = count;
        if (os_code != ERROR_SUCCESS || count > 0) {
            return os_code;
        }
        memset(operation, 0, sizeof *operation);
        operation->hEvent = t->stream->event;
        return WriteFile(t->stream->handle, t->output, 1, NULL, operation) ? ERROR_IO_PENDING
                                                                           : GetLastError();
    }
    DWORD size = (DWORD)(t->size < CHUNK ? t->size : CHUNK);
    return ReadFile(t->stream->handle, t->input, size, NULL, operation) ? ERROR_IO_PENDING
                                                                        : GetLastError();
}

static void note_end(struct pmi_transfer *t, DWORD os_code)
{
    t->ended = true;
    t->result = is_broken(os_code) ? PM_OK : PM_ERR_IO;
}

// Of an operation that was begun, whatever became of it meanwhile.
static void end_transfer(struct pmi_transfer *t, OVERLAPPED *operation)
{
    DWORD count = 0;
    DWORD os_code = finish(t->stream, operation, &count);
    t->count += count;
    if (os_code != ERROR_SUCCESS && os_code != ERROR_OPERATION_ABORTED && count == 0) {
        note_end(t, os_code);
    }
    if (t->input != NULL && count > 0) {
        t->stream->quiet_since = 0;
    }
}

// Until when to wait for a byte: once the process has ended, the end of the silence after it.
static int64_t silence_end(struct pmi_transfer *t, const struct pmi_os_process *op,
                           uint32_t drain_ms)
{
    HANDLE end = t->input != NULL ? end_of(t->stream, op) : NULL;
    if (t->input == NULL || (end != NULL && WaitForSingleObject(end, 0) != WAIT_OBJECT_0)) {
        return PMI_NEVER;
    }
    if (t->stream->quiet_since == 0) {
        t->stream->quiet_since = pmi_now_ms();
    }
    return t->stream->quiet_since + drain_ms;
}

void pmi_os_streams_transfer(struct pmi_transfer transfers[3], struct pmi_os_process *op,
                             bool watch_exit, int64_t deadline, uint32_t drain_ms)
{
    OVERLAPPED operations[3];
    bool begun[3] = {false, false, false};
    HANDLE events[4];
    DWORD count = 0;
    bool moved = false;
    int64_t until = deadline;
    for (int i = 0; i < 3; i++) {
        struct pmi_transfer *t = &transfers[i];
        if (t->stream == NULL || t->size == 0) {
            continue;
        }
        DWORD os_code = begin_transfer(t, &operations[i]);
        begun[i] = os_code == ERROR_IO_PENDING;
        if (begun[i]) {
            int64_t silence = silence_end(t, op, drain_ms);
            until = silence < until ? silence : until;
            events[count++] = t->stream->event;
        }
        if (!begun[i] && os_code != ERROR_SUCCESS) {
            note_end(t, os_code);
        }
        moved = moved || t->ended || t->count > 0;
    }
    if (watch_exit && op->process != NULL) {
        events[count++] = op->process;
    }
    if (!moved && count > 0) {
        (void)WaitForMultipleObjects(count, events, FALSE, pmi_win_timeout(until));
    } else if (!moved) {
        int64_t ms = until == PMI_NEVER ? 1 : until - pmi_now_ms();
        pmi_sleep_ms(ms > 0 ? (uint32_t)ms : 0);
    }
    for (int i = 0; i < 3; i++) {
        struct pmi_transfer *t = &transfers[i];
        if (begun[i]) {
            end_transfer(t, &operations[i]);
            bool silent =
                t->count == 0 && !t->ended && silence_end(t, op, drain_ms) <= pmi_now_ms();
            t->ended = t->ended || silent;
            t->truncated = silent;
        }
        if (t->input == NULL && t->count > 0) {
            t->stream->last = ((const unsigned char *)t->output)[t->count - 1];
        }
    }
}

// ------------------------------------------------------------------------------------------------
// The rest
// ------------------------------------------------------------------------------------------------

pm_native pmi_os_stream_native(const struct pmi_os_stream *s)
{
    return s->handle != NULL ? (pm_native)s->handle : PM_NATIVE_INVALID;
}

bool pmi_os_stream_is_open(const struct pmi_os_stream *s)
{
    return s->handle != NULL;
}

// The end of input for who reads lines is a line that begins with Ctrl-Z. A line that was begun is
// ended first. What was typed of it before is not typed again, but for a Ctrl-Z, which does no
// harm.
int pmi_os_stream_finish(struct pmi_os_stream *s, const struct pmi_os_process *op)
{
    static const char keys[] = "\r\x1a\r";
    if (s->terminal == NULL || !s->types ||
        (op->process != NULL && WaitForSingleObject(op->process, 0) == WAIT_OBJECT_0)) {
        return PM_OK;
    }
    bool at_begin = s->last == 0 || s->last == '\r' || s->last == '\n' || s->last == 0x1a;
    size_t skip = at_begin ? 1 : 0, size = sizeof keys - 1 - skip, count = 0;
    int result = pmi_os_stream_write(s, keys + skip, size, 0, &count);
    return result == PM_ERR_BROKEN_PIPE ? PM_OK : result; // Nobody reads any more.
}

pm_native pmi_os_stream_take(struct pmi_os_stream *s, struct pmi_os_process *op)
{
    (void)op;
    pm_native native = pmi_os_stream_native(s);
    if (s->terminal != NULL) {
        pmi_win_terminal_let_take(s->terminal);
        s->terminal = NULL;
    }
    s->handle = NULL;
    pmi_os_stream_close(s);
    return native;
}

// Bytes in the pipe stay readable for the child.
void pmi_os_stream_close(struct pmi_os_stream *s)
{
    if (s->terminal != NULL) {
        pmi_win_terminal_park(s->terminal, s->handle, s->types);
        s->handle = NULL;
    }
    if (s->handle != NULL) {
        (void)CloseHandle(s->handle);
    }
    if (s->event != NULL) {
        (void)CloseHandle(s->event);
    }
    *s = (struct pmi_os_stream)PMI_OS_STREAM_INIT;
}
