// A runner that starts by itself on first use. Who starts it owns STATE/starter, a registry with
// one daemon in it, for so long: of any number that try at once one starts, and the others wait for
// it.
#include <processmgr/processmgr.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/control_client.h"
#include "runner/server.h"

#define START_TIMEOUT_MS 10000
#define LOOK_MS 10

static bool answers(const struct runner_env *env)
{
    return client_probe(env) == 0;
}

static void spawn_spec(const struct runner_env *env, const char *const *argv, const char *words,
                       struct pm_spec *spec)
{
    // A service that a client runs in is not the runner's.
    static const char *const without[] = {NOTIFY_ENV, NULL};
    spec->env = without;
    spec->owner = "runner";
    spec->program = env->program;
    spec->argv = argv;
    spec->cwd = env->state_dir;
    spec->mode = PM_MODE_DAEMON;
    spec->key = "runner";
    spec->stderr_slot.kind = PM_STDIO_FILE_TRUNCATE;
    spec->stderr_slot.path = words;
    spec->accept_outer_job = true; // `doctor` tells what that means.
}

void runner_one_line(char *text)
{
    size_t size = strlen(text);
    while (size > 0 && (text[size - 1] == '\n' || text[size - 1] == '\r')) {
        text[--size] = '\0';
    }
    for (; *text != '\0'; text++) {
        *text = (char)(*text == '\n' || *text == '\r' ? ' ' : *text);
    }
}

void runner_words_from(const char *path, uint64_t from, char *text, size_t capacity)
{
    uv_fs_t request;
    size_t size = 0;
    int n = 1, file = uv_fs_open(NULL, &request, path,
                                 UV_FS_O_RDONLY | UV_FS_O_NOFOLLOW | UV_FS_O_NONBLOCK, 0, NULL);
    uv_fs_req_cleanup(&request);
    while (file >= 0 && n > 0 && size < capacity - 1) {
        uv_buf_t rest = uv_buf_init(text + size, (unsigned)(capacity - 1 - size));
        n = uv_fs_read(NULL, &request, file, &rest, 1, (int64_t)(from + size), NULL);
        uv_fs_req_cleanup(&request);
        size += n > 0 ? (size_t)n : 0;
    }
    if (file >= 0) {
        (void)uv_fs_close(NULL, &request, file, NULL);
        uv_fs_req_cleanup(&request);
    }
    text[size] = '\0';
    runner_one_line(text);
}

void runner_last_words(const char *path, char *text, size_t capacity)
{
    uv_fs_t request;
    uint64_t size = uv_fs_stat(NULL, &request, path, NULL) == 0 ? request.statbuf.st_size : 0;
    uv_fs_req_cleanup(&request);
    runner_words_from(path, size > capacity - 1 ? size - capacity + 1 : 0, text, capacity);
}

#define ANOTHER_LEAVES (-1)

struct started {
    pm_process *process;
    bool found; // It was there before.
};

// ANOTHER_LEAVES: one that was there has ended, or ours has found one, which does not answer.
static int wait_until_up(const struct runner_env *env, const struct started *started,
                         const char *words, uint64_t deadline, struct runner_error *error)
{
    char text[512];
    while (!answers(env)) {
        bool lives = pm_process_alive(started->process);
        runner_last_words(words, text, sizeof text); // After that: they are its last.
        if (!lives && !started->found && strstr(text, SERVED_BY_ANOTHER) == NULL) {
            return runner_fail(error, RUNNER_UNREACHABLE,
                               "start of a runner for '%s'\nit ended at once: %s\nrunner serve",
                               env->state_dir, text);
        }
        if (monotonic_ms() > deadline) {
            return runner_fail(error, RUNNER_UNREACHABLE,
                               "start of a runner for '%s'\nprocess %llu does not answer\n"
                               "runner doctor",
                               env->state_dir,
                               (unsigned long long)pm_process_pid(started->process));
        }
        uv_sleep(LOOK_MS);
        if (!lives && !answers(env)) {
            return ANOTHER_LEAVES;
        }
    }
    return RUNNER_OK;
}

// The one that is there may be dead, and its end not told by the system yet: it is waited for.
static int spawn_or_find(pm_manager *manager, const struct pm_spec *spec,
                         struct started *ret_started, struct pm_error *detail)
{
    int result = PM_ERR_EXISTS;
    pm_process *process;
    for (int i = 0; i < 10 && result == PM_ERR_EXISTS; i++) {
        result = pm_spawn(manager, spec, &process, detail);
        if (result == PM_OK) {
            *ret_started = (struct started){process, false};
        }
        if (result != PM_ERR_EXISTS || pm_find(manager, spec->key, &process) != PM_OK) {
            continue;
        }
        if (pm_process_alive(process)) {
            *ret_started = (struct started){process, true};
            return PM_OK;
        }
        (void)pm_process_wait(process, 1000, NULL);
        (void)pm_process_unref(process);
    }
    return result;
}

// We own the starter's registry.
static int start_in(const struct runner_env *env, pm_manager *manager, struct runner_error *error)
{
    const char *const argv[] = {env->program, "--state",     env->state_dir,
                                "serve",      "--by-itself", NULL};
    struct pm_spec spec = PM_SPEC_INIT;
    struct pm_error detail = PM_ERROR_INIT;
    struct started started;
    char words[4096], line[1024];
    (void)snprintf(words, sizeof words, "%s/runner.err", env->state_dir);
    if (answers(env)) { // Somebody started it while we came here.
        return RUNNER_OK;
    }
    (void)pm_recover(manager, NULL, NULL, NULL); // Forgets one that is gone.
    spawn_spec(env, argv, words, &spec);
    uint64_t deadline = monotonic_ms() + START_TIMEOUT_MS;
    int code = ANOTHER_LEAVES;
    while (code == ANOTHER_LEAVES) {
        int result = spawn_or_find(manager, &spec, &started, &detail);
        if (result != PM_OK) {
            (void)pm_error_format(&detail, line, sizeof line);
            return runner_fail(error, RUNNER_FAILED, "start of a runner\n%s\nrunner serve", line);
        }
        code = wait_until_up(env, &started, words, deadline, error);
        (void)pm_process_unref(started.process);
    }
    return code;
}

int runner_start(const struct runner_env *env, struct runner_error *error)
{
    struct pm_options options = PM_OPTIONS_INIT;
    struct pm_error detail = PM_ERROR_INIT;
    pm_manager *manager;
    char dir[4096], line[1024];
    uint64_t deadline = monotonic_ms() + UINT64_C(2) * START_TIMEOUT_MS;
    (void)snprintf(dir, sizeof dir, "%s/starter", env->state_dir);
    options.registry_dir = dir;
    options.leak_sweep_ms = UINT32_MAX;
    options.stop_watch_ms = UINT32_MAX;
    options.status_pending_ms = 1; // Nobody asks how it ended.
    for (;;) {
        int result = pm_open(&options, &manager, &detail);
        if (result == PM_OK) {
            break;
        }
        if (result != PM_ERR_REGISTRY_BUSY || monotonic_ms() > deadline) {
            (void)pm_error_format(&detail, line, sizeof line);
            return runner_fail(error, RUNNER_UNREACHABLE, "start of a runner\n%s\nrunner serve",
                               line);
        }
        if (answers(env)) {
            return RUNNER_OK;
        }
        uv_sleep(LOOK_MS);
    }
    int code = start_in(env, manager, error);
    (void)pm_close(manager, 1000, NULL);
    return code;
}
