#include "pod/config.h"

#include <stdlib.h>
#include <string.h>

#include "pod/ring.h"

#define ENTRY_HEAD 6u
#define TAG_OPTIONAL 0x8000u

enum kind {
    NUMBER,
    STRING,
    LIST // Several entries of one tag.
};

enum {
    TAG_ARGUMENT = 4,
    TAG_VARIABLE = 5,
    TAG_WAIT = 16
};

struct entry {
    uint16_t tag;
    uint8_t kind;
    uint16_t offset;
    uint32_t low, high, otherwise; // Of numbers. 0 means `otherwise`.
};

#define AT(member) (uint16_t) offsetof(struct pod_config, member)
static const struct entry entries[] = {
    {1, NUMBER, AT(mode), POD_MODE_PTY, POD_MODE_PIPES, 0},
    {2, STRING, AT(owner), 0, 0, 0},
    {3, STRING, AT(program), 0, 0, 0},
    {TAG_ARGUMENT, LIST, AT(argv), 0, 0, 0},
    {TAG_VARIABLE, LIST, AT(env), 0, 0, 0},
    {6, STRING, AT(cwd), 0, 0, 0},
    {7, NUMBER, AT(columns), 1, 32767, 80},
    {8, NUMBER, AT(rows), 1, 32767, 24},
    {9, NUMBER, AT(ring_size), POD_RING_MIN, POD_RING_MAX, POD_RING_DEFAULT},
    {10, NUMBER, AT(err_ring_size), POD_RING_MIN, POD_RING_MAX, 65536},
    {11, NUMBER, AT(grace_ms), 1, 3600000, 5000},
    {12, NUMBER, AT(drain_ms), 1, 60000, 250},
    {13, NUMBER, AT(orphan_s), 0, UINT32_MAX, 0},
    {14, NUMBER, AT(kill_tree), 0, 1, 0},
    {15, NUMBER, AT(on_full), POD_FULL_DROP, POD_FULL_WAIT, 0},
    {TAG_WAIT, NUMBER, AT(wait_s), 1, 86400, 60},
    {17, NUMBER, AT(batch), 0, 1, 0},
};
#define ENTRIES (sizeof entries / sizeof entries[0])

static const struct entry *find_entry(unsigned tag)
{
    for (size_t i = 0; i < ENTRIES; i++) {
        if (entries[i].tag == tag) {
            return &entries[i];
        }
    }
    return NULL;
}

// ------------------------------------------------------------------------------------------------
// Encoding
// ------------------------------------------------------------------------------------------------

struct out {
    uint8_t *bytes; // NULL: only the size is asked for.
    size_t size;
};

static void add(struct out *out, unsigned tag, const void *data, size_t size)
{
    if (out->bytes != NULL) {
        uint8_t *at = out->bytes + out->size;
        at[0] = (uint8_t)tag;
        at[1] = (uint8_t)(tag >> 8);
        for (size_t i = 0; i < 4; i++) {
            at[2 + i] = (uint8_t)(size >> (8 * i));
        }
        memcpy(at + ENTRY_HEAD, data, size);
    }
    out->size += ENTRY_HEAD + size;
}

static void add_list(struct out *out, unsigned tag, const char *const *list)
{
    for (; list != NULL && *list != NULL; list++) {
        add(out, tag, *list, strlen(*list));
    }
}

static void add_entry(struct out *out, const struct pod_config *config, const struct entry *entry)
{
    const void *member = (const char *)config + entry->offset;
    if (entry->kind == LIST) {
        add_list(out, entry->tag, *(const char *const *const *)member);
    } else if (entry->kind == STRING) {
        const char *text = *(const char *const *)member;
        if (text != NULL) {
            add(out, entry->tag, text, strlen(text));
        }
    } else {
        uint32_t number = *(const uint32_t *)member;
        uint8_t bytes[4] = {(uint8_t)number, (uint8_t)(number >> 8), (uint8_t)(number >> 16),
                            (uint8_t)(number >> 24)};
        // A daemon that does not know a tag refuses all: only what counts is said.
        bool counts = entry->tag != TAG_WAIT || config->on_full == POD_FULL_WAIT;
        if (number != 0 && counts) {
            add(out, entry->tag, bytes, sizeof bytes);
        }
    }
}

int pod_config_encode(const struct pod_config *config, uint8_t **ret_bytes, size_t *ret_size)
{
    struct out out = {NULL, 0};
    struct pod_config check;
    unsigned tag;
    for (size_t i = 0; i < ENTRIES; i++) {
        add_entry(&out, config, &entries[i]);
    }
    if (out.size > POD_CONFIG_MAX) {
        return -POD_E_INVALID;
    }
    out.bytes = malloc(out.size + 1);
    if (out.bytes == NULL) {
        return -POD_E_NO_MEMORY;
    }
    out.size = 0;
    for (size_t i = 0; i < ENTRIES; i++) {
        add_entry(&out, config, &entries[i]);
    }
    // Never anything that the other end would refuse.
    int result = pod_config_decode(out.bytes, out.size, &check, &tag);
    if (result < 0) {
        free(out.bytes);
        return result;
    }
    pod_config_clear(&check);
    *ret_bytes = out.bytes;
    *ret_size = out.size;
    return 0;
}

// ------------------------------------------------------------------------------------------------
// Decoding: one pass that checks and counts, one that fills a single block of memory
// ------------------------------------------------------------------------------------------------

