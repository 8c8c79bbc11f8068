#include "pod_fixture.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <random>
#include <thread>
#ifdef _WIN32
#include <fcntl.h>
#include <io.h>
#include <process.h>
#include <stdlib.h>
#include <windows.h>
#else
#include <csignal>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <termios.h>
#include <unistd.h>
#endif

namespace pod
{

char LetterAt(uint64_t offset)
{
    return static_cast<char>('a' + (offset * 7 + (offset >> 7) * 11 + (offset >> 14) * 5) % 26);
}

const std::vector<uint32_t> &Modes()
{
#ifdef _WIN32
    // What a console host draws are not the bytes of the child: see tests/runner/pty_wine.
    static const std::vector<uint32_t> modes = {POD_MODE_PIPES};
#else
    static const std::vector<uint32_t> modes = {POD_MODE_PIPES, POD_MODE_PTY};
#endif
    return modes;
}

// ------------------------------------------------------------------------------------------------
// Roles
// ------------------------------------------------------------------------------------------------

namespace
{

void WriteAll(const std::string &text, int fd = 1)
{
    for (size_t at = 0; at < text.size();) {
        auto n = write(fd, text.data() + at, static_cast<unsigned>(text.size() - at));
        if (n < 0)
            _exit(9);
        at += static_cast<size_t>(n);
    }
}

// Numbered bytes in pieces of random sizes.
void WriteLetters(uint64_t begin, uint64_t end, unsigned seed)
{
    std::minstd_rand random(seed + 1);
    while (begin < end) {
        uint64_t size = std::min<uint64_t>(1 + random() % 6000, end - begin);
        std::string text(size, ' ');
        for (uint64_t i = 0; i < size; i++)
            text[i] = LetterAt(begin + i);
        WriteAll(text);
        begin += size;
    }
}

void WaitForInput()
{
    char byte;
    while (read(0, &byte, 1) < 0 && errno == EINTR) {
    }
}

void WaitForFile(const std::string &name)
{
    FILE *file;
    while ((file = fopen(name.c_str(), "r")) == nullptr)
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    fclose(file);
}

void NoEcho()
{
#ifndef _WIN32
    termios mode;
    if (tcgetattr(0, &mode) == 0) {
        cfmakeraw(&mode);
        tcsetattr(0, TCSANOW, &mode);
    }
#endif
}

// BYTES, then exit with CODE; with `wait` in between for a byte of input, with `first` before all.
int Count(const std::vector<std::string> &args)
{
    NoEcho();
    if (args.size() > 3 && args[3] == "first")
        WaitForInput();
    WriteLetters(0, std::stoull(args[0]), 1);
    if (args.size() > 2 && args[2] == "wait")
        WaitForInput();
    return std::stoi(args[1]);
}

// A piece every 200 us or so, until a byte of input comes; then so many bytes are there in all.
int Tick(const std::vector<std::string> &args)
{
    NoEcho();
    std::atomic<bool> stop{false};
    std::thread reader([&] {
        WaitForInput();
        stop = true;
    });
    std::minstd_rand random(5);
    uint64_t at = 0;
    uint64_t piece = std::stoull(args[0]);
    while (!stop) {
        uint64_t size = 1 + random() % piece;
        WriteLetters(at, at + size, 3);
        at += size;
        std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    reader.join();
    return 7;
}

int Echo(const std::vector<std::string> &)
{
    NoEcho();
    WriteAll("ready\n");
    char buffer[16384];
    for (;;) {
        auto n = read(0, buffer, sizeof buffer);
        if (n <= 0)
            return 0;
        WriteAll(std::string(buffer, static_cast<size_t>(n)));
    }
}

// Reads nothing until it is told; then all of its input, and says how many letters are the right
// ones.
int Check(const std::vector<std::string> &)
{
    uint64_t count = 0, right = 0;
    WaitForFile("go-on");
    char buffer[5000];
    for (;;) {
        auto n = read(0, buffer, sizeof buffer);
        if (n <= 0)
            break;
        for (int i = 0; i < n; i++, count++)
            right += buffer[i] == LetterAt(count);
    }
    WriteAll(std::to_string(right) + " of " + std::to_string(count) + "\n");
    return 0;
}

// Never reads; says a line now and then.
int Deaf(const std::vector<std::string> &)
{
    NoEcho();
    for (int i = 0;; i++) {
        WriteAll("line " + std::to_string(i) + "\n");
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
}

int Both(const std::vector<std::string> &args)
{
    WriteAll("out");
    WriteAll("err", 2);
    return std::stoi(args[0]);
}

[[noreturn]] void Stay()
{
    for (;;)
        std::this_thread::sleep_for(std::chrono::hours(1));
}

// Who is left behind, and holds the output open.
int Left(const std::vector<std::string> &args)
{
    if (args[0] == "late") {
        std::this_thread::sleep_for(std::chrono::milliseconds(60));
        WriteAll("late");
    }
    while (args[0] == "flood") // Until nobody reads it any more.
        WriteAll(std::string(65536, 'f'));
    Stay();
}

#ifdef _WIN32
uint64_t LeaveBehind(const std::vector<std::string> &args)
{
    std::string self = contract::SelfPath(), quoted = "\"" + self + "\"";
    const char *argv[] = {quoted.c_str(), "--role", "pod-left", args[1].c_str(), nullptr};
    intptr_t process = _spawnv(_P_NOWAIT, self.c_str(), argv);
    return GetProcessId(reinterpret_cast<HANDLE>(process));
}
#else
// In a group of its own; it hears no hang-up.
uint64_t LeaveBehind(const std::vector<std::string> &args)
{
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGHUP, SIG_IGN);
        signal(SIGTERM, args.size() > 2 ? SIG_IGN : SIG_DFL);
        setpgid(0, 0);
        _exit(Left({args[1]}));
    }
    setpgid(pid, pid);
    return static_cast<uint64_t>(pid);
}
#endif

// Leaves somebody behind. Says its pid and, as told, exits or stays.
int Leave(const std::vector<std::string> &args)
{
    WriteAll("left " + std::to_string(LeaveBehind(args)) + "\n");
    if (args[0] == "stay")
        Stay();
    return std::stoi(args[0]);
}

#ifndef _WIN32
volatile sig_atomic_t winches;

// Says the size of its terminal, and again after each signal.
int Size(const std::vector<std::string> &)
{
    NoEcho();
    sigset_t only, none;
    struct sigaction action = {};
    action.sa_handler = [](int) { winches = winches + 1; };
    sigaction(SIGWINCH, &action, nullptr);
    sigemptyset(&only);
    sigaddset(&only, SIGWINCH);
    sigemptyset(&none);
    sigprocmask(SIG_BLOCK, &only, nullptr);
    for (;;) {
        winsize size = {};
        ioctl(0, TIOCGWINSZ, &size);
        WriteAll("size " + std::to_string(size.ws_col) + "x" + std::to_string(size.ws_row) +
                 " signals " + std::to_string(winches) + "\n");
        sigsuspend(&none);
    }
}

// Descriptors that are open, the signal mask, and what some signals do: as ps would say it.
int Census(const std::vector<std::string> &)
{
    std::string text = "fds";
    for (int fd = 0; fd < 256; fd++) {
        if (fcntl(fd, F_GETFD) >= 0)
            text += " " + std::to_string(fd);
    }
    struct sigaction action = {};
    sigset_t mask;
    sigprocmask(SIG_BLOCK, nullptr, &mask);
    for (auto [number, name] : {std::pair(SIGPIPE, "pipe"), {SIGHUP, "hup"}, {SIGXFSZ, "xfsz"}}) {
        sigaction(number, nullptr, &action);
        text += std::string(" ") + name + (action.sa_handler == SIG_DFL ? " default" : " ignored");
    }
    text += sigismember(&mask, SIGTERM) ? " term blocked" : " term open";
    const char *secret = getenv("SESSION_SECRET");
    text += std::string(" secret ") + (secret != nullptr ? secret : "none") + "\n";
    WriteAll(text);
    return 0;
}

// In a session of its own, as setsid(1) makes one, a child, and below it another one in one more:
// `daemon`: that has lost its parent. Both are deaf. Says their pids, and stays, or exits by
// itself.
int Wander(const std::vector<std::string> &args)
{
    int fds[2];
    if (pipe(fds) != 0)
        return 9;
    pid_t first = fork();
    if (first == 0) {
        setsid();
        for (int number : {SIGHUP, SIGTERM})
            signal(number, SIG_IGN);
        pid_t second = fork();
        if (second == 0) {
            setsid();
            pid_t parent = getpid();
            if (args[0] == "daemon") {
                if (fork() != 0)
                    _exit(0);
                while (getppid() == parent)
                    std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
            pid_t self = getpid();
            if (write(fds[1], &self, sizeof self) != sizeof self)
                _exit(9);
        }
        for (;;)
            pause();
    }
    pid_t second = 0;
    if (read(fds[0], &second, sizeof second) != sizeof second)
        return 9;
    WriteAll("left " + std::to_string(first) + " " + std::to_string(second) + "\n");
    for (;;)
        pause();
}

// In a session of its own, somebody who makes one child after the other. All are deaf, and have the
// file open.
int Breed(const std::vector<std::string> &args)
{
    if (open(args[0].c_str(), O_WRONLY) < 0)
        return 9;
    if (fork() == 0) {
        setsid();
        for (int number : {SIGHUP, SIGTERM})
            signal(number, SIG_IGN);
        for (int made = 0; made < 2500; made++) {
            if (fork() == 0) {
                alarm(30);
                for (;;)
                    pause();
            }
            if (made == 400)
                WriteAll("breeds\n");
        }
        alarm(30);
        for (;;)
            pause();
    }
    for (;;)
        pause();
}

// As an interactive shell: hears no SIGTERM.
int Shell(const std::vector<std::string> &)
{
    signal(SIGTERM, SIG_IGN);
    WriteAll("ready\n");
    for (;;)
        pause();
}

// At SIGTERM it takes its time: until something is typed, or (`deaf`) for ever. SIGHUP ends it.
volatile sig_atomic_t terms = 0;

int Tidy(const std::vector<std::string> &args)
{
    NoEcho();
    sigset_t term, none;
    sigemptyset(&none);
    sigemptyset(&term);
    sigaddset(&term, SIGTERM);
    sigprocmask(SIG_BLOCK, &term, nullptr);
    signal(SIGTERM, [](int) { terms = 1; });
    WriteAll("ready\n");
    while (terms == 0)
        sigsuspend(&none);
    WriteAll("tidying\n");
    while (args[0] == "deaf")
        pause();
    WaitForInput();
    return 5;
}

// Lets go of its terminal (`hangup`: as login does), and opens it again when told.
int Reopen(const std::vector<std::string> &args)
{
    NoEcho();
    std::string name = ttyname(0);
    WriteAll("before\n");
#ifdef __linux__
    if (args[0] == "hangup") {
        signal(SIGHUP, SIG_IGN);
        if (vhangup() != 0)
            return 8;
    }
#endif
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    contract::WriteFile("closed", "");
    WaitForFile("go-on");
    int fd = open(name.c_str(), O_RDWR);
    dup2(fd, 0);
    WriteAll("after\n", fd);
    WaitForInput();
    WriteAll("bye\n", fd);
    return 7;
}

contract::RoleAdder wander_role("pod-wander", Wander);
contract::RoleAdder tidy_role("pod-tidy", Tidy);
contract::RoleAdder breed_role("pod-breed", Breed);
contract::RoleAdder shell_role("pod-shell", Shell);
contract::RoleAdder reopen_role("pod-reopen", Reopen);
contract::RoleAdder size_role("pod-size", Size);
contract::RoleAdder census_role("pod-census", Census);
#endif

contract::RoleAdder leave_role("pod-leave", Leave);
contract::RoleAdder left_role("pod-left", Left);
contract::RoleAdder count_role("pod-count", Count);
contract::RoleAdder tick_role("pod-tick", Tick);
contract::RoleAdder echo_role("pod-echo", Echo);
contract::RoleAdder check_role("pod-check", Check);
contract::RoleAdder deaf_role("pod-deaf", Deaf);
contract::RoleAdder both_role("pod-both", Both);

} // namespace

// ------------------------------------------------------------------------------------------------
// Client
// ------------------------------------------------------------------------------------------------

Client::Client(uv_loop_t *its_loop, const Session &session, pm_native native, uint64_t epoch,
               uint16_t version_min, uint16_t version_max, uint32_t features)
    : link(new pod_link()), loop(its_loop)
{
    pod_client_options options = {};
    options.session = session.id.c_str();
    options.token = session.token;
    options.epoch = epoch;
    options.build = "test";
    options.version_min = version_min;
    options.version_max = version_max;
    options.features = features;
    options.handler = OnMessage;
    options.user = this;
    link->user = this;
    opened = pod_link_open(link, loop, native, &options,
                           static_cast<uint32_t>(contract::Patience()), [](pod_link *done) {
                               static_cast<Client *>(done->user)->over = true;
                           }) == PM_OK;
    over = !opened;
}

Client::~Client()
{
    if (opened) {
        pod_link_close(link);
        while (!over)
            uv_run(loop, UV_RUN_ONCE);
        pod_client_clear(&link->client);
    }
    delete link;
}

void Client::OnMessage(void *user, const pod_message *m)
{
    static_cast<Client *>(user)->Take(*m);
}

void Client::Take(const pod_message &m)
{
    switch (m.type) {
    case POD_WELCOME:
        welcome_epoch = m.u.welcome.epoch;
        version = m.u.welcome.version;
        break;
    case POD_ATTACHED:
        attached++;
        where = m.u.attached;
        done.push_back(m.u.attached.request);
        break;
    case POD_OUTPUT: {
        const pod_output &output = m.u.output;
        const char *data = reinterpret_cast<const char *>(output.data.data);
        received[output.channel] += output.data.size;
        if (keep)
            bytes[output.channel].append(data, output.data.size);
        for (size_t i = 0; check_letters && i < output.data.size; i++) {
            if (data[i] == LetterAt(output.offset + i))
                continue;
            if (wrong_letters++ == 0)
                first_wrong = "frame " + std::to_string(output.offset) + "+" +
                              std::to_string(output.data.size) + ", byte " + std::to_string(i) +
                              ": " +
                              std::string(data + i, std::min<size_t>(output.data.size - i, 80));
        }
        break;
    }
    case POD_GAP:
        gaps[m.u.gap.channel].emplace_back(m.u.gap.from, m.u.gap.to);
        break;
    case POD_END:
        ends++;
        break;
    case POD_EXIT:
        exits++;
        exit = m.u.exit;
        break;
    case POD_STATE:
        states++;
        state = m.u.state;
        done.push_back(m.u.state.request);
        break;
    case POD_DONE:
        done.push_back(m.u.done.request);
        break;
    case POD_STARTED:
        started++;
        child_pid = m.u.started.child_pid;
        done.push_back(m.u.started.request);
        break;
    case POD_ERROR:
        errors.push_back({m.u.error.request, m.u.error.code, m.u.error.frame, m.u.error.fatal != 0,
                          m.u.error.detail,
                          std::string(reinterpret_cast<const char *>(m.u.error.text.data),
                                      m.u.error.text.size)});
        break;
    case POD_TAKEN:
        taken++;
        break;
    case POD_SIZE:
        sizes++;
        size = m.u.size;
        break;
    default:
        break;
    }
}

uint32_t Client::Ask(int64_t number)
{
    EXPECT_GT(number, 0) << pod_strerror(static_cast<int>(number));
    pod_link_flush(link);
    return number > 0 ? static_cast<uint32_t>(number) : 0;
}

uint32_t Client::Attach(pod_role role, uint64_t from, uint8_t flags, uint16_t columns,
                        uint16_t rows)
{
    pod_attach attach = {};
    attach.role = static_cast<uint8_t>(role);
    attach.flags = flags;
    attach.columns = columns;
    attach.rows = rows;
    attach.from[0] = from;
    return Ask(pod_client_attach(&link->client, &attach));
}

int64_t Client::Type(const std::string &text)
{
    int64_t taken_bytes = pod_client_input(&link->client, text.data(), text.size());
    pod_link_flush(link);
    return taken_bytes;
}

void Client::Send(const std::string &raw)
{
    struct Writing {
        uv_write_t write;
        std::string bytes;
    };
    auto *writing = new Writing{{}, raw};
    writing->write.data = writing;
    uv_buf_t buffer = uv_buf_init(&writing->bytes[0], static_cast<unsigned>(raw.size()));
    ASSERT_EQ(uv_write(&writing->write, reinterpret_cast<uv_stream_t *>(&link->pipe), &buffer, 1,
                       [](uv_write_t *write, int) { delete static_cast<Writing *>(write->data); }),
              0);
}

void Client::Close()
{
    if (opened)
        pod_link_close(link);
}

void Client::Stall()
{
    auto *stream = reinterpret_cast<uv_stream_t *>(&link->pipe);
    stalled_alloc = stream->alloc_cb; // libuv forgets them.
    stalled_read = stream->read_cb;
    uv_read_stop(stream);
}

void Client::Go()
{
    uv_read_start(reinterpret_cast<uv_stream_t *>(&link->pipe), stalled_alloc, stalled_read);
}

bool Client::Done(uint32_t request) const
{
    return std::find(done.begin(), done.end(), request) != done.end();
}

int Client::ErrorOf(uint32_t request) const
{
    for (const Error &error : errors) {
        if (error.request == request)
            return error.code;
    }
    return 0;
}

// ------------------------------------------------------------------------------------------------
// The runner
// ------------------------------------------------------------------------------------------------

void Pod::SetUp()
{
#ifndef _WIN32
    signal(SIGPIPE, SIG_IGN); // libuv writes to daemons that may be gone.
#endif
    // libuv keeps a pipe for all loops from the first one on: not to be counted as a leak.
    EXPECT_EQ(uv_loop_init(&loop), 0);
    EXPECT_EQ(uv_loop_close(&loop), 0);
    Contract::SetUp();
    ASSERT_EQ(uv_loop_init(&loop), 0);
    Open();
}

void Pod::TearDown()
{
    birth.reset();
    for (Session &session : sessions) {
        if (session.daemon != nullptr && pm_process_alive(session.daemon)) {
            pm_process_stop(session.daemon, nullptr, nullptr);
        }
        pm_process_unref(session.daemon);
        pod_dir_close(&session.dir);
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    EXPECT_EQ(uv_loop_close(&loop), 0);
    EXPECT_EQ(Close(), PM_OK);
    Contract::TearDown();
}

std::pair<uint64_t, uint64_t> Pod::TheTwoThatLeft()
{
    if (!Until([&] { return birth->Text().find('\n') != std::string::npos; }))
        return {0, 0};
    size_t end = 0;
    uint64_t first = std::stoull(birth->Text().substr(5), &end);
    return {first, std::stoull(birth->Text().substr(5 + end))};
}

bool Pod::Until(const std::function<bool()> &reached)
{
    uv_timer_t bound;
    bool late = false;
    bound.data = &late;
    uv_timer_init(&loop, &bound);
    uv_timer_start(
        &bound, [](uv_timer_t *timer) { *static_cast<bool *>(timer->data) = true; },
        static_cast<uint64_t>(contract::Patience()), 0);
    while (!reached() && !late)
        uv_run(&loop, UV_RUN_ONCE);
    bool closed = false;
    bound.data = &closed;
    uv_close(reinterpret_cast<uv_handle_t *>(&bound),
             [](uv_handle_t *handle) { *static_cast<bool *>(handle->data) = true; });
    while (!closed)
        uv_run(&loop, UV_RUN_NOWAIT);
    return !late;
}

void Pod::Turn()
{
    uv_run(&loop, UV_RUN_NOWAIT);
}

Session *Pod::MakeFolder(const std::string &id)
{
    sessions.emplace_back();
    Session *session = &sessions.back();
    session->id = id;
    session->path = folder + "/pod-" + std::to_string(sessions.size());
    EXPECT_EQ(pod_dir_create(session->path.c_str()), PM_OK);
    EXPECT_EQ(pod_dir_open(session->path.c_str(), &session->dir), PM_OK);
    EXPECT_EQ(pod_token_make(&session->dir, session->token), PM_OK);
    return session;
}

std::string FaultyDaemon()
{
#ifdef PM_TEST_PODDAEMON_FAULTY_PATH
    return PM_TEST_PODDAEMON_FAULTY_PATH;
#else
    return "";
#endif
}

std::unique_ptr<Client> Pod::StartDaemon(Session *session, const Options &options)
{
    pm_native ours, theirs;
    EXPECT_EQ(pod_birth_pair(&ours, &theirs), PM_OK);
    pm_spec spec = PM_SPEC_INIT;
    std::string program =
        contract::BuiltFile(options.program.empty() ? PM_TEST_PODDAEMON_PATH : options.program);
    const char *other = getenv("PM_TEST_PODDAEMON"); // prove.py: one that can do what both can.
    if (other != nullptr && (options.program.empty() || program == FaultyDaemon()))
        program = other;
    const char *argv[] = {program.c_str(),     "--dir", session->path.c_str(), "--session",
                          session->id.c_str(), nullptr};
    std::vector<const char *> env;
    for (const std::string &entry : options.daemon_env)
        env.push_back(entry.c_str());
    env.push_back(nullptr);
    spec.owner = "pod-test";
    spec.program = program.c_str();
    spec.argv = argv;
    spec.env = env.data();
    spec.mode = PM_MODE_DAEMON;
    spec.key = session->id.c_str();
    spec.cwd = folder.c_str();
    spec.stdin_slot.kind = PM_STDIO_NATIVE;
    spec.stdin_slot.native = theirs;
#ifndef _WIN32
    std::vector<pm_rlimit> limits;
    if (options.descriptors > 0)
        limits.push_back({RLIMIT_NOFILE, options.descriptors, options.descriptors});
    if (options.file_size > 0)
        limits.push_back({RLIMIT_FSIZE, options.file_size, options.file_size});
    spec.rlimits = limits.data();
    spec.rlimits_count = limits.size();
#endif
    pm_error error = PM_ERROR_INIT;
    int result = pm_spawn(manager, &spec, &session->daemon, &error);
    EXPECT_EQ(result, PM_OK) << contract::ErrorText(error);
    pod_connection_close(theirs);
    if (result != PM_OK) {
        pod_connection_close(ours);
        return nullptr;
    }
    return std::make_unique<Client>(&loop, *session, ours, options.epoch, options.version_min,
                                    options.version_max);
}

uint32_t Pod::SendStart(Client *client, const std::vector<std::string> &role,
                        const Options &options)
{
    std::string self = contract::SelfPath();
    std::vector<const char *> argv, env;
    if (options.command.empty()) {
        argv = {self.c_str(), "--role"};
        for (const std::string &arg : role)
            argv.push_back(arg.c_str());
        argv.push_back(nullptr);
    }
    for (const std::string &entry : options.env)
        env.push_back(entry.c_str());
    env.push_back("PATH=/usr/bin:/bin");
    env.push_back(nullptr);
    pod_config config = {};
    config.mode = options.mode;
    config.program = options.command.empty() ? self.c_str() : options.command.c_str();
    config.argv = options.command.empty() ? argv.data() : nullptr;
    config.env = env.data();
    config.cwd = folder.c_str();
    config.ring_size = options.ring;
    config.orphan_s = options.orphan_s;
    config.grace_ms = options.grace_ms;
    config.drain_ms = options.drain_ms;
    config.kill_tree = options.kill_tree;
    config.on_full = options.on_full;
    config.wait_s = options.wait_s;
    return client->Ask(pod_client_start(&client->link->client, &config));
}

Session *Pod::Create(const std::string &id, const std::vector<std::string> &role)
{
    return Create(id, role, Options());
}

Session *Pod::Create(const std::string &id, const std::vector<std::string> &role,
                     const Options &options)
{
    Session *session = MakeFolder(id);
    birth = StartDaemon(session, options);
    if (birth == nullptr)
        return nullptr;
    EXPECT_TRUE(Until([&] { return birth->Ready() || birth->Over(); }));
    if (birth->Ready()) {
        SendStart(birth.get(), role, options);
        EXPECT_TRUE(Until([&] { return birth->started > 0 || birth->Over(); }));
    }
    if (birth->started == 0) {
        if (!birth->errors.empty())
            birth_error = birth->errors.back();
        return nullptr;
    }
    last_child = birth->child_pid;
    return session;
}

std::unique_ptr<Client> Pod::Connect(Session *session, uint64_t epoch, uint16_t version_min,
                                     uint16_t version_max, uint32_t features)
{
    pm_native native;
    int result = pod_connect(&session->dir, session->id.c_str(), &native);
    if (result != PM_OK)
        return nullptr;
    auto client = std::make_unique<Client>(&loop, *session, native, epoch, version_min, version_max,
                                           features);
    if (!Until([&] { return client->Ready() || client->Over(); }) || client->Over())
        return nullptr;
    return client;
}

std::unique_ptr<Client> Pod::Attached(Session *session, pod_role role, uint64_t from,
                                      uint64_t epoch, uint8_t flags, uint32_t features)
{
    auto client = Connect(session, epoch, 0, 0, features);
    EXPECT_NE(client, nullptr);
    if (client != nullptr) {
        uint32_t request = client->Attach(role, from, flags);
        EXPECT_TRUE(Until([&] {
            return client->attached > 0 || client->Over() || client->ErrorOf(request) != 0;
        }));
    }
    return client;
}

pm_native Pod::ConnectRaw(Session *session)
{
    pm_native native = PM_NATIVE_INVALID;
    EXPECT_TRUE(contract::Eventually([&] { // Its queue may be full for a moment.
        Turn();
        return pod_connect(&session->dir, session->id.c_str(), &native) != PM_ERR_BUSY;
    }));
    EXPECT_NE(native, PM_NATIVE_INVALID);
    return native;
}

namespace
{

struct Telling {
    uv_pipe_t pipe;
    uv_write_t write;
    uv_shutdown_t end;
    char buffer[4096];
    std::string bytes, answer;
    bool over = false, closed = false;
};

// A pipe of Windows has no end in one direction alone.
void EndTelling(uv_write_t *write, int)
{
    auto *telling = static_cast<Telling *>(write->data);
    if (!contract::OnWindows() && !telling->over)
        uv_shutdown(&telling->end, write->handle, [](uv_shutdown_t *, int) {});
}

} // namespace

std::string Pod::Tell(pm_native native, const std::string &bytes)
{
    Telling telling;
    auto *stream = reinterpret_cast<uv_stream_t *>(&telling.pipe);
    uv_pipe_init(&loop, &telling.pipe, 0);
    telling.pipe.data = telling.write.data = &telling;
    telling.bytes = bytes;
    EXPECT_EQ(pod_pipe_open(&telling.pipe, native), PM_OK);
    uv_buf_t buffer = uv_buf_init(&telling.bytes[0], static_cast<unsigned>(bytes.size()));
    if (!bytes.empty()) {
        EXPECT_EQ(uv_write(&telling.write, stream, &buffer, 1, EndTelling), 0);
    }
    uv_read_start(
        stream,
        [](uv_handle_t *handle, size_t, uv_buf_t *room) {
            *room =
                uv_buf_init(static_cast<Telling *>(handle->data)->buffer, sizeof(Telling::buffer));
        },
        [](uv_stream_t *from, ssize_t count, const uv_buf_t *room) {
            auto *its = static_cast<Telling *>(from->data);
            its->over = its->over || count < 0;
            if (count > 0)
                its->answer.append(room->base, static_cast<size_t>(count));
        });
    EXPECT_TRUE(Until([&] { return telling.over; }));
    uv_close(reinterpret_cast<uv_handle_t *>(&telling.pipe),
             [](uv_handle_t *handle) { static_cast<Telling *>(handle->data)->closed = true; });
    EXPECT_TRUE(Until([&] { return telling.closed; }));
    return telling.answer;
}

void Pod::AskToEnd(Session *session)
{
    pm_stop_plan plan = {};
    pm_stop_report report = PM_STOP_REPORT_INIT;
    plan.steps_count = 1;
    plan.steps[0] = {PM_STOP_TERMINATE, PM_SCOPE_PROCESS, 1};
    pm_process_stop(session->daemon, &plan, &report);
    EXPECT_EQ(report.step_results[0], PM_OK);
}

pod_state Pod::Status(Session *session)
{
#ifdef _WIN32 // The daemon does not see there that one of many has just sent its proof
              // (pod_pipe_look()).
    constexpr int tries = 20;
#else
    constexpr int tries = 1;
#endif
    auto client = Connect(session, 0);
    for (int i = 1; i < tries && client == nullptr; i++)
        client = Connect(session, 0);
    if (client == nullptr) {
        ADD_FAILURE() << "no daemon";
        return {};
    }
    client->Ask(pod_client_status(&client->link->client));
    EXPECT_TRUE(Until([&] { return client->states > 0 || client->Over(); }));
    return client->state;
}

bool Pod::DaemonIsGone(Session *session)
{
    int result = PM_ERR_TIMEOUT;
    bool gone = contract::Eventually([&] {
        Turn();
        result = pm_process_wait(session->daemon, 0, nullptr);
        return result == PM_OK || result == PM_ERR_STATUS_PENDING;
    });
    pm_native native;
    EXPECT_EQ(pod_connect(&session->dir, session->id.c_str(), &native), PM_ERR_NOT_FOUND);
    return gone;
}

} // namespace pod
