// Long paths and names of all kinds: what Windows takes arrives, the rest is refused by name.

#include "fixture.h"

#include <cstdio>

#include <windows.h>

extern "C" {
#include "core/utf.h"
#include "sys.h"
}

using namespace contract;

namespace
{

std::wstring WideOf(const std::string &text)
{
    uint16_t *units = nullptr;
    size_t count = 0;
    EXPECT_EQ(PM_OK, pmi_utf8_to_utf16(text.c_str(), &units, &count));
    std::wstring wide(units, units + count);
    free(units);
    return wide;
}

std::string Narrow(const wchar_t *text)
{
    char *narrow = nullptr;
    EXPECT_EQ(PM_OK,
              pmi_utf16_to_utf8(reinterpret_cast<const uint16_t *>(text), wcslen(text), &narrow));
    std::string copy = narrow;
    free(narrow);
    return copy;
}

// Own path, folder and the variable that is named, as UTF-8.
int Surroundings(const std::vector<std::string> &)
{
    wchar_t text[8192];
    std::string all;
    GetModuleFileNameW(nullptr, text, 8192);
    all += Narrow(text) + "\n";
    GetCurrentDirectoryW(8192, text);
    all += Narrow(text) + "\n";
    GetEnvironmentVariableW(L"PM_TEST_TEXT", text, 8192);
    all += Narrow(text) + "\n";
    fwrite(all.data(), 1, all.size(), stdout);
    fflush(stdout);
    return 0;
}
const RoleAdder surroundings("surroundings", Surroundings);

int calls;

void CountCall(const wchar_t *, const wchar_t *, unsigned long)
{
    calls++;
}

class Path : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
        calls = 0;
        pmi_test_create_process_hook = CountCall;
    }

    void TearDown() override
    {
        pmi_test_create_process_hook = nullptr;
        for (; !made.empty(); made.pop_back()) {
            std::wstring path = L"\\\\?\\" + WideOf(made.back());
            EXPECT_TRUE(Eventually(
                [&] { return RemoveDirectoryW(path.c_str()) || DeleteFileW(path.c_str()); }));
        }
        Contract::TearDown();
    }

    void Make(const std::string &path)
    {
        ASSERT_TRUE(CreateDirectoryW((L"\\\\?\\" + WideOf(path)).c_str(), nullptr)) << path;
        made.push_back(path);
    }

    // A folder whose path has so many characters.
    std::string Deep(size_t length)
    {
        std::string path = folder;
        while (path.size() + 41 < length) {
            path += "\\" + std::string(39, 'd');
            Make(path);
        }
        path += "\\" + std::string(length - path.size() - 1, 'e');
        Make(path);
        return path;
    }

    std::string CopyOfUs(const std::string &path)
    {
        EXPECT_TRUE(
            CopyFileW(WideOf(SelfPath()).c_str(), (L"\\\\?\\" + WideOf(path)).c_str(), TRUE))
            << path;
        made.push_back(path);
        return path;
    }

    static Child Of(const std::string &program)
    {
        Child child({"surroundings"});
        child.program = program;
        child->stdout_slot.kind = PM_STDIO_PIPE;
        return child;
    }

    std::vector<std::string> made;
};

TEST_F(Path, AProgramOfThreeHundredCharactersRunsOrIsRefusedByName)
{
    Child child = Of(CopyOfUs(Deep(288) + "\\program.exe"));
    int code = PM_OK;
    pm_error error = PM_ERROR_INIT;
    ASSERT_EQ(300u, child.program.size());
    pm_process *process = TrySpawn(child, &code, &error);
    if (process != nullptr) {
        EXPECT_NE(std::string::npos, ReadLine(process).find("program.exe"));
        Wait(process);
        return;
    }
    EXPECT_EQ(PM_ERR_TOO_BIG, code) << ErrorText(error);
    EXPECT_STREQ("program", error.field);
    EXPECT_NE(std::string::npos, std::string(error.hint).find("259")) << error.hint;
}

TEST_F(Path, AFolderOfThreeHundredCharactersIsRefusedBeforeTheCall)
{
    std::string cwd = Deep(300);
    for (pm_mode mode : {PM_MODE_NORMAL, PM_MODE_DAEMON}) {
        Child child({"exit", "0"});
        child->mode = mode;
        child->key = mode == PM_MODE_DAEMON ? "d" : nullptr;
        child->cwd = cwd.c_str();
        int code = PM_OK;
        pm_error error = PM_ERROR_INIT;
        EXPECT_EQ(nullptr, TrySpawn(child, &code, &error));
        EXPECT_EQ(PM_ERR_TOO_BIG, code) << ErrorText(error);
        EXPECT_EQ(PM_STAGE_CHDIR, error.stage);
        EXPECT_STREQ("cwd", error.field);
        EXPECT_EQ(0, calls);
    }
}

