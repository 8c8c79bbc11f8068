// Programs that are killed: what must die with them, what must live on, and what the next run
// finds.

#include "fixture.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <random>
#include <set>
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

class Crash : public Contract
{
  protected:
    // Kills at once, by the Handle.
    static void Kill(pm_process *process)
    {
        pm_stop_plan plan = {1, {{PM_STOP_KILL, PM_SCOPE_PROCESS, 10000}}};
        EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, nullptr));
    }

    struct pm_recover_report Recover()
    {
        pm_recover_report report = PM_RECOVER_REPORT_INIT;
        EXPECT_EQ(PM_OK, pm_recover(manager, nullptr, nullptr, &report));
        return report;
    }
};

TEST_F(Crash, ChildrenDieWithTheirParentAndDaemonsLiveOn)
{
    pm_manager *outer = nullptr;
    ASSERT_EQ(PM_OK, pm_open(nullptr, &outer, nullptr));
    Child child({"controller", folder + "/registry", folder + "/payload", "3"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *controller = nullptr;
    ASSERT_EQ(PM_OK, pm_spawn(outer, child.Get(), &controller, nullptr));
    std::vector<uint64_t> children, daemons;
    for (std::string line; (line = ReadLine(controller)) != "ready";) {
        if (line.rfind("child ", 0) == 0) {
            children.push_back(NumberAfter(line, "child "));
            children.push_back(NumberAfter(line, "grandchild "));
        } else if (line.rfind("daemon ", 0) == 0) {
            daemons.push_back(NumberAfter(line, "daemon "));
        } else {
            ADD_FAILURE() << line;
            break;
        }
    }
    ASSERT_EQ(6u, children.size());
    ASSERT_EQ(3u, daemons.size());
    for (uint64_t pid : children) {
        EXPECT_TRUE(PidAlive(pid));
    }
    Kill(controller);
    for (uint64_t pid : children) {
        EXPECT_TRUE(Eventually([&] { return !PidAlive(pid); })) << pid;
    }
    for (uint64_t pid : daemons) {
        EXPECT_TRUE(PidAlive(pid)) << pid;
    }
    pm_process_unref(controller);
    EXPECT_EQ(PM_OK, pm_close(outer, -1, nullptr));

    Open();
    EXPECT_EQ(3u, Recover().alive);
    struct pm_stop_all_report report = PM_STOP_ALL_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_stop_all(manager, -1, nullptr, nullptr, &report));
    EXPECT_EQ(3u, report.daemons);
    EXPECT_EQ(PM_OK, pm_stop_daemons(manager, 20000, nullptr, nullptr, &report));
    EXPECT_EQ(3u, report.stopped);
    for (uint64_t pid : daemons) {
        EXPECT_FALSE(PidAlive(pid)) << pid;
    }
}

TEST_F(Crash, AChildOutlivesTheThreadThatMadeIt)
{
    Open();
    pm_process *process = nullptr;
    Child child({"linger"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    child->die_with_parent = true;
    std::thread maker([&] { EXPECT_EQ(PM_OK, pm_spawn(manager, child.Get(), &process, nullptr)); });
    maker.join();
    Keep(process);
    EXPECT_EQ("ready", ReadLine(process));
    EXPECT_EQ(PM_ERR_TIMEOUT, pm_process_wait(process, 100, nullptr));
}

TEST_F(Crash, AManagerThatIsClosedEndsNobodyWhoWasToBeLeftAlone)
{
    Open();
    Child child({"tree", "leave"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    child->die_with_parent = true;
    pm_process *process = Spawn(child);
    uint64_t grandchild = NumberAfter(ReadLine(process), "grandchild ");
    Wait(process);
    EXPECT_EQ(PM_OK, Close());
    EXPECT_TRUE(PidAlive(grandchild)) << "the program has not ended";
    EXPECT_FALSE(pm_process_alive(process));
    KillByNumber(grandchild); // It was ours: a grandchild of this test.
}

#ifndef _WIN32

TEST_F(Crash, AForkedWorkerThatKeepsTheLockDoesNotKeepTheRegistry)
{
    pm_manager *outer = nullptr;
    ASSERT_EQ(PM_OK, pm_open(nullptr, &outer, nullptr));
    Child child({"forker", folder + "/registry"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *owner = nullptr;
    ASSERT_EQ(PM_OK, pm_spawn(outer, child.Get(), &owner, nullptr));
    uint64_t worker = NumberAfter(ReadLine(owner), "worker ");
    pm_options options = DefaultOptions();
    std::string dir = folder + "/registry";
    options.registry_dir = dir.c_str();
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(PM_ERR_REGISTRY_BUSY, pm_open(&options, &manager, &error));
    EXPECT_EQ(pm_process_pid(owner), error.pid);
    Kill(owner);
    EXPECT_TRUE(PidAlive(worker));
    Open();
    EXPECT_EQ(PM_OK, pm_process_stop(owner, nullptr, nullptr)) << "and the worker with it";
    pm_process_unref(owner);
    EXPECT_EQ(PM_OK, pm_close(outer, -1, nullptr));
}

#endif

#ifdef _WIN32
// Numbers are given out again soon: whoever wrote the file is older than its last change.
bool WroteThis(uint64_t pid, const std::string &path)
{
    FILETIME born = {}, ended, kernel, user;
    WIN32_FILE_ATTRIBUTE_DATA file = {};
    HANDLE process = OpenProcess(PROCESS_QUERY_LIMITED_INFORMATION, FALSE, static_cast<DWORD>(pid));
    GetProcessTimes(process, &born, &ended, &kernel, &user);
    CloseHandle(process);
    GetFileAttributesExA(path.c_str(), GetFileExInfoStandard, &file);
    return CompareFileTime(&born, &file.ftLastWriteTime) <= 0;
}
#endif

// Processes that run a payload with a file in that folder: pid and key. On Windows only those that
// have written into it, the others are found by a later look.
std::map<uint64_t, std::string> LivingPayloads(const std::string &out)
{
    std::map<uint64_t, std::string> found;
#ifdef _WIN32
    for (const auto &key : ListFolder(out)) {
        std::string line = ReadFile(out + "/" + key);
        uint64_t pid = line.rfind("pid ", 0) == 0 ? std::stoull(line.substr(4)) : 0;
        if (pid != 0 && PidAlive(pid) && WroteThis(pid, out + "/" + key)) {
            found[pid] = key;
        }
    }
#else
    for (const auto &name : ListFolder("/proc")) {
        if (name.find_first_not_of("0123456789") != std::string::npos) {
            continue;
        }
        std::string line = ReadFile("/proc/" + name + "/cmdline");
        size_t at = line.find(std::string("payload\0", 8) + out + "/");
        if (at != std::string::npos && PidAlive(std::stoull(name))) {
            std::string path = line.c_str() + at + 8;
            found[std::stoull(name)] = path.substr(path.rfind('/') + 1);
        }
    }
#endif
    return found;
}

// The property of the whole design: kill -9 of the starter at any instant, and still every living
// daemon is in the registry, every record has a living daemon or is dropped by recovery, and no
// payload ran twice.
TEST_F(Crash, NoKillOfTheStarterMakesADaemonUnknown)
{
    const int rounds = OnWindows() ? 12 : Times(1000, 200);
    const unsigned longest_us = // A few starts.
        (OnWindows() ? 500000u : 20000u) * static_cast<unsigned>(Slowness());
    std::mt19937 random(12345);
    pm_manager *outer = nullptr;
    ASSERT_EQ(PM_OK, pm_open(nullptr, &outer, nullptr));
    size_t dropped = 0, recovered = 0;
    for (int round = 0; round < rounds && !HasFailure(); round++) {
        std::string out = folder + "/out-" + std::to_string(round);
        std::string registry = folder + "/registry";
        MakeFolder(out);
        Child child({"spawner", registry, out});
        child->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *spawner = nullptr;
        ASSERT_EQ(PM_OK, pm_spawn(outer, child.Get(), &spawner, nullptr));
        ASSERT_EQ("ready", ReadLine(spawner));
        // The instant is random on purpose; nothing is waited for here.
        std::this_thread::sleep_for(std::chrono::microseconds(random() % longest_us));
        Kill(spawner);
        pm_process_unref(spawner);

        pm_options options = DefaultOptions();
        options.status_pending_ms = 10;
        Open(options);
        pm_recover_report report = PM_RECOVER_REPORT_INIT;
        std::set<std::string> known;
        ASSERT_EQ(PM_OK, pm_recover(
                             manager,
                             [](void *user, pm_process *process) {
                                 pm_info info = PM_INFO_INIT;
                                 pm_process_info(process, &info);
                                 if (info.alive) {
                                     static_cast<std::set<std::string> *>(user)->insert(info.key);
                                 }
                                 return 0;
                             },
                             &known, &report));
        EXPECT_EQ(0u, report.quarantined);
        EXPECT_EQ(0u, report.unproven);
        dropped += report.dropped;
        recovered += report.alive;
        // Every living payload is known. A stub on its way out is no payload yet: it never has its
        // command line.
        for (const auto &[pid, key] : LivingPayloads(out)) {
            EXPECT_EQ(1u, known.count(key))
                << "round " << round << ": pid " << pid << " key " << key;
        }
        EXPECT_EQ(PM_OK, pm_stop_daemons(manager, 20000, nullptr, nullptr, nullptr));
        EXPECT_TRUE(LivingPayloads(out).empty()) << "round " << round;
        for (const auto &key : ListFolder(out)) {
            std::string lines = ReadFile(out + "/" + key);
            EXPECT_LE(std::count(lines.begin(), lines.end(), '\n'), 1) << key << " ran twice";
        }
        ASSERT_EQ(PM_OK, Close());
        RemoveTree(registry);
    }
    for (int round = 0; round < rounds; round++) {
        EXPECT_TRUE(LivingPayloads(folder + "/out-" + std::to_string(round)).empty())
            << "round " << round << ": one that came late";
    }
    EXPECT_GT(recovered, 0u) << "no daemon was ever there: the test proves nothing";
    RecordProperty("dropped", static_cast<int>(dropped));
    RecordProperty("recovered", static_cast<int>(recovered));
    EXPECT_EQ(PM_OK, pm_close(outer, -1, nullptr));
}

} // namespace
