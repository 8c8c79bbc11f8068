// PTY mode over pseudoconsoles. What a console host draws is not the bytes of the program: texts
// here are without blanks, which it may draw by moving the cursor, and are looked for in what is
// left without escape sequences. Wine's host draws poorly, resizes not at all, and dies of Ctrl-C:
// see docs/platform-notes.md.

#include "fixture.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include <windows.h>

#include <tlhelp32.h>

extern "C" {
#include "sys.h"
}

using namespace contract;

namespace
{

// ------------------------------------------------------------------------------------------------
// Roles
// ------------------------------------------------------------------------------------------------

void Show(const std::string &text)
{
    DWORD count = 0;
    WriteFile(GetStdHandle(STD_OUTPUT_HANDLE), text.data(), static_cast<DWORD>(text.size()), &count,
              nullptr);
}

void Line(const std::string &text)
{
    Show(text + "\r\n");
}

// Says what its console is.
int OnConsole(const std::vector<std::string> &)
{
    static const DWORD names[3] = {STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE};
    std::string faults;
    DWORD mode = 0;
    for (int i = 0; i < 3; i++) {
        if (!GetConsoleMode(GetStdHandle(names[i]), &mode)) {
            faults += "-no-console-" + std::to_string(i);
        }
    }
    GetConsoleMode(GetStdHandle(STD_INPUT_HANDLE), &mode);
    if ((mode & (ENABLE_LINE_INPUT | ENABLE_ECHO_INPUT | ENABLE_PROCESSED_INPUT)) !=
        (ENABLE_LINE_INPUT | ENABLE_ECHO_INPUT | ENABLE_PROCESSED_INPUT)) {
        faults += "-odd-mode";
    }
    DWORD pids[4];
    if (GetConsoleProcessList(pids, 4) != 1 || pids[0] != GetCurrentProcessId()) {
        faults += "-not-alone";
    }
    CONSOLE_SCREEN_BUFFER_INFO info = {};
    GetConsoleScreenBufferInfo(GetStdHandle(STD_OUTPUT_HANDLE), &info);
    Line("<good" + faults + ":" + std::to_string(info.srWindow.Right - info.srWindow.Left + 1) +
         "x" + std::to_string(info.srWindow.Bottom - info.srWindow.Top + 1) + ">");
    Sleep(60000);
    return 0;
}
const RoleAdder on_console("on-console", OnConsole);

// So many lines, all at once, and out.
int Burst(const std::vector<std::string> &a)
{
    std::string text;
    for (int i = 0; i < atoi(a.at(0).c_str()); i++) {
        text += "<" + std::to_string(i) + ">\r\n";
    }
    Show(text + "<last>");
    return 7;
}
const RoleAdder burst("burst", Burst);

// Reads lines until their end.
int Lines(const std::vector<std::string> &)
{
    char buffer[1024];
    DWORD count = 0;
    Line("<ready>");
    while (ReadFile(GetStdHandle(STD_INPUT_HANDLE), buffer, sizeof buffer, &count, nullptr) &&
           count > 0 && buffer[0] != '\x1a') { // Of Wine it comes as it was typed.
        while (count > 0 && (buffer[count - 1] == '\n' || buffer[count - 1] == '\r')) {
            count--;
        }
        Line("<got:" + std::string(buffer, count) + ">");
    }
    Line("<end>");
    return 3;
}
const RoleAdder lines("lines", Lines);

HANDLE interrupted;

BOOL WINAPI OnEvent(DWORD event)
{
    if (event == CTRL_C_EVENT) {
        SetEvent(interrupted);
    }
    return event == CTRL_C_EVENT;
}

// Ends with 46 at Ctrl-C.
int Listener(const std::vector<std::string> &)
{
    interrupted = CreateEventW(nullptr, TRUE, FALSE, nullptr);
    SetConsoleCtrlHandler(nullptr, FALSE);
    SetConsoleCtrlHandler(OnEvent, TRUE);
    Line("<ready>");
    return WaitForSingleObject(interrupted, 60000) == WAIT_OBJECT_0 ? 46 : 1;
}
const RoleAdder listener("listener", Listener);

// Says no more than that it is there.
int Mute(const std::vector<std::string> &)
{
    Line("<ready>");
    Sleep(60000);
    return 1;
}
const RoleAdder mute("mute", Mute);

// Runs another program with the console for its standard handles, and ends as it ends. On Windows
// it would not be needed.
int Trampoline(const std::vector<std::string> &a)
{
    std::string line = a.at(0);
    STARTUPINFOA startup = {};
    PROCESS_INFORMATION info = {};
    startup.cb = sizeof startup;
    startup.dwFlags = STARTF_USESTDHANDLES;
    startup.hStdInput = GetStdHandle(STD_INPUT_HANDLE);
    startup.hStdOutput = startup.hStdError = GetStdHandle(STD_OUTPUT_HANDLE);
    SetHandleInformation(startup.hStdInput, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT);
    SetHandleInformation(startup.hStdOutput, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT);
    DWORD code = 0;
    if (!CreateProcessA(nullptr, &line[0], nullptr, nullptr, TRUE, 0, nullptr, nullptr, &startup,
                        &info) ||
        WaitForSingleObject(info.hProcess, INFINITE) != WAIT_OBJECT_0 ||
        !GetExitCodeProcess(info.hProcess, &code)) {
        return 99;
    }
    return static_cast<int>(code);
}
const RoleAdder trampoline("trampoline", Trampoline);

// Leaves a child behind on its console, or without one.
int Holder(const std::vector<std::string> &a)
{
    std::string line = "\"" + SelfPath() + "\" --role mute";
    bool on_console = a.at(0) == "on";
    STARTUPINFOA startup = {};
    PROCESS_INFORMATION info = {};
    startup.cb = sizeof startup;
    if (!on_console) {
        _putenv("PM_TEST_TERMINAL=");
    }
    _putenv("PM_TEST_BORN=");
    if (!CreateProcessA(nullptr, &line[0], nullptr, nullptr, FALSE,
                        on_console ? 0 : CREATE_NO_WINDOW, nullptr, nullptr, &startup, &info)) {
        return 1;
    }
    // On the console when it is listed there.
    DWORD pids[8];
    while (on_console && GetConsoleProcessList(pids, 8) < 2) {
        Sleep(1);
    }
    Line("<held:" + std::to_string(info.dwProcessId) + ">");
    return 5;
}
const RoleAdder holder("holder", Holder);

// ------------------------------------------------------------------------------------------------
// The system's calls, counted and changed
// ------------------------------------------------------------------------------------------------

struct Calls {
    std::atomic<int> created{0}, closed{0}, resized{0};
    std::atomic<unsigned> columns{0}, rows{0};
    HRESULT create_result = S_OK, resize_result = S_OK;
    bool resize_for_real = false;
    HANDLE hold_close = nullptr; // Close waits for it first.
    const pmi_sys_console_calls *real = nullptr;
};

Calls *calls;

HRESULT WINAPI Create(COORD size, HANDLE in, HANDLE out, DWORD flags, void **ret_console)
{
    calls->columns = static_cast<unsigned>(size.X);
    calls->rows = static_cast<unsigned>(size.Y);
    if (calls->create_result != S_OK) {
        return calls->create_result;
    }
    HRESULT result = calls->real->create(size, in, out, flags, ret_console);
    calls->created += SUCCEEDED(result);
    return result;
}

HRESULT WINAPI Resize(void *console, COORD size)
{
    calls->columns = static_cast<unsigned>(size.X);
    calls->rows = static_cast<unsigned>(size.Y);
    calls->resized++;
    return calls->resize_for_real ? calls->real->resize(console, size) : calls->resize_result;
}

void WINAPI Close(void *console)
{
    if (calls->hold_close != nullptr) {
        WaitForSingleObject(calls->hold_close, INFINITE);
    }
    calls->real->close(console);
    calls->closed++;
}

const pmi_sys_console_calls counted = {Create, Resize, Close};
const pmi_sys_console_calls absent = {nullptr, nullptr, nullptr};

// Console hosts that are our children.
size_t Hosts()
{
    HANDLE snapshot = CreateToolhelp32Snapshot(TH32CS_SNAPPROCESS, 0);
    PROCESSENTRY32W entry = {};
    size_t count = 0;
    entry.dwSize = sizeof entry;
    for (BOOL more = Process32FirstW(snapshot, &entry); more;
         more = Process32NextW(snapshot, &entry)) {
        count += entry.th32ParentProcessID == GetCurrentProcessId() &&
                 (_wcsicmp(entry.szExeFile, L"conhost.exe") == 0 ||
                  _wcsicmp(entry.szExeFile, L"openconsole.exe") == 0);
    }
    CloseHandle(snapshot);
    return count;
}

size_t Threads()
{
    HANDLE snapshot = CreateToolhelp32Snapshot(TH32CS_SNAPTHREAD, 0);
    THREADENTRY32 entry = {};
    size_t count = 0;
    entry.dwSize = sizeof entry;
    for (BOOL more = Thread32First(snapshot, &entry); more; more = Thread32Next(snapshot, &entry)) {
        count += entry.th32OwnerProcessID == GetCurrentProcessId();
    }
    CloseHandle(snapshot);
    return count;
}

// What is left without escape sequences.
std::string Plain(const std::string &shown)
{
    std::string text;
    for (size_t i = 0; i < shown.size(); i++) {
        if (shown[i] != '\x1b') {
            text += shown[i];
        } else if (i + 1 < shown.size() && shown[i + 1] == '[') {
            for (i += 2; i < shown.size() && (shown[i] < '@' || shown[i] > '~'); i++) {
            }
        } else if (i + 1 < shown.size() && shown[i + 1] == ']') { // The title.
            for (i += 2; i < shown.size() && shown[i] != '\a'; i++) {
            }
        } else {
            i++;
        }
    }
    return text;
}

// ------------------------------------------------------------------------------------------------
// Tests
// ------------------------------------------------------------------------------------------------

class Pty : public Contract
{
  protected:
    void SetUp() override
    {
        hosts_before = Hosts();
        calls = &mine;
        mine.real = pmi_sys_pseudoconsole();
        pmi_test_pseudoconsole = &counted;
        Contract::SetUp();
        Open();
    }

