// The words that stand for enumerations in what the debug server says.
#ifndef PMI_DEBUG_NAMES_H
#define PMI_DEBUG_NAMES_H

#include <processmgr/processmgr.h>

const char *pmi_debug_mode(enum pm_mode mode);
const char *pmi_debug_state(enum pm_state state);
const char *pmi_debug_containment(enum pm_containment containment);
const char *pmi_debug_detachment(enum pm_detachment detachment);
const char *pmi_debug_stdio(enum pm_stdio_kind kind);

#endif
