#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/utf8.h"
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
    uint32_t point = 0;
    size_t length = pmi_utf8_decode(at, &point);
    return point >= 0xd800 && point <= 0xdfff ? 0 : length;
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
