// Services without any child: lines, messages, restarts, configuration.
#include <gtest/gtest.h>

#include <algorithm>
#include <climits>
#include <cstring>
#include <string>
#include <vector>

#ifndef _WIN32
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <cstdlib>
#include <unistd.h>
#endif

extern "C" {
#include "runner/os.h"

#include "runner/feed.h"
#include "runner/jsonplace.h"
#include "runner/memory.h"
#include "runner/message.h"
#include "runner/peer.h"
#include "runner/podjournal.h"
#include "runner/restart.h"
#include "runner/service_config.h"
#include "runner/service_log.h"
#include "runner/tree.h"
}

namespace
{

// ---- lines --------------------------------------------------------------------------------------

struct Lines {
    std::vector<std::string> lines;
    std::vector<uint64_t> ends, dropped;

    static bool take(void *user, const char *line, size_t size, uint64_t end)
    {
        auto *self = static_cast<Lines *>(user);
        if (line == nullptr) {
            self->dropped.push_back(size);
        } else {
            EXPECT_EQ(line[size], '\0');
            self->lines.emplace_back(line, size);
        }
        self->ends.push_back(end);
        return true;
    }
};

TEST(Feed, TakesLinesApartHoweverTheyCome)
{
    const std::string text = "one\r\n\ntwo\nthree\xff\nlast";
    for (size_t step = 1; step <= text.size(); step++) {
        struct feed feed = {};
        Lines got;
        for (size_t at = 0; at < text.size(); at += step) {
            size_t some = std::min(step, text.size() - at);
            ASSERT_TRUE(feed_copy(&feed, text.data() + at, some, Lines::take, &got));
        }
        EXPECT_EQ(got.lines, (std::vector<std::string>{"one", "", "two", "three\xff"})) << step;
        EXPECT_EQ(got.ends, (std::vector<uint64_t>{5, 6, 10, 17})) << step;
        EXPECT_EQ(feed.have, 4u);
        feed_clear(&feed);
    }
}

TEST(Feed, TakesALineOfTheLimitAndDropsALongerOne)
{
    for (size_t step : {1u, 7u, 4096u, 100000u}) {
        struct feed feed = {};
        feed.line_max = 10000;
        Lines got;
        std::string text = std::string(10000, 'a') + "\n" + std::string(10001, 'b') + "\n" +
                           std::string(500000, 'c') + "\nshort\n" + std::string(10000, 'd') +
                           "\r\n";
        for (size_t at = 0; at < text.size(); at += step) {
            size_t some = std::min(step, text.size() - at);
            ASSERT_TRUE(feed_copy(&feed, text.data() + at, some, Lines::take, &got));
            ASSERT_LT(feed.capacity, 300000u) << "what is dropped is not kept";
        }
        ASSERT_EQ(got.lines.size(), 3u) << step;
        EXPECT_EQ(got.lines[0].size(), 10000u);
        EXPECT_EQ(got.lines[1], "short");
        EXPECT_EQ(got.lines[2].size(), 10000u);
        EXPECT_EQ(got.dropped, (std::vector<uint64_t>{10001, 500000})) << step;
        EXPECT_EQ(got.ends.back(), text.size());
        feed_clear(&feed);
    }
}

TEST(Feed, ReadsTenMebibytesAtOnceAndKeepsNothing)
{
    struct feed feed = {};
    Lines got;
    std::string text(FEED_LINE_MAX, 'x');
    text += '\n';
    for (size_t at = 0; at < text.size(); at += 65536) {
        feed_copy(&feed, text.data() + at, std::min<size_t>(65536, text.size() - at), Lines::take,
                  &got);
    }
    ASSERT_EQ(got.lines.size(), 1u);
    EXPECT_EQ(got.lines[0].size(), FEED_LINE_MAX);
    EXPECT_EQ(feed.capacity, 0u);
    feed_clear(&feed);
}

TEST(Feed, BeginsAgainAtALineAfterAGap)
{
    struct feed feed = {};
    Lines got;
    ASSERT_TRUE(feed_copy(&feed, "half of", 7, Lines::take, &got));
    feed_gap(&feed, 100);
    ASSERT_TRUE(feed_copy(&feed, " another\nwhole\n", 15, Lines::take, &got));
    EXPECT_EQ(got.lines, (std::vector<std::string>{"whole"}));
    EXPECT_EQ(got.ends, (std::vector<uint64_t>{109, 115}));
    feed_clear(&feed);
}

// ---- messages -----------------------------------------------------------------------------------

enum message_kind kind_of(const std::string &line)
{
    json_t *json = nullptr;
    enum message_kind kind = message_read(line.data(), line.size(), &json);
    json_decref(json);
    return kind;
}

TEST(Message, IsKnownByItsMembers)
{
    EXPECT_EQ(kind_of(""), MESSAGE_BLANK);
    EXPECT_EQ(kind_of(" \t"), MESSAGE_BLANK);
    EXPECT_EQ(kind_of("Listening on stdio"), MESSAGE_NONE);
    EXPECT_EQ(kind_of("{"), MESSAGE_NONE);
    EXPECT_EQ(kind_of("5"), MESSAGE_NONE);
    EXPECT_EQ(kind_of("{}"), MESSAGE_NONE);
    EXPECT_EQ(kind_of(R"({"method":5,"id":1})"), MESSAGE_NONE);
    EXPECT_EQ(kind_of(R"({"id":1})"), MESSAGE_NONE);
    EXPECT_EQ(kind_of(R"({"id":null,"method":"a"})"), MESSAGE_REQUEST);
    EXPECT_EQ(kind_of(R"({"id":"x","method":"a","params":[1]})"), MESSAGE_REQUEST);
    EXPECT_EQ(kind_of(R"({"method":"a"})"), MESSAGE_NOTIFICATION);
    EXPECT_EQ(kind_of(R"({"id":1,"result":null})"), MESSAGE_ANSWER);
    EXPECT_EQ(kind_of(R"({"id":1,"error":{"code":1}})"), MESSAGE_ANSWER);
    EXPECT_EQ(kind_of(R"([{"method":"a"}])"), MESSAGE_BATCH);
    EXPECT_EQ(kind_of(R"({"method":"a","params":{"n":123456789012345678901234}})"),
              MESSAGE_NOTIFICATION);
    EXPECT_EQ(kind_of("{\"method\":\"a\",\"params\":{\"n\":\"\\u0000\"}}"), MESSAGE_NOTIFICATION);
}

TEST(Message, IdsTellTheRunThatGaveThem)
{
    static const char run[] = "0123456789abcdef", another[] = "0123456789acffff";
    char id[MESSAGE_ID_MAX];
    bool ours = false;
    message_id(id, run, UINT64_MAX);
    EXPECT_STREQ(id, "0123456789ab-18446744073709551615");
    json_t *json = json_string(id);
    ASSERT_TRUE(message_id_read(json, run, &ours));
    EXPECT_TRUE(ours);
    ASSERT_TRUE(message_id_read(json, another, &ours));
    EXPECT_FALSE(ours);
    json_decref(json);
    for (const char *other : {"", "0123456789ab", "0123456789ab-", "-7", "0123456789ab-1x",
                              "0123456789ab-01", "0123456789aB-1", "0123456789a-1", "7-1"}) {
        json = json_string(other);
        EXPECT_FALSE(message_id_read(json, run, &ours)) << other;
        json_decref(json);
    }
    json = json_integer(7);
    EXPECT_FALSE(message_id_read(json, run, &ours));
    json_decref(json);
}

std::string text_of(json_t *message)
{
    size_t size = 0;
    char *line = rpc_line(message, &size);
    std::string text(line, size);
    free(line);
    return text;
}

TEST(Message, ANumberThatIsTooLargeChangesNoOther)
{
    const std::string line = "{\"id\":7,\"method\":\"a\",\"params\":[9223372036854775807,"
                             "9223372036854775808,-9223372036854775808,-9223372036854775809 ,1,"
                             "\"12345678901234567890\\\"12345678901234567890\",1.5]}";
    json_t *json = nullptr;
    ASSERT_EQ(message_read(line.data(), line.size(), &json), MESSAGE_REQUEST);
    EXPECT_TRUE(json_is_integer(json_object_get(json, "id")));
    const json_t *params = json_object_get(json, "params");
    for (size_t i = 0; i < 5; i++) {
        EXPECT_EQ(json_is_integer(json_array_get(params, i)), i != 1 && i != 3) << i;
    }
    EXPECT_STREQ(json_string_value(json_array_get(params, 5)),
                 "12345678901234567890\"12345678901234567890");
    json_decref(json);
}

TEST(Message, AnErrorThatIsNullIsNone)
{
    json_t *json = json_loads(R"({"id":1,"result":{},"error":null})", 0, nullptr);
    EXPECT_EQ(message_kind_of(json), MESSAGE_ANSWER);
    EXPECT_EQ(message_fault(json), nullptr);
    json_decref(json);
}

TEST(Message, IsWrittenAsItIsRead)
{
    EXPECT_EQ(text_of(message_request("1-1", "a", json_pack("[i]", 5))),
              "{\"jsonrpc\":\"2.0\",\"id\":\"1-1\",\"method\":\"a\",\"params\":[5]}\n");
    EXPECT_EQ(text_of(message_notification("a", nullptr)),
              "{\"jsonrpc\":\"2.0\",\"method\":\"a\"}\n");
    json_t *id = json_real(1.5);
    EXPECT_EQ(text_of(message_result(id, json_true())),
              "{\"jsonrpc\":\"2.0\",\"id\":1.5,\"result\":true}\n");
    EXPECT_EQ(text_of(message_error(id, -32601, "no")),
              "{\"jsonrpc\":\"2.0\",\"id\":1.5,\"error\":{\"code\":-32601,\"message\":\"no\"}}\n");
    json_decref(id);
}

// ---- handshakes ---------------------------------------------------------------------------------

const char *check(enum service_kind kind, const char *text)
{
    json_t *json = json_loads(text, 0, nullptr);
    const char *wrong = handshake_check(kind, json);
    json_decref(json);
    return wrong;
}

TEST(Handshake, AgreesOnAVersionOrRefuses)
{
    EXPECT_EQ(check(SERVICE_MCP, R"({"protocolVersion":"2025-11-25"})"), nullptr);
    EXPECT_EQ(check(SERVICE_MCP, R"({"protocolVersion":"2024-11-05"})"), nullptr);
    EXPECT_NE(check(SERVICE_MCP, R"({"protocolVersion":"1999-01-01"})"), nullptr);
    EXPECT_NE(check(SERVICE_MCP, "{}"), nullptr);
    EXPECT_EQ(check(SERVICE_ACP, R"({"protocolVersion":1})"), nullptr);
    EXPECT_NE(check(SERVICE_ACP, R"({"protocolVersion":2})"), nullptr);
    EXPECT_NE(check(SERVICE_ACP, R"({"protocolVersion":"1"})"), nullptr);
}

std::string permission(const char *options, bool allow)
{
    std::string text = std::string(R"({"params":{"options":)") + options + "}}";
    json_t *request = json_loads(text.c_str(), 0, nullptr);
    json_t *result = handshake_permission(request, allow);
    const json_t *outcome = json_object_get(result, "outcome");
    const char *id = json_string_value(json_object_get(outcome, "optionId"));
    std::string told = id != nullptr ? id : json_string_value(json_object_get(outcome, "outcome"));
    json_decref(result);
    json_decref(request);
    return told;
}

TEST(Handshake, PermissionTakesTheSmallestOptionOfItsKind)
{
    const char *all =
        R"([{"optionId":"aa","kind":"allow_always"},{"optionId":"ao","kind":"allow_once"},
                         {"optionId":"ra","kind":"reject_always"},{"optionId":"ro","kind":"reject_once"}])";
    EXPECT_EQ(permission(all, true), "ao");
    EXPECT_EQ(permission(all, false), "ro");
    EXPECT_EQ(permission(R"([{"optionId":"aa","kind":"allow_always"}])", true), "aa");
    EXPECT_EQ(permission(R"([{"optionId":"aa","kind":"allow_always"}])", false), "cancelled");
    EXPECT_EQ(permission("[]", true), "cancelled");
    EXPECT_EQ(permission("5", true), "cancelled");
}

