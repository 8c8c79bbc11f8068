// UTF-8 to UTF-16 and back, on every host. Strict, but for one thing: a lone surrogate, which a
// Windows name may hold, becomes its three-byte form (WTF-8) and comes back from it.
#ifndef PMI_UTF_H
#define PMI_UTF_H

#include <stddef.h>
#include <stdint.h>

// Results are malloc'd and NUL-terminated. PM_ERR_INVALID: no such encoding. PM_ERR_NO_MEMORY.
int pmi_utf8_to_utf16(const char *text, uint16_t **ret_units, size_t *ret_count);
int pmi_utf16_to_utf8(const uint16_t *units, size_t count, char **ret_text);

#endif
