#include "holders.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static pm_manager *manager;
static char base[] = "/tmp/pm-podbench-XXXXXX";
static unsigned started;

void holders_die(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    exit(1);
}

void holders_check(int result, const struct pm_error *error)
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

void holders_open(int argc, char **argv)
{
    char registry[128];
    struct pm_options options = PM_OPTIONS_INIT;
    struct pm_error error = PM_ERROR_INIT;
    pm_launcher_main(argc, argv);
    if (mkdtemp(base) == NULL) {
        holders_die("mkdtemp");
    }
    (void)snprintf(registry, sizeof registry, "%s/registry", base);
    options.registry_dir = registry;
    options.status_pending_ms = 10;
    options.leak_sweep_ms = UINT32_MAX;
    holders_check(pm_open(&options, &manager, &error), &error);
}

void holders_close(void)
{
    char command[128];
    holders_check(pm_stop_all(manager, 30000, NULL, NULL, NULL), NULL);
    holders_check(pm_close(manager, 30000, NULL), NULL);
    (void)snprintf(command, sizeof command, "rm -rf %s", base);
    (void)!system(command);
}

pm_manager *holders_manager(void)
{
    return manager;
}

const char *holders_folder(void)
{
    return base;
}

static void pause_a_little(void)
{
    const struct timespec ms = {0, 1000000};
    (void)nanosleep(&ms, NULL);
}

void holder_block(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_NONBLOCK) < 0) {
        holders_die("fcntl");
    }
}

static void write_all(int fd, const void *data, size_t size)
{
    const char *bytes = data;
    while (size > 0) {
        ssize_t n = write(fd, bytes, size);
        if (n < 0) {
            holders_die("write");
        }
        bytes += n;
        size -= (size_t)n;
    }
}

static struct pm_spec spec_of(const char *const *argv)
{
    struct pm_spec spec = PM_SPEC_INIT;
    spec.owner = "bench";
    spec.program = argv[0];
    spec.argv = argv;
    spec.stdin_slot.kind = spec.stdout_slot.kind = PM_STDIO_NULL;
    return spec;
}

static pm_process *spawn(const struct pm_spec *spec)
{
    pm_process *process = NULL;
    struct pm_error error = PM_ERROR_INIT;
    holders_check(pm_spawn(manager, spec, &process, &error), &error);
    return process;
}

// ------------------------------------------------------------------------------------------------
// A bare terminal: after the start nothing of the library is in the way
// ------------------------------------------------------------------------------------------------

static void start_bare(struct holder *holder, const char *const role[])
{
    pm_native native;
    struct pm_spec spec = spec_of(role);
    spec.mode = PM_MODE_PTY;
    spec.stdin_slot = spec.stdout_slot = (struct pm_stdio){.kind = PM_STDIO_DEFAULT};
    holder->process = spawn(&spec);
    holders_check(pm_stream_take(pm_process_stream(holder->process, PM_STDOUT), &native), NULL);
    holder->terminal = (int)native;
    holder_block(holder->terminal);
}

// ------------------------------------------------------------------------------------------------
// The pod
// ------------------------------------------------------------------------------------------------

static void on_message(void *user, const struct pod_message *message)
{
    struct holder_client *client = user;
    switch (message->type) {
    case POD_WELCOME:
        if (client->attach != NULL && pod_client_attach(&client->client, client->attach) < 0) {
            holders_die("attach");
        }
        break;
    case POD_OUTPUT:
        client->received += message->u.output.data.size;
        break;
    case POD_GAP:
        client->skipped += message->u.gap.to - message->u.gap.from;
        break;
    case POD_ATTACHED:
    case POD_STARTED:
        client->attached = true;
        break;
    case POD_ERROR:
        fprintf(stderr, "bench: the pod says: %.*s\n", (int)message->u.error.text.size,
                (const char *)message->u.error.text.data);
        exit(1);
    default:
        break;
    }
}

static void pod_flush(struct holder_client *client)
{
    struct pod_bytes bytes = pod_client_pending(&client->client);
    if (bytes.size > 0) {
        write_all(client->fd, bytes.data, bytes.size);
        pod_client_sent(&client->client, bytes.size);
    }
}

