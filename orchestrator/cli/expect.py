# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the expectations that a run implies: new ones for failures, and those that no longer hold.

Only what was observed becomes an expectation: on the tested minor version, architecture and series. A crash
is expected only if its test is named, and only with its fingerprint; BROKEN and failures before the test
never are.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.plan.plan import Declarations
from orchestrator.project.condition import Version
from orchestrator.project.expectationfile import NewEntry
from orchestrator.project.guesttest import is_match
from orchestrator.project.matrix import Expectation
from orchestrator.report.report import Judged
from orchestrator.result.record import JobRecord
from orchestrator.result.verdict import Verdict, find_expected
from orchestrator.status import Status

_FILL_IN = "FILL IN"


@dataclass(frozen=True, slots=True)
class Proposal:
    """The changes of the file. ``left`` are unexpected verdicts that do not change it, with the reason."""

    added: tuple[NewEntry, ...]
    removed: tuple[Expectation, ...]
    left: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Kernel:
    """On which kernels something was observed."""

    series: str
    arch: str
    minor: tuple[int, int]

    @property
    def when(self) -> str:
        major, minor = self.minor
        return f"kernel>={major}.{minor} kernel<{major}.{minor + 1} arch={self.arch}"


@dataclass(slots=True)
class _Seen:
    """What the run says about expectations of the file: by expectation, the verdicts that it led to."""

    passed: dict[Expectation, set[tuple[str, _Kernel]]] = field(default_factory=dict)
    failed: dict[Expectation, str] = field(default_factory=dict)


def propose(judged: Judged, declared: Declarations, file: Path, globs: Sequence[str]) -> Proposal:
    """The changes that make the verdicts of a run expected, of the tests that ``globs`` select."""
    subtests = {test.id: test.subtests or (test.id,) for test in declared.tests}
    found: dict[tuple[str, Status, str, _Kernel], dict[str, str]] = {}
    left: dict[str, str] = {}
    seen = _Seen()
    for job, verdicts in judged.jobs:
        for verdict in verdicts:
            who = f"{verdict.name} on {job.row}/{job.variant}"
            if globs and not any(is_match(g, name) for g in globs for name in (verdict.test, verdict.name)):
                continue
            expectation = _find_expectation(job, verdict, declared)
            if verdict.status is Status.XPASS:
                if reason := _judge_pass(job, verdict, expectation, file):
                    left[who] = reason
                elif expectation:
                    seen.passed.setdefault(expectation, set()).add((verdict.name, _find_kernel(job)))
            elif verdict.status.is_bad:
                if reason := _judge_failure(job, verdict, expectation, declared, globs):
                    left[who] = reason
                else:
                    fingerprint = verdict.fingerprint if verdict.raw is Status.CRASH else ""
                    key = verdict.test, verdict.raw, fingerprint, _find_kernel(job)
                    found.setdefault(key, {})[verdict.name] = verdict.reason
            if expectation and verdict.status is not Status.XPASS and verdict.raw is not Status.SKIP:
                seen.failed.setdefault(expectation, who)
    removed = []
    for expectation, passed in seen.passed.items():
        if reason := _find_doubt(expectation, passed, seen, subtests):
            left |= {f"{name} on {kernel.when}": reason for name, kernel in sorted(passed, key=str)}
        else:
            removed.append(expectation)
    return Proposal(tuple(_merge(found, subtests)), tuple(removed), tuple(left.items()))


def _find_kernel(job: JobRecord) -> _Kernel:
    return _Kernel(job.series, job.arch, Version.parse(job.version).numbers[:2])


def _find_expectation(job: JobRecord, verdict: Verdict, declared: Declarations) -> Expectation | None:
    """The declared expectation that led to the expectation of a verdict, if it is still declared."""
    known = find_expected(job.expect, verdict.test, verdict.name)
    if not known:
        return None
    return next(
        (
            one
            for one in (*_list_of_row(job, declared), *declared.expectations)
            if (one.test, one.status, one.why, one.fingerprint)
            == (known.test, known.status, known.why, known.fingerprint)
        ),
        None,
    )


def _list_of_row(job: JobRecord, declared: Declarations) -> tuple[Expectation, ...]:
    variants = declared.rows[job.row].variants if job.row in declared.rows else ()
    return next((variant.expect for variant in variants if variant.name == job.variant), ())


