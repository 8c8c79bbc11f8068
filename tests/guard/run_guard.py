#!/usr/bin/env python3
"""Compiles each forbidden call with the guard header forced in.

Each must be an error, and the error must be the guard's own text: a call that is simply wrong proves
nothing. Innocent sources must compile, and so must a forbidden call with
PM_ALLOW_RAW_SPAWN. Speaks enough of GoogleTest's options for ci/test to count the cases.
"""

import argparse
import concurrent.futures
import fnmatch
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

TEACHING = ("use pm_spawn() from <processmgr/processmgr.h>", "use pm_process_wait() on the Handle")
WARNINGS = ["-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror"]
PROTOTYPES = ["-Wstrict-prototypes", "-Wmissing-prototypes"]
HERE = pathlib.Path(__file__).resolve().parent

# What uv.h and glib.h declare, repeated here because those libraries need not be installed.
UV = """
typedef struct uv_loop_s uv_loop_t;
typedef struct uv_process_s uv_process_t;
typedef struct uv_process_options_s uv_process_options_t;
LINKAGE int uv_spawn(uv_loop_t *loop, uv_process_t *handle, const uv_process_options_t *options);
"""
GLIB = """
typedef char gchar;
typedef int gint;
typedef gint gboolean;
typedef void *gpointer;
typedef int GPid;
typedef struct _GError GError;
typedef void (*GSpawnChildSetupFunc)(gpointer data);
typedef enum { G_SPAWN_DEFAULT = 0, G_SPAWN_SEARCH_PATH = 1 << 2 } GSpawnFlags;
LINKAGE gboolean g_spawn_command_line_sync(const gchar *, gchar **, gchar **, gint *, GError **);
LINKAGE gboolean g_spawn_command_line_async(const gchar *, GError **);
"""
GLIB_FLAGS = GLIB + """
gboolean g_spawn_sync(const gchar *, gchar **, gchar **, GSpawnFlags, GSpawnChildSetupFunc,
                      gpointer, gchar **, gchar **, gint *, GError **);
gboolean g_spawn_async(const gchar *, gchar **, gchar **, GSpawnFlags, GSpawnChildSetupFunc,
                       gpointer, GPid *, GError **);
gboolean g_spawn_async_with_pipes(const gchar *, gchar **, gchar **, GSpawnFlags,
                                  GSpawnChildSetupFunc, gpointer, GPid *, gint *, gint *, gint *,
                                  GError **);
"""

# name -> the call; v is a vector of strings.
POSIX_CALLS = {
    "fork": "fork()",
    "vfork": "vfork()",
    "_Fork": "_Fork()",
    "clone": "clone(0, 0, 0, 0)",
    "execl": 'execl("/x", "x", (char *)0)',
    "execlp": 'execlp("x", "x", (char *)0)',
    "execle": 'execle("/x", "x", (char *)0, v)',
    "execv": 'execv("/x", v)',
    "execvp": 'execvp("x", v)',
    "execve": 'execve("/x", v, v)',
    "execvpe": 'execvpe("x", v, v)',
    "fexecve": "fexecve(3, v, v)",
    "execveat": 'execveat(3, "x", v, v, 0)',
    "posix_spawn": 'posix_spawn(0, "/x", 0, 0, v, v)',
    "posix_spawnp": 'posix_spawnp(0, "x", 0, 0, v, v)',
    "system": 'system("x")',
    "popen": '(popen("x", "r") != 0)',
    "wordexp": 'wordexp("x", 0, 0)',
    "daemon": "daemon(0, 0)",
    "forkpty": "forkpty((int *)v, 0, 0, 0)",
    "wait": "wait(0)",
    "wait3": "wait3(0, 0, 0)",
    "waitpid_any": "waitpid(-1, 0, 0)",
    "waitpid_own_group": "waitpid(0, 0, 0)",
    "waitpid_group": "waitpid(-42, 0, WNOHANG)",
    "wait4_any": "wait4(-1, 0, 0, 0)",
    "waitid_all": "waitid(P_ALL, 0, 0, WEXITED)",
    "waitid_group": "waitid(P_PGID, 7, 0, WEXITED)",
}
# Again where the compiler looks at constants, without and with optimisation.
POSIX_LEVELS = ("fork", "system", "waitpid_any", "wait4_any", "waitid_all")

