// What systemd, logind and the process table say, read from trees that the tests make.
#include <gtest/gtest.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

extern "C" {
#include <processmgr/processmgr.h>

#include "runner/doctor.h"
#include "runner/inspect.h"
#include "runner/os.h"
#include "runner/placement.h"
#include "runner/session.h"
#include "runner/stuck.h"
#ifdef _WIN32
#include <windows.h>
#else
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/posix/units.h"
#endif
}

// What main() has for the commands, which are linked with the rest.
extern "C" {
int runner_report(const struct runner_env *, const struct runner_error *error)
{
    return error->code;
}

int runner_usage(const struct runner_env *, const char *, const char *, ...)
{
    return RUNNER_USAGE;
}

const struct runner_command *runner_find_command(const char *)
{
    return nullptr;
}
}

namespace
{

#ifndef _WIN32

namespace fs = std::filesystem;

class Units : public ::testing::Test
{
  protected:
    static void SetUpTestSuite()
    {
        os_begin(); // As main() does, for libuv.
    }

    void SetUp() override
    {
        char name[] = "/tmp/pmunits.XXXXXX";
        ASSERT_NE(nullptr, mkdtemp(name));
        root = name;
        proc = root + "/proc";
        roots = {proc.c_str(), root.c_str()};
    }

    void TearDown() override
    {
        fs::remove_all(root);
    }

    void Write(const std::string &path, const std::string &text) const
    {
        fs::create_directories(fs::path(root + path).parent_path());
        std::ofstream(root + path) << text;
    }

    // "" is no unit.
    std::string Unit(const std::string &group, unit *ret_unit = nullptr) const
    {
        unit found = {};
        if (!unit_of(&roots, group.c_str(), &found)) {
            return "";
        }
        if (ret_unit != nullptr) {
            *ret_unit = found;
        }
        return std::string(found.name) + (found.user ? " user " : " ") + found.kill_mode;
    }

    void Process(int pid, const std::string &rest, const std::string &cgroup = "/") const
    {
        Write("/proc/" + std::to_string(pid) + "/stat", std::to_string(pid) + " " + rest);
        Write("/proc/" + std::to_string(pid) + "/cgroup", "0::" + cgroup + "\n");
    }

    // What doctor finds of one kind in a state folder of ours: "level subject".
    std::string Find(const char *id, std::string *ret_command = nullptr)
    {
        std::string state = root + "/state";
        runner_env env = {};
        env.state_dir = state.c_str();
        env.program = "/no/such/program";
        doctor_options options = {&roots, false};
        runner_error error = {};
        json_t *report = nullptr;
        size_t count = 0, i;
        json_t *item;
        std::string found;
        EXPECT_EQ(RUNNER_OK, runner_doctor(&env, &options, &report, &count, &error));
        json_array_foreach(json_object_get(report, "findings"), i, item)
        {
            if (std::string(json_string_value(json_object_get(item, "id"))) == id) {
                found += std::string(json_string_value(json_object_get(item, "level"))) + " " +
                         json_string_value(json_object_get(item, "subject")) + "\n";
                const char *command = json_string_value(json_object_get(item, "command"));
                if (ret_command != nullptr && command != nullptr) {
                    *ret_command = command;
                }
            }
        }
        json_decref(report);
        return found;
    }

