// Stopping real processes. The ladder itself is tested in microseconds in tests/unit/stop_test.cpp.

#include "fixture.h"

#include <atomic>
#include <thread>

#ifndef _WIN32
#include <csignal>
#include <unistd.h>
#endif

using namespace contract;

namespace
{

class Stop : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
    }

    pm_process *Start(const std::vector<std::string> &role, std::string *ret_line = nullptr)
    {
        Child child(role);
        child->stdin_slot.kind = PM_STDIO_PIPE;
        child->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *process = Spawn(child);
        std::string line = ReadLine(process);
        if (ret_line != nullptr) {
            *ret_line = line;
        }
        return process;
    }

    static pm_stop_plan Plan(const std::vector<pm_stop_step> &steps)
    {
        pm_stop_plan plan = {};
        plan.steps_count = steps.size();
        for (size_t i = 0; i < steps.size(); i++) {
            plan.steps[i] = steps[i];
        }
        return plan;
    }
};

TEST_F(Stop, EndsOneThatListensAndReportsTheStep)
{
    std::string file = folder + "/payload";
    Child child({"payload", file});
    pm_process *process = Spawn(child);
    ASSERT_TRUE(Eventually([&] { return ReadFile(file).find('\n') != std::string::npos; }));
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, &report));
    EXPECT_EQ(1u, report.ended_by);
    EXPECT_EQ(PM_STOP_TERMINATE, report.ended_by_action);
    pm_exit record = Wait(process);
    EXPECT_EQ(PM_EXIT_EXITED, record.kind);
    EXPECT_EQ(5u, record.code);
    EXPECT_EQ(1u, record.stop_step);
    EXPECT_EQ(PM_STOP_TERMINATE, record.stop_action);
}

TEST_F(Stop, KillsOneThatIsDeaf)
{
    pm_process *process = Start({"deaf"});
    pm_stop_plan plan =
        Plan({{PM_STOP_TERMINATE, PM_SCOPE_TREE, 100}, {PM_STOP_KILL, PM_SCOPE_TREE, 10000}});
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, &report));
    EXPECT_EQ(2u, report.ended_by);
    EXPECT_EQ(PM_STOP_KILL, Wait(process).stop_action);
    EXPECT_EQ(PM_OK, report.step_results[0]);
    EXPECT_GE(report.elapsed_ms, 100u);
#ifndef _WIN32
    EXPECT_EQ(SIGKILL, Wait(process).signal);
#endif
}

TEST_F(Stop, AStepThatCannotBeDeliveredTakesNoTime)
{
    Child child({"sleep"});
    pm_process *process = Spawn(child);
    // Its stdin is no pipe.
    pm_stop_plan plan = Plan(
        {{PM_STOP_CLOSE_STDIN, PM_SCOPE_PROCESS, 3600000}, {PM_STOP_KILL, PM_SCOPE_TREE, 10000}});
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, &report));
    EXPECT_EQ(PM_ERR_UNSUPPORTED, report.step_results[0]);
    EXPECT_EQ(2u, report.ended_by);
}

TEST_F(Stop, ClosingStdinEndsOneThatReads)
{
    pm_process *process = Start({"ready"});
    pm_stop_plan plan = Plan(
        {{PM_STOP_CLOSE_STDIN, PM_SCOPE_PROCESS, 10000}, {PM_STOP_KILL, PM_SCOPE_TREE, 10000}});
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, &report));
    EXPECT_EQ(1u, report.ended_by);
    pm_exit record = Wait(process);
    EXPECT_EQ(PM_EXIT_EXITED, record.kind);
    EXPECT_EQ(0u, record.code);
    EXPECT_EQ(PM_STOP_CLOSE_STDIN, record.stop_action);
}

TEST_F(Stop, EndsTheTreeToo)
{
    std::string line;
    pm_process *process = Start({"tree"}, &line);
    uint64_t grandchild = NumberAfter(line, "grandchild ");
    EXPECT_TRUE(PidAlive(grandchild));
    pm_stop_plan plan =
        Plan({{PM_STOP_TERMINATE, PM_SCOPE_TREE, 500}, {PM_STOP_KILL, PM_SCOPE_TREE, 10000}});
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, &report));
    EXPECT_FALSE(report.tree_left);
    EXPECT_FALSE(PidAlive(grandchild));
}

TEST_F(Stop, OnOneAlreadyGoneStillEndsItsTree)
{
    std::string line;
    pm_process *process = Start({"tree", "leave"}, &line);
    uint64_t grandchild = NumberAfter(line, "grandchild ");
    Wait(process);
    EXPECT_TRUE(PidAlive(grandchild)) << "a natural exit leaves descendants alone";
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, &report));
    EXPECT_TRUE(report.already_ended);
    EXPECT_EQ(0u, report.ended_by);
    EXPECT_FALSE(PidAlive(grandchild));
    EXPECT_EQ(0u, Wait(process).stop_step);
}

