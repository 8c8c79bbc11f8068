// Runs a fuzz target without libFuzzer, with any compiler: first all files of the corpus, then
// random changes of them. With files as arguments, these are run and nothing else.
//
// Each input is in a file (FUZZ_INPUT) before it is run, and stays there when the program crashes:
// the next run begins with it. Environment: PM_FUZZ_SECONDS, how long inputs are changed;
// PM_FUZZ_SEED, which fixes the changes; PM_FUZZ_CORPUS and PM_FUZZ_INPUT, other places than those
// of the build.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

extern "C" {
#include "fuzz.h"
#include "mutate.h"
}

namespace
{

using Bytes = std::vector<uint8_t>;

constexpr size_t grown_max = 256;

double Now()
{
    std::chrono::duration<double> now = std::chrono::steady_clock::now().time_since_epoch();
    return now.count();
}

std::string Setting(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value != nullptr && value[0] != '\0' ? value : otherwise;
}

Bytes Load(const std::filesystem::path &path)
{
    std::ifstream file(path, std::ios::binary);
    if (!file) {
        fprintf(stderr, "cannot be read: %s\n", path.string().c_str());
        exit(2);
    }
    return Bytes(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
}

std::string InputPath()
{
    return Setting("PM_FUZZ_INPUT", FUZZ_INPUT);
}

// In the order of their names, so that a seed means the same everywhere.
std::vector<Bytes> LoadCorpus()
{
    std::vector<std::filesystem::path> paths;
    for (const auto &entry :
         std::filesystem::directory_iterator(Setting("PM_FUZZ_CORPUS", FUZZ_CORPUS))) {
        paths.push_back(entry.path());
    }
    std::sort(paths.begin(), paths.end());
    std::vector<Bytes> corpus;
    std::transform(paths.begin(), paths.end(), std::back_inserter(corpus), Load);
    return corpus;
}

// The input that runs, unbuffered: the kernel has it, so no end of the program can lose it.
class InputFile
{
  public:
    InputFile() : path_(InputPath()), file_(fopen(path_.c_str(), "wb"))
    {
        if (file_ == nullptr) {
            Fail();
        }
        (void)setvbuf(file_, nullptr, _IONBF, 0);
        printf("after a crash the input is in %s\n", path_.c_str());
    }
    ~InputFile()
    {
        (void)fclose(file_);
        (void)remove(path_.c_str());
    }
    InputFile(const InputFile &) = delete;
    InputFile &operator=(const InputFile &) = delete;

    void Run(const Bytes &input)
    {
        rewind(file_);
        bool good = input.empty() || fwrite(input.data(), 1, input.size(), file_) == input.size();
        if (good && input.size() < size_) {
            good = ftruncate(fileno(file_), static_cast<off_t>(input.size())) == 0;
        }
        if (!good) {
            Fail();
        }
        size_ = input.size();
        (void)LLVMFuzzerTestOneInput(input.data(), input.size());
    }

  private:
    [[noreturn]] void Fail()
    {
        perror(path_.c_str());
        exit(2);
    }

    std::string path_;
    FILE *file_;
    size_t size_ = 0; // Of the file.
};

// What to go on from: half of the time a file of the corpus, else what has grown from them, which
// strays away from what is telling.
class Pool
{
  public:
    Pool(std::vector<Bytes> corpus, uint64_t *state) : corpus_(std::move(corpus)), state_(state)
    {
    }

    const Bytes &Any()
    {
        const auto &from = grown_.empty() || Below(2) != 0 ? corpus_ : grown_;
        return from[Below(from.size())];
    }

    void Keep(const Bytes &input)
    {
        if (grown_.size() < grown_max) {
            grown_.push_back(input);
        } else {
            grown_[Below(grown_max)] = input;
        }
    }

    size_t Below(size_t limit)
    {
        return static_cast<size_t>((mutate_random(state_) >> 16) % limit);
    }

  private:
    std::vector<Bytes> corpus_, grown_;
    uint64_t *state_;
};

TEST(FUZZ_SUITE, CorpusIsHandled)
{
    InputFile file;
    std::vector<Bytes> corpus = LoadCorpus();
    fuzz_notes = fuzz_counts{0, 0};
    for (const Bytes &input : corpus) {
        file.Run(input);
    }
    printf("%zu files; taken %llu, refused %llu\n", corpus.size(), fuzz_notes.taken,
           fuzz_notes.refused);
    // A corpus that ends at the first check of the tested code would test nothing.
    EXPECT_GT(fuzz_notes.taken, 0u);
    EXPECT_GT(fuzz_notes.refused, 0u);
}

TEST(FUZZ_SUITE, ChangesOfItAreHandled)
{
    InputFile file;
    double seconds = std::stod(Setting("PM_FUZZ_SECONDS", "2"));
    unsigned long long seed = std::stoull(Setting("PM_FUZZ_SEED", "1")), rounds = 0;
    uint64_t state = (seed * 0x9e3779b97f4a7c15u) | 1; // Neighbours give other numbers.
    Pool pool(LoadCorpus(), &state);
    fuzz_notes = fuzz_counts{0, 0};
    double begin = Now(), at = begin;
    for (; at - begin < seconds; at = rounds % 16 == 0 ? Now() : at) {
        Bytes input = pool.Any();
        const Bytes &from = pool.Any();
        const mutate_input other = {from.data(), from.size()};
        size_t size = std::min<size_t>(input.size(), MUTATE_SIZE_MAX);
        input.resize(MUTATE_SIZE_MAX);
        input.resize(mutate(&state, input.data(), size, &other));
        unsigned long long taken = fuzz_notes.taken;
        file.Run(input);
        if (fuzz_notes.taken > taken && pool.Below(8) == 0) {
            pool.Keep(input);
        }
        rounds++;
    }
    printf("seed %llu: %llu rounds in %.1f s, %.0f a second; taken %llu, refused %llu\n", seed,
           rounds, at - begin, static_cast<double>(rounds) / (at - begin + 1e-9), fuzz_notes.taken,
           fuzz_notes.refused);
}

} // namespace

int main(int argc, char **argv)
{
    testing::InitGoogleTest(&argc, argv);
    // What was printed before a crash is to be seen.
    (void)setvbuf(stdout, nullptr, _IONBF, 0);
    std::vector<std::filesystem::path> paths(argv + 1, argv + argc);
    bool given = !paths.empty();
    if (!given && std::filesystem::exists(InputPath())) {
        printf("an earlier run ended at an input: again\n");
        paths.emplace_back(InputPath());
    }
    for (const auto &path : paths) {
        Bytes input = Load(path);
        printf("%s: %zu bytes\n", path.string().c_str(), input.size());
        (void)LLVMFuzzerTestOneInput(input.data(), input.size());
        printf("taken %llu, refused %llu\n", fuzz_notes.taken, fuzz_notes.refused);
    }
    return given ? 0 : RUN_ALL_TESTS();
}
