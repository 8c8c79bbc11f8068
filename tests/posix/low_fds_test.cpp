// The manager's reserved descriptors in a host that closes what it did not open.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>

#include "fixture.h"

using namespace contract;

namespace
{

constexpr int kHighest = 64;

class LowDescriptors : public Contract
{
  protected:
    // The numbers of a file that turns up more often than any other: the reserved ones.
    static std::vector<int> Reserved()
    {
        std::map<std::pair<dev_t, ino_t>, std::vector<int>> files;
        for (int fd = 0; fd < kHighest; fd++) {
            struct stat st;
            if (fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode))
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

} // namespace
