// What every contract test stands on: a manager, a scratch folder, children that are this very
// program in a role, and a guard that nothing is left when a test ends.
#ifndef PM_TEST_CONTRACT_FIXTURE_H
#define PM_TEST_CONTRACT_FIXTURE_H

#include <gtest/gtest.h>
#include <processmgr/processmgr.h>

#include <cerrno>
#include <chrono>
#include <functional>
#include <string>
#include <vector>

namespace contract
{

// How many times slower everything is here, roughly: sanitizers, and what PM_TEST_SCALE says.
int Slowness();
// One bound for every wait; longer where everything is slower.
int64_t Patience();
// How often a case does it: the full number if PM_TEST_FULL is set, else the quick one.
int Times(int full, int quick);
bool OnWine();
bool OnValgrind(); // PM_TEST_VALGRIND says so.
bool OnEmulator(); // PM_TEST_EMULATOR says so: qemu's user mode, which has not all that the kernel
                   // has.
bool OnWindows();
// SIGCHLD is ignored, or SA_NOCLDWAIT is set: no child leaves a status, ours or the host's own.
bool HostGetsNoStatuses();
// Where the library has no kernel object for a process, or the kernel is older than 6.15, a status
// that its parent has not taken, or somebody else has, is lost. Everywhere else it is known.
bool KernelTells(pm_process *process);
// We are PID 1 or a subreaper: what the children of our children leave behind is ours to wait for.
bool OrphansComeToUs();
std::string SelfPath();
// A file of the source or the build: where a package is tried, that of the same name in it.
std::string BuiltFile(const std::string &path);
// Of this program; 0 on Windows.
size_t CountDescriptors();
size_t CountThreads();
// Bytes in use, where the C library tells and no sanitizer has taken its place; else 0.
size_t MemoryInUse();

// One more role for the programs of a suite. Before MaybePlayRole(), so from a static object.
using Role = int (*)(const std::vector<std::string> &args);
struct RoleAdder {
    RoleAdder(const char *name, Role role);
};

// Enters a role and never returns if argv asks for one.
void MaybePlayRole(int argc, char **argv);

// The error as its reader sees it.
std::string ErrorText(const pm_error &error);

// Calls again what a signal interrupted.
template <typename Call>
auto Uninterrupted(Call call)
{
    auto result = call();
    while (result < 0 && errno == EINTR)
        result = call();
    return result;
}

// Waits until a state is reached; false at the bound.
bool Eventually(const std::function<bool()> &reached);

std::string MakeTempFolder();
void MakeFolder(const std::string &folder);
void RemoveTree(const std::string &folder);
std::string ReadFile(const std::string &path);
void WriteFile(const std::string &path, const std::string &text);
std::vector<std::string> ListFolder(const std::string &folder);
// Whether that process (not its number) still runs; by number, for processes of the test alone.
bool PidAlive(uint64_t pid);
// Kills one, also by number, and waits until it is dead.
void KillByNumber(uint64_t pid);

// A Spec that starts this program in a role, and everything that it points at.
struct Child {
    explicit Child(std::vector<std::string> role_and_args);
    pm_spec *operator->()
    {
        return &spec;
    }
    const pm_spec *Get();

    pm_spec spec;
    std::string program;
    std::vector<std::string> args;
    std::vector<const char *> argv;
    std::vector<std::string> env;
    std::vector<const char *> envp;
    std::vector<pm_extra> extras;
};

class Contract : public testing::Test
{
  protected:
    void SetUp() override;
    void TearDown() override;

    // Opens `manager`; with a registry in `folder` unless told otherwise.
    void Open(pm_options options = DefaultOptions(), bool registry = true);
    static pm_options DefaultOptions();
    int Close(int64_t timeout_ms = 20000);

    pm_process *Spawn(Child &child);
    pm_process *TrySpawn(Child &child, int *ret_code, pm_error *ret_error = nullptr);
    static pm_exit Wait(pm_process *process);
    struct pm_stats Stats() const;
    // Reads until a newline, at most one line ahead of nothing: the roles speak line by line.
    static std::string ReadLine(pm_process *process, pm_stream_id id = PM_STDOUT);
    // Whether a child that is stopped before its first step holds its starter: without clone3 it
    // does. Needs an open manager.
    bool AStoppedStartHoldsUs();
    static std::string ReadAll(pm_process *process, pm_stream_id id = PM_STDOUT);
    static uint64_t NumberAfter(const std::string &line, const std::string &word);
    void Keep(pm_process *process)
    {
        held.push_back(process);
    }

    pm_manager *manager = nullptr;
    std::string folder;
    std::vector<pm_process *> held;

  private:
    size_t descriptors_before = 0;
    size_t threads_before = 0;
    std::string mask_before;
};

} // namespace contract

#endif
