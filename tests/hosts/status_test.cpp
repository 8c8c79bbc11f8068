// Hosts on which the status of a process goes astray: SIGCHLD ignored, orphans that come to us,
// that nobody waits for, or that somebody waits for only after a while.
#include "host.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <filesystem>
#include <utility>

using namespace contract;
using namespace hosts;

namespace
{

// Also where memory is shared with nobody, a record never says more than what was.
bool IsTrueOrLost(const pm_exit &record, bool exact, pm_exit_kind kind, int number)
{
    if (record.kind == PM_EXIT_LOST) {
        return !exact;
    }
    return record.kind == kind &&
           (kind == PM_EXIT_EXITED ? static_cast<int>(record.code) : record.signal) == number;
}

int64_t NowMs()
{
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

bool IsZombie(uint64_t pid)
{
    return ReadFile("/proc/" + std::to_string(pid) + "/stat").find(") Z ") != std::string::npos;
}

int StartPayload(pm_manager *manager, const std::string &key, const std::string &file,
                 pm_process **ret_process)
{
    pm_error error = PM_ERROR_INIT;
    Child daemon({"payload", file});
    daemon->mode = PM_MODE_DAEMON;
    daemon->key = key.c_str();
    NEED(pm_spawn(manager, daemon.Get(), ret_process, &error) == PM_OK);
    NEED(Eventually([&] { return ReadFile(file).find('\n') != std::string::npos; }));
    return 0;
}

// ------------------------------------------------------------------------------------------------
// SIGCHLD
// ------------------------------------------------------------------------------------------------

// A daemon that was stopped is started again at once, though nobody knows its status yet. args:
// folder.
int AgainPart(const Args &a)
{
    pm_error error = PM_ERROR_INIT;
    std::string registry = a.at(0) + "/registry";
    pm_options options = OptionsFor(registry);
    pm_manager *manager = nullptr;
    pm_process *process = nullptr;
    pm_info info = PM_INFO_INIT;
    bool pending = false, told = false;
    options.status_pending_ms = 60000;
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    for (int round = 0; round < 2; round++) {
        if (StartPayload(manager, "d", a.at(0) + "/payload" + std::to_string(round), &process) !=
            0) {
            return 1;
        }
        NEED(pm_process_stop(process, nullptr, nullptr) == PM_OK);
        NEED(pm_process_info(process, &info) == PM_OK);
        pending |= info.state == PM_STATE_STATUS_PENDING;
        told |= KernelTells(process);
        pm_process_unref(process);
    }
    NEED(pm_forget(manager, "d") == PM_OK);
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    NEED(Children() == 0 && Records(registry) == 0);
    printf(pending || !told ? "" : "no status was pending\n");
    return 0;
}
const RoleAdder again_part("host-again", AgainPart);

// args: folder, "ignore" or "nocldwait" (which does not survive exec).
int SigchldPart(const Args &a)
{
    pm_error error = PM_ERROR_INIT;
    struct sigaction before = {}, after = {};
    if (a.at(1) == "nocldwait") {
        before.sa_handler = SIG_DFL;
        before.sa_flags = SA_NOCLDWAIT;
        sigaction(SIGCHLD, &before, nullptr);
    }
    sigaction(SIGCHLD, nullptr, &before);
    NEED(HostGetsNoStatuses());
    std::string registry = a.at(0) + "/registry";
    pm_options options = OptionsFor(registry);
    pm_manager *manager = nullptr;
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    pm_process *process = nullptr;
    pm_exit record = PM_EXIT_INIT;
    for (int code : {0, 1, 7, 42, 127, 128, 255}) {
        Child child({"exit", std::to_string(code)});
        NEED(pm_spawn(manager, child.Get(), &process, &error) == PM_OK);
        bool exact = KernelTells(process);
        NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
        NEED(IsTrueOrLost(record, exact, PM_EXIT_EXITED, code));
        pm_process_unref(process);
    }
    for (bool dies_with_us : {false, true}) {
        Child child({"linger"});
        child->stdout_slot.kind = PM_STDIO_NULL;
        child->die_with_parent = dies_with_us;
        NEED(pm_spawn(manager, child.Get(), &process, &error) == PM_OK);
        bool exact = KernelTells(process);
        NEED(pm_process_stop(process, nullptr, nullptr) == PM_OK);
        NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
        NEED(IsTrueOrLost(record, exact, PM_EXIT_SIGNALED, SIGTERM));
        pm_process_unref(process);
    }
    Child missing({"exit", "0"});
    std::string nowhere = a.at(0) + "/nowhere";
    missing->cwd = nowhere.c_str();
    NEED(pm_spawn(manager, missing.Get(), nullptr, &error) == PM_ERR_NOT_FOUND);
    NEED(error.stage == PM_STAGE_CHDIR);
    if (StartPayload(manager, "d", a.at(0) + "/payload", &process) != 0) {
        return 1;
    }
    NEED(pm_process_stop(process, nullptr, nullptr) == PM_OK);
    NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
    // Its parent is not us: it may wait, or be slow to.
    NEED(IsTrueOrLost(record, false, PM_EXIT_EXITED, 5));
    pm_process_unref(process);
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    NEED(Children() == 0);
    NEED(sigaction(SIGCHLD, nullptr, &after) == 0);
    NEED(after.sa_handler == before.sa_handler && after.sa_flags == before.sa_flags);
    return 0;
}
const RoleAdder sigchld_part("host-sigchld", SigchldPart);

// ------------------------------------------------------------------------------------------------
// Orphans that come to us
// ------------------------------------------------------------------------------------------------

// A daemon's own child outlives it, and comes to us: the host's, not the library's.
int OrphanOfADaemon(pm_manager *manager, const std::string &folder)
{
    pm_error error = PM_ERROR_INIT;
    pm_process *process = nullptr;
    std::string file = folder + "/tree";
    Child tree({"tree", "leave"});
    tree->mode = PM_MODE_DAEMON;
    tree->key = "tree";
    tree->stdout_slot.kind = PM_STDIO_FILE_TRUNCATE;
    tree->stdout_slot.path = file.c_str();
    NEED(pm_spawn(manager, tree.Get(), &process, &error) == PM_OK);
    pm_exit record = PM_EXIT_INIT;
    NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
    NEED(record.kind == PM_EXIT_EXITED && record.code == 0);
    pm_process_unref(process);
    pid_t orphan = std::stoi(ReadFile(file).substr(sizeof("grandchild ") - 1));
    siginfo_t info = {};
    kill(orphan, SIGKILL);
    NEED(Uninterrupted([&] {
             return waitid(P_PID, static_cast<id_t>(orphan), &info, WEXITED | WNOWAIT);
         }) == 0);
    uint64_t found = 99;
    NEED(pm_leak_scan(manager, &found) == PM_OK && found == 0);
    NEED(pm_leak_scan(manager, &found) == PM_OK && found == 0); // No leak, but told apart.
    struct pm_stats stats = PM_STATS_INIT;
    NEED(pm_stats(manager, &stats) == PM_OK && stats.orphans_total == 1 && stats.leaked_total == 0);
    int status = 0;
    NEED(waitpid(orphan, &status, WNOHANG) == orphan && WTERMSIG(status) == SIGKILL);
    return 0;
}

// args: folder, how many daemons, whether they come back to us.
int AdoptsPart(const Args &a)
{
    pm_error error = PM_ERROR_INIT;
    const int count = std::stoi(a.at(1));
    const bool ours = a.at(2) == "ours";
    std::string registry = a.at(0) + "/registry";
    pm_options options = OptionsFor(registry);
#ifdef PM_TEST_LAUNCHER_PATH
    options.launcher_path = PM_TEST_LAUNCHER_PATH; // It is small, and so quick to start.
#endif
    pm_manager *manager = nullptr;
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    std::vector<pm_process *> ended;
    struct pm_stats stats = PM_STATS_INIT;
    pm_exit record = PM_EXIT_INIT;
    for (int i = 0; i < count; i++) {
        pm_process *process = nullptr;
        pm_info info = PM_INFO_INIT;
        std::string key = std::to_string(i);
        Child daemon({});
        daemon.program = "/bin/sh";
        daemon.args = {"sh", "-c", i % 2 == 0 ? "exit " + std::to_string(i) : "exec sleep 60"};
        daemon->mode = PM_MODE_DAEMON;
        daemon->key = key.c_str();
        NEED(pm_spawn(manager, daemon.Get(), &process, &error) == PM_OK);
        NEED(pm_process_info(process, &info) == PM_OK);
        NEED(info.adopted == ours && info.detachment == PM_DETACH_LAUNCHER);
        if (i % 2 == 0) {
            NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
            NEED(IsTrueOrLost(record, ours, PM_EXIT_EXITED, i));
        }
        pm_process_unref(process);
    }
    NEED(pm_stats(manager, &stats) == PM_OK);
    NEED(stats.adopted == (ours ? static_cast<uint64_t>(count) : 0));
    NEED(stats.running_daemons == static_cast<uint64_t>(count / 2));
    NEED(pm_stop_daemons(manager, 20000, nullptr, nullptr, nullptr) == PM_OK);
    NEED(Eventually([&] {
        (void)pm_stats(manager, &stats);
        return stats.ended == static_cast<uint64_t>(count);
    }));
    NEED(!ours || stats.lost == 0);
    NEED(Children() == 0); // No zombie either.
    uint64_t found = 99;
    NEED(pm_leak_scan(manager, &found) == PM_OK && pm_leak_scan(manager, &found) == PM_OK);
    NEED(found == 0 && Records(registry) == 0);
    if (ours && OrphanOfADaemon(manager, a.at(0)) != 0) {
        return 1;
    }
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    return 0;
}
const RoleAdder adopts_part("host-adopts", AdoptsPart);

// Its own parent takes the status of each daemon at once: where the kernel tells us as well, every
// end is known. args: folder.
int EndsPart(const Args &a)
{
    pm_error error = PM_ERROR_INIT;
    std::string registry = a.at(0) + "/registry";
    pm_options options = OptionsFor(registry);
    options.status_pending_ms = 10000;
#ifdef PM_TEST_LAUNCHER_PATH
    options.launcher_path = PM_TEST_LAUNCHER_PATH;
#endif
    pm_manager *manager = nullptr;
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    const int signals[] = {SIGHUP,  SIGINT,  SIGQUIT, SIGILL,    SIGTRAP, SIGABRT, SIGBUS,
                           SIGFPE,  SIGKILL, SIGUSR1, SIGSEGV,   SIGUSR2, SIGPIPE, SIGALRM,
                           SIGTERM, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGSYS};
    std::vector<std::pair<pm_exit_kind, int>> ends;
    for (int code = 0, step = Times(1, 17); code < 256; code += step) {
        ends.push_back({PM_EXIT_EXITED, code});
    }
    for (int number : signals) {
        ends.push_back({PM_EXIT_SIGNALED, number});
    }
    for (const auto &[kind, number] : ends) {
        pm_process *process = nullptr;
        pm_exit record = PM_EXIT_INIT;
        Child daemon({kind == PM_EXIT_EXITED ? "exit" : "raise", std::to_string(number)});
        daemon->mode = PM_MODE_DAEMON;
        daemon->key = "d";
        NEED(pm_spawn(manager, daemon.Get(), &process, &error) == PM_OK);
        NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
        if (!IsTrueOrLost(record, KernelTells(process), kind, number)) {
            printf("%d %d: kind %d, code %u, signal %d\n", kind, number, record.kind, record.code,
                   record.signal);
            return 1;
        }
        pm_process_unref(process);
    }
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    return 0;
}
const RoleAdder ends_part("host-ends", EndsPart);

// ------------------------------------------------------------------------------------------------
// Orphans of somebody else
// ------------------------------------------------------------------------------------------------

// From the death of a daemon whose parent does not wait, to the end of patience with it.
int NeverTold(pm_process *process, bool told, int64_t pending_ms)
{
    pm_error error = PM_ERROR_INIT;
    pm_info info = PM_INFO_INIT;
    pm_exit record = PM_EXIT_INIT;
    pm_native waitable = -1;
    NEED(pm_process_exit_waitable(process, &waitable) == PM_OK);
    uint64_t pid = pm_process_pid(process);
    int64_t begin = NowMs();
    kill(static_cast<pid_t>(pid), SIGKILL);
    pollfd ready = {static_cast<int>(waitable), POLLIN, 0};
    NEED(Uninterrupted([&] { return poll(&ready, 1, static_cast<int>(Patience())); }) == 1);
    NEED(!pm_process_alive(process));
    NEED(pm_process_info(process, &info) == PM_OK && !info.alive);
    NEED(pm_process_wait(process, 0, &record) == (told ? PM_ERR_STATUS_PENDING : PM_OK));
    if (told) {
        NEED(pm_process_info(process, &info) == PM_OK && info.state == PM_STATE_STATUS_PENDING);
        NEED(NowMs() - begin < pending_ms);
    }
    NEED(IsZombie(pid));
    NEED(pm_process_signal(process, SIGKILL, PM_SCOPE_PROCESS) == PM_ERR_GONE);
    pm_stop_report stop = PM_STOP_REPORT_INIT;
    NEED(pm_process_stop(process, nullptr, &stop) == PM_OK && stop.already_ended);
    NEED(pm_process_wait(process, Patience(), &record) == PM_OK && record.kind == PM_EXIT_LOST);
    NEED(!told || NowMs() - begin >= pending_ms);
    NEED(IsZombie(pid));
    return 0;
}

// A manager that is killed between the two writes of an end leaves both records; the daemon is a
// zombie still.
int GivenStays(const std::string &folder, const pm_options &options)
{
    pm_error error = PM_ERROR_INIT;
    pm_manager *manager = nullptr;
    pm_process *process = nullptr;
    pm_exit given = PM_EXIT_INIT, again = PM_EXIT_INIT;
    const std::string registry = options.registry_dir, saved = folder + "/saved";
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    if (StartPayload(manager, "given", folder + "/payload-given", &process) != 0) {
        return 1;
    }
    const std::string record = RunningRecord(registry);
    std::filesystem::copy_file(record, saved);
    NEED(pm_process_stop(process, nullptr, nullptr) == PM_OK);
    NEED(pm_process_wait(process, Patience(), &given) == PM_OK && given.stop_step == 1);
    NEED(IsZombie(pm_process_pid(process)));
    pm_process_unref(process);
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    std::filesystem::copy_file(saved, record);
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    auto look = [](void *user, pm_process *found) {
        return pm_process_wait(found, 0, static_cast<pm_exit *>(user));
    };
    NEED(pm_recover(manager, look, &again, nullptr) == PM_OK);
    NEED(again.kind == given.kind && again.stop_step == given.stop_step);
    NEED(again.ended_wall_ms == given.ended_wall_ms && Records(registry) == 0);
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    return 0;
}

// args: folder.
int NeverPart(const Args &a)
{
    pm_error error = PM_ERROR_INIT;
    std::string registry = a.at(0) + "/registry";
    pm_options options = OptionsFor(registry);
    options.status_pending_ms = 700 * static_cast<uint32_t>(Slowness());
    pm_manager *manager = nullptr;
    pm_process *process = nullptr;
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    // A key is free again although the one before is a zombie for ever.
    for (int i = 0; i < 2; i++) {
        std::string file = a.at(0) + "/payload-" + std::to_string(i);
        if (StartPayload(manager, "d", file, &process) != 0 ||
            NeverTold(process, KernelTells(process), options.status_pending_ms) != 0) {
            return 1;
        }
        pm_process_unref(process);
    }
    struct pm_stats stats = PM_STATS_INIT;
    NEED(pm_stats(manager, &stats) == PM_OK && stats.ended == 2 && stats.lost == 2);
    // One that dies between two managers is no stranger and no living one.
    if (StartPayload(manager, "d", a.at(0) + "/payload-2", &process) != 0) {
        return 1;
    }
    uint64_t pid = pm_process_pid(process);
    pm_process_unref(process);
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    KillByNumber(pid);
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    struct pm_recover_report report = PM_RECOVER_REPORT_INIT;
    NEED(pm_recover(manager, nullptr, nullptr, &report) == PM_OK);
    NEED(report.ended == 1 && report.alive == 0 && report.unproven == 0);
    NEED(Eventually([&] {
        (void)pm_stats(manager, &stats);
        return stats.ended == 1 && stats.lost == 1;
    }));
    NEED(Records(registry) == 0);
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    return GivenStays(a.at(0), options);
}
const RoleAdder never_part("host-never", NeverPart);

// Two managers, one that has the patience for the host and one that has not. args: folder.
int LatePart(const Args &a)
{
    pm_error error = PM_ERROR_INIT;
    pm_manager *managers[2] = {};
    pm_process *processes[2] = {};
    pm_exit record = PM_EXIT_INIT;
    bool told = false;
    for (int i = 0; i < 2; i++) {
        std::string registry = a.at(0) + "/registry-" + std::to_string(i);
        pm_options options = OptionsFor(registry);
        options.status_pending_ms = i == 0 ? 60000 : 200;
        NEED(pm_open(&options, &managers[i], &error) == PM_OK);
        std::string file = a.at(0) + "/payload-" + std::to_string(i);
        if (StartPayload(managers[i], "d", file, &processes[i]) != 0) {
            return 1;
        }
        told = KernelTells(processes[i]);
        NEED(pm_process_stop(processes[i], nullptr, nullptr) == PM_OK);
        NEED(!pm_process_alive(processes[i]));
    }
    uint64_t pid = pm_process_pid(processes[0]);
    NEED(IsZombie(pid));
    NEED(pm_process_wait(processes[0], 0, &record) == (told ? PM_ERR_STATUS_PENDING : PM_OK));
    NEED(pm_process_wait(processes[1], Patience(), &record) == PM_OK);
    NEED(record.kind == PM_EXIT_LOST);
    NEED(pm_process_wait(processes[0], Patience(), &record) == PM_OK);
    if (told) {
        NEED(record.kind == PM_EXIT_EXITED && record.code == 5);
    }
    for (pm_process *process : processes) {
        std::string stat = "/proc/" + std::to_string(pm_process_pid(process)) + "/stat";
        NEED(Eventually([&] { return ReadFile(stat).empty(); }));
    }
    // Everybody could know it now, but what has been told is not taken back.
    NEED(pm_process_wait(processes[1], 0, &record) == PM_OK && record.kind == PM_EXIT_LOST);
    for (int i = 0; i < 2; i++) {
        pm_process_unref(processes[i]);
        NEED(pm_close(managers[i], -1, nullptr) == PM_OK);
    }
    return 0;
}
const RoleAdder late_part("host-late", LatePart);

// ------------------------------------------------------------------------------------------------
// The tests
// ------------------------------------------------------------------------------------------------

class StatusHosts : public Contract
{
};

TEST_F(StatusHosts, SigchldIgnoredLeavesTheTrueStatusOrNone)
{
    Play({"sigchld=ignore"}, {"host-sigchld", folder, "ignore"});
}

TEST_F(StatusHosts, NoCldWaitLeavesTheTrueStatusOrNone)
{
    Play({}, {"host-sigchld", folder, "nocldwait"});
}

TEST_F(StatusHosts, AsPid1DaemonsAreAdoptedAndCounted)
{
    Play({"pid1"}, {"host-adopts", folder, std::to_string(200 / Slowness()), "ours"});
}

TEST_F(StatusHosts, AsASubreaperDaemonsAreAdoptedAndCounted)
{
    Play({"subreaper=self"}, {"host-adopts", folder, "20", "ours"});
}

TEST_F(StatusHosts, UnderASubreaperThatWaitsNobodyIsAdopted)
{
    // The control of the two above.
    Play({"subreaper=reaps"}, {"host-adopts", folder, "20", "another's"});
}

TEST_F(StatusHosts, UnderASubreaperThatWaitsEveryEndOfADaemonIsReported)
{
    Play({"subreaper=reaps"}, {"host-ends", folder});
}

TEST_F(StatusHosts, UnderAParentThatNeverWaitsADeathIsKnownAtOnceAndItsStatusLost)
{
    Play({"subreaper=never"}, {"host-never", folder});
}

TEST_F(StatusHosts, UnderAParentThatWaitsLateTheStatusIsPendingAndThenKnown)
{
    Play({"subreaper=late"}, {"host-late", folder});
}

TEST_F(StatusHosts, ADaemonWhoseStatusIsPendingIsStartedAgain)
{
    Play({"subreaper=late"}, {"host-again", folder});
}

} // namespace
