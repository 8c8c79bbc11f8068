#include "pod/rules.h"

static int needs_writer(const struct pod_peer *peer)
{
    static const int results[] = {[POD_ROLE_NONE] = -POD_E_STATE,
                                  [POD_ROLE_VIEWER] = -POD_E_READ_ONLY,
                                  [POD_ROLE_WRITER] = 0,
                                  [POD_ROLE_TAKEN] = -POD_E_FENCED};
    return results[peer->role];
}

// STOP, KILL, CLAIM, CONFIG, START: whoever is not known to be out of office, attached or not.
static int needs_office(const struct pod_rules *rules, const struct pod_peer *peer)
{
    if (peer->role == POD_ROLE_VIEWER) {
        return -POD_E_READ_ONLY;
    }
    return peer->role == POD_ROLE_TAKEN || peer->epoch < rules->epoch ? -POD_E_FENCED : 0;
}

int pod_rules_allow(const struct pod_rules *rules, const struct pod_peer *peer, int type)
{
    switch (type) {
    case POD_STATUS:
    case POD_ACK: // One that has just lost its role does not know that yet.
        return 0;
    case POD_STOP:
    case POD_KILL:
    case POD_CLAIM:
    case POD_CONFIG:
    case POD_START:
        return needs_office(rules, peer);
    case POD_INPUT:
    case POD_CLOSE_INPUT:
    case POD_RESIZE:
        return needs_writer(peer);
    case POD_ATTACH:
        return peer->role == POD_ROLE_NONE ? 0 : -POD_E_STATE;
    case POD_DETACH:
        return peer->role != POD_ROLE_NONE ? 0 : -POD_E_STATE;
    default:
        return -POD_E_PROTOCOL;
    }
}

int pod_rules_attach(struct pod_rules *rules, struct pod_peer *peer,
                     const struct pod_attach *attach, struct pod_peer **ret_taken)
{
    *ret_taken = NULL;
    if (attach->role == POD_ROLE_VIEWER) {
        peer->role = POD_ROLE_VIEWER;
        rules->viewers++;
        return 0;
    }
    if (peer->epoch < rules->epoch) {
        return -POD_E_FENCED;
    }
    if (rules->writer != NULL) {
        if ((attach->flags & POD_ATTACH_TAKE_OVER) == 0) {
            return -POD_E_BUSY;
        }
        rules->writer->role = POD_ROLE_TAKEN;
        *ret_taken = rules->writer;
    }
    rules->writer = peer;
    rules->epoch = peer->epoch;
    peer->role = POD_ROLE_WRITER;
    return 0;
}

void pod_rules_leave(struct pod_rules *rules, struct pod_peer *peer)
{
    if (rules->writer == peer) {
        rules->writer = NULL;
    }
    if (peer->role == POD_ROLE_VIEWER) {
        rules->viewers--;
    }
    peer->role = POD_ROLE_NONE;
}

uint16_t pod_common_version(uint16_t min_a, uint16_t max_a, uint16_t min_b, uint16_t max_b)
{
    uint16_t highest = max_a < max_b ? max_a : max_b;
    return highest >= min_a && highest >= min_b ? highest : 0;
}
