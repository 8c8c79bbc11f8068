// The debug server as a client of its finds it: what it tells, and what it refuses.
#include <jansson.h>
#include <processmgr/debug.h>

#include <climits>
#include <cstring>
#include <memory>
#include <thread>
#ifndef _WIN32
#include <csignal>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

#include "fixture.h"
#include "http.h"

namespace contract
{
namespace
{

using http::Answer;
using http::Get;

const char page[] = "/debug/processes";

pm_debug_options Options()
{
    pm_debug_options options = PM_DEBUG_OPTIONS_INIT;
    return options;
}

class Debug : public Contract
{
  protected:
    void SetUp() override
    {
        Contract::SetUp();
        Open();
    }
    void TearDown() override
    {
        pm_debug_server_stop(server);
        Contract::TearDown();
    }
    void Start(const pm_debug_options &options = Options())
    {
        pm_error error = PM_ERROR_INIT;
        ASSERT_EQ(PM_OK, pm_debug_server_start(manager, &options, &server, &error))
            << ErrorText(error);
        address = pm_debug_server_address(server);
    }
    int TryStart(const char *at, pm_error *error)
    {
        pm_debug_options options = Options();
        options.address = at;
        return pm_debug_server_start(manager, &options, &server, error);
    }
    using Json = std::unique_ptr<json_t, void (*)(json_t *)>;
    Json Fetch()
    {
        Answer answer = Get(address, page);
        EXPECT_EQ(200, answer.status) << answer.raw;
        json_error_t error;
        Json root(json_loadb(answer.body.data(), answer.body.size(), 0, &error),
                  [](json_t *json) { json_decref(json); });
        EXPECT_NE(nullptr, root.get()) << error.text << "\n" << answer.body;
        return root;
    }
    // The only process.
    static json_t *Process(const Json &root, size_t index = 0)
    {
        return json_array_get(json_object_get(root.get(), "processes"), index);
    }
    static std::string Text(json_t *object, const char *name)
    {
        const char *text = json_string_value(json_object_get(object, name));
        return text != nullptr ? text : "(none)";
    }
    static long long Number(json_t *object, const char *name)
    {
        json_t *value = json_object_get(object, name);
        return json_is_integer(value) ? json_integer_value(value) : LLONG_MIN;
    }

