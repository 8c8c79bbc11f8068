// Standard streams and extra descriptors.

#include "fixture.h"

#include <cstring>

#include <set>
#include <thread>

#ifdef _WIN32
#include <windows.h>
#else
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>
#endif

using namespace contract;

namespace
{

class Stdio : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
    }
};

TEST_F(Stdio, PipesCarryBothWays)
{
    Child child({"cat"});
    child->stdin_slot.kind = child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    size_t count = 0;
    ASSERT_EQ(PM_OK, pm_stream_write(pm_process_stream(process, PM_STDIN), "hello\n", 6, Patience(),
                                     &count));
    EXPECT_EQ(6u, count);
    EXPECT_EQ("hello", ReadLine(process));
    EXPECT_EQ(PM_OK, pm_stream_close(pm_process_stream(process, PM_STDIN)));
    EXPECT_EQ("", ReadAll(process));
    EXPECT_EQ(0u, Wait(process).code);
    EXPECT_EQ(nullptr, pm_process_stream(process, PM_STDERR));
}

TEST_F(Stdio, AMegabyteGoesThroughAndBack)
{
    Child child({"cat"});
    child->stdin_slot.kind = child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    std::string sent(1 << 20, '\0');
    for (size_t i = 0; i < sent.size(); i++) {
        sent[i] = static_cast<char>(i * 7 + i / 251);
    }
    std::thread writer([&] {
        size_t count = 0;
        EXPECT_EQ(PM_OK, pm_stream_write(pm_process_stream(process, PM_STDIN), sent.data(),
                                         sent.size(), Patience(), &count));
        EXPECT_EQ(sent.size(), count);
        pm_stream_close(pm_process_stream(process, PM_STDIN));
    });
    std::string got = ReadAll(process);
    writer.join();
    EXPECT_TRUE(got == sent) << got.size();
    pm_exit record = Wait(process);
    EXPECT_EQ(0u, record.code);
    EXPECT_FALSE(record.stdout_truncated);
}

TEST_F(Stdio, NullIsNull)
{
    Child child({"cat"});
    child->stdin_slot.kind = PM_STDIO_NULL;
    child->stdout_slot.kind = PM_STDIO_PIPE;
    EXPECT_EQ("", ReadAll(Spawn(child)));
}

TEST_F(Stdio, FilesAreReadTruncatedAndAppended)
{
    std::string in = folder + "/in", out = folder + "/out";
    WriteFile(in, "one\n");
    WriteFile(out, "old");
    for (pm_stdio_kind kind : {PM_STDIO_FILE_TRUNCATE, PM_STDIO_FILE_APPEND}) {
        Child child({"cat"});
        child->stdin_slot.kind = PM_STDIO_FILE_READ;
        child->stdin_slot.path = in.c_str();
        child->stdout_slot.kind = kind;
        child->stdout_slot.path = out.c_str();
        EXPECT_EQ(0u, Wait(Spawn(child)).code);
        EXPECT_EQ(kind == PM_STDIO_FILE_TRUNCATE ? "one\n" : "one\none\n", ReadFile(out));
    }
}

TEST_F(Stdio, AFileThatCannotBeOpenedIsAnErrorAtStdio)
{
    std::string missing = folder + "/no/such/file";
    Child child({"cat"});
    child->stdin_slot.kind = PM_STDIO_FILE_READ;
    child->stdin_slot.path = missing.c_str();
    int code = 0;
    pm_error error = PM_ERROR_INIT;
    TrySpawn(child, &code, &error);
    EXPECT_EQ(PM_ERR_NOT_FOUND, code);
    EXPECT_EQ(PM_STAGE_STDIO, error.stage);
}

