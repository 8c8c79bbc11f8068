// The loop of pm_run() over the scripted backend: what it waits for, and for how long, exactly.

#include <gtest/gtest.h>

#include <string>
#include <vector>

extern "C" {
#include <processmgr/processmgr.h>

#include "os.h"
}

namespace
{

class RunLoop : public testing::Test
{
  protected:
    void SetUp() override
    {
        fake_reset();
        Open();
    }

    void TearDown() override
    {
        pm_run_result_clear(&result);
        EXPECT_EQ(PM_OK, pm_close(manager, 10000000, nullptr));
        EXPECT_EQ(fake_started, fake_closed) << "a process was not closed";
    }

    void Open(uint32_t drain_ms = 250)
    {
        pm_options with = PM_OPTIONS_INIT;
        with.loop = PM_LOOP_CALLER;
        with.drain_ms = drain_ms;
        ASSERT_EQ(PM_OK, pm_open(&with, &manager, nullptr));
    }

    int Do()
    {
        pm_spec spec = PM_SPEC_INIT;
        spec.owner = "test";
        spec.program = "/bin/fake";
        spec.stdin_slot.kind = input_kind;
        spec.stop.steps_count = 1;
        spec.stop.steps[0] = {PM_STOP_KILL, PM_SCOPE_TREE, 1000};
        options.spec = &spec;
        return pm_run(manager, &options, &result, &error);
    }

