// The answer to GET /metrics: the text format of Prometheus, version 0.0.4.
#include <stdio.h>
#include <string.h>

#include "debug/names.h"
#include "debug/server.h"

#define PREFIX "processmgr_"

static void head(struct pmi_text *out, const char *name, const char *type, const char *help)
{
    pmi_text_addf(out, "# HELP " PREFIX "%s %s\n# TYPE " PREFIX "%s %s\n", name, help, name, type);
}

struct metric {
    const char *name, *type, *help;
    uint64_t value;
};

static void single(struct pmi_text *out, const struct metric *m)
{
    head(out, m->name, m->type, m->help);
    pmi_text_addf(out, PREFIX "%s %llu\n", m->name, (unsigned long long)m->value);
}

static void by_mode(struct pmi_text *out, const char *name, const char *type, const char *help,
                    const uint64_t values[3])
{
    head(out, name, type, help);
    for (int i = 0; i < 3; i++) {
        pmi_text_addf(out, PREFIX "%s{mode=\"%s\"} %llu\n", name, pmi_debug_mode((enum pm_mode)i),
                      (unsigned long long)values[i]);
    }
}

static void modes(struct pmi_text *out, const struct pm_stats *s)
{
    uint64_t started[3], recovered[3], exited[3], killed[3], lost[3], live[3];
    for (int i = 0; i < 3; i++) {
        started[i] = s->modes[i].started;
        recovered[i] = s->modes[i].recovered;
        exited[i] = s->modes[i].exited;
        killed[i] = s->modes[i].killed;
        lost[i] = s->modes[i].lost;
        live[i] = s->modes[i].live;
    }
    by_mode(out, "processes_started_total", "counter", "Processes started.", started);
    by_mode(out, "processes_recovered_total", "counter",
            "Daemons of an earlier manager that were found again.", recovered);
    by_mode(out, "processes_exited_total", "counter",
            "Processes that ended by themselves, with an exit code.", exited);
    by_mode(out, "processes_killed_total", "counter",
            "Processes that ended by a signal or by the kill of a stop plan.", killed);
    by_mode(out, "processes_lost_total", "counter",
            "Processes of which nobody can tell how they ended.", lost);
    by_mode(out, "processes_live", "gauge", "Processes that live now.", live);
}

// Microseconds as seconds, exactly.
static void seconds(struct pmi_text *out, uint64_t us)
{
    char text[48];
    int size = snprintf(text, sizeof text, "%llu.%06llu", (unsigned long long)(us / 1000000),
                        (unsigned long long)(us % 1000000));
    while (size > 0 && text[size - 1] == '0') {
        size--;
    }
    pmi_text_add_bytes(out, text, (size_t)(text[size - 1] == '.' ? size - 1 : size));
}

static void histogram(struct pmi_text *out, const char *name, const char *help,
                      const struct pm_histogram *h)
{
    static const uint64_t bounds[] = PM_HISTOGRAM_BOUNDS_US;
    uint64_t sum = 0;
    head(out, name, "histogram", help);
    for (size_t i = 0; i < PM_HISTOGRAM_BUCKETS; i++) {
        sum += h->buckets[i];
        pmi_text_addf(out, PREFIX "%s_bucket{le=\"", name);
        if (i < PM_HISTOGRAM_BUCKETS - 1) {
            seconds(out, bounds[i]);
        } else {
            pmi_text_add(out, "+Inf");
        }
        pmi_text_addf(out, "\"} %llu\n", (unsigned long long)sum);
    }
    pmi_text_addf(out, PREFIX "%s_sum ", name);
    seconds(out, h->sum_us);
    pmi_text_addf(out, "\n" PREFIX "%s_count %llu\n", name, (unsigned long long)h->count);
}

