// The stop ladder over the scripted backend: no process, no sleep, a clock that moves only when the
// core waits. Every expectation about time is exact.

#include <gtest/gtest.h>

#include <string>
#include <vector>

extern "C" {
#include <processmgr/processmgr.h>

#include "os.h"
}

namespace
{

class Ladder : public testing::Test
{
  protected:
    void SetUp() override
    {
        fake_reset();
        pm_options options = PM_OPTIONS_INIT;
        options.loop = PM_LOOP_CALLER;
        options.log = Note;
        options.user = this;
        ASSERT_EQ(PM_OK, pm_open(&options, &manager, nullptr));
    }

    static void Note(void *user, pm_log_level level, const char *line)
    {
        if (level >= PM_LOG_WARNING) {
            static_cast<Ladder *>(user)->warnings.push_back(line);
        }
    }

    void TearDown() override
    {
        for (pm_process *p : held) {
            pm_process_unref(p);
        }
        EXPECT_EQ(PM_OK, pm_close(manager, 60000, nullptr));
        EXPECT_EQ(fake_started, fake_closed) << "a process was not closed";
        EXPECT_EQ(0u, fake_steps) << "a delivery was not ended";
    }

    pm_process *Spawn(const pm_stop_plan &plan = pm_stop_plan())
    {
        pm_spec spec = PM_SPEC_INIT;
        spec.owner = "test";
        spec.program = "/bin/fake";
        spec.stop = plan;
        pm_process *p = nullptr;
        EXPECT_EQ(PM_OK, pm_spawn(manager, &spec, &p, nullptr));
        held.push_back(p);
        return p;
    }

    // By somebody else, at once.
    void KillBehindOurBack(pm_process *p)
    {
        fake_kill(pm_process_pid(p));
        EXPECT_GE(pm_dispatch(manager), 0);
    }

    static pm_stop_plan Plan(std::vector<pm_stop_step> steps)
    {
        pm_stop_plan plan = {};
        plan.steps_count = steps.size();
        for (size_t i = 0; i < steps.size(); i++) {
            plan.steps[i] = steps[i];
        }
        return plan;
    }

    pm_manager *manager = nullptr;
    std::vector<pm_process *> held;
    std::vector<std::string> warnings;
};

TEST_F(Ladder, TheDefaultPlanTerminatesTheTreeAndKillsItAfterFiveSeconds)
{
    pm_process *p = Spawn();
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(p, nullptr, &report));
    ASSERT_EQ(2u, fake_deliveries_count);
    EXPECT_EQ(PM_STOP_TERMINATE, fake_deliveries[0].action);
    EXPECT_EQ(PM_SCOPE_TREE, fake_deliveries[0].scope);
    EXPECT_EQ(1000, fake_deliveries[0].at);
    EXPECT_EQ(PM_STOP_KILL, fake_deliveries[1].action);
    EXPECT_EQ(1000 + PM_STOP_GRACE_MS, fake_deliveries[1].at);
    EXPECT_EQ(2u, report.ended_by);
    EXPECT_EQ(PM_STOP_KILL, report.ended_by_action);
    EXPECT_EQ((uint32_t)PM_STOP_GRACE_MS, report.elapsed_ms);
    EXPECT_FALSE(report.already_ended);
}

TEST_F(Ladder, ReportsTheStepThatEndedTheProcess)
{
    fake_next.dies_after[PM_STOP_TERMINATE] = 120;
    pm_process *p = Spawn();
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(p, nullptr, &report));
    EXPECT_EQ(1u, report.ended_by);
    EXPECT_EQ(PM_STOP_TERMINATE, report.ended_by_action);
    EXPECT_EQ(1u, report.steps_tried);
    EXPECT_EQ(120u, report.elapsed_ms);
    pm_exit record = PM_EXIT_INIT;
    ASSERT_EQ(PM_OK, pm_process_wait(p, 0, &record));
    EXPECT_EQ(1u, record.stop_step);
    EXPECT_EQ(PM_STOP_TERMINATE, record.stop_action);
}

