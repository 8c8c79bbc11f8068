// The other programs of the contract tests. Each ends by itself after a minute at most.
#include "fixture.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <thread>

#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#include <windows.h>
#else
#include <csignal>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace contract
{

namespace
{

using Args = std::vector<std::string>;

const int life_ms = 60000;

void Say(const std::string &line)
{
    // One write: the reader sees whole lines.
    std::string text = line + "\n";
    fwrite(text.data(), 1, text.size(), stdout);
    fflush(stdout);
}

void WaitForEndOfInput()
{
    char buffer[256];
    while (fread(buffer, 1, sizeof buffer, stdin) > 0) {
    }
}

int Exit(const Args &a)
{
    unsigned long code = strtoul(a.at(0).c_str(), nullptr, 0);
#ifdef _WIN32
    ExitProcess(static_cast<UINT>(code));
#else
    _exit(static_cast<int>(code));
#endif
}

int Cat(const Args &)
{
    // As it comes, not when a buffer is full.
    char buffer[65536];
    for (;;) {
#ifdef _WIN32
        int n = _read(0, buffer, sizeof buffer);
#else
        ssize_t n = read(0, buffer, sizeof buffer);
#endif
        if (n <= 0) {
            return 0;
        }
        fwrite(buffer, 1, static_cast<size_t>(n), stdout);
        fflush(stdout);
    }
}

int Spew(const Args &a)
{
    size_t left = strtoull(a.at(0).c_str(), nullptr, 10);
    std::string block(65536, 'x');
    while (left > 0) {
        size_t n = left < block.size() ? left : block.size();
        if (fwrite(block.data(), 1, n, stdout) != n) {
            return 1;
        }
        left -= n;
    }
    fflush(stdout);
    return 0;
}

int Both(const Args &)
{
    fprintf(stdout, "to stdout\n");
    fflush(stdout);
    fprintf(stderr, "to stderr\n");
    return 0;
}

int Sleep(const Args &a)
{
    int ms = a.empty() ? life_ms : atoi(a.at(0).c_str());
    std::this_thread::sleep_for(std::chrono::milliseconds(ms < life_ms ? ms : life_ms));
    return 0;
}

int Ready(const Args &)
{
    Say("ready");
    WaitForEndOfInput();
    return 0;
}

int Linger(const Args &)
{
    Say("ready");
    return Sleep({});
}

int Deaf(const Args &)
{
#ifdef _WIN32
    SetConsoleCtrlHandler(nullptr, TRUE);
#else
    signal(SIGTERM, SIG_IGN);
    signal(SIGINT, SIG_IGN);
#endif
    return Linger({});
}

int Env(const Args &a)
{
    for (const auto &name : a) {
        const char *value = getenv(name.c_str());
        Say(name + (value != nullptr ? std::string("=") + value : " is not set"));
    }
    return 0;
}

int Cwd(const Args &)
{
#ifdef _WIN32
    char path[4096];
    GetCurrentDirectoryA(sizeof path, path);
#else
    char path[4096];
    if (getcwd(path, sizeof path) == nullptr) {
        return 1;
    }
#endif
    Say(path);
    return 0;
}

int Argv(const Args &a)
{
    for (const auto &arg : a) {
        std::string hex;
        for (char c : arg) {
            char two[3];
            snprintf(two, sizeof two, "%02x", static_cast<unsigned char>(c));
            hex += two;
        }
        Say("<" + hex + ">");
    }
    return 0;
}

// A grandchild of the same containment that holds our output.
int Tree(const Args &a)
{
    bool leave = !a.empty() && a.at(0) == "leave";
#ifdef _WIN32
    std::string line = "\"" + SelfPath() + "\" --role sleep";
    STARTUPINFOA startup = {};
    startup.cb = sizeof startup;
    startup.dwFlags = STARTF_USESTDHANDLES;
    startup.hStdOutput = GetStdHandle(STD_OUTPUT_HANDLE);
    SetHandleInformation(startup.hStdOutput, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT);
    PROCESS_INFORMATION info = {};
    if (!CreateProcessA(nullptr, &line[0], nullptr, nullptr, TRUE, CREATE_NO_WINDOW, nullptr,
                        nullptr, &startup, &info)) {
        return 1;
    }
    unsigned long pid = info.dwProcessId;
#else
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGHUP, SIG_IGN);
        alarm(life_ms / 1000);
        for (;;) {
            pause();
        }
    }
#endif
    Say("grandchild " + std::to_string(pid));
    return leave ? 0 : Sleep({});
}