    pm_debug_server *server = nullptr;
    std::string address;
};

TEST_F(Debug, ShowsEveryProcessWithWhatIsKnownOfIt)
{
    Start();
    Child child({"cat"});
    child->owner = "pod:7";
    child->stdin_slot.kind = PM_STDIO_PIPE;
    child->stdout_slot.kind = PM_STDIO_PIPE;
    child->stderr_slot.kind = PM_STDIO_NULL;
    pm_process *process = Spawn(child);
    Json root = Fetch();
    ASSERT_EQ(1u, json_array_size(json_object_get(root.get(), "processes")));
    json_t *shown = Process(root);
    pm_info info = PM_INFO_INIT;
    ASSERT_EQ(PM_OK, pm_process_info(process, &info));
    EXPECT_EQ(static_cast<long long>(info.pid), Number(shown, "pid"));
    EXPECT_EQ(1, Number(shown, "id"));
    EXPECT_EQ("pod:7", Text(shown, "owner"));
    EXPECT_TRUE(json_is_null(json_object_get(shown, "key")));
    EXPECT_EQ("normal", Text(shown, "mode"));
    EXPECT_EQ("running", Text(shown, "state"));
    EXPECT_EQ(info.started_wall_ms, Number(shown, "started_ms"));
    EXPECT_GE(Number(shown, "uptime_ms"), 0);
    EXPECT_EQ(Number(root.get(), "pid"), Number(shown, "parent")) << "we are";
    EXPECT_EQ(OnWindows() ? "job" : "group", Text(shown, "containment"));
    json_t *streams = json_object_get(shown, "streams");
    EXPECT_EQ("pipe", Text(json_array_get(streams, 0), "kind"));
    EXPECT_TRUE(json_is_true(json_object_get(json_array_get(streams, 0), "open")));
    EXPECT_EQ("null", Text(json_array_get(streams, 2), "kind"));
    EXPECT_EQ(nullptr, json_object_get(shown, "arguments")) << "not asked for";
    EXPECT_EQ(nullptr, json_object_get(shown, "label"));
    json_t *counters = json_object_get(root.get(), "counters");
    EXPECT_EQ(1, Number(counters, "live"));
    EXPECT_EQ(0, Number(counters, "zombies_found"));
    json_t *normal = json_object_get(json_object_get(root.get(), "modes"), "normal");
    EXPECT_EQ(1, Number(normal, "live"));
    EXPECT_EQ(1, Number(json_object_get(root.get(), "spawn_duration"), "count"));

    pm_stream_close(pm_process_stream(process, PM_STDIN));
    Wait(process);
    root = Fetch();
    EXPECT_EQ("ended", Text(Process(root), "state")) << "held by us";
    normal = json_object_get(json_object_get(root.get(), "modes"), "normal");
    EXPECT_EQ(1, Number(normal, "exited"));
    EXPECT_EQ(0, Number(normal, "live"));
    EXPECT_TRUE(json_is_false(
        json_object_get(json_array_get(json_object_get(Process(root), "streams"), 0), "open")));
}

TEST_F(Debug, ADaemonHasItsKeyAndItsParentIsNotUs)
{
    Start();
    Child child({"sleep"});
    child->mode = PM_MODE_DAEMON;
    child->key = "session/1";
    child->label = "canary-of-a-label";
    Spawn(child);
    Json root = Fetch();
    json_t *shown = Process(root);
    EXPECT_EQ("session/1", Text(shown, "key"));
    EXPECT_EQ("daemon", Text(shown, "mode"));
    if (!OnWindows()) {
        EXPECT_EQ("launcher", Text(shown, "detachment"));
        if (!OrphansComeToUs()) {
            EXPECT_NE(Number(root.get(), "pid"), Number(shown, "parent"));
        }
        EXPECT_GT(Number(shown, "parent"), 0);
    }
    EXPECT_EQ(std::string::npos, Get(address, page).body.find("canary-of-a-label"));
}

TEST_F(Debug, KillsAndStopsAreCounted)
{
    Start();
    pm_stop_plan kill = {};
    kill.steps_count = 1;
    kill.steps[0] = {PM_STOP_KILL, PM_SCOPE_TREE, 0};
    Child child({"sleep"});
    pm_process *process = Spawn(child);
    ASSERT_EQ(PM_OK, pm_process_stop(process, &kill, nullptr));
    pm_spec spec = PM_SPEC_INIT;
    spec.owner = "x";
    spec.program = "/no/such/program";
    EXPECT_NE(PM_OK, pm_spawn(manager, &spec, nullptr, nullptr));
    Json root = Fetch();
    json_t *normal = json_object_get(json_object_get(root.get(), "modes"), "normal");
    EXPECT_EQ(1, Number(normal, "killed"));
    EXPECT_EQ(0, Number(normal, "exited"));
    json_t *counters = json_object_get(root.get(), "counters");
    EXPECT_EQ(1, Number(counters, "start_failures"));
    EXPECT_EQ(1, Number(json_object_get(root.get(), "stop_duration"), "count"));
}

// Every byte but NUL, and what turns the direction of writing.
std::string EveryByte()
{
    std::string all;
    for (int c = 1; c < 256; c++)
        all += static_cast<char>(c);
    return all.substr(0, 255);
}

TEST_F(Debug, ANameMayHoldEveryByteAndTheJsonIsGood)
{
    Start();
    std::string owner = EveryByte();
    Child child({"sleep"});
    child->owner = owner.c_str();
    Spawn(child);
    Answer answer = Get(address, page);
    for (char c : answer.body)
        ASSERT_TRUE(c == '\n' || (c >= 0x20 && c < 0x7f) || c == 0x7f) << "ASCII alone";
    Json root = Fetch();
    std::string shown = Text(Process(root), "owner");
    EXPECT_EQ(owner.substr(0, 0x7f), shown.substr(0, 0x7f)) << "exactly";
    EXPECT_NE(std::string::npos, shown.find("\\x80\\x81")) << shown;
    EXPECT_NE(std::string::npos, shown.find("\\xfe\\xff")) << shown;
    EXPECT_EQ(0x7fu + 128 * 4, shown.size());
}

// ------------------------------------------------------------------------------------------------
// Refusals
// ------------------------------------------------------------------------------------------------

struct Refusal {
    const char *name;
    int status; // 0: closed without an answer, or any 4xx of the HTTP library.
    std::string request;
};

std::vector<Refusal> Refusals()
{
    const std::string get = "GET /debug/processes HTTP/1.1\r\n";
    const std::string host = "Host: localhost\r\n";
    const std::string end = "Connection: close\r\n\r\n";
    const std::string big(20000, 'x');
    return {
        {"rebinding", 403, get + "Host: evil.example\r\n" + end},
        {"rebinding with a port", 403, get + "Host: evil.example:80\r\n" + end},
        {"a name that begins like ours", 403, get + "Host: localhost.evil.example\r\n" + end},
        {"a name that ends like ours", 403, get + "Host: evil-localhost\r\n" + end},
        {"an address that is not ours", 403, get + "Host: 0.0.0.0\r\n" + end},
        {"a user in front of the host", 403, get + "Host: x@localhost\r\n" + end},
        {"a port that is none", 403, get + "Host: localhost:x\r\n" + end},
        {"half a bracket", 403, get + "Host: [::1\r\n" + end},
        {"an empty host", 403, get + "Host: \r\n" + end},
        {"no host", 400, get + end},
        {"no host, HTTP/1.0", 400, "GET /debug/processes HTTP/1.0\r\n\r\n"},
        {"two hosts", 400, get + host + host + end},
        {"two hosts, one strange", 400, get + host + "Host: evil.example\r\n" + end},
        {"a strange host, a forwarded one", 403,
         get +
             "Host: evil.example\r\nX-Forwarded-Host: localhost\r\nForwarded: host=localhost\r\n" +
             end},
        {"another origin's script", 403, get + host + "Sec-Fetch-Site: cross-site\r\n" + end},
        {"another origin's image", 403,
         get + host + "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\n" + end},
        {"POST", 405, "POST /debug/processes HTTP/1.1\r\n" + host + end},
        {"POST with a body", 405,
         "POST /debug/processes HTTP/1.1\r\n" + host + "Content-Length: 5\r\n" + end + "abcde"},
        {"PUT", 405, "PUT /metrics HTTP/1.1\r\n" + host + end},
        {"DELETE", 405, "DELETE /debug/processes HTTP/1.1\r\n" + host + end},
        {"OPTIONS", 405,
         "OPTIONS /debug/processes HTTP/1.1\r\n" + host + "Origin: http://evil.example\r\n" + end},
        {"TRACE", 405, "TRACE /debug/processes HTTP/1.1\r\n" + host + end},
        {"a method of nobody", 405, "FROB /debug/processes HTTP/1.1\r\n" + host + end},
        {"get in small letters", 405, "get /debug/processes HTTP/1.1\r\n" + host + end},
        {"GET with a body", 413, get + host + "Content-Length: 5\r\n" + end + "abcde"},
        {"GET with chunks", 413,
         get + host + "Transfer-Encoding: chunked\r\n" + end + "5\r\nabcde\r\n0\r\n\r\n"},
        {"another path", 404, "GET / HTTP/1.1\r\n" + host + end},
        {"a path below", 404, "GET /debug/processes/1 HTTP/1.1\r\n" + host + end},
        {"a path above", 404, "GET /debug/../debug/processes HTTP/1.1\r\n" + host + end},
        {"a slash more", 404, "GET //debug/processes HTTP/1.1\r\n" + host + end},
        {"a file", 404, "GET /../../../../etc/passwd HTTP/1.1\r\n" + host + end},
        {"a long path", 0, "GET /" + big + " HTTP/1.1\r\n" + host + end},
        {"a long header", 0, get + host + "X: " + big + "\r\n" + end},
        {"many headers", 0,
         [&] {
             std::string all = get + host;
             for (int i = 0; i < 2000; i++)
                 all += "X" + std::to_string(i) + ": y\r\n";
             return all + end;
         }()},
        {"no HTTP", 0, "hello\r\n\r\n"},
        {"bytes", 0, std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 15)},
    };
}

TEST_F(Debug, RefusesWhatIsNotForIt)
{
    Start();
    for (const Refusal &refusal : Refusals()) {
        SCOPED_TRACE(refusal.name);
        http::Connection connection(address);
        connection.Send(refusal.request);
        bool ended = false;
        Answer answer = http::Parse(connection.ReceiveAll(20000, &ended));
        EXPECT_TRUE(ended) << "the connection stays open";
        if (refusal.status != 0) {
            EXPECT_EQ(refusal.status, answer.status) << answer.raw;
        } else {
            EXPECT_TRUE(answer.status == 0 || (answer.status >= 400 && answer.status < 600))
                << answer.raw;
        }
        EXPECT_EQ(std::string::npos, answer.raw.find("evil")) << "nothing is given back";
        EXPECT_EQ(std::string::npos, answer.raw.find("\"processes\""));
        EXPECT_EQ(0u, answer.headers.count("access-control-allow-origin"));
    }
    EXPECT_EQ(200, Get(address, page).status) << "and it still answers";
}

TEST_F(Debug, AnswersUnderItsOwnNamesAndThoseAllowed)
{
    pm_debug_options options = Options();
    const char *const names[] = {"Runner.Internal", nullptr};
    options.allowed_hosts = names;
    Start(options);
    for (const char *host :
         {"localhost", "LOCALHOST", "localhost:1", "127.0.0.1", "127.0.0.1:65535", "[::1]",
          "[::1]:80", "runner.internal", "runner.internal:8080"})
        EXPECT_EQ(200, Get(address, page, std::string("Host: ") + host + "\r\n").status) << host;
    // Following a link, or typing the address.
    for (const char *more : {"Sec-Fetch-Site: none\r\n", "Sec-Fetch-Site: same-origin\r\n",
                             "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\n"})
        EXPECT_EQ(200, Get(address, page, std::string("Host: localhost\r\n") + more).status);
}

TEST_F(Debug, HeadHasTheHeadersAlone)
{
    Start();
    Answer get = Get(address, "/metrics");
    Answer head = Get(address, "/metrics", "Host: localhost\r\n", "HEAD");
    EXPECT_EQ(200, head.status);
    EXPECT_EQ("", head.body);
    EXPECT_EQ(get.headers["content-type"], head.headers["content-type"]);
    EXPECT_EQ(std::to_string(get.body.size()), head.headers["content-length"]);
    EXPECT_EQ(405, Get(address, page, "Host: localhost\r\n", "POST").status);
    EXPECT_EQ("GET, HEAD", Get(address, page, "Host: localhost\r\n", "POST").headers["allow"]);
}

TEST_F(Debug, TheHeadersLetNobodyElseIn)
{
    Start();
    std::string nonce;
    for (const char *format : {"html", "json"}) {
        Answer answer = Get(address, std::string(page) + "?format=" + format);
        ASSERT_EQ(200, answer.status);
        std::string policy = answer.headers["content-security-policy"];
        EXPECT_EQ(0u, policy.find("default-src 'none'; ")) << policy;
        EXPECT_NE(std::string::npos, policy.find("frame-ancestors 'none'"));
        EXPECT_EQ(std::string::npos, policy.find("unsafe"));
        EXPECT_EQ("no-store", answer.headers["cache-control"]);
        EXPECT_EQ("nosniff", answer.headers["x-content-type-options"]);
        EXPECT_EQ("DENY", answer.headers["x-frame-options"]);
        EXPECT_EQ("no-referrer", answer.headers["referrer-policy"]);
        EXPECT_EQ("same-origin", answer.headers["cross-origin-resource-policy"]);
        for (const char *name : {"access-control-allow-origin", "server", "set-cookie"})
            EXPECT_EQ(0u, answer.headers.count(name)) << name;
        if (strcmp(format, "html") != 0)
            continue;
        size_t at = policy.find("'nonce-");
        ASSERT_NE(std::string::npos, at);
        nonce = policy.substr(at + 7, 32);
        EXPECT_NE(std::string::npos, answer.body.find("<script nonce=\"" + nonce + "\">"));
        EXPECT_NE(std::string::npos, answer.body.find("<style nonce=\"" + nonce + "\">"));
        EXPECT_EQ(std::string::npos, answer.body.find("{{"));
        EXPECT_EQ(std::string::npos, answer.body.find("http://www.w3.org") == std::string::npos
                                         ? answer.body.find("src=")
                                         : answer.body.find("<script src"))
            << "no resource from elsewhere";
    }
    Answer again = Get(address, std::string(page) + "?format=html");
    EXPECT_EQ(std::string::npos, again.body.find(nonce)) << "another each time";
}

TEST_F(Debug, ABrowserGetsThePageAndAProgramTheData)
{
    Start();
    struct {
        const char *accept, *type;
    } cases[] = {
        {"", "application/json"},
        {"Accept: */*\r\n", "application/json"},
        {"Accept: application/json\r\n", "application/json"},
        {"Accept: application/json, text/html\r\n", "application/json"},
        {"Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n", "text/html; charset=utf-8"},
    };
    for (const auto &c : cases) {
        Answer answer = Get(address, page, std::string("Host: localhost\r\n") + c.accept);
        EXPECT_EQ(c.type, answer.headers["content-type"]) << c.accept;
        EXPECT_EQ("Accept", answer.headers["vary"]);
    }
}

TEST_F(Debug, OnlyAddressesOfThisMachineAreTaken)
{
    for (const char *bad :
         {"0.0.0.0:0", "192.168.1.1:80", "128.0.0.1:80", "example.com:80", "[::]:80", "[::2]:80",
          "127.0.0.1", "127.0.0.1:", "127.0.0.1:65536", "127.0.0.1:80x", "127.0.0.256:80",
          "127.0.0:80", "localhost", "localhost.evil:80", ":80", "", "unix:", "127.0.0.1:-1"}) {
        pm_error error = PM_ERROR_INIT;
        EXPECT_EQ(PM_ERR_INVALID, TryStart(bad, &error)) << bad;
        EXPECT_STREQ("address", error.field);
        EXPECT_EQ(nullptr, server);
    }
    pm_debug_options options = Options();
    options.max_connections = 5000;
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(PM_ERR_INVALID, pm_debug_server_start(manager, &options, &server, &error));
    EXPECT_STREQ("max_connections", error.field);
    EXPECT_EQ(PM_ERR_INVALID, pm_debug_server_start(nullptr, nullptr, &server, &error));
    EXPECT_EQ(PM_ERR_INVALID, pm_debug_server_start(manager, nullptr, nullptr, &error));
    EXPECT_STREQ("", pm_debug_server_address(nullptr));
}

TEST_F(Debug, AnAddressInUseIsRefused)
{
    Start();
    pm_debug_server *first = server;
    server = nullptr;
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(PM_ERR_EXISTS, TryStart(address.c_str() + strlen("http://"), &error))
        << ErrorText(error);
    pm_debug_server_stop(first);
    // And is free at once afterwards.
    EXPECT_EQ(PM_OK, TryStart(address.c_str() + strlen("http://"), &error)) << ErrorText(error);
}

TEST_F(Debug, AnswersOverIPv6)
{
    pm_error error = PM_ERROR_INIT;
    int result = TryStart("[::1]:0", &error);
    if (result == PM_ERR_UNSUPPORTED)
        GTEST_SKIP() << "no IPv6 here";
    ASSERT_EQ(PM_OK, result) << ErrorText(error);
    address = pm_debug_server_address(server);
    EXPECT_EQ(0u, address.find("http://[::1]:"));
    EXPECT_EQ(200, Get(address, page).status);
}

// ------------------------------------------------------------------------------------------------
// Caps
// ------------------------------------------------------------------------------------------------

TEST_F(Debug, ConnectionsAreCappedAndSlowOnesMakeRoom)
{
    pm_debug_options options = Options();
    options.max_connections = 4;
    options.timeout_ms = 1000;
    Start(options);
    std::vector<std::unique_ptr<http::Connection>> slow;
    for (int i = 0; i < 4; i++) {
        slow.push_back(std::make_unique<http::Connection>(address));
        ASSERT_TRUE(slow.back()->Send("GET /metrics HTTP/1.1\r\n"));
    }
    // Each says a byte more, often enough not to be silent; all places are taken.
    bool refused = false, served = false;
    EXPECT_TRUE(Eventually([&] {
        for (auto &connection : slow)
            connection->Send("X");
        int status = Get(address, "/metrics").status;
        refused = refused || status == 0;
        served = refused && status == 200;
        return served;
    })) << "refused: "
        << refused;
}

TEST_F(Debug, SilentConnectionsAreClosed)
{
    pm_debug_options options = Options();
    options.timeout_ms = 1000;
    Start(options);
    http::Connection silent(address);
    ASSERT_TRUE(silent.Open());
    bool ended = false;
    silent.ReceiveAll(static_cast<int>(Patience()), &ended);
    EXPECT_TRUE(ended);
}

TEST_F(Debug, AsManyProcessesAsAskedForAreShown)
{
    pm_debug_options options = Options();
    options.max_processes = 3;
    Start(options);
    for (int i = 0; i < 3; i++) {
        Child child({"sleep"});
        Spawn(child);
    }
    Json root = Fetch();
    EXPECT_TRUE(json_is_false(json_object_get(root.get(), "truncated")));
    Child child({"sleep"});
    Spawn(child);
    root = Fetch();
    EXPECT_TRUE(json_is_true(json_object_get(root.get(), "truncated")));
    EXPECT_EQ(3u, json_array_size(json_object_get(root.get(), "processes")));
}

TEST_F(Debug, AThreadOfCallsStopsCleanlyInTheMiddle)
{
    Start();
    std::atomic<bool> over(false);
    std::thread caller([&] {
        while (!over)
            Get(address, page);
    });
    EXPECT_EQ(200, Get(address, page).status);
    pm_debug_server_stop(server);
    server = nullptr;
    over = true;
    caller.join();
}

// ------------------------------------------------------------------------------------------------
// Metrics
// ------------------------------------------------------------------------------------------------

void OwnMetrics(void *user, pm_debug_metrics *out)
{
    EXPECT_EQ(PM_OK, pm_debug_metrics_add(out, "runner_zombie_reaped_total", PM_DEBUG_COUNTER,
                                          "Back\\slash and\nline.", *static_cast<double *>(user)));
    EXPECT_EQ(PM_OK, pm_debug_metrics_add(out, "runner_ratio", PM_DEBUG_GAUGE, "A ratio.", 0.25));
    for (const char *bad : {"", "1x", "a-b", "a b", "processmgr_x", "a{", "\xc3\xa4"})
        EXPECT_EQ(PM_ERR_INVALID, pm_debug_metrics_add(out, bad, PM_DEBUG_GAUGE, "", 1)) << bad;
}

std::string MetricsBody(const std::string &address)
{
    Answer answer = Get(address, "/metrics");
    EXPECT_EQ("text/plain; version=0.0.4; charset=utf-8", answer.headers["content-type"]);
    return answer.body;
}

TEST_F(Debug, MetricsCountWhatHappens)
{
    pm_debug_options options = Options();
    double own = 12345678901;
    options.metrics = OwnMetrics;
    options.user = &own;
    Start(options);
    for (int i = 0; i < 3; i++) {
        Child child({"exit", "0"});
        Wait(Spawn(child));
    }
    std::string text = MetricsBody(address);
    for (const char *line :
         {"\nprocessmgr_processes_started_total{mode=\"normal\"} 3\n",
          "\nprocessmgr_processes_exited_total{mode=\"normal\"} 3\n",
          "\nprocessmgr_processes_live{mode=\"daemon\"} 0\n",
          "\nprocessmgr_zombies_found_total 0\n", "\nprocessmgr_zombies_reaped_total 0\n",
          "\nprocessmgr_zombies 0\n", "\nprocessmgr_spawn_duration_seconds_count 3\n",
          "\nprocessmgr_spawn_duration_seconds_bucket{le=\"0.0001\"} ",
          "\nprocessmgr_spawn_duration_seconds_bucket{le=\"+Inf\"} 3\n",
          "\nprocessmgr_build_info{version=\"" PM_VERSION_STRING "\"} 1\n",
          "\nrunner_zombie_reaped_total 12345678901\n", "\nrunner_ratio 0.25\n",
          "# HELP runner_zombie_reaped_total Back\\\\slash and\\nline.\n",
          "# TYPE processmgr_stop_duration_seconds histogram\n"})
        EXPECT_NE(std::string::npos, text.find(line)) << line << text;
}

#ifndef _WIN32

// What promtool says about a text; "" = nothing to object to.
std::string Promtool(const std::string &text, const std::string &check = "metrics <")
{
    std::string file = MakeTempFolder();
    WriteFile(file + "/text", text);
    std::string command = "promtool check " + check + file + "/text 2>&1";
    FILE *pipe = popen(command.c_str(), "r");
    std::string said;
    char buffer[4096];
    size_t n;
    while ((n = fread(buffer, 1, sizeof buffer, pipe)) > 0)
        said.append(buffer, n);
    int status = pclose(pipe);
    RemoveTree(file);
    return status == 0 ? said : said + "(exit status " + std::to_string(status) + ")";
}

TEST_F(Debug, PromtoolHasNothingToObjectTo)
{
    if (system("promtool --version >/dev/null 2>&1") != 0)
        GTEST_SKIP() << "no promtool here (ci/dependencies debug)";
    pm_debug_options options = Options();
    double own = 1;
    options.metrics = OwnMetrics;
    options.user = &own;
    Start(options);
    Child child({"exit", "0"});
    Wait(Spawn(child));
    std::string text = MetricsBody(address);
    EXPECT_EQ("", Promtool(text)) << text;
    // The negative control: a counter without _total.
    size_t at = text.find("processmgr_zombies_found_total");
    while ((at = text.find("zombies_found_total")) != std::string::npos)
        text.erase(at + strlen("zombies_found"), strlen("_total"));
    EXPECT_NE("", Promtool(text));
}

std::string MetricsPage()
{
    return ReadFile(BuiltFile(PM_TEST_SOURCE_DIR "/docs/metrics.md"));
}

TEST_F(Debug, TheAlertsInTheManualAreGoodRules)
{
    if (system("promtool --version >/dev/null 2>&1") != 0)
        GTEST_SKIP() << "no promtool here (ci/dependencies debug)";
    std::string text = MetricsPage();
    size_t begin = text.find("```yaml\n") + strlen("```yaml\n");
    std::string rules = text.substr(begin, text.find("```", begin) - begin);
    std::string said = Promtool(rules, "rules ");
    EXPECT_NE(std::string::npos, said.find("SUCCESS: 9 rules found")) << said;
}

TEST_F(Debug, TheManualNamesEveryMetricAndNoOther)
{
    Start();
    std::string served = MetricsBody(address), manual = MetricsPage();
    size_t count = 0;
    for (size_t at = 0; (at = served.find("# TYPE ", at)) != std::string::npos; count++) {
        at += strlen("# TYPE ");
        std::string name = served.substr(at, served.find(' ', at) - at);
        EXPECT_TRUE(manual.find("| `" + name + "`") != std::string::npos ||
                    manual.find("| `" + name + "{") != std::string::npos)
            << name;
    }
    size_t rows = 0;
    for (size_t at = 0; (at = manual.find("\n| `processmgr_", at)) != std::string::npos; at++)
        rows++;
    EXPECT_EQ(count, rows);
}

// ------------------------------------------------------------------------------------------------
// A leak moves counter, log line and page together
// ------------------------------------------------------------------------------------------------

TEST_F(Debug, ALeakIsInTheCounterTheLogAndThePage)
{
    if (HostGetsNoStatuses())
        GTEST_SKIP() << "a host that has asked for no statuses has no zombies";
    ASSERT_EQ(PM_OK, Close());
    std::vector<std::string> lines;
    pm_options options = DefaultOptions();
    options.leak_sweep_ms = UINT32_MAX;
    options.user = &lines;
    options.log = [](void *user, pm_log_level level, const char *line) {
        if (level >= PM_LOG_WARNING)
            static_cast<std::vector<std::string> *>(user)->push_back(line);
    };
    Open(options, false);
    Start();
    pid_t pid = fork();
    if (pid == 0)
        _exit(0);
    siginfo_t info = {};
    EXPECT_EQ(0, Uninterrupted([&] {
                  return waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT);
              }));
    pm_leak_scan(manager, nullptr);
    pm_leak_scan(manager, nullptr);
    ASSERT_EQ(1u, lines.size());
    EXPECT_NE(std::string::npos, lines[0].find("see " + address + page)) << lines[0];
    EXPECT_NE(std::string::npos, MetricsBody(address).find("\nprocessmgr_zombies_found_total 1\n"));
    EXPECT_NE(std::string::npos, MetricsBody(address).find("\nprocessmgr_zombies 1\n"));
    Json root = Fetch();
    json_t *counters = json_object_get(root.get(), "counters");
    EXPECT_EQ(1, Number(counters, "zombies_now"));
    EXPECT_EQ(pid, Number(counters, "zombie_pid"));
    waitpid(pid, nullptr, 0);
}

