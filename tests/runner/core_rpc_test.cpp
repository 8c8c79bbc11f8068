// What the control connection says and understands; and lines over one of another kind.
#include <gtest/gtest.h>

#include <csignal>
#include <cstring>
#include <string>

extern "C" {
#include "poddaemon/os.h"
#include "runner/lines.h"
#include "runner/os.h"
#include "runner/rpc.h"
#include "runner/text.h"
}

namespace
{

std::string text_of(json_t *message)
{
    size_t size = 0;
    char *line = rpc_line(message, &size);
    std::string text(line, size);
    free(line);
    return text;
}

// The code of the answer to a line that is no request; 0: it is one.
int refused_with(const std::string &line)
{
    struct rpc_request request;
    json_t *reply = nullptr;
    if (rpc_parse(line.data(), line.size(), &request, &reply) == 0) {
        rpc_request_clear(&request);
        return 0;
    }
    int code = (int)json_integer_value(json_object_get(json_object_get(reply, "error"), "code"));
    json_decref(reply);
    return code;
}

TEST(Rpc, TakesARequest)
{
    struct rpc_request request;
    json_t *reply;
    std::string line = R"({"jsonrpc":"2.0","id":7,"method":"a.b","params":{"x":1}})";
    ASSERT_EQ(rpc_parse(line.data(), line.size(), &request, &reply), 0);
    EXPECT_STREQ(request.method, "a.b");
    EXPECT_EQ(json_integer_value(request.id), 7);
    EXPECT_EQ(json_integer_value(json_object_get(request.params, "x")), 1);
    rpc_request_clear(&request);
}

TEST(Rpc, RefusesWhatIsNoRequest)
{
    EXPECT_EQ(refused_with(""), RPC_PARSE_ERROR);
    EXPECT_EQ(refused_with("{"), RPC_PARSE_ERROR);
    EXPECT_EQ(refused_with("nonsense"), RPC_PARSE_ERROR);
    EXPECT_EQ(refused_with(std::string("\xff\xfe\0", 3)), RPC_PARSE_ERROR);
    EXPECT_EQ(refused_with(std::string(100000, '[')), RPC_PARSE_ERROR);
    EXPECT_EQ(refused_with(R"({"jsonrpc":"2.0","jsonrpc":"2.0","method":"a"})"), RPC_PARSE_ERROR);
    EXPECT_EQ(refused_with("[]"), RPC_INVALID_REQUEST);
    EXPECT_EQ(refused_with("{}"), RPC_INVALID_REQUEST);
    EXPECT_EQ(refused_with(R"({"jsonrpc":"1.0","method":"a"})"), RPC_INVALID_REQUEST);
    EXPECT_EQ(refused_with(R"({"jsonrpc":"2.0","method":5})"), RPC_INVALID_REQUEST);
    EXPECT_EQ(refused_with(R"({"jsonrpc":"2.0","id":{},"method":"a"})"), RPC_INVALID_REQUEST);
    EXPECT_EQ(refused_with(R"({"jsonrpc":"2.0","id":1,"method":"a","params":[1]})"),
              RPC_INVALID_PARAMS);
    EXPECT_EQ(refused_with(R"({"jsonrpc":"2.0","method":"a"})"), 0) << "a notification";
}

TEST(Rpc, AnErrorKeepsWhatWhyAndNext)
{
    struct runner_error error, got;
    json_t *result = nullptr, *id = json_integer(3);
    (void)runner_fail(&error, RUNNER_EXISTS, "start of 'x'\nit is there\nrunner attach x");
    std::string line = text_of(rpc_error(id, &error));
    EXPECT_EQ(rpc_take_reply(line.data(), line.size() - 1, 3, &result, &got), RUNNER_EXISTS);
    EXPECT_STREQ(got.what, "start of 'x'");
    EXPECT_STREQ(got.why, "it is there");
    EXPECT_STREQ(got.next, "runner attach x");
    json_decref(id);
}

TEST(Rpc, AnErrorOfAnyBytesKeepsWhatWhyAndNext)
{
    struct runner_error error, got;
    json_t *result = nullptr, *id = json_integer(3);
    (void)runner_fail(&error, RUNNER_FAILED, "start \xff\nbad \xff words\nrunner get \xc3\xa4");
    std::string why = error.why;
    for (int i = 0; why.size() + 1 < sizeof error.why; i++) { // Cut wherever its room ends.
        why += i % 3 == 0 ? "\xc3\xbc" : i % 3 == 1 ? "\xe2\x82\xac" : "\xf0\x9f\x98\x80";
        (void)snprintf(error.why, sizeof error.why, "%s", why.c_str());
        error.bytes = i - 1;
        std::string line = text_of(rpc_error(id, &error));
        EXPECT_EQ(rpc_take_reply(line.data(), line.size() - 1, 3, &result, &got), RUNNER_FAILED);
        EXPECT_STREQ(got.what, "start ?");
        EXPECT_EQ(std::string(got.why).substr(0, 11), "bad ? words");
        EXPECT_GE(strlen(got.why) + 4, strlen(error.why)) << "no more than a letter is missing";
        EXPECT_STREQ(got.next, "runner get \xc3\xa4");
        EXPECT_EQ(got.bytes, i - 1);
    }
    json_decref(id);
}

TEST(Text, IsMendedWhereItIsNoneAndWhereverItWasCut)
{
    const std::string letters = "a\xc3\xbc\xe2\x82\xac\xf0\x9f\x98\x80z";
    const size_t whole[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11};
    for (size_t size = 0; size <= letters.size(); size++) {
        std::string text = letters.substr(0, size);
        text_mend(text.data());
        EXPECT_EQ(std::string(text.c_str()), letters.substr(0, whole[size])) << size;
    }
    const struct {
        const char *text, *mended;
    } cases[] = {
        {"", ""},
        {"\xff", "?"},
        {"a\x80z", "a?z"},
        {"\xc3z", "?z"},
        {"\xc0\x80", "??"},           // Too long a form.
        {"\xed\xa0\x80.", "???."},    // A surrogate.
        {"\xf4\x90\x80\x80", "????"}, // Beyond the last one.
        {"\xf8\x80", "??"},           // No letter begins so.
        {"\xe2\x82\xe2\x82\xac", "??\xe2\x82\xac"},
    };
    for (const auto &c : cases) {
        std::string text = c.text;
        text_mend(text.data());
        EXPECT_STREQ(text.c_str(), c.mended);
        json_t *json = text_json(c.text);
        EXPECT_STREQ(json_string_value(json), c.mended);
        json_decref(json);
    }
}

TEST(Rpc, AnAnswerToAnotherCallIsNone)
{
    struct runner_error error;
    json_t *result = nullptr, *id = json_integer(3);
    std::string line = text_of(rpc_result(id, json_object()));
    EXPECT_EQ(rpc_take_reply(line.data(), line.size(), 4, &result, &error), RUNNER_FAILED);
    EXPECT_EQ(rpc_take_reply(line.data(), line.size(), 3, &result, &error), RUNNER_OK);
    json_decref(result);
    json_decref(id);
}

TEST(Rpc, ParametersAreChecked)
{
    static const struct rpc_field fields[] = {
        {"id", RPC_STRING, true, 1, 5},
        {"n", RPC_NUMBER, false, 1, 10},
        {"list", RPC_STRINGS, false, 0, 0},
        {"labels", RPC_OBJECT, false, 0, 0},
    };
    const struct {
        const char *params;
        int code;
    } cases[] = {
        {R"({"id":"a"})", RUNNER_OK},
        {R"({"id":"a","n":10,"list":["x"],"labels":{"a":"b"}})", RUNNER_OK},
        {R"({})", RUNNER_USAGE},
        {R"({"id":5})", RUNNER_USAGE},
        {R"({"id":"abcdef"})", RUNNER_USAGE},
        {R"({"id":"a","n":0})", RUNNER_USAGE},
        {R"({"id":"a","n":11})", RUNNER_USAGE},
        {R"({"id":"a","n":1.5})", RUNNER_USAGE},
        {R"({"id":"a","list":[1]})", RUNNER_USAGE},
        {R"({"id":"a","list":{}})", RUNNER_USAGE},
        {R"({"id":"a","labels":{"a":1}})", RUNNER_USAGE},
        {R"({"id":"a","other":1})", RUNNER_USAGE},
    };
    for (const auto &c : cases) {
        struct runner_error error;
        json_t *params = json_loads(c.params, 0, nullptr);
        EXPECT_EQ(RPC_CHECK(params, fields, &error), c.code) << c.params;
        json_decref(params);
    }
}

TEST(Rpc, IdsOfSessions)
{
    EXPECT_TRUE(rpc_valid_id("a"));
    EXPECT_TRUE(rpc_valid_id("Bot 7 / \xc3\xa4"));
    EXPECT_TRUE(rpc_valid_id(std::string(128, 'x').c_str()));
    EXPECT_FALSE(rpc_valid_id(""));
    EXPECT_FALSE(rpc_valid_id("-x"));
    EXPECT_FALSE(rpc_valid_id("a\nb"));
    EXPECT_FALSE(rpc_valid_id("a\x7f"));
    EXPECT_FALSE(rpc_valid_id(std::string(129, 'x').c_str()));
}

TEST(Rpc, Base64ThereAndBack)
{
    std::string data;
    for (int i = 0; i < 256; i++) {
        data += (char)i;
        char *text = rpc_base64_encode(data.data(), data.size());
        size_t size = 0;
        unsigned char *back = rpc_base64_decode(text, &size);
        ASSERT_NE(back, nullptr);
        EXPECT_EQ(std::string((char *)back, size), data);
        free(back);
        free(text);
    }
    for (const char *bad : {"a", "ab", "abc", "====", "a===", "ab=c", "a b=", "\xff\xff\xff\xff"}) {
        size_t size;
        EXPECT_EQ(rpc_base64_decode(bad, &size), nullptr) << bad;
    }
}

struct end {
    struct lines *lines;
    std::string said;
    bool closed;
};

void on_line(void *user, const char *line, size_t size)
{
    ((struct end *)user)->said.append(line, size);
}

void on_closed(void *user, int)
{
    ((struct end *)user)->closed = true;
}

void open_end(uv_loop_t *loop, pm_native native, struct end *end)
{
    struct lines_handler handler = {on_line, on_closed, end, 0};
    uv_pipe_t *pipe = (uv_pipe_t *)malloc(sizeof *pipe);
    ASSERT_EQ(uv_pipe_init(loop, pipe, 0), 0);
    ASSERT_EQ(os_pipe_open(pipe, native), 0);
    end->lines = lines_open(pipe, &handler);
    ASSERT_NE(end->lines, nullptr);
}

void say(const struct end *end, const char *text)
{
    size_t size = strlen(text);
    char *copy = (char *)malloc(size);
    memcpy(copy, text, size);
    lines_write(end->lines, copy, size);
}

TEST(Lines, AWriteThatFailsLosesNothingOfWhatWasSaidBefore)
{
    uv_loop_t loop;
    pm_native natives[2];
    struct end one = {}, other = {};
#ifndef _WIN32
    (void)signal(SIGPIPE, SIG_IGN); // As os_begin() does.
#endif
    ASSERT_EQ(uv_loop_init(&loop), 0);
    ASSERT_EQ(pod_birth_pair(&natives[0], &natives[1]), PM_OK);
    open_end(&loop, natives[0], &one);
    say(&one, "why\n");
    lines_finish(one.lines);
    while (!one.closed) {
        (void)uv_run(&loop, UV_RUN_ONCE);
    }
    open_end(&loop, natives[1], &other);
    say(&other, "too late\n");
    while (!other.closed) {
        (void)uv_run(&loop, UV_RUN_ONCE);
    }
    EXPECT_EQ(other.said, "why");
    EXPECT_EQ(uv_loop_close(&loop), 0);
}

} // namespace
