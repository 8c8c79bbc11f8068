// A manager that has its process to itself: orphans, and trees that nobody leaves.

#include "fixture.h"

#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <poll.h>
#include <set>
#include <sstream>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <thread>
#include <unistd.h>

using namespace contract;

namespace
{

// ------------------------------------------------------------------------------------------------
// Roles
// ------------------------------------------------------------------------------------------------

void SayNumber(const char *what, long number)
{
    char line[64];
    int length = snprintf(line, sizeof line, "%s %ld\n", what, number);
    (void)!write(STDOUT_FILENO, line, static_cast<size_t>(length));
}

// A child that leaves session, group and parent in its first microsecond, and what it leaves.
void Escape(bool deaf)
{
    pid_t child = fork();
    if (child == 0) {
        setsid();
        pid_t escaped = fork();
        if (escaped != 0) {
            _exit(0);
        }
        if (deaf) {
            signal(SIGTERM, SIG_IGN);
        }
        SayNumber("escaped", getpid());
        alarm(120);
        for (;;) {
            pause();
        }
    }
    while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
    }
}

// args: how many escape, "stays" or "goes" or "sleeps" (which hears no SIGTERM), "deaf" or not.
int EscaperRole(const std::vector<std::string> &args)
{
    for (int i = 0; i < atoi(args.at(0).c_str()); i++) {
        Escape(args.size() > 2);
    }
    if (args.at(1) == "goes") {
        return 0;
    }
    SayNumber("stays", getpid());
    alarm(120);
    for (;;) {
        pause();
    }
}

// One after the other: each makes the next and is gone. Their end is the end of stdout.
int CometRole(const std::vector<std::string> &)
{
    signal(SIGTERM, SIG_IGN);
    SayNumber("flies", getpid());
    alarm(60);
    time_t until = time(nullptr) + 60;
    while (time(nullptr) < until) {
        pid_t next = fork();
        if (next > 0) {
            _exit(0);
        }
        setsid();
    }
    return 0;
}

// Forks as fast as it can, and so does each of those. args: how many forks in all. Theirs is one
// count: a stop that comes late must not find the system without a number for anybody.
int BombRole(const std::vector<std::string> &args)
{
    signal(SIGTERM, SIG_IGN);
    signal(SIGCHLD, SIG_IGN);
    void *memory = mmap(nullptr, sizeof(std::atomic<int>), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        return 1;
    }
    auto *left = new (memory) std::atomic<int>(atoi(args.at(0).c_str()));
    SayNumber("bombs", getpid());
    alarm(60);
    while ((*left)-- > 0) {
        if (fork() == 0) {
            setsid();
            alarm(60);
            SayNumber("bombs", getpid());
        }
    }
    for (;;) {
        pause();
    }
}

// Orphans that end by themselves. args: how many.
int OrphanMakerRole(const std::vector<std::string> &args)
{
    for (int i = 0; i < atoi(args.at(0).c_str()); i++) {
        pid_t child = fork();
        if (child == 0) {
            if (i % 2 != 0) {
                setsid();
            }
            pid_t orphan = fork();
            if (orphan == 0) {
                setsid();
                usleep(static_cast<useconds_t>(i % 5 * 1000));
            }
            _exit(0);
        }
        waitpid(child, nullptr, 0);
    }
    SayNumber("made", atoi(args.at(0).c_str()));
    alarm(120);
    for (;;) {
        pause();
    }
}

pm_manager *OpenOwn(pm_error *error)
{
    pm_options options = PM_OPTIONS_INIT;
    options.own_process = true;
    pm_manager *manager = nullptr;
    return pm_open(&options, &manager, error) == PM_OK ? manager : nullptr;
}

// A manager of its own with an escaper. args: "dies" for die_with_parent, else "".
int OwnerRole(const std::vector<std::string> &args)
{
    pm_error error = PM_ERROR_INIT;
    pm_manager *manager = OpenOwn(&error);
    Child child({"escaper", "2", "stays"});
    child->die_with_parent = args.at(0) == "dies";
    if (manager == nullptr || pm_spawn(manager, child.Get(), nullptr, &error) != PM_OK) {
        printf("%s\n", ErrorText(error).c_str());
        return 1;
    }
    SayNumber("owner", getpid());
    alarm(120);
    for (;;) {
        pause();
    }
}

