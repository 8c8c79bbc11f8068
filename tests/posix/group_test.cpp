// Processes that do not stay where they were put.

#include "fixture.h"

#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sstream>
#include <sys/wait.h>
#include <unistd.h>

using namespace contract;

namespace
{

// Goes into the group of its parent, and lingers there.
int LeaveGroup(const std::vector<std::string> &)
{
    bool left = setpgid(0, getpgid(getppid())) == 0;
    printf("%s\n", left ? "left" : "stayed");
    fflush(stdout);
    alarm(60);
    pause();
    return 0;
}

// In one group of its own, or each in another one: processes of which each makes the next and ends.
// Deaf to SIGTERM. Says so if it is over by itself: where nobody waits for orphans, the numbers of
// processes would end.
int Chain(const std::vector<std::string> &args)
{
    bool many_groups = args.at(0) == "many";
    signal(SIGTERM, SIG_IGN);
    if (fork() == 0) {
        setpgid(0, 0);
        for (int i = 0; i < 5000; i++) {
            if (fork() != 0)
                _exit(0);
            if (many_groups)
                setpgid(0, 0);
            usleep(1000);
        }
        printf("over\n");
        fflush(stdout);
        _exit(0);
    }
    signal(SIGTERM, SIG_DFL);
    printf("ready\n");
    fflush(stdout);
    alarm(60);
    pause();
    return 0;
}

// A member of the session that is deaf to SIGTERM and goes to the leader's group and back to one of
// its own, again and again. args: how long it stays, in us.
int GoToAndFro(const std::vector<std::string> &a)
{
    const pid_t leader = getpid();
    const auto stay = static_cast<useconds_t>(std::stoul(a.at(0)));
    if (fork() == 0) {
        signal(SIGTERM, SIG_IGN);
        alarm(120);
        if (fork() == 0)
            _exit(0);
        siginfo_t info;
        waitid(P_ALL, 0, &info, WEXITED | WNOWAIT); // A zombie keeps the group that it comes from.
        setpgid(0, 0);
        printf("ready\n");
        fflush(stdout);
        for (;;) {
            usleep(stay);
            setpgid(0, getpgrp() == leader ? 0 : leader);
        }
    }
    for (;;)
        pause();
}

const RoleAdder chain("chain", Chain);
const RoleAdder to_and_fro("to-and-fro", GoToAndFro);
const RoleAdder leave_group("leave-group", LeaveGroup);

class Group : public Contract
{
};

TEST_F(Group, ALeaderThatHasLeftItsGroupIsStoppedAllTheSame)
{
    Open();
    Child child({"leave-group"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    ASSERT_EQ("left", ReadLine(process));
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, &report));
    EXPECT_EQ(1u, report.ended_by);
    EXPECT_EQ(SIGTERM, Wait(process).signal);
}

// Living ones of a session, seen three times over: who forks is not in every look.
int AliveInSession(uint64_t session)
{
    int found = 0;
    for (int look = 0; look < 3; look++)
        for (const auto &name : ListFolder("/proc")) {
            std::string text = name[0] > '9' ? "" : ReadFile("/proc/" + name + "/stat");
            std::istringstream rest(text.substr(text.find(')') + 1));
            char state = 'X';
            uint64_t parent, group, of = 0;
            rest >> state >> parent >> group >> of;
            found += of == session && state != 'Z' && state != 'X';
        }
    return found;
}

TEST_F(Group, AStopOfASessionReachesWhoForksMeanwhile)
{
    Open();
    for (const char *groups : {"one", "many", "one", "many"}) {
        SCOPED_TRACE(groups);
        Child child({"chain", groups});
        child->new_session = true;
        child->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *process = Spawn(child);
        ASSERT_EQ("ready", ReadLine(process));
        uint64_t session = pm_process_pid(process);
        EXPECT_TRUE(Eventually([&] { return AliveInSession(session) > 1; }));
        pm_stop_plan plan = {};
        plan.steps_count = 2;
        plan.steps[0] = {PM_STOP_TERMINATE, PM_SCOPE_TREE, 50};
        plan.steps[1] = {PM_STOP_KILL, PM_SCOPE_TREE, 10000};
        pm_stop_report report = PM_STOP_REPORT_INIT;
        EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, &report));
        EXPECT_EQ(2u, report.steps_tried) << "they were deaf to the first";
        EXPECT_FALSE(report.tree_left);
        EXPECT_EQ(0, AliveInSession(session));
        EXPECT_EQ("", ReadAll(process)) << "it has ended by itself";
    }
}

pm_stop_plan AskThenKill()
{
    return {2,
            {{PM_STOP_TERMINATE, PM_SCOPE_TREE, 50},
             {PM_STOP_KILL, PM_SCOPE_TREE, static_cast<uint32_t>(Patience())}}};
}

