// Start and stop, and what the HTTP library calls back.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "debug/http.h"
#include "debug/server.h"

#define DEFAULT_CONNECTIONS 16
#define CONNECTIONS_MAX 1000
#define DEFAULT_TIMEOUT_MS 10000
#define DEFAULT_PROCESSES 20000
// Of one connection: request line, headers, and the head of the answer.
#define CONNECTION_MEMORY 16384
// Connections that are told that there are too many.
#define SPARE_CONNECTIONS 8

// ------------------------------------------------------------------------------------------------
// Options
// ------------------------------------------------------------------------------------------------

static int bad(struct pm_error *error, int code, const char *field, const char *hint)
{
    error->code = code;
    error->stage = PM_STAGE_CHECK;
    (void)snprintf(error->field, sizeof error->field, "%s", field);
    (void)snprintf(error->hint, sizeof error->hint, "%s", hint);
    return code;
}

// The structs start with their size, as everywhere: shorter ones are filled up, longer ones have to
// be zero behind what is known.
static int copy_options(const struct pm_debug_options *options,
                        struct pm_debug_options *ret_options)
{
    struct pm_debug_options copy = PM_DEBUG_OPTIONS_INIT;
    if (options != NULL) {
        size_t size = options->size;
        if (size < sizeof size) {
            return PM_ERR_INVALID;
        }
        for (size_t i = sizeof copy; i < size; i++) {
            if (((const unsigned char *)options)[i] != 0) {
                return PM_ERR_INVALID;
            }
        }
        memcpy(&copy, options, size < sizeof copy ? size : sizeof copy);
        copy.size = sizeof copy;
    }
    copy.max_connections = copy.max_connections != 0 ? copy.max_connections : DEFAULT_CONNECTIONS;
    copy.timeout_ms = copy.timeout_ms != 0 ? copy.timeout_ms : DEFAULT_TIMEOUT_MS;
    copy.max_processes = copy.max_processes != 0 ? copy.max_processes : DEFAULT_PROCESSES;
    *ret_options = copy;
    return PM_OK;
}

static char *copy_string(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    if (copy != NULL) {
        memcpy(copy, text, size);
    }
    return copy;
}

static void free_list(char **list)
{
    for (size_t i = 0; list != NULL && list[i] != NULL; i++) {
        free(list[i]);
    }
    free((void *)list);
}

static char **copy_list(const char *const *list)
{
    size_t count = 0;
    while (list != NULL && list[count] != NULL) {
        count++;
    }
    // NOLINTNEXTLINE(bugprone-sizeof-expression): of a pointer, yes.
    char **copy = calloc(count + 1, sizeof *copy);
    for (size_t i = 0; copy != NULL && i < count; i++) {
        copy[i] = copy_string(list[i]);
        if (copy[i] == NULL) {
            free_list(copy);
            return NULL;
        }
    }
    return copy;
}

// One to three digits up to `max`; moves behind them.
static bool parse_number(const char **at, unsigned max, unsigned *ret_value)
{
    unsigned value = 0;
    size_t digits = strspn(*at, "0123456789");
    if (digits < 1 || digits > 5) {
        return false;
    }
    for (size_t i = 0; i < digits; i++) {
        value = value * 10 + (unsigned)((*at)[i] - '0');
    }
    *at += digits;
    *ret_value = value;
    return value <= max;
}

static bool parse_ipv4(const char **at, unsigned char ipv4[4])
{
    for (int i = 0; i < 4; i++) {
        unsigned value;
        if ((i > 0 && *(*at)++ != '.') || !parse_number(at, 255, &value)) {
            return false;
        }
        ipv4[i] = (unsigned char)value;
    }
    return ipv4[0] == 127;
}

static bool parse_address(const char *text, struct pmi_debug_address *ret_address)
{
    struct pmi_debug_address a = {.family = PMI_DEBUG_IPV4, .ipv4 = {127, 0, 0, 1}};
    const char *at = text;
    if (strncmp(at, "unix:", 5) == 0) {
        a.family = PMI_DEBUG_UNIX;
        a.path = at + 5;
        *ret_address = a;
        return a.path[0] != '\0';
    }
    if (strncmp(at, "[::1]", 5) == 0) {
        a.family = PMI_DEBUG_IPV6;
        at += 5;
    } else if (strncmp(at, "localhost", 9) == 0) {
        at += 9;
    } else if (!parse_ipv4(&at, a.ipv4)) {
        return false;
    }
    unsigned port;
    if (*at++ != ':' || !parse_number(&at, 65535, &port) || *at != '\0') {
        return false;
    }
    a.port = (uint16_t)port;
    *ret_address = a;
    return true;
}

