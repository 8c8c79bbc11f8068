// Every call that the library makes to the system fails once, or from then on, with each error that
// such a call can plausibly give. Each run has a process of its own, so that first uses fail as
// well, and a hang or a crash is a finding like any other.
#include "fault.h"

#include "pmi_config.h"

#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <processmgr/processmgr.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

extern "C" {
int pmi_child_collect(pid_t pid, int pidfd, int64_t deadline);
void pmi_reap_left(void);
}

namespace
{

constexpr int64_t kPatience = 20000;
constexpr int kCallsMost = 2000000;
constexpr int kRunSeconds = 30; // After that a run hangs.
const char kSkipped[] = "skipped: ";

size_t CountEntries(const char *folder)
{
    size_t count = 0;
    DIR *dir = opendir(folder);
    if (dir == nullptr)
        return 0;
    while (dirent *entry = readdir(dir))
        count += entry->d_name[0] != '.';
    closedir(dir);
    return count;
}

bool Eventually(const std::function<bool()> &reached, int64_t timeout_ms = 5000)
{
    auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(timeout_ms);
    while (!reached()) {
        if (std::chrono::steady_clock::now() >= end)
            return false;
        usleep(1000);
    }
    return true;
}

std::string Mask()
{
    sigset_t mask;
    pthread_sigmask(SIG_SETMASK, nullptr, &mask);
    std::string text;
    for (int s = 1; s < NSIG; s++)
        text += sigismember(&mask, s) == 1 ? '1' : '0';
    return text;
}

// Whether this build, on this kernel, is told how a process ended that was not its child.
bool OthersEndsAreTold()
{
#ifdef HAVE_PIDFD
    static const bool told = [] {
        pid_t pid = fork();
        if (pid == 0)
            _exit(0);
        int pidfd = static_cast<int>(syscall(SYS_pidfd_open, pid, 0));
        int status = 0;
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
            continue;
        uint64_t info[8] = {1U << 3}; // PIDFD_INFO_EXIT
        bool yes = ioctl(pidfd, _IOWR(0xff, 11, char[64]), info) == 0 && (info[0] & (1U << 3)) != 0;
        close(pidfd);
        return yes;
    }();
    return told;
#else
    return false;
#endif
}

// One pass through a scenario with one fault. In the run's own process.
class Run
{
  public:
    explicit Run(const std::string &folder) : registry(folder + "/registry"), file(folder + "/file")
    {
    }

    // What the calls with a struct pm_error say besides their result.
    void CheckError(const std::string &what, int result, const pm_error &error)
    {
        const bool starts = what == "spawn" || what == "run";
        Expect(error.code == result || (error.code == 0 && !starts && what != "open"),
               what + ": another code in the error, or none");
        char line[1024] = "";
        (void)pm_error_format(&error, line, sizeof(line));
        Expect(error.code == 0 || line[0] != 0, what + ": no line");
        Expect(error.stage != 0 || !starts, "no stage in " + what + ": " + line);
        failures += what + ": " + (error.code != 0 ? line : pm_error_name(result)) + "; ";
    }

    // A call that may fail because of the fault. Then its error must be a known one, and the same
    // call must work once the fault is over.
    void Do(const char *what, const std::function<int(pm_error *)> &call)
    {
        pm_error error = PM_ERROR_INIT;
        int result = call(&error);
        if (result >= 0)
            return;
        bool fired = pm_fault_report().fired;
        pm_fault_disarm();
        std::string name = pm_error_name(result);
        Note(std::string(what) + ": " + name);
        Expect(fired, std::string(what) + " failed without a fault: " + name);
        Expect(pm_fault_report().error != EINTR,
               std::string(what) + " failed of a signal: " + name);
        Expect(strncmp(pm_strerror(result), "unknown", 7) != 0,
               std::string(what) + ": no known error");
        CheckError(what, result, error);
        pm_error again = PM_ERROR_INIT;
        result = call(&again);
        // A daemon that could not be proven to be itself is ended as soon as it can be.
        if (result == PM_ERR_EXISTS && !OthersEndsAreTold())
            (void)Eventually([&] { return (result = call(&again)) != PM_ERR_EXISTS; });
        char line[1024] = "";
        (void)pm_error_format(&again, line, sizeof(line));
        Expect(result >= 0, std::string(what) + " fails without the fault, too: " +
                                pm_error_name(result) + " " + line);
    }

    // For those who run a single one with PM_FAULT_ONLY.
    void Note(const std::string &line)
    {
        if (getenv("PM_FAULT_ONLY") != nullptr)
            fprintf(stderr, "    %s\n", line.c_str());
    }

    // This scenario cannot be played here. What is written besides is no finding.
    void Skip(const std::string &reason)
    {
        problems = kSkipped + reason;
    }

    void Expect(bool good, const std::string &problem)
    {
        if (!good)
            problems += "    " + problem + "\n";
    }

    void Open(bool with_registry, pm_loop loop = PM_LOOP_OWN, bool own_process = false)
    {
        pm_options options = PM_OPTIONS_INIT;
        options.loop = loop;
        options.own_process = own_process;
        options.registry_dir = with_registry ? registry.c_str() : nullptr;
        options.status_pending_ms = 3000;
        options.drain_ms = 2000;
        options.stop_watch_ms = 10;
        if (listens)
            options.event = [](void *, const pm_event *) {};
        Do("open", [&](pm_error *error) { return pm_open(&options, &manager, error); });
    }

    void Close()
    {
        Do("close", [&](pm_error *) { return pm_close(manager, kPatience, nullptr); });
        manager = nullptr;
    }

    pm_process *Spawn(const pm_spec &spec)
    {
        pm_process *process = nullptr;
        Do("spawn", [&](pm_error *error) { return pm_spawn(manager, &spec, &process, error); });
        Expect(process != nullptr, "no Handle");
        return process;
    }

    void Wait(pm_process *process, pm_exit_kind kind, uint32_t code, bool daemon = false)
    {
        pm_exit record = PM_EXIT_INIT;
        if (process == nullptr)
            return;
        Do("wait", [&](pm_error *) { return pm_process_wait(process, kPatience, &record); });
        if (record.kind == PM_EXIT_LOST && daemon && MayBeLost())
            return;
        Expect(record.kind == kind, "kind " + std::to_string(record.kind));
        Expect(kind != PM_EXIT_EXITED || record.code == code,
               "code " + std::to_string(record.code));
    }

    // How a process ended that is not our child is told by one call only, on a pidfd.
    static bool MayBeLost()
    {
        if (!OthersEndsAreTold())
            return true;
        struct pm_fault_report report = pm_fault_report();
        return strcmp(report.name, "ioctl") == 0 || report.error == ENOSYS || report.error == EPERM;
    }

