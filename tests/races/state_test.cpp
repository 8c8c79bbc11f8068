// What may happen to the registry on disk: damage, links and other things in the places of its
// files, owners that are not us, no space. Nobody is signalled on its word, nothing is lost, and
// once the cause is gone all is as before.

#include "races.h"

#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <mutex>
#include <thread>

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/capability.h>
#include <sys/syscall.h>
#endif

using namespace contract;
using namespace races;

namespace
{

using Args = std::vector<std::string>;

// A user that is not us, for root alone.
const uid_t stranger = 64321;

struct Entry {
    std::string state, key;
};

std::vector<Entry> EntriesOf(const std::string &registry)
{
    std::vector<Entry> entries;
    EXPECT_EQ(PM_OK, pm_registry_list(
                         registry.c_str(),
                         [](void *user, const pm_registry_entry *e) {
                             static_cast<std::vector<Entry> *>(user)->push_back(
                                 {e->state, e->key != nullptr ? e->key : ""});
                             return 0;
                         },
                         &entries));
    return entries;
}

size_t Count(const std::vector<Entry> &entries, const std::string &state, const std::string &key)
{
    size_t count = 0;
    for (const auto &entry : entries) {
        count += entry.state == state && entry.key == key;
    }
    return count;
}

pm_process *StartDaemon(pm_manager *manager, const std::string &key, pm_error *ret_error)
{
    Cheap child("exec sleep 120");
    child->mode = PM_MODE_DAEMON;
    child->key = key.c_str();
    child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_NULL;
    pm_process *process = nullptr;
    pm_spawn(manager, child.Get(), &process, ret_error);
    return process;
}

const pm_stop_plan kill_now = {1, {{PM_STOP_KILL, PM_SCOPE_TREE, 30000}}};

class State : public Races
{
  protected:
    void SetUp() override
    {
        Races::SetUp();
        registry = folder + "/registry";
    }

    void Start(const std::string &key)
    {
        pm_error error = PM_ERROR_INIT;
        pm_process *process = StartDaemon(manager, key, &error);
        ASSERT_NE(nullptr, process) << ErrorText(error);
        Keep(process);
    }

    // The daemons "good" and "bad", held[0] and held[1], and no manager.
    void StartTwo()
    {
        Open(Options());
        Start("good");
        Start("bad");
        ASSERT_EQ(2u, held.size());
        boot = registry + "/" + Find(registry, "boot-");
        record = Find(boot, "d-bad.");
        ASSERT_EQ(PM_OK, Close());
    }

    static pm_options Options()
    {
        pm_options options = DefaultOptions();
        options.status_pending_ms = 10;
        return options;
    }

    static std::string Find(const std::string &dir, const std::string &prefix)
    {
        for (const auto &name : ListFolder(dir)) {
            if (name.rfind(prefix, 0) == 0) {
                return name;
            }
        }
        return "";
    }

    int TryOpen(const std::string &dir, pm_error *ret_error = nullptr)
    {
        pm_options options = Options();
        options.registry_dir = dir.c_str();
        pm_error error = PM_ERROR_INIT;
        int code = pm_open(&options, &manager, &error);
        if (code != PM_OK) {
            EXPECT_EQ(PM_STAGE_REGISTRY, error.stage) << ErrorText(error);
        }
        if (ret_error != nullptr) {
            *ret_error = error;
        }
        return code;
    }

    pm_recover_report Recover()
    {
        pm_recover_report report = PM_RECOVER_REPORT_INIT;
        EXPECT_EQ(PM_OK, pm_recover(manager, nullptr, nullptr, &report));
        return report;
    }

    void ExpectBothAlive(const std::string &after)
    {
        EXPECT_TRUE(pm_process_alive(held[0])) << after;
        EXPECT_TRUE(pm_process_alive(held[1])) << after;
    }

    // Opens, recovers and closes.
    void ExpectAllIsWell(const std::string &after)
    {
        Open(Options());
        if (manager != nullptr) {
            EXPECT_EQ(2u, Recover().alive) << after;
            EXPECT_EQ(PM_OK, Close());
        }
        ExpectBothAlive(after);
        for (const auto &dir : {boot, registry + "/exits", registry}) {
            EXPECT_EQ("", Find(dir, ".tmp")) << after;
        }
    }

    void TearDown() override
    {
        if (manager == nullptr && !held.empty()) {
            Open(Options());
            Recover();
        }
        Races::TearDown();
    }