const RoleAdder escaper("escaper", EscaperRole);
const RoleAdder comet("comet", CometRole);
const RoleAdder bomb("bomb", BombRole);
const RoleAdder orphan_maker("orphan-maker", OrphanMakerRole);
const RoleAdder own_process("owner", OwnerRole);

// ------------------------------------------------------------------------------------------------
// Fixture
// ------------------------------------------------------------------------------------------------

bool IsReaper()
{
    int on = 0;
    return prctl(PR_GET_CHILD_SUBREAPER, &on) == 0 && on != 0;
}

// Children of this process by their numbers.
std::set<uint64_t> Children()
{
    std::set<uint64_t> all;
    for (const auto &thread : ListFolder("/proc/self/task")) {
        std::istringstream children(ReadFile("/proc/self/task/" + thread + "/children"));
        for (uint64_t pid; children >> pid;) {
            all.insert(pid);
        }
    }
    return all;
}

// The dead ones.
std::set<uint64_t> Zombies()
{
    std::set<uint64_t> zombies;
    for (uint64_t pid : Children()) {
        std::string stat = ReadFile("/proc/" + std::to_string(pid) + "/stat");
        size_t at = stat.rfind(')');
        if (at != std::string::npos && stat.size() > at + 2 && stat[at + 2] == 'Z') {
            zombies.insert(pid);
        }
    }
    return zombies;
}

class Subreaper : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        if (OnEmulator())
            GTEST_SKIP() << "nobody can become a subreaper here";
    }

    // Where the host has asked for no statuses, nobody leaves one to take.
    uint64_t Counted(uint64_t all) const
    {
        return HostGetsNoStatuses() ? 0 : all;
    }

    void OpenOwn(pm_options options = DefaultOptions(), bool registry = false)
    {
        options.own_process = true;
        options.drain_ms = 120000; // A leader that goes may do so before what it leaves has spoken.
        Open(options, registry);
    }

    static void Prepare(Child &child)
    {
        child->stdout_slot.kind = PM_STDIO_PIPE;
        child->containment = PM_CONTAIN_SUBREAPER;
    }

    pm_process *SpawnHeld(Child &child)
    {
        Prepare(child);
        return Spawn(child);
    }

    // Numbers of `count` lines that begin with the word.
    static std::vector<uint64_t> Numbers(pm_process *process, const std::string &word, size_t count)
    {
        std::vector<uint64_t> numbers;
        for (size_t lines = 0; numbers.size() < count && lines < count + 10; lines++) {
            std::string line = ReadLine(process);
            if (line.compare(0, word.size(), word) == 0) {
                numbers.push_back(NumberAfter(line, word + " "));
            }
        }
        EXPECT_EQ(count, numbers.size());
        numbers.resize(count);
        return numbers;
    }

    static pm_stop_report StopNow(pm_process *process)
    {
        pm_stop_plan plan = {};
        plan.steps_count = 1;
        plan.steps[0] = {PM_STOP_KILL, PM_SCOPE_TREE, static_cast<uint32_t>(Patience())};
        pm_stop_report report = PM_STOP_REPORT_INIT;
        EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, &report));
        EXPECT_FALSE(report.tree_left);
        return report;
    }

    static enum pm_containment Containment(pm_process *process)
    {
        pm_info info = PM_INFO_INIT;
        EXPECT_EQ(PM_OK, pm_process_info(process, &info));
        return info.containment;
    }

    void Let(pm_process *process)
    {
        held.pop_back();
        (void)pm_process_unref(process);
    }
};

// ------------------------------------------------------------------------------------------------
// Trees
// ------------------------------------------------------------------------------------------------