    std::string root, proc;
    inspect_roots roots = {};
};

TEST_F(Units, AreFoundInThePathOfAControlGroup)
{
    EXPECT_EQ("", Unit("/"));
    EXPECT_EQ("", Unit("/docker/0123456789"));
    EXPECT_EQ("", Unit("/user.slice/user-1000.slice"));
    EXPECT_EQ("web.service ", Unit("/system.slice/web.service"));
    EXPECT_EQ("web.service ", Unit("/system.slice/web.service/sub/group"));
    EXPECT_EQ("session-3.scope ", Unit("/user.slice/user-1000.slice/session-3.scope"));
    EXPECT_EQ("r.service user ",
              Unit("/user.slice/user-1000.slice/user@1000.service/app.slice/r.service"));
    EXPECT_EQ("user@1000.service ", Unit("/user.slice/user-1000.slice/user@1000.service/init"));
    unit found = {};
    (void)Unit("/user.slice/user-1000.slice/session-3.scope", &found);
    EXPECT_TRUE(found.session && found.scope);
    EXPECT_EQ(1000u, found.uid);
    EXPECT_FALSE(unit_spares(&found));
}

TEST_F(Units, KillModeIsThatOfTheLastFile)
{
    const char *group = "/system.slice/web.service";
    Write("/usr/lib/systemd/system/web.service", "[Service]\nExecStart=/bin/true\n");
    EXPECT_EQ("web.service control-group", Unit(group));
    Write("/usr/lib/systemd/system/web.service", "[Service]\nKillMode = mixed\n");
    EXPECT_EQ("web.service mixed", Unit(group));
    // A file of its own in /etc replaces that of the package, whatever that says.
    Write("/etc/systemd/system/web.service", "[Service]\n# KillMode=process\n");
    EXPECT_EQ("web.service control-group", Unit(group));
    Write("/usr/lib/systemd/system/web.service.d/10.conf", "[Service]\nKillMode=none\n");
    EXPECT_EQ("web.service none", Unit(group));
    Write("/etc/systemd/system/web.service.d/20.conf", "[Service]\nKillMode=control-group\n");
    EXPECT_EQ("web.service control-group", Unit(group));
    Write("/etc/systemd/system/web.service.d/30.conf", "[Service]\nKillMode=process\n");
    Write("/etc/systemd/system/web.service.d/40.txt", "[Service]\nKillMode=mixed\n");
    unit found = {};
    EXPECT_EQ("web.service process", Unit(group, &found));
    EXPECT_TRUE(unit_spares(&found));
    EXPECT_EQ(root + "/etc/systemd/system/web.service.d/30.conf", found.file);
}

TEST_F(Units, TemplatesHaveTheFileOfTheirName)
{
    Write("/usr/lib/systemd/system/pod@.service", "[Service]\nKillMode=process\nDelegate=yes\n");
    unit found = {};
    EXPECT_EQ("pod@seven.service process", Unit("/system.slice/pod@seven.service", &found));
    EXPECT_TRUE(found.delegate);
}

TEST_F(Units, TheUnitThatComesWithUsSparesItsSessions)
{
    std::ifstream file(std::string(PM_TEST_SOURCE_DIR) +
                       "/src/runner/packaging/processmgr-runner.service.in");
    std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    ASSERT_NE("", text);
    Write("/usr/lib/systemd/system/processmgr-runner.service", text);
    unit found = {};
    EXPECT_EQ("processmgr-runner.service process",
              Unit("/system.slice/processmgr-runner.service", &found));
    EXPECT_TRUE(unit_spares(&found));
}

TEST_F(Units, TheDefaultOfLogindIsTheOneInItsFile)
{
    logind found = {};
    logind_of(&roots, 1000, &found);
    EXPECT_EQ(-1, found.kill);
    Write("/etc/systemd/logind.conf", "[Login]\n#KillUserProcesses=no\n");
    logind_of(&roots, 1000, &found);
    EXPECT_EQ(0, found.kill);
    Write("/etc/systemd/logind.conf", "[Login]\n#KillUserProcesses=yes\n");
    logind_of(&roots, 1000, &found);
    EXPECT_EQ(1, found.kill);
    Write("/etc/systemd/logind.conf.d/x.conf", "[Login]\nKillUserProcesses=no\n");
    logind_of(&roots, 1000, &found);
    EXPECT_EQ(0, found.kill);
    Write("/etc/systemd/logind.conf.d/y.conf", "[Login]\nKillUserProcesses=yes\n");
    logind_of(&roots, 1000, &found);
    EXPECT_EQ(1, found.kill);
    logind_of(&roots, 0, &found);
    EXPECT_EQ(0, found.kill) << "root is excluded unless KillExcludeUsers says otherwise";
    EXPECT_FALSE(found.linger);
    Write("/var/lib/systemd/linger/root", "");
    logind_of(&roots, 0, &found);
    EXPECT_TRUE(found.linger);
}

TEST_F(Units, TheTableTakesNamesOfAnyKindAndKnowsTheDead)
{
    const std::string tail = " 0 0 0 0 0 0 0 0 20 0 ";
    Process(1, "(init) S 0 1 1 0 -1 4194560" + tail + "1 0 5 0 0");
    Process(7, "(x) Z 1 (y) S 1 7 7 34816 7 4194560" + tail + "1 0 90 0 0");
    Process(8, "(dead) Z 7 7 7 0 -1 4194560" + tail + "1 0 95 0 0");
    Process(9, "(leader) Z 7 7 7 0 -1 4194560" + tail + "3 0 96 0 0");
    Process(10, "(young) T 8 7 7 0 -1 4194560" + tail + "1 0 94 0 0");
    Write("/proc/11/stat", "11 (cut) S 1");
    Write("/proc/self/stat", "1 (self) S 1");
    inspect_table table = {};
    ASSERT_EQ(PM_OK, inspect_table_read(&roots, &table));
    ASSERT_EQ(5u, table.count);
    const inspect_process *odd = inspect_find(&table, 7), *dead = inspect_find(&table, 8);
    EXPECT_STREQ("x)?Z?1?(y", odd->name);
    EXPECT_FALSE(odd->zombie);
    EXPECT_EQ(1u, odd->parent);
    EXPECT_TRUE(dead->zombie);
    EXPECT_FALSE(inspect_find(&table, 9)->zombie) << "other threads live";
    EXPECT_TRUE(inspect_find(&table, 10)->stopped);
    EXPECT_EQ(odd, inspect_parent(&table, dead));
    EXPECT_EQ(nullptr, inspect_parent(&table, inspect_find(&table, 10)))
        << "younger than its child";
    inspect_table_clear(&table);
}

TEST_F(Units, TheControlGroupIsThatOfVersion2OrOfSystemd)
{
    char group[4096] = "";
    Write("/proc/5/cgroup", "9:name=systemd:/system.slice/a.service\n1:cpu:/x\n0::/b.service\n");
    ASSERT_TRUE(inspect_cgroup(&roots, 5, group));
    EXPECT_STREQ("/b.service", group);
    Write("/proc/6/cgroup", "9:name=systemd:/system.slice/a.service\n1:cpu:/x\n");
    ASSERT_TRUE(inspect_cgroup(&roots, 6, group));
    EXPECT_STREQ("/system.slice/a.service", group);
    Write("/proc/7/cgroup", "0::/gone.service (deleted)\n");
    ASSERT_TRUE(inspect_cgroup(&roots, 7, group));
    EXPECT_STREQ("/gone.service", group);
    EXPECT_FALSE(inspect_cgroup(&roots, 8, group));
    EXPECT_TRUE(placement_is_own("/a/processmgr-pod-web-7"));
    EXPECT_FALSE(placement_is_own("/a/processmgr-pod-web-7/b"));
    EXPECT_FALSE(placement_is_own("/"));
}

// Here: this very process in place of a runner, as nobody serves.
TEST_F(Units, DoctorSaysWhichServiceWouldEndARunnerAndItsCommandMendsThat)
{
    const std::string tail = " 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0";
    std::string command;
    Process(getpid(), "(me) S 1 1 1 0 -1 0" + tail, "/system.slice/web.service");
    Write("/usr/lib/systemd/system/web.service", "[Service]\n");
    ASSERT_EQ("warning web.service\n", Find("cgroup", &command));
    // The very command, but in our tree and without a systemd to be told.
    size_t reload = command.find(" && systemctl daemon-reload");
    ASSERT_NE(std::string::npos, reload) << command;
    command.resize(reload);
    for (size_t at = 0; (at = command.find("'/etc/", at)) != std::string::npos; at += root.size()) {
        command.insert(at + 1, root);
    }
    if (std::system(":") == 127 << 8) {
        GTEST_SKIP() << "the C library cannot start anything here";
    }
    // What system() returns tells nothing where no statuses are kept.
    const std::string ran = root + "/ran";
    (void)!std::system((command + " && : >'" + ran + "'").c_str());
    ASSERT_TRUE(fs::exists(ran)) << command;
    EXPECT_EQ("", Find("cgroup"));
}

TEST_F(Units, DoctorSaysWhatALogoutEnds)
{
    const std::string tail = " 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0";
    Process(getpid(), "(me) S 1 1 1 0 -1 0" + tail, "/user.slice/user-54321.slice/session-3.scope");
    Write("/etc/systemd/logind.conf", "[Login]\n#KillUserProcesses=no\n");
    EXPECT_EQ("", Find("logout"));
    std::string command;
    Write("/etc/systemd/logind.conf.d/a.conf", "[Login]\nKillUserProcesses=yes\n");
    EXPECT_EQ("error session-3.scope\n", Find("logout", &command));
    EXPECT_NE(std::string::npos, command.find("loginctl enable-linger")) << command;
    fs::remove(root + "/etc/systemd/logind.conf.d/a.conf");
    fs::remove(root + "/etc/systemd/logind.conf");
    EXPECT_EQ("warning session-3.scope\n", Find("logout")) << "not written down";
    // The services of a user end with the last login, unless the user lingers.
    Process(getpid(), "(me) S 1 1 1 0 -1 0" + tail,
            "/user.slice/user-0.slice/user@0.service/app.slice/r.service");
    Write("/usr/lib/systemd/user/r.service", "[Service]\nKillMode=process\n");
    EXPECT_EQ("warning r.service\n", Find("logout", &command));
    EXPECT_EQ("loginctl enable-linger root", command);
    Write("/var/lib/systemd/linger/root", "");
    EXPECT_EQ("", Find("logout"));
}

#ifdef CLONE_NEWPID

enum Answer {
    OURS = 0,
    A_STRANGERS,
    NONE,
    NOT_TO_BE_HAD // There are no namespaces for us.
};

Answer Ask()
{
    char path[4096];
    struct stat mine, named;
    if (stat("/proc/self/exe", &mine) != 0) {
        return os_own_program(path, sizeof path) != 0 ? NONE : A_STRANGERS;
    }
    if (os_own_program(path, sizeof path) != 0 || stat(path, &named) != 0) {
        return NONE;
    }
    return mine.st_dev == named.st_dev && mine.st_ino == named.st_ino ? OURS : A_STRANGERS;
}

Answer CollectChild(pid_t child)
{
    int status = 0;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status)
               ? static_cast<Answer>(WEXITSTATUS(status))
               : NOT_TO_BE_HAD;
}

