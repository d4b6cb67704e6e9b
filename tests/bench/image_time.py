# SPDX-License-Identifier: GPL-2.0-or-later
"""Wall time of a released kernel, from its packages to the first verdict, and of later verdicts.

The downloads of the guest's root and of a compiler are not measured: another kernel is tested first.
``KERNEL=`` chooses the kernel. ``vng`` cannot boot these images where they are: it looks for modules only in
/lib/modules.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEST = "TESTS=odirect.rd-mprotect"
ROUNDS = 5


def run(*words: str) -> float:
    command = [sys.executable, "-m", "orchestrator", "-s", *words]
    began = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=False, stdout=sys.stderr)
    return time.monotonic() - began


def main() -> None:
    kernel = os.environ.get("KERNEL", "debian-image-6.12")
    with tempfile.TemporaryDirectory(prefix="cowbell-", dir="/var/tmp") as folder:
        os.environ["COWBELL_STORE"] = folder
        run("test", "KERNEL=debian-image-7.3", TEST)
        first = run("test", f"KERNEL={kernel}", TEST)
        later = [run("-B", "test", f"KERNEL={kernel}", TEST) for _ in range(ROUNDS)]
    print(f"{kernel}, load {os.getloadavg()[0]:.1f}; first verdict: {first:.1f} s")
    print(f"median of {ROUNDS} later ones: {statistics.median(later):.1f} s")


if __name__ == "__main__":
    main()
