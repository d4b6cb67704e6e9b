# SPDX-License-Identifier: GPL-2.0-or-later
"""Wall time of a released kernel, from its packages to the first verdict, and of later verdicts.

The downloads of the guest's root and of a compiler are not measured: another kernel is tested first.
``KERNEL=`` chooses the kernel. If it is installed, as in ``KERNEL=/boot/vmlinuz-6.1.0-57-amd64``,
``vng --run`` takes turns with the later verdicts: it looks for modules in /lib/modules only.
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


def measure(*words: str | Path, cwd: Path = ROOT) -> float:
    began = time.monotonic()
    subprocess.run(words, cwd=cwd, check=False, stdout=sys.stderr, stdin=subprocess.DEVNULL)
    return time.monotonic() - began


def measure_test(*words: str) -> float:
    return measure(sys.executable, "-m", "orchestrator", "-s", *words)


def measure_vng(kernel: str, folder: Path) -> float:
    # KVM is not everywhere where /dev/kvm is
    flags = ("--disable-kvm",) if os.environ.get("ACCEL", "tcg") == "tcg" else ()
    return measure(Path(sys.executable).with_name("vng"), *flags, "--run", kernel, "--", "true", cwd=folder)


def main() -> None:
    kernel = os.environ.get("KERNEL", "debian-image-6.12")
    later, vng = [], []
    with tempfile.TemporaryDirectory(prefix="cowbell-", dir="/var/tmp") as folder:
        os.environ["COWBELL_STORE"] = folder
        measure_test("test", "KERNEL=debian-image-7.3", TEST)
        first = measure_test("test", f"KERNEL={kernel}", TEST)
        for _ in range(ROUNDS):
            later.append(measure_test("-B", "test", f"KERNEL={kernel}", TEST))
            if kernel.startswith("/boot/"):
                vng.append(measure_vng(kernel, Path(folder)))
    print(f"{kernel}, load {os.getloadavg()[0]:.1f}; first verdict: {first:.1f} s")
    print(f"median of {ROUNDS} later ones: {statistics.median(later):.1f} s")
    if vng:
        print(f"median of {ROUNDS} times vng -- true: {statistics.median(vng):.1f} s")


if __name__ == "__main__":
    main()
