# SPDX-License-Identifier: GPL-2.0-or-later
"""Coverage: which results count, and which are reported as missing."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.history.coverage import (
    explain_tests,
    find_observations,
    find_target_rates,
    list_entries,
    list_proofs,
    list_tests,
    load_runs,
    make_coverage,
    make_proofs,
    render_coverage,
    render_proofs,
)
from orchestrator.parse.ktap import Rate
from orchestrator.project.changelog import Statement, load_changelog
from orchestrator.project.guesttest import SELFTEST, GuestTest, load_tests
from orchestrator.report.report import Judged, list_explanations
from orchestrator.result.record import Expected, JobRecord, RunRecord, TrialResult, save_run
from orchestrator.status import Status
from tests.conftest import ROOT
from tests.samples import FAILED, GOOD

CURRENT = {(GOOD.test, "x86_64"): GOOD.content_id}
TEST = GuestTest(
    id=GOOD.test, path=Path("guest-tests/odirect/rd-mprotect.c"), language="c", content_id="c",
    summary="no byte is lost", kind="deterministic", timeout_s=30, mechanism="the page is copied",
    changelog="29b", needs_kconfig="USERFAULTFD=y", needs_root=True, min_kernel="4.3", cpus=2, memory_mib=768,
)  # fmt: skip
ENTRIES = (Statement("29b", "reads lose nothing", ""), Statement("38", "words", "no program sees it"))


def make_run(number: int, *variants: tuple[str, str, TrialResult]) -> RunRecord:
    """Runs an hour apart; a variant is (version, series, result)."""
    jobs = tuple(
        JobRecord(
            row="demo", variant=series or "plain", arch="x86_64", tree="t", series=series,
            tests={GOOD.test: (GOOD.test,)}, version=version, results=(result,),
        )
        for version, series, result in variants
    )  # fmt: skip
    return RunRecord(f"demo-{number}", "cowbell test", f"2024-01-15T{number:02}:00:00+00:00", jobs)


PAIR = make_run(1, ("5.10.262", "", FAILED), ("5.10.262", "cow", GOOD))


def test_both_sides_of_a_pair() -> None:
    seen = find_observations([PAIR], CURRENT)
    (proof,) = make_proofs([TEST], seen.values())
    assert (tuple(proof.failed_on), tuple(proof.passed_on)) == (("5.10.262",), ("5.10.262 + cow",))
    assert proof.is_two_sided
    assert "1 of 1 subtests seen both ways" in render_proofs([proof])
    assert list_proofs([proof])[0]["passed_on"] == ["5.10.262 + cow"]


@pytest.mark.parametrize(
    "result",
    [
        replace(FAILED, content_id="an older version of the test"),
        replace(FAILED, stdout="", exit_status=4),
        replace(GOOD, stdout=GOOD.stdout.replace("mprotect\n", "mprotect # SKIP no\n")),
    ],
    ids=["older", "broken", "skip"],
)  # fmt: skip
def test_what_proves_nothing(result: TrialResult) -> None:
    seen = find_observations([make_run(1, ("5.10.262", "", result))], CURRENT)
    (proof,) = make_proofs([TEST], seen.values())
    assert not proof.failed_on and not proof.passed_on
    assert "never seen to do either: 1\n    odirect.rd-mprotect" in render_proofs([proof])


SKIPPED = replace(GOOD, stdout=GOOD.stdout.replace("mprotect\n", "mprotect # SKIP no\n"))


@pytest.mark.parametrize(
    ("named", "results", "expect", "told"),
    [
        ((GOOD.test,), (SKIPPED, SKIPPED), (), "that names it: 1\n    odirect.rd-mprotect: demo"),
        # named by a pattern, exercised on one of the kernels, or expected
        ((), (SKIPPED, SKIPPED), (), ""),
        ((GOOD.test,), (SKIPPED, GOOD), (), ""),
        ((GOOD.test,), (SKIPPED, SKIPPED), (Expected(GOOD.test, Status.SKIP, "there is no disk"),), ""),
    ],
    ids=["skipped", "pattern", "one kernel", "expected"],
)  # fmt: skip
def test_a_test_that_its_row_names_and_only_skips_is_not_exercised(
    named: tuple[str, ...], results: tuple[TrialResult, TrialResult], expect: tuple[Expected, ...], told: str
) -> None:
    run = make_run(1, ("5.10.262", "", results[0]), ("5.10.262", "cow", results[1]))
    run = replace(run, jobs=tuple(replace(job, named=named, expect=expect) for job in run.jobs))
    proofs = make_proofs([TEST], find_observations([run], CURRENT).values())
    text = render_proofs(proofs)
    assert told in text
    assert ("not exercised" in text) == ("not exercised" in Judged(run).summary) == bool(told)
    assert [title for title, _ in list_explanations(Judged(run)) if "not exercised" in title] == (
        [f"not exercised: {GOOD.test}, which row demo lists by name"] if told else []
    )


def test_the_lowest_known_rate_is_the_target() -> None:
    def rated(hits: int) -> TrialResult:
        told = f"# rate: {hits} of 1000 tries\nnot ok 1"
        return replace(FAILED, stdout=GOOD.stdout.replace("ok 1", told))

    variants = [("5.10.262", "", rated(500)), ("5.15.100", "", rated(20)), ("6.1", "", GOOD)]
    (target_rates,) = find_target_rates(
        make_proofs([TEST], find_observations([make_run(1, *variants)], CURRENT).values())
    ).values()
    assert target_rates.origin == "20 of 1000 on 5.15.100"
    assert 0.01 < target_rates.rate < 0.02
    assert not find_target_rates(make_proofs([TEST], find_observations([PAIR], CURRENT).values()))


def test_one_sided_is_reported() -> None:
    (proof,) = make_proofs([TEST], find_observations([make_run(1, ("6.1", "", GOOD))], CURRENT).values())
    assert "never seen to FAIL: 1\n    odirect.rd-mprotect" in render_proofs([proof])
    assert "0 of 1 subtests seen both ways" in render_proofs([proof])


def test_the_last_run_counts() -> None:
    runs = [make_run(1, ("6.1", "", FAILED)), make_run(2, ("6.1", "", GOOD))]
    (proof,) = make_proofs([TEST], find_observations(runs, CURRENT).values())
    assert (tuple(proof.failed_on), tuple(proof.passed_on)) == ((), ("6.1",))


def rated(result: TrialResult, rate: str) -> TrialResult:
    return replace(result, stdout=result.stdout.replace("1..1\n", f"1..1\n# rate: {rate} tries\n"))


def test_rates_are_told_with_the_kernel_and_add_up() -> None:
    pair = make_run(1, ("5.10.262", "", rated(FAILED, "3 of 1800")), ("6.1", "", rated(GOOD, "0 of 900")))
    other = make_run(2, ("6.1", "", rated(GOOD, "0 of 100")))
    other = replace(other, jobs=tuple(replace(job, row="numa") for job in other.jobs))
    seen = list(find_observations([pair, other], CURRENT).values())
    (proof,) = make_proofs([TEST], seen)
    assert "FAIL  5.10.262 (3 of 1800)\n    PASS  6.1 (0 of 1000)\n" in render_proofs([proof])
    assert list_proofs([proof])[0]["rates"] == {
        "fail": {"5.10.262": Rate(3, 1800)},
        "pass": {"6.1": Rate(0, 1000)},
    }
    assert "on 6.1 (numa, 0 of 100)" in explain_tests([TEST], seen)


def test_a_test_that_declares_no_subtests_has_those_that_were_seen() -> None:
    test = replace(TEST, language=SELFTEST)
    run = make_run(1, ("6.1", "", GOOD))
    run = replace(run, jobs=tuple(replace(job, tests={GOOD.test: ()}) for job in run.jobs))
    seen = list(find_observations([run], CURRENT).values())
    (proof,) = make_proofs([test], seen)
    assert (proof.name, list(proof.passed_on)) == (f"{GOOD.test}/{GOOD.test}", ["6.1"])
    assert f"PASS {GOOD.test}/{GOOD.test} on 6.1" in explain_tests([test], seen)


def test_runs_are_read_in_the_order_of_their_start(tmp_path: Path) -> None:
    for run in (make_run(9), make_run(3)):
        save_run(run, tmp_path / run.run_id)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "record.json").write_text('{"schema": 1}')
    (tmp_path / "latest").symlink_to("demo-9")
    assert [run.run_id for run in load_runs(tmp_path)] == ["demo-3", "demo-9"]


def test_coverage_of_the_changelog() -> None:
    seen = list(find_observations([PAIR], CURRENT).values())
    coverage = make_coverage(ENTRIES, [TEST], seen)
    text = render_coverage(coverage)
    assert (
        "29b  reads lose nothing\n      odirect.rd-mprotect      5.10.262: fail; 5.10.262 + cow: pass" in text
    )
    assert "38  words\n      no program sees it" in text
    assert "1 of 2 entries have a test" in text
    told = list_entries(coverage)[0]
    assert told["tests"][GOOD.test] == {"5.10.262": (Status.FAIL,), "5.10.262 + cow": (Status.PASS,)}


def test_explanation() -> None:
    seen = list(find_observations([PAIR], CURRENT).values())
    text = explain_tests([TEST], seen)
    for told in (
        "the page is copied",
        "USERFAULTFD=y, root, kernel >= 4.3, 2 CPUs, 768 MiB",
        "FAIL",
        "(demo)",
    ):
        assert told in text
    assert "not run yet" in explain_tests([TEST], [])
    (test,) = list_tests([TEST], seen)
    assert (test["id"], [one.status for one in test["seen"]]) == (GOOD.test, ["fail", "pass"])


def test_wrong_changelog(tmp_path: Path) -> None:
    file = tmp_path / "changelog.yaml"
    assert load_changelog([file], [TEST]) == ()
    file.write_text('entries: [{id: "1", says: a}, {id: "1", says: b}]\n')
    with pytest.raises(ExceptionGroup) as caught:
        load_changelog([file], [TEST])
    told = sorted(str(error) for error in caught.value.exceptions if isinstance(error, UsageError))
    assert told == [
        f"{file}:1: duplicate entry 1, the first is in line 1",
        f"{TEST.path}: changelog: changelog.yaml has no entry 29b",
    ]


def test_shipped_changelog() -> None:
    tests = load_tests(ROOT / "guest-tests")
    entries = load_changelog([ROOT / "guest-tests" / "changelog.yaml"], tests)
    assert len(entries) == 45
    assert not [entry.id for entry in entries if entry.uncovered and any(
        entry.id in test.changelog.split() for test in tests
    )]  # fmt: skip
