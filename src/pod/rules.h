// Who may do what: one writer, any number of viewers, epochs. Pure state; the daemon acts on it.
//
//              ATTACH viewer                 ATTACH writer
//   VIEWER <------------------- NONE -----------------------> WRITER
//      |                        ^  ^                          |    |
//      +------- DETACH ---------+  +-------- DETACH ----------+    | another takes over
//                               ^                                  v
//                               +------------ DETACH ----------- TAKEN
#ifndef POD_RULES_H
#define POD_RULES_H

#include "pod/wire.h"

struct pod_peer {
    enum pod_role role;
    uint64_t epoch; // From its HELLO.
};

struct pod_rules {
    uint64_t epoch; // Of the last writer. Who has a smaller one changes nothing any more.
    struct pod_peer *writer;
    uint16_t viewers;
};

// 0, or why a frame of this type is refused from this peer.
int pod_rules_allow(const struct pod_rules *rules, const struct pod_peer *peer, int type);
// An ATTACH that pod_rules_allow() lets through. *ret_taken: the writer that lost its role, or
// NULL.
int pod_rules_attach(struct pod_rules *rules, struct pod_peer *peer,
                     const struct pod_attach *attach, struct pod_peer **ret_taken);
// DETACH, or the end of the connection.
void pod_rules_leave(struct pod_rules *rules, struct pod_peer *peer);

// The highest version that both know; 0: none.
uint16_t pod_common_version(uint16_t min_a, uint16_t max_a, uint16_t min_b, uint16_t max_b);

#endif
