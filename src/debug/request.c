// From a request to an answer. What is refused is refused before anything is made.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "debug/http.h"
#include "debug/server.h"

#define NONCE_SIZE 16
#define STATUS_TOO_LARGE 413 // Its name differs between versions of the library.

enum content {
    CONTENT_TEXT,
    CONTENT_JSON,
    CONTENT_HTML,
    CONTENT_METRICS
};

// ------------------------------------------------------------------------------------------------
// Answers
// ------------------------------------------------------------------------------------------------

static bool add_header(struct MHD_Response *response, const char *name, const char *value)
{
    return MHD_add_response_header(response, name, value) == MHD_YES;
}

// No store, no guess at the type, no frame, no other origin.
static bool add_headers(struct MHD_Response *response, enum content content, const char *nonce)
{
    static const char *const types[] = {
        [CONTENT_TEXT] = "text/plain; charset=utf-8",
        [CONTENT_JSON] = "application/json",
        [CONTENT_HTML] = "text/html; charset=utf-8",
        [CONTENT_METRICS] = "text/plain; version=0.0.4; charset=utf-8",
    };
    char policy[320];
    if (nonce != NULL) {
        (void)snprintf(policy, sizeof policy,
                       "default-src 'none'; script-src 'nonce-%s'; style-src 'nonce-%s'; "
                       "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
                       "frame-ancestors 'none'",
                       nonce, nonce);
    } else {
        (void)snprintf(policy, sizeof policy, "default-src 'none'; frame-ancestors 'none'");
    }
    return add_header(response, "Content-Type", types[content]) &&
           add_header(response, "Content-Security-Policy", policy) &&
           add_header(response, "Cache-Control", "no-store") &&
           add_header(response, "Vary", "Accept") &&
           add_header(response, "X-Content-Type-Options", "nosniff") &&
           add_header(response, "X-Frame-Options", "DENY") &&
           add_header(response, "Referrer-Policy", "no-referrer") &&
           add_header(response, "Cross-Origin-Resource-Policy", "same-origin") &&
           add_header(response, "Cross-Origin-Opener-Policy", "same-origin");
}

// Takes the text.
static enum MHD_Result reply(struct MHD_Connection *connection, unsigned status,
                             enum content content, const char *nonce, struct pmi_text *body)
{
    struct MHD_Response *response =
        MHD_create_response_from_buffer(body->length, body->data, MHD_RESPMEM_MUST_FREE);
    if (response == NULL) {
        pmi_text_free(body);
        return MHD_NO; // The connection is closed.
    }
    enum MHD_Result result = MHD_NO;
    if (add_headers(response, content, nonce) &&
        (status != MHD_HTTP_METHOD_NOT_ALLOWED || add_header(response, "Allow", "GET, HEAD"))) {
        result = MHD_queue_response(connection, status, response);
    }
    MHD_destroy_response(response);
    return result;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, unsigned status, const char *why)
{
    struct pmi_text body = {0};
    pmi_text_addf(&body, "%s\n", why); // Nothing of the request is given back.
    return body.failed ? MHD_NO : reply(connection, status, CONTENT_TEXT, NULL, &body);
}

// ------------------------------------------------------------------------------------------------
// Checks
// ------------------------------------------------------------------------------------------------

struct hosts {
    size_t count;
    const char *value;
};

// Length of the name in "name", "name:port", "[v6]:port"; 0: none of these.
static size_t host_length(const char *host)
{
    size_t length = host[0] == '[' ? strcspn(host, "]") + 1 : strcspn(host, ":");
    if (length > strlen(host)) {
        return 0;
    }
    const char *port = host + length;
    bool good = port[0] == '\0' || (port[0] == ':' && strlen(port) > 1 && strlen(port) <= 6 &&
                                    strspn(port + 1, "0123456789") == strlen(port) - 1);
    return good ? length : 0;
}

static bool same_name(const char *name, const char *host, size_t length)
{
    if (strlen(name) != length) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        char c = host[i] >= 'A' && host[i] <= 'Z' ? (char)(host[i] - 'A' + 'a') : host[i];
        char d = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] - 'A' + 'a') : name[i];
        if (c != d) {
            return false;
        }
    }
    return true;
}

static enum MHD_Result note_host(void *user, enum MHD_ValueKind kind, const char *key,
                                 const char *value)
{
    struct hosts *hosts = user;
    (void)kind;
    if (same_name("host", key, strlen(key))) {
        hosts->count++;
        hosts->value = value != NULL ? value : "";
    }
    return MHD_YES;
}

// A page of a stranger can make a name of its own point to 127.0.0.1, but the browser sends that
// name along.
static bool host_is_allowed(const struct pm_debug_server *server, const char *host)
{
    static const char *const own[] = {"localhost", "127.0.0.1", "[::1]"};
    size_t length = host_length(host);
    if (length == 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof own / sizeof own[0]; i++) {
        if (same_name(own[i], host, length)) {
            return true;
        }
    }
    for (char **name = server->allowed_hosts; *name != NULL; name++) {
        if (same_name(*name, host, length)) {
            return true;
        }
    }
    return false;
}

