// What a Spec that says nothing gets: one case per row of the table of defaults.

#include "fixture.h"

#include <cstdlib>
#include <map>

#ifdef _WIN32
#include <windows.h>
#else
#include <csignal>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

using namespace contract;

namespace
{

// ------------------------------------------------------------------------------------------------
// Roles
// ------------------------------------------------------------------------------------------------

using Args = std::vector<std::string>;

// Starts one child of which it says nothing but what it is, and gives its exit code back.
// args: role of the child and its arguments.
int Plain(const Args &a)
{
    pm_manager *manager = nullptr;
    pm_process *process = nullptr;
    if (pm_open(nullptr, &manager, nullptr) != PM_OK) {
        return 90;
    }
    Child child(a);
    child->stdin_slot = pm_stdio{};
    pm_error error = PM_ERROR_INIT;
    if (pm_spawn(manager, child.Get(), &process, &error) != PM_OK) {
        fprintf(stderr, "%s\n", ErrorText(error).c_str());
        return 91;
    }
    // In one piece: it is read by a program.
    fprintf(stderr, "started %llu\n", static_cast<unsigned long long>(pm_process_pid(process)));
    fflush(stderr);
    pm_exit record = PM_EXIT_INIT;
    return pm_process_wait(process, PM_FOREVER, &record) == PM_OK ? static_cast<int>(record.code)
                                                                  : 92;
}

// Starts a daemon that inherits its standard output. args: registry folder, file for its report.
int PlainDaemon(const Args &a)
{
    pm_options options = PM_OPTIONS_INIT;
    options.registry_dir = a.at(0).c_str();
    pm_manager *manager = nullptr;
    pm_process *process = nullptr;
    if (pm_open(&options, &manager, nullptr) != PM_OK) {
        return 90;
    }
    Child child({"inspect", a.at(1)});
    child->mode = PM_MODE_DAEMON;
    child->key = "d";
    child->stdin_slot = pm_stdio{};
    child->stdout_slot.kind = PM_STDIO_INHERIT;
    pm_error error = PM_ERROR_INIT;
    if (pm_spawn(manager, child.Get(), &process, &error) != PM_OK) {
        fprintf(stderr, "%s\n", ErrorText(error).c_str());
        return 91;
    }
    return pm_process_wait(process, PM_FOREVER, nullptr) == PM_OK ? 0 : 92;
}

// Copies standard input to standard output, then says something on the third.
int Copy(const Args &)
{
    char buffer[256];
    size_t count = fread(buffer, 1, sizeof buffer, stdin);
    fwrite(buffer, 1, count, stdout);
    fprintf(stderr, "copied\n");
    return 7;
}

bool IsNull(int fd)
{
#ifdef _WIN32
    const DWORD names[] = {STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE};
    HANDLE handle = GetStdHandle(names[fd]);
    DWORD mode;
    return handle != nullptr && handle != INVALID_HANDLE_VALUE &&
           GetFileType(handle) == FILE_TYPE_CHAR && !GetConsoleMode(handle, &mode);
#else
    struct stat st, null;
    return fstat(fd, &st) == 0 && stat("/dev/null", &null) == 0 && st.st_rdev == null.st_rdev &&
           S_ISCHR(st.st_mode);
#endif
}

std::string WorkingFolder()
{
    char path[4096] = "";
#ifdef _WIN32
    GetCurrentDirectoryA(sizeof path, path);
#else
    if (getcwd(path, sizeof path) == nullptr) {
        return "?";
    }
#endif
    return path;
}

// Writes what it finds about itself into a file.
int Inspect(const Args &a)
{
    std::string text = "null ";
    for (int fd = 0; fd < 3; fd++) {
        text += IsNull(fd) ? "1" : "0";
    }
    WriteFile(a.at(0), text + "\ncwd " + WorkingFolder() + "\n");
    return 0;
}

const RoleAdder plain("plain", Plain);
const RoleAdder plain_daemon("plain-daemon", PlainDaemon);
const RoleAdder copy("copy", Copy);
const RoleAdder inspect("inspect", Inspect);

class Defaults : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
    }

    std::string InspectADaemon(Child &child, const std::string &key)
    {
        child->mode = PM_MODE_DAEMON;
        child->key = key.c_str();
        child->stdin_slot = pm_stdio{};
        Wait(Spawn(child));
        return ReadFile(folder + "/out");
    }
};

// ------------------------------------------------------------------------------------------------
// stdio zero
// ------------------------------------------------------------------------------------------------

