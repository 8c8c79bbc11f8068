// Proofs that a peer knows the token of a session, which itself is never sent. HMAC-SHA-256 (RFC
// 2104, FIPS 180-4) over who proves, both nonces and the session.
#ifndef POD_PROOF_H
#define POD_PROOF_H

#include "pod/wire.h"

struct pod_sha256 {
    uint32_t state[8];
    uint64_t size;
    uint8_t block[64];
};
#define POD_SHA256_SIZE 32u

void pod_sha256_begin(struct pod_sha256 *sha);
void pod_sha256_add(struct pod_sha256 *sha, const void *data, size_t size);
void pod_sha256_end(struct pod_sha256 *sha, uint8_t digest[POD_SHA256_SIZE]);

void pod_hmac(const uint8_t *key, size_t key_size, const void *data, size_t size,
              uint8_t mac[POD_SHA256_SIZE]);

struct pod_proof_input {
    const uint8_t *token; // POD_TOKEN_SIZE
    const uint8_t *client_nonce, *daemon_nonce;
    struct pod_bytes session;
};
// `daemon`: the proof of the daemon, else that of the client.
void pod_proof_make(const struct pod_proof_input *input, bool daemon,
                    uint8_t proof[POD_PROOF_SIZE]);
// Takes the same time wherever they differ.
bool pod_same_secret(const uint8_t *a, const uint8_t *b, size_t size);

#endif
