# SPDX-License-Identifier: GPL-2.0-or-later
"""Known issues, expectations with an end date, and invalid ones of both."""

import datetime
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import UsageError
from orchestrator.parse.console import parse_console
from orchestrator.project.guesttest import GuestTest
from orchestrator.project.knownissues import load_known_issues
from orchestrator.project.matrix import load_matrix
from orchestrator.report.report import Judged, list_explanations
from orchestrator.result.record import Ended, Expected, JobRecord, Known, RunRecord, TargetRate, TrialResult
from orchestrator.result.repeat import AUTO, Repeat
from orchestrator.result.verdict import is_conclusive
from orchestrator.status import Status
from tests.conftest import LOGS, ROOT, read_log
from tests.samples import GOOD, WARNING, judge

COMPLAINS = replace(GOOD, console=GOOD.console.replace("[    2.1", WARNING + "[    2.1"), taint_after=1 << 9)
FINGERPRINT = "warning:do_wp_page/handle_mm_fault"
KNOWN = Known("warning:do_wp_page*", "seen on every kernel of the kind, and harmless")


def test_a_known_splat_is_ignored_and_reported() -> None:
    (verdict,) = judge(COMPLAINS)
    assert (verdict.status, verdict.fingerprint) == (Status.CRASH, FINGERPRINT)
    (verdict,) = judge(COMPLAINS, known=(KNOWN,))
    assert verdict.status is Status.PASS
    (told,) = verdict.known
    assert told.startswith("WARNING at mm/memory.c:3190 do_wp_page")
    assert FINGERPRINT in told and KNOWN.why in told
    tests = {GOOD.test: (GOOD.test,)}
    job = JobRecord("row", "plain", "x86_64", "t", "", tests, known=(KNOWN,), results=(COMPLAINS,))
    explained = dict(list_explanations(Judged(RunRecord("row-1", "cowbell", "2024-01-15", (job,)))))
    assert any("known issue: WARNING at" in text for text in explained.values())


@pytest.mark.parametrize(
    "result",
    [
        replace(
            COMPLAINS, console=f"{COMPLAINS.console}[    2.200000] BUG: Bad page state in process a  pfn:1\n"
        ),
        replace(COMPLAINS, taint_after=1 << 9 | 1 << 5),
        replace(COMPLAINS, console=GOOD.console),
    ],
    ids=["another splat", "another taint", "a taint without the splat"],
)
def test_nothing_else_is_passed_over_with_it(result: TrialResult) -> None:
    (verdict,) = judge(result, known=(KNOWN,))
    assert verdict.status is Status.CRASH


def test_a_known_splat_is_no_answer() -> None:
    """Neither in the rate of a race, nor for BROKEN results."""
    race = GuestTest(GOOD.test, Path("x.c"), "c", "0", "", "race", 5)
    auto = Repeat(AUTO, {GOOD.test: TargetRate(0.5, "known")})
    assert not auto.wants_more(race, [COMPLAINS])
    assert [auto.wants_more(race, [COMPLAINS] * n, (KNOWN,)) for n in (1, 4, 5)] == [True, True, False]
    broken = replace(COMPLAINS, stdout="")
    assert is_conclusive(broken, (GOOD.test,))
    assert not is_conclusive(broken, (GOOD.test,), (KNOWN,))


def test_splats_are_told_once_with_how_often() -> None:
    (verdict,) = judge(replace(GOOD, console=GOOD.console.replace("[    2.1", WARNING * 3 + "[    2.1")))
    assert verdict.reason.endswith("(3 times)")
    assert verdict.evidence.count("cut here") == 1


def test_an_expected_crash_is_the_one_with_its_fingerprint() -> None:
    expected = Expected(GOOD.test, Status.CRASH, "it is being looked into", fingerprint=FINGERPRINT)
    (verdict,) = judge(COMPLAINS, expect=(expected,))
    assert verdict.status is Status.XFAIL
    (verdict,) = judge(COMPLAINS, expect=(replace(expected, fingerprint="oops:*"),))
    assert verdict.status is Status.CRASH
    assert f"expected another crash, oops:*, got {FINGERPRINT}" in verdict.why_expected
    (verdict,) = judge(replace(GOOD, ended=Ended.HANG, exit_status=None), expect=(expected,))
    assert verdict.status is Status.CRASH
    assert f"expected another crash, {FINGERPRINT}, got no console output" in verdict.why_expected


