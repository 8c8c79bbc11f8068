#!/usr/bin/env python3
"""Proves that the sequences of calls find something: plants defects, one by one, in a copy of the library,
and the quick run has to find each.

    tests/model/prove.py BUILD_FOLDER [WORD...]    only the plants with one of the words in their names

BUILD_FOLDER is a native one in which the program model is built. Needs no rebuild of it: the one file
that has the defect is compiled and linked in place of its object.
"""

import json
import pathlib
import shlex
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from defects import ROOT, Defect, prove  # noqa: E402

DEFECTS = [
    Defect("a stop that gives up says that it has ended", "src/core/stop.c", "finish(s, PM_ERR_TIMEOUT);\n            return;",
           "finish(s, PM_OK);\n            return;"),
    Defect("the step of a stop that gave up stays", "src/core/stop.c", "            take_back(s, p, 0);\n", ""),
    Defect("the wrong step has ended it", "src/core/stop.c", "s->report.ended_by = i;", "s->report.ended_by = 1;"),
    Defect("a failed delivery is success", "src/core/stop.c", "if (!in->exists) {\n        return PM_ERR_UNSUPPORTED;",
           "if (!in->exists) {\n        return PM_OK;"),
    Defect("a status is lost now and then", "src/core/process.c", "    p->exit = *record;\n",
           "    p->exit = *record;\n    if ((record->code & 7) == 2) {\n        p->exit.kind = PM_EXIT_LOST;\n    }\n"),
    Defect("an exit code is cut", "src/core/process.c", "    p->exit = *record;\n", "    p->exit = *record;\n    p->exit.code &= 63;\n"),
    Defect("failed starts are not counted", "src/core/spawn.c", "    m->stats.start_failures++;\n", ""),
    Defect("a live one is counted twice", "src/core/spawn.c", "m->stats.modes[p->mode].started++;", "m->stats.modes[0].started++;"),
    Defect("stops that failed are not counted", "src/core/stop.c", "m->stats.stop_failures += s->report.result != PM_OK;", ""),
    Defect("ends are counted as kills", "src/core/process.c", "return killed ? PMI_END_KILLED : PMI_END_EXITED;",
           "(void)killed;\n    return PMI_END_KILLED;"),
    Defect("streams stay open without a Handle", "src/core/process.c", "            pmi_stream_close_for_good(&p->streams[i]);\n", ""),
    Defect("the key of a daemon that was left is free", "src/core/registry.c",
           "bool gone = pmi_os_identity_check(&rec.id) == PM_ERR_GONE;", "bool gone = true;"),
    Defect("nothing is forgotten", "src/core/registry.c", "result = pmi_os_file_remove(&m->registry.exits, name);",
           "(void)name;\n    result = PM_OK;"),
    Defect("an end is told to nobody", "src/core/events.c", "    if (m->options.event == NULL && p->on_exit == NULL && !unwritten) {",
           "    if ((p->exit.code & 7) == 2 || (unwritten && false)) {"),
    Defect("a closed manager can be stopped with", "src/core/manager.c", "return closed ? PM_ERR_CLOSED : PM_OK;",
           "return closed ? PM_OK : PM_OK;"),
    Defect("a stopped one is said to run", "src/core/process.c", "info.state == PM_STATE_RUNNING && stopped", "stopped && false"),
]


def commands(build):
    """How each source of the library is compiled."""
    compiled = {}
    for entry in json.loads((build / "compile_commands.json").read_text()):
        if " CMakeFiles/processmgr_objects_" in entry["command"]:  # Not the copies with other backends.
            compiled[entry["file"]] = shlex.split(entry["command"])
    return compiled


def link(build, folder, defect):
    # First: so its namesake is not taken out of the archive.
    program = folder / "model"
    objects = sorted((build / "tests/model/CMakeFiles/model.dir").rglob("*.o"))
    objects += sorted((build / "tests/CMakeFiles/pmi_test_support_objects.dir").rglob("*.o"))
    subprocess.run(["c++", *map(str, [defect, *objects, build / "libprocessmgr.a"]), "-lgtest", "-lpthread",
                    "-o", str(program)], check=True)
    return program


def build_model(build, folder, compiled, file):
    command = list(compiled[str(ROOT / file)])
    defect = folder / "defect.o"
    command[command.index("-o") + 1] = str(defect)
    command[command.index("-c") + 1] = str(folder / file)
    if "-MF" in command:
        command[command.index("-MF") + 1] = str(folder / "deps")
    subprocess.run([*command, "-Wno-error"], check=True, cwd=build)
    return link(build, folder, defect)


def finds(program):
    """The first line that it prints of a failure, or nothing."""
    try:
        result = subprocess.run([str(program)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=280, text=True)
    except subprocess.TimeoutExpired:
        return "it hangs"
    lines = [line for line in result.stdout.splitlines() if line.startswith("PM_TEST_SEED=")]
    return (lines or ["it fails"])[0] if result.returncode != 0 else ""


def main():
    build, words = pathlib.Path(sys.argv[1]).resolve(), sys.argv[2:]
    compiled = commands(build)
    return prove(DEFECTS, lambda folder, defect: finds(build_model(build, folder, compiled, defect.file)), words)


if __name__ == "__main__":
    sys.exit(main())
