"""Plants defects, one by one, in a copy of the sources. The test of each has to find it, and nothing in the
sources as they are: the negative control of a suite.
"""

import pathlib
import shutil
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Defect(NamedTuple):
    name: str  # What is wrong.
    file: str
    text: str
    other: str  # In its place.
    test: str = ""  # For a suite that has one for each; else all of it is run.
    more: tuple = ()  # Further texts of the same file, with what is in their places.


def plant(defect, folder):
    path = folder / defect.file
    source = path.read_text()
    for text, other in ((defect.text, defect.other), *defect.more):
        if text not in source:
            sys.exit(f"{defect.name}: the text is no longer in {defect.file}: {text}")
        source = source.replace(text, other, 1)
    path.write_text(source)


def find(defect, suite, planted):
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        folder.chmod(0o755)  # Daemons of other users read there.
        shutil.copytree(ROOT / "src", folder / "src")
        if planted:
            plant(defect, folder)
        return suite(folder, defect)


def prove(defects, suite, words=()):
    """suite(folder, defect) builds what is in folder/src and runs the test of the defect. It returns what that
    has found, "" if nothing. Only the defects are planted that have one of the words in their names. Returns
    the exit code of a program."""
    chosen = [d for d in defects if not words or any(word in d.name for word in words)]
    missed, sound = [], set()
    if not chosen:
        sys.exit("there is no such defect")
    for defect in chosen:
        if defect.test not in sound:
            found = find(defect, suite, False)
            if found:
                sys.exit(f"{defect.test or 'the suite'} does not pass without a defect: {found}")
            sound.add(defect.test)
        found = find(defect, suite, True)
        print(f"{defect.name}: {found or 'NOT FOUND'}", flush=True)
        if not found:
            missed.append(defect.name)
    print(f"{len(missed)} of {len(chosen)} not found: {', '.join(missed)}" if missed else
          f"all {len(chosen)} defects were found")
    return 1 if missed else 0