TEST_F(Ladder, AStepThatCannotBeDeliveredTakesNoTimeAndIsReported)
{
    fake_next.undeliverable[PM_STOP_INTERRUPT] = PM_ERR_UNSUPPORTED;
    fake_next.dies_after[PM_STOP_TERMINATE] = 7;
    pm_process *p = Spawn();
    pm_stop_plan plan = Plan({{PM_STOP_CLOSE_STDIN, PM_SCOPE_PROCESS, 4000},
                              {PM_STOP_INTERRUPT, PM_SCOPE_PROCESS, 3000},
                              {PM_STOP_TERMINATE, PM_SCOPE_TREE, 2000}});
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(p, &plan, &report));
    EXPECT_EQ(PM_ERR_UNSUPPORTED, report.step_results[0]) << "stdin is no pipe";
    EXPECT_EQ(PM_ERR_UNSUPPORTED, report.step_results[1]);
    EXPECT_EQ(PM_OK, report.step_results[2]);
    EXPECT_EQ(3u, report.ended_by);
    EXPECT_EQ(7u, report.elapsed_ms);
    ASSERT_EQ(2u, warnings.size()) << "a kill must not come silently";
    EXPECT_EQ("stop of '/bin/fake' (owner test, pid 100): step 2 (interrupt) could not be "
              "delivered: PM_ERR_UNSUPPORTED: not supported here",
              warnings[1]);
}

TEST_F(Ladder, ADeliveryThatTakesTimeIsWaitedForAndTheStepKeepsItsOwn)
{
    fake_next.delivery[PM_STOP_TERMINATE] = 300;
    pm_process *p = Spawn();
    pm_stop_plan plan =
        Plan({{PM_STOP_TERMINATE, PM_SCOPE_TREE, 1000}, {PM_STOP_KILL, PM_SCOPE_TREE, 0}});
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(p, &plan, &report));
    ASSERT_EQ(2u, fake_deliveries_count);
    EXPECT_GE(fake_deliveries[1].at, 1000 + 300 + 1000);
    EXPECT_LE(fake_deliveries[1].at, 1000 + 300 + 1000 + 20) << "looked for every 20 ms";
    EXPECT_EQ(PM_OK, report.step_results[0]);
    EXPECT_EQ(2u, report.ended_by);
    EXPECT_TRUE(warnings.empty());
}

TEST_F(Ladder, ADeliveryThatTakesTimeAndFailsIsReportedAndNotSaidToHaveEndedAnything)
{
    fake_next.delivery[PM_STOP_TERMINATE] = 50;
    fake_next.undeliverable[PM_STOP_TERMINATE] = PM_ERR_LAUNCHER;
    fake_next.dies_after[PM_STOP_KILL] = 5;
    pm_process *p = Spawn();
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(p, nullptr, &report));
    EXPECT_EQ(PM_ERR_LAUNCHER, report.step_results[0]);
    EXPECT_EQ(2u, report.ended_by);
    EXPECT_LE(report.elapsed_ms, 75u);
    EXPECT_EQ(1u, warnings.size());
    pm_exit record = PM_EXIT_INIT;
    ASSERT_EQ(PM_OK, pm_process_wait(p, 0, &record));
    EXPECT_EQ(2u, record.stop_step);
}

TEST_F(Ladder, ADeliveryThatFailsIsTakenBackFromTheRecord)
{
    fake_next.delivery[PM_STOP_INTERRUPT] = 50;
    fake_next.undeliverable[PM_STOP_INTERRUPT] = PM_ERR_LAUNCHER;
    pm_process *p = Spawn();
    pm_stop_plan plan = Plan({{PM_STOP_INTERRUPT, PM_SCOPE_TREE, 1000}});
    EXPECT_EQ(PM_ERR_TIMEOUT, pm_process_stop(p, &plan, nullptr));
    KillBehindOurBack(p);
    pm_exit record = PM_EXIT_INIT;
    ASSERT_EQ(PM_OK, pm_process_wait(p, 0, &record));
    EXPECT_EQ(0u, record.stop_step);
}

TEST_F(Ladder, AStopThatFailsTakesBackNothingOfAnotherOne)
{
    struct Other {
        pm_process *process;
        pm_stop_plan plan;
        int result;
    } other = {nullptr, Plan({{PM_STOP_INTERRUPT, PM_SCOPE_PROCESS, 100}}), 1};
    fake_next.dies_after[PM_STOP_TERMINATE] = 3000;
    fake_next.undeliverable[PM_STOP_KILL] = PM_ERR_GONE; // So that the first step is what ends it.
    other.process = Spawn();
    fake_hooks.user = &other;
    fake_hooks.on_alive = [](void *user) { // Once the first step has had its time.
        auto *here = static_cast<Other *>(user);
        fake_hooks.on_alive = nullptr;
        here->result = pm_process_stop(here->process, &here->plan, nullptr);
    };
    pm_stop_plan plan = Plan(
        {{PM_STOP_TERMINATE, PM_SCOPE_PROCESS, 1000}, {PM_STOP_KILL, PM_SCOPE_PROCESS, 60000}});
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(other.process, &plan, &report));
    fake_hooks.on_alive = nullptr;
    EXPECT_EQ(PM_ERR_TIMEOUT, other.result);
    EXPECT_EQ(1u, report.ended_by);
    EXPECT_EQ(3000u, report.elapsed_ms);
    pm_exit record = PM_EXIT_INIT;
    ASSERT_EQ(PM_OK, pm_process_wait(other.process, 0, &record));
    EXPECT_EQ(1u, record.stop_step);
    EXPECT_EQ(PM_STOP_TERMINATE, record.stop_action);
}