    void TearDown() override
    {
        Contract::TearDown();
        EXPECT_TRUE(Eventually([&] { return mine.closed == mine.created; }))
            << mine.closed << " of " << mine.created << " pseudoconsoles were closed";
        EXPECT_TRUE(Eventually([&] { return Hosts() == hosts_before; }))
            << "a console host is left";
        pmi_test_pseudoconsole = nullptr;
    }

    struct Shown : Child {
        explicit Shown(std::vector<std::string> args) : Child(std::move(args))
        {
            spec.mode = PM_MODE_PTY;
            spec.stdin_slot.kind = spec.stdout_slot.kind = spec.stderr_slot.kind = PM_STDIO_DEFAULT;
            if (OnWine()) {
                env.push_back("PM_TEST_TERMINAL=1");
            }
        }
    };

    static void Type(pm_process *process, const std::string &text)
    {
        size_t count = 0;
        EXPECT_EQ(PM_OK, pm_stream_write(pm_process_stream(process, PM_STDIN), text.data(),
                                         text.size(), Patience(), &count));
    }

    // What is shown until `wanted` is in it.
    static std::string Until(pm_process *process, const std::string &wanted)
    {
        std::string all;
        char buffer[4096];
        size_t count = 1;
        while (Plain(all).find(wanted) == std::string::npos && count != 0) {
            int result = pm_stream_read(pm_process_stream(process, PM_STDOUT), buffer,
                                        sizeof buffer, Patience(), &count);
            if (result != PM_OK) {
                ADD_FAILURE() << "'" << wanted << "' did not come: " << pm_error_name(result)
                              << " after\n"
                              << Plain(all);
                break;
            }
            all.append(buffer, count);
        }
        std::string text = Plain(all);
        EXPECT_NE(std::string::npos, text.find(wanted)) << text;
        return text;
    }

