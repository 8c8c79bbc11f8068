#include "fixture.h"
#include "sanitizers.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>

#ifdef _WIN32
#include <windows.h>
#else
#include <csignal>
#include <dirent.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>
#endif
#ifdef __linux__
#include <sys/prctl.h>
#endif
#ifdef __GLIBC__
#include <malloc.h>
#endif

namespace contract
{

#if defined(PM_TEST_ASAN) || defined(PM_TEST_TSAN)
static const int scale = 4;
#else
static const int scale = 1;
#endif

int Slowness()
{
    const char *more = getenv("PM_TEST_SCALE");
    int factor = more != nullptr ? atoi(more) : 1;
    return scale * (factor > 0 ? factor : 1);
}

int Times(int full, int quick)
{
    return getenv("PM_TEST_FULL") != nullptr ? full : quick;
}

bool OnValgrind()
{
    return getenv("PM_TEST_VALGRIND") != nullptr;
}

bool OnEmulator()
{
    return getenv("PM_TEST_EMULATOR") != nullptr;
}

int64_t Patience()
{
    return int64_t{15000} * Slowness();
}

std::string ErrorText(const pm_error &error)
{
    char line[4096];
    pm_error_format(&error, line, sizeof line);
    return line;
}

size_t MemoryInUse()
{
#if defined(__GLIBC__) && !defined(PM_TEST_ASAN) && !defined(PM_TEST_TSAN)
#if __GLIBC_PREREQ(2, 33)
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
#endif
#endif
    return 0;
}

bool Eventually(const std::function<bool()> &reached)
{
    auto end = std::chrono::steady_clock::now() + std::chrono::milliseconds(Patience());
    while (!reached()) {
        if (std::chrono::steady_clock::now() > end) {
            return false;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
}

#ifdef _WIN32

bool OnWindows()
{
    return true;
}

bool OnWine()
{
    return GetProcAddress(GetModuleHandleA("ntdll.dll"), "wine_get_version") != nullptr;
}

std::string SelfPath()
{
    wchar_t wide[4096];
    GetModuleFileNameW(nullptr, wide, 4096);
    char path[8192];
    WideCharToMultiByte(CP_UTF8, 0, wide, -1, path, sizeof path, nullptr, nullptr);
    return path;
}

std::string MakeTempFolder()
{
    static int counter;
    char base[4096], path[8192];
    GetTempPathA(sizeof base, base);
    snprintf(path, sizeof path, "%spm-%lu-%d", base, GetCurrentProcessId(), counter++);
    CreateDirectoryA(path, nullptr);
    return path;
}

std::vector<std::string> ListFolder(const std::string &folder)
{
    std::vector<std::string> names;
    WIN32_FIND_DATAA found;
    HANDLE search = FindFirstFileA((folder + "\\*").c_str(), &found);
    if (search != INVALID_HANDLE_VALUE) {
        do {
            if (strcmp(found.cFileName, ".") != 0 && strcmp(found.cFileName, "..") != 0) {
                names.push_back(found.cFileName);
            }
        } while (FindNextFileA(search, &found));
        FindClose(search);
    }
    return names;
}

void MakeFolder(const std::string &folder)
{
    EXPECT_TRUE(CreateDirectoryA(folder.c_str(), nullptr));
}

void RemoveTree(const std::string &folder)
{
    for (const auto &name : ListFolder(folder)) {
        std::string path = folder + "\\" + name;
        if ((GetFileAttributesA(path.c_str()) & FILE_ATTRIBUTE_DIRECTORY) != 0) {
            RemoveTree(path);
        } else {
            DeleteFileA(path.c_str());
        }
    }
    RemoveDirectoryA(folder.c_str());
}

bool PidAlive(uint64_t pid)
{
    HANDLE process = OpenProcess(SYNCHRONIZE, FALSE, static_cast<DWORD>(pid));
    if (process == nullptr) {
        return false;
    }
    bool alive = WaitForSingleObject(process, 0) == WAIT_TIMEOUT;
    CloseHandle(process);
    return alive;
}

void KillByNumber(uint64_t pid)
{
    HANDLE process = OpenProcess(PROCESS_TERMINATE | SYNCHRONIZE, FALSE, static_cast<DWORD>(pid));
    EXPECT_TRUE(TerminateProcess(process, 1));
    EXPECT_EQ(WAIT_OBJECT_0, WaitForSingleObject(process, static_cast<DWORD>(Patience())));
    CloseHandle(process);
}

bool HostGetsNoStatuses()
{
    return false;
}

bool KernelTells(pm_process *)
{
    return true;
}

bool OrphansComeToUs()
{
    return false;
}

static void CollectOrphans(bool)
{
}

size_t CountDescriptors()
{
    return 0; // Wine does not tell (GetProcessHandleCount is 0).
}

size_t CountThreads()
{
    return 0;
}

static void Unlock(const std::string &)
{
}

static std::string SignalMask()
{
    return "";
}

#else

bool OnWindows()
{
    return false;
}

bool OnWine()
{
    return false;
}

std::string SelfPath()
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 1);
    return n > 0 ? std::string(path, static_cast<size_t>(n)) : "";
}

static void Unlock(const std::string &path);

std::string MakeTempFolder()
{
    char name[] = "/tmp/pm-test-XXXXXX";
    std::string folder = mkdtemp(name);
    Unlock(folder);
    return folder;
}

std::vector<std::string> ListFolder(const std::string &folder)
{
    std::vector<std::string> names;
    DIR *dir = opendir(folder.c_str());
    while (dir != nullptr) {
        dirent *entry = readdir(dir);
        if (entry == nullptr) {
            break;
        }
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            names.push_back(entry->d_name);
        }
    }
    if (dir != nullptr) {
        closedir(dir);
    }
    return names;
}

