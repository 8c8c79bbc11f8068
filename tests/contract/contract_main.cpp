#include "fixture.h"

#include <thread>

int main(int argc, char **argv)
{
    pm_launcher_main(argc, argv);
    contract::MaybePlayRole(argc, argv);
    // Sanitizers start a thread of their own with the first one: not to be counted as a leak.
    std::thread([] {}).join();
    // Nor is what a stand-in of kqueue keeps from the first manager on (tests/support/kqueue).
    pm_options options = PM_OPTIONS_INIT;
    pm_manager *manager = nullptr;
    if (pm_open(&options, &manager, nullptr) == PM_OK) {
        pm_close(manager, 5000, nullptr);
    }
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
