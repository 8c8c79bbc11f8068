// The process options of a Spec, each read back by the child, in both modes.

#include "fixture.h"

#include <cstdlib>
#include <cstring>
#include <fcntl.h>
#include <fstream>
#include <grp.h>
#include <map>
#include <pwd.h>
#include <signal.h>
#include <sstream>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

using namespace contract;

namespace
{

const int kResources[] = {RLIMIT_NOFILE, RLIMIT_CORE, RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_STACK};

// What this process is, as "name value" lines, into a file that appears whole.
int TellOptions(const std::vector<std::string> &args)
{
    std::ostringstream said;
    mode_t mask = umask(0);
    uid_t uids[3];
    gid_t gids[3];
    getresuid(&uids[0], &uids[1], &uids[2]);
    getresgid(&gids[0], &gids[1], &gids[2]);
    said << "uid " << uids[0] << "," << uids[1] << "," << uids[2] << "\n";
    said << "gid " << gids[0] << "," << gids[1] << "," << gids[2] << "\n";
    std::vector<gid_t> groups(65536);
    int count = getgroups(static_cast<int>(groups.size()), groups.data());
    said << "groups";
    for (int i = 0; i < count; i++)
        said << (i == 0 ? ' ' : ',') << groups[static_cast<size_t>(i)];
    said << "\numask " << std::oct << mask << std::dec << "\n";
    said << "nice " << getpriority(PRIO_PROCESS, 0) << "\n";
    for (int resource : kResources) {
        struct rlimit limit;
        getrlimit(resource, &limit);
        said << "limit" << resource << " " << limit.rlim_cur << "," << limit.rlim_max << "\n";
    }
    said << "session " << (getsid(0) == getpid() ? "own" : "host's") << "\n";
    said << "group " << (getpgrp() == getpid() ? "own" : "host's") << "\n";
    said << "new-privileges " << (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0 ? "yes" : "no")
         << "\n";
    char cwd[4096];
    said << "cwd " << (getcwd(cwd, sizeof cwd) != nullptr ? cwd : "?") << "\n";
    int death = 0;
    prctl(PR_GET_PDEATHSIG, &death);
    said << "death-signal " << death << "\n";
    if (!args.empty()) {
        FILE *out = fdopen(3, "w");
        if (out == nullptr)
            return 1;
        fputs(said.str().c_str(), out);
        fclose(out);
        return 0;
    }
    fputs(said.str().c_str(), stdout);
    fflush(stdout);
    return 0;
}

const RoleAdder tell_options("tell-options", TellOptions);

class Options : public Contract
{
  protected:
    using Told = std::map<std::string, std::string>;

    void SetUp() override
    {
        Contract::SetUp();
        Open();
        // Another user has to get at the program and, as a daemon, at its folder.
        ASSERT_EQ(0, chmod(folder.c_str(), 0755));
    }

    static Told Parse(const std::string &text)
    {
        Told told;
        std::istringstream in(text);
        for (std::string line; std::getline(in, line);) {
            if (!line.empty() && line.back() == '\r') // A terminal's.
                line.pop_back();
            size_t blank = line.find(' ');
            told[line.substr(0, blank)] = blank == std::string::npos ? "" : line.substr(blank + 1);
        }
        return told;
    }

    Told Normal(const std::function<void(pm_spec &)> &change, bool terminal = false)
    {
        Child child({"tell-options"});
        child->stdout_slot.kind = PM_STDIO_PIPE;
        if (terminal) {
            child->mode = PM_MODE_PTY;
            child->stdin_slot = child->stdout_slot = child->stderr_slot = {};
        }
        change(child.spec);
        pm_process *process = Spawn(child);
        return process == nullptr ? Told() : Parse(ReadAll(process));
    }

    Told Daemon(const std::function<void(pm_spec &)> &change)
    {
        std::string key = "daemon-" + std::to_string(daemons++), path = folder + "/" + key;
        Child child({"tell-options", "3"});
        child->mode = PM_MODE_DAEMON;
        child->key = key.c_str();
        FILE *out = fopen(path.c_str(), "w");
        child.extras.push_back({fileno(out), 3});
        change(child.spec);
        pm_process *process = Spawn(child);
        fclose(out);
        if (process == nullptr)
            return Told();
        EXPECT_TRUE(Eventually([&] { return !pm_process_alive(process); }));
        return Parse(ReadFile(path));
    }

    void InEveryMode(const std::function<void(pm_spec &)> &change,
                     const std::function<void(const Told &)> &look)
    {
        {
            SCOPED_TRACE("normal");
            look(Normal(change));
        }
        {
            SCOPED_TRACE("terminal");
            look(Normal(change, true));
        }
        SCOPED_TRACE("daemon");
        look(Daemon(change));
    }

    int Refused(const std::function<void(pm_spec &)> &change, const char *field, pm_stage stage)
    {
        int result = PM_OK;
        for (bool daemon : {false, true}) {
            SCOPED_TRACE(daemon ? "daemon" : "normal");
            Child child({"exit", "0"});
            if (daemon) {
                child->mode = PM_MODE_DAEMON;
                child->key = "refused";
            }
            change(child.spec);
            int code = PM_OK;
            pm_error error = PM_ERROR_INIT;
            EXPECT_EQ(nullptr, TrySpawn(child, &code, &error));
            EXPECT_STREQ(field, error.field) << ErrorText(error);
            EXPECT_EQ(stage, error.stage) << ErrorText(error);
            EXPECT_TRUE(!daemon || code == result) << "another error than in the other mode";
            result = code;
        }
        pm_process *process = nullptr;
        EXPECT_EQ(PM_ERR_NOT_FOUND, pm_find(manager, "refused", &process));
        return result;
    }

