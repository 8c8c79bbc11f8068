#!/usr/bin/env python3
"""Counts the test cases of several GoogleTest programs.

A results folder holds, per program: NAME.rc (exit code), NAME.log (output), NAME.secs (time) and
NAME.json (--gtest_output). A program without readable JSON has crashed or hung and counts as one
failed case; so does one that ends with an error although all of its cases passed.
"""

import argparse
import json
import pathlib
import re
import sys

LOG_TAIL = 60
TIMEOUT_CODES = (124, 137)


def outcomes(report):
    """Yields (name, "passed" | "failed" | "skipped", failure texts) for each case."""
    for suite in report.get("testsuites", []):
        for case in suite.get("testsuite", []):
            name = f"{suite.get('name')}.{case.get('name')}"
            failures = [f.get("failure", "") for f in case.get("failures", [])]
            if failures:
                yield name, "failed", failures
            elif case.get("result") in ("SKIPPED", "SUPPRESSED") or case.get("status") == "NOTRUN":
                yield name, "skipped", []
            else:
                yield name, "passed", []


def skip_reason(log, name):
    """The text that the case printed with GTEST_SKIP(); the JSON does not hold it."""
    pattern = re.compile(
        r"^\[ RUN      \] " + re.escape(name) + r"\n(.*?)^\[  SKIPPED \] ", re.M | re.S
    )
    match = pattern.search(log)
    if not match:
        return "disabled" if "DISABLED_" in name else "no reason given"
    parts = re.split(r"^.*Skipped\n", match.group(1), maxsplit=1, flags=re.M)
    return " ".join(parts[-1].split()) or "no reason given"


def last_running(log):
    """The case that had started but not ended."""
    started = re.findall(r"^\[ RUN      \] (\S+)", log, re.M)
    ended = set(re.findall(r"^\[ +(?:OK|FAILED|SKIPPED) +\] (\S+?)(?: \(|$)", log, re.M))
    return next((name for name in reversed(started) if name not in ended), None)


def describe_end(code):
    if code in TIMEOUT_CODES:
        return "timed out"
    if code > 128:
        return f"was ended by signal {code - 128}"
    return f"ended with exit code {code}"


def summarise(folder, name):
    """Prints the report of one program and returns its (passed, failed, skipped)."""
    log_file = folder / f"{name}.log"
    log = log_file.read_text(errors="replace").replace("\r\n", "\n") if log_file.exists() else ""
    code = int((folder / f"{name}.rc").read_text().strip() or 1)
    secs_file = folder / f"{name}.secs"
    secs = secs_file.read_text().strip() if secs_file.exists() else "0.0"
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    notes = []
    try:
        report = json.loads((folder / f"{name}.json").read_text(errors="replace"))
    except (OSError, ValueError):
        report = None

    if report is None:
        counts["failed"] = 1
        running = last_running(log)
        where = f" in {running}" if running else ""
        notes.append(f"    FAILED {name}: {describe_end(code)}{where}, no test report")
    else:
        for case, result, failures in outcomes(report):
            counts[result] += 1
            if result == "failed":
                notes.append(f"    FAILED {case}")
                for text in failures:
                    notes.extend("        " + line for line in text.splitlines())
            elif result == "skipped":
                notes.append(f"    skipped {case}: {skip_reason(log, case)}")
        if code != 0 and counts["failed"] == 0:
            counts["failed"] = 1
            notes.append(f"    FAILED {name}: {describe_end(code)} although its cases passed")

    print(
        f"  {name}: {counts['passed']} passed, {counts['failed']} failed, "
        f"{counts['skipped']} skipped ({secs} s)"
    )
    for note in notes:
        print(note)
    if counts["failed"]:
        print(f"    -- end of the output of {name}:")
        for line in log.splitlines()[-LOG_TAIL:]:
            print(f"    | {line}")
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--title", required=True)
    parser.add_argument("--counts", help="file to append 'passed failed skipped' to")
    parser.add_argument("folder", type=pathlib.Path)
    args = parser.parse_args()

    total = {"passed": 0, "failed": 0, "skipped": 0}
    for rc_file in sorted(args.folder.glob("*.rc")):
        for key, value in summarise(args.folder, rc_file.stem).items():
            total[key] += value
    print(
        f"{args.title}: {total['passed']} passed, {total['failed']} failed, "
        f"{total['skipped']} skipped"
    )
    if args.counts:
        with open(args.counts, "a", encoding="utf-8") as out:
            out.write(f"{total['passed']} {total['failed']} {total['skipped']}\n")
    return 1 if total["failed"] or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