TEST_F(Stdio, StderrGoesWhereStdoutGoes)
{
    Child child({"both"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    child->stderr_slot.kind = PM_STDIO_STDOUT;
    pm_process *process = Spawn(child);
    EXPECT_EQ("to stdout", ReadLine(process));
    EXPECT_EQ("to stderr", ReadLine(process));
}

TEST_F(Stdio, StdoutAndStderrAreApart)
{
    Child child({"both"});
    child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    EXPECT_EQ("to stderr", ReadLine(process, PM_STDERR));
    EXPECT_EQ("to stdout", ReadLine(process, PM_STDOUT));
}

TEST_F(Stdio, AGivenDescriptorIsUsedAndStaysOurs)
{
    std::string path = folder + "/native";
#ifdef _WIN32
    HANDLE file = CreateFileA(path.c_str(), GENERIC_WRITE, FILE_SHARE_READ, nullptr, CREATE_ALWAYS,
                              0, nullptr);
    pm_native native = reinterpret_cast<pm_native>(file);
#else
    pm_native native = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
#endif
    Child child({"both"});
    child->stdout_slot.kind = PM_STDIO_NATIVE;
    child->stdout_slot.native = native;
    child->stderr_slot.kind = PM_STDIO_NULL;
    EXPECT_EQ(0u, Wait(Spawn(child)).code);
#ifdef _WIN32
    EXPECT_TRUE(CloseHandle(file));
#else
    EXPECT_EQ(0, close(static_cast<int>(native)));
#endif
    EXPECT_EQ("to stdout\n", ReadFile(path));
}

TEST_F(Stdio, ABadDescriptorIsRefusedByName)
{
    Child child({"both"});
    child->stdout_slot.kind = PM_STDIO_NATIVE;
    child->stdout_slot.native = 987654;
    int code = 0;
    pm_error error = PM_ERROR_INIT;
    TrySpawn(child, &code, &error);
    EXPECT_EQ(PM_ERR_INVALID, code);
    EXPECT_NE(nullptr, strstr(error.field, "stdout_slot")) << error.field;
}

TEST_F(Stdio, AGrandchildThatHoldsTheStreamDoesNotHoldItForEver)
{
    Child child({"tree", "leave"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    uint64_t grandchild = NumberAfter(ReadLine(process), "grandchild ");
    EXPECT_EQ(0u, Wait(process).code) << "the exit does not wait for the output";
    EXPECT_TRUE(PidAlive(grandchild));
    EXPECT_EQ("", ReadAll(process)) << "the stream ends after a silence";
    EXPECT_TRUE(Wait(process).stdout_truncated);
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, nullptr));
    EXPECT_TRUE(Eventually([&] { return !PidAlive(grandchild); })) << "its tree is still stoppable";
}

TEST_F(Stdio, WritingToOneThatIsGoneIsABrokenPipeAndNoSignal)
{
    Child child({"exit", "0"});
    child->stdin_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    Wait(process);
    size_t count = 7;
    // Under Wine the console host of the child holds its end a moment longer.
    EXPECT_TRUE(Eventually([&] {
        return pm_stream_write(pm_process_stream(process, PM_STDIN), "x", 1, Patience(), &count) ==
               PM_ERR_BROKEN_PIPE;
    }));
    EXPECT_EQ(0u, count);
}

TEST_F(Stdio, AReaderThatNeverReadsMakesTheWriterTimeOut)
{
    Child child({"sleep"});
    child->stdin_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    std::string much(4 << 20, 'x');
    size_t count = 0;
    EXPECT_EQ(PM_ERR_TIMEOUT, pm_stream_write(pm_process_stream(process, PM_STDIN), much.data(),
                                              much.size(), 100, &count));
    EXPECT_GT(count, 0u);
    EXPECT_LT(count, much.size());
}

TEST_F(Stdio, ReadingTimesOutAndPolls)
{
    Child child({"sleep"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_stream *out = pm_process_stream(Spawn(child), PM_STDOUT);
    char byte = 0;
    size_t count = 0;
    EXPECT_EQ(PM_ERR_TIMEOUT, pm_stream_read(out, &byte, 1, 0, &count));
    EXPECT_EQ(PM_ERR_TIMEOUT, pm_stream_read(out, &byte, 1, 20, &count));
    EXPECT_EQ(PM_ERR_INVALID, pm_stream_write(out, "x", 1, 0, &count));
    EXPECT_EQ(PM_ERR_INVALID, pm_stream_read(out, &byte, 0, 0, &count));
}

TEST_F(Stdio, ACloseEndsAReadUnderWay)
{
    Child child({"sleep"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_stream *out = pm_process_stream(Spawn(child), PM_STDOUT);
    std::thread reader([&] {
        char byte = 0;
        size_t count = 0;
        EXPECT_EQ(PM_ERR_CLOSED, pm_stream_read(out, &byte, 1, PM_FOREVER, &count));
    });
    EXPECT_EQ(PM_OK, pm_stream_close(out));
    reader.join();
    pm_native native = 0;
    EXPECT_EQ(PM_ERR_CLOSED, pm_stream_native(out, &native));
    EXPECT_EQ(PM_ERR_CLOSED, pm_stream_take(out, &native));
}

TEST_F(Stdio, ATakenStreamIsOurs)
{
    Child child({"both"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    child->stderr_slot.kind = PM_STDIO_NULL;
    pm_process *process = Spawn(child);
    pm_native native = PM_NATIVE_INVALID;
    pm_stream *out = pm_process_stream(process, PM_STDOUT);
    ASSERT_EQ(PM_OK, pm_stream_take(out, &native));
    char byte = 0;
    size_t count = 0;
    EXPECT_EQ(PM_ERR_CLOSED, pm_stream_read(out, &byte, 1, 0, &count));
    Wait(process);
#ifdef _WIN32
    EXPECT_TRUE(CloseHandle(reinterpret_cast<HANDLE>(native)));
#else
    EXPECT_NE(0, fcntl(static_cast<int>(native), F_GETFD) & FD_CLOEXEC);
    EXPECT_NE(0, fcntl(static_cast<int>(native), F_GETFL) & O_NONBLOCK);
    char text[64] = "";
    EXPECT_EQ(10, read(static_cast<int>(native), text, sizeof text));
    EXPECT_STREQ("to stdout\n", text);
    close(static_cast<int>(native));
#endif
}

#ifndef _WIN32

// The descriptors that a child reports, as numbers.
std::set<std::string> Numbers(const std::string &line)
{
    std::set<std::string> found;
    for (size_t at = line.find(' '); at != std::string::npos; at = line.find(' ', at + 1)) {
        found.insert(line.substr(at + 1, line.find('=', at) - at - 1));
    }
    return found;
}

TEST_F(Stdio, OnlyWhatTheSpecNamesReachesTheChild)
{
    int stray = open("/dev/null", O_RDONLY); // Not close-on-exec, as other libraries leave them.
    int file = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    Child child({"fds"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    child.extras = {{file, 9}, {file, 4}};
    std::string line = ReadLine(Spawn(child));
    EXPECT_EQ((std::set<std::string>{"0", "1", "2", "4", "9"}), Numbers(line)) << line;
    EXPECT_NE(std::string::npos, line.find("9=/dev/zero")) << line;
    close(stray);
    close(file);
}

// A number that may be a target, even if the first three are closed here.
int OpenAboveThree(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC), lifted = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    close(fd);
    return lifted;
}

TEST_F(Stdio, ExtrasMayBeShuffled)
{
    int files[3];
    for (int &file : files) {
        file = OpenAboveThree("/dev/null");
    }
    int zero = OpenAboveThree("/dev/zero");
    Child child({"fds"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    // Each target is another one's source.
    child.extras = {{files[0], files[1]}, {files[1], files[2]}, {zero, files[0]}, {files[2], zero}};
    std::string line = ReadLine(Spawn(child));
    EXPECT_NE(std::string::npos, line.find(" " + std::to_string(files[0]) + "=/dev/zero")) << line;
    for (int target : {files[1], files[2], zero}) {
        EXPECT_NE(std::string::npos, line.find(" " + std::to_string(target) + "=/dev/null"))
            << line;
    }
    for (int fd : {files[0], files[1], files[2], zero}) {
        close(fd);
    }
}

TEST_F(Stdio, BadExtrasAreRefused)
{
    int file = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    for (auto extras :
         {std::vector<pm_extra>{{file, 2}}, std::vector<pm_extra>{{file, 5}, {file, 5}},
          std::vector<pm_extra>{{12345, 5}}, std::vector<pm_extra>{{file, -1}}}) {
        Child child({"fds"});
        child.extras = extras;
        int code = 0;
        pm_error error = PM_ERROR_INIT;
        TrySpawn(child, &code, &error);
        EXPECT_EQ(PM_ERR_INVALID, code);
        EXPECT_NE(nullptr, strstr(error.field, "extras")) << error.field;
    }
    close(file);
}

TEST_F(Stdio, TheFirstThreeAreAlwaysThereWhateverTheHostHasClosed)
{
    for (int subset = 1; subset < 8; subset++) {
        int kept[3];
        for (int fd = 0; fd < 3; fd++) {
            kept[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 10);
        }
        fflush(stdout);
        for (int fd = 0; fd < 3; fd++) {
            if ((subset & (1 << fd)) != 0) {
                close(fd);
            }
        }
        std::string out = folder + "/out" + std::to_string(subset);
        std::string line;
        pm_process *process = nullptr;
        int daemon_code = -99;
        {
            Child child({"fds"});
            child->stdin_slot.kind = PM_STDIO_INHERIT;
            child->stdout_slot.kind = PM_STDIO_FILE_TRUNCATE;
            child->stdout_slot.path = out.c_str();
            child->group = PM_GROUP_HOST;
            (void)pm_spawn(manager, child.Get(), &process, nullptr);
            if (process != nullptr) {
                (void)pm_process_wait(process, Patience(), nullptr);
            }
            Child daemon({"fds"});
            daemon->mode = PM_MODE_DAEMON;
            daemon->key = "closed";
            std::string daemon_out = out + "d";
            daemon->stdout_slot.kind = PM_STDIO_FILE_TRUNCATE;
            daemon->stdout_slot.path = daemon_out.c_str();
            pm_process *d = nullptr;
            daemon_code = pm_spawn(manager, daemon.Get(), &d, nullptr);
            if (d != nullptr) {
                (void)pm_process_wait(d, Patience(), nullptr);
                pm_process_unref(d);
            }
        }
        for (int fd = 0; fd < 3; fd++) {
            dup2(kept[fd], fd);
            close(kept[fd]);
        }
        ASSERT_NE(nullptr, process) << subset;
        pm_process_unref(process);
        line = ReadFile(out);
        EXPECT_EQ((std::set<std::string>{"0", "1", "2"}), Numbers(line)) << subset << line;
        EXPECT_EQ(PM_OK, daemon_code) << subset;
        EXPECT_EQ((std::set<std::string>{"0", "1", "2"}), Numbers(ReadFile(out + "d"))) << subset;
    }
}

TEST_F(Stdio, ACloseOnExecDescriptorInPlaceOfTheHostsOwnStaysOut)
{
    int kept = fcntl(0, F_DUPFD_CLOEXEC, 10), zero = OpenAboveThree("/dev/zero");
    ASSERT_EQ(0, dup2(zero, 0));
    ASSERT_EQ(0, fcntl(0, F_SETFD, FD_CLOEXEC));
    Child child({"fds"});
    child->stdin_slot.kind = PM_STDIO_INHERIT;
    child->stdout_slot.kind = PM_STDIO_PIPE;
    child->group = PM_GROUP_HOST;
    std::string line = ReadLine(Spawn(child));
    if (kept >= 0) {
        dup2(kept, 0);
    } else {
        close(0);
    }
    close(kept);
    close(zero);
    EXPECT_NE(std::string::npos, line.find(" 0=/dev/null")) << line;
}

TEST_F(Stdio, TheChildsEndsBlock)
{
    Child child({"spew", "1000000"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    // A non-blocking end would fail in the child before anybody reads.
    EXPECT_EQ(1000000u, ReadAll(process).size());
    EXPECT_EQ(0u, Wait(process).code);
}

#endif

} // namespace
