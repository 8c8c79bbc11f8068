// The system gives the number of a process that has ended to a stranger. In a pid namespace of its
// own the number can be chosen; the stranger leads a group and a session of that number, too.
#ifdef __linux__
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/times.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstring>
#include <thread>

#include "fixture.h"

using namespace contract;

namespace
{

using Args = std::vector<std::string>;

constexpr int kNoNamespace = 77;

// ------------------------------------------------------------------------------------------------
// Inside of the namespace
// ------------------------------------------------------------------------------------------------

void Fail(int round, const std::string &what)
{
    printf("round %d: %s\n", round, what.c_str());
    fflush(stdout);
    _exit(1);
}

void Await(int round, const std::string &what, const std::function<bool()> &reached)
{
    if (!Eventually(reached))
        Fail(round, what);
}

std::string StatOf(pid_t pid)
{
    return ReadFile("/proc/" + std::to_string(pid) + "/stat");
}

// The 22nd field: when it was started, in ticks.
std::string StartOf(pid_t pid)
{
    std::string stat = StatOf(pid);
    size_t at = stat.rfind(')') + 1;
    for (int field = 3; field < 22; field++)
        at = stat.find(' ', at + 1);
    return stat.substr(at, stat.find(' ', at + 1) - at);
}

int answers[2]; // A stranger's: a pipe.

// Answers each SIGUSR1 with a byte: one that has another signal before it answers no more.
[[noreturn]] void Live()
{
    sigset_t only;
    sigemptyset(&only);
    sigaddset(&only, SIGUSR1);
    for (;;) {
        int number;
        if (sigwait(&only, &number) == 0 && write(answers[1], "a", 1) != 1)
            _exit(1);
    }
}

enum class Way {
    kStays,        // With a member of its group.
    kEnds,         // And is not waited for.
    kLeavesAMember // Of its group, and is waited for.
};

// A child of ours with that number.
pid_t Stranger(int round, pid_t wanted, Way way)
{
    for (int i = 0; i < 5000; i++) {
        WriteFile("/proc/sys/kernel/ns_last_pid", std::to_string(wanted - 1));
        sigset_t mask, before;
        sigemptyset(&mask);
        sigaddset(&mask, SIGUSR1);
        sigprocmask(SIG_BLOCK, &mask, &before);
        pid_t pid = fork();
        if (pid == 0) {
            setsid();
            if (way == Way::kEnds || (way == Way::kLeavesAMember && fork() != 0))
                _exit(0);
            if (way == Way::kStays && fork() == 0)
                for (;;)
                    pause();
            Live();
        }
        sigprocmask(SIG_SETMASK, &before, nullptr);
        if (pid == wanted) {
            siginfo_t info = {};
            if (way == Way::kStays)
                Await(round, "the stranger's session", [&] { return getsid(pid) == pid; });
            else
                waitid(P_PID, static_cast<id_t>(pid), &info,
                       WEXITED | (way == Way::kEnds ? WNOWAIT : 0));
            return pid;
        }
        kill(pid, SIGKILL);
        kill(-pid, SIGKILL);
        waitpid(pid, nullptr, 0);
        usleep(1000); // Somebody of its group may still have to be waited for.
    }
    Fail(round, "the number was not given again");
    return 0;
}

void ExpectAlive(int round, pid_t stranger, const std::string &after)
{
    char answer;
    kill(stranger, SIGUSR1);
    Await(round, "a stranger is silent", [&] {
        if (waitpid(stranger, nullptr, WNOHANG) != 0)
            Fail(round, "a stranger was ended by " + after);
        return read(answers[0], &answer, 1) == 1;
    });
}

void End(pid_t stranger)
{
    kill(-stranger, SIGKILL);
    waitpid(stranger, nullptr, 0);
}

pm_manager *OpenManager(int round, const std::string &registry, pm_loop loop)
{
    pm_options options = PM_OPTIONS_INIT;
    options.registry_dir = registry.c_str();
    options.loop = loop;
    options.status_pending_ms = 10;
    pm_manager *manager = nullptr;
    pm_error error = PM_ERROR_INIT;
    if (pm_open(&options, &manager, &error) != PM_OK)
        Fail(round, ErrorText(error));
    return manager;
}

pm_process *StartOne(int round, pm_manager *manager, bool daemon, const char *key = "reused")
{
    Child child({"sleep"});
    child->key = daemon ? key : nullptr;
    child->mode = daemon ? PM_MODE_DAEMON : PM_MODE_NORMAL;
    child->stdin_slot.kind = child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_NULL;
    pm_process *process = nullptr;
    pm_error error = PM_ERROR_INIT;
    if (pm_spawn(manager, child.Get(), &process, &error) != PM_OK)
        Fail(round, ErrorText(error));
    return process;
}

void AwaitFree(int round, pid_t pid)
{
    Await(round, "the number stays taken",
          [&] { return kill(pid, 0) != 0 && StatOf(pid).empty(); });
}

void TrySignals(int round, pm_process *process, pid_t stranger)
{
    const pm_stop_scope scopes[] = {PM_SCOPE_PROCESS, PM_SCOPE_GROUP, PM_SCOPE_TREE};
    for (int i = 0; i < 3 && round % 4 < 3; i++) { // Each comes first, and the stop alone.
        const pm_stop_scope scope = scopes[(round + i) % 3];
        int result = pm_process_signal(process, SIGKILL, scope);
        ExpectAlive(round, stranger, "a signal of scope " + std::to_string(scope));
        if (result == PM_OK)
            Fail(round, "a signal was delivered to nobody");
    }
    pm_stop_plan plan = {};
    plan.steps_count = 2;
    plan.steps[0] = {PM_STOP_TERMINATE, PM_SCOPE_TREE, 10};
    plan.steps[1] = {PM_STOP_KILL, PM_SCOPE_TREE, 5000};
    if (pm_process_stop(process, &plan, nullptr) != PM_OK)
        Fail(round, "a stop of one that is gone fails");
    ExpectAlive(round, stranger, "a stop");
}

// Without a kernel object for it the start time is the proof, in ticks: the stranger must have
// another.
pid_t StrangerLikeOthers(int round, pid_t wanted, bool by_ticks, const std::string &start)
{
    pid_t stranger = Stranger(round, wanted, Way::kStays);
    while (by_ticks && StartOf(stranger) == start) {
        End(stranger);
        AwaitFree(round, wanted);
        stranger = Stranger(round, wanted, Way::kStays);
    }
    return stranger;
}

bool IsBestEffort(pm_process *process)
{
    pm_info info = PM_INFO_INIT;
    return pm_process_info(process, &info) == PM_OK && info.best_effort;
}

bool groups_by_number = false;

bool GoesByTicks(pm_process *process)
{
    return groups_by_number || IsBestEffort(process);
}

// Nobody has looked at the Handle since its process died: there is no thread that would.
void Signals(int round, const std::string &registry)
{
    pm_manager *manager = OpenManager(round, registry, PM_LOOP_CALLER);
    pm_process *process = StartOne(round, manager, true);
    pid_t pid = static_cast<pid_t>(pm_process_pid(process));
    const bool by_ticks = GoesByTicks(process);
    const std::string start = StartOf(pid);
    kill(pid, SIGKILL);
    AwaitFree(round, pid);
    pid_t stranger = StrangerLikeOthers(round, pid, by_ticks, start);
    TrySignals(round, process, stranger);
    pm_process_unref(process);
    if (pm_close(manager, 20000, nullptr) != PM_OK)
        Fail(round, "close");
    ExpectAlive(round, stranger, "a close");
    End(stranger);
}

// Our own child, waited for: its group may still be asked for. Or somebody else was faster and has
// its status (stolen), and our Handle does not know yet that it has ended; not without a pidfd,
// where another child of the same host that gets the number is taken for it.
void Children(int round, const std::string &registry, bool stolen)
{
    pm_manager *manager = OpenManager(round, registry, stolen ? PM_LOOP_CALLER : PM_LOOP_OWN);
    pm_process *process = StartOne(round, manager, false);
    pid_t pid = static_cast<pid_t>(pm_process_pid(process));
    const bool by_ticks = GoesByTicks(process);
    const std::string start = StartOf(pid);
    stolen = stolen && !IsBestEffort(process);
    kill(pid, SIGKILL);
    if (stolen)
        waitpid(pid, nullptr, 0);
    else if (pm_process_wait(process, 20000, nullptr) != PM_OK)
        Fail(round, "wait");
    AwaitFree(round, pid);
    pid_t stranger = StrangerLikeOthers(round, pid, by_ticks, start);
    TrySignals(round, process, stranger);
    pm_process_unref(process);
    pm_close(manager, 20000, nullptr);
    ExpectAlive(round, stranger, "a close");
    End(stranger);
}

void Recovery(int round, const std::string &registry)
{
    pm_manager *manager = OpenManager(round, registry, PM_LOOP_OWN);
    pm_process *process = StartOne(round, manager, true);
    pid_t pid = static_cast<pid_t>(pm_process_pid(process));
    const bool by_ticks = GoesByTicks(process);
    pm_process_unref(process);
    pm_close(manager, 20000, nullptr);
    const std::string start = StartOf(pid);
    kill(pid, SIGKILL);
    AwaitFree(round, pid);
    pid_t stranger = StrangerLikeOthers(round, pid, by_ticks, start);

    manager = OpenManager(round, registry, PM_LOOP_OWN);
    pm_recover_report report = PM_RECOVER_REPORT_INIT;
    if (pm_recover(manager, nullptr, nullptr, &report) != PM_OK || report.alive != 0 ||
        report.ended != 1)
        Fail(round, "a stranger was taken for a daemon");
    pm_stop_daemons(manager, 20000, nullptr, nullptr, nullptr);
    pm_close(manager, 20000, nullptr);
    ExpectAlive(round, stranger, "a recovery");
    End(stranger);
}

// A thread of ours with that number: threads have theirs from the same store.
class Namesake
{
  public:
    Namesake(int round, pid_t wanted)
    {
        for (int i = 0; i < 200 && number != wanted; i++) {
            End();
            WriteFile("/proc/sys/kernel/ns_last_pid", std::to_string(wanted - 1));
            ends = false;
            number = 0;
            thread = std::thread([this] {
                number = static_cast<pid_t>(syscall(SYS_gettid));
                while (!ends)
                    usleep(1000);
            });
            Await(round, "a thread has no number", [this] { return number != 0; });
        }
        if (number != wanted)
            Fail(round, "the number was not given to a thread");
    }
    ~Namesake()
    {
        End();
    }

