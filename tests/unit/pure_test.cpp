// The pure helpers of the core: command lines, UTF, environments, records, error lines.

#include <gtest/gtest.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "c_headers.h"

// Of the backend: all that an error line needs of it.
extern "C" void pmi_os_error_text(uint32_t os_code, char *buffer, size_t capacity);

namespace
{

std::string Join(const std::vector<std::string> &args, int *ret_code = nullptr)
{
    std::vector<const char *> argv;
    for (const auto &arg : args) {
        argv.push_back(arg.c_str());
    }
    argv.push_back(nullptr);
    char *line = nullptr;
    int code = pmi_cmdline_join(argv.data(), &line);
    if (ret_code != nullptr) {
        *ret_code = code;
    }
    std::string text = line != nullptr ? line : "";
    free(line);
    return text;
}

// What the C runtime of Windows does with a command line, written from its documentation
// (learn.microsoft.com, "Parsing C command-line arguments") and not from our quoting.
std::vector<std::string> Split(const std::string &line)
{
    std::vector<std::string> args;
    size_t i = 0;
    std::string arg;
    bool quoted = false;
    // The program's name: quotation marks toggle, backslashes are plain.
    for (; i < line.size() && (quoted || (line[i] != ' ' && line[i] != '\t')); i++) {
        if (line[i] == '"') {
            quoted = !quoted;
        } else {
            arg += line[i];
        }
    }
    args.push_back(arg);
    while (i < line.size()) {
        while (i < line.size() && (line[i] == ' ' || line[i] == '\t')) {
            i++;
        }
        if (i == line.size()) {
            break;
        }
        arg.clear();
        quoted = false;
        while (i < line.size() && (quoted || (line[i] != ' ' && line[i] != '\t'))) {
            size_t slashes = 0;
            for (; i < line.size() && line[i] == '\\'; i++) {
                slashes++;
            }
            if (i < line.size() && line[i] == '"') {
                arg.append(slashes / 2, '\\');
                if (slashes % 2 == 1) {
                    arg += '"';
                } else if (quoted && i + 1 < line.size() && line[i + 1] == '"') {
                    arg += '"';
                    i++;
                } else {
                    quoted = !quoted;
                }
                i++;
            } else {
                arg.append(slashes, '\\');
                if (i < line.size() && (quoted || (line[i] != ' ' && line[i] != '\t'))) {
                    arg += line[i++];
                }
            }
        }
        args.push_back(arg);
    }
    return args;
}

void ForEachString(const std::string &alphabet, size_t most,
                   const std::function<void(const std::string &)> &visit)
{
    std::vector<std::string> layer = {""};
    visit("");
    for (size_t length = 1; length <= most; length++) {
        std::vector<std::string> next;
        for (const auto &head : layer) {
            for (char c : alphabet) {
                next.push_back(head + c);
                visit(next.back());
            }
        }
        layer.swap(next);
    }
}

TEST(CommandLine, EveryStringUpToFiveCharactersComesBack)
{
    size_t count = 0;
    ForEachString("a \t\"\\", 5, [&](const std::string &text) {
        std::vector<std::string> args = {"prog", text, "x", text};
        ASSERT_EQ(args, Split(Join(args))) << "[" << text << "]";
        count++;
    });
    EXPECT_EQ(3906u, count);
}

TEST(CommandLine, QuotesOnlyWhatNeedsIt)
{
    EXPECT_EQ("a b\\c d\\\\", Join({"a", "b\\c", "d\\\\"}));
    EXPECT_EQ("a \"\" \"b c\\\\\" \"\\\"\"", Join({"a", "", "b c\\", "\""}));
    EXPECT_EQ("\"C:\\Program Files\\a\\\" x", Join({"C:\\Program Files\\a\\", "x"}));
}

TEST(CommandLine, EveryByteInAnArgumentAndInTheProgramNameComesBack)
{
    for (int c = 1; c < 256; c++) {
        std::string byte(1, static_cast<char>(c));
        std::vector<std::string> args = {"p", "a" + byte + "b", byte, byte + byte};
        ASSERT_EQ(args, Split(Join(args))) << c;
        args = {"p" + byte + "\\", "x"};
        if (byte != "\"") {
            ASSERT_EQ(args, Split(Join(args))) << c;
            ASSERT_EQ(c <= ' ', Join(args)[0] == '"') << c << ": a control character ends it";
        }
    }
}

TEST(CommandLine, AnEmptyListIsRefusedAndAnEmptyProgramNameIsNot)
{
    int code = 0;
    Join({}, &code);
    EXPECT_EQ(PM_ERR_INVALID, code);
    EXPECT_EQ("\"\" \"\"", Join({"", ""}, &code));
    EXPECT_EQ(PM_OK, code);
}

TEST(CommandLine, AQuotationMarkInTheProgramNameIsRefused)
{
    int code = 0;
    Join({"a\"b"}, &code);
    EXPECT_EQ(PM_ERR_INVALID, code);
}

// What cmd.exe makes of the text behind its /c, as far as that concerns us, written from
// Microsoft's page on cmd and from what is known of its phases, and not from our quoting. A name in
// percent signs becomes <name>, whether there is such a variable or not; what stands outside of
// quotation marks and means something is `loose`.
struct Shell {
    std::string line, loose;
};

std::string ExpandPercents(const std::string &line)
{
    std::string text;
    for (size_t i = 0; i < line.size(); i++) {
        size_t end = line[i] == '%' ? line.find('%', i + 1) : std::string::npos;
        if (end == std::string::npos || end == i + 1) {
            text += line[i]; // Alone, or with no name behind it.
        } else {
            std::string name = line.substr(i + 1, end - i - 1);
            text += name == "cd:~," ? "" : "<" + name + ">";
            i = end;
        }
    }
    return text;
}

Shell ReadAsShell(const std::string &line)
{
    Shell shell;
    const std::string before = "C:\\sys\\cmd.exe /e:ON /v:OFF /d /c ";
    EXPECT_EQ(0u, line.rfind(before, 0)) << line;
    std::string text = line.substr(before.size());
    EXPECT_EQ('"', text.front());
    EXPECT_EQ('"', text.back());
    EXPECT_LT(2, std::count(text.begin(), text.end(), '"')) << "else the marks stay";
    shell.line = ExpandPercents(text.substr(1, text.size() - 2));
    bool quoted = false;
    for (char c : shell.line) {
        quoted = quoted != (c == '"');
        if (!quoted && strchr("&|<>()^!,;=%\r\n", c) != nullptr) {
            shell.loose += c;
        }
    }
    EXPECT_FALSE(quoted) << line;
    return shell;
}

int JoinBatch(const std::string &script, const std::vector<std::string> &args, std::string *line,
              std::string *bad = nullptr)
{
    std::vector<const char *> argv;
    for (const auto &arg : args) {
        argv.push_back(arg.c_str());
    }
    argv.push_back(nullptr);
    char *text = nullptr;
    const char *culprit = nullptr;
    int code =
        pmi_cmdline_join_batch("C:\\sys\\cmd.exe", script.c_str(), argv.data(), &text, &culprit);
    *line = text != nullptr ? text : "";
    if (bad != nullptr) {
        *bad = culprit != nullptr ? culprit : "";
    }
    free(text);
    return code;
}

TEST(BatchLine, WhateverIsInAnArgumentCmdSeesNoMoreThanTheArgument)
{
    size_t count = 0;
    ForEachString("a \"\\%&^", 5, [&](const std::string &text) {
        std::string line;
        ASSERT_EQ(PM_OK, JoinBatch("C:\\x.bat", {"ignored", text, "cd:~,", text}, &line));
        Shell shell = ReadAsShell(line);
        ASSERT_EQ("", shell.loose) << line;
        std::vector<std::string> args = {"C:\\x.bat", text, "cd:~,", text};
        ASSERT_EQ(args, Split(shell.line)) << line;
        count++;
    });
    EXPECT_EQ(19608u, count);
}

TEST(BatchLine, EveryByteIsQuotedOrPlainOrRefused)
{
    for (int c = 1; c < 256; c++) {
        std::string arg = std::string("x") + static_cast<char>(c), line, bad;
        int code = JoinBatch("s.cmd", {"p", arg}, &line, &bad);
        if (c == '\r' || c == '\n' || c == 0x1a) {
            ASSERT_EQ(PM_ERR_INVALID, code);
            ASSERT_EQ(arg, bad);
            continue;
        }
        ASSERT_EQ(PM_OK, code);
        bool plain = isalnum(c) != 0 || strchr("#$*+-./:?@_", c) != nullptr;
        if (c < 128 && plain) {
            ASSERT_NE(std::string::npos, line.find(" " + arg + "\"")) << line;
        }
        Shell shell = ReadAsShell(line);
        ASSERT_EQ("", shell.loose) << line;
        std::vector<std::string> args = {"s.cmd", arg};
        ASSERT_EQ(args, Split(shell.line)) << line;
    }
}

TEST(BatchLine, TheFilesNameMayHoldWhatAnArgumentMay)
{
    std::string line, bad;
    ASSERT_EQ(PM_OK, JoinBatch("C:\\a b&c\\100%PATH%.bat", {"p"}, &line));
    EXPECT_EQ("C:\\sys\\cmd.exe /e:ON /v:OFF /d /c "
              "\"\"C:\\a b&c\\100%%cd:~,%PATH%%cd:~,%.bat\"\"",
              line);
    EXPECT_EQ("\"C:\\a b&c\\100%PATH%.bat\"", ReadAsShell(line).line);
    EXPECT_EQ(PM_ERR_INVALID, JoinBatch("a\".bat", {"p"}, &line, &bad));
    EXPECT_EQ("a\".bat", bad);
    EXPECT_EQ(PM_ERR_INVALID, JoinBatch("a\n.bat", {"p"}, &line, &bad));
    EXPECT_EQ(PM_OK, JoinBatch("a.bat", {}, &line)) << "no argv[0], and none is needed";
}

TEST(CommandLine, KnowsABatchFileInEveryDisguise)
{
    for (const char *path : {"a.bat",
                             "C:\\x\\A.CMD",
                             "a.bat.",
                             "a.bat . .",
                             "dir/a.Bat",
                             "a.cmd  ",
                             "a.bat::$DATA",
                             ".bat",
                             "a.exe.bat",
                             "C:a.bat",
                             "a:.cmd",
                             "a.bat. :s",
                             "a.txt:b.bat",
                             "a.txt:b.bat:$DATA",
                             "a.bat\\.",
                             "a.bat/ ./.",
                             "a.bat\\b\\..",
                             "d\\a.cmd\\b/c/../..",
                             "\\\\?\\C:\\a.bat",
                             "a.bat\\"}) {
        EXPECT_TRUE(pmi_cmdline_is_batch(path)) << path;
    }
    for (const char *path :
         {"a.exe", "a.bat.exe", "bat", "cmd", "x.bats", "a.bat/b.exe", "", ".", "..", "/", "\\\\",
          "C:", "a.bat\\..", "a.bat/b/../c", "a.exe:s", ".ba", "a.ba t", "abat", "a.exe::$DATA"}) {
        EXPECT_FALSE(pmi_cmdline_is_batch(path)) << path;
    }
}

std::string RoundTrip(const std::string &text, int *ret_code)
{
    uint16_t *units = nullptr;
    size_t count = 0;
    *ret_code = pmi_utf8_to_utf16(text.c_str(), &units, &count);
    if (*ret_code != PM_OK) {
        return "";
    }
    char *back = nullptr;
    *ret_code = pmi_utf16_to_utf8(units, count, &back);
    EXPECT_EQ(0, units[count]);
    std::string result = back != nullptr ? back : "";
    free(units);
    free(back);
    return result;
}

TEST(Utf, ComesBackIncludingLoneSurrogates)
{
    for (const char *text :
         {"", "plain", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf",
          "a\xed\xa0\x80z", "\xed\xb0\x80", "\xed\xb0\x80\xed\xa0\x80"}) {
        int code = 0;
        EXPECT_EQ(text, RoundTrip(text, &code));
        EXPECT_EQ(PM_OK, code);
    }
}

TEST(Utf, EveryCodePointComesBack)
{
    for (uint32_t point = 1; point <= 0x10ffff; point++) {
        uint16_t units[2] = {static_cast<uint16_t>(point), 0};
        size_t count = 1;
        if (point >= 0x10000) {
            units[0] = static_cast<uint16_t>(0xd800 + ((point - 0x10000) >> 10));
            units[1] = static_cast<uint16_t>(0xdc00 + ((point - 0x10000) & 0x3ff));
            count = 2;
        }
        char *text = nullptr;
        ASSERT_EQ(PM_OK, pmi_utf16_to_utf8(units, count, &text)) << point;
        size_t bytes = point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
        ASSERT_EQ(bytes, strlen(text)) << point;
        uint16_t *back = nullptr;
        size_t back_count = 0;
        ASSERT_EQ(PM_OK, pmi_utf8_to_utf16(text, &back, &back_count)) << point;
        ASSERT_EQ(count, back_count) << point;
        ASSERT_EQ(0, memcmp(units, back, count * sizeof *units)) << point;
        free(text);
        free(back);
    }
}

TEST(Utf, AnyThreeUnitsComeBack)
{
    const uint16_t kinds[] = {'a', 0xd800, 0xdbff, 0xdc00, 0xdfff, 0xe000, 0xffff};
    for (uint16_t a : kinds) {
        for (uint16_t b : kinds) {
            for (uint16_t c : kinds) {
                const uint16_t units[] = {a, b, c};
                char *text = nullptr;
                uint16_t *back = nullptr;
                size_t count = 0;
                ASSERT_EQ(PM_OK, pmi_utf16_to_utf8(units, 3, &text));
                ASSERT_EQ(PM_OK, pmi_utf8_to_utf16(text, &back, &count)) << text;
                ASSERT_EQ(3u, count);
                ASSERT_EQ(0, memcmp(units, back, sizeof units));
                free(text);
                free(back);
            }
        }
    }
}

TEST(Utf, ANulAmongTheUnitsIsRefusedAndNoUnitsAreAnEmptyText)
{
    const uint16_t units[] = {'a', 0, 'b'};
    char *text = nullptr;
    EXPECT_EQ(PM_ERR_INVALID, pmi_utf16_to_utf8(units, 3, &text));
    ASSERT_EQ(PM_OK, pmi_utf16_to_utf8(units, 0, &text));
    EXPECT_STREQ("", text);
    free(text);
}

TEST(Utf, RefusesWhatIsNoUtf8)
{
    for (const char *text :
         {"\x80", "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf5\x80\x80\x80",
          "\xf4\x90\x80\x80", "\xe2\x82", "\xff", "a\xc3", "\xed\xa0\x80\xed\xb0\x80"}) {
        int code = 0;
        RoundTrip(text, &code);
        EXPECT_EQ(PM_ERR_INVALID, code);
    }
}

TEST(Utf, AnythingButAContinuationByteInsideASequenceIsRefused)
{
    for (const std::string good : {"\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"}) {
        for (size_t at = 1; at < good.size(); at++) {
            for (int c = 1; c < 256; c++) {
                std::string text = good + "z";
                text[at] = static_cast<char>(c);
                if ((c & 0xc0) != 0x80) {
                    int code = 0;
                    RoundTrip(text, &code);
                    ASSERT_EQ(PM_ERR_INVALID, code) << good << " at " << at << ": " << c;
                }
            }
            int code = 0;
            RoundTrip(good.substr(0, at), &code);
            ASSERT_EQ(PM_ERR_INVALID, code) << good << " cut at " << at;
        }
    }
}

std::vector<std::string> Merge(std::vector<const char *> base, std::vector<const char *> changes,
                               bool fold, int *ret_code = nullptr)
{
    base.push_back(nullptr);
    changes.push_back(nullptr);
    char **env = nullptr;
    const char *bad = nullptr;
    int code = pmi_env_merge(base.data(), changes.data(), fold, &env, &bad);
    if (ret_code != nullptr) {
        *ret_code = code;
    }
    std::vector<std::string> result;
    for (size_t i = 0; code == PM_OK && env[i] != nullptr; i++) {
        result.push_back(env[i]);
    }
    free(env);
    return result;
}

using Strings = std::vector<std::string>;

TEST(Environment, SetsReplacesAndRemoves)
{
    EXPECT_EQ((Strings{"A=9", "C=3", "D="}),
              Merge({"A=1", "B=2", "C=3"}, {"A=9", "B", "D="}, false));
    EXPECT_EQ((Strings{"A=2"}), Merge({"A=1", "A=2"}, {}, false)) << "the last one wins";
    EXPECT_EQ((Strings{"A=1", "a=2"}), Merge({"A=1"}, {"a=2"}, false));
    EXPECT_EQ((Strings{"AB=1"}), Merge({"AB=1"}, {"A"}, false)) << "a prefix is another name";
    EXPECT_EQ((Strings{"A=1=2"}), Merge({}, {"A=1=2"}, false));
}

TEST(Environment, FoldsCaseAndSortsAsWindowsWantsIt)
{
    EXPECT_EQ((Strings{"=C:=C:\\x", "a=1", "B=2", "Path=z"}),
              Merge({"Path=x", "=C:=C:\\x", "B=2"}, {"PATH=y", "a=1", "Path=z"}, true));
    EXPECT_EQ((Strings{"A=1"}), Merge({"A=1", "b=2"}, {"B"}, true));
}

TEST(Environment, KeepsOddEntriesOfTheBaseAndRefusesOddChanges)
{
    EXPECT_EQ((Strings{"odd", "=x"}), Merge({"odd", "=x"}, {}, false));
    int code = 0;
    Merge({}, {"=x"}, false, &code);
    EXPECT_EQ(PM_ERR_INVALID, code);
    Merge({}, {""}, false, &code);
    EXPECT_EQ(PM_ERR_INVALID, code);
}

TEST(Environment, NamesTheChangeThatIsRefusedAndTouchesNothingElse)
{
    const char *const base[] = {"A=1", nullptr};
    const char *const changes[] = {"B=2", "=C:=x", "C=3", nullptr};
    char **env = nullptr;
    const char *bad = nullptr;
    EXPECT_EQ(PM_ERR_INVALID, pmi_env_merge(base, changes, true, &env, &bad));
    EXPECT_EQ(changes[1], bad);
    EXPECT_EQ(nullptr, env);
}

TEST(Environment, LaterChangesWinAndARemovedNameMayComeBack)
{
    for (bool fold : {false, true}) {
        EXPECT_EQ((Strings{"A=3"}), Merge({}, {"A=1", "A=2", "A=3"}, fold));
        EXPECT_EQ((Strings{"B=2"}), Merge({"A=1", "A=2", "B=2"}, {"A=3", "A"}, fold));
        EXPECT_EQ((Strings{"A=4", "B=2"}), Merge({"A=1", "B=2"}, {"B", "A=4", "B=2"}, fold));
        EXPECT_EQ((Strings{}), Merge({}, {"A"}, fold)) << "removing what is not there is no error";
    }
    EXPECT_EQ((Strings{"C=1", "A=2", "B=3"}), Merge({"C=1", "A=9"}, {"A=2", "B=3"}, false))
        << "the order of the base, new names last";
}

TEST(Environment, SortsByUpperCaseSoThatAnUnderscoreFollowsLetters)
{
    EXPECT_EQ(
        (Strings{"=::=x", "=C:=C:\\", "A=1", "aB=1", "AC=1", "a_=1", "Z=1", "_=1", "\xc3\xa9=1"}),
        Merge({"\xc3\xa9=1", "_=1", "a_=1", "=C:=C:\\", "Z=1", "AC=1", "aB=1", "A=1", "=::=x"}, {},
              true));
    EXPECT_EQ((Strings{"\xc3\x89=1", "\xc3\xa9=2"}), Merge({"\xc3\xa9=2"}, {"\xc3\x89=1"}, true))
        << "only ASCII is folded";
    // Odd entries of one name come in one order, whichever way they stood.
    EXPECT_EQ(Merge({"A=1", "a", "A"}, {}, true), Merge({"A", "a", "A=1"}, {}, true));
}

TEST(Environment, EveryByteInANameIsKeptAndFound)
{
    for (int c = 1; c < 256; c++) {
        if (c == '=') {
            continue;
        }
        for (bool fold : {false, true}) {
            std::string name(1, static_cast<char>(c));
            std::string old = name + "=old", change = name + "=new";
            Strings merged = Merge({old.c_str()}, {change.c_str()}, fold);
            ASSERT_EQ((Strings{change}), merged) << c;
            const char *const env[] = {merged[0].c_str(), nullptr};
            ASSERT_STREQ("new", pmi_env_get(env, name.c_str(), fold)) << c;
            ASSERT_EQ((Strings{}), Merge({old.c_str()}, {name.c_str()}, fold)) << c;
        }
    }
}

TEST(Environment, FindsTheLastValueOfAName)
{
    const char *const env[] = {"PATH=1", "Path=2", "PATH=3",  "odd",
                               "=C:=x",  "E=",     "PATHS=4", nullptr};
    EXPECT_STREQ("3", pmi_env_get(env, "PATH", false));
    EXPECT_STREQ("2", pmi_env_get(env, "Path", false));
    EXPECT_EQ(nullptr, pmi_env_get(env, "path", false));
    EXPECT_STREQ("3", pmi_env_get(env, "path", true));
    EXPECT_STREQ("", pmi_env_get(env, "E", false));
    for (const char *name : {"odd", "", "=C:", "C:", "PAT", "E="}) {
        EXPECT_EQ(nullptr, pmi_env_get(env, name, true)) << name;
    }
}

pmi_record Sample()
{
    pmi_record r;
    memset(&r, 0, sizeof r);
    r.state = PMI_RECORD_EXITED;
    strcpy(r.id.boot, "0a-1b");
    r.id.pid = 4711;
    r.id.start = 18446744073709551615u;
    r.id.pidns = 4026531836u;
    r.id.pidfs = 99;
    r.starter = r.id;
    r.starter.pid = 1;
    r.epoch = 3;
    r.key = const_cast<char *>("pod 7%\n\xff");
    r.owner = const_cast<char *>("o");
    r.program = const_cast<char *>("/bin/x y");
    r.label = const_cast<char *>("");
    r.started_wall_ms = 1700000000000;
    r.detachment = PM_DETACH_LAUNCHER;
    r.exit.size = sizeof r.exit;
    r.exit.kind = PM_EXIT_SIGNALED;
    r.exit.signal = 9;
    r.exit.code = 0xffffffffu;
    r.exit.started_wall_ms = r.started_wall_ms;
    return r;
}

std::string Encode(const pmi_record &r)
{
    char *text = nullptr;
    size_t size = 0;
    EXPECT_EQ(PM_OK, pmi_record_encode(&r, &text, &size));
    std::string result(text, size);
    free(text);
    return result;
}

int Decode(const std::string &text, std::string *ret_problem = nullptr)
{
    // An exact-size copy, so that a sanitizer sees every read beyond the end.
    std::vector<char> exact(text.begin(), text.end());
    pmi_record r;
    const char *problem = nullptr;
    int code = pmi_record_decode(exact.data(), exact.size(), &r, &problem);
    if (code == PM_OK) {
        pmi_record_clear(&r);
    } else if (ret_problem != nullptr) {
        *ret_problem = problem;
    }
    return code;
}

std::string Reseal(const std::string &body)
{
    uint32_t crc = 0xffffffffu;
    for (char c : body) {
        crc ^= static_cast<unsigned char>(c);
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc & 1) != 0 ? (crc >> 1) ^ 0xedb88320u : crc >> 1;
        }
    }
    char line[32];
    snprintf(line, sizeof line, "crc32=%08lx\n", static_cast<unsigned long>(~crc));
    return body + line;
}

