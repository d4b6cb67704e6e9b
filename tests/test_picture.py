# SPDX-License-Identifier: GPL-2.0-or-later
"""README's picture shows the verdicts that ``make check`` is expected to have."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UsageError
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.plan import Job, Request, make_plan
from orchestrator.project.condition import Version
from orchestrator.project.matrix import Row, load_matrix
from orchestrator.report.report import Judged
from orchestrator.result.record import Expected, JobRecord, RunRecord, save_run
from orchestrator.result.verdict import find_expected
from orchestrator.status import Status
from orchestrator.store.store import Store
from tests.picture import PICTURE, ROOT, ROW, VERDICTS, find_run, hash_file, make_picture
from tests.samples import FAILED, GOOD

JOBS = make_plan(Request(rows=(ROW,)), load_declarations(ROOT))
AGAIN = "make check, then make picture"


def expect_verdicts(job: Job, version: str) -> dict[str, str]:
    """The verdict of each test and subtest of a variant by its expectations, on a version of the kernel."""
    expected = tuple(
        Expected(each.test, each.status, each.why)
        for each in job.variant.expect
        if each.when.holds(job.row.arch, Version.parse(version))
    )
    found = {}
    for test in job.tests:
        for name in test.subtests:
            each = find_expected(expected, test.id, name)
            found[name] = str(each.status.against(each.status) if each else Status.PASS)
    return found


@pytest.fixture
def shown() -> dict[str, dict[str, Any]]:
    """By variant, what the picture shows."""
    assert VERDICTS.exists(), AGAIN
    found = json.loads(VERDICTS.read_text())
    assert found["sha256"] == hash_file(PICTURE), AGAIN
    assert list(found["variants"]) == [job.variant.name for job in JOBS], AGAIN
    variants: dict[str, dict[str, Any]] = found["variants"]
    return variants


@pytest.mark.parametrize("job", JOBS, ids=[job.variant.name for job in JOBS])
def test_picture_shows_the_expected_verdicts(job: Job, shown: dict[str, dict[str, Any]]) -> None:
    variant = shown[job.variant.name]
    assert variant["verdicts"] == expect_verdicts(job, variant["version"]), AGAIN


def test_picture_shows_the_flips_that_the_series_claims(shown: dict[str, dict[str, Any]]) -> None:
    (job,) = [job for job in JOBS if job.series.name]
    variant = shown[job.variant.name]
    claimed = {
        test: status
        for patch in job.series.patches
        if (chosen := patch.choose(Version.parse(variant["version"])))
        for test, status in chosen.flips.items()
    }
    subtests = {test.id: test.subtests for test in job.tests if test.id in claimed}
    assert subtests
    for test, names in subtests.items():
        is_passing = all(variant["verdicts"][name] == "pass" for name in names)
        assert is_passing == (claimed[test] is Status.PASS), f"{test}: {AGAIN}"


@pytest.fixture
def row() -> Row:
    """The row demo with one test, as the run has it."""
    return replace(load_matrix(ROOT / "ci/matrix.yaml")[ROW], tests=(FAILED.test,))


@pytest.fixture
def run(row: Row) -> RunRecord:
    plain = JobRecord(
        row=row.name, variant="plain", arch=row.arch, tree=row.tree, series="", version="5.10.262",
        tests={FAILED.test: (FAILED.test,)}, expect=(), results=(FAILED,),
    )  # fmt: skip
    cow = replace(plain, variant="cow", series="cow", results=(GOOD,))
    return RunRecord("demo-0123456789ab", "cowbell test ROW=demo", "2024-01-15T12:00:00+00:00", (plain, cow))


def test_find_run_takes_the_last_run_with_all_variants(row: Row, run: RunRecord, tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.raises(UsageError, match="plain, cow"):
        find_run(store, row, ())
    later = replace(run, run_id="demo-ba9876543210", started="2024-01-16T12:00:00+00:00")
    half = replace(run, run_id="demo-aaaaaaaaaaaa", started="2024-01-17T12:00:00+00:00", jobs=run.jobs[:1])
    for each in (run, later, half):
        save_run(each, store.path("runs", each.run_id))
    assert find_run(store, row, ()).run.run_id == later.run_id
    assert find_run(store, row, [run.run_id]).run.run_id == run.run_id
    with pytest.raises(UsageError):
        find_run(store, row, [half.run_id])


@pytest.mark.chromium
def test_make_picture_writes_the_page_and_its_verdicts(run: RunRecord, tmp_path: Path) -> None:
    make_picture(Judged(run), tmp_path / "a.png", tmp_path / "a.json")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["sha256"] == hash_file(tmp_path / "a.png")
    assert found["variants"] == {
        "plain": {"version": "5.10.262", "verdicts": {FAILED.test: "fail"}},
        "cow": {"version": "5.10.262", "verdicts": {GOOD.test: "pass"}},
    }
