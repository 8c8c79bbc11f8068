// Process options that only Windows has, read back by the child or on it.

#include "fixture.h"

#include <cstdio>
#include <cstdlib>

#include <windows.h>

extern "C" {
#include "sys.h"
}

using namespace contract;

namespace
{

void Say(const std::string &line)
{
    std::string text = line + "\n";
    fwrite(text.data(), 1, text.size(), stdout);
    fflush(stdout);
}

// args: a file for the answer, or none for stdout.
int OwnClass(const std::vector<std::string> &a)
{
    std::string text = std::to_string(GetPriorityClass(GetCurrentProcess()));
    if (a.empty()) {
        Say(text);
    } else {
        WriteFile(a[0], text + "\n");
    }
    return 0;
}
const RoleAdder own_class("own-class", OwnClass);

std::string Told(const JOBOBJECT_EXTENDED_LIMIT_INFORMATION &info)
{
    char text[256];
    const auto &basic = info.BasicLimitInformation;
    snprintf(text, sizeof text, "flags %lx processes %lu memory %llu job %llu time %lld",
             basic.LimitFlags, basic.ActiveProcessLimit,
             static_cast<unsigned long long>(info.ProcessMemoryLimit),
             static_cast<unsigned long long>(info.JobMemoryLimit),
             static_cast<long long>(basic.PerProcessUserTimeLimit.QuadPart));
    return text;
}

int OwnLimits(const std::vector<std::string> &)
{
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION info = {};
    Say(QueryInformationJobObject(nullptr, JobObjectExtendedLimitInformation, &info, sizeof info,
                                  nullptr)
            ? Told(info)
            : "none");
    return 0;
}
const RoleAdder own_limits("own-limits", OwnLimits);

// Starts one more process, and says how that went.
int StartOne(const std::vector<std::string> &)
{
    std::string line = "\"" + SelfPath() + "\" --role exit 0";
    STARTUPINFOA startup = {};
    startup.cb = sizeof startup;
    PROCESS_INFORMATION info = {};
    BOOL made = CreateProcessA(nullptr, &line[0], nullptr, nullptr, FALSE, 0, nullptr, nullptr,
                               &startup, &info);
    Say(made ? "made" : "error " + std::to_string(GetLastError()));
    return 0;
}
const RoleAdder start_one("start-one", StartOne);

std::vector<std::string> order; // Of calls, with what was set.

void NoteLimits(const JOBOBJECT_EXTENDED_LIMIT_INFORMATION *info)
{
    order.push_back(Told(*info));
}

void NoteStart(const wchar_t *, const wchar_t *, unsigned long)
{
    order.push_back("start");
}

unsigned long GiveHigh(unsigned long)
{
    return HIGH_PRIORITY_CLASS;
}

class Options : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
        order.clear();
    }

    void TearDown() override
    {
        pmi_test_limit_job_hook = nullptr;
        pmi_test_create_process_hook = nullptr;
        pmi_test_priority_hook = nullptr;
        Contract::TearDown();
    }

    std::string Line(Child &child)
    {
        child->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *process = Spawn(child);
        std::string line = process != nullptr ? ReadLine(process) : "";
        Wait(process);
        return line;
    }

    void Refused(Child &child, int code, pm_stage stage, const std::string &field)
    {
        int result = PM_OK;
        pm_error error = PM_ERROR_INIT;
        EXPECT_EQ(nullptr, TrySpawn(child, &result, &error));
        EXPECT_EQ(code, result) << ErrorText(error);
        EXPECT_EQ(stage, error.stage) << ErrorText(error);
        EXPECT_EQ(field, error.field);
    }
};

const struct {
    pm_priority priority;
    DWORD expected;
} classes[] = {
    {PM_PRIORITY_IDLE, IDLE_PRIORITY_CLASS},
    {PM_PRIORITY_BELOW_NORMAL, BELOW_NORMAL_PRIORITY_CLASS},
    {PM_PRIORITY_NORMAL, NORMAL_PRIORITY_CLASS},
    {PM_PRIORITY_ABOVE_NORMAL, ABOVE_NORMAL_PRIORITY_CLASS},
    {PM_PRIORITY_HIGH, HIGH_PRIORITY_CLASS},
};

