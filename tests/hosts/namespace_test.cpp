// Pid namespaces: the same number is another process in each of them.
#include "host.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

using namespace contract;
using namespace hosts;

namespace
{

const char *const kKey = "d";

// A daemon with that number, if the system lets us choose. args as below.
int StartAt(pm_manager *manager, const Args &a, pid_t wanted, pm_process **ret_process)
{
    pm_error error = PM_ERROR_INIT;
    for (int i = 0; i < 50; i++) {
        // The launcher comes first.
        WriteFile("/proc/sys/kernel/ns_last_pid", std::to_string(wanted - 2));
        Child daemon({"payload", a.at(0) + "/payload"});
        daemon->mode = PM_MODE_DAEMON;
        daemon->key = kKey;
        NEED(pm_spawn(manager, daemon.Get(), ret_process, &error) == PM_OK);
        if (pm_process_pid(*ret_process) == static_cast<uint64_t>(wanted)) {
            return 0;
        }
        NEED(pm_process_stop(*ret_process, nullptr, nullptr) == PM_OK);
        NEED(pm_process_wait(*ret_process, Patience(), nullptr) == PM_OK);
        pm_process_unref(*ret_process);
    }
    printf("the number was not given\n");
    return 1;
}

// Waits for the audience between its acts. args: folder, number of a process outside.
int NestedPart(const Args &a)
{
    pm_error error = PM_ERROR_INIT;
    std::string registry = a.at(0) + "/registry";
    pm_options options = OptionsFor(registry);
    options.status_pending_ms = 20000;
    options.loop = PM_LOOP_CALLER; // No thread takes a number.
    pm_manager *manager = nullptr;
    pm_process *process = nullptr;
    pm_info info = PM_INFO_INIT;
    char cue;
    NEED(getpid() < 1000);
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    if (StartAt(manager, a, std::stoi(a.at(1)), &process) != 0) {
        return 1;
    }
    NEED(pm_process_info(process, &info) == PM_OK && info.alive && !info.adopted);
    NEED(
        Eventually([&] { return ReadFile(a.at(0) + "/payload").find('\n') != std::string::npos; }));
    printf("open\n");
    fflush(stdout);
    NEED(Uninterrupted([&] { return read(0, &cue, 1); }) == 1);
    pm_process_unref(process);
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    printf("closed\n");
    fflush(stdout);
    NEED(Uninterrupted([&] { return read(0, &cue, 1); }) == 1);

    // A second manager of the same namespace.
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    struct pm_recover_report report = PM_RECOVER_REPORT_INIT;
    NEED(pm_recover(manager, nullptr, nullptr, &report) == PM_OK);
    NEED(report.alive == 1 && report.unproven == 0);
    NEED(pm_find(manager, kKey, &process) == PM_OK);
    NEED(pm_process_alive(process));
    NEED(pm_process_info(process, &info) == PM_OK && info.recovered);
    NEED(pm_process_stop(process, nullptr, nullptr) == PM_OK);
    pm_exit record = PM_EXIT_INIT;
    NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
    if (KernelTells(process)) {
        NEED(record.kind == PM_EXIT_EXITED && record.code == 5);
    }
    pm_process_unref(process);
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    NEED(Records(registry) == 0 && Children() == 0);
    return 0;
}
const RoleAdder nested_part("host-nested", NestedPart);

// Without a /proc of its own, and so with nobody's identity: daemons are refused by a name before
// anything is started, children need none. args: folder.
int ForeignProcPart(const Args &a)
{
    pm_error error = PM_ERROR_INIT;
    std::string registry = a.at(0) + "/registry";
    pm_options options = OptionsFor(registry);
    pm_manager *manager = nullptr;
    NEED(pm_open(&options, &manager, &error) == PM_ERR_IDENTITY);
    NEED(error.stage == PM_STAGE_REGISTRY);
    options.registry_dir = nullptr;
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    pm_process *process = nullptr;
    pm_exit record = PM_EXIT_INIT;
    // Some have ended by the time that their start is looked at, and in the foreign /proc many of
    // these numbers belong to threads of the kernel, which have never become a program.
    for (int i = 0; i < 50; i++) {
        Child child({});
        child.program = "/bin/sh";
        child.args = {"sh", "-c", "exit 9"};
        NEED(pm_spawn(manager, child.Get(), &process, &error) == PM_OK);
        NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
        NEED(record.kind == PM_EXIT_EXITED && record.code == 9);
        pm_process_unref(process);
    }
    // Also one whose session would be looked for: its members there are strangers.
    for (bool session : {false, true}) {
        Child lingering({"linger"});
        lingering->stdout_slot.kind = PM_STDIO_NULL;
        lingering->new_session = session;
        NEED(pm_spawn(manager, lingering.Get(), &process, &error) == PM_OK);
        pm_stop_report report = PM_STOP_REPORT_INIT;
        NEED(pm_process_stop(process, nullptr, &report) == PM_OK && !report.tree_left);
        NEED(pm_process_wait(process, Patience(), &record) == PM_OK);
        NEED(record.kind == PM_EXIT_SIGNALED && record.signal == SIGTERM);
        pm_process_unref(process);
    }
    NEED(pm_close(manager, -1, nullptr) == PM_OK);
    return 0;
}
const RoleAdder foreign_proc_part("host-foreign-proc", ForeignProcPart);

// ------------------------------------------------------------------------------------------------
// A copy that a host has made of itself, in a namespace where it has the number of its host
// ------------------------------------------------------------------------------------------------

struct Copied {
    pm_manager *manager;
    pm_process *process;
};

// Each call that acts says that it is a copy's, and nobody hears of it.
int RefusedAll(const Copied &host)
{
    pm_error error = PM_ERROR_INIT;
    Child child({"sleep"});
    pm_process *process = nullptr;
    NEED(pm_process_signal(host.process, SIGKILL, PM_SCOPE_PROCESS) == PM_ERR_FORKED);
    NEED(pm_process_signal(host.process, SIGKILL, PM_SCOPE_TREE) == PM_ERR_FORKED);
    NEED(pm_process_stop(host.process, nullptr, nullptr) == PM_ERR_FORKED);
    NEED(pm_process_wait(host.process, 0, nullptr) == PM_ERR_FORKED);
    NEED(pm_spawn(host.manager, child.Get(), &process, &error) == PM_ERR_FORKED);
    NEED(pm_stop_all(host.manager, 1000, nullptr, nullptr, nullptr) == PM_ERR_FORKED);
    NEED(pm_recover(host.manager, nullptr, nullptr, nullptr) == PM_ERR_FORKED);
    return 0;
}

// Somebody with the number of the host's child.
pid_t Namesake(pid_t wanted)
{
    for (int i = 0; i < 50; i++) {
        WriteFile("/proc/sys/kernel/ns_last_pid", std::to_string(wanted - 1));
        pid_t pid = fork();
        if (pid == 0) {
            for (;;) {
                pause();
            }
        }
        if (pid == wanted) {
            return pid;
        }
        kill(pid, SIGKILL);
        waitpid(pid, nullptr, 0);
    }
    return 0;
}

int CopyInANamespace(const Copied &host, const std::string &registry, int out, int in)
{
    pm_error error = PM_ERROR_INIT;
    alarm(60);
    NEED(getpid() == 1);
    if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("proc", "/proc", "proc", 0, nullptr) != 0) {
        return kNoSuchHost;
    }
    pid_t namesake = Namesake(static_cast<pid_t>(pm_process_pid(host.process)));
    NEED(namesake > 0);
    NEED(RefusedAll(host) == 0);
    int status = 0;
    NEED(waitpid(namesake, &status, WNOHANG) == 0);
    kill(namesake, SIGKILL);
    waitpid(namesake, nullptr, 0);