std::string Body()
{
    std::string text = Encode(Sample());
    return text.substr(0, text.size() - 15);
}

TEST(Record, ComesBackAsItWas)
{
    pmi_record sample = Sample();
    std::string text = Encode(sample);
    pmi_record r;
    const char *problem = nullptr;
    ASSERT_EQ(PM_OK, pmi_record_decode(text.data(), text.size(), &r, &problem)) << problem;
    EXPECT_STREQ(sample.key, r.key);
    EXPECT_STREQ(sample.program, r.program);
    EXPECT_STREQ("", r.label);
    EXPECT_EQ(0, memcmp(&sample.id, &r.id, sizeof r.id));
    EXPECT_EQ(0, memcmp(&sample.starter, &r.starter, sizeof r.starter));
    EXPECT_EQ(0, memcmp(&sample.exit, &r.exit, sizeof r.exit));
    EXPECT_EQ(sample.epoch, r.epoch);
    EXPECT_EQ(sample.started_wall_ms, r.started_wall_ms);
    EXPECT_EQ(text, Encode(r));
    pmi_record_clear(&r);
    EXPECT_EQ(text, Reseal(Body())) << "the checksum is the usual CRC-32";
}

TEST(Record, HoldsEveryByteInItsTextsAndPrintsOnlyAscii)
{
    std::string low, high;
    for (int c = 1; c < 256; c++) {
        (c < 128 ? low : high) += static_cast<char>(c);
    }
    pmi_record sample = Sample();
    std::string both = low + high;
    for (const std::string &key : {low, high}) {
        sample.key = const_cast<char *>(key.c_str());
        sample.owner = sample.program = sample.label = const_cast<char *>(both.c_str());
        std::string text = Encode(sample);
        for (char c : text.substr(text.find('\n'))) {
            ASSERT_TRUE(c == '\n' || (c > ' ' && c <= '~')) << static_cast<int>(c);
        }
        pmi_record r;
        const char *problem = nullptr;
        ASSERT_EQ(PM_OK, pmi_record_decode(text.data(), text.size(), &r, &problem)) << problem;
        EXPECT_EQ(key, r.key);
        EXPECT_EQ(both, r.owner);
        EXPECT_EQ(both, r.program);
        EXPECT_EQ(both, r.label);
        pmi_record_clear(&r);
    }
}