std::string cancel(enum service_kind kind, const char *method, const char *params)
{
    json_t *given = json_loads(params, 0, nullptr), *told = nullptr;
    std::string text = handshake_cancel(kind, "1-2", method, given, "why", &told);
    char *dump = json_dumps(told, JSON_COMPACT);
    text += std::string(" ") + dump;
    free(dump);
    json_decref(told);
    json_decref(given);
    return text;
}

TEST(Handshake, CancelsInTheWordsOfTheProtocol)
{
    EXPECT_EQ(cancel(SERVICE_MCP, "tools/call", "{}"),
              R"(notifications/cancelled {"requestId":"1-2","reason":"why"})");
    EXPECT_EQ(cancel(SERVICE_ACP, "session/prompt", R"({"sessionId":"s"})"),
              R"(session/cancel {"sessionId":"s"})");
    EXPECT_EQ(cancel(SERVICE_ACP, "session/load", R"({"sessionId":"s"})"),
              R"($/cancel_request {"requestId":"1-2"})");
}

// ---- restarts -----------------------------------------------------------------------------------

struct Restarts {
    struct restart restart = {};
    struct restart_options options = {};
    uint64_t now = 1000000;
    uint32_t delay = 0;

    enum restart_verdict end(bool clean = false, uint64_t uptime = 10)
    {
        const struct restart_end e = {clean, uptime, now};
        return restart_decide(&restart, &options, &e, &delay);
    }
};

