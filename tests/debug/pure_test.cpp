// What becomes of text from outside.
#include <gtest/gtest.h>

extern "C" {
#include "debug/server.h"
}

#include <cstdlib>
#include <string>

namespace
{

std::string Redact(const char *argument, bool *ret_skip = nullptr)
{
    static const char *const more[] = {"zauber", nullptr};
    bool skip = false;
    char *text = pmi_redact(argument, more, &skip);
    std::string copy = text;
    free(text);
    if (ret_skip != nullptr)
        *ret_skip = skip;
    return copy;
}

TEST(Redact, BlotsOutValuesOfNamesThatSaySo)
{
    for (const char *name :
         {"--password", "--db-password", "PASSWORD", "--token", "--api-key", "--secret", "AUTH",
          "Authorization", "--cookie", "aws_secret_access_key", "--private-key", "--client-secret",
          "--zauberwort", "-Dspring.datasource.password", "sessionid", "--pwd", "passwd"}) {
        EXPECT_EQ(std::string(name) + "=***", Redact((std::string(name) + "=canary").c_str()));
        EXPECT_EQ(std::string(name) + ":***", Redact((std::string(name) + ": canary").c_str()));
    }
}

TEST(Redact, BlotsOutTheArgumentAfterSuchAnOption)
{
    bool skip = false;
    for (const char *option : {"--password", "-password", "--token", "--api-key", "-u", "--user"}) {
        EXPECT_EQ(option, Redact(option, &skip));
        EXPECT_TRUE(skip) << option;
    }
    for (const char *option : {"--verbose", "password", "-v", "--password=x", ""}) {
        Redact(option, &skip);
        EXPECT_FALSE(skip) << option;
    }
}

TEST(Redact, BlotsOutWhatLooksLikeASecret)
{
    EXPECT_EQ("https://***@example.com/path", Redact("https://user:pw@example.com/path"));
    EXPECT_EQ("postgres://***@db:5432/x", Redact("postgres://u:p@ss@db:5432/x"));
    EXPECT_EQ("-p***", Redact("-pcanary"));
    EXPECT_EQ("***", Redact("ghp_0123456789abcdefghijABCDEFGHIJ012345"));
    EXPECT_EQ("x ***", Redact("x eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9"));
    EXPECT_EQ("--header=x ***", Redact("--header=x 0123456789abcdef0123456789abcdef"));
}

TEST(Redact, LeavesTheRest)
{
    for (const char *plain :
         {"--verbose", "/usr/bin/program", "--port=8080", "file.txt", "a=b", "", "-", "--", "-v",
          "https://example.com/a/b?c=d", "a-rather-long-name-without-digits",
          "/opt/python3.11/lib/site-packages/x", "\xff\xfe", "=", ":", "name:"})
        EXPECT_EQ(plain, Redact(plain)) << plain;
}

std::string Utf8(const char *bytes)
{
    char *text = pmi_text_as_utf8(bytes);
    std::string copy = text;
    free(text);
    return copy;
}

TEST(Text, KeepsUtf8AndEscapesTheRest)
{
    EXPECT_EQ("plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80",
              Utf8("plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80"));
    EXPECT_EQ("\x01\x1b\x7f", Utf8("\x01\x1b\x7f"));
    EXPECT_EQ("\\xff", Utf8("\xff"));
    EXPECT_EQ("\\xc3", Utf8("\xc3")) << "cut";
    EXPECT_EQ("\\xe2\\x82", Utf8("\xe2\x82"));
    EXPECT_EQ("\\xc0\\x80", Utf8("\xc0\x80")) << "overlong";
    EXPECT_EQ("\\xed\\xa0\\x80", Utf8("\xed\xa0\x80")) << "a surrogate";
    EXPECT_EQ("\\xf4\\x90\\x80\\x80", Utf8("\xf4\x90\x80\x80")) << "beyond the last";
    EXPECT_EQ("", Utf8(""));
}

TEST(Text, GrowsAndRemembersWhatDidNotFit)
{
    struct pmi_text text = {};
    for (int i = 0; i < 10000; i++)
        pmi_text_addf(&text, "%d,", i);
    EXPECT_FALSE(text.failed);
    EXPECT_EQ(48890u, text.length);
    std::string longer(600, 'x');
    pmi_text_addf(&text, "%s", longer.c_str());
    EXPECT_TRUE(text.failed);
    pmi_text_free(&text);
}

} // namespace

int main(int argc, char **argv)
{
    testing::InitGoogleTest(&argc, argv);
    return RUN_ALL_TESTS();
}