TEST_F(Options, EachPriorityClassArrives)
{
    for (const auto &c : classes) {
        Child child({"own-class"});
        child->priority_class = c.priority;
        EXPECT_EQ(std::to_string(c.expected), Line(child)) << c.priority;
    }
    Child child({"own-class"});
    EXPECT_EQ(std::to_string(GetPriorityClass(GetCurrentProcess())), Line(child)) << "the default";
}

TEST_F(Options, EachPriorityClassArrivesInADaemon)
{
    for (const auto &c : classes) {
        std::string file = folder + "/class-" + std::to_string(c.priority);
        Child child({"own-class", file});
        child->mode = PM_MODE_DAEMON;
        child->key = file.c_str() + folder.size();
        child->priority_class = c.priority;
        pm_process *process = Spawn(child);
        ASSERT_NE(nullptr, process);
        Wait(process);
        EXPECT_EQ(std::to_string(c.expected) + "\n", ReadFile(file)) << c.priority;
    }
}

// Needs a right: either it is there, or the start says so.
TEST_F(Options, RealtimeIsGivenOrTheStartFails)
{
    Child child({"own-class"});
    child->priority_class = PM_PRIORITY_REALTIME;
    child->stdout_slot.kind = PM_STDIO_PIPE;
    int code = PM_OK;
    pm_error error = PM_ERROR_INIT;
    pm_process *process = TrySpawn(child, &code, &error);
    if (process == nullptr) {
        EXPECT_EQ(PM_ERR_ACCESS, code) << ErrorText(error);
        EXPECT_STREQ("priority_class", error.field);
        return;
    }
    EXPECT_EQ(std::to_string(REALTIME_PRIORITY_CLASS), ReadLine(process));
    Wait(process);
}

TEST_F(Options, AClassThatIsNotGivenFailsTheStartBeforeTheProgramRuns)
{
    std::string file = folder + "/ran";
    pmi_test_priority_hook = GiveHigh;
    for (pm_mode mode : {PM_MODE_NORMAL, PM_MODE_DAEMON}) {
        Child child({"own-class", file});
        child->mode = mode;
        child->key = mode == PM_MODE_DAEMON ? "d" : nullptr;
        child->priority_class = PM_PRIORITY_REALTIME;
        Refused(child, PM_ERR_ACCESS, PM_STAGE_LIMITS, "priority_class");
        child->priority_class = PM_PRIORITY_DEFAULT;
        child->key = mode == PM_MODE_DAEMON ? "other" : nullptr;
        pm_process *process = Spawn(child); // Without a wish there is nothing to look at.
        Wait(process);
        EXPECT_NE("", ReadFile(file)) << "else this test would prove nothing";
        DeleteFileA(file.c_str());
    }
    EXPECT_EQ(2u, Stats().started);
    EXPECT_EQ(2u, Stats().start_failures);
    EXPECT_EQ("", ReadFile(file));
}

pm_job_limits Some()
{
    pm_job_limits limits = {};
    limits.processes = 20;
    limits.process_memory = 512 << 20;
    limits.job_memory = 1024 << 20;
    limits.process_user_ms = 3000;
    return limits;
}

std::string SomeTold(DWORD more)
{
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION info = {};
    info.BasicLimitInformation.LimitFlags =
        JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION | JOB_OBJECT_LIMIT_BREAKAWAY_OK |
        JOB_OBJECT_LIMIT_ACTIVE_PROCESS | JOB_OBJECT_LIMIT_PROCESS_MEMORY |
        JOB_OBJECT_LIMIT_JOB_MEMORY | JOB_OBJECT_LIMIT_PROCESS_TIME | more;
    info.BasicLimitInformation.ActiveProcessLimit = 20;
    info.BasicLimitInformation.PerProcessUserTimeLimit.QuadPart = 30000000;
    info.ProcessMemoryLimit = 512 << 20;
    info.JobMemoryLimit = 1024 << 20;
    return Told(info);
}

