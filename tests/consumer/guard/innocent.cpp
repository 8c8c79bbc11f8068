#include <processmgr/processmgr.h>

#include <string>

// C++ names may be what they like.
namespace shell
{
int system(const std::string &command)
{
    return static_cast<int>(command.size());
}
int use()
{
    return system("x") + static_cast<int>(pm_version()[0]);
}
} // namespace shell
