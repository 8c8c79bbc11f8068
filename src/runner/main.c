// runner [OPTIONS] COMMAND [ARGUMENTS]: the runner and its client in one program.
#include <errno.h>
#include <processmgr/processmgr.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/control_client.h"
#include "runner/help.h"
#include "runner/memory.h"
#include "runner/os.h"
#include "runner/text.h"

static const struct runner_command commands[] = {
    {"serve", cli_serve, "", "run the runner here, in the foreground", help_serve},
    {"create", cli_create, "ID [OPTIONS] [-- PROGRAM [ARGUMENT...]]", "make a session",
     help_create},
    {"list", cli_list, "", "show all sessions", help_list},
    {"get", cli_get, "ID", "show one session", help_get},
    {"attach", cli_attach, "ID [OPTIONS]", "use a session on this terminal", help_attach},
    {"send", cli_send, "ID [OPTIONS] [TEXT]", "type into a session", help_send},
    {"resize", cli_resize, "ID COLUMNSxROWS", "change the size of its terminal", help_resize},
    {"logs", cli_logs, "ID [OPTIONS]", "show what a session has said", help_logs},
    {"stop", cli_stop, "ID [OPTIONS]", "end its child; record and output stay", help_stop},
    {"kill", cli_kill, "ID", "the same, at once", help_kill},
    {"destroy", cli_destroy, "ID [OPTIONS]", "end it and remove all of it", help_destroy},
    {"forget", cli_forget, "ID", "remove what is left of an ended one", help_forget},
    {"service", cli_service, "WORD [NAME] [OPTIONS]", "MCP servers and ACP agents", help_service},
    {"who", cli_who, "PID", "tell whose a process is", help_who},
    {"doctor", cli_doctor, "", "find what is wrong, and how to mend it", help_doctor},
    {"info", cli_info, "", "how the runner is", help_info},
    {"events", cli_events, "", "tell what happens, as it happens", help_events},
    {"upgrade", cli_upgrade, "[BINARY]", "another runner in the place of this one", help_upgrade},
    {"shutdown", cli_shutdown, "[OPTIONS]", "end the runner; sessions go on", help_shutdown},
};
#define COMMANDS (sizeof commands / sizeof commands[0])

const struct runner_command *runner_find_command(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            return &commands[i];
        }
    }
    return NULL;
}

static void print_help(void)
{
    (void)printf("%s\nCommands (runner COMMAND --help tells more):\n\n", help_runner);
    for (size_t i = 0; i < COMMANDS; i++) {
        (void)printf("  %-9s %s\n", commands[i].name, commands[i].summary);
    }
    (void)printf("\n%s", help_options);
}

static int print_command_help(const struct runner_command *command)
{
    (void)printf("runner %s %s\n\n%s\n", command->name, command->arguments, command->help);
    return RUNNER_OK;
}

int runner_usage(const struct runner_env *env, const char *command, const char *format, ...)
{
    struct runner_error error;
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    (void)runner_fail(&error, RUNNER_USAGE, "usage\n%s\nrunner %s%s--help", text,
                      command != NULL ? command : "", command != NULL ? " " : "");
    return runner_report(env, &error);
}

int runner_report(const struct runner_env *env, const struct runner_error *error)
{
    char text[RUNNER_NEXT_MAX];
    const char *next = runner_next(env, error->next, text);
    if (env->json) {
        json_t *json =
            json_pack("{s:{s:s, s:o, s:o, s:o, s:i}}", "error", "name",
                      runner_code_name(error->code), "what", text_json(error->what), "why",
                      text_json(error->why), "next", text_json(next), "code", error->code);
        if (json != NULL && error->bytes >= 0) {
            (void)json_object_set_new(json_object_get(json, "error"), "bytes",
                                      json_integer((json_int_t)error->bytes));
        }
        (void)json_dumpf(json, stdout, JSON_COMPACT);
        (void)putchar('\n');
        json_decref(json);
    }
    (void)fprintf(stderr, "runner: %s%s%s\n", error->what, error->why[0] != '\0' ? ": " : "",
                  error->why);
    if (next[0] != '\0') {
        (void)fprintf(stderr, "  next: %s\n", next);
    }
    return error->code;
}

// ------------------------------------------------------------------------------------------------
// Where it works
// ------------------------------------------------------------------------------------------------

static void find_program(char path[4096])
{
    static const char deleted[] = " (deleted)"; // Linux, of a file that was replaced.
    size_t size = 4096;
    path[0] = '\0';
    (void)uv_exepath(path, &size);
    size_t length = strlen(path), tail = sizeof deleted - 1;
    if (length > tail && strcmp(path + length - tail, deleted) == 0) {
        path[length - tail] = '\0';
    }
}

static int fail_long(const char *path, unsigned max, struct runner_error *error)
{
    return runner_fail(error, RUNNER_FAILED,
                       "state folder '%.200s'\nits path is longer than %u characters\n"
                       "none: name a shorter one by --state DIR, or PROCESSMGR_STATE",
                       path, max);
}

