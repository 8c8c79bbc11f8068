// Whole suites of tests in the fault build: under storms they must pass, without a guard they must
// fail.
#include <dirent.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <processmgr/processmgr.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace
{

struct Outcome {
    int status;
    std::string output;
    std::string left; // Programs that it left running.
};

// The programs whose parent we are, but for those that have ended.
std::vector<pid_t> RunningChildren()
{
    std::vector<pid_t> children;
    DIR *dir = opendir("/proc");
    while (const dirent *entry = readdir(dir)) {
        char state = 0;
        int parent = 0;
        if (FILE *file = fopen(("/proc/" + std::string(entry->d_name) + "/stat").c_str(), "re")) {
            char line[512] = "";
            size_t n = fread(line, 1, sizeof(line) - 1, file);
            line[n] = 0;
            fclose(file);
            const char *rest = strrchr(line, ')');
            if (rest != nullptr && sscanf(rest, ") %c %d", &state, &parent) == 2 &&
                parent == getpid() && state != 'Z')
                children.push_back(atoi(entry->d_name));
        }
    }
    closedir(dir);
    return children;
}

std::string CommandOf(pid_t pid)
{
    std::string text = std::to_string(pid) + ":";
    if (FILE *file = fopen(("/proc/" + std::to_string(pid) + "/cmdline").c_str(), "re")) {
        text += ' ';
        for (int c; (c = fgetc(file)) != EOF;)
            text += c == 0 ? ' ' : static_cast<char>(c);
        fclose(file);
    }
    return text + "\n";
}

// Ends all that a suite left to us, and says what that was: what is still there after a while.
std::string SweepChildren()
{
    std::string left;
    for (int tries = 0; tries < 500 && !RunningChildren().empty(); tries++) {
        while (waitpid(-1, nullptr, WNOHANG) > 0) {
        }
        usleep(10000);
    }
    for (std::vector<pid_t> children; !(children = RunningChildren()).empty();) {
        for (pid_t child : children) {
            left += CommandOf(child);
            kill(child, SIGKILL);
        }
        // Theirs come to us when they are reaped.
        for (pid_t child : children)
            waitpid(child, nullptr, 0);
    }
    while (waitpid(-1, nullptr, 0) > 0 || errno == EINTR) {
    }
    return left;
}

// Runs a suite with a variable set. We are the init of all that it starts: its orphans come to us,
// are reaped at once, and what is left of them after it is ended and told.
Outcome RunSuite(const std::string &suite, const std::string &filter,
                 const std::vector<std::string> &variables, unsigned limit_s = 240)
{
    char log[] = "/tmp/pm-suite-XXXXXX";
    int fd = mkostemp(log, O_CLOEXEC);
    std::string path = std::string(PM_FAULT_BIN) + "/fault_" + suite;
    std::string argument = "--gtest_filter=" + filter;
    EXPECT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
    pid_t pid = fork();
    if (pid == 0) {
        unsetenv("GTEST_OUTPUT");
        for (const auto &variable : variables)
            putenv(const_cast<char *>(variable.c_str()));
        dup2(fd, 1);
        dup2(fd, 2);
        // A guard that is gone may show as a hang.
        alarm(limit_s);
        execl(path.c_str(), path.c_str(), argument.c_str(), static_cast<char *>(nullptr));
        _exit(127);
    }
    Outcome outcome = {};
    int status = 0;
    for (pid_t ended; (ended = waitpid(-1, &status, 0)) != pid;) {
        if (ended < 0 && errno != EINTR) {
            ADD_FAILURE() << "the suite is not our child";
            break;
        }
    }
    outcome.status = status;
    outcome.left = SweepChildren();
    char buffer[4096];
    lseek(fd, 0, SEEK_SET);
    for (ssize_t n; (n = read(fd, buffer, sizeof(buffer))) > 0;)
        outcome.output.append(buffer, static_cast<size_t>(n));
    close(fd);
    unlink(log);
    return outcome;
}

// What a reader wants of a failed run.
std::string Tail(const std::string &output)
{
    const size_t most = 6000;
    return output.size() > most ? "...\n" + output.substr(output.size() - most) : output;
}

// ------------------------------------------------------------------------------------------------
// Storms
// ------------------------------------------------------------------------------------------------

struct Storm {
    const char *name;
    const char *suite;
    const char *filter;
    const char *variable;
};

const char kNoWallClock[] = "*-Exit.TheRecordHasUsageAndTimes";

const Storm kStorms[] = {
    {"AThirdOfTheCallsIsInterrupted", "contract_normal", "*", "PM_FAULT_EINTR=3"},
    {"AThirdOfTheCallsIsInterruptedOfDaemons", "contract_daemon", "*", "PM_FAULT_EINTR=3"},
    {"SignalsAtOneKilohertz", "contract_normal", "*", "PM_FAULT_STORM=1"},
    {"SignalsAtOneKilohertzForDaemons", "contract_daemon", "*", "PM_FAULT_STORM=1"},
    {"TheClockJumps", "contract_normal", kNoWallClock, "PM_FAULT_CLOCK=1"},
    {"TheClockJumpsForDaemons", "contract_daemon", "*", "PM_FAULT_CLOCK=1"},
};

class Storms : public testing::TestWithParam<Storm>
{
};

TEST_P(Storms, ChangeNothing)
{
    const Storm &storm = GetParam();
    Outcome outcome = RunSuite(storm.suite, storm.filter, {storm.variable});
    EXPECT_EQ(0, outcome.status) << storm.suite << " with " << storm.variable << "\n"
                                 << Tail(outcome.output);
    EXPECT_NE(std::string::npos, outcome.output.find("[  PASSED  ]"));
    EXPECT_EQ("", outcome.left);
}

INSTANTIATE_TEST_SUITE_P(Of, Storms, testing::ValuesIn(kStorms),
                         [](const auto &info) { return std::string(info.param.name); });

// ------------------------------------------------------------------------------------------------
// Guards
// ------------------------------------------------------------------------------------------------

struct Guard {
    const char *name;
    const char *without;
    const char *suite;
    const char *filter; // Of tests that must notice.
    std::vector<std::string> others;
};

const Guard kGuards[] = {
    {"CloseOnExec", "cloexec", "contract_normal", "Stdio.OnlyWhatTheSpecNames*", {}},
    {"WaitForOurOwn", "own wait", "contract_normal", "Exit.TheHostsOwnChildren*", {}},
    {"Gate", "gate", "contract_daemon", "Crash.*", {}},
    {"LockAroundReaping", "reap lock", "contract_normal", "Exit.EightWaiters*", {}},
    {"Continue", "SIGCONT", "contract_normal", "Stop.EndsOneThatIsStopped", {}},
    {"PlainExit",
     "_exit",
     "posix_host",
     "Start.LeavesTheHostsBuffersAlone",
     {"PM_FAULT_DENY=clone"}},
    {"ProofOfTheProcess", "process proof", "posix_host", "Reuse.*", {}},
    {"Drain",
     "drain",
     "contract_normal",
     "Stdio.StderrGoes*:Stdio.StdoutAnd*:Stdio.AGrandchild*",
     {}},
    {"StatParser", "stat parser", "posix_host", "*Table.*OddName", {}},
    {"MonotonicClock",
     "monotonic clock",
     "contract_normal",
     "Stop.StopAllStopsThem*",
     {"PM_FAULT_CLOCK=1"}},
    {"SignalMask", "mask", "contract_normal", "Spec.MaskAndDispositions*", {}},
    {"CompleteLooks", "complete looks", "posix_host", "Group.AStopOfASession*", {}},
    {"SlotCheck", "slot check", "posix_host", "LowDescriptors.*", {}},
    {"Subreaper", "subreaper", "subreaper", "Subreaper.StopAllAnd*", {}},
    {"MarkOfATree", "tree mark", "subreaper", "Subreaper.AStopOfOneTree*", {}},
    {"MarkOfAnOrphan", "orphan mark", "subreaper", "Subreaper.TheHostsOwnChildren*", {}},
    {"HandleFirst", "handle first", "subreaper", "Subreaper.AHandlesStatus*", {}},
};

class Guards : public testing::TestWithParam<Guard>
{
};

TEST_P(Guards, AreMissedWhenTheyAreGone)
{
    const Guard &guard = GetParam();
    Outcome with = RunSuite(guard.suite, guard.filter, guard.others);
    ASSERT_EQ(0, with.status) << "with the guard\n" << Tail(with.output);
    if (with.output.find("[  SKIPPED ]") != std::string::npos &&
        with.output.find("[  PASSED  ] 0 tests") != std::string::npos)
        GTEST_SKIP() << "those who must notice are skipped here";
    ASSERT_EQ(std::string::npos, with.output.find("[  PASSED  ] 0 tests")) << guard.filter;
    EXPECT_EQ("", with.left);

    std::vector<std::string> variables = guard.others;
    variables.push_back(std::string("PM_FAULT_WITHOUT=") + guard.without);
    Outcome without = RunSuite(guard.suite, guard.filter, variables, 15);
    EXPECT_NE(0, without.status) << "nobody notices that the guard is gone\n"
                                 << Tail(without.output);
}

INSTANTIATE_TEST_SUITE_P(Of, Guards, testing::ValuesIn(kGuards),
                         [](const auto &info) { return std::string(info.param.name); });

} // namespace