    static std::string Three(uint32_t id)
    {
        std::string text = std::to_string(id);
        return text + "," + text + "," + text;
    }

    int daemons = 0;
};

// Of this machine: uid, gid, and the name in the user database.
struct passwd *Nobody()
{
    return getpwnam("nobody");
}

// A host behind a filter has given them up already.
bool HasNewPrivileges()
{
#ifdef PR_GET_NO_NEW_PRIVS
    return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 0;
#else
    return true;
#endif
}

TEST_F(Options, NoneChangeNothing)
{
    char cwd[4096];
    ASSERT_NE(nullptr, getcwd(cwd, sizeof cwd));
    mode_t mask = umask(0);
    umask(mask);
    InEveryMode([](pm_spec &) {},
                [&](Told told) {
                    std::ostringstream octal;
                    octal << std::oct << mask;
                    EXPECT_EQ(Three(getuid()), told["uid"]);
                    EXPECT_EQ(Three(getgid()), told["gid"]);
                    EXPECT_EQ(octal.str(), told["umask"]);
                    EXPECT_EQ(std::to_string(getpriority(PRIO_PROCESS, 0)), told["nice"]);
                    EXPECT_EQ(HasNewPrivileges() ? "yes" : "no", told["new-privileges"]);
                    EXPECT_EQ(cwd, told["cwd"]);
                });
    EXPECT_EQ("host's", Normal([](pm_spec &) {})["session"]);
}

TEST_F(Options, UmaskNiceAndLimitsArriveAtTheChild)
{
    if (OnValgrind())
        GTEST_SKIP() << "valgrind lets nobody lower the hard limit on descriptors";
    struct rlimit old = {};
    getrlimit(RLIMIT_NOFILE, &old);
    const pm_rlimit limits[] = {{RLIMIT_NOFILE, 16, 64},
                                {RLIMIT_CORE, 0, 0},
                                {RLIMIT_CPU, 100, 200},
                                {RLIMIT_FSIZE, 1 << 20, UINT64_MAX}};
    InEveryMode(
        [&](pm_spec &s) {
            s.set_umask = true;
            s.umask_value = 0;
            s.set_nice = true;
            s.nice_value = 7;
            s.rlimits = limits;
            s.rlimits_count = 4;
        },
        [](Told told) {
            EXPECT_EQ("0", told["umask"]);
            EXPECT_EQ("7", told["nice"]);
            EXPECT_EQ("16,64", told["limit" + std::to_string(RLIMIT_NOFILE)]);
            EXPECT_EQ("0,0", told["limit" + std::to_string(RLIMIT_CORE)]);
            EXPECT_EQ("100,200", told["limit" + std::to_string(RLIMIT_CPU)]);
            EXPECT_EQ("1048576," + std::to_string(RLIM_INFINITY),
                      told["limit" + std::to_string(RLIMIT_FSIZE)]);
        });
    EXPECT_EQ("777", Normal([](pm_spec &s) { s.set_umask = true, s.umask_value = 0777; })["umask"]);
    struct rlimit now = {};
    getrlimit(RLIMIT_NOFILE, &now);
    EXPECT_EQ(old.rlim_cur, now.rlim_cur) << "the host's own";
}

TEST_F(Options, ALimitThatCannotBeSetFailsTheStart)
{
    if (OnValgrind())
        GTEST_SKIP() << "the child has a copy of our memory: the stage does not come back";
    const pm_rlimit unknown = {12345, 1, 1};
    EXPECT_EQ(PM_ERR_INVALID,
              Refused([&](pm_spec &s) { s.rlimits = &unknown, s.rlimits_count = 1; }, "rlimits",
                      PM_STAGE_LIMITS));
}

TEST_F(Options, ASessionOfItsOwn)
{
    Told told = Normal([](pm_spec &s) { s.new_session = true; });
    EXPECT_EQ("own", told["session"]);
    EXPECT_EQ("own", told["group"]);
    Child child({"linger"});
    child->new_session = true;
    pm_process *process = Spawn(child);
    pm_info info = PM_INFO_INIT;
    ASSERT_EQ(PM_OK, pm_process_info(process, &info));
    EXPECT_EQ(PM_CONTAIN_GROUP, info.containment);
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, nullptr));
    EXPECT_EQ(SIGTERM, Wait(process).signal);
}

TEST_F(Options, NoNewPrivileges)
{
    const bool had = HasNewPrivileges();
    InEveryMode([](pm_spec &s) { s.no_new_privileges = true; },
                [](Told told) { EXPECT_EQ("no", told["new-privileges"]); });
    EXPECT_EQ(had, HasNewPrivileges());
}

class Credentials : public Options
{
  protected:
    void SetUp() override
    {
        Options::SetUp();
        if (geteuid() != 0)
            GTEST_SKIP() << "only the superuser may";
        if (Nobody() == nullptr)
            GTEST_SKIP() << "this system knows no nobody";
    }
};