    void Stop(pm_process *process)
    {
        pm_stop_plan plan = {};
        plan.steps_count = 1;
        // Where /proc is closed for good nobody can tell whether a group has but zombies left: that
        // run is not to wait for long. All others have the time that a busy machine needs.
        const uint32_t wait_ms = once || pm_fault_report().error == EINTR ? 5000 : 300;
        plan.steps[0] = {PM_STOP_KILL, PM_SCOPE_TREE, wait_ms};
        if (process != nullptr)
            Do("stop", [&](pm_error *) { return pm_process_stop(process, &plan, nullptr); });
    }

    std::string registry, file;
    std::string problems, failures;
    pm_manager *manager = nullptr;
    bool listens = false;
    bool once = true; // The fault is soon over.
};

// A Spec with its arguments.
struct Program {
    Program(const char *path, std::vector<const char *> args)
    {
        spec.start_timeout_ms = 5000;
        spec.owner = "fault";
        spec.program = path;
        argv.push_back(path);
        argv.insert(argv.end(), args.begin(), args.end());
        argv.push_back(nullptr);
        spec.argv = argv.data();
        spec.stdin_slot.kind = PM_STDIO_NULL;
        spec.stdout_slot.kind = PM_STDIO_NULL;
        spec.stderr_slot.kind = PM_STDIO_NULL;
    }
    pm_spec spec = PM_SPEC_INIT;
    std::vector<const char *> argv;
};

struct Shell : Program {
    explicit Shell(const char *script) : Program("/bin/sh", {"-c", script})
    {
    }
};

struct Sleeper : Program {
    Sleeper() : Program("/bin/sleep", {"1000"})
    {
    }
};

// ------------------------------------------------------------------------------------------------
// Scenarios
// ------------------------------------------------------------------------------------------------

void OpenClose(Run &run)
{
    run.Open(false);
    run.Close();
}

void Registry(Run &run)
{
    run.Open(true);
    size_t count = 0;
    auto visit = [](void *user, const pm_registry_entry *) {
        ++*static_cast<size_t *>(user);
        return 0;
    };
    run.Do("list",
           [&](pm_error *) { return pm_registry_list(run.registry.c_str(), visit, &count); });
    run.Close();
}

void Normal(Run &run)
{
    run.Open(false);
    Shell child("exit 7");
    pm_process *process = run.Spawn(child.spec);
    run.Wait(process, PM_EXIT_EXITED, 7);
    pm_process_unref(process);
    run.Close();
}

// Where there is no vfork-like clone, and where there are no pidfds either.
void Forked(Run &run)
{
    pm_fault_deny("clone");
    Normal(run);
}

void Waiters(Run &run)
{
    pm_fault_deny("clone,pidfd_open");
    Normal(run);
}

// A wait that is over before the process is: its end is told all the same.
void ImpatientWait(Run &run)
{
    run.Open(false);
    Sleeper child;
    std::atomic<int> told{0};
    child.spec.user = &told;
    child.spec.on_exit = [](pm_process *, const pm_exit *, void *user) {
        ++*static_cast<std::atomic<int> *>(user);
    };
    pm_process *process = run.Spawn(child.spec);
    if (process != nullptr) {
        int result = pm_process_wait(process, 1, nullptr);
        run.Expect(result == PM_ERR_TIMEOUT, "impatient wait " + std::to_string(result));
        run.Do("signal",
               [&](pm_error *) { return pm_process_signal(process, SIGKILL, PM_SCOPE_PROCESS); });
        for (int i = 0; i < kPatience && told == 0; i++)
            usleep(1000);
        run.Expect(told == 1, "told " + std::to_string(told) + " times");
    }
    pm_process_unref(process);
    run.Close();
}

void Pipes(Run &run)
{
    run.Open(false);
    Shell child("read line; echo got $line; echo error >&2; exit 3");
    child.spec.stdin_slot.kind = PM_STDIO_PIPE;
    child.spec.stdout_slot.kind = PM_STDIO_PIPE;
    child.spec.stderr_slot.kind = PM_STDIO_PIPE;
    pm_process *process = run.Spawn(child.spec);
    if (process == nullptr)
        return run.Close();
    const char *text = "text\n";
    size_t at = 0;
    run.Do("write", [&](pm_error *) {
        size_t count = 0;
        int result = pm_stream_write(pm_process_stream(process, PM_STDIN), text + at,
                                     strlen(text) - at, kPatience, &count);
        at += count;
        return result;
    });
    for (pm_stream_id id : {PM_STDOUT, PM_STDERR}) {
        std::string all;
        bool ended = false;
        while (!ended && run.problems.empty()) {
            run.Do("read", [&](pm_error *) {
                char buffer[64];
                size_t count = 0;
                int result = pm_stream_read(pm_process_stream(process, id), buffer, sizeof(buffer),
                                            kPatience, &count);
                ended = result == PM_OK && count == 0;
                all.append(buffer, result == PM_OK ? count : 0);
                return result;
            });
        }
        run.Expect(all == (id == PM_STDOUT ? "got text\n" : "error\n"), "read \"" + all + "\"");
    }
    run.Wait(process, PM_EXIT_EXITED, 3);
    pm_process_unref(process);
    run.Close();
}

void Terminal(Run &run)
{
    run.Open(false);
    Shell child("read line; echo got $line; read more; exit 3");
    // With a number that ours have to stay above of.
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    pm_extra extra = {fd, 60};
    child.spec.mode = PM_MODE_PTY;
    child.spec.extras = &extra;
    child.spec.extras_count = 1;
    child.spec.stdin_slot.kind = PM_STDIO_DEFAULT;
    child.spec.stdout_slot.kind = PM_STDIO_DEFAULT;
    child.spec.stderr_slot.kind = PM_STDIO_DEFAULT;
    pm_process *process = run.Spawn(child.spec);
    close(fd);
    if (process == nullptr)
        return run.Close();
    run.Do("write", [&](pm_error *) {
        size_t count = 0;
        return pm_stream_write(pm_process_stream(process, PM_STDIN), "text\n", 5, kPatience,
                               &count);
    });
    run.Do("resize", [&](pm_error *) { return pm_process_resize(process, 100, 30); });
    std::string all;
    bool ended = false;
    while (!ended && run.problems.empty()) {
        run.Do("read", [&](pm_error *) {
            char buffer[64];
            size_t count = 0;
            int result = pm_stream_read(pm_process_stream(process, PM_STDOUT), buffer,
                                        sizeof(buffer), kPatience, &count);
            ended = result == PM_OK && count == 0;
            all.append(buffer, result == PM_OK ? count : 0);
            return result;
        });
        if (all.find("got text") != std::string::npos)
            run.Do("close", [&](pm_error *) {
                return pm_stream_close(pm_process_stream(process, PM_STDIN));
            });
    }
    run.Expect(all.find("got text") != std::string::npos, "read \"" + all + "\"");
    run.Wait(process, PM_EXIT_EXITED, 3);
    pm_process_unref(process);
    run.Close();
}

const pm_rlimit kLimits[] = {{RLIMIT_CORE, 0, 0}};

void AskForOptions(pm_spec &spec)
{
    spec.set_umask = true;
    spec.umask_value = 077;
    spec.set_nice = true;
    spec.nice_value = 3;
    spec.rlimits = kLimits;
    spec.rlimits_count = 1;
    if (geteuid() == 0) {
        spec.run_as_user = "nobody";
        spec.run_as_group = "root";
        spec.groups_of_user = true;
    }
}

void Options(Run &run)
{
    run.Open(false);
    Shell child("umask | grep -q 077 && exit 5");
    AskForOptions(child.spec);
    pm_process *process = run.Spawn(child.spec);
    run.Wait(process, PM_EXIT_EXITED, 5);
    pm_process_unref(process);
    run.Close();
}

// Where a filter, or the kernel, has no getrandom(): what takes its place can fail.
void DaemonOptions(Run &run)
{
    pm_fault_deny("getrandom");
    run.Open(true);
    Sleeper child;
    const uint32_t group = 0;
    child.spec.mode = PM_MODE_DAEMON;
    child.spec.key = "one";
    AskForOptions(child.spec);
    if (child.spec.groups_of_user) {
        child.spec.groups_of_user = false;
        child.spec.supplementary_groups = &group;
        child.spec.supplementary_groups_count = 1;
    }
    pm_process *process = run.Spawn(child.spec);
    if (process != nullptr) // Best effort: 0 where it cannot be told.
        (void)pm_process_parent(process);
    run.Stop(process);
    run.Wait(process, PM_EXIT_SIGNALED, 0, true);
    pm_process_unref(process);
    run.Close();
}

void RunInOneCall(Run &run)
{
    run.Open(false);
    Shell child("read line; echo got $line; echo error >&2; exit 3");
    child.spec.stdin_slot.kind = PM_STDIO_DEFAULT;
    child.spec.stdout_slot.kind = PM_STDIO_DEFAULT;
    child.spec.stderr_slot.kind = PM_STDIO_DEFAULT;
    pm_run_options options = PM_RUN_OPTIONS_INIT;
    pm_run_result result = PM_RUN_RESULT_INIT;
    options.spec = &child.spec;
    options.input = "text\n";
    options.input_size = 5;
    run.Do("run", [&](pm_error *error) { return pm_run(run.manager, &options, &result, error); });
    run.Expect(result.record->kind == PM_EXIT_EXITED && result.record->code == 3, "the record");
    for (int i = 0; i < 2; i++) {
        std::string wanted = i == 0 ? "got text\n" : "error\n";
        std::string text = result.output[i] != nullptr ? result.output[i] : "none";
        run.Expect(text == wanted, "read \"" + text + "\"");
    }
    pm_run_result_clear(&result);
    run.Close();
}

void Files(Run &run)
{
    run.Open(false);
    Shell child("echo $PM_FAULT_WORD; pwd >&2; exec 2>&-; echo extra >&7");
    const char *env[] = {"PM_FAULT_WORD=word", "HOME", nullptr};
    int pair[2];
    run.Expect(pipe2(pair, O_CLOEXEC) == 0, "pipe");
    pm_extra extra = {pair[1], 7};
    child.spec.env = env;
    child.spec.cwd = "/tmp";
    child.spec.no_new_privileges = true;
    child.spec.extras = &extra;
    child.spec.extras_count = 1;
    child.spec.stdin_slot = {PM_STDIO_FILE_READ, "/dev/null", PM_NATIVE_INVALID};
    child.spec.stdout_slot = {PM_STDIO_FILE_TRUNCATE, run.file.c_str(), PM_NATIVE_INVALID};
    child.spec.stderr_slot.kind = PM_STDIO_STDOUT;
    pm_process *process = run.Spawn(child.spec);
    run.Wait(process, PM_EXIT_EXITED, 0);
    close(pair[1]);
    char buffer[16];
    // Twice where a start was undone that could not be watched.
    run.Expect(read(pair[0], buffer, sizeof(buffer)) >= 6, "the extra descriptor");
    close(pair[0]);
    FILE *in = fopen(run.file.c_str(), "r");
    size_t size = in != nullptr ? fread(buffer, 1, sizeof(buffer), in) : 0;
    if (in != nullptr)
        fclose(in);
    run.Expect(std::string(buffer, size) == "word\n/tmp\n", std::string(buffer, size));
    pm_process_unref(process);
    run.Close();
}

// The program is missing: that is an error in any case, and the next start is none.
void MissingProgram(Run &run)
{
    run.Open(false);
    for (const char *path : {"/nonexistent/program", "/etc/passwd"}) {
        Program child(path, {});
        pm_process *process = nullptr;
        pm_error error = PM_ERROR_INIT;
        run.Expect(pm_spawn(run.manager, &child.spec, &process, &error) < 0, "started");
        run.Expect(process == nullptr, "a Handle");
        run.Expect(error.code < 0 && error.stage != 0, "no stage");
    }
    Shell child("exit 1");
    pm_process *process = run.Spawn(child.spec);
    run.Wait(process, PM_EXIT_EXITED, 1);
    pm_process_unref(process);
    run.Close();
}

// The program is looked for, and so is the place for a registry.
void Search(Run &run)
{
    const std::string state = run.file + ".state";
    setenv("XDG_STATE_HOME", state.c_str(), 1);
    char *place = nullptr;
    run.Do("state", [&](pm_error *) { return pm_default_state_dir("fault", &place); });
    run.Expect(place != nullptr && place == state + "/fault", "the folder for state");
    pm_free(place);
    run.Open(false);
    Shell child("exit 6");
    child.spec.program = "sh";
    pm_process *process = run.Spawn(child.spec);
    run.Wait(process, PM_EXIT_EXITED, 6);
    pm_process_unref(process);
    run.Close();
}

// The host has asked the kernel for no statuses: it waits for our children, too.
void NoStatuses(Run &run)
{
    signal(SIGCHLD, SIG_IGN);
    run.Open(false);
    Shell child("exit 7");
    Program missing("/etc/passwd", {});
    pm_process *process = run.Spawn(child.spec);
    run.Wait(process, PM_EXIT_EXITED, 7, true);
    pm_process_unref(process);
    run.Expect(pm_spawn(run.manager, &missing.spec, nullptr, nullptr) < 0, "started");
    run.Close();
    signal(SIGCHLD, SIG_DFL);
}

// Somebody stops the child, and a listener is told.
void StoppedChild(Run &run)
{
    run.listens = true;
    run.Open(false);
    Sleeper child;
    pm_process *process = run.Spawn(child.spec);
    if (process != nullptr) {
        kill(static_cast<pid_t>(pm_process_pid(process)), SIGSTOP);
        pm_info info = PM_INFO_INIT;
        run.Expect(Eventually([&] {
                       return pm_process_info(process, &info) == PM_OK &&
                              info.state == PM_STATE_STOPPED;
                   }),
                   "a stop is not seen");
    }
    run.Stop(process);
    run.Wait(process, PM_EXIT_SIGNALED, 0);
    pm_process_unref(process);
    run.Close();
}

void StopOne(Run &run)
{
    run.Open(false);
    Shell child("trap '' TERM; echo ready; sleep 1000 & wait; wait");
    child.spec.stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = run.Spawn(child.spec);
    run.Stop(process);
    run.Wait(process, PM_EXIT_SIGNALED, 0);
    pm_process_unref(process);
    run.Close();
}

// One that has left its session and lost its parent, with the process ended and not. Here, too, not
// without a random number.
void OwnTree(Run &run)
{
    pm_fault_deny("getrandom");
    run.Open(false, PM_LOOP_OWN, true);
    Shell goes("setsid sh -c 'sleep 1000 & exit 0'; exit 5");
    pm_process *process = run.Spawn(goes.spec);
    run.Wait(process, PM_EXIT_EXITED, 5);
    run.Do("scan", [&](pm_error *) { return pm_leak_scan(run.manager, nullptr); });
    run.Stop(process);
    pm_process_unref(process);
    Shell stays("setsid sh -c 'sleep 1000 & exit 0'; exec sleep 1000");
    process = run.Spawn(stays.spec);
    run.Stop(process);
    run.Wait(process, PM_EXIT_SIGNALED, 0);
    pm_process_unref(process);
    run.Close();
}

void StopAll(Run &run)
{
    run.Open(false);
    Sleeper child;
    pm_process *processes[3];
    for (pm_process *&process : processes)
        process = run.Spawn(child.spec);
    struct pm_stats stats = PM_STATS_INIT;
    run.Do("stats", [&](pm_error *) { return pm_stats(run.manager, &stats); });
    run.Expect(stats.running == 3, "running " + std::to_string(stats.running));
    run.Do("scan", [&](pm_error *) { return pm_leak_scan(run.manager, nullptr); });
    run.Do("list", [&](pm_error *) {
        return pm_list(
            run.manager, [](void *, pm_process *) { return 0; }, nullptr);
    });
    run.Do("stop all", [&](pm_error *) {
        return pm_stop_all(run.manager, kPatience, nullptr, nullptr, nullptr);
    });
    for (pm_process *process : processes) {
        run.Wait(process, PM_EXIT_SIGNALED, 0);
        pm_process_unref(process);
    }
    run.Close();
}

void DieWithParent(Run &run)
{
    run.Open(false);
    Shell child("exit 5");
    child.spec.die_with_parent = true;
    for (int i = 0; i < 2; i++) {
        pm_process *process = run.Spawn(child.spec);
        run.Wait(process, PM_EXIT_EXITED, 5);
        pm_process_unref(process);
    }
    run.Close();
}

// All of the tree ends with a parent that ends without a word: the rig tells who is left.
void ParentEnds(Run &run)
{
    pid_t pid = fork();
    if (pid == 0) {
        // Who has left the session is found in /proc, unless that is closed for good.
        Shell child(run.once ? "setsid sleep 1000 & sleep 1000 & exec sleep 1000"
                             : "sleep 1000 & exec sleep 1000");
        child.spec.die_with_parent = true;
        run.Open(false, PM_LOOP_OWN, true);
        pm_process_unref(run.Spawn(child.spec));
        if (run.problems.empty())
            pm_fault_leave();
        fputs(run.problems.c_str(), stderr);
        _exit(1);
    }
    int status = -1;
    waitpid(pid, &status, 0);
    run.Expect(status == 0, "the parent ended with status " + std::to_string(status));
}

void Daemon(Run &run)
{
    run.Open(true);
    Sleeper child;
    child.spec.mode = PM_MODE_DAEMON;
    child.spec.key = "one";
    pm_process *process = run.Spawn(child.spec);
    run.Stop(process);
    run.Wait(process, PM_EXIT_SIGNALED, 0, true);
    pm_process_unref(process);
    run.Close();
}

// The host has closed 0 to 2, so what we open is there at first, and has to make way.
class Crowded
{
  public:
    Crowded()
    {
        for (int i = 0; i < 3; i++) {
            kept[i] = fcntl(i, F_DUPFD_CLOEXEC, 100);
            close(i);
        }
    }
    ~Crowded()
    {
        for (int i = 0; i < 3; i++) {
            dup2(kept[i], i);
            close(kept[i]);
        }
    }

