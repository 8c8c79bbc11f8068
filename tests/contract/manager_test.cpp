// The manager itself: list, stats, references, close, both loops.

#include "fixture.h"

#include <atomic>
#include <cstring>
#include <set>
#include <thread>

#ifdef _WIN32
#include <windows.h>
#else
#include <poll.h>
#endif

using namespace contract;

namespace
{

class Manager : public Contract
{
  protected:
    std::vector<uint64_t> Listed()
    {
        std::vector<uint64_t> pids;
        EXPECT_EQ(PM_OK, pm_list(
                             manager,
                             [](void *user, pm_process *process) {
                                 static_cast<std::vector<uint64_t> *>(user)->push_back(
                                     pm_process_pid(process));
                                 return 0;
                             },
                             &pids));
        return pids;
    }
};

TEST_F(Manager, OpensAndClosesWithNothing)
{
    Open();
    EXPECT_EQ(PM_OK, Close());
    EXPECT_EQ(PM_OK, pm_close(nullptr, 0, nullptr));
}

TEST_F(Manager, BadOptionsAreRefusedByName)
{
    pm_options options = DefaultOptions();
    pm_error error = PM_ERROR_INIT;
    if (OnWindows()) {
        options.own_process = true;
        EXPECT_EQ(PM_ERR_UNSUPPORTED, pm_open(&options, &manager, &error));
        EXPECT_STREQ("own_process", error.field);
        EXPECT_STREQ("open", error.action);
    }
    options = DefaultOptions();
    memset(&options.loop, 0x7f, sizeof options.loop);
    EXPECT_EQ(PM_ERR_INVALID, pm_open(&options, &manager, &error));
    EXPECT_STREQ("loop", error.field);
    options = DefaultOptions();
    options.size = 1;
    EXPECT_EQ(PM_ERR_INVALID, pm_open(&options, &manager, &error));
    EXPECT_EQ(nullptr, manager);
}

TEST_F(Manager, ARegistryBelowAMissingFolderIsAnError)
{
    pm_options options = DefaultOptions();
    std::string dir = folder + "/no/such";
    options.registry_dir = dir.c_str();
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(PM_ERR_NOT_FOUND, pm_open(&options, &manager, &error));
    EXPECT_EQ(PM_STAGE_REGISTRY, error.stage);
}

TEST_F(Manager, ListsWhatRunsAndWhatIsHeld)
{
    Open();
    Child child({"linger"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *held_one = Spawn(child);
    EXPECT_EQ("ready", ReadLine(held_one));
    pm_process *freed = nullptr;
    ASSERT_EQ(PM_OK, pm_spawn(manager, child.Get(), &freed, nullptr));
    EXPECT_EQ("ready", ReadLine(freed));
    uint64_t freed_pid = pm_process_pid(freed);
    EXPECT_EQ(nullptr, pm_process_unref(freed));
    EXPECT_EQ((std::vector<uint64_t>{pm_process_pid(held_one), freed_pid}), Listed());
    EXPECT_EQ(2u, Stats().running);
    EXPECT_EQ(2u, Stats().started);
    EXPECT_EQ(PM_OK, pm_stop_all(manager, -1, nullptr, nullptr, nullptr));
    EXPECT_TRUE(Eventually([&] { return Listed().size() == 1; }));
    EXPECT_EQ(pm_process_pid(held_one), Listed().at(0)) << "ended, but somebody holds it";
    EXPECT_EQ(0u, Stats().running);
    EXPECT_TRUE(Eventually([&] { return Stats().ended == 2; }));
}

TEST_F(Manager, AVisitorEndsTheWalk)
{
    Open();
    Child child({"sleep"});
    Spawn(child);
    Spawn(child);
    int calls = 0;
    EXPECT_EQ(42,
              pm_list(
                  manager, [](void *user, pm_process *) { return ++*static_cast<int *>(user), 42; },
                  &calls));
    EXPECT_EQ(1, calls);
}

TEST_F(Manager, HandlesFreedEarlyLeakNothing)
{
    Open();
    for (int i = 0; i < 50; i++) {
        Child child({"exit", "0"});
        child->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *process = nullptr;
        ASSERT_EQ(PM_OK, pm_spawn(manager, child.Get(), &process, nullptr));
        pm_process_unref(process);
    }
    EXPECT_TRUE(Eventually([&] { return Stats().ended == 50; }));
    EXPECT_TRUE(Eventually([&] { return Listed().empty(); }));
    // The fixture counts descriptors, threads and zombies.
}

TEST_F(Manager, AHandleIsNotNeededAtAll)
{
    Open();
    Child child({"exit", "0"});
    EXPECT_EQ(PM_OK, pm_spawn(manager, child.Get(), nullptr, nullptr));
    EXPECT_TRUE(Eventually([&] { return Stats().ended == 1; }));
}

TEST_F(Manager, HandlesOutliveTheManagerWithTheirRecord)
{
    Open();
    Child child({"exit", "6"});
    pm_process *ended = Spawn(child);
    Wait(ended);
    Child other({"sleep"});
    pm_process *stopped = Spawn(other);
    EXPECT_EQ(PM_OK, Close());
    pm_exit record = PM_EXIT_INIT;
    EXPECT_EQ(PM_OK, pm_process_wait(ended, 0, &record));
    EXPECT_EQ(6u, record.code);
    EXPECT_EQ(PM_OK, pm_process_wait(stopped, 0, &record));
    EXPECT_NE(0u, record.stop_step);
    EXPECT_EQ(PM_ERR_CLOSED, pm_process_stop(ended, nullptr, nullptr));
    EXPECT_EQ(PM_ERR_CLOSED, pm_process_signal(ended, 0, PM_SCOPE_PROCESS));
    pm_info info = PM_INFO_INIT;
    EXPECT_EQ(PM_OK, pm_process_info(ended, &info));
    EXPECT_STREQ("contract", info.owner);
}

TEST_F(Manager, ADaemonsHandleOutlivesTheManagerToo)
{
    Open();
    Child child({"payload", folder + "/out"});
    child->mode = PM_MODE_DAEMON;
    child->key = "d";
    pm_process *process = Spawn(child);
    EXPECT_EQ(PM_OK, Close());
    EXPECT_TRUE(pm_process_alive(process));
    EXPECT_EQ(PM_ERR_CLOSED, pm_process_wait(process, 0, nullptr));
    EXPECT_EQ(PM_ERR_CLOSED, pm_process_stop(process, nullptr, nullptr));
    Open();
    EXPECT_EQ(PM_OK, pm_recover(manager, nullptr, nullptr, nullptr));
}

TEST_F(Manager, FourThreadsStartAndStop)
{
    Open();
    std::vector<std::thread> threads;
    std::atomic<int> good{0};
    for (int t = 0; t < 4; t++) {
        threads.emplace_back([&] {
            for (int i = 0; i < 10; i++) {
                Child child({"linger"});
                child->stdout_slot.kind = PM_STDIO_PIPE;
                pm_process *process = nullptr;
                pm_error error = PM_ERROR_INIT;
                int code = pm_spawn(manager, child.Get(), &process, &error);
                ASSERT_EQ(PM_OK, code) << ErrorText(error);
                EXPECT_EQ("ready", ReadLine(process));
                int stopped = pm_process_stop(process, nullptr, nullptr);
                EXPECT_EQ(PM_OK, stopped);
                good += stopped == PM_OK;
                pm_process_unref(process);
            }
        });
    }
    for (auto &thread : threads) {
        thread.join();
    }
    EXPECT_EQ(40, good);
}

TEST_F(Manager, LateStartsDuringCloseAreRefused)
{
    for (int round = 0; round < 5; round++) {
        Open();
        std::atomic<bool> stop{false};
        std::atomic<int> refused{0}, other{0};
        std::vector<std::thread> threads;
        pm_manager *m = manager;
        std::atomic<int> running{0};
        for (int t = 0; t < 2; t++) {
            threads.emplace_back([&, m] {
                running++;
                while (!stop) {
                    // Under Wine nothing may be killed while it is being born.
                    Child child({OnWine() ? "both" : "sleep"});
                    child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_NULL;
                    int code = pm_spawn(m, child.Get(), nullptr, nullptr);
                    if (code == PM_ERR_CLOSED) {
                        refused++;
                        return;
                    }
                    other += code != PM_OK;
                }
            });
        }
        while (running < 2 || Stats().started < 3) {
            std::this_thread::yield();
        }
        // Closing a manager others still use is forbidden; marking it from a callback is not.
        Child child({"exit", "0"});
        child->user = m;
        child->on_exit = [](pm_process *, const pm_exit *, void *user) {
            EXPECT_EQ(PM_ERR_WOULD_DEADLOCK, pm_close(static_cast<pm_manager *>(user), 0, nullptr));
        };
        int code = pm_spawn(m, child.Get(), nullptr, nullptr);
        EXPECT_EQ(PM_OK, code);
        for (auto &thread : threads) {
            thread.join();
        }
        EXPECT_EQ(2, refused);
        EXPECT_EQ(0, other);
        EXPECT_EQ(PM_OK, Close());
    }
}

TEST_F(Manager, TheCallersLoopNeedsNoThreadOfOurs)
{
#ifdef PM_TEST_LIBKQUEUE
    GTEST_SKIP() << "a kqueue of libkqueue cannot be polled";
#endif
    pm_options options = DefaultOptions();
    options.loop = PM_LOOP_CALLER;
    Open(options);
    std::atomic<int> ended{0};
    for (int i = 0; i < 5; i++) {
        Child child({"exit", std::to_string(i)});
        child->user = &ended;
        child->on_exit = [](pm_process *, const pm_exit *, void *user) {
            ++*static_cast<std::atomic<int> *>(user);
        };
        pm_process *process = nullptr;
        ASSERT_EQ(PM_OK, pm_spawn(manager, child.Get(), &process, nullptr));
        pm_process_unref(process);
    }
    pm_native native = PM_NATIVE_INVALID;
    ASSERT_EQ(PM_OK, pm_loop_native(manager, &native));
    while (ended < 5) {
        int64_t timeout = 0;
        ASSERT_EQ(PM_OK, pm_loop_timeout(manager, &timeout));
        int64_t wait = timeout == PM_FOREVER ? Patience() : timeout;
#ifdef _WIN32
        DWORD got = WaitForSingleObject(reinterpret_cast<HANDLE>(native), static_cast<DWORD>(wait));
        ASSERT_TRUE(got == WAIT_OBJECT_0 || timeout != PM_FOREVER);
#else
        pollfd in = {static_cast<int>(native), POLLIN, 0};
        int got = Uninterrupted([&] { return poll(&in, 1, static_cast<int>(wait)); });
        ASSERT_TRUE(got == 1 || timeout != PM_FOREVER);
#endif
        ASSERT_GE(pm_dispatch(manager), 0);
    }
    // Idle: nothing is ready any more.
    while (pm_dispatch(manager) > 0) {
    }
    int64_t timeout = 0;
    ASSERT_EQ(PM_OK, pm_loop_timeout(manager, &timeout));
    EXPECT_EQ(PM_FOREVER, timeout);
    // A wait and a stop of our own need no dispatch.
    Child child({"sleep"});
    EXPECT_EQ(PM_OK, pm_process_stop(Spawn(child), nullptr, nullptr));
    EXPECT_EQ(PM_OK, pm_stop_all(manager, -1, nullptr, nullptr, nullptr));
}

TEST_F(Manager, LoopCallsAreRefusedWithALoopOfOurOwn)
{
    Open();
    pm_native native = 0;
    int64_t timeout = 0;
    EXPECT_EQ(PM_ERR_UNSUPPORTED, pm_loop_native(manager, &native));
    EXPECT_EQ(PM_ERR_UNSUPPORTED, pm_loop_timeout(manager, &timeout));
    EXPECT_EQ(PM_ERR_UNSUPPORTED, pm_dispatch(manager));
}

TEST_F(Manager, LogsStartsAndFailures)
{
    std::vector<std::string> lines;
    pm_options options = DefaultOptions();
    options.loop = PM_LOOP_CALLER;
    options.user = &lines;
    options.log = [](void *user, pm_log_level, const char *line) {
        static_cast<std::vector<std::string> *>(user)->push_back(line);
    };
    Open(options);
    Child child({"exit", "0"});
    Wait(Spawn(child));
    child.program = "pm-no-such-program";
    int code = 0;
    TrySpawn(child, &code);
    ASSERT_EQ(2u, lines.size());
    EXPECT_EQ(0u, lines[0].find("started '")) << lines[0];
    EXPECT_EQ(0u, lines[1].find("start of 'pm-no-such-program'")) << lines[1];
    EXPECT_EQ(1u, Stats().start_failures);
}

TEST_F(Manager, NullAndNonsenseAreInvalidArguments)
{
    Open();
    pm_process *process = nullptr;
    EXPECT_EQ(PM_ERR_INVALID, pm_spawn(nullptr, nullptr, &process, nullptr));
    EXPECT_EQ(PM_ERR_INVALID, pm_spawn(manager, nullptr, &process, nullptr));
    EXPECT_EQ(PM_ERR_INVALID, pm_list(manager, nullptr, nullptr));
    EXPECT_EQ(PM_ERR_INVALID, pm_find(manager, nullptr, &process));
    EXPECT_EQ(PM_ERR_NOT_FOUND, pm_find(manager, "nobody", &process));
    EXPECT_EQ(PM_ERR_INVALID, pm_stats(manager, nullptr));
    EXPECT_EQ(PM_ERR_INVALID, pm_process_wait(nullptr, 0, nullptr));
    EXPECT_EQ(PM_ERR_INVALID, pm_process_stop(nullptr, nullptr, nullptr));
    EXPECT_EQ(PM_ERR_INVALID, pm_process_info(nullptr, nullptr));
    EXPECT_EQ(PM_ERR_INVALID, pm_process_signal(nullptr, 0, PM_SCOPE_PROCESS));
    EXPECT_EQ(PM_ERR_INVALID, pm_registry_list(nullptr, nullptr, nullptr));
    EXPECT_EQ(PM_ERR_INVALID, pm_stop_event_open(nullptr));
    EXPECT_EQ(nullptr, pm_process_ref(nullptr));
    EXPECT_EQ(nullptr, pm_process_unref(nullptr));
    EXPECT_EQ(nullptr, pm_process_stream(nullptr, PM_STDIN));
    EXPECT_FALSE(pm_process_alive(nullptr));
    EXPECT_EQ(0u, pm_process_pid(nullptr));
    EXPECT_EQ(PM_OK, pm_stream_close(nullptr));
    pm_free(nullptr);
    pm_run_result_clear(nullptr);
}

TEST_F(Manager, OnlyATerminalHasASize)
{
    Open();
    Child child({"sleep"});
    pm_process *process = Spawn(child);
    EXPECT_EQ(PM_ERR_UNSUPPORTED, pm_process_resize(process, 80, 24));
    EXPECT_EQ(PM_ERR_INVALID, pm_process_resize(process, 0, 24));
}

} // namespace
