// PTY mode: real terminals, with what lives on them.

#include "fixture.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <thread>
#include <unistd.h>

using namespace contract;

namespace
{

// ------------------------------------------------------------------------------------------------
// Roles
// ------------------------------------------------------------------------------------------------

void Line(const std::string &text)
{
    std::string line = text + "\n";
    for (size_t at = 0; at < line.size();) {
        ssize_t n = write(1, line.data() + at, line.size() - at);
        if (n <= 0)
            _exit(9);
        at += static_cast<size_t>(n);
    }
}

std::string Size()
{
    struct winsize size = {};
    ioctl(0, TIOCGWINSZ, &size);
    return std::to_string(size.ws_col) + "x" + std::to_string(size.ws_row);
}

// Says what its terminal is, then what it is told about its size.
int OnTerminal(const std::vector<std::string> &)
{
    sigset_t winch;
    sigemptyset(&winch);
    sigaddset(&winch, SIGWINCH);
    sigprocmask(SIG_BLOCK, &winch, nullptr);
    int tty = open("/dev/tty", O_RDWR | O_CLOEXEC);
    struct termios mode = {};
    tcgetattr(0, &mode);
    std::string faults;
    for (int fd = 0; fd < 3; fd++)
        if (isatty(fd) != 1)
            faults += " no-terminal-on-" + std::to_string(fd);
    if (tty < 0)
        faults += " no-/dev/tty";
    if ((tcgetsid(0) != getpid() && !OnEmulator()) || getsid(0) != getpid())
        faults += " no-session";
    if (tcgetpgrp(0) != getpgrp() || getpgrp() != getpid())
        faults += " not-in-the-foreground";
    if ((mode.c_lflag & (ICANON | ECHO | ISIG)) != (ICANON | ECHO | ISIG))
        faults += " odd-mode";
#ifdef IUTF8
    if ((mode.c_iflag & IUTF8) == 0)
        faults += " no-utf8";
#endif
    if (access(ttyname(0), R_OK | W_OK) != 0)
        faults += " not-mine";
    Line((faults.empty() ? "good " : "bad" + faults + " ") + Size());
    int number;
    while (sigwait(&winch, &number) == 0)
        Line("size " + Size());
    return 0;
}

// So many bytes of a known sequence, all at once, and out.
int Burst(const std::vector<std::string> &args)
{
    size_t size = std::stoul(args.at(0));
    std::string bytes;
    for (size_t i = 0; i < size; i++)
        bytes += static_cast<char>('a' + i % 23);
    for (size_t at = 0; at < size;) {
        ssize_t n = write(1, bytes.data() + at, size - at);
        if (n <= 0)
            return 1;
        at += static_cast<size_t>(n);
    }
    return 7;
}

// Leaves a child behind that keeps the terminal and is deaf to its hang-up.
int Holder(const std::vector<std::string> &args)
{
    int ready[2];
    if (pipe(ready) != 0)
        return 1;
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGHUP, SIG_IGN);
        if (!args.empty())
            setsid();
        alarm(60);
        Line("held by " + std::to_string(getpid()));
        close(ready[1]);
        close(ready[0]);
        pause();
        _exit(0);
    }
    close(ready[1]);
    char byte;
    (void)!read(ready[0], &byte, 1);
    return 0;
}

// Reads lines until their end.
int Lines(const std::vector<std::string> &)
{
    struct termios mode = {};
    tcgetattr(0, &mode);
    mode.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    tcsetattr(0, TCSANOW, &mode);
    Line("ready");
    char buffer[1024];
    for (ssize_t n; (n = read(0, buffer, sizeof buffer)) > 0;)
        Line("got " + std::string(buffer, static_cast<size_t>(n) - (buffer[n - 1] == '\n')));
    Line("end");
    return 3;
}

// Reads nothing before it is told to, by SIGUSR1; then all, and says how much.
int LateReader(const std::vector<std::string> &)
{
    struct termios mode = {};
    sigset_t go;
    sigemptyset(&go);
    sigaddset(&go, SIGUSR1);
    sigprocmask(SIG_BLOCK, &go, nullptr);
    tcgetattr(0, &mode);
    mode.c_lflag &= ~static_cast<tcflag_t>(ECHO);
    tcsetattr(0, TCSANOW, &mode);
    Line("ready");
    int number;
    sigwait(&go, &number);
    size_t all = 0;
    char buffer[4096];
    for (ssize_t n; (n = read(0, buffer, sizeof buffer)) > 0;)
        all += static_cast<size_t>(n);
    Line("read " + std::to_string(all));
    return 3;
}

// Has no end-of-file character, and shows what it is typed. Says when its window changes.
int WithoutEnd(const std::vector<std::string> &)
{
    struct termios mode = {};
    sigset_t winch;
    sigemptyset(&winch);
    sigaddset(&winch, SIGWINCH);
    sigprocmask(SIG_BLOCK, &winch, nullptr);
    tcgetattr(0, &mode);
    mode.c_cc[VEOF] = _POSIX_VDISABLE;
    tcsetattr(0, TCSANOW, &mode);
    Line("ready");
    int number;
    sigwait(&winch, &number);
    Line("changed");
    return 0;
}

const RoleAdder late_reader("late-reader", LateReader);
const RoleAdder without_end("without-end", WithoutEnd);
const RoleAdder on_terminal("on-terminal", OnTerminal);
const RoleAdder burst("burst", Burst);
const RoleAdder holder("holder", Holder);
const RoleAdder lines("lines", Lines);

// ------------------------------------------------------------------------------------------------
// Tests
// ------------------------------------------------------------------------------------------------

class Pty : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
    }

    struct Shown : Child {
        explicit Shown(std::vector<std::string> args) : Child(std::move(args))
        {
            spec.mode = PM_MODE_PTY;
            spec.stdin_slot.kind = spec.stdout_slot.kind = spec.stderr_slot.kind = PM_STDIO_DEFAULT;
        }
    };

    // A line without what ends it.
    static std::string Told(pm_process *process)
    {
        std::string line = ReadLine(process);
        return !line.empty() && line.back() == '\r' ? line.substr(0, line.size() - 1) : line;
    }

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
        char byte;
        size_t count = 1;
        while (all.find(wanted) == std::string::npos && count != 0) {
            int result =
                pm_stream_read(pm_process_stream(process, PM_STDOUT), &byte, 1, Patience(), &count);
            if (result != PM_OK) {
                ADD_FAILURE() << "'" << wanted << "' did not come: " << pm_error_name(result)
                              << " after\n"
                              << all;
                break;
            }
            all.append(&byte, count);
        }
        EXPECT_NE(std::string::npos, all.find(wanted)) << all;
        return all;
    }

    // The process has ended before anybody reads, or is read while it lives.
    void Bursts(size_t size, int rounds)
    {
        std::string wanted;
        for (size_t i = 0; i < size; i++)
            wanted += static_cast<char>('a' + i % 23);
        for (int i = 0; i < rounds && !HasFailure(); i++) {
            Shown child({"burst", std::to_string(size)});
            pm_process *process = Spawn(child);
            if (i % 2 == 0 && size <= 4000) {
                EXPECT_EQ(7u, Wait(process).code);
            }
            std::string shown = ReadAll(process);
            pm_exit record = Wait(process);
            EXPECT_EQ(wanted.size(), shown.size()) << "round " << i;
            EXPECT_TRUE(wanted == shown) << "round " << i << ": other bytes";
            EXPECT_EQ(7u, record.code);
            EXPECT_FALSE(record.stdout_truncated);
            held.clear();
            pm_process_unref(process);
        }
    }
};