struct in {
    const uint8_t *at, *end;
    unsigned tag;
    const uint8_t *data;
    size_t size;
};

// 1: an entry; 0: the end.
static int next_entry(struct in *in)
{
    size_t left = (size_t)(in->end - in->at);
    if (left == 0) {
        return 0;
    }
    if (left < ENTRY_HEAD) {
        return -POD_E_PROTOCOL;
    }
    in->tag = (unsigned)(in->at[0] | in->at[1] << 8);
    in->size = (size_t)in->at[2] | (size_t)in->at[3] << 8 | (size_t)in->at[4] << 16 |
               (size_t)in->at[5] << 24;
    if (in->size > left - ENTRY_HEAD) {
        return -POD_E_PROTOCOL;
    }
    in->data = in->at + ENTRY_HEAD;
    in->at = in->data + in->size;
    return 1;
}

struct needs {
    size_t text, arguments, variables;
    bool seen[ENTRIES];
};

static int check_entry(const struct in *in, struct needs *needs)
{
    const struct entry *entry = find_entry(in->tag);
    if (entry == NULL) {
        return in->tag >= TAG_OPTIONAL ? 0 : -POD_E_UNSUPPORTED;
    }
    bool *seen = &needs->seen[entry - entries];
    if (*seen && entry->kind != LIST) {
        return -POD_E_PROTOCOL;
    }
    *seen = true;
    if (entry->kind == NUMBER) {
        return in->size == 4 ? 0 : -POD_E_PROTOCOL;
    }
    if (memchr(in->data, '\0', in->size) != NULL) {
        return -POD_E_INVALID;
    }
    needs->text += in->size + 1;
    needs->arguments += in->tag == TAG_ARGUMENT;
    needs->variables += in->tag == TAG_VARIABLE;
    return 0;
}

static int fill_number(struct pod_config *config, const struct entry *entry, uint32_t value)
{
    if (value == 0) {
        value = entry->otherwise;
    }
    if (value < entry->low || value > entry->high) {
        return -POD_E_INVALID;
    }
    *(uint32_t *)(void *)((char *)config + entry->offset) = value;
    return 0;
}

struct fill {
    const char **argument, **variable;
    char *text;
};

static int fill_entry(struct pod_config *config, const struct in *in, struct fill *fill)
{
    const struct entry *entry = find_entry(in->tag);
    if (entry == NULL) {
        return 0;
    }
    if (entry->kind == NUMBER) {
        return fill_number(config, entry,
                           (uint32_t)in->data[0] | (uint32_t)in->data[1] << 8 |
                               (uint32_t)in->data[2] << 16 | (uint32_t)in->data[3] << 24);
    }
    memcpy(fill->text, in->data, in->size);
    fill->text[in->size] = '\0';
    if (in->tag == TAG_ARGUMENT) {
        *fill->argument++ = fill->text;
    } else if (in->tag == TAG_VARIABLE) {
        *fill->variable++ = fill->text;
    } else {
        *(const char **)(void *)((char *)config + entry->offset) = fill->text;
    }
    fill->text += in->size + 1;
    return 0;
}

static int fill_config(struct in in, const struct needs *needs, struct pod_config *config,
                       unsigned *ret_tag)
{
    const char **lists = config->memory;
    struct fill fill = {.argument = lists, .variable = lists + needs->arguments + 1};
    fill.text = (char *)(lists + needs->arguments + needs->variables + 2);
    for (size_t i = 0; i < ENTRIES; i++) { // Those that are not in it.
        if (entries[i].kind == NUMBER) {
            *(uint32_t *)(void *)((char *)config + entries[i].offset) = entries[i].otherwise;
        }
    }
    while (next_entry(&in) > 0) {
        int result = fill_entry(config, &in, &fill);
        if (result < 0) {
            *ret_tag = in.tag;
            return result;
        }
    }
    *fill.argument = NULL;
    *fill.variable = NULL;
    config->argv = needs->arguments > 0 ? lists : NULL;
    config->env = lists + needs->arguments + 1;
    bool complete = config->mode != 0 && config->program != NULL && config->cwd != NULL;
    return complete ? 0 : -POD_E_INVALID;
}

int pod_config_decode(const uint8_t *bytes, size_t size, struct pod_config *ret_config,
                      unsigned *ret_tag)
{
    struct in in = {.at = bytes, .end = size > 0 ? bytes + size : bytes};
    const struct in begin = in;
    struct needs needs = {.text = 0};
    struct pod_config config = {.mode = 0};
    int more, result = 0;
    *ret_tag = 0;
    while (result == 0 && (more = next_entry(&in)) != 0) {
        result = more < 0 ? more : check_entry(&in, &needs);
    }
    if (result < 0) {
        *ret_tag = in.tag;
        return result;
    }
    config.memory =
        malloc((needs.arguments + needs.variables + 2) * sizeof(char *) + needs.text + 1);
    if (config.memory == NULL) {
        return -POD_E_NO_MEMORY;
    }
    result = fill_config(begin, &needs, &config, ret_tag);
    if (result < 0) {
        free(config.memory);
        return result;
    }
    *ret_config = config;
    return 0;
}

void pod_config_clear(struct pod_config *config)
{
    free(config->memory);
    *config = (struct pod_config){.mode = 0};
}
