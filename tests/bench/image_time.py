# SPDX-License-Identifier: GPL-2.0-or-later
"""Wall time of a released kernel: to the first verdict after its download, to the next one, and ``vng --run``.

``vng`` boots the same image with the same modules. The figures to quote are the medians of the later rounds;
``KERNEL=debian-image-7.3`` measures another one.
"""

import os
import shutil
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
    began = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "orchestrator", "-s", *words], cwd=ROOT, check=True, stdout=sys.stderr
    )
    return time.monotonic() - began


def boot_vng(image: Path, modules: Path, scratch: Path) -> float:
    """On a host without udev its exit status is 255 whatever the command came to, so it is not looked at."""
    began = time.monotonic()
    vng = Path(sys.executable).with_name("vng")
    subprocess.run(
        [vng, "--run", image, "--disable-kvm", "--mods", modules, "--", "true"],
        cwd=scratch, env=os.environ | {"HOME": str(scratch)}, check=False, capture_output=True,
    )  # fmt: skip
    return time.monotonic() - began


def main() -> None:
    kernel = f"KERNEL={os.environ.get('KERNEL', 'debian-image-6.12')}"
    with tempfile.TemporaryDirectory(prefix="cowbell-", dir="/var/tmp") as folder:
        scratch = Path(folder)
        os.environ["COWBELL_STORE"] = str(scratch / "store")
        # the download of the image and of the guest's root are the mirror's speed
        run("source", kernel)
        run("test", "KERNEL=debian-image-5.10", TEST)
        first = run("test", kernel, TEST)
        later = [run("-B", "test", kernel, TEST) for _ in range(ROUNDS)]
        (place,) = [
            path for path in (scratch / "store/images").glob("*/config") if "6.12" in path.read_text()[:200]
        ]
        shutil.copy(place.parent / "image", scratch / "image")
        vng = [boot_vng(scratch / "image", place.parent / "modules", scratch) for _ in range(ROUNDS)]
    print(
        f"first verdict after the download {first:.1f} s, later ones {statistics.median(later):.1f} s (medians)"
    )
    print(f"vng --run of the same image, to the end of `true`: {statistics.median(vng):.1f} s")


if __name__ == "__main__":
    main()
