#include <process.h>
#include <stdlib.h>

#include "win32.h"

_Static_assert(sizeof(SRWLOCK) == sizeof(struct pmi_mutex), "a mutex is an SRWLOCK");
_Static_assert(sizeof(CONDITION_VARIABLE) == sizeof(struct pmi_cond), "a condition variable");

// ------------------------------------------------------------------------------------------------
// Time
// ------------------------------------------------------------------------------------------------

// The performance counter: GetTickCount64 moves in steps of 10 to 16 ms.
int64_t pmi_now_ms(void)
{
    LARGE_INTEGER count, frequency;
    (void)QueryPerformanceCounter(&count);
    (void)QueryPerformanceFrequency(&frequency);
    // Seconds and rest apart: count * 1000 would overflow after some years at a 10 MHz counter.
    return count.QuadPart / frequency.QuadPart * 1000 +
           count.QuadPart % frequency.QuadPart * 1000 / frequency.QuadPart;
}

int64_t pmi_now_us(void)
{
    LARGE_INTEGER count, frequency;
    (void)QueryPerformanceCounter(&count);
    (void)QueryPerformanceFrequency(&frequency);
    return count.QuadPart / frequency.QuadPart * 1000000 +
           count.QuadPart % frequency.QuadPart * 1000000 / frequency.QuadPart;
}

uint64_t pmi_win_filetime(const FILETIME *time)
{
    return (uint64_t)time->dwHighDateTime << 32 | time->dwLowDateTime;
}

int64_t pmi_win_wall_of(uint64_t filetime)
{
    const int64_t unix_epoch_ms = 11644473600000; // 1601-01-01 to 1970-01-01.
    return (int64_t)(filetime / 10000) - unix_epoch_ms;
}

int64_t pmi_wall_ms(void)
{
    FILETIME now;
    GetSystemTimeAsFileTime(&now);
    return pmi_win_wall_of(pmi_win_filetime(&now));
}

void pmi_sleep_ms(uint32_t ms)
{
    Sleep(ms);
}

DWORD pmi_win_timeout(int64_t deadline)
{
    const int64_t longest = 0x7fffffff; // Waiters look at the clock again after it.
    if (deadline == PMI_NEVER) {
        return INFINITE;
    }
    int64_t rest = deadline - pmi_now_ms();
    return rest <= 0 ? 0 : (DWORD)(rest < longest ? rest : longest);
}

int pmi_cancel_off(void)
{
    return 0; // Windows has no cancellation of threads.
}

void pmi_cancel_restore(int state)
{
    (void)state;
}

void pmi_guarded(void (*body)(void *), void (*undo)(void *), void *arg)
{
    body(arg);
    undo(arg);
}

// ------------------------------------------------------------------------------------------------
// Locks
// ------------------------------------------------------------------------------------------------

void pmi_mutex_init(struct pmi_mutex *m)
{
    InitializeSRWLock((SRWLOCK *)m);
}

void pmi_mutex_destroy(struct pmi_mutex *m)
{
    (void)m;
}

void pmi_mutex_lock(struct pmi_mutex *m)
{
    AcquireSRWLockExclusive((SRWLOCK *)m);
}

void pmi_mutex_unlock(struct pmi_mutex *m)
{
    ReleaseSRWLockExclusive((SRWLOCK *)m);
}

void pmi_cond_init(struct pmi_cond *c)
{
    InitializeConditionVariable((CONDITION_VARIABLE *)c);
}

void pmi_cond_destroy(struct pmi_cond *c)
{
    (void)c;
}

void pmi_cond_wait(struct pmi_cond *c, struct pmi_mutex *m, int64_t deadline)
{
    (void)SleepConditionVariableSRW((CONDITION_VARIABLE *)c, (SRWLOCK *)m,
                                    pmi_win_timeout(deadline), 0);
}

void pmi_cond_broadcast(struct pmi_cond *c)
{
    WakeAllConditionVariable((CONDITION_VARIABLE *)c);
}

// ------------------------------------------------------------------------------------------------
// Threads
// ------------------------------------------------------------------------------------------------

struct thread_start {
    void (*run)(void *);
    void *arg;
};

static unsigned __stdcall thread_main(void *context)
{
    struct thread_start start = *(struct thread_start *)context;
    free(context);
    start.run(start.arg);
    return 0;
}

int pmi_thread_start(struct pmi_thread *t, void (*run)(void *), void *arg)
{
    struct thread_start *start = malloc(sizeof *start);
    if (start == NULL) {
        return PM_ERR_NO_MEMORY;
    }
    start->run = run;
    start->arg = arg;
    // Not CreateThread: the thread runs callbacks of the host, which use the C runtime.
    uintptr_t handle = _beginthreadex(NULL, 0, thread_main, start, 0, NULL);
    if (handle == 0) {
        free(start);
        return PM_ERR_NO_PROCESS_SLOTS;
    }
    t->handle = (void *)handle;
    return PM_OK;
}

void pmi_thread_join(struct pmi_thread *t)
{
    if (t->handle != NULL) {
        (void)WaitForSingleObject(t->handle, INFINITE);
        (void)CloseHandle(t->handle);
        t->handle = NULL;
    }
}

uint64_t pmi_thread_self(void)
{
    return GetCurrentThreadId();
}

uint64_t pmi_self_pid(void)
{
    return GetCurrentProcessId();
}

uint64_t pmi_self(void)
{
    return GetCurrentProcessId();
}
