#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/core.h"

// Copies a caller's struct that starts with its size: shorter ones are filled up with zeros, longer
// ones must be zero behind what we know.
int pmi_copy_in(void *to, const void *from, size_t known)
{
    size_t size;
    memcpy(&size, from, sizeof size);
    if (size < sizeof size) {
        return PM_ERR_INVALID;
    }
    for (size_t i = known; i < size; i++) {
        if (((const unsigned char *)from)[i] != 0) {
            return PM_ERR_INVALID;
        }
    }
    memset(to, 0, known);
    memcpy(to, from, size < known ? size : known);
    memcpy(to, &known, sizeof known);
    return PM_OK;
}

// The other way round: the caller's size is kept and never exceeded.
int pmi_copy_out(void *to, const void *from, size_t known)
{
    size_t size;
    memcpy(&size, to, sizeof size);
    if (size < sizeof size) {
        return PM_ERR_INVALID;
    }
    memset((char *)to + sizeof size, 0, size - sizeof size);
    memcpy(to, from, size < known ? size : known);
    memcpy(to, &size, sizeof size);
    return PM_OK;
}

int pmi_set_error(struct pm_error *err, int code, enum pm_stage stage, const char *field)
{
    err->code = code;
    err->stage = stage;
    (void)snprintf(err->field, sizeof err->field, "%s", field != NULL ? field : "");
    return code;
}

int64_t pmi_deadline(int64_t timeout_ms)
{
    if (timeout_ms < 0) {
        return PMI_NEVER;
    }
    int64_t now = pmi_now_ms();
    return timeout_ms > INT64_MAX - now ? PMI_NEVER : now + timeout_ms;
}

char *pmi_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    if (copy != NULL) {
        memcpy(copy, text, size);
    }
    return copy;
}

PM_API void pm_free(void *memory)
{
    free(memory);
}