WIN32_CALLS = {
    "CreateProcessA": "CreateProcessA(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
    "CreateProcessW": "CreateProcessW(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
    "CreateProcess": "CreateProcess(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
    "CreateProcessAsUserA": "CreateProcessAsUserA(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
    "CreateProcessAsUserW": "CreateProcessAsUserW(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
    "CreateProcessWithLogonW": "CreateProcessWithLogonW(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)",
    "CreateProcessWithTokenW": "CreateProcessWithTokenW(0, 0, 0, 0, 0, 0, 0, 0, 0)",
    "ShellExecuteA": "(ShellExecuteA(0, 0, 0, 0, 0, 0) != 0)",
    "ShellExecuteW": "(ShellExecuteW(0, 0, 0, 0, 0, 0) != 0)",
    "ShellExecuteExA": "ShellExecuteExA(0)",
    "ShellExecuteExW": "ShellExecuteExW(0)",
    "WinExec": '(int)WinExec("x", 0)',
    "system": 'system("x")',
    "_wsystem": '_wsystem(L"x")',
    "_popen": '(_popen("x", "r") != 0)',
    "_wpopen": '(_wpopen(L"x", L"r") != 0)',
    "popen": '(popen("x", "r") != 0)',
}


LIBRARY_CALLS = {
    "uv_spawn": "uv_spawn(0, 0, 0)",
    "g_spawn_command_line_sync": 'g_spawn_command_line_sync("x", 0, 0, 0, 0)',
    "g_spawn_command_line_async": 'g_spawn_command_line_async("x", 0)',
}
GLIB_FLAG_CALLS = {
    "g_spawn_sync": "g_spawn_sync(0, v, v, G_SPAWN_DEFAULT, 0, 0, 0, 0, 0, 0)",
    "g_spawn_async": "g_spawn_async(0, v, v, G_SPAWN_SEARCH_PATH, 0, 0, 0, 0)",
    "g_spawn_async_with_pipes":
        "g_spawn_async_with_pipes(0, v, v, G_SPAWN_DEFAULT, 0, 0, 0, 0, 0, 0, 0)",
}


def crt_calls():
    """The exec and spawn families of the C runtime, narrow, wide and under their old names."""
    for family, mode in (("exec", ""), ("spawn", "0, ")):
        for prefix, quote, char in (("_", "", "char"), ("_w", "L", "wchar_t"), ("", "", "char")):
            vector = f"(const {char} *const *)0"
            if not prefix:
                vector = "(char *const *)0"
            for kind in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe"):
                name = f"{prefix}{family}{kind}"
                if kind.startswith("l"):
                    args = f'{quote}"x", {quote}"x", ({char} *)0'
                    args += ", (void *)0" if kind.endswith("e") else ""
                else:
                    args = f'{quote}"x", {vector}'
                    args += f", {vector}" if kind.endswith("e") else ""
                yield name, f"(int){name}({mode}{args})"


PRELUDE = """
#ifdef __cplusplus
#define LINKAGE extern "C"
#else
#define LINKAGE
#endif
"""


class Forbidden:
    """One call that must be an error."""

    def __init__(self, name, call, language="c", flags=()):
        self.name = name
        self.call = call
        self.language = language
        self.flags = tuple(flags)


class Allowed:
    """One source that must compile."""

    def __init__(self, name, source, language="c", flags=()):
        self.name = name
        self.source = source
        self.language = language
        self.flags = tuple(flags)


def both_languages(calls):
    for name, call in calls.items():
        yield Forbidden(name, call)
        yield Forbidden(f"{name}_cxx", call, "c++")


