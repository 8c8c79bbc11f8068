// Threads of a loop that wait for their turn.
#include <gtest/gtest.h>

#include <functional>
#include <vector>

#ifndef _WIN32
#include <sys/resource.h>
#endif

extern "C" {
#include "runner/os.h"
#include "runner/post.h"
}

namespace
{

struct Work {
    struct post_thread thread = {};
    std::function<void()> block, after;
    bool dropped = false, begun = false, back = false;
};

class Post : public testing::Test
{
  protected:
    static void SetUpTestSuite()
    {
        os_begin(); // Descriptors below 3 may be closed, and no loop takes those.
    }
    void SetUp() override
    {
        ASSERT_EQ(uv_loop_init(&loop), 0);
        ASSERT_EQ(uv_sem_init(&gate, 0), 0);
        open(1);
    }
    void open(unsigned most)
    {
        post = post_open(&loop, most);
        ASSERT_NE(post, nullptr);
    }
    void close()
    {
        post_close(post);
        EXPECT_EQ(uv_run(&loop, UV_RUN_DEFAULT), 0);
        post_free(post);
    }
    void TearDown() override
    {
        close();
        EXPECT_EQ(uv_loop_close(&loop), 0);
        uv_sem_destroy(&gate);
    }
    int begin(Work &work, bool passes = false)
    {
        work.thread.user = &work;
        work.thread.passes = passes;
        work.thread.block = [](void *user) {
            auto *own = static_cast<Work *>(user);
            own->begun = true;
            if (own->block) {
                own->block();
            }
        };
        work.thread.after = [](void *user) {
            auto *own = static_cast<Work *>(user);
            own->back = true;
            own->dropped = own->thread.dropped;
            if (own->after) {
                own->after();
            }
        };
        return post_thread(post, &work.thread);
    }
    void until_back(const Work &work)
    {
        while (!work.back) {
            (void)uv_run(&loop, UV_RUN_ONCE);
        }
    }

    uv_loop_t loop = {};
    struct post *post = nullptr;
    uv_sem_t gate = {};
};

TEST_F(Post, OneAfterTheOther)
{
    std::vector<Work> all(5);
    for (Work &work : all) {
        ASSERT_EQ(begin(work), 0);
    }
    until_back(all.back());
    for (const Work &work : all) {
        EXPECT_TRUE(work.begun && work.back && !work.dropped);
    }
}

TEST_F(Post, WhoWaitsCanBeDroppedAndOthersWaitBehindThat)
{
    Work hangs, waits[2], later;
    hangs.block = [this] { uv_sem_wait(&gate); };
    ASSERT_EQ(begin(hangs), 0);
    ASSERT_EQ(begin(waits[0]), 0);
    ASSERT_EQ(begin(waits[1]), 0);
    post_drop_waiting(post);
    EXPECT_FALSE(waits[0].back) << "told in the caller's hands";
    ASSERT_EQ(begin(later), 0);
    until_back(waits[1]);
    for (const Work &work : waits) {
        EXPECT_TRUE(work.back && work.dropped && !work.begun);
    }
    EXPECT_FALSE(hangs.back || later.back);
    uv_sem_post(&gate);
    until_back(later);
    EXPECT_TRUE(hangs.back && !hangs.dropped && later.begun && !later.dropped);
}

TEST_F(Post, OneThatPassesWaitsForNobody)
{
    Work hangs, waits, passes;
    hangs.block = [this] { uv_sem_wait(&gate); };
    ASSERT_EQ(begin(hangs), 0);
    ASSERT_EQ(begin(waits), 0);
    ASSERT_EQ(begin(passes, true), 0);
    until_back(passes);
    EXPECT_TRUE(passes.begun && !hangs.back && !waits.begun);
    uv_sem_post(&gate);
    until_back(waits);
    EXPECT_TRUE(waits.begun);
}

#ifndef _WIN32
// No thread can be had: its stack would be larger than what there is of addresses.
class NoThreads
{
  public:
    NoThreads()
    {
        EXPECT_EQ(getrlimit(RLIMIT_STACK, &before), 0);
        rlimit huge = before;
        huge.rlim_cur = static_cast<rlim_t>(1) << 50;
        (void)setrlimit(RLIMIT_STACK, &huge);
    }
    ~NoThreads()
    {
        EXPECT_EQ(setrlimit(RLIMIT_STACK, &before), 0);
    }
    NoThreads(const NoThreads &) = delete;
    NoThreads &operator=(const NoThreads &) = delete;

  private:
    rlimit before = {};
};

bool threads_can_be_withheld()
{
    NoThreads none;
    uv_thread_t thread;
    if (uv_thread_create(
            &thread, [](void *) {}, nullptr) != 0) {
        return true;
    }
    (void)uv_thread_join(&thread);
    return false;
}

TEST_F(Post, OneThatGetsNoThreadWaitsOnWhileOthersRun)
{
    if (!threads_can_be_withheld()) {
        GTEST_SKIP() << "the system sets no limit of a stack";
    }
    Work first, hangs, waits;
    uv_thread_t loops = uv_thread_self(), ran = {};
    first.block = [this] { uv_sem_wait(&gate); };
    hangs.block = [this] { uv_sem_wait(&gate); };
    waits.block = [&ran] { ran = uv_thread_self(); };
    close();
    open(2);
    ASSERT_EQ(begin(first), 0);
    ASSERT_EQ(begin(hangs), 0);
    ASSERT_EQ(begin(waits), 0);
    {
        NoThreads none;
        uv_sem_post(&gate);
        while (!first.back && !hangs.back) {
            (void)uv_run(&loop, UV_RUN_ONCE);
        }
        EXPECT_FALSE(waits.begun) << "on the loop, though somebody runs";
    }
    uv_sem_post(&gate);
    until_back(waits);
    EXPECT_TRUE(first.back && hangs.back);
    EXPECT_FALSE(uv_thread_equal(&ran, &loops));
}

TEST_F(Post, OneThatGetsNoThreadRunsWhereNobodyElseComesBack)
{
    if (!threads_can_be_withheld()) {
        GTEST_SKIP() << "the system sets no limit of a stack";
    }
    Work first, waits;
    uv_thread_t loops = uv_thread_self(), ran = {};
    waits.block = [&ran] { ran = uv_thread_self(); };
    first.block = [this] { uv_sem_wait(&gate); };
    ASSERT_EQ(begin(first), 0);
    ASSERT_EQ(begin(waits), 0);
    {
        NoThreads none;
        uv_sem_post(&gate);
        until_back(waits);
    }
    EXPECT_TRUE(first.back && uv_thread_equal(&ran, &loops));
}
#endif

} // namespace
