// What doctor finds out about services: their file, what the runner says of them, and agents in
// pods that no service has.
#include <stdio.h>
#include <string.h>

#include "runner/control_client.h"
#include "runner/doctor.h"
#include "runner/os.h"
#include "runner/service_config.h"

#define ANSWER_MS 2000

struct look {
    struct doctor *doctor;
    char file[4096], edit[4600]; // edit: the command.
    json_t *told;                // What the runner says; NULL: there is none, or it says nothing.
    json_t *services;            // Of the file; NULL: it is wrong.
};

static json_t *ask_runner(const struct doctor *doctor)
{
    struct runner_env quiet = *doctor->env;
    struct runner_error error;
    struct client *client = NULL;
    json_t *told = NULL;
    quiet.no_start = true;
    if (doctor->runner_answers && client_connect(&quiet, &client, &error) == RUNNER_OK) {
        if (client_call(client, "service.list", NULL, ANSWER_MS, &told, &error) != RUNNER_OK) {
            told = NULL;
        }
        (void)client_close(client);
    }
    return told;
}

static const json_t *told_of(const struct look *look, const char *name)
{
    size_t i;
    const json_t *service;
    json_array_foreach(json_object_get(look->told, "services"), i, service)
    {
        const char *other = json_string_value(json_object_get(service, "name"));
        if (other != NULL && strcmp(other, name) == 0) {
            return service;
        }
    }
    return NULL;
}

static const char *state_of(const json_t *service)
{
    const char *state = json_string_value(json_object_get(service, "state"));
    return state != NULL ? state : "";
}

// ------------------------------------------------------------------------------------------------
// The file
// ------------------------------------------------------------------------------------------------

static void read_file(struct look *look)
{
    struct doctor *doctor = look->doctor;
    struct runner_error error;
    const char *problem = json_string_value(json_object_get(look->told, "problem"));
    if (service_file_read(look->file, &look->services, &error) != RUNNER_OK) {
        look->services = NULL;
        doctor_find(doctor, DOCTOR_ERROR, "service.config", look->file,
                    "%s\n%s; none of its services is started by the next runner\n%s", error.what,
                    error.why, look->edit);
    } else if (problem != NULL) {
        doctor_find(doctor, DOCTOR_ERROR, "service.config", look->file,
                    "the runner has started no service of '%s'\nit was wrong then, and is mended "
                    "now: %s\n%s upgrade",
                    look->file, problem, doctor->runner);
    }
}

// In the PATH that it gets; that of the runner may be another one than ours.
static void check_program(const struct look *look, const char *name,
                          const struct service_config *config)
{
    struct doctor *doctor = look->doctor;
    char ours[32768] = "";
    size_t size = sizeof ours;
    const char *path = NULL, *variable;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)config->env, variable, value)
    {
        if (os_has_name("PATH=", variable)) {
            path = json_is_string(value) ? json_string_value(value) : "";
        }
    }
    bool own = path == NULL && config->inherit;
    if (own && uv_os_getenv("PATH", ours, &size) == 0) {
        path = ours;
    }
    if (os_program_exists(config->command, path != NULL ? path : "")) {
        return;
    }
    doctor_find(doctor, config->autostart ? DOCTOR_ERROR : DOCTOR_WARNING, "service.program", name,
                "the program of service '%s' is not there: '%.1000s'\n%s\n%s && %s service restart "
                "%s",
                name, config->command,
                os_has_separator(config->command) ? "its 'command' names no file that can be run"
                : own ? "it is in no folder of the PATH here; name it in full, or give the service "
                        "a PATH in its 'env'"
                      : "it is in no folder of the PATH that the service gets",
                look->edit, doctor->runner, name);
}

static void check_programs(const struct look *look)
{
    const char *name;
    json_t *object;
    json_object_foreach(look->services, name, object)
    {
        const char *state = state_of(told_of(look, name));
        struct service_config config;
        struct config_problem problem;
        if (strcmp(state, "running") != 0 && strcmp(state, "starting") != 0 &&
            service_config_take(object, &config, &problem) == 0) {
            check_program(look, name, &config);
            service_config_clear(&config);
        }
    }
}

// ------------------------------------------------------------------------------------------------
// What there is
// ------------------------------------------------------------------------------------------------

static void check_states(const struct look *look)
{
    size_t i;
    const json_t *service;
    struct doctor *doctor = look->doctor;
    json_array_foreach(json_object_get(look->told, "services"), i, service)
    {
        const char *name = json_string_value(json_object_get(service, "name"));
        const char *reason = json_string_value(json_object_get(service, "reason"));
        if (name != NULL && reason != NULL && strcmp(state_of(service), "breaker") == 0) {
            doctor_find(doctor, DOCTOR_ERROR, "service.breaker", name,
                        "service '%s' has ended too often, and is not started again\n%s\n"
                        "%s service logs %s && %s service restart %s",
                        name, reason, doctor->runner, name, doctor->runner, name);
        }
    }
}

static bool lives_in_pod(const struct look *look, const char *name)
{
    const json_t *told = told_of(look, name), *object = json_object_get(look->services, name);
    return told != NULL ? json_is_true(json_object_get(told, "pod"))
                        : json_is_true(json_object_get(object, "pod"));
}

// A runner ends them when it starts.
static void check_agents(const struct look *look)
{
    struct doctor *doctor = look->doctor;
    char quoted[4400];
    for (size_t i = 0; i < doctor->known.folders_count; i++) {
        const struct known_folder *folder = &doctor->known.folders[i];
        const struct known_record *record = known_record_of(&doctor->known, folder->id);
        if (folder->service[0] != '\0' && record != NULL && record->proof == PM_PROOF_ALIVE &&
            !lives_in_pod(look, folder->service)) {
            doctor_find(doctor, DOCTOR_WARNING, "service.agent", folder->id,
                        "the agent in session '%s' goes on, and no service '%s' lives in a pod "
                        "any more\nit was taken out of '%s' while no runner was there; the next "
                        "one ends it\n%s %s%s",
                        folder->id, folder->service, look->file, doctor->runner,
                        doctor->runner_answers ? "destroy " : "list",
                        doctor->runner_answers ? doctor_id(folder->id, quoted) : "");
        }
    }
}

void doctor_services(struct doctor *doctor)
{
    struct look look = {.doctor = doctor, .told = ask_runner(doctor)};
    const char *file = json_string_value(json_object_get(look.told, "file"));
    doctor_checked(doctor, "services");
    if (file != NULL) {
        (void)snprintf(look.file, sizeof look.file, "%s", file);
    } else {
        service_file_path(doctor->env->state_dir, look.file);
    }
    (void)doctor_command(DOCTOR_EDIT, look.file, look.edit);
    read_file(&look);
    check_states(&look);
    if (look.services != NULL) {
        check_programs(&look);
        check_agents(&look);
    }
    json_decref(look.services);
    json_decref(look.told);
}