  private:
    void End()
    {
        ends = true;
        if (thread.joinable())
            thread.join();
    }

    std::atomic<pid_t> number{0};
    std::atomic<bool> ends{false};
    std::thread thread;
};

// Nobody has that number as a process: that daemon has ended, and the other one is found.
void Threads(int round, const std::string &registry)
{
    pm_manager *manager = OpenManager(round, registry, PM_LOOP_OWN);
    pm_process *process = StartOne(round, manager, true);
    pid_t pid = static_cast<pid_t>(pm_process_pid(process));
    pm_process_unref(process);
    pm_process_unref(StartOne(round, manager, true, "another"));
    pm_close(manager, 20000, nullptr);
    kill(pid, SIGKILL);
    AwaitFree(round, pid);
    const clock_t ended = times(nullptr); // Without a pidfd the start time is the proof, in ticks.
    Await(round, "the clock stands", [&] { return times(nullptr) > ended + 1; });

    Namesake namesake(round, pid);
    manager = OpenManager(round, registry, PM_LOOP_OWN);
    pm_recover_report report = PM_RECOVER_REPORT_INIT;
    int result = pm_recover(manager, nullptr, nullptr, &report);
    if (result != PM_OK || report.alive != 1 || report.ended != 1)
        Fail(round, std::string("recovery beside a thread: ") + pm_error_name(result));
    pm_stop_daemons(manager, 20000, nullptr, nullptr, nullptr);
    pm_close(manager, 20000, nullptr);
}

// Another zombie with the number of the one in the sweep before is a new one.
void Detector(int round, const std::string &registry)
{
    pm_manager *manager = OpenManager(round, registry, PM_LOOP_CALLER);
    pid_t first = fork();
    if (first == 0)
        _exit(0);
    siginfo_t info = {};
    uint64_t found = 0;
    waitid(P_PID, static_cast<id_t>(first), &info, WEXITED | WNOWAIT);
    std::string start = StartOf(first);
    pm_leak_scan(manager, &found);
    waitpid(first, nullptr, 0);
    AwaitFree(round, first);
    pid_t second;
    for (;;) {
        second = Stranger(round, first, Way::kEnds);
        if (StartOf(second) != start)
            break;
        waitpid(second, nullptr, 0); // In the same tick.
    }
    pm_leak_scan(manager, &found);
    if (found != 0)
        Fail(round, "two zombies were taken for one");
    pm_leak_scan(manager, &found);
    if (found != 1)
        Fail(round, "a leak was not found");
    if (waitpid(second, nullptr, WNOHANG) != second)
        Fail(round, "the detector took a status");
    pm_close(manager, 20000, nullptr);
}

// ------------------------------------------------------------------------------------------------
// Groups that can be signalled by number alone
// ------------------------------------------------------------------------------------------------

// From here on no signal goes to a group through a pidfd, as before Linux 6.9.
bool ForgetGroups()
{
    sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_send_signal, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[3])), // Little-endian.
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EINVAL),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    sock_fprog program = {sizeof code / sizeof code[0], code};
    groups_by_number = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
                       prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
    return groups_by_number;
}

