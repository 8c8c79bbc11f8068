// The client's end of the control connection, as calls that wait.
#ifndef RUNNER_CONTROL_CLIENT_H
#define RUNNER_CONTROL_CLIENT_H

#include "runner/os.h"
#include "runner/rpc.h"

#define CLIENT_TIMEOUT_MS 30000

struct client;
// Starts a runner if none is there and the environment does not forbid it.
int client_open(const struct runner_env *env, struct client **ret_client,
                struct runner_error *error);
// The same, and also one that stops its sessions, and takes only what ends them, or it.
int client_open_to_end(const struct runner_env *env, struct client **ret_client,
                       struct runner_error *error);
// The same, whether it answers or not.
int client_connect(const struct runner_env *env, struct client **ret_client,
                   struct runner_error *error);
struct client *client_close(struct client *client); // NULL.
// Steals params; *ret_result is the caller's. timeout_ms: -1 for ever.
int client_call(struct client *client, const char *method, json_t *params, int64_t timeout_ms,
                json_t **ret_result, struct runner_error *error);
// From now on notifications come here, also during calls, and are not kept.
void client_listen(struct client *client, void (*told)(void *user, const char *line), void *user);
// The next notification, malloc'd line without its end.
int client_next(struct client *client, char **ret_line, struct runner_error *error);

// One connection for one call.
int client_ask(const struct runner_env *env, const char *method, json_t *params,
               json_t **ret_result, struct runner_error *error);

// start.c
// What a program says may have several lines, also those of Windows: they become one.
void runner_one_line(char *text);
// What a program has written into its file of errors, however long that is, from there, or the end
// of it, in one line: as much as there is room for; "": nothing.
void runner_words_from(const char *path, uint64_t from, char *text, size_t capacity);
void runner_last_words(const char *path, char *text, size_t capacity);
// Makes a runner, and waits until it answers.
int runner_start(const struct runner_env *env, struct runner_error *error);
// PM_OK: one takes connections. PM_ERR_NOT_FOUND: none.
int client_probe(const struct runner_env *env);
// Whether there is one that answers, or could: not one that is about to end.
bool client_is_served(const struct runner_env *env);
uint64_t monotonic_ms(void);

#endif
