// What a sequence can be made of: the verbs with their weights and how they look, and what their
// numbers choose.
#ifndef PM_TEST_MODEL_VERBS_H
#define PM_TEST_MODEL_VERBS_H

#include "player.h"

namespace model
{

extern const char *const key_names[keys];
extern const char *const stream_names[3];
// Their numbers; a negative one is no signal.
extern const std::vector<int> signals;

// The plans of Stop. The first one is that of the Spec, the last one is refused.
struct NamedPlan {
    const char *name;
    std::vector<Step> steps;
};
const std::vector<NamedPlan> &Plans();

struct Verb {
    void (Player::*play)(const Call &);
    unsigned weight; // How often it is drawn, of all together.
    std::string (*text)(const Call &);
};
const std::vector<Verb> &Verbs();

} // namespace model

#endif
