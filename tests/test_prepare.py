# SPDX-License-Identifier: GPL-2.0-or-later
"""Every series is applied and every config is checked before the first object is compiled."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import StageFailure
from orchestrator.kernel.fragment import load_fragments
from orchestrator.pipeline import build_jobs, run_jobs
from orchestrator.plan.plan import Declarations, Job
from orchestrator.plan.steps import build_job, prepare_job
from orchestrator.plan.workspace import Workspace
from orchestrator.process.workers import Limits
from orchestrator.project.matrix import Variant
from orchestrator.result.record import load_run
from orchestrator.source.debian import UnavailableError
from orchestrator.source.series import Series
from orchestrator.source.tree import DebianTree
from orchestrator.store.store import Store
from tests.conftest import FAKE_TREE, MakeSeries, Mirror, QuietProgress
from tests.samples import DECLARED, ROW

SWAP = {"mm/swap.c": ("+ 1", "+ 2")}


@pytest.fixture
def declared(tmp_path: Path) -> Declarations:
    folder = tmp_path / "kconfigs"
    folder.mkdir()
    (folder / "base.config").write_text("#: about a\nCONFIG_BLOCK=y\n")
    (folder / "lost.config").write_text("#: about a\nCONFIG_FROBNICATE=y\n")
    return replace(DECLARED, fragments=load_fragments(folder))


@pytest.fixture
def place(tmp_path: Path, store: Store, progress: QuietProgress, mirror: Mirror) -> Workspace:
    return Workspace(tmp_path, store, progress)


def make_job(name: str, series: Series = Series(), config: str = "base") -> Job:  # noqa: B008
    row = replace(ROW, tree=FAKE_TREE.name, kconfig=(config,))
    return Job(row, Variant(name, series.name, ()), FAKE_TREE, series, DECLARED.tests)


def list_compiled(store: Store) -> list[Path]:
    return list(store.root.glob("trees/*/*/**/*.o"))


def test_all_that_is_wrong_is_told_and_nothing_is_built(
    declared: Declarations, place: Workspace, store: Store, make_series: MakeSeries
) -> None:
    twice = make_series("twice", SWAP, SWAP | {"mm/memory.c": ("copies", "frobs")})
    jobs = [make_job("plain"), make_job("twice", twice), make_job("lost", config="lost")]
    with pytest.raises(ExceptionGroup) as raised:
        run_jobs(jobs, declared, place, "tcg", "cowbell test")
    applies, survives = raised.value.exceptions
    assert isinstance(applies, StageFailure)
    assert applies.what.startswith("0002-twice.patch does not apply")
    assert isinstance(survives, StageFailure)
    assert (survives.stage, survives.what) == ("kconfig", "1 requested symbol(s) were dropped or changed")
    assert "lost.config:2: FROBNICATE" in survives.hint
    assert not list_compiled(store)
    assert not list(store.root.glob("kernels/*"))


def test_with_keep_going_the_others_are_built(
    declared: Declarations, place: Workspace, make_series: MakeSeries
) -> None:
    twice = make_series("twice", SWAP, SWAP)
    jobs = [make_job("plain"), make_job("twice", twice)]
    going = replace(place, keep_going=True, limits=Limits(is_keeping_going=True))
    with pytest.raises(ExceptionGroup, match="jobs") as raised:
        build_jobs(jobs, declared, going)
    assert ["0002-twice.patch" in str(error) for error in raised.value.exceptions] == [True]
    assert len(list((place.store.root / "kernels").iterdir())) == 1


def test_with_keep_going_a_tree_that_can_not_be_had_keeps_no_other_back(
    declared: Declarations, place: Workspace
) -> None:
    elsewhere = replace(make_job("lost"), tree=DebianTree("nowhere", "linux-source-9.9", FAKE_TREE.suite))
    going = replace(place, keep_going=True, limits=Limits(is_keeping_going=True))
    with pytest.raises(ExceptionGroup, match="jobs") as raised:
        build_jobs([elsewhere, make_job("plain")], declared, going)
    assert [type(error) for error in raised.value.exceptions] == [UnavailableError]
    assert len(list((place.store.root / "kernels").iterdir())) == 1


def test_a_job_that_is_alone_is_recorded(
    declared: Declarations, place: Workspace, make_series: MakeSeries
) -> None:
    """There is nothing that it keeps from being built, and a bisection wants to know of it."""
    run_id, _ = run_jobs(
        [make_job("twice", make_series("twice", SWAP, SWAP))], declared, place, "tcg", "cowbell test"
    )
    (record,) = load_run(place.store.path("runs", run_id) / "record.json").jobs
    assert record.failure
    assert record.failure.stage == "source"
    assert record.version == "5.10.226"


def count_kconfig(progress: QuietProgress) -> int:
    return len([subject for stage, subject in progress.stages if stage == "kconfig"])


def test_kconfig_is_asked_once_for_a_tree(
    declared: Declarations,
    place: Workspace,
    progress: QuietProgress,
    make_series: MakeSeries,
) -> None:
    """A series that touches no Kconfig file is not asked about, one that does is."""
    cow = make_series("cow", SWAP)
    menu = make_series("menu", {"mm/Kconfig": ("", "config FROB\n")})
    asked = [
        (make_job("plain"), 1),
        (make_job("cow", cow), 1),
        (make_job("menu", menu), 2),
        (make_job("plain"), 2),
    ]
    for job, times in asked:
        assert not prepare_job(job, declared, place).failure
        assert count_kconfig(progress) == times


def test_kconfig_leaves_the_worktree_alone(
    declared: Declarations, place: Workspace, progress: QuietProgress, make_series: MakeSeries
) -> None:
    """A worktree that goes to and fro is compiled again. The build takes the config that was made."""
    jobs = [
        make_job("menu", make_series("menu", SWAP | {"mm/Kconfig": ("", "config FROB\n")})),
        make_job("plain"),
    ]
    for job in jobs:
        prepare_job(job, declared, place)
    shutil.rmtree(place.store.path("configs"))
    (swap,) = place.store.root.glob("trees/*/source/mm/swap.c")
    before = swap.stat().st_mtime_ns
    progress.stages.clear()
    *_, prepared = [prepare_job(job, declared, place) for job in jobs]
    assert swap.stat().st_mtime_ns == before
    assert count_kconfig(progress) == 2
    made = {path.read_text() for path in place.store.root.glob("configs/*/config")}
    kernel = build_job(jobs[-1], declared, place, prepared)
    assert count_kconfig(progress) == 2
    assert (kernel.folder / "config").read_text() in made


def test_log_of_a_kconfig_that_fails_is_kept(
    declared: Declarations, place: Workspace, make_series: MakeSeries
) -> None:
    broken = make_series("broken", {"FAIL": ("", "kconfig\n")})
    failure = prepare_job(make_job("broken", broken), declared, place).failure
    assert isinstance(failure, StageFailure)
    assert failure.stage == "kconfig"
    assert failure.log
    assert "Kconfig:12: syntax error" in failure.log.read_text()