TEST(Restart, PolicyDecidesAndASignalIsNeverClean)
{
    Restarts r;
    r.options.policy = RESTART_NEVER;
    EXPECT_EQ(r.end(false), RESTART_REST);
    EXPECT_EQ(r.end(true), RESTART_REST);
    r.options.policy = RESTART_ON_FAILURE;
    EXPECT_EQ(r.end(true), RESTART_REST);
    EXPECT_EQ(r.end(false), RESTART_WAIT);
    r.options.policy = RESTART_ALWAYS;
    EXPECT_EQ(r.end(true), RESTART_WAIT);
}

TEST(Restart, WaitsLongerEachTimeUpToTheLongest)
{
    Restarts r;
    r.options.backoff_ms = 100;
    r.options.backoff_max_ms = 1500;
    for (uint32_t most : {100u, 200u, 400u, 800u, 1500u, 1500u, 1500u}) {
        ASSERT_EQ(r.end(), RESTART_WAIT);
        EXPECT_LE(r.delay, most);
        EXPECT_GE(r.delay, most / 2);
    }
    ASSERT_EQ(r.end(false, RESTART_STEADY_MS), RESTART_WAIT);
    EXPECT_LE(r.delay, 100u) << "a steady run begins anew";
}

TEST(Restart, ManyEndsNeverOverflowTheWait)
{
    Restarts r;
    for (int i = 0; i < 1000; i++) {
        r.now += 1000;
        ASSERT_EQ(r.end(), RESTART_WAIT);
        ASSERT_LE(r.delay, RESTART_BACKOFF_MAX_MS);
        ASSERT_GE(r.delay, RESTART_BACKOFF_MS / 2);
    }
}

TEST(Restart, JitterComesFromItsSeedAlone)
{
    Restarts a, b, c;
    a.restart.random = b.restart.random = 42;
    c.restart.random = 43;
    bool differs = false;
    for (int i = 0; i < 20; i++) {
        a.end();
        b.end();
        c.end();
        EXPECT_EQ(a.delay, b.delay);
        differs = differs || a.delay != c.delay;
    }
    EXPECT_TRUE(differs);
}

TEST(Restart, TheThirdEndWithinTheWindowOpensTheBreaker)
{
    Restarts r;
    r.options.crashes = 3;
    r.options.window_ms = 300000;
    EXPECT_EQ(r.end(), RESTART_WAIT);
    r.now += 100000;
    EXPECT_EQ(r.end(), RESTART_WAIT);
    r.now += 199999;
    EXPECT_EQ(r.end(), RESTART_BREAK) << "one millisecond within";
    restart_forget(&r.restart);
    EXPECT_EQ(r.end(), RESTART_WAIT);
    r.now += 100000;
    EXPECT_EQ(r.end(), RESTART_WAIT);
    r.now += 200000;
    EXPECT_EQ(r.end(), RESTART_WAIT) << "the first is out of the window";
    r.now += 1;
    EXPECT_EQ(r.end(), RESTART_BREAK);
}

