// pm_run: start, feed, capture, deadline, tree, result, in one call.

#include "fixture.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <mutex>
#include <thread>

#ifdef _WIN32
#include <windows.h>
#else
#include <csignal>
#include <unistd.h>
#endif

using namespace contract;

namespace
{

// Writes so many bytes to stdout and to stderr, in pieces, the one that is not read first.
int Pour(const std::vector<std::string> &args)
{
    size_t out = std::stoul(args.at(0)), err = std::stoul(args.at(1));
    std::string piece(1000, 'e');
    for (size_t done = 0; done < err; done += piece.size())
        fwrite(piece.data(), 1, std::min(piece.size(), err - done), stderr);
    fflush(stderr);
    piece.assign(1000, 'o');
    for (size_t done = 0; done < out; done += piece.size())
        fwrite(piece.data(), 1, std::min(piece.size(), out - done), stdout);
    fflush(stdout);
    return args.size() > 2 ? std::stoi(args.at(2)) : 0;
}

// Reads so many bytes and ends.
int Sip(const std::vector<std::string> &args)
{
    for (size_t left = std::stoul(args.at(0)); left > 0; left--)
        if (fgetc(stdin) == EOF)
            return 1;
    return 0;
}

// Writes without an end.
int Flood(const std::vector<std::string> &)
{
    std::string piece(1000, 'f');
    while (fwrite(piece.data(), 1, piece.size(), stdout) == piece.size())
        continue;
    return 0;
}

// Reads so many bytes, then nothing more of its input.
int Half(const std::vector<std::string> &args)
{
    int code = Sip(args);
    fclose(stdin);
    return Pour({"300000", "300000", std::to_string(code)});
}

// Reads its input slowly to the end, and tells how much it was.
int Slow(const std::vector<std::string> &)
{
    std::string piece(2000, ' ');
    size_t all = 0, count;
    while ((count = fread(&piece[0], 1, piece.size(), stdin)) > 0) {
        all += count;
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    printf("%llu", static_cast<unsigned long long>(all));
    return 0;
}

// Both outputs are closed, and it lives on.
int Mute(const std::vector<std::string> &)
{
    fclose(stdout);
    fclose(stderr);
    std::this_thread::sleep_for(std::chrono::minutes(1));
    return 0;
}

// Leaves somebody in its tree who never stops writing.
int LeaveFlood(const std::vector<std::string> &)
{
#ifdef _WIN32
    std::string line = "\"" + SelfPath() + "\" --role flood";
    STARTUPINFOA startup = {};
    startup.cb = sizeof startup;
    startup.dwFlags = STARTF_USESTDHANDLES;
    startup.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
    SetHandleInformation(startup.hStdOutput, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT);
    PROCESS_INFORMATION info = {};
    return CreateProcessA(nullptr, &line[0], nullptr, nullptr, TRUE, CREATE_NO_WINDOW, nullptr,
                          nullptr, &startup, &info)
               ? 0
               : 1;
#else
    pid_t pid = fork();
    if (pid == 0) {
        alarm(60);
        return Flood({});
    }
    return pid > 0 ? 0 : 1;
#endif
}

// Says much when it is asked to end, and ends when all is said.
int LastWords(const std::vector<std::string> &)
{
#ifdef _WIN32
    pm_native event = PM_NATIVE_INVALID;
    if (pm_stop_event_open(&event) != PM_OK)
        return 1;
#else
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, nullptr);
#endif
    fputs("ready\n", stdout);
    fflush(stdout);
#ifdef _WIN32
    bool asked = WaitForSingleObject(reinterpret_cast<HANDLE>(event), 60000) == WAIT_OBJECT_0;
#else
    timespec limit = {60, 0};
    bool asked = sigtimedwait(&set, nullptr, &limit) == SIGTERM;
#endif
    return asked ? Pour({"3000000", "3000000", "6"}) : 1;
}

// Time that this program has used the processor.
double CpuSeconds()
{
#ifdef _WIN32
    FILETIME born, ended, kernel, user;
    GetProcessTimes(GetCurrentProcess(), &born, &ended, &kernel, &user);
    auto ticks = [](const FILETIME &t) {
        return static_cast<double>(t.dwHighDateTime) * 4294967296.0 + t.dwLowDateTime;
    };
    return (ticks(kernel) + ticks(user)) / 1e7;
#else
    return static_cast<double>(clock()) / CLOCKS_PER_SEC;
#endif
}

const RoleAdder pour("pour", Pour);
const RoleAdder half("half", Half);
const RoleAdder slow("slow", Slow);
const RoleAdder mute("mute", Mute);
const RoleAdder leave_flood("leave-flood", LeaveFlood);
const RoleAdder last_words("last-words", LastWords);
const RoleAdder sip("sip", Sip);
const RoleAdder flood("flood", Flood);

class Run : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
    }

    void TearDown() override
    {
        pm_run_result_clear(&result);
        Contract::TearDown();
    }

    // Fresh each time.
    int Do(Child &child)
    {
        pm_run_result_clear(&result);
        error = PM_ERROR_INIT;
        options.spec = child.Get();
        options.input = input.data();
        options.input_size = input.size();
        return pm_run(manager, &options, &result, &error);
    }

    int Do(std::vector<std::string> args)
    {
        Child child(std::move(args));
        CaptureAll(child);
        return Do(child);
    }

    static void CaptureAll(Child &child)
    {
        child->stdin_slot.kind = child->stdout_slot.kind = child->stderr_slot.kind =
            PM_STDIO_DEFAULT;
    }

    // What is wrong with a run of a program that copies its input, or "".
    std::string CopyByRun(const std::string &text)
    {
        pm_run_options mine = PM_RUN_OPTIONS_INIT;
        pm_run_result got = PM_RUN_RESULT_INIT;
        pm_error failure = PM_ERROR_INIT;
        Child child({"cat"});
        CaptureAll(child);
        mine.spec = child.Get();
        mine.input = text.data();
        mine.input_size = text.size();
        int code = pm_run(manager, &mine, &got, &failure);
        std::string wrong;
        if (code != PM_OK)
            wrong = text + ": " + pm_error_name(code) + ": " + ErrorText(failure);
        else if (got.output[0] != text)
            wrong = text + ": \"" + got.output[0] + "\", errors \"" + got.output[1] + "\", took " +
                    std::to_string(got.input_written) + " bytes, kind " +
                    std::to_string(got.record->kind) + ", code " + std::to_string(got.record->code);
        pm_run_result_clear(&got);
        return wrong;
    }

    static void StopBy(Child &child, const std::vector<pm_stop_step> &steps)
    {
        child->stop.steps_count = steps.size();
        std::copy(steps.begin(), steps.end(), child->stop.steps);
    }

    // Whether the time was up before the child could be started.
    bool StartWasLate(int code) const
    {
        return code == PM_ERR_TIMEOUT && strcmp(error.action, "start") == 0;
    }

    // With a timeout that is long enough for the child to get so far.
    int DoUntil(Child &child, const std::function<bool()> &enough)
    {
        int code = PM_OK;
        options.timeout_ms = 250;
        do {
            options.timeout_ms *= 2;
            code = Do(child);
        } while ((StartWasLate(code) || (code == PM_OK && !enough())) &&
                 options.timeout_ms < Patience());
        return code;
    }

    std::string Text(int index) const
    {
        return result.output[index] == nullptr
                   ? "none"
                   : std::string(result.output[index], result.output_size[index]);
    }

    // Bytes that came, kept or not.
    uint64_t Seen(int index) const
    {
        return result.output_size[index] + result.output_dropped[index];
    }

    pm_run_options options = PM_RUN_OPTIONS_INIT;
    pm_run_result result = PM_RUN_RESULT_INIT;
    pm_error error = PM_ERROR_INIT;
    std::string input;
};

