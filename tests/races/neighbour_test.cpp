// A host whose other threads do what threads do, badly: descriptors that any exec would inherit,
// copies of the process, programs that were being written a moment ago.

#include "races.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <thread>
#include <utility>

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace contract;
using namespace races;

namespace
{

using Clock = std::chrono::steady_clock;

// The library tries a busy program again for a little longer than this.
const auto busy_patience = std::chrono::milliseconds(50);

// Something went on from then to then.
struct Span {
    Clock::time_point begin, end;
};

const int lookers = 8, allocators = 8;

// One manager and all its neighbours.
class Street
{
  public:
    Street(pm_manager *m, const std::string &dir, int count)
        : manager(m), folder(dir), rounds(count)
    {
    }

    // What went wrong, or "".
    std::string Live()
    {
        std::vector<std::thread> workers, neighbours;
        for (int i = 0; i < lookers; i++) {
            workers.emplace_back([this] { LookAtDescriptors(); });
        }
        workers.emplace_back([this] { WriteAndStart(); });
        neighbours.emplace_back([this] { OpenPipes(); });
        neighbours.emplace_back([this] { Fork(); });
        for (int i = 0; i < allocators; i++) {
            neighbours.emplace_back([this] { Allocate(); });
        }
        for (auto &worker : workers) {
            worker.join();
        }
        over = true;
        for (auto &neighbour : neighbours) {
            neighbour.join();
        }
        ExcuseBusyStarts();
        return complaints;
    }

  private:
    void Complain(int round, const std::string &what)
    {
        std::lock_guard<std::mutex> guard(lock);
        complaints += "round " + std::to_string(round) + ": " + what + "\n";
        failed = true;
    }

    // A copy of this process holds what is being written open until its own end or exec.
    void NoteCopy(const Span &copy)
    {
        std::lock_guard<std::mutex> guard(lock);
        if (copy.end - copy.begin >= busy_patience) {
            slow_copies.push_back(copy);
        }
    }

    // A start may fail that met a copy which lived for too long; every other one is a fault.
    void ExcuseBusyStarts()
    {
        for (const auto &[round, start] : busy_starts) {
            const Span &s = start;
            if (std::none_of(slow_copies.begin(), slow_copies.end(), [&](const Span &copy) {
                    return copy.begin <= s.end && copy.end >= s.begin;
                })) {
                Complain(round, "its program was busy");
            }
        }
    }

    static std::string ReadToEnd(pm_process *process)
    {
        std::string text;
        char buffer[4096];
        size_t count = 0;
        while (pm_stream_read(pm_process_stream(process, PM_STDOUT), buffer, sizeof buffer,
                              Patience(), &count) == PM_OK &&
               count > 0) {
            text.append(buffer, count);
        }
        return text;
    }

    // The numbers of "fds: 0=... 1=...".
    static std::set<std::string> Numbers(const std::string &line)
    {
        std::set<std::string> numbers;
        std::istringstream words(line);
        for (std::string word; words >> word;) {
            if (word != "fds:") {
                numbers.insert(word.substr(0, word.find('=')));
            }
        }
        return numbers;
    }

    void LookAtDescriptors()
    {
        for (int round; (round = looks++) < 2 * rounds && !failed;) {
            int file = open("/dev/zero", O_RDONLY | O_CLOEXEC);
            Child child({"fds"});
            child->stdout_slot.kind = PM_STDIO_PIPE;
            child.extras = {{file, 7}};
            pm_process *process = nullptr;
            pm_error error = PM_ERROR_INIT;
            const auto begin = Clock::now();
            const int code = pm_spawn(manager, child.Get(), &process, &error);
            NoteCopy({begin, Clock::now()});
            if (code != PM_OK) {
                Complain(round, ErrorText(error));
            } else {
                std::string line = ReadToEnd(process);
                if (Numbers(line) != std::set<std::string>{"0", "1", "2", "7"} ||
                    line.find("7=/dev/zero") == std::string::npos) {
                    Complain(round, "descriptors " + line);
                }
                ExpectCode(round, process, 0);
            }
            close(file);
        }
    }

