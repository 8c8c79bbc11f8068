// Manners of a guest: what the library must not change in the program that uses it.

#include "fixture.h"

#include <cstring>
#include <sstream>

#ifdef _WIN32
#include <windows.h>
#else
#include <csignal>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif
#endif

using namespace contract;

namespace
{

// Everything about this process that is not the library's to change, as text.
std::string Surroundings()
{
    std::string all;
#ifdef _WIN32
    char path[4096];
    GetCurrentDirectoryA(sizeof path, path);
    all += path;
    all += " error mode " + std::to_string(GetErrorMode());
    all += " console " + std::to_string(GetConsoleCP());
    wchar_t *block = GetEnvironmentStringsW();
    for (const wchar_t *at = block; *at != L'\0'; at += wcslen(at) + 1) {
        all += "\n";
        for (const wchar_t *c = at; *c != L'\0'; c++) {
            all += *c < 0x80 ? static_cast<char>(*c) : '?';
        }
    }
    FreeEnvironmentStringsW(block);
#else
    char path[4096];
    all += getcwd(path, sizeof path) != nullptr ? path : "?";
    mode_t mask = umask(0);
    umask(mask);
    all += "\numask " + std::to_string(mask);
    for (int number = 1; number <= SIGRTMAX; number++) {
        struct sigaction action = {};
        if (sigaction(number, nullptr, &action) == 0) {
            all += "\nsignal " + std::to_string(number) + " " +
                   std::to_string(reinterpret_cast<uintptr_t>(action.sa_handler)) + " " +
                   std::to_string(action.sa_flags & ~0x04000000); // SA_RESTORER comes and goes.
        }
    }
    sigset_t blocked;
    sigprocmask(SIG_BLOCK, nullptr, &blocked);
    for (int number = 1; number <= SIGRTMAX; number++) {
        all += sigismember(&blocked, number) == 1 ? "\nblocked " + std::to_string(number) : "";
    }
    for (int limit : {RLIMIT_NOFILE, RLIMIT_NPROC, RLIMIT_CORE, RLIMIT_STACK}) {
        rlimit value = {};
        getrlimit(static_cast<decltype(RLIMIT_NOFILE)>(limit), &value);
        all += "\nlimit " + std::to_string(value.rlim_cur) + " " + std::to_string(value.rlim_max);
    }
    all += "\npgrp " + std::to_string(getpgrp()) + " sid " + std::to_string(getsid(0));
#ifdef __linux__
    int reaper = 0, death_signal = 0;
    prctl(PR_GET_CHILD_SUBREAPER, &reaper);
    prctl(PR_GET_PDEATHSIG, &death_signal);
    all += "\nreaper " + std::to_string(reaper) + " pdeathsig " + std::to_string(death_signal);
#endif
    for (char **entry = environ; *entry != nullptr; entry++) {
        all += std::string("\n") + *entry;
    }
#endif
    return all;
}

// The first line that differs: the whole text holds the environment, which is nobody's business.
std::string FirstChange(const std::string &before)
{
    std::istringstream was(before), is(Surroundings());
    std::string a, b;
    while (std::getline(was, a)) {
        if (!std::getline(is, b) || a != b) {
            return "'" + a + "' became '" + b + "'";
        }
    }
    return std::getline(is, b) ? "new: '" + b + "'" : "";
}

class Guest : public Contract
{
};

TEST_F(Guest, NothingOfTheHostIsChanged)
{
    std::string before = Surroundings();
    Open();
    EXPECT_EQ("", FirstChange(before)) << "by pm_open";
    Child child({"exit", "0"});
    child.env = {"PM_TEST_A=1"};
    child->cwd = folder.c_str();
    child->stdout_slot.kind = PM_STDIO_PIPE;
    Wait(Spawn(child));
    EXPECT_EQ("", FirstChange(before)) << "by a child";
    Child dying({"sleep"});
    dying->die_with_parent = true;
    Spawn(dying);
    EXPECT_EQ("", FirstChange(before)) << "by a child that dies with its parent";
    Child daemon({"payload", folder + "/out"});
    daemon->mode = PM_MODE_DAEMON;
    daemon->key = "d";
    daemon->cwd = folder.c_str();
    Spawn(daemon);
    EXPECT_EQ("", FirstChange(before)) << "by a daemon";
    int code = 0;
    Child missing({"exit", "0"});
    missing.program = folder + "/none";
    TrySpawn(missing, &code);
    EXPECT_EQ("", FirstChange(before)) << "by a start that fails";
    EXPECT_EQ(PM_OK, pm_stop_all(manager, -1, nullptr, nullptr, nullptr));
    EXPECT_EQ(PM_OK, pm_stop_daemons(manager, -1, nullptr, nullptr, nullptr));
    EXPECT_EQ(PM_OK, Close());
    EXPECT_EQ("", FirstChange(before)) << "by stops and close";
}

TEST_F(Guest, TheComparisonSeesAChange)
{
    // The negative control of the test above.
    std::string before = Surroundings();
#ifdef _WIN32
    SetEnvironmentVariableA("PM_TEST_CHANGE", "1");
    EXPECT_NE("", FirstChange(before));
    SetEnvironmentVariableA("PM_TEST_CHANGE", nullptr);
#else
    struct sigaction ignore = {}, old = {};
    ignore.sa_handler = SIG_IGN;
    sigaction(SIGUSR2, &ignore, &old);
    EXPECT_NE("", FirstChange(before));
    sigaction(SIGUSR2, &old, nullptr);
    mode_t mask = umask(077);
    EXPECT_NE("", FirstChange(before));
    umask(mask);
#endif
    EXPECT_EQ("", FirstChange(before));
}

} // namespace