    std::string registry, boot, record; // The last is the name of the record of "bad".
};

// ------------------------------------------------------------------------------------------------
// Damage
// ------------------------------------------------------------------------------------------------

TEST_F(State, ARecordOrLockDamagedAnywhereSignalsNobodyAndTheOthersAreFound)
{
    StartTwo();
    const std::string good = ReadFile(boot + "/" + record), lock = ReadFile(registry + "/lock");
    const std::string aside = registry + "/quarantine/" + record;
    const size_t cuts = good.size(), all = cuts + 8 * good.size();
    const size_t stride = getenv("PM_TEST_FULL") != nullptr ? 1 : 23;
    const auto damage = [cuts](const std::string &text, size_t how) {
        std::string changed = how < cuts ? text.substr(0, how % text.size()) : text;
        if (how >= cuts) {
            size_t bit = (how - cuts) % (8 * text.size());
            changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << bit % 8));
        }
        return changed;
    };
    for (size_t how = 0; how < all && !HasFailure(); how += stride) {
        const std::string bad = damage(good, how);
        WriteFile(boot + "/" + record, bad);
        WriteFile(registry + "/lock", damage(lock, how));
        Open(Options());
        pm_recover_report report = Recover();
        EXPECT_EQ(1u, report.alive) << "damage " << how;
        EXPECT_EQ(1u, report.quarantined) << "damage " << how;
        EXPECT_EQ(bad, ReadFile(aside)) << "damage " << how;
        EXPECT_EQ(1u, Count(EntriesOf(registry), "running", "good")) << "damage " << how;
        EXPECT_EQ(2u, EntriesOf(registry).size()) << "damage " << how;
        EXPECT_EQ(PM_OK, pm_stop_all(manager, 0, nullptr, nullptr, nullptr));
        EXPECT_EQ(PM_OK, Close());
        ExpectBothAlive("damage " + std::to_string(how));
        unlink(aside.c_str());
    }
    WriteFile(boot + "/" + record, good);
    ExpectAllIsWell("damage");
}

// What opens every file for root is taken from this thread.
class WithoutPrivilege
{
  public:
    WithoutPrivilege()
    {
#ifdef __linux__
        header.version = _LINUX_CAPABILITY_VERSION_3;
        syscall(SYS_capget, &header, before);
        __user_cap_data_struct now[2] = {before[0], before[1]};
        now[0].effective &= ~(1u << CAP_DAC_OVERRIDE | 1u << CAP_DAC_READ_SEARCH);
        syscall(SYS_capset, &header, now);
#endif
    }
    ~WithoutPrivilege()
    {
#ifdef __linux__
        syscall(SYS_capset, &header, before);
#endif
    }

  private:
#ifdef __linux__
    __user_cap_header_struct header = {};
    __user_cap_data_struct before[2] = {};
#endif
};

TEST_F(State, ARecordThatCannotBeReadHidesNoOther)
{
    StartTwo();
    // Whichever comes first.
    for (const std::string &key : {std::string("good"), std::string("bad")}) {
        const std::string path = boot + "/" + Find(boot, "d-" + key + ".");
        ASSERT_EQ(0, chmod(path.c_str(), 0));
        {
            WithoutPrivilege without;
            Open(Options());
            for (size_t alive : {1u, 0u}) { // The others are there already when it is tried again.
                pm_recover_report report = PM_RECOVER_REPORT_INIT;
                EXPECT_EQ(PM_ERR_ACCESS, pm_recover(manager, nullptr, nullptr, &report));
                EXPECT_EQ(alive, report.alive);
                EXPECT_EQ(0u, report.ended + report.dropped + report.quarantined + report.unproven);
            }
            ASSERT_EQ(0, chmod(path.c_str(), 0600));
            EXPECT_EQ(1u, Recover().alive);
            EXPECT_EQ(PM_OK, Close());
        }
        ExpectAllIsWell("a record that could not be read: " + key);
    }
}