TEST_F(Ladder, AStopWhoseTreeIsLeftHasEndedItsLeaderAllTheSame)
{
    fake_next.has_tree = true;
    fake_next.dies_after[PM_STOP_TERMINATE] = 10;
    fake_next.status_at = 60000; // A tracer has it.
    pm_process *p = Spawn();
    pm_stop_plan plan = Plan({{PM_STOP_TERMINATE, PM_SCOPE_TREE, 1000}});
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_ERR_TIMEOUT, pm_process_stop(p, &plan, &report));
    EXPECT_TRUE(report.tree_left);
    EXPECT_EQ(1u, report.ended_by);
    pm_exit record = PM_EXIT_INIT;
    ASSERT_EQ(PM_OK, pm_process_wait(p, PM_FOREVER, &record));
    EXPECT_EQ(1u, record.stop_step);
    EXPECT_EQ(PM_STOP_TERMINATE, record.stop_action);
}

TEST_F(Ladder, OneThatDiesWhileItsStepIsDeliveredWasEndedByIt)
{
    fake_next.delivery[PM_STOP_TERMINATE] = 200;
    fake_next.exits_at = 1100; // Of the Ctrl-C, before the one who sent it has come back.
    pm_process *p = Spawn();
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(p, nullptr, &report));
    EXPECT_EQ(1u, report.ended_by);
    EXPECT_GE(report.elapsed_ms, 200u);
    pm_exit record = PM_EXIT_INIT;
    ASSERT_EQ(PM_OK, pm_process_wait(p, 0, &record));
    EXPECT_EQ(1u, record.stop_step);
}

TEST_F(Ladder, ADeadOneIsNotWaitedForLongBecauseOfADelivery)
{
    fake_next.delivery[PM_STOP_TERMINATE] = 60000;
    fake_next.exits_at = 1100;
    pm_process *p = Spawn();
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(p, nullptr, &report));
    EXPECT_EQ(0u, report.ended_by);
    EXPECT_EQ(PM_ERR_TIMEOUT, report.step_results[0]);
    EXPECT_LE(report.elapsed_ms, 100u + PM_STOP_SETTLE_MS + 20u);
}

TEST_F(Ladder, ADeliveryThatHangsIsGivenUp)
{
    fake_next.delivery[PM_STOP_TERMINATE] = 600000;
    pm_process *p = Spawn();
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(p, nullptr, &report));
    EXPECT_EQ(PM_ERR_TIMEOUT, report.step_results[0]);
    EXPECT_EQ(5000u, report.elapsed_ms);
    EXPECT_EQ(2u, report.ended_by);
}

TEST_F(Ladder, DeliveriesOfManyGoOnTogetherAndTheLastStepKeepsItsTime)
{
    fake_next.delivery[PM_STOP_TERMINATE] = 600000;
    for (int i = 0; i < 30; i++) {
        Spawn();
    }
    int64_t before = fake_clock;
    pm_stop_all_report report = PM_STOP_ALL_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_stop_all(manager, 1000, nullptr, nullptr, &report));
    EXPECT_EQ(before + 750, fake_clock);
    EXPECT_EQ(30u, report.stopped);
    EXPECT_EQ(30u, report.undelivered);
    EXPECT_EQ(PM_ERR_TIMEOUT, report.undelivered_code);
    EXPECT_EQ(30u, warnings.size());
}

TEST_F(Ladder, OneThatTheSystemKnowsToBeGoneBeforeWeDoIsWaitedFor)
{
    // Where ends are looked for now and then, a signal may find nobody before the end is noticed.
    fake_next.undeliverable[PM_STOP_TERMINATE] = PM_ERR_GONE;
    fake_next.exits_at = 1000 + 40; // The clock starts at 1000.
    pm_process *p = Spawn();
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(p, nullptr, &report));
    EXPECT_EQ(1u, report.steps_tried);
    EXPECT_EQ(PM_ERR_GONE, report.step_results[0]);
    EXPECT_EQ(0u, report.ended_by);
    EXPECT_EQ(40u, report.elapsed_ms);
}

