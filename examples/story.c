// The story of this library in five chapters, told with real processes. Every number is measured
// when it is printed; the first one that is not as it should be ends the story with exit code 1.
//
//   story                            the story itself
//   story --payload FOLDER NAME      a daemon or child: works until it is told to stop, 60 s at
//   most story --controller FOLDER        a program with three children and three daemons story
//   --exit                     ends at once
#include "story_os.h"

#include <inttypes.h>
#include <processmgr/processmgr.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RAW_CHILDREN 10
#define CYCLES 20
#define CHILDREN 3
#define DAEMONS 3
/** How long anything may take that should take no time at all. */
#define BOUND_MS 20000

struct story {
    char self[STORY_PATH_MAX];
    char folder[STORY_PATH_MAX];
    char registry[STORY_PATH_MAX];
    unsigned look;
    int chapter;
    bool failed;
    char failure[1200];
    struct pm_error error;
    uint64_t children[CHILDREN]; // pids of the controller's processes
    uint64_t daemons[DAEMONS];
};

/* ---------------------------------------------------------------------------------------------
 * Telling
 * ------------------------------------------------------------------------------------------- */

static const char *colour(const struct story *s, const char *code) {
    return (s->look & STORY_COLOUR) != 0 ? code : "";
}

static void chapter(struct story *s, const char *title) {
    s->chapter++;
    printf("\n%s%d. %s%s  [%s]\n", colour(s, "\033[1m"), s->chapter, title, colour(s, "\033[0m"),
           story_os_backend());
    fflush(stdout);
}

// The start of a line: what is told, and dots up to the column of the numbers.
static void label(const char *text) {
    static const char dots[] = ".......................................................";
    int length = (int)strlen(text);
    printf("   %s %.*s ", text, length < 50 ? 53 - length : 3, dots);
}

static void remark(const struct story *s, const char *text) {
    printf("   %s(%s)%s\n", colour(s, "\033[2m"), text, colour(s, "\033[0m"));
}

// Notes the failure; returns false, so that a step can end with it.
static bool fail(struct story *s, const char *format, ...) {
    va_list args;
    va_start(args, format);
    if (!s->failed) vsnprintf(s->failure, sizeof s->failure, format, args);
    va_end(args);
    s->failed = true;
    return false;
}

// The result of a call of the library: PM_OK, or a failure with all that is known about it.
static bool ok(struct story *s, int result, const char *what) {
    char line[1024] = "";
    if (result == PM_OK) return true;
    if (s->error.code == result) pm_error_format(&s->error, line, sizeof line);
    return fail(s, "%s: %s: %s", what, pm_error_name(result),
                line[0] != '\0' ? line : pm_strerror(result));
}

// A measured number and the only one that is right.
static bool expect(struct story *s, const char *what, int64_t got, int64_t wanted) {
    bool utf8 = (s->look & STORY_UTF8) != 0;
    label(what);
    if (got == wanted) {
        printf("%4" PRId64 "  %s%s%s\n", got, colour(s, "\033[32m"), utf8 ? "\u2713" : "ok",
               colour(s, "\033[0m"));
        fflush(stdout);
        return true;
    }
    printf("%4" PRId64 "  %s%s expected %" PRId64 "%s\n", got, colour(s, "\033[31m"),
           utf8 ? "\u2717" : "WRONG:", wanted, colour(s, "\033[0m"));
    fflush(stdout);
    return fail(s, "%s: %" PRId64 ", expected %" PRId64, what, got, wanted);
}

/* ---------------------------------------------------------------------------------------------
 * Tools
 * ------------------------------------------------------------------------------------------- */

static bool path_in(const char *folder, const char *name, const char *ending,
                    char path[STORY_PATH_MAX]) {
    return snprintf(path, STORY_PATH_MAX, "%s/%s%s", folder, name, ending) < STORY_PATH_MAX;
}

static bool open_manager(struct story *s, bool with_registry, pm_manager **ret_manager) {
    struct pm_options options = PM_OPTIONS_INIT;
    options.registry_dir = with_registry ? s->registry : NULL;
    options.leak_sweep_ms = UINT32_MAX; // The story asks for each sweep itself.
    return ok(s, pm_open(&options, ret_manager, &s->error), "pm_open");
}

static bool close_manager(struct story *s, pm_manager *manager) {
    return ok(s, pm_close(manager, -1, NULL), "pm_close");
}

// What the zombie detector finds. A zombie counts when it was seen in two sweeps.
static int64_t detected(struct story *s, pm_manager *manager) {
    uint64_t found = 0;
    for (int i = 0; i < 2; i++) {
        if (!ok(s, pm_leak_scan(manager, &found), "pm_leak_scan")) return -1;
    }
    return (int64_t)found;
}