// As the process of this number.
Answer AskAs(pid_t number)
{
    std::ofstream("/proc/sys/kernel/ns_last_pid") << number - 1 << std::flush;
    pid_t child = fork();
    if (child == 0) {
        _exit(getpid() == number ? Ask() : NOT_TO_BE_HAD);
    }
    return CollectChild(child);
}

// In a process of other namespaces, whose /proc is still that of ours, or none at all. `number`: of
// somebody there.
Answer AskElsewhere(bool without_proc, pid_t number)
{
    (void)signal(SIGCHLD, SIG_DFL); // Ignored, as some hosts have it, it lets nobody wait.
    pid_t outer = fork();
    if (outer != 0) {
        return CollectChild(outer);
    }
    int wanted = CLONE_NEWPID | CLONE_NEWNS;
    if (unshare(wanted) != 0 && unshare(wanted | CLONE_NEWUSER) != 0) {
        _exit(NOT_TO_BE_HAD);
    }
    pid_t inner = fork();
    if (inner != 0) {
        _exit(CollectChild(inner));
    }
    if (without_proc && (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
                         mount("none", "/proc", "tmpfs", 0, nullptr) != 0)) {
        _exit(NOT_TO_BE_HAD);
    }
    _exit(without_proc ? Ask() : AskAs(number));
}

