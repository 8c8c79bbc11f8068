#include <stdlib.h>

#include "runner/session.h"

// How long a pod may take to tell how it is, before what it told last is shown.
#define REFRESH_MS 300

struct refresh {
    struct server *server;
    struct call *call;
    char id[RUNNER_ID_MAX + 1]; // "": all.
    size_t missing;
    bool answered;
    uv_timer_t timer;
};

// Where a session of this age belongs: the oldest first.
static size_t place_for(const json_t *list, int64_t created_ms)
{
    size_t at = json_array_size(list);
    while (at > 0 && json_integer_value(json_object_get(json_array_get(list, at - 1), "created")) >
                         created_ms) {
        at--;
    }
    return at;
}

static json_t *list_json(const struct server *server)
{
    json_t *list = json_array();
    for (const struct session *s = server->sessions; s != NULL && list != NULL; s = s->next) {
        if (s->create == NULL) {
            (void)json_array_insert_new(list, place_for(list, s->created_ms), session_json(s));
        }
    }
    return list;
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void answer(struct refresh *refresh)
{
    struct runner_error error;
    if (refresh->answered) {
        return;
    }
    refresh->answered = true;
    struct session *session =
        refresh->id[0] != '\0' ? session_find(refresh->server, refresh->id) : NULL;
    if (refresh->id[0] == '\0') {
        call_result(refresh->call, list_json(refresh->server));
    } else if (session != NULL) {
        call_result(refresh->call, session_json(session));
    } else {
        (void)runner_fail(&error, RUNNER_NO_SESSION, "session '%s'\nit has just been removed",
                          refresh->id);
        call_error(refresh->call, &error);
    }
}

static void end(struct refresh *refresh)
{
    if (refresh->missing == 0) {
        answer(refresh);
        uv_close((uv_handle_t *)&refresh->timer, on_closed);
    }
}

void refresh_done(struct refresh *refresh)
{
    refresh->missing--;
    end(refresh);
}

// Those that have not answered do so later, or their connection ends.
static void on_timeout(uv_timer_t *timer)
{
    answer(timer->data);
}

static void ask(struct refresh *refresh, struct session *session)
{
    refresh->missing++;
    if (session_is_over(session) || !session_ask(session, ASK_STATUS, refresh)) {
        refresh->missing--;
    }
}

void refresh_begin(struct server *server, struct session *session, struct call *call)
{
    struct refresh *refresh = calloc(1, sizeof *refresh);
    if (refresh == NULL) {
        call_result(call, NULL);
        return;
    }
    refresh->server = server;
    refresh->call = call;
    (void)uv_timer_init(&server->loop, &refresh->timer);
    refresh->timer.data = refresh;
    (void)uv_timer_start(&refresh->timer, on_timeout, REFRESH_MS, 0);
    refresh->missing = 1; // Ours, until all are asked.
    if (session != NULL) {
        for (size_t i = 0; session->id[i] != '\0'; i++) {
            refresh->id[i] = session->id[i];
        }
        ask(refresh, session);
    } else {
        struct session *next;
        for (struct session *s = server->sessions; s != NULL; s = next) {
            next = s->next; // One whose holder is found dead may be gone after it.
            ask(refresh, s);
        }
    }
    refresh_done(refresh);
}
