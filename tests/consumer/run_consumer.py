#!/usr/bin/env python3
"""Installs the library into a scratch prefix, moves it, and builds other people's projects with it.

The moved prefix proves that nothing in the package files names the place of the installation.
Understands --gtest_output=json:FILE and --gtest_filter, so that ci/test counts its cases.
"""

import argparse
import fnmatch
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


class Failed(Exception):
    pass


def call(command, **kwargs):
    done = subprocess.run(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
        **kwargs,
    )
    if done.returncode != 0:
        raise Failed(f"{' '.join(map(str, command))}\nexit code {done.returncode}\n{done.stdout}")
    return done.stdout


class Consumers:
    def __init__(self, args, work):
        self.args = args
        self.work = work
        self.windows = args.windows
        self.exe = ".exe" if self.windows else ""
        self.prefix = work / "moved"
        call([args.cmake, "--install", args.build, "--prefix", work / "installed"])
        (work / "installed").rename(self.prefix)

    def configure(self, build, *options, source=HERE / "project"):
        command = [self.args.cmake, "-S", source, "-B", build, "-G", self.args.generator]
        if self.args.toolchain:
            command += ["-DCMAKE_TOOLCHAIN_FILE=" + self.args.toolchain]
        else:
            command += [f"-DCMAKE_C_COMPILER={self.args.cc}", f"-DCMAKE_CXX_COMPILER={self.args.cxx}"]
        call(command + list(options))
        call([self.args.cmake, "--build", build, "-j", "2"])

    def run(self, program, library_dirs):
        env = dict(os.environ)
        if self.windows:
            for folder in library_dirs:
                for dll in folder.glob("*.dll"):
                    shutil.copy(dll, program.parent)
        else:
            env["LD_LIBRARY_PATH"] = ":".join(map(str, library_dirs))
        command = [program] if not self.args.emulator else self.args.emulator.split(";") + [program]
        out = call(command, env=env)
        if "processmgr 0.1.0" not in out:
            raise Failed(f"{program} printed {out!r}")

    def run_all(self, build, library_dirs):
        programs = sorted(build.glob("consumer_*" + self.exe))
        programs = [p for p in programs if p.is_file() and os.access(p, os.X_OK)]
        if len(programs) != 5:
            raise Failed(f"5 programs expected, found {programs}")
        for program in programs:
            self.run(program, library_dirs)

    def library_dirs(self):
        found = self.prefix.rglob("*.dll" if self.windows else "libprocessmgr.so*")
        return sorted({path.parent for path in found})

    def find_package(self):
        build = self.work / "find_package"
        # A toolchain file says where to look and overrules the prefix: there the folder is named.
        package = next(self.prefix.rglob("processmgr-config.cmake")).parent
        self.configure(build, f"-Dprocessmgr_DIR={package}" if self.args.toolchain
                       else f"-DCMAKE_PREFIX_PATH={self.prefix}")
        self.run_all(build, self.library_dirs())

    def add_subdirectory(self):
        build = self.work / "add_subdirectory"
        self.configure(build, f"-DCONSUMER_SUBDIRECTORY={self.args.source}")
        self.run_all(build, [build / "processmgr"])

    def pkg_config(self, static):
        pc = next(self.prefix.rglob("processmgr.pc"))
        env = dict(os.environ, PKG_CONFIG_LIBDIR=str(pc.parent))
        flags = ["--define-prefix"] if self.windows else []
        query = ["pkg-config", *flags, "--cflags", "--libs"]
        words = call(query + (["--static"] if static else []) + ["processmgr"], env=env).split()
        if static:
            words = ["-static"] + words if self.windows else words
        for language, compiler, std in (("c", self.args.cc, "-std=c11"),
                                        ("cpp", self.args.cxx, "-std=c++11")):
            program = self.work / f"pc_{language}_{'static' if static else 'shared'}{self.exe}"
            if static:  # The archive itself: -lprocessmgr would prefer the shared one.
                archive = next(path for path in sorted(self.prefix.rglob("libprocessmgr*.a"))
                               if "debug" not in path.name and not path.name.endswith(".dll.a"))
                words = [str(archive) if w == "-lprocessmgr" else w for w in words]
            call([compiler, std, HERE / "project" / f"consumer.{language}", "-o", program, *words,
                  *self.args.ldflags.split()])
            self.run(program, self.library_dirs())

    def debug_component(self):
        build = self.work / "debug_component"
        package = next(self.prefix.rglob("processmgr-config.cmake")).parent
        self.configure(build, f"-Dprocessmgr_DIR={package}", "-DCONSUMER_DEBUG=ON")
        programs = [p for p in sorted(build.glob("debug_*" + self.exe)) if p.is_file()]
        if len(programs) != 3:
            raise Failed(f"3 programs expected, found {programs}")
        for program in programs:
            self.run(program, self.library_dirs())
        if self.windows:
            return
        pc = next(self.prefix.rglob("processmgr-debug.pc"))
        env = dict(os.environ, PKG_CONFIG_PATH=str(pc.parent))
        words = call(["pkg-config", "--cflags", "--libs", "processmgr-debug"], env=env).split()
        program = self.work / "pc_debug"
        call([self.args.cc, "-std=c11", HERE / "project" / "debug.c", "-o", program, *words,
              *self.args.ldflags.split()])
        self.run(program, self.library_dirs())

    def http_library_elsewhere(self):
        """It is loaded by its name: one in no folder of the loader's has to be found as if it was linked."""
        link = lambda build: call([self.args.ninja, "-C", build, "-t", "commands", "runner"]).splitlines()[-1]
        folder, build = self.work / "http", self.work / "elsewhere"
        folder.mkdir()
        shutil.copy(self.args.http, folder / pathlib.Path(self.args.http).resolve().name)
        library = folder / pathlib.Path(self.args.http).name
        if not library.exists():
            library.symlink_to(pathlib.Path(self.args.http).resolve().name)
        call([self.args.cmake, "-S", self.args.source, "-B", build, "-G", "Ninja",
              f"-DCMAKE_C_COMPILER={self.args.cc}", f"-DCMAKE_CXX_COMPILER={self.args.cxx}",
              "-DPROCESSMGR_BUILD_TESTS=OFF", f"-DPMI_MICROHTTPD_LIBRARY={library}"])
        if f"-rpath,{folder.resolve()}" not in link(build):
            raise Failed(f"the runner is not told where its HTTP library is: {link(build)}")
        if f"-rpath,{pathlib.Path(self.args.http).resolve().parent}" in link(self.args.build):
            raise Failed(f"the runner is told where the loader looks anyway: {link(self.args.build)}")

    # The guard in a foreign project.

    def guard(self, case, kind="EXECUTABLE", *options):
        """Configures and builds; None, or what failed."""
        # One folder for all: compilers are looked at once.
        build = self.work / ("guard" if not options else "guard_" + options[0].split("=")[0][2:])
        package = next(self.prefix.rglob("processmgr-config.cmake")).parent
        where = () if any("SUBDIRECTORY" in o for o in options) else (
            [f"-Dprocessmgr_DIR={package}"])
        try:
            self.configure(build, *where, f"-DCASE={case}", f"-DKIND={kind}", *options,
                           source=HERE / "guard")
        except Failed as failed:
            return str(failed)
        return None

    def expect_guard(self, text, case, kind="EXECUTABLE", *options):
        failed = self.guard(case, kind, *options)
        if failed is None:
            raise Failed(f"{case}, {kind}: it builds")
        words = " ".join(failed.split())
        # clang's attribute sees a pointer to the function, too.
        if text not in words and not (text == "uses system()" and "'diagnose_if' attribute on 'system'" in words):
            raise Failed(f"{case}, {kind}: fails without {text!r}:\n{failed}")

    def guard_lets_the_innocent_build(self):
        for kind in ("EXECUTABLE", "STATIC", "SHARED", "MODULE", "OBJECT"):
            failed = self.guard("innocent", kind)
            if failed:
                raise Failed(f"{kind}: {failed}")

    def guard_stops_a_call(self):
        self.expect_guard("use pm_spawn() from <processmgr/processmgr.h>", "called")

    def guard_finds_what_the_header_does_not_see(self):
        for kind in ("EXECUTABLE", "STATIC", "SHARED", "MODULE", "OBJECT"):
            self.expect_guard("uses system()", "pointer", kind)
        self.expect_guard("uses system()", "pointer_defined")
        self.expect_guard("uses system()", "pointer", "EXECUTABLE", "-DCMAKE_BUILD_TYPE=Release")
        if not self.args.toolchain:
            self.expect_guard("uses system()", "pointer_lto", "STATIC")

    def guard_wants_a_reason(self):
        self.expect_guard("needs its reason, in that source", "no_reason")
        failed = self.guard("with_reason")
        if failed:
            raise Failed(failed)
        self.expect_guard("guarded.dir/pointer.c", "twins")

    def guard_is_there_for_a_subdirectory(self):
        option = f"-DCONSUMER_SUBDIRECTORY={self.args.source}"
        self.expect_guard("uses system()", "pointer", "OBJECT", option)

    def header_is_c(self):
        for std in ("c11", "c17"):
            call([self.args.cc, f"-std={std}", "-pedantic-errors", "-Wall", "-Wextra", "-Werror",
                  "-c", "-o", self.work / "header.o", "-I", self.prefix / "include",
                  HERE / "project" / "consumer.c"])
        for std in ("c++11", "c++17", "c++20"):
            call([self.args.cxx, f"-std={std}", "-Wall", "-Wextra", "-Werror", "-c", "-o",
                  self.work / "header.o", "-I", self.prefix / "include",
                  HERE / "project" / "consumer.cpp"])


