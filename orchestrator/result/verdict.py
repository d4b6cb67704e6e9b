# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes verdicts from a record; the functions are pure, so stored runs can be evaluated again.

Findings become verdicts by comparison with the expectations; a CRASH counts even if a failure is expected.
The worst trial determines the verdict of a test. Verdicts of races include the rate and its confidence.
"""

import fnmatch
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator.parse.ktap import Rate
from orchestrator.parse.printk import make_printable
from orchestrator.project.guesttest import is_match
from orchestrator.result import statistics
from orchestrator.result.finding import Finding
from orchestrator.result.judge import judge_result
from orchestrator.result.override import list_known
from orchestrator.result.record import Expected, Failure, JobRecord, Known, TargetRate, TrialResult
from orchestrator.status import Status

# the verdict of several trials is the first of these that occurs
WORST_FIRST = (
    Status.CRASH,
    Status.FAIL,
    Status.TIMEOUT,
    Status.BROKEN,
    Status.XPASS,
    Status.SKIP,
    Status.XFAIL,
    Status.PASS,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one subtest on one kernel. ``name`` is the test's id with its parameters, if any.

    ``raw`` is the outcome, ``status`` the outcome given the expectation. ``reason`` is one line, ``evidence``
    an excerpt of the output, ``stage`` the stage that decided. ``duration_s`` is that of the whole test, over
    all trials. ``rate`` is how often a race was hit, and
    ``interval`` (0 to 1) its confidence interval; without tries of its own, a trial counts as one try.
    ``trial`` is the trial that decided, of ``trials``; one more if that trial could not run.
    ``fingerprint`` is that of the first splat of a CRASH, ``known`` are the known issues that were ignored,
    each with its reason.
    """

    test: str
    name: str
    raw: Status
    status: Status
    expected: Status
    why_expected: str
    stage: str
    reason: str
    evidence: str
    duration_s: float
    rate: Rate | None = None
    interval: tuple[float, float] | None = None
    trial: int = 1
    trials: int = 1
    fingerprint: str = ""
    known: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """The outcome, and whether it was expected, as short text."""
        return self.status.label(self.raw)


def is_unexercised(job: JobRecord, verdict: Verdict) -> bool:
    """Whether a row lists a test by name, and the test was skipped though nobody expects that."""
    is_skip = verdict.status is Status.SKIP and verdict.expected is not Status.SKIP
    return is_skip and verdict.test in job.named


def judge_job(job: JobRecord) -> tuple[Verdict, ...]:
    """A verdict for each planned subtest, in order; none for a job that was left out."""
    results: dict[str, list[TrialResult]] = {}
    for result in job.results:
        results.setdefault(result.test, []).append(result)
    verdicts: list[Verdict] = []
    for test, subtests in {} if job.left_out else job.tests.items():
        trials = results.get(test, [])
        known = list_known(trials, job.known)
        found = _judge_trials(trials, subtests, job.known, job.target_rates, is_race=test in job.races)
        for finding in found if trials else _judge_missing(job, subtests or (test,)):
            finding = _weigh(finding, find_target_rate(job.target_rates, finding.name))
            lost = (
                _judge_lost(job.failure, finding, len(trials))
                if job.failure and trials and test in job.failure.unfinished
                else None
            )
            finding = lost or finding
            expected = find_expected(job.expect, test, finding.name)
            wanted, why = _apply_expectation(expected, finding)
            verdicts.append(
                Verdict(
                    test=test,
                    name=make_printable(finding.name),
                    raw=finding.status,
                    status=finding.status.against(wanted),
                    expected=wanted,
                    why_expected=why,
                    stage=job.failure.stage if job.failure and (lost or not trials) else "run",
                    reason=make_printable(finding.reason),
                    evidence=make_printable(finding.evidence),
                    duration_s=sum(trial.duration_s for trial in trials),
                    rate=finding.rate,
                    interval=statistics.find_interval(finding.rate) if finding.rate else None,
                    trial=finding.trial,
                    trials=len(trials),
                    fingerprint=finding.fingerprint,
                    known=known,
                )
            )
    return tuple(verdicts)


def judge_trial(job: JobRecord, result: TrialResult) -> tuple[Verdict, ...]:
    """The verdicts of one trial by itself: a target rate applies to all trials together."""
    tests = {result.test: job.tests.get(result.test, ())}
    alone = replace(job, tests=tests, results=(result,), target_rates={}, failure=None, left_out="")
    return judge_job(alone)


def summarize_trial(verdicts: Sequence[Verdict]) -> tuple[Status, str]:
    """The worst of one trial's verdicts, and a line with it, the test and its duration."""
    worst = min(verdicts, key=lambda verdict: WORST_FIRST.index(verdict.status))
    text = f"{worst.label} {worst.test} {worst.duration_s:.1f}s"
    number = sum(verdict.status is worst.status for verdict in verdicts)
    if number < len(verdicts):
        text += f" ({number} of {len(verdicts)} subtests)"
    return worst.status, f"{text}, trial {worst.trial}" if worst.trial > 1 else text


def _apply_expectation(expected: Expected | None, finding: Finding) -> tuple[Status, str]:
    """The expected status and the reason; PASS if the expectation is over or is for another crash."""
    if not expected:
        return Status.PASS, ""
    if expected.is_over:
        return Status.PASS, f"expectation ended: {expected.status} until {expected.until}: {expected.why}"
    if (
        expected.fingerprint
        and finding.status is Status.CRASH
        and not fnmatch.fnmatchcase(finding.fingerprint, expected.fingerprint)
    ):
        this = finding.fingerprint or "no console output"
        return Status.PASS, f"expected another crash, {expected.fingerprint}, got {this}: {expected.why}"
    return expected.status, f"until {expected.until}: {expected.why}" if expected.until else expected.why