// ---- configuration ------------------------------------------------------------------------------

struct json_place place(const std::string &text, std::vector<struct json_step> steps)
{
    return json_place_of(text.data(), text.size(), steps.data(), steps.size());
}

TEST(JsonPlace, FindsKeysAndItems)
{
    const std::string text = "\n{ \"a\": {\"x\": [1, {\"}\": \"]\\\"\"},\n  \"y\"]},\n"
                             "  \"b\":\n {\"x\": null ,\n\n  \"\\u0061b\": 5}}";
    auto at = [&](std::vector<struct json_step> steps) {
        struct json_place p = place(text, std::move(steps));
        return std::make_pair(p.line, p.column);
    };
    EXPECT_EQ(at({}), std::make_pair(2u, 1u));
    EXPECT_EQ(at({{"a", 0}}), std::make_pair(2u, 3u));
    EXPECT_EQ(at({{"a", 0}, {"x", 0}}), std::make_pair(2u, 9u));
    EXPECT_EQ(at({{"a", 0}, {"x", 0}, {nullptr, 2}}), std::make_pair(3u, 3u));
    EXPECT_EQ(at({{"b", 0}}), std::make_pair(4u, 3u));
    EXPECT_EQ(at({{"b", 0}, {"x", 0}}), std::make_pair(5u, 3u));
    EXPECT_EQ(at({{"b", 0}, {"ab", 0}}), std::make_pair(7u, 3u)) << "a key with an escape";
    EXPECT_EQ(at({{"b", 0}, {"none", 0}}), std::make_pair(4u, 3u)) << "the last that is there";
    EXPECT_EQ(at({{"a", 0}, {"x", 0}, {nullptr, 9}}), std::make_pair(2u, 9u));
}

// "LINE NAME text" of what is wrong; "" of what is fine.
std::string wrong_with(const std::string &text)
{
    json_t *services = nullptr;
    struct runner_error error = {};
    if (service_file_parse("f", text.data(), text.size(), &services, &error) == RUNNER_OK) {
        json_decref(services);
        return "";
    }
    EXPECT_EQ(error.code, RUNNER_DAMAGED);
    std::string what = error.what;
    return what.substr(what.find("line")) + " | " + error.why;
}

TEST(ServiceConfig, TellsLineAndNameOfWhatIsWrong)
{
    EXPECT_EQ(wrong_with("{}"), "");
    EXPECT_EQ(wrong_with("{\n\"services\": {\"a\": {\"kind\": \"mcp\", \"command\": \"x\"}}}"), "");
    EXPECT_EQ(wrong_with("{\n\n\"servces\": {}}"),
              "line 3: 'servces' | there is nothing of this name");
    EXPECT_EQ(wrong_with("{\"services\": {\n\"a\": {\"kind\": \"mcp\", \"command\": \"x\",\n"
                         "\"comand\": 1}}}"),
              "line 3: 'services.a.comand' | a service has nothing of this name");
    EXPECT_EQ(wrong_with("{\"services\": {\"b\": {\"kind\": \"acp\", \"command\": \"x\"},\n"
                         "\"a\": {\"kind\": \"mcp\",\n\"command\": 5}}}"),
              "line 3: 'services.a.command' | it has to be a text");
    EXPECT_EQ(wrong_with("{\"services\": {\n\"a\": {\"kind\": \"mcp\"}}}"),
              "line 2: 'services.a' | 'command' is missing");
    EXPECT_EQ(wrong_with("{\"services\": {\"a\": {\"kind\": \"mpc\",\n\"command\": \"x\"}}}"),
              "line 1: 'services.a.kind' | it is one of: mcp, acp");
    EXPECT_EQ(wrong_with("{\"services\": {\"a\": {\"kind\": \"mcp\", \"command\": \"x\",\n"
                         "\"args\": [\"1\",\n 2]}}}"),
              "line 3: 'services.a.args[1]' | it has to be a text");
    EXPECT_EQ(wrong_with("{\"services\": {\"a\": {\"kind\": \"mcp\", \"command\": \"x\",\n"
                         "\"env\": {\"A\": \"1\",\n\"B\": 2}}}}"),
              "line 3: 'services.a.env.B' | it has to be a text, or null for a variable that is "
              "removed");
    EXPECT_EQ(wrong_with("{\"services\": {\"a\": {\"kind\": \"mcp\", \"command\": \"x\",\n"
                         "\"crash_limit\": 33}}}"),
              "line 2: 'services.a.crash_limit' | it has to be from 0 to 32");
    EXPECT_EQ(wrong_with("{\"services\": {\"a\": {\"kind\": \"mcp\", \"command\": \"x\",\n"
                         "\"pod\": true}}}"),
              "line 2: 'services.a.pod' | only agents (kind acp) live in pods");
    EXPECT_EQ(wrong_with("{\"services\": {\n\n\"../a\": {}}}").substr(0, 26),
              "line 3: 'services.../a' | ");
    EXPECT_EQ(
        wrong_with(
            "{\"services\": {\"a\": {\"kind\": \"mcp\", \"command\": \"x\", \"cwd\": \"y\"}}}"),
        "line 1: 'services.a.cwd' | it has to be an absolute path");
    EXPECT_EQ(wrong_with("{\"services\": {\"a\": {\"kind\": \"mcp\", \"command\": \"x\",\n"
                         "\"env\": {\"TOKEN=secret\": \"\"}}}}"),
              "line 2: 'services.a.env' | a variable has a name that is empty or has a = in it");
    EXPECT_EQ(wrong_with("{\"services\": {\"a\": {\"kind\": \"mcp\", \"command\": \"x\",\n"
                         "\"backoff_max_ms\": 100}}}"),
              "")
        << "the first wait is the longest";
    EXPECT_EQ(wrong_with("{\"services\": {\"a\": {\"kind\": \"mcp\", \"command\": \"x\",\n"
                         "\"backoff_ms\": 200, \"backoff_max_ms\": 100}}}"),
              "line 2: 'services.a.backoff_ms' | it is more than backoff_max_ms");
    EXPECT_EQ(wrong_with("{\"services\": {\"a\": {\"kind\": \"mcp\", \"command\": \"x\"},\n"
                         "\"A\": {\"kind\": \"mcp\", \"command\": \"x\"}}}"),
              "line 1: 'services.a' | another one differs only in upper case");
    EXPECT_EQ(wrong_with("{\n\"services\": {},\n\"services\": {}}").substr(0, 6), "line 3");
    EXPECT_EQ(wrong_with("{\n{").substr(0, 6), "line 2");
    EXPECT_EQ(wrong_with("[]"), "line 1 | it has to be an object");
}

