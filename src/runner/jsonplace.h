// Where something stands in a JSON text, which jansson does not tell of keys. Pure.
#ifndef RUNNER_JSONPLACE_H
#define RUNNER_JSONPLACE_H

#include <stddef.h>

struct json_place {
    unsigned line, column; // From 1. Columns count bytes.
};
// A step from a value to one within: of an object by its key, of a list by its place.
struct json_step {
    const char *key; // NULL: `index`.
    size_t index;
};

// The text has to be JSON that was read already. The place of the key for an object's, of the value
// for a list's, of the whole without steps; of the last one that is there if one is missing.
struct json_place json_place_of(const char *text, size_t size, const struct json_step *steps,
                                size_t count);

#endif
