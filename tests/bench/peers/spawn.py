"""spawn.py TARGET COUNT: microseconds of each start, and of it and its wait, a line each."""

import subprocess
import sys
import time

target, count = sys.argv[1], int(sys.argv[2])
null = subprocess.DEVNULL
options = {"stdin": null, "stdout": null, "stderr": null}
if sys.version_info >= (3, 11):
    options["process_group"] = 0
for _ in range(count):
    begin = time.perf_counter()
    process = subprocess.Popen([target], **options)
    started = time.perf_counter()
    if process.wait() != 0:
        sys.exit(f"it ended with {process.returncode}")
    whole = time.perf_counter()
    print(f"{(started - begin) * 1e6:.1f} {(whole - begin) * 1e6:.1f}")
