// Frames, the decoder, the configuration, rules, proofs: the pure parts one by one.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "pod_headers.h"

namespace
{

using Bytes = std::vector<uint8_t>;

Bytes Encode(const pod_message &message)
{
    Bytes bytes(POD_FRAME_MAX);
    bytes.resize(pod_encode(&message, bytes.data(), bytes.size()));
    return bytes;
}

pod_message Data(pod_frame_type type, const Bytes &bytes)
{
    pod_message m = {};
    m.type = static_cast<uint8_t>(type);
    m.u.data.data = {bytes.data(), bytes.size()};
    return m;
}

std::string Hex(const uint8_t *bytes, size_t size)
{
    std::string hex;
    char two[3];
    for (size_t i = 0; i < size; i++) {
        snprintf(two, sizeof two, "%02x", bytes[i]);
        hex += two;
    }
    return hex;
}

// Frames of many sizes, fed in pieces of given sizes, are the frames that went in.
void ExpectAnySplit(const Bytes &stream, const std::vector<Bytes> &payloads,
                    const std::function<size_t()> &piece)
{
    pod_decoder decoder;
    pod_decoder_init(&decoder, POD_FRAME_MAX);
    size_t at = 0, found = 0;
    while (at < stream.size()) {
        size_t some = std::min(piece(), stream.size() - at);
        Bytes exact(stream.begin() + static_cast<long>(at),
                    stream.begin() + static_cast<long>(at + some));
        pod_bytes data = {exact.data(), exact.size()};
        pod_frame frame;
        int result;
        while ((result = pod_decoder_next(&decoder, &data, &frame)) == 1) {
            ASSERT_LT(found, payloads.size());
            EXPECT_EQ(Bytes(frame.payload, frame.payload + frame.size), payloads[found]);
            found++;
        }
        ASSERT_EQ(result, 0);
        at += some;
    }
    EXPECT_EQ(found, payloads.size());
    pod_decoder_clear(&decoder);
}

TEST(Wire, FramesSurviveAnySplit)
{
    std::mt19937 random(1);
    std::vector<Bytes> payloads;
    Bytes stream;
    for (unsigned size : {0u, 1u, 2u, 7u, 8u, 9u, 255u, 256u, 4096u, 65527u, 65528u, 3u}) {
        Bytes payload(size);
        std::generate(payload.begin(), payload.end(), [&] { return uint8_t(random()); });
        Bytes frame = Encode(Data(POD_INPUT, payload));
        ASSERT_EQ(frame.size(), size + POD_HEADER_SIZE);
        payloads.push_back(payload);
        stream.insert(stream.end(), frame.begin(), frame.end());
    }
    ExpectAnySplit(stream, payloads, [] { return size_t{1}; });
    ExpectAnySplit(stream, payloads, [&] { return stream.size(); });
    for (int round = 0; round < 50; round++) {
        ExpectAnySplit(stream, payloads,
                       [&] { return size_t{1} + random() % (round % 2 == 0 ? 13 : 70000); });
    }
}

TEST(Wire, SizesThatCannotBeAreRefusedAndNothingComesAfter)
{
    for (uint32_t size : {0u, 1u, 7u, POD_FRAME_MAX + 1u, 0x7fffffffu, 0xffffffffu}) {
        for (size_t piece : {1u, 4096u}) {
            pod_decoder decoder;
            pod_decoder_init(&decoder, POD_FRAME_MAX);
            Bytes bytes(64, 4);
            for (size_t i = 0; i < 4; i++) {
                bytes[i] = uint8_t(size >> (8 * i));
            }
            int result = 0;
            pod_frame frame;
            for (size_t at = 0; at < bytes.size() && result == 0; at += piece) {
                pod_bytes data = {bytes.data() + at, std::min(piece, bytes.size() - at)};
                result = pod_decoder_next(&decoder, &data, &frame);
            }
            EXPECT_EQ(result, -POD_E_PROTOCOL) << size;
            EXPECT_LE(decoder.capacity, 64u); // Of what came, not of what was announced.
            Bytes good = Encode(Data(POD_INPUT, {1}));
            pod_bytes data = {good.data(), good.size()};
            EXPECT_EQ(pod_decoder_next(&decoder, &data, &frame), -POD_E_PROTOCOL);
            pod_decoder_clear(&decoder);
        }
    }
}

TEST(Wire, MemoryFollowsWhatHasCome)
{
    pod_decoder decoder;
    pod_decoder_init(&decoder, POD_FRAME_MAX);
    Bytes begin = {0, 0, 1, 0, POD_INPUT, 0, 0, 0, 1, 2, 3}; // 65536 bytes announced.
    pod_bytes data = {begin.data(), begin.size()};
    pod_frame frame;
    EXPECT_EQ(pod_decoder_next(&decoder, &data, &frame), 0);
    EXPECT_LE(decoder.capacity, 64u);
    pod_decoder_clear(&decoder);
    EXPECT_EQ(decoder.limit, POD_FRAME_MAX);
}

TEST(Wire, WhatDoesNotFitIsNotWritten)
{
    uint8_t buffer[64];
    Bytes large(POD_PAYLOAD_MAX + 1);
    pod_message m = Data(POD_INPUT, large);
    Bytes room(POD_FRAME_MAX + 16);
    EXPECT_EQ(pod_encode(&m, room.data(), room.size()), 0u);
    m.u.data.data.size = POD_PAYLOAD_MAX;
    EXPECT_EQ(pod_encode(&m, room.data(), room.size()), POD_FRAME_MAX);
    EXPECT_EQ(pod_encode(&m, buffer, sizeof buffer), 0u);
    m.type = 200;
    EXPECT_EQ(pod_encode(&m, room.data(), room.size()), 0u);
    m = {};
    m.type = POD_HELLO;
    m.u.hello.session = {large.data(), POD_SESSION_MAX + 1};
    EXPECT_EQ(pod_encode(&m, room.data(), room.size()), 0u);
}

TEST(Wire, ValuesThatCannotBeAreRefused)
{
    pod_message m = {}, back;
    auto decode = [&] {
        Bytes bytes = Encode(m);
        pod_frame frame = {bytes[4], bytes[5], bytes.data() + 8, bytes.size() - 8};
        return pod_decode(&frame, &back);
    };
    uint8_t byte = 1;
    m.type = POD_OUTPUT;
    m.u.output = {0, 5, {&byte, 1}};
    EXPECT_EQ(decode(), 0);
    m.u.output.channel = 2;
    EXPECT_EQ(decode(), -POD_E_PROTOCOL);
    m.u.output = {0, 5, {&byte, 0}};
    EXPECT_EQ(decode(), -POD_E_PROTOCOL);
    m.u.output = {0, UINT64_MAX, {&byte, 1}};
    EXPECT_EQ(decode(), -POD_E_PROTOCOL);
    m.type = POD_GAP;
    m.u.gap = {0, 5, 5};
    EXPECT_EQ(decode(), -POD_E_PROTOCOL);
    m.type = POD_ATTACH;
    m.u.attach = {};
    m.u.attach.role = 3;
    EXPECT_EQ(decode(), -POD_E_PROTOCOL);
    m.type = POD_EXIT;
    m.u.exit = {};
    EXPECT_EQ(decode(), -POD_E_PROTOCOL);
    pod_frame unknown = {99, 0, &byte, 1};
    EXPECT_EQ(pod_decode(&unknown, &back), -POD_E_UNSUPPORTED);
}

// FIPS 180-4 and RFC 4231.
TEST(Proof, HashesAreThoseOfTheStandards)
{
    pod_sha256 sha;
    uint8_t digest[32];
    pod_sha256_begin(&sha);
    pod_sha256_end(&sha, digest);
    EXPECT_EQ(Hex(digest, 32), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    std::string million(1000000, 'a');
    pod_sha256_begin(&sha);
    for (size_t at = 0, step = 1; at < million.size(); at += step, step = step % 997 + 1) {
        step = std::min(step, million.size() - at);
        pod_sha256_add(&sha, million.data() + at, step);
    }
    pod_sha256_end(&sha, digest);
    EXPECT_EQ(Hex(digest, 32), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    Bytes key(20, 0x0b);
    pod_hmac(key.data(), key.size(), "Hi There", 8, digest);
    EXPECT_EQ(Hex(digest, 32), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    pod_hmac(reinterpret_cast<const uint8_t *>("Jefe"), 4, "what do ya want for nothing?", 28,
             digest);
    EXPECT_EQ(Hex(digest, 32), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

TEST(Config, ComesBackAsItWas)
{
    const char *argv[] = {"sh", "-c", "", nullptr};
    const char *env[] = {"A=1", "B=\xff\xfe", nullptr};
    pod_config config = {}, back;
    config.mode = POD_MODE_PIPES;
    config.owner = "o";
    config.program = "/bin/sh";
    config.argv = argv;
    config.env = env;
    config.cwd = "/";
    config.grace_ms = 7;
    uint8_t *bytes;
    size_t size;
    unsigned tag;
    ASSERT_EQ(pod_config_encode(&config, &bytes, &size), 0);
    Bytes exact(bytes, bytes + size);
    free(bytes);
    ASSERT_EQ(pod_config_decode(exact.data(), exact.size(), &back, &tag), 0);
    EXPECT_EQ(back.mode, uint32_t{POD_MODE_PIPES});
    EXPECT_STREQ(back.program, "/bin/sh");
    EXPECT_STREQ(back.argv[2], "");
    EXPECT_EQ(back.argv[3], nullptr);
    EXPECT_STREQ(back.env[1], "B=\xff\xfe");
    EXPECT_EQ(back.env[2], nullptr);
    EXPECT_EQ(back.columns, 80u);
    EXPECT_EQ(back.rows, 24u);
    EXPECT_EQ(back.ring_size, POD_RING_DEFAULT);
    EXPECT_EQ(back.grace_ms, 7u);
    pod_config_clear(&back);
    // Cut at every byte, it is refused, or lacks its end.
    for (size_t cut = 0; cut < exact.size(); cut++) {
        Bytes piece(exact.begin(), exact.begin() + static_cast<long>(cut));
        if (pod_config_decode(piece.data(), piece.size(), &back, &tag) == 0) {
            pod_config_clear(&back);
        }
    }
    // An entry of a later version: refused by number, or read over.
    Bytes later = exact;
    later.insert(later.end(), {99, 0, 1, 0, 0, 0, 7});
    EXPECT_EQ(pod_config_decode(later.data(), later.size(), &back, &tag), -POD_E_UNSUPPORTED);
    EXPECT_EQ(tag, 99u);
    later[exact.size() + 1] = 0x80;
    ASSERT_EQ(pod_config_decode(later.data(), later.size(), &back, &tag), 0);
    pod_config_clear(&back);
}

// The tags of an entry list.
static std::vector<unsigned> Tags(const pod_config &config)
{
    uint8_t *bytes = nullptr;
    size_t size = 0;
    std::vector<unsigned> tags;
    EXPECT_EQ(pod_config_encode(&config, &bytes, &size), 0);
    for (size_t at = 0; at + 6 <= size;) {
        tags.push_back(static_cast<unsigned>(bytes[at] | bytes[at + 1] << 8));
        at += 6u + bytes[at + 2] + bytes[at + 3] * 256u;
    }
    free(bytes);
    return tags;
}

// A daemon of an earlier build takes what it can do, and refuses what it cannot.
TEST(Config, WhatEarlierDaemonsDoNotKnowIsOnlySaidWhenItIsWanted)
{
    pod_config config = {};
    config.mode = POD_MODE_PTY;
    config.program = "x";
    config.cwd = "/";
    EXPECT_EQ(Tags(config), (std::vector<unsigned>{1, 3, 6}));
    config.wait_s = 5; // Of no meaning so far.
    EXPECT_EQ(Tags(config), (std::vector<unsigned>{1, 3, 6}));
    config.wait_s = 0;
    config.on_full = POD_FULL_WAIT;
    EXPECT_EQ(Tags(config), (std::vector<unsigned>{1, 3, 6, 15}));
    config.wait_s = 5;
    EXPECT_EQ(Tags(config), (std::vector<unsigned>{1, 3, 6, 15, 16}));
    config.batch = 1;
    EXPECT_EQ(Tags(config), (std::vector<unsigned>{1, 3, 6, 15, 16, 17}));
    config.batch = 0;
    config.on_full = 2;
    uint8_t *bytes;
    size_t size;
    EXPECT_EQ(pod_config_encode(&config, &bytes, &size), -POD_E_INVALID);
}

TEST(Config, WhatCannotBeIsRefused)
{
    pod_config config = {};
    uint8_t *bytes;
    size_t size;
    EXPECT_EQ(pod_config_encode(&config, &bytes, &size), -POD_E_INVALID);
    config.mode = POD_MODE_PTY;
    config.program = "x";
    EXPECT_EQ(pod_config_encode(&config, &bytes, &size), -POD_E_INVALID); // No folder.
    config.cwd = "/";
    config.columns = 40000;
    EXPECT_EQ(pod_config_encode(&config, &bytes, &size), -POD_E_INVALID);
    config.columns = 0;
    config.ring_size = 1;
    EXPECT_EQ(pod_config_encode(&config, &bytes, &size), -POD_E_INVALID);
    config.ring_size = 0;
    ASSERT_EQ(pod_config_encode(&config, &bytes, &size), 0);
    free(bytes);
}

TEST(Rules, OneWriterAndTakeOverByEpoch)
{
    pod_rules rules = {};
    pod_peer old_runner = {POD_ROLE_NONE, 4}, new_runner = {POD_ROLE_NONE, 5}, viewer = {},
             *taken = nullptr;
    pod_attach writer = {}, look = {};
    writer.role = POD_ROLE_WRITER;
    look.role = POD_ROLE_VIEWER;
    EXPECT_EQ(pod_rules_allow(&rules, &old_runner, POD_INPUT), -POD_E_STATE);
    ASSERT_EQ(pod_rules_attach(&rules, &old_runner, &writer, &taken), 0);
    EXPECT_EQ(pod_rules_allow(&rules, &old_runner, POD_INPUT), 0);
    EXPECT_EQ(pod_rules_allow(&rules, &old_runner, POD_ATTACH), -POD_E_STATE);
    // A viewer sees and does nothing.
    ASSERT_EQ(pod_rules_attach(&rules, &viewer, &look, &taken), 0);
    for (int type : {POD_INPUT, POD_RESIZE, POD_CLOSE_INPUT, POD_STOP, POD_KILL, POD_CLAIM}) {
        EXPECT_EQ(pod_rules_allow(&rules, &viewer, type), -POD_E_READ_ONLY) << type;
    }
    EXPECT_EQ(pod_rules_allow(&rules, &viewer, POD_STATUS), 0);
    // Not without being asked for, and not with an older number.
    EXPECT_EQ(pod_rules_attach(&rules, &new_runner, &writer, &taken), -POD_E_BUSY);
    writer.flags = POD_ATTACH_TAKE_OVER;
    ASSERT_EQ(pod_rules_attach(&rules, &new_runner, &writer, &taken), 0);
    EXPECT_EQ(taken, &old_runner);
    EXPECT_EQ(rules.epoch, 5u);
    for (int type : {POD_INPUT, POD_RESIZE, POD_STOP, POD_KILL, POD_CLAIM}) {
        EXPECT_EQ(pod_rules_allow(&rules, &old_runner, type), -POD_E_FENCED) << type;
    }
    // Detached and attached again: still fenced.
    pod_rules_leave(&rules, &old_runner);
    EXPECT_EQ(pod_rules_attach(&rules, &old_runner, &writer, &taken), -POD_E_FENCED);
    EXPECT_EQ(pod_rules_allow(&rules, &old_runner, POD_STOP), -POD_E_FENCED);
    EXPECT_EQ(rules.writer, &new_runner);
    pod_rules_leave(&rules, &new_runner);
    EXPECT_EQ(rules.writer, nullptr);
    EXPECT_EQ(pod_rules_attach(&rules, &old_runner, &writer, &taken), -POD_E_FENCED);
    EXPECT_EQ(rules.viewers, 1);
    pod_rules_leave(&rules, &viewer);
    EXPECT_EQ(rules.viewers, 0);
}

TEST(Rules, TheHighestCommonVersionWins)
{
    EXPECT_EQ(pod_common_version(1, 1, 1, 1), 1);
    EXPECT_EQ(pod_common_version(1, 3, 2, 5), 3);
    EXPECT_EQ(pod_common_version(2, 5, 1, 3), 3);
    EXPECT_EQ(pod_common_version(1, 1, 2, 3), 0);
    EXPECT_EQ(pod_common_version(4, 9, 1, 3), 0);
}

} // namespace
