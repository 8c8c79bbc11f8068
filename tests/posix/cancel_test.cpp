// pthread_cancel() at random: whatever call of the library it meets, nothing is left behind.

#include "fixture.h"
#include "sanitizers.h"

#include <pthread.h>

#include <atomic>
#include <random>

using namespace contract;

namespace
{

class Cancel : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
#ifdef PM_TEST_ASAN
        GTEST_SKIP() << "AddressSanitizer leaves the stack of a cancelled thread poisoned";
#endif
        Open();
    }
};

struct Work {
    pm_manager *manager;
    std::atomic<int> rounds{0};
};

// Starts and forgets for ever. Between the calls it can be cancelled, and holds nothing there.
void *StartForEver(void *argument)
{
    auto *work = static_cast<Work *>(argument);
    // Made before: a cancelled thread runs no destructor that a noexcept function is in the way of.
    static Child *child = new Child({"exit", "0"});
    (*child)->stdout_slot.kind = (*child)->stderr_slot.kind = PM_STDIO_NULL;
    const pm_spec *spec = child->Get();
    for (;;) {
        (void)pm_spawn(work->manager, spec, nullptr, nullptr);
        work->rounds++;
        pthread_testcancel();
    }
    return nullptr;
}

TEST_F(Cancel, AtRandomDuringStartsLeavesNothing)
{
    std::minstd_rand random(1);
    Work work{manager};
    for (int i = 0; i < Times(1000, 200); i++) {
        pthread_t thread;
        int before = work.rounds;
        ASSERT_EQ(0, pthread_create(&thread, nullptr, StartForEver, &work));
        // Always within a start: the number of them is random, the instant in the last one is too.
        int more = 1 + static_cast<int>(random() % 3);
        ASSERT_TRUE(Eventually([&] { return work.rounds >= before + more; }));
        pthread_cancel(thread);
        void *result = nullptr;
        ASSERT_EQ(0, pthread_join(thread, &result));
        EXPECT_EQ(PTHREAD_CANCELED, result);
    }
    struct pm_stats stats = PM_STATS_INIT;
    ASSERT_TRUE(Eventually([&] {
        EXPECT_EQ(PM_OK, pm_stats(manager, &stats));
        return stats.ended == stats.started;
    }));
    EXPECT_EQ(static_cast<uint64_t>(work.rounds), stats.started);
    EXPECT_EQ(PM_OK, Close()); // Needs every lock.
}

void *ReadForEver(void *argument)
{
    char buffer[64];
    size_t count = 0;
    auto *process = static_cast<pm_process *>(argument);
    (void)pm_stream_read(pm_process_stream(process, PM_STDOUT), buffer, sizeof buffer, PM_FOREVER,
                         &count);
    return nullptr;
}

void *WaitForEver(void *argument)
{
    pthread_testcancel();
    (void)pm_process_wait(static_cast<pm_process *>(argument), PM_FOREVER, nullptr);
    return nullptr;
}

TEST_F(Cancel, OfAWaitLeavesTheHandleUsable)
{
#ifdef PM_TEST_TSAN
    GTEST_SKIP() << "ThreadSanitizer does not see the locks of a clean-up handler within poll()";
#endif
    std::atomic<bool> told{false};
    Child child({"linger"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    child->user = &told;
    child->on_exit = [](pm_process *, const pm_exit *, void *user) {
        *static_cast<std::atomic<bool> *>(user) = true;
    };
    pm_process *process = Spawn(child);
    EXPECT_EQ("ready", ReadLine(process));
    for (int i = 0; i < 20; i++) {
        pthread_t thread;
        ASSERT_EQ(0, pthread_create(&thread, nullptr, WaitForEver, process));
        pthread_cancel(thread);
        ASSERT_EQ(0, pthread_join(thread, nullptr));
    }
    // Its end is seen although nobody waits any more.
    KillByNumber(pm_process_pid(process));
    EXPECT_TRUE(Eventually([&] { return told.load(); }));
    EXPECT_EQ(PM_OK, pm_process_wait(process, 0, nullptr));
}

// A read holds the lock of its stream: it goes on until its end, and only then is the thread gone.
TEST_F(Cancel, OfAReadIsHeldBackUntilItsEnd)
{
    Child child({"linger"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    EXPECT_EQ("ready", ReadLine(process));
    pthread_t thread;
    ASSERT_EQ(0, pthread_create(&thread, nullptr, ReadForEver, process));
    pthread_cancel(thread);
    EXPECT_EQ(PM_OK, pm_stream_close(pm_process_stream(process, PM_STDOUT)));
    ASSERT_EQ(0, pthread_join(thread, nullptr));
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, nullptr));
}

} // namespace
