// What the files of the debug server share. (A debug/debug.h would stand in the way of that of
// libstdc++.) It is a user of the public API alone; what differs
// between systems is in os_debug.h.
#ifndef PMI_DEBUG_SERVER_H
#define PMI_DEBUG_SERVER_H

#include <processmgr/debug.h>

#include "debug/os_debug.h"

#define PMI_DEBUG_PAGE "/debug/processes"
#define PMI_DEBUG_METRICS "/metrics"

// A growing text. Running out of memory is remembered: check once, at the end.
struct pmi_text {
    char *data;
    size_t length, capacity;
    bool failed;
};

struct pm_debug_metrics {
    struct pmi_text *out;
};

struct pm_debug_server {
    pm_manager *manager;
    uint64_t pid; // Of the process that started it.
    struct pm_debug_options options;
    char *title;
    char **allowed_hosts, **secret_words; // NULL-terminated.
    struct pmi_debug_listener listener;
    struct MHD_Daemon *daemon;
    struct pmi_connections *connections;
};

// text.c
void pmi_text_add_bytes(struct pmi_text *text, const void *bytes, size_t size);
void pmi_text_add(struct pmi_text *text, const char *string);
void pmi_text_addf(struct pmi_text *text, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;
void pmi_text_free(struct pmi_text *text);
// Bytes from outside as UTF-8: what is none becomes \xNN. Malloc'd; NULL: no memory.
char *pmi_text_as_utf8(const char *bytes);

// redact.c: blots out what looks like a secret, in place of which "***" stands. *ret_skip_next: the
// argument after this one is the secret. Malloc'd; NULL: no memory.
char *pmi_redact(const char *argument, const char *const *more_words, bool *ret_skip_next);

// processes.c
int pmi_debug_processes(struct pm_debug_server *server, struct pmi_text *out);
// metrics.c
int pmi_debug_metrics(struct pm_debug_server *server, struct pmi_text *out);
// page.c: the page; every place for the nonce is filled.
void pmi_debug_page(const char *nonce, struct pmi_text *out);

// connections.c: at most so many at a time.
struct pmi_connections *pmi_connections_new(size_t capacity, uint32_t age_ms);
void pmi_connections_free(struct pmi_connections *c);
// False: it is one too many. What is too old is shut down then.
bool pmi_connections_admit(struct pmi_connections *c);
// It begins (begin = true) or is over. Tokens are kept with the connection.
void *pmi_connections_begin(struct pmi_connections *c, pmi_debug_socket socket);
void pmi_connections_end(struct pmi_connections *c, void *token);

// server.c, request.c
struct MHD_Connection;
int pmi_debug_answer(struct pm_debug_server *server, struct MHD_Connection *connection,
                     const char *url, const char *method, bool has_body);

#endif
