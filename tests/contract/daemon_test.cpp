// Daemons and the registry, in one program; what happens when programs are killed is in
// crash_test.cpp.

#include "fixture.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <set>
#include <thread>

#ifndef _WIN32
#include <cerrno>
#include <csignal>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace contract;

namespace
{

// A record with something replaced and a checksum that is right again.
std::string Resealed(std::string text, const std::string &from, const std::string &to)
{
    size_t at = text.find(from);
    EXPECT_NE(std::string::npos, at) << from << " in " << text;
    text = text.replace(at, from.size(), to);
    text = text.substr(0, text.rfind("crc32="));
    uint32_t crc = 0xffffffffu;
    for (char c : text) {
        crc ^= static_cast<unsigned char>(c);
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc & 1) != 0 ? (crc >> 1) ^ 0xedb88320u : crc >> 1;
        }
    }
    char line[32];
    snprintf(line, sizeof line, "crc32=%08lx\n", static_cast<unsigned long>(~crc));
    return text + line;
}

class Daemon : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
    }

    // A payload that has said that it runs.
    pm_process *Start(const std::string &key, std::string *ret_line = nullptr)
    {
        std::string file = folder + "/" + key;
        Child child({"payload", file});
        child->mode = PM_MODE_DAEMON;
        child->key = key.c_str();
        child->label = "label of a daemon";
        pm_process *process = Spawn(child);
        EXPECT_TRUE(Eventually([&] { return ReadFile(file).find('\n') != std::string::npos; }));
        if (ret_line != nullptr) {
            *ret_line = ReadFile(file);
        }
        return process;
    }

    struct Entry {
        std::string state, key, label, problem;
        uint64_t pid, start;
        pm_proof proof;
        pm_exit record;
    };

    std::vector<Entry> Entries()
    {
        std::vector<Entry> entries;
        EXPECT_EQ(PM_OK,
                  pm_registry_list((folder + "/registry").c_str(),
                                   [](void *user, const pm_registry_entry *e) {
                                       Entry entry = {};
                                       entry.state = e->state;
                                       entry.key = e->key != nullptr ? e->key : "";
                                       entry.label = e->label != nullptr ? e->label : "";
                                       entry.problem = e->problem != nullptr ? e->problem : "";
                                       entry.pid = e->pid;
                                       entry.start = e->start;
                                       entry.proof = e->proof;
                                       if (e->record != nullptr) {
                                           entry.record = *e->record;
                                       }
                                       static_cast<std::vector<Entry> *>(user)->push_back(entry);
                                       return 0;
                                   },
                                   &entries));
        return entries;
    }

    std::string RecordPath(const std::string &key)
    {
        std::string root = folder + "/registry";
        for (const auto &name : ListFolder(root)) {
            if (name.rfind("boot-", 0) == 0) {
                for (const auto &file : ListFolder(root + "/" + name)) {
                    if (file.rfind("d-" + key + ".", 0) == 0) {
                        return root + "/" + name + "/" + file;
                    }
                }
            }
        }
        return "";
    }

    pm_recover_report Recover(std::vector<pm_process *> *ret_found = nullptr)
    {
        pm_recover_report report = PM_RECOVER_REPORT_INIT;
        std::vector<pm_process *> found;
        EXPECT_EQ(PM_OK, pm_recover(
                             manager,
                             [](void *user, pm_process *process) {
                                 static_cast<std::vector<pm_process *> *>(user)->push_back(
                                     pm_process_ref(process));
                                 return 0;
                             },
                             &found, &report));
        for (pm_process *process : found) {
            Keep(process);
        }
        if (ret_found != nullptr) {
            *ret_found = found;
        }
        return report;
    }
};

