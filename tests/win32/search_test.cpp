// Which file a name means: never one that somebody has put beside us or where we stand.

#include "fixture.h"

#include <cwchar>

#include <windows.h>

extern "C" {
size_t pmi_win_root_length(const wchar_t *path);
}

using namespace contract;

namespace
{

// Says where it was found.
int Where(const std::vector<std::string> &)
{
    printf("%s\n", SelfPath().c_str());
    fflush(stdout);
    return 0;
}
const RoleAdder where("where", Where);

class Search : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
        MakeFolder(folder + "\\here");
        MakeFolder(folder + "\\there");
        GetCurrentDirectoryA(sizeof before, before);
        ASSERT_TRUE(SetCurrentDirectoryA((folder + "\\here").c_str()));
    }

    void TearDown() override
    {
        EXPECT_TRUE(SetCurrentDirectoryA(before));
        for (const auto &path : planted) {
            EXPECT_TRUE(Eventually([&] { return DeleteFileA(path.c_str()) != FALSE; })) << path;
        }
        Contract::TearDown();
    }

    void Plant(const std::string &path)
    {
        ASSERT_TRUE(CopyFileA(SelfPath().c_str(), path.c_str(), FALSE)) << path;
        planted.push_back(path);
    }

    std::string Beside() const
    {
        return SelfPath().substr(0, SelfPath().rfind('\\'));
    }

    // Where that name leads, or the error's name.
    std::string Lead(const std::string &program, const std::vector<std::string> &env,
                     bool batch = false, const std::string &cwd = "")
    {
        Child child({"where"});
        child.program = program;
        child->cwd = cwd.empty() ? nullptr : cwd.c_str();
        child.env = env;
        child->allow_batch_file = batch;
        child->stdout_slot.kind = PM_STDIO_PIPE;
        int code = PM_OK;
        pm_error error = PM_ERROR_INIT;
        pm_process *process = TrySpawn(child, &code, &error);
        if (process == nullptr) {
            return pm_error_name(code);
        }
        std::string text = ReadLine(process);
        Wait(process);
        return text;
    }

    char before[4096];
    std::vector<std::string> planted;
};

TEST_F(Search, WhatIsPlantedHereOrBesideTheHostIsNotRun)
{
    for (const std::string &place : {folder + "\\here", Beside()}) {
        Plant(place + "\\pmtool.exe");
        Plant(place + "\\pmtool.com");
        planted.push_back(place + "\\pmtool.bat");
        WriteFile(planted.back(), "@echo planted\r\n");
    }
    // Entries that mean the current folder, or one relative to it.
    for (const std::string &path :
         {std::string(), std::string("."), std::string(";;"), std::string(".;.\\;here"),
          std::string("..\\here;C:"), "\"\";" + folder + "\\there", std::string("\\;%CD%")}) {
        for (bool batch : {false, true}) {
            for (const char *name : {"pmtool", "pmtool.exe", "pmtool.com", "pmtool.bat"}) {
                ASSERT_EQ("PM_ERR_NOT_FOUND", Lead(name, {"PATH=" + path}, batch)) << path;
            }
        }
    }
    Plant(folder + "\\there\\pmtool.exe");
    EXPECT_EQ(folder + "\\there\\pmtool.exe",
              Lead("pmtool", {"PATH=.;" + folder + "\\there;" + Beside()}));
}

TEST_F(Search, PathextOfTheChildGivesTheOrder)
{
    Plant(folder + "\\there\\pmtool.exe");
    Plant(folder + "\\there\\pmtool.com");
    std::string path = "PATH=" + folder + "\\there";
    std::string exe = folder + "\\there\\pmtool.exe", com = folder + "\\there\\pmtool.com";
    EXPECT_EQ(com, Lead("pmtool", {path, "PATHEXT=.COM;.EXE"}));
    EXPECT_EQ(exe, Lead("pmtool", {path, "PATHEXT=.EXE;.COM"}));
    EXPECT_EQ(exe, Lead("pmtool", {path, "PathExt=.js;.exe;.vbs;.COM"}));
    EXPECT_EQ(com, Lead("pmtool", {path, "PATHEXT=;.EX;;.com.;.Com"}));
    EXPECT_EQ("PM_ERR_NOT_FOUND", Lead("pmtool", {path, "PATHEXT=.JS;.PS1"}));
    EXPECT_EQ(com, Lead("pmtool", {path, "PATHEXT="}));
    EXPECT_EQ(com, Lead("pmtool", {path, "PATHEXT"})) << "taken out";
    EXPECT_EQ(exe, Lead("pmtool.exe", {path, "PATHEXT=.COM"})) << "a name as it stands";
    // Also of a path without an extension.
    EXPECT_EQ(exe, Lead(folder + "\\there\\pmtool", {"PATHEXT=.EXE"}));
}