TEST_F(Run, GivesOutputAndRecord)
{
    ASSERT_EQ(PM_OK, Do({"pour", "5", "3", "9"})) << ErrorText(error);
    EXPECT_EQ("ooooo", Text(0));
    EXPECT_EQ("eee", Text(1));
    EXPECT_EQ('\0', result.output[0][5]);
    EXPECT_EQ(PM_EXIT_EXITED, result.record->kind);
    EXPECT_EQ(9u, result.record->code);
    EXPECT_FALSE(result.timed_out);
    EXPECT_EQ(0u, Stats().running);
    pm_run_result_clear(&result);
    EXPECT_EQ(nullptr, result.output[0]);
    pm_run_result_clear(&result);
}

#ifndef _WIN32
TEST_F(Run, ASignalIsInTheRecord)
{
    ASSERT_EQ(PM_OK, Do({"raise", std::to_string(SIGUSR1)})) << ErrorText(error);
    EXPECT_EQ(PM_EXIT_SIGNALED, result.record->kind);
    EXPECT_EQ(SIGUSR1, result.record->signal);
}
#endif

TEST_F(Run, FeedsAndCapturesMuchWithoutADeadlock)
{
    for (int i = 0; i < 10 * 1024 * 1024; i++)
        input += static_cast<char>('a' + i % 23);
    options.max_output = 64 * 1024 * 1024;
    ASSERT_EQ(PM_OK, Do({"cat"})) << ErrorText(error);
    EXPECT_EQ(input.size(), result.input_written);
    EXPECT_TRUE(input == Text(0)) << result.output_size[0];
    EXPECT_EQ("", Text(1));
    input.clear();
    ASSERT_EQ(PM_OK, Do({"pour", "5000000", "5000000"}));
    EXPECT_EQ(5000000u, result.output_size[0]);
    EXPECT_EQ(5000000u, result.output_size[1]);
}

