# SPDX-License-Identifier: GPL-2.0-or-later
"""A record in, verdicts out: a pure function, so that stored runs can be judged again.

A case passes only on positive evidence: a whole KTAP stream whose plan is met, exit status 0, a guest that
still answers, a kernel log without a splat and a taint that did not grow. Whatever is missing or
contradicts itself is BROKEN; whatever the kernel complained of is a CRASH, also where a failure is expected.
Of several trials of a case the worst decides. A race says its rate, and how sure that is.
What the kernel's own selftests will say is not declared, so the plan of their stream is what must be met.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestrator import odds
from orchestrator.console import ConsoleLog, parse_console
from orchestrator.guesttest import is_match
from orchestrator.ktap import Ktap, Rate, Result, parse_ktap
from orchestrator.printk import make_printable
from orchestrator.record import CaseResult, Ended, Expected, JobRecord, Sought
from orchestrator.splat import SplatKind
from orchestrator.status import Status

# taint bits that a healthy kernel never sets: bad page, oops, WARN, soft lockup, machine check
_BAD_TAINT = {1 << 4: "M", 1 << 5: "B", 1 << 7: "D", 1 << 9: "W", 1 << 14: "L"}
# how the kernel's selftests end, and announce what they run (tools/testing/selftests/kselftest.h)
_KSFT_FAIL, _KSFT_SKIP = 1, 4
_ANNOUNCED = "[RUN] "
# of several trials, the first of these that came decides
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
    """What one subtest came to on one kernel. ``name`` is the case's id, with parameters if it has any.

    ``raw`` is what happened, ``status`` that seen through the expectation. ``reason`` says why in one line,
    ``evidence`` shows it, ``stage`` is where it was decided. ``rate`` is how often a race was hit, and
    ``interval`` (0 to 1) where its true rate lies; a race that tells no tries has its trials for them.
    ``trial`` is the number of the trial that decided, of ``trials``.
    """

    case: str
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


@dataclass(frozen=True, slots=True)
class _Finding:
    name: str
    status: Status
    reason: str
    evidence: str = ""
    rate: Rate | None = None
    trial: int = 1


def judge_job(job: JobRecord) -> tuple[Verdict, ...]:
    """A verdict for every subtest that was planned, in that order; none for a job that was left out."""
    results: dict[str, list[CaseResult]] = {}
    for result in job.results:
        results.setdefault(result.case, []).append(result)
    verdicts: list[Verdict] = []
    for case, subtests in {} if job.left_out else job.cases.items():
        trials = results.get(case, [])
        found = _judge_trials(trials, subtests, is_race=case in job.races)
        stage = "run" if trials or not job.failure else job.failure.stage
        for finding in found if trials else _judge_missing(job, subtests or (case,)):
            finding = _weigh(finding, job.sought.get(finding.name))
            expected = find_expected(job.expect, case, finding.name)
            verdicts.append(
                Verdict(
                    case=case,
                    name=make_printable(finding.name),
                    raw=finding.status,
                    status=finding.status.against(expected.status if expected else Status.PASS),
                    expected=expected.status if expected else Status.PASS,
                    why_expected=expected.why if expected else "",
                    stage=stage,
                    reason=make_printable(finding.reason),
                    evidence=make_printable(finding.evidence),
                    duration_s=sum(trial.duration_s for trial in trials),
                    rate=finding.rate,
                    interval=odds.find_interval(finding.rate) if finding.rate else None,
                    trial=finding.trial,
                    trials=len(trials),
                )
            )
    return tuple(verdicts)


def is_conclusive(result: CaseResult, subtests: tuple[str, ...]) -> bool:
    """Whether a stored result answers the question, so that the case need not run again."""
    return all(finding.status is not Status.BROKEN for finding in _judge_result(result, subtests))


def is_answered(
    trials: Sequence[CaseResult], subtests: tuple[str, ...], sought: Mapping[str, Sought]
) -> bool:
    """Whether a race need not be tried once more: each of its subtests has failed, or says nothing, or was
    missed so often that its rate is below what was sought.
    """
    return all(
        finding.status is not Status.PASS
        or not finding.rate
        or finding.rate.tries >= odds.find_tries(sought[finding.name].rate)
        for finding in _judge_trials(trials, subtests, is_race=True)
    )


def find_expected(expect: tuple[Expected, ...], case: str, name: str) -> Expected | None:
    """The first expectation whose id or glob is the case's, or the subtest's with its parameters."""
    for expected in expect:
        if is_match(expected.case, case) or is_match(expected.case, name):
            return expected
    return None


def _judge_trials(
    trials: Sequence[CaseResult], subtests: tuple[str, ...], *, is_race: bool
) -> Iterator[_Finding]:
    """A finding for each subtest over all trials: the worst one, with the rates added up."""
    found: dict[str, list[_Finding]] = {}
    for result in trials:
        for finding in _judge_result(result, subtests):
            found.setdefault(finding.name, []).append(replace(finding, trial=result.trial))
    for findings in found.values():
        worst = min(findings, key=lambda finding: WORST_FIRST.index(finding.status))
        number = sum(finding.status is worst.status for finding in findings)
        if number < len(trials):
            worst = replace(worst, reason=f"{number} of {len(trials)} trials: {worst.reason}")
        yield replace(worst, rate=_add_rates(findings, is_race=is_race))


def _add_rates(findings: Iterable[_Finding], *, is_race: bool) -> Rate | None:
    """How often it was hit in all; a trial that tells no tries is one itself, if it says anything."""
    rates = [
        finding.rate or Rate(int(finding.status.is_kernel_fault), 1)
        for finding in findings
        if finding.rate or (is_race and (finding.status.is_kernel_fault or finding.status is Status.PASS))
    ]
    return sum(rates[1:], rates[0]) if rates else None


def _weigh(finding: _Finding, sought: Sought | None) -> _Finding:
    """A finding that says how sure its rate is, and whether that answers what was sought."""
    if not finding.rate or not finding.rate.hits <= finding.rate.tries > 0:
        return finding
    if not finding.rate.hits and finding.status.is_kernel_fault:
        # it failed in another way than the one that it counts
        return finding
    told = odds.describe(finding.rate)
    if sought and finding.status is Status.PASS:
        enough = odds.find_tries(sought.rate)
        told += f"; sought at least {odds.percent(sought.rate)} ({sought.origin})"
        if finding.rate.tries < enough:
            told += f", NOT ENOUGH, which takes {enough} tries"
    return replace(finding, reason=f"{finding.reason}; {told}" if finding.reason else told)


def _judge_missing(job: JobRecord, subtests: tuple[str, ...]) -> Iterator[_Finding]:
    for name in subtests:
        if job.failure:
            # a kernel that does not boot is the kernel's fault; one that can not be had says nothing
            status = Status.CRASH if job.failure.stage == "boot" else Status.BROKEN
            yield _Finding(name, status, f"{job.failure.stage}: {job.failure.what}", job.failure.hint)
        else:
            yield _Finding(name, Status.BROKEN, "was not run")


def _judge_result(result: CaseResult, subtests: tuple[str, ...]) -> Iterator[_Finding]:
    """A finding for each subtest that the case declares, and one for whatever else is wrong."""
    if not subtests:
        yield from _judge_selftest(result)
        return
    stream = parse_ktap(result.stdout)
    leaves = dict(stream.flatten())
    doubt = _find_doubt(result)
    problems = "; ".join(stream.problems)
    evidence = (result.stdout + result.stderr)[-2000:]
    all_ok = all(leaf.ok for leaf in leaves.values())
    for name in subtests:
        leaf = leaves.pop(name, None)
        if doubt and (leaf is None or leaf.status is not Status.SKIP):
            yield _Finding(name, doubt.status, doubt.reason, doubt.evidence)
        elif leaf is None or not stream.is_complete:
            reason = f"{_find_oom(result)}{problems or 'no result line'}"
            yield _Finding(name, Status.BROKEN, reason, evidence)
        elif all_ok != (result.exit_status == 0):
            reason = f"says {'ok' if all_ok else 'not ok'} and exits with {result.exit_status}"
            yield _Finding(name, Status.BROKEN, reason, evidence)
        else:
            # the rate is told with how sure it is
            lines = [line for line in leaf.diagnostics if not line.startswith("rate: ")]
            said = leaf.reason or (lines[-1] if lines else "")
            if leaf.status is Status.TIMEOUT:
                said = said or f"its own time limit ended it after {result.duration_s:.0f} s"
            yield _Finding(name, leaf.status, said, "\n".join(leaf.diagnostics), leaf.rate)
    for name in leaves:
        yield _Finding(name, Status.BROKEN, f"{result.case} does not declare this subtest", evidence)


def _judge_selftest(result: CaseResult) -> Iterator[_Finding]:
    """A finding for each result that the stream's own plan promised; a single one when it can not be trusted.

    What kselftest.h makes of an end is allowed for: a last Bail out! that counts failures told before,
    and a last result without a name that skips what has not been run.
    """
    stream = parse_ktap(result.stdout, is_foreign=True)
    evidence = (result.stdout + result.stderr)[-2000:]
    named = _name_leaves(result.case, stream)
    all_ok = all(leaf.ok for _, leaf in named)
    has_skipped_rest = bool(
        result.exit_status == _KSFT_SKIP
        and named
        and (named[-1][1].name, named[-1][1].status) == ("", Status.SKIP)
    )
    problems = [
        problem
        for problem in stream.problems
        if not (has_skipped_rest and problem.startswith("plan says "))
        and not (stream.plan == len(stream.results) and not all_ok and problem.startswith("Bail out!"))
    ]
    expected = {0} if all_ok else {_KSFT_FAIL}
    if has_skipped_rest or stream.plan == 0:
        expected.add(_KSFT_SKIP)
    if doubt := _find_doubt(result):
        yield _Finding(result.case, doubt.status, doubt.reason, doubt.evidence)
    elif problems:
        reason = f"{_find_oom(result)}{'; '.join(problems)}"
        yield _Finding(result.case, Status.BROKEN, reason, evidence)
    elif result.exit_status not in expected:
        reason = f"says {'ok' if all_ok else 'not ok'} and exits with {result.exit_status}"
        yield _Finding(result.case, Status.BROKEN, reason, evidence)
    elif stream.plan == 0:
        yield _Finding(result.case, Status.SKIP, stream.skip or "")
    else:
        for name, leaf in named:
            said = "; ".join(text for text in (leaf.name, leaf.reason) if text not in name)
            yield _Finding(name, leaf.status, said, "\n".join(leaf.diagnostics))


def _name_leaves(case: str, stream: Ktap) -> list[tuple[str, Result]]:
    """The results under names of which no two are the same, by what was announced and what the lines say.

    Where a single result follows an announcement that is its name, because what the line says then depends on
    how it went.
    """
    announced, titled = "", []
    for name, leaf in stream.flatten():
        for text in leaf.diagnostics:
            announced = text.removeprefix(_ANNOUNCED).strip() if text.startswith(_ANNOUNCED) else announced
        # what is skipped may have its name where the reason goes
        said = name if leaf.name else "" if announced else leaf.reason
        titled.append((announced, said, leaf))
    share = Counter(title for title, _, _ in titled)
    times: Counter[str] = Counter()
    named: list[tuple[str, Result]] = []
    for title, said, leaf in titled:
        told = (title, said) if not title or share[title] > 1 else (title,)
        name = "/".join((case, *filter(None, told)))
        times[name] += 1
        named.append((f"{name} ({times[name]})" if times[name] > 1 else name, leaf))
    return named


def _find_doubt(result: CaseResult) -> _Finding | None:
    """What outweighs anything that the case says of itself."""
    log = parse_console(result.console)
    end = max((m.line_number for m in log.markers if m.action == "end"), default=log.lines)
    core = f"the guest's memory: {result.core}\n" if result.core else ""
    shown = f"{core}{result.console[-4000:]}\n{result.said[-4000:]}"
    if log.faults:
        titles = "; ".join(dict.fromkeys(splat.title for splat in log.faults))
        if all(splat.line_number > end for splat in log.faults):
            titles += " (after the end of the case)"
        excerpts = "\n".join(splat.excerpt for splat in log.faults)[:8000]
        return _Finding("", Status.CRASH, titles, core + excerpts)
    if log.panic:
        return _Finding("", Status.CRASH, log.panic, shown)
    if result.ended is not Ended.EXIT:
        return _Finding("", *_judge_ending(result, log), shown)
    if result.taint_before is None or result.taint_after is None:
        return _Finding("", Status.BROKEN, "the kernel's taint could not be read")
    marks = {(marker.action, marker.case) for marker in log.markers}
    if not {("begin", result.case), ("end", result.case)} <= marks:
        return _Finding("", Status.BROKEN, "the kernel log did not reach the console", result.console[-4000:])
    if result.console_lost:
        reason = f"the kernel log was flooded, {result.console_lost} bytes of it were not looked at"
        return _Finding("", Status.BROKEN, reason, result.console[-4000:])
    gained = result.taint_after & ~result.taint_before
    letters = "".join(letter for bit, letter in _BAD_TAINT.items() if gained & bit)
    if letters:
        return _Finding("", Status.CRASH, f"the kernel became tainted ({letters})", result.console[-4000:])
    return None


def _judge_ending(result: CaseResult, log: ConsoleLog) -> tuple[Status, str]:
    """What it means that a case did not come to its end, when the kernel had nothing to complain of."""
    match result.ended:
        case Ended.TIMEOUT:
            return Status.TIMEOUT, f"not done after {result.duration_s:.0f} s; {result.how}"
        case Ended.HANG:
            return Status.CRASH, f"the guest hangs, without a word: it {result.how}"
        case Ended.SSH_LOST:
            return Status.BROKEN, f"{_find_oom(result)}SSH was lost, the kernel lives: {result.how}"
        case Ended.FLOOD:
            return Status.BROKEN, f"the guest flooded the console and was ended: {result.how}"
        case Ended.RESET if not any(milestone.name == "restart" for milestone in log.milestones):
            return Status.CRASH, f"the guest reset without a word, as by a triple fault: {result.how}"
        case _:
            return Status.BROKEN, f"the guest was shut down from within before the case ended: {result.how}"


def _find_oom(result: CaseResult) -> str:
    """The OOM killer's words, as the beginning of a reason; empty when it did nothing."""
    kills = [splat for splat in parse_console(result.console).splats if splat.kind is SplatKind.OOM]
    return f"the guest ran out of memory ({kills[-1].title}); " if kills else ""