TEST_F(State, QuarantineKeepsWhatIsInItAlready)
{
    StartTwo();
    const std::string good = ReadFile(boot + "/" + record);
    for (int i = 0; i < 3; i++) {
        WriteFile(boot + "/" + record, "damage " + std::to_string(i));
        Open(Options());
        EXPECT_EQ(1u, Recover().quarantined);
        EXPECT_EQ(PM_OK, Close());
    }
    std::string all;
    for (const auto &name : ListFolder(registry + "/quarantine")) {
        all += ReadFile(registry + "/quarantine/" + name) + "\n";
    }
    for (int i = 0; i < 3; i++) {
        EXPECT_NE(std::string::npos, all.find("damage " + std::to_string(i))) << all;
    }
    EXPECT_EQ(4u, EntriesOf(registry).size());
    WriteFile(boot + "/" + record, good);
    ExpectAllIsWell("three damaged records");
}

TEST_F(State, ADamagedLockThatIsHeldIsHeld)
{
    Open(Options());
    pm_manager *owner = manager;
    WriteFile(registry + "/lock", "damage");
    pm_error error = PM_ERROR_INIT;
    EXPECT_EQ(PM_ERR_REGISTRY_BUSY, TryOpen(registry, &error));
    EXPECT_EQ(0u, error.pid) << "nobody knows who";
    EXPECT_EQ(owner, manager);
}

// ------------------------------------------------------------------------------------------------
// Things in the places of files and folders
// ------------------------------------------------------------------------------------------------

// What is put there.
enum class Thing {
    Link,
    DanglingLink,
    HardLink,
    Fifo,
    Socket,
    Folder,
    StrangersFile,
    File,
    LinkToFolder,
    StrangersFolder,
    GroupsFolder,
    WorldsFolder,
    ReadableFolder
};

using Things = std::vector<std::pair<Thing, const char *>>;

const Things in_place_of_files = {
    {Thing::Link, "a link"},
    {Thing::DanglingLink, "a dangling link"},
    {Thing::HardLink, "a hard link"},
    {Thing::Fifo, "a FIFO"},
    {Thing::Socket, "a socket"},
    {Thing::Folder, "a folder"},
    {Thing::StrangersFile, "a stranger's file"},
};

const Things in_place_of_folders = {
    {Thing::LinkToFolder, "a link"},
    {Thing::DanglingLink, "a dangling link"},
    {Thing::Fifo, "a FIFO"},
    {Thing::File, "a file"},
    {Thing::StrangersFolder, "a stranger's folder"},
    {Thing::GroupsFolder, "a folder of a group"},
    {Thing::WorldsFolder, "a folder of everybody"},
    {Thing::ReadableFolder, "a folder that all may read"},
};

// Something in the place of a file or folder, as long as this lives; what was there comes back
// then. What links lead to is outside of the registry, and has to stay as it is.
class Planted
{
  public:
    // text: of the file that a link leads to, or a stranger owns.
    Planted(const std::string &where, Thing what, const std::string &outside,
            const std::string &text)
        : path(where), kept(outside + "/kept"), victim(outside + "/victim"), thing(what)
    {
        moved = rename(path.c_str(), kept.c_str()) == 0;
        EXPECT_TRUE(moved || errno == ENOENT) << strerror(errno);
        Make(text);
        before = Look();
    }
    Planted(const Planted &) = delete;
    Planted &operator=(const Planted &) = delete;

    ~Planted()
    {
        EXPECT_EQ(before, Look()) << "followed out of the registry";
        if (unlink(path.c_str()) != 0) {
            RemoveTree(path);
        }
        if (moved) {
            EXPECT_EQ(0, rename(kept.c_str(), path.c_str())) << strerror(errno);
        }
        unlink(victim.c_str());
        RemoveTree(victim);
    }

  private:
    void Make(const std::string &text)
    {
        switch (thing) {
        case Thing::Link:
            WriteFile(victim, text);
            EXPECT_EQ(0, chmod(victim.c_str(), 0640));
            EXPECT_EQ(0, symlink(victim.c_str(), path.c_str()));
            break;
        case Thing::DanglingLink:
            EXPECT_EQ(0, symlink(victim.c_str(), path.c_str()));
            break;
        case Thing::HardLink:
            WriteFile(victim, text);
            EXPECT_EQ(0, chmod(victim.c_str(), 0640));
            EXPECT_EQ(0, link(victim.c_str(), path.c_str()));
            break;
        case Thing::Fifo:
            EXPECT_EQ(0, mkfifo(path.c_str(), 0600));
            break;
        case Thing::Socket:
            Bind();
            break;
        case Thing::File:
            WriteFile(path, text);
            break;
        case Thing::StrangersFile:
            WriteFile(path, text);
            EXPECT_EQ(0, chmod(path.c_str(), 0600));
            EXPECT_EQ(0, chown(path.c_str(), stranger, stranger));
            break;
        case Thing::LinkToFolder:
            EXPECT_EQ(0, mkdir(victim.c_str(), 0700));
            EXPECT_EQ(0, symlink(victim.c_str(), path.c_str()));
            break;
        default:
            MakeFolder();
        }
    }

