// What may come between: calls of two threads, or of a forked copy, that meet at a certain moment.
// The moment is found in what the kernel tells of a thread, or held by a system call of our own.

#include "fixture.h"
#include "sanitizers.h"

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/epoll.h>
#include <sys/prctl.h>
#endif

#ifdef PM_TEST_TSAN
#include <sanitizer/tsan_interface.h>
#endif

#include <atomic>
#include <functional>
#include <thread>

using namespace contract;

namespace
{

std::atomic<bool> no_room;                      // epoll_ctl() adds nothing.
thread_local bool at_write;                     // This thread's next write() waits for `go_on`.
thread_local std::function<void()> before_look; // Called by the first look with poll() after a
thread_local bool was_in_vain;                  // wait in vain, which then comes late.
std::atomic<bool> is_held, go_on;
thread_local bool watch_cancellation; // read() notes whether it could be cancelled.
thread_local int cancellable_reads, watched_reads;

// What was done before a descriptor was given to the loop comes before what the loop does. Of calls
// by number a thread sanitizer does not know that.
#if defined(PM_TEST_TSAN) && defined(__linux__)
char wake_up;
void BeforeWakeUp()
{
    __tsan_release(&wake_up);
}
void AfterWakeUp()
{
    __tsan_acquire(&wake_up);
}
#elif defined(__linux__)
void BeforeWakeUp()
{
}
void AfterWakeUp()
{
}
#endif

} // namespace

// The library is linked to these.
extern "C" {

#ifdef __linux__
int epoll_ctl(int poll_fd, int operation, int fd, struct epoll_event *event)
{
    if (operation == EPOLL_CTL_ADD && no_room) {
        errno = ENOSPC;
        return -1;
    }
    BeforeWakeUp();
    return static_cast<int>(syscall(SYS_epoll_ctl, poll_fd, operation, fd, event));
}

// In an archive of musl's these are in one object with that one: linked as a whole, or not at all.
int epoll_create1(int flags)
{
    return static_cast<int>(syscall(SYS_epoll_create1, flags));
}

int epoll_wait(int poll_fd, struct epoll_event *events, int count, int timeout)
{
    auto result =
        static_cast<int>(syscall(SYS_epoll_pwait, poll_fd, events, count, timeout, nullptr, 0));
    AfterWakeUp();
    return result;
}
#endif

ssize_t write(int fd, const void *data, size_t size)
{
    if (at_write) {
        at_write = false;
        is_held = true;
        while (!go_on)
            std::this_thread::yield();
    }
    return syscall(SYS_write, fd, data, size);
}

static int PollOfTheSystem(struct pollfd *fds, nfds_t count, int timeout)
{
#ifdef SYS_poll
    return static_cast<int>(syscall(SYS_poll, fds, count, timeout));
#else
    struct timespec time = {timeout / 1000, timeout % 1000 * 1000000L};
    return static_cast<int>(
        syscall(SYS_ppoll, fds, count, timeout < 0 ? nullptr : &time, nullptr, 0));
#endif
}

int poll(struct pollfd *fds, nfds_t count, int timeout)
{
    if (before_look && timeout == 0 && was_in_vain) {
        before_look();
        before_look = nullptr;
        timeout = static_cast<int>(Patience());
    }
    int result = PollOfTheSystem(fds, count, timeout);
    was_in_vain = timeout > 0 && timeout <= 20 && result <= 0; // No slice of it is longer.
    return result;
}

ssize_t read(int fd, void *buffer, size_t size)
{
    if (watch_cancellation) {
        int state;
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
        cancellable_reads += state == PTHREAD_CANCEL_ENABLE;
        watched_reads++;
        pthread_setcancelstate(state, nullptr);
    }
    return syscall(SYS_read, fd, buffer, size);
}
}

namespace
{

// Says when its input has ended, and stays.
int Stubborn(const std::vector<std::string> &)
{
    char byte;
    while (Uninterrupted([&] { return read(0, &byte, 1); }) > 0) {
    }
    const char line[] = "end\n";
    (void)!write(1, line, sizeof line - 1);
    alarm(300);
    for (;;)
        pause();
}

const RoleAdder stubborn("stubborn", Stubborn);

// A thread of which it can be asked whether it sleeps in its call.
class Caller
{
  public:
    template <typename Call>
    explicit Caller(Call call)
    {
        thread = std::thread([this, call] {
            tid = syscall(SYS_gettid);
            call();
            done = true;
        });
    }
    ~Caller()
    {
        Join();
    }
    void Join()
    {
        if (thread.joinable())
            thread.join();
    }
    bool IsDone() const
    {
        return done;
    }
    // Ten looks in a row: not for a moment, at a lock.
    bool Sleeps() const
    {
        int looks = 0;
        return Eventually([&] {
            looks = tid != 0 && LetterIsS() ? looks + 1 : 0;
            return done || looks == 10;
        });
    }

