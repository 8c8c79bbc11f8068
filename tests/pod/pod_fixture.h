// What the tests of the pod daemon stand on: a runner of a few lines, which starts real daemons in
// Daemon mode, and clients in a loop of libuv.
#ifndef PM_TEST_POD_FIXTURE_H
#define PM_TEST_POD_FIXTURE_H

#include <gtest/gtest.h>
#include <uv.h>

#include <functional>
#include <list>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "fixture.h"
#include "pod_headers.h"

extern "C" {
#include "poddaemon/folder.h"
#include "poddaemon/link.h"
}

namespace pod
{

// The byte that stands at an offset of the output of the counting roles: text without line ends, so
// that a terminal changes nothing in it.
char LetterAt(uint64_t offset);

// Of sessions: pipes, and terminals where there are any.
const std::vector<uint32_t> &Modes();

// The daemon whose system calls fail as POD_FAULTS says; POSIX.
std::string FaultyDaemon();

struct Session {
    std::string id, path;
    pod_dir dir = POD_DIR_INIT;
    uint8_t token[POD_TOKEN_SIZE] = {};
    pm_process *daemon = nullptr;
};

// One connection, and all that it was told.
class Client
{
  public:
    Client(uv_loop_t *loop, const Session &session, pm_native native, uint64_t epoch,
           uint16_t version_min = 0, uint16_t version_max = 0, uint32_t features = 0);
    ~Client();
    Client(const Client &) = delete;
    Client &operator=(const Client &) = delete;

    bool Ready() const
    {
        return link->client.phase == POD_CLIENT_READY;
    }
    bool Over() const
    {
        return over;
    }
    pod_client *operator->()
    {
        return &link->client;
    }
    // Requests; the number of each.
    uint32_t Attach(pod_role role, uint64_t from, uint8_t flags = 0, uint16_t columns = 0,
                    uint16_t rows = 0);
    uint32_t Ask(int64_t number); // Flushes what was asked through `->`.
    int64_t Type(const std::string &text);
    void Send(const std::string &raw); // As it is, whatever the protocol says.
    void Close();
    // Reads nothing more, until Go().
    void Stall();
    void Go();

    bool Done(uint32_t request) const;
    int ErrorOf(uint32_t request) const; // 0: none.
    std::string Text() const             // Of the first channel, without what was skipped.
    {
        return bytes[0];
    }

    std::string bytes[POD_CHANNELS];
    uint64_t received[POD_CHANNELS] = {0, 0}; // Also when bytes are not kept.
    bool keep = true;
    bool check_letters = false;
    uint64_t wrong_letters = 0;
    std::string first_wrong; // What was there.
    std::vector<std::pair<uint64_t, uint64_t>> gaps[POD_CHANNELS];
    unsigned attached = 0, ends = 0, exits = 0, taken = 0, sizes = 0, started = 0, states = 0;
    pod_attached where = {};
    pod_state state = {};
    pod_exit exit = {};
    pod_size size = {};
    uint64_t child_pid = 0, welcome_epoch = 0;
    uint16_t version = 0;
    std::vector<uint32_t> done;
    struct Error {
        uint32_t request;
        int code, frame;
        bool fatal;
        uint64_t detail;
        std::string text;
    };
    std::vector<Error> errors;
    pod_link *link;

  private:
    static void OnMessage(void *user, const pod_message *m);
    void Take(const pod_message &m);
    uv_loop_t *loop;
    bool over = false;
    bool opened;
    uv_alloc_cb stalled_alloc = nullptr;
    uv_read_cb stalled_read = nullptr;
};

class Pod : public contract::Contract
{
  protected:
    void SetUp() override;
    void TearDown() override;

    // Starts a daemon with a child that is this program in a role. nullptr: the birth connection
    // told why not (birth_error).
    struct Options {
        uint32_t mode = POD_MODE_PIPES;
        std::string program; // The daemon; empty: the ordinary one.
        std::vector<std::string> env;
        uint32_t ring = 0, orphan_s = 0, grace_ms = 0, drain_ms = 0;
        uint32_t on_full = POD_FULL_DROP, wait_s = 0;
        uint64_t epoch = 1;
        uint16_t version_min = 0, version_max = 0;
        bool kill_tree = false;
        uint64_t descriptors = 0, file_size = 0; // Limits of the daemon.
        std::vector<std::string> daemon_env;
        std::string command; // Instead of a role: the program itself.
    };
    Session *Create(const std::string &id, const std::vector<std::string> &role);
    Session *Create(const std::string &id, const std::vector<std::string> &role,
                    const Options &options);
    // The parts of it.
    Session *MakeFolder(const std::string &id);
    std::unique_ptr<Client> StartDaemon(Session *session, const Options &options);
    uint32_t SendStart(Client *birth, const std::vector<std::string> &role, const Options &options);

    std::unique_ptr<Client> Connect(Session *session, uint64_t epoch = 1, uint16_t version_min = 0,
                                    uint16_t version_max = 0, uint32_t features = 0);
    std::unique_ptr<Client> Attached(Session *session, pod_role role, uint64_t from,
                                     uint64_t epoch = 1, uint8_t flags = 0, uint32_t features = 0);
    // A connection that has not said anything; PM_NATIVE_INVALID: there is none.
    pm_native ConnectRaw(Session *session);
    // Sends these bytes on it, which is all (nothing: stays mute), and reads until the daemon
    // closes it. Takes it over.
    std::string Tell(pm_native native, const std::string &bytes);
    // By the system: SIGTERM, or the stop event.
    void AskToEnd(Session *session);
    pod_state Status(Session *session);
#ifndef _WIN32
    std::vector<std::unique_ptr<Client>> TakeAllDescriptors(Session *session);
#endif
    bool Until(const std::function<bool()> &reached);
    // What "pod-wander" in the last session says: who has a session of its own, and who below it;
    // 0: nothing.
    std::pair<uint64_t, uint64_t> TheTwoThatLeft();
    void Turn(); // What there is to do, without waiting.
    // The daemon is gone, and nothing of it is left.
    bool DaemonIsGone(Session *session);

    uv_loop_t loop;
    std::list<Session> sessions;
    std::unique_ptr<Client> birth; // Of the last session.
    Client::Error birth_error = {};
    uint64_t last_child = 0;
};

} // namespace pod

#endif
