# SPDX-License-Identifier: GPL-2.0-or-later
"""The dry run and the run go through the same steps: over targets, options and changed inputs.

Trees, series, configs and kernels are real, if small; guests are pretended.
"""

import contextlib
import datetime
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator import pipeline
from orchestrator.errors import StageFailure, UsageError
from orchestrator.guest.qemu import Machine
from orchestrator.guest.rootfs import Rootfs
from orchestrator.kernel.fragment import load_fragments
from orchestrator.kernel.prebuilt import Prebuilt
from orchestrator.plan import products, steps
from orchestrator.plan.inputs import add_inputs
from orchestrator.plan.manifest import find_names
from orchestrator.plan.plan import Declarations, Job, Request, make_plan
from orchestrator.plan.products import find_reason_left_out, list_expected, list_known_splats
from orchestrator.plan.steps import Goal, Steps, find_same_steps, make_goal
from orchestrator.plan.workspace import Workspace
from orchestrator.process.progress import Progress
from orchestrator.process.workers import Limits
from orchestrator.project.arch import Arch
from orchestrator.project.condition import Condition, Version
from orchestrator.project.guest import GuestShape
from orchestrator.project.guesttest import GuestTest
from orchestrator.project.knownissues import KnownIssue
from orchestrator.project.matrix import Expectation, Variant
from orchestrator.result.record import Expected, Known, TrialResult
from orchestrator.result.stored import keep_result
from orchestrator.run.compile import Program
from orchestrator.source.repository import Source
from orchestrator.source.series import Series
from orchestrator.status import Status
from orchestrator.store.store import Store, make_id
from tests.conftest import FAKE_TREE, MakeSeries, Mirror, QuietProgress, render_patch
from tests.samples import DECLARED, GOOD, ROW

SWAP = {"mm/swap.c": ("+ 1", "+ 2")}
TARGETS = ("source", "config", "build", "test")
# (stage, subject): whether it has a reason
Listed = dict[tuple[str, str], bool]


class Project:
    """A row with two variants and a test, whose inputs can be changed, and the log of its runs."""

    def __init__(self, root: Path, store: Store, progress: QuietProgress, make_series: MakeSeries) -> None:
        self.root, self.progress = root, progress
        self.place = Workspace(root, store, progress)
        self.log, self.tested = root / "executed", root / "tested"
        self.tree = FAKE_TREE
        self.fragment = self.write("kconfigs/base.config", "#: about a\nCONFIG_PVH=y\nCONFIG_BLOCK=y\n")
        self.test = self.write("guest-tests/odirect/rd-mprotect.py", "print()\n")
        self.series = [Series(), make_series("cow", SWAP)]
        self.patch = root / "patches/cow/0001-cow.patch"

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    @property
    def declared(self) -> Declarations:
        """As they are read anew by every command."""
        test = GuestTest(GOOD.test, self.test, "python", make_id(self.test.read_text()), "x", "race", 5)
        row = replace(
            ROW,
            tree=self.tree.name,
            variants=tuple(Variant(one.name or "plain", one.name, ()) for one in self.series),
        )
        return replace(
            DECLARED,
            rows={"demo": row},
            trees={self.tree.name: self.tree},
            series={one.name: one for one in self.series},
            fragments=load_fragments(self.root / "kconfigs"),
            tests=(test,),
        )

    def plan(self, built: Sequence[Path] = ()) -> tuple[Declarations, tuple[Job, ...]]:
        declared = self.declared
        declared = add_inputs(declared, "", (), self.place, built=built) if built else declared
        return declared, make_plan(Request(), declared)

    def list_planned(self, goal: Goal, built: Sequence[Path] = ()) -> Listed:
        declared, jobs = self.plan(built)
        return collect(
            (step.stage, step.subject, bool(step.why))
            for step in pipeline.explain_jobs(jobs, declared, self.place, "tcg", goal)
        )

    def list_executed(
        self, targets: Sequence[str], goal: Goal, built: Sequence[Path] = (), *, fails: bool = False
    ) -> Listed:
        """Do it, as the targets of the command line do."""
        for left in (self.log, self.tested):
            left.unlink(missing_ok=True)
        self.progress.stages.clear()
        declared, jobs = self.plan(built)
        with pytest.raises(ExceptionGroup) if fails else contextlib.nullcontext():
            prepared = pipeline.prepare_jobs(jobs, declared, self.place, goal)
            if "test" in targets:
                pipeline.run_jobs(jobs, declared, self.place, "tcg", "x", goal, prepared)
            elif "build" in targets:
                pipeline.build_jobs(jobs, declared, self.place, goal, prepared)
        lines = [line.split("\t") for line in self.log.read_text().splitlines()]
        return collect((stage, subject, why == "True") for stage, subject, why in lines)

    def check(self, *targets: str, redo: bool = False, built: Sequence[Path] = ()) -> Listed:
        """The steps planned are the steps executed, and a step that has a reason does something."""
        goal = make_goal(targets, redo=redo)
        planned = self.list_planned(goal, built)
        assert self.list_planned(goal, built) == planned, "a dry run changes nothing"
        assert self.list_executed(targets, goal, built) == planned
        return planned

    @property
    def done(self) -> set[str]:
        """What was really done: fetched, applied, built and tested."""
        found = set()
        for stage, subject in self.progress.stages:
            if stage == "source":
                found.add("apply" if "patch(es)" in subject else "fetch")
            elif stage in ("build", "kconfig"):
                found.add(stage)
        return found | ({"run"} if self.tested.exists() else set())