TEST_F(Ladder, AStepOfAGroupThatIsGoneIsWaitedForIfItsLeaderIsGoneToo)
{
    pm_stop_plan plan = {};
    plan.steps[plan.steps_count++] = {PM_STOP_TERMINATE, PM_SCOPE_GROUP, 5000};
    fake_next.undeliverable[PM_STOP_TERMINATE] = PM_ERR_GONE;
    for (int process : {PM_ERR_GONE, PM_OK}) { // Else it has only left its group.
        fake_next.signal_result = process;
        fake_next.exits_at = fake_clock + 40;
        pm_stop_report report = PM_STOP_REPORT_INIT;
        EXPECT_EQ(process == PM_OK ? PM_ERR_TIMEOUT : PM_OK,
                  pm_process_stop(Spawn(plan), nullptr, &report));
        EXPECT_EQ(process == PM_OK ? 0u : 40u, report.elapsed_ms);
        EXPECT_EQ(PM_ERR_GONE, report.step_results[0]);
        fake_clock += 40;
    }
}

TEST_F(Ladder, TheEndOfTheInputIsToldAsSoonAsThereIsRoom)
{
    for (int64_t room_after : {0, 90, 1000}) {
        int64_t begin = fake_clock;
        fake_next.end_room_at = begin + room_after;
        pm_spec spec = PM_SPEC_INIT;
        spec.owner = "test";
        spec.program = "/bin/fake";
        spec.stdin_slot.kind = PM_STDIO_PIPE;
        pm_process *p = nullptr;
        ASSERT_EQ(PM_OK, pm_spawn(manager, &spec, &p, nullptr));
        held.push_back(p);
        pm_stop_plan plan = Plan(
            {{PM_STOP_CLOSE_STDIN, PM_SCOPE_PROCESS, 500}, {PM_STOP_KILL, PM_SCOPE_PROCESS, 1000}});
        pm_stop_report report = PM_STOP_REPORT_INIT;
        EXPECT_EQ(PM_OK, pm_process_stop(p, &plan, &report));
        bool in_time = room_after < 500;
        EXPECT_EQ(in_time ? PM_OK : PM_ERR_TIMEOUT, report.step_results[0]);
        EXPECT_EQ(in_time ? 1u : 2u, report.ended_by);
        EXPECT_LE(begin + (in_time ? room_after : 500), fake_clock);
        EXPECT_GE(begin + (in_time ? room_after + 20 : 500), fake_clock); // It is looked for.
        pm_exit record = PM_EXIT_INIT;
        ASSERT_EQ(PM_OK, pm_process_wait(p, 0, &record));
        EXPECT_EQ(in_time ? 1u : 2u, record.stop_step);
    }
}

TEST_F(Ladder, AStepOnTheTreeIsDoneOnlyWhenTheTreeIsEmpty)
{
    fake_next.has_tree = true;
    fake_next.dies_after[PM_STOP_TERMINATE] = 10;
    fake_next.tree_dies_after[PM_STOP_KILL] = 30;
    pm_process *p = Spawn();
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(p, nullptr, &report));
    EXPECT_EQ(1u, report.ended_by) << "the process itself heard TERM";
    EXPECT_EQ(2u, report.steps_tried) << "its tree did not";
    EXPECT_FALSE(report.tree_left);
    EXPECT_GE(report.elapsed_ms, (uint32_t)PM_STOP_GRACE_MS + 30);
    EXPECT_LE(report.elapsed_ms, (uint32_t)PM_STOP_GRACE_MS + 30 + 20);
}

TEST_F(Ladder, AStopOnTheProcessAloneLeavesTheTree)
{
    fake_next.has_tree = true;
    fake_next.dies_after[PM_STOP_TERMINATE] = 10;
    pm_process *p = Spawn();
    pm_stop_plan plan = Plan({{PM_STOP_TERMINATE, PM_SCOPE_PROCESS, 1000}});
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(p, &plan, &report));
    EXPECT_EQ(10u, report.elapsed_ms);
    EXPECT_EQ(1u, fake_deliveries_count);
}

