#!/usr/bin/env python3
"""Checks that the fault tests reach each place where the library gives up because of an error.

    ci/fault-labels.py BUILD [--all]

BUILD is a build folder with PROCESSMGR_FAULT_COVERAGE (gcc), whose program tests/bin/fault has been run
with PM_TEST_FULL=1. A place is the first line that is run only after a failure: behind an "if" whose
condition asks for one, and each goto; and a line with a ?: that asks for one, of which each branch has to
be taken. Those that were never run must stand in tests/fault/unreached.txt with a reason; what stands
there and was run, or is no longer there, is a mistake. --all lists all places.
Some calls are made for root only, and some with control groups only (version 2).
"""

import argparse
import collections
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
EXCEPTIONS = ROOT / "tests/fault/unreached.txt"
FOLDERS = ("src/core", "src/posix", "src/launcher")
GROUPS = [os.access(f"/sys/fs/cgroup{place}/cgroup.procs", os.W_OK) for place in ("", "/unified")]

# What a condition says when a call has failed, and what is done then: the rest is no error of a call.
# Not so what only asks how things stand: is_..., has_..., ..._is_...
FAILED = re.compile(r"!= PM_OK\b|<=? 0\b|== NULL\b|== MAP_FAILED\b|\be != 0\b|"
                    r"!(?!\w*(is|has|wants|same|within|alive|tracked|orphans_come)_|\w*_(within|alive)\b)"
                    r"(?!atomic_|S_IS|PMI_WITHOUT)\w+\(")
GIVES_UP = re.compile(r"(return|goto|result = |e = |\(void\)pmi_fail|\(void\)fail|.*\bclose\(|free\(|"
                      r"refuse\(|_exit\()")
# The same in the condition of a ?:, in which success may be asked for as well. A time of -1 and a
# Handle that is NULL are no failures of calls.
CHOICE = re.compile(r"(?<!timeout_ms )(?<!rest )(?<!\bp )"
                    r"(!= PM_OK|== PM_OK|< 0|== NULL|== MAP_FAILED|\be != 0)\)? \? ")
# Not a call of the system but an argument or a state was refused, which the other tests have.
REFUSED = re.compile(r"PM_ERR_(INVALID|CLOSED|FORKED|WOULD_DEADLOCK|UNSUPPORTED|BUSY|EXISTS|NOT_FOUND)"
                     r"\b|\bbad\(|\bunsupported\(")
CHECKED = re.compile(r"\b(check_\w+|pmi_check\w*|enter\w*)\(")


def lines_run(build):
    """{file: {line: count}}, the sum over all objects that a line is in; the same of its branches."""
    counts = collections.defaultdict(lambda: collections.defaultdict(int))
    branches = collections.defaultdict(lambda: collections.defaultdict(collections.Counter))
    files = sorted(str(f) for f in (build.resolve() / "tests/fault").rglob("*.gcno"))
    if not files:
        sys.exit(f"{build}: nothing was counted: PROCESSMGR_FAULT_COVERAGE, and run tests/bin/fault")
    # It says of each file that was never run that there is no count.
    documents = subprocess.run(["gcov", "--json-format", "--branch-probabilities", "--stdout", *files], check=True,
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    for document in documents.splitlines():
        for file in json.loads(document)["files"]:
            path = pathlib.Path(file["file"])
            if path.is_relative_to(ROOT):
                name = str(path.relative_to(ROOT))
                for line in file["lines"]:
                    counts[name][line["line_number"]] += line["count"]
                    for number, branch in enumerate(line["branches"]):
                        branches[name][line["line_number"]][number] += branch["count"]
    return counts, branches


def end_of_condition(lines, at):
    """The number of the line on which the parentheses of "if (" close, and the condition."""
    text, depth = "", 0
    for number in range(at, min(at + 12, len(lines))):
        code = lines[number].split("//")[0]
        code = code[code.index("if (") + 3:] if number == at else code
        for position, c in enumerate(code):
            depth += (c == "(") - (c == ")")
            if depth == 0 and c == ")":
                return number, text + code[:position + 1]
        text += code + " "
    return at, ""


def is_error(condition, then, before):
    """Whether `then` is what is done after a failure that the condition asks for."""
    return (FAILED.search(condition) and GIVES_UP.match(then) and not REFUSED.search(then) and
            not CHECKED.search(before + condition))


def count_of(lines, counts, at):
    """Of the statement that begins there: the compiler counts it on any of its lines."""
    end = at
    while not re.search(r"[;{}]\s*(//.*)?$", lines[end]):
        end += 1
    return max(counts.get(n + 1, 0) for n in range(at, end + 1))


def places(lines, counts, branches):
    """Each line that is run after a failure only, the function that it is in, and how often it was."""
    function, seen = "?", set()
    for number, line in enumerate(lines):
        head = re.match(r"[A-Za-z_].*?(\w+)\(.*[^;]$", line)
        function = head.group(1) if head else function
        target = None
        if re.search(r"\bgoto \w+;", line):
            target = number
        elif re.search(r"\bif \(", line):
            end, condition = end_of_condition(lines, number)
            target = next((n for n in range(end + 1, end + 6) if n + 1 in counts), None)
            # A call of the API begins with its checks.
            before = "".join(lines[number - 5:number] if function.startswith("pm_") else
                             lines[number - 1:number])
            if target is None or not is_error(condition, lines[target].strip(), before):
                target = None
        if target is not None and target + 1 in counts and target not in seen:
            seen.add(target)
            yield target, function, count_of(lines, counts, target)
        # Where the compiler has made a branch of it. What a call of the API begins with is above.
        elif CHOICE.search(line) and branches.get(number + 1) and not REFUSED.search(line):
            before = "".join(lines[number - 4:number])
            if not (function.startswith("pm_") and CHECKED.search(before)):
                yield number, function, min(branches[number + 1].values())


def exceptions():
    """Of tests/fault/unreached.txt, {(file, function, text): how many}, and those that may be run."""
    never, sometimes = collections.Counter(), set()
    for line in EXCEPTIONS.read_text().splitlines():
        if line and not line.startswith("#"):
            file, function, text = line.removeprefix("? ").split(" ", 2)
            key = (file, function.rstrip(":"), text)
            never[key] += not line.startswith("? ")
            if line.startswith("? "):
                sometimes.add(key)
    return never, sometimes


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--all", action="store_true", help="list the places with their counts")
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("not checked: many calls are made for root only")
        return 0
    all_counts, all_branches = lines_run(args.build)
    (allowed, sometimes), total, bad = exceptions(), 0, 0
    for file in sorted(f for f in all_counts if f.startswith(FOLDERS)):
        counts = all_counts[file]
        lines = (ROOT / file).read_text().splitlines()
        for target, function, count in places(lines, counts, all_branches[file]):
            total += 1
            key = (file, function, lines[target].strip())
            if args.all:
                print(f"{file}:{target + 1}: {function}: {count}: {key[2]}")
            needs_group = "cgroup" in f"{file} {key[2]}".lower()
            if count > 0 or key in sometimes or (needs_group and not any(GROUPS)):
                continue
            if allowed[key] > 0:
                allowed[key] -= 1
                continue
            print(f"{file}:{target + 1}: never run: {function}: {key[2]}")
            bad += 1
    for (file, function, text), left in allowed.items():
        if left > 0:
            print(f"{EXCEPTIONS.relative_to(ROOT)}: {file} {function}: {text}: is run, or is not there")
            bad += 1
    print(f"{total} places, {bad} failed")
    return 1 if bad or total < 150 else 0


if __name__ == "__main__":
    sys.exit(main())
