# SPDX-License-Identifier: GPL-2.0-or-later
"""Bisections of a real 5.10 with 64 commits upon it, one of which flips tests while others are in the way.

The kernels share the build folder of Debian's 5.10, so each costs what differs.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.plan.declarations import load_declarations
from orchestrator.source.fetch import fetch_tree
from orchestrator.store.store import Store
from tests.conftest import ROOT, QuietProgress, find_processes, wait_for
from tests.gitserver import run_git
from tests.guestprograms import FUZZED, LEAK
from tests.longhistory import BROKEN_BUILD, CRASHES, CRASHES_ELSEWHERE, FLIP, PANICS, make_long_history
from tests.schema import read_product

pytestmark = pytest.mark.kernel


class Bench:
    """A project whose debian-5.10 is a checkout with the long history, and the suite's store."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.store = store
        base = fetch_tree(load_declarations(ROOT).trees["debian-5.10"], store, QuietProgress())
        self.checkout = folder / "linux"
        self.commits = make_long_history(self.checkout, store.root / "git/kernels.git", base.commit)
        self.project = folder / "project"
        (self.project / "patches").mkdir(parents=True)
        tree = f"trees:\n  debian-5.10: {{git: [{self.checkout}], ref: HEAD}}\n"
        (self.project / "patches/trees.yaml").write_text(tree)
        # the whole series breaks nothing
        early = self.project / "patches/early"
        early.mkdir()
        cow = yaml.safe_load((ROOT / "patches/cow/series.yaml").read_text())
        cow["patches"] = cow["patches"][:2]
        for name in (names := [patch["file"] for patch in cow["patches"]]):
            shutil.copy(ROOT / "patches/cow" / name, early)
        (early / "series").write_text("".join(f"{name}\n" for name in names))
        (early / "series.yaml").write_text(yaml.safe_dump(cow))

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator", "-C", str(self.project), *words],
            cwd=ROOT,
            env=os.environ | {"COWBELL_STORE": str(self.store.root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=2400)
        return process.returncode, out, err

    def bisect(self, *words: str) -> dict[str, Any]:
        status, out, err = self.run("--json", "bisect", "ROW=demo", *words)
        assert status == 0, out + err
        return read_product(out)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, kernel_store: Store) -> Bench:
    return Bench(tmp_path_factory.mktemp("bisect"), kernel_store)


def test_a_fix_is_found_past_what_is_in_the_way(bench: Bench) -> None:
    """Killed on its way, and resumed."""
    process = bench.start(
        "bisect", "ROW=demo", "TESTS=odirect.rd-mprotect", "GOOD=main", "BAD=v0", "FIND=fix"
    )
    assert process.stderr
    for line in process.stderr:
        if re.search(r"\bstep 3\b", line):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    wait_for(lambda: not find_processes(str(bench.store.root / "results")), 30)
    status, out, err = bench.run("bisect", "RESUME=1")
    assert status == 0, out + err
    assert "the first commit that fixes odirect.rd-mprotect (fail):" in out
    assert "confirmed" in out
    assert f"{bench.commits[FLIP][:12]} mm: reuse anonymous pages by" in out.splitlines()[1]
    assert "build: the kernel does not build" in out
    assert "Kernel panic - not syncing: in the way" in out
    where = re.search(r"git -C (\S+) bisect log", out)
    assert where
    log = run_git(Path(where[1]), "bisect", "log")
    assert f"# first fixed commit: [{bench.commits[FLIP]}]" in log


def test_a_race_is_found(bench: Bench) -> None:
    name = "odirect.rd-stress[mode=softdirty]"
    told = bench.bisect(f"TESTS={name}", "GOOD=main", "BAD=v0", "FIND=fix")
    assert told["suspects"] == [bench.commits[FLIP]]
    assert told["is_found"]
    skipped = {step["commit"] for step in told["steps"] if step["answer"] == "skip"}
    assert skipped <= {bench.commits[i] for i in (BROKEN_BUILD, BROKEN_BUILD + 1, PANICS, PANICS + 1)}
    for step in told["steps"]:
        if step["answer"] != "skip":
            hits = int(step["rates"][name].split()[0])
            assert (hits > 0) == (step["answer"] == "bad")
    assert told["target_rates"][name]["rate"] > 0


