// Runs a fuzz target without libFuzzer, with any compiler: first all files of the corpus, then
// random changes of them.
//
//   fuzz_TARGET [--seconds N] [--seed N] [--corpus FOLDER] [--input FILE] [FILE...]
//
// With files, these are run and nothing else. Each input is in a file (--input) before it is run,
// and stays there when the program crashes: run it again with that file. Also understands as much
// of GoogleTest's options as ci/test needs: one case for the corpus, one for the changes.
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include "fuzz.h"
#include "mutate.h"

#define POOL_MAX 1024 // Of inputs to go on from. Files of the corpus come first and stay.
#define POOL_GROWN 256

struct driver {
    const char *corpus, *input_path, *report_path, *filter;
    double seconds;
    uint64_t seed, state;
    FILE *input;
    size_t input_size; // Of the file.
    struct mutate_input pool[POOL_MAX];
    char *names[POOL_MAX];
    size_t files, pool_size;
};

static double now(void)
{
    struct timeval t;
    (void)gettimeofday(&t, NULL);
    return (double)t.tv_sec + (double)t.tv_usec * 1e-6;
}

// ------------------------------------------------------------------------------------------------
// One input
// ------------------------------------------------------------------------------------------------

// The kernel has it when this returns, so no end of the program can lose it.
static void save(struct driver *d, const uint8_t *bytes, size_t size)
{
    rewind(d->input);
    bool good = size == 0 || fwrite(bytes, 1, size, d->input) == size;
    if (good && size < d->input_size) {
        good = ftruncate(fileno(d->input), (off_t)size) == 0;
    }
    d->input_size = size;
    if (!good) {
        perror(d->input_path);
        exit(2);
    }
}

static void run_input(struct driver *d, const uint8_t *bytes, size_t size)
{
    save(d, bytes, size);
    uint8_t *exact = fuzz_copy(bytes, size);
    (void)LLVMFuzzerTestOneInput(exact, size);
    free(exact);
}

// A whole file, or nothing.
static bool load(const char *path, struct mutate_input *ret_input)
{
    static uint8_t bytes[1 << 20];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return false;
    }
    size_t size = fread(bytes, 1, sizeof bytes, file);
    bool good = ferror(file) == 0 && size < sizeof bytes;
    (void)fclose(file);
    if (good) {
        ret_input->bytes = fuzz_copy(bytes, size);
        ret_input->size = size;
    }
    return good;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// Reads the corpus, by name, so that a seed means the same everywhere.
static bool load_corpus(struct driver *d)
{
    DIR *folder = opendir(d->corpus);
    struct dirent *entry;
    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] != '.' && d->files < POOL_MAX - POOL_GROWN) {
            d->names[d->files++] = fuzz_text(entry->d_name, strlen(entry->d_name));
        }
    }
    if (folder != NULL) {
        (void)closedir(folder);
    }
    qsort(d->names, d->files, sizeof d->names[0], by_name);
    for (; d->pool_size < d->files; d->pool_size++) {
        char path[4096];
        (void)snprintf(path, sizeof path, "%s/%s", d->corpus, d->names[d->pool_size]);
        if (!load(path, &d->pool[d->pool_size])) {
            printf("cannot be read: %s\n", path);
            return false;
        }
    }
    return d->files > 0;
}

// ------------------------------------------------------------------------------------------------
// The two cases
// ------------------------------------------------------------------------------------------------

// NULL, or what is wrong.
static const char *run_corpus(struct driver *d)
{
    for (size_t i = 0; i < d->files; i++) {
        run_input(d, d->pool[i].bytes, d->pool[i].size);
    }
    printf("%lu files; taken %llu, refused %llu\n", (unsigned long)d->files, fuzz_notes.taken,
           fuzz_notes.refused);
    // A corpus that ends at the first check of the tested code would test nothing.
    return fuzz_notes.taken == 0 || fuzz_notes.refused == 0
               ? "the corpus has to have inputs that are taken and inputs that are refused"
               : NULL;
}

// What was taken is gone on from: a place of the pool behind the files.
static void keep(struct driver *d, const uint8_t *bytes, size_t size)
{
    size_t at = d->pool_size;
    if (d->pool_size < d->files + POOL_GROWN) {
        d->pool_size++;
    } else {
        at = d->files + (size_t)(mutate_random(&d->state) % POOL_GROWN);
        free(d->pool[at].bytes);
    }
    d->pool[at].bytes = fuzz_copy(bytes, size);
    d->pool[at].size = size;
}

