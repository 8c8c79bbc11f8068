// Polite ends: Ctrl-C on the console of a child and nowhere else, WM_CLOSE, the stop event, and
// what hears none of them.

#include "fixture.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include <windows.h>

extern "C" {
#include "console.h"
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

// ------------------------------------------------------------------------------------------------
// Children
// ------------------------------------------------------------------------------------------------

HANDLE interrupted;

BOOL WINAPI OnEvent(DWORD event)
{
    if (event == CTRL_C_EVENT) {
        SetEvent(interrupted);
    }
    return TRUE;
}

// Ends with 46 at Ctrl-C.
int Listener(const std::vector<std::string> &)
{
    interrupted = CreateEventW(nullptr, TRUE, FALSE, nullptr);
    SetConsoleCtrlHandler(nullptr, FALSE);
    SetConsoleCtrlHandler(OnEvent, TRUE);
    Say("ready");
    return WaitForSingleObject(interrupted, 60000) == WAIT_OBJECT_0 ? 46 : 1;
}
const RoleAdder listener("listener", Listener);

// The same, with a second one on its console, which is told by its pid. "leaves": it ends at once.
int Pair(const std::vector<std::string> &)
{
    std::string line = "\"" + SelfPath() + "\" --role listener";
    STARTUPINFOA startup = {};
    startup.cb = sizeof startup;
    PROCESS_INFORMATION info = {};
    if (!CreateProcessA(nullptr, &line[0], nullptr, nullptr, FALSE, 0, nullptr, nullptr, &startup,
                        &info)) {
        return 1;
    }
    interrupted = CreateEventW(nullptr, TRUE, FALSE, nullptr);
    SetConsoleCtrlHandler(nullptr, FALSE);
    SetConsoleCtrlHandler(OnEvent, TRUE);
    // On the console: what the helper looks at.
    DWORD pids[8];
    while (GetConsoleProcessList(pids, 8) < 2) {
        Sleep(1);
    }
    Say("second " + std::to_string(info.dwProcessId));
    return WaitForSingleObject(interrupted, 60000) == WAIT_OBJECT_0 ? 46 : 1;
}
const RoleAdder pair("console-pair", Pair);

int Plain(const std::vector<std::string> &)
{
    SetConsoleCtrlHandler(nullptr, FALSE);
    Say("ready");
    Sleep(60000);
    return 1;
}
const RoleAdder plain("plain", Plain);

int WithoutConsole(const std::vector<std::string> &)
{
    FreeConsole();
    Say("ready");
    Sleep(60000);
    return 1;
}
const RoleAdder without_console("without-console", WithoutConsole);

// Gives up its own console and joins that of its parent.
int Joiner(const std::vector<std::string> &)
{
    FreeConsole();
    Say(AttachConsole(ATTACH_PARENT_PROCESS) ? "ready" : "not joined");
    Sleep(60000);
    return 1;
}
const RoleAdder joiner("joiner", Joiner);

LRESULT CALLBACK OnMessage(HWND window, UINT message, WPARAM w, LPARAM l)
{
    if (message == WM_CLOSE) {
        PostQuitMessage(47);
        return 0;
    }
    return DefWindowProcW(window, message, w, l);
}

// A message-only window of the class that is named. "deaf": to Ctrl-C. "alone": without a console.
int Windowed(const std::vector<std::string> &a)
{
    std::wstring name(a.at(0).begin(), a.at(0).end());
    WNDCLASSW type = {};
    type.lpfnWndProc = OnMessage;
    type.hInstance = GetModuleHandleW(nullptr);
    type.lpszClassName = name.c_str();
    SetConsoleCtrlHandler(nullptr, a.size() > 1 && a[1] == "deaf");
    if (a.size() > 1 && a[1] == "alone") {
        FreeConsole();
    }
    if (RegisterClassW(&type) == 0 ||
        CreateWindowExW(0, name.c_str(), L"", 0, 0, 0, 0, 0, HWND_MESSAGE, nullptr, type.hInstance,
                        nullptr) == nullptr) {
        return 1;
    }
    Say("ready");
    MSG message;
    while (GetMessageW(&message, nullptr, 0, 0) > 0) {
        DispatchMessageW(&message);
    }
    return static_cast<int>(message.wParam);
}
const RoleAdder windowed("windowed", Windowed);

// A console program with a window for its own ends, as Tcl, Qt, SDL and .NET make one: WM_CLOSE
// does away with the window, and the program goes on. Ends with 46 at Ctrl-C.
int HiddenWindow(const std::vector<std::string> &)
{
    interrupted = CreateEventW(nullptr, TRUE, FALSE, nullptr);
    SetConsoleCtrlHandler(nullptr, FALSE);
    SetConsoleCtrlHandler(OnEvent, TRUE);
    WNDCLASSW type = {};
    type.lpfnWndProc = DefWindowProcW;
    type.hInstance = GetModuleHandleW(nullptr);
    type.lpszClassName = L"TclNotifier";
    if (RegisterClassW(&type) == 0 ||
        CreateWindowExW(0, type.lpszClassName, L"", 0, 0, 0, 0, 0, HWND_MESSAGE, nullptr,
                        type.hInstance, nullptr) == nullptr) {
        return 1;
    }
    Say("ready");
    for (;;) {
        DWORD which = MsgWaitForMultipleObjects(1, &interrupted, FALSE, 60000, QS_ALLINPUT);
        if (which != WAIT_OBJECT_0 + 1) {
            return which == WAIT_OBJECT_0 ? 46 : 1;
        }
        MSG message;
        while (PeekMessageW(&message, nullptr, 0, 0, PM_REMOVE)) {
            DispatchMessageW(&message);
        }
    }
}
const RoleAdder hidden_window("hidden-window", HiddenWindow);

// Hears nothing.
int Deaf(const std::vector<std::string> &)
{
    SetConsoleCtrlHandler(nullptr, TRUE);
    Say("ready");
    Sleep(60000);
    return 1;
}
const RoleAdder deaf("deaf", Deaf);

// Leaves one behind, on its console and with its stdout, and ends.
int Leaver(const std::vector<std::string> &)
{
    std::string line = "\"" + SelfPath() + "\" --role deaf";
    STARTUPINFOA startup = {};
    startup.cb = sizeof startup;
    startup.dwFlags = STARTF_USESTDHANDLES;
    startup.hStdOutput = startup.hStdError = GetStdHandle(STD_OUTPUT_HANDLE);
    PROCESS_INFORMATION info = {};
    SetHandleInformation(startup.hStdOutput, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT);
    return CreateProcessA(nullptr, &line[0], nullptr, nullptr, TRUE, 0, nullptr, nullptr, &startup,
                          &info)
               ? 0
               : 1;
}
const RoleAdder leaver("leaver", Leaver);

// A daemon that listens to nothing.
int Stone(const std::vector<std::string> &a)
{
    WriteFile(a.at(0), "up\n");
    Sleep(60000);
    return 1;
}
const RoleAdder stone("stone", Stone);

std::string Told(const pm_stop_report &report)
{
    std::string text;
    for (unsigned i = 0; i < report.steps_tried; i++) {
        text += std::string(i > 0 ? " " : "") + pm_error_name(report.step_results[i]);
    }
    return text + " by " + std::to_string(report.ended_by);
}

pm_stop_plan Plan(std::initializer_list<pm_stop_step> steps)
{
    pm_stop_plan plan = {};
    for (const auto &step : steps) {
        plan.steps[plan.steps_count++] = step;
    }
    return plan;
}

const uint32_t hour = 3600000; // A step that nobody hears must take no time at all.
const pm_stop_step kill = {PM_STOP_KILL, PM_SCOPE_TREE, 15000};

// A host with a console that its child is on. args: role of the child, "inherit" or "null".
int ConsoleHost(const std::vector<std::string> &a)
{
    HANDLE in = CreateFileW(L"CONIN$", GENERIC_READ | GENERIC_WRITE,
                            FILE_SHARE_READ | FILE_SHARE_WRITE, nullptr, OPEN_EXISTING, 0, nullptr);
    SetStdHandle(STD_INPUT_HANDLE, in);
    pm_options options = PM_OPTIONS_INIT;
    pm_manager *manager = nullptr;
    pm_process *process = nullptr;
    pm_error error = PM_ERROR_INIT;
    Child child({a.at(0)});
    child->stdin_slot.kind = a.at(1) == "inherit" ? PM_STDIO_INHERIT : PM_STDIO_NULL;
    child->stdout_slot.kind = PM_STDIO_PIPE;
    if (pm_open(&options, &manager, &error) != PM_OK ||
        pm_spawn(manager, child.Get(), &process, &error) != PM_OK) {
        Say(ErrorText(error));
        return 1;
    }
    char line[64] = "";
    size_t count = 0;
    (void)pm_stream_read(pm_process_stream(process, PM_STDOUT), line, sizeof line - 1, Patience(),
                         &count);
    DWORD mode = 0;
    pm_stop_plan plan = Plan(
        {{PM_STOP_INTERRUPT, PM_SCOPE_TREE, hour}, {PM_STOP_TERMINATE, PM_SCOPE_TREE, hour}, kill});
    pm_stop_report report = PM_STOP_REPORT_INIT;
    (void)pm_process_stop(process, &plan, &report);
    Say(std::string(GetConsoleMode(in, &mode) ? "console " : "none ") +
        std::string(line, count > 0 ? count - 1 : 0) + " " + Told(report));
    (void)pm_process_unref(process);
    return pm_close(manager, -1, nullptr) == PM_OK ? 48 : 1;
}
const RoleAdder console_host("console-host", ConsoleHost);

// A host with a console, which it gives to its child by its handle.
int NativeHost(const std::vector<std::string> &)
{
    HANDLE out =
        CreateFileW(L"CONOUT$", GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE,
                    nullptr, OPEN_EXISTING, 0, nullptr);
    DWORD mode = 0;
    static unsigned long flags = 0;
    pmi_test_create_process_hook = [](const wchar_t *, const wchar_t *, unsigned long f) {
        flags = f;
    };
    pm_options options = PM_OPTIONS_INIT;
    pm_manager *manager = nullptr;
    pm_process *process = nullptr;
    Child child({"exit", "0"});
    child->stdin_slot.kind = child->stderr_slot.kind = PM_STDIO_NULL;
    child->stdout_slot.kind = PM_STDIO_NATIVE;
    child->stdout_slot.native = reinterpret_cast<pm_native>(out);
    if (pm_open(&options, &manager, nullptr) != PM_OK ||
        pm_spawn(manager, child.Get(), &process, nullptr) != PM_OK) {
        return 1;
    }
    (void)pm_process_wait(process, Patience(), nullptr);
    Say(std::string(GetConsoleMode(out, &mode) ? "console " : "none ") +
        ((flags & CREATE_NO_WINDOW) != 0 ? "own" : "shared"));
    (void)pm_process_unref(process);
    return pm_close(manager, -1, nullptr) == PM_OK ? 48 : 1;
}
const RoleAdder native_host("native-host", NativeHost);

// ------------------------------------------------------------------------------------------------
// Tests
// ------------------------------------------------------------------------------------------------

class Console : public Contract
{
  protected:
    // Wine makes its desktop, a process, with the first window: a child's first window would put it
    // into the job of that child, whose tree would not end.
    static void SetUpTestSuite()
    {
        static HWND window = CreateWindowExW(0, L"STATIC", L"", 0, 0, 0, 0, 0, HWND_MESSAGE,
                                             nullptr, nullptr, nullptr);
        EXPECT_NE(nullptr, window);
    }

    void SetUp() override
    {
        Contract::SetUp();
        Open();
    }

    pm_process *Start(const std::vector<std::string> &role, std::string *ret_line = nullptr)
    {
        Child child(role);
        child->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *process = Spawn(child);
        std::string line = process != nullptr ? ReadLine(process) : "";
        if (ret_line != nullptr) {
            *ret_line = line;
        } else {
            EXPECT_EQ("ready", line);
        }
        return process;
    }

    static std::string Stop(pm_process *process, std::initializer_list<pm_stop_step> steps)
    {
        pm_stop_plan plan = Plan(steps);
        pm_stop_report report = PM_STOP_REPORT_INIT;
        EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, &report));
        return Told(report);
    }
};

