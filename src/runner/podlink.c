#include "runner/podlink.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/os.h"

#define BUFFER_SIZE 65536

struct podlink {
    uv_pipe_t pipe;
    uv_timer_t timer;
    struct pod_client client;
    struct podlink_options options;
    unsigned handles; // Not closed yet.
    unsigned busy;    // Calls of the handler under way.
    bool closing, told, reading, finished_closing;
    bool late; // Its time is over, and what has come by then was not read yet.
    size_t unsent;
    char *buffer;
};

struct send {
    uv_write_t request;
    struct podlink *link;
    size_t size;
    uint8_t bytes[];
};

static void free_link(struct podlink *link)
{
    if (link->finished_closing && link->busy == 0) {
        pod_client_clear(&link->client);
        free(link->buffer);
        free(link);
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct podlink *link = handle->data;
    if (--link->handles == 0) {
        link->finished_closing = true;
        free_link(link);
    }
}

void podlink_close(struct podlink *link)
{
    if (link == NULL || link->closing) {
        return;
    }
    link->closing = true;
    uv_close((uv_handle_t *)&link->pipe, on_closed);
    uv_close((uv_handle_t *)&link->timer, on_closed);
}

static void end(struct podlink *link, int failure)
{
    if (!link->closing) {
        podlink_close(link);
        link->options.over(link->options.user, failure);
    }
}

static void on_sent(uv_write_t *request, int status)
{
    struct send *send = (struct send *)request;
    struct podlink *link = send->link;
    (void)status; // What came before the end may still be there to be read: the reader ends it.
    link->unsent -= send->size;
    free(send);
}

void podlink_flush(struct podlink *link)
{
    struct pod_bytes bytes = pod_client_pending(&link->client);
    if (link->closing || bytes.size == 0) {
        return;
    }
    struct send *send = malloc(sizeof *send + bytes.size);
    if (send == NULL) {
        end(link, -POD_E_NO_MEMORY);
        return;
    }
    send->link = link;
    send->size = bytes.size;
    memcpy(send->bytes, bytes.data, bytes.size);
    pod_client_sent(&link->client, bytes.size);
    link->unsent += send->size;
    uv_buf_t buffer = uv_buf_init((char *)send->bytes, (unsigned)send->size);
    int result = uv_write(&send->request, (uv_stream_t *)&link->pipe, &buffer, 1, on_sent);
    if (result != 0) {
        on_sent(&send->request, result);
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct podlink *link = handle->data;
    (void)suggested;
    if (link->buffer == NULL) {
        link->buffer = malloc(BUFFER_SIZE);
    }
    *buffer = uv_buf_init(link->buffer, link->buffer != NULL ? BUFFER_SIZE : 0);
}

static void on_message(void *user, const struct pod_message *message)
{
    struct podlink *link = user;
    if (message->type == POD_WELCOME) {
        (void)uv_timer_stop(&link->timer);
    }
    if (!link->closing) {
        link->options.handler(link->options.user, message);
    }
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    struct podlink *link = stream->data;
    if (size < 0) {
        end(link, -POD_E_CLOSED);
        return;
    }
    link->busy++;
    int result = pod_client_feed(&link->client, buffer->base, (size_t)size);
    link->busy--;
    if (link->closing) {
        free_link(link);
        return;
    }
    podlink_flush(link);
    if (result < 0) {
        end(link, result);
    } else if (link->buffer != NULL && link->client.tracker.next[0] == 0) {
        free(link->buffer); // One that only asks now and then holds little memory.
        link->buffer = NULL;
    }
}

// We may have been away ourselves, and the answer may be there: one more round of the loop.
static void on_timeout(uv_timer_t *timer)
{
    struct podlink *link = timer->data;
    if (link->late) {
        end(link, -POD_E_IO);
    } else {
        link->late = true;
        (void)uv_timer_start(timer, on_timeout, 1, 0);
    }
}

static int begin(struct podlink *link)
{
    struct pod_client_options options = {.session = link->options.session,
                                         .token = link->options.token,
                                         .epoch = link->options.epoch,
                                         .build = PM_VERSION_STRING,
                                         .version_min = POD_VERSION_MIN,
                                         .version_max = POD_VERSION_MAX,
                                         .handler = on_message,
                                         .user = link};
    uint8_t nonce[POD_NONCE_SIZE];
    if (uv_random(NULL, NULL, nonce, sizeof nonce, 0, NULL) != 0) {
        return -POD_E_IO;
    }
    options.nonce = nonce;
    return pod_client_init(&link->client, &options);
}

void podlink_refusal(const struct pod_error *error, char text[256])
{
    const char *ours = pod_strerror(error->code);
    size_t size = error->text.size < 128 ? error->text.size : 128;
    bool same = size == strlen(ours) && memcmp(error->text.data, ours, size) == 0;
    (void)snprintf(text, 256, "%s%s%.*s", ours, size > 0 && !same ? ": " : "", same ? 0 : (int)size,
                   (const char *)error->text.data);
}

bool podlink_is_closed(const struct pod_error *error)
{
    return error->code == POD_E_STATE &&
           (error->frame == POD_INPUT || error->frame == POD_CLOSE_INPUT);
}

int podlink_open(const struct podlink_options *options, pm_native native, struct podlink **ret_link)
{
    struct podlink *link = calloc(1, sizeof *link);
    int result = -POD_E_NO_MEMORY;
    if (link == NULL || uv_pipe_init(options->loop, &link->pipe, 0) != 0) {
        uv_pipe_t pipe; // Nobody but libuv knows how to close it everywhere.
        if (uv_pipe_init(options->loop, &pipe, 0) == 0 && os_pipe_open(&pipe, native) == 0) {
            uv_close((uv_handle_t *)&pipe, NULL);
            (void)uv_run(options->loop, UV_RUN_NOWAIT);
        }
        free(link);
        return result;
    }
    (void)uv_timer_init(options->loop, &link->timer);
    link->pipe.data = link->timer.data = link;
    link->handles = 2;
    link->options = *options;
    result = os_pipe_open(&link->pipe, native) == 0 ? begin(link) : -POD_E_IO;
    if (result == 0) {
        podlink_flush(link);
        podlink_read(link, true);
        result = link->closing ? -POD_E_CLOSED : 0;
    }
    if (result != 0) {
        podlink_close(link);
        return result;
    }
    if (options->timeout_ms > 0) {
        uv_update_time(options->loop); // It may have stood still for long.
        (void)uv_timer_start(&link->timer, on_timeout, options->timeout_ms, 0);
    }
    *ret_link = link;
    return 0;
}

struct pod_client *podlink_client(struct podlink *link)
{
    return &link->client;
}

void podlink_read(struct podlink *link, bool read)
{
    if (link->closing || link->reading == read) {
        return;
    }
    link->reading = read;
    if (!read) {
        (void)uv_read_stop((uv_stream_t *)&link->pipe);
    } else if (uv_read_start((uv_stream_t *)&link->pipe, on_alloc, on_read) != 0) {
        end(link, -POD_E_IO);
    }
}

size_t podlink_unsent(const struct podlink *link)
{
    return link->unsent;
}
