// bench_spawn [--json] [--quick] [GROUP...]: what starting and ending processes costs, beside bare
// loops and other libraries in the same run. Samples of rival ways are taken in turns, so that what
// disturbs one disturbs all.
#include "bare.h"
#include "bench.h"
#include "peers.h"
#include "steps.h"

#include <fcntl.h>
#include <malloc.h>
#include <poll.h>
#include <processmgr/processmgr.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static const char *self;
static char *const target[] = {(char *)BENCH_TARGET, NULL};
static char *const sleeper[] = {(char *)BENCH_TARGET, (char *)"sleep", NULL};
static char *const reader[] = {(char *)BENCH_TARGET, (char *)"read", NULL};
static pm_manager *manager;

static void check(int result, const struct pm_error *error)
{
    char line[1024] = "";
    if (result == PM_OK) {
        return;
    }
    if (error != NULL) {
        (void)pm_error_format(error, line, sizeof line);
    }
    fprintf(stderr, "bench: %s %s\n", pm_error_name(result), line);
    exit(1);
}

static struct pm_spec spec_of(char *const argv[])
{
    struct pm_spec spec = PM_SPEC_INIT;
    spec.owner = "bench";
    spec.program = argv[0];
    spec.argv = (const char *const *)argv;
    spec.stdin_slot.kind = spec.stdout_slot.kind = spec.stderr_slot.kind = PM_STDIO_NULL;
    return spec;
}

static pm_process *start(const struct pm_spec *spec)
{
    pm_process *process = NULL;
    struct pm_error error = PM_ERROR_INIT;
    check(pm_spawn(manager, spec, &process, &error), &error);
    return process;
}

static void open_manager(const char *registry)
{
    struct pm_options options = PM_OPTIONS_INIT;
    struct pm_error error = PM_ERROR_INIT;
    options.registry_dir = registry;
    options.status_pending_ms = 10;
    check(pm_open(&options, &manager, &error), &error);
}

static void close_manager(void)
{
    check(pm_stop_all(manager, 30000, NULL, NULL, NULL), NULL);
    check(pm_close(manager, 30000, NULL), NULL);
    manager = NULL;
}

// ------------------------------------------------------------------------------------------------
// The ways to start and wait. Each returns when control was back; after it the process was waited
// for.
// ------------------------------------------------------------------------------------------------

static double run_processmgr(void)
{
    struct pm_spec spec = spec_of(target);
    struct pm_exit record = PM_EXIT_INIT;
    pm_process *process = start(&spec);
    double started = bench_now_us();
    check(pm_process_wait(process, PM_FOREVER, &record), NULL);
    (void)pm_process_unref(process);
    return started;
}

static double run_vfork(void)
{
    pid_t pid = bare_vfork(target);
    double started = bench_now_us();
    bare_wait(pid);
    return started;
}

static double run_fork(void)
{
    pid_t pid = bare_fork(target);
    double started = bench_now_us();
    bare_wait(pid);
    return started;
}

static double run_posix_spawn(void)
{
    pid_t pid = bare_posix_spawn(target);
    double started = bench_now_us();
    bare_wait(pid);
    return started;
}

static int epoll = -1;

static double run_with_pidfd(pid_t (*begin)(char *const argv[], int *ret_pidfd))
{
    int pidfd;
    if (epoll < 0) {
        epoll = bare_epoll_new();
    }
    (void)begin(target, &pidfd);
    double started = bench_now_us();
    bare_epoll_wait(epoll, pidfd);
    return started;
}

static double run_clone(void)
{
    return run_with_pidfd(bare_clone);
}

static double run_spawner(void)
{
    return run_with_pidfd(bare_spawner);
}

#ifdef BENCH_HAVE_UV
static double run_uv(void)
{
    return peer_uv_run(target);
}
#endif
#ifdef BENCH_HAVE_GLIB
static double run_glib(void)
{
    return peer_glib_run(target);
}
#endif

struct way {
    const char *name;
    double (*run)(void); // Returns the time at which control was back.
    bool copies_memory;
    struct bench_samples spawn, whole;
};