TEST_F(Credentials, ByNameTakeTheMainGroupAndNoOther)
{
    uint32_t uid = Nobody()->pw_uid, gid = Nobody()->pw_gid;
    const gid_t ours[] = {4, 24, 27};
    gid_t before[65536];
    int count = getgroups(65536, before);
    ASSERT_EQ(0, setgroups(3, ours)) << "which must not be handed on";
    InEveryMode([](pm_spec &s) { s.run_as_user = "nobody"; },
                [&](Told told) {
                    EXPECT_EQ(Three(uid), told["uid"]);
                    EXPECT_EQ(Three(gid), told["gid"]);
                    EXPECT_EQ("", told["groups"]);
                });
    EXPECT_EQ(0u, geteuid()) << "the host's own";
    EXPECT_EQ(3, getgroups(0, nullptr));
    EXPECT_EQ(1, prctl(PR_GET_DUMPABLE)) << "the host can still be debugged";
    EXPECT_EQ(0, setgroups(static_cast<size_t>(count), before));
}

TEST_F(Credentials, ByNumberNeedNoEntry)
{
    const uint32_t groups[] = {5, 4000000000u, 6};
    InEveryMode(
        [&](pm_spec &s) {
            s.run_as_user = "1016875";
            s.run_as_group = "1016876";
            s.supplementary_groups = groups;
            s.supplementary_groups_count = 3;
        },
        [](Told told) {
            EXPECT_EQ(Three(1016875), told["uid"]);
            EXPECT_EQ(Three(1016876), told["gid"]);
            EXPECT_EQ("5,6,4000000000", told["groups"]);
        });
    EXPECT_EQ(PM_ERR_NOT_FOUND, Refused([](pm_spec &s) { s.run_as_user = "1016875"; },
                                        "run_as_user", PM_STAGE_CREDENTIALS))
        << "its group is not known";
}

TEST_F(Credentials, AGroupAlone)
{
    InEveryMode([](pm_spec &s) { s.run_as_group = "1016876"; },
                [](Told told) {
                    EXPECT_EQ(Three(0), told["uid"]);
                    EXPECT_EQ(Three(1016876), told["gid"]);
                    EXPECT_EQ("", told["groups"]);
                });
}

TEST_F(Credentials, TheGroupsOfTheUser)
{
    int count = 1000;
    gid_t groups[1000];
    ASSERT_LT(0, getgrouplist("nobody", Nobody()->pw_gid, groups, &count));
    InEveryMode([](pm_spec &s) { s.run_as_user = "nobody", s.groups_of_user = true; },
                [&](Told told) {
                    EXPECT_EQ(count, 1 + static_cast<int>(std::count(told["groups"].begin(),
                                                                     told["groups"].end(), ',')))
                        << told["groups"];
                    EXPECT_NE("", told["groups"]);
                });
}

TEST_F(Credentials, UnknownNamesFailTheStart)
{
    EXPECT_EQ(PM_ERR_NOT_FOUND, Refused([](pm_spec &s) { s.run_as_user = "no-such-user"; },
                                        "run_as_user", PM_STAGE_CREDENTIALS));
    EXPECT_EQ(PM_ERR_NOT_FOUND,
              Refused([](pm_spec &s) { s.run_as_user = ""; }, "run_as_user", PM_STAGE_CREDENTIALS));
    EXPECT_EQ(PM_ERR_NOT_FOUND, Refused([](pm_spec &s) { s.run_as_group = "no-such-group"; },
                                        "run_as_group", PM_STAGE_CREDENTIALS));
    // (uid_t)-1 means "unchanged" to the system.
    EXPECT_EQ(PM_ERR_NOT_FOUND,
              Refused([](pm_spec &s) { s.run_as_user = "4294967295", s.run_as_group = "1"; },
                      "run_as_user", PM_STAGE_CREDENTIALS));
}

TEST_F(Credentials, HoldForTheFolderAndTheProgram)
{
    std::string closed = folder + "/closed";
    ASSERT_EQ(0, mkdir(closed.c_str(), 0700));
    EXPECT_EQ(PM_ERR_ACCESS,
              Refused([&](pm_spec &s) { s.run_as_user = "nobody", s.cwd = closed.c_str(); }, "cwd",
                      PM_STAGE_CHDIR));
}

TEST_F(Credentials, ChildrenOfAnotherUserStillDieWithTheirParent)
{
    Told told = Normal([](pm_spec &s) { s.run_as_user = "nobody", s.die_with_parent = true; });
    EXPECT_EQ(std::to_string(SIGKILL), told["death-signal"]) << "a change of user takes it away";
}

TEST_F(Credentials, ChildrenOfAnotherUserAreStopped)
{
    Child child({"linger"});
    child->run_as_user = "nobody";
    pm_process *process = Spawn(child);
    ASSERT_NE(nullptr, process);
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, nullptr));
    EXPECT_EQ(SIGTERM, Wait(process).signal);
}

// Whose terminal it is on, and whether it can be opened by its name.
int TerminalOwner(const std::vector<std::string> &)
{
    struct stat st = {};
    int fd = fstat(0, &st) == 0 ? open(ttyname(0), O_RDWR | O_NOCTTY) : -1;
    printf("owner %u %s\n", st.st_uid, fd >= 0 ? "opened" : "closed to it");
    fflush(stdout);
    return 0;
}
const RoleAdder terminal_owner("terminal-owner", TerminalOwner);

