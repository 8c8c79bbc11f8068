// Children that somebody else holds: a tracer that does not let go of them, a keeper that is
// stopped. A start has its deadline all the same, and nobody spins.
#ifdef __linux__
#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <iostream>
#include <thread>

#include "busy.h"
#include "fixture.h"
#include "pmi_config.h"

using namespace contract;

namespace
{

using Args = std::vector<std::string>;

void Say(const std::string &line)
{
    std::cout << line << std::endl;
}

void AwaitLine()
{
    std::string line;
    std::getline(std::cin, line);
}

void AllowAnyTracer()
{
    (void)prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0); // Where Yama asks for it.
}

// Traces a process, and lets it go on at every stop. With "children" those that it makes are traced
// as well, from their first moment on, and go nowhere; its threads are not. Collects nobody. args:
// pid ["children"]
int Tracer(const Args &args)
{
    pid_t pid = std::stoi(args.at(0));
    long options = args.size() > 1 ? PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK : 0;
    if (ptrace(PTRACE_SEIZE, pid, nullptr, options) != 0) {
        Say("no");
        return 0;
    }
    Say("traced");
    if (args.size() == 1)
        for (;;)
            pause();
    int status = 0;
    while (waitpid(pid, &status, __WALL) == pid)
        (void)ptrace(PTRACE_CONT, pid, nullptr,
                     WIFSTOPPED(status) && status >> 16 == 0 ? WSTOPSIG(status) : 0);
    return 0;
}

const RoleAdder tracer("tracer", Tracer);

// Can be traced by anybody, and ends when it is killed.
int Traceable(const Args &)
{
    AllowAnyTracer();
    Say("ready");
    for (;;)
        pause();
}

const RoleAdder traceable("traceable", Traceable);

// A host that starts one child once it is told to, and says how that went. When it has been told
// that nobody holds the child any more, it says whether that has been waited for. args: ["fork"]
int StartingHost(const Args &args)
{
    AllowAnyTracer();
    pm_manager *manager = nullptr;
    pm_error error = PM_ERROR_INIT;
    if (pm_open(nullptr, &manager, &error) != PM_OK)
        return 1;
    Say("ready");
    AwaitLine();
    Child child({"exit", "0"});
    child->stdin_slot.kind = child->stdout_slot.kind = PM_STDIO_NULL;
    child->start_timeout_ms = 300;
    if (!args.empty())
        child->run_as_user = "0"; // Credentials are changed in a fork.
    Say(pm_error_name(pm_spawn(manager, child.Get(), nullptr, &error)));
    AwaitLine();
    bool gone = Eventually([] {
        siginfo_t info = {};
        return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0;
    });
    Say(gone ? "waited for" : "left");
    return pm_close(manager, -1, nullptr) == PM_OK ? 0 : 1;
}

const RoleAdder starting_host("starting-host", StartingHost);

class Held : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        if (OnValgrind())
            GTEST_SKIP() << "it is traced as the program that it is, not the one that it runs";
    }

    // nullptr: this system does not let one process trace another.
    pm_process *Trace(pm_process *process, bool children)
    {
        Child by({"tracer", std::to_string(pm_process_pid(process))});
        if (children)
            by.args.push_back("children");
        by->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *tracer = Spawn(by);
        return tracer != nullptr && ReadLine(tracer) == "traced" ? tracer : nullptr;
    }

    void Tell(pm_process *process)
    {
        size_t count = 0;
        EXPECT_EQ(PM_OK, pm_stream_write(pm_process_stream(process, PM_STDIN), "\n", 1, Patience(),
                                         &count));
    }

    void StartUnderATracer(bool fork)
    {
        Open();
        if (!fork && AStoppedStartHoldsUs())
            GTEST_SKIP() << "without clone3 a start that is held before its first step holds us";
        Child host(fork ? Args{"starting-host", "fork"} : Args{"starting-host"});
        host->stdin_slot.kind = host->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *process = Spawn(host);
        ASSERT_EQ("ready", ReadLine(process));
        pm_process *tracer = Trace(process, true);
        if (tracer == nullptr)
            GTEST_SKIP() << "nobody may be traced here";
        Tell(process);
        EXPECT_EQ("PM_ERR_TIMEOUT", ReadLine(process));
        EXPECT_TRUE(pm_process_alive(tracer));
        EXPECT_EQ(PM_OK, pm_process_signal(tracer, SIGKILL, PM_SCOPE_PROCESS));
        Tell(process);
        EXPECT_EQ("waited for", ReadLine(process));
        EXPECT_EQ(0u, Wait(process).code);
    }
};

TEST_F(Held, ByATracerAStartHasItsDeadline)
{
    StartUnderATracer(false);
}

TEST_F(Held, ByATracerAForkedStartHasItsDeadline)
{
    if (geteuid() != 0)
        GTEST_SKIP() << "only the superuser may change credentials";
    StartUnderATracer(true);
}

