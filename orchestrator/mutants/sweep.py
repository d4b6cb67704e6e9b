# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs tests on mutants: first which test reaches which mutant, then each mutant's tests until one notices.

Each mutant gets a fresh guest from a snapshot. A first pass is believed, and a crash that is no stall;
anything else must happen again in another guest. Everything is kept as it comes: an outcome holds for a
program of a test, so a changed or new test runs on the mutants that are still alive, and no other.
"""

import contextlib
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from orchestrator.errors import InfraError, StageFailure
from orchestrator.guest.boot import boot_guest
from orchestrator.guest.connection import Guest
from orchestrator.guest.qemu import Machine
from orchestrator.guest.snapshot import Snapshot, save_snapshot
from orchestrator.mutants.operators import Site
from orchestrator.parse.splat import SplatKind
from orchestrator.process.progress import Progress
from orchestrator.result.finding import Finding
from orchestrator.result.judge import judge_result
from orchestrator.result.record import TrialResult
from orchestrator.run.compile import Program
from orchestrator.run.runner import boot_with_tests, compile_imports, make_boot_dir, may_share_guest, run_test
from orchestrator.status import Status

_SWITCH = "/sys/module/mutant/parameters/number"
_REACHED = "/sys/module/mutant/parameters/reached"
_RECORD = -1
# MUTANT_MARK of mutant.h
_TEST_MARK = 7
_MARK = "cowbell-reached:"
# a test under a mutant may take so many times as long as without one, and so many native seconds besides
_SLOWER = 5
_MORE_S = 4.0
# a race that takes longer, in native seconds, would take most of the time of all mutants
_LONGEST_S = 6.0
# of splats that no busy host causes
_CERTAIN = frozenset(kind.value for kind in SplatKind if not kind.may_be_host)
_KILLS = (Status.FAIL, Status.CRASH)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one test on one mutant: the status of its worst subtest, and the reason.

    ``is_certain``: the kernel printed a splat that no busy host causes.
    """

    test: str
    program_id: str
    status: Status
    reason: str
    is_certain: bool = False

    @property
    def is_kill(self) -> bool:
        return self.status in _KILLS

    @property
    def _kind(self) -> str:
        return "kill" if self.is_kill else "pass" if self.status is Status.PASS else "other"


def decide(runs: Sequence[Outcome]) -> Outcome | None:
    """What the runs of a test on a mutant come to; None if it has to run again.

    A first pass is believed, and a crash that is no stall. Anything else, which the host may have caused,
    must happen twice.
    """
    for run in runs[:1]:
        if run.status is Status.PASS or run.is_certain:
            return run
    return next((one for i, one in enumerate(runs) if one._kind in [r._kind for r in runs[:i]]), None)


@dataclass(frozen=True, slots=True)
class Reach:
    """A run of a test without a mistake: which mutants it reaches, and the subtests that passed.

    ``duration_s`` is without the time for which the host gave the guest no CPU.
    """

    test: str
    program_id: str
    duration_s: float
    passed: tuple[str, ...]
    reached: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Run:
    mutant: str
    outcome: Outcome


_REACH = TypeAdapter(Reach)
_RUN = TypeAdapter(_Run)
T = TypeVar("T")