TEST_F(Credentials, AreOfTheTerminalToo)
{
    Child child({"terminal-owner"});
    child->mode = PM_MODE_PTY;
    child->stdin_slot.kind = child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_DEFAULT;
    child->run_as_user = "nobody";
    EXPECT_EQ("owner " + std::to_string(Nobody()->pw_uid) + " opened", ReadLine(Spawn(child)));
}

// A host without rights, in a process of its own.
int UnprivilegedHost(const std::vector<std::string> &a)
{
    pm_options options = PM_OPTIONS_INIT;
    pm_manager *manager = nullptr;
    pm_error error = PM_ERROR_INIT;
    if (setgroups(0, nullptr) != 0 || setgid(65534) != 0 || setuid(65534) != 0 ||
        pm_open(&options, &manager, &error) != PM_OK)
        return 1;
    Child child({"exit", "0"});
    if (a.at(0) == "user")
        child->run_as_user = "0", child->run_as_group = "0";
    else if (a.at(0) == "group")
        child->run_as_group = "0";
    else if (a.at(0) == "groups")
        child->run_as_user = "0", child->groups_of_user = true;
    else if (a.at(0) == "nice")
        child->set_nice = true, child->nice_value = getpriority(PRIO_PROCESS, 0) - 1;
    int result = pm_spawn(manager, child.Get(), nullptr, &error);
    pm_close(manager, -1, nullptr);
    printf("%s %s\n", pm_error_name(result), error.field);
    return 0;
}
const RoleAdder unprivileged_host("unprivileged-host", UnprivilegedHost);

TEST_F(Credentials, WithoutTheRightToItFailTheStart)
{
    for (auto [what, said] : {std::pair{"user", "PM_ERR_ACCESS run_as_user"},
                              std::pair{"group", "PM_ERR_ACCESS run_as_group"},
                              std::pair{"groups", "PM_ERR_ACCESS groups_of_user"},
                              std::pair{"nice", "PM_ERR_ACCESS nice_value"}}) {
        Child host({"unprivileged-host", what});
        host->stdout_slot.kind = PM_STDIO_PIPE;
        EXPECT_EQ(said, ReadLine(Spawn(host)));
    }
}

// ------------------------------------------------------------------------------------------------
// Control groups
// ------------------------------------------------------------------------------------------------

// Leaves a descendant behind that is in a session of its own and was never in our group, and says
// its number.
int Escapist(const std::vector<std::string> &)
{
    int said[2];
    if (pipe(said) != 0)
        return 1;
    if (fork() == 0) {
        setsid();
        if (fork() != 0)
            _exit(0);
        setpgid(0, 0);
        signal(SIGTERM, SIG_IGN);
        signal(SIGHUP, SIG_IGN);
        alarm(120);
        int pid = getpid();
        (void)!write(said[1], &pid, sizeof pid);
        for (int fd = 0; fd < 16; fd++)
            close(fd);
        for (;;)
            pause();
    }
    int pid = 0;
    (void)!read(said[0], &pid, sizeof pid);
    printf("escaped %d\n", pid);
    fflush(stdout);
    alarm(120);
    pause();
    return 0;
}

// A descendant in a control group below ours.
int Nester(const std::vector<std::string> &)
{
    std::string text = ReadFile("/proc/self/cgroup");
    size_t at = text.find("0::");
    std::string mine = text.substr(at + 3, text.find('\n', at) - at - 3);
    std::string below = "/sys/fs/cgroup" + mine + "/below";
    if (access("/sys/fs/cgroup/unified", F_OK) == 0)
        below = "/sys/fs/cgroup/unified" + mine + "/below";
    if (mkdir(below.c_str(), 0755) != 0)
        return 1;
    if (fork() == 0) {
        WriteFile(below + "/cgroup.procs", "0");
        setsid();
        printf("escaped %d\n", getpid());
        fflush(stdout);
        alarm(120);
        pause();
        _exit(0);
    }
    alarm(120);
    pause();
    return 0;
}

const RoleAdder escapist("escapist", Escapist);
const RoleAdder nester("nester", Nester);

// A background job, as a shell makes them: a group of its own, deaf to the hang-up.
int Jobber(const std::vector<std::string> &)
{
    if (fork() == 0) {
        setpgid(0, 0);
        signal(SIGHUP, SIG_IGN);
        alarm(120);
        printf("escaped %d\n", getpid());
        fflush(stdout);
        for (;;)
            pause();
    }
    alarm(120);
    pause();
    return 0;
}

// A host whose child is to die with it. args: the control group, or nothing for a session; whatever
// else: it has its keeper first, and starts the child when it is told to.
int DyingHost(const std::vector<std::string> &args)
{
    pm_options options = PM_OPTIONS_INIT;
    pm_manager *manager = nullptr;
    pm_error error = PM_ERROR_INIT;
    options.prestart_keeper = args.size() > 1;
    if (pm_open(&options, &manager, &error) != PM_OK)
        return 1;
    if (args.size() > 1)
        (void)getchar();
    Child child({args.empty() ? "jobber" : "escapist"});
    child->die_with_parent = true;
    child->stdout_slot.kind = PM_STDIO_INHERIT;
    if (args.empty())
        child->new_session = true;
    else
        child->cgroup = args.at(0).c_str();
    if (pm_spawn(manager, child.Get(), nullptr, &error) != PM_OK)
        printf("%s\n", ErrorText(error).c_str());
    fflush(stdout);
    alarm(120);
    pause();
    return 0;
}

