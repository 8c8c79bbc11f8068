/* processmgr: the debug server, the optional component `debug`.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Serves, over HTTP and to this machine alone, what a manager knows:
 *
 *   GET /debug/processes   every process with pid, owner, key, mode, state, times, parent,
 *                          containment and streams, and the counters: JSON, or a page for a browser
 *                          (by the Accept header, or ?format=json, ?format=html)
 *   GET /metrics           the counters as Prometheus text: see docs/metrics.md
 *
 * What it never does: listen on more than loopback or a local socket; answer a request whose Host
 * is not on the list (so no page of a stranger reaches it by a name that it has made point here);
 * answer anything but GET and HEAD; allow another origin; show environments, labels, or, unless
 * asked for, arguments.
 *
 * Every user of the machine can connect to a loopback address. Where that is too many, give it a
 * Unix socket: the socket's file is its owner's alone.
 */
#ifndef PROCESSMGR_DEBUG_H
#define PROCESSMGR_DEBUG_H

#include <processmgr/processmgr.h>

#if defined(_WIN32) && defined(PM_BUILDING_DEBUG_SHARED)
#define PM_DEBUG_API __declspec(dllexport)
#elif defined(_WIN32) && defined(PM_USING_DEBUG_SHARED)
#define PM_DEBUG_API __declspec(dllimport)
#elif defined(__GNUC__) && !defined(_WIN32)
#define PM_DEBUG_API __attribute__((visibility("default")))
#else
#define PM_DEBUG_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/** A running debug server. */
typedef struct pm_debug_server pm_debug_server;
/** Where a pm_debug_metrics_callback puts its metrics. */
typedef struct pm_debug_metrics pm_debug_metrics;

enum pm_debug_metric_type {
    PM_DEBUG_COUNTER = 0, /**< Only ever grows; its name ends in _total. */
    PM_DEBUG_GAUGE
};

/** Adds metrics of the host's own to an answer to GET /metrics, with pm_debug_metrics_add(). Runs
 * on the server's thread. user: pm_debug_options::user; out: valid for the call. */
typedef void pm_debug_metrics_callback(void *user, pm_debug_metrics *out);

/** How a debug server shall be. */
struct pm_debug_options {
    size_t size;         /**< sizeof(struct pm_debug_options): use PM_DEBUG_OPTIONS_INIT. */
    const char *address; /**< "127.0.0.1:PORT" (any of 127.0.0.0/8), "localhost:PORT" (the same as
                              127.0.0.1), "[::1]:PORT", or, on POSIX, "unix:PATH" with an absolute
                              path. Port 0 = one that is free: see pm_debug_server_address(). NULL
                              means "127.0.0.1:0". A file at PATH is replaced only if it is a socket
                              of ours that nobody listens on. */
    const char *title;   /**< Name of the host program, for the page; NULL = "processmgr". */
    const char *const *allowed_hosts; /**< NULL-terminated; names, without ports, that a request may
                                           have as its Host beside "localhost", 127.0.0.1 and [::1];
                                           NULL = none. */
    bool show_arguments; /**< Show arguments, as far as the system tells them (Linux), secrets
                              blotted out: values of options and variables that are named like one,
                              passwords in URLs, and words that look like a token. */
    const char *const *secret_words; /**< NULL-terminated; more parts of names that make a value a
                                          secret, in small letters; NULL = none. */
    uint32_t max_connections; /**< 0 = 16; at most 1000. More are refused, and make room: one older
                                   than timeout_ms is closed. */
    uint32_t
        timeout_ms; /**< 0 = 10000: how long a connection may be silent. Whole seconds count. */
    size_t max_processes; /**< 0 = 20000: as many are shown; the answer says if there are more. */
    pm_debug_metrics_callback *metrics; /**< NULL = none. */
    void *user;                         /**< Yours; given to metrics. */
};

/* clang-format off */
#ifdef __cplusplus
#define PM_DEBUG_OPTIONS_INIT pm_detail::sized<struct pm_debug_options>()
#else
#define PM_DEBUG_OPTIONS_INIT { .size = sizeof(struct pm_debug_options) }
#endif
/* clang-format on */

/**
 * Starts a debug server: one thread, which blocks every signal. While it runs the zombie detector
 * of the manager names the page in its finds (pm_leak_set_where()).
 *
 * @param manager the manager to show; has to be open until pm_debug_server_stop().
 * @param options how it shall be; NULL = all defaults; copied.
 * @param ret_server set to the server; end it with pm_debug_server_stop().
 * @param ret_error detail on failure; may be NULL.
 * @return PM_OK; PM_ERR_INVALID (a field, named in the detail: an address that is not this
 * machine's alone, for one); PM_ERR_EXISTS (the address is in use); PM_ERR_ACCESS,
 * PM_ERR_NOT_FOUND, PM_ERR_TOO_BIG (the socket's path); PM_ERR_UNSUPPORTED (a Unix socket on
 * Windows, IPv6 where there is none); PM_ERR_NO_MEMORY, PM_ERR_NO_DESCRIPTORS, PM_ERR_SYSTEM; what
 *         pm_stats() returns.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_DEBUG_API int pm_debug_server_start(pm_manager *manager, const struct pm_debug_options *options,
                                       pm_debug_server **ret_server, struct pm_error *ret_error);

/**
 * Where the server can be found.
 *
 * @param server the server.
 * @return "http://127.0.0.1:41234" or "unix:/run/user/0/app.sock", without a path; the server's
 * own;
 *         "" if server is NULL.
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_DEBUG_API const char *pm_debug_server_address(const pm_debug_server *server);

/**
 * Ends a server: connections are closed, its thread is joined, its socket's file removed. In a
 * forked copy it only frees the memory.
 *
 * @param server the server, gone afterwards; NULL does nothing.
 * @return nothing.
 * Blocking: until an answer that is being made is made. Thread safety: any thread but the server's
 * own, once. Since: 0.1.0.
 */
PM_DEBUG_API void pm_debug_server_stop(pm_debug_server *server);

/**
 * Adds one metric to an answer. For use in a pm_debug_metrics_callback.
 *
 * @param out from the callback.
 * @param name its name as Prometheus has it: letters, digits, '_' and ':', not starting with
 *        "processmgr_" or a digit.
 * @param type what it is.
 * @param help one line that says what it counts; escaped where needed.
 * @param value its value.
 * @return PM_OK; PM_ERR_INVALID: the name (nothing was added).
 * Blocking: no. Thread safety: the thread of the callback. Since: 0.1.0.
 */
PM_DEBUG_API int pm_debug_metrics_add(pm_debug_metrics *out, const char *name,
                                      enum pm_debug_metric_type type, const char *help,
                                      double value);

#ifdef __cplusplus
}
#endif

#endif