@dataclass(slots=True)
class Sweep:
    """The state of all mutants of one image in one guest shape.

    ``folder`` is that of the kernel without mutants, so that outcomes outlive a change of other mutants. Any
    number of processes may add to its files.
    """

    machine: Machine
    programs: Sequence[Program]
    lib_dir: Path
    folder: Path
    progress: Progress
    # for the guests of this process
    place: Path = Path()
    reach: dict[str, Reach] = field(default_factory=dict)
    # by mutant and program
    runs: dict[str, dict[str, list[Outcome]]] = field(default_factory=dict)
    _saved: Snapshot | None = None
    _is_saved: bool = False

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.load()

    @property
    def _reach_file(self) -> Path:
        return self.folder / f"reach-{self.machine.kernel.request.build_id}.jsonl"

    @property
    def _runs_file(self) -> Path:
        return self.folder / "runs.jsonl"

    def load(self) -> None:
        """Read what all processes have kept."""
        self.reach = {reach.test: reach for reach in _read_lines(self._reach_file, _REACH)}
        self.runs = {}
        for run in _read_lines(self._runs_file, _RUN):
            self._add(run)

    def _add(self, run: _Run) -> None:
        self.runs.setdefault(run.mutant, {}).setdefault(run.outcome.program_id, []).append(run.outcome)

    def find_reach(self) -> None:
        """Run each test without a mistake, recording the mutants that it reaches."""
        pending = [p for p in self.programs if self._find_reach(p) is None]
        if pending:
            self.progress.stage("reach", f"{len(pending)} test(s)")
        while pending:
            with self._open_guest() as guest:
                at = guest.ready_at
                while pending:
                    program = pending.pop(0)
                    self.progress.detail(f"{program.test.id}: which mutants it reaches")
                    result, at = run_test(guest, program, at, _wrap(_RECORD))
                    stdout, _, bitmap = result.stdout.rpartition(_MARK)
                    found = _judge(program, replace(result, stdout=stdout))
                    self.reach[program.test.id] = Reach(
                        program.test.id,
                        program.program_id,
                        max(0.0, result.duration_s - result.waited_s),
                        tuple(one.name for one in found if one.status is Status.PASS),
                        tuple(_read_bitmap(bitmap)),
                    )
                    _add_line(self._reach_file, _REACH.dump_json(self.reach[program.test.id]))
                    if not result.is_guest_usable:
                        break
                    if pending and not may_share_guest(program.test, pending[0].test):
                        break

        for name, reach in self.reach.items():
            if reach.passed and not self._is_used(reach):
                self.progress.note(f"{name} takes {reach.duration_s:.0f} s, and is not run on mutants")
        if self.programs and not any(self.reach[program.test.id].passed for program in self.programs):
            raise StageFailure("run", "no test passes without a mistake", where=str(self._reach_file))

    def _find_reach(self, program: Program) -> Reach | None:
        found = self.reach.get(program.test.id)
        return found if found and found.program_id == program.program_id else None

    def _is_used(self, reach: Reach) -> bool:
        return bool(reach.passed) and reach.duration_s <= _LONGEST_S * self.machine.time_scale

    def list_tests(self, site: Site) -> list[Program]:
        """The tests that reach a mutant; first those that killed others of its function, then of its file."""
        able = [
            program
            for program in self.programs
            if (reach := self._find_reach(program)) and self._is_used(reach) and site.number in reach.reached
        ]
        in_function, in_file = (self._count_kills(f"{start}:") for start in (site.function_name, site.file))
        return sorted(
            able,
            key=lambda p: (
                -in_function[p.program_id],
                -in_file[p.program_id],
                self.reach[p.test.id].duration_s,
            ),
        )

    def _count_kills(self, start: str) -> Counter[str]:
        """How many mutants, whose name has this start, each program killed."""
        return Counter(
            program
            for mutant, by_program in self.runs.items()
            if mutant.startswith(start)
            for program, runs in by_program.items()
            if (outcome := decide(runs)) and outcome.is_kill
        )

    def list_outcomes(self, site: Site) -> list[Outcome]:
        """The outcomes of a mutant that hold for the tests as they are."""
        runs = self.runs.get(site.identity, {})
        current = {program.program_id for program in self.programs}
        decided = (decide(each) for program_id, each in runs.items() if program_id in current)
        return [outcome for outcome in decided if outcome]

    def list_missing(self, site: Site) -> list[Program]:
        """The tests that have yet to run on a mutant; none once one has killed it."""
        if any(outcome.is_kill for outcome in self.list_outcomes(site)):
            return []
        runs = self.runs.get(site.identity, {})
        missing = [
            program for program in self.list_tests(site) if not decide(runs.get(program.program_id, []))
        ]
        # what is in doubt is decided first
        return sorted(missing, key=lambda program: program.program_id not in runs)

    def try_mutant(self, site: Site) -> None:
        """Run the missing tests of a mutant, until one kills it."""
        while self.list_missing(site):
            with self._open_guest() as guest:
                self._try_in_guest(site, guest)

    def _try_in_guest(self, site: Site, guest: Guest) -> None:
        """Run tests until one does not pass, or the next one needs another guest."""
        at = guest.ready_at
        missing = self.list_missing(site)
        for number, program in enumerate(missing):
            if number and not may_share_guest(missing[number - 1].test, program.test):
                return
            known = self.reach[program.test.id]
            limit_s = known.duration_s / self.machine.time_scale * _SLOWER + _MORE_S
            result, at = run_test(guest, program, at, _wrap(site.number), limit_s)
            outcome = self._judge(program, result)
            run = _Run(site.identity, outcome)
            self._add(run)
            _add_line(self._runs_file, _RUN.dump_json(run))
            if outcome.status is not Status.PASS or not result.is_guest_usable:
                return

    def _judge(self, program: Program, result: TrialResult) -> Outcome:
        """The worst of the subtests that pass without the mistake."""
        passed = self.reach[program.test.id].passed
        worst = Outcome(program.test.id, program.program_id, Status.PASS, "")
        for finding in _judge(program, result):
            counts = finding.name in passed or finding.status is Status.CRASH
            if counts and _RANK.index(finding.status) < _RANK.index(worst.status):
                kind = finding.fingerprint.partition(":")[0]
                is_certain = finding.status is Status.CRASH and kind in _CERTAIN
                worst = Outcome(
                    program.test.id, program.program_id, finding.status, finding.reason, is_certain
                )
        return worst

    def _save_guest(self) -> Snapshot | None:
        self.progress.stage("boot", f"{self.machine.kernel.request.source.version} on {self.machine.accel}")
        boot_dir = make_boot_dir(self.place)
        try:
            with boot_with_tests(self.machine, boot_dir, self.programs, self.lib_dir) as guest:
                compile_imports(guest, self.programs)
                return save_snapshot(guest, self.place / "saved")
        finally:
            shutil.rmtree(boot_dir, ignore_errors=True)

    @contextlib.contextmanager
    def _open_guest(self) -> Iterator[Guest]:
        with contextlib.ExitStack() as stack:
            try:
                guest = stack.enter_context(self._boot())
            except (StageFailure, InfraError) as error:
                # no mutant is on yet: it is the host's doing
                self.progress.note(f"started once more: {error}")
                guest = stack.enter_context(self._boot())
            yield guest

    @contextlib.contextmanager
    def _boot(self) -> Iterator[Guest]:
        if not self._is_saved:
            self._saved, self._is_saved = self._save_guest(), True
        boot_dir = make_boot_dir(self.place)
        try:
            # a guest that could not be saved is booted each time
            starting = (
                boot_guest(self.machine, boot_dir, self._saved)
                if self._saved
                else boot_with_tests(self.machine, boot_dir, self.programs, self.lib_dir)
            )
            with starting as guest:
                yield guest
        finally:
            shutil.rmtree(boot_dir, ignore_errors=True)


