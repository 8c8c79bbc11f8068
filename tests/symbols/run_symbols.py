#!/usr/bin/env python3
"""Compares what the shared library exports with the committed list, which ci/check-symbols writes,
and what a child calls before its exec with the short one in child.txt.

Understands --gtest_output=json:FILE and --gtest_filter, so that ci/test counts its cases.
"""

import argparse
import fnmatch
import json
import pathlib
import re
import subprocess
import sys


def exported(args):
    if args.system == "windows":
        text = subprocess.run([args.objdump, "-p", args.library], capture_output=True, text=True,
                              check=True).stdout
        table = text.split("[Ordinal/Name Pointer] Table", 1)[1].split("\n\n", 1)[0]
        return set(re.findall(r"^\s*\[.*\]\s+(?:\+base\[.*\]\s+\S+\s+)?(\w+)$", table, re.M))
    text = subprocess.run([args.nm, "-D", "--defined-only", args.library], capture_output=True,
                          text=True, check=True).stdout
    return {line.split()[-1] for line in text.splitlines() if line.strip()}


def check(found, listed):
    """Problems, one line each."""
    problems = [f"exported, but not in the list: {name}" for name in sorted(found - listed)]
    problems += [f"in the list, but not exported: {name}" for name in sorted(listed - found)]
    problems += [f"without the prefix pm_: {name}" for name in sorted(found) if name[:3] != "pm_"]
    return problems


# What the compiler adds by itself.
OF_COMPILER = re.compile(r"__(asan|ubsan|tsan|sanitizer|gcov|aarch64)_\w+|_GLOBAL_OFFSET_TABLE_|"
                         r"__stack_chk_\w+|__tls_get_addr")


def called_in_child(args):
    """What its object needs of others: it shares nothing with what the starter calls."""
    text = subprocess.run([args.nm, "-u", args.child], capture_output=True, text=True,
                          check=True).stdout
    names = {line.split()[-1].split("@")[0] for line in text.splitlines() if line.strip()}
    return {name for name in names if not OF_COMPILER.fullmatch(name)}


def check_child(found, listed):
    """Another thread may have had any lock when the child was made, that of malloc before all."""
    return [f"called between clone and exec, but not in the list: {name}"
            for name in sorted(found - listed)]


def names_of(path):
    lines = pathlib.Path(path).read_text().splitlines()
    return {line for line in lines if line and not line.startswith("#")}


def child_cases(args):
    found, listed = called_in_child(args), names_of(args.child_list)
    return {
        "AChildCallsNothingThatTakesALock":
            check_child(found, listed) if "syscall" in found else ["that is not its object"],
        "AnAllocationInAChildWouldBeSeen":
            [] if check_child(found | {"malloc"}, listed) else ["malloc passes"],
    }


def main():
    parser = argparse.ArgumentParser()
    for name in ("system", "nm", "objdump", "library", "list"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--child", help="the object of what runs between clone and exec")
    parser.add_argument("--child-list")
    parser.add_argument("--gtest_output", default="")
    parser.add_argument("--gtest_filter", default="*")
    args, _ = parser.parse_known_args()
    positive, _, negative = args.gtest_filter.partition("-")

    def selected(name):
        full = "Symbols." + name
        return any(fnmatch.fnmatch(full, p) for p in (positive or "*").split(":")) and not any(
            fnmatch.fnmatch(full, p) for p in negative.split(":") if p)

    found = exported(args)
    listed = set(pathlib.Path(args.list).read_text().split())
    cases = {
        "AreThoseOfTheCommittedList": check(found, listed) if found else ["nothing is exported"],
        # The negative control: the comparison above can fail.
        "AChangeWouldBeSeen": []
        if check(found | {"pm_new"}, listed) and check(found - {"pm_open"}, listed)
        else ["a changed list passes"],
        **(child_cases(args) if args.child else {}),
    }
    cases = {name: problems for name, problems in cases.items() if selected(name)}
    results = []
    for name, problems in cases.items():
        print(f"[ RUN      ] Symbols.{name}")
        print("\n".join(problems))
        print(f"[ {'FAILED ' if problems else '      OK'} ] Symbols.{name}")
        results.append({"name": name, "status": "RUN", "result": "COMPLETED",
                        **({"failures": [{"failure": p} for p in problems]} if problems else {})})
    if args.gtest_output.startswith("json:"):
        report = {"testsuites": [{"name": "Symbols", "testsuite": results}]}
        pathlib.Path(args.gtest_output[5:]).write_text(json.dumps(report))
    failed = sum(bool(problems) for problems in cases.values())
    print(f"{len(cases) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
