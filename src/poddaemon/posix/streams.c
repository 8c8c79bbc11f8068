// The child's streams and other descriptors in the loop.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "error_of.h"
#include "poddaemon/os.h"

#define READ_SIZE 16384
// What one read of a terminal gives at most on Linux: there is more behind it, as a rule.
#define TERMINAL_READ 4095
// Read at one wake-up of one source: others get their turn.
#define READ_TURN_MAX 65536
#define PAUSE_MS 20
#define HOLD_PAUSE_MS 1000

static void free_handle(uv_handle_t *handle)
{
    free(handle);
}

// A poll and a timer for one descriptor, or none of both.
static int open_handles(uv_loop_t *loop, int fd, void *data, uv_poll_t **ret_poll,
                        uv_timer_t **ret_timer)
{
    uv_poll_t *poll = malloc(sizeof *poll);
    uv_timer_t *timer = malloc(sizeof *timer);
    if (poll == NULL || timer == NULL || uv_poll_init(loop, poll, fd) != 0) {
        free(poll);
        free(timer);
        return PM_ERR_NO_MEMORY;
    }
    (void)uv_timer_init(loop, timer);
    poll->data = timer->data = data;
    *ret_poll = poll;
    *ret_timer = timer;
    return PM_OK;
}

static void close_handles(uv_poll_t *poll, uv_timer_t *timer, int fd)
{
    uv_close((uv_handle_t *)poll, free_handle);
    uv_close((uv_handle_t *)timer, free_handle);
    (void)close(fd);
}

// ------------------------------------------------------------------------------------------------
// Source
// ------------------------------------------------------------------------------------------------

static void on_source(uv_poll_t *poll, int status, int events);

static void on_source_pause(uv_timer_t *timer)
{
    struct pod_source *source = timer->data;
    if (source->room > 0) {
        (void)uv_poll_start(source->poll, UV_READABLE, on_source);
    }
}

// A read that tells an end of a terminal says so twice. Linux looks for bytes first and for the end
// afterwards: what was written in between is there at the next read.
static ssize_t read_some(const struct pod_source *source, char *buffer, size_t size)
{
    ssize_t n = 0;
    for (int round = 0; round < 2; round++) {
        do {
            n = POD_SYS(read)(source->fd, buffer, size);
        } while (n < 0 && errno == EINTR);
        if (n >= 0 || errno != EIO || !source->terminal) {
            return n;
        }
    }
    return 0;
}

// Fills the buffer as far as that takes no waiting. *ret_last: what the last read gave; what came
// before it counts all the same. A key's echo is a short read and goes on its way at once; the
// pieces of a flood go together, with one write to each reader.
static size_t read_more(const struct pod_source *source, char *buffer, size_t capacity,
                        ssize_t *ret_last)
{
    size_t all = 0;
    ssize_t n;
    do {
        n = read_some(source, buffer + all, capacity - all);
        all += n > 0 ? (size_t)n : 0;
    } while (source->terminal && n >= TERMINAL_READ && capacity - all >= TERMINAL_READ);
    *ret_last = n;
    return all;
}

