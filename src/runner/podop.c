// What only the writer of a session may do, for a client that is none: a connection of its own,
// attached as the writer for a moment.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "poddaemon/folder.h"
#include "runner/doctor.h"
#include "runner/session.h"

#define OPERATION_MS 10000

struct operation {
    struct server *server;
    struct call *call;
    char id[RUNNER_ID_MAX + 1];
    struct podlink *link;
    uv_timer_t timer, again;
    unsigned handles;    // Of these two that are open.
    uint64_t busy_until; // Of the loop; 0: nobody else was met.
    unsigned char *data; // What is typed.
    size_t size, sent;
    bool close_input, resize, last_sent, taken;
    const char *next; // Command to go on with, before the id; NULL: by the code of the error.
    unsigned columns, rows;
    uint32_t last; // The request whose answer ends it.
    bool answered, attached;
};

static void on_closed(uv_handle_t *handle)
{
    struct operation *op = handle->data;
    if (--op->handles == 0) {
        free(op->data);
        free(op);
    }
}

static void end(struct operation *op, int code, const char *why)
{
    struct runner_error error;
    char quoted[4400];
    if (op->answered) {
        return;
    }
    op->answered = true;
    podlink_close(op->link);
    op->link = NULL;
    if (code == RUNNER_OK) {
        call_result(op->call, json_pack("{s:I}", "bytes", (json_int_t)op->sent));
    } else {
        const char *next = op->next != NULL             ? op->next
                           : code == RUNNER_UNREACHABLE ? "runner doctor"
                                                        : "runner get ";
        (void)runner_fail(&error, code, "%s session '%s'\n%s\n%s%s",
                          op->resize ? "resize of" : "input for", op->id, why, next,
                          next[strlen(next) - 1] == ' ' ? doctor_id(op->id, quoted) : "");
        error.bytes = op->resize ? -1 : (int64_t)op->sent;
        call_error(op->call, &error);
    }
    uv_close((uv_handle_t *)&op->timer, on_closed);
    uv_close((uv_handle_t *)&op->again, on_closed);
}

// How much of it was typed is known to the holder alone.
static void end_sent(struct operation *op, int code, const char *what)
{
    char why[128];
    (void)snprintf(why, sizeof why, "%s: at most %llu bytes of it were typed", what,
                   (unsigned long long)op->sent);
    end(op, code, op->resize ? what : why);
}

static void on_timeout(uv_timer_t *timer)
{
    struct operation *op = timer->data;
    end_sent(op, RUNNER_TIMEOUT,
             op->sent < op->size ? "the child does not read" : "no answer in time");
}

static void type_more(struct operation *op)
{
    struct pod_client *client = podlink_client(op->link);
    int64_t some = 0;
    if (op->sent < op->size) {
        some = pod_client_input(client, op->data + op->sent, op->size - op->sent);
    }
    if (some > 0) {
        op->sent += (size_t)some;
    }
    if (some >= 0 && op->sent == op->size && !op->last_sent) {
        int64_t number =
            op->close_input ? pod_client_close_input(client) : pod_client_detach(client);
        op->last = (uint32_t)number;
        op->last_sent = number > 0;
    }
    if (some < 0) {
        end(op, RUNNER_FAILED, pod_strerror((int)some));
    } else {
        podlink_flush(op->link);
    }
}

static void attach(struct operation *op)
{
    struct pod_attach request = {.role = POD_ROLE_WRITER, .from = {POD_FROM_NOW, POD_FROM_NOW}};
    if (op->resize) {
        request.flags = POD_ATTACH_SIZE;
        request.columns = (uint16_t)op->columns;
        request.rows = (uint16_t)op->rows;
    }
    int64_t number = pod_client_attach(podlink_client(op->link), &request);
    if (number == -POD_E_VERSION) {
        op->next = "runner stop ";
        end(op, RUNNER_REFUSED, SESSION_OTHER_VERSION);
    } else if (number < 0) {
        end(op, RUNNER_FAILED, pod_strerror((int)number));
    } else {
        podlink_flush(op->link);
    }
}

static void connect_again(struct operation *op);

static void on_again(uv_timer_t *timer)
{
    struct operation *op = timer->data;
    if (op->link == NULL) {
        connect_again(op);
    } else {
        attach(op);
    }
}

// False: for long enough.
static bool try_again(struct operation *op)
{
    uint64_t now = uv_now(&op->server->loop);
    if (op->busy_until == 0) {
        op->busy_until = now + WRITER_WAIT_MS;
    }
    if (now < op->busy_until) {
        (void)uv_timer_start(&op->again, on_again, WRITER_AGAIN_MS, 0);
    }
    return now < op->busy_until;
}

static void take_error(struct operation *op, const struct pod_error *e)
{
    if (e->code == POD_E_BUSY && try_again(op)) {
        return;
    }
    if (op->taken) { // What was on its way came too late.
        end_sent(op, RUNNER_REFUSED, PODLINK_TAKEN);
        return;
    }
    if (podlink_is_closed(e)) {
        end_sent(op, RUNNER_FAILED, PODLINK_CLOSED);
        return;
    }
    if (e->code == POD_E_UNSUPPORTED && op->close_input) {
        end(op, RUNNER_FAILED, PODLINK_NO_END);
        return;
    }
    if (e->code == POD_E_BUSY) {
        op->next = op->resize ? "runner attach --take-over " : "runner send --take-over ";
    }
    char why[256];
    bool refused = e->code == POD_E_BUSY || e->code == POD_E_FENCED || e->code == POD_E_READ_ONLY;
    podlink_refusal(e, why);
    end(op, refused ? RUNNER_REFUSED : RUNNER_FAILED, why);
}

