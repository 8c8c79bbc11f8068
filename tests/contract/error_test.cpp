// The one line that a person gets, whole, with what the system itself said: the golden lines of
// each stage that can be provoked without a fault of the machine. In them {folder} and {program}
// stand for what differs from
// run to run, {os N} for what the system says about its error N.

#include "fixture.h"

#ifdef _WIN32
#include <windows.h>
#else
#include <cstring>
#include <sys/stat.h>
#endif

using namespace contract;

namespace
{

// What the system says, asked in another way than the library does. Wine's texts are not Windows'.
std::string OsText(uint32_t os_code)
{
    if (os_code == 0) {
        return "";
    }
#ifdef _WIN32
    char text[512] = "";
    DWORD length = FormatMessageA(FORMAT_MESSAGE_FROM_SYSTEM | FORMAT_MESSAGE_IGNORE_INSERTS,
                                  nullptr, os_code, 0, text, sizeof text, nullptr);
    while (length > 0 && (text[length - 1] == '.' || text[length - 1] <= ' ')) {
        length--;
    }
    std::string said(text, length);
    size_t at = said.find("%1");
    return at == std::string::npos ? said : said.replace(at, 2, "the file");
#else
    return strerror(static_cast<int>(os_code));
#endif
}

class ErrorLines : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
    }

    std::string Generic(const pm_error &error)
    {
        std::string line = ErrorText(error);
        const std::pair<std::string, std::string> names[] = {
            {folder, "{folder}"},
            {SelfPath(), "{program}"},
            {OsText(error.os_code), "{os " + std::to_string(error.os_code) + "}"},
            {std::to_string(error.pid), "{pid}"},
        };
        for (const auto &[what, name] : names) {
            for (size_t at; !what.empty() && (at = line.find(what)) != std::string::npos;) {
                line.replace(at, what.size(), name);
            }
        }
        size_t at = line.find("(start time ");
        if (at != std::string::npos) {
            line.replace(at, line.find(')', at) - at, "(start time {start}");
        }
        return line;
    }

    std::string StartLine(Child &child)
    {
        int code = 0;
        pm_error error = PM_ERROR_INIT;
        TrySpawn(child, &code, &error);
        EXPECT_EQ(code, error.code);
        return Generic(error);
    }
};

// What is expected on each OS.
void ExpectLine(const char *posix, const char *windows, const std::string &line)
{
    EXPECT_EQ(OnWindows() ? windows : posix, line);
}

TEST_F(ErrorLines, Check)
{
    Child child({"exit", "0"});
    child->owner = "";
    EXPECT_EQ(
        "start of '{program}' failed at check: invalid argument; field 'owner'; 1 to 255 bytes",
        StartLine(child));
    child->owner = "pod:7";
    child->nice_value = 3;
    EXPECT_EQ("start of '{program}' (owner pod:7) failed at check: invalid argument; field "
              "'nice_value'; set_nice is not set",
              StartLine(child));
}

TEST_F(ErrorLines, Search)
{
    Child child({"exit", "0"});
    child.program = "agentd";
    child.env = {"PATH=" + folder};
    EXPECT_EQ("start of 'agentd' (owner contract) failed at search: {os 2}; field 'program'; "
              "looked in PATH={folder}",
              StartLine(child));
    child.program = folder + "/agentd";
    EXPECT_EQ("start of '{folder}/agentd' (owner contract) failed at search: {os 2}; field "
              "'program'; looked at {folder}/agentd",
              StartLine(child));
}

TEST_F(ErrorLines, Stdio)
{
    Child child({"exit", "0"});
    std::string path = folder + "/missing/log";
    child->stdout_slot.kind = PM_STDIO_FILE_APPEND;
    child->stdout_slot.path = path.c_str();
    ExpectLine("start of '{program}' (owner contract) failed at stdio: {os 2}; field "
               "'stdout_slot.path'; file {folder}/missing/log",
               "start of '{program}' (owner contract) failed at stdio: {os 3}; field "
               "'stdout_slot.path'; file {folder}/missing/log",
               StartLine(child));
}