_RANK = (
    Status.CRASH, Status.FAIL, Status.TIMEOUT, Status.BROKEN, Status.SKIP, Status.PASS,
)  # fmt: skip


def _read_lines(path: Path, adapter: TypeAdapter[T]) -> Iterator[T]:
    """The entries of a file; a line that a killed process did not finish is left out."""
    for line in path.read_bytes().splitlines() if path.exists() else ():
        with contextlib.suppress(ValidationError):
            yield adapter.validate_json(line)


def _add_line(path: Path, line: bytes) -> None:
    """Add an entry on a line of its own, also after one that was cut."""
    with path.open("ab") as file:
        file.write(b"\n" + line)


def _wrap(number: int) -> Callable[[str], str]:
    """The start of a program with a mutant switched on for as long as it runs."""

    def wrap(start: str) -> str:
        show = f"; printf '\\n%s' {_MARK}; cat {_REACHED}" if number == _RECORD else ""
        on, off = f"echo > {_REACHED}; echo {number} > {_SWITCH}", f"echo 0 > {_SWITCH}"
        mark = f"echo {_TEST_MARK} > /proc/self/oom_score_adj"
        return f"{{ {on}; ({mark}; {start}); status=$?; {off}{show}; exit $status; }}"

    return wrap


def _read_bitmap(text: str) -> Iterator[int]:
    """The numbers of the set bits of a kernel bitmap: words of 32 bits in hex, the highest first."""
    if re.fullmatch(r"\s*[0-9a-f,]+\s*", text):
        number = int(text.strip().replace(",", ""), 16)
        yield from (bit for bit in range(number.bit_length()) if number >> bit & 1)


def _judge(program: Program, result: TrialResult) -> list[Finding]:
    return list(judge_result(result, program.test.subtests, ()))
