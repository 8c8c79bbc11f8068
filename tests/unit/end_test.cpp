// What others can see of a start and of an end while they happen, over the scripted backend.

#include <gtest/gtest.h>

#include <string>
#include <vector>

extern "C" {
#include <processmgr/processmgr.h>

#include "os.h"
}

namespace
{

class Ends : public testing::Test
{
  public: // For the hooks.
    void SetUp() override
    {
        fake_reset();
        fake_hooks.user = this;
        pm_options options = PM_OPTIONS_INIT;
        options.loop = PM_LOOP_CALLER;
        options.log = Note;
        options.user = this;
        ASSERT_EQ(PM_OK, pm_open(&options, &manager, nullptr));
    }

    void TearDown() override
    {
        process = pm_process_unref(process);
        EXPECT_EQ(PM_OK, pm_close(manager, 60000, nullptr));
        EXPECT_EQ(fake_started, fake_closed) << "a process was not closed";
    }

    void Spawn(bool kill_tree_on_exit = false)
    {
        pm_spec spec = PM_SPEC_INIT;
        spec.owner = "test";
        spec.program = "/bin/fake";
        spec.kill_tree_on_exit = kill_tree_on_exit;
        ASSERT_EQ(PM_OK, pm_spawn(manager, &spec, &process, nullptr));
    }

    static void Note(void *user, pm_log_level level, const char *line)
    {
        if (level >= PM_LOG_WARNING) {
            static_cast<Ends *>(user)->warnings.push_back(line);
        }
    }

    // As a host's loop would, until it has nothing to do any more.
    void Loop()
    {
        int64_t timeout = 0;
        do {
            ASSERT_LE(0, pm_dispatch(manager));
            ASSERT_EQ(PM_OK, pm_loop_timeout(manager, &timeout));
            fake_clock += timeout > 0 ? timeout : 0;
        } while (timeout != PM_FOREVER);
    }

    uint64_t Live()
    {
        struct pm_stats stats = PM_STATS_INIT;
        EXPECT_EQ(PM_OK, pm_stats(manager, &stats));
        return stats.modes[PM_MODE_NORMAL].live;
    }