TEST_F(ErrorLines, Chdir)
{
    if (OnValgrind()) {
        GTEST_SKIP() << "the child has a copy of our memory: the stage does not come back";
    }
    Child child({"exit", "0"});
    std::string path = folder + "/missing";
    child->cwd = path.c_str();
    ExpectLine("start of '{program}' (owner contract) failed at chdir: {os 2}; field 'cwd'; cwd is "
               "{folder}/missing",
               "start of '{program}' (owner contract) failed at chdir: {os 267}; field 'cwd'; cwd "
               "is {folder}/missing",
               StartLine(child));
}

TEST_F(ErrorLines, Exec)
{
    if (OnValgrind()) {
        GTEST_SKIP() << "a program does not survive a failed exec";
    }
    Child child({});
    child.program = folder + (OnWindows() ? "/agentd.exe" : "/agentd");
    WriteFile(child.program, "#!/no/such/interpreter\n");
#ifndef _WIN32
    chmod(child.program.c_str(), 0755);
#endif
    ExpectLine(
        "start of '{folder}/agentd' (owner contract) failed at exec: {os 2}; field 'program'; "
        "{folder}/agentd exists: the interpreter in its first line, or its loader, does not",
        "start of '{folder}/agentd.exe' (owner contract) failed at exec: {os 193}; field "
        "'program'; no program of this system; a script needs its interpreter as program",
        StartLine(child));
    child->mode = PM_MODE_DAEMON;
    child->key = "k";
    ExpectLine(
        "start of '{folder}/agentd' (owner contract) failed at exec: {os 2}; field 'program'; "
        "{folder}/agentd exists: the interpreter in its first line, or its loader, does not",
        "start of '{folder}/agentd.exe' (owner contract) failed at exec: {os 193}; field "
        "'program'; no program of this system; a script needs its interpreter as program",
        StartLine(child));
}

TEST_F(ErrorLines, Registry)
{
    Child child({"payload", folder + "/out"});
    child->mode = PM_MODE_DAEMON;
    child->key = "k";
    Spawn(child);
    ASSERT_TRUE(Eventually([&] { return !ReadFile(folder + "/out").empty(); }));
    EXPECT_EQ("start of '{program}' (owner contract) failed at registry: already exists; field "
              "'key'; a daemon of this key runs, starts or is being recovered in this manager",
              StartLine(child));
    std::string dir = folder + "/registry";
    pm_options options = DefaultOptions();
    options.registry_dir = dir.c_str();
    pm_manager *second = nullptr;
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(PM_ERR_REGISTRY_BUSY, pm_open(&options, &second, &error));
    EXPECT_EQ("open failed at registry: another living manager owns the registry; field "
              "'registry_dir'; owned by pid {pid} (start time {start})",
              Generic(error));
    dir = folder + "/missing/registry";
    options.registry_dir = dir.c_str();
    EXPECT_EQ(PM_ERR_NOT_FOUND, pm_open(&options, &second, &error));
    ExpectLine("open failed at registry: {os 2}; field 'registry_dir'; registry folder "
               "{folder}/missing/registry",
               "open failed at registry: {os 3}; field 'registry_dir'; registry folder "
               "{folder}/missing/registry",
               Generic(error));
}

#ifndef _WIN32
TEST_F(ErrorLines, Launcher)
{
    EXPECT_EQ(PM_OK, Close());
    std::string path = folder + "/launcher";
    pm_options options = DefaultOptions();
    options.launcher_path = path.c_str();
    options.launcher_timeout_ms = 300;
    Open(options);
    Child child({"exit", "0"});
    child->mode = PM_MODE_DAEMON;
    child->key = "k";
    EXPECT_EQ("start of '{program}' (owner contract) failed at launcher: {os 2}; field "
              "'launcher_path'; the launcher {folder}/launcher could not be started (at exec)",
              StartLine(child));
    WriteFile(path, "#!/bin/sh\nexit 3\n");
    chmod(path.c_str(), 0755);
    EXPECT_EQ("start of '{program}' (owner contract) failed at launcher: the launcher failed; the "
              "launcher ended without telling a process id",
              StartLine(child));
    WriteFile(path, "#!/bin/sh\nexec sleep 50\n");
    EXPECT_EQ("start of '{program}' (owner contract) failed at launcher: the launcher failed; the "
              "launcher told no process id in time",
              StartLine(child));
}
#endif

} // namespace
