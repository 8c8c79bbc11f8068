#!/usr/bin/env python3
"""Checks that every PM_API function of a header has a complete doc comment.

Complete: each parameter as "@param name", "@return" (with the PM_ERR_ codes, or PM_OK, for functions
that return an error), "Blocking:", "Thread safety:", "Since:"; and no "@param" that is none.
"""

import pathlib
import re
import sys

DECLARATION = re.compile(r"^PM_(?:DEBUG_)?API\b(?P<text>[^;{]*);", re.M)
LABELS = ("Blocking:", "Thread safety:", "Since:")


def split_parameters(text):
    """Splits at the commas that are not inside of parentheses."""
    parts, depth, current = [], 0, ""
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += char
    return [p.strip() for p in parts + [current] if p.strip() and p.strip() not in ("void", "...")]


def parameter_name(text):
    pointer = re.search(r"\(\s*\*\s*(\w+)\s*\)", text)
    if pointer:
        return pointer.group(1)
    return re.sub(r"\[[^\]]*\]$", "", text).split()[-1].lstrip("*")


def parse(text):
    """Splits a declaration without PM_API into return type, name and parameter names."""
    match = re.match(r"\s*(?P<type>.*?)(?P<name>\w+)\s*\((?P<parameters>.*)\)\s*$", text, re.S)
    if not match:
        return None
    names = [parameter_name(p) for p in split_parameters(match.group("parameters"))]
    return match.group("type").strip(), match.group("name"), names


def comment_before(source, position):
    """The doc comment that ends right before the position, or an empty text."""
    before = source[:position].rstrip()
    if not before.endswith("*/"):
        return ""
    start = before.rfind("/*")
    comment = before[start:]
    return comment if comment.startswith("/**") else ""


def tag_text(comment, tag):
    """The text of one tag, up to the next tag or label."""
    ends = "|".join([r"@\w+", *map(re.escape, LABELS)])
    match = re.search(re.escape(tag) + r"\b(.*?)(?=" + ends + r"|\*/)", comment, re.S)
    return None if match is None else re.sub(r"\n\s*\*", "\n", match.group(1)).strip()


def check_function(comment, return_type, parameters):
    if not comment:
        yield "no doc comment right above it"
        return
    for name in parameters:
        if not tag_text(comment, f"@param {name}"):
            yield f"parameter {name} is not described"
    for name in re.findall(r"@param\s+(\w+)", comment):
        if name not in parameters:
            yield f"describes {name}, which is no parameter"
    result = tag_text(comment, "@return")
    if not result:
        yield "no @return"
    elif return_type == "int" and "PM_" not in result:
        yield "@return names no PM_OK and no PM_ERR_ code"
    for label in LABELS:
        if not re.search(re.escape(label) + r"[ \t]*(\n[ \t]*\*)?[ \t]*[^\s*/]", comment):
            yield f"no '{label}'"


def check(source):
    """Returns (number of functions, list of problems)."""
    found, count = [], 0
    for match in DECLARATION.finditer(source):
        line = source.count("\n", 0, match.start()) + 1
        parsed = parse(match.group("text"))
        if parsed is None:
            continue
        count += 1
        return_type, name, parameters = parsed
        comment = comment_before(source, match.start())
        found += [f"{line}: {name}: {p}" for p in check_function(comment, return_type, parameters)]
    return count, found


GOOD = """
/**
 * Does it.
 *
 * @param a the first; borrowed.
 * @param callback called once.
 * @return PM_OK; PM_ERR_INVALID (a is NULL).
 * Blocking: no. Thread safety: any thread. Since: 0.1.0.
 */
PM_API int pm_do(const struct a *a, void (*callback)(int x, int y));
"""


def self_test():
    count, found = check(GOOD)
    failed = [f"finds fault with the good sample: {found}"] if found or count != 1 else []
    breaks = {
        "missing comment": ("/**", "/*"),
        "missing parameter": (" * @param a the first; borrowed.\n", ""),
        "empty parameter": ("the first; borrowed.", ""),
        "missing function pointer": (" * @param callback called once.\n", ""),
        "unknown parameter": ("@param a ", "@param b "),
        "missing return": ("@return", "returns"),
        "return without codes": ("PM_OK; PM_ERR_INVALID (a is NULL).", "something."),
        "missing blocking": ("Blocking: no.", ""),
        "missing thread safety": ("Thread safety: any thread.", ""),
        "missing since": ("Since: 0.1.0.", ""),
        "empty since": ("Since: 0.1.0.", "Since:"),
        "gap": ("*/\nPM_API", "*/\nint x;\nPM_API"),
    }
    for title, (old, new) in breaks.items():
        assert old in GOOD, title
        if not check(GOOD.replace(old, new))[1]:
            failed.append(f"does not notice: {title}")
    return failed


def main():
    if sys.argv[1:] == ["--self-test"]:
        found = self_test()
    elif len(sys.argv) == 2:
        count, found = check(pathlib.Path(sys.argv[1]).read_text())
        found = [f"{sys.argv[1]}:{line}" for line in found]
        if not count:
            found.append(f"{sys.argv[1]}: no PM_API function found")
    else:
        found = ["usage: check-api-docs.py HEADER | --self-test"]
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
