#include "runner/service_config.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runner/doctor.h"
#include "runner/os.h"

enum field_type {
    FIELD_TEXT,
    FIELD_PATH, // Absolute.
    FIELD_NUMBER,
    FIELD_FLAG,
    FIELD_WORD,  // One of a few.
    FIELD_TEXTS, // A list.
    FIELD_ENV,   // An object: text sets, null removes.
    FIELD_LIST   // Of anything.
};
struct field {
    const char *name;
    enum field_type type;
    bool required;
    json_int_t low, high, standard; // Of numbers. standard: of flags and words, too.
    size_t offset;                  // In struct service_config.
    const char *const *words;
};

static const char *const kinds[] = {"mcp", "acp", NULL};
static const char *const policies[] = {"on-failure", "never", "always", NULL};
static const char *const permissions[] = {"deny", "allow", "ask", NULL};
static const char *const bases[] = {"empty", "inherit", NULL};

#define AT(member) offsetof(struct service_config, member)
static const struct field fields[] = {
    {"kind", FIELD_WORD, true, 0, 0, 0, AT(kind), kinds},
    {"command", FIELD_TEXT, true, 1, 4000, 0, AT(command), NULL},
    {"args", FIELD_TEXTS, false, 0, 0, 0, AT(args), NULL},
    {"cwd", FIELD_PATH, false, 1, 4000, 0, AT(cwd), NULL},
    {"env", FIELD_ENV, false, 0, 0, 0, AT(env), NULL},
    {"env_base", FIELD_WORD, false, 0, 0, 1, AT(inherit), bases},
    {"autostart", FIELD_FLAG, false, 0, 0, 1, AT(autostart), NULL},
    {"restart", FIELD_WORD, false, 0, 0, 0, AT(restart.policy), policies},
    {"crash_limit", FIELD_NUMBER, false, 0, RESTART_CRASHES_MAX, RESTART_CRASHES,
     AT(restart.crashes), NULL},
    {"crash_window_s", FIELD_NUMBER, false, 1, 86400, RESTART_WINDOW_MS / 1000,
     AT(restart.window_ms), NULL},
    {"backoff_ms", FIELD_NUMBER, false, 1, 3600000, RESTART_BACKOFF_MS, AT(restart.backoff_ms),
     NULL},
    {"backoff_max_ms", FIELD_NUMBER, false, 1, 3600000, RESTART_BACKOFF_MAX_MS,
     AT(restart.backoff_max_ms), NULL},
    {"start_timeout_ms", FIELD_NUMBER, false, 1, 3600000, 60000, AT(start_ms), NULL},
    {"call_timeout_ms", FIELD_NUMBER, false, 1, 86400000, 300000, AT(call_ms), NULL},
    {"leave_ms", FIELD_NUMBER, false, 0, 60000, 2000, AT(leave_ms), NULL},
    {"grace_ms", FIELD_NUMBER, false, 1, 600000, 5000, AT(grace_ms), NULL},
    {"log_size", FIELD_NUMBER, false, 4096, 1073741824, 1048576, AT(log_size), NULL},
    {"pod", FIELD_FLAG, false, 0, 0, 0, AT(pod), NULL},
    {"ring", FIELD_NUMBER, false, 65536, 67108864, 16777216, AT(ring), NULL},
    {"permission", FIELD_WORD, false, 0, 0, 0, AT(permission), permissions},
    {"permission_timeout_ms", FIELD_NUMBER, false, 1, 86400000, 60000, AT(permission_ms), NULL},
    {"session", FIELD_FLAG, false, 0, 0, 1, AT(session), NULL},
    {"mcp_servers", FIELD_LIST, false, 0, 0, 0, AT(mcp_servers), NULL},
};
#define FIELDS (sizeof fields / sizeof fields[0])

static const char *const type_names[] = {
    [FIELD_TEXT] = "a text",
    [FIELD_PATH] = "an absolute path",
    [FIELD_NUMBER] = "a whole number",
    [FIELD_FLAG] = "true or false",
    [FIELD_WORD] = "a text",
    [FIELD_TEXTS] = "a list of texts",
    [FIELD_ENV] = "an object whose values are texts, or null for a variable that is removed",
    [FIELD_LIST] = "a list",
};

