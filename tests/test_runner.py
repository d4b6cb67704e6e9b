# SPDX-License-Identifier: GPL-2.0-or-later
"""Which tests share a guest, and what is saved when; guests and their tests are pretended."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.guest.snapshot import Snapshot
from orchestrator.project.guesttest import GuestTest, load_tests
from orchestrator.result.record import TrialResult
from orchestrator.result.stored import find_results
from orchestrator.run import runner
from orchestrator.run.compile import Program
from orchestrator.run.runner import may_share_guest, run_tests
from tests.conftest import QuietProgress
from tests.guestprograms import GUEST_TESTS, LIB, render_test
from tests.samples import DETERMINISTIC, GOOD

BUILT_IN = replace(DETERMINISTIC, is_built_in=True)


@dataclass
class Guests:
    """Pretended guests: which trials each of them ran."""

    folder: Path
    progress: QuietProgress
    ran: list[list[str]] = field(default_factory=list)
    results: dict[str, TrialResult] = field(default_factory=dict)

    @contextlib.contextmanager
    def boot(self, machine: object, folder: Path, *_: object) -> Iterator[SimpleNamespace]:
        self.ran.append([])
        console = folder / "console.log"
        console.write_text("")
        yield SimpleNamespace(ready_at=0, trouble="", console=console, machine=machine)

    def run_test(self, guest: SimpleNamespace, program: Program, begin: int) -> tuple[TrialResult, int]:
        self.ran[-1].append(f"{program.test.id} {program.trial}")
        said = self.results.get(program.test.id, GOOD)
        return replace(said, test=program.test.id, content_id="0" * 16, trial=program.trial), 0

    def end(self, guest: SimpleNamespace) -> None:
        guest.console.write_text("a splat of the shutdown")

    def run(self, *tests: GuestTest, trials: int = 1) -> list[TrialResult]:
        programs = [Program(test, "0" * 16, test.path) for test in tests]
        request = SimpleNamespace(source=SimpleNamespace(version="5.10"), has_debug_info=False)
        machine = SimpleNamespace(kernel=SimpleNamespace(request=request), accel="tcg", boot="qemu")

        def is_wanted_again(result: TrialResult) -> bool:
            return result.trial < trials

        return list(
            run_tests(machine, programs, LIB, self.folder, self.progress, is_wanted_again)  # type: ignore[arg-type]
        )


@pytest.fixture
def guests(tmp_path: Path, progress: QuietProgress, monkeypatch: pytest.MonkeyPatch) -> Guests:
    guests = Guests(tmp_path / "results", progress)
    monkeypatch.setattr(runner, "boot_guest", guests.boot)
    monkeypatch.setattr(runner, "boot_with_tests", guests.boot)
    monkeypatch.setattr(runner, "compile_imports", lambda *_: None)
    monkeypatch.setattr(runner, "save_snapshot", lambda *_: Snapshot(tmp_path, None, ""))  # type: ignore[arg-type]
    monkeypatch.setattr(runner, "run_test", guests.run_test)
    monkeypatch.setattr(runner, "end_guest", guests.end)
    # pretended guests have no kernel with symbols
    monkeypatch.setattr(runner, "find_source_lines", lambda *_: {})
    return guests


def name_tests(*names: str, like: GuestTest = BUILT_IN) -> Sequence[GuestTest]:
    return [replace(like, id=name) for name in names]


def test_built_in_tests_share_a_guest(guests: Guests) -> None:
    guests.run(*name_tests("a.a", "a.b"), trials=2)
    assert guests.ran == [["a.a 1", "a.a 2", "a.b 1", "a.b 2"]]


def test_no_other_test_runs_in_the_guest_of_a_test_that_is_not_built_in(guests: Guests) -> None:
    """It may have replaced python3, or the next program; its own trials it can forge anyway."""
    own = name_tests("own.a", "own.b", like=DETERMINISTIC)
    guests.run(*name_tests("a.a"), *own, *name_tests("z.a", "z.b"), trials=2)
    assert guests.ran == [
        ["a.a 1", "a.a 2", "own.a 1", "own.a 2"],
        ["own.b 1", "own.b 2"],
        ["z.a 1", "z.a 2", "z.b 1", "z.b 2"],
    ]


def test_a_test_that_may_crash_has_guests_of_its_own(guests: Guests) -> None:
    crash = replace(BUILT_IN, id="a.b", may_crash=True)
    guests.run(*name_tests("a.a"), crash, *name_tests("a.c"), trials=2)
    assert guests.ran == [["a.a 1", "a.a 2"], ["a.b 1"], ["a.b 2"], ["a.c 1", "a.c 2"]]
    assert not may_share_guest(crash, crash)


def test_only_cowbell_s_own_tests_are_built_in(tmp_path: Path) -> None:
    for name in ("odirect/mine.c", "odirect/rd-control.c"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(render_test('gt_pass("");', timeout_s=1))
    (tmp_path / "lib").mkdir()
    assert not any(test.is_built_in for test in load_tests(tmp_path, LIB))
    assert not any(test.is_built_in for test in load_tests(tmp_path))
    assert all(test.is_built_in for test in load_tests(GUEST_TESTS, LIB))


def test_an_unusable_guest_is_replaced_and_the_test_is_named(guests: Guests) -> None:
    guests.results["a.a"] = replace(GOOD, unusable="sh: python3: not found")
    guests.run(*name_tests("a.a", "a.b"))
    assert guests.ran == [["a.a 1"], ["a.b 1"]]
    assert guests.progress.notes == ["a.a left its guest unusable: sh: python3: not found; it is replaced"]


def test_the_last_result_is_saved_before_its_guest_is_shut_down(
    guests: Guests, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill in between must not lose it."""

    def kill(guest: object) -> None:
        raise KeyboardInterrupt

    (test,) = name_tests(GOOD.test)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(runner, "end_guest", kill)
        guests.run(test)
    (saved,) = find_results(guests.folder, test, "0" * 16, ())
    assert saved.console == GOOD.console
    # the messages of the shutdown are the last test's
    (result,) = guests.run(test)
    assert result.console == GOOD.console + "a splat of the shutdown"
    assert find_results(guests.folder, test, "0" * 16, ()) == [result]