TEST(ServiceConfig, NamesAreThoseOfFoldersEverywhere)
{
    for (const char *name : {"a", "A.b-c_1", "console", "com", "com10", "lpt", "nul1", "a.con"}) {
        EXPECT_TRUE(service_valid_name(name)) << name;
    }
    for (const char *name :
         {"", ".a", "-a", "a.", "a/b", "con", "NUL", "Com1", "lpt9.txt", "aux.x"}) {
        EXPECT_FALSE(service_valid_name(name)) << name;
    }
    EXPECT_TRUE(service_same_name("aZ.1", "Az.1"));
    EXPECT_FALSE(service_same_name("ab", "a"));
    EXPECT_FALSE(service_same_name("a@", "a`"));
}

TEST(ServiceConfig, HasItsDefaults)
{
    json_t *json = json_loads(R"({"kind":"acp","command":"x"})", 0, nullptr);
    struct service_config config;
    struct config_problem problem;
    ASSERT_EQ(service_config_take(json, &config, &problem), 0);
    EXPECT_EQ(config.restart.policy, RESTART_ON_FAILURE);
    EXPECT_EQ(config.restart.crashes, 3u);
    EXPECT_EQ(config.restart.window_ms, 300000u);
    EXPECT_EQ(config.permission, PERMISSION_DENY);
    EXPECT_TRUE(config.inherit);
    EXPECT_TRUE(config.autostart);
    EXPECT_TRUE(config.session);
    EXPECT_FALSE(config.pod);
    service_config_clear(&config);
    json_decref(json);
}

// ---- the journal of a pod
// ------------------------------------------------------------------------

const std::string head = "= {\"session\":5,\"out\":10,\"err\":3,\"line\":7}\n";

// What waits for the agent, as "TEXT@END".
static std::vector<std::string> queue_of(const struct journal_state &state)
{
    std::vector<std::string> list;
    size_t size = 0;
    for (const struct journal_input *i = state.queue; i != nullptr; i = i->next) {
        EXPECT_EQ(i->text[i->size - 1], '\n');
        list.push_back(std::string(i->text, i->size - 1) + "@" + std::to_string(i->end));
        size += i->size;
    }
    EXPECT_EQ(state.queued, size);
    return list;
}

using strings = std::vector<std::string>;

TEST(PodJournal, GoesOnWhereTheLastWholeRecordEnds)
{
    const std::string text =
        head + "< 20 {\"method\":\"a\"}\n- 30\n! 9\n+ 0 {}\n* {\"facts\":{}}\n< 4";
    for (size_t cut = 0; cut <= text.size(); cut++) { // Killed at any instant.
        struct journal_state state = {};
        size_t whole = journal_read(text.data(), cut, &state);
        size_t expected = cut == 0 ? 0 : text.rfind('\n', cut - 1) + 1;
        ASSERT_EQ(whole, expected) << cut;
        size_t records = (size_t)std::count(text.begin(), text.begin() + (long)whole, '\n');
        static const uint64_t outs[] = {0, 10, 20, 30, 30, 30, 30}, errs[] = {0, 3, 3, 3, 9, 9, 9};
        EXPECT_EQ(state.out, outs[records]) << cut;
        EXPECT_EQ(state.err, errs[records]) << cut;
        EXPECT_EQ(state.kept != nullptr, records == 6) << cut;
        EXPECT_EQ(state.session, records > 0 ? 5u : 0u);
        journal_state_clear(&state);
    }
}

TEST(PodJournal, KnowsTheLinesThatWaitForTheAgent)
{
    struct journal_state state = {};
    const std::string text = head + "+ 0 {\"a\":1}\n+ 0 b\n> 15\n+ 0 c\n> 17\n@ 15\n";
    ASSERT_EQ(journal_read(text.data(), text.size(), &state), text.size());
    EXPECT_EQ(queue_of(state), (strings{"b@17", "c@0"}));
    EXPECT_FALSE(journal_at_line(&state, 0)) << "that is long over";
    EXPECT_TRUE(journal_at_line(&state, 15));
    EXPECT_TRUE(journal_at_line(&state, 17));
    EXPECT_FALSE(journal_at_line(&state, 16)) << "half a line";
    journal_state_clear(&state);
    EXPECT_TRUE(journal_at_line(&state, 0)) << "nothing was given";
}

