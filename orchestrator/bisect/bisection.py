# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a bisection: tests commits of a line until one commit is found that changed the result.

The two ends are tested first, then the commits that ``git bisect`` selects, then the found commit and its
parent again, and the new end without the found commit. Every step is saved when it is done, and results and
kernels are in the store, so the same command resumes an interrupted bisection.
"""

import dataclasses
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.bisect import gitbisect
from orchestrator.bisect.answer import Answer, FailureMode, describe, find_answer, find_failure_modes
from orchestrator.bisect.gitbisect import Find
from orchestrator.bisect.line import Line
from orchestrator.bisect.outcome import BisectResult, BisectStep, Role, load_steps, render_mail, render_text
from orchestrator.errors import StageFailure, UsageError
from orchestrator.kernel.guestmodules import PROGRAMS
from orchestrator.pipeline import build_jobs, run_jobs
from orchestrator.plan.plan import Job
from orchestrator.plan.steps import make_goal
from orchestrator.plan.workspace import Workspace
from orchestrator.project.guesttest import GuestTest
from orchestrator.report.bundle import make_bundles
from orchestrator.result import statistics
from orchestrator.result.record import JobRecord, TargetRate, load_run
from orchestrator.result.repeat import AUTO, Repeat
from orchestrator.result.verdict import Verdict, judge_job
from orchestrator.source.debian import UnavailableError
from orchestrator.status import Status
from orchestrator.store.store import make_id, make_tree_id, write_atomic, write_json

# measure a rate until the race was hit this often; its lower bound is then a third of the rate
_ENOUGH_HITS = 5
_MOST_BAD_TRIALS = 10
_MORE_TRIALS = (4, 16)


@dataclass(frozen=True, slots=True)
class BisectRequest:
    """What to bisect: a test or one of its subtests (``name``), along a line of commits.

    Without ``find``, the ends decide whether to find a break or a fix. ``confidence`` is from 0 to 1. With a
    ``fingerprint`` or glob, another crash is no failure.
    """

    name: str
    test: GuestTest
    line: Line
    find: Find | None
    paths: tuple[str, ...]
    confidence: float
    fingerprint: str = ""


def make_bisection_id(request: BisectRequest, job: Job) -> str:
    """The id of a bisection: a hash of all inputs that affect the results of its steps."""
    line = request.line
    wanted = (request.name, request.find or "", request.paths, request.test.content_id, request.fingerprint)
    row = (job.row.name, job.row.arch, job.row.kconfig, repr(job.row.guest), job.boot)
    patches = make_tree_id({str(i): patch.path for i, patch in enumerate(job.series.patches)})
    # the versions in between on the mirror may change during the bisection
    ends = line.names if line.kind == "version" else (line.old, line.new)
    return make_id(line.kind, *ends, wanted, row, patches)


class Bisection:
    """One bisection; see ``run``. Raises ``UsageError`` if no commit in between touches the paths."""

    def __init__(
        self,
        request: BisectRequest,
        job: Job,
        place: Workspace,
        accel: str,
        command: str,
        *,
        redo: bool = False,
    ) -> None:
        self._request, self._line = request, request.line
        if not self._line.count(request.paths):
            raise UsageError("no commit between GOOD and BAD touches these paths", where="PATHS")
        self._place, self._accel, self._command = place, accel, command
        self.folder = place.store.path("bisects", make_bisection_id(request, job))
        self._steps: list[BisectStep] = []
        # with redo: the jobs that were run again; each is run again once
        self._redone: set[str] | None = set() if redo else None
        known = [] if redo else load_steps(self.folder)
        # a failure without a commit (Role.WITHOUT) says nothing about the commit
        self._failed = {step.commit: step for step in known if step.stage and step.role is Role.STEP}
        self._failing: Mapping[str, FailureMode] = {}
        self._target_rates: Mapping[str, TargetRate] = {}
        # seconds spent on each end before its step is recorded
        self._spent: dict[str, float] = {}

    def run(self) -> BisectResult:
        """Find the change. Raises ``UsageError`` if the ends are equal, ``InfraError`` on host errors."""
        with self._place.store.lock(f"bisect-{self.folder.name}"):
            find = self._test_ends()
            state = self._walk(find)
            doubts = list(self._confirm(state.suspects, find))
            outcome = BisectResult(
                self._request.name,
                self._line.kind,
                find,
                self._line.names,
                state.suspects,
                self._request.confidence,
                {name: str(how) for name, how in self._failing.items()},
                self._target_rates,
                tuple(self._steps),
                tuple(doubts),
                gitbisect.read_log(self._git_dir),
                str(self._git_dir),
                *self._find_difference(state.suspects),
            )
            for step in self._steps:
                if step.role is Role.AGAIN and step.answer is Answer.BAD:
                    run = load_run(self._place.store.path("runs", step.run_id) / "record.json")
                    make_bundles(run, self._place.store, self.folder / "evidence")
            write_atomic(self.folder / "report.txt", render_text(outcome))
            found = [step for step in self._steps if step.commit in state.suspects and step.run_id]
            runs = self._place.store.path("runs")
            mail = render_mail(outcome, load_run(runs / found[-1].run_id / "record.json")) if found else ""
            if mail:
                write_atomic(self.folder / "mail.txt", mail)
        return outcome

    def describe(self) -> str:
        """What ``run`` would do; for a dry run."""
        number = self._line.count(self._request.paths)
        ends = " and ".join(self._line.names)
        steps = math.ceil(math.log2(number)) if number > 1 else 0
        kind = self._line.kind
        return f"test {ends}, then {kind} by {kind}: {number} candidates, about {steps} steps"

    @property
    def _is_race(self) -> bool:
        return self._request.test.kind == "race"

    @property
    def _git_dir(self) -> Path:
        return self.folder / "git"

    def _test_ends(self) -> Find:
        """Test both ends: which one fails and how, and for a race how often."""
        line = self._line
        commits = (line.old, line.new)
        self._place.progress.stage("bisect", "the ends")
        directions = [self._request.find] if self._request.find else list(Find)
        found: dict[Find, Mapping[str, FailureMode]] = {}
        # the race is known to exist, but may be rarer than the default rate: run more trials
        for repeat in (self._make_repeat(), *map(Repeat, _MORE_TRIALS if self._is_race else ())):
            verdicts = {commit: self._test_end(commit, repeat) for commit in commits}
            for find in directions:
                good, bad = (commits[find.ends.index(answer)] for answer in (Answer.GOOD, Answer.BAD))
                if failing := find_failure_modes(verdicts[good], verdicts[bad], self._request.fingerprint):
                    found[find] = failing
            if found or not all(v.raw is Status.PASS for each in verdicts.values() for v in each):
                break
        if len(found) != 1:
            raise UsageError(
                "some subtests break and others are fixed between the ends"
                if found
                else f"{self._request.name} does not pass at one end and fail at the other",
                where=f"{line.names[0]} .. {line.names[1]}",
                hint="select one subtest: TESTS=TEST[PARAMETER]; or set FIND=break or FIND=fix"
                if found
                else "\n  ".join(
                    f"{name}: {describe(verdicts[commit])}"
                    for name, commit in zip(line.names, commits, strict=True)
                ),
            )
        ((find, self._failing),) = found.items()
        good, bad = (commits[find.ends.index(answer)] for answer in (Answer.GOOD, Answer.BAD))
        if self._is_race:
            self._target_rates = self._measure(bad)
        for commit in commits:
            ended = self._try(commit, Role.END, self._make_repeat())
            if ended.answer is not (Answer.GOOD if commit == good else Answer.BAD):
                raise UsageError(
                    f"cannot be used as an end: {ended.reason}", where=line.names[commits.index(commit)]
                )
            self._keep(ended)
        return find

    def _test_end(self, commit: str, repeat: Repeat) -> list[Verdict]:
        """The verdicts of an end. Raises ``UsageError`` if its job was left out."""
        began = time.monotonic()
        _, record = self._run(self._line.make_job(commit), repeat)
        self._spent[commit] = self._spent.get(commit, 0.0) + time.monotonic() - began
        if record.left_out:
            name = self._line.names[commit == self._line.new]
            raise UsageError(f"cannot be tested: {record.left_out}", where=name)
        return self._judge(record)

    def _measure(self, bad: str) -> dict[str, TargetRate]:
        """The lower bound of the failure rate at the bad end, which is the target rate of the steps."""
        verdicts: Sequence[Verdict] = ()
        for count in range(1, _MOST_BAD_TRIALS + 1):
            verdicts = [v for v in self._test_end(bad, Repeat(count)) if v.name in self._failing]
            if all(not v.rate or v.rate.hits >= _ENOUGH_HITS for v in verdicts):
                break
        number = self._line.count(self._request.paths)
        # half of the risk is that the rate is below its bound, half that a step misses the race
        half = (1 - self._request.confidence) / 2
        risk = half / (math.ceil(math.log2(number + 1)) + 2)
        return {
            v.name: TargetRate(statistics.find_lower_bound(v.rate, half), f"{v.rate} at the bad end", risk)
            for v in verdicts
            if v.rate and v.rate.hits
        }

    def _make_repeat(self) -> Repeat:
        return Repeat(AUTO, self._target_rates or self._place.repeat.target_rates)

    def _walk(self, find: Find) -> gitbisect.BisectState:
        line, began = self._line, time.monotonic()
        state = gitbisect.start(self._git_dir, line.git_dir, line.old, line.new, self._request.paths, find)
        number = 0
        while state.next:
            number += 1
            spent = time.monotonic() - began
            left = f", about {spent / (number - 1) * (state.steps + 1):.0f} s left" if number > 1 else ""
            what = f"{'' if line.is_symbolic else f'{state.next[:12]} '}{line.describe(state.next)}"
            self._place.progress.note(f"step {number}, about {state.steps} after it{left}: {what}")
            step = self._try(state.next, Role.STEP, self._make_repeat())
            self._keep(step)
            state = gitbisect.add_answer(self._git_dir, find, step.commit, step.answer)
        return state

    def _confirm(self, suspects: Sequence[str], find: Find) -> Iterator[str]:
        """Test the found commit, its parent, and the new end without it; yields contradicting evidence."""
        if len(suspects) != 1:
            return
        old, new = find.ends
        (found,) = suspects
        parent = gitbisect.find_parent(self._git_dir, found)
        for commit, wanted, what in ((found, new, "it"), (parent, old, "its parent")):
            step = self._try_again(commit)
            self._keep(step)
            if step.answer is not wanted:
                yield f"{what} was {step.answer} when tested again: {step.reason}"
        job = self._line.leave_out(found)
        if job:
            step = self._try(found, Role.WITHOUT, self._make_repeat(), job)
            self._keep(step)
            # later commits may depend on it, so a failure to revert it is no contradiction
            if step.answer is new:
                yield f"without it {self._line.names[1]} is {step.answer} as well: {step.reason}"

    def _find_difference(self, suspects: Sequence[str]) -> tuple[str, str]:
        """For versions: the one before the suspect, and the command that shows the changes between them."""
        if self._line.kind != "version" or len(suspects) != 1:
            return "", ""
        (found,) = suspects
        parent = gitbisect.find_parent(self._git_dir, found)
        return self._line.describe(parent), self._line.make_diff_command(parent, found)

    def _try_again(self, commit: str) -> BisectStep:
        """Repeat the trials that the answer took; the existing trials are counted too."""
        repeat, test = self._make_repeat(), self._request.test
        _, record = self._run(self._line.make_job(commit), repeat)
        took = 1
        while took < len(record.results) and repeat.wants_more(test, record.results[:took], record.known):
            took += 1
        return self._try(commit, Role.AGAIN, Repeat(2 * took))

    def _try(self, commit: str, role: Role, repeat: Repeat, job: Job | None = None) -> BisectStep:
        """Build, boot, run and answer; a failure before the test has run is a skip."""
        began = time.monotonic() - (self._spent.get(commit, 0.0) if role is Role.END else 0.0)
        step = BisectStep(commit, self._line.describe(commit), role, Answer.SKIP, "")
        if role is Role.STEP and (known := self._failed.get(commit)):
            return known
        job = job or self._line.make_job(commit)
        image_id, failure = self._build(job)
        if failure:
            took = time.monotonic() - began
            reason = f"{failure.stage}: {failure.what}"
            return replace(step, reason=reason, stage=failure.stage, duration_s=took)
        if role is Role.STEP and (twin := self._find_twin(image_id)):
            took = time.monotonic() - began
            return replace(
                twin, commit=commit, subject=step.subject, role=role, same_as=twin.commit, duration_s=took
            )
        run_id, record = self._run(job, repeat)
        step = replace(step, run_id=run_id, image_id=image_id, duration_s=time.monotonic() - began)
        if record.left_out:
            return replace(step, reason=record.left_out)
        verdicts = self._judge(record)
        answer, reason = find_answer(verdicts, self._failing, self._target_rates)
        rates = {v.name: str(v.rate) for v in verdicts if v.rate and v.name in self._failing}
        stage = record.failure.stage if record.failure and answer is Answer.SKIP else ""
        return replace(step, answer=answer, reason=reason, rates=rates, stage=stage)

    def _build(self, job: Job) -> tuple[str, StageFailure | None]:
        """The id of the image and its command line, or the failure; neither for a job that is left out."""
        failures: list[StageFailure] = []
        images: list[Path] = []
        try:
            images = build_jobs([job], self._line.declared, self._place)
        except* StageFailure as group:
            failures = [error for error in group.exceptions if isinstance(error, StageFailure)]
        except* (UsageError, UnavailableError) as group:
            # the version was removed from the mirror
            if self._line.kind != "version":
                raise
            failures = [
                StageFailure("source", error.what)
                for error in group.exceptions
                if isinstance(error, UsageError | UnavailableError)
            ]
        appends = [self._line.declared.fragments[name].append for name in job.row.kconfig]
        image_id = make_id(find_image_id(images[0].parent), appends) if images else ""
        return image_id, failures[0] if failures else None

    def _find_twin(self, image_id: str) -> BisectStep | None:
        """An earlier step with the same image and command line, and an answer."""
        known = (step for step in self._steps if image_id and step.image_id == image_id)
        return next((step for step in known if step.answer is not Answer.SKIP), None)

    def _run(self, job: Job, repeat: Repeat) -> tuple[str, JobRecord]:
        place = replace(self._place, repeat=repeat)
        redo = self._redone is not None and job.name not in self._redone
        goal = make_goal(["test"], redo=redo)
        if self._redone is not None:
            self._redone.add(job.name)
        run_id, _ = run_jobs([job], self._line.declared, place, self._accel, self._command, goal)
        record = load_run(place.store.path("runs", run_id) / "record.json")
        return run_id, record.jobs[0]

    def _judge(self, record: JobRecord) -> list[Verdict]:
        name = self._request.name
        return [v for v in judge_job(record) if name in (v.test, v.name)]

    def _keep(self, step: BisectStep) -> None:
        self._steps.append(step)
        # keep the failures of an earlier call that were not reached in this one
        later = [known for known in self._failed.values() if known not in self._steps]
        kept = [dataclasses.asdict(each) for each in (*self._steps, *later)]
        write_json(self.folder / "steps.json", kept)


def find_image_id(folder: Path) -> str:
    """The content id of a built kernel: vmlinux and all that is installed for its modules."""
    build = json.loads((folder / "build.json").read_text())
    # whatever their names: a config may compress modules
    modules = {
        str(path.relative_to(folder)): path
        for name in ("modules", "guest-modules", PROGRAMS)
        for path in sorted((folder / name).rglob("*"))
        if path.is_file()
    }
    return make_id(build["vmlinux_sha256"], make_tree_id(modules))
