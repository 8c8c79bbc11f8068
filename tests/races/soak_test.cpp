// A program that has a manager for a long time and does everything with it, again and again: what
// it uses is measured on the way, and the line through the measurements must be flat.

#include "races.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <thread>

#include <unistd.h>

using namespace contract;
using namespace races;

namespace
{

// Least squares: by how much the line through them rises from the first to the last.
double Rise(const std::vector<double> &samples)
{
    const auto n = static_cast<double>(samples.size());
    double x = 0, y = 0, xx = 0, xy = 0;
    for (size_t i = 0; i < samples.size(); i++) {
        x += static_cast<double>(i);
        y += samples[i];
        xx += static_cast<double>(i) * static_cast<double>(i);
        xy += static_cast<double>(i) * samples[i];
    }
    const double slope = (n * xy - x * y) / (n * xx - x * x);
    return slope * (n - 1);
}

double ResidentBytes()
{
    unsigned long all = 0, resident = 0;
    return sscanf(ReadFile("/proc/self/statm").c_str(), "%lu %lu", &all, &resident) == 2
               ? static_cast<double>(resident) * static_cast<double>(sysconf(_SC_PAGESIZE))
               : 0;
}

class Soak : public Races
{
  protected:
    // What is done in each round of a thread; "" or what went wrong.
    using Part = std::string (Soak::*)(int thread);

    std::string Check(bool good, const char *what)
    {
        return good ? "" : what;
    }

    std::string Conversation(int)
    {
        Cheap child("while read line; do echo \"got $line\"; done; exit 3");
        child->stdin_slot.kind = child->stdout_slot.kind = PM_STDIO_PIPE;
        pm_process *process = nullptr;
        if (pm_spawn(manager, child.Get(), &process, nullptr) != PM_OK) {
            return "a child with pipes does not start";
        }
        char bytes[64] = "";
        size_t count = 0;
        pm_exit record = PM_EXIT_INIT;
        pm_info info = PM_INFO_INIT;
        pm_stream *in = pm_process_stream(process, PM_STDIN);
        bool good = pm_stream_write(in, "it\n", 3, Patience(), &count) == PM_OK &&
                    pm_stream_read(pm_process_stream(process, PM_STDOUT), bytes, sizeof bytes - 1,
                                   Patience(), &count) == PM_OK &&
                    strcmp(bytes, "got it\n") == 0 && pm_process_info(process, &info) == PM_OK &&
                    pm_stream_close(in) == PM_OK &&
                    pm_process_wait(process, Patience(), &record) == PM_OK && record.code == 3;
        pm_process_unref(process);
        return Check(good, "a child with pipes");
    }

    std::string Kill(int thread)
    {
        Cheap child("exec sleep 120");
        child->die_with_parent = thread % 2 == 0;
        child->stop = {1, {{PM_STOP_KILL, PM_SCOPE_TREE, static_cast<uint32_t>(Patience())}}};
        pm_process *process = nullptr;
        pm_stop_report report = PM_STOP_REPORT_INIT;
        bool good = pm_spawn(manager, child.Get(), &process, nullptr) == PM_OK &&
                    pm_process_stop(process, nullptr, &report) == PM_OK && report.ended_by == 1;
        pm_process_unref(process);
        return Check(good, "a child that is killed");
    }

    std::string Terminal(int)
    {
        Cheap child("echo on a terminal");
        child->mode = PM_MODE_PTY;
        child->stdin_slot.kind = PM_STDIO_DEFAULT;
        pm_run_options options = PM_RUN_OPTIONS_INIT;
        options.spec = child.Get();
        options.timeout_ms = Patience();
        pm_run_result result = PM_RUN_RESULT_INIT;
        bool good = pm_run(manager, &options, &result, nullptr) == PM_OK &&
                    std::string(result.output[0], result.output_size[0]) == "on a terminal\r\n";
        pm_run_result_clear(&result);
        return Check(good, "a terminal");
    }

    std::string Capture(int)
    {
        Cheap child("cat; head -c 100000 /dev/zero >&2; exit 7");
        child->stdin_slot.kind = PM_STDIO_DEFAULT;
        const std::string input(200000, 'x');
        pm_run_options options = PM_RUN_OPTIONS_INIT;
        options.spec = child.Get();
        options.input = input.data();
        options.input_size = input.size();
        options.timeout_ms = Patience();
        pm_run_result result = PM_RUN_RESULT_INIT;
        bool good = pm_run(manager, &options, &result, nullptr) == PM_OK &&
                    result.record->code == 7 && result.output_size[0] == input.size() &&
                    result.output_size[1] == 100000;
        pm_run_result_clear(&result);
        return Check(good, "a run with input and output");
    }

