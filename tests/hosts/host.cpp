#include "host.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <sstream>

#include "pmi_config.h"

using namespace contract;

namespace hosts
{

Stage::Stage(const Args &conditions, const Args &part)
{
    Args words;
    for (const auto &condition : conditions) {
        words.insert(words.end(), {PM_TEST_HOST_PATH, condition});
    }
    words.insert(words.end(), {SelfPath(), "--role"});
    words.insert(words.end(), part.begin(), part.end());
    std::vector<char *> argv;
    for (auto &word : words) {
        argv.push_back(&word[0]);
    }
    argv.push_back(nullptr);
    int input[2], output[2];
    EXPECT_EQ(0, pipe2(input, O_CLOEXEC));
    EXPECT_EQ(0, pipe2(output, O_CLOEXEC));
    pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        dup2(input[0], 0);
        dup2(output[1], 1);
        // LeakSanitizer gives up in a pid namespace of its own. The variable goes to programs under
        // other sanitizers, too: harmless.
        for (const auto &condition : conditions) {
            if (condition.rfind("pid1", 0) == 0 || condition == "nested") {
                setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
            }
        }
        // In the fault build: the storm over us goes over the part, too, which holds the library.
        if (getenv("PM_FAULT_STORM") != nullptr) {
            setenv("PM_FAULT_STORM", "2", 1);
        }
        execv(argv[0], argv.data());
        _exit(126);
    }
    close(input[0]);
    close(output[1]);
    in = input[1];
    out = output[0];
}

Stage::~Stage()
{
    if (pid > 0) {
        kill(pid, SIGKILL);
        Uninterrupted([&] { return waitpid(pid, nullptr, 0); });
    }
    close(in);
    close(out);
}

// False: it says nothing more.
bool Stage::ReadByte(char *byte)
{
    pollfd ready = {out, POLLIN, 0};
    if (Uninterrupted([&] { return poll(&ready, 1, static_cast<int>(2 * Patience())); }) != 1) {
        ADD_FAILURE() << "silence";
        return false;
    }
    return Uninterrupted([&] { return read(out, byte, 1); }) == 1;
}

std::string Stage::ReadLine()
{
    std::string line;
    for (char byte; ReadByte(&byte) && byte != '\n';) {
        line += byte;
    }
    return line;
}

void Stage::Say(char byte)
{
    // It may be gone, and that must not end us.
    struct sigaction ignore = {}, before = {};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGPIPE, &ignore, &before);
    EXPECT_EQ(1, write(in, &byte, 1));
    sigaction(SIGPIPE, &before, nullptr);
}

int Stage::End(std::string *ret_said)
{
    for (char byte; ReadByte(&byte);) {
        *ret_said += byte;
    }
    int status = 0;
    if (testing::Test::HasFailure()) {
        kill(pid, SIGKILL);
    }
    EXPECT_EQ(pid, Uninterrupted([&] { return waitpid(pid, &status, 0); }));
    pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

void Play(const Args &conditions, const Args &part)
{
    std::string said, where;
    for (const auto &condition : conditions) {
        where += condition + " ";
    }
    Stage stage(conditions, part);
    int code = stage.End(&said);
    if (code == kNoSuchHost) {
        GTEST_SKIP() << where << "cannot be had here";
    }
    EXPECT_EQ(0, code) << where;
    EXPECT_EQ("", said) << where;
}

std::string StrangeUser()
{
    return std::to_string(1000000 + getpid());
}

size_t OpenDescriptors()
{
#if defined HAVE_KQUEUE && !defined PM_TEST_LIBKQUEUE
    // The stand-in keeps one descriptor from its first kqueue on.
    static const int first = [] {
        pm_options options = PM_OPTIONS_INIT;
        pm_manager *manager = nullptr;
        return pm_open(&options, &manager, nullptr) == PM_OK ? pm_close(manager, -1, nullptr) : -1;
    }();
    (void)first;
#endif
    size_t count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

size_t Children()
{
    size_t count = 0;
    for (const auto &thread : ListFolder("/proc/self/task")) {
        std::istringstream children(ReadFile("/proc/self/task/" + thread + "/children"));
        for (std::string pid; children >> pid;) {
            count += ReadFile("/proc/" + pid + "/comm") != "pm-keeper\n";
        }
    }
    return count;
}

std::string RunningRecord(const std::string &registry)
{
    for (const auto &name : ListFolder(registry)) {
        for (const auto &record : ListFolder(registry + "/" + name)) {
            if (name.rfind("boot-", 0) == 0) {
                return registry + "/" + name + "/" + record;
            }
        }
    }
    return "";
}

size_t Records(const std::string &registry)
{
    size_t count = 0;
    for (const auto &name : ListFolder(registry)) {
        if (name.rfind("boot-", 0) == 0) {
            count += ListFolder(registry + "/" + name).size();
        }
    }
    return count;
}

size_t Running(const std::string &text)
{
    size_t count = 0;
    for (const auto &name : ListFolder("/proc")) {
        if (name.find_first_not_of("0123456789") == std::string::npos &&
            name != std::to_string(getpid()) &&
            ReadFile("/proc/" + name + "/cmdline").find(text) != std::string::npos) {
            count += PidAlive(std::stoull(name));
        }
    }
    return count;
}

pm_options OptionsFor(const std::string &registry)
{
    pm_options options = PM_OPTIONS_INIT;
    options.registry_dir = registry.c_str();
    options.status_pending_ms = 10;
    return options;
}

} // namespace hosts
