// What a start must not do to its host. Where starts fork (no vfork-like clone), the copy has the
// host's buffers and handlers, and must leave them alone.
#include <cstdio>
#include <cstdlib>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fixture.h"

extern "C" int pmi_os_random(void *buffer, size_t size);

using namespace contract;

namespace
{

// Leaves a child in its session, but in no group of it that anybody knows, and ends with its input.
int Strayer(const std::vector<std::string> &)
{
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        alarm(300);
        for (;;)
            pause();
    }
    setpgid(child, child);
    printf("stray %d\n", static_cast<int>(child));
    fflush(stdout);
    char byte;
    while (Uninterrupted([&] { return read(0, &byte, 1); }) > 0) {
    }
    return 0;
}

const RoleAdder strayer("strayer", Strayer);

class Start : public Contract
{
};

TEST_F(Start, LeavesTheHostsBuffersAlone)
{
    if (OnValgrind()) {
        GTEST_SKIP() << "the child has a copy of our memory: the stage does not come back";
    }
    Open();
    std::string path = folder + "/buffer";
    FILE *buffer = fopen(path.c_str(), "w");
    ASSERT_NE(nullptr, buffer);
    fputs("once", buffer);
    for (int i = 0; i < 3; i++) {
        Child child({"exit", "0"});
        child.spec.cwd = "/nonexistent";
        pm_process *process = nullptr;
        pm_error error = PM_ERROR_INIT;
        EXPECT_EQ(PM_ERR_NOT_FOUND, pm_spawn(manager, child.Get(), &process, &error));
        EXPECT_EQ(PM_STAGE_CHDIR, error.stage);
        pm_process *good = nullptr;
        child.spec.cwd = nullptr;
        int code = 0;
        good = TrySpawn(child, &code);
        ASSERT_EQ(PM_OK, code);
        EXPECT_EQ(0u, Wait(good).code);
    }
    fclose(buffer);
    EXPECT_EQ("once", ReadFile(path));
}

// Nonces need no descriptor, and no /dev.
TEST_F(Start, RandomNumbersNeedNoDescriptor)
{
    rlimit limit = {};
    ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
    rlimit none = {0, limit.rlim_max};
    uint64_t numbers[2] = {};
    ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
    int result = pmi_os_random(numbers, sizeof numbers);
    ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
    EXPECT_EQ(PM_OK, result);
    EXPECT_NE(numbers[0], numbers[1]);
}

#ifdef __linux__

// Who left his group has to be looked for, and for that there is no descriptor when the leader
// ends.
TEST_F(Start, KillTreeOnExitIsKeptWhereThereIsNoDescriptorAtTheEnd)
{
    Open();
    Child child({"strayer"});
    child->new_session = child->kill_tree_on_exit = true;
    child->stdin_slot.kind = child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    uint64_t stray = NumberAfter(ReadLine(process), "stray ");
    ASSERT_LT(1u, stray);
    pm_native input = PM_NATIVE_INVALID;
    ASSERT_EQ(PM_OK, pm_stream_take(pm_process_stream(process, PM_STDIN), &input));
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    rlimit limit = {};
    ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
    rlimit few = {200, limit.rlim_max};
    ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &few));
    std::vector<int> all;
    for (int fd; (fd = fcntl(null, F_DUPFD_CLOEXEC, 0)) >= 0;)
        all.push_back(fd);
    // The end of its input leaves no number free.
    EXPECT_EQ(input, Uninterrupted([&] { return dup2(null, static_cast<int>(input)); }));
    int ended = pm_process_wait(process, Patience(), nullptr);
    ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
    all.insert(all.end(), {null, static_cast<int>(input)});
    for (int fd : all)
        close(fd);
    EXPECT_EQ(PM_OK, ended);
    if (!Eventually([&] { return !PidAlive(stray); })) {
        ADD_FAILURE() << "it lives on";
        KillByNumber(stray);
    }
}

// 0: there is none.
pid_t KeeperOfOurs()
{
    for (const auto &name : ListFolder("/proc")) {
        std::string stat = ReadFile("/proc/" + name + "/stat");
        size_t end = stat.rfind(')');
        if (stat.find("(pm-keeper)") != std::string::npos && end != std::string::npos &&
            std::stoi(stat.substr(end + 4)) == getpid())
            return std::stoi(name);
    }
    return 0;
}

TEST_F(Start, ThatIsHeldKeepsNoRunBeyondItsTimeout)
{
    if (OnValgrind()) {
        GTEST_SKIP() << "no thread of ours runs while a child has not exec'd";
    }
    Open();
    Child child({"exit", "0"});
    child->stdin_slot.kind = child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_DEFAULT;
    child->die_with_parent = true;
    pm_run_options options = PM_RUN_OPTIONS_INIT;
    pm_run_result result = PM_RUN_RESULT_INIT;
    options.spec = child.Get();
    ASSERT_EQ(PM_OK, pm_run(manager, &options, &result, nullptr)); // The keeper is there now.
    pm_run_result_clear(&result);
    pid_t keeper = KeeperOfOurs();
    ASSERT_LT(0, keeper);
    ASSERT_EQ(0, kill(keeper, SIGSTOP));
    EXPECT_TRUE(Eventually([&] {
        siginfo_t info = {};
        return waitid(P_PID, static_cast<id_t>(keeper), &info, WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
               info.si_pid == keeper;
    }));
    options.timeout_ms = 300;
    child->start_timeout_ms = static_cast<uint32_t>(2 * Patience()); // Longer than the run has.
    auto begin = std::chrono::steady_clock::now();
    EXPECT_EQ(PM_ERR_TIMEOUT, pm_run(manager, &options, &result, nullptr));
    EXPECT_GT(std::chrono::milliseconds(Patience()), std::chrono::steady_clock::now() - begin);
    EXPECT_TRUE(result.timed_out);
    EXPECT_STREQ("", result.output[0]);
    EXPECT_EQ(0, kill(keeper, SIGCONT));
    pm_run_result_clear(&result);
}

#endif

} // namespace
