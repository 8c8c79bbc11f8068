// Hosts on which system calls are denied: an old kernel (ENOSYS) or the filter of a container
// (EPERM). Everything has to go on working, and the statistics say that a fallback was used.

#include "fixture.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <map>

using namespace contract;

namespace
{

// Which calls can be denied. "waitid-pidfd" is waitid() of the pidfd kind alone.
const std::map<std::string, long> &Deniable()
{
    static const std::map<std::string, long> calls = {
        {"pidfd_open", SYS_pidfd_open}, {"pidfd_send_signal", SYS_pidfd_send_signal},
        {"clone3", SYS_clone3},         {"close_range", SYS_close_range},
        {"unshare", SYS_unshare},       {"waitid-pidfd", SYS_waitid},
    };
    return calls;
}

// From here on these calls of this process and all its children fail with `error`.
bool Deny(const std::vector<std::string> &names, int error)
{
    std::vector<sock_filter> code;
    const auto load = [](size_t offset) {
        return sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset));
    };
    const sock_filter refuse =
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<uint32_t>(error));
    for (const auto &name : names) {
        auto number = static_cast<uint32_t>(Deniable().at(name));
        code.push_back(load(offsetof(seccomp_data, nr)));
        if (name == "waitid-pidfd") {
            code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 3));
            code.push_back(load(offsetof(seccomp_data, args[0]))); // Low half: little-endian.
            code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 3 /* P_PIDFD */, 0, 1));
        } else {
            code.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1));
        }
        code.push_back(refuse);
    }
    code.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    sock_fprog program = {static_cast<unsigned short>(code.size()), code.data()};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("line %d: %s; %s\n", __LINE__, #condition, ErrorText(error).c_str());           \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

std::string ReadSome(pm_process *process)
{
    char text[4096];
    size_t count = 0;
    std::string all;
    while (pm_stream_read(pm_process_stream(process, PM_STDOUT), text, sizeof text, Patience(),
                          &count) == PM_OK &&
           count != 0) {
        all.append(text, count);
    }
    return all;
}

// What a host does with the library. args: folder, errno, calls that are denied.
int PoorHost(const std::vector<std::string> &a)
{
    pm_error error = PM_ERROR_INIT;
    NEED(Deny({a.begin() + 2, a.end()}, atoi(a.at(1).c_str())));
    for (int i = 0; i < 10; i++) { // Strangers, some below and some above what a child keeps.
        NEED(open("/dev/zero", O_RDONLY) >= 0);
    }
    std::string registry = a.at(0) + "/poor";
    pm_options options = PM_OPTIONS_INIT;
    options.registry_dir = registry.c_str();
    options.status_pending_ms = 10;
    pm_manager *manager = nullptr;
    pm_process *process = nullptr;
    pm_exit record = PM_EXIT_INIT;
    int opened = pm_open(&options, &manager, &error);
    pthread_t thread;
    if (pthread_create(
            &thread, nullptr, [](void *) -> void * { return nullptr; }, nullptr) != 0) {
        // The C library takes EPERM of clone3 for an answer: nobody has threads here.
        NEED(opened == PM_ERR_ACCESS);
        printf("good, no threads\n");
        return 0;
    }
    pthread_join(thread, nullptr);
    NEED(opened == PM_OK);
    for (int i = 0; i < 200; i++) {
        NEED(open("/dev/zero", O_RDONLY) >= 0);
    }

    // A child, twice: what is found out to be missing at the first start is known at the second.
    for (int i = 0; i < 2; i++) {
        Child child({"fds"});
        child->stdout_slot.kind = PM_STDIO_PIPE;
        child->stderr_slot.kind = PM_STDIO_STDOUT;
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        child.extras = {{null, 7}};
        NEED(pm_spawn(manager, child.Get(), &process, &error) == PM_OK);
        std::string said = ReadSome(process);
        NEED(said.find("zero") == std::string::npos);
        NEED(said.find(" 7=/dev/null") != std::string::npos);
        NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
        NEED(record.kind == PM_EXIT_EXITED && record.code == 0);
        pm_process_unref(process);
        close(null);
    }

    // A failed start, an ignored end, a stop, a child that dies with us.
    Child missing({"exit", "0"});
    std::string nowhere = a.at(0) + "/nowhere";
    missing->cwd = nowhere.c_str();
    NEED(pm_spawn(manager, missing.Get(), nullptr, &error) == PM_ERR_NOT_FOUND);
    NEED(error.stage == PM_STAGE_CHDIR);
    Child coded({"exit", "9"});
    NEED(pm_spawn(manager, coded.Get(), nullptr, &error) == PM_OK);
    Child deaf({"linger"});
    deaf->die_with_parent = true;
    deaf->stdout_slot.kind = PM_STDIO_NULL;
    NEED(pm_spawn(manager, deaf.Get(), &process, &error) == PM_OK);
    NEED(pm_process_alive(process));
    NEED(pm_process_stop(process, nullptr, nullptr) == PM_OK);
    NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
    NEED(record.kind == PM_EXIT_SIGNALED && record.signal == SIGTERM);
    pm_process_unref(process);

    // A daemon, found again by a second manager.
    std::string file = a.at(0) + "/payload";
    Child daemon({"payload", file});
    daemon->mode = PM_MODE_DAEMON;
    daemon->key = "d";
    NEED(pm_spawn(manager, daemon.Get(), &process, &error) == PM_OK);
    NEED(Eventually([&] { return ReadFile(file).find('\n') != std::string::npos; }));
    pm_process_unref(process);
    struct pm_stats stats = PM_STATS_INIT;
    NEED(Eventually([&] {
        (void)pm_stats(manager, &stats);
        return stats.ended == stats.started - 1;
    }));
    uint64_t leaked = 99;
    NEED(pm_leak_scan(manager, &leaked) == PM_OK && pm_leak_scan(manager, &leaked) == PM_OK);
    NEED(leaked == 0);
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    struct pm_recover_report report = PM_RECOVER_REPORT_INIT;
    NEED(pm_recover(manager, nullptr, nullptr, &report) == PM_OK);
    NEED(report.alive == 1);
    NEED(pm_stop_daemons(manager, 20000, nullptr, nullptr, nullptr) == PM_OK);
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    printf("good, %s\n", stats.fallbacks > 0 ? "with fallbacks" : "without fallbacks");
    return 0;
}

const RoleAdder poor_host("poor-host", PoorHost);

class PoorHosts : public Contract
{
  protected:
    std::string Run(const std::vector<std::string> &denied, int error)
    {
        std::vector<std::string> args = {"poor-host", folder, std::to_string(error)};
        args.insert(args.end(), denied.begin(), denied.end());
        Child child(args);
        child->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *process = Spawn(child);
        std::string said = ReadLine(process);
        Wait(process);
        RemoveTree(folder + "/poor");
        std::remove((folder + "/payload").c_str());
        return said;
    }

    void SetUp() override
    {
        Contract::SetUp();
        if (prctl(PR_GET_SECCOMP) < 0) {
            GTEST_SKIP() << "calls cannot be denied here";
        }
        Open();
    }
};

TEST_F(PoorHosts, WithoutAnyOneCallWork)
{
#ifdef PM_TEST_LIBKQUEUE
    GTEST_SKIP() << "libkqueue waits for ever for its thread where no thread can be started";
#endif
    // The control. Best effort: this build, or this kernel, has no pidfd to begin with. Or this
    // host denies it.
    Child child({"exit", "0"});
    pm_info info = PM_INFO_INIT;
    ASSERT_EQ(PM_OK, pm_process_info(Spawn(child), &info));
    int pidfd = static_cast<int>(syscall(SYS_pidfd_open, getpid(), 0));
    std::string control = Run({}, ENOSYS);
    if (OnValgrind()) { // We are; the other host is not.
        EXPECT_EQ(0u, control.find("good, ")) << control;
    } else {
        EXPECT_EQ(info.best_effort || pidfd < 0 || Stats().fallbacks > 0
                      ? "good, with fallbacks"
                      : "good, without fallbacks",
                  control);
    }
    close(pidfd);
    for (int error : {ENOSYS, EPERM}) {
        for (const auto &[name, number] : Deniable()) {
            std::string said = Run({name}, error);
            EXPECT_EQ(0u, said.find("good, ")) << name << ", " << strerror(error) << ": " << said;
        }
    }
}

TEST_F(PoorHosts, WithoutAllOfThemWork)
{
    std::vector<std::string> all;
    for (const auto &[name, number] : Deniable()) {
        all.push_back(name);
    }
    EXPECT_EQ("good, with fallbacks", Run(all, ENOSYS));
    all.erase(std::find(all.begin(), all.end(), "clone3")); // See PoorHost.
    EXPECT_EQ("good, with fallbacks", Run(all, EPERM));
}

} // namespace
