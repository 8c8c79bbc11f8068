// Plays a sequence of calls on the library, and beside it on the model; tells the first call whose
// result is none that the model allows.
#ifndef PM_TEST_MODEL_PLAYER_H
#define PM_TEST_MODEL_PLAYER_H

#include "fixture.h"
#include "model.h"

#include <map>
#include <memory>
#include <mutex>

namespace model
{

// One call. Every number is good for every verb: there is nothing that a call needs of those before
// it, so that a sequence can be cut anywhere. m: manager, p: Handle, a and b: the verb's own.
struct Call {
    unsigned verb, m, p, a, b;
};

const unsigned managers = 2, handles = 4, keys = 2;

// What a manager has told of one process.
struct Told {
    std::vector<pm_event_kind> events;
    int exits = 0, ends = 0; // Calls of on_exit, events of the end.
    pm_exit record = {};
};

// What a manager has told.
struct Heard {
    std::mutex lock;
    std::map<uint64_t, Told> of; // By pm_info::id.
    unsigned failed_starts = 0, leaks = 0;
    std::string problem; // Found within a callback.
};

// A process on both sides.
struct Ward {
    Ward(Kind kind, int code) : state(kind, code)
    {
    }
    Process state;
    pm_process *handle = nullptr;
    unsigned refs = 0;
    uint64_t id = 0, pid = 0;
    std::string key;
    bool recovered = false, may_be_lost = false;
    bool closed = false;  // Its manager is.
    bool settled = false; // Its end was told.
};

// A manager on both sides.
struct Boss {
    pm_manager *manager = nullptr;
    bool has_registry = false, calls_loop = false;
    std::vector<std::shared_ptr<Ward>> wards; // All that it has ever had, in the order of ids.
    unsigned failures = 0, stop_failures = 0, stops = 0;
    std::unique_ptr<Heard> heard;
};

class Player
{
  public:
    explicit Player(const std::string &folder_) : folder(folder_)
    {
    }

    // "" or what is wrong. ret_at: the number of the call; that of all calls: it is in what is
    // left.
    std::string Play(const std::vector<Call> &calls, size_t *ret_at);

    // The verbs.
    void Open(const Call &c);
    void Close(const Call &c);
    void Spawn(const Call &c);
    void SpawnBad(const Call &c);
    void SpawnLoose(const Call &c);
    void Run(const Call &c);
    void Wait(const Call &c);
    void Stop(const Call &c);
    void Signal(const Call &c);
    void Say(const Call &c);
    void Exit(const Call &c);
    void Read(const Call &c);
    void CloseStream(const Call &c);
    void Take(const Call &c);
    void Info(const Call &c);
    void Waitable(const Call &c);
    void Refuse(const Call &c);
    void Ref(const Call &c);
    void Unref(const Call &c);
    void List(const Call &c);
    void Stats(const Call &c);
    void StopAll(const Call &c);
    void StopDaemons(const Call &c);
    void Find(const Call &c);
    void Forget(const Call &c);
    void Recover(const Call &c);
    void Registry(const Call &c);
    void Dispatch(const Call &c);
    void Scan(const Call &c);

  private:
    bool Is(bool good, const std::string &what);
    bool IsCode(int code, std::vector<int> expected);
    pm_process *HandleOf(const Call &c) const;
    std::string Marker();
    void Start(Boss &boss, contract::Child &child, std::shared_ptr<Ward> ward, unsigned p,
               const std::string &marker);
    void Write(const Call &c, const std::string &line);
    void CheckInfo(const Ward &ward);
    void CheckReport(Ward &ward, const StopOutcome &outcome, const pm_stop_report &report,
                     const std::vector<Step> &plan);
    void StopWards(Boss &boss, bool daemons, const pm_stop_all_report *report, unsigned alive,
                   unsigned ending);
    static void Count(const Boss &boss, bool daemons, unsigned *ret_alive, unsigned *ret_ending);
    // Waits until every end that has a cause is told, and knows its record then.
    void Settle(Boss &boss);
    void SettleWard(Boss &boss, Ward &ward);
    void CheckHeard(Boss &boss);
    bool LivesUnder(const Boss &boss, const std::string &key) const;
    void ForgetBoss(Boss &boss);
    void LetGo(unsigned p);
    void Rescue();
    void Finish();

    std::string folder, problem;
    Boss bosses[managers];
    std::shared_ptr<Ward> held[handles];
    std::map<std::string, std::shared_ptr<Ward>> left; // Daemons that no open manager knows.
    std::set<std::string> exits;                       // Keys with an exit record.
    std::vector<std::unique_ptr<Heard>> over;          // Of managers that are closed.
    unsigned markers = 0, said = 0;
};

} // namespace model

#endif
