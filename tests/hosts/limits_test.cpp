// Hosts with tight limits: on descriptors, on processes, and with a umask that takes everything. A
// start works or fails by name; either way nothing is left, and the next one works when there is
// room again.
#include "host.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstring>

using namespace contract;
using namespace hosts;

namespace
{

// The kinds of starts that need most.
enum class Kind {
    normal, // With three pipes.
    dying,  // With its parent.
    daemon,
    open // The manager itself.
};

constexpr Kind kKinds[] = {Kind::normal, Kind::dying, Kind::daemon, Kind::open};

const char *NameOf(Kind kind)
{
    const char *const names[] = {"normal", "dying", "daemon", "open"};
    return names[static_cast<int>(kind)];
}

// A try of one kind on a manager; where it succeeds it is undone.
int Try(pm_manager *manager, Kind kind, const std::string &folder, pm_error *error)
{
    if (kind == Kind::open) {
        std::string registry = folder + "/another";
        pm_options options = OptionsFor(registry);
        pm_manager *another = nullptr;
        int code = pm_open(&options, &another, error);
        return code == PM_OK ? pm_close(another, -1, nullptr) : code;
    }
    pm_process *process = nullptr;
    Child child({"cat", folder + "/mark"});
    child->stdin_slot.kind = child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_PIPE;
    child->die_with_parent = kind == Kind::dying;
    if (kind == Kind::daemon) {
        child.args = {child.program, "--role", "linger", folder + "/mark"};
        child->stdin_slot.kind = child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_NULL;
        child->mode = PM_MODE_DAEMON;
        child->key = "d";
    }
    int code = pm_spawn(manager, child.Get(), &process, error);
    if (code == PM_OK) {
        pm_stop_plan plan = {1, {{PM_STOP_KILL, PM_SCOPE_TREE, 10000}}};
        code = pm_process_stop(process, &plan, nullptr);
        if (code == PM_OK) {
            code = pm_process_wait(process, Patience(), nullptr);
        }
        pm_process_unref(process);
    }
    return code;
}

// The third and later descriptors of a keeper, too, are gone with its manager.
int NothingIsLeft(const std::string &folder, size_t descriptors)
{
    pm_error error = PM_ERROR_INIT;
    siginfo_t info = {};
    NEED(Eventually([&] { return OpenDescriptors() == descriptors; })); // Threads close theirs.
    NEED(Children() == 0);
    NEED(Eventually([&] { return Running(folder + "/mark") == 0; }));
    NEED(Records(folder + "/registry") == 0 && Records(folder + "/another") == 0);
    NEED(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0);
    return 0;
}

// ------------------------------------------------------------------------------------------------
// A few free descriptors
// ------------------------------------------------------------------------------------------------

// Takes all descriptors but `free`: the lowest ones stay free, or the highest ones.
std::vector<int> TakeAllBut(size_t free, bool low)
{
    std::vector<int> taken;
    for (int fd; (fd = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0;) {
        taken.push_back(fd);
    }
    if (!low) {
        std::reverse(taken.begin(), taken.end());
    }
    for (size_t i = 0; i < free && i < taken.size(); i++) {
        close(taken[i]);
    }
    taken.erase(taken.begin(), taken.begin() + static_cast<long>(std::min(free, taken.size())));
    return taken;
}

int TryWithFree(Kind kind, size_t free, bool low, const std::string &folder, int *ret_code)
{
    pm_error error = PM_ERROR_INIT;
    const size_t before = OpenDescriptors();
    std::string registry = folder + "/registry";
    pm_options options = OptionsFor(registry);
    pm_manager *manager = nullptr;
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    size_t with_manager = OpenDescriptors();
    std::vector<int> taken = TakeAllBut(free, low);
    size_t with_taken = OpenDescriptors();
    *ret_code = Try(manager, kind, folder, &error);
    // The number of our own program stays for the next one, and the keeper: its socket, and what
    // wakes a thread that waits for it.
    const size_t kept = kind == Kind::dying ? 4 : 0;
    const bool given_back = Eventually([&] { return OpenDescriptors() <= with_taken + kept; });
    for (int fd : taken) {
        close(fd);
    }
    NEED(*ret_code == PM_OK || (*ret_code == PM_ERR_NO_DESCRIPTORS && error.code == *ret_code));
    NEED(*ret_code == PM_OK || kind == Kind::open || error.stage != PM_STAGE_NONE);
    NEED(given_back);
    NEED(Eventually([] { return Children() == 0; }) && Records(registry) == 0);
    NEED(Eventually([&] { return OpenDescriptors() <= with_manager + kept; }));
    // With room the same manager works.
    pm_error second = PM_ERROR_INIT;
    error = second;
    NEED(Try(manager, kind, folder, &error) == PM_OK);
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    return NothingIsLeft(folder, before);
}

// args: folder.
int FreeDescriptorsPart(const Args &a)
{
    pm_error error = PM_ERROR_INIT;
    rlimit limit = {};
    NEED(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = 128;
    NEED(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    for (Kind kind : kKinds) {
        size_t failed = 0, worked = 0;
        for (size_t free = 0; free <= 24; free++) {
            for (bool low : {false, true}) {
                int code = PM_OK;
                if (TryWithFree(kind, free, low, a.at(0), &code) != 0) {
                    printf("%s with %d %s free\n", NameOf(kind), static_cast<int>(free),
                           low ? "low" : "high");
                    return 1;
                }
                failed += code != PM_OK;
                worked += code == PM_OK;
            }
        }
        // Else it proves nothing.
        NEED(failed > 0 && worked > 0);
    }
    return 0;
}
const RoleAdder free_descriptors_part("host-free-descriptors", FreeDescriptorsPart);

// ------------------------------------------------------------------------------------------------
// A limit below what is open
// ------------------------------------------------------------------------------------------------

// args: folder.
int LoweredLimitPart(const Args &a)
{
    pm_error error = PM_ERROR_INIT;
    rlimit limit = {};
    NEED(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    // The control: these are there, and would be inherited.
    int strangers = 0;
    for (int fd = static_cast<int>(limit.rlim_cur); fd < 1024; fd++) {
        char path[64] = "";
        std::string link = "/proc/self/fd/" + std::to_string(fd);
        strangers += readlink(link.c_str(), path, sizeof(path) - 1) > 0 &&
                     strcmp(path, "/dev/zero") == 0 && (fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0;
    }
    NEED(strangers == 20);
    std::string registry = a.at(0) + "/registry";
    pm_options options = OptionsFor(registry);
    pm_manager *manager = nullptr;
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (Kind kind : {Kind::normal, Kind::dying, Kind::daemon}) {
        std::string file = a.at(0) + "/said";
        Child child({"fds"});
        child->stdout_slot.kind = PM_STDIO_FILE_TRUNCATE;
        child->stdout_slot.path = file.c_str();
        child->stderr_slot.kind = PM_STDIO_NULL;
        child->die_with_parent = kind == Kind::dying;
        child->mode = kind == Kind::daemon ? PM_MODE_DAEMON : PM_MODE_NORMAL;
        child->key = kind == Kind::daemon ? "d" : nullptr;
        child.extras = {{null, 7}};
        pm_process *process = nullptr;
        NEED(pm_spawn(manager, child.Get(), &process, &error) == PM_OK);
        NEED(pm_process_wait(process, Patience(), nullptr) == PM_OK);
        pm_process_unref(process);
        NEED(ReadFile(file) == "fds: 0=/dev/null 1=" + file + " 2=/dev/null 7=/dev/null\n");
        // A target that the limit does not allow.
        child.extras = {{null, static_cast<int>(limit.rlim_cur) + 1}};
        NEED(pm_spawn(manager, child.Get(), nullptr, &error) == PM_ERR_INVALID);
        NEED(error.stage == PM_STAGE_CHECK && std::string("extras") == error.field);
    }
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    NEED(Children() == 0 && Records(registry) == 0);
    return 0;
}
const RoleAdder lowered_limit_part("host-lowered-limit", LoweredLimitPart);

// ------------------------------------------------------------------------------------------------
// A few free processes
// ------------------------------------------------------------------------------------------------

size_t Tasks()
{
    return ListFolder("/proc/self/task").size();
}

int TryWithSlots(Kind kind, rlim_t slots, const std::string &folder, int *ret_code)
{
    pm_error error = PM_ERROR_INIT;
    const size_t before = OpenDescriptors();
    std::string registry = folder + "/registry";
    pm_options options = OptionsFor(registry);
    pm_manager *manager = nullptr;
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    const size_t tasks = Tasks();
    rlimit limit = {};
    NEED(getrlimit(RLIMIT_NPROC, &limit) == 0);
    const rlimit lifted = limit;
    limit.rlim_cur = Tasks() + slots;
    NEED(setrlimit(RLIMIT_NPROC, &limit) == 0);
    *ret_code = Try(manager, kind, folder, &error);
    NEED(setrlimit(RLIMIT_NPROC, &lifted) == 0);
    NEED(*ret_code == PM_OK || (*ret_code == PM_ERR_NO_PROCESS_SLOTS && error.code == *ret_code));
    NEED(*ret_code == PM_OK || kind == Kind::open || error.stage != PM_STAGE_NONE);
    // A keeper has its name after a moment only.
    NEED(Eventually([] { return Children() == 0; }) && Records(registry) == 0);
    NEED(Try(manager, kind, folder, &error) == PM_OK);
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    NEED(Eventually([&] { return Tasks() < tasks; }));
    return NothingIsLeft(folder, before);
}

int FreeSlotsPart(const Args &)
{
    pm_error error = PM_ERROR_INIT;
    NEED(geteuid() != 0);
    std::string folder = MakeTempFolder();
    for (Kind kind : kKinds) {
        size_t failed = 0, worked = 0;
        for (rlim_t slots = 0; slots <= 5; slots++) {
            int code = PM_OK;
            if (TryWithSlots(kind, slots, folder, &code) != 0) {
                printf("%s with %d slots\n", NameOf(kind), static_cast<int>(slots));
                return 1;
            }
            failed += code != PM_OK;
            worked += code == PM_OK;
        }
        NEED(failed > 0 && worked > 0);
    }
    RemoveTree(folder);
    return 0;
}
const RoleAdder free_slots_part("host-free-slots", FreeSlotsPart);

// ------------------------------------------------------------------------------------------------
// The first three descriptors closed
// ------------------------------------------------------------------------------------------------

// args: folder, which as a bit mask. It closes them itself: else it could say nothing.
int ClosedPart(const Args &a)
{
    pm_error error = PM_ERROR_INIT;
    const unsigned closed = static_cast<unsigned>(std::stoul(a.at(1)));
    int out = fcntl(1, F_DUPFD_CLOEXEC, 100);
    const auto is_as_it_was = [closed] {
        bool same = true;
        for (int fd = 0; fd < 3; fd++) {
            same &= (fcntl(fd, F_GETFD) < 0) == ((closed >> fd & 1) != 0);
        }
        return same;
    };
    const auto play = [&]() -> int {
        std::string registry = a.at(0) + "/registry";
        pm_options options = OptionsFor(registry);
        pm_manager *manager = nullptr;
        NEED(pm_open(&options, &manager, &error) == PM_OK);
        NEED(is_as_it_was());
        for (Kind kind : {Kind::normal, Kind::dying, Kind::daemon}) {
            pm_process *process = nullptr;
            Child child({"fds"});
            std::string file = a.at(0) + "/said";
            int said = open(file.c_str(), O_RDWR | O_CREAT | O_TRUNC, 0600);
            int high = fcntl(said, F_DUPFD_CLOEXEC, 50);
            close(said);
            child->stdin_slot.kind = child->stderr_slot.kind = PM_STDIO_INHERIT;
            child->stdout_slot.kind = PM_STDIO_NATIVE;
            child->stdout_slot.native = high;
            child->die_with_parent = kind == Kind::dying;
            child->mode = kind == Kind::daemon ? PM_MODE_DAEMON : PM_MODE_NORMAL;
            child->key = kind == Kind::daemon ? "d" : nullptr;
            NEED(pm_spawn(manager, child.Get(), &process, &error) == PM_OK);
            close(high);
            NEED(is_as_it_was());
            NEED(pm_process_wait(process, Patience(), nullptr) == PM_OK);
            pm_process_unref(process);
            std::string text = ReadFile(file);
            NEED((closed & 1) == 0 || text.find(" 0=/dev/null ") != std::string::npos);
            NEED((closed & 4) == 0 || text.find(" 2=/dev/null\n") != std::string::npos);
            NEED(std::count(text.begin(), text.end(), '=') == 3);
            NEED(Try(manager, kind, a.at(0), &error) == PM_OK);
            NEED(is_as_it_was());
        }
        NEED(pm_close(manager, -1, nullptr) == PM_OK);
        NEED(is_as_it_was());
        return 0;
    };
    for (int fd = 0; fd < 3; fd++) {
        if ((closed >> fd & 1) != 0) {
            close(fd);
        }
    }
    int code = play();
    dup2(out, 1);
    return code;
}
const RoleAdder closed_part("host-closed", ClosedPart);

// ------------------------------------------------------------------------------------------------
// A umask that takes everything
// ------------------------------------------------------------------------------------------------

int PrintUmask(const Args &)
{
    mode_t mask = umask(0);
    printf("umask %o\n", static_cast<unsigned>(mask));
    return 0;
}
const RoleAdder print_umask("host-print-umask", PrintUmask);

// The first entry whose rights are not those of an owner alone, or "".
std::string WronglyOpen(const std::string &folder)
{
    for (const auto &name : ListFolder(folder)) {
        struct stat st;
        std::string path = folder + "/" + name;
        if (lstat(path.c_str(), &st) != 0) {
            return path;
        }
        if ((st.st_mode & 0777) != (S_ISDIR(st.st_mode) ? 0700u : 0600u)) {
            return path;
        }
        std::string deeper = S_ISDIR(st.st_mode) ? WronglyOpen(path) : "";
        if (!deeper.empty()) {
            return deeper;
        }
    }
    return "";
}

int UmaskPart(const Args &)
{
    pm_error error = PM_ERROR_INIT;
    std::string folder = MakeTempFolder();
    setenv("XDG_STATE_HOME", (folder + "/state").c_str(), 1);
    char *path = nullptr;
    NEED(pm_default_state_dir("pm-test", &path) == PM_OK);
    NEED(WronglyOpen(folder + "/state").empty());
    std::string registry = std::string(path) + "/registry";
    pm_free(path);
    pm_options options = OptionsFor(registry);
    pm_manager *manager = nullptr;
    pm_process *process = nullptr;
    for (bool daemon : {false, true}) {
        std::string file = folder + "/said-" + std::to_string(daemon);
        NEED(pm_open(&options, &manager, &error) == PM_OK);
        Child child({"host-print-umask"});
        child->stdout_slot.kind = PM_STDIO_FILE_TRUNCATE;
        child->stdout_slot.path = file.c_str();
        child->mode = daemon ? PM_MODE_DAEMON : PM_MODE_NORMAL;
        child->key = daemon ? "said" : nullptr;
        NEED(pm_spawn(manager, child.Get(), &process, &error) == PM_OK);
        NEED(pm_process_wait(process, Patience(), nullptr) == PM_OK);
        pm_process_unref(process);
        struct stat st;
        NEED(stat(file.c_str(), &st) == 0 && (st.st_mode & 0777) == 0); // The host's wish.
        NEED(ReadFile(file) == "umask 777\n");
        NEED(pm_close(manager, -1, nullptr) == PM_OK);
    }
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    Child payload({"payload", folder + "/payload"});
    payload->mode = PM_MODE_DAEMON;
    payload->key = "d";
    NEED(pm_spawn(manager, payload.Get(), nullptr, &error) == PM_OK);
    NEED(Eventually([&] { return ReadFile(folder + "/payload").find('\n') != std::string::npos; }));
    NEED(Records(registry) == 1);
    NEED(WronglyOpen(registry).empty());
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    struct pm_recover_report report = PM_RECOVER_REPORT_INIT;
    NEED(pm_recover(manager, nullptr, nullptr, &report) == PM_OK && report.alive == 1);
    NEED(pm_find(manager, "d", &process) == PM_OK);
    NEED(pm_process_stop(process, nullptr, nullptr) == PM_OK);
    NEED(pm_process_wait(process, Patience(), nullptr) == PM_OK);
    pm_process_unref(process);
    NEED(Records(registry) == 0 && !ListFolder(registry + "/exits").empty());
    NEED(WronglyOpen(registry).empty());
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    NEED(umask(0) == 0777);
    RemoveTree(folder);
    return 0;
}
const RoleAdder umask_part("host-umask", UmaskPart);

// Openers of one registry at once: what one has just made has no rights for a moment.
int UmaskAtOncePart(const Args &)
{
    pm_error error = PM_ERROR_INIT;
    for (int round = 0; round < 100; round++) {
        const mode_t mask = umask(077);
        const std::string folder = MakeTempFolder(), registry = folder + "/registry";
        umask(mask);
        std::vector<pid_t> openers;
        int go[2];
        NEED(pipe(go) == 0);
        for (int i = 0; i < 3; i++) {
            pid_t pid = fork();
            NEED(pid >= 0);
            if (pid == 0) {
                char byte;
                close(go[1]);
                (void)!read(go[0], &byte, 1);
                pm_options options = OptionsFor(registry);
                pm_manager *manager = nullptr;
                int code = pm_open(&options, &manager, nullptr);
                _exit(code == PM_OK ? pm_close(manager, -1, nullptr) != PM_OK
                                    : code != PM_ERR_REGISTRY_BUSY);
            }
            openers.push_back(pid);
        }
        close(go[0]);
        close(go[1]);
        int wrong = 0;
        for (pid_t pid : openers) {
            int status = 0;
            NEED(Uninterrupted([&] { return waitpid(pid, &status, 0); }) == pid);
            wrong += status != 0;
        }
        NEED(wrong == 0);
        RemoveTree(folder);
    }
    return 0;
}
const RoleAdder umask_at_once_part("host-umask-at-once", UmaskAtOncePart);

// ------------------------------------------------------------------------------------------------
// The tests
// ------------------------------------------------------------------------------------------------

class LimitHosts : public Contract
{
  protected:
    static Args TakesEverything()
    {
        Args conditions = {"umask=0777"};
        if (geteuid() == 0) { // Root may open everything.
            conditions.insert(conditions.begin(), "uid=" + StrangeUser());
        }
        return conditions;
    }
};

#ifdef PM_TEST_LIBKQUEUE
const char *const kTakesWhatItGets =
    "libkqueue takes low descriptors, and says EFAULT for want of them";
#endif

TEST_F(LimitHosts, WithFewFreeDescriptorsStartOrSaySo)
{
#ifdef PM_TEST_LIBKQUEUE
    GTEST_SKIP() << kTakesWhatItGets;
#endif
    Play({}, {"host-free-descriptors", folder});
}

TEST_F(LimitHosts, WithFewFreeDescriptorsForkOrSaySo)
{
#ifdef PM_TEST_LIBKQUEUE
    GTEST_SKIP() << kTakesWhatItGets;
#endif
    Play({"deny=clone-vm"}, {"host-free-descriptors", folder});
}

TEST_F(LimitHosts, WithALimitBelowTheirDescriptorsLeakNone)
{
    Play({"nofile=64"}, {"host-lowered-limit", folder});
}

TEST_F(LimitHosts, WithALimitBelowTheirDescriptorsAndWithoutCloseRangeLeakNone)
{
    for (const char *denied :
         {"deny=close_range", "deny=close_range:EPERM", "deny=close_range,clone-vm"}) {
        if (!IsSkipped()) {
            RemoveTree(folder + "/registry");
            Play({"nofile=64", denied}, {"host-lowered-limit", folder});
        }
    }
}

TEST_F(LimitHosts, WithFewFreeProcessSlotsStartOrSaySo)
{
    // A PID 1 that reaps late would keep the slots of dead daemons.
    Play({"subreaper=reaps", "uid=" + StrangeUser()}, {"host-free-slots"});
}

TEST_F(LimitHosts, WithClosedStandardStreamsNeverGetOneOfOurs)
{
#ifdef PM_TEST_LIBKQUEUE
    GTEST_SKIP() << kTakesWhatItGets;
#endif
    for (int closed = 0; closed < 8; closed++) {
        Play({}, {"host-closed", folder, std::to_string(closed)});
    }
}

TEST_F(LimitHosts, WithAUmaskThatTakesEverythingKeepTheirRegistry)
{
    Play(TakesEverything(), {"host-umask"});
}

TEST_F(LimitHosts, WithAUmaskThatTakesEverythingMayOpenARegistryAtOnce)
{
    Play(TakesEverything(), {"host-umask-at-once"});
}

} // namespace
