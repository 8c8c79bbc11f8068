// Many at once, and what must not leak from one start into another.

#include "fixture.h"

#include <atomic>
#include <cstdlib>
#include <thread>

#include <windows.h>

using namespace contract;

namespace
{

int ExitAtEndOfInput(const std::vector<std::string> &args)
{
    char buffer[64];
    while (fread(buffer, 1, sizeof buffer, stdin) > 0) {
    }
    return atoi(args.at(0).c_str());
}
const RoleAdder exit_at_eof("exit-at-eof", ExitAtEndOfInput);

class Inherit : public Contract
{
};

TEST_F(Inherit, TwoHundredChildrenAtOnce)
{
    const int count = 200;
    Open();
    std::vector<pm_process *> all;
    for (int i = 0; i < count; i++) {
        Child child({"exit-at-eof", std::to_string(i)});
        child->stdin_slot.kind = PM_STDIO_PIPE;
        child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_NULL;
        pm_process *process = Spawn(child);
        ASSERT_NE(nullptr, process) << i;
        all.push_back(process);
    }
    struct pm_stats stats = PM_STATS_INIT;
    EXPECT_EQ(PM_OK, pm_stats(manager, &stats));
    EXPECT_EQ(static_cast<uint64_t>(count), stats.running);
    for (pm_process *process : all) {
        EXPECT_EQ(PM_OK, pm_stream_close(pm_process_stream(process, PM_STDIN)));
    }
    for (int i = 0; i < count; i++) {
        pm_exit record = Wait(all[static_cast<size_t>(i)]);
        EXPECT_EQ(PM_EXIT_EXITED, record.kind);
        EXPECT_EQ(static_cast<uint32_t>(i), record.code);
    }
    // The waits and the reactor are two: the latter may be a moment behind.
    EXPECT_TRUE(Eventually([&] {
        EXPECT_EQ(PM_OK, pm_stats(manager, &stats));
        return stats.ended == static_cast<uint64_t>(count);
    }));
}

// The daemons are started on one thread while the pipes of the children are made on another. With
// a copy of a pipe's end in a living daemon its reader would not see the end.
TEST_F(Inherit, AReaderSeesTheEndWhileTheDaemonsLive)
{
    const int rounds = 12;
    pm_options options = DefaultOptions();
    options.drain_ms = static_cast<uint32_t>(Patience()); // No cut-off may stand in for the end.
    Open(options);
    std::atomic<bool> done{false};
    std::atomic<int> daemons{0};
    std::thread other([&] {
        while (!done || daemons < 2) {
            std::string key = "d" + std::to_string(daemons);
            std::string file = folder + "/" + key;
            Child child({"payload", file});
            child->mode = PM_MODE_DAEMON;
            child->key = key.c_str();
            pm_error error = PM_ERROR_INIT;
            int code = pm_spawn(manager, child.Get(), nullptr, &error);
            EXPECT_EQ(PM_OK, code) << ErrorText(error);
            EXPECT_TRUE(Eventually([&] { return ReadFile(file).find('\n') != std::string::npos; }));
            daemons++;
            if (code != PM_OK) {
                return;
            }
        }
    });
    for (int i = 0; i < rounds; i++) {
        Child child({"both"});
        child->stdin_slot.kind = PM_STDIO_PIPE;
        child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_PIPE;
        pm_process *process = Spawn(child);
        if (process == nullptr) {
            break;
        }
        EXPECT_EQ("to stdout\n", ReadAll(process));
        std::string text = ReadAll(process, PM_STDERR);
        EXPECT_EQ(0u, text.rfind("to stderr", 0)) << text;
        pm_exit record = Wait(process);
        EXPECT_FALSE(record.stdout_truncated);
        EXPECT_FALSE(record.stderr_truncated);
    }
    done = true;
    other.join();
    struct pm_stats stats = PM_STATS_INIT;
    EXPECT_EQ(PM_OK, pm_stats(manager, &stats));
    EXPECT_EQ(static_cast<uint64_t>(daemons), stats.running_daemons);
    EXPECT_LE(2, daemons);
}

// Says which of the given handle values are open here, and of the event that it names.
int HandleState(const std::vector<std::string> &args)
{
    std::string text;
    for (const auto &arg : args) {
        auto handle = reinterpret_cast<HANDLE>(strtoull(arg.c_str(), nullptr, 10));
        text += SetEvent(handle) ? "open " : "closed ";
    }
    printf("%s\n", text.c_str());
    fflush(stdout);
    return 0;
}
const RoleAdder handle_state("handle-state", HandleState);

// The values are those of the parent; an event shows by its state which object it is.
TEST_F(Inherit, AnInheritableHandleOfTheHostStaysOut)
{
    Open();
    SECURITY_ATTRIBUTES inherit = {sizeof inherit, nullptr, TRUE};
    HANDLE named = CreateEventW(&inherit, TRUE, FALSE, nullptr);
    HANDLE stray = CreateEventW(&inherit, TRUE, FALSE, nullptr);
    auto text = [](HANDLE h) { return std::to_string(reinterpret_cast<uintptr_t>(h)); };
    Child child({"handle-state", text(named), text(stray)});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    child.extras.push_back({reinterpret_cast<pm_native>(named), 0});
    pm_process *process = Spawn(child);
    (void)ReadLine(process); // A value may by chance be that of another object over there.
    Wait(process);
    EXPECT_EQ(static_cast<DWORD>(WAIT_OBJECT_0), WaitForSingleObject(named, 0));
    EXPECT_EQ(static_cast<DWORD>(WAIT_TIMEOUT), WaitForSingleObject(stray, 0));
    DWORD flags = 0;
    EXPECT_TRUE(GetHandleInformation(named, &flags));
    EXPECT_NE(0u, flags & HANDLE_FLAG_INHERIT) << "as it was before";
    CloseHandle(named);
    CloseHandle(stray);
}

} // namespace
