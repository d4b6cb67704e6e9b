# SPDX-License-Identifier: GPL-2.0-or-later
"""Tasks share the host: cores, memory, make's jobserver; and what happens when one of them fails or dies."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import CowbellError, InfraError, StageFailure, UsageError
from orchestrator.process import workers
from orchestrator.process.budget import Budget
from orchestrator.process.jobserver import Jobserver, read_options
from orchestrator.process.progress import Board
from orchestrator.process.workers import Limits, Stopped, Task, work
from tests.conftest import ROOT, QuietProgress, is_running

Call = Callable[[Board, Budget], object]


def task(name: str, call: Call, group: str = "") -> Task[object]:
    return Task(name, group or name, call)


def cores(count: int) -> Limits:
    return Limits(Jobserver.make(count))


class Spans:
    """When each of several processes was inside something."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def stay(self, name: str, seconds: float = 0.2) -> None:
        began = time.monotonic()
        time.sleep(seconds)
        (self.folder / name).write_text(f"{began} {time.monotonic()}")

    def overlap(self, one: str, other: str) -> bool:
        (a, b), (c, d) = (
            [float(t) for t in (self.folder / name).read_text().split()] for name in (one, other)
        )
        return a < d and c < b


@pytest.fixture
def spans(tmp_path: Path) -> Spans:
    folder = tmp_path / "spans"
    folder.mkdir()
    return Spans(folder)


def test_results_come_in_the_order_of_the_tasks(progress: QuietProgress) -> None:
    def call(number: int) -> Callable[[Board, Budget], tuple[int, int]]:
        def do(board: Board, budget: Budget) -> tuple[int, int]:
            board.stage("build", f"number {number}")
            time.sleep(0.2 if number == 0 else 0)
            return number, os.getpid()

        return do

    found = work([Task(str(n), str(n), call(n)) for n in range(3)], cores(4), progress)
    assert [pair and pair[0] for pair in found] == [0, 1, 2]
    assert len({pair and pair[1] for pair in found} | {os.getpid()}) == 4
    assert sorted(progress.stages) == [("build", f"number {n}") for n in range(3)]


def test_without_cores_one_at_a_time(progress: QuietProgress, spans: Spans) -> None:
    def call(name: str) -> Call:
        return lambda board, budget: spans.stay(name)

    work([task(name, call(name)) for name in "ab"], Limits(), progress)
    assert not spans.overlap("a", "b")


def test_with_cores_tasks_of_different_groups_run_together(progress: QuietProgress) -> None:
    both = multiprocessing.get_context("fork").Barrier(2)

    def call(board: Board, budget: Budget) -> object:
        with budget.build():
            both.wait(10)
        return True

    assert work([task("a", call), task("b", call)], cores(2), progress) == [True, True]


def test_one_of_a_group_prepares_and_the_next_comes_when_it_runs_guests(
    progress: QuietProgress, spans: Spans
) -> None:
    def call(name: str) -> Call:
        def do(board: Board, budget: Budget) -> object:
            spans.stay(f"{name}-prepares")
            with budget.guest(1, 64):
                spans.stay(f"{name}-runs", 0.6)
            return None

        return do

    work([task(name, call(name), "tree") for name in "ab"], cores(2), progress)
    assert not spans.overlap("a-prepares", "b-prepares")
    assert spans.overlap("a-runs", "b-prepares")


