#include "options.h"

#include "backend.h"
#include "error.h"
#include "pmi_config.h"
#include "sys.h"

#include <grp.h>
#include <limits.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

// ------------------------------------------------------------------------------------------------
// What this system does not have
// ------------------------------------------------------------------------------------------------

static int refuse(struct pm_error *err, int code, const char *field, const char *hint)
{
    (void)pmi_fail_code(err, PM_STAGE_CHECK, code);
    pmi_fail_field(err, field);
    pmi_fail_hint(err, "%s", hint);
    return code;
}

static int unsupported(struct pm_error *err, const char *field, const char *hint)
{
    return refuse(err, PM_ERR_UNSUPPORTED, field, hint);
}

int pmi_os_check_options(const struct pm_spec *spec, struct pm_error *err)
{
    static const char windows[] = "for Windows";
    const struct pm_job_limits *limits = &spec->job_limits;
    if (spec->priority_class != PM_PRIORITY_DEFAULT)
        return unsupported(err, "priority_class", "for Windows: use set_nice");
    if (limits->processes != 0 || limits->process_memory != 0 || limits->job_memory != 0 ||
        limits->process_user_ms != 0)
        return unsupported(err, "job_limits", "for Windows: use rlimits or cgroup");
    if (spec->allow_batch_file)
        return unsupported(err, "allow_batch_file", windows);
    if (spec->raw_command_line != NULL)
        return unsupported(err, "raw_command_line", windows);
    if (spec->cgroup != NULL && spec->mode == PM_MODE_DAEMON)
        return unsupported(err, "cgroup", "a daemon outlives who would remove its control group");
#ifndef HAVE_CGROUP2
    if (spec->cgroup != NULL)
        return unsupported(err, "cgroup", "this system has no control groups");
#endif
#ifndef HAVE_NO_NEW_PRIVS
    if (spec->no_new_privileges)
        return unsupported(err, "no_new_privileges", "this system has no such thing");
#endif
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Users and groups
// ------------------------------------------------------------------------------------------------

// Whether `text` is a number of an id. -1, which many calls take for "unchanged", is none.
static bool is_number(const char *text, uint32_t *ret_number)
{
    uint64_t number = 0;
    if (*text == '\0')
        return false;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return false;
        number = number * 10 + (uint64_t)(*text - '0');
        if (number >= UINT32_MAX)
            return false;
    }
    *ret_number = (uint32_t)number;
    return true;
}

// A look into one of the two databases; the same for both but for the functions.
union entry {
    struct passwd user;
    struct group group;
};
struct lookup {
    bool user;
    const char *name; // NULL = by number.
    uint32_t number;
    union entry entry;
    bool found;
    char *text; // Holds the entry's strings.
};

static int look_once(struct lookup *lookup, size_t size)
{
    int e;
    if (lookup->user) {
        struct passwd *found = NULL;
        e = lookup->name != NULL
                ? PMI_SYS(getpwnam_r)(lookup->name, &lookup->entry.user, lookup->text, size, &found)
                : PMI_SYS(getpwuid_r)((uid_t)lookup->number, &lookup->entry.user, lookup->text,
                                      size, &found);
        lookup->found = found != NULL;
    } else {
        struct group *found = NULL;
        // The analyser thinks that this forgets the text, since it is handed a part of the struct.
        // NOLINTNEXTLINE(clang-analyzer-unix.Malloc)
        e = PMI_SYS(getgrnam_r)(lookup->name, &lookup->entry.group, lookup->text, size, &found);
        lookup->found = found != NULL;
    }
    return e;
}

// 0 or errno; also 0 if there is no such entry. The text is the caller's to free.
static int look_up(struct lookup *lookup)
{
    const size_t most = (size_t)16 * 1024 * 1024;
    int e = ERANGE;
    for (size_t size = 1024; e == ERANGE && size <= most; size *= 4) {
        free(lookup->text);
        lookup->text = malloc(size);
        if (lookup->text == NULL)
            return ENOMEM;
        do
            e = look_once(lookup, size);
        while (e == EINTR);
    }
    // What some databases answer for a name that they do not know.
    if (!lookup->found && (e == ENOENT || e == ESRCH || e == EBADF || e == EPERM))
        e = 0;
    return e;
}

static int fail_lookup(struct pm_error *err, const char *field, int e, const char *hint)
{
    if (e == 0)
        (void)pmi_fail_code(err, PM_STAGE_CREDENTIALS, PM_ERR_NOT_FOUND);
    else
        pmi_fail(err, PM_STAGE_CREDENTIALS, e);
    pmi_fail_field(err, field);
    if (e == 0)
        pmi_fail_hint(err, "%s", hint);
    return err->code;
}