TEST_F(Daemon, RunsDetachedAndIsInTheRegistry)
{
    std::string line;
    pm_process *process = Start("d1", &line);
    pm_info info = PM_INFO_INIT;
    ASSERT_EQ(PM_OK, pm_process_info(process, &info));
    EXPECT_EQ(info.pid, NumberAfter(line, "pid "));
    EXPECT_EQ(PM_MODE_DAEMON, info.mode);
    EXPECT_STREQ("d1", info.key);
    EXPECT_STREQ("label of a daemon", info.label);
    EXPECT_TRUE(info.alive);
    EXPECT_FALSE(info.recovered);
#ifndef _WIN32
    EXPECT_EQ(PM_DETACH_LAUNCHER, info.detachment);
    EXPECT_EQ(info.pid, NumberAfter(line, " sid ")) << "a session of its own";
    if (!info.adopted) {
        EXPECT_NE(static_cast<uint64_t>(getpid()), NumberAfter(line, " ppid "));
    }
#endif
    auto entries = Entries();
    ASSERT_EQ(1u, entries.size());
    EXPECT_EQ("running", entries[0].state);
    EXPECT_EQ("d1", entries[0].key);
    EXPECT_EQ(info.pid, entries[0].pid);
}

TEST_F(Daemon, AReaderOfTheRegistryIsToldWhoLivesAndWhoOwnsIt)
{
    std::string registry = folder + "/registry";
    struct pm_registry_owner owner = PM_REGISTRY_OWNER_INIT;
    pm_process *process = Start("d1");
    ASSERT_EQ(1u, Entries().size());
    EXPECT_EQ(PM_PROOF_ALIVE, Entries()[0].proof);
    EXPECT_NE(0u, Entries()[0].start);
    ASSERT_EQ(PM_OK, pm_registry_owner(registry.c_str(), &owner));
    EXPECT_EQ(PM_PROOF_ALIVE, owner.proof);
#ifndef _WIN32
    EXPECT_EQ(static_cast<uint64_t>(getpid()), owner.pid);
#endif
    EXPECT_EQ(1u, owner.epoch);
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, nullptr));
    Wait(process);
    ASSERT_TRUE(
        Eventually([&] { return Entries().size() == 1 && Entries()[0].state == "exited"; }));
    EXPECT_EQ(PM_PROOF_DEAD, Entries()[0].proof);
    EXPECT_EQ(PM_ERR_NOT_FOUND, pm_registry_owner((folder + "/none").c_str(), &owner));
}

TEST_F(Daemon, IsStoppedAndLeavesAnExitRecord)
{
    pm_process *process = Start("d1");
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, &report));
    EXPECT_EQ(1u, report.ended_by) << "it listens";
    EXPECT_FALSE(pm_process_alive(process));
    pm_exit record = Wait(process);
    if (record.kind != PM_EXIT_LOST) { // A kernel before 6.15 cannot tell.
        EXPECT_EQ(PM_EXIT_EXITED, record.kind);
        EXPECT_EQ(5u, record.code);
    }
    ASSERT_TRUE(
        Eventually([&] { return Entries().size() == 1 && Entries()[0].state == "exited"; }));
    EXPECT_EQ(record.kind, Entries()[0].record.kind);
    EXPECT_EQ(record.code, Entries()[0].record.code);
    EXPECT_EQ(PM_OK, pm_forget(manager, "d1"));
    EXPECT_EQ(PM_ERR_NOT_FOUND, pm_forget(manager, "d1"));
    EXPECT_TRUE(Entries().empty());
}

TEST_F(Daemon, ASecondStartOfALivingKeyIsRefused)
{
    Start("d1");
    Child child({"payload", folder + "/other"});
    child->mode = PM_MODE_DAEMON;
    child->key = "d1";
    int code = 0;
    pm_error error = PM_ERROR_INIT;
    TrySpawn(child, &code, &error);
    EXPECT_EQ(PM_ERR_EXISTS, code);
    EXPECT_STREQ("key", error.field);
    EXPECT_EQ(PM_ERR_BUSY, pm_forget(manager, "d1"));
}

TEST_F(Daemon, AKeyIsFreeAgainAfterTheEnd)
{
    pm_process *first = Start("d1");
    EXPECT_EQ(PM_OK, pm_process_stop(first, nullptr, nullptr));
    Wait(first);
    pm_process *found = nullptr;
    std::remove((folder + "/d1").c_str());
    pm_process *second = Start("d1");
    ASSERT_EQ(PM_OK, pm_find(manager, "d1", &found));
    EXPECT_EQ(second, found);
    pm_process_unref(found);
}

