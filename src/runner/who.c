// Whose a process is: by its record, its parents, the job or control group of a pod, its session,
// and at last by the pipe or terminal that it still shares with one. All of that the kernel keeps;
// what a process says of itself, its name and its environment, is not asked.
#include "runner/who.h"

#include <stdio.h>
#include <string.h>

#include "runner/doctor.h"
#include "runner/known.h"
#include "runner/placement.h"

#define CHAIN_MOST 256

struct search {
    const struct inspect_roots *roots;
    const struct known *known;
    struct inspect_table table;
    const struct inspect_process *target;
    // What was found.
    const struct known_record *record;
    bool runner, certain;
    const char *kind;
    uint64_t child; // Of that session; 0: not known.
    json_t *how;
};

// ------------------------------------------------------------------------------------------------
// Who is who
// ------------------------------------------------------------------------------------------------

static bool is_process(const struct inspect_process *process, uint64_t pid, uint64_t start)
{
    return process->pid == pid && start != 0 && process->start == start;
}

// The record of which this process is, or was, the holder.
static const struct known_record *record_of(const struct search *search,
                                            const struct inspect_process *process)
{
    const struct known_record *found = NULL;
    for (size_t i = 0; i < search->known->records_count; i++) {
        const struct known_record *record = &search->known->records[i];
        if (record->proof != PM_PROOF_NONE && is_process(process, record->pid, record->start)) {
            found = found == NULL || strcmp(record->state, "exited") != 0 ? record : found;
        }
    }
    return found;
}

static bool is_runner(const struct search *search, const struct inspect_process *process)
{
    return search->known->owner_result == PM_OK &&
           is_process(process, search->known->owner.pid, search->known->owner.start);
}

static void add_how(struct search *search, const char *by, bool certain, const char *detail)
{
    (void)json_array_append_new(search->how, json_pack("{s:s, s:b, s:s}", "by", by, "certain",
                                                       certain, "detail", detail));
}

static void found(struct search *search, const struct known_record *record, const char *kind,
                  bool certain)
{
    if (search->kind == NULL) {
        search->record = record;
        search->kind = kind;
        search->certain = certain;
    }
}

// "4711 sleep <- 4700 bash <- ..."
static void add_step(char *text, size_t size, const struct inspect_process *process)
{
    size_t at = strlen(text);
    (void)snprintf(text + at, size - at, "%s%llu %s", at > 0 ? " <- " : "",
                   (unsigned long long)process->pid, process->name);
}

// Climbs from a process to the first holder or runner above it; *ret_steps: how far.
static const struct inspect_process *climb(const struct search *search,
                                           const struct inspect_process *from, char *text,
                                           size_t size, unsigned *ret_steps)
{
    const struct inspect_process *at = from;
    for (unsigned steps = 0; at != NULL && steps < CHAIN_MOST; steps++) {
        if (text != NULL) {
            add_step(text, size, at);
        }
        if (record_of(search, at) != NULL || is_runner(search, at)) {
            *ret_steps = steps;
            return at;
        }
        at = inspect_parent(&search->table, at);
    }
    return NULL;
}

// ------------------------------------------------------------------------------------------------
// The ways
// ------------------------------------------------------------------------------------------------

static void by_parents(struct search *search)
{
    char text[1024] = "";
    unsigned steps = 0;
    const struct inspect_process *top = climb(search, search->target, text, sizeof text, &steps);
    if (top == NULL) {
        return;
    }
    const struct known_record *record = record_of(search, top);
    if (steps == 0) {
        add_how(search, "record", true,
                record != NULL ? "its pid and start time are those of the holder in the registry"
                               : "its pid and start time are those of the owner of the registry");
        found(search, record, record != NULL ? "holder" : "runner", true);
        search->runner = record == NULL;
        return;
    }
    add_how(search, "parents", true, text);
    found(search, record,
          record == NULL ? "child of the runner"
          : steps == 1   ? "child"
                         : "descendant",
          true);
    search->runner = record == NULL;
}

static void by_job(struct search *search)
{
    for (size_t i = 0; i < search->known->records_count; i++) {
        const struct known_record *record = &search->known->records[i];
        if (record->proof == PM_PROOF_ALIVE && record->object != 0 &&
            record->pid != search->target->pid &&
            inspect_in_job(search->target->pid, record->object)) {
            add_how(search, "job", true, "it is in the job of the holder, which its record names");
            found(search, record, "descendant", true);
            return;
        }
    }
}

