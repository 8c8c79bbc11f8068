// The parser of the registry's lock file: who wins the registry depends on what it reads there.
#include <processmgr/processmgr.h>
#include <stdlib.h>
#include <string.h>

#include "core/record.h"
#include "fuzz.h"
#include "sealed.h"

const struct fuzz_word fuzz_words[] = {FUZZ_WORD("processmgr-lock 1\n"),
                                       FUZZ_WORD("processmgr-lock 2\n"),
                                       FUZZ_WORD("processmgr-record 1\n"),
                                       FUZZ_WORD("boot=\n"),
                                       FUZZ_WORD("pid=0\n"),
                                       FUZZ_WORD("epoch=1\n"),
                                       FUZZ_WORD("x-later=1\n"),
                                       FUZZ_WORD("x-"),
                                       FUZZ_WORD("\n"),
                                       FUZZ_WORD("="),
                                       FUZZ_WORD("%"),
                                       FUZZ_WORD("%41"),
                                       FUZZ_WORD("%00"),
                                       FUZZ_WORD("18446744073709551615"),
                                       FUZZ_WORD("18446744073709551616"),
                                       FUZZ_WORD("4294967296"),
                                       FUZZ_WORD("crc32=00000000\n"),
                                       FUZZ_WORDS_END};

static void try_text(const char *text, size_t size)
{
    struct pmi_identity owner, before;
    uint64_t epoch = 77;
    memset(&owner, 0x5a, sizeof owner);
    memcpy(&before, &owner, sizeof before);
    int result = pmi_lock_decode(text, size, &owner, &epoch);
    fuzz_note(result == PM_OK);
    if (result != PM_OK) {
        FUZZ_CHECK(result == PM_ERR_CORRUPT);
        FUZZ_CHECK(epoch == 77 && memcmp(&owner, &before, sizeof owner) == 0);
        return;
    }
    FUZZ_CHECK(memchr(owner.boot, '\0', sizeof owner.boot) != NULL && owner.boot[0] != '\0');
    FUZZ_CHECK(owner.pid >= 1 && owner.pid <= 0xffffffffu);
    size_t expected_size, encoded_size = 0;
    char *expected = sealed_canonical(text, size, &expected_size);
    char *encoded = NULL;
    FUZZ_CHECK(pmi_lock_encode(&owner, epoch, &encoded, &encoded_size) == PM_OK);
    fuzz_check_same("A lock file that was read is written otherwise.", expected, expected_size,
                    encoded, encoded_size);
    free(encoded);
    free(expected);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *raw = fuzz_copy(data, size);
    try_text(raw, size);
    size_t repaired_size;
    char *repaired = sealed_repair(raw, size, &repaired_size);
    char *exact = fuzz_copy(repaired, repaired_size);
    try_text(exact, repaired_size);
    free(exact);
    free(repaired);
    free(raw);
    return 0;
}
