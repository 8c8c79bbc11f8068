#!/usr/bin/env python3
"""Compares what the shared library exports with the committed list. ci/check-symbols writes it.

Understands --gtest_output=json:FILE, so that ci/test counts its cases.
"""

import argparse
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


def main():
    parser = argparse.ArgumentParser()
    for name in ("system", "nm", "objdump", "library", "list"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--gtest_output", default="")
    args, _ = parser.parse_known_args()
    found = exported(args)
    listed = set(pathlib.Path(args.list).read_text().split())
    cases = {
        "AreThoseOfTheCommittedList": check(found, listed) if found else ["nothing is exported"],
        # The negative control: the comparison above can fail.
        "AChangeWouldBeSeen": []
        if check(found | {"pm_new"}, listed) and check(found - {"pm_open"}, listed)
        else ["a changed list passes"],
    }
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
