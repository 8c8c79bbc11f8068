// Processes in a loop of libuv: the exit waitable is one more descriptor to poll, and a taken
// stream is a pipe of libuv's like any other.
#include <processmgr/processmgr.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

struct child {
    pm_process *process;
    uv_poll_t exit;
    uv_pipe_t in, out;
    uv_write_t write;
    char buffer[4096];
};

static struct pm_error error = PM_ERROR_INIT;

static void check(int result, const char *what) {
    char line[1024] = "";
    if (result == PM_OK) return;
    if (error.code == result) pm_error_format(&error, line, sizeof line);
    fprintf(stderr, "uv_loop: %s: %s\n", what, line[0] != '\0' ? line : pm_strerror(result));
    exit(1);
}

static void check_uv(int result, const char *what) {
    if (result >= 0) return;
    fprintf(stderr, "uv_loop: %s: %s\n", what, uv_strerror(result));
    exit(1);
}

static void on_end(uv_poll_t *poll, int status, int events) {
    struct child *child = poll->data;
    struct pm_exit record = PM_EXIT_INIT;
    (void)status;
    (void)events;
    // It has fired, so the record is there and this does not block.
    check(pm_process_wait(child->process, 0, &record), "pm_process_wait");
    printf("exit code %u\n", (unsigned)record.code);
    uv_close((uv_handle_t *)poll, NULL);
}

static void give_buffer(uv_handle_t *pipe, size_t size, uv_buf_t *buffer) {
    struct child *child = pipe->data;
    (void)size;
    *buffer = uv_buf_init(child->buffer, sizeof child->buffer);
}

// Exit is not the end of output: this one is told by the pipe.
static void on_read(uv_stream_t *pipe, ssize_t count, const uv_buf_t *buffer) {
    if (count > 0)
        printf("%.*s", (int)count, buffer->base);
    else if (count < 0)
        uv_close((uv_handle_t *)pipe, NULL);
}

static void on_written(uv_write_t *write, int status) {
    struct child *child = write->data;
    check_uv(status, "uv_write");
    uv_close((uv_handle_t *)&child->in, NULL);
}

static void open_stream(uv_loop_t *loop, struct child *child, enum pm_stream_id id,
                        uv_pipe_t *pipe) {
    pm_native native; // Ours from now on, and then libuv's.
    check(pm_stream_take(pm_process_stream(child->process, id), &native), "pm_stream_take");
    check_uv(uv_pipe_init(loop, pipe, 0), "uv_pipe_init");
    check_uv(uv_pipe_open(pipe, (uv_file)native), "uv_pipe_open");
    pipe->data = child;
}

int main(int argc, char **argv) {
    pm_launcher_main(argc, argv);
    uv_loop_t *loop = uv_default_loop();
    struct child child = {.process = NULL};
    static char text[] = "pears\napples\n";
    const char *const sort[] = {"sort", NULL};

    // The library installs no handler of SIGCHLD, so libuv's own children are not disturbed, and
    // libuv does not take the statuses of ours.
    pm_manager *manager = NULL;
    struct pm_spec spec = PM_SPEC_INIT;
    spec.owner = "uv_loop";
    spec.program = "sort";
    spec.argv = sort;
    spec.stdin_slot.kind = PM_STDIO_PIPE;
    spec.stdout_slot.kind = PM_STDIO_PIPE;
    check(pm_open(NULL, &manager, &error), "pm_open");
    check(pm_spawn(manager, &spec, &child.process, &error), "pm_spawn");

    pm_native waitable;
    check(pm_process_exit_waitable(child.process, &waitable), "pm_process_exit_waitable");
    check_uv(uv_poll_init(loop, &child.exit, (int)waitable), "uv_poll_init");
    child.exit.data = &child;
    check_uv(uv_poll_start(&child.exit, UV_READABLE, on_end), "uv_poll_start");

    open_stream(loop, &child, PM_STDIN, &child.in);
    open_stream(loop, &child, PM_STDOUT, &child.out);
    check_uv(uv_read_start((uv_stream_t *)&child.out, give_buffer, on_read), "uv_read_start");
    uv_buf_t data = uv_buf_init(text, sizeof text - 1);
    child.write.data = &child;
    check_uv(uv_write(&child.write, (uv_stream_t *)&child.in, &data, 1, on_written), "uv_write");

    uv_run(loop, UV_RUN_DEFAULT);
    pm_process_unref(child.process);
    check(pm_close(manager, -1, NULL), "pm_close");
    uv_loop_close(loop);
    return 0;
}
