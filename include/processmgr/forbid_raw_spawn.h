/**
 * Guard against raw process starts and stray waits.
 *
 * Force this header into every source of a program that uses processmgr (gcc, clang: `-include
 * processmgr/forbid_raw_spawn.h`). A call of fork(), exec*(), posix_spawn(), system(), popen(),
 * CreateProcess() and their relatives, or a wait for "any child", is then a compile error whose
 * text names what to use instead. Works in C99 and C++11 and later, with gcc, with clang 14 or
 * later, and with MinGW-w64; with other compilers the header does nothing.
 *
 * - A file that has to do it all the same is compiled with -DPM_ALLOW_RAW_SPAWN.
 * - Feature macros such as _GNU_SOURCE belong on the command line: this header includes system
 *   headers before the first line of the source.
 * - gcc gives the error when it generates code for the call, so not with `-fsyntax-only`.
 *
 * Not caught: taking a function's address and calling it through the pointer, raw syscall(), a call
 * in a library that is already compiled, and a pid that is not a constant in waitpid(pid, ...).
 * In C++ the g_spawn_ functions with a GSpawnFlags parameter are not caught either.
 */
#ifndef PROCESSMGR_FORBID_RAW_SPAWN_H
#define PROCESSMGR_FORBID_RAW_SPAWN_H

#if defined(__has_attribute) && !defined(PM_ALLOW_RAW_SPAWN) && !defined(__ASSEMBLER__)
#if __has_attribute(diagnose_if) || __has_attribute(error)
#define PM_FORBID_ACTIVE 1
#endif
#endif

#ifdef PM_FORBID_ACTIVE

/* clang takes the attribute "error" on a first declaration only, which is the system header's. */
#if __has_attribute(diagnose_if)
#define PM_FORBID(text) __attribute__((diagnose_if(1, text, "error")))
#else
#define PM_FORBID(text) __attribute__((error(text)))
#endif
#define PM_FORBID_USE(text) PM_FORBID("use pm_spawn() from <processmgr/processmgr.h>: " text)

/* Texts that several functions share. */
#define PM_FORBID_FORK "a raw fork() leaves a child nobody waits for"
#define PM_FORBID_EXEC "a raw exec() skips the checks and the clean-up of a managed start"
#define PM_FORBID_SPAWN "a raw spawn leaves a child nobody waits for"
#define PM_FORBID_SHELL "a hidden shell leaves its children behind and invites injection"
#define PM_FORBID_WAIT_ANY                                                                         \
    "use pm_process_wait() on the Handle: waiting for any child steals the exits of other code"

/* System headers first: once their include guards are set, nothing declares these names again. */
#include <stdio.h>
#include <stdlib.h>

#ifdef _WIN32

#ifndef WIN32_LEAN_AND_MEAN
#include <winsock2.h>
#endif
#include <windows.h>
/* windows.h has to come before these. */
#include <process.h>
#include <shellapi.h>
#include <wchar.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The type is taken from the declaration in the system header, so calling convention and parameters
 * agree by construction. The import attribute has to be repeated; which functions of the C runtime
 * have it differs between releases of MinGW-w64, and does not matter for what is never called. */
#pragma GCC diagnostic push
#ifdef __clang__
#pragma GCC diagnostic ignored "-Winconsistent-dllimport"
#else
#pragma GCC diagnostic ignored "-Wattributes"
#endif
#define PM_FORBID_IMPORT(name, text)                                                               \
    extern __declspec(dllimport) __typeof__(name) name PM_FORBID_USE(text)
#define PM_FORBID_CRT(name, text) extern _CRTIMP __typeof__(name) name PM_FORBID_USE(text)