// Half of the time a file, else what has grown from them, which strays away from what is telling.
static const struct mutate_input *any_input(struct driver *d)
{
    uint64_t n = mutate_random(&d->state) >> 16;
    size_t grown = d->pool_size - d->files;
    bool file = grown == 0 || (n >> 32) % 2 != 0;
    return &d->pool[file ? n % d->files : d->files + n % grown];
}

static const char *run_changes(struct driver *d)
{
    uint8_t bytes[MUTATE_SIZE_MAX];
    unsigned long long rounds = 0, total_size = 0;
    double begin = now(), end = begin + d->seconds, at = begin;
    fuzz_notes = (struct fuzz_notes){0, 0};
    while (at < end) {
        const struct mutate_input *from = any_input(d);
        size_t size = from->size < sizeof bytes ? from->size : sizeof bytes;
        memcpy(bytes, from->bytes, size);
        size = mutate(&d->state, bytes, size, any_input(d));
        unsigned long long taken = fuzz_notes.taken;
        run_input(d, bytes, size);
        if (fuzz_notes.taken > taken && mutate_random(&d->state) % 8 == 0) {
            keep(d, bytes, size);
        }
        rounds++;
        total_size += size;
        at = rounds % 16 == 0 ? now() : at;
    }
    printf("seed %llu: %llu rounds in %.1f s, %.0f a second; %.0f bytes on average; "
           "taken %llu, refused %llu\n",
           (unsigned long long)d->seed, rounds, at - begin, (double)rounds / (at - begin + 1e-9),
           (double)total_size / (double)(rounds + (rounds == 0)), fuzz_notes.taken,
           fuzz_notes.refused);
    return NULL;
}

// ------------------------------------------------------------------------------------------------
// As a test program
// ------------------------------------------------------------------------------------------------

// One pattern of a filter, text[0..length): '*' is anything, '?' any character.
static bool matches(const char *pattern, size_t length, const char *name)
{
    if (length == 0) {
        return *name == '\0';
    }
    if (*pattern == '*') {
        return matches(pattern + 1, length - 1, name) ||
               (*name != '\0' && matches(pattern, length, name + 1));
    }
    return *name != '\0' && (*pattern == '?' || *pattern == *name) &&
           matches(pattern + 1, length - 1, name + 1);
}

// "A:B-C:D": A or B, but neither C nor D.
static bool is_selected(const char *filter, const char *name)
{
    bool negative = filter[0] == '-', wanted = negative, refused = false;
    for (const char *at = filter + negative;;) {
        size_t length = strcspn(at, negative ? ":" : ":-");
        bool *result = negative ? &refused : &wanted;
        *result = *result || matches(at, length, name);
        if (at[length] == '\0') {
            return wanted && !refused;
        }
        negative = negative || at[length] == '-';
        at += length + 1;
    }
}

struct result {
    const char *name, *problem;
};

// The texts in it are our own: nothing has to be escaped.
static void write_report(const char *path, const struct result *results, int count)
{
    FILE *file = fopen(path, "w");
    int failures = 0;
    if (file == NULL) {
        perror(path);
        exit(2);
    }
    for (int i = 0; i < count; i++) {
        failures += results[i].problem != NULL;
    }
    (void)fprintf(file,
                  "{\"tests\": %d, \"failures\": %d, \"testsuites\": [{\"name\": \"%s\", "
                  "\"testsuite\": [",
                  count, failures, FUZZ_SUITE);
    for (int i = 0; i < count; i++) {
        (void)fprintf(file, "%s{\"name\": \"%s\", \"status\": \"RUN\", \"result\": \"COMPLETED\"",
                      i > 0 ? ", " : "", results[i].name);
        if (results[i].problem != NULL) {
            (void)fprintf(file, ", \"failures\": [{\"failure\": \"%s\"}]", results[i].problem);
        }
        (void)fprintf(file, "}");
    }
    (void)fprintf(file, "]}]}\n");
    (void)fclose(file);
}

