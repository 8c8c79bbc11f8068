// Arguments, whatever is in them, through a real CreateProcessW and back through both parsers.

#include "fixture.h"

#include <cstdio>
#include <cstdlib>
#include <random>

#include <windows.h>

#include <shellapi.h>

extern "C" {
#include "core/cmdline.h"
#include "core/utf.h"
int __wgetmainargs(int *argc, wchar_t ***argv, wchar_t ***env, int glob, void *info);
}

using namespace contract;

namespace
{

std::wstring Wide(const std::string &text)
{
    int size = MultiByteToWideChar(CP_UTF8, 0, text.c_str(), -1, nullptr, 0);
    std::wstring wide(static_cast<size_t>(size), L'\0');
    MultiByteToWideChar(CP_UTF8, 0, text.c_str(), -1, &wide[0], size);
    wide.pop_back();
    return wide;
}

// One line, whatever the text holds.
std::string Hex(const std::wstring &text)
{
    std::string hex = "<";
    for (wchar_t c : text) {
        char four[8];
        snprintf(four, sizeof four, "%04x", static_cast<unsigned>(c));
        hex += four;
    }
    return hex + ">\n";
}

// Everything after "--role NAME", as the shell's parser and as the C runtime's see it.
int WideArgs(const std::vector<std::string> &)
{
    int count = 0, crt_count = 0, info = 0;
    wchar_t **list = CommandLineToArgvW(GetCommandLineW(), &count);
    wchar_t **crt = nullptr, **env = nullptr;
    if (list == nullptr || __wgetmainargs(&crt_count, &crt, &env, 0, &info) != 0) {
        return 1;
    }
    std::string text;
    for (int i = 3; i < count; i++) {
        text += Hex(list[i]);
    }
    text += "crt\n";
    for (int i = 3; i < crt_count; i++) {
        text += Hex(crt[i]);
    }
    fwrite(text.data(), 1, text.size(), stdout);
    fflush(stdout);
    return 0;
}
const RoleAdder wide_args("wide-args", WideArgs);

class Argv : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
    }

    void RoundTrip(const std::vector<std::string> &list)
    {
        Child child({"wide-args"});
        child.args.insert(child.args.end(), list.begin(), list.end());
        child->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *process = Spawn(child);
        ASSERT_NE(nullptr, process);
        std::string expected;
        for (const auto &arg : list) {
            expected += Hex(Wide(arg));
        }
        EXPECT_EQ(expected + "crt\n" + expected, ReadAll(process));
        EXPECT_EQ(0u, Wait(process).code);
    }
};

const std::vector<std::string> &Nasty()
{
    static const std::vector<std::string> nasty = {
        "",
        " ",
        "\t",
        "\n",
        "\r\n",
        "\v",
        "\"",
        "\"\"",
        "\"\"\"",
        "\\",
        "\\\\",
        "\\\"",
        "\\\\\"",
        "\\\\\\\"",
        "a\\",
        "a\\\\",
        "a b\\",
        "a b\\\\",
        "c:\\x y\\",
        "\" \"",
        "a\"b\"c",
        "\"a b\"",
        "a\\\"b c\\",
        "%PATH%",
        "%%",
        "!x!",
        "^",
        "^&|<>()",
        "&whoami",
        "*",
        "?",
        "*.exe",
        "'",
        "'a b'",
        "$HOME",
        "`x`",
        "--",
        "-",
        "/?",
        "@file",
        "=",
        ";",
        "\xc3\xa9\xe2\x82\xac",
        "\xf0\x9f\x98\x80 \xf0\x9f\x98\x80",
        "\xe6\x97\xa5\xe6\x9c\xac\\",
        "\x01\x02\x7f",
        std::string(3000, '"'),
        std::string(3000, '\\'),
        std::string(3000, '\\') + "\"",
        std::string(8000, 'x') + " y",
    };
    return nasty;
}

TEST_F(Argv, FiftyHostileTextsArriveInOneProcess)
{
    RoundTrip(Nasty());
}

std::vector<std::string> HostileList(std::minstd_rand *random)
{
    std::vector<std::string> list;
    for (size_t k = (*random)() % 12; k > 0; k--) {
        list.push_back(Nasty()[(*random)() % (Nasty().size() - 4)]);
    }
    return list;
}

TEST_F(Argv, AHostileListIsAllOfACommandLine)
{
    std::minstd_rand random(7);
    for (int i = 0; i < 15; i++) {
        RoundTrip(HostileList(&random));
    }
}

TEST_F(Argv, FortyHostileListsArriveInEachProcess)
{
    std::minstd_rand random(8);
    for (int process = 0; process < 5; process++) {
        std::vector<std::string> all;
        for (int i = 0; i < 40; i++) {
            std::vector<std::string> list = HostileList(&random);
            all.insert(all.end(), list.begin(), list.end());
            all.push_back("end of list " + std::to_string(i));
        }
        RoundTrip(all);
    }
}

