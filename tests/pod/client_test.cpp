// The client's end against a daemon of a few lines.
#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "pod_headers.h"

namespace
{

using Bytes = std::vector<uint8_t>;

pod_bytes Text(const char *text)
{
    return {reinterpret_cast<const uint8_t *>(text), strlen(text)};
}

struct Pair {
    uint8_t token[POD_TOKEN_SIZE] = {1, 2, 3}, nonce[POD_NONCE_SIZE] = {4, 5};
    pod_client client = {};
    std::vector<uint8_t> seen; // Types that the handler was told.

    Pair()
    {
        pod_client_options options = {};
        options.session = "one";
        options.token = token;
        options.nonce = nonce;
        options.epoch = 3;
        options.handler = [](void *user, const pod_message *m) {
            static_cast<Pair *>(user)->seen.push_back(m->type);
        };
        options.user = this;
        EXPECT_EQ(pod_client_init(&client, &options), 0);
    }
    ~Pair()
    {
        pod_client_clear(&client);
    }

    // The next frame that the client sends: its type, and the size of its payload.
    std::pair<int, size_t> Sent()
    {
        pod_bytes bytes = pod_client_pending(&client);
        pod_decoder decoder;
        pod_decoder_init(&decoder, POD_FRAME_MAX);
        pod_frame frame;
        size_t all = bytes.size;
        EXPECT_EQ(pod_decoder_next(&decoder, &bytes, &frame), 1);
        pod_client_sent(&client, all - bytes.size);
        return {frame.type, frame.size};
    }
    int Tell(const pod_message &m)
    {
        Bytes bytes(POD_FRAME_MAX);
        bytes.resize(pod_encode(&m, bytes.data(), bytes.size()));
        return pod_client_feed(&client, bytes.data(), bytes.size());
    }
    pod_message Welcome(const uint8_t *with_token)
    {
        pod_message m = {};
        m.type = POD_WELCOME;
        memcpy(m.u.welcome.magic, POD_MAGIC, POD_MAGIC_SIZE);
        m.u.welcome.version = 1;
        m.u.welcome.session = Text("one");
        pod_proof_input input = {with_token, nonce, m.u.welcome.nonce, Text("one")};
        pod_proof_make(&input, true, m.u.welcome.proof);
        return m;
    }
    void Greet(uint32_t features = 0)
    {
        EXPECT_EQ(Sent().first, POD_HELLO);
        pod_message welcome = Welcome(token);
        welcome.u.welcome.features = features;
        EXPECT_EQ(Tell(welcome), 0);
        EXPECT_EQ(Sent().first, POD_PROVE);
    }
    void Attach(uint64_t from, uint64_t credit, pod_role role = POD_ROLE_WRITER)
    {
        pod_attach attach = {};
        attach.role = static_cast<uint8_t>(role);
        EXPECT_GT(pod_client_attach(&client, &attach), 0);
        EXPECT_EQ(Sent().first, POD_ATTACH);
        pod_message m = {};
        m.type = POD_ATTACHED;
        m.u.attached = {};
        m.u.attached.role = static_cast<uint8_t>(role);
        m.u.attached.from[0] = from;
        m.u.attached.credit = credit;
        EXPECT_EQ(Tell(m), 0);
    }
};

TEST(Client, ProvesOnlyToADaemonThatHasProvenFirst)
{
    Pair good;
    good.Greet();
    EXPECT_EQ(good.client.phase, POD_CLIENT_READY);
    Pair bad;
    uint8_t other[POD_TOKEN_SIZE] = {9};
    bad.Sent();
    EXPECT_EQ(bad.Tell(bad.Welcome(other)), -POD_E_AUTH);
    EXPECT_EQ(pod_client_pending(&bad.client).size, 0u);
    EXPECT_TRUE(bad.seen.empty());
    EXPECT_EQ(pod_client_status(&bad.client), -POD_E_STATE);
    Pair stranger;
    pod_message m = stranger.Welcome(stranger.token);
    m.u.welcome.session = Text("two");
    EXPECT_EQ(stranger.Tell(m), -POD_E_SESSION);
}

TEST(Client, WithoutACommonVersionOnlyFrozenFramesAreSent)
{
    Pair pair;
    pair.Sent();
    pod_message m = pair.Welcome(pair.token);
    m.u.welcome.version = 0;
    EXPECT_EQ(pair.Tell(m), 0);
    pod_attach attach = {};
    EXPECT_EQ(pod_client_attach(&pair.client, &attach), -POD_E_VERSION);
    EXPECT_EQ(pod_client_input(&pair.client, "x", 1), -POD_E_VERSION);
    EXPECT_GT(pod_client_status(&pair.client), 0);
    EXPECT_GT(pod_client_stop(&pair.client, 1), 0);
    EXPECT_GT(pod_client_kill(&pair.client), 0);
    EXPECT_GT(pod_client_claim(&pair.client), 0);
}

TEST(Client, InputKeepsToTheCredit)
{
    Pair pair;
    pair.Greet();
    pair.Attach(0, 100000);
    Bytes data(250000, 'x');
    EXPECT_EQ(pod_client_input(&pair.client, data.data(), data.size()), 100000);
    EXPECT_EQ(pod_client_input(&pair.client, data.data(), data.size()), 0);
    EXPECT_EQ(pair.Sent().second, POD_PAYLOAD_MAX);
    EXPECT_EQ(pair.Sent().second, 100000 - POD_PAYLOAD_MAX);
    pod_message m = {};
    m.type = POD_CREDIT;
    m.u.credit.limit = 100010;
    EXPECT_EQ(pair.Tell(m), 0);
    EXPECT_EQ(pod_client_input(&pair.client, data.data(), data.size()), 10);
    m.u.credit.limit = 5; // What was given stays given.
    EXPECT_EQ(pair.Tell(m), -POD_E_PROTOCOL);
}

// Only where the daemon asks for it, which one of an earlier build does not.
TEST(Client, AWriterAcknowledgesWhatItHasTakenIfTheDaemonWantsToKnow)
{
    for (uint32_t features : {0u, uint32_t{POD_FEATURE_ACK}}) {
        for (pod_role role : {POD_ROLE_VIEWER, POD_ROLE_WRITER}) {
            Pair pair;
            pair.Greet(features);
            pair.Attach(10, 0, role);
            bool tells = features != 0 && role == POD_ROLE_WRITER;
            EXPECT_EQ(pod_client_pending(&pair.client).size, 0u);
            pod_message m = {};
            m.type = POD_OUTPUT;
            m.u.output.offset = 10;
            m.u.output.data = Text("hello");
            EXPECT_EQ(pair.Tell(m), 0);
            pod_bytes sent = pod_client_pending(&pair.client);
            ASSERT_EQ(sent.size, tells ? POD_HEADER_SIZE + 16u : 0u);
            if (tells) {
                EXPECT_EQ(sent.data[4], POD_ACK);
                EXPECT_EQ(sent.data[5], 0); // Who does not know it reads over it.
                EXPECT_EQ(sent.data[8], 15);
                pod_client_sent(&pair.client, sent.size);
            }
            m = {};
            m.type = POD_TAKEN;
            EXPECT_EQ(pair.Tell(m), 0);
            m.type = POD_OUTPUT;
            m.u.output = {0, 15, Text("more")};
            EXPECT_EQ(pair.Tell(m), 0);
            EXPECT_EQ(pod_client_pending(&pair.client).size, 0u);
        }
    }
}

TEST(Client, ADaemonThatLosesOrDoublesBytesIsNotBelieved)
{
    uint8_t bytes[4] = {};
    pod_message m = {};
    m.type = POD_OUTPUT;
    for (uint64_t offset : {49u, 51u}) {
        Pair pair;
        pair.Greet();
        pair.Attach(50, 0);
        m.u.output = {0, offset, {bytes, 4}};
        size_t before = pair.seen.size();
        EXPECT_EQ(pair.Tell(m), -POD_E_PROTOCOL);
        EXPECT_EQ(pair.seen.size(), before);
    }
    Pair early;
    early.Greet();
    m.u.output = {0, 0, {bytes, 4}};
    EXPECT_EQ(early.Tell(m), -POD_E_PROTOCOL); // Not attached.
}

TEST(Client, FramesOfALaterVersionAreReadOverUnlessTheyAreCritical)
{
    Pair pair;
    pair.Greet();
    Bytes later = {10, 0, 0, 0, 77, 0, 0, 0, 1, 2};
    EXPECT_EQ(pod_client_feed(&pair.client, later.data(), later.size()), 0);
    EXPECT_EQ(pair.client.phase, POD_CLIENT_READY);
    later[5] = POD_FLAG_CRITICAL;
    EXPECT_EQ(pod_client_feed(&pair.client, later.data(), later.size()), -POD_E_UNSUPPORTED);
}

TEST(Client, AFatalErrorIsTheReasonOfTheEnd)
{
    Pair pair;
    pair.Sent();
    pod_message m = {};
    m.type = POD_ERROR;
    m.u.error = {};
    m.u.error.code = POD_E_START;
    m.u.error.fatal = 1;
    EXPECT_EQ(pair.Tell(m), -POD_E_START);
    EXPECT_EQ(pair.seen.back(), POD_ERROR);
    EXPECT_EQ(pair.client.phase, POD_CLIENT_OVER);
    pod_client_end(&pair.client);
    EXPECT_EQ(pair.client.failure, -POD_E_START);
}

} // namespace
