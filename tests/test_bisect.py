# SPDX-License-Identifier: GPL-2.0-or-later
"""From a test that fails here and passes there to the change that did it.

Kernels and guests are pretended; git, its bisection, the store, trials and verdicts are real.
"""

import contextlib
import dataclasses
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.bisect import bisection, line
from orchestrator.bisect.answer import (
    Answer,
    FailureMode,
    find_answer,
    find_failure_modes,
    make_default_failure_modes,
)
from orchestrator.bisect.bisection import Bisection, BisectRequest
from orchestrator.bisect.gitbisect import Find
from orchestrator.bisect.line import Line, make_config_line, make_history_line
from orchestrator.bisect.outcome import (
    BisectResult,
    find_interrupted,
    open_call,
    render_text,
)
from orchestrator.cli.bisect import Asked, choose_job, make_question
from orchestrator.cli.call import render_product, vars_of
from orchestrator.cli.seriesmatrix import list_prefixes, make_matrix, render
from orchestrator.errors import StageFailure, UsageError
from orchestrator.kernel.fragment import Fragment, SymbolRequest
from orchestrator.plan.plan import Declarations, Job, Request
from orchestrator.plan.steps import Goal
from orchestrator.plan.workspace import Workspace
from orchestrator.project.condition import Condition
from orchestrator.project.matrix import Variant
from orchestrator.report.mail import WIDTH
from orchestrator.result.record import Failure, JobRecord, RunRecord, TargetRate, TrialResult
from orchestrator.source.series import Backport, Series
from orchestrator.source.tree import LocalTree, TarballTree
from orchestrator.status import Status
from orchestrator.store.store import Store
from tests.conftest import FAKELINUX, MakeSeries, QuietProgress, cowbell
from tests.gitserver import commit_file, run_git
from tests.records import store_trials
from tests.samples import (
    BROKEN,
    DECLARED,
    DETERMINISTIC,
    FAILED,
    GOOD,
    RACE,
    ROW,
    STDOUT,
    WARNING,
    judge,
    make_rated,
)
from tests.schema import read_product

COMMITS = 24
CRASH = replace(GOOD, console=WARNING.join(GOOD.console.splitlines(keepends=True)))
PARTLY = replace(
    GOOD,
    stdout=f"KTAP version 1\n1..2\nok 1 {GOOD.test}[a=1]\nnot ok 2 {GOOD.test}[a=2] # ERROR trouble\n",
    exit_status=1,
)


