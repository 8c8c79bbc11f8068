// One code point of UTF-8. In a header: the debug server is a library of its own.
#ifndef PMI_UTF8_H
#define PMI_UTF8_H

#include <stddef.h>
#include <stdint.h>

// Bytes of the code point at `at`, where a NUL ends the text; 0 = malformed: too long a form,
// beyond U+10FFFF, cut. Surrogates are let through.
static inline size_t pmi_utf8_decode(const unsigned char *at, uint32_t *ret_point)
{
    static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = at[0] < 0x80             ? 1
                    : (at[0] & 0xe0) == 0xc0 ? 2
                    : (at[0] & 0xf0) == 0xe0 ? 3
                    : (at[0] & 0xf8) == 0xf0 ? 4
                                             : 0;
    if (length == 0) {
        return 0;
    }
    uint32_t point = length == 1 ? at[0] : at[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
        point = point << 6 | (at[i] & 0x3fu);
    }
    *ret_point = point;
    return point < least[length] || point > 0x10ffff ? 0 : length;
}

#endif
