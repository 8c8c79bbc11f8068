#!/usr/bin/env python3
"""Counts the test cases of several GoogleTest programs.

A results folder holds, per program: NAME.rc (exit code), NAME.log (output), NAME.secs (time) and
NAME.json (--gtest_output). A program without readable JSON has crashed or hung and counts as one
failed case; so does one that ends with an error although all of its cases passed.

With --unmet FILTER the folder is a file with the names of all cases that --cases has written, and the
patterns of the filter that fit none of them are printed.

NAME.again.* are the results of a second try of what failed (see --failed). A case that passed there
counts as passed, and the report names it with its first failure.
"""

import argparse
import fnmatch
import json
import pathlib
import re
import sys

import skip_list

LOG_TAIL = 60
FAILURE_HEAD = 40  # Lines of one failure; the rest is in the log.
TRIES_MAX = 3  # More failures than these are no accident.
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


def read_report(folder, name):
    """The JSON of one program, or None."""
    try:
        return json.loads((folder / f"{name}.json").read_text(errors="replace"))
    except (OSError, ValueError):
        return None


def failed_filter(folder, name):
    """A --gtest_filter for the failed cases; "*" for a crash; empty where no second try is due."""
    report = read_report(folder, name)
    if report is None:
        crashed = int((folder / f"{name}.rc").read_text()) not in TIMEOUT_CODES
        return "*" if crashed else ""
    failed = [case for case, result, _ in outcomes(report) if result == "failed"]
    return ":".join(failed) if len(failed) <= TRIES_MAX else ""


def second_try(folder, name):
    """The outcomes of the second try by case, and whether the program itself ended well."""
    again = read_report(folder, f"{name}.again")
    if again is None:
        return {}, None, False
    ended_well = (folder / f"{name}.again.rc").read_text().strip() == "0"
    return {case: result for case, result, _ in outcomes(again)}, again, ended_well


def indented(failures):
    """The lines of failure texts, cut where they go on for too long."""
    for text in failures:
        lines = text.splitlines()
        yield from ("        " + line for line in lines[:FAILURE_HEAD])
        if len(lines) > FAILURE_HEAD:
            yield f"        ... and {len(lines) - FAILURE_HEAD} lines more"


def summarise(folder, name, may_skip):
    """Prints the report of one program and returns its (passed, failed, skipped).

    A case that was skipped although may_skip(case) says no counts as failed.
    """
    log_file = folder / f"{name}.log"
    log = log_file.read_text(errors="replace").replace("\r\n", "\n") if log_file.exists() else ""
    code = int((folder / f"{name}.rc").read_text().strip() or 1)
    secs_file = folder / f"{name}.secs"
    secs = secs_file.read_text().strip() if secs_file.exists() else "0.0"
    counts = {"passed": 0, "failed": 0, "skipped": 0}
    notes = []
    report = read_report(folder, name)
    again, again_report, again_ended_well = second_try(folder, name)
    if report is None and again_ended_well:
        notes.append(f"    second try: {name}: {describe_end(code)} at the first")
        report = again_report
        code = 0

    if report is None:
        counts["failed"] = 1
        running = last_running(log)
        where = f" in {running}" if running else ""
        notes.append(f"    FAILED {name}: {describe_end(code)}{where}, no test report")
    else:
        for case, result, failures in outcomes(report):
            if result == "failed" and again_ended_well and again.get(case) == "passed":
                notes.append(f"    second try: {case} passed; the first time:")
                notes.extend(indented(failures))
                counts["passed"] += 1
                code = 0
                continue
            unlisted = result == "skipped" and not may_skip(case)
            counts["failed" if unlisted else result] += 1
            if unlisted:
                notes.append(f"    FAILED {case}: skipped, and not listed for it in tests/skips.md")
                notes.append(f"        {skip_reason(log, case)}")
            elif result == "failed":
                notes.append(f"    FAILED {case}")
                notes.extend(indented(failures))
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


def cases_of(folder):
    """The names of all cases of all programs."""
    for file in sorted(folder.glob("*.json")):
        yield from (name for name, _, _ in outcomes(read_report(folder, file.stem) or {}))


def unmet(test_filter, names):
    """The patterns that choose cases and fit none: what they were meant for was not run."""
    positive = test_filter.partition("-")[0] or "*"
    return [p for p in positive.split(":") if p and not fnmatch.filter(names, p)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--title", default="tests")
    parser.add_argument("--group", default="posix", help="what tests/skips.md calls this run")
    parser.add_argument("--counts", help="file to append 'passed failed skipped' to")
    parser.add_argument("--cases", help="file to append the name of each case to")
    parser.add_argument("--unmet", metavar="FILTER", help="only print its patterns without a case")
    parser.add_argument(
        "--failed",
        action="store_true",
        help="only print a filter for a second try; FOLDER is FOLDER/NAME then",
    )
    parser.add_argument("folder", type=pathlib.Path)
    args = parser.parse_args()

    if args.failed:
        print(failed_filter(args.folder.parent, args.folder.name))
        return 0

    if args.unmet is not None:
        print("\n".join(unmet(args.unmet, args.folder.read_text().splitlines())))
        return 0

    rows = list(skip_list.load())
    total = {"passed": 0, "failed": 0, "skipped": 0}
    for rc_file in sorted(args.folder.glob("*.rc")):
        if rc_file.stem.endswith(".again"):
            continue
        for key, value in summarise(
            args.folder,
            rc_file.stem,
            lambda case: skip_list.is_listed(case, args.group, "skipped", rows),
        ).items():
            total[key] += value
    print(
        f"{args.title}: {total['passed']} passed, {total['failed']} failed, "
        f"{total['skipped']} skipped"
    )
    if args.counts:
        with open(args.counts, "a", encoding="utf-8") as out:
            out.write(f"{total['passed']} {total['failed']} {total['skipped']}\n")
    if args.cases:
        with open(args.cases, "a", encoding="utf-8") as out:
            out.writelines(name + "\n" for name in cases_of(args.folder))
    return 1 if total["failed"] or not total["passed"] else 0


if __name__ == "__main__":
    sys.exit(main())