TEST_F(Pty, IsARealTerminalOfItsOwn)
{
    Shown child({"on-terminal"});
    pm_process *process = Spawn(child);
    EXPECT_EQ("good 80x24", Told(process));
    EXPECT_EQ(nullptr, pm_process_stream(process, PM_STDERR));
    pm_info info = PM_INFO_INIT;
    ASSERT_EQ(PM_OK, pm_process_info(process, &info));
    EXPECT_EQ(PM_MODE_PTY, info.mode);
    EXPECT_EQ(PM_CONTAIN_GROUP, info.containment);
}

TEST_F(Pty, HasTheSizeThatItIsGiven)
{
    Shown child({"on-terminal"});
    child->terminal_columns = 132;
    child->terminal_rows = 50;
    pm_process *process = Spawn(child);
    EXPECT_EQ("good 132x50", Told(process));
    EXPECT_EQ(PM_OK, pm_process_resize(process, 1, 1));
    EXPECT_EQ("size 1x1", Told(process));
    EXPECT_EQ(PM_OK, pm_process_resize(process, 32767, 32767));
    EXPECT_EQ("size 32767x32767", Told(process));
    const unsigned hostile[] = {0, 32768, 65535, 65536, 65536 + 80, 0x80000000u, UINT32_MAX};
    for (unsigned size : hostile) {
        EXPECT_EQ(PM_ERR_INVALID, pm_process_resize(process, size, 24)) << size;
        EXPECT_EQ(PM_ERR_INVALID, pm_process_resize(process, 80, size)) << size;
    }
    EXPECT_EQ(PM_OK, pm_process_resize(process, 80, 24));
    EXPECT_EQ("size 80x24", Told(process)) << "and nothing between";
}

TEST_F(Pty, IsWhatResizingNeeds)
{
    Child child({"linger"});
    pm_process *process = Spawn(child);
    EXPECT_EQ(PM_ERR_UNSUPPORTED, pm_process_resize(process, 80, 24));
    Shown shown({"exit", "0"});
    process = Spawn(shown);
    Wait(process);
    EXPECT_EQ(PM_OK, pm_stream_close(pm_process_stream(process, PM_STDIN)));
    EXPECT_EQ(PM_OK, pm_stream_close(pm_process_stream(process, PM_STDOUT)));
    EXPECT_EQ(PM_ERR_GONE, pm_process_resize(process, 80, 24));
}

TEST_F(Pty, SizesThatAreNoneAreRefused)
{
    for (unsigned size : {32768u, 65535u}) {
        Shown child({"exit", "0"});
        int code = PM_OK;
        pm_error error = PM_ERROR_INIT;
        child->terminal_columns = static_cast<uint16_t>(size);
        EXPECT_EQ(nullptr, TrySpawn(child, &code, &error));
        EXPECT_EQ(PM_ERR_INVALID, code);
        EXPECT_STREQ("terminal_columns", error.field);
        child->terminal_columns = 80;
        child->terminal_rows = static_cast<uint16_t>(size);
        EXPECT_EQ(nullptr, TrySpawn(child, &code, &error));
        EXPECT_EQ(PM_ERR_INVALID, code);
        EXPECT_STREQ("terminal_rows", error.field);
    }
}

TEST_F(Pty, StreamsThatAreNotTheTerminalAreRefused)
{
    for (pm_stdio_kind kind : {PM_STDIO_PIPE, PM_STDIO_NULL, PM_STDIO_INHERIT}) {
        Shown child({"exit", "0"});
        int code = PM_OK;
        pm_error error = PM_ERROR_INIT;
        child->stdout_slot.kind = kind;
        EXPECT_EQ(nullptr, TrySpawn(child, &code, &error));
        EXPECT_EQ(PM_ERR_UNSUPPORTED, code);
        EXPECT_STREQ("stdout_slot", error.field);
    }
    Shown child({"exit", "0"});
    int code = PM_OK;
    child->group = PM_GROUP_HOST;
    EXPECT_EQ(nullptr, TrySpawn(child, &code));
    EXPECT_EQ(PM_ERR_UNSUPPORTED, code);
}

TEST_F(Pty, AFailedExecLeavesNoTerminalBehind)
{
    Shown child({"exit", "0"});
    child.program = folder + "/not-there";
    int code = PM_OK;
    EXPECT_EQ(nullptr, TrySpawn(child, &code));
    EXPECT_EQ(PM_ERR_NOT_FOUND, code);
}

TEST_F(Pty, StderrMayBeAPipe)
{
    Shown child({"both", "10"});
    child->stderr_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    std::string shown = ReadAll(process), error = ReadAll(process, PM_STDERR);
    EXPECT_NE("", shown);
    EXPECT_NE("", error);
    EXPECT_EQ(std::string::npos, shown.find(error));
}

TEST_F(Pty, NoByteIsLostWhenTheProgramEndsAtOnce)
{
    Bursts(1, 500);
    Bursts(3000, 500);
    Bursts(65536, 500);
}

TEST_F(Pty, NoByteOfAMegabyteIsLost)
{
    Bursts(1 << 20, 50);
}

TEST_F(Pty, WhatIsTypedArrivesAndIsShown)
{
    Shown child({"cat"});
    pm_process *process = Spawn(child);
    Type(process, "\xc3\xa9"
                  "abc\x7f\n"); // The last letter is erased.
    Until(process, "\xc3\xa9"
                   "abc\b \b\r\n\xc3\xa9"
                   "ab\r\n");
}

