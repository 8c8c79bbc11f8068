// The end of a process: codes, waiters, callbacks, the waitable.

#include "fixture.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <thread>

#ifdef _WIN32
#include <windows.h>
#else
#include <csignal>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace contract;

namespace
{

class Exit : public Contract
{
};

TEST_F(Exit, ReportsEveryCode)
{
    Open();
    std::vector<uint32_t> codes = {0, 1, 259, 0xC0000005u, 0xFFFFFFFFu};
    if (!OnWindows()) {
        codes.clear();
        for (uint32_t code = 0; code < 256; code++) {
            codes.push_back(code);
        }
    }
    for (size_t at = 0; at < codes.size(); at += 16) {
        std::vector<pm_process *> batch;
        for (size_t i = at; i < codes.size() && i < at + 16; i++) {
            Child child({"exit", std::to_string(codes[i])});
            batch.push_back(Spawn(child));
        }
        for (size_t i = 0; i < batch.size(); i++) {
            pm_exit record = Wait(batch[i]);
            EXPECT_EQ(PM_EXIT_EXITED, record.kind) << codes[at + i];
            EXPECT_EQ(codes[at + i], record.code);
            EXPECT_EQ(0u, record.stop_step);
        }
    }
}

#ifndef _WIN32
TEST_F(Exit, ReportsTwentySignals)
{
    Open();
    for (int number : {SIGHUP,  SIGINT,  SIGQUIT, SIGILL,    SIGTRAP, SIGABRT, SIGBUS,
                       SIGFPE,  SIGKILL, SIGUSR1, SIGSEGV,   SIGUSR2, SIGPIPE, SIGALRM,
                       SIGTERM, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGSYS}) {
        Child child({"raise", std::to_string(number)});
        pm_exit record = Wait(Spawn(child));
        EXPECT_EQ(PM_EXIT_SIGNALED, record.kind) << number;
        EXPECT_EQ(number, record.signal);
    }
}
#endif

TEST_F(Exit, TheRecordHasUsageAndTimes)
{
    Open();
    Child child({"exit", "0"});
    pm_exit record = Wait(Spawn(child));
    EXPECT_EQ(!HostGetsNoStatuses(), record.usage_known);
    EXPECT_GE(record.ended_wall_ms, record.started_wall_ms);
    EXPECT_GT(record.started_wall_ms, 1600000000000);
    if (!OnWindows() && record.usage_known) {
        EXPECT_GT(record.max_rss_kib, 100u);
    }
}

TEST_F(Exit, EightWaitersGetTheSameRecord)
{
    Open();
    const int rounds = OnWine() ? 3 : 40;
    for (int round = 0; round < rounds; round++) {
        Child child({"ready"});
        std::atomic<int> told{0};
        child->stdin_slot.kind = child->stdout_slot.kind = PM_STDIO_PIPE;
        child->user = &told;
        child->on_exit = [](pm_process *, const pm_exit *, void *user) {
            ++*static_cast<std::atomic<int> *>(user);
        };
        pm_process *process = Spawn(child);
        EXPECT_EQ("ready", ReadLine(process));
        std::vector<std::thread> waiters;
        std::vector<pm_exit> records(8);
        std::atomic<int> good{0};
        for (int i = 0; i < 8; i++) {
            waiters.emplace_back([&, i] {
                pm_exit *record = &records[static_cast<size_t>(i)];
                *record = PM_EXIT_INIT;
                good += pm_process_wait(process, Patience(), record) == PM_OK;
            });
        }
        EXPECT_EQ(PM_ERR_TIMEOUT, pm_process_wait(process, 0, nullptr));
        EXPECT_TRUE(pm_process_alive(process));
        pm_stream_close(pm_process_stream(process, PM_STDIN));
        for (auto &waiter : waiters) {
            waiter.join();
        }
        EXPECT_EQ(8, good);
        for (const auto &record : records) {
            EXPECT_EQ(0, memcmp(&records[0], &record, sizeof record));
        }
        EXPECT_FALSE(pm_process_alive(process));
        struct pm_stats stats = PM_STATS_INIT;
        EXPECT_TRUE(Eventually([&] { return told > 0; }));
        EXPECT_EQ(PM_OK, pm_stats(manager, &stats));
        EXPECT_EQ(static_cast<uint64_t>(round) + 1, stats.ended);
        EXPECT_EQ(1, told);
    }
}

TEST_F(Exit, TheWaitableFiresAndThenTheRecordIsThere)
{
    Open();
    for (int i = 0; i < 50; i++) {
        Child child({"exit", "7"});
        pm_process *process = Spawn(child);
        pm_native native = PM_NATIVE_INVALID;
        ASSERT_EQ(PM_OK, pm_process_exit_waitable(process, &native));
#ifdef _WIN32
        ASSERT_EQ(WAIT_OBJECT_0, WaitForSingleObject(reinterpret_cast<HANDLE>(native),
                                                     static_cast<DWORD>(Patience())));
#else
        pollfd in = {static_cast<int>(native), POLLIN, 0};
        ASSERT_EQ(1, Uninterrupted([&] { return poll(&in, 1, static_cast<int>(Patience())); }));
#endif
        pm_exit record = PM_EXIT_INIT;
        ASSERT_EQ(PM_OK, pm_process_wait(process, 0, &record));
        EXPECT_EQ(7u, record.code);
    }
}

// What callbacks note; every field under the lock.
struct Notes {
    std::mutex lock;
    std::vector<std::string> what;
    pm_manager *manager = nullptr;
    int close_result = 0, stop_result = 0, spawn_result = 0;
    pm_process *other = nullptr;
    pm_process *successor = nullptr;