TEST_F(Subreaper, WhoEscapesInItsFirstMicrosecondIsGoneAfterAStop)
{
    OpenOwn();
    for (int round = 0; round < 200; round++) {
        bool stays = round % 2 == 0, waits = round % 4 < 2;
        Child child({"escaper", "2", stays ? "stays" : "goes"});
        pm_process *process = SpawnHeld(child);
        ASSERT_EQ(PM_CONTAIN_SUBREAPER, Containment(process));
        auto escaped = Numbers(process, "escaped", 2);
        if (!stays && waits) {
            (void)Wait(process);
        }
        pm_stop_report report = PM_STOP_REPORT_INIT;
        ASSERT_EQ(PM_OK, round % 3 == 0 ? pm_process_stop(process, nullptr, &report)
                                        : (report = StopNow(process)).result);
        EXPECT_FALSE(report.tree_left);
        for (uint64_t pid : escaped) {
            ASSERT_FALSE(PidAlive(pid)) << "round " << round;
        }
        Let(process);
    }
    EXPECT_LE(Counted(400),
              Stats().orphans_reaped); // And those whom a killed parent had not waited for.
    EXPECT_EQ(0u, Zombies().size());
}

// As soon as it lives: what is just forking, or between two parents, is not missed either.
TEST_F(Subreaper, AStopAtAnyInstantLeavesNobody)
{
    OpenOwn();
    for (int round = 0; round < 200; round++) {
        Child child({"escaper", "50", round % 2 == 0 ? "stays" : "goes"});
        pm_process *process = SpawnHeld(child);
        (void)ReadLine(process);
        std::this_thread::sleep_for(std::chrono::microseconds(round * 20));
        (void)StopNow(process);
        // The end of the last one who has it open.
        (void)ReadAll(process);
        pm_exit record = PM_EXIT_INIT;
        ASSERT_EQ(PM_OK, pm_process_wait(process, 0, &record));
        EXPECT_FALSE(record.stdout_truncated) << "round " << round;
        Let(process);
    }
}

TEST_F(Subreaper, AStopOfOneTreeLeavesTheOtherUntouched)
{
    OpenOwn();
    for (int round = 0; round < 20; round++) {
        Child first({"escaper", "3", "goes"}), second({"escaper", "3", "goes"});
        pm_process *a = SpawnHeld(first), *b = SpawnHeld(second);
        auto of_a = Numbers(a, "escaped", 3), of_b = Numbers(b, "escaped", 3);
        pid_t own = fork(); // The host's own, which has left everything as well.
        if (own == 0) {
            setsid();
            for (;;) {
                pause();
            }
        }
        (void)StopNow(a);
        for (uint64_t pid : of_a) {
            EXPECT_FALSE(PidAlive(pid));
        }
        for (uint64_t pid : of_b) {
            EXPECT_TRUE(PidAlive(pid));
        }
        EXPECT_TRUE(PidAlive(static_cast<uint64_t>(own)));
        (void)StopNow(b);
        for (uint64_t pid : of_b) {
            EXPECT_FALSE(PidAlive(pid));
        }
        EXPECT_TRUE(PidAlive(static_cast<uint64_t>(own)));
        EXPECT_EQ(0, kill(own, SIGKILL));
        int status = 0;
        if (!HostGetsNoStatuses()) {
            EXPECT_EQ(own, waitpid(own, &status, 0));
            EXPECT_TRUE(WIFSIGNALED(status));
        }
    }
}

TEST_F(Subreaper, ADefaultStopIsHeardByEverybodyAndKillsTheDeaf)
{
    OpenOwn();
    Child child({"escaper", "3", "stays", "deaf"});
    child->stop.steps_count = 2;
    child->stop.steps[0] = {PM_STOP_TERMINATE, PM_SCOPE_TREE, 300};
    child->stop.steps[1] = {PM_STOP_KILL, PM_SCOPE_TREE, static_cast<uint32_t>(Patience())};
    pm_process *process = SpawnHeld(child);
    auto escaped = Numbers(process, "escaped", 3);
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, &report));
    EXPECT_EQ(1u, report.ended_by); // The leader; the step goes on for the tree.
    EXPECT_EQ(2u, report.steps_tried);
    for (uint64_t pid : escaped) {
        EXPECT_FALSE(PidAlive(pid));
    }
}

