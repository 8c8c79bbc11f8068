// Sessions whose child waits for the writer when the ring is full: nothing is lost on one that is
// slow, and nobody else, nor one that is gone or takes nothing, holds the child up.
#ifndef _WIN32
#include <signal.h>
#endif

#include <chrono>
#include <fstream>
#include <thread>

#include "pod_fixture.h"

namespace pod
{

static constexpr uint32_t Ring = 65536;
static constexpr uint32_t WithoutAck = POD_FEATURE_STDERR | POD_FEATURE_CLAIM; // An older client.

class Flow : public Pod
{
  protected:
    // A child that says many numbered bytes; nobody is attached.
    Session *Begin(const std::string &id, const std::vector<std::string> &role, uint32_t mode,
                   uint32_t wait_s = 0, uint32_t ring = Ring)
    {
        Options options;
        options.mode = mode;
        options.ring = ring;
        options.on_full = POD_FULL_WAIT;
        options.wait_s = wait_s;
        options.grace_ms = 500;
        Session *session = Create(id, role, options);
        EXPECT_NE(session, nullptr) << birth_error.text;
        return session;
    }

    // It has begun, and says nothing new for a while.
    bool IsHeld(Session *session)
    {
        uint64_t end = Status(session).end[0];
        if (end == 0)
            return false;
        for (int quiet = 0; quiet < 5; quiet++) {
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            uint64_t now = Status(session).end[0];
            if (now != end)
                return false;
        }
        return true;
    }

    // How often.
    size_t GivenUp(Session *session)
    {
        const std::string log = contract::ReadFile(session->path + "/log");
        size_t count = 0;
        for (size_t at = 0; (at = log.find("has taken nothing for", at)) != std::string::npos; at++)
            count++;
        return count;
    }

