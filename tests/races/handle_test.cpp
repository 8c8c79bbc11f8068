// One Handle, or a thousand, and everything at once.

#include "races.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstring>
#include <random>
#include <thread>

#include <sys/wait.h>
#include <unistd.h>

using namespace contract;
using namespace races;

namespace
{

// What the tree of a child is, and so how the members are found.
enum Tree {
    kGroup,
    kSession,
    kTerminal
};

class AtOnce : public Races
{
  protected:
    void TakeOneGrace(Tree tree);
    void StopTogether(Tree tree, int children);
};

const pm_stop_plan kill_now = {1, {{PM_STOP_KILL, PM_SCOPE_TREE, 30000}}};

void CountExit(pm_process *, const pm_exit *, void *user)
{
    ++*static_cast<std::atomic<int> *>(user);
}

// One child that four threads handle at once; each has a reference of its own.
struct Shared {
    pm_process *process = nullptr;
    int stop_result = 0, wait_results[2] = {0, 0};
    pm_stop_report report = {};
    pm_exit records[2] = {};
    bool done = false;
};

void StopIt(Shared &s, unsigned random)
{
    // About as long as the child lives; the instant is random on purpose.
    std::this_thread::sleep_for(std::chrono::microseconds(random % 1500));
    const auto limit = static_cast<uint32_t>(Patience());
    pm_stop_plan plan = {1, {{PM_STOP_KILL, PM_SCOPE_TREE, limit}}};
    s.report = PM_STOP_REPORT_INIT;
    s.stop_result = pm_process_stop(s.process, &plan, &s.report);
}

void AwaitIt(Shared &s, unsigned)
{
    s.records[0] = PM_EXIT_INIT;
    s.wait_results[0] = pm_process_wait(s.process, Patience(), &s.records[0]);
}

// The child ends by itself once its input is at the end.
void LetItExit(Shared &s, unsigned random)
{
    if (random % 3 != 0) {
        pm_stream_close(pm_process_stream(s.process, PM_STDIN));
    }
    s.records[1] = PM_EXIT_INIT;
    s.wait_results[1] = pm_process_wait(s.process, Patience(), &s.records[1]);
}

void LetGoOfIt(Shared &s, unsigned random)
{
    pm_info info = PM_INFO_INIT;
    if (random % 2 != 0) {
        EXPECT_EQ(PM_OK, pm_process_info(s.process, &info));
        (void)pm_process_signal(s.process, 0, PM_SCOPE_GROUP);
        (void)pm_process_alive(s.process);
    }
}

TEST_F(AtOnce, StopExitWaitAndUnrefOfOneChildGiveOneRecord)
{
    const int rounds = Rounds(100000, 2000);
    const std::vector<void (*)(Shared &, unsigned)> parts = {StopIt, AwaitIt, LetItExit, LetGoOfIt};
    Open();
    Shared shared;
    Meeting meeting(static_cast<int>(parts.size()) + 1);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < parts.size(); i++) {
        threads.emplace_back([&, i] {
            std::mt19937 random(static_cast<unsigned>(i));
            for (;;) {
                meeting.Meet();
                if (shared.done) {
                    return;
                }
                parts[i](shared, static_cast<unsigned>(random()));
                pm_process_unref(shared.process);
                meeting.Meet();
            }
        });
    }
    std::vector<std::atomic<int>> told(static_cast<size_t>(rounds));
    int exited = 0, round = 0;
    for (; round < rounds && !HasFailure(); round++) {
        Cheap child("read line; exit 7");
        child->stdin_slot.kind = PM_STDIO_PIPE;
        child->user = &told[static_cast<size_t>(round)];
        child->on_exit = CountExit;
        shared = Shared();
        pm_error error = PM_ERROR_INIT;
        int code = pm_spawn(manager, child.Get(), &shared.process, &error);
        EXPECT_EQ(PM_OK, code) << "round " << round << ": " << ErrorText(error);
        if (code != PM_OK) {
            break;
        }
        for (size_t i = 1; i < parts.size(); i++) {
            pm_process_ref(shared.process);
        }
        uint64_t pid = pm_process_pid(shared.process);
        meeting.Meet();
        meeting.Meet();
        EXPECT_EQ(PM_OK, shared.stop_result) << "round " << round << ", pid " << pid;
        EXPECT_LT(shared.report.elapsed_ms, Patience())
            << "round " << round << ": slept over its end";
        for (int i = 0; i < 2; i++) {
            EXPECT_EQ(PM_OK, shared.wait_results[i]) << "round " << round << ", pid " << pid;
        }
        const pm_exit &record = shared.records[0];
        EXPECT_EQ(0, memcmp(&record, &shared.records[1], sizeof record)) << "round " << round;
        if (record.kind == PM_EXIT_EXITED) {
            EXPECT_EQ(7u, record.code) << "round " << round;
            exited++;
        } else {
            EXPECT_EQ(PM_EXIT_SIGNALED, record.kind) << "round " << round;
            EXPECT_EQ(SIGKILL, record.signal) << "round " << round;
            EXPECT_EQ(1u, record.stop_step) << "round " << round;
        }
    }
    shared.done = true;
    meeting.Meet();
    for (auto &thread : threads) {
        thread.join();
    }
    RecordProperty("exited", exited);
    struct pm_stats stats = Stats();
    EXPECT_EQ(static_cast<uint64_t>(round), stats.started);
    EXPECT_EQ(stats.started, stats.ended);
    EXPECT_EQ(0u, stats.running);
    EXPECT_EQ(0u, stats.lost);
    EXPECT_EQ(PM_OK, Close()); // Every callback is through.
    for (int i = 0; i < round; i++) {
        EXPECT_EQ(1, told[static_cast<size_t>(i)]) << "round " << i;
    }
}