TEST(Record, HasThisTextForARunningDaemon)
{
    pmi_record r = Sample();
    r.state = PMI_RECORD_RUNNING;
    r.label = nullptr;
    EXPECT_EQ(Reseal("processmgr-record 1\n"
                     "state=running\n"
                     "key=pod%207%25%0A%FF\n"
                     "owner=o\n"
                     "program=/bin/x%20y\n"
                     "boot=0a-1b\n"
                     "pid=4711\n"
                     "start=18446744073709551615\n"
                     "pidns=4026531836\n"
                     "pidfs=99\n"
                     "starter-boot=0a-1b\n"
                     "starter-pid=1\n"
                     "starter-start=18446744073709551615\n"
                     "starter-pidns=4026531836\n"
                     "starter-pidfs=99\n"
                     "epoch=3\n"
                     "started-wall-ms=1700000000000\n"
                     "detachment=1\n"),
              Encode(r));
    // Published check value of CRC-32.
    EXPECT_EQ("123456789crc32=cbf43926\n", Reseal("123456789"));
}

TEST(Record, EveryStateComesBackWithAndWithoutALabel)
{
    for (int state = PMI_RECORD_STARTING; state <= PMI_RECORD_EXITED; state++) {
        for (const char *label : {static_cast<const char *>(nullptr), "", "x"}) {
            pmi_record sample = Sample();
            sample.state = static_cast<pmi_record_state>(state);
            sample.label = const_cast<char *>(label);
            std::string text = Encode(sample);
            EXPECT_EQ(state == PMI_RECORD_EXITED, text.find("exit-") != std::string::npos);
            pmi_record r;
            const char *problem = nullptr;
            ASSERT_EQ(PM_OK, pmi_record_decode(text.data(), text.size(), &r, &problem)) << problem;
            EXPECT_EQ(state, r.state);
            EXPECT_STREQ(label, r.label);
            EXPECT_EQ(state == PMI_RECORD_EXITED ? PM_EXIT_SIGNALED : 0, r.exit.kind);
            pmi_record_clear(&r);
        }
    }
}