TEST_F(Subreaper, WhoFliesFromParentToParentIsCaught)
{
    OpenOwn();
    for (int round = 0; round < 20; round++) {
        Child child({"comet"});
        pm_process *process = SpawnHeld(child);
        (void)Numbers(process, "flies", 1);
        (void)StopNow(process);
        EXPECT_EQ("", ReadAll(process));
        pm_exit record = Wait(process);
        EXPECT_FALSE(record.stdout_truncated);
        Let(process);
    }
}

TEST_F(Subreaper, AForkBombIsPutOut)
{
    OpenOwn();
    Child child({"bomb", "2000"});
    pm_process *process = SpawnHeld(child);
    (void)Numbers(process, "bombs", 100);
    (void)StopNow(process);
    (void)ReadAll(process);
    EXPECT_FALSE(Wait(process).stdout_truncated);
    EXPECT_TRUE(Eventually([&] { return (void)Stats(), Zombies().empty(); }));
}

TEST_F(Subreaper, ATerminalsTreeAndTheHostsGroupAreHeldAsWell)
{
    OpenOwn();
    Child shared({"escaper", "2", "stays"});
    shared->group = PM_GROUP_HOST;
    pm_process *process = SpawnHeld(shared);
    auto escaped = Numbers(process, "escaped", 2);
    (void)StopNow(process);
    for (uint64_t pid : escaped) {
        EXPECT_FALSE(PidAlive(pid));
    }
    Child terminal({"escaper", "2", "stays"});
    terminal->mode = PM_MODE_PTY;
    terminal->containment = PM_CONTAIN_SUBREAPER;
    terminal->stdin_slot.kind = PM_STDIO_DEFAULT;
    process = Spawn(terminal);
    escaped = Numbers(process, "escaped", 2);
    (void)StopNow(process);
    for (uint64_t pid : escaped) {
        EXPECT_FALSE(PidAlive(pid));
    }
}

TEST_F(Subreaper, ANaturalEndLeavesDescendantsAloneUnlessAskedNotTo)
{
    OpenOwn();
    Child leaves({"escaper", "1", "goes"}), takes({"escaper", "1", "stays"});
    pm_process *process = SpawnHeld(leaves);
    uint64_t left = Numbers(process, "escaped", 1).front();
    (void)Wait(process);
    takes->kill_tree_on_exit = true;
    pm_process *taker = SpawnHeld(takes);
    uint64_t taken = Numbers(taker, "escaped", 1).front();
    EXPECT_EQ(PM_OK, pm_process_signal(taker, SIGKILL, PM_SCOPE_PROCESS));
    (void)Wait(taker);
    EXPECT_TRUE(Eventually([&] { return !PidAlive(taken); }));
    EXPECT_TRUE(PidAlive(left));
    (void)StopNow(process);
    EXPECT_FALSE(PidAlive(left));
}

TEST_F(Subreaper, StopAllAndCloseEmptyTheTrees)
{
    OpenOwn();
    std::vector<uint64_t> all;
    for (int i = 0; i < 10; i++) {
        Child child({"escaper", "2", "stays"});
        for (uint64_t pid : Numbers(SpawnHeld(child), "escaped", 2)) {
            all.push_back(pid);
        }
    }
    EXPECT_EQ(PM_OK, Close());
    for (uint64_t pid : all) {
        EXPECT_FALSE(PidAlive(pid));
    }
}