// The request to end in good order: it is not lost from the construction on.
class StopRequest
{
  public:
    StopRequest()
    {
#ifdef _WIN32
        (void)pm_stop_event_open(&event);
#else
        sigemptyset(&set);
        sigaddset(&set, SIGTERM);
        sigprocmask(SIG_BLOCK, &set, nullptr);
#endif
    }

    bool Await() const
    {
#ifdef _WIN32
        return WaitForSingleObject(reinterpret_cast<HANDLE>(event), life_ms) == WAIT_OBJECT_0;
#else
        timespec limit = {life_ms / 1000, 0};
        return sigtimedwait(&set, nullptr, &limit) == SIGTERM;
#endif
    }

  private:
#ifdef _WIN32
    pm_native event = PM_NATIVE_INVALID;
#else
    sigset_t set;
#endif
};

// A daemon's program: says by a file that it runs, ends in good order when asked to.
int Payload(const Args &a)
{
    FILE *file = fopen(a.at(0).c_str(), "ab");
    if (file == nullptr) {
        return 1;
    }
    StopRequest request;
#ifdef _WIN32
    fprintf(file, "pid %lu\n", GetCurrentProcessId());
#else
    fprintf(file, "pid %ld ppid %ld sid %ld pgid %ld\n", static_cast<long>(getpid()),
            static_cast<long>(getppid()), static_cast<long>(getsid(0)),
            static_cast<long>(getpgrp()));
#endif
    fclose(file);
    return request.Await() ? 5 : 1;
}

// Asked to end it does so only when all the others have been asked as well, each of which says so
// by a file. args: folder, its own name, how many they are.
int Together(const Args &a)
{
    StopRequest request;
    Say("ready");
    if (!request.Await()) {
        return 1;
    }
    WriteFile(a.at(0) + "/" + a.at(1), "asked");
    return Eventually([&] { return ListFolder(a.at(0)).size() >= std::stoul(a.at(2)); }) ? 5 : 1;
}

#ifndef _WIN32

int Raise(const Args &a)
{
    int number = atoi(a.at(0).c_str());
    signal(number, SIG_DFL);
    raise(number);
    return 99;
}

int SigState(const Args &)
{
    std::string status = ReadFile("/proc/self/status");
    for (const char *name : {"SigBlk:", "SigIgn:"}) {
        size_t at = status.find(name);
        Say(status.substr(at, status.find('\n', at) - at));
    }
    return 0;
}

// Every open descriptor with what it is.
int Fds(const Args &)
{
    std::string line;
    for (int fd = 0; fd < 4096; fd++) {
        struct stat st;
        if (fstat(fd, &st) == 0) {
            char target[4096];
            ssize_t n =
                readlink(("/proc/self/fd/" + std::to_string(fd)).c_str(), target, sizeof target);
            line += " " + std::to_string(fd) + "=" +
                    std::string(target, n > 0 ? static_cast<size_t>(n) : 0);
        }
    }
    Say("fds:" + line);
    return 0;
}

int StopSelf(const Args &)
{
    Say("stopping");
    raise(SIGSTOP);
    return Sleep({});
}

// Owns a registry and has a forked worker that never execs: it keeps a copy of every descriptor.
int Forker(const Args &a)
{
    pm_options options = PM_OPTIONS_INIT;
    options.registry_dir = a.at(0).c_str();
    pm_manager *manager = nullptr;
    if (pm_open(&options, &manager, nullptr) != PM_OK) {
        return 1;
    }
    pid_t worker = fork();
    if (worker == 0) {
        alarm(life_ms / 1000);
        for (;;) {
            pause();
        }
    }
    Say("worker " + std::to_string(worker));
    return Sleep({});
}

int Ids(const Args &)
{
    Say("pid " + std::to_string(getpid()) + " ppid " + std::to_string(getppid()) + " pgid " +
        std::to_string(getpgrp()) + " sid " + std::to_string(getsid(0)));
    return 0;
}

#endif

// A program with children and daemons that somebody kills. args: registry folder, payload file,
// number of each.
int Controller(const Args &a)
{
    pm_options options = PM_OPTIONS_INIT;
    options.registry_dir = a.at(0).c_str();
    pm_manager *manager = nullptr;
    pm_error error = PM_ERROR_INIT;
    if (pm_open(&options, &manager, &error) != PM_OK) {
        Say(std::string("open failed: ") + pm_error_name(error.code));
        return 1;
    }
    for (int i = 0; i < atoi(a.at(2).c_str()); i++) {
        pm_process *process = nullptr;
        Child child({"tree"});
        child->die_with_parent = true;
        child->stdout_slot.kind = PM_STDIO_PIPE;
        if (pm_spawn(manager, child.Get(), &process, &error) != PM_OK) {
            Say(ErrorText(error));
            return 1;
        }
        char text[64] = "";
        size_t count = 0;
        (void)pm_stream_read(pm_process_stream(process, PM_STDOUT), text, sizeof text - 1,
                             Patience(), &count);
        Say("child " + std::to_string(pm_process_pid(process)) + " " +
            std::string(text, count ? count - 1 : 0));
        std::string key = "daemon-" + std::to_string(i);
        Child daemon({"payload", a.at(1)});
        daemon->mode = PM_MODE_DAEMON;
        daemon->key = key.c_str();
        daemon->label = "made by a controller";
        if (pm_spawn(manager, daemon.Get(), &process, &error) != PM_OK) {
            Say(ErrorText(error));
            return 1;
        }
        Say("daemon " + std::to_string(pm_process_pid(process)));
    }
    Say("ready");
    return Sleep({});
}

