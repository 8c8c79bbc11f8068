#include "mutate.h"

#include <stdio.h>
#include <string.h>

#include "fuzz.h"

struct work {
    uint64_t *state;
    uint8_t *bytes;
    size_t size;
    const struct mutate_input *other;
};

uint64_t mutate_random(uint64_t *state)
{
    uint64_t x = *state; // xorshift64*
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * 0x2545f4914f6cdd1du;
}

// 0 to limit - 1, and 0 for none.
static size_t below(struct work *w, size_t limit)
{
    return limit > 0 ? (size_t)((mutate_random(w->state) >> 16) % limit) : 0;
}

// Lengths are short more often than long.
static size_t some_length(struct work *w, size_t most)
{
    size_t limit = below(w, 4) != 0 && most > 8 ? 8 : most;
    return limit > 0 ? 1 + below(w, limit) : 0;
}

// Takes old_size bytes out at a place, and puts new ones there. The new ones are not ours.
static void replace(struct work *w, size_t at, size_t old_size, const void *bytes, size_t size)
{
    if (w->size - old_size + size > MUTATE_SIZE_MAX) {
        return;
    }
    memmove(w->bytes + at + size, w->bytes + at + old_size, w->size - at - old_size);
    if (size > 0) {
        memcpy(w->bytes + at, bytes, size);
    }
    w->size = w->size - old_size + size;
}

static void change_byte(struct work *w)
{
    static const uint8_t often[] = {0, 1, '\n', ' ', '"', '%', '=', '\\', '0', 0x7f, 0x80, 0xff};
    if (w->size == 0) {
        return;
    }
    uint8_t *byte = &w->bytes[below(w, w->size)];
    switch (below(w, 4)) {
    case 0:
        *byte = (uint8_t)(*byte ^ (1u << below(w, 8)));
        break;
    case 1:
        *byte = (uint8_t)below(w, 256);
        break;
    case 2:
        *byte = often[below(w, sizeof often)];
        break;
    default:
        *byte = (uint8_t)(*byte + (below(w, 2) != 0 ? 1u : 255u));
        break;
    }
}

static void insert_bytes(struct work *w)
{
    uint8_t bytes[8];
    size_t size = some_length(w, sizeof bytes);
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)below(w, 256);
    }
    replace(w, below(w, w->size + 1), 0, bytes, size);
}

static void delete_bytes(struct work *w)
{
    size_t at = below(w, w->size);
    replace(w, at, some_length(w, w->size - at), NULL, 0);
}

// A run of one byte: what is too long for a field.
static void insert_run(struct work *w)
{
    uint8_t bytes[300];
    size_t size = some_length(w, sizeof bytes);
    memset(bytes, w->size > 0 ? w->bytes[below(w, w->size)] : 'a', size);
    replace(w, below(w, w->size + 1), 0, bytes, size);
}

static void put_word(struct work *w)
{
    size_t count = 0;
    while (fuzz_words[count].size > 0) {
        count++;
    }
    const struct fuzz_word *word = &fuzz_words[below(w, count)];
    size_t at = below(w, w->size + 1);
    size_t over = below(w, 2) != 0 ? word->size : 0;
    over = over < w->size - at ? over : w->size - at;
    replace(w, at, over, word->bytes, word->size);
}

// A part of this input or of another one goes to another place.
static void copy_part(struct work *w)
{
    uint8_t part[MUTATE_SIZE_MAX];
    bool own = below(w, 2) != 0;
    const uint8_t *source = own ? w->bytes : w->other->bytes;
    size_t size = own ? w->size : w->other->size;
    size_t from = below(w, size), length = some_length(w, size - from);
    length = length < sizeof part ? length : sizeof part;
    if (length > 0) { // An empty input may be NULL.
        memcpy(part, source + from, length);
    }
    size_t at = below(w, w->size + 1);
    size_t over = below(w, 2) != 0 ? length : 0;
    replace(w, at, over < w->size - at ? over : w->size - at, part, length);
}

static size_t line_start(const struct work *w, size_t at)
{
    while (at > 0 && w->bytes[at - 1] != '\n') {
        at--;
    }
    return at;
}

// Texts are lines: one goes, or comes twice.
static void change_line(struct work *w)
{
    uint8_t line[MUTATE_SIZE_MAX];
    size_t begin = line_start(w, below(w, w->size));
    size_t end = begin;
    while (end < w->size && w->bytes[end++] != '\n') {
    }
    memcpy(line, w->bytes + begin, end - begin);
    if (below(w, 2) != 0) {
        replace(w, begin, end - begin, NULL, 0);
    } else {
        replace(w, line_start(w, below(w, w->size)), 0, line, end - begin);
    }
}

// A decimal number becomes another one, most often one at a border.
static void change_number(struct work *w)
{
    static const int bits[] = {0, 7, 8, 15, 16, 31, 32, 63, 64};
    size_t begin = below(w, w->size), end;
    while (begin < w->size && (w->bytes[begin] < '0' || w->bytes[begin] > '9')) {
        begin++;
    }
    for (end = begin; end < w->size && w->bytes[end] >= '0' && w->bytes[end] <= '9'; end++) {
    }
    size_t power = (size_t)bits[below(w, sizeof bits / sizeof bits[0])];
    uint64_t number = power < 64 ? (uint64_t)1 << power : 0;
    number += (uint64_t)below(w, 3) - 1;
    char text[24];
    int length = snprintf(text, sizeof text, "%llu", (unsigned long long)number);
    replace(w, begin, end - begin, text, (size_t)length);
}

// A binary number of four bytes, at a place where such numbers stand.
static void change_word(struct work *w)
{
    static const uint32_t often[] = {0,          1,           2,           5,          6,
                                     0x7fffffff, 0x80000000u, 0xffffffffu, 0x20000000, 4096};
    if (w->size < 4) {
        return;
    }
    size_t at = below(w, w->size / 4) * 4;
    uint32_t value;
    memcpy(&value, w->bytes + at, sizeof value);
    uint32_t step = (uint32_t)below(w, 9) - 4u;
    value = below(w, 2) != 0 ? often[below(w, sizeof often / sizeof often[0])] : value + step;
    memcpy(w->bytes + at, &value, sizeof value);
}

size_t mutate(uint64_t *state, uint8_t *bytes, size_t size, const struct mutate_input *other)
{
    static void (*const changes[])(struct work *) = {change_byte,   change_byte,  insert_bytes,
                                                     delete_bytes,  delete_bytes, insert_run,
                                                     put_word,      put_word,     copy_part,
                                                     change_number, change_line,  change_word};
    struct work w = {state, bytes, size, other};
    for (size_t left = some_length(&w, 8); left > 0; left--) {
        changes[below(&w, sizeof changes / sizeof changes[0])](&w);
        if (below(&w, 2) != 0) {
            break; // A single change is the most telling one.
        }
    }
    return w.size;
}