struct Kept {
    pid_t host, child, keeper;
    bool best_effort; // Nothing tells the keeper of an end.
};

// A host that will be killed, and whose keeper knows a child that has ended.
Kept KeptChild(int round, const std::string &registry, bool session)
{
    Kept kept = {};
    int said[2];
    if (pipe2(said, O_CLOEXEC) != 0)
        Fail(round, "pipe");
    kept.host = fork();
    if (kept.host == 0) {
        pm_manager *manager = OpenManager(round, registry, PM_LOOP_OWN);
        Child child({"exit", "0"});
        child->die_with_parent = true;
        child->new_session = session;
        pm_process *process = nullptr;
        if (pm_spawn(manager, child.Get(), &process, nullptr) != PM_OK ||
            pm_process_wait(process, 20000, nullptr) != PM_OK)
            _exit(1);
        pm_info info = PM_INFO_INIT;
        pm_process_info(process, &info);
        kept.child = static_cast<pid_t>(pm_process_pid(process));
        kept.best_effort = info.best_effort;
        (void)!write(said[1], &kept, sizeof kept);
        for (;;)
            pause();
    }
    close(said[1]);
    const pid_t host = kept.host;
    if (read(said[0], &kept, sizeof kept) != sizeof kept)
        Fail(round, "a host without a child");
    close(said[0]);
    kept.host = host;
    for (const auto &name : ListFolder("/proc"))
        if (ReadFile("/proc/" + name + "/stat").find("(pm-keeper)") != std::string::npos)
            kept.keeper = std::stoi(name);
    if (kept.keeper == 0)
        Fail(round, "no keeper");
    return kept;
}

