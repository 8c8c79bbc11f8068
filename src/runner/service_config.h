// What a service shall be: docs/services.md, docs/services.schema.json. Pure but for its files.
#ifndef RUNNER_SERVICE_CONFIG_H
#define RUNNER_SERVICE_CONFIG_H

#include <jansson.h>

#include "runner/jsonplace.h"
#include "runner/restart.h"
#include "runner/runner.h"

#define SERVICE_CONFIG_ENV                                                                         \
    "PROCESSMGR_SERVICES" // The file; else services.json in the state folder.
#define SERVICE_CONFIG_SIZE_MAX 4194304u
#define SERVICE_NAME_MAX 64u

enum service_kind {
    SERVICE_MCP = 0,
    SERVICE_ACP
};
enum service_permission { // What an agent is answered that asks for permission.
    PERMISSION_DENY = 0,
    PERMISSION_ALLOW,
    PERMISSION_ASK // Subscribers are asked; whoever answers first decides, nobody in time denies.
};

struct service_config {
    json_t *json; // Owns the texts.
    enum service_kind kind;
    const char *command, *cwd; // cwd: NULL for the runner's own folder of it.
    const json_t *args, *env;  // NULL: none.
    bool inherit;              // The runner's environment.
    bool autostart;            // With the runner.
    struct restart_options restart;
    uint32_t start_ms; // For start and handshake together.
    uint32_t call_ms;  // For a call that names no time of its own.
    uint32_t leave_ms; // From the end of its input to the first step of the stop plan,
    uint32_t grace_ms; // and from that to the kill.
    uint32_t log_size; // Bytes of its log, of which there are two.
    bool pod;          // Lives in a pod, and goes on without the runner.
    uint32_t ring;     // Bytes of output that the pod keeps.
    enum service_permission permission;
    uint32_t permission_ms;
    bool session;              // Make a session at the start.
    const json_t *mcp_servers; // For session/new; NULL: none.
};

// What is wrong, and where: up to four steps from the object that was given.
struct config_problem {
    struct json_step steps[4];
    size_t count;
    char text[300];
};

bool service_valid_name(const char *name);
// Windows has devices of these names in each folder, with any ending.
bool service_is_device(const char *name);
// But for upper and lower case of A to Z. Pure.
bool service_same_name(const char *one, const char *other);
const char *service_kind_name(enum service_kind kind);
const char *service_policy_name(enum restart_policy policy);
// One service. 0, or -1 and the problem. Takes a reference of the object.
int service_config_take(json_t *object, struct service_config *ret_config,
                        struct config_problem *ret_problem);
void service_config_clear(struct service_config *config);
// The whole file. *ret_services: the object of services (the caller's). RUNNER_OK, or RUNNER_USAGE
// with file, line and name.
int service_file_parse(const char *path, const char *text, size_t size, json_t **ret_services,
                       struct runner_error *error);
// A file that is not there has no services.
int service_file_read(const char *path, json_t **ret_services, struct runner_error *error);
// Puts one service into the file as it is now, or removes it (object NULL). The rest stays.
int service_file_change(const char *path, const char *name, json_t *object,
                        struct runner_error *error);
// Where it is: absolute.
void service_file_path(const char *state_dir, char path[4096]);
// Whether somebody has named it, and it is not there: a mistake, or one that is still to be made.
bool service_file_awaited(const char *path);

#endif
