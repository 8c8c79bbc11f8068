// Ten thousand children that sleep, listed while others are started.
#include <processmgr/debug.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>

#include "fixture.h"
#include "http.h"

namespace contract
{
namespace
{

using Clock = std::chrono::steady_clock;

size_t HowMany()
{
#if PM_TEST_WAITER_THREADS // One for each child.
    return 1000;
#else
    return Slowness() > 1 ? 1000 : 10000;
#endif
}

size_t DescriptorsForEach()
{
    return PM_TEST_WAITER_THREADS ? 2 : 1;
}

double Milliseconds(Clock::time_point from, Clock::time_point to)
{
    return std::chrono::duration<double, std::milli>(to - from).count();
}

class Many : public Contract
{
};

pm_process *StartNap(pm_manager *manager)
{
    const char *argv[] = {PM_TEST_NAP_PATH, nullptr};
    pm_spec spec = PM_SPEC_INIT;
    spec.owner = "one of many, with a name of the length that names have";
    spec.program = PM_TEST_NAP_PATH;
    spec.argv = argv;
    spec.stdin_slot.kind = PM_STDIO_NULL;
    spec.stdout_slot.kind = PM_STDIO_NULL;
    spec.stderr_slot.kind = PM_STDIO_NULL;
    pm_process *process = nullptr;
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(PM_OK, pm_spawn(manager, &spec, &process, &error)) << ErrorText(error);
    return process;
}

double Percentile(std::vector<double> sorted, double q)
{
    std::sort(sorted.begin(), sorted.end());
    return sorted[static_cast<size_t>(q * static_cast<double>(sorted.size() - 1))];
}

// Starts one and kills it, over and over; how long each start took.
std::vector<double> Starts(pm_manager *manager, size_t count, const std::atomic<bool> *until)
{
    std::vector<double> took;
    pm_stop_plan kill = {};
    kill.steps_count = 1;
    kill.steps[0] = {PM_STOP_KILL, PM_SCOPE_PROCESS, 0};
    while (until != nullptr ? !*until || took.size() < count : took.size() < count) {
        auto begin = Clock::now();
        pm_process *process = StartNap(manager);
        took.push_back(Milliseconds(begin, Clock::now()));
        pm_process_stop(process, &kill, nullptr);
        pm_process_unref(process);
    }
    return took;
}

void Report(const char *what, const std::vector<double> &took)
{
    printf("%-18s %5zu starts: p50 %.2f ms, p99 %.2f ms, longest %.2f ms\n", what, took.size(),
           Percentile(took, .5), Percentile(took, .99), Percentile(took, 1));
}

TEST_F(Many, AreListedWithoutHoldingAStartUp)
{
    rlimit limit = {};
    getrlimit(RLIMIT_NOFILE, &limit);
    rlimit raised = limit;
    const size_t needed = HowMany() * DescriptorsForEach() + 200;
    raised.rlim_cur = std::min<rlim_t>(limit.rlim_max, std::max<rlim_t>(limit.rlim_cur, needed));
    setrlimit(RLIMIT_NOFILE, &raised);
    if (raised.rlim_cur < needed)
        GTEST_SKIP() << "the limit on descriptors is too low here";
    Open(DefaultOptions(), false);
    pm_debug_server *server = nullptr;
    ASSERT_EQ(PM_OK, pm_debug_server_start(manager, nullptr, &server, nullptr));
    for (size_t i = 0; i < HowMany() && !HasFailure(); i++)
        pm_process_unref(StartNap(manager));
    std::vector<double> alone = Starts(manager, 3000, nullptr);

    std::atomic<bool> over(false);
    size_t lists = 0, size = 0;
    double slowest = 0;
    std::thread reader([&] {
        for (lists = 0; lists < 8; lists++) {
            auto begin = Clock::now();
            http::Answer answer = http::Get(pm_debug_server_address(server), "/debug/processes");
            slowest = std::max(slowest, Milliseconds(begin, Clock::now()));
            EXPECT_EQ(200, answer.status);
            size_t shown = 0;
            for (size_t at = 0; (at = answer.body.find("\"pid\":", at)) != std::string::npos; at++)
                shown++;
            EXPECT_GE(shown, HowMany() + 1) << "and the manager's own";
            size = answer.body.size();
        }
        over = true;
    });
    std::vector<double> listed = Starts(manager, 1, &over);
    reader.join();
    Report("alone:", alone);
    Report("while listed:", listed);
    printf("%zu processes: %zu bytes of JSON in at most %.0f ms\n", HowMany(), size, slowest);
    // Against a machine that does other things as well: the start that had it worst of a hundred.
    EXPECT_LE(Percentile(listed, .99) - Percentile(alone, .99), 10.0 * Slowness());
    pm_debug_server_stop(server);
    ASSERT_EQ(PM_OK, Close(60000));
    setrlimit(RLIMIT_NOFILE, &limit);
}

} // namespace
} // namespace contract
