# SPDX-License-Identifier: GPL-2.0-or-later
"""Derives findings, one per subtest, from one result of a test.

A test passes only on positive evidence: a complete KTAP stream whose plan is met, exit status 0, a guest that
still answers, a kernel log without a splat, and no new taint. Missing or contradicting evidence is BROKEN; a
splat is a CRASH. The results of kernel selftests are not declared, so the plan of their stream must be met.
"""

import fnmatch
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.parse.console import ConsoleLog, parse_console
from orchestrator.parse.ktap import Ktap, KtapResult, Rate, parse_ktap
from orchestrator.parse.printk import make_printable
from orchestrator.parse.splat import Splat, SplatKind
from orchestrator.result.record import Ended, Known, TrialResult
from orchestrator.status import Status

# taint bits that a healthy kernel never sets: bad page, oops, WARN, soft lockup, machine check
_BAD_TAINT = {1 << 4: "M", 1 << 5: "B", 1 << 7: "D", 1 << 9: "W", 1 << 14: "L"}
# what a complaint leaves behind; a WARN where it is none of these
_TAINT_OF = {
    SplatKind.BAD_PAGE: "B", SplatKind.OOPS: "D", SplatKind.BUG: "D", SplatKind.SOFT_LOCKUP: "L",
}  # fmt: skip
# how the kernel's selftests end, and announce what they run (tools/testing/selftests/kselftest.h)
_KSFT_FAIL, _KSFT_SKIP = 1, 4
_ANNOUNCED = "[RUN] "


@dataclass(frozen=True, slots=True)
class Finding:
    """What one subtest came to in one trial. ``fingerprint`` is that of the kernel's first complaint."""

    name: str
    status: Status
    reason: str
    evidence: str = ""
    rate: Rate | None = None
    trial: int = 1
    fingerprint: str = ""


def judge_result(
    result: TrialResult, subtests: tuple[str, ...], known: tuple[Known, ...]
) -> Iterator[Finding]:
    """A finding for each subtest that the test declares, and one for whatever else is wrong."""
    if not subtests:
        yield from _judge_selftest(result, known)
        return
    stream = parse_ktap(result.stdout)
    leaves = dict(stream.flatten())
    doubt = _find_doubt(result, known)
    problems = "; ".join(stream.problems)
    evidence = (result.stdout + result.stderr)[-2000:]
    all_ok = all(leaf.ok for leaf in leaves.values())
    for name in subtests:
        leaf = leaves.pop(name, None)
        if doubt and (leaf is None or leaf.status is not Status.SKIP):
            yield replace(doubt, name=name)
        elif leaf is None or not stream.is_complete:
            reason = f"{_find_oom(result)}{problems or 'no result line'}"
            yield Finding(name, Status.BROKEN, reason, evidence)
        elif all_ok != (result.exit_status == 0):
            reason = f"says {'ok' if all_ok else 'not ok'} and exits with {result.exit_status}"
            yield Finding(name, Status.BROKEN, reason, evidence)
        else:
            # the rate is told with how sure it is
            lines = [line for line in leaf.diagnostics if not line.startswith("rate: ")]
            said = leaf.reason or (lines[-1] if lines else "")
            if leaf.status is Status.TIMEOUT:
                said = said or f"its own time limit ended it after {result.duration_s:.0f} s"
            yield Finding(name, leaf.status, said, "\n".join(leaf.diagnostics), leaf.rate)
    for name in leaves:
        yield Finding(name, Status.BROKEN, f"{result.test} does not declare this subtest", evidence)


def _judge_selftest(result: TrialResult, known: tuple[Known, ...]) -> Iterator[Finding]:
    """A finding for each result that the stream's own plan promised; a single one when it can not be trusted.

    What kselftest.h makes of an end is allowed for: a last Bail out! that counts failures told before,
    and a last result without a name that skips what has not been run.
    """
    stream = parse_ktap(result.stdout, is_foreign=True)
    evidence = (result.stdout + result.stderr)[-2000:]
    named = _name_leaves(result.test, stream)
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
    if doubt := _find_doubt(result, known):
        yield replace(doubt, name=result.test)
    elif problems:
        reason = f"{_find_oom(result)}{'; '.join(problems)}"
        yield Finding(result.test, Status.BROKEN, reason, evidence)
    elif result.exit_status not in expected:
        reason = f"says {'ok' if all_ok else 'not ok'} and exits with {result.exit_status}"
        yield Finding(result.test, Status.BROKEN, reason, evidence)
    elif stream.plan == 0:
        yield Finding(result.test, Status.SKIP, stream.skip or "")
    else:
        for name, leaf in named:
            said = "; ".join(text for text in (leaf.name, leaf.reason) if text not in name)
            yield Finding(name, leaf.status, said, "\n".join(leaf.diagnostics))