def is_conclusive(result: TrialResult, subtests: tuple[str, ...], splats: tuple[Known, ...] = ()) -> bool:
    """Whether a stored result answers the question, so that the test need not run again.

    ``splats`` are the known issues, which are ignored.
    """
    return all(finding.status is not Status.BROKEN for finding in judge_result(result, subtests, splats))


def is_answered(
    trials: Sequence[TrialResult],
    subtests: tuple[str, ...],
    target_rates: Mapping[str, TargetRate],
    splats: tuple[Known, ...] = (),
) -> bool:
    """Whether a race needs no more trials: each subtest has failed, has no rate, or has so many misses that
    its rate is below its target rate. ``splats`` are the known issues.
    """
    return all(
        finding.status is not Status.PASS
        or not lacks_tries(finding.rate, find_target_rate(target_rates, finding.name))
        for finding in _judge_trials(trials, subtests, splats, target_rates, is_race=True)
    )


def lacks_tries(rate: Rate | None, target: TargetRate | None) -> bool:
    """Whether a race that was not hit was tried too seldom to be below its target rate."""
    return (
        rate is not None
        and target is not None
        and rate.tries < statistics.find_tries(target.rate, target.risk)
    )


def find_target_rate(target_rates: Mapping[str, TargetRate], name: str) -> TargetRate | None:
    """The target rate of a subtest, or of its test if that declares none."""
    return target_rates.get(name) or target_rates.get(name.partition("/")[0])


def find_expected(expect: tuple[Expected, ...], test: str, name: str) -> Expected | None:
    """The first expectation whose id or glob matches the test, or the subtest with its parameters."""
    for expected in expect:
        if is_match(expected.test, test) or is_match(expected.test, name):
            return expected
    return None


def _judge_trials(
    trials: Sequence[TrialResult],
    subtests: tuple[str, ...],
    known: tuple[Known, ...],
    target_rates: Mapping[str, TargetRate],
    *,
    is_race: bool,
) -> Iterator[Finding]:
    """A finding for each subtest over all trials: the worst one, with the rates added up.

    A race that must reach a target rate is not tried by a guest that has no CPU.
    """
    found: dict[str, list[Finding]] = {}
    for result in trials:
        for finding in judge_result(result, subtests, known):
            found.setdefault(finding.name, []).append(replace(finding, trial=result.trial))
    for name, findings in found.items():
        if is_race and find_target_rate(target_rates, name):
            findings = [_take_tries(finding) for finding in findings]
        worst = min(findings, key=lambda finding: WORST_FIRST.index(finding.status))
        number = sum(finding.status is worst.status for finding in findings)
        if number < len(trials):
            worst = replace(worst, reason=f"{number} of {len(trials)} trials: {worst.reason}")
        is_starved = any(finding.is_starved for finding in findings)
        yield replace(worst, rate=_add_rates(findings, is_race=is_race), is_starved=is_starved)


def _take_tries(finding: Finding) -> Finding:
    """The finding with no tries if the guest was starved and the race did not happen."""
    is_try = not finding.is_starved or finding.status is not Status.PASS
    return finding if is_try else replace(finding, rate=Rate(0, 0))


def _add_rates(findings: Iterable[Finding], *, is_race: bool) -> Rate | None:
    """The sum of the rates; a conclusive trial of a race without a rate counts as one try."""
    rates = [
        finding.rate or Rate(int(finding.status.is_kernel_fault), 1)
        for finding in findings
        if finding.rate or (is_race and (finding.status.is_kernel_fault or finding.status is Status.PASS))
    ]
    return sum(rates[1:], rates[0]) if rates else None


def _weigh(finding: Finding, target: TargetRate | None) -> Finding:
    """The finding with its rate, the confidence, and whether the target rate was reached."""
    rate = finding.rate
    is_aimed = target is not None and finding.status is Status.PASS
    if not rate or rate.hits > rate.tries or not (rate.tries or is_aimed):
        return finding
    if not rate.hits and finding.status.is_kernel_fault:
        # it failed, but not by a hit that it counts
        return finding
    text = statistics.describe(rate)
    if target and is_aimed:
        text += f"; target rate {statistics.percent(target.rate)} ({target.origin})"
        if lacks_tries(rate, target):
            text += f", inconclusive: {statistics.find_tries(target.rate, target.risk)} tries needed"
            if finding.is_starved:
                text += ", without those in which the host gave the guest no CPU"
    return replace(finding, reason=f"{finding.reason}; {text}" if finding.reason else text)


def _judge_missing(job: JobRecord, subtests: tuple[str, ...]) -> Iterator[Finding]:
    for name in subtests:
        if job.failure:
            reason = f"{job.failure.stage}: {job.failure.what}"
            yield Finding(name, _find_status(job.failure), reason, job.failure.hint)
        else:
            yield Finding(name, Status.BROKEN, "was not run")


def _judge_lost(failure: Failure, finding: Finding, trials: int) -> Finding | None:
    """The finding for a trial that was never run; None if the existing finding is at least as bad."""
    status = min(finding.status, _find_status(failure), key=WORST_FIRST.index)
    if status is finding.status:
        return None
    text = f"{failure.stage}, for trial {trials + 1}: {failure.what}"
    reason = f"{text}; before: {finding.reason}" if finding.reason else text
    return replace(finding, status=status, reason=reason, evidence=failure.hint, trial=trials + 1)


def _find_status(failure: Failure) -> Status:
    """CRASH if the kernel did not boot; other failures of a stage say nothing about it."""
    return Status.CRASH if failure.stage == "boot" else Status.BROKEN
