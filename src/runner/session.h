// One session as the runner sees it.
//
//   STARTING --STARTED--> RUNNING --the exit record, claimed--> ENDED
//       |                  |   ^ \--holder dead, no record----> LOST
//       |                  v   |
//       |             UNREACHABLE: the holder lives and does not answer
//       +--any failure: it was never there
//
//   UNPROVEN: what is on disk cannot be trusted; nothing is signalled, nothing deleted.
#ifndef RUNNER_SESSION_H
#define RUNNER_SESSION_H

#include "pod/tomb.h"
#include "runner/podlink.h"
#include "runner/server.h"

#define HANDSHAKE_MS 2000
#define STOP_GRACE_MS 5000
#define STOP_MARGIN_MS 3000 // On top of the grace, before the holder itself is ended.
#define RECORD_RATE 4096    // And of that: bytes in a ms that a holder hashes and syncs at least.
#define KILL_MARGIN_MS 2000
#define WRITER_WAIT_MS 1000 // For somebody else who writes, maybe for a moment only,
#define WRITER_AGAIN_MS 20  // asking so often.

// Why it can be asked, stopped and killed, and nothing else.
#define SESSION_OTHER_VERSION                                                                      \
    "its holder speaks no version of the protocol that this runner speaks: it can be asked, "      \
    "stopped and killed"

#define FILE_STARTING "starting"    // The description, until the session has begun.
#define FILE_SESSION "session.json" // The description.
#define SESSION_FILE_MAX 65536      // Bytes of these two.
#define FILE_GROUP "group"          // The control group that was made for it.
#define FILE_LOST "lost"            // The holder died without a record; told once.

enum session_state {
    SESSION_STARTING = 0,
    SESSION_RUNNING,
    SESSION_ENDED,
    SESSION_LOST,
    SESSION_UNREACHABLE,
    SESSION_UNPROVEN
};

enum ask_kind {
    ASK_STATUS = 1,
    ASK_STOP,
    ASK_KILL,
    ASK_CLAIM
};
struct refresh;
struct ask { // A request to the pod that has no answer yet.
    struct ask *next;
    enum ask_kind kind;
    uint32_t request; // 0: not sent yet.
    struct refresh *refresh;
};

struct waiter { // A call that waits for the end of the session.
    struct waiter *next;
    struct call *call;
    bool destroy;
};

struct create;

enum holder_end { // How far its holder itself is made to end.
    HOLDER_LEFT_ALONE = 0,
    HOLDER_ASKED, // Politely: it ends its child, and leaves a record.
    HOLDER_KILLED
};

struct session {
    struct server *server;
    struct session *next;
    char id[RUNNER_ID_MAX + 1];
    char path[4096];
    enum session_state state;
    bool pipes;
    bool waits;        // Its child waits for the writer when the ring is full.
    uint64_t ring;     // Bytes that it keeps; 0: POD_RING_DEFAULT.
    uint32_t grace_ms; // Of its holder, for a stop that says none; 0: STOP_GRACE_MS.
    char *program;
    json_t *labels, *warnings;
    int64_t created_ms;
    pm_process *process; // The holder; NULL: it is gone, or not known.
    uint64_t daemon_pid;
    struct podlink *link; // There only while something is asked: it would hold a holder whose child
                          // has ended, and its end tells that better.
    bool welcomed;        // On this link.
    bool settled;         // It is known what has become of it.
    bool claim_settled;   // On this link: it was asked for, or is an earlier runner's.
    bool claim_asked;     // In this run of the runner: the claim is ours, whoever carries it out.
    bool record_gone;     // So its holder says. If it is not on the disk either, asking again is of
                          // no use: what has become of it is known when the holder has left.
    bool exit_told;       // By its holder: session::exit is how it ended, recorded or not.
    bool claim_done;      // Its holder says that the exit is ours.
    bool counted;         // In server::recovering.
    bool collecting;      // A worker looks at what is left of it.
    bool collect_again;   // Something has happened since that one began.
    bool aside;           // A folder that is not known to be a session; shown under its own name.
    bool aside_passing;   // It could not be read: it is tried again.
    bool unread, reading; // In server::unread, server::reading.
    bool queued;          // In the list of server::unread_first.
    struct session *next_unread;
    struct pod_state pod; // As it was told last.
    uint16_t version;
    char build[POD_BUILD_MAX + 1];
    bool has_exit;
    struct pod_exit exit;
    int64_t claimed_ms;
    char problem[256];
    unsigned attempts; // To connect, without success.
    uv_timer_t *retry, *patience;
    bool stopping, ending_holder, removed;
    bool pruning;         // A worker removes what is left of it.
    bool spared;          // That cannot be done: not tried again by this runner.
    uint64_t leave_until; // Of its holder, before it is removed; 0: that is not under way.
    uint32_t stop_grace_ms;
    uint64_t end_by; // By then it has ended, or that is given up; 0: nobody wants that.
    enum ask_kind stop_kind;
    enum holder_end holder_end;
    unsigned works; // Under way in workers, and session_hold(): it is not freed before.
    struct ask *asks;
    struct waiter *waiters;
    struct held *held;
    struct create *create; // While STARTING.
};