static void on_message(void *user, const struct pod_message *message)
{
    struct operation *op = user;
    switch (message->type) {
    case POD_WELCOME:
        attach(op);
        break;
    case POD_ATTACHED:
        op->attached = true;
        if (op->resize &&
            (message->u.attached.columns != op->columns || message->u.attached.rows != op->rows)) {
            end(op, RUNNER_FAILED, "it has no terminal, or one whose size cannot be changed");
            break;
        }
        type_more(op);
        break;
    case POD_CREDIT:
        type_more(op);
        break;
    case POD_DONE:
        if (op->last_sent && message->u.done.request == op->last) {
            end(op, RUNNER_OK, NULL);
        }
        break;
    case POD_TAKEN: // All may be with the holder already: its last answer tells.
        op->taken = true;
        if (!op->last_sent) {
            end_sent(op, RUNNER_REFUSED, PODLINK_TAKEN);
        }
        break;
    case POD_ERROR:
        take_error(op, &message->u.error);
        break;
    case POD_EXIT:
        end_sent(op, RUNNER_NO_SESSION, "it has just ended");
        break;
    default:
        break;
    }
}

static void on_over(void *user, int failure)
{
    struct operation *op = user;
    op->link = NULL;
    // Of many that come at once the holder drops some that have not proven themselves yet. Nothing
    // was typed.
    if (!op->attached && failure == -POD_E_CLOSED && try_again(op)) {
        return;
    }
    end(op, RUNNER_UNREACHABLE,
        failure == -POD_E_IO ? "its holder does not answer" : pod_strerror(failure));
}

int session_open_link(const struct session *session, struct podlink_options *options,
                      struct podlink **ret_link)
{
    struct pod_dir dir = POD_DIR_INIT;
    uint8_t token[POD_TOKEN_SIZE];
    pm_native native = PM_NATIVE_INVALID;
    int result = pod_dir_open(session->path, &dir);
    if (result == PM_OK) {
        result = pod_token_read(&dir, token);
    }
    if (result == PM_OK) {
        result = pod_connect(&dir, session->id, &native);
    }
    pod_dir_close(&dir);
    options->session = session->id;
    options->token = token;
    if (result == PM_OK && podlink_open(options, native, ret_link) != 0) {
        result = PM_ERR_IO;
    }
    options->token = NULL; // It was copied.
    return result;
}

static int connect_to(struct operation *op, const struct session *session)
{
    struct podlink_options options = {.loop = &op->server->loop,
                                      .epoch = op->server->epoch,
                                      .timeout_ms = HANDSHAKE_MS,
                                      .handler = on_message,
                                      .over = on_over,
                                      .user = op};
    return session_open_link(session, &options, &op->link);
}

// Where nobody listens it has ended, which we are told in a moment, or its holder begins only now.
static void try_connect(struct operation *op, const struct session *session)
{
    int result = connect_to(op, session);
    if (result != PM_OK && (result != PM_ERR_NOT_FOUND || !try_again(op))) {
        end(op, RUNNER_UNREACHABLE, pm_strerror(result));
    }
}

static void connect_again(struct operation *op)
{
    const struct session *session = session_find(op->server, op->id);
    if (session == NULL) {
        op->next = "runner list";
        end(op, RUNNER_NO_SESSION, "there is none of this id");
    } else if (session_is_over(session)) {
        op->next = "runner logs ";
        end(op, RUNNER_NO_SESSION, "it has ended");
    } else {
        try_connect(op, session);
    }
}

static void begin(struct operation *op, const struct session *session, struct call *call)
{
    op->server = session->server;
    op->call = call;
    (void)snprintf(op->id, sizeof op->id, "%s", session->id);
    (void)uv_timer_init(&op->server->loop, &op->timer);
    (void)uv_timer_init(&op->server->loop, &op->again);
    op->timer.data = op->again.data = op;
    op->handles = 2;
    (void)uv_timer_start(&op->timer, on_timeout, OPERATION_MS, 0);
    try_connect(op, session);
}

static struct operation *new_operation(struct call *call)
{
    struct operation *op = calloc(1, sizeof *op);
    if (op == NULL) {
        call_result(call, NULL);
    }
    return op;
}

void session_send(struct session *session, struct call *call, json_t *params)
{
    struct runner_error error;
    const char *text = json_string_value(json_object_get(params, "text"));
    const char *coded = json_string_value(json_object_get(params, "data_base64"));
    bool close = json_is_true(json_object_get(params, "close"));
    struct operation *op = close && !session->pipes ? NULL : new_operation(call);
    char quoted[4400];
    if (close && !session->pipes) { // Known before anything is typed.
        (void)runner_fail(&error, RUNNER_FAILED, "input for session '%s'\n%s\nrunner get %s",
                          session->id, PODLINK_NO_END, doctor_id(session->id, quoted));
        call_error(call, &error);
    }
    if (op == NULL) {
        return;
    }
    op->close_input = close;
    if (coded != NULL) {
        op->data = rpc_base64_decode(coded, &op->size);
    } else {
        op->size = text != NULL ? strlen(text) : 0;
        op->data = malloc(op->size + 1);
        if (op->data != NULL && op->size > 0) {
            memcpy(op->data, text, op->size);
        }
    }
    if (op->data == NULL) {
        free(op);
        (void)runner_fail(&error, RUNNER_USAGE,
                          "parameter 'data_base64'\nit is no base64\nsee docs/control.md");
        call_error(call, &error);
        return;
    }
    begin(op, session, call);
}

void session_resize(struct session *session, struct call *call, json_t *params)
{
    struct operation *op = new_operation(call);
    if (op == NULL) {
        return;
    }
    op->resize = true;
    op->columns = (unsigned)json_integer_value(json_object_get(params, "columns"));
    op->rows = (unsigned)json_integer_value(json_object_get(params, "rows"));
    begin(op, session, call);
}