// The log of a payload is its standard output. Waits until `word` stands in it.
static bool wait_for_word(struct story *s, const char *name, const char *word) {
    char path[STORY_PATH_MAX];
    char text[256];
    int64_t deadline = story_os_now_ms() + BOUND_MS;
    if (!path_in(s->folder, name, ".log", path)) return fail(s, "the path is too long");
    while (!story_os_read_file(path, text, sizeof text) || strstr(text, word) == NULL) {
        if (story_os_now_ms() > deadline)
            return fail(s, "%s did not say \"%s\" within %d s", name, word, BOUND_MS / 1000);
        story_os_sleep_ms(2);
    }
    return true;
}

// Starts this program as a payload, as a daemon or as a child, and waits until it says "ready".
static bool start_payload(struct story *s, pm_manager *manager, enum pm_mode mode, const char *name,
                          pm_process **ret_process) {
    char owner[64];
    char log[STORY_PATH_MAX];
    const char *const argv[] = {s->self, "--payload", s->folder, name, NULL};
    if (!path_in(s->folder, name, ".log", log)) return fail(s, "the path is too long");
    snprintf(owner, sizeof owner, "story:%s", name);

    struct pm_spec spec = PM_SPEC_INIT;
    spec.owner = owner;
    spec.program = s->self;
    spec.argv = argv;
    spec.mode = mode;
    spec.stdin_slot.kind = PM_STDIO_NULL;
    spec.stdout_slot.kind = PM_STDIO_FILE_TRUNCATE;
    spec.stdout_slot.path = log;
    if (mode == PM_MODE_DAEMON)
        spec.key = name;
    else
        spec.die_with_parent = true;
    return ok(s, pm_spawn(manager, &spec, ret_process, &s->error), "pm_spawn") &&
           wait_for_word(s, name, "ready");
}

// Waits until none of these processes is left; returns how many are.
static int64_t wait_until_none(const struct story *s, const uint64_t *pids, size_t count) {
    int64_t deadline = story_os_now_ms() + BOUND_MS;
    int left;
    while ((left = story_os_running(s->folder, pids, count)) > 0 && story_os_now_ms() < deadline)
        story_os_sleep_ms(2);
    return left;
}

struct records {
    int living, ended;
};

static int count_record(void *user, const struct pm_registry_entry *entry) {
    struct records *records = user;
    *(strcmp(entry->state, "exited") == 0 ? &records->ended : &records->living) += 1;
    return 0;
}

// What the registry says. A daemon is dead as soon as its stop returns; how it ended is on record
// once the system's first process has collected it, which may take that process a few seconds.
static bool expect_records(struct story *s, int ended) {
    struct records records;
    int64_t deadline = story_os_now_ms() + BOUND_MS;
    for (;;) {
        records = (struct records){0};
        if (!ok(s, pm_registry_list(s->registry, count_record, &records), "pm_registry_list"))
            return false;
        if (records.living == 0 || story_os_now_ms() > deadline) break;
        story_os_sleep_ms(10);
    }
    return expect(s, "registry: daemons that live", records.living, 0) &&
           expect(s, "registry: daemons that have ended", records.ended, ended);
}

/* ---------------------------------------------------------------------------------------------
 * 1. The bug
 * ------------------------------------------------------------------------------------------- */

static bool tell_bug(struct story *s, pm_manager *manager) {
    bool zombies_exist = strcmp(story_os_backend(), "posix") == 0;
    int64_t wanted = zombies_exist ? RAW_CHILDREN : 0;
    if (!expect(s, "children started by hand, ended, never waited for",
                story_bug_run(s->self, RAW_CHILDREN), RAW_CHILDREN))
        return false;
    bool fine = expect(s, "zombies in the process table", story_os_zombies(), wanted);
    remark(s, story_bug_remark());
    fine = fine &&
           expect(s, "zombies that the library's detector reports", detected(s, manager), wanted);
    story_bug_clean();
    return fine && expect(s, "zombies after waiting for each of them", story_os_zombies(), 0);
}

static bool tell_chapter_1(struct story *s) {
    pm_manager *manager = NULL;
    chapter(s, "The bug: start a child, release it, never wait");
    if (!open_manager(s, false, &manager)) return false;
    bool fine = tell_bug(s, manager);
    return close_manager(s, manager) && fine;
}

/* ---------------------------------------------------------------------------------------------
 * 2. The library
 * ------------------------------------------------------------------------------------------- */