    pm_options options = OptionsFor(registry);
    options.loop = PM_LOOP_CALLER;
    pm_manager *manager = nullptr;
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    Child daemon({"sleep"});
    daemon->mode = PM_MODE_DAEMON;
    daemon->key = kKey;
    daemon->stdin_slot.kind = daemon->stdout_slot.kind = daemon->stderr_slot.kind = PM_STDIO_NULL;
    pm_process *process = nullptr;
    NEED(pm_spawn(manager, daemon.Get(), &process, &error) == PM_OK);
    char cue = 'o';
    NEED(write(out, &cue, 1) == 1);
    NEED(read(in, &cue, 1) == 1);
    NEED(pm_process_alive(process));
    NEED(pm_process_stop(process, nullptr, nullptr) == PM_OK);
    pm_process_unref(process);
    NEED(pm_close(manager, 20000, nullptr) == PM_OK);
    return 0;
}

// The host is PID 1 and has used a registry before. args: folder.
int CopyPart(const Args &a)
{
    pm_error error = PM_ERROR_INIT;
    std::string registry = a.at(0) + "/registry", shared = a.at(0) + "/shared";
    pm_options options = OptionsFor(registry);
    options.loop = PM_LOOP_CALLER;
    Copied host = {};
    NEED(getpid() == 1);
    NEED(pm_open(&options, &host.manager, &error) == PM_OK);
    Child child({"sleep"});
    child->stdin_slot.kind = child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_NULL;
    NEED(pm_spawn(host.manager, child.Get(), &host.process, &error) == PM_OK);

    int up[2], down[2];
    NEED(pipe2(up, O_CLOEXEC) == 0 && pipe2(down, O_CLOEXEC) == 0);
    if (unshare(CLONE_NEWPID | CLONE_NEWNS) != 0) {
        return kNoSuchHost;
    }
    pid_t copy = fork();
    if (copy == 0) {
        close(up[0]);
        close(down[1]);
        int code = CopyInANamespace(host, shared, up[1], down[0]);
        fflush(stdout);
        _exit(code);
    }
    close(up[1]);
    close(down[0]);
    char cue;
    if (Uninterrupted([&] { return read(up[0], &cue, 1); }) == 1) {
        // Its owner lives, in another namespace: nobody else may tell of its daemons.
        pm_manager *second = nullptr;
        options.registry_dir = shared.c_str();
        NEED(pm_open(&options, &second, &error) == PM_ERR_REGISTRY_BUSY);
        NEED(write(down[1], &cue, 1) == 1);
    }
    int status = 0;
    NEED(Uninterrupted([&] { return waitpid(copy, &status, 0); }) == copy);
    NEED(WIFEXITED(status));
    NEED(pm_process_alive(host.process));
    NEED(pm_process_stop(host.process, nullptr, nullptr) == PM_OK);
    pm_process_unref(host.process);
    NEED(pm_close(host.manager, 20000, nullptr) == PM_OK);
    return WEXITSTATUS(status);
}
const RoleAdder copy_part("host-copy", CopyPart);