// What a callback was told, and how often.
struct Told {
    std::atomic<int> times{0}, signal{0};
    std::atomic<uint64_t> pid{0};
};

TEST_F(AtOnce, FiveHundredDeathsAreFiveHundredExits)
{
    const int children = 500;
    for (int round = 0; round < Rounds(10, 1) && !HasFailure(); round++) {
        std::vector<Told> told(children);
        std::vector<pm_process *> processes;
        Open();
        for (auto &note : told) {
            Cheap child("exec sleep 120");
            child->user = &note;
            child->on_exit = [](pm_process *process, const pm_exit *record, void *user) {
                auto *n = static_cast<Told *>(user);
                n->signal = record->kind == PM_EXIT_SIGNALED ? record->signal : 0;
                n->pid = pm_process_pid(process);
                ++n->times;
            };
            processes.push_back(Spawn(child));
            ASSERT_NE(nullptr, processes.back()) << "round " << round;
        }
        // By number: they are ours and nobody has waited for them.
        for (pm_process *process : processes) {
            EXPECT_EQ(0, kill(static_cast<pid_t>(pm_process_pid(process)), SIGKILL));
        }
        EXPECT_TRUE(Eventually([&] {
            for (const auto &note : told) {
                if (note.times == 0) {
                    return false;
                }
            }
            return true;
        })) << "round "
            << round;
        EXPECT_EQ(static_cast<uint64_t>(children), Stats().ended) << "round " << round;
        EXPECT_EQ(0u, Stats().running) << "round " << round;
        for (size_t i = 0; i < told.size(); i++) {
            EXPECT_EQ(SIGKILL, told[i].signal) << "round " << round << ", child " << i;
            EXPECT_EQ(pm_process_pid(processes[i]), told[i].pid);
            EXPECT_EQ(SIGKILL, Wait(processes[i]).signal);
            pm_process_unref(processes[i]);
        }
        held.clear();
        EXPECT_EQ(PM_OK, Close());
        for (size_t i = 0; i < told.size(); i++) {
            EXPECT_EQ(1, told[i].times) << "round " << round << ", child " << i;
        }
    }
}

TEST_F(AtOnce, AThiefBesideAThousandChildrenMakesNoFalseStatus)
{
    if (HostGetsNoStatuses()) {
        GTEST_SKIP() << "the host has asked for no statuses";
    }
    if (OnValgrind()) {
        GTEST_SKIP()
            << "the child has a copy of our memory: only its status tells of a failed exec";
    }
    const int children = Rounds(10000, 1000);
    pm_options options = DefaultOptions();
    options.status_pending_ms = 10000; // The thief may be held up in the middle of its wait.
    Open(options);
    std::atomic<bool> over{false};
    std::atomic<int> stolen{0}, told{0};
    std::thread thief([&] {
        while (!over) {
            if (waitpid(-1, nullptr, WNOHANG) > 0) {
                stolen++;
            } else {
                std::this_thread::yield();
            }
        }
    });
    int lost = 0;
    for (int first = 0; first < children && !HasFailure(); first += 50) {
        std::vector<pm_process *> batch;
        for (int i = first; i < first + 50 && i < children; i++) {
            Cheap child("exit " + std::to_string(i % 256));
            child->user = &told;
            child->on_exit = CountExit;
            batch.push_back(Spawn(child));
        }
        for (size_t i = 0; i < batch.size(); i++) {
            if (batch[i] == nullptr) {
                continue;
            }
            const int number = first + static_cast<int>(i);
            pm_exit record = Wait(batch[i]);
            if (record.kind == PM_EXIT_LOST) {
                EXPECT_FALSE(KernelTells(batch[i])) << "child " << number;
                lost++;
            } else {
                EXPECT_EQ(PM_EXIT_EXITED, record.kind) << "child " << number;
                EXPECT_EQ(static_cast<uint32_t>(number) % 256, record.code) << "child " << number;
            }
        }
    }
    over = true;
    thief.join();
    EXPECT_GT(stolen, 0) << "the thief took nothing: the test proves nothing";
    EXPECT_EQ(Stats().started, Stats().ended);
    EXPECT_TRUE(Eventually([&] { return told >= children; })) << told << " callbacks";
    EXPECT_EQ(children, told);
    RecordProperty("stolen", stolen);
    RecordProperty("lost", lost);
}