static int run_cases(struct driver *d)
{
    static const struct {
        const char *name;
        const char *(*run)(struct driver *);
    } cases[] = {{"CorpusIsHandled", run_corpus}, {"ChangesOfItAreHandled", run_changes}};
    struct result results[2];
    int count = 0, failed = 0;
    bool loaded = load_corpus(d);
    for (int i = 0; i < 2; i++) {
        char full[256];
        (void)snprintf(full, sizeof full, "%s.%s", FUZZ_SUITE, cases[i].name);
        if (!is_selected(d->filter, full)) {
            continue;
        }
        printf("[ RUN      ] %s\n", full);
        const char *problem = loaded ? cases[i].run(d) : "there is no corpus";
        if (problem != NULL) {
            printf("%s\n", problem);
            failed++;
        }
        printf("[%s] %s\n", problem != NULL ? "  FAILED  " : "       OK ", full);
        results[count++] = (struct result){cases[i].name, problem};
    }
    if (d->report_path != NULL) {
        write_report(d->report_path, results, count);
    }
    return failed > 0;
}

// ------------------------------------------------------------------------------------------------

// Options; returns the index of the first file, or -1.
static int read_options(struct driver *d, int argc, char **argv)
{
    static const char json[] = "--gtest_output=json:", filter[] = "--gtest_filter=";
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        const char *option = argv[i];
        if (strncmp(option, json, sizeof json - 1) == 0) {
            d->report_path = option + sizeof json - 1;
        } else if (strncmp(option, filter, sizeof filter - 1) == 0) {
            d->filter = option + sizeof filter - 1;
        } else if (i + 1 == argc) {
            return -1;
        } else if (strcmp(option, "--seconds") == 0) {
            d->seconds = strtod(argv[++i], NULL);
        } else if (strcmp(option, "--seed") == 0) {
            d->seed = strtoull(argv[++i], NULL, 0);
        } else if (strcmp(option, "--corpus") == 0) {
            d->corpus = argv[++i];
        } else if (strcmp(option, "--input") == 0) {
            d->input_path = argv[++i];
        } else {
            return -1;
        }
    }
    return i;
}

static int run_files(int count, char **paths)
{
    for (int i = 0; i < count; i++) {
        struct mutate_input input;
        if (!load(paths[i], &input)) {
            perror(paths[i]);
            return 2;
        }
        printf("%s: %lu bytes\n", paths[i], (unsigned long)input.size);
        (void)LLVMFuzzerTestOneInput(input.bytes, input.size);
        free(input.bytes);
    }
    printf("taken %llu, refused %llu\n", fuzz_notes.taken, fuzz_notes.refused);
    return 0;
}

static void clear(struct driver *d)
{
    for (size_t i = 0; i < d->pool_size; i++) {
        free(d->pool[i].bytes);
    }
    for (size_t i = 0; i < d->files; i++) {
        free(d->names[i]);
    }
}

int main(int argc, char **argv)
{
    struct mutate_input left;
    static struct driver d = {.corpus = FUZZ_CORPUS, .input_path = FUZZ_INPUT, .filter = "*"};
    d.seconds = 3;
    d.seed = 1;
    // What was printed before a crash is to be seen.
    (void)setvbuf(stdout, NULL, _IONBF, 0);
    int first = read_options(&d, argc, argv);
    if (first < 0) {
        (void)fprintf(stderr,
                      "usage: %s [--seconds N] [--seed N] [--corpus FOLDER] "
                      "[--input FILE] [FILE...]\n",
                      argv[0]);
        return 2;
    }
    if (first < argc) {
        return run_files(argc - first, argv + first);
    }
    d.state = d.seed * 0x9e3779b97f4a7c15u + 1; // Neighbouring seeds give other numbers.
    d.state += d.state == 0;
    if (load(d.input_path, &left)) {
        printf("an earlier run ended at %s: again\n", d.input_path);
        (void)LLVMFuzzerTestOneInput(left.bytes, left.size);
        free(left.bytes);
    }
    d.input = fopen(d.input_path, "wb");
    if (d.input == NULL) {
        perror(d.input_path);
        return 2;
    }
    (void)setvbuf(d.input, NULL, _IONBF, 0);
    printf("after a crash the input is in %s\n", d.input_path);
    int result = run_cases(&d);
    (void)fclose(d.input);
    (void)remove(d.input_path);
    clear(&d);
    return result;
}
