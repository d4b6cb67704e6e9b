# SPDX-License-Identifier: GPL-2.0-or-later
"""What overrides a test's own results: a splat, a lost guest, taint, a kernel log that is not whole."""

import fnmatch
from collections import Counter
from collections.abc import Sequence

from orchestrator.parse.codeplace import add_source_lines
from orchestrator.parse.console import ConsoleLog
from orchestrator.parse.printk import make_printable
from orchestrator.parse.splat import Splat, SplatKind
from orchestrator.result.finding import Finding, find_oom
from orchestrator.result.record import Ended, Known, TrialResult
from orchestrator.status import Status

# taint bits that a healthy kernel never sets: bad page, oops, WARN, soft lockup, machine check
_BAD_TAINT = {1 << 4: "M", 1 << 5: "B", 1 << 7: "D", 1 << 9: "W", 1 << 14: "L"}
# the taint that a splat sets; W for all others
_TAINT_OF = {
    SplatKind.BAD_PAGE: "B", SplatKind.OOPS: "D", SplatKind.BUG: "D", SplatKind.SOFT_LOCKUP: "L",
}  # fmt: skip


def find_override(result: TrialResult, known: tuple[Known, ...]) -> Finding | None:
    """The finding that overrides the test's own results: a splat, a lost guest, taint, a missing log."""
    log = result.log
    ends = [marker.line_number for marker in log.markers if marker.action == "end"]
    end = max(ends, default=log.lines)
    core = f"the guest's memory: {result.core}\n" if result.core else ""
    shown = _show(f"{core}{result.console[-4000:]}\n{result.said[-4000:]}", result)
    faults, ignored = _split_faults(log, known)
    # a kernel that has panicked does not run the test to its end
    forged = [
        splat
        for splat in faults
        if splat.kind is SplatKind.PANIC and ends and splat.line_number < end and result.ended is Ended.EXIT
    ]
    faults = [splat for splat in faults if splat not in forged]
    if faults:
        titles = _name_faults(faults)
        if all(splat.line_number > end for splat in faults):
            titles += " (after the end of the test)"
        excerpts = "\n".join({splat.fingerprint: splat.excerpt for splat in reversed(faults)}.values())[:8000]
        evidence = _show(core + excerpts, result)
        return Finding("", Status.CRASH, titles, evidence, fingerprint=faults[0].fingerprint)
    if forged:
        reason = f"a program wrote to the kernel log, which goes on after it: {_name_faults(forged)}"
        return Finding("", Status.BROKEN, reason, shown)
    if log.panic:
        return Finding("", Status.CRASH, log.panic, shown)
    if result.ended is not Ended.EXIT:
        return Finding("", *_judge_ending(result, log), shown)
    if result.taint_before is None or result.taint_after is None:
        return Finding("", Status.BROKEN, "the taint of the kernel could not be read")
    marks = {(marker.action, marker.test) for marker in log.markers}
    if not {("begin", result.test), ("end", result.test)} <= marks:
        return Finding("", Status.BROKEN, "the kernel log did not reach the console", result.console[-4000:])
    if result.console_lost:
        reason = f"the kernel log was flooded: {result.console_lost} bytes were not checked"
        return Finding("", Status.BROKEN, reason, result.console[-4000:])
    gained = result.taint_after & ~result.taint_before
    expected = {_TAINT_OF.get(splat.kind, "W") for splat, _ in ignored}
    letters = "".join(letter for bit, letter in _BAD_TAINT.items() if gained & bit and letter not in expected)
    if letters:
        return Finding("", Status.CRASH, f"the kernel became tainted ({letters})", result.console[-4000:])
    return None


def list_known(trials: Sequence[TrialResult], known: tuple[Known, ...]) -> tuple[str, ...]:
    """The known issues that were ignored, each once, as text."""
    texts = (
        f"{make_printable(splat.title)} ({splat.fingerprint}): {why}"
        for result in trials
        for splat, why in _split_faults(result.log, known)[1]
    )
    return tuple(dict.fromkeys(texts)) if known else ()


def _split_faults(log: ConsoleLog, known: tuple[Known, ...]) -> tuple[list[Splat], list[tuple[Splat, str]]]:
    """The faults in a log, and the known issues, each with its reason."""
    faults: list[Splat] = []
    ignored: list[tuple[Splat, str]] = []
    for splat in log.faults:
        why = next((k.why for k in known if fnmatch.fnmatchcase(splat.fingerprint, k.fingerprint)), None)
        if why is None:
            faults.append(splat)
        else:
            ignored.append((splat, why))
    return faults, ignored


def _name_faults(faults: Sequence[Splat]) -> str:
    """Each fault once, by fingerprint, with its number of occurrences."""
    count = Counter(splat.fingerprint for splat in faults)
    titles = {splat.fingerprint: splat.title for splat in reversed(faults)}
    return "; ".join(
        f"{titles[name]} ({number} times)" if number > 1 else titles[name] for name, number in count.items()
    )


def _show(log: str, result: TrialResult) -> str:
    return add_source_lines(log, result.source_lines)


def _judge_ending(result: TrialResult, log: ConsoleLog) -> tuple[Status, str]:
    """The outcome of a test that did not end, if the kernel printed no splat."""
    match result.ended:
        case Ended.TIMEOUT:
            return Status.TIMEOUT, f"not done after {result.duration_s:.0f} s; {result.how}"
        case Ended.HANG:
            return Status.CRASH, f"the guest hangs with no console output: it {result.how}"
        case Ended.SSH_LOST:
            return Status.BROKEN, f"{find_oom(result)}SSH was lost, but the kernel runs: {result.how}"
        case Ended.FLOOD:
            return Status.BROKEN, f"the guest flooded the console and was killed: {result.how}"
        case Ended.RESET if not any(milestone.name == "restart" for milestone in log.milestones):
            return Status.CRASH, f"guest reset with no console output (triple fault?): {result.how}"
        case _:
            return Status.BROKEN, f"the guest shut itself down before the test ended: {result.how}"
