// What a Spec may say, and what is refused with the field's name.

#include "fixture.h"

#include <cstring>

#ifndef _WIN32
#include <csignal>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

using namespace contract;

namespace
{

class Spec : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
    }

    // Expects a refusal that names the field.
    void Refused(Child &child, int expected, const std::string &field)
    {
        int code = 0;
        pm_error error = PM_ERROR_INIT;
        TrySpawn(child, &code, &error);
        EXPECT_EQ(expected, code) << field;
        EXPECT_EQ(expected, error.code) << field;
        EXPECT_EQ(field, error.field);
        EXPECT_STREQ("start", error.action);
    }

    void Refused(const std::function<void(pm_spec &)> &spoil, int expected,
                 const std::string &field)
    {
        Child child({"exit", "0"});
        const pm_spec *good = child.Get();
        pm_spec spec = *good;
        spoil(spec);
        pm_process *process = nullptr;
        pm_error error = PM_ERROR_INIT;
        int code = pm_spawn(manager, &spec, &process, &error);
        if (process != nullptr) {
            Keep(process);
        }
        EXPECT_EQ(expected, code) << field;
        EXPECT_EQ(field, error.field);
        EXPECT_EQ(PM_STAGE_CHECK, error.stage) << field;
    }
};

TEST_F(Spec, AnOwnerIsRequired)
{
    Refused([](pm_spec &s) { s.owner = nullptr; }, PM_ERR_INVALID, "owner");
    Refused([](pm_spec &s) { s.owner = ""; }, PM_ERR_INVALID, "owner");
    std::string longest(256, 'x');
    Refused([&](pm_spec &s) { s.owner = longest.c_str(); }, PM_ERR_INVALID, "owner");
}

TEST_F(Spec, AProgramIsRequired)
{
    Refused([](pm_spec &s) { s.program = nullptr; }, PM_ERR_INVALID, "program");
    Refused([](pm_spec &s) { s.program = ""; }, PM_ERR_INVALID, "program");
}

TEST_F(Spec, ALargerStructWithANonZeroTailIsRefused)
{
    struct Larger {
        pm_spec spec;
        char more[16];
    } larger = {};
    Child child({"exit", "0"});
    larger.spec = *child.Get();
    larger.spec.size = sizeof larger;
    pm_process *process = nullptr;
    EXPECT_EQ(PM_OK, pm_spawn(manager, &larger.spec, &process, nullptr)) << "a zero tail is fine";
    Keep(process);
    Wait(process);
    larger.more[7] = 1;
    EXPECT_EQ(PM_ERR_INVALID, pm_spawn(manager, &larger.spec, &process, nullptr));
    larger.spec.size = 3;
    EXPECT_EQ(PM_ERR_INVALID, pm_spawn(manager, &larger.spec, &process, nullptr));
}

TEST_F(Spec, WhatThisSystemDoesNotHaveIsRefusedByName)
{
    if (OnWindows()) {
        const uint32_t group = 1;
        pm_rlimit limit = {1, 1, 1};
        Refused([](pm_spec &s) { s.group = PM_GROUP_FOREGROUND; }, PM_ERR_UNSUPPORTED, "group");
        Refused([](pm_spec &s) { s.run_as_user = "nobody"; }, PM_ERR_UNSUPPORTED, "run_as_user");
        Refused([](pm_spec &s) { s.run_as_group = "1"; }, PM_ERR_UNSUPPORTED, "run_as_group");
        Refused([&](pm_spec &s) { s.supplementary_groups = &group; }, PM_ERR_UNSUPPORTED,
                "supplementary_groups");
        Refused([](pm_spec &s) { s.set_umask = true; }, PM_ERR_UNSUPPORTED, "set_umask");
        Refused([&](pm_spec &s) { s.rlimits = &limit, s.rlimits_count = 1; }, PM_ERR_UNSUPPORTED,
                "rlimits");
        Refused([](pm_spec &s) { s.set_nice = true; }, PM_ERR_UNSUPPORTED, "set_nice");
        Refused([](pm_spec &s) { s.new_session = true; }, PM_ERR_UNSUPPORTED, "new_session");
        Refused([](pm_spec &s) { s.no_new_privileges = true; }, PM_ERR_UNSUPPORTED,
                "no_new_privileges");
        Refused([](pm_spec &s) { s.cgroup = "/x"; }, PM_ERR_UNSUPPORTED, "cgroup");
        return;
    }
    Refused([](pm_spec &s) { s.priority_class = PM_PRIORITY_HIGH; }, PM_ERR_UNSUPPORTED,
            "priority_class");
    Refused([](pm_spec &s) { s.job_limits.job_memory = 1; }, PM_ERR_UNSUPPORTED, "job_limits");
    Refused([](pm_spec &s) { s.allow_batch_file = true; }, PM_ERR_UNSUPPORTED, "allow_batch_file");
    Refused([](pm_spec &s) { s.raw_command_line = "x", s.argv = nullptr; }, PM_ERR_UNSUPPORTED,
            "raw_command_line");
    // A job is more than any of these.
    Refused([](pm_spec &s) { s.containment = PM_CONTAIN_CGROUP; }, PM_ERR_UNSUPPORTED,
            "containment");
    Refused([](pm_spec &s) { s.containment = PM_CONTAIN_SUBREAPER; }, PM_ERR_UNSUPPORTED,
            "containment");
    Refused([](pm_spec &s) { s.group = PM_GROUP_HOST, s.containment = PM_CONTAIN_GROUP; },
            PM_ERR_UNSUPPORTED, "containment");
}