PM_FORBID_IMPORT(CreateProcessA, "a raw CreateProcess() leaks handles and escapes its job");
PM_FORBID_IMPORT(CreateProcessW, "a raw CreateProcess() leaks handles and escapes its job");
PM_FORBID_IMPORT(CreateProcessAsUserA, "a raw CreateProcessAsUser() leaks handles");
PM_FORBID_IMPORT(CreateProcessAsUserW, "a raw CreateProcessAsUser() leaks handles");
PM_FORBID_IMPORT(CreateProcessWithLogonW, "a raw CreateProcessWithLogonW() escapes its job");
PM_FORBID_IMPORT(CreateProcessWithTokenW, "a raw CreateProcessWithTokenW() escapes its job");
PM_FORBID_IMPORT(ShellExecuteA, "ShellExecute() starts what the shell likes, in no job");
PM_FORBID_IMPORT(ShellExecuteW, "ShellExecute() starts what the shell likes, in no job");
PM_FORBID_IMPORT(ShellExecuteExA, "ShellExecuteEx() starts what the shell likes, in no job");
PM_FORBID_IMPORT(ShellExecuteExW, "ShellExecuteEx() starts what the shell likes, in no job");
PM_FORBID_IMPORT(WinExec, "WinExec() searches unsafe places and gives no handle");
PM_FORBID_CRT(_spawnl, PM_FORBID_SPAWN);
PM_FORBID_CRT(_wspawnl, PM_FORBID_SPAWN);
PM_FORBID_CRT(_spawnle, PM_FORBID_SPAWN);
PM_FORBID_CRT(_wspawnle, PM_FORBID_SPAWN);
PM_FORBID_CRT(_spawnlp, PM_FORBID_SPAWN);
PM_FORBID_CRT(_wspawnlp, PM_FORBID_SPAWN);
PM_FORBID_CRT(_spawnlpe, PM_FORBID_SPAWN);
PM_FORBID_CRT(_wspawnlpe, PM_FORBID_SPAWN);
PM_FORBID_CRT(_spawnv, PM_FORBID_SPAWN);
PM_FORBID_CRT(_wspawnv, PM_FORBID_SPAWN);
PM_FORBID_CRT(_spawnve, PM_FORBID_SPAWN);
PM_FORBID_CRT(_wspawnve, PM_FORBID_SPAWN);
PM_FORBID_CRT(_spawnvp, PM_FORBID_SPAWN);
PM_FORBID_CRT(_wspawnvp, PM_FORBID_SPAWN);
PM_FORBID_CRT(_spawnvpe, PM_FORBID_SPAWN);
PM_FORBID_CRT(_wspawnvpe, PM_FORBID_SPAWN);
PM_FORBID_CRT(_execl, PM_FORBID_EXEC);
PM_FORBID_CRT(_wexecl, PM_FORBID_EXEC);
PM_FORBID_CRT(_execle, PM_FORBID_EXEC);
PM_FORBID_CRT(_wexecle, PM_FORBID_EXEC);
PM_FORBID_CRT(_execlp, PM_FORBID_EXEC);
PM_FORBID_CRT(_wexeclp, PM_FORBID_EXEC);
PM_FORBID_CRT(_execlpe, PM_FORBID_EXEC);
PM_FORBID_CRT(_wexeclpe, PM_FORBID_EXEC);
PM_FORBID_CRT(_execv, PM_FORBID_EXEC);
PM_FORBID_CRT(_wexecv, PM_FORBID_EXEC);
PM_FORBID_CRT(_execve, PM_FORBID_EXEC);
PM_FORBID_CRT(_wexecve, PM_FORBID_EXEC);
PM_FORBID_CRT(_execvp, PM_FORBID_EXEC);
PM_FORBID_CRT(_wexecvp, PM_FORBID_EXEC);
PM_FORBID_CRT(_execvpe, PM_FORBID_EXEC);
PM_FORBID_CRT(_wexecvpe, PM_FORBID_EXEC);
PM_FORBID_CRT(system, PM_FORBID_SHELL);
PM_FORBID_CRT(_wsystem, PM_FORBID_SHELL);
PM_FORBID_CRT(_popen, PM_FORBID_SHELL);
PM_FORBID_CRT(_wpopen, PM_FORBID_SHELL);
#ifndef NO_OLDNAMES
PM_FORBID_CRT(spawnl, PM_FORBID_SPAWN);
PM_FORBID_CRT(spawnle, PM_FORBID_SPAWN);
PM_FORBID_CRT(spawnlp, PM_FORBID_SPAWN);
PM_FORBID_CRT(spawnlpe, PM_FORBID_SPAWN);
PM_FORBID_CRT(spawnv, PM_FORBID_SPAWN);
PM_FORBID_CRT(spawnve, PM_FORBID_SPAWN);
PM_FORBID_CRT(spawnvp, PM_FORBID_SPAWN);
PM_FORBID_CRT(spawnvpe, PM_FORBID_SPAWN);
PM_FORBID_CRT(execl, PM_FORBID_EXEC);
PM_FORBID_CRT(execle, PM_FORBID_EXEC);
PM_FORBID_CRT(execlp, PM_FORBID_EXEC);
PM_FORBID_CRT(execlpe, PM_FORBID_EXEC);
PM_FORBID_CRT(execv, PM_FORBID_EXEC);
PM_FORBID_CRT(execve, PM_FORBID_EXEC);
PM_FORBID_CRT(execvp, PM_FORBID_EXEC);
PM_FORBID_CRT(execvpe, PM_FORBID_EXEC);
PM_FORBID_CRT(popen, PM_FORBID_SHELL);
#endif

#pragma GCC diagnostic pop

#ifdef __cplusplus
}
#endif

#else /* POSIX */

