#include "runner/stuck.h"

#include <signal.h>
#include <stdlib.h>

#include "runner/os.h"

#define SIGNALS 3

struct stuck {
    uv_loop_t loop;
    uv_thread_t thread;
    uv_async_t end;
    uv_timer_t patience;
    uv_signal_t signals[SIGNALS];
};

// Nothing that waits for the reader may be done any more: not even what the session has set on its
// terminal is taken back.
static void on_patience_over(uv_timer_t *timer)
{
    (void)timer;
    os_terminal_restore();
    os_end();         // Past atexit().
    _Exit(RUNNER_OK); // As who was asked to leave, and could.
}

static void on_signal(uv_signal_t *handle, int number)
{
    struct stuck *stuck = handle->data;
    (void)number;
    if (!uv_is_active((uv_handle_t *)&stuck->patience)) {
        (void)uv_timer_start(&stuck->patience, on_patience_over, STUCK_MS, 0);
    }
}

static void close_handle(uv_handle_t *handle, void *unused)
{
    (void)unused;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

static void on_end(uv_async_t *end)
{
    uv_walk(end->loop, close_handle, NULL);
}

static void work(void *data)
{
    struct stuck *stuck = data;
    (void)uv_run(&stuck->loop, UV_RUN_DEFAULT);
}

struct stuck *stuck_watch(void)
{
    static const int numbers[SIGNALS] = {SIGTERM, SIGINT, SIGHUP};
    struct stuck *stuck = calloc(1, sizeof *stuck);
    if (stuck == NULL || uv_loop_init(&stuck->loop) != 0) {
        free(stuck);
        return NULL;
    }
    bool fine = uv_async_init(&stuck->loop, &stuck->end, on_end) == 0;
    (void)uv_timer_init(&stuck->loop, &stuck->patience);
    for (size_t i = 0; fine && i < SIGNALS; i++) {
        (void)uv_signal_init(&stuck->loop, &stuck->signals[i]);
        stuck->signals[i].data = stuck;
        fine = uv_signal_start(&stuck->signals[i], on_signal, numbers[i]) == 0;
    }
    if (fine && uv_thread_create(&stuck->thread, work, stuck) == 0) {
        return stuck;
    }
    uv_walk(&stuck->loop, close_handle, NULL);
    work(stuck);
    (void)uv_loop_close(&stuck->loop);
    free(stuck);
    return NULL;
}

struct stuck *stuck_end(struct stuck *stuck)
{
    if (stuck != NULL) {
        (void)uv_async_send(&stuck->end);
        (void)uv_thread_join(&stuck->thread);
        (void)uv_loop_close(&stuck->loop);
        free(stuck);
    }
    return NULL;
}
