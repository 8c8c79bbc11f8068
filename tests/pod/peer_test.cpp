// Several connections to one session: who writes, who only sees, who is out of office, who does not
// read, who means ill.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <fstream>
#include <random>
#include <thread>
#ifndef _WIN32
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "pod_fixture.h"

namespace pod
{

static bool Full()
{
    return getenv("PM_TEST_FULL") != nullptr;
}

TEST_F(Pod, AViewerSeesAndCannotDoAnything)
{
    Options options;
    options.mode = Modes().back();
    Session *session = Create("viewer", {"pod-echo"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    auto viewer = Attached(session, POD_ROLE_VIEWER, 0);
    ASSERT_NE(viewer, nullptr);
    EXPECT_EQ(viewer->where.credit, 0u);
    birth->Type("seen by both");
    ASSERT_TRUE(Until([&] {
        return viewer->Text().find("seen by both") != std::string::npos &&
               birth->Text().find("seen by both") != std::string::npos;
    }));
    EXPECT_EQ(viewer->Type("not typed"), 0); // The client itself keeps to the credit.
    std::vector<uint32_t> requests = {viewer->Ask(
                                          pod_client_resize(&viewer->link->client, 100, 50)),
                                      viewer->Ask(pod_client_stop(&viewer->link->client, 0)),
                                      viewer->Ask(pod_client_kill(&viewer->link->client)),
                                      viewer->Ask(pod_client_claim(&viewer->link->client)),
                                      viewer->Ask(pod_client_close_input(&viewer->link->client))};
    for (uint32_t request : requests) {
        ASSERT_TRUE(Until([&] { return viewer->ErrorOf(request) != 0; }));
        EXPECT_EQ(viewer->ErrorOf(request), POD_E_READ_ONLY);
    }
    pod_state state = Status(session);
    EXPECT_EQ(state.columns, 80);
    EXPECT_EQ(state.viewers, 1);
    EXPECT_EQ(state.state, POD_SESSION_RUNNING);
    // One that sends input all the same is sent away, and nothing of it reaches the child.
    viewer->link->client.credit = 100;
    EXPECT_EQ(viewer->Type("forced"), 6);
    ASSERT_TRUE(
        Until([&] { return !viewer->errors.empty() && viewer->errors.back().frame == 21; }));
    EXPECT_EQ(viewer->errors.back().code, POD_E_READ_ONLY);
    birth->Type("end");
    ASSERT_TRUE(Until([&] { return birth->Text().find("end") != std::string::npos; }));
    EXPECT_EQ(birth->Text().find("forced"), std::string::npos);
}

TEST_F(Pod, TakingOverIsExplicitAndFencedByEpoch)
{
    Session *session = Create("taken", {"pod-echo"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    auto newer = Connect(session, 2);
    ASSERT_NE(newer, nullptr);
    uint32_t request = newer->Attach(POD_ROLE_WRITER, 0);
    ASSERT_TRUE(Until([&] { return newer->ErrorOf(request) != 0; }));
    EXPECT_EQ(newer->ErrorOf(request), POD_E_BUSY);
    EXPECT_EQ(birth->taken, 0u);
    request = newer->Attach(POD_ROLE_WRITER, 0, POD_ATTACH_TAKE_OVER);
    ASSERT_TRUE(Until([&] { return newer->Done(request) && birth->taken == 1; }));
    // What the old one had typed before is in; what it types now is refused, and so is all else.
    birth->Type("old");
    ASSERT_TRUE(Until([&] { return !birth->errors.empty(); }));
    EXPECT_EQ(birth->errors.back().code, POD_E_FENCED);
    EXPECT_EQ(birth->errors.back().detail, 2u);
    for (int64_t number :
         {pod_client_stop(&birth->link->client, 0), pod_client_kill(&birth->link->client),
          pod_client_claim(&birth->link->client)}) {
        request = birth->Ask(number);
        ASSERT_TRUE(Until([&] { return birth->ErrorOf(request) != 0; }));
        EXPECT_EQ(birth->ErrorOf(request), POD_E_FENCED);
    }
    newer->Type("new");
    ASSERT_TRUE(Until([&] { return birth->Text().find("new") != std::string::npos; }));
    EXPECT_EQ(birth->Text(), "ready\nnew"); // It still sees.
    // Another connection of the old runner is no way round.
    auto again = Connect(session, 1);
    ASSERT_NE(again, nullptr);
    EXPECT_EQ(again->welcome_epoch, 2u);
    request = again->Attach(POD_ROLE_WRITER, 0, POD_ATTACH_TAKE_OVER);
    ASSERT_TRUE(Until([&] { return again->ErrorOf(request) != 0; }));
    EXPECT_EQ(again->ErrorOf(request), POD_E_FENCED);
    // Not even when nobody writes.
    newer.reset();
    request = again->Attach(POD_ROLE_WRITER, 0);
    ASSERT_TRUE(Until([&] { return again->ErrorOf(request) != 0; }));
    EXPECT_EQ(again->ErrorOf(request), POD_E_FENCED);
}

TEST_F(Pod, ProbesHaveNoEffect)
{
    Session *session = Create("probed", {"pod-echo"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    ASSERT_TRUE(Until([&] { return birth->Text() == "ready\n"; }));
    int probes = (Full() ? 10000 : 2000) / contract::Slowness();
    for (int i = 0; i < probes; i++) {
        pm_native native;
        int result;
        // Its queue may be full for a moment.
        while ((result = pod_connect(&session->dir, session->id.c_str(), &native)) == PM_ERR_BUSY)
            std::this_thread::yield();
        ASSERT_EQ(result, PM_OK);
        pod_connection_close(native);
        if (i % 100 == 99) {
            std::string word = "word" + std::to_string(i);
            birth->Type(word);
            ASSERT_TRUE(Until([&] { return birth->Text().find(word) != std::string::npos; }));
        }
    }
    pod_state state = Status(session);
    EXPECT_EQ(state.state, POD_SESSION_RUNNING);
    EXPECT_EQ(state.writer, 1);
    EXPECT_EQ(state.faults[POD_FAULT_ACCEPT], 0u);
    EXPECT_EQ(state.gaps, 0u);
    EXPECT_EQ(birth->taken, 0u);
    EXPECT_TRUE(birth->errors.empty());
    // Nor do they fill the log.
    EXPECT_LT(contract::ReadFile(session->path + "/log").size(), 4000u);
}

TEST_F(Pod, AStalledViewerCostsTheOthersNothing)
{
    for (uint32_t mode : Modes()) {
        // A healthy one may be too slow itself, beside others; held up it would have the last ring
        // alone, each time.
        bool fast = false;
        for (int attempt = 0; attempt < 5 && !fast; attempt++) {
            const uint64_t total = (Full() ? 64u : 16u) << 20;
            Options options;
            options.mode = mode;
            options.ring = 256 * 1024;
            Session *session =
                Create("stalled-" + std::to_string(mode) + "-" + std::to_string(attempt),
                       {"pod-count", std::to_string(total), "0", "wait"}, options);
            ASSERT_NE(session, nullptr) << birth_error.text;
            auto stalled = Attached(session, POD_ROLE_VIEWER, 0);
            ASSERT_NE(stalled, nullptr);
            stalled->Stall();
            stalled->keep = birth->keep = false;
            stalled->check_letters = birth->check_letters = true;
            birth->Attach(POD_ROLE_WRITER, 0);
            // The healthy one gets all of it, or gaps where it was too slow itself.
            auto skipped = [](const Client &client) {
                uint64_t bytes = 0;
                for (const auto &gap : client.gaps[0])
                    bytes += gap.second - gap.first;
                return bytes;
            };
            ASSERT_TRUE(Until([&] { return birth->received[0] + skipped(*birth) == total; }));
            EXPECT_EQ(birth->wrong_letters, 0u);
            fast = birth->received[0] > 2u * options.ring;
            EXPECT_EQ(Status(session).end[0], total);
            // And the stalled one goes on where it was, with exact gaps.
            stalled->Go();
            ASSERT_TRUE(Until([&] { return stalled->received[0] + skipped(*stalled) == total; }));
            EXPECT_EQ(stalled->wrong_letters, 0u);
            EXPECT_GE(stalled->gaps[0].size(), 1u);
            EXPECT_GE(stalled->received[0], 256u * 1024);
            birth->Type("x");
            ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
        }
        EXPECT_TRUE(fast) << "mode " << mode;
    }
}

#ifdef __linux__
// What the holder has done for all that the child says; time 0: not known.
struct Work {
    uint64_t time, writes; // Of the processor, in ns; calls.
};

static Work WorkOf(uint64_t pid)
{
    const std::string folder = "/proc/" + std::to_string(pid);
    Work work = {};
    std::ifstream(folder + "/schedstat") >> work.time;
    std::ifstream io(folder + "/io");
    std::string name;
    for (uint64_t count; io >> name >> count;)
        if (name == "syscw:")
            work.writes = count;
    return work;
}

// Not how long it takes: others are on the machine, too. Their caches are the same, so that its
// processor time tells gross waste alone; the benchmark has the ratio of a quiet machine.
TEST_F(Pod, AStalledViewerCostsTheHolderNoTime)
{
    const uint64_t total = 16u << 20;
    Work least[2] = {{UINT64_MAX, UINT64_MAX}, {UINT64_MAX, UINT64_MAX}}; // Without one, with one.
    for (int round = 0; round < 6; round++) {
        Options options;
        options.mode = POD_MODE_PIPES;
        options.ring = 256 * 1024;
        Session *session =
            Create("time-" + std::to_string(round),
                   {"pod-count", std::to_string(total), "0", "wait", "first"}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        std::unique_ptr<Client> stalled;
        if (round % 2 != 0) {
            stalled = Attached(session, POD_ROLE_VIEWER, 0);
            ASSERT_NE(stalled, nullptr);
            stalled->Stall();
        }
        const uint64_t pid = pm_process_pid(session->daemon);
        const Work before = WorkOf(pid);
        if (before.time == 0)
            GTEST_SKIP() << "no /proc to look into";
        birth->Attach(POD_ROLE_WRITER, POD_FROM_NOW);
        birth->keep = false;
        ASSERT_TRUE(Until([&] { return birth->attached == 1; }));
        birth->Type("g");
        birth->Close(); // Else the slower of two readers is measured.
        ASSERT_TRUE(contract::Eventually([&] { return Status(session).end[0] == total; }));
        const Work now = WorkOf(pid);
        Work &here = least[round % 2];
        here.time = std::min(here.time, now.time - before.time);
        here.writes = std::min(here.writes, now.writes - before.writes);
    }
    printf("%.1f ms and %llu writes without, %.1f ms and %llu writes with one\n",
           (double)least[0].time / 1e6, (unsigned long long)least[0].writes,
           (double)least[1].time / 1e6, (unsigned long long)least[1].writes);
    EXPECT_LE(least[1].time, least[0].time * 3);
    EXPECT_LE(least[1].writes, least[0].writes + 500); // Of thousands of pieces.
}
#endif

TEST_F(Pod, AChildThatNeverReadsBlocksNothing)
{
    for (uint32_t mode : Modes()) {
        Options options;
        options.mode = mode;
        Session *session = Create("deaf-" + std::to_string(mode), {"pod-deaf"}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        birth->Attach(POD_ROLE_WRITER, 0);
        birth->keep = false;
        ASSERT_TRUE(Until([&] { return birth->received[0] > 0; }));
        // 64 MiB wait to be typed: the credit says how much of it goes.
        const std::string sixty_four(64u << 20, 'x');
        uint64_t taken = 0;
        for (int round = 0; round < 50; round++) {
            int64_t some = birth->Type(sixty_four);
            ASSERT_GE(some, 0);
            taken += static_cast<uint64_t>(some);
            uint64_t before = birth->received[0];
            ASSERT_TRUE(Until([&] { return birth->received[0] > before; })); // Output goes on.
        }
        EXPECT_LT(taken, 1u << 20);
        pod_state state = Status(session); // So does STATUS.
        EXPECT_LE(state.input_queued, 262144u);
        EXPECT_GT(state.input_queued, 0u);
        EXPECT_EQ(state.input_queued + state.input_taken, taken);
        if (mode == POD_MODE_PTY) {
            uint32_t request = birth->Ask(pod_client_resize(&birth->link->client, 100, 50));
            ASSERT_TRUE(Until([&] { return birth->Done(request); }));
            EXPECT_EQ(Status(session).columns, 100);
        }
        birth->Ask(pod_client_stop(&birth->link->client, 3000));
        ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
        EXPECT_EQ(birth->exit.stop_action, PM_STOP_TERMINATE);
    }
}

TEST_F(Pod, InputWithoutCreditEndsTheConnectionAlone)
{
    Session *session = Create("greedy", {"pod-deaf"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    ASSERT_TRUE(Until([&] { return birth->attached == 1; }));
    // First all that is allowed, until no more credit comes: nobody reads.
    const std::string much(2u << 20, 'x');
    ASSERT_TRUE(Until([&] {
        birth->Type(much);
        return birth->link->client.sent > 262144 || birth->Over();
    }));
    for (uint64_t before = 0; before != birth->link->client.sent;) {
        before = birth->link->client.sent;
        Status(session);
        birth->Type(much);
    }
    birth->link->client.credit += 2u << 20;
    birth->Type(much);
    ASSERT_TRUE(Until([&] { return birth->Over(); }));
    ASSERT_FALSE(birth->errors.empty());
    EXPECT_EQ(birth->errors.back().code, POD_E_OVER_CREDIT);
    EXPECT_EQ(Status(session).state, POD_SESSION_RUNNING);
}

// Nor does it keep its role or its place, though it does not read why: others may write, and an
// orphan is one.
TEST_F(Pod, AWriterThatIsSentAwayAndReadsNothingIsNoneAndGoesSoon)
{
    Options options;
    options.ring = 256 * 1024;
    options.orphan_s = 2 + 2 * static_cast<uint32_t>(contract::Slowness());
    options.grace_ms = 100;
    Session *session = Create("unread", {"pod-count", "4194304", "0", "wait"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    auto viewer = Attached(session, POD_ROLE_VIEWER, 0);
    ASSERT_NE(viewer, nullptr);
    viewer->keep = false;
    birth->Attach(POD_ROLE_WRITER, 0);
    birth->Stall(); // What waits for it is more than its pipe holds.
    ASSERT_TRUE(contract::Eventually([&] { return Status(session).end[0] == 4194304; }));
    ASSERT_TRUE(Status(session).writer);
    birth->Send(std::string("\x08\0\0\0\1\0\0\0", 8)); // A HELLO of nothing.
    pod_state state;
    ASSERT_TRUE(contract::Eventually([&] { return (state = Status(session)).refused == 1; }));
    EXPECT_FALSE(state.writer);
    ASSERT_TRUE(contract::Eventually([&] { return Status(session).clients == 2; }));
    ASSERT_TRUE(Until([&] { return viewer->exits == 1; }));
    EXPECT_EQ(viewer->exit.stop_action, PM_STOP_TERMINATE);
    birth->Go();
    ASSERT_TRUE(Until([&] { return birth->Over(); }));
}

TEST_F(Pod, ALargePasteArrivesAsItIs)
{
    for (uint32_t mode : Modes()) {
        Options options;
        options.mode = mode;
        options.ring = 4u << 20;
        Session *session = Create("paste-" + std::to_string(mode), {"pod-echo"}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        birth->Attach(POD_ROLE_WRITER, 0);
        ASSERT_TRUE(Until([&] { return birth->Text() == "ready\n"; }));
        std::mt19937 random(3);
        std::string paste((Full() ? 16u : 2u) << 20, ' ');
        std::generate(paste.begin(), paste.end(), [&] { return static_cast<char>(random()); });
        size_t at = 0;
        ASSERT_TRUE(Until([&] {
            int64_t some = birth->Type(paste.substr(at, 100000));
            at += some > 0 ? static_cast<size_t>(some) : 0;
            return birth->Text().size() == 6 + paste.size() || !birth->gaps[0].empty();
        }));
        EXPECT_TRUE(birth->gaps[0].empty());
        EXPECT_TRUE(birth->Text().substr(6) == paste);
    }
}

#ifndef _WIN32
TEST_F(Pod, AttachingWithTheSameSizeRedrawsAndTheSizeIsTheWriters)
{
    Options options;
    options.mode = POD_MODE_PTY;
    Session *session = Create("size", {"pod-size"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    uint32_t request = birth->Attach(POD_ROLE_VIEWER, 0);
    ASSERT_TRUE(Until([&] { return birth->Text() == "size 80x24 signals 0\n"; }));
    birth.reset();
    auto writer = Connect(session);
    ASSERT_NE(writer, nullptr);
    writer->Attach(POD_ROLE_WRITER, 0, POD_ATTACH_SIZE, 80, 24);
    // At least one signal, and at the end the size that was asked for.
    ASSERT_TRUE(Until([&] { return writer->Text().find("signals 2") != std::string::npos; }));
    std::string text = writer->Text();
    EXPECT_NE(text.find("size 80x24 signals 2"), std::string::npos) << text;
    auto viewer = Connect(session);
    ASSERT_NE(viewer, nullptr);
    request = viewer->Attach(POD_ROLE_VIEWER, 0, POD_ATTACH_SIZE, 10, 10);
    ASSERT_TRUE(Until([&] { return viewer->Done(request); }));
    EXPECT_EQ(viewer->where.columns, 80);
    request = writer->Ask(pod_client_resize(&writer->link->client, 132, 43));
    ASSERT_TRUE(Until([&] {
        return writer->Done(request) && viewer->sizes == 1 &&
               writer->Text().find("size 132x43") != std::string::npos;
    }));
    EXPECT_EQ(viewer->size.columns, 132);
    request = writer->Ask(pod_client_resize(&writer->link->client, 0, 43));
    ASSERT_TRUE(Until([&] { return writer->ErrorOf(request) != 0; }));
    EXPECT_EQ(writer->ErrorOf(request), POD_E_INVALID);
}

#endif

// ------------------------------------------------------------------------------------------------
// Who means ill
// ------------------------------------------------------------------------------------------------

TEST_F(Pod, HostileConnectionsAreSentAwayAndTheSessionGoesOn)
{
    Session *session = Create("hostile", {"pod-echo"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    ASSERT_TRUE(Until([&] { return birth->attached == 1; }));
    std::mt19937 random(11);
    std::vector<std::string> attacks = {
        std::string("\0\0\0\0", 4),             // A frame of no size.
        std::string("\xff\xff\xff\xff\x01", 5), // One of 4 GiB.
        std::string("\0\0\1\0\1\0\0\0", 8),     // 64 KiB before any proof.
        std::string("\x08\0\0\0\x04\0\0\0", 8), // STATUS without a number, and without a proof.
        std::string("\x0c\0\0\0\x07\0\0\0\1\0\0\0", 12), // KILL without a proof.
        std::string("\x08\0\0\0\x63\0\0\0", 8),          // A frame of no version.
        std::string("GET / HTTP/1.0\r\n\r\n"),
        std::string("SSH-2.0-x\r\n")};
    for (int i = 0; i < (Full() ? 2000 : 150); i++) {
        std::string noise(random() % 3000, ' ');
        std::generate(noise.begin(), noise.end(), [&] { return static_cast<char>(random()); });
        attacks.push_back(noise);
    }
    for (const std::string &attack : attacks) {
        std::string answer = Tell(ConnectRaw(session), attack);
        // An ERROR frame, or nothing; never a WELCOME.
        EXPECT_TRUE(answer.empty() || answer[4] == POD_ERROR) << attack.size();
    }
    birth->Type("still here");
    ASSERT_TRUE(Until([&] { return birth->Text().find("still here") != std::string::npos; }));
    EXPECT_EQ(Status(session).state, POD_SESSION_RUNNING);
    EXPECT_GT(Status(session).refused, 4u);
}

TEST_F(Pod, WhoCannotProveTheTokenGetsNothing)
{
    Session *session = Create("secret", {"pod-echo"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    Session wrong = *session;
    wrong.token[0] ^= 1;
    Client client(&loop, wrong, ConnectRaw(session), 9);
    ASSERT_TRUE(Until([&] { return client.Over(); }));
    EXPECT_EQ(client->failure, -POD_E_AUTH); // The client sees it first: the daemon proves first.
    Session other = *session;
    other.id = "another";
    Client lost(&loop, other, ConnectRaw(session), 9);
    ASSERT_TRUE(Until([&] { return lost.Over(); }));
    EXPECT_EQ(lost->failure, -POD_E_SESSION);
}

TEST_F(Pod, AProofThatIsWrongIsRefused)
{
    Session *session = Create("proof", {"pod-echo"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    pod_message m = {};
    m.type = POD_HELLO;
    memcpy(m.u.hello.magic, POD_MAGIC, POD_MAGIC_SIZE);
    m.u.hello.version_min = m.u.hello.version_max = 1;
    m.u.hello.epoch = 9;
    m.u.hello.session = {reinterpret_cast<const uint8_t *>("proof"), 5};
    std::string bytes(1024, ' ');
    auto *buffer = reinterpret_cast<uint8_t *>(&bytes[0]);
    size_t size = pod_encode(&m, buffer, bytes.size());
    m = {};
    m.type = POD_PROVE; // Of somebody who does not know the token.
    size += pod_encode(&m, buffer + size, bytes.size() - size);
    m = {};
    m.type = POD_KILL;
    m.u.request.request = 1;
    size += pod_encode(&m, buffer + size, bytes.size() - size);
    bytes.resize(size);
    std::string answer = Tell(ConnectRaw(session), bytes);
    ASSERT_GT(answer.size(), 8u);
    EXPECT_EQ(answer[4], POD_WELCOME);
    size_t welcome = static_cast<unsigned char>(answer[0]) +
                     256 * static_cast<size_t>(static_cast<unsigned char>(answer[1]));
    ASSERT_GT(answer.size(), welcome + 8);
    EXPECT_EQ(answer[welcome + 4], POD_ERROR);
    EXPECT_EQ(Status(session).state, POD_SESSION_RUNNING);
}

TEST_F(Pod, MuteConnectionsAreDroppedInTimeAndKeepNobodyOut)
{
    Session *session = Create("mute", {"pod-echo"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    std::vector<pm_native> mutes;
    for (int i = 0; i < 30; i++)
        mutes.push_back(ConnectRaw(session));
    pod_state state = Status(session);
    EXPECT_LE(state.clients, 8 + 2);
    auto begin = std::chrono::steady_clock::now();
    for (pm_native native : mutes)
        EXPECT_EQ(Tell(native, ""), "");
    auto took = std::chrono::steady_clock::now() - begin;
    EXPECT_LT(took, std::chrono::milliseconds(3000 * contract::Slowness()));
}

TEST_F(Pod, AskingOnAndOnWithoutReadingEndsThatConnection)
{
    Session *session = Create("chatter", {"pod-echo"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    auto chatter = Connect(session);
    ASSERT_NE(chatter, nullptr);
    chatter->Stall();
    for (int i = 0; i < 20000; i++)
        chatter->Ask(pod_client_status(&chatter->link->client));
    for (int i = 0; i < 200; i++) {
        Turn();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    chatter->Go();
    ASSERT_TRUE(Until([&] { return chatter->Over() || chatter->states == 20000; }));
    EXPECT_EQ(Status(session).state, POD_SESSION_RUNNING);
}

#ifndef _WIN32
// Pod with folders that somebody has prepared.
class Folders : public Pod
{
  protected:
    void ExpectRefused(const std::vector<Session *> &all)
    {
        for (Session *session : all) {
            auto client = StartDaemon(session, Options());
            ASSERT_NE(client, nullptr);
            ASSERT_TRUE(Until([&] { return client->Over(); })) << session->id;
            ASSERT_EQ(client->errors.size(), 1u) << session->id;
            EXPECT_EQ(client->errors[0].code, POD_E_START) << session->id;
            EXPECT_TRUE(contract::Eventually([&] { return !pm_process_alive(session->daemon); }));
        }
    }
};

TEST_F(Folders, WithPlantedLinksAndOpenToOthersAreRefused)
{
    // A folder that others may enter.
    Session *open_folder = MakeFolder("open");
    ASSERT_EQ(chmod(open_folder->path.c_str(), 0750), 0);
    // A link in the place of the folder.
    Session *link_folder = MakeFolder("linked");
    std::string real = link_folder->path + "-real";
    ASSERT_EQ(rename(link_folder->path.c_str(), real.c_str()), 0);
    ASSERT_EQ(symlink(real.c_str(), link_folder->path.c_str()), 0);
    // A token that others can read; one that is a link; one with a second name.
    Session *open_token = MakeFolder("open-token");
    ASSERT_EQ(chmod((open_token->path + "/token").c_str(), 0644), 0);
    Session *link_token = MakeFolder("link-token");
    ASSERT_EQ(rename((link_token->path + "/token").c_str(), (folder + "/elsewhere").c_str()), 0);
    ASSERT_EQ(symlink((folder + "/elsewhere").c_str(), (link_token->path + "/token").c_str()), 0);
    Session *two_names = MakeFolder("two-names");
    ASSERT_EQ(link((two_names->path + "/token").c_str(), (folder + "/second").c_str()), 0);
    // A FIFO in the place of the lock.
    Session *fifo = MakeFolder("fifo");
    ASSERT_EQ(mkfifo((fifo->path + "/lock").c_str(), 0600), 0);
    ExpectRefused({open_folder, link_folder, open_token, link_token, two_names, fifo});
    // A log that is a link to somewhere: the session starts, nothing is written there.
    Session *log_link = MakeFolder("log-link");
    contract::WriteFile(folder + "/victim", "mine\n");
    ASSERT_EQ(symlink((folder + "/victim").c_str(), (log_link->path + "/log").c_str()), 0);
    auto client = StartDaemon(log_link, Options());
    ASSERT_TRUE(Until([&] { return client->Ready(); }));
    EXPECT_EQ(contract::ReadFile(folder + "/victim"), "mine\n");
    client->Ask(pod_client_status(&client->link->client));
    ASSERT_TRUE(Until([&] { return client->states == 1; }));
    EXPECT_GT(client->state.faults[POD_FAULT_LOG], 0u);
}

TEST_F(Folders, OfForeignOwnersAreRefused)
{
    if (geteuid() != 0)
        GTEST_SKIP() << "needs root to give a file away";
    Session *foreign = MakeFolder("foreign");
    ASSERT_EQ(chown(foreign->path.c_str(), 12345, 12345), 0);
    Session *foreign_token = MakeFolder("foreign-token");
    ASSERT_EQ(chown((foreign_token->path + "/token").c_str(), 12345, 12345), 0);
    ExpectRefused({foreign, foreign_token});
}

TEST_F(Pod, AnotherUserIsSentAway)
{
    if (geteuid() != 0)
        GTEST_SKIP() << "needs root to be another user";
    Session *session = Create("mine", {"pod-echo"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    // As if the folder's rights had not kept it out.
    ASSERT_EQ(chmod(folder.c_str(), 0755), 0);
    ASSERT_EQ(chmod(session->path.c_str(), 0755), 0);
    ASSERT_EQ(chmod((session->path + "/s").c_str(), 0777), 0);
    pid_t stranger = fork();
    if (stranger == 0) {
        if (setresuid(12345, 12345, 12345) != 0)
            _exit(3);
        sockaddr_un address = {};
        address.sun_family = AF_UNIX;
        strncpy(address.sun_path, (session->path + "/s").c_str(), sizeof address.sun_path - 1);
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (connect(fd, reinterpret_cast<sockaddr *>(&address), sizeof address) != 0)
            _exit(4);
        char byte;
        _exit(recv(fd, &byte, 1, 0) == 0 ? 0 : 5); // Not one byte.
    }
    int status = 0;
    ASSERT_TRUE(contract::Eventually([&] {
        Turn();
        return waitpid(stranger, &status, WNOHANG) == stranger;
    }));
    EXPECT_EQ(status, 0);
    ASSERT_EQ(chmod(session->path.c_str(), 0700), 0);
    EXPECT_EQ(Status(session).refused, 1u);
    // At once, and not because it said nothing.
    EXPECT_NE(contract::ReadFile(session->path + "/log").find("another user"), std::string::npos);
}
#endif

// ------------------------------------------------------------------------------------------------
// Many
// ------------------------------------------------------------------------------------------------

TEST_F(Pod, ViewersKeepNobodyElseOut)
{
    Session *session = Create("watched", {"pod-deaf"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth.reset();
    std::vector<std::unique_ptr<Client>> viewers;
    unsigned attached = 0, refused = 0;
    for (int i = 0; i < 70; i++) {
        auto viewer = Connect(session);
        ASSERT_NE(viewer, nullptr) << i;
        uint32_t request = viewer->Attach(POD_ROLE_VIEWER, POD_FROM_NOW);
        ASSERT_TRUE(Until([&] { return viewer->attached == 1 || viewer->ErrorOf(request) != 0; }));
        attached += viewer->attached;
        refused += viewer->ErrorOf(request) == POD_E_LIMIT;
        viewers.push_back(std::move(viewer));
    }
    EXPECT_EQ(attached, 48u);
    EXPECT_EQ(refused, 70u - 48u);
    EXPECT_EQ(Status(session).viewers, 48);
    auto writer = Attached(session, POD_ROLE_WRITER, POD_FROM_NOW);
    ASSERT_NE(writer, nullptr);
    EXPECT_EQ(writer->attached, 1u);
    auto client = Connect(session);
    ASSERT_NE(client, nullptr);
    client->Ask(pod_client_stop(&client->link->client, 5000));
    ASSERT_TRUE(Until([&] { return client->exits == 1; }));
    for (int i = 0; i < 48; i++)
        ASSERT_TRUE(Until([&] { return viewers[static_cast<size_t>(i)]->exits == 1; })) << i;
}

// Whoever only sits there gives up its place, the oldest one first: not the writer, nor a viewer.
TEST_F(Pod, IdleConnectionsKeepNobodyOut)
{
    Session *session = Create("crowd", {"pod-deaf"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    auto writer = Attached(session, POD_ROLE_WRITER, POD_FROM_NOW);
    auto viewer = Attached(session, POD_ROLE_VIEWER, POD_FROM_NOW);
    std::vector<std::unique_ptr<Client>> idle;
    for (int i = 0; i < 100; i++) {
        idle.push_back(Connect(session));
        ASSERT_NE(idle.back(), nullptr) << i;
    }
    pod_state state = Status(session);
    EXPECT_LE(state.clients, 64);
    EXPECT_TRUE(state.writer);
    EXPECT_EQ(state.viewers, 1);
    ASSERT_TRUE(Until([&] { return idle[0]->Over(); }));
    ASSERT_EQ(idle[0]->errors.size(), 1u);
    EXPECT_EQ(idle[0]->errors[0].code, POD_E_LIMIT);
    EXPECT_FALSE(idle[99]->Over());
    auto client = Connect(session);
    ASSERT_NE(client, nullptr);
    client->Ask(pod_client_kill(&client->link->client));
    ASSERT_TRUE(Until([&] { return client->exits == 1 && writer->exits == 1; }));
    EXPECT_EQ(viewer->Over(), false);
}

TEST_F(Pod, EachOfTwoEndsOfInputIsAnswered)
{
    Session *session = Create("ends", {"pod-deaf"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    ASSERT_TRUE(Until([&] { return birth->attached == 1; }));
    ASSERT_EQ(birth->Type(std::string(200000, 'i')), 200000); // More than a pipe takes.
    uint32_t first = birth->Ask(pod_client_close_input(&birth->link->client));
    uint32_t second = birth->Ask(pod_client_close_input(&birth->link->client));
    ASSERT_TRUE(Until([&] { return birth->ErrorOf(second) != 0; }));
    EXPECT_EQ(birth->ErrorOf(second), POD_E_STATE);
    birth->Ask(pod_client_kill(&birth->link->client)); // With it goes what it has not read.
    ASSERT_TRUE(Until([&] { return birth->ErrorOf(first) != 0 && birth->exits == 1; }));
    EXPECT_EQ(birth->ErrorOf(first), POD_E_STATE);
    EXPECT_FALSE(birth->Done(first));
}

TEST_F(Pod, InputAfterItsEndIsRefusedAndToldOnce)
{
    Session *session = Create("late-input", {"pod-deaf"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    ASSERT_TRUE(Until([&] { return birth->attached == 1; }));
    uint32_t request = birth->Ask(pod_client_close_input(&birth->link->client));
    ASSERT_TRUE(Until([&] { return birth->Done(request); }));
    auto next = Connect(session);
    ASSERT_NE(next, nullptr);
    next->Attach(POD_ROLE_WRITER, 0, POD_ATTACH_TAKE_OVER);
    ASSERT_TRUE(Until([&] { return next->attached == 1; }));
    for (int i = 0; i < 3; i++) {
        EXPECT_EQ(next->Type("more"), 4);
        EXPECT_EQ(Status(session).input_queued, 0u);
    }
    request = next->Ask(pod_client_detach(&next->link->client));
    ASSERT_TRUE(Until([&] { return next->Done(request); }));
    ASSERT_EQ(next->errors.size(), 1u);
    EXPECT_EQ(next->errors[0].request, 0u);
    EXPECT_EQ(next->errors[0].code, POD_E_STATE);
    EXPECT_EQ(next->errors[0].frame, POD_INPUT);
    EXPECT_FALSE(next->errors[0].fatal);
    EXPECT_TRUE(birth->errors.empty());
}

// ------------------------------------------------------------------------------------------------
// Versions
// ------------------------------------------------------------------------------------------------

TEST_F(Pod, AnyRunnerCanEndAnyDaemon)
{
    Options options;
    options.program = PM_TEST_PODDAEMON_LATER_PATH; // Versions 2 to 3.
    Session *session = MakeFolder("later");
    birth = StartDaemon(session, options);
    ASSERT_TRUE(Until([&] { return birth->Ready(); }));
    EXPECT_EQ(birth->version, 0);
    EXPECT_EQ(pod_client_start(&birth->link->client, nullptr), -POD_E_VERSION);
    // A runner of its own time starts it; ours finds it and ends it.
    birth.reset();
    EXPECT_TRUE(DaemonIsGone(session));
    session = MakeFolder("later-2");
    options.version_min = 2;
    options.version_max = 3;
    birth = StartDaemon(session, options);
    ASSERT_TRUE(Until([&] { return birth->Ready(); }));
    EXPECT_EQ(birth->version, 3);
    SendStart(birth.get(), {"pod-deaf"}, options);
    ASSERT_TRUE(Until([&] { return birth->started == 1; }));
    birth.reset();
    auto old = Connect(session, 1);
    ASSERT_NE(old, nullptr);
    EXPECT_EQ(old->version, 0);
    pod_attach attach = {};
    attach.role = POD_ROLE_VIEWER;
    EXPECT_EQ(pod_client_attach(&old->link->client, &attach), -POD_E_VERSION);
    old->Ask(pod_client_status(&old->link->client));
    ASSERT_TRUE(Until([&] { return old->states == 1; }));
    EXPECT_EQ(old->state.state, POD_SESSION_RUNNING);
    old->Ask(pod_client_stop(&old->link->client, 2000));
    ASSERT_TRUE(Until([&] { return old->exits == 1; }));
    old->Ask(pod_client_claim(&old->link->client));
    EXPECT_TRUE(DaemonIsGone(session));
    EXPECT_EQ(pod_exit_claim(&session->dir), PM_ERR_GONE);
}

TEST_F(Pod, TheHighestCommonVersionIsSpoken)
{
    Options options;
    options.program = PM_TEST_PODDAEMON_NEXT_PATH; // Versions 1 to 2.
    Session *session = Create("next", {"pod-echo"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    EXPECT_EQ(birth->version, 1);
    auto newer = Connect(session, 2, 1, 9);
    ASSERT_NE(newer, nullptr);
    EXPECT_EQ(newer->version, 2);
    auto second = Connect(session, 2, 2, 9);
    ASSERT_NE(second, nullptr);
    EXPECT_EQ(second->version, 2);
}

} // namespace pod
