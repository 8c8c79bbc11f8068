// The answer to GET /debug/processes as JSON. One process at a time is built by jansson and
// printed, so ten thousand of them need no tree of their own, and nothing is held while that goes
// on.
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "debug/names.h"
#include "debug/server.h"

#define ARGUMENTS_MAX 4096

struct listing {
    struct pm_debug_server *server;
    struct pmi_text *out;
    size_t count;
    bool truncated;
};

static int append(const char *buffer, size_t size, void *out)
{
    pmi_text_add_bytes(out, buffer, size);
    return ((struct pmi_text *)out)->failed ? -1 : 0;
}

// Takes the value.
static void print(struct pmi_text *out, json_t *value)
{
    if (value == NULL ||
        json_dump_callback(value, append, out,
                           JSON_COMPACT | JSON_ENSURE_ASCII | JSON_ENCODE_ANY) != 0) {
        out->failed = true;
    }
    json_decref(value);
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

// Text from outside: whatever its bytes, it becomes a JSON string.
static json_t *text(const char *bytes)
{
    if (bytes == NULL) {
        return json_null();
    }
    char *utf8 = pmi_text_as_utf8(bytes);
    json_t *value = utf8 != NULL ? json_string(utf8) : NULL;
    free(utf8);
    return value;
}

// ------------------------------------------------------------------------------------------------
// One process
// ------------------------------------------------------------------------------------------------

static json_t *arguments_of(const struct pm_debug_server *server, pm_process *process)
{
    char buffer[ARGUMENTS_MAX + 1];
    size_t size = 0;
    int result = pmi_debug_arguments(pm_process_pid(process), buffer, ARGUMENTS_MAX, &size);
    // It lives still: then the number was its own.
    if (result != PM_OK || !pm_process_alive(process)) {
        return json_null();
    }
    buffer[size] = '\0';
    json_t *list = json_array();
    bool skip = false;
    for (size_t at = 0; at < size; at += strlen(buffer + at) + 1) {
        bool skip_next = false;
        char *shown =
            pmi_redact(buffer + at, (const char *const *)server->secret_words, &skip_next);
        (void)json_array_append_new(list, text(skip ? "***" : shown != NULL ? shown : "***"));
        free(shown);
        skip = skip_next;
    }
    return list;
}

static json_t *streams_of(const struct pm_info *info)
{
    json_t *list = json_array();
    for (int i = 0; i < 3; i++) {
        const struct pm_stream_info *s = &info->streams[i];
        (void)json_array_append_new(list,
                                    json_pack("{s:s, s:b, s:b}", "kind", pmi_debug_stdio(s->kind),
                                              "open", s->open, "truncated", s->truncated));
    }
    return list;
}

static void set(json_t *object, const char *key, json_t *value)
{
    (void)json_object_set_new_nocheck(object, key, value);
}

static json_t *fallbacks_of(uint32_t bits)
{
    json_t *list = json_array();
    for (unsigned bit = 0; list != NULL && bit < 32; bit++) {
        if ((bits >> bit & 1) != 0) {
            (void)json_array_append_new(list, json_string(
                                                  pm_fallback_name((enum pm_fallback)(1U << bit))));
        }
    }
    return list;
}

static json_t *describe(const struct pm_debug_server *server, pm_process *process)
{
    struct pm_info info = PM_INFO_INIT;
    json_t *object = json_object();
    if (object == NULL || pm_process_info(process, &info) != PM_OK) {
        return object;
    }
    set(object, "id", number(info.id));
    set(object, "pid", number(info.pid));
    set(object, "parent", number(pm_process_parent(process)));
    set(object, "owner", text(info.owner));
    set(object, "key", text(info.key));
    set(object, "program", text(info.program));
    set(object, "mode", json_string(pmi_debug_mode(info.mode)));
    set(object, "state", json_string(pmi_debug_state(info.state)));
    set(object, "alive", json_boolean(info.alive));
    set(object, "started_ms", json_integer((json_int_t)info.started_wall_ms));
    set(object, "uptime_ms", number(info.uptime_ms));
    set(object, "containment", json_string(pmi_debug_containment(info.containment)));
    set(object, "detachment", json_string(pmi_debug_detachment(info.detachment)));
    set(object, "die_with_parent", json_boolean(info.die_with_parent));
    set(object, "recovered", json_boolean(info.recovered));
    set(object, "adopted", json_boolean(info.adopted));
    set(object, "best_effort", json_boolean(info.best_effort));
    set(object, "fallbacks", fallbacks_of(info.fallbacks));
    set(object, "streams", streams_of(&info));
    if (server->options.show_arguments) {
        set(object, "arguments", arguments_of(server, process));
    }
    return object;
}

static int visit(void *user, pm_process *process)
{
    struct listing *listing = user;
    if (listing->count == listing->server->options.max_processes) {
        listing->truncated = true;
        return 1;
    }
    if (listing->count++ > 0) {
        pmi_text_add(listing->out, ",\n");
    }
    print(listing->out, describe(listing->server, process));
    return listing->out->failed ? 1 : 0;
}

// ------------------------------------------------------------------------------------------------
// The counters
// ------------------------------------------------------------------------------------------------

static json_t *counters(const struct pm_stats *s)
{
    const struct {
        const char *name;
        uint64_t value;
    } all[] = {
        {"started", s->started},
        {"start_failures", s->start_failures},
        {"ended", s->ended},
        {"lost", s->lost},
        {"live", s->running},
        {"recovered", s->recovered},
        {"adopted", s->adopted},
        {"exec_retries", s->exec_retries},
        {"fallbacks", s->fallbacks},
        {"registry_failures", s->registry_failures},
        {"stop_failures", s->stop_failures},
        {"leak_sweeps", s->leak_sweeps},
        {"zombies_now", s->leaked_now},
        {"zombies_found", s->leaked_total},
        {"zombies_reaped", s->leaked_reaped},
        {"zombie_pid", s->leaked_pid},
        {"orphans_found", s->orphans_total},
        {"orphans_reaped", s->orphans_reaped},
    };
    json_t *object = json_object();
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        set(object, all[i].name, number(all[i].value));
    }
    set(object, "fallback_kinds", fallbacks_of(s->fallback_kinds));
    return object;
}