void MakeFolder(const std::string &folder)
{
    EXPECT_EQ(0, mkdir(folder.c_str(), 0755));
    Unlock(folder);
}

void RemoveTree(const std::string &folder)
{
    for (const auto &name : ListFolder(folder)) {
        std::string path = folder + "/" + name;
        struct stat st;
        if (lstat(path.c_str(), &st) == 0 && S_ISDIR(st.st_mode)) {
            RemoveTree(path);
        } else {
            unlink(path.c_str());
        }
    }
    rmdir(folder.c_str());
}

// A zombie under a slow init is dead.
bool PidAlive(uint64_t pid)
{
    std::string stat = ReadFile("/proc/" + std::to_string(pid) + "/stat");
    size_t at = stat.rfind(')');
    return at != std::string::npos && at + 2 < stat.size() && stat[at + 2] != 'Z' &&
           stat[at + 2] != 'X';
}

void KillByNumber(uint64_t pid)
{
    EXPECT_EQ(0, kill(static_cast<pid_t>(pid), SIGKILL));
    EXPECT_TRUE(Eventually([&] { return !PidAlive(pid); }));
}

bool HostGetsNoStatuses()
{
    struct sigaction action = {};
    sigaction(SIGCHLD, nullptr, &action);
    return action.sa_handler == SIG_IGN || (action.sa_flags & SA_NOCLDWAIT) != 0;
}

bool KernelTells(pm_process *process)
{
    pm_info info = PM_INFO_INIT;
    utsname name = {};
    int major = 0, minor = 0;
    return !OnEmulator() && pm_process_info(process, &info) == PM_OK && !info.best_effort &&
           uname(&name) == 0 && sscanf(name.release, "%d.%d", &major, &minor) == 2 &&
           (major > 6 || (major == 6 && minor >= 15));
}

bool OrphansComeToUs()
{
    int on = 0;
#ifdef __linux__
    prctl(PR_GET_CHILD_SUBREAPER, &on);
#endif
    return on != 0 || getpid() == 1;
}

// Whether no child is left but keepers, which end with their managers.
static bool OnlyKeepersAreLeft()
{
    for (const auto &thread : ListFolder("/proc/self/task")) {
        std::istringstream children(ReadFile("/proc/self/task/" + thread + "/children"));
        for (std::string pid; children >> pid;) {
            if (ReadFile("/proc/" + pid + "/comm") != "pm-keeper\n") {
                return false;
            }
        }
    }
    return true;
}

// What a good PID 1 does. Called when the library has no child left to wait for. An open manager
// has a keeper; that of a host that was killed comes to us, and ends.
static void CollectOrphans(bool open)
{
    EXPECT_TRUE(!OrphansComeToUs() || Eventually([open] {
        pid_t ended;
        while ((ended = waitpid(-1, nullptr, WNOHANG)) > 0) {
        }
        return open ? OnlyKeepersAreLeft() : ended < 0;
    })) << "somebody else's child does not end";
}

size_t CountDescriptors()
{
    return ListFolder("/proc/self/fd").size();
}

size_t CountThreads()
{
    return ListFolder("/proc/self/task").size();
}