#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__has_include)
#if __has_include(<pty.h>)
#include <pty.h>
#elif __has_include(<util.h>)
#include <util.h>
#elif __has_include(<libutil.h>)
#include <libutil.h>
#include <sys/ioctl.h>
#include <termios.h>
#endif
#if __has_include(<wordexp.h>)
#include <wordexp.h>
#define PM_FORBID_HAVE_WORDEXP 1
#endif
#endif

/* glibc declares some of them noexcept; C++ wants the same in each declaration. */
#ifdef __THROW
#define PM_FORBID_NOTHROW __THROW
#else
#define PM_FORBID_NOTHROW
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct rusage;
struct termios;
struct winsize;

pid_t fork(void) PM_FORBID_NOTHROW PM_FORBID_USE(PM_FORBID_FORK);
pid_t vfork(void) PM_FORBID_NOTHROW PM_FORBID_USE(PM_FORBID_FORK);
#ifdef __GLIBC__
pid_t _Fork(void) PM_FORBID_NOTHROW PM_FORBID_USE(PM_FORBID_FORK);
#else
pid_t _Fork(void) PM_FORBID_USE(PM_FORBID_FORK);
#endif
#ifdef __linux__
int clone(int (*)(void *), void *, int, void *, ...) PM_FORBID_NOTHROW
    PM_FORBID_USE("a raw clone() leaves a child nobody waits for");
int execvpe(const char *, char *const[], char *const[]) PM_FORBID_NOTHROW
    PM_FORBID_USE(PM_FORBID_EXEC);
int execveat(int, const char *, char *const[], char *const[], int) PM_FORBID_NOTHROW
    PM_FORBID_USE(PM_FORBID_EXEC);
#endif
#if defined(__FreeBSD__) || defined(__OpenBSD__) || defined(__NetBSD__) || defined(__APPLE__)
int execvP(const char *, const char *, char *const[]) PM_FORBID_USE(PM_FORBID_EXEC);
#endif
#ifdef __FreeBSD__
pid_t rfork(int) PM_FORBID_USE(PM_FORBID_FORK);
pid_t pdfork(int *, int) PM_FORBID_USE(PM_FORBID_FORK);
#endif
int execl(const char *, const char *, ...) PM_FORBID_NOTHROW PM_FORBID_USE(PM_FORBID_EXEC);
int execlp(const char *, const char *, ...) PM_FORBID_NOTHROW PM_FORBID_USE(PM_FORBID_EXEC);
int execle(const char *, const char *, ...) PM_FORBID_NOTHROW PM_FORBID_USE(PM_FORBID_EXEC);
int execv(const char *, char *const[]) PM_FORBID_NOTHROW PM_FORBID_USE(PM_FORBID_EXEC);
int execvp(const char *, char *const[]) PM_FORBID_NOTHROW PM_FORBID_USE(PM_FORBID_EXEC);
int execve(const char *, char *const[], char *const[]) PM_FORBID_NOTHROW
    PM_FORBID_USE(PM_FORBID_EXEC);
int fexecve(int, char *const[], char *const[]) PM_FORBID_NOTHROW PM_FORBID_USE(PM_FORBID_EXEC);
int posix_spawn(pid_t *, const char *, const posix_spawn_file_actions_t *,
                const posix_spawnattr_t *, char *const[], char *const[])
    PM_FORBID_USE("a raw posix_spawn() leaves a child nobody waits for");
int posix_spawnp(pid_t *, const char *, const posix_spawn_file_actions_t *,
                 const posix_spawnattr_t *, char *const[], char *const[])
    PM_FORBID_USE("a raw posix_spawnp() leaves a child nobody waits for");
int system(const char *) PM_FORBID_USE(PM_FORBID_SHELL);
FILE *popen(const char *, const char *) PM_FORBID_USE(PM_FORBID_SHELL);
#ifdef PM_FORBID_HAVE_WORDEXP
int wordexp(const char *, wordexp_t *, int) PM_FORBID_USE(PM_FORBID_SHELL);
#endif
#ifdef __APPLE__
int daemon(int, int) PM_FORBID_USE("daemon() forks; start in mode PM_MODE_DAEMON");
pid_t forkpty(int *, char *, struct termios *, struct winsize *)
    PM_FORBID_USE("forkpty() forks; start in mode PM_MODE_PTY");
#else
int daemon(int, int) PM_FORBID_NOTHROW
    PM_FORBID_USE("daemon() forks; start in mode PM_MODE_DAEMON");
#ifdef __OpenBSD__
pid_t forkpty(int *, char *, const struct termios *, const struct winsize *)
    PM_FORBID_USE("forkpty() forks; start in mode PM_MODE_PTY");