TEST_F(Ladder, AStopOfOneAlreadyGoneStillEndsItsTree)
{
    fake_next.exits_at = 1005;
    fake_next.has_tree = true;
    fake_next.tree_dies_after[PM_STOP_TERMINATE] = 40;
    pm_process *p = Spawn();
    fake_clock = 2000;
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(p, nullptr, &report));
    EXPECT_TRUE(report.already_ended);
    EXPECT_EQ(0u, report.ended_by);
    EXPECT_EQ(1u, fake_deliveries_count);
    pm_exit record = PM_EXIT_INIT;
    ASSERT_EQ(PM_OK, pm_process_wait(p, 0, &record));
    EXPECT_EQ(0u, record.stop_step) << "it ended by itself";
}

TEST_F(Ladder, AStopOfOneAlreadyGoneWithoutATreeDoesNothing)
{
    fake_next.exits_at = 1005;
    pm_process *p = Spawn();
    fake_clock = 2000;
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(p, nullptr, &report));
    EXPECT_TRUE(report.already_ended);
    EXPECT_EQ(0u, report.steps_tried);
    EXPECT_EQ(0u, report.elapsed_ms);
    EXPECT_EQ(0u, fake_deliveries_count);
}

TEST_F(Ladder, TellsWhenItIsStillThereAfterTheLastStepAndKeepsTrackingIt)
{
    fake_next.dies_after[PM_STOP_KILL] = 3000; // Longer than the last step waits.
    pm_process *p = Spawn();
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_ERR_TIMEOUT, pm_process_stop(p, nullptr, &report));
    EXPECT_EQ(0u, report.ended_by);
    EXPECT_EQ((uint32_t)(PM_STOP_GRACE_MS + PM_STOP_SETTLE_MS), report.elapsed_ms);
    pm_exit record = PM_EXIT_INIT;
    EXPECT_EQ(PM_ERR_TIMEOUT, pm_process_wait(p, 0, &record));
    EXPECT_EQ(PM_OK, pm_process_wait(p, 5000, &record));
}

TEST_F(Ladder, AZeroTimeoutGoesOnAtOnceAndTheLastOneSettles)
{
    pm_process *p = Spawn();
    fake_next.dies_after[PM_STOP_KILL] = 0;
    pm_stop_plan plan =
        Plan({{PM_STOP_TERMINATE, PM_SCOPE_TREE, 0}, {PM_STOP_KILL, PM_SCOPE_TREE, 0}});
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(p, &plan, &report));
    EXPECT_EQ(0u, report.elapsed_ms);
    EXPECT_EQ(2u, report.ended_by);
}

TEST_F(Ladder, ABadPlanIsRefused)
{
    pm_process *p = Spawn();
    pm_stop_plan plan = Plan({{(pm_stop_action)0, PM_SCOPE_TREE, 0}});
    EXPECT_EQ(PM_ERR_INVALID, pm_process_stop(p, &plan, nullptr));
    plan = Plan({{PM_STOP_KILL, (pm_stop_scope)3, 0}});
    EXPECT_EQ(PM_ERR_INVALID, pm_process_stop(p, &plan, nullptr));
    plan.steps_count = PM_STOP_STEPS_MAX + 1;
    EXPECT_EQ(PM_ERR_INVALID, pm_process_stop(p, &plan, nullptr));
}

TEST_F(Ladder, StopAllStopsAThousandDeafChildrenInParallel)
{
    for (int i = 0; i < 1000; i++) {
        Spawn();
    }
    int64_t before = fake_clock;
    pm_stop_all_report report = PM_STOP_ALL_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_stop_all(manager, -1, nullptr, nullptr, &report));
    EXPECT_EQ(1000u, report.total);
    EXPECT_EQ(1000u, report.stopped);
    EXPECT_EQ(0u, report.left);
    EXPECT_EQ(before + PM_STOP_GRACE_MS, fake_clock);
    EXPECT_EQ(1000u, fake_reaps);
}

TEST_F(Ladder, StopAllCutsAGraceShortSoThatTheKillStillComesBeforeTheDeadline)
{
    Spawn(Plan({{PM_STOP_TERMINATE, PM_SCOPE_TREE, 60000}, {PM_STOP_KILL, PM_SCOPE_TREE, 60000}}));
    int64_t before = fake_clock;
    EXPECT_EQ(PM_OK, pm_stop_all(manager, 4000, nullptr, nullptr, nullptr));
    ASSERT_EQ(2u, fake_deliveries_count);
    EXPECT_EQ(before + 3000, fake_deliveries[1].at);
}