// NULL: none was named.
static const char *named_state(const char *option, char given[4096])
{
    size_t size = 4096;
    bool named = option == NULL && uv_os_getenv("PROCESSMGR_STATE", given, &size) == 0;
    return named && given[0] != '\0' ? given : option;
}

// All that is said of it is JSON.
static bool is_text(const char *path)
{
    json_t *json = json_string(path);
    json_decref(json);
    return json != NULL;
}

static int fail_no_text(const char *path, struct runner_error *error)
{
    char shown[201];
    (void)snprintf(shown, sizeof shown, "%s", path);
    text_mend(shown);
    return runner_fail(error, RUNNER_FAILED,
                       "state folder '%s'\nits path is no UTF-8\n"
                       "none: name another one by --state DIR, or PROCESSMGR_STATE",
                       shown);
}

// The folder that it will be in, without the links on the way.
static bool parent_is_text(const char *path)
{
    uv_fs_t request;
    char parent[4096];
    size_t length = strlen(path);
    while (length > 0 && path[length - 1] == '/') {
        length--;
    }
    while (length > 0 && path[length - 1] != '/') {
        length--;
    }
    (void)snprintf(parent, sizeof parent, "%.*s.", (int)length, path);
    bool text = uv_fs_realpath(NULL, &request, parent, NULL) != 0 || is_text(request.ptr);
    uv_fs_req_cleanup(&request);
    return text; // What else is wrong is told by who makes it.
}

// The place of the usual one, of which whoever asks makes what is not there.
static bool usual_is_text(char given[4096])
{
    size_t size = 4096;
    if (uv_os_getenv("XDG_STATE_HOME", given, &size) == 0 && given[0] == '/') {
        return is_text(given);
    }
    size = 4096;
    return uv_os_getenv("HOME", given, &size) != 0 || is_text(given);
}

// The one that was named, or else the usual one, whose parents are made: they are the user's.
// pm_free(*ret_standard).
static int choose_state(const char *wanted, char **ret_standard, const char **ret_wanted,
                        struct runner_error *error)
{
    char given[4096];
    *ret_standard = NULL;
    if (wanted == NULL && !usual_is_text(given)) {
        return fail_no_text(given, error);
    }
    if (wanted == NULL) {
        int result = pm_default_state_dir("processmgr-runner", ret_standard);
        if (result != PM_OK) {
            return runner_fail(
                error, RUNNER_FAILED,
                "state folder\nthere is no place for the usual one, in the user's home: "
                "%s\nnone: name one by --state DIR, or PROCESSMGR_STATE",
                pm_strerror(result));
        }
        wanted = *ret_standard;
    }
    *ret_wanted = wanted;
    return is_text(wanted) && parent_is_text(wanted) ? RUNNER_OK : fail_no_text(wanted, error);
}

// Its folders are resolved; it itself is no link.
static int make_state(const char *wanted, char path[4096], struct runner_error *error)
{
    uv_fs_t request;
    unsigned max;
    if (!os_state_fits(wanted, &max)) {
        return fail_long(wanted, max, error);
    }
    int code = os_private_dir(wanted, error);
    if (code != RUNNER_OK) {
        return code;
    }
    int result = uv_fs_realpath(NULL, &request, wanted, NULL);
    const char *real = result == 0 ? request.ptr : "";
    if (result != 0) {
        code = runner_fail(error, RUNNER_FAILED, "state folder '%.200s'\n%s", wanted,
                           uv_strerror(result));
    } else if (!os_state_fits(real, &max)) {
        code = fail_long(real, max, error);
    } else if (!is_text(real)) {
        code = fail_no_text(real, error);
    } else {
        (void)snprintf(path, 4096, "%s", real);
    }
    uv_fs_req_cleanup(&request);
    return code;
}

static int open_state(const char *option, char path[4096], struct runner_error *error)
{
    char *standard;
    const char *wanted;
    int code = choose_state(option, &standard, &wanted, error);
    if (code == RUNNER_OK) {
        code = make_state(wanted, path, error);
    }
    pm_free(standard);
    return code;
}

// Options before the command. The number of arguments they are; 0 - code: the end.
static int take_options(struct runner_env *env, int argc, char **argv, const char **ret_state,
                        bool *ret_done)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-'; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help();
            *ret_done = true;
        } else if (strcmp(argv[i], "--version") == 0) {
            (void)printf("runner %s\n", pm_version());
            *ret_done = true;
        } else if (strcmp(argv[i], "--json") == 0) {
            env->json = true;
        } else if (strcmp(argv[i], "--no-start") == 0) {
            env->no_start = true;
        } else if (strcmp(argv[i], "--state") == 0 && i + 1 < argc) {
            *ret_state = argv[++i];
        } else {
            return -runner_usage(env, NULL, "no such option, or no value for it: %s", argv[i]);
        }
    }
    return i;
}