TEST_F(Run, KeepsTheFirstBytesAndCountsTheOthers)
{
    for (size_t most : {1u, 100u, 4096u}) {
        options.max_output = most;
        ASSERT_EQ(PM_OK, Do({"pour", "100000", "50"}));
        EXPECT_EQ(std::string(most, 'o'), Text(0));
        EXPECT_EQ(100000u - most, result.output_dropped[0]);
        EXPECT_EQ(std::string(std::min<size_t>(most, 50), 'e'), Text(1));
        EXPECT_EQ(50u - std::min<size_t>(most, 50), result.output_dropped[1]);
    }
    options.max_output = 0; // 1 MiB.
    ASSERT_EQ(PM_OK, Do({"pour", "2000000", "0"}));
    EXPECT_EQ(1024u * 1024, result.output_size[0]);
    EXPECT_EQ(2000000u - 1024 * 1024, result.output_dropped[0]);
}

TEST_F(Run, InputThatIsNotReadIsNoError)
{
    input.assign(5 * 1024 * 1024, 'x');
    ASSERT_EQ(PM_OK, Do({"exit", "4"})) << ErrorText(error);
    EXPECT_EQ(4u, result.record->code);
    EXPECT_LT(result.input_written, input.size());
    ASSERT_EQ(PM_OK, Do({"sip", "100"}));
    EXPECT_EQ(0u, result.record->code);
    EXPECT_LE(100u, result.input_written);
    EXPECT_LT(result.input_written, input.size());
}

TEST_F(Run, AChildThatReadsNothingOrHalfHoldsNothingUp)
{
    input.assign(5 * 1024 * 1024, 'x');
    ASSERT_EQ(PM_OK, Do({"pour", "2000000", "2000000", "3"})) << ErrorText(error);
    EXPECT_EQ(3u, result.record->code);
    EXPECT_EQ(4000000u, Seen(0) + Seen(1));
    EXPECT_LT(result.input_written, input.size());
    ASSERT_EQ(PM_OK, Do({"half", "2500000"}));
    EXPECT_EQ(0u, result.record->code);
    EXPECT_EQ(600000u, Seen(0) + Seen(1));
    EXPECT_LE(2500000u, result.input_written);
    EXPECT_LT(result.input_written, input.size());
}

