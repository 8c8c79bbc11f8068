// Daemons and the jobs around their starter.

#include "fixture.h"

#include <windows.h>

extern "C" {
#include "sys.h"
}

using namespace contract;

namespace
{

// Starts one daemon, tells how that went, and stays. args: registry, payload file, result file,
// whether an outer job is accepted.
int DaemonStarter(const std::vector<std::string> &a)
{
    pm_options options = PM_OPTIONS_INIT;
    options.registry_dir = a.at(0).c_str();
    pm_manager *manager = nullptr;
    pm_error error = PM_ERROR_INIT;
    pm_process *process = nullptr;
    Child daemon({"payload", a.at(1)});
    daemon->mode = PM_MODE_DAEMON;
    daemon->key = "d";
    daemon->accept_outer_job = a.at(3) == "accept";
    int code = pm_open(&options, &manager, &error);
    if (code == PM_OK) {
        code = pm_spawn(manager, daemon.Get(), &process, &error);
    }
    std::string text = pm_error_name(code);
    if (code == PM_OK) {
        pm_info info = PM_INFO_INIT;
        (void)pm_process_info(process, &info);
        text += " detachment " + std::to_string(info.detachment);
    } else {
        text += " stage " + std::to_string(error.stage) + " field " + error.field;
    }
    WriteFile(a.at(2), text + "\n");
    Sleep(60000);
    return 0;
}
const RoleAdder daemon_starter("daemon-starter", DaemonStarter);

// What a program can tell of its own birth. args: result file.
int BirthFacts(const std::vector<std::string> &a)
{
    DWORD mode = 0;
    HANDLE console = CreateFileW(L"CONOUT$", GENERIC_READ | GENERIC_WRITE, FILE_SHARE_WRITE,
                                 nullptr, OPEN_EXISTING, 0, nullptr);
    bool has_console = console != INVALID_HANDLE_VALUE && GetConsoleMode(console, &mode);
    BOOL in_job = FALSE;
    IsProcessInJob(GetCurrentProcess(), nullptr, &in_job);
    char line[32768];
    WideCharToMultiByte(CP_UTF8, 0, GetCommandLineW(), -1, line, sizeof line, nullptr, nullptr);
    WriteFile(a.at(0), std::string("console ") + (has_console ? "1" : "0") + " job " +
                           (in_job ? "1" : "0") + " line " + line + "\n");
    return 0;
}
const RoleAdder birth_facts("birth-facts", BirthFacts);

class Job : public Contract
{
  protected:
    void TearDown() override
    {
        if (starter != nullptr) {
            TerminateProcess(starter, 1);
            WaitForSingleObject(starter, 10000);
            CloseHandle(starter);
        }
        if (manager == nullptr) {
            Open(); // The base ends what is in the registry.
            EXPECT_EQ(PM_OK, pm_recover(manager, nullptr, nullptr, nullptr));
        }
        Contract::TearDown();
    }

    // Runs the starter in a job with these limits (0: in none) and returns what it told.
    std::string Start(DWORD limits, bool accept = false)
    {
        std::string file = folder + "/result";
        std::string line = "\"" + SelfPath() + "\" --role daemon-starter \"" + folder +
                           "/registry\" \"" + Payload() + "\" \"" + file + "\" " +
                           (accept ? "accept" : "refuse");
        if (limits != 0) {
            job = CreateJobObjectW(nullptr, nullptr);
            JOBOBJECT_EXTENDED_LIMIT_INFORMATION info = {};
            info.BasicLimitInformation.LimitFlags = limits;
            EXPECT_TRUE(SetInformationJobObject(job, JobObjectExtendedLimitInformation, &info,
                                                sizeof info));
        }
        STARTUPINFOA startup = {};
        startup.cb = sizeof startup;
        PROCESS_INFORMATION info = {};
        EXPECT_TRUE(CreateProcessA(nullptr, &line[0], nullptr, nullptr, FALSE,
                                   CREATE_SUSPENDED | CREATE_NO_WINDOW, nullptr, nullptr, &startup,
                                   &info));
        if (job != nullptr) {
            EXPECT_TRUE(AssignProcessToJobObject(job, info.hProcess));
        }
        ResumeThread(info.hThread);
        CloseHandle(info.hThread);
        starter = info.hProcess;
        std::string text;
        EXPECT_TRUE(Eventually([&] {
            text = ReadFile(file);
            return text.find('\n') != std::string::npos;
        }));
        return text;
    }

    std::string Payload() const
    {
        return folder + "/payload";
    }

    uint64_t AwaitPayload()
    {
        std::string text;
        EXPECT_TRUE(Eventually([&] {
            text = ReadFile(Payload());
            return text.find('\n') != std::string::npos;
        }));
        return NumberAfter(text, "pid ");
    }

    void EndJob()
    {
        CloseHandle(job); // The last handle: kill-on-close does the rest.
        job = nullptr;
        EXPECT_EQ(static_cast<DWORD>(WAIT_OBJECT_0),
                  WaitForSingleObject(starter, static_cast<DWORD>(Patience())));
    }

    uint64_t Recovered()
    {
        Open();
        pm_recover_report report = PM_RECOVER_REPORT_INIT;
        EXPECT_EQ(PM_OK, pm_recover(manager, nullptr, nullptr, &report));
        return report.alive;
    }