static json_t *modes(const struct pm_stats *s)
{
    json_t *object = json_object();
    for (int i = 0; i < 3; i++) {
        const struct pm_mode_stats *m = &s->modes[i];
        json_t *mode = json_object();
        set(mode, "started", number(m->started));
        set(mode, "recovered", number(m->recovered));
        set(mode, "exited", number(m->exited));
        set(mode, "killed", number(m->killed));
        set(mode, "lost", number(m->lost));
        set(mode, "live", number(m->live));
        set(object, pmi_debug_mode((enum pm_mode)i), mode);
    }
    return object;
}

static json_t *histogram(const struct pm_histogram *h)
{
    static const uint64_t bounds[] = PM_HISTOGRAM_BOUNDS_US;
    json_t *upper = json_array(), *buckets = json_array(), *object = json_object();
    for (size_t i = 0; i < PM_HISTOGRAM_BUCKETS; i++) {
        if (i < PM_HISTOGRAM_BUCKETS - 1) {
            (void)json_array_append_new(upper, number(bounds[i]));
        }
        (void)json_array_append_new(buckets, number(h->buckets[i]));
    }
    set(object, "bounds_us", upper);
    set(object, "buckets", buckets);
    set(object, "count", number(h->count));
    set(object, "sum_us", number(h->sum_us));
    return object;
}

static void add_member(struct pmi_text *out, const char *name, json_t *value)
{
    pmi_text_addf(out, ",\n\"%s\":", name);
    print(out, value);
}

int pmi_debug_processes(struct pm_debug_server *server, struct pmi_text *out)
{
    struct pm_stats stats = PM_STATS_INIT;
    struct listing listing = {.server = server, .out = out};
    int result = pm_stats(server->manager, &stats);
    if (result != PM_OK) {
        return result;
    }
    pmi_text_addf(out, "{\"version\":\"%s\"", pm_version());
    add_member(out, "title", text(server->title));
    add_member(out, "pid", number(server->pid));
    add_member(out, "time_ms", json_integer((json_int_t)pmi_debug_wall_ms()));
    add_member(out, "counters", counters(&stats));
    add_member(out, "modes", modes(&stats));
    add_member(out, "spawn_duration", histogram(&stats.spawn_duration));
    add_member(out, "stop_duration", histogram(&stats.stop_duration));
    pmi_text_add(out, ",\n\"processes\":[\n");
    result = pm_list(server->manager, visit, &listing);
    pmi_text_addf(out, "],\n\"count\":%llu,\n\"truncated\":%s}\n",
                  (unsigned long long)listing.count, listing.truncated ? "true" : "false");
    if (out->failed) {
        return PM_ERR_NO_MEMORY;
    }
    return result < 0 ? result : PM_OK;
}
