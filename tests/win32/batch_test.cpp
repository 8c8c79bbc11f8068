// Batch files: cmd.exe reads its line by rules of its own, and nothing in an argument may become a
// command. Each hostile set tries to make a file in the folder that it runs in.

#include "fixture.h"

#include <cstdio>
#include <cstring>

#include <windows.h>

extern "C" {
#include "core/cmdline.h"
#include "sys.h"
}

using namespace contract;

namespace
{

std::string Narrow(const std::wstring &text)
{
    char narrow[65536];
    int size = WideCharToMultiByte(CP_UTF8, 0, text.data(), static_cast<int>(text.size()), narrow,
                                   sizeof narrow, nullptr, nullptr);
    return std::string(narrow, static_cast<size_t>(size));
}

std::wstring WideOf(const std::string &text)
{
    std::wstring wide(text.size(), L'\0'); // Never more units than bytes.
    int size = MultiByteToWideChar(CP_UTF8, 0, text.data(), static_cast<int>(text.size()), &wide[0],
                                   static_cast<int>(wide.size()));
    wide.resize(static_cast<size_t>(size));
    return wide;
}

std::vector<std::wstring> applications, lines;

void NoteLine(const wchar_t *application, const wchar_t *line, unsigned long)
{
    applications.push_back(application);
    lines.push_back(line);
}

// As the C runtimes since 2008 do it: within quotation marks two of them are one.
// https://learn.microsoft.com/cpp/c-language/parsing-c-command-line-arguments
std::vector<std::wstring> SplitLine(const wchar_t *at)
{
    std::vector<std::wstring> args;
    auto blank = [](wchar_t c) { return c == L' ' || c == L'\t'; };
    bool quoted = false;
    std::wstring arg;
    for (; *at != L'\0' && (quoted || !blank(*at)); at++) {
        if (*at == L'"') {
            quoted = !quoted;
        } else {
            arg += *at;
        }
    }
    args.push_back(arg);
    for (;;) {
        while (blank(*at)) {
            at++;
        }
        if (*at == L'\0') {
            return args;
        }
        arg.clear();
        quoted = false;
        while (*at != L'\0' && (quoted || !blank(*at))) {
            size_t slashes = wcsspn(at, L"\\");
            at += slashes;
            if (*at != L'"') {
                arg.append(slashes, L'\\');
                if (*at != L'\0' && (quoted || !blank(*at))) {
                    arg += *at++;
                }
                continue;
            }
            arg.append(slashes / 2, L'\\');
            if (slashes % 2 == 1) {
                arg += *at++;
            } else if (quoted && at[1] == L'"') {
                arg += L'"';
                at += 2;
            } else {
                quoted = !quoted;
                at++;
            }
        }
        args.push_back(arg);
    }
}

// What arrives, one line each: the program that the batch files start.
int Arrived(const std::vector<std::string> &)
{
    std::string text;
    std::vector<std::wstring> args = SplitLine(GetCommandLineW());
    for (size_t i = 3; i < args.size(); i++) {
        text += "<" + Narrow(args[i]) + ">\n";
    }
    fwrite(text.data(), 1, text.size(), stdout);
    fflush(stdout);
    return 0;
}
const RoleAdder arrived("arrived", Arrived);

using List = std::vector<std::string>;

const std::vector<List> &Hostile()
{
    static const std::vector<List> sets = {
        {"&echo x>m"},
        {"a&echo x>m"},
        {"\"&echo x>m"},
        {"\"&echo x>m&rem \""},
        {"abc\"&echo x>m"},
        {"123\">m"},
        {"\">m", "x"},
        {">m"},
        {"a", ">", "m"},
        {">>m", "&", "echo"},
        {"|more>m"},
        {"||echo x>m", "&&echo x>m"},
        {"x)", "&echo x>m", "("},
        {"^&echo x>m"},
        {"^\"&echo x>m"},
        {"hello^", "&echo x>m"},
        {"\\\"&echo x>m"},
        {"\\\\\"&echo x>m"},
        {"x\\", "&echo x>m"},
        {"x y\\", "\"&echo x>m"},
        {"\\", "\\\\", "&echo x>m"},
        {"%PATH%"},
        {"%CMDCMDLINE:~-1%&echo x>m"},
        {"%CMDCMDLINE:~-1%", "&echo x>m"},
        {"%%CMDCMDLINE:~-1%%&echo x>m", "100%", "%"},
        {"%QUOTE%&echo x>m"},
        {"%Q", "%", "Q%UOTE%&echo x>m"},
        {"!QUOTE!&echo x>m", "!PATH!"},
        {"key=\"&echo x>m\"", "a=b", "key = value"},
        {"", "&echo x>m", ""},
        {"/?", "/c echo x>m", "&echo x>m"},
        {"\xe2\x82\xac&echo x>m", "\xef\xbc\x82&echo x>m", "\xf0\x9f\x98\x80\"&echo x>m"},
        {"\t&echo x>m", "\v&echo x>m", ",;=&echo x>m"},
    };
    return sets;
}

class Batch : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
        work = folder + "\\work";
        MakeFolder(work);
        std::string self = "@\"" + SelfPath() + "\" --role arrived ";
        Write("all.bat", self + "%*");
        Write("each.cmd", self + "%1 %2 %3 %4 %5");
        Write("bare.BAT", self + "\"%~1\" \"%~2\" \"%~3\" \"%~4\" \"%~5\"");
    }

    void TearDown() override
    {
        pmi_test_create_process_hook = nullptr;
        Contract::TearDown();
    }

    std::string Write(const std::string &name, const std::string &line) const
    {
        WriteFile(folder + "\\" + name, line + "\r\n");
        return folder + "\\" + name;
    }

    // Not TrySpawn: a batch file gives no sign of life of the kind that one waits for.
    pm_process *Start(Child &child, int *ret_code, pm_error *ret_error)
    {
        pm_process *process = nullptr;
        *ret_code = pm_spawn(manager, child.Get(), &process, ret_error);
        if (process != nullptr) {
            Keep(process);
        }
        return process;
    }

    static Child Of(const std::string &program, const List &args)
    {
        Child child({});
        child.program = program;
        child.args = {"not looked at"};
        child.args.insert(child.args.end(), args.begin(), args.end());
        child.env = {"QUOTE=\""};
        child->allow_batch_file = true;
        child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_PIPE;
        return child;
    }

    std::string Run(const std::string &program, const List &args)
    {
        Child child = Of(program, args);
        child->cwd = work.c_str();
        int code = PM_OK;
        pm_error error = PM_ERROR_INIT;
        pm_process *process = Start(child, &code, &error);
        if (process == nullptr) {
            return ErrorText(error);
        }
        std::string text = ReadAll(process);
        text += ReadAll(process, PM_STDERR);
        Wait(process);
        return text;
    }

    void Refused(Child &child, int code, const std::string &field, const std::string &hint = "")
    {
        int result = PM_OK;
        pm_error error = PM_ERROR_INIT;
        EXPECT_EQ(nullptr, Start(child, &result, &error)) << child.program;
        EXPECT_EQ(code, result) << ErrorText(error);
        EXPECT_EQ(field, error.field) << ErrorText(error);
        EXPECT_NE(std::string::npos, std::string(error.hint).find(hint)) << ErrorText(error);
    }

    std::string work;

  public:
    void EveryFileGets(const List &set);
    std::string RunRaw(const std::string &program, const char *line);
};