static void pod_turn(struct holder_client *client)
{
    static char bytes[HOLDER_READ];
    ssize_t n = read(client->fd, bytes, sizeof bytes);
    if (n <= 0 || pod_client_feed(&client->client, bytes, (size_t)n) < 0) {
        holders_die("pod");
    }
    pod_flush(client);
}

static void pod_greet(struct holder *holder, struct holder_client *client, pm_native native)
{
    uint8_t nonce[POD_NONCE_SIZE];
    if (getrandom(nonce, sizeof nonce, 0) != sizeof nonce) {
        holders_die("getrandom");
    }
    struct pod_client_options options = {.session = holder->name, .token = holder->token};
    options.nonce = nonce;
    options.epoch = 1;
    options.handler = on_message;
    options.user = client;
    client->fd = (int)native;
    holder_block(client->fd);
    holders_check(pod_client_init(&client->client, &options), NULL);
    pod_flush(client);
    while (client->client.phase != POD_CLIENT_READY) {
        pod_turn(client);
    }
}

static void start_pod(struct holder *holder, const char *const role[])
{
    static const char *const env[] = {"PATH=/usr/bin:/bin", NULL};
    pm_native ours, theirs;
    const char *const argv[] = {BENCH_PODDAEMON, "--dir",      holder->folder,
                                "--session",     holder->name, NULL};
    struct pm_spec spec = spec_of(argv);
    holders_check(pod_dir_create(holder->folder), NULL);
    holders_check(pod_dir_open(holder->folder, &holder->dir), NULL);
    holders_check(pod_token_make(&holder->dir, holder->token), NULL);
    holders_check(pod_birth_pair(&ours, &theirs), NULL);
    spec.mode = PM_MODE_DAEMON;
    spec.key = holder->name;
    spec.cwd = "/";
    spec.stdin_slot.kind = PM_STDIO_NATIVE;
    spec.stdin_slot.native = theirs;
    holder->process = spawn(&spec);
    pod_connection_close(theirs);
    struct holder_client birth = {.kind = HOLDER_POD};
    struct pod_config config = {.mode = POD_MODE_PTY, .program = role[0], .argv = role};
    config.env = env;
    config.cwd = "/";
    pod_greet(holder, &birth, ours);
    (void)pod_client_start(&birth.client, &config);
    pod_flush(&birth);
    while (!birth.attached) {
        pod_turn(&birth);
    }
    holder_disconnect(&birth);
}

static void connect_pod(struct holder *holder, struct holder_client *client,
                        const struct pod_attach *attach)
{
    pm_native native;
    client->attach = attach;
    holders_check(pod_connect(&holder->dir, holder->name, &native), NULL);
    pod_greet(holder, client, native);
    while (!client->attached) {
        pod_turn(client);
    }
}

// ------------------------------------------------------------------------------------------------
// dtach: packets of ten bytes in, plain bytes out
// ------------------------------------------------------------------------------------------------

enum {
    DTACH_PUSH = 0,
    DTACH_ATTACH = 1,
    DTACH_PACKET = 10
};

static int connect_socket(const char *path, int type)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);
    if (strlen(path) < sizeof address.sun_path) {
        strcpy(address.sun_path, path);
    }
    for (int i = 0; i < 5000; i++) { // Until the holder listens.
        if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0) {
            return fd;
        }
        pause_a_little();
    }
    holders_die(path);
    return -1;
}

static void start_dtach(struct holder *holder, const char *const role[])
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/s", holder->folder);
    if (!holder_is_here(HOLDER_DTACH) || pod_dir_create(holder->folder) != PM_OK) {
        holders_die("dtach");
    }
    const char *const argv[] = {BENCH_DTACH, "-N",    path,    "-E",    "-z",    "-r",
                                "none",      role[0], role[1], role[2], role[3], NULL};
    struct pm_spec spec = spec_of(argv);
    holder->process = spawn(&spec);
}

