#include "debug/names.h"

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

static const char *name(const char *const *names, size_t count, size_t number)
{
    return number < count && names[number] != NULL ? names[number] : "unknown";
}

const char *pmi_debug_mode(enum pm_mode mode)
{
    static const char *const names[] = {"normal", "pty", "daemon"};
    return name(names, COUNT(names), (size_t)mode);
}

const char *pmi_debug_state(enum pm_state state)
{
    static const char *const names[] = {"starting", "running", "status_pending", "ended",
                                        "stopped"};
    return name(names, COUNT(names), (size_t)state);
}

const char *pmi_debug_containment(enum pm_containment containment)
{
    static const char *const names[] = {"unknown", "none", "group", "subreaper", "cgroup", "job"};
    return name(names, COUNT(names), (size_t)containment);
}

const char *pmi_debug_detachment(enum pm_detachment detachment)
{
    static const char *const names[] = {"none", "launcher", "free", "breakaway", "in_job"};
    return name(names, COUNT(names), (size_t)detachment);
}

const char *pmi_debug_stdio(enum pm_stdio_kind kind)
{
    static const char *const names[] = {"unknown", "inherit", "null",   "pipe",   "file",
                                        "file",    "file",    "native", "stdout", "terminal"};
    return name(names, COUNT(names), (size_t)kind);
}