TEST_F(Held, ByATracerAnEndIsPendingAndNobodySpins)
{
    pm_options options = DefaultOptions();
    options.status_pending_ms = 600000;
    Open(options);
    Child child({"traceable"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    ASSERT_EQ("ready", ReadLine(process));
    pm_info info = PM_INFO_INIT;
    ASSERT_EQ(PM_OK, pm_process_info(process, &info));
#if defined(HAVE_KQUEUE) && !defined(PMI_LIBKQUEUE)
    info.best_effort = false;
#endif
    if (info.best_effort)
        GTEST_SKIP() << "without a pidfd the end is not known before the status is";
    pm_process *tracer = Trace(process, false);
    if (tracer == nullptr)
        GTEST_SKIP() << "nobody may be traced here";
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGKILL, PM_SCOPE_PROCESS));
    EXPECT_TRUE(Eventually([&] { return !pm_process_alive(process); }));
    EXPECT_EQ(PM_ERR_STATUS_PENDING, pm_process_wait(process, 0, nullptr));
    EXPECT_FALSE(SomebodySpinsDuring(
        [&] { EXPECT_EQ(PM_ERR_STATUS_PENDING, pm_process_wait(process, 600, nullptr)); }));
    EXPECT_EQ(PM_OK, pm_process_signal(tracer, SIGKILL, PM_SCOPE_PROCESS));
    pm_exit record = Wait(process);
    EXPECT_EQ(PM_EXIT_SIGNALED, record.kind);
    EXPECT_EQ(SIGKILL, record.signal);
}

// ------------------------------------------------------------------------------------------------
// A host that closes descriptors which are not its own
// ------------------------------------------------------------------------------------------------

class ClosedDescriptor : public Contract
{
};

TEST_F(ClosedDescriptor, IsNoEndOfAChild)
{
    Open();
    Child child({"sleep"});
    pm_process *process = Spawn(child);
    const pid_t pid = static_cast<pid_t>(pm_process_pid(process));
    pm_native native;
    ASSERT_EQ(PM_OK, pm_process_exit_waitable(process, &native));
    ASSERT_EQ(0, close(static_cast<int>(native)));
    EXPECT_TRUE(pm_process_alive(process));
    EXPECT_EQ(PM_ERR_TIMEOUT, pm_process_wait(process, 50, nullptr));
    EXPECT_EQ(0, kill(pid, SIGKILL));
    EXPECT_TRUE(Wait(process).signal == SIGKILL || HostGetsNoStatuses());
}

// ------------------------------------------------------------------------------------------------
// A stopped keeper
// ------------------------------------------------------------------------------------------------

std::vector<pid_t> KeepersOfOurs()
{
    std::vector<pid_t> found;
    for (const auto &name : ListFolder("/proc")) {
        std::string stat = ReadFile("/proc/" + name + "/stat");
        size_t end = stat.rfind(')');
        if (stat.find("(pm-keeper)") != std::string::npos && end != std::string::npos &&
            std::stoi(stat.substr(end + 4)) == getpid())
            found.push_back(std::stoi(name));
    }
    return found;
}

class StoppedKeeper : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        if (OnValgrind())
            GTEST_SKIP() << "no thread of ours runs while a child has not exec'd";
        Open();
        pm_process *process = Start(0);
        ASSERT_NE(nullptr, process);
        ASSERT_EQ(1u, KeepersOfOurs().size());
        keeper = KeepersOfOurs()[0];
        ASSERT_EQ(0, kill(keeper, SIGSTOP));
        ASSERT_TRUE(Eventually([&] {
            siginfo_t info = {};
            return waitid(P_PID, static_cast<id_t>(keeper), &info, WSTOPPED | WNOHANG | WNOWAIT) ==
                       0 &&
                   info.si_pid == keeper;
        }));
    }

    void TearDown() override
    {
        GoOn();
        Contract::TearDown();
    }

    void GoOn()
    {
        if (keeper > 1)
            kill(keeper, SIGCONT);
    }

    pm_process *Start(uint32_t timeout_ms, int *ret_code = nullptr, pm_stage *ret_stage = nullptr)
    {
        Child child({"linger"});
        child->stdin_slot.kind = child->stdout_slot.kind = PM_STDIO_NULL;
        child->die_with_parent = true;
        child->start_timeout_ms = timeout_ms;
        pm_error error = PM_ERROR_INIT;
        int code = 0;
        pm_process *process = TrySpawn(child, &code, &error);
        if (ret_code != nullptr)
            *ret_code = code;
        if (ret_stage != nullptr)
            *ret_stage = error.stage;
        return process;
    }

    // A start that takes as long as we like, on a thread of its own, waits for the keeper; another
    // one is not to wait for that.
    void StartBesideOneThatWaits()
    {
        std::atomic<pid_t> tid{0};
        std::atomic<bool> over{false};
        int code = -1;
        std::thread first([&] {
            Child child({"exit", "0"});
            child->stdin_slot.kind = child->stdout_slot.kind = PM_STDIO_NULL;
            child->die_with_parent = true;
            child->start_timeout_ms = static_cast<uint32_t>(2 * Patience());
            const pm_spec *spec = child.Get();
            tid = static_cast<pid_t>(syscall(SYS_gettid));
            code = pm_spawn(manager, spec, nullptr, nullptr);
            over = true;
        });
        // It sleeps nowhere else for long.
        std::string stat = "/proc/self/task/";
        EXPECT_TRUE(Eventually([&] {
            return tid != 0 &&
                   ReadFile(stat + std::to_string(tid) + "/stat").find(") S ") != std::string::npos;
        }));
        int second = -1;
        EXPECT_EQ(nullptr, Start(300, &second));
        EXPECT_EQ(PM_ERR_TIMEOUT, second);
        EXPECT_FALSE(over);
        GoOn();
        first.join();
        EXPECT_EQ(PM_OK, code);
    }

    pid_t keeper = -1;
};

