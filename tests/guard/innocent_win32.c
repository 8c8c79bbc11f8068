// Uses that the guard must leave alone. Compiled as C11 and as C++17.
#include <windows.h>

// Members that carry the names of forbidden functions.
struct operations {
    int (*system)(const char *);
    int (*execv)(const char *path);
    int spawnv;
};

int use_members(const struct operations *ops);
DWORD wait_for_one(HANDLE process);
const char *names_as_text(void);

int use_members(const struct operations *ops)
{
    return ops->system("x") + ops->execv("y") + ops->spawnv;
}

DWORD wait_for_one(HANDLE process)
{
    DWORD code = 0;
    if (WaitForSingleObject(process, 0) == WAIT_OBJECT_0)
        GetExitCodeProcess(process, &code);
    return code;
}

const char *names_as_text(void)
{
    return "CreateProcess() ShellExecute() system()";
}