static struct way ways[] = {
    {"processmgr", run_processmgr, false, {0}, {0}},
    {"vfork", run_vfork, false, {0}, {0}},
    {"clone+pidfd+epoll", run_clone, false, {0}, {0}},
    {"posix_spawn", run_posix_spawn, false, {0}, {0}},
    {"spawner thread", run_spawner, false, {0}, {0}},
    {"fork", run_fork, true, {0}, {0}},
#ifdef BENCH_HAVE_UV
    {"libuv", run_uv, true, {0}, {0}},
#endif
#ifdef BENCH_HAVE_GLIB
    {"glib", run_glib, true, {0}, {0}},
#endif
};
#define WAYS (sizeof ways / sizeof ways[0])
enum {
    OURS = 0,
    BARE = 1, // From here on the bare loops,
    PEERS = 6 // and from here on other libraries.
};

// Some ways in turns, from the first to before the last. few: rounds for those whose cost grows
// with our memory.
static void take_turns_of(size_t first, size_t last, const char *parameters, int rounds, int few)
{
    for (int i = 0; i < rounds + 5; i++) {
        for (size_t w = first; w < last; w++) {
            if (ways[w].copies_memory && i >= few + 5) {
                continue;
            }
            double begin = bench_now_us();
            double started = ways[w].run();
            double end = bench_now_us();
            if (i < 5) { // Warm-up.
                continue;
            }
            bench_add(&ways[w].spawn, started - begin);
            bench_add(&ways[w].whole, end - begin);
        }
    }
    for (size_t w = first; w < last; w++) {
        bench_row("spawn", ways[w].name, parameters, &ways[w].spawn);
    }
    for (size_t w = first; w < last; w++) {
        bench_row("spawn+wait", ways[w].name, parameters, &ways[w].whole);
    }
}

static void take_turns(const char *parameters, int rounds, int few)
{
    take_turns_of(0, WAYS, parameters, rounds, few);
}

static void take_alone(const char *name, double (*run)(void), int rounds)
{
    struct bench_samples spawn = {0}, whole = {0};
    for (int i = 0; i < rounds; i++) {
        double begin = bench_now_us();
        bench_add(&spawn, run() - begin);
        bench_add(&whole, bench_now_us() - begin);
    }
    bench_row("spawn alone", name, "", &spawn);
    bench_row("spawn+wait alone", name, "", &whole);
}

// A program in another language that prints its samples, a line each: start, start and wait.
static void run_peer(const char *name, const char *const argv[])
{
    struct bench_samples spawn = {0}, whole = {0};
    struct pm_spec spec = spec_of((char *const *)argv);
    char text[4096], line[64];
    size_t count, length = 0;
    struct pm_exit record = PM_EXIT_INIT;
    spec.program = argv[0];
    spec.stdout_slot.kind = PM_STDIO_PIPE;
    spec.stderr_slot.kind = PM_STDIO_INHERIT;
    pm_process *process = start(&spec);
    pm_stream *out = pm_process_stream(process, PM_STDOUT);
    while (pm_stream_read(out, text, sizeof text, PM_FOREVER, &count) == PM_OK && count != 0) {
        for (size_t i = 0; i < count; i++) {
            if (text[i] == '\n') {
                line[length] = '\0';
                char *rest;
                bench_add(&spawn, strtod(line, &rest));
                bench_add(&whole, strtod(rest, NULL));
                length = 0;
            } else if (length + 1 < sizeof line) {
                line[length++] = text[i];
            }
        }
    }
    check(pm_process_wait(process, PM_FOREVER, &record), NULL);
    (void)pm_process_unref(process);
    if (record.kind == PM_EXIT_EXITED && record.code == 0 && whole.count > 0) {
        bench_row("spawn alone", name, "", &spawn);
        bench_row("spawn+wait alone", name, "", &whole);
    } else {
        fprintf(stderr, "bench: %s left out: it has failed\n", name);
        bench_clear(&spawn);
        bench_clear(&whole);
    }
}