TEST_F(Defaults, ANormalChildInheritsStdinStdoutAndStderr)
{
    Child child({"plain", "copy"});
    child->stdin_slot.kind = child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    pm_stream *in = pm_process_stream(process, PM_STDIN);
    size_t count = 0;
    EXPECT_EQ(PM_OK, pm_stream_write(in, "through two", 11, Patience(), &count));
    EXPECT_EQ(PM_OK, pm_stream_close(in));
    EXPECT_EQ("through two", ReadAll(process));
    EXPECT_NE(std::string::npos, ReadAll(process, PM_STDERR).find("copied"));
    EXPECT_EQ(7u, Wait(process).code);
}

TEST_F(Defaults, ADaemonHasTheNullDeviceThreeTimes)
{
    Child child({"inspect", folder + "/out"});
    EXPECT_EQ("null 111", InspectADaemon(child, "d1").substr(0, 8));
}

TEST_F(Defaults, ADaemonInheritsWhereThatIsWrittenOut)
{
    // The standard output of the starter is a file, so that the difference is seen.
    Child child({"plain-daemon", folder + "/other", folder + "/out"});
    std::string path = folder + "/stdout";
    child->stdout_slot.kind = PM_STDIO_FILE_TRUNCATE;
    child->stdout_slot.path = path.c_str();
    EXPECT_EQ(0u, Wait(Spawn(child)).code);
    EXPECT_EQ("null 101", ReadFile(folder + "/out").substr(0, 8));
}

// ------------------------------------------------------------------------------------------------
// Working folder, die-with-parent
// ------------------------------------------------------------------------------------------------

TEST_F(Defaults, ADaemonWorksInTheFolderOfItsCaller)
{
    Child child({"inspect", folder + "/out"});
    std::string text = InspectADaemon(child, "d1");
    EXPECT_EQ("cwd " + WorkingFolder() + "\n", text.substr(text.find("cwd ")));
}

TEST_F(Defaults, AChildOutlivesItsParent)
{
    Child child({"plain", "sleep"});
    child->stdout_slot.kind = PM_STDIO_NULL;
    child->stderr_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    uint64_t grandchild = NumberAfter(ReadLine(process, PM_STDERR), "started ");
    ASSERT_NE(0u, grandchild);
    pm_stop_plan plan = {1, {{PM_STOP_KILL, PM_SCOPE_PROCESS, 10000}}};
    EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, nullptr));
    Wait(process);
    EXPECT_TRUE(PidAlive(grandchild));
    KillByNumber(grandchild);
}

// ------------------------------------------------------------------------------------------------
// Group and containment
// ------------------------------------------------------------------------------------------------

TEST_F(Defaults, ContainmentIsAGroupOrAJob)
{
    Child child({"sleep"});
    pm_info info = PM_INFO_INIT;
    ASSERT_EQ(PM_OK, pm_process_info(Spawn(child), &info));
    EXPECT_EQ(OnWindows() ? PM_CONTAIN_JOB : PM_CONTAIN_GROUP, info.containment);
    EXPECT_FALSE(info.die_with_parent);
    EXPECT_EQ(PM_MODE_NORMAL, info.mode);
    EXPECT_EQ(PM_STATE_RUNNING, info.state);
    EXPECT_EQ(PM_DETACH_NONE, info.detachment);
    EXPECT_FALSE(info.best_effort && OnWindows());
}

#ifndef _WIN32

TEST_F(Defaults, GroupIsItsOwnAndHostIsOurs)
{
    Child own({"ids"});
    own->stdout_slot.kind = PM_STDIO_PIPE;
    std::string line = ReadLine(Spawn(own));
    EXPECT_EQ(NumberAfter(line, "pid "), NumberAfter(line, "pgid "));
    Child host({"ids"});
    host->stdout_slot.kind = PM_STDIO_PIPE;
    host->group = PM_GROUP_HOST;
    pm_process *process = Spawn(host);
    line = ReadLine(process);
    EXPECT_EQ(static_cast<uint64_t>(getpgrp()), NumberAfter(line, "pgid "));
    pm_info info = PM_INFO_INIT;
    ASSERT_EQ(PM_OK, pm_process_info(process, &info));
    EXPECT_EQ(PM_CONTAIN_NONE, info.containment);
    EXPECT_EQ(PM_ERR_UNSUPPORTED, pm_process_signal(process, 0, PM_SCOPE_GROUP));
}