def test_guests_wait_for_cores_and_memory(
    progress: QuietProgress, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_read_available_mib", lambda: 3000)

    def call(name: str, cpus: int, memory_mib: int) -> Call:
        def do(board: Board, budget: Budget) -> object:
            with budget.guest(cpus, memory_mib):
                spans.stay(name, 0.4)
            return None

        return do

    asked = {"a": (2, 64), "b": (2, 64)}
    work([task(name, call(name, *size)) for name, size in asked.items()], cores(2), progress)
    assert not spans.overlap("a", "b")
    # more CPUs than there are cores, and more memory than there is: alone, but it runs
    asked = {"c": (9, 2000), "d": (1, 2000), "e": (1, 9000)}
    work([task(name, call(name, *size)) for name, size in asked.items()], cores(4), progress)
    assert not any(spans.overlap(*pair) for pair in ("cd", "ce", "de"))
    asked = {"f": (1, 64), "g": (1, 64)}
    work([task(name, call(name, *size)) for name, size in asked.items()], cores(2), progress)
    assert spans.overlap("f", "g")


@pytest.mark.parametrize(
    "error",
    [
        UsageError("wrong", where="here", hint="do it so"),
        InfraError("no disk", where="there", log=Path("x.log")),
        StageFailure("boot", "it hangs", where="there"),
    ],
)
def test_errors_come_through_whole(error: CowbellError, progress: QuietProgress) -> None:
    def fail(board: Board, budget: Budget) -> object:
        raise error

    with pytest.raises(Stopped) as stopped:
        work([task("a", fail)], Limits(), progress)
    (found,) = stopped.value.errors
    assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("is_keeping_going", [False, True])
def test_after_an_error(progress: QuietProgress, is_keeping_going: bool) -> None:
    """What runs is finished; what has not been started is only started when asked to keep going."""

    def fail(board: Board, budget: Budget) -> object:
        raise InfraError("no disk")

    def wait(board: Board, budget: Budget) -> object:
        time.sleep(0.5)
        return "done"

    tasks = [task("a", fail), task("b", wait), task("c", wait, "b")]
    with pytest.raises(Stopped) as stopped:
        work(tasks, Limits(Jobserver.make(2), is_keeping_going=is_keeping_going), progress)
    assert stopped.value.results == [None, "done", "done" if is_keeping_going else None]
    assert [str(error) for error in stopped.value.errors] == ["a: no disk"]


def test_a_worker_that_is_killed_gives_back_what_it_had(progress: QuietProgress) -> None:
    def die(board: Board, budget: Budget) -> object:
        with budget.guest(2, 64):
            os.kill(os.getpid(), signal.SIGKILL)
        return None

    def run(board: Board, budget: Budget) -> object:
        with budget.guest(2, 64):
            return "ran"

    with pytest.raises(Stopped) as stopped:
        work([task("a", die), task("b", run)], Limits(Jobserver.make(2), is_keeping_going=True), progress)
    assert stopped.value.results == [None, "ran"]
    assert "status -9" in str(stopped.value.errors[0])


DRIVER = """
import sys, time
from orchestrator.process import command
from orchestrator.process.jobserver import Jobserver
from orchestrator.process.workers import Limits, Task, work
from tests.conftest import QuietProgress

def run(board, budget):
    line = f"{sys.argv[2]}; echo $$ > {sys.argv[1]}; exec sleep 1000"
    with command.start(["sh", "-c", line]) as process:
        process.wait()

work([Task("a", "a", run)], Limits(Jobserver.make(2)), QuietProgress())
"""


@pytest.mark.parametrize(
    ("number", "trap"), [(signal.SIGKILL, "true"), (signal.SIGINT, "true"), (signal.SIGINT, "trap '' TERM")]
)
def test_nothing_is_left_when_we_die(tmp_path: Path, number: int, trap: str) -> None:
    """When interrupted, also not a program that ignores being asked to end."""
    told = tmp_path / "pid"
    argv = [sys.executable, "-c", DRIVER, str(told), trap]
    us = subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and not (told.exists() and told.read_text().strip()):
        time.sleep(0.05)
    pid = int(told.read_text())
    us.send_signal(number)
    us.wait(20)
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)


def test_cores_are_taken_all_or_none() -> None:
    server = Jobserver.make(3)
    assert not server.try_take(4)
    assert server.try_take(2)
    assert not server.try_take(2)
    assert server.try_take(1)
    server.give(2)
    assert server.try_take(2)
    server.close()


MAKEFILE = """
all: 1 2 3 4
1 2 3 4:
\t@echo $$(date +%s.%N) begin; sleep 0.3; echo $$(date +%s.%N) end
"""


def test_make_takes_its_further_cores_from_us(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text(MAKEFILE)

    def count_most(taken: int) -> int:
        server = Jobserver.make(3)
        # one for make itself, and some that others have
        assert server.try_take(1 + taken)
        share = server.share()
        done = subprocess.run(
            ["make", *share.words], cwd=tmp_path, env=os.environ | share.env, pass_fds=share.fds,
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert "warning" not in done.stderr
        server.close()
        running = most = 0
        for line in sorted(done.stdout.splitlines()):
            running += 1 if line.endswith("begin") else -1
            most = max(most, running)
        return most

    assert count_most(0) == 3
    assert count_most(2) == 1


INHERITS = """
import os, sys
from orchestrator.process.jobserver import Jobserver
server = Jobserver.inherit(os.environ)
print(server and [server.cores, server.try_take(2), server.try_take(1)])
if server:
    server.close()
"""


@pytest.mark.parametrize(("plus", "told"), [("+", "[2, True, False]"), ("", "None")])
def test_the_cores_of_the_make_that_calls_us(tmp_path: Path, plus: str, told: str) -> None:
    """It gives them to recipes with a plus only, and one of its two is used by this one."""
    script = tmp_path / "inherits.py"
    script.write_text(INHERITS)
    (tmp_path / "Makefile").write_text(f"all:\n\t@{plus}PYTHONPATH={ROOT} {sys.executable} {script}\n")
    done = subprocess.run(["make", "-j2"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == told


def test_the_options_of_the_make_that_calls_us() -> None:
    assert read_options({"MAKEFLAGS": "kn -j4 --jobserver-auth=3,4", "MAKELEVEL": "1"}) == ["-n", "-k"]
    assert read_options({"MAKEFLAGS": " -j4 --jobserver-auth=3,4", "MAKELEVEL": "1"}) == []
    assert read_options({"MAKEFLAGS": "--no-print-directory", "MAKELEVEL": "1"}) == []
    assert read_options({"MAKEFLAGS": "ROW=demo", "MAKELEVEL": "1"}) == []
    # a shell, not make
    assert read_options({"MAKEFLAGS": "n"}) == []