static void connect_dtach(struct holder *holder, struct holder_client *client)
{
    char path[128], packet[DTACH_PACKET] = {DTACH_ATTACH};
    (void)snprintf(path, sizeof path, "%s/s", holder->folder);
    client->fd = connect_socket(path, SOCK_STREAM);
    write_all(client->fd, packet, sizeof packet);
}

static void type_dtach(struct holder_client *client, char byte)
{
    char packet[DTACH_PACKET] = {DTACH_PUSH, 1, byte};
    write_all(client->fd, packet, sizeof packet);
}

// ------------------------------------------------------------------------------------------------
// conmon: plain bytes in, packets with a byte in front out
// ------------------------------------------------------------------------------------------------

static void start_conmon(struct holder *holder, const char *const role[])
{
    char path[128], pid_file[128];
    (void)snprintf(path, sizeof path, "%s/role", holder->folder);
    (void)snprintf(pid_file, sizeof pid_file, "%s/pid", holder->folder);
    if (!holder_is_here(HOLDER_CONMON) || pod_dir_create(holder->folder) != PM_OK) {
        holders_die("conmon");
    }
    FILE *file = fopen(path, "w");
    if (file == NULL || fprintf(file, "%s %s %s", role[1], role[2], role[3]) < 0 ||
        fclose(file) != 0) {
        holders_die(path);
    }
    const char *const argv[] = {BENCH_CONMON,   "--sync", "-t",         "-c",
                                holder->name,   "-u",     holder->name, "-b",
                                holder->folder, "-p",     pid_file,     "-r",
                                BENCH_CHILD,    "-l",     "none",       "--full-attach",
                                "--log-level",  "error",  NULL};
    struct pm_spec spec = spec_of(argv);
    holder->process = spawn(&spec);
}

static void connect_conmon(struct holder *holder, struct holder_client *client)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/attach", holder->folder);
    client->fd = connect_socket(path, SOCK_SEQPACKET);
}

// ------------------------------------------------------------------------------------------------
// All of them
// ------------------------------------------------------------------------------------------------

const char *holder_name(enum holder_kind kind)
{
    static const char *const names[HOLDER_KINDS] = {"bare pty", "pod", "dtach", "conmon"};
    return names[kind];
}

bool holder_is_here(enum holder_kind kind)
{
    switch (kind) {
    case HOLDER_DTACH:
        return BENCH_DTACH[0] != '\0';
    case HOLDER_CONMON:
        return BENCH_CONMON[0] != '\0';
    default:
        return true;
    }
}

void holder_start(struct holder *holder, enum holder_kind kind, const char *role, size_t size)
{
    char number[32], ready[128];
    const char *const argv[] = {BENCH_CHILD, role, number, ready, NULL};
    *holder = (struct holder){.kind = kind, .terminal = -1, .dir = POD_DIR_INIT};
    (void)snprintf(holder->name, sizeof holder->name, "h%u", started++);
    (void)snprintf(holder->folder, sizeof holder->folder, "%s/%s", base, holder->name);
    (void)snprintf(number, sizeof number, "%zu", size);
    (void)snprintf(ready, sizeof ready, "%s/%s.ready", base, holder->name);
    switch (kind) {
    case HOLDER_BARE:
        start_bare(holder, argv);
        break;
    case HOLDER_POD:
        start_pod(holder, argv);
        break;
    case HOLDER_DTACH:
        start_dtach(holder, argv);
        break;
    default:
        start_conmon(holder, argv);
    }
    holder->pid = kind != HOLDER_BARE ? pm_process_pid(holder->process) : 0;
    // One that says hello is ready when it has said so.
    for (int i = 0; strcmp(role, "hello") != 0 && access(ready, F_OK) != 0; i++) {
        if (i > 10000) {
            holders_die(holder_name(kind));
        }
        pause_a_little();
    }
}

void holder_end(struct holder *holder)
{
    struct pm_stop_plan now = {1, {{PM_STOP_KILL, PM_SCOPE_TREE, 10000}}};
    if (holder->kind == HOLDER_BARE) {
        (void)close(holder->terminal);
    }
    holders_check(pm_process_stop(holder->process, &now, NULL), NULL);
    (void)pm_process_wait(holder->process, PM_FOREVER, NULL);
    if (holder->kind == HOLDER_POD) {
        (void)pm_forget(manager, holder->name);
    }
    (void)pm_process_unref(holder->process);
    pod_dir_close(&holder->dir);
}

