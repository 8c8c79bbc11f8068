"""spawn.py TARGET COUNT: microseconds of each start and wait, one per line."""

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
    subprocess.run([target], check=True, **options)
    print(f"{(time.perf_counter() - begin) * 1e6:.1f}")