// A manager in the tree of another: its escapers are in both, and come to the outer one when it is
// killed.
TEST_F(Subreaper, ATreeInATreeIsOfBoth)
{
    OpenOwn();
    for (int round = 0; round < 10; round++) {
        Child child({"owner", ""});
        pm_process *process = SpawnHeld(child);
        std::set<uint64_t> escaped;
        uint64_t owner = 0;
        for (int i = 0; i < 4; i++) {
            std::string line = ReadLine(process);
            if (line.compare(0, 7, "escaped") == 0) {
                escaped.insert(NumberAfter(line, "escaped "));
            } else if (line.compare(0, 5, "owner") == 0) {
                owner = NumberAfter(line, "owner ");
            }
        }
        ASSERT_EQ(2u, escaped.size());
        if (round % 2 == 0) {
            KillByNumber(owner);
            (void)Wait(process);
        }
        (void)StopNow(process);
        for (uint64_t pid : escaped) {
            EXPECT_FALSE(PidAlive(pid)) << round;
        }
        Let(process);
    }
}

TEST_F(Subreaper, DieWithParentReachesWhoEscaped)
{
    Open();
    Child child({"owner", "dies"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    auto escaped = Numbers(process, "escaped", 2);
    uint64_t owner = pm_process_pid(process);
    KillByNumber(owner);
    (void)Wait(process);
    for (uint64_t pid : escaped) {
        EXPECT_TRUE(Eventually([&] { return !PidAlive(pid); }));
    }
}

// ------------------------------------------------------------------------------------------------
// Orphans
// ------------------------------------------------------------------------------------------------

TEST_F(Subreaper, OrphansAreWaitedForAndCounted)
{
    const unsigned count = 60;
    OpenOwn();
    Child child({"orphan-maker", std::to_string(count)});
    pm_process *process = SpawnHeld(child);
    std::set<uint64_t> before;
    std::thread watcher(
        [&] { // None stays: not longer than the rhythm, with room for a slow machine.
            for (int i = 0; i < 3; i++) {
                std::set<uint64_t> now = Zombies();
                std::this_thread::sleep_for(std::chrono::milliseconds(400 * Slowness()));
                for (uint64_t pid : Zombies()) {
                    EXPECT_EQ(0u, now.count(pid)) << pid << " stays a zombie";
                }
            }
        });
    EXPECT_EQ("made " + std::to_string(count), ReadLine(process));
    watcher.join();
    EXPECT_TRUE(Eventually([&] { return Stats().orphans_reaped == Counted(count); }));
    uint64_t found = 1;
    EXPECT_EQ(PM_OK, pm_leak_scan(manager, nullptr));
    EXPECT_EQ(PM_OK, pm_leak_scan(manager, &found));
    EXPECT_EQ(0u, found);
    EXPECT_EQ(0u, Stats().leaked_total);
    (void)StopNow(process);
    EXPECT_EQ(Counted(count), Stats().orphans_reaped);
}

TEST_F(Subreaper, WhatAnEndedProcessLeftIsStillWaitedFor)
{
    OpenOwn();
    Child child({"escaper", "1", "goes"});
    pm_process *process = SpawnHeld(child);
    uint64_t escaped = Numbers(process, "escaped", 1).front();
    (void)Wait(process);
    Let(process);
    EXPECT_EQ(0u, Stats().orphans_reaped);
    KillByNumber(escaped);
    EXPECT_TRUE(Eventually([&] { return Zombies().empty(); }));
    EXPECT_EQ(Counted(1), Stats().orphans_reaped);
}

TEST_F(Subreaper, TheCallersLoopIsToldWhenToLook)
{
    pm_options options = DefaultOptions();
    options.loop = PM_LOOP_CALLER;
    OpenOwn(options);
    Child child({"orphan-maker", "5"});
    pm_process *process = SpawnHeld(child);
    EXPECT_EQ("made 5", ReadLine(process));
    int64_t rest = PM_FOREVER;
    EXPECT_EQ(PM_OK, pm_loop_timeout(manager, &rest));
    EXPECT_NE(PM_FOREVER, rest);
    EXPECT_TRUE(Eventually([&] { // Only the process itself is left.
        EXPECT_LE(0, pm_dispatch(manager));
        return Children().size() == 1;
    }));
    EXPECT_EQ(Counted(5), Stats().orphans_reaped);
    (void)StopNow(process);
}

// While orphans come and go.
TEST_F(Subreaper, TheHostsOwnChildrenKeepTheirStatuses)
{
    if (HostGetsNoStatuses()) {
        GTEST_SKIP() << "the host has asked for no statuses";
    }
    if (system("exit 0") != 0) { // NOLINT
        GTEST_SKIP() << "the C library cannot start anything here";
    }
    OpenOwn();
    Child child({"orphan-maker", "300"});
    (void)SpawnHeld(child);
    std::vector<pid_t> forked;
    for (int i = 0; i < 60; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            if (i % 3 != 0) {
                setsid(); // Looks like somebody who has escaped.
            }
            if (i % 3 == 2 && fork() != 0) {
                _exit(i);
            }
            _exit(i);
        }
        forked.push_back(pid);
        EXPECT_EQ(3 << 8, system("exit 3")); // NOLINT: that is what is tested.
        FILE *pipe = popen("exit 4", "r");   // NOLINT
        ASSERT_NE(nullptr, pipe);
        EXPECT_EQ(4 << 8, pclose(pipe));
        uint64_t ignored;
        EXPECT_EQ(PM_OK, pm_leak_scan(manager, &ignored));
    }
    for (size_t i = 0; i < forked.size(); i++) {
        int status = 0;
        ASSERT_EQ(forked[i], waitpid(forked[i], &status, 0)) << i;
        EXPECT_EQ(static_cast<int>(i) << 8, status);
    }
    EXPECT_TRUE(Eventually([&] { return Stats().orphans_reaped == 300; }));
    // The host's own orphans are in doubt, and the host's.
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
        if (Zombies().empty()) {
            break;
        }
    }
}

