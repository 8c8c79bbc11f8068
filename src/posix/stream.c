#include "backend.h"
#include "error.h"
#include "guards.h"
#include "reactor.h"
#include "sys.h"
#include "terminal.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

static int64_t later_of(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

// Notes when the process was first seen dead.
static void look_at_exit(struct pmi_os_stream *s, const struct pmi_os_process *op)
{
    struct pollfd in = {.fd = op->exit_fd, .events = POLLIN};
    if (s->exit_seen == 0 && (op->exit_fd < 0 || pmi_sys_poll(&in, 1, 0) > 0))
        s->exit_seen = pmi_now_ms();
}

// The exit may be newer than the bytes that were read: who reaps looks for bytes after it, so one
// of the two sees that nothing is left.
static void release_slave_at_end(struct pmi_os_stream *s, struct pmi_os_process *op)
{
    if (atomic_load(&op->slave_fd) < 0)
        return;
    look_at_exit(s, op);
    if (s->exit_seen != 0 && !pmi_pty_is_readable(s->fd))
        (void)pmi_pty_release_slave(op);
}

int pmi_os_stream_read(struct pmi_os_stream *s, struct pmi_os_process *op, void *buffer,
                       size_t capacity, int64_t deadline, uint32_t drain_ms, size_t *ret_count,
                       bool *ret_truncated)
{
    for (;;) {
        // The exit first: a byte that was there before it must not be missed.
        if (op != NULL)
            look_at_exit(s, op);
        if (PMI_WITHOUT("drain") && s->exit_seen != 0) {
            *ret_count = 0;
            return PM_OK;
        }
        bool ready = !s->terminal || pmi_pty_is_readable(s->fd);
        ssize_t n = -1;
        errno = EAGAIN; // Not before: that look may have been interrupted.
        if (ready)
            n = pmi_sys_read(s->fd, buffer, capacity);
        if (n >= 0) {
            if (n > 0)
                s->byte_seen = pmi_now_ms();
            s->hung_up = false;
            if (s->terminal && op != NULL)
                release_slave_at_end(s, op);
            *ret_count = (size_t)n;
            return PM_OK;
        }
        // Nobody has the other side open. Linux looks for bytes first and for that afterwards: what
        // was written in between is there at the next read.
        if (s->terminal && errno == EIO && !s->hung_up) {
            s->hung_up = true;
            continue;
        }
        if (s->terminal && errno == EIO) {
            *ret_count = 0;
            return PM_OK;
        }
        s->hung_up = false;
        if (errno != EAGAIN && errno != EWOULDBLOCK)
            return PM_ERR_IO;
        if (s->terminal && s->exit_seen != 0 && op != NULL && pmi_pty_release_slave(op))
            continue; // To the end, if nobody else has it.

        int64_t now = pmi_now_ms(), until = deadline;
        if (s->exit_seen != 0) {
            int64_t silent = later_of(s->exit_seen, s->byte_seen) + drain_ms;
            if (now >= silent) {
                *ret_count = 0;
                *ret_truncated = true;
                return PM_OK;
            }
            if (silent < until)
                until = silent;
        }
        if (now >= deadline)
            return PM_ERR_TIMEOUT;
        struct pollfd in[2] = {{.fd = s->fd, .events = POLLIN},
                               {.fd = op != NULL ? op->exit_fd : -1, .events = POLLIN}};
        (void)pmi_sys_poll(in, s->exit_seen == 0 ? 2 : 1, pmi_poll_timeout(until));
    }
}

// A write to a pipe that nobody reads raises SIGPIPE in this thread. It is held back and taken
// away, unless one was waiting before: that one is the host's.
static ssize_t write_quietly(int fd, const void *data, size_t size)
{
    sigset_t pipe_only, before, pending;
    (void)sigemptyset(&pipe_only);
    (void)sigaddset(&pipe_only, SIGPIPE);
    (void)sigemptyset(&pending);
    (void)sigpending(&pending);
    bool was_pending = sigismember(&pending, SIGPIPE) == 1;
    (void)pthread_sigmask(SIG_BLOCK, &pipe_only, &before);

    ssize_t n = pmi_sys_write(fd, data, size);
    int e = errno;
    if (n < 0 && e == EPIPE && !was_pending) {
        (void)sigemptyset(&pending);
        (void)sigpending(&pending);
        int taken;
        if (sigismember(&pending, SIGPIPE) == 1) // Not so where SIGPIPE is ignored.
            (void)sigwait(&pipe_only, &taken);
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = e;
    return n;
}

int pmi_os_stream_write(struct pmi_os_stream *s, const void *data, size_t size, int64_t deadline,
                        size_t *ret_count)
{
    size_t count = 0;
    int result = PM_OK;
    while (count < size && result == PM_OK) {
        ssize_t n = write_quietly(s->fd, (const char *)data + count, size - count);
        if (n >= 0) {
            count += (size_t)n;
        } else if (errno == EPIPE || (s->terminal && errno == EIO)) {
            result = PM_ERR_BROKEN_PIPE;
        } else if (errno != EAGAIN && errno != EWOULDBLOCK) {
            result = PM_ERR_IO;
        } else if (pmi_now_ms() >= deadline) {
            result = PM_ERR_TIMEOUT;
        } else {
            struct pollfd out = {.fd = s->fd, .events = POLLOUT};
            (void)pmi_sys_poll(&out, 1, pmi_poll_timeout(deadline));
        }
    }
    if (count > 0)
        s->last = ((const unsigned char *)data)[count - 1];
    *ret_count = count;
    return result;
}

// Whether anything was moved, or an end was found.
static bool transfer_one(struct pmi_transfer *t, struct pmi_os_process *op, uint32_t drain_ms)
{
    int result;
    if (t->input != NULL) {
        result = pmi_os_stream_read(t->stream, op, t->input, t->size, 0, drain_ms, &t->count,
                                    &t->truncated);
        t->ended = result == PM_OK ? t->count == 0 : result != PM_ERR_TIMEOUT;
    } else {
        result = pmi_os_stream_write(t->stream, t->output, t->size, 0, &t->count);
        t->ended = result != PM_OK && result != PM_ERR_TIMEOUT;
    }
    t->result = result == PM_ERR_IO ? PM_ERR_IO : PM_OK;
    return t->count > 0 || t->ended;
}

void pmi_os_streams_transfer(struct pmi_transfer transfers[3], struct pmi_os_process *op,
                             bool watch_exit, int64_t deadline, uint32_t drain_ms)
{
    struct pollfd fds[4];
    nfds_t count = 0;
    bool moved = false;
    int64_t until = deadline;
    for (size_t i = 0; i < 3; i++) {
        struct pmi_transfer *t = &transfers[i];
        if (t->stream == NULL || t->size == 0)
            continue;
        moved |= transfer_one(t, op, drain_ms);
        fds[count++] =
            (struct pollfd){.fd = t->stream->fd, .events = t->input != NULL ? POLLIN : POLLOUT};
        int64_t silent = later_of(t->stream->exit_seen, t->stream->byte_seen) + drain_ms;
        if (t->input != NULL && t->stream->exit_seen != 0 && silent < until)
            until = silent;
    }
    if (watch_exit)
        fds[count++] = (struct pollfd){.fd = op->exit_fd, .events = POLLIN};
    if (!moved && pmi_now_ms() < until)
        (void)pmi_sys_poll(fds, count, pmi_poll_timeout(until));
}

int pmi_os_stream_finish(struct pmi_os_stream *s, const struct pmi_os_process *op)
{
    struct pollfd in = {.fd = op->exit_fd, .events = POLLIN};
    if (!s->terminal || !s->types || s->fd < 0 || op->exit_fd < 0 || pmi_sys_poll(&in, 1, 0) > 0)
        return PM_OK;
    int e = pmi_pty_type_end(s->fd, &s->last);
    return e == 0 ? PM_OK : e == EAGAIN || e == EWOULDBLOCK ? PM_ERR_TIMEOUT : PM_ERR_IO;
}

pm_native pmi_os_stream_native(const struct pmi_os_stream *s)
{
    return s->fd;
}

bool pmi_os_stream_is_open(const struct pmi_os_stream *s)
{
    return s->fd >= 0;
}

pm_native pmi_os_stream_take(struct pmi_os_stream *s, struct pmi_os_process *op)
{
    int fd = s->fd;
    s->fd = -1;
    if (s->terminal && !s->types)
        (void)pmi_pty_release_slave(op); // Or its end might never come.
    return fd;
}

void pmi_os_stream_close(struct pmi_os_stream *s)
{
    s->fd = pmi_sys_close(s->fd);
}
