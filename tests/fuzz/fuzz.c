#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fuzz_counts fuzz_notes;

// Inputs are small: whoever wants more than this has believed a number in one. (AddressSanitizer)
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
    return "max_allocation_size_mb=64";
}

void fuzz_note(bool taken)
{
    if (taken) {
        fuzz_notes.taken++;
    } else {
        fuzz_notes.refused++;
    }
}

void fuzz_fail(const char *file, int line, const char *condition)
{
    (void)fflush(stdout);
    (void)fprintf(stderr, "%s:%d: not so: %s\n", file, line, condition);
    abort();
}

static void show(const char *title, const char *text, size_t size)
{
    (void)fprintf(stderr, "%s (%lu bytes): [", title, (unsigned long)size);
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '\n' || (c >= 0x20 && c < 0x7f && c != '\\')) {
            (void)fputc(c, stderr);
        } else {
            (void)fprintf(stderr, "\\x%02x", c);
        }
    }
    (void)fprintf(stderr, "]\n");
}

void fuzz_check_same(const char *what, const char *expected, size_t expected_size,
                     const char *actual, size_t actual_size)
{
    if (expected_size == actual_size && memcmp(expected, actual, expected_size) == 0) {
        return;
    }
    (void)fprintf(stderr, "%s\n", what);
    show("expected", expected, expected_size);
    show("actual", actual, actual_size);
    fuzz_fail(__FILE__, __LINE__, "the two are the same");
}

void *fuzz_alloc(size_t size)
{
    void *memory = malloc(size > 0 ? size : 1);
    if (memory == NULL) {
        (void)fprintf(stderr, "out of memory\n");
        exit(2);
    }
    return memory;
}

void *fuzz_copy(const void *bytes, size_t size)
{
    void *copy = fuzz_alloc(size);
    if (size > 0) {
        memcpy(copy, bytes, size);
    }
    return copy;
}

char *fuzz_text(const void *bytes, size_t size)
{
    char *text = fuzz_alloc(size + 1);
    if (size > 0) {
        memcpy(text, bytes, size);
    }
    text[size] = '\0';
    return text;
}