TEST_F(Daemon, AKeyStartedAgainAtOnceKeepsItsRecord)
{
    for (int i = 0; i < 20; i++) {
        std::remove((folder + "/d1").c_str());
        pm_process *process = Start("d1");
        EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, nullptr));
        Wait(process);
        std::remove((folder + "/d1").c_str());
        pm_process *next = Start("d1");
        EXPECT_NE("", RecordPath("d1")) << "taken away by the clean-up of the one before";
        EXPECT_EQ(PM_OK, pm_process_stop(next, nullptr, nullptr));
        Wait(next);
        EXPECT_EQ("", RecordPath("d1"));
    }
}

TEST_F(Daemon, StopAllAndCloseLeaveItAlone)
{
    pm_process *process = Start("d1");
    Child child({"sleep"});
    Spawn(child);
    pm_stop_all_report report = PM_STOP_ALL_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_stop_all(manager, -1, nullptr, nullptr, &report));
    EXPECT_EQ(1u, report.stopped);
    EXPECT_EQ(1u, report.daemons);
    EXPECT_EQ(PM_OK, Close());
    EXPECT_TRUE(pm_process_alive(process));
    Open();
    EXPECT_EQ(1u, Recover().alive);
}

TEST_F(Daemon, IsFoundAgainByTheNextManager)
{
    pm_process *process = Start("d1");
    uint64_t pid = pm_process_pid(process);
    EXPECT_EQ(PM_OK, Close());
    Open();
    std::vector<pm_process *> found;
    pm_recover_report report = Recover(&found);
    EXPECT_EQ(1u, report.alive);
    ASSERT_EQ(1u, found.size());
    pm_info info = PM_INFO_INIT;
    ASSERT_EQ(PM_OK, pm_process_info(found[0], &info));
    EXPECT_EQ(pid, info.pid);
    EXPECT_STREQ("d1", info.key);
    EXPECT_STREQ("contract", info.owner);
    EXPECT_STREQ("label of a daemon", info.label);
    EXPECT_TRUE(info.recovered);
    EXPECT_TRUE(info.alive);
    EXPECT_EQ(OnWindows() ? info.detachment : PM_DETACH_LAUNCHER, info.detachment);
    EXPECT_EQ(0u, Recover().alive) << "nothing new the second time";
    pm_stop_report stop = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(found[0], nullptr, &stop));
    EXPECT_EQ(1u, stop.ended_by);
    pm_exit record = Wait(found[0]);
    if (record.kind != PM_EXIT_LOST) {
        EXPECT_EQ(5u, record.code) << "the status of one that was never our child";
    }
}

TEST_F(Daemon, IsRecoveredOnceByFourThreadsAtOnce)
{
    const int daemons = 6;
    for (int i = 0; i < daemons; i++) {
        Start("d" + std::to_string(i));
    }
    for (int round = 0; round < 5; round++) {
        EXPECT_EQ(PM_OK, Close());
        Open();
        std::vector<std::thread> threads;
        std::atomic<int> ready{0};
        std::atomic<uint64_t> alive{0};
        for (int t = 0; t < 4; t++) {
            threads.emplace_back([&] {
                ready++;
                while (ready < 4) {
                }
                pm_recover_report report = PM_RECOVER_REPORT_INIT;
                EXPECT_EQ(PM_OK, pm_recover(manager, nullptr, nullptr, &report));
                alive += report.alive;
            });
        }
        for (auto &thread : threads) {
            thread.join();
        }
        EXPECT_EQ(static_cast<uint64_t>(daemons), alive);
    }
    EXPECT_EQ(PM_OK, pm_stop_daemons(manager, 10000, nullptr, nullptr, nullptr));
}

