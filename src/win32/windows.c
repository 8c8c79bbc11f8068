// WM_CLOSE for the windows of a process: to all, since nobody can tell from outside which of them
// would end it. Toolkits and runtimes (Tcl, Qt, SDL, .NET) have windows that nobody sees, for ends
// of their own, also in console programs; so only one on the screen counts as asked.
#include <string.h>
#include <wchar.h>

#include "sys.h"
#include "win32.h"

// Message-only windows are walked by a chain that others change meanwhile.
#define CHAIN_TRIES 4
#define CHAIN_MAX 65536

// user32 comes into a program with the first question for a window, not with the library.
struct user32 {
    BOOL(WINAPI *enum_windows)(WNDENUMPROC visit, LPARAM context);
    HWND(WINAPI *find_window)(HWND parent, HWND after, const wchar_t *name, const wchar_t *title);
    DWORD(WINAPI *owner_of)(HWND window, DWORD *ret_pid);
    int(WINAPI *class_of)(HWND window, wchar_t *name, int capacity);
    BOOL(WINAPI *is_visible)(HWND window);
    BOOL(WINAPI *post)(HWND window, UINT message, WPARAM w, LPARAM l);
};

static struct user32 user;
static INIT_ONCE user_once = INIT_ONCE_STATIC_INIT;

static bool find(HMODULE module, const char *name, void *ret_function)
{
    FARPROC function = GetProcAddress(module, name);
    memcpy(ret_function, &function, sizeof function);
    return function != NULL;
}

// FALSE: the next question tries again.
static BOOL CALLBACK load(INIT_ONCE *once, void *parameter, void **context)
{
    (void)once;
    (void)parameter;
    (void)context;
    HMODULE module = pmi_sys_load_library(L"user32.dll");
    bool there = module != NULL && find(module, "EnumWindows", &user.enum_windows) &&
                 find(module, "FindWindowExW", &user.find_window) &&
                 find(module, "GetWindowThreadProcessId", &user.owner_of) &&
                 find(module, "GetClassNameW", &user.class_of) &&
                 find(module, "IsWindowVisible", &user.is_visible) &&
                 find(module, "PostMessageW", &user.post);
    if (!there && module != NULL) {
        (void)FreeLibrary(module);
    }
    return there;
}

struct search {
    DWORD pid;
    unsigned told;
    enum pmi_win_heard heard;
};

// Windows that the system makes in a process for its own ends. To close them ends nobody, and
// breaks what they are for. That of a console belongs, they say, to a program on it; closing it
// would end all of them.
static bool is_of_the_system(HWND window)
{
    static const wchar_t *const names[] = {L"ConsoleWindowClass",
                                           L"PseudoConsoleWindow",
                                           L"IME",
                                           L"MSCTFIME UI",
                                           L"OleMainThreadWndClass",
                                           L"CicMarshalWndClass",
                                           L"GDI+ Hook Window Class",
                                           L"tooltips_class32"};
    wchar_t name[256];
    if (user.class_of(window, name, 256) == 0) {
        return true;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (wcscmp(name, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

static BOOL CALLBACK close_one(HWND window, LPARAM context)
{
    struct search *s = (struct search *)context;
    DWORD pid = 0;
    if (user.owner_of(window, &pid) != 0 && pid == s->pid && !is_of_the_system(window) &&
        user.post(window, WM_CLOSE, 0, 0)) {
        s->told++;
        s->heard = user.is_visible(window) ? PMI_WIN_ASKED : s->heard;
    }
    return TRUE;
}

static void close_message_only(struct search *s)
{
    for (int i = 0; i < CHAIN_TRIES; i++) {
        HWND window = NULL;
        SetLastError(ERROR_SUCCESS);
        for (int k = 0; k < CHAIN_MAX; k++) {
            window = user.find_window(HWND_MESSAGE, window, NULL, NULL);
            if (window == NULL) {
                break;
            }
            (void)close_one(window, (LPARAM)s);
        }
        if (s->told > 0 || GetLastError() != ERROR_INVALID_WINDOW_HANDLE) {
            return;
        }
    }
}

enum pmi_win_heard pmi_win_close_windows(DWORD pid)
{
    struct search s = {.pid = pid};
    if (!InitOnceExecuteOnce(&user_once, load, NULL, NULL)) {
        return PMI_WIN_NOT_ASKED;
    }
    (void)user.enum_windows(close_one, (LPARAM)&s);
    close_message_only(&s);
    return s.heard == PMI_WIN_NOT_ASKED && s.told > 0 ? PMI_WIN_POSTED : s.heard;
}

void pmi_os_forget_parent(void)
{
}

void pmi_os_sweep(void)
{
}

bool pmi_os_terminals_take_back(void)
{
    return false;
}

bool pmi_os_terminals_owed(void)
{
    return false;
}