def collect(listed: Iterator[tuple[str, str, bool]]) -> Listed:
    found: Listed = {}
    for stage, subject, has_reason in listed:
        found[stage, subject] = found.get((stage, subject), False) or has_reason
    return found


def find_reasons(listed: Listed, job: str = "demo/cow") -> set[str]:
    """The stages of a job that have a reason."""
    return {stage for (stage, subject), has_reason in listed.items() if has_reason and job in subject}


@pytest.fixture
def project(
    mirror: Mirror,
    store: Store,
    progress: QuietProgress,
    tmp_path: Path,
    make_series: MakeSeries,
    monkeypatch: pytest.MonkeyPatch,
) -> Project:
    project = Project(tmp_path, store, progress, make_series)

    def note(listed: Steps) -> Steps:
        for step, do in listed:
            with project.log.open("a") as log:
                log.write(f"{step.stage}\t{step.subject}\t{bool(step.why)}\n")
            yield step, do

    perform = steps.perform

    def make_rootfs(arch: Arch, store: Store, progress: Progress, packed: Path | None = None) -> Rootfs:
        place = store.publish("rootfs", "r", lambda draft: (draft / "root.img").touch())
        return Rootfs("r", place / "root.img")

    def run_tests(
        machine: Machine,
        programs: Sequence[Program],
        lib_dir: Path,
        folder: Path,
        progress: Progress,
        is_wanted_again: Callable[[TrialResult], bool],
    ) -> Iterator[TrialResult]:
        project.tested.touch()
        for program in programs:
            result = replace(GOOD, content_id=program.program_id)
            keep_result(folder, result)
            yield result

    for module in (steps, pipeline):
        monkeypatch.setattr(module, "perform", lambda listed: perform(note(listed)))
    for module in (products, steps):
        monkeypatch.setattr(module, "make_rootfs_id", lambda arch: "r")
    monkeypatch.setattr(products, "make_rootfs", make_rootfs)
    monkeypatch.setattr(steps, "run_tests", run_tests)
    return project


LATER = {"config", "build", "run"}
ALL = {"source", "config", "build", "run"}


@pytest.mark.parametrize("targets", [("test",), ("source", "build", "test"), ("config", "build")])
def test_steps_for_an_empty_store(project: Project, targets: tuple[str, ...]) -> None:
    listed = project.check(*targets)
    assert find_reasons(listed) == (ALL if "test" in targets else ALL - {"run"})
    assert project.done >= {"fetch", "apply", "build"}
    # the report of symbols is asked for each time
    again = project.check(*targets)
    assert {stage for (stage, _), why in again.items() if why} == ({"config"} & set(targets))
    assert not project.done - {"kconfig"}


