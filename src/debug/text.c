#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "debug/server.h"

static bool make_room(struct pmi_text *text, size_t more)
{
    if (text->failed || more > SIZE_MAX / 4 - text->length) {
        text->failed = true;
        return false;
    }
    if (text->capacity - text->length < more) {
        size_t capacity = (text->length + more) * 2 + 256;
        char *grown = realloc(text->data, capacity);
        if (grown == NULL) {
            text->failed = true;
            return false;
        }
        text->data = grown;
        text->capacity = capacity;
    }
    return true;
}

void pmi_text_add_bytes(struct pmi_text *text, const void *bytes, size_t size)
{
    if (make_room(text, size)) {
        memcpy(text->data + text->length, bytes, size);
        text->length += size;
    }
}

void pmi_text_add(struct pmi_text *text, const char *string)
{
    pmi_text_add_bytes(text, string, strlen(string));
}

void pmi_text_addf(struct pmi_text *text, const char *format, ...)
{
    char buffer[512];
    va_list args;
    va_start(args, format);
    int size = vsnprintf(buffer, sizeof buffer, format, args);
    va_end(args);
    if (size < 0 || (size_t)size >= sizeof buffer) {
        text->failed = true; // No caller has lines as long as that.
    } else {
        pmi_text_add_bytes(text, buffer, (size_t)size);
    }
}

void pmi_text_free(struct pmi_text *text)
{
    free(text->data);
    *text = (struct pmi_text){0};
}

// Length of the well-formed UTF-8 sequence at `at`, which ends with a NUL; 0 = none.
static size_t sequence(const unsigned char *at)
{
    static const unsigned least[5] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = at[0] < 0x80             ? 1
                    : (at[0] & 0xe0) == 0xc0 ? 2
                    : (at[0] & 0xf0) == 0xe0 ? 3
                    : (at[0] & 0xf8) == 0xf0 ? 4
                                             : 0;
    if (length == 0) {
        return 0;
    }
    unsigned point = length == 1 ? at[0] : at[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
        point = point << 6 | (at[i] & 0x3fu);
    }
    bool surrogate = point >= 0xd800 && point <= 0xdfff;
    return point < least[length] || point > 0x10ffff || surrogate ? 0 : length;
}

char *pmi_text_as_utf8(const char *bytes)
{
    const unsigned char *at = (const unsigned char *)bytes;
    size_t size = strlen(bytes);
    char *copy = size < SIZE_MAX / 4 ? malloc(size * 4 + 1) : NULL;
    if (copy == NULL) {
        return NULL;
    }
    char *to = copy;
    while (*at != 0) {
        size_t length = sequence(at);
        if (length == 0) {
            (void)snprintf(to, 5, "\\x%02x", *at);
            to += 4;
            at++;
        } else {
            memcpy(to, at, length);
            to += length;
            at += length;
        }
    }
    *to = '\0';
    return copy;
}