static void group_compare(void)
{
    char rounds[16];
    (void)snprintf(rounds, sizeof rounds, "%d", 1000 / bench_scale);
    open_manager(NULL);
    bare_spawner_begin();
    take_turns("", 1000 / bench_scale, 1000 / bench_scale);
    // Programs of their own cannot take turns with us: each way by itself, then.
    take_alone("processmgr", run_processmgr, 1000 / bench_scale);
    take_alone("vfork", run_vfork, 1000 / bench_scale);
#ifdef BENCH_HAVE_UV
    take_alone("libuv", run_uv, 1000 / bench_scale);
#endif
#ifdef BENCH_HAVE_GLIB
    take_alone("glib", run_glib, 1000 / bench_scale);
#endif
#ifdef BENCH_PYTHON
    run_peer("python", (const char *const[]){BENCH_PYTHON, BENCH_PEERS "/spawn.py", BENCH_TARGET,
                                             rounds, NULL});
#endif
#ifdef BENCH_GO
    run_peer("go", (const char *const[]){BENCH_GO, BENCH_TARGET, rounds, NULL});
#endif
#ifdef BENCH_RUST
    run_peer("rust", (const char *const[]){BENCH_RUST, BENCH_TARGET, rounds, NULL});
#endif
    bare_spawner_end();
    close_manager();
    bench_ratio("spawn + wait : bare vfork", "spawn+wait", "", "processmgr", "vfork", 1.10, true);
    bench_ratio("spawn + wait : bare clone + pidfd + epoll", "spawn+wait", "", "processmgr",
                "clone+pidfd+epoll", 0, true);
    bench_ratio("bare spawner thread : bare vfork", "spawn+wait", "", "spawner thread", "vfork", 0,
                true);
    static const char *const peers[] = {"libuv", "glib", "rust", "go", "python"};
    for (size_t i = 0; i < sizeof peers / sizeof peers[0]; i++) {
        char what[64];
        (void)snprintf(what, sizeof what, "spawn + wait : %s", peers[i]);
        bench_ratio(what, "spawn+wait alone", "", "processmgr", peers[i], 1.0, true);
    }
}

// ------------------------------------------------------------------------------------------------
// What the host has
// ------------------------------------------------------------------------------------------------

static size_t available_mib(void)
{
    char line[128];
    size_t kib = 0;
    FILE *file = fopen("/proc/meminfo", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "MemAvailable: %zu kB", &kib) == 1) {
            break;
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return kib / 1024;
}

static void group_memory(void)
{
    static const size_t gib[] = {0, 1, 4};
    open_manager(NULL);
    bare_spawner_begin();
    for (size_t i = 0; i < sizeof gib / sizeof gib[0]; i++) {
        char parameters[48], *block = NULL;
        size_t size = gib[i] << 30;
        if (gib[i] * 1024 > available_mib() / 2) {
            fprintf(stderr, "bench: %zu GiB left out: not that much memory here\n", gib[i]);
            continue;
        }
        if (size != 0) {
            block = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            if (block == MAP_FAILED) {
                bare_die("mmap");
            }
            (void)madvise(block, size, MADV_NOHUGEPAGE);
            memset(block, 1, size);
        }
        (void)snprintf(parameters, sizeof parameters, "touched_gib=%zu", gib[i]);
        take_turns(parameters, 200 / bench_scale, 200 / bench_scale / (int)(1 + gib[i] * 10));
        if (size != 0) {
            (void)munmap(block, size);
        }
    }
    bare_spawner_end();
    close_manager();
    bench_growth("processmgr: 4 GiB touched : 0", "spawn+wait", "processmgr", "touched_gib=0",
                 "touched_gib=4", 1.15);
    bench_growth("vfork: 4 GiB touched : 0", "spawn+wait", "vfork", "touched_gib=0",
                 "touched_gib=4", 0);
    bench_growth("fork: 4 GiB touched : 0", "spawn+wait", "fork", "touched_gib=0", "touched_gib=4",
                 0);
}

static size_t raise_descriptor_limit(size_t wanted)
{
    struct rlimit limit;
    (void)getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < wanted + 64) {
        limit.rlim_cur = limit.rlim_max < wanted + 64 ? limit.rlim_max : wanted + 64;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    return limit.rlim_cur - 64;
}

// "10,000": of numbers below a million.
static const char *with_commas(size_t number, char text[32])
{
    (void)(number < 1000 ? snprintf(text, 32, "%zu", number)
                         : snprintf(text, 32, "%zu,%03zu", number / 1000, number % 1000));
    return text;
}

