#include "runner/memory.h"

#include <jansson.h>
#include <stdatomic.h>
#include <stdlib.h>

static void *(*source)(size_t size) = malloc;
static atomic_ulong denied;

static void *allocate_watched(size_t size)
{
    void *memory = source(size);
    if (memory == NULL && size > 0) {
        (void)atomic_fetch_add(&denied, 1);
    }
    return memory;
}

void memory_watch(void *(*allocate)(size_t size))
{
    source = allocate;
    json_set_alloc_funcs(allocate_watched, free);
}

unsigned long memory_denied(void)
{
    return atomic_load(&denied);
}
