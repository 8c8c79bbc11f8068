// A host that has never called pm_launcher_main(): no copy of it is ever run.

#include "fixture.h"

#include <cstring>

#include <windows.h>

extern "C" {
#include "sys.h"
}

using namespace contract;

namespace
{

int calls;

void CountCall(const wchar_t *, const wchar_t *, unsigned long)
{
    calls++;
}

class Unwired : public Contract
{
};

TEST_F(Unwired, HostGetsNoLauncherForTheStepAndTheLadderGoesOn)
{
    Open();
    Child child({"linger"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    EXPECT_EQ("ready", ReadLine(process));
    pm_stop_plan plan = {};
    plan.steps_count = 3;
    plan.steps[0] = {PM_STOP_INTERRUPT, PM_SCOPE_TREE, 3600000};
    plan.steps[1] = {PM_STOP_TERMINATE, PM_SCOPE_TREE, 3600000};
    plan.steps[2] = {PM_STOP_KILL, PM_SCOPE_TREE, 15000};
    pm_stop_report report = PM_STOP_REPORT_INIT;
    calls = 0;
    pmi_test_create_process_hook = CountCall;
    EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, &report));
    pmi_test_create_process_hook = nullptr;
    EXPECT_EQ(PM_ERR_NO_LAUNCHER, report.step_results[0]);
    EXPECT_EQ(PM_ERR_NO_LAUNCHER, report.step_results[1]);
    EXPECT_EQ(PM_OK, report.step_results[2]);
    EXPECT_EQ(3u, report.ended_by);
    EXPECT_EQ(0, calls);
}

TEST_F(Unwired, HostStillReachesAStopEvent)
{
    Open();
    std::string file = folder + "/out";
    Child child({"payload", file});
    pm_process *process = Spawn(child);
    ASSERT_TRUE(Eventually([&] { return ReadFile(file).find('\n') != std::string::npos; }));
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, &report));
    EXPECT_EQ(1u, report.ended_by);
    EXPECT_EQ(5u, Wait(process).code);
}

} // namespace

int main(int argc, char **argv)
{
    contract::MaybePlayRole(argc, argv);
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
