#!/usr/bin/env python3
"""Proves that the fuzz targets find something: plants defects, one by one, in a copy of the sources.

    tests/fuzz/prove.py [--seconds 15] [--seed 1] [TARGET...]

Each target must pass without a defect, and with each of its own it must fail by changes of its
corpus within the time of the quick run, and again by the input that it left. A plant whose text is
no longer in the sources is an error.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]

RECORD = "src/core/record.c"
STAT = "src/posix/identity.c"
CMDLINE = "src/core/cmdline.c"
ENV = "src/core/env.c"
PLAN = "src/launcher/launch_plan.c"
WIRE = "src/pod/wire.c"
RING = "src/pod/ring.c"
TOMB = "src/pod/tomb.c"
CONFIG = "src/pod/config.c"

# (target, what is wrong, file, text, text in its place)
PLANTS = [
    ("record", "no room for the NUL", RECORD, "malloc(size + 1)", "malloc(size)"),
    ("record", "DEL is not escaped", RECORD, "u >= 0x7f ||", "u > 0x7f ||"),
    ("record", "any number of stop steps", RECORD, '"exit-step", PM_STOP_STEPS_MAX',
     '"exit-step", UINT32_MAX'),
    ("record", "an overflow at the last digit", RECORD, "(UINT64_MAX - digit) / 10",
     "UINT64_MAX / 10"),
    ("record", "a last line of any name", RECORD, "if (next_line(in, &line_end)) {",
     "if (next_line(in, &line_end) && *in->at != '=') {"),
    ("lock", "lines behind the last one", RECORD,
     'epoch = read_number(&in, "epoch", UINT64_MAX);\n        at_end(&in);',
     'epoch = read_number(&in, "epoch", UINT64_MAX);'),
    ("lock", "no boot id", RECORD, "read_text(in, name, 1, sizeof id->boot - 1",
     "read_text(in, name, 0, sizeof id->boot - 1"),
    ("lock", "a boot id without its NUL", RECORD,
     '(void)snprintf(id->boot, sizeof id->boot, "%s", boot);',
     "memcpy(id->boot, boot, strlen(boot) + 2);"),
    ("stat", "the name ends at its first ')'", STAT, "strrchr(text, ')')", "strchr(text, ')')"),
    ("stat", "reads on behind the end", STAT, "|| at[2] == '\\0')", ")"),
    ("stat", "a missing last field is 0", STAT,
     "if (end == at + 1)", "if (end == at + 1 && i < 22)"),
    ("cmdline", "backslashes at the end are not doubled", CMDLINE,
     "add_backslashes(sb, backslashes * 2);", "add_backslashes(sb, backslashes);"),
    ("cmdline", "the name is quoted for blanks only", CMDLINE, "(unsigned char)*c <= ' '",
     "*c == ' ' || *c == '\\t'"),
    ("cmdline", "more than seven backslashes are lost", CMDLINE, "for (; count > 0; count--)",
     "for (count &= 7; count > 0; count--)"),
    ("cmdline", "cmd.exe sees a percent sign", CMDLINE, '"#$*+-./:?@\\\\_"', '"#$%*+-./:?@\\\\_"'),
    ("cmdline", "a mark in an argument ends the quotation of cmd.exe", CMDLINE,
     "pmi_strbuf_add_char(sb, '\"');\n        } else if (*text == '%')",
     "pmi_strbuf_add_char(sb, '\\\\');\n        } else if (*text == '%')"),
    ("cmdline", "a Ctrl-Z in an argument", CMDLINE, '"\\r\\n\\x1a"', '"\\r\\n"'),
    ("cmdline", "backslashes before a mark of cmd.exe are not doubled", CMDLINE,
     "add_backslashes(sb, backslashes);\n            pmi", "pmi"),
    ("env", "z has no upper case", ENV, "c <= 'z' ?", "c < 'z' ?"),
    ("env", "a prefix is the same name", ENV, "if (a_length != b_length)",
     "if (a_length > b_length)"),
    ("env", "the first value is found, not the last", ENV, "value = *env + length + 1;",
     "return *env + length + 1;"),
    ("plan", "more descriptors than there is data", PLAN,
     "arrays_size(head) > rest", "rest == 0"),
    ("plan", "more strings than there is data", PLAN, "return strings <= rest -",
     "return strings != rest -"),
    ("plan", "a keeper with arguments", PLAN, "head->args_count == 0 && head->env_count == 0",
     "head->env_count == 0"),
    ("plan", "bytes behind the last string", PLAN, " && at == end;", ";"),
    ("plan", "a source that is a target", PLAN, "fds[i].source <= highest",
     "fds[i].source < highest"),
    ("podwire", "a frame of no size", WIRE, "size >= POD_HEADER_SIZE && size <=", "size <="),
    ("podwire", "a text longer than its frame", WIRE, "**at > left - 1 ||", ""),
    ("podwire", "fixed bytes that are not there", WIRE, "left < field->size", "left == 0"),
    ("podwire", "memory for what was announced", WIRE, "while (capacity < decoder->have + size)",
     "capacity = decoder->have >= 8 ? 65536 : 64; while (capacity < decoder->have + size)"),
    ("podring", "one byte too many is kept", RING, "ring->end - ring->first > ring->capacity",
     "ring->end - ring->first > ring->capacity + 1"),
    ("podring", "a gap that is one too long", RING, "cursor->offset = ring->first;\n",
     "cursor->offset = ring->first + 1;\n"),
    ("podring", "a write of all it holds and more", RING, "from += size - ring->capacity;", ""),
    ("podring", "an offset behind the end", RING, "if (offset > ring->end)",
     "if (offset > ring->end + 1)"),
    ("podfile", "an entry longer than the rest", CONFIG, "in->size > left - ENTRY_HEAD",
     "in->size > left"),
    ("podfile", "a NUL in a text", CONFIG, "memchr(in->data, '\\0', in->size) != NULL", "false"),
    ("podfile", "no room for an argument", CONFIG, "needs->arguments += in->tag == TAG_ARGUMENT;", ""),
    ("podfile", "bytes behind the exit", TOMB, "result > 0 && bytes.size > 0 ?", "false ?"),
    ("podfile", "output that does not follow", TOMB, "r->begun[channel] && output->offset !=",
     "false && output->offset !="),
]


def copy_sources(folder):
    names = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-coz", "--exclude-standard"],
        stdout=subprocess.PIPE, check=True).stdout.split(b"\0")
    for name in names:
        path = pathlib.Path(name.decode(errors="surrogateescape"))
        if name and (ROOT / path).is_file():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, folder / path)


def run(command, **env):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          errors="replace", check=False, env={**os.environ, **env})


def must_run(command):
    done = run(command)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}:\n{done.stdout}")


class Copy:
    """A copy of the sources with a build folder."""

    def __init__(self, folder):
        self.sources = folder / "sources"
        self.build = folder / "build"
        copy_sources(self.sources)
        must_run(["cmake", "-S", str(self.sources), "-B", str(self.build),
                  "-DCMAKE_BUILD_TYPE=Debug", "-DPROCESSMGR_BUILD_EXAMPLES=OFF"])

    def fuzz(self, target, filters, seconds, seed):
        """Builds and runs a target. Returns how it failed, or None."""
        must_run(["cmake", "--build", str(self.build), "--target", f"fuzz_{target}"])
        program = str(self.build / "tests" / "bin" / f"fuzz_{target}")
        left = self.build / "tests" / "fuzz" / f"{target}.input"
        begin = time.monotonic()
        done = run([program, f"--gtest_filter={filters}"], PM_FUZZ_SECONDS=str(seconds),
                   PM_FUZZ_SEED=str(seed))
        took = time.monotonic() - begin
        if done.returncode == 0:
            return None
        how = re.search(r"not so: .*|ERROR: AddressSanitizer: [-\w]+|runtime error: .*",
                        done.stdout)
        again = left.exists() and run([program, str(left)]).returncode != 0
        left.unlink(missing_ok=True)
        return (f"{took:.2f} s, {how.group() if how else 'no message'}"
                f"{'' if again else ', BUT NOT AGAIN WITH ITS INPUT'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("target", nargs="*")
    args = parser.parse_args()
    bad = 0

    def report(target, title, good, text):
        nonlocal bad
        print(f"{target}: {title}: {text}", flush=True)
        bad += not good

    with tempfile.TemporaryDirectory(prefix="pm-fuzz-") as folder:
        copy = Copy(pathlib.Path(folder))
        for target in args.target or dict.fromkeys(p[0] for p in PLANTS):
            failed = copy.fuzz(target, "*", 1, args.seed)
            report(target, "without a defect", not failed, failed or "passed")
            for _, title, file, old, new in (p for p in PLANTS if p[0] == target):
                path = copy.sources / file
                text = path.read_text()
                if text.count(old) != 1:
                    report(target, title, False, f"no place for it in {file}")
                    continue
                path.write_text(text.replace(old, new))
                failed = copy.fuzz(target, "*.Changes*", args.seconds, args.seed)
                path.write_text(text)
                report(target, title, failed and "BUT NOT" not in failed, failed or "NOT FOUND")
    print(f"{bad} failed" if bad else "every defect was found")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
