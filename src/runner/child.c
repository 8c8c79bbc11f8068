// A child of the runner with three pipes. Starts and stops block, and have threads of their own.
//
//   STARTING --pm_spawn()--> RUNNING --its exit--> DRAINING --both outputs at their end, or silent
//       |                       |                               for 250 ms, 2 s at most--> over
//       |                       +-- stop: stdin closed -- leave_ms --> the stop plan
//       +-- stop: as soon as it is there
//
// Who holds the pipes beside it (a grandchild) delays nothing: with its exit its tree is killed,
// and what has left the tree is not waited for.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/feed.h"
#include "runner/post.h"
#include "runner/transport.h"

#define DRAIN_SILENCE_MS 250
#define DRAIN_MAX_MS 2000
#define GIVE_UP_MS 10000 // After the last step: it cannot be ended, and is told as lost.
#define MUTE_MS 1000     // From the end of its output to its own.
#define KILLED_MS 3000   // The same after child_kill().
#define AGAIN_MS 100     // No thread was to be had.
#define SAID_SIZE 16384u // The loop reads up to 32 of them before it does something else.

enum child_state {
    CHILD_STARTING = 0,
    CHILD_RUNNING,
    CHILD_DRAINING,
    CHILD_OVER
};

struct child {
    struct transport transport;
    struct transport_options options;
    enum child_state state;
    uv_pipe_t pipes[3];
    bool open[3]; // The pipes are handles of the loop.
    uv_timer_t timer;
    uv_shutdown_t shutdown;
    unsigned handles; // Not closed yet.
    bool stopping, planned, planning, spawning, killed;
    bool exit_due; // The manager will tell the exit.
    bool gone;     // Nobody is told anything more; freed when nothing refers to it.
    struct post_thread thread;
    struct post_item exit_item;
    struct pm_exit exit, exit_told; // exit_told: written on a thread of the manager.
    bool exited;
    uint64_t drain_end;
    pm_process *process;
    int spawned; // What pm_spawn() said.
    struct pm_error detail;
    struct feed feed;
    size_t unsent;
    char *said;
};

struct child_write {
    uv_write_t request;
    struct child *child;
    char *line;
    size_t size;
};

static void free_child(struct child *child)
{
    if (child->handles > 0 || child->exit_due || child->planning || child->spawning ||
        !child->gone) {
        return;
    }
    (void)pm_process_unref(child->process);
    feed_clear(&child->feed);
    free(child->said);
    free(child);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct child *child = handle->data;
    child->handles--;
    free_child(child);
}

static void close_pipe(struct child *child, int which)
{
    if (child->open[which]) {
        child->open[which] = false;
        uv_close((uv_handle_t *)&child->pipes[which], on_handle_closed);
    }
}

static void let_go(struct child *child)
{
    child->gone = true;
    child->state = CHILD_OVER;
    for (int i = 0; i < 3; i++) {
        close_pipe(child, i);
    }
    uv_close((uv_handle_t *)&child->timer, on_handle_closed);
}

static void finish(struct child *child)
{
    char line[1024];
    struct runner_error error;
    struct transport_ended ended = {.started = child->process != NULL, .exit = child->exit};
    if (child->gone) {
        return;
    }
    if (!ended.started) {
        (void)pm_error_format(&child->detail, line, sizeof line);
        (void)runner_fail(&error, RUNNER_FAILED, "start of service '%s'\n%s", child->options.name,
                          line);
        ended.failed = &error;
    }
    struct transport_handler handler = child->options.handler;
    let_go(child);
    handler.ended(handler.user, &ended);
}

// ------------------------------------------------------------------------------------------------
// Its end
// ------------------------------------------------------------------------------------------------

static void on_drain_timer(uv_timer_t *timer)
{
    finish(timer->data);
}

static void wait_for_silence(struct child *child)
{
    uint64_t now = uv_now(&child->options.server->loop);
    uint64_t left = child->drain_end > now ? child->drain_end - now : 0;
    (void)uv_timer_start(&child->timer, on_drain_timer,
                         left < DRAIN_SILENCE_MS ? left : DRAIN_SILENCE_MS, 0);
}

static void look_whether_over(struct child *child)
{
    if (child->state == CHILD_DRAINING && !child->open[PM_STDOUT] && !child->open[PM_STDERR]) {
        finish(child);
    }
}