def test_a_run_that_does_nothing_starts_few_programs(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All jobs of a tree look it up once."""
    project.check("test")
    calls = tmp_path / "calls"
    script = project.write("bin/git", f'#!/bin/sh\necho "$1" >> {calls}\nexec {shutil.which("git")} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    project.list_executed(("test",), make_goal(("test",)))
    assert not project.done
    assert 0 < len(calls.read_text().splitlines()) <= 10


def test_steps_of_each_target(project: Project) -> None:
    for target, stage, done in zip(
        TARGETS, ("source", "config", "build", "run"), ("apply", "", "build", "run"), strict=True
    ):
        listed = project.check(target)
        assert find_reasons(listed) - {"config"} == {stage} - {"config"}
        assert not done or done in project.done


def test_steps_with_always_make(project: Project) -> None:
    project.check("test")
    for target, stages, done in (
        ("source", {"source"}, {"fetch", "apply"}),
        ("config", {"config"}, set()),
        ("build", {"build"}, {"build"}),
        ("test", {"run"}, {"run"}),
    ):
        assert find_reasons(project.check(target, redo=True)) == stages
        assert project.done - {"kconfig"} >= done
    # a tree that is looked up anew may have moved
    assert find_reasons(project.check("source", "test", redo=True)) == ALL
    assert find_reasons(project.check("build", "test", redo=True)) == {"build", "run"}
    assert project.done >= {"build", "run"}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("name", "stages"),
    [("fragment", LATER), ("patch", ALL), ("test", {"run"})],
)
def test_steps_with_what_if(project: Project, target: str, name: str, stages: set[str]) -> None:
    file: Path = getattr(project, name)
    project.check("test")
    project.place = replace(project.place, what_if=find_names([str(file)]))
    reached = {"source", *(["config"] if target != "source" else [])}
    reached |= {"build": {"build"}, "test": {"build", "run"}}.get(target, set())
    if not stages & reached:
        goal = make_goal([target])
        declared, jobs = project.plan()
        for call in (
            project.list_planned,
            lambda g: pipeline.check_what_if(jobs, declared, project.place, g),
        ):
            with pytest.raises(ExceptionGroup) as raised:
                call(goal)
            assert isinstance(raised.value.exceptions[0], UsageError)
        return
    listed = project.check(target)
    assert find_reasons(listed) == stages & reached
    effects = {"source": "apply", "build": "build", "run": "run"}
    assert {effects[stage] for stage in stages & reached if stage in effects} <= project.done


@pytest.mark.parametrize(
    ("name", "old", "new", "plain", "cow"),
    [
        # plain's step checks the config for both
        ("fragment", "CONFIG_BLOCK=y", "# CONFIG_BLOCK is not set", LATER, {"build", "run"}),
        ("patch", "Because.", "Because of this.", set(), ALL),
        ("test", "print()", "print(1)", {"run"}, {"run"}),
    ],
)
def test_an_input_changed(
    project: Project, name: str, old: str, new: str, plain: set[str], cow: set[str]
) -> None:
    project.check("test")
    file: Path = getattr(project, name)
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))
    listed = project.check("test")
    assert (find_reasons(listed, "demo/plain"), find_reasons(listed)) == (plain, cow)
    assert ("build" in project.done, "run" in project.done) == ("build" in cow, True)
    assert not any(project.check("test").values())


@pytest.mark.parametrize("is_named", [True, False])
def test_the_tree_changed(project: Project, mirror: Mirror, is_named: bool) -> None:
    """Another version is named, or a newer one is on the mirror and looked for."""
    if is_named:
        mirror.add("5.10.227-1")
        project.tree = FAKE_TREE.at("5.10.226-1")
    project.check("test")
    if is_named:
        project.tree = FAKE_TREE.at("5.10.227-1")
        assert find_reasons(project.check("test")) == LATER | {"source"}
    else:
        mirror.add("5.10.227-1")
        assert not any(project.check("test").values())
        assert find_reasons(project.check("source", "test", redo=True)) == ALL
    assert project.done >= {"fetch", "apply", "build", "run"}


def test_keep_going_past_a_series_that_does_not_apply(project: Project, make_series: MakeSeries) -> None:
    project.series.append(make_series("twice", SWAP, SWAP))
    project.place = replace(project.place, keep_going=True, limits=Limits(is_keeping_going=True))
    goal = make_goal(["test"])
    planned = project.list_planned(goal)
    executed = project.list_executed(["test"], goal)
    ended = {step: why for step, why in planned.items() if "demo/twice" in step[1] and step not in executed}
    assert {stage for stage, _ in ended} == {"config", "build", "rootfs", "run"}
    assert {**executed, **ended} == planned
    assert project.done >= {"build", "run"}


def test_without_keep_going_nothing_is_built(project: Project, make_series: MakeSeries) -> None:
    project.series.append(make_series("twice", SWAP, SWAP))
    declared, jobs = project.plan()
    with pytest.raises(ExceptionGroup) as raised:
        pipeline.prepare_jobs(jobs, declared, project.place, make_goal(["test"]))
    assert [type(error) for error in raised.value.exceptions] == [StageFailure]


def test_prebuilt_kernels(project: Project, tmp_path: Path) -> None:
    declared, jobs = project.plan()
    built = tmp_path / "built"
    pipeline.build_jobs(jobs, declared, project.place, target=built)
    project.place = replace(project.place, store=Store(tmp_path / "elsewhere"))
    listed = project.check("test", built=[built])
    assert find_reasons(listed) == {"build", "run"}
    assert project.done == {"run"}
    assert not any(project.check("test", built=[built]).values())
    assert find_reasons(project.check("test", redo=True, built=[built])) == {"run"}


def test_rows_with_the_same_kernel_do_it_once(project: Project) -> None:
    declared, jobs = project.plan()
    twins = tuple(replace(job, row=replace(job.row, name="twin")) for job in jobs)
    project.plan = lambda built=(): (declared, (*jobs, *twins))  # type: ignore[method-assign]
    for targets in (["test"], ["test"], ["build", "test"]):
        listed = project.check(*targets, redo="build" in targets)
        for name in ("plain", "cow"):
            assert not find_reasons(listed, f"twin/{name}")


def test_a_list_of_steps_that_is_not_executed_is_found(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison itself can fail: a stage that forgets -B in the run is seen."""
    project.check("test")
    monkeypatch.setattr(pipeline, "_run_job", forget_goal(pipeline._run_job))
    with pytest.raises(AssertionError):
        project.check("test", redo=True)


def forget_goal(run: Callable[..., object]) -> Callable[..., object]:
    def run_once(job_steps: steps.JobSteps, *rest: object) -> object:
        job_steps.goal = Goal()
        return run(job_steps, *rest)

    return run_once


def test_a_changed_alternative_of_a_fragment_is_told(project: Project) -> None:
    """``one-of`` is an input of the kernel as well."""
    header = "#: one-of BLOCK PVH\n"
    project.fragment.write_text(f"#: about a\n{header}")
    project.check("test")
    project.fragment.write_text(f"#: about a\n{header.replace('BLOCK PVH', 'BLOCK SWAP')}")
    declared, jobs = project.plan()
    listed = list(pipeline.explain_jobs(jobs, declared, project.place, "tcg"))
    whys = [step.why for step in listed if step.stage == "build"]
    assert whys == ["build it: kconfigs/base.config changed"] * 2


def test_a_patch_of_the_series_is_told(project: Project) -> None:
    project.check("test")
    project.patch.write_text(render_patch("cow 2", SWAP))
    declared, jobs = project.plan()
    whys = {step.subject: step.why for step in pipeline.explain_jobs(jobs, declared, project.place, "tcg")}
    assert whys["demo/cow: series cow"] == "apply it, it is new on this tree"
    assert whys["demo/cow: image"] == "the source is new"


def test_a_config_on_a_source_that_may_be_new_is_checked_by_its_own_job(project: Project) -> None:
    """Otherwise one job checks a config for all jobs with the same Kconfig files."""
    project.check("source")
    declared, jobs = project.plan()
    for redo, same_as in ((False, ["", "demo/plain"]), (True, ["", ""])):
        goal = make_goal(["source", "build"], redo=redo)
        listed = pipeline.explain_jobs(jobs, declared, project.place, "tcg", goal)
        assert [step.same_as for step in listed if step.stage == "config"] == same_as


def test_goals_of_targets() -> None:
    assert make_goal(["test", "build"]) == Goal("run")
    assert make_goal(["source", "config"]) == Goal("config", frozenset(), reports_symbols=True)
    assert make_goal(["source", "test"], redo=True) == Goal("run", frozenset({"source", "run"}))
    # a root filesystem is the same each time, and -B of a shell is none of the kernel's
    assert make_goal(["shell"], redo=True) == Goal("rootfs")


PLAIN = Job(ROW, Variant("plain", "", ()), FAKE_TREE, Series(), DECLARED.tests[:2])
EVERYTHING = {"tree", "series", "config", "build", "rootfs", "run"}


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (PLAIN, EVERYTHING),
        (replace(PLAIN, tests=DECLARED.tests[:1]), EVERYTHING),
        # one of them has not been run
        (replace(PLAIN, tests=DECLARED.tests[1:]), EVERYTHING - {"run"}),
        (replace(PLAIN, tests=()), EVERYTHING - {"run"}),
        (replace(PLAIN, boot="vng"), EVERYTHING - {"run"}),
        (replace(PLAIN, row=replace(ROW, guest=GuestShape(4, 1024))), EVERYTHING - {"run"}),
        (replace(PLAIN, row=replace(ROW, kconfig=("base", "kasan"))), {"tree", "series", "rootfs"}),
        (replace(PLAIN, row=replace(ROW, arch="aarch64")), {"tree", "series"}),
        (replace(PLAIN, series=Series("cow")), {"tree", "rootfs"}),
        (replace(PLAIN, tree=replace(FAKE_TREE, suite="sid")), {"rootfs"}),
        (replace(PLAIN, tree=replace(FAKE_TREE, name="other")), {"rootfs"}),
    ],
)
def test_same_steps_are_those_of_the_same_inputs(other: Job, same: set[str]) -> None:
    twin = replace(other, row=replace(other.row, name="twin"))
    third = replace(twin, row=replace(twin.row, name="third"))
    found = find_same_steps([PLAIN, twin, third])
    assert found["demo/plain"] == {}
    assert found["twin/plain"] == dict.fromkeys(same, "demo/plain")
    assert set(found["third/plain"]) == (EVERYTHING if other.tests else EVERYTHING - {"run"})