static bool is_below(const char *path, const char *group)
{
    size_t length = strlen(group);
    return strncmp(path, group, length) == 0 && (path[length] == '\0' || path[length] == '/');
}

static void by_cgroup(struct search *search)
{
    char mine[4096], theirs[4096], text[4200];
    if (!inspect_cgroup(search->roots, search->target->pid, mine)) {
        return;
    }
    for (size_t i = 0; i < search->known->records_count; i++) {
        const struct known_record *record = &search->known->records[i];
        // Only one that was made for the pod says anything.
        if (record->proof == PM_PROOF_ALIVE && record->pid != search->target->pid &&
            inspect_cgroup(search->roots, record->pid, theirs) && placement_is_own(theirs) &&
            is_below(mine, theirs)) {
            (void)snprintf(text, sizeof text, "it is in the pod's own control group %s", theirs);
            add_how(search, "cgroup", true, text);
            found(search, record, "descendant", true);
            return;
        }
    }
}

// Whoever is in a session was born in it: by a member of it that can be told, so can the others.
static void by_session(struct search *search)
{
    char text[1400], chain[1024] = "";
    unsigned steps;
    if (search->target->session == 0) {
        return;
    }
    for (size_t i = 0; i < search->table.count; i++) {
        const struct inspect_process *other = &search->table.list[i];
        if (other == search->target || other->session != search->target->session) {
            continue;
        }
        const struct inspect_process *top = climb(search, other, NULL, 0, &steps);
        const struct known_record *record = top != NULL ? record_of(search, top) : NULL;
        // What the runner starts may share the session of a stranger's shell.
        if (record == NULL) {
            continue;
        }
        (void)climb(search, other, chain, sizeof chain, &steps);
        (void)snprintf(text, sizeof text, "its session %llu is that of %s",
                       (unsigned long long)search->target->session, chain);
        add_how(search, "session", true, text);
        found(search, record, "descendant", true);
        return;
    }
}

static void by_stream(struct search *search)
{
    char what[128], text[256];
    unsigned steps;
    if (search->kind != NULL) {
        return; // It adds nothing to what is certain.
    }
    for (size_t i = 0; i < search->table.count; i++) {
        const struct inspect_process *other = &search->table.list[i];
        const struct inspect_process *top = climb(search, other, NULL, 0, &steps);
        const struct known_record *record = top != NULL ? record_of(search, top) : NULL;
        if (record == NULL || other == search->target ||
            !inspect_shares_stream(search->roots, search->target->pid, other->pid, what)) {
            continue;
        }
        (void)snprintf(text, sizeof text, "it has %s in common with %llu %s", what,
                       (unsigned long long)other->pid, other->name);
        add_how(search, "stream", false, text);
        found(search, record, "probably a descendant", false);
        return;
    }
}

// ------------------------------------------------------------------------------------------------
// The answer
// ------------------------------------------------------------------------------------------------

static json_t *chain_json(const struct search *search)
{
    json_t *chain = json_array();
    const struct inspect_process *at = search->target;
    for (unsigned i = 0; at != NULL && i < CHAIN_MOST; i++) {
        (void)json_array_append_new(chain, json_pack("{s:I, s:s}", "pid", (json_int_t)at->pid,
                                                     "name", at->name));
        at = inspect_parent(&search->table, at);
    }
    return chain;
}

// Which of the holder's children is the session's: it has helpers, too.
static void name_child(const struct runner_env *env, struct known *known, struct search *search)
{
    const struct known_record *record = search->record;
    if (record == NULL || known_ask(env, known, record) != PM_OK ||
        record->answer != KNOWN_ANSWERED) {
        return;
    }
    search->child = record->pod.child_pid;
    if (strcmp(search->kind, "child") == 0 && search->target->pid != search->child) {
        search->kind = "helper of the holder";
    }
}