TEST_F(Subreaper, AHandlesStatusIsTheHandlesAlone)
{
    OpenOwn();
    std::vector<pm_process *> all;
    for (int i = 0; i < 100; i++) {
        Child child({"exit", "7"});
        all.push_back(Spawn(child));
        EXPECT_EQ(PM_OK, pm_leak_scan(manager, nullptr));
    }
    for (pm_process *process : all) {
        pm_exit record = Wait(process);
        EXPECT_EQ(PM_EXIT_EXITED, record.kind);
        EXPECT_EQ(7u, record.code);
    }
    EXPECT_EQ(0u, Stats().orphans_reaped);
}

TEST_F(Subreaper, ADaemonIsOfNoTreeAndItsStatusIsItsHandles)
{
    OpenOwn(DefaultOptions(), true);
    Child daemon({"escaper", "1", "stays"});
    daemon->mode = PM_MODE_DAEMON;
    daemon->key = "escaper";
    daemon->containment = PM_CONTAIN_SUBREAPER;
    int code = PM_OK;
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(nullptr, TrySpawn(daemon, &code, &error));
    EXPECT_EQ(PM_ERR_UNSUPPORTED, code);
    EXPECT_STREQ("containment", error.field);
    Child sleeper({"sleep"});
    sleeper->mode = PM_MODE_DAEMON;
    sleeper->key = "sleeper";
    pm_process *process = Spawn(sleeper);
    pm_info info = PM_INFO_INIT;
    EXPECT_EQ(PM_OK, pm_process_info(process, &info));
    EXPECT_TRUE(info.adopted);
    EXPECT_EQ(PM_OK, pm_stop_all(manager, 1000, nullptr, nullptr, nullptr));
    EXPECT_TRUE(pm_process_alive(process));
    KillByNumber(info.pid);
    pm_exit record = Wait(process);
    EXPECT_EQ(PM_EXIT_SIGNALED, record.kind);
    EXPECT_EQ(SIGKILL, record.signal);
    EXPECT_EQ(0u, Stats().orphans_reaped);
}

// ------------------------------------------------------------------------------------------------
// The manager
// ------------------------------------------------------------------------------------------------

