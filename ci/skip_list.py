#!/usr/bin/env python3
"""The list of tests that do not run somewhere (tests/skips.md), and its checks.

    ci/skip_list.py --posix RESULTS --win32 RESULTS

compares the case names of the contract programs, the pod daemon and the runner in two results folders of ci/test: a
case that only one of them has must be on the list as absent from the other, and nothing may be listed as absent
that is there.
"""

import argparse
import fnmatch
import json
import pathlib
import re
import sys

LIST = pathlib.Path(__file__).resolve().parent.parent / "tests" / "skips.md"
ROW = re.compile(r"^\| `([^`]+)` \| ([^|]+) \| (skipped|absent) \| ([^|]+) \|$")


def load(path=LIST):
    """Yields (case pattern, groups, "skipped" or "absent")."""
    rows = [line for line in path.read_text().splitlines() if line.startswith("| `")]
    for row in rows:
        match = ROW.match(row)
        if not match:
            raise ValueError(f"{path.name}: not a row of the list: {row}")
        yield match.group(1), [g.strip() for g in match.group(2).split(",")], match.group(3)


def is_listed(case, group, how, rows):
    return any(
        how == row_how
        and fnmatch.fnmatchcase(case, pattern)
        and any(fnmatch.fnmatchcase(group, row_group) for row_group in groups)
        for pattern, groups, row_how in rows
    )


SHARED = ("contract_*.json", "pod_daemon.json", "runner_core.json", "runner_ops.json")


def shared_cases(folder):
    cases = set()
    for report in (path for pattern in SHARED for path in folder.glob(pattern)):
        if report.name.endswith(".again.json"):
            continue
        for suite in json.loads(report.read_text(errors="replace"))["testsuites"]:
            cases.update(f"{suite['name']}.{case['name']}" for case in suite["testsuite"])
    return cases


def differences(posix, win32, rows):
    for case in sorted(posix - win32):
        if not is_listed(case, "win32", "absent", rows):
            yield f"{case} is missing on win32 and not in tests/skips.md"
    for case in sorted(win32 - posix):
        if not is_listed(case, "posix", "absent", rows):
            yield f"{case} is missing on posix and not in tests/skips.md"
    for pattern, groups, how in rows:
        for group, there in (("posix", posix), ("win32", win32)):
            if how == "absent" and group in groups and fnmatch.filter(there, pattern):
                yield f"{pattern} is in tests/skips.md as absent on {group}, and is there"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posix", type=pathlib.Path, required=True)
    parser.add_argument("--win32", type=pathlib.Path, required=True)
    args = parser.parse_args()
    posix, win32 = shared_cases(args.posix), shared_cases(args.win32)
    if not posix or not win32:
        print("    no reports of the suites that both systems have")
        return 1
    found = list(differences(posix, win32, list(load())))
    for line in found:
        print(f"    {line}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