TEST_F(Argv, TheLongestCommandLineArrivesAndOneMoreIsRefused)
{
    Child probe({"wide-args", ""});
    size_t fixed = 0; // "program" --role wide-args, a space, and the NUL.
    fixed = Wide(probe.program).size() + 3;
    fixed += Wide("--role wide-args").size() + 1 + 1;
    if (probe.program.find(' ') == std::string::npos) {
        fixed -= 2;
    }
    RoundTrip({std::string(32767 - fixed, 'x')});
    Child child({"wide-args", std::string(32767 - fixed + 1, 'x')});
    int code = 0;
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(nullptr, TrySpawn(child, &code, &error));
    EXPECT_EQ(PM_ERR_TOO_BIG, code);
    EXPECT_STREQ("argv", error.field);
}

class RawLine : public Argv
{
  protected:
    int Start(const std::string &line, pm_process **ret_process, pm_error *ret_error)
    {
        Child child({});
        child.Get();
        child->argv = nullptr;
        child->raw_command_line = line.c_str();
        child->stdout_slot.kind = PM_STDIO_PIPE;
        int code = pm_spawn(manager, &child.spec, ret_process, ret_error);
        if (code == PM_OK) {
            Keep(*ret_process);
        }
        return code;
    }
};

int WholeLine(const std::vector<std::string> &)
{
    std::string text = Hex(GetCommandLineW());
    fwrite(text.data(), 1, text.size(), stdout);
    fflush(stdout);
    return 0;
}
const RoleAdder whole_line("whole-line", WholeLine);

TEST_F(RawLine, ArrivesAsItIs)
{
    for (const char *rest : {"", " ", " a  b\t\"c\" \"\"\"d", " /opt:\"x y\"\\\\ %PATH% ^ &",
                             " 'x' \x01", " \xc3\xa9 \xf0\x9f\x98\x80", " \xed\xa0\x80 lone"}) {
        std::string line = std::string("anything --role whole-line") + rest;
        pm_process *process = nullptr;
        pm_error error = PM_ERROR_INIT;
        ASSERT_EQ(PM_OK, Start(line, &process, &error)) << ErrorText(error);
        uint16_t *units = nullptr;
        size_t count = 0;
        ASSERT_EQ(PM_OK, pmi_utf8_to_utf16(line.c_str(), &units, &count));
        EXPECT_EQ(Hex(std::wstring(units, units + count)), ReadAll(process));
        free(units);
        Wait(process);
    }
}

TEST_F(RawLine, ThatIsTooLongIsRefused)
{
    pm_process *process = nullptr;
    pm_error error = PM_ERROR_INIT;
    std::string line = "x --role whole-line ";
    // Units of UTF-16 count, not bytes.
    while (line.size() < 3 * 20000) {
        line += "\xe2\x82\xac";
    }
    ASSERT_EQ(PM_OK, Start(line, &process, &error)) << ErrorText(error);
    EXPECT_NE("", ReadAll(process));
    Wait(process);
    EXPECT_EQ(PM_ERR_TOO_BIG, Start(line + std::string(20000, 'x'), &process, &error));
    EXPECT_STREQ("raw_command_line", error.field);
    EXPECT_EQ(PM_ERR_INVALID, Start("x \xff", &process, &error));
    EXPECT_STREQ("raw_command_line", error.field);
}

// Without a start: what is built, through the system's parser.
void ExpectParsed(const std::vector<std::string> &list)
{
    std::vector<const char *> argv = {"p"};
    for (const auto &arg : list) {
        argv.push_back(arg.c_str());
    }
    argv.push_back(nullptr);
    char *text = nullptr;
    ASSERT_EQ(PM_OK, pmi_cmdline_join(argv.data(), &text));
    int count = 0;
    wchar_t **parsed = CommandLineToArgvW(Wide(text).c_str(), &count);
    ASSERT_NE(nullptr, parsed);
    ASSERT_EQ(static_cast<int>(list.size()) + 1, count) << text;
    for (size_t i = 0; i < list.size(); i++) {
        ASSERT_EQ(Wide(list[i]), parsed[i + 1]) << text;
    }
    LocalFree(parsed);
    free(text);
}

TEST(CommandLine, EveryShortStringOfFiveSymbolsIsParsedBack)
{
    const char symbols[] = {'a', ' ', '"', '\\', '\t'};
    std::vector<std::string> level = {""};
    size_t seen = 0;
    for (int length = 0; length <= 5; length++) {
        std::vector<std::string> next;
        for (const auto &text : level) {
            ExpectParsed({text, "end"});
            seen++;
            for (char c : symbols) {
                next.push_back(text + c);
            }
        }
        level.swap(next);
    }
    EXPECT_EQ(3906u, seen);
}

TEST(CommandLine, TenThousandRandomListsAreParsedBack)
{
    std::minstd_rand random(11);
    const std::string alphabet = "ab \t\"\"\\\\%^&'";
    for (int i = 0; i < 10000; i++) {
        std::vector<std::string> list(random() % 5);
        for (auto &arg : list) {
            for (size_t k = random() % 12; k > 0; k--) {
                arg += alphabet[random() % alphabet.size()];
            }
        }
        ExpectParsed(list);
    }
}

} // namespace
