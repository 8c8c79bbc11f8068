// The loader of registry records: whatever stands in a file, it is refused with a reason, or it is
// a record that encodes to the same text again.
#include <processmgr/processmgr.h>
#include <stdlib.h>
#include <string.h>

#include "core/record.h"
#include "fuzz.h"
#include "sealed.h"

const struct fuzz_word fuzz_words[] = {FUZZ_WORD("processmgr-record 1\n"),
                                       FUZZ_WORD("processmgr-record 2\n"),
                                       FUZZ_WORD("state=exited\n"),
                                       FUZZ_WORD("state=starting\n"),
                                       FUZZ_WORD("label=\n"),
                                       FUZZ_WORD("label=a%20b\n"),
                                       FUZZ_WORD("x-later=1\n"),
                                       FUZZ_WORD("x-"),
                                       FUZZ_WORD("\n"),
                                       FUZZ_WORD("="),
                                       FUZZ_WORD("%"),
                                       FUZZ_WORD("%00"),
                                       FUZZ_WORD("%7F"),
                                       FUZZ_WORD("%41"),
                                       FUZZ_WORD("%fF"),
                                       FUZZ_WORD("18446744073709551615"),
                                       FUZZ_WORD("18446744073709551616"),
                                       FUZZ_WORD("9223372036854775807"),
                                       FUZZ_WORD("9223372036854775808"),
                                       FUZZ_WORD("4294967295"),
                                       FUZZ_WORD("4294967296"),
                                       FUZZ_WORD("exit-kind=1\n"),
                                       FUZZ_WORD("starter-"),
                                       FUZZ_WORD("crc32=00000000\n"),
                                       FUZZ_WORDS_END};

static void check_text(const char *text, size_t low, size_t high)
{
    FUZZ_CHECK(text != NULL && strlen(text) >= low && strlen(text) <= high);
}

static void check_identity(const struct pmi_identity *id)
{
    FUZZ_CHECK(memchr(id->boot, '\0', sizeof id->boot) != NULL && id->boot[0] != '\0');
    FUZZ_CHECK(id->pid >= 1 && id->pid <= 0xffffffffu);
}

static void check_exit(const struct pm_exit *e)
{
    FUZZ_CHECK(e->kind >= PM_EXIT_EXITED && e->kind <= PM_EXIT_LOST);
    FUZZ_CHECK(e->signal >= 0 && e->stop_step <= PM_STOP_STEPS_MAX);
    FUZZ_CHECK(e->stop_action >= 0 && e->stop_action <= PM_STOP_KILL);
    FUZZ_CHECK(e->size == sizeof *e && e->ended_wall_ms >= 0);
}

// What the rest of the library takes for granted of a record.
static void check_record(const struct pmi_record *r)
{
    check_text(r->key, 1, 128);
    check_text(r->owner, 1, 255);
    check_text(r->program, 1, 32768);
    if (r->label != NULL) {
        check_text(r->label, 0, 1024);
    }
    check_identity(&r->id);
    check_identity(&r->starter);
    FUZZ_CHECK(r->started_wall_ms >= 0);
    FUZZ_CHECK(r->detachment >= 0 && r->detachment <= PM_DETACH_IN_JOB);
    FUZZ_CHECK(r->state >= 0 && r->state <= PMI_RECORD_EXITED);
    if (r->state == PMI_RECORD_EXITED) {
        check_exit(&r->exit);
    }
    char name[PMI_RECORD_NAME_MAX];
    memset(name, 'z', sizeof name);
    pmi_record_file_name(r->key, name);
    size_t length = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.");
    FUZZ_CHECK(length < sizeof name && name[length] == '\0' && strncmp(name, "d-", 2) == 0);
}

static void try_text(const char *text, size_t size)
{
    struct pmi_record record, before;
    const char *problem = NULL;
    memset(&record, 0x5a, sizeof record);
    memcpy(&before, &record, sizeof before);
    int result = pmi_record_decode(text, size, &record, &problem);
    fuzz_note(result == PM_OK);
    if (result != PM_OK) {
        FUZZ_CHECK(result == PM_ERR_CORRUPT && problem != NULL && problem[0] != '\0');
        FUZZ_CHECK(memcmp(&record, &before, sizeof record) == 0);
        return;
    }
    check_record(&record);
    size_t expected_size, encoded_size = 0;
    char *expected = sealed_canonical(text, size, &expected_size);
    char *encoded = NULL;
    result = pmi_record_encode(&record, &encoded, &encoded_size);
    if (expected_size > PMI_RECORD_SIZE_MAX) {
        FUZZ_CHECK(result == PM_ERR_TOO_BIG && encoded == NULL);
    } else {
        FUZZ_CHECK(result == PM_OK);
        fuzz_check_same("A record that was read is written otherwise.", expected, expected_size,
                        encoded, encoded_size);
    }
    free(encoded);
    free(expected);
    pmi_record_clear(&record);
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