static std::string SignalMask()
{
    std::string status = ReadFile("/proc/self/status");
    std::string picked;
    for (const char *name : {"SigBlk:", "SigIgn:", "SigCgt:"}) {
        size_t at = status.find(name);
        uint64_t bits =
            at == std::string::npos ? 0 : strtoull(status.c_str() + at + 7, nullptr, 16);
        bits &= ~(uint64_t{7} << 31); // 32 and 33 are the C library's own, of musl also 34.
        picked += name + std::to_string(bits) + "\n";
    }
    return picked;
}

// A file or folder of ours, made under a umask that has taken even our own rights.
static void Unlock(const std::string &path)
{
    struct stat st;
    if (lstat(path.c_str(), &st) == 0 && st.st_uid == geteuid() && (st.st_mode & 0600) == 0 &&
        (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
        chmod(path.c_str(), S_ISDIR(st.st_mode) ? 0700 : 0600);
    }
}

#endif

std::string ReadFile(const std::string &path)
{
    Unlock(path);
    std::ifstream in(path, std::ios::binary);
    std::stringstream text;
    text << in.rdbuf();
    return text.str();
}

void WriteFile(const std::string &path, const std::string &text)
{
    {
        std::ofstream out(path, std::ios::binary | std::ios::trunc);
        out << text;
    }
    Unlock(path);
}

// ------------------------------------------------------------------------------------------------
// Child
// ------------------------------------------------------------------------------------------------

std::string BuiltFile(const std::string &path)
{
    const char *package = getenv("PM_TEST_PACKAGE");
    return package != nullptr ? package + ("/bin/" + path.substr(path.find_last_of('/') + 1))
                              : path;
}

Child::Child(std::vector<std::string> role_and_args) : spec(PM_SPEC_INIT), program(SelfPath())
{
    args = {program, "--role"};
    args.insert(args.end(), role_and_args.begin(), role_and_args.end());
    spec.owner = "contract";
    spec.stdin_slot.kind = PM_STDIO_NULL;
}

const pm_spec *Child::Get()
{
    argv.clear();
    for (const auto &arg : args) {
        argv.push_back(arg.c_str());
    }
    argv.push_back(nullptr);
    spec.program = program.c_str();
    spec.argv = argv.data();
    if (!env.empty()) {
        envp.clear();
        for (const auto &entry : env) {
            envp.push_back(entry.c_str());
        }
        envp.push_back(nullptr);
        spec.env = envp.data();
    }
    if (!extras.empty()) {
        spec.extras = extras.data();
        spec.extras_count = extras.size();
    }
    return &spec;
}

// ------------------------------------------------------------------------------------------------
// Contract
// ------------------------------------------------------------------------------------------------

pm_options Contract::DefaultOptions()
{
    pm_options options = PM_OPTIONS_INIT;
    // A slow init would make every close after a daemon's end a wait of seconds.
    options.status_pending_ms = 300;
    options.drain_ms = OnWine() ? 1000 : 0; // Its console hosts hold streams a little longer.
    return options;
}

void Contract::SetUp()
{
    descriptors_before = CountDescriptors();
    threads_before = CountThreads();
    mask_before = SignalMask();
    folder = MakeTempFolder();
}

void Contract::Open(pm_options options, bool registry)
{
    std::string dir = folder + "/registry";
    options.registry_dir = registry ? dir.c_str() : nullptr;
    pm_error error = PM_ERROR_INIT;
    int code = pm_open(&options, &manager, &error);
    if (code != PM_OK) {
        FAIL() << ErrorText(error);
    }
}

int Contract::Close(int64_t timeout_ms)
{
    int code = pm_close(manager, timeout_ms, nullptr);
    if (code == PM_OK) {
        manager = nullptr;
    }
    return code;
}

void Contract::TearDown()
{
    for (pm_process *process : held) {
        pm_process_unref(process);
    }
    if (manager != nullptr) {
        uint64_t leaked = 0;
        EXPECT_EQ(PM_OK, pm_stop_daemons(manager, 20000, nullptr, nullptr, nullptr));
        EXPECT_EQ(PM_OK, pm_stop_all(manager, 20000, nullptr, nullptr, nullptr));
        auto look = [&] {
            CollectOrphans(true);
            EXPECT_EQ(PM_OK, pm_leak_scan(manager, nullptr));
            EXPECT_EQ(PM_OK, pm_leak_scan(manager, &leaked));
            return leaked == 0;
        };
        // Who comes to us may end between the two: the keeper of a host that was killed does.
        EXPECT_TRUE(OrphansComeToUs() ? Eventually(look) : look())
            << "the detector found zombies: " << leaked;
        EXPECT_EQ(PM_OK, Close());
    }
    RemoveTree(folder);
#ifdef PM_TEST_LIBKQUEUE
    // It closes what is its own on a thread of its own.
    EXPECT_TRUE(Eventually([this] { return CountDescriptors() == descriptors_before; }));
#endif
    EXPECT_EQ(descriptors_before, CountDescriptors()) << "descriptors were leaked";
    // A joined thread leaves the task list a moment later.
    EXPECT_TRUE(Eventually([this] { return CountThreads() == threads_before; }));
    EXPECT_EQ(mask_before, SignalMask());
    CollectOrphans(false);
#ifndef _WIN32
    errno = 0;
    siginfo_t info = {};
    EXPECT_EQ(-1, waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT));
    EXPECT_EQ(ECHILD, errno) << "a child is left";
#endif
}