TEST(Record, WhatCouldNotBeReadBackIsNotWritten)
{
    std::string k128(128, 'k'), k129(129, 'k'), l1024(1024, 'l'), l1025(1025, 'l'), o256(256, 'o');
    std::string plain(32768, 'p'), wide(32768, '\xff');
    char *text = nullptr;
    size_t size = 0;
    auto try_with = [&](const std::function<void(pmi_record &)> &change) {
        pmi_record r = Sample();
        change(r);
        int code = pmi_record_encode(&r, &text, &size);
        free(text);
        text = nullptr;
        return code;
    };
    auto set = [](char *pmi_record::*field, const std::string &value) {
        return [field, &value](pmi_record &r) { r.*field = const_cast<char *>(value.c_str()); };
    };
    EXPECT_EQ(PM_OK, try_with(set(&pmi_record::key, k128)));
    EXPECT_EQ(PM_ERR_INVALID, try_with(set(&pmi_record::key, k129)));
    EXPECT_EQ(PM_OK, try_with(set(&pmi_record::label, l1024)));
    EXPECT_EQ(PM_ERR_INVALID, try_with(set(&pmi_record::label, l1025)));
    EXPECT_EQ(PM_ERR_INVALID, try_with(set(&pmi_record::owner, o256)));
    EXPECT_EQ(PM_OK, try_with(set(&pmi_record::program, plain)));
    EXPECT_EQ(PM_ERR_TOO_BIG, try_with(set(&pmi_record::program, wide)));
    EXPECT_EQ(PM_ERR_INVALID, try_with([](pmi_record &r) { r.id.pid = 0; }));
    EXPECT_EQ(PM_ERR_INVALID, try_with([](pmi_record &r) { r.starter.boot[0] = '\0'; }));
    EXPECT_EQ(PM_ERR_INVALID, try_with([](pmi_record &r) { r.started_wall_ms = -1; }));
    EXPECT_EQ(PM_ERR_INVALID,
              try_with([](pmi_record &r) { r.exit.kind = static_cast<pm_exit_kind>(0); }));
    EXPECT_EQ(PM_ERR_INVALID,
              try_with([](pmi_record &r) { r.state = static_cast<pmi_record_state>(3); }));
}