// ------------------------------------------------------------------------------------------------
// What the HTTP library calls, on the server's one thread
// ------------------------------------------------------------------------------------------------

static enum MHD_Result admit(void *user, const struct sockaddr *address, socklen_t length)
{
    struct pm_debug_server *server = user;
    (void)address;
    (void)length;
    return pmi_connections_admit(server->connections) ? MHD_YES : MHD_NO;
}

static void note_connection(void *user, struct MHD_Connection *connection, void **token,
                            enum MHD_ConnectionNotificationCode code)
{
    struct pm_debug_server *server = user;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        *token = pmi_connections_begin(server->connections, info != NULL
                                                                ? (pmi_debug_socket)info->connect_fd
                                                                : PMI_DEBUG_SOCKET_NONE);
    } else {
        pmi_connections_end(server->connections, *token);
    }
}

// Called once when the head of a request is there, and again for its body and its end. What has a
// body is answered at once, which closes the connection.
static enum MHD_Result handle(void *user, struct MHD_Connection *connection, const char *url,
                              const char *method, const char *version, const char *data,
                              size_t *data_size, void **state)
{
    static char seen;
    (void)version;
    (void)data;
    const char *length = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Length");
    bool chunked =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Transfer-Encoding") != NULL;
    bool has_body = (length != NULL && strcmp(length, "0") != 0) || chunked || *data_size != 0;
    bool is_get =
        strcmp(method, MHD_HTTP_METHOD_GET) == 0 || strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
    if (*state == NULL && is_get && !has_body) {
        *state = &seen;
        return MHD_YES;
    }
    return (enum MHD_Result)pmi_debug_answer(user, connection, url, method, has_body);
}

// ------------------------------------------------------------------------------------------------
// Start and stop
// ------------------------------------------------------------------------------------------------

static void free_server(struct pm_debug_server *server)
{
    if (server != NULL) {
        pmi_connections_free(server->connections);
        free_list(server->allowed_hosts);
        free_list(server->secret_words);
        free(server->title);
        free(server);
    }
}

static struct pm_debug_server *new_server(pm_manager *manager,
                                          const struct pm_debug_options *options)
{
    struct pm_debug_server *server = calloc(1, sizeof *server);
    if (server == NULL) {
        return NULL;
    }
    server->manager = manager;
    server->pid = pmi_debug_self_pid();
    server->options = *options;
    server->listener.socket = PMI_DEBUG_SOCKET_NONE;
    server->title = copy_string(options->title != NULL ? options->title : "processmgr");
    server->allowed_hosts = copy_list(options->allowed_hosts);
    server->secret_words = copy_list(options->secret_words);
    server->connections = pmi_connections_new(options->max_connections, options->timeout_ms);
    if (server->title == NULL || server->allowed_hosts == NULL || server->secret_words == NULL ||
        server->connections == NULL) {
        free_server(server);
        return NULL;
    }
    // The caller's, not ours to keep.
    server->options.address = NULL;
    server->options.title = NULL;
    server->options.allowed_hosts = NULL;
    server->options.secret_words = NULL;
    return server;
}

static struct MHD_Daemon *start_daemon(struct pm_debug_server *server)
{
    const struct pm_debug_options *o = &server->options;
    unsigned seconds = (o->timeout_ms + 999) / 1000;
    struct pmi_debug_mask mask;
    pmi_debug_mask_all(&mask);
    struct MHD_Daemon *daemon =
        MHD_start_daemon(MHD_USE_AUTO | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_ITC, 0, admit,
                         server, handle, server, MHD_OPTION_LISTEN_SOCKET,
                         (MHD_socket)server->listener.socket, MHD_OPTION_CONNECTION_LIMIT,
                         (unsigned)(o->max_connections + SPARE_CONNECTIONS),
                         MHD_OPTION_CONNECTION_TIMEOUT, seconds, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
                         (size_t)CONNECTION_MEMORY, MHD_OPTION_STRICT_FOR_CLIENT, 1,
                         MHD_OPTION_NOTIFY_CONNECTION, note_connection, server, MHD_OPTION_END);
    pmi_debug_mask_restore(&mask);
    return daemon;
}