std::string Lines(const List &args, size_t at_least = 0)
{
    std::string text;
    for (const auto &arg : args) {
        text += "<" + arg + ">\n";
    }
    for (size_t i = args.size(); i < at_least; i++) {
        text += "<>\n";
    }
    return text;
}

bool HoldsAny(const List &set, const char *characters);

void Batch::EveryFileGets(const List &set)
{
    for (const char *name : {"all.bat", "each.cmd", "bare.BAT"}) {
        bool bare = strcmp(name, "bare.BAT") == 0;
        std::string text = Run(folder + "\\" + name, set);
        // Wine 8 takes the marks inside away, too, where it takes those around (%~1).
        if (!bare || !OnWine() || !HoldsAny(set, "\"")) {
            EXPECT_EQ(Lines(set, bare ? 5 : 0), text) << name << ": " << Lines(set);
        }
        ASSERT_TRUE(ListFolder(work).empty()) << name << ": " << Lines(set);
    }
}

std::string Batch::RunRaw(const std::string &program, const char *line)
{
    Child child = Of(program, {});
    child.Get();
    child->argv = nullptr;
    child->raw_command_line = line;
    child->cwd = work.c_str();
    std::vector<const char *> env = {"QUOTE=\"", nullptr};
    child->env = env.data();
    pm_process *process = nullptr;
    pm_error error = PM_ERROR_INIT;
    if (pm_spawn(manager, &child.spec, &process, &error) != PM_OK) {
        return ErrorText(error);
    }
    Keep(process);
    std::string text = ReadAll(process);
    text += ReadAll(process, PM_STDERR);
    Wait(process);
    return text;
}

bool HoldsAny(const List &set, const char *characters)
{
    for (const auto &arg : set) {
        if (arg.find_first_of(characters) != std::string::npos) {
            return true;
        }
    }
    return false;
}