    HANDLE job = nullptr, starter = nullptr;
};

std::string Told(pm_detachment detachment)
{
    return "PM_OK detachment " + std::to_string(detachment) + "\n";
}

TEST_F(Job, WithoutOneTheDaemonSurvivesItsStarter)
{
    ASSERT_EQ(Told(PM_DETACH_FREE), Start(0));
    uint64_t pid = AwaitPayload();
    TerminateProcess(starter, 1);
    WaitForSingleObject(starter, static_cast<DWORD>(Patience()));
    EXPECT_TRUE(PidAlive(pid));
    EXPECT_EQ(1u, Recovered());
}

TEST_F(Job, ThatKillsOnCloseAndAllowsBreakawayIsSurvived)
{
    ASSERT_EQ(Told(PM_DETACH_BREAKAWAY),
              Start(JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE | JOB_OBJECT_LIMIT_BREAKAWAY_OK));
    uint64_t pid = AwaitPayload();
    EndJob();
    EXPECT_TRUE(PidAlive(pid));
    EXPECT_EQ(1u, Recovered());
}

TEST_F(Job, ThatForbidsBreakawayMakesTheStartFail)
{
    EXPECT_EQ("PM_ERR_NOT_DETACHABLE stage " + std::to_string(PM_STAGE_JOB) +
                  " field accept_outer_job\n",
              Start(JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE));
    EndJob();
    EXPECT_EQ("", ReadFile(Payload())) << "the program ran";
    EXPECT_EQ(0u, Recovered());
}

TEST_F(Job, ThatIsAcceptedHoldsTheDaemon)
{
    // Any limit but the two that matter.
    ASSERT_EQ(Told(PM_DETACH_IN_JOB), Start(JOB_OBJECT_LIMIT_DIE_ON_UNHANDLED_EXCEPTION, true));
    uint64_t pid = AwaitPayload();
    TerminateJobObject(job, 1);
    EXPECT_TRUE(Eventually([&] { return !PidAlive(pid); }));
    EXPECT_EQ(0u, Recovered());
    CloseHandle(job);
    job = nullptr;
}

TEST_F(Job, ThatKillsOnCloseIsNotAccepted)
{
    if (OnWine()) {
        GTEST_SKIP() << "Wine 8 reports no limits of a job";
    }
    EXPECT_EQ("PM_ERR_NOT_DETACHABLE stage " + std::to_string(PM_STAGE_JOB) +
                  " field accept_outer_job\n",
              Start(JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE, true));
    EndJob();
}

// A child of ours is in a job of ours. As on POSIX it may start daemons that outlive it.
TEST_F(Job, AManagedChildStartsADaemonThatOutlivesIt)
{
    std::string result = folder + "/result";
    {
        Open(DefaultOptions(), false);
        Child child({"daemon-starter", folder + "/registry", Payload(), result, "refuse"});
        child->die_with_parent = true;
        pm_process *process = Spawn(child);
        EXPECT_TRUE(Eventually([&] { return ReadFile(result).find('\n') != std::string::npos; }));
        EXPECT_EQ(Told(PM_DETACH_BREAKAWAY), ReadFile(result));
        uint64_t pid = AwaitPayload();
        pm_stop_plan plan = {};
        plan.steps_count = 1;
        plan.steps[0] = {PM_STOP_KILL, PM_SCOPE_TREE, 15000};
        EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, nullptr));
        EXPECT_TRUE(PidAlive(pid));
        EXPECT_EQ(PM_OK, Close());
        EXPECT_TRUE(PidAlive(pid));
    }
    EXPECT_EQ(1u, Recovered());
}

// ------------------------------------------------------------------------------------------------
// The call itself
// ------------------------------------------------------------------------------------------------

struct Call {
    std::wstring application, line;
    unsigned long flags;
};
std::vector<Call> calls;

void NoteCall(const wchar_t *application, const wchar_t *line, unsigned long flags)
{
    calls.push_back({application, line, flags});
}

class CreateCall : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
        calls.clear();
        pmi_test_create_process_hook = NoteCall;
    }

    void TearDown() override
    {
        pmi_test_create_process_hook = nullptr;
        Contract::TearDown();
    }
};

bool InAJob()
{
    BOOL inside = FALSE;
    IsProcessInJob(GetCurrentProcess(), nullptr, &inside);
    return inside;
}

TEST_F(CreateCall, OfADaemonIsOneAndDetached)
{
    std::string file = folder + "/facts";
    Child child({"birth-facts", file});
    child->mode = PM_MODE_DAEMON;
    child->key = "d";
    pm_process *process = Spawn(child);
    ASSERT_NE(nullptr, process);
    ASSERT_EQ(InAJob() ? 2u : 1u, calls.size()) << "no launcher; a probe only inside a job";
    const Call &call = calls.back();
    EXPECT_EQ(static_cast<unsigned long>(DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP),
              call.flags & (DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP | CREATE_NO_WINDOW |
                            CREATE_NEW_CONSOLE));
    EXPECT_NE(0u, call.flags & CREATE_SUSPENDED) << "nothing runs before it is recorded";
    // What arrived, told by the program itself: no console, and its own arguments alone.
    std::string text;
    ASSERT_TRUE(Eventually([&] {
        text = ReadFile(file);
        return text.find('\n') != std::string::npos;
    }));
    std::string quoted =
        SelfPath().find(' ') == std::string::npos ? SelfPath() : "\"" + SelfPath() + "\"";
    EXPECT_EQ("console 0 job 1 line " + quoted + " --role birth-facts " + file + "\n", text);
    Wait(process);
}

TEST_F(CreateCall, OfAChildIsOneAndNotDetached)
{
    Child child({"both"});
    child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    ASSERT_EQ(1u, calls.size());
    EXPECT_EQ(0u, calls[0].flags & (DETACHED_PROCESS | CREATE_NEW_PROCESS_GROUP));
    EXPECT_EQ(0u, calls[0].flags & CREATE_SUSPENDED) << "in its job from birth";
    Wait(process);
}

} // namespace