// Wine 8 leaves ghosts behind when a tree is killed while a member of it is being born, so there a
// test goes on only when its child has reached main().
static void AwaitBirth(const std::string &marker)
{
    EXPECT_TRUE(Eventually([&] { return !ReadFile(marker).empty(); })) << "no sign of life";
}

pm_process *Contract::TrySpawn(Child &child, int *ret_code, pm_error *ret_error)
{
    static int counter;
    pm_process *process = nullptr;
    pm_error error = PM_ERROR_INIT;
    std::string marker = folder + "/born-" + std::to_string(counter++);
    std::vector<std::string> env = child.env;
    if (OnWine()) {
        child.env.push_back("PM_TEST_BORN=" + marker);
    }
    *ret_code = pm_spawn(manager, child.Get(), &process, &error);
    child.env = env;
    child.spec.env = nullptr;
    if (ret_error != nullptr) {
        *ret_error = error;
    }
    if (process != nullptr) {
        Keep(process);
        if (OnWine()) {
            AwaitBirth(marker);
        }
    }
    return process;
}

pm_process *Contract::Spawn(Child &child)
{
    int code = 0;
    pm_error error = PM_ERROR_INIT;
    pm_process *process = TrySpawn(child, &code, &error);
    if (code != PM_OK) {
        ADD_FAILURE() << ErrorText(error);
    }
    return process;
}

pm_exit Contract::Wait(pm_process *process)
{
    pm_exit record = PM_EXIT_INIT;
    EXPECT_EQ(PM_OK, pm_process_wait(process, Patience(), &record));
    return record;
}

struct pm_stats Contract::Stats() const
{
    struct pm_stats stats = PM_STATS_INIT;
    EXPECT_EQ(PM_OK, pm_stats(manager, &stats));
    return stats;
}

std::string Contract::ReadLine(pm_process *process, pm_stream_id id)
{
    std::string line;
    pm_stream *stream = pm_process_stream(process, id);
    for (;;) {
        char c = 0;
        size_t count = 0;
        int code = pm_stream_read(stream, &c, 1, Patience(), &count);
        if (code != PM_OK || count == 0) {
            ADD_FAILURE() << "no whole line: '" << line << "', " << pm_error_name(code);
            return line;
        }
        if (c == '\n') {
            return line;
        }
        if (c != '\r') {
            line += c;
        }
    }
}

std::string Contract::ReadAll(pm_process *process, pm_stream_id id)
{
    std::string text;
    pm_stream *stream = pm_process_stream(process, id);
    for (;;) {
        char buffer[65536];
        size_t count = 0;
        int code = pm_stream_read(stream, buffer, sizeof buffer, Patience(), &count);
        if (code != PM_OK) {
            ADD_FAILURE() << "reading ended with " << pm_error_name(code);
            return text;
        }
        if (count == 0) {
            return text;
        }
        text.append(buffer, count);
    }
}

bool Contract::AStoppedStartHoldsUs()
{
    Child child({"exit", "0"});
    Wait(Spawn(child));
    return (Stats().fallback_kinds & PM_FALLBACK_VFORK) != 0;
}

uint64_t Contract::NumberAfter(const std::string &line, const std::string &word)
{
    size_t at = line.find(word);
    EXPECT_NE(std::string::npos, at) << "'" << word << "' in '" << line << "'";
    return at == std::string::npos ? 0 : strtoull(line.c_str() + at + word.size(), nullptr, 10);
}

} // namespace contract