static void singles(struct pmi_text *out, const struct pm_stats *s)
{
    const struct metric all[] = {
        {"zombies_found_total", "counter",
         "Dead children of this program that nobody waits for, each counted once.",
         s->leaked_total},
        {"zombies_reaped_total", "counter", "Of these, waited for by the leak detector.",
         s->leaked_reaped},
        {"zombies", "gauge", "Such children that are there now.", s->leaked_now},
        {"orphans_found_total", "counter",
         "Dead orphans that the system gave to this program, PID 1 or a subreaper.",
         s->orphans_total},
        {"orphans_reaped_total", "counter", "Of these, waited for by the leak detector.",
         s->orphans_reaped},
        {"leak_sweeps_total", "counter", "Sweeps of the leak detector.", s->leak_sweeps},
        {"start_failures_total", "counter", "Starts that failed.", s->start_failures},
        {"stop_failures_total", "counter", "Stops after whose last step something was still there.",
         s->stop_failures},
        {"adopted_total", "counter", "Daemons whose parent this program became.", s->adopted},
        {"exec_retries_total", "counter",
         "Starts tried again because the program was being written to.", s->exec_retries},
        {"fallbacks_total", "counter", "Starts that had to take a poorer mechanism.", s->fallbacks},
        {"registry_failures_total", "counter", "Registry records that could not be written.",
         s->registry_failures},
    };
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        single(out, &all[i]);
    }
}

int pmi_debug_metrics(struct pm_debug_server *server, struct pmi_text *out)
{
    struct pm_stats stats = PM_STATS_INIT;
    int result = pm_stats(server->manager, &stats);
    if (result != PM_OK) {
        return result;
    }
    head(out, "build_info", "gauge", "Always 1; the label tells the version of the library.");
    pmi_text_addf(out, PREFIX "build_info{version=\"%s\"} 1\n", pm_version());
    modes(out, &stats);
    singles(out, &stats);
    histogram(out, "spawn_duration_seconds", "Time from the call of a start to the proof of exec.",
              &stats.spawn_duration);
    histogram(out, "stop_duration_seconds", "Duration of stops of living processes.",
              &stats.stop_duration);
    if (server->options.metrics != NULL) {
        struct pm_debug_metrics metrics = {.out = out};
        server->options.metrics(server->options.user, &metrics);
    }
    return out->failed ? PM_ERR_NO_MEMORY : PM_OK;
}

// ------------------------------------------------------------------------------------------------
// The host's own
// ------------------------------------------------------------------------------------------------

static bool is_name(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:";
    size_t first = strspn(name, letters);
    size_t size = strlen(name);
    return first > 0 && size <= 128 && strncmp(name, PREFIX, strlen(PREFIX)) != 0 &&
           first + strspn(name + first, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:"
                                        "0123456789") ==
               size;
}

PM_DEBUG_API int pm_debug_metrics_add(pm_debug_metrics *out, const char *name,
                                      enum pm_debug_metric_type type, const char *help,
                                      double value)
{
    if (out == NULL || name == NULL || help == NULL || !is_name(name) ||
        (type != PM_DEBUG_COUNTER && type != PM_DEBUG_GAUGE)) {
        return PM_ERR_INVALID;
    }
    pmi_text_addf(out->out, "# HELP %s ", name);
    for (const char *at = help; *at != '\0'; at++) {
        if (*at == '\\') {
            pmi_text_add(out->out, "\\\\");
        } else if (*at == '\n' || *at == '\r') {
            pmi_text_add(out->out, "\\n");
        } else {
            pmi_text_add_bytes(out->out, at, 1);
        }
    }
    pmi_text_addf(out->out, "\n# TYPE %s %s\n%s ", name,
                  type == PM_DEBUG_COUNTER ? "counter" : "gauge", name);
    // Of a whole number all digits; a host may have set another decimal point than this format's.
    char text[64];
    (void)snprintf(text, sizeof text,
                   value > -9e15 && value < 9e15 && value == (double)(int64_t)value ? "%.0f"
                                                                                    : "%.17g",
                   value);
    for (char *at = text; *at != '\0'; at++) {
        *at = *at == ',' ? '.' : *at;
    }
    pmi_text_addf(out->out, "%s\n", text);
    return PM_OK;
}
