// Hosts on which calls are denied: what is missing is told by the Handle and by the counters.
#include "host.h"

#include <pthread.h>

#include <cstring>

using namespace contract;
using namespace hosts;

namespace
{

struct Told {
    uint32_t child, daemon, all; // pm_info::fallbacks after the end, pm_stats::fallback_kinds
    uint64_t count;              // pm_stats::fallbacks
};

constexpr uint32_t kEffort = PM_FALLBACK_BEST_EFFORT, kFork = PM_FALLBACK_FORK,
                   kVfork = PM_FALLBACK_VFORK, kTable = PM_FALLBACK_COPIED_TABLE,
                   kNumber = PM_FALLBACK_SIGNAL_BY_NUMBER;

std::string Names(uint32_t kinds)
{
    const struct {
        uint32_t kind;
        const char *name;
    } all[] = {{kEffort, "effort"}, {kFork, "fork"},     {kVfork, "vfork"},
               {kTable, "table"},   {kNumber, "number"}, {PM_FALLBACK_LATE_JOB, "job"}};
    std::string names;
    for (const auto &one : all) {
        names += (kinds & one.kind) != 0 ? std::string(names.empty() ? "" : "+") + one.name : "";
    }
    return names.empty() ? "none" : names;
}

std::string Line(uint32_t child, uint32_t daemon, int count)
{
    return "child " + Names(child) + " daemon " + Names(daemon) + " count " +
           std::to_string(count) + "\n";
}

int StartBoth(pm_manager *manager, const std::string &folder, Told *told)
{
    pm_error error = PM_ERROR_INIT;
    pm_process *process = nullptr;
    pm_info info = PM_INFO_INIT;
    pm_exit record = PM_EXIT_INIT;
    Child child({"exit", "9"});
    NEED(pm_spawn(manager, child.Get(), &process, &error) == PM_OK);
    NEED(pm_process_info(process, &info) == PM_OK);
    NEED(info.best_effort == ((info.fallbacks & PM_FALLBACK_BEST_EFFORT) != 0));
    NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
    NEED(record.kind == PM_EXIT_EXITED && record.code == 9);
    told->child = info.fallbacks;
    pm_process_unref(process);

    std::string file = folder + "/payload";
    Child daemon({"payload", file});
    daemon->mode = PM_MODE_DAEMON;
    daemon->key = "d";
    NEED(pm_spawn(manager, daemon.Get(), &process, &error) == PM_OK);
    NEED(Eventually([&] { return ReadFile(file).find('\n') != std::string::npos; }));
    NEED(pm_process_info(process, &info) == PM_OK);
    NEED(info.best_effort == ((info.fallbacks & PM_FALLBACK_BEST_EFFORT) != 0));
    NEED(pm_process_signal(process, SIGTERM, PM_SCOPE_PROCESS) == PM_OK);
    NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
    NEED(pm_process_info(process, &info) == PM_OK);
    told->daemon = info.fallbacks;
    pm_process_unref(process);
    struct pm_stats stats = PM_STATS_INIT;
    NEED(pm_stats(manager, &stats) == PM_OK);
    told->count = stats.fallbacks;
    told->all = stats.fallback_kinds;
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
    NEED(told.all == (told.child | told.daemon));
    printf("%s", Line(told.child, told.daemon, static_cast<int>(told.count)).c_str());
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
    const std::string full = Tell({});
    if (full.find("effort") != std::string::npos) {
        EXPECT_NE(std::string::npos, full.find("child effort")) << full;
        EXPECT_NE(std::string::npos, full.find("daemon effort")) << full;
        EXPECT_NE(std::string::npos, full.find("number count 2\n")) << full;
        GTEST_SKIP() << "this build, or this kernel, has no pidfd to begin with";
    }
    // A kernel before 6.11 copies tables to begin with.
    const uint32_t always = full.find("table") != std::string::npos ? kTable : 0;
    EXPECT_EQ(Line(always, always, 0), full);
    if (Tell({"deny="}) == "no such host") {
        GTEST_SKIP() << "calls cannot be denied here";
    }
    const struct {
        const char *denied;
        uint32_t child, daemon;
        int count;
    } hosts[] = {
        // A child's pidfd comes from its birth, a daemon's from its number.
        {"pidfd_open", always, always | kEffort | kNumber, 1},
        // Forked; the pidfd from the number then.
        {"clone-vm", kFork, kFork, 2},
        {"clone-vm,pidfd_open", kEffort | kFork, kEffort | kFork | kNumber, 2},
        {"pidfd_send_signal", always, always | kNumber, 0},
        {"close_range", kTable, kTable, 0},
        // Nothing is poorer without it, and the last is not called.
        {"waitid-pidfd", always, always, 0},
        {"unshare", always, always, 0},
    };
    for (const char *error : {":ENOSYS", ":EPERM"}) {
        for (const auto &host : hosts) {
            EXPECT_EQ(Line(host.child, host.daemon, host.count),
                      Tell({std::string("deny=") + host.denied + error}))
                << host.denied << error;
        }
    }
    EXPECT_EQ(Line(kVfork | kTable, kVfork | kTable, 0), Tell({"deny=clone3"}));
    // All at once; EPERM of clone3 leaves a program without threads.
    const std::string most = "deny=pidfd_open,pidfd_send_signal,close_range,unshare,waitid-pidfd";
    const std::string forked = Line(kEffort | kFork, kEffort | kFork | kNumber, 2);
    EXPECT_EQ(forked, Tell({most + ",clone-vm,clone3"}));
    EXPECT_EQ(forked, Tell({most + ",clone-vm:EPERM"}));
    EXPECT_EQ(Line(kVfork | kTable, kEffort | kVfork | kTable | kNumber, 1),
              Tell({most + ",clone3"}));
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
