#!/usr/bin/env python3
"""Holds the line between the portable code and the two backends.

In src/core, src/launcher, src/debug, src/backend.h and include/ there is no conditional on the operating system
and no header of one. Allowed: the export macro blocks of processmgr.h and debug.h, and forbid_raw_spawn.h. There,
and in examples/, nothing opts out of the guard against raw process starts.

The same holds for the programs: src/pod is portable as a whole (and without libuv), and what a program
needs of a system stands in a folder posix or win32 below its own (src/poddaemon/posix ...), which has
the system's headers but no conditional on another one of the two.
"""

import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
OS_NAMES = re.compile(
    r"\b(_?WIN(32|64|NT)|_WIN(32|64)|__WIN(32|64|NT)__|__MINGW(32|64)__|__CYGWIN__|_MSC_VER"
    r"|__linux(__)?|linux|__gnu_linux__|__ANDROID__|__APPLE__|__MACH__|__(Free|Open|Net)BSD__"
    r"|__DragonFly__|__sun|__sun__|__HAIKU__|_AIX|__hpux|__unix(__)?|unix|BSD|_POSIX_VERSION"
    r"|__GLIBC__|__BIONIC__)\b"
)
CONDITIONAL = re.compile(r"^\s*#\s*(if|ifdef|ifndef|elif|elifdef|elifndef)\b(.*)")
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]')
OS_HEADER = re.compile(
    r"^((sys|linux|asm|netinet|arpa|net|mach|bsd)/.*|unistd\.h|poll\.h|signal\.h|pthread\.h|fcntl\.h"
    r"|spawn\.h|sched\.h|termios\.h|pty\.h|util\.h|libutil\.h|utmp\.h|pwd\.h|grp\.h|dirent\.h"
    r"|dlfcn\.h|netdb\.h|syslog\.h|wordexp\.h|semaphore\.h|ucontext\.h|libproc\.h|strings\.h"
    r"|w(indows|inbase|indef|innt|inuser|insock2?|s2tcpip)\.h|process\.h|io\.h|direct\.h|tlhelp32\.h"
    r"|psapi\.h|shellapi\.h|shlobj\.h|sddl\.h|aclapi\.h|userenv\.h|winternl\.h|synchapi\.h"
    r"|jobapi2?\.h|processthreadsapi\.h|handleapi\.h|fileapi\.h|namedpipeapi\.h)$"
)
# Which of the two a file is for is decided by its folder.
OTHER_BACKEND = {
    "posix": re.compile(r"\b(_?WIN(32|64|NT)|_WIN(32|64)|__MINGW(32|64)__|_MSC_VER)\b"),
    "win32": re.compile(r"\b(__linux(__)?|__APPLE__|__unix(__)?|__(Free|Open|Net)BSD__)\b"),
}
PROGRAM_BACKEND = re.compile(r"^src/\w+/(posix|win32)/")
OPT_OUT = re.compile(r"\bPM_ALLOW_RAW_SPAWN\b")


def export_block(lines):
    """Line numbers of the block that defines PM_API, if it does nothing else."""
    for start, line in enumerate(lines):
        if re.match(r"#if defined\(_WIN32\) && defined\(PM_BUILDING_(DEBUG_)?SHARED\)", line):
            for end in range(start + 1, len(lines)):
                if re.match(r"#endif", lines[end]):
                    return range(start, end + 1)
                if not re.match(r"#(elif|else)\b|#define PM_(DEBUG_)?API\b", lines[end]):
                    return range(0)
    return range(0)


def backend_problems(name, text):
    """The folder posix or win32 of a program."""
    other = OTHER_BACKEND[PROGRAM_BACKEND.match(name).group(1)]
    for number, line in enumerate(text.splitlines()):
        conditional = CONDITIONAL.match(line)
        if conditional and other.search(conditional.group(2)):
            yield f"{name}:{number + 1}: condition on the other backend: {line.strip()}"
        if OPT_OUT.search(line):
            yield f"{name}:{number + 1}: opts out of the guard: {line.strip()}"


