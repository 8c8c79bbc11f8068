// processmgr-poddaemon --dir FOLDER --session ID
//
// Started by a runner in Daemon mode, with the first connection as its stdin: docs/protocol.md,
// "How a daemon is started". Nothing secret stands in the arguments: the token is in the folder,
// the rest comes over the connection.
#include <stdio.h>
#include <string.h>

#include "poddaemon/daemon.h"
#include "poddaemon/folder.h"

enum {
    EXIT_WELL = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2
};

static int usage(void)
{
    (void)fputs("usage: processmgr-poddaemon --dir FOLDER --session ID\n"
                "Holds one session. It is started by a runner, not by hand.\n",
                stderr);
    return EXIT_USAGE;
}

// The reason goes to the runner, over the connection that is there from the beginning.
static int fail(struct pod *pod, pm_native birth, int result, const char *what)
{
    char text[256];
    (void)snprintf(text, sizeof text, "%s: %s", what, pm_strerror(result));
    struct pod_conn *conn = birth != PM_NATIVE_INVALID ? pod_conn_open(pod, birth, true) : NULL;
    if (conn != NULL) {
        struct pod_message message = {.type = POD_ERROR};
        message.u.error = (struct pod_error){.code = POD_E_START, .fatal = 1};
        message.u.error.detail = (uint64_t)-result;
        message.u.error.text = (struct pod_bytes){(const uint8_t *)text, strlen(text)};
        pod_conn_send(conn, &message);
        pod_conn_send_away(conn);
        (void)uv_run(&pod->loop, UV_RUN_DEFAULT);
    }
    pod_journal_flush(pod);
    return EXIT_FAILED;
}

static int run(struct pod *pod, const char *folder)
{
    pm_native birth = PM_NATIVE_INVALID;
    const char *what = "the first connection";
    int result = pod_birth_take(&birth);
    if (result == PM_OK) {
        what = "the manager";
        result = pod_session_prepare(pod);
    }
    if (result == PM_OK) {
        what = folder;
        result = pod_dir_open(folder, &pod->dir);
    }
    if (result == PM_OK) {
        what = POD_FILE_LOCK;
        result = pod_dir_lock(&pod->dir);
    }
    if (result == PM_OK) {
        what = POD_FILE_TOKEN;
        result = pod_token_read(&pod->dir, pod->token);
    }
    if (result != PM_OK) {
        return fail(pod, birth, result, what);
    }
    pod_journal_open(pod);
    pod_note(pod, "daemon " PM_VERSION_STRING ", process %ld", (long)uv_os_getpid());
    result = pod_session_init(pod);
    if (result != PM_OK) {
        return fail(pod, birth, result, "the daemon cannot begin");
    }
    if (pod_conn_open(pod, birth, true) == NULL) {
        pod_session_leave(pod);
    }
    (void)uv_run(&pod->loop, UV_RUN_DEFAULT);
    pod_note(pod, "over");
    pod_journal_flush(pod);
    pod_dir_close(&pod->dir);
    return EXIT_WELL;
}

int main(int argc, char **argv)
{
    static struct pod pod = {.dir = POD_DIR_INIT, .journal = {.file = PM_NATIVE_INVALID}};
    const char *folder = NULL, *session = NULL;
    pm_launcher_main(argc, argv);
    pod_process_settle(&argc, &argv);
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--dir") == 0) {
            folder = argv[i + 1];
        } else if (strcmp(argv[i], "--session") == 0) {
            session = argv[i + 1];
        }
    }
    size_t length = session != NULL ? strlen(session) : 0;
    if (argc != 5 || folder == NULL || length == 0 || length > POD_SESSION_MAX) {
        return usage();
    }
    memcpy(pod.session, session, length + 1);
    memset(pod.journal.events, '\n', sizeof pod.journal.events);
    if (uv_loop_init(&pod.loop) != 0) {
        return EXIT_FAILED;
    }
    return run(&pod, folder);
}