TEST_F(Pty, ClosedStdinIsTheEndOfItsInput)
{
    for (bool in_the_middle : {false, true}) {
        Shown child({"lines"});
        pm_process *process = Spawn(child);
        EXPECT_EQ("ready", Told(process));
        Type(process, in_the_middle ? "one\ntwo" : "one\n");
        EXPECT_EQ("got one", Told(process));
        EXPECT_EQ(PM_OK, pm_stream_close(pm_process_stream(process, PM_STDIN)));
        if (in_the_middle) {
            EXPECT_EQ("got two", Told(process));
        }
        EXPECT_EQ("end", Told(process));
        EXPECT_EQ(3u, Wait(process).code);
    }
}

// Types lines until there is no room for more, nor any made by the kernel in a while.
size_t TypeAllThatFits(pm_process *process)
{
    std::string line(79, 'a');
    line += '\n';
    size_t all = 0, count = 0;
    int result = PM_OK;
    while (result == PM_OK) {
        result = pm_stream_write(pm_process_stream(process, PM_STDIN), line.data(), line.size(),
                                 200, &count);
        all += count;
    }
    EXPECT_EQ(PM_ERR_TIMEOUT, result);
    return all;
}

TEST_F(Pty, TheEndOfTheInputIsNotLostInAFullTerminal)
{
    Shown child({"late-reader"});
    pm_process *process = Spawn(child);
    EXPECT_EQ("ready", Told(process));
    size_t typed = TypeAllThatFits(process);
    EXPECT_LT(4000u, typed);
    EXPECT_EQ(PM_ERR_TIMEOUT, pm_stream_close(pm_process_stream(process, PM_STDIN)));
    pm_native native = -1;
    EXPECT_EQ(PM_OK, pm_stream_native(pm_process_stream(process, PM_STDIN), &native))
        << "still open";
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGUSR1, PM_SCOPE_PROCESS));
    EXPECT_TRUE(
        Eventually([&] { return pm_stream_close(pm_process_stream(process, PM_STDIN)) == PM_OK; }));
    EXPECT_EQ("read " + std::to_string(typed), Told(process));
    EXPECT_EQ(3u, Wait(process).code);
}

TEST_F(Pty, AStopThatClosesAFullTerminalTriesAgain)
{
    Shown child({"late-reader"});
    child->stop.steps_count = 2;
    child->stop.steps[0] = {PM_STOP_CLOSE_STDIN, PM_SCOPE_PROCESS, 20000};
    child->stop.steps[1] = {PM_STOP_KILL, PM_SCOPE_TREE, 10000};
    pm_process *process = Spawn(child);
    EXPECT_EQ("ready", Told(process));
    TypeAllThatFits(process);
    pm_stop_report report = PM_STOP_REPORT_INIT;
    std::thread stop([&] { EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, &report)); });
    // Its first try meets the full terminal, most likely: unit_stop has it for sure.
    std::this_thread::yield();
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGUSR1, PM_SCOPE_PROCESS));
    stop.join();
    EXPECT_EQ(1u, report.ended_by);
    EXPECT_EQ(PM_OK, report.step_results[0]);
    EXPECT_EQ(3u, Wait(process).code);
    // One that never reads is ended by the next step.
    Shown deaf({"late-reader"});
    deaf->stop.steps_count = 2;
    deaf->stop.steps[0] = {PM_STOP_CLOSE_STDIN, PM_SCOPE_PROCESS, 100};
    deaf->stop.steps[1] = {PM_STOP_KILL, PM_SCOPE_TREE, 10000};
    process = Spawn(deaf);
    EXPECT_EQ("ready", Told(process));
    TypeAllThatFits(process);
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, &report));
    EXPECT_EQ(PM_ERR_TIMEOUT, report.step_results[0]);
    EXPECT_EQ(2u, report.ended_by);
    EXPECT_EQ(2u, Wait(process).stop_step);
}

TEST_F(Pty, ARunTypesMoreThanTheTerminalHolds)
{
    std::string script = "stty -echo; sleep 0.2; wc -c";
    const char *argv[] = {"sh", "-c", script.c_str(), nullptr};
    std::string input;
    while (input.size() < 200000)
        input += std::string(79, 'a') + "\n";
    pm_spec spec = PM_SPEC_INIT;
    spec.owner = "pty";
    spec.program = "sh";
    spec.argv = argv;
    spec.mode = PM_MODE_PTY;
    pm_run_options options = PM_RUN_OPTIONS_INIT;
    pm_run_result result = PM_RUN_RESULT_INIT;
    options.spec = &spec;
    options.input = input.data();
    options.input_size = input.size();
    options.timeout_ms = Patience();
    ASSERT_EQ(PM_OK, pm_run(manager, &options, &result, nullptr));
    EXPECT_FALSE(result.timed_out);
    EXPECT_EQ(input.size(), result.input_written);
    EXPECT_NE(nullptr, strstr(result.output[0], std::to_string(input.size()).c_str()))
        << result.output[0];
    pm_run_result_clear(&result);
}

TEST_F(Pty, NothingIsTypedWhereThereIsNoEndOfFileCharacter)
{
    Shown child({"without-end"});
    pm_process *process = Spawn(child);
    EXPECT_EQ("ready", Told(process));
    EXPECT_EQ(PM_OK, pm_stream_close(pm_process_stream(process, PM_STDIN)));
    EXPECT_EQ(PM_OK, pm_process_resize(process, 81, 25));
    EXPECT_EQ("changed\r\n", Until(process, "changed\r\n"));
}

TEST_F(Pty, ATakenStreamThatBlocksDoesNotMakeTheOtherBlock)
{
    Shown child({"linger"});
    pm_process *process = Spawn(child);
    EXPECT_EQ("ready", Told(process));
    pm_native typed = -1;
    ASSERT_EQ(PM_OK, pm_stream_take(pm_process_stream(process, PM_STDIN), &typed));
    int fd = static_cast<int>(typed), flags = fcntl(fd, F_GETFL);
    EXPECT_EQ(0, fcntl(fd, F_SETFL, flags & ~O_NONBLOCK));
    char buffer[16];
    size_t count = 0;
    EXPECT_EQ(PM_ERR_TIMEOUT, pm_stream_read(pm_process_stream(process, PM_STDOUT), buffer,
                                             sizeof buffer, 50, &count));
    close(fd);
}

TEST_F(Pty, CtrlCInterrupts)
{
    Shown child({"lines"});
    pm_process *process = Spawn(child);
    EXPECT_EQ("ready", Told(process));
    Type(process, "\x03");
    pm_exit record = Wait(process);
    EXPECT_EQ(PM_EXIT_SIGNALED, record.kind);
    EXPECT_EQ(SIGINT, record.signal);
}