BASE = Source("s", "debian-5.10", "", Version.parse("5.10.226"), "b", "b", "t")


def test_an_expectation_and_a_known_issue_hold_until_the_end_of_their_day(
    store: Store, progress: QuietProgress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> "Clock":
            assert tz is datetime.UTC
            return cls(2027, 3, 1, 23, 59, tzinfo=tz)

    monkeypatch.setattr(products, "datetime", SimpleNamespace(datetime=Clock, UTC=datetime.UTC))
    place = Workspace(tmp_path, store, progress)
    today, before = datetime.date(2027, 3, 1), datetime.date(2027, 2, 28)
    expect = tuple(
        Expectation(
            "odirect.*", Status.CRASH, "known", Condition.parse(when), "matrix.yaml:9", until, "bug:*"
        )
        for when, until in (
            ("", None),
            ("", today),
            ("", before),
            ("kernel<5.10", None),
            ("arch=aarch64", None),
        )
    )
    job = replace(PLAIN, variant=Variant("plain", "", expect))
    held = Expected("odirect.*", Status.CRASH, "known", fingerprint="bug:*")
    assert list_expected(job, BASE, place) == (
        held,
        replace(held, until="2027-03-01"),
        replace(held, until="2027-02-28", is_over=True),
    )
    told = "matrix.yaml:9: odirect.* to crash was expected until 2027-02-28, and is not any more"
    assert progress.notes == [told]
    issues = tuple(
        KnownIssue(name, "harmless", Condition.parse(when), until, "known-splats.yaml:2")
        for name, when, until in (
            ("bug:a", "", None), ("bug:b", "", today), ("bug:c", "", before), ("bug:d", "kernel<5.10", None),
        )
    )  # fmt: skip
    declared = replace(DECLARED, known_splats=issues)
    known = list_known_splats(job, BASE, declared, place)
    assert known == (Known("bug:a", "harmless"), Known("bug:b", "harmless"))
    assert progress.notes[1:] == [
        "known-splats.yaml:2: bug:c was expected until 2027-02-28, and is not any more"
    ]


def test_reasons_to_leave_a_job_out(tmp_path: Path, store: Store, progress: QuietProgress) -> None:
    place = Workspace(tmp_path, store, progress)
    young = replace(PLAIN, series=Series("young", when=Condition.parse("kernel>=5.15")))
    assert find_reason_left_out(PLAIN, BASE, place) == ""
    reason = find_reason_left_out(young, BASE, place)
    assert reason == "series young is for kernel>=5.15, debian-5.10 is 5.10.226"
    # the host that built it decided by its own version of the tree
    built = Prebuilt("demo", "plain", "young", BASE, left_out="as it was there")
    assert find_reason_left_out(replace(young, built=built), BASE, place) == "as it was there"
    assert find_reason_left_out(replace(young, built=replace(built, left_out="")), BASE, place) == ""
    # what cannot be booted here is left out whatever the series
    foreign = replace(young, row=replace(ROW, arch="aarch64"), boot="vng", built=built)
    assert "BOOT=vng works only for x86_64 on x86_64" in find_reason_left_out(foreign, BASE, place)
    assert find_reason_left_out(replace(foreign, boot="qemu", built=None), BASE, place) == reason