TEST_F(Defaults, AnOwnGroupWithATerminalAsStdinIsRefusedByName)
{
    int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
    ASSERT_GE(master, 0);
    ASSERT_EQ(0, grantpt(master));
    ASSERT_EQ(0, unlockpt(master));
    char name[64];
    ASSERT_EQ(0, ptsname_r(master, name, sizeof name));
    int terminal = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
    int kept = fcntl(0, F_DUPFD_CLOEXEC, 3);
    ASSERT_EQ(0, dup2(terminal, 0));

    Child child({"exit", "0"});
    child->stdin_slot = pm_stdio{};
    int code = 0;
    pm_error error = PM_ERROR_INIT;
    TrySpawn(child, &code, &error);
    EXPECT_EQ(PM_ERR_INVALID, code);
    EXPECT_EQ(PM_STAGE_CHECK, error.stage);
    EXPECT_STREQ("group", error.field);
    EXPECT_NE(std::string::npos, std::string(error.hint).find("PM_GROUP_HOST")) << error.hint;
    child->group = PM_GROUP_HOST;
    EXPECT_EQ(0u, Wait(Spawn(child)).code) << "a child that shares the terminal";
    child->group = PM_GROUP_OWN;
    child->stdin_slot.kind = PM_STDIO_NULL;
    EXPECT_EQ(0u, Wait(Spawn(child)).code) << "a child that does not read from it";

    if (kept >= 0) {
        dup2(kept, 0);
        close(kept);
    } else {
        close(0);
    }
    close(terminal);
    close(master);
}

#endif

// ------------------------------------------------------------------------------------------------
// Registry
// ------------------------------------------------------------------------------------------------

TEST_F(Defaults, DaemonModeWithoutARegistryIsRefused)
{
    pm_manager *bare = nullptr;
    ASSERT_EQ(PM_OK, pm_open(nullptr, &bare, nullptr));
    Child child({"exit", "0"});
    child->mode = PM_MODE_DAEMON;
    child->key = "k";
    EXPECT_EQ(PM_ERR_NO_REGISTRY, pm_spawn(bare, child.Get(), nullptr, nullptr));
    EXPECT_EQ(PM_OK, pm_close(bare, 0, nullptr));
}

// The variables of the environment as they were, at its end.
class KeptEnvironment
{
  public:
    explicit KeptEnvironment(const std::vector<std::string> &names)
    {
        for (const auto &name : names) {
            const char *value = getenv(name.c_str());
            was[name] = value != nullptr ? value : "";
        }
    }
    ~KeptEnvironment()
    {
        for (const auto &[name, value] : was) {
            Set(name, value);
        }
    }
    static void Set(const std::string &name, const std::string &value)
    {
#ifdef _WIN32
        _putenv_s(name.c_str(), value.c_str()); // Sets both environments; empty removes.
#else
        value.empty() ? unsetenv(name.c_str()) : setenv(name.c_str(), value.c_str(), 1);
#endif
    }

  private:
    std::map<std::string, std::string> was;
};

TEST_F(Defaults, TheStateFolderIsTheUsersAndPrivate)
{
    char *path = nullptr;
#ifdef _WIN32
    KeptEnvironment kept({"LOCALAPPDATA"});
    KeptEnvironment::Set("LOCALAPPDATA", folder);
    ASSERT_EQ(PM_OK, pm_default_state_dir("app", &path));
    EXPECT_EQ(folder + "\\app", path);
    EXPECT_NE(INVALID_FILE_ATTRIBUTES, GetFileAttributesA(path));
    pm_free(path);
#else
    KeptEnvironment kept({"XDG_STATE_HOME", "HOME"});
    struct stat st;
    KeptEnvironment::Set("HOME", folder + "/home");
    MakeFolder(folder + "/home");
    KeptEnvironment::Set("XDG_STATE_HOME", folder + "/new/state");
    ASSERT_EQ(PM_OK, pm_default_state_dir("app", &path));
    EXPECT_EQ(folder + "/new/state/app", path);
    ASSERT_EQ(0, stat(path, &st));
    EXPECT_EQ(0700u, st.st_mode & 0777);
    pm_free(path);
    for (const char *none : {"", "not/absolute"}) {
        KeptEnvironment::Set("XDG_STATE_HOME", none);
        ASSERT_EQ(PM_OK, pm_default_state_dir("app", &path));
        EXPECT_EQ(folder + "/home/.local/state/app", path);
        ASSERT_EQ(0, stat(path, &st));
        EXPECT_EQ(0700u, st.st_mode & 0777);
        pm_free(path);
    }
#endif
    for (const char *bad : {"a/b", "", ".."}) {
        path = nullptr;
        EXPECT_EQ(PM_ERR_INVALID, pm_default_state_dir(bad, &path)) << bad;
        EXPECT_EQ(nullptr, path);
    }
}

} // namespace