TEST_F(Pty, TheEndOfTheHandleHangsUp)
{
    Shown child({"on-terminal"});
    pm_process *process = Spawn(child);
    EXPECT_EQ("good 80x24", Told(process));
    pm_info info = PM_INFO_INIT;
    ASSERT_EQ(PM_OK, pm_process_info(process, &info));
    uint64_t pid = info.pid;
    held.clear();
    pm_process_unref(process);
    EXPECT_TRUE(Eventually([&] { return !PidAlive(pid); }));
}

TEST_F(Pty, ClosedStreamsHangUp)
{
    Shown child({"on-terminal"});
    pm_process *process = Spawn(child);
    EXPECT_EQ("good 80x24", Told(process));
    EXPECT_EQ(PM_OK, pm_stream_close(pm_process_stream(process, PM_STDOUT)));
    EXPECT_EQ(PM_OK, pm_process_resize(process, 80, 25)) << "there is one more";
    EXPECT_EQ(PM_OK, pm_stream_close(pm_process_stream(process, PM_STDIN)));
    pm_exit record = Wait(process);
    EXPECT_EQ(SIGHUP, record.signal);
}

TEST_F(Pty, ATakenTerminalIsTheTakers)
{
    Shown child({"lines"});
    pm_process *process = Spawn(child);
    EXPECT_EQ("ready", Told(process));
    pm_native fds[2];
    ASSERT_EQ(PM_OK, pm_stream_take(pm_process_stream(process, PM_STDIN), &fds[0]));
    ASSERT_EQ(PM_OK, pm_stream_take(pm_process_stream(process, PM_STDOUT), &fds[1]));
    EXPECT_EQ(PM_OK, pm_process_resize(process, 100, 30));
    EXPECT_EQ(5, write(static_cast<int>(fds[0]), "word\n", 5));
    std::string all;
    char buffer[256];
    while (all.find("got word") == std::string::npos) {
        struct pollfd in = {static_cast<int>(fds[1]), POLLIN, 0};
        ASSERT_EQ(1, Uninterrupted([&] { return poll(&in, 1, static_cast<int>(Patience())); }));
        ssize_t n = read(static_cast<int>(fds[1]), buffer, sizeof buffer);
        ASSERT_GT(n, 0);
        all.append(buffer, static_cast<size_t>(n));
    }
    struct winsize size = {};
    EXPECT_EQ(0, ioctl(static_cast<int>(fds[0]), TIOCGWINSZ, &size));
    EXPECT_EQ(100, size.ws_col);
    close(static_cast<int>(fds[0]));
    close(static_cast<int>(fds[1]));
    held.clear();
    pm_process_unref(process);
}

TEST_F(Pty, AGrandchildThatHoldsTheTerminalEndsTheStreamNotTheWait)
{
    for (bool escaped : {false, true}) {
        Shown child(escaped ? std::vector<std::string>{"holder", "escaped"}
                            : std::vector<std::string>{"holder"});
        pm_process *process = Spawn(child);
        EXPECT_EQ(PM_EXIT_EXITED, Wait(process).kind);
        std::string shown = ReadAll(process);
        uint64_t pid = NumberAfter(shown, "held by");
        // Its leader's end has hung the terminal up for all on it: that is an end, too.
        KillByNumber(pid);
    }
}

TEST_F(Pty, NoOtherChildGetsIt)
{
    std::vector<pm_process *> shown;
    for (int i = 0; i < 5; i++) {
        Shown child({"on-terminal"});
        shown.push_back(Spawn(child));
        EXPECT_EQ("good 80x24", Told(shown.back()));
    }
    Child child({"fds"});
    child->stdin_slot.kind = PM_STDIO_NULL;
    child->stdout_slot.kind = PM_STDIO_PIPE;
    std::string said = ReadLine(Spawn(child));
    EXPECT_EQ(0u, said.find("fds: 0=")) << said;
    EXPECT_EQ(std::string::npos, said.find("ptmx")) << said;
    EXPECT_EQ(std::string::npos, said.find("pts")) << said;
    for (pm_process *process : shown) {
        pm_native native = -1;
        EXPECT_EQ(PM_OK, pm_stream_native(pm_process_stream(process, PM_STDIN), &native));
        EXPECT_NE(0, fcntl(static_cast<int>(native), F_GETFD) & FD_CLOEXEC);
    }
}

TEST_F(Pty, ByTheThousandLeaveNothingBehind)
{
    // The fixture counts descriptors.
    for (int i = 0; i < 1000 && !HasFailure(); i++) {
        bool escaped = i % 100 == 99;
        Shown child(escaped ? std::vector<std::string>{"holder", "escaped"}
                            : std::vector<std::string>{"exit", "0"});
        pm_process *process = Spawn(child);
        if (escaped)
            KillByNumber(NumberAfter(ReadLine(process), "held by"));
        if (i % 3 == 0)
            Wait(process);
        held.clear();
        pm_process_unref(process);
    }
    EXPECT_TRUE(Eventually([&] { return Stats().ended == Stats().started; }));
}

TEST_F(Pty, EveryEndIsReported)
{
    const int step = Times(1, 17);
    for (int code = 0; code < 256; code += step) {
        Shown child({"exit", std::to_string(code)});
        pm_exit record = Wait(Spawn(child));
        EXPECT_EQ(PM_EXIT_EXITED, record.kind) << code;
        EXPECT_EQ(static_cast<uint32_t>(code), record.code);
    }
    for (int number : {SIGHUP,  SIGINT,  SIGQUIT, SIGILL,    SIGTRAP, SIGABRT, SIGBUS,
                       SIGFPE,  SIGKILL, SIGUSR1, SIGSEGV,   SIGUSR2, SIGPIPE, SIGALRM,
                       SIGTERM, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGSYS}) {
        Shown child({"raise", std::to_string(number)});
        pm_exit record = Wait(Spawn(child));
        EXPECT_EQ(PM_EXIT_SIGNALED, record.kind) << number;
        EXPECT_EQ(number, record.signal);
    }
}

TEST_F(Pty, ManyAtOnceAreAllReal)
{
    // Each has a few descriptors.
    struct rlimit limit = {};
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 2048) {
        limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 2048);
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    std::vector<pm_process *> shown;
    for (int i = 0; i < 256; i++) {
        Shown child({"on-terminal"});
        shown.push_back(Spawn(child));
    }
    for (pm_process *process : shown)
        EXPECT_EQ("good 80x24", Told(process));
    EXPECT_EQ(PM_OK, pm_stop_all(manager, 20000 * Slowness(), nullptr, nullptr, nullptr));
}