    pm_process *Start(const std::vector<std::string> &role)
    {
        Shown child(role);
        return Spawn(child);
    }

    void Drop(pm_process *process)
    {
        held.clear();
        pm_process_unref(process);
    }

    static void Close(pm_process *process, pm_stream_id id)
    {
        EXPECT_EQ(PM_OK, pm_stream_close(pm_process_stream(process, id)));
    }

    static uint64_t Pid(pm_process *process)
    {
        return pm_process_pid(process);
    }

    static pm_stop_report Stop(pm_process *process, std::initializer_list<pm_stop_step> steps)
    {
        pm_stop_plan plan = {};
        pm_stop_report report = PM_STOP_REPORT_INIT;
        for (const auto &step : steps) {
            plan.steps[plan.steps_count++] = step;
        }
        EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, &report));
        return report;
    }

    // A start that fails, and leaves nothing.
    void Refused(Child &child, int code, pm_stage stage, const char *field)
    {
        int result = PM_OK;
        pm_error error = PM_ERROR_INIT;
        size_t threads = Threads(), hosts = Hosts();
        int open = mine.created - mine.closed;
        EXPECT_EQ(nullptr, TrySpawn(child, &result, &error));
        EXPECT_EQ(code, result) << ErrorText(error);
        EXPECT_EQ(stage, error.stage) << ErrorText(error);
        EXPECT_STREQ(field, error.field);
        EXPECT_EQ(open, mine.created - mine.closed) << "not closed before the call returned";
        EXPECT_EQ(hosts, Hosts());
        EXPECT_TRUE(Eventually([&] { return Threads() <= threads; })) << "a thread is left";
    }

    Calls mine;
    size_t hosts_before = 0;
};

const pm_stop_step kill = {PM_STOP_KILL, PM_SCOPE_TREE, 15000};

TEST_F(Pty, IsAConsoleOfItsOwn)
{
    pm_process *process = Start({"on-console"});
    Until(process, "<good:80x24>");
    EXPECT_EQ(nullptr, pm_process_stream(process, PM_STDERR));
    pm_info info = PM_INFO_INIT;
    ASSERT_EQ(PM_OK, pm_process_info(process, &info));
    EXPECT_EQ(PM_MODE_PTY, info.mode);
    EXPECT_EQ(PM_CONTAIN_JOB, info.containment);
    EXPECT_EQ(80u, mine.columns);
    EXPECT_EQ(24u, mine.rows);
}

TEST_F(Pty, HasTheSizeThatItIsGiven)
{
    Shown child({"on-console"});
    child->terminal_columns = 132;
    child->terminal_rows = 50;
    Until(Spawn(child), "<good:132x50>");
    EXPECT_EQ(132u, mine.columns);
    EXPECT_EQ(50u, mine.rows);
    for (unsigned size : {32768u, 65535u}) {
        child->terminal_rows = static_cast<uint16_t>(size);
        Refused(child, PM_ERR_INVALID, PM_STAGE_CHECK, "terminal_rows");
    }
}

