#include "verbs.h"

#ifndef _WIN32
#include <csignal>
#endif

namespace model
{

const char *const key_names[keys] = {"first", "second"};
const char *const stream_names[3] = {"PM_STDIN", "PM_STDOUT", "PM_STDERR"};

#ifdef _WIN32
const std::vector<int> signals = {0, -1, signal_term, signal_kill};
#else
const std::vector<int> signals = {0,       -1,      SIGTERM, SIGKILL, SIGINT,
                                  SIGSTOP, SIGCONT, SIGSTOP, SIGCONT};
#endif

const std::vector<NamedPlan> &Plans()
{
    static const std::vector<NamedPlan> plans = {
        {"NULL", {}},
        {"kill the tree", {{PM_STOP_KILL, PM_SCOPE_TREE}}},
        {"terminate, kill", {{PM_STOP_TERMINATE, PM_SCOPE_TREE}, {PM_STOP_KILL, PM_SCOPE_TREE}}},
        {"close stdin, kill it",
         {{PM_STOP_CLOSE_STDIN, PM_SCOPE_PROCESS}, {PM_STOP_KILL, PM_SCOPE_PROCESS}}},
        {"terminate it", {{PM_STOP_TERMINATE, PM_SCOPE_PROCESS}}},
        {"close stdin, terminate, kill",
         {{PM_STOP_CLOSE_STDIN, PM_SCOPE_TREE},
          {PM_STOP_TERMINATE, PM_SCOPE_TREE},
          {PM_STOP_KILL, PM_SCOPE_TREE}}},
        {"close stdin", {{PM_STOP_CLOSE_STDIN, PM_SCOPE_PROCESS}}},
#ifndef _WIN32
        {"interrupt, kill", {{PM_STOP_INTERRUPT, PM_SCOPE_TREE}, {PM_STOP_KILL, PM_SCOPE_TREE}}},
        {"terminate the group", {{PM_STOP_TERMINATE, PM_SCOPE_GROUP}}},
#endif
        {"too many steps", {{PM_STOP_KILL, PM_SCOPE_TREE}}},
    };
    return plans;
}

namespace
{

std::string M(const Call &c)
{
    return "m[" + std::to_string(c.m) + "]";
}

std::string P(const Call &c)
{
    return "p[" + std::to_string(c.p) + "]";
}

std::string Stream(const Call &c)
{
    return "pm_process_stream(" + P(c) + ", " + stream_names[c.a % 3] + ")";
}

std::string Code(const Call &c)
{
    return std::to_string(10 + c.b % 100);
}

std::string Key(const Call &c)
{
    return "\"" + std::string(key_names[c.a % keys]) + "\"";
}

} // namespace

const std::vector<Verb> &Verbs()
{
    static const char *const kind_names[] = {"obeys", "deaf", "mute", "quick", "daemon"};
    static const char *const scope_names[] = {"PM_SCOPE_TREE", "PM_SCOPE_PROCESS",
                                              "PM_SCOPE_GROUP"};
    static const char *const bad[] = {"missing_program", "missing_cwd", "missing_input",
                                      "without_owner",   "bad_plan",    "daemon_without_key"};
    static const std::vector<Verb> verbs = {
        {&Player::Open, 10,
         [](const Call &c) {
             return "pm_open(" + std::string(c.a % 2 != 0 ? "registry" : "no registry") + ", " +
                    (c.b % 3 == 0 ? "PM_LOOP_CALLER" : "PM_LOOP_OWN") + ", &" + M(c) + ")";
         }},
        {&Player::Close, 6,
         [](const Call &c) {
             return std::string(c.a % 2 != 0 ? "settle, " : "") + "pm_close(" + M(c) + ")";
         }},
        {&Player::Spawn, 22,
         [](const Call &c) {
             const unsigned kind = c.a % 5;
             return "pm_spawn(" + M(c) + ", " + kind_names[kind] +
                    (kind == QUICK    ? "(" + Code(c) + ")"
                     : kind == DAEMON ? "(\"" + std::string(key_names[c.b % keys]) + "\")"
                                      : "") +
                    ", &" + P(c) + ")";
         }},
        {&Player::SpawnBad, 4,
         [](const Call &c) { return "pm_spawn(" + M(c) + ", " + bad[c.a % 6] + ", &none)"; }},
        {&Player::SpawnLoose, 3,
         [](const Call &c) { return "pm_spawn(" + M(c) + ", quick(" + Code(c) + "), NULL)"; }},
        {&Player::Run, 2, [](const Call &c) { return "pm_run(" + M(c) + ", cat)"; }},
        {&Player::Wait, 12,
         [](const Call &c) {
             return "pm_process_wait(" + P(c) + ", " + (c.a % 2 == 0 ? "0" : "long") + ")";
         }},
        {&Player::Stop, 12,
         [](const Call &c) {
             return "pm_process_stop(" + P(c) + ", " + Plans()[c.a % Plans().size()].name + ")";
         }},
        {&Player::Signal, 10,
         [](const Call &c) {
             return "pm_process_signal(" + P(c) + ", " +
                    std::to_string(signals[c.a % signals.size()]) + ", " + scope_names[c.b % 3] +
                    ")";
         }},
        {&Player::Say, 12, [](const Call &c) { return "say(" + P(c) + ")"; }},
        {&Player::Exit, 6,
         [](const Call &c) { return "order_exit(" + P(c) + ", " + Code(c) + ")"; }},
        {&Player::Read, 12,
         [](const Call &c) {
             return "pm_stream_read(" + Stream(c) + ", " + std::to_string(1 + c.b % 64) + ")";
         }},
        {&Player::CloseStream, 5,
         [](const Call &c) { return "pm_stream_close(" + Stream(c) + ")"; }},
        {&Player::Take, 4,
         [](const Call &c) {
             return std::string(c.b % 4 != 0 ? "pm_stream_native(" : "pm_stream_take(") +
                    Stream(c) + ")";
         }},
        {&Player::Info, 10, [](const Call &c) { return "pm_process_info(" + P(c) + ")"; }},
        {&Player::Waitable, 4,
         [](const Call &c) { return "pm_process_exit_waitable(" + P(c) + ")"; }},
        {&Player::Refuse, 2, [](const Call &c) { return "pm_process_resize(" + P(c) + ")"; }},
        {&Player::Ref, 3, [](const Call &c) { return "pm_process_ref(" + P(c) + ")"; }},
        {&Player::Unref, 8, [](const Call &c) { return "pm_process_unref(" + P(c) + ")"; }},
        {&Player::List, 4, [](const Call &c) { return "settle, pm_list(" + M(c) + ")"; }},
        {&Player::Stats, 5, [](const Call &c) { return "settle, pm_stats(" + M(c) + ")"; }},
        {&Player::StopAll, 2,
         [](const Call &c) {
             return std::string(c.a % 2 != 0 ? "settle, " : "") +
                    (c.p % 3 == 0 ? "pm_stop_daemons(" : "pm_stop_all(") + M(c) + ")";
         }},
        {&Player::StopDaemons, 1,
         [](const Call &c) {
             return std::string(c.a % 2 != 0 ? "settle, " : "") + "pm_stop_daemons(" + M(c) + ")";
         }},
        {&Player::Find, 3,
         [](const Call &c) { return "settle, pm_find(" + M(c) + ", " + Key(c) + ")"; }},
        {&Player::Forget, 3,
         [](const Call &c) { return "settle, pm_forget(" + M(c) + ", " + Key(c) + ")"; }},
        {&Player::Recover, 3, [](const Call &c) { return "pm_recover(" + M(c) + ")"; }},
        {&Player::Registry, 2,
         [](const Call &) { return std::string("settle, pm_registry_list(registry)"); }},
        {&Player::Dispatch, 4, [](const Call &c) { return "pm_dispatch(" + M(c) + ")"; }},
        {&Player::Scan, 1, [](const Call &c) { return "pm_leak_scan(" + M(c) + ")"; }},
    };
    return verbs;
}

} // namespace model
