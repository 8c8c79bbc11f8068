// The zombie detector: what it finds, what it never touches, what it says.
#include "fixture.h"

#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <mutex>
#include <thread>

namespace contract
{
namespace
{

// A start past the library: dead, and nobody waits for it.
pid_t PlantLeak(const char *name = nullptr)
{
    pid_t pid = fork();
    if (pid == 0) {
        if (name != nullptr)
            prctl(PR_SET_NAME, name, 0, 0, 0);
        _exit(7);
    }
    siginfo_t info = {};
    EXPECT_EQ(0, Uninterrupted([&] {
                  return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT);
              }));
    return pid;
}

bool IsZombie(pid_t pid)
{
    siginfo_t info = {};
    return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT | WNOHANG) == 0 &&
           info.si_pid == pid;
}

struct Told {
    std::mutex mutex;
    std::vector<std::string> lines;
    std::vector<std::pair<uint64_t, std::string>> leaks;

    static void Log(void *user, pm_log_level level, const char *line)
    {
        auto *told = static_cast<Told *>(user);
        std::lock_guard<std::mutex> lock(told->mutex);
        if (level >= PM_LOG_WARNING)
            told->lines.push_back(line);
    }
    static void Event(void *user, const pm_event *event)
    {
        auto *told = static_cast<Told *>(user);
        std::lock_guard<std::mutex> lock(told->mutex);
        if (event->kind == PM_EVENT_LEAK)
            told->leaks.emplace_back(event->pid, event->detail);
    }
    size_t Leaks()
    {
        std::lock_guard<std::mutex> lock(mutex);
        return leaks.size();
    }
};

class Leak : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        if (HostGetsNoStatuses())
            GTEST_SKIP() << "a host that has asked for no statuses has no zombies";
    }
    void OpenWith(pm_leak_policy policy, uint32_t sweep_ms = UINT32_MAX)
    {
        pm_options options = DefaultOptions();
        options.leak_policy = policy;
        options.leak_sweep_ms = sweep_ms;
        options.log = Told::Log;
        options.event = Told::Event;
        options.user = &told;
        Open(options);
    }
    uint64_t Scan()
    {
        uint64_t found = 99;
        EXPECT_EQ(PM_OK, pm_leak_scan(manager, &found));
        return found;
    }
    Told told;
};

TEST_F(Leak, AForeignChildStaysForItsOwnWait)
{
    OpenWith(PM_LEAK_REPORT);
    pid_t pid = PlantLeak();
    EXPECT_EQ(0u, Scan()) << "believed only in the second sweep";
    EXPECT_EQ(1u, Scan());
    EXPECT_EQ(1u, Scan());
    struct pm_stats stats = Stats();
    EXPECT_EQ(1u, stats.leaked_total) << "each counted once";
    EXPECT_EQ(0u, stats.leaked_reaped);
    EXPECT_EQ(1u, stats.leaked_now);
    int status = 0;
    EXPECT_EQ(pid, Uninterrupted([&] { return waitpid(pid, &status, 0); }));
    EXPECT_EQ(7, WEXITSTATUS(status));
    EXPECT_EQ(0u, Scan());
    EXPECT_EQ(0u, Stats().leaked_now);
}

TEST_F(Leak, IsToldOnceWithPidNameAgeAndWhereToLook)
{
    OpenWith(PM_LEAK_REPORT);
    ASSERT_EQ(PM_OK, pm_leak_set_where(manager, "http://127.0.0.1:9/debug/processes"));
    // The name forges a second line, and the end of the field of /proc/PID/stat.
    pid_t pid = PlantLeak("x) Z\n1\x1b[2J\xff");
    for (int i = 0; i < 4; i++)
        Scan();
    ASSERT_TRUE(Eventually([&] { return told.Leaks() == 1; }));
    std::string pid_text = std::to_string(pid);
    std::string want = "pid " + pid_text + " 'x) Z\\x0a1\\x1b[2J\\xff', started ";
    ASSERT_EQ(1u, told.lines.size());
    EXPECT_NE(std::string::npos, told.lines[0].find("leak detector: " + want)) << told.lines[0];
    EXPECT_NE(std::string::npos, told.lines[0].find(" s ago, is dead and nobody waits for it"));
    EXPECT_NE(std::string::npos, told.lines[0].find("see http://127.0.0.1:9/debug/processes"));
    EXPECT_EQ(static_cast<uint64_t>(pid), told.leaks[0].first);
    EXPECT_NE(std::string::npos, told.leaks[0].second.find(want));
    waitpid(pid, nullptr, 0);

    ASSERT_EQ(PM_OK, pm_leak_set_where(manager, nullptr));
    pid = PlantLeak();
    Scan();
    Scan();
    EXPECT_NE(std::string::npos, told.lines.back().find("see pm_list()")) << told.lines.back();
    waitpid(pid, nullptr, 0);
    Scan();
}