TEST_F(Daemon, OneThatDiedUnobservedIsLost)
{
    pm_process *process = Start("d1");
    EXPECT_EQ(PM_OK, Close());
    uint64_t pid = pm_process_pid(process);
    KillByNumber(pid);
    ASSERT_TRUE(Eventually([&] { return !pm_process_alive(process); }));
    Open();
    std::vector<pm_process *> found;
    EXPECT_EQ(1u, Recover(&found).ended);
    ASSERT_EQ(1u, found.size());
    pm_exit record = Wait(found[0]);
    // A zombie that its parent is slow to collect, and on Windows one to which somebody (our first
    // Handle) still has a handle, can be asked.
    if (record.kind == PM_EXIT_EXITED) {
        EXPECT_TRUE(OnWindows());
        EXPECT_EQ(1u, record.code);
    } else if (record.kind == PM_EXIT_SIGNALED) {
        EXPECT_EQ(9, record.signal);
    } else {
        EXPECT_EQ(PM_EXIT_LOST, record.kind);
    }
    EXPECT_EQ(pid, pm_process_pid(found[0]));
    EXPECT_FALSE(pm_process_alive(found[0]));
    EXPECT_EQ(PM_OK, pm_process_stop(found[0], nullptr, nullptr));
    ASSERT_EQ(1u, Entries().size());
    EXPECT_EQ("exited", Entries()[0].state);
}

TEST_F(Daemon, OneThatIsGoneWithoutATraceIsLost)
{
    // As above, but its number is nobody's any more: the record names one that never was.
    pm_process *process = Start("d1");
    std::string path = RecordPath("d1"), text = ReadFile(path);
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, nullptr));
    Wait(process);
    EXPECT_EQ(PM_OK, pm_forget(manager, "d1"));
    EXPECT_EQ(PM_OK, Close());
    std::string from = "\npid=" + std::to_string(pm_process_pid(process)) + "\n";
    WriteFile(path, Resealed(text, from, "\npid=4194300\n"));
    Open();
    std::vector<pm_process *> found;
    EXPECT_EQ(1u, Recover(&found).ended);
    ASSERT_EQ(1u, found.size());
    pm_exit record = PM_EXIT_INIT;
    EXPECT_EQ(PM_OK, pm_process_wait(found[0], 0, &record));
    EXPECT_EQ(PM_EXIT_LOST, record.kind);
    EXPECT_EQ(PM_OK, pm_process_stop(found[0], nullptr, nullptr));
    EXPECT_EQ("exited", Entries().at(0).state);
    EXPECT_EQ(PM_EXIT_LOST, Entries().at(0).record.kind);
}

TEST_F(Daemon, TheRegistryHasOneOwner)
{
    pm_options options = PM_OPTIONS_INIT;
    std::string dir = folder + "/registry";
    options.registry_dir = dir.c_str();
    pm_manager *second = nullptr;
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(PM_ERR_REGISTRY_BUSY, pm_open(&options, &second, &error));
#ifdef _WIN32
    EXPECT_NE(0u, error.pid);
#else
    EXPECT_EQ(static_cast<uint64_t>(getpid()), error.pid);
#endif
    EXPECT_EQ(PM_STAGE_REGISTRY, error.stage);
}

TEST_F(Daemon, AForgedRecordIsNeverSignalled)
{
    // A living stranger under the number of the record, born at another time.
    pm_process *process = Start("d1");
    Child other({"linger"});
    other->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *stranger = Spawn(other);
    EXPECT_EQ("ready", ReadLine(stranger));
    std::string path = RecordPath("d1");
    std::string text = ReadFile(path);
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, nullptr));
    Wait(process);
    std::string from = "\npid=" + std::to_string(pm_process_pid(process)) + "\n";
    text = Resealed(text, from, "\npid=" + std::to_string(pm_process_pid(stranger)) + "\n");
    // They may have been born in the same tick of the clock: a tick earlier, then.
    size_t at = text.find("\nstart=") + 1;
    std::string start = text.substr(at, text.find('\n', at) - at);
    text = Resealed(text, start, "start=" + std::to_string(std::stoull(start.substr(6)) - 1));
    WriteFile(path, text);
    pm_recover_report report = Recover();
    EXPECT_EQ(0u, report.alive);
    EXPECT_EQ(1u, report.ended + report.unproven);
    EXPECT_EQ(PM_OK, pm_stop_daemons(manager, 5000, nullptr, nullptr, nullptr));
    EXPECT_TRUE(pm_process_alive(stranger));
}

