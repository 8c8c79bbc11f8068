// What is known of MCP (2025-11-25 and before) and of ACP (version 1): docs/services.md.
#include <stdio.h>
#include <string.h>

#include "runner/peer.h"

#define MCP_VERSION "2025-11-25"
#define ACP_VERSION 1

static const char *const mcp_versions[] = {MCP_VERSION, "2025-06-18", "2025-03-26", "2024-11-05"};

json_t *handshake_initialize(enum service_kind kind)
{
    return kind == SERVICE_MCP
               ? json_pack("{s:s, s:{}, s:{s:s, s:s}}", "protocolVersion", MCP_VERSION,
                           "capabilities", "clientInfo", "name", "processmgr-runner", "version",
                           PM_VERSION_STRING)
               : json_pack("{s:i, s:{s:{s:b, s:b}, s:b}, s:{s:s, s:s}}", "protocolVersion",
                           ACP_VERSION, "clientCapabilities", "fs", "readTextFile", 0,
                           "writeTextFile", 0, "terminal", 0, "clientInfo", "name",
                           "processmgr-runner", "version", PM_VERSION_STRING);
}

const char *handshake_check(enum service_kind kind, const json_t *result)
{
    const json_t *version = json_object_get(result, "protocolVersion");
    if (kind == SERVICE_ACP) {
        return json_is_integer(version) && json_integer_value(version) == ACP_VERSION
                   ? NULL
                   : "it does not speak version 1 of ACP";
    }
    const char *text = json_string_value(version);
    for (size_t i = 0; text != NULL && i < sizeof mcp_versions / sizeof mcp_versions[0]; i++) {
        if (strcmp(text, mcp_versions[i]) == 0) {
            return NULL;
        }
    }
    return "it speaks no version of MCP that is known here";
}

json_t *handshake_session(const struct service_config *config, const char *cwd)
{
    json_t *servers =
        config->mcp_servers != NULL ? json_deep_copy(config->mcp_servers) : json_array();
    return json_pack("{s:s, s:o}", "cwd", cwd, "mcpServers", servers);
}

static const json_t *find_option(const json_t *options, const char *kind)
{
    size_t i;
    const json_t *option;
    json_array_foreach(options, i, option)
    {
        const char *is = json_string_value(json_object_get(option, "kind"));
        if (is != NULL && strcmp(is, kind) == 0 &&
            json_is_string(json_object_get(option, "optionId"))) {
            return option;
        }
    }
    return NULL;
}

json_t *handshake_permission(const json_t *request, bool allow)
{
    const json_t *options = json_object_get(json_object_get(request, "params"), "options");
    const json_t *option = find_option(options, allow ? "allow_once" : "reject_once");
    if (option == NULL) {
        option = find_option(options, allow ? "allow_always" : "reject_always");
    }
    return option == NULL ? json_pack("{s:{s:s}}", "outcome", "outcome", "cancelled")
                          : json_pack("{s:{s:s, s:O}}", "outcome", "outcome", "selected",
                                      "optionId", json_object_get(option, "optionId"));
}

const char *handshake_cancel(enum service_kind kind, const char *id, const char *method,
                             const json_t *params, const char *why, json_t **ret_params)
{
    json_t *session = json_object_get(params, "sessionId");
    if (kind == SERVICE_MCP) {
        *ret_params = json_pack("{s:s, s:s}", "requestId", id, "reason", why);
        return "notifications/cancelled";
    }
    if (strcmp(method, "session/prompt") == 0 && json_is_string(session)) {
        *ret_params = json_pack("{s:O}", "sessionId", session);
        return "session/cancel";
    }
    *ret_params = json_pack("{s:s}", "requestId", id);
    return "$/cancel_request";
}