size_t PidfdsOf(pid_t pid)
{
    const std::string folder = "/proc/" + std::to_string(pid) + "/fd/";
    size_t found = 0;
    for (const auto &name : ListFolder(folder)) {
        char link[64] = "";
        (void)!readlink((folder + name).c_str(), link, sizeof link - 1);
        found += strstr(link, "pidfd") != nullptr;
    }
    return found;
}

// The number is that of another group now, whose leader is gone as well. By the number of a session
// they would be the same: so a keeper forgets who is dead, and lets go of its pidfd.
void Keepers(int round, const std::string &registry, bool session)
{
    const Kept kept = KeptChild(round, registry, session);
    AwaitFree(round, kept.child);
    if (session)
        Await(round, "a keeper does not forget the dead",
              [&] { return PidfdsOf(kept.keeper) < 2; });
    pid_t leader = Stranger(round, kept.child, Way::kLeavesAMember);
    kill(kept.host, SIGKILL);
    waitpid(kept.host, nullptr, 0);
    AwaitFree(round, kept.keeper);
    char answer;
    if (kill(-leader, SIGUSR1) == 0)
        Await(round, "a stranger is silent", [&] { return read(answers[0], &answer, 1) == 1; });
    else if (!session || !kept.best_effort)
        Fail(round, "a keeper ended the group of a stranger");
    kill(-leader, SIGKILL);
    AwaitFree(round, leader);
}