    pm_manager *manager = nullptr;
    pm_process *process = nullptr;
    int calls = 0;
    std::vector<std::string> warnings;
};

int CountOne(void *user, pm_process * /*process*/)
{
    ++*static_cast<int *>(user);
    return 0;
}

// Who found it in the list and waited for it would give up the reactor's reference before the
// reactor has been told of it.
TEST_F(Ends, NobodySeesAProcessBeforeItIsWatched)
{
    struct Eyes {
        pm_manager *manager;
        int calls, seen;
    } eyes = {manager, 0, 0};
    fake_hooks.user = &eyes;
    fake_hooks.on_watch = [](void *user) {
        auto *here = static_cast<Eyes *>(user);
        here->calls++;
        EXPECT_EQ(PM_OK, pm_list(here->manager, CountOne, &here->seen));
    };
    Spawn();
    fake_hooks.on_watch = nullptr;
    EXPECT_EQ(1, eyes.calls);
    EXPECT_EQ(0, eyes.seen);
    int seen = 0;
    EXPECT_EQ(PM_OK, pm_list(manager, CountOne, &seen));
    EXPECT_EQ(1, seen);
}

TEST_F(Ends, InfoTellsOfNobodyWhoLivesAndHasEnded)
{
    Spawn();
    fake_hooks.on_alive = [](void *user) { // It dies, and is seen to, a moment after the question.
        auto *test = static_cast<Ends *>(user);
        fake_hooks.on_alive = nullptr;
        test->calls++;
        fake_kill(pm_process_pid(test->process));
        EXPECT_EQ(PM_OK, pm_process_wait(test->process, 0, nullptr));
    };
    pm_info info = PM_INFO_INIT;
    ASSERT_EQ(PM_OK, pm_process_info(process, &info));
    EXPECT_EQ(1, calls);
    EXPECT_EQ(PM_STATE_ENDED, info.state);
    EXPECT_FALSE(info.alive);
}

TEST_F(Ends, ATreeThatGoesWithItsLeaderIsKilledBeforeAnybodyKnowsOfTheEnd)
{
    fake_next.exits_at = 1500;
    fake_next.has_tree = true;
    Spawn(true);
    fake_hooks.on_act = [](void *user) {
        auto *test = static_cast<Ends *>(user);
        test->calls++;
        EXPECT_EQ(1U, test->Live());
    };
    pm_exit record = PM_EXIT_INIT;
    EXPECT_EQ(PM_OK, pm_process_wait(process, PM_FOREVER, &record));
    EXPECT_EQ(1, calls);
    EXPECT_EQ(PM_EXIT_EXITED, record.kind);
    EXPECT_EQ(0U, record.stop_step) << "nobody has stopped it";
    fake_hooks.on_act = nullptr;
}

// Its first kill may find nobody, for want of a descriptor to look for them.
TEST_F(Ends, ATreeThatIsLeftByItsKillIsKilledAgainUntilItIsGone)
{
    fake_next.exits_at = 1500;
    fake_next.has_tree = true;
    fake_next.tree_dies_after[PM_STOP_KILL] = 250;
    Spawn(true);
    EXPECT_EQ(PM_OK, pm_process_wait(process, PM_FOREVER, nullptr));
    EXPECT_EQ(1500, fake_clock) << "nobody waits for that";
    process = pm_process_unref(process);
    EXPECT_EQ(0U, fake_closed);
    Loop();
    EXPECT_EQ(1800, fake_clock);
    EXPECT_EQ(4U, fake_deliveries_count);
    EXPECT_EQ(1U, fake_closed);
    EXPECT_TRUE(warnings.empty());
}

TEST_F(Ends, ATreeThatDoesNotGoIsGivenUpWithAWord)
{
    fake_next.exits_at = 1500;
    fake_next.has_tree = true;
    fake_next.undeliverable[PM_STOP_KILL] = PM_ERR_NO_DESCRIPTORS;
    Spawn(true);
    EXPECT_EQ(PM_OK, pm_process_wait(process, PM_FOREVER, nullptr));
    process = pm_process_unref(process);
    Loop();
    EXPECT_EQ(11500, fake_clock);
    EXPECT_EQ(1U, fake_closed);
    ASSERT_EQ(1U, warnings.size());
    EXPECT_EQ(
        "what '/bin/fake' (owner test, pid 100) has left behind may live on, though it was to "
        "end with it: PM_ERR_NO_DESCRIPTORS: " +
            std::string(pm_strerror(PM_ERR_NO_DESCRIPTORS)),
        warnings[0]);
}

TEST_F(Ends, ACloseWaitsForATreeThatIsToGoButNotForLong)
{
    for (int64_t dies_after : {int64_t{50}, FAKE_NEVER}) {
        int64_t begin = fake_clock;
        fake_next.exits_at = begin + 500;
        fake_next.has_tree = true;
        fake_next.tree_dies_after[PM_STOP_KILL] = dies_after;
        Spawn(true);
        EXPECT_EQ(PM_OK, pm_process_wait(process, PM_FOREVER, nullptr));
        process = pm_process_unref(process);
        EXPECT_EQ(PM_OK, pm_close(manager, 60000, nullptr));
        int64_t took = fake_clock - begin - 500;
        EXPECT_LE(dies_after == 50 ? 50 : PM_STOP_SETTLE_MS, took);
        EXPECT_GE((dies_after == 50 ? 50 : PM_STOP_SETTLE_MS) + 20, took);
        EXPECT_EQ(dies_after == 50 ? 0U : 1U, warnings.size());
        EXPECT_EQ(fake_started, fake_closed);
        SetUp();
    }
}

// A tracer may keep the status of a dead child to itself.
TEST_F(Ends, AStatusOfAChildThatIsPendingIsWaitedForAndNeverGivenUp)
{
    fake_next.exits_at = 1500;
    fake_next.status_at = 61000;
    fake_next.code = 5;
    Spawn();
    pm_exit record = PM_EXIT_INIT;
    EXPECT_EQ(PM_ERR_STATUS_PENDING, pm_process_wait(process, 1000, &record));
    EXPECT_FALSE(pm_process_alive(process));
    fake_reap_calls = 0;
    EXPECT_EQ(PM_ERR_STATUS_PENDING, pm_process_wait(process, 10000, &record));
    EXPECT_GE(600U, fake_reap_calls) << "asked for now and then";
    ASSERT_EQ(0, pm_dispatch(manager));
    fake_reap_calls = 0;
    while (fake_clock < 30000) { // By the loop as well, which is not told any more.
        int64_t timeout = 0;
        ASSERT_EQ(PM_OK, pm_loop_timeout(manager, &timeout));
        ASSERT_EQ(20, timeout);
        fake_clock += timeout;
        ASSERT_EQ(0, pm_dispatch(manager));
    }
    EXPECT_GE(1000U, fake_reap_calls);
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, nullptr)) << "it is dead";
    EXPECT_EQ(PM_OK, pm_process_wait(process, PM_FOREVER, &record));
    EXPECT_EQ(PM_EXIT_EXITED, record.kind);
    EXPECT_EQ(5U, record.code);
    EXPECT_EQ(500U, record.uptime_ms) << "its life ended when its death was noticed";
}

} // namespace
