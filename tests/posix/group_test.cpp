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

} // namespace
