// What the tests of races share: how many rounds, children that cost little, threads that meet.
#ifndef PM_TEST_RACES_RACES_H
#define PM_TEST_RACES_RACES_H

#include "fixture.h"

#include <condition_variable>
#include <mutex>
#include <string>

namespace races
{

// The full count if PM_TEST_FULL is set, else the quick one; fewer where everything is slower.
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
