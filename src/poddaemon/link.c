#include "poddaemon/link.h"

#include <stdlib.h>
#include <string.h>

#define HANDSHAKE_MS 2000u
#define READ_SIZE 65536

static void on_closed(uv_handle_t *handle)
{
    struct pod_link *link = handle->data;
    if (--link->open_handles > 0) {
        return;
    }
    free(link->writing);
    link->writing = NULL;
    link->over(link);
}

void pod_link_close(struct pod_link *link)
{
    if (link->closing) {
        return;
    }
    link->closing = true;
    uv_close((uv_handle_t *)&link->pipe, on_closed);
    uv_close((uv_handle_t *)&link->timer, on_closed);
}

static void on_written(uv_write_t *write, int status)
{
    struct pod_link *link = write->data;
    free(link->writing);
    link->writing = NULL;
    if (status < 0) {
        // What came before the end may still be there to be read; the reader closes.
        return;
    }
    pod_link_flush(link);
}

void pod_link_flush(struct pod_link *link)
{
    struct pod_bytes bytes = pod_client_pending(&link->client);
    if (link->closing || link->writing != NULL || bytes.size == 0) {
        return;
    }
    uv_buf_t buffer = uv_buf_init((char *)(uintptr_t)bytes.data, (unsigned)bytes.size);
    int n = uv_try_write((uv_stream_t *)&link->pipe, &buffer, 1);
    if (n > 0) {
        pod_client_sent(&link->client, (size_t)n);
        bytes = pod_client_pending(&link->client);
    }
    if (bytes.size == 0 || (link->writing = malloc(bytes.size)) == NULL) {
        return;
    }
    memcpy(link->writing, bytes.data, bytes.size);
    pod_client_sent(&link->client, bytes.size);
    buffer = uv_buf_init((char *)link->writing, (unsigned)bytes.size);
    link->write.data = link;
    if (uv_write(&link->write, (uv_stream_t *)&link->pipe, &buffer, 1, on_written) < 0) {
        free(link->writing);
        link->writing = NULL;
    }
}

static void give_buffer(uv_handle_t *handle, size_t size, uv_buf_t *buffer)
{
    static char bytes[READ_SIZE]; // Empty between two reads.
    (void)handle;
    (void)size;
    *buffer = uv_buf_init(bytes, sizeof bytes);
}

static void on_read(uv_stream_t *stream, ssize_t count, const uv_buf_t *buffer)
{
    struct pod_link *link = stream->data;
    int result = 0;
    if (count > 0) {
        result = pod_client_feed(&link->client, buffer->base, (size_t)count);
    } else if (count < 0) {
        pod_client_end(&link->client);
        result = -POD_E_CLOSED;
    }
    if (link->client.phase == POD_CLIENT_READY) {
        (void)uv_timer_stop(&link->timer);
    }
    if (result < 0) {
        pod_link_close(link);
    } else {
        pod_link_flush(link);
    }
}

static void on_mute(uv_timer_t *timer)
{
    struct pod_link *link = timer->data;
    pod_client_end(&link->client);
    pod_link_close(link);
}

static void on_unopened(uv_handle_t *handle)
{
    struct pod_link *link = handle->data;
    link->open_handles--;
}

int pod_link_open(struct pod_link *link, uv_loop_t *loop, pm_native native,
                  const struct pod_client_options *options, uint32_t handshake_ms,
                  pod_link_over *over)
{
    struct pod_client_options with_nonce = *options;
    uint8_t nonce[POD_NONCE_SIZE];
    void *user = link->user;
    *link = (struct pod_link){.user = user, .over = over};
    with_nonce.nonce = nonce;
    int result = uv_random(NULL, NULL, nonce, sizeof nonce, 0, NULL) == 0 ? PM_OK : PM_ERR_SYSTEM;
    if (result == PM_OK && pod_client_init(&link->client, &with_nonce) != 0) {
        result = PM_ERR_INVALID;
    }
    if (result != PM_OK) {
        pod_connection_close(native);
        return result;
    }
    (void)uv_pipe_init(loop, &link->pipe, 0);
    (void)uv_timer_init(loop, &link->timer);
    link->pipe.data = link->timer.data = link;
    link->open_handles = 2;
    if (pod_pipe_open(&link->pipe, native) != PM_OK) {
        pod_client_clear(&link->client);
        link->closing = true;
        uv_close((uv_handle_t *)&link->pipe, on_unopened);
        uv_close((uv_handle_t *)&link->timer, on_unopened);
        while (link->open_handles > 0) { // The link is the caller's again when this returns.
            (void)uv_run(loop, UV_RUN_NOWAIT);
        }
        return PM_ERR_SYSTEM;
    }
    (void)uv_timer_start(&link->timer, on_mute, handshake_ms > 0 ? handshake_ms : HANDSHAKE_MS, 0);
    (void)uv_read_start((uv_stream_t *)&link->pipe, give_buffer, on_read);
    pod_link_flush(link);
    return PM_OK;
}