static json_t *holder_json(const struct search *search)
{
    static const char *const proofs[] = {"none", "alive", "dead", "unproven"};
    const struct known_record *record = search->record;
    if (record == NULL) {
        return json_null();
    }
    return json_pack("{s:I, s:s, s:s, s:o}", "pid", (json_int_t)record->pid, "record",
                     record->state, "proof", proofs[record->proof], "child",
                     search->child != 0 ? json_integer((json_int_t)search->child) : json_null());
}

static json_t *answer(struct search *search)
{
    const struct inspect_process *target = search->target;
    const char *state = target->zombie ? "zombie" : target->stopped ? "stopped" : "running";
    json_t *session = search->record != NULL ? json_string(search->record->id) : json_null();
    return json_pack("{s:I, s:s, s:s, s:I, s:o, s:s, s:b, s:o, s:O, s:o, s:o}", "pid",
                     (json_int_t)target->pid, "name", target->name, "state", state, "parent",
                     (json_int_t)target->parent, "session", session, "kind", search->kind,
                     "certain", search->certain, "holder", holder_json(search), "how", search->how,
                     "chain", chain_json(search), "runner",
                     search->known->owner_result == PM_OK &&
                             search->known->owner.proof == PM_PROOF_ALIVE
                         ? json_integer((json_int_t)search->known->owner.pid)
                         : json_null());
}

static int nobodys(const struct runner_env *env, const struct search *search, uint64_t pid,
                   struct runner_error *error)
{
    unsigned long long number = (unsigned long long)pid;
    char text[24], show[4600], quoted[4400];
    (void)snprintf(text, sizeof text, "%llu", number);
    if (search->target != NULL) {
        return runner_fail(error, RUNNER_NO_SESSION,
                           "process %llu (%s)\nit belongs to no session of '%.200s'\n"
                           "%s",
                           number, search->target->name, env->state_dir,
                           doctor_command(DOCTOR_PROCESS, text, show));
    }
    for (size_t i = 0; i < search->known->records_count; i++) {
        const struct known_record *record = &search->known->records[i];
        if (record->pid == pid && record->id[0] != '\0') {
            return runner_fail(error, RUNNER_NO_SESSION,
                               "process %llu\nthere is none now; the holder of session '%s' had "
                               "this number\nrunner get %s",
                               number, record->id, doctor_id(record->id, quoted));
        }
    }
    return runner_fail(error, RUNNER_NO_SESSION, "process %llu\nthere is none\nrunner list",
                       number);
}

static void look(struct search *search)
{
    by_parents(search);
    if (search->kind == NULL || search->record != NULL) {
        by_job(search);
        by_cgroup(search);
    }
    if (search->kind == NULL || (search->record != NULL && strcmp(search->kind, "holder") != 0)) {
        by_session(search);
    }
    by_stream(search);
}

int runner_who(const struct runner_env *env, const struct inspect_roots *roots, uint64_t pid,
               json_t **ret_who, struct runner_error *error)
{
    struct known known;
    struct search search = {.roots = roots, .known = &known, .how = json_array()};
    int result = known_read(env, &known);
    if (result == PM_OK && (result = inspect_table_read(roots, &search.table)) != PM_OK) {
        known_clear(&known);
    }
    if (result != PM_OK) {
        json_decref(search.how);
        return runner_fail(error, RUNNER_FAILED, "look for process %llu\n%s: %s",
                           (unsigned long long)pid,
                           result == PM_ERR_UNSUPPORTED ? "the process table" : "the state folder",
                           pm_strerror(result));
    }
    int code = RUNNER_OK;
    search.target = inspect_find(&search.table, pid);
    if (search.target != NULL) {
        look(&search);
    }
    if (search.kind != NULL) {
        name_child(env, &known, &search);
        *ret_who = answer(&search);
        code = *ret_who != NULL ? RUNNER_OK
                                : runner_fail(error, RUNNER_FAILED,
                                              "answer\nout of memory, or a name that is "
                                              "no text");
    } else if (known.registry_result != PM_OK && known.registry_result != PM_ERR_NOT_FOUND) {
        code = runner_fail(error, RUNNER_DAMAGED, "registry '%.200s'\n%s\nrunner doctor",
                           known.registry, pm_strerror(known.registry_result));
    } else {
        code = nobodys(env, &search, pid, error);
    }
    json_decref(search.how);
    inspect_table_clear(&search.table);
    known_clear(&known);
    return code;
}