TEST_F(Daemon, ADamagedRecordIsSetAsideAndShown)
{
    pm_process *process = Start("d1");
    std::string path = RecordPath("d1");
    std::string good = ReadFile(path);
    EXPECT_EQ(PM_OK, Close());
    WriteFile(path, good.substr(0, good.size() / 2));
    Open();
    pm_recover_report report = Recover();
    EXPECT_EQ(0u, report.alive);
    EXPECT_EQ(1u, report.quarantined);
    EXPECT_TRUE(pm_process_alive(process)) << "nothing is signalled on a doubt";
    auto entries = Entries();
    ASSERT_EQ(1u, entries.size());
    EXPECT_EQ("quarantined", entries[0].state);
    EXPECT_NE("", entries[0].problem);
    // What a person would do: put the record back.
    WriteFile(path, good);
    EXPECT_EQ(1u, Recover().alive);
}

TEST_F(Daemon, ManyDaemonsLeakNoZombies)
{
    uint64_t found = 99;
    for (int i = 0; i < 20; i++) {
        std::string key = "cycle-" + std::to_string(i);
        pm_process *process = Start(key);
        pm_stop_plan plan = {1, {{PM_STOP_KILL, PM_SCOPE_PROCESS, 10000}}};
        EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, nullptr)) << "a real kill";
        EXPECT_FALSE(pm_process_alive(process));
#ifndef _WIN32
        // No child of this program is dead and unwaited for: asked of the kernel, taking nothing.
        siginfo_t info = {};
        EXPECT_EQ(-1, waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT)) << info.si_pid;
#endif
    }
    EXPECT_EQ(PM_OK, pm_leak_scan(manager, &found));
    EXPECT_EQ(PM_OK, pm_leak_scan(manager, &found));
    EXPECT_EQ(0u, found);
}

#ifndef _WIN32

TEST_F(Daemon, TheDetectorFindsARealLeakAndTakesNothing)
{
    // The negative control of every "detector zero" in these tests.
    if (HostGetsNoStatuses()) {
        GTEST_SKIP() << "a host that has asked for no statuses has no zombies";
    }
    pid_t leaked = fork();
    if (leaked == 0) {
        _exit(7);
    }
    siginfo_t info = {};
    ASSERT_EQ(0, Uninterrupted([&] {
                  return waitid(P_PID, static_cast<id_t>(leaked), &info, WEXITED | WNOWAIT);
              }));
    uint64_t found = 99;
    EXPECT_EQ(PM_OK, pm_leak_scan(manager, &found));
    EXPECT_EQ(0u, found) << "believed only in the second sweep";
    for (int i = 0; i < 3; i++) {
        EXPECT_EQ(PM_OK, pm_leak_scan(manager, &found));
        EXPECT_EQ(1u, found);
    }
    struct pm_stats stats = PM_STATS_INIT;
    ASSERT_EQ(PM_OK, pm_stats(manager, &stats));
    EXPECT_EQ(1u, stats.leaked_total) << "each counted once";
    EXPECT_EQ(static_cast<uint64_t>(leaked), stats.leaked_pid);
    int status = 0;
    EXPECT_EQ(leaked, Uninterrupted([&] { return waitpid(leaked, &status, 0); }))
        << "the host's own wait gets its code";
    EXPECT_EQ(7 << 8, status);
    EXPECT_EQ(PM_OK, pm_leak_scan(manager, &found));
    EXPECT_EQ(0u, found);
}

TEST_F(Daemon, GetsExactlyTheDescriptorsThatTheSpecNames)
{
    int stray = open("/dev/null", O_RDONLY);
    int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    std::string out = folder + "/out";
    Child child({"fds"});
    child->mode = PM_MODE_DAEMON;
    child->key = "fds";
    child->stdout_slot.kind = PM_STDIO_FILE_TRUNCATE;
    child->stdout_slot.path = out.c_str();
    child.extras = {{zero, 3}, {zero, 5}, {zero, 20}};
    Wait(Spawn(child));
    close(stray);
    close(zero);
    std::string line = ReadFile(out);
    EXPECT_EQ("fds: 0=/dev/null 1=" + out + " 2=/dev/null 3=/dev/zero 5=/dev/zero 20=/dev/zero\n",
              line);
}

