# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the command takes to answer without doing anything, and how much memory: seconds and MiB.

On an idle host ``--help`` and ``list`` are to stay below 0.25 s, ``-n`` and ``ci`` on a hundred rows below
1 s, all below 150 MiB. The rows are the demo's under other names, slowest with its kernels in the store. If
``COWBELL_STORE`` has the results of the demo, a run that does nothing and ``report`` are measured as well.
"""

import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS, TRIES = 100, 5


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cowbell-") as own:
        matrix = Path(own) / "ci" / "matrix.yaml"
        matrix.parent.mkdir()
        matrix.write_text(make_matrix())
        print(f"load {os.getloadavg()[0]:.1f}; best and median of {TRIES}")
        rows = [["-n", "-C", own], ["ci", "-C", own], ["ci", "--check", "-C", own]]
        if (Path(os.environ.get("COWBELL_STORE", own)) / "runs" / "latest").exists():
            rows += [["test", "ROW=demo"], ["report"]]
        for words in (["--help"], ["list"], ["completion", "words", "ROW=de"], *rows):
            times = sorted(measure(words) for _ in range(TRIES))
            told = " ".join(words).replace(f" -C {own}", ", a hundred rows")
            print(f"{told:<28}{times[0]:8.2f}{times[TRIES // 2]:8.2f}")
    most_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10
    print(f"{'memory of the largest, MiB':<28}{most_mib:8d}")


def make_matrix() -> str:
    text = (ROOT / "ci" / "matrix.yaml").read_text()
    found = re.search(r"^  - name: demo\n(?:    .*\n|\n)*", text, re.M)
    assert found
    rows = (found[0].replace("name: demo", f"name: row{n}", 1) for n in range(ROWS))
    return "rows:\n" + "".join(rows)


def measure(words: list[str]) -> float:
    began = time.monotonic()
    command = [sys.executable, "-m", "orchestrator", *words]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    # 1: a verdict of the store is not as expected
    assert done.returncode in (0, 1), words
    return time.monotonic() - began


if __name__ == "__main__":
    main()