TEST_F(Pty, ResizingIsTheSystemsCall)
{
    pm_process *process = Start({"mute"});
    EXPECT_EQ(PM_OK, pm_process_resize(process, 1, 32767));
    EXPECT_EQ(1, mine.resized);
    EXPECT_EQ(1u, mine.columns);
    EXPECT_EQ(32767u, mine.rows);
    const unsigned hostile[] = {0, 32768, 65535, 65536, 65536 + 80, 0x80000000u, UINT32_MAX};
    for (unsigned size : hostile) {
        EXPECT_EQ(PM_ERR_INVALID, pm_process_resize(process, size, 24)) << size;
        EXPECT_EQ(PM_ERR_INVALID, pm_process_resize(process, 80, size)) << size;
    }
    EXPECT_EQ(1, mine.resized);
    mine.resize_result = E_NOTIMPL;
    EXPECT_EQ(PM_ERR_UNSUPPORTED, pm_process_resize(process, 80, 24));
    mine.resize_result = E_FAIL;
    EXPECT_EQ(PM_ERR_SYSTEM, pm_process_resize(process, 80, 24));
    mine.resize_result = S_OK;
    Stop(process, {kill});
    EXPECT_TRUE(Eventually([&] { return pm_process_resize(process, 80, 24) == PM_ERR_GONE; }));
    Child child({"linger"});
    EXPECT_EQ(PM_ERR_UNSUPPORTED, pm_process_resize(Spawn(child), 80, 24));
}

TEST_F(Pty, ResizingIsSeenByTheProgram)
{
    if (OnWine()) {
        GTEST_SKIP() << "ResizePseudoConsole of Wine is not implemented";
    }
    mine.resize_for_real = true;
    pm_process *process = Start({"on-console"});
    Until(process, "<good:80x24>");
    EXPECT_EQ(PM_OK, pm_process_resize(process, 100, 30));
}

TEST_F(Pty, CtrlCIsTyped)
{
    if (OnWine()) {
        GTEST_SKIP() << "the console host of Wine dies of a typed Ctrl-C";
    }
    pm_process *process = Start({"listener"});
    Until(process, "<ready>");
    Type(process, "\x03");
    EXPECT_EQ(46u, Wait(process).code);
}

TEST_F(Pty, ASystemWithoutThemSaysSo)
{
    pmi_test_pseudoconsole = &absent;
    Shown child({"exit", "0"});
    Refused(child, PM_ERR_UNSUPPORTED, PM_STAGE_CHECK, "mode");
}

TEST_F(Pty, AFailureOfTheSystemsCallLeavesNothing)
{
    const struct {
        HRESULT result;
        int code;
    } failures[] = {
        {HRESULT_FROM_WIN32(ERROR_NOT_ENOUGH_MEMORY), PM_ERR_NO_MEMORY},
        {E_NOTIMPL, PM_ERR_UNSUPPORTED},
        {E_UNEXPECTED, PM_ERR_SYSTEM},
    };
    for (const auto &failure : failures) {
        mine.create_result = failure.result;
        Shown child({"exit", "0"});
        Refused(child, failure.code, PM_STAGE_PTY, "");
    }
    EXPECT_EQ(0, mine.created);
}

TEST_F(Pty, AFailedStartLeavesNothing)
{
    Shown child({"exit", "0"});
    child.program = folder + "\\not-there.exe";
    Refused(child, PM_ERR_NOT_FOUND, PM_STAGE_SEARCH, "program");
    EXPECT_EQ(0, mine.created);
    child.program = folder + "\\empty.exe";
    WriteFile(child.program, "");
    for (int i = 1; i <= 5; i++) {
        Refused(child, PM_ERR_NOT_EXECUTABLE, PM_STAGE_EXEC, "program");
        EXPECT_EQ(i, mine.created) << "it was too early a failure to show anything";
    }
}

TEST_F(Pty, StreamsThatAreNotTheTerminalAreRefused)
{
    for (pm_stdio_kind kind : {PM_STDIO_PIPE, PM_STDIO_NULL, PM_STDIO_INHERIT}) {
        Shown child({"exit", "0"});
        child->stdout_slot.kind = kind;
        Refused(child, PM_ERR_UNSUPPORTED, PM_STAGE_CHECK, "stdout_slot");
    }
    Shown child({"exit", "0"});
    child->group = PM_GROUP_HOST;
    Refused(child, PM_ERR_UNSUPPORTED, PM_STAGE_CHECK, "group");
}

TEST_F(Pty, WhatIsTypedArrivesAndIsShown)
{
    pm_process *process = Start({"lines"});
    Until(process, "<ready>");
    Type(process, "hallo\r");
    std::string shown = Until(process, "<got:hallo>");
    EXPECT_EQ(0u, shown.find("hallo")) << "the echo: " << shown;
    char byte;
    size_t count = 1;
    while (pm_stream_read(pm_process_stream(process, PM_STDOUT), &byte, 1, 200, &count) == PM_OK) {
    }
    EXPECT_EQ(PM_ERR_TIMEOUT,
              pm_stream_read(pm_process_stream(process, PM_STDOUT), &byte, 1, 0, &count));
    Type(process, "weld\b\bt\r");
    Until(process, "<got:wet>");
}

