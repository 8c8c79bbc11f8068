// The HTTP library of the debug server, found at run time: debug/http.h.
#include "debug/http.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

struct pmi_http pmi_http;
static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;
static bool loaded; // Stays so, as the library does.

static int missing(struct pm_error *error)
{
    const char *reason = dlerror();
    error->code = PM_ERR_UNSUPPORTED;
    error->stage = PM_STAGE_CHECK;
    (void)snprintf(error->hint, sizeof(error->hint), "the HTTP library cannot be loaded: %s",
                   reason != NULL ? reason : PMI_HTTP_LATE);
    return error->code;
}

// All of them or none.
static int load(struct pm_error *error)
{
    static const char *const names[] = {
#define PMI_HTTP_NAME(name) #name,
        PMI_HTTP_FUNCTIONS(PMI_HTTP_NAME)
#undef PMI_HTTP_NAME
    };
    void *found[sizeof(names) / sizeof(names[0])];
    _Static_assert(sizeof(found) == sizeof(pmi_http), "a pointer for each name");
    void *library = dlopen(PMI_HTTP_LATE, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return missing(error);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        found[i] = dlsym(library, names[i]);
        if (found[i] == NULL) {
            int result = missing(error);
            (void)dlclose(library);
            return result;
        }
    }
    memcpy(&pmi_http, found, sizeof(pmi_http)); // POSIX: these hold functions as well.
    loaded = true;
    return PM_OK;
}

int pmi_http_load(struct pm_error *error)
{
    (void)pthread_mutex_lock(&load_lock);
    int result = loaded ? PM_OK : load(error);
    (void)pthread_mutex_unlock(&load_lock);
    return result;
}
