// trampoline PROGRAM ARGUMENTS...: runs it with the console for its standard handles, and ends as
// it ends. For tests under Wine alone, which gives a program on a pseudoconsole no standard handles
// (docs/platform-notes.md); Windows does. Never installed.
#include <stdio.h>
#include <wchar.h>
#include <windows.h>

// What stands behind the name of this program, which has no quotation mark in it.
static wchar_t *rest_of(wchar_t *line)
{
    wchar_t end = *line == L'"' ? L'"' : L' ';
    line += *line == L'"';
    while (*line != L'\0' && *line != end) {
        line++;
    }
    line += *line == L'"';
    while (*line == L' ') {
        line++;
    }
    return line;
}

static HANDLE open_console(const wchar_t *name)
{
    SECURITY_ATTRIBUTES inherited = {.nLength = sizeof inherited, .bInheritHandle = TRUE};
    return CreateFileW(name, GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE,
                       &inherited, OPEN_EXISTING, 0, NULL);
}

int main(void)
{
    STARTUPINFOW startup = {.cb = sizeof startup, .dwFlags = STARTF_USESTDHANDLES};
    PROCESS_INFORMATION info;
    DWORD code = 0;
    startup.hStdInput = open_console(L"CONIN$");
    startup.hStdOutput = startup.hStdError = open_console(L"CONOUT$");
    if (startup.hStdInput == INVALID_HANDLE_VALUE || startup.hStdOutput == INVALID_HANDLE_VALUE ||
        !CreateProcessW(NULL, rest_of(GetCommandLineW()), NULL, NULL, TRUE, 0, NULL, NULL, &startup,
                        &info)) {
        fprintf(stderr, "trampoline: error %lu\n", GetLastError());
        return 99;
    }
    // Ctrl-C is for the program: it decides how both end.
    (void)SetConsoleCtrlHandler(NULL, TRUE);
    if (WaitForSingleObject(info.hProcess, INFINITE) != WAIT_OBJECT_0 ||
        !GetExitCodeProcess(info.hProcess, &code)) {
        return 99;
    }
    return (int)code;
}
