// The program that the sequences start. It does nothing that it was not told to: every end of it
// has one cause, which the model knows.
#include "fixture.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#ifdef _WIN32
#include <windows.h>
#else
#include <csignal>
#include <unistd.h>
#endif

#include "model.h"

using namespace contract;

namespace
{

const int life_ms = 60000;

#ifdef _WIN32

void Leave(int code)
{
    ExitProcess(static_cast<UINT>(code));
}

void Listen(bool deaf)
{
    SetConsoleCtrlHandler(nullptr, TRUE);
    static pm_native event = PM_NATIVE_INVALID;
    if (pm_stop_event_open(&event) != PM_OK) {
        Leave(96);
    }
    if (!deaf) {
        std::thread([] {
            WaitForSingleObject(reinterpret_cast<HANDLE>(event), INFINITE);
            Leave(model::code_of_terminate);
        }).detach();
    }
}

#else

void Leave(int code)
{
    _exit(code);
}

// On a thread, as on Windows: ThreadSanitizer puts a handler off until the next call that it knows.
void Listen(bool deaf)
{
    static sigset_t requests;
    sigemptyset(&requests);
    sigaddset(&requests, SIGTERM);
    sigaddset(&requests, SIGINT);
    signal(SIGPIPE, SIG_IGN);
    if (deaf) {
        signal(SIGTERM, SIG_IGN);
        signal(SIGINT, SIG_IGN);
    } else {
        pthread_sigmask(SIG_BLOCK, &requests, nullptr);
        std::thread([] {
            int number = 0;
            sigwait(&requests, &number);
            Leave(number == SIGTERM ? model::code_of_terminate : model::code_of_interrupt);
        }).detach();
    }
    alarm(static_cast<unsigned>(life_ms / 1000 * Slowness()));
}

#endif

void WaitForTheEnd()
{
    std::this_thread::sleep_for(std::chrono::milliseconds(int64_t{life_ms} * Slowness()));
    Leave(97);
}

// args: "deaf" or "polite", and a file that tells that it listens; without one its stdin tells it
// what to do.
int Obey(const std::vector<std::string> &args)
{
    const bool deaf = args.at(0) == "deaf";
    Listen(deaf);
    if (args.size() > 1) {
        WriteFile(args.at(1), "x");
        WaitForTheEnd();
    }
    setvbuf(stdout, nullptr, _IONBF, 0);
    fputs("ready\n", stdout);
    char line[64];
    while (fgets(line, sizeof line, stdin) != nullptr) {
        if (strncmp(line, "exit ", 5) == 0) {
            Leave(atoi(line + 5));
        }
        fwrite(line, 1, strlen(line), stdout);
    }
    if (deaf) {
        WaitForTheEnd();
    }
    Leave(model::code_of_eof);
    return 0;
}

const RoleAdder obey("obey", Obey);

} // namespace