const RoleAdder jobber("jobber", Jobber);
const RoleAdder dying_host("dying-host", DyingHost);

TEST_F(Options, ASessionDiesWithItsParentWithItsJobs)
{
    Child host({"dying-host"});
    host->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(host);
    uint64_t job = NumberAfter(ReadLine(process), "escaped");
    ASSERT_NE(0u, job);
    EXPECT_TRUE(PidAlive(job));
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGKILL, PM_SCOPE_PROCESS));
    EXPECT_TRUE(Eventually([&] { return !PidAlive(job); }));
}

// The number of our keeper; 0: there is none.
pid_t KeeperOf(uint64_t parent)
{
    for (const auto &name : ListFolder("/proc"))
        if (ReadFile("/proc/" + name + "/stat")
                .find("(pm-keeper) S " + std::to_string(parent) + " ") != std::string::npos)
            return std::stoi(name);
    return 0;
}

#ifdef __linux__

// A host whose keeper has few descriptors: it starts some who stay, many who do not, and then more
// who stay, as long as it can. Says what came of it.
int CrowdedHost(const std::vector<std::string> &)
{
    pm_options options = PM_OPTIONS_INIT;
    pm_manager *manager = nullptr;
    pm_error error = PM_ERROR_INIT;
    options.prestart_keeper = true;
    if (pm_open(&options, &manager, &error) != PM_OK)
        return 1;
    pid_t keeper = 0;
    const rlimit few = {40, 40};
    if (!Eventually([&] { return (keeper = KeeperOf(static_cast<uint64_t>(getpid()))) != 0; }) ||
        prlimit(keeper, RLIMIT_NOFILE, &few, nullptr) != 0)
        return 2;
    Child stays({"jobber"}), goes({"exit", "0"});
    stays->die_with_parent = goes->die_with_parent = stays->new_session = true;
    stays->stdout_slot.kind = PM_STDIO_INHERIT;
    int staying = 0, went = 0;
    while (staying < 20 && pm_spawn(manager, stays.Get(), nullptr, &error) == PM_OK)
        staying++;
    pm_process *process = nullptr;
    while (went < 60 && pm_spawn(manager, goes.Get(), &process, &error) == PM_OK) {
        went += pm_process_wait(process, Patience(), nullptr) == PM_OK;
        pm_process_unref(process);
    }
    while (staying < 60 && pm_spawn(manager, stays.Get(), nullptr, &error) == PM_OK)
        staying++;
    struct pm_stats stats = PM_STATS_INIT;
    pm_stats(manager, &stats);
    printf("went %d, stay %d, by number %d: %s\n", went, staying, stats.fallbacks > 0,
           ErrorText(error).c_str());
    fflush(stdout);
    alarm(120);
    pause();
    return 0;
}
const RoleAdder crowded_host("crowded-host", CrowdedHost);

// What the dead had is there for others. When there is no more, the start says so, and all that is
// left can still be ended.
TEST_F(Options, AKeeperWithFewDescriptorsServesOnAndEndsWhatItKnows)
{
    if (OnEmulator())
        GTEST_SKIP() << "an emulator has its own descriptors";
    Child host({"crowded-host"});
    host->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(host);
    std::vector<uint64_t> jobs;
    std::string line, said;
    for (size_t all = 1; jobs.size() < all && !(line = ReadLine(process)).empty();) {
        if (line.rfind("escaped ", 0) == 0)
            jobs.push_back(NumberAfter(line, "escaped"));
        else
            said = line;
        all = said.empty() ? jobs.size() + 1 : NumberAfter(said, "stay");
    }
    SCOPED_TRACE(said);
    EXPECT_EQ(60u, NumberAfter(said, "went"));
    ASSERT_LE(20u, jobs.size());
    if (NumberAfter(said, "by number") == 0) {
        EXPECT_NE(std::string::npos, said.find("the keeper has none left"));
    }
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGKILL, PM_SCOPE_PROCESS));
    for (uint64_t job : jobs)
        EXPECT_TRUE(Eventually([&] { return !PidAlive(job); })) << job;
}

#endif

class ControlGroup : public Options
{
  protected:
    void SetUp() override
    {
        Options::SetUp();
        for (const char *mount : {"/sys/fs/cgroup", "/sys/fs/cgroup/unified"}) {
            std::string path = std::string(mount) + "/processmgr-test-" + std::to_string(getpid());
            if (access((std::string(mount) + "/cgroup.procs").c_str(), F_OK) == 0 &&
                mkdir(path.c_str(), 0755) == 0) {
                ours = path;
                return;
            }
        }
        GTEST_SKIP() << "no control group of version 2 can be made here";
    }

    void TearDown() override
    {
        Contract::TearDown();
        if (!ours.empty()) {
            EXPECT_EQ(0, rmdir(ours.c_str())) << "something is left in it";
        }
    }

    std::vector<std::string> Left() const
    {
        std::vector<std::string> left;
        for (const auto &name : ListFolder(ours))
            if (name.rfind("processmgr-", 0) == 0)
                left.push_back(name);
        return left;
    }

    std::string ours;
};

