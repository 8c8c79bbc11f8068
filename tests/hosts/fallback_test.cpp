// Hosts on which calls are denied: what is missing is told by the Handle and by the counters.
#include "host.h"

#include <pthread.h>

#include <cstring>

using namespace contract;
using namespace hosts;

namespace
{

struct Told {
    bool child, daemon; // pm_info::best_effort
    uint64_t fallbacks;
};

int StartBoth(pm_manager *manager, const std::string &folder, Told *told)
{
    pm_error error = PM_ERROR_INIT;
    pm_process *process = nullptr;
    pm_info info = PM_INFO_INIT;
    pm_exit record = PM_EXIT_INIT;
    Child child({"exit", "9"});
    NEED(pm_spawn(manager, child.Get(), &process, &error) == PM_OK);
    NEED(pm_process_info(process, &info) == PM_OK);
    told->child = info.best_effort;
    NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
    NEED(record.kind == PM_EXIT_EXITED && record.code == 9);
    pm_process_unref(process);

    std::string file = folder + "/payload";
    Child daemon({"payload", file});
    daemon->mode = PM_MODE_DAEMON;
    daemon->key = "d";
    NEED(pm_spawn(manager, daemon.Get(), &process, &error) == PM_OK);
    NEED(Eventually([&] { return ReadFile(file).find('\n') != std::string::npos; }));
    NEED(pm_process_info(process, &info) == PM_OK);
    told->daemon = info.best_effort;
    NEED(pm_process_stop(process, nullptr, nullptr) == PM_OK);
    NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
    pm_process_unref(process);
    struct pm_stats stats = PM_STATS_INIT;
    NEED(pm_stats(manager, &stats) == PM_OK);
    told->fallbacks = stats.fallbacks;
    return 0;
}

// Says what it was told. args: folder.
int FallbacksPart(const Args &a)
{
    pm_error error = PM_ERROR_INIT;
    std::string registry = a.at(0) + "/registry";
    pm_options options = OptionsFor(registry);
    pm_manager *manager = nullptr;
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    Told told = {};
    if (StartBoth(manager, a.at(0), &told) != 0) {
        return 1;
    }
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    printf("child %d daemon %d fallbacks %d\n", told.child, told.daemon,
           static_cast<int>(told.fallbacks));
    return 0;
}
const RoleAdder fallbacks_part("host-fallbacks", FallbacksPart);

// The C library takes EPERM of clone3 for the answer: no thread can be started. args: folder.
int NoThreadsPart(const Args &a)
{
    pm_error error = PM_ERROR_INIT;
    pthread_t thread;
    bool threads = pthread_create(
                       &thread, nullptr, [](void *) -> void * { return nullptr; }, nullptr) == 0;
    if (threads) {
        pthread_join(thread, nullptr);
    }
    std::string registry = a.at(0) + "/registry";
    pm_options options = OptionsFor(registry);
    pm_manager *manager = nullptr;
    size_t descriptors = OpenDescriptors();
    int code = pm_open(&options, &manager, &error);
    NEED(code == (threads ? PM_OK : PM_ERR_ACCESS));
    NEED(threads || error.stage == PM_STAGE_WATCH);
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    NEED(OpenDescriptors() == descriptors);

    // The caller's own loop needs none, where there are pidfds.
    options.loop = PM_LOOP_CALLER;
    manager = nullptr;
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    Told told = {};
    Child probe({"exit", "0"});
    code = pm_spawn(manager, probe.Get(), nullptr, &error);
    NEED(code == PM_OK || (error.code == PM_ERR_ACCESS && error.stage == PM_STAGE_WATCH));
    if (code == PM_OK && StartBoth(manager, a.at(0), &told) != 0) {
        return 1;
    }
    Child dying({"linger"});
    dying->die_with_parent = true;
    dying->stdout_slot.kind = PM_STDIO_NULL;
    pm_process *process = nullptr;
    code = pm_spawn(manager, dying.Get(), &process, &error);
    NEED(code == PM_OK || error.code == PM_ERR_ACCESS);
    pm_process_unref(process);
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    NEED(Children() == 0 && OpenDescriptors() == descriptors);
    return 0;
}
const RoleAdder no_threads_part("host-no-threads", NoThreadsPart);

// A kernel of which nobody knows whether it will ever tell a status (6.13 and 6.14 say so for good,
// later ones for a moment), and nobody else tells either: nothing waits for ever. args: folder.
int UntoldPart(const Args &a)
{
    pm_error error = PM_ERROR_INIT;
    std::string registry = a.at(0) + "/registry", file = a.at(0) + "/payload";
    pm_options options = OptionsFor(registry);
    pm_manager *manager = nullptr;
    pm_process *process = nullptr;
    pm_exit record = PM_EXIT_INIT;
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    for (bool dies_with_us : {false, true}) {
        Child child({"exit", "9"});
        child->die_with_parent = dies_with_us;
        NEED(pm_spawn(manager, child.Get(), &process, &error) == PM_OK);
        NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
        NEED(record.kind == PM_EXIT_LOST);
        pm_process_unref(process);
    }
    Child daemon({"payload", file});
    daemon->mode = PM_MODE_DAEMON;
    daemon->key = "d";
    daemon->start_timeout_ms = 5000;
    NEED(pm_spawn(manager, daemon.Get(), &process, &error) == PM_OK);
    NEED(Eventually([&] { return ReadFile(file).find('\n') != std::string::npos; }));
    NEED(pm_process_stop(process, nullptr, nullptr) == PM_OK);
    NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
    pm_process_unref(process);
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    NEED(Children() == 0);
    return 0;
}
const RoleAdder untold_part("host-untold", UntoldPart);

class FallbackHosts : public Contract
{
  protected:
    std::string Tell(const Args &conditions)
    {
        std::string said;
        Stage stage(conditions, {"host-fallbacks", folder});
        int code = stage.End(&said);
        RemoveTree(folder + "/registry");
        std::remove((folder + "/payload").c_str());
        return code == kNoSuchHost ? "no such host" : said;
    }
};

TEST_F(FallbackHosts, TellWhichFallbackWasUsed)
{
    // The control.
    std::string full = Tell({});
    if (full != "child 0 daemon 0 fallbacks 0\n") {
        EXPECT_EQ("child 1 daemon 1 fallbacks 2\n", full);
        GTEST_SKIP() << "this build, or this kernel, has no pidfd to begin with";
    }
    if (Tell({"deny="}) == "no such host") {
        GTEST_SKIP() << "calls cannot be denied here";
    }
    const struct {
        const char *denied, *told;
    } hosts[] = {
        // A child's pidfd comes from its birth, a daemon's from its number.
        {"pidfd_open", "child 0 daemon 1 fallbacks 1\n"},
        // Forked; the pidfd from the number then.
        {"clone-vm", "child 0 daemon 0 fallbacks 2\n"},
        {"clone-vm,pidfd_open", "child 1 daemon 1 fallbacks 2\n"},
        // These cost speed, or are made up for by the process's lock, and pin nothing less.
        {"pidfd_send_signal", "child 0 daemon 0 fallbacks 0\n"},
        {"close_range", "child 0 daemon 0 fallbacks 0\n"},
        {"waitid-pidfd", "child 0 daemon 0 fallbacks 0\n"},
        {"unshare", "child 0 daemon 0 fallbacks 0\n"},
    };
    for (const char *error : {":ENOSYS", ":EPERM"}) {
        for (const auto &host : hosts) {
            EXPECT_EQ(host.told, Tell({std::string("deny=") + host.denied + error}))
                << host.denied << error;
        }
    }
    EXPECT_EQ("child 0 daemon 0 fallbacks 0\n", Tell({"deny=clone3"}));
}

TEST_F(FallbackHosts, WithStatusesThatNobodyTellsWaitForNone)
{
    for (const char *error : {":ENOSYS", ":ESRCH"}) {
        if (!IsSkipped()) {
            RemoveTree(folder + "/registry");
            std::remove((folder + "/payload").c_str());
            Play({"sigchld=ignore", std::string("deny=pidfd-status") + error},
                 {"host-untold", folder});
        }
    }
}

TEST_F(FallbackHosts, WithoutThreadsWorkInTheCallersLoop)
{
#ifdef PM_TEST_LIBKQUEUE
    GTEST_SKIP() << "libkqueue waits for ever for its thread where no thread can be started";
#endif
    Play({"deny=clone3:EPERM"}, {"host-no-threads", folder});
}

} // namespace
