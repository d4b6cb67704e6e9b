# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that take turns: no turn does again what one before it did, or hides what one came to.

Kernels and guests are pretended; jobs, turns, records and the store are real.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator import pipeline
from orchestrator.errors import InfraError, StageFailure
from orchestrator.history.entry import list_missing
from orchestrator.pipeline import IncompleteRun, run_jobs
from orchestrator.plan import manifest, steps
from orchestrator.plan.plan import Job
from orchestrator.plan.steps import Prepared
from orchestrator.plan.workspace import Workspace
from orchestrator.project.condition import Version
from orchestrator.project.guest import GuestShape
from orchestrator.project.guesttest import GuestTest
from orchestrator.project.matrix import Variant
from orchestrator.report.bundle import is_failing
from orchestrator.result.record import Failure, JobRecord, RunRecord, TrialResult, load_run
from orchestrator.result.repeat import AUTO, Repeat
from orchestrator.result.stored import keep_result
from orchestrator.result.verdict import judge_job, judge_trial, summarize_trial
from orchestrator.run.compile import Program
from orchestrator.source.series import Series
from orchestrator.status import Status
from orchestrator.store.store import Store
from tests.conftest import FAKE_TREE, Mirror, QuietProgress
from tests.samples import BROKEN, DECLARED, FAILED, GOOD, PAIR, PAIRED, ROW, WARNING, judge


class Laboratory:
    """Two kernels and a test; ``said`` is what it comes to, trial by trial, and ``told`` all that was done.

    Jobs run in processes of their own, so what is done is written to a file.
    """

    def __init__(self, folder: Path, store: Store, progress: QuietProgress) -> None:
        self.place = Workspace(folder, store, progress)
        self.said: Callable[[int], TrialResult] = lambda trial: GOOD
        self.builds: Callable[[str], None] = lambda variant: None
        self.boots: Callable[[int], None] = lambda trial: None
        self._told = folder / "told"
        (folder / "read.c").write_text("int main(void) { return 0; }\n")
        self.test = GuestTest(GOOD.test, folder / "read.c", "c", "0", "it works", "race", 5)

    @property
    def told(self) -> list[str]:
        return self._told.read_text().splitlines() if self._told.exists() else []

    def forget(self) -> None:
        self._told.unlink()

    def tell(self, what: str) -> None:
        with self._told.open("a") as told:
            told.write(f"{what}\n")

    def prepare(self, job: Job, *rest: object) -> Prepared:
        source = SimpleNamespace(fixups=(), commit="c", tree_id="t", source_id="s")
        config = SimpleNamespace(config_id="k")
        request: Any = SimpleNamespace(source=source, config=config, build_id=job.variant.name)
        base: Any = SimpleNamespace(tree="debian-5.10", version=Version.parse("5.10"), origin="", commit="b")
        return Prepared(base, base, request)

    def find_kernel(self, request: SimpleNamespace, store: Store) -> SimpleNamespace | None:
        is_built = store.path("kernels", request.build_id).exists()
        return SimpleNamespace(build_s=1.0, variant=request.build_id) if is_built else None

    def build(self, job: Job, *rest: object, redo: bool) -> SimpleNamespace:
        self.tell(f"build {job.variant.name}{' again' if redo else ''}")
        self.builds(job.variant.name)
        self.place.store.path("kernels", job.variant.name).mkdir(parents=True, exist_ok=True)
        return SimpleNamespace(build_s=1.0, variant=job.variant.name)

    def choose_machine(self, job: Job, *rest: object) -> SimpleNamespace:
        root = SimpleNamespace(rootfs_id="r")
        return SimpleNamespace(
            shape=GuestShape(2, 1024), rootfs=root, accel="tcg", boot="qemu", variant=job.variant.name
        )

    def run_tests(
        self,
        machine: SimpleNamespace,
        programs: Sequence[Program],
        lib_dir: Path,
        folder: Path,
        progress: QuietProgress,
        is_wanted_again: Callable[[TrialResult], bool],
    ) -> Iterator[TrialResult]:
        for program in programs:
            trial, is_wanted = program.trial, True
            while is_wanted:
                self.boots(trial)
                self.tell(f"{machine.variant} {trial}")
                result = replace(self.said(trial), trial=trial, content_id=program.program_id)
                keep_result(folder, result)
                is_wanted = is_wanted_again(result)
                yield result
                trial += 1

    def run(
        self,
        repeat: Repeat,
        *,
        variants: Sequence[str] = ("plain", "cow"),
        redo: bool = False,
        what_if: tuple[str, ...] = (),
    ) -> list[JobRecord]:
        row = replace(ROW, tree=FAKE_TREE.name)
        jobs = [Job(row, Variant(name, "", ()), FAKE_TREE, Series(name), (self.test,)) for name in variants]
        place = replace(self.place, repeat=repeat, what_if=what_if)
        goal = steps.make_goal(["test"], redo=redo)
        run_id, _ = run_jobs(jobs, DECLARED, place, "tcg", "cowbell test", goal)
        return list(load_run(place.store.path("runs", run_id) / "record.json").jobs)