TEST_F(Daemon, HasCleanSignalsAndItsOwnFolderAndEnvironment)
{
    std::string out = folder + "/out";
    sigset_t all, old;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &old);
    Child child({"sigstate"});
    child->mode = PM_MODE_DAEMON;
    child->key = "s";
    child->stdout_slot.kind = PM_STDIO_FILE_TRUNCATE;
    child->stdout_slot.path = out.c_str();
    pm_process *process = Spawn(child);
    sigprocmask(SIG_SETMASK, &old, nullptr);
    Wait(process);
    EXPECT_EQ("SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n", ReadFile(out));
    Child env({"env", "PM_TEST_D"});
    env->mode = PM_MODE_DAEMON;
    env->key = "e";
    env.env = {"PM_TEST_D=only in the plan"};
    env->stdout_slot.kind = PM_STDIO_FILE_TRUNCATE;
    env->stdout_slot.path = out.c_str();
    Wait(Spawn(env));
    EXPECT_EQ("PM_TEST_D=only in the plan\n", ReadFile(out));
}

// ------------------------------------------------------------------------------------------------
// Launchers that misbehave
// ------------------------------------------------------------------------------------------------

class Launcher : public Contract
{
  protected:
    // A library that takes it for six times as long is beyond the time that is given to a busy
    // machine.
    static constexpr uint32_t kDeadlineMs = 700;

    void OpenWith(const std::string &script)
    {
        path = folder + "/launcher";
        WriteFile(path, "#!/bin/sh\n" + script + "\n");
        chmod(path.c_str(), 0755);
        pm_options options = DefaultOptions();
        options.launcher_path = path.c_str();
        options.launcher_timeout_ms = kDeadlineMs;
        Open(options);
    }

    void ExpectFailure(const char *hint, pm_stage stage = PM_STAGE_LAUNCHER,
                       int expected = PM_ERR_LAUNCHER)
    {
        std::string file = folder + "/payload";
        Child child({"payload", file});
        child->mode = PM_MODE_DAEMON;
        child->key = "k";
        int code = 0;
        pm_error error = PM_ERROR_INIT;
        const auto begin = std::chrono::steady_clock::now();
        TrySpawn(child, &code, &error);
        EXPECT_GT(std::chrono::milliseconds((kDeadlineMs + 3000) * Slowness()),
                  std::chrono::steady_clock::now() - begin);
        EXPECT_EQ(expected, code) << pm_error_name(code);
        EXPECT_EQ(stage, error.stage) << pm_stage_name(error.stage);
        EXPECT_NE(nullptr, strstr(error.hint, hint)) << error.hint;
        EXPECT_EQ("", ReadFile(file)) << "the program never ran";
        for (const auto &name : ListFolder(folder + "/registry")) {
            if (name.rfind("boot-", 0) == 0) {
                EXPECT_TRUE(ListFolder(folder + "/registry/" + name).empty())
                    << "no record is left";
            }
        }
    }

    std::string path;
};

TEST_F(Launcher, ThatExitsIsAnError)
{
    OpenWith("exit 3");
    ExpectFailure("ended without telling");
}

TEST_F(Launcher, ThatIsSilentIsKilledAtTheDeadline)
{
    OpenWith("exec sleep 50");
    ExpectFailure("in time");
}

TEST_F(Launcher, ThatTalksNonsenseIsAnError)
{
    for (const char *word : {"hello", "-5", "0", "1", "99999999999999999999", "12x", "01", "E",
                             "E0", "E01", "E-5", "E5x", "EE5"}) {
        OpenWith(std::string("echo ") + word + " >&3");
        ExpectFailure("not a process id");
        EXPECT_EQ(PM_OK, Close());
    }
}

TEST_F(Launcher, ThatCannotForkSaysWhy)
{
    OpenWith("echo E" + std::to_string(EAGAIN) + " >&3");
    ExpectFailure("could not fork", PM_STAGE_LAUNCHER, PM_ERR_NO_PROCESS_SLOTS);
}