TEST_F(Pty, ClosedStdinIsTheEndOfItsInput)
{
    for (bool in_the_middle : {false, true}) {
        pm_process *process = Start({"lines"});
        Until(process, "<ready>");
        Type(process, in_the_middle ? "one\rtwo" : "one\r");
        Until(process, "<got:one>");
        Close(process, PM_STDIN);
        std::string rest = Plain(ReadAll(process));
        EXPECT_EQ(in_the_middle, rest.find("<got:two>") != std::string::npos) << rest;
        EXPECT_NE(std::string::npos, rest.find("<end>")) << rest;
        pm_exit record = Wait(process);
        EXPECT_EQ(3u, record.code);
        EXPECT_FALSE(record.stdout_truncated);
    }
}

TEST_F(Pty, NoLineIsLostWhenTheProgramEndsAtOnce)
{
    for (int i = 0; i < 24 && !HasFailure(); i++) {
        int count = i % 4 == 3 ? 2000 : i % 4 * 10;
        pm_process *process = Start({"burst", std::to_string(count)});
        if (i % 2 == 0) { // Nobody reads until it has ended.
            EXPECT_EQ(7u, Wait(process).code);
        }
        std::string shown = Plain(ReadAll(process));
        pm_exit record = Wait(process);
        EXPECT_EQ(7u, record.code);
        EXPECT_FALSE(record.stdout_truncated) << "round " << i;
        size_t at = 0;
        for (int k = 0; k < count && at != std::string::npos; k++) {
            at = shown.find("<" + std::to_string(k) + ">", at);
            EXPECT_NE(std::string::npos, at) << "round " << i << ", line " << k;
        }
        EXPECT_NE(std::string::npos, shown.find("<last>")) << "round " << i << "\n" << shown;
        Drop(process);
    }
}

TEST_F(Pty, OutputThatNobodyReadsHoldsNobodyUp)
{
    pm_process *process = Start({"burst", "200000"}); // More than the pipe takes.
    pm_native native = PM_NATIVE_INVALID;
    ASSERT_EQ(PM_OK, pm_stream_native(pm_process_stream(process, PM_STDOUT), &native));
    DWORD there = 0, before = 1;
    EXPECT_TRUE(Eventually([&] { // Full: what is there grows no more.
        before = there;
        PeekNamedPipe(reinterpret_cast<HANDLE>(native), nullptr, 0, nullptr, &there, nullptr);
        return there > 60000 && there == before;
    })) << there;
    EXPECT_EQ(1u, Stop(process, {kill}).ended_by);
    EXPECT_EQ(PM_EXIT_EXITED, Wait(process).kind);
    EXPECT_EQ(PM_OK, pm_close(manager, 20000, nullptr));
    manager = nullptr;
    pm_exit record = PM_EXIT_INIT;
    EXPECT_EQ(PM_OK, pm_process_wait(process, 0, &record));
    if (OnWine()) {
        EXPECT_EQ(0, mine.closed) << "its host waits for a reader";
    }
    Drop(process);
    EXPECT_TRUE(Eventually([&] { return mine.closed == 1; }));
    // And now who writes still lives.
    Open();
    process = Start({"burst", "200000"});
    ASSERT_EQ(PM_OK, pm_stream_native(pm_process_stream(process, PM_STDOUT), &native));
    EXPECT_TRUE(Eventually([&] {
        before = there;
        PeekNamedPipe(reinterpret_cast<HANDLE>(native), nullptr, 0, nullptr, &there, nullptr);
        return there > 60000 && there == before;
    })) << there;
    Drop(process);
    EXPECT_TRUE(Eventually([&] { return mine.closed == 2; })) << "waits for a reader for ever";
}

TEST_F(Pty, TheLastWordsMayTakeLongerThanTheSilenceThatEndsOthers)
{
    pm_options options = DefaultOptions();
    ASSERT_EQ(PM_OK, pm_close(manager, 20000, nullptr));
    options.drain_ms = 50;
    Open(options);
    mine.hold_close = CreateEventW(nullptr, TRUE, FALSE, nullptr);
    pm_process *process = Start({"burst", "3"});
    Until(process, "<last>");
    EXPECT_EQ(7u, Wait(process).code);
    char byte;
    size_t count = 1;
    int result = PM_OK;
    while (result == PM_OK && count > 0) {
        result = pm_stream_read(pm_process_stream(process, PM_STDOUT), &byte, 1, 500, &count);
    }
    EXPECT_EQ(PM_ERR_TIMEOUT, result) << "no end before it is closed";
    SetEvent(mine.hold_close);
    ReadAll(process);
    EXPECT_FALSE(Wait(process).stdout_truncated);
    EXPECT_TRUE(Eventually([&] { return mine.closed == 1; }));
    CloseHandle(mine.hold_close);
    mine.hold_close = nullptr;
}

