// What a start must not do to its host. Where starts fork (no vfork-like clone), the copy has the
// host's buffers and handlers, and must leave them alone.
#include <cstdio>
#include <cstdlib>

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fixture.h"

extern "C" int pmi_os_random(void *buffer, size_t size);

using namespace contract;

namespace
{

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