TEST_F(Pty, IsRunInOneCall)
{
    Shown child({"lines"});
    pm_run_options options = PM_RUN_OPTIONS_INIT;
    pm_run_result result = PM_RUN_RESULT_INIT;
    pm_error error = PM_ERROR_INIT;
    options.spec = child.Get();
    options.input = "one\ntwo";
    options.input_size = 7;
    ASSERT_EQ(PM_OK, pm_run(manager, &options, &result, &error)) << ErrorText(error);
    std::string shown(result.output[0], result.output_size[0]);
    EXPECT_NE(std::string::npos, shown.find("got one\r\n")) << shown;
    EXPECT_NE(std::string::npos, shown.find("got two\r\nend\r\n")) << shown;
    EXPECT_EQ(nullptr, result.output[1]);
    EXPECT_EQ(3u, result.record->code);
    EXPECT_EQ(7u, result.input_written);
    pm_run_result_clear(&result);
}

// As job control does: a group of its own in our session, deaf to the hang-up.
int Jobs(const std::vector<std::string> &)
{
    for (int i = 0; i < 3; i++) {
        int ready[2];
        if (pipe(ready) != 0)
            return 1;
        if (fork() == 0) {
            setpgid(0, 0);
            signal(SIGHUP, SIG_IGN);
            if (i == 1)
                signal(SIGTERM, SIG_IGN);
            Line("job " + std::to_string(getpid()));
            close(ready[1]);
            alarm(120);
            for (;;)
                pause();
        }
        close(ready[1]);
        char byte;
        (void)!read(ready[0], &byte, 1);
    }
    Line("jobs run");
    alarm(120);
    for (;;)
        pause();
}

const RoleAdder jobs("jobs", Jobs);

TEST_F(Pty, AStopEndsTheJobsOfTheSessionToo)
{
    for (bool leader_first : {false, true}) {
        Shown child({"jobs"});
        pm_process *process = Spawn(child);
        std::vector<uint64_t> pids;
        for (int i = 0; i < 3; i++)
            pids.push_back(NumberAfter(Told(process), "job"));
        EXPECT_EQ("jobs run", Told(process));
        if (leader_first) {
            EXPECT_EQ(PM_OK, pm_process_signal(process, SIGKILL, PM_SCOPE_PROCESS));
            Wait(process);
            for (uint64_t pid : pids)
                EXPECT_TRUE(PidAlive(pid));
        }
        pm_stop_plan plan = {};
        plan.steps_count = 2;
        plan.steps[0] = {PM_STOP_TERMINATE, PM_SCOPE_TREE, 200};
        plan.steps[1] = {PM_STOP_KILL, PM_SCOPE_TREE, 10000};
        pm_stop_report report = PM_STOP_REPORT_INIT;
        EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, &report));
        EXPECT_FALSE(report.tree_left);
        EXPECT_EQ(2u, report.steps_tried);
        for (uint64_t pid : pids)
            EXPECT_TRUE(Eventually([&] { return !PidAlive(pid); }));
    }
}

// Nobody saw when the leader of the session had begun.
TEST_F(Pty, AStopKnowsTheSessionOfALeaderThatSomebodyElseHasWaitedFor)
{
    pm_options options = DefaultOptions();
    options.loop = PM_LOOP_CALLER; // Nobody is faster than the thief.
    EXPECT_EQ(PM_OK, Close());
    Open(options);
    for (bool alone : {true, false}) {
        SCOPED_TRACE(alone);
        std::vector<std::string> args = {"jobs"};
        if (alone)
            args = {"exit", "0"};
        Shown child(args);
        pm_process *process = Spawn(child);
        auto leader = static_cast<pid_t>(pm_process_pid(process));
        std::vector<uint64_t> pids;
        for (int i = 0; i < 3 && !alone; i++)
            pids.push_back(NumberAfter(Told(process), "job"));
        if (!alone) {
            EXPECT_EQ("jobs run", Told(process));
            EXPECT_EQ(0, kill(leader, SIGKILL));
        }
        pid_t thief = Uninterrupted([&] { return waitpid(leader, nullptr, 0); });
        EXPECT_TRUE(thief == leader || HostGetsNoStatuses());
        pm_stop_report report = PM_STOP_REPORT_INIT;
        EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, &report));
        EXPECT_FALSE(report.tree_left);
        for (uint64_t pid : pids)
            EXPECT_TRUE(Eventually([&] { return !PidAlive(pid); }));
    }
}

// ------------------------------------------------------------------------------------------------
// The host's own terminal
// ------------------------------------------------------------------------------------------------

// Reads a line from the terminal of its parent.
int OnFront(const std::vector<std::string> &args)
{
    Line("child " + std::string(tcgetpgrp(0) == getpgrp() ? "in front" : "behind"));
    char buffer[256];
    ssize_t n = read(0, buffer, sizeof buffer);
    Line("child got " + std::to_string(n));
    return args.empty() ? 4 : std::stoi(args.at(0));
}

struct Stops {
    std::atomic<int> stopped{0}, continued{0};
    std::atomic<uint64_t> pid{0};
};

// A host on a terminal, which lends it to a child.
int ForegroundHost(const std::vector<std::string> &)
{
    Stops stops;
    pm_options options = PM_OPTIONS_INIT;
    options.stop_watch_ms = 10;
    options.user = &stops;
    options.event = [](void *user, const pm_event *event) {
        auto *seen = static_cast<Stops *>(user);
        seen->stopped += event->kind == PM_EVENT_STOPPED;
        seen->continued += event->kind == PM_EVENT_CONTINUED;
    };
    pm_manager *manager = nullptr;
    pm_error error = PM_ERROR_INIT;
    auto in_front = [] { return tcgetpgrp(0) == getpgrp(); };
    if (pm_open(&options, &manager, &error) != PM_OK) {
        Line(ErrorText(error));
        return 1;
    }
    auto start = [&] {
        Child child({"on-front"});
        child->group = PM_GROUP_FOREGROUND;
        child->stdin_slot.kind = PM_STDIO_INHERIT;
        child->stdout_slot.kind = PM_STDIO_INHERIT;
        pm_process *process = nullptr;
        if (pm_spawn(manager, child.Get(), &process, &error) != PM_OK)
            Line(ErrorText(error));
        return process;
    };
    auto finish = [&](pm_process *process) {
        pm_exit record = PM_EXIT_INIT;
        pm_process_wait(process, Patience(), &record);
        Line("ended " + std::to_string(record.code) + "/" + std::to_string(record.signal) + " " +
             (in_front() ? "host in front" : "host behind"));
        pm_process_unref(process);
    };
    finish(start());               // A line is typed.
    finish(start());               // Ctrl-C is typed.
    pm_process *process = start(); // Ctrl-Z is typed.
    pm_info info = PM_INFO_INIT;
    bool told = Eventually([&] { return stops.stopped == 1; });
    pm_process_info(process, &info);
    Line(std::string("stopped ") + (told && info.state == PM_STATE_STOPPED ? "told" : "not told") +
         (in_front() ? " host in front" : " host behind"));
    pm_process_signal(process, SIGCONT, PM_SCOPE_GROUP);
    told = Eventually([&] { return stops.continued == 1; });
    pm_process_info(process, &info);
    Line(std::string("continued ") +
         (told && info.state == PM_STATE_RUNNING ? "told" : "not told") +
         (in_front() ? " host in front" : " host behind"));
    finish(process); // A line is typed.
    // One that fails gives it back as well.
    Child missing({"exit", "0"});
    missing->group = PM_GROUP_FOREGROUND;
    missing->stdin_slot.kind = PM_STDIO_INHERIT;
    missing.program = "/etc/passwd";
    int result = pm_spawn(manager, missing.Get(), &process, &error);
    Line(std::string("failed ") + pm_error_name(result) + (in_front() ? " in front" : " behind"));
    Line(std::string("closed ") + pm_error_name(pm_close(manager, -1, nullptr)));
    return 0;
}