    void ExpectCode(int round, pm_process *process, uint32_t code)
    {
        pm_exit record = PM_EXIT_INIT;
        int result = pm_process_wait(process, Patience(), &record);
        if (result != PM_OK || record.kind != PM_EXIT_EXITED || record.code != code) {
            Complain(round, std::string("wait: ") + pm_error_name(result) + ", kind " +
                                std::to_string(record.kind) + ", code " +
                                std::to_string(record.code) + ", signal " +
                                std::to_string(record.signal));
        }
        pm_process_unref(process);
    }

    // Now and then it stays open until a copy of this process surely has it.
    void WriteProgram(const std::string &path, const std::string &text, bool shared)
    {
        std::ofstream out(path, std::ios::binary | std::ios::trunc);
        out << text << std::flush;
        // The first fork from here on may have begun before.
        for (const int before = forks; shared && forks < before + 2;) {
            std::this_thread::yield();
        }
    }

    // Every second one is a script, the others are copies of a program.
    void WriteAndStart()
    {
        const std::string copy = ReadFile("/bin/true");
        for (int round = 0; round < rounds && !failed; round++) {
            bool script = round % 2 == 0;
            std::string path = folder + "/program-" + std::to_string(round);
            const auto begin = Clock::now();
            WriteProgram(path, script ? "#!/bin/sh\nexit 9\n" : copy, round % 10 < 2);
            chmod(path.c_str(), 0700);
            Child child({});
            child.program = path;
            child.args = {path};
            pm_process *process = nullptr;
            pm_error error = PM_ERROR_INIT;
            int code = pm_spawn(manager, child.Get(), &process, &error);
            if (code == PM_ERR_TEXT_BUSY) {
                busy_starts.push_back({round, {begin, Clock::now()}});
            } else if (code != PM_OK) {
                Complain(round, ErrorText(error));
            } else {
                ExpectCode(round, process, script ? 9 : 0);
            }
            unlink(path.c_str());
        }
    }

    void OpenPipes()
    {
        while (!over) {
            int ends[2];
            if (pipe(ends) == 0) {
                std::this_thread::yield();
                close(ends[0]);
                close(ends[1]);
            }
        }
    }

    void Fork()
    {
        while (!over) {
            const auto begin = Clock::now();
            pid_t pid = fork();
            if (pid == 0) {
                timespec pause = {0, 2000000};
                nanosleep(&pause, nullptr);
                _exit(0);
            }
            if (pid < 0) {
                continue; // No room for one more: waiting for -1 would take everybody's.
            }
            forks++;
            (void)Uninterrupted([&] { return waitpid(pid, nullptr, 0); });
            NoteCopy({begin, Clock::now()});
        }
    }

    // Somebody has a lock of the heap at most moments, and the processors are left to the others.
    // Whether a child asks for one is seen better in what it calls: tests/symbols.
    void Allocate()
    {
        for (size_t size = 1; !over; size = size * 7 % 1021) {
            void *volatile blocks[16];
            for (auto &block : blocks) {
                block = malloc(size);
            }
            for (auto &block : blocks) {
                free(block);
            }
            std::this_thread::sleep_for(std::chrono::microseconds(100));
        }
    }

