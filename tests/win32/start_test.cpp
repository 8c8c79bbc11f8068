// Starts on Windows that go wrong half-way, and hosts that die meanwhile: nothing is left.

#include "fixture.h"

#include <cstring>
#include <cwchar>

#include <windows.h>

#include <tlhelp32.h>

extern "C" {
#include "sys.h"
}

using namespace contract;

namespace
{

// Fails the call of that name for the nth time, or ends this program there.
std::string call_meant;
unsigned call_number, calls_seen;
unsigned long call_code;

unsigned long FailNth(const char *call)
{
    return call == call_meant && calls_seen++ == call_number ? call_code : 0;
}

unsigned long FailEach(const char *call)
{
    return call == call_meant ? call_code : 0;
}

unsigned long DieAt(const char *call)
{
    if (call_meant == "late" && strcmp(call, "JobList") == 0) {
        return ERROR_NOT_SUPPORTED;
    }
    if (strcmp(call, "ResumeThread") == 0) {
        TerminateProcess(GetCurrentProcess(), 9);
    }
    return 0;
}

// A host that is killed while its child is suspended. args: "priority" or "late".
int DyingHost(const std::vector<std::string> &a)
{
    pm_options options = PM_OPTIONS_INIT;
    pm_manager *manager = nullptr;
    Child child({"exit", "0"});
    child->stdin_slot.kind = child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_NULL;
    if (a.at(0) == "priority") {
        child->priority_class = PM_PRIORITY_BELOW_NORMAL;
    }
    call_meant = a.at(0);
    pmi_test_fail_hook = DieAt;
    if (pm_open(&options, &manager, nullptr) == PM_OK) {
        (void)pm_spawn(manager, child.Get(), nullptr, nullptr);
    }
    return 1;
}
const RoleAdder dying_host("dying-host", DyingHost);

unsigned ChildrenOf(uint64_t pid)
{
    unsigned count = 0;
    HANDLE snapshot = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    PROCESSENTRY32W entry = {};
    entry.dwSize = sizeof entry;
    for (BOOL more = Process32FirstW(snapshot, &entry); more;
         more = Process32NextW(snapshot, &entry)) {
        count +=
            entry.th32ParentProcessID == pid && wcsstr(entry.szExeFile, L"win32_stop") != nullptr;
    }
    CloseHandle(snapshot);
    return count;
}

class Start : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
        calls_seen = 0;
    }

    void TearDown() override
    {
        pmi_test_fail_hook = nullptr;
        pmi_test_limit_job_hook = nullptr;
        Contract::TearDown();
    }
};

TEST_F(Start, OfASuspendedChildEndsWithTheHost)
{
    for (const char *how : {"priority", "late"}) {
        Child child({"dying-host", how});
        child->stdin_slot.kind = child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_NULL;
        pm_process *host = nullptr;
        ASSERT_EQ(PM_OK, pm_spawn(manager, child.Get(), &host, nullptr));
        Keep(host);
        EXPECT_EQ(9u, Wait(host).code) << how;
        EXPECT_TRUE(Eventually([&] { return ChildrenOf(pm_process_pid(host)) == 0; })) << how;
    }
}

std::vector<DWORD> flags_of_job;

void NoteFlags(const JOBOBJECT_EXTENDED_LIMIT_INFORMATION *info)
{
    flags_of_job.push_back(info->BasicLimitInformation.LimitFlags &
                           JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE);
}

// And from then on it may outlive the host again.
TEST_F(Start, LeavesKillOnCloseOnlyWhereItWasAskedFor)
{
    const DWORD kills = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE;
    pmi_test_limit_job_hook = NoteFlags;
    for (bool late : {false, true}) {
        call_meant = late ? "JobList" : "";
        call_code = ERROR_NOT_SUPPORTED;
        pmi_test_fail_hook = FailEach;
        for (bool dies : {false, true}) {
            for (pm_priority priority : {PM_PRIORITY_DEFAULT, PM_PRIORITY_BELOW_NORMAL}) {
                Child child({"exit", "0"});
                child->die_with_parent = dies;
                child->priority_class = priority;
                flags_of_job.clear();
                Wait(Spawn(child));
                bool suspended = late || priority != PM_PRIORITY_DEFAULT;
                std::vector<DWORD> expected = {dies ? kills : 0};
                if (suspended && !dies) {
                    expected = {0, kills, 0};
                }
                EXPECT_EQ(expected, flags_of_job) << late << dies << priority;
            }
        }
    }
}