static char lower(char c)
{
    return (char)(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
}

bool service_same_name(const char *one, const char *other)
{
    while (*one != '\0' && lower(*one) == lower(*other)) {
        one++;
        other++;
    }
    return lower(*one) == lower(*other);
}

bool service_is_device(const char *name)
{
    static const char *const devices[] = {"con", "prn", "aux", "nul"};
    char first[8] = "";
    size_t length = strcspn(name, ".");
    if (length != 3 && length != 4) {
        return false;
    }
    memcpy(first, name, length);
    for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++) {
        if (service_same_name(first, devices[i])) {
            return true;
        }
    }
    bool numbered = length == 4 && first[3] >= '0' && first[3] <= '9';
    first[3] = '\0';
    return numbered && (service_same_name(first, "com") || service_same_name(first, "lpt"));
}

// It is the name of a folder, on every system.
bool service_valid_name(const char *name)
{
    size_t length = strlen(name);
    return !service_is_device(name) && length >= 1 && name[length - 1] != '.' && length >= 1 &&
           length <= SERVICE_NAME_MAX && name[0] != '-' && name[0] != '.' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
               length;
}

const char *service_kind_name(enum service_kind kind)
{
    return kinds[kind];
}

const char *service_policy_name(enum restart_policy policy)
{
    return policies[policy];
}

// ------------------------------------------------------------------------------------------------
// One service
// ------------------------------------------------------------------------------------------------

// At `problem->steps[0]` and, within it, at a second step.
static int complain(struct config_problem *problem, const char *field, const struct json_step *more,
                    const char *text)
{
    problem->count = 0;
    if (field != NULL) {
        problem->steps[problem->count++] = (struct json_step){.key = field};
    }
    if (more != NULL) {
        problem->steps[problem->count++] = *more;
    }
    (void)snprintf(problem->text, sizeof problem->text, "%s", text);
    return -1;
}

static bool has_nul(const json_t *text)
{
    return strlen(json_string_value(text)) != json_string_length(text);
}

static int check_texts(const struct field *field, const json_t *value,
                       struct config_problem *problem)
{
    size_t i;
    const json_t *item;
    json_array_foreach(value, i, item)
    {
        if (!json_is_string(item) || has_nul(item)) {
            const struct json_step at = {NULL, i};
            return complain(problem, field->name, &at, "it has to be a text");
        }
    }
    return 0;
}

static int check_env(const struct field *field, json_t *value, struct config_problem *problem)
{
    const char *name;
    json_t *item;
    json_object_foreach(value, name, item)
    {
        const struct json_step at = {.key = name};
        if (name[0] == '\0' || strchr(name, '=') != NULL) { // There may be a secret behind the =.
            return complain(problem, field->name, NULL,
                            "a variable has a name that is empty or has a = in it");
        }
        if (!json_is_null(item) && (!json_is_string(item) || has_nul(item))) {
            return complain(problem, field->name, &at,
                            "it has to be a text, or null for a variable that is removed");
        }
    }
    return 0;
}

static int word_of(const struct field *field, const json_t *value, struct config_problem *problem)
{
    const char *text = json_string_value(value);
    char all[200] = "it is one of:";
    for (int i = 0; field->words[i] != NULL; i++) {
        if (text != NULL && strcmp(field->words[i], text) == 0) {
            return i;
        }
        size_t at = strlen(all);
        (void)snprintf(all + at, sizeof all - at, "%s %s", i > 0 ? "," : "", field->words[i]);
    }
    return complain(problem, field->name, NULL, all);
}

static bool has_type(const struct field *field, const json_t *value)
{
    switch (field->type) {
    case FIELD_TEXT:
    case FIELD_WORD:
        return json_is_string(value) && !has_nul(value);
    case FIELD_PATH:
        return json_is_string(value) && !has_nul(value) && os_is_absolute(json_string_value(value));
    case FIELD_NUMBER:
        return json_is_integer(value);
    case FIELD_FLAG:
        return json_is_boolean(value);
    case FIELD_ENV:
        return json_is_object(value);
    case FIELD_TEXTS:
    case FIELD_LIST:
        return json_is_array(value);
    }
    return false;
}

