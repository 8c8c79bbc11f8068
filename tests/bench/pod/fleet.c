#include "fleet.h"

#include "../bench.h"
#include "holders.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FLEET 200
#define ROUNDS 5
#define ANSWER_MAX (1024 * 1024)
#define LIMIT_US 30e6
#define CREATES_MAX 16
#define HANDSHAKE_MS 2000 // What the runner gives each pod,
#define AGAIN_MS 300      // and once more when it is asked about one that was silent.

// ------------------------------------------------------------------------------------------------
// The runner, and one connection to it (docs/control.md)
// ------------------------------------------------------------------------------------------------

static struct {
    char state[64];
    struct pod_dir dir;
    pm_process *process;
    int fd;
    char answer[ANSWER_MAX];
    size_t got, used; // Bytes in it, and of them those of the last answer.
} runner;

static void pause_a_little(void)
{
    const struct timespec half = {0, 500000};
    (void)nanosleep(&half, NULL);
}

static void serve(void)
{
    static const char *const env[] = {"PROCESSMGR_PODDAEMON=" BENCH_PODDAEMON, NULL};
    const char *const argv[] = {BENCH_RUNNER, "--state", runner.state, "serve", NULL};
    struct pm_spec spec = PM_SPEC_INIT;
    struct pm_error error = PM_ERROR_INIT;
    spec.owner = "bench";
    spec.program = argv[0];
    spec.argv = argv;
    spec.env = env;
    spec.stdin_slot.kind = spec.stdout_slot.kind = spec.stderr_slot.kind = PM_STDIO_NULL;
    holders_check(pm_spawn(holders_manager(), &spec, &runner.process, &error), &error);
}

static void connect_to_it(void)
{
    pm_native native = PM_NATIVE_INVALID;
    double begin = bench_now_us();
    while ((runner.dir.fd < 0 && pod_dir_open(runner.state, &runner.dir) != PM_OK) ||
           pod_connect(&runner.dir, "runner-control", &native) != PM_OK) {
        if (bench_now_us() - begin > LIMIT_US) {
            holders_die("the runner does not serve");
        }
        pause_a_little();
    }
    runner.fd = (int)native;
    runner.got = runner.used = 0;
    holder_block(runner.fd);
}

static void request(const char *method, const char *parameters)
{
    char line[1024];
    int n = snprintf(line, sizeof line,
                     "{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"%s\", \"params\": {%s}}\n",
                     method, parameters);
    if (write(runner.fd, line, (size_t)n) != n) {
        holders_die("write to the runner");
    }
}

// The next one, which has to be a result. Valid until the next call.
static const char *answer(void)
{
    char *end;
    memmove(runner.answer, runner.answer + runner.used, runner.got - runner.used);
    runner.got -= runner.used;
    while ((end = memchr(runner.answer, '\n', runner.got)) == NULL) {
        ssize_t more =
            read(runner.fd, runner.answer + runner.got, sizeof runner.answer - runner.got);
        if (more <= 0) {
            holders_die("read from the runner");
        }
        runner.got += (size_t)more;
    }
    *end = '\0';
    runner.used = (size_t)(end - runner.answer) + 1;
    if (strstr(runner.answer, "\"result\"") == NULL) {
        fprintf(stderr, "bench: the runner says: %s\n", runner.answer);
        exit(1);
    }
    return runner.answer;
}

static const char *ask(const char *method, const char *parameters)
{
    request(method, parameters);
    return answer();
}

static uint64_t number_after(const char *text, const char *name)
{
    char pattern[64];
    (void)snprintf(pattern, sizeof pattern, "\"%s\":", name);
    const char *at = strstr(text, pattern);
    return at != NULL ? strtoull(at + strlen(pattern), NULL, 10) : 0;
}

static void kill_runner(void)
{
    struct pm_stop_plan now = {1, {{PM_STOP_KILL, PM_SCOPE_PROCESS, 10000}}};
    holders_check(pm_process_stop(runner.process, &now, NULL), NULL);
    runner.process = pm_process_unref(runner.process);
    (void)close(runner.fd);
}

// ------------------------------------------------------------------------------------------------
// Its sessions
// ------------------------------------------------------------------------------------------------

static uint64_t holders[FLEET]; // Their pids.

static void request_one(size_t number)
{
    char parameters[512];
    (void)snprintf(parameters, sizeof parameters,
                   "\"id\": \"s%zu\", \"program\": \"%s\", \"argv\": [\"%s\", \"still\", \"0\", "
                   "\"/dev/null\"], \"cwd\": \"/\"",
                   number, BENCH_CHILD, BENCH_CHILD);
    request("session.create", parameters);
}