// ------------------------------------------------------------------------------------------------
// Unix sockets
// ------------------------------------------------------------------------------------------------

TEST_F(Debug, AUnixSocketIsItsOwnersAloneAndIsTakenAway)
{
    std::string path = folder + "/debug.sock";
    pm_error error = PM_ERROR_INIT;
    ASSERT_EQ(PM_OK, TryStart(("unix:" + path).c_str(), &error)) << ErrorText(error);
    address = pm_debug_server_address(server);
    EXPECT_EQ("unix:" + path, address);
    struct stat st;
    ASSERT_EQ(0, lstat(path.c_str(), &st));
    EXPECT_TRUE(S_ISSOCK(st.st_mode));
    EXPECT_EQ(0600u, st.st_mode & 07777);
    EXPECT_EQ(200, Get(address, page).status);
    EXPECT_EQ(403, Get(address, page, "Host: evil.example\r\n").status);
    size_t entries = ListFolder(folder).size();

    pm_debug_server *second = nullptr;
    pm_debug_options options = Options();
    options.address = address.c_str();
    EXPECT_EQ(PM_ERR_EXISTS, pm_debug_server_start(manager, &options, &second, &error));
    EXPECT_EQ(entries, ListFolder(folder).size()) << "nothing is left in the folder";
    EXPECT_EQ(200, Get(address, page).status);

    // The file is somebody else's now: it stays.
    ASSERT_EQ(0, unlink(path.c_str()));
    WriteFile(path, "x");
    pm_debug_server_stop(server);
    server = nullptr;
    EXPECT_EQ("x", ReadFile(path));
    EXPECT_EQ(PM_ERR_EXISTS, TryStart(("unix:" + path).c_str(), &error)) << "no socket of ours";
    EXPECT_EQ("x", ReadFile(path));
}

