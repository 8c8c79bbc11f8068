// What a start must not do to its host. Where starts fork (no vfork-like clone), the copy has the
// host's buffers and handlers, and must leave them alone.
#include <cstdio>
#include <cstdlib>

#include <sys/resource.h>

#include "fixture.h"

extern "C" int pmi_os_random(void *buffer, size_t size);

using namespace contract;

namespace
{

class Start : public Contract
{
};

TEST_F(Start, LeavesTheHostsBuffersAlone)
{
    if (OnValgrind()) {
        GTEST_SKIP() << "the child has a copy of our memory: the stage does not come back";
    }
    Open();
    std::string path = folder + "/buffer";
    FILE *buffer = fopen(path.c_str(), "w");
    ASSERT_NE(nullptr, buffer);
    fputs("once", buffer);
    for (int i = 0; i < 3; i++) {
        Child child({"exit", "0"});
        child.spec.cwd = "/nonexistent";
        pm_process *process = nullptr;
        pm_error error = PM_ERROR_INIT;
        EXPECT_EQ(PM_ERR_NOT_FOUND, pm_spawn(manager, child.Get(), &process, &error));
        EXPECT_EQ(PM_STAGE_CHDIR, error.stage);
        pm_process *good = nullptr;
        child.spec.cwd = nullptr;
        int code = 0;
        good = TrySpawn(child, &code);
        ASSERT_EQ(PM_OK, code);
        EXPECT_EQ(0u, Wait(good).code);
    }
    fclose(buffer);
    EXPECT_EQ("once", ReadFile(path));
}

// Nonces need no descriptor, and no /dev.
TEST_F(Start, RandomNumbersNeedNoDescriptor)
{
    rlimit limit = {};
    ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
    rlimit none = {0, limit.rlim_max};
    uint64_t numbers[2] = {};
    ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
    int result = pmi_os_random(numbers, sizeof numbers);
    ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
    EXPECT_EQ(PM_OK, result);
    EXPECT_NE(numbers[0], numbers[1]);
}

} // namespace
