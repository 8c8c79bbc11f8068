#include "launcher/launch_plan.h"

#include <processmgr/processmgr.h>
#include <stdlib.h>
#include <string.h>

#include "core/strbuf.h"
#include "launcher/launcher.h"

// Same machine, so native byte order. After the head come the limits, the descriptors, the groups,
// and the strings: program, cwd if any, the arguments, the environment; each ends with a NUL, the
// last one with the data.
struct head {
    uint32_t magic, version;
    uint32_t role, gate_timeout_ms;
    uint64_t parent_pid, parent_start;
    uint32_t fds_count, has_cwd;
    uint32_t args_count, env_count;
    uint32_t options, umask_value;
    int32_t nice_value;
    uint32_t uid, gid;
    uint32_t groups_count, limits_count;
    uint32_t zero;
    uint64_t size; // Of everything.
};

static uint32_t count_of(const char *const *list)
{
    uint32_t count = 0;
    while (list != NULL && list[count] != NULL && count < UINT32_MAX) {
        count++;
    }
    return count;
}

static void add_string(struct pmi_strbuf *sb, const char *text)
{
    pmi_strbuf_add_bytes(sb, text, strlen(text) + 1);
}

static void add_array(struct pmi_strbuf *sb, const void *array, size_t size)
{
    if (size != 0) {
        pmi_strbuf_add_bytes(sb, array, size);
    }
}

int pmi_launch_plan_encode(const struct pmi_launch_plan *plan, char **ret_data, size_t *ret_size)
{
    struct pmi_strbuf sb = PMI_STRBUF_INIT;
    struct head head;
    const struct pmi_child_options *options = &plan->options;
    if (plan->fds_count > PMI_LAUNCH_FDS_MAX || options->groups_count > PMI_GROUPS_MAX ||
        options->limits_count > PMI_LIMITS_MAX) {
        return PM_ERR_TOO_BIG;
    }
    memset(&head, 0, sizeof head);
    head.magic = PMI_LAUNCH_MAGIC;
    head.version = PMI_LAUNCH_VERSION;
    head.role = (uint32_t)plan->role;
    head.gate_timeout_ms = plan->gate_timeout_ms;
    head.parent_pid = plan->parent_pid;
    head.parent_start = plan->parent_start;
    pmi_strbuf_add_bytes(&sb, &head, sizeof head);
    if (plan->role == PMI_LAUNCH_DAEMON) {
        head.fds_count = plan->fds_count;
        head.has_cwd = plan->cwd != NULL;
        head.args_count = count_of(plan->argv);
        head.env_count = count_of(plan->env);
        head.options = options->flags;
        head.umask_value = options->umask_value;
        head.nice_value = options->nice_value;
        head.uid = options->uid;
        head.gid = options->gid;
        head.groups_count = options->groups_count;
        head.limits_count = options->limits_count;
        add_array(&sb, options->limits, options->limits_count * sizeof *options->limits);
        add_array(&sb, plan->fds, plan->fds_count * sizeof *plan->fds);
        add_array(&sb, options->groups, options->groups_count * sizeof *options->groups);
        add_string(&sb, plan->program);
        if (plan->cwd != NULL) {
            add_string(&sb, plan->cwd);
        }
        for (uint32_t i = 0; i < head.args_count; i++) {
            add_string(&sb, plan->argv[i]);
        }
        for (uint32_t i = 0; i < head.env_count; i++) {
            add_string(&sb, plan->env[i]);
        }
    }
    size_t size = sb.length;
    char *data = pmi_strbuf_take(&sb);
    if (data == NULL || size > PMI_LAUNCH_SIZE_MAX) {
        int result = data == NULL ? PM_ERR_NO_MEMORY : PM_ERR_TOO_BIG;
        free(data);
        return result;
    }
    head.size = size;
    memcpy(data, &head, sizeof head);
    *ret_data = data;
    *ret_size = size;
    return PM_OK;
}

// The next string of the data, or NULL.
static const char *next_string(const char **at, const char *end)
{
    const char *text = *at;
    const char *nul = text < end ? memchr(text, '\0', (size_t)(end - text)) : NULL;
    if (nul == NULL) {
        return NULL;
    }
    *at = nul + 1;
    return text;
}

static int take_strings(const char **at, const char *end, const char **list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        list[i] = next_string(at, end);
        if (list[i] == NULL) {
            return PM_ERR_CORRUPT;
        }
    }
    list[count] = NULL;
    return PM_OK;
}

// The stub puts the descriptors in place in any order: that is right only if every source lies
// above every target, and above the launcher's own.
static bool fds_are_good(const struct pmi_launch_fd *fds, uint32_t count)
{
    int32_t highest = PMI_LAUNCHER_FDS - 1;
    for (uint32_t i = 0; i < count; i++) {
        if (fds[i].target < 0) {
            return false;
        }
        highest = fds[i].target > highest ? fds[i].target : highest;
    }
    for (uint32_t i = 0; i < count; i++) {
        if (fds[i].source <= highest) {
            return false;
        }
    }
    return true;
}

