// A part that is played on a poor host, in a program of its own, and the stage for it.
#ifndef PM_TEST_HOSTS_HOST_H
#define PM_TEST_HOSTS_HOST_H

#include "fixture.h"

#include <sys/types.h>

namespace hosts
{

using Args = std::vector<std::string>;

constexpr int kNoSuchHost = 77; // Exit code of pm-host.

// What a part gives back: prints the reason and is over.
#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            printf("%s:%d: %s; %s\n", __FILE__, __LINE__, #condition, ErrorText(error).c_str());   \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

// A part, run by pm-host under conditions one within another. Its stdin and stdout are ours.
class Stage
{
  public:
    Stage(const Args &conditions, const Args &part);
    ~Stage();
    Stage(const Stage &) = delete;
    Stage &operator=(const Stage &) = delete;

    std::string ReadLine();
    void Say(char byte);
    // What else it says, until it ends.
    int End(std::string *ret_said);

  private:
    bool ReadByte(char *byte);

    pid_t pid = 0;
    int in = -1, out = -1;
};

// Plays a part that says nothing when all is well. The last thing that a case does: it may skip.
void Play(const Args &conditions, const Args &part);

// A user that is nobody else's.
std::string StrangeUser();

// Open descriptors below 1024, without opening one.
size_t OpenDescriptors();
// Our children, keepers left out.
size_t Children();
// The record of the only daemon in a registry.
std::string RunningRecord(const std::string &registry);
// Records of daemons in a registry.
size_t Records(const std::string &registry);
// Living processes with that text in their command line.
size_t Running(const std::string &text);

pm_options OptionsFor(const std::string &registry);

} // namespace hosts

#endif