TEST_F(Launcher, ThatNamesAStrangerIsRefused)
{
    // A living process that is no stub: it cannot answer at the gate, and is not touched.
    pid_t stranger = fork();
    if (stranger == 0) {
        for (;;) {
            pause();
        }
    }
    OpenWith("echo " + std::to_string(stranger) + " >&3; exec 5>&-; exit 0");
    std::string file = folder + "/payload";
    Child child({"payload", file});
    child->mode = PM_MODE_DAEMON;
    child->key = "k";
    int code = 0;
    pm_error error = PM_ERROR_INIT;
    TrySpawn(child, &code, &error);
    EXPECT_NE(PM_OK, code);
    EXPECT_EQ(PM_STAGE_GATE, error.stage);
    EXPECT_EQ(0, waitpid(stranger, nullptr, WNOHANG)) << "the stranger lives";
    kill(stranger, SIGKILL);
    Uninterrupted([&] { return waitpid(stranger, nullptr, 0); });
}

TEST_F(Launcher, ThatNeverEndsIsKilled)
{
    OpenWith("echo $$ >&3; exec sleep 50");
    ExpectFailure("did not end in time");
}

TEST_F(Launcher, ThatDoesNotExistIsAnErrorWithItsPath)
{
    OpenWith("exit 0");
    unlink(path.c_str());
    Child child({"payload", folder + "/payload"});
    child->mode = PM_MODE_DAEMON;
    child->key = "k";
    int code = 0;
    pm_error error = PM_ERROR_INIT;
    TrySpawn(child, &code, &error);
    EXPECT_EQ(PM_ERR_NOT_FOUND, code);
    EXPECT_EQ(PM_STAGE_LAUNCHER, error.stage);
    EXPECT_NE(nullptr, strstr(error.hint, path.c_str())) << error.hint;
}

TEST_F(Launcher, TheHelperProgramDoesTheSameAsTheMarker)
{
    pm_options options = DefaultOptions();
    options.launcher_path = PM_TEST_LAUNCHER_PATH;
    Open(options);
    std::string file = folder + "/payload";
    Child child({"payload", file});
    child->mode = PM_MODE_DAEMON;
    child->key = "k";
    pm_process *process = Spawn(child);
    EXPECT_TRUE(Eventually([&] { return ReadFile(file).find('\n') != std::string::npos; }));
    pm_info info = PM_INFO_INIT;
    ASSERT_EQ(PM_OK, pm_process_info(process, &info));
    EXPECT_EQ(info.pid, NumberAfter(ReadFile(file), " sid "));
    Child dying({"linger"});
    dying->die_with_parent = true;
    EXPECT_NE(nullptr, Spawn(dying)) << "the keeper starts through it too";
}

TEST_F(Launcher, TheMarkerByHandExitsTwo)
{
    Open();
    for (const std::string &program : {SelfPath(), std::string(PM_TEST_LAUNCHER_PATH)}) {
        for (const auto &args : {std::vector<std::string>{"__processmgr_launcher__"},
                                 std::vector<std::string>{"__processmgr_launcher__", "more"}}) {
            Child child({});
            child.program = program;
            child.args = {program};
            child.args.insert(child.args.end(), args.begin(), args.end());
            child->stderr_slot.kind = PM_STDIO_NULL;
            pm_exit record = Wait(Spawn(child));
            EXPECT_EQ(PM_EXIT_EXITED, record.kind);
            EXPECT_EQ(2u, record.code) << program;
        }
        // With descriptors of the right numbers, but not the right kinds.
        int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
        Child child({});
        child.program = program;
        child.args = {program, "__processmgr_launcher__"};
        child.extras = {{zero, 3}, {zero, 4}, {zero, 5}};
        EXPECT_EQ(2u, Wait(Spawn(child)).code);
        close(zero);
    }
    Child child({});
    child.program = PM_TEST_LAUNCHER_PATH;
    child.args = {child.program};
    child->stderr_slot.kind = PM_STDIO_NULL;
    EXPECT_EQ(2u, Wait(Spawn(child)).code) << "the helper by hand";
}

#endif

} // namespace