// Before Windows 10 a job cannot be joined at birth.
TEST_F(Start, WithALateJobIsCountedAndTheTreeIsHeld)
{
    call_meant = "JobList";
    call_code = ERROR_NOT_SUPPORTED;
    pmi_test_fail_hook = FailEach;
    for (bool suspended : {false, true}) {
        Child child({"tree"});
        child->stdout_slot.kind = PM_STDIO_PIPE;
        child->priority_class = suspended ? PM_PRIORITY_BELOW_NORMAL : PM_PRIORITY_DEFAULT;
        pm_process *process = Spawn(child);
        uint64_t grandchild = NumberAfter(ReadLine(process), "grandchild ");
        EXPECT_TRUE(PidAlive(grandchild));
        pm_stop_plan plan = {};
        plan.steps_count = 1;
        plan.steps[0] = {PM_STOP_KILL, PM_SCOPE_TREE, 15000};
        EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, nullptr));
        EXPECT_FALSE(PidAlive(grandchild));
    }
    EXPECT_EQ(2u, Stats().fallbacks);
}

TEST_F(Start, WhateverFailsLeavesNothingBehind)
{
    const struct {
        const char *call;
        unsigned long os_code;
        int code;
    } cases[] = {{"CreateFile", ERROR_TOO_MANY_OPEN_FILES, PM_ERR_NO_DESCRIPTORS},
                 {"CreateNamedPipe", ERROR_NOT_ENOUGH_MEMORY, PM_ERR_NO_MEMORY},
                 {"CreateJobObject", ERROR_NOT_ENOUGH_MEMORY, PM_ERR_NO_MEMORY},
                 {"SetInformationJobObject", ERROR_NOT_ENOUGH_MEMORY, PM_ERR_NO_MEMORY},
                 {"DuplicateHandle", ERROR_NOT_ENOUGH_MEMORY, PM_OK},
                 {"CreateProcess", ERROR_NOT_ENOUGH_MEMORY, PM_ERR_NO_MEMORY},
                 {"AssignProcessToJobObject", ERROR_NOT_ENOUGH_MEMORY, PM_ERR_NO_MEMORY},
                 {"GetPriorityClass", ERROR_NOT_ENOUGH_MEMORY, PM_OK}, // Set and asked again.
                 {"ResumeThread", ERROR_NOT_ENOUGH_MEMORY, PM_ERR_NO_MEMORY}};
    unsigned before = ChildrenOf(GetCurrentProcessId());
    for (const auto &one : cases) {
        unsigned failures = 0;
        for (call_number = 0; call_number < 9; call_number++) {
            Child child({"exit", "0"});
            child->stdin_slot.kind = PM_STDIO_NULL;
            child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_PIPE;
            child->priority_class = PM_PRIORITY_BELOW_NORMAL;
            call_meant = one.call;
            call_code = one.os_code;
            calls_seen = 0;
            pmi_test_fail_hook = FailNth;
            int code = PM_OK;
            pm_error error = PM_ERROR_INIT;
            pm_process *process = TrySpawn(child, &code, &error);
            pmi_test_fail_hook = nullptr;
            if (process != nullptr) {
                Wait(process);
                break;
            }
            failures++;
            EXPECT_EQ(one.code, code) << one.call << " " << ErrorText(error);
            EXPECT_EQ(one.os_code, error.os_code) << one.call << " " << ErrorText(error);
            EXPECT_TRUE(Eventually([&] { return ChildrenOf(GetCurrentProcessId()) == before; }))
                << one.call;
        }
        bool must_fail = one.code != PM_OK && strcmp(one.call, "AssignProcessToJobObject") != 0;
        EXPECT_EQ(must_fail, failures > 0) << one.call;
    }
    EXPECT_EQ(0u, Stats().running);
}

TEST_F(Start, WhoseLimitsAreRefusedNamesThem)
{
    for (bool limited : {false, true}) {
        Child child({"exit", "0"});
        child->job_limits.processes = limited ? 20 : 0;
        call_meant = "SetInformationJobObject";
        call_code = ERROR_INVALID_PARAMETER;
        pmi_test_fail_hook = FailEach;
        int code = PM_OK;
        pm_error error = PM_ERROR_INIT;
        EXPECT_EQ(nullptr, TrySpawn(child, &code, &error));
        EXPECT_EQ(PM_STAGE_JOB, error.stage);
        EXPECT_STREQ(limited ? "job_limits" : "", error.field);
    }
}

} // namespace
