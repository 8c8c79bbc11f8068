// Sealed texts, the form of records and of the lock file, once more: a plain restatement of what
// src/core/record.h says, to compare its code with.
#ifndef PM_FUZZ_SEALED_H
#define PM_FUZZ_SEALED_H

#include <stddef.h>

// The text with a checksum that fits: a last line that looks like one is replaced, else a line is
// added. Mutations would hardly ever get past the checksum without it. Malloc'd.
char *sealed_repair(const char *text, size_t size, size_t *ret_size);

// What encoding writes for a text that decoding takes: without the lines of later versions, each
// byte escaped exactly where it must be, sealed again. Malloc'd.
char *sealed_canonical(const char *text, size_t size, size_t *ret_size);

#endif
