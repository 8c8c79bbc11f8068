// What the fuzz targets and their driver share. A target is one C file with
// LLVMFuzzerTestOneInput(), so that libFuzzer can run it as well as our own driver.
#ifndef PM_FUZZ_H
#define PM_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Always 0. What must not happen ends the program by FUZZ_CHECK() or by a sanitizer.
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// Pieces that random bytes would hardly hit upon; `size` 0 ends the list.
struct fuzz_word {
    const char *bytes;
    size_t size;
};
#define FUZZ_WORD(text)                                                                            \
    {                                                                                              \
        text, sizeof text - 1                                                                      \
    }
#define FUZZ_WORDS_END                                                                             \
    {                                                                                              \
        NULL, 0                                                                                    \
    }
extern const struct fuzz_word fuzz_words[]; // Of the target.

// Whether the tested code took an input or refused it: one line of statistics, and the driver goes
// on from what was taken.
void fuzz_note(bool taken);
extern struct fuzz_counts {
    unsigned long long taken, refused;
} fuzz_notes;

#define FUZZ_CHECK(condition)                                                                      \
    do {                                                                                           \
        if (!(condition))                                                                          \
            fuzz_fail(__FILE__, __LINE__, #condition);                                             \
    } while (0)
#if defined(__GNUC__)
__attribute__((noreturn))
#endif
void fuzz_fail(const char *file, int line, const char *condition);
// Shows two texts that should be the same before the check that compares them fails.
void fuzz_check_same(const char *what, const char *expected, size_t expected_size,
                     const char *actual, size_t actual_size);

// malloc that cannot fail, of exactly this size, so that a sanitizer sees each step beyond it.
void *fuzz_alloc(size_t size);
// The same with the bytes in it; fuzz_text() adds a NUL.
void *fuzz_copy(const void *bytes, size_t size);
char *fuzz_text(const void *bytes, size_t size);

#endif
