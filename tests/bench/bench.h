// What the benchmarks share: samples, percentiles, and the two ways to print a result.
#ifndef PM_BENCH_H
#define PM_BENCH_H

#include <stdbool.h>
#include <stddef.h>

// Microseconds on a clock that does not jump.
double bench_now_us(void);

struct bench_samples {
    double *us;
    size_t count, capacity;
};
void bench_add(struct bench_samples *samples, double us);
void bench_clear(struct bench_samples *samples);
// Sorts the samples. fraction: 0 to 1.
double bench_percentile(struct bench_samples *samples, double fraction);

// One row of the result: printed at once, or kept for bench_print_json().
// parameters: "fds=10 order=before", words of name=value; "" = none.
void bench_row(const char *name, const char *implementation, const char *parameters,
               struct bench_samples *samples);
// The same of samples in another unit than microseconds.
void bench_rate(const char *name, const char *implementation, const char *parameters,
                struct bench_samples *samples, const char *unit);
// The same for a single figure: not microseconds, but `unit`.
void bench_figure(const char *name, const char *implementation, const char *parameters,
                  double value, const char *unit);

// Compares two rows printed before by their p50 (or figures): one line with the ratio and the
// target. at_most = false: the ratio has to be at least the target. target = 0: none.
void bench_ratio(const char *what, const char *name, const char *parameters, const char *ours,
                 const char *theirs, double target, bool at_most);
// The same between two parameter sets of one implementation.
void bench_growth(const char *what, const char *name, const char *implementation,
                  const char *base_parameters, const char *parameters, double target);
// What ours takes more than theirs, by their p50.
void bench_added(const char *what, const char *name, const char *parameters, const char *ours,
                 const char *theirs, double target, const char *unit);
// A figure against a bound of its own, which may be 0.
void bench_bound(const char *what, double value, double target, const char *unit);

// With json = true nothing but one object per row goes to standard output.
void bench_begin(bool json);
// Prints what is left; the number of targets that were missed.
int bench_end(void);

// A program of groups: [--json] [--quick] [GROUP...]
struct bench_group {
    const char *name;
    void (*run)(void);
};
extern int bench_scale; // Divides the number of samples: 1, with --quick 10.
// What the arguments choose. The exit code: 3 when a target was missed, 2 for a wrong argument.
int bench_main(int argc, char **argv, const struct bench_group *groups, size_t count);

#endif
