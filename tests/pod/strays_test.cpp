// Who has left the child's session, in a process table that the test makes: what no real one does
// when it is wanted, as numbers that come again and forks in the middle of a look.
#include <gtest/gtest.h>

#include <cerrno>
#include <cstdarg>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include "pmi_config.h"
#ifdef HAVE_PIDFD
#include <sys/syscall.h>
#endif

#include "strays_table.h"

extern "C" {
#include "poddaemon/os.h"
}

namespace
{

const pid_t kHolder = 50, kChild = 100;

struct Entry : table_row {
    std::string heard; // One letter for each signal.
    bool stopped;
};

// The host. There is one at a time.
struct Table {
    std::map<pid_t, Entry> entries;
    std::map<int, std::pair<pid_t, uint64_t>> pidfds;
    std::multiset<pid_t> listed; // Whose children were asked for.
    std::set<pid_t> parents;     // Who may have any.
    std::function<void(pid_t)> on_list = [](pid_t) {}, on_look = on_list, on_looked = on_list,
                               on_open = on_list;
    int descriptors = 1000, next_fd = 1000;
    unsigned tables = 0, looks = 0; // At all processes, at one.
    uint64_t next_start = 1;
    bool lists = true, foreign = false;

    Table();
    ~Table();
    void Add(pid_t pid, pid_t parent, pid_t session)
    {
        parents.insert(parent);
        entries[pid] = {{parent, session, next_start++, false, 1}, "", false};
    }
    Entry *Living(pid_t pid)
    {
        auto at = entries.find(pid);
        return at == entries.end() || at->second.dead ? nullptr : &at->second;
    }
    void End(pid_t pid)
    {
        entries.erase(pid);
        for (auto &[other, entry] : entries)
            entry.parent = entry.parent == pid ? 1 : entry.parent;
    }
    bool Take(int count)
    {
        if (descriptors < count) {
            errno = EMFILE;
            return false;
        }
        descriptors -= count;
        return true;
    }
    void Hear(pid_t pid, int number)
    {
        Entry *entry = Living(pid);
        if (entry == nullptr)
            return;
        const std::map<int, char> letters = {{SIGTERM, 't'},
                                             {SIGCONT, 'c'},
                                             {SIGSTOP, 's'},
                                             {SIGKILL, 'k'}};
        entry->heard += letters.at(number);
        entry->stopped = number == SIGSTOP || (number != SIGCONT && entry->stopped);
        entry->dead = number == SIGKILL;
        for (auto &[other, below] : entries)
            below.parent = entry->dead && below.parent == pid ? 1 : below.parent;
    }
};

Table *table;

Table::Table()
{
    table = this;
}

Table::~Table()
{
    table = nullptr;
}

} // namespace

extern "C" {

int table_look(pid_t pid, table_row *ret_row)
{
    table->looks++;
    table->on_look(pid);
    if (!table->Take(1))
        return PM_ERR_NO_DESCRIPTORS;
    table->descriptors++;
    auto at = table->entries.find(pid);
    if (at == table->entries.end())
        return PM_ERR_GONE;
    *ret_row = at->second;
    table->on_looked(pid);
    return PM_OK;
}

// A folder and a file in it, all the while.
int table_children_list(pid_t parent, void (*visit)(void *context, pid_t pid), void *context)
{
    if (!table->lists)
        return PM_ERR_UNSUPPORTED;
    if (!table->Take(2))
        return PM_ERR_NO_DESCRIPTORS;
    table->listed.insert(parent);
    std::vector<pid_t> children;
    for (auto &[pid, entry] : table->entries) {
        if (table->parents.count(parent) == 0)
            break;
        if (entry.parent == parent)
            children.push_back(pid);
    }
    table->on_list(parent);
    for (pid_t pid : children)
        visit(context, pid);
    table->descriptors += 2;
    return PM_OK;
}

int table_pids_visit(bool (*visit)(void *context, pid_t pid), void *context)
{
    if (!table->Take(1))
        return EMFILE;
    table->tables++;
    std::vector<pid_t> pids;
    for (auto &[pid, entry] : table->entries)
        pids.push_back(pid);
    for (pid_t pid : pids) {
        if (!visit(context, pid))
            break;
    }
    table->descriptors++;
    return 0;
}

bool table_is_foreign(void)
{
    return table->foreign;
}

pid_t table_getpid(void)
{
    return kHolder;
}

int table_open(const char *, int, ...)
{
    return table->Take(1) ? table->next_fd++ : -1;
}

int table_close(int fd)
{
    table->pidfds.erase(fd);
    table->descriptors++;
    return 0;
}

int table_kill(pid_t pid, int number)
{
    EXPECT_GT(pid, 1);
    table->Hear(pid, number);
    return 0;
}

long table_syscall([[maybe_unused]] long call, ...)
{
    errno = ENOSYS;
#ifdef HAVE_PIDFD
    va_list list;
    va_start(list, call);
    int first = va_arg(list, int), second = va_arg(list, int);
    va_end(list);
    if (call == SYS_pidfd_open) {
        if (table->entries.count(first) == 0) {
            errno = ESRCH;
            return -1;
        }
        if (!table->Take(1))
            return -1;
        table->pidfds[table->next_fd] = {first, table->entries[first].start};
        table->on_open(first);
        return table->next_fd++;
    }
    if (call == SYS_pidfd_send_signal) {
        auto [pid, start] = table->pidfds.at(first);
        if (table->Living(pid) == nullptr || table->Living(pid)->start != start) {
            errno = ESRCH;
            return -1;
        }
        table->Hear(pid, second);
        return 0;
    }
#endif
    return -1;
}

} // extern "C"