TEST_F(Spec, OptionsAreCheckedByTheirRanges)
{
    pm_rlimit twice[2] = {{1, 2, 3}, {1, 2, 3}}, above = {1, 3, 2};
    const uint32_t group = 1;
    Refused([](pm_spec &s) { s.set_umask = true, s.umask_value = 01000; }, PM_ERR_INVALID,
            "umask_value");
    Refused([](pm_spec &s) { s.umask_value = 1; }, PM_ERR_INVALID, "umask_value");
    Refused([](pm_spec &s) { s.set_nice = true, s.nice_value = 20; }, PM_ERR_INVALID, "nice_value");
    Refused([](pm_spec &s) { s.set_nice = true, s.nice_value = -21; }, PM_ERR_INVALID,
            "nice_value");
    Refused([](pm_spec &s) { s.nice_value = 1; }, PM_ERR_INVALID, "nice_value");
    Refused([](pm_spec &s) { s.rlimits_count = 1; }, PM_ERR_INVALID, "rlimits");
    Refused([&](pm_spec &s) { s.rlimits = twice, s.rlimits_count = 2; }, PM_ERR_INVALID, "rlimits");
    Refused([&](pm_spec &s) { s.rlimits = &above, s.rlimits_count = 1; }, PM_ERR_INVALID,
            "rlimits");
    Refused([](pm_spec &s) { s.supplementary_groups_count = 1; }, PM_ERR_INVALID,
            "supplementary_groups");
    Refused([](pm_spec &s) { s.groups_of_user = true; }, PM_ERR_INVALID, "groups_of_user");
    Refused(
        [&](pm_spec &s) {
            s.run_as_user = "0", s.groups_of_user = true, s.supplementary_groups = &group;
        },
        PM_ERR_INVALID, "groups_of_user");
    Refused([](pm_spec &s) { s.new_session = true, s.group = PM_GROUP_HOST; }, PM_ERR_INVALID,
            "new_session");
    Refused([](pm_spec &s) { s.raw_command_line = "x"; }, PM_ERR_INVALID, "raw_command_line");
    Refused([](pm_spec &s) { memset(&s.priority_class, 0x7f, sizeof s.priority_class); },
            PM_ERR_INVALID, "priority_class");
    Refused([](pm_spec &s) { s.terminal_columns = 80; }, PM_ERR_INVALID, "terminal_columns");
    Refused([](pm_spec &s) { s.terminal_rows = 24; }, PM_ERR_INVALID, "terminal_rows");
    Refused([](pm_spec &s) { s.stdin_slot.kind = PM_STDIO_TERMINAL; }, PM_ERR_INVALID,
            "stdin_slot");
}

