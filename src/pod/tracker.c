#include "pod/tracker.h"

void pod_tracker_begin(struct pod_tracker *tracker, const uint64_t from[POD_CHANNELS])
{
    *tracker = (struct pod_tracker){.next = {from[POD_CHANNEL_OUT], from[POD_CHANNEL_ERR]}};
}

static int take_exit(struct pod_tracker *tracker, const struct pod_exit *record)
{
    for (size_t i = 0; i < POD_CHANNELS; i++) {
        if (!tracker->ended[i] || record->end[i] != tracker->next[i]) {
            return -POD_E_PROTOCOL;
        }
    }
    tracker->exited = true;
    return 0;
}

// Moves a channel from one offset to the next.
static int advance(struct pod_tracker *tracker, uint8_t channel, uint64_t from, uint64_t to)
{
    if (tracker->ended[channel] || from != tracker->next[channel]) {
        return -POD_E_PROTOCOL;
    }
    tracker->next[channel] = to;
    return 0;
}

int pod_tracker_take(struct pod_tracker *tracker, const struct pod_message *message)
{
    int result;
    if (tracker->exited) {
        return message->type >= POD_OUTPUT && message->type <= POD_END ? -POD_E_PROTOCOL : 0;
    }
    switch (message->type) {
    case POD_OUTPUT:
        return advance(tracker, message->u.output.channel, message->u.output.offset,
                       message->u.output.offset + message->u.output.data.size);
    case POD_GAP:
        return advance(tracker, message->u.gap.channel, message->u.gap.from, message->u.gap.to);
    case POD_END:
        result =
            advance(tracker, message->u.end.channel, message->u.end.offset, message->u.end.offset);
        if (result == 0) {
            tracker->ended[message->u.end.channel] = true;
        }
        return result;
    case POD_EXIT:
        return take_exit(tracker, &message->u.exit);
    default:
        return 0;
    }
}
