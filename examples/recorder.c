// A terminal recorder: runs a program on a terminal of its own, shows it here, and writes down what
// was shown and when, as an asciicast (version 2) that terminal players can play.
//
//     recorder FILE PROGRAM [ARGUMENT...]
//
// The exit code is the program's. Ctrl-C and all other keys are the program's, too.
#include <errno.h>
#include <poll.h>
#include <processmgr/processmgr.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static struct pm_error error = PM_ERROR_INIT;
static struct termios before;
static bool is_raw;
static volatile sig_atomic_t size_changed;

static void restore_terminal(void) {
    if (is_raw) (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &before);
}

static void check(int result, const char *what) {
    char line[1024] = "";
    if (result == PM_OK) return;
    restore_terminal();
    is_raw = false;
    if (error.code == result) pm_error_format(&error, line, sizeof line);
    fprintf(stderr, "recorder: %s: %s\n", what, line[0] != '\0' ? line : pm_strerror(result));
    exit(1);
}

static void on_size_change(int number) {
    (void)number;
    size_changed = 1;
}

// Keys go to the program as they are; the other terminal does what is to be done with them.
static void make_raw(void) {
    struct termios raw;
    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &before) != 0) return;
    raw = before;
    cfmakeraw(&raw);
    is_raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
    struct sigaction action = {.sa_handler = on_size_change};
    (void)sigaction(SIGWINCH, &action, NULL);
}

static void own_size(unsigned *columns, unsigned *rows) {
    struct winsize size = {.ws_col = 0};
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0;
    *columns = known ? size.ws_col : 80;
    *rows = known ? size.ws_row : 24;
}

static double seconds(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

// How many bytes of the text make whole characters: a read may end in the middle of one.
static size_t whole(const unsigned char *text, size_t size) {
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        unsigned char byte = text[size - back];
        if (byte < 0x80) return size;
        size_t length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 0;
        if (length != 0) return length > back ? size - back : size;
    }
    return size;
}

static void record(FILE *file, double at, const unsigned char *text, size_t size) {
    fprintf(file, "[%.6f, \"o\", \"", at);
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '"' || text[i] == '\\')
            fprintf(file, "\\%c", text[i]);
        else if (text[i] < 0x20 || text[i] == 0x7f)
            fprintf(file, "\\u%04x", text[i]);
        else
            fputc(text[i], file);
    }
    fprintf(file, "\"]\n");
}

static void show(const unsigned char *text, size_t size) {
    while (size > 0) {
        ssize_t n = write(STDOUT_FILENO, text, size);
        if (n < 0 && errno != EINTR) return;
        if (n > 0) text += n, size -= (size_t)n;
    }
}

static void copy(pm_process *process, FILE *file) {
    static unsigned char shown[65536], typed[4096];
    size_t kept = 0, typed_size = 0;
    double start = seconds();
    pm_stream *out = pm_process_stream(process, PM_STDOUT);
    pm_stream *in = pm_process_stream(process, PM_STDIN);
    pm_native screen, keys;
    check(pm_stream_native(out, &screen), "pm_stream_native");
    check(pm_stream_native(in, &keys), "pm_stream_native");
    struct pollfd fds[3] = {{.fd = (int)screen, .events = POLLIN},
                            {.fd = STDIN_FILENO, .events = POLLIN},
                            {.fd = -1, .events = POLLOUT}};
    for (;;) {
        // Neither side waits for the other: what is not taken yet is kept, and no more is read.
        fds[1].fd = typed_size == 0 && in != NULL ? STDIN_FILENO : -1;
        fds[2].fd = typed_size != 0 ? (int)keys : -1;
        (void)poll(fds, 3, -1);
        if (size_changed) {
            unsigned columns, rows;
            size_changed = 0;
            own_size(&columns, &rows);
            (void)pm_process_resize(process, columns, rows);
        }
        if (fds[1].fd >= 0 && fds[1].revents != 0) {
            ssize_t n = read(STDIN_FILENO, typed, sizeof typed);
            if (n > 0) typed_size = (size_t)n;
            if (n == 0) {
                check(pm_stream_close(in), "pm_stream_close"); // Our input's end is its, too.
                in = NULL;
            }
        }
        if (typed_size > 0) {
            size_t count = 0;
            int result = pm_stream_write(in, typed, typed_size, 0, &count);
            memmove(typed, typed + count, typed_size - count);
            typed_size = result == PM_OK || result == PM_ERR_TIMEOUT ? typed_size - count : 0;
        }
        size_t count = 0;
        int result = pm_stream_read(out, shown + kept, sizeof shown - kept, 0, &count);
        if (result == PM_ERR_TIMEOUT) continue;
        check(result, "pm_stream_read");
        show(shown + kept, count);
        size_t size = kept + count, done = count == 0 ? size : whole(shown, size);
        if (done > 0) record(file, seconds() - start, shown, done);
        if (count == 0) return; // The end.
        kept = size - done;
        memmove(shown, shown + done, kept);
    }
}

int main(int argc, char **argv) {
    pm_launcher_main(argc, argv);
    if (argc < 3) {
        fprintf(stderr, "usage: recorder FILE PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    FILE *file = fopen(argv[1], "w");
    if (file == NULL) {
        perror(argv[1]);
        return 1;
    }
    unsigned columns, rows;
    own_size(&columns, &rows);
    fprintf(file, "{\"version\": 2, \"width\": %u, \"height\": %u}\n", columns, rows);

    pm_manager *manager = NULL;
    pm_process *process = NULL;
    struct pm_spec spec = PM_SPEC_INIT;
    spec.owner = "recorder";
    spec.program = argv[2];
    spec.argv = (const char *const *)argv + 2;
    spec.mode = PM_MODE_PTY;
    spec.terminal_columns = (uint16_t)columns;
    spec.terminal_rows = (uint16_t)rows;
    check(pm_open(NULL, &manager, &error), "pm_open");
    check(pm_spawn(manager, &spec, &process, &error), "pm_spawn");
    make_raw();
    copy(process, file);

    struct pm_exit end = PM_EXIT_INIT;
    check(pm_process_wait(process, PM_FOREVER, &end), "pm_process_wait");
    restore_terminal();
    pm_process_unref(process);
    check(pm_close(manager, -1, NULL), "pm_close");
    if (fclose(file) != 0) {
        perror(argv[1]);
        return 1;
    }
    return end.kind == PM_EXIT_EXITED ? (int)end.code : 128 + end.signal;
}