    // Its child has ended with 5, and not all that it said has room in the ring: birth reads none.
    Session *EndWithItsOutputHeld(const std::string &id)
    {
        Session *session = Begin(id, {"pod-count", "90000", "5", "wait", "first"}, POD_MODE_PIPES);
        if (session == nullptr)
            return nullptr;
        birth = Attached(session, POD_ROLE_WRITER, 0);
        birth->check_letters = true;
        birth->Type("y");
        birth->Stall();
        EXPECT_TRUE(contract::Eventually([&] { return Status(session).end[0] == Ring; }));
        // 64 KiB in the ring, the rest in the pipe: the child has said all and waits for input.
        EXPECT_TRUE(contract::Eventually([&] { return IsHeld(session); }));
        birth->Type("x");
        EXPECT_TRUE(contract::Eventually([&] {
            Turn();
            return !contract::PidAlive(last_child);
        }));
        EXPECT_TRUE(IsHeld(session));
        EXPECT_EQ(Status(session).state, POD_SESSION_RUNNING);
        return session;
    }
};

TEST_F(Flow, ASlowWriterLosesNothing)
{
    for (uint32_t mode : Modes()) {
        for (uint32_t features : {0u, WithoutAck}) {
            std::string id = "slow-" + std::to_string(mode) + "-" + std::to_string(features);
            Session *session = Begin(id, {"pod-count", "3000000", "5", "wait"}, mode);
            ASSERT_NE(session, nullptr);
            // It has begun without a writer: that may have cost bytes, and is told.
            birth.reset();
            auto writer = Attached(session, POD_ROLE_WRITER, 0, 1, 0, features);
            ASSERT_NE(writer, nullptr);
            writer->check_letters = true;
            writer->keep = false;
            for (int stall = 0; stall < 3; stall++) {
                uint64_t next = writer->link->client.tracker.next[0];
                writer->Stall();
                EXPECT_TRUE(contract::Eventually([&] { return IsHeld(session); })) << id;
                writer->Go();
                ASSERT_TRUE(Until([&] {
                    return writer->link->client.tracker.next[0] > next + 3 * Ring ||
                           writer->link->client.tracker.next[0] == 3000000;
                })) << id;
            }
            ASSERT_TRUE(Until([&] { return writer->link->client.tracker.next[0] == 3000000; }));
            EXPECT_LE(writer->gaps[0].size(), 1u) << id; // That of the beginning.
            if (!writer->gaps[0].empty()) {
                EXPECT_EQ(writer->gaps[0][0].first, 0u);
            }
            EXPECT_EQ(writer->wrong_letters, 0u);
            writer->Type("x");
            ASSERT_TRUE(Until([&] { return writer->exits == 1; }));
        }
    }
}

TEST_F(Flow, TheRingHoldsWhatAWriterHasNotAcknowledged)
{
    Session *session = Begin("acks", {"pod-count", "3000000", "5", "wait"}, POD_MODE_PIPES);
    ASSERT_NE(session, nullptr);
    birth.reset();
    auto writer = Attached(session, POD_ROLE_WRITER, POD_FROM_KEPT);
    ASSERT_NE(writer, nullptr);
    writer->Stall();
    ASSERT_TRUE(contract::Eventually([&] { return IsHeld(session); }));
    // Much of it is in the socket, and none of it is gone from the ring.
    pod_state state = Status(session);
    EXPECT_LE(state.first[0], writer->link->client.acked[0]);
    EXPECT_EQ(state.end[0] - state.first[0], Ring);
    // So one that takes its place has all from there on.
    uint64_t next = writer->link->client.acked[0];
    auto second = Attached(session, POD_ROLE_WRITER, next, 1, POD_ATTACH_TAKE_OVER);
    ASSERT_NE(second, nullptr);
    second->check_letters = true;
    ASSERT_TRUE(Until([&] { return second->link->client.tracker.next[0] == 3000000; }));
    EXPECT_EQ(second->gaps[0].size(), 0u);
    EXPECT_EQ(second->wrong_letters, 0u);
}

TEST_F(Flow, ViewersProbesAndNobodyAreNotWaitedFor)
{
    Session *session = Begin("viewers", {"pod-tick", "3000"}, POD_MODE_PIPES);
    ASSERT_NE(session, nullptr);
    birth.reset();
    auto viewer = Attached(session, POD_ROLE_VIEWER, 0);
    viewer->Stall();
    uint64_t end = Status(session).end[0];
    EXPECT_TRUE(contract::Eventually([&] { return Status(session).end[0] > end + 6 * Ring; }));
    // Held by a writer: probes and viewers that read change nothing.
    auto writer = Attached(session, POD_ROLE_WRITER, POD_FROM_NOW);
    writer->Stall();
    ASSERT_TRUE(contract::Eventually([&] { return IsHeld(session); }));
    viewer->Go();
    end = Status(session).end[0];
    for (int i = 0; i < 200; i++) {
        pm_native native;
        int result = pod_connect(&session->dir, session->id.c_str(), &native);
        ASSERT_TRUE(result == PM_OK || result == PM_ERR_BUSY) << result; // Its queue is full.
        if (result == PM_OK)
            pod_connection_close(native);
    }
    ASSERT_TRUE(contract::Eventually([&] { return Connect(session) != nullptr; }));
    EXPECT_EQ(Status(session).end[0], end);
    // Its connection ends, as when it is killed: the child goes on at once.
    writer.reset();
    EXPECT_TRUE(contract::Eventually([&] { return Status(session).end[0] > end + 6 * Ring; }));
    // And so it does when the writer only gives up its role.
    writer = Attached(session, POD_ROLE_WRITER, POD_FROM_NOW);
    writer->Stall();
    ASSERT_TRUE(contract::Eventually([&] { return IsHeld(session); }));
    end = Status(session).end[0];
    writer->Ask(pod_client_detach(&writer->link->client));
    EXPECT_TRUE(contract::Eventually([&] {
        Turn();
        return Status(session).end[0] > end + 6 * Ring;
    }));
}

TEST_F(Flow, AWriterThatTakesNothingIsGivenUpUntilItTakesSomething)
{
    for (uint32_t features : {0u, WithoutAck}) {
        Session *session =
            Begin("frozen-" + std::to_string(features), {"pod-tick", "3000"}, POD_MODE_PIPES, 1);
        ASSERT_NE(session, nullptr);
        birth.reset();
        auto writer = Attached(session, POD_ROLE_WRITER, POD_FROM_NOW, 1, 0, features);
        writer->check_letters = true;
        writer->keep = false;
        writer->Stall();
        ASSERT_TRUE(contract::Eventually([&] { return IsHeld(session); }));
        uint64_t end = Status(session).end[0];
        ASSERT_TRUE(contract::Eventually([&] { return Status(session).end[0] > end + 6 * Ring; }));
        EXPECT_EQ(GivenUp(session), 1u);
        writer->Go();
        // Until it has said that it takes something the child goes on: on a busy machine that may
        // cost more bytes. What is told in one piece is told as one.
        ASSERT_TRUE(Until([&] {
            return !writer->gaps[0].empty() &&
                   writer->link->client.tracker.next[0] > writer->gaps[0].back().second + 3 * Ring;
        }));
        size_t gaps = writer->gaps[0].size();
        for (size_t i = 1; i < gaps; i++) {
            EXPECT_GT(writer->gaps[0][i].first, writer->gaps[0][i - 1].second);
        }
        // It is waited for again: no other gap however slow it is, within that second.
        for (int stall = 0; stall < 2; stall++) {
            uint64_t next = writer->link->client.tracker.next[0];
            writer->Stall();
            EXPECT_TRUE(contract::Eventually([&] { return IsHeld(session); }));
            writer->Go();
            ASSERT_TRUE(
                Until([&] { return writer->link->client.tracker.next[0] > next + 3 * Ring; }));
        }
        if (GivenUp(session) == 1) {
            EXPECT_EQ(writer->gaps[0].size(), gaps);
        }
        EXPECT_EQ(writer->wrong_letters, 0u);
    }
}

TEST_F(Flow, AStopAndAKillDoNotWaitForTheWriter)
{
    for (bool kill : {false, true}) {
        Session *session = Begin(kill ? "kill" : "stop", {"pod-tick", "3000"}, POD_MODE_PIPES);
        ASSERT_NE(session, nullptr);
        birth.reset();
        auto writer = Attached(session, POD_ROLE_WRITER, POD_FROM_NOW);
        writer->Stall();
        ASSERT_TRUE(contract::Eventually([&] { return IsHeld(session); }));
        auto other = Connect(session);
        other->Ask(kill ? pod_client_kill(&other->link->client)
                        : pod_client_stop(&other->link->client, 400));
        ASSERT_TRUE(Until([&] { return other->exits == 1; }));
        if (!contract::OnWindows()) {
            EXPECT_EQ(other->exit.kind, POD_EXIT_SIGNALED);
        }
    }
}

// The last words are in the pipe when the child ends: they wait as well.
TEST_F(Flow, WhatIsLeftWhenTheChildEndsIsNotLostEither)
{
    EndWithItsOutputHeld("last");
    birth->Go();
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    EXPECT_EQ(birth->received[0], 90000u);
    EXPECT_EQ(birth->wrong_letters, 0u);
    EXPECT_EQ(birth->gaps[0].size(), 0u);
    EXPECT_EQ(birth->exit.code, 5u);
}

// It ended by itself, and that is what is told: not that its daemon had to be killed.
TEST_F(Flow, AStopBehindTheChildsEndWaitsForNobody)
{
    for (bool kill : {false, true}) {
        Session *session = EndWithItsOutputHeld(kill ? "end-kill" : "end-stop");
        ASSERT_NE(session, nullptr);
        auto other = Connect(session);
        other->Ask(kill ? pod_client_kill(&other->link->client)
                        : pod_client_stop(&other->link->client, 400));
        ASSERT_TRUE(Until([&] { return other->exits == 1; }));
        EXPECT_EQ(other->exit.kind, POD_EXIT_EXITED);
        EXPECT_EQ(other->exit.code, 5u);
        EXPECT_EQ(other->exit.stop_action, 0u);
        EXPECT_EQ(other->exit.end[0], 90000u);
    }
}

// Somebody that the child has left behind writes quicker than the writer reads.
TEST_F(Flow, WhoFloodsBehindTheChildsEndIsNotWaitedFor)
{
    Options options;
    options.ring = Ring;
    options.on_full = POD_FULL_WAIT;
    options.drain_ms = 20;
    Session *session = Create("flood", {"pod-leave", "3", "flood"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth.reset();
    auto writer = Attached(session, POD_ROLE_WRITER, POD_FROM_NOW);
    ASSERT_NE(writer, nullptr);
    writer->keep = false;
    unsigned looks = 0;
    writer->Stall();
    EXPECT_TRUE(contract::Eventually([&] { // Nearly always something is held, and it reads on.
        if (++looks % 10 == 0) {
            writer->Go();
            Turn();
            writer->Stall();
        }
        return Status(session).state == POD_SESSION_EXITED;
    }));
    writer->Go();
    ASSERT_TRUE(Until([&] { return writer->exits == 1; }));
    EXPECT_EQ(writer->exit.code, 3u);
}

#ifndef _WIN32

// What it has said is in the socket of a daemon that slept through the time.
TEST_F(Flow, AWriterIsNotGivenUpForWhatItsDaemonHasSleptThrough)
{
    Options options;
    options.program = FaultyDaemon();
    options.ring = Ring;
    options.on_full = POD_FULL_WAIT;
    options.wait_s = 2;
    // It sleeps for 2 s when it listens again.
    const std::string sign = folder + "/asleep.sign";
    options.daemon_env = {"POD_FAULTS=socket:998:1:1,bind:998:1:1", "POD_LATE_SIGN=" + sign};
    Session *session = Create("asleep", {"pod-tick", "3000"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth.reset();
    auto writer = Attached(session, POD_ROLE_WRITER, POD_FROM_NOW);
    ASSERT_NE(writer, nullptr);
    writer->check_letters = true;
    writer->keep = false;
    writer->Stall();
    ASSERT_TRUE(contract::Eventually([&] { return IsHeld(session); }));
    ASSERT_EQ(pod_file_remove(&session->dir, "s"), PM_OK);
    ASSERT_EQ(pm_process_signal(session->daemon, SIGUSR1, PM_SCOPE_PROCESS), PM_OK);
    ASSERT_TRUE(contract::Eventually([&] { return std::ifstream(sign).good(); }));
    uint64_t next = writer->link->client.tracker.next[0];
    writer->Go();
    ASSERT_TRUE(Until([&] { return writer->link->client.tracker.next[0] > next + 6 * Ring; }));
    EXPECT_EQ(contract::ReadFile(session->path + "/log").find("has taken nothing"),
              std::string::npos);
    EXPECT_EQ(writer->gaps[0].size(), 0u);
    EXPECT_EQ(writer->wrong_letters, 0u);
}

// A terminal is read in several pieces at once: never more than there is room for.
TEST_F(Flow, ASmallRingOfATerminalLosesNothing)
{
    Session *session = Begin("small", {"pod-tick", "3000"}, POD_MODE_PTY, 0, POD_RING_MIN);
    ASSERT_NE(session, nullptr);
    birth.reset();
    auto writer = Attached(session, POD_ROLE_WRITER, 0);
    ASSERT_NE(writer, nullptr);
    writer->check_letters = true;
    for (int stall = 0; stall < 3; stall++) {
        uint64_t next = writer->link->client.tracker.next[0];
        writer->Stall();
        EXPECT_TRUE(contract::Eventually([&] { return IsHeld(session); }));
        writer->Go();
        ASSERT_TRUE(
            Until([&] { return writer->link->client.tracker.next[0] > next + 3 * POD_RING_MIN; }));
    }
    EXPECT_LE(writer->gaps[0].size(), 1u); // That of the beginning, without a writer.
    if (!writer->gaps[0].empty()) {
        EXPECT_EQ(writer->gaps[0][0].first, 0u);
    }
    EXPECT_EQ(writer->wrong_letters, 0u);
    writer->Type("x");
    ASSERT_TRUE(Until([&] { return writer->exits == 1; }));
}

#else

TEST_F(Pod, ATerminalThatShallWaitForItsWriterIsRefusedByName)
{
    Options options;
    options.mode = POD_MODE_PTY;
    options.on_full = POD_FULL_WAIT;
    EXPECT_EQ(Create("waits", {"pod-echo"}, options), nullptr);
    EXPECT_EQ(birth_error.code, POD_E_START);
    EXPECT_EQ(birth_error.detail, static_cast<uint64_t>(-PM_ERR_UNSUPPORTED));
    EXPECT_EQ(birth_error.text.rfind("on_full", 0), 0u) << birth_error.text;
}

#endif

} // namespace pod