#elif defined(__FreeBSD__) || defined(__DragonFly__) || defined(__NetBSD__)
pid_t forkpty(int *, char *, struct termios *, struct winsize *)
    PM_FORBID_USE("forkpty() forks; start in mode PM_MODE_PTY");
#else
int forkpty(int *, char *, const struct termios *, const struct winsize *) PM_FORBID_NOTHROW
    PM_FORBID_USE("forkpty() forks; start in mode PM_MODE_PTY");
#endif
#endif

pid_t wait(int *) PM_FORBID(PM_FORBID_WAIT_ANY);
pid_t wait3(int *, int, struct rusage *) PM_FORBID_NOTHROW PM_FORBID(PM_FORBID_WAIT_ANY);

/*
 * waitpid(), wait4() and waitid() are fine for one process and forbidden for "any" and for a group.
 * The name on the right side of its own macro is not expanded again, so members that are called
 * waitpid stay usable.
 */
#if !defined(__GLIBC__) || defined(__USE_XOPEN) || defined(__USE_XOPEN2K8)
#define PM_FORBID_HAVE_WAITID 1
#endif
#if __has_attribute(diagnose_if)
pid_t waitpid(pid_t pm_pid, int *, int)
    __attribute__((diagnose_if(pm_pid < 1, PM_FORBID_WAIT_ANY, "error")));
pid_t wait4(pid_t pm_pid, int *, int, struct rusage *) PM_FORBID_NOTHROW
    __attribute__((diagnose_if(pm_pid < 1, PM_FORBID_WAIT_ANY, "error")));
#ifdef PM_FORBID_HAVE_WAITID
int waitid(idtype_t pm_type, id_t, siginfo_t *, int)
    __attribute__((diagnose_if(pm_type == P_ALL || pm_type == P_PGID, PM_FORBID_WAIT_ANY,
                               "error")));
#endif
#else
pid_t pm_forbidden_wait_for_any(void) PM_FORBID(PM_FORBID_WAIT_ANY);
#ifdef PM_FORBID_HAVE_WAITID
idtype_t pm_forbidden_waitid_for_any(void) PM_FORBID(PM_FORBID_WAIT_ANY);
#endif
#define PM_FORBID_CHECK_PID(pid)                                                                   \
    (__builtin_constant_p(pid) && (pid) < 1 ? pm_forbidden_wait_for_any() : (pid))
#define PM_FORBID_CHECK_TYPE(type)                                                                 \
    (__builtin_constant_p(type) && ((type) == P_ALL || (type) == P_PGID)                           \
         ? pm_forbidden_waitid_for_any()                                                           \
         : (type))
#define waitpid(pid, status, options) waitpid(PM_FORBID_CHECK_PID(pid), status, options)
#define wait4(pid, status, options, usage) wait4(PM_FORBID_CHECK_PID(pid), status, options, usage)
#define waitid(type, id, info, options) waitid(PM_FORBID_CHECK_TYPE(type), id, info, options)
#endif

#ifdef __cplusplus
}
#endif

#endif /* POSIX */

/*
 * Libraries that start processes. Their headers may come later or never: these declarations agree
 * with theirs.
 */
#ifdef __cplusplus
extern "C" {
#endif

struct uv_loop_s;
struct uv_process_s;
struct uv_process_options_s;
struct _GError;

int uv_spawn(struct uv_loop_s *, struct uv_process_s *, const struct uv_process_options_s *)
    PM_FORBID_USE("uv_spawn() starts a process outside of the manager");
int g_spawn_command_line_sync(const char *, char **, char **, int *, struct _GError **)
    PM_FORBID_USE("g_spawn_command_line_sync() starts a process outside of the manager");
int g_spawn_command_line_async(const char *, struct _GError **)
    PM_FORBID_USE("g_spawn_command_line_async() starts a process outside of the manager");
#if !defined(__cplusplus) && !defined(_WIN32)
/* GSpawnFlags is an enumeration without negative values: compatible with unsigned int in C. */
int g_spawn_sync(const char *, char **, char **, unsigned int, void (*)(void *), void *, char **,
                 char **, int *, struct _GError **)
    PM_FORBID_USE("g_spawn_sync() starts a process outside of the manager");
int g_spawn_async(const char *, char **, char **, unsigned int, void (*)(void *), void *, int *,
                  struct _GError **)
    PM_FORBID_USE("g_spawn_async() starts a process outside of the manager");
int g_spawn_async_with_pipes(const char *, char **, char **, unsigned int, void (*)(void *), void *,
                             int *, int *, int *, int *, struct _GError **)
    PM_FORBID_USE("g_spawn_async_with_pipes() starts a process outside of the manager");
#endif

#ifdef __cplusplus
}
#endif

#endif /* PM_FORBID_ACTIVE */

#endif /* PROCESSMGR_FORBID_RAW_SPAWN_H */