// What is not asked for is zero, so that each plan has one form.
static bool options_are_good(const struct head *head)
{
    uint32_t asked = head->options;
    if ((asked & ~(uint32_t)PMI_OPTION_ALL) != 0 || head->zero != 0 ||
        head->groups_count > PMI_GROUPS_MAX || head->limits_count > PMI_LIMITS_MAX) {
        return false;
    }
    return head->umask_value <= ((asked & PMI_OPTION_UMASK) != 0 ? 0777u : 0u) &&
           ((asked & PMI_OPTION_NICE) != 0 ? head->nice_value >= -20 && head->nice_value <= 19
                                           : head->nice_value == 0) &&
           ((asked & PMI_OPTION_USER) != 0 || head->uid == 0) &&
           ((asked & PMI_OPTION_GROUP) != 0 || head->gid == 0) &&
           ((asked & PMI_OPTION_GROUPS) != 0 || head->groups_count == 0);
}

static bool limits_are_good(const struct pmi_limit *limits, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (limits[i].zero != 0 || limits[i].soft > limits[i].hard) {
            return false;
        }
    }
    return true;
}

// Bytes of the arrays behind the head.
static size_t arrays_size(const struct head *head)
{
    return (size_t)head->limits_count * sizeof(struct pmi_limit) +
           (size_t)head->fds_count * sizeof(struct pmi_launch_fd) +
           (size_t)head->groups_count * sizeof(uint32_t);
}

static int check_head(const struct head *head, size_t size)
{
    if (head->magic != PMI_LAUNCH_MAGIC || head->version != PMI_LAUNCH_VERSION ||
        head->size != size || head->parent_pid == 0) {
        return PM_ERR_CORRUPT;
    }
    if (head->role == PMI_LAUNCH_KEEPER) {
        bool bare = size == sizeof *head && head->fds_count == 0 && head->has_cwd == 0 &&
                    head->args_count == 0 && head->env_count == 0 && head->options == 0 &&
                    head->limits_count == 0 && options_are_good(head);
        return bare ? PM_OK : PM_ERR_CORRUPT;
    }
    size_t rest = size - sizeof *head;
    if (head->role != PMI_LAUNCH_DAEMON || head->has_cwd > 1 || head->args_count < 1 ||
        head->fds_count > PMI_LAUNCH_FDS_MAX || !options_are_good(head) ||
        arrays_size(head) > rest) {
        return PM_ERR_CORRUPT;
    }
    // What the counts ask for is allocated, so the data has to justify it: a string takes at least
    // its NUL.
    uint64_t strings = 1 + (uint64_t)head->has_cwd + head->args_count + head->env_count;
    return strings <= rest - arrays_size(head) ? PM_OK : PM_ERR_CORRUPT;
}

int pmi_launch_plan_decode(const char *data, size_t size, struct pmi_launch_plan *ret_plan,
                           void **ret_lists)
{
    struct head head;
    if (size < sizeof head || size > PMI_LAUNCH_SIZE_MAX) {
        return PM_ERR_CORRUPT;
    }
    memcpy(&head, data, sizeof head);
    int result = check_head(&head, size);
    if (result != PM_OK) {
        return result;
    }
    struct pmi_launch_plan plan;
    memset(&plan, 0, sizeof plan);
    plan.role = (enum pmi_launch_role)head.role;
    plan.gate_timeout_ms = head.gate_timeout_ms;
    plan.parent_pid = head.parent_pid;
    plan.parent_start = head.parent_start;
    // The arrays first: theirs is the strictest alignment.
    size_t arrays = arrays_size(&head), aligned = (arrays + 7) / 8 * 8;
    size_t pointers = (size_t)head.args_count + head.env_count + 2;
    char *lists = malloc(aligned + pointers * sizeof(char *));
    if (lists == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    if (plan.role == PMI_LAUNCH_DAEMON) {
        const char **argv = (const char **)(void *)(lists + aligned);
        const char **env = argv + head.args_count + 1;
        const char *at = data + sizeof head + arrays;
        const char *end = data + size;
        memcpy(lists, data + sizeof head, arrays);
        plan.options.flags = head.options;
        plan.options.umask_value = head.umask_value;
        plan.options.nice_value = head.nice_value;
        plan.options.uid = head.uid;
        plan.options.gid = head.gid;
        plan.options.limits = (const struct pmi_limit *)(const void *)lists;
        plan.options.limits_count = head.limits_count;
        plan.fds =
            (const struct pmi_launch_fd *)(const void *)(plan.options.limits + head.limits_count);
        plan.fds_count = head.fds_count;
        plan.options.groups = (const uint32_t *)(const void *)(plan.fds + head.fds_count);
        plan.options.groups_count = head.groups_count;
        plan.program = next_string(&at, end);
        plan.cwd = head.has_cwd ? next_string(&at, end) : NULL;
        bool good = limits_are_good(plan.options.limits, head.limits_count) &&
                    fds_are_good(plan.fds, plan.fds_count) && plan.program != NULL &&
                    plan.program[0] == '/' && (!head.has_cwd || plan.cwd != NULL) &&
                    take_strings(&at, end, argv, head.args_count) == PM_OK &&
                    take_strings(&at, end, env, head.env_count) == PM_OK && at == end;
        if (!good) {
            free(lists);
            return PM_ERR_CORRUPT;
        }
        plan.argv = argv;
        plan.env = env;
    }
    *ret_plan = plan;
    *ret_lists = lists;
    return PM_OK;
}