def problems(name, text):
    if PROGRAM_BACKEND.match(name):
        yield from backend_problems(name, text)
        return
    lines = text.splitlines()
    exports = ("include/processmgr/processmgr.h", "include/processmgr/debug.h")
    allowed = export_block(lines) if name in exports else range(0)
    for number, line in enumerate(lines):
        conditional = CONDITIONAL.match(line)
        include = INCLUDE.match(line)
        if conditional and number not in allowed and OS_NAMES.search(conditional.group(2)):
            yield f"{name}:{number + 1}: condition on the operating system: {line.strip()}"
        if include and OS_HEADER.match(include.group(1)):
            yield f"{name}:{number + 1}: header of an operating system: {line.strip()}"
        if include and name.startswith("src/pod/") and include.group(1) == "uv.h":
            yield f"{name}:{number + 1}: the protocol is without libuv: {line.strip()}"
        if OPT_OUT.search(line):
            yield f"{name}:{number + 1}: opts out of the guard: {line.strip()}"


def files():
    patterns = (
        "src/core/**/*",
        "src/launcher/**/*",
        "src/debug/**/*",
        "src/pod/**/*",
        "src/poddaemon/**/*",
        "src/*.h",
        "include/**/*",
        "examples/**/*",
    )
    for pattern in patterns:
        for path in sorted(ROOT.glob(pattern)):
            name = path.relative_to(ROOT).as_posix()
            if path.suffix in (".c", ".h") and not name.endswith("/forbid_raw_spawn.h"):
                yield name, path.read_text()


def example_problems(name, text):
    """Examples show real programs: they may use their system, but not start processes raw."""
    return [p for p in problems(name, text) if "opts out" in p]


def self_test():
    block = (
        "#if defined(_WIN32) && defined(PM_BUILDING_SHARED)\n#define PM_API x\n#else\n"
        "#define PM_API\n#endif\n"
    )
    bad = [
        ("src/core/a.c", "#ifdef _WIN32\n"),
        ("src/core/a.c", "  #  if defined(__linux__) && X\n"),
        ("src/core/a.c", "#if X\n#elif defined(__APPLE__)\n"),
        ("src/core/a.c", "#include <unistd.h>\n"),
        ("src/core/a.c", "#include <sys/wait.h>\n"),
        ("src/launcher/a.c", "#include <windows.h>\n"),
        ("src/debug/a.c", "#include <netinet/in.h>\n"),
        ("src/core/a.c", "#define PM_ALLOW_RAW_SPAWN\n"),
        ("src/pod/a.c", "#include <unistd.h>\n"),
        ("src/pod/a.c", "#include <uv.h>\n"),
        ("src/poddaemon/a.c", "#include <sys/socket.h>\n"),
        ("src/poddaemon/a.c", "#ifdef _WIN32\n"),
        ("src/poddaemon/posix/a.c", "#ifdef _WIN32\n"),
        ("src/poddaemon/win32/a.c", "#if defined(__linux__)\n"),
        ("src/poddaemon/posix/a.c", "#define PM_ALLOW_RAW_SPAWN\n"),
        ("src/core/a.c", block),
        ("include/processmgr/processmgr.h", block + "#ifdef _WIN32\n#endif\n"),
        ("include/processmgr/processmgr.h", block.replace("#else", "int x;\n#else")),
    ]
    good = [
        ("src/core/a.c", '#include <stdint.h>\n#include "os.h"\n#if X > 1\n#endif\n'),
        ("src/core/a.c", "// On _WIN32 the other backend does it.\n"),
        ("include/processmgr/processmgr.h", block),
        ("src/poddaemon/a.c", "#include <uv.h>\n"),
        ("src/poddaemon/posix/a.c", "#include <unistd.h>\n#if defined(__linux__)\n#endif\n"),
        ("src/poddaemon/win32/a.c", "#include <windows.h>\n"),
    ]
    failed = [f"not found: {text!r}" for name, text in bad if not list(problems(name, text))]
    failed += [f"found: {text!r}" for name, text in good if list(problems(name, text))]
    return failed


def main():
    if sys.argv[1:] == ["--self-test"]:
        found = self_test()
    else:
        found = []
        for name, text in files():
            check = example_problems if name.startswith("examples/") else problems
            found += check(name, text)
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
