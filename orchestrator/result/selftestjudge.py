# SPDX-License-Identifier: GPL-2.0-or-later
"""Judges a kernel selftest, a finding for each result of each run.

The results are not declared, so the plan of each stream must be met; a run that prints none is judged by its
exit status.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from orchestrator.parse.ktap import Ktap, KtapResult
from orchestrator.parse.selftest import SelftestOutput, SelftestRun, parse_selftest
from orchestrator.result.finding import Finding, find_cause, find_oom, name_failed
from orchestrator.result.override import find_override
from orchestrator.result.programjudge import NOT_STARTED, judge_program_end
from orchestrator.result.record import Known, TrialResult
from orchestrator.result.resultname import name_leaves
from orchestrator.status import Status

# tools/testing/selftests/kselftest.h
_KSFT_FAIL, _KSFT_SKIP = 1, 4
# what a shell adds to the number of the signal that killed a program
_SIGNALS = 128
# what bash says; what dash and busybox say
_MISSING = re.compile(
    r"^(?:.*: ([\w.+/-]+): command not found|(?:\S+: \d+|\S*sh): ([\w.+/-]+): not found)$", re.MULTILINE
)


def judge_selftest(result: TrialResult, known: tuple[Known, ...]) -> Iterator[Finding]:
    """A finding for each result of each run of a selftest; one for a run without a valid stream."""
    evidence = (result.stdout + result.stderr)[-2000:]
    told = parse_selftest(result.stdout)
    if override := find_override(result, known):
        yield replace(override, name=result.test)
    elif told.kind:
        status = Status.SKIP if told.kind == "skip" else Status.BROKEN
        yield Finding(result.test, status, told.why, evidence)
    elif not told.runs:
        yield _judge_without_run(result, told, evidence)
    else:
        end = result.program_end
        is_whole = end is not None and end.status == 0 and told.status is not None
        names: Counter[str] = Counter()
        for run in told.runs:
            name = f"{result.test}/{run.arguments}" if run.arguments else result.test
            names[name] += 1
            yield from _judge_run(_number(name, names[name]), run, result)
        if not is_whole and told.runs[-1].status is not None:
            # the script that starts the programs ended before its last line
            status, reason = judge_program_end(result)
            status = status if status.is_bad else Status.BROKEN
            yield Finding(f"{result.test}/end", status, reason or "its script did not end", evidence)


def _judge_without_run(result: TrialResult, told: SelftestOutput, evidence: str) -> Finding:
    """The finding of a selftest of which no program was started."""
    last = next((line for line in reversed(told.other.splitlines()) if line.strip()), "").strip("# ")
    text = f": {last[:200]}" if last else ""
    if told.status is None:
        status, reason = judge_program_end(result)
        if not status.is_bad:
            status, reason = Status.BROKEN, "it has no end"
        return Finding(result.test, status, f"{reason}{text}", evidence)
    if told.status in (0, _KSFT_SKIP):
        return Finding(result.test, Status.SKIP, f"its run script does not start it here{text}", evidence)
    reason = f"its run script ended with status {told.status} before it started the program{text}"
    return Finding(result.test, Status.BROKEN, reason, evidence)


def _judge_run(name: str, run: SelftestRun, result: TrialResult) -> Iterator[Finding]:
    """The findings of one run: by its streams where it has any, else by its exit status."""
    evidence = run.output[-2000:]
    if run.status is None:
        status, reason = judge_program_end(result)
        if not status.is_bad:
            status, reason = Status.BROKEN, f"{find_cause(result)}the run has no end"
        yield Finding(name, status, reason + name_failed(_name_streams(name, run.streams)), evidence)
        return
    named = _name_streams(name, run.streams)
    streams = run.streams
    all_ok = all(leaf.ok for _, leaf in named)
    has_skipped_rest = run.status == _KSFT_SKIP and bool(streams) and streams[-1].has_skipped_rest
    problems = [
        text
        for stream in streams
        for text in stream.list_foreign_problems(may_skip_rest=has_skipped_rest and stream is streams[-1])
    ]
    expected = {0} if all_ok else {_KSFT_FAIL}
    if has_skipped_rest or (streams and streams[-1].plan == 0):
        expected.add(_KSFT_SKIP)
    if not streams:
        yield _judge_status(name, run, result)
    elif problems:
        reason = f"{find_cause(result)}{'; '.join(problems)}{_describe_status(run.status)}"
        yield Finding(name, Status.BROKEN, f"{reason}{name_failed(named)}", evidence)
    elif run.status not in expected and not (len(streams) > 1 and run.status == 0):
        reason = f"reports {'ok' if all_ok else 'not ok'}, but exits with {run.status}"
        yield Finding(name, Status.BROKEN, f"{reason}{name_failed(named)}", evidence)
    elif not named:
        yield Finding(name, Status.SKIP, next((stream.skip or "" for stream in streams), ""), evidence)
    else:
        for full, leaf in named:
            reason = "; ".join(text for text in (leaf.name.lstrip(": "), leaf.reason) if text not in full)
            yield Finding(full, leaf.status, reason, "\n".join(leaf.diagnostics))


def _judge_status(name: str, run: SelftestRun, result: TrialResult) -> Finding:
    """The finding of a run that prints no stream, as kselftest/runner.sh judges it."""
    evidence = run.output[-2000:]
    last = next((line.strip() for line in reversed(run.output.split("\n")) if line.strip()), "")
    text = f": {last[:200]}" if last else ""
    missing = dict.fromkeys(one or other for one, other in _MISSING.findall(run.output))
    if missing and run.status in range(_SIGNALS) and run.status != _KSFT_SKIP:
        reason = f"exit status {run.status}, and the guest has no {', '.join(missing)}"
        return Finding(name, Status.BROKEN, reason, evidence)
    match run.status:
        case 0:
            return Finding(name, Status.PASS, "", evidence)
        case 4:
            return Finding(name, Status.SKIP, last[:200] or "exit status 4", evidence)
        case 126 | 127:
            reason = (
                f"exit status {run.status}: a command that it uses {NOT_STARTED[run.status]} in the guest"
            )
            return Finding(name, Status.BROKEN, f"{reason}{text}", evidence)
        case int(status) if status > _SIGNALS:
            oom = find_oom(result) if status == _SIGNALS + 9 else ""
            outcome = Status.BROKEN if oom else Status.FAIL
            return Finding(name, outcome, f"{oom}killed by signal {status - _SIGNALS}{text}", evidence)
    return Finding(name, Status.FAIL, f"exit status {run.status}{text}", evidence)


def _name_streams(name: str, streams: Sequence[Ktap]) -> list[tuple[str, KtapResult]]:
    """The results of all streams of a run, with unique names."""
    found: list[tuple[str, KtapResult]] = []
    times: Counter[str] = Counter()
    for stream in streams:
        for full, leaf in name_leaves(name, stream):
            times[full] += 1
            found.append((_number(full, times[full]), leaf))
    return found


def _number(name: str, number: int) -> str:
    return f"{name} ({number})" if number > 1 else name


def _describe_status(status: int) -> str:
    """The end of a run whose results are not complete, as the end of a reason."""
    if status > _SIGNALS:
        return f"; killed by signal {status - _SIGNALS}"
    return f"; exit status {status}" if status else ""
