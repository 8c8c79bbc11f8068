// Daemons by the thousand: started, ended and forgotten by four threads, while somebody looks for
// what they might leave behind.

#include "races.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include <sys/syscall.h>
#include <unistd.h>

using namespace contract;
using namespace races;

namespace
{

using Daemons = Races;
using Clock = std::chrono::steady_clock;

const int threads = 4;

// The 22nd field of a line of stat, whose rest behind the name begins with the third.
std::string StartOf(const std::string &rest)
{
    std::istringstream fields(rest);
    std::string field;
    for (int i = 3; i <= 22; i++) {
        fields >> field;
    }
    return field;
}

// Dead children of a thread of ours that nobody has waited for: number and start.
std::set<std::string> ZombiesOf(const std::string &task)
{
    std::set<std::string> found;
    std::istringstream children(ReadFile("/proc/self/task/" + task + "/children"));
    for (std::string pid; children >> pid;) {
        std::string stat = ReadFile("/proc/" + pid + "/stat");
        size_t at = stat.rfind(')');
        if (at != std::string::npos && stat.compare(at, 3, ") Z") == 0) {
            found.insert(pid + " " + StartOf(stat.substr(at + 2)));
        }
    }
    return found;
}

// Looks every few milliseconds for zombies of ours. Each child that ends is one for the moment
// until the thread that waits for it has run, and a look may fall into it: so the same one may be
// seen, but not again and again. In looks, not in time: on a busy machine both have to wait.
class Sampler
{
  public:
    Sampler() : thread([this] { Look(); })
    {
    }

    void End()
    {
        over = true;
        thread.join();
    }

    // How many looks there were, how many of them saw a zombie, and the most that saw the same one.
    std::atomic<int> samples{0};
    int with_zombies = 0, longest = 0;

  private:
    void Look()
    {
        std::map<std::string, int> seen;
        while (!over) {
            std::map<std::string, int> still;
            for (const auto &task : ListFolder("/proc/self/task")) {
                for (const auto &zombie : ZombiesOf(task)) {
                    auto before = seen.find(zombie);
                    still[zombie] = before != seen.end() ? before->second + 1 : 1;
                    longest = std::max(longest, still[zombie]);
                }
            }
            with_zombies += !still.empty();
            seen = still;
            samples++;
            std::this_thread::sleep_for(std::chrono::milliseconds(10)); // The distance of samples.
        }
    }

    std::atomic<bool> over{false};
    std::thread thread; // The last one: it uses all others.
};

// What went wrong, or "".
std::string Cycle(pm_manager *manager, const std::string &key)
{
    Cheap child("exec sleep 120");
    child->mode = PM_MODE_DAEMON;
    child->key = key.c_str();
    child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_NULL;
    const pm_stop_plan plan = {1,
                               {{PM_STOP_KILL, PM_SCOPE_TREE, static_cast<uint32_t>(Patience())}}};
    pm_process *process = nullptr;
    pm_error error = PM_ERROR_INIT;
    pm_exit record = PM_EXIT_INIT;
    if (pm_spawn(manager, child.Get(), &process, &error) != PM_OK) {
        return ErrorText(error);
    }
    std::string problem;
    int code = pm_process_stop(process, &plan, nullptr);
    if (code != PM_OK) {
        problem = std::string("stop: ") + pm_error_name(code);
    } else if ((code = pm_process_wait(process, Patience(), &record)) != PM_OK) {
        problem = std::string("wait: ") + pm_error_name(code);
    } else if (record.kind == PM_EXIT_EXITED || pm_process_alive(process)) {
        problem = "it was not killed";
    } else if (!ZombiesOf(std::to_string(syscall(SYS_gettid))).empty()) {
        // The launcher is a child of this thread, which has waited for it when the start returns.
        problem = "its launcher is a zombie";
    }
    pm_process_unref(process);
    code = problem.empty() ? pm_forget(manager, key.c_str()) : PM_OK;
    return code == PM_OK ? problem : std::string("forget: ") + pm_error_name(code);
}

// Each thread has keys of its own.
std::string Cycles(pm_manager *manager, int all)
{
    std::vector<std::thread> workers;
    std::string problems[threads];
    for (int t = 0; t < threads; t++) {
        workers.emplace_back([&, t] {
            for (int i = t; i < all && problems[t].empty(); i += threads) {
                problems[t] = Cycle(manager, "cycle-" + std::to_string(t));
            }
        });
    }
    std::string text;
    for (int t = 0; t < threads; t++) {
        workers[static_cast<size_t>(t)].join();
        text +=
            problems[t].empty() ? "" : "thread " + std::to_string(t) + ": " + problems[t] + "\n";
    }
    return text;
}

TEST_F(Daemons, ByTheThousandLeaveNothingBehind)
{
    const int cycles = Rounds(10000, 400);
    pm_options options = DefaultOptions();
    options.status_pending_ms = 10;
    Open(options);
    EXPECT_EQ("", Cycles(manager, 8 * threads)) << "warm-up";
    const size_t descriptors = CountDescriptors();
    const size_t memory = MemoryInUse();
    Sampler sampler;
    auto start = Clock::now();
    EXPECT_EQ("", Cycles(manager, cycles));
    auto took = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - start);
    sampler.End();
    EXPECT_GT(sampler.samples, 1);
    // Seen so far: one look, two on a busy machine.
    EXPECT_LE(sampler.longest, 10 * Slowness()) << "a zombie of ours";
    EXPECT_TRUE(Eventually([&] { return CountDescriptors() <= descriptors; }))
        << CountDescriptors() << " descriptors, before " << descriptors;
    // Less than a few bytes a cycle, and not a byte more with more of them.
    const size_t now = MemoryInUse();
    EXPECT_LT(now, memory + 32768) << "bytes in use, before " << memory;
    struct pm_stats stats = Stats();
    EXPECT_EQ(static_cast<uint64_t>(cycles + 8 * threads), stats.ended);
    EXPECT_EQ(0u, stats.running);
    uint64_t found = 99;
    EXPECT_EQ(PM_OK, pm_leak_scan(manager, &found));
    EXPECT_EQ(PM_OK, pm_leak_scan(manager, &found));
    EXPECT_EQ(0u, found);
    EXPECT_EQ(0u, Stats().leaked_total);
    EXPECT_EQ(PM_OK, pm_registry_list((folder + "/registry").c_str(),
                                      [](void *, const pm_registry_entry *entry) {
                                          ADD_FAILURE() << entry->file << " is left";
                                          return 0;
                                      },
                                      nullptr));
    RecordProperty("milliseconds", static_cast<int>(took.count()));
    RecordProperty("samples", sampler.samples);
    RecordProperty("samples_with_zombies", sampler.with_zombies);
    RecordProperty("samples_of_one_zombie", sampler.longest);
    RecordProperty("memory", std::to_string(static_cast<long>(now) - static_cast<long>(memory)));
}

} // namespace
