// The manager's descriptors in a host that closes what it did not open, and the host's own in a
// start that takes only the low ones along.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <map>

#include "busy.h"
#include "fixture.h"

using namespace contract;

namespace
{

constexpr int kHighest = 64;

class LowDescriptors : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        struct stat st;
        for (int fd = 0; fd < kHighest; fd++)
            was_open[fd] = fstat(fd, &st) == 0;
    }

    // The numbers of a new file that turns up more often than any other: the reserved ones.
    std::vector<int> Reserved() const
    {
        std::map<std::pair<dev_t, ino_t>, std::vector<int>> files;
        for (int fd = 0; fd < kHighest; fd++) {
            struct stat st;
            if (!was_open[fd] && fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode))
                files[{st.st_dev, st.st_ino}].push_back(fd);
        }
        std::vector<int> most;
        for (const auto &file : files)
            if (file.second.size() > most.size())
                most = file.second;
        return most.size() > 3 ? most : std::vector<int>();
    }

    void StartOne()
    {
        Child child({"exit", "0"});
        child->stdin_slot.kind = PM_STDIO_NULL;
        child->stdout_slot.kind = PM_STDIO_PIPE;
        child->stderr_slot.kind = PM_STDIO_PIPE;
        pm_process *process = Spawn(child);
        ASSERT_NE(nullptr, process);
        EXPECT_EQ(PM_EXIT_EXITED, Wait(process).kind);
    }

    bool was_open[kHighest];
};

TEST_F(LowDescriptors, ThatTheHostHasTakenAreNeverTouchedAgain)
{
    Open();
    std::vector<int> numbers = Reserved();
    if (numbers.empty())
        GTEST_SKIP() << "none are reserved on this system";
    // Some at a time, the one that keeps the file of the idle ones (the lowest) last.
    std::vector<std::pair<int, ino_t>> taken;
    while (!numbers.empty()) {
        for (int i = 0; i < 4 && !numbers.empty(); i++) {
            char name[] = "/tmp/pm-low-XXXXXX";
            int mine = mkostemp(name, O_CLOEXEC);
            ASSERT_GE(mine, 0);
            unlink(name);
            ASSERT_EQ(numbers.back(), dup3(mine, numbers.back(), O_CLOEXEC));
            struct stat st;
            ASSERT_EQ(0, fstat(mine, &st));
            close(mine);
            taken.emplace_back(numbers.back(), st.st_ino);
            numbers.pop_back();
        }
        for (int i = 0; i < 3; i++)
            StartOne();
    }
    for (pm_process *process : held)
        pm_process_unref(process);
    held.clear();
    EXPECT_EQ(PM_OK, Close());
    for (const auto &[fd, inode] : taken) {
        struct stat st;
        ASSERT_EQ(0, fstat(fd, &st)) << fd << " was closed";
        EXPECT_EQ(inode, st.st_ino) << fd << " was replaced";
        close(fd);
    }
}

TEST_F(LowDescriptors, OfAHostThatHasClosedEverythingCostSpeedOnly)
{
    Open();
    std::vector<int> numbers = Reserved();
    if (numbers.empty())
        GTEST_SKIP() << "none are reserved on this system";
    for (int fd : numbers)
        close(fd);
    for (int i = 0; i < 3; i++)
        StartOne();
    EXPECT_TRUE(Reserved().empty());
}

// A program or folder that is named by a descriptor of the host, wherever that is.
TEST_F(LowDescriptors, AreNotAllThatAPathMayLeadThrough)
{
    Open();
    int program = open(SelfPath().c_str(), O_RDONLY | O_CLOEXEC);
    int cwd = open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    ASSERT_GE(program, 0);
    ASSERT_GE(cwd, 0);
    for (int floor : {40, 200}) {
        int numbers[2] = {fcntl(program, F_DUPFD_CLOEXEC, floor),
                          fcntl(cwd, F_DUPFD_CLOEXEC, floor)};
        for (const char *fds : {"/proc/self/fd/", "/dev/fd/", "//proc/self/fd/"}) {
            std::string path = fds + std::to_string(numbers[0]);
            std::string where = fds + std::to_string(numbers[1]);
            SCOPED_TRACE(path);
            Child child({"cwd"});
            child->stdin_slot.kind = PM_STDIO_NULL;
            child->stdout_slot.kind = PM_STDIO_PIPE;
            child->cwd = where.c_str();
            child.program = path;
            pm_process *process = Spawn(child);
            ASSERT_NE(nullptr, process);
            EXPECT_EQ(folder, ReadLine(process));
        }
        close(numbers[0]);
        close(numbers[1]);
    }
    close(program);
    close(cwd);
}