TEST_F(StoppedKeeper, HoldsAStartUpToItsOwnDeadline)
{
    StartBesideOneThatWaits();
}

// The announcements fill the socket, so that even to announce a start takes time.
TEST_F(StoppedKeeper, ThatTakesNoMoreWordHoldsAStartUpToItsOwnDeadline)
{
    for (int fd = 3; fd < 64; fd++) {
        int type = 0;
        const int small = 1;
        socklen_t size = sizeof type;
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET) {
            EXPECT_EQ(0, setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &small, sizeof small));
        }
    }
    pm_stage stage = PM_STAGE_NONE;
    for (int i = 0; i < 40 && stage != PM_STAGE_KEEPER; i++) {
        int code = -1;
        EXPECT_EQ(nullptr, Start(100, &code, &stage));
        ASSERT_EQ(PM_ERR_TIMEOUT, code);
    }
    ASSERT_EQ(PM_STAGE_KEEPER, stage) << "there is always room in the socket";
    StartBesideOneThatWaits();
}

// ------------------------------------------------------------------------------------------------
// A keeper that is started with its manager
// ------------------------------------------------------------------------------------------------

class EarlyKeeper : public Contract
{
  protected:
    void OpenSoon(const char *launcher = nullptr)
    {
        pm_options options = DefaultOptions();
        options.prestart_keeper = true;
        options.launcher_path = launcher;
        Open(options, false);
    }

    int StartOne(pm_error *ret_error = nullptr)
    {
        int code = 0;
        Child child({"exit", "0"});
        child->stdin_slot.kind = child->stdout_slot.kind = PM_STDIO_NULL;
        child->die_with_parent = true;
        pm_process *process = TrySpawn(child, &code, ret_error);
        if (process != nullptr)
            Wait(process);
        return code;
    }
};

TEST_F(EarlyKeeper, IsThereBeforeTheFirstStartAndServesIt)
{
    Open();
    EXPECT_TRUE(KeepersOfOurs().empty()) << "nobody has asked for it";
    EXPECT_EQ(PM_OK, Close());
    OpenSoon();
    ASSERT_TRUE(Eventually([] { return KeepersOfOurs().size() == 1; }));
    pid_t keeper = KeepersOfOurs()[0];
    EXPECT_EQ(PM_OK, StartOne());
    EXPECT_EQ(std::vector<pid_t>{keeper}, KeepersOfOurs());
    EXPECT_EQ(PM_OK, Close());
    EXPECT_TRUE(KeepersOfOurs().empty());
}

TEST_F(EarlyKeeper, ThatHasDiedIsReplacedByTheFirstStart)
{
    OpenSoon();
    ASSERT_TRUE(Eventually([] { return KeepersOfOurs().size() == 1; }));
    pid_t keeper = KeepersOfOurs()[0];
    ASSERT_EQ(0, kill(keeper, SIGKILL));
    // A child that gives up before its exec, for a keeper that is dying only, ends valgrind.
    if (OnValgrind()) {
        EXPECT_TRUE(Eventually([&] {
            const std::string stat = ReadFile("/proc/" + std::to_string(keeper) + "/stat");
            return stat.empty() || stat.find(") Z ") != std::string::npos;
        }));
    }
    EXPECT_EQ(PM_OK, StartOne());
    ASSERT_EQ(1u, KeepersOfOurs().size());
    EXPECT_NE(keeper, KeepersOfOurs()[0]);
}

TEST_F(EarlyKeeper, ThatCannotBeStartedIsToldByTheFirstStart)
{
    OpenSoon("/nowhere/launcher");
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(PM_ERR_NOT_FOUND, StartOne(&error));
    EXPECT_EQ(PM_STAGE_KEEPER, error.stage);
}

} // namespace
#endif