  private:
    int kept[3];
};

void CrowdedPipes(Run &run)
{
    Crowded crowded;
    Pipes(run);
}

void CrowdedKeeper(Run &run)
{
    Crowded crowded;
    DieWithParent(run);
}

void CrowdedFork(Run &run)
{
    Crowded crowded;
    pm_fault_deny("clone");
    run.Open(false);
    Shell child("exit 7");
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    pm_extra extra = {fd, 60};
    child.spec.extras = &extra;
    child.spec.extras_count = 1;
    pm_process *process = run.Spawn(child.spec);
    run.Wait(process, PM_EXIT_EXITED, 7);
    pm_process_unref(process);
    run.Close();
    close(fd);
}

// To get a descriptor with a number that one of ours may have, too.
void CrowdedDaemon(Run &run)
{
    Crowded crowded;
    run.Open(true);
    Sleeper child;
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    pm_extra extra = {fd, 60};
    child.spec.mode = PM_MODE_DAEMON;
    child.spec.key = "one";
    child.spec.extras = &extra;
    child.spec.extras_count = 1;
    pm_process *process = run.Spawn(child.spec);
    run.Stop(process);
    run.Wait(process, PM_EXIT_SIGNALED, 0, true);
    pm_process_unref(process);
    run.Close();
    close(fd);
}

void MissingDaemon(Run &run)
{
    run.Open(true);
    Program child("/etc/passwd", {});
    child.spec.mode = PM_MODE_DAEMON;
    child.spec.key = "one";
    pm_process *process = nullptr;
    pm_error error = PM_ERROR_INIT;
    run.Expect(pm_spawn(run.manager, &child.spec, &process, &error) < 0, "started");
    run.Expect(process == nullptr, "a Handle");
    run.Expect(error.code < 0 && error.stage != 0, "no stage");
    run.Close();
}

void Recover(Run &run)
{
    run.Open(true);
    Sleeper child;
    child.spec.mode = PM_MODE_DAEMON;
    child.spec.key = "one";
    pm_process *process = run.Spawn(child.spec);
    pm_process_unref(process);
    run.Close();
    run.Open(true);
    run.Do("recover", [&](pm_error *) {
        pm_recover_report report = PM_RECOVER_REPORT_INIT;
        int result = pm_recover(run.manager, nullptr, nullptr, &report);
        // Left as it is where /proc was closed to us.
        return result == PM_OK && report.unproven != 0 ? PM_ERR_IDENTITY : result;
    });
    process = nullptr;
    run.Do("find", [&](pm_error *) { return pm_find(run.manager, "one", &process); });
    run.Stop(process);
    run.Wait(process, PM_EXIT_SIGNALED, 0, true);
    pm_process_unref(process);
    run.Close();
}

void CallersLoop(Run &run)
{
    run.Open(false, PM_LOOP_CALLER);
    Shell child("exit 4");
    int ends = 0;
    child.spec.user = &ends;
    child.spec.on_exit = [](pm_process *, const pm_exit *, void *user) {
        ++*static_cast<int *>(user);
    };
    pm_process *process = run.Spawn(child.spec);
    pm_native native = PM_NATIVE_INVALID;
    run.Do("native", [&](pm_error *) { return pm_loop_native(run.manager, &native); });
    Eventually(
        [&] {
            pollfd in = {};
            in.fd = static_cast<int>(native);
            in.events = POLLIN;
            (void)poll(&in, 1, 100);
            run.Do("dispatch", [&](pm_error *) { return pm_dispatch(run.manager); });
            return ends > 0;
        },
        kPatience);
    run.Expect(ends == 1, "callbacks: " + std::to_string(ends));
    run.Wait(process, PM_EXIT_EXITED, 4);
    pm_process_unref(process);
    run.Close();
}

// Nobody waits, nobody holds a Handle.
void LetGo(Run &run)
{
    static std::atomic<int> ends;
    ends = 0;
    run.Open(false);
    Shell child("exit 2");
    child.spec.on_exit = [](pm_process *, const pm_exit *record, void *) {
        ends += record->kind == PM_EXIT_EXITED && record->code == 2 ? 1 : 100;
    };
    for (int i = 0; i < 3; i++)
        pm_process_unref(run.Spawn(child.spec));
    run.Expect(Eventually([] { return ends >= 3; }, kPatience), "an end was not told");
    run.Expect(ends == 3, "ends: " + std::to_string(ends));
    run.Close();
}

// What the keeper is told of as well.
void ControlGroup(Run &run)
{
    std::string path;
    for (const char *mount : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"})
        if (path.empty() && access((std::string(mount) + "/cgroup.procs").c_str(), F_OK) == 0) {
            path = std::string(mount) + "/processmgr-fault-" + std::to_string(getpid());
            if (mkdir(path.c_str(), 0755) != 0)
                path.clear();
        }
    if (path.empty())
        return run.Skip("no control group of version 2 can be made here");
    run.Open(false);
    Sleeper child;
    child.spec.cgroup = path.c_str();
    child.spec.die_with_parent = true;
    pm_process *process = run.Spawn(child.spec);
    run.Stop(process);
    run.Wait(process, PM_EXIT_SIGNALED, 0);
    pm_process_unref(process);
    run.Close();
    pm_fault_disarm();
    // One that could not be removed is left to the next manager.
    run.Open(false);
    run.Close();
    run.Expect(Eventually([&] { return rmdir(path.c_str()) == 0; }), "a control group is left");
}

// On a terminal of the run's own.
void Foreground(Run &run)
{
    int before = dup(0), master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    signal(SIGHUP, SIG_IGN);
    signal(SIGTTOU, SIG_IGN);
    run.Expect(setsid() > 0 && grantpt(master) == 0 && unlockpt(master) == 0, "a terminal");
    int slave = open(ptsname(master), O_RDWR);
    dup2(slave, 0);
    close(slave);
    run.Expect(ioctl(0, TIOCSCTTY, 0) == 0 && tcgetpgrp(0) == getpgrp(), "a terminal of our own");
    run.Open(false);
    Shell child("exit 4");
    child.spec.group = PM_GROUP_FOREGROUND;
    child.spec.stdin_slot.kind = PM_STDIO_INHERIT;
    pm_process *process = run.Spawn(child.spec);
    run.Wait(process, PM_EXIT_EXITED, 4);
    pm_fault_disarm();
    // Who may not ask who is in front is told that there is no such terminal any more.
    run.Expect(Eventually([] { return tcgetpgrp(0) == getpgrp(); }) ||
                   strcmp(pm_fault_report().name, "tcgetpgrp") == 0,
               "the terminal is lost");
    pm_process_unref(process);
    run.Close();
    dup2(before, 0);
    close(before);
    close(master);
}

// A Handle of a daemon outlives its manager, whose listener is gone.
void InfoAfterClose(Run &run)
{
    run.listens = true;
    run.Open(true);
    Sleeper child;
    child.spec.mode = PM_MODE_DAEMON;
    child.spec.key = "one";
    pm_process *process = run.Spawn(child.spec);
    run.Close();
    pm_fault_disarm();
    if (process == nullptr)
        return;
    pid_t pid = static_cast<pid_t>(pm_process_pid(process));
    kill(pid, SIGSTOP);
    pm_info info = PM_INFO_INIT;
    run.Expect(Eventually([&] {
                   return pm_process_info(process, &info) == PM_OK &&
                          info.state == PM_STATE_STOPPED;
               }),
               "a stop is not seen");
    pm_process_unref(process);
    run.listens = false;
    run.Open(true);
    run.Do("recover",
           [&](pm_error *) { return pm_recover(run.manager, nullptr, nullptr, nullptr); });
    run.Do("stop", [&](pm_error *) {
        return pm_stop_daemons(run.manager, kPatience, nullptr, nullptr, nullptr);
    });
    run.Close();
}

struct Scenario {
    const char *name;
    void (*play)(Run &run);
};

const Scenario kScenarios[] = {
    {"OpenClose", OpenClose},
    {"Registry", Registry},
    {"Normal", Normal},
    {"Forked", Forked},
    {"Waiters", Waiters},
    {"ImpatientWait", ImpatientWait},
    {"Pipes", Pipes},
    {"Files", Files},
    {"Run", RunInOneCall},
    {"Terminal", Terminal},
    {"Options", Options},
    {"DaemonOptions", DaemonOptions},
    {"MissingProgram", MissingProgram},
    {"Search", Search},
    {"NoStatuses", NoStatuses},
    {"StoppedChild", StoppedChild},
    {"StopOne", StopOne},
    {"OwnTree", OwnTree},
    {"StopAll", StopAll},
    {"DieWithParent", DieWithParent},
    {"ParentEnds", ParentEnds},
    {"Daemon", Daemon},
    {"CrowdedPipes", CrowdedPipes},
    {"CrowdedFork", CrowdedFork},
    {"CrowdedKeeper", CrowdedKeeper},
    {"CrowdedDaemon", CrowdedDaemon},
    {"MissingDaemon", MissingDaemon},
    {"Recover", Recover},
    {"CallersLoop", CallersLoop},
    {"LetGo", LetGo},
    {"ControlGroup", ControlGroup},
    {"Foreground", Foreground},
    {"InfoAfterClose", InfoAfterClose},
};

// ------------------------------------------------------------------------------------------------
// Runs
// ------------------------------------------------------------------------------------------------

// Running records, whatever the boot; temporary files, too.
std::string RecordsIn(const std::string &registry)
{
    std::string found;
    DIR *dir = opendir(registry.c_str());
    while (dirent *entry = dir != nullptr ? readdir(dir) : nullptr) {
        std::string name = entry->d_name;
        if (name.rfind("boot-", 0) != 0 && name != "quarantine")
            continue;
        DIR *sub = opendir((registry + "/" + name).c_str());
        while (dirent *record = sub != nullptr ? readdir(sub) : nullptr)
            if (strcmp(record->d_name, ".") != 0 && strcmp(record->d_name, "..") != 0)
                found += " " + name + "/" + record->d_name;
        if (sub != nullptr)
            closedir(sub);
    }
    if (dir != nullptr)
        closedir(dir);
    return found;
}

// In the run's own process: plays, and looks at what is left. The findings go to out.
void PlayAndLook(const Scenario &scenario, const std::string &folder, pm_fault_mode mode,
                 int target, int variant, int out)
{
    Run run(folder);
    run.once = mode != PM_FAULT_STICKY;
    size_t descriptors = CountEntries("/proc/self/fd");
    std::string mask = Mask();
    pm_fault_arm(mode, target, variant);
    scenario.play(run);
    pm_fault_disarm();
    // A record that could not be taken away is left to the next recovery; that of a daemon that is
    // just dying of its signal, to the one after it.
    if (!RecordsIn(run.registry).empty()) {
        pm_recover_report report = PM_RECOVER_REPORT_INIT;
        (void)Eventually([&] {
            run.Open(true);
            run.Do("recover",
                   [&](pm_error *) { return pm_recover(run.manager, nullptr, nullptr, &report); });
            run.Close();
            return RecordsIn(run.registry).empty();
        });
        run.Expect(RecordsIn(run.registry).empty(),
                   "records are left in" + RecordsIn(run.registry));
    }

    // Without pidfds a thread of its own ends what could not be proven to be itself at once.
    size_t left = CountEntries("/proc/self/fd");
    if (!OthersEndsAreTold())
        (void)Eventually([&] { return (left = CountEntries("/proc/self/fd")) == descriptors; });
    run.Expect(left == descriptors,
               std::to_string(left) + " descriptors, before " + std::to_string(descriptors));
    run.Expect(Mask() == mask, "another signal mask");
    run.Expect(Eventually([] { return CountEntries("/proc/self/task") == 1; }), "a thread is left");
    run.Expect(pm_fault_blocks() == 0, std::to_string(pm_fault_blocks()) + " blocks of memory");
    // Kept are the stack of the last start, for the next one, and the page that tells copies.
    run.Expect(pm_fault_mappings() <= 2, std::to_string(pm_fault_mappings()) + " mappings");
    siginfo_t info = {};
    errno = 0;
    run.Expect(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0 && errno == ECHILD,
               "a child is left");
    if (!run.problems.empty() && !run.failures.empty())
        run.problems += "    errors: " + run.failures + "\n";
    (void)!write(out, run.problems.data(), run.problems.size());
}

class Rig : public testing::Test
{
  protected:
    void SetUp() override
    {
        char name[] = "/tmp/pm-test-XXXXXX";
        folder = mkdtemp(name);
        (void)OthersEndsAreTold(); // Asked here, before there are faults and runs.
    }
    void TearDown() override
    {
        std::string command = "rm -rf " + folder;
        EXPECT_EQ(0, system(command.c_str()));
    }

    // What was found.
    std::string One(const Scenario &scenario, pm_fault_mode mode, int target, int variant)
    {
        int out[2];
        std::string problems;
        EXPECT_EQ(0, pipe2(out, O_CLOEXEC));
        pid_t pid = fork();
        if (pid == 0) {
            PlayAndLook(scenario, folder, mode, target, variant, out[1]);
            pm_fault_leave();
        }
        close(out[1]);
        problems = Await(pid, out[0]);
        close(out[0]);
        pm_fault_disarm();
        // The rig is the parent of what is left: keepers and stubs end by themselves, at once.
        if (!Eventually([] { return !Reap(0, nullptr); })) {
            problems += "    a process is left\n";
            EndAll();
        }
        std::string records = RecordsIn(folder + "/registry");
        if (!records.empty()) {
            problems += "    records are left in" + records + "\n";
            std::string command = "rm -rf " + folder + "/registry";
            EXPECT_EQ(0, system(command.c_str()));
        }
        return problems;
    }

    // Waits for children that have ended; false when none is left. The status of `pid` is kept.
    static bool Reap(pid_t pid, int *ret_status)
    {
        for (;;) {
            int status = 0;
            pid_t ended = waitpid(-1, &status, WNOHANG);
            if (ended <= 0)
                return ended == 0;
            if (ended == pid)
                *ret_status = status;
        }
    }

    // The findings of a run, and what can be seen from outside. Orphans are waited for at once, as
    // by any good parent.
    static std::string Await(pid_t pid, int in_fd)
    {
        int status = -1;
        std::string problems;
        auto read_all = [&] {
            char buffer[4096];
            pollfd in = {};
            in.fd = in_fd;
            in.events = POLLIN;
            ssize_t n;
            while (poll(&in, 1, 5) > 0 && (n = read(in_fd, buffer, sizeof(buffer))) > 0)
                problems.append(buffer, static_cast<size_t>(n));
            (void)Reap(pid, &status);
            return status != -1;
        };
        if (!Eventually(read_all, kRunSeconds * 1000)) {
            problems += "    hangs\n";
            kill(pid, SIGABRT);
            (void)Eventually(read_all);
        }
        if (status != 0)
            problems += "    ended with status " + std::to_string(status) + "\n";
        return problems;
    }

    static void EndAll()
    {
        siginfo_t info = {};
        std::string path = "/proc/self/task/" + std::to_string(getpid()) + "/children";
        FILE *in = fopen(path.c_str(), "r");
        int pid = 0;
        while (in != nullptr && fscanf(in, "%d", &pid) == 1)
            kill(pid, SIGKILL);
        if (in != nullptr)
            fclose(in);
        while (waitid(P_ALL, 0, &info, WEXITED) == 0)
            continue;
    }

    std::string folder;
};

class Fault : public Rig, public testing::WithParamInterface<std::tuple<Scenario, pm_fault_mode>>
{
};

// Every how manieth call, for the errors but the first and for sticky faults, in a quick run; and
// for the first error, in scenarios of so many calls.
int Stride()
{
    return getenv("PM_TEST_FULL") != nullptr ? 1 : 5;
}

int FirstStride(int calls)
{
    return getenv("PM_TEST_FULL") != nullptr || calls < 150 ? 1 : 3;
}

// Runs in a row in which that many calls were not made, before it is believed that there are no
// more: one run has some fewer than another.
int RunsBeyond()
{
    return getenv("PM_TEST_FULL") != nullptr ? 8 : 1;
}

TEST_P(Fault, LeavesNothingAndTheNextCallWorks)
{
    const Scenario &scenario = std::get<0>(GetParam());
    pm_fault_mode mode = std::get<1>(GetParam());
    int runs = 0, fired = 0, bad = 0, most = 0, beyond = 0;
    const std::string without = One(scenario, PM_FAULT_COUNT, 0, 0);
    if (without.rfind(kSkipped, 0) == 0)
        GTEST_SKIP() << without.substr(strlen(kSkipped));
    ASSERT_EQ("", without) << "without a fault";
    const int stride = mode == PM_FAULT_STICKY ? Stride() : FirstStride(pm_fault_report().calls);
    if (const char *only = getenv("PM_FAULT_ONLY")) { // K:VARIANT
        int k = 0, variant = 0;
        sscanf(only, "%d:%d", &k, &variant);
        EXPECT_EQ("", One(scenario, mode, k, variant)) << pm_fault_report().name;
        return;
    }
    for (int k = 1; beyond < RunsBeyond() && bad <= 9; k += stride) {
        int variants = 1;
        bool last = false;
        for (int variant = 0; variant < variants && !last; variant++) {
            if (variant > 0 && k / stride % Stride() != 0)
                break;
            std::string problems = One(scenario, mode, k, variant);
            struct pm_fault_report report = pm_fault_report();
            runs++;
            fired += report.fired;
            most = std::max(most, report.calls);
            variants = std::max(variants, report.variants);
            last = report.calls < k;
            if (report.calls > kCallsMost)
                problems += "    spins: " + std::to_string(report.calls) + " calls, of " +
                            report.spinning + "\n";
            if (!problems.empty()) {
                ADD_FAILURE() << scenario.name << (mode == PM_FAULT_STICKY ? ", sticky" : ", once")
                              << ", call " << k << ":" << variant << ": " << report.name << " = "
                              << strerror(report.error) << "\n"
                              << problems;
                bad++;
            }
        }
        beyond = last ? beyond + 1 : 0;
    }
    printf("%d runs, %d faults, up to %d calls\n", runs, fired, most);
    EXPECT_GT(fired, 0);
    RecordProperty("runs", runs);
}

std::string NameOf(const testing::TestParamInfo<Fault::ParamType> &info)
{
    return std::string(std::get<0>(info.param).name) +
           (std::get<1>(info.param) == PM_FAULT_STICKY ? "Sticky" : "Once");
}

INSTANTIATE_TEST_SUITE_P(Calls, Fault,
                         testing::Combine(testing::ValuesIn(kScenarios),
                                          testing::Values(PM_FAULT_ONCE, PM_FAULT_STICKY)),
                         NameOf);

// ------------------------------------------------------------------------------------------------
// Completeness
// ------------------------------------------------------------------------------------------------

std::set<std::string> Words(FILE *in,
                            const std::function<bool(const std::vector<std::string> &)> &use)
{
    std::set<std::string> found;
    char line[512];
    while (in != nullptr && fgets(line, sizeof(line), in) != nullptr) {
        std::istringstream text(line);
        std::vector<std::string> words{std::istream_iterator<std::string>(text), {}};
        if (words.size() >= 2 && use(words))
            found.insert(words.back());
    }
    return found;
}

// The start fails after its program has run and left a descendant that no group holds.
void UnwatchedTree(Run &run)
{
    run.Open(false, PM_LOOP_OWN, true);
    std::string script = "setsid sh -c 'sleep 1000 & : >" + run.file + "; exit 0'; exec sleep 1000";
    Shell child(script.c_str());
    pm_error error = PM_ERROR_INIT;
    pm_fault_deny("clone,pidfd_open,pthread_create");
    pm_fault_hold("pthread_create", run.file.c_str());
    int result = pm_spawn(run.manager, &child.spec, nullptr, &error);
    pm_fault_deny("");
    run.Expect(result < 0 && error.stage == PM_STAGE_WATCH, "no failure to watch");
    run.Expect(access(run.file.c_str(), F_OK) == 0, "it has not run");
    run.Close();
}

TEST_F(Rig, OfAStartThatFailsWhenItsProgramRunsNobodyIsLeft)
{
    EXPECT_EQ("", One({"UnwatchedTree", UnwatchedTree}, PM_FAULT_COUNT, 0, 0));
}

// The start of one whose program has run fails, and its tree cannot be looked for.
void UnseenTree(Run &run)
{
    run.Open(false, PM_LOOP_OWN, true);
    std::string go_on = run.file + "-go-on";
    std::string script = "setsid sh -c 'sleep 1000 & : > " + run.file + "'; exec sleep 1000";
    Shell child(script.c_str());
    pm_error error = PM_ERROR_INIT;
    pm_fault_deny("epoll_ctl");
    pm_fault_hold("epoll_ctl", go_on.c_str());
    std::thread meanwhile([&] {
        (void)Eventually([&] { return access(run.file.c_str(), F_OK) == 0; });
        pm_fault_deny("epoll_ctl,open"); // The lists of children.
        std::ofstream give(go_on);
    });
    run.Expect(pm_spawn(run.manager, &child.spec, nullptr, &error) < 0, "started");
    meanwhile.join();
    run.Expect(error.stage == PM_STAGE_WATCH, "it failed at another stage");
    pm_fault_deny("");
    run.Close();
}

TEST_F(Rig, WhoIsLeftOfAStartThatFailedIsEndedByTheClose)
{
    EXPECT_EQ("", One({"UnseenTree", UnseenTree}, PM_FAULT_COUNT, 0, 0));
}

// Of each child the stop has to know three times who is in its session: asked, continued, gone.
// Where the children die one by one each may make a round of its own.
void ManySessions(Run &run)
{
    const int children = 100;
    run.Open(false);
    std::vector<pm_process *> processes;
    for (int i = 0; i < children; i++) {
        Sleeper child;
        child.spec.new_session = true;
        processes.push_back(run.Spawn(child.spec));
    }
    pm_fault_arm(PM_FAULT_COUNT, 0, 0); // Counts from here on.
    pm_stop_all_report report = PM_STOP_ALL_REPORT_INIT;
    int result = pm_stop_all(run.manager, kPatience, nullptr, nullptr, &report);
    int tables = pm_fault_report().tables;
    run.Expect(result == PM_OK && report.stopped == children, "not all are stopped");
    run.Expect(tables > 0 && tables < 3 * children / 2,
               "the process table was read " + std::to_string(tables) + " times");
    for (pm_process *process : processes)
        pm_process_unref(process);
    run.Close();
}

TEST_F(Rig, AStopOfManySessionsReadsTheProcessTableOnceInARound)
{
    EXPECT_EQ("", One({"ManySessions", ManySessions}, PM_FAULT_COUNT, 0, 0));
}

// The keeper looks once in 32 for those of whom nobody is left.
void ManyWards(Run &run, bool own_process)
{
    const int children = 70;
    run.Open(false, PM_LOOP_OWN, own_process);
    pm_fault_arm(PM_FAULT_COUNT, 0, 0);
    for (int i = 0; i < children; i++) {
        Shell child("exit 7");
        child.spec.new_session = true;
        child.spec.die_with_parent = true;
        pm_process *process = run.Spawn(child.spec);
        run.Wait(process, PM_EXIT_EXITED, 7);
        pm_process_unref(process);
    }
    int tables = pm_fault_report().tables;
    run.Expect(tables > 0 && tables < children / 4,
               "the process table was read " + std::to_string(tables) + " times");
    run.Close();
}

void ManySessionWards(Run &run)
{
    ManyWards(run, false);
}

void ManyMarkedWards(Run &run)
{
    ManyWards(run, true);
}

TEST_F(Rig, AKeeperOfManySessionsReadsTheProcessTableOnceForAll)
{
    EXPECT_EQ("", One({"ManySessionWards", ManySessionWards}, PM_FAULT_COUNT, 0, 0));
    EXPECT_EQ("", One({"ManyMarkedWards", ManyMarkedWards}, PM_FAULT_COUNT, 0, 0));
}

// In a session, with a process in a group of its own: timeout(1) makes one.
struct Jobs : Shell {
    explicit Jobs(const std::string &file)
        : Shell("timeout 1000 sh -c ': >\"$1\"; exec sleep 1000' sh \"$0\" & wait")
    {
        argv.insert(argv.end() - 1, file.c_str());
        spec.argv = argv.data();
        spec.new_session = true;
    }
};

// Where the kernel says that a pidfd is of another pid namespace, the number is a stranger's. To a
// filter it is not an answer.
void ForeignPidfds(Run &run, bool own_process)
{
    run.Open(false, PM_LOOP_OWN, own_process);
    Jobs child(run.file);
    pm_process *process = run.Spawn(child.spec);
    run.Expect(Eventually([&] { return access(run.file.c_str(), F_OK) == 0; }), "no job");
    for (const char *denied : {"foreign_pidfds", "pidfd_send_signal"}) {
        pm_fault_arm(PM_FAULT_COUNT, 0, 0);
        pm_fault_deny(denied);
        (void)pm_process_signal(process, SIGURG, PM_SCOPE_TREE); // Ends nobody.
        (void)pm_process_signal(process, SIGURG, PM_SCOPE_GROUP);
        pm_fault_deny("");
        bool by_number = pm_fault_report().kills > 0;
        run.Expect(by_number == (strcmp(denied, "pidfd_send_signal") == 0),
                   std::string(by_number ? "" : "not ") + "by number with " + denied);
    }
    run.Do("stop", [&](pm_error *) { return pm_process_stop(process, nullptr, nullptr); });
    pm_process_unref(process);
    run.Close();
}

void ForeignSession(Run &run)
{
    ForeignPidfds(run, false);
}

void ForeignTree(Run &run)
{
    ForeignPidfds(run, true);
}

TEST_F(Rig, AProcessOfAnotherNamespaceIsNotSignalledByNumber)
{
#ifndef HAVE_PIDFD
    GTEST_SKIP() << "no pidfds in this build";
#endif
    EXPECT_EQ("", One({"ForeignSession", ForeignSession}, PM_FAULT_COUNT, 0, 0));
    std::filesystem::remove(folder + "/file");
    EXPECT_EQ("", One({"ForeignTree", ForeignTree}, PM_FAULT_COUNT, 0, 0));
}

std::set<std::string> KnownSymbols()
{
    FILE *list = fopen(PM_FAULT_SYMBOLS, "r");
    EXPECT_NE(nullptr, list);
    std::set<std::string> known =
        Words(list, [](const auto &words) { return words[0] == "wrap" || words[0] == "safe"; });
    if (list != nullptr)
        fclose(list);
    return known;
}

// Children that do not die when they are killed, and no thread that waits for them.
void LeaveMany(size_t count)
{
    std::vector<pid_t> children;
    siginfo_t info = {};
    pm_fault_deny("pthread_create");
    for (size_t i = 0; i < count; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            alarm(60); // Whatever becomes of us.
            pause();
            _exit(0);
        }
        ASSERT_GT(pid, 0); // -1 would be everybody below.
        children.push_back(pid);
        ASSERT_EQ(-1, pmi_child_collect(pid, -1, 0));
    }
    for (pid_t pid : children)
        ASSERT_EQ(0, kill(pid, SIGKILL));
    EXPECT_TRUE(Eventually([&] { // Whom it has forgotten stays.
        pmi_reap_left();
        return waitid(P_ALL, 0, &info, WEXITED | WNOWAIT | WNOHANG) < 0 && errno == ECHILD;
    }));
}

TEST(Left, AreWaitedForHoweverManyTheyAre)
{
    pid_t pid = fork();
    if (pid == 0) {
        LeaveMany(300);
        _exit(testing::Test::HasFailure());
    }
    int status = -1;
    ASSERT_EQ(pid, waitpid(pid, &status, 0));
    EXPECT_EQ(0, status);
}

// A function that is new in the library fails in no run until it stands in the list.
TEST(Symbols, AreAllKnown)
{
    const std::set<std::string> known = KnownSymbols();
    const std::string command = std::string(PM_FAULT_NM) + " " + PM_FAULT_LIBRARY;
    FILE *nm = popen(command.c_str(), "r");
    std::set<std::string> defined, needed;
    needed = Words(nm, [&](const auto &words) {
        if (words[words.size() - 2] != "U")
            defined.insert(words.back());
        return words[words.size() - 2] == "U";
    });
    ASSERT_EQ(0, pclose(nm));
    ASSERT_GT(needed.size(), 50u);
    for (const auto &name : needed) {
        bool of_compiler = name.rfind("__asan", 0) == 0 || name.rfind("__ubsan", 0) == 0 ||
                           name.rfind("__sanitizer", 0) == 0 || name.rfind("__gcov", 0) == 0 ||
                           name == "_GLOBAL_OFFSET_TABLE_" || name == "__stack_chk_fail";
        EXPECT_TRUE(known.count(name) != 0 || defined.count(name) != 0 || of_compiler ||
                    name == "pmi_fault_without")
            << name << " stands not in " << PM_FAULT_SYMBOLS;
    }
}

// All that a pattern's first group finds in a file.
std::set<std::string> FindAll(const std::filesystem::path &path, const char *pattern)
{
    std::ifstream in(path);
    std::stringstream text;
    text << in.rdbuf();
    const std::string all = text.str();
    const std::regex expression(pattern);
    std::set<std::string> found;
    for (std::sregex_iterator at(all.begin(), all.end(), expression), end; at != end; ++at)
        found.insert(at->str(1));
    return found;
}

// The same of what the library asks of the kernel by number.
TEST(Symbols, CallsByNumberAreAllKnown)
{
    const std::filesystem::path root = PM_TEST_SOURCE_DIR;
    std::set<std::string> known = KnownSymbols(), named;
    const auto cases = FindAll(root / "tests/fault/fault.c", "\\bcase (SYS_\\w+):");
    ASSERT_GT(cases.size(), 20u);
    for (const char *folder : {"src/core", "src/posix", "src/launcher"})
        for (const auto &entry : std::filesystem::directory_iterator(root / folder))
            named.merge(FindAll(entry.path(), "\\b(SYS_[a-z]\\w*)"));
    ASSERT_GT(named.size(), 30u);
    for (const auto &name : named)
        EXPECT_EQ(1u, known.count(name) + cases.count(name))
            << name << " is no case of fault.c and stands not in " << PM_FAULT_SYMBOLS
            << ", or both";
}

} // namespace