// For commands that change nothing: the folder is not made, and its rights are not looked at.
static int find_state(const char *option, char path[4096], struct runner_error *error)
{
    uv_fs_t request;
    char *standard;
    const char *wanted;
    int code = choose_state(option, &standard, &wanted, error);
    if (code == RUNNER_OK) {
        bool real = uv_fs_realpath(NULL, &request, wanted, NULL) == 0;
        (void)snprintf(path, 4096, "%.3800s", real ? (const char *)request.ptr : wanted);
        uv_fs_req_cleanup(&request);
        code = is_text(path) ? RUNNER_OK : fail_no_text(path, error);
    }
    pm_free(standard);
    return code;
}

// Whoever only looks, or starts no runner, makes no folder.
static int take_state(const struct runner_env *env, const struct runner_command *command,
                      const char *wanted, char path[4096], struct runner_error *error)
{
    uv_fs_t request;
    bool looks = command->run == cli_who || command->run == cli_doctor;
    bool starts = command->run == cli_serve || (!env->no_start && command->run != cli_shutdown);
    if (starts && !looks) {
        return open_state(wanted, path, error);
    }
    int code = find_state(wanted, path, error);
    if (code == RUNNER_OK && !looks) {
        bool exists = uv_fs_lstat(NULL, &request, path, NULL) == 0;
        uv_fs_req_cleanup(&request);
        code = exists ? open_state(wanted, path, error) : code;
    }
    return code;
}

static bool asks_for_help(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            return true;
        }
    }
    return false;
}

// `--json` is understood behind the command, too.
static int drop_json(struct runner_env *env, int argc, char **argv)
{
    int to = 0;
    bool rest = false;
    for (int i = 0; i < argc; i++) {
        rest = rest || strcmp(argv[i], "--") == 0;
        if (!rest && strcmp(argv[i], "--json") == 0) {
            env->json = true;
        } else {
            argv[to++] = argv[i];
        }
    }
    argv[to] = NULL;
    return to;
}

// Of `send`, where the options may come first: behind its id.
static int end_of_id(int argc, char **argv)
{
    int at = 1;
    while (at < argc && argv[at][0] == '-') {
        at += strcmp(argv[at], "--timeout") == 0 ? 2 : 1;
    }
    return at < argc ? at + 1 : argc;
}

// What is said to a runner is JSON; `send` has another way for what it types. 0: all of it is text.
static int find_no_text(const struct runner_command *command, int argc, char **argv)
{
    int end = command->run == cli_send ? end_of_id(argc, argv) : argc;
    for (int i = 1; i < end; i++) {
        if (!is_text(argv[i])) {
            return i;
        }
    }
    return 0;
}

// What could not be printed was not told. Who reads no more, as `head`, has what it wanted, and so
// has who gave us nothing to print to.
static int end_output(const struct runner_env *env, int code)
{
    struct runner_error error;
    errno = 0;
    bool fine = fflush(stdout) == 0 && !ferror(stdout);
    if (fine || code != RUNNER_OK || errno == EPIPE || errno == EBADF) {
        return code;
    }
    (void)runner_fail(&error, RUNNER_FAILED,
                      "output\nstdout cannot be written to%s%s\n"
                      "none: it was done; give it a stdout that takes what it says",
                      errno != 0 ? ": " : "", errno != 0 ? strerror(errno) : "");
    return runner_report(env, &error);
}

int main(int argc, char **argv)
{
    struct runner_env env = {.json = false};
    struct runner_error error;
    char program[4096], state[4096] = "", given[4096];
    const char *wanted = NULL;
    bool done = false;
    pm_launcher_main(argc, argv);
    os_begin();
    memory_watch(malloc);
    os_arguments(&argc, &argv);
    find_program(program);
    env.program = program;
    env.state_dir = state;
    int at = take_options(&env, argc, argv, &wanted, &done);
    if (at < 0 || done) {
        return at < 0 ? -at : end_output(&env, RUNNER_OK);
    }
    if (at == argc) {
        print_help();
        return RUNNER_USAGE;
    }
    const struct runner_command *command = runner_find_command(argv[at]);
    if (command == NULL) {
        return runner_usage(&env, NULL, "no such command: %s", argv[at]);
    }
    argc = drop_json(&env, argc - at, argv + at);
    argv += at;
    if (asks_for_help(argc, argv)) {
        return end_output(&env, print_command_help(command));
    }
    int no_text = find_no_text(command, argc, argv);
    if (no_text != 0) {
        return runner_usage(&env, command->name, "argument %d is no UTF-8", no_text);
    }
    wanted = named_state(wanted, given);
    env.elsewhere = wanted != NULL;
    // Whoever only asks what it is touches nothing.
    bool check_only = argc == 2 && strcmp(argv[1], "--self-check") == 0;
    int code = check_only ? RUNNER_OK : take_state(&env, command, wanted, state, &error);
    return code == RUNNER_OK ? end_output(&env, command->run(&env, argc, argv))
                             : runner_report(&env, &error);
}