  private:
    bool LetterIsS() const
    {
        std::string stat = ReadFile("/proc/self/task/" + std::to_string(tid) + "/stat");
        size_t at = stat.rfind(')');
        return at != std::string::npos && at + 2 < stat.size() && stat[at + 2] == 'S';
    }

    std::atomic<long> tid{0};
    std::atomic<bool> done{false};
    std::thread thread;
};

pm_stop_plan Plan(std::vector<pm_stop_step> steps)
{
    pm_stop_plan plan = {};
    for (const pm_stop_step &step : steps)
        plan.steps[plan.steps_count++] = step;
    return plan;
}

// What a record's file says of the exit; the rest tells who has written it.
std::string ExitIn(const std::string &text)
{
    size_t from = text.find("exit-kind="), to = text.rfind("crc32=");
    return from < to ? text.substr(from, to - from) : "";
}

class Moment : public Contract
{
  protected:
    void OpenWithCallersLoop()
    {
        pm_options options = DefaultOptions();
        options.loop = PM_LOOP_CALLER;
        Open(options);
    }

    pm_process *StartDaemon(const char *key)
    {
        std::string file = folder + "/" + key;
        Child child({"payload", file});
        child->mode = PM_MODE_DAEMON;
        child->key = key;
        pm_process *process = Spawn(child);
        EXPECT_TRUE(Eventually([&] { return !ReadFile(file).empty(); }));
        return process;
    }

    // Readable now, or due in some milliseconds. Where there is no such descriptor one always
    // looks.
    bool LoopHasWork()
    {
        int64_t timeout = PM_FOREVER;
        EXPECT_EQ(PM_OK, pm_loop_timeout(manager, &timeout));
        pm_native native = PM_NATIVE_INVALID;
        if (timeout != PM_FOREVER || pm_loop_native(manager, &native) != PM_OK)
            return true;
        pollfd in = {static_cast<int>(native), POLLIN, 0};
        return poll(&in, 1, 0) == 1;
    }
};

// ------------------------------------------------------------------------------------------------
// A stop of many beside the loop of a host
// ------------------------------------------------------------------------------------------------

struct Stopped {
    uint32_t elapsed_ms = 0;
    unsigned steps = 0;

