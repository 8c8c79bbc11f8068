// A growing string. Running out of memory is remembered: check once, at the end.
#ifndef PMI_STRBUF_H
#define PMI_STRBUF_H

#include <stdbool.h>
#include <stddef.h>

struct pmi_strbuf {
    char *text; // NUL-terminated once something was added.
    size_t length, capacity;
    bool failed;
};
#define PMI_STRBUF_INIT                                                                            \
    {                                                                                              \
        NULL, 0, 0, false                                                                          \
    }

void pmi_strbuf_add_bytes(struct pmi_strbuf *sb, const void *bytes, size_t size);
void pmi_strbuf_add(struct pmi_strbuf *sb, const char *text);
void pmi_strbuf_add_char(struct pmi_strbuf *sb, char c);
void pmi_strbuf_addf(struct pmi_strbuf *sb, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;
// Hands the text over (free() it); NULL if memory ran out. The buffer is empty then.
char *pmi_strbuf_take(struct pmi_strbuf *sb);
void pmi_strbuf_free(struct pmi_strbuf *sb);

#endif