class NamespaceHosts : public Contract
{
};

TEST_F(NamespaceHosts, ACopyInANamespaceOfItsOwnIsNotItsHost)
{
    if (OnEmulator()) {
        GTEST_SKIP() << "the emulator empties no page of a copy";
    }
#ifdef PM_TEST_LIBKQUEUE
    GTEST_SKIP() << "libkqueue makes no kqueue in a copy in another pid namespace";
#endif
    Play({"pid1"}, {"host-copy", folder});
}

TEST_F(NamespaceHosts, WithTheProcOfAnotherRefuseWhatNeedsAnIdentity)
{
    Play({"pid1=foreign-proc"}, {"host-foreign-proc", folder});
}

TEST_F(NamespaceHosts, NestedKnowTheirOwnAndAreNeverTakenForAnother)
{
    // Has the number of the daemon, out here.
    pid_t stranger = fork();
    if (stranger == 0) {
        for (;;) {
            pause();
        }
    }
    Stage stage({"nested"}, {"host-nested", folder, std::to_string(stranger)});
    std::string said = stage.ReadLine();
    if (said == "open") {
        pm_error error = PM_ERROR_INIT;
        pm_options options = DefaultOptions();
        std::string registry = folder + "/registry";
        options.registry_dir = registry.c_str();
        EXPECT_EQ(PM_ERR_REGISTRY_BUSY, pm_open(&options, &manager, &error));
        stage.Say('1');
        EXPECT_EQ("closed", stage.ReadLine());
        Open();
        pm_recover_report report = PM_RECOVER_REPORT_INIT;
        EXPECT_EQ(PM_OK, pm_recover(manager, nullptr, nullptr, &report));
        EXPECT_EQ(1u, report.unproven);
        EXPECT_EQ(0u, report.alive + report.ended + report.dropped + report.quarantined);
        Child daemon({"payload", folder + "/another"});
        daemon->mode = PM_MODE_DAEMON;
        daemon->key = kKey;
        int code = 0;
        TrySpawn(daemon, &code);
        EXPECT_EQ(PM_ERR_EXISTS, code) << "it may well live";
        EXPECT_EQ(PM_OK, pm_stop_daemons(manager, 20000, nullptr, nullptr, nullptr));
        EXPECT_EQ(PM_OK, Close());
        EXPECT_EQ(1u, Records(registry));
        stage.Say('2');
        said.clear();
    }
    int code = stage.End(&said);
    EXPECT_EQ(0, waitpid(stranger, nullptr, WNOHANG)) << "a stranger was ended";
    kill(stranger, SIGKILL);
    Uninterrupted([&] { return waitpid(stranger, nullptr, 0); });
    if (code == kNoSuchHost) {
        GTEST_SKIP() << "no nested pid namespaces here";
    }
    EXPECT_EQ(0, code);
    EXPECT_EQ("", said);
}

} // namespace
