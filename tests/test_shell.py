# SPDX-License-Identifier: GPL-2.0-or-later
"""cowbell shell: which kernel, on a terminal and without one, and nothing left when it ends."""

import io
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator import pipeline
from orchestrator.cli import shell
from orchestrator.cli.main import main
from orchestrator.cli.shell import Session, choose_job
from orchestrator.errors import StageFailure, UsageError
from orchestrator.guest.qemu import QemuKilled
from orchestrator.plan.plan import Request, make_plan
from tests.conftest import ROOT, cowbell, find_processes, wait_for
from tests.samples import DECLARED

WORDS = [sys.executable, "-m", "orchestrator", "shell", "ROW=demo", "SERIES=none", "ACCEL=tcg"]


@pytest.mark.parametrize(
    ("request_", "chosen"),
    [
        (Request(rows=("small",)), "small/only"),
        (Request(rows=("demo",), series=("none",)), "demo/plain"),
        # for a comparison this would be two kernels
        (Request(rows=("demo",), series=("cow",)), "demo/mended"),
    ],
)
def test_one_kernel_is_chosen(request_: Request, chosen: str) -> None:
    job = choose_job(make_plan(request_, DECLARED), request_.series)
    assert f"{job.row.name}/{job.variant.name}" == chosen


@pytest.mark.parametrize("series", [(), ("cow", "other")])
def test_several_kernels_are_told_with_the_words_for_each(series: tuple[str, ...]) -> None:
    jobs = make_plan(Request(rows=("demo",), series=series), DECLARED)
    with pytest.raises(UsageError, match="one kernel, and 2 match") as raised:
        choose_job(jobs, series)
    for name in series or ("none", "cow"):
        assert f"cowbell shell ROW=demo SERIES={name}" in str(raised.value)


@pytest.mark.parametrize(
    ("boot", "kconfig", "came"),
    [("vng", (), "vng"), ("qemu", ("virtme",), "qemu"), ("", ("virtme",), "vng"), ("", (), "qemu")],
)
def test_plan_chooses_qemu_or_vng(boot: str, kconfig: tuple[str, ...], came: str) -> None:
    base = DECLARED.fragments["base"]
    declared = replace(DECLARED, fragments={name: replace(base, name=name) for name in ("base", "virtme")})
    request = Request(rows=("small",), config=("base", *kconfig), boot=boot)
    (job,) = make_plan(request, declared)
    assert job.boot == came
    assert job.row.kconfig.count("virtme") == int(boot == "vng" or bool(kconfig))


def test_shell_is_done_alone() -> None:
    done = subprocess.run([*WORDS, "test"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 128
    assert "shell: cannot be combined" in done.stderr


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Session(0, ()), 0),
        (Session(1, ("WARNING at mm/memory.c:1",)), 1),
        (Session(124, ()), 124),
        # a script that skips the commit
        (Session(125, ()), 125),
        # no such program, a signal
        (Session(127, ()), 127),
        (Session(139, ()), 127),
        (StageFailure("source", "left out: the series is for others"), 125),
        (StageFailure("build", "the kernel does not build"), 125),
        (StageFailure("boot", "Kernel panic - not syncing: VFS"), 125),
        (StageFailure("shell", "Kernel panic - not syncing: sysrq triggered crash"), 126),
        (UsageError("there is no kernel /nowhere", where="KERNEL"), 128),
        (QemuKilled("QEMU was killed"), 129),
        (ZeroDivisionError("a bug"), 129),
    ],
)
def test_exit_status_for_git_bisect_run(
    monkeypatch: pytest.MonkeyPatch, outcome: Session | Exception, status: int
) -> None:
    """git takes 1 to 124, 126 and 127 for bad, 125 for a skip, and stops at 128 and above."""

    @contextmanager
    def open_guest(*_: object, **options: object) -> Iterator[SimpleNamespace]:
        if isinstance(outcome, Exception) and getattr(outcome, "stage", "") != "shell":
            raise outcome
        yield SimpleNamespace(console="console.log")

    def run_shell(guest: object) -> Session:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(pipeline, "open_guest", open_guest)
    monkeypatch.setattr(shell, "run_shell", run_shell)
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(SystemExit) as ended:
        main(["shell", "ROW=demo", "SERIES=none"])
    assert ended.value.code == status