TEST(Record, CutAtAnyByteIsRefused)
{
    std::string text = Encode(Sample());
    for (size_t i = 0; i < text.size(); i++) {
        EXPECT_EQ(PM_ERR_CORRUPT, Decode(text.substr(0, i))) << i;
    }
}

TEST(Record, AnyFlippedBitIsRefused)
{
    std::string text = Encode(Sample());
    for (size_t i = 0; i < text.size() * 8; i++) {
        std::string bad = text;
        bad[i / 8] = static_cast<char>(bad[i / 8] ^ (1 << (i % 8)));
        EXPECT_EQ(PM_ERR_CORRUPT, Decode(bad)) << i;
    }
}

TEST(Record, AnyLineLeftOutOrDoubledIsRefused)
{
    std::string body = Body();
    std::vector<std::string> lines;
    for (size_t at = 0; at < body.size();) {
        size_t end = body.find('\n', at) + 1;
        lines.push_back(body.substr(at, end - at));
        at = end;
    }
    for (size_t i = 0; i < lines.size(); i++) {
        std::string without, doubled;
        for (size_t k = 0; k < lines.size(); k++) {
            without += k == i ? "" : lines[k];
            doubled += k == i ? lines[k] + lines[k] : lines[k];
        }
        bool optional = lines[i].rfind("label=", 0) == 0;
        EXPECT_EQ(optional ? PM_OK : PM_ERR_CORRUPT, Decode(Reseal(without))) << lines[i];
        EXPECT_EQ(PM_ERR_CORRUPT, Decode(Reseal(doubled))) << lines[i];
    }
}

