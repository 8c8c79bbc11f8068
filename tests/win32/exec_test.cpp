// Starts that cannot succeed: the stage, the error and the system's own number, and nothing left.

#include "fixture.h"

#include <cstring>

#include <windows.h>

using namespace contract;

namespace
{

class Exec : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
    }

    // Both modes must say the same.
    void Refused(const std::string &program, int code, pm_stage stage, const std::string &field,
                 const std::string &cwd = "")
    {
        for (pm_mode mode : {PM_MODE_NORMAL, PM_MODE_DAEMON}) {
            Child child({"exit", "0"});
            child.program = program;
            child->mode = mode;
            child->key = mode == PM_MODE_DAEMON ? "d" : nullptr;
            child->cwd = cwd.empty() ? nullptr : cwd.c_str();
            int result = PM_OK;
            pm_error error = PM_ERROR_INIT;
            EXPECT_EQ(nullptr, TrySpawn(child, &result, &error)) << program;
            EXPECT_EQ(code, result) << ErrorText(error);
            EXPECT_EQ(stage, error.stage) << ErrorText(error);
            EXPECT_EQ(field, error.field) << ErrorText(error);
        }
        struct pm_stats stats = PM_STATS_INIT;
        EXPECT_EQ(PM_OK, pm_stats(manager, &stats));
        EXPECT_EQ(0u, stats.started);
    }
};

TEST_F(Exec, BatchFilesAreRefused)
{
    // Names that Windows takes for the same file, and data streams of it.
    for (const char *name : {"x.bat", "x.cmd", "X.BAT", "x.Cmd", "x.bat.", "x.bat ", "x.bat. .",
                             "x.bat::$DATA", "x.bat:s"}) {
        std::string path = folder + "\\" + name;
        WriteFile(folder + "\\x.bat", "@echo ran > \"" + folder + "\\ran\"\r\n");
        WriteFile(folder + "\\x.cmd", "@echo ran > \"" + folder + "\\ran\"\r\n");
        for (pm_mode mode : {PM_MODE_NORMAL, PM_MODE_DAEMON}) {
            Child child({"exit", "0"});
            child.program = path;
            child->mode = mode;
            child->key = mode == PM_MODE_DAEMON ? "d" : nullptr;
            int result = PM_OK;
            pm_error error = PM_ERROR_INIT;
            EXPECT_EQ(nullptr, TrySpawn(child, &result, &error)) << path;
            // The other spellings mean the same file to Windows, and are refused earlier.
            bool plain = strchr("dDtT", path.back()) != nullptr;
            EXPECT_EQ(plain ? PM_ERR_UNSUPPORTED : PM_ERR_INVALID, result)
                << name << ": " << ErrorText(error);
            EXPECT_STREQ("program", error.field);
        }
    }
    EXPECT_EQ("", ReadFile(folder + "\\ran"));
    Refused(folder + "\\x.bat", PM_ERR_UNSUPPORTED, PM_STAGE_CHECK, "program");
}

TEST_F(Exec, AMissingProgram)
{
    Refused(folder + "\\nothing.exe", PM_ERR_NOT_FOUND, PM_STAGE_SEARCH, "program");
}

TEST_F(Exec, AFolder)
{
    MakeFolder(folder + "\\folder.exe");
    Refused(folder + "\\folder.exe", PM_ERR_NOT_EXECUTABLE, PM_STAGE_SEARCH, "program");
}

TEST_F(Exec, AFileThatIsNoProgram)
{
    WriteFile(folder + "\\text.exe", "this is no program\r\n");
    Refused(folder + "\\text.exe", PM_ERR_NOT_EXECUTABLE, PM_STAGE_EXEC, "program");
}

TEST_F(Exec, AnEmptyFile)
{
    WriteFile(folder + "\\empty.exe", "");
    Refused(folder + "\\empty.exe", PM_ERR_NOT_EXECUTABLE, PM_STAGE_EXEC, "program");
}

TEST_F(Exec, AFolderToStartInThatIsNotThere)
{
    Refused(SelfPath(), PM_ERR_NOT_FOUND, PM_STAGE_CHDIR, "cwd", folder + "\\nowhere");
}

TEST_F(Exec, AFileAsTheFolderToStartIn)
{
    WriteFile(folder + "\\file", "x");
    Refused(SelfPath(), PM_ERR_NOT_A_DIRECTORY, PM_STAGE_CHDIR, "cwd", folder + "\\file");
}

TEST_F(Exec, TheSystemsNumberAndTextAreTold)
{
    WriteFile(folder + "\\text.exe", "this is no program\r\n");
    Child child({"exit", "0"});
    child.program = folder + "\\text.exe";
    int result = PM_OK;
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(nullptr, TrySpawn(child, &result, &error));
    EXPECT_EQ(static_cast<uint32_t>(ERROR_BAD_EXE_FORMAT), error.os_code);
    std::string text = ErrorText(error);
    EXPECT_NE(std::string::npos, text.find("failed at exec: ")) << text;
    EXPECT_EQ(std::string::npos, text.find('%')) << text;
    EXPECT_EQ(std::string::npos, text.find('\n')) << text;
    EXPECT_EQ(std::string::npos, text.find('\r')) << text;
}

} // namespace