namespace
{

class Strays : public testing::Test
{
  protected:
    Table host;
    pod_strays strays = {};

    void SetUp() override
    {
        host.Add(kChild, kHolder, kChild);
        host.Add(101, kChild, kChild); // Of its session.
        host.Add(7, 1, 7);             // A stranger.
    }
    void TearDown() override
    {
        pod_strays_clear(&strays);
        EXPECT_EQ(host.descriptors, 1000);
        EXPECT_EQ(host.entries[7].heard, "");
    }
    void Begin()
    {
        EXPECT_EQ(pod_strays_begin(&strays, kChild), PM_OK);
    }
    // As session.c does it.
    int Terminate()
    {
        int noted = pod_strays_note(&strays), sent = pod_strays_terminate(&strays);
        return noted != PM_OK ? noted : sent;
    }
    int Kill()
    {
        int noted = pod_strays_note(&strays), sent = pod_strays_kill(&strays);
        return noted != PM_OK ? noted : sent;
    }
    std::string Heard(pid_t pid)
    {
        return host.entries[pid].heard;
    }
    bool Killed(pid_t pid)
    {
        return host.entries[pid].dead;
    }
};

TEST_F(Strays, AreThoseOfOtherSessionsBelowTheChildAlone)
{
    host.Add(200, 101, 200);
    host.Add(201, 200, 200); // Of a stray.
    host.Add(202, 201, kChild);
    host.Add(203, 1, 203); // A daemon: nobody knows whose it was.
    Begin();
    EXPECT_EQ(Terminate(), PM_OK);
    EXPECT_EQ(Heard(200), "tc");
    EXPECT_EQ(Heard(201), "tc");
    for (pid_t other : {kChild, pid_t{101}, pid_t{202}, pid_t{203}})
        EXPECT_EQ(Heard(other), "") << other;
    EXPECT_EQ(Kill(), PM_OK);
    EXPECT_TRUE(Killed(200) && Killed(201));
    EXPECT_FALSE(Killed(kChild) || Killed(101) || Killed(202) || Killed(203));
}

// After the polite step nothing ties the children of those that have ended to us.
TEST_F(Strays, AreRememberedWhenTheirParentsHaveEnded)
{
    host.Add(200, 101, 200);
    host.Add(201, 200, 201);
    Begin();
    EXPECT_EQ(Terminate(), PM_OK);
    host.End(200);
    host.End(101);
    EXPECT_EQ(Kill(), PM_OK);
    EXPECT_TRUE(Killed(201));
}

TEST_F(Strays, OfAnyNumberAreReached)
{
    for (pid_t pid = 1000; pid < 1200; pid++)
        host.Add(pid, 101, pid);
    Begin();
    int before = host.descriptors;
    EXPECT_EQ(Terminate(), PM_OK);
    EXPECT_EQ(host.descriptors, before);
    EXPECT_EQ(Kill(), PM_OK);
    for (pid_t pid = 1000; pid < 1200; pid++)
        EXPECT_EQ(Heard(pid).substr(0, 2) + Heard(pid).back(), "tck") << pid;
}

// Each with a session of its own, one below the other.
TEST_F(Strays, InALongChainAreLookedAtOnceInEachRound)
{
    for (pid_t pid = 1000; pid < 1300; pid++)
        host.Add(pid, pid > 1000 ? pid - 1 : 101, pid);
    Begin();
    for (int round = 0; round < 3; round++) {
        host.listed.clear();
        EXPECT_EQ(pod_strays_note(&strays), PM_OK);
        for (pid_t pid = 1000; pid < 1300; pid++)
            ASSERT_EQ(host.listed.count(pid), 1u) << pid;
    }
    EXPECT_EQ(pod_strays_kill(&strays), PM_OK);
    for (pid_t pid = 1000; pid < 1300; pid++)
        EXPECT_TRUE(Killed(pid)) << pid;
}

TEST_F(Strays, ThatAreTooManyToBeLookedAtAreTold)
{
    for (pid_t pid = 1000; pid < 6000; pid++)
        host.Add(pid, 101, pid);
    Begin();
    EXPECT_EQ(Terminate(), PM_ERR_TOO_BIG);
    EXPECT_EQ(Heard(1000), "tc");
}

TEST_F(Strays, AreReachedWhenSomebodyHasAllDescriptors)
{
    for (pid_t pid = 1000; pid < 1100; pid++)
        host.Add(pid, pid > 1050 ? pid - 1 : 101, pid);
    Begin();
    int free = host.descriptors;
    host.descriptors = 0;
    EXPECT_EQ(Terminate(), PM_OK);
    EXPECT_EQ(host.descriptors, 0); // It has its own again.
    host.Add(1100, 1099, 1100);
    EXPECT_EQ(Kill(), PM_OK);
    for (pid_t pid = 1000; pid <= 1100; pid++)
        EXPECT_TRUE(Killed(pid)) << pid;
    host.descriptors += free;
}

TEST_F(Strays, AreMissedForWantOfDescriptorsOnlyIfThatIsTold)
{
    host.Add(200, 101, 200);
    host.descriptors = 1;
    EXPECT_EQ(pod_strays_begin(&strays, kChild), PM_OK);
    EXPECT_EQ(Terminate(), PM_ERR_NO_DESCRIPTORS);
    EXPECT_EQ(Kill(), PM_ERR_NO_DESCRIPTORS);
    EXPECT_FALSE(Killed(200));
    host.descriptors = 1000 - 1; // It has taken the one there was.
    EXPECT_EQ(Kill(), PM_OK);
    EXPECT_TRUE(Killed(200));
}

TEST_F(Strays, AreNotThoseWhoGetTheirNumbers)
{
    host.Add(200, 101, 200);
    host.Add(201, 101, 201);
    Begin();
    EXPECT_EQ(Terminate(), PM_OK);
    host.End(200);
    host.Add(200, 1, 200);
    EXPECT_EQ(Kill(), PM_OK);
    EXPECT_EQ(Heard(200), "");
    EXPECT_TRUE(Killed(201));
}

#ifdef HAVE_PIDFD
// Between its descriptor and the look, and between the look and a descriptor that comes too late.
TEST_F(Strays, AreNotThoseWhoGetTheirNumbersInTheMiddleOfADelivery)
{
    host.Add(200, 101, 200);
    host.Add(201, 101, 201);
    Begin();
    EXPECT_EQ(pod_strays_note(&strays), PM_OK);
    auto give_away = [&](pid_t pid) {
        host.End(pid);
        host.Add(pid, 1, pid);
    };
    host.on_open = [&](pid_t pid) {
        if (pid == 200)
            give_away(pid);
    };
    host.on_looked = [&](pid_t pid) {
        if (pid == 201 && host.pidfds.empty())
            give_away(pid);
    };
    EXPECT_EQ(pod_strays_terminate(&strays), PM_OK);
    EXPECT_EQ(Heard(200), "");
    EXPECT_EQ(Heard(201), "tc");
}
#endif

// The list names numbers: by the time that they are looked at they may be of others.
TEST_F(Strays, AreNotThoseWhoGetTheNumbersOfAList)
{
    host.Add(200, 101, 200);
    host.Add(201, 101, 201);
    host.on_list = [&](pid_t parent) {
        if (parent == 101) {
            host.End(200);
            host.Add(200, 7, 200);
            host.on_list = [](pid_t) {};
        }
    };
    Begin();
    EXPECT_EQ(Kill(), PM_OK);
    EXPECT_EQ(Heard(200), "");
    EXPECT_TRUE(Killed(201));
}

// Nor are the children of who has the parent's number by then.
TEST_F(Strays, AreNotChildrenOfWhoGetsTheNumberOfAParent)
{
    host.Add(200, 101, 200);
    host.on_list = [&](pid_t parent) {
        if (parent == 101)
            host.Add(101, 7, 101);
    };
    Begin();
    EXPECT_EQ(Kill(), PM_OK);
    EXPECT_EQ(Heard(200), "");
    EXPECT_EQ(Heard(101), "");
}

TEST_F(Strays, AreNotLookedForBelowAChildThatIsNotOurs)
{
    host.Add(200, 101, 200);
    host.entries[kChild].parent = 1;
    Begin();
    EXPECT_EQ(Kill(), PM_OK);
    EXPECT_EQ(Heard(200), "");
    host.entries[kChild].parent = kHolder;
    host.foreign = true;
    EXPECT_EQ(Kill(), PM_OK);
    EXPECT_EQ(Heard(200), "");
    host.foreign = false;
    EXPECT_EQ(Kill(), PM_OK);
    EXPECT_TRUE(Killed(200));
}

// A process whose first thread has ended looks as if it was dead.
TEST_F(Strays, MayHaveLostTheirFirstThread)
{
    host.Add(200, 101, 200);
    host.Add(201, 200, 201);
    Begin();
    EXPECT_EQ(pod_strays_note(&strays), PM_OK);
    host.entries[200].dead = true;
    host.entries[200].threads = 2;
    host.Add(202, 200, 202);
    EXPECT_EQ(Terminate(), PM_OK);
    EXPECT_EQ(Heard(202), "tc");
}

// Whoever runs makes one more whenever somebody looks at him, or for his children.
TEST_F(Strays, ThatForkAllTheWhileAreStoppedFirst)
{
    for (bool lists : {true, false}) {
        pid_t first = lists ? 1000 : 2000, next = first;
        host.lists = lists;
        host.Add(first - 1, 101, first - 1);
        (lists ? host.on_list : host.on_look) = [&](pid_t pid) {
            Entry *entry = pid >= first - 1 ? host.Living(pid) : nullptr;
            if (entry != nullptr && !entry->stopped && next < first + 100) {
                host.Add(next, pid, next);
                next++;
            }
        };
        Begin();
        EXPECT_EQ(Kill(), PM_OK);
        EXPECT_GT(next, first);
        for (pid_t pid = first - 1; pid < next; pid++)
            EXPECT_TRUE(Killed(pid)) << pid;
        pod_strays_clear(&strays);
    }
}

// What is born between the look at all processes and the one at its parent.
TEST_F(Strays, WhoAreBornDuringTheOneLookAreFoundInTheNext)
{
    host.Add(200, 101, 200);
    host.lists = false;
    Begin();
    EXPECT_EQ(pod_strays_note(&strays), PM_OK);
    unsigned before = host.tables;
    host.on_look = [&](pid_t pid) { // The first look that is no more that at all.
        bool runs = host.Living(200) != nullptr && !host.Living(200)->stopped;
        if (pid == kChild && host.tables > before && runs && host.Living(201) == nullptr)
            host.Add(201, 200, 201);
    };
    EXPECT_EQ(pod_strays_kill(&strays), PM_OK);
    EXPECT_TRUE(Killed(200));
    EXPECT_TRUE(host.Living(201) == nullptr);
}

// One look at all processes serves for all of the tree.
TEST_F(Strays, AreFoundWithoutListsOfChildrenByOneLookInEachRound)
{
    for (pid_t pid = 1000; pid < 1200; pid++)
        host.Add(pid, pid > 1000 ? pid - 1 : 101, pid);
    for (pid_t pid = 5000; pid < 6000; pid++)
        host.Add(pid, 7, 7); // Strangers.
    host.lists = false;
    Begin();
    host.looks = 0;
    EXPECT_EQ(pod_strays_note(&strays), PM_OK);
    EXPECT_EQ(host.tables, 1u);
    EXPECT_LT(host.looks, 2500u); // All of them, and the tree three times.
    EXPECT_EQ(pod_strays_kill(&strays), PM_OK);
    EXPECT_EQ(host.tables, 2u);
    for (pid_t pid = 1000; pid < 1200; pid++)
        EXPECT_TRUE(Killed(pid)) << pid;
    EXPECT_EQ(Heard(5000), "");
}

TEST_F(Strays, AreFoundWithoutListsWhenSomebodyHasAllDescriptors)
{
    host.Add(200, 101, 200);
    host.lists = false;
    Begin();
    int free = host.descriptors;
    host.descriptors = 0;
    EXPECT_EQ(Kill(), PM_OK);
    EXPECT_TRUE(Killed(200));
    host.descriptors += free;
}

} // namespace
