// Which parts of a command line are secrets is a guess. It errs on the side of blotting out.
#include <stdlib.h>
#include <string.h>

#include "debug/server.h"

#define BLOT "***"
#define TOKEN_MIN 20 // Shorter words of letters and digits are names, not tokens.

static const char *const words[] = {"secret",           "token",   "passw",   "passphrase",
                                    "passcode",         "pwd",     "auth",    "credential",
                                    "cookie",           "session", "private", "key",
                                    "signature",        "bearer",  "dsn",     "connection-string",
                                    "connectionstring", NULL};

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static bool is_letter(char c)
{
    return lower(c) >= 'a' && lower(c) <= 'z';
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

// Whether the first `size` bytes of name hold the word, without regard to case.
static bool holds(const char *name, size_t size, const char *word)
{
    size_t length = strlen(word);
    for (size_t i = 0; length > 0 && i + length <= size; i++) {
        size_t k = 0;
        while (k < length && lower(name[i + k]) == word[k]) {
            k++;
        }
        if (k == length) {
            return true;
        }
    }
    return false;
}

static bool is_secret_name(const char *name, size_t size, const char *const *more)
{
    for (size_t i = 0; words[i] != NULL; i++) {
        if (holds(name, size, words[i])) {
            return true;
        }
    }
    for (size_t i = 0; more != NULL && more[i] != NULL; i++) {
        if (holds(name, size, more[i])) {
            return true;
        }
    }
    return false;
}

// A run of letters, digits and what base64 has, with letters and digits both: no word, no path.
static size_t token_length(const char *at)
{
    size_t size = 0;
    bool letters = false, digits = false;
    while (is_letter(at[size]) || is_digit(at[size]) || strchr("+_-=", at[size]) != NULL) {
        if (at[size] == '\0') {
            break;
        }
        letters = letters || is_letter(at[size]);
        digits = digits || is_digit(at[size]);
        size++;
    }
    return letters && digits && size >= TOKEN_MIN ? size : 0;
}

// The user's part of scheme://user:password@host: its length, or 0.
static size_t user_length(const char *at)
{
    size_t end = strcspn(at, "/?#");
    for (size_t i = end; i > 0; i--) {
        if (at[i - 1] == '@') {
            return i - 1;
        }
    }
    return 0;
}

static void add_blotted(struct pmi_text *out, const char *at)
{
    bool inside = false; // Of a word: a token does not begin there.
    while (*at != '\0') {
        size_t skip = 0;
        if (strncmp(at, "://", 3) == 0) {
            pmi_text_add(out, "://");
            at += 3;
            skip = user_length(at);
        } else if (!inside) {
            skip = token_length(at);
        }
        if (skip > 0) {
            pmi_text_add(out, BLOT);
            at += skip;
            continue;
        }
        inside = is_letter(*at) || is_digit(*at);
        if (*at != '\0') {
            pmi_text_add_bytes(out, at, 1);
            at++;
        }
    }
}

char *pmi_redact(const char *argument, const char *const *more_words, bool *ret_skip_next)
{
    struct pmi_text out = {0};
    *ret_skip_next = false;
    // name=value, --name=value, Header: value.
    size_t name = strcspn(argument, "=:");
    bool secret = is_secret_name(argument, name, more_words);
    if (argument[name] != '\0' && argument[name + 1] != '\0' && secret) {
        pmi_text_add_bytes(&out, argument, name + 1);
        pmi_text_add(&out, BLOT);
    } else if (argument[0] == '-' && argument[name] == '\0' &&
               (secret || strcmp(argument, "-u") == 0 || strcmp(argument, "--user") == 0)) {
        pmi_text_add(&out, argument); // The value comes next.
        *ret_skip_next = true;
    } else if (argument[0] == '-' && (argument[1] == 'p' || argument[1] == 'P') &&
               argument[2] != '\0') {
        pmi_text_add_bytes(&out, argument, 2); // -pSECRET of several database clients.
        pmi_text_add(&out, BLOT);
    } else {
        add_blotted(&out, argument);
    }
    pmi_text_add_bytes(&out, "", 1);
    if (out.failed) {
        pmi_text_free(&out);
        return NULL;
    }
    return out.data;
}
