#include "libraries.h"

#include <uv.h> // before windows.h

#include <jansson.h>
#include <microhttpd.h>
#include <string.h>

static void on_timer(uv_timer_t *timer)
{
    int *ticks = timer->data;
    if (++*ticks == 3)
        uv_close((uv_handle_t *)timer, NULL);
}

int use_libuv(void)
{
    uv_loop_t loop;
    uv_timer_t timer;
    int ticks = 0;
    int rc = uv_loop_init(&loop);
    if (rc < 0)
        return rc;
    timer.data = &ticks;
    rc = uv_timer_init(&loop, &timer);
    if (rc == 0)
        rc = uv_timer_start(&timer, on_timer, 1, 1);
    if (rc == 0)
        rc = uv_run(&loop, UV_RUN_DEFAULT);
    if (rc == 0)
        rc = uv_loop_close(&loop);
    return rc == 0 ? ticks : rc;
}

char *use_jansson(void)
{
    char *text = NULL;
    json_t *object = json_pack("{s:s, s:[i, b, n]}", "name", "Zo\xc3\xab", "list", 7, 1);
    if (object != NULL)
        text = json_dumps(object, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(object);
    return text;
}

// ---- one request
// ---------------------------------------------------------------------------------

struct client {
    uv_tcp_t tcp;
    uv_connect_t connect;
    uv_write_t write;
    char buffer[1024];
    size_t used;
    int failed; // line, 0 for none
};

static void client_end(struct client *client, int line)
{
    if (client->failed == 0)
        client->failed = line;
    if (!uv_is_closing((uv_handle_t *)&client->tcp))
        uv_close((uv_handle_t *)&client->tcp, NULL);
}

static void on_room(uv_handle_t *handle, size_t hint, uv_buf_t *ret_buf)
{
    struct client *client = handle->data;
    (void)hint;
    *ret_buf = uv_buf_init(client->buffer + client->used,
                           (unsigned)(sizeof client->buffer - 1 - client->used));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct client *client = stream->data;
    (void)buf;
    if (n > 0)
        client->used += (size_t)n;
    else if (n < 0)
        client_end(client, n == UV_EOF ? 0 : __LINE__);
}

static void on_written(uv_write_t *write, int status)
{
    struct client *client = write->handle->data;
    if (status < 0)
        client_end(client, __LINE__);
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct client *client = connect->handle->data;
    static char request[] = "GET / HTTP/1.0\r\n\r\n";
    uv_buf_t buf = uv_buf_init(request, sizeof request - 1);
    if (status < 0 || uv_write(&client->write, connect->handle, &buf, 1, on_written) < 0 ||
        uv_read_start(connect->handle, on_room, on_read) < 0)
        client_end(client, __LINE__);
}

static int fetch(const struct sockaddr_in *address, struct client *client)
{
    uv_loop_t loop;
    memset(client, 0, sizeof *client);
    if (uv_loop_init(&loop) < 0)
        return __LINE__;
    if (uv_tcp_init(&loop, &client->tcp) < 0)
        return __LINE__;
    client->tcp.data = client;
    if (uv_tcp_connect(&client->connect, &client->tcp, (const struct sockaddr *)address,
                       on_connected) < 0)
        client_end(client, __LINE__);
    if (uv_run(&loop, UV_RUN_DEFAULT) != 0 || uv_loop_close(&loop) < 0)
        return __LINE__;
    return client->failed;
}

static enum MHD_Result on_request(void *text, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *data,
                                  size_t *size, void **state)
{
    enum MHD_Result result;
    struct MHD_Response *response =
        MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_COPY);
    (void)url, (void)method, (void)version, (void)data, (void)size, (void)state;
    if (response == NULL)
        return MHD_NO;
    result = MHD_queue_response(connection, MHD_HTTP_OK, response);
    MHD_destroy_response(response);
    return result;
}

int use_microhttpd(const char *text, char *ret_answer, size_t size)
{
    const union MHD_DaemonInfo *info;
    struct MHD_Daemon *daemon;
    struct sockaddr_in address;
    struct client client;
    const char *body;
    int rc = 0;
    if (uv_ip4_addr("127.0.0.1", 0, &address) < 0)
        return __LINE__;
    daemon = MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD, 0, NULL, NULL, on_request,
                              (void *)text, MHD_OPTION_SOCK_ADDR, &address, MHD_OPTION_END);
    if (daemon == NULL)
        return __LINE__;
    info = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT);
    if (info == NULL || uv_ip4_addr("127.0.0.1", info->port, &address) < 0)
        rc = __LINE__;
    else
        rc = fetch(&address, &client);
    MHD_stop_daemon(daemon);
    if (rc != 0)
        return rc;
    body = strstr(client.buffer, "\r\n\r\n");
    if (strncmp(client.buffer, "HTTP/1", 6) != 0 || body == NULL || strlen(body + 4) >= size)
        return __LINE__;
    strcpy(ret_answer, body + 4);
    return 0;
}
