# SPDX-License-Identifier: GPL-2.0-or-later
"""From a version of a Debian tree that passes and one that fails to the version that made the difference.

The mirror and the guests are pretended; packages, sources and builds of a small kernel, git, its bisection,
the store, trials and verdicts are real.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.bisect import bisection
from orchestrator.bisect.answer import Answer
from orchestrator.bisect.bisection import Bisection
from orchestrator.bisect.gitbisect import Find
from orchestrator.bisect.outcome import BisectResult, render_mail, render_text
from orchestrator.bisect.versionline import choose_between
from orchestrator.cli.bisect import Asked, make_question
from orchestrator.errors import InfraError, UsageError
from orchestrator.kernel.fragment import Fragment, SymbolRequest
from orchestrator.plan.plan import Declarations, Job
from orchestrator.plan.steps import Goal
from orchestrator.plan.workspace import Workspace
from orchestrator.project.condition import Condition
from orchestrator.project.matrix import Variant
from orchestrator.result.record import TrialResult
from orchestrator.source.debian import make_key
from orchestrator.source.fetch import fetch_tree, find_fetched, list_fetched_versions
from orchestrator.source.series import Series
from orchestrator.source.tree import DebianTree
from orchestrator.source.versions import DebianVersion
from orchestrator.store.name import make_name
from orchestrator.store.store import Store
from tests.conftest import FAKE_TREE, TWO_SUITES, MakeSeries, Mirror, QuietProgress, cowbell
from tests.gitserver import run_git
from tests.records import make_run, store_trials
from tests.samples import DECLARED, DETERMINISTIC, FAILED, GOOD, RACE, ROW

# the oldest first; one is only there as a rebuild, and one as a rebuild too
OFFERED = {
    "5.10.209-2": ("bookworm",),
    "5.10.216-1": ("bookworm",),
    "5.10.218-1~deb11u1": ("bullseye-security",),
    "5.10.221-1~deb11u1": ("bullseye-security",),
    "5.10.221-1": ("bookworm", "bullseye-security"),
    "5.10.223-1": ("bookworm",),
    "5.10.226-1": ("bullseye-security",),
    "5.10.230-1": ("bookworm",),
}
OLD, NEW = "5.10.209-2", "5.10.230-1"
IN_BETWEEN = ["5.10.216-1", "5.10.218-1~deb11u1", "5.10.221-1", "5.10.223-1", "5.10.226-1"]
EMPTY = Fragment("a", "little", Condition(), (SymbolRequest("PVH", "y", "a:1"),), "", frozenset())
DECLARATIONS = replace(DECLARED, trees={TWO_SUITES.name: TWO_SUITES}, fragments={"a": EMPTY}, fixups=())


class Bench:
    """A Debian tree with several versions: the results of the test on each, and the runs."""

    def __init__(self, mirror: Mirror, place: Workspace) -> None:
        self.mirror, self.place = mirror, place
        self.test = DETERMINISTIC
        self.first = "5.10.221-1"
        self.older, self.newer = FAILED, GOOD
        self.ran: list[str] = []
        self.kept: dict[str, list[TrialResult]] = {}
        self.tree: DebianTree = TWO_SUITES
        self.series = Series()

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
        fetch_tree(job.tree, place.store, place.progress)
        assert isinstance(job.tree, DebianTree)
        version = job.tree.version
        known = self.kept.setdefault(version, [])
        while place.repeat.wants_more(self.test, known):
            self.ran.append(version)
            is_older = make_key(version) < make_key(self.first)
            known.append(replace(self.older if is_older else self.newer, trial=len(known) + 1))
        run_id = f"demo-{make_name(version)}-{len(known)}"
        store_trials(place.store, run_id, command, job, self.test, known)
        return run_id, True

    def start(self, good: str = NEW, bad: str = OLD, **words: object) -> Bisection:
        row = replace(ROW, kconfig=("a",))
        job = Job(row, Variant("plain", self.series.name, ()), self.tree, self.series, (self.test,))
        lists = {name: () for name in ("paths", "config_good", "config_bad")}
        told = {"test": self.test.id, "good": good, "bad": bad, "find": "", **lists, "confidence": 0.95}
        asked = Asked(**{**told, **words})  # type: ignore[arg-type]
        question = make_question(asked, self.test, job, DECLARATIONS, self.place)
        return Bisection(question, job, self.place, "tcg", "cowbell bisect")

    def bisect(self, good: str = NEW, bad: str = OLD, **words: object) -> BisectResult:
        return self.start(good, bad, **words).run()

    @property
    def fetched(self) -> set[str]:
        return set(list_fetched_versions(TWO_SUITES, self.place.store))


@pytest.fixture
def bench(
    mirror: Mirror, tmp_path: Path, store: Store, progress: QuietProgress, monkeypatch: pytest.MonkeyPatch
) -> Bench:
    bench = Bench(mirror, Workspace(tmp_path, store, progress))
    for version, suites in OFFERED.items():
        for suite in suites:
            if version != "5.10.226-1":
                mirror.add(version, suite)
    monkeypatch.setattr(bisection, "run_jobs", bench.run)
    return bench


def list_steps(outcome: BisectResult, role: str = "step") -> list[str]:
    return [step.subject for step in outcome.steps if step.role == role]


# --- what is found


@pytest.mark.parametrize("first", ["5.10.216-1", "5.10.221-1", NEW])
def test_the_version_with_the_fix_is_found(bench: Bench, first: str) -> None:
    bench.first = first
    outcome = bench.bisect()
    previous = [OLD, *IN_BETWEEN, NEW][[OLD, *IN_BETWEEN, NEW].index(first) - 1]
    assert (outcome.kind, outcome.find, outcome.is_found) == ("version", Find.FIX, True)
    assert outcome.names == (f"fake-5.10:{OLD}", f"fake-5.10:{NEW}")
    assert (list_steps(outcome, "again"), outcome.previous) == ([first, previous], previous)
    assert len(list_steps(outcome)) <= 3
    assert bench.fetched == {OLD, NEW, *list_steps(outcome)}, "no other one is downloaded"
    git_dir, base = bench.place.store.path("git", "kernels.git"), bench.place.store
    commits = [find_fetched(TWO_SUITES.at(version), base) for version in (previous, first)]
    words = " ".join(src.commit[:12] for src in commits if src)
    assert outcome.difference == f"git -C {git_dir} diff {words} -- mm"
    changed = run_git(git_dir, "diff", "--name-only", *words.split())
    assert changed == "init/main.c"
    text = render_text(outcome)
    assert (
        f"the first version that fixes {DETERMINISTIC.id} (fail):\n  {first}, after {previous}\n  git -C"
        in text
    )
    assert f"it and {previous} gave the same results when tested again" in " ".join(text.split())
    assert outcome.suspects[0][:12] not in text
    assert not render_mail(outcome, make_run())
    assert outcome.previous == previous


def test_the_version_with_the_break_is_found(bench: Bench) -> None:
    bench.older, bench.newer = GOOD, FAILED
    outcome = bench.bisect(good=OLD, bad=NEW)
    assert (outcome.find, outcome.is_found) == (Find.BREAK, True)
    assert "the first version that breaks" in render_text(outcome)
    assert outcome.previous == "5.10.218-1~deb11u1"
    assert not render_mail(outcome, make_run()), "nobody upstream knows a Debian version"


def test_a_race_is_bisected_over_versions(bench: Bench) -> None:
    bench.test = RACE
    outcome = bench.bisect()
    assert (list_steps(outcome, "again")[0], outcome.is_found) == ("5.10.221-1", True)


def test_a_series_goes_upon_each_version(bench: Bench, make_series: MakeSeries) -> None:
    bench.series = make_series("one", {"new.c": ("", "int new;\n")})
    assert bench.bisect().is_found


# --- what is on the line


def test_a_rebuild_is_no_other_version() -> None:
    def choose(*versions: str, fetched: str = "", old: str = "1-1", new: str = "9-1") -> list[str]:
        listed = [DebianVersion(version, ("x",), version == fetched) for version in versions]
        return choose_between(listed, old, new)

    assert choose("3-1", "3-1~deb11u1", "3-1~bpo12+1", "2-1~deb11u1", "9-1", "0-1") == ["2-1~deb11u1", "3-1"]
    assert choose("3-1", "3-1~deb11u1", fetched="3-1~deb11u1") == ["3-1~deb11u1"]
    assert choose("3-1", "3-1~rc7", "3-1+deb11u1") == ["3-1~rc7", "3-1", "3-1+deb11u1"]
    # nor is one of an end
    assert choose("1-1", "9-1~deb11u1", "1-1~deb11u1", "4-1") == ["4-1"]


def test_what_was_fetched_is_on_the_line_though_the_mirror_has_it_no_more(bench: Bench) -> None:
    fetch_tree(TWO_SUITES.at("5.10.221-1"), bench.place.store, bench.place.progress)
    for version in ("5.10.221-1", "5.10.221-1~deb11u1"):
        for suite in OFFERED[version]:
            bench.mirror.remove(version, suite)
    outcome = bench.bisect()
    assert list_steps(outcome, "again")[0] == "5.10.221-1"


def test_dry_run_counts_versions(bench: Bench) -> None:
    told = bench.start().describe()
    assert told == (
        f"test fake-5.10:{OLD} and fake-5.10:{NEW}, then version by version: 6 candidates, about 3 steps"
    )
    assert bench.fetched == set()


# --- versions that cannot be tested


def test_a_version_that_is_not_there_any_more_is_skipped(bench: Bench) -> None:
    """The lists have it, and the mirror does not, or the lists neither by then."""
    bench.first = "5.10.216-1"
    ours = bench.start()
    bench.mirror.remove("5.10.221-1", "bookworm")
    bench.mirror.remove("5.10.221-1", "bullseye-security")
    outcome = ours.run()
    assert outcome.is_found
    (skipped,) = [step for step in outcome.steps if step.answer is Answer.SKIP]
    assert (skipped.subject, skipped.stage) == ("5.10.221-1", "source")
    assert "skipped 5.10.221-1: source: linux-source-5.10 5.10.221-1 cannot be downloaded" in render_text(
        outcome
    )


def test_skipped_versions_are_suspects(bench: Bench) -> None:
    ours = bench.start()
    bench.mirror.remove("5.10.221-1", "bookworm")
    bench.mirror.remove("5.10.221-1", "bullseye-security")
    outcome = ours.run()
    assert not outcome.is_found
    text = render_text(outcome)
    assert "one of these 2 fixes" in text
    assert "\n  5.10.221-1\n" in text
    assert (outcome.previous, outcome.difference) == ("", "")


def test_the_mirror_s_trouble_ends_it_and_it_goes_on_later(bench: Bench) -> None:
    ours = bench.start()
    fetch_tree(TWO_SUITES.at(OLD), bench.place.store, bench.place.progress)
    fetch_tree(TWO_SUITES.at(NEW), bench.place.store, bench.place.progress)
    with bench.mirror.unreachable(), pytest.raises(ExceptionGroup) as group:
        ours.run()
    assert isinstance(group.value.exceptions[0], InfraError)
    ran = list(bench.ran)
    # a new version in between does not change the id of the bisection
    bench.mirror.add("5.10.217-1")
    again = bench.start()
    assert again.folder == ours.folder
    assert again.run().is_found
    assert bench.ran[: len(ran)] == ran
    assert bench.ran.count(OLD) <= 2


# --- words


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ({"good": "5.10.1-1"}, ["GOOD: there is no version 5.10.1-1 of fake-5.10"]),
        (
            {"good": "5.10.1-1", "bad": "5.10.2-1"},
            ["GOOD: there is no version 5.10.1-1", "BAD: there is no version 5.10.2-1"],
        ),
        ({"good": OLD}, ["GOOD, BAD: are the same version"]),
        ({"good": "v5.10"}, ["GOOD: expected a Debian version such as 6.1.170-3, got v5.10"]),
        ({"paths": ("mm",)}, ["PATHS: applies to commits only"]),
        ({"find": "break"}, ["FIND: contradicts the versions: GOOD= is the newer one"]),
        ({"good": OLD, "bad": NEW, "find": "fix"}, ["FIND: contradicts the versions: BAD= is the newer one"]),
        ({"bad": ""}, ["BAD: is required"]),
    ],
)
def test_words_that_do_not_go_together(bench: Bench, words: dict[str, str], told: list[str]) -> None:
    with pytest.raises(ExceptionGroup) as group:
        bench.start(**words)
    assert all(isinstance(error, UsageError) for error in group.value.exceptions)
    for text, error in zip(told, group.value.exceptions, strict=True):
        assert text in str(error)
    assert bench.fetched == set()


def test_find_may_be_said(bench: Bench) -> None:
    assert bench.start(find="fix").folder == bench.start().folder


def test_ends_can_not_be_looked_up(bench: Bench) -> None:
    with bench.mirror.unreachable(), pytest.raises(InfraError, match="cannot be looked up"):
        bench.start()


def test_a_version_of_the_tree_is_of_no_account(bench: Bench) -> None:
    folder = bench.start().folder
    bench.tree = TWO_SUITES.at("5.10.216-1")
    assert bench.start().folder == folder


def test_the_command(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "mine/patches").mkdir(parents=True)
    file = tmp_path / "mine/patches/trees.yaml"
    file.write_text(f"trees:\n  fake-5.10: {{debian: {FAKE_TREE.package}, suite: {TWO_SUITES.suite}}}\n")
    words = ("-n", "bisect", "ROW=demo", "TESTS=odirect.rd-mprotect", "KERNEL=fake-5.10")
    done = cowbell(*words, f"GOOD={NEW}", f"BAD={OLD}", cwd=tmp_path / "mine")
    assert (done.returncode, "version by version: 6 candidates" in done.stdout) == (0, True), done.stderr
    for more, status, told in (
        ((f"GOOD={NEW}", "BAD=5.10.1-1"), 2, "BAD: there is no version 5.10.1-1"),
        ((f"GOOD={NEW}", f"BAD={NEW}"), 2, "are the same version"),
    ):
        done = cowbell(*words, *more, cwd=tmp_path / "mine")
        assert (done.returncode, told in done.stderr) == (status, True), done.stderr
    with bench.mirror.unreachable():
        store = f"{tmp_path}/other"
        done = cowbell(*words, f"GOOD={NEW}", f"BAD={OLD}", cwd=tmp_path / "mine", COWBELL_STORE=store)
    assert done.returncode == 3, done.stderr