    void MakeFolder()
    {
        EXPECT_EQ(0, mkdir(path.c_str(), 0700));
        if (thing == Thing::StrangersFolder) {
            EXPECT_EQ(0, chown(path.c_str(), stranger, stranger));
        } else if (thing != Thing::Folder) {
            EXPECT_EQ(0, chmod(path.c_str(), thing == Thing::GroupsFolder   ? 0770
                                             : thing == Thing::WorldsFolder ? 0777
                                                                            : 0755));
        }
    }

    // By a short name: that of a socket has its limit.
    void Bind()
    {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_un address = {};
        address.sun_family = AF_UNIX;
        snprintf(address.sun_path, sizeof address.sun_path, "%s.socket", victim.c_str());
        EXPECT_EQ(0, bind(fd, reinterpret_cast<sockaddr *>(&address), sizeof address));
        EXPECT_EQ(0, rename(address.sun_path, path.c_str()));
        close(fd);
    }

    std::string Look() const
    {
        struct stat st = {};
        if (lstat(victim.c_str(), &st) != 0) {
            return "nothing";
        }
        std::string text = "mode " + std::to_string(st.st_mode) + " changed " +
                           std::to_string(st.st_mtim.tv_sec) + "." +
                           std::to_string(st.st_mtim.tv_nsec) + "\n";
        if (S_ISDIR(st.st_mode)) {
            return text + std::to_string(ListFolder(victim).size()) + " files";
        }
        return text + ReadFile(victim);
    }

    const std::string path, kept, victim;
    const Thing thing;
    bool moved = false;
    std::string before;
};

// Frees whoever waits for the other end of a FIFO, and says so.
class Watchdog
{
  public:
    explicit Watchdog(const std::string &fifo)
        : path(fifo), thread([this] {
              std::unique_lock<std::mutex> guard(lock);
              if (!ended.wait_for(guard, std::chrono::milliseconds(Patience()),
                                  [this] { return over; })) {
                  ADD_FAILURE() << "somebody waits for the other end of " << path;
                  close(open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC));
              }
          })
    {
    }
    ~Watchdog()
    {
        {
            std::lock_guard<std::mutex> guard(lock);
            over = true;
        }
        ended.notify_all();
        thread.join();
    }

  private:
    const std::string path;
    std::mutex lock;
    std::condition_variable ended;
    bool over = false;
    std::thread thread;
};

// Once with things of our own, and once with those of a stranger, which takes root to make.
class InPlace : public State, public testing::WithParamInterface<bool>
{
  protected:
    void SetUp() override
    {
        State::SetUp();
        if (GetParam() && geteuid() != 0) {
            GTEST_SKIP() << "only root can give a file away";
        }
    }

    static Things Those(const Things &all)
    {
        Things those;
        for (const auto &each : all) {
            bool strangers =
                each.first == Thing::StrangersFile || each.first == Thing::StrangersFolder;
            if (strangers == GetParam()) {
                those.push_back(each);
            }
        }
        return those;
    }
};

INSTANTIATE_TEST_SUITE_P(Things, InPlace, testing::Bool(),
                         [](const testing::TestParamInfo<bool> &info) {
                             return info.param ? "AStranger" : "Ours";
                         });

TEST_P(InPlace, WhatIsNoLockOfOursIsRefusedOrReplacedAndNeverFollowed)
{
    StartTwo();
    for (const char *name : {"lock", "lock.gate"}) {
        const std::string path = registry + "/" + name, text = ReadFile(path);
        for (const auto &[thing, what] : Those(in_place_of_files)) {
            const std::string place = std::string(what) + " in place of " + name;
            SCOPED_TRACE(place);
            {
                Planted planted(path, thing, folder, text + "precious");
                Watchdog watchdog(path);
                pm_error error = PM_ERROR_INIT;
                int code = TryOpen(registry, &error);
                if (thing == Thing::HardLink) {
                    // The other name is somebody else's matter, and the file is not.
                    EXPECT_EQ(PM_OK, code) << ErrorText(error);
                    EXPECT_EQ(2u, Recover().alive);
                } else {
                    EXPECT_EQ(PM_ERR_CORRUPT, code) << ErrorText(error);
                    EXPECT_NE(nullptr, strstr(error.hint, name)) << ErrorText(error);
                }
                if (code == PM_OK) {
                    EXPECT_EQ(PM_OK, Close());
                }
            }
            ExpectAllIsWell(place);
        }
    }
}