void holder_look_on(struct holder *holder, struct holder_client *client)
{
    const struct pod_attach attach = {.role = POD_ROLE_VIEWER,
                                      .from = {POD_FROM_NOW, POD_FROM_NOW}};
    *client = (struct holder_client){.kind = HOLDER_POD};
    connect_pod(holder, client, &attach);
}

void holder_connect(struct holder *holder, struct holder_client *client, bool replay)
{
    uint64_t from = replay ? POD_FROM_KEPT : POD_FROM_NOW;
    const struct pod_attach attach = {.role = POD_ROLE_WRITER,
                                      .from = {from, from},
                                      .flags = POD_ATTACH_TAKE_OVER};
    *client = (struct holder_client){.kind = holder->kind, .fd = holder->terminal};
    switch (holder->kind) {
    case HOLDER_BARE:
        break;
    case HOLDER_POD:
        connect_pod(holder, client, &attach);
        break;
    case HOLDER_DTACH:
        connect_dtach(holder, client);
        break;
    default:
        connect_conmon(holder, client);
    }
}

void holder_disconnect(struct holder_client *client)
{
    if (client->kind == HOLDER_POD) {
        pod_client_clear(&client->client);
    }
    if (client->kind != HOLDER_BARE) {
        (void)close(client->fd);
    }
}

void holder_type(struct holder_client *client, char byte)
{
    switch (client->kind) {
    case HOLDER_POD:
        if (pod_client_input(&client->client, &byte, 1) != 1) {
            holders_die("no credit");
        }
        pod_flush(client);
        break;
    case HOLDER_DTACH:
        type_dtach(client, byte);
        break;
    default:
        write_all(client->fd, &byte, 1);
    }
}

void holder_receive(struct holder_client *client, uint64_t until)
{
    static char bytes[HOLDER_READ];
    while (client->received + client->skipped < until) {
        if (client->kind == HOLDER_POD) {
            pod_turn(client);
            continue;
        }
        ssize_t n = read(client->fd, bytes, sizeof bytes);
        if (n <= 0) {
            holders_die(holder_name(client->kind));
        }
        client->received += (uint64_t)n - (client->kind == HOLDER_CONMON);
    }
}

// ------------------------------------------------------------------------------------------------
// What a process costs
// ------------------------------------------------------------------------------------------------

static uint64_t number_in(const char *path, const char *format)
{
    char line[256];
    uint64_t value = 0;
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, format, &value) == 1) {
            break;
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return value;
}

uint64_t process_private_kib(uint64_t pid)
{
    char path[64];
    (void)snprintf(path, sizeof path, "/proc/%" PRIu64 "/smaps_rollup", pid);
    return number_in(path, "Private_Dirty: %" SCNu64);
}

// Of all its threads.
static uint64_t sum_of_threads(uint64_t pid, const char *name, const char *format)
{
    char path[320];
    uint64_t all = 0;
    struct dirent *entry;
    (void)snprintf(path, sizeof path, "/proc/%" PRIu64 "/task", pid);
    DIR *folder = opendir(path);
    while (folder != NULL && (entry = readdir(folder)) != NULL) {
        if (entry->d_name[0] != '.') {
            (void)snprintf(path, sizeof path, "/proc/%" PRIu64 "/task/%s/%s", pid, entry->d_name,
                           name);
            all += number_in(path, format);
        }
    }
    if (folder != NULL) {
        (void)closedir(folder);
    }
    return all;
}

uint64_t process_switches(uint64_t pid)
{
    return sum_of_threads(pid, "status", "voluntary_ctxt_switches: %" SCNu64);
}

uint64_t process_turns(uint64_t pid)
{
    return sum_of_threads(pid, "schedstat", "%*u %*u %" SCNu64);
}

double process_cpu_us(uint64_t pid)
{
    return (double)sum_of_threads(pid, "schedstat", "%" SCNu64) / 1e3;
}