    void Add(const std::string &text)
    {
        std::lock_guard<std::mutex> guard(lock);
        what.push_back(text);
    }
    size_t Count()
    {
        std::lock_guard<std::mutex> guard(lock);
        return what.size();
    }
};

TEST_F(Exit, TheCallbackRunsOnceWithTheRecord)
{
    Notes notes;
    Open();
    for (int i = 0; i < 20; i++) {
        Child child({"exit", std::to_string(i)});
        child->user = &notes;
        child->on_exit = [](pm_process *process, const pm_exit *record, void *user) {
            pm_exit again = PM_EXIT_INIT;
            EXPECT_EQ(PM_OK, pm_process_wait(process, 0, &again));
            EXPECT_EQ(record->code, again.code);
            static_cast<Notes *>(user)->Add(std::to_string(record->code));
        };
        Spawn(child);
    }
    EXPECT_TRUE(Eventually([&] { return notes.Count() >= 20; }));
    EXPECT_EQ(PM_OK, pm_stop_all(manager, -1, nullptr, nullptr, nullptr));
    for (pm_process *process : held) {
        pm_process_unref(process);
    }
    held.clear();
    EXPECT_EQ(PM_OK, Close());
    EXPECT_EQ(20u, notes.Count()) << "once each, also at close";
}

TEST_F(Exit, ACallbackMayStopAndStartOthersAndIsToldThatCloseWouldDeadlock)
{
    Notes notes;
    Open();
    notes.manager = manager;
    Child other({"linger"});
    other->stdout_slot.kind = PM_STDIO_PIPE;
    notes.other = Spawn(other);
    EXPECT_EQ("ready", ReadLine(notes.other));
    Child child({"exit", "0"});
    child->user = &notes;
    child->on_exit = [](pm_process *, const pm_exit *, void *user) {
        auto *n = static_cast<Notes *>(user);
        Child next({"exit", "0"});
        n->stop_result = pm_process_stop(n->other, nullptr, nullptr);
        n->spawn_result = pm_spawn(n->manager, next.Get(), &n->successor, nullptr);
        n->close_result = pm_close(n->manager, 0, nullptr);
        n->Add("done");
    };
    Spawn(child);
    EXPECT_TRUE(Eventually([&] { return notes.Count() == 1; }));
    EXPECT_EQ(PM_OK, notes.stop_result);
    EXPECT_EQ(PM_OK, notes.spawn_result);
    EXPECT_EQ(PM_ERR_WOULD_DEADLOCK, notes.close_result);
    Keep(notes.successor);
    int code = 0;
    Child late({"exit", "0"});
    TrySpawn(late, &code);
    EXPECT_EQ(PM_ERR_CLOSED, code) << "marked as closing";
}

TEST_F(Exit, EventsComeInOrder)
{
    Notes notes;
    pm_options options = DefaultOptions();
    options.user = &notes;
    options.event = [](void *user, const pm_event *event) {
        if (event->process != nullptr) {
            static_cast<Notes *>(user)->Add(std::to_string(pm_process_pid(event->process)) + " " +
                                            pm_event_name(event->kind));
        }
    };
    Open(options);
    for (int i = 0; i < 100; i++) {
        Child child({"exit", "0"});
        pm_process *process = nullptr;
        ASSERT_EQ(PM_OK, pm_spawn(manager, child.Get(), &process, nullptr));
        pm_process_unref(process);
    }
    EXPECT_TRUE(Eventually([&] { return notes.Count() == 200; }));
    EXPECT_EQ(PM_OK, Close());
    std::vector<std::string> open;
    for (const auto &line : notes.what) {
        std::string pid = line.substr(0, line.find(' '));
        auto at = std::find(open.begin(), open.end(), pid);
        if (line.find("started") != std::string::npos) {
            EXPECT_EQ(open.end(), at);
            open.push_back(pid);
        } else {
            ASSERT_NE(open.end(), at) << "ended before it was started";
            open.erase(at);
        }
    }
    EXPECT_TRUE(open.empty());
}

#ifndef _WIN32

TEST_F(Exit, AThiefCannotMakeAFalseSuccess)
{
    pm_options options = DefaultOptions();
    options.status_pending_ms = 10000; // The thief may be held up in the middle of its wait.
    Open(options);
    size_t lost = 0;
    for (int i = 1; i <= 50; i++) {
        Child child({"exit", std::to_string(i)});
        pm_process *process = Spawn(child);
        // The host waits for everything, as bad libraries do.
        while (waitpid(-1, nullptr, WNOHANG) == 0 && pm_process_alive(process)) {
        }
        pm_exit record = Wait(process);
        if (record.kind == PM_EXIT_LOST) {
            EXPECT_FALSE(KernelTells(process)) << "child " << i;
            lost++;
        } else {
            EXPECT_EQ(PM_EXIT_EXITED, record.kind);
            EXPECT_EQ(static_cast<uint32_t>(i), record.code);
        }
    }
    RecordProperty("lost", static_cast<int>(lost));
}

TEST_F(Exit, TheHostsOwnChildrenKeepTheirStatuses)
{
    if (HostGetsNoStatuses()) {
        GTEST_SKIP() << "the host has asked for no statuses";
    }
    if (system("exit 0") != 0) {
        GTEST_SKIP() << "the C library cannot start anything here";
    }
    Open();
    const int rounds = Times(20000, 60) / 3; // Each has three waits of the host's.
    for (int i = 0; i < rounds && !HasFailure(); i++) {
        pid_t own = fork();
        if (own == 0) {
            _exit(i % 256);
        }
        // It is dead, and nobody has waited for it, while we wait for ours in each way.
        siginfo_t info = {};
        EXPECT_EQ(0, Uninterrupted([&] {
                      return waitid(P_PID, static_cast<id_t>(own), &info, WEXITED | WNOWAIT);
                  }));
        Child child({"exit", "1"});
        Spawn(child);
        EXPECT_EQ(1u, Wait(Spawn(child)).code);
        for (; !held.empty(); held.pop_back()) {
            pm_process_unref(held.back()); // There would be thousands of them.
        }
        EXPECT_EQ(PM_OK, pm_leak_scan(manager, nullptr));
        EXPECT_EQ(3 << 8, system("exit 3"));
        FILE *pipe = popen("exit 4", "r");
        EXPECT_EQ(4 << 8, pclose(pipe));
        int status = 0;
        EXPECT_EQ(own, Uninterrupted([&] { return waitpid(own, &status, 0); }));
        EXPECT_EQ(i % 256 << 8, status);
    }
}

TEST_F(Exit, AForkedCopyIsInert)
{
    Open();
    Child child({"linger"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    EXPECT_EQ("ready", ReadLine(process));
    int answer[2];
    ASSERT_EQ(0, pipe(answer));
    pid_t copy = fork();
    if (copy == 0) {
        pm_process *p = nullptr;
        Child more({"exit", "0"});
        bool inert = pm_spawn(manager, more.Get(), &p, nullptr) == PM_ERR_FORKED &&
                     pm_process_stop(process, nullptr, nullptr) == PM_ERR_FORKED &&
                     pm_process_wait(process, 0, nullptr) == PM_ERR_FORKED &&
                     pm_process_signal(process, 9, PM_SCOPE_PROCESS) == PM_ERR_FORKED &&
                     pm_stop_all(manager, 0, nullptr, nullptr, nullptr) == PM_ERR_FORKED &&
                     pm_close(manager, 0, nullptr) == PM_ERR_FORKED;
        _exit(write(answer[1], inert ? "y" : "n", 1) == 1 ? 0 : 1);
    }
    close(answer[1]);
    char byte = 0;
    EXPECT_EQ(1, Uninterrupted([&] { return read(answer[0], &byte, 1); }));
    EXPECT_EQ('y', byte);
    close(answer[0]);
    (void)Uninterrupted([&] { return waitpid(copy, nullptr, 0); }); // It may leave no status.
    EXPECT_TRUE(pm_process_alive(process));
}

#endif

} // namespace