TEST_P(InPlace, WhatIsNoRecordOfOursIsSetAsideAndNeverFollowed)
{
    StartTwo();
    const std::string path = boot + "/" + record, aside = registry + "/quarantine/" + record;
    const std::string text = ReadFile(path);
    for (const auto &[thing, what] : Those(in_place_of_files)) {
        SCOPED_TRACE(what);
        {
            // A link leads to a record that would be believed.
            Planted planted(path, thing, folder, text);
            Watchdog watchdog(path);
            Open(Options());
            // A start does not believe it either, and does not put it away.
            pm_error error = PM_ERROR_INIT;
            EXPECT_EQ(nullptr, StartDaemon(manager, "bad", &error));
            EXPECT_EQ(PM_ERR_EXISTS, error.code) << ErrorText(error);
            pm_recover_report report = Recover();
            if (thing == Thing::HardLink) {
                EXPECT_EQ(2u, report.alive) << "another name of the same record";
            } else {
                EXPECT_EQ(1u, report.alive);
                EXPECT_EQ(1u, report.quarantined);
                EXPECT_EQ(1u, Count(EntriesOf(registry), "running", "good"));
                struct stat st = {};
                EXPECT_EQ(0, lstat(aside.c_str(), &st));
                EXPECT_NE(0, lstat(path.c_str(), &st));
            }
            EXPECT_EQ(PM_OK, Close());
            if (unlink(aside.c_str()) != 0) {
                rmdir(aside.c_str());
            }
        }
        ExpectAllIsWell(what);
    }
}

TEST_P(InPlace, AnExitRecordReplacesWhatIsInItsPlaceOrIsWrittenLater)
{
    Open(Options());
    const std::string exits = registry + "/exits";
    int number = 0;
    for (const auto &[thing, what] : Those(in_place_of_files)) {
        SCOPED_TRACE(what);
        const std::string key = "ends-" + std::to_string(number++);
        Start(key);
        const std::string name = Find(registry + "/" + Find(registry, "boot-"), "d-" + key + ".");
        const uint64_t failures = Stats().registry_failures;
        {
            Planted planted(exits + "/" + name, thing, folder, "precious");
            Watchdog watchdog(exits + "/" + name);
            EXPECT_EQ(PM_OK, pm_process_stop(held.back(), &kill_now, nullptr));
            (void)Wait(held.back());
            if (thing != Thing::Folder) {
                EXPECT_EQ(failures, Stats().registry_failures);
                EXPECT_EQ(1u, Count(EntriesOf(registry), "exited", key));
                EXPECT_EQ(0u, Count(EntriesOf(registry), "running", key));
            } else {
                EXPECT_LT(failures, Stats().registry_failures);
                EXPECT_EQ(1u, Count(EntriesOf(registry), "running", key)) << "told later";
            }
        }
        if (thing == Thing::Folder) {
            EXPECT_EQ(PM_OK, Close());
            Open(Options());
            EXPECT_EQ(1u, Recover().ended);
            // As its parent may wait for it late.
            EXPECT_TRUE(
                Eventually([&] { return Count(EntriesOf(registry), "running", key) == 0; }));
            EXPECT_EQ(1u, Count(EntriesOf(registry), "exited", key));
        }
        EXPECT_EQ("", Find(exits, ".tmp"));
    }
}

