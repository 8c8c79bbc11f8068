// One small use of each library of the programs.
#ifndef LIBRARIES_H
#define LIBRARIES_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

// Number of times that a timer of a loop went off, or an error of libuv.
int use_libuv(void);

// An object as text, for free().
char *use_jansson(void);

// Serves text once on 127.0.0.1 and fetches it. 0, or the line of libraries.c at which it ended.
int use_microhttpd(const char *text, char *ret_answer, size_t size);

#ifdef __cplusplus
}
#endif

#endif