TEST_F(Search, ABatchFileComesInItsPlaceOfPathextWithConsentAlone)
{
    Plant(folder + "\\there\\pmtool.exe");
    WriteFile(folder + "\\there\\pmtool.bat", "@echo batch\r\n");
    std::string path = "PATH=" + folder + "\\there", exe = folder + "\\there\\pmtool.exe";
    EXPECT_EQ(exe, Lead("pmtool", {path, "PATHEXT=.BAT;.EXE"}));
    EXPECT_EQ(exe, Lead("pmtool", {path, "PATHEXT=.EXE;.BAT"}, true));
    EXPECT_EQ("PM_ERR_UNSUPPORTED", Lead("pmtool", {path, "PATHEXT=.BAT"}));
    EXPECT_EQ("PM_ERR_NOT_FOUND", Lead("pmtool", {path, "PATHEXT=.CMD"}, true));
    Child child({});
    child.program = "pmtool";
    child.env = {path, "PATHEXT=.BAT;.EXE"};
    child->allow_batch_file = true;
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = nullptr; // A batch file gives no sign of life to wait for.
    ASSERT_EQ(PM_OK, pm_spawn(manager, child.Get(), &process, nullptr));
    Keep(process);
    EXPECT_EQ("batch", ReadLine(process));
    Wait(process);
}

TEST_F(Search, ANameWithADotMayStillWantItsExtension)
{
    std::string there = folder + "\\there\\", path = "PATH=" + folder + "\\there";
    Plant(there + "py3.11.exe");
    EXPECT_EQ(there + "py3.11.exe", Lead("py3.11", {path, "PATHEXT=.COM;.EXE"}));
    EXPECT_EQ(there + "py3.11.exe", Lead(there + "py3.11", {"PATHEXT=.COM;.EXE"}));
    EXPECT_EQ("PM_ERR_NOT_FOUND", Lead("py3.11", {path, "PATHEXT=.COM"}));
    Plant(there + "py3.11");
    EXPECT_EQ(there + "py3.11", Lead("py3.11", {path})) << "as it stands comes first";
    WriteFile(there + "tool.v2.bat", "@echo batch\r\n");
    EXPECT_EQ("PM_ERR_UNSUPPORTED", Lead("tool.v2", {path})) << "a batch file, and no consent";
    EXPECT_EQ("PM_ERR_UNSUPPORTED", Lead("tool.v2.bat", {path}));
    for (const char *refused : {"py3.11.", "py3.11 ", "py3.11.exe.", "x:py3.11"}) {
        EXPECT_EQ("PM_ERR_INVALID", Lead(refused, {path})) << refused;
    }
}

TEST_F(Search, AFileThatIsNamedByItsPathNeedsNoExtension)
{
    std::string there = folder + "\\there\\", path = "PATH=" + folder + "\\there";
    Plant(there + "bare");
    EXPECT_EQ(there + "bare", Lead(there + "bare", {}));
    EXPECT_EQ(there + "bare", Lead("..\\there\\bare", {}));
    EXPECT_EQ("PM_ERR_NOT_FOUND", Lead("bare", {path})) << "not by its name alone";
    Plant(there + "bare.exe");
    EXPECT_EQ(there + "bare", Lead(there + "bare", {}));
    EXPECT_EQ(there + "bare.exe", Lead("bare", {path}));
    MakeFolder(there + "inner");
    EXPECT_EQ("PM_ERR_NOT_EXECUTABLE", Lead(there + "inner", {}));
    EXPECT_TRUE(RemoveDirectoryA((there + "inner").c_str()));
}

TEST_F(Search, APathThatIsTakenLiterallyIsTaken)
{
    std::string prefix = "\\\\?\\", there = folder + "\\there\\";
    Plant(there + "tool.exe");
    std::string found = Lead(prefix + there + "tool.exe", {});
    EXPECT_NE(std::string::npos, found.find(there + "tool.exe")) << found;
    found = Lead(prefix + there + "tool", {"PATHEXT=.EXE"});
    EXPECT_NE(std::string::npos, found.find(there + "tool.exe")) << found;
    EXPECT_EQ("PM_ERR_NOT_FOUND", Lead(prefix + there + "none.exe", {}));
    for (const char *refused : {"tool.exe.", "tool.exe::$DATA", "x:tool.exe"}) {
        EXPECT_EQ("PM_ERR_INVALID", Lead(prefix + there + refused, {})) << refused;
    }
    EXPECT_EQ("PM_ERR_INVALID", Lead(prefix + "C:tool.exe", {}));
}

TEST_F(Search, ARootedPathBeginsAtTheRootOfTheFolder)
{
    const struct {
        const wchar_t *path;
        size_t length;
    } cases[] = {{L"C:\\work\\x", 2},
                 {L"C:\\", 2},
                 {L"\\\\srv\\share\\dir\\x", 11},
                 {L"\\\\srv\\share", 11},
                 {L"\\\\srv\\share\\", 11},
                 {L"\\\\srv", 5},
                 {L"\\\\?\\C:\\work", 6},
                 {L"\\\\?\\UNC\\srv\\share\\dir", 17},
                 {L"\\\\?\\unc\\srv\\share", 17},
                 {L"\\\\?\\Volume{1}\\dir", 13}};
    for (const auto &one : cases) {
        EXPECT_EQ(one.length, pmi_win_root_length(one.path))
            << std::string(one.path, one.path + wcslen(one.path));
    }
    std::string there = folder + "\\there";
    Plant(there + "\\tool.exe");
    MakeFolder(there + "\\work");
    // The trap: what is meant from the root, below the folder.
    std::string rooted = there.substr(2) + "\\tool.exe";
    for (const std::string &cwd :
         {there + "\\work", "\\\\?\\" + there + "\\work", "\\\\?\\" + there}) {
        std::string found = Lead(rooted, {}, false, cwd);
        EXPECT_NE(std::string::npos, found.find(there + "\\tool.exe")) << cwd << ": " << found;
    }
    EXPECT_TRUE(RemoveDirectoryA((there + "\\work").c_str()));
}

} // namespace
