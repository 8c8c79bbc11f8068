// The daemon of one session: one process, one thread, one loop.
//
//   WAITING --START--> RUNNING --the child exits--> ENDED --output read, record on disk--> EXITED
//      |                                                                                      |
//      +--no START in time, first connection gone--> the process ends <--claimed, or nobody --+
//
// What belongs to what:
//
//   main.c      arguments, folder, lock, token, first connection
//   session.c   the states above, stop plans, orphans, the last seconds
//   child.c     start of the child, its output into the rings, its input out of the queue
//   listener.c  who connects
//   peer.c      one connection: greeting, requests
//   outbox.c    what a connection is sent: answers, then output as fast as it reads
//   record.c    the file that is left
//   journal.c   the session's log, and the last events for a crash
#ifndef POD_DAEMON_H
#define POD_DAEMON_H

#include <processmgr/processmgr.h>

#include "pod/config.h"
#include "pod/ring.h"
#include "pod/rules.h"
#include "poddaemon/os.h"

#define POD_START_MS 10000 // From the birth of the daemon to its START.
#define POD_PROVE_MS 2000  // For a connection to prove itself.
#define POD_LINGER_MS 5000 // After the exit, for those who still read.
#define POD_UNREAD_MS 2000 // For one that is sent away to read why.
#define POD_UNPROVEN_MAX 8 // Connections that have not proven themselves.
#define POD_PROVEN_MAX 56  // Those that have. One writer, so many viewers, and the rest are others:
#define POD_VIEWERS_MAX 48 // of them one always gives up its place.
#define POD_INPUT_MAX 262144u
#define POD_OUTPUT_FRAME 16384u // Bytes of output in one frame.
#define POD_REDRAW_MS 50
#define POD_DRAIN_ROUNDS 8      // A writer that never stops is read for so many drain times.
#define POD_LAST_LOOKS 64       // And so often when that is over, if there is still something.
#define POD_PIPE_MAX (1u << 20) // What a pipe holds at most: F_SETPIPE_SZ of all but root.
#define POD_LOG_MAX 262144u
#define POD_LOG_FILES 3

struct pod;

// ------------------------------------------------------------------------------------------------
// One connection
// ------------------------------------------------------------------------------------------------

enum pod_phase {
    POD_PHASE_HELLO = 0,
    POD_PHASE_PROVE,
    POD_PHASE_READY,
    POD_PHASE_CLOSING
};

struct pod_out { // Bytes that a connection is to get, and then those that libuv is writing.
    uint8_t *bytes;
    size_t size, capacity;
};

struct pod_conn {
    struct pod_conn *next, **link;
    struct pod *pod;
    struct pod_peer peer;
    uint64_t number; // For the log.
    enum pod_phase phase;
    bool birth; // The first one, which may send the configuration.
    uint16_t version;
    uint8_t nonce[2][POD_NONCE_SIZE]; // The client's, ours.
    struct pod_decoder decoder;
    uv_pipe_t pipe;
    uv_timer_t timer; // Until it has proven itself; when it is sent away, until it has read why.
    unsigned open_handles;
    bool close_when_sent;
    // Out.
    struct pod_out out, writing;
    uv_write_t write;
    struct pod_cursor cursors[POD_CHANNELS];
    bool acknowledges; // Else what its socket has taken counts.
    uint64_t acked[POD_CHANNELS];
    bool wants_exit, exit_sent;
    // In.
    uint64_t received, limit; // Bytes of INPUT, and how many there may be.
    uint32_t close_request;   // A CLOSE_INPUT that waits for the input before it.
    bool told_closed;         // That its INPUT is with nobody.
};

// ------------------------------------------------------------------------------------------------
// The session
// ------------------------------------------------------------------------------------------------

#define POD_EVENTS 64
#define POD_EVENT_SIZE 128

struct pod_journal {
    pm_native file;
    bool is_ours; // We have the lock of the folder.
    uint64_t size;
    bool torn;          // Its last line has no end.
    uint64_t retry_ms;  // Not before: the disk is full.
    uint64_t rotate_ms; // Not before: a file could not be moved.
    uv_prepare_t writer;
    unsigned next, unwritten;                // Events that are not in the file yet: the last ones.
    char events[POD_EVENTS][POD_EVENT_SIZE]; // Each ends with a line end.
};

struct pod_input { // A ring of bytes for the child.
    uint8_t *bytes;
    uint64_t begin, end;
    bool close; // After the last of them.
    bool lost;  // Some were left when nobody read them any more.
};

struct pod_channel_state {
    struct pod_source source;
    struct pod_ring ring;
    struct pod_ending ending;
    uint64_t floor;       // What the writer has taken, when the child waits for it.
    bool held;            // It waits now.
    uint64_t end_at_exit; // Of the child: what came later was in the pipe, or is another's.
};

struct pod_stopping {
    bool active;
    bool killed;               // The last step was taken.
    uint32_t after_hang_up_ms; // What is left of the grace when its terminal hangs up; 0: it has.
    enum pm_stop_action action;
};