    pm_stdio_kind input_kind = PM_STDIO_DEFAULT;
    pm_manager *manager = nullptr;
    pm_run_options options = PM_RUN_OPTIONS_INIT;
    pm_run_result result = PM_RUN_RESULT_INIT;
    pm_error error = PM_ERROR_INIT;
};

TEST_F(RunLoop, SleepsUntilTheEnd)
{
    fake_next.exits_at = 3600000;
    fake_next.code = 3;
    EXPECT_EQ(PM_OK, Do());
    EXPECT_EQ(3600000, fake_clock);
    EXPECT_EQ(3u, result.record->code);
    EXPECT_FALSE(result.timed_out);
    EXPECT_GE(5u, fake_transfers);
}

TEST_F(RunLoop, TellsTheEndOfTheInputAsSoonAsThereIsRoom)
{
    fake_next.end_room_at = 1090;
    input_kind = PM_STDIO_PIPE;
    EXPECT_EQ(PM_OK, Do());
    EXPECT_EQ(1100, fake_clock);
    EXPECT_FALSE(result.timed_out);
    EXPECT_GE(20u, fake_transfers);
}

TEST_F(RunLoop, ADeadlineBeginsTheStop)
{
    options.timeout_ms = 500;
    EXPECT_EQ(PM_OK, Do());
    EXPECT_TRUE(result.timed_out);
    EXPECT_EQ(1u, result.stop->ended_by);
    ASSERT_EQ(1u, fake_deliveries_count);
    EXPECT_EQ(1500, fake_deliveries[0].at);
    EXPECT_EQ(1500, fake_clock);
}

TEST_F(RunLoop, ReadsWhileAStepIsBeingDelivered)
{
    options.timeout_ms = 500;
    fake_next.output_every = 10;
    fake_next.delivery[PM_STOP_KILL] = 400;
    EXPECT_EQ(PM_OK, Do());
    EXPECT_EQ(1u, result.stop->ended_by);
    EXPECT_GE(result.output_size[0], 85u) << "a byte every 10 ms, for 900";
    EXPECT_EQ(0u, fake_steps);
}

TEST_F(RunLoop, AFailureWhileAStepIsBeingDeliveredLeavesNoStep)
{
    options.timeout_ms = 500;
    fake_next.output_every = 10;
    fake_next.fails_at = 1700;
    fake_next.delivery[PM_STOP_KILL] = 400;
    EXPECT_EQ(PM_ERR_IO, Do());
    fake_clock += 1000;
    EXPECT_EQ(0u, fake_steps);
}

TEST_F(RunLoop, WaitsForAPendingStatusWithoutSpinning)
{
    for (int64_t timeout_ms : {0, 20, 100}) {
        fake_clock = 1000;
        fake_transfers = 0;
        fake_next.exits_at = timeout_ms == 20 ? FAKE_NEVER : 1010; // 20: it dies of the stop.
        fake_next.status_at = 21010;
        fake_next.code = 3;
        options.timeout_ms = timeout_ms;
        if (timeout_ms == 0) {
            EXPECT_EQ(PM_OK, Do());
            EXPECT_EQ(PM_EXIT_EXITED, result.record->kind) << "a child's is never lost by time";
            EXPECT_EQ(3u, result.record->code);
            EXPECT_GE(21040, fake_clock);
            EXPECT_LE(21010, fake_clock);
        } else { // But with a limit of time nobody waits for a tracer.
            EXPECT_EQ(PM_ERR_TIMEOUT, Do());
            EXPECT_TRUE(result.timed_out);
            EXPECT_GE(1000 + timeout_ms + PM_STOP_SETTLE_MS + 500, fake_clock); // And drain_ms.
        }
        EXPECT_GE(1200u, fake_transfers) << timeout_ms;
        EXPECT_STREQ("", result.output[0]);
        pm_run_result_clear(&result);
    }
}

TEST_F(RunLoop, WhoOnlyHoldsTheOutputIsLeftAloneAlsoNearTheDeadline)
{
    fake_next.exits_at = 1090;
    fake_next.holds_output = FAKE_NEVER;
    fake_next.has_tree = true;
    options.timeout_ms = 100;
    EXPECT_EQ(PM_OK, Do());
    EXPECT_FALSE(result.timed_out);
    EXPECT_TRUE(result.record->stdout_truncated);
    EXPECT_TRUE(result.record->stderr_truncated);
    EXPECT_EQ(0u, fake_deliveries_count);
    EXPECT_EQ(1340, fake_clock);
}

TEST_F(RunLoop, ALongDrainEndsWithTheDeadline)
{
    ASSERT_EQ(PM_OK, pm_close(manager, 0, nullptr));
    Open(3600000);
    fake_next.exits_at = 1090;
    fake_next.holds_output = 10000000;
    fake_next.has_tree = true;
    options.timeout_ms = 5000;
    EXPECT_EQ(PM_OK, Do());
    EXPECT_TRUE(result.timed_out);
    EXPECT_TRUE(result.stop->already_ended);
    EXPECT_TRUE(result.record->stdout_truncated);
    ASSERT_EQ(1u, fake_deliveries_count);
    EXPECT_EQ(6000, fake_deliveries[0].at);
    EXPECT_EQ(6000 + PM_STOP_SETTLE_MS, fake_clock);
}

// Here it even escapes the stop.
TEST_F(RunLoop, WhoNeverStopsWritingDoesNotHoldItUpForEver)
{
    fake_next.exits_at = 1090;
    fake_next.holds_output = FAKE_NEVER;
    fake_next.output_every = 10;
    options.timeout_ms = 5000;
    options.max_output = 3;
    EXPECT_EQ(PM_OK, Do());
    EXPECT_TRUE(result.timed_out);
    EXPECT_TRUE(result.stop->already_ended);
    EXPECT_TRUE(result.record->stdout_truncated);
    EXPECT_STREQ("bbb", result.output[0]);
    EXPECT_LE(500u, result.output_dropped[0]);
    EXPECT_LE(6000 + PM_STOP_SETTLE_MS, fake_clock);
    EXPECT_GE(6001 + PM_STOP_SETTLE_MS, fake_clock);
}

TEST_F(RunLoop, WhatSurvivesTheStopIsGivenBackAsItIs)
{
    fake_next.dies_after[PM_STOP_KILL] = FAKE_NEVER;
    fake_next.exits_at = 1000000;
    fake_next.output_every = 100;
    options.timeout_ms = 500;
    EXPECT_EQ(PM_ERR_TIMEOUT, Do());
    EXPECT_EQ(PM_ERR_TIMEOUT, error.code);
    EXPECT_STREQ("run", error.action);
    EXPECT_TRUE(result.timed_out);
    EXPECT_EQ(PM_ERR_TIMEOUT, result.stop->result);
    EXPECT_LE(5u, result.output_size[0]);
    EXPECT_EQ(2500, fake_clock);
}

TEST_F(RunLoop, AStartThatTakesTooLongIsAResultThatCanBeRead)
{
    for (int64_t timeout_ms : {0, 500}) { // The fake one has taken no time.
        fake_start_error = PM_ERR_TIMEOUT;
        fake_start_stage = PM_STAGE_EXEC;
        options.timeout_ms = timeout_ms;
        EXPECT_EQ(PM_ERR_TIMEOUT, Do());
        EXPECT_EQ(PM_ERR_TIMEOUT, error.code);
        EXPECT_EQ(PM_STAGE_EXEC, error.stage);
        EXPECT_STREQ("start", error.action);
        ASSERT_NE(nullptr, result.record);
        EXPECT_EQ(sizeof *result.record, result.record->size);
        EXPECT_EQ(0, result.record->kind);
        ASSERT_NE(nullptr, result.stop);
        EXPECT_EQ(sizeof *result.stop, result.stop->size);
        EXPECT_EQ(0u, result.stop->steps_tried);
        EXPECT_STREQ("", result.output[0]);
        EXPECT_STREQ("", result.output[1]);
        EXPECT_FALSE(result.timed_out);
        pm_run_result_clear(&result);
    }
}

TEST_F(RunLoop, AFailureInTheMiddleKillsTheTreeAndGivesNothing)
{
    fake_next.output_fails = true;
    EXPECT_EQ(PM_ERR_IO, Do());
    EXPECT_EQ(PM_ERR_IO, error.code);
    EXPECT_EQ(PM_STAGE_WAIT, error.stage);
    EXPECT_EQ(nullptr, result.output[0]);
    ASSERT_EQ(1u, fake_deliveries_count);
    EXPECT_EQ(PM_STOP_KILL, fake_deliveries[0].action);
    EXPECT_EQ(PM_SCOPE_TREE, fake_deliveries[0].scope);
}

} // namespace