TEST_F(Subreaper, TheBitIsGivenBackAsItWas)
{
    bool before = IsReaper();
    OpenOwn();
    EXPECT_TRUE(IsReaper());
    pm_options options = DefaultOptions();
    pm_manager *second = nullptr;
    pm_error error = PM_ERROR_INIT;
    options.own_process = true;
    EXPECT_EQ(PM_ERR_BUSY, pm_open(&options, &second, &error));
    EXPECT_STREQ("own_process", error.field);
    options.own_process = false;
    EXPECT_EQ(PM_OK, pm_open(&options, &second, &error)); // Its trees are no less than they were.
    Child child({"sleep"});
    Prepare(child);
    EXPECT_EQ(PM_ERR_UNSUPPORTED, pm_spawn(second, child.Get(), nullptr, &error));
    EXPECT_STREQ("containment", error.field);
    EXPECT_EQ(PM_OK, pm_close(second, 1000, nullptr));
    EXPECT_TRUE(IsReaper());
    EXPECT_EQ(PM_OK, Close());
    EXPECT_EQ(before, IsReaper());
    ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
    OpenOwn();
    EXPECT_EQ(PM_OK, Close());
    EXPECT_TRUE(IsReaper());
    ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, before ? 1 : 0));
}

TEST_F(Subreaper, TheLimitThatTreesAreKnownByIsNotTheCallersToSet)
{
    OpenOwn();
    pm_rlimit limit = {RLIMIT_LOCKS, 5, 5};
    Child child({"sleep"});
    child->rlimits = &limit;
    child->rlimits_count = 1;
    int code = PM_OK;
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(nullptr, TrySpawn(child, &code, &error));
    EXPECT_EQ(PM_ERR_UNSUPPORTED, code);
    EXPECT_STREQ("rlimits", error.field);
    struct rlimit own = {};
    EXPECT_EQ(0, getrlimit(RLIMIT_LOCKS, &own));
    EXPECT_EQ(RLIM_INFINITY, own.rlim_cur); // The host's stays.
}

TEST_F(Subreaper, AStoppedChildIsAnEventAndAState)
{
    struct Seen {
        std::atomic<int> stopped{0}, continued{0};
    } seen;
    pm_options options = DefaultOptions();
    options.stop_watch_ms = 20;
    options.user = &seen;
    options.event = [](void *user, const pm_event *event) {
        auto *told = static_cast<Seen *>(user);
        told->stopped += event->kind == PM_EVENT_STOPPED;
        told->continued += event->kind == PM_EVENT_CONTINUED;
    };
    OpenOwn(options);
    Child child({"escaper", "1", "stays"});
    pm_process *process = SpawnHeld(child);
    (void)Numbers(process, "stays", 1);
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGTSTP, PM_SCOPE_PROCESS));
    EXPECT_TRUE(Eventually([&] { return seen.stopped == 1; }));
    pm_info info = PM_INFO_INIT;
    EXPECT_EQ(PM_OK, pm_process_info(process, &info));
    EXPECT_EQ(PM_STATE_STOPPED, info.state);
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGCONT, PM_SCOPE_TREE));
    EXPECT_TRUE(Eventually([&] { return seen.continued == 1; }));
    (void)StopNow(process);
    EXPECT_EQ(PM_OK, Close()); // Before what the events point at is gone.
}

TEST_F(Subreaper, ASignalToTheTreeReachesWhoEscaped)
{
    OpenOwn();
    Child child({"escaper", "3", "goes"});
    pm_process *process = SpawnHeld(child);
    auto escaped = Numbers(process, "escaped", 3);
    (void)Wait(process);
    EXPECT_EQ(PM_OK, pm_process_signal(process, 0, PM_SCOPE_TREE));
    EXPECT_EQ(PM_ERR_GONE, pm_process_signal(process, SIGKILL, PM_SCOPE_GROUP));
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGTERM, PM_SCOPE_TREE));
    for (uint64_t pid : escaped) {
        EXPECT_TRUE(Eventually([&] { return !PidAlive(pid); }));
    }
    EXPECT_TRUE(
        Eventually([&] { return pm_process_signal(process, 0, PM_SCOPE_TREE) == PM_ERR_GONE; }));
    EXPECT_EQ(PM_ERR_GONE, pm_process_signal(process, SIGTERM, PM_SCOPE_TREE));
}

} // namespace