// Else a shell would see its child killed, and say so by its exit code.
TEST_F(Group, AKillOfASessionIsAtOnceForAllInItsLeadersGroup)
{
    Open();
    for (int i = 0; i < 20; i++) {
        Child child({});
        child.program = "/bin/sh";
        child.args = {"sh", "-c", "echo ready; sleep 60; exit 7"};
        child->new_session = true;
        child->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *process = Spawn(child);
        ASSERT_EQ("ready", ReadLine(process));
        EXPECT_TRUE(Eventually([&] { return AliveInSession(pm_process_pid(process)) > 3; }));
        pm_stop_plan plan = {1, {{PM_STOP_KILL, PM_SCOPE_TREE, static_cast<uint32_t>(Patience())}}};
        EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, nullptr));
        EXPECT_EQ(SIGKILL, Wait(process).signal);
    }
}

// Those who go from group to group are met in each of them, or in none.
TEST_F(Group, AStopReachesWhoGoesFromGroupToGroup)
{
    for (const char *stay : {"200", "5000", "20000"}) {
        SCOPED_TRACE(stay);
        std::vector<uint64_t> sessions;
        Open();
        for (int i = 0; i < 10; i++) {
            Child child({"to-and-fro", stay});
            child->new_session = true;
            child->stdout_slot.kind = PM_STDIO_PIPE;
            child->stop = AskThenKill();
            pm_process *process = Spawn(child);
            ASSERT_EQ("ready", ReadLine(process));
            sessions.push_back(pm_process_pid(process));
        }
        EXPECT_EQ(PM_OK, pm_stop_all(manager, Patience(), nullptr, nullptr, nullptr));
        for (uint64_t session : sessions)
            EXPECT_EQ(0, AliveInSession(session));
        EXPECT_EQ(PM_OK, Close());
    }
}

// The looks of a round share a list of all processes, and these are born behind it.
TEST_F(Group, AStopOfManySessionsReachesWhoForksMeanwhile)
{
    const int sessions = 6;
    std::vector<uint64_t> pids;
    Open();
    for (int i = 0; i < sessions; i++) {
        Child child({"chain", i % 2 == 0 ? "one" : "many"});
        child->new_session = true;
        child->stdout_slot.kind = PM_STDIO_PIPE;
        child->stop = AskThenKill();
        pm_process *process = Spawn(child);
        ASSERT_EQ("ready", ReadLine(process));
        pids.push_back(pm_process_pid(process));
    }
    pm_stop_all_report report = PM_STOP_ALL_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_stop_all(manager, 2 * Patience(), nullptr, nullptr, &report));
    EXPECT_EQ(static_cast<size_t>(sessions), report.stopped);
    for (uint64_t pid : pids)
        EXPECT_EQ(0, AliveInSession(pid));
}

#ifdef __linux__ // Sessions are looked for, and signals queued.

void *NoThread(void *)
{
    usleep(10000);
    return nullptr;
}

// Its job, in a group of its own, makes threads without a pause, and tells in the end how many
// signals have come.
int Threads(const std::vector<std::string> &)
{
    signal(SIGRTMIN, SIG_IGN);
    if (fork() != 0) {
        alarm(120);
        for (;;)
            pause();
    }
    setpgid(0, 0);
    // Not by a handler: under a thread sanitizer that hears of several at once as one.
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGRTMIN);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    signal(SIGRTMIN, SIG_DFL);
    printf("ready\n");
    fflush(stdout);
    pollfd in = {};
    in.events = POLLIN;
    while (poll(&in, 1, 0) <= 0) {
        pthread_t thread;
        if (pthread_create(&thread, nullptr, NoThread, nullptr) == 0)
            pthread_detach(thread);
        usleep(100);
    }
    const timespec none = {};
    int heard = 0;
    while (sigtimedwait(&set, nullptr, &none) > 0)
        heard++;
    printf("heard %d\n", heard);
    fflush(stdout);
    return 0;
}

// Makes children without a pause, each in a group of its own. They live for a moment, and say so if
// a signal came to one of them twice: each number is sent once.
int Births(const std::vector<std::string> &)
{
    sigset_t set;
    sigemptyset(&set);
    for (int number = SIGRTMIN; number <= SIGRTMAX; number++)
        sigaddset(&set, number);
    sigprocmask(SIG_BLOCK, &set, nullptr);
    printf("ready\n");
    fflush(stdout);
    pollfd in = {};
    in.events = POLLIN;
    while (poll(&in, 1, 0) <= 0) {
        if (fork() == 0) {
            setpgid(0, 0);
            usleep(20000);
            const timespec none = {};
            for (int number, last = 0; (number = sigtimedwait(&set, nullptr, &none)) > 0;) {
                if (number == last)
                    printf("twice\n");
                last = number; // They come by their numbers.
            }
            fflush(stdout);
            _exit(0);
        }
        while (waitpid(-1, nullptr, WNOHANG) > 0)
            continue;
        usleep(300);
    }
    while (waitpid(-1, nullptr, 0) > 0)
        continue;
    printf("over\n");
    fflush(stdout);
    return 0;
}