static void drain(struct child *child)
{
    if (child->state == CHILD_RUNNING) {
        child->state = CHILD_DRAINING;
        close_pipe(child, PM_STDIN);
        child->drain_end = uv_now(&child->options.server->loop) + DRAIN_MAX_MS;
        wait_for_silence(child);
        look_whether_over(child);
    }
}

static void on_exit_told(void *user)
{
    struct child *child = user;
    child->exit_due = false;
    post_let(child->options.post);
    if (child->gone) {
        free_child(child);
        return;
    }
    child->exited = true;
    child->exit = child->exit_told;
    drain(child); // While it starts: after that.
}

// On a thread of the manager.
static void on_process_exit(pm_process *process, const struct pm_exit *record, void *user)
{
    struct child *child = user;
    (void)process;
    child->exit_told = *record;
    post_send(child->options.post, &child->exit_item);
}

static void on_give_up(uv_timer_t *timer)
{
    struct child *child = timer->data;
    child->exit = (struct pm_exit){.size = sizeof child->exit, .kind = PM_EXIT_LOST};
    drain(child);
}

static void run_plan(void *user)
{
    struct child *child = user;
    (void)pm_process_stop(child->process, NULL, NULL);
}

static void after_plan(void *user)
{
    struct child *child = user;
    child->planning = false;
    if (child->gone) {
        free_child(child);
    } else if (child->state == CHILD_RUNNING && !child->killed) {
        (void)uv_timer_start(&child->timer, on_give_up, GIVE_UP_MS, 0);
    }
}

static void on_leave_over(uv_timer_t *timer);

static void begin_plan(struct child *child)
{
    if (child->planned || child->state != CHILD_RUNNING) {
        return;
    }
    child->planned = true;
    close_pipe(child, PM_STDIN);
    child->thread = (struct post_thread){.block = run_plan, .after = after_plan, .user = child};
    child->planning = post_thread(child->options.post, &child->thread) == 0;
    if (!child->planning) { // No thread to be had now, and this one must not wait.
        child->planned = false;
        (void)uv_timer_start(&child->timer, on_leave_over, AGAIN_MS, 0);
    }
}

static void on_leave_over(uv_timer_t *timer)
{
    begin_plan(timer->data);
}

static void on_shutdown(uv_shutdown_t *request, int status)
{
    struct child *child = request->data;
    (void)status;
    close_pipe(child, PM_STDIN);
}

static void begin_stop(struct child *child)
{
    if (child->planned || child->killed) { // The timer is that of its end already.
        return;
    }
    child->shutdown.data = child;
    if (!child->open[PM_STDIN] ||
        uv_shutdown(&child->shutdown, (uv_stream_t *)&child->pipes[PM_STDIN], on_shutdown) != 0) {
        close_pipe(child, PM_STDIN);
    }
    (void)uv_timer_start(&child->timer, on_leave_over, child->options.config->leave_ms, 0);
}

static void child_stop(struct transport *transport)
{
    struct child *child = (struct child *)transport;
    if (!child->stopping) {
        child->stopping = true;
        if (child->state == CHILD_RUNNING) {
            begin_stop(child);
        }
    }
}

// Beside a plan that may be under way. It waits a millisecond.
static void kill_now(struct child *child)
{
    const struct pm_stop_plan plan = {.steps_count = 1,
                                      .steps = {{PM_STOP_KILL, PM_SCOPE_TREE, 1}}};
    close_pipe(child, PM_STDIN);
    (void)pm_process_stop(child->process, &plan, NULL);
    (void)uv_timer_start(&child->timer, on_give_up, KILLED_MS, 0);
}

static void child_kill(struct transport *transport)
{
    struct child *child = (struct child *)transport;
    child->stopping = child->killed = true;
    if (child->state == CHILD_RUNNING) { // One that just starts is killed when it has.
        kill_now(child);
    }
}

// ------------------------------------------------------------------------------------------------
// What it says
// ------------------------------------------------------------------------------------------------

static bool on_line(void *user, const char *line, size_t size, uint64_t end)
{
    struct child *child = user;
    if (!child->gone) {
        child->options.handler.line(child->options.handler.user, line, size, end);
    }
    return true;
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct child *child = handle->data;
    size_t size = 0;
    char *room;
    (void)suggested;
    if (handle == (uv_handle_t *)&child->pipes[PM_STDOUT]) {
        room = feed_room(&child->feed, &size);
    } else {
        child->said = child->said != NULL ? child->said : malloc(SAID_SIZE);
        room = child->said;
        size = SAID_SIZE;
    }
    *buffer = uv_buf_init(room, room != NULL ? (unsigned)size : 0);
}

