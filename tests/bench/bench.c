#include "bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef _WIN32
#include <windows.h>
#else
#include <time.h>
#endif

struct row {
    char name[48], implementation[32], parameters[64], unit[16];
    double p50, p99;
    size_t n;
};

static struct row *rows;
static size_t rows_count;
static bool as_json;
static char *verdicts;       // Text of the comparisons, printed behind the table.
static int missed, not_here; // Targets.

double bench_now_us(void)
{
#ifdef _WIN32
    LARGE_INTEGER frequency, now;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&now);
    return (double)now.QuadPart * 1e6 / (double)frequency.QuadPart;
#else
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
#endif
}

static void *grown(void *block, size_t size)
{
    void *more = realloc(block, size);
    if (more == NULL) {
        fprintf(stderr, "bench: out of memory\n");
        exit(1);
    }
    return more;
}

void bench_add(struct bench_samples *samples, double us)
{
    if (samples->count == samples->capacity) {
        samples->capacity = samples->capacity != 0 ? samples->capacity * 2 : 256;
        samples->us = grown(samples->us, samples->capacity * sizeof *samples->us);
    }
    samples->us[samples->count++] = us;
}

void bench_clear(struct bench_samples *samples)
{
    free(samples->us);
    memset(samples, 0, sizeof *samples);
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_percentile(struct bench_samples *samples, double fraction)
{
    if (samples->count == 0) {
        return 0;
    }
    qsort(samples->us, samples->count, sizeof *samples->us, compare);
    size_t at = (size_t)((double)samples->count * fraction);
    return samples->us[at < samples->count ? at : samples->count - 1];
}

static void keep(const char *name, const char *implementation, const char *parameters, double p50,
                 double p99, size_t n, const char *unit)
{
    rows = grown(rows, (rows_count + 1) * sizeof *rows);
    struct row *row = &rows[rows_count];
    memset(row, 0, sizeof *row);
    (void)snprintf(row->name, sizeof row->name, "%s", name);
    (void)snprintf(row->implementation, sizeof row->implementation, "%s", implementation);
    (void)snprintf(row->parameters, sizeof row->parameters, "%s", parameters);
    (void)snprintf(row->unit, sizeof row->unit, "%s", unit);
    row->p50 = p50;
    row->p99 = p99;
    row->n = n;
    if (as_json) {
        printf("{\"name\": \"%s\", \"implementation\": \"%s\", \"parameters\": \"%s\", ", row->name,
               row->implementation, row->parameters);
        if (strcmp(unit, "us") == 0 || strcmp(unit, "ms") == 0) {
            double us = unit[0] == 'm' ? 1000 : 1;
            printf("\"p50_us\": %.1f, \"p99_us\": %.1f, ", p50 * us, p99 * us);
        } else { // No time.
            printf("\"unit\": \"%s\", \"p50\": %.1f, \"p99\": %.1f, ", unit, p50, p99);
        }
        printf("\"n\": %zu}\n", n);
    } else {
        if (rows_count == 0 || strcmp(rows[rows_count - 1].name, row->name) != 0) {
            printf("\n%-18s %-20s %-26s %12s %12s %7s\n", "what", "implementation", "parameters",
                   "p50", "p99", "n");
        }
        printf("%-18s %-20s %-26s %9.1f %-2s %9.1f %-2s %7zu\n", row->name, row->implementation,
               row->parameters, p50, unit, p99, unit, n);
    }
    (void)fflush(stdout);
    rows_count++;
}

void bench_row(const char *name, const char *implementation, const char *parameters,
               struct bench_samples *samples)
{
    double p50 = bench_percentile(samples, 0.5);
    keep(name, implementation, parameters, p50, bench_percentile(samples, 0.99), samples->count,
         "us");
    bench_clear(samples);
}

void bench_rate(const char *name, const char *implementation, const char *parameters,
                struct bench_samples *samples, const char *unit)
{
    double p50 = bench_percentile(samples, 0.5);
    keep(name, implementation, parameters, p50, bench_percentile(samples, 0.99), samples->count,
         unit);
    bench_clear(samples);
}

void bench_figure(const char *name, const char *implementation, const char *parameters,
                  double value, const char *unit)
{
    keep(name, implementation, parameters, value, value, 1, unit);
}

static const struct row *find(const char *name, const char *implementation, const char *parameters)
{
    for (size_t i = 0; i < rows_count; i++) {
        if (strcmp(rows[i].name, name) == 0 &&
            strcmp(rows[i].implementation, implementation) == 0 &&
            strcmp(rows[i].parameters, parameters) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

#define NO_TARGET (-1.0)

static void keep_line(const char *line)
{
    size_t old = verdicts != NULL ? strlen(verdicts) : 0;
    verdicts = grown(verdicts, old + strlen(line) + 1);
    strcpy(verdicts + old, line);
}

static void verdict(const char *what, double value, const char *unit, double target, bool at_most)
{
    char line[256], wanted[64] = "";
    bool any = target >= 0, good = !any || (at_most ? value <= target : value >= target);
    if (any) {
        (void)snprintf(wanted, sizeof wanted, "%s %.2f%s  %s", at_most ? "<=" : ">=", target, unit,
                       good ? "ok" : "MISSED");
    }
    missed += !good;
    (void)snprintf(line, sizeof line, "%-66s %8.2f%s  %s\n", what, value, unit, wanted);
    keep_line(line);
}

static void unmeasured(const char *what, double target)
{
    char line[128];
    not_here += target != 0;
    (void)snprintf(line, sizeof line, "%-66s %8s\n", what, "not here");
    keep_line(line);
}

void bench_ratio(const char *what, const char *name, const char *parameters, const char *ours,
                 const char *theirs, double target, bool at_most)
{
    const struct row *a = find(name, ours, parameters);
    const struct row *b = find(name, theirs, parameters);
    if (a != NULL && b != NULL && b->p50 > 0) {
        verdict(what, a->p50 / b->p50, "", target != 0 ? target : NO_TARGET, at_most);
    } else {
        unmeasured(what, target);
    }
}

void bench_growth(const char *what, const char *name, const char *implementation,
                  const char *base_parameters, const char *parameters, double target)
{
    const struct row *a = find(name, implementation, parameters);
    const struct row *b = find(name, implementation, base_parameters);
    if (a != NULL && b != NULL && b->p50 > 0) {
        verdict(what, a->p50 / b->p50, "", target != 0 ? target : NO_TARGET, true);
    } else {
        unmeasured(what, target);
    }
}

void bench_added(const char *what, const char *name, const char *parameters, const char *ours,
                 const char *theirs, double target, const char *unit)
{
    const struct row *a = find(name, ours, parameters);
    const struct row *b = find(name, theirs, parameters);
    if (a != NULL && b != NULL) {
        verdict(what, a->p50 - b->p50, unit, target != 0 ? target : NO_TARGET, true);
    } else {
        unmeasured(what, target);
    }
}

void bench_bound(const char *what, double value, double target, const char *unit)
{
    verdict(what, value, unit, target, true);
}

void bench_begin(bool json)
{
    as_json = json;
}

int bench_end(void)
{
    if (!as_json && verdicts != NULL) {
        printf("\n%-66s %8s  %s\n%s", "ratio of the medians", "", "target", verdicts);
        printf("\n%d target%s missed, %d not here\n", missed, missed == 1 ? "" : "s", not_here);
    }
    free(rows);
    free(verdicts);
    return missed;
}

int bench_scale = 1;

static int usage(const char *program, const struct bench_group *groups, size_t count)
{
    fprintf(stderr, "usage: %s [--json] [--quick] [GROUP...]\ngroups:", program);
    for (size_t g = 0; g < count; g++) {
        fprintf(stderr, " %s", groups[g].name);
    }
    fprintf(stderr, "\n");
    return 2;
}

int bench_main(int argc, char **argv, const struct bench_group *groups, size_t count)
{
    bool json = false, any = false, chosen[32] = {false};
    for (int i = 1; i < argc; i++) {
        size_t g = 0;
        while (g < count && strcmp(argv[i], groups[g].name) != 0) {
            g++;
        }
        if (strcmp(argv[i], "--json") == 0) {
            json = true;
        } else if (strcmp(argv[i], "--quick") == 0) {
            bench_scale = 10;
        } else if (g < count) {
            chosen[g] = any = true;
        } else {
            return usage(argv[0], groups, count);
        }
    }
    bench_begin(json);
    for (size_t g = 0; g < count; g++) {
        if (!any || chosen[g]) {
            groups[g].run();
        }
    }
    return bench_end() == 0 ? 0 : 3;
}