std::atomic<int> host_hits;

BOOL WINAPI CountHits(DWORD)
{
    host_hits++;
    return TRUE;
}

TEST_F(Console, CtrlCEndsTheChildByItsHandlerAndReachesNobodyElse)
{
    host_hits = 0;
    ASSERT_TRUE(SetConsoleCtrlHandler(CountHits, TRUE));
    for (pm_stop_scope scope : {PM_SCOPE_TREE, PM_SCOPE_PROCESS}) {
        pm_process *sibling = Start({"listener"});
        pm_process *process = Start({"listener"});
        EXPECT_EQ("PM_OK by 1", Stop(process, {{PM_STOP_INTERRUPT, scope, 15000}, kill}));
        pm_exit record = Wait(process);
        EXPECT_EQ(46u, record.code);
        EXPECT_EQ(1u, record.stop_step);
        EXPECT_EQ(PM_STOP_INTERRUPT, record.stop_action);
        EXPECT_TRUE(pm_process_alive(sibling));
        EXPECT_EQ("PM_OK by 1", Stop(sibling, {{PM_STOP_INTERRUPT, scope, 15000}, kill}));
        EXPECT_EQ(46u, Wait(sibling).code) << "it was reached by its own alone";
    }
    EXPECT_EQ(0, host_hits);
    ASSERT_TRUE(SetConsoleCtrlHandler(CountHits, FALSE));
}