TEST_P(InPlace, AFolderThatIsNotOursAloneIsRefusedAndNothingIsWrittenThroughIt)
{
    StartTwo();
    const std::string folders[] = {registry, boot, registry + "/exits", registry + "/quarantine"};
    for (const std::string &path : folders) {
        for (const auto &[thing, what] : Those(in_place_of_folders)) {
            const std::string place = std::string(what) + " in place of " + path;
            SCOPED_TRACE(place);
            {
                Planted planted(path, thing, folder, "precious");
                Watchdog watchdog(path);
                const bool is_folder =
                    thing == Thing::StrangersFolder || thing == Thing::GroupsFolder ||
                    thing == Thing::WorldsFolder || thing == Thing::ReadableFolder;
                const int expected = is_folder ? PM_ERR_ACCESS : PM_ERR_NOT_A_DIRECTORY;
                pm_error error = PM_ERROR_INIT;
                EXPECT_EQ(expected, TryOpen(registry, &error)) << ErrorText(error);
                for (const char *end : {"/", "//", "/.", "/./"}) {
                    EXPECT_EQ(expected, TryOpen(registry + end, &error)) << ErrorText(error);
                }
                const auto nobody = [](void *, const pm_registry_entry *) { return 0; };
                EXPECT_EQ(expected, pm_registry_list(registry.c_str(), nobody, nullptr));
                if (is_folder) {
                    EXPECT_TRUE(ListFolder(path).empty()) << "something was written into it";
                }
            }
            ExpectAllIsWell(place);
        }
    }
}

TEST_F(State, AFolderOfAnotherBootIsDroppedButNotThroughALink)
{
    Open(Options());
    EXPECT_EQ(PM_OK, Close());
    const std::string victim = folder + "/victim", link = registry + "/boot-elsewhere";
    const std::string old = registry + "/boot-old", inner = old + "/inner";
    ASSERT_EQ(0, mkdir(victim.c_str(), 0700));
    WriteFile(victim + "/precious", "precious");
    ASSERT_EQ(0, symlink(victim.c_str(), link.c_str()));
    ASSERT_EQ(0, mkdir(old.c_str(), 0700));
    ASSERT_EQ(0, symlink((victim + "/precious").c_str(), inner.c_str()));
    Open(Options());
    EXPECT_EQ("precious", ReadFile(victim + "/precious"));
    EXPECT_EQ("", Find(registry, "boot-old"));
}

// args: registry folder, file that must stay as it is. In a program of its own, so that the names
// of the temporary files are known.
int TemporaryNames(const Args &args)
{
    const std::string registry = args.at(0);
    pm_options options = PM_OPTIONS_INIT;
    options.registry_dir = registry.c_str();
    options.status_pending_ms = 10;
    pm_manager *manager = nullptr;
    pm_error error = PM_ERROR_INIT;
    if (pm_open(&options, &manager, &error) != PM_OK) {
        printf("%s\n", ErrorText(error).c_str());
        return 1;
    }
    std::vector<std::string> dirs = {registry + "/exits"};
    for (const auto &name : ListFolder(registry)) {
        if (name.rfind("boot-", 0) == 0) {
            dirs.push_back(registry + "/" + name);
        }
    }
    for (int i = 0; i < 16; i++) {
        for (const auto &dir : dirs) {
            std::string path = dir + "/.tmp-" + std::to_string(getpid()) + "-" + std::to_string(i);
            int made = i % 2 == 0 ? symlink(args.at(1).c_str(), path.c_str())
                                  : link(args.at(1).c_str(), path.c_str());
            if (made != 0) {
                printf("%s: %s\n", path.c_str(), strerror(errno));
                return 1;
            }
        }
    }
    pm_process *process = StartDaemon(manager, "one", &error);
    if (process == nullptr || pm_process_stop(process, &kill_now, nullptr) != PM_OK ||
        pm_process_wait(process, Patience(), nullptr) != PM_OK) {
        printf("%s\n", ErrorText(error).c_str());
        return 1;
    }
    pm_process_unref(process);
    if (pm_close(manager, -1, nullptr) != PM_OK) {
        return 1;
    }
    printf("good\n");
    return 0;
}
const RoleAdder temporary_names("temporary-names", TemporaryNames);

TEST_F(State, LinksUnderTheNamesOfTemporaryFilesAreNotFollowed)
{
    Open(DefaultOptions(), false);
    const std::string victim = folder + "/victim";
    WriteFile(victim, "precious");
    ASSERT_EQ(0, chmod(victim.c_str(), 0640));
    Child host({"temporary-names", registry, victim});
    host->stdout_slot.kind = PM_STDIO_PIPE;
    EXPECT_EQ("good\n", ReadAll(Spawn(host)));
    struct stat st = {};
    EXPECT_EQ(0, stat(victim.c_str(), &st));
    EXPECT_EQ(0640u, st.st_mode & 07777);
    EXPECT_EQ("precious", ReadFile(victim));
    EXPECT_EQ(PM_OK, Close());
    Open(Options());
    auto entries = EntriesOf(registry);
    EXPECT_EQ(1u, Count(entries, "exited", "one"));
    EXPECT_EQ(1u, entries.size());
    EXPECT_EQ("precious", ReadFile(victim));
    EXPECT_EQ("", Find(registry + "/exits", ".tmp")) << "the next owner has taken them away";
    EXPECT_EQ("", Find(registry + "/" + Find(registry, "boot-"), ".tmp"));
}