static void group_descriptors(void)
{
    static const size_t counts[] = {10, 1000, 10000};
    size_t largest = 0;
    for (int first = 1; first >= 0; first--) {
        for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
            size_t most = raise_descriptor_limit(counts[i]);
            size_t count = counts[i] < most ? counts[i] : most;
            char parameters[48];
            largest = count;
            if (first) {
                open_manager(NULL);
                bare_spawner_begin();
                (void)run_processmgr();
            }
            int *fds = calloc(count, sizeof *fds);
            for (size_t k = 0; k < count; k++) {
                fds[k] = open("/dev/null", O_RDONLY | O_CLOEXEC);
            }
            if (!first) {
                open_manager(NULL);
                bare_spawner_begin();
            }
            (void)snprintf(parameters, sizeof parameters, "fds=%zu manager=%s", count,
                           first ? "first" : "last");
            take_turns(parameters, 200 / bench_scale, 200 / bench_scale);
            for (size_t k = 0; k < count; k++) {
                (void)close(fds[k]);
            }
            free(fds);
            bare_spawner_end();
            close_manager();
        }
    }
    for (int first = 1; first >= 0; first--) {
        const char *when = first ? "first" : "last";
        for (size_t w = 0; w < WAYS; w++) {
            char what[112], least[48], most[48], number[32];
            (void)snprintf(least, sizeof least, "fds=10 manager=%s", when);
            (void)snprintf(most, sizeof most, "fds=%zu manager=%s", largest, when);
            (void)snprintf(what, sizeof what, "%s: %s descriptors : 10, manager %s", ways[w].name,
                           with_commas(largest, number), when);
            bench_growth(what, "spawn+wait", ways[w].name, least, most,
                         first && w == OURS ? 1.2 : 0);
        }
    }
}

// Each way beside children that it keeps itself: the library in its manager, the bare loops with a
// pidfd each, the others in their loops.
static void beside_ours(size_t count, const char *parameters)
{
    open_manager(NULL);
    struct pm_spec spec = spec_of(sleeper);
    spec.stop = (struct pm_stop_plan){1, {{PM_STOP_KILL, PM_SCOPE_PROCESS, 10000}}};
    size_t before = mallinfo2().uordblks;
    for (size_t k = 0; k < count; k++) {
        (void)pm_process_unref(start(&spec));
    }
    size_t bytes = mallinfo2().uordblks - before;
    take_turns_of(OURS, OURS + 1, parameters, 200 / bench_scale, 200 / bench_scale);
    close_manager();
    if (count != 0) {
        double each = (double)bytes / (double)count;
        bench_figure("memory per child", "processmgr", parameters, each, "B");
        bench_bound("bytes of library memory per live child", each, 1024, " B");
    }
}

static void beside_bare(size_t count, const char *parameters)
{
    int *pidfds = calloc(count + 1, sizeof *pidfds);
    pid_t *pids = calloc(count + 1, sizeof *pids);
    bare_spawner_begin();
    for (size_t k = 0; k < count; k++) {
        pids[k] = bare_clone(sleeper, &pidfds[k]);
    }
    take_turns_of(BARE, PEERS, parameters, 200 / bench_scale, 200 / bench_scale);
    for (size_t k = 0; k < count; k++) {
        (void)kill(pids[k], SIGKILL);
    }
    for (size_t k = 0; k < count; k++) {
        bare_wait(pids[k]);
        (void)close(pidfds[k]);
    }
    bare_spawner_end();
    free(pidfds);
    free(pids);
}

static void beside_peers(size_t count, const char *parameters)
{
    size_t way = PEERS;
    (void)count;
    (void)parameters;
    (void)way;
#ifdef BENCH_HAVE_UV
    for (size_t k = 0; k < count; k++) {
        peer_uv_keep(sleeper);
    }
    take_turns_of(way, way + 1, parameters, 200 / bench_scale, 200 / bench_scale);
    way++;
    peer_uv_close();
    peer_uv_open();
#endif
#ifdef BENCH_HAVE_GLIB
    for (size_t k = 0; k < count; k++) {
        peer_glib_keep(sleeper);
    }
    take_turns_of(way, way + 1, parameters, 200 / bench_scale, 200 / bench_scale);
    peer_glib_end();
#endif
}