static void set_where(struct pm_debug_server *server)
{
    char where[sizeof server->listener.url + sizeof PMI_DEBUG_PAGE];
    (void)snprintf(where, sizeof where, "%s%s%s", server->listener.url,
                   server->listener.path != NULL ? " " : "", PMI_DEBUG_PAGE);
    (void)pm_leak_set_where(server->manager, where);
}

static int check_options(const struct pm_debug_options *options,
                         struct pm_debug_options *ret_options,
                         struct pmi_debug_address *ret_address, struct pm_error *error)
{
    if (copy_options(options, ret_options) != PM_OK) {
        return bad(error, PM_ERR_INVALID, "size", "");
    }
    if (ret_options->max_connections > CONNECTIONS_MAX) {
        return bad(error, PM_ERR_INVALID, "max_connections", "at most 1000");
    }
    const char *address = ret_options->address != NULL ? ret_options->address : "127.0.0.1:0";
    if (!parse_address(address, ret_address)) {
        return bad(error, PM_ERR_INVALID, "address",
                   "this machine alone: 127.0.0.1:PORT, [::1]:PORT, localhost:PORT or unix:PATH");
    }
    return PM_OK;
}

static int start(pm_manager *manager, const struct pm_debug_options *options,
                 struct pm_debug_server **ret_server, struct pm_error *error)
{
    struct pm_debug_options checked;
    struct pmi_debug_address address;
    struct pm_stats stats = PM_STATS_INIT;
    int result = ret_server == NULL ? PM_ERR_INVALID : pm_stats(manager, &stats);
    if (result != PM_OK) {
        return bad(error, result, "", "");
    }
    result = check_options(options, &checked, &address, error);
    if (result == PM_OK) {
        result = pmi_http_load(error);
    }
    if (result != PM_OK) {
        return result;
    }
    struct pm_debug_server *server = new_server(manager, &checked);
    if (server == NULL) {
        return bad(error, PM_ERR_NO_MEMORY, "", "");
    }
    result = pmi_debug_listen(&address, &server->listener, error);
    if (result == PM_OK) {
        server->daemon = start_daemon(server);
        if (server->daemon == NULL) {
            pmi_debug_unlisten(&server->listener);
            result = bad(error, PM_ERR_SYSTEM, "", "the HTTP library could not start its thread");
        }
    }
    if (result != PM_OK) {
        free_server(server);
        return result;
    }
    set_where(server);
    *ret_server = server;
    return PM_OK;
}

PM_DEBUG_API int pm_debug_server_start(pm_manager *manager, const struct pm_debug_options *options,
                                       pm_debug_server **ret_server, struct pm_error *ret_error)
{
    struct pm_error error = PM_ERROR_INIT;
    (void)snprintf(error.action, sizeof error.action, "debug server");
    int result = start(manager, options, ret_server, &error);
    if (result != PM_OK && ret_error != NULL && ret_error->size >= sizeof ret_error->size) {
        size_t size = ret_error->size;
        memcpy(ret_error, &error, size < sizeof error ? size : sizeof error);
        ret_error->size = size;
    }
    return result;
}

PM_DEBUG_API const char *pm_debug_server_address(const pm_debug_server *server)
{
    return server != NULL ? server->listener.url : "";
}

PM_DEBUG_API void pm_debug_server_stop(pm_debug_server *server)
{
    if (server == NULL) {
        return;
    }
    // In a forked copy the thread is not there, and the socket's file is the parent's.
    if (server->pid == pmi_debug_self_pid()) {
        (void)pm_leak_set_where(server->manager, NULL);
        MHD_stop_daemon(server->daemon); // Closes the socket, too.
        server->listener.socket = PMI_DEBUG_SOCKET_NONE;
        pmi_debug_unlisten(&server->listener);
    }
    free_server(server);
}