def test_a_patch_that_breaks_is_found_and_a_comment_is_no_new_kernel(bench: Bench) -> None:
    target = bench.project / "bisected"
    told = bench.bisect(
        "TESTS=vmsplice.child-small", "SERIES=early", "KERNEL=debian-5.10:v0", f"DIR={target}"
    )
    assert {path.name for path in target.iterdir()} == {"report.txt", "evidence"}
    assert (told["find"], told["kind"], told["is_found"]) == ("break", "patch", True)
    images = {}
    for number in (35, 36):
        status, out, err = bench.run(
            "build", "ROW=demo", f"KERNEL=debian-5.10:{bench.commits[number]}", "SERIES=none"
        )
        assert status == 0, err
        folder = Path(out.strip()).parent
        images[number] = json.loads((folder / "build.json").read_text())["vmlinux_sha256"]
    status, out, _ = bench.run("build", "ROW=demo", f"KERNEL=debian-5.10:{bench.commits[34]}", "SERIES=none")
    folder = Path(out.strip()).parent
    assert json.loads((folder / "build.json").read_text())["vmlinux_sha256"] == images[35] != images[36]


def test_the_patch_that_breaks_a_program_is_found(bench: Bench, tmp_path: Path) -> None:
    """Its argument is part of every step."""
    (tmp_path / "leak.c").write_text(LEAK)
    words = (f"TESTS={tmp_path}/leak.c", "SERIES=early", "KERNEL=debian-5.10:v0", "--", "small")
    told = bench.bisect(*words)
    assert (told["find"], told["kind"], told["is_found"]) == ("break", "patch", True)
    subjects = {step["commit"]: step["subject"] for step in told["steps"]}
    assert subjects[told["suspects"][0]] == "mm: reuse anonymous pages by mapcount", told


def test_a_crash_is_found_past_other_crashes(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "fuzzed.c").write_text(FUZZED)
    words = (
        f"TESTS={tmp_path}/fuzzed.c",
        "FOREVER=4s",
        "FINGERPRINT=*remap_file_pages*",
        # after a skip git chooses by chance; in the middle of these ends is one of the others
        f"GOOD={bench.commits[CRASHES_ELSEWHERE - 3]}",
        f"BAD={bench.commits[CRASHES + 1]}",
    )
    told = bench.bisect(*words)
    assert told["is_found"] and told["suspects"] == [bench.commits[CRASHES]], told
    others = {bench.commits[i] for i in (CRASHES_ELSEWHERE, CRASHES_ELSEWHERE + 1)}
    assert {step["answer"] for step in told["steps"] if step["commit"] in others} == {"skip"}, told


def test_the_matrix_of_a_series_is_as_claimed(bench: Bench) -> None:
    """Of its beginning, whose kernels are there; that of all is for who changes the series."""
    words = ("series-matrix", "ROW=demo", "SERIES=early", "KERNEL=debian-5.10:v0")
    status, out, err = bench.run("--json", *words)
    told = read_product(out)
    assert status == 0, out + err
    flips = [{flip["test"]: flip["after"] for flip in patch["flips"]} for patch in told["patches"]]
    assert flips == [
        {
            "iouring.fixed-mprotect": "pass",
            "odirect.rd-mprotect": "pass",
            "odirect.rd-softdirty": "pass",
            "vmsplice.child-small": "fail",
        },
        {},
    ]


def test_by_hand(bench: Bench) -> None:
    """git bisect run in the checkout itself, whose HEAD is what the project calls debian-5.10."""
    place = bench.checkout
    run_git(
        place,
        "bisect",
        "start",
        "--term-old=broken",
        "--term-new=fixed",
        "main",
        bench.commits[BROKEN_BUILD - 2],
    )
    words = [
        "-C",
        str(bench.project),
        "ROW=demo",
        "TESTS=odirect.rd-softdirty",
        "FIND=fix",
        "KERNEL=debian-5.10",
    ]
    done = subprocess.run(
        ["git", "bisect", "run", sys.executable, "-m", "orchestrator", "bisect-step", *words],
        cwd=place,
        env=os.environ | {"COWBELL_STORE": str(bench.store.root), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{bench.commits[FLIP]} is the first fixed commit" in done.stdout
    run_git(place, "bisect", "reset")