TEST_F(Leak, TheOwnerOfAProcessMayHaveItReaped)
{
    OpenWith(PM_LEAK_REAP, 20);
    pid_t pids[3];
    for (pid_t &pid : pids)
        pid = PlantLeak();
    ASSERT_TRUE(Eventually([&] { return Stats().leaked_reaped == 3; }));
    for (pid_t pid : pids) {
        EXPECT_FALSE(IsZombie(pid));
        EXPECT_EQ(-1, waitpid(pid, nullptr, 0));
    }
    struct pm_stats stats = Stats();
    EXPECT_EQ(3u, stats.leaked_total) << "found moves with reaped";
    EXPECT_EQ(0u, stats.leaked_now);
    EXPECT_TRUE(Eventually([&] { return told.Leaks() == 3; }));
}

TEST_F(Leak, ReapingTakesNothingFromTrackedOnes)
{
    OpenWith(PM_LEAK_REAP, 1);
    std::atomic<bool> over(false);
    std::thread scanner([&] {
        while (!over)
            Scan();
    });
    for (int i = 0; i < 300; i++) {
        if (i % 50 == 0) { // A start with children of its own, which are in no list.
            Child daemon({"exit", "0"});
            std::string key = std::to_string(i);
            daemon->mode = PM_MODE_DAEMON;
            daemon->key = key.c_str();
            Wait(Spawn(daemon));
        }
        Child child({"exit", std::to_string(i % 200)});
        pm_process *process = Spawn(child);
        if (i % 3 == 0)
            usleep(2000); // A zombie for that long, or reaped by the reactor.
        pm_exit record = Wait(process);
        EXPECT_EQ(PM_EXIT_EXITED, record.kind);
        EXPECT_EQ(static_cast<uint32_t>(i % 200), record.code);
    }
    over = true;
    scanner.join();
    EXPECT_EQ(0u, Stats().leaked_total) << (told.lines.empty() ? "" : told.lines[0]);
}

TEST_F(Leak, ReapingLeavesTheLivingAndTheStoppedAlone)
{
    OpenWith(PM_LEAK_REAP, 1);
    int gate[2];
    ASSERT_EQ(0, pipe(gate));
    pid_t pid = fork();
    if (pid == 0) {
        char c;
        close(gate[1]);
        _exit(read(gate[0], &c, 1) == 0 ? 3 : 4);
    }
    kill(pid, SIGSTOP);
    for (int i = 0; i < 10; i++)
        EXPECT_EQ(0u, Scan());
    kill(pid, SIGCONT);
    for (int i = 0; i < 10; i++)
        EXPECT_EQ(0u, Scan());
    close(gate[0]);
    close(gate[1]);
    int status = 0;
    EXPECT_EQ(pid, Uninterrupted([&] { return waitpid(pid, &status, 0); }));
    EXPECT_EQ(3, WEXITSTATUS(status));
}

TEST_F(Leak, AProcessWhoseFirstThreadHasEndedIsNoZombie)
{
    if (OnEmulator())
        GTEST_SKIP() << "a first thread that ends, ends the program here";
    OpenWith(PM_LEAK_REAP, 1);
    pid_t pid = fork();
    if (pid == 0) {
        pthread_t thread;
        auto wait_for_ever = [](void *) -> void * {
            for (;;)
                pause();
        };
        pthread_create(&thread, nullptr, wait_for_ever, nullptr);
        syscall(SYS_exit, 0); // Of this thread alone, and without unwinding the test.
    }
    std::string stat = "/proc/" + std::to_string(pid) + "/stat";
    ASSERT_TRUE(Eventually([&] {
        std::string text = ReadFile(stat);
        return text.compare(text.rfind(')') + 1, 3, " Z ") == 0;
    })) << "the letter says Z";
    for (int i = 0; i < 5; i++)
        EXPECT_EQ(0u, Scan());
    kill(pid, SIGKILL);
    int status = 0;
    EXPECT_EQ(pid, Uninterrupted([&] { return waitpid(pid, &status, 0); }));
    EXPECT_EQ(SIGKILL, WTERMSIG(status));
}