std::string Replaced(const std::string &from, const std::string &to)
{
    std::string body = Body();
    size_t at = body.find(from);
    EXPECT_NE(std::string::npos, at) << from;
    return Reseal(body.replace(at, from.size(), to));
}

TEST(Record, ValuesOutOfRangeAreRefused)
{
    EXPECT_EQ(PM_OK, Decode(Replaced("epoch=3", "epoch=4")));
    for (const char *value : {"epoch=", "epoch=-1", "epoch=03", "epoch=18446744073709551616",
                              "epoch=3x", "epoch=99999999999999999999999"}) {
        EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced("epoch=3", value))) << value;
    }
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced("pid=4711", "pid=0")));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced("state=exited", "state=dancing")));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced("owner=o", "owner=")));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced("owner=o", "owner=%00")));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced("owner=o", "owner=%4")));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced("owner=o", "owner=a b")));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced("owner=o", "owner=" + std::string(256, 'x'))));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced("exit-kind=2", "exit-kind=0")));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced("exit-kind=2", "exit-kind=4")));
    std::string key = "key=pod%207%25%0A%FF";
    EXPECT_EQ(PM_OK, Decode(Replaced(key, "key=" + std::string(128, 'k'))));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced(key, "key=" + std::string(129, 'k'))));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced(key, "key=")));
    EXPECT_EQ(PM_OK, Decode(Replaced("label=", "label=" + std::string(1024, 'l'))));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced("label=", "label=" + std::string(1025, 'l'))));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced("boot=0a-1b", "boot=" + std::string(40, 'b'))));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced("\npid=4711", "\npid=4294967296")));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced("detachment=1", "detachment=5")));
    EXPECT_EQ(PM_ERR_CORRUPT,
              Decode(Replaced("started-wall-ms=1700000000000", "started-wall-ms=-1")));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced("started-wall-ms=1700000000000",
                                              "started-wall-ms=9223372036854775808")));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Replaced("exit-code=4294967295", "exit-code=4294967296")));
}

TEST(Record, ARawByteThatIsNotPrintableIsRefusedEverywhere)
{
    for (int c = 0; c < 256; c++) {
        bool printable = c >= 0x20 && c < 0x7f;
        std::string byte(1, static_cast<char>(c));
        bool plain = printable && c != ' ' && c != '%';
        EXPECT_EQ(plain ? PM_OK : PM_ERR_CORRUPT, Decode(Replaced("owner=o", "owner=o" + byte)))
            << c;
        EXPECT_EQ(printable ? PM_OK : PM_ERR_CORRUPT,
                  Decode(Replaced("epoch=3\n", "x-a=1" + byte + "\nepoch=3\n")))
            << c;
    }
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Encode(Sample()) + '\0'));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Encode(Sample()) + '\n'));
}