def posix_cases():
    yield from both_languages(POSIX_CALLS)
    for name in POSIX_LEVELS:
        for level in ("-O0", "-O2"):
            yield Forbidden(f"{name}_{level[1:]}", POSIX_CALLS[name], flags=[level])
            yield Forbidden(f"{name}_{level[1:]}_cxx", POSIX_CALLS[name], "c++", [level])
    yield from both_languages(LIBRARY_CALLS)
    for name, call in GLIB_FLAG_CALLS.items():
        yield Forbidden(name, call)


def win32_cases():
    calls = dict(WIN32_CALLS)
    calls.update(crt_calls())
    yield from both_languages(calls)
    for name, call in calls.items():
        yield Forbidden(f"{name}_O0", call, flags=["-O0"])
    yield from both_languages({"uv_spawn": LIBRARY_CALLS["uv_spawn"]})


def allowed_cases(target):
    innocent = (HERE / f"innocent_{target}.c").read_text()
    yield Allowed("Innocent_c11", innocent)
    yield Allowed("Innocent_c11_O0", innocent, "c", ["-O0"])
    yield Allowed("Innocent_c11_O2", innocent, "c", ["-O2"])
    yield Allowed("Innocent_cxx17", innocent, "c++")
    yield Allowed("Innocent_cxx17_O0", innocent, "c++", ["-O0"])
    yield Allowed("Innocent_cxx11", innocent, "c++", ["-std=c++11"])
    opted_out = '#include <stdlib.h>\nint probe(void);\nint probe(void) { return system("x"); }\n'
    yield Allowed("OptOut", opted_out, "c", ["-DPM_ALLOW_RAW_SPAWN"])
    yield Allowed("OptOut_cxx", opted_out, "c++", ["-DPM_ALLOW_RAW_SPAWN"])


