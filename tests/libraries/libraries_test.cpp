#include "libraries.h"

#include <cstdlib>
#include <gtest/gtest.h>
#include <string>

TEST(Libraries, ALoopOfLibuvRunsItsTimer)
{
    EXPECT_EQ(3, use_libuv());
}

TEST(Libraries, JanssonWritesAnObject)
{
    char *text = use_jansson();
    ASSERT_NE(nullptr, text);
    EXPECT_EQ("{\"list\":[7,true,null],\"name\":\"Zo\xc3\xab\"}", std::string(text));
    std::free(text);
}

TEST(Libraries, MicrohttpdAnswersAClientOfLibuv)
{
    char answer[256] = "";
    EXPECT_EQ(0, use_microhttpd("{\"processes\":[]}", answer, sizeof answer));
    EXPECT_STREQ("{\"processes\":[]}", answer);
}
