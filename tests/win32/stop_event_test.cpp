// The named event that a polite stop sets, and who may.

#include "fixture.h"

#include <string>

#include <windows.h>

#include <aclapi.h>
#include <sddl.h>

using namespace contract;

namespace
{

class StopEvent : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
    }
};

std::string Sddl(HANDLE object)
{
    PSECURITY_DESCRIPTOR descriptor = nullptr;
    char *text = nullptr;
    const SECURITY_INFORMATION what = OWNER_SECURITY_INFORMATION | DACL_SECURITY_INFORMATION;
    EXPECT_EQ(static_cast<DWORD>(ERROR_SUCCESS),
              GetSecurityInfo(object, SE_KERNEL_OBJECT, what, nullptr, nullptr, nullptr, nullptr,
                              &descriptor));
    EXPECT_TRUE(ConvertSecurityDescriptorToStringSecurityDescriptorA(descriptor, SDDL_REVISION_1,
                                                                     what, &text, nullptr));
    std::string copy = text != nullptr ? text : "";
    LocalFree(text);
    LocalFree(descriptor);
    return copy;
}

std::string UserSid()
{
    HANDLE token = nullptr;
    union {
        TOKEN_USER user;
        char room[256];
    } info;
    DWORD size = 0;
    char *text = nullptr;
    EXPECT_TRUE(OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &token));
    EXPECT_TRUE(GetTokenInformation(token, TokenUser, &info, sizeof info, &size));
    EXPECT_TRUE(ConvertSidToStringSidA(info.user.User.Sid, &text));
    std::string copy = text != nullptr ? text : "";
    LocalFree(text);
    CloseHandle(token);
    return copy;
}

pm_stop_plan TerminateThenKill()
{
    pm_stop_plan plan = {};
    plan.steps_count = 2;
    plan.steps[0] = {PM_STOP_TERMINATE, PM_SCOPE_PROCESS, 3600000};
    plan.steps[1] = {PM_STOP_KILL, PM_SCOPE_TREE, 15000};
    return plan;
}

TEST_F(StopEvent, ReachesOneThatListens)
{
    std::string file = folder + "/out";
    Child child({"payload", file});
    pm_process *process = Spawn(child);
    ASSERT_TRUE(Eventually([&] { return ReadFile(file).find('\n') != std::string::npos; }));
    pm_stop_plan plan = TerminateThenKill();
    pm_stop_report report = PM_STOP_REPORT_INIT;
    EXPECT_EQ(PM_OK, pm_process_stop(process, &plan, &report));
    EXPECT_EQ(PM_OK, report.step_results[0]);
    EXPECT_EQ(1u, report.ended_by);
    pm_exit record = Wait(process);
    EXPECT_EQ(5u, record.code);
    EXPECT_EQ(1u, record.stop_step);
}

TEST_F(StopEvent, IsTheSameAtASecondOpenAndNotInherited)
{
    pm_native first = PM_NATIVE_INVALID, second = PM_NATIVE_INVALID;
    ASSERT_EQ(PM_OK, pm_stop_event_open(&first));
    ASSERT_EQ(PM_OK, pm_stop_event_open(&second));
    DWORD flags = HANDLE_FLAG_INHERIT;
    EXPECT_TRUE(GetHandleInformation(reinterpret_cast<HANDLE>(first), &flags));
    EXPECT_EQ(0u, flags & HANDLE_FLAG_INHERIT);
    EXPECT_TRUE(SetEvent(reinterpret_cast<HANDLE>(first)));
    EXPECT_EQ(static_cast<DWORD>(WAIT_OBJECT_0),
              WaitForSingleObject(reinterpret_cast<HANDLE>(second), 0));
    CloseHandle(reinterpret_cast<HANDLE>(first));
    CloseHandle(reinterpret_cast<HANDLE>(second));
}

// Wine enforces such lists in part only: what is set is compared as text.
TEST_F(StopEvent, IsTheOwnersAlone)
{
    pm_native event = PM_NATIVE_INVALID;
    ASSERT_EQ(PM_OK, pm_stop_event_open(&event));
    std::string user = UserSid();
    std::string text = Sddl(reinterpret_cast<HANDLE>(event));
    CloseHandle(reinterpret_cast<HANDLE>(event));
    EXPECT_EQ(0u, text.rfind("O:" + user, 0)) << text;
    size_t list = text.find("D:P");
    ASSERT_NE(std::string::npos, list) << text;
    std::string entries = text.substr(list + 3);
    size_t count = 0;
    for (size_t at = 0; (at = entries.find('(', at)) != std::string::npos; at++) {
        count++;
    }
    EXPECT_EQ(2u, count) << text;
    EXPECT_NE(std::string::npos, entries.find(";;;" + user + ")")) << text;
    EXPECT_NE(std::string::npos, entries.find(";;;SY)")) << text;
}

} // namespace