// Waits to be killed: SIGTERM stays pending, so that everybody can see that it was sent. args: what
// makes it even harder to stop.
int Unmoved(const std::vector<std::string> &args)
{
    const std::string how = args.empty() ? "" : args[0];
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    if ((how == "tree" || how == "job") && fork() == 0) {
        if (how == "job") {
            setpgid(0, 0);
        }
        alarm(120);
        for (;;) {
            pause(); // Holds the pipe.
        }
    }
    printf("ready\n");
    fflush(stdout);
    if (how == "stopped") {
        raise(SIGSTOP);
    }
    alarm(120);
    for (;;) {
        pause();
    }
}
const RoleAdder unmoved("unmoved", Unmoved);

// Whether it has been asked to end, or has ended.
bool WasAsked(uint64_t pid)
{
    const std::string status = ReadFile("/proc/" + std::to_string(pid) + "/status");
    const char name[] = "ShdPnd:";
    const size_t at = status.find(name);
    return !PidAlive(pid) || at == std::string::npos ||
           (strtoull(status.c_str() + at + sizeof name - 1, nullptr, 16) &
            uint64_t{1} << (SIGTERM - 1)) != 0;
}

// How many the library was said to have stopped, and how many had not even been asked by then.
struct Visits {
    std::vector<uint64_t> pids;
    int killed = 0, unasked = 0;
};

void Visit(void *user, pm_process *, const pm_stop_report *report)
{
    auto *visits = static_cast<Visits *>(user);
    visits->killed += report->ended_by_action == PM_STOP_KILL;
    for (uint64_t pid : visits->pids) {
        visits->unasked += !WasAsked(pid);
    }
}

void Shape(Child &child, Tree tree)
{
    pm_spec *spec = child.operator->();
    spec->new_session = tree == kSession;
    if (tree == kTerminal) {
        spec->mode = PM_MODE_PTY;
        spec->stdin_slot.kind = spec->stdout_slot.kind = spec->stderr_slot.kind = PM_STDIO_DEFAULT;
    }
}

void AtOnce::TakeOneGrace(Tree tree)
{
    const int children = 100;
    const char *const with_another = tree == kGroup ? "tree" : "job";
    const auto patience = static_cast<uint32_t>(Patience());
    Visits visits;
    Open();
    for (int i = 0; i < children && !HasFailure(); i++) {
        Child child({"unmoved", i % 10 == 0 ? "stopped" : i % 10 == 1 ? with_another : ""});
        child->stdout_slot.kind = PM_STDIO_PIPE;
        Shape(child, tree);
        child->stop = {2,
                       {{PM_STOP_TERMINATE, PM_SCOPE_TREE, 300},
                        {PM_STOP_KILL, PM_SCOPE_TREE, patience}}};
        pm_process *process = Spawn(child);
        ASSERT_NE(nullptr, process);
        EXPECT_EQ(0u, ReadLine(process).find("ready"));
        visits.pids.push_back(pm_process_pid(process));
    }
    auto start = std::chrono::steady_clock::now();
    pm_stop_all_report report = PM_STOP_ALL_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_stop_all(manager, 2 * Patience(), Visit, &visits, &report));
    auto took = std::chrono::steady_clock::now() - start;
    EXPECT_EQ(static_cast<size_t>(children), report.stopped);
    EXPECT_EQ(children, visits.killed);
    EXPECT_EQ(0, visits.unasked) << "not before the grace of the first one was over";
    RecordProperty("stop_all_ms",
                   std::to_string(
                       std::chrono::duration_cast<std::chrono::milliseconds>(took).count()));
}

TEST_F(AtOnce, AHundredDeafChildrenTakeOneGrace)
{
    TakeOneGrace(kGroup);
}

TEST_F(AtOnce, AHundredDeafSessionsTakeOneGrace)
{
    TakeOneGrace(kSession);
}

