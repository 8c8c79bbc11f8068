#include "core/record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/strbuf.h"

#define KEY_MAX_BYTES 128
#define TEXT_MAX_BYTES 32768

// ------------------------------------------------------------------------------------------------
// Small parts
// ------------------------------------------------------------------------------------------------

static uint32_t crc32_of(const char *text, size_t size)
{
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        crc ^= (unsigned char)text[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ (0xedb88320u & (0u - (crc & 1u)));
        }
    }
    return ~crc;
}

void pmi_record_file_name(const char *key, char name[PMI_RECORD_NAME_MAX])
{
    uint64_t hash = 0xcbf29ce484222325u; // FNV-1a
    char readable[33];
    size_t length = 0;
    for (const char *c = key; *c != '\0'; c++) {
        hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
        if (length < sizeof readable - 1) {
            bool safe = (*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') || *c == '-';
            bool large = *c >= 'A' && *c <= 'Z';
            readable[length++] = (char)(safe ? *c : large ? *c - 'A' + 'a' : '_');
        }
    }
    readable[length] = '\0';
    (void)snprintf(name, PMI_RECORD_NAME_MAX, "d-%s.%016llx", readable, (unsigned long long)hash);
}

static void add_text(struct pmi_strbuf *sb, const char *name, const char *value)
{
    pmi_strbuf_addf(sb, "%s=", name);
    for (const char *c = value; *c != '\0'; c++) {
        unsigned char u = (unsigned char)*c;
        if (u <= 0x20 || u >= 0x7f || u == '%') {
            pmi_strbuf_addf(sb, "%%%02X", u);
        } else {
            pmi_strbuf_add_char(sb, *c);
        }
    }
    pmi_strbuf_add_char(sb, '\n');
}

static void add_number(struct pmi_strbuf *sb, const char *name, uint64_t value)
{
    pmi_strbuf_addf(sb, "%s=%llu\n", name, (unsigned long long)value);
}

static void add_signed(struct pmi_strbuf *sb, const char *name, int64_t value)
{
    pmi_strbuf_addf(sb, "%s=%lld\n", name, (long long)value);
}

static int seal(struct pmi_strbuf *sb, char **ret_text, size_t *ret_size)
{
    uint32_t crc = sb->failed ? 0 : crc32_of(sb->text, sb->length);
    pmi_strbuf_addf(sb, "crc32=%08lx\n", (unsigned long)crc);
    size_t size = sb->length;
    char *text = pmi_strbuf_take(sb);
    if (text == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    *ret_text = text;
    *ret_size = size;
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Writing
// ------------------------------------------------------------------------------------------------

static void add_identity(struct pmi_strbuf *sb, const char *prefix, const struct pmi_identity *id)
{
    char name[32];
    const struct {
        const char *field;
        uint64_t value;
    } numbers[] = {{"pid", id->pid},
                   {"start", id->start},
                   {"pidns", id->pidns},
                   {"pidfs", id->pidfs}};
    (void)snprintf(name, sizeof name, "%sboot", prefix);
    add_text(sb, name, id->boot);
    for (int i = 0; i < 4; i++) {
        (void)snprintf(name, sizeof name, "%s%s", prefix, numbers[i].field);
        add_number(sb, name, numbers[i].value);
    }
}

static void add_exit(struct pmi_strbuf *sb, const struct pm_exit *e)
{
    add_number(sb, "exit-kind", (uint64_t)e->kind);
    add_number(sb, "exit-code", e->code);
    add_number(sb, "exit-signal", (uint64_t)e->signal);
    add_number(sb, "exit-core", e->core_dumped);
    add_number(sb, "exit-step", e->stop_step);
    add_number(sb, "exit-action", (uint64_t)e->stop_action);
    add_number(sb, "exit-usage-known", e->usage_known);
    add_number(sb, "exit-user-us", e->user_us);
    add_number(sb, "exit-system-us", e->system_us);
    add_number(sb, "exit-max-rss-kib", e->max_rss_kib);
    add_signed(sb, "exit-ended-wall-ms", e->ended_wall_ms);
    add_number(sb, "exit-uptime-ms", e->uptime_ms);
}

// A record that cannot be read again would make its daemon an unknown one.
static int read_back(const char *text, size_t size)
{
    struct pmi_record record;
    const char *problem;
    if (size > PMI_RECORD_SIZE_MAX) {
        return PM_ERR_TOO_BIG;
    }
    int result = pmi_record_decode(text, size, &record, &problem);
    if (result == PM_OK) {
        pmi_record_clear(&record);
    }
    return result == PM_ERR_CORRUPT ? PM_ERR_INVALID : result;
}

int pmi_record_encode(const struct pmi_record *r, char **ret_text, size_t *ret_size)
{
    static const char *const states[] = {"starting", "running", "exited"};
    struct pmi_strbuf sb = PMI_STRBUF_INIT;
    if ((unsigned)r->state > PMI_RECORD_EXITED) {
        return PM_ERR_INVALID;
    }
    pmi_strbuf_addf(&sb, "processmgr-record %d\n", PMI_RECORD_VERSION);
    add_text(&sb, "state", states[r->state]);
    add_text(&sb, "key", r->key);
    add_text(&sb, "owner", r->owner);
    add_text(&sb, "program", r->program);
    if (r->label != NULL) {
        add_text(&sb, "label", r->label);
    }
    add_identity(&sb, "", &r->id);
    add_identity(&sb, "starter-", &r->starter);
    add_number(&sb, "epoch", r->epoch);
    add_signed(&sb, "started-wall-ms", r->started_wall_ms);
    add_number(&sb, "detachment", (uint64_t)r->detachment);
    if (r->state == PMI_RECORD_EXITED) {
        add_exit(&sb, &r->exit);
    }
    char *text = NULL;
    size_t size = 0;
    int result = seal(&sb, &text, &size);
    if (result == PM_OK) {
        result = read_back(text, size);
    }
    if (result != PM_OK) {
        free(text);
        return result;
    }
    *ret_text = text;
    *ret_size = size;
    return PM_OK;
}

int pmi_lock_encode(const struct pmi_identity *owner, uint64_t epoch, char **ret_text,
                    size_t *ret_size)
{
    struct pmi_strbuf sb = PMI_STRBUF_INIT;
    pmi_strbuf_addf(&sb, "processmgr-lock %d\n", PMI_RECORD_VERSION);
    add_identity(&sb, "", owner);
    add_number(&sb, "epoch", epoch);
    return seal(&sb, ret_text, ret_size);
}

// ------------------------------------------------------------------------------------------------
// Reading. A reader stands at the next line; the first problem sticks.
// ------------------------------------------------------------------------------------------------

struct reader {
    const char *at, *end;
    const char *problem;
    bool no_memory;
};

static void fail(struct reader *in, const char *problem)
{
    if (in->problem == NULL) {
        in->problem = problem;
    }
}

// Why a version other than ours cannot be read. `version` is what stands in the first line.
static const char *foreign_version(const char *version, size_t length)
{
#define NEWER(version) "version " #version " is newer than this library knows"
    static const char *const newer[] = {NEWER(2), NEWER(3), NEWER(4), NEWER(5),
                                        NEWER(6), NEWER(7), NEWER(8), NEWER(9)};
#undef NEWER
    if (length == 0 || length > 6 || version[0] == '0') {
        return "the version is damaged";
    }
    for (size_t i = 0; i < length; i++) {
        if (version[i] < '0' || version[i] > '9') {
            return "the version is damaged";
        }
    }
    return length == 1 ? newer[version[0] - '2'] : "its version is newer than this library knows";
}

// Checks the frame: the first line, the checksum, nothing but printable ASCII and line ends.
// `magic` ends with a blank.
static void open_reader(struct reader *in, const char *text, size_t size, const char *magic)
{
    static const size_t tail = sizeof "crc32=00000000\n" - 1;
    memset(in, 0, sizeof *in);
    size_t magic_length = strlen(magic);
    if (size < magic_length || memcmp(text, magic, magic_length) != 0) {
        fail(in, "not a record");
        return;
    }
    // The version comes before the checksum: a later one may seal its records otherwise.
    const char *line_end = memchr(text, '\n', size);
    if (line_end == NULL) {
        fail(in, "torn");
        return;
    }
    size_t version_length = (size_t)(line_end - text) - magic_length;
    if (version_length != 1 || text[magic_length] != '1') {
        fail(in, foreign_version(text + magic_length, version_length));
        return;
    }
    char expected[32];
    if ((size_t)(text + size - (line_end + 1)) < tail) {
        fail(in, "torn");
        return;
    }
    (void)snprintf(expected, sizeof expected, "crc32=%08lx\n",
                   (unsigned long)crc32_of(text, size - tail));
    if (memcmp(text + size - tail, expected, tail) != 0) {
        fail(in, "torn or damaged: the checksum is not right");
        return;
    }
    in->at = line_end + 1;
    in->end = text + size - tail;
    for (const char *c = in->at; c < in->end; c++) {
        if ((*c < 0x20 || *c > 0x7e) && *c != '\n') {
            fail(in, "a byte that is not printable ASCII");
            return;
        }
    }
}

// Whether there is a line, and where it ends. Reads over the lines of later versions.
static bool next_line(struct reader *in, const char **ret_end)
{
    while (in->problem == NULL && in->at < in->end) {
        const char *line_end = memchr(in->at, '\n', (size_t)(in->end - in->at));
        if (line_end == NULL) {
            fail(in, "a line without an end");
            return false;
        }
        size_t length = (size_t)(line_end - in->at);
        if (length <= 2 || in->at[0] != 'x' || in->at[1] != '-' ||
            memchr(in->at, '=', length) == NULL) {
            *ret_end = line_end;
            return true;
        }
        in->at = line_end + 1;
    }
    return false;
}

// The value of the next line if that line has this name.
static bool next_value(struct reader *in, const char *name, const char **ret_value,
                       size_t *ret_size)
{
    const char *line_end;
    size_t name_length = strlen(name);
    if (!next_line(in, &line_end)) {
        return false;
    }
    size_t length = (size_t)(line_end - in->at);
    if (length <= name_length || memcmp(in->at, name, name_length) != 0 ||
        in->at[name_length] != '=') {
        return false;
    }
    *ret_value = in->at + name_length + 1;
    *ret_size = length - name_length - 1;
    in->at = line_end + 1;
    return true;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

// A decoded, malloc'd string of low to high bytes.
static char *read_text(struct reader *in, const char *name, size_t low, size_t high, bool optional)
{
    const char *value;
    size_t size;
    if (!next_value(in, name, &value, &size)) {
        if (!optional) {
            fail(in, "a field is missing or out of order");
        }
        return NULL;
    }
    char *text = malloc(size + 1);
    if (text == NULL) {
        in->no_memory = true;
        fail(in, "");
        return NULL;
    }
    size_t length = 0;
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)value[i];
        if (c == '%') {
            int high_digit = i + 2 < size ? hex_digit(value[i + 1]) : -1;
            int low_digit = high_digit >= 0 ? hex_digit(value[i + 2]) : -1;
            c = (unsigned char)(low_digit >= 0 ? high_digit * 16 + low_digit : 0);
            i += 2;
        } else if (c <= 0x20 || c >= 0x7f) {
            c = 0;
        }
        if (c == 0) { // Never written: an escape cut short, a raw control byte, or %00.
            fail(in, "a text is not escaped as it must be");
            break;
        }
        text[length++] = (char)c;
    }
    text[length] = '\0';
    if (in->problem == NULL && (length < low || length > high)) {
        fail(in, "a text is too short or too long");
    }
    if (in->problem != NULL) {
        free(text);
        return NULL;
    }
    return text;
}

static uint64_t read_number(struct reader *in, const char *name, uint64_t high)
{
    const char *value;
    size_t size;
    if (!next_value(in, name, &value, &size)) {
        fail(in, "a field is missing or out of order");
        return 0;
    }
    uint64_t number = 0;
    bool good = size >= 1 && size <= 20 && (size == 1 || value[0] != '0');
    for (size_t i = 0; i < size && good; i++) {
        uint64_t digit = (uint64_t)(value[i] - '0');
        good = value[i] >= '0' && value[i] <= '9' && number <= (UINT64_MAX - digit) / 10;
        number = good ? number * 10 + digit : 0;
    }
    if (!good || number > high) {
        fail(in, "a number is out of range");
        return 0;
    }
    return number;
}

static int64_t read_signed(struct reader *in, const char *name)
{
    // Wall times: never negative in what we write since 1970.
    return (int64_t)read_number(in, name, INT64_MAX);
}

static void read_identity(struct reader *in, const char *prefix, struct pmi_identity *id)
{
    char name[32];
    (void)snprintf(name, sizeof name, "%sboot", prefix);
    char *boot = read_text(in, name, 1, sizeof id->boot - 1, false);
    if (boot != NULL) {
        (void)snprintf(id->boot, sizeof id->boot, "%s", boot);
        free(boot);
    }
    uint64_t *const numbers[] = {&id->pid, &id->start, &id->pidns, &id->pidfs};
    static const char *const fields[] = {"pid", "start", "pidns", "pidfs"};
    for (int i = 0; i < 4; i++) {
        (void)snprintf(name, sizeof name, "%s%s", prefix, fields[i]);
        *numbers[i] = read_number(in, name, UINT64_MAX);
    }
    if (in->problem == NULL && (id->pid == 0 || id->pid > UINT32_MAX)) {
        fail(in, "a process id is out of range");
    }
}

static void read_exit(struct reader *in, struct pm_exit *e)
{
    e->size = sizeof *e;
    e->kind = (enum pm_exit_kind)read_number(in, "exit-kind", PM_EXIT_LOST);
    e->code = (uint32_t)read_number(in, "exit-code", UINT32_MAX);
    e->signal = (int)read_number(in, "exit-signal", 1024);
    e->core_dumped = read_number(in, "exit-core", 1) != 0;
    e->stop_step = (unsigned)read_number(in, "exit-step", PM_STOP_STEPS_MAX);
    e->stop_action = (enum pm_stop_action)read_number(in, "exit-action", PM_STOP_KILL);
    e->usage_known = read_number(in, "exit-usage-known", 1) != 0;
    e->user_us = read_number(in, "exit-user-us", UINT64_MAX);
    e->system_us = read_number(in, "exit-system-us", UINT64_MAX);
    e->max_rss_kib = read_number(in, "exit-max-rss-kib", UINT64_MAX);
    e->ended_wall_ms = read_signed(in, "exit-ended-wall-ms");
    e->uptime_ms = read_number(in, "exit-uptime-ms", UINT64_MAX);
    if (in->problem == NULL && e->kind == 0) {
        fail(in, "a number is out of range");
    }
}

static enum pmi_record_state read_state(struct reader *in)
{
    static const char *const states[] = {"starting", "running", "exited"};
    char *state = read_text(in, "state", 1, 16, false);
    int found = -1;
    for (int i = 0; state != NULL && i < 3; i++) {
        found = strcmp(state, states[i]) == 0 ? i : found;
    }
    free(state);
    if (found < 0) {
        fail(in, "an unknown state");
        return PMI_RECORD_STARTING;
    }
    return (enum pmi_record_state)found;
}

static void at_end(struct reader *in)
{
    const char *line_end;
    if (next_line(in, &line_end)) {
        fail(in, "an unknown or doubled field");
    }
}

int pmi_record_decode(const char *text, size_t size, struct pmi_record *ret_record,
                      const char **ret_problem)
{
    struct reader in;
    struct pmi_record r;
    memset(&r, 0, sizeof r);
    open_reader(&in, text, size, "processmgr-record ");
    if (in.problem == NULL) {
        r.state = read_state(&in);
        r.key = read_text(&in, "key", 1, KEY_MAX_BYTES, false);
        r.owner = read_text(&in, "owner", 1, 255, false);
        r.program = read_text(&in, "program", 1, TEXT_MAX_BYTES, false);
        r.label = read_text(&in, "label", 0, 1024, true);
        read_identity(&in, "", &r.id);
        read_identity(&in, "starter-", &r.starter);
        r.epoch = read_number(&in, "epoch", UINT64_MAX);
        r.started_wall_ms = read_signed(&in, "started-wall-ms");
        r.detachment = (enum pm_detachment)read_number(&in, "detachment", PM_DETACH_IN_JOB);
        if (r.state == PMI_RECORD_EXITED) {
            read_exit(&in, &r.exit);
            r.exit.started_wall_ms = r.started_wall_ms;
        }
        at_end(&in);
    }
    if (in.problem != NULL) {
        pmi_record_clear(&r);
        *ret_problem = in.problem;
        return in.no_memory ? PM_ERR_NO_MEMORY : PM_ERR_CORRUPT;
    }
    *ret_record = r;
    return PM_OK;
}

void pmi_record_clear(struct pmi_record *r)
{
    free(r->key);
    free(r->owner);
    free(r->program);
    free(r->label);
    r->key = r->owner = r->program = r->label = NULL;
}

int pmi_lock_decode(const char *text, size_t size, struct pmi_identity *ret_owner,
                    uint64_t *ret_epoch)
{
    struct reader in;
    struct pmi_identity owner;
    uint64_t epoch = 0;
    memset(&owner, 0, sizeof owner);
    open_reader(&in, text, size, "processmgr-lock ");
    if (in.problem == NULL) {
        read_identity(&in, "", &owner);
        epoch = read_number(&in, "epoch", UINT64_MAX);
        at_end(&in);
    }
    if (in.problem != NULL) {
        return in.no_memory ? PM_ERR_NO_MEMORY : PM_ERR_CORRUPT;
    }
    *ret_owner = owner;
    *ret_epoch = epoch;
    return PM_OK;
}