// Leaves a job in front, as a shell does that dies while one runs.
int JobInFront(const std::vector<std::string> &)
{
    sigset_t ttou;
    sigemptyset(&ttou);
    sigaddset(&ttou, SIGTTOU);
    sigprocmask(SIG_BLOCK, &ttou, nullptr);
    int ready[2];
    if (pipe(ready) != 0)
        return 1;
    if (fork() == 0) {
        setpgid(0, 0);
        tcsetpgrp(0, getpid());
        close(ready[0]);
        close(ready[1]);
        alarm(60);
        for (;;)
            pause();
    }
    close(ready[1]);
    char byte;
    (void)!read(ready[0], &byte, 1);
    return 0;
}

// What a host tells of a start that wants its terminal.
std::string TryForeground(pm_manager *manager, pm_native in, pm_process **ret_process)
{
    Child child({"linger"});
    child->group = PM_GROUP_FOREGROUND;
    child->stdin_slot.kind = PM_STDIO_NATIVE;
    child->stdin_slot.native = in;
    child->stdout_slot.kind = PM_STDIO_NULL;
    pm_error error = PM_ERROR_INIT;
    int result = pm_spawn(manager, child.Get(), ret_process, &error);
    return std::string(pm_error_name(result)) + " '" + error.field + "'";
}

// A host whose terminal does not come back at once. args: "caller" for a loop of its own.
int PatientHost(const std::vector<std::string> &args)
{
    pm_options options = PM_OPTIONS_INIT;
    options.stop_watch_ms = 10;
    options.loop = args.at(0) == "caller" ? PM_LOOP_CALLER : PM_LOOP_OWN;
    pm_manager *manager = nullptr;
    pm_process *process = nullptr;
    pm_error error = PM_ERROR_INIT;
    if (pm_open(&options, &manager, &error) != PM_OK)
        return 1;
    auto in_front = [] { return tcgetpgrp(0) == getpgrp(); };
    auto becomes = [&](const std::function<bool()> &reached) {
        return Eventually([&] {
            if (options.loop == PM_LOOP_CALLER)
                pm_dispatch(manager);
            return reached();
        });
    };
    auto start = [&](const char *role) {
        Child child({role});
        child->group = PM_GROUP_FOREGROUND;
        child->stdin_slot.kind = PM_STDIO_INHERIT;
        child->stdout_slot.kind = PM_STDIO_INHERIT;
        if (pm_spawn(manager, child.Get(), &process, &error) != PM_OK)
            Line(ErrorText(error));
    };
    start("job-in-front");
    pm_process_wait(process, Patience(), nullptr);
    pm_process_unref(process);
    pid_t job = tcgetpgrp(0);
    becomes([] { return true; });
    Line(in_front() || job <= 1 ? "the job has lost it" : "the job has it");
    if (job > 1)
        kill(-job, SIGKILL);
    Line(becomes(in_front) ? "back" : "lost");
    start("on-front"); // Ctrl-Z is typed.
    Line(becomes([&] {
        pm_info info = PM_INFO_INIT;
        // Where somebody else looks, nobody need ask.
        return in_front() && pm_process_info(process, &info) == PM_OK &&
               info.state == PM_STATE_STOPPED;
    })
             ? "stopped and back"
             : "stopped and lost");
    pm_process_unref(process);
    Line(std::string("closed ") + pm_error_name(pm_close(manager, -1, nullptr)));
    return 0;
}

// A host that is refused its terminal, in three ways.
int RefusedHost(const std::vector<std::string> &)
{
    pm_options options = PM_OPTIONS_INIT;
    pm_manager *manager = nullptr;
    pm_process *process = nullptr, *other = nullptr;
    pm_error error = PM_ERROR_INIT;
    if (pm_open(&options, &manager, &error) != PM_OK)
        return 1;
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (grantpt(master) != 0 || unlockpt(master) != 0)
        return 1;
    Line("master " + TryForeground(manager, master, &other));
    Line("first " + TryForeground(manager, 0, &process));
    Line("second " + TryForeground(manager, 0, &other));
    pm_process_signal(process, SIGKILL, PM_SCOPE_PROCESS);
    pm_process_wait(process, Patience(), nullptr);
    pm_process_unref(process);
    Line(tcgetpgrp(0) == getpgrp() ? "in front" : "behind");
    pm_close(manager, -1, nullptr);
    pid_t behind = fork();
    if (behind == 0) {
        setpgid(0, 0);
        pid_t before = tcgetpgrp(0);
        signal(SIGTTOU, SIG_IGN); // To speak from there.
        if (pm_open(&options, &manager, &error) != PM_OK)
            _exit(1);
        Line("behind " + TryForeground(manager, 0, &other));
        Line(tcgetpgrp(0) == before ? "left alone" : "stolen");
        pm_close(manager, -1, nullptr);
        _exit(0);
    }
    int status = 0;
    Uninterrupted([&] { return waitpid(behind, &status, 0); });
    return status;
}

const RoleAdder job_in_front("job-in-front", JobInFront);
const RoleAdder patient_host("patient-host", PatientHost);
const RoleAdder refused_host("refused-host", RefusedHost);
const RoleAdder on_front("on-front", OnFront);
const RoleAdder foreground_host("foreground-host", ForegroundHost);

