// Sessions from their start to their end.
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>
#ifndef _WIN32
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

#include "pmi_config.h"
#include "pod_fixture.h"
#ifdef _WIN32
#include <windows.h> // Behind uv.h.
#endif

namespace pod
{

TEST_F(Pod, ASessionEchoesAndItsExitIsClaimedOnce)
{
    Session *session = Create("echo", {"pod-echo"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    uint32_t request = birth->Attach(POD_ROLE_WRITER, 0);
    ASSERT_TRUE(Until([&] { return birth->Done(request); }));
    ASSERT_TRUE(Until([&] { return birth->Text().find("ready\n") != std::string::npos; }));
    EXPECT_EQ(birth->Type("hello"), 5);
    ASSERT_TRUE(Until([&] { return birth->Text().find("hello") != std::string::npos; }));
    request = birth->Ask(pod_client_close_input(&birth->link->client));
    ASSERT_TRUE(Until([&] { return birth->Done(request) && birth->exits == 1; }));
    EXPECT_EQ(birth->ends, 2u);
    EXPECT_EQ(birth->exit.kind, POD_EXIT_EXITED);
    EXPECT_EQ(birth->exit.code, 0u);
    EXPECT_EQ(birth->exit.end[0], birth->received[0]);
    request = birth->Ask(pod_client_claim(&birth->link->client));
    ASSERT_TRUE(Until([&] { return birth->Done(request); }));
    EXPECT_TRUE(DaemonIsGone(session));
    EXPECT_EQ(pod_exit_claim(&session->dir), PM_ERR_GONE);
}

// Whoever comes when all is over reads what who was there would have read.
struct Late {
    pod_tracker tracker = {};
    std::string text;
    unsigned exits = 0;
    pod_exit exit = {};
    int result = 0;
    static void Handle(void *user, const pod_message *m)
    {
        Late *late = static_cast<Late *>(user);
        int taken = pod_tracker_take(&late->tracker, m);
        late->result = late->result != 0 ? late->result : taken;
        if (m->type == POD_OUTPUT && m->u.output.channel == POD_CHANNEL_OUT)
            late->text.append(reinterpret_cast<const char *>(m->u.output.data.data),
                              m->u.output.data.size);
        if (m->type == POD_EXIT) {
            late->exits++;
            late->exit = m->u.exit;
        }
    }
    int Read(Session *session, uint64_t from, bool *claimed)
    {
        uint64_t offsets[POD_CHANNELS] = {from, 0};
        pod_tracker_begin(&tracker, offsets);
        return pod_exit_read(&session->dir, offsets, Handle, this, claimed);
    }
};

TEST_F(Pod, AnExitThatNobodySeesIsKeptAndCostsNoProcess)
{
    for (uint32_t mode : Modes()) {
        Options options;
        options.mode = mode;
        Session *session =
            Create("short-" + std::to_string(mode), {"pod-count", "200000", "42"}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        birth.reset();
        EXPECT_TRUE(DaemonIsGone(session));
        // At once, without waiting for somebody to claim it.
        EXPECT_EQ(contract::ReadFile(session->path + "/log").find("nobody claims"),
                  std::string::npos);
        bool claimed = true;
        Late late;
        ASSERT_EQ(late.Read(session, 0, &claimed), PM_OK);
        EXPECT_FALSE(claimed);
        EXPECT_EQ(late.result, 0);
        EXPECT_EQ(late.exits, 1u);
        EXPECT_EQ(late.exit.kind, POD_EXIT_EXITED);
        EXPECT_EQ(late.exit.code, 42u);
        ASSERT_EQ(late.text.size(), 200000u);
        for (size_t i = 0; i < late.text.size(); i++)
            ASSERT_EQ(late.text[i], LetterAt(i)) << i;
        EXPECT_EQ(pod_exit_claim(&session->dir), PM_OK);
        EXPECT_EQ(pod_exit_claim(&session->dir), PM_ERR_GONE);
        Late again;
        ASSERT_EQ(again.Read(session, 150000, &claimed), PM_OK);
        EXPECT_TRUE(claimed);
        EXPECT_EQ(again.text.size(), 50000u);
    }
}

TEST_F(Pod, AllOutputComesBeforeTheExit)
{
    int rounds = getenv("PM_TEST_FULL") != nullptr ? 1000 : 25;
    for (int i = 0; i < rounds; i++) {
        Options options;
        options.mode = Modes()[static_cast<size_t>(i) % Modes().size()];
        Session *session =
            Create("tail-" + std::to_string(i), {"pod-count", "200000", "5"}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        birth->check_letters = true;
        birth->Attach(POD_ROLE_WRITER, 0);
        ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
        EXPECT_EQ(birth->received[0], 200000u);
        EXPECT_EQ(birth->wrong_letters, 0u);
        EXPECT_EQ(birth->exit.code, 5u);
        uint32_t request = birth->Ask(pod_client_claim(&birth->link->client));
        ASSERT_TRUE(Until([&] { return birth->Done(request); }));
        EXPECT_TRUE(DaemonIsGone(session));
    }
}

TEST_F(Pod, StderrOfPipesIsAChannelOfItsOwn)
{
    Session *session = Create("both", {"pod-both", "3"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_VIEWER, 0);
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    EXPECT_EQ(birth->bytes[POD_CHANNEL_OUT], "out");
    EXPECT_EQ(birth->bytes[POD_CHANNEL_ERR], "err");
    EXPECT_EQ(birth->exit.code, 3u);
    EXPECT_EQ(birth->exit.end[POD_CHANNEL_ERR], 3u);
}

TEST_F(Pod, AStartThatFailsIsToldWithItsReason)
{
    Options options;
    options.command = "/no/such/program";
    EXPECT_EQ(Create("missing", {}, options), nullptr);
    EXPECT_EQ(birth_error.code, POD_E_START);
    EXPECT_EQ(birth_error.detail, static_cast<uint64_t>(-PM_ERR_NOT_FOUND));
    EXPECT_NE(birth_error.text.find("/no/such/program"), std::string::npos) << birth_error.text;
    EXPECT_TRUE(birth_error.fatal);
    EXPECT_TRUE(DaemonIsGone(&sessions.back()));
}

// 2 s, and not the 10 s that there are for a START.
TEST_F(Pod, AStartThatFailsAndWhoseReasonIsNotReadEndsSoonAllTheSame)
{
    Options options;
    options.command = "/no/such/program";
    Session *session = MakeFolder("deaf");
    birth = StartDaemon(session, options);
    ASSERT_TRUE(Until([&] { return birth->Ready(); }));
    birth->Ask(pod_client_status(&birth->link->client));
    ASSERT_TRUE(Until([&] { return birth->states == 1; }));
    pod_message answer = {};
    answer.type = POD_STATE;
    answer.u.state = birth->state;
    uint8_t bytes[512];
    size_t size = pod_encode(&answer, bytes, sizeof bytes);
    birth->Stall();
    for (size_t asked = 0; asked < 240 * 1024; asked += size) { // More than a pipe holds, less than
        birth->Ask(pod_client_status(&birth->link->client));    // that and what a daemon keeps.
    }
    SendStart(birth.get(), {}, options);
    EXPECT_TRUE(DaemonIsGone(session));
    std::string log = contract::ReadFile(session->path + "/log");
    EXPECT_NE(log.find("not started"), std::string::npos) << log;
    EXPECT_EQ(log.find("no START came"), std::string::npos) << log;
}

TEST_F(Pod, ADaemonWithoutARunnerEndsAtOnce)
{
    Session *session = MakeFolder("abandoned");
    birth = StartDaemon(session, Options());
    ASSERT_NE(birth, nullptr);
    ASSERT_TRUE(Until([&] { return birth->Ready(); }));
    birth.reset(); // Before START.
    EXPECT_TRUE(DaemonIsGone(session));
    bool claimed;
    Late late;
    EXPECT_EQ(late.Read(session, 0, &claimed), PM_ERR_NOT_FOUND);
}

TEST_F(Pod, StopEndsTheChildAndSaysHow)
{
    for (uint32_t mode : Modes()) {
        Options options;
        options.mode = mode;
        Session *session = Create("stop-" + std::to_string(mode), {"pod-deaf"}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        birth.reset();
        auto client = Connect(session, 2); // Attached to nothing.
        ASSERT_NE(client, nullptr);
        uint32_t request = client->Ask(pod_client_stop(&client->link->client, 3000));
        ASSERT_TRUE(Until([&] { return client->Done(request) && client->exits == 1; }));
        EXPECT_EQ(client->exit.stop_action, PM_STOP_TERMINATE);
        if (!contract::OnWindows()) {
            EXPECT_EQ(client->exit.kind, POD_EXIT_SIGNALED);
            EXPECT_EQ(client->exit.signal, 15u);
        }
        client->Ask(pod_client_claim(&client->link->client));
        EXPECT_TRUE(DaemonIsGone(session));
    }
}

TEST_F(Pod, KillEndsTheChildAtOnce)
{
    Options options;
    options.mode = Modes().back();
    Session *session = Create("kill", {"pod-deaf"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Ask(pod_client_kill(&birth->link->client));
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    EXPECT_EQ(birth->exit.stop_action, PM_STOP_KILL);
    if (!contract::OnWindows()) {
        EXPECT_EQ(birth->exit.signal, 9u);
    }
    birth.reset();
    EXPECT_TRUE(DaemonIsGone(session));
}

TEST_F(Pod, AnySessionIdAndAnyFolderWork)
{
    std::string long_id(POD_SESSION_MAX, '/');
    std::string deep = folder;
    // The helper that makes folders is for short paths on Windows.
    for (int i = 0; i < (contract::OnWindows() ? 1 : 12); i++) {
        deep += "/" + std::string(80, 'd');
        contract::MakeFolder(deep);
    }
    std::string before = folder;
    folder = deep;
    Options options;
    Session *session = MakeFolder(long_id);
    folder = before; // The child's.
    birth = StartDaemon(session, options);
    ASSERT_NE(birth, nullptr);
    ASSERT_TRUE(Until([&] { return birth->Ready() || birth->Over(); }));
    ASSERT_TRUE(birth->Ready());
    SendStart(birth.get(), {"pod-echo"}, options);
    ASSERT_TRUE(Until([&] { return birth->started == 1; }));
    auto client = Attached(session, POD_ROLE_WRITER, 0);
    ASSERT_NE(client, nullptr);
    ASSERT_TRUE(Until([&] { return client->Text() == "ready\n"; }));
    client->Ask(pod_client_kill(&client->link->client));
    ASSERT_TRUE(Until([&] { return client->exits == 1; }));
    client->Ask(pod_client_claim(&client->link->client));
    EXPECT_TRUE(DaemonIsGone(session));
}

TEST_F(Pod, ASecondDaemonOfAFolderIsRefused)
{
    Session *session = Create("one", {"pod-echo"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    sessions.emplace_back();
    Session *second = &sessions.back();
    second->id = "two"; // Another key, the same folder.
    second->path = session->path;
    ASSERT_EQ(pod_dir_open(second->path.c_str(), &second->dir), PM_OK);
    memcpy(second->token, session->token, sizeof session->token);
    auto other = StartDaemon(second, Options());
    ASSERT_NE(other, nullptr);
    ASSERT_TRUE(Until([&] { return other->Over(); }));
    ASSERT_EQ(other->errors.size(), 1u);
    EXPECT_EQ(other->errors[0].code, POD_E_START);
    EXPECT_EQ(other->errors[0].detail, static_cast<uint64_t>(-PM_ERR_BUSY));
    EXPECT_EQ(Status(session).state, POD_SESSION_RUNNING); // The first one is not disturbed.
    // Nor is its log written to by others.
    EXPECT_EQ(contract::ReadFile(session->path + "/log").find("leaves"), std::string::npos);
}

TEST_F(Pod, AnOrphanEndsWhenItsTimeIsOver)
{
    Options options;
    options.orphan_s = 1;
    Session *session = Create("orphan", {"pod-deaf"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth.reset();
    EXPECT_TRUE(DaemonIsGone(session));
    bool claimed;
    Late late;
    ASSERT_EQ(late.Read(session, POD_FROM_KEPT, &claimed), PM_OK);
    EXPECT_EQ(late.exit.stop_action, PM_STOP_TERMINATE);
}

// A runner that crashes again and again comes and goes as a writer: that stops the clock, and does
// not turn it back.
TEST_F(Pod, WritersThatComeAndGoDoNotKeepAnOrphan)
{
    Options options;
    options.orphan_s = 2;
    Session *session = Create("kept", {"pod-deaf"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth.reset();
    uint64_t begin = uv_hrtime();
    int writers = 0;
    EXPECT_TRUE(contract::Eventually([&] {
        auto writer = Connect(session);
        if (writer == nullptr)
            return true; // It is gone.
        writer->Attach(POD_ROLE_WRITER, POD_FROM_NOW);
        EXPECT_TRUE(Until([&] { return writer->attached == 1 || writer->Over(); }));
        writers++;
        writer.reset();
        std::this_thread::sleep_for(std::chrono::milliseconds(50)); // Nobody is there for longer.
        return false;
    })) << contract::ReadFile(session->path + "/log");
    EXPECT_GT(writers, 5);
    EXPECT_GE(uv_hrtime() - begin, uint64_t{1900000000});
    EXPECT_TRUE(DaemonIsGone(session));
    bool claimed;
    Late late;
    ASSERT_EQ(late.Read(session, POD_FROM_KEPT, &claimed), PM_OK);
    EXPECT_EQ(late.exit.stop_action, PM_STOP_TERMINATE);
}

#ifndef _WIN32

TEST_F(Pod, TheChildHasNothingOfTheDaemons)
{
    Options options;
    options.env = {"SESSION_SECRET=hidden"};
    options.daemon_env = {"SESSION_SECRET=of-the-daemon"};
    Session *session = Create("census", {"pod-census"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_VIEWER, 0);
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    EXPECT_EQ(birth->Text(),
              "fds 0 1 2 pipe default hup default xfsz default term open secret hidden\n");
}

// A terminal that hangs up is what a shell hears.
TEST_F(Pod, StopOfATerminalReachesAShell)
{
    for (const char *command : {"", "/bin/bash"}) {
        Options options;
        options.mode = POD_MODE_PTY;
        options.command = command;
        if (*command != '\0' && access(command, X_OK) != 0)
            continue;
        Session *session = Create(std::string("shell") + (*command != '\0' ? "-bash" : ""),
                                  {"pod-shell"}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        birth->Attach(POD_ROLE_WRITER, 0);
        ASSERT_TRUE(Until([&] { return birth->attached == 1; }));
        if (*command != '\0')
            birth->Type("PS1=; echo rea''dy\r");
        ASSERT_TRUE(Until([&] { return birth->Text().find("ready\r\n") != std::string::npos; }))
            << birth->Text();
        birth->Ask(pod_client_stop(&birth->link->client, 3600000)); // Longer than we wait.
        ASSERT_TRUE(Until([&] { return birth->exits == 1; })) << birth->Text();
        EXPECT_EQ(birth->exit.stop_action, PM_STOP_TERMINATE);
        EXPECT_EQ(birth->exit.signal, 1u);
    }
}

// Who has a handler for SIGTERM alone is not killed by the hang-up in the middle of it.
TEST_F(Pod, StopOfATerminalLeavesTimeToWhoHearsSigterm)
{
    Options options;
    options.mode = POD_MODE_PTY;
    ASSERT_NE(Create("tidy", {"pod-tidy", "typed"}, options), nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    auto says = [&](const char *text) {
        return Until([&] { return birth->Text().find(text) != std::string::npos; });
    };
    ASSERT_TRUE(says("ready\n"));
    birth->Ask(pod_client_stop(&birth->link->client, 3600000));
    ASSERT_TRUE(says("tidying\n"));
    birth->Type("x");
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    EXPECT_EQ(birth->exit.kind, POD_EXIT_EXITED);
    EXPECT_EQ(birth->exit.code, 5u);
    // Half of the time is over: who needs a hang-up gets it.
    Session *session = Create("half", {"pod-tidy", "deaf"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    ASSERT_TRUE(says("ready\n"));
    birth->Ask(pod_client_stop(&birth->link->client, 2000));
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    EXPECT_EQ(birth->exit.signal, 1u);
    EXPECT_NE(birth->Text().find("tidying\n"), std::string::npos);
}

TEST_F(Pod, ATerminalThatNobodyHasOpenForAMomentGoesOn)
{
    for (const char *how : {"close", "hangup"}) {
#ifdef __linux__
        if (strcmp(how, "hangup") == 0 && geteuid() != 0)
            continue;
#else
        if (strcmp(how, "hangup") == 0)
            continue;
#endif
        Options options;
        options.mode = POD_MODE_PTY;
        for (const char *name : {"/closed", "/go-on"})
            remove((folder + name).c_str());
        Session *session = Create(how, {"pod-reopen", how}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        birth->Attach(POD_ROLE_WRITER, 0);
        ASSERT_TRUE(contract::Eventually([&] {
            Turn();
            return access((folder + "/closed").c_str(), F_OK) == 0;
        }));
        for (int i = 0; i < 3; i++) // It has seen that.
            EXPECT_EQ(Status(session).state, POD_SESSION_RUNNING);
        EXPECT_LE(birth->ends, 1u); // Of the second channel, which a terminal does not have.
        contract::WriteFile(folder + "/go-on", "");
        ASSERT_TRUE(Until([&] { return birth->Text().find("after") != std::string::npos; })) << how;
        birth->Type("x\r");
        ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
        EXPECT_NE(birth->Text().find("bye"), std::string::npos);
        EXPECT_EQ(birth->exit.code, 7u);
        EXPECT_EQ(birth->ends, 2u);
    }
}

#endif

TEST_F(Pod, SomebodyLeftBehindDelaysTheExitNoLongerThanTheDrainTime)
{
    Options options;
    options.drain_ms = 200;
    Session *session = Create("left", {"pod-leave", "4", "late"}, options);
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_VIEWER, 0);
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    EXPECT_EQ(birth->exit.code, 4u);
    uint64_t pid = std::stoull(birth->Text().substr(5));
    // What comes in the drain time is part of the output.
    EXPECT_NE(birth->Text().find("late"), std::string::npos);
    EXPECT_EQ(birth->exit.end[0], birth->received[0]);
    // And it lives on: nobody asked to end it.
    EXPECT_TRUE(contract::PidAlive(pid));
    contract::KillByNumber(pid);
}

TEST_F(Pod, StopEndsWhatTheChildLeftBehindToo)
{
    for (uint32_t mode : Modes()) {
        Options options;
        options.mode = mode;
        Session *session =
            Create("tree-" + std::to_string(mode), {"pod-leave", "stay", "now", "deaf"}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        birth->Attach(POD_ROLE_WRITER, 0);
        ASSERT_TRUE(Until([&] { return birth->Text().find('\n') != std::string::npos; }));
        uint64_t pid = std::stoull(birth->Text().substr(5));
        birth->Ask(pod_client_stop(&birth->link->client, 500));
        ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
        EXPECT_TRUE(contract::Eventually([&] { return !contract::PidAlive(pid); })) << mode;
        birth.reset();
        EXPECT_TRUE(DaemonIsGone(session));
    }
}

#ifdef __linux__
// setsid() alone leads nobody out of the tree of a stop; a double fork does: it makes a daemon.
TEST_F(Pod, StopAndKillReachWhoHasASessionOfItsOwn)
{
    for (uint32_t mode : Modes()) {
        for (const char *how : {"stop", "kill", "daemon"}) {
            Options options;
            options.mode = mode;
            Session *session =
                Create(std::string(how) + std::to_string(mode), {"pod-wander", how}, options);
            ASSERT_NE(session, nullptr) << birth_error.text;
            birth->Attach(POD_ROLE_WRITER, 0);
            uint64_t first = 0, second = 0;
            std::tie(first, second) = TheTwoThatLeft();
            ASSERT_NE(first, 0u);
            pod_client *client = &birth->link->client;
            birth->Ask(*how == 's' ? pod_client_stop(client, 300) : pod_client_kill(client));
            ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
            EXPECT_TRUE(contract::Eventually([&] { return !contract::PidAlive(first); })) << how;
            if (*how == 'd') {
                EXPECT_TRUE(contract::PidAlive(second));
            } else {
                EXPECT_TRUE(contract::Eventually([&] { return !contract::PidAlive(second); }));
            }
            for (uint64_t pid : {first, second}) {
                if (contract::PidAlive(pid))
                    contract::KillByNumber(pid);
            }
            EXPECT_NE(contract::ReadFile(session->path + "/log").find("tree held by its session"),
                      std::string::npos);
        }
    }
}

// Whoever makes children all the while that it is looked for is stopped first.
TEST_F(Pod, KillLeavesNobodyOfWhoMakesChildrenMeanwhile)
{
    std::string name = folder + "/fifo";
    ASSERT_EQ(mkfifo(name.c_str(), 0600), 0);
    int fd = open(name.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    Session *session = Create("breed", {"pod-breed", name});
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    ASSERT_TRUE(Until([&] { return birth->Text().find("breeds\n") != std::string::npos; }));
    birth->Ask(pod_client_kill(&birth->link->client));
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    char byte;
    EXPECT_TRUE(contract::Eventually([&] { return read(fd, &byte, 1) == 0; })); // Nobody has it.
    close(fd);
}

// They are wanted for the record, and for who still asks.
TEST_F(Pod, WhatIsHeldForAStopIsLetGoOfWhenTheChildHasEnded)
{
    Session *session = Create("reserve", {"pod-echo"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth->Attach(POD_ROLE_WRITER, 0);
    std::string fds = "/proc/" + std::to_string(Status(session).daemon_pid) + "/fd/";
    auto reserve = [&] {
        int count = 0;
        for (int i = 0; i < 256; i++) {
            char target[64] = "";
            bool is_open =
                readlink((fds + std::to_string(i)).c_str(), target, sizeof target - 1) > 0;
            count += is_open && strcmp(target, "/") == 0;
        }
        return count;
    };
    EXPECT_EQ(reserve(), 3);
    birth->Ask(pod_client_kill(&birth->link->client));
    ASSERT_TRUE(Until([&] { return birth->exits == 1; }));
    EXPECT_EQ(reserve(), 0);
}
#endif

TEST_F(Pod, ADaemonThatIsKilledLeavesNothingOfTheSessionBehind)
{
    for (uint32_t mode : Modes()) {
        Options options;
        options.mode = mode;
        Session *session =
            Create("dead-" + std::to_string(mode), {"pod-leave", "stay", "now", "deaf"}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        birth->Attach(POD_ROLE_WRITER, 0);
        ASSERT_TRUE(Until([&] { return birth->Text().find('\n') != std::string::npos; }));
        uint64_t pid = std::stoull(birth->Text().substr(5));
        contract::KillByNumber(pm_process_pid(session->daemon));
        EXPECT_TRUE(contract::Eventually([&] { return !contract::PidAlive(last_child); }));
        EXPECT_TRUE(contract::Eventually([&] { return !contract::PidAlive(pid); })) << mode;
        if (contract::PidAlive(pid))
            contract::KillByNumber(pid);
        ASSERT_TRUE(Until([&] { return birth->Over(); }));
        bool claimed;
        Late late;
        EXPECT_EQ(late.Read(session, 0, &claimed), PM_ERR_NOT_FOUND); // The holder died.
    }
}

#ifndef _WIN32

// A number behind a name in a file of /proc; -1: not there.
static long Proc(uint64_t pid, const char *file, const std::string &name)
{
    std::string text = contract::ReadFile("/proc/" + std::to_string(pid) + "/" + file);
    size_t at = text.find(name);
    return at == std::string::npos ? -1 : std::stol(text.substr(at + name.size()));
}

TEST_F(Pod, AnIdleDaemonIsOneThreadIsNeverWokenAndIsSmall)
{
#if !defined HAVE_PIDFD && !defined HAVE_KQUEUE
    GTEST_SKIP() << "without pidfd threads wait for the processes";
#endif
    for (uint32_t mode : Modes()) {
        Options options;
        options.mode = mode;
        Session *session = Create("idle-" + std::to_string(mode), {"pod-echo"}, options);
        ASSERT_NE(session, nullptr) << birth_error.text;
        birth->Attach(POD_ROLE_WRITER, 0);
        ASSERT_TRUE(Until([&] { return birth->Text().find("ready") != std::string::npos; }));
        uint64_t pid = pm_process_pid(session->daemon);
        if (Proc(pid, "status", "Threads:") < 0)
            GTEST_SKIP() << "no /proc to look into";
        EXPECT_EQ(Proc(pid, "status", "Threads:"), 1);
        long before = -1, after = -1;
        EXPECT_TRUE(contract::Eventually([&] { // What it had to do is done.
            before = Proc(pid, "status", "\nvoluntary_ctxt_switches:");
            usleep(200000);
            after = Proc(pid, "status", "\nvoluntary_ctxt_switches:");
            return before == after;
        })) << "it is woken in a rhythm";
        sleep(2);
        EXPECT_EQ(Proc(pid, "status", "\nvoluntary_ctxt_switches:"), after);
        EXPECT_TRUE(pm_process_alive(session->daemon));
        long dirty = Proc(pid, "smaps_rollup", "Private_Dirty:");
        printf("%s: private %ld KiB\n", session->id.c_str(), dirty);
        if (contract::Slowness() == 1) {
            EXPECT_LE(dirty, 344);
        }
    }
}

#endif

TEST_F(Pod, AskedToEndByTheSystemItEndsTheSessionInGoodOrder)
{
    Session *session = Create("term", {"pod-deaf"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    birth.reset();
    AskToEnd(session);
    EXPECT_TRUE(DaemonIsGone(session));
    bool claimed;
    Late late;
    EXPECT_EQ(late.Read(session, POD_FROM_KEPT, &claimed), PM_OK);
    EXPECT_EQ(late.exit.stop_action, PM_STOP_TERMINATE);
}

#ifndef _WIN32

TEST_F(Pod, ASocketThatVanishedIsMadeAnewAfterOneSignal)
{
    Session *session = Create("vanished", {"pod-echo"});
    ASSERT_NE(session, nullptr) << birth_error.text;
    ASSERT_EQ(pod_file_remove(&session->dir, "s"), PM_OK);
    pm_native native;
    EXPECT_EQ(pod_connect(&session->dir, session->id.c_str(), &native), PM_ERR_NOT_FOUND);
    ASSERT_EQ(pm_process_signal(session->daemon, SIGUSR1, PM_SCOPE_PROCESS), PM_OK);
    EXPECT_TRUE(contract::Eventually([&] {
        int result = pod_connect(&session->dir, session->id.c_str(), &native);
        if (result == PM_OK)
            pod_connection_close(native);
        return result == PM_OK;
    }));
    EXPECT_EQ(Status(session).state, POD_SESSION_RUNNING);
}

#endif

#ifdef _WIN32

struct Crash {
    std::string told;
    void *code; // Where a thread of it begins.
    DWORD exit_code;
};

static std::vector<Crash> Crashes()
{
    void *abort_code =
        reinterpret_cast<void *>(GetProcAddress(GetModuleHandleA("msvcrt.dll"), "abort"));
    return {{"exception 0x00000000c0000005", reinterpret_cast<void *>(16), 0xc0000005},
            {"abort", abort_code, 3}};
}

// Its end is that of a crash that nobody has caught.
static void Make(const Crash &crash, const Session *session)
{
    auto pid = static_cast<DWORD>(pm_process_pid(session->daemon));
    DWORD code = 0;
    HANDLE daemon = OpenProcess(PROCESS_ALL_ACCESS, FALSE, pid);
    ASSERT_NE(daemon, nullptr);
    HANDLE thread =
        CreateRemoteThread(daemon, nullptr, 0, reinterpret_cast<LPTHREAD_START_ROUTINE>(crash.code),
                           nullptr, 0, nullptr);
    EXPECT_NE(thread, nullptr);
    EXPECT_EQ(WaitForSingleObject(daemon, 10000), WAIT_OBJECT_0);
    EXPECT_TRUE(GetExitCodeProcess(daemon, &code));
    EXPECT_EQ(code, crash.exit_code);
    CloseHandle(thread);
    CloseHandle(daemon);
}

#else

struct Crash {
    std::string told;
    int number;
};

static std::vector<Crash> Crashes()
{
    return {{"SIGSEGV", SIGSEGV}, {"SIGABRT", SIGABRT}};
}

static void Make(const Crash &crash, const Session *session)
{
    ASSERT_EQ(pm_process_signal(session->daemon, crash.number, PM_SCOPE_PROCESS), PM_OK);
}

#endif

TEST_F(Pod, ACrashLeavesATraceAndTheLastEvents)
{
    for (const Crash &crash : Crashes()) {
        Session *session = Create("crash of " + crash.told, {"pod-deaf"});
        ASSERT_NE(session, nullptr) << birth_error.text;
        Make(crash, session);
        birth.reset();
        EXPECT_TRUE(contract::Eventually([&] { return !pm_process_alive(session->daemon); }));
        std::string log = contract::ReadFile(session->path + "/log");
        EXPECT_NE(log.find("crash: " + crash.told), std::string::npos) << log;
        size_t trace = log.find("last events:");
        ASSERT_NE(trace, std::string::npos);
        EXPECT_NE(log.find("started: process", trace), std::string::npos);
        EXPECT_NE(log.find("stack,", trace), std::string::npos);
        EXPECT_NE(log.find("end of crash", trace), std::string::npos);
        EXPECT_TRUE(contract::Eventually([&] { return !contract::PidAlive(last_child); }));
    }
}

} // namespace pod
