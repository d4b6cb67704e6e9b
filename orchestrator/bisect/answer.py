# SPDX-License-Identifier: GPL-2.0-or-later
"""Maps the verdicts of a bisection step to good, bad or skip.

A step is bad only if it fails in the same way as the bad end; a step that fails in another way is skipped.
The functions are pure, so stored steps can be evaluated again.
"""

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.result.record import TargetRate
from orchestrator.result.verdict import Verdict, find_target_rate, lacks_tries
from orchestrator.status import Status


class Answer(StrEnum):
    """The answer for ``git bisect``. Any inconclusive result is a skip."""

    GOOD = "good"
    BAD = "bad"
    SKIP = "skip"

    @property
    def other(self) -> "Answer":
        """The opposite answer, for a search for the fix."""
        return {Answer.GOOD: Answer.BAD, Answer.BAD: Answer.GOOD, Answer.SKIP: Answer.SKIP}[self]

    @property
    def exit_status(self) -> int:
        """The exit status for ``git bisect run``."""
        return {Answer.GOOD: 0, Answer.BAD: 1, Answer.SKIP: 125}[self]


@dataclass(frozen=True, slots=True)
class FailureMode:
    """How a subtest fails.

    ``fingerprint`` is that of a crash, or a glob; None matches any, an empty one a crash without output.
    """

    status: Status
    stage: str = "run"
    fingerprint: str | None = None

    def matches(self, verdict: Verdict) -> bool:
        return (
            verdict.raw is self.status
            and verdict.stage == self.stage
            and (self.fingerprint is None or fnmatch.fnmatchcase(verdict.fingerprint, self.fingerprint))
        )

    def __str__(self) -> str:
        where = "" if self.stage == "run" else f" at {self.stage}"
        return f"{self.status}{where}{f' {self.fingerprint}' if self.fingerprint else ''}"


def find_failure_modes(
    good: Sequence[Verdict], bad: Sequence[Verdict], fingerprint: str = ""
) -> dict[str, FailureMode]:
    """The subtests that pass at the good end and fail at the bad one, and how they fail.

    With a ``fingerprint`` or glob, only crashes that match it are failures.
    """
    passing = {verdict.name for verdict in good if verdict.raw is Status.PASS}
    modes = {
        verdict.name: FailureMode(verdict.raw, verdict.stage, fingerprint or verdict.fingerprint)
        for verdict in bad
        if verdict.raw.is_kernel_fault and verdict.name in passing
    }
    crashes = {verdict.name for verdict in bad if fnmatch.fnmatchcase(verdict.fingerprint, fingerprint)}
    return {name: mode for name, mode in modes.items() if not fingerprint or name in crashes}


def describe(verdicts: Iterable[Verdict]) -> str:
    return "; ".join(
        f"{verdict.name} {verdict.raw}{f', {verdict.reason}' if verdict.reason else ''}"
        for verdict in verdicts
    )


def find_answer(
    verdicts: Sequence[Verdict], failing: Mapping[str, FailureMode], target_rates: Mapping[str, TargetRate]
) -> tuple[Answer, str]:
    """The answer and the reason. Good means that all of ``failing`` pass; races must pass often enough."""
    found = {verdict.name: verdict for verdict in verdicts}
    doubts: list[str] = []
    reasons: list[str] = []
    for name, how in failing.items():
        verdict = found.get(name)
        if verdict is None:
            doubts.append(f"{name} has no result")
        elif how.matches(verdict):
            return Answer.BAD, f"{name}: {verdict.reason or verdict.raw}"
        elif verdict.raw is not Status.PASS:
            what = f"{name}: {verdict.raw}: {verdict.reason}"
            doubts.append(f"{what}, expected {how}" if verdict.raw.is_kernel_fault else what)
        elif lacks_tries(verdict.rate, find_target_rate(target_rates, name)):
            doubts.append(f"{name}: {verdict.reason}")
        else:
            reasons.append(verdict.reason or f"{name}: {verdict.raw}")
    return (Answer.SKIP, "; ".join(doubts)) if doubts else (Answer.GOOD, "; ".join(reasons))


def make_default_failure_modes(verdicts: Iterable[Verdict], fingerprint: str) -> dict[str, FailureMode]:
    """The failures that ``bisect-step`` counts as bad: any failure of a subtest, or one crash by fingerprint.

    A kernel that does not boot is a skip: it says nothing about the test.
    """
    if fingerprint:
        return {verdict.name: FailureMode(Status.CRASH, "run", fingerprint) for verdict in verdicts}
    return {
        verdict.name: FailureMode(verdict.raw if verdict.raw.is_kernel_fault else Status.FAIL)
        for verdict in verdicts
    }