TEST_F(Batch, NothingInHostileSetsIsRunAndAllArrive)
{
    ASSERT_EQ(33u, Hostile().size());
    for (const auto &set : Hostile()) {
        if (!HoldsAny(set, "%")) {
            EveryFileGets(set);
        }
    }
}

TEST_F(Batch, NothingInHostileVariablesIsRunAndAllArrive)
{
    if (OnWine()) {
        GTEST_SKIP()
            << "cmd.exe of Wine 8 expands variables of arguments within a batch file again";
    }
    for (const auto &set : Hostile()) {
        if (HoldsAny(set, "%")) {
            EveryFileGets(set);
        }
    }
}

// The same lines without a batch file: a program in its place, so that what arrives is what cmd.exe
// has made of the line alone.
TEST_F(Batch, WhatCmdMakesOfTheLineIsTheArguments)
{
    wchar_t folder_of_system[MAX_PATH];
    ASSERT_NE(0u, GetSystemDirectoryW(folder_of_system, MAX_PATH));
    std::string shell = Narrow(folder_of_system) + "\\cmd.exe";
    for (const auto &set : Hostile()) {
        List all = {"p", "--role", "arrived"};
        all.insert(all.end(), set.begin(), set.end());
        std::vector<const char *> argv;
        for (const auto &arg : all) {
            argv.push_back(arg.c_str());
        }
        argv.push_back(nullptr);
        char *line = nullptr;
        const char *bad = nullptr;
        ASSERT_EQ(PM_OK, pmi_cmdline_join_batch(shell.c_str(), SelfPath().c_str(), argv.data(),
                                                &line, &bad));
        EXPECT_EQ(Lines(set), RunRaw(shell, line)) << line;
        free(line);
        ASSERT_TRUE(ListFolder(work).empty()) << Lines(set);
    }
}

TEST_F(Batch, ArgumentsArriveAlsoOfAFileWithAHardName)
{
    List sets[] = {{}, {"a", "b"}, {"c is for cat", "d is for dog"}, {"C:\\x y\\", "-o=1"}};
    for (const char *name : {"a b.bat", "x&y (1).cmd", "^!,;=.bat", "\xc3\xa9\xe2\x82\xac.bat"}) {
        std::string path = folder + "\\" + name;
        std::wstring wide = WideOf(path);
        ASSERT_TRUE(CopyFileW(WideOf(folder + "\\all.bat").c_str(), wide.c_str(), FALSE));
        for (const auto &set : sets) {
            EXPECT_EQ(Lines(set), Run(path, set)) << name;
        }
        DeleteFileW(wide.c_str());
    }
}

TEST_F(Batch, TheExitCodeIsThatOfTheFile)
{
    Child child = Of(Write("code.bat", "@exit /b 37"), {});
    int code = PM_OK;
    pm_process *process = Start(child, &code, nullptr);
    ASSERT_EQ(PM_OK, code);
    EXPECT_EQ(37u, Wait(process).code);
}

TEST_F(Batch, LineEndsAreRefused)
{
    for (const char *arg : {"a\nb", "\r", "x\r\necho y>m", "\n", "\x1a", "x\x1a&echo y>m"}) {
        Child child = Of(folder + "\\all.bat", {"fine", arg});
        Refused(child, PM_ERR_INVALID, "argv", "line end");
    }
}

TEST_F(Batch, TheLongestLineArrivesAndOneMoreIsRefused)
{
    std::string path = folder + "\\code.bat";
    Write("code.bat", "@exit /b 38");
    size_t fixed = 0;
    lines.clear();
    pmi_test_create_process_hook = NoteLine;
    Child probe = Of(path, {""});
    int code = PM_OK;
    pm_process *process = Start(probe, &code, nullptr);
    ASSERT_EQ(1u, lines.size());
    EXPECT_EQ(38u, Wait(process).code);
    fixed = lines[0].size() - 2;
    Child longest = Of(path, {std::string(8191 - fixed, 'x')});
    process = Start(longest, &code, nullptr);
    ASSERT_EQ(PM_OK, code);
    EXPECT_EQ(8191u, lines.back().size());
    EXPECT_EQ(38u, Wait(process).code);
    Child longer = Of(path, {std::string(8192 - fixed, 'x')});
    Refused(longer, PM_ERR_TOO_BIG, "argv", "8191");
    EXPECT_EQ(2u, lines.size()) << "refused before the call";
}

TEST_F(Batch, ALineOfTheCallersOwnIsRefused)
{
    Child child = Of(folder + "\\all.bat", {});
    child.Get();
    child->raw_command_line = "x";
    child->argv = nullptr;
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(PM_ERR_INVALID, pm_spawn(manager, &child.spec, nullptr, &error));
    EXPECT_STREQ("raw_command_line", error.field);
}