def _judge_pass(job: JobRecord, verdict: Verdict, expectation: Expectation | None, file: Path) -> str:
    """Why an unexpected pass does not remove its expectation; empty if it may."""
    if not expectation:
        return "its expectation has changed since the run"
    if expectation.where.rpartition(":")[0] != str(file):
        return f"its expectation is not in {file}: remove it at {expectation.where}"
    if verdict.test in job.races:
        return f"a race may pass by chance; its expectation is at {expectation.where}"
    if not job.version:
        return "the run does not know the version of the kernel"
    return ""


def _judge_failure(
    job: JobRecord,
    verdict: Verdict,
    expectation: Expectation | None,
    declared: Declarations,
    globs: Sequence[str],
) -> str:
    """Why a failure is not written down as expected; empty if it is."""
    if verdict.raw is Status.BROKEN:
        return "BROKEN says nothing about the kernel"
    if verdict.stage != "run":
        return f"the stage {verdict.stage} failed, so the test did not run"
    if verdict.test not in {test.id for test in declared.tests}:
        return "it is not a test of guest-tests/ or a selftest that Cowbell knows"
    if job.series and job.series not in declared.series:
        return f"{job.series} is not a series of patches/"
    if not job.version:
        return "the run does not know the version of the kernel"
    if expectation and verdict.why_expected.startswith("expectation ended: "):
        return f"its expectation has ended: change until: at {expectation.where}"
    if expectation and expectation in _list_of_row(job, declared):
        return f"expect: of the row comes first: change it at {expectation.where}"
    if verdict.raw is Status.CRASH and not verdict.fingerprint:
        return "a crash without a fingerprint cannot be told from another one"
    if verdict.raw is Status.CRASH and not {verdict.test, verdict.name} & set(globs):
        return f"a crash, {verdict.fingerprint}; to expect it, name the test: TESTS={verdict.test}"
    return ""


def _find_doubt(
    expectation: Expectation,
    passed: set[tuple[str, _Kernel]],
    seen: _Seen,
    subtests: Mapping[str, Sequence[str]],
) -> str:
    """Why an expectation is kept: it still holds for a result, or covers more than what has passed."""
    if expectation in seen.failed:
        return f"its expectation holds for {seen.failed[expectation]}: narrow it at {expectation.where}"
    names = [
        name
        for test, parts in subtests.items()
        for name in parts
        if is_match(expectation.test, test) or is_match(expectation.test, name)
    ]
    minors = {kernel.minor for _, kernel in passed}
    is_covered = _is_within(expectation, minors) and all(
        any((name, _Kernel(series, arch, minor)) in passed for minor in minors)
        for name in names
        for series in expectation.series
        for arch in expectation.when.arches
    )
    return (
        ""
        if is_covered
        else f"its expectation covers more than the run tested: narrow it at {expectation.where}"
    )


def _is_within(expectation: Expectation, minors: set[tuple[int, int]]) -> bool:
    """Whether an expectation is for one minor version only, which was tested."""
    return not expectation.when.others and any(
        any(sign in (">=", ">") and bound >= Version((*minor, 0)) for sign, bound in expectation.when.bounds)
        and any(
            (sign == "<" and bound <= Version((minor[0], minor[1] + 1, 0)))
            or (sign == "<=" and bound < Version((minor[0], minor[1] + 1, 0)))
            for sign, bound in expectation.when.bounds
        )
        for minor in minors
    )


def _merge(
    found: Mapping[tuple[str, Status, str, _Kernel], Mapping[str, str]], subtests: Mapping[str, Sequence[str]]
) -> Iterator[NewEntry]:
    """An entry per failure: one for all subtests of a test, and for all series, that fail alike."""
    series: dict[tuple[str, Status, str, str], list[str]] = {}
    reasons: dict[tuple[str, Status, str, str], str] = {}
    for (test, status, fingerprint, kernel), names in found.items():
        words = [test] if set(subtests[test]) <= set(names) else list(names)
        for word in words:
            key = word, status, fingerprint, kernel.when
            series.setdefault(key, []).append(kernel.series)
            reasons.setdefault(key, names.get(word) or next(iter(names.values())))
    for key, of in series.items():
        word, status, fingerprint, when = key
        reason = textwrap.shorten(reasons[key], 120, placeholder="...")
        why = f"{_FILL_IN}: {reason}" if reason else _FILL_IN
        yield NewEntry(word, status, when, why, tuple(sorted(set(of))), fingerprint)
