// The mutator: changes an input a little, blindly, by a sequence of numbers that its seed fixes.
#ifndef PM_FUZZ_MUTATE_H
#define PM_FUZZ_MUTATE_H

#include <stddef.h>
#include <stdint.h>

#define MUTATE_SIZE_MAX 4096

struct mutate_input {
    const uint8_t *bytes;
    size_t size;
};

// Never the same number twice in a row of 2^64 - 1. *state is not 0.
uint64_t mutate_random(uint64_t *state);
// One to eight changes of bytes[0..size), which has room for MUTATE_SIZE_MAX; `other` is another
// input, of which parts may be taken. Returns the new size.
size_t mutate(uint64_t *state, uint8_t *bytes, size_t size, const struct mutate_input *other);

#endif