TEST_F(Pty, AHostLendsItsTerminalAndGetsItBack)
{
    if (OnEmulator())
        GTEST_SKIP() << "TIOCGSID does not tell here whose a terminal is";
    Shown child({"foreground-host"});
    pm_process *process = Spawn(child);
    Until(process, "child in front\r\n");
    Type(process, "line\n");
    Until(process, "child got 5\r\n");
    Until(process, "ended 4/0 host in front\r\n");
    Until(process, "child in front\r\n");
    Type(process, "\x03");
    Until(process, "ended 0/2 host in front\r\n");
    Until(process, "child in front\r\n");
    Type(process, "\x1a");
    Until(process, "stopped told host in front\r\n");
    Until(process, "continued told host behind\r\n");
    Type(process, "line\n");
    Until(process, "child got 5\r\n");
    Until(process, "ended 4/0 host in front\r\n");
    Until(process, "failed PM_ERR_ACCESS in front\r\n");
    Until(process, "closed PM_OK\r\n");
    EXPECT_EQ(0u, Wait(process).code);
}

TEST_F(Pty, ATerminalThatAJobHasLeftWithIsTakenBackLater)
{
    if (OnEmulator())
        GTEST_SKIP() << "TIOCGSID does not tell here whose a terminal is";
    for (const char *loop : {"own", "caller"}) {
        SCOPED_TRACE(loop);
        Shown child({"patient-host", loop});
        pm_process *process = Spawn(child);
        Until(process, "the job has it\r\n");
        Until(process, "back\r\n");
        Until(process, "child in front\r\n");
        Type(process, "\x1a");
        Until(process, "stopped and back\r\n");
        Until(process, "closed PM_OK\r\n");
        EXPECT_EQ(0u, Wait(process).code);
    }
}

TEST_F(Pty, ATerminalThatOthersHaveIsNotLent)
{
    if (OnEmulator())
        GTEST_SKIP() << "TIOCGSID does not tell here whose a terminal is";
#ifdef PM_TEST_LIBKQUEUE
    GTEST_SKIP() << "a forked copy may wait for ever for a lock of libkqueue's thread";
#endif
    Shown child({"refused-host"});
    pm_process *process = Spawn(child);
    EXPECT_EQ("master PM_ERR_INVALID 'group'", Told(process));
    EXPECT_EQ("first PM_OK ''", Told(process));
    EXPECT_EQ("second PM_ERR_BUSY 'group'", Told(process));
    EXPECT_EQ("in front", Told(process));
    EXPECT_EQ("behind PM_ERR_BUSY 'group'", Told(process));
    EXPECT_EQ("left alone", Told(process));
    EXPECT_EQ(0u, Wait(process).code);
}

TEST_F(Pty, ATerminalThatIsNotTheHostsCannotBeLent)
{
    Child child({"exit", "0"});
    child->group = PM_GROUP_FOREGROUND;
    int code = PM_OK;
    pm_error error = PM_ERROR_INIT;
    child->stdin_slot.kind = PM_STDIO_NULL;
    EXPECT_EQ(nullptr, TrySpawn(child, &code, &error));
    EXPECT_EQ(PM_ERR_INVALID, code);
    EXPECT_STREQ("group", error.field);
}

// ------------------------------------------------------------------------------------------------
// Stops
// ------------------------------------------------------------------------------------------------

class StopWatch : public Contract
{
  protected:
    static pm_state State(pm_process *process)
    {
        pm_info info = PM_INFO_INIT;
        EXPECT_EQ(PM_OK, pm_process_info(process, &info));
        return info.state;
    }
};

TEST_F(StopWatch, TellsOfStopsAndTheirEnds)
{
    Stops stops;
    pm_options options = DefaultOptions();
    options.stop_watch_ms = 10;
    options.user = &stops;
    options.event = [](void *user, const pm_event *event) {
        auto *seen = static_cast<Stops *>(user);
        seen->stopped += event->kind == PM_EVENT_STOPPED;
        seen->continued += event->kind == PM_EVENT_CONTINUED;
        seen->pid = pm_process_pid(event->process);
    };
    Open(options);
    Child child({"linger"});
    pm_process *process = Spawn(child);
    Child other({"linger"});
    Spawn(other);
    for (int round = 1; round <= 3; round++) {
        EXPECT_EQ(PM_STATE_RUNNING, State(process));
        EXPECT_EQ(PM_OK, pm_process_signal(process, SIGSTOP, PM_SCOPE_PROCESS));
        EXPECT_TRUE(Eventually([&] { return stops.stopped == round; }));
        EXPECT_EQ(pm_process_pid(process), stops.pid);
        EXPECT_EQ(PM_STATE_STOPPED, State(process));
        EXPECT_TRUE(pm_process_alive(process));
        EXPECT_EQ(PM_OK, pm_process_signal(process, SIGCONT, PM_SCOPE_PROCESS));
        EXPECT_TRUE(Eventually([&] { return stops.continued == round; }));
    }
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGSTOP, PM_SCOPE_PROCESS));
    EXPECT_TRUE(Eventually([&] { return stops.stopped == 4; }));
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, nullptr));
    EXPECT_EQ(PM_STATE_ENDED, State(process));
    EXPECT_EQ(PM_OK, Close()); // Who listens goes.
}

TEST_F(StopWatch, IsAskedWithoutALoopOrAListener)
{
    pm_options options = DefaultOptions();
    options.loop = PM_LOOP_CALLER;
    Open(options);
    Child child({"linger"});
    pm_process *process = Spawn(child);
    EXPECT_EQ(PM_STATE_RUNNING, State(process));
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGSTOP, PM_SCOPE_PROCESS));
    EXPECT_TRUE(Eventually([&] { return State(process) == PM_STATE_STOPPED; }));
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGCONT, PM_SCOPE_PROCESS));
    EXPECT_TRUE(Eventually([&] { return State(process) == PM_STATE_RUNNING; }));
}