// Some one by one, for the row; the rest at once. Answers come in any order.
static void create_all(void)
{
    struct bench_samples samples = {0};
    const size_t alone = FLEET / 4;
    for (size_t i = 0; i < alone; i++) {
        double begin = bench_now_us();
        request_one(i);
        holders[i] = number_after(answer(), "daemon_pid");
        bench_add(&samples, bench_now_us() - begin);
    }
    for (size_t done = alone; done < FLEET;) {
        size_t some = FLEET - done < CREATES_MAX ? FLEET - done : CREATES_MAX;
        for (size_t i = 0; i < some; i++) {
            request_one(done + i);
        }
        for (size_t i = 0; i < some; i++) {
            const char *id = strstr(answer(), "\"id\":\"s");
            size_t number = id != NULL ? strtoull(id + 7, NULL, 10) : FLEET;
            if (number >= FLEET) {
                holders_die("session.create");
            }
            holders[number] = number_after(id, "daemon_pid");
        }
        done += some;
    }
    bench_row("create", "runner", "", &samples);
}

// About the first `count`, at once.
static void ask_about(size_t count, const char *method)
{
    for (size_t i = 0; i < count; i++) {
        char parameters[64];
        (void)snprintf(parameters, sizeof parameters, "\"id\": \"s%zu\"", i);
        request(method, parameters);
    }
    for (size_t i = 0; i < count; i++) {
        (void)answer();
    }
}

static void hit(size_t first, size_t count, int number)
{
    for (size_t i = first; i < first + count; i++) {
        if (holders[i] == 0 || kill((pid_t)holders[i], number) != 0) {
            holders_die("a holder is gone");
        }
    }
}

struct times { // Milliseconds.
    struct bench_samples recovered, living, all;
};

// Of a runner that begins now: until it says that it has recovered, until it has heard of each that
// can answer, and until it has made up its mind about each.
static void one_recovery(size_t frozen, size_t dead, struct times *times)
{
    bool recovered = false, living = false;
    double begin = bench_now_us(), us = 0;
    serve();
    connect_to_it();
    while (!living && us < LIMIT_US) {
        const char *info = ask("runner.info", "");
        us = bench_now_us() - begin;
        if (!recovered && strstr(info, "\"recovered\":true") != NULL) {
            bench_add(&times->recovered, us / 1e3);
            recovered = true;
        }
        living = recovered && number_after(info, "running") == FLEET - frozen - dead &&
                 number_after(info, "lost") == dead;
        if (!living) {
            pause_a_little();
        }
    }
    if (!living) {
        fprintf(stderr, "bench: not recovered: %s", runner.answer);
        exit(1);
    }
    bench_add(&times->living, us / 1e3);
    ask_about(frozen, "session.get"); // Answered when their time is over.
    bench_add(&times->all, (bench_now_us() - begin) / 1e3);
}

// The first ones are frozen, those after them dead.
static void measure(size_t frozen, size_t dead)
{
    struct times times = {{0}, {0}, {0}};
    char parameters[64];
    (void)snprintf(parameters, sizeof parameters, "pods=%d frozen=%zu dead=%zu", FLEET, frozen,
                   dead);
    for (int i = 0; i < (bench_scale > 1 ? 3 : ROUNDS); i++) {
        kill_runner();
        one_recovery(frozen, dead, &times);
    }
    double living = bench_percentile(&times.living, 0.5), all = bench_percentile(&times.all, 0.5);
    bench_figure("recovered", "runner", parameters, bench_percentile(&times.recovered, 0.5), "ms");
    bench_figure("the living known", "runner", parameters, living, "ms");
    bench_figure("all known", "runner", parameters, all, "ms");
    if (frozen == 0) {
        bench_bound("recovery of 200 pods, from the start of the runner", living, 100, " ms");
    } else {
        bench_bound("the same with 20 frozen and 20 dead, the living ones", living, 100, " ms");
        bench_bound("the same, the frozen ones given up", all, HANDSHAKE_MS + AGAIN_MS + 100,
                    " ms");
    }
    bench_clear(&times.recovered);
    bench_clear(&times.living);
    bench_clear(&times.all);
}

void group_recovery(void)
{
    const size_t some = FLEET / 10;
    if (BENCH_RUNNER[0] == '\0') {
        fprintf(stderr, "bench: recovery left out: there is no runner\n");
        return;
    }
    runner.dir = (struct pod_dir)POD_DIR_INIT;
    (void)snprintf(runner.state, sizeof runner.state, "%s/state", holders_folder());
    serve();
    connect_to_it();
    create_all();
    measure(0, 0);
    hit(0, some, SIGSTOP);
    hit(some, some, SIGKILL);
    measure(some, some);
    hit(0, some, SIGCONT);
    (void)ask("runner.shutdown", "\"stop_sessions\": true");
    (void)close(runner.fd);
    holders_check(pm_process_wait(runner.process, PM_FOREVER, NULL), NULL);
    (void)pm_process_unref(runner.process);
    pod_dir_close(&runner.dir);
}