    static void Note(void *user, pm_process *, const pm_stop_report *report)
    {
        auto *here = static_cast<Stopped *>(user);
        here->elapsed_ms = report->elapsed_ms;
        here->steps = report->steps_tried;
    }
};

TEST_F(Moment, TheHostsLoopGoesOnWhileAnotherThreadStopsAll)
{
    OpenWithCallersLoop();
    std::atomic<int> ended{0};
    Child child({"stubborn"}), polite({"ready"});
    child->stdin_slot.kind = child->stdout_slot.kind = PM_STDIO_PIPE;
    // Longer than the test: nobody is killed before that.
    child->stop =
        Plan({{PM_STOP_CLOSE_STDIN, PM_SCOPE_TREE, 60000}, {PM_STOP_KILL, PM_SCOPE_TREE, 0}});
    pm_process *process = Spawn(child);
    polite->stdin_slot.kind = PM_STDIO_PIPE;
    polite->stdout_slot.kind = PM_STDIO_NULL;
    polite->stop = child->stop;
    polite->user = &ended;
    polite->on_exit = [](pm_process *, const pm_exit *, void *user) {
        ++*static_cast<std::atomic<int> *>(user);
    };
    Spawn(polite);
    Stopped first;
    Caller stopper(
        [&] { pm_stop_all(manager, PM_STOP_GRACE_MS * 1000, Stopped::Note, &first, nullptr); });
    ASSERT_EQ("end", ReadLine(process));
    ASSERT_TRUE(stopper.Sleeps());
    // The stopper notices the end of the other one, and the loop is told to call back.
    EXPECT_TRUE(Eventually([&] { return pm_dispatch(manager) >= 0 && ended == 1; }));
    int64_t timeout;
    for (int i = 0; i < 20; i++) {
        EXPECT_EQ(PM_OK, pm_loop_timeout(manager, &timeout));
        EXPECT_LE(0, pm_dispatch(manager));
    }
    EXPECT_TRUE(pm_process_alive(process)) << "neither has waited for the end of the step";
    // Nor does another stop, which has less time.
    EXPECT_EQ(PM_OK, pm_stop_all(manager, 200 * Slowness(), nullptr, nullptr, nullptr));
    stopper.Join();
    EXPECT_EQ(1U, first.steps) << "the first one learned of it before its own kill";
}

TEST_F(Moment, TheWakeUpOfTheHostsLoopIsNotTakenByAStopOfAll)
{
    OpenWithCallersLoop();
    std::atomic<int> ended{0};
    Child child({"stubborn"}), polite({"ready"});
    child->stdin_slot.kind = child->stdout_slot.kind = polite->stdin_slot.kind = PM_STDIO_PIPE;
    child->stop =
        Plan({{PM_STOP_CLOSE_STDIN, PM_SCOPE_TREE, 60000}, {PM_STOP_KILL, PM_SCOPE_TREE, 0}});
    polite->stdout_slot.kind = PM_STDIO_NULL;
    polite->stop = child->stop;
    polite->user = &ended;
    polite->on_exit = [](pm_process *, const pm_exit *, void *user) {
        ++*static_cast<std::atomic<int> *>(user);
    };
    pm_process *process = Spawn(child), *other = Spawn(polite);
    while (pm_dispatch(manager) > 0) {
    }
    Caller stopper([&] { pm_stop_all(manager, 120000, nullptr, nullptr, nullptr); });
    ASSERT_EQ("end", ReadLine(process));
    pm_info info = PM_INFO_INIT;
    ASSERT_TRUE(Eventually(
        [&] { return pm_process_info(other, &info) == PM_OK && info.state == PM_STATE_ENDED; }));
    ASSERT_TRUE(stopper.Sleeps());
    pm_native native = PM_NATIVE_INVALID;
    if (pm_loop_native(manager, &native) == PM_OK) { // Who has slept in it since before is woken.
        pollfd in = {static_cast<int>(native), POLLIN, 0};
        EXPECT_TRUE(Eventually([&] { return poll(&in, 1, 0) == 1; }));
    }
    EXPECT_LE(1, pm_dispatch(manager));
    EXPECT_EQ(1, ended);
    EXPECT_TRUE(pm_process_alive(process));
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGKILL, PM_SCOPE_TREE));
    EXPECT_EQ(PM_OK, pm_stop_all(manager, 600000, nullptr, nullptr, nullptr));
}

TEST_F(Moment, AStopOfAllIsToldOfAnEndThatAnotherThreadHasSeen)
{
    OpenWithCallersLoop();
    Child child({"sleep"});
    child->stop =
        Plan({{PM_STOP_TERMINATE, PM_SCOPE_PROCESS, 120000}, {PM_STOP_KILL, PM_SCOPE_TREE, 0}});
    pm_process *process = Spawn(child);
    Caller waiter([&] { EXPECT_EQ(PM_OK, pm_process_wait(process, PM_FOREVER, nullptr)); });
    ASSERT_TRUE(waiter.Sleeps());
    Stopped stopped;
    EXPECT_EQ(PM_OK, pm_stop_all(manager, 600000, Stopped::Note, &stopped, nullptr));
    EXPECT_GT(120000U, stopped.elapsed_ms) << "the whole grace";
}

// ------------------------------------------------------------------------------------------------
// Sinks
// ------------------------------------------------------------------------------------------------