struct pod {
    uv_loop_t loop;
    char session[POD_SESSION_MAX + 1];
    uint8_t token[POD_TOKEN_SIZE];
    struct pod_dir dir;
    struct pod_listener listener;
    struct pod_process process;
    struct pod_journal journal;

    enum pod_session_state state;
    bool leaving;
    struct pod_rules rules;
    struct pod_conn *conns;
    uint64_t conns_made;
    uint16_t conns_count, unproven;
    uint64_t accept_pause_ms;

    // The configuration while it comes, and what is kept of it.
    struct pod_out config_bytes;
    struct pod_config config; // Its texts are gone after the start.
    uint16_t columns, rows;

    pm_manager *manager;
    struct pod_watch manager_watch;
    pm_process *child;
    uint64_t child_pid, started_wall_ms, input_taken;
    const char *containment; // Of the child's tree, in words.
    struct pod_sink sink;
    bool sink_open;
    struct pod_input input;
    struct pod_channel_state channels[POD_CHANNELS];
    struct pod_exit exit;
    bool child_ended, claimed;
    uint64_t drain_until; // A byte after this is read, but buys no more time.
    unsigned last_looks;  // Since the drain time is over.
    bool byte_seen;       // Since the last of them.
    struct pod_stopping stopping;
    struct pod_strays strays;

    // Each runs only while there is something to wait for: an idle daemon does not wake up.
    uv_timer_t dispatch_timer, accept_timer, drain_timer, stop_timer, record_timer, leave_timer,
        redraw_timer, orphan_timer, wait_timer;
    bool given_up;      // The writer has taken nothing for too long: it is not waited for.
    bool waited;        // So it seems; what it may have said meanwhile is read first.
    uint64_t orphan_ms; // Time without a writer before the present one.
    uint64_t orphan_since;
    uint64_t record_pause_ms;
    bool record_named; // `exit` is there; it may not be on the disk yet.
    bool unrecorded;   // It cannot be made; who is connected is told all the same.

    uint32_t faults[POD_FAULTS];
    uint32_t refused;
    uint64_t gaps, gap_bytes;
};

// session.c
// First of all: what ends the child with us gets ready beside all that follows, until START.
int pod_session_prepare(struct pod *pod);
int pod_session_init(struct pod *pod);
void pod_session_dispatch(struct pod *pod); // The manager's work, and when to look again.
void pod_session_started(struct pod *pod);
void pod_session_stop(struct pod *pod, uint32_t grace_ms);
void pod_session_kill(struct pod *pod);
void pod_session_child_ended(struct pod *pod, const struct pm_exit *record);
void pod_session_output_ended(struct pod *pod); // Of one channel.
void pod_session_byte_seen(struct pod *pod);
void pod_session_recorded(struct pod *pod);
void pod_session_writer_changed(struct pod *pod);
void pod_session_peers_changed(struct pod *pod);
int pod_session_claim(struct pod *pod); // 0 or -POD_E_*
void pod_session_leave(struct pod *pod);
void pod_fault(struct pod *pod, enum pod_fault fault, int result, const char *what);

// child.c
int pod_child_start(struct pod *pod, struct pm_error *error);      // PM_OK or PM_ERR_*
bool pod_child_take_input(struct pod *pod, struct pod_bytes data); // false: no memory.
void pod_child_write(struct pod *pod);
void pod_child_close_input(struct pod *pod);
void pod_child_drop_input(struct pod *pod);
// The child waits for the writer, or does so no more, where the session wants that.
void pod_child_flow(struct pod *pod);
size_t pod_child_input_room(const struct pod *pod);
int pod_child_resize(struct pod *pod, uint16_t columns, uint16_t rows, bool redraw); // PM_*
void pod_child_end_output(struct pod *pod, unsigned channel, bool truncated);
void pod_child_close(struct pod *pod);

// listener.c
int pod_listen(struct pod *pod);
void pod_listen_again(struct pod *pod);

// peer.c
struct pod_conn *pod_conn_open(struct pod *pod, pm_native native, bool birth);
void pod_conn_look(struct pod_conn *conn); // What is there already is taken at once.
void pod_conn_close(struct pod_conn *conn);
void pod_conn_fail(struct pod_conn *conn, int code, int frame, const char *text); // Tells, closes.
// Behind an ERROR that is fatal: closes it when that was read, or soon.
void pod_conn_send_away(struct pod_conn *conn);
void pod_conn_credit(struct pod_conn *conn); // Tells the writer if there is more room.
void pod_conns_all_close(struct pod *pod);

// outbox.c
void pod_conn_send(struct pod_conn *conn, const struct pod_message *message);
void pod_conn_pump(struct pod_conn *conn);
void pod_conns_pump(struct pod *pod);
bool pod_conn_is_idle(const struct pod_conn *conn); // All that it shall get is sent.
bool pod_out_reserve(struct pod_out *out, size_t size);

// record.c
int pod_record_write(struct pod *pod); // PM_OK or PM_ERR_*

// journal.c
void pod_journal_open(struct pod *pod);
void pod_journal_flush(struct pod *pod); // The loop does before it sleeps.
#if defined(__GNUC__)
__attribute__((format(printf, 2, 3)))
#endif
void pod_note(struct pod *pod, const char *format, ...);

#endif
