// The folder of a session, as a runner makes and reads it. The daemon's part stands in os.h.
#ifndef POD_FOLDER_H
#define POD_FOLDER_H

#include "pod/tomb.h"
#include "poddaemon/os.h"

// Makes the token's file, with a new token. PM_ERR_*.
int pod_token_make(struct pod_dir *dir, uint8_t ret_token[POD_TOKEN_SIZE]);
// PM_ERR_NOT_FOUND; PM_ERR_ACCESS: others could read it; PM_ERR_CORRUPT.
int pod_token_read(struct pod_dir *dir, uint8_t ret_token[POD_TOKEN_SIZE]);

// A session whose daemon is gone. Reads `exit`, or `claimed` if that is all there is, for a reader
// that has come to `from`. *ret_claimed: somebody has claimed it. PM_ERR_NOT_FOUND: no record, the
// holder died; PM_ERR_CORRUPT: damaged; PM_ERR_INVALID: `from` is behind the end.
int pod_exit_read(struct pod_dir *dir, const uint64_t from[POD_CHANNELS],
                  pod_client_handler *handler, void *user, bool *ret_claimed);
// Takes the exit for oneself: of all who try, on whatever way, one gets PM_OK, the others
// PM_ERR_GONE; PM_ERR_NOT_FOUND: there is no record.
int pod_exit_claim(struct pod_dir *dir);

#endif