static int list_groups_of(const char *name, uint32_t gid, struct pmi_resolved_options *options,
                          struct pm_error *err)
{
    int capacity = 64, count;
    for (;;) {
        gid_t *list = malloc((size_t)capacity * sizeof(*list));
        if (list == NULL)
            return fail_lookup(err, "groups_of_user", ENOMEM, NULL);
        count = capacity;
        // As void *: an old form of this function, which some systems keep, wants int *.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion" // That of macOS takes an int.
        int r = PMI_SYS(getgrouplist)(name, (gid_t)gid, (void *)list, &count);
#pragma GCC diagnostic pop
        if (r >= 0) {
            _Static_assert(sizeof(gid_t) == sizeof(uint32_t), "ids of groups have 32 bits");
            options->groups = list;
            options->child.groups = list;
            options->child.groups_count = (uint32_t)count;
            options->child.flags |= PMI_OPTION_GROUPS;
            return PM_OK;
        }
        free(list);
        // Some tell how many there are, some do not.
        capacity = count > capacity ? count : capacity * 2;
        if (capacity > (int)PMI_GROUPS_MAX)
            return fail_lookup(err, "groups_of_user", E2BIG, NULL);
    }
}

static int resolve_user(const struct pm_spec *spec, struct pmi_resolved_options *options,
                        struct pm_error *err)
{
    struct lookup lookup = {.user = true};
    uint32_t uid = 0;
    bool by_number = is_number(spec->run_as_user, &uid);
    lookup.name = by_number ? NULL : spec->run_as_user;
    lookup.number = uid;
    bool needs_entry = !by_number || spec->run_as_group == NULL || spec->groups_of_user;
    int e = needs_entry ? look_up(&lookup) : 0;
    int result = PM_OK;
    if (needs_entry && !lookup.found)
        result = fail_lookup(err, "run_as_user", e,
                             by_number ? "the user database does not know this number: name a "
                                         "run_as_group, without groups_of_user"
                                       : "the user database does not know this name");
    if (result == PM_OK) {
        options->child.flags |= PMI_OPTION_USER;
        options->child.uid = by_number ? uid : (uint32_t)lookup.entry.user.pw_uid;
        if (spec->run_as_group == NULL) {
            options->child.flags |= PMI_OPTION_GROUP;
            options->child.gid = (uint32_t)lookup.entry.user.pw_gid;
        }
    }
    if (result == PM_OK && spec->groups_of_user)
        result = list_groups_of(lookup.entry.user.pw_name, (uint32_t)lookup.entry.user.pw_gid,
                                options, err);
    free(lookup.text);
    return result;
}

static int resolve_group(const struct pm_spec *spec, struct pmi_resolved_options *options,
                         struct pm_error *err)
{
    struct lookup lookup = {.name = spec->run_as_group};
    uint32_t gid = 0;
    int e = 0, result = PM_OK;
    if (!is_number(spec->run_as_group, &gid)) {
        e = look_up(&lookup);
        if (lookup.found)
            gid = (uint32_t)lookup.entry.group.gr_gid;
        else
            result =
                fail_lookup(err, "run_as_group", e, "the group database does not know this name");
    }
    free(lookup.text);
    if (result == PM_OK) {
        options->child.flags |= PMI_OPTION_GROUP;
        options->child.gid = gid;
    }
    return result;
}

static int resolve_groups(const struct pm_spec *spec, struct pmi_resolved_options *options,
                          struct pm_error *err)
{
    size_t count = spec->supplementary_groups_count;
    if (count > PMI_GROUPS_MAX)
        return refuse(err, PM_ERR_INVALID, "supplementary_groups", "more than a process can have");
    if (count != 0) {
        options->groups = malloc(count * sizeof(*options->groups));
        if (options->groups == NULL)
            return fail_lookup(err, "supplementary_groups", ENOMEM, NULL);
        memcpy(options->groups, spec->supplementary_groups, count * sizeof(*options->groups));
    }
    options->child.groups = options->groups;
    options->child.groups_count = (uint32_t)count;
    options->child.flags |= PMI_OPTION_GROUPS;
    return PM_OK;
}

static int resolve_credentials(const struct pm_spec *spec, struct pmi_resolved_options *options,
                               struct pm_error *err)
{
    int result = PM_OK;
    if (spec->run_as_user != NULL)
        result = resolve_user(spec, options, err);
    if (result == PM_OK && spec->run_as_group != NULL)
        result = resolve_group(spec, options, err);
    // The caller's own groups are never handed on to another user.
    if (result == PM_OK && !spec->groups_of_user &&
        (spec->supplementary_groups != NULL || spec->run_as_user != NULL ||
         spec->run_as_group != NULL))
        result = resolve_groups(spec, options, err);
    return result;
}

// ------------------------------------------------------------------------------------------------
// Limits
// ------------------------------------------------------------------------------------------------

