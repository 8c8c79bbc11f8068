// At most so many connections at a time. The HTTP library ends those that are silent; one that says
// a byte now and then could hold its place for ever. So what is older than `age_ms` is shut down as
// soon as somebody else wants to come in. All on the server's one thread.
#include <stdlib.h>

#include "debug/server.h"

struct place {
    pmi_debug_socket socket;
    int64_t begun_ms; // 0 = free.
};

struct pmi_connections {
    size_t capacity, used;
    uint32_t age_ms;
    struct place places[];
};

struct pmi_connections *pmi_connections_new(size_t capacity, uint32_t age_ms)
{
    struct pmi_connections *c = calloc(1, sizeof *c + capacity * sizeof c->places[0]);
    if (c != NULL) {
        c->capacity = capacity;
        c->age_ms = age_ms;
    }
    return c;
}

void pmi_connections_free(struct pmi_connections *c)
{
    free(c);
}

bool pmi_connections_admit(struct pmi_connections *c)
{
    if (c->used < c->capacity) {
        return true;
    }
    int64_t now = pmi_debug_now_ms();
    for (size_t i = 0; i < c->capacity; i++) {
        if (c->places[i].begun_ms != 0 && now - c->places[i].begun_ms > c->age_ms) {
            pmi_debug_shutdown(c->places[i].socket);
        }
    }
    return false;
}

void *pmi_connections_begin(struct pmi_connections *c, pmi_debug_socket socket)
{
    for (size_t i = 0; i < c->capacity; i++) {
        struct place *place = &c->places[i];
        if (place->begun_ms == 0) {
            int64_t now = pmi_debug_now_ms();
            *place = (struct place){.socket = socket, .begun_ms = now != 0 ? now : 1};
            c->used++;
            return place;
        }
    }
    return NULL;
}

void pmi_connections_end(struct pmi_connections *c, void *token)
{
    struct place *place = token;
    if (place != NULL) {
        place->begun_ms = 0;
        c->used--;
    }
}