// Enumerations and flags are ints and bools of their own sizes.
static void put_small(const struct field *field, void *to, json_int_t value)
{
    if (field->type == FIELD_FLAG || field->words == bases) {
        *(bool *)to = value != 0;
    } else if (field->type == FIELD_WORD) {
        *(unsigned *)to = (unsigned)value; // As large as each of the enumerations.
    } else {
        *(uint32_t *)to = (uint32_t)value;
    }
}

static int take_value(const struct field *field, json_t *value, struct service_config *config,
                      struct config_problem *problem)
{
    void *to = (char *)config + field->offset;
    char text[200];
    if (!has_type(field, value)) {
        (void)snprintf(text, sizeof text, "it has to be %s", type_names[field->type]);
        return complain(problem, field->name, NULL, text);
    }
    json_int_t number =
        field->type == FIELD_NUMBER ? json_integer_value(value) : (json_int_t)json_is_true(value);
    size_t length = json_string_length(value);
    switch (field->type) {
    case FIELD_TEXT:
    case FIELD_PATH:
        if (length < (size_t)field->low || length > (size_t)field->high) {
            return complain(problem, field->name, NULL, "it is empty, or too long");
        }
        *(const char **)to = json_string_value(value);
        return 0;
    case FIELD_NUMBER:
        if (number < field->low || number > field->high) {
            (void)snprintf(text, sizeof text, "it has to be from %lld to %lld",
                           (long long)field->low, (long long)field->high);
            return complain(problem, field->name, NULL, text);
        }
        break;
    case FIELD_WORD:
        number = word_of(field, value, problem);
        if (number < 0) {
            return -1;
        }
        break;
    case FIELD_FLAG:
        break;
    default:
        *(const json_t **)to = value;
        return field->type == FIELD_ENV     ? check_env(field, value, problem)
               : field->type == FIELD_TEXTS ? check_texts(field, value, problem)
                                            : 0;
    }
    put_small(field, to, number);
    return 0;
}

static int check_names(const json_t *object, struct config_problem *problem)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)object, name, value)
    {
        size_t i = 0;
        while (i < FIELDS && strcmp(fields[i].name, name) != 0) {
            i++;
        }
        if (i == FIELDS) {
            return complain(problem, name, NULL, "a service has nothing of this name");
        }
    }
    return 0;
}

static int check_whole(const struct service_config *config, struct config_problem *problem)
{
    if (config->pod && config->kind != SERVICE_ACP) {
        return complain(problem, "pod", NULL, "only agents (kind acp) live in pods");
    }
    if (config->restart.backoff_ms > config->restart.backoff_max_ms) {
        return complain(problem, "backoff_ms", NULL, "it is more than backoff_max_ms");
    }
    return 0;
}

int service_config_take(json_t *object, struct service_config *ret_config,
                        struct config_problem *ret_problem)
{
    struct service_config config = {.json = object};
    char text[100];
    if (!json_is_object(object)) {
        return complain(ret_problem, NULL, NULL, "a service has to be an object");
    }
    if (check_names(object, ret_problem) != 0) {
        return -1;
    }
    for (size_t i = 0; i < FIELDS; i++) {
        json_t *value = json_object_get(object, fields[i].name);
        if (value == NULL && fields[i].required) {
            (void)snprintf(text, sizeof text, "'%s' is missing", fields[i].name);
            return complain(ret_problem, NULL, NULL, text);
        }
        if (value != NULL && take_value(&fields[i], value, &config, ret_problem) != 0) {
            return -1;
        }
        if (value == NULL && (fields[i].type == FIELD_NUMBER || fields[i].type == FIELD_FLAG ||
                              fields[i].type == FIELD_WORD)) {
            put_small(&fields[i], (char *)&config + fields[i].offset, fields[i].standard);
        }
    }
    uint32_t longest = config.restart.backoff_max_ms;
    if (json_object_get(object, "backoff_ms") == NULL && config.restart.backoff_ms > longest) {
        config.restart.backoff_ms = longest; // It was given alone.
    }
    if (check_whole(&config, ret_problem) != 0) {
        return -1;
    }
    config.restart.window_ms *= 1000; // The file has seconds.
    config.json = json_incref(object);
    *ret_config = config;
    return 0;
}

