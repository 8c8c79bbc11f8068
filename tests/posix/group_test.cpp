// Processes that do not stay where they were put.

#include "fixture.h"

#include <signal.h>
#include <unistd.h>

using namespace contract;

namespace
{

// Goes into the group of its parent, and lingers there.
int LeaveGroup(const std::vector<std::string> &)
{
    bool left = setpgid(0, getpgid(getppid())) == 0;
    printf("%s\n", left ? "left" : "stayed");
    fflush(stdout);
    alarm(60);
    pause();
    return 0;
}

const RoleAdder leave_group("leave-group", LeaveGroup);

class Group : public Contract
{
};

TEST_F(Group, ALeaderThatHasLeftItsGroupIsStoppedAllTheSame)
{
    Open();
    Child child({"leave-group"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    ASSERT_EQ("left", ReadLine(process));
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, &report));
    EXPECT_EQ(1u, report.ended_by);
    EXPECT_EQ(SIGTERM, Wait(process).signal);
}

// A polite end may take more output than a pipe holds.
TEST_F(Group, ARunThatIsStoppedIsReadMeanwhile)
{
    Open();
    const char *script = "trap 'head -c 3000000 /dev/zero; exit 6' TERM; echo ready; "
                         "while :; do sleep 0.01; done";
    const char *argv[] = {"sh", "-c", script, nullptr};
    pm_spec spec = PM_SPEC_INIT;
    spec.owner = "group";
    spec.program = "sh";
    spec.argv = argv;
    spec.stop.steps_count = 2;
    spec.stop.steps[0] = {PM_STOP_TERMINATE, PM_SCOPE_PROCESS, 20000};
    spec.stop.steps[1] = {PM_STOP_KILL, PM_SCOPE_TREE, 0};
    pm_run_options options = PM_RUN_OPTIONS_INIT;
    pm_run_result result = PM_RUN_RESULT_INIT;
    options.spec = &spec;
    options.timeout_ms = 300;
    options.max_output = 10;
    ASSERT_EQ(PM_OK, pm_run(manager, &options, &result, nullptr));
    EXPECT_TRUE(result.timed_out);
    EXPECT_EQ(1u, result.stop.ended_by);
    EXPECT_EQ(6u, result.record.code);
    EXPECT_EQ(3000000u + 6, result.output_size[0] + result.output_dropped[0]);
    pm_run_result_clear(&result);
}

} // namespace