// Many, so that they need a while for their ends.
TEST_F(ControlGroup, WhoseRestIsKilledIsGoneWhenTheManagerIs)
{
    Child child({});
    child.program = "/bin/sh";
    child.args = {"sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 & done; exit 0"};
    child->cgroup = ours.c_str();
    child->kill_tree_on_exit = true;
    child->stdin_slot.kind = child->stdout_slot.kind = PM_STDIO_NULL;
    for (int i = 0; i < 20; i++) {
        pm_process *process = Spawn(child);
        EXPECT_EQ(0u, Wait(process).code);
        held.clear();
        pm_process_unref(process);
        ASSERT_EQ(PM_OK, Close());
        EXPECT_EQ(std::vector<std::string>(), Left());
        Open();
    }
}

TEST_F(ControlGroup, IsWhereTheChildIsBorn)
{
    Child child({"linger"});
    child->cgroup = ours.c_str();
    pm_process *process = Spawn(child);
    ASSERT_NE(nullptr, process);
    pm_info info = PM_INFO_INIT;
    ASSERT_EQ(PM_OK, pm_process_info(process, &info));
    EXPECT_EQ(PM_CONTAIN_CGROUP, info.containment);
    ASSERT_EQ(1u, Left().size());
    EXPECT_EQ(std::to_string(info.pid) + "\n",
              ReadFile(ours + "/" + Left().front() + "/cgroup.procs"));
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, nullptr));
    EXPECT_EQ(SIGTERM, Wait(process).signal);
    EXPECT_TRUE(Left().empty());
}

TEST_F(ControlGroup, HasTheRightsOfItsOwnerWhateverTheUmask)
{
    Child child({"linger"});
    child->cgroup = ours.c_str();
    const mode_t mask = umask(0777);
    pm_process *process = Spawn(child);
    umask(mask);
    ASSERT_NE(nullptr, process);
    ASSERT_EQ(1u, Left().size());
    struct stat made;
    ASSERT_EQ(0, stat((ours + "/" + Left().front()).c_str(), &made));
    EXPECT_EQ(0755u, made.st_mode & 0777);
    EXPECT_EQ(PM_OK, pm_process_stop(process, nullptr, nullptr));
    EXPECT_EQ(SIGTERM, Wait(process).signal);
}

TEST_F(ControlGroup, HoldsWhatLeavesTheGroupAndTheSession)
{
    for (const char *role : {"escapist", "nester"}) {
        SCOPED_TRACE(role);
        Child child({role});
        child->cgroup = ours.c_str();
        child->containment = PM_CONTAIN_CGROUP;
        child->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *process = Spawn(child);
        ASSERT_NE(nullptr, process);
        uint64_t escaped = NumberAfter(ReadLine(process), "escaped");
        ASSERT_NE(0u, escaped);
        pm_stop_plan plan = {};
        plan.steps_count = 2;
        bool hears = role == std::string("nester");
        plan.steps[0] = {PM_STOP_TERMINATE, PM_SCOPE_TREE, hears ? 20000u : 100u};
        plan.steps[1] = {PM_STOP_KILL, PM_SCOPE_TREE, 10000};
        pm_stop_report report = PM_STOP_REPORT_INIT;
        EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, &report));
        EXPECT_FALSE(report.tree_left);
        EXPECT_EQ(hears ? 1u : 2u, report.steps_tried) << "SIGTERM reaches all, too";
        EXPECT_TRUE(Eventually([&] { return !PidAlive(escaped); }));
        held.clear();
        pm_process_unref(process);
        EXPECT_TRUE(Eventually([&] { return Left().empty(); }));
    }
}

// Stopped at whatever point of its escape it has come to.
TEST_F(ControlGroup, HoldsWhoLeavesInItsFirstMoments)
{
    pm_stop_plan plan = {};
    plan.steps_count = 1;
    plan.steps[0] = {PM_STOP_KILL, PM_SCOPE_TREE, 10000};
    for (int i = 0; i < 100; i++) {
        Child child({"escapist"});
        child->cgroup = ours.c_str();
        child->containment = PM_CONTAIN_CGROUP;
        child->stdout_slot.kind = PM_STDIO_NULL;
        pm_process *process = Spawn(child);
        ASSERT_NE(nullptr, process);
        for (volatile int spin = 0; spin < i * 5000; spin = spin + 1) {
        }
        pm_stop_report report = PM_STOP_REPORT_INIT;
        EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, &report));
        EXPECT_FALSE(report.tree_left);
        held.clear();
        pm_process_unref(process);
        // Its folder can be removed only when nobody is in it.
        ASSERT_TRUE(Eventually([&] { return Left().empty(); })) << i;
    }
}

TEST_F(ControlGroup, WithDescendantsIsLeftUntilTheyAreGone)
{
    Child child({"escapist"});
    child->cgroup = ours.c_str();
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    ASSERT_NE(nullptr, process);
    uint64_t escaped = NumberAfter(ReadLine(process), "escaped");
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGKILL, PM_SCOPE_PROCESS));
    Wait(process);
    held.clear();
    pm_process_unref(process);
    EXPECT_TRUE(PidAlive(escaped)) << "a natural end leaves descendants alone";
    EXPECT_EQ(1u, Left().size());
    KillByNumber(escaped);
    // The next start looks after it.
    EXPECT_TRUE(Eventually([&] {
        Child next({"exit", "0"});
        next->cgroup = ours.c_str();
        pm_process *one = Spawn(next);
        Wait(one);
        return Left().empty();
    }));
}

