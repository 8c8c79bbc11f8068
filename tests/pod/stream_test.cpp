// Output as a numbered stream of bytes, while readers come, go and are cut off at random instants:
// nothing lost, doubled or out of order within the ring, exact gaps beyond it, and the exit once.
#include <algorithm>
#include <chrono>
#include <random>

#include "pod_fixture.h"

namespace pod
{

static int Rounds(int full, int quick)
{
    if (getenv("PM_TEST_FULL") != nullptr)
        return full;
    int rounds = std::max(5, quick / contract::Slowness());
    return contract::OnWine() ? std::min(rounds, 12) : rounds; // A start takes a second there.
}

// One who reads through any number of connections.
struct Reader {
    uint64_t next = 0, skipped = 0, wrong = 0;
    unsigned gaps = 0, exits = 0;
    pod_exit exit = {};
    std::string first_wrong;

    // What a connection was told since it attached at `next`.
    void Take(const Client &client)
    {
        const pod_tracker &tracker = client.link->client.tracker;
        if (client.attached == 0)
            return;
        EXPECT_EQ(client.where.from[0], next);
        for (const auto &gap : client.gaps[0]) {
            gaps++;
            skipped += gap.second - gap.first;
        }
        wrong += client.wrong_letters;
        first_wrong += client.first_wrong;
        next = tracker.next[0];
        if (client.exits > 0) {
            exits++;
            exit = client.exit;
        }
    }
};

// What a file told.
struct Seen {
    uint64_t bytes = 0, gaps = 0;
    pod_exit exit = {};
};

static void ForSomeMicroseconds(uv_loop_t *loop, uint64_t us)
{
    auto until =
        std::chrono::steady_clock::now() + std::chrono::microseconds(static_cast<int64_t>(us));
    do
        uv_run(loop, UV_RUN_NOWAIT);
    while (std::chrono::steady_clock::now() < until);
}

TEST_F(Pod, NothingIsLostHoweverReadersComeAndGo)
{
    for (uint32_t mode : Modes()) {
        Options options;
        options.mode = mode;
        options.ring = 8u << 20; // Large enough for whoever comes back soon.
        Session *session = Create("stream-" + std::to_string(mode), {"pod-tick", "900"}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        birth.reset();
        std::mt19937 random(mode);
        Reader reader;
        for (int round = 0; round < Rounds(1000, 150); round++) {
            // Cut off in the middle of connecting, of the greeting, of attaching, of reading.
            pm_native native;
            ASSERT_EQ(pod_connect(&session->dir, session->id.c_str(), &native), PM_OK);
            Client client(&loop, *session, native, 1);
            client.check_letters = true;
            client.keep = false;
            uint64_t phase = random() % 4;
            if (phase > 0) {
                ASSERT_TRUE(Until([&] { return client.Ready(); }));
                client.Attach(random() % 2 != 0 ? POD_ROLE_WRITER : POD_ROLE_VIEWER, reader.next,
                              POD_ATTACH_TAKE_OVER);
            }
            if (phase > 1)
                ForSomeMicroseconds(&loop, random() % 4000);
            if (phase == 2)
                (void)pod_client_resize(&client.link->client, 80, uint16_t(20 + random() % 9));
            EXPECT_EQ(client->failure, 0);
            reader.Take(client);
        }
        auto last = Attached(session, POD_ROLE_WRITER, reader.next, 1, POD_ATTACH_TAKE_OVER);
        ASSERT_NE(last, nullptr);
        last->check_letters = true;
        // Before its first word it may not have switched off the echo.
        ASSERT_TRUE(Until([&] { return last->received[0] > 0; }));
        last->Type("q");
        ASSERT_TRUE(Until([&] { return last->exits == 1; }));
        reader.Take(*last);
        EXPECT_EQ(reader.gaps, 0u);
        EXPECT_EQ(reader.wrong, 0u) << session->id << ": " << reader.first_wrong;
        EXPECT_EQ(reader.exits, 1u);
        EXPECT_EQ(reader.exit.code, 7u);
        EXPECT_EQ(reader.next, reader.exit.end[0]);
        last->Ask(pod_client_claim(&last->link->client));
        last.reset();
        EXPECT_TRUE(DaemonIsGone(session));
    }
}

TEST_F(Pod, BeyondTheRingTheGapIsExact)
{
    Options options;
    options.mode = Modes().back();
    options.ring = 4096;
    Session *session = Create("small", {"pod-tick", "3000"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth.reset();
    std::mt19937 random(4);
    Reader reader;
    for (int round = 0; round < Rounds(300, 60); round++) {
        auto client = Attached(session, POD_ROLE_VIEWER, reader.next);
        ASSERT_NE(client, nullptr);
        client->check_letters = true;
        ForSomeMicroseconds(&loop, random() % 5000);
        EXPECT_EQ((*client)->failure, 0);
        reader.Take(*client);
    }
    // Who is quick misses nothing: so it stays away for longer.
    for (unsigned away_us = 10000; reader.gaps == 0 && away_us < 10000000; away_us *= 2) {
        ForSomeMicroseconds(&loop, away_us);
        auto client = Attached(session, POD_ROLE_VIEWER, reader.next);
        ASSERT_NE(client, nullptr);
        client->check_letters = true;
        Until([&] { return client->link->client.tracker.next[0] > reader.next; });
        reader.Take(*client);
    }
    auto last = Attached(session, POD_ROLE_WRITER, reader.next);
    ASSERT_NE(last, nullptr);
    last->check_letters = true;
    last->Type("q");
    ASSERT_TRUE(Until([&] { return last->exits == 1; }));
    reader.Take(*last);
    EXPECT_GT(reader.gaps, 0u);
    EXPECT_EQ(reader.wrong, 0u); // Each byte is the one of its offset.
    EXPECT_EQ(reader.next, reader.exit.end[0]);
}

// The exit, with the reader cut off at any instant around it: told once, by the daemon or by the
// file that it leaves, after the last byte of output.
TEST_F(Pod, TheExitIsCollectedExactlyOnce)
{
    std::mt19937 random(9);
    int by_connection = 0, by_file = 0;
    for (int round = 0; round < Rounds(1000, 60); round++) {
        Session *session = Create("exit-" + std::to_string(round),
                                  {"pod-count", std::to_string(random() % 50000), "11"});
        ASSERT_NE(session, nullptr) << birth_error.text;
        Reader reader;
        unsigned claims = 0;
        const bool stays = round % 6 == 0;
        std::unique_ptr<Client> client = std::move(birth);
        for (int connection = 0; claims == 0; connection++) {
            ASSERT_LT(connection, 1000);
            if (client == nullptr) {
                pm_native native;
                int result = pod_connect(&session->dir, session->id.c_str(), &native);
                if (result == PM_OK)
                    client = std::make_unique<Client>(&loop, *session, native, 1);
                else
                    ASSERT_EQ(result, PM_ERR_NOT_FOUND);
            }
            if (client == nullptr) { // The daemon is gone.
                Seen result_of_file;
                uint64_t from[POD_CHANNELS] = {reader.next, 0};
                bool claimed;
                int result = pod_exit_read(
                    &session->dir, from,
                    [](void *user, const pod_message *m) {
                        auto *seen = static_cast<Seen *>(user);
                        if (m->type == POD_OUTPUT)
                            seen->bytes += m->u.output.data.size;
                        seen->gaps += m->type == POD_GAP;
                        if (m->type == POD_EXIT)
                            seen->exit = m->u.exit;
                    },
                    &result_of_file, &claimed);
                ASSERT_EQ(result, PM_OK);
                EXPECT_EQ(result_of_file.gaps, 0u);
                EXPECT_EQ(reader.next + result_of_file.bytes, result_of_file.exit.end[0]);
                EXPECT_EQ(result_of_file.exit.code, 11u);
                result = pod_exit_claim(&session->dir);
                // A claim whose answer was cut off has been made all the same.
                ASSERT_TRUE(result == PM_OK || result == PM_ERR_GONE) << result;
                claims++;
                by_file++;
                break;
            }
            client->check_letters = true;
            client->keep = false;
            if (Until([&] { return client->Ready() || client->Over(); }) && client->Ready()) {
                client->Attach(POD_ROLE_WRITER, reader.next, POD_ATTACH_TAKE_OVER);
                // Every sixth reader stays from the beginning, and as many in the end.
                if (stays || (round % 6 == 3 && connection >= 2))
                    Until([&] { return client->exits > 0 || client->Over(); });
                else
                    ForSomeMicroseconds(&loop, random() % 1500);
            }
            if (client->exits > 0) {
                uint32_t request = client->Ask(pod_client_claim(&client->link->client));
                if (stays || random() % 2 == 0)
                    Until([&] { return client->Done(request) || client->Over(); });
                if (client->Done(request)) {
                    claims++;
                    by_connection++;
                }
            }
            reader.Take(*client);
            EXPECT_EQ(reader.wrong, 0u);
            EXPECT_EQ(reader.gaps, 0u);
            client.reset();
        }
        EXPECT_EQ(claims, 1u);
        EXPECT_TRUE(DaemonIsGone(session));
        EXPECT_EQ(pod_exit_claim(&session->dir), PM_ERR_GONE);
    }
    if (Rounds(1000, 60) >= 30) { // Both ways were gone, if there was the time for it.
        EXPECT_GT(by_connection, 0);
        EXPECT_GT(by_file, 0);
    }
}

// Many claim at once, on both ways: one gets it.
TEST_F(Pod, OfManyWhoClaimOneGetsIt)
{
    for (int round = 0; round < Rounds(100, 10); round++) {
        Session *session = Create("claim-" + std::to_string(round), {"pod-both", "1"});
        ASSERT_NE(session, nullptr) << birth_error.text;
        std::vector<std::unique_ptr<Client>> clients;
        for (int i = 0; i < 4; i++) {
            clients.push_back(Connect(session, 1));
            if (clients.back() == nullptr)
                clients.pop_back();
        }
        birth->Attach(POD_ROLE_VIEWER, 0);
        ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
        std::vector<uint32_t> requests;
        for (auto &client : clients)
            requests.push_back(client->Ask(pod_client_claim(&client->link->client)));
        int wins = 0, losses = 0;
        if (round % 2 == 0)
            (pod_exit_claim(&session->dir) == PM_OK ? wins : losses)++;
        for (size_t i = 0; i < clients.size(); i++) {
            ASSERT_TRUE(Until([&] {
                return clients[i]->Done(requests[i]) || clients[i]->ErrorOf(requests[i]) != 0 ||
                       clients[i]->Over();
            }));
            (clients[i]->Done(requests[i]) ? wins : losses)++;
        }
        EXPECT_EQ(wins, 1) << losses;
    }
}

} // namespace pod