static void group_children(void)
{
    static const size_t counts[] = {0, 1000, 5000};
    char parameters[48], number[32];
    size_t count = 0;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        count = counts[i] / (size_t)bench_scale;
        (void)raise_descriptor_limit(count + 100);
        (void)snprintf(parameters, sizeof parameters, "live=%zu", count);
        beside_ours(count, parameters);
        beside_bare(count, parameters);
        beside_peers(count, parameters);
    }
    for (size_t w = 0; w < WAYS; w++) {
        char what[112];
        (void)snprintf(what, sizeof what, "%s: %s live children : 0", ways[w].name,
                       with_commas(count, number));
        bench_growth(what, "spawn+wait", ways[w].name, "live=0", parameters, w == OURS ? 1.3 : 0);
    }
}

// ------------------------------------------------------------------------------------------------
// Threads
// ------------------------------------------------------------------------------------------------

struct crew {
    double (*run)(void);
    int rounds;
    struct worker {
        pthread_t id;
        const struct crew *crew;
        struct bench_samples spawn, whole;
    } workers[8];
};

static void *work(void *arg)
{
    struct worker *worker = arg;
    for (int i = 0; i < worker->crew->rounds; i++) {
        double begin = bench_now_us();
        double started = worker->crew->run();
        bench_add(&worker->spawn, started - begin);
        bench_add(&worker->whole, bench_now_us() - begin);
    }
    return NULL;
}

static void hand_over(struct bench_samples *from, struct bench_samples *to)
{
    for (size_t i = 0; i < from->count; i++) {
        bench_add(to, from->us[i]);
    }
    bench_clear(from);
}

// Starts a second of all threads together; their samples come to the way's.
static double crew_rate(struct way *way, int threads, int rounds)
{
    struct crew crew = {.run = way->run, .rounds = rounds};
    double begin = bench_now_us();
    for (int i = 0; i < threads; i++) {
        crew.workers[i].crew = &crew;
        if (pthread_create(&crew.workers[i].id, NULL, work, &crew.workers[i]) != 0) {
            bare_die("pthread_create");
        }
    }
    for (int i = 0; i < threads; i++) {
        (void)pthread_join(crew.workers[i].id, NULL);
    }
    double rate = threads * rounds / ((bench_now_us() - begin) / 1e6);
    for (int i = 0; i < threads; i++) {
        hand_over(&crew.workers[i].spawn, &way->spawn);
        hand_over(&crew.workers[i].whole, &way->whole);
    }
    return rate;
}

static void group_threads(void)
{
    static const int counts[] = {1, 2, 4, 8};
    struct way *const both[] = {&ways[OURS], &ways[BARE]};
    open_manager(NULL);
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        struct bench_samples rates[2] = {{0}};
        char parameters[48];
        (void)snprintf(parameters, sizeof parameters, "threads=%d", counts[i]);
        for (int k = 0; k < 7; k++) {
            for (int w = 0; w < 2; w++) {
                bench_add(&rates[w],
                          crew_rate(both[w], counts[i], 300 / counts[i] / bench_scale + 1));
            }
        }
        for (int w = 0; w < 2; w++) {
            bench_row("spawn", both[w]->name, parameters, &both[w]->spawn);
        }
        for (int w = 0; w < 2; w++) {
            bench_row("spawn+wait", both[w]->name, parameters, &both[w]->whole);
        }
        for (int w = 0; w < 2; w++) {
            bench_rate("starts per second", both[w]->name, parameters, &rates[w], "/s");
        }
    }
    close_manager();
    bench_ratio("rate of 8 threads : 8 bare threads", "starts per second", "threads=8",
                "processmgr", "vfork", 0.9, false);
}

// ------------------------------------------------------------------------------------------------
// How soon an end is seen
// ------------------------------------------------------------------------------------------------

static double seen; // When; written by one thread, read after it was joined or has said so.
static atomic_bool called;

static void on_end(pm_process *process, const struct pm_exit *record, void *user)
{
    (void)process;
    (void)record;
    (void)user;
    seen = bench_now_us();
    atomic_store(&called, true);
}

static void *wait_by_handle(void *process)
{
    struct pm_exit record = PM_EXIT_INIT;
    check(pm_process_wait(process, PM_FOREVER, &record), NULL);
    seen = bench_now_us();
    return NULL;
}

static void *wait_by_epoll(void *pidfd)
{
    bare_epoll_wait(epoll, *(int *)pidfd);
    seen = bench_now_us();
    return NULL;
}

// The waiter sleeps when the child is let go.
static double let_go(pthread_t waiter, int fd)
{
    (void)usleep(500);
    double begin = bench_now_us();
    (void)close(fd);
    (void)pthread_join(waiter, NULL);
    return seen - begin;
}