const RoleAdder births("births", Births);
const RoleAdder threads("threads", Threads);

class GroupStep : public Group
{
  protected:
    // Sends each of these signals to the tree of that role, and has it end. What it has said then.
    std::string Send(const char *role, const std::vector<int> &numbers)
    {
        Open();
        Child child({role});
        child->new_session = true;
        child->stdin_slot.kind = child->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *process = Spawn(child);
        EXPECT_EQ("ready", ReadLine(process));
        for (int number : numbers)
            EXPECT_EQ(PM_OK, pm_process_signal(process, number, PM_SCOPE_TREE));
        EXPECT_EQ(PM_OK, pm_stream_close(pm_process_stream(process, PM_STDIN)));
        std::string said = ReadLine(process);
        EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, nullptr));
        return said;
    }
};

TEST_F(GroupStep, DoesNotReachAThreadOfAMemberAgain)
{
    EXPECT_EQ("heard 50", Send("threads", std::vector<int>(50, SIGRTMIN)));
}

TEST_F(GroupStep, ReachesWhoIsBornMeanwhileOnce)
{
    std::vector<int> numbers;
    // Valgrind and qemu have the last ones for themselves.
    for (int number = SIGRTMIN; number < SIGRTMAX - 4; number++)
        numbers.push_back(number);
    EXPECT_EQ("over", Send("births", numbers));
}

#endif

// Leaves one in its group, who makes a group of its own in the session once he is asked to.
int LateJob(const std::vector<std::string> &)
{
    if (fork() == 0) {
        char byte;
        signal(SIGHUP, SIG_IGN);
        (void)!read(0, &byte, 1);
        if (fork() == 0) {
            setpgid(0, 0);
            printf("job %d\n", static_cast<int>(getpid()));
            fflush(stdout);
        }
        alarm(120);
        for (;;)
            pause();
    }
    _exit(0);
}

const RoleAdder late_job("late-job", LateJob);

TEST_F(Group, ASessionIsNotOverWhileSomebodyIsInItsLeadersGroup)
{
    Open();
    Child child({"late-job"});
    child->new_session = true;
    child->stdin_slot.kind = child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    Wait(process);
    EXPECT_EQ(PM_OK, pm_process_signal(process, 0, PM_SCOPE_TREE));
    size_t count = 0;
    EXPECT_EQ(PM_OK,
              pm_stream_write(pm_process_stream(process, PM_STDIN), "j", 1, Patience(), &count));
    std::string line = ReadLine(process);
    ASSERT_EQ(0u, line.find("job ")) << line;
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, &report));
    EXPECT_FALSE(report.tree_left);
    uint64_t job = std::stoull(line.substr(4));
    EXPECT_TRUE(Eventually([&] { return !PidAlive(job); }));
}

// A polite end may take more output than a pipe holds.
TEST_F(Group, ARunThatIsStoppedIsReadMeanwhile)
{
    Open();
    const char *script = "trap 'head -c 3000000 /dev/zero; exit 6' TERM; echo ready; "
                         "while :; do sleep 0.01; done";
    const char *argv[] = {"sh", "-c", script, nullptr};
    pm_spec spec = PM_SPEC_INIT;
    spec.owner = "group";
    spec.program = "sh";
    spec.argv = argv;
    spec.stop.steps_count = 2;
    spec.stop.steps[0] = {PM_STOP_TERMINATE, PM_SCOPE_PROCESS, 20000};
    spec.stop.steps[1] = {PM_STOP_KILL, PM_SCOPE_TREE, 0};
    pm_run_options options = PM_RUN_OPTIONS_INIT;
    pm_run_result result = PM_RUN_RESULT_INIT;
    options.spec = &spec;
    options.timeout_ms = int64_t{300} * Slowness(); // The start is a part of it.
    options.max_output = 10;
    ASSERT_EQ(PM_OK, pm_run(manager, &options, &result, nullptr));
    EXPECT_TRUE(result.timed_out);
    EXPECT_EQ(1u, result.stop->ended_by);
    EXPECT_EQ(6u, result.record->code);
    EXPECT_EQ(3000000u + 6, result.output_size[0] + result.output_dropped[0]);
    pm_run_result_clear(&result);
}

} // namespace