TEST_F(Options, TheLimitsOfTheJobAreSetBeforeTheChildIsInIt)
{
    pmi_test_limit_job_hook = NoteLimits;
    pmi_test_create_process_hook = NoteStart;
    Child child({"exit", "0"});
    child->job_limits = Some();
    Wait(Spawn(child));
    EXPECT_EQ((std::vector<std::string>{SomeTold(0), "start"}), order);
    // Each alone, and none.
    for (int i = 0; i < 5; i++) {
        order.clear();
        pm_job_limits all = Some(), one = {};
        one.processes = i == 0 ? all.processes : 0;
        one.process_memory = i == 1 ? all.process_memory : 0;
        one.job_memory = i == 2 ? all.job_memory : 0;
        one.process_user_ms = i == 3 ? all.process_user_ms : 0;
        child->job_limits = one;
        Wait(Spawn(child));
        const char *expected[] = {"flags c08 processes 20 memory 0 job 0 time 0",
                                  "flags d00 processes 0 memory 536870912 job 0 time 0",
                                  "flags e00 processes 0 memory 0 job 1073741824 time 0",
                                  "flags c02 processes 0 memory 0 job 0 time 30000000",
                                  "flags c00 processes 0 memory 0 job 0 time 0"};
        EXPECT_EQ((std::vector<std::string>{expected[i], "start"}), order);
    }
}

TEST_F(Options, TheLimitsOfTheJobArriveInTheChild)
{
    if (OnWine()) {
        GTEST_SKIP() << "Wine 8 reports no limits of a job";
    }
    Child child({"own-limits"});
    child->job_limits = Some();
    EXPECT_EQ(SomeTold(0), Line(child));
}

TEST_F(Options, OneProcessMeansOne)
{
    if (OnWine()) {
        GTEST_SKIP() << "Wine 8 does not enforce limits of a job";
    }
    Child child({"start-one"});
    EXPECT_EQ("made", Line(child));
    child->job_limits.processes = 1;
    EXPECT_EQ("error " + std::to_string(ERROR_NOT_ENOUGH_QUOTA), Line(child));
}

// With the manager's end kill-on-close goes; what else was asked for stays.
TEST_F(Options, LimitsStayWithWhatOutlivesTheManager)
{
    Child child({"tree", "leave"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    child->die_with_parent = true;
    child->job_limits = Some();
    pmi_test_limit_job_hook = NoteLimits;
    pm_process *process = Spawn(child);
    uint64_t grandchild = NumberAfter(ReadLine(process), "grandchild ");
    Wait(process);
    EXPECT_EQ(std::vector<std::string>{SomeTold(JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE)}, order);
    order.clear();
    pm_process_unref(process);
    held.clear();
    EXPECT_EQ(PM_OK, Close());
    EXPECT_EQ(std::vector<std::string>{SomeTold(0)}, order);
    EXPECT_TRUE(PidAlive(grandchild));
    KillByNumber(grandchild);
}

TEST_F(Options, WhatADaemonOrTheSystemCannotHaveIsRefused)
{
    Child daemon({"exit", "0"});
    daemon->mode = PM_MODE_DAEMON;
    daemon->key = "d";
    for (int i = 0; i < 4; i++) {
        daemon->job_limits = {};
        (i == 0   ? daemon->job_limits.process_memory
         : i == 1 ? daemon->job_limits.job_memory
                  : daemon->job_limits.process_user_ms) = i < 3 ? 1 : 0;
        daemon->job_limits.processes = i == 3;
        Refused(daemon, PM_ERR_UNSUPPORTED, PM_STAGE_CHECK, "job_limits");
    }
    Child child({"exit", "0"});
    child->job_limits.process_user_ms = UINT64_MAX;
    Refused(child, PM_ERR_INVALID, PM_STAGE_CHECK, "job_limits");
}

} // namespace