TEST_F(Moment, TheLogSinkMayStopAllWhenAnExitRecordCannotBeWritten)
{
    struct Sink {
        pm_manager *manager = nullptr;
        std::atomic<int> calls{0};
        int result = -1;
    } sink;
    for (pm_loop loop : {PM_LOOP_CALLER, PM_LOOP_OWN}) {
        pm_options options = DefaultOptions();
        options.loop = loop;
        options.status_pending_ms = 50;
        options.user = &sink;
        options.log = [](void *user, pm_log_level, const char *line) {
            auto *here = static_cast<Sink *>(user);
            if (strstr(line, "exit record") != nullptr) {
                here->result = pm_stop_all(here->manager, 100000, nullptr, nullptr, nullptr);
                here->calls++;
            }
        };
        sink.calls = 0;
        Open(options);
        sink.manager = manager;
        Child other({"sleep"});
        other->stop =
            Plan({{PM_STOP_TERMINATE, PM_SCOPE_PROCESS, 60000}, {PM_STOP_KILL, PM_SCOPE_TREE, 0}});
        pm_process *process = Spawn(other);
        pm_process *daemon = StartDaemon("k");
        RemoveTree(folder + "/registry/exits");
        KillByNumber(pm_process_pid(daemon));
        EXPECT_TRUE(Eventually([&] {
            if (loop == PM_LOOP_CALLER)
                pm_dispatch(manager);
            return sink.calls == 1;
        }));
        EXPECT_EQ(PM_OK, sink.result);
        EXPECT_FALSE(pm_process_alive(process));
        for (pm_process *p : held)
            pm_process_unref(p);
        held.clear();
        EXPECT_EQ(PM_OK, Close());
        RemoveTree(folder + "/registry");
    }
}

TEST_F(Moment, AWaitThatOutlivesItsManagerTouchesNothingOfIt)
{
    struct Sink {
        std::atomic<bool> closed{false};
        std::atomic<int> late{0};
    } sink;
    pm_options options = DefaultOptions();
    options.status_pending_ms = 50;
    options.user = &sink;
    options.log = [](void *user, pm_log_level, const char *) {
        auto *here = static_cast<Sink *>(user);
        here->late += here->closed;
    };
    Open(options);
    pm_process *daemon = StartDaemon("k");
    Caller waiter([&] { EXPECT_EQ(PM_OK, pm_process_wait(daemon, PM_FOREVER, nullptr)); });
    ASSERT_TRUE(waiter.Sleeps());
    ASSERT_EQ(PM_OK, Close());
    sink.closed = true;
    EXPECT_FALSE(waiter.IsDone());
    KillByNumber(pm_process_pid(daemon));
    waiter.Join();
    EXPECT_EQ(0, sink.late);
    EXPECT_TRUE(ListFolder(folder + "/registry/exits").empty()) << "somebody else may own it";
}

// ------------------------------------------------------------------------------------------------
// Streams
// ------------------------------------------------------------------------------------------------

TEST_F(Moment, TheInputOfATerminalIsClosedBesideAReaderOfItsOutput)
{
    Open();
    Child child({"sleep", std::to_string(10000 * Slowness())});
    child->mode = PM_MODE_PTY;
    child->stdin_slot = child->stdout_slot = child->stderr_slot = pm_stdio();
    child->stop = Plan({{PM_STOP_CLOSE_STDIN, PM_SCOPE_TREE, 1}, {PM_STOP_KILL, PM_SCOPE_TREE, 0}});
    for (bool stops : {false, true}) {
        pm_process *process = Spawn(child);
        char buffer[16];
        size_t count;
        pm_stream *shown = pm_process_stream(process, PM_STDOUT);
        Caller reader([&] { // Echoes of what is typed come, and then nothing.
            while (pm_stream_read(shown, buffer, sizeof buffer, PM_FOREVER, &count) == PM_OK &&
                   count > 0) {
            }
        });
        ASSERT_TRUE(reader.Sleeps());
        if (stops) {
            EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, nullptr));
            EXPECT_EQ(SIGKILL, Wait(process).signal) << "it was not left to its own end";
        } else {
            EXPECT_EQ(PM_OK, pm_stream_close(pm_process_stream(process, PM_STDIN)));
            EXPECT_TRUE(pm_process_alive(process));
            EXPECT_EQ(PM_OK, pm_stream_close(shown));
        }
    }
}

// ------------------------------------------------------------------------------------------------
// Cancellation
// ------------------------------------------------------------------------------------------------

