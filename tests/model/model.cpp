#include "model.h"

#include <cstring>

namespace model
{

Process::Process(Kind kind_, int code)
    : kind(kind_), has_pipes(kind_ == OBEYS || kind_ == DEAF), open{has_pipes, has_pipes, false}
{
    if (kind == QUICK) {
        ends.insert({false, code});
    }
}

void Process::Hit(const Status &status)
{
    (stopped ? latent : ends).insert(status);
}

void Process::Order(const std::string &line)
{
    if (told_exit || dead) {
        return;
    }
    if (line.compare(0, 5, "exit ") == 0) {
        told_exit = true;
        Hit({false, std::stoi(line.substr(5))});
    } else {
        expected += line;
    }
}

void Process::Close(pm_stream_id id)
{
    if (id == PM_STDIN && open[id] && !told_exit) {
        told_exit = true;
        if (kind == OBEYS) {
            Hit({false, code_of_eof});
        }
    }
    open[id] = false;
}

void Process::Signal(int number)
{
    if (dead) {
        return;
    }
    if (number == signal_kill) {
        // A stopped one does nothing else any more.
        ends.insert({true, number});
        stopped = false;
        latent.clear();
    } else if (kind != DEAF && kind != QUICK) {
        Hit({false, number == signal_term ? code_of_terminate : code_of_interrupt});
    } else if (kind == QUICK) {
        ends.insert({true, number}); // It may get that before its end.
    }
}

void Process::Stop()
{
    stopped = true;
}

void Process::Continue()
{
    stopped = false;
    ends.insert(latent.begin(), latent.end());
    latent.clear();
}

// Whether it ends by this action, and how.
bool Process::Answers(pm_stop_action action, std::set<Status> *ret_ends) const
{
    std::set<Status> result;
    switch (action) {
    case PM_STOP_CLOSE_STDIN:
        if (kind == OBEYS && open[PM_STDIN] && !told_exit && !stopped) {
            result.insert({false, code_of_eof});
        }
        break;
    case PM_STOP_INTERRUPT: // A signal that goes on with what is stopped, too.
    case PM_STOP_TERMINATE:
        if (stopped) {
            result = latent;
        }
        if (kind != DEAF) {
            result.insert(
                {false, action == PM_STOP_TERMINATE ? code_of_terminate : code_of_interrupt});
        }
        break;
    case PM_STOP_KILL:
        result.insert({true, signal_kill});
        break;
    }
    *ret_ends = result;
    return !result.empty();
}

// It ends whatever is done; a step that comes in time may be the cause as well.
StopOutcome Process::StopOfOneThatEnds(const std::vector<Step> &plan)
{
    StopOutcome outcome;
    outcome.certain = false;
    outcome.may_time_out = true;
    for (unsigned i = 0; i < plan.size(); i++) {
        const bool closes = plan[i].action == PM_STOP_CLOSE_STDIN;
        outcome.may_time_out = outcome.may_time_out && closes && !has_pipes;
        std::set<Status> more;
        (void)Answers(plan[i].action, &more);
        ends.insert(more.begin(), more.end());
        if (kind == QUICK && !closes) { // It may be hit before it is at its end.
            ends.insert({true, plan[i].action == PM_STOP_KILL        ? signal_kill
                               : plan[i].action == PM_STOP_TERMINATE ? signal_term
                                                                     : signal_int});
        }
        steps.insert(i + 1);
    }
    return outcome;
}

// The plan is told here, not tried: what each of its steps does to this process.
StopOutcome Process::StopBy(const std::vector<Step> &plan, std::vector<bool> *ret_patient)
{
    ret_patient->assign(plan.size(), !ends.empty());
    StopOutcome outcome;
    if (dead) {
        outcome.already_ended = true;
        return outcome;
    }
    if (!ends.empty()) {
        return StopOfOneThatEnds(plan);
    }
    for (unsigned i = 0; i < plan.size(); i++) {
        const bool closes = plan[i].action == PM_STOP_CLOSE_STDIN;
        outcome.step_results.push_back(closes && !has_pipes ? PM_ERR_UNSUPPORTED : PM_OK);
        std::set<Status> by_this;
        bool ended = Answers(plan[i].action, &by_this);
        if (closes && has_pipes) {
            Close(PM_STDIN);
        } else if (!closes) {
            Continue();
        }
        if (ended) {
            ends = by_this;
            steps = {i + 1};
            (*ret_patient)[i] = true;
            outcome.ended_by = i + 1;
            return outcome;
        }
    }
    outcome.result = PM_ERR_TIMEOUT;
    return outcome;
}

std::string Process::Ended(const pm_exit &seen, bool may_be_lost)
{
    if (known) {
        // Whether a reader gave up may become known later.
        pm_exit again = seen;
        again.stdout_truncated = record.stdout_truncated;
        again.stderr_truncated = record.stderr_truncated;
        return memcmp(&record, &again, sizeof record) == 0
                   ? ""
                   : "the record has changed from " + Describe(record) + " to " + Describe(seen);
    }
    record = seen;
    known = dead = true;
    if (seen.kind == PM_EXIT_LOST) {
        return may_be_lost ? "" : "the status is lost";
    }
    if (ends.empty()) {
        return "nothing has ended it, but it " + Describe(seen);
    }
    Status status = {seen.kind == PM_EXIT_SIGNALED,
                     seen.kind == PM_EXIT_SIGNALED ? seen.signal : static_cast<int>(seen.code)};
#ifdef _WIN32
    // There a kill is an exit with code 1, which no child of these gives by itself.
    status = seen.code == 1 ? Status{true, signal_kill} : status;
#endif
    if (ends.count(status) == 0) {
        return "that is no end it can have had: it " + Describe(seen);
    }
    return steps.count(seen.stop_step) != 0 ? ""
                                            : "no such step has ended it: it " + Describe(seen);
}

bool Process::Orderly() const
{
    return ends.size() == 1 && told_exit && !ends.begin()->killed &&
           ends.begin()->number != code_of_terminate && ends.begin()->number != code_of_interrupt;
}

std::string Process::Read(const char *bytes, size_t count)
{
    if (count == 0) {
        if (ends.empty()) {
            return "the end of the output of one that lives";
        }
        return expected.empty() || !Orderly() ? ""
                                              : "the end of the output before '" + expected + "'";
    }
    if (expected.compare(0, count, bytes, count) != 0 || count > expected.size()) {
        return "'" + std::string(bytes, count) + "' in place of '" + expected + "'";
    }
    expected.erase(0, count);
    return "";
}

End EndOf(const pm_exit &record)
{
    if (record.kind == PM_EXIT_LOST) {
        return END_LOST;
    }
    return record.kind == PM_EXIT_SIGNALED || record.stop_action == PM_STOP_KILL ? END_KILLED
                                                                                 : END_EXITED;
}

std::string Describe(const pm_exit &record)
{
    std::string text = record.kind == PM_EXIT_EXITED ? "exited with " + std::to_string(record.code)
                       : record.kind == PM_EXIT_SIGNALED
                           ? "was ended by signal " + std::to_string(record.signal)
                       : record.kind == PM_EXIT_LOST ? "has ended, nobody can tell how"
                                                     : "has no record";
    return record.stop_step == 0
               ? text
               : text + " by step " + std::to_string(record.stop_step) + " of a stop";
}

} // namespace model