// As before Windows 11 24H2, where it may wait for a host that does not end.
TEST_F(Pty, AClosingThatTakesLongHoldsNobodyUp)
{
    mine.hold_close = CreateEventW(nullptr, TRUE, FALSE, nullptr);
    pm_process *process = Start({"burst", "3"});
    EXPECT_EQ(7u, Wait(process).code);
    std::string shown = Plain(ReadAll(process));
    EXPECT_NE(std::string::npos, shown.find("<last>")) << shown;
    EXPECT_TRUE(Wait(process).stdout_truncated) << "its end was not seen";
    EXPECT_EQ(PM_ERR_GONE, pm_process_resize(process, 80, 24));
    Drop(process);
    process = Start({"mute"});
    Until(process, "<ready>");
    Drop(process); // Hangs up, and that is held, too.
    EXPECT_EQ(PM_OK, pm_stop_all(manager, 20000, nullptr, nullptr, nullptr));
    EXPECT_EQ(PM_OK, pm_close(manager, 20000, nullptr));
    manager = nullptr;
    EXPECT_EQ(0, mine.closed);
    SetEvent(mine.hold_close);
    EXPECT_TRUE(Eventually([&] { return mine.closed == 2; }));
    CloseHandle(mine.hold_close);
    mine.hold_close = nullptr;
}

TEST_F(Pty, ByTheDozenLeaveNothingBehind)
{
    size_t threads = Threads();
    for (int i = 0; i < 60 && !HasFailure(); i++) {
        pm_process *process = Start(i % 3 == 0 ? std::vector<std::string>{"mute"}
                                               : std::vector<std::string>{"exit", "0"});
        if (i % 3 == 0) {
            Until(process, "<ready>");
        } else if (i % 3 == 1) {
            Wait(process);
        }
        if (i % 2 == 0) {
            Close(process, PM_STDOUT);
        }
        Drop(process);
    }
    EXPECT_TRUE(Eventually([&] { return Stats().ended == Stats().started; }))
        << Stats().ended << " of " << Stats().started;
    EXPECT_EQ(60, mine.created);
    EXPECT_TRUE(Eventually([&] { return mine.closed == 60; })) << mine.closed;
    EXPECT_TRUE(Eventually([&] { return Hosts() == hosts_before; }));
    // The system's thread pool may have grown, by no more than a few.
    EXPECT_TRUE(Eventually([&] { return Threads() <= threads + 6; })) << Threads() - threads;
}

TEST_F(Pty, TheEndOfTheHandleHangsUp)
{
    pm_process *process = Start({"mute"});
    Until(process, "<ready>");
    uint64_t pid = Pid(process);
    Drop(process);
    EXPECT_TRUE(Eventually([&] { return !PidAlive(pid); }));
}

TEST_F(Pty, ClosedStreamsHangUp)
{
    pm_process *process = Start({"mute"});
    Until(process, "<ready>");
    Close(process, PM_STDOUT);
    EXPECT_EQ(PM_OK, pm_process_resize(process, 80, 25)) << "there is one more";
    EXPECT_TRUE(pm_process_alive(process));
    Close(process, PM_STDIN);
    EXPECT_EQ(PM_EXIT_EXITED, Wait(process).kind);
    EXPECT_EQ(PM_ERR_GONE, pm_process_resize(process, 80, 25));
}

// What is shown without a reader of ours: the taker reads overlapped, as a loop does.
std::string ReadTaken(HANDLE out, const std::string &wanted, DWORD *ret_error)
{
    std::string all;
    OVERLAPPED operation = {};
    operation.hEvent = CreateEventW(nullptr, TRUE, FALSE, nullptr);
    *ret_error = ERROR_SUCCESS;
    while (wanted.empty() || Plain(all).find(wanted) == std::string::npos) {
        char buffer[4096];
        DWORD count = 0;
        if (!ReadFile(out, buffer, sizeof buffer, nullptr, &operation) &&
            GetLastError() != ERROR_IO_PENDING) {
            *ret_error = GetLastError();
            break;
        }
        if (WaitForSingleObject(operation.hEvent, static_cast<DWORD>(Patience())) !=
            WAIT_OBJECT_0) {
            CancelIoEx(out, &operation);
        }
        if (!GetOverlappedResult(out, &operation, &count, TRUE)) {
            *ret_error = GetLastError();
            break;
        }
        all.append(buffer, count);
    }
    CloseHandle(operation.hEvent);
    return Plain(all);
}