TEST_F(ControlGroup, ThatIsEmptyLaterIsRemovedByTheNextSweepOrTheEnd)
{
    for (bool by_sweep : {true, false}) {
        SCOPED_TRACE(by_sweep);
        if (!by_sweep) {
            EXPECT_EQ(PM_OK, Close());
            Open();
        }
        Child child({"escapist"});
        child->cgroup = ours.c_str();
        child->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *process = Spawn(child);
        ASSERT_NE(nullptr, process);
        uint64_t escaped = NumberAfter(ReadLine(process), "escaped");
        EXPECT_EQ(PM_OK, pm_process_signal(process, SIGKILL, PM_SCOPE_PROCESS));
        Wait(process);
        held.clear();
        pm_process_unref(process);
        ASSERT_EQ(1u, Left().size());
        std::string events = ours + "/" + Left().front() + "/cgroup.events";
        KillByNumber(escaped);
        // The reactor may be so late with the end of the process that the folder goes with it.
        EXPECT_TRUE(Eventually([&] {
            return Left().empty() || ReadFile(events).find("populated 0") != std::string::npos;
        }));
        if (by_sweep) {
            EXPECT_EQ(PM_OK, pm_leak_scan(manager, nullptr));
        } else {
            EXPECT_EQ(PM_OK, Close());
        }
        // Another thread may be just about to remove it.
        EXPECT_TRUE(Eventually([&] { return Left().empty(); }));
    }
}

// Whatever a start lacks of descriptors, the folder that it has made does not stay.
TEST_F(ControlGroup, OfAStartWithoutDescriptorsIsRemoved)
{
    if (OnValgrind())
        GTEST_SKIP() << "valgrind does not survive a clone that fails for want of a descriptor";
    struct rlimit old = {};
    getrlimit(RLIMIT_NOFILE, &old);
    struct rlimit tight = old;
    tight.rlim_cur = 128;
    ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &tight));
    int failed = 0;
    for (size_t spare = 0; spare < 16; spare++) {
        std::vector<int> fds;
        for (int fd; (fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;)
            fds.push_back(fd);
        for (size_t i = 0; i < spare; i++) {
            close(fds.back());
            fds.pop_back();
        }
        Child child({"exit", "0"});
        child->cgroup = ours.c_str();
        child->stdin_slot.kind = child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_NULL;
        pm_error error = PM_ERROR_INIT;
        pm_process *process = nullptr;
        failed += pm_spawn(manager, child.Get(), &process, &error) != PM_OK;
        for (int fd : fds)
            close(fd);
        pm_process_wait(process, Patience(), nullptr);
        pm_process_unref(process);
        EXPECT_EQ(PM_OK, pm_leak_scan(manager, nullptr));
        EXPECT_TRUE(Left().empty()) << "with " << spare << " descriptors";
    }
    EXPECT_LT(2, failed);
    ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
}

TEST_F(ControlGroup, DiesWithItsParentAndIsRemoved)
{
    Child host({"dying-host", ours});
    host->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(host);
    uint64_t escaped = NumberAfter(ReadLine(process), "escaped");
    ASSERT_NE(0u, escaped);
    EXPECT_TRUE(PidAlive(escaped));
    EXPECT_EQ(1u, Left().size());
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGKILL, PM_SCOPE_PROCESS));
    EXPECT_TRUE(Eventually([&] { return !PidAlive(escaped); }));
    EXPECT_TRUE(Eventually([&] { return Left().empty(); }));
}

// Its child is born in the group, and waits for the word of a keeper that has not read of either.
TEST_F(ControlGroup, OfAHostThatDiesAsItStartsIsRemoved)
{
    Child host({"dying-host", ours, "waits"});
    host->stdin_slot.kind = host->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(host);
    pid_t keeper = 0;
    ASSERT_TRUE(Eventually([&] { return (keeper = KeeperOf(pm_process_pid(process))) != 0; }));
    ASSERT_EQ(0, kill(keeper, SIGSTOP));
    ASSERT_TRUE(Eventually([&] {
        return ReadFile("/proc/" + std::to_string(keeper) + "/stat").find(") T ") !=
               std::string::npos;
    }));
    size_t written = 0;
    ASSERT_EQ(PM_OK,
              pm_stream_write(pm_process_stream(process, PM_STDIN), "\n", 1, Patience(), &written));
    EXPECT_TRUE(Eventually([&] {
        return Left().size() == 1 && !ReadFile(ours + "/" + Left()[0] + "/cgroup.procs").empty();
    }));
    EXPECT_EQ(PM_OK, pm_process_signal(process, SIGKILL, PM_SCOPE_PROCESS));
    EXPECT_EQ(SIGKILL, Wait(process).signal);
    ASSERT_EQ(0, kill(keeper, SIGCONT));
    EXPECT_TRUE(Eventually([&] { return Left().empty(); }));
    EXPECT_EQ("", ReadAll(process)) << "its child has begun";
}

