// What there is, seen from outside: the registry, the folders of sessions, and, if asked, the pods.
// Nothing is changed, no lock taken, and no pod disturbed.
#ifndef RUNNER_KNOWN_H
#define RUNNER_KNOWN_H

#include <processmgr/processmgr.h>

#include "pod/wire.h"
#include "runner/runner.h"

#define KNOWN_ASK_MS 2000 // For all pods together: they are asked at once.

enum known_answer {
    KNOWN_NOT_ASKED = 0,
    KNOWN_ANSWERED,
    KNOWN_NOBODY,  // Nobody listens.
    KNOWN_SILENT,  // No answer in time.
    KNOWN_REFUSED, // It does not take our proof, or does not keep to the protocol.
    KNOWN_NO_TOKEN // The token cannot be read.
};

struct known_record { // Of the registry.
    char file[300];
    char state[16];             // As pm_registry_entry::state.
    char id[RUNNER_ID_MAX + 1]; // "": not known.
    char problem[256];
    enum pm_proof proof;
    uint64_t pid, start, object;
    enum pm_detachment detachment;
    // Of its pod, if it lives and was asked.
    enum known_answer answer;
    char detail[128];
    uint16_t version, version_min, version_max;
    char build[POD_BUILD_MAX + 1];
    struct pod_state pod;
};

struct known_folder { // Of a session.
    char path[4096];
    char id[RUNNER_ID_MAX + 1]; // "": its description cannot be read.
    char program[256];
    char service[RUNNER_ID_MAX + 1]; // Whose agent lives in it; "": none.
    int result;                      // PM_OK, or why it cannot be trusted.
    bool starting;                   // Its start, or its removal, has not come to its end.
    bool exit, claimed, lost, socket;
    uint64_t bytes; // Of the record of its exit, with its output.
};

struct known {
    char registry[4200];
    int registry_result; // PM_OK, or why it cannot be read; PM_ERR_NOT_FOUND: there is none yet.
    int owner_result;
    struct pm_registry_owner owner;
    struct known_record *records;
    size_t records_count;
    struct known_folder *folders;
    size_t folders_count;
};

int known_read(const struct runner_env *env, struct known *ret_known);
// Asks the pods of all records, or of one of them, how they are.
int known_ask(const struct runner_env *env, struct known *known, const struct known_record *only);
void known_clear(struct known *known);
// The record of one that runs, or ran; NULL.
const struct known_record *known_record_of(const struct known *known, const char *id);
const struct known_folder *known_folder_of(const struct known *known, const char *id);
// Of the folder of a session without any description: whether there is nothing in it but what a
// start or a removal leaves that did not come to its end. Then it may be removed.
bool known_is_half_made(const char *path);
// Why a folder is not trusted: known_folder::result as text.
const char *known_trouble(int result);

#endif
