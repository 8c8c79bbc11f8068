// Whole suites of tests in the fault build: under storms they must pass, without a guard they must
// fail.
#include "fault.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <processmgr/processmgr.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <string>
#include <tuple>
#include <vector>

namespace
{

struct Outcome {
    int status;
    int64_t took_ms;
    std::string output;
    std::string left; // Programs that it left running.
    uint64_t hits[PM_FAULT_HITS];
};

// The programs whose parent we are, but for those that have ended.
std::vector<pid_t> RunningChildren()
{
    std::vector<pid_t> children;
    // We have one thread. Without that file, an option of the kernel, nobody is found.
    const std::string self = std::to_string(getpid());
    FILE *list = fopen(("/proc/self/task/" + self + "/children").c_str(), "re");
    for (int pid = 0; list != nullptr && fscanf(list, "%d", &pid) == 1;) {
        char state = 0, line[512] = "";
        if (FILE *file = fopen(("/proc/" + std::to_string(pid) + "/stat").c_str(), "re")) {
            (void)!fread(line, 1, sizeof(line) - 1, file);
            fclose(file);
            const char *rest = strrchr(line, ')');
            if (rest != nullptr && sscanf(rest, ") %c", &state) == 1 && state != 'Z')
                children.push_back(pid);
        }
    }
    if (list != nullptr)
        fclose(list);
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
std::string SweepChildren(int patience_ms)
{
    std::string left;
    for (int waited = 0; waited < patience_ms && !RunningChildren().empty(); waited += 10) {
        while (waitpid(-1, nullptr, WNOHANG) > 0) {
        }
        usleep(10000);
    }
    // Without a pause: some of them make the next one in a millisecond, and end.
    for (std::vector<pid_t> children; !(children = RunningChildren()).empty();) {
        for (pid_t child : children) {
            left += CommandOf(child);
            kill(child, SIGKILL);
        }
        // Theirs come to us when they are reaped.
        for (pid_t child : children)
            waitpid(child, nullptr, 0);
    }
    while (waitpid(-1, nullptr, WNOHANG) > 0) {
    }
    return left;
}

int64_t NowMs()
{
    return std::chrono::duration_cast<std::chrono::milliseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

// A suite that takes longer hangs: of the first kind any, of the second those that are known to.
constexpr int kSuiteSeconds = 240, kHangSeconds = 8;

int Scale()
{
    const char *scale = getenv("PM_TEST_SCALE");
    return scale != nullptr && atoi(scale) > 0 ? atoi(scale) : 1;
}

// In quick numbers whatever we were asked for: of a sound suite that took longer than a broken one
// may take, nothing could be told.
[[noreturn]] void BecomeSuite(const std::string &suite, const std::string &filter,
                              const std::vector<std::string> &variables, int limit_s)
{
    std::string path = std::string(PM_FAULT_BIN) + "/fault_" + suite;
    std::string argument = "--gtest_filter=" + filter;
    unsetenv("GTEST_OUTPUT");
    unsetenv("PM_TEST_FULL");
    for (const auto &variable : variables)
        putenv(const_cast<char *>(variable.c_str()));
    alarm(static_cast<unsigned>(limit_s * Scale()));
    execl(path.c_str(), path.c_str(), argument.c_str(), static_cast<char *>(nullptr));
    _exit(127);
}

// The file in which a suite counts what its storm has hit.
class HitsFile
{
  public:
    HitsFile()
    {
        int fd = mkostemp(name, O_CLOEXEC);
        const uint64_t none[PM_FAULT_HITS] = {};
        EXPECT_EQ(ssize_t{sizeof(none)}, write(fd, none, sizeof(none)));
        close(fd);
    }

    ~HitsFile()
    {
        unlink(name);
    }

    HitsFile(const HitsFile &) = delete;
    HitsFile &operator=(const HitsFile &) = delete;

    void Read(uint64_t (&ret_hits)[PM_FAULT_HITS]) const
    {
        int fd = open(name, O_RDONLY | O_CLOEXEC);
        EXPECT_EQ(ssize_t{sizeof(ret_hits)}, read(fd, ret_hits, sizeof(ret_hits)));
        close(fd);
    }

    std::string Variable() const
    {
        return std::string("PM_FAULT_HITS=") + name;
    }

  private:
    char name[32] = "/tmp/pm-hits-XXXXXX";
};

// Runs a suite with variables set. We are the init of all that it starts: its orphans come to us,
// are reaped at once, and what is left of them after it is ended and told.
Outcome RunSuite(const std::string &suite, const std::string &filter,
                 std::vector<std::string> variables, int limit_s = kSuiteSeconds)
{
    const HitsFile hits;
    variables.push_back(hits.Variable());
    char log[] = "/tmp/pm-suite-XXXXXX";
    int fd = mkostemp(log, O_CLOEXEC);
    EXPECT_EQ(0, prctl(PR_SET_CHILD_SUBREAPER, 1));
    const int64_t begin = NowMs();
    pid_t pid = fork();
    if (pid == 0) {
        dup2(fd, 1);
        dup2(fd, 2);
        BecomeSuite(suite, filter, variables, limit_s);
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
    outcome.took_ms = NowMs() - begin;
    // What belongs to a suite that failed will hardly end by itself.
    outcome.left = SweepChildren(status == 0 ? 5000 * Scale() : 0);
    char buffer[4096];
    lseek(fd, 0, SEEK_SET);
    for (ssize_t n; (n = read(fd, buffer, sizeof(buffer))) > 0;)
        outcome.output.append(buffer, static_cast<size_t>(n));
    close(fd);
    unlink(log);
    hits.Read(outcome.hits);
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

struct Weather {
    const char *name;
    const char *variable;
    pm_fault_hit hit; // What it has to hit.
};

const Weather kWeathers[] = {{"AThirdOfTheCallsIsInterrupted", "PM_FAULT_EINTR=3",
                              PM_FAULT_HIT_CALL},
                             {"SignalsAtOneKilohertz", "PM_FAULT_STORM=1", PM_FAULT_HIT_SIGNAL},
                             {"TheClockJumps", "PM_FAULT_CLOCK=1", PM_FAULT_HIT_CLOCK}};

struct Suite {
    const char *name;
    int slowness;        // In a storm: what PM_TEST_SCALE is multiplied with.
    bool staged = false; // It uses the library on a stage alone.
};

// The first three in each run, the others with PM_TEST_FULL.
const Suite kSuites[] = {{"contract_normal", 1}, {"contract_daemon", 1},
                         {"options", 1},         {"pty", 1},
                         {"subreaper", 1},       {"posix_host", 1},
                         {"races", 4},           {"hosts", 4, true},
                         {"moments", 4},         {"model", 1},
                         {"debug_server", 1}};
constexpr size_t kQuickSuites = 3;

void PrintTo(const Weather &weather, std::ostream *out)
{
    *out << weather.name;
}

void PrintTo(const Suite &suite, std::ostream *out)
{
    *out << suite.name;
}

// Tests of which a storm hits more than the library.
struct Calm {
    const char *suite;
    const char *weather;
    const char *tests;
};

const Calm kCalm[] = {
    // Reads the wall clock.
    {"contract_normal", "TheClockJumps", "Exit.TheRecordHasUsageAndTimes"},
    // Reads what a program says without a second try.
    {"debug_server", "SignalsAtOneKilohertz", "Debug.TheAlertsInTheManual*"},
    // Wait for children of their own without a second try.
    {"subreaper", "SignalsAtOneKilohertz",
     "Subreaper.AStopOfOneTree*:Subreaper.TheHostsOwnChildren*"},
};

using Storm = std::tuple<Suite, Weather>;

std::string FilterOf(const Suite &suite, const Weather &weather)
{
    for (const Calm &calm : kCalm)
        if (strcmp(calm.suite, suite.name) == 0 && strcmp(calm.weather, weather.name) == 0)
            return std::string("*-") + calm.tests;
    return "*";
}

class Storms : public testing::TestWithParam<Storm>
{
};

TEST_P(Storms, ChangeNothing)
{
    const auto &[suite, weather] = GetParam();
    if (access((std::string(PM_FAULT_BIN) + "/fault_" + suite.name).c_str(), X_OK) != 0)
        GTEST_SKIP() << "this suite is not built here";
    const std::string scale = "PM_TEST_SCALE=" + std::to_string(suite.slowness * Scale());
    Outcome outcome = RunSuite(suite.name, FilterOf(suite, weather), {weather.variable, scale});
    EXPECT_EQ(0, outcome.status) << suite.name << " with " << weather.variable << "\n"
                                 << Tail(outcome.output);
    EXPECT_NE(std::string::npos, outcome.output.find("[  PASSED  ]"));
    EXPECT_EQ(std::string::npos, outcome.output.find("[  PASSED  ] 0 tests"));
    EXPECT_EQ("", outcome.left);
    const bool staged = suite.staged && weather.hit == PM_FAULT_HIT_SIGNAL;
    EXPECT_LT(0u, outcome.hits[staged ? PM_FAULT_HIT_STAGED : weather.hit])
        << "there was no storm: nothing is proven";
}

std::string NameOf(const testing::TestParamInfo<Storm> &info)
{
    return std::string(std::get<1>(info.param).name) + "_" + std::get<0>(info.param).name;
}

std::vector<Suite> SuitesToday()
{
    const size_t all = std::size(kSuites);
    return {kSuites, kSuites + (getenv("PM_TEST_FULL") != nullptr ? all : kQuickSuites)};
}

INSTANTIATE_TEST_SUITE_P(Of, Storms,
                         testing::Combine(testing::ValuesIn(SuitesToday()),
                                          testing::ValuesIn(kWeathers)),
                         NameOf);

// ------------------------------------------------------------------------------------------------
// Guards
// ------------------------------------------------------------------------------------------------

// How the tests end without the guard.
enum End {
    FAILED,  // By themselves, naming one that failed.
    CRASHED, // Two that reap the same process free it twice.
    HUNG,    // Timeouts by a clock that jumps end in an hour.
};

struct Guard {
    const char *name;
    const char *without;
    const char *suite;
    const char *filter; // Of tests that must notice.
    End end = FAILED;
    std::vector<std::string> others = {};
};

const Guard kGuards[] = {
    {"CloseOnExec", "cloexec", "contract_normal", "Stdio.OnlyWhatTheSpecNames*"},
    {"WaitForOurOwn", "own wait", "contract_normal", "Exit.TheHostsOwnChildren*"},
    {"Gate", "gate", "contract_daemon", "Crash.NoKillOfTheStarter*"},
    {"LockAroundReaping", "reap lock", "contract_normal", "Exit.EightWaiters*", CRASHED},
    {"Continue", "SIGCONT", "contract_normal", "Stop.EndsOneThatIsStopped"},
    {"PlainExit",
     "_exit",
     "posix_host",
     "Start.LeavesTheHostsBuffersAlone",
     FAILED,
     {"PM_FAULT_DENY=clone"}},
    {"ProofOfTheProcess", "process proof", "posix_host", "Reuse.*"},
    {"Drain", "drain", "contract_normal", "Stdio.StderrGoes*:Stdio.StdoutAnd*:Stdio.AGrandchild*"},
    {"StatParser", "stat parser", "posix_host", "*Table.*OddName"},
    {"MonotonicClock",
     "monotonic clock",
     "contract_normal",
     "Stop.StopAllStopsThem*",
     HUNG,
     {"PM_FAULT_CLOCK=1"}},
    {"SignalMask", "mask", "contract_normal", "Spec.MaskAndDispositions*"},
    {"CompleteLooks", "complete looks", "posix_host", "Group.AStopOfASession*"},
    {"SlotCheck", "slot check", "posix_host", "LowDescriptors.ThatTheHost*"},
    {"Subreaper", "subreaper", "subreaper", "Subreaper.StopAllAnd*"},
    {"MarkOfATree", "tree mark", "subreaper", "Subreaper.AStopOfOneTree*"},
    {"MarkOfAnOrphan", "orphan mark", "subreaper", "Subreaper.TheHostsOwnChildren*"},
    {"HandleFirst", "handle first", "subreaper", "Subreaper.AHandlesStatus*"},
};

void PrintTo(const Guard &guard, std::ostream *out)
{
    *out << guard.name;
}

class Guards : public testing::TestWithParam<Guard>
{
};

bool IsSignal(int status, const std::vector<int> &signals)
{
    return WIFSIGNALED(status) &&
           std::find(signals.begin(), signals.end(), WTERMSIG(status)) != signals.end();
}

// The suite ended by itself and names a test that failed. A crash or the time limit counts only
// where nothing else can come of it.
bool HasNoticed(const Outcome &outcome, End end)
{
    if (WIFEXITED(outcome.status) && WEXITSTATUS(outcome.status) == 1 &&
        outcome.output.find("\n[  FAILED  ] ") != std::string::npos)
        return true;
    if (end == HUNG)
        return IsSignal(outcome.status, {SIGALRM});
    return end == CRASHED && (IsSignal(outcome.status, {SIGSEGV, SIGBUS, SIGABRT}) ||
                              outcome.output.find("ERROR: AddressSanitizer") != std::string::npos);
}

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
    variables.push_back("GTEST_FAIL_FAST=1");
    const int limit_s = guard.end == HUNG ? kHangSeconds : kSuiteSeconds;
    Outcome without = RunSuite(guard.suite, guard.filter, variables, limit_s);
    EXPECT_TRUE(HasNoticed(without, guard.end))
        << "nobody notices that the guard is gone: status " << without.status << "\n"
        << Tail(without.output);
    // Else the limit tells nothing.
    EXPECT_TRUE(guard.end != HUNG || with.took_ms < 1000 * kHangSeconds * Scale() / 2)
        << "with the guard: " << with.took_ms << " ms";
}

INSTANTIATE_TEST_SUITE_P(Of, Guards, testing::ValuesIn(kGuards),
                         [](const auto &info) { return std::string(info.param.name); });

} // namespace
