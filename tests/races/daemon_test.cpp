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

// A thread that starts daemons: its number, and how often it has gone into a start and come out.
struct Starter {
    std::atomic<pid_t> tid{0};
    std::atomic<unsigned> turn{0}; // Odd: it is in a start.
};
Starter starters[threads];

// What can be told of a thread: asleep, and how often it has gone to sleep so far.
struct Rest {
    bool asleep = false;
    std::string sleeps;
};

Rest RestOf(const std::string &task)
{
    Rest rest;
    std::istringstream lines(ReadFile("/proc/self/task/" + task + "/status"));
    for (std::string name, value, line; lines >> name >> value; std::getline(lines, line)) {
        rest.asleep = name == "State:" ? value == "S" : rest.asleep;
        rest.sleeps = name == "voluntary_ctxt_switches:" ? value : rest.sleeps;
    }
    return rest;
}

// Looks every few milliseconds for zombies of ours. The kernel makes a zombie of a child whose
// status somebody wants, until that thread, which is woken by it, has run: a look may fall into
// that moment, and on a busy machine many. So not how often one is seen is bounded, but when it may
// be: it is the launcher of a start that its thread is in, of this very start, and the thread does
// not sleep beside it. Where orphans come to us a dead daemon is a child of ours, too, that our
// loop waits for: that one may be seen a few times.
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

    // How many looks there were, how many of them saw a zombie, and what none may see.
    std::atomic<int> samples{0};
    int with_zombies = 0;
    std::string complaints, beside_sleepers;

  private:
    static constexpr int looks_most = 10;

    struct Sight {
        unsigned turn; // Of its thread, when it was seen.
        Rest rest;
        int looks; // In a row.
    };

    static Starter *StarterOf(const std::string &task)
    {
        Starter *end = starters + threads;
        Starter *found = std::find_if(starters, end, [&](const Starter &starter) {
            return std::to_string(starter.tid) == task;
        });
        return found != end ? found : nullptr;
    }

    void Judge(const std::string &zombie, const Sight &sight, unsigned turn_before)
    {
        auto seen = before.find(zombie);
        const Sight *last = seen != before.end() ? &seen->second : nullptr;
        const std::string line = "zombie " + zombie;
        if (sight.looks > 0) {
            complaints += sight.looks > looks_most ? line + " stays\n" : "";
        } else if (turn_before == sight.turn && turn_before % 2 == 0) {
            complaints += line + " outside of a start\n";
        } else if (last != nullptr && last->turn % 2 == 1 && last->turn != turn_before) {
            complaints += line + " after the start that it was made in\n";
        } else if (last != nullptr && last->rest.asleep && sight.rest.asleep &&
                   last->rest.sleeps == sight.rest.sleeps) {
            beside_sleepers += line + " beside its thread, which sleeps\n";
        }
    }

    void LookAt(const std::string &task, std::map<std::string, Sight> *still)
    {
        Starter *starter = StarterOf(task);
        const unsigned turn = starter != nullptr ? starter->turn.load() : 0;
        const std::set<std::string> zombies = ZombiesOf(task);
        for (const auto &zombie : zombies) {
            Sight sight = {starter != nullptr ? starter->turn.load() : 0, RestOf(task), 0};
            if (starter == nullptr && OrphansComeToUs()) {
                auto seen = before.find(zombie);
                sight.looks = seen != before.end() ? seen->second.looks + 1 : 1;
            }
            Judge(zombie, sight, turn);
            (*still)[zombie] = sight;
        }
    }

    void Look()
    {
        while (!over) {
            std::map<std::string, Sight> still;
            for (const auto &task : ListFolder("/proc/self/task")) {
                LookAt(task, &still);
            }
            with_zombies += !still.empty();
            before = still;
            samples++;
            std::this_thread::sleep_for(std::chrono::milliseconds(10)); // The distance of samples.
        }
    }

    std::map<std::string, Sight> before;
    std::atomic<bool> over{false};
    std::thread thread; // The last one: it uses all others.
};

// What went wrong, or "".
std::string Cycle(pm_manager *manager, const std::string &key, Starter *starter)
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
    starter->turn++;
    int code = pm_spawn(manager, child.Get(), &process, &error);
    starter->turn++;
    if (code != PM_OK) {
        return ErrorText(error);
    }
    std::string problem;
    code = pm_process_stop(process, &plan, nullptr);
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
            starters[t].tid = static_cast<pid_t>(syscall(SYS_gettid));
            for (int i = t; i < all && problems[t].empty(); i += threads) {
                problems[t] = Cycle(manager, "cycle-" + std::to_string(t), &starters[t]);
            }
            starters[t].tid = 0;
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
    EXPECT_EQ("", sampler.complaints);
    // Without pidfds another thread waits for it; where it is forked, a copy that another thread
    // has just made keeps the start's pipe open for some milliseconds; and valgrind's sleep for the
    // turn of another one.
    if ((Stats().fallback_kinds & (PM_FALLBACK_BEST_EFFORT | PM_FALLBACK_FORK)) == 0 &&
        !OnValgrind()) {
        EXPECT_EQ("", sampler.beside_sleepers);
    }
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
    RecordProperty("memory", std::to_string(static_cast<long>(now) - static_cast<long>(memory)));
}

} // namespace