TEST(OwnProgram, IsNoStrangersInTheProcOfAnotherNamespace)
{
    ASSERT_EQ(OURS, Ask());
    pid_t stranger = fork();
    if (stranger == 0) {
        (void)execlp("sleep", "sleep", "60", nullptr);
        _exit(1);
    }
    ASSERT_GT(stranger, 1);
    std::string name;
    while (name != "sleep" && waitpid(stranger, nullptr, WNOHANG) == 0) { // Our own file still.
        std::ifstream("/proc/" + std::to_string(stranger) + "/comm") >> name;
    }
    ASSERT_EQ("sleep", name);
    Answer answer = AskElsewhere(false, stranger);
    (void)kill(stranger, SIGKILL);
    (void)waitpid(stranger, nullptr, 0);
    if (answer == NOT_TO_BE_HAD) {
        GTEST_SKIP() << "no pid namespace can be made";
    }
    EXPECT_EQ(OURS, answer);
}

TEST(OwnProgram, IsNoneWithoutProc)
{
    Answer answer = AskElsewhere(true, 0);
    if (answer == NOT_TO_BE_HAD) {
        GTEST_SKIP() << "no mount namespace can be made";
    }
    EXPECT_EQ(NONE, answer);
}

#endif
#endif

TEST(Quote, GivesAShellThePath)
{
    char quoted[4400];
#ifdef _WIN32
    doctor_quote("C:\\a b\\it's", quoted);
    EXPECT_STREQ("\"C:\\a b\\it's\"", quoted);
#else
    doctor_quote("/a b/it's $x", quoted);
    EXPECT_STREQ("'/a b/it'\\''s $x'", quoted);
#endif
}

