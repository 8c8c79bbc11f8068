// What the public header promises about one process and one manager, as data: no call of the
// library and no system is in here. The player (player.h) does the same calls on real ones and
// compares.
#ifndef PM_TEST_MODEL_MODEL_H
#define PM_TEST_MODEL_MODEL_H

#include <processmgr/processmgr.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace model
{

// How a child says what has ended it.
const int code_of_terminate = 5, code_of_interrupt = 6, code_of_eof = 7;
// The same numbers everywhere; signals are tried on POSIX alone.
const int signal_int = 2, signal_kill = 9, signal_term = 15;

enum Kind {
    OBEYS, // Reads orders, answers, ends at the end of its input and when it is asked to.
    DEAF,  // Reads orders, ends by one or by a kill.
    MUTE,  // No pipes: ends when it is asked to.
    QUICK, // Ends at once.
    DAEMON // As MUTE, detached.
};

// How a process has ended, as its record tells.
struct Status {
    bool killed; // By signal `number`; else it is the exit code.
    int number;
    bool operator<(const Status &other) const
    {
        return killed != other.killed ? killed < other.killed : number < other.number;
    }
};

struct Step {
    pm_stop_action action;
    pm_stop_scope scope;
};

// What a stop has to report.
struct StopOutcome {
    int result = PM_OK;
    bool certain = true;       // It was not about to end by itself; else what follows is not.
    bool may_time_out = false; // Where it is not: no step can be delivered.
    bool already_ended = false;
    unsigned ended_by = 0;
    std::vector<int> step_results; // Of the steps that are tried.
};

class Process
{
  public:
    explicit Process(Kind kind, int code = 0);

    // Every end that is possible now. Empty: it lives and nothing is about to end it.
    std::set<Status> ends;
    // Ends that come once it goes on: it is stopped.
    std::set<Status> latent;
    // Steps of stops that its record may name; one that nobody has stopped names none (0).
    std::set<unsigned> steps = {0};
    Kind kind;
    bool stopped = false;
    bool dead = false;  // It has certainly ended: a wait gives the record at once.
    bool known = false; // `record` was seen, and never changes.
    pm_exit record = {};
    bool told_exit = false; // By an order, or by the end of its input: it hears no further order.
    bool has_pipes, open[3];
    std::string expected; // What it has been told to say and nobody has read.

    bool Lives() const
    {
        return ends.empty() && !dead;
    }

    // What happens to it.
    void Order(const std::string &line); // By its stdin.
    void Close(pm_stream_id id);
    void Signal(int number); // POSIX.
    void Stop();             // SIGSTOP.
    void Continue();
    // A stop by a plan. `patient[i]`: whether step i is to be given the time to work.
    StopOutcome StopBy(const std::vector<Step> &plan, std::vector<bool> *ret_patient);

    // What is seen of it: "" or what is wrong.
    std::string Ended(const pm_exit &seen, bool may_be_lost);
    std::string Read(const char *bytes, size_t count); // From stdout; 0 = its end.

  private:
    void Hit(const Status &status);
    StopOutcome StopOfOneThatEnds(const std::vector<Step> &plan);
    bool Answers(pm_stop_action action, std::set<Status> *ret_ends) const;
    bool Orderly() const; // All that it was told to say has been said when it ends.
};

// How the exits of a manager are counted.
enum End {
    END_EXITED,
    END_KILLED,
    END_LOST
};
End EndOf(const pm_exit &record);

std::string Describe(const pm_exit &record);

} // namespace model

#endif