TEST_F(Spec, EnumsOutOfRangeAreRefused)
{
    Refused([](pm_spec &s) { memset(&s.mode, 0x7f, sizeof s.mode); }, PM_ERR_INVALID, "mode");
    Refused([](pm_spec &s) { memset(&s.group, 0x7f, sizeof s.group); }, PM_ERR_INVALID, "group");
    Refused([](pm_spec &s) { memset(&s.stdin_slot.kind, 0x7f, sizeof s.stdin_slot.kind); },
            PM_ERR_INVALID, "stdin_slot");
    Refused([](pm_spec &s) { s.stop.steps_count = 99; }, PM_ERR_INVALID, "stop");
}

TEST_F(Spec, StdioKindsAreCheckedPerSlot)
{
    Refused([](pm_spec &s) { s.stdin_slot.kind = PM_STDIO_STDOUT; }, PM_ERR_INVALID, "stdin_slot");
    Refused([](pm_spec &s) { s.stdout_slot.kind = PM_STDIO_STDOUT; }, PM_ERR_INVALID,
            "stdout_slot");
    Refused([](pm_spec &s) { s.stdout_slot.kind = PM_STDIO_FILE_APPEND; }, PM_ERR_INVALID,
            "stdout_slot");
    Refused(
        [](pm_spec &s) {
            s.stderr_slot.kind = PM_STDIO_FILE_READ;
            s.stderr_slot.path = "x";
        },
        PM_ERR_INVALID, "stderr_slot");
}

TEST_F(Spec, DaemonFieldsAreCheckedAgainstTheMode)
{
    auto daemon = [](pm_spec &s) {
        s.mode = PM_MODE_DAEMON;
        s.key = "k";
        s.stdin_slot.kind = PM_STDIO_DEFAULT;
    };
    Refused(
        [&](pm_spec &s) {
            daemon(s);
            s.key = nullptr;
        },
        PM_ERR_INVALID, "key");
    Refused(
        [&](pm_spec &s) {
            daemon(s);
            s.key = "";
        },
        PM_ERR_INVALID, "key");
    std::string key(129, 'k'), label(1025, 'l');
    Refused(
        [&](pm_spec &s) {
            daemon(s);
            s.key = key.c_str();
        },
        PM_ERR_INVALID, "key");
    Refused(
        [&](pm_spec &s) {
            daemon(s);
            s.label = label.c_str();
        },
        PM_ERR_INVALID, "label");
    Refused(
        [&](pm_spec &s) {
            daemon(s);
            s.die_with_parent = true;
        },
        PM_ERR_UNSUPPORTED, "die_with_parent");
    Refused(
        [&](pm_spec &s) {
            daemon(s);
            s.kill_tree_on_exit = true;
        },
        PM_ERR_UNSUPPORTED, "kill_tree_on_exit");
    Refused(
        [&](pm_spec &s) {
            daemon(s);
            s.stdout_slot.kind = PM_STDIO_PIPE;
        },
        PM_ERR_UNSUPPORTED, "stdout_slot");
    Refused([](pm_spec &s) { s.key = "k"; }, PM_ERR_INVALID, "key");
}

TEST_F(Spec, BadEnvironmentEntriesAreRefused)
{
    Child child({"exit", "0"});
    child.env = {"=x"};
    Refused(child, PM_ERR_INVALID, "env");
}

// ------------------------------------------------------------------------------------------------
// Arguments, environment, folder, search
// ------------------------------------------------------------------------------------------------

TEST_F(Spec, ArgumentsArriveAsTheyAre)
{
    std::vector<std::string> hostile = {"",       " ",
                                        "\"",     "\\",
                                        "a b",    "a\\\"b",
                                        "\\\\\"", "c:\\x y\\",
                                        "\t",     "%PATH%",
                                        "$HOME",  "*",
                                        "'",      "a\"b\"c",
                                        "^&|<>",  "\xc3\xa9\xe2\x82\xac",
                                        "--",     "trailing\\\\",
                                        "\" \"",  "!x!"};
    Child child({"argv"});
    child.args.insert(child.args.end(), hostile.begin(), hostile.end());
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    for (const auto &arg : hostile) {
        std::string hex;
        for (char c : arg) {
            char two[3];
            snprintf(two, sizeof two, "%02x", static_cast<unsigned char>(c));
            hex += two;
        }
        std::string line = ReadLine(process);
        // Narrow argv of the C runtime loses what its code page lacks; the wide one is tested
        // apart.
        if (!OnWindows() || arg[0] != '\xc3') {
            EXPECT_EQ("<" + hex + ">", line);
        }
    }
    Wait(process);
}