// Host code of every kind that starts and waits, as fast as it can.
void Churn(const std::atomic<bool> &over, unsigned kind)
{
    while (!over) {
        if (kind == 0) {
            EXPECT_EQ(0, system(":"));
        } else if (kind == 1) {
            FILE *pipe = popen(":", "r");
            ASSERT_NE(nullptr, pipe);
            EXPECT_EQ(0, pclose(pipe));
        } else {
            pid_t pid = fork();
            if (pid == 0)
                _exit(9);
            ASSERT_GT(pid, 0);
            int status = 0;
            EXPECT_EQ(pid, Uninterrupted([&] { return waitpid(pid, &status, 0); }));
            EXPECT_EQ(9, WEXITSTATUS(status)) << "nobody has taken it";
        }
    }
}

// 20 minutes with PM_TEST_CHURN, and sweeps every 2 s; else 4 s and sweeps every second. Not less:
// a thread that does not get to its wait for that long would be a true find.
TEST_F(Leak, HostChurnRaisesNoAlarmAndALeakIsFoundWithinTwoSweeps)
{
    if (system(":") == 127 << 8)
        GTEST_SKIP() << "the C library cannot start anything here";
    bool full = getenv("PM_TEST_CHURN") != nullptr;
    uint32_t sweep_ms = full ? 2000 : 1000 * static_cast<uint32_t>(Slowness());
    int64_t total_ms = full ? 20 * 60 * 1000 : 4000;
    OpenWith(PM_LEAK_REAP, sweep_ms);
    std::atomic<bool> over(false);
    std::vector<std::thread> threads;
    for (unsigned kind = 0; kind < 3; kind++)
        threads.emplace_back([&over, kind] { Churn(over, kind); });
    auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(total_ms);
    uint64_t planted = 0;
    while (std::chrono::steady_clock::now() < end && !HasFailure()) {
        for (int i = 0; i < (full ? 1000 : 100); i++) {
            Child child({"exit", "0"});
            pm_process *process = nullptr;
            ASSERT_EQ(PM_OK, pm_spawn(manager, child.Get(), &process, nullptr));
            EXPECT_EQ(PM_OK, pm_process_wait(process, Patience(), nullptr));
            pm_process_unref(process);
        }
        ASSERT_EQ(planted, Stats().leaked_total) << "a false alarm";
        // Two sweeps from now on see it.
        uint64_t sweeps = Stats().leak_sweeps;
        PlantLeak();
        planted++;
        ASSERT_TRUE(Eventually([&] { return Stats().leak_sweeps >= sweeps + 3; }));
        ASSERT_EQ(planted, Stats().leaked_total);
        ASSERT_TRUE(Eventually([&] { return Stats().leaked_reaped == planted; }));
    }
    over = true;
    for (std::thread &thread : threads)
        thread.join();
    EXPECT_GT(planted, 0u);
    printf("%llu sweeps, %llu planted\n", static_cast<unsigned long long>(Stats().leak_sweeps),
           static_cast<unsigned long long>(planted));
}

// As a subreaper: what a child of ours leaves behind comes to us.
TEST_F(Leak, OrphansOfDescendantsAreCountedApart)
{
    if (OnEmulator())
        GTEST_SKIP() << "nobody can become a subreaper here";
    if (OrphansComeToUs())
        GTEST_SKIP() << "this host is a subreaper already; the case makes itself one";
    OpenWith(PM_LEAK_REAP, 1);
    ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0));
    Child child({"orphan"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    std::string line = ReadLine(process);
    Wait(process);
    ASSERT_TRUE(Eventually([&] {
        Scan();
        return Stats().orphans_reaped == 1;
    })) << line;
    EXPECT_EQ(1u, Stats().orphans_total);
    EXPECT_EQ(0u, Stats().leaked_total);
    EXPECT_EQ(0u, told.Leaks());
    pid_t pid = PlantLeak();
    ASSERT_TRUE(Eventually([&] {
        Scan();
        return Stats().leaked_reaped == 1;
    })) << "a start of ours is none";
    EXPECT_FALSE(IsZombie(pid));
    EXPECT_EQ(1u, Stats().orphans_total);
    ASSERT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0));
}

int PlayOrphan(const std::vector<std::string> &)
{
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0) {
        while (getppid() == parent)
            usleep(1000);
        _exit(0);
    }
    printf("%d\n", static_cast<int>(pid));
    fflush(stdout);
    return 0;
}
RoleAdder orphan("orphan", PlayOrphan);

TEST_F(Leak, APolicyThatIsNoneIsRefusedByName)
{
    pm_options options = DefaultOptions();
    int none = 7; // Not a constant: the compiler would object.
    memcpy(&options.leak_policy, &none, sizeof options.leak_policy);
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(PM_ERR_INVALID, pm_open(&options, &manager, &error));
    EXPECT_STREQ("leak_policy", error.field);
}

} // namespace
} // namespace contract