    std::string Daemon(int thread)
    {
        const std::string key = "soak-" + std::to_string(thread);
        Cheap child("exec sleep 120");
        child->mode = PM_MODE_DAEMON;
        child->key = key.c_str();
        child->stop = {1, {{PM_STOP_KILL, PM_SCOPE_TREE, static_cast<uint32_t>(Patience())}}};
        pm_process *process = nullptr;
        bool good = pm_spawn(manager, child.Get(), &process, nullptr) == PM_OK &&
                    pm_process_stop(process, nullptr, nullptr) == PM_OK &&
                    pm_process_wait(process, Patience(), nullptr) == PM_OK;
        pm_process_unref(process);
        return Check(good && pm_forget(manager, key.c_str()) == PM_OK, "a daemon");
    }

    std::string Failures(int)
    {
        Cheap missing("true"), lost("true");
        missing.program = "/is/not/there";
        lost->cwd = "/is/not/there";
        return Check(pm_spawn(manager, missing.Get(), nullptr, nullptr) == PM_ERR_NOT_FOUND &&
                         pm_spawn(manager, lost.Get(), nullptr, nullptr) == PM_ERR_NOT_FOUND,
                     "starts that fail");
    }

    std::string Loose(int)
    {
        Cheap child("exit 0");
        return Check(pm_spawn(manager, child.Get(), nullptr, nullptr) == PM_OK,
                     "one without a Handle");
    }

    std::string SecondManager(int)
    {
        pm_manager *second = nullptr;
        Cheap child("exec sleep 120");
        bool good = pm_open(nullptr, &second, nullptr) == PM_OK &&
                    pm_spawn(second, child.Get(), nullptr, nullptr) == PM_OK &&
                    pm_close(second, Patience(), nullptr) == PM_OK;
        return Check(good, "a second manager");
    }

    std::string Round(int thread)
    {
        static const Part parts[] = {&Soak::Conversation, &Soak::Kill,         &Soak::Terminal,
                                     &Soak::Capture,      &Soak::Daemon,       &Soak::Failures,
                                     &Soak::Loose,        &Soak::SecondManager};
        std::string problem;
        for (Part part : parts) {
            problem = problem.empty() ? (this->*part)(thread) : problem;
        }
        return problem;
    }

    static const int threads = 3, rounds = 4; // Of each thread, between two samples.

    // Then nothing is under way.
    std::string Work()
    {
        std::string problems[threads];
        std::vector<std::thread> workers;
        for (int t = 0; t < threads; t++) {
            workers.emplace_back([&, t] {
                for (int i = 0; i < rounds && problems[t].empty(); i++) {
                    problems[t] = Round(t);
                }
            });
        }
        std::string text;
        for (int t = 0; t < threads; t++) {
            workers[static_cast<size_t>(t)].join();
            text += problems[t];
        }
        if (!Eventually([&] { return Stats().running == 0; })) {
            text += "something runs";
        }
        return text;
    }
};

// In full number some minutes. A descriptor or a thread that one round in a hundred leaves is a
// rise by a hundred. Bytes in use: the C library counts what each thread keeps for its next request
// as well, which settles slowly, so 16 for each round are no leak.
TEST_F(Soak, NothingGrowsUnderAMixedLoad)
{
    const int count = std::max(Rounds(1000, 16), 8); // A line has two points.
    pm_options options = DefaultOptions();
    options.status_pending_ms = 10;
    options.event = [](void *, const pm_event *) {};
    Open(options);
    size_t least = SIZE_MAX; // Of threads, in any sample so far.
    std::vector<double> resident, in_use, descriptors, tasks;
    for (auto *samples : {&resident, &in_use, &descriptors, &tasks}) {
        samples->reserve(static_cast<size_t>(count)); // Nothing of it grows.
    }
    for (int i = 0; i < count; i++) {
        ASSERT_EQ("", Work()) << "sample " << i;
        // A joined thread leaves the list a moment later; the first quarter is for warming up.
        if (i >= count / 4) {
            (void)Eventually([&] { return CountThreads() <= least; });
            least = std::min(least, CountThreads());
            resident.push_back(ResidentBytes());
            in_use.push_back(static_cast<double>(MemoryInUse()));
            descriptors.push_back(static_cast<double>(CountDescriptors()));
            tasks.push_back(static_cast<double>(CountThreads()));
        }
    }
    printf("rise over %zu samples: %.0f bytes resident, %.0f bytes in use, %.2f descriptors, %.2f "
           "threads\n",
           resident.size(), Rise(resident), Rise(in_use), Rise(descriptors), Rise(tasks));
    EXPECT_LT(Rise(descriptors), 1);
    EXPECT_LT(Rise(tasks), 1);
    double settling = 32768;
#ifdef PM_TEST_LIBKQUEUE
    settling *= 2; // Its own memory does, too.
#endif
    EXPECT_LT(Rise(in_use),
              settling + 16.0 * threads * rounds * static_cast<double>(in_use.size()));
    // A sanitizer keeps what was freed; and the heaps of the C library need longer to settle.
    if (MemoryInUse() != 0 && resident.size() > 100) {
        EXPECT_LT(Rise(resident), 1 << 20);
    }
    EXPECT_EQ(0u, Stats().leaked_total);
}

} // namespace