// One life of a daemon. Counts whether it lived, and whether it ended by the polite step.
static bool one_cycle(struct story *s, pm_manager *manager, int number, int *lived, int *polite) {
    char name[32];
    pm_process *daemon = NULL;
    struct pm_stop_report report = PM_STOP_REPORT_INIT;
    snprintf(name, sizeof name, "cycle-%02d", number);
    bool fine = start_payload(s, manager, PM_MODE_DAEMON, name, &daemon);
    if (fine) {
        uint64_t pid = pm_process_pid(daemon);
        *lived += story_os_running(s->folder, &pid, 1) == 1 ? 1 : 0;
        fine = ok(s, pm_process_stop(daemon, NULL, &report), "pm_process_stop");
        *polite += report.ended_by_action == PM_STOP_TERMINATE ? 1 : 0;
    }
    pm_process_unref(daemon);
    return fine;
}

static bool tell_cycles(struct story *s, pm_manager *manager) {
    int lived = 0;
    int polite = 0;
    int most_zombies = 0;
    int64_t begin = story_os_now_ms();
    for (int i = 1; i <= CYCLES; i++) {
        if (!one_cycle(s, manager, i, &lived, &polite)) return false;
        int zombies = story_os_zombies();
        if (zombies < 0) return fail(s, "the process table cannot be read");
        most_zombies = zombies > most_zombies ? zombies : most_zombies;
    }
    int64_t elapsed = story_os_now_ms() - begin;
    bool fine = expect(s, "daemons started, seen alive, stopped", lived, CYCLES) &&
                expect(s, "of these, ended by the polite step of their plan", polite, CYCLES);
    label("time for all of them, in milliseconds");
    printf("%4" PRId64 "\n", elapsed);
    return fine && expect(s, "most zombies seen after any cycle", most_zombies, 0) &&
           expect(s, "zombies that the library's detector reports", detected(s, manager), 0) &&
           expect(s, "processes left", wait_until_none(s, NULL, 0), 0) && expect_records(s, CYCLES);
}

static bool tell_chapter_2(struct story *s) {
    pm_manager *manager = NULL;
    chapter(s, "The library: daemons come and go");
    if (!open_manager(s, true, &manager)) return false;
    bool fine = tell_cycles(s, manager);
    return close_manager(s, manager) && fine;
}

/* ---------------------------------------------------------------------------------------------
 * 3. The crash
 * ------------------------------------------------------------------------------------------- */

// The other side of this chapter: the program that will be killed. It tells its parent what it has
// started, a line each, then "ready".
static bool run_controller(struct story *s) {
    pm_manager *manager = NULL;
    if (!open_manager(s, true, &manager)) return false;
    bool fine = true;
    for (int i = 0; fine && i < CHILDREN + DAEMONS; i++) {
        bool daemon = i >= CHILDREN;
        char name[32];
        pm_process *process = NULL;
        snprintf(name, sizeof name, "%s-%d", daemon ? "daemon" : "child",
                 (daemon ? i - CHILDREN : i) + 1);
        fine = start_payload(s, manager, daemon ? PM_MODE_DAEMON : PM_MODE_NORMAL, name, &process);
        if (fine) printf("%s %" PRIu64 "\n", daemon ? "daemon" : "child", pm_process_pid(process));
        pm_process_unref(process);
    }
    if (fine) {
        printf("ready\n");
        fflush(stdout);
        story_os_sleep_ms(STORY_PAYLOAD_MS); // The kill comes in here.
    }
    pm_stop_daemons(manager, -1, NULL, NULL, NULL);
    pm_close(manager, -1, NULL);
    return fine;
}

// Reads one line from the controller, without its newline.
static bool read_line(struct story *s, pm_stream *stream, char *line, size_t capacity) {
    int64_t deadline = story_os_now_ms() + BOUND_MS;
    size_t length = 0;
    while (length + 1 < capacity) {
        size_t count = 0;
        int64_t left = deadline - story_os_now_ms();
        int result = pm_stream_read(stream, line + length, 1, left > 0 ? left : 0, &count);
        if (!ok(s, result, "pm_stream_read")) return false;
        if (count == 0) return fail(s, "the controller ended before it was ready");
        if (line[length] == '\n') {
            line[length > 0 && line[length - 1] == '\r' ? length - 1 : length] = '\0';
            return true;
        }
        length++;
    }
    return fail(s, "the controller talks nonsense");
}