// ------------------------------------------------------------------------------------------------
// No space
// ------------------------------------------------------------------------------------------------

const int no_such_disk = 77;

// In a mount namespace of our own; without privileges in a user namespace as well.
bool OwnMounts()
{
    if (unshare(CLONE_NEWNS) != 0) {
        const std::string user = std::to_string(geteuid()), group = std::to_string(getegid());
        if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) {
            return false;
        }
        WriteFile("/proc/self/setgroups", "deny");
        WriteFile("/proc/self/uid_map", user + " " + user + " 1");
        WriteFile("/proc/self/gid_map", group + " " + group + " 1");
    }
    return mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

// A disk of 256 KiB and 64 files that somebody fills.
class Disk
{
  public:
    explicit Disk(const std::string &where) : path(where)
    {
    }
    bool Mount() const
    {
        return mkdir(path.c_str(), 0700) == 0 &&
               mount("tmpfs", path.c_str(), "tmpfs", 0, "size=256k,nr_inodes=64,mode=0700") == 0;
    }
    // True if it is the space that is at an end.
    bool FillSpace() const
    {
        int fd = open((path + "/filler").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        char block[4096] = "";
        while (write(fd, block, sizeof block) > 0) {
        }
        int error = errno;
        close(fd);
        return error == ENOSPC;
    }
    bool FillNames()
    {
        for (;;) {
            std::string name = path + "/filler-" + std::to_string(names.size());
            int fd = open(name.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
            if (fd < 0) {
                return errno == ENOSPC;
            }
            close(fd);
            names.push_back(name);
        }
    }
    void Free()
    {
        unlink((path + "/filler").c_str());
        for (const auto &name : names) {
            unlink(name.c_str());
        }
        names.clear();
    }

  private:
    const std::string path;
    std::vector<std::string> names;
};

// What a part gives back: says where it went wrong and ends.
#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("line %d: %s; %s\n", __LINE__, #condition, ErrorText(error).c_str());           \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

bool HasTemporaries(const std::string &registry)
{
    for (const auto &sub : ListFolder(registry)) {
        for (const auto &name : ListFolder(registry + "/" + sub)) {
            if (name.rfind(".tmp", 0) == 0) {
                return true;
            }
        }
    }
    return false;
}

// A start that finds no space: nothing ran, nothing is left, and the next one works.
int StartWithoutSpace(pm_manager *manager, Disk &disk, const std::string &registry,
                      const std::string &mark)
{
    pm_error error = PM_ERROR_INIT;
    Cheap child("echo ran >> " + mark + "; exec sleep 120");
    child->mode = PM_MODE_DAEMON;
    child->key = "none";
    child->stdout_slot.kind = child->stderr_slot.kind = PM_STDIO_NULL;
    for (int i = 0; i < 3; i++) {
        pm_process *process = nullptr;
        NEED(pm_spawn(manager, child.Get(), &process, &error) == PM_ERR_NO_SPACE);
        NEED(process == nullptr && error.stage == PM_STAGE_REGISTRY && error.os_code == ENOSPC);
        NEED(EntriesOf(registry).empty() && !HasTemporaries(registry));
    }
    disk.Free();
    NEED(access(mark.c_str(), F_OK) != 0);
    pm_process *process = nullptr;
    error = PM_ERROR_INIT;
    NEED(pm_spawn(manager, child.Get(), &process, &error) == PM_OK);
    NEED(Eventually([&] { return ReadFile(mark) == "ran\n"; }));
    NEED(pm_process_stop(process, &kill_now, nullptr) == PM_OK);
    NEED(pm_process_wait(process, Patience(), nullptr) == PM_OK);
    pm_process_unref(process);
    NEED(pm_forget(manager, "none") == PM_OK);
    unlink(mark.c_str());
    return 0;
}

// An end that finds no space is told again by the next recovery.
int EndWithoutSpace(pm_manager **manager, Disk &disk, const pm_options &options)
{
    const std::string registry = options.registry_dir;
    pm_error error = PM_ERROR_INIT;
    pm_recover_report report = PM_RECOVER_REPORT_INIT;
    pm_exit record = PM_EXIT_INIT;
    struct pm_stats stats = PM_STATS_INIT;
    pm_process *lives = StartDaemon(*manager, "lives", &error);
    pm_process *ends = StartDaemon(*manager, "ends", &error);
    NEED(lives != nullptr && ends != nullptr);
    NEED(disk.FillSpace());
    NEED(pm_process_stop(ends, &kill_now, nullptr) == PM_OK);
    NEED(pm_process_wait(ends, Patience(), &record) == PM_OK);
    NEED(record.kind != PM_EXIT_EXITED);
    NEED(pm_stats(*manager, &stats) == PM_OK && stats.registry_failures > 0);
    NEED(Count(EntriesOf(registry), "running", "ends") == 1);
    NEED(!HasTemporaries(registry));
    NEED(pm_close(*manager, -1, nullptr) == PM_OK);
    // Without space, then with it.
    for (int i = 0; i < 2; i++) {
        NEED(pm_open(&options, manager, &error) == PM_OK);
        NEED(pm_recover(*manager, nullptr, nullptr, &report) == PM_OK);
        NEED(report.alive == 1 && report.ended == 1 && report.quarantined == 0);
        NEED(pm_process_alive(lives));
        // Its parent may wait for it late, and until then there is no status to write.
        NEED(Eventually([&] {
            return Count(EntriesOf(registry), i == 0 ? "running" : "exited", "ends") == 1;
        }));
        NEED(pm_close(*manager, -1, nullptr) == PM_OK);
        NEED(EntriesOf(registry).size() == 2);
        disk.Free();
    }
    pm_process_unref(lives);
    pm_process_unref(ends);
    NEED(pm_open(&options, manager, &error) == PM_OK);
    NEED(pm_recover(*manager, nullptr, nullptr, &report) == PM_OK && report.alive == 1);
    NEED(pm_stop_daemons(*manager, Patience(), nullptr, nullptr, nullptr) == PM_OK);
    return 0;
}

// args: folder for the disk, file that no program may write.
int FullDisk(const Args &args)
{
    pm_error error = PM_ERROR_INIT;
    Disk disk(args.at(0));
    if (!OwnMounts() || !disk.Mount()) {
        return no_such_disk;
    }
    const std::string registry = args.at(0) + "/registry";
    pm_options options = PM_OPTIONS_INIT;
    options.registry_dir = registry.c_str();
    options.status_pending_ms = 10;
    pm_manager *manager = nullptr;
    NEED(disk.FillSpace());
    NEED(pm_open(&options, &manager, &error) == PM_ERR_NO_SPACE);
    NEED(error.stage == PM_STAGE_REGISTRY && manager == nullptr);
    disk.Free();
    NEED(disk.FillNames());
    NEED(pm_open(&options, &manager, &error) == PM_ERR_NO_SPACE);
    NEED(error.stage == PM_STAGE_REGISTRY && manager == nullptr);
    disk.Free();
    error = PM_ERROR_INIT;
    NEED(pm_open(&options, &manager, &error) == PM_OK);
    NEED(disk.FillSpace());
    int code = StartWithoutSpace(manager, disk, registry, args.at(1));
    if (code == 0) {
        NEED(disk.FillNames());
        code = StartWithoutSpace(manager, disk, registry, args.at(1));
    }
    if (code == 0) {
        code = EndWithoutSpace(&manager, disk, options);
    }
    if (code == 0) {
        NEED(pm_close(manager, -1, nullptr) == PM_OK);
        printf("good\n");
    }
    return code;
}
const RoleAdder full_disk("full-disk", FullDisk);

TEST_F(State, OnAFullDiskStartsFailEndsAreToldLaterAndNothingIsLost)
{
    Open(DefaultOptions(), false);
    Child host({"full-disk", folder + "/disk", folder + "/ran"});
    host->stdout_slot.kind = PM_STDIO_PIPE;
    pm_process *process = Spawn(host);
    const std::string said = ReadAll(process);
    if (Wait(process).code == no_such_disk) {
        GTEST_SKIP() << "no mount namespace here";
    }
    EXPECT_EQ("good\n", said);
    EXPECT_TRUE(LivingWith("mountinfo", folder + "/disk").empty()) << "a process is left";
}

} // namespace