TEST_F(Console, CtrlCEndsOneWithoutAHandler)
{
    pm_process *process = Start({"plain"});
    EXPECT_EQ("PM_OK by 1", Stop(process, {{PM_STOP_INTERRUPT, PM_SCOPE_TREE, 15000}, kill}));
    // Of Wine 8 it is 0.
    EXPECT_EQ(OnWine() ? 0u : 0xc000013au, Wait(process).code);
}

TEST_F(Console, TerminateIsCtrlCForOneThatHasNeitherEventNorWindow)
{
    pm_process *process = Start({"listener"});
    EXPECT_EQ("PM_OK by 1", Stop(process, {{PM_STOP_TERMINATE, PM_SCOPE_TREE, 15000}, kill}));
    EXPECT_EQ(46u, Wait(process).code);
    process = Start({"listener"});
    EXPECT_EQ("PM_OK by 1", Stop(process, {{PM_STOP_TERMINATE, PM_SCOPE_PROCESS, 15000}, kill}));
    EXPECT_EQ(46u, Wait(process).code);
}

TEST_F(Console, AllOnTheConsoleHearAndOneAloneCannotBeMeant)
{
    std::string line;
    pm_process *process = Start({"console-pair"}, &line);
    uint64_t second = NumberAfter(line, "second ");
    EXPECT_EQ("PM_ERR_UNSUPPORTED PM_OK by 2",
              Stop(process, {{PM_STOP_INTERRUPT, PM_SCOPE_PROCESS, hour},
                             {PM_STOP_INTERRUPT, PM_SCOPE_TREE, 15000},
                             kill}));
    EXPECT_EQ(46u, Wait(process).code);
    EXPECT_FALSE(PidAlive(second));
}

TEST_F(Console, OneThatHasLeftItsConsoleHearsNothing)
{
    pm_process *process = Start({"without-console"});
    EXPECT_EQ("PM_ERR_UNSUPPORTED PM_ERR_UNSUPPORTED PM_OK by 3",
              Stop(process, {{PM_STOP_INTERRUPT, PM_SCOPE_TREE, hour},
                             {PM_STOP_TERMINATE, PM_SCOPE_TREE, hour},
                             kill}));
}