TEST_F(Debug, ASocketThatNobodyListensOnIsReplaced)
{
    std::string path = folder + "/debug.sock";
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un un = {};
    un.sun_family = AF_UNIX;
    strncpy(un.sun_path, path.c_str(), sizeof un.sun_path - 1);
    ASSERT_EQ(0, bind(fd, reinterpret_cast<sockaddr *>(&un), sizeof un));
    close(fd);
    pm_error error = PM_ERROR_INIT;
    ASSERT_EQ(PM_OK, TryStart(("unix:" + path).c_str(), &error)) << ErrorText(error);
    EXPECT_EQ(200, Get("unix:" + path, page).status);
    pm_debug_server_stop(server);
    server = nullptr;
    EXPECT_NE(0, access(path.c_str(), F_OK)) << "taken away";
    EXPECT_EQ(PM_ERR_INVALID, TryStart("unix:relative.sock", &error));
    EXPECT_EQ(PM_ERR_TOO_BIG,
              TryStart(("unix:" + folder + "/" + std::string(120, 'x')).c_str(), &error));
    EXPECT_EQ(PM_ERR_NOT_FOUND, TryStart(("unix:" + folder + "/no/such").c_str(), &error));
    EXPECT_STREQ("address", error.field);
}

TEST_F(Debug, AForkedCopyLeavesTheServerAlone)
{
    std::string path = folder + "/debug.sock";
    pm_error error = PM_ERROR_INIT;
    ASSERT_EQ(PM_OK, TryStart(("unix:" + path).c_str(), &error));
    pid_t pid = fork();
    if (pid == 0) {
        pm_debug_server_stop(server);
        _exit(access(path.c_str(), F_OK) == 0 ? 0 : 1);
    }
    int status = 1;
    ASSERT_EQ(pid, Uninterrupted([&] { return waitpid(pid, &status, 0); }));
    EXPECT_EQ(0, status);
    EXPECT_EQ(200, Get("unix:" + path, page).status);
}

