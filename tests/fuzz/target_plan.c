// The decoder of launcher plans: what it takes must be what encoding makes, to the byte.
#include <processmgr/processmgr.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "launcher/launch_plan.h"
#include "launcher/launcher.h"

#define HEAD_SIZE 88 // As src/launcher/launch_plan.c has it; its last field is the size of all.

const struct fuzz_word fuzz_words[] = {
    FUZZ_WORD("pmln"),       FUZZ_WORD("\x01\0\0\0"),           FUZZ_WORD("\x02\0\0\0"),
    FUZZ_WORD("\0\0\0\0"),   FUZZ_WORD("\xff\xff\xff\xff"),     FUZZ_WORD("\xff\xff\xff\x7f"),
    FUZZ_WORD("\0\0\0\x20"), FUZZ_WORD("\x06\0\0\0\x05\0\0\0"), FUZZ_WORD("\0"),
    FUZZ_WORD("/"),          FUZZ_WORD("/bin/x\0x\0"),          FUZZ_WORD("A=1\0"),
    FUZZ_WORDS_END};

static bool lies_in(const char *text, const char *data, size_t size)
{
    uintptr_t at = (uintptr_t)text, begin = (uintptr_t)data;
    return at >= begin && at - begin < size &&
           memchr(text, '\0', size - (size_t)(at - begin)) != NULL;
}

static void check_options(const struct pmi_child_options *options)
{
    uint64_t sum = 0; // Every byte of the arrays can be read.
    FUZZ_CHECK((options->flags & ~(uint32_t)PMI_OPTION_ALL) == 0);
    FUZZ_CHECK(options->umask_value <= 0777);
    FUZZ_CHECK(options->nice_value >= -20 && options->nice_value <= 19);
    FUZZ_CHECK(options->groups_count <= PMI_GROUPS_MAX);
    FUZZ_CHECK(options->limits_count <= PMI_LIMITS_MAX);
    for (uint32_t i = 0; i < options->groups_count; i++) {
        sum += options->groups[i];
    }
    for (uint32_t i = 0; i < options->limits_count; i++) {
        FUZZ_CHECK(options->limits[i].soft <= options->limits[i].hard);
        sum += (uint64_t)options->limits[i].resource;
    }
    volatile uint64_t sink = sum;
    (void)sink;
}

// What the launcher and the stub take for granted.
static void check_daemon(const struct pmi_launch_plan *plan, const char *data, size_t size)
{
    FUZZ_CHECK(lies_in(plan->program, data, size) && plan->program[0] == '/');
    FUZZ_CHECK(plan->cwd == NULL || lies_in(plan->cwd, data, size));
    FUZZ_CHECK(plan->argv[0] != NULL);
    for (size_t i = 0; plan->argv[i] != NULL; i++) {
        FUZZ_CHECK(lies_in(plan->argv[i], data, size));
    }
    for (size_t i = 0; plan->env[i] != NULL; i++) {
        FUZZ_CHECK(lies_in(plan->env[i], data, size));
    }
    FUZZ_CHECK(plan->fds_count <= PMI_LAUNCH_FDS_MAX);
    check_options(&plan->options);
    for (uint32_t i = 0; i < plan->fds_count; i++) {
        FUZZ_CHECK(plan->fds[i].target >= 0 && plan->fds[i].source >= PMI_LAUNCHER_FDS);
        for (uint32_t k = 0; k < plan->fds_count; k++) {
            FUZZ_CHECK(plan->fds[i].source > plan->fds[k].target);
        }
    }
}

static void try_data(const char *data, size_t size)
{
    struct pmi_launch_plan plan, before;
    void *lists = NULL;
    memset(&plan, 0x5a, sizeof plan);
    memcpy(&before, &plan, sizeof before);
    int result = pmi_launch_plan_decode(data, size, &plan, &lists);
    fuzz_note(result == PM_OK);
    if (result != PM_OK) {
        // Lack of memory would be one: what so few bytes ask for is little.
        FUZZ_CHECK(result == PM_ERR_CORRUPT);
        FUZZ_CHECK(lists == NULL && memcmp(&plan, &before, sizeof plan) == 0);
        return;
    }
    FUZZ_CHECK(plan.role == PMI_LAUNCH_DAEMON || plan.role == PMI_LAUNCH_KEEPER);
    FUZZ_CHECK(plan.parent_pid != 0);
    if (plan.role == PMI_LAUNCH_DAEMON) {
        check_daemon(&plan, data, size);
    }
    char *encoded = NULL;
    size_t encoded_size = 0;
    FUZZ_CHECK(pmi_launch_plan_encode(&plan, &encoded, &encoded_size) == PM_OK);
    fuzz_check_same("A plan that was read is written otherwise.", data, size, encoded,
                    encoded_size);
    free(encoded);
    free(lists);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *raw = fuzz_copy(data, size);
    try_data(raw, size);
    if (size >= HEAD_SIZE) { // Once more with the size that it has.
        uint64_t right = size;
        memcpy(raw + HEAD_SIZE - sizeof right, &right, sizeof right);
        try_data(raw, size);
    }
    free(raw);
    return 0;
}