TEST(Record, ARightChecksumOverATextCutAnywhereDoesNotMakeItARecord)
{
    std::string body = Body();
    for (size_t cut = 0; cut <= body.size(); cut++) {
        // A right checksum over a wrong text: only the fields can tell.
        EXPECT_EQ(cut == body.size() ? PM_OK : PM_ERR_CORRUPT, Decode(Reseal(body.substr(0, cut))))
            << cut;
        if (cut > 0) {
            (void)Decode(Reseal(body.substr(0, cut - 1) + body.substr(cut)));
        }
    }
}

TEST(Record, LinesInAnotherOrderAreRefused)
{
    EXPECT_EQ(PM_ERR_CORRUPT,
              Decode(Replaced("pidns=4026531836\npidfs=99\n", "pidfs=99\npidns=4026531836\n")));
    pmi_record r = Sample();
    r.state = PMI_RECORD_RUNNING;
    std::string running = Encode(r);
    running.resize(running.size() - 15);
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Reseal(running + "exit-kind=1\n")))
        << "an exit of one that runs";
}

TEST(Record, ALaterVersionIsSaidToBeOneAndRoomIsLeftForIt)
{
    std::string problem;
    EXPECT_EQ(PM_ERR_CORRUPT,
              Decode(Replaced("processmgr-record 1", "processmgr-record 2"), &problem));
    EXPECT_EQ("version 2 is newer than this library knows", problem);
    EXPECT_EQ(PM_ERR_CORRUPT, Decode("processmgr-record 9\nanything at all", &problem));
    EXPECT_EQ("version 9 is newer than this library knows", problem);
    EXPECT_EQ(PM_ERR_CORRUPT, Decode("processmgr-record 10\n", &problem));
    EXPECT_EQ("its version is newer than this library knows", problem);
    for (const char *version : {"", "0", "01", "-1", "1 ", "2x", "1111111", ":", "/"}) {
        std::string line = std::string("processmgr-record ") + version + "\n";
        EXPECT_EQ(PM_ERR_CORRUPT, Decode(line, &problem));
        EXPECT_EQ("the version is damaged", problem) << version;
    }
    EXPECT_EQ(PM_ERR_CORRUPT, Decode("processmgr-record 2", &problem)) << "the line may go on";
    EXPECT_EQ("torn", problem);
    EXPECT_EQ(PM_OK, Decode(Replaced("epoch=3\n", "x-new=1\nepoch=3\nx-other=2\n")));
    EXPECT_EQ(PM_OK, Decode(Reseal(Body() + "x-last=1\n")));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Reseal(Body() + "last=1\n")));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Reseal(Body() + "=1\n")));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Reseal(Body() + "x-no-value\n")));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(Reseal(Body() + "x-last=1")));
}

TEST(Record, FileNamesAreSafeAndDistinct)
{
    std::set<std::string> names;
    for (int c = 1; c < 256; c++) {
        std::string key(1, static_cast<char>(c));
        char name[PMI_RECORD_NAME_MAX];
        pmi_record_file_name(key.c_str(), name);
        for (const char *at = name; *at != '\0'; at++) {
            EXPECT_NE(nullptr, strchr("abcdefghijklmnopqrstuvwxyz0123456789-_.", *at)) << name;
        }
        names.insert(name);
    }
    EXPECT_EQ(255u, names.size());
    char a[PMI_RECORD_NAME_MAX], b[PMI_RECORD_NAME_MAX];
    pmi_record_file_name(std::string(128, 'x').c_str(), a);
    pmi_record_file_name(std::string(127, 'x').c_str(), b);
    EXPECT_STRNE(a, b);
    EXPECT_LT(strlen(a), size_t{PMI_RECORD_NAME_MAX});
}

TEST(Lock, ComesBackAndRefusesDamage)
{
    pmi_identity id = Sample().id;
    char *text = nullptr;
    size_t size = 0;
    ASSERT_EQ(PM_OK, pmi_lock_encode(&id, 12, &text, &size));
    pmi_identity back;
    uint64_t epoch = 0;
    EXPECT_EQ(PM_OK, pmi_lock_decode(text, size, &back, &epoch));
    EXPECT_EQ(12u, epoch);
    EXPECT_EQ(id.pid, back.pid);
    for (size_t i = 0; i < size; i++) {
        std::vector<char> cut(text, text + i);
        EXPECT_EQ(PM_ERR_CORRUPT, pmi_lock_decode(cut.data(), i, &back, &epoch)) << i;
    }
    for (size_t i = 0; i < size * 8; i++) {
        std::vector<char> bad(text, text + size);
        bad[i / 8] = static_cast<char>(bad[i / 8] ^ (1 << (i % 8)));
        EXPECT_EQ(PM_ERR_CORRUPT, pmi_lock_decode(bad.data(), size, &back, &epoch)) << i;
    }
    std::string record = Encode(Sample());
    EXPECT_EQ(PM_ERR_CORRUPT, pmi_lock_decode(record.data(), record.size(), &back, &epoch));
    EXPECT_EQ(PM_ERR_CORRUPT, Decode(std::string(text, size)));
    free(text);
}

pm_error Sample(pm_stage stage)
{
    pm_error e = PM_ERROR_INIT;
    e.code = PM_ERR_NOT_FOUND;
    e.stage = stage;
    strcpy(e.action, "start");
    strcpy(e.owner, "pod:7");
    strcpy(e.program, "agentd");
    return e;
}

std::string Format(const pm_error &e)
{
    char line[1024];
    int length = pm_error_format(&e, line, sizeof line);
    EXPECT_EQ(strlen(line), static_cast<size_t>(length));
    return line;
}

