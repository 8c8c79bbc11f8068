// Hosts that end, turn into something else, or compete, in the middle of it all.

#include "races.h"

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <thread>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace contract;
using namespace races;

namespace
{

using Hosts = Races;
using Args = std::vector<std::string>;

int Fail(const std::string &what)
{
    printf("%s\n", what.c_str());
    return 1;
}

// ------------------------------------------------------------------------------------------------
// exit()
// ------------------------------------------------------------------------------------------------

void StartForEver(pm_manager *manager, std::atomic<int> *started)
{
    for (;;) {
        Cheap child(":");
        *started += pm_spawn(manager, child.Get(), nullptr, nullptr) == PM_OK;
    }
}

// args: how long it goes on after its first starts, in microseconds.
int Quitter(const Args &args)
{
    pm_manager *manager = nullptr;
    static std::atomic<int> started{0};
    if (pm_open(nullptr, &manager, nullptr) != PM_OK) {
        return 1;
    }
    for (int i = 0; i < 8; i++) {
        std::thread(StartForEver, manager, &started).detach();
    }
    if (!Eventually([] { return started >= 8; })) {
        return 2;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(atoi(args.at(0).c_str())));
    exit(0);
}
const RoleAdder quitter("quitter", Quitter);

TEST_F(Hosts, ThatExitAmongTheirStartsLeaveNothingHalfMade)
{
    if (OnEmulator())
        GTEST_SKIP() << "exit() beside threads that fork does not come to its end here";
    Open();
    std::mt19937 random(6);
    for (int round = 0; round < Rounds(200, 10) && !HasFailure(); round++) {
        // In the environment of the host, so in that of a child before its exec, and after it.
        std::string cookie = "PM_TEST_COOKIE=" + folder + "/" + std::to_string(round) + "/";
        Child host({"quitter", std::to_string(random() % 20000)});
        host.env = {cookie, "ASAN_OPTIONS=detect_leaks=0"};
        pm_exit record = Wait(Spawn(host));
        EXPECT_EQ(PM_EXIT_EXITED, record.kind) << "round " << round << ", signal " << record.signal;
        EXPECT_EQ(0u, record.code) << "round " << round;
        std::vector<uint64_t> left;
        EXPECT_TRUE(Eventually([&] {
            left = LivingWith("environ", cookie);
            return left.empty();
        })) << "round "
            << round << ": " << left.size() << " processes are left, pid "
            << (left.empty() ? 0 : left[0]);
    }
}

// ------------------------------------------------------------------------------------------------
// exec()
// ------------------------------------------------------------------------------------------------

pm_options WithRegistry(const std::string &dir)
{
    pm_options options = PM_OPTIONS_INIT;
    options.registry_dir = dir.c_str();
    options.status_pending_ms = 300;
    return options;
}

// args: registry folder, folder for payload files. Turns into a Shifted with ten children and ten
// daemons, and more starts under way.
int Shifter(const Args &args)
{
    pm_options options = WithRegistry(args.at(0));
    pm_manager *manager = nullptr;
    static std::atomic<int> started{0};
    if (pm_open(&options, &manager, nullptr) != PM_OK) {
        return Fail("no manager");
    }
    Args next = {SelfPath(), "--role", "shifted", args.at(0)};
    for (int i = 0; i < 10; i++) {
        pm_process *process = nullptr;
        pm_error error = PM_ERROR_INIT;
        Cheap child("exec sleep 60");
        child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_NULL;
        if (pm_spawn(manager, child.Get(), &process, &error) != PM_OK) {
            return Fail(ErrorText(error));
        }
        next.push_back(std::to_string(pm_process_pid(process)));
        std::string key = "daemon-" + std::to_string(i);
        Child daemon({"payload", args.at(1) + "/" + key});
        daemon->mode = PM_MODE_DAEMON;
        daemon->key = key.c_str();
        if (pm_spawn(manager, daemon.Get(), nullptr, &error) != PM_OK) {
            return Fail(ErrorText(error));
        }
    }
    // A worker, which keeps copies of all that we have, the registry's lock too.
    pid_t worker = fork();
    if (worker == 0) {
        for (;;) {
            pause();
        }
    }
    next.push_back(std::to_string(worker));
    std::thread(StartForEver, manager, &started).detach();
    std::thread(StartForEver, manager, &started).detach();
    if (!Eventually([] { return started >= 4; })) {
        return Fail("no starts");
    }
    std::vector<char *> argv;
    for (auto &arg : next) {
        argv.push_back(&arg[0]);
    }
    argv.push_back(nullptr);
    execv(argv[0], argv.data());
    return Fail(std::string("exec: ") + strerror(errno));
}
const RoleAdder shifter("shifter", Shifter);

// Children are children still, by number, and nobody else will wait for them.
std::string InheritChildren(const Args &pids)
{
    for (const auto &text : pids) {
        pid_t pid = static_cast<pid_t>(atol(text.c_str()));
        int status = 0;
        if (waitpid(pid, nullptr, WNOHANG) != 0) {
            return "child " + text + " is not our living child";
        }
        kill(pid, SIGKILL);
        if (Uninterrupted([&] { return waitpid(pid, &status, 0); }) != pid ||
            !WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
            return "child " + text + " has no status";
        }
    }
    return "";
}

// args: registry folder, numbers of the children.
int Shifted(const Args &args)
{
#ifndef PM_TEST_LIBKQUEUE // Its descriptors are its own matter.
    std::string open;
    for (int fd = 3; fd < 1024; fd++) {
        open += fcntl(fd, F_GETFD) >= 0 ? " " + std::to_string(fd) : "";
    }
    if (!open.empty()) {
        return Fail("descriptors went through exec:" + open);
    }
#endif
    pm_options options = WithRegistry(args.at(0));
    pm_manager *manager = nullptr;
    pm_error error = PM_ERROR_INIT;
    if (pm_open(&options, &manager, &error) != PM_OK) {
        return Fail(ErrorText(error));
    }
    pm_recover_report found = PM_RECOVER_REPORT_INIT;
    int code = pm_recover(manager, nullptr, nullptr, &found);
    if (code != PM_OK || found.alive != 10) {
        return Fail(std::string("recovery: ") + pm_error_name(code) + ", " +
                    std::to_string(found.alive) + " alive");
    }
    std::string problem = InheritChildren(Args(args.begin() + 1, args.end()));
    if (!problem.empty()) {
        return Fail(problem);
    }
    pm_stop_all_report stopped = PM_STOP_ALL_REPORT_INIT;
    code = pm_stop_daemons(manager, Patience(), nullptr, nullptr, &stopped);
    if (code != PM_OK || stopped.stopped != 10 || pm_close(manager, -1, nullptr) != PM_OK) {
        return Fail(std::string("stop: ") + pm_error_name(code));
    }
    // Those whose start was under way.
    bool none = Eventually([] {
        while (waitpid(-1, nullptr, WNOHANG) > 0) {
        }
        return waitpid(-1, nullptr, WNOHANG) < 0 && errno == ECHILD;
    });
    printf("%s\n", none ? "good" : "a child stays");
    return none ? 0 : 1;
}
const RoleAdder shifted("shifted", Shifted);

TEST_F(Hosts, ThatTurnIntoAnotherProgramKeepTheirChildrenAndFindTheirDaemons)
{
    Open(DefaultOptions(), false);
    for (int round = 0; round < Rounds(20, 2) && !HasFailure(); round++) {
        std::string out = folder + "/out-" + std::to_string(round);
        MakeFolder(out);
        Child host({"shifter", folder + "/registry", out});
        host->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *process = Spawn(host);
        EXPECT_EQ("good", ReadLine(process)) << "round " << round;
        EXPECT_EQ(0u, Wait(process).code) << "round " << round;
        EXPECT_TRUE(LivingWith("cmdline", out + "/").empty()) << "round " << round;
    }
}

// args: registry folder, program, file for the answer. Turns into a Changed while a start of that
// program is under way, when its input ends.
int Changer(const Args &args)
{
    pm_options options = WithRegistry(args.at(0));
    pm_manager *manager = nullptr;
    if (pm_open(&options, &manager, nullptr) != PM_OK) {
        return Fail("no manager");
    }
    std::thread([&] {
        Child child({});
        child.program = args.at(1);
        child.args = {child.program};
        (void)pm_spawn(manager, child.Get(), nullptr, nullptr);
    }).detach();
    while (getchar() != EOF) {
    }
    std::string self = SelfPath(), file = args.at(2), registry = args.at(0);
    execl(self.c_str(), self.c_str(), "--role", "changed", registry.c_str(), file.c_str(), nullptr);
    return Fail(std::string("exec: ") + strerror(errno));
}
const RoleAdder changer("changer", Changer);

// args: registry folder, file for the answer.
int Changed(const Args &args)
{
    pm_options options = WithRegistry(args.at(0));
    pm_manager *manager = nullptr;
    pm_error error = PM_ERROR_INIT;
    int code = pm_open(&options, &manager, &error);
    WriteFile(args.at(1), code == PM_OK ? "good" : ErrorText(error));
    pm_close(manager, -1, nullptr);
    waitpid(-1, nullptr, 0);
    return 0;
}
const RoleAdder changed("changed", Changed);

bool SomebodyLocks(const std::string &path)
{
    struct stat st = {};
    return stat(path.c_str(), &st) == 0 &&
           ReadFile("/proc/locks").find(":" + std::to_string(st.st_ino) + " ") != std::string::npos;
}

TEST_F(Hosts, ThatTurnIntoAnotherProgramAreNotLockedOutByTheirOwnStart)
{
    // A child without its own program yet has copies of all descriptors, that of the lock too. The
    // lease holds it there: it may not open the program before we allow it.
    std::string program = folder + "/program", registry = folder + "/registry";
    std::string answer = folder + "/answer";
    WriteFile(program, ReadFile("/bin/true"));
    chmod(program.c_str(), 0700);
    int lease = open(program.c_str(), O_RDONLY | O_CLOEXEC);
    if (fcntl(lease, F_SETSIG, SIGURG) != 0 || fcntl(lease, F_SETLEASE, F_WRLCK) != 0) {
        close(lease);
        GTEST_SKIP() << "no leases in this file system";
    }
    Open(DefaultOptions(), false);
    Child host({"changer", registry, program, answer});
    host->stdin_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(host);
    EXPECT_TRUE(Eventually([&] { return fcntl(lease, F_GETLEASE) != F_WRLCK; })) << "no start";
    EXPECT_TRUE(SomebodyLocks(registry + "/lock"));
    pm_stream_close(pm_process_stream(process, PM_STDIN));
    EXPECT_TRUE(Eventually(
        [&] { return SomebodyLocks(registry + "/lock.gate") || !ReadFile(answer).empty(); }));
    EXPECT_EQ(0, fcntl(lease, F_SETLEASE, F_UNLCK));
    close(lease);
    EXPECT_EQ(0u, Wait(process).code);
    EXPECT_EQ("good", ReadFile(answer));
}

// ------------------------------------------------------------------------------------------------
// Two of them
// ------------------------------------------------------------------------------------------------

void AwaitEndOfFile(int fd)
{
    char byte;
    while (Uninterrupted([&] { return read(fd, &byte, 1); }) > 0) {
    }
}

// args: registry folder. Opens it when its input ends, and holds it until descriptor 3 ends.
int Opener(const Args &args)
{
    pm_options options = WithRegistry(args.at(0));
    pm_manager *manager = nullptr;
    pm_error error = PM_ERROR_INIT;
    printf("ready\n");
    fflush(stdout);
    AwaitEndOfFile(0);
    int code = pm_open(&options, &manager, &error);
    printf("%s %llu\n", pm_error_name(code), static_cast<unsigned long long>(error.pid));
    fflush(stdout);
    AwaitEndOfFile(3);
    return pm_close(manager, -1, nullptr) == PM_OK ? 0 : 1;
}
const RoleAdder opener("opener", Opener);

TEST_F(Hosts, ThatOpenOneRegistryAtOnceAgreeOnOneOwner)
{
    Open(DefaultOptions(), false);
    for (int round = 0; round < Rounds(200, 20) && !HasFailure(); round++) {
        int start[2], hold[2];
        ASSERT_EQ(0, pipe2(start, O_CLOEXEC));
        ASSERT_EQ(0, pipe2(hold, O_CLOEXEC));
        pm_process *hosts[2];
        for (auto &host : hosts) {
            Child child({"opener", folder + "/registry"});
            child->stdin_slot.kind = PM_STDIO_NATIVE;
            child->stdin_slot.native = start[0];
            child->stdout_slot.kind = PM_STDIO_PIPE;
            child.extras = {{hold[0], 3}};
            host = Spawn(child);
            ASSERT_EQ("ready", ReadLine(host)) << "round " << round;
        }
        close(start[0]);
        close(start[1]);
        std::string first = ReadLine(hosts[0]), second = ReadLine(hosts[1]);
        bool first_owns = first == "PM_OK 0";
        EXPECT_EQ("PM_OK 0", first_owns ? first : second) << "round " << round;
        EXPECT_EQ("PM_ERR_REGISTRY_BUSY " +
                      std::to_string(pm_process_pid(hosts[first_owns ? 0 : 1])),
                  first_owns ? second : first)
            << "round " << round;
        if (round % 2 == 1) { // The next ones find the lock of one that was killed.
            pm_stop_plan plan = {1, {{PM_STOP_KILL, PM_SCOPE_TREE, 10000}}};
            EXPECT_EQ(PM_OK, pm_process_stop(hosts[first_owns ? 0 : 1], &plan, nullptr));
        }
        close(hold[0]);
        close(hold[1]);
        for (auto &host : hosts) {
            pm_exit record = Wait(host);
            EXPECT_TRUE(record.kind == PM_EXIT_SIGNALED || record.code == 0) << "round " << round;
        }
    }
}

} // namespace
