#include "pod/proof.h"

#include <assert.h>
#include <string.h>

// FIPS 180-4, 4.2.2.
static const uint32_t constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t turn(uint32_t value, unsigned by)
{
    return value >> by | value << (32 - by);
}

// One round of FIPS 180-4, 6.2.2, step 3. Not the eight values move but their names: `i` is the
// number of the round, of which eight bring each name back to its place.
static inline void mix_round(uint32_t s[8], unsigned i, uint32_t word)
{
    uint32_t a = s[(0 - i) % 8], b = s[(1 - i) % 8], c = s[(2 - i) % 8];
    uint32_t e = s[(4 - i) % 8], f = s[(5 - i) % 8], g = s[(6 - i) % 8];
    uint32_t t1 =
        s[(7 - i) % 8] + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + word;
    s[(3 - i) % 8] += t1;
    s[(7 - i) % 8] = t1 + (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
}

static void mix(uint32_t state[8], const uint8_t block[64])
{
    uint32_t w[64], s[8];
    for (size_t i = 0; i < 16; i++) {
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
               (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
    }
    for (size_t i = 16; i < 64; i++) {
        uint32_t a = w[i - 15], b = w[i - 2];
        w[i] = w[i - 16] + (turn(a, 7) ^ turn(a, 18) ^ a >> 3) + w[i - 7] +
               (turn(b, 17) ^ turn(b, 19) ^ b >> 10);
    }
    memcpy(s, state, sizeof s);
    for (unsigned i = 0; i < 64; i += 8) {
        for (unsigned j = 0; j < 8; j++) {
            mix_round(s, j, constants[i + j] + w[i + j]);
        }
    }
    for (size_t i = 0; i < 8; i++) {
        state[i] += s[i];
    }
}

void pod_sha256_begin(struct pod_sha256 *sha)
{
    *sha = (struct pod_sha256){.state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f,
                                         0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};
}

void pod_sha256_add(struct pod_sha256 *sha, const void *data, size_t size)
{
    const uint8_t *from = data;
    while (size > 0) {
        size_t at = (size_t)(sha->size % sizeof sha->block);
        size_t some = sizeof sha->block - at < size ? sizeof sha->block - at : size;
        memcpy(sha->block + at, from, some);
        sha->size += some;
        from += some;
        size -= some;
        if (at + some == sizeof sha->block) {
            mix(sha->state, sha->block);
        }
    }
}

void pod_sha256_end(struct pod_sha256 *sha, uint8_t digest[POD_SHA256_SIZE])
{
    static const uint8_t padding[64] = {0x80};
    uint64_t bits = sha->size * 8;
    uint8_t length[8];
    size_t at = (size_t)(sha->size % 64);
    for (size_t i = 0; i < 8; i++) {
        length[i] = (uint8_t)(bits >> (56 - 8 * i));
    }
    pod_sha256_add(sha, padding, at < 56 ? 56 - at : 120 - at);
    pod_sha256_add(sha, length, sizeof length);
    for (size_t i = 0; i < POD_SHA256_SIZE; i++) {
        digest[i] = (uint8_t)(sha->state[i / 4] >> (24 - 8 * (i % 4)));
    }
}

void pod_hmac(const uint8_t *key, size_t key_size, const void *data, size_t size,
              uint8_t mac[POD_SHA256_SIZE])
{
    struct pod_sha256 sha;
    uint8_t pad[64];
    assert(key_size <= sizeof pad);
    for (size_t i = 0; i < sizeof pad; i++) {
        pad[i] = (uint8_t)((i < key_size ? key[i] : 0) ^ 0x36);
    }
    pod_sha256_begin(&sha);
    pod_sha256_add(&sha, pad, sizeof pad);
    pod_sha256_add(&sha, data, size);
    pod_sha256_end(&sha, mac);
    for (size_t i = 0; i < sizeof pad; i++) {
        pad[i] ^= 0x36 ^ 0x5c;
    }
    pod_sha256_begin(&sha);
    pod_sha256_add(&sha, pad, sizeof pad);
    pod_sha256_add(&sha, mac, POD_SHA256_SIZE);
    pod_sha256_end(&sha, mac);
}

void pod_proof_make(const struct pod_proof_input *input, bool daemon, uint8_t proof[POD_PROOF_SIZE])
{
    // Of one length, so that nothing in one text can stand for another.
    static const char who[2][24] = {"processmgr-pod client 1", "processmgr-pod daemon 1"};
    uint8_t text[sizeof who[0] + 2 * POD_NONCE_SIZE + POD_SESSION_MAX];
    size_t at = 0;
    assert(input->session.size <= POD_SESSION_MAX);
    memcpy(text, who[daemon], sizeof who[0]);
    at += sizeof who[0];
    memcpy(text + at, input->client_nonce, POD_NONCE_SIZE);
    at += POD_NONCE_SIZE;
    memcpy(text + at, input->daemon_nonce, POD_NONCE_SIZE);
    at += POD_NONCE_SIZE;
    if (input->session.size > 0) {
        memcpy(text + at, input->session.data, input->session.size);
    }
    at += input->session.size;
    pod_hmac(input->token, POD_TOKEN_SIZE, text, at, proof);
}

bool pod_same_secret(const uint8_t *a, const uint8_t *b, size_t size)
{
    volatile uint8_t differs = 0;
    for (size_t i = 0; i < size; i++) {
        differs = (uint8_t)(differs | (a[i] ^ b[i]));
    }
    return differs == 0;
}