// The host of these is a child of ours with a console of its own: it has to live to tell.
TEST_F(Console, OneThatSharesTheHostsConsoleDoesNotTakeTheHostAlong)
{
    Child child({"console-host", "plain", "inherit"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *host = Spawn(child);
    EXPECT_EQ("console ready PM_ERR_UNSUPPORTED PM_ERR_UNSUPPORTED PM_OK by 3", ReadLine(host));
    EXPECT_EQ(48u, Wait(host).code);
}

TEST_F(Console, OneThatHasJoinedTheHostsConsoleDoesNotTakeTheHostAlong)
{
    Child child({"console-host", "joiner", "null"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *host = Spawn(child);
    EXPECT_EQ("console ready PM_ERR_UNSUPPORTED PM_ERR_UNSUPPORTED PM_OK by 3", ReadLine(host));
    EXPECT_EQ(48u, Wait(host).code);
}

// In a console of its own it would write to nobody.
TEST_F(Console, OneThatIsGivenAHandleOfTheHostsConsoleSharesIt)
{
    Child child({"native-host"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *host = Spawn(child);
    EXPECT_EQ("console shared", ReadLine(host));
    EXPECT_EQ(48u, Wait(host).code);
}

TEST_F(Console, AMessageOnlyWindowIsClosed)
{
    pm_process *process = Start({"windowed", "pm-test-window", "deaf"});
    EXPECT_EQ("PM_OK by 1", Stop(process, {{PM_STOP_TERMINATE, PM_SCOPE_TREE, 15000}, kill}));
    EXPECT_EQ(47u, Wait(process).code);
    process = Start({"windowed", "pm-test-window", "deaf"});
    EXPECT_EQ("PM_OK by 1", Stop(process, {{PM_STOP_TERMINATE, PM_SCOPE_PROCESS, 15000}, kill}));
    EXPECT_EQ(47u, Wait(process).code);
}

// It counts where there is no console to be asked on.
TEST_F(Console, AMessageOnlyWindowIsEnoughForOneWithoutAConsole)
{
    for (pm_stop_scope scope : {PM_SCOPE_TREE, PM_SCOPE_PROCESS}) {
        pm_process *process = Start({"windowed", "pm-test-window", "alone"});
        EXPECT_EQ("PM_OK by 1", Stop(process, {{PM_STOP_TERMINATE, scope, 15000}, kill}));
        EXPECT_EQ(47u, Wait(process).code);
    }
}

TEST_F(Console, AWindowThatNobodySeesDoesNotKeepTheCtrlCAway)
{
    for (pm_stop_scope scope : {PM_SCOPE_TREE, PM_SCOPE_PROCESS}) {
        pm_process *process = Start({"hidden-window"});
        EXPECT_EQ("PM_OK by 1", Stop(process, {{PM_STOP_TERMINATE, scope, 15000}, kill}));
        EXPECT_EQ(46u, Wait(process).code);
    }
}

// Closing such a window would end nobody, and the Ctrl-C would not be sent.
TEST_F(Console, WindowsThatTheSystemMakesAreLeftAlone)
{
    pm_process *process = Start({"windowed", "OleMainThreadWndClass"});
    EXPECT_EQ("PM_OK by 1", Stop(process, {{PM_STOP_TERMINATE, PM_SCOPE_TREE, 15000}, kill}));
    EXPECT_NE(47u, Wait(process).code) << "by Ctrl-C";
}

TEST_F(Console, TheEndOfTheInputIsHeardByOneThatReads)
{
    Child child({"ready"});
    child->stdin_slot.kind = child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    EXPECT_EQ("ready", ReadLine(process));
    EXPECT_EQ("PM_OK by 1", Stop(process, {{PM_STOP_CLOSE_STDIN, PM_SCOPE_PROCESS, 15000}, kill}));
    EXPECT_EQ(0u, Wait(process).code);
}

TEST_F(Console, ADaemonHasNoneAndTheLadderGoesOn)
{
    std::string file = folder + "/up";
    Child child({"stone", file});
    child->mode = PM_MODE_DAEMON;
    child->key = "d";
    pm_process *process = Spawn(child);
    ASSERT_TRUE(Eventually([&] { return ReadFile(file).find('\n') != std::string::npos; }));
    EXPECT_EQ("PM_ERR_UNSUPPORTED PM_ERR_UNSUPPORTED PM_ERR_UNSUPPORTED PM_OK by 4",
              Stop(process, {{PM_STOP_INTERRUPT, PM_SCOPE_TREE, hour},
                             {PM_STOP_TERMINATE, PM_SCOPE_PROCESS, hour},
                             {PM_STOP_TERMINATE, PM_SCOPE_TREE, hour},
                             kill}));
}

TEST_F(Console, ADaemonThatListensEndsByItsStopEvent)
{
    std::string file = folder + "/up";
    Child child({"payload", file});
    child->mode = PM_MODE_DAEMON;
    child->key = "d";
    pm_process *process = Spawn(child);
    ASSERT_TRUE(Eventually([&] { return ReadFile(file).find('\n') != std::string::npos; }));
    EXPECT_EQ("PM_ERR_UNSUPPORTED PM_OK by 2",
              Stop(process, {{PM_STOP_INTERRUPT, PM_SCOPE_TREE, hour},
                             {PM_STOP_TERMINATE, PM_SCOPE_TREE, 15000},
                             kill}));
    EXPECT_EQ(5u, Wait(process).code);
}

TEST_F(Console, OneThatHasEndedIsGoneAndWhatItLeftCannotBeAsked)
{
    pm_process *process = Start({"leaver"});
    Wait(process);
    EXPECT_EQ("PM_ERR_GONE PM_ERR_GONE PM_ERR_UNSUPPORTED PM_ERR_UNSUPPORTED PM_OK by 0",
              Stop(process, {{PM_STOP_INTERRUPT, PM_SCOPE_PROCESS, hour},
                             {PM_STOP_TERMINATE, PM_SCOPE_PROCESS, hour},
                             {PM_STOP_INTERRUPT, PM_SCOPE_TREE, hour},
                             {PM_STOP_TERMINATE, PM_SCOPE_TREE, hour},
                             kill}));
}

// ------------------------------------------------------------------------------------------------
// A helper that takes its time holds nobody else up
// ------------------------------------------------------------------------------------------------

HANDLE helper_begun, helper_released;
std::atomic<int> helpers_held;

// Where a disk is slow, or somebody looks at each new process first.
void HoldHelper(const wchar_t *, const wchar_t *line, unsigned long)
{
    if (wcsstr(line, L"" PMI_WIN_CONSOLE_MARKER) != nullptr) {
        helpers_held++;
        SetEvent(helper_begun);
        WaitForSingleObject(helper_released, 30000);
        helpers_held--;
    }
}

class SlowHelper : public Console
{
  protected:
    void SetUp() override
    {
        Console::SetUp();
        helper_begun = CreateEventW(nullptr, TRUE, FALSE, nullptr);
        helper_released = CreateEventW(nullptr, TRUE, FALSE, nullptr);
        pmi_test_create_process_hook = nullptr;
    }

    void TearDown() override
    {
        SetEvent(helper_released);
        EXPECT_TRUE(Eventually([] { return helpers_held == 0; }));
        pmi_test_create_process_hook = nullptr;
        Console::TearDown();
        CloseHandle(helper_begun);
        CloseHandle(helper_released);
    }

    static double Now()
    {
        return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
            .count();
    }
};

TEST_F(SlowHelper, DoesNotBreakTheDeadlineOfAStopOfMany)
{
    for (int i = 0; i < 5; i++) {
        Start({"deaf"});
    }
    pmi_test_create_process_hook = HoldHelper;
    double before = Now();
    pm_stop_all_report report = PM_STOP_ALL_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_stop_all(manager, 4000, nullptr, nullptr, &report));
    EXPECT_LT(Now() - before, 4.0 + 2.0 * Slowness());
    EXPECT_EQ(5u, report.stopped);
    EXPECT_EQ(5u, report.undelivered);
    EXPECT_EQ(PM_ERR_TIMEOUT, report.undelivered_code);
    EXPECT_GT(helpers_held, 1) << "they were begun together";
}

std::atomic<int> ends_told;

void CountEnd(pm_process *, const pm_exit *, void *)
{
    ends_told++;
}

TEST_F(SlowHelper, HoldsUpNoLookAndNoCallback)
{
    ends_told = 0;
    Child child({"deaf"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    child->on_exit = CountEnd;
    pm_process *neighbour = Spawn(child);
    EXPECT_EQ("ready", ReadLine(neighbour));
    pm_process *process = Start({"deaf"});
    pmi_test_create_process_hook = HoldHelper;
    pm_stop_report report = PM_STOP_REPORT_INIT;
    std::thread stop([&] {
        pm_stop_plan plan = Plan({{PM_STOP_INTERRUPT, PM_SCOPE_TREE, hour}});
        (void)pm_process_stop(process, &plan, &report);
    });
    EXPECT_EQ(WAIT_OBJECT_0, WaitForSingleObject(helper_begun, 20000));
    double before = Now();
    pm_info info = PM_INFO_INIT;
    EXPECT_EQ(PM_OK, pm_process_info(process, &info));
    EXPECT_TRUE(info.alive);
    // The reactor wants to take its status, and then the neighbour's.
    KillByNumber(pm_process_pid(process));
    KillByNumber(pm_process_pid(neighbour));
    EXPECT_TRUE(Eventually([] { return ends_told == 1; }));
    stop.join();
    EXPECT_LT(Now() - before, 15.0) << "the helper is held for thirty seconds";
    EXPECT_EQ(1, helpers_held);
    EXPECT_EQ(PM_OK, report.result);
    EXPECT_EQ(0u, report.ended_by);
    EXPECT_EQ(PM_ERR_TIMEOUT, report.step_results[0]);
}

// Its copies of the handles are inside the library: what is awaited is the end of all of them.
TEST_F(SlowHelper, MoreThanRunAtOnceComeInTurn)
{
    std::vector<pm_process *> all;
    for (int i = 0; i < 20; i++) {
        all.push_back(Start({"listener"}));
    }
    pmi_test_create_process_hook = HoldHelper;
    std::thread stop([&] {
        pm_stop_all_report report = PM_STOP_ALL_REPORT_INIT;
        EXPECT_EQ(PM_OK, pm_stop_all(manager, 60000, nullptr, nullptr, &report));
        EXPECT_EQ(0u, report.undelivered);
    });
    EXPECT_TRUE(Eventually([] { return helpers_held == 16; }));
    SetEvent(helper_released);
    stop.join();
    for (pm_process *process : all) {
        EXPECT_EQ(46u, Wait(process).code);
    }
}

// ------------------------------------------------------------------------------------------------
// The marker
// ------------------------------------------------------------------------------------------------

std::string failing_call;
unsigned long failing_code;

unsigned long FailThatCall(const char *call)
{
    return failing_call == call ? failing_code : 0;
}

void LetItBeHeard()
{
    Sleep(
        500); // In the helper. If its own Ctrl-C reached it, it would not come to the end of that.
}

// In a helper alone, before its main(): what a test has asked for in PM_TEST_HELPER.
const struct HelperOfATest {
    HelperOfATest()
    {
        char text[64] = "";
        if (strstr(GetCommandLineA(), PMI_WIN_CONSOLE_MARKER) == nullptr ||
            GetEnvironmentVariableA("PM_TEST_HELPER", text, sizeof text) == 0) {
            return;
        }
        std::string what = text;
        size_t sign = what.find('=');
        if (what == "ends") {
            ExitProcess(0); // A second instance of a program that wants to be alone, say.
        } else if (what == "listens") {
            pmi_test_ctrl_c_hook = LetItBeHeard;
        } else if (sign != std::string::npos) {
            failing_call = what.substr(0, sign);
            failing_code = strtoul(text + sign + 1, nullptr, 10);
            pmi_test_fail_hook = FailThatCall;
        }
    }
} helper_of_a_test;

class Marker : public Console
{
  protected:
    // Exit code of this program called so, with these bytes in a pipe as its stdin.
    uint32_t Call(const std::vector<std::string> &args, const std::string &input,
                  const std::vector<HANDLE> &handles = {})
    {
        Child child({});
        child.args = {SelfPath(), PMI_WIN_CONSOLE_MARKER};
        child.args.insert(child.args.end(), args.begin(), args.end());
        HANDLE ours = nullptr, theirs = nullptr;
        EXPECT_TRUE(CreatePipe(&theirs, &ours, nullptr, 4096));
        DWORD written = 0;
        EXPECT_TRUE(
            input.empty() ||
            ::WriteFile(ours, input.data(), static_cast<DWORD>(input.size()), &written, nullptr));
        child->stdin_slot.kind = PM_STDIO_NATIVE;
        child->stdin_slot.native = reinterpret_cast<pm_native>(theirs);
        for (HANDLE handle : handles) {
            child.extras.push_back({reinterpret_cast<pm_native>(handle), 0});
        }
        pm_process *process = nullptr;
        pm_error error = PM_ERROR_INIT;
        EXPECT_EQ(PM_OK, pm_spawn(manager, child.Get(), &process, &error)) << ErrorText(error);
        Keep(process);
        uint32_t code = Wait(process).code;
        CloseHandle(ours);
        CloseHandle(theirs);
        return code;
    }
};

TEST_F(Marker, EnteredByAnybodyElseExitsWithTwo)
{
    pm_process *process = Start({"listener"});
    std::string pid = std::to_string(pm_process_pid(process));
    pm_native native = PM_NATIVE_INVALID;
    ASSERT_EQ(PM_OK, pm_process_exit_waitable(process, &native));
    HANDLE target = reinterpret_cast<HANDLE>(native);
    FILETIME creation, other;
    ASSERT_TRUE(GetProcessTimes(target, &creation, &other, &other, &other));
    HANDLE job = CreateJobObjectW(nullptr, nullptr); // Not that of the target.
    pmi_win_console_plan plan = {};
    plan.magic = PMI_WIN_CONSOLE_MAGIC;
    plan.start = (static_cast<uint64_t>(creation.dwHighDateTime) << 32) | creation.dwLowDateTime;
    plan.target = reinterpret_cast<uintptr_t>(target);
    plan.job = reinterpret_cast<uintptr_t>(job);
    plan.pid = static_cast<uint32_t>(pm_process_pid(process));
    std::string good(reinterpret_cast<const char *>(&plan), sizeof plan);
    for (const std::vector<std::string> &args :
         {std::vector<std::string>{}, {pid}, {pid, pid}, {"0"}, {"x" + pid}, {pid + " "}, {"-1"}}) {
        EXPECT_EQ(2u, Call(args, "")) << args.size();
    }
    EXPECT_EQ(2u, Call({pid}, std::string(sizeof plan, '\0')));
    EXPECT_EQ(2u, Call({pid}, good)) << "the handles are not there";
    EXPECT_EQ(2u, Call({pid}, good + "x", {target, job}));
    EXPECT_EQ(2u, Call({pid}, good, {target, job})) << "not its job";
    EXPECT_EQ(2u, Call({std::to_string(GetCurrentProcessId())}, good, {target, job}));
    // Without a pipe.
    Child child({});
    child.args = {SelfPath(), PMI_WIN_CONSOLE_MARKER, pid};
    pm_process *alone = nullptr;
    ASSERT_EQ(PM_OK, pm_spawn(manager, child.Get(), &alone, nullptr));
    Keep(alone);
    EXPECT_EQ(2u, Wait(alone).code);
    // In the right job, and another process's number, or a life before this one.
    ASSERT_TRUE(AssignProcessToJobObject(job, target));
    auto bytes = [&] { return std::string(reinterpret_cast<const char *>(&plan), sizeof plan); };
    plan.pid = GetCurrentProcessId();
    EXPECT_EQ(2u, Call({std::to_string(plan.pid)}, bytes(), {target, job}));
    plan.pid = static_cast<uint32_t>(pm_process_pid(process));
    plan.start--;
    EXPECT_EQ(2u, Call({pid}, bytes(), {target, job}));
    plan.start++;
    plan.magic--;
    EXPECT_EQ(2u, Call({pid}, bytes(), {target, job}));
    EXPECT_TRUE(pm_process_alive(process));
    // With all of it right it is what the library does.
    EXPECT_EQ(uint32_t{PMI_WIN_CONSOLE_SENT}, Call({pid}, good, {target, job}));
    EXPECT_EQ(46u, Wait(process).code);
    EXPECT_EQ(uint32_t{PMI_WIN_CONSOLE_GONE}, Call({pid}, good, {target, job}));
    CloseHandle(job);
}

// What the helper does, or cannot do, as the step has it.
TEST_F(Marker, WhatBecameOfTheHelperIsTold)
{
    const struct {
        const char *helper, *told;
    } cases[] = {{"listens", "PM_OK by 1"},
                 {"ends", "PM_ERR_LAUNCHER PM_OK by 2"},
                 {"AttachConsole=5", "PM_ERR_ACCESS PM_OK by 2"},
                 {"AttachConsole=6", "PM_ERR_UNSUPPORTED PM_OK by 2"},
                 {"GenerateConsoleCtrlEvent=31", "PM_ERR_LAUNCHER PM_OK by 2"}};
    for (const auto &one : cases) {
        pm_process *process = Start({"listener"});
        ASSERT_TRUE(SetEnvironmentVariableA("PM_TEST_HELPER", one.helper));
        EXPECT_EQ(one.told, Stop(process, {{PM_STOP_INTERRUPT, PM_SCOPE_TREE, 15000}, kill}))
            << one.helper;
        ASSERT_TRUE(SetEnvironmentVariableA("PM_TEST_HELPER", nullptr));
    }
}

// Errors of the start keep their names, whatever number the system has for them.
TEST_F(Marker, AHelperThatCannotBeStartedIsTold)
{
    const struct {
        const char *call;
        unsigned long os_code;
        const char *told;
    } cases[] = {{"CreateProcess", ERROR_NOT_ENOUGH_MEMORY, "PM_ERR_NO_MEMORY PM_OK by 2"},
                 {"CreateProcess", ERROR_NOT_ENOUGH_QUOTA, "PM_ERR_NO_PROCESS_SLOTS PM_OK by 2"},
                 {"CreateProcess", ERROR_ACCESS_DENIED, "PM_ERR_LAUNCHER PM_OK by 2"},
                 {"CreateNamedPipe", ERROR_ACCESS_DENIED, "PM_ERR_LAUNCHER PM_OK by 2"},
                 {"CreateFile", ERROR_TOO_MANY_OPEN_FILES, "PM_ERR_NO_DESCRIPTORS PM_OK by 2"},
                 {"CreateJobObject", ERROR_ACCESS_DENIED, "PM_ERR_LAUNCHER PM_OK by 2"},
                 {"DuplicateHandle", ERROR_TOO_MANY_OPEN_FILES,
                  "PM_ERR_NO_DESCRIPTORS PM_OK by 2"}};
    for (const auto &one : cases) {
        pm_process *process = Start({"listener"});
        failing_call = one.call;
        failing_code = one.os_code;
        pmi_test_fail_hook = FailThatCall;
        EXPECT_EQ(one.told, Stop(process, {{PM_STOP_INTERRUPT, PM_SCOPE_TREE, 15000}, kill}))
            << one.call << " " << one.os_code;
        pmi_test_fail_hook = nullptr;
    }
}

std::vector<std::string> log_lines;

void NoteWarning(void *, pm_log_level level, const char *line)
{
    if (level >= PM_LOG_WARNING) {
        log_lines.push_back(line);
    }
}

TEST_F(Marker, AKillThatNothingPoliteCameBeforeIsInTheLog)
{
    ASSERT_EQ(PM_OK, Close());
    pm_options options = DefaultOptions();
    options.log = NoteWarning;
    Open(options);
    log_lines.clear();
    pm_process *process = Start({"without-console"});
    std::string pid = std::to_string(pm_process_pid(process));
    pm_stop_all_report report = PM_STOP_ALL_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_close(manager, -1, &report));
    manager = nullptr;
    EXPECT_EQ(1u, report.undelivered);
    EXPECT_EQ(PM_ERR_UNSUPPORTED, report.undelivered_code);
    ASSERT_EQ(1u, log_lines.size());
    EXPECT_NE(std::string::npos, log_lines[0].find("pid " + pid +
                                                   "): step 1 (terminate) could not be delivered: "
                                                   "PM_ERR_UNSUPPORTED"))
        << log_lines[0];
}

// Hosts of their own, since what is tested happens once in a process.
int WindowsHost(const std::vector<std::string> &)
{
    pm_options options = PM_OPTIONS_INIT;
    pm_manager *manager = nullptr;
    pm_process *process = nullptr;
    Child child({"windowed", "pm-test-window", "alone"});
    child->stdin_slot.kind = child->stderr_slot.kind = PM_STDIO_NULL;
    child->stdout_slot.kind = PM_STDIO_PIPE;
    if (pm_open(&options, &manager, nullptr) != PM_OK ||
        pm_spawn(manager, child.Get(), &process, nullptr) != PM_OK) {
        return 1;
    }
    char line[64] = "";
    size_t count = 0;
    (void)pm_stream_read(pm_process_stream(process, PM_STDOUT), line, sizeof line - 1, Patience(),
                         &count);
    failing_call = "LoadLibrary";
    failing_code = ERROR_NOT_ENOUGH_MEMORY;
    pmi_test_fail_hook = FailThatCall;
    pm_stop_plan plan = Plan({{PM_STOP_TERMINATE, PM_SCOPE_TREE, 1}});
    pm_stop_report first = PM_STOP_REPORT_INIT, second = PM_STOP_REPORT_INIT;
    (void)pm_process_stop(process, &plan, &first);
    pmi_test_fail_hook = nullptr;
    plan = Plan({{PM_STOP_TERMINATE, PM_SCOPE_TREE, 15000}, kill});
    (void)pm_process_stop(process, &plan, &second);
    Say(Told(first) + ", " + Told(second));
    (void)pm_process_unref(process);
    return pm_close(manager, -1, nullptr) == PM_OK ? 48 : 1;
}
const RoleAdder windows_host("windows-host", WindowsHost);

TEST_F(Marker, WindowsThatCouldNotBeLookedForAreLookedForTheNextTime)
{
    Child child({"windows-host"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *host = Spawn(child);
    EXPECT_EQ("PM_ERR_UNSUPPORTED by 0, PM_OK by 1", ReadLine(host));
    EXPECT_EQ(48u, Wait(host).code);
}

// A host whose file got another name, and another file its name.
int RenamedHost(const std::vector<std::string> &)
{
    std::string self = SelfPath(), other = self + ".old";
    pm_options options = PM_OPTIONS_INIT;
    pm_manager *manager = nullptr;
    pm_process *process = nullptr;
    Child child({"listener"});
    child->stdin_slot.kind = child->stderr_slot.kind = PM_STDIO_NULL;
    child->stdout_slot.kind = PM_STDIO_PIPE;
    if (pm_open(&options, &manager, nullptr) != PM_OK ||
        pm_spawn(manager, child.Get(), &process, nullptr) != PM_OK) {
        return 1;
    }
    char line[64] = "";
    size_t count = 0;
    (void)pm_stream_read(pm_process_stream(process, PM_STDOUT), line, sizeof line - 1, Patience(),
                         &count);
    if (!MoveFileA(self.c_str(), other.c_str()) || !CopyFileA(other.c_str(), self.c_str(), TRUE)) {
        Say("not renamed " + std::to_string(GetLastError()));
        return 1;
    }
    pm_stop_plan plan = Plan({{PM_STOP_INTERRUPT, PM_SCOPE_TREE, hour}, kill});
    pm_stop_report report = PM_STOP_REPORT_INIT;
    (void)pm_process_stop(process, &plan, &report);
    Say(Told(report));
    (void)pm_process_unref(process);
    return pm_close(manager, -1, nullptr) == PM_OK ? 48 : 1;
}
const RoleAdder renamed_host("renamed-host", RenamedHost);

TEST_F(Marker, IsNotGivenToAnotherFileThatHasOurNameNow)
{
    std::string path = folder + "\\host.exe";
    ASSERT_TRUE(CopyFileA(SelfPath().c_str(), path.c_str(), TRUE));
    Child child({"renamed-host"});
    child.program = path;
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *host = Spawn(child);
    EXPECT_EQ("PM_ERR_NO_LAUNCHER PM_OK by 2", ReadLine(host));
    EXPECT_EQ(48u, Wait(host).code);
    EXPECT_TRUE(Eventually([&] { return DeleteFileA((path + ".old").c_str()) != FALSE; }));
    EXPECT_TRUE(DeleteFileA(path.c_str()));
}

std::vector<std::wstring> lines;
unsigned long last_flags;

void NoteLine(const wchar_t *, const wchar_t *line, unsigned long flags)
{
    lines.push_back(line);
    last_flags = flags;
}

TEST_F(Marker, IsOurOwnFileWithTheMarkerAndThePidAlone)
{
    pm_process *process = Start({"listener"});
    lines.clear();
    pmi_test_create_process_hook = NoteLine;
    EXPECT_EQ("PM_OK by 1", Stop(process, {{PM_STOP_INTERRUPT, PM_SCOPE_TREE, 15000}, kill}));
    pmi_test_create_process_hook = nullptr;
    ASSERT_EQ(1u, lines.size());
    std::string self = SelfPath();
    EXPECT_EQ(L"\"" + std::wstring(self.begin(), self.end()) + L"\" __processmgr_console_event__ " +
                  std::to_wstring(pm_process_pid(process)),
              lines[0]);
    EXPECT_NE(0u, last_flags & DETACHED_PROCESS);
}

} // namespace