TEST(Errors, HaveALineToGoOnWith)
{
    struct runner_error error;
    EXPECT_EQ(runner_fail(&error, RUNNER_FAILED, "start\nout of memory"), RUNNER_FAILED);
    EXPECT_STREQ(error.next, "runner doctor");
    (void)runner_fail(&error, RUNNER_NO_SESSION, "get");
    EXPECT_STREQ(error.next, "runner list");
    (void)runner_fail(&error, RUNNER_USAGE, "usage\n%s", "nonsense");
    EXPECT_STREQ(error.next, "runner --help");
    (void)runner_fail(&error, RUNNER_FAILED, "a\nb\nnone: %s", "because");
    EXPECT_STREQ(error.next, "none: because");
}

TEST(Errors, NameTheFolderOfTheirCommands)
{
    char quoted[4400], text[RUNNER_NEXT_MAX];
    struct runner_env env = {};
    env.state_dir = "/a b/it's";
    EXPECT_STREQ(runner_next(&env, "runner list", text), "runner list") << "the usual one";
    env.elsewhere = true;
    doctor_quote(env.state_dir, quoted);
    EXPECT_EQ(std::string(runner_next(&env, "runner get a", text)),
              std::string("runner --state ") + quoted + " get a");
    for (const char *other : {"none: because", "see docs/control.md", "ls -ld '/x'",
                              "runner list --help", "runner --state '/x' info", "call again", ""}) {
        EXPECT_STREQ(runner_next(&env, other, text), other);
    }
    env.state_dir = ""; // It is not known yet.
    EXPECT_STREQ(runner_next(&env, "runner list", text), "runner list");
}

TEST(Session, AnExitCodeIsNoSuccessUnlessItIsOne)
{
    EXPECT_EQ(os_exit_code(0), 0);
    EXPECT_EQ(os_exit_code(5), 5);
#ifdef _WIN32
    EXPECT_EQ(os_exit_code(256), 256);
    EXPECT_EQ((uint32_t)os_exit_code(0xC0000100u), 0xC0000100u);
#else
    EXPECT_EQ(os_exit_code(256), 1);
#endif
}

TEST(Session, AVariableIsFoundAsTheSystemNamesIt)
{
    const char *env[] = {"PATHEXT=.exe", "Path=C:\\", "X=", "GONE"};
#ifdef _WIN32
    EXPECT_TRUE(create_has_variable(env, 3, "PATH"));
#else
    EXPECT_FALSE(create_has_variable(env, 3, "PATH"));
#endif
    EXPECT_TRUE(create_has_variable(env, 3, "Path"));
    EXPECT_FALSE(create_has_variable(env, 1, "Path"));
    EXPECT_FALSE(create_has_variable(env, 3, "Pat"));
    EXPECT_TRUE(create_has_variable(env, 3, "X"));
    EXPECT_TRUE(create_has_variable(env, 4, "GONE")); // It shall not have that one.
    EXPECT_FALSE(create_has_variable(env, 4, "GON"));
}

#ifdef _WIN32
// On the console of the test, as a view that waits for ever to write to it.
void be_stuck()
{
    HANDLE screen =
        CreateFileW(L"CONOUT$", GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE,
                    nullptr, OPEN_EXISTING, 0, nullptr);
    (void)SetStdHandle(STD_OUTPUT_HANDLE, screen);
    os_begin();
    bool utf8 = GetConsoleOutputCP() == CP_UTF8;
    if (utf8 && stuck_watch() != nullptr && GenerateConsoleCtrlEvent(CTRL_C_EVENT, 0)) {
        Sleep(INFINITE);
    }
    _Exit(utf8 ? 3 : 4);
}

TEST(Console, GetsItsPageBackFromAStuckView)
{
    if (GetConsoleOutputCP() == 0 && !AllocConsole()) {
        GTEST_SKIP() << "no console can be had";
    }
    UINT before = GetConsoleOutputCP();
    (void)SetConsoleCtrlHandler(nullptr, TRUE); // It is for all on the console.
    ASSERT_TRUE(SetConsoleOutputCP(850));
    GTEST_FLAG_SET(death_test_style, "threadsafe");
    EXPECT_EXIT(be_stuck(), testing::ExitedWithCode(RUNNER_OK), "");
    EXPECT_EQ(GetConsoleOutputCP(), 850u);
    (void)SetConsoleOutputCP(before);
    (void)SetConsoleCtrlHandler(nullptr, FALSE);
}
#endif

} // namespace