@pytest.fixture
def lab(
    mirror: Mirror, store: Store, progress: QuietProgress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Laboratory:
    lab = Laboratory(tmp_path, store, progress)
    for name, pretended in {
        "find_kernel": lab.find_kernel,
        "make_kernel": lab.build,
        "make_rootfs_id": lambda arch: "r",
        "choose_machine": lab.choose_machine,
        "find_test_toolchain": lambda *rest: None,
        "make_program_id": lambda *rest: "0" * 12,
        "compile_tests": lambda *rest: [Program(lab.test, "0" * 12, lab.test.path)],
        "find_results_dir": lambda machine, store: store.path("results", machine.variant),
        "run_tests": lab.run_tests,
    }.items():
        monkeypatch.setattr(steps, name, pretended)
    store.path("rootfs", "r").mkdir(parents=True)
    monkeypatch.setattr(manifest, "list_kernel_files", lambda *rest: {"kconfigs/base": "1"})
    monkeypatch.setattr(pipeline, "prepare_job", lab.prepare)
    monkeypatch.setattr(
        pipeline, "find_results_dir", lambda machine, store: store.path("results", machine.variant)
    )
    return lab


def count_trials(lab: Laboratory, variant: str) -> list[str]:
    return [line for line in lab.told if line.startswith(f"{variant} ")]


def test_kernels_take_turns(lab: Laboratory) -> None:
    plain, cow = lab.run(Repeat(4))
    assert [line for line in lab.told if "build" not in line] == [
        "plain 1", "cow 1", "plain 2", "cow 2", "plain 3", "plain 4", "cow 3", "cow 4",
    ]  # fmt: skip
    assert [result.trial for result in plain.results] == [1, 2, 3, 4]
    assert [result.trial for result in cow.results] == [1, 2, 3, 4]


@pytest.mark.parametrize("variants", [("plain",), ("plain", "cow")], ids=["alone", "in turns"])
def test_a_trial_without_an_answer_is_not_tried_away(lab: Laboratory, variants: tuple[str, ...]) -> None:
    lab.said = lambda trial: BROKEN if trial == 2 else GOOD
    for job in lab.run(Repeat(4), variants=variants):
        (verdict,) = judge_job(job)
        assert (verdict.raw, verdict.trial, verdict.trials) == (Status.BROKEN, 2, 4)
    assert count_trials(lab, "plain") == [f"plain {trial}" for trial in (1, 2, 3, 4)]


def test_auto_does_not_try_away_either(lab: Laboratory) -> None:
    lab.said = lambda trial: BROKEN
    assert [judge_job(job)[0].raw for job in lab.run(Repeat(AUTO))] == [Status.BROKEN] * 2
    assert len(count_trials(lab, "plain")) == 1


def test_what_is_done_again_is_done_once(lab: Laboratory) -> None:
    for redo, what_if in ((True, ()), (False, ("kconfigs/base",))):
        lab.run(Repeat(4))
        lab.forget()
        lab.run(Repeat(4), redo=redo, what_if=what_if)
        assert len(count_trials(lab, "plain")) == 4
        assert lab.told.count("build plain again") == len(what_if)


def test_a_kernel_that_does_not_build_is_built_once(lab: Laboratory) -> None:
    def fail(variant: str) -> None:
        if variant == "cow":
            raise StageFailure("build", "the kernel does not build")

    lab.builds = fail
    plain, cow = lab.run(Repeat(8))
    assert lab.told.count("build cow") == 1
    assert (len(plain.results), cow.failure and cow.failure.stage) == (8, "build")


def test_keep_going_saves_the_run_of_the_other_jobs(lab: Laboratory) -> None:
    def fail(variant: str) -> None:
        if variant == "cow":
            raise InfraError("cannot be downloaded")

    lab.builds = fail
    lab.place = replace(lab.place, limits=replace(lab.place.limits, is_keeping_going=True))
    with pytest.raises(IncompleteRun) as raised:
        lab.run(Repeat(1))
    assert [str(error) for error in raised.value.exceptions] == ["demo/cow: cannot be downloaded"]
    plain, cow = load_run(lab.place.store.path("runs", raised.value.run_id) / "record.json").jobs
    assert (plain.variant, len(plain.results), cow.results) == ("plain", 1, ())
    assert cow.failure == Failure("infrastructure", "cannot be downloaded", "", "", "")


def test_keep_going_keeps_the_turns_before_an_infrastructure_error(lab: Laboratory) -> None:
    def fail(trial: int) -> None:
        if trial > 4:
            raise InfraError("the disk is full")

    lab.boots = fail
    lab.place = replace(lab.place, limits=replace(lab.place.limits, is_keeping_going=True))
    with pytest.raises(IncompleteRun) as raised:
        lab.run(Repeat(8))
    jobs = load_run(lab.place.store.path("runs", raised.value.run_id) / "record.json").jobs
    for job in jobs:
        assert [result.trial for result in job.results] == [1, 2, 3, 4]
        (verdict,) = judge_job(job)
        assert verdict.status is Status.BROKEN
        assert verdict.reason.startswith(
            "infrastructure, for trial 5: the disk is full; before: the read is whole"
        )


def test_an_infrastructure_error_takes_nothing_from_a_test_that_wanted_no_more(
    lab: Laboratory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(job: Job, *rest: object) -> SimpleNamespace:
        if f"{job.variant.name} 2" in lab.told:
            raise InfraError("the disk is full")
        return lab.choose_machine(job)

    lab.said = lambda trial: FAILED if trial == 2 else GOOD
    lab.place = replace(lab.place, limits=replace(lab.place.limits, is_keeping_going=True))
    monkeypatch.setattr(steps, "choose_machine", fail)
    with pytest.raises(IncompleteRun) as raised:
        lab.run(Repeat(AUTO))
    jobs = load_run(lab.place.store.path("runs", raised.value.run_id) / "record.json").jobs
    for job in jobs:
        assert job.failure
        assert job.failure.unfinished == ()
        assert [verdict.status for verdict in judge_job(job)] == [Status.FAIL]


def test_without_any_result_there_is_no_run(lab: Laboratory) -> None:
    def fail(variant: str) -> None:
        raise InfraError("cannot be downloaded")

    lab.builds = fail
    lab.place = replace(lab.place, limits=replace(lab.place.limits, is_keeping_going=True))
    with pytest.raises(ExceptionGroup) as raised:
        lab.run(Repeat(1))
    assert len(raised.value.exceptions) == 2
    assert not isinstance(raised.value, IncompleteRun)
    assert not list(lab.place.store.root.glob("runs/*"))


@pytest.mark.parametrize("variants", [("plain",), ("plain", "cow")], ids=["alone", "in turns"])
def test_a_kernel_that_boots_for_some_trials_only_does_not_pass(
    lab: Laboratory, variants: tuple[str, ...]
) -> None:
    def fail(trial: int) -> None:
        if trial == 3:
            raise StageFailure("boot", "the kernel hangs", log=Path("console.log"))

    lab.boots = fail
    for job in lab.run(Repeat(4), variants=variants):
        (verdict,) = judge_job(job)
        assert (verdict.raw, verdict.stage, verdict.trial, verdict.trials) == (Status.CRASH, "boot", 3, 2)
        assert verdict.reason.startswith("boot, for trial 3: the kernel hangs")
        # what did not come to a trial is no hit
        assert verdict.rate is None or not verdict.rate.hits
        # it has not been answered, and the history has it
        (missing,) = list_missing(RunRecord("demo-1", "cowbell test", "2024-01-15", (job,)), job)
        assert missing.raw == Status.CRASH
        assert not any(map(is_failing, judge_trial(job, job.results[0]))), "the trials before it were none"


def test_each_trial_has_a_line_when_it_ends(lab: Laboratory, progress: QuietProgress) -> None:
    crashed = replace(GOOD, console=GOOD.console + WARNING)
    lab.said = lambda trial: {2: FAILED, 3: crashed}.get(trial, GOOD)
    lab.run(Repeat(3), variants=("plain",))
    assert progress.verdicts == [
        (Status.PASS, "PASS odirect.rd-mprotect 0.5s"),
        (Status.FAIL, "FAIL odirect.rd-mprotect 0.5s, trial 2"),
        (Status.CRASH, "CRASH odirect.rd-mprotect 0.5s, trial 3"),
    ]
    progress.verdicts.clear()
    lab.run(Repeat(3), variants=("plain",))
    assert not progress.verdicts, "the results are in the store"


def test_the_line_of_a_test_tells_how_many_subtests_are_meant() -> None:
    half = replace(PAIRED, stdout=PAIR.replace("ok 2", "not ok 2"), exit_status=1)
    assert summarize_trial(judge(half)) == (Status.FAIL, "FAIL fork.basic-cow 0.5s (1 of 2 subtests)")
    assert summarize_trial(judge(replace(PAIRED, stdout=PAIR)))[1] == "PASS fork.basic-cow 0.5s"
