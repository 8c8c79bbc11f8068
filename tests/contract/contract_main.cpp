#include "fixture.h"

#include <thread>

int main(int argc, char **argv)
{
    pm_launcher_main(argc, argv);
    contract::MaybePlayRole(argc, argv);
    // Sanitizers start a thread of their own with the first one: not to be counted as a leak.
    std::thread([] {}).join();
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