TEST_F(Ladder, StopAllReportsWhatIsLeftAtTheDeadline)
{
    fake_next.dies_after[PM_STOP_KILL] = 20000;
    Spawn();
    pm_stop_all_report report = PM_STOP_ALL_REPORT_INIT;
    EXPECT_EQ(PM_ERR_BUSY, pm_stop_all(manager, 4000, nullptr, nullptr, &report));
    EXPECT_EQ(1u, report.left);
    EXPECT_EQ(5000, fake_clock);
    fake_clock += 30000;
}

TEST_F(Ladder, CloseThatCannotReapEverythingLeavesAUsableManager)
{
    fake_next.dies_after[PM_STOP_KILL] = 20000;
    Spawn();
    pm_stop_all_report report = PM_STOP_ALL_REPORT_INIT;
    EXPECT_EQ(PM_ERR_BUSY, pm_close(manager, 1000, &report));
    EXPECT_EQ(1u, report.left);
    fake_script_clear(&fake_next);
    Spawn();
    struct pm_stats stats = PM_STATS_INIT;
    ASSERT_EQ(PM_OK, pm_stats(manager, &stats));
    EXPECT_EQ(2u, stats.running);
    fake_clock += 30000;
}

TEST_F(Ladder, AHandleFreedEarlyIsStillReapedOnce)
{
    fake_next.exits_at = 1100;
    pm_process_unref(Spawn());
    held.clear();
    fake_clock = 1200;
    EXPECT_GE(pm_dispatch(manager), 0);
    EXPECT_EQ(1u, fake_reaps);
    EXPECT_EQ(1u, fake_closed);
}

struct Heard {
    std::vector<std::string> what;
    pm_manager *manager = nullptr;
    int close_result = 0;
};

void OnEvent(void *user, const pm_event *event)
{
    auto *heard = static_cast<Heard *>(user);
    heard->what.push_back(pm_event_name(event->kind));
}

void OnExit(pm_process *, const pm_exit *, void *user)
{
    auto *heard = static_cast<Heard *>(user);
    heard->what.push_back("callback");
    heard->close_result = pm_close(heard->manager, 0, nullptr);
}

TEST(Events, StartedComesBeforeEndedEvenForOneThatEndsAtOnce)
{
    fake_reset();
    Heard heard;
    pm_options options = PM_OPTIONS_INIT;
    options.loop = PM_LOOP_CALLER;
    options.event = OnEvent;
    options.user = &heard;
    ASSERT_EQ(PM_OK, pm_open(&options, &heard.manager, nullptr));
    fake_next.exits_at = 0;
    pm_spec spec = PM_SPEC_INIT;
    spec.owner = "test";
    spec.program = "/bin/fake";
    spec.on_exit = OnExit;
    spec.user = &heard;
    ASSERT_EQ(PM_OK, pm_spawn(heard.manager, &spec, nullptr, nullptr));
    EXPECT_EQ(2, pm_dispatch(heard.manager));
    EXPECT_EQ((std::vector<std::string>{"started", "ended", "callback"}), heard.what);
    EXPECT_EQ(PM_ERR_WOULD_DEADLOCK, heard.close_result);
    pm_process *p = nullptr;
    EXPECT_EQ(PM_ERR_CLOSED, pm_spawn(heard.manager, &spec, &p, nullptr)) << "marked as closing";
    EXPECT_EQ(PM_OK, pm_close(heard.manager, 0, nullptr));
}

TEST(Events, AFailedStartIsAnErrorWithItsStageAndNothingElse)
{
    fake_reset();
    pm_options options = PM_OPTIONS_INIT;
    options.loop = PM_LOOP_CALLER;
    pm_manager *manager = nullptr;
    ASSERT_EQ(PM_OK, pm_open(&options, &manager, nullptr));
    fake_start_error = PM_ERR_ACCESS;
    fake_start_stage = PM_STAGE_EXEC;
    pm_spec spec = PM_SPEC_INIT;
    spec.owner = "test";
    spec.program = "/bin/fake";
    pm_process *p = nullptr;
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(PM_ERR_ACCESS, pm_spawn(manager, &spec, &p, &error));
    EXPECT_EQ(nullptr, p);
    EXPECT_EQ(PM_STAGE_EXEC, error.stage);
    EXPECT_STREQ("test", error.owner);
    struct pm_stats stats = PM_STATS_INIT;
    ASSERT_EQ(PM_OK, pm_stats(manager, &stats));
    EXPECT_EQ(0u, stats.running);
    EXPECT_EQ(1u, stats.start_failures);
    EXPECT_EQ(PM_OK, pm_close(manager, 0, nullptr));
}

} // namespace