TEST_F(Batch, WhatCmdCannotWorkWithIsRefusedBefore)
{
    std::string deep = folder;
    while (deep.size() < 262) {
        deep += "\\0123456789012345678901234567890123456789";
        ASSERT_TRUE(CreateDirectoryW((L"\\\\?\\" + WideOf(deep)).c_str(), nullptr));
    }
    ASSERT_TRUE(CopyFileW(WideOf(folder + "\\all.bat").c_str(),
                          (L"\\\\?\\" + WideOf(deep) + L"\\all.bat").c_str(), FALSE));
    Child distant = Of(deep + "\\all.bat", {});
    Refused(distant, PM_ERR_TOO_BIG, "program");
    DeleteFileW((L"\\\\?\\" + WideOf(deep) + L"\\all.bat").c_str());
    for (; deep.size() > folder.size(); deep.resize(deep.rfind('\\'))) {
        RemoveDirectoryW((L"\\\\?\\" + WideOf(deep)).c_str());
    }
    Child share = Of(folder + "\\all.bat", {});
    share->cwd = "\\\\server\\share";
    Refused(share, PM_ERR_UNSUPPORTED, "cwd");
}

// Whoever sets these would be run.
TEST_F(Batch, TheShellIsTheSystemsWhateverTheEnvironmentSays)
{
    ASSERT_TRUE(CopyFileW(WideOf(SelfPath()).c_str(), WideOf(work + "\\cmd.exe").c_str(), FALSE));
    Child child = Of(folder + "\\all.bat", {"x"});
    child.env.push_back("PATH=" + work);
    child.env.push_back("COMSPEC=" + work + "\\cmd.exe");
    child->cwd = work.c_str();
    int code = PM_OK;
    applications.clear();
    pmi_test_create_process_hook = NoteLine;
    pm_process *process = Start(child, &code, nullptr);
    ASSERT_EQ(PM_OK, code);
    EXPECT_EQ("<x>\n", ReadAll(process));
    wchar_t folder_of_system[MAX_PATH];
    GetSystemDirectoryW(folder_of_system, MAX_PATH);
    EXPECT_EQ(folder_of_system + std::wstring(L"\\cmd.exe"), applications.at(0));
    Wait(process);
    DeleteFileW(WideOf(work + "\\cmd.exe").c_str());
}

// ------------------------------------------------------------------------------------------------
// Without consent
// ------------------------------------------------------------------------------------------------

TEST_F(Batch, IsFoundInPathWithConsentOnlyAndRefusedByNameWithout)
{
    Write("tool.bat", "@echo from tool.bat");
    Write("tool2.cmd", "@echo from tool2.cmd");
    for (const char *name : {"tool", "tool2"}) {
        Child child = Of(name, {});
        child.env.push_back("PATH=" + folder);
        child->allow_batch_file = false;
        Refused(child, PM_ERR_UNSUPPORTED, "program", "allow_batch_file");
        child->allow_batch_file = true;
        int code = PM_OK;
        pm_process *process = Start(child, &code, nullptr);
        ASSERT_EQ(PM_OK, code) << name;
        EXPECT_EQ("from " + std::string(name) + (name == std::string("tool") ? ".bat" : ".cmd") +
                      "\r\n",
                  ReadAll(process));
        Wait(process);
    }
    for (const char *name : {"tool.bat", "TOOL.BAT", "tool2.Cmd"}) {
        Child child = Of(name, {});
        child.env.push_back("PATH=" + folder);
        child->allow_batch_file = false;
        Refused(child, PM_ERR_UNSUPPORTED, "program", "allow_batch_file");
    }
}

// With consent or without: these are spellings that other checks do not see through.
TEST_F(Batch, SpellingsThatHideTheExtensionAreRefusedEvenWithConsent)
{
    for (bool allow : {false, true}) {
        for (const char *name : {"all.bat.", "all.bat ", "all.bat. .", "all.bat::$DATA",
                                 "all.bat:s", "all.bat\\", "x:all.bat"}) {
            Child child = Of(folder + "\\" + name, {});
            child->allow_batch_file = allow;
            Refused(child, PM_ERR_INVALID, "program");
        }
    }
    for (const char *name : {"all.bat\\.", "sub\\..\\all.bat"}) {
        Child child = Of(folder + "\\" + name, {});
        child->allow_batch_file = false;
        int code = PM_OK;
        EXPECT_EQ(nullptr, Start(child, &code, nullptr)) << name;
        EXPECT_TRUE(code == PM_ERR_UNSUPPORTED || code == PM_ERR_INVALID) << name << " " << code;
    }
    EXPECT_TRUE(ListFolder(work).empty());
}

} // namespace