def main():
    parser = argparse.ArgumentParser()
    for name in ("source", "build", "cmake", "cc", "cxx", "generator"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--toolchain")
    parser.add_argument("--emulator")
    parser.add_argument("--ldflags", default="", help="what the toolchain file adds to each link")
    parser.add_argument("--windows", action="store_true")
    parser.add_argument("--debug", action="store_true", help="the debug server is built")
    parser.add_argument("--http", help="the library that the runner loads when it is asked for the page")
    parser.add_argument("--ninja")
    parser.add_argument("--gtest_output")
    parser.add_argument("--gtest_filter", default="*")
    args, _ = parser.parse_known_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="pm-consumer-") as folder:
        consumers = Consumers(args, pathlib.Path(folder))
        cases = {
            "FindPackageWorksFromAMovedPrefix": consumers.find_package,
            "AddSubdirectoryWorks": consumers.add_subdirectory,
            "PkgConfigLinksTheSharedLibrary": lambda: consumers.pkg_config(False),
            "PkgConfigLinksTheStaticLibrary": lambda: consumers.pkg_config(True),
            "TheHeaderIsStrictCAndCpp": consumers.header_is_c,
            **({"TheDebugComponentLinksAndRuns": consumers.debug_component} if args.debug else {}),
            **({"TheRunnerFindsItsHttpLibraryInAForeignPrefix": consumers.http_library_elsewhere} if args.http else {}),
            "TheGuardLetsTheInnocentBuild": consumers.guard_lets_the_innocent_build,
            "TheGuardStopsACall": consumers.guard_stops_a_call,
            "TheGuardFindsWhatTheHeaderDoesNotSee": consumers.guard_finds_what_the_header_does_not_see,
            "TheGuardWantsAReasonForAnExemption": consumers.guard_wants_a_reason,
            "TheGuardIsThereForASubdirectory": consumers.guard_is_there_for_a_subdirectory,
        }
        for name, case in cases.items():
            positive, _, negative = args.gtest_filter.partition("-")
            full = "Consumer." + name
            if not any(fnmatch.fnmatch(full, p) for p in (positive or "*").split(":")) or any(
                fnmatch.fnmatch(full, p) for p in negative.split(":") if p
            ):
                continue
            print(f"[ RUN      ] {full}", flush=True)
            failures = []
            try:
                case()
            except (Failed, subprocess.TimeoutExpired, StopIteration) as problem:
                failures = [{"failure": str(problem)}]
                print(problem)
            print(f"[ {'FAILED ' if failures else '      OK'} ] {full}", flush=True)
            results.append({"name": name, "status": "RUN", "result": "COMPLETED",
                            **({"failures": failures} if failures else {})})
    if args.gtest_output and args.gtest_output.startswith("json:"):
        report = {"testsuites": [{"name": "Consumer", "testsuite": results}]}
        pathlib.Path(args.gtest_output[5:]).write_text(json.dumps(report))
    failed = sum("failures" in r for r in results)
    print(f"{len(results) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