@pytest.fixture(scope="module")
def commits(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A checkout of a small kernel; the commit before all others first, its folder last."""
    place = tmp_path_factory.mktemp("history") / "linux"
    place.mkdir()
    run_git(place, "init", "-q", "-b", "main")
    makefile = (FAKELINUX / "Makefile").read_text()
    (place / "Kconfig").write_text("")
    run_git(place, "add", "Kconfig")
    made = [commit_file(place, "Makefile", makefile, "a kernel")]
    for number in range(1, COMMITS + 1):
        file = "mm/memory.c" if number % 3 else "fs/inode.c"
        made.append(commit_file(place, file, f"int change{number};\n", f"change {number}"))
    return [*made, str(place)]


class Ground:
    """Fake kernels by commit: the results of each trial, and a log of all builds and runs."""

    def __init__(self, commits: Sequence[str], place: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.path, self.commits, self.place = commits[-1], list(commits[:-1]), place
        self.test = DETERMINISTIC
        self.first = 13
        self.bad, self.good = FAILED, GOOD
        self.results: dict[str, TrialResult] = {}
        self.unbuildable: set[str] = set()
        self.unbootable: set[str] = set()
        self.images: dict[str, str] = {}
        self.told: list[str] = []
        self.kept: dict[str, list[TrialResult]] = {}
        self.reverted = GOOD
        self.on_run: Callable[[str], None] = lambda commit: None

    def number(self, commit: str) -> int:
        return self.commits.index(commit)

    def find_commit(self, job: Job) -> str:
        name = job.tree.name.partition(":")[2]
        return "without" if job.series.name else next(c for c in self.commits if c.startswith(name))

    def build(self, jobs: Sequence[Job], declared: Declarations, place: Workspace) -> list[Path]:
        commit = self.find_commit(jobs[0])
        self.told.append(f"build {commit[:12]}")
        if commit in self.unbuildable:
            raise ExceptionGroup("jobs", [StageFailure("build", "the kernel does not build", hint="here")])
        folder = place.store.path("kernels", commit)
        folder.mkdir(exist_ok=True)
        (folder / "build.json").write_text(json.dumps({"vmlinux_sha256": self.images.get(commit, commit)}))
        return [folder / "image"]

    def run(
        self,
        jobs: Sequence[Job],
        declared: Declarations,
        place: Workspace,
        accel: str,
        command: str,
        goal: Goal,
    ) -> tuple[str, bool]:
        (job,) = jobs
        commit = self.find_commit(job)
        if goal.again:
            self.kept.pop(commit, None)
        failure = Failure("boot", "Kernel panic", "", "", "") if commit in self.unbootable else None
        known = self.kept.setdefault(commit, [])
        while not failure and place.repeat.wants_more(self.test, known):
            self.on_run(commit)
            self.told.append(f"run {commit[:12]}")
            known.append(replace(self._find_result(commit), trial=len(known) + 1))
        run_id = f"demo-{commit[:12]}-{len(known)}"
        rates = place.repeat.list_target_rates([self.test])
        store_trials(place.store, run_id, command, job, self.test, known, failure, rates)
        return run_id, True

    def _find_result(self, commit: str) -> TrialResult:
        if commit == "without":
            return self.reverted
        made = self.bad if self.number(commit) >= self.first else self.good
        return self.results.get(commit, made)

    def make_line(self, old: int = 0, new: int = COMMITS) -> Line:
        tree = LocalTree("linux", self.path)
        job = Job(ROW, Variant("plain", "", ()), tree, Series(), (self.test,))
        ends = (self.commits[old], self.commits[new])
        return make_history_line(job, ends, DECLARED, self.place)

    def start(
        self, find: Find | None = Find.BREAK, paths: tuple[str, ...] = (), confidence: float = 0.95
    ) -> Bisection:
        found = self.make_line()
        question = BisectRequest(self.test.id, self.test, found, find, paths, confidence)
        return Bisection(question, found.make_job(found.new), self.place, "tcg", "cowbell bisect")

    def bisect(
        self, find: Find | None = Find.BREAK, paths: tuple[str, ...] = (), confidence: float = 0.95
    ) -> BisectResult:
        return self.start(find, paths, confidence).run()


@pytest.fixture
def ground(
    commits: list[str],
    tmp_path: Path,
    store: Store,
    progress: QuietProgress,
    monkeypatch: pytest.MonkeyPatch,
) -> Ground:
    ground = Ground(commits, Workspace(tmp_path, store, progress), monkeypatch)
    monkeypatch.setattr(bisection, "build_jobs", ground.build)
    monkeypatch.setattr(bisection, "run_jobs", ground.run)
    return ground


def list_steps(outcome: BisectResult, role: str = "step") -> list[str]:
    return [step.commit for step in outcome.steps if step.role == role]


# --- what is found


@pytest.mark.parametrize("first", [1, 2, 13, COMMITS - 1, COMMITS])
def test_the_commit_is_found_wherever_it_is(ground: Ground, first: int) -> None:
    ground.first = first
    outcome = ground.bisect()
    assert outcome.suspects == (ground.commits[first],)
    assert outcome.is_found
    assert len(list_steps(outcome)) <= 5
    assert list_steps(outcome, "again") == [ground.commits[first], ground.commits[first - 1]]
    # nothing is upon the newest commit that could be left without it
    assert len(list_steps(outcome, "without")) == (first < COMMITS)


def test_what_can_not_do_without_a_commit_is_no_trouble_of_the_commit(ground: Ground) -> None:
    ground.unbuildable.add("without")
    for outcome in (ground.bisect(), ground.bisect()):
        assert outcome.suspects == (ground.commits[13],)
        assert outcome.is_found


def test_git_knows_of_it(ground: Ground) -> None:
    outcome = ground.bisect()
    log = run_git(Path(outcome.git_dir), "bisect", "log")
    assert log == outcome.log.strip()
    assert f"# first bad commit: [{ground.commits[13]}]" in log
    assert not (Path(ground.path) / ".git" / "BISECT_LOG").exists()


def test_a_fix_is_found(ground: Ground) -> None:
    ground.bad, ground.good = GOOD, FAILED
    ground.reverted = FAILED
    outcome = ground.bisect(Find.FIX)
    assert outcome.suspects == (ground.commits[13],)
    assert outcome.is_found
    assert "git bisect broken" in outcome.log
    assert "first commit that fixes" in render_text(outcome)
    assert "without it is bad" in " ".join(render_text(outcome).split())
    assert not list(ground.place.store.path("bisects").glob("*/mail.txt"))


def test_paths_narrow(ground: Ground) -> None:
    ground.first = 12
    outcome = ground.bisect(paths=("fs",))
    assert outcome.suspects == (ground.commits[12],)
    assert {ground.number(commit) % 3 for commit in list_steps(outcome)} == {0}
    with pytest.raises(UsageError, match="no commit between GOOD and BAD touches these paths"):
        ground.bisect(paths=("drivers",))


# --- commits that cannot be tested


def test_skips_are_reported_and_leave_suspects(ground: Ground) -> None:
    lost = [ground.commits[i] for i in (11, 12)]
    ground.unbuildable, ground.unbootable = {lost[0]}, {lost[1]}
    outcome = ground.bisect()
    assert set(outcome.suspects) == {ground.commits[i] for i in (11, 12, 13)}
    assert not outcome.is_found
    text = render_text(outcome)
    assert "one of these 3 breaks" in text
    assert "build: the kernel does not build" in text
    assert "Kernel panic" in text


def test_what_does_not_build_is_no_bad_commit(ground: Ground) -> None:
    ground.unbuildable = set(ground.commits[5:9])
    ground.results = {ground.commits[15]: BROKEN, ground.commits[16]: replace(GOOD, stdout=SKIPPED)}
    outcome = ground.bisect()
    assert outcome.suspects == (ground.commits[13],)


SKIPPED = STDOUT.replace("ok 1 odirect.rd-mprotect", "ok 1 odirect.rd-mprotect # SKIP no such device")


def test_another_failure_is_another_bug(ground: Ground) -> None:
    """A crash is skipped when the bad end loses data, and the other way round."""
    ground.results = {ground.commits[12]: CRASH}
    outcome = ground.bisect()
    (step,) = [step for step in outcome.steps if step.commit == ground.commits[12]]
    assert step.answer is Answer.SKIP
    assert "expected fail" in step.reason
    assert set(outcome.suspects) == {ground.commits[12], ground.commits[13]}


def test_a_crash_is_found_by_its_fingerprint(ground: Ground) -> None:
    ground.bad = CRASH
    other = replace(CRASH, console=CRASH.console.replace("do_wp_page", "do_swap_page"))
    ground.results = {ground.commits[18]: other}
    outcome = ground.bisect()
    assert outcome.suspects == (ground.commits[13],)
    assert "crash" in next(iter(outcome.failing.values()))


def test_the_fingerprint_of_the_crash_may_be_given() -> None:
    """A glob replaces the fingerprint of the bad end; no other failure counts."""
    for bad, expected in ((CRASH, ["warning:*"]), (FAILED, [])):
        modes = find_failure_modes(judge(GOOD), judge(bad), "warning:*")
        assert [mode.fingerprint for mode in modes.values()] == expected
        assert find_failure_modes(judge(GOOD), judge(bad))
        assert not find_failure_modes(judge(GOOD), judge(bad), "oops:*")


# --- ends


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [(FAILED, FAILED, "fail"), (GOOD, GOOD, "pass"), (FAILED, GOOD, "fail"), (GOOD, BROKEN, "broken")],
)
def test_unusable_ends_are_reported_before_any_step(
    ground: Ground, good: TrialResult, bad: TrialResult, told: str
) -> None:
    ground.good, ground.bad = good, bad
    with pytest.raises(UsageError, match="does not pass at one end and fail at the other") as error:
        ground.bisect()
    assert told in str(error.value)
    assert len({line for line in ground.told if line.startswith("run")}) == 2


def test_a_tree_without_a_history(ground: Ground) -> None:
    job = replace(ground.make_line().make_job(ground.commits[0]), tree=TarballTree("x", "x.tar", "0"))
    with pytest.raises(UsageError, match="x is not a git tree, so it has no history"):
        make_history_line(job, ("v1", "v2"), DECLARED, ground.place)


def test_revs_that_are_not_there(ground: Ground) -> None:
    job = ground.make_line().make_job(ground.commits[0])
    with pytest.raises(ExceptionGroup) as group:
        make_history_line(job, ("v1", "v2"), DECLARED, ground.place)
    assert [str(error).split(": ")[1] for error in group.value.exceptions] == ["has no v1", "has no v2"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("GOOD=main~1", "BAD=main~1"), "GOOD, BAD: are the same commit"),
        (("GOOD=main", "BAD=main~2"), "GOOD, BAD: are in the wrong order: main~2 is older than main"),
        (
            ("GOOD=main~2", "BAD=main", "FIND=fix"),
            "GOOD, BAD: are in the wrong order: main~2 is older than main",
        ),
        (("GOOD=main~2", "BAD=main", "PATHS=kernel/none.c"), "PATHS: no commit between GOOD and BAD touches"),
    ],
)
def test_ends_without_a_commit_between_them_are_a_usage_error(
    ground: Ground, words: tuple[str, ...], told: str
) -> None:
    """Also in a dry run."""
    row = ("ROW=demo", "TESTS=odirect.rd-mprotect", f"KERNEL={ground.path}")
    done = cowbell("-n", "bisect", *row, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


# --- not twice


def test_the_same_image_is_not_tried_again(ground: Ground) -> None:
    """A commit that changes a comment is the kernel that it was."""
    ground.images = {commit: str(i // 3) for i, commit in enumerate(ground.commits)}
    ground.first = 12
    outcome = ground.bisect()
    assert outcome.suspects == (ground.commits[12],)
    same = [step for step in outcome.steps if step.same_as]
    assert same
    assert all(ground.number(step.commit) // 3 == ground.number(step.same_as) // 3 for step in same)
    tried_once = {f"run {step.commit[:12]}" for step in same} - {
        f"run {step.commit[:12]}" for step in outcome.steps if step.role == "again"
    }
    assert not tried_once & set(ground.told)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst"])
def test_image_includes_modules_however_they_are_compressed(ground: Ground, suffix: str) -> None:
    ground.images = dict.fromkeys(ground.commits, "the same vmlinux")
    build = ground.build

    def build_modules(jobs: Sequence[Job], declared: Declarations, place: Workspace) -> list[Path]:
        (image,) = build(jobs, declared, place)
        commit = ground.find_commit(jobs[0])
        module = image.parent / "modules/lib/modules/5.10" / f"fuse.ko{suffix}"
        module.parent.mkdir(parents=True, exist_ok=True)
        module.write_text("old" if commit in ground.commits[: ground.first] else "new")
        return [image]

    ground.monkeypatch.setattr(bisection, "build_jobs", build_modules)
    outcome = ground.bisect()
    assert outcome.suspects == (ground.commits[ground.first],)
    assert any(step.same_as for step in outcome.steps)


def test_image_on_another_command_line_is_another_step(ground: Ground) -> None:
    """The symbol changes the image and does no harm, the command line breaks the test."""

    def fragment(name: str, append: str, **symbols: str) -> Fragment:
        asks = tuple(SymbolRequest(symbol, value, f"{name}:1") for symbol, value in symbols.items())
        return Fragment(name, name, Condition(), asks, append, frozenset())

    fragments = {"one": fragment("one", "", KSM="n"), "other": fragment("other", "quiet", KSM="y")}
    job = ground.make_line().make_job(ground.commits[0])
    config = make_config_line(job, ["one"], ["other"], replace(DECLARED, fragments=fragments), ground.place)
    symbolic = run_git(config.git_dir, "rev-list", "--reverse", config.new).split()
    ground.images = dict.fromkeys(ground.commits[1:3], "the same vmlinux")
    ground.first = 2

    def make_job(commit: str) -> Job:
        number = symbolic.index(commit)
        tree = ground.make_line().make_job(ground.commits[number]).tree
        return replace(config.make_job(commit), tree=tree)

    found = replace(config, make_job=make_job, leave_out=lambda commit: None)
    question = BisectRequest(DETERMINISTIC.id, DETERMINISTIC, found, Find.BREAK, (), 0.95)
    outcome = Bisection(question, job, ground.place, "tcg", "cowbell bisect").run()
    assert outcome.suspects == (symbolic[2],)
    assert found.describe(symbolic[2]) == "append: - becomes quiet"


def test_a_killed_bisection_goes_on(ground: Ground) -> None:
    """Also a commit that did not build is not tried again, though nothing of it is in the store."""
    ground.unbuildable = set(ground.commits[10:13])

    class KilledError(Exception):
        pass

    def kill(commit: str) -> None:
        if len(ground.told) > 9:
            raise KilledError

    ground.on_run = kill
    with pytest.raises(KilledError):
        ground.bisect()
    before = list(ground.told)
    ground.on_run = lambda commit: None
    ground.told.clear()
    outcome = ground.bisect()
    assert set(outcome.suspects) == {ground.commits[i] for i in (10, 11, 12, 13)}
    assert not {line for line in before if line.startswith("run")} & set(ground.told)
    built = {f"build {commit[:12]}" for commit in ground.unbuildable}
    assert built & set(before)
    assert not built & set(before) & set(ground.told)


# --- races


class Chance:
    """A race that is hit at a rate, with one seed per kernel."""

    def __init__(self, ground: Ground, rate: float, tries: int) -> None:
        self.dice = {commit: random.Random(i) for i, commit in enumerate([*ground.commits, "without"])}
        self.ground, self.rate, self.tries = ground, rate, tries
        ground.test = RACE
        ground._find_result = self.find_result  # type: ignore[method-assign]

    def find_result(self, commit: str) -> TrialResult:
        is_bad = commit != "without" and self.ground.number(commit) >= self.ground.first
        hits = sum(self.dice[commit].random() < self.rate for _ in range(self.tries)) if is_bad else 0
        return make_rated(hits, self.tries)


@pytest.mark.parametrize("rate", [0.002, 0.05])
def test_a_race_is_found_with_the_confidence_that_was_asked_for(ground: Ground, rate: float) -> None:
    Chance(ground, rate, 400)
    outcome = ground.bisect()
    assert outcome.suspects == (ground.commits[13],)
    (target_rates,) = outcome.target_rates.values()
    assert target_rates.rate < rate
    assert target_rates.risk < 0.05 / 2 / 5
    for step in outcome.steps:
        hits, _, tries = next(iter(step.rates.values())).split()
        enough = 1 - (1 - target_rates.rate) ** int(tries) > 1 - target_rates.risk
        assert step.answer is (Answer.BAD if int(hits) else Answer.GOOD)
        assert int(hits) or enough
    assert "the bisection has 95 % confidence" in " ".join(render_text(outcome).split())


def test_evidence_is_topped_up(ground: Ground) -> None:
    """A higher confidence takes more trials of the same steps, and none of those that were done."""
    Chance(ground, 0.02, 100)
    first = ground.bisect(confidence=0.9)
    number = len(ground.told)
    more = ground.bisect(confidence=0.999)
    assert more.suspects == first.suspects
    rates = [
        {step.commit: step.rates for step in outcome.steps if step.role == "step"}
        for outcome in (first, more)
    ]
    assert rates[0].keys() == rates[1].keys()
    assert rates[0] != rates[1]
    assert len(ground.told) > number


def test_a_race_that_was_missed_is_not_confirmed(ground: Ground) -> None:
    """If a commit gives another result when tested again, the change is not confirmed."""
    results = iter([GOOD])
    real = ground._find_result

    def find(commit: str) -> TrialResult:
        # the commit before passes at first, and fails when it is asked again
        is_parent = commit == ground.commits[12]
        return next(results, FAILED) if is_parent else real(commit)

    ground._find_result = find  # type: ignore[method-assign]
    outcome = ground.bisect()
    assert outcome.suspects == (ground.commits[13],)
    assert not outcome.is_found
    assert "NOT CONFIRMED: its parent was bad when tested again" in render_text(outcome)


def test_a_revert_that_does_not_help_is_told(ground: Ground) -> None:
    ground.reverted = FAILED
    outcome = ground.bisect()
    assert not outcome.is_found
    assert any("without it" in doubt for doubt in outcome.doubts)


# --- answers


def test_a_pass_that_was_not_tried_often_enough_is_no_good() -> None:
    verdicts = judge(make_rated(0, 100))
    failing = {GOOD.test: FailureMode(Status.FAIL)}
    assert find_answer(verdicts, failing, {})[0] is Answer.GOOD
    assert find_answer(verdicts, failing, {GOOD.test: TargetRate(0.5, "x", 0.01)})[0] is Answer.GOOD
    assert find_answer(verdicts, failing, {GOOD.test: TargetRate(0.01, "x", 0.01)})[0] is Answer.SKIP


def test_a_subtest_that_is_not_there_is_a_skip() -> None:
    assert find_answer([], {GOOD.test: FailureMode(Status.FAIL)}, {})[0] is Answer.SKIP


def test_a_crash_without_a_word_is_no_other_crash() -> None:
    silent = FailureMode(Status.CRASH, "run", "")
    (crash,) = judge(CRASH)
    assert crash.fingerprint
    assert not silent.matches(crash)
    assert silent.matches(replace(crash, fingerprint=""))
    assert FailureMode(Status.CRASH).matches(crash)


@pytest.mark.parametrize(
    ("result", "fingerprint", "answer"),
    [
        (GOOD, "", Answer.GOOD),
        (FAILED, "", Answer.BAD),
        (CRASH, "", Answer.BAD),
        (BROKEN, "", Answer.SKIP),
        (CRASH, "*", Answer.BAD),
        (CRASH, "warning:elsewhere*", Answer.SKIP),
        (FAILED, "*", Answer.SKIP),
    ],
)
def test_find_answer_to_verdicts(result: TrialResult, fingerprint: str, answer: Answer) -> None:
    verdicts = judge(result)
    assert find_answer(verdicts, make_default_failure_modes(verdicts, fingerprint), {})[0] is answer
    assert (answer.exit_status, answer.other.other) == ({"good": 0, "bad": 1, "skip": 125}[answer], answer)


# --- other lines


def test_config_symbols_are_a_line(ground: Ground) -> None:
    def fragment(name: str, append: str, **symbols: str) -> Fragment:
        asks = tuple(SymbolRequest(symbol, value, f"{name}:1") for symbol, value in symbols.items())
        return Fragment(name, name, Condition(), asks, append, frozenset())

    declared = replace(
        DECLARED,
        fragments={
            "one": fragment("one", "", MMU="y", SWAP="n", KSM="y"),
            "other": fragment("other", "quiet", MMU="y", SWAP="y", ZRAM="y"),
        },
    )
    tree = LocalTree("linux", ground.path)
    job = Job(ROW, Variant("plain", "", ()), tree, Series(), (DETERMINISTIC,))
    found = make_config_line(job, ["one"], ["other"], declared, ground.place)
    listed = run_git(found.git_dir, "log", "--format=%s", "--reverse", found.new).splitlines()
    assert listed == [
        "one", "SWAP: n becomes y", "ZRAM: not requested becomes y", "KSM: y becomes not requested",
        "append: - becomes quiet",
    ]  # fmt: skip
    commits = run_git(found.git_dir, "rev-list", "--reverse", found.new).split()

    def symbols(job: Job | None) -> dict[str, str]:
        assert job
        (name,) = job.row.kconfig
        return {ask.symbol: ask.value for ask in found.declared.fragments[name].requests}

    assert symbols(found.make_job(commits[0])) == {"MMU": "y", "SWAP": "n", "KSM": "y"}
    assert symbols(found.make_job(commits[2])) == {"MMU": "y", "SWAP": "y", "ZRAM": "y", "KSM": "y"}
    assert symbols(found.make_job(commits[4])) == {"MMU": "y", "SWAP": "y", "ZRAM": "y"}
    assert symbols(found.leave_out(commits[1])) == {"MMU": "y", "SWAP": "n", "ZRAM": "y"}
    with pytest.raises(UsageError, match="request the same symbols"):
        make_config_line(job, ["one"], ["one"], declared, ground.place)


def test_patches_are_a_line(ground: Ground, make_series: MakeSeries) -> None:
    series = make_series("three", *({f"new{i}.c": ("", f"int new{i};\n")} for i in range(3)))
    job = Job(ROW, Variant("three", "three", ()), LocalTree("linux", ground.path), series, (DETERMINISTIC,))
    found = line.make_series_line(job, DECLARED, ground.place)
    commits = run_git(found.git_dir, "rev-list", "--reverse", f"{found.old}..{found.new}").split()
    assert [len(found.make_job(commit).series.patches) for commit in (found.old, *commits)] == [0, 1, 2, 3]
    left = found.leave_out(commits[0])
    assert left and [patch.name for patch in left.series.patches] == [p.name for p in series.patches[1:]]
    assert found.leave_out(commits[2]) is None
    # a patch for other kernels is none of the line
    other = replace(series.patches[1], when=Condition.parse("kernel<5.0"))
    job = replace(job, series=replace(series, patches=(series.patches[0], other, series.patches[2])))
    found = line.make_series_line(job, DECLARED, ground.place)
    last = found.make_job(found.new).series.patches
    assert [patch.name for patch in last] == [series.patches[0].name, series.patches[2].name]
    job = replace(job, series=replace(series, patches=(other,)))
    with pytest.raises(UsageError, match="three has no patch for linux"):
        line.make_series_line(job, DECLARED, ground.place)


def test_a_matrix_shows_what_is_not_as_claimed(make_series: MakeSeries) -> None:
    series = make_series("two", *({f"new{i}.c": ("", f"int new{i};\n")} for i in range(2)))
    claims = ({GOOD.test: Status.PASS}, {GOOD.test: Status.PASS})
    patches = tuple(replace(p, flips=c) for p, c in zip(series.patches, claims, strict=True))
    job = Job(
        ROW,
        Variant("two", "two", ()),
        LocalTree("linux", "/"),
        replace(series, patches=patches),
        (DETERMINISTIC,),
    )

    def record(result: TrialResult, version: str) -> JobRecord:
        return JobRecord(
            row="r",
            variant="c",
            arch="x86_64",
            tree="t",
            series="",
            tests={
                GOOD.test: tuple(f"{GOOD.test}[a={i}]" for i in (1, 2)) if result is PARTLY else (GOOD.test,)
            },
            version=version,
            results=(result,),
        )

    def make(*results: TrialResult, job: Job = job, version: str = "5.15.1") -> str:
        records = tuple(record(result, version) for result in results)
        return render(make_matrix(job, RunRecord("r-1", "", "", records)))

    said = make(FAILED, GOOD, GOOD)
    assert "fail -> pass  as claimed" in said
    assert "stays pass    CLAIMED: pass" in said
    assert "is NOT as series.yaml claims" in said
    assert "CLAIMED" not in make(FAILED, GOOD, GOOD).split("0002")[0]
    # one subtest passes, and nobody knows what another would have come to
    assert "fail -> -" in make(FAILED, PARTLY, GOOD)
    # what only the file for older kernels flips
    variant = Backport(Condition.parse("kernel<5.11"), patches[0].path, claims[0])
    first = replace(series.patches[0], backports=(variant,))
    other = replace(job, series=replace(series, patches=(first, series.patches[1])))
    assert "is as series.yaml claims" in make(FAILED, GOOD, GOOD, job=other, version="5.10.9")
    assert "CLAIMED: nothing" in make(FAILED, GOOD, GOOD, job=other)
    # a patch for other kernels
    later = replace(series.patches[1], when=Condition.parse("kernel>=5.15.25"), flips=claims[1])
    other = replace(job, series=replace(series, patches=(patches[0], later)))
    said = make(FAILED, GOOD, GOOD, job=other)
    assert said.splitlines()[3] == "  is for kernel>=5.15.25"
    assert "is as series.yaml claims" in said
    assert "stays pass    CLAIMED: pass" in make(FAILED, GOOD, GOOD, job=other, version="5.15.25")


def test_a_matrix_takes_the_row_that_runs_what_is_claimed(make_series: MakeSeries) -> None:
    series = make_series("one", {"new.c": ("", "int new;\n")})
    claiming = replace(series, patches=(replace(series.patches[0], flips={DETERMINISTIC.id: Status.PASS}),))
    variant = Variant("one", "one", ())
    tree = LocalTree("linux", "/")
    rows = (replace(ROW, name="other"), ROW)
    jobs = [
        Job(row, variant, tree, claiming, tests)
        for row, tests in zip(rows, ((), (DETERMINISTIC,)), strict=True)
    ]
    assert {job.row.name for job in list_prefixes(jobs, is_any_row=True)} == {ROW.name}
    for refused in (jobs, [replace(job, series=series) for job in jobs]):
        with pytest.raises(UsageError, match="and 2 match"):
            list_prefixes(refused, is_any_row=refused is not jobs)


# --- words


def ask(**words: str) -> Asked:
    empty = dict.fromkeys(("good", "bad", "find"), "")
    lists = {name: () for name in ("paths", "config_good", "config_bad")}
    return Asked(**{"test": "odirect.read", **empty, **lists, "confidence": 0.95, **words})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({}, "nothing to bisect"),
        ({"good": "v1"}, "BAD: is required"),
        ({"config_bad": ("base",)}, "CONFIG_GOOD: is required"),
        (
            {"good": "v1", "bad": "v2", "config_good": ("a",), "config_bad": ("b",)},
            "bisect commits or configs",
        ),
        ({"good": "v1", "bad": "v2"}, "expected a Debian version such as 6.1.170-3, got v1"),
    ],
)
def test_words_that_do_not_go_together(ground: Ground, words: dict[str, str], told: str) -> None:
    test, job = choose_job("odirect.read", Request(), DECLARED)
    with pytest.raises((UsageError, ExceptionGroup)) as error:
        make_question(ask(**words), test, job, DECLARED, ground.place)
    errors = getattr(error.value, "exceptions", [error.value])
    assert any(told in str(each) for each in errors)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("", "TESTS: is required"),
        ("odirect.read,odirect.write", "takes one test or subtest, got odirect.read,odirect.write"),
        ("odirect.read odirect.write", "takes one test or subtest"),
        ("odirect.*", "takes one test or subtest"),
        ("odirect.read[a=1],odirect.read[a=2]", "takes one test or subtest"),
        ("odirect.red", "nearest: odirect.read, odirect.write"),
        ("odirect.read[a=1,b=2]", "odirect.read has no subtest odirect.read[a=1,b=2]"),
    ],
)
def test_one_test_is_bisected(name: str, told: str) -> None:
    with pytest.raises((UsageError, ExceptionGroup)) as error:
        choose_job(name, Request(), DECLARED)
    (found,) = getattr(error.value, "exceptions", [error.value])
    assert told in str(found)


def test_the_first_row_that_has_the_test_is_taken() -> None:
    test, job = choose_job("vmsplice.child", Request(), DECLARED)
    assert (test.id, job.row.name, job.variant.name) == ("vmsplice.child", "demo", "plain")
    with pytest.raises(ExceptionGroup) as group:
        choose_job("vmsplice.child[x]", Request(rows=("demo", "small")), DECLARED)
    told = [str(error).splitlines()[0] for error in group.value.exceptions]
    assert told == ["TESTS: vmsplice.child has no subtest vmsplice.child[x]", "ROW: takes one row"]


# --- the commands


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("TESTS=odirect.rd-mprotect",), 128),
        (("KERNEL=.",), 128),
        (("TESTS=no.such", "KERNEL=."), 128),
        (("TESTS=odirect.rd-mprotect", "KERNEL=/nowhere"), 128),
        (("--no-such-option",), 128),
        (("NOPE=1",), 128),
        (("TESTS=odirect.rd-mprotect", "KERNEL=debian-5.10", "COWBELL"), 128),
    ],
)
def test_nothing_but_an_answer_is_taken_for_one(words: tuple[str, ...], status: int) -> None:
    """git bisect run takes 1 to 124, 126 and 127 for bad, 125 for a skip, and stops at 128 and above."""
    assert cowbell("bisect-step", *words).returncode == status


def test_the_host_s_trouble_stops_git(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder")
    done = cowbell("bisect-step", "TESTS=odirect.rd-mprotect", "KERNEL=debian-5.10", "ROW=demo")
    assert done.returncode == 129, done.stderr


def test_nothing_to_resume() -> None:
    done = cowbell("bisect", "RESUME=1")
    assert (done.returncode, "no unfinished bisection" in done.stderr) == (2, True)


def test_reports_of_a_bisection(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ground.start()
    outcome = ours.run()
    assert (ours.folder / "report.txt").read_text() == render_text(outcome)
    # both trials of the commit that was found
    assert len(list((ours.folder / "evidence").glob("odirect.rd-mprotect.demo.*.tar.zst"))) == 2
    mail = (ours.folder / "mail.txt").read_text()
    short = ground.commits[13][:12]
    assert f'Fixes: {short} ("change 13")' in mail
    assert f"\n#regzbot introduced: {short}\n" in mail
    assert max(map(len, mail.splitlines())) <= WIDTH
    monkeypatch.setenv("COWBELL_STORE", str(ground.place.store.root))
    shown = cowbell("report", "FORMAT=mail", f"RUN={ours.folder.name}")
    assert (shown.returncode, shown.stdout) == (0, mail)
    (ours.folder / "mail.txt").unlink()
    shown = cowbell("report", "FORMAT=mail", f"RUN={ours.folder.name}")
    assert (shown.returncode, "this bisection has no mail" in shown.stderr) == (2, True)
    told = read_product(render_product("bisect", vars_of(outcome) | {"is_found": outcome.is_found}))
    assert told["suspects"] == [ground.commits[13]]
    assert told["is_found"]
    assert [step["answer"] for step in told["steps"][:2]] == ["good", "bad"]
    assert dataclasses.asdict(outcome)["confidence"] == 0.95


def test_all_is_done_again_once(ground: Ground) -> None:
    ground.bisect()
    first = sorted(line for line in ground.told if line.startswith("run"))
    ground.told.clear()
    ground.bisect()
    assert not [line for line in ground.told if line.startswith("run")]
    ours = ground.start()
    again = Bisection(ours._request, ours._line.make_job(ours._line.new), ground.place, "tcg", "", redo=True)
    assert again.run().is_found
    assert sorted(line for line in ground.told if line.startswith("run")) == first


def test_only_what_was_interrupted_is_resumed(tmp_path: Path) -> None:
    """Neither what has ended, nor a question that had no answer."""
    for error in (UsageError("wrong"), None):
        with contextlib.suppress(UsageError), open_call(tmp_path / "one", ["bisect"]):
            if error:
                raise error
        with pytest.raises(UsageError):
            find_interrupted(tmp_path)
    with contextlib.suppress(KeyboardInterrupt), open_call(tmp_path / "two", ["bisect", "TESTS=x"]):
        raise KeyboardInterrupt
    assert find_interrupted(tmp_path) == (Path.cwd(), ["bisect", "TESTS=x"])


def read_steps(folder: Path) -> Iterator[str]:
    yield from (step["commit"] for step in json.loads((folder / "steps.json").read_text()))


def test_steps_are_kept_as_they_are_done(ground: Ground) -> None:
    ours = ground.start()
    seen: list[int] = []
    ground.on_run = lambda commit: seen.append(
        len(list(read_steps(ours.folder))) if (ours.folder / "steps.json").exists() else 0
    )
    outcome = ours.run()
    assert max(seen) >= len(outcome.steps) - 2
    assert list(read_steps(ours.folder)) == [step.commit for step in outcome.steps]