static bool listen_to_controller(struct story *s, pm_process *controller) {
    pm_stream *stream = pm_process_stream(controller, PM_STDOUT);
    size_t children = 0;
    size_t daemons = 0;
    for (;;) {
        char line[1300];
        uint64_t pid;
        if (!read_line(s, stream, line, sizeof line)) return false;
        if (sscanf(line, "child %" SCNu64, &pid) == 1 && children < CHILDREN)
            s->children[children++] = pid;
        else if (sscanf(line, "daemon %" SCNu64, &pid) == 1 && daemons < DAEMONS)
            s->daemons[daemons++] = pid;
        else if (strcmp(line, "ready") == 0)
            break;
        else
            return fail(s, "the controller says: %s", line);
    }
    return expect(s, "its children, seen alive", story_os_running(s->folder, s->children, children),
                  CHILDREN) &&
           expect(s, "its daemons, seen alive", story_os_running(s->folder, s->daemons, daemons),
                  DAEMONS);
}

// kill -9, TerminateProcess: the one process and nothing around it.
static bool kill_controller(struct story *s, pm_process *controller) {
    struct pm_exit record = PM_EXIT_INIT;
    struct pm_stop_plan plan = {
        .steps_count = 1,
        .steps = {{.action = PM_STOP_KILL, .scope = PM_SCOPE_PROCESS, .timeout_ms = 5000}},
    };
    if (!ok(s, pm_process_stop(controller, &plan, NULL), "pm_process_stop") ||
        !ok(s, pm_process_wait(controller, BOUND_MS, &record), "pm_process_wait"))
        return false;
    if (record.kind == PM_EXIT_SIGNALED)
        return expect(s, "it is killed; its end: by signal", record.signal, 9);
    return expect(s, "it is terminated; its end: exited with code", record.code, 1);
}

static bool tell_crash(struct story *s, pm_manager *manager) {
    const char *const argv[] = {s->self, "--controller", s->folder, NULL};
    pm_process *controller = NULL;
    struct pm_spec spec = PM_SPEC_INIT;
    spec.owner = "story:controller";
    spec.program = s->self;
    spec.argv = argv;
    spec.stdin_slot.kind = PM_STDIO_NULL;
    spec.stdout_slot.kind = PM_STDIO_PIPE;
    spec.die_with_parent = true;
    if (!ok(s, pm_spawn(manager, &spec, &controller, &s->error), "pm_spawn")) return false;
    bool fine =
        listen_to_controller(s, controller) && kill_controller(s, controller) &&
        expect(s, "children left", wait_until_none(s, s->children, CHILDREN), 0) &&
        expect(s, "daemons still alive", story_os_running(s->folder, s->daemons, DAEMONS), DAEMONS);
    pm_process_unref(controller);
    return fine;
}

static bool tell_chapter_3(struct story *s) {
    pm_manager *manager = NULL;
    chapter(s, "The crash: a program with children and daemons is killed");
    if (!open_manager(s, false, &manager)) return false;
    bool fine = tell_crash(s, manager);
    return close_manager(s, manager) && fine;
}

/* ---------------------------------------------------------------------------------------------
 * 4. The second run
 * ------------------------------------------------------------------------------------------- */

static int show_row(void *user, pm_process *process) {
    struct story *s = user;
    struct pm_info info = PM_INFO_INIT;
    if (!ok(s, pm_process_info(process, &info), "pm_process_info")) return 1;
    printf("   %-18s %-8s %-9" PRIu64 " %6" PRIu64 " ms  %s\n", info.owner,
           info.mode == PM_MODE_DAEMON ? "daemon" : "normal", info.pid, info.uptime_ms,
           info.recovered ? "found again" : "just started");
    return 0;
}

static bool show_table(struct story *s, pm_manager *manager) {
    printf("   %s%-18s %-8s %-9s %9s%s\n", colour(s, "\033[2m"), "owner", "mode", "pid", "uptime",
           colour(s, "\033[0m"));
    return ok(s, pm_list(manager, show_row, s), "pm_list");
}

static void count_polite(void *user, pm_process *process, const struct pm_stop_report *report) {
    int *polite = user;
    (void)process;
    *polite += report->ended_by_action == PM_STOP_TERMINATE ? 1 : 0;
}

