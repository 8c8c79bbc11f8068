// A manager that has nothing to do does nothing.

#include "fixture.h"

#include <set>
#include <sstream>
#include <thread>

using namespace contract;

namespace
{

class Idle : public Contract
{
  protected:
    static std::set<std::string> Threads()
    {
        std::set<std::string> found;
        for (const auto &thread : ListFolder("/proc/self/task")) {
            found.insert(thread);
        }
        return found;
    }

    // How often those threads have been woken.
    static std::string Wakes(const std::set<std::string> &threads)
    {
        const std::string name = "\nvoluntary_ctxt_switches:";
        std::string wakes;
        for (const auto &thread : threads) {
            std::string status = ReadFile("/proc/self/task/" + thread + "/status");
            size_t at = status.find(name);
            EXPECT_NE(std::string::npos, at) << "thread " << thread << " is gone";
            std::istringstream number(at != std::string::npos ? status.substr(at + name.size())
                                                              : "");
            std::string text;
            number >> text;
            wakes += thread + ":" + text + " ";
        }
        return wakes;
    }
};

TEST_F(Idle, AManagerWithChildrenThatRunIsNeverWoken)
{
    const std::set<std::string> others = Threads();
    pm_options options = DefaultOptions();
    options.leak_sweep_ms = UINT32_MAX; // The one thing that it does in a rhythm.
    Open(options);
    std::set<std::string> ours;
    for (int i = 0; i < 10; i++) {
        Child child({"linger"});
        child->stdout_slot.kind = PM_STDIO_PIPE;
        EXPECT_EQ("ready", ReadLine(Spawn(child)));
    }
    for (const auto &thread : Threads()) {
        if (others.count(thread) == 0) {
            ours.insert(thread);
        }
    }
    ASSERT_FALSE(ours.empty());
    std::string before;
    const auto pause = std::chrono::milliseconds(100);
    EXPECT_TRUE(Eventually([&] { // What it had to do is done.
        before = Wakes(ours);
        std::this_thread::sleep_for(pause);
        return Wakes(ours) == before;
    }));
    std::this_thread::sleep_for(10 * pause); // The time that is looked at.
    EXPECT_EQ(before, Wakes(ours));
}

} // namespace
