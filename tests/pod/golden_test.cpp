// The frozen frames, byte by byte. These bytes are a promise to every runner and daemon that is
// already installed somewhere: a test here that fails means that the change is wrong, not the test.
#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "pod_headers.h"

namespace
{

using Bytes = std::vector<uint8_t>;

Bytes FromHex(const std::string &hex)
{
    Bytes bytes;
    for (size_t i = 0; i < hex.size();) {
        if (hex[i] == ' ') {
            i++;
            continue;
        }
        bytes.push_back(static_cast<uint8_t>(std::stoi(hex.substr(i, 2), nullptr, 16)));
        i += 2;
    }
    return bytes;
}

std::string ToHex(const Bytes &bytes)
{
    std::string hex;
    char two[3];
    for (uint8_t byte : bytes) {
        snprintf(two, sizeof two, "%02x", byte);
        hex += two;
    }
    return hex;
}

Bytes Encode(const pod_message &message)
{
    Bytes bytes(POD_FRAME_MAX);
    bytes.resize(pod_encode(&message, bytes.data(), bytes.size()));
    return bytes;
}

pod_bytes Text(const char *text)
{
    return {reinterpret_cast<const uint8_t *>(text), strlen(text)};
}

int Decode(const Bytes &bytes, pod_message *message)
{
    pod_frame frame = {bytes[4], bytes[5], bytes.data() + 8, bytes.size() - 8};
    return pod_decode(&frame, message);
}

// The same bytes come out, and in again; bytes behind them, of a later version, change nothing, and
// one byte less is refused.
void ExpectGolden(const pod_message &message, const std::string &hex)
{
    Bytes golden = FromHex(hex);
    ASSERT_EQ(ToHex(Encode(message)), ToHex(golden));
    pod_message back;
    ASSERT_EQ(Decode(golden, &back), 0);
    EXPECT_EQ(ToHex(Encode(back)), ToHex(golden));
    if (message.type == POD_ERROR) {
        return; // Its text goes to the end: more of it is more text.
    }
    Bytes longer = golden;
    longer.push_back(0xee);
    ASSERT_EQ(Decode(longer, &back), 0);
    EXPECT_EQ(ToHex(Encode(back)), ToHex(golden));
    Bytes shorter = golden;
    shorter.pop_back();
    EXPECT_EQ(Decode(shorter, &back), -POD_E_PROTOCOL);
}

TEST(Golden, Hello)
{
    pod_message m = {};
    m.type = POD_HELLO;
    memcpy(m.u.hello.magic, POD_MAGIC, POD_MAGIC_SIZE);
    m.u.hello.version_min = 1;
    m.u.hello.version_max = 2;
    m.u.hello.features = 3;
    m.u.hello.epoch = 0x1122334455667788;
    for (uint8_t i = 0; i < POD_NONCE_SIZE; i++) {
        m.u.hello.nonce[i] = i;
    }
    m.u.hello.session = Text("s1");
    m.u.hello.build = Text("0.1");
    ExpectGolden(m, "3700000001000000 504d504f440d0a1a 0100 0200 03000000 8877665544332211"
                    "000102030405060708090a0b0c0d0e0f 027331 03302e31");
}

TEST(Golden, Welcome)
{
    pod_message m = {};
    m.type = POD_WELCOME;
    memcpy(m.u.welcome.magic, POD_MAGIC, POD_MAGIC_SIZE);
    m.u.welcome.version = 1;
    m.u.welcome.version_min = 1;
    m.u.welcome.version_max = 2;
    m.u.welcome.features = 3;
    m.u.welcome.epoch = 5;
    memset(m.u.welcome.nonce, 0xaa, POD_NONCE_SIZE);
    memset(m.u.welcome.proof, 0xbb, POD_PROOF_SIZE);
    m.u.welcome.daemon_pid = 4242;
    m.u.welcome.session = Text("s");
    m.u.welcome.build = Text("b");
    ExpectGolden(m, "5e00000002000000 504d504f440d0a1a 0100 0100 0200 03000000 0500000000000000"
                    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                    "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
                    "9210000000000000 0173 0162");
}

TEST(Golden, Prove)
{
    pod_message m = {};
    m.type = POD_PROVE;
    memset(m.u.prove.proof, 0xcc, POD_PROOF_SIZE);
    ExpectGolden(m, "2800000003000000"
                    "cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc");
}

TEST(Golden, StatusKillClaim)
{
    pod_message m = {};
    m.u.request.request = 0x01020304;
    m.type = POD_STATUS;
    ExpectGolden(m, "0c00000004000000 04030201");
    m.type = POD_KILL;
    ExpectGolden(m, "0c00000007000000 04030201");
    m.type = POD_CLAIM;
    ExpectGolden(m, "0c00000008000000 04030201");
}

TEST(Golden, State)
{
    pod_message m = {};
    m.type = POD_STATE;
    pod_state &s = m.u.state;
    s = {};
    s.request = 7;
    s.state = 1;
    s.writer = 1;
    s.columns = 80;
    s.rows = 24;
    s.clients = 3;
    s.viewers = 2;
    s.epoch = 9;
    s.daemon_pid = 100;
    s.child_pid = 101;
    s.started_wall_ms = 0x0102030405;
    s.first[0] = 10;
    s.end[0] = 20;
    s.first[1] = 30;
    s.end[1] = 40;
    s.input_taken = 50;
    s.input_queued = 60;
    for (uint32_t i = 0; i < POD_FAULTS; i++) {
        s.faults[i] = i + 1;
    }
    s.refused = 6;
    s.gaps = 11;
    s.gap_bytes = 12;
    ExpectGolden(m, "8a00000005000000 07000000 01 01 5000 1800 0300 0200 0900000000000000"
                    "6400000000000000 6500000000000000 0504030201000000 0a00000000000000"
                    "1400000000000000 1e00000000000000 2800000000000000 3200000000000000 3c000000"
                    "01000000 02000000 03000000 04000000 05000000 06000000"
                    "0b00000000000000 0c00000000000000");
}

TEST(Golden, Stop)
{
    pod_message m = {};
    m.type = POD_STOP;
    m.u.stop = {1, 5000};
    ExpectGolden(m, "1000000006000000 01000000 88130000");
}

TEST(Golden, Done)
{
    pod_message m = {};
    m.type = POD_DONE;
    m.u.done = {1, 2};
    ExpectGolden(m, "1400000009000000 01000000 0200000000000000");
}

TEST(Golden, Exit)
{
    pod_message m = {};
    m.type = POD_EXIT;
    m.u.exit = {};
    m.u.exit.kind = 2;
    m.u.exit.core_dumped = 1;
    m.u.exit.stop_action = 3;
    m.u.exit.usage_known = 1;
    m.u.exit.code = 0xc0000005;
    m.u.exit.signal = 11;
    m.u.exit.end[0] = 1;
    m.u.exit.end[1] = 2;
    m.u.exit.started_wall_ms = 3;
    m.u.exit.ended_wall_ms = 4;
    m.u.exit.user_us = 5;
    m.u.exit.system_us = 6;
    m.u.exit.max_rss_kib = 7;
    ExpectGolden(m, "4c0000000a000000 02 01 03 01 050000c0 0b000000 0100000000000000"
                    "0200000000000000 0300000000000000 0400000000000000 0500000000000000"
                    "0600000000000000 0700000000000000");
}

TEST(Golden, Error)
{
    pod_message m = {};
    m.type = POD_ERROR;
    m.u.error.request = 1;
    m.u.error.code = 6;
    m.u.error.frame = 21;
    m.u.error.fatal = 1;
    m.u.error.detail = 8;
    m.u.error.text = Text("no");
    ExpectGolden(m, "1a0000000b000000 01000000 0600 15 01 0800000000000000 6e6f");
}

TEST(Golden, ProofsAreTheSameForEver)
{
    uint8_t token[POD_TOKEN_SIZE], client[POD_NONCE_SIZE], daemon[POD_NONCE_SIZE];
    memset(token, 1, sizeof token);
    memset(client, 2, sizeof client);
    memset(daemon, 3, sizeof daemon);
    pod_proof_input input = {token, client, daemon, Text("session")};
    Bytes proof(POD_PROOF_SIZE);
    // From another implementation of HMAC.
    pod_proof_make(&input, true, proof.data());
    EXPECT_EQ(ToHex(proof), "0aa499d7b09f009535ecab17144f83d8e048d431c4d421411e6db36dffde3c0f");
    pod_proof_make(&input, false, proof.data());
    EXPECT_EQ(ToHex(proof), "9852c8d552c0526773048b42da07ea6d1e74af64241716653cec9f29c7c00282");
}

} // namespace