    pm_manager *const manager;
    const std::string folder;
    const int rounds;
    std::mutex lock;
    std::string complaints;
    std::vector<Span> slow_copies;
    std::vector<std::pair<int, Span>> busy_starts; // By the round.
    std::atomic<bool> failed{false}, over{false};
    std::atomic<int> looks{0}, forks{0};
};

// From here on this process and its children have threads and fork(), but no other clone.
bool LeaveOnlyFork()
{
    const auto refuse = [](int error) {
        return sock_filter BPF_STMT(BPF_RET | BPF_K,
                                    SECCOMP_RET_ERRNO | static_cast<uint32_t>(error));
    };
    sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offsetof(seccomp_data, nr))),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(SYS_clone3), 0, 1),
        refuse(ENOSYS),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, static_cast<uint32_t>(SYS_clone), 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offsetof(seccomp_data, args[0]))),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, CLONE_VM | CLONE_THREAD),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CLONE_VM, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        refuse(EPERM),
    };
    sock_fprog program = {sizeof code / sizeof code[0], code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

// args: folder, rounds.
int ForkingHost(const std::vector<std::string> &args)
{
    pm_manager *manager = nullptr;
    if (!LeaveOnlyFork()) {
        printf("no filters here\n");
        return 0;
    }
    int code = pm_open(nullptr, &manager, nullptr);
    if (code != PM_OK) {
        printf("open: %s\n", pm_error_name(code));
        return 0;
    }
    std::string complaints;
    for (int left = atoi(args.at(1).c_str()); left > 0 && complaints.empty(); left -= 50) {
        complaints = Street(manager, args.at(0), std::min(left, 50)).Live();
        printf("part\n"); // Each has the patience of one read.
        fflush(stdout);
    }
    struct pm_stats stats = PM_STATS_INIT;
    pm_stats(manager, &stats);
    code = pm_close(manager, -1, nullptr);
    if (code != PM_OK || stats.fallbacks != stats.started || stats.started != stats.ended) {
        complaints += "close: " + std::string(pm_error_name(code)) + "; of " +
                      std::to_string(stats.started) + " starts " + std::to_string(stats.fallbacks) +
                      " by fork, " + std::to_string(stats.ended) + " ended\n";
    }
    if (stats.exec_retries == 0) {
        complaints += "no program was ever busy: the test proves nothing\n";
    }
    printf("%s", complaints.empty() ? "good\n" : complaints.c_str());
    return 0;
}
const RoleAdder forking_host("forking-host", ForkingHost);

// Its stdout goes elsewhere again and again while children are started that have it. What it was
// before must come to its end. args: rounds. The answer is the exit code: stdout is not our own.
int RedirectingHost(const std::vector<std::string> &args)
{
    pm_manager *manager = nullptr;
    if (pm_open(nullptr, &manager, nullptr) != PM_OK) {
        return 1;
    }
    std::atomic<bool> over{false};
    std::atomic<int> failed{0};
    std::thread starter([&] {
        while (!over) {
            Child child({"exit", "0"});
            child->stdin_slot.kind = PM_STDIO_NULL;
            child->stderr_slot.kind = PM_STDIO_STDOUT;
            pm_process *process = nullptr;
            failed += pm_spawn(manager, child.Get(), &process, nullptr) != PM_OK;
            if (process != nullptr) {
                failed += pm_process_wait(process, Patience(), nullptr) != PM_OK;
                pm_process_unref(process);
            }
        }
    });
    int held = 0;
    for (int i = 0; i < std::stoi(args.at(0)); i++) {
        int ends[2], null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        if (pipe2(ends, O_CLOEXEC) != 0) {
            return 1;
        }
        dup2(ends[1], 1);
        close(ends[1]);
        sched_yield();
        dup2(null, 1);
        close(null);
        struct pollfd in = {ends[0], POLLIN, 0};
        held += Uninterrupted([&] { return poll(&in, 1, static_cast<int>(Patience())); }) != 1;
        close(ends[0]);
    }
    over = true;
    starter.join();
    pm_close(manager, -1, nullptr);
    return held != 0 ? 3 : failed != 0 ? 4 : 0;
}
const RoleAdder redirecting_host("redirecting-host", RedirectingHost);

using Neighbours = Races;

TEST_F(Neighbours, ThatRedirectStdoutLeaveNoCopyOfTheOldOneBehind)
{
    Open();
    Child host({"redirecting-host", std::to_string(Rounds(20000, 5000))});
    EXPECT_EQ(0u, Wait(Spawn(host)).code);
}

TEST_F(Neighbours, DoNotReachIntoChildrenNorHinderThem)
{
    if (OnValgrind()) {
        GTEST_SKIP() << "a program does not survive a failed exec";
    }
    Open();
    EXPECT_EQ("", Street(manager, folder, Rounds(10000, 500)).Live());
    EXPECT_EQ(Stats().started, Stats().ended);
    EXPECT_GT(Stats().exec_retries, 0u) << "no program was ever busy: the test proves nothing";
    RecordProperty("exec_retries", static_cast<int>(Stats().exec_retries));
}

TEST_F(Neighbours, DoNotReachIntoForkedChildrenEither)
{
    Open();
    Child host({"forking-host", folder, std::to_string(Rounds(5000, 250))});
    host->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(host);
    std::string said;
    while ((said = ReadLine(process)) == "part") {
        continue;
    }
    if (said == "no filters here") {
        GTEST_SKIP() << "no seccomp filters here";
    }
    EXPECT_EQ("good", said) << ReadAll(process);
}

} // namespace
