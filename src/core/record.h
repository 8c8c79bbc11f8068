// Records of the registry as text, and the text of its lock file. Pure code.
//
//   processmgr-record 1
//   state=running
//   ...
//   crc32=0123abcd
//
// One `name=value` a line, in a fixed order; bytes other than printable ASCII, and '%', are written
// %XX. The last line is the CRC-32 of everything before it. Names that begin with "x-" are room for
// later versions: read over, not kept.
#ifndef PMI_RECORD_H
#define PMI_RECORD_H

#include <processmgr/processmgr.h>

#include "core/identity.h"

#define PMI_RECORD_VERSION 1
#define PMI_RECORD_NAME_MAX 64
#define PMI_RECORD_SIZE_MAX 65536 // Of the text.

enum pmi_record_state {
    PMI_RECORD_STARTING = 0,
    PMI_RECORD_RUNNING,
    PMI_RECORD_EXITED
};

struct pmi_record {
    enum pmi_record_state state;
    struct pmi_identity id;      // The daemon.
    struct pmi_identity starter; // Who wrote this.
    uint64_t epoch;              // Of the registry's owner then.
    char *key, *owner, *program;
    char *label; // NULL = none.
    int64_t started_wall_ms;
    enum pm_detachment detachment;
    struct pm_exit exit; // EXITED only.
};

// *ret_text is malloc'd. Never writes what could not be read back: PM_ERR_INVALID for a value that
// decoding refuses, PM_ERR_TOO_BIG beyond PMI_RECORD_SIZE_MAX. PM_ERR_NO_MEMORY.
int pmi_record_encode(const struct pmi_record *record, char **ret_text, size_t *ret_size);
// The strings of *ret_record are malloc'd: pmi_record_clear(). PM_ERR_CORRUPT: *ret_problem
// (static) says why. PM_ERR_NO_MEMORY.
int pmi_record_decode(const char *text, size_t size, struct pmi_record *ret_record,
                      const char **ret_problem);
void pmi_record_clear(struct pmi_record *record);

// File name of a key: a readable beginning and a hash, so that any key makes a name that any file
// system takes, also one that does not tell upper from lower case.
void pmi_record_file_name(const char *key, char name[PMI_RECORD_NAME_MAX]);

// The lock file: who owns the registry.
int pmi_lock_encode(const struct pmi_identity *owner, uint64_t epoch, char **ret_text,
                    size_t *ret_size);
int pmi_lock_decode(const char *text, size_t size, struct pmi_identity *ret_owner,
                    uint64_t *ret_epoch);

#endif