TEST_F(Spec, TheEnvironmentIsTheCallersWithChanges)
{
    Child child({"env", "PM_TEST_A", "PM_TEST_B", "PATH"});
    child.env = {"PM_TEST_A=1=2", "PM_TEST_B", "PATH=/changed"};
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    EXPECT_EQ("PM_TEST_A=1=2", ReadLine(process));
    EXPECT_EQ("PM_TEST_B is not set", ReadLine(process));
    EXPECT_EQ("PATH=/changed", ReadLine(process));
    Wait(process);
}

TEST_F(Spec, AnEmptyEnvironmentIsEmpty)
{
    Child child({"env", "PM_TEST_A", "HOME", "USERPROFILE"});
    child->env_base = PM_ENV_EMPTY;
    child.env = {"PM_TEST_A=x"};
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    EXPECT_EQ("PM_TEST_A=x", ReadLine(process));
    EXPECT_EQ("HOME is not set", ReadLine(process));
    EXPECT_EQ("USERPROFILE is not set", ReadLine(process));
    Wait(process);
}

TEST_F(Spec, TheChildStartsInItsFolder)
{
    Child child({"cwd"});
    child->cwd = folder.c_str();
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    std::string line = ReadLine(process);
    EXPECT_NE(std::string::npos, line.find(folder.substr(folder.find_last_of("/\\") + 1))) << line;
    Wait(process);
}

TEST_F(Spec, AFolderThatIsNotThereIsAnErrorAtChdir)
{
    if (OnValgrind()) {
        GTEST_SKIP() << "the child has a copy of our memory: the stage does not come back";
    }
    for (pm_mode mode : {PM_MODE_NORMAL, PM_MODE_DAEMON}) {
        Child child({"exit", "0"});
        child->mode = mode;
        child->key = mode == PM_MODE_DAEMON ? "k" : nullptr;
        std::string missing = folder + "/missing";
        child->cwd = missing.c_str();
        int code = 0;
        pm_error error = PM_ERROR_INIT;
        TrySpawn(child, &code, &error);
        EXPECT_EQ(PM_ERR_NOT_FOUND, code) << pm_error_name(code);
        EXPECT_EQ(PM_STAGE_CHDIR, error.stage) << pm_stage_name(error.stage);
    }
}

TEST_F(Spec, AMissingProgramIsAnErrorAtSearch)
{
    for (pm_mode mode : {PM_MODE_NORMAL, PM_MODE_DAEMON}) {
        Child child({"exit", "0"});
        child->mode = mode;
        child->key = mode == PM_MODE_DAEMON ? "k" : nullptr;
        child.program = "pm-no-such-program";
        int code = 0;
        pm_error error = PM_ERROR_INIT;
        TrySpawn(child, &code, &error);
        EXPECT_EQ(PM_ERR_NOT_FOUND, code);
        EXPECT_EQ(PM_STAGE_SEARCH, error.stage);
        char line[4096];
        pm_error_format(&error, line, sizeof line);
        EXPECT_NE(nullptr,
                  strstr(line, "start of 'pm-no-such-program' (owner contract) failed at search: "))
            << line;
        EXPECT_NE(nullptr, strstr(line, "looked in PATH=")) << line;
        child.program = folder + "/none";
        TrySpawn(child, &code, &error);
        EXPECT_EQ(PM_ERR_NOT_FOUND, code);
    }
}

TEST_F(Spec, AFailedStartLeavesTheKeyFree)
{
    Child child({"payload", folder + "/out"});
    child->mode = PM_MODE_DAEMON;
    child->key = "again";
    std::string good = child.program;
    child.program = folder + "/none";
    int code = 0;
    TrySpawn(child, &code);
    EXPECT_EQ(PM_ERR_NOT_FOUND, code);
    child.program = good;
    Spawn(child);
}