TEST_F(Debug, ChildrenDoNotGetItsDescriptors)
{
    Start();
    EXPECT_EQ(200, Get(address, page).status);
    http::Connection open(address);
    Child child({"fds"});
    child->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(child);
    std::string line = ReadLine(process);
    EXPECT_EQ(std::string::npos, line.find("socket:")) << line;
    EXPECT_EQ(std::string::npos, line.find(" 3=")) << line;
    Wait(process);
}

TEST_F(Debug, ItsThreadBlocksEverySignal)
{
    Start();
    size_t blocking = 0;
    for (const std::string &thread : ListFolder("/proc/self/task")) {
        std::string status = ReadFile("/proc/self/task/" + thread + "/status");
        std::string blocked = status.substr(status.find("SigBlk:") + 8, 16);
        blocking += strtoull(blocked.c_str(), nullptr, 16) > 0x7ffffff0000ull;
    }
    EXPECT_EQ(ListFolder("/proc/self/task").size() - 1, blocking) << "all but this one";
}

#ifdef __linux__
TEST_F(Debug, ArgumentsAreShownWhenAskedForWithoutSecrets)
{
    pm_debug_options options = Options();
    const char *const more[] = {"zauber", nullptr};
    options.show_arguments = true;
    options.secret_words = more;
    Start(options);
    Child child({"linger", "--password=canary1", "--token", "canary2", "plain",
                 "ZAUBERWORT=canary3", "https://me:canary4@host/x"});
    Spawn(child);
    std::string body = Get(address, page).body;
    EXPECT_EQ(std::string::npos, body.find("canary")) << body;
    EXPECT_NE(std::string::npos, body.find("\"--password=***\",\"--token\",\"***\",\"plain\","
                                           "\"ZAUBERWORT=***\",\"https://***@host/x\"]"))
        << body;
}
#endif

TEST_F(Debug, NoEnvironmentIsShown)
{
    Start();
    Child child({"sleep"});
    child.env.push_back("CANARY=canary-of-the-environment");
    Spawn(child);
    for (const char *path : {"/debug/processes", "/debug/processes?format=html", "/metrics"})
        EXPECT_EQ(std::string::npos, Get(address, path).raw.find("canary-of-the-env")) << path;
}

#endif

} // namespace
} // namespace contract