void service_config_clear(struct service_config *config)
{
    json_decref(config->json);
    *config = (struct service_config){.json = NULL};
}

// ------------------------------------------------------------------------------------------------
// The file
// ------------------------------------------------------------------------------------------------

void service_file_path(const char *state_dir, char path[4096])
{
    size_t size = 4096;
    if (uv_os_getenv(SERVICE_CONFIG_ENV, path, &size) != 0 || path[0] == '\0') {
        (void)snprintf(path, 4096, "%.4000s/services.json", state_dir);
    }
}

bool service_file_awaited(const char *path)
{
    char named[2];
    size_t size = sizeof named;
    uv_fs_t request;
    int result = uv_os_getenv(SERVICE_CONFIG_ENV, named, &size);
    bool wanted = result == UV_ENOBUFS || (result == 0 && named[0] != '\0');
    result = wanted ? uv_fs_stat(NULL, &request, path, NULL) : 0;
    if (wanted) {
        uv_fs_req_cleanup(&request);
    }
    return result == UV_ENOENT;
}

struct source {
    const char *path, *text;
    size_t size;
};

static int refuse(const struct source *source, const struct config_problem *problem,
                  struct runner_error *error)
{
    struct json_place place =
        json_place_of(source->text, source->size, problem->steps, problem->count);
    char names[400] = "";
    for (size_t i = 0; i < problem->count; i++) {
        size_t at = strlen(names);
        if (problem->steps[i].key != NULL) {
            (void)snprintf(names + at, sizeof names - at, "%s%.80s", i > 0 ? "." : "",
                           problem->steps[i].key);
        } else {
            (void)snprintf(names + at, sizeof names - at, "[%zu]", problem->steps[i].index);
        }
    }
    return runner_fail(error, RUNNER_DAMAGED,
                       "configuration '%s', line %u%s%s%s\n%s\nsee docs/services.md", source->path,
                       place.line, names[0] != '\0' ? ": '" : "", names,
                       names[0] != '\0' ? "'" : "", problem->text);
}

static int refuse_at(const struct source *source, const char *key, const char *name,
                     const char *text, struct runner_error *error)
{
    struct config_problem problem = {.count = 0};
    if (key != NULL) {
        problem.steps[problem.count++] = (struct json_step){.key = key};
    }
    if (name != NULL) {
        problem.steps[problem.count++] = (struct json_step){.key = name};
    }
    (void)snprintf(problem.text, sizeof problem.text, "%s", text);
    return refuse(source, &problem, error);
}

// They would have one folder, where a file system does not tell the two apart.
static bool another_case(json_t *services, const char *name)
{
    const char *other;
    json_t *object;
    json_object_foreach(services, other, object)
    {
        if (strcmp(other, name) != 0 && service_same_name(other, name)) {
            return true;
        }
    }
    return false;
}

static int check_services(const struct source *source, json_t *services, struct runner_error *error)
{
    const char *name;
    json_t *object;
    json_object_foreach(services, name, object)
    {
        if (another_case(services, name)) {
            return refuse_at(source, "services", name, "another one differs only in upper case",
                             error);
        }
        struct service_config config;
        struct config_problem problem, whole = {.count = 2};
        if (!service_valid_name(name)) {
            return refuse_at(
                source, "services", name,
                "a name has 1 to 64 of A-Z a-z 0-9 . _ - and begins with none of . -, ends "
                "with no ., and is no device of Windows",
                error);
        }
        if (service_config_take(object, &config, &problem) != 0) {
            whole.steps[0] = (struct json_step){.key = "services"};
            whole.steps[1] = (struct json_step){.key = name};
            for (size_t i = 0; i < problem.count; i++) {
                whole.steps[whole.count++] = problem.steps[i];
            }
            (void)snprintf(whole.text, sizeof whole.text, "%s", problem.text);
            return refuse(source, &whole, error);
        }
        service_config_clear(&config);
    }
    return RUNNER_OK;
}