int GroupHost(const Args &args)
{
    int rounds = std::stoi(args.at(0));
    if (pipe2(answers, O_CLOEXEC | O_NONBLOCK) != 0)
        return 1;
    if (!ForgetGroups())
        return kNoNamespace;
    for (int round = 0; round < rounds; round++) {
        Signals(round, args.at(1));
        Children(round, args.at(1), false);
        Children(round, args.at(1), true);
        Keepers(round, args.at(1), round % 10 == 5); // That takes its time.
    }
    return 0;
}

int ReuseHost(const Args &args)
{
    int rounds = std::stoi(args.at(0));
    if (pipe2(answers, O_CLOEXEC | O_NONBLOCK) != 0)
        return 1;
    for (int round = 0; round < rounds; round++) {
        Signals(round, args.at(1));
        Children(round, args.at(1), false);
        Recovery(round, args.at(1));
        Threads(round, args.at(1));
        Detector(round, args.at(1));
    }
    return 0;
}

const RoleAdder reuse_host("reuse-host", ReuseHost);
const RoleAdder group_host("group-host", GroupHost);

// The first process of the namespace: waits for everybody, ends with its host.
[[noreturn]] void BeInit(const std::vector<std::string> &args)
{
    if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("proc", "/proc", "proc", 0, nullptr) != 0)
        _exit(kNoNamespace);
    pid_t host = fork();
    if (host == 0) {
        std::vector<char *> argv;
        for (const auto &arg : args)
            argv.push_back(const_cast<char *>(arg.c_str()));
        argv.push_back(nullptr);
        execv(argv[0], argv.data());
        _exit(126);
    }
    int status = 0;
    pid_t ended;
    while ((ended = waitpid(-1, &status, 0)) != host && ended > 0)
        continue;
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128);
}

// ------------------------------------------------------------------------------------------------
// The tests
// ------------------------------------------------------------------------------------------------

void RunInANamespace(const char *role, int rounds)
{
    if (HostGetsNoStatuses()) {
        GTEST_SKIP() << "the host has asked for no statuses";
    }
    std::string folder = MakeTempFolder();
    const std::vector<std::string> args = {SelfPath(), "--role", role, std::to_string(rounds),
                                           folder + "/registry"};
    int out[2];
    ASSERT_EQ(0, pipe(out));
    pid_t pid = fork();
    if (pid == 0) {
        dup2(out[1], 1);
        close(out[0]);
        if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0)
            _exit(kNoNamespace);
        pid_t init = fork();
        if (init == 0)
            BeInit(args);
        int status = 0;
        waitpid(init, &status, 0);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128);
    }
    close(out[1]);
    std::string text;
    char buffer[256];
    for (ssize_t n; (n = read(out[0], buffer, sizeof(buffer))) > 0;)
        text.append(buffer, static_cast<size_t>(n));
    close(out[0]);
    int status = 0;
    EXPECT_EQ(pid, Uninterrupted([&] { return waitpid(pid, &status, 0); }));
    RemoveTree(folder);
    if (WIFEXITED(status) && WEXITSTATUS(status) == kNoNamespace)
        GTEST_SKIP() << "no pid namespace here";
    EXPECT_EQ(0, status) << text;
}

int Rounds(int in_full, int quickly)
{
    return getenv("PM_TEST_FULL") != nullptr ? in_full : quickly;
}

TEST(Reuse, OfANumberNeverHitsAStranger)
{
    RunInANamespace("reuse-host", Rounds(500, 25));
}

TEST(Reuse, OfAGroupsNumberNeverHitsAStrangerWhereItIsSignalledByNumber)
{
    if (OnEmulator()) {
        GTEST_SKIP() << "an emulator has no filters";
    }
#ifdef PM_TEST_LIBKQUEUE
    GTEST_SKIP() << "libkqueue makes no kqueue in a forked copy";
#endif
    RunInANamespace("group-host", Rounds(100, 10));
}

} // namespace
#endif