// Neither ends that are closed nor a full pipe may keep the loop awake.
TEST_F(Run, WaitingTakesNoProcessorTime)
{
    options.timeout_ms = 1000 * Slowness();
    input.assign(5 * 1024 * 1024, 'x');
    for (const char *role : {"mute", "deaf"}) {
        Child child({role});
        CaptureAll(child);
        StopBy(child, {{PM_STOP_KILL, PM_SCOPE_TREE, 10000}});
        double before = CpuSeconds();
        ASSERT_EQ(PM_OK, Do(child)) << ErrorText(error);
        EXPECT_TRUE(result.timed_out);
        EXPECT_GT(0.4 * Slowness(), CpuSeconds() - before) << role;
    }
}

TEST_F(Run, WithoutInputStdinIsEmpty)
{
    ASSERT_EQ(PM_OK, Do({"sip", "1"}));
    EXPECT_EQ(1u, result.record->code);
}

TEST_F(Run, OtherSlotsAreAsTheSpecSays)
{
    std::string path = folder + "/out";
    Child child({"pour", "3", "4"});
    child->stdout_slot.kind = PM_STDIO_FILE_TRUNCATE;
    child->stdout_slot.path = path.c_str();
    child->stderr_slot.kind = PM_STDIO_NULL;
    ASSERT_EQ(PM_OK, Do(child));
    EXPECT_EQ("none", Text(0));
    EXPECT_EQ("none", Text(1));
    EXPECT_EQ("ooo", ReadFile(path));
}

TEST_F(Run, TheTimeoutStopsByThePlan)
{
    Child child({"deaf"});
    CaptureAll(child);
    StopBy(child, {{PM_STOP_CLOSE_STDIN, PM_SCOPE_PROCESS, 50},
                   {PM_STOP_TERMINATE, PM_SCOPE_TREE, 100},
                   {PM_STOP_KILL, PM_SCOPE_TREE, 10000}});
    ASSERT_EQ(PM_OK, DoUntil(child, [&] { return Text(0) != ""; })) << ErrorText(error);
    EXPECT_TRUE(result.timed_out);
    EXPECT_EQ(3u, result.stop->ended_by);
    EXPECT_EQ(3u, result.stop->steps_tried);
    EXPECT_EQ(PM_ERR_UNSUPPORTED, result.stop->step_results[0]) << "there is no input";
    EXPECT_EQ(PM_STOP_KILL, result.record->stop_action);
}

TEST_F(Run, ClosingStdinIsAStepOfTheStop)
{
    input.assign(20 * 1024 * 1024, 'x');
    Child child({"slow"});
    CaptureAll(child);
    StopBy(child, {{PM_STOP_CLOSE_STDIN, PM_SCOPE_PROCESS, static_cast<uint32_t>(Patience())},
                   {PM_STOP_KILL, PM_SCOPE_TREE, 10000}});
    ASSERT_EQ(PM_OK, DoUntil(child, [] { return true; })) << ErrorText(error);
    EXPECT_TRUE(result.timed_out);
    EXPECT_EQ(1u, result.stop->ended_by);
    EXPECT_EQ(PM_STOP_CLOSE_STDIN, result.record->stop_action);
    EXPECT_EQ(0u, result.record->code);
    EXPECT_EQ(std::to_string(result.input_written), Text(0));
    EXPECT_LT(result.input_written, input.size());
}

TEST_F(Run, TheTimeoutEndsAFlood)
{
    options.max_output = 10;
    Child child({"flood"});
    CaptureAll(child);
    StopBy(child, {{PM_STOP_KILL, PM_SCOPE_TREE, 10000}});
    ASSERT_EQ(PM_OK, DoUntil(child, [&] { return Seen(0) > 10; })) << ErrorText(error);
    EXPECT_TRUE(result.timed_out);
    EXPECT_EQ("ffffffffff", Text(0));
    EXPECT_LT(0u, result.output_dropped[0]);
}

TEST_F(Run, TheTreeOfATimeoutIsGone)
{
    Child child({"tree", "2"});
    CaptureAll(child);
    StopBy(child, {{PM_STOP_KILL, PM_SCOPE_TREE, 10000}});
    ASSERT_EQ(PM_OK, DoUntil(child, [&] { return Text(0) != ""; })) << ErrorText(error);
    EXPECT_TRUE(result.timed_out);
    EXPECT_FALSE(result.stop->tree_left);
    uint64_t pid = NumberAfter(Text(0), "grandchild");
    EXPECT_TRUE(Eventually([&] { return !PidAlive(pid); }));
}