static double end_by_handle(void)
{
    pthread_t waiter;
    pm_native fd;
    struct pm_spec spec = spec_of(reader);
    spec.stdin_slot.kind = PM_STDIO_PIPE;
    pm_process *process = start(&spec);
    check(pm_stream_take(pm_process_stream(process, PM_STDIN), &fd), NULL);
    (void)pthread_create(&waiter, NULL, wait_by_handle, process);
    double latency = let_go(waiter, (int)fd);
    (void)pm_process_unref(process);
    return latency;
}

static double end_by_callback(void)
{
    pm_native fd;
    struct pm_spec spec = spec_of(reader);
    spec.stdin_slot.kind = PM_STDIO_PIPE;
    spec.on_exit = on_end;
    atomic_store(&called, false);
    pm_process *process = start(&spec);
    check(pm_stream_take(pm_process_stream(process, PM_STDIN), &fd), NULL);
    (void)usleep(500);
    double begin = bench_now_us();
    (void)close((int)fd);
    while (!atomic_load(&called)) {
        (void)usleep(200);
    }
    (void)pm_process_unref(process);
    return seen - begin;
}

static double end_by_epoll(void)
{
    pthread_t waiter;
    int ends[2], pidfd;
    if (pipe2(ends, O_CLOEXEC) != 0) {
        bare_die("pipe2");
    }
    (void)bare_clone_reading(reader, ends[0], &pidfd);
    (void)close(ends[0]);
    (void)pthread_create(&waiter, NULL, wait_by_epoll, &pidfd);
    return let_go(waiter, ends[1]);
}

static void group_exit(void)
{
    struct bench_samples handle = {0}, callback = {0}, bare = {0};
    open_manager(NULL);
    epoll = epoll >= 0 ? epoll : bare_epoll_new();
    for (int i = 0; i < 500 / bench_scale; i++) {
        bench_add(&handle, end_by_handle());
        bench_add(&bare, end_by_epoll());
        bench_add(&callback, end_by_callback());
    }
    bench_row("end seen", "waiter", "", &handle);
    bench_row("end seen", "callback", "", &callback);
    bench_row("end seen", "epoll+pidfd", "", &bare);
    close_manager();
    bench_ratio("end seen by a waiter : bare epoll + pidfd", "end seen", "", "waiter",
                "epoll+pidfd", 1.10, true);
    bench_ratio("end seen by a callback : bare epoll + pidfd", "end seen", "", "callback",
                "epoll+pidfd", 1.40, true);
}

// ------------------------------------------------------------------------------------------------
// Daemons
// ------------------------------------------------------------------------------------------------

static void group_daemon(void)
{
    struct bench_samples ours = {0}, helper = {0}, bare = {0};
    struct pm_stop_plan now = {1, {{PM_STOP_KILL, PM_SCOPE_PROCESS, 10000}}};
    char folder[] = "/tmp/pm-bench-XXXXXX", registry[64];
    if (mkdtemp(folder) == NULL) {
        bare_die("mkdtemp");
    }
    (void)snprintf(registry, sizeof registry, "%s/registry", folder);
    open_manager(registry);
    struct pm_spec spec = spec_of(sleeper);
    spec.mode = PM_MODE_DAEMON;
    spec.key = "bench";
    for (int i = 0; i < 200 / bench_scale; i++) {
        double begin = bench_now_us();
        pm_process *process = start(&spec);
        bench_add(&ours, bench_now_us() - begin);
        check(pm_process_stop(process, &now, NULL), NULL);
        (void)pm_process_wait(process, PM_FOREVER, NULL);
        (void)pm_process_unref(process);
        begin = bench_now_us();
        pid_t pid = bare_daemon(self, sleeper, folder);
        bench_add(&bare, bench_now_us() - begin);
        (void)kill(pid, SIGKILL);
    }
    close_manager();
    bench_row("daemon start", "processmgr", "launcher=self", &ours);
    struct pm_options options = PM_OPTIONS_INIT;
    struct pm_error error = PM_ERROR_INIT;
    options.registry_dir = registry;
    options.status_pending_ms = 10;
    options.launcher_path = BENCH_LAUNCHER;
    check(pm_open(&options, &manager, &error), &error);
    for (int i = 0; i < 200 / bench_scale; i++) {
        double begin = bench_now_us();
        pm_process *process = start(&spec);
        bench_add(&helper, bench_now_us() - begin);
        check(pm_process_stop(process, &now, NULL), NULL);
        (void)pm_process_wait(process, PM_FOREVER, NULL);
        (void)pm_process_unref(process);
    }
    check(pm_forget(manager, "bench"), NULL);
    close_manager();
    bench_row("daemon start", "processmgr", "launcher=helper", &helper);
    bench_row("daemon start", "bare", "launcher=self", &bare);
    bench_ratio("daemon start : bare launcher with the same steps", "daemon start", "launcher=self",
                "processmgr", "bare", 1.3, true);
    char command[128];
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    (void)!system(command);
}