TEST_F(Path, TheLongestFolderIsTakenAndOneMoreIsRefused)
{
    std::string most = Deep(258);
    Child child = Of(SelfPath());
    child->cwd = most.c_str();
    pm_process *process = Spawn(child);
    ASSERT_NE(nullptr, process);
    ReadLine(process);
    EXPECT_EQ(most, ReadLine(process));
    Wait(process);
    made.push_back(most + "f");
    ASSERT_TRUE(CreateDirectoryW((L"\\\\?\\" + WideOf(made.back())).c_str(), nullptr));
    child->cwd = made.back().c_str();
    int code = PM_OK;
    EXPECT_EQ(nullptr, TrySpawn(child, &code, nullptr));
    EXPECT_EQ(PM_ERR_TOO_BIG, code);
}

TEST_F(Path, ALongNameOfTheFolderForAShortOneIsTaken)
{
    std::string inner = folder + "\\in";
    Make(inner);
    std::string cwd = inner;
    while (cwd.size() < 300) {
        cwd += "\\..\\in";
    }
    Child child = Of(SelfPath());
    child->cwd = cwd.c_str();
    pm_process *process = Spawn(child);
    ASSERT_NE(nullptr, process);
    ReadLine(process);
    EXPECT_EQ(inner, ReadLine(process));
    Wait(process);
}

TEST_F(Path, NamesInAnyScriptArrive)
{
    std::string inner = folder + "\\\xc3\xa9 \xe6\x97\xa5\xe6\x9c\xac \xf0\x9f\x98\x80";
    Make(inner);
    Child child = Of(CopyOfUs(inner + "\\pr\xc3\xb6gram \xe2\x82\xac.exe"));
    std::string text = "\xd0\xb6 \xf0\x9f\x98\x80 \xed\xa0\x80 alone"; // With a lone surrogate.
    child.env = {"PM_TEST_TEXT=" + text};
    child->cwd = inner.c_str();
    pm_process *process = Spawn(child);
    ASSERT_NE(nullptr, process);
    EXPECT_EQ(child.program, ReadLine(process));
    EXPECT_EQ(inner, ReadLine(process));
    EXPECT_EQ(text, ReadLine(process));
    Wait(process);
}

TEST_F(Path, WhatIsNoTextIsRefusedByName)
{
    const struct {
        const char *program, *cwd, *env, *argument, *field;
    } cases[] = {
        {"C:\\x\xff.exe", nullptr, nullptr, nullptr, "program"},
        {nullptr, "C:\\\xc3", nullptr, nullptr, "cwd"},
        {nullptr, nullptr, "A=\xf5", nullptr, "env"},
        {nullptr, nullptr, nullptr, "\xe2\x82", "argv"},
    };
    for (const auto &c : cases) {
        Child child({"exit", "0", c.argument != nullptr ? c.argument : "x"});
        child.program = c.program != nullptr ? c.program : SelfPath();
        child->cwd = c.cwd;
        if (c.env != nullptr) {
            child.env = {c.env};
        }
        int code = PM_OK;
        pm_error error = PM_ERROR_INIT;
        EXPECT_EQ(nullptr, TrySpawn(child, &code, &error)) << c.field;
        EXPECT_EQ(PM_ERR_INVALID, code) << c.field;
        EXPECT_STREQ(c.field, error.field);
    }
    EXPECT_EQ(0, calls);
}

TEST_F(Path, AProgramWithATrailingDotOrBlankIsRefused)
{
    CopyOfUs(folder + "\\tool.exe");
    for (const char *name :
         {"tool.exe.", "tool.exe ", "tool.exe..", "tool.exe. ", "tool.", "tool "}) {
        for (bool with_path : {true, false}) {
            Child child = Of(with_path ? folder + "\\" + name : name);
            child.env = {"PATH=" + folder};
            int code = PM_OK;
            pm_error error = PM_ERROR_INIT;
            EXPECT_EQ(nullptr, TrySpawn(child, &code, &error)) << name;
            EXPECT_EQ(PM_ERR_INVALID, code) << name;
            EXPECT_STREQ("program", error.field);
        }
    }
    EXPECT_EQ(0, calls);
}

} // namespace