TEST_F(Run, AGrandchildThatHoldsTheOutputIsNotWaitedFor)
{
    ASSERT_EQ(PM_OK, Do({"tree", "leave"})) << ErrorText(error);
    EXPECT_EQ(0u, result.record->code);
    EXPECT_TRUE(result.record->stdout_truncated);
    EXPECT_FALSE(result.timed_out);
    KillByNumber(NumberAfter(Text(0), "grandchild"));
}

TEST_F(Run, AFloodThatOutlivesTheProgramEndsWithTheTimeout)
{
    options.max_output = 10;
    Child child({"leave-flood"});
    CaptureAll(child);
    StopBy(child, {{PM_STOP_KILL, PM_SCOPE_TREE, 10000}});
    ASSERT_EQ(PM_OK, DoUntil(child, [&] { return result.stop->already_ended && Seen(0) > 10; }))
        << ErrorText(error);
    EXPECT_TRUE(result.timed_out);
    EXPECT_TRUE(result.stop->already_ended);
    EXPECT_FALSE(result.stop->tree_left);
    EXPECT_EQ("ffffffffff", Text(0));
    EXPECT_EQ(PM_EXIT_EXITED, result.record->kind);
    EXPECT_EQ(0u, result.record->code);
    EXPECT_EQ(0u, result.record->stop_step);
}

// More than a pipe holds: who is asked to end must not wait for a reader that waits for its end.
TEST_F(Run, LastWordsAreReadWhileItIsStopped)
{
    options.max_output = 6;
    Child child({"last-words"});
    CaptureAll(child);
    StopBy(child, {{PM_STOP_TERMINATE, PM_SCOPE_PROCESS, static_cast<uint32_t>(Patience())},
                   {PM_STOP_KILL, PM_SCOPE_TREE, 10000}});
    ASSERT_EQ(PM_OK, DoUntil(child, [&] { return Text(0) != ""; })) << ErrorText(error);
    EXPECT_EQ("ready\n", Text(0));
    EXPECT_TRUE(result.timed_out);
    EXPECT_EQ(1u, result.stop->ended_by);
    EXPECT_EQ(PM_STOP_TERMINATE, result.record->stop_action);
    EXPECT_EQ(6u, result.record->code);
    EXPECT_EQ(3000006u, Seen(0));
    EXPECT_EQ(3000000u, Seen(1));
}

TEST_F(Run, KillTreeOnExitEndsWhoHoldsTheOutput)
{
    Child child({"tree", "leave"});
    CaptureAll(child);
    child->kill_tree_on_exit = true;
    ASSERT_EQ(PM_OK, Do(child)) << ErrorText(error);
    EXPECT_FALSE(result.timed_out);
    EXPECT_FALSE(result.record->stdout_truncated);
    uint64_t pid = NumberAfter(Text(0), "grandchild");
    EXPECT_TRUE(Eventually([&] { return !PidAlive(pid); }));
}

TEST_F(Run, WhatCannotBeIsRefused)
{
    EXPECT_EQ(PM_ERR_INVALID, pm_run(manager, nullptr, &result, &error));
    EXPECT_EQ(PM_ERR_INVALID, error.code);
    EXPECT_EQ(PM_ERR_INVALID, pm_run(manager, &options, nullptr, &error));
    EXPECT_EQ(PM_ERR_INVALID, pm_run(nullptr, &options, &result, &error));
    options.spec = nullptr;
    EXPECT_EQ(PM_ERR_INVALID, pm_run(manager, &options, &result, &error));
    EXPECT_STREQ("spec", error.field);
    Child daemon({"exit", "0"});
    daemon->mode = PM_MODE_DAEMON;
    daemon->key = "d";
    EXPECT_EQ(PM_ERR_UNSUPPORTED, Do(daemon));
    EXPECT_STREQ("mode", error.field);
    EXPECT_STREQ("run", error.action);
    EXPECT_STREQ("contract", error.owner);
    EXPECT_EQ(PM_STAGE_CHECK, error.stage);
    input = "x";
    Child child({"exit", "0"});
    child->stdin_slot.kind = PM_STDIO_NULL;
    EXPECT_EQ(PM_ERR_INVALID, Do(child));
    EXPECT_STREQ("input", error.field);
    input.clear();
    Child missing({"exit", "0"});
    missing.program = folder + "/not-there";
    EXPECT_EQ(PM_ERR_NOT_FOUND, Do(missing));
    EXPECT_STREQ("start", error.action);
    EXPECT_EQ(nullptr, result.output[0]);
}