TEST(PodJournal, WhatThePodDoesNotHaveIsGivenAgain)
{
    const std::string text = head + "+ 0 abcd\n+ 0 ef\n+ 0 gh\n> 12\n> 15\n";
    static const struct {
        uint64_t input;
        strings wanted;
    } cases[] = {{7, {"abcd@0", "ef@0", "gh@0"}},
                 {8, {"@0", "abcd@0", "ef@0", "gh@0"}},
                 {12, {"ef@0", "gh@0"}},
                 {13, {"@0", "ef@0", "gh@0"}},
                 {15, {"gh@0"}},
                 {16, {"@0", "gh@0"}},
                 {6, {"@0", "abcd@0", "ef@0", "gh@0"}}};
    for (const auto &c : cases) {
        struct journal_state state = {};
        ASSERT_EQ(journal_read(text.data(), text.size(), &state), text.size());
        ASSERT_TRUE(journal_give_again(&state, c.input));
        EXPECT_EQ(queue_of(state), c.wanted) << c.input;
        // The next runner was ended before it could give anything.
        ASSERT_TRUE(journal_give_again(&state, c.input));
        EXPECT_EQ(queue_of(state), c.wanted) << c.input;
        journal_state_clear(&state);
    }
}

TEST(PodJournal, KnowsTheRequestsThatAreOpen)
{
    struct journal_state state = {};
    const std::string text = head +
                             "< 20 {\"id\":\"q w\",\"method\":\"a\"}\n"
                             "< 30 {\"id\":7,\"method\":\"b\"}\n"
                             "< 40 {\"id\":\"1-1\",\"result\":{\"method\":0}}\n"
                             "< 50 {\"method\":\"c\",\"params\":{\"id\":1}}\n"
                             "< 60 [{\"id\":8,\"method\":\"b\"},{\"id\":9,\"method\":\"b\"}]\n"
                             "+ 5 \"q w\"{\"id\":\"q w\"}\n+ 1 8{}\n";
    ASSERT_EQ(journal_read(text.data(), text.size(), &state), text.size());
    ASSERT_EQ(json_array_size(state.unanswered), 2u) << "also those of a batch";
    for (size_t i = 0; i < 2; i++) {
        const json_t *id = json_object_get(json_array_get(state.unanswered, i), "id");
        EXPECT_EQ(json_integer_value(id), i == 0 ? 7 : 9);
    }
    EXPECT_EQ(queue_of(state), (strings{"{\"id\":\"q w\"}@0", "{}@0"})) << "the answers wait";
    journal_state_clear(&state);
}

TEST(PodJournal, RefusesWhatIsNone)
{
    for (const char *text :
         {"", "x\n", "< 5 {}\n", "= 5\n", "= {}\n? 5\n", "= {}\n<5 {}\n", "= {}\n< 5\n",
          "= {}\n+ {}\n", "= {}\n+ 5 {}\n", "= {\"queue\":[[0]]}\n"}) {
        struct journal_state state = {};
        EXPECT_LT(journal_read(text, strlen(text), &state), strlen(text) + (*text == '\0')) << text;
        journal_state_clear(&state);
    }
}

#ifndef _WIN32
class JournalFile : public ::testing::Test
{
  protected:
    void SetUp() override
    {
        ASSERT_NE(mkdtemp(&folder[0]), nullptr);
        begin(5);
    }
    void TearDown() override
    {
        journal_close(&journal);
        (void)tree_remove(folder.c_str());
    }
    void begin(uint64_t session)
    {
        ASSERT_EQ(journal_load(&journal, folder.c_str()), JOURNAL_NONE);
        journal.state.session = session;
        ASSERT_EQ(journal_begin(&journal), 0);
    }
    int say(uint64_t end)
    {
        const std::string line =
            "{\"method\":\"m\",\"params\":{\"n\":" + std::to_string(end) + "}}";
        return journal_line(&journal, line.data(), line.size(), end);
    }
    std::vector<uint64_t> said(uint64_t agent = 0, uint64_t after = 0)
    {
        std::vector<uint64_t> offsets;
        size_t i;
        json_t *item, *json = journal_messages(folder.c_str(), agent, after);
        json_array_foreach(json_object_get(json, "messages"), i, item)
        {
            offsets.push_back((uint64_t)json_integer_value(json_object_get(item, "offset")));
        }
        json_decref(json);
        return offsets;
    }
    struct journal_input *next() // That is to be given.
    {
        struct journal_input *input = journal.state.queue;
        while (input != nullptr && input->end != 0) {
            input = input->next;
        }
        return input;
    }
    int load()
    {
        journal_close(&journal);
        return journal_load(&journal, folder.c_str());
    }
    std::string folder = "/tmp/pmjournal.XXXXXX";
    struct journal journal = {};
};