TEST(ErrorLine, NamesEveryStage)
{
    const char *const names[] = {"",         "check",  "search",      "stdio",   "pipe",
                                 "pty",      "job",    "console",     "keeper",  "fork",
                                 "launcher", "gate",   "registry",    "session", "group",
                                 "dup",      "limits", "credentials", "chdir",   "exec",
                                 "resume",   "watch",  "signal",      "wait"};
    for (int stage = 0; stage <= PM_STAGE_WAIT; stage++) {
        std::string at = stage == 0 ? "" : std::string(" at ") + names[stage];
        EXPECT_EQ("start of 'agentd' (owner pod:7) failed" + at + ": not found",
                  Format(Sample(static_cast<pm_stage>(stage))));
    }
    EXPECT_STREQ("?", pm_stage_name(static_cast<pm_stage>(PM_STAGE_WAIT + 1)));
}

TEST(ErrorLine, ShowsFieldAndHint)
{
    pm_error e = Sample(PM_STAGE_CHECK);
    e.code = PM_ERR_UNSUPPORTED;
    strcpy(e.field, "cgroup");
    strcpy(e.hint, "see the manual");
    EXPECT_EQ(
        "start of 'agentd' (owner pod:7) failed at check: not supported here; field 'cgroup'; "
        "see the manual",
        Format(e));
    e = PM_ERROR_INIT;
    strcpy(e.action, "open");
    e.code = PM_ERR_REGISTRY_BUSY;
    EXPECT_EQ("open failed: another living manager owns the registry", Format(e));
}

TEST(ErrorLine, SaysWhatTheSystemSaidWhereItSaidSomething)
{
    char said[256];
    pmi_os_error_text(2, said, sizeof said); // No such file, on every system.
    pm_error e = Sample(PM_STAGE_EXEC);
    e.os_code = 2;
    strcpy(e.hint, "looked in PATH=/bin");
    EXPECT_EQ(std::string("start of 'agentd' (owner pod:7) failed at exec: ") + said +
                  "; looked in PATH=/bin",
              Format(e));
    EXPECT_STRNE("", said);
    EXPECT_STRNE(pm_strerror(e.code), said);
}

TEST(ErrorLine, LeavesOutWhatIsNotKnown)
{
    pm_error e = Sample(PM_STAGE_EXEC);
    e.owner[0] = '\0';
    EXPECT_EQ("start of 'agentd' failed at exec: not found", Format(e));
    e = Sample(PM_STAGE_EXEC);
    e.program[0] = '\0';
    EXPECT_EQ("start (owner pod:7) failed at exec: not found", Format(e));
    e = PM_ERROR_INIT;
    EXPECT_EQ("no error", Format(e));
    // A caller built when the struct ended behind `owner`.
    e = Sample(PM_STAGE_EXEC);
    e.size = offsetof(pm_error, program);
    EXPECT_EQ("start (owner pod:7) failed at exec: not found", Format(e));
}

TEST(ErrorLine, EscapesWhatCouldActOnATerminal)
{
    pm_error e = Sample(PM_STAGE_EXEC);
    strcpy(e.program, "a\x1b[2J\n\xff\xc3\xa9\xc2\x9b\x7f");
    EXPECT_EQ("start of 'a\\x1b[2J\\x0a\\xff\xc3\xa9\\xc2\\x9b\\x7f' (owner pod:7) failed at exec: "
              "not found",
              Format(e));
    for (int c = 1; c < 256; c++) {
        memset(e.program, 0, sizeof e.program);
        e.program[0] = static_cast<char>(c);
        std::string line = Format(e);
        for (char shown : line) {
            EXPECT_TRUE(shown >= 0x20 && shown < 0x7f) << c;
        }
    }
}

TEST(ErrorLine, NeverOverflows)
{
    pm_error e = Sample(PM_STAGE_EXEC);
    memset(e.program, '\x01', sizeof e.program); // No NUL at all, each byte four characters.
    memset(e.hint, '\xc3', sizeof e.hint);
    char small[20];
    memset(small, 'z', sizeof small);
    int length = pm_error_format(&e, small, sizeof small - 1);
    EXPECT_GT(length, 1024);
    EXPECT_EQ(sizeof small - 2, strlen(small));
    EXPECT_EQ('z', small[sizeof small - 1]);
    EXPECT_EQ(length, pm_error_format(&e, nullptr, 0));
    memset(small, 'z', sizeof small);
    EXPECT_EQ(length, pm_error_format(&e, small, 0));
    EXPECT_EQ('z', small[0]) << "not even a NUL";
    EXPECT_EQ(length, pm_error_format(&e, small, 1));
    EXPECT_EQ('\0', small[0]);
    EXPECT_EQ('z', small[1]);
    for (char *field : {e.action, e.owner, e.field}) {
        memset(field, '\x01',
               field == e.action  ? sizeof e.action
               : field == e.owner ? sizeof e.owner
                                  : sizeof e.field);
    }
    e.os_code = 2;
    e.stage = PM_STAGE_CREDENTIALS;
    EXPECT_LT(pm_error_format(&e, nullptr, 0), 4096) << "what the header promises";
    EXPECT_EQ(PM_ERR_INVALID, pm_error_format(&e, nullptr, 1));
    EXPECT_EQ(PM_ERR_INVALID, pm_error_format(nullptr, small, sizeof small));
}

TEST(Names, AreKnownForEveryErrorAndNoOther)
{
    std::set<std::string> names, texts;
#define ADD_NAME(name, number, text)                                                               \
    names.insert(pm_error_name(PM_ERR_##name));                                                    \
    texts.insert(pm_strerror(PM_ERR_##name));                                                      \
    EXPECT_EQ(number, PM_ERR_##name);
    PM_ERROR_MAP(ADD_NAME)
    EXPECT_EQ(31u, names.size());
    EXPECT_EQ(31u, texts.size());
    EXPECT_STREQ("PM_ERR_?", pm_error_name(-1000));
    EXPECT_STREQ("unknown error", pm_strerror(7));
    EXPECT_STREQ(PM_VERSION_STRING, pm_version());
    EXPECT_EQ(100, PM_VERSION_NUMBER);
}

} // namespace