TEST_F(Stop, KillTreeOnExitDoesWhatItSays)
{
    Child child({"tree", "leave"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    child->kill_tree_on_exit = true;
    pm_process *process = Spawn(child);
    uint64_t grandchild = NumberAfter(ReadLine(process), "grandchild ");
    Wait(process);
    EXPECT_TRUE(Eventually([&] { return !PidAlive(grandchild); }));
}

TEST_F(Stop, OfADeadOneWithoutATreeDoesNothing)
{
    Child child({"exit", "3"});
    pm_process *process = Spawn(child);
    Wait(process);
    pm_stop_report report = PM_STOP_REPORT_INIT;
    // Under Wine the console host of the child goes a moment later.
    ASSERT_TRUE(Eventually([&] { return pm_process_stop(process, nullptr, &report) == PM_OK; }));
    EXPECT_TRUE(report.already_ended);
    EXPECT_EQ(3u, Wait(process).code);
    EXPECT_EQ(PM_ERR_GONE, pm_process_signal(process, 0, PM_SCOPE_PROCESS));
}

TEST_F(Stop, TwoThreadsMayStopTheSame)
{
    for (int i = 0; i < 20; i++) {
        pm_process *process = Start({"linger"});
        std::atomic<int> good{0};
        std::vector<std::thread> threads;
        for (int t = 0; t < 2; t++) {
            threads.emplace_back(
                [&] { good += pm_process_stop(process, nullptr, nullptr) == PM_OK; });
        }
        for (auto &thread : threads) {
            thread.join();
        }
        EXPECT_EQ(2, good);
    }
}

TEST_F(Stop, ThePlanOfTheSpecIsUsed)
{
    Child child({"deaf"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    child->stop = Plan({{PM_STOP_KILL, PM_SCOPE_PROCESS, 10000}});
    pm_process *process = Spawn(child);
    ReadLine(process);
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, &report));
    EXPECT_EQ(1u, report.steps_tried);
    EXPECT_EQ(PM_STOP_KILL, report.ended_by_action);
}

TEST_F(Stop, StopAllStopsThemInParallelAndTellsHow)
{
    // Five that are killed, and five that end as soon as all five have been asked to: one after the
    // other the first one would never do so.
    const auto patience = static_cast<uint32_t>(Patience());
    const std::string asked = folder + "/asked";
    MakeFolder(asked);
    for (int i = 0; i < 10; i++) {
        const bool deaf = i % 2 == 0;
        Child child(deaf ? std::vector<std::string>{"deaf"}
                         : std::vector<std::string>{"together", asked, std::to_string(i), "5"});
        child->stdout_slot.kind = PM_STDIO_PIPE;
        child->stop = Plan({{PM_STOP_TERMINATE, PM_SCOPE_TREE, deaf ? 1000 : patience},
                            {PM_STOP_KILL, PM_SCOPE_TREE, patience}});
        EXPECT_EQ("ready", ReadLine(Spawn(child)));
    }
    struct Count {
        int by_terminate = 0, by_kill = 0;
    } count;
    pm_stop_all_report report = PM_STOP_ALL_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_stop_all(
                         manager, 2 * Patience(),
                         [](void *user, pm_process *, const pm_stop_report *r) {
                             auto *c = static_cast<Count *>(user);
                             c->by_terminate += r->ended_by_action == PM_STOP_TERMINATE;
                             c->by_kill += r->ended_by_action == PM_STOP_KILL;
                         },
                         &count, &report));
    EXPECT_EQ(10u, report.total);
    EXPECT_EQ(10u, report.stopped);
    EXPECT_EQ(0u, report.left);
    EXPECT_EQ(5, count.by_terminate) << "one after the other";
    EXPECT_EQ(5, count.by_kill);
}

#ifndef _WIN32

TEST_F(Stop, EndsOneThatIsStopped)
{
    for (pm_stop_action action : {PM_STOP_TERMINATE, PM_STOP_INTERRUPT}) {
        Child child({"stop-self"});
        child->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *process = Spawn(child);
        ReadLine(process);
        std::string path = "/proc/" + std::to_string(pm_process_pid(process)) + "/stat";
        ASSERT_TRUE(Eventually([&] { return ReadFile(path).find(") T ") != std::string::npos; }));
        pm_stop_plan plan =
            Plan({{action, PM_SCOPE_TREE, PM_STOP_GRACE_MS}, {PM_STOP_KILL, PM_SCOPE_TREE, 10000}});
        pm_stop_report report = PM_STOP_REPORT_INIT;
        EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, &report));
        EXPECT_EQ(1u, report.ended_by) << "the signal is followed by CONT";
        EXPECT_EQ(action == PM_STOP_TERMINATE ? SIGTERM : SIGINT, Wait(process).signal);
    }
}

TEST_F(Stop, SignalsReachTheProcessAndItsGroup)
{
    std::string line;
    pm_process *process = Start({"tree"}, &line);
    uint64_t grandchild = NumberAfter(line, "grandchild ");
    EXPECT_EQ(PM_OK, pm_process_signal(process, 0, PM_SCOPE_PROCESS));
    EXPECT_EQ(PM_ERR_INVALID, pm_process_signal(process, -1, PM_SCOPE_PROCESS));
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGUSR1, PM_SCOPE_GROUP));
    EXPECT_EQ(SIGUSR1, Wait(process).signal);
    EXPECT_TRUE(Eventually([&] { return !PidAlive(grandchild); }));
}

TEST_F(Stop, AGroupSignalAfterTheLeaderIsGoneReachesWhatIsLeft)
{
    std::string line;
    pm_process *process = Start({"tree", "leave"}, &line);
    uint64_t grandchild = NumberAfter(line, "grandchild ");
    Wait(process);
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGKILL, PM_SCOPE_GROUP));
    EXPECT_TRUE(Eventually([&] { return !PidAlive(grandchild); }));
    EXPECT_TRUE(
        Eventually([&] { return pm_process_signal(process, 0, PM_SCOPE_GROUP) == PM_ERR_GONE; }));
}

#endif

} // namespace
