#include "peers.h"

#include "bare.h"
#include "bench.h"

#ifdef BENCH_HAVE_UV
#include <stdlib.h>
#include <string.h>
#include <uv.h>

static uv_loop_t loop;
static int ended;

struct kept {
    uv_process_t process;
    struct kept *next;
};
static struct kept *kept;

static void on_exit_of_one(uv_process_t *process, int64_t status, int signal_number)
{
    (void)status;
    (void)signal_number;
    ended = 1;
    uv_close((uv_handle_t *)process, NULL);
}

static void uv_start(uv_process_t *process, char *const argv[], uv_exit_cb on_end)
{
    uv_process_options_t options;
    uv_stdio_container_t stdio[3];
    memset(&options, 0, sizeof options);
    for (int i = 0; i < 3; i++) {
        stdio[i].flags = UV_IGNORE; // The null device.
    }
    options.file = argv[0];
    options.args = (char **)argv;
    options.stdio = stdio;
    options.stdio_count = 3;
    options.exit_cb = on_end;
    if (uv_spawn(&loop, process, &options) != 0) {
        bare_die("uv_spawn");
    }
}

void peer_uv_open(void)
{
    (void)uv_loop_init(&loop);
}

double peer_uv_run(char *const argv[])
{
    static uv_process_t process;
    ended = 0;
    uv_start(&process, argv, on_exit_of_one);
    double started = bench_now_us();
    while (!ended) {
        (void)uv_run(&loop, UV_RUN_ONCE);
    }
    (void)uv_run(&loop, UV_RUN_NOWAIT); // The close callback.
    return started;
}

void peer_uv_keep(char *const argv[])
{
    struct kept *one = calloc(1, sizeof *one);
    if (one == NULL) {
        bare_die("calloc");
    }
    uv_start(&one->process, argv, on_exit_of_one);
    one->next = kept;
    kept = one;
}

void peer_uv_close(void)
{
    for (struct kept *one = kept; one != NULL; one = one->next) {
        (void)uv_process_kill(&one->process, 9);
    }
    (void)uv_run(&loop, UV_RUN_DEFAULT);
    while (kept != NULL) {
        struct kept *next = kept->next;
        free(kept);
        kept = next;
    }
    (void)uv_loop_close(&loop);
}
#endif

#ifdef BENCH_HAVE_GLIB
#include <glib.h>
#include <signal.h>

static void on_glib_end(GPid pid, gint status, gpointer main_loop)
{
    (void)status;
    g_spawn_close_pid(pid);
    g_main_loop_quit(main_loop);
}

static GPid start_glib(char *const argv[])
{
    GPid pid;
    if (!g_spawn_async(NULL, (char **)argv, NULL,
                       G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_STDOUT_TO_DEV_NULL |
                           G_SPAWN_STDERR_TO_DEV_NULL,
                       NULL, NULL, &pid, NULL)) {
        bare_die("g_spawn_async");
    }
    return pid;
}

double peer_glib_run(char *const argv[])
{
    static GMainLoop *main_loop;
    if (main_loop == NULL) {
        main_loop = g_main_loop_new(NULL, FALSE);
    }
    GPid pid = start_glib(argv);
    double started = bench_now_us();
    (void)g_child_watch_add(pid, on_glib_end, main_loop);
    g_main_loop_run(main_loop);
    return started;
}

static GArray *glib_kept;

static void on_end_of_kept(GPid pid, gint status, gpointer left)
{
    (void)status;
    g_spawn_close_pid(pid);
    --*(guint *)left;
}

static guint glib_left;

void peer_glib_keep(char *const argv[])
{
    if (glib_kept == NULL) {
        glib_kept = g_array_new(FALSE, FALSE, sizeof(GPid));
    }
    GPid pid = start_glib(argv);
    (void)g_array_append_val(glib_kept, pid);
    glib_left++;
    (void)g_child_watch_add(pid, on_end_of_kept, &glib_left);
}

void peer_glib_end(void)
{
    for (guint i = 0; glib_kept != NULL && i < glib_kept->len; i++) {
        (void)kill(g_array_index(glib_kept, GPid, i), SIGKILL);
    }
    while (glib_left > 0) {
        (void)g_main_context_iteration(NULL, TRUE);
    }
    if (glib_kept != NULL) {
        (void)g_array_set_size(glib_kept, 0);
    }
}
#endif
