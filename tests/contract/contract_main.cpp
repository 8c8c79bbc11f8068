#include "fixture.h"

int main(int argc, char **argv)
{
    pm_launcher_main(argc, argv);
    contract::MaybePlayRole(argc, argv);
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