// ------------------------------------------------------------------------------------------------
// StopAll
// ------------------------------------------------------------------------------------------------

// Sessions: their members are found in the process table.
static void stop_all_deaf(bool sessions)
{
    static char *const deaf[] = {(char *)BENCH_TARGET, (char *)"deaf", NULL};
    size_t count = 1000 / (size_t)bench_scale;
    const int grace_ms = 1000;
    int ends[2];
    char byte;
    (void)raise_descriptor_limit(count + 100);
    open_manager(NULL);
    if (pipe2(ends, O_CLOEXEC) != 0) {
        bare_die("pipe2");
    }
    struct pm_spec spec = spec_of(deaf);
    spec.stdout_slot.kind = PM_STDIO_NATIVE;
    spec.stdout_slot.native = ends[1];
    spec.new_session = sessions;
    spec.stop = (struct pm_stop_plan){2,
                                      {{PM_STOP_TERMINATE, PM_SCOPE_TREE, (uint32_t)grace_ms},
                                       {PM_STOP_KILL, PM_SCOPE_TREE, 10000}}};
    double begin = bench_now_us();
    for (size_t i = 0; i < count; i++) {
        (void)pm_process_unref(start(&spec));
    }
    for (size_t i = 0; i < count; i++) {
        if (read(ends[0], &byte, 1) != 1) {
            bare_die("read");
        }
    }
    char parameters[64];
    const char *kind = sessions ? " new_session" : "";
    (void)snprintf(parameters, sizeof parameters, "children=%zu%s", count, kind);
    bench_figure("start of many", "processmgr", parameters, (bench_now_us() - begin) / 1e3, "ms");
    begin = bench_now_us();
    check(pm_stop_all(manager, 60000, NULL, NULL, NULL), NULL);
    double ms = (bench_now_us() - begin) / 1e3;
    (void)snprintf(parameters, sizeof parameters, "children=%zu grace_ms=%d%s", count, grace_ms,
                   kind);
    bench_figure("StopAll, deaf", "processmgr", parameters, ms, "ms");
    char what[80], number[32];
    (void)snprintf(what, sizeof what, "StopAll of %s %s deaf to TERM, beyond the grace of 1 s",
                   with_commas(count, number), sessions ? "sessions" : "children");
    bench_bound(what, ms - grace_ms, 1000, " ms");
    (void)close(ends[0]);
    (void)close(ends[1]);
    close_manager();
}

static void group_stop_all(void)
{
    stop_all_deaf(false);
    stop_all_deaf(true);
}

// ------------------------------------------------------------------------------------------------

static void group_steps(void)
{
    open_manager(NULL);
    steps_measure(target, run_processmgr, 1000 / bench_scale);
    close_manager();
}

// ------------------------------------------------------------------------------------------------

int main(int argc, char **argv)
{
    static const struct bench_group groups[] = {
        {"compare", group_compare},
        {"memory", group_memory},
        {"descriptors", group_descriptors},
        {"children", group_children},
        {"threads", group_threads},
        {"exit", group_exit},
        {"daemon", group_daemon},
        {"stop-all", group_stop_all},
        {"steps", group_steps},
    };
    (void)pm_launcher_main(argc, argv);
    if (argc > 2 && strcmp(argv[1], BARE_LAUNCHER) == 0) {
        return bare_launcher(argv + 2);
    }
    self = argv[0];
#ifdef BENCH_HAVE_UV
    peer_uv_open();
#endif
    return bench_main(argc, argv, groups, sizeof groups / sizeof groups[0]);
}
