#include "core/utf.h"

#include <processmgr/processmgr.h>
#include <stdlib.h>
#include <string.h>

#include "core/utf8.h"

int pmi_utf8_to_utf16(const char *text, uint16_t **ret_units, size_t *ret_count)
{
    size_t size = strlen(text);
    // Never more units than bytes.
    uint16_t *units = size < SIZE_MAX / 2 - 1 ? malloc((size + 1) * sizeof *units) : NULL;
    if (units == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    size_t count = 0;
    const unsigned char *at = (const unsigned char *)text;
    bool after_high = false; // The last unit came from a three-byte high surrogate.
    while (*at != 0) {
        uint32_t point = 0;
        size_t length = pmi_utf8_decode(at, &point);
        // A pair written as two three-byte surrogates has a four-byte form: that one only.
        bool low = point >= 0xdc00 && point <= 0xdfff;
        if (length == 0 || (length == 3 && low && after_high)) {
            free(units);
            return PM_ERR_INVALID;
        }
        after_high = length == 3 && point >= 0xd800 && point <= 0xdbff;
        if (point >= 0x10000) {
            units[count++] = (uint16_t)(0xd800 + ((point - 0x10000) >> 10));
            units[count++] = (uint16_t)(0xdc00 + ((point - 0x10000) & 0x3ff));
        } else {
            units[count++] = (uint16_t)point;
        }
        at += length;
    }
    units[count] = 0;
    *ret_units = units;
    *ret_count = count;
    return PM_OK;
}

static size_t encode(uint32_t point, char *to)
{
    if (point < 0x80) {
        to[0] = (char)point;
        return 1;
    }
    size_t length = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    static const unsigned char lead[5] = {0, 0, 0xc0, 0xe0, 0xf0};
    for (size_t i = length - 1; i > 0; i--) {
        to[i] = (char)(0x80 | (point & 0x3f));
        point >>= 6;
    }
    to[0] = (char)(lead[length] | point);
    return length;
}

int pmi_utf16_to_utf8(const uint16_t *units, size_t count, char **ret_text)
{
    char *text = count < SIZE_MAX / 3 - 1 ? malloc(count * 3 + 1) : NULL;
    if (text == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    size_t size = 0;
    for (size_t i = 0; i < count; i++) {
        uint32_t point = units[i];
        if (point == 0) {
            free(text);
            return PM_ERR_INVALID;
        }
        bool pair = point >= 0xd800 && point <= 0xdbff && i + 1 < count && units[i + 1] >= 0xdc00 &&
                    units[i + 1] <= 0xdfff;
        if (pair) {
            point = 0x10000 + ((point - 0xd800) << 10) + (units[++i] - 0xdc00u);
        }
        size += encode(point, text + size);
    }
    text[size] = '\0';
    *ret_text = text;
    return PM_OK;
}