TEST_F(Pty, ATakenTerminalIsTheTakers)
{
    pm_process *process = Start({"lines"});
    pm_native taken[2];
    DWORD error = 0;
    ASSERT_EQ(PM_OK, pm_stream_take(pm_process_stream(process, PM_STDIN), &taken[0]));
    ASSERT_EQ(PM_OK, pm_stream_take(pm_process_stream(process, PM_STDOUT), &taken[1]));
    HANDLE in = reinterpret_cast<HANDLE>(taken[0]), out = reinterpret_cast<HANDLE>(taken[1]);
    DWORD flags = HANDLE_FLAG_INHERIT;
    EXPECT_TRUE(GetHandleInformation(out, &flags));
    EXPECT_EQ(0u, flags & HANDLE_FLAG_INHERIT);
    ReadTaken(out, "<ready>", &error);
    EXPECT_EQ(PM_OK, pm_process_resize(process, 100, 30));
    uint64_t pid = Pid(process);
    Drop(process);
    OVERLAPPED operation = {};
    DWORD count = 0;
    operation.hEvent = CreateEventW(nullptr, TRUE, FALSE, nullptr);
    (void)WriteFile(in, "word\r\x1a\r", 7, nullptr, &operation);
    EXPECT_TRUE(GetOverlappedResult(in, &operation, &count, TRUE));
    std::string shown = ReadTaken(out, "", &error);
    EXPECT_NE(std::string::npos, shown.find("<got:word>")) << shown;
    EXPECT_NE(std::string::npos, shown.find("<end>")) << shown;
    EXPECT_EQ(static_cast<DWORD>(ERROR_BROKEN_PIPE), error) << "the end comes to the taker, too";
    EXPECT_TRUE(Eventually([&] { return !PidAlive(pid); }));
    CloseHandle(operation.hEvent);
    CloseHandle(in);
    CloseHandle(out);
}

TEST_F(Pty, StderrMayBeAPipe)
{
    Shown child({"both"});
    child->stderr_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    std::string shown = Plain(ReadAll(process)), error = ReadAll(process, PM_STDERR);
    EXPECT_NE(std::string::npos, shown.find("stdout")) << shown;
    EXPECT_EQ(std::string::npos, shown.find("stderr")) << shown;
    EXPECT_NE(std::string::npos, error.find("to stderr")) << error;
}

TEST_F(Pty, IsRunInOneCall)
{
    Shown child({"lines"});
    pm_run_options options = PM_RUN_OPTIONS_INIT;
    pm_run_result result = PM_RUN_RESULT_INIT;
    pm_error error = PM_ERROR_INIT;
    options.spec = child.Get();
    options.input = "one\rtwo";
    options.input_size = 7;
    ASSERT_EQ(PM_OK, pm_run(manager, &options, &result, &error)) << ErrorText(error);
    std::string shown = Plain(std::string(result.output[0], result.output_size[0]));
    EXPECT_NE(std::string::npos, shown.find("<got:one>")) << shown;
    EXPECT_NE(std::string::npos, shown.find("<got:two>")) << shown;
    EXPECT_NE(std::string::npos, shown.find("<end>")) << shown;
    EXPECT_EQ(nullptr, result.output[1]);
    EXPECT_EQ(3u, result.record->code);
    EXPECT_EQ(7u, result.input_written);
    EXPECT_FALSE(result.record->stdout_truncated);
    pm_run_result_clear(&result);
}

TEST_F(Pty, ARunThatTakesTooLongIsStopped)
{
    Shown child({"mute"});
    child->stop.steps_count = 1;
    child->stop.steps[0] = kill;
    pm_run_options options = PM_RUN_OPTIONS_INIT;
    pm_run_result result = PM_RUN_RESULT_INIT;
    options.spec = child.Get();
    options.timeout_ms = int64_t{1500} * Slowness(); // The start is a part of it.
    ASSERT_EQ(PM_OK, pm_run(manager, &options, &result, nullptr));
    EXPECT_TRUE(result.timed_out);
    EXPECT_NE(std::string::npos,
              Plain(std::string(result.output[0], result.output_size[0])).find("<ready>"));
    pm_run_result_clear(&result);
}

TEST_F(Pty, StepsOfAStopReachIt)
{
    pm_process *process = Start({"lines"});
    Until(process, "<ready>");
    EXPECT_EQ(1u, Stop(process, {{PM_STOP_CLOSE_STDIN, PM_SCOPE_PROCESS, 15000}, kill}).ended_by);
    EXPECT_EQ(3u, Wait(process).code);
    for (pm_stop_action action : {PM_STOP_INTERRUPT, PM_STOP_TERMINATE}) {
        for (pm_stop_scope scope : {PM_SCOPE_TREE, PM_SCOPE_PROCESS}) {
            process = Start({"listener"});
            Until(process, "<ready>");
            pm_stop_report report = Stop(process, {{action, scope, 15000}, kill});
            EXPECT_EQ(PM_OK, report.step_results[0]);
            EXPECT_EQ(1u, report.ended_by);
            EXPECT_EQ(46u, Wait(process).code);
        }
    }
    process = Start({"mute"});
    Until(process, "<ready>");
    EXPECT_EQ(1u, Stop(process, {kill}).ended_by);
    EXPECT_FALSE(Wait(process).stdout_truncated);
    ReadAll(process);
    EXPECT_FALSE(Wait(process).stdout_truncated) << "the end of a killed one is an end, too";
}

