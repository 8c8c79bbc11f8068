// Troubles that pass: none of them ends a loop of the daemon, and all are counted.
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#ifndef _WIN32
#include <sys/resource.h>
#include <unistd.h>
#endif

#include "pod_fixture.h"

#ifndef EDQUOT
#define EDQUOT ENOSPC
#endif

namespace pod
{

static std::string Fault(const std::string &call, int error, int skip, int count)
{
    return "POD_FAULTS=" + call + ":" + std::to_string(error) + ":" + std::to_string(skip) + ":" +
           std::to_string(count);
}

TEST_F(Pod, TheTerminalLoopsSurviveErrors)
{
#ifdef _WIN32
    const std::vector<std::string> calls = {"malloc", "uv_write"};
#else
    const std::vector<std::string> calls = {"read", "child"};
#endif
    for (uint32_t mode : Modes()) {
        for (const std::string &call : calls) {
            for (int error : {ENOMEM, ENOBUFS}) {
                Options options;
                options.mode = mode;
                options.program = FaultyDaemon();
                options.daemon_env = {Fault(call, error, 1, 3)};
                Session *session =
                    Create(call + std::to_string(mode * 1000 + static_cast<uint32_t>(error)),
                           {"pod-echo"}, options);
                ASSERT_NE(session, nullptr) << birth_error.text;
                birth->Attach(POD_ROLE_WRITER, 0);
                ASSERT_TRUE(Until([&] { return birth->attached == 1; }));
                std::string expected = "ready\n";
                ASSERT_TRUE(Until([&] { return birth->Text() == expected; }));
                for (const char *word : {"one ", "two ", "three"}) {
                    birth->Type(word);
                    expected += word;
                    ASSERT_TRUE(Until([&] { return birth->Text() == expected; }));
                }
                EXPECT_EQ(Status(session).faults[POD_FAULT_CHILD], 3u) << call << error;
            }
        }
    }
}

// The trouble comes in each place of a long write, also behind a part of it that went well.
TEST_F(Pod, InputIsTypedOnceThoughAWriteFailsInItsMiddle)
{
    const uint64_t total = 240000;
    uint64_t hit = 0;
    std::string text(total, ' ');
    for (uint64_t i = 0; i < total; i++)
        text[i] = LetterAt(i);
    for (int skip = 1; skip < 12; skip++) {
        Options options;
        options.program = FaultyDaemon();
        options.daemon_env = {Fault(contract::OnWindows() ? "uv_write" : "child", ENOMEM, skip, 1)};
        remove((folder + "/go-on").c_str());
        Session *session = Create("typed-" + std::to_string(skip), {"pod-check"}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        birth->Attach(POD_ROLE_WRITER, 0);
        ASSERT_TRUE(Until([&] { return birth->attached == 1; }));
        ASSERT_EQ(birth->Type(text), static_cast<int64_t>(total));
        pod_state state = {};
        ASSERT_TRUE(contract::Eventually([&] { // The pipe is full.
            uint64_t before = state.input_taken;
            state = Status(session);
            return state.input_taken + state.input_queued == total && state.input_taken == before;
        }));
        contract::WriteFile(folder + "/go-on", "");
        uint32_t request = birth->Ask(pod_client_close_input(&birth->link->client));
        ASSERT_TRUE(Until([&] { return birth->Done(request) && birth->exits == 1; }));
        EXPECT_EQ(birth->Text(), std::to_string(total) + " of " + std::to_string(total) + "\n")
            << skip;
        EXPECT_EQ(Status(session).input_taken, total) << skip;
        hit += Status(session).faults[POD_FAULT_CHILD];
    }
    EXPECT_GE(hit, 2u); // There may be fewer writes than that.
}

// Attaches and detaches, which goes into the log, until that is reached.
static void FillLog(Client *client, const std::function<bool(const std::function<bool()> &)> &until,
                    const std::function<bool()> &reached)
{
    for (int i = 0; i < 20000 && !reached(); i++) {
        for (int k = 0; k < 20; k++) {
            client->Attach(POD_ROLE_WRITER, POD_FROM_NOW, POD_ATTACH_TAKE_OVER);
            client->Ask(pod_client_detach(&client->link->client));
        }
        uint32_t request = client->Ask(pod_client_status(&client->link->client));
        ASSERT_TRUE(until([&] { return client->Done(request); }));
    }
    ASSERT_TRUE(reached());
}

TEST_F(Pod, TheLogIsCappedAndRotated)
{
    Session *session = Create("chatty", {"pod-echo"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    auto size_of = [&](const char *name) {
        return contract::ReadFile(session->path + "/" + name).size();
    };
    auto client = Connect(session);
    ASSERT_NE(client, nullptr);
    auto until = [&](const std::function<bool()> &reached) { return Until(reached); };
    FillLog(client.get(), until, [&] { return size_of("log.2") > 0; });
    for (const char *name : {"log", "log.1", "log.2"})
        EXPECT_LE(size_of(name), 262144u) << name;
    EXPECT_EQ(size_of("log.3"), 0u);
}

TEST_F(Pod, ALogThatCannotBeMovedLosesNothingAndIsCapped)
{
    Session *session = Create("stuck", {"pod-echo"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    contract::MakeFolder(session->path + "/log.2");
    contract::WriteFile(session->path + "/log.2/file", "in the way");
    auto client = Connect(session);
    ASSERT_NE(client, nullptr);
    auto until = [&](const std::function<bool()> &reached) { return Until(reached); };
    auto text_of = [&](const char *name) { return contract::ReadFile(session->path + "/" + name); };
    size_t size = 0;
    FillLog(client.get(), until, [&] { // It grows no more.
        size_t before = size;
        size = text_of("log").size();
        return size > 500000 && size == before;
    });
    EXPECT_LE(size, 2 * 262144u);
    EXPECT_NE(text_of("log.1").find("started: process"), std::string::npos);
    EXPECT_GT(Status(session).faults[POD_FAULT_LOG], 0u);
    contract::RemoveTree(session->path + "/log.2");
    FillLog(client.get(), until, [&] { return !text_of("log.2").empty(); });
    EXPECT_NE(text_of("log.2").find("started: process"), std::string::npos);
}

TEST_F(Pod, AFullDiskDoesNotEndTheLogNorTheSession)
{
    Options options;
    options.program = FaultyDaemon();
    options.daemon_env = {Fault("log", ENOSPC, 1, 1)};
    Session *session = Create("log", {"pod-echo"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    pod_state state = Status(session);
    EXPECT_EQ(state.faults[POD_FAULT_LOG], 1u);
    // After a second it is tried again. What was not written meanwhile is not made up for.
    ASSERT_TRUE(contract::Eventually([&] {
        Status(session);
        return contract::ReadFile(session->path + "/log").find("connection") != std::string::npos;
    }));
}

// One event, one line: also behind half a line.
TEST_F(Pod, AfterALineThatWasCutTheNextOneBeginsOnALineOfItsOwn)
{
    Options options;
    options.program = FaultyDaemon();
    const int half = 997; // POD_FAULT_HALF
    options.daemon_env = {Fault("log", half, 1, 1) + ",log:" + std::to_string(ENOSPC) + ":0:1"};
    Session *session = Create("half", {"pod-echo"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    std::string log;
    ASSERT_TRUE(contract::Eventually([&] {
        EXPECT_EQ(Status(session).faults[POD_FAULT_LOG], 1u);
        log = contract::ReadFile(session->path + "/log");
        return log.back() == '\n'; // Something came behind what was cut.
    }));
    size_t next;
    for (size_t at = 0; (next = log.find('\n', at)) != std::string::npos; at = next + 1) {
        std::string line = log.substr(at, next - at);
        EXPECT_EQ(line.find("Z "), line.rfind("Z ")) << line; // Each has one time.
    }
    EXPECT_EQ(log.find("\n\n"), std::string::npos) << log;
}

TEST_F(Pod, TheExitIsNotAnnouncedBeforeItIsOnTheDisk)
{
    for (const char *call : {"record", "fsync", "renameat", "openat"}) {
        for (int error : {ENOSPC, EIO, EROFS, EDQUOT}) {
            if (error > EIO && error != ENOSPC && getenv("PM_TEST_FULL") == nullptr)
                continue;
            Options options;
            options.program = FaultyDaemon();
            // Of openat: the lock, the token, the log and the socket's folder come first.
            options.daemon_env = {Fault(call, error, std::string(call) == "openat" ? 3 : 0, 4)};
            Session *session = Create(std::string(call) + std::to_string(error),
                                      {"pod-count", "5000", "6", "wait"}, options);
            ASSERT_NE(session, nullptr) << birth_error.text;
            birth->Attach(POD_ROLE_WRITER, 0);
            ASSERT_TRUE(Until([&] { return birth->received[0] == 5000; }));
            birth->Type("x");
            // All output is there while the record is not yet.
            ASSERT_TRUE(Until([&] { return birth->ends == 2; }));
            EXPECT_EQ(birth->exits, 0u) << call;
            // The end of the output may come ahead of that of the process.
            int state = POD_SESSION_RUNNING;
            EXPECT_TRUE(contract::Eventually([&] {
                state = Status(session).state;
                return state != POD_SESSION_RUNNING;
            }));
            EXPECT_EQ(state, POD_SESSION_ENDED) << call;
            EXPECT_EQ(pod_exit_claim(&session->dir), PM_ERR_NOT_FOUND);
            ASSERT_TRUE(Until([&] { return birth->exits == 1; })) << call;
            EXPECT_GT(Status(session).faults[POD_FAULT_RECORD], 0u);
            EXPECT_EQ(pod_exit_claim(&session->dir), PM_OK);
            birth.reset();
            EXPECT_TRUE(DaemonIsGone(session));
        }
    }
}

// kill -9 in place of each call that the record is made of: there is a whole one, or none.
TEST_F(Pod, ADaemonThatIsKilledInTheMiddleOfItsRecordLeavesAWholeOneOrNone)
{
    unsigned whole = 0, none = 0;
    for (const char *call : {"openat", "record", "fsync", "renameat"}) {
        bool lived = false;
        for (int k = std::string(call) == "openat" ? 3 : 0; !lived; k++) {
            ASSERT_LT(k, 40) << call;
            Options options;
            options.program = FaultyDaemon();
            options.daemon_env = {Fault(call, 999, k, 1)};
            Session *session = Create(std::string(call) + std::to_string(k),
                                      {"pod-count", "5000", "6", "wait"}, options);
            ASSERT_NE(session, nullptr) << birth_error.text;
            birth->Attach(POD_ROLE_WRITER, 0);
            ASSERT_TRUE(Until([&] { return birth->received[0] == 5000; }));
            birth->Type("x");
            ASSERT_TRUE(Until([&] { return birth->Over() || birth->exits == 1; }));
            lived = birth->exits == 1;
            uint64_t from[POD_CHANNELS] = {0, 0};
            pod_exit exit = {};
            bool claimed = true;
            auto take = [](void *user, const pod_message *m) {
                if (m->type == POD_EXIT)
                    *static_cast<pod_exit *>(user) = m->u.exit;
            };
            int result = pod_exit_read(&session->dir, from, take, &exit, &claimed);
            if (lived || result == PM_OK) {
                ASSERT_EQ(result, PM_OK) << call << k;
                EXPECT_EQ(exit.code, 6u);
                EXPECT_EQ(exit.end[0], 5000u);
                EXPECT_FALSE(claimed);
            } else {
                ASSERT_EQ(result, PM_ERR_NOT_FOUND) << call << k;
            }
            whole += !lived && result == PM_OK;
            none += !lived && result != PM_OK;
        }
    }
    EXPECT_GE(whole, contract::OnWindows() ? 0u : 1u); // Killed before the folder was synced.
    EXPECT_GE(none, 4u);
}

// The disk is full for good: who insists ends it all the same.
TEST_F(Pod, ADaemonThatCannotRecordEndsWhenItIsKilled)
{
    for (bool by_signal : {true, false}) {
        Options options;
        options.program = FaultyDaemon();
        options.daemon_env = {Fault("openat", ENOSPC, 3, 1000000)};
        Session *session = Create(by_signal ? "signal" : "kill", {"pod-count", "5", "6"}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        birth->Attach(POD_ROLE_WRITER, 0);
        ASSERT_TRUE(Until([&] { return birth->ends == 2; }));
        ASSERT_TRUE(contract::Eventually([&] {
            return Status(session).state == POD_SESSION_ENDED &&
                   Status(session).faults[POD_FAULT_RECORD] > 2;
        }));
        EXPECT_EQ(birth->exits, 0u);
        if (by_signal)
            AskToEnd(session);
        else
            birth->Ask(pod_client_kill(&birth->link->client));
        ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
        EXPECT_EQ(birth->exit.code, 6u);
        birth.reset();
        EXPECT_TRUE(DaemonIsGone(session));
    }
}

// Who insists may be the one who finds that there is room again.
TEST_F(Pod, AnExitThatIsRecordedForWhoInsistsIsRecordedOnce)
{
    Options options;
    options.program = FaultyDaemon();
    options.daemon_env = {Fault("openat", ENOSPC, 3, 10)}; // Five tries; the pause is 1.6 s then.
    Session *session = Create("once", {"pod-count", "5", "6"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    ASSERT_TRUE(
        contract::Eventually([&] { return Status(session).faults[POD_FAULT_RECORD] == 5; }));
    birth->Ask(pod_client_kill(&birth->link->client));
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    EXPECT_TRUE(DaemonIsGone(session)); // Nobody claims it: 5 s, and not from a second record on.
    std::string log = contract::ReadFile(session->path + "/log"), said = "the exit is recorded";
    EXPECT_NE(log.find(said), std::string::npos) << log;
    EXPECT_EQ(log.find(said), log.rfind(said)) << log;
}

#ifndef _WIN32

TEST_F(Pod, TheAcceptLoopSurvivesEveryError)
{
    for (int error : {EMFILE, ENFILE, ENOBUFS, ENOMEM, ECONNABORTED}) {
        Options options;
        options.program = FaultyDaemon();
        options.daemon_env = {Fault("accept4", error, 1, 5)};
        Session *session = Create("accept-" + std::to_string(error), {"pod-echo"}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        Status(session);
        pod_state state = Status(session); // Comes late, but comes.
        EXPECT_EQ(state.faults[POD_FAULT_ACCEPT], 5u) << error;
        EXPECT_EQ(state.state, POD_SESSION_RUNNING);
    }
}

// Connections until the daemon of the session has no descriptor left. Those that it has not
// accepted stay in its queue.
std::vector<std::unique_ptr<Client>> Pod::TakeAllDescriptors(Session *session)
{
    std::vector<std::unique_ptr<Client>> clients;
    for (int i = 0; i < 40; i++) {
        pm_native native;
        if (pod_connect(&session->dir, session->id.c_str(), &native) != PM_OK)
            break;
        clients.push_back(std::make_unique<Client>(&loop, *session, native, 1));
        for (int turn = 0; turn < 30 && !clients.back()->Ready(); turn++) {
            Turn();
            usleep(1000);
        }
    }
    birth->Ask(pod_client_status(&birth->link->client));
    EXPECT_TRUE(Until([&] {
        if (birth->states > 0 && birth->state.faults[POD_FAULT_ACCEPT] == 0) {
            birth->states = 0;
            birth->Ask(pod_client_status(&birth->link->client));
        }
        return birth->states > 0 && birth->state.faults[POD_FAULT_ACCEPT] > 0;
    }));
    return clients;
}

TEST_F(Pod, TheDaemonOutlivesARealLackOfDescriptors)
{
    Options options;
    options.descriptors = 50; // An idle one has 29; a start needs more for a moment.
    Session *session = Create("descriptors", {"pod-echo"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    auto clients = TakeAllDescriptors(session);
    // The session goes on meanwhile.
    birth->Type("in between");
    ASSERT_TRUE(Until([&] { return birth->Text().find("in between") != std::string::npos; }));
    birth->Ask(pod_client_stop(&birth->link->client, 3600000));
    clients.clear();
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    EXPECT_EQ(Status(session).faults[POD_FAULT_CHILD], 0u);
}

#ifdef __linux__
// It has held some back for that.
TEST_F(Pod, AStopWithoutDescriptorsReachesWhoHasASessionOfItsOwn)
{
    Options options;
    options.descriptors = 50;
    Session *session = Create("descriptors", {"pod-wander", "stop"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    uint64_t first = 0, second = 0;
    std::tie(first, second) = TheTwoThatLeft();
    ASSERT_NE(first, 0u);
    auto clients = TakeAllDescriptors(session);
    birth->Ask(pod_client_stop(&birth->link->client, 300));
    for (uint64_t pid : {first, second}) {
        EXPECT_TRUE(contract::Eventually([&] {
            Turn();
            return !contract::PidAlive(pid);
        }));
        if (contract::PidAlive(pid))
            contract::KillByNumber(pid);
    }
    clients.clear();
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    EXPECT_EQ(Status(session).faults[POD_FAULT_CHILD], 0u);
}

// That it cannot look for all of the tree is told.
TEST_F(Pod, AStopThatMayMissSomebodySaysSo)
{
    Session *session = Create("few", {"pod-shell"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    ASSERT_TRUE(Until([&] { return birth->Text().find("ready\n") != std::string::npos; }));
    rlimit before;
    auto daemon = static_cast<pid_t>(Status(session).daemon_pid);
    ASSERT_EQ(prlimit(daemon, RLIMIT_NOFILE, nullptr, &before), 0);
    rlimit few = {4, before.rlim_max};
    ASSERT_EQ(prlimit(daemon, RLIMIT_NOFILE, &few, nullptr), 0);
    birth->Ask(pod_client_stop(&birth->link->client, 3600000));
    ASSERT_TRUE(contract::Eventually([&] {
        Turn();
        return contract::ReadFile(session->path + "/log").find("who has left its session") !=
               std::string::npos;
    }));
    ASSERT_EQ(prlimit(daemon, RLIMIT_NOFILE, &before, nullptr), 0);
    birth->Ask(pod_client_kill(&birth->link->client));
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    EXPECT_GT(Status(session).faults[POD_FAULT_CHILD], 0u);
}
#endif

#ifdef PM_TEST_WRITE_FAULTS_PATH
TEST_F(Pod, NothingIsLostWhenWritesToAConnectionFailForAMoment)
{
    for (uint32_t mode : Modes()) {
        const uint64_t total = 2u << 20;
        Options options;
        options.mode = mode;
        options.ring = 4u << 20;
        options.daemon_env = {"LD_PRELOAD=" PM_TEST_WRITE_FAULTS_PATH};
        Session *session = Create("writes-" + std::to_string(mode),
                                  {"pod-count", std::to_string(total), "7", "wait"}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        auto viewer = Attached(session, POD_ROLE_VIEWER, 0);
        ASSERT_NE(viewer, nullptr);
        birth->keep = viewer->keep = false;
        birth->check_letters = viewer->check_letters = true;
        birth->Attach(POD_ROLE_WRITER, 0);
        for (Client *client : {birth.get(), viewer.get()}) {
            ASSERT_TRUE(Until([&] { return client->received[0] == total; })) << client->received[0];
            EXPECT_EQ(client->wrong_letters, 0u) << client->first_wrong;
        }
        for (int i = 0; i < 50; i++)
            EXPECT_EQ(Status(session).end[0], total);
        birth->Type("x");
        ASSERT_TRUE(Until([&] { return birth->exits == 1 && viewer->exits == 1; }));
        EXPECT_EQ(birth->exit.code, 7u);
    }
}
#endif

// A limit for the size of files that is below that of a log.
TEST_F(Pod, ALogThatMayNotGrowIsRotated)
{
    Options options;
    options.file_size = 4096;
    Session *session = Create("limited", {"pod-echo"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    auto client = Connect(session);
    ASSERT_NE(client, nullptr);
    auto text_of = [&](const char *name) { return contract::ReadFile(session->path + "/" + name); };
    FillLog(
        client.get(), [&](const std::function<bool()> &reached) { return Until(reached); },
        [&] { return !text_of("log.2").empty(); });
    EXPECT_EQ(Status(session).faults[POD_FAULT_LOG], 0u); // Each line is in one of them.
    EXPECT_NE(text_of("log").find("connection"), std::string::npos);
}

// A record that has its name may be claimed before it is known to be on the disk. Then there must
// be no second one.
TEST_F(Pod, ARecordThatHasItsNameIsNotMadeASecondTime)
{
    Options options;
    options.program = FaultyDaemon();
    options.daemon_env = {Fault("fsync", EIO, 1, 3)}; // Of the file it is well, of the folder not.
    Session *session = Create("named", {"pod-count", "5000", "6"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    EXPECT_TRUE(contract::Eventually([&] { return pod_exit_claim(&session->dir) == PM_OK; }));
    EXPECT_EQ(birth->exits, 0u); // Nobody was told yet.
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    EXPECT_EQ(pod_exit_claim(&session->dir), PM_ERR_GONE);
    EXPECT_EQ(Status(session).faults[POD_FAULT_RECORD], 3u);
}

// The drain time of 5 ms is over in the pause of 20 ms after the trouble.
TEST_F(Pod, WhatIsThereWhenTheDrainTimeIsOverIsStillRead)
{
    Options options;
    options.program = FaultyDaemon();
    options.daemon_env = {Fault("read", ENOMEM, 0, 1)};
    options.drain_ms = 5;
    for (int round = 0; round < 5; round++) {
        Session *session =
            Create("drained-" + std::to_string(round), {"pod-leave", "4", "stay"}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        birth->Attach(POD_ROLE_VIEWER, 0);
        ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
        ASSERT_EQ(birth->Text().substr(0, 5), "left ");
        contract::KillByNumber(std::stoull(birth->Text().substr(5)));
    }
}

// Each size of a file is limited, for the holder as for whoever has started it. It used to die of
// that.
TEST_F(Pod, ALimitForTheSizeOfFilesCostsTheOutputAndNotTheExit)
{
    Options options;
    options.file_size = 64 << 10;
    Session *session = Create("limit", {"pod-count", "300000", "5"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    ASSERT_TRUE(Until([&] { return birth->exits == 1 || birth->Over(); }));
    EXPECT_EQ(birth->exits, 1u);
    EXPECT_EQ(birth->received[0], 300000u);
    EXPECT_GT(Status(session).faults[POD_FAULT_RECORD], 0u);
    birth.reset();
    EXPECT_TRUE(DaemonIsGone(session));
    uint64_t from[POD_CHANNELS] = {POD_FROM_KEPT, POD_FROM_KEPT};
    pod_exit exit = {};
    bool claimed = true;
    auto take = [](void *user, const pod_message *m) {
        if (m->type == POD_EXIT)
            *static_cast<pod_exit *>(user) = m->u.exit;
    };
    ASSERT_EQ(pod_exit_read(&session->dir, from, take, &exit, &claimed), PM_OK);
    EXPECT_EQ(exit.code, 5u);
    EXPECT_EQ(exit.end[0], 300000u);
}

TEST_F(Pod, AClaimThatIsNotOnTheDiskIsNone)
{
    Options options;
    options.program = FaultyDaemon();
    options.daemon_env = {Fault("fsync", EIO, 2, 1)}; // Of the record and its folder it is well.
    Session *session = Create("claim", {"pod-count", "5", "6"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    uint32_t request = birth->Ask(pod_client_claim(&birth->link->client));
    ASSERT_TRUE(Until([&] { return birth->ErrorOf(request) != 0 || birth->Done(request); }));
    EXPECT_EQ(birth->ErrorOf(request), POD_E_IO);
    request = birth->Ask(pod_client_claim(&birth->link->client));
    ASSERT_TRUE(Until([&] { return birth->Done(request); }));
    EXPECT_TRUE(DaemonIsGone(session));
    EXPECT_EQ(pod_exit_claim(&session->dir), PM_ERR_GONE);
}

// There is nowhere left to record the exit: who is connected gets it, and the daemon ends.
TEST_F(Pod, ADaemonWhoseFolderIsGoneTellsTheExitAndEnds)
{
    Session *session = Create("homeless", {"pod-count", "5000", "6", "wait"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    ASSERT_TRUE(Until([&] { return birth->received[0] == 5000; }));
    contract::RemoveTree(session->path);
    birth->Type("x");
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    EXPECT_EQ(birth->exit.code, 6u);
    uint32_t request = birth->Ask(pod_client_claim(&birth->link->client));
    ASSERT_TRUE(Until([&] { return birth->Done(request); }));
    EXPECT_TRUE(DaemonIsGone(session));
    // Also if nobody is there, and asked by the system.
    session = Create("homeless-2", {"pod-deaf"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth.reset();
    contract::RemoveTree(session->path);
    ASSERT_EQ(pm_process_signal(session->daemon, SIGTERM, PM_SCOPE_PROCESS), PM_OK);
    EXPECT_TRUE(DaemonIsGone(session));
}

// Another host has removed it, from a network file system.
TEST_F(Pod, ADaemonWhoseFolderIsStaleTellsTheExitAndEnds)
{
    Options options;
    options.program = FaultyDaemon();
    options.daemon_env = {Fault("openat", ESTALE, 3, 1000000) + "," +
                          Fault("fstat", ESTALE, 0, 1000000).substr(strlen("POD_FAULTS="))};
    Session *session = Create("stale", {"pod-count", "5000", "6"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    EXPECT_EQ(birth->exit.code, 6u);
    birth.reset();
    EXPECT_TRUE(DaemonIsGone(session));
}

// The descriptor of the old log is somebody's connection by then.
TEST_F(Pod, ACrashWithoutALogWritesToNobody)
{
    Options options;
    options.program = FaultyDaemon();
    options.daemon_env = {Fault("open-log", EACCES, 1, 1000000)};
    Session *session = Create("blind", {"pod-echo"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    auto client = Connect(session);
    ASSERT_NE(client, nullptr);
    auto until = [&](const std::function<bool()> &reached) { return Until(reached); };
    FillLog(client.get(), until,
            [&] { return !contract::ReadFile(session->path + "/log.1").empty(); });
    auto later = Connect(session);
    ASSERT_NE(later, nullptr);
    ASSERT_EQ(pm_process_signal(session->daemon, SIGSEGV, PM_SCOPE_PROCESS), PM_OK);
    for (Client *each : {client.get(), later.get()}) {
        ASSERT_TRUE(Until([&] { return each->Over(); }));
        EXPECT_EQ((*each)->failure, -POD_E_CLOSED); // And not: that is no frame.
    }
}

#endif

} // namespace pod
