// The growing string of the core.

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "c_headers.h"

namespace
{

std::string Take(pmi_strbuf *sb)
{
    char *text = pmi_strbuf_take(sb);
    EXPECT_NE(nullptr, text);
    std::string result = text != nullptr ? text : "";
    free(text);
    return result;
}

TEST(StringBuffer, GrowsAndHandsItsTextOverOnce)
{
    pmi_strbuf sb = PMI_STRBUF_INIT;
    std::string expected;
    for (int i = 0; i < 1000; i++) {
        pmi_strbuf_add(&sb, "ab");
        pmi_strbuf_add_char(&sb, 'c');
        pmi_strbuf_addf(&sb, "%d", i);
        expected += "abc" + std::to_string(i);
        ASSERT_EQ(expected.size(), sb.length);
        ASSERT_STREQ(expected.c_str(), sb.text);
    }
    EXPECT_EQ(expected, Take(&sb));
    EXPECT_EQ("", Take(&sb)) << "nothing added is an empty text, not a failure";
}

TEST(StringBuffer, TakesBytesOfAnyValueAndNone)
{
    pmi_strbuf sb = PMI_STRBUF_INIT;
    std::string bytes;
    for (int c = 0; c < 256; c++) {
        bytes += static_cast<char>(c);
    }
    pmi_strbuf_add_bytes(&sb, bytes.data(), bytes.size());
    pmi_strbuf_add_bytes(&sb, bytes.data(), 0);
    ASSERT_EQ(bytes.size(), sb.length);
    EXPECT_EQ(bytes, std::string(sb.text, sb.length));
    EXPECT_EQ('\0', sb.text[sb.length]);
    pmi_strbuf_free(&sb);
    EXPECT_EQ(nullptr, sb.text);
}

TEST(StringBuffer, FormatsTextOfAnyLength)
{
    for (size_t length : {0u, 1u, 254u, 255u, 256u, 257u, 5000u}) {
        pmi_strbuf sb = PMI_STRBUF_INIT;
        std::string text(length, 'x');
        pmi_strbuf_addf(&sb, "[%s]", text.c_str());
        EXPECT_EQ(length + 2, sb.length);
        EXPECT_EQ("[" + text + "]", Take(&sb)) << length;
    }
}

TEST(StringBuffer, RemembersThatMemoryRanOut)
{
    for (size_t size : {SIZE_MAX, SIZE_MAX - 40, SIZE_MAX / 2, SIZE_MAX / 4}) {
        pmi_strbuf sb = PMI_STRBUF_INIT;
        pmi_strbuf_add(&sb, "before");
        pmi_strbuf_add_bytes(&sb, "x", size); // Fails before it reads a byte.
        EXPECT_TRUE(sb.failed) << size;
        pmi_strbuf_add(&sb, "after");
        pmi_strbuf_addf(&sb, "%s", "after");
        EXPECT_EQ(nullptr, pmi_strbuf_take(&sb));
        pmi_strbuf_add(&sb, "anew");
        EXPECT_EQ("anew", Take(&sb)) << "a buffer that was taken is a new one";
    }
}

} // namespace