static const char *header(struct MHD_Connection *connection, const char *name)
{
    return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
}

// A page of another origin loads us, as a script or an image: it could not read the answer, but
// make us work. Following a link to us is another thing.
static bool is_from_elsewhere(struct MHD_Connection *connection)
{
    const char *site = header(connection, "Sec-Fetch-Site");
    const char *mode = header(connection, "Sec-Fetch-Mode");
    bool other = site != NULL && strcmp(site, "same-origin") != 0 && strcmp(site, "none") != 0;
    return other && (mode == NULL || strcmp(mode, "navigate") != 0);
}

// Whether the request is answered at all; else what has been queued in *ret_result.
static bool check(const struct pm_debug_server *server, struct MHD_Connection *connection,
                  const char *method, bool has_body, enum MHD_Result *ret_result)
{
    struct hosts hosts = {0};
    (void)MHD_get_connection_values(connection, MHD_HEADER_KIND, note_host, &hosts);
    if (hosts.count != 1) {
        *ret_result = refuse(connection, MHD_HTTP_BAD_REQUEST, "one Host header is needed");
    } else if (!host_is_allowed(server, hosts.value)) {
        *ret_result = refuse(connection, MHD_HTTP_FORBIDDEN, "this Host is not on the list");
    } else if (strcmp(method, MHD_HTTP_METHOD_GET) != 0 &&
               strcmp(method, MHD_HTTP_METHOD_HEAD) != 0) {
        *ret_result = refuse(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD");
    } else if (has_body) {
        *ret_result = refuse(connection, STATUS_TOO_LARGE, "no body, please");
    } else if (is_from_elsewhere(connection)) {
        *ret_result = refuse(connection, MHD_HTTP_FORBIDDEN, "not for another origin");
    } else {
        return true;
    }
    return false;
}

// ------------------------------------------------------------------------------------------------
// Answering
// ------------------------------------------------------------------------------------------------

static enum MHD_Result answer_page(struct MHD_Connection *connection)
{
    unsigned char bytes[NONCE_SIZE];
    char nonce[2 * NONCE_SIZE + 1];
    struct pmi_text body = {0};
    if (pmi_debug_random(bytes, sizeof bytes) != PM_OK) {
        return MHD_NO;
    }
    for (size_t i = 0; i < sizeof bytes; i++) {
        (void)snprintf(nonce + 2 * i, 3, "%02x", bytes[i]);
    }
    pmi_debug_page(nonce, &body);
    if (body.failed) {
        pmi_text_free(&body);
        return MHD_NO;
    }
    return reply(connection, MHD_HTTP_OK, CONTENT_HTML, nonce, &body);
}

static enum MHD_Result answer_data(struct pm_debug_server *server,
                                   struct MHD_Connection *connection, enum content content)
{
    struct pmi_text body = {0};
    int result = content == CONTENT_JSON ? pmi_debug_processes(server, &body)
                                         : pmi_debug_metrics(server, &body);
    if (result != PM_OK || body.failed) {
        pmi_text_free(&body);
        return refuse(connection, MHD_HTTP_SERVICE_UNAVAILABLE, pm_strerror(result));
    }
    return reply(connection, MHD_HTTP_OK, content, NULL, &body);
}

// The first of the two types that Accept names; a program that names none gets JSON.
static bool wants_page(struct MHD_Connection *connection)
{
    const char *format = MHD_lookup_connection_value(connection, MHD_GET_ARGUMENT_KIND, "format");
    if (format != NULL) {
        return strcmp(format, "html") == 0;
    }
    const char *accept = header(connection, "Accept");
    const char *html = accept != NULL ? strstr(accept, "text/html") : NULL;
    const char *json = accept != NULL ? strstr(accept, "application/json") : NULL;
    return html != NULL && (json == NULL || html < json);
}

int pmi_debug_answer(struct pm_debug_server *server, struct MHD_Connection *connection,
                     const char *url, const char *method, bool has_body)
{
    enum MHD_Result refused;
    if (!check(server, connection, method, has_body, &refused)) {
        return (int)refused;
    }
    if (strcmp(url, PMI_DEBUG_METRICS) == 0) {
        return (int)answer_data(server, connection, CONTENT_METRICS);
    }
    if (strcmp(url, PMI_DEBUG_PAGE) != 0) {
        return (int)refuse(connection, MHD_HTTP_NOT_FOUND,
                           "there are " PMI_DEBUG_PAGE " and " PMI_DEBUG_METRICS);
    }
    return (int)(wants_page(connection) ? answer_page(connection)
                                        : answer_data(server, connection, CONTENT_JSON));
}