TEST_F(ControlGroup, ThatIsNoneFailsTheStart)
{
    auto refused = [&](const std::string &path) {
        Child child({"exit", "0"});
        int code = PM_OK;
        pm_error error = PM_ERROR_INIT;
        child->cgroup = path.c_str();
        EXPECT_EQ(nullptr, TrySpawn(child, &code, &error));
        EXPECT_STREQ("cgroup", error.field);
        return code;
    };
    EXPECT_EQ(PM_ERR_INVALID, refused("relative"));
    EXPECT_EQ(PM_ERR_INVALID, refused(folder));
    EXPECT_EQ(PM_ERR_NOT_FOUND, refused(ours + "/not-there"));
    EXPECT_EQ(PM_ERR_NOT_A_DIRECTORY, refused(ours + "/cgroup.procs"));
    Child daemon({"exit", "0"});
    daemon->mode = PM_MODE_DAEMON;
    daemon->key = "d";
    daemon->cgroup = ours.c_str();
    int code = PM_OK;
    EXPECT_EQ(nullptr, TrySpawn(daemon, &code));
    EXPECT_EQ(PM_ERR_UNSUPPORTED, code);
    EXPECT_TRUE(Left().empty());
}

TEST_F(ControlGroup, OfAFailedStartIsRemoved)
{
    Child child({"exit", "0"});
    std::string nowhere = folder + "/nowhere";
    child->cgroup = ours.c_str();
    child->cwd = nowhere.c_str();
    int code = PM_OK;
    EXPECT_EQ(nullptr, TrySpawn(child, &code));
    EXPECT_EQ(PM_ERR_NOT_FOUND, code);
    EXPECT_TRUE(Left().empty());
}

// ------------------------------------------------------------------------------------------------
// Refusals that name what is wrong
// ------------------------------------------------------------------------------------------------

TEST_F(Options, ATargetBeyondTheLimitOnDescriptorsIsRefusedByItsIndex)
{
    rlimit limit = {};
    ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
    int source = open("/dev/null", O_RDONLY | O_CLOEXEC);
    for (bool daemon : {false, true}) {
        for (int target : {static_cast<int>(limit.rlim_cur) - 1, 2000000}) {
            Child child({"exit", "0"});
            if (daemon) {
                child->mode = PM_MODE_DAEMON;
                child->key = "far";
            }
            child.extras = {{source, 5}, {source, target}};
            int code = 0;
            pm_error error = PM_ERROR_INIT;
            EXPECT_EQ(nullptr, TrySpawn(child, &code, &error));
            EXPECT_EQ(PM_ERR_INVALID, code) << ErrorText(error);
            EXPECT_EQ(PM_STAGE_CHECK, error.stage);
            EXPECT_STREQ("extras", error.field);
            EXPECT_NE(nullptr, strstr(error.hint, "extras[1]")) << error.hint;
        }
    }
    close(source);
}

// What is named as the helper and is none.
TEST_F(Options, AKeeperThatIsNoneIsNamed)
{
    if (OnValgrind())
        GTEST_SKIP() << "the child has a copy of our memory: the stage does not come back";
    pm_options options = PM_OPTIONS_INIT;
    options.launcher_path = "/bin/true";
    ASSERT_EQ(PM_OK, Close());
    Open(options);
    Child child({"exit", "0"});
    child->die_with_parent = true;
    int code = 0;
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(nullptr, TrySpawn(child, &code, &error));
    EXPECT_EQ(PM_ERR_LAUNCHER, code) << ErrorText(error);
    EXPECT_EQ(PM_STAGE_KEEPER, error.stage);
    EXPECT_STREQ("die_with_parent", error.field);
    EXPECT_NE(nullptr, strstr(error.hint, "/bin/true")) << error.hint;
}

// args: a registry folder
int Opener(const std::vector<std::string> &args)
{
    pm_options options = PM_OPTIONS_INIT;
    pm_manager *manager = nullptr;
    pm_error error = PM_ERROR_INIT;
    if (geteuid() == 0 && (setgroups(0, nullptr) != 0 || setgid(65534) != 0 || setuid(65534) != 0))
        return 1;
    options.registry_dir = args.at(0).c_str();
    int result = pm_open(&options, &manager, &error);
    printf("%s %s %s\n", pm_error_name(result), error.field, error.hint);
    return 0;
}
const RoleAdder opener("opener", Opener);

TEST_F(Options, AFolderThatMayNotBeMadeIsAMatterOfRights)
{
    std::string closed = folder + "/closed";
    ASSERT_EQ(0, mkdir(closed.c_str(), 0555));
    Child child({"opener", closed + "/registry"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    EXPECT_EQ("PM_ERR_ACCESS registry_dir registry folder " + closed + "/registry",
              ReadLine(Spawn(child)));
}

TEST_F(Options, ARegistryFolderThatIsALinkIsCalledOne)
{
    std::string real = folder + "/real", link = folder + "/link";
    ASSERT_EQ(0, mkdir(real.c_str(), 0700));
    ASSERT_EQ(0, symlink(real.c_str(), link.c_str()));
    pm_options options = PM_OPTIONS_INIT;
    pm_manager *other = nullptr;
    pm_error error = PM_ERROR_INIT;
    for (const std::string &path : {link, link + "/"}) {
        options.registry_dir = path.c_str();
        EXPECT_EQ(PM_ERR_NOT_A_DIRECTORY, pm_open(&options, &other, &error));
        EXPECT_STREQ("registry_dir", error.field);
        EXPECT_EQ(link + " is a link, which is not followed", error.hint);
    }
}

} // namespace
