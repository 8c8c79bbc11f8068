// The reader's side of "each byte exactly once, or one gap": checks that what comes fits.
#ifndef POD_TRACKER_H
#define POD_TRACKER_H

#include "pod/wire.h"

struct pod_tracker {
    uint64_t next[POD_CHANNELS]; // Offset of the next byte: attach from here after a reconnect.
    bool ended[POD_CHANNELS];
    bool exited;
};

void pod_tracker_begin(struct pod_tracker *tracker, const uint64_t from[POD_CHANNELS]);
// OUTPUT, GAP, END or EXIT; others are nothing to it. -POD_E_PROTOCOL: a byte would be missing,
// double or out of order, or the exit come ahead of output.
int pod_tracker_take(struct pod_tracker *tracker, const struct pod_message *message);

#endif
