// The functions of the HTTP library. They are linked, or, where PMI_HTTP_LATE has the name of the
// shared library, found by the first server that starts: of a program that is mostly run for other
// things, and that is its own launcher, the library and all that it needs in turn (gnutls) would be
// more than half of each start.
#ifndef PMI_DEBUG_HTTP_H
#define PMI_DEBUG_HTTP_H

#include <microhttpd.h>
#include <processmgr/processmgr.h>

#ifdef PMI_HTTP_LATE
// Before the first call of any of them, in a program that starts its servers on one thread.
// PM_ERR_UNSUPPORTED with a hint: it is not there.
int pmi_http_load(struct pm_error *error);

#define PMI_HTTP_FUNCTIONS(X)                                                                      \
    X(MHD_add_response_header)                                                                     \
    X(MHD_create_response_from_buffer)                                                             \
    X(MHD_destroy_response)                                                                        \
    X(MHD_get_connection_info)                                                                     \
    X(MHD_get_connection_values)                                                                   \
    X(MHD_lookup_connection_value)                                                                 \
    X(MHD_queue_response)                                                                          \
    X(MHD_start_daemon)                                                                            \
    X(MHD_stop_daemon)

struct pmi_http {
#define PMI_HTTP_MEMBER(name) __typeof__(name) *(name);
    PMI_HTTP_FUNCTIONS(PMI_HTTP_MEMBER)
#undef PMI_HTTP_MEMBER
};
extern struct pmi_http pmi_http;

#define MHD_add_response_header pmi_http.MHD_add_response_header
#define MHD_create_response_from_buffer pmi_http.MHD_create_response_from_buffer
#define MHD_destroy_response pmi_http.MHD_destroy_response
#define MHD_get_connection_info pmi_http.MHD_get_connection_info
#define MHD_get_connection_values pmi_http.MHD_get_connection_values
#define MHD_lookup_connection_value pmi_http.MHD_lookup_connection_value
#define MHD_queue_response pmi_http.MHD_queue_response
#define MHD_start_daemon pmi_http.MHD_start_daemon
#define MHD_stop_daemon pmi_http.MHD_stop_daemon
#else
static inline int pmi_http_load(struct pm_error *error)
{
    (void)error;
    return PM_OK;
}
#endif

#endif