static int resolve_limits(const struct pmi_plan *plan, struct pmi_resolved_options *options,
                          struct pm_error *err)
{
    const struct pm_spec *spec = plan->spec;
    size_t count = spec->rlimits_count + (plan->mark != 0);
    if (count == 0)
        return PM_OK;
    if (count > PMI_LIMITS_MAX)
        return refuse(err, PM_ERR_INVALID, "rlimits", "more than there are resources");
    options->limits = calloc(count, sizeof(*options->limits));
    if (options->limits == NULL) {
        pmi_fail(err, PM_STAGE_LIMITS, ENOMEM);
        pmi_fail_field(err, "rlimits");
        return err->code;
    }
    options->child.limits = options->limits;
    options->child.limits_count = (uint32_t)count;
    for (size_t i = 0; i < spec->rlimits_count; i++)
        options->limits[i] = (struct pmi_limit){
            .soft = spec->rlimits[i].soft,
            .hard = spec->rlimits[i].hard,
            .resource = spec->rlimits[i].resource,
        };
#ifdef RLIMIT_LOCKS
    for (size_t i = 0; plan->mark != 0 && i < spec->rlimits_count; i++)
        if (spec->rlimits[i].resource == RLIMIT_LOCKS)
            return unsupported(err, "rlimits", "RLIMIT_LOCKS is what own_process knows trees by");
    if (plan->mark != 0)
        options->limits[count - 1] = (struct pmi_limit){.soft = plan->mark,
                                                        .hard = plan->mark_limit,
                                                        .resource = RLIMIT_LOCKS};
#endif
    return PM_OK;
}

// ------------------------------------------------------------------------------------------------
// Together
// ------------------------------------------------------------------------------------------------

int pmi_options_resolve(const struct pmi_plan *plan, struct pmi_resolved_options *ret_options,
                        struct pm_error *err)
{
    const struct pm_spec *spec = plan->spec;
    struct pmi_resolved_options options = {.groups = NULL};
    if (spec->set_umask) {
        options.child.flags |= PMI_OPTION_UMASK;
        options.child.umask_value = spec->umask_value;
    }
    if (spec->set_nice) {
        options.child.flags |= PMI_OPTION_NICE;
        options.child.nice_value = spec->nice_value;
    }
    if (spec->no_new_privileges)
        options.child.flags |= PMI_OPTION_NO_NEW_PRIVILEGES;
    int result = resolve_limits(plan, &options, err);
    if (result == PM_OK)
        result = resolve_credentials(spec, &options, err);
    if (result != PM_OK) {
        pmi_options_release(&options);
        return result;
    }
    *ret_options = options;
    return PM_OK;
}

void pmi_options_release(struct pmi_resolved_options *options)
{
    free(options->groups);
    free(options->limits);
    *options = (struct pmi_resolved_options){.groups = NULL};
}

void pmi_options_name_field(const struct pm_spec *spec, struct pm_error *err)
{
    if (strcmp(err->field, "supplementary_groups") != 0 || spec->supplementary_groups != NULL)
        return;
    pmi_fail_field(err, spec->groups_of_user        ? "groups_of_user"
                        : spec->run_as_user != NULL ? "run_as_user"
                                                    : "run_as_group");
}

void pmi_fail_option(struct pm_error *err, int field)
{
    static const char *const names[PMI_FIELDS] = {
        [PMI_FIELD_NONE] = "",
        [PMI_FIELD_RLIMITS] = "rlimits",
        [PMI_FIELD_NICE] = "nice_value",
        [PMI_FIELD_UMASK] = "umask_value",
        [PMI_FIELD_GROUPS] = "supplementary_groups",
        [PMI_FIELD_GROUP] = "run_as_group",
        [PMI_FIELD_USER] = "run_as_user",
        [PMI_FIELD_NO_NEW_PRIVILEGES] = "no_new_privileges",
        [PMI_FIELD_CGROUP] = "cgroup",
        [PMI_FIELD_USER_KEPT] = "run_as_user",
    };
    if (field > PMI_FIELD_NONE && field < PMI_FIELDS)
        pmi_fail_field(err, names[field]);
    if (err->os_code == EINVAL)
        err->code = PM_ERR_INVALID;
    if ((field == PMI_FIELD_GROUPS || field == PMI_FIELD_GROUP || field == PMI_FIELD_USER) &&
        err->code == PM_ERR_ACCESS)
        pmi_fail_hint(err, "credentials can be changed by the superuser alone");
    if (field == PMI_FIELD_USER_KEPT)
        pmi_fail_hint(err, "the way back to the superuser would stay open, as in a program with "
                           "SECBIT_NO_SETUID_FIXUP or SECBIT_KEEP_CAPS");
}