static int check_file(const struct source *source, json_t *root, json_t **ret_services,
                      struct runner_error *error)
{
    const char *name;
    json_t *value;
    if (!json_is_object(root)) {
        return refuse_at(source, NULL, NULL, "it has to be an object", error);
    }
    json_object_foreach(root, name, value)
    {
        if (strcmp(name, "services") != 0 && strcmp(name, "$schema") != 0) {
            return refuse_at(source, name, NULL, "there is nothing of this name", error);
        }
    }
    value = json_object_get(root, "services");
    if (value != NULL && !json_is_object(value)) {
        return refuse_at(source, "services", NULL, "it has to be an object", error);
    }
    if (value != NULL && check_services(source, value, error) != RUNNER_OK) {
        return error->code;
    }
    *ret_services = value != NULL ? json_incref(value) : json_object();
    return RUNNER_OK;
}

static int parse(const struct source *source, json_t **ret_root, json_t **ret_services,
                 struct runner_error *error)
{
    json_error_t problem;
    json_t *root = json_loadb(source->text, source->size, JSON_REJECT_DUPLICATES, &problem);
    if (root == NULL) {
        return runner_fail(error, RUNNER_DAMAGED,
                           "configuration '%s', line %d\nno JSON: %s\nsee docs/services.md",
                           source->path, problem.line, problem.text);
    }
    int code = check_file(source, root, ret_services, error);
    if (code == RUNNER_OK && ret_root != NULL) {
        *ret_root = json_incref(root);
    }
    json_decref(root);
    return code;
}

int service_file_parse(const char *path, const char *text, size_t size, json_t **ret_services,
                       struct runner_error *error)
{
    const struct source source = {path, text, size};
    return parse(&source, NULL, ret_services, error);
}

static int read_file(const char *path, char **ret_text, size_t *ret_size,
                     struct runner_error *error)
{
    int result = os_read_file(path, SERVICE_CONFIG_SIZE_MAX, ret_text, ret_size);
    if (result == UV_ENOENT) {
        *ret_text = strdup("{}");
        *ret_size = 2;
        return *ret_text != NULL
                   ? RUNNER_OK
                   : runner_fail(error, RUNNER_FAILED, "configuration\nout of memory");
    }
    if (result != 0) {
        char show[4600];
        return runner_fail(error, RUNNER_DAMAGED, "configuration '%s'\n%s\n%s", path,
                           uv_strerror(result), doctor_command(DOCTOR_FILE, path, show));
    }
    return RUNNER_OK;
}

int service_file_read(const char *path, json_t **ret_services, struct runner_error *error)
{
    char *text = NULL;
    size_t size = 0;
    int code = read_file(path, &text, &size, error);
    if (code == RUNNER_OK) {
        code = service_file_parse(path, text, size, ret_services, error);
    }
    free(text);
    return code;
}

int service_file_change(const char *path, const char *name, json_t *object,
                        struct runner_error *error)
{
    char *text = NULL;
    size_t size = 0;
    json_t *root = NULL, *services = NULL;
    int code = read_file(path, &text, &size, error);
    if (code == RUNNER_OK) {
        const struct source source = {path, text, size};
        code = parse(&source, &root, &services, error);
    }
    free(text);
    if (code == RUNNER_OK) {
        int failed = object != NULL ? json_object_set(services, name, object) : 0;
        if (object == NULL) {
            (void)json_object_del(services, name);
        }
        failed |= json_object_set(root, "services", services);
        text = failed == 0 ? json_dumps(root, JSON_INDENT(2)) : NULL;
        size = text != NULL ? strlen(text) : 0;
        if (text != NULL) {
            text[size] = '\n'; // In the place of the NUL.
        }
        int result = text != NULL ? os_write_file(path, text, size + 1) : UV_ENOMEM;
        if (result != 0) {
            char show[4600];
            code = runner_fail(error, RUNNER_FAILED,
                               "configuration '%s'\nit cannot be written: %s\n%s", path,
                               uv_strerror(result), doctor_command(DOCTOR_FILE, path, show));
        }
        free(text);
    }
    json_decref(services);
    json_decref(root);
    return code;
}