const char *session_state_name(int state);
struct session *session_find(struct server *server, const char *id);
// Put into the list; NULL: no memory.
struct session *session_add(struct server *server, const char *id);
// At the end of the runner: as session_remove(); the session itself goes on.
void session_close(struct session *session);
// Out of the list; freed when nothing uses it any more.
void session_remove(struct session *session);
// Around what may call back into it: a call that waited for it may remove it.
void session_hold(struct session *session);
void session_let(struct session *session);
void session_folder(const char *state_dir, const char *id, char path[4096]);
json_t *session_json(const struct session *session);
void session_log(const struct session *session, int level, const char *event, const char *format,
                 ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 4, 5)))
#endif
    ;
// A notification to subscribers, with the session.
void session_notify(const struct session *session, const char *what);

// Connects to its pod, where that is not done.
void session_connect(struct session *session);
// Its first connection, from the birth of the pod.
int session_take_link(struct session *session, pm_native native, const uint8_t *token,
                      uint64_t timeout_ms);
void session_retry_later(struct session *session);
void session_settle(struct session *session);
// What was asked so far, and its end: the call that is answered then, or one that has waited for
// the session, may ask anew, which is another matter.
struct ask *session_take_asks(struct session *session);
void session_end_asks(struct ask *asks);
void session_drop_link(struct session *session);

// collect.c. The holder is dead, or says that the record is there, or its connection failed: what
// remains of it? A worker looks, since there may be much to be read.
void session_collect(struct session *session);
// Whether a trouble passes: it says nothing about what is on the disk.
bool session_passing(int result);
// Looks for the ends of those whose record in the registry was set aside: the lock of the folder
// tells. From time to time.
void sessions_watch(struct server *server);
void session_holder_ended(struct session *session);
void session_fail(struct session *session, enum session_state state, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;
bool session_is_over(const struct session *session);

// Asks the pod, as soon as it is connected; false: out of memory, or there is no pod any more.
bool session_ask(struct session *session, enum ask_kind kind, struct refresh *refresh);
// Ends it; the waiters are answered when it has ended.
void session_stop(struct session *session, enum ask_kind kind, uint32_t grace_ms);
// How long its holder may need for the record of its end, on top of all other times.
uint64_t session_record_ms(uint64_t ring);
// false: no memory, which the call was told.
bool session_wait(struct session *session, struct call *call, bool destroy);
void session_fail_waiters(struct session *session, const struct runner_error *error);
// Whether nobody holds it: then it may be forgotten, whatever is in its folder.
bool session_is_free(const struct session *session);
// Removes a folder. Whatever comes in between, the next runner ends what was begun, and takes it
// for nothing else: the end of the session was told already. 0 or a negative uv error.
int session_remove_folder(const char *path);
// Whether the holder of one that is over has left altogether, so that there can be another.
bool session_holder_left(const struct session *session);
// Removes one that is over, folder and records, when its holder has left, and answers those who
// wait for that.
void session_erase(struct session *session);
// Whether that is asked for, or a worker does it: who wants another of this id waits.
bool session_is_going(const struct session *session);

// In a worker: kills it and its tree.
void session_kill_holder(struct session *session);
// For those who wait for its end: asks it politely, and kills it when that does not help.
void session_end_holder(struct session *session);
// That of a stop that says none, of this holder.
uint32_t session_grace(const struct session *session);
// Asks it at once, if that was not done.
void session_ask_holder(struct session *session);
// How long what ends sessions may still take.
uint64_t sessions_patience(const struct server *server);

// create.c
void session_create(struct server *server, struct call *call, json_t *params);
bool create_message(struct session *session, const struct pod_message *message);
void create_over(struct session *session, int failure);
void create_break_off(struct session *session); // The runner ends. Not while a worker is at it.
// Whether a list of NAME=value, or NAME of what is taken away, has one of this name.
bool create_has_variable(const char *const *env, size_t count, const char *name);

// recover.c
int recover_begin(struct server *server, struct runner_error *error);
void recover_collected(struct session *session); // After the first look at what is left of it.
void recover_removed(struct session *session);   // It is about to be freed.
bool session_described(const char *text, size_t size, char id[RUNNER_ID_MAX + 1]);
// Folders that could not be read for a passing trouble.
void recover_again(struct server *server);
// Its epochs end here, far from where a number would begin anew: JSON has no larger ones.
#define EPOCH_MAX ((uint64_t)INT64_MAX)
int epoch_next(struct server *server, uint64_t at_least);

// podop.c: a connection of one's own to its pod. Fills in session and token. 0 or PM_ERR_*.
int session_open_link(const struct session *session, struct podlink_options *options,
                      struct podlink **ret_link);
// As the writer of that.
void session_send(struct session *session, struct call *call, json_t *params);
void session_resize(struct session *session, struct call *call, json_t *params);

// refresh.c: asks pods how they are, and answers the call with one session or all.
void refresh_begin(struct server *server, struct session *session, struct call *call);
void refresh_done(struct refresh *refresh);

#endif
