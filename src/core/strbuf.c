#include "core/strbuf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(struct pmi_strbuf *sb, size_t more)
{
    if (sb->failed) {
        return false;
    }
    if (more < sb->capacity - sb->length) {
        return true;
    }
    bool countable = sb->capacity < SIZE_MAX / 4 && more < SIZE_MAX / 4;
    size_t capacity = sb->capacity * 2 + more + 32;
    char *grown = countable ? realloc(sb->text, capacity) : NULL;
    if (grown == NULL) {
        sb->failed = true;
        return false;
    }
    sb->text = grown;
    sb->capacity = capacity;
    return true;
}

void pmi_strbuf_add_bytes(struct pmi_strbuf *sb, const void *bytes, size_t size)
{
    if (reserve(sb, size)) {
        memcpy(sb->text + sb->length, bytes, size);
        sb->length += size;
        sb->text[sb->length] = '\0';
    }
}

void pmi_strbuf_add(struct pmi_strbuf *sb, const char *text)
{
    pmi_strbuf_add_bytes(sb, text, strlen(text));
}

void pmi_strbuf_add_char(struct pmi_strbuf *sb, char c)
{
    pmi_strbuf_add_bytes(sb, &c, 1);
}

void pmi_strbuf_addf(struct pmi_strbuf *sb, const char *format, ...)
{
    char small[256];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(small, sizeof small, format, args);
    va_end(args);
    if (length < 0) {
        sb->failed = true;
    } else if ((size_t)length < sizeof small) {
        pmi_strbuf_add_bytes(sb, small, (size_t)length);
    } else if (reserve(sb, (size_t)length + 1)) {
        va_start(args, format);
        (void)vsnprintf(sb->text + sb->length, (size_t)length + 1, format, args);
        va_end(args);
        sb->length += (size_t)length;
    }
}

char *pmi_strbuf_take(struct pmi_strbuf *sb)
{
    if (!sb->failed && sb->text == NULL) {
        pmi_strbuf_add_bytes(sb, "", 0);
    }
    char *text = sb->text;
    if (sb->failed) {
        free(text);
        text = NULL;
    }
    *sb = (struct pmi_strbuf)PMI_STRBUF_INIT;
    return text;
}

void pmi_strbuf_free(struct pmi_strbuf *sb)
{
    free(sb->text);
    *sb = (struct pmi_strbuf)PMI_STRBUF_INIT;
}
