// What the tests of races share: how many rounds, children that cost little, threads that meet.
#ifndef PM_TEST_RACES_RACES_H
#define PM_TEST_RACES_RACES_H

#include "fixture.h"

#include <condition_variable>
#include <mutex>
#include <string>

namespace races
{

// Times(), and where everything is slower: of the quick number only so many that they take about as
// long as elsewhere, for somebody waits for that run; in full 10,000 at most, for a sanitizer
// reports a race also when it does no harm, and needs fewer rounds to meet it.
int Rounds(int full, int quick);

// A program of the system in place of this one: it starts in a fraction of the time.
struct Cheap : contract::Child {
    explicit Cheap(const std::string &script);
};

// Threads that go on together once all of them are here, as often as needed.
class Meeting
{
  public:
    explicit Meeting(int members) : all(members)
    {
    }
    void Meet();

  private:
    std::mutex lock;
    std::condition_variable everybody;
    const int all;
    int here = 0;
    unsigned long turn = 0;
};

class Races : public contract::Contract
{
  protected:
    void SetUp() override;

    // Numbers of living processes with this text in a file of their /proc folder.
    static std::vector<uint64_t> LivingWith(const char *file, const std::string &text);
};

} // namespace races

#endif