// It goes on, and says nothing any more: whoever waits for an answer need not wait longer.
static void on_mute(uv_timer_t *timer)
{
    struct child *child = timer->data;
    child->options.handler.deaf(child->options.handler.user, "it has closed its output");
}

static void on_read(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    struct child *child = stream->data;
    int which = stream == (uv_stream_t *)&child->pipes[PM_STDOUT] ? PM_STDOUT : PM_STDERR;
    (void)buffer;
    if (size < 0 && size != UV_ENOBUFS) { // For want of memory it is tried again.
        close_pipe(child, which);
        look_whether_over(child);
        if (which == PM_STDOUT && child->state == CHILD_RUNNING && !child->stopping &&
            !child->planned) {
            (void)uv_timer_start(&child->timer, on_mute, MUTE_MS, 0);
        }
        return;
    }
    if (child->state == CHILD_DRAINING && size > 0) {
        wait_for_silence(child);
    }
    if (size > 0 && which == PM_STDOUT) {
        feed_take(&child->feed, (size_t)size, on_line, child);
    } else if (size > 0) {
        child->options.handler.said(child->options.handler.user, child->said, (size_t)size);
    }
}

// ------------------------------------------------------------------------------------------------
// What is said to it
// ------------------------------------------------------------------------------------------------

static void on_written(uv_write_t *request, int status)
{
    struct child_write *write = (struct child_write *)request;
    struct child *child = write->child;
    child->unsent -= write->size;
    free(write->line);
    free(write);
    if (status != 0 && child->open[PM_STDIN]) {
        close_pipe(child, PM_STDIN);
        if (child->state == CHILD_RUNNING && !child->stopping) {
            child->options.handler.deaf(child->options.handler.user, "it has closed its input");
        }
    }
}

static int child_write(struct transport *transport, char *line, size_t size, const char *answers)
{
    struct child *child = (struct child *)transport;
    int result = !child->open[PM_STDIN] || child->stopping                          ? UV_EPIPE
                 : child->unsent > 0 && child->unsent + size > TRANSPORT_UNSENT_MAX ? UV_ENOBUFS
                                                                                    : 0;
    struct child_write *write = result == 0 ? malloc(sizeof *write) : NULL;
    (void)answers;
    if (write == NULL) {
        free(line);
        return result != 0 ? result : UV_ENOMEM;
    }
    *write = (struct child_write){.child = child, .line = line, .size = size};
    uv_buf_t buffer = uv_buf_init(line, (unsigned)size);
    child->unsent += size;
    result =
        uv_write(&write->request, (uv_stream_t *)&child->pipes[PM_STDIN], &buffer, 1, on_written);
    if (result != 0) {
        on_written(&write->request, result);
    }
    return result;
}

static size_t child_unsent(const struct transport *transport)
{
    return ((const struct child *)transport)->unsent;
}

// ------------------------------------------------------------------------------------------------
// Its start
// ------------------------------------------------------------------------------------------------

static int take_pipe(struct child *child, int which)
{
    pm_native native;
    int result =
        pm_stream_take(pm_process_stream(child->process, (enum pm_stream_id)which), &native);
    if (result != PM_OK) {
        return result;
    }
    uv_pipe_t *pipe = &child->pipes[which];
    (void)uv_pipe_init(&child->options.server->loop, pipe, 0);
    pipe->data = child;
    child->open[which] = true;
    child->handles++;
    if (os_pipe_open(pipe, native) != 0 ||
        (which != PM_STDIN && uv_read_start((uv_stream_t *)pipe, on_alloc, on_read) != 0)) {
        close_pipe(child, which);
        return PM_ERR_IO;
    }
    return PM_OK;
}

static void after_spawn(void *user)
{
    struct child *child = user;
    child->spawning = false;
    if (child->spawned != PM_OK) {
        child->exit_due = false;
        post_let(child->options.post);
        finish(child);
        return;
    }
    child->state = CHILD_RUNNING;
    bool broken = false;
    for (int i = 0; i < 3; i++) {
        broken = take_pipe(child, i) != PM_OK || broken;
    }
    const struct transport_started started = {.pid = pm_process_pid(child->process)};
    if (!child->stopping) {
        child->options.handler.started(child->options.handler.user, &started);
    }
    if (child->killed) {
        kill_now(child);
    } else if (broken) { // No descriptors: it is of no use.
        begin_plan(child);
    } else if (child->stopping) { // Meanwhile.
        begin_stop(child);
    }
    if (child->exited) {
        drain(child);
    }
}