TEST_F(Run, AResultWithoutItsSizeIsRefusedBeforeAnythingRuns)
{
    std::string born = folder + "/born", variable = "PM_TEST_BORN=" + born;
    Child child({"exit", "0"});
    child.env = {variable};
    options.spec = child.Get();
    for (size_t size : {size_t{0}, offsetof(pm_run_result, output)}) {
        result.size = size;
        EXPECT_EQ(PM_ERR_INVALID, pm_run(manager, &options, &result, &error));
        EXPECT_STREQ("size", error.field);
    }
    result = PM_RUN_RESULT_INIT;
    EXPECT_EQ(0u, Stats().started);
    EXPECT_EQ("", ReadFile(born));
}

TEST_F(Run, WorksFromEightThreads)
{
    std::mutex lock;
    std::vector<std::string> wrong;
    std::vector<std::thread> threads;
    for (int t = 0; t < 8; t++) {
        threads.emplace_back([&, t] {
            for (int i = 0; i < 25; i++) {
                std::string text = "thread " + std::to_string(t) + " run " + std::to_string(i);
                std::string what = CopyByRun(text);
                std::lock_guard<std::mutex> guard(lock);
                if (!what.empty())
                    wrong.push_back(what);
            }
        });
    }
    for (auto &thread : threads)
        thread.join();
    EXPECT_EQ(std::vector<std::string>{}, wrong);
    EXPECT_EQ(200u, Stats().started);
}

// What on_exit of the first one does: a run of its own, with the manager of the event.
struct Inner {
    std::atomic<int> code{1};
    std::atomic<bool> done{false};
};

void RunWithin(pm_process *, const pm_exit *, void *user)
{
    auto *inner = static_cast<std::pair<pm_manager *, Inner *> *>(user);
    Child child({"exit", "0"});
    child->stdin_slot.kind = child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_DEFAULT;
    pm_run_options options = PM_RUN_OPTIONS_INIT;
    pm_run_result result = PM_RUN_RESULT_INIT;
    options.spec = child.Get();
    inner->second->code = pm_run(inner->first, &options, &result, nullptr);
    inner->second->done = true;
    pm_run_result_clear(&result);
}

TEST_F(Run, WorksInACallbackButNotOfTheCallersLoop)
{
    for (pm_loop loop : {PM_LOOP_OWN, PM_LOOP_CALLER}) {
        ASSERT_EQ(PM_OK, Close());
        pm_options with = DefaultOptions();
        with.loop = loop;
        Open(with);
        Inner inner;
        std::pair<pm_manager *, Inner *> both(manager, &inner);
        Child child({"exit", "0"});
        CaptureAll(child);
        child->on_exit = RunWithin;
        child->user = &both;
        ASSERT_EQ(PM_OK, Do(child)) << ErrorText(error);
        EXPECT_TRUE(Eventually([&] {
            if (loop == PM_LOOP_CALLER) {
                EXPECT_LE(0, pm_dispatch(manager));
            }
            return inner.done.load();
        }));
        EXPECT_EQ(loop == PM_LOOP_OWN ? PM_OK : PM_ERR_WOULD_DEADLOCK, inner.code);
    }
}

TEST_F(Run, WorksWithTheCallersLoop)
{
    ASSERT_EQ(PM_OK, Close());
    pm_options caller = DefaultOptions();
    caller.loop = PM_LOOP_CALLER;
    Open(caller);
    input = "text";
    ASSERT_EQ(PM_OK, Do({"cat"})) << ErrorText(error);
    EXPECT_EQ("text", Text(0));
}

} // namespace
