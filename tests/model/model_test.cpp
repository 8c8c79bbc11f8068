// Random sequences of calls, on the library and on the model of its contract. One that fails is cut
// down to the calls that it needs, and printed. PM_TEST_SEED=NUMBER plays that one alone.

#include "verbs.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>

#ifdef __linux__
#include <sys/prctl.h>
#endif

using namespace contract;
using namespace model;

namespace
{

const size_t calls_each = 50;
const std::chrono::seconds cutting_max(60);

std::string InC(const Call &call)
{
    return Verbs()[call.verb].text(call) + ";";
}

// The same calls for a number on every system and with every library.
std::vector<Call> Draw(unsigned seed)
{
    std::mt19937 random(seed);
    auto below = [&](unsigned bound) { return static_cast<unsigned>(random() % bound); };
    unsigned all = 0;
    for (const Verb &verb : Verbs()) {
        all += verb.weight;
    }
    // Most sequences have a manager from the beginning.
    std::vector<Call> calls = {{0, 0, 0, below(4) != 0 ? 1u : 0u, below(6)}};
    while (calls.size() < calls_each) {
        // Most calls are about the Handle of the one before: what comes of several of them shows.
        const unsigned p = below(3) == 0 ? below(handles) : calls.back().p;
        Call call = {0, below(4) == 0 ? 1u : 0u, p, below(1000), below(1000)};
        for (unsigned at = below(all); at >= Verbs()[call.verb].weight; call.verb++) {
            at -= Verbs()[call.verb].weight;
        }
        calls.push_back(call);
    }
    return calls;
}

class Model : public Contract
{
  protected:
    void TearDown() override
    {
        Subreaper(false);
        Contract::TearDown();
    }

    static void Subreaper(bool on)
    {
#ifdef __linux__
        prctl(PR_SET_CHILD_SUBREAPER, on ? 1 : 0, 0, 0, 0);
#else
        (void)on;
#endif
    }

    // Each in a folder of its own, which knows nothing of the one before.
    std::string Play(const std::vector<Call> &calls, size_t *ret_at)
    {
        folders++;
        std::string own = folder + "/" + std::to_string(folders);
        MakeFolder(own);
        const size_t descriptors = CountDescriptors(), threads = CountThreads();
        std::string problem = Player(own).Play(calls, ret_at);
        RemoveTree(own);
        // The lists of a joined thread and of what another thread closes are right a moment later.
        if (problem.empty() && !Eventually([&] { return CountDescriptors() == descriptors; })) {
            problem = std::to_string(CountDescriptors()) + " descriptors, before " +
                      std::to_string(descriptors);
        }
        if (problem.empty() && !Eventually([&] { return CountThreads() == threads; })) {
            problem =
                std::to_string(CountThreads()) + " threads, before " + std::to_string(threads);
        }
        return problem;
    }

    // Drops what the failure does not need: halves, quarters, and at last each call by itself.
    std::vector<Call> Cut(std::vector<Call> calls)
    {
        const auto end = std::chrono::steady_clock::now() + cutting_max;
        for (size_t size = calls.size() / 2; size > 0; size /= 2) {
            for (size_t at = 0; at < calls.size() && std::chrono::steady_clock::now() < end;) {
                std::vector<Call> fewer = calls;
                auto from = fewer.begin() + static_cast<std::ptrdiff_t>(at);
                fewer.erase(from,
                            from + static_cast<std::ptrdiff_t>(std::min(size, calls.size() - at)));
                size_t failed_at = 0;
                if (!Play(fewer, &failed_at).empty()) {
                    calls = fewer;
                } else {
                    at += size;
                }
            }
        }
        return calls;
    }

    std::string InLines(const std::vector<Call> &calls)
    {
        size_t at = 0;
        std::string problem = Play(calls, &at), text;
        for (size_t i = 0; i < calls.size(); i++) {
            text += "    " + InC(calls[i]) + (i == at ? " // " + problem : "") + "\n";
        }
        if (problem.empty()) {
            text += "    // does not fail each time\n";
        } else if (at >= calls.size()) {
            text += "    // at the end: " + problem + "\n";
        }
        return text;
    }

    // False after a failure. Most are played by a subreaper, to which daemons come: the others lose
    // statuses where init is slow, and wait for it.
    bool PlayOne(unsigned seed)
    {
        Subreaper(seed % 8 != 0);
        const std::vector<Call> calls = Draw(seed);
        size_t at = 0;
        std::string problem = Play(calls, &at);
        if (problem.empty()) {
            return true;
        }
        printf("PM_TEST_SEED=%u: %s\n", seed, problem.c_str()); // If the rest takes too long.
        fflush(stdout);
        ADD_FAILURE() << "PM_TEST_SEED=" << seed << ", call " << at << ": "
                      << (at < calls.size() ? InC(calls[at]) : "the end") << " " << problem
                      << "\nis left of it:\n"
                      << InLines(Cut(calls));
        return false;
    }

  private:
    unsigned folders = 0;
};

// The numbers of the quick run are always the same.
TEST_F(Model, SequencesOfCallsDoWhatTheContractSays)
{
    const char *chosen = getenv("PM_TEST_SEED");
    if (chosen != nullptr) {
        PlayOne(static_cast<unsigned>(strtoul(chosen, nullptr, 10)));
        return;
    }
    const int quick = OnWine() ? 12 : std::max(120 / Slowness(), 10);
    const int count = Times(Slowness() == 1 && !OnWine() ? 10000 : 10 * quick, quick);
    size_t memory = 0;
    for (int seed = 1; seed <= count; seed++) {
        if (!PlayOne(static_cast<unsigned>(seed))) {
            return;
        }
        memory = seed == count / 4 ? MemoryInUse() : memory;
    }
    size_t warm_up = 49152;
#ifdef PM_TEST_LIBKQUEUE
    warm_up += 131072; // Its own, for threads and descriptors; it stays at that.
#endif
    // With the full number less than a Handle, if each sequence left one.
    EXPECT_LT(MemoryInUse(), memory + warm_up + static_cast<size_t>(count) * 32)
        << "bytes in use, after a fourth of the sequences " << memory;
    RecordProperty("sequences", count);
}

} // namespace
