// Whether anybody in this program spins, told on a machine of any load: beside a thread that does.
#ifndef PM_TEST_POSIX_BUSY_H
#define PM_TEST_POSIX_BUSY_H

#include <time.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>

namespace contract
{

inline int64_t ProcessorUs(clockid_t clock)
{
    timespec time = {};
    clock_gettime(clock, &time);
    return static_cast<int64_t>(time.tv_sec) * 1000000 + time.tv_nsec / 1000;
}

// Whether this program takes more of the processors during `wait` than a fourth of what one thread
// can have.
inline bool SomebodySpinsDuring(const std::function<void()> &wait)
{
    std::atomic<bool> over{false};
    int64_t before = ProcessorUs(CLOCK_PROCESS_CPUTIME_ID), spinner = 0;
    std::thread spinning([&] {
        while (!over) {
        }
        spinner = ProcessorUs(CLOCK_THREAD_CPUTIME_ID);
    });
    wait();
    over = true;
    spinning.join();
    return (ProcessorUs(CLOCK_PROCESS_CPUTIME_ID) - before - spinner) * 4 > spinner;
}

} // namespace contract

#endif
