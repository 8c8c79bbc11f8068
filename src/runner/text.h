// Texts from outside, whose bytes need be no UTF-8, or that were cut in the middle of a letter:
// JSON takes neither.
#ifndef RUNNER_TEXT_H
#define RUNNER_TEXT_H

#include <jansson.h>

// Bytes of the letter there; 0: it is none. A NUL stands behind the text.
size_t text_letter(const char *at);
// What is none becomes '?', and a last one that was cut goes.
void text_mend(char *text);
// A string, mended where it has to be. NULL: no memory.
json_t *text_json(const char *text);

#endif