class Guard:
    """Compiles for one target with the guard header forced in."""

    def __init__(self, target, include_dir, folder):
        self.target = target
        self.include_dir = pathlib.Path(include_dir).resolve()
        self.folder = pathlib.Path(folder)
        self.macros = ["-D_GNU_SOURCE"]
        if target == "win32":
            self.macros = ["-DUNICODE", "-D_UNICODE", "-D_WIN32_WINNT=0x0A00",
                           "-DWIN32_LEAN_AND_MEAN"]

    def compile(self, compiler, language, flags, source):
        handle, name = tempfile.mkstemp(dir=self.folder, text=True)
        with os.fdopen(handle, "w") as file:
            file.write(source)
        standard = "-std=c++17" if language == "c++" else "-std=c11"
        guard = self.include_dir / "processmgr" / "forbid_raw_spawn.h"
        command = [compiler, "-x", language, standard, "-O1", *flags, *self.macros,
                   "-I", str(self.include_dir), "-include", str(guard),
                   "-c", "-o", name + ".o", name]
        return name, subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", env={**os.environ, "LC_ALL": "C"}, check=False)

    def try_allowed(self, compiler, case):
        prototypes = PROTOTYPES if case.language == "c" else []
        _, done = self.compile(compiler, case.language, [*case.flags, *WARNINGS, *prototypes],
                               case.source)
        return {case.name: None if done.returncode == 0 else "does not compile:\n" + done.stdout}

    def try_forbidden(self, compiler, cases):
        """All cases of one language and one set of flags in one file, each on a line of its own:
        that very line must have an error, and nothing but the guard's."""
        language, flags = cases[0].language, cases[0].flags
        source = PRELUDE + UV
        if self.target == "posix":
            source += GLIB if language == "c++" else GLIB_FLAGS
        lines = {}
        for number, case in enumerate(cases):
            source += f"int probe{number}(char **v);\n"
            lines[source.count("\n") + 1] = case.name
            source += f"int probe{number}(char **v) {{ (void)v; return {case.call}; }}\n"
        # gcc: errors inside of a macro are to be reported where the macro is used.
        clang = "clang" in pathlib.Path(compiler).name
        places = ["-ferror-limit=0"] if clang else ["-ftrack-macro-expansion=0"]
        name, done = self.compile(compiler, language, [*flags, *places], source)
        errors = {}
        elsewhere = []
        for line in done.stdout.splitlines():
            place = re.match(re.escape(name) + r":(\d+):\d+: (?:fatal )?error: ", line)
            if place and int(place.group(1)) in lines:
                errors.setdefault(lines[int(place.group(1))], []).append(line)
            elif "error:" in line:
                elsewhere.append(line)
        results = {}
        for case in cases:
            mine = errors.get(case.name, [])
            wrong = [e for e in mine if not any(text in e for text in TEACHING)] + elsewhere
            if wrong:
                results[case.name] = "fails for another reason:\n" + "\n".join(wrong)
            else:
                results[case.name] = None if mine else "compiles, but the call is forbidden"
        return results

    def run(self, pool, compilers, forbidden, allowed):
        """Returns {case name: failure text or None}."""
        batches = {}
        for case in forbidden:
            batches.setdefault((case.language, case.flags), []).append(case)
        jobs = [pool.submit(self.try_forbidden, compilers[key[0]], batch)
                for key, batch in batches.items()]
        jobs += [pool.submit(self.try_allowed, compilers[c.language], c) for c in allowed]
        results = self.control(compilers["c"])
        for job in jobs:
            results.update(job.result())
        return results

    def control(self, compiler):
        """A call that nothing forbids must be reported, or the other results mean nothing."""
        name = "Control"
        found = self.try_forbidden(compiler, [Forbidden(name, "(int)sizeof(v)")])[name]
        return {name: None if found else "a missing guard would go unnoticed"}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=("posix", "win32"), required=True)
    parser.add_argument("--compiler", action="append", required=True, metavar="LABEL:CC:CXX")
    parser.add_argument("--include-dir", required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--gtest_output", default="")
    parser.add_argument("--gtest_filter", default="*")
    args = parser.parse_args()

    positive, _, negative = args.gtest_filter.partition("-")

    def selected(name):
        return any(fnmatch.fnmatch(name, p) for p in (positive or "*").split(":")) and not any(
            fnmatch.fnmatch(name, p) for p in negative.split(":") if p)

    suites = []
    failed = 0
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(
            args.jobs) as pool:
        guard = Guard(args.target, args.include_dir, folder)
        for spec in args.compiler:
            label, c_compiler, cxx_compiler = spec.split(":")
            suite = f"Guard_{label}"
            compilers = {"c": c_compiler, "c++": cxx_compiler}
            missing = [c for c in compilers.values() if not shutil.which(c)]
            entries = []
            if missing:
                name = "Compiler"
                if selected(f"{suite}.{name}"):
                    print(f"[ RUN      ] {suite}.{name}\nrun_guard.py: Skipped\n"
                          f"no {' and no '.join(missing)} here\n[  SKIPPED ] {suite}.{name} (0 ms)")
                    entries.append({"name": name, "status": "RUN", "result": "SKIPPED"})
                suites.append({"name": suite, "testsuite": entries})
                continue
            forbidden = posix_cases() if args.target == "posix" else win32_cases()
            forbidden = [c for c in forbidden if selected(f"{suite}.{c.name}")]
            allowed = [c for c in allowed_cases(args.target) if selected(f"{suite}.{c.name}")]
            for name, failure in guard.run(pool, compilers, forbidden, allowed).items():
                if not selected(f"{suite}.{name}"):
                    continue
                entry = {"name": name, "status": "RUN", "result": "COMPLETED"}
                if failure:
                    failed += 1
                    entry["failures"] = [{"failure": failure}]
                    print(f"[  FAILED  ] {suite}.{name}: {failure}")
                else:
                    print(f"[       OK ] {suite}.{name}")
                entries.append(entry)
            suites.append({"name": suite, "testsuite": entries})

    total = sum(len(s["testsuite"]) for s in suites)
    print(f"[==========] {total} cases, {failed} failed")
    if args.gtest_output.startswith("json:"):
        report = {"tests": total, "failures": failed, "testsuites": suites}
        pathlib.Path(args.gtest_output[len("json:"):]).write_text(json.dumps(report, indent=1))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
