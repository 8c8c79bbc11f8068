#include "fixture.h"

#include <cstring>
#include <thread>
#ifndef _WIN32
#include <csignal>
#endif

// What tests/hosts/pm-host.c asks for and cannot do itself: a flag that does not survive exec.
static void BePoorHost()
{
#ifndef _WIN32
    const char *sigchld = getenv("PM_TEST_SIGCHLD");
    if (sigchld != nullptr && strcmp(sigchld, "nocldwait") == 0) {
        struct sigaction action = {};
        action.sa_handler = SIG_DFL;
        action.sa_flags = SA_NOCLDWAIT;
        sigaction(SIGCHLD, &action, nullptr);
    }
#endif
}

int main(int argc, char **argv)
{
    pm_launcher_main(argc, argv);
    contract::MaybePlayRole(argc, argv);
    BePoorHost();
    // Sanitizers start a thread of their own with the first one: not to be counted as a leak.
    std::thread([] {}).join();
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