// ------------------------------------------------------------------------------------------------
// Others that are open as long as the manager is
// ------------------------------------------------------------------------------------------------

class OpenDescriptors : public Contract
{
  protected:
    // Of the library, by what /proc says of them; those of a host are the ones below `floor`.
    static std::vector<int> That(const std::function<bool(const std::string &)> &wanted, int floor)
    {
        std::vector<int> found;
        for (const auto &name : ListFolder("/proc/self/fd")) {
            char target[4096] = "";
            int fd = std::stoi(name);
            if (fd >= floor &&
                readlink(("/proc/self/fd/" + name).c_str(), target, sizeof target - 1) > 0 &&
                wanted(target))
                found.push_back(fd);
        }
        return found;
    }
};

// The host's file on the number of the manager's is neither run nor closed.
TEST_F(OpenDescriptors, ThatTheHostHasTakenAreNotRunAsLauncher)
{
    std::string self = SelfPath();
    auto is_self = [&](const std::string &target) { return target == self; };
    size_t before = That(is_self, 0).size();
    Open();
    std::vector<int> numbers = That(is_self, 16);
    if (numbers.size() != 1 || before != 0)
        GTEST_SKIP() << "the program is not kept open on this system";
    int other = open("/bin/true", O_RDONLY | O_CLOEXEC);
    ASSERT_GE(other, 0);
    ASSERT_EQ(numbers[0], dup3(other, numbers[0], O_CLOEXEC));
    close(other);
    for (int i = 0; i < 2; i++) {
        std::string key = "d" + std::to_string(i), path = folder + "/" + key;
        Child child({"payload", path});
        child->mode = PM_MODE_DAEMON;
        child->key = key.c_str();
        EXPECT_NE(nullptr, Spawn(child));
    }
    Child dying({"linger"});
    dying->stdin_slot.kind = dying->stdout_slot.kind = PM_STDIO_NULL;
    dying->die_with_parent = true;
    EXPECT_NE(nullptr, Spawn(dying));
    EXPECT_EQ(PM_OK, pm_stop_daemons(manager, 20000, nullptr, nullptr, nullptr));
    for (pm_process *process : held)
        pm_process_unref(process);
    held.clear();
    EXPECT_EQ(PM_OK, Close());
    struct stat st, wanted;
    ASSERT_EQ(0, fstat(numbers[0], &st)) << "it was closed";
    ASSERT_EQ(0, stat("/bin/true", &wanted));
    EXPECT_EQ(wanted.st_ino, st.st_ino);
    close(numbers[0]);
}

TEST_F(OpenDescriptors, OfTheReactorThatTheHostHasClosedDoNotMakeItSpin)
{
    auto is_poll = [](const std::string &target) { return target == "anon_inode:[eventpoll]"; };
    size_t before = That(is_poll, 0).size();
    Open();
    std::vector<int> numbers = That(is_poll, 3);
    if (numbers.size() != 1 || before != 0)
        GTEST_SKIP() << "the reactor has no descriptor of this kind";
    Child child({"linger"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    EXPECT_EQ("ready", ReadLine(process));
    int kept = fcntl(numbers[0], F_DUPFD_CLOEXEC, 3);
    ASSERT_GE(kept, 0);
    syscall(SYS_close, numbers[0]); // A data race of the host's, and meant.
    // The end of a wait puts the process back into the reactor, which learns of it.
    EXPECT_EQ(PM_ERR_TIMEOUT, pm_process_wait(process, 1, nullptr));
    EXPECT_FALSE(SomebodySpinsDuring(
        [&] { EXPECT_EQ(PM_ERR_TIMEOUT, pm_process_wait(process, 600, nullptr)); }));
    EXPECT_EQ(numbers[0], syscall(SYS_dup3, kept, numbers[0], O_CLOEXEC));
    close(kept);
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, nullptr));
}

} // namespace