def test_a_fingerprint_is_that_of_crashes_alone() -> None:
    """A pass instead of the expected crash is unexpected, and a failure is no other crash."""
    expected = Expected(GOOD.test, Status.CRASH, "it is being looked into", fingerprint=FINGERPRINT)
    (verdict,) = judge(GOOD, expect=(expected,))
    assert (verdict.status, verdict.why_expected) == (Status.XPASS, expected.why)
    failed = replace(GOOD, stdout=GOOD.stdout.replace("ok 1", "not ok 1"), exit_status=1)
    (verdict,) = judge(failed, expect=(expected,))
    assert (verdict.status, verdict.why_expected) == (Status.FAIL, expected.why)


def test_an_expectation_ends() -> None:
    failed = replace(GOOD, stdout=GOOD.stdout.replace("ok 1", "not ok 1"), exit_status=1)
    expected = Expected(GOOD.test, Status.FAIL, "a patch is on its way", until="2027-03-01")
    (verdict,) = judge(failed, expect=(expected,))
    assert (verdict.status, verdict.why_expected) == (Status.XFAIL, "until 2027-03-01: a patch is on its way")
    (verdict,) = judge(failed, expect=(replace(expected, is_over=True),))
    assert verdict.status is Status.FAIL
    assert verdict.why_expected == "expectation ended: fail until 2027-03-01: a patch is on its way"
    (verdict,) = judge(GOOD, expect=(replace(expected, is_over=True),))
    assert verdict.status is Status.PASS


SPLATS = [
    splat
    for path in sorted(LOGS.glob("*.log"))
    for splat in parse_console(read_log(path.stem)).faults
    if splat.excerpt
]


@given(st.sampled_from(SPLATS), st.integers(0, len(GOOD.console)))
def test_no_run_passes_whose_log_has_a_splat(splat: object, place: int) -> None:
    lines = [*GOOD.console.splitlines(keepends=True)]
    at = place % (len(lines) + 1)
    text = "".join([*lines[:at], f"{splat.excerpt}\n", *lines[at:]])  # type: ignore[attr-defined]
    (verdict,) = judge(replace(GOOD, console=text))
    assert verdict.status is not Status.PASS


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_list_is_read(tmp_path: Path) -> None:
    file = write(
        tmp_path / "known-splats.yaml",
        "splats:\n  - {fingerprint: 'warning:foo/*', when: kernel<5.11, why: harmless, until: 2027-03-01}\n",
    )
    (known,) = load_known_issues(file)
    assert (known.fingerprint, known.until, known.where) == (
        "warning:foo/*", datetime.date(2027, 3, 1), f"{file}:2",
    )  # fmt: skip
    assert load_known_issues(tmp_path / "none.yaml") == ()


def test_all_that_is_wrong_with_the_list_is_reported(tmp_path: Path) -> None:
    file = write(
        tmp_path / "known-splats.yaml",
        "splats:\n  - {fingerprint: '*', why: all of them}\n  - {fingerprint: 'oom:a', why: no fault}\n"
        "  - {fingerprint: 'warning:*', why: any}\n  - {fingerprint: 'bug:a', why: b, until: soon}\n",
    )
    with pytest.raises(ExceptionGroup) as raised:
        load_known_issues(file)
    told = [str(error) for error in raised.value.exceptions]
    assert [text.split(":")[1] for text in told] == ["2", "3", "4", "5"]
    assert "expected a day like 2027-03-01, got soon" in told[-1]
    assert all(isinstance(error, UsageError) for error in raised.value.exceptions)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("status: fail, until: 1.3.2027", "expected a day like 2027-03-01, got 1.3.2027"),
        ("status: fail, fingerprint: 'bug:a'", "only valid with status: crash, got fail"),
    ],
)
def test_what_is_wrong_with_an_expectation_is_told(tmp_path: Path, words: str, told: str) -> None:
    text = (ROOT / "ci" / "matrix.yaml").read_text()
    first = '- {test: "fork.basic-cow", status: fail, why: injected bug}'
    assert first in text
    file = write(tmp_path / "matrix.yaml", text.replace(first, f"- {{test: a, why: b, {words}}}"))
    line = text[: text.index(first)].count("\n") + 1
    with pytest.raises(ExceptionGroup) as raised:
        load_matrix(file)
    (error,) = raised.value.exceptions
    assert f"{file}:{line}" in str(error) and told in str(error)