static void limit_files(rlim_t size)
{
    struct rlimit limit;
    (void)signal(SIGXFSZ, SIG_IGN);
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = size == 0 ? limit.rlim_max : size;
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

// The most memory that this process has had so far.
static long peak_kib()
{
    struct rusage usage;
    EXPECT_EQ(getrusage(RUSAGE_SELF, &usage), 0);
#ifdef __APPLE__
    usage.ru_maxrss /= 1024;
#endif
    return usage.ru_maxrss;
}

TEST_F(JournalFile, WhatCannotBeWrittenIsNotTakenAndSpoilsNothing)
{
    std::vector<uint64_t> taken;
    for (uint64_t end = 1, failed = 0; failed < 20;
         end++) { // A full disk, at each byte of a record.
        limit_files((rlim_t)(journal.size + failed * 3 % 40 + 1));
        bool fine = say(end) == 0;
        limit_files(0);
        EXPECT_EQ(journal.state.out, fine ? end : taken.empty() ? 0 : taken.back());
        failed += fine ? 0 : 1;
        if (fine || say(end) == 0) { // There is room again.
            taken.push_back(end);
        }
    }
    EXPECT_EQ(said(), taken);
    EXPECT_EQ(load(), JOURNAL_THERE);
    EXPECT_EQ(journal.state.out, taken.back());
}

TEST_F(JournalFile, ANewFileThatCannotBeBegunLosesNothing)
{
    const std::string line(1000000, ' ');
    uint64_t end = 0;
    while (journal.size <= JOURNAL_SIZE) {
        ASSERT_EQ(journal_line(&journal, line.data(), line.size(), ++end), 0);
    }
    limit_files(10);
    for (int i = 0; i < 3; i++) {
        EXPECT_NE(say(end + 1), 0);
    }
    limit_files(0);
    EXPECT_EQ(load(), JOURNAL_THERE) << "the old one is whole";
    EXPECT_EQ(journal.state.out, end);
    EXPECT_EQ(say(end + 1), 0);
    EXPECT_LT(journal.size, 1000u) << "a new one";
    EXPECT_EQ(said(0, end), std::vector<uint64_t>{end + 1});
    EXPECT_EQ(load(), JOURNAL_THERE);
    EXPECT_EQ(journal.state.session, 5u);
    EXPECT_EQ(journal.state.out, end + 1);
}

TEST_F(JournalFile, AnyRecordBeginsANewFile)
{
    for (uint64_t offset = 0; offset < 600000; offset++) {
        ASSERT_EQ(journal_said(&journal, offset), 0);
    }
    EXPECT_LE(journal.size, JOURNAL_SIZE + 100);
    EXPECT_TRUE(journal_exists(folder.c_str()));
    struct stat info;
    ASSERT_EQ(stat((folder + "/journal.1").c_str(), &info), 0);
    EXPECT_EQ(load(), JOURNAL_THERE);
    EXPECT_EQ(journal.state.err, 599999u);
}

TEST_F(JournalFile, WhatWaitsSurvivesItsFilesAndAFullDisk)
{
    strings wanted;
    size_t failed = 0;
    for (int n = 0; n < 60; n++) {
        const std::string text = std::to_string(n) + std::string(n % 7 == 0 ? 900000 : 9, 'x');
        ASSERT_NE(journal_queue(&journal.state, strdup((text + "\n").c_str()), text.size() + 1,
                                n % 2 == 0 ? "\"q\"" : nullptr),
                  nullptr);
        limit_files(n % 3 == 0 ? (rlim_t)journal.size + 8 : 0);
        failed += journal_note(&journal) != 0 ? 1 : 0;
        limit_files(0);
        wanted.push_back(text + "@0");
        if (n % 5 == 4) { // The pod takes the first that waits, and perhaps tells so.
            uint64_t end = (uint64_t)n * 10;
            ASSERT_EQ(journal_note(&journal), 0);
            ASSERT_EQ(journal_give(&journal, next(), end), 0);
            wanted[0].replace(wanted[0].rfind('@'), std::string::npos, "@" + std::to_string(end));
            ASSERT_EQ(journal_had(&journal, end), 0);
            wanted.erase(wanted.begin());
        }
        ASSERT_EQ(queue_of(journal.state), wanted) << n;
    }
    EXPECT_GT(failed, 10u);
    ASSERT_EQ(journal_note(&journal), 0);
    ASSERT_EQ(journal_give(&journal, next(), 1000), 0);
    wanted[0].replace(wanted[0].rfind('@'), std::string::npos, "@1000");
    ASSERT_EQ(load(), JOURNAL_THERE);
    EXPECT_EQ(queue_of(journal.state), wanted);
    ASSERT_EQ(journal_resume(&journal), 0);
    ASSERT_EQ(load(), JOURNAL_THERE);
    EXPECT_EQ(queue_of(journal.state), wanted) << "by the head of the state";
}

// As one that nobody could write, and no memory could hold.
TEST_F(JournalFile, IsReadInPiecesWhateverItsSize)
{
    const std::string line(9000000, 'x');
    FILE *file = fopen((folder + "/journal").c_str(), "ab");
    for (int i = 1; i <= 15; i++) {
        (void)fprintf(file, "< %d %s\n", i, line.c_str());
    }
    (void)fprintf(file, "< 16 {\"method\":\"m\"}\n");
    (void)fclose(file);
    long before = peak_kib();
    EXPECT_EQ(load(), JOURNAL_THERE);
    EXPECT_EQ(journal.state.out, 16u);
    EXPECT_EQ(said(0, 15), std::vector<uint64_t>{16});
    EXPECT_LT(peak_kib() - before, 100000) << "of a file of 135 MB";
}

TEST_F(JournalFile, HasTwoNamesWhereARunnerWasEndedAndGoesOn)
{
    ASSERT_EQ(say(7), 0);
    ASSERT_EQ(link((folder + "/journal").c_str(), (folder + "/journal.1").c_str()), 0);
    ASSERT_EQ(load(), JOURNAL_THERE);
    EXPECT_EQ(journal_resume(&journal), 0);
    EXPECT_EQ(say(9), 0);
    EXPECT_EQ(said(), (std::vector<uint64_t>{7, 9}));
}

TEST_F(JournalFile, DamageInTheMiddleLeavesWhatIsBeforeIt)
{
    ASSERT_EQ(say(7), 0);
    FILE *file = fopen((folder + "/journal").c_str(), "ab");
    (void)fprintf(file, "< 12? 5\n< 20 {\"method\":\"x\"}\n");
    (void)fclose(file);
    ASSERT_EQ(load(), JOURNAL_DAMAGED);
    EXPECT_EQ(journal.state.out, 7u);
    EXPECT_EQ(journal_resume(&journal), 0);
    EXPECT_EQ(say(12), 0);
    EXPECT_EQ(load(), JOURNAL_THERE);
    EXPECT_EQ(said(), (std::vector<uint64_t>{7, 12}));
}

TEST_F(JournalFile, ATroubleIsNeitherNoneNorDamage)
{
    const std::string path = folder + "/journal", other = folder + "/other";
    journal_close(&journal);
    ASSERT_EQ(rename(path.c_str(), other.c_str()), 0);
    ASSERT_EQ(symlink(other.c_str(), path.c_str()), 0);
    EXPECT_LT(journal_load(&journal, folder.c_str()), 0);
    ASSERT_EQ(rename(other.c_str(), path.c_str()), 0);
    EXPECT_EQ(journal_load(&journal, folder.c_str()), JOURNAL_THERE);
}

static long allocation_that_fails; // Counted down.

static void *allocate_but_one(size_t size)
{
    return allocation_that_fails-- != 0 ? malloc(size) : nullptr;
}

TEST_F(JournalFile, WantOfMemoryIsNoDamage)
{
    const char request[] = "{\"id\":7,\"method\":\"ask\",\"params\":[1,2,3]}";
    const char answer[] = "{\"id\":7,\"result\":0}\n";
    ASSERT_EQ(journal_line(&journal, request, strlen(request), 40), 0);
    ASSERT_EQ(journal_keep(&journal, json_pack("{s:[i,i]}", "facts", 1, 2)), 0);
    ASSERT_NE(journal_queue(&journal.state, strdup(answer), strlen(answer), "7"), nullptr);
    ASSERT_EQ(journal_note(&journal), 0);
    ASSERT_EQ(journal_line(&journal, request, strlen(request), 80), 0);
    ASSERT_EQ(journal_resume(&journal), 0);
    memory_watch(allocate_but_one);
    long number = 0;
    for (bool failed = true; failed; number++) { // Each of them in turn.
        allocation_that_fails = number;
        int result = load();
        failed = allocation_that_fails < 0;
        EXPECT_EQ(result, failed ? UV_ENOMEM : int{JOURNAL_THERE}) << number;
        EXPECT_EQ(json_array_size(journal.state.unanswered), failed ? 0u : 1u) << number;
        allocation_that_fails = number;
        json_t *messages = journal_messages(folder.c_str(), 0, 0);
        failed = failed || allocation_that_fails < 0;
        EXPECT_TRUE(messages == nullptr ||
                    json_array_size(json_object_get(messages, "messages")) == 2)
            << number << ": a part of them";
        json_decref(messages);
    }
    allocation_that_fails = LONG_MAX;
    memory_watch(malloc);
    EXPECT_GT(number, 20);
    EXPECT_EQ(load(), JOURNAL_THERE);
    EXPECT_EQ(said(), (std::vector<uint64_t>{40, 80}));
}

TEST_F(JournalFile, OfAnAgentThatHasEndedStaysUntilTheNextHas)
{
    ASSERT_EQ(say(7), 0);
    journal_end(&journal);
    EXPECT_EQ(say(8), UV_EBADF) << "nothing comes back";
    EXPECT_FALSE(journal_exists(folder.c_str()));
    EXPECT_EQ(said(), std::vector<uint64_t>{7});
    begin(6);
    ASSERT_EQ(say(3), 0);
    EXPECT_EQ(said(), std::vector<uint64_t>{3});
    EXPECT_EQ(said(5), std::vector<uint64_t>{7});
    EXPECT_EQ(said(6), std::vector<uint64_t>{3});
    EXPECT_EQ(said(4), std::vector<uint64_t>{});
    journal_end(&journal);
    EXPECT_EQ(said(), std::vector<uint64_t>{3});
}
#endif

// ---- logs ---------------------------------------------------------------------------------------

TEST(ServiceLog, IsSafeOnATerminalAndInJson)
{
    const std::string given = "a\tb\x1b[31m \xff\xc3\xa9\xc3 \xe2\x82\xac\xed\xa0\x80\x7f";
    std::string text(4 * given.size(), '\0');
    text.resize(service_log_escape(&text[0], given.data(), given.size()));
    EXPECT_EQ(text, "a\tb\\x1b[31m \\xff\xc3\xa9\\xc3 \xe2\x82\xac\\xed\\xa0\\x80\\x7f");
    json_t *json = json_string(text.c_str());
    EXPECT_NE(json, nullptr);
    json_decref(json);
}

TEST(ServiceLog, CutsBetweenCharacters)
{
    for (size_t size = 1; size < 12; size++) {
        char text[16];
        (void)snprintf(text, size + 1, "%s", "a\xe6\xbc\xa2\xf0\x9f\x98\x80\xc3\xa9z");
        service_text_trim(text);
        json_t *json = json_string(text);
        EXPECT_NE(json, nullptr) << size;
        EXPECT_GT(strlen(text) + 4, size);
        json_decref(json);
    }
    char flat[32];
    service_text_flat(flat, sizeof flat, "a \n\t b\x1b[\xc2\x9b");
    EXPECT_STREQ(flat, "a b\\x1b[\\xc2\\x9b");
}

} // namespace