TEST_F(Spec, RelativePathEntriesAreSkipped)
{
    Child child({"exit", "0"});
    size_t slash = child.program.find_last_of("/\\");
    std::string name = child.program.substr(slash + 1), dir = child.program.substr(0, slash);
    child->cwd = dir.c_str();
    child.program = name;
    for (const char *path : {"", ".", ":", "./", "bin"}) {
        child.env = {std::string("PATH=") + path};
        int code = 0;
        TrySpawn(child, &code);
        EXPECT_EQ(PM_ERR_NOT_FOUND, code) << "PATH=" << path << ": the program in the cwd was run";
    }
    child.env = {"PATH=" + std::string(OnWindows() ? ".;" : ".:") + dir};
    EXPECT_EQ(0u, Wait(Spawn(child)).code);
}

TEST_F(Spec, AProgramWithASeparatorIsResolvedAgainstTheCwdOfTheSpec)
{
    Child child({"exit", "3"});
    size_t slash = child.program.find_last_of("/\\");
    std::string name = child.program.substr(slash + 1), dir = child.program.substr(0, slash);
    child->cwd = dir.c_str();
    child.program = "./" + name;
    EXPECT_EQ(3u, Wait(Spawn(child)).code);
}

#ifndef _WIN32

TEST_F(Spec, ExecErrorsHaveTheirStageInEveryMode)
{
    if (OnValgrind()) {
        GTEST_SKIP() << "a program does not survive a failed exec";
    }
    struct Case {
        const char *name, *content;
        int mode, expected;
        pm_stage stage;
    } cases[] = {
        {"no-interpreter", "#!/no/such/interpreter\n", 0755, PM_ERR_NOT_FOUND, PM_STAGE_EXEC},
        {"no-shebang", "echo hello\n", 0755, PM_ERR_NOT_EXECUTABLE, PM_STAGE_EXEC},
        {"not-executable", "#!/bin/sh\n", 0644, PM_ERR_ACCESS, PM_STAGE_SEARCH},
    };
    for (pm_mode mode : {PM_MODE_NORMAL, PM_MODE_DAEMON}) {
        for (const auto &c : cases) {
            std::string path = folder + "/" + c.name;
            WriteFile(path, c.content);
            chmod(path.c_str(), static_cast<mode_t>(c.mode));
            Child child({});
            child->mode = mode;
            child->key = mode == PM_MODE_DAEMON ? "k" : nullptr;
            child.program = path;
            int code = 0;
            pm_error error = PM_ERROR_INIT;
            TrySpawn(child, &code, &error);
            EXPECT_EQ(c.expected, code) << c.name << " " << pm_error_name(code) << " mode " << mode;
            EXPECT_EQ(c.stage, error.stage) << c.name << " " << pm_stage_name(error.stage);
        }
        Child child({});
        child->mode = mode;
        child->key = mode == PM_MODE_DAEMON ? "k" : nullptr;
        child.program = "/tmp";
        int code = 0;
        pm_error error = PM_ERROR_INIT;
        TrySpawn(child, &code, &error);
        EXPECT_EQ(PM_ERR_ACCESS, code) << "a folder";
    }
}

TEST_F(Spec, TooManyArgumentsAreATypedError)
{
    if (OnValgrind()) {
        GTEST_SKIP() << "a program does not survive a failed exec";
    }
    Child child({"exit", "0"});
    child.args.push_back(std::string(200 * 1024, 'x'));
    for (pm_mode mode : {PM_MODE_NORMAL, PM_MODE_DAEMON}) {
        child->mode = mode;
        child->key = mode == PM_MODE_DAEMON ? "k" : nullptr;
        int code = 0;
        pm_error error = PM_ERROR_INIT;
        TrySpawn(child, &code, &error);
        EXPECT_EQ(PM_ERR_TOO_BIG, code);
        EXPECT_EQ(PM_STAGE_EXEC, error.stage);
    }
}

#endif

#ifndef _WIN32
TEST_F(Spec, MaskAndDispositionsAreCleanInTheChild)
{
    sigset_t all, old;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &old);
    auto pipe_handler = signal(SIGPIPE, SIG_IGN);
    auto usr_handler = signal(SIGUSR1, SIG_IGN);
    Child child({"sigstate"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    signal(SIGPIPE, pipe_handler);
    signal(SIGUSR1, usr_handler);
    sigprocmask(SIG_SETMASK, &old, nullptr);
    EXPECT_EQ("SigBlk:\t0000000000000000", ReadLine(process));
    EXPECT_EQ("SigIgn:\t0000000000000000", ReadLine(process));
}
#endif

} // namespace