static int open_childs_side(int fd)
{
#ifdef TIOCGPTPEER // Linux 4.13: also where another /dev/pts is mounted.
    int child = ioctl(fd, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (child >= 0 || (errno != EINVAL && errno != ENOTTY)) {
        return child;
    }
#endif
    const char *name = ptsname(fd); // Of our one thread.
    return name != NULL ? open(name, O_RDWR | O_NOCTTY | O_CLOEXEC) : -1;
}

// Nobody has the terminal open. The child may open it again, as one does that hangs it up (login),
// or has closed it for a moment: so we open it ourselves, and nothing more is to be read or done
// until somebody writes. It was hung up if we have it already.
static void hold_open(struct pod_source *source)
{
    if (source->child >= 0) {
        (void)close(source->child);
    }
    source->child = open_childs_side(source->fd);
    if (source->child < 0) { // No descriptors.
        (void)uv_poll_stop(source->poll);
        (void)uv_timer_start(source->pause, on_source_pause, HOLD_PAUSE_MS, 0);
    }
}

static void on_source(uv_poll_t *poll, int status, int events)
{
    static char buffer[READ_SIZE];
    struct pod_source *source = poll->data;
    (void)status;
    (void)events;
    for (size_t all = 0; all < READ_TURN_MAX && source->room > 0;) {
        ssize_t last;
        size_t capacity = source->room < READ_SIZE ? source->room : READ_SIZE;
        size_t size = read_more(source, buffer, capacity, &last);
        int trouble = last < 0 ? pod_error_of(errno) : PM_OK;
        if (size > 0) {
            source->data(source->user, buffer, (int64_t)size);
        }
        if (source->poll != poll || trouble == PM_ERR_TIMEOUT) { // Closed in the callback; EAGAIN.
            return;
        }
        if (last == 0 && source->held) {
            hold_open(source);
            return;
        }
        if (last < 0) { // ENOMEM, ENOBUFS ...: it stays readable, so not at once again.
            (void)uv_poll_stop(source->poll);
            (void)uv_timer_start(source->pause, on_source_pause, PAUSE_MS, 0);
        }
        if (last <= 0) {
            source->data(source->user, NULL, last < 0 ? trouble : 0);
            return;
        }
        all += size;
        if (source->terminal ? last < TERMINAL_READ : size < capacity) {
            return; // One that gave less is empty; if not, we are called again.
        }
    }
}

int pod_source_open(uv_loop_t *loop, struct pod_source *source, pm_native native, bool terminal,
                    pod_source_data *data, void *user)
{
    *source = (struct pod_source){.fd = (int)native, .terminal = terminal, .data = data};
    source->user = user;
    source->room = SIZE_MAX;
    source->held = terminal;
    source->child = -1;
    int result = open_handles(loop, source->fd, source, &source->poll, &source->pause);
    if (result != PM_OK) {
        (void)close(source->fd);
        source->poll = NULL;
        return result;
    }
    (void)uv_poll_start(source->poll, UV_READABLE, on_source);
    return PM_OK;
}

void pod_source_room(struct pod_source *source, size_t room)
{
    bool stopped = source->room == 0;
    source->room = room;
    if (source->poll == NULL || stopped == (room == 0)) {
        return;
    }
    if (room == 0) {
        (void)uv_poll_stop(source->poll);
    } else if (!uv_is_active((uv_handle_t *)source->pause)) {
        (void)uv_poll_start(source->poll, UV_READABLE, on_source);
    }
}

void pod_source_look(struct pod_source *source)
{
    if (source->poll != NULL) {
        on_source(source->poll, 0, 0);
    }
}

void pod_source_release(struct pod_source *source)
{
    source->held = false;
    if (source->poll != NULL && source->child >= 0) {
        (void)close(source->child);
        source->child = -1;
    }
}

void pod_source_close(struct pod_source *source)
{
    if (source->poll != NULL) {
        pod_source_release(source);
        close_handles(source->poll, source->pause, source->fd);
        source->poll = NULL;
    }
}

// ------------------------------------------------------------------------------------------------
// Sink
// ------------------------------------------------------------------------------------------------

static void on_sink(uv_poll_t *poll, int status, int events)
{
    struct pod_sink *sink = poll->data;
    (void)status;
    (void)events;
    (void)uv_poll_stop(poll);
    sink->ready(sink->user);
}

static void on_sink_pause(uv_timer_t *timer)
{
    struct pod_sink *sink = timer->data;
    sink->ready(sink->user);
}

int pod_sink_open(uv_loop_t *loop, struct pod_sink *sink, pm_native native, pod_sink_ready *ready,
                  void *user)
{
    *sink = (struct pod_sink){.fd = (int)native, .ready = ready, .user = user};
    int result = open_handles(loop, sink->fd, sink, &sink->poll, &sink->pause);
    if (result != PM_OK) {
        (void)close(sink->fd);
        sink->poll = NULL;
    }
    return result;
}

int pod_sink_write(struct pod_sink *sink, const void *data, size_t size, size_t *ret_count)
{
    int result = PM_OK;
    size_t count = 0;
    while (count < size && result == PM_OK) {
        ssize_t n = POD_SYS(write)(sink->fd, (const char *)data + count, size - count);
        if (n >= 0) {
            count += (size_t)n;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            (void)uv_poll_start(sink->poll, UV_WRITABLE, on_sink);
            break;
        } else if (errno == EPIPE) {
            result = PM_ERR_BROKEN_PIPE;
        } else if (errno != EINTR) { // EIO: nobody has the terminal open just now.
            result = pod_error_of(errno);
            (void)uv_timer_start(sink->pause, on_sink_pause, PAUSE_MS, 0);
        }
    }
    *ret_count = count;
    return result;
}

void pod_sink_close(struct pod_sink *sink)
{
    if (sink->poll != NULL) {
        close_handles(sink->poll, sink->pause, sink->fd);
        sink->poll = NULL;
    }
}

// ------------------------------------------------------------------------------------------------
// Watch
// ------------------------------------------------------------------------------------------------

static void on_watch(uv_poll_t *poll, int status, int events)
{
    struct pod_watch *watch = poll->data;
    (void)status;
    (void)events;
    watch->ready(watch->user);
}

int pod_watch_open(uv_loop_t *loop, struct pod_watch *watch, pm_native native,
                   pod_watch_ready *ready, void *user)
{
    uv_poll_t *poll = malloc(sizeof *poll);
    if (poll == NULL || uv_poll_init(loop, poll, (int)native) != 0) {
        free(poll);
        return PM_ERR_NO_MEMORY;
    }
    *watch = (struct pod_watch){poll, ready, user};
    poll->data = watch;
    (void)uv_poll_start(poll, UV_READABLE, on_watch);
    return PM_OK;
}

void pod_watch_close(struct pod_watch *watch)
{
    if (watch->poll != NULL) {
        uv_close((uv_handle_t *)watch->poll, free_handle);
        watch->poll = NULL;
    }
}