TEST_F(Moment, AWaitLeavesTheCancelStateOfItsThreadAlone)
{
    for (pm_loop loop : {PM_LOOP_OWN, PM_LOOP_CALLER}) {
        pm_options options = DefaultOptions();
        options.loop = loop;
        Open(options, false);
        // What the thread before had is what a wrong one would be given.
        std::thread([&] {
            pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, nullptr);
            if (loop == PM_LOOP_CALLER)
                pm_dispatch(manager);
        }).join();
        for (int state : {PTHREAD_CANCEL_DISABLE, PTHREAD_CANCEL_ENABLE}) {
            int before, after;
            pthread_setcancelstate(state, &before);
            for (int i = 0; i < 5; i++) {
                Child child({"exit", "0"});
                Wait(Spawn(child));
                pthread_setcancelstate(state, &after);
                EXPECT_EQ(state, after) << "loop " << loop;
            }
            pthread_setcancelstate(before, nullptr);
        }
        for (pm_process *p : held)
            pm_process_unref(p);
        held.clear();
        EXPECT_EQ(PM_OK, Close());
    }
}

TEST_F(Moment, NobodyIsCancelledWhoAsksForTheParentOfADaemon)
{
    Open();
    pm_process *daemon = StartDaemon("k");
    watch_cancellation = true;
    EXPECT_NE(0U, pm_process_parent(daemon));
    watch_cancellation = false;
    pm_info info = PM_INFO_INIT;
    EXPECT_EQ(PM_OK, pm_process_info(daemon, &info));
    EXPECT_EQ(!info.adopted, watched_reads > 0) << "nobody asks for the parent of his own child";
    EXPECT_EQ(0, cancellable_reads) << "a descriptor would be left";
}

// ------------------------------------------------------------------------------------------------
// Watches
// ------------------------------------------------------------------------------------------------

TEST_F(Moment, TheHostsLoopHearsOfAnEndThoughTheSystemHadNoRoomToWatchIt)
{
#ifdef PM_TEST_LIBKQUEUE
    GTEST_SKIP() << "a kqueue of libkqueue cannot be polled";
#endif
    OpenWithCallersLoop();
    std::atomic<int> ended{0};
    Child child({"ready"});
    child->stdin_slot.kind = PM_STDIO_PIPE;
    child->stdout_slot.kind = PM_STDIO_NULL;
    child->user = &ended;
    child->on_exit = [](pm_process *, const pm_exit *, void *user) {
        ++*static_cast<std::atomic<int> *>(user);
    };
    pm_process *process = Spawn(child);
    while (pm_dispatch(manager) > 0) {
    }
    no_room = true; // Nor for giving it back after a wait.
    EXPECT_EQ(PM_ERR_TIMEOUT, pm_process_wait(process, 1, nullptr));
    EXPECT_EQ(0, pm_dispatch(manager)); // Takes the wake-up that came with that.
    EXPECT_EQ(0, pm_dispatch(manager));
    EXPECT_EQ(PM_OK, pm_stream_close(pm_process_stream(process, PM_STDIN)));
    EXPECT_TRUE(Eventually([&] { return !pm_process_alive(process); }));
    EXPECT_TRUE(Eventually([&] {
        if (LoopHasWork() && pm_dispatch(manager) < 0)
            return false;
        return ended == 1;
    }));
    no_room = false;
}

// ------------------------------------------------------------------------------------------------
// Forked copies
// ------------------------------------------------------------------------------------------------

// 0, or which part of body() was wrong; -1: it did not say. A copy that hangs is ended. By a pipe:
// a host may have asked for no statuses.
template <typename Body>
int InACopy(Body body)
{
    int said[2], answer = -1;
    if (pipe(said) != 0)
        return -1;
    pid_t copy = fork();
    if (copy == 0) {
        alarm(static_cast<unsigned>(Patience() / 1000));
        answer = body();
        (void)!write(said[1], &answer, sizeof answer);
        _exit(0);
    }
    close(said[1]);
    if (Uninterrupted([&] { return read(said[0], &answer, sizeof answer); }) != sizeof answer)
        answer = -1;
    close(said[0]);
    if (copy > 0)
        (void)Uninterrupted([&] { return waitpid(copy, nullptr, 0); });
    return answer;
}

