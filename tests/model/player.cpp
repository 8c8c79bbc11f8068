#include "player.h"
#include "verbs.h"

#include <algorithm>
#include <cstring>

#ifdef _WIN32
#include <windows.h>
#else
#include <csignal>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

using namespace contract;

namespace model
{

namespace
{

// Long enough for a step that works; short for one that does not.
pm_stop_plan PlanOf(const std::vector<Step> &steps, const std::vector<bool> &patient)
{
    pm_stop_plan plan = {};
    plan.steps_count = steps.size();
    for (size_t i = 0; i < steps.size(); i++) {
        plan.steps[i] = {steps[i].action, steps[i].scope,
                         patient[i] ? static_cast<uint32_t>(Patience()) : 1};
    }
    return plan;
}

// Its times are those of the Spec: no step of it may be one that this kind does not hear.
std::vector<Step> SpecPlan(Kind kind)
{
    std::vector<Step> steps = {{PM_STOP_TERMINATE, PM_SCOPE_TREE}, {PM_STOP_KILL, PM_SCOPE_TREE}};
    steps.erase(steps.begin(), steps.begin() + (kind == DEAF ? 1 : 0));
    return steps;
}

// ------------------------------------------------------------------------------------------------
// What the library calls
// ------------------------------------------------------------------------------------------------

void OnEvent(void *user, const pm_event *event)
{
    auto *heard = static_cast<Heard *>(user);
    std::lock_guard<std::mutex> guard(heard->lock);
    heard->failed_starts += event->kind == PM_EVENT_START_FAILED;
    heard->leaks += event->kind == PM_EVENT_LEAK || event->kind == PM_EVENT_QUARANTINED;
    if (event->process == nullptr) {
        return;
    }
    Told &told = heard->of[event->id];
    told.events.push_back(event->kind);
    if (event->kind == PM_EVENT_ENDED) {
        told.ends++;
        told.record = *event->record;
    }
}

void OnExit(pm_process *process, const pm_exit *record, void *user)
{
    auto *heard = static_cast<Heard *>(user);
    pm_info info = PM_INFO_INIT;
    pm_exit again = PM_EXIT_INIT;
    int codes[2] = {pm_process_info(process, &info), pm_process_wait(process, 0, &again)};
    std::lock_guard<std::mutex> guard(heard->lock);
    if (codes[0] != PM_OK || codes[1] != PM_OK || info.state != PM_STATE_ENDED || info.alive ||
        memcmp(&again, record, sizeof again) != 0) {
        heard->problem = "in on_exit its end is not known";
    }
    heard->of[info.id].exits++;
}

// Whether the exit waitable has fired.
bool Fired(pm_native native, int timeout_ms)
{
#ifdef _WIN32
    return WaitForSingleObject(reinterpret_cast<HANDLE>(native), static_cast<DWORD>(timeout_ms)) ==
           WAIT_OBJECT_0;
#else
    pollfd wait = {static_cast<int>(native), POLLIN, 0};
    return Uninterrupted([&] { return poll(&wait, 1, timeout_ms); }) == 1;
#endif
}

void CloseNative(pm_native native)
{
#ifdef _WIN32
    CloseHandle(reinterpret_cast<HANDLE>(native));
#else
    close(static_cast<int>(native));
#endif
}

uint64_t OwnPid()
{
#ifdef _WIN32
    return GetCurrentProcessId();
#else
    return static_cast<uint64_t>(getpid());
#endif
}

bool AnyChildLeft()
{
#ifdef _WIN32
    return false;
#else
    siginfo_t info = {};
    return waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
#endif
}

// Who has not waited in time has lost it: somebody's init. Where orphans come to us, that is us.
bool MayBeLost(const Ward &ward)
{
    return HostGetsNoStatuses() || (ward.state.kind == DAEMON && !OnWindows() &&
                                    !(OrphansComeToUs() && KernelTells(ward.handle)));
}

} // namespace

// ------------------------------------------------------------------------------------------------
// Looks
// ------------------------------------------------------------------------------------------------

bool Player::Is(bool good, const std::string &what)
{
    if (!good && problem.empty()) {
        problem = what;
    }
    return good;
}

bool Player::IsCode(int code, std::vector<int> expected)
{
    std::string text;
    for (int one : expected) {
        text += (text.empty() ? "" : " or ") + std::string(pm_error_name(one));
    }
    return Is(std::find(expected.begin(), expected.end(), code) != expected.end(),
              std::string(pm_error_name(code)) + " in place of " + text);
}

pm_process *Player::HandleOf(const Call &c) const
{
    return held[c.p] ? held[c.p]->handle : nullptr;
}

void Player::Count(const Boss &boss, bool daemons, unsigned *ret_alive, unsigned *ret_ending)
{
    *ret_alive = *ret_ending = 0;
    for (const auto &ward : boss.wards) {
        // A dead daemon is one of those until its status is known.
        if ((ward->state.kind == DAEMON) == daemons && !ward->state.known) {
            ++*(ward->state.Lives() ? ret_alive : ret_ending);
        }
    }
}

bool Player::LivesUnder(const Boss &boss, const std::string &key) const
{
    return left.count(key) != 0 || std::any_of(boss.wards.begin(), boss.wards.end(),
                                               [&](const std::shared_ptr<Ward> &ward) {
                                                   return ward->key == key && !ward->state.dead;
                                               });
}

// Those whose number nobody knows have no Handle: of these only how many there are is told.
void Player::SettleWard(Boss &boss, Ward &ward)
{
    Heard &heard = *boss.heard;
    bool told = Eventually([&] {
        if (boss.calls_loop) {
            pm_dispatch(boss.manager);
        }
        std::lock_guard<std::mutex> guard(heard.lock);
        auto at = heard.of.find(ward.id);
        if (ward.id == 0) { // Started without a Handle: the first one that is nobody else's.
            at = std::find_if(heard.of.begin(), heard.of.end(), [&](const auto &one) {
                return one.second.ends == 1 &&
                       std::none_of(boss.wards.begin(), boss.wards.end(),
                                    [&](const auto &other) { return other->id == one.first; });
            });
        }
        if (at == heard.of.end() || at->second.ends != 1 ||
            at->second.exits != (ward.recovered ? 0 : 1)) {
            return false;
        }
        ward.id = at->first;
        problem += problem.empty() ? ward.state.Ended(at->second.record, ward.may_be_lost) : "";
        return true;
    });
    ward.settled = Is(told, "nobody is told of an end, once");
    if (told && ward.state.kind == DAEMON) {
        exits.insert(ward.key);
    }
}

void Player::Settle(Boss &boss)
{
    for (const auto &ward : boss.wards) {
        if (problem.empty() && !ward->settled && !ward->state.Lives()) {
            SettleWard(boss, *ward);
        }
    }
}

void Player::CheckInfo(const Ward &ward)
{
    pm_info info = PM_INFO_INIT;
    bool alive = pm_process_alive(ward.handle);
    if (!IsCode(pm_process_info(ward.handle, &info), {PM_OK})) {
        return;
    }
    const Process &state = ward.state;
    const bool sure = state.Lives() && !ward.closed;
    Is(!sure || (alive && info.alive), "it is not alive");
    Is(!state.dead || (!alive && !info.alive), "it is alive");
    Is(!sure || info.state == (state.stopped ? PM_STATE_STOPPED : PM_STATE_RUNNING),
       "a living one is in state " + std::to_string(info.state));
    Is(!state.dead || state.kind == DAEMON || info.state == PM_STATE_ENDED,
       "a dead one is in state " + std::to_string(info.state));
    Is(info.id == ward.id && info.pid == ward.pid && pm_process_pid(ward.handle) == ward.pid,
       "it has another number");
    Is(info.mode == (state.kind == DAEMON ? PM_MODE_DAEMON : PM_MODE_NORMAL), "another mode");
    Is(strcmp(info.owner, "contract") == 0, "another owner");
    Is(state.kind != DAEMON ? info.key == nullptr : ward.key == info.key, "another key");
    Is(info.recovered == ward.recovered, "recovered or not");
    for (int i = 0; i < 3; i++) {
        Is(info.streams[i].open == state.open[i], std::string(stream_names[i]) + " open or not");
        Is(!info.streams[i].truncated || OnWine(), std::string(stream_names[i]) + " is cut");
    }
    if (sure && state.kind != DAEMON) {
        Is(pm_process_parent(ward.handle) == OwnPid(), "another parent");
    }
}

void Player::CheckReport(Ward &ward, const StopOutcome &outcome, const pm_stop_report &report,
                         const std::vector<Step> &plan)
{
    Is(report.result != PM_OK || !report.tree_left, "a tree is left");
    if (!outcome.certain) {
        return;
    }
    Is(report.already_ended == outcome.already_ended, "already ended or not");
    if (outcome.already_ended) {
        Is(report.ended_by == 0, "a step has ended a dead one");
        return;
    }
    const auto tried = static_cast<unsigned>(outcome.step_results.size());
    Is(report.ended_by == outcome.ended_by, "ended by step " + std::to_string(report.ended_by) +
                                                " in place of " + std::to_string(outcome.ended_by));
    Is(report.ended_by_action == (outcome.ended_by == 0 ? 0 : plan.at(outcome.ended_by - 1).action),
       "ended by another action");
    Is(report.steps_tried == tried, "another number of steps");
    for (unsigned i = 0; i < tried && problem.empty(); i++) {
        IsCode(report.step_results[i], {outcome.step_results[i]});
    }
    if (outcome.result == PM_OK) {
        ward.state.dead = true;
    }
}

// What was heard of each: its start first, its end last, each once; nothing else of one that lives.
void Player::CheckHeard(Boss &boss)
{
    std::lock_guard<std::mutex> guard(boss.heard->lock);
    Is(boss.heard->problem.empty(), boss.heard->problem);
    Is(boss.heard->failed_starts == boss.failures, "failed starts were not all told");
    Is(boss.heard->leaks == 0, "a leak was told");
    Is(boss.heard->of.size() == boss.wards.size(),
       "events of " + std::to_string(boss.heard->of.size()) + " processes in place of " +
           std::to_string(boss.wards.size()));
    for (const auto &ward : boss.wards) {
        const Told &told = boss.heard->of[ward->id];
        const auto &all = told.events;
        const auto first = ward->recovered ? PM_EVENT_RECOVERED : PM_EVENT_STARTED;
        Is(!all.empty() && all.front() == first && std::count(all.begin(), all.end(), first) == 1,
           "the start is not the first event, once");
        Is(std::count(all.begin(), all.end(), PM_EVENT_ENDED) == (ward->state.dead ? 1 : 0) &&
               (!ward->state.dead || all.back() == PM_EVENT_ENDED),
           "the end is not the last event, once");
        Is(told.exits == (ward->state.dead && !ward->recovered ? 1 : 0),
           "on_exit was not called once");
    }
}

// ------------------------------------------------------------------------------------------------
// Managers
// ------------------------------------------------------------------------------------------------

void Player::Open(const Call &c)
{
    Boss &boss = bosses[c.m];
    const std::string dir = folder + "/registry";
    const bool owned = bosses[0].has_registry || bosses[1].has_registry;
    if (boss.manager != nullptr) {
        return;
    }
    pm_options options = PM_OPTIONS_INIT;
    options.status_pending_ms = OrphansComeToUs() ? 0 : 100; // Init may take seconds, each time.
    options.drain_ms = OnWine() ? 1000 : 0;
    options.registry_dir = c.a % 2 != 0 ? dir.c_str() : nullptr;
    options.loop = c.b % 3 == 0 ? PM_LOOP_CALLER : PM_LOOP_OWN;
#ifdef PM_TEST_LIBKQUEUE
    options.loop = PM_LOOP_OWN; // A kqueue of libkqueue cannot be polled.
#endif
    options.event = OnEvent;
    std::unique_ptr<Heard> heard(new Heard);
    options.user = heard.get();
    pm_error error = PM_ERROR_INIT;
    int code = pm_open(&options, &boss.manager, &error);
    if (options.registry_dir != nullptr && owned) {
        IsCode(code, {PM_ERR_REGISTRY_BUSY});
        Is(error.code == code && error.pid == OwnPid(), "the owner is not told");
        Is(boss.manager == nullptr, "ret_manager was written");
    } else if (IsCode(code, {PM_OK})) {
        boss.has_registry = options.registry_dir != nullptr;
        boss.calls_loop = options.loop == PM_LOOP_CALLER;
        boss.heard = std::move(heard);
    }
}

// After StopBy() of each, and with the report if there is one.
void Player::StopWards(Boss &boss, bool daemons, const pm_stop_all_report *report, unsigned alive,
                       unsigned ending)
{
    std::vector<bool> patient;
    for (const auto &ward : boss.wards) {
        if ((ward->state.kind == DAEMON) == daemons && !ward->state.dead) {
            (void)ward->state.StopBy(SpecPlan(ward->state.kind), &patient);
            ward->state.dead = true;
        }
    }
    Is(report->total >= alive && report->total <= alive + ending,
       "a total of " + std::to_string(report->total) + ", of " + std::to_string(alive) + " alive");
    Is(report->stopped == report->total && report->left == 0, "some are left");
    Is(report->already_ended <= ending, "too many had ended already");
    Is(report->undelivered == 0 && report->undelivered_code == PM_OK, "a step was not delivered");
}

void Player::ForgetBoss(Boss &boss)
{
    for (const auto &ward : boss.wards) {
        ward->closed = true;
        if (ward->state.kind == DAEMON && !ward->state.dead) {
            left[ward->key] = ward;
        }
    }
    over.push_back(std::move(boss.heard));
    boss = Boss();
}

void Player::Close(const Call &c)
{
    Boss &boss = bosses[c.m];
    if (boss.manager == nullptr) {
        IsCode(pm_close(nullptr, 0, nullptr), {PM_OK});
        return;
    }
    unsigned alive, ending, daemons, daemons_ending;
    Count(boss, true, &daemons, &daemons_ending);
    if (c.a % 2 != 0 || daemons_ending != 0) {
        Settle(boss);
    }
    Count(boss, true, &daemons, &daemons_ending);
    Count(boss, false, &alive, &ending);
    pm_stop_all_report report = PM_STOP_ALL_REPORT_INIT;
    if (!IsCode(pm_close(boss.manager, 2 * Patience(), &report), {PM_OK})) {
        return;
    }
    boss.manager = nullptr;
    StopWards(boss, false, &report, alive, ending);
    Is(report.daemons == daemons, "another number of daemons");
    boss.calls_loop = false;
    Settle(boss); // All is told by now.
    CheckHeard(boss);
    ForgetBoss(boss);
}

void Player::StopAll(const Call &c)
{
    Boss &boss = bosses[c.m];
    const bool daemons = c.p % 3 == 0;
    unsigned alive, ending;
    if (c.a % 2 != 0 && boss.manager != nullptr) {
        Settle(boss);
    }
    Count(boss, daemons, &alive, &ending);
    struct Seen {
        unsigned all = 0, stops = 0;
    } seen;
    auto visit = [](void *user, pm_process *, const pm_stop_report *report) {
        static_cast<Seen *>(user)->all += report->result == PM_OK;
        static_cast<Seen *>(user)->stops += !report->already_ended;
    };
    pm_stop_all_report report = PM_STOP_ALL_REPORT_INIT;
    int code = (daemons ? pm_stop_daemons : pm_stop_all)(boss.manager, 2 * Patience(), visit, &seen,
                                                         &report);
    if (!IsCode(code, {boss.manager == nullptr ? PM_ERR_INVALID : PM_OK}) || code != PM_OK) {
        return;
    }
    StopWards(boss, daemons, &report, alive, ending);
    Is(seen.all == report.total, "the visitor has not seen all");
    boss.stops += seen.stops;
}

void Player::StopDaemons(const Call &c)
{
    StopAll({c.verb, c.m, 0, c.a, c.b});
}

void Player::List(const Call &c)
{
    Boss &boss = bosses[c.m];
    std::vector<uint64_t> seen, expected;
    if (boss.manager != nullptr) {
        Settle(boss);
        for (const auto &ward : boss.wards) {
            if (ward->refs != 0 || !ward->state.dead) {
                expected.push_back(ward->pid);
            }
        }
    }
    int code = pm_list(
        boss.manager,
        [](void *user, pm_process *process) {
            static_cast<std::vector<uint64_t> *>(user)->push_back(pm_process_pid(process));
            return 0;
        },
        &seen);
    IsCode(code, {boss.manager == nullptr ? PM_ERR_INVALID : PM_OK});
    Is(seen == expected, std::to_string(seen.size()) +
                             " are listed, or in another order, in place of " +
                             std::to_string(expected.size()));
}

void Player::Stats(const Call &c)
{
    Boss &boss = bosses[c.m];
    struct pm_stats stats = PM_STATS_INIT;
    if (boss.manager == nullptr) {
        IsCode(pm_stats(nullptr, &stats), {PM_ERR_INVALID});
        return;
    }
    Settle(boss);
    IsCode(pm_stats(boss.manager, &stats), {PM_OK});
    unsigned started = 0, ends[2][3] = {}, live[2] = {}, recovered = 0, lost = 0;
    for (const auto &ward : boss.wards) {
        const bool daemon = ward->state.kind == DAEMON;
        ++(ward->recovered ? recovered : started);
        if (ward->state.Lives()) {
            live[daemon]++;
        } else {
            End end = EndOf(ward->state.record);
            ends[daemon][end]++;
            lost += end == END_LOST;
        }
    }
    Is(stats.started == started, "started");
    Is(stats.start_failures == boss.failures, "start_failures");
    Is(stats.recovered == recovered, "recovered");
    Is(stats.running == live[0] + live[1], "running");
    Is(stats.running_daemons == live[1], "running_daemons");
    Is(stats.lost == lost, "lost");
    Is(stats.ended == started + recovered - live[0] - live[1], "ended");
    Is(stats.stop_failures == boss.stop_failures, "stop_failures");
    Is(stats.leaked_now == 0 && stats.leaked_total == 0, "leaked");
    Is(stats.registry_failures == 0, "registry_failures");
    Is(stats.spawn_duration.count == started, "spawn_duration");
    Is(stats.stop_duration.count == boss.stops, "stop_duration");
    for (int daemon = 0; daemon < 2; daemon++) {
        const pm_mode_stats &mode = stats.modes[daemon != 0 ? PM_MODE_DAEMON : PM_MODE_NORMAL];
        Is(mode.exited == ends[daemon][END_EXITED], "exited of a mode");
        Is(mode.killed == ends[daemon][END_KILLED], "killed of a mode");
        Is(mode.lost == ends[daemon][END_LOST], "lost of a mode");
        Is(mode.live == live[daemon], "live of a mode");
        Is(mode.started + mode.recovered == mode.live + mode.exited + mode.killed + mode.lost,
           "the sum of a mode");
    }
}

void Player::Dispatch(const Call &c)
{
    Boss &boss = bosses[c.m];
    pm_native native = PM_NATIVE_INVALID;
    int64_t timeout = 0;
    const int no = boss.manager == nullptr ? PM_ERR_INVALID : PM_ERR_UNSUPPORTED;
    int code = pm_dispatch(boss.manager);
    IsCode(code < 0 ? code : PM_OK, {boss.calls_loop ? PM_OK : no});
    IsCode(pm_loop_native(boss.manager, &native), {boss.calls_loop ? PM_OK : no});
    IsCode(pm_loop_timeout(boss.manager, &timeout), {boss.calls_loop ? PM_OK : no});
}

void Player::Scan(const Call &c)
{
    uint64_t found = 0;
    IsCode(pm_leak_scan(bosses[c.m].manager, &found),
           {bosses[c.m].manager == nullptr ? PM_ERR_INVALID : PM_OK});
    Is(found == 0, "the detector found zombies");
}

// ------------------------------------------------------------------------------------------------
// Starts
// ------------------------------------------------------------------------------------------------

std::string Player::Marker()
{
    return folder + "/sign-" + std::to_string(markers++);
}

// Goes on when the child listens: what it is asked then is not lost.
void Player::Start(Boss &boss, Child &child, std::shared_ptr<Ward> ward, unsigned p,
                   const std::string &marker)
{
    child->user = boss.heard.get();
    child->on_exit = OnExit;
    child->stop = PlanOf(SpecPlan(ward->state.kind), {true, true});
    pm_error error = PM_ERROR_INIT;
    int code = pm_spawn(boss.manager, child.Get(), &ward->handle, &error);
    if (code != PM_OK) {
        Is(false, ErrorText(error));
        return;
    }
    pm_info info = PM_INFO_INIT;
    IsCode(pm_process_info(ward->handle, &info), {PM_OK});
    Is(boss.wards.empty() || info.id > boss.wards.back()->id, "the id is not greater");
    Is(info.user == boss.heard.get(), "another user");
    ward->id = info.id;
    ward->pid = info.pid;
    ward->refs = 1;
    ward->may_be_lost = MayBeLost(*ward);
    held[p] = ward;
    boss.wards.push_back(ward);
    if (ward->state.has_pipes) {
        char line[16] = "";
        size_t count = 0, size = 0;
        while (size < 6 &&
               pm_stream_read(pm_process_stream(ward->handle, PM_STDOUT), line + size, 6 - size,
                              Patience(), &count) == PM_OK &&
               count != 0) {
            size += count;
        }
        Is(memcmp(line, "ready\n", 6) == 0, "no sign of life");
    } else if (!marker.empty()) {
        Is(Eventually([&] { return !ReadFile(marker).empty(); }), "no sign of life");
    }
}

void Player::Spawn(const Call &c)
{
    Boss &boss = bosses[c.m];
    const Kind kind = static_cast<Kind>(c.a % 5);
    if (held[c.p] != nullptr) {
        return;
    }
    auto ward = std::make_shared<Ward>(kind, static_cast<int>(10 + c.b % 100));
    std::string marker = ward->state.has_pipes ? "" : Marker();
    Child child({"obey", kind == DEAF ? "deaf" : "polite", marker});
    if (kind == QUICK) {
        child.args = {child.program, "--role", "exit", std::to_string(10 + c.b % 100)};
        child.env = {"PM_TEST_BORN=" + marker}; // Under Wine none may die in its birth.
        marker = OnWine() ? marker : "";
    } else if (ward->state.has_pipes) {
        child.args.pop_back();
        child->stdin_slot.kind = child->stdout_slot.kind = PM_STDIO_PIPE;
    } else if (kind == DAEMON) {
        ward->key = key_names[c.b % keys];
        child->mode = PM_MODE_DAEMON;
        child->key = ward->key.c_str();
    }
    pm_process *none = nullptr;
    if (boss.manager == nullptr) {
        IsCode(pm_spawn(nullptr, child.Get(), &none, nullptr), {PM_ERR_INVALID});
        return;
    }
    int refused = PM_OK;
    if (kind == DAEMON) {
        Settle(boss);
        refused = !boss.has_registry            ? PM_ERR_NO_REGISTRY
                  : LivesUnder(boss, ward->key) ? PM_ERR_EXISTS
                                                : PM_OK;
    }
    if (refused == PM_OK) {
        Start(boss, child, ward, c.p, marker);
        return;
    }
    IsCode(pm_spawn(boss.manager, child.Get(), &none, nullptr), {refused});
    Is(none == nullptr, "ret_process was written");
    boss.failures++;
}

void Player::SpawnBad(const Call &c)
{
    Boss &boss = bosses[c.m];
    const std::string missing = folder + "/is/not/there";
    Child child({"exit", "0"});
    int expected = PM_ERR_NOT_FOUND;
    std::string field;
    switch (c.a % 6) {
    case 0:
        child.program = missing;
        break;
    case 1:
        child->cwd = missing.c_str();
        break;
    case 2:
        child->stdin_slot.kind = PM_STDIO_FILE_READ;
        child->stdin_slot.path = missing.c_str();
        break;
    case 3:
        child->owner = nullptr;
        expected = PM_ERR_INVALID;
        field = "owner";
        break;
    case 4:
        child->stop.steps_count = PM_STOP_STEPS_MAX + 1;
        expected = PM_ERR_INVALID;
        break;
    default:
        child->mode = PM_MODE_DAEMON;
        expected = PM_ERR_INVALID;
        field = "key";
        break;
    }
    expected = boss.manager == nullptr ? PM_ERR_INVALID : expected;
    child->on_exit = OnExit;
    child->user = boss.heard.get();
    pm_process *process = nullptr;
    pm_error error = PM_ERROR_INIT;
    int code = pm_spawn(boss.manager, child.Get(), &process, &error);
    IsCode(code, {expected});
    Is(error.code == code && process == nullptr, "the detail, or ret_process");
    Is(error.stage != PM_STAGE_NONE, "no stage");
    Is(field.empty() || boss.manager == nullptr || field == error.field,
       std::string("field '") + error.field + "'");
    boss.failures += boss.manager != nullptr;
}

void Player::SpawnLoose(const Call &c)
{
    Boss &boss = bosses[c.m];
    if (boss.manager == nullptr) {
        IsCode(pm_spawn(nullptr, nullptr, nullptr, nullptr), {PM_ERR_INVALID});
        return;
    }
    const int exit_code = static_cast<int>(10 + c.b % 100);
    std::string marker = Marker();
    Child child({"exit", std::to_string(exit_code)});
    child.env = {"PM_TEST_BORN=" + marker};
    child->user = boss.heard.get();
    child->on_exit = OnExit;
    Settle(boss); // Its number is not known: at most one such is not.
    if (IsCode(pm_spawn(boss.manager, child.Get(), nullptr, nullptr), {PM_OK})) {
        boss.wards.push_back(std::make_shared<Ward>(QUICK, exit_code));
        Is(!OnWine() || Eventually([&] { return !ReadFile(marker).empty(); }), "no sign of life");
        Settle(boss);
    }
}

void Player::Run(const Call &c)
{
    Boss &boss = bosses[c.m];
    const std::string input = "run " + std::to_string(c.b) + "\n";
    Child child({"cat"});
    child->stdin_slot.kind = PM_STDIO_DEFAULT;
    child->user = boss.heard.get();
    child->on_exit = OnExit;
    pm_run_options options = PM_RUN_OPTIONS_INIT;
    options.spec = child.Get();
    options.input = input.data();
    options.input_size = input.size();
    options.timeout_ms = Patience();
    pm_run_result result = PM_RUN_RESULT_INIT;
    if (boss.manager == nullptr) {
        IsCode(pm_run(nullptr, &options, &result, nullptr), {PM_ERR_INVALID});
        return;
    }
    Settle(boss);
    if (!IsCode(pm_run(boss.manager, &options, &result, nullptr), {PM_OK})) {
        return;
    }
    Is(!result.timed_out && result.input_written == input.size(), "not all input was taken");
    Is(std::string(result.output[0], result.output_size[0]) == input, "another output");
    auto ward = std::make_shared<Ward>(QUICK, 0);
    boss.wards.push_back(ward);
    Is(ward->state.Ended(*result.record, false).empty(), "another end");
    Settle(boss);
    pm_run_result_clear(&result);
}

// ------------------------------------------------------------------------------------------------
// Handles
// ------------------------------------------------------------------------------------------------

void Player::Wait(const Call &c)
{
    pm_exit record = PM_EXIT_INIT;
    if (held[c.p] == nullptr) {
        IsCode(pm_process_wait(nullptr, 0, &record), {PM_ERR_INVALID});
        return;
    }
    Ward &ward = *held[c.p];
    Process &state = ward.state;
    const bool daemon = state.kind == DAEMON, poll = c.a % 2 == 0;
    std::vector<int> expected = {PM_OK};
    if (ward.closed && !state.known) {
        expected = {PM_ERR_CLOSED};
    } else if (state.Lives()) {
        expected = {PM_ERR_TIMEOUT};
    } else if (poll && daemon && !state.known) {
        expected = {PM_OK, PM_ERR_STATUS_PENDING};
    }
    if (poll && !ward.closed && !state.Lives() && !state.dead) {
        expected.push_back(PM_ERR_TIMEOUT);
    }
    int code = pm_process_wait(ward.handle, poll ? 0 : state.Lives() ? 2 : Patience(), &record);
    if (IsCode(code, expected) && code == PM_OK) {
        std::string wrong = state.Ended(record, ward.may_be_lost);
        Is(wrong.empty(), wrong);
    }
}

void Player::Stop(const Call &c)
{
    const NamedPlan &named = Plans()[c.a % Plans().size()];
    const bool invalid = &named == &Plans().back();
    Ward *ward = held[c.p].get();
    std::vector<Step> steps = named.steps;
    if (steps.empty()) {
        steps = SpecPlan(ward != nullptr ? ward->state.kind : MUTE);
    }
    std::vector<bool> patient(steps.size(), true);
    pm_stop_plan plan = PlanOf(steps, patient);
    pm_stop_report report = PM_STOP_REPORT_INIT;
    plan.steps_count = invalid ? PM_STOP_STEPS_MAX + 1 : plan.steps_count;
    if (ward == nullptr || ward->closed || invalid) {
        IsCode(pm_process_stop(HandleOf(c), &plan, &report),
               {ward != nullptr && ward->closed ? PM_ERR_CLOSED : PM_ERR_INVALID});
        return;
    }
    Boss &boss = *std::find_if(bosses, bosses + managers, [&](const Boss &one) {
        return std::find(one.wards.begin(), one.wards.end(), held[c.p]) != one.wards.end();
    });
    StopOutcome outcome = ward->state.StopBy(steps, &patient);
    plan = PlanOf(steps, patient);
    auto stop = [&] {
        return pm_process_stop(ward->handle, named.steps.empty() ? nullptr : &plan, &report);
    };
    int code = stop();
    if (OnWine() && outcome.already_ended && code != PM_OK) {
        boss.stop_failures++; // The console host of the child goes a moment later.
        Eventually([&] { return (code = stop()) == PM_OK || (boss.stop_failures++, false); });
    }
    if (outcome.may_time_out && code == PM_ERR_TIMEOUT) {
        outcome.result = PM_ERR_TIMEOUT;
    }
    IsCode(code, {outcome.result});
    IsCode(report.result, {code});
    boss.stops += !report.already_ended;
    boss.stop_failures += code == PM_ERR_TIMEOUT;
    CheckReport(*ward, outcome, report, steps);
    for (unsigned i = 0; i < report.steps_tried && i < steps.size(); i++) {
        if (steps[i].action == PM_STOP_CLOSE_STDIN) {
            ward->state.open[PM_STDIN] = false;
        }
    }
    ward->state.dead = ward->state.dead || code == PM_OK;
}

void Player::Signal(const Call &c)
{
    const int number = signals[c.a % signals.size()];
    const auto scope = static_cast<pm_stop_scope>(c.b % 3);
    Ward *ward = held[c.p].get();
    std::vector<int> expected = {PM_OK};
    if (ward == nullptr || number < 0) {
        expected = {PM_ERR_INVALID};
    } else if (ward->closed) {
        expected = {PM_ERR_CLOSED};
    } else if (OnWindows() && (number != 0 || scope == PM_SCOPE_GROUP)) {
        expected = {PM_ERR_UNSUPPORTED};
        if (ward->state.dead || !ward->state.ends.empty()) {
            expected.push_back(PM_ERR_GONE);
        }
    } else if (ward->state.known) {
        expected = {PM_ERR_GONE};
    } else if (!ward->state.Lives()) {
        expected.push_back(PM_ERR_GONE);
#ifndef _WIN32
        if (number == SIGSTOP) {
            return; // Nobody knows whether it would hold back an end that is under way.
        }
#endif
    }
    int code = pm_process_signal(HandleOf(c), number, scope);
    if (!IsCode(code, expected) || code != PM_OK || number == 0) {
        return;
    }
#ifndef _WIN32
    if (number == SIGSTOP) {
        ward->state.Stop();
        Is(Eventually([&] {
               pm_info info = PM_INFO_INIT;
               return pm_process_info(ward->handle, &info) == PM_OK &&
                      info.state == PM_STATE_STOPPED;
           }),
           "it does not stop");
    } else if (number == SIGCONT) {
        ward->state.Continue();
    } else {
        ward->state.Signal(number);
    }
#endif
}

void Player::CloseStream(const Call &c)
{
    const auto id = static_cast<pm_stream_id>(c.a % 3);
    IsCode(pm_stream_close(pm_process_stream(HandleOf(c), id)), {PM_OK});
    if (held[c.p] != nullptr) {
        held[c.p]->state.Close(id);
    }
}

void Player::Take(const Call &c)
{
    const auto id = static_cast<pm_stream_id>(c.a % 3);
    pm_stream *stream = pm_process_stream(HandleOf(c), id);
    pm_native native = PM_NATIVE_INVALID, taken = PM_NATIVE_INVALID;
    const bool exists = held[c.p] != nullptr && held[c.p]->state.has_pipes && id != PM_STDERR;
    Is(exists == (stream != nullptr), "a stream or none");
    const int expected = !exists                     ? PM_ERR_INVALID
                         : held[c.p]->state.open[id] ? PM_OK
                                                     : PM_ERR_CLOSED;
    IsCode(pm_stream_native(stream, &native), {expected});
    if (c.b % 4 != 0) {
        return;
    }
    if (IsCode(pm_stream_take(stream, &taken), {expected}) && expected == PM_OK) {
        Is(taken == native, "another one was taken");
        CloseNative(taken);
        held[c.p]->state.Close(id);
    }
}

void Player::Write(const Call &c, const std::string &line)
{
    pm_stream *stream = pm_process_stream(HandleOf(c), PM_STDIN);
    Ward *ward = held[c.p].get();
    std::vector<int> expected = {PM_OK};
    if (ward == nullptr || !ward->state.has_pipes) {
        expected = {PM_ERR_INVALID};
    } else if (!ward->state.open[PM_STDIN]) {
        expected = {PM_ERR_CLOSED};
    } else if (ward->state.dead) {
        expected = {PM_ERR_BROKEN_PIPE};
        if (OnWine()) {
            expected.push_back(PM_OK); // Its console host holds the other end a little longer.
        }
    } else if (!ward->state.Lives()) {
        expected.push_back(PM_ERR_BROKEN_PIPE);
    }
    size_t count = 0;
    int code = pm_stream_write(stream, line.data(), line.size(), Patience(), &count);
    if (IsCode(code, expected) && code == PM_OK) {
        Is(count == line.size(), "not all was written");
        ward->state.Order(line);
    }
}

void Player::Say(const Call &c)
{
    Write(c, "word " + std::to_string(said++) + "\n");
}

void Player::Exit(const Call &c)
{
    Write(c, "exit " + std::to_string(10 + c.b % 100) + "\n");
}

void Player::Read(const Call &c)
{
    const auto id = static_cast<pm_stream_id>(c.a % 3);
    pm_stream *stream = pm_process_stream(HandleOf(c), id);
    Ward *ward = held[c.p].get();
    int64_t timeout = 0;
    std::vector<int> expected = {PM_OK};
    if (stream == nullptr || id != PM_STDOUT || ward == nullptr) {
        expected = {PM_ERR_INVALID};
    } else if (!ward->state.open[id]) {
        expected = {PM_ERR_CLOSED};
    } else if (ward->state.Lives() && ward->state.expected.empty()) {
        expected = {PM_ERR_TIMEOUT};
    } else if (ward->state.stopped) {
        expected.push_back(PM_ERR_TIMEOUT);
    } else {
        timeout = Patience();
    }
    char bytes[64];
    size_t count = 0;
    int code = pm_stream_read(stream, bytes, 1 + c.b % sizeof bytes, timeout, &count);
    if (IsCode(code, expected) && code == PM_OK) {
        std::string wrong = ward->state.Read(bytes, count);
        Is(wrong.empty(), wrong);
    }
}

void Player::Info(const Call &c)
{
    if (held[c.p] != nullptr) {
        CheckInfo(*held[c.p]);
        return;
    }
    pm_info info = PM_INFO_INIT;
    IsCode(pm_process_info(nullptr, &info), {PM_ERR_INVALID});
    Is(!pm_process_alive(nullptr) && pm_process_pid(nullptr) == 0 &&
           pm_process_parent(nullptr) == 0,
       "nobody is somebody");
}

void Player::Waitable(const Call &c)
{
    pm_native native = PM_NATIVE_INVALID;
    int code = pm_process_exit_waitable(HandleOf(c), &native);
    if (held[c.p] == nullptr) {
        IsCode(code, {PM_ERR_INVALID});
        return;
    }
    const Ward &ward = *held[c.p];
    if (ward.recovered && code == PM_ERR_UNSUPPORTED) {
        return; // Where there is no such object.
    }
    if (IsCode(code, {PM_OK})) {
        Is(!ward.state.dead || Fired(native, static_cast<int>(Patience())), "it does not fire");
        Is(!ward.state.Lives() || ward.closed || !Fired(native, 0), "it fires of one that lives");
    }
}

// What a process of these kinds never has.
void Player::Refuse(const Call &c)
{
    Ward *ward = held[c.p].get();
    IsCode(pm_process_resize(HandleOf(c), 80, 24),
           {ward == nullptr ? PM_ERR_INVALID : PM_ERR_UNSUPPORTED});
    IsCode(pm_process_resize(HandleOf(c), 0, 24), {PM_ERR_INVALID});
    Is(pm_process_stream(HandleOf(c), static_cast<pm_stream_id>(3)) == nullptr, "a fourth stream");
}

void Player::Ref(const Call &c)
{
    pm_process *process = HandleOf(c);
    Is(pm_process_ref(process) == process, "another Handle");
    if (held[c.p] != nullptr) {
        held[c.p]->refs++;
    }
}

void Player::LetGo(unsigned p)
{
    Ward &ward = *held[p];
    pm_process_unref(ward.handle);
    if (--ward.refs == 0) {
        for (int i = 0; i < 3; i++) {
            ward.state.Close(static_cast<pm_stream_id>(i));
        }
        ward.handle = nullptr;
        held[p] = nullptr;
    }
}

void Player::Unref(const Call &c)
{
    if (held[c.p] != nullptr) {
        LetGo(c.p);
    } else {
        Is(pm_process_unref(nullptr) == nullptr, "something of nothing");
    }
}

// ------------------------------------------------------------------------------------------------
// Daemons
// ------------------------------------------------------------------------------------------------

void Player::Find(const Call &c)
{
    Boss &boss = bosses[c.m];
    const std::string key = key_names[c.a % keys];
    pm_process *found = nullptr;
    uint64_t pid = 0;
    if (boss.manager != nullptr) {
        Settle(boss);
    }
    for (const auto &ward : boss.wards) {
        if (ward->key == key && (ward->refs != 0 || !ward->state.dead)) {
            pid = ward->pid;
        }
    }
    int code = pm_find(boss.manager, key.c_str(), &found);
    IsCode(code, {boss.manager == nullptr ? PM_ERR_INVALID : pid == 0 ? PM_ERR_NOT_FOUND : PM_OK});
    Is(pm_process_pid(found) == pid, "another daemon");
    pm_process_unref(found);
}

void Player::Forget(const Call &c)
{
    Boss &boss = bosses[c.m];
    const std::string key = key_names[c.a % keys];
    int expected = PM_ERR_INVALID;
    if (boss.manager != nullptr && !boss.has_registry) {
        expected = PM_ERR_NO_REGISTRY;
    } else if (boss.manager != nullptr) {
        Settle(boss);
        expected = LivesUnder(boss, key)   ? PM_ERR_BUSY
                   : exits.erase(key) != 0 ? PM_OK
                                           : PM_ERR_NOT_FOUND;
    }
    IsCode(pm_forget(boss.manager, key.c_str()), {expected});
}

void Player::Recover(const Call &c)
{
    Boss &boss = bosses[c.m];
    std::vector<pm_process *> found;
    auto visit = [](void *user, pm_process *process) {
        static_cast<std::vector<pm_process *> *>(user)->push_back(pm_process_ref(process));
        return 0;
    };
    pm_recover_report report = PM_RECOVER_REPORT_INIT;
    const int expected = boss.manager == nullptr ? PM_ERR_INVALID
                         : boss.has_registry     ? PM_OK
                                                 : PM_ERR_NO_REGISTRY;
    if (!IsCode(pm_recover(boss.manager, visit, &found, &report), {expected}) ||
        expected != PM_OK) {
        return;
    }
    Is(report.alive == left.size() && found.size() == left.size(),
       std::to_string(report.alive) + " are alive in place of " + std::to_string(left.size()));
    Is(report.ended + report.dropped + report.quarantined + report.unproven == 0,
       "others are found");
    for (pm_process *process : found) {
        pm_info info = PM_INFO_INIT;
        pm_process_info(process, &info);
        auto before = left.find(info.key != nullptr ? info.key : "");
        if (!Is(before != left.end() && before->second->pid == info.pid, "that one was not left")) {
            pm_process_unref(process);
            continue;
        }
        auto ward = std::make_shared<Ward>(*before->second);
        ward->recovered = true;
        ward->closed = false;
        ward->handle = process;
        ward->id = info.id;
        ward->refs = 1;
        ward->may_be_lost = MayBeLost(*ward);
        boss.wards.push_back(ward);
        left.erase(before);
        auto *free = std::find(held, held + handles, nullptr);
        if (free != held + handles) {
            *free = ward;
        } else {
            pm_process_unref(process);
            ward->handle = nullptr;
            ward->refs = 0;
        }
    }
}

// The folder as everybody can read it. An exit record of a key that lives again may be gone.
void Player::Registry(const Call &)
{
    std::set<std::string> lives, ended, expected_ended = exits;
    for (Boss &boss : bosses) {
        if (boss.manager != nullptr) {
            Settle(boss);
        }
        for (const auto &ward : boss.wards) {
            if (ward->state.kind == DAEMON && !ward->state.dead) {
                lives.insert(ward->key);
            }
        }
    }
    for (const auto &one : left) {
        lives.insert(one.first);
    }
    expected_ended = exits;
    struct Seen {
        std::set<std::string> running, exited, other;
    } seen;
    int code = pm_registry_list((folder + "/registry").c_str(),
                                [](void *user, const pm_registry_entry *entry) {
                                    auto *all = static_cast<Seen *>(user);
                                    auto &set = strcmp(entry->state, "running") == 0  ? all->running
                                                : strcmp(entry->state, "exited") == 0 ? all->exited
                                                                                      : all->other;
                                    set.insert(entry->key != nullptr ? entry->key : "");
                                    return 0;
                                },
                                &seen);
    IsCode(code, {PM_OK, PM_ERR_NOT_FOUND});
    for (const auto &key : lives) {
        expected_ended.erase(key);
        seen.exited.erase(key);
    }
    Is(seen.running == lives, std::to_string(seen.running.size()) +
                                  " records of living ones in place of " +
                                  std::to_string(lives.size()));
    Is(seen.exited == expected_ended, std::to_string(seen.exited.size()) +
                                          " exit records in place of " +
                                          std::to_string(expected_ended.size()));
    Is(seen.other.empty(), "other records");
}

// ------------------------------------------------------------------------------------------------
// All of it
// ------------------------------------------------------------------------------------------------

// After a mistake: nothing may go on into the next sequence.
void Player::Rescue()
{
    pm_options options = PM_OPTIONS_INIT;
    const std::string dir = folder + "/registry";
    options.registry_dir = dir.c_str();
    pm_manager *manager = nullptr;
    if (pm_open(&options, &manager, nullptr) == PM_OK) {
        pm_recover(manager, nullptr, nullptr, nullptr);
        pm_stop_daemons(manager, Patience(), nullptr, nullptr, nullptr);
        pm_close(manager, Patience(), nullptr);
    }
}

// Lets go of everything. Daemons that nobody knows are found again first.
void Player::Finish()
{
    const bool good = problem.empty();
    for (unsigned p = 0; p < handles; p++) {
        while (held[p] != nullptr) {
            LetGo(p);
        }
    }
    for (unsigned m = 0; m < managers && good; m++) {
        Stats({0, m, 0, 0, 0});
        Close({0, m, 0, 0, 0});
    }
    for (Boss &boss : bosses) { // After a mistake: whatever becomes of it.
        if (boss.manager != nullptr) {
            pm_stop_daemons(boss.manager, Patience(), nullptr, nullptr, nullptr);
            Is(pm_close(boss.manager, Patience(), nullptr) == PM_OK,
               "it cannot be closed any more");
            over.push_back(std::move(boss.heard));
            boss = Boss();
        }
    }
    if (!good) {
        Rescue();
    } else if (problem.empty()) {
        Open({0, 0, 0, 1, 1});
        Recover({0, 0, 0, 0, 0});
        StopDaemons({0, 0, 0, 1, 0});
        Registry({0, 0, 0, 0, 0});
        for (unsigned p = 0; p < handles; p++) {
            while (held[p] != nullptr) {
                LetGo(p);
            }
        }
        Stats({0, 0, 0, 0, 0});
        for (const char *key : key_names) {
            pm_forget(bosses[0].manager, key);
        }
        Close({0, 0, 0, 1, 0});
        Is(left.empty(), "a daemon is left");
        Is(Eventually([] { return !AnyChildLeft(); }), "a child is left");
    }
}

std::string Player::Play(const std::vector<Call> &calls, size_t *ret_at)
{
    for (*ret_at = 0; *ret_at < calls.size(); ++*ret_at) {
        (this->*Verbs()[calls[*ret_at].verb].play)(calls[*ret_at]);
        if (!problem.empty()) {
            break;
        }
    }
    Finish();
    return problem;
}

} // namespace model