// Starts daemons without an end until it is killed. args: registry folder, folder for payload
// files.
int Spawner(const Args &a)
{
    pm_options options = PM_OPTIONS_INIT;
    options.registry_dir = a.at(0).c_str();
    pm_manager *manager = nullptr;
    pm_error error = PM_ERROR_INIT;
    if (pm_open(&options, &manager, &error) != PM_OK) {
        Say(std::string("open failed: ") + pm_error_name(error.code));
        return 1;
    }
    Say("ready");
    for (int i = 0; i < 10000; i++) {
        std::string key = "d" + std::to_string(i);
        Child daemon({"payload", a.at(1) + "/" + key});
        daemon->mode = PM_MODE_DAEMON;
        daemon->key = key.c_str();
        (void)pm_spawn(manager, daemon.Get(), nullptr, &error);
    }
    return 0;
}

std::map<std::string, Role> &Roles()
{
    static std::map<std::string, Role> roles = {
        {"exit", Exit},       {"cat", Cat},
        {"spew", Spew},       {"both", Both},
        {"sleep", Sleep},     {"ready", Ready},
        {"linger", Linger},   {"deaf", Deaf},
        {"env", Env},         {"cwd", Cwd},
        {"argv", Argv},       {"tree", Tree},
        {"payload", Payload}, {"controller", Controller},
        {"spawner", Spawner}, {"together", Together},
#ifndef _WIN32
        {"raise", Raise},     {"sigstate", SigState},
        {"fds", Fds},         {"stop-self", StopSelf},
        {"ids", Ids},         {"forker", Forker},
#endif
    };
    return roles;
}

} // namespace

#ifdef _WIN32

// Wine gives the child of a pseudoconsole the console, but not as its standard handles: who wants
// to use it opens it.
static void AttachToConsole()
{
    const DWORD both = GENERIC_READ | GENERIC_WRITE;
    const DWORD share = FILE_SHARE_READ | FILE_SHARE_WRITE;
    static const DWORD names[3] = {STD_INPUT_HANDLE, STD_OUTPUT_HANDLE, STD_ERROR_HANDLE};
    for (int i = 0; i < 3; i++) {
        HANDLE handle = GetStdHandle(names[i]);
        if (handle != nullptr && handle != INVALID_HANDLE_VALUE) {
            continue; // A slot of its own.
        }
        FILE *file = i == 0 ? stdin : i == 1 ? stdout : stderr;
        handle = CreateFileW(i == 0 ? L"CONIN$" : L"CONOUT$", both, share, nullptr, OPEN_EXISTING,
                             0, nullptr);
        int number = _open_osfhandle(reinterpret_cast<intptr_t>(handle), 0);
        FILE *opened = number < 0 ? nullptr : _fdopen(number, i == 0 ? "r" : "w");
        if (opened == nullptr || !SetStdHandle(names[i], handle)) {
            ExitProcess(97);
        }
        *file = *opened; // The C runtime has found nothing there when it began.
    }
}

#endif

RoleAdder::RoleAdder(const char *name, Role role)
{
    Roles()[name] = role;
}

void MaybePlayRole(int argc, char **argv)
{
    if (argc < 3 || strcmp(argv[1], "--role") != 0) {
        return;
    }
#ifdef _WIN32
    if (getenv("PM_TEST_TERMINAL") != nullptr) {
        AttachToConsole();
    }
    _setmode(0, _O_BINARY);
    _setmode(1, _O_BINARY);
#endif
    const char *born = getenv("PM_TEST_BORN");
    if (born != nullptr) {
        WriteFile(born, "x");
    }
    auto role = Roles().find(argv[2]);
    if (role == Roles().end()) {
        exit(98);
    }
    int code = role->second(Args(argv + 3, argv + argc));
    fflush(stdout);
    _exit(code);
}

} // namespace contract
