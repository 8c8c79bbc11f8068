// The parser of /proc/PID/stat. The kernel writes the file, but a program chooses its name, and the
// name stands in the middle of it. Parsing is a function of its own (pmi_stat_parse), so nothing
// has to be read here.
#include <processmgr/processmgr.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "identity.h"

const struct fuzz_word fuzz_words[] = {FUZZ_WORD(")"),
                                       FUZZ_WORD("("),
                                       FUZZ_WORD(") "),
                                       FUZZ_WORD(") R 1 2"),
                                       FUZZ_WORD(" 0"),
                                       FUZZ_WORD(" -1"),
                                       FUZZ_WORD(" "),
                                       FUZZ_WORD("\n"),
                                       FUZZ_WORD(" 18446744073709551615"),
                                       FUZZ_WORD(" 18446744073709551616"),
                                       FUZZ_WORD(" 2147483648"),
                                       FUZZ_WORD(" 0 0 0 0 0 0 0 0 0 0"),
                                       FUZZ_WORDS_END};

// Fields 4 to 22 as the manual page has them: one blank, then a decimal number that may be
// negative. 1: all there and as the kernel writes them; 0: not; -1: a number is beyond what this
// can read.
static int read_plainly(const char *text, char *ret_state, long long fields[23])
{
    size_t length = strlen(text), at = length;
    while (at > 0 && text[at - 1] != ')') {
        at--;
    }
    if (at == 0 || at + 2 > length || text[at] != ' ') {
        return 0;
    }
    *ret_state = text[at + 1];
    at += 2;
    for (int i = 4; i <= 22; i++) {
        if (text[at++] != ' ') {
            return 0;
        }
        bool negative = text[at] == '-';
        at += negative;
        int digits = 0;
        long long number = 0;
        for (; text[at] >= '0' && text[at] <= '9'; at++) {
            digits++;
            number = digits <= 18 ? number * 10 + (text[at] - '0') : 0;
        }
        if (digits == 0 || digits > 18) {
            return digits == 0 ? 0 : -1;
        }
        fields[i] = negative ? -number : number;
    }
    return 1;
}

// Behind the name and the state.
static int count_numbers(const char *text)
{
    int count = 0;
    bool inside = false;
    for (const char *c = strrchr(text, ')') + 3; *c != '\0'; c++) {
        bool digit = *c >= '0' && *c <= '9';
        count += digit && !inside;
        inside = digit;
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = fuzz_text(data, size);
    struct pmi_stat s, before;
    memset(&s, 0x5a, sizeof s);
    memcpy(&before, &s, sizeof before);
    int result = pmi_stat_parse(text, &s);
    fuzz_note(result == PM_OK);
    char state = 0;
    long long fields[23] = {0};
    int plain = read_plainly(text, &state, fields);
    if (plain == 1) {
        FUZZ_CHECK(result == PM_OK);
        FUZZ_CHECK(s.state == state);
        FUZZ_CHECK(s.ppid == (pid_t)fields[4]);
        FUZZ_CHECK(s.pgrp == (pid_t)fields[5]);
        FUZZ_CHECK(s.session == (pid_t)fields[6]);
        FUZZ_CHECK(s.flags == (unsigned)fields[9]);
        FUZZ_CHECK(s.num_threads == (long)fields[20]);
        FUZZ_CHECK(s.starttime == (unsigned long long)fields[22]);
    } else if (result == PM_OK) {
        // More is taken than the kernel writes (strtoull reads over white space and a '+'), but
        // never without nineteen numbers behind the name and the state.
        FUZZ_CHECK(count_numbers(text) >= 19);
    } else {
        FUZZ_CHECK(result == PM_ERR_CORRUPT);
        FUZZ_CHECK(memcmp(&s, &before, sizeof s) == 0);
    }
    free(text);
    return 0;
}