def _name_leaves(test: str, stream: Ktap) -> list[tuple[str, KtapResult]]:
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
    named: list[tuple[str, KtapResult]] = []
    for title, said, leaf in titled:
        told = (title, said) if not title or share[title] > 1 else (title,)
        name = "/".join((test, *filter(None, told)))
        times[name] += 1
        named.append((f"{name} ({times[name]})" if times[name] > 1 else name, leaf))
    return named


def _split_faults(log: ConsoleLog, known: tuple[Known, ...]) -> tuple[list[Splat], list[tuple[Splat, str]]]:
    """The kernel's faults, and those of its complaints that are known to be none, with why."""
    faults: list[Splat] = []
    passed: list[tuple[Splat, str]] = []
    for splat in log.faults:
        why = next((k.why for k in known if fnmatch.fnmatchcase(splat.fingerprint, k.fingerprint)), None)
        if why is None:
            faults.append(splat)
        else:
            passed.append((splat, why))
    return faults, passed


def list_known(trials: Sequence[TrialResult], known: tuple[Known, ...]) -> tuple[str, ...]:
    """What was passed over, each once, as the reports tell it."""
    told = (
        f"{make_printable(splat.title)} ({splat.fingerprint}): {why}"
        for result in trials
        for splat, why in _split_faults(parse_console(result.console), known)[1]
    )
    return tuple(dict.fromkeys(told)) if known else ()


def _name_faults(faults: Sequence[Splat]) -> str:
    """Each fault once, by its fingerprint, with how often it came."""
    count = Counter(splat.fingerprint for splat in faults)
    titles = {splat.fingerprint: splat.title for splat in reversed(faults)}
    return "; ".join(
        f"{titles[name]} ({number} times)" if number > 1 else titles[name] for name, number in count.items()
    )


def _find_doubt(result: TrialResult, known: tuple[Known, ...]) -> Finding | None:
    """What outweighs anything that the test says of itself."""
    log = parse_console(result.console)
    end = max((m.line_number for m in log.markers if m.action == "end"), default=log.lines)
    core = f"the guest's memory: {result.core}\n" if result.core else ""
    shown = f"{core}{result.console[-4000:]}\n{result.said[-4000:]}"
    faults, passed = _split_faults(log, known)
    if faults:
        titles = _name_faults(faults)
        if all(splat.line_number > end for splat in faults):
            titles += " (after the end of the test)"
        excerpts = "\n".join({splat.fingerprint: splat.excerpt for splat in reversed(faults)}.values())[:8000]
        return Finding("", Status.CRASH, titles, core + excerpts, fingerprint=faults[0].fingerprint)
    if log.panic:
        return Finding("", Status.CRASH, log.panic, shown)
    if result.ended is not Ended.EXIT:
        return Finding("", *_judge_ending(result, log), shown)
    if result.taint_before is None or result.taint_after is None:
        return Finding("", Status.BROKEN, "the kernel's taint could not be read")
    marks = {(marker.action, marker.test) for marker in log.markers}
    if not {("begin", result.test), ("end", result.test)} <= marks:
        return Finding("", Status.BROKEN, "the kernel log did not reach the console", result.console[-4000:])
    if result.console_lost:
        reason = f"the kernel log was flooded, {result.console_lost} bytes of it were not looked at"
        return Finding("", Status.BROKEN, reason, result.console[-4000:])
    gained = result.taint_after & ~result.taint_before
    excused = {_TAINT_OF.get(splat.kind, "W") for splat, _ in passed}
    letters = "".join(letter for bit, letter in _BAD_TAINT.items() if gained & bit and letter not in excused)
    if letters:
        return Finding("", Status.CRASH, f"the kernel became tainted ({letters})", result.console[-4000:])
    return None


def _judge_ending(result: TrialResult, log: ConsoleLog) -> tuple[Status, str]:
    """What it means that a test did not come to its end, when the kernel had nothing to complain of."""
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
            return Status.BROKEN, f"the guest was shut down from within before the test ended: {result.how}"


def _find_oom(result: TrialResult) -> str:
    """The OOM killer's words, as the beginning of a reason; empty when it did nothing."""
    kills = [splat for splat in parse_console(result.console).splats if splat.kind is SplatKind.OOM]
    return f"the guest ran out of memory ({kills[-1].title}); " if kills else ""