TEST_F(Pty, TheEndOfTheLeaderHangsUpForAllOnTheConsole)
{
    pm_process *process = Start({"holder", "on"});
    uint64_t pid = NumberAfter(Until(process, "<held:"), "<held:");
    EXPECT_EQ(5u, Wait(process).code);
    ReadAll(process);
    EXPECT_TRUE(Eventually([&] { return !PidAlive(pid); }));
}

TEST_F(Pty, WhoLeftTheConsoleLivesOnUnlessToldOtherwise)
{
    for (bool told : {false, true}) {
        Shown child({"holder", "off"});
        child->kill_tree_on_exit = told;
        pm_process *process = Spawn(child);
        uint64_t pid = NumberAfter(Until(process, "<held:"), "<held:");
        EXPECT_EQ(5u, Wait(process).code);
        ReadAll(process);
        EXPECT_FALSE(Wait(process).stdout_truncated) << "it does not hold the terminal";
        if (told) {
            EXPECT_TRUE(Eventually([&] { return !PidAlive(pid); }));
        } else {
            EXPECT_TRUE(PidAlive(pid));
            Stop(process, {kill});
            EXPECT_TRUE(Eventually([&] { return !PidAlive(pid); }));
        }
    }
}

// A host that is killed.
int PtyHost(const std::vector<std::string> &a)
{
    pm_options options = PM_OPTIONS_INIT;
    pm_manager *manager = nullptr;
    pm_process *process = nullptr;
    pm_error error = PM_ERROR_INIT;
    Child child({"mute"});
    child->mode = PM_MODE_PTY;
    child->stdin_slot.kind = PM_STDIO_DEFAULT;
    child->die_with_parent = a.at(0) == "dies";
    if (OnWine()) {
        child.env.push_back("PM_TEST_TERMINAL=1");
    }
    char buffer[4096];
    size_t count = 1;
    std::string all;
    if (pm_open(&options, &manager, &error) != PM_OK ||
        pm_spawn(manager, child.Get(), &process, &error) != PM_OK) {
        printf("%s\n", ErrorText(error).c_str());
        return 1;
    }
    while (Plain(all).find("<ready>") == std::string::npos && count != 0 &&
           pm_stream_read(pm_process_stream(process, PM_STDOUT), buffer, sizeof buffer, Patience(),
                          &count) == PM_OK) {
        all.append(buffer, count);
    }
    printf("pty %u\n", static_cast<unsigned>(pm_process_pid(process)));
    fflush(stdout);
    Sleep(60000);
    return 1;
}
const RoleAdder pty_host("pty-host", PtyHost);

TEST_F(Pty, TheDeathOfTheHostHangsUp)
{
    for (const char *how : {"dies", "hangs-up"}) {
        Child child({"pty-host", how});
        child->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *host = Spawn(child);
        uint64_t pid = NumberAfter(ReadLine(host), "pty ");
        EXPECT_TRUE(PidAlive(pid));
        Stop(host, {{PM_STOP_KILL, PM_SCOPE_PROCESS, 15000}});
        EXPECT_TRUE(Eventually([&] { return !PidAlive(pid); })) << how;
    }
}

TEST_F(Pty, AShellIsTalkedTo)
{
    Shown child({"trampoline", "cmd.exe /d"});
    if (!OnWine()) {
        child.program = "cmd.exe";
        child.args = {"cmd.exe", "/d"};
    }
    pm_process *process = Spawn(child);
    Type(process, "echo lab%OS%\r");
    Until(process, "labWindows_NT");
    Type(process, "exit 9\r");
    EXPECT_EQ(9u, Wait(process).code);
    ReadAll(process);
    EXPECT_FALSE(Wait(process).stdout_truncated);
}

TEST_F(Pty, ManyAtOnceAreAllReal)
{
    std::vector<pm_process *> shown;
    for (int i = 0; i < 10; i++) {
        shown.push_back(Start({"on-console"}));
    }
    for (pm_process *process : shown) {
        Until(process, "<good:80x24>");
    }
    EXPECT_EQ(PM_OK, pm_stop_all(manager, 20000, nullptr, nullptr, nullptr));
}

TEST_F(Pty, SeveralThreadsStartTheirs)
{
    std::vector<std::thread> threads;
    std::atomic<int> good{0};
    for (int t = 0; t < 4; t++) {
        threads.emplace_back([&] {
            for (int i = 0; i < 5; i++) {
                Child child({"exit", "12"});
                child->mode = PM_MODE_PTY;
                child->stdin_slot.kind = PM_STDIO_DEFAULT;
                pm_process *process = nullptr;
                pm_exit record = PM_EXIT_INIT;
                good += pm_spawn(manager, child.Get(), &process, nullptr) == PM_OK &&
                        pm_process_wait(process, Patience(), &record) == PM_OK && record.code == 12;
                pm_process_unref(process);
            }
        });
    }
    for (auto &thread : threads) {
        thread.join();
    }
    EXPECT_EQ(20, good);
}

} // namespace