def test_a_tree_that_does_not_exist_stops_git() -> None:
    done = cowbell("shell", "KERNEL=/nowhere", "SERIES=none")
    assert done.returncode == 128
    assert "/nowhere" in done.stderr


def find_guests(store: Path) -> list[int]:
    return find_processes(str(store / "results"))


def run_script(store: Path, script: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*WORDS, *words],
        cwd=ROOT,
        env=os.environ | {"COWBELL_STORE": str(store)},
        input=script,
        capture_output=True,
        text=True,
        timeout=4000,
        check=False,
    )


@pytest.mark.kernel
@pytest.mark.parametrize("boot", ["qemu", "vng"])
def test_commands_from_a_file(kernel_store_root: Path, setup_kconfig: tuple[str, ...], boot: str) -> None:
    script = "nproc\nodirect.rd-control\necho said >&2\ncat /proc/cmdline\nexit 7\n"
    words = (f"BOOT={boot}", f"CONFIG={','.join(setup_kconfig)}")
    done = run_script(kernel_store_root, script, *words)
    assert done.returncode == 7, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "2"
    assert "ok 1 odirect.rd-control" in lines
    assert ("virtme.exec" in lines[-1]) == (boot == "vng")
    assert "said" in done.stderr.splitlines()
    assert not find_guests(kernel_store_root)


@pytest.mark.kernel
def test_guest_that_dies_is_told(kernel_store_root: Path) -> None:
    for setting in ("-1", "0"):
        # with 0 the kernel stays where it panicked
        script = f"echo {setting} > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger; sleep 1000\n"
        done = run_script(kernel_store_root, script)
        assert done.returncode == 126
        assert "sysrq triggered crash" in done.stderr
    complained = "echo 'WARNING: CPU: 0 PID: 1 at mm/memory.c:1 do_wp_page+0x1/0x2' > /dev/kmsg\n"
    done = run_script(kernel_store_root, complained)
    assert done.returncode == 0
    assert "the kernel complained: WARNING" in done.stderr


@contextmanager
def open_terminal(store: Path) -> Iterator[tuple[int, int]]:
    """Cowbell's pid, and our end of the terminal that it has."""
    pid, end = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execvpe(WORDS[0], WORDS, os.environ | {"COWBELL_STORE": str(store), "TERM": "xterm"})
    try:
        yield pid, end
    finally:
        os.close(end)


def read_until(end: int, word: str, limit_s: float = 600) -> str:
    """What the terminal shows up to a word; all of it when the word is empty."""
    shown, until = b"", time.monotonic() + limit_s
    while not word or word.encode() not in shown:
        assert time.monotonic() < until, shown
        if select.select([end], [], [], 1)[0]:
            try:
                shown += os.read(end, 1 << 16)
            except OSError:
                # the other end is closed
                assert not word, shown
                break
    return shown.decode(errors="replace")


@pytest.mark.kernel
def test_terminal(kernel_store_root: Path) -> None:
    with open_terminal(kernel_store_root) as (pid, end):
        greeting = read_until(end, "guest:")
        assert "demo/plain: 5.10." in greeting
        assert "fork.basic-cow" in greeting
        os.write(end, b"odirect.rd-control; echo $((40 + 2)) done\r")
        assert "ok 1 odirect.rd-control" in read_until(end, "42 done")
        # Ctrl-C is the guest's, not ours; who says so is who gets it: a shell that is just forking loses it
        os.write(end, b"sh -c 'echo $((1 + 1)) begun; exec sleep 1000'\r")
        read_until(end, "2 begun")
        os.write(end, b"\x03")
        read_until(end, "# ")
        os.write(end, b"true\r")
        read_until(end, "# ")
        assert find_guests(kernel_store_root)
        os.write(end, b"\x04")
        read_until(end, "")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not find_guests(kernel_store_root)


@pytest.mark.kernel
def test_terminal_that_is_closed_ends_the_guest(kernel_store_root: Path) -> None:
    with open_terminal(kernel_store_root) as (pid, end):
        read_until(end, "guest:")
        guests = find_guests(kernel_store_root)
        assert guests
    wait_for(lambda: not find_guests(kernel_store_root))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) != 0