TEST_F(AtOnce, AHundredDeafTerminalsTakeOneGrace)
{
    TakeOneGrace(kTerminal);
}

void AtOnce::StopTogether(Tree tree, int children)
{
    Open();
    for (int i = 0; i < children && !HasFailure(); i++) {
        Cheap child("exec sleep 120");
        Shape(child, tree);
        Spawn(child);
    }
    auto start = std::chrono::steady_clock::now();
    pm_stop_all_report report = PM_STOP_ALL_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_stop_all(manager, Patience(), nullptr, nullptr, &report));
    auto took = std::chrono::steady_clock::now() - start;
    EXPECT_EQ(static_cast<size_t>(children), report.total);
    EXPECT_EQ(static_cast<size_t>(children), report.stopped);
    EXPECT_EQ(0u, report.left);
    for (size_t i = 0; i < held.size(); i++) {
        EXPECT_FALSE(pm_process_alive(held[i])) << "child " << i;
    }
    EXPECT_EQ(Stats().started, Stats().ended);
    RecordProperty("stop_all_us",
                   std::to_string(
                       std::chrono::duration_cast<std::chrono::microseconds>(took).count()));
}

TEST_F(AtOnce, AThousandChildrenStopTogether)
{
    StopTogether(kGroup, Rounds(1000, 200));
}

TEST_F(AtOnce, AThousandSessionsStopTogether)
{
    StopTogether(kSession, Rounds(1000, 200));
}

TEST_F(AtOnce, TwoHundredTerminalsStopTogether)
{
    StopTogether(kTerminal, Rounds(200, 50));
}

// ------------------------------------------------------------------------------------------------
// Callbacks
// ------------------------------------------------------------------------------------------------

// A chain: the callback of each link stops and awaits another process and starts the next link.
struct Chain {
    pm_manager *manager = nullptr;
    int links = 0; // Still to be started.
    int stop_result = 0, wait_result = 0, spawn_result = 0, close_result = 0, late_result = 0;
    std::atomic<int> told{0};
    std::atomic<bool> over{false};
};

void NextLink(pm_process *, const pm_exit *record, void *user)
{
    auto *chain = static_cast<Chain *>(user);
    chain->told++;
    EXPECT_EQ(PM_EXIT_EXITED, record->kind);
    EXPECT_EQ(4u, record->code);
    pm_process *other = nullptr;
    Cheap companion("exec sleep 120");
    int code = pm_spawn(chain->manager, companion.Get(), &other, nullptr);
    chain->spawn_result = code != PM_OK ? code : chain->spawn_result;
    code = pm_process_stop(other, &kill_now, nullptr);
    chain->stop_result = code != PM_OK ? code : chain->stop_result;
    code = pm_process_wait(other, Patience(), nullptr);
    chain->wait_result = code != PM_OK ? code : chain->wait_result;
    pm_process_unref(other);
    Cheap next("exit 4");
    next->user = chain;
    next->on_exit = NextLink;
    if (--chain->links > 0) {
        code = pm_spawn(chain->manager, next.Get(), nullptr, nullptr);
        chain->spawn_result = code != PM_OK ? code : chain->spawn_result;
    }
    if (chain->links == 0 || chain->spawn_result != PM_OK) {
        chain->close_result = pm_close(chain->manager, 0, nullptr);
        chain->late_result = pm_spawn(chain->manager, next.Get(), nullptr, nullptr);
        chain->over = true;
    }
}

TEST_F(AtOnce, CallbacksThatStopAwaitStartAndCloseGoOnForever)
{
    const int links = 20;
    for (int round = 0; round < Rounds(1000, 50) && !HasFailure(); round++) {
        Chain chain;
        Open();
        chain.manager = manager;
        chain.links = links;
        Cheap first("exit 4");
        first->user = &chain;
        first->on_exit = NextLink;
        EXPECT_EQ(PM_OK, pm_spawn(manager, first.Get(), nullptr, nullptr)) << "round " << round;
        EXPECT_TRUE(Eventually([&] { return chain.over.load(); })) << "round " << round;
        EXPECT_EQ(PM_OK, Close()) << "round " << round;
        EXPECT_EQ(links, chain.told) << "round " << round;
        EXPECT_EQ(PM_OK, chain.stop_result) << "round " << round;
        EXPECT_EQ(PM_OK, chain.wait_result) << "round " << round;
        EXPECT_EQ(PM_OK, chain.spawn_result) << "round " << round;
        EXPECT_EQ(PM_ERR_WOULD_DEADLOCK, chain.close_result) << "round " << round;
        EXPECT_EQ(PM_ERR_CLOSED, chain.late_result) << "round " << round;
    }
}

} // namespace
