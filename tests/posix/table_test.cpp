// Processes whose line in the process table misleads.
#ifdef __linux__
#include <pthread.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <thread>

#include "fixture.h"

using namespace contract;

namespace
{

using Args = std::vector<std::string>;

int Ready(const Args &args)
{
    if (args.empty())
        printf("ready\n");
    else
        WriteFile(args[0], "ready\n");
    fflush(stdout);
    for (;;)
        pause();
}

// Its name holds what comes behind a name.
int OddName(const Args &args)
{
    prctl(PR_SET_NAME, "x) Z 1 (y", 0, 0, 0);
    return Ready(args);
}

// Its first thread has ended: the table says Z, and it lives.
int Headless(const Args &args)
{
    std::thread([args] {
        (void)Eventually([] {
            return ReadFile("/proc/self/task/" + std::to_string(getpid()) + "/stat").find(") Z ") !=
                   std::string::npos;
        });
        return Ready(args);
    }).detach();
    pthread_exit(nullptr);
}

const RoleAdder odd_name("odd-name", OddName);
const RoleAdder headless("headless", Headless);

class Table : public Contract, public testing::WithParamInterface<const char *>
{
  protected:
    void ExpectNoAlarm()
    {
        uint64_t found = 0;
        for (int i = 0; i < 2; i++)
            EXPECT_EQ(PM_OK, pm_leak_scan(manager, &found));
        EXPECT_EQ(0u, found);
    }
};

TEST_P(Table, DoesNotHideAChild)
{
    Open();
    Child child({GetParam()});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    ASSERT_EQ("ready", ReadLine(process));
    EXPECT_TRUE(pm_process_alive(process));
    EXPECT_EQ(PM_ERR_TIMEOUT, pm_process_wait(process, 0, nullptr));
    ExpectNoAlarm();
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, &report));
    EXPECT_EQ(1u, report.ended_by);
    EXPECT_FALSE(report.tree_left);
    EXPECT_EQ(SIGTERM, Wait(process).signal);
}

// Without a pidfd the table is all there is: of the tree, and for the proof of a daemon.
TEST_P(Table, DoesNotHideADaemon)
{
    Open();
    std::string sign = folder + "/ready";
    Child daemon({GetParam(), sign});
    daemon->mode = PM_MODE_DAEMON;
    daemon->key = "odd";
    pm_process *process = Spawn(daemon);
    ASSERT_TRUE(Eventually([&] { return !ReadFile(sign).empty(); }));
    uint64_t pid = pm_process_pid(process);
    EXPECT_EQ(PM_OK, Close());
    Open();
    pm_recover_report report = PM_RECOVER_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_recover(manager, nullptr, nullptr, &report));
    EXPECT_EQ(1u, report.alive);
    EXPECT_EQ(0u, report.unproven);
    process = nullptr;
    ASSERT_EQ(PM_OK, pm_find(manager, "odd", &process));
    Keep(process);
    EXPECT_EQ(pid, pm_process_pid(process));
    EXPECT_TRUE(pm_process_alive(process));
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, nullptr));
    EXPECT_FALSE(PidAlive(pid));
}

INSTANTIATE_TEST_SUITE_P(That, Table, testing::Values("odd-name", "headless"),
                         [](const auto &info) {
                             return std::string(info.param) == "headless" ? "Headless" : "OddName";
                         });

} // namespace
#endif
