# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole way on real input: Debian's 5.10, built, booted under QEMU, judged.

The kernels live in a store of the suite's own in the user's cache directory, so only the first run builds.
"""

import json
import os
import platform
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pexpect
import pytest

from tests.conftest import ROOT, cowbell_with_store
from tests.guestprograms import render_test
from tests.schema import read_product

pytestmark = pytest.mark.kernel

FLIPS_TO_PASS = ("iouring.fixed-mprotect", "odirect.rd-mprotect", "odirect.rd-softdirty")

# tests that do to the guest what a broken kernel, or a broken test, would
FAULTS = {
    "fault.panic": 'gt_note("on the way"); system("echo c > /proc/sysrq-trigger"); gt_pass("survived");',
    "fault.warn": 'system("echo w > /proc/sysrq-trigger"); gt_pass("no complaint");',
    "fault.splat": (
        "system(\"echo 'WARNING: CPU: 0 PID: 1 at mm/memory.c:1 do_wp_page+0x1/0x2' > /dev/kmsg\");"
        ' gt_pass("looks well");'
    ),
    "fault.hang": "for (;;) pause();",
    "fault.stuck": "signal(SIGALRM, SIG_IGN); for (;;) pause();",
    "fault.silent": "_exit(0);",
    "fault.liar": 'printf("ok 1 fault.liar\\n"); fflush(stdout); _exit(3);',
    "fault.segv": "raise(SIGSEGV);",
    "fault.well": 'gt_pass("and the guest goes on");',
}


@pytest.fixture(scope="session")
def demo(kernel_store_root: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    # kernels may be there from an earlier run; what the tests came to is found out again
    return kernel_store_root, cowbell_with_store(kernel_store_root, "-B", "test", "ROW=demo")


def statuses(store: Path) -> dict[str, dict[str, str]]:
    report = json.loads((store / "runs" / "latest" / "report.json").read_text())
    return {job["variant"]: {v["name"]: v["raw"] for v in job["verdicts"]} for job in report["jobs"]}


def test_demo_row(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    store, done = demo
    assert done.returncode == 0, done.stdout + done.stderr
    found = statuses(store)
    for name in FLIPS_TO_PASS:
        assert (found["plain"][name], found["cow"][name]) == ("fail", "pass")
        assert any(name in line and "FAIL -> PASS" in line for line in done.stdout.splitlines())
    assert (found["plain"]["vmsplice.child-small"], found["cow"]["vmsplice.child-small"]) == ("pass", "pass")
    assert (found["plain"]["vmsplice.child-thp"], found["cow"]["vmsplice.child-thp"]) == ("fail", "pass")
    assert found["plain"]["odirect.rd-control"] == "pass"
    assert "PASS -> FAIL" not in done.stdout
    assert "every verdict is the expected one" in done.stdout


def test_demo_reports(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    store, _ = demo
    folder = store / "runs" / "latest"
    suites = ET.parse(folder / "junit.xml").getroot()
    assert [suite.get("name") for suite in suites] == ["demo/plain", "demo/cow"]
    assert all(suite.get("failures") == "0" and suite.get("errors") == "0" for suite in suites)
    assert "odirect.rd-mprotect" in (folder / "report.html").read_text()


def test_second_run_does_nothing(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    store, _ = demo
    assert cowbell_with_store(store, "test", "ROW=demo").returncode == 0  # whatever other tests have run anew
    again = cowbell_with_store(store, "test", "ROW=demo")
    assert again.returncode == 0
    assert "up to date" in again.stdout
    assert again.stderr == ""
    steps = read_product(cowbell_with_store(store, "-n", "--json", "ROW=demo").stdout)["steps"]
    assert steps and not any(step["why"] for step in steps)


@pytest.mark.parametrize(
    ("file", "build", "run"),
    [
        ("kconfigs/cow.config", "build it: kconfigs/cow.config is taken as changed", "the kernel is new"),
        ("guest-tests/odirect/rd-control.c", "up to date", "run odirect.rd-control: guest-tests/odirect/rd-"),
        (
            "guest-tests/lib/uring.h",
            "up to date",
            "run iouring.fixed-mprotect: guest-tests/lib/uring.h is taken as",
        ),
    ],
)
def test_what_would_be_done_if_a_file_changed(
    demo: tuple[Path, subprocess.CompletedProcess[str]], file: str, build: str, run: str
) -> None:
    told = cowbell_with_store(demo[0], "-n", "--what-if", str(ROOT / file), "ROW=demo", "SERIES=none").stdout
    steps = dict(re.findall(r"^(\w+) .*\n +(.*)$", told, re.M))
    assert build in steps["build"]
    assert run in steps["run"]


def test_a_file_that_nothing_is_made_of(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    done = cowbell_with_store(demo[0], "-n", "-W", str(ROOT / "kconfigs/kasan.config"), "ROW=demo")
    assert done.returncode == 2
    assert "--what-if: nothing that is asked for is made of kconfigs/kasan.config" in done.stderr


def test_ctrl_c_on_a_terminal(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """The live view shows both jobs and how long they will take; one Ctrl-C ends all, and says so."""
    child = pexpect.spawn(
        sys.executable,
        ["-m", "orchestrator", "-B", "-j4", "test", "ROW=demo", "ACCEL=tcg", "REPEAT=5"],
        cwd=str(ROOT),
        env=os.environ | {"COWBELL_STORE": str(demo[0]), "TERM": "xterm"},
        encoding="utf-8",
        timeout=120,
    )
    # from the beginning on: on a busy host that time may be over before the first test begins
    child.expect(r"of 2 kernels done, about \d+:\d\d left")
    child.expect(r"demo/plain.*run")
    child.expect(r"demo/cow.*run")
    # on a busy host one may have ended before the other begins, and begins again with the next trials
    guests: list[int] = []
    while len(guests) < 2:
        child.expect("[\r\n]")
        guests = find_descendants(child.pid or 0, "qemu-system")
    child.sendintr()
    child.expect("interrupted; the same command continues where it stopped")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130
    assert not any(Path(f"/proc/{pid}").exists() for pid in guests)


def test_trials_are_kept_and_added_to(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    store, _ = demo
    words = ("ROW=demo", "TESTS=odirect.rd-control")
    for options, count, ran in ((("-B",), 3, 6), ((), 5, 4), ((), 5, 0)):
        done = cowbell_with_store(store, *options, "test", "-v", "--json", *words, f"REPEAT={count}")
        assert done.returncode == 0, done.stderr
        verdicts = [verdict for job in json.loads(done.stdout)["jobs"] for verdict in job["verdicts"]]
        assert [verdict["trials"] for verdict in verdicts] == [count, count]
        assert done.stderr.count("PASS odirect.rd-control ") == ran
    assert "run odirect.rd-control" not in cowbell_with_store(store, "-n", *words, "REPEAT=5").stdout
    assert "run odirect.rd-control" in cowbell_with_store(store, "-n", *words, "REPEAT=6").stdout


def test_what_was_earned_is_in_the_history(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """Entered while it ran, with the row and the place in the console; what is up to date enters nothing."""
    store, _ = demo
    words = ("ROW=demo", "SERIES=none", "TESTS=odirect.rd-control")
    before = read_history(store)
    assert cowbell_with_store(store, "-B", "test", *words).returncode == 0
    db = sqlite3.connect(store / "history.sqlite")
    (entered,) = db.execute("SELECT count(*) FROM entries WHERE name = 'odirect.rd-control'").fetchone()
    db.close()
    assert cowbell_with_store(store, "test", *words).returncode == 0
    after = read_history(store)
    assert len(after) == entered == len(before) + 1
    (entry,) = (entry for entry in after if entry not in before)
    assert (entry["row"], entry["variant"], entry["status"], entry["host"]) == (
        "demo", "plain", "pass", platform.node(),
    )  # fmt: skip
    with (store / entry["console"]).open("rb") as console:
        console.seek(entry["console_at"])
        assert b"cowbell: begin odirect.rd-control" in console.read()


def read_history(store: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads(
        cowbell_with_store(store, "history", "odirect.rd-control", "--json").stdout
    )["entries"]
    return entries


def test_a_race_is_repeated_until_it_is_known(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    store, _ = demo
    done = cowbell_with_store(store, "test", "--json", "ROW=demo", "TESTS=odirect.rd-stress", "REPEAT=auto")
    plain, cow = [
        {verdict["name"]: verdict for verdict in job["verdicts"]}["odirect.rd-stress[mode=softdirty]"]
        for job in json.loads(done.stdout)["jobs"]
    ]
    assert (plain["raw"], plain["trials"]) == ("fail", 1)
    assert 0 < plain["interval"][0] < plain["rate"]["hits"] / plain["rate"]["tries"] < plain["interval"][1]
    assert cow["raw"] == "pass"
    assert cow["interval"][1] < 0.01
    assert "0 of" in cow["reason"]
    # at the rate that earlier runs on the plain kernel showed, or the default
    assert "with 95 % confidence; target rate" in cow["reason"]
    assert "inconclusive" not in cow["reason"]


def test_two_at_once_do_the_work_once(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    store, _ = demo
    words = ("test", "ROW=demo", "TESTS=odirect.rd-control", "SERIES=none")
    for result in (store / "results").glob("*/odirect.rd-control.*.json"):
        result.unlink()
    with ThreadPoolExecutor() as pool:
        both = list(pool.map(lambda _: cowbell_with_store(store, *words), range(2)))
    assert [done.returncode for done in both] == [0, 0], both
    assert sorted("boot " in done.stderr for done in both) == [False, True], both


def test_kill_9_leaves_no_qemu(demo: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    store, _ = demo
    process = subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "-B", "test", "ROW=demo"],
        cwd=ROOT,
        env=os.environ | {"COWBELL_STORE": str(store)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    guests: list[int] = []
    deadline = time.monotonic() + 60
    while not guests and time.monotonic() < deadline:
        guests = find_descendants(process.pid, "qemu-system")
        time.sleep(0.05)
    assert guests
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{pid}").exists() for pid in guests) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(Path(f"/proc/{pid}").exists() for pid in guests)
    assert cowbell_with_store(store, "test", "ROW=demo").returncode == 0


def find_descendants(ancestor: int, name: str) -> list[int]:
    """Pids of what a process started, and what that started, whose program's name begins so."""
    children: dict[int, list[tuple[int, str]]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            pid, rest = path.read_text().split(" (", 1)
        except OSError:
            continue
        command, fields = rest.rsplit(")", 1)
        children.setdefault(int(fields.split()[1]), []).append((int(pid), command))
    found, waiting = [], [ancestor]
    while waiting:
        below = children.get(waiting.pop(), [])
        waiting += [pid for pid, _ in below]
        found += [pid for pid, command in below if command.startswith(name)]
    return found


def make_fault(test: str, body: str) -> str:
    limit_s = 3 if "hang" in test or "stuck" in test else 20
    return render_test(body, timeout_s=limit_s, may_crash=test == "fault.panic")


@pytest.fixture(scope="session")
def faults(
    demo: tuple[Path, subprocess.CompletedProcess[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, tuple[str, str]]]:
    """Status and reason of every fault, run on the demo's plain kernel from a project of its own."""
    store, _ = demo
    project = tmp_path_factory.mktemp("project")
    (project / "patches").mkdir()
    for name in ("kconfigs", "patches/trees.yaml", "patches/fixups.yaml"):
        (project / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "guest-tests" / "lib", project / "guest-tests" / "lib")
    (project / "guest-tests" / "fault").mkdir()
    for test, body in FAULTS.items():
        (project / "guest-tests" / "fault" / f"{test.split('.')[1]}.c").write_text(make_fault(test, body))
    (project / "ci").mkdir()
    matrix = (ROOT / "ci" / "matrix.yaml").read_text()
    head = matrix[: matrix.index("    variants:")]
    (project / "ci" / "matrix.yaml").write_text(head + "    variants: [{name: plain}]\n")
    done = cowbell_with_store(store, "-C", str(project), "-B", "test", "--json", "TESTS=fault.*")
    assert done.returncode == 1, done.stdout + done.stderr
    (job,) = read_product(done.stdout)["jobs"]
    yield {verdict["name"]: (verdict["status"], verdict["reason"]) for verdict in job["verdicts"]}


@pytest.mark.parametrize(
    ("test", "status"),
    [
        ("fault.panic", "crash"),
        ("fault.warn", "pass"),
        ("fault.splat", "crash"),
        ("fault.hang", "timeout"),
        ("fault.stuck", "timeout"),
        ("fault.silent", "broken"),
        ("fault.liar", "broken"),
        ("fault.segv", "broken"),
        ("fault.well", "pass"),
    ],
)
def test_fault(faults: dict[str, tuple[str, str]], test: str, status: str) -> None:
    found, reason = faults[test]
    assert reason
    # a time limit says nothing of a guest that a busy host kept waiting
    is_busy = (status, found) == ("timeout", "broken") and "the host gave the guest no CPU" in reason
    assert found == status or is_busy, reason


def test_demo_row_on_the_newest_kernel(kernel_store_root: Path) -> None:
    """Fragments, Kconfig's language, the guest's set-up and the tests hold on the kernel of the day."""
    done = cowbell_with_store(kernel_store_root, "test", "ROW=demo", "KERNEL=debian-7.3", "SERIES=none")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 verdicts: 12 pass: every verdict is the expected one" in done.stdout


MUST_UNSHARE = "mm/gup.c:gup_must_unshare"
MUTANTS = {
    f"{MUST_UNSHARE}:if-always:6": "killed",
    f"{MUST_UNSHARE}:if-always:8": "killed",
    # a fast reference is only tried again, slowly
    f"{MUST_UNSHARE}:if-never:6": "alive",
    # a page in swap, and a page of a file
    f"{MUST_UNSHARE}:drop-operand:9": "not reached",
    # the config has no KSM
    "mm/ksm.c:cmp_and_merge_page:if-never:13": "not compiled",
    "mm/mremap.c:move_ptes:drop-call:66": "",
    "mm/memory.c:wp_page_copy:drop-maker:84": "",
    "mm/memory.c:do_wp_page:if-never:20": "",
    "mm/memory.c:copy_present_page:if-always:9": "",
    "mm/gup.c:follow_page_pte:if-never:98": "",
}


def test_mutants(demo: tuple[Path, subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    store, _ = demo
    words = ("ROW=demo", "SERIES=cow", f"MUTANTS={','.join(MUTANTS)}")
    done = cowbell_with_store(store, "mutants", *words, f"DIR={tmp_path}", "--json")
    assert done.returncode == 0, done.stderr
    product = read_product(done.stdout)
    states = {one["site"]["name"]: one["state"] for one in product["results"]}
    assert set(states) == set(MUTANTS)
    assert {name: states[name] for name, state in MUTANTS.items() if state} == {
        name: state for name, state in MUTANTS.items() if state
    }
    killed = [one for one in product["results"] if one["state"] == "killed"]
    assert product["score"]["killed"] == len(killed) and product["score"]["total"] == len(MUTANTS) - 1
    for one in killed:
        assert one["outcomes"][-1]["status"] in ("fail", "crash")
    (secret,) = [one for one in killed if one["site"]["name"].endswith("if-always:6")]
    assert secret["outcomes"][-1]["test"].startswith("vmsplice.child-")
    assert (tmp_path / "mutants.html").read_text().count("<tr id=") == len(MUTANTS)
    # everything is known: no mutant is run again
    again = cowbell_with_store(store, "-v", "mutants", *words, "--json")
    assert read_product(again.stdout) == product
    assert "boot" not in again.stderr