TEST_F(Moment, ACopyIsToldNothingOfTheProcessesOfItsParent)
{
    Open();
    Child child({"ready"});
    child->stdin_slot.kind = PM_STDIO_PIPE;
    child->stdout_slot.kind = PM_STDIO_NULL;
    pm_process *process = Spawn(child), *daemon = StartDaemon("k");
    EXPECT_EQ(0, InACopy([&]() -> int {
                  pm_info info = PM_INFO_INIT;
                  pm_exit record = PM_EXIT_INIT;
                  pm_native native = PM_NATIVE_INVALID;
                  for (pm_process *p : {process, daemon}) {
                      if (pm_process_info(p, &info) != PM_ERR_FORKED)
                          return 1;
                      if (pm_process_alive(p))
                          return 2;
                      if (pm_process_parent(p) != 0)
                          return 3;
                      if (pm_process_wait(p, 0, &record) != PM_ERR_FORKED)
                          return 4;
                      if (pm_process_exit_waitable(p, &native) != PM_ERR_FORKED)
                          return 5;
                  }
                  pm_stream *in = pm_process_stream(process, PM_STDIN);
                  if (pm_stream_native(in, &native) != PM_ERR_FORKED)
                      return 6;
                  return pm_stream_close(in) == PM_ERR_FORKED ? 0 : 7;
              }));
    EXPECT_TRUE(pm_process_alive(process));
}

// Where a wake-up is no write() the fork comes a moment later, and proves less.
TEST_F(Moment, ACopyMadeWhileAnotherThreadHasLocksMayHaveAManagerOfItsOwn)
{
    OpenWithCallersLoop();
    Child child({"exit", "0"});
    child->on_exit = [](pm_process *, const pm_exit *, void *) {};
    pm_process *process = Spawn(child);
    is_held = go_on = false;
    {
        Caller waiter([&] { // Posts the end under the manager's lock, and wakes the loop.
            at_write = true;
            EXPECT_EQ(PM_OK, pm_process_wait(process, PM_FOREVER, nullptr));
            at_write = false;
        });
        ASSERT_TRUE(Eventually([&] { return is_held || waiter.IsDone(); }));
        EXPECT_EQ(0, InACopy([]() -> int {
                      pm_options options = PM_OPTIONS_INIT;
                      options.loop = PM_LOOP_CALLER;
                      pm_manager *own = nullptr;
                      if (pm_open(&options, &own, nullptr) != PM_OK)
                          return 1;
                      if (pm_leak_scan(own, nullptr) != PM_OK)
                          return 2;
                      return pm_close(own, 0, nullptr) == PM_OK ? 0 : 3;
                  }));
        go_on = true;
    }
}

// ------------------------------------------------------------------------------------------------
// Records
// ------------------------------------------------------------------------------------------------

// A manager may be killed between the exit record and the removal of the running one.
TEST_F(Moment, ARecordThatWasGivenIsTheSameAfterARecovery)
{
    namespace fs = std::filesystem;
    Open();
    pm_process *daemon = StartDaemon("k");
    fs::path running;
    for (const auto &entry : fs::recursive_directory_iterator(folder + "/registry"))
        if (entry.is_regular_file() &&
            entry.path().parent_path().filename().string().rfind("boot-", 0) == 0)
            running = entry.path();
    ASSERT_FALSE(running.empty());
    fs::copy_file(running, folder + "/saved");
    ASSERT_EQ(PM_OK, pm_process_stop(daemon, nullptr, nullptr));
    pm_exit given = Wait(daemon), again = PM_EXIT_INIT;
    EXPECT_EQ(1U, given.stop_step);
    ASSERT_EQ(PM_OK, Close());
    std::vector<std::string> exits = ListFolder(folder + "/registry/exits");
    ASSERT_EQ(1U, exits.size());
    std::string text = ExitIn(ReadFile(folder + "/registry/exits/" + exits[0]));
    fs::copy_file(folder + "/saved", running);
    Open();
    EXPECT_EQ(PM_OK, pm_recover(
                         manager,
                         [](void *user, pm_process *process) {
                             return pm_process_wait(process, 0, static_cast<pm_exit *>(user));
                         },
                         &again, nullptr));
    EXPECT_EQ(given.kind, again.kind);
    EXPECT_EQ(given.code, again.code);
    EXPECT_EQ(given.stop_step, again.stop_step);
    EXPECT_EQ(given.stop_action, again.stop_action);
    EXPECT_EQ(given.uptime_ms, again.uptime_ms);
    EXPECT_EQ(given.started_wall_ms, again.started_wall_ms);
    EXPECT_EQ(given.ended_wall_ms, again.ended_wall_ms);
    EXPECT_EQ(text, ExitIn(ReadFile(folder + "/registry/exits/" + exits[0])));
    EXPECT_NE("", text);
}

// ------------------------------------------------------------------------------------------------
// Starts
// ------------------------------------------------------------------------------------------------