static bool tell_stops(struct story *s, pm_manager *manager) {
    struct pm_stop_all_report all = PM_STOP_ALL_REPORT_INIT;
    struct pm_stop_all_report daemons = PM_STOP_ALL_REPORT_INIT;
    int polite = 0;
    if (!ok(s, pm_stop_all(manager, -1, NULL, NULL, &all), "pm_stop_all") ||
        !expect(s, "StopAll: stopped", (int64_t)all.stopped, 1) ||
        !expect(s, "StopAll: daemons left alone", (int64_t)all.daemons, DAEMONS) ||
        !expect(s, "daemons still alive", story_os_running(s->folder, s->daemons, DAEMONS),
                DAEMONS))
        return false;
    return ok(s, pm_stop_daemons(manager, -1, count_polite, &polite, &daemons),
              "pm_stop_daemons") &&
           expect(s, "StopDaemons: stopped", (int64_t)daemons.stopped, DAEMONS) &&
           expect(s, "of these, ended by the polite step of their plan", polite, DAEMONS) &&
           expect(s, "daemons still alive", story_os_running(s->folder, s->daemons, DAEMONS), 0) &&
           expect_records(s, CYCLES + DAEMONS);
}

static bool tell_second_run(struct story *s, pm_manager *manager) {
    struct pm_recover_report found = PM_RECOVER_REPORT_INIT;
    if (!ok(s, pm_recover(manager, NULL, NULL, &found), "pm_recover") ||
        !expect(s, "daemons found in the registry, proven, alive", (int64_t)found.alive, DAEMONS))
        return false;
    return start_payload(s, manager, PM_MODE_NORMAL, "newcomer", NULL) && show_table(s, manager) &&
           tell_stops(s, manager);
}

static bool tell_chapter_4(struct story *s) {
    pm_manager *manager = NULL;
    chapter(s, "The second run: the daemons are found again");
    if (!open_manager(s, true, &manager)) return false;
    bool fine = tell_second_run(s, manager);
    return close_manager(s, manager) && fine;
}

/* ---------------------------------------------------------------------------------------------
 * 5. The end
 * ------------------------------------------------------------------------------------------- */

static bool tell_chapter_5(struct story *s) {
    pm_manager *manager = NULL;
    chapter(s, "The end: nothing is left");
    if (!open_manager(s, false, &manager)) return false;
    bool fine = expect(s, "processes left", wait_until_none(s, NULL, 0), 0) &&
                expect(s, "zombies in the process table", story_os_zombies(), 0) &&
                expect(s, "zombies that the library's detector reports", detected(s, manager), 0);
    return close_manager(s, manager) && fine;
}

// After a failure: ends what the registry still knows. Payloads that it does not know end by
// themselves.
static void sweep(struct story *s) {
    pm_manager *manager = NULL;
    struct pm_options options = PM_OPTIONS_INIT;
    options.registry_dir = s->registry;
    if (pm_open(&options, &manager, NULL) != PM_OK) return;
    pm_recover(manager, NULL, NULL, NULL);
    pm_stop_daemons(manager, -1, NULL, NULL, NULL);
    pm_close(manager, -1, NULL);
}

static bool tell(struct story *s) {
    if (!story_os_make_folder(s->folder)) return fail(s, "no folder for temporary files");
    bool fine = path_in(s->folder, "registry", "", s->registry) && tell_chapter_1(s) &&
                tell_chapter_2(s) && tell_chapter_3(s) && tell_chapter_4(s) && tell_chapter_5(s);
    if (!fine) sweep(s);
    bool removed = story_os_remove_folder(s->folder);
    return fine && expect(s, "temporary folder removed", removed ? 1 : 0, 1);
}

static struct story the_story;

int main(int argc, char **argv) {
    struct story *s = &the_story;
    pm_launcher_main(argc, argv); // First thing in main: daemons are started through this program.

    s->error = (struct pm_error)PM_ERROR_INIT;
    if (argc == 2 && strcmp(argv[1], "--exit") == 0) return 0;
    if (argc == 4 && strcmp(argv[1], "--payload") == 0) return story_os_payload();
    if (!story_os_self(argv[0], s->self)) {
        fprintf(stderr, "story: cannot find its own program file\n");
        return 1;
    }
    if (argc == 3 && strcmp(argv[1], "--controller") == 0) {
        bool fine = story_os_argument(argv, 2, s->folder) &&
                    path_in(s->folder, "registry", "", s->registry) && run_controller(s);
        if (!fine) printf("%s\n", s->failure);
        return fine ? 0 : 1;
    }
    if (argc != 1) {
        fprintf(stderr, "usage: story\n");
        return 2;
    }

    s->look = story_os_look();
    printf("processmgr %s, the story on the %s backend\n", pm_version(), story_os_backend());
    if (tell(s)) {
        printf("\nstory: OK (%s)\n", story_os_backend());
        return 0;
    }
    printf("\nstory: FAILED (%s) in chapter %d: %s\n", story_os_backend(), s->chapter, s->failure);
    return 1;
}
