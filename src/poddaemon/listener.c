// Who connects. A passing trouble (no descriptors, no memory, a peer that is gone already) makes it
// wait and go on.
#include "poddaemon/daemon.h"

#define ACCEPTS_MAX 16 // At one wake-up.
#define PAUSE_MIN_MS 10
#define PAUSE_MAX_MS 1000

static void on_pause_over(uv_timer_t *timer)
{
    struct pod *pod = timer->data;
    pod_listener_pause(&pod->listener, false);
}

static void pause_listening(struct pod *pod, int result)
{
    pod_fault(pod, POD_FAULT_ACCEPT, result, "accept");
    uint64_t pause = pod->accept_pause_ms * 2;
    pause = pause < PAUSE_MIN_MS ? PAUSE_MIN_MS : pause > PAUSE_MAX_MS ? PAUSE_MAX_MS : pause;
    pod->accept_pause_ms = pause;
    pod_listener_pause(&pod->listener, true);
    (void)uv_timer_start(&pod->accept_timer, on_pause_over, pause, 0);
}

static void on_ready(void *user)
{
    struct pod *pod = user;
    for (int i = 0; i < ACCEPTS_MAX && !pod->leaving; i++) {
        pm_native native;
        int result = pod_listener_accept(&pod->listener, &native);
        if (result == PM_ERR_TIMEOUT) {
            return;
        }
        if (result == PM_ERR_ACCESS) {
            pod->refused++;
            pod_note(pod, "a connection of another user is refused");
        } else if (result != PM_OK) {
            pause_listening(pod, result);
            return;
        } else {
            pod->accept_pause_ms = 0;
            struct pod_conn *conn = pod_conn_open(pod, native, false);
            if (conn != NULL) { // Who connects says HELLO with it.
                pod_conn_look(conn);
            }
        }
    }
}

int pod_listen(struct pod *pod)
{
    return pod_listener_open(&pod->loop, &pod->listener, &pod->dir, pod->session, on_ready, pod);
}

static void on_try_again(uv_timer_t *timer)
{
    struct pod *pod = timer->data;
    pod_listen_again(pod);
}

void pod_listen_again(struct pod *pod)
{
    if (pod->leaving) {
        return;
    }
    pod_listener_close(&pod->listener, &pod->dir);
    int result = pod_listen(pod);
    pod_note(pod, "listens again: %s", pm_strerror(result));
    if (result != PM_OK) {
        pod_fault(pod, POD_FAULT_ACCEPT, result, "listen");
        (void)uv_timer_start(&pod->accept_timer, on_try_again, PAUSE_MAX_MS, 0);
    }
}