// The manager is preempted between its questions: whether the daemon lives, what it has said, and
// whether it has reached its program.
class Preempted : public Moment
{
  protected:
    // Starts a daemon whose program is written to until it is looked for, and comes back from the
    // look when the daemon has ended. What the start is.
    int Start(const std::function<void()> &then, pm_process **ret_process, pm_error *ret_error)
    {
        Open();
        program = folder + "/sh";
        std::filesystem::copy_file(std::filesystem::canonical("/bin/sh"), program);
        Child daemon({});
        daemon.program = program;
        daemon.args = {"sh", "-c", "exit 7"};
        daemon->mode = PM_MODE_DAEMON;
        daemon->key = "short";
#ifdef __linux__
        prctl(PR_SET_CHILD_SUBREAPER, 1); // So that its zombie is there to be looked at.
#endif
        int result, tries = 0;
        do { // Until it is looked for, before it has had enough of waiting for its program.
            int busy_with = open(program.c_str(), O_WRONLY | O_CLOEXEC);
            was_looked_for = was_in_vain = false;
            before_look = [&] {
                was_looked_for = true;
                then();
                close(busy_with);
            };
            result = pm_spawn(manager, daemon.Get(), ret_process, ret_error);
            if (!was_looked_for)
                close(busy_with);
            before_look = nullptr;
        } while (!was_looked_for && result == PM_ERR_TEXT_BUSY && ++tries < 100);
#ifdef __linux__
        prctl(PR_SET_CHILD_SUBREAPER, 0);
#endif
        EXPECT_TRUE(was_looked_for) << "the test proves nothing";
        return result;
    }

    std::string program;
    bool was_looked_for = false;
};

TEST_F(Preempted, ADaemonThatHasEndedMeanwhileHasBeenStarted)
{
    if (OnValgrind()) {
        GTEST_SKIP() << "a program does not survive a failed exec";
    }
    pm_process *process = nullptr;
    pm_error error = PM_ERROR_INIT;
    ASSERT_EQ(PM_OK, Start([] {}, &process, &error)) << error.hint;
    pm_exit record = Wait(process);
    EXPECT_TRUE(record.kind == PM_EXIT_LOST || (record.kind == PM_EXIT_EXITED && record.code == 7));
    pm_process_unref(process);
}

TEST_F(Preempted, ADaemonThatHasFailedMeanwhileSaysWhy)
{
    if (OnValgrind()) {
        GTEST_SKIP() << "a program does not survive a failed exec";
    }
    pm_process *process = nullptr;
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(PM_ERR_NOT_FOUND,
              Start([this] { std::filesystem::remove(program); }, &process, &error))
        << error.hint;
    EXPECT_EQ(PM_STAGE_EXEC, error.stage);
}

// Where there is no pidfd a thread looks at each that was recovered, now and then. A machine that
// is busy may be late for another reason, but not each time.
TEST_F(Moment, ACloseTakesNoTimeForEachLivingDaemon)
{
    const int count = OnValgrind() || OnEmulator() ? 4 : 40;
    const int enough_ms = 10 * count * Slowness();
    Open();
    for (int i = 0; i < count; i++)
        StartDaemon(("k" + std::to_string(i)).c_str());
    std::chrono::milliseconds took(0);
    for (int round = 0; round < 5 && (round == 0 || took.count() > enough_ms); round++) {
        ASSERT_EQ(PM_OK, Close());
        Open();
        ASSERT_EQ(PM_OK, pm_recover(manager, nullptr, nullptr, nullptr));
        auto begin = std::chrono::steady_clock::now();
        ASSERT_EQ(PM_OK, Close());
        took = std::chrono::duration_cast<std::chrono::milliseconds>(
            std::chrono::steady_clock::now() - begin);
        Open();
        ASSERT_EQ(PM_OK, pm_recover(manager, nullptr, nullptr, nullptr));
    }
    EXPECT_GE(enough_ms, took.count());
}

TEST_F(Moment, ALivingDaemonIsNotForgottenBeforeItIsRecovered)
{
    Open();
    StartDaemon("k");
    ASSERT_EQ(PM_OK, Close());
    Open();
    EXPECT_EQ(PM_ERR_BUSY, pm_forget(manager, "k"));
    EXPECT_EQ(PM_OK, pm_recover(manager, nullptr, nullptr, nullptr));
    EXPECT_EQ(PM_ERR_BUSY, pm_forget(manager, "k"));
}

} // namespace
