// sddl.h's functions need advapi32, which exists in every Windows process that has a window or a
// service.
#include <wchar.h>

#include <windows.h>

#include <aclapi.h>
#include <sddl.h>

#include "win32.h"

#define SID_TEXT_MAX 192 // S-1-<authority>-<15 numbers of 10 digits>.

// Of this process, not of a thread that impersonates somebody.
static INIT_ONCE user_once = INIT_ONCE_STATIC_INIT;
static wchar_t user_sid_text[SID_TEXT_MAX];
static union {
    TOKEN_USER user;
    unsigned char bytes[sizeof(TOKEN_USER) + SECURITY_MAX_SID_SIZE];
} user_token;

static BOOL CALLBACK read_user(INIT_ONCE *once, void *parameter, void **context)
{
    (void)once;
    (void)parameter;
    (void)context;
    HANDLE token = NULL;
    wchar_t *text = NULL;
    DWORD size = 0;
    BOOL found = FALSE;
    if (!OpenProcessToken(GetCurrentProcess(), TOKEN_QUERY, &token)) {
        return FALSE;
    }
    if (GetTokenInformation(token, TokenUser, &user_token, sizeof user_token, &size) &&
        ConvertSidToStringSidW(user_token.user.User.Sid, &text)) {
        if (wcslen(text) < SID_TEXT_MAX) {
            wcscpy(user_sid_text, text);
            found = TRUE;
        }
        (void)LocalFree(text);
    }
    (void)CloseHandle(token);
    return found;
}

static bool know_user(void)
{
    return InitOnceExecuteOnce(&user_once, read_user, NULL, NULL);
}

int pmi_win_owner_only(DWORD mask, bool inherit, SECURITY_ATTRIBUTES *ret_sa)
{
    if (!know_user()) {
        return PM_ERR_SYSTEM;
    }
    const wchar_t *flags = inherit ? L"OICI" : L"";
    wchar_t text[2 * SID_TEXT_MAX + 64];
    // The owner is named: an elevated administrator's objects would belong to the group otherwise.
    (void)_snwprintf(text, sizeof text / sizeof text[0],
                     L"O:%lsD:P(A;%ls;0x%lx;;;%ls)(A;%ls;0x%lx;;;SY)", user_sid_text, flags,
                     (unsigned long)mask, user_sid_text, flags, (unsigned long)mask);
    PSECURITY_DESCRIPTOR descriptor = NULL;
    if (!ConvertStringSecurityDescriptorToSecurityDescriptorW(text, SDDL_REVISION_1, &descriptor,
                                                              NULL)) {
        return pmi_win_code(GetLastError());
    }
    ret_sa->nLength = sizeof *ret_sa;
    ret_sa->lpSecurityDescriptor = descriptor;
    ret_sa->bInheritHandle = FALSE;
    return PM_OK;
}

void pmi_win_security_free(SECURITY_ATTRIBUTES *sa)
{
    if (sa->lpSecurityDescriptor != NULL) {
        (void)LocalFree(sa->lpSecurityDescriptor);
        sa->lpSecurityDescriptor = NULL;
    }
}

bool pmi_win_is_ours(HANDLE handle)
{
    PSID owner = NULL;
    PSECURITY_DESCRIPTOR descriptor = NULL;
    if (!know_user() || GetSecurityInfo(handle, SE_FILE_OBJECT, OWNER_SECURITY_INFORMATION, &owner,
                                        NULL, NULL, NULL, &descriptor) != ERROR_SUCCESS) {
        return false;
    }
    bool ours = owner != NULL && EqualSid(owner, user_token.user.User.Sid);
    (void)LocalFree(descriptor);
    return ours;
}