TEST_F(StopWatch, RunsInTheCallersLoopForWhoListens)
{
#ifdef PM_TEST_LIBKQUEUE
    GTEST_SKIP() << "a kqueue of libkqueue cannot be polled";
#endif
    for (bool listens : {true, false}) {
        SCOPED_TRACE(listens);
        Stops stops;
        pm_options options = DefaultOptions();
        options.loop = PM_LOOP_CALLER;
        options.stop_watch_ms = 10;
        options.user = &stops;
        if (listens)
            options.event = [](void *user, const pm_event *event) {
                auto *seen = static_cast<Stops *>(user);
                seen->stopped += event->kind == PM_EVENT_STOPPED;
                seen->continued += event->kind == PM_EVENT_CONTINUED;
            };
        Open(options, false);
        pm_native native = -1;
        ASSERT_EQ(PM_OK, pm_loop_native(manager, &native));
        Child child({"linger"});
        pm_process *process = Spawn(child);
        // As a loop does: sleeps as long as it may.
        auto turn_until = [&](const std::function<bool()> &reached) {
            return Eventually([&] {
                int64_t timeout = 0;
                EXPECT_EQ(PM_OK, pm_loop_timeout(manager, &timeout));
                EXPECT_NE(PM_FOREVER, timeout);
                struct pollfd in = {static_cast<int>(native), POLLIN, 0};
                (void)poll(&in, 1, static_cast<int>(timeout));
                EXPECT_LE(0, pm_dispatch(manager));
                return reached();
            });
        };
        if (listens) {
            EXPECT_EQ(PM_OK, pm_process_signal(process, SIGSTOP, PM_SCOPE_PROCESS));
            EXPECT_TRUE(turn_until([&] { return stops.stopped == 1; }));
            EXPECT_EQ(PM_OK, pm_process_signal(process, SIGCONT, PM_SCOPE_PROCESS));
            EXPECT_TRUE(turn_until([&] { return stops.continued == 1; }));
        } else {
            // Nobody is woken for nothing.
            int64_t timeout = 0;
            EXPECT_LE(0, pm_dispatch(manager));
            EXPECT_EQ(PM_OK, pm_loop_timeout(manager, &timeout));
            EXPECT_EQ(PM_FOREVER, timeout);
        }
        EXPECT_EQ(PM_OK, pm_process_signal(process, SIGKILL, PM_SCOPE_PROCESS));
        Wait(process);
        held.clear();
        pm_process_unref(process);
        EXPECT_EQ(PM_OK, Close());
    }
}

TEST_F(StopWatch, SeesAStopOfWhichAnotherWaitHasTakenTheNews)
{
    Open();
    Child child({"linger"});
    pm_process *process = Spawn(child);
    pid_t pid = static_cast<pid_t>(pm_process_pid(process));
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGSTOP, PM_SCOPE_PROCESS));
    int status = 0;
    EXPECT_EQ(pid, Uninterrupted([&] { return waitpid(pid, &status, WUNTRACED); }));
    EXPECT_TRUE(WIFSTOPPED(status));
    EXPECT_EQ(PM_STATE_STOPPED, State(process));
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGCONT, PM_SCOPE_PROCESS));
    EXPECT_TRUE(Eventually([&] { return State(process) == PM_STATE_RUNNING; }));
}

// Many look at once: what they tell stays in order.
TEST_F(StopWatch, TellsStopsAndTheirEndsInTurns)
{
    struct Turns {
        std::atomic<int> last{PM_EVENT_CONTINUED}, told{0}, wrong{0};
    } turns;
    pm_options options = DefaultOptions();
    options.stop_watch_ms = 1;
    options.user = &turns;
    options.event = [](void *user, const pm_event *event) {
        auto *seen = static_cast<Turns *>(user);
        if (event->kind != PM_EVENT_STOPPED && event->kind != PM_EVENT_CONTINUED)
            return;
        seen->told++;
        seen->wrong += seen->last.exchange(event->kind) == event->kind;
    };
    Open(options);
    Child child({"linger"});
    pm_process *process = Spawn(child);
    std::atomic<bool> over{false};
    std::vector<std::thread> lookers;
    for (int i = 0; i < 4; i++)
        lookers.emplace_back([&] {
            while (!over)
                (void)State(process);
        });
    for (int i = 0; i < 1000; i++) {
        EXPECT_EQ(PM_OK, pm_process_signal(process, SIGSTOP, PM_SCOPE_PROCESS));
        EXPECT_TRUE(Eventually([&] { return State(process) == PM_STATE_STOPPED; }));
        EXPECT_EQ(PM_OK, pm_process_signal(process, SIGCONT, PM_SCOPE_PROCESS));
        EXPECT_TRUE(Eventually([&] { return State(process) == PM_STATE_RUNNING; }));
    }
    over = true;
    for (auto &looker : lookers)
        looker.join();
    EXPECT_EQ(PM_OK, Close());
    EXPECT_LT(0, turns.told);
    EXPECT_EQ(0, turns.wrong);
}

TEST_F(StopWatch, SeesDaemonsToo)
{
    Open();
    Child child({"linger"});
    child->mode = PM_MODE_DAEMON;
    child->key = "d";
    child->stdout_slot.kind = PM_STDIO_NULL;
    pm_process *process = Spawn(child);
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGSTOP, PM_SCOPE_PROCESS));
    EXPECT_TRUE(Eventually([&] { return State(process) == PM_STATE_STOPPED; }));
    EXPECT_EQ(PM_OK, pm_stop_daemons(manager, 20000, nullptr, nullptr, nullptr));
}

// ------------------------------------------------------------------------------------------------
// A shell with job control
// ------------------------------------------------------------------------------------------------

TEST_F(Pty, AShellControlsItsJobs)
{
    if (access("/bin/bash", X_OK) != 0)
        GTEST_SKIP() << "no bash here";
    Shown child({});
    const char *argv[] = {"bash", "--norc", "--noprofile", "-i", nullptr};
    const char *env[] = {"PS1=ready:", "TERM=dumb", "HISTFILE=", "LC_ALL=C", nullptr};
    child->program = "/bin/bash";
    child->argv = argv;
    child->env = env;
    pm_process *process = nullptr;
    pm_error error = PM_ERROR_INIT;
    ASSERT_EQ(PM_OK, pm_spawn(manager, &child.spec, &process, &error)) << ErrorText(error);
    Keep(process);
    std::string shown = Until(process, "ready:");
    EXPECT_EQ(std::string::npos, shown.find("no job control")) << shown;
    Type(process, "sleep 1000\n");
    Until(process, "\r\n");
    // The shell has put it into the foreground.
    pm_native master = -1;
    ASSERT_EQ(PM_OK, pm_stream_native(pm_process_stream(process, PM_STDOUT), &master));
    // Who is in front, and has become the program: until then a typed signal may be for nobody.
    auto in_front = [&](const char *program) {
        return Eventually([&] {
            pid_t group = tcgetpgrp(static_cast<int>(master));
            return ReadFile("/proc/" + std::to_string(group) + "/comm") == program;
        });
    };
    ASSERT_TRUE(in_front("sleep\n"));
    Type(process, "\x1a");
    Until(process, "Stopped");
    Until(process, "ready:");
    Type(process, "jobs\n");
    Until(process, "Stopped");
    Until(process, "ready:");
    ASSERT_TRUE(in_front("bash\n"));
    Type(process, "fg\n");
    Until(process, "sleep 1000");
    ASSERT_TRUE(in_front("sleep\n"));
    Type(process, "\x03");
    Until(process, "ready:");
    Type(process, "echo code $?\n");
    Until(process, "code 130");
    Type(process, "exit 5\n");
    EXPECT_EQ(5u, Wait(process).code);
}

} // namespace