// The folder, arguments and variables of the configuration.
static const char **take_texts(const json_t *list, const char *first)
{
    size_t i;
    const json_t *item;
    const char **texts = calloc(json_array_size(list) + 2, sizeof *texts);
    if (texts == NULL) {
        return NULL;
    }
    texts[0] = first;
    json_array_foreach(list, i, item)
    {
        texts[i + 1] = json_string_value(item);
    }
    return texts;
}

static void free_env(char **env)
{
    for (size_t i = 0; env != NULL && env[i] != NULL; i++) {
        free(env[i]);
    }
    free(env);
}

static char **take_env(const json_t *object)
{
    const char *name;
    json_t *value;
    size_t at = 0;
    char **env = calloc(json_object_size(object) + 1, sizeof *env);
    json_object_foreach((json_t *)(uintptr_t)object, name, value)
    {
        const char *text = json_string_value(value); // NULL: it is removed.
        size_t size = strlen(name) + (text != NULL ? strlen(text) : 0) + 2;
        if (env == NULL || (env[at] = malloc(size)) == NULL) {
            free_env(env);
            return NULL;
        }
        (void)snprintf(env[at++], size, "%s%s%s", name, text != NULL ? "=" : "",
                       text != NULL ? text : "");
    }
    return env;
}

static void run_spawn(void *user)
{
    struct child *child = user;
    const struct service_config *config = child->options.config;
    struct pm_spec spec = PM_SPEC_INIT;
    char owner[SERVICE_NAME_MAX + 16];
    const char **argv = take_texts(config->args, config->command);
    char **env = take_env(config->env);
    if (argv == NULL || env == NULL) {
        child->spawned = PM_ERR_NO_MEMORY;
        child->detail.code = PM_ERR_NO_MEMORY;
    } else {
        (void)snprintf(owner, sizeof owner, "service:%s", child->options.name);
        spec.owner = owner;
        spec.program = config->command;
        spec.argv = argv;
        spec.cwd = child->options.cwd;
        spec.env_base = config->inherit ? PM_ENV_INHERIT : PM_ENV_EMPTY;
        spec.env = (const char *const *)env;
        spec.stdin_slot.kind = spec.stdout_slot.kind = spec.stderr_slot.kind = PM_STDIO_PIPE;
        spec.die_with_parent = spec.kill_tree_on_exit = true;
        os_allow_batch_file(&spec);
        spec.on_exit = on_process_exit;
        spec.user = child;
        spec.stop =
            (struct pm_stop_plan){.steps_count = 2,
                                  .steps = {{PM_STOP_TERMINATE, PM_SCOPE_TREE, config->grace_ms},
                                            {PM_STOP_KILL, PM_SCOPE_TREE, 0}}};
        child->spawned =
            pm_spawn(child->options.server->manager, &spec, &child->process, &child->detail);
    }
    free((void *)argv);
    free_env(env);
}

struct transport *child_start(const struct transport_options *options)
{
    static const struct transport_ops ops = {child_write, child_unsent, child_stop,
                                             child_stop,  child_kill,   NULL};
    struct child *child = calloc(1, sizeof *child);
    if (child == NULL) {
        return NULL;
    }
    child->transport.ops = &ops;
    child->options = *options;
    child->detail = (struct pm_error)PM_ERROR_INIT;
    child->exit = (struct pm_exit)PM_EXIT_INIT;
    (void)uv_timer_init(&options->server->loop, &child->timer);
    child->timer.data = child;
    child->handles = 1;
    child->exit_item = (struct post_item){NULL, on_exit_told, child};
    post_hold(options->post);
    child->exit_due = true; // From here on, unless it is not started.
    child->thread = (struct post_thread){.block = run_spawn, .after = after_spawn, .user = child};
    child->spawning = true;
    if (post_thread(options->post, &child->thread) != 0) {
        child->gone = true;
        post_let(options->post);
        child->exit_due = child->spawning = false;
        uv_close((uv_handle_t *)&child->timer, on_handle_closed);
        return NULL;
    }
    return &child->transport;
}
