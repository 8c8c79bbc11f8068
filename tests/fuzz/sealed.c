#include "sealed.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"

#define SEAL_SIZE 15 // "crc32=" and eight digits and a line end.

// CRC-32 by long division from the highest bit, as the textbook has it: every byte is put in
// mirrored, and the remainder is mirrored at the end.
static uint32_t mirrored(uint32_t value, int bits)
{
    uint32_t result = 0;
    for (int i = 0; i < bits; i++) {
        result |= ((value >> i) & 1u) << (bits - 1 - i);
    }
    return result;
}

static uint32_t checksum(const char *text, size_t size)
{
    uint32_t rest = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        rest ^= mirrored((unsigned char)text[i], 8) << 24;
        for (int bit = 0; bit < 8; bit++) {
            rest = (rest & 0x80000000u) != 0 ? (rest << 1) ^ 0x04c11db7u : rest << 1;
        }
    }
    return mirrored(~rest, 32);
}

// text has room for the seal and a NUL behind `size`.
static size_t add_seal(char *text, size_t size)
{
    (void)snprintf(text + size, SEAL_SIZE + 1, "crc32=%08lx\n",
                   (unsigned long)checksum(text, size));
    return size + SEAL_SIZE;
}

char *sealed_repair(const char *text, size_t size, size_t *ret_size)
{
    if (size >= SEAL_SIZE && memcmp(text + size - SEAL_SIZE, "crc32=", 6) == 0 &&
        text[size - 1] == '\n') {
        size -= SEAL_SIZE;
    }
    char *repaired = fuzz_alloc(size + SEAL_SIZE + 1);
    memcpy(repaired, text, size);
    *ret_size = add_seal(repaired, size);
    return repaired;
}

static unsigned hex(char digit)
{
    return (unsigned)(digit <= '9' ? digit - '0' : digit - 'A' + 10);
}

// One line, with its end, to out; the number of bytes written.
static size_t rewrite_line(const char *line, size_t size, char *out)
{
    size_t written = 0;
    const char *equals = memchr(line, '=', size);
    if (equals == NULL) {
        memcpy(out, line, size);
        return size;
    }
    if (line[0] == 'x' && line[1] == '-') {
        return 0;
    }
    size_t i = (size_t)(equals - line) + 1;
    memcpy(out, line, i);
    written = i;
    while (i + 1 < size) {
        unsigned c = (unsigned char)line[i++];
        if (c == '%' && i + 2 < size) {
            c = hex(line[i]) * 16 + hex(line[i + 1]);
            i += 2;
        }
        if (c > 0x20 && c < 0x7f && c != '%') {
            out[written++] = (char)c;
        } else {
            written += (size_t)snprintf(out + written, 4, "%%%02X", c & 0xffu);
        }
    }
    out[written++] = '\n';
    return written;
}

char *sealed_canonical(const char *text, size_t size, size_t *ret_size)
{
    // No line grows: decoding takes no raw byte that has to be escaped.
    char *result = fuzz_alloc(3 * size + SEAL_SIZE + 1);
    size_t at = 0, written = 0, end = size - SEAL_SIZE;
    while (at < end) {
        const char *line_end = memchr(text + at, '\n', end - at);
        size_t length = line_end != NULL ? (size_t)(line_end - (text + at)) + 1 : end - at;
        written += rewrite_line(text + at, length, result + written);
        at += length;
    }
    *ret_size = add_seal(result, written);
    return result;
}
